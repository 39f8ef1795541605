#include "orchestrator/client.h"

#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/paths.h"
#include "orchestrator/stack.h"
#include "schemas/mem.h"

#define CONNECT_MS 3000
#define LOCAL_MS 300 /* nobody listens on the local socket: it may just be starting again */
#define STACK_START_MS 60000

int client_open(struct client *client, const struct invocation *invocation)
{
    *client = (struct client){0};
    struct err err = {0};
    if (config_load(&client->config, invocation_config(invocation), &err) != 0)
        return command_fail(invocation, EXIT_USAGE, "%s", err.text);
    loop_init(&client->loop);
    client->open = true;
    return EXIT_DONE;
}

static void redis_up(void *ctx)
{
    struct client *client = ctx;
    bool was_up = client->up;
    client->up = true;
    if (!was_up && client->on_redis != NULL)
        client->on_redis(client->on_redis_ctx, true, "");
}

static void redis_down(void *ctx, const char *why)
{
    struct client *client = ctx;
    bool was_up = client->up;
    client->up = false;
    snprintf(client->why, sizeof client->why, "%s", why);
    if (was_up && client->on_redis != NULL)
        client->on_redis(client->on_redis_ctx, false, why);
}

static bool listens(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    bool up = fd >= 0 && connect(fd, (const struct sockaddr *)&address, sizeof address) == 0;
    if (fd >= 0)
        close(fd);
    return up;
}

/* Whether something that the stack would bring is missing. Someone may have started the parts one
 * by one: then there is nothing to start. */
static bool stack_missing(const struct config *config)
{
    if (config->redis_local && !listens(config->redis.socket))
        return true;
    char *broker = path_of(config->home, PATH_BROKER_SOCKET);
    bool missing = config->broker_local && config->listen == NULL && !listens(broker);
    free(broker);
    return missing;
}

/* The stack may run with a configuration that was made at its start (ports of the simulator): it is
 * read again. */
static int start_local(struct client *client, const struct invocation *invocation)
{
    struct err err = {0};
    struct config *config;
    if (!invocation_has(invocation, "quiet"))
        fputs("starting the local stack (`orchestrator down` ends it)\n", stderr);
    if (stack_start(client->config, STACK_START_MS, &err) != 0)
        return command_fail(invocation, EXIT_UNREACHABLE, "the local stack does not start: %s",
                            err.text);
    if (config_load(&config, invocation_config(invocation), &err) == 0) {
        config_free(&client->config);
        client->config = config;
    }
    return EXIT_DONE;
}

static int unreachable(const struct client *client, const struct invocation *invocation)
{
    const char *name = redis_name(queue_redis(client->queue));
    if (client->config->redis_local && !stack_running(client->config))
        return command_fail(invocation, EXIT_UNREACHABLE,
                            "the local stack does not run; `orchestrator up -d` starts it");
    if (client->config->redis_local)
        return command_fail(invocation, EXIT_UNREACHABLE,
                            "Redis of the local stack does not answer%s%s; `orchestrator doctor` "
                            "looks for the reason, %s/" PATH_LOG "/redis.log may say it",
                            client->why[0] != '\0' ? ": " : "", client->why, client->config->home);
    return command_fail(invocation, EXIT_UNREACHABLE,
                        "Redis at %s does not answer%s%s; start it, or correct `redis:` in %s",
                        name, client->why[0] != '\0' ? ": " : "", client->why,
                        client->config->path);
}

static void judged(void *ctx, const char *why)
{
    struct client *client = ctx;
    client->judged = true;
    snprintf(client->foreign, sizeof client->foreign, "%s", why);
}

/* Where a daemon of this home has noted which Redis it works in, nothing is done in another one:
 * what it answers would mislead, and what is given to it would be lost with it. */
static int check_epoch(struct client *client, const struct invocation *invocation)
{
    char *copy = mem_must_strdup(client->config->store);
    char *path = mem_must_printf("%s/redis.epoch", dirname(copy));
    bool known = access(path, R_OK) == 0;
    if (known) {
        queue_guard(client->queue, path, false, judged, client);
        loop_run_until(&client->loop, &client->judged, CONNECT_MS);
    }
    free(path);
    free(copy);
    if (client->foreign[0] == '\0' || invocation_has(invocation, "accept-new-epoch"))
        return EXIT_DONE;
    return command_fail(invocation, EXIT_UNREACHABLE, "%s", client->foreign);
}

int client_connect(struct client *client, const struct invocation *invocation, bool start_stack)
{
    int code =
        start_stack && stack_missing(client->config) ? start_local(client, invocation) : EXIT_DONE;
    if (code != EXIT_DONE)
        return code;
    const struct redis_callbacks callbacks = {.up = redis_up, .down = redis_down};
    struct err err = {0};
    if (queue_open(&client->queue, &client->loop, &client->config->redis, &callbacks, client,
                   &err) != 0)
        return command_fail(invocation, EXIT_USAGE, "%s", err.text);
    bool down = client->config->redis_local && !listens(client->config->redis.socket);
    int64_t timeout_ms = down ? LOCAL_MS : CONNECT_MS;
    if (loop_run_until(&client->loop, &client->up, timeout_ms) != 0)
        return unreachable(client, invocation);
    return check_epoch(client, invocation);
}

void client_close(struct client *client)
{
    client->on_redis = NULL;
    if (client->queue != NULL)
        queue_close(&client->queue);
    if (client->open)
        loop_finish(&client->loop);
    config_free(&client->config);
    client->open = false;
}

int client_each_task(const struct invocation *invocation, client_task_fn *fn, void *ctx)
{
    struct client client;
    const char *const *ids;
    size_t n_ids = invocation_args(invocation, &ids);
    int code = client_open(&client, invocation);
    if (code != EXIT_DONE)
        return code;
    code = client_connect(&client, invocation, false);
    bool go_on = code == EXIT_DONE;
    for (size_t i = 0; go_on && i < n_ids; i++) {
        int one = fn(&client, invocation, ids[i], ctx);
        go_on = one != EXIT_UNREACHABLE && one != EXIT_STOPPED;
        if (code == EXIT_DONE || one == EXIT_UNREACHABLE)
            code = one;
    }
    client_close(&client);
    return code;
}

/* --- answers -------------------------------------------------------------------------------- */

void client_answered(void *ctx, enum queue_status status, const char *err)
{
    struct client_answer *answer = ctx;
    answer->done = true;
    answer->status = status;
    snprintf(answer->err, sizeof answer->err, "%s", err != NULL ? err : "");
}

int client_wait(struct client *client, const struct invocation *invocation, const bool *done)
{
    if (loop_run_until(&client->loop, done, CLIENT_ANSWER_MS) == 0)
        return EXIT_DONE;
    command_fail(invocation, EXIT_UNREACHABLE,
                 "Redis at %s has not answered for %d seconds%s%s; try again once it runs",
                 redis_name(queue_redis(client->queue)), CLIENT_ANSWER_MS / 1000,
                 client->why[0] != '\0' ? ": " : "", client->why);
    /* What the pending answer points to is on the caller's stack: it comes now or never. */
    queue_close(&client->queue);
    return EXIT_UNREACHABLE;
}

int client_explain(struct client *client, const struct invocation *invocation, const char *task,
                   const struct client_answer *answer)
{
    switch (answer->status) {
    case QUEUE_OK:
    case QUEUE_DUP:
        return EXIT_DONE;
    case QUEUE_GONE:
        return command_fail(invocation, EXIT_USAGE,
                            "there is no task %s; `orchestrator list --all` shows what there is",
                            task);
    case QUEUE_REFUSED:
        return command_fail(invocation, EXIT_UNREACHABLE, "Redis at %s refuses writes: %s",
                            redis_name(queue_redis(client->queue)), answer->err);
    default:
        return command_fail(
            invocation, EXIT_UNREACHABLE, "Redis at %s: %s", redis_name(queue_redis(client->queue)),
            answer->err[0] != '\0' ? answer->err : queue_status_name(answer->status));
    }
}
