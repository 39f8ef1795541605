#include "tests/chaos/chaos.h"
int figures_run(const struct chaos_options *options)
{
    (void)options;
    return 0;
}
