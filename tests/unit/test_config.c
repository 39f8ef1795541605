/* The configuration: what is read, refused, filled in, printed and found. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/clock.h"
#include "common/config.h"
#include "common/detect.h"
#include "schemas/buf.h"
#include "schemas/mem.h"
#include "tests/lib/fixture.h"
#include "workers/provider.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

static struct fixture fixture;

static struct config *parse(const char *text)
{
    struct config *config = NULL;
    struct err err = {""};
    if (config_parse(&config, "t", text, strlen(text), &err) != 0)
        fail_msg("%s", err.text);
    return config;
}

static char *print(const struct config *config)
{
    struct buf out = {0};
    config_print(config, &out);
    return buf_take(&out, NULL);
}

/* Every section, as the documentation shows it. */
static const char whole[] =
    "redis: redis://user:p%40ss@db.example:6380/3\n"
    "bus: {brokers: [local, 'tcp://10.0.0.5:5570'], curve: {enabled: false, keys: /etc/keys}}\n"
    "store: /path/profile.db\n"
    "queue: {lease_ms: 3000, renew_ms: 900, abandon_ms: 2000, max_attempts: 2, retain_s: 10}\n"
    "providers:\n"
    "  claude: {api: anthropic, key: env:ANTHROPIC_API_KEY, limits: {requests_per_minute: 50, "
    "tokens_per_minute: 40000}}\n"
    "  gemini: {api: gemini, key: [env:GEMINI_KEY_1, file:/etc/gemini]}\n"
    "  ollama: {api: ollama, base_url: 'http://127.0.0.1:11434/api/'}\n"
    "  studio: {api: lmstudio, base_url: 'http://127.0.0.1:1234/v1', timeouts: {gap_ms: 5}, "
    "stream: false}\n"
    "models:\n"
    "  qwen-coder: {provider: ollama, name: 'qwen2.5-coder:7b', context: 32768, local: true}\n"
    "  sonnet: {provider: claude, name: claude-sonnet-4-5, price: {input: 3.00, output: 15.00}, "
    "refuses: [temperature], max_output: 64000}\n"
    "  flash: {provider: gemini}\n"
    "workers:\n"
    "  - {name: ollama-0, provider: ollama, concurrency: 2, gpu: 0}\n"
    "  - {name: claude, provider: claude, models: [sonnet], concurrency: 64}\n"
    "  - {name: g, provider: gemini, launch: [sh, -c, 'x y'], health: 'http://127.0.0.1:1/h'}\n"
    "roles:\n"
    "  planner: {models: [sonnet, qwen-coder], temperature: 0.2, max_tokens: 4096}\n"
    "  coder: {system: \"line one\\nline \\\"two\\\" \\u00e9 \\u2028\", spill_ms: 5}\n"
    "  poet: {models: [flash]}\n"
    "routing: {mode: offline}\n"
    "budget: {task_usd: 1.25}\n"
    "plan: {max_subtasks: 9}\n";

static void config_reads_every_section(void **state)
{
    (void)state;
    struct config *config = parse(whole);
    assert_string_equal(config->redis.host, "db.example");
    assert_string_equal(config->redis.user, "user");
    assert_string_equal(config->redis.password, "p@ss");
    assert_int_equal(config->redis.port, 6380);
    assert_int_equal(config->redis.database, 3);
    assert_false(config->redis_local);
    assert_int_equal(config->n_brokers, 2);
    assert_true(config->broker_local);
    assert_string_equal(config->taps[1], "tcp://10.0.0.5:5571");
    assert_int_equal(config->lease_ms, 3000);
    assert_true(config->offline);
    assert_true(config->budget.task_usd == 1.25);
    assert_int_equal(config->max_subtasks, 9);
    assert_string_equal(config_provider(config, "ollama")->base_url, "http://127.0.0.1:11434");
    assert_string_equal(config_provider(config, "studio")->base_url, "http://127.0.0.1:1234");
    assert_int_equal(config_provider(config, "studio")->gap_ms, 5);
    assert_false(config_provider(config, "studio")->stream);
    assert_int_equal(config_provider(config, "gemini")->n_keys, 2);
    assert_int_equal(config_provider(config, "claude")->requests_per_minute, 50);
    assert_int_equal(config_model(config, "sonnet")->max_output, 64000);
    assert_string_equal(config_model(config, "flash")->name, "flash");
    assert_string_equal(config_worker(config, "ollama-0")->gpu, "0");
    assert_string_equal(config_worker(config, "g")->launch[2], "x y");
    assert_int_equal(config_role(config, "coder")->spill_ms, 5);
    assert_string_equal(config_role(config, "coder")->system,
                        "line one\nline \"two\" \xc3\xa9 \xe2\x80\xa8");
    assert_string_equal(config_role(config, "poet")->system, "");
    config_free(&config);
}

static void config_fills_in_defaults(void **state)
{
    (void)state;
    struct config *config = parse("providers: {o: {api: ollama}, c: {api: anthropic}}\n"
                                  "models: {cloud: {provider: c}, mine: {provider: o}}\n"
                                  "roles: {coder: {temperature: 0.5}}\n");
    char path[256];
    snprintf(path, sizeof path, "%s/run/redis.sock", config->home);
    assert_true(config->redis_local);
    assert_string_equal(config->redis.socket, path);
    assert_string_equal(config->appendfsync, "always");
    snprintf(path, sizeof path, "ipc://%s/run/broker.sock", config->home);
    assert_string_equal(config->brokers[0], path);
    snprintf(path, sizeof path, "%s/profile.db", config->home);
    assert_string_equal(config->store, path);
    assert_int_equal(config->lease_ms, 15000);
    assert_int_equal(config->beat_ms, 1000);
    assert_int_equal(config->max_offers, 10000);
    assert_false(config->simulated);
    /* the usual environment variable, and what the api says of locality */
    assert_string_equal(config_provider(config, "c")->keys[0], "env:ANTHROPIC_API_KEY");
    assert_int_equal(config_provider(config, "o")->n_keys, 0);
    assert_true(config_model(config, "mine")->local);
    assert_false(config_model(config, "cloud")->local);
    /* built-in roles are there; one that is in the file keeps the built-in prompt */
    static const char *const roles[] = {"planner", "synthesizer", "general", "architect", "coder",
                                        "tester",  "reviewer",    "writer",  "researcher"};
    for (size_t i = 0; i < COUNT(roles); i++) {
        const struct config_role *role = config_role(config, roles[i]);
        assert_non_null(role);
        assert_true(strlen(role->system) > 100);
        assert_int_equal(role->n_models, 2);
        assert_string_equal(role->models[0], "mine"); /* local first */
        assert_int_equal(role->spill_ms, 800);
    }
    assert_true(config_role(config, "coder")->temperature == 0.5);
    assert_true(config_role(config, "writer")->temperature == -1);
    assert_non_null(strstr(config_role(config, "coder")->system, "path=relative/path"));
    config_free(&config);
}

static void config_print_reads_back_to_the_same(void **state)
{
    (void)state;
    static const char *const texts[] = {
        whole,
        "",
        "simulator: {port: 20001, scenario: s.yaml}",
        "redis: unix:///tmp/x y?db=4\nredis_appendfsync: 'no'",
        "redis: rediss://u:p@h:7/2",
        "redis: {url: 'rediss://u:p@h:7/2', ca: /ca, cert: /c, key: /k, replicas: 2}",
        "redis: {sentinels: ['h:1', '[::1]:2'], master: m, user: u, password: 'p \"q', database: "
        "3,\n"
        "  sentinel_password: s, replicas: 1, replicas_timeout_ms: 500}",
        "redis: {cluster: ['h:1'], tls: true, ca: /ca, password: x}"};
    for (size_t i = 0; i < COUNT(texts); i++) {
        struct config *first = parse(texts[i]);
        char *once = print(first);
        struct config *second = parse(once);
        char *twice = print(second);
        assert_string_equal(once, twice);
        assert_int_equal(first->n_roles, second->n_roles);
        assert_int_equal(first->simulated, second->simulated);
        for (size_t role = 0; role < first->n_roles; role++)
            assert_string_equal(first->roles[role].system, second->roles[role].system);
        assert_int_equal(first->redis.n_sentinels, second->redis.n_sentinels);
        assert_int_equal(first->redis.replicas, second->redis.replicas);
        assert_int_equal(first->redis.tls, second->redis.tls);
        assert_string_equal(first->redis.password != NULL ? first->redis.password : "",
                            second->redis.password != NULL ? second->redis.password : "");
        free(once);
        free(twice);
        config_free(&first);
        config_free(&second);
    }
}

static void bus_is_encrypted_where_it_is_reached_over_the_network(void **state)
{
    static const struct {
        const char *text;
        bool curve;
    } rows[] = {
        {"bus: {brokers: local}", false},
        {"bus: {brokers: 'tcp://127.0.0.2:5570'}", false},
        {"bus: {brokers: 'tcp://localhost:5570'}", false},
        {"bus: {brokers: 'tcp://[::1]:5570'}", false},
        {"bus: {brokers: 'tcp://127.0.0.1:5570', curve: {enabled: true}}", true},
        {"bus: {brokers: 'tcp://127.0.0.1.example:5570'}", true},
        {"bus: {brokers: [local, 'tcp://10.0.0.5:5570']}", true},
        {"bus: {brokers: 'tcp://h:5570', curve: {enabled: false}}", false},
        {"listen: 192.168.1.10", true},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct config *config = parse(rows[i].text);
        char *text = print(config);
        struct config *again = parse(text);
        if (config->curve != rows[i].curve || again->curve != rows[i].curve)
            fail_msg("%s: %d, read back %d", rows[i].text, config->curve, again->curve);
        assert_string_equal(again->brokers[0], config->brokers[0]);
        assert_int_equal(again->broker_local, config->broker_local);
        assert_non_null(config->curve_keys);
        free(text);
        config_free(&config);
        config_free(&again);
    }
}

static void open_bus_must_be_asked_for(void **state)
{
    struct config *open =
        parse("bus: {brokers: ['ipc:///tmp/b', 'tcp://h:1'], curve: {enabled: false}}");
    struct config *closed = parse("bus: {brokers: 'tcp://h:1'}");
    struct err err = {""};
    (void)state;
    assert_int_equal(config_check_exposure(open, false, &err), -EPERM);
    assert_non_null(strstr(err.text, "tcp://h:1 would be used without encryption"));
    assert_int_equal(config_check_exposure(open, true, &err), 0);
    assert_int_equal(config_check_exposure(closed, false, &err), 0);
    config_free(&open);
    config_free(&closed);
}

static void local_stack_that_listens_has_its_broker_there(void **state)
{
    struct config *config = parse("listen: '192.168.1.10:7000'"), *local = parse("");
    char *redis = config_listen_redis(config);
    struct err err = {""};
    (void)state;
    assert_string_equal(config->listen, "192.168.1.10:7000");
    assert_string_equal(config->brokers[0], "tcp://192.168.1.10:7000");
    assert_string_equal(config->taps[0], "tcp://192.168.1.10:7001");
    assert_string_equal(redis, "192.168.1.10:7002");
    assert_true(config->broker_local && config->redis_local);
    assert_int_equal(config_listen(local, "box", &err), 0);
    assert_string_equal(local->brokers[0], "tcp://box:5570");
    assert_true(local->curve);
    assert_int_equal(config_listen(local, "0.0.0.0", &err), -EINVAL);
    free(redis);
    config_free(&config);
    config_free(&local);
    config = parse("redis: redis://h");
    assert_int_equal(config_listen(config, "box", &err), -ENOTSUP);
    config_free(&config);
}

static char *share(const struct config *config, const struct config_share *share)
{
    struct buf out = {0};
    struct err err = {""};
    if (config_share(config, share, &out, &err) != 0)
        fail_msg("%s", err.text);
    return buf_take(&out, NULL);
}

static const char team[] = "redis: redis://:own@10.0.0.1:6379\n"
                           "bus: {brokers: 'tcp://10.0.0.1:5570', heartbeat_ms: 700}\n"
                           "store: /var/profile.db\n"
                           "budget: {day_usd: 3}\n"
                           "providers:\n"
                           "  claude: {api: anthropic, key: env:ANTHROPIC_API_KEY}\n"
                           "  web: {api: search, base: claude}\n"
                           "  other: {api: ollama}\n"
                           "models:\n"
                           "  sonnet: {provider: claude, name: claude-sonnet-4-5}\n"
                           "  found: {provider: web, name: claude-sonnet-4-5}\n"
                           "  qwen: {provider: other, name: q}\n"
                           "workers:\n"
                           "  - {name: a, provider: other}\n"
                           "  - {name: w, provider: web, concurrency: 9}\n"
                           "roles: {poet: {models: [qwen], system: rhyme}}\n";

static void shared_worker_has_what_it_needs_and_nothing_else(void **state)
{
    struct config *config = parse(team);
    const struct config_share what = {
        .what = CONFIG_SHARE_WORKER, .worker = "w", .user = "worker-w", .password = "secret"};
    char *text = share(config, &what);
    struct config *there = parse(text);
    (void)state;
    assert_int_equal(there->n_workers, 1);
    assert_int_equal(there->workers[0].concurrency, 9);
    assert_int_equal(there->n_providers, 2); /* and the one that it searches for */
    assert_non_null(config_provider(there, "claude"));
    assert_string_equal(config_provider(there, "claude")->keys[0], "env:ANTHROPIC_API_KEY");
    assert_int_equal(there->n_models, 1);
    assert_string_equal(there->redis.user, "worker-w");
    assert_string_equal(there->redis.password, "secret");
    assert_string_equal(there->redis.host, "10.0.0.1");
    assert_int_equal(there->beat_ms, 700);
    assert_true(there->budget.day_usd > 2);
    assert_true(there->curve);
    assert_null(strstr(text, "own@"));
    assert_null(strstr(text, "profile.db"));
    assert_null(strstr(text, "poet"));
    assert_null(strstr(text, "qwen"));
    free(text);
    config_free(&config);
    config_free(&there);
}

static void shared_worker_may_be_new_and_addresses_others(void **state)
{
    static const char *const brokers[] = {"tcp://box:1", "tcp://box:9"};
    struct config *config = parse(team);
    const struct config_share what = {.what = CONFIG_SHARE_WORKER,
                                      .worker = "new",
                                      .provider = "other",
                                      .concurrency = 3,
                                      .redis = "rediss://u:p@box:7",
                                      .redis_ca = "keys/ca.pem",
                                      .brokers = brokers,
                                      .n_brokers = 2};
    char *text = share(config, &what);
    struct config *there = parse(text);
    (void)state;
    assert_string_equal(there->workers[0].name, "new");
    assert_int_equal(there->workers[0].concurrency, 3);
    assert_int_equal(there->n_providers, 1);
    assert_int_equal(there->n_brokers, 2);
    assert_string_equal(there->taps[1], "tcp://box:10");
    assert_string_equal(there->redis.user, "u");
    assert_true(there->redis.tls);
    assert_non_null(strstr(there->redis.ca, "/keys/ca.pem"));
    free(text);
    config_free(&there);
    config_free(&config);
}

static void tap_is_told_of_brokers_only_and_daemon_of_all(void **state)
{
    struct config *config = parse(team);
    struct config_share what = {.what = CONFIG_SHARE_BUS};
    char *text = share(config, &what);
    (void)state;
    assert_string_equal(text, "bus:\n"
                              "  brokers: [\"tcp://10.0.0.1:5570\"]\n"
                              "  heartbeat_ms: 700\n"
                              "  curve:\n"
                              "    enabled: true\n"
                              "    keys: keys\n");
    free(text);
    what.what = CONFIG_SHARE_ALL;
    text = share(config, &what);
    struct config *there = parse(text);
    assert_int_equal(there->n_roles, config->n_roles);
    assert_int_equal(there->n_models, 3);
    assert_string_equal(config_role(there, "poet")->system, "rhyme");
    assert_string_equal(config_role(there, "planner")->system,
                        config_role(config, "planner")->system);
    assert_null(strstr(text, "You plan work")); /* every program has it */
    free(text);
    config_free(&there);
    config_free(&config);
}

static void config_for_people_hides_the_password(void **state)
{
    (void)state;
    struct config *config = parse(whole);
    struct buf out = {0};
    config_print_public(config, &out);
    assert_null(strstr(out.data, "p%40ss"));
    assert_non_null(strstr(out.data, "redis://user:***@db.example:6380/3"));
    buf_release(&out);
    config_free(&config);
}

#define PROVIDER "providers: {p: {api: ollama}}\n"
static const struct {
    const char *text;
    const char *sentence;
} bad[] = {
    {"buss: {}", "t:1:1: unknown key `buss`; did you mean `bus`?"},
    {"bus: {x: 1}", "t:1:7: unknown key `x` in `bus`; there are brokers, heartbeat_ms, max_offers, "
                    "curve"},
    {"- a", "t:1:1: a configuration must be a map of `key: value`"},
    {"bus: {heartbeat: 5}",
     "t:1:7: unknown key `heartbeat` in `bus`; did you mean `heartbeat_ms`?"},
    {"bus: 5", "t:1:6: `bus` must be a map of `key: value`"},
    {"bus: {heartbeat_ms: 5}",
     "t:1:21: `bus.heartbeat_ms` must be a whole number from 10 to 60000"},
    {"bus: {heartbeat_ms: '50'}",
     "t:1:21: `bus.heartbeat_ms` must be a whole number from 10 to 60000"},
    {"bus: {brokers: []}", "t:1:16: `bus.brokers` must name at least one broker"},
    {"bus: {brokers: [local, local]}", "t:1:24: `bus.brokers`: `local` is there twice"},
    {"bus: {brokers: 'tcp://h:65535'}",
     "t:1:16: `bus.brokers`: `tcp://h:65535` is not usable: the port must be a number from 1 to "
     "65534; taps use the next one"},
    {"bus: {brokers: 'udp://h:1'}",
     "t:1:16: `bus.brokers`: `udp://h:1` is not usable: it must be `local`, tcp://host:port or "
     "ipc:///path"},
    {"bus: {curve: {enabled: 1}}", "t:1:24: `bus.curve.enabled` must be true or false"},
    {"listen: 0.0.0.0",
     "t:1:9: `listen` is not usable: it must be the address or name under which other machines "
     "reach this one, such as 192.168.1.10"},
    {"listen: 'h:65534'",
     "t:1:9: `listen` is not usable: the port must be a number from 1 to 65533; the two behind it "
     "are used too; an IPv6 address stands in [ ]"},
    {"{listen: h, redis: 'redis://h'}",
     "t:1:10: `listen` is for the local stack: it needs `redis: local` and a broker `local`"},
    {"redis: {sentinels: ['h:1']}",
     "t:1:20: `sentinels` need `master`: the name of the master that they watch"},
    {"redis: {sentinels: ['h:1', h], master: m}",
     "t:1:28: `h` is no address: it must be host:port; it has no port"},
    {"redis: {cluster: ['h:x']}",
     "t:1:19: `h:x` is no address: it must be host:port; the port must "
     "be a number from 1 to 65535"},
    {"redis: {cluster: ['h:1'], url: 'redis://h'}",
     "t:1:8: `redis` needs one of `url`, `sentinels` and `cluster`"},
    {"redis: {}", "t:1:8: `redis` needs one of `url`, `sentinels` and `cluster`"},
    {"redis: {cluster: ['h:1'], database: 2}", "t:1:37: a Redis Cluster has no databases but 0"},
    {"redis: {cluster: ['h:1'], master: m}", "t:1:35: `master` is only for `sentinels`"},
    {"redis: {url: 'redis://h', ca: /ca}",
     "t:1:8: `ca`, `cert` and `key` are for TLS: use `rediss://`, or set `tls: true`"},
    {"redis: {url: 'redis://u:p@h', password: q}",
     "t:1:41: `redis` has two passwords: this one, and one in the URL"},
    {"redis: {url: 'unix:///x', tls: true}", "t:1:32: a unix socket needs no TLS: leave `tls` out"},
    {"redis: {url: 'redis://h', replicas: 99}",
     "t:1:37: `replicas` must be a whole number from 0 to 16"},
    {"redis: {sentinals: ['h:1']}",
     "t:1:9: unknown key `sentinals` of a `redis` map; did you mean `sentinels`?"},
    {"{redis: {cluster: ['h:1']}, budget: {day_usd: 1}}",
     "t:1:9: budgets of a day (`budget.day_usd`, `budget.day_tokens`) do not work with `redis: "
     "{cluster: ...}`: a day's account and the tasks are on several servers; use budgets of a "
     "task, or Redis with sentinels"},
    {"redis: redis://h:0", "t:1:8: `redis` is not usable: the port must be a number from 1 to "
                           "65535"},
    {"redis: redis://h/x", "t:1:8: `redis` is not usable: what follows the / must be the number of "
                           "a database"},
    {"redis: 'redis://:%zz@h'",
     "t:1:8: `redis` is not usable: user or password have a wrong %-escape"},
    {"redis: unix:relative", "t:1:8: `redis` is not usable: it must be `local`, "
                             "redis://[[user]:password@]host[:port][/db], rediss://... "
                             "or unix:///path"},
    {"redis_appendfsync: allways", "t:1:20: `redis_appendfsync` must be always, everysec or no, "
                                   "not `allways`; did you mean `always`?"},
    {"queue: {lease_ms: 5000, renew_ms: 5000, abandon_ms: 60}",
     "t:1:35: `queue.renew_ms` must be less than `queue.lease_ms`, which is 5000"},
    {"queue: {abandon_ms: 60000}",
     "t:1:21: `queue.abandon_ms` must be less than `queue.lease_ms`, which is 15000"},
    {"providers: []", "t:1:12: `providers` must be a map: `name: {...}` for each"},
    {"providers: {p: {}}", "t:1:16: a provider needs `api`"},
    {"providers: {p: 5}", "t:1:16: a provider must be a map of `key: value`"},
    {"providers: {p: {api: olama}}",
     "t:1:22: `api` must be anthropic, openai, gemini, huggingface, ollama, lmstudio, llamacpp, "
     "vllm, tgi, openai-compatible, search, plugin or noop, not `olama`; did you mean `ollama`?"},
    {"providers: {p: {api: tgi}}", "t:1:16: a provider with `api: tgi` needs `base_url`"},
    {"providers: {'p p': {api: ollama}}",
     "t:1:13: `p p` is no name for a provider: 1 to 64 letters, digits and . _ -, beginning with a "
     "letter, digit or _"},
    {"providers: {p: {api: openai, key: sk-123}}",
     "t:1:35: `key` must say where the key is, not what it is: env:NAME, file:PATH, cmd:COMMAND or "
     "none"},
    {"providers: {p: {api: openai, key: [env:A, 'env:']}}",
     "t:1:43: `key` must say where the key is, not what it is: env:NAME, file:PATH, cmd:COMMAND or "
     "none"},
    {"providers: {p: {api: openai, base_url: 'ftp://h'}}",
     "t:1:40: `base_url` is not a usable URL: it must start with http:// or https://"},
    {"providers: {p: {api: openai, base_url: 'https://k@h'}}",
     "t:1:40: `base_url` is not a usable URL: a user or a key does not belong in it: use `key`"},
    {"providers: {p: {api: openai, base_url: 'https:///v1'}}",
     "t:1:40: `base_url` is not a usable URL: it has no host"},
    {"providers: {p: {api: openai, timeouts: {gap: 1}}}",
     "t:1:41: unknown key `gap` in `timeouts`; did you mean `gap_ms`?"},
    {"providers: {p: {api: ollama}, p: {api: ollama}}",
     "t:1:31: duplicate key `p`: it is in line 1 already"},
    {"models: {m: {provider: p}}", "t:1:24: there is no provider `p` under `providers`"},
    {PROVIDER "models: {m: {provider: q}}",
     "t:2:24: there is no provider `q` under `providers`; did you mean `p`?"},
    {PROVIDER "models: {m: {provider: p, contxt: 1}}",
     "t:2:27: unknown key `contxt` of a model; did you mean `context`?"},
    {PROVIDER "models: {m@x: {provider: p}}",
     "t:2:10: `m@x` is no name for a model: 1 to 64 letters, digits and . _ - :/+, beginning with "
     "a letter, digit or _"},
    {PROVIDER "workers: {w: {}}", "t:2:10: `workers` must be a list: `- {name: ...}` for each"},
    {PROVIDER "workers:\n  - {provider: p}", "t:3:5: a worker needs `name`"},
    {PROVIDER "workers:\n  - {name: w, provider: p}\n  - {name: w, provider: p}",
     "t:4:12: there is a worker `w` already"},
    {PROVIDER "workers:\n  - {name: w, provider: p, models: [m]}",
     "t:3:37: there is no model `m` under `models`"},
    {PROVIDER "workers:\n  - {name: w, provider: p, concurrency: 0}",
     "t:3:41: `concurrency` must be a whole number from 1 to 100000"},
    {"providers: {p: {api: ollama}, q: {api: vllm}}\nmodels: {m: {provider: p}}\n"
     "workers: [{name: w, provider: q, models: [m]}]",
     "t:3:43: model `m` belongs to provider `p`, not to `q`"},
    {PROVIDER "workers: [{name: w, provider: p, launch: [x], health: nope}]",
     "t:2:55: `health` is not a usable URL: it must start with http:// or https://"},
    {"roles: {coder: {models: [sonet]}}", "t:1:26: there is no model `sonet` under `models`"},
    {"roles: {coder: {temperature: 3}}", "t:1:30: `temperature` must be a number from -1 to 2"},
    {"routing: {mode: onlin}", "t:1:17: `routing.mode` must be online or offline, not `onlin`; did "
                               "you mean `online`?"},
    {"store: ''", "t:1:8: `store` must not be empty"},
    {"simulator: {port: 70000}", "t:1:19: `simulator.port` must be a whole number from 0 to 65535"},
};

static void config_errors_say_where_and_what(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(bad); i++) {
        struct config *config = NULL;
        struct err err = {""};
        assert_int_equal(config_parse(&config, "t", bad[i].text, strlen(bad[i].text), &err),
                         -EINVAL);
        assert_string_equal(err.text, bad[i].sentence);
        assert_null(config);
    }
}

static void config_never_repeats_a_key_that_is_written_out(void **state)
{
    (void)state;
    struct config *config = NULL;
    struct err err = {""};
    static const char text[] = "providers: {p: {api: openai, key: sk-secret}}";
    assert_int_equal(config_parse(&config, "t", text, sizeof text - 1, &err), -EINVAL);
    assert_null(strstr(err.text, "sk-secret"));
}

struct seen {
    int errors, warnings;
    char last[1024];
};

static void count_problem(void *ctx, bool warning, const char *sentence)
{
    struct seen *seen = ctx;
    seen->errors += !warning;
    seen->warnings += warning;
    snprintf(seen->last, sizeof seen->last, "%s", sentence);
}

static void config_check_tells_every_problem(void **state)
{
    (void)state;
    struct config *config = NULL;
    struct err err = {""};
    struct seen seen = {0};
    const char *path = fixture_write(&fixture, "bad.yaml", "a: 1\nb: 2\nroles: {coder: {x: 1}}\n");
    assert_int_equal(config_check(&config, path, count_problem, &seen, &err), -EINVAL);
    assert_int_equal(seen.errors, 3);
    seen = (struct seen){0};
    path = fixture_write(&fixture, "warn.yaml",
                         "providers: {p: {api: ollama, limits: {tokens_per_minute: 5}}}\n"
                         "models: {m: {provider: p}, n: {provider: p}}\n"
                         "workers: [{name: w, provider: p, models: [m]}]\n");
    assert_int_equal(config_check(&config, path, count_problem, &seen, &err), 0);
    assert_int_equal(seen.errors, 0);
    assert_int_equal(seen.warnings, 1);
    assert_non_null(strstr(seen.last, "serves model `n`"));
    config_free(&config);
}

static void config_paths_are_relative_to_the_file(void **state)
{
    (void)state;
    char wanted[256];
    struct config *config = NULL;
    struct err err = {""};
    const char *path = fixture_write(&fixture, "sub/c.yaml",
                                     "store: my.db\nproviders: {p: {api: openai, key: "
                                     "'file:k'}}\nsimulator: {port: 1, scenario: s.yaml}\n");
    assert_int_equal(config_load(&config, path, &err), 0);
    snprintf(wanted, sizeof wanted, "%s/sub/my.db", fixture.dir);
    assert_string_equal(config->store, wanted);
    snprintf(wanted, sizeof wanted, "file:%s/sub/k", fixture.dir);
    assert_string_equal(config->providers[0].keys[0], wanted);
    snprintf(wanted, sizeof wanted, "%s/sub/s.yaml", fixture.dir);
    assert_string_equal(config->simulator_scenario, wanted);
    config_free(&config);
}

static void config_is_found_in_the_documented_order(void **state)
{
    (void)state;
    struct config *config = NULL;
    struct err err = {""};
    char xdg[128];
    snprintf(xdg, sizeof xdg, "%s/xdg", fixture.dir);
    setenv("XDG_CONFIG_HOME", xdg, 1);
    setenv("ORCHESTRATOR_DETECT", "simulator", 1);
    assert_int_equal(config_load(&config, NULL, &err), 0);
    assert_string_equal(config->path, CONFIG_BUILT_IN);
    config_free(&config);
    fixture_write(&fixture, "xdg/orchestrator/config.yaml", "plan: {max_subtasks: 1}");
    assert_int_equal(config_load(&config, NULL, &err), 0);
    assert_int_equal(config->max_subtasks, 1);
    config_free(&config);
    setenv("ORCHESTRATOR_CONFIG", fixture_write(&fixture, "env.yaml", "plan: {max_subtasks: 2}"),
           1);
    assert_int_equal(config_load(&config, NULL, &err), 0);
    assert_int_equal(config->max_subtasks, 2);
    config_free(&config);
    const char *path = fixture_write(&fixture, "arg.yaml", "plan: {max_subtasks: 3}");
    assert_int_equal(config_load(&config, path, &err), 0);
    assert_int_equal(config->max_subtasks, 3);
    config_free(&config);
    unsetenv("ORCHESTRATOR_CONFIG");
    assert_int_equal(config_load(&config, "/no/such/file", &err), -ENOENT);
    assert_string_equal(err.text, "cannot read the configuration /no/such/file: No such file or "
                                  "directory");
}

static void config_without_memory_says_so_and_leaks_nothing(void **state)
{
    (void)state;
    int rc = -ENOMEM;
    unsigned long k = 0;
    struct config *first = parse(whole); /* the registry is read once */
    config_free(&first);
    while (rc == -ENOMEM) {
        struct config *config = NULL;
        struct err err = {""};
        mem_fail_at(++k);
        rc = config_parse(&config, "t", whole, sizeof whole - 1, &err);
        mem_fail_at(0);
        if (rc == -ENOMEM)
            assert_string_equal(err.text, "t: out of memory");
        config_free(&config);
    }
    assert_int_equal(rc, 0);
    assert_true(k > 100);
}

/* --- detection ----------------------------------------------------------------------------- */

/* Answers every connection with the same bytes. */
struct server {
    int fd, port;
    const char *answer;
    pthread_t thread;
};

static void *serve(void *ctx)
{
    const struct server *server = ctx;
    for (;;) {
        char request[1024];
        int fd = accept(server->fd, NULL, NULL);
        if (fd < 0)
            return NULL;
        if (recv(fd, request, sizeof request, 0) > 0)
            send(fd, server->answer, strlen(server->answer), MSG_NOSIGNAL);
        close(fd);
    }
}

static void server_start(struct server *server, const char *port_env, const char *answer)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t len = sizeof address;
    char port[16];
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    server->answer = answer;
    server->fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(server->fd, (struct sockaddr *)&address, len), 0);
    assert_int_equal(listen(server->fd, 8), 0);
    assert_int_equal(getsockname(server->fd, (struct sockaddr *)&address, &len), 0);
    server->port = ntohs(address.sin_port);
    snprintf(port, sizeof port, "%d", server->port);
    setenv(port_env, port, 1);
    assert_int_equal(pthread_create(&server->thread, NULL, serve, server), 0);
}

static void server_stop(struct server *server)
{
    shutdown(server->fd, SHUT_RDWR);
    pthread_join(server->thread, NULL);
    close(server->fd);
}

static void nothing_around(void)
{
    static const char *const ports[] = {"ORCHESTRATOR_OLLAMA_PORT", "ORCHESTRATOR_LMSTUDIO_PORT",
                                        "ORCHESTRATOR_LLAMACPP_PORT", "ORCHESTRATOR_LLAMACPP2_PORT",
                                        "ORCHESTRATOR_VLLM_PORT"};
    static const char *const keys[] = {"ANTHROPIC_API_KEY", "OPENAI_API_KEY",
                                       "GEMINI_API_KEY",    "GOOGLE_API_KEY",
                                       "HF_TOKEN",          "ORCHESTRATOR_DETECT"};
    for (size_t i = 0; i < COUNT(ports); i++)
        setenv(ports[i], "0", 1);
    for (size_t i = 0; i < COUNT(keys); i++)
        unsetenv(keys[i]);
}

static struct config *detect(void)
{
    struct config *config = NULL;
    struct err err = {""};
    if (detect_config(&config, &err) != 0)
        fail_msg("%s", err.text);
    return config;
}

static void detection_of_nothing_is_the_simulator(void **state)
{
    (void)state;
    nothing_around();
    struct config *config = detect();
    assert_true(config->simulated);
    assert_true(config->simulator_port > 0);
    assert_int_equal(config->n_providers, 4);
    assert_int_equal(config->n_workers, 4);
    /* the roles together use several providers */
    assert_string_equal(config_role(config, "planner")->models[0], "sim-large");
    assert_string_equal(config_role(config, "coder")->models[0], "sim-local");
    assert_string_equal(config_role(config, "tester")->models[0], "sim-medium");
    assert_string_equal(config_role(config, "writer")->models[0], "sim-small");
    assert_true(config_model(config, "sim-local")->local);
    config_free(&config);
}

static void detection_of_vectors_alone_is_the_simulator(void **state)
{
    (void)state;
    struct server ollama;
    nothing_around();
    server_start(&ollama, "ORCHESTRATOR_OLLAMA_PORT",
                 "HTTP/1.0 200 OK\r\n\r\n{\"models\":[{\"name\":\"nomic-embed-text\"}]}");
    struct config *config = detect();
    assert_true(config->simulated);
    config_free(&config);
    server_stop(&ollama);
    nothing_around();
}

static void detection_refers_to_keys_only(void **state)
{
    (void)state;
    nothing_around();
    setenv("ANTHROPIC_API_KEY", "sk-ant-secret", 1);
    setenv("GOOGLE_API_KEY", "AIza-secret", 1);
    struct config *config = detect();
    char *text = print(config);
    assert_false(config->simulated);
    assert_null(strstr(text, "secret"));
    assert_string_equal(config_provider(config, "claude")->keys[0], "env:ANTHROPIC_API_KEY");
    assert_string_equal(config_provider(config, "gemini")->keys[0], "env:GOOGLE_API_KEY");
    assert_true(config_model(config, "claude-sonnet")->prices[0].output > 0);
    assert_string_equal(config_role(config, "planner")->models[0], "claude-sonnet");
    free(text);
    config_free(&config);
    nothing_around();
}

static void detection_learns_the_models_of_local_runtimes(void **state)
{
    (void)state;
    struct server ollama, llama;
    nothing_around();
    server_start(&ollama, "ORCHESTRATOR_OLLAMA_PORT",
                 "HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n"
                 "{\"models\":[{\"name\":\"nomic-embed-text\"},{\"name\":\"qwen2.5-coder:7b\"},"
                 "{\"name\":\"bad name\"},{\"x\":1},{\"name\":5}]}");
    server_start(&llama, "ORCHESTRATOR_LLAMACPP_PORT",
                 "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3c\r\n"
                 "{\"data\":[{\"id\":\"qwen2.5-coder:7b\"},{\"id\":\"/m/My Model.gguf\"},"
                 "{\"id\":\"/m/x.gguf\"}]}\r\n0\r\n\r\n");
    setenv("OPENAI_API_KEY", "x", 1);
    struct config *config = detect();
    char url[64];
    snprintf(url, sizeof url, "http://127.0.0.1:%d", ollama.port);
    assert_string_equal(config_provider(config, "ollama")->base_url, url);
    assert_string_equal(config_model(config, "qwen2.5-coder:7b")->provider, "ollama");
    assert_string_equal(config_model(config, "qwen2.5-coder:7b-2")->provider, "llama");
    assert_string_equal(config_model(config, "m/x.gguf")->name, "/m/x.gguf");
    assert_int_equal(config->n_models, 6); /* the four, and two of OpenAI */
    /* a model that makes vectors is there, but answers no prompts */
    assert_string_equal(config_model(config, "nomic-embed-text")->capabilities[0], "embeddings");
    for (size_t i = 0; i < config->n_roles; i++)
        for (size_t m = 0; m < config->roles[i].n_models; m++)
            assert_string_not_equal(config->roles[i].models[m], "nomic-embed-text");
    assert_string_equal(config_role(config, "coder")->models[0], "qwen2.5-coder:7b");
    assert_string_equal(config_role(config, "planner")->models[0], "gpt-sol");
    config_free(&config);
    server_stop(&ollama);
    server_stop(&llama);
    nothing_around();
}

static void detection_takes_no_other_server_for_a_runtime(void **state)
{
    static const char *const answers[] = {
        "",
        "\n",
        "HTTP/1.0 200 OK\r\n\r\n<html>{}</html>",
        "HTTP/1.0 404 No\r\n\r\n{\"data\":[]}",
        "HTTP/1.0 200 OK\r\n\r\n{\"data\":{\"id\":\"x\"}}",
        "HTTP/1.0 200 OK\r\n\r\n}{",
        "SSH-2.0-OpenSSH_9.2\r\n\r\n{\"data\":[{\"id\":\"x\"}]}",
        "HTTP/1.0 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n{\"data\":[",
    };
    (void)state;
    for (size_t i = 0; i < COUNT(answers); i++) {
        struct server server;
        nothing_around();
        server_start(&server, "ORCHESTRATOR_VLLM_PORT", answers[i]);
        struct config *config = detect();
        assert_true(config->simulated);
        config_free(&config);
        server_stop(&server);
    }
    nothing_around();
}

static void detection_does_not_wait_for_the_silent(void **state)
{
    (void)state;
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t len = sizeof address;
    char port[16];
    nothing_around();
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, len), 0);
    assert_int_equal(listen(fd, 8), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &len), 0);
    snprintf(port, sizeof port, "%d", ntohs(address.sin_port));
    setenv("ORCHESTRATOR_OLLAMA_PORT", port, 1);
    size_t count;
    struct detect_runtime runtime = detect_runtimes(&count)[0];
    int64_t started_ms = clock_ms();
    detect_probe(&runtime, 1, DETECT_BUDGET_MS);
    int64_t took_ms = clock_ms() - started_ms;
    assert_false(runtime.found);
    assert_true(took_ms >= DETECT_BUDGET_MS - 1);
    assert_true(took_ms < DETECT_BUDGET_MS + 2000); /* a slow machine is no failure */
    close(fd);
    nothing_around();
}

static int set_up(void **state)
{
    (void)state;
    fixture_init(&fixture);
    nothing_around();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    fixture_release(&fixture);
    return 0;
}

static void the_example_is_valid(void **state)
{
    (void)state;
    struct config *config = NULL;
    struct err err = {""};
    struct seen seen = {0};
    char path[512];
    snprintf(path, sizeof path, "%s/docs/examples/config.yaml", getenv("ORCH_SOURCE"));
    assert_int_equal(config_check(&config, path, count_problem, &seen, &err), 0);
    assert_int_equal(seen.errors + seen.warnings, 0);
    config_free(&config);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_example_is_valid),
        cmocka_unit_test(config_reads_every_section),
        cmocka_unit_test(config_fills_in_defaults),
        cmocka_unit_test(config_print_reads_back_to_the_same),
        cmocka_unit_test(bus_is_encrypted_where_it_is_reached_over_the_network),
        cmocka_unit_test(open_bus_must_be_asked_for),
        cmocka_unit_test(local_stack_that_listens_has_its_broker_there),
        cmocka_unit_test(shared_worker_has_what_it_needs_and_nothing_else),
        cmocka_unit_test(shared_worker_may_be_new_and_addresses_others),
        cmocka_unit_test(tap_is_told_of_brokers_only_and_daemon_of_all),
        cmocka_unit_test(config_for_people_hides_the_password),
        cmocka_unit_test(config_errors_say_where_and_what),
        cmocka_unit_test(config_never_repeats_a_key_that_is_written_out),
        cmocka_unit_test(config_check_tells_every_problem),
        cmocka_unit_test(config_paths_are_relative_to_the_file),
        cmocka_unit_test(config_is_found_in_the_documented_order),
        cmocka_unit_test(config_without_memory_says_so_and_leaks_nothing),
        cmocka_unit_test(detection_of_nothing_is_the_simulator),
        cmocka_unit_test(detection_of_vectors_alone_is_the_simulator),
        cmocka_unit_test(detection_refers_to_keys_only),
        cmocka_unit_test(detection_learns_the_models_of_local_runtimes),
        cmocka_unit_test(detection_takes_no_other_server_for_a_runtime),
        cmocka_unit_test(detection_does_not_wait_for_the_silent),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
