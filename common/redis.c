/* hiredis parses replies and connects; its async layer is not used, because it asserts on a reply
 * that nobody asked for and copies every command, while the commands must be kept here anyway to be
 * sent again. One list holds all that is unanswered, in order; `unsent` is the first one of which
 * bytes are missing on this connection. */
#include "common/redis.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

/* hiredis has a macro of the same name. */
static const enum redis_type type_error = REDIS_ERR;
#include <hiredis/hiredis.h>

#include "common/clock.h"
#include "common/containers.h"
#include "common/failpoint.h"
#include "common/log.h"
#include "common/sha1.h"
#include "schemas/buf.h"
#include "schemas/mem.h"

#define BACKOFF_MIN_MS 10
#define BACKOFF_MAX_MS 1000
#define READONLY_BACKOFF_MS 200 /* a failover takes a moment */
#define RETRY_MS 50             /* after LOADING, BUSY and the like */
#define STALL_MS 10000          /* connecting, or answers owed but nothing read for so long */
#define WATCH_MS 1000
#define READ_BYTES ((size_t)32 * 1024)
#define READS_PER_TURN 32 /* then other descriptors have their turn */
#define WRITE_VECTORS 512
#define ARRAY_MAX 10000000 /* elements of one reply; more is nonsense */
#define SCRIPT_TRIES 3     /* NOSCRIPT answers until the caller hears of it */

enum link_state {
    LINK_DOWN,       /* waits for its next try */
    LINK_RESOLVING,  /* host name asked for */
    LINK_CONNECTING, /* connect() under way */
    LINK_GREETING,   /* AUTH, SELECT, SCRIPT LOAD, PING sent; nothing of the user's yet */
    LINK_UP,
};

/* All but the user's are the client's own, and made anew for each connection. */
enum command_kind {
    COMMAND_USER,
    COMMAND_GREETING, /* AUTH, SELECT */
    COMMAND_LOAD,     /* SCRIPT LOAD */
    COMMAND_PING,     /* ends the greeting */
    COMMAND_SUBSCRIBE,
};

struct command {
    TAILQ_ENTRY(command) entry;
    enum command_kind kind;
    redis_reply_fn *fn;
    void *ctx;
    struct redis_script *script; /* of an EVALSHA or a SCRIPT LOAD */
    int tries;                   /* NOSCRIPT answers */
    size_t len;
    char bytes[];
};
TAILQ_HEAD(command_list, command);

/* One connection. It outlives redis->link by the turn that libuv needs to close a handle. */
struct link {
    uv_poll_t poll;
    struct redis *redis;
    redisContext *context;
    redisReplyObjectFunctions functions; /* of hiredis */
    redisReplyObjectFunctions checked;   /* the same, with a limit */
    int events;                          /* polled for now */
};

struct redis {
    uv_loop_t *loop;
    uv_prepare_t flush; /* writes once per turn of the loop, before it sleeps */
    struct redis_options options;
    struct redis_callbacks callbacks;
    void *ctx;
    char *name;
    enum link_state state;
    struct link *link;
    struct resolve *resolve; /* NULL: none under way */
    struct loop_timer *reconnect, *retry, *watch;
    int64_t backoff_ms;
    unsigned connects;             /* counts, to go through a host's addresses */
    struct command_list queue;     /* unanswered, in order */
    struct command_list held;      /* answered LOADING or the like: sent again by `retry` */
    struct command *unsent;        /* NULL: all of `queue` is sent */
    size_t unsent_offset;          /* bytes of it that are sent */
    size_t pending;                /* of the user's */
    int64_t heard_ms;              /* last bytes read, or first bytes sent after none were owed */
    struct redis_script **scripts; /* used so far: loaded on each connection */
    size_t n_scripts;
    char *channel; /* of a listener; NULL: it is none */
    redis_reply_fn *message_fn;
    void *message_ctx;
    void (*turn_fn)(void *ctx); /* NULL: nobody wants to know */
    void *turn_ctx;
    char *last_why; /* told last since it was up; NULL: nothing */
    bool closed;
};

static void drop_link(struct redis *redis, const char *why, int64_t min_backoff_ms);

/* --- values ------------------------------------------------------------------------------- */

static const redisReply nil_reply = {.type = REDIS_REPLY_NIL};

static const redisReply *reply_of(const struct redis_value *value)
{
    return (const redisReply *)(const void *)value;
}

static const struct redis_value *value_of(const redisReply *reply)
{
    return (const struct redis_value *)(const void *)reply;
}

enum redis_type redis_type(const struct redis_value *value)
{
    switch (reply_of(value)->type) {
    case REDIS_REPLY_STRING:
    case REDIS_REPLY_STATUS:
        return REDIS_STR;
    case REDIS_REPLY_ARRAY:
        return REDIS_ARRAY;
    case REDIS_REPLY_INTEGER:
        return REDIS_INT;
    case REDIS_REPLY_ERROR:
        return type_error;
    default:
        return REDIS_NIL;
    }
}

const char *redis_str(const struct redis_value *value, size_t *ret_len)
{
    const redisReply *reply = reply_of(value);
    bool has = reply->str != NULL &&
               (reply->type == REDIS_REPLY_STRING || reply->type == REDIS_REPLY_STATUS ||
                reply->type == REDIS_REPLY_ERROR);
    if (ret_len != NULL)
        *ret_len = has ? reply->len : 0;
    return has ? reply->str : "";
}

int64_t redis_int(const struct redis_value *value)
{
    const redisReply *reply = reply_of(value);
    if (reply->type == REDIS_REPLY_INTEGER)
        return reply->integer;
    const char *text = redis_str(value, NULL);
    char *end;
    errno = 0;
    long long number = strtoll(text, &end, 10);
    return errno == 0 && end != text && *end == '\0' ? number : 0;
}

size_t redis_len(const struct redis_value *value)
{
    return reply_of(value)->type == REDIS_REPLY_ARRAY ? reply_of(value)->elements : 0;
}

const struct redis_value *redis_at(const struct redis_value *value, size_t index)
{
    if (index >= redis_len(value) || reply_of(value)->element[index] == NULL)
        return value_of(&nil_reply);
    return value_of(reply_of(value)->element[index]);
}

static void answer_error(redis_reply_fn *fn, void *ctx, char *text)
{
    redisReply error = {.type = REDIS_REPLY_ERROR, .str = text, .len = strlen(text)};
    if (fn != NULL)
        fn(ctx, value_of(&error));
}

void redis_answer_closed(redis_reply_fn *fn, void *ctx)
{
    answer_error(fn, ctx, "CLOSED the client was closed");
}

static void *create_array(const redisReadTask *task, int elements)
{
    const struct link *link = task->privdata;
    return elements > ARRAY_MAX ? NULL : link->functions.createArray(task, elements);
}

/* --- commands ----------------------------------------------------------------------------- */

#ifdef ORCH_TESTING
/* What failpoints call a command: its script, or its first word. Good until the next call. */
static const char *label(const struct command *command)
{
    static char word[24];
    if (command->script != NULL)
        return command->kind == COMMAND_LOAD ? "LOAD" : command->script->name;
    const char *at = strchr(command->bytes, '$');
    at = at != NULL ? strchr(at, '\n') : NULL;
    at = at != NULL ? at + 1 : "";
    snprintf(word, sizeof word, "%.*s", (int)strcspn(at, "\r"), at);
    return word;
}
#endif

static size_t digits_of(size_t number)
{
    size_t digits = 1;
    while (number >= 10) {
        number /= 10;
        digits++;
    }
    return digits;
}

/* Commands in RESP: *argc CRLF, then $len CRLF bytes CRLF for each argument. */
static struct command *command_new(int argc, const char *const *argv, const size_t *lens)
{
    size_t total = 1 + digits_of((size_t)argc) + 2;
    for (int i = 0; i < argc; i++) {
        size_t len = lens != NULL ? lens[i] : strlen(argv[i]);
        total += 1 + digits_of(len) + 2 + len + 2;
    }
    struct command *command = mem_must_realloc(NULL, sizeof *command + total + 1);
    *command = (struct command){.len = total};
    char *at = command->bytes + sprintf(command->bytes, "*%d\r\n", argc);
    for (int i = 0; i < argc; i++) {
        size_t len = lens != NULL ? lens[i] : strlen(argv[i]);
        at += sprintf(at, "$%zu\r\n", len);
        if (len > 0)
            memcpy(at, argv[i], len);
        at += len;
        *at++ = '\r';
        *at++ = '\n';
    }
    return command;
}

static void insert_unsent(struct redis *redis, struct command *command)
{
    /* Before all that is not sent, and behind what is, even in part. */
    struct command *before = redis->unsent;
    if (before != NULL && redis->unsent_offset > 0)
        before = TAILQ_NEXT(before, entry);
    if (before != NULL)
        TAILQ_INSERT_BEFORE(before, command, entry);
    else
        TAILQ_INSERT_TAIL(&redis->queue, command, entry);
    if (redis->unsent == NULL || (before == redis->unsent && redis->unsent_offset == 0))
        redis->unsent = command;
}

static void append(struct redis *redis, struct command *command)
{
    TAILQ_INSERT_TAIL(&redis->queue, command, entry);
    if (redis->unsent == NULL) {
        redis->unsent = command;
        redis->unsent_offset = 0;
    }
}

static void submit(struct redis *redis, struct command *command, redis_reply_fn *fn, void *ctx)
{
    command->fn = fn;
    command->ctx = ctx;
    if (redis->closed) {
        free(command);
        redis_answer_closed(fn, ctx);
        return;
    }
    redis->pending++;
    FAILPOINT_OF("redis.send", label(command));
    append(redis, command);
}

void redis_command(struct redis *redis, redis_reply_fn *fn, void *ctx, int argc,
                   const char *const *argv, const size_t *lens)
{
    submit(redis, command_new(argc, argv, lens), fn, ctx);
}

void redis_simple(struct redis *redis, redis_reply_fn *fn, void *ctx, const char *words)
{
    const char *argv[32];
    size_t lens[32];
    int argc = 0;
    while (*words != '\0' && argc < 32) {
        size_t len = strcspn(words, " ");
        if (len > 0) {
            argv[argc] = words;
            lens[argc++] = len;
        }
        words += len + strspn(words + len, " ");
    }
    redis_command(redis, fn, ctx, argc, argv, lens);
}

void redis_subscribe(struct redis *redis, const char *channel, redis_reply_fn *fn, void *ctx)
{
    redis->message_fn = fn;
    redis->message_ctx = ctx;
    free(redis->channel);
    redis->channel = mem_must_strdup(channel);
    if (redis->state != LINK_UP && redis->state != LINK_GREETING)
        return; /* the greeting will do it */
    struct command *command = command_new(2, (const char *[]){"SUBSCRIBE", channel}, NULL);
    command->kind = COMMAND_SUBSCRIBE;
    append(redis, command);
}

static struct command *script_load_new(struct redis_script *script)
{
    const char *argv[] = {"SCRIPT", "LOAD", script->source};
    struct command *command = command_new(3, argv, NULL);
    command->script = script;
    command->kind = COMMAND_LOAD;
    return command;
}

/* Remembers a script that is used for the first time, and loads it before that use. */
static void know_script(struct redis *redis, struct redis_script *script)
{
    if (script->sha[0] == '\0')
        sha1_hex(script->source, strlen(script->source), script->sha);
    for (size_t i = 0; i < redis->n_scripts; i++)
        if (redis->scripts[i] == script)
            return;
    redis->scripts =
        mem_must_realloc(redis->scripts, (redis->n_scripts + 1) * sizeof *redis->scripts);
    redis->scripts[redis->n_scripts++] = script;
    if (redis->state == LINK_UP || redis->state == LINK_GREETING)
        append(redis, script_load_new(script));
}

void redis_eval(struct redis *redis, struct redis_script *script, redis_reply_fn *fn, void *ctx,
                int n_keys, int n_args, const char *const *args, const size_t *lens)
{
    if (!redis->closed)
        know_script(redis, script);
    size_t argc = 3 + (size_t)n_args;
    const char *few_argv[64], **argv = few_argv;
    size_t few_lens[64], *all_lens = few_lens;
    if (argc > 64) {
        argv = mem_must_realloc(NULL, argc * sizeof *argv);
        all_lens = mem_must_realloc(NULL, argc * sizeof *all_lens);
    }
    char keys[16];
    snprintf(keys, sizeof keys, "%d", n_keys);
    argv[0] = "EVALSHA", argv[1] = script->sha, argv[2] = keys;
    for (size_t i = 0; i < 3; i++)
        all_lens[i] = strlen(argv[i]);
    for (size_t i = 0; i < (size_t)n_args; i++) {
        argv[3 + i] = args[i];
        all_lens[3 + i] = lens != NULL ? lens[i] : strlen(args[i]);
    }
    struct command *command = command_new((int)argc, argv, all_lens);
    command->script = script;
    submit(redis, command, fn, ctx);
    if (argv != few_argv) {
        free(argv);
        free(all_lens);
    }
}

/* --- answers ------------------------------------------------------------------------------ */

/* Whether it is an error of that kind. */
static bool is_error(const redisReply *reply, const char *word)
{
    if (reply->type != REDIS_REPLY_ERROR)
        return false;
    size_t len = strlen(word);
    return reply->len >= len && memcmp(reply->str, word, len) == 0 &&
           (reply->len == len || reply->str[len] == ' ');
}

static bool is_passing(const redisReply *reply)
{
    static const char *const words[] = {"LOADING", "BUSY", "TRYAGAIN", "MASTERDOWN", "CLUSTERDOWN"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (is_error(reply, words[i]))
            return true;
    return false;
}

/* The command will be sent again, in its order; until then nothing else is sent. */
static void hold_back(struct redis *redis, struct command *command, int64_t after_ms)
{
    TAILQ_INSERT_TAIL(&redis->held, command, entry);
    if (!loop_timer_active(redis->retry))
        loop_timer_start(redis->retry, after_ms, 0);
}

static void send_held(void *ctx)
{
    struct redis *redis = ctx;
    bool script_missing = false;
    struct command *command;
    while ((command = TAILQ_LAST(&redis->held, command_list)) != NULL) {
        TAILQ_REMOVE(&redis->held, command, entry);
        insert_unsent(redis, command);
        script_missing = script_missing || command->tries > 0;
    }
    for (size_t i = 0; script_missing && i < redis->n_scripts; i++)
        insert_unsent(redis, script_load_new(redis->scripts[i]));
}

static void answer_own(struct redis *redis, struct command *command, const redisReply *reply)
{
    bool refused = reply->type == REDIS_REPLY_ERROR;
    enum command_kind kind = command->kind;
    if (kind == COMMAND_SUBSCRIBE && !refused)
        redis->message_fn(redis->message_ctx, value_of(reply));
    if (kind == COMMAND_LOAD && refused)
        log_error("Redis does not take the script %s: %s", command->script->name, reply->str);
    free(command);
    if (kind == COMMAND_LOAD)
        return; /* the script's callers will hear NOSCRIPT */
    if (refused) {
        char why[512];
        snprintf(why, sizeof why, "Redis at %s refuses this client: %.300s", redis->name,
                 reply->str);
        drop_link(redis, why, BACKOFF_MAX_MS);
    } else if (kind == COMMAND_PING && redis->state == LINK_GREETING) {
        redis->state = LINK_UP;
        redis->backoff_ms = BACKOFF_MIN_MS;
        free(redis->last_why);
        redis->last_why = NULL;
        if (redis->callbacks.up != NULL)
            redis->callbacks.up(redis->ctx);
    }
}

static void answer_user(struct redis *redis, struct command *command, const redisReply *reply)
{
    redis->pending--;
    redis_reply_fn *fn = command->fn;
    void *ctx = command->ctx;
    free(command);
    if (is_error(reply, "MOVED") || is_error(reply, "ASK"))
        answer_error(fn, ctx,
                     "ERR this Redis is a part of a Redis Cluster, which is not supported: "
                     "use a single server");
    else if (fn != NULL)
        fn(ctx, value_of(reply));
}

/* One reply: for the oldest command. */
static void handle_reply(struct redis *redis, const redisReply *reply)
{
    struct command *command = TAILQ_FIRST(&redis->queue);
    if (command == NULL && redis->channel != NULL) {
        redis->message_fn(redis->message_ctx, value_of(reply));
        return;
    }
    if (command == NULL || command == redis->unsent) {
        drop_link(redis, "Redis answers what it was not asked", BACKOFF_MAX_MS);
        return;
    }
    TAILQ_REMOVE(&redis->queue, command, entry);
    FAILPOINT_OF("redis.reply", label(command));
    if (is_passing(reply)) {
        hold_back(redis, command, RETRY_MS);
    } else if (is_error(reply, "NOSCRIPT") && command->script != NULL &&
               command->tries < SCRIPT_TRIES) {
        command->tries++;
        hold_back(redis, command, 0);
    } else if (is_error(reply, "READONLY") && command->kind == COMMAND_USER) {
        TAILQ_INSERT_HEAD(&redis->queue, command, entry);
        drop_link(redis, "Redis is a read-only replica now", READONLY_BACKOFF_MS);
    } else if (command->kind != COMMAND_USER) {
        answer_own(redis, command, reply);
    } else {
        answer_user(redis, command, reply);
    }
}

/* --- reading and writing ------------------------------------------------------------------ */

static void poll_event(uv_poll_t *poll, int status, int events);

static void poll_for(struct link *link, int events)
{
    if (link->events == events)
        return;
    link->events = events;
    uv_poll_start(&link->poll, events, poll_event);
}

static void drop_errno(struct redis *redis, const char *what, int error)
{
    char why[512];
    snprintf(why, sizeof why, "%s Redis at %s: %s", what, redis->name, strerror(error));
    drop_link(redis, why, 0);
}

/* Counts what was written off the queue of what is unsent. */
static void mark_sent(struct redis *redis, size_t bytes)
{
    while (redis->unsent != NULL && bytes >= redis->unsent->len - redis->unsent_offset) {
        FAILPOINT_OF("redis.sent", label(redis->unsent));
        bytes -= redis->unsent->len - redis->unsent_offset;
        redis->unsent = TAILQ_NEXT(redis->unsent, entry);
        redis->unsent_offset = 0;
    }
    redis->unsent_offset += bytes;
}

static int gather(const struct redis *redis, struct iovec *vectors)
{
    int n = 0;
    size_t offset = redis->unsent_offset;
    for (struct command *command = redis->unsent; command != NULL && n < WRITE_VECTORS;
         command = TAILQ_NEXT(command, entry)) {
        if (redis->state != LINK_UP && command->kind == COMMAND_USER)
            break;
        vectors[n++] = (struct iovec){command->bytes + offset, command->len - offset};
        offset = 0;
    }
    return n;
}

static void flush(struct redis *redis)
{
    bool ready = redis->state == LINK_UP || redis->state == LINK_GREETING;
    while (ready && redis->unsent != NULL &&
           (TAILQ_EMPTY(&redis->held) || redis->unsent_offset > 0)) {
        struct iovec vectors[WRITE_VECTORS];
        struct msghdr message = {.msg_iov = vectors};
        int n = gather(redis, vectors);
        if (n == 0)
            break;
        if (!TAILQ_EMPTY(&redis->held))
            n = 1; /* only what was sent in part */
        if (redis->unsent == TAILQ_FIRST(&redis->queue))
            redis->heard_ms = clock_ms();
        message.msg_iovlen = (size_t)n;
        ssize_t sent = sendmsg(redis->link->context->fd, &message, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0 && errno == EAGAIN) {
            poll_for(redis->link, UV_READABLE | UV_WRITABLE);
            return;
        }
        if (sent < 0) {
            drop_errno(redis, "cannot write to", errno);
            return;
        }
        mark_sent(redis, (size_t)sent);
    }
    if (ready)
        poll_for(redis->link, UV_READABLE);
}

static void flush_turn(uv_prepare_t *handle)
{
    struct redis *redis = handle->data;
    if (redis->turn_fn != NULL)
        redis->turn_fn(redis->turn_ctx);
    /* When the socket is full, it says itself when there is room. */
    if (redis->link != NULL && (redis->link->events & UV_WRITABLE) == 0)
        flush(redis);
}

void redis_on_turn(struct redis *redis, void (*fn)(void *ctx), void *ctx)
{
    redis->turn_fn = fn;
    redis->turn_ctx = ctx;
}

/* Answers all replies that are complete. False: the link is gone. */
static bool take_replies(struct redis *redis, struct link *link)
{
    for (;;) {
        void *reply = NULL;
        if (redisReaderGetReply(link->context->reader, &reply) != REDIS_OK) {
            char why[512];
            snprintf(why, sizeof why, "Redis at %s sent no valid answer: %s", redis->name,
                     link->context->reader->errstr);
            drop_link(redis, why, BACKOFF_MAX_MS);
            return false;
        }
        if (reply == NULL)
            return true;
        handle_reply(redis, reply);
        freeReplyObject(reply);
        if (redis->link != link)
            return false;
    }
}

static void read_replies(struct redis *redis, struct link *link)
{
    static char chunk[READ_BYTES]; /* one thread */
    for (int turn = 0; turn < READS_PER_TURN; turn++) {
        ssize_t len = read(link->context->fd, chunk, sizeof chunk);
        if (len < 0 && errno == EINTR)
            continue;
        if (len < 0 && errno == EAGAIN)
            return;
        if (len < 0) {
            drop_errno(redis, "cannot read from", errno);
            return;
        }
        if (len == 0) {
            char why[512];
            snprintf(why, sizeof why, "Redis at %s closed the connection", redis->name);
            drop_link(redis, why, 0);
            return;
        }
        redis->heard_ms = clock_ms();
        redisReaderFeed(link->context->reader, chunk, (size_t)len); /* an error shows below */
        if (!take_replies(redis, link) || (size_t)len < sizeof chunk)
            return;
    }
}

/* --- connecting --------------------------------------------------------------------------- */

static void greet(struct redis *redis, enum command_kind kind, int argc, const char *const *argv)
{
    struct command *command = command_new(argc, argv, NULL);
    command->kind = kind;
    insert_unsent(redis, command);
}

/* Puts the greeting before all else; each insert goes before the one before it. */
static void connected(struct redis *redis)
{
    const struct redis_options *options = &redis->options;
    redis->state = LINK_GREETING;
    redis->heard_ms = clock_ms();
    if (redis->channel != NULL)
        greet(redis, COMMAND_SUBSCRIBE, 2, (const char *[]){"SUBSCRIBE", redis->channel});
    greet(redis, COMMAND_PING, 1, (const char *[]){"PING"});
    for (size_t i = 0; i < redis->n_scripts; i++)
        insert_unsent(redis, script_load_new(redis->scripts[i]));
    char database[16];
    snprintf(database, sizeof database, "%d", options->database);
    if (options->database != 0)
        greet(redis, COMMAND_GREETING, 2, (const char *[]){"SELECT", database});
    if (options->password != NULL && options->user != NULL)
        greet(redis, COMMAND_GREETING, 3,
              (const char *[]){"AUTH", options->user, options->password});
    else if (options->password != NULL)
        greet(redis, COMMAND_GREETING, 2, (const char *[]){"AUTH", options->password});
    flush(redis);
}

/* What is wrong with the socket. libuv's status, 0 or negative, is the last to be believed: it is
 * EBADF whatever the error is. */
static int socket_error(const struct link *link, int status)
{
    int error = 0;
    socklen_t len = sizeof error;
    if (getsockopt(link->context->fd, SOL_SOCKET, SO_ERROR, &error, &len) != 0)
        return errno;
    return error != 0 ? error : status == UV_EBADF ? ECONNRESET : -status;
}

static void poll_event(uv_poll_t *poll, int status, int events)
{
    struct link *link = poll->data;
    struct redis *redis = link->redis;
    if (redis == NULL)
        return;
    bool connecting = redis->state == LINK_CONNECTING;
    int error = status < 0 || connecting ? socket_error(link, status) : 0;
    if (error != 0) {
        drop_errno(redis, connecting ? "cannot connect to" : "lost", error);
    } else if (connecting) {
        connected(redis);
    } else {
        if ((events & UV_WRITABLE) != 0)
            flush(redis);
        if (redis->link == link && (events & UV_READABLE) != 0)
            read_replies(redis, link);
    }
}

static void link_closed(uv_handle_t *handle)
{
    free(handle->data);
}

static void link_drop(struct redis *redis)
{
    struct link *link = redis->link;
    if (link == NULL)
        return;
    redis->link = NULL;
    link->redis = NULL;
    uv_close((uv_handle_t *)&link->poll, link_closed);
    redisFree(link->context);
    link->context = NULL;
}

static void drop_own(struct command_list *list)
{
    struct command *command, *next;
    TAILQ_FOREACH_SAFE (command, list, entry, next)
        if (command->kind != COMMAND_USER) {
            TAILQ_REMOVE(list, command, entry);
            free(command);
        }
}

/* Ends the connection; everything that is unanswered will be sent on the next one. */
static void drop_link(struct redis *redis, const char *why, int64_t min_backoff_ms)
{
    link_drop(redis);
    redis->state = LINK_DOWN;
    loop_timer_stop(redis->retry);
    drop_own(&redis->queue);
    drop_own(&redis->held);
    TAILQ_CONCAT(&redis->held, &redis->queue, entry); /* what is held was sent first */
    TAILQ_CONCAT(&redis->queue, &redis->held, entry);
    redis->unsent = TAILQ_FIRST(&redis->queue);
    redis->unsent_offset = 0;
    if (redis->backoff_ms < min_backoff_ms)
        redis->backoff_ms = min_backoff_ms;
    loop_timer_start(redis->reconnect, redis->backoff_ms, 0);
    redis->backoff_ms *= 2;
    if (redis->backoff_ms > BACKOFF_MAX_MS)
        redis->backoff_ms = BACKOFF_MAX_MS;
    bool told = redis->last_why != NULL && strcmp(redis->last_why, why) == 0;
    if (told || redis->callbacks.down == NULL)
        return;
    free(redis->last_why);
    redis->last_why = mem_must_strdup(why);
    redis->callbacks.down(redis->ctx, why);
}

/* Watches the descriptor of a connection that is being made. Takes the context. */
static void link_start(struct redis *redis, redisContext *context)
{
    if (context == NULL || context->err != 0) {
        char why[512];
        snprintf(why, sizeof why, "cannot connect to Redis at %s: %s", redis->name,
                 context != NULL ? context->errstr : "out of memory");
        if (context != NULL)
            redisFree(context);
        drop_link(redis, why, 0);
        return;
    }
    struct link *link = mem_must_zalloc(sizeof *link);
    link->redis = redis;
    link->context = context;
    link->functions = *context->reader->fn;
    link->checked = link->functions;
    link->checked.createArray = create_array;
    context->reader->fn = &link->checked;
    context->reader->privdata = link;
    fcntl(context->fd, F_SETFD, FD_CLOEXEC);
    int rc = uv_poll_init(redis->loop, &link->poll, context->fd);
    if (rc != 0) {
        redisFree(context);
        free(link);
        drop_errno(redis, "cannot watch", -rc);
        return;
    }
    link->poll.data = link;
    redis->link = link;
    redis->state = LINK_CONNECTING;
    redis->heard_ms = clock_ms();
    if (redis->options.socket == NULL)
        redisEnableKeepAlive(context);
    poll_for(link, UV_WRITABLE);
}

struct resolve {
    uv_getaddrinfo_t request;
    struct redis *redis; /* NULL: the client was closed */
};

static void resolved(uv_getaddrinfo_t *request, int status, struct addrinfo *found)
{
    struct resolve *resolve = request->data;
    struct redis *redis = resolve->redis;
    free(resolve);
    unsigned n = 0;
    for (const struct addrinfo *at = found; at != NULL; at = at->ai_next)
        n++;
    if (redis != NULL)
        redis->resolve = NULL;
    if (redis != NULL && (status != 0 || n == 0)) {
        char why[512];
        snprintf(why, sizeof why, "cannot find the host of Redis at %s: %s", redis->name,
                 uv_strerror(status != 0 ? status : UV_EAI_NONAME));
        drop_link(redis, why, 0);
    } else if (redis != NULL) {
        const struct addrinfo *at = found;
        for (unsigned skip = redis->connects++ % n; skip > 0; skip--)
            at = at->ai_next;
        char ip[64] = "";
        uv_ip_name(at->ai_addr, ip, sizeof ip);
        link_start(redis, redisConnectNonBlock(ip, redis->options.port));
    }
    uv_freeaddrinfo(found);
}

static void connect_now(void *ctx)
{
    struct redis *redis = ctx;
    if (redis->options.socket != NULL) {
        link_start(redis, redisConnectUnixNonBlock(redis->options.socket));
        return;
    }
    struct resolve *resolve = mem_must_zalloc(sizeof *resolve);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    resolve->redis = redis;
    resolve->request.data = resolve;
    redis->state = LINK_RESOLVING;
    redis->resolve = resolve;
    int rc =
        uv_getaddrinfo(redis->loop, &resolve->request, resolved, redis->options.host, NULL, &hints);
    if (rc != 0) {
        redis->resolve = NULL;
        free(resolve);
        drop_errno(redis, "cannot find the host of", -rc);
    }
}

/* A server that is stuck, or a host that went away without a word. */
static void watch(void *ctx)
{
    struct redis *redis = ctx;
    bool owes = redis->link != NULL &&
                (redis->state != LINK_UP || TAILQ_FIRST(&redis->queue) != redis->unsent);
    if (!owes || clock_ms() - redis->heard_ms < STALL_MS)
        return;
    char why[512];
    snprintf(why, sizeof why, "Redis at %s did not answer for %d s", redis->name, STALL_MS / 1000);
    drop_link(redis, why, 0);
}

/* --- opening and closing ------------------------------------------------------------------ */

static char *copy(const char *text)
{
    return text != NULL ? mem_must_strdup(text) : NULL;
}

int redis_open(struct redis **ret, uv_loop_t *loop, const struct redis_options *options,
               const struct redis_callbacks *callbacks, void *ctx, struct err *err)
{
    if (options->tls)
        return err_set(err, -EPROTONOSUPPORT,
                       "rediss:// (TLS to Redis) is not supported by this build: use redis:// "
                       "through a TLS tunnel, or unix:///path");
    if (options->socket == NULL && options->host == NULL)
        return err_set(err, -EINVAL, "the address of Redis has neither a host nor a socket path");
    struct redis *redis = mem_must_zalloc(sizeof *redis);
    redis->loop = loop;
    redis->options = (struct redis_options){
        .socket = copy(options->socket),
        .host = copy(options->host),
        .port = options->port,
        .user = copy(options->user),
        .password = copy(options->password),
        .database = options->database,
    };
    redis->name = options->socket != NULL ? mem_must_printf("unix:%s", options->socket)
                                          : mem_must_printf("%s:%d", options->host, options->port);
    if (callbacks != NULL)
        redis->callbacks = *callbacks;
    redis->ctx = ctx;
    redis->backoff_ms = BACKOFF_MIN_MS;
    TAILQ_INIT(&redis->queue);
    TAILQ_INIT(&redis->held);
    redis->reconnect = loop_timer_new(loop, connect_now, redis);
    redis->retry = loop_timer_new(loop, send_held, redis);
    redis->watch = loop_timer_new(loop, watch, redis);
    loop_timer_start(redis->watch, WATCH_MS, WATCH_MS);
    uv_prepare_init(loop, &redis->flush);
    redis->flush.data = redis;
    uv_prepare_start(&redis->flush, flush_turn);
    /* From the loop, so that callbacks never run before this returns. */
    loop_timer_start(redis->reconnect, 0, 0);
    *ret = redis;
    return 0;
}

static void redis_closed(uv_handle_t *handle)
{
    struct redis *redis = handle->data;
    free(redis->options.socket);
    free(redis->options.host);
    free(redis->options.user);
    if (redis->options.password != NULL)
        explicit_bzero(redis->options.password, strlen(redis->options.password));
    free(redis->options.password);
    free(redis->name);
    free(redis->channel);
    free(redis->last_why);
    free(redis->scripts);
    free(redis);
}

static void answer_closed(struct command_list *list)
{
    struct command *command;
    while ((command = TAILQ_FIRST(list)) != NULL) {
        TAILQ_REMOVE(list, command, entry);
        if (command->kind == COMMAND_USER)
            redis_answer_closed(command->fn, command->ctx);
        free(command);
    }
}

void redis_close(struct redis **ret)
{
    struct redis *redis = *ret;
    *ret = NULL;
    if (redis == NULL || redis->closed)
        return;
    redis->closed = true;
    link_drop(redis);
    redis->state = LINK_DOWN;
    if (redis->resolve != NULL) {
        redis->resolve->redis = NULL;
        uv_cancel((uv_req_t *)&redis->resolve->request);
    }
    loop_timer_free(&redis->reconnect);
    loop_timer_free(&redis->retry);
    loop_timer_free(&redis->watch);
    answer_closed(&redis->held);
    answer_closed(&redis->queue);
    redis->pending = 0;
    uv_close((uv_handle_t *)&redis->flush, redis_closed);
}

bool redis_connected(const struct redis *redis)
{
    return redis->state == LINK_UP;
}

size_t redis_pending(const struct redis *redis)
{
    return redis->pending;
}

const char *redis_name(const struct redis *redis)
{
    return redis->name;
}
