/* Orchestrators among themselves: who lives, who leads. */
#include "common/queue_internal.h"

#include <stdlib.h>

#include "schemas/mem.h"

/* A call whose answer is a status. */
struct asking {
    queue_fn *fn;
    void *ctx;
};

static struct asking *asking_new(queue_fn *fn, void *ctx)
{
    struct asking *asking = mem_must_zalloc(sizeof *asking);
    *asking = (struct asking){fn, ctx};
    return asking;
}

static void status_answered(void *ctx, const struct redis_value *value)
{
    struct asking asking = *(struct asking *)ctx;
    free(ctx);
    struct err err;
    enum queue_status status = queue_status_of(value, &err);
    asking.fn(asking.ctx, status, err.text);
}

static void announce(struct queue *queue, const char *name, const char *json, int64_t ttl_ms,
                     redis_reply_fn *fn, void *ctx)
{
    struct queue_args *args = &queue->args;
    queue_args_clear(args);
    queue_args_str(args, QUEUE_EXPIRY_KEY);
    queue_args_str(args, QUEUE_DAEMONS_KEY);
    queue_args_str(args, name);
    queue_args_str(args, json);
    queue_args_printf(args, "%lld", (long long)ttl_ms);
    queue_eval(queue, &queue->args, SCRIPT_announce, 2, fn, ctx);
}

void queue_announce(struct queue *queue, const char *name, const char *json, int64_t ttl_ms)
{
    announce(queue, name, json, ttl_ms, NULL, NULL);
}

void queue_withdraw(struct queue *queue, const char *name, queue_fn *fn, void *ctx)
{
    announce(queue, name, "", 0, status_answered, asking_new(fn, ctx));
}

struct naming {
    queue_names_fn *fn;
    void *ctx;
};

static void names_answered(void *ctx, const struct redis_value *value)
{
    struct naming naming = *(struct naming *)ctx;
    free(ctx);
    struct err err = {""};
    if (queue_failed(value, &err)) {
        naming.fn(naming.ctx, NULL, 0, err.text);
        return;
    }
    const char **jsons = mem_must_zalloc((redis_len(value) + 1) * sizeof *jsons);
    size_t n = 0;
    for (size_t i = 0; i < redis_len(value); i++)
        if (redis_type(redis_at(value, i)) == REDIS_STR)
            jsons[n++] = redis_str(redis_at(value, i), NULL);
    naming.fn(naming.ctx, jsons, n, "");
    free(jsons);
}

void queue_orchestrators(struct queue *queue, queue_names_fn *fn, void *ctx)
{
    struct naming *naming = mem_must_zalloc(sizeof *naming);
    *naming = (struct naming){fn, ctx};
    queue_args_clear(&queue->args);
    queue_args_str(&queue->args, QUEUE_EXPIRY_KEY);
    queue_args_str(&queue->args, QUEUE_DAEMONS_KEY);
    queue_eval(queue, &queue->args, SCRIPT_orchestrators, 2, names_answered, naming);
}

void queue_lead(struct queue *queue, const char *name, int64_t lease_ms, queue_fn *fn, void *ctx)
{
    struct queue_args *args = &queue->args;
    queue_args_clear(args);
    queue_args_str(args, QUEUE_LEADER_KEY);
    queue_args_str(args, name);
    queue_args_printf(args, "%lld", (long long)lease_ms);
    queue_eval(queue, &queue->args, SCRIPT_lead, 1, status_answered, asking_new(fn, ctx));
}
