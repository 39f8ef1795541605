/* The one configuration file: read, checked, with every default filled in.
 *
 * The tables in config_tables.c are the reference: docs/configuration.md is made from them. */
#ifndef COMMON_CONFIG_H
#define COMMON_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "common/redis.h"
#include "schemas/buf.h"

/* A secret is never stored here, only where it is: "env:NAME", "file:PATH", "cmd:COMMAND". A key
 * written out in the file is an error that says to use one of these. */
struct config_provider {
    char *name;
    char *api;      /* a name of the provider table of the workers, such as "anthropic" */
    char *base_url; /* NULL: the api's default. Without trailing slash, /v1, /v1beta or /api */
    char **keys;    /* where the keys are; a list is a pool */
    size_t n_keys;
    int64_t connect_ms; /* timeouts of one call, in ms; 0: none */
    int64_t first_token_ms;
    int64_t gap_ms;
    int64_t total_ms;
    int64_t requests_per_minute; /* of all workers on all machines together; 0: no limit */
    int64_t tokens_per_minute;
    int64_t concurrency;             /* calls at once */
    int64_t key_requests_per_minute; /* the same for each key of the pool */
    int64_t key_tokens_per_minute;
    int64_t key_concurrency;
    int64_t breaker_failures; /* so many in a row open an arm's circuit breaker; 0: never */
    int64_t breaker_open_ms;  /* until a probe is let through */
    bool stream;              /* ask for streams; default true */
    char **headers;           /* further request headers, "Name: value" */
    size_t n_headers;
    char *plugin; /* api: plugin: the shared object; NULL: none */
    /* search only */
    char *base; /* provider that answers */
    char *engine;
    char *engine_url; /* NULL: the engine's own */
    char **engine_keys;
    size_t n_engine_keys;
    char *engine_cx; /* Google: id of the search engine; NULL: none */
    char *search;    /* auto, always, never */
    int64_t max_results;
};

/* Prices in USD per million tokens; -1: not set. Of several the last one counts whose `from` has
 * come and whose `above_tokens` the prompt exceeds. */
struct config_price {
    char *from; /* "2026-12-01", UTC; NULL: always */
    int64_t
        above_tokens; /* only for prompts of more tokens, and then for all of the call; 0: all */
    double input, output;
    double cached;      /* prompt tokens that the provider had cached; -1: as input */
    double cache_write; /* prompt tokens written to its cache; -1: as input */
};

/* What the file does not set comes from the shipped registry, where that knows the name
 * (model_registry.h): context, max_output, prices (of remote models), capabilities, refuses,
 * endpoint. */
struct config_model {
    char *alias;    /* key under models: */
    char *provider; /* name of a provider */
    char *name;     /* the provider's name of the model */
    char **served;  /* further names under which the provider may answer */
    size_t n_served;
    int64_t context;    /* tokens; 0: unknown */
    int64_t max_output; /* tokens; 0: unknown */
    bool local;
    struct config_price *prices; /* in order; n_prices 0: free or unknown */
    size_t n_prices;
    char **capabilities; /* CONFIG_CAPABILITIES that it has; n 0: not known, all are tried */
    size_t n_capabilities;
    char **refuses; /* CONFIG_PARAMETERS that are never sent to it */
    size_t n_refuses;
    char **tags; /* such as private; roles may ask for them */
    size_t n_tags;
    char *endpoint;   /* auto, chat, responses: which of OpenAI's APIs */
    char *effort;     /* of reasoning, when the role says nothing; NULL: the provider's default */
    char *keep_alive; /* how long a local runtime keeps it loaded, "10m"; NULL: its default */
    bool strict;      /* another served model is an error, not only a mark */
};
#define CONFIG_EFFORTS "none", "minimal", "low", "medium", "high"
#define CONFIG_CAPABILITIES "json_schema", "tools", "images", "embeddings", "thinking"
#define CONFIG_PARAMETERS                                                                          \
    "temperature", "seed", "stop", "effort", "max_tokens", "json_schema", "system", "stream_options"

struct config_worker {
    char *name;
    char *provider;
    int64_t concurrency;
    char *gpu;     /* index or UUID; NULL: none */
    char **models; /* aliases it serves; n_models 0: all of its provider */
    size_t n_models;
    char **launch; /* command line of a runtime to start and own; n_launch 0: none */
    size_t n_launch;
    char *health;          /* URL that answers 2xx once the runtime is usable; NULL: none */
    bool share;            /* another worker may have the same GPU */
    int64_t start_ms;      /* most time until the runtime is healthy */
    int64_t hang_ms;       /* most time that it may be silent then */
    int64_t memory_max_mb; /* of the runtime, before it is started again; 0: no limit */
};

struct config_budget { /* 0: no limit */
    double task_usd;
    int64_t task_tokens;
    double day_usd; /* by Redis's clock, UTC */
    int64_t day_tokens;
};

struct config_role {
    char *name;
    char **models; /* aliases in order of preference */
    size_t n_models;
    char *system;       /* system prompt; never NULL */
    double temperature; /* -1: leave it to the provider */
    int64_t max_tokens; /* 0: the provider's default */
    int64_t
        spill_ms; /* how long a preferred local arm may keep a subtask waiting before the next */
    char **tags;  /* only models that have all of these */
    size_t n_tags;
    int64_t seed; /* -1: none */
    char **stop;
    size_t n_stop;
    char *effort; /* of reasoning: none, minimal, low, medium, high; NULL: the model's */
    char *cache;  /* auto, on, off: the response cache */
    char *hedge;  /* off, auto: a second attempt once an arm takes longer than its p95 */
    struct config_budget budget; /* of this role alone */
};

struct config {
    char *path;     /* file it came from; "built-in" when detected */
    char *home;     /* see paths.h */
    bool simulated; /* nothing real was found: the simulator answers, and every output says so */
    struct redis_options redis;
    bool redis_local;  /* `redis: local`: our own redis-server below home */
    char *appendfsync; /* of the local redis: always (default), everysec, no */
    char **brokers;    /* endpoints of ROUTERs, ipc://... or tcp://... */
    char **taps;       /* endpoints of their XPUBs: tcp port + 1 */
    size_t n_brokers;
    bool broker_local;                      /* brokers holds `local`: the stack starts it */
    int64_t beat_ms;                        /* heartbeat interval; three missed = gone */
    int64_t max_offers;                     /* most offers a broker holds */
    char *store;                            /* SQLite file */
    int64_t lease_ms, renew_ms, abandon_ms; /* see "The bus" in docs/architecture.md */
    int64_t max_attempts;
    int64_t retain_s; /* how long finished tasks stay in Redis before they are archived */
    bool offline;     /* routing.mode: offline: local arms only */
    struct config_budget budget;
    bool cache;               /* false: the response cache is off for everything */
    int64_t cache_ttl_s;      /* how long an answer is kept */
    int64_t cache_max_bytes;  /* of all answers together */
    int64_t max_subtasks;     /* most subtasks a plan may have */
    int64_t simulator_port;   /* of orchestrator-sim, started by the stack; 0: none */
    char *simulator_scenario; /* YAML file; NULL: the built-in replies */
    bool curve;       /* the bus is encrypted; by default where a broker is beyond the loopback */
    char *curve_keys; /* directory of keys (keyring.h), absolute; never NULL */
    char *listen; /* HOST:PORT on which the local stack is reached from outside; NULL: it isn't */
    struct config_provider *providers;
    size_t n_providers;
    struct config_model *models;
    size_t n_models;
    struct config_worker *workers;
    size_t n_workers;
    struct config_role *roles; /* planner, synthesizer and the built-in roles are always there */
    size_t n_roles;
};

/* Finds the file (explicit path or NULL, ORCHESTRATOR_CONFIG, $XDG_CONFIG_HOME/orchestrator/
 * config.yaml, the running local stack's, else detection) and reads it. On failure the sentence has
 * file:line:column and the nearest valid key. 0, -ENOENT, -EINVAL, -ENOMEM. */
int config_load(struct config **ret, const char *path, struct err *err);
/* The file that config_load() would read; NULL: none, it would look around. The caller frees. */
char *config_where(const char *path);
/* From text, for tests; name appears in errors. No detection. */
int config_parse(struct config **ret, const char *name, const char *text, size_t len,
                 struct err *err);
void config_free(struct config **config); /* accepts NULL */

/* One sentence about the file; a warning does not make it unusable. */
typedef void config_problem_fn(void *ctx, bool warning, const char *sentence);
/* Like config_load(), but tells every problem and every warning, not only the first error. */
int config_check(struct config **ret, const char *path, config_problem_fn *fn, void *ctx,
                 struct err *err);
/* The configuration in effect as YAML that config_parse() reads back to the same. */
void config_print(const struct config *config, struct buf *out);
/* The same for people: without the password of Redis. Not for config_parse(). */
void config_print_public(const struct config *config, struct buf *out);
/* docs/configuration.md, from the tables. */
void config_reference(struct buf *out);

/* --- what others can reach --------------------------------------------------------------- */

/* Of the local stack's broker; its taps and Redis are on the next two. */
#define CONFIG_LISTEN_PORT 5570
/* Beside the keys of the bus: the password of the local redis-server that listens. */
#define CONFIG_REDIS_PASSWORD "redis.password"

/* Whether only this machine is reached under that host. */
bool config_loopback(const char *host);
/* Whether the endpoint is TCP beyond the loopback. */
bool config_exposed(const char *endpoint);
/* -EPERM with a sentence when the bus would be used in the open and `insecure` was not said. */
int config_check_exposure(const struct config *config, bool insecure, struct err *err);
/* Makes the local stack listen on HOST[:PORT], as `listen` does. 0; -EINVAL, -ENOTSUP (no local
 * stack), -ENOMEM. */
int config_listen(struct config *config, const char *address, struct err *err);
/* "HOST:PORT" of the local stack's Redis where it listens; the caller frees. NULL without memory.
 */
char *config_listen_redis(const struct config *config);

/* What another machine needs of the configuration. */
struct config_share {
    enum config_shared {
        CONFIG_SHARE_BUS,    /* where brokers are: enough for a tap */
        CONFIG_SHARE_WORKER, /* and Redis, one worker, its provider and its models */
        CONFIG_SHARE_ALL,    /* and all the rest: a daemon, and tools */
    } what;
    const char *worker;          /* its name */
    const char *provider;        /* of a worker that is not under `workers`; else NULL */
    int64_t concurrency;         /* of the worker; 0: what is configured */
    const char *redis;           /* URL there; NULL: as here */
    const char *user, *password; /* of Redis there; NULL: as in the URL */
    const char *redis_ca;        /* file there, with who signs Redis' certificate; NULL: as usual */
    const char *const *brokers;  /* endpoints there; n_brokers 0: as here */
    size_t n_brokers;
};
/* Appends it as YAML, without what is as by default. Keys of brokers are in `keys` beside the file
 * there. 0; -EINVAL (no such worker or provider, an address that is none) with a sentence,
 * -ENOMEM. */
int config_share(const struct config *config, const struct config_share *share, struct buf *out,
                 struct err *err);

#define CONFIG_DEFAULT_ROLE "general"
#define CONFIG_BUILT_IN "built-in" /* config->path when no file was found */

/* What is known of an api without the workers: enough to check a config and to look around. */
struct config_api {
    const char *name;
    const char *title;
    const char *base_url; /* default; NULL: base_url must be configured */
    const char *key_env;  /* where the key is when the config does not say; NULL: no key needed */
    bool local;           /* its models run on the team's own hardware */
    bool wraps;           /* speaks through another provider or a plug-in: no provider of its own */
};
const struct config_api *config_api(const char *name); /* NULL: unknown */
const struct config_api *config_apis(size_t *ret_count);

/* All NULL when there is none of that name. */
const struct config_provider *config_provider(const struct config *config, const char *name);
const struct config_model *config_model(const struct config *config, const char *alias);
const struct config_worker *config_worker(const struct config *config, const char *name);
const struct config_role *config_role(const struct config *config, const char *name);

#endif
