/* Every single thing that Redis stores is damaged in turn: a bit is flipped, its end is cut off, it
 * is gone. Whatever calls answer then, nobody crashes, and a task beside it is run as if nothing
 * had happened, also when its calls travel in one batch with those of the damaged one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/task_id.h"
#include "tests/lib/probe.h"

/* All in one shard. */
#define T "t0000000000000001"

static struct probe probe;
static char bystander[TASK_ID_SIZE];

static const struct queue_account accounts[] = {{"day", {100, 0}}, {"task-role:coder", {100, 0}}};
static const char *const subs[] = {"ready", "running", "delayed", "held",
                                   "done",  "blocked", "plan"};
#define N_SUBS (sizeof subs / sizeof *subs)

/* ARGV: place, how, a number; which places there are, in order: {key, element, key, ...}. Keys and
 * members of the bystander are left out. */
static const char script[] =
    "local places = {} "
    "local keys = redis.call('KEYS', 'orch:*') "
    "table.sort(keys) "
    "local function mine(text) return not string.find(text, ARGV[4], 1, true) end "
    "for _, key in ipairs(keys) do "
    "  local kind = redis.call('TYPE', key).ok "
    "  local found = {} "
    "  if not mine(key) then "
    "  elseif kind == 'hash' then found = redis.call('HKEYS', key) table.sort(found) "
    "  elseif kind == 'zset' then found = redis.call('ZRANGE', key, 0, -1) "
    "  elseif kind == 'list' then "
    "    for i = 0, redis.call('LLEN', key) - 1 do found[#found + 1] = tostring(i) end "
    "  elseif kind == 'stream' then "
    "    for _, e in ipairs(redis.call('XRANGE', key, '-', '+')) do found[#found + 1] = e[1] end "
    "  else found = {'.'} end "
    "  for _, element in ipairs(found) do "
    "    if mine(element) then places[#places + 1] = {key, element, kind} end "
    "  end "
    "end "
    "local place = places[tonumber(ARGV[1])] "
    "if not place then return #places end "
    "local key, element, kind = place[1], place[2], place[3] "
    "local function damage(v) "
    "  if ARGV[2] == 'cut' then return v:sub(1, ARGV[3] % math.max(#v, 1)) end "
    "  if #v == 0 then return 'x' end "
    "  local at = ARGV[3] % (#v * 8) "
    "  local i, b = math.floor(at / 8) + 1, 2 ^ (at % 8) "
    "  return v:sub(1, i - 1) .. string.char(bit.bxor(v:byte(i), b)) .. v:sub(i + 1) "
    "end "
    "local gone = ARGV[2] == 'gone' "
    "if kind == 'hash' then "
    "  local v = redis.call('HGET', key, element) "
    "  if gone then redis.call('HDEL', key, element) "
    "  else redis.call('HSET', key, element, damage(v)) end "
    "elseif kind == 'zset' then "
    "  local score = redis.call('ZSCORE', key, element) "
    "  redis.call('ZREM', key, element) "
    "  if not gone then redis.call('ZADD', key, score, damage(element)) end "
    "elseif kind == 'list' then "
    "  local v = redis.call('LINDEX', key, element) "
    "  redis.call('LSET', key, element, gone and '' or damage(v)) "
    "elseif kind == 'stream' then "
    "  local e = redis.call('XRANGE', key, element, element)[1] "
    "  redis.call('XDEL', key, element) "
    "  for i = 1, #e[2] do e[2][i] = damage(e[2][i]) end "
    "  if not gone then redis.call('XADD', key, '*', unpack(e[2])) end "
    "elseif gone then redis.call('DEL', key) "
    "else redis.call('SET', key, damage(redis.call('GET', key))) end "
    "return key .. ' ' .. element";

static void replied(void *ctx, const struct redis_value *value)
{
    struct probe *to = ctx;
    buf_clear(&to->text);
    if (redis_type(value) == REDIS_INT)
        buf_printf(&to->text, "%lld", (long long)redis_int(value));
    else
        buf_add_str(&to->text, redis_str(value, NULL));
    to->done = true;
}

/* What was damaged; or, for place 0, how many places there are. Good until the next call. */
static const char *damage(int place, const char *how, unsigned number)
{
    char at[16], text[16];
    snprintf(at, sizeof at, "%d", place);
    snprintf(text, sizeof text, "%u", number);
    const char *argv[] = {"EVAL", script, "0", at, how, text, bystander};
    redis_command(queue_redis(probe.queue), replied, &probe, 7, argv, NULL);
    probe_wait(&probe);
    return probe.text.data;
}

/* --- tasks ------------------------------------------------------------------------------------ */

static void find_bystander(void)
{
    for (int i = 2;; i++) {
        snprintf(bystander, sizeof bystander, "t%016d", i);
        if (task_shard(bystander) == task_shard(T))
            return;
    }
}

/* A subtask in every state, an attempt with a hedge and something reserved; and another task. */
static void make_tasks(void)
{
    const struct probe_node nodes[] = {{.id = "ready"},
                                       {.id = "running"},
                                       {.id = "delayed"},
                                       {.id = "held"},
                                       {.id = "done"},
                                       {.id = "blocked", .deps = "running done"},
                                       {.id = "plan", .expands = true}};
    const struct probe_node two[] = {{.id = "x"}, {.id = "y", .deps = "x"}};
    probe_redis(&probe, "FLUSHALL");
    probe.budget = (struct queue_spend){100, 0};
    probe_submit(&probe, T, "d", nodes, N_SUBS);
    probe.budget = (struct queue_spend){0, 0};
    probe_claim(&probe, T, "running", "n");
    probe_hedge(&probe, T, "running", "h", 60000);
    probe_reserve(&probe, T, "running", "2-h", accounts, 2, (struct queue_spend){5, 0});
    probe_claim(&probe, T, "delayed", "n");
    probe_fail(&probe, T, "delayed", "1-n", ERROR_RETRY, 60000);
    probe_sub(&probe, queue_hold, T, "held");
    probe_run(&probe, T, "done");
    probe_submit(&probe, bystander, "d", two, 2);
}

static int setup(void **state)
{
    (void)state;
    probe_open(&probe);
    probe.quiet = true;
    find_bystander();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    probe_close(&probe);
    return 0;
}

/* --- the task beside it ----------------------------------------------------------------------- */

struct call {
    enum queue_status status;
    char token[64];
    bool *done;
};

static void claimed(void *ctx, enum queue_status status, const struct queue_claim *claim,
                    const char *err)
{
    struct call *call = ctx;
    (void)err;
    call->status = status;
    if (claim != NULL)
        snprintf(call->token, sizeof call->token, "%s", claim->token);
    if (call->done != NULL)
        *call->done = true;
}

static void committed(void *ctx, enum queue_status status, const char *err)
{
    struct call *call = ctx;
    (void)err;
    call->status = status;
    if (call->done != NULL)
        *call->done = true;
}

/* Claims and commits it between claims and commits of the damaged task, in one turn of the loop. */
static void run_beside(const char *what, const char *sub)
{
    struct call others[2 * N_SUBS] = {0}, mine = {0};
    struct buf outcome = {0}, timing = {0};
    bool done = false;
    mine.done = &done;
    for (size_t i = 0; i < N_SUBS; i++) {
        queue_claim(probe.queue, T, subs[i], "w", "m@p", "z", 60000, false, claimed, &others[i]);
        if (i == 2)
            queue_claim(probe.queue, bystander, sub, "w", "m@p", "z", 60000, false, claimed, &mine);
    }
    probe_wait_for(&probe, &done);
    if (mine.status != QUEUE_OK)
        fail_msg("%s: the task beside it is not claimed: %s", what, queue_status_name(mine.status));
    probe_record(&outcome, MESSAGE_outcome, sub);
    probe_record(&timing, MESSAGE_timing, sub);
    struct bytes result = {outcome.data, outcome.len}, times = {timing.data, timing.len};
    done = false;
    for (size_t i = 0; i < N_SUBS; i++) {
        queue_commit(probe.queue, T, subs[i], others[i].token, result, times, NULL, committed,
                     &others[N_SUBS + i]);
        if (i == 4)
            queue_commit(probe.queue, bystander, sub, mine.token, result, times, NULL, committed,
                         &mine);
    }
    probe_wait_for(&probe, &done);
    if (mine.status != QUEUE_OK)
        fail_msg("%s: the task beside it is not committed: %s", what,
                 queue_status_name(mine.status));
    probe_read(&probe, T); /* all others are answered, too */
    buf_release(&outcome);
    buf_release(&timing);
}

/* --- everybody's calls ------------------------------------------------------------------------ */

static void items(void *ctx, int shard, const struct queue_item *list, size_t n, const char *err)
{
    (void)shard, (void)list, (void)n, (void)err;
    *(bool *)ctx = true;
}

static void listed(void *ctx, const struct queue_task_item *list, size_t n, const char *err)
{
    (void)list, (void)n, (void)err;
    *(bool *)ctx = true;
}

static void measured(void *ctx, const struct queue_depths *depths, const char *err)
{
    (void)depths, (void)err;
    *(bool *)ctx = true;
}

static void named(void *ctx, const char *const *jsons, size_t n, const char *err)
{
    (void)jsons, (void)n, (void)err;
    *(bool *)ctx = true;
}

/* What an orchestrator and the command line read. */
static void read_everything(void)
{
    for (int index = QUEUE_INDEX_READY; index <= QUEUE_INDEX_DELAY; index++) {
        bool done = false;
        queue_scan(probe.queue, task_shard(T), (enum queue_index)index, 0, 100, items, &done);
        probe_wait_for(&probe, &done);
    }
    bool done[4] = {0};
    queue_list(probe.queue, 10, listed, &done[0]);
    queue_finished(probe.queue, task_shard(T), 0, 10, listed, &done[1]);
    queue_depths(probe.queue, measured, &done[2]);
    queue_orchestrators(probe.queue, named, &done[3]);
    for (int i = 0; i < 4; i++)
        probe_wait_for(&probe, &done[i]);
    probe_read(&probe, T);
}

static void call_everything(void)
{
    probe_sub_fn *calls[] = {queue_expire, queue_promote, queue_release, queue_hold};
    const struct probe_node child = {.id = "child"};
    for (size_t i = 0; i < N_SUBS; i++) {
        for (size_t k = 0; k < sizeof calls / sizeof *calls; k++)
            probe_sub(&probe, calls[k], T, subs[i]);
        probe_hedge(&probe, T, subs[i], "i", 60000);
        probe_reserve(&probe, T, subs[i], "2-h", accounts, 2, (struct queue_spend){5, 0});
        probe_renew(&probe, T, subs[i], "2-h", 60000);
        probe_fail(&probe, T, subs[i], "2-h", ERROR_MOVE, 1);
        probe_lose(&probe, T, subs[i], "2-h");
        probe_fail(&probe, T, subs[i], "1-n", ERROR_RETRY, 0);
        probe_commit(&probe, T, subs[i], "1-n");
    }
    probe_expand(&probe, T, "plan", &child, 1);
    probe_task(&probe, queue_cancel, T);
    probe_task(&probe, queue_retry, T);
    probe_task(&probe, queue_cancel, T);
    probe_task(&probe, queue_forget, T);
}

/* --- damages ---------------------------------------------------------------------------------- */

static unsigned chance(void)
{
    static uint32_t random = 2026;
    random = random * 1664525 + 1013904223;
    return random >> 12;
}

/* What need not be there, or is not needed any more: of that nothing can be said. */
static bool may_be_gone(const char *what)
{
    static const char *const words[] = {
        " title", " info",  " error:", " avoid:", " cost",   " ended:",      " digest",   ":log:",
        ":ev ",   ":epoch", " role:",  "{d}",     " budget", " run:delayed", " succ:done"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strstr(what, words[i]) != NULL)
            return true;
    return false;
}

static void damage_and_use(int place, const char *how, int *ret_found)
{
    char what[256];
    make_tasks();
    snprintf(what, sizeof what, "%s: %s", how, damage(place, how, chance()));
    int64_t findings = probe_fsck(&probe);
    *ret_found += findings > 0;
    if (strcmp(how, "gone") == 0 && findings == 0 && !may_be_gone(what))
        fail_msg("%s: fsck finds nothing", what);
    read_everything();
    run_beside(what, "x");
    call_everything();
    run_beside(what, "y");
    const char *state = probe_read(&probe, bystander);
    if (strcmp(state, "DONE 0/2 x=DONE y=DONE") != 0)
        fail_msg("%s: the task beside it is %s", what, state);
    read_everything();
    probe_fsck(&probe);
}

static void whatever_is_damaged_nobody_crashes_and_other_tasks_go_on(void **state)
{
    (void)state;
    static const char *const ways[] = {"flipped", "cut", "gone"};
    make_tasks();
    assert_int_equal(probe_fsck(&probe), 0);
    int places = atoi(damage(0, "", 0));
    assert_true(places > 50);
    probe_follow(&probe);
    for (size_t i = 0; i < 3; i++) {
        int found = 0;
        for (int place = 1; place <= places; place++)
            damage_and_use(place, ways[i], &found);
        print_message("%d places %s: fsck finds %d\n", places, ways[i], found);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(whatever_is_damaged_nobody_crashes_and_other_tasks_go_on,
                                        setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
