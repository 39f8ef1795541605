#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/config.h"
#include "common/json.h"
#include "orchestrator/command.h"
#include "orchestrator/render.h"
#include "orchestrator/stats.h"
#include "orchestrator/store.h"
#include "orchestrator/task_json.h"

static const struct command_option options[] = {
    {"role", 0, "ROLE", "only attempts of that role", false},
    {"since", 0, "TIME", "only the last TIME, such as 30m, 12h or 7d", false},
    {"json", 0, NULL, "print one JSON object", false},
    {0},
};

/* "30m" in milliseconds; -1: not understood. */
static int64_t parse_duration(const char *text)
{
    static const struct {
        const char *unit;
        int64_t ms;
    } units[] = {{"s", 1000}, {"m", 60000}, {"h", 3600000}, {"d", 86400000}, {"", 1000}};
    char *end;
    errno = 0;
    long long count = strtoll(text, &end, 10);
    if (errno != 0 || !isdigit((unsigned char)*text) || count > 1000000)
        return -1;
    for (size_t i = 0; i < sizeof units / sizeof *units; i++)
        if (strcmp(end, units[i].unit) == 0)
            return (int64_t)count * units[i].ms;
    return -1;
}

static json_t *number(double value)
{
    return value < 0 ? json_null() : json_real(value);
}

static json_t *spread_json(const struct stats_spread *spread)
{
    return json_pack("{s:o, s:o}", "p50", number(spread->p50), "p95", number(spread->p95));
}

static json_t *arm_json(const struct stats_arm *arm)
{
    return json_pack(
        "{s:o, s:I, s:I, s:I, s:I, s:I, s:o, s:[o, o], s:o, s:o, s:o, s:o, s:o, s:I, s:I, s:f}",
        "arm", task_json_text(arm->arm, strlen(arm->arm)), "calls", (json_int_t)arm->calls, "done",
        (json_int_t)arm->done, "failed", (json_int_t)arm->failed, "cancelled",
        (json_int_t)arm->cancelled, "cached", (json_int_t)arm->cached, "success",
        number(arm->success), "success_95", number(arm->success_low), number(arm->success_high),
        "queue_ms", spread_json(&arm->queue_ms), "ttft_ms", spread_json(&arm->ttft_ms), "total_ms",
        spread_json(&arm->total_ms), "prefill_tps", number(arm->prefill_tps), "decode_tps",
        number(arm->decode_tps), "prompt_tokens", (json_int_t)arm->prompt_tokens, "output_tokens",
        (json_int_t)arm->output_tokens, "cost_usd", arm->cost_usd);
}

static void print_json(struct stats *stats, const char *store)
{
    size_t count;
    const struct stats_arm *arms = stats_arms(stats, &count);
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++)
        json_array_append_new(list, arm_json(&arms[i]));
    json_t *object =
        json_pack("{s:o, s:o}", "store", task_json_text(store, strlen(store)), "arms", list);
    char *text = task_json_dump(object, true);
    puts(text);
    free(text);
    json_decref(object);
}

static void add_spread(struct render_table *table, const struct stats_spread *spread)
{
    struct buf text = {0};
    render_duration(&text, spread->p50);
    buf_add_str(&text, " / ");
    render_duration(&text, spread->p95);
    render_table_add(table, text.data);
    buf_release(&text);
}

static void add_rate(struct render_table *table, double tps)
{
    if (tps < 0)
        render_table_add(table, "-");
    else
        render_table_addf(table, "%.1f", tps);
}

static void print_table(struct stats *stats)
{
    static const struct render_column columns[] = {
        {"ARM", false, 40},         {"CALLS", true, 0},
        {"SUCCESS (95%)", true, 0}, {"QUEUE p50/p95", true, 0},
        {"TTFT p50/p95", true, 0},  {"TOTAL p50/p95", true, 0},
        {"PREFILL tok/s", true, 0}, {"DECODE tok/s", true, 0},
        {"USD", true, 0},           {0},
    };
    size_t count;
    const struct stats_arm *arms = stats_arms(stats, &count);
    if (count == 0) {
        puts("no attempts yet");
        return;
    }
    struct render_table *table = render_table_new(columns);
    for (size_t i = 0; i < count; i++) {
        const struct stats_arm *arm = &arms[i];
        render_table_add(table, arm->arm);
        render_table_addf(table, "%lld", (long long)arm->calls);
        if (arm->success < 0)
            render_table_add(table, "-");
        else
            render_table_addf(table, "%.1f%% (%.1f-%.1f)", arm->success * 100,
                              arm->success_low * 100, arm->success_high * 100);
        add_spread(table, &arm->queue_ms);
        add_spread(table, &arm->ttft_ms);
        add_spread(table, &arm->total_ms);
        add_rate(table, arm->prefill_tps);
        add_rate(table, arm->decode_tps);
        render_table_addf(table, "%.4f", arm->cost_usd);
    }
    render_table_print(&table, stdout, 0);
}

static void add_attempt(void *ctx, const struct msg_timing *attempt)
{
    stats_add(ctx, attempt);
}

static int collect(const struct invocation *invocation, const struct config *config,
                   struct stats *stats)
{
    const char *role = invocation_value(invocation, "role");
    const char *since = invocation_value(invocation, "since");
    int64_t since_ms = since != NULL ? parse_duration(since) : 0;
    struct store *store = NULL;
    struct err err = {""};
    if (since_ms < 0)
        return command_fail(invocation, EXIT_USAGE,
                            "--since %s: give a number and s, m, h or d, such as 12h", since);
    if (role != NULL && config_role(config, role) == NULL)
        return command_fail(invocation, EXIT_USAGE, "%s has no role `%s`", config->path, role);
    int rc = store_open_read(&store, config->store, &err);
    if (rc == -ENOENT)
        return EXIT_DONE; /* nothing has run yet */
    if (rc == 0)
        rc = store_attempts(store, since_ms > 0 ? clock_wall_ms() - since_ms : 0, role, add_attempt,
                            stats, &err);
    store_close(&store);
    return rc == 0 ? EXIT_DONE : command_fail(invocation, EXIT_UNREACHABLE, "%s", err.text);
}

static int exec(struct invocation *invocation)
{
    struct config *config = NULL;
    struct err err = {""};
    if (config_load(&config, invocation_config(invocation), &err) != 0)
        return command_fail(invocation, EXIT_USAGE, "%s", err.text);
    struct stats *stats = stats_new();
    int code = collect(invocation, config, stats);
    if (code == EXIT_DONE && invocation_has(invocation, "json"))
        print_json(stats, config->store);
    else if (code == EXIT_DONE)
        print_table(stats);
    stats_free(&stats);
    config_free(&config);
    return code;
}

const struct command command_stats = {
    .name = "stats",
    .args = "",
    .summary = "what was measured of every arm: success, times, tokens a second, cost",
    .details =
        "Reads the profile store of this machine. Success is the share of finished attempts "
        "that were committed, with its 95% interval; cancelled attempts count as calls only. "
        "Times to the first token and in total are those of committed attempts.",
    .options = options,
    .exec = exec,
};
