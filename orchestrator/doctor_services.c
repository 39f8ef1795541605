/* Checks of what answers: keys, providers, local runtimes, Redis, the running stack, workers. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/detect.h"
#include "common/json.h"
#include "common/loop.h"
#include "common/redis.h"
#include "orchestrator/doctor.h"
#include "orchestrator/reach.h"
#include "orchestrator/roster.h"
#include "orchestrator/stack.h"
#include "schemas/mem.h"

#define REACH_MS 3000
#define BUS_MS 500
#define REDIS_MS 2000

static void check_keys(struct doctor *doctor, const struct config *config)
{
    for (size_t i = 0; i < config->n_providers; i++) {
        const struct config_provider *provider = &config->providers[i];
        char name[80], detail[256], cure[512];
        const char *state = doctor_key_state(provider);
        if (provider->n_keys == 0)
            continue;
        bool missing = strcmp(state, "missing") == 0;
        snprintf(name, sizeof name, "key %.56s", provider->name);
        snprintf(detail, sizeof detail, "%.200s: %s", provider->keys[0], state);
        snprintf(
            cure, sizeof cure, "%s the key of `%s`, or remove the provider from the configuration",
            strncmp(provider->keys[0], "env:", 4) == 0 ? "export" : "put there", provider->name);
        doctor_add(doctor, missing ? DOCTOR_BAD : DOCTOR_OK, name, detail, cure);
    }
}

static const char *base_url(const struct config_provider *provider)
{
    const struct config_api *api = config_api(provider->api);
    return provider->base_url != NULL ? provider->base_url : api != NULL ? api->base_url : NULL;
}

static void check_providers(struct doctor *doctor, const struct config *config)
{
    struct reach_target *targets = mem_must_zalloc((config->n_providers + 1) * sizeof *targets);
    const struct config_provider **of = mem_must_zalloc((config->n_providers + 1) * sizeof *of);
    size_t count = 0;
    for (size_t i = 0; i < config->n_providers && !config->simulated; i++) {
        const struct config_provider *provider = &config->providers[i];
        const char *url = base_url(provider);
        if (strcmp(provider->api, "noop") != 0 && url != NULL &&
            reach_target_of_url(&targets[count], url))
            of[count++] = provider;
    }
    reach_all(targets, count, REACH_MS);
    for (size_t i = 0; i < count; i++) {
        char name[80], detail[512];
        const struct config_api *api = config_api(of[i]->api);
        snprintf(name, sizeof name, "provider %.50s", of[i]->name);
        snprintf(
            detail, sizeof detail, "%.255s:%d %s%s", targets[i].host, targets[i].port,
            targets[i].reached ? "accepts connections" : "cannot be reached: ", targets[i].why);
        doctor_add(doctor, targets[i].reached ? DOCTOR_OK : DOCTOR_BAD, name, detail,
                   api != NULL && api->local
                       ? "start the runtime, or correct `base_url`"
                       : "check the network, a proxy or a firewall, and `base_url`");
    }
    free(targets);
    free(of);
}

/* Runtimes that run here but are not configured are worth a word. */
static void check_runtimes(struct doctor *doctor)
{
    struct detect_runtime runtimes[16];
    size_t count;
    const struct detect_runtime *usual = detect_runtimes(&count);
    if (count > sizeof runtimes / sizeof *runtimes)
        count = sizeof runtimes / sizeof *runtimes;
    memcpy(runtimes, usual, count * sizeof *runtimes);
    detect_probe(runtimes, count, DETECT_BUDGET_MS);
    char detail[512] = "";
    for (size_t i = 0; i < count; i++) {
        size_t models = 0, len = strlen(detail);
        for (size_t at = 0; at < runtimes[i].models.len; at++)
            models += runtimes[i].models.data[at] == '\n';
        if (runtimes[i].found)
            snprintf(detail + len, sizeof detail - len, "%s%s on port %d (%zu models)",
                     len > 0 ? ", " : "", runtimes[i].api, runtimes[i].port, models);
    }
    bool any = detail[0] != '\0';
    doctor_add(doctor, any ? DOCTOR_OK : DOCTOR_NOTE, "local runtimes",
               any ? detail : "none on the usual ports",
               "to use your own hardware, start Ollama, LM Studio, llama-server or vLLM");
    detect_release(runtimes, count);
}

struct redis_look {
    bool answered;
    char why[256];
};

static void redis_answered(void *ctx, const struct redis_value *value)
{
    struct redis_look *look = ctx;
    if (redis_type(value) == REDIS_ERR)
        snprintf(look->why, sizeof look->why, "%s", redis_str(value, NULL));
    else
        look->answered = true;
}

static void redis_down(void *ctx, const char *why)
{
    struct redis_look *look = ctx;
    snprintf(look->why, sizeof look->why, "%s", why);
}

static void check_redis(struct doctor *doctor, const struct config *config, bool running)
{
    if (config->redis_local && !running)
        return; /* it runs with the stack */
    static const struct redis_callbacks callbacks = {.down = redis_down};
    struct redis_look look = {0};
    struct redis *redis = NULL;
    struct err err = {""};
    char detail[512];
    uv_loop_t loop;
    loop_init(&loop);
    if (redis_open(&redis, &loop, &config->redis, &callbacks, &look, &err) != 0) {
        doctor_add(doctor, DOCTOR_BAD, "redis", err.text, "correct `redis` in the configuration");
    } else {
        redis_simple(redis, redis_answered, &look, "PING");
        loop_run_until(&loop, &look.answered, REDIS_MS);
        snprintf(detail, sizeof detail, "%.200s %s%s", redis_name(redis),
                 look.answered ? "answers" : "does not answer: ", look.answered ? "" : look.why);
        doctor_add(doctor, look.answered ? DOCTOR_OK : DOCTOR_BAD, "redis", detail,
                   config->redis_local ? "read log/redis.log in the home: a full disk ends Redis"
                                       : "start it, or correct `redis` in the configuration");
    }
    redis_close(&redis);
    loop_finish(&loop);
}

/* Returns whether it runs. */
static bool check_stack(struct doctor *doctor, const struct config *config)
{
    struct buf status = {0};
    if (stack_status(config, &status, NULL) != 0) {
        buf_release(&status);
        if (config->redis_local || config->broker_local)
            doctor_add(doctor, DOCTOR_NOTE, "stack", "the local stack does not run",
                       "start it: orchestrator up -d");
        return false;
    }
    json_t *value = json_parse(status.data, status.len, NULL);
    const json_t *processes = json_get(value, "processes");
    char detail[512] = "";
    size_t ready = 0, count = json_array_size(processes);
    for (size_t i = 0; i < count; i++) {
        const json_t *process = json_array_get(processes, i);
        const char *state = json_str(process, "state", "?");
        size_t len = strlen(detail);
        ready += strcmp(state, "ready") == 0;
        if (strcmp(state, "ready") != 0)
            snprintf(detail + len, sizeof detail - len, ", %s is %s",
                     json_str(process, "name", "?"), state);
    }
    char whole[768];
    snprintf(whole, sizeof whole, "%zu of %zu processes are ready%s", ready, count, detail);
    doctor_add(doctor, ready == count ? DOCTOR_OK : DOCTOR_BAD, "stack", whole,
               "read the log of each process in the folder log of the home");
    json_decref(value);
    buf_release(&status);
    return true;
}

static void check_workers(struct doctor *doctor, const struct config *config, bool running)
{
    if (config->broker_local && config->n_brokers == 1 && !running)
        return;
    struct roster roster = {0};
    struct err err = {""};
    char detail[512];
    uv_loop_t loop;
    loop_init(&loop);
    int rc = roster_ask(&roster, &loop, config, BUS_MS, &err);
    loop_finish(&loop);
    if (rc != 0)
        snprintf(detail, sizeof detail, "%.500s", err.text);
    else
        snprintf(detail, sizeof detail, "%d of %zu brokers answer", roster.brokers,
                 config->n_brokers);
    bool all = rc == 0 && (size_t)roster.brokers >= config->n_brokers;
    doctor_add(doctor, all ? DOCTOR_OK : DOCTOR_BAD, "brokers", detail,
               "start what is missing, or correct `bus.brokers` in the configuration");
    snprintf(detail, sizeof detail, "%zu connected", roster.n_workers);
    if (roster.brokers > 0)
        doctor_add(doctor, roster.n_workers > 0 ? DOCTOR_OK : DOCTOR_BAD, "workers", detail,
                   "start one: orchestrator-worker --name NAME");
    for (size_t i = 0; i < config->n_models && roster.brokers > 0; i++) {
        bool served = false;
        for (size_t w = 0; w < roster.n_workers; w++)
            served |= roster_serves(&roster.workers[w], config->models[i].alias);
        snprintf(detail, sizeof detail, "no connected worker serves it");
        char name[96];
        snprintf(name, sizeof name, "model %.56s", config->models[i].alias);
        if (!served)
            doctor_add(doctor, DOCTOR_NOTE, name, detail, "start a worker of its provider");
    }
    roster_release(&roster);
}

void doctor_services(struct doctor *doctor, const struct config *config)
{
    check_keys(doctor, config);
    check_runtimes(doctor);
    check_providers(doctor, config);
    bool running = check_stack(doctor, config);
    check_redis(doctor, config, running);
    check_workers(doctor, config, running);
}
