/* The queue of one server, and what becomes of its answers.
 *
 * One list holds all that is unanswered, in order; `unsent` is the first one of which bytes are
 * missing on this connection. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/failpoint.h"
#include "common/log.h"
#include "common/redis_internal.h"
#include "common/tunnel.h"
#include "schemas/mem.h"

#define RETRY_MS 50    /* after LOADING, BUSY and the like */
#define STALL_MS 10000 /* connecting, or answers owed but nothing read for so long */
#define WRITE_VECTORS 512
#define SCRIPT_TRIES 3 /* NOSCRIPT answers until the caller hears of it */

static bool in_greeting(const struct redis_node *node)
{
    return node->state == NODE_GREETING;
}

bool redis_node_greeted(const struct redis_node *node)
{
    return in_greeting(node) || node->state == NODE_UP;
}

/* --- the queue ---------------------------------------------------------------------------- */

static void note_wait(struct redis_node *node, const struct redis_command *command)
{
    node->wants_wait = node->wants_wait || command->survives;
}

void redis_node_insert(struct redis_node *node, struct redis_command *command)
{
    struct redis_command *before = node->unsent;
    if (before != NULL && node->unsent_offset > 0)
        before = TAILQ_NEXT(before, entry);
    if (before != NULL)
        TAILQ_INSERT_BEFORE(before, command, entry);
    else
        TAILQ_INSERT_TAIL(&node->queue, command, entry);
    if (node->unsent == NULL || (before == node->unsent && node->unsent_offset == 0))
        node->unsent = command;
    note_wait(node, command);
}

static void append(struct redis_node *node, struct redis_command *command)
{
    TAILQ_INSERT_TAIL(&node->queue, command, entry);
    if (node->unsent == NULL) {
        node->unsent = command;
        node->unsent_offset = 0;
    }
    note_wait(node, command);
}

void redis_node_add(struct redis_node *node, struct redis_command *command)
{
    append(node, command);
    redis_node_start(node);
}

bool redis_node_empty(const struct redis_node *node)
{
    return TAILQ_EMPTY(&node->queue) && TAILQ_EMPTY(&node->held) && TAILQ_EMPTY(&node->unsure);
}

void redis_node_take(struct redis_node *node, struct redis_commands *into)
{
    if (node->state == NODE_UP)
        return;
    struct redis_command *command, *next;
    TAILQ_FOREACH_SAFE (command, &node->queue, entry, next)
        if (command->kind == COMMAND_USER) {
            if (command == node->unsent)
                node->unsent = next;
            TAILQ_REMOVE(&node->queue, command, entry);
            TAILQ_INSERT_TAIL(into, command, entry);
        }
}

/* --- answers ------------------------------------------------------------------------------ */

static bool is_passing(const struct redis_value *value)
{
    static const char *const words[] = {"LOADING",    "BUSY",        "TRYAGAIN",
                                        "MASTERDOWN", "CLUSTERDOWN", "UNBLOCKED"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (redis_is_error(value, words[i]))
            return true;
    return false;
}

/* The command will be sent again, in its order; until then nothing else is sent. */
static void hold_back(struct redis_node *node, struct redis_command *command, int64_t after_ms)
{
    TAILQ_INSERT_TAIL(&node->held, command, entry);
    if (!loop_timer_active(node->retry))
        loop_timer_start(node->retry, after_ms, 0);
}

static void send_held(void *ctx)
{
    struct redis_node *node = ctx;
    bool script_missing = false;
    struct redis_command *command;
    while ((command = TAILQ_LAST(&node->held, redis_commands)) != NULL) {
        TAILQ_REMOVE(&node->held, command, entry);
        redis_node_insert(node, command);
        script_missing = script_missing || command->tries > 0;
    }
    for (size_t i = 0; script_missing && i < node->redis->n_scripts; i++)
        redis_node_insert(node, redis_command_load(node->redis->scripts[i]));
}

/* Refusals of a connection that a person must act on. */
static const struct {
    const char *word, *cure;
} refusals[] = {
    {"NOAUTH", "it demands a password: write it into the configuration's `redis`, as "
               "redis://user:password@host"},
    {"WRONGPASS", "user or password are wrong, or the user was removed: correct them in the "
                  "configuration's `redis`, or let `orchestrator invite` make a new user"},
    {"NOPERM", "its ACL does not allow that: docs/operations.md lists what a user needs"},
    {"ERR AUTH <password> called without any password",
     "it has no password: take it out of the configuration's `redis`"},
    {"ERR max number of clients reached", "raise maxclients in its redis.conf"},
    {"DENIED", "it answers only this machine: set a password, or protected-mode no behind a "
               "firewall"},
};

static void refused(struct redis_node *node, const struct redis_value *value)
{
    const char *text = redis_str(value, NULL), *cure = NULL;
    char why[1024];
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals && cure == NULL; i++)
        if (strncmp(text, refusals[i].word, strlen(refusals[i].word)) == 0)
            cure = refusals[i].cure;
    snprintf(why, sizeof why, "Redis at %s refuses this client: %.300s%s%s", node->name, text,
             cure != NULL ? "; " : "", cure != NULL ? cure : "");
    redis_node_drop(node, why, REDIS_BACKOFF_MAX_MS);
}

/* The greeting is over. */
static void greeted(struct redis_node *node)
{
    node->state = NODE_UP;
    node->failed = false;
    node->backoff_ms = REDIS_BACKOFF_MIN_MS;
    free(node->last_why);
    node->last_why = NULL;
    node->hooks->up(node);
}

static void role_told(struct redis_node *node, const struct redis_value *value)
{
    const char *role = redis_str(redis_at(value, 0), NULL);
    char why[512];
    if (strcmp(role, "master") == 0)
        return;
    snprintf(why, sizeof why, "Redis at %s is no master: its role is \"%.32s\"", node->name, role);
    redis_node_drop(node, why, REDIS_READONLY_MS);
}

/* What was answered since the last WAIT: enough replicas have it, or not. */
static void settle(struct redis_node *node, const struct redis_value *value)
{
    const struct redis_options *options = &node->redis->options;
    struct redis *redis = node->redis;
    char text[512];
    bool enough = redis_type(value) == REDIS_INT && redis_int(value) >= options->replicas;
    if (redis_type(value) == REDIS_INT)
        snprintf(text, sizeof text,
                 "NOTREPLICATED only %lld of %lld replicas have it after %lld ms",
                 (long long)redis_int(value), (long long)options->replicas,
                 (long long)options->replicas_timeout_ms);
    else
        snprintf(text, sizeof text, "NOTREPLICATED Redis answered WAIT with: %.300s",
                 redis_str(value, NULL));
    struct redis_command *command;
    while (!node->closed && (command = TAILQ_FIRST(&node->unsure)) != NULL) {
        TAILQ_REMOVE(&node->unsure, command, entry);
        const struct redis_value *answer = command->answer;
        command->answer = NULL;
        if (enough || !command->survives || redis_type(answer) == REDIS_ERR) {
            redis_answer(redis, command, answer);
        } else {
            redis_reply_fn *fn = command->fn;
            void *ctx = command->ctx;
            redis->pending--;
            free(command);
            redis_answer_error(fn, ctx, text);
        }
        redis_value_free(answer);
    }
}

static void answer_own(struct redis_node *node, struct redis_command *command,
                       const struct redis_value *value)
{
    bool error = redis_type(value) == REDIS_ERR;
    struct redis_command own = *command;
    const char *script = own.script != NULL ? own.script->name : "";
    free(command);
    switch (own.kind) {
    case COMMAND_LOAD: /* the script's callers will hear NOSCRIPT */
        if (error)
            log_error("Redis at %s does not take the script %s: %s", node->name, script,
                      redis_str(value, NULL));
        break;
    case COMMAND_WAIT:
        settle(node, value);
        break;
    case COMMAND_OWN:
        own.fn(own.ctx, value);
        break;
    case COMMAND_ASKING:
        break; /* an error is one of the command behind it, too */
    default:
        if (error)
            refused(node, value);
        else if (own.kind == COMMAND_SUBSCRIBE)
            node->redis->message_fn(node->redis->message_ctx, value);
        else if (own.kind == COMMAND_ROLE)
            role_told(node, value);
        else if (own.kind == COMMAND_PING && in_greeting(node))
            greeted(node);
    }
}

/* Whether a command must wait until replicas have what was written before its answer. */
static bool is_unsure(const struct redis_node *node, const struct redis_command *command)
{
    return command->survives || !TAILQ_EMPTY(&node->unsure);
}

/* One reply: for the oldest command. True: the value is kept. */
bool redis_node_reply(void *ctx, const struct redis_value *value)
{
    struct redis_node *node = ctx;
    struct redis_command *command = TAILQ_FIRST(&node->queue);
    if (command == NULL && node->redis->channel != NULL) {
        node->redis->message_fn(node->redis->message_ctx, value);
        return false;
    }
    if (command == NULL || command == node->unsent) {
        redis_node_drop(node, "Redis answers what it was not asked", REDIS_BACKOFF_MAX_MS);
        return false;
    }
    TAILQ_REMOVE(&node->queue, command, entry);
    FAILPOINT_OF("redis.reply", redis_command_label(command));
    bool user = command->kind == COMMAND_USER;
    if (user && node->hooks->redirected != NULL && node->hooks->redirected(node, command, value))
        return false;
    if (is_passing(value)) {
        hold_back(node, command, RETRY_MS);
    } else if (redis_is_error(value, "NOSCRIPT") && command->script != NULL &&
               command->tries < SCRIPT_TRIES) {
        command->tries++;
        hold_back(node, command, 0);
    } else if (redis_is_error(value, "READONLY") && user) {
        TAILQ_INSERT_HEAD(&node->queue, command, entry);
        redis_node_drop(node, "Redis is a read-only replica now", REDIS_READONLY_MS);
    } else if (!user) {
        answer_own(node, command, value);
    } else if (is_unsure(node, command)) {
        command->answer = value;
        TAILQ_INSERT_TAIL(&node->unsure, command, entry);
        return true;
    } else {
        redis_answer(node->redis, command, value);
    }
    return false;
}

/* --- writing ------------------------------------------------------------------------------ */

/* Counts what was written off the queue of what is unsent. */
static void mark_sent(struct redis_node *node, size_t bytes)
{
    while (node->unsent != NULL && bytes >= node->unsent->len - node->unsent_offset) {
        FAILPOINT_OF("redis.sent", redis_command_label(node->unsent));
        bytes -= node->unsent->len - node->unsent_offset;
        node->unsent = TAILQ_NEXT(node->unsent, entry);
        node->unsent_offset = 0;
    }
    node->unsent_offset += bytes;
}

static int gather(const struct redis_node *node, struct iovec *vectors)
{
    int n = 0;
    size_t offset = node->unsent_offset;
    for (struct redis_command *command = node->unsent; command != NULL && n < WRITE_VECTORS;
         command = TAILQ_NEXT(command, entry)) {
        if (node->state != NODE_UP && command->kind == COMMAND_USER)
            break;
        vectors[n++] = (struct iovec){command->bytes + offset, command->len - offset};
        offset = 0;
    }
    return n;
}

void redis_node_write(void *ctx)
{
    struct redis_node *node = ctx;
    while (redis_node_greeted(node) && node->unsent != NULL &&
           (TAILQ_EMPTY(&node->held) || node->unsent_offset > 0)) {
        struct iovec vectors[WRITE_VECTORS];
        int n = gather(node, vectors);
        if (n == 0)
            break;
        if (!TAILQ_EMPTY(&node->held))
            n = 1; /* only what was sent in part */
        if (node->unsent == TAILQ_FIRST(&node->queue))
            node->asked_ms = clock_ms();
        ssize_t sent = redis_link_write(node->link, vectors, n);
        if (sent == -EAGAIN)
            return;
        if (sent < 0) {
            char why[512];
            snprintf(why, sizeof why, "cannot write to Redis at %s: %s", node->name,
                     strerror((int)-sent));
            redis_node_drop(node, why, 0);
            return;
        }
        mark_sent(node, (size_t)sent);
    }
}

/* One WAIT for all that was written in this turn. */
static void add_wait(struct redis_node *node)
{
    const struct redis_options *options = &node->redis->options;
    char replicas[16], timeout[24];
    snprintf(replicas, sizeof replicas, "%lld", (long long)options->replicas);
    snprintf(timeout, sizeof timeout, "%lld", (long long)options->replicas_timeout_ms);
    struct redis_command *command =
        redis_command_new(3, (const char *[]){"WAIT", replicas, timeout}, NULL);
    command->kind = COMMAND_WAIT;
    append(node, command);
    node->wants_wait = false;
}

void redis_node_flush(struct redis_node *node)
{
    /* When the socket is full, it says itself when there is room. */
    if (node->link == NULL || redis_link_full(node->link))
        return;
    if (node->wants_wait && node->state == NODE_UP)
        add_wait(node);
    redis_node_write(node);
}

/* --- losing it ---------------------------------------------------------------------------- */

static void drop_own(struct redis_commands *list)
{
    struct redis_command *command, *next;
    TAILQ_FOREACH_SAFE (command, list, entry, next) {
        redis_value_free(command->answer);
        command->answer = NULL;
        command->asked = false;
        if (command->kind != COMMAND_USER) {
            TAILQ_REMOVE(list, command, entry);
            free(command);
        }
    }
}

/* In the order in which they were sent: what was answered, held, not answered. */
static void requeue(struct redis_node *node)
{
    struct redis_commands *parts[] = {&node->held, &node->unsure};
    drop_own(&node->queue);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        drop_own(parts[i]);
        TAILQ_CONCAT(parts[i], &node->queue, entry);
        TAILQ_CONCAT(&node->queue, parts[i], entry);
    }
    node->unsent = TAILQ_FIRST(&node->queue);
    node->unsent_offset = 0;
    const struct redis_command *command;
    TAILQ_FOREACH (command, &node->queue, entry)
        note_wait(node, command);
}

void redis_node_drop(struct redis_node *node, const char *why, int64_t min_backoff_ms)
{
    if (node->closed || node->state == NODE_IDLE)
        return;
    redis_link_close(&node->link);
    node->state = NODE_DOWN;
    node->failed = true;
    loop_timer_stop(node->retry);
    requeue(node);
    if (node->backoff_ms < min_backoff_ms)
        node->backoff_ms = min_backoff_ms;
    loop_timer_start(node->reconnect, node->backoff_ms, 0);
    node->backoff_ms *= 2;
    if (node->backoff_ms > REDIS_BACKOFF_MAX_MS)
        node->backoff_ms = REDIS_BACKOFF_MAX_MS;
    bool told = node->last_why != NULL && strcmp(node->last_why, why) == 0;
    if (!told) {
        char *kept = mem_must_strdup(why);
        free(node->last_why);
        node->last_why = kept;
    }
    node->hooks->down(node, node->last_why, !told);
}

int64_t redis_node_silent_ms(const struct redis_node *node)
{
    bool owes =
        node->link != NULL && (node->state != NODE_UP || TAILQ_FIRST(&node->queue) != node->unsent);
    if (!owes)
        return 0;
    int64_t heard_ms = redis_link_heard_ms(node->link);
    return clock_ms() - (heard_ms > node->asked_ms ? heard_ms : node->asked_ms);
}

void redis_node_watch(struct redis_node *node)
{
    char why[512];
    if (redis_node_silent_ms(node) < STALL_MS)
        return;
    snprintf(why, sizeof why, "Redis at %s did not answer for %d s", node->name, STALL_MS / 1000);
    redis_node_drop(node, why, 0);
}

/* --- making and freeing ------------------------------------------------------------------- */

struct redis_node *redis_node_new(struct redis *redis, const struct redis_node_hooks *hooks,
                                  const struct redis_place *place)
{
    struct redis_node *node = mem_must_zalloc(sizeof *node);
    node->redis = redis;
    node->hooks = hooks;
    node->backoff_ms = REDIS_BACKOFF_MIN_MS;
    if (place != NULL) {
        node->place.socket = place->socket != NULL ? mem_must_strdup(place->socket) : NULL;
        node->place.host = place->host != NULL ? mem_must_strdup(place->host) : NULL;
        node->place.port = place->port;
    }
    node->name = place != NULL ? redis_place_name(place) : mem_must_strdup("an unknown address");
    TAILQ_INIT(&node->queue);
    TAILQ_INIT(&node->held);
    TAILQ_INIT(&node->unsure);
    node->reconnect = loop_timer_new(redis->loop, redis_node_try, node);
    node->retry = loop_timer_new(redis->loop, send_held, node);
    return node;
}

static void answer_closed(struct redis_node *node, struct redis_commands *list)
{
    struct redis_command *command;
    while ((command = TAILQ_FIRST(list)) != NULL) {
        TAILQ_REMOVE(list, command, entry);
        redis_value_free(command->answer);
        if (command->kind == COMMAND_USER) {
            node->redis->pending--;
            redis_answer_closed(command->fn, command->ctx);
        }
        free(command);
    }
}

void redis_node_free(struct redis_node **ret)
{
    struct redis_node *node = *ret;
    *ret = NULL;
    if (node == NULL || node->closed)
        return;
    node->closed = true;
    redis_link_close(&node->link);
    node->state = NODE_IDLE;
    loop_timer_free(&node->reconnect);
    loop_timer_free(&node->retry);
    tunnel_close(&node->tunnel);
    answer_closed(node, &node->unsure);
    answer_closed(node, &node->held);
    answer_closed(node, &node->queue);
    TAILQ_INSERT_TAIL(&node->redis->dead, node, entry);
}

void redis_node_reap(struct redis *redis)
{
    struct redis_node *node;
    while ((node = TAILQ_FIRST(&redis->dead)) != NULL) {
        TAILQ_REMOVE(&redis->dead, node, entry);
        redis_place_release(&node->place);
        free(node->name);
        free(node->last_why);
        free(node);
    }
}
