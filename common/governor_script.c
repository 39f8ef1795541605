/* The script is put together once per process: its libraries where it says "-- include NAME". */
#include "common/governor_internal.h"

#include <stdlib.h>
#include <string.h>

extern const char script_governor[], script_governor_lib[], script_governor_window[],
    script_governor_state[];

static const struct {
    const char *line, *source;
} libraries[] = {
    {"-- include governor_lib\n", script_governor_lib},
    {"-- include governor_window\n", script_governor_window},
    {"-- include governor_state\n", script_governor_state},
};

static void add_line(struct buf *out, const char *line, size_t len)
{
    for (size_t i = 0; i < sizeof libraries / sizeof *libraries; i++)
        if (strlen(libraries[i].line) == len && memcmp(libraries[i].line, line, len) == 0) {
            buf_add_str(out, libraries[i].source);
            return;
        }
    buf_add(out, line, len);
}

struct redis_script *governor_script(void)
{
    static struct redis_script made;
    if (made.source != NULL)
        return &made;
    struct buf out = {0};
    for (const char *at = script_governor; *at != '\0';) {
        size_t len = strcspn(at, "\n");
        len += at[len] == '\n';
        add_line(&out, at, len);
        at += len;
    }
    if (out.failed)
        abort(); /* out of memory */
    made.name = "governor";
    made.source = buf_take(&out, NULL);
    return &made;
}
