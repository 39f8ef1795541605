/* Redis users of who was invited, against a real redis-server: they suffice, they are narrow, they
 * come back after a restart and go with their invitation. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/access.h"
#include "common/clock.h"
#include "common/queue_internal.h"
#include "common/queue_keys.h"
#include "schemas/mem.h"
#include "tests/lib/fixture.h"

#define PATIENCE_MS 30000

struct bench {
    struct fixture fixture;
    uv_loop_t loop;
    struct queue *queue;
    struct redis_options redis;
    bool done;
    struct buf text; /* of the last answer, each element on a line */
};

static int open_bench(void **state)
{
    static const struct redis_callbacks callbacks = {0};
    struct bench *bench = mem_must_zalloc(sizeof *bench);
    struct err err = {""};
    fixture_init(&bench->fixture);
    fixture_redis_start(&bench->fixture);
    loop_init(&bench->loop);
    bench->redis = fixture_redis_options(&bench->fixture);
    if (queue_open(&bench->queue, &bench->loop, &bench->redis, &callbacks, NULL, &err) != 0)
        fail_msg("%s", err.text);
    *state = bench;
    return 0;
}

static int close_bench(void **state)
{
    struct bench *bench = *state;
    queue_close(&bench->queue);
    loop_finish(&bench->loop);
    fixture_release(&bench->fixture);
    buf_release(&bench->text);
    free(bench);
    return 0;
}

static void wait_for(struct bench *bench)
{
    assert_int_equal(loop_run_until(&bench->loop, &bench->done, PATIENCE_MS), 0);
    bench->done = false;
}

static void add_value(struct buf *out, const struct redis_value *value)
{
    for (size_t i = 0; i < redis_len(value); i++)
        add_value(out, redis_at(value, i));
    if (redis_type(value) == REDIS_STR || redis_type(value) == REDIS_ERR)
        buf_printf(out, "%s\n", redis_str(value, NULL));
    else if (redis_type(value) == REDIS_INT)
        buf_printf(out, "%lld\n", (long long)redis_int(value));
}

static void answered(void *ctx, const struct redis_value *value)
{
    struct bench *bench = ctx;
    add_value(&bench->text, value);
    bench->done = true;
}

/* Words separated by spaces. */
static const char *ask(struct bench *bench, struct redis *redis, const char *words)
{
    buf_clear(&bench->text);
    redis_simple(redis, answered, bench, words);
    wait_for(bench);
    return bench->text.len > 0 ? bench->text.data : "";
}

static const char *admin(struct bench *bench, const char *words)
{
    return ask(bench, queue_redis(bench->queue), words);
}

static bool has_user(struct bench *bench, const char *user)
{
    char line[96];
    snprintf(line, sizeof line, "%s\n", user);
    return strstr(admin(bench, "ACL USERS"), line) != NULL;
}

static void changed(void *ctx, const char *err)
{
    struct bench *bench = ctx;
    assert_string_equal(err, "");
    bench->done = true;
}

static void put(void *ctx, enum queue_status status, const char *err)
{
    struct bench *bench = ctx;
    (void)err;
    assert_int_equal(status, QUEUE_OK);
    bench->done = true;
}

/* An invitation with its user, whose password is "pass". */
static void invite(struct bench *bench, const char *name, enum keyring_role role,
                   int64_t expires_ms)
{
    static const char *const providers[] = {"p"};
    struct keyring_pair pair;
    const struct access_grant grant = {
        .role = role, .name = name, .password = "pass", .providers = providers, .n_providers = 1};
    assert_int_equal(keyring_make(&pair, NULL), 0);
    queue_keys_put(bench->queue, name, role, pair.public_key, expires_ms, put, bench);
    wait_for(bench);
    access_give(queue_redis(bench->queue), &grant, changed, bench);
    wait_for(bench);
}

static struct redis *open_as(struct bench *bench, char *user)
{
    static const struct redis_callbacks callbacks = {0};
    struct redis_options options = bench->redis;
    struct redis *redis = NULL;
    options.user = user;
    options.password = (char[]){"pass"};
    assert_int_equal(redis_open(&redis, &bench->loop, &options, &callbacks, NULL, NULL), 0);
    return redis;
}

/* --- tests ------------------------------------------------------------------------------------ */

static bool is_allowed(const char *rules, const char *command)
{
    char word[64];
    size_t n = (size_t)snprintf(word, sizeof word, " +");
    for (; *command != '\0' && *command != '\'' && n + 2 < sizeof word; command++)
        word[n++] = (char)(*command | 0x20);
    word[n] = '\0';
    const char *at = strstr(rules, word);
    return at != NULL && (at[n] == ' ' || at[n] == '\0');
}

/* Each word of a script that can be a command is one, or known to be none. */
static void worker_may_send_all_that_its_scripts_send(void **state)
{
    static const enum queue_script scripts[] = {SCRIPT_claim, SCRIPT_commit,  SCRIPT_renew,
                                                SCRIPT_hedge, SCRIPT_reserve, SCRIPT_lose,
                                                SCRIPT_fail,  SCRIPT_note};
    static const char known[] = "call('";
    struct buf rules = {0};
    size_t n = 0;
    (void)state;
    access_rules(KEYRING_WORKER, NULL, 0, &rules);
    for (size_t i = 0; i < sizeof scripts / sizeof *scripts; i++)
        for (const char *at = queue_script(scripts[i])->source; (at = strstr(at, known)) != NULL;
             n++) {
            at += sizeof known - 1;
            if (!is_allowed(rules.data, at))
                fail_msg("a worker may not send %.20s", at);
        }
    assert_true(n > 50);
    assert_true(is_allowed(rules.data, "RPUSH"));
    assert_false(is_allowed(rules.data, "FLUSHALL"));
    assert_false(is_allowed(rules.data, "HS"));
    buf_release(&rules);
}

static void users_may_do_what_their_role_needs_and_nothing_else(void **state)
{
    static const struct {
        const char *words;
        bool worker, orchestrator;
    } rows[] = {
        {"HSET orch:{s5}:task:t state X", true, true},
        {"HGETALL orch:{b}:account:day", true, true},
        {"GET orch:{c}:bytes", true, true},
        {"HGETALL orch:{l:p}:state", true, true},
        {"HGETALL orch:{l:other}:state", false, true},
        {"PUBLISH orch:{s5}:log:t x", true, true},
        {"PUBLISH orch:{l:p}:news:0 x", true, true},
        {"PUBLISH other x", false, false},
        {"HGETALL orch:{d}:keys", false, true},
        {"HSET orch:{d}:keys me x", false, true},
        {"HGETALL orch:{d}:access", false, true},
        {"HMGET orch:{d}:epoch id time accepted", true, true},
        {"HSET orch:{d}:epoch id x", false, true},
        {"DEL orch:{d}:epoch", false, true},
        {"GET other", false, false},
        {"SET other x", false, false},
        {"XADD orch:{s5}:ev * a b", true, true},
        {"CONFIG GET dir", false, false},
        {"KEYS *", false, false},
        {"FLUSHALL", false, false},
        {"FLUSHDB", false, false},
        {"SWAPDB 0 1", false, false},
        {"ACL LIST", false, false},
        {"ACL SETUSER me on", false, false},
        {"CLIENT LIST", false, false},
        {"CLIENT KILL TYPE normal", false, false},
        {"SHUTDOWN NOSAVE", false, false},
        {"REPLICAOF NO ONE", false, false},
        {"MODULE LIST", false, false},
        {"SCRIPT FLUSH", false, false},
        {"FUNCTION FLUSH", false, false},
        {"MONITOR", false, false},
        {"SAVE", false, false},
    };
    struct bench *bench = *state;
    invite(bench, "w", KEYRING_WORKER, 0);
    invite(bench, "o", KEYRING_ORCHESTRATOR, 0);
    struct redis *worker = open_as(bench, (char[]){"worker-w"});
    struct redis *orchestrator = open_as(bench, (char[]){"orchestrator-o"});
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        bool may = strstr(ask(bench, worker, rows[i].words), "NOPERM") == NULL;
        if (may != rows[i].worker)
            fail_msg("%s by a worker: %s", rows[i].words, bench->text.data);
        may = strstr(ask(bench, orchestrator, rows[i].words), "NOPERM") == NULL;
        if (may != rows[i].orchestrator)
            fail_msg("%s by an orchestrator: %s", rows[i].words, bench->text.data);
    }
    redis_close(&worker);
    redis_close(&orchestrator);
}

static struct access *keep(struct bench *bench)
{
    struct access *access = NULL;
    struct err err = {""};
    if (access_open(&access, &bench->loop, &bench->redis, &err) != 0)
        fail_msg("%s", err.text);
    return access;
}

/* Until the user is there, or is not. */
static void wait_user(struct bench *bench, const char *user, bool there)
{
    int64_t end_ms = clock_ms() + PATIENCE_MS;
    while (has_user(bench, user) != there && clock_ms() < end_ms)
        uv_run(&bench->loop, UV_RUN_NOWAIT);
    assert_int_equal(has_user(bench, user), there);
}

static void users_come_back_when_redis_was_restarted(void **state)
{
    struct bench *bench = *state;
    invite(bench, "kept", KEYRING_WORKER, 0);
    struct access *access = keep(bench);
    fixture_redis_kill(&bench->fixture, SIGKILL);
    fixture_redis_start(&bench->fixture);
    wait_user(bench, "worker-kept", true);
    struct redis *worker = open_as(bench, (char[]){"worker-kept"});
    assert_string_equal(ask(bench, worker, "PING"), "PONG\n");
    redis_close(&worker);
    access_close(&access);
}

static void users_go_with_their_invitation(void **state)
{
    struct bench *bench = *state;
    int64_t now_ms = clock_wall_ms();
    invite(bench, "late", KEYRING_WORKER, now_ms - 1);
    invite(bench, "soon", KEYRING_WORKER, now_ms + 3600000);
    invite(bench, "gone", KEYRING_ORCHESTRATOR, 0);
    admin(bench, "HDEL " QUEUE_KEYS_KEY " gone");
    admin(bench, "HSET " ACCESS_KEY " broken nonsense");
    struct access *access = keep(bench);
    wait_user(bench, "worker-late", false);
    wait_user(bench, "orchestrator-gone", false);
    assert_true(has_user(bench, "worker-soon"));
    assert_null(strstr(admin(bench, "HKEYS " ACCESS_KEY), "late"));
    access_close(&access);
    access_take(queue_redis(bench->queue), "soon", changed, bench);
    wait_for(bench);
    assert_false(has_user(bench, "worker-soon"));
    admin(bench, "HDEL " ACCESS_KEY " broken");
}

static void taken_user_loses_its_connections(void **state)
{
    struct bench *bench = *state;
    invite(bench, "cut", KEYRING_WORKER, 0);
    struct redis *worker = open_as(bench, (char[]){"worker-cut"});
    assert_string_equal(ask(bench, worker, "PING"), "PONG\n");
    access_take(queue_redis(bench->queue), "cut", changed, bench);
    wait_for(bench);
    int64_t end_ms = clock_ms() + PATIENCE_MS;
    while (redis_connected(worker) && clock_ms() < end_ms)
        uv_run(&bench->loop, UV_RUN_ONCE);
    assert_false(redis_connected(worker));
    redis_close(&worker);
}

/* Stored are hashes: who reads Redis learns no password. */
static void passwords_are_not_stored(void **state)
{
    struct bench *bench = *state;
    char password[ACCESS_PASSWORD_SIZE], other[ACCESS_PASSWORD_SIZE];
    access_password_make(password);
    access_password_make(other);
    assert_string_not_equal(password, other);
    invite(bench, "secret", KEYRING_WORKER, 0);
    const char *line = admin(bench, "HGET " ACCESS_KEY " secret");
    assert_non_null(strstr(line, "worker "));
    assert_null(strstr(line, "pass"));
    assert_null(strstr(admin(bench, "ACL LIST"), ">pass"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(worker_may_send_all_that_its_scripts_send),
        cmocka_unit_test(users_may_do_what_their_role_needs_and_nothing_else),
        cmocka_unit_test(users_come_back_when_redis_was_restarted),
        cmocka_unit_test(users_go_with_their_invitation),
        cmocka_unit_test(taken_user_loses_its_connections),
        cmocka_unit_test(passwords_are_not_stored),
    };
    return cmocka_run_group_tests(tests, open_bench, close_bench);
}
