/* Checks of what answers: providers, the running stack, brokers, workers and their arms. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/json.h"
#include "common/loop.h"
#include "common/paths.h"
#include "orchestrator/doctor.h"
#include "orchestrator/reach.h"
#include "orchestrator/roster.h"
#include "orchestrator/runtime_look.h"
#include "orchestrator/stack.h"
#include "schemas/mem.h"

#define REACH_MS 3000
#define BUS_MS 500

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
        struct detect_runtime runtime;
        if (strcmp(provider->api, "noop") == 0 || url == NULL ||
            runtime_look_target(&runtime, provider)) /* doctor_runtimes() asks it more */
            continue;
        if (reach_target_of_url(&targets[count], url))
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

/* Arms whose breaker is open, or whose keys are all out. */
static void check_paused(struct doctor *doctor, const struct roster *roster)
{
    for (size_t w = 0; w < roster->n_workers; w++) {
        const struct roster_worker *worker = &roster->workers[w];
        for (size_t i = 0; i < worker->n_paused; i++) {
            char name[80], detail[512];
            size_t arm = strcspn(worker->paused[i], ":");
            const char *reason = strstr(worker->paused[i], ": ");
            if (reason != NULL) /* aliases may have a colon, too */
                arm = (size_t)(reason - worker->paused[i]);
            snprintf(name, sizeof name, "arm %.*s", arm < 70 ? (int)arm : 70, worker->paused[i]);
            snprintf(detail, sizeof detail, "worker %.64s does not serve it for now%s%.400s",
                     worker->name, reason != NULL ? ": " : "", reason != NULL ? reason + 2 : "");
            doctor_add(doctor, DOCTOR_BAD, name, detail,
                       "put right what the reason says; it is tried again by itself, and after "
                       "SIGHUP to the worker its keys are read again");
        }
    }
}

static void check_workers(struct doctor *doctor, const struct config *config, bool running)
{
    char *socket = path_of(config->home, PATH_BROKER_SOCKET);
    bool started = running || access(socket, F_OK) == 0; /* a broker without the stack */
    free(socket);
    if (config->broker_local && config->n_brokers == 1 && !started)
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
    check_paused(doctor, &roster);
    roster_release(&roster);
}

void doctor_services(struct doctor *doctor, const struct config *config)
{
    doctor_keys(doctor, config);
    doctor_runtimes(doctor, config);
    check_providers(doctor, config);
    doctor_extras(doctor, config);
    bool running = check_stack(doctor, config);
    if (!config->redis_local || running) /* the local one runs with the stack */
        doctor_redis(doctor, config);
    doctor_bus(doctor, config, running);
    check_workers(doctor, config, running);
}
