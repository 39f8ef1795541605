#include "common/governor.h"

#include <stdlib.h>

#include "schemas/mem.h"

struct governor {
    size_t n_keys, next;
};

int governor_open(struct governor **ret, uv_loop_t *loop, struct queue *queue,
                  const struct governor_options *options,
                  const struct governor_callbacks *callbacks, void *ctx, struct err *err)
{
    (void)loop, (void)queue, (void)callbacks, (void)ctx, (void)err;
    *ret = mem_must_zalloc(sizeof **ret);
    (*ret)->n_keys = options->n_keys;
    return 0;
}

void governor_close(struct governor **governor)
{
    free(*governor);
    *governor = NULL;
}

void governor_set_keys(struct governor *governor, const char *const *keys, size_t n_keys)
{
    (void)keys;
    governor->n_keys = n_keys;
}

void governor_acquire(struct governor *governor, const char *arm, int64_t tokens, governor_fn *fn,
                      void *ctx)
{
    (void)arm, (void)tokens;
    struct governor_permit permit = {.room = INT64_MAX, .reason = ""};
    if (governor->n_keys > 0)
        permit.key = governor->next++ % governor->n_keys;
    fn(ctx, &permit);
}

void governor_forget(struct governor *governor, void *ctx)
{
    (void)governor, (void)ctx;
}

void governor_settle(struct governor *governor, const struct governor_permit *permit,
                     const char *arm, const struct governor_report *report)
{
    (void)governor, (void)permit, (void)arm, (void)report;
}

bool governor_arm_open(const struct governor *governor, const char *arm)
{
    (void)governor, (void)arm;
    return false;
}

int64_t governor_room(const struct governor *governor, int64_t *ret_delay_ms)
{
    (void)governor;
    *ret_delay_ms = 0;
    return INT64_MAX;
}
