/* Limits are kept by all workers together: nothing ever exceeds them, and what they allow is used.
 * The simulator counts the calls by their arrival, and enforces its limits itself. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/lib/stage.h"

#define WINDOW_MS 60000
/* One in so many may come early, because time passes between a permit and its arrival; and one in
 * so many is missing from a window that begins between two bursts. */
#define JITTER 100
#define BURST 33

/* Calls in any minute of `rpm`; tokens in any minute of `tpm`; calls of each key of `pool`; calls
 * of `few` at once. Each is asked for a fifth more than its limit. */
#define RPM 600
#define TPM 12000
#define POOL_RPM 100
#define FEW 5
#define KEYS 3

static const char config[] =
    "providers:\n"
    "  rpm: {api: openai-compatible, base_url: \"http://127.0.0.1:%d\", key: env:KEY_RPM,\n"
    "        limits: {requests_per_minute: 600}}\n"
    "  tpm: {api: openai-compatible, base_url: \"http://127.0.0.1:%d\", key: env:KEY_TPM,\n"
    "        limits: {tokens_per_minute: 12000}}\n"
    "  pool: {api: openai-compatible, base_url: \"http://127.0.0.1:%d\",\n"
    "         key: [env:KEY_1, env:KEY_2, env:KEY_3], key_limits: {requests_per_minute: 100}}\n"
    "  few: {api: openai-compatible, base_url: \"http://127.0.0.1:%d\", key: env:KEY_FEW,\n"
    "        limits: {concurrency: 5}}\n"
    "models:\n"
    "  rpm: {provider: rpm}\n"
    "  tpm: {provider: tpm}\n"
    "  pool: {provider: pool}\n"
    "  few: {provider: few}\n"
    "workers:\n"
    "  - {name: rpm-0, provider: rpm, concurrency: 3}\n"
    "  - {name: rpm-1, provider: rpm, concurrency: 3}\n"
    "  - {name: rpm-2, provider: rpm, concurrency: 3}\n"
    "  - {name: rpm-3, provider: rpm, concurrency: 3}\n"
    "  - {name: tpm-0, provider: tpm, concurrency: 3}\n"
    "  - {name: tpm-1, provider: tpm, concurrency: 3}\n"
    "  - {name: pool-0, provider: pool, concurrency: 4}\n"
    "  - {name: pool-1, provider: pool, concurrency: 4}\n"
    "  - {name: few-0, provider: few, concurrency: 8}\n"
    "  - {name: few-1, provider: few, concurrency: 8}\n"
    "roles:\n"
    "  rpm: {models: [rpm]}\n"
    "  tpm: {models: [tpm]}\n"
    "  pool: {models: [pool]}\n"
    "  few: {models: [few]}\n";
static const char *const workers[] = {"rpm-0",  "rpm-1",  "rpm-2", "rpm-3", "tpm-0", "tpm-1",
                                      "pool-0", "pool-1", "few-0", "few-1", NULL};

/* The limits themselves but for the jitter. Rules 0 to 2 are the keys of the pool. */
static const char scenario[] = "key_limits:\n"
                               "  the-rpm: {requests_per_minute: 606}\n"
                               "  the-tpm: {tokens_per_minute: 12120}\n"
                               "  the-1: {requests_per_minute: 101}\n"
                               "  the-2: {requests_per_minute: 101}\n"
                               "  the-3: {requests_per_minute: 101}\n"
                               "  the-few: {concurrency: 5}\n"
                               "rules:\n"
                               "  - {match: {key: the-1}, tokens: 2, timing: {load_ms: 1000}}\n"
                               "  - {match: {key: the-2}, tokens: 2, timing: {load_ms: 1000}}\n"
                               "  - {match: {key: the-3}, tokens: 2, timing: {load_ms: 1000}}\n"
                               "  - {match: {key: the-tpm}, tokens: 38, timing: {load_ms: 1000}}\n"
                               "  - {match: {key: the-few}, tokens: 2, timing: {load_ms: 200}}\n"
                               "  - {tokens: 2, timing: {load_ms: 1000}}\n";

static struct stage stage_, *const stage = &stage_;

/* --- windows ---------------------------------------------------------------------------------- */

/* Arrivals of one limit, in their order. */
struct uses {
    int64_t ms[4096], tokens[4096];
    size_t n;
};

static void collect(struct uses *uses, const json_t *calls, const char *model, int rule)
{
    size_t i;
    json_t *call;
    uses->n = 0;
    json_array_foreach (calls, i, call) {
        if (strcmp(json_str(call, "model", ""), model) != 0 ||
            (rule >= 0 && json_int(call, "rule", -1) != rule))
            continue;
        assert_true(uses->n < sizeof uses->ms / sizeof *uses->ms);
        uses->ms[uses->n] = json_int(call, "time_ms", 0);
        uses->tokens[uses->n++] =
            json_int(call, "billed_prompt_tokens", 0) + json_int(call, "billed_output_tokens", 0);
    }
}

/* The most of any window; tokens: of them, not of calls. */
static int64_t most(const struct uses *uses, bool tokens)
{
    int64_t sum = 0, peak = 0;
    for (size_t i = 0, first = 0; i < uses->n; i++) {
        sum += tokens ? uses->tokens[i] : 1;
        for (; uses->ms[first] <= uses->ms[i] - WINDOW_MS; first++)
            sum -= tokens ? uses->tokens[first] : 1;
        peak = sum > peak ? sum : peak;
    }
    return peak;
}

/* The average of the windows that begin with a use, as far as the record goes. */
static int64_t average(const struct uses *uses, bool tokens)
{
    int64_t sum = 0, total = 0, n = 0;
    for (size_t i = 0, end = 0; i < uses->n; i++) {
        for (; end < uses->n && uses->ms[end] < uses->ms[i] + WINDOW_MS; end++)
            sum += tokens ? uses->tokens[end] : 1;
        if (end == uses->n)
            break;
        total += sum;
        n++;
        sum -= tokens ? uses->tokens[i] : 1;
    }
    return n > 0 ? total / n : 0;
}

/* Work was waiting all the time. */
static void assert_limit(const char *what, const struct uses *uses, bool tokens, int64_t limit)
{
    int64_t peak = most(uses, tokens), usual = average(uses, tokens);
    print_message("%s: %zu calls over %.1f s, %lld a minute, at most %lld; limit %lld\n", what,
                  uses->n, (double)(uses->ms[uses->n - 1] - uses->ms[0]) / 1000, (long long)usual,
                  (long long)peak, (long long)limit);
    if (peak > limit + limit / JITTER)
        fail_msg("%s: %lld in a minute exceed the limit of %lld", what, (long long)peak,
                 (long long)limit);
    if (peak < limit - limit / JITTER || usual < limit - limit / BURST)
        fail_msg("%s: only %lld of %lld in a minute", what, (long long)usual, (long long)limit);
}

/* --- the load --------------------------------------------------------------------------------- */

static void submit(const char *role, size_t n, char id[TASK_ID_SIZE])
{
    const struct stage_task task = {.mark = role, .roles = &role, .n_roles = 1, .n = n};
    stage_submit(stage, &task, id);
}

static int64_t counted_of(const char *model, const char *what)
{
    json_t *stats = testbed_sim(&stage->testbed, "stats");
    int64_t count = json_int(json_get(json_get(stats, "by_model"), model), what, 0);
    json_decref(stats);
    return count;
}

/* More than the limit of a minute has come, so that a second one has begun. */
static bool goes_on(void *ctx)
{
    (void)ctx;
    return counted_of("rpm", "requests") > RPM + RPM / 20 &&
           counted_of("pool", "requests") > KEYS * POOL_RPM + KEYS * POOL_RPM / 20 &&
           counted_of("tpm", "billed_output_tokens") > TPM + TPM / 20;
}

static void limits_hold_over_all_workers_and_are_used(void **state)
{
    (void)state;
    static struct uses uses;
    char ids[4][TASK_ID_SIZE];
    setenv("KEY_RPM", "the-rpm", 1);
    setenv("KEY_TPM", "the-tpm", 1);
    setenv("KEY_1", "the-1", 1);
    setenv("KEY_2", "the-2", 1);
    setenv("KEY_3", "the-3", 1);
    setenv("KEY_FEW", "the-few", 1);
    stage_open(stage, config, scenario, workers);
    submit("rpm", 2 * RPM, ids[0]);
    submit("tpm", 2 * TPM / 40, ids[1]);
    submit("pool", 2 * KEYS * POOL_RPM, ids[2]);
    submit("few", 40 * FEW, ids[3]);
    assert_int_equal(stage_wait(stage, ids[3]).state, TASK_DONE);
    assert_true(fixture_wait(goes_on, NULL, 2 * STAGE_WAIT_MS));

    json_t *calls = stage_calls(stage), *stats = testbed_sim(&stage->testbed, "stats");
    json_t *keys = testbed_sim(&stage->testbed, "keys");
    int64_t peak = 0;
    size_t i;
    json_t *key;
    collect(&uses, calls, "rpm", -1);
    assert_limit("requests", &uses, false, RPM);
    collect(&uses, calls, "tpm", -1);
    assert_limit("tokens", &uses, true, TPM);
    for (int rule = 0; rule < KEYS; rule++) {
        collect(&uses, calls, "pool", rule);
        assert_limit("requests of a key", &uses, false, POOL_RPM);
    }
    assert_int_equal(json_int(stats, "limited", -1), 0);
    /* Each key was used; of the last one no more than FEW at once were let in, and no fewer. */
    assert_int_equal(json_array_size(keys), 3 + KEYS);
    json_array_foreach (keys, i, key)
        peak = json_int(key, "requests", 0) == 40 * FEW ? json_int(key, "peak_running", 0) : peak;
    assert_int_equal(peak, FEW);
    json_decref(keys);
    json_decref(stats);
    json_decref(calls);
    stage_close(stage);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(limits_hold_over_all_workers_and_are_used),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
