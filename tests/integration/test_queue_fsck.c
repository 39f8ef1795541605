/* Damage in what Redis stores is found and said, and crashes nobody. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/task_id.h"
#include "tests/lib/probe.h"

#define T "t0000000000000001"
#define U "t0000000000000002"

static struct probe probe;

static int teardown(void **state)
{
    (void)state;
    probe_close(&probe);
    return 0;
}

static const struct queue_account accounts[] = {{"day", {100, 0}}, {"task-role:coder", {100, 0}}};

/* One task with a subtask in every state that lives, and one that failed. The one that runs is
 * hedged, and has reserved something. */
static void make_tasks(void)
{
    const struct probe_node nodes[] = {
        {.id = "ready"}, {.id = "running"}, {.id = "delayed"},
        {.id = "held"},  {.id = "done"},    {.id = "blocked", .deps = "running done"}};
    const struct probe_node two[] = {{.id = "a"}, {.id = "b", .deps = "a"}};
    probe.budget = (struct queue_spend){100, 0};
    probe_submit(&probe, T, "d", nodes, 6);
    probe.budget = (struct queue_spend){0, 0};
    probe_claim(&probe, T, "running", "n");
    probe_hedge(&probe, T, "running", "h", 60000);
    probe_reserve(&probe, T, "running", "2-h", accounts, 2, (struct queue_spend){5, 0});
    probe_claim(&probe, T, "delayed", "n");
    probe_fail(&probe, T, "delayed", "1-n", ERROR_RETRY, 60000);
    probe_sub(&probe, queue_hold, T, "held");
    probe_run(&probe, T, "done");
    probe_submit(&probe, U, "d", two, 2);
    probe_claim(&probe, U, "a", "n");
    probe_fail(&probe, U, "a", "1-n", ERROR_DEAD, 0);
    assert_int_equal(probe_fsck(&probe), 0);
}

static int setup(void **state)
{
    (void)state;
    probe_open(&probe);
    probe.quiet = true;
    make_tasks();
    return 0;
}

static void ignore(void *ctx, const struct redis_value *value)
{
    (void)value;
    *(bool *)ctx = true;
}

/* Everything but what is given: an argument of its own. Keys begin with orch:{s<n>}. */
static void run(int argc, const char *const *argv)
{
    bool done = false;
    redis_command(queue_redis(probe.queue), ignore, &done, argc, argv, NULL);
    probe_wait_for(&probe, &done);
}

/* Each row damages one thing. "%t" and "%u" stand for the prefixes of the keys of T and U. */
static const struct {
    const char *command;
    const char *finding;
} damages[] = {
    {"ZREM %t:ready " T "/ready", "it is READY, but not in the index `ready`"},
    {"ZREM %t:lease " T "/running", "it is RUNNING, but not in the index `lease`"},
    {"ZREM %t:delay " T "/delayed", "it is DELAYED, but not in the index `delay`"},
    {"ZREM %t:held " T "/held", "it is HELD, but not in the index `held`"},
    {"ZREM %u:dead " U "/a", "it is DEAD, but not in the index `dead`"},
    {"ZADD %t:ready 1 " T "/done", "it is DONE, but in the index `ready`"},
    {"ZADD %t:ready 1 " T "/stranger", "the task has no such subtask"},
    {"ZADD %t:lease 1 t0000000000000009/a", "names it, but its shard is"},
    {"ZADD %t:ready 1 nonsense", "is no task id"},
    {"ZADD %t:ready 1 " T, "names no valid subtask"},
    {"ZREM %t:tasks " T, "it is not in the index `tasks`"},
    {"ZADD %t:fin 1 " T, "it is RUNNING, but in the index `fin`"},
    {"ZREM %u:fin " U, "it is FAILED, but not in the index `fin`"},
    {"HSET %t:task:" T " remaining 77", "it counts 77 to do, but 5 are"},
    {"HSET %t:task:" T " total 77", "it counts 77 subtasks, but has 6"},
    {"HSET %t:task:" T " state SLEEPING", "its state \"SLEEPING\" is not known"},
    {"HSET %t:task:" T " state DONE", "but the task is DONE"},
    {"HDEL %t:task:" T " created", "it has no time of creation"},
    {"HDEL %u:task:" U " finished", "has no time of finishing"},
    {"HSET %t:task:" T " sub:ready nonsense", "its line is not readable"},
    {"HDEL %t:task:" T " sub:done", "`work` is stored of it, but no subtask"},
    {"HDEL %t:task:" T " sub:running", "its dependency running is not in the task"},
    {"HDEL %t:task:" T " run:running", "it is RUNNING, but nobody ran it"},
    {"HSET %t:task:" T " run:running x", "its last attempt is not readable"},
    {"HDEL %t:task:" T " deps:blocked", "it is BLOCKED, but waits for nothing"},
    {"HDEL %t:task:" T " succ:running", "its dependency running does not tell it when it is done"},
    {"HSET %t:task:" T " deps:ready running", "of its dependencies are not done"},
    {"HDEL %t:data:" T " work:ready", "its record `work` is missing"},
    {"HSET %t:task:" T " sub:ready READY~0~3~0~1~0~-~3~0~0~1~\x80", "`meta` cannot be decoded"},
    {"HSET %t:task:" T " sub:ready READY~0~3~0~1~0~-~3~0~0~1", "its record `meta` is missing"},
    {"HDEL %t:data:" T " outcome:done", "its record `outcome` is missing"},
    {"HSET %t:data:" T " timing:done x", "its record `timing` cannot be decoded"},
    {"HSET %t:data:" T " outcome:ready x", "it is READY, but has a result"},
    {"DEL %t:task:" T, "data or a log is stored of it, but no task"},
    {"DEL %t:task:" T, "the index `tasks` names it, but there is no such task"},
    {"RPUSH %t:log:" T " nonsense", "of its log is not readable"},
    {"XADD %t:ev * nonsense x", "of the outbox of shard"},
    {"HDEL %t:task:" T " hold:running", "its last attempt says that something is reserved for it"},
    {"HDEL %t:task:" T " hold:running", "its budget counts 5 nano USD and 0 tokens as reserved"},
    {"HSET %t:task:" T " hold:running x", "what is reserved for it is not readable"},
    {"HSET %t:task:" T " hold:running 2-h~5~0~2~day", "what is reserved for it is not readable"},
    {"HSET %t:task:" T " hold:ready 1-n~5~0~0", "it is READY, but something is reserved for it"},
    {"HSET %t:task:" T " hold:done 1-n~5~0~0", "but it is not in the index `lease`"},
    {"HSET %t:task:" T " hold:x 1-n~5~0~0", "`hold` is stored of it, but no subtask"},
    {"HSET %t:task:" T " budget x", "its budget is not readable"},
    {"HSET %t:task:" T " budget 4~0~0~0~5~0", "its budget: 5 nano USD are spent or reserved of 4"},
    {"HSET %t:task:" T " role:coder 9~0~0~0~4~0", "its budget of role coder counts 4 nano USD"},
    {"HSET orch:{b}:account:day sums x", "account day is not readable"},
    {"HDEL orch:{b}:account:day day", "account day has no day"},
    {"HSET orch:{b}:account:day hold:x x", "account day: what is reserved of it is not readable"},
    {"HSET orch:{b}:account:day sums 4~0~0~0~5~0", "account day: 5 nano USD are spent or reserved"},
    {"HSET orch:{b}:account:day sums 9~0~0~0~6~0", "account day counts 6 nano USD and 0 tokens"},
    {"HSET %t:task:" T " run:running 3-n~worker~arm~2-h~worker~arm~$",
     "its token is of no attempt up to 2"},
    {"HSET %t:task:" T " run:running 1-n~worker~arm~2-h~x", "its last attempt is not readable"},
    {"RENAME %t:log:" T " orch:{s0}:log:" T, "a key of shard 0 names it, but its shard is"},
};

/* Splits the row into arguments; "~" stands for a space within one. */
static void apply(const char *command)
{
    char words[8][128];
    const char *argv[8];
    int n = 0;
    for (const char *at = command; *at != '\0' && n < 8; n++) {
        size_t len = strcspn(at, " ");
        const char *task = strncmp(at, "%t", 2) == 0 ? T : strncmp(at, "%u", 2) == 0 ? U : NULL;
        if (task != NULL)
            snprintf(words[n], sizeof words[n], "orch:{s%d}%.*s", task_shard(task), (int)len - 2,
                     at + 2);
        else
            snprintf(words[n], sizeof words[n], "%.*s", (int)len, at);
        for (char *tilde = words[n]; (tilde = strchr(tilde, '~')) != NULL;)
            *tilde = ' ';
        argv[n] = words[n];
        at += len + (at[len] == ' ');
    }
    run(n, argv);
}

static void each_kind_of_damage_is_found(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof damages / sizeof *damages; i++) {
        apply("FLUSHALL");
        make_tasks();
        apply(damages[i].command);
        assert_true(probe_fsck(&probe) > 0);
        if (strstr(probe.text.data, damages[i].finding) == NULL)
            fail_msg("%s: \"%s\" is not among:\n%s", damages[i].command, damages[i].finding,
                     probe.text.data);
    }
}

/* Flips one bit of a field's value. */
static void flip(const char *key, const char *field, int bit)
{
    static const char script[] = "local v = redis.call('HGET', KEYS[1], ARGV[1]) "
                                 "if not v or #v == 0 then return end "
                                 "local at = ARGV[2] % (#v * 8) "
                                 "local i, b = math.floor(at / 8) + 1, 2 ^ (at % 8) "
                                 "redis.call('HSET', KEYS[1], ARGV[1], v:sub(1, i - 1) .. "
                                 "string.char(bit.bxor(v:byte(i), b)) .. v:sub(i + 1))";
    char number[16];
    snprintf(number, sizeof number, "%d", bit);
    const char *argv[] = {"EVAL", script, "1", key, field, number};
    run(6, argv);
}

/* Every call, on every subtask: any answer will do. */
static void call_everything(void)
{
    static const char *const subs[] = {"ready", "running", "delayed", "held", "done", "blocked"};
    probe_sub_fn *calls[] = {queue_expire, queue_promote, queue_release, queue_hold};
    probe_read(&probe, T);
    for (size_t i = 0; i < 6; i++) {
        for (size_t k = 0; k < 4; k++)
            probe_sub(&probe, calls[k], T, subs[i]);
        probe_hedge(&probe, T, subs[i], "i", 60000);
        probe_reserve(&probe, T, subs[i], "2-h", accounts, 2, (struct queue_spend){5, 0});
        probe_renew(&probe, T, subs[i], "2-h", 60000);
        probe_fail(&probe, T, subs[i], "2-h", ERROR_WAIT, 1);
        probe_lose(&probe, T, subs[i], "2-h");
        probe_renew(&probe, T, subs[i], "1-n", 60000);
        probe_fail(&probe, T, subs[i], "1-n", ERROR_RETRY, 0);
        probe_commit(&probe, T, subs[i], "1-n");
    }
    probe_expand(&probe, T, "done", NULL, 0);
    probe_task(&probe, queue_cancel, T);
    probe_task(&probe, queue_retry, T);
    probe_read(&probe, T);
    probe_task(&probe, queue_cancel, T);
    probe_task(&probe, queue_forget, T);
    probe_fsck(&probe);
}

static void flipped_bits_crash_nobody(void **state)
{
    (void)state;
    static const char *const fields[][2] = {
        {"task", "sub:running"},  {"task", "sub:ready"},    {"task", "sub:blocked"},
        {"task", "run:running"},  {"task", "state"},        {"task", "remaining"},
        {"task", "succ:running"}, {"task", "total"},        {"task", "deps:blocked"},
        {"task", "hold:running"}, {"task", "budget"},       {"task", "role:coder"},
        {"data", "work:running"}, {"data", "outcome:done"},
    };
    probe_follow(&probe);
    uint32_t random = 12345;
    for (int round = 0; round < 80; round++) {
        apply("FLUSHALL");
        make_tasks();
        for (int n = 0; n < 2; n++) {
            random = random * 1664525 + 1013904223;
            const char *const *field = fields[(random >> 16) % (sizeof fields / sizeof *fields)];
            char key[64];
            snprintf(key, sizeof key, "orch:{s%d}:%s:" T, task_shard(T), field[0]);
            flip(key, field[1], (int)(random >> 8 & 0xffff));
        }
        call_everything();
    }
}

static void a_key_of_the_wrong_type_is_an_error(void **state)
{
    (void)state;
    apply("DEL %t:task:" T);
    apply("SET %t:task:" T " x");
    assert_string_equal(probe_read(&probe, T), "ERROR");
    assert_int_equal(probe_claim(&probe, T, "ready", "n"), QUEUE_ERROR);
    assert_non_null(strstr(probe.err, "WRONGTYPE"));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(each_kind_of_damage_is_found),
        TEST(flipped_bits_crash_nobody),
        TEST(a_key_of_the_wrong_type_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
