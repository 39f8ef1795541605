/* Orchestrators among themselves: who lives, who leads. */
#include "common/queue_internal.h"

#include <stdlib.h>

#include "schemas/mem.h"

void queue_announce(struct queue *queue, const char *name, const char *json, int64_t ttl_ms)
{
    struct queue_args *args = &queue->args;
    queue_args_clear(args);
    queue_args_str(args, QUEUE_EXPIRY_KEY);
    queue_args_str(args, QUEUE_DAEMONS_KEY);
    queue_args_str(args, name);
    queue_args_str(args, json);
    queue_args_printf(args, "%lld", (long long)ttl_ms);
    queue_eval(queue, &queue->args, SCRIPT_announce, 2, NULL, NULL);
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

struct leading {
    queue_fn *fn;
    void *ctx;
};

static void lead_answered(void *ctx, const struct redis_value *value)
{
    struct leading leading = *(struct leading *)ctx;
    free(ctx);
    struct err err;
    enum queue_status status = queue_status_of(value, &err);
    leading.fn(leading.ctx, status, err.text);
}

void queue_lead(struct queue *queue, const char *name, int64_t lease_ms, queue_fn *fn, void *ctx)
{
    struct leading *leading = mem_must_zalloc(sizeof *leading);
    *leading = (struct leading){fn, ctx};
    struct queue_args *args = &queue->args;
    queue_args_clear(args);
    queue_args_str(args, QUEUE_LEADER_KEY);
    queue_args_str(args, name);
    queue_args_printf(args, "%lld", (long long)lease_ms);
    queue_eval(queue, &queue->args, SCRIPT_lead, 1, lead_answered, leading);
}
