/* Every API, streamed and whole, through its real worker against every fault of the simulator: what
 * class it gets, whether the subtask is tried again, moves or dies, how many requests that costs,
 * and what the timing record says. No fault may ever pass for an answer. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/clock.h"
#include "common/task_id.h"
#include "orchestrator/plan.h"
#include "orchestrator/prompt.h"
#include "schemas/mem.h"
#include "tests/lib/testbed.h"

#define KEY "Secret/0123456789+abcdefgh%02d"
#define KEY_PART "Secr" /* no text may have so much of it */
#define KEYS_10 "{key} {key} {key} {key} {key} {key} {key} {key} {key} {key} "
#define KEYS 40 /* of each lane's pool: each that is refused, or out of money, is used no more */
#define TEXT "Grüße aus Köln, 日本語 🎉 und nun: Schluß, ende."
#define COUNT(table) (sizeof table / sizeof *table)
#define PATIENCE_MS 90000
#define WAITS 3
#define MAX_REQUESTS 10000 /* what the simulator remembers */

enum asks {
    ASKS_CHAT,      /* streamed, and whole */
    ASKS_RESPONSES, /* likewise, by OpenAI's Responses API */
    ASKS_VECTORS,
};

static const struct api {
    const char *name; /* of the lane */
    const char *api, *path;
    enum asks asks;
} apis[] = {
    {"openai", "openai", "", ASKS_CHAT},
    {"openai-compatible", "openai-compatible", "", ASKS_CHAT},
    {"huggingface", "huggingface", "/huggingface", ASKS_CHAT},
    {"vllm", "vllm", "/vllm", ASKS_CHAT},
    {"llamacpp", "llamacpp", "/llamacpp", ASKS_CHAT},
    {"lmstudio", "lmstudio", "/lmstudio", ASKS_CHAT}, /* plans by its compatible API */
    {"tgi", "tgi", "/tgi", ASKS_CHAT},
    {"anthropic", "anthropic", "/anthropic", ASKS_CHAT},
    {"gemini", "gemini", "/gemini", ASKS_CHAT},
    {"ollama", "ollama", "/ollama", ASKS_CHAT},
    {"responses", "openai", "", ASKS_RESPONSES},
    {"openai-vectors", "openai", "", ASKS_VECTORS},
    {"huggingface-vectors", "huggingface", "/huggingface", ASKS_VECTORS},
    {"tgi-vectors", "tgi", "/tgi", ASKS_VECTORS},
    {"gemini-vectors", "gemini", "/gemini", ASKS_VECTORS},
    {"ollama-vectors", "ollama", "/ollama", ASKS_VECTORS},
};
/* Each API has a lane, which is a provider, a model, a worker and a role of that name, for
 * streams and one for whole answers. Vectors are never streamed. */
#define MAX_LANES (2 * COUNT(apis))
#define LANES world.n_lanes

#define NEVER_HURTS CLASS_NONE, CLASS_NONE
#define BOTH(class_) CLASS_##class_, CLASS_##class_

static const struct fault {
    const char *name;
    const char *rule; /* what the simulator does */
    enum error_class streamed, whole;
} faults[] = {
    {"well", "", NEVER_HURTS},
    {"wrong_model", "fault: {wrong_model: other}", NEVER_HURTS},
    {"drip", "fault: {drip: {bytes: 7, every_ms: 2}}", NEVER_HURTS},
    {"pause", "fault: {stall_after: 2, stall_ms: 400}", NEVER_HURTS},
    {"slow", "tokens: 12, timing: {load_ms: 300, prefill_tps: 0, decode_tps: 60}", NEVER_HURTS},
    {"rate_limit", "fault: rate_limit", BOTH(RATE_LIMITED)},
    {"retry_after", "fault: {kind: rate_limit, retry_after: 3}", BOTH(RATE_LIMITED)},
    {"quota", "fault: quota", BOTH(QUOTA)},
    {"overloaded", "fault: overloaded", BOTH(OVERLOADED)},
    {"auth", "fault: auth", BOTH(AUTH)},
    {"key_echo", "fault: {kind: auth, message: 'no such key: {key}, sorry'}", BOTH(AUTH)},
    {"key_cut", "fault: {kind: auth, message: '" KEYS_10 KEYS_10 KEYS_10 "'}", BOTH(AUTH)},
    {"context_too_long", "fault: context_too_long", BOTH(CONTEXT_TOO_LONG)},
    {"bad_request", "fault: bad_request", BOTH(BAD_REQUEST)},
    {"server_error", "fault: server_error", BOTH(RETRY)},
    {"no_model", "fault: no_model", BOTH(BAD_REQUEST)},
    {"403", "fault: {status: 403, message: no}", BOTH(AUTH)},
    {"408", "fault: {status: 408, message: late}", BOTH(TIMEOUT)},
    {"409", "fault: {status: 409, message: busy}", BOTH(RETRY)},
    {"413", "fault: {status: 413, message: big}", BOTH(CONTEXT_TOO_LONG)},
    {"422", "fault: {status: 422, message: odd}", BOTH(BAD_REQUEST)},
    {"502", "fault: {status: 502, message: gone}", BOTH(RETRY)},
    {"504", "fault: {status: 504, message: late}", BOTH(TIMEOUT)},
    {"529", "fault: {status: 529, message: full}", BOTH(OVERLOADED)},
    {"cut_first", "fault: {truncate_after: 0}", BOTH(BAD_RESPONSE)},
    {"cut", "fault: {truncate_after: 3}", BOTH(BAD_RESPONSE)},
    {"cut_last", "tokens: 6, fault: {truncate_after: 6}", BOTH(BAD_RESPONSE)},
    {"no_finish", "fault: no_finish", BOTH(BAD_RESPONSE)},
    {"malformed_first", "fault: malformed_json", BOTH(BAD_RESPONSE)},
    {"malformed", "fault: {malformed_json: 3}", BOTH(BAD_RESPONSE)},
    {"malformed_last", "fault: {malformed_json: 1000}", BOTH(BAD_RESPONSE)},
    {"error_first", "fault: error_in_stream", BOTH(OVERLOADED)},
    {"error", "fault: {error_in_stream: 3}", BOTH(OVERLOADED)},
    {"error_last", "tokens: 6, fault: {error_in_stream: 6}", BOTH(OVERLOADED)},
    {"error_rate", "fault: {error_in_stream: 2, kind: rate_limit}", BOTH(RATE_LIMITED)},
    {"error_server", "fault: {error_in_stream: 2, kind: server_error}", BOTH(RETRY)},
    {"stall_first", "fault: {stall_after: 0}", BOTH(TIMEOUT)},
    {"stall", "fault: {stall_after: 3}", BOTH(TIMEOUT)},
    {"html", "fault: html", BOTH(RETRY)},
    {"html_200", "fault: {html: true, status: 200}", BOTH(BAD_RESPONSE)},
    {"empty", "fault: empty", BOTH(BAD_RESPONSE)},
    {"close", "fault: close_before_headers", BOTH(RETRY)},
};

/* Where a server's own words make it another class. */
static const struct exception {
    const char *fault, *api;
    enum error_class streamed, whole;
} exceptions[] = {
    {"quota", "vllm", BOTH(RATE_LIMITED)}, /* local ones know no money: any 429 */
    {"quota", "llamacpp", BOTH(OVERLOADED)},
    {"quota", "tgi", BOTH(OVERLOADED)},
    {"rate_limit", "llamacpp", BOTH(OVERLOADED)}, /* unavailable_error */
    {"rate_limit", "tgi", BOTH(OVERLOADED)},
    {"retry_after", "llamacpp", BOTH(OVERLOADED)},
    {"retry_after", "tgi", BOTH(OVERLOADED)},
    {"error_rate", "llamacpp", BOTH(OVERLOADED)},
    {"error_rate", "tgi", BOTH(OVERLOADED)},
    {"error_first", "lmstudio", CLASS_RETRY, CLASS_OVERLOADED}, /* internal_error in the stream */
    {"error", "lmstudio", CLASS_RETRY, CLASS_OVERLOADED},
    {"error_last", "lmstudio", CLASS_RETRY, CLASS_OVERLOADED},
};

/* What strikes vectors, too: the others are about tokens and their stream. */
static const char *const vector_faults[] = {
    "well",         "drip",  "pause",     "rate_limit", "quota", "overloaded", "auth",
    "key_echo",     "502",   "cut_first", "no_model",   "cut",   "html_200",   "context_too_long",
    "server_error", "stall", "malformed", "empty",      "close",
};

struct lane {
    char name[48];
    const struct api *api;
    bool streamed;
};

/* One subtask, a task of its own. Faults that strike once leave the next attempt alone; others
 * stay, and the subtask has only one, which those that wait may repeat: they strike WAITS times. */
struct visit {
    char task[TASK_ID_SIZE];
    const struct lane *lane;
    const struct fault *fault;
    bool once, plan;
    enum error_class class_; /* expected of the first attempt */
    /* What came of it. */
    int runs, requests;
    bool ended;
    char end[32], error_class[32], reason[640];
    int64_t failed_ms, again_ms;
    enum sub_state state;
    struct buf text, timing_record;
    struct message outcome, timing;
};

static struct world {
    struct testbed testbed;
    uv_loop_t loop;
    struct queue *queue;
    struct config *config;
    struct lane lanes[MAX_LANES];
    size_t n_lanes;
    struct visit *visits;
    size_t n_visits;
    struct buf plan_schema;
    int unanswered, refused, wrong;
    bool answered;
} world;

/* --- the set-up ---------------------------------------------------------------------------------
 */

static enum error_class expected_class(const struct fault *fault, const struct lane *lane)
{
    for (size_t i = 0; i < COUNT(exceptions); i++)
        if (strcmp(exceptions[i].fault, fault->name) == 0 &&
            strcmp(exceptions[i].api, lane->api->api) == 0)
            return lane->streamed ? exceptions[i].streamed : exceptions[i].whole;
    return lane->streamed ? fault->streamed : fault->whole;
}

static bool waits(const struct visit *visit)
{
    return visit->class_ != CLASS_NONE && error_class_action(visit->class_) == ERROR_WAIT;
}

#define KEY_TRIES 3 /* so many attempts may take a key out of the pool */

/* What is wrong with a key is not wrong with the arm: another key tries it there, at once. */
static bool is_of_key(const struct visit *visit)
{
    return visit->class_ == CLASS_AUTH || visit->class_ == CLASS_QUOTA ||
           visit->class_ == CLASS_RATE_LIMITED;
}

static bool moves(const struct visit *visit)
{
    return visit->class_ != CLASS_NONE && error_class_action(visit->class_) == ERROR_MOVE &&
           !is_of_key(visit);
}

/* How often the fault strikes; 0: always. */
static int strikes(const struct visit *visit)
{
    return visit->once ? 1 : waits(visit) ? WAITS : 0;
}

static void add_visit(const struct lane *lane, const struct fault *fault, bool once, bool plan)
{
    struct visit *visit = &world.visits[world.n_visits++];
    *visit = (struct visit){.lane = lane, .fault = fault, .once = once, .plan = plan};
    visit->class_ = expected_class(fault, lane);
    task_id_make(visit->task);
}

static bool is_struck(const struct lane *lane, const struct fault *fault)
{
    bool found = lane->api->asks != ASKS_VECTORS;
    for (size_t i = 0; i < COUNT(vector_faults) && !found; i++)
        found = strcmp(vector_faults[i], fault->name) == 0;
    return found;
}

static void add_lane(const struct api *api, bool streamed)
{
    struct lane *lane = &world.lanes[world.n_lanes++];
    lane->api = api;
    lane->streamed = streamed;
    snprintf(lane->name, sizeof lane->name, "%s-%s", api->name, streamed ? "stream" : "whole");
    for (size_t j = 0; j < COUNT(faults); j++) {
        if (!is_struck(lane, &faults[j]))
            continue;
        add_visit(lane, &faults[j], true, false);
        if (expected_class(&faults[j], lane) != CLASS_NONE)
            add_visit(lane, &faults[j], false, false);
    }
    if (api->asks != ASKS_VECTORS)
        add_visit(lane, &faults[0], true, true);
}

static void make_visits(void)
{
    world.visits = mem_must_zalloc(MAX_LANES * (2 * COUNT(faults) + 1) * sizeof *world.visits);
    for (size_t i = 0; i < COUNT(apis); i++) {
        if (apis[i].asks != ASKS_VECTORS)
            add_lane(&apis[i], true);
        add_lane(&apis[i], false);
    }
}

static void write_scenario(struct buf *out)
{
    buf_add_str(out, "rules:\n  - {match: {prompt: '[plan]'}}\n");
    for (size_t i = 0; i < world.n_visits; i++) {
        const struct visit *visit = &world.visits[i];
        bool filler = strncmp(visit->fault->rule, "tokens", 6) == 0;
        buf_printf(out, "  - {match: {prompt: '#%zu.'", i);
        if (strikes(visit) > 0)
            buf_printf(out, ", times: %d", strikes(visit));
        buf_printf(out, "}%s%s%s}\n", filler ? "" : ", reply: {text: '" TEXT "'}",
                   visit->fault->rule[0] != '\0' ? ", " : "", visit->fault->rule);
    }
    buf_add_str(out, "  - {reply: {text: '" TEXT "'}}\n");
}

static void write_config(struct buf *out)
{
    buf_add_str(out, "providers:\n  spare: {api: noop}\n");
    for (size_t i = 0; i < LANES; i++) {
        const struct lane *lane = &world.lanes[i];
        buf_printf(out,
                   "  %s: {api: %s, base_url: 'http://127.0.0.1:%%d%s', stream: %s,"
                   " timeouts: {first_token_ms: 8000, gap_ms: 5000}, breaker: {failures: 0},"
                   " key: [",
                   lane->name, lane->api->api, lane->api->path, lane->streamed ? "true" : "false");
        for (int k = 0; k < KEYS; k++)
            buf_printf(out, "%s'env:FAMILIES_KEY_%d'", k > 0 ? ", " : "", k);
        buf_add_str(out, "]}\n");
    }
    buf_add_str(out, "models:\n  spare: {provider: spare}\n");
    for (size_t i = 0; i < LANES; i++) {
        const struct lane *lane = &world.lanes[i];
        buf_printf(out, "  %s: {provider: %s, name: model-1, price: {input: 1, output: 2}%s}\n",
                   lane->name, lane->name,
                   lane->api->asks == ASKS_RESPONSES ? ", endpoint: responses" : "");
    }
    buf_add_str(out, "workers:\n  - {name: spare, provider: spare, concurrency: 256}\n");
    for (size_t i = 0; i < LANES; i++)
        buf_printf(out, "  - {name: %s, provider: %s, concurrency: 256}\n", world.lanes[i].name,
                   world.lanes[i].name);
    buf_add_str(out, "roles:\n");
    for (size_t i = 0; i < LANES; i++)
        buf_printf(out,
                   "  %s: {models: [%s, spare], spill_ms: 86400000}\n"
                   "  %s-alone: {models: [%s]}\n",
                   world.lanes[i].name, world.lanes[i].name, world.lanes[i].name,
                   world.lanes[i].name);
}

static void spawn_worker(const char *name)
{
    char log[64];
    snprintf(log, sizeof log, "worker-%s.log", name);
    fixture_spawn(&world.testbed.fixture, log,
                  (const char *[]){"orchestrator-worker", "--name", name, "--config",
                                   world.testbed.config, "--ready-fd", "1", NULL});
}

static void wait_worker(const char *name)
{
    char log[64];
    snprintf(log, sizeof log, "worker-%s.log", name);
    if (!fixture_wait_text(&world.testbed.fixture, log, "ready\n", PATIENCE_MS))
        fail_msg("worker %s does not get ready", name);
}

static int setup(void **state)
{
    (void)state;
    struct buf config = {0}, scenario = {0};
    struct err err = {0};
    for (int i = 0; i < KEYS; i++) {
        char name[32], key[64];
        snprintf(name, sizeof name, "FAMILIES_KEY_%d", i);
        snprintf(key, sizeof key, KEY, i);
        setenv(name, key, 1);
    }
    make_visits();
    write_config(&config);
    write_scenario(&scenario);
    testbed_init(&world.testbed, config.data, scenario.data);
    testbed_start(&world.testbed, NULL);
    spawn_worker("spare");
    for (size_t i = 0; i < LANES; i++)
        spawn_worker(world.lanes[i].name);
    wait_worker("spare");
    for (size_t i = 0; i < LANES; i++)
        wait_worker(world.lanes[i].name);
    loop_init(&world.loop);
    struct redis_options redis = fixture_redis_options(&world.testbed.fixture);
    if (queue_open(&world.queue, &world.loop, &redis, NULL, NULL, &err) != 0 ||
        config_load(&world.config, world.testbed.config, &err) != 0)
        fail_msg("%s", err.text);
    prompt_plan_schema(world.config, &world.plan_schema);
    buf_release(&config);
    buf_release(&scenario);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    for (size_t i = 0; i < world.n_visits; i++) {
        message_release(&world.visits[i].outcome);
        message_release(&world.visits[i].timing);
        buf_release(&world.visits[i].text);
        buf_release(&world.visits[i].timing_record);
    }
    free(world.visits);
    buf_release(&world.plan_schema);
    config_free(&world.config);
    queue_close(&world.queue);
    loop_finish(&world.loop);
    testbed_release(&world.testbed);
    return 0;
}

/* --- the run ------------------------------------------------------------------------------------
 */

static void submitted(void *ctx, enum queue_status status, const char *err)
{
    (void)ctx, (void)err;
    world.unanswered--;
    world.refused += status != QUEUE_OK;
}

/* What waits would rather go to the spare arm: it is not let. */
static const char *role_of(const struct visit *visit)
{
    static char role[64];
    snprintf(role, sizeof role, "%s%s", visit->lane->name, waits(visit) ? "-alone" : "");
    return role;
}

static void submit(size_t index)
{
    const struct visit *visit = &world.visits[index];
    struct buf work = {0}, meta = {0};
    char prompt[128];
    int len = snprintf(prompt, sizeof prompt, "#%zu. %s %s: answer.%s", index, visit->lane->name,
                       visit->fault->name, visit->plan ? " [plan]" : "");
    struct bytes none = {"", 0};
    bool vectors = visit->lane->api->asks == ASKS_VECTORS;
    char inputs[160];
    int inputs_len = snprintf(inputs, sizeof inputs, "[\"%s\",\"and more\"]", prompt);
    struct message message = {
        .type = MESSAGE_work,
        .work = {.kind = vectors ? "embed" : "run",
                 .title = visit->fault->name,
                 .role = role_of(visit),
                 .prompt = {prompt, (size_t)len},
                 .inputs = vectors ? (struct bytes){inputs, (size_t)inputs_len} : none,
                 .json_schema = visit->plan
                                    ? (struct bytes){world.plan_schema.data, world.plan_schema.len}
                                    : none,
                 .temperature = -1}};
    assert_int_equal(message_encode(&message, &work), 0);
    message = (struct message){.type = MESSAGE_meta,
                               .meta = {.kind = vectors ? "embed" : "run",
                                        .role = role_of(visit),
                                        .title = visit->fault->name}};
    assert_int_equal(message_encode(&message, &meta), 0);
    struct queue_node node = {.id = "a",
                              .max_attempts = visit->once ? 3 : 1,
                              .work = {work.data, work.len},
                              .meta = {meta.data, meta.len}};
    struct queue_task task = {.id = visit->task,
                              .digest = "d",
                              .title = visit->fault->name,
                              .info = {"{}", 2},
                              .nodes = &node,
                              .n_nodes = 1};
    world.unanswered++;
    queue_submit(world.queue, &task, submitted, NULL);
    buf_release(&work);
    buf_release(&meta);
}

static void logged(void *ctx, const struct queue_log_entry *entry)
{
    struct visit *visit = ctx;
    int64_t now_ms = atoll(entry->id);
    if (strcmp(entry->what, "running") == 0) {
        visit->runs++;
        visit->again_ms = visit->runs == 2 ? now_ms : visit->again_ms;
    } else if (visit->runs == 1 &&
               (strcmp(entry->what, "retry") == 0 || strcmp(entry->what, "dead") == 0)) {
        visit->failed_ms = now_ms;
        snprintf(visit->error_class, sizeof visit->error_class, "%s", entry->error_class);
        snprintf(visit->reason, sizeof visit->reason, "%s", entry->text);
    } else if (strncmp(entry->what, "task-", 5) == 0) {
        visit->ended = true;
        snprintf(visit->end, sizeof visit->end, "%s", entry->what);
    }
}

static void viewed(void *ctx, enum queue_status status, const struct queue_task_view *view,
                   const char *err)
{
    (void)err;
    struct visit *visit = ctx;
    world.answered = true;
    assert_int_equal(status, QUEUE_OK);
    visit->state = view->subs[0].state;
    struct bytes outcome = view->subs[0].outcome, timing = view->subs[0].timing;
    buf_add(&visit->text, outcome.data, outcome.len);
    buf_add(&visit->timing_record, timing.data, timing.len);
    assert_int_equal(message_decode_as(&visit->timing, MESSAGE_timing, visit->timing_record.data,
                                       visit->timing_record.len),
                     0);
    if (outcome.len > 0)
        assert_int_equal(
            message_decode_as(&visit->outcome, MESSAGE_outcome, visit->text.data, visit->text.len),
            0);
}

static void wait_visit(struct visit *visit)
{
    struct queue_log_follow *follow;
    assert_int_equal(queue_log_open(&follow, world.queue, visit->task, "0", logged, visit, NULL),
                     0);
    if (loop_run_until(&world.loop, &visit->ended, PATIENCE_MS) != 0)
        fail_msg("%s %s does not end", visit->lane->name, visit->fault->name);
    queue_log_close(&follow);
    world.answered = false;
    queue_read(world.queue, visit->task, false, viewed, visit);
    assert_int_equal(loop_run_until(&world.loop, &world.answered, PATIENCE_MS), 0);
}

/* How often the simulator was asked, by what every prompt begins with. */
static void count_requests(void)
{
    json_t *requests = testbed_sim(&world.testbed, "requests"), *request;
    size_t i;
    json_t *list = json_is_object(requests) ? json_object_get(requests, "requests") : requests;
    assert_true(json_array_size(list) > 0 && json_array_size(list) < MAX_REQUESTS);
    json_array_foreach (list, i, request) {
        const char *prompt = strchr(json_str(request, "prompt", ""), '#');
        unsigned long index = prompt != NULL ? strtoul(prompt + 1, NULL, 10) : world.n_visits;
        assert_true(index < world.n_visits);
        world.visits[index].requests++;
    }
    json_decref(requests);
}

/* --- the judgement ------------------------------------------------------------------------------
 */

/* Counts what is not as it must be, so that one run shows all of it. */
static void check(const struct visit *visit, bool good, const char *what)
{
    if (good)
        return;
    world.wrong++;
    print_error("%s, %s%s: %s [%s after %d runs and %d requests; first failure %s: %s]\n",
                visit->lane->name, visit->fault->name, visit->once ? "" : " for good", what,
                visit->end, visit->runs, visit->requests, visit->error_class, visit->reason);
}

static void judge_timing(const struct visit *visit)
{
    const struct msg_timing *timing = &visit->timing.timing;
    bool done = visit->state == SUB_DONE, spare = strcmp(timing->provider, "spare") == 0;
    check(visit, strcmp(timing->result, done ? "done" : "failed") == 0, "timing's result");
    check(visit, timing->attempt == visit->runs, "timing's attempt");
    check(visit, timing->claim_ms > 0 && timing->queue_ms >= 0, "time before the call");
    check(visit, timing->total_ms > 0 && timing->ttft_ms <= timing->total_ms, "total time");
    check(visit, timing->connect_ms >= 0 && timing->connect_ms <= timing->total_ms, "connecting");
    check(visit, timing->started_ms > clock_wall_ms() - 600000, "start");
    if (spare)
        return;
    check(visit, strcmp(timing->model, visit->lane->name) == 0, "timing's model");
    check(visit, timing->sent_bytes > 0, "bytes sent");
    if (!visit->lane->streamed)
        check(visit, timing->ttft_ms == -1, "a first token without a stream");
    if (!done) {
        check(visit, strcmp(timing->error_class, visit->error_class) == 0, "timing's class");
        check(visit, timing->error[0] != '\0' && strstr(timing->error, KEY_PART) == NULL,
              "the error");
        check(visit, timing->finish[0] == '\0' || visit->class_ == CLASS_BAD_RESPONSE, "finish");
        return;
    }
    check(visit, timing->http_status == 200 && timing->error_class[0] == '\0', "status");
    check(visit, strcmp(timing->finish, "done") == 0, "finish");
    check(visit, timing->received_bytes > (int64_t)sizeof TEXT, "bytes received");
    if (visit->lane->api->asks == ASKS_VECTORS) /* some servers count no tokens of texts */
        return;
    check(visit, timing->prompt_tokens > 0 && timing->output_tokens > 0, "tokens");
    check(visit, timing->cost_usd > 0, "cost");
    check(visit, !visit->lane->streamed || timing->ttft_ms > 0, "first token");
    bool other = strcmp(visit->fault->name, "wrong_model") == 0;
    check(visit, timing->model_mismatch == other, "served model");
    if (strcmp(visit->fault->name, "slow") == 0) { /* 300 ms, then 12 tokens, 60 a second */
        check(visit, timing->total_ms >= 490, "duration");
        check(visit, !visit->lane->streamed || timing->ttft_ms >= 300, "waiting for the model");
        check(visit, !visit->lane->streamed || timing->ttft_ms + timing->generate_ms >= 490,
              "generating");
        check(visit, timing->output_tokens == 12, "tokens counted");
    }
}

/* Two texts, two vectors of one size. */
static void judge_vectors(const struct visit *visit)
{
    struct bytes text = visit->outcome.outcome.text;
    json_t *vectors = json_parse(text.data, text.len, NULL);
    size_t n = json_array_size(json_array_get(vectors, 0));
    check(visit,
          json_array_size(vectors) == 2 && n > 0 &&
              json_array_size(json_array_get(vectors, 1)) == n,
          "vectors");
    json_decref(vectors);
}

static void judge_answer(const struct visit *visit)
{
    const struct msg_outcome *outcome = &visit->outcome.outcome;
    bool moved = moves(visit);
    check(visit, strcmp(outcome->provider, moved ? "spare" : visit->lane->name) == 0, "who");
    if (visit->plan) {
        struct plan *plan = NULL;
        struct err err = {0};
        check(visit,
              plan_parse_answer(&plan, world.config, outcome->text.data, outcome->text.len, &err) ==
                      0 &&
                  outcome->text.data[0] == '{',
              "the plan");
        plan_free(&plan);
        return;
    }
    if (moved || strncmp(visit->fault->rule, "tokens", 6) == 0)
        return;
    if (visit->lane->api->asks == ASKS_VECTORS) {
        judge_vectors(visit);
        return;
    }
    check(visit,
          outcome->text.len == strlen(TEXT) && memcmp(outcome->text.data, TEXT, strlen(TEXT)) == 0,
          "text");
}

static void judge(const struct visit *visit)
{
    bool hurts = visit->class_ != CLASS_NONE;
    bool for_good = hurts && strikes(visit) == 0;
    int runs = for_good && is_of_key(visit) ? KEY_TRIES : hurts ? strikes(visit) + 1 : 1;
    int requests = runs - (moves(visit) && visit->once);
    bool done = !for_good;
    check(visit, strcmp(visit->error_class, hurts ? error_class_name(visit->class_) : "") == 0,
          hurts ? error_class_name(visit->class_) : "no failure");
    check(visit, visit->state == (done ? SUB_DONE : SUB_DEAD), "state");
    check(visit, strcmp(visit->end, done ? "task-done" : "task-failed") == 0, "end");
    check(visit, visit->runs == runs, "attempts");
    check(visit, visit->requests == requests, "requests");
    check(visit, strstr(visit->reason, KEY_PART) == NULL, "the key is shown");
    if (strcmp(visit->fault->name, "retry_after") == 0 && visit->once && !is_of_key(visit))
        check(visit, visit->again_ms - visit->failed_ms >= 3000, "the server's delay");
    judge_timing(visit);
    if (visit->state == SUB_DONE)
        judge_answer(visit);
}

static void every_fault_of_every_api_is_what_it_is(void **state)
{
    (void)state;
    for (size_t i = 0; i < world.n_visits; i++)
        submit(i);
    while (world.unanswered > 0)
        uv_run(&world.loop, UV_RUN_ONCE);
    assert_int_equal(world.refused, 0);
    for (size_t i = 0; i < world.n_visits; i++)
        wait_visit(&world.visits[i]);
    count_requests();
    for (size_t i = 0; i < world.n_visits; i++)
        judge(&world.visits[i]);
    print_message("%zu subtasks in %zu lanes\n", world.n_visits, LANES);
    assert_int_equal(world.wrong, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_fault_of_every_api_is_what_it_is),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
