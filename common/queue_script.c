/* Scripts are put together once per process: the first line (#!lua) of the file, the names of its
 * keys, the libraries it uses, the rest of the file. */
#include "common/queue_internal.h"

#include <stdio.h>
#include <string.h>

#include "schemas/mem.h"

extern const char script_lib[], script_lib_ready[], script_lib_nodes[], script_lib_over[];
#define X(name, libraries, keys) extern const char script_##name[];
QUEUE_SCRIPTS(X)
#undef X

static const struct {
    int bit;
    const char *source;
} libraries[] = {
    {1, script_lib},
    {2, script_lib_ready},
    {4, script_lib_nodes},
    {8, script_lib_over},
};

static const struct {
    const char *name, *source, *keys;
    int libraries;
} scripts[SCRIPT_COUNT] = {
#define X(name, libraries, keys) {#name, script_##name, keys, libraries},
    QUEUE_SCRIPTS(X)
#undef X
};

/* local task_key, sub_key = KEYS[1], KEYS[2] */
static void add_keys(struct buf *out, const char *keys)
{
    int n = 0;
    for (const char *at = keys; *at != '\0'; at += strspn(at, " ")) {
        size_t len = strcspn(at, " ");
        buf_printf(out, "%s %.*s_key", n == 0 ? "local" : ",", (int)len, at);
        at += len;
        n++;
    }
    for (int i = 1; i <= n; i++)
        buf_printf(out, "%s KEYS[%d]", i == 1 ? " =" : ",", i);
    buf_add_char(out, '\n');
}

static char *assemble(enum queue_script script)
{
    const char *source = scripts[script].source;
    size_t shebang = strcspn(source, "\n") + 1;
    struct buf out = {0};
    buf_add(&out, source, shebang);
    add_keys(&out, scripts[script].keys);
    for (size_t i = 0; i < sizeof libraries / sizeof *libraries; i++)
        if ((scripts[script].libraries & libraries[i].bit) != 0)
            buf_add_str(&out, libraries[i].source);
    buf_add_str(&out, source + shebang);
    if (out.failed)
        return mem_must_strdup("");
    return buf_take(&out, NULL);
}

struct redis_script *queue_script(enum queue_script script)
{
    static struct redis_script made[SCRIPT_COUNT];
    if (made[script].source == NULL) {
        made[script].name = scripts[script].name;
        made[script].source = assemble(script);
    }
    return &made[script];
}
