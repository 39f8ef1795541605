#include "common/detect.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/config_tables.h"
#include "common/model_registry.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))
#define LOCAL_CONTEXT 8192 /* Ollama's own default cuts prompts off without a word */
#define ALL_MODELS 160
#define RUNTIME_MODELS 24                  /* of one runtime */
#define SIMULATED_KEY "cmd:echo simulated" /* the formats that demand a key get one */

/* What is known of them is in the registry. */
struct cloud_model {
    const char *alias, *name;
    bool strong; /* plans, designs, reviews */
};

struct cloud {
    const char *provider, *api;
    const char *env[2]; /* the first that is set */
    struct cloud_model models[2];
};

static const struct cloud clouds[] = {
    {"claude",
     "anthropic",
     {"ANTHROPIC_API_KEY"},
     {{"claude-sonnet", "claude-sonnet-5-5", true}, {"claude-haiku", "claude-haiku-5-5", false}}},
    {"openai",
     "openai",
     {"OPENAI_API_KEY"},
     {{"gpt-sol", "gpt-6.1-sol", true}, {"gpt-luna", "gpt-6-luna", false}}},
    {"gemini",
     "gemini",
     {"GEMINI_API_KEY", "GOOGLE_API_KEY"},
     {{"gemini-flash", "gemini-3.8-flash", true},
      {"gemini-flash-lite", "gemini-3.5-flash-lite", false}}},
    {"hf", "huggingface", {"HF_TOKEN"}, {{"gpt-oss-120b", "openai/gpt-oss-120b", true}}},
};

static const struct detect_runtime usual_runtimes[] = {
    {.provider = "ollama",
     .api = "ollama",
     .path = "/api/tags",
     .port_env = "ORCHESTRATOR_OLLAMA_PORT",
     .port = 11434},
    {.provider = "lmstudio",
     .api = "lmstudio",
     .path = "/v1/models",
     .port_env = "ORCHESTRATOR_LMSTUDIO_PORT",
     .port = 1234},
    {.provider = "llama",
     .api = "llamacpp",
     .path = "/v1/models",
     .port_env = "ORCHESTRATOR_LLAMACPP_PORT",
     .port = 8080},
    {.provider = "llama-2",
     .api = "llamacpp",
     .path = "/v1/models",
     .port_env = "ORCHESTRATOR_LLAMACPP2_PORT",
     .port = 9931},
    {.provider = "vllm",
     .api = "vllm",
     .path = "/v1/models",
     .port_env = "ORCHESTRATOR_VLLM_PORT",
     .port = 8000},
};

const struct detect_runtime *detect_runtimes(size_t *ret_count)
{
    *ret_count = COUNT(usual_runtimes);
    return usual_runtimes;
}

void detect_release(struct detect_runtime *runtimes, size_t count)
{
    for (size_t i = 0; i < count; i++)
        free(runtimes[i].models);
}

/* --- writing the configuration ------------------------------------------------------------- */

/* The sections grow side by side. */
struct draft {
    struct buf providers, models, workers;
    char aliases[ALL_MODELS][65];
    bool strong[ALL_MODELS];
    bool embeds[ALL_MODELS]; /* makes vectors only */
    size_t n_aliases, n_embeds;
};

/* An alias of characters that aliases may have, unlike all others; NULL when there are too many. */
static const char *take_alias(struct draft *draft, const char *name, bool strong)
{
    char plain[56];
    size_t len = 0;
    for (; *name != '\0' && len + 1 < sizeof plain; name++) {
        bool usual = (*name >= 'a' && *name <= 'z') || (*name >= 'A' && *name <= 'Z') ||
                     (*name >= '0' && *name <= '9');
        if (usual || (len > 0 && strchr("._-:/+", *name) != NULL))
            plain[len++] = *name;
        else if (len > 0)
            plain[len++] = '-';
    }
    plain[len] = '\0';
    if (draft->n_aliases == ALL_MODELS)
        return NULL;
    char *alias = draft->aliases[draft->n_aliases];
    snprintf(alias, sizeof draft->aliases[0], "%s", len > 0 ? plain : "model");
    for (size_t i = 0, copy = 2; i < draft->n_aliases; i++)
        if (strcmp(draft->aliases[i], alias) == 0) {
            snprintf(alias, sizeof draft->aliases[0], "%s-%zu", len > 0 ? plain : "model", copy++);
            i = (size_t)-1; /* compare again from the first */
        }
    draft->strong[draft->n_aliases] = strong;
    draft->embeds[draft->n_aliases++] = false;
    return alias;
}

/* Marks the alias taken last, when the model answers no prompts. */
static void mark_embeds(struct draft *draft, const char *api, const char *name)
{
    const struct model_registry *registry = model_registry_shipped();
    const struct model_registry_row *row =
        registry != NULL ? model_registry_find(registry, api, name) : NULL;
    if (row == NULL || !model_registry_only_embeds(&row->model))
        return;
    draft->embeds[draft->n_aliases - 1] = true;
    draft->n_embeds++;
}

static void add_worker(struct draft *draft, const char *provider, int concurrency)
{
    buf_printf(&draft->workers, "  - {name: %s, provider: %s, concurrency: %d}\n", provider,
               provider, concurrency);
}

static void add_runtime(struct draft *draft, const struct detect_runtime *runtime)
{
    bool first = true;
    for (size_t i = 0; i < runtime->n_models && i < RUNTIME_MODELS; i++) {
        const char *name = runtime->models[i].name;
        const char *alias = take_alias(draft, name, false);
        if (alias == NULL)
            break;
        mark_embeds(draft, runtime->api, name);
        buf_printf(&draft->models, "  %s: {provider: %s, name: ", alias, runtime->provider);
        config_add_text(&draft->models, name);
        if (strcmp(runtime->api, "ollama") == 0 && !draft->embeds[draft->n_aliases - 1])
            buf_printf(&draft->models, ", context: %d", LOCAL_CONTEXT);
        buf_add_str(&draft->models, ", local: true}\n");
        first = false;
    }
    if (first)
        return; /* it has no model: nothing to work with */
    buf_printf(&draft->providers, "  %s: {api: %s, base_url: \"http://127.0.0.1:%d\"}\n",
               runtime->provider, runtime->api, runtime->port);
    add_worker(draft, runtime->provider, strcmp(runtime->api, "vllm") == 0 ? 16 : 2);
}

static void add_cloud(struct draft *draft, const struct cloud *cloud, const char *env)
{
    buf_printf(&draft->providers, "  %s: {api: %s, key: \"env:%s\"}\n", cloud->provider, cloud->api,
               env);
    for (size_t i = 0; i < COUNT(cloud->models) && cloud->models[i].name != NULL; i++) {
        const struct cloud_model *model = &cloud->models[i];
        buf_printf(&draft->models, "  %s: {provider: %s, name: \"%s\"}\n",
                   take_alias(draft, model->alias, model->strong), cloud->provider, model->name);
    }
    add_worker(draft, cloud->provider, 32);
}

/* Planning and judging go to the strong models first; everything else to local ones first, which
 * is what roles do by themselves. */
static void add_roles(const struct draft *draft, struct buf *out)
{
    static const char *const demanding[] = {"planner", "synthesizer", "architect", "reviewer"};
    bool any = false;
    for (size_t i = 0; i < draft->n_aliases; i++)
        any |= draft->strong[i];
    if (!any)
        return;
    buf_add_str(out, "roles:\n");
    for (size_t role = 0; role < COUNT(demanding); role++) {
        const char *before = "";
        buf_printf(out, "  %s: {models: [", demanding[role]);
        for (int pass = 0; pass < 2; pass++)
            for (size_t i = 0; i < draft->n_aliases; i++)
                if (draft->strong[i] == (pass == 0) && !draft->embeds[i]) {
                    buf_printf(out, "%s%s", before, draft->aliases[i]);
                    before = ", ";
                }
        buf_add_str(out, "]}\n");
    }
}

/* A port outside the range that the kernel gives to outgoing connections, so that nothing takes it
 * before the simulator does. */
static int simulator_port(void)
{
    for (int tries = 0; tries < 100; tries++) {
        uint16_t random = 0;
        if (getrandom(&random, sizeof random, 0) != sizeof random)
            random = (uint16_t)(getpid() + tries);
        int port = 20000 + random % 12000;
        struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        int rc = bind(fd, (struct sockaddr *)&address, sizeof address);
        close(fd);
        if (rc == 0)
            return port;
    }
    return 20000;
}

/* The roles are spread, so that a simulated task shows several providers at work. */
static void add_simulated(struct buf *out)
{
    static const struct {
        const char *provider, *api, *model, *key;
        bool local;
    } simulated[] = {{"sim-claude", "anthropic", "sim-large", SIMULATED_KEY, false},
                     {"sim-openai", "openai", "sim-medium", SIMULATED_KEY, false},
                     {"sim-gemini", "gemini", "sim-small", SIMULATED_KEY, false},
                     {"sim-ollama", "ollama", "sim-local", "none", true}};
    int port = simulator_port();
    buf_printf(out, "simulator: {port: %d}\nproviders:\n", port);
    for (size_t i = 0; i < COUNT(simulated); i++)
        buf_printf(out, "  %s: {api: %s, base_url: \"http://127.0.0.1:%d\", key: \"%s\"}\n",
                   simulated[i].provider, simulated[i].api, port, simulated[i].key);
    buf_add_str(out, "models:\n");
    for (size_t i = 0; i < COUNT(simulated); i++)
        buf_printf(out, "  %s: {provider: %s, name: %s, context: 32768, local: %s}\n",
                   simulated[i].model, simulated[i].provider, simulated[i].model,
                   simulated[i].local ? "true" : "false");
    buf_add_str(out, "workers:\n");
    for (size_t i = 0; i < COUNT(simulated); i++)
        buf_printf(out, "  - {name: %s, provider: %s, concurrency: 8}\n", simulated[i].provider,
                   simulated[i].provider);
    buf_add_str(out, "roles:\n"
                     "  planner: {models: [sim-large, sim-medium, sim-small, sim-local]}\n"
                     "  synthesizer: {models: [sim-large, sim-medium, sim-small, sim-local]}\n"
                     "  general: {models: [sim-medium, sim-local, sim-small, sim-large]}\n"
                     "  architect: {models: [sim-large, sim-medium, sim-small, sim-local]}\n"
                     "  coder: {models: [sim-local, sim-medium, sim-small, sim-large]}\n"
                     "  tester: {models: [sim-medium, sim-local, sim-small, sim-large]}\n"
                     "  reviewer: {models: [sim-medium, sim-large, sim-small, sim-local]}\n"
                     "  writer: {models: [sim-small, sim-local, sim-medium, sim-large]}\n"
                     "  researcher: {models: [sim-local, sim-small, sim-medium, sim-large]}\n");
}

static const char *key_env(const struct cloud *cloud)
{
    for (size_t i = 0; i < COUNT(cloud->env) && cloud->env[i] != NULL; i++) {
        const char *value = getenv(cloud->env[i]);
        if (value != NULL && value[0] != '\0')
            return cloud->env[i];
    }
    return NULL;
}

static bool only_simulator(void)
{
    const char *wanted = getenv("ORCHESTRATOR_DETECT");
    return wanted != NULL && strcmp(wanted, "simulator") == 0;
}

void detect_yaml(const struct detect_runtime *runtimes, size_t count, struct buf *out)
{
    struct draft draft = {0};
    for (size_t i = 0; i < count; i++)
        if (runtimes[i].found)
            add_runtime(&draft, &runtimes[i]);
    for (size_t i = 0; i < COUNT(clouds) && !only_simulator(); i++)
        if (key_env(&clouds[i]) != NULL)
            add_cloud(&draft, &clouds[i], key_env(&clouds[i]));
    if (draft.n_aliases == draft.n_embeds) { /* nothing that answers prompts */
        add_simulated(out);
    } else {
        buf_printf(out, "providers:\n%smodels:\n%sworkers:\n%s", draft.providers.data,
                   draft.models.data, draft.workers.data);
        add_roles(&draft, out);
    }
    out->failed |= draft.providers.failed || draft.models.failed || draft.workers.failed;
    buf_release(&draft.providers);
    buf_release(&draft.models);
    buf_release(&draft.workers);
}

int detect_config(struct config **ret, struct err *err)
{
    size_t count;
    const struct detect_runtime *usual = detect_runtimes(&count);
    struct detect_runtime runtimes[COUNT(usual_runtimes)];
    memcpy(runtimes, usual, sizeof runtimes);
    if (!only_simulator())
        detect_probe(runtimes, count, DETECT_BUDGET_MS);
    struct buf text = {0};
    detect_yaml(runtimes, count, &text);
    detect_release(runtimes, count);
    int rc = config_parse(ret, CONFIG_BUILT_IN, text.len > 0 ? text.data : "", text.len, err);
    buf_release(&text);
    return rc;
}
