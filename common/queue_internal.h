/* What the files of the queue share: scripts, keys, arguments, and stored lines. */
#ifndef COMMON_QUEUE_INTERNAL_H
#define COMMON_QUEUE_INTERNAL_H

#include "common/queue.h"
#include "schemas/buf.h"

/* --- scripts ------------------------------------------------------------------------------ */

/* Scripts that take many calls at once (queue_batch.c), in the order in which a subtask needs them.
 */
#define QUEUE_BATCHES(X)                                                                           \
    X(submit, "task data ready tasks ev")                                                          \
    X(claim, "task data ready lease log")                                                          \
    X(commit, "task data ready lease fin ev log")

/* X(name, names of its keys in order). A key `x` is x_key in Lua, and in Redis what
 * queue_task_key() or queue_shard_key() make of it. Those of QUEUE_BATCHES come first. */
#define QUEUE_SCRIPTS(X)                                                                           \
    QUEUE_BATCHES(X)                                                                               \
    X(expand, "task data ready fin ev log")                                                        \
    X(renew, "task lease")                                                                         \
    X(hedge, "task data lease log")                                                                \
    X(reserve, "task log")                                                                         \
    X(lose, "task lease ev log")                                                                   \
    X(fail, "task data ready lease delay held dead fin ev log")                                    \
    X(bury, "task data ready lease delay held dead fin ev log")                                    \
    X(promote, "task data ready delay ev log")                                                     \
    X(hold, "task ready held log")                                                                 \
    X(release, "task data ready held ev log")                                                      \
    X(cancel, "task ready lease delay held fin ev log")                                            \
    X(retry, "task data ready lease dead fin ev log")                                              \
    X(forget, "task data log lease dead tasks fin")                                                \
    X(read, "task data")                                                                           \
    X(log, "task log")                                                                             \
    X(note, "task log")                                                                            \
    X(check, "task data log ready lease delay held dead tasks fin")                                \
    X(overdue, "")                                                                                 \
    X(epoch, "")                                                                                   \
    X(due, "")                                                                                     \
    X(accounts, "")                                                                                \
    X(shards, "")                                                                                  \
    X(fence, "")                                                                                   \
    X(checkpoint, "")                                                                              \
    X(archived, "")                                                                                \
    X(announce, "")                                                                                \
    X(orchestrators, "")

enum queue_script {
#define X(name, keys) SCRIPT_##name,
    QUEUE_SCRIPTS(X)
#undef X
        SCRIPT_COUNT
};
#define QUEUE_BATCH_COUNT (SCRIPT_commit + 1)

/* The script with its libraries; lives as long as the process. */
struct redis_script *queue_script(enum queue_script script);

/* --- keys --------------------------------------------------------------------------------- */

#define QUEUE_KEY_SIZE 96
#define QUEUE_MEMBERS_KEY "orch:{d}:members" /* ZSET of orchestrators by expiry, ms */
#define QUEUE_SHARDS_KEY "orch:{d}:shards"   /* HASH, shard -> `term member`, or `term` */
#define QUEUE_TIMINGS_KEY "orch:{d}:timings" /* STREAM */
#define QUEUE_EXPIRY_KEY "orch:{d}:expiry"   /* ZSET of orchestrators */
#define QUEUE_DAEMONS_KEY "orch:{d}:daemons" /* HASH of their descriptions */

#define QUEUE_ACCOUNT_PREFIX "orch:{b}:account:" /* HASH of a budget of a day */

/* orch:{s<shard>}:<name> */
void queue_shard_key(char ret[QUEUE_KEY_SIZE], int shard, const char *name);
/* orch:{s<shard of task>}:<name>:<task> */
void queue_task_key(char ret[QUEUE_KEY_SIZE], const char *task, const char *name);

/* Most keys of one script. */
#define QUEUE_KEYS_MAX 16
/* Writes the keys that the script names; returns how many. */
int queue_keys(enum queue_script script, const char *task, char (*ret)[QUEUE_KEY_SIZE]);

/* --- calls -------------------------------------------------------------------------------- */

/* Arguments of a command that is being put together. Data is borrowed until it is sent. */
struct queue_arg {
    const char *data; /* NULL: in text, at offset */
    size_t offset, len;
};
struct queue_args {
    struct queue_arg *items;
    size_t n, cap;
    struct buf text;
};
void queue_args_clear(struct queue_args *args);
void queue_args_release(struct queue_args *args);
void queue_args_bytes(struct queue_args *args, const char *data, size_t len);
void queue_args_str(struct queue_args *args, const char *text);
void queue_args_copy(struct queue_args *args, const char *data, size_t len);
void queue_args_printf(struct queue_args *args, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* A name that becomes a word of a stored line: blanks and control characters are replaced, and the
 * empty name is "-". */
void queue_args_word(struct queue_args *args, const char *text);
/* "nano tokens", neither below 0 nor beyond what Lua counts exactly. */
void queue_args_spend(struct queue_args *args, const struct queue_spend *spend);

const char *queue_arg(const struct queue_args *args, size_t at, size_t *ret_len);

struct queue_batch;

/* Accounts by name: those that calls of this process have reserved of, or been told of. */
struct queue_known {
    char **names;
    size_t n;
};

/* What is known of Redis's clock, by shard (overdue.lua). */
struct queue_clock {
    char said[48];
    int64_t at_ms; /* when, by our own clock */
};

struct queue {
    uv_loop_t *loop;
    struct redis *redis;
    struct redis_options options;                   /* for further connections */
    struct queue_args args;                         /* of the call that is being made */
    struct queue_args batch_args;                   /* of the batch that is being sent */
    struct queue_follow *follow;                    /* NULL: queue_follow() was not called */
    struct queue_batch *batches[QUEUE_BATCH_COUNT]; /* being filled; NULL: empty */
    struct queue_batch *answering;                  /* its callbacks are being called, or NULL */
    struct queue_known known;
    char nonce[17]; /* of this client */
    struct queue_clock clocks[SHARD_COUNT];
    struct queue_epoch *epoch;        /* NULL: it is not guarded */
    struct redis_callbacks callbacks; /* of who opened it, with callbacks_ctx */
    void *callbacks_ctx;
};

/* Adds the arguments in queue->args to the batch of the script. known: as of queue_run_settling().
 */
void queue_batch_add(struct queue *queue, enum queue_script script, const char *task, bool known,
                     redis_reply_fn *fn, void *ctx);
/* Sends what is in the batches: with the loop's turn, and before every other call. */
void queue_batch_flush(struct queue *queue);
/* Answers everything that is not yet sent or not yet told with CLOSED. Before the client closes. */
void queue_batch_close(struct queue *queue);

/* Starts the arguments of a script of that task: its keys' turn comes in queue_run(). */
struct queue_args *queue_begin(struct queue *queue, const char *task);
/* Sends the script, or adds the call to its batch; task is the one of queue_begin(). */
void queue_run(struct queue *queue, enum queue_script script, const char *task, redis_reply_fn *fn,
               void *ctx);
/* The same for a script whose answer is a status. */
void queue_run_plain(struct queue *queue, enum queue_script script, const char *task, queue_fn *fn,
                     void *ctx);
/* The same for a script that may settle what is reserved: its keys are followed by those of the
 * accounts. Which these are Redis knows: when one is missing, the script changes nothing, answers
 * with their names, and is sent again. known: begin with the keys of all accounts that are known
 * here, because something is likely to be settled. Each part is safe to repeat.
 *
 * A single server lets a script touch keys of several slots; Redis Cluster does not. Accounts have
 * a slot of their own ({b}) and know their holds by token, so that they could be settled by a
 * second script there, after the first. */
void queue_run_settling(struct queue *queue, enum queue_script script, const char *task, bool known,
                        redis_reply_fn *fn, void *ctx);
/* The same for a script whose answer is a status. */
void queue_settle_plain(struct queue *queue, enum queue_script script, const char *task, bool known,
                        queue_fn *fn, void *ctx);
/* Whether the answer to a call, which had the keys of the first `sent` known accounts, says that
 * keys of others are missing; their names become known. False also when it helps nothing to send
 * the call again: what is stored is damaged. */
bool queue_known_missing(struct queue *queue, const struct redis_value *value, size_t sent);
/* Adds the keys of all known accounts; returns how many. */
size_t queue_known_keys(const struct queue *queue, struct queue_args *args);
void queue_known_release(struct queue_known *known);

/* Sends the arguments, n_keys keys first, to a script. */
void queue_eval(struct queue *queue, const struct queue_args *args, enum queue_script script,
                int n_keys, redis_reply_fn *fn, void *ctx);
/* Sends queue->args as a plain command on that client. */
void queue_send(struct redis *redis, struct queue_args *args, redis_reply_fn *fn, void *ctx);
/* The same for one that blocks. */
void queue_send_blocking(struct redis *redis, struct queue_args *args, redis_reply_fn *fn,
                         void *ctx);

/* The status in an answer: a string, or the first element of an array. err is set with REFUSED and
 * ERROR, else "". */
enum queue_status queue_status_of(const struct redis_value *value, struct err *err);
/* Whether the answer is an error; then err says which. */
bool queue_failed(const struct redis_value *value, struct err *err);

void queue_follow_close(struct queue_follow **follow);

/* --- which Redis this is (queue_epoch.c) ---------------------------------------------------- */

struct queue_epoch;
void queue_epoch_up(struct queue_epoch *epoch); /* a new connection */
void queue_epoch_free(struct queue_epoch **epoch);
/* Whether the call is not to be made; then it is answered with an error FOREIGN. */
bool queue_epoch_bars(struct queue *queue, enum queue_script script, redis_reply_fn *fn, void *ctx);
/* Whether the status is told later, once it is sure that it comes from the right Redis. */
bool queue_epoch_verify(struct queue *queue, enum queue_status status, queue_fn *fn, void *ctx);

/* --- stored lines ------------------------------------------------------------------------- */

/* Text inside someone else's buffer. */
struct queue_word {
    const char *text;
    size_t len;
};

/* The words of a subtask's line in their order, which common/scripts/lib.lua names too; behind them
 * stands the record `meta`. */
#define QUEUE_LINE_WORDS 11
struct queue_line {
    enum sub_state state;
    int64_t attempts, left, indegree;
    int64_t ready_us, queue_us;
    struct queue_word error_class; /* len 0: none */
    int64_t max, priority, expands, order;
    struct queue_word meta; /* the record; len 0: none */
};
/* False when the line is damaged. */
bool queue_line_parse(struct queue_line *ret, const char *text, size_t len);

/* The words of a subtask's last attempt, and of its hedge, if there is one. */
struct queue_attempt_words {
    struct queue_word token, worker, arm; /* len 0: none */
};
struct queue_run_line {
    struct queue_attempt_words attempts[2];
    size_t n_attempts;
    bool held; /* something is reserved for the subtask */
};
bool queue_run_parse(struct queue_run_line *ret, const char *text, size_t len);

/* The line of a budget. */
struct queue_budget {
    struct queue_spend limit, spent, held;
    bool over; /* a call has cost more than was reserved for it */
};
bool queue_budget_parse(struct queue_budget *ret, const char *text, size_t len);

/* Splits at single spaces into n words, none empty; ret_rest is what follows, behind one more
 * space. NULL: nothing may follow. */
bool queue_split(const char *text, size_t len, struct queue_word *words, size_t n,
                 struct queue_word *ret_rest);
bool queue_word_int(const struct queue_word *word, int64_t *ret);
bool queue_word_is(const struct queue_word *word, const char *text);
/* Copies a word into ret, "-" as "". False when it does not fit. */
bool queue_word_copy(char *ret, size_t size, const struct queue_word *word);

/* Value of a field in a flat array of fields and values; NIL when it is not there. */
const struct redis_value *queue_field(const struct redis_value *flat, const char *name);

/* Storage of a decoded event of an outbox entry. */
struct queue_entry {
    struct queue_event event; /* points into this and the reply */
    bool submitted_first;     /* a SUBMITTED event comes before it */
    bool task_after;          /* a TASK event comes after it */
    char id[48], task[64], sub[80], error_class[64];
    char text[2048];
};
/* How many events the entry has. value: [id, [field, value, ...]]. */
size_t queue_entry_events(const struct redis_value *value);
/* Decodes one of them, from 0. False when it is damaged. */
bool queue_entry_parse(struct queue_entry *ret, int shard, const struct redis_value *value,
                       size_t at);

struct queue_log_line {
    struct queue_log_entry entry; /* text points into the line */
    bool task_after;              /* "task-done" comes after it */
    char id[48], what[32], sub[80], worker[256], arm[256], error_class[64];
};
/* number: its place in the log, from 0. text is terminated. */
bool queue_log_parse(struct queue_log_line *ret, int64_t number, const char *text, size_t len);

/* Reports what is wrong with the budgets of a task, and with an account. flat: HGETALL of it. */
void queue_check_budgets(const char *task, const struct redis_value *flat,
                         queue_finding_fn *finding, void *ctx);
void queue_check_account(const char *name, const struct redis_value *flat,
                         queue_finding_fn *finding, void *ctx);
/* Reports what is wrong with a task. value: answer of check.lua. False: there is no such task. */
bool queue_check(const char *task, const struct redis_value *value, queue_finding_fn *finding,
                 void *ctx);

#endif
