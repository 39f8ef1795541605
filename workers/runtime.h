/* A local runtime that a GPU-pinned worker owns: started, watched, started again, ended with it. */
#ifndef WORKERS_RUNTIME_H
#define WORKERS_RUNTIME_H

#include <stdbool.h>
#include <stddef.h>

#include "common/err.h"
#include "common/loop.h"
#include "workers/http.h"

struct runtime;

/* Healthy: the health URL answered 2xx (without one: the process runs). Called on each change. */
typedef void runtime_health_fn(void *ctx, bool healthy);

struct runtime_options {
    uv_loop_t *loop;
    struct http *http;
    const char *name;  /* of the worker, for messages */
    char *const *argv; /* n_argv words; the first is searched in PATH */
    size_t n_argv;
    const char *health;       /* URL, or NULL */
    const char *gpu;          /* index or UUID, or NULL */
    const char *log;          /* file that its output is appended to */
    int64_t first_backoff_ms; /* before it is started again; doubles up to 30 s; 0: 500 */
};

/* Starts it; all options are borrowed for its life. The process gets CUDA_VISIBLE_DEVICES and the
 * CPUs near the GPU, a process group of its own, and dies with this process. It is started again
 * whenever it ends. 0 or a negative errno with a sentence when it cannot be started at all. */
int runtime_open(struct runtime **ret, const struct runtime_options *options,
                 runtime_health_fn *health, void *ctx, struct err *err);
bool runtime_healthy(const struct runtime *runtime);
/* Ends the process group: SIGTERM, after 5 s SIGKILL; blocks until the process is gone. Accepts
 * NULL. */
void runtime_close(struct runtime **runtime);

#endif
