/* A local runtime that a GPU-pinned worker owns: started, watched, started again, ended with it. */
#ifndef WORKERS_RUNTIME_H
#define WORKERS_RUNTIME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "common/loop.h"
#include "workers/http.h"

struct runtime;

/* Healthy: the health URL answered 2xx (without one: the process runs). Called on each change. */
typedef void runtime_health_fn(void *ctx, bool healthy);
/* What people may want to know. what: "loading" (with how long it has taken and what the runtime
 * said last, every few seconds), "warm", or "note". */
typedef void runtime_news_fn(void *ctx, const char *what, const char *text);
/* Whether calls are under way, for which a restart waits. */
typedef bool runtime_busy_fn(void *ctx);

struct runtime_options {
    uv_loop_t *loop;
    struct http *http;
    const char *name;  /* of the worker, for messages */
    char *const *argv; /* n_argv words; the first is searched in PATH */
    size_t n_argv;
    const char *health;        /* URL, or NULL */
    const char *gpu;           /* index or UUID, or NULL */
    const char *root;          /* of /proc and /sys, where its CPUs are found; NULL: our own */
    const char *log;           /* file that its output is appended to */
    const char *const *hidden; /* names of environment variables that it does not get: keys */
    size_t n_hidden;
    int64_t first_backoff_ms; /* before it is started again; doubles up to 30 s; 0: 500 */
    int64_t start_ms;         /* not healthy for so long, from its start: ended; 0: 600000 */
    int64_t hang_ms;          /* once healthy, silent for so long: ended; 0: 60000 */
    int64_t watch_ms; /* between two looks at a healthy one, and most time for a look; 0: a quarter
                         of hang_ms, at most 5000 */
    int64_t memory_max_bytes; /* of its process group: restarted when idle; 0: no limit */
    runtime_news_fn *news;    /* may be NULL */
    runtime_busy_fn *busy;    /* NULL: never */
};

/* Starts it; all options are borrowed for its life. The process gets CUDA_VISIBLE_DEVICES and the
 * CPUs near the GPU, a process group of its own, and all of it dies with this process. It is
 * started again whenever it ends, hangs, or does not become healthy. While something else answers
 * at its health URL it is not started: a port is taken. 0, or a negative errno with a sentence when
 * it cannot be started at all. */
int runtime_open(struct runtime **ret, const struct runtime_options *options,
                 runtime_health_fn *health, void *ctx, struct err *err);
/* Tells once more what it is doing, for those who came later. */
void runtime_tell(struct runtime *runtime);
bool runtime_healthy(const struct runtime *runtime);
/* Time from the last start until it was healthy, ms; -1: not yet. */
int64_t runtime_load_ms(const struct runtime *runtime);
/* Resident memory of its processes; 0: unknown. */
int64_t runtime_memory_bytes(const struct runtime *runtime);
/* Ends the process group: SIGTERM, after 5 s SIGKILL; blocks until the process is gone. Accepts
 * NULL. */
void runtime_close(struct runtime **runtime);

#endif
