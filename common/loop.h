/* The event loop: libuv, and the few helpers every program needs around it. */
#ifndef COMMON_LOOP_H
#define COMMON_LOOP_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "common/err.h"

/* Every process runs one loop in one thread; uv_*_t structs are embedded in the objects that use
 * them, or allocated here and freed by loop_close_free(). */

/* Opens those of the descriptors 0 to 2 that are closed, for reading nothing: what this process
 * opens later never becomes its standard output, and writing to a closed one fails as it should. */
void loop_guard_standard(void);

/* Starts a loop, with loop_guard_standard(): libuv aborts on descriptors below 3. Ends the program
 * when the system has no descriptors for it. */
void loop_init(uv_loop_t *loop);

typedef void loop_stop_fn(void *ctx, int signal);

/* Calls fn on SIGTERM and SIGINT (again each time), ignores SIGPIPE. Ends the program on failure.
 */
void loop_on_stop(uv_loop_t *loop, loop_stop_fn *fn, void *ctx);
/* Closes the handles of loop_on_stop() so that the loop can drain. */
void loop_stop_release(uv_loop_t *loop);

/* A repeating or one-shot timer on the heap; both end in loop_timer_free(), which accepts NULL and
 * nulls the pointer. fn is never called after it. */
struct loop_timer;
typedef void loop_timer_fn(void *ctx);
struct loop_timer *loop_timer_new(uv_loop_t *loop, loop_timer_fn *fn, void *ctx);
void loop_timer_start(struct loop_timer *timer, int64_t after_ms, int64_t every_ms);
void loop_timer_stop(struct loop_timer *timer);
bool loop_timer_active(const struct loop_timer *timer);
void loop_timer_free(struct loop_timer **timer);

/* Runs the loop until *flag is true or timeout_ms passed (-1: no limit). 0 or -ETIMEDOUT. */
int loop_run_until(uv_loop_t *loop, const bool *flag, int64_t timeout_ms);
/* Closes what is left on the loop, runs it empty and closes it. */
void loop_finish(uv_loop_t *loop);
/* Raises the soft limit of descriptors to the hard one. */
void loop_raise_descriptors(void);

#endif
