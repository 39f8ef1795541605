/* What integration tests share: a private directory, a real redis-server, processes, waiting for
 * events. Everything ends with the test, also when it fails. */
#ifndef TESTS_LIB_FIXTURE_H
#define TESTS_LIB_FIXTURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/loop.h"
#include "common/redis.h"
#include "schemas/buf.h"

struct fixture {
    char dir[64];    /* private, below TMPDIR or /tmp; removed by fixture_release() */
    pid_t pids[64];  /* processes started and not yet ended; 0: free place */
    pid_t redis_pid; /* 0: none runs */
    char redis_socket[96];
};

/* Makes the directory and sets ORCHESTRATOR_HOME to it. Ends the test program on failure. */
void fixture_init(struct fixture *fixture);
/* Ends every process (SIGKILL) and removes the directory. */
void fixture_release(struct fixture *fixture);

/* A redis-server of its own on fixture->redis_socket, AOF on; returns when it answers PING.
 * Started again after a kill, it has what it had. */
void fixture_redis_start(struct fixture *fixture);
void fixture_redis_kill(struct fixture *fixture, int signal_number);
/* The options to reach it; valid as long as the fixture. */
struct redis_options fixture_redis_options(struct fixture *fixture);

/* Starts build/bin/<argv[0]> (or an absolute path), with stdout and stderr appended to dir/<log>.
 * argv ends with NULL. */
pid_t fixture_spawn(struct fixture *fixture, const char *log, const char *const *argv);
void fixture_kill(struct fixture *fixture, pid_t pid, int signal_number); /* and reaps it */
/* Exit status of a process that ends by itself within timeout_ms; 128+n after signal n; -1: it
 * did not end. */
int fixture_wait_exit(struct fixture *fixture, pid_t pid, int64_t timeout_ms);
/* Runs a program to its end and returns its exit status; its stdout is appended to `out` (NULL:
 * dropped), its stderr to `errors` (NULL: the test's own). */
int fixture_run(struct fixture *fixture, const char *const *argv, struct buf *out,
                struct buf *errors);

/* Waits until the file (below dir unless absolute) contains the text. False after timeout_ms. */
bool fixture_wait_text(struct fixture *fixture, const char *file, const char *text,
                       int64_t timeout_ms);
/* Polls fn(ctx) every 5 ms until it is true. False after timeout_ms. */
bool fixture_wait(bool (*fn)(void *ctx), void *ctx, int64_t timeout_ms);
/* Waits until something accepts connections on 127.0.0.1:port or, with port 0, the unix socket at
 * path. */
bool fixture_wait_listen(const char *path, int port, int64_t timeout_ms);
/* A TCP port on 127.0.0.1 that was free a moment ago, and so was the one after it. */
int fixture_free_port(void);
/* Whether the name localhost can be resolved: a bare root directory may have no /etc/hosts. */
bool fixture_has_localhost(void);
/* Writes a file below dir (parents made); returns its full path, valid until the next call. */
const char *fixture_write(struct fixture *fixture, const char *name, const char *text);
/* The whole file into out (cleared first); false when it can't be read. */
bool fixture_read(const char *path, struct buf *out);

#endif
