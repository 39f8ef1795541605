#include "common/config_tables.h"

#include <stdint.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof *(array))
#define MINUTE_MS 60000.0
#define DAY_MS (24 * 60 * MINUTE_MS)
#define MONEY 1e6
#define MANY 1e12 /* a limit where there is no natural one */

/* Local runtimes answer without a key, unless one is configured. */
static const struct config_api apis[] = {
    {"anthropic", "Anthropic messages", "https://api.anthropic.com", "ANTHROPIC_API_KEY", false,
     false},
    {"openai", "OpenAI chat completions", "https://api.openai.com", "OPENAI_API_KEY", false, false},
    {"gemini", "Google Gemini", "https://generativelanguage.googleapis.com", "GEMINI_API_KEY",
     false, false},
    {"huggingface", "Hugging Face router", "https://router.huggingface.co", "HF_TOKEN", false,
     false},
    {"ollama", "Ollama", "http://127.0.0.1:11434", NULL, true, false},
    {"lmstudio", "LM Studio", "http://127.0.0.1:1234", NULL, true, false},
    {"llamacpp", "llama.cpp's llama-server", "http://127.0.0.1:8080", NULL, true, false},
    {"vllm", "vLLM", "http://127.0.0.1:8000", NULL, true, false},
    {"tgi", "Hugging Face TGI", NULL, NULL, true, false},
    {"openai-compatible", "any other server that speaks OpenAI chat completions", NULL, NULL, false,
     false},
    {"search", "another provider, with the results of a web search in the prompt", NULL, NULL,
     false, true},
    {"plugin", "a provider from a shared object", NULL, NULL, false, true},
    {"noop", "answers at once with `ok`, for trials and benchmarks", "http://127.0.0.1", NULL, true,
     false},
};

const struct config_api *config_apis(size_t *ret_count)
{
    *ret_count = COUNT(apis);
    return apis;
}

const struct config_api *config_api(const char *name)
{
    for (size_t i = 0; i < COUNT(apis); i++)
        if (strcmp(apis[i].name, name) == 0)
            return &apis[i];
    return NULL;
}

static const char *const fsync_choices[] = {"always", "everysec", "no", NULL};
static const char *const mode_choices[] = {"online", "offline", NULL};
static const char *const engine_choices[] = {"duckduckgo", "searxng", "google", NULL};
static const char *const search_choices[] = {"auto", "always", "never", NULL};
static const char *const endpoint_choices[] = {"auto", "chat", "responses", NULL};
static const char *const effort_choices[] = {CONFIG_EFFORTS, NULL};
static const char *const cache_choices[] = {"auto", "on", "off", NULL};
static const char *const hedge_choices[] = {"off", "auto", NULL};
static const char *const capability_choices[] = {CONFIG_CAPABILITIES, NULL};
static const char *const parameter_choices[] = {CONFIG_PARAMETERS, NULL};

#define MEMBER(type, member) .offset = offsetof(struct type, member)
#define LIST(type, member)                                                                         \
    .offset = offsetof(struct type, member), .count_offset = offsetof(struct type, n_##member)

#define TOP(member) MEMBER(config, member)
const struct config_field config_fields[] = {
    {"redis", &config_kind_redis, .fallback = "local",
     .help = "Where the queue is. `local`: a redis-server of the local stack on a unix socket; "
             "`redis://[[user]:password@]host[:port][/db]`; `rediss://...` is the same over TLS; "
             "`unix:///path[?db=N]`; or a map, see [redis](#redis)."},
    {"redis_appendfsync", &config_kind_choice, TOP(appendfsync), .fallback = "always",
     .choices = fsync_choices,
     .help = "When the local redis-server forces writes to disk. `always` loses nothing that was "
             "acknowledged; `everysec` can lose the last second or two, even when only Redis is "
             "killed; `no` leaves it to the kernel."},
    {"bus.brokers", &config_kind_brokers, .fallback = "local",
     .help = "Endpoints of the brokers: `local` (a broker of the local stack on a unix socket), "
             "`tcp://host:port` (taps on the next port), `ipc:///path` (taps on path.taps)."},
    {"bus.heartbeat_ms", &config_kind_int, TOP(beat_ms), .fallback = "1000", .min = 10,
     .max = MINUTE_MS, .help = "Interval of heartbeats, ms; after three missed a peer is gone."},
    {"bus.max_offers", &config_kind_int, TOP(max_offers), .fallback = "10000", .min = 1, .max = 1e7,
     .help = "Offers that a broker holds at most; the rest waits in Redis."},
    {"bus.curve.enabled", &config_kind_bool, TOP(curve),
     .help =
         "The bus is encrypted, and only who has a key takes part. By default where a broker is "
         "reached over the network (`tcp://`, not loopback). `false` there leaves the bus open: "
         "programs then need `--insecure`."},
    {"bus.curve.keys", &config_kind_text, TOP(curve_keys),
     .help =
         "Directory of the keys, which `orchestrator keys init` makes; by default `keys` in the "
         "home."},
    {"listen", &config_kind_listen, TOP(listen),
     .help = "Address of this machine, `HOST[:PORT]`, on which the local stack's broker (PORT, "
             "5570), its taps (PORT + 1) and redis-server (PORT + 2) listen for other machines, "
             "with keys and passwords; `orchestrator invite` lets them in. By default nothing is "
             "reachable from outside."},
    {"store", &config_kind_text, TOP(store),
     .help = "SQLite file of profiles and history; by default `profile.db` in the home."},
    {"queue.lease_ms", &config_kind_int, TOP(lease_ms), .fallback = "15000", .min = 100,
     .max = DAY_MS, .help = "How long a claimed subtask belongs to a worker that is silent, ms."},
    {"queue.renew_ms", &config_kind_int, TOP(renew_ms), .fallback = "5000", .min = 10,
     .max = DAY_MS, .help = "How often a worker renews its leases, ms; less than `lease_ms`."},
    {"queue.abandon_ms", &config_kind_int, TOP(abandon_ms), .fallback = "10000", .min = 50,
     .max = DAY_MS,
     .help = "A worker that could not renew for so long gives the attempt up, ms; less than "
             "`lease_ms`."},
    {"queue.max_attempts", &config_kind_int, TOP(max_attempts), .fallback = "4", .min = 1,
     .max = 100,
     .help = "Attempts of a subtask before it is dead; those that a rate limit, overload or the "
             "loss of a "
             "worker ended do not count."},
    {"queue.retain_s", &config_kind_int, TOP(retain_s), .fallback = "300", .min = 0, .max = 1e7,
     .help = "How long a finished task stays in Redis before it is archived, s."},
    {"routing.mode", &config_kind_offline, TOP(offline), .fallback = "online",
     .choices = mode_choices, .help = "`offline`: only local models are used."},
    {"budget.task_usd", &config_kind_num, TOP(budget.task_usd), .fallback = "0", .min = 0,
     .max = MONEY, .quiet = true,
     .help =
         "Most that one task may cost, USD; 0: no limit. It is reserved before each call at the "
         "call's worst case."},
    {"budget.task_tokens", &config_kind_int, TOP(budget.task_tokens), .fallback = "0", .min = 0,
     .max = MANY, .quiet = true, .help = "Most tokens that one task may use; 0: no limit."},
    {"budget.day_usd", &config_kind_num, TOP(budget.day_usd), .fallback = "0", .min = 0,
     .max = MONEY, .quiet = true,
     .help = "Most that all tasks may cost in a day (UTC), USD; 0: no limit."},
    {"budget.day_tokens", &config_kind_int, TOP(budget.day_tokens), .fallback = "0", .min = 0,
     .max = MANY, .quiet = true,
     .help = "Most tokens that all tasks may use in a day (UTC); 0: no limit."},
    {"cache.enabled", &config_kind_bool, TOP(cache), .fallback = "true", .quiet = true,
     .help = "Whether answers may come from the response cache: those of equal requests, where "
             "`temperature` is 0 or the role says `cache: on`."},
    {"cache.ttl_s", &config_kind_int, TOP(cache_ttl_s), .fallback = "86400", .min = 1, .max = 1e9,
     .quiet = true, .help = "How long an answer is kept, s."},
    {"cache.max_bytes", &config_kind_int, TOP(cache_max_bytes), .fallback = "67108864", .min = 0,
     .max = MANY, .quiet = true,
     .help = "Of all cached answers together, bytes; those not used for longest go first."},
    {"plan.max_subtasks", &config_kind_int, TOP(max_subtasks), .fallback = "1000", .min = 1,
     .max = 100000,
     .help = "Most subtasks that a model's plan may have; the file of `submit --plan` may have "
             "10,000."},
    {"include", &config_kind_include,
     .help = "A YAML file with further `models`, or a list of such; a model that is in this file "
             "too is taken from here."},
    {"simulator.port", &config_kind_int, TOP(simulator_port), .fallback = "0", .min = 0,
     .max = 65535, .quiet = true,
     .help = "The local stack starts `orchestrator-sim` on this port of 127.0.0.1, and every "
             "output says that answers are simulated; 0: no simulator."},
    {"simulator.scenario", &config_kind_text, TOP(simulator_scenario),
     .help = "YAML file with the simulator's behaviour; without it, the built-in replies."},
};
const size_t config_n_fields = COUNT(config_fields);

#define PROVIDER(member) MEMBER(config_provider, member)
static const struct config_field provider_fields[] = {
    {"api", &config_kind_api, PROVIDER(api), .required = true, .help = "One of the apis below."},
    {"base_url", &config_kind_url, PROVIDER(base_url),
     .help = "Where it answers: what the vendor's own client takes, with or without a trailing "
             "`/v1`, `/v1beta` or `/api`. Each api has a default."},
    {"key", &config_kind_keys, LIST(config_provider, keys),
     .help = "Where the key is, never the key itself: `env:NAME`, `file:PATH`, `cmd:COMMAND` or "
             "`none`. A list is a pool. By default the usual environment variable of the api."},
    {"stream", &config_kind_bool, PROVIDER(stream), .fallback = "true",
     .help = "Ask for answers as streams, so that progress is visible."},
    {"timeouts.connect_ms", &config_kind_int, PROVIDER(connect_ms), .fallback = "10000", .min = 0,
     .max = DAY_MS, .help = "Until the connection stands, TLS included, ms; 0: no limit."},
    {"timeouts.first_token_ms", &config_kind_int, PROVIDER(first_token_ms), .fallback = "300000",
     .min = 0, .max = DAY_MS,
     .help = "From the request until the first token, loading of a model included, ms; 0: no "
             "limit."},
    {"timeouts.gap_ms", &config_kind_int, PROVIDER(gap_ms), .fallback = "60000", .min = 0,
     .max = DAY_MS, .help = "Longest silence between two parts of a stream, ms; 0: no limit."},
    {"timeouts.total_ms", &config_kind_int, PROVIDER(total_ms), .fallback = "1800000", .min = 0,
     .max = DAY_MS, .help = "The whole call, ms; 0: no limit."},
    {"limits.requests_per_minute", &config_kind_int, PROVIDER(requests_per_minute), .fallback = "0",
     .min = 0, .max = MANY, .quiet = true,
     .help = "Requests in any 60 s of all workers on all machines together, counted in Redis; a "
             "subtask that has to wait leaves its place to others. 0: no limit."},
    {"limits.tokens_per_minute", &config_kind_int, PROVIDER(tokens_per_minute), .fallback = "0",
     .min = 0, .max = MANY, .quiet = true,
     .help = "Tokens in any 60 s of all workers together, prompts and answers: estimated before a "
             "call, corrected after it; 0: no limit."},
    {"limits.concurrency", &config_kind_int, PROVIDER(concurrency), .fallback = "0", .min = 0,
     .max = MANY, .quiet = true, .help = "Calls at once of all workers together; 0: no limit."},
    {"key_limits.requests_per_minute", &config_kind_int, PROVIDER(key_requests_per_minute),
     .fallback = "0", .min = 0, .max = MANY, .quiet = true,
     .help = "The same for each key of the pool."},
    {"key_limits.tokens_per_minute", &config_kind_int, PROVIDER(key_tokens_per_minute),
     .fallback = "0", .min = 0, .max = MANY, .quiet = true,
     .help = "The same for each key of the pool."},
    {"key_limits.concurrency", &config_kind_int, PROVIDER(key_concurrency), .fallback = "0",
     .min = 0, .max = MANY, .quiet = true, .help = "The same for each key of the pool."},
    {"breaker.failures", &config_kind_int, PROVIDER(breaker_failures), .fallback = "5", .min = 0,
     .max = 1e6, .quiet = true,
     .help =
         "So many overloads and timeouts of an arm in a row open its circuit breaker: it gets no "
         "work for a while; 0: never."},
    {"breaker.open_ms", &config_kind_int, PROVIDER(breaker_open_ms), .fallback = "30000",
     .min = 100, .max = DAY_MS, .quiet = true,
     .help =
         "How long it stays open before one subtask may try, ms; doubles up to ten times that."},
    {"headers", &config_kind_texts, LIST(config_provider, headers),
     .help = "Further request headers, each `Name: value`, such as `OpenAI-Organization: org-1`; "
             "not for "
             "keys."},
    {"plugin", &config_kind_text, PROVIDER(plugin),
     .help = "`api: plugin` only: the shared object that speaks to it, a path."},
    {"base", &config_kind_text, PROVIDER(base),
     .help = "`api: search` only: the provider that answers."},
    {"engine", &config_kind_choice, PROVIDER(engine), .choices = engine_choices,
     .help = "`api: search` only: the search engine; default duckduckgo."},
    {"engine_url", &config_kind_url, PROVIDER(engine_url),
     .help = "`api: search` only: where the engine answers; needed for searxng."},
    {"engine_key", &config_kind_keys, LIST(config_provider, engine_keys),
     .help = "`api: search` only: where the engine's key is (google), as for `key`."},
    {"engine_cx", &config_kind_text, PROVIDER(engine_cx),
     .help = "`api: search` only: the id of a Google search engine."},
    {"auto", &config_kind_search, PROVIDER(search), .choices = search_choices, .fallback = "auto",
     .quiet = true,
     .help =
         "`api: search` only: `true` (or `auto`) searches when the prompt asks for what is new; "
         "`always`; `never` (or `false`)."},
    {"max_results", &config_kind_int, PROVIDER(max_results), .fallback = "5", .min = 1, .max = 20,
     .quiet = true, .help = "`api: search` only: results put into the prompt."},
};

#define MODEL(member) MEMBER(config_model, member)
static const struct config_field model_fields[] = {
    {"provider", &config_kind_text, MODEL(provider), .required = true,
     .help = "Name of a provider."},
    {"name", &config_kind_text, MODEL(name),
     .help = "The provider's name of the model; by default the alias."},
    {"context", &config_kind_int, MODEL(context), .fallback = "0", .min = 0, .max = 1e9,
     .help = "Context window in tokens, within which earlier results are cut to fit; by default "
             "what the shipped registry knows; 0: unknown, taken as 100000."},
    {"max_output", &config_kind_int, MODEL(max_output), .fallback = "0", .min = 0, .max = 1e9,
     .help = "Longest answer in tokens; by default what the shipped registry knows; 0: unknown."},
    {"local", &config_kind_bool, MODEL(local),
     .help = "Runs on your own hardware; by default what the provider's api says."},
    {"served", &config_kind_texts, LIST(config_model, served),
     .help = "Further names under which the provider may answer without it being a mismatch."},
    {"strict", &config_kind_bool, MODEL(strict), .fallback = "false", .quiet = true,
     .help = "An answer of another model than asked for is an error."},
    {"capabilities", &config_kind_choices, LIST(config_model, capabilities),
     .choices = capability_choices,
     .help = "What it can do; by default what the shipped registry knows of the name."},
    {"refuses", &config_kind_choices, LIST(config_model, refuses), .choices = parameter_choices,
     .help = "Parameters that are never sent to it; by default what the shipped registry knows."},
    {"tags", &config_kind_texts, LIST(config_model, tags),
     .help = "Words that roles may ask for, such as `private`."},
    {"endpoint", &config_kind_choice, MODEL(endpoint), .choices = endpoint_choices,
     .fallback = "auto", .quiet = true,
     .help = "Of OpenAI: `chat` (completions) or `responses`; `auto`: what the registry knows."},
    {"effort", &config_kind_choice, MODEL(effort), .choices = effort_choices,
     .help = "Effort of reasoning where the role does not say; by default the provider's."},
    {"keep_alive", &config_kind_text, MODEL(keep_alive),
     .help = "How long a local runtime keeps it loaded when idle: `10m`, `300s`, a number of "
             "seconds; `-1`: for ever."},
    {"price", &config_kind_prices, LIST(config_model, prices),
     .help =
         "USD per million tokens: `{input, output, cached, cache_write}`, or a list of such, each "
         "with `from` (a date) or `above_tokens` (of the prompt): the last that applies counts. "
         "`{}` "
         "is free. By default the shipped registry's, for models that are not local."},
};

#define WORKER(member) MEMBER(config_worker, member)
static const struct config_field worker_fields[] = {
    {"name", &config_kind_text, WORKER(name), .required = true, .help = "Unique name."},
    {"provider", &config_kind_text, WORKER(provider), .required = true,
     .help = "Name of the provider that it calls."},
    {"concurrency", &config_kind_int, WORKER(concurrency), .fallback = "4", .min = 1, .max = 100000,
     .help = "Subtasks that it runs at once."},
    {"models", &config_kind_texts, LIST(config_worker, models),
     .help = "Aliases that it serves; by default all models of its provider."},
    {"gpu", &config_kind_text, WORKER(gpu),
     .help = "Index or UUID of the GPU that its runtime is pinned to."},
    {"launch", &config_kind_texts, LIST(config_worker, launch),
     .help = "Command line, as a list, of a runtime that the worker starts and owns."},
    {"health", &config_kind_text, WORKER(health),
     .help = "URL that answers 2xx once that runtime is usable."},
    {"share", &config_kind_bool, WORKER(share), .fallback = "false", .quiet = true,
     .help = "Another worker that shares too may be pinned to the same GPU."},
    {"start_ms", &config_kind_int, WORKER(start_ms), .fallback = "600000", .min = 100,
     .max = DAY_MS, .quiet = true,
     .help = "Most time until the launched runtime is healthy, ms; then it is started again."},
    {"hang_ms", &config_kind_int, WORKER(hang_ms), .fallback = "60000", .min = 1000, .max = DAY_MS,
     .quiet = true,
     .help = "Most time that the launched runtime may then not answer at `health`, ms; then it is "
             "started again."},
    {"memory_max_mb", &config_kind_int, WORKER(memory_max_mb), .fallback = "0", .min = 0,
     .max = 1e9, .quiet = true,
     .help = "Most memory of the launched runtime, MiB: beyond it, it is started again once it is "
             "idle; "
             "0: no limit."},
};

#define ROLE(member) MEMBER(config_role, member)
static const struct config_field role_fields[] = {
    {"models", &config_kind_texts, LIST(config_role, models),
     .help = "Aliases in order of preference; by default all models, local ones first."},
    {"system", &config_kind_text, ROLE(system),
     .help = "System prompt; the built-in roles have one."},
    {"temperature", &config_kind_num, ROLE(temperature), .fallback = "-1", .min = -1, .max = 2,
     .quiet = true, .help = "Sampling temperature; -1: the provider's default."},
    {"max_tokens", &config_kind_int, ROLE(max_tokens), .fallback = "0", .min = 0, .max = 1e9,
     .quiet = true, .help = "Longest answer in tokens; 0: the provider's default."},
    {"spill_ms", &config_kind_int, ROLE(spill_ms), .fallback = "800", .min = 0, .max = DAY_MS,
     .help = "How long a subtask waits for a busy preferred model before the next in the list may "
             "take it, ms."},
    {"tags", &config_kind_texts, LIST(config_role, tags),
     .help = "Only models that have all of these tags, such as `private`."},
    {"seed", &config_kind_int, ROLE(seed), .fallback = "-1", .min = -1, .max = MANY, .quiet = true,
     .help = "Seed of sampling, where the provider takes one; -1: none."},
    {"stop", &config_kind_texts, LIST(config_role, stop),
     .help = "Strings that end the answer, at most 4."},
    {"effort", &config_kind_choice, ROLE(effort), .choices = effort_choices,
     .help = "Effort of reasoning, for models that think; by default the model's."},
    {"cache", &config_kind_choice, ROLE(cache), .choices = cache_choices, .fallback = "auto",
     .quiet = true,
     .help = "Response cache: `auto` where `temperature` is 0, `on` always, `off` never."},
    {"hedge", &config_kind_choice, ROLE(hedge), .choices = hedge_choices, .fallback = "off",
     .quiet = true,
     .help = "`auto`: once an attempt takes longer than its arm's 95th percentile, a second one "
             "begins on the next arm; the first answer counts, and both cost."},
    {"budget.task_usd", &config_kind_num, ROLE(budget.task_usd), .fallback = "0", .min = 0,
     .max = MONEY, .quiet = true, .help = "Most that its subtasks may cost in one task, USD."},
    {"budget.task_tokens", &config_kind_int, ROLE(budget.task_tokens), .fallback = "0", .min = 0,
     .max = MANY, .quiet = true, .help = "Most tokens of its subtasks in one task."},
    {"budget.day_usd", &config_kind_num, ROLE(budget.day_usd), .fallback = "0", .min = 0,
     .max = MONEY, .quiet = true, .help = "Most that its subtasks may cost in a day (UTC), USD."},
    {"budget.day_tokens", &config_kind_int, ROLE(budget.day_tokens), .fallback = "0", .min = 0,
     .max = MANY, .quiet = true, .help = "Most tokens of its subtasks in a day (UTC)."},
};

#define SECTION(name, member, table)                                                               \
    .key = #member, .what = name, LIST(config, member), .fields = table, .n_fields = COUNT(table)
const struct config_section config_sections[] = {
    {SECTION("provider", providers, provider_fields), .size = sizeof(struct config_provider),
     .help = "Who answers: a vendor's service or a local runtime."},
    {SECTION("model", models, model_fields), .size = sizeof(struct config_model), .extra = ":/+",
     .help = "Models by alias."},
    {SECTION("worker", workers, worker_fields), .size = sizeof(struct config_worker), .list = true,
     .help = "Processes that call providers; the local stack starts them all."},
    {SECTION("role", roles, role_fields), .size = sizeof(struct config_role),
     .help = "Who does a subtask, and how. A role of the same name as a built-in one changes only "
             "what it sets."},
};
const size_t config_n_sections = COUNT(config_sections);

void *config_items(const struct config *config, const struct config_section *section, size_t *ret)
{
    const char *base = (const char *)config;
    memcpy(ret, base + section->count_offset, sizeof *ret);
    void *items;
    memcpy(&items, base + section->offset, sizeof items);
    return items;
}
