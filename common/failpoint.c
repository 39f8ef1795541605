#include "common/failpoint.h"

#ifdef ORCH_TESTING
#include <signal.h>
#include <stdlib.h>
#include <string.h>

void failpoint_reach(const char *name)
{
    static const char *wanted;
    static unsigned long left;
    if (wanted == NULL) {
        wanted = getenv("ORCH_FAILPOINT");
        wanted = wanted != NULL ? wanted : "";
        const char *colon = strchr(wanted, ':');
        left = colon != NULL ? strtoul(colon + 1, NULL, 10) : 1;
    }
    size_t len = strcspn(wanted, ":");
    if (strlen(name) == len && strncmp(name, wanted, len) == 0 && --left == 0)
        raise(SIGKILL);
}
#else
typedef int failpoint_unused; /* a translation unit is never empty */
#endif
