/* What a worker asks in one turn of its loop goes to Redis as one EVALSHA of governor.lua. */
#include "common/governor_internal.h"

#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "schemas/mem.h"

#define TURN_OPERATIONS 256 /* more of them are sent at once */
#define OVERDUE_MS 2000     /* then the callers are told to wait */
#define REFUSED_MS 500      /* until Redis is asked again after it answered with an error */
#define HEAD_WORDS 5        /* of an answer, before those of acquires */

struct asking {
    char id[GOVERNOR_ID_SIZE];
    governor_fn *fn; /* NULL: answered, or forgotten */
    void *ctx;
};

struct governor_turn {
    TAILQ_ENTRY(governor_turn) entry;
    struct governor *governor;
    struct queue_args operations;
    int n_operations;
    struct asking *asking; /* its acquires, in order */
    size_t n_asking, asking_cap;
    int64_t sent_ms;
};

static const struct {
    const char *word;
    enum governor_verdict verdict;
} verdicts[] = {
    {"GRANTED", GOVERNOR_GRANTED},
    {"WAIT", GOVERNOR_WAIT},
    {"OPEN", GOVERNOR_OPEN},
    {"NO_KEY", GOVERNOR_NO_KEY},
};

static const struct {
    const char *word, *text;
} reasons[] = {
    {"provider requests", "the provider's requests per minute are used up"},
    {"provider tokens", "the provider's tokens per minute are used up"},
    {"provider calls", "as many calls of the provider as allowed are under way"},
    {"key requests", "the requests per minute of each key are used up"},
    {"key tokens", "the tokens per minute of each key are used up"},
    {"key calls", "as many calls of each key as allowed are under way"},
    {"key blocked", "the provider asked to wait"},
    {"key server", "the provider says that its limit is reached"},
    {"key out", "no key is left that can be used"},
    {"breaker", "too many calls in a row were overloaded or timed out"},
    {"probe", "a probe is under way after too many failures in a row"},
};

static const char *reason_of(const char *word)
{
    for (size_t i = 0; i < sizeof reasons / sizeof *reasons; i++)
        if (strcmp(reasons[i].word, word) == 0)
            return reasons[i].text;
    return "";
}

static void turn_free(struct governor_turn *turn)
{
    queue_args_release(&turn->operations);
    free(turn->asking);
    free(turn);
}

/* --- answers ------------------------------------------------------------------------------ */

static int64_t room_known(const struct governor *governor)
{
    int64_t rate = governor->rate_room < 0 ? INT64_MAX : governor->rate_room;
    int64_t calls = governor->calls_room < 0 ? INT64_MAX : governor->calls_room;
    return rate < calls ? rate : calls;
}

/* Takes the callback out, so that it is called once. */
static void answer(struct governor *governor, struct asking *asking, struct governor_permit *permit)
{
    governor_fn *fn = asking->fn;
    asking->fn = NULL;
    permit->room = room_known(governor);
    if (fn != NULL)
        fn(asking->ctx, permit);
}

static void answer_wait(struct governor *governor, struct asking *asking, int64_t delay_ms,
                        const char *reason)
{
    struct governor_permit permit = {
        .verdict = GOVERNOR_WAIT, .delay_ms = delay_ms, .reason = reason};
    answer(governor, asking, &permit);
}

static void answer_granted(struct governor *governor, struct asking *asking, const char *key)
{
    size_t place = governor_key_place(governor, key);
    if (asking->fn == NULL || place == governor->n_keys) {
        governor_give_back(governor, asking->id, key);
        answer_wait(governor, asking, 1, "the keys were read again");
        return;
    }
    struct governor_permit permit = {.verdict = GOVERNOR_GRANTED, .key = place, .reason = ""};
    memcpy(permit.id, asking->id, sizeof permit.id);
    governor_hold(governor, asking->id, key, true);
    answer(governor, asking, &permit);
}

/* value: {verdict, key, ms, reason} */
static void answer_one(struct governor *governor, struct asking *asking,
                       const struct redis_value *value)
{
    const char *word = redis_str(redis_at(value, 0), NULL);
    size_t i = 0;
    while (i < sizeof verdicts / sizeof *verdicts && strcmp(verdicts[i].word, word) != 0)
        i++;
    if (i == sizeof verdicts / sizeof *verdicts) {
        answer_wait(governor, asking, REFUSED_MS, "Redis gave no valid answer");
    } else if (verdicts[i].verdict == GOVERNOR_GRANTED) {
        answer_granted(governor, asking, redis_str(redis_at(value, 1), NULL));
    } else {
        struct governor_permit permit = {
            .verdict = verdicts[i].verdict,
            .delay_ms = redis_int(redis_at(value, 2)),
            .reason = reason_of(redis_str(redis_at(value, 3), NULL)),
        };
        if (permit.delay_ms < 1)
            permit.delay_ms = 1;
        answer(governor, asking, &permit);
    }
}

/* value: version, room in the windows, room in calls, ms, lines */
static void take_state(struct governor *governor, const struct redis_value *value)
{
    governor->rate_room = redis_int(redis_at(value, 1));
    governor->calls_room = redis_int(redis_at(value, 2));
    int64_t delay_ms = redis_int(redis_at(value, 3));
    governor->room_ms = delay_ms > 0 ? clock_ms() + delay_ms : 0;
    const struct redis_value *lines = redis_at(value, 4);
    size_t n = redis_len(lines);
    struct queue_word *words = n > 0 ? mem_must_realloc(NULL, n * sizeof *words) : NULL;
    for (size_t i = 0; i < n; i++)
        words[i].text = redis_str(redis_at(lines, i), &words[i].len);
    governor_state_apply(governor, redis_int(redis_at(value, 0)), true, words, n);
    free(words);
}

static void refused(struct governor_turn *turn, const struct redis_value *value)
{
    const char *text = redis_str(value, NULL);
    if (strncmp(text, "CLOSED", 6) == 0)
        return;
    log_warn("cannot ask Redis for the limits of %s: %.300s", turn->governor->provider,
             redis_type(value) == REDIS_ERR ? text : "it gave no valid answer");
    for (size_t i = 0; i < turn->n_asking; i++)
        answer_wait(turn->governor, &turn->asking[i], REFUSED_MS, "Redis cannot be asked");
}

static void turn_answered(void *ctx, const struct redis_value *value)
{
    struct governor_turn *turn = ctx;
    struct governor *governor = turn->governor;
    if (redis_type(value) != REDIS_ARRAY || redis_len(value) != HEAD_WORDS + turn->n_asking) {
        refused(turn, value);
    } else {
        take_state(governor, value);
        for (size_t i = 0; i < turn->n_asking; i++)
            answer_one(governor, &turn->asking[i], redis_at(value, HEAD_WORDS + i));
    }
    TAILQ_REMOVE(&governor->sent, turn, entry);
    turn_free(turn);
    if (governor->closed)
        governor_turn_send(governor);
    governor_drop(governor);
}

/* --- sending ------------------------------------------------------------------------------ */

static struct governor_turn *filling(struct governor *governor)
{
    if (governor->filling != NULL && governor->filling->n_operations >= TURN_OPERATIONS)
        governor_turn_send(governor);
    if (governor->filling == NULL) {
        governor->filling = mem_must_zalloc(sizeof *governor->filling);
        governor->filling->governor = governor;
        if (!governor->closed)
            loop_timer_start(governor->send, 0, 0);
    }
    return governor->filling;
}

struct queue_args *governor_turn_add(struct governor *governor, int n, const char *operation)
{
    struct governor_turn *turn = filling(governor);
    turn->n_operations++;
    queue_args_printf(&turn->operations, "%d", n);
    queue_args_copy(&turn->operations, operation, strlen(operation));
    return &turn->operations;
}

void governor_turn_read(struct governor *governor)
{
    filling(governor);
}

void governor_turn_acquire(struct governor *governor, const char *id, const char *arm,
                           int64_t tokens, governor_fn *fn, void *ctx)
{
    struct queue_args *args = governor_turn_add(governor, 4, "acquire");
    queue_args_copy(args, id, strlen(id));
    queue_args_copy(args, arm, strlen(arm));
    queue_args_printf(args, "%lld", (long long)tokens);
    struct governor_turn *turn = governor->filling;
    if (turn->n_asking == turn->asking_cap) {
        turn->asking_cap = turn->asking_cap > 0 ? turn->asking_cap * 2 : 16;
        turn->asking = mem_must_realloc(turn->asking, turn->asking_cap * sizeof *turn->asking);
    }
    struct asking *asking = &turn->asking[turn->n_asking++];
    *asking = (struct asking){.fn = fn, .ctx = ctx};
    memcpy(asking->id, id, strlen(id) + 1);
}

static int add_keys(const struct governor *governor, struct queue_args *out)
{
    static const char *const names[] = {"state", "permits", "hold", "told", "window"};
    int n = (int)(sizeof names / sizeof *names);
    for (int i = 0; i < n; i++)
        queue_args_printf(out, "orch:{l:%s}:%s", governor->provider, names[i]);
    for (size_t i = 0; i < governor->n_keys; i++)
        queue_args_printf(out, "orch:{l:%s}:window:%s", governor->provider, governor->keys[i].name);
    return n + (int)governor->n_keys;
}

static void add_limits(const struct governor_limits *limits, struct queue_args *out)
{
    queue_args_printf(out, "%lld", (long long)limits->requests_per_minute);
    queue_args_printf(out, "%lld", (long long)limits->tokens_per_minute);
    queue_args_printf(out, "%lld", (long long)limits->concurrency);
}

static void add_head(const struct governor *governor, struct queue_args *out)
{
    queue_args_printf(out, "%lld", (long long)governor->window_ms * 1000);
    queue_args_printf(out, "%lld", (long long)governor->lease_ms);
    add_limits(&governor->limits, out);
    add_limits(&governor->key_limits, out);
    queue_args_printf(out, "%lld", (long long)governor->breaker_failures);
    queue_args_printf(out, "%lld", (long long)governor->breaker_open_ms);
    queue_args_word(out, governor->worker);
    queue_args_str(out, governor->channel);
    queue_args_printf(out, "%zu", governor->n_keys);
    for (size_t i = 0; i < governor->n_keys; i++)
        queue_args_str(out, governor->keys[i].name);
}

void governor_turn_send(void *ctx)
{
    struct governor *governor = ctx;
    struct governor_turn *turn = governor->filling;
    if (turn == NULL)
        return;
    governor->filling = NULL;
    TAILQ_INSERT_TAIL(&governor->sent, turn, entry);
    turn->sent_ms = clock_ms();
    governor_keep(governor);
    governor_tick(governor);
    struct queue_args head = {0};
    int n_keys = add_keys(governor, &head);
    add_head(governor, &head);
    size_t n = head.n + turn->operations.n;
    const char **argv = mem_must_realloc(NULL, n * sizeof *argv);
    size_t *lens = mem_must_realloc(NULL, n * sizeof *lens);
    for (size_t i = 0; i < head.n; i++)
        argv[i] = queue_arg(&head, i, &lens[i]);
    for (size_t i = head.n; i < n; i++)
        argv[i] = queue_arg(&turn->operations, i - head.n, &lens[i]);
    redis_eval(governor->redis, governor_script(), turn_answered, turn, n_keys, (int)n, argv, lens);
    free(argv);
    free(lens);
    queue_args_release(&head);
}

/* --- forgetting --------------------------------------------------------------------------- */

static void turn_forget(struct governor_turn *turn, const void *ctx)
{
    for (size_t i = 0; i < turn->n_asking; i++)
        if (ctx == NULL || turn->asking[i].ctx == ctx)
            turn->asking[i].fn = NULL;
}

void governor_turns_forget(struct governor *governor, void *ctx)
{
    struct governor_turn *turn;
    if (governor->filling != NULL)
        turn_forget(governor->filling, ctx);
    TAILQ_FOREACH (turn, &governor->sent, entry)
        turn_forget(turn, ctx);
}

void governor_turns_expire(struct governor *governor)
{
    struct governor_turn *turn;
    int64_t now = clock_ms();
    governor_keep(governor);
    /* Callbacks add no turn to those that were sent before, and remove none. */
    TAILQ_FOREACH (turn, &governor->sent, entry)
        for (size_t i = 0; i < turn->n_asking && now - turn->sent_ms >= OVERDUE_MS; i++)
            answer_wait(governor, &turn->asking[i], REFUSED_MS, "Redis does not answer");
    governor_drop(governor);
}
