#include "simulator/sim.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "simulator/control.h"
#include "simulator/family.h"
#include "simulator/search.h"

static const struct {
    const char *path;
    const struct sim_family *family;
    bool embed;
    enum sim_dialect dialect; /* when nothing else says; COUNT: openai */
} routes[] = {
    {"/v1/chat/completions", &sim_family_openai, false, SIM_DIALECT_COUNT},
    {"/v1/responses", &sim_family_responses, false, SIM_DIALECT_COUNT},
    {"/v1/embeddings", &sim_family_openai, true, SIM_DIALECT_COUNT},
    {"/embed", &sim_family_openai, true, SIM_DIALECT_TGI},
    {"/api/v1/chat", &sim_family_lmstudio, false, SIM_DIALECT_LMSTUDIO},
    {"/v1/messages", &sim_family_anthropic, false, SIM_DIALECT_COUNT},
    {"/api/chat", &sim_family_ollama, false, SIM_DIALECT_COUNT},
    {"/api/embed", &sim_family_ollama, false, SIM_DIALECT_COUNT}, /* knows that by its path */
};

/* Takes a leading "/vllm" or "/anthropic" off the path, so that a base URL can choose the dialect
 * of a server that looks like any of them. */
static const char *strip_prefix(const char *path, enum sim_dialect *dialect)
{
    if (path[0] != '/')
        return path;
    size_t len = strcspn(path + 1, "/");
    char name[16];
    if (len == 0 || len >= sizeof name || path[len + 1] != '/')
        return path;
    snprintf(name, sizeof name, "%.*s", (int)len, path + 1);
    enum sim_dialect found = sim_dialect_parse(name, len);
    if (found != SIM_DIALECT_COUNT)
        *dialect = found;
    else if (sim_family_find(name) == NULL)
        return path;
    return path + len + 1;
}

/* Gemini's path holds the model and the method: /v1beta/models/NAME:generateContent. */
static const struct {
    const char *method;
    bool stream, embed;
} gemini_methods[] = {
    {":generateContent", false, false},
    {":streamGenerateContent", true, false},
    {":embedContent", false, true},
    {":batchEmbedContents", false, true},
};

static bool parse_gemini(struct sim_request *request, const struct sim_exchange *exchange,
                         const char *path)
{
    static const char prefix[] = "/v1beta/models/";
    if (strncmp(path, prefix, sizeof prefix - 1) != 0)
        return false;
    const char *name = path + sizeof prefix - 1;
    const char *colon = strrchr(name, ':');
    if (colon == NULL || colon == name || (size_t)(colon - name) >= sizeof request->model)
        return false;
    size_t i = 0, n = sizeof gemini_methods / sizeof *gemini_methods;
    while (i < n && strcmp(colon, gemini_methods[i].method) != 0)
        i++;
    if (i == n)
        return false;
    bool stream = gemini_methods[i].stream;
    request->embed = gemini_methods[i].embed;
    const char *alt = sim_exchange_query(exchange, "alt");
    memcpy(request->model, name, (size_t)(colon - name));
    request->model[colon - name] = '\0';
    request->stream = stream;
    request->array = stream && (alt == NULL || strcmp(alt, "sse") != 0);
    request->family = &sim_family_gemini;
    return true;
}

/* Hugging Face's feature extraction: /hf-inference/models/ORG/NAME/pipeline/feature-extraction. */
static bool parse_pipeline(struct sim_request *request, const char *path)
{
    static const char start[] = "/hf-inference/models/", end[] = "/pipeline/feature-extraction";
    size_t len = strlen(path), around = sizeof start + sizeof end - 2;
    if (len <= around || strncmp(path, start, sizeof start - 1) != 0 ||
        strcmp(path + len - (sizeof end - 1), end) != 0 || len - around >= sizeof request->model)
        return false;
    memcpy(request->model, path + sizeof start - 1, len - around);
    request->model[len - around] = '\0';
    request->family = &sim_family_openai;
    request->embed = true;
    if (request->dialect == SIM_DIALECT_COUNT)
        request->dialect = SIM_DIALECT_HUGGINGFACE;
    return true;
}

static const struct sim_family *family_of_path(const struct sim_exchange *exchange,
                                               const char *path)
{
    if (strncmp(path, "/v1beta/", 8) == 0)
        return &sim_family_gemini;
    if (strncmp(path, "/api/v1/", 8) == 0)
        return &sim_family_lmstudio;
    if (strncmp(path, "/api/", 5) == 0)
        return &sim_family_ollama;
    if (strncmp(path, "/v1/messages", 12) == 0 ||
        sim_exchange_header(exchange, "anthropic-version") != NULL)
        return &sim_family_anthropic;
    return &sim_family_openai;
}

static bool is_call(struct sim_request *request, const struct sim_exchange *exchange,
                    const char *path)
{
    for (size_t i = 0; i < sizeof routes / sizeof *routes; i++)
        if (strcmp(path, routes[i].path) == 0) {
            request->family = routes[i].family;
            request->embed = routes[i].embed;
            if (request->dialect == SIM_DIALECT_COUNT)
                request->dialect = routes[i].dialect;
            return true;
        }
    return parse_gemini(request, exchange, path) || parse_pipeline(request, path);
}

static void handle_request(void *ctx, struct sim_exchange *exchange)
{
    struct sim *sim = ctx;
    struct sim_request request = {.dialect = SIM_DIALECT_COUNT};
    const char *header = sim_exchange_header(exchange, "x-sim-dialect");
    const char *path = strip_prefix(sim_exchange_path(exchange), &request.dialect);
    if (header != NULL)
        request.dialect = sim_dialect_parse(header, strlen(header));
    request.method = sim_exchange_method(exchange);
    request.path = path;
    bool call = is_call(&request, exchange, path);
    if (sim_search_answer(sim, exchange, &request))
        return;
    if (call && strcmp(request.method, "POST") == 0) {
        sim_call_start(sim, exchange, &request);
        return;
    }
    if (sim_control_answer(sim, exchange, path, request.dialect))
        return;
    struct sim_error error = {.kind = call ? SIM_KIND_NO_METHOD : SIM_KIND_NO_ROUTE,
                              .retry_after_s = -1};
    if (request.dialect == SIM_DIALECT_COUNT)
        request.dialect = SIM_DIALECT_OPENAI;
    request.family = family_of_path(exchange, path);
    sim_journal_other(sim->journal);
    sim_call_refuse(exchange, &request, &error);
}

static void handle_done(void *ctx, struct sim_exchange *exchange, bool sent)
{
    sim_call_done(ctx, sim_exchange_data(exchange), sent);
}

static int read_scenario(struct sim_scenario **ret, const char *path, struct err *err)
{
    struct buf text = {0};
    char chunk[8192];
    ssize_t len;
    if (path == NULL)
        return sim_scenario_parse(ret, "default", NULL, 0, err);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_set(err, -errno, "cannot read the scenario %s: %s", path, strerror(errno));
    while ((len = read(fd, chunk, sizeof chunk)) > 0 && text.len <= SIM_HTTP_MAX_BODY)
        buf_add(&text, chunk, (size_t)len);
    int rc = len < 0
                 ? err_set(err, -errno, "cannot read the scenario %s: %s", path, strerror(errno))
                 : sim_scenario_parse(ret, path, text.data != NULL ? text.data : "", text.len, err);
    close(fd);
    buf_release(&text);
    return rc;
}

int sim_open(struct sim *sim, uv_loop_t *loop, const struct sim_options *options, struct err *err)
{
    static const struct sim_http_handlers handlers = {handle_request, handle_done};
    *sim = (struct sim){.loop = loop, .quiet = options->quiet};
    int rc = read_scenario(&sim->scenario, options->scenario_file, err);
    if (rc != 0)
        return rc;
    int64_t seed = options->seed >= 0 ? options->seed : sim_scenario_seed(sim->scenario);
    sim->random = (uint64_t)(seed >= 0 ? seed : 1);
    sim->journal = sim_journal_new();
    sim->prefixes = sim_prefixes_new();
    sim->limits = sim_limits_new();
    rc = sim_http_open(&sim->http, loop, &options->http, &handlers, sim, err);
    if (rc != 0)
        sim_close(sim);
    return rc;
}

void sim_close(struct sim *sim)
{
    sim_http_close(&sim->http);
    sim_journal_free(&sim->journal);
    sim_prefixes_free(&sim->prefixes);
    sim_limits_free(&sim->limits);
    sim_scenario_unref(&sim->scenario);
}
