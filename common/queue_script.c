/* Scripts are put together once per process: the names of the keys come behind the first line
 * (#!lua), a library where a line says "-- include <library>", a number of queue.h where one says
 * "-- define <name>", and a batch's next keys where one says "-- next task". */
#include "common/queue_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "schemas/mem.h"

extern const char script_lib[], script_lib_line[], script_lib_ready[], script_lib_over[],
    script_lib_dead[], script_lib_hmget[], script_lib_nodes[], script_lib_run[],
    script_lib_budget[];
#define X(name, keys) extern const char script_##name[];
QUEUE_SCRIPTS(X)
#undef X

#define TEXT(number) #number
#define VALUE(number) TEXT(number)

static const struct {
    const char *include, *source;
} libraries[] = {
    {"-- include lib\n", script_lib},
    {"-- include lib_line\n", script_lib_line},
    {"-- include lib_ready\n", script_lib_ready},
    {"-- include lib_over\n", script_lib_over},
    {"-- include lib_dead\n", script_lib_dead},
    {"-- include lib_hmget\n", script_lib_hmget},
    {"-- include lib_nodes\n", script_lib_nodes},
    {"-- include lib_run\n", script_lib_run},
    {"-- include lib_budget\n", script_lib_budget},
    {"-- define QUEUE_WAITS_MAX\n", "local QUEUE_WAITS_MAX = " VALUE(QUEUE_WAITS_MAX) "\n"},
    {"-- define QUEUE_LOSSES_MAX\n", "local QUEUE_LOSSES_MAX = " VALUE(QUEUE_LOSSES_MAX) "\n"},
};

static const struct {
    const char *name, *source, *keys;
} scripts[SCRIPT_COUNT] = {
#define X(name, keys) {#name, script_##name, keys},
    QUEUE_SCRIPTS(X)
#undef X
};

/* What these have written was promised to someone, who may act on it: with `replicas`, they are
 * answered when the replicas have it. What claims, renewals and
 * reservations have written may be lost: the attempt runs on, and its commit is what counts. */
static const bool survives[SCRIPT_COUNT] = {
    [SCRIPT_submit] = true, [SCRIPT_commit] = true, [SCRIPT_expand] = true, [SCRIPT_lose] = true,
    [SCRIPT_fail] = true,   [SCRIPT_bury] = true,   [SCRIPT_hold] = true,   [SCRIPT_release] = true,
    [SCRIPT_cancel] = true, [SCRIPT_retry] = true,
};

/* task_key, data_key */
static int add_names(struct buf *out, const char *keys)
{
    int n = 0;
    for (const char *at = keys; *at != '\0'; at += strspn(at, " ")) {
        size_t len = strcspn(at, " ");
        buf_printf(out, "%s%.*s_key", n == 0 ? "" : ", ", (int)len, at);
        at += len;
        n++;
    }
    return n;
}

/* local task_key, data_key = KEYS[1], KEYS[2]; in a batch they change with the task. */
static void add_keys(struct buf *out, enum queue_script script)
{
    if (scripts[script].keys[0] == '\0')
        return;
    buf_add_str(out, "local ");
    int n = add_names(out, scripts[script].keys);
    if (script < QUEUE_BATCH_COUNT) {
        buf_add_str(out, "\nlocal T, last\nlocal at, n_keys = 1, 0\n");
        return;
    }
    for (int i = 1; i <= n; i++)
        buf_printf(out, "%s KEYS[%d]", i == 1 ? " =" : ",", i);
    buf_add_str(out, "\nlocal T = ARGV[1]\n");
}

/* A batch's tasks: their keys come one after the other, and in ARGV the task, the number of its
 * arguments and these. */
static void add_next_task(struct buf *out, enum queue_script script)
{
    int n = add_names(out, scripts[script].keys);
    for (int i = 1; i <= n; i++)
        buf_printf(out, "%s KEYS[n_keys + %d]", i == 1 ? " =" : ",", i);
    buf_printf(out,
               "\nT, last, at, n_keys = ARGV[at], at + 1 + ARGV[at + 1], at + 2, n_keys + %d\n", n);
}

/* Adds a line of a script, or the library that it includes. */
static void add_line(struct buf *out, enum queue_script script, const char *line, size_t len)
{
    static const char next_task[] = "    -- next task\n";
    if (len == strlen(next_task) && memcmp(next_task, line, len) == 0) {
        add_next_task(out, script);
        return;
    }
    size_t indent = strspn(line, " ");
    for (size_t i = 0; i < sizeof libraries / sizeof *libraries && indent < len; i++)
        if (strlen(libraries[i].include) == len - indent &&
            memcmp(libraries[i].include, line + indent, len - indent) == 0) {
            buf_add_str(out, libraries[i].source);
            return;
        }
    buf_add(out, line, len);
}

static char *assemble(enum queue_script script)
{
    struct buf out = {0};
    const char *at = scripts[script].source;
    for (bool first = true; *at != '\0'; first = false) {
        size_t len = strcspn(at, "\n");
        len += at[len] == '\n';
        add_line(&out, script, at, len);
        if (first)
            add_keys(&out, script);
        at += len;
    }
    if (out.failed)
        abort(); /* out of memory */
    return buf_take(&out, NULL);
}

struct redis_script *queue_script(enum queue_script script)
{
    static struct redis_script made[SCRIPT_COUNT];
    if (made[script].source == NULL) {
        made[script].name = scripts[script].name;
        made[script].survives = survives[script];
        made[script].source = assemble(script);
    }
    return &made[script];
}
