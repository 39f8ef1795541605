#include "simulator/control.h"

#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "simulator/family.h"

#define JSON "application/json"

struct visit {
    struct sim *sim;
    struct sim_exchange *exchange;
    enum sim_dialect dialect;
};

static void send_json(const struct visit *visit, int status, struct buf *body)
{
    buf_reserve(body, 1);
    sim_exchange_reply(visit->exchange, status, JSON, NULL, body);
}

/* --- /sim/... ------------------------------------------------------------------------------ */

static int64_t number(const struct visit *visit, const char *name, int64_t fallback)
{
    const char *text = sim_exchange_query(visit->exchange, name);
    char *end;
    long long value = text != NULL ? strtoll(text, &end, 10) : 0;
    return text != NULL && end != text && *end == '\0' && value >= 0 ? value : fallback;
}

static void show_requests(const struct visit *visit)
{
    struct buf body = {0};
    sim_journal_print(visit->sim->journal, (uint64_t)number(visit, "after", 0),
                      number(visit, "limit", SIM_JOURNAL_MAX), &body);
    send_json(visit, 200, &body);
}

static void show_stats(const struct visit *visit)
{
    struct buf body = {0};
    sim_journal_print_stats(visit->sim->journal, sim_http_connections(visit->sim->http), &body);
    send_json(visit, 200, &body);
}

static void show_keys(const struct visit *visit)
{
    struct buf body = {0};
    sim_limits_print(visit->sim->limits, &body);
    send_json(visit, 200, &body);
}

static void reset(const struct visit *visit)
{
    struct buf body = {0};
    sim_journal_reset(visit->sim->journal);
    sim_limits_reset(visit->sim->limits);
    sim_prefixes_reset(visit->sim->prefixes);
    sim_scenario_reset(visit->sim->scenario);
    buf_add_str(&body, "{\"ok\":true}\n");
    send_json(visit, 200, &body);
}

static void replace_scenario(const struct visit *visit)
{
    struct buf *text = sim_exchange_body(visit->exchange), body = {0};
    struct err err = {0};
    struct sim_scenario *scenario = NULL;
    int rc = -1;
    if (sim_exchange_too_large(visit->exchange))
        err_set(&err, -1, "the scenario is larger than 32 MiB");
    else
        rc = sim_scenario_parse(&scenario, "scenario", text->data != NULL ? text->data : "",
                                text->len, &err);
    if (rc != 0) {
        buf_add_str(&body, "{\"error\":");
        buf_add_json(&body, err.text, strlen(err.text));
        buf_add_str(&body, "}\n");
        send_json(visit, 400, &body);
        return;
    }
    sim_scenario_unref(&visit->sim->scenario);
    visit->sim->scenario = scenario;
    if (sim_scenario_seed(scenario) >= 0)
        visit->sim->random = (uint64_t)sim_scenario_seed(scenario);
    buf_add_str(&body, "{\"ok\":true}\n");
    send_json(visit, 200, &body);
}

/* --- lists of models ----------------------------------------------------------------------- */

typedef void add_model_fn(const struct visit *visit, const char *name, struct buf *out);

/* Writes `head`, the models separated by commas, and `tail`. */
static void send_models(const struct visit *visit, const char *head, add_model_fn *add,
                        const char *tail)
{
    size_t count;
    const char *const *models = sim_scenario_models(visit->sim->scenario, &count);
    struct buf body = {0};
    buf_add_str(&body, head);
    for (size_t i = 0; i < count; i++) {
        if (i > 0)
            buf_add_char(&body, ',');
        add(visit, models[i], &body);
    }
    buf_add_str(&body, tail);
    send_json(visit, 200, &body);
}

static void add_anthropic(const struct visit *visit, const char *name, struct buf *out)
{
    (void)visit;
    buf_add_str(out, "{\"type\":\"model\",\"id\":");
    sim_family_add_json(out, name);
    buf_add_str(out, ",\"display_name\":");
    sim_family_add_json(out, name);
    buf_add_str(out, ",\"created_at\":\"2026-01-01T00:00:00Z\",\"max_input_tokens\":200000,"
                     "\"max_tokens\":64000}");
}

static void add_openai(const struct visit *visit, const char *name, struct buf *out)
{
    static const char *const extras[SIM_DIALECT_COUNT + 1] = {
        [SIM_DIALECT_HUGGINGFACE] =
            ",\"providers\":[{\"provider\":\"simulated\",\"status\":\"live\",\"context_length\":"
            "131072,\"pricing\":{\"input\":0,\"output\":0},\"supports_tools\":true,"
            "\"supports_structured_output\":true}]",
        [SIM_DIALECT_VLLM] = ",\"root\":\"simulated\",\"parent\":null,\"max_model_len\":8192",
        [SIM_DIALECT_LLAMACPP] = ",\"meta\":{\"n_ctx_train\":8192}",
    };
    buf_add_str(out, "{\"id\":");
    sim_family_add_json(out, name);
    buf_add_str(out, ",\"object\":\"model\",\"created\":1767225600,\"owned_by\":\"simulated\"");
    if (extras[visit->dialect] != NULL)
        buf_add_str(out, extras[visit->dialect]);
    buf_add_char(out, '}');
}

static void list_v1(const struct visit *visit)
{
    if (sim_exchange_header(visit->exchange, "anthropic-version") == NULL) {
        send_models(visit, "{\"object\":\"list\",\"data\":[", add_openai, "]}");
        return;
    }
    size_t count;
    const char *const *models = sim_scenario_models(visit->sim->scenario, &count);
    struct buf tail = {0};
    buf_add_str(&tail, "],\"has_more\":false,\"first_id\":");
    sim_family_add_json(&tail, models[0]);
    buf_add_str(&tail, ",\"last_id\":");
    sim_family_add_json(&tail, models[count - 1]);
    buf_add_char(&tail, '}');
    send_models(visit, "{\"data\":[", add_anthropic, tail.data != NULL ? tail.data : "");
    buf_release(&tail);
}

static void add_gemini(const struct visit *visit, const char *name, struct buf *out)
{
    (void)visit;
    buf_add_str(out, "{\"name\":");
    char full[160] = "models/";
    strncat(full, name, sizeof full - 8);
    sim_family_add_json(out, full);
    buf_add_str(out, ",\"version\":\"001\",\"displayName\":");
    sim_family_add_json(out, name);
    buf_add_str(out, ",\"inputTokenLimit\":1048576,\"outputTokenLimit\":65536,"
                     "\"supportedGenerationMethods\":[\"generateContent\"]}");
}

static void list_v1beta(const struct visit *visit)
{
    send_models(visit, "{\"models\":[", add_gemini, "]}");
}

static void add_ollama(const struct visit *visit, const char *name, struct buf *out)
{
    (void)visit;
    buf_add_str(out, "{\"name\":");
    sim_family_add_json(out, name);
    buf_add_str(out, ",\"model\":");
    sim_family_add_json(out, name);
    buf_add_str(out, ",\"modified_at\":\"2026-01-01T00:00:00Z\",\"size\":4700000000,\"digest\":"
                     "\"51300000\",\"details\":{\"parent_model\":\"\",\"format\":\"gguf\","
                     "\"family\":\"simulated\",\"families\":[\"simulated\"],\"parameter_size\":"
                     "\"8.0B\",\"quantization_level\":\"Q4_K_M\"}}");
}

static void list_tags(const struct visit *visit)
{
    send_models(visit, "{\"models\":[", add_ollama, "]}");
}

static void add_loaded(const struct visit *visit, const char *name, struct buf *out)
{
    add_ollama(visit, name, out);
    out->len--; /* reopen the object */
    buf_add_str(out, ",\"expires_at\":\"");
    sim_family_add_date(out, clock_wall_ms() / 1000 + 300, -1);
    buf_add_str(out, "\",\"size_vram\":4700000000,\"context_length\":8192}");
}

static void list_ps(const struct visit *visit)
{
    send_models(visit, "{\"models\":[", add_loaded, "]}");
}

static void show_version(const struct visit *visit)
{
    struct buf body = {0};
    buf_add_str(&body, "{\"version\":\"0.33.0\"}");
    send_json(visit, 200, &body);
}

static void show_health(const struct visit *visit)
{
    struct buf body = {0};
    buf_add_str(&body, "{\"status\":\"ok\"}");
    send_json(visit, 200, &body);
}

static void show_root(const struct visit *visit)
{
    struct buf body = {0};
    buf_add_str(&body, "Ollama is running");
    sim_exchange_reply(visit->exchange, 200, "text/plain; charset=utf-8", NULL, &body);
}

static const struct {
    const char *method, *path;
    void (*answer)(const struct visit *visit);
    bool counted; /* among the other requests; /sim/... is not */
} pages[] = {
    {"GET", "/sim/requests", show_requests, false},
    {"GET", "/sim/stats", show_stats, false},
    {"GET", "/sim/keys", show_keys, false},
    {"POST", "/sim/reset", reset, false},
    {"POST", "/sim/scenario", replace_scenario, false},
    {"GET", "/v1/models", list_v1, true},
    {"GET", "/v1beta/models", list_v1beta, true},
    {"GET", "/api/tags", list_tags, true},
    {"GET", "/api/ps", list_ps, true},
    {"GET", "/api/version", show_version, true},
    {"GET", "/health", show_health, true},
    {"GET", "/v1/health", show_health, true},
    {"GET", "/", show_root, true},
};

bool sim_control_answer(struct sim *sim, struct sim_exchange *exchange, const char *path,
                        enum sim_dialect dialect)
{
    struct visit visit = {sim, exchange, dialect};
    const char *method = sim_exchange_method(exchange);
    if (strcmp(method, "HEAD") == 0)
        method = "GET"; /* libmicrohttpd leaves the body out */
    for (size_t i = 0; i < sizeof pages / sizeof *pages; i++)
        if (strcmp(path, pages[i].path) == 0 && strcmp(method, pages[i].method) == 0) {
            if (pages[i].counted)
                sim_journal_other(sim->journal);
            pages[i].answer(&visit);
            return true;
        }
    return false;
}
