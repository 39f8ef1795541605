#include "broker/registry.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "schemas/mem.h"

void registry_init(struct registry *registry)
{
    *registry = (struct registry){0};
    TAILQ_INIT(&registry->workers);
}

void registry_release(struct registry *registry)
{
    struct worker *worker;
    while ((worker = TAILQ_FIRST(&registry->workers)) != NULL)
        registry_leave(registry, worker);
}

/* --- arms --------------------------------------------------------------------------------- */

struct arm *registry_find(const struct registry *registry, const char *name)
{
    struct arm *arm;
    HASH_FIND_STR(registry->arms, name, arm);
    return arm;
}

struct arm *registry_hold(struct registry *registry, const char *name)
{
    struct arm *arm = registry_find(registry, name);
    if (arm == NULL) {
        size_t len = strlen(name);
        if (len == 0 || len > ARM_NAME_MAX || HASH_COUNT(registry->arms) >= REGISTRY_MAX_ARMS)
            return NULL;
        arm = mem_must_zalloc(sizeof *arm + len + 1);
        memcpy(arm->name, name, len + 1);
        LIST_INIT(&arm->services);
        HASH_ADD_STR(registry->arms, name, arm);
    }
    arm->refs++;
    return arm;
}

void registry_drop(struct registry *registry, struct arm *arm)
{
    if (--arm->refs > 0)
        return;
    HASH_DEL(registry->arms, arm);
    heap_release(&arm->waiting);
    free(arm);
}

static bool less_loaded(const struct worker *a, const struct worker *b)
{
    int64_t left = a->running * b->concurrency, right = b->running * a->concurrency;
    return left != right ? left < right : a->turn < b->turn;
}

struct service *registry_pick(const struct arm *arm)
{
    struct service *best = NULL, *service;
    if (arm->n_open == 0)
        return NULL;
    LIST_FOREACH (service, &arm->services, at_arm)
        if (service->worker->open && (best == NULL || less_loaded(service->worker, best->worker)))
            best = service;
    return best;
}

/* Whether `arm: reason` is of the full arm or the model of that name. */
static bool is_of(const char *paused, const char *name)
{
    const char *reason = strstr(paused, ": ");
    size_t len = reason != NULL ? (size_t)(reason - paused) : strlen(paused), model = len;
    while (model > 0 && paused[model] != '@')
        model--;
    size_t name_len = strlen(name);
    return name_len > 0 && (name_len == len || name_len == model) &&
           memcmp(paused, name, name_len) == 0;
}

const char *registry_paused(const struct registry *registry, const char *name)
{
    const struct worker *worker;
    TAILQ_FOREACH (worker, &registry->workers, entry)
        for (size_t i = 0; i < worker->n_paused; i++)
            if (is_of(worker->paused[i], name))
                return worker->paused[i];
    return NULL;
}

/* --- services ----------------------------------------------------------------------------- */

static bool serves(const struct worker *worker, const struct arm *arm)
{
    for (size_t i = 0; i < worker->n_services; i++)
        if (worker->services[i].arm == arm)
            return true;
    return false;
}

static void add_service(struct worker *worker, struct arm *arm, const struct arm *full)
{
    struct service *service = &worker->services[worker->n_services++];
    *service = (struct service){.worker = worker, .arm = arm, .full = full};
    LIST_INSERT_HEAD(&arm->services, service, at_arm);
    arm->n_serving++;
}

/* Returns the arm that the worker now serves under that name. */
static struct arm *serve_name(struct registry *registry, struct worker *worker, const char *name,
                              const struct arm *full)
{
    struct arm *arm = registry_hold(registry, name);
    if (serves(worker, arm))
        registry_drop(registry, arm);
    else
        add_service(worker, arm, full != NULL ? full : arm);
    return arm;
}

/* By its full name, and by the name of its model. */
static void serve_arm(struct registry *registry, struct worker *worker, const char *name)
{
    struct arm *full = serve_name(registry, worker, name, NULL);
    char model[ARM_NAME_MAX + 1];
    const char *at = strrchr(name, '@');
    if (at == NULL || at == name)
        return;
    memcpy(model, name, (size_t)(at - name));
    model[at - name] = '\0';
    serve_name(registry, worker, model, full);
}

static void set_open(struct worker *worker)
{
    bool open = worker->credit > 0 && !worker->draining;
    if (open == worker->open)
        return;
    worker->open = open;
    for (size_t i = 0; i < worker->n_services; i++)
        worker->services[i].arm->n_open += open ? 1 : (size_t)-1;
}

static void free_texts(char ***texts, size_t *count)
{
    for (size_t i = 0; i < *count; i++)
        free((*texts)[i]);
    free(*texts);
    *texts = NULL;
    *count = 0;
}

/* True when an arm lost its last worker. */
static bool leave_services(struct registry *registry, struct worker *worker)
{
    bool lost = registry_drain(worker);
    for (size_t i = 0; i < worker->n_services; i++) {
        LIST_REMOVE(&worker->services[i], at_arm);
        registry_drop(registry, worker->services[i].arm);
    }
    free(worker->services);
    worker->services = NULL;
    worker->n_services = 0;
    free_texts(&worker->arms, &worker->n_arms);
    return lost;
}

/* The worker must have no services, and the registry room for its arms. */
static void enter_services(struct registry *registry, struct worker *worker,
                           const struct msg_ready *ready)
{
    worker->services = mem_must_zalloc((2 * ready->n_arms + 1) * sizeof *worker->services);
    worker->arms = mem_must_zalloc((ready->n_arms + 1) * sizeof *worker->arms);
    worker->draining = worker->open = false;
    for (size_t i = 0; i < ready->n_arms; i++) {
        serve_arm(registry, worker, ready->arms[i]);
        worker->arms[worker->n_arms++] = mem_must_strdup(ready->arms[i]);
    }
}

/* --- workers ------------------------------------------------------------------------------ */

static int64_t clamp(int64_t value, int64_t low, int64_t high)
{
    return value < low ? low : value > high ? high : value;
}

/* A name becomes a part of topics: printable ASCII without spaces. */
static bool name_valid(const char *name)
{
    for (const char *at = name; *at != '\0'; at++)
        if (*at < 0x21 || *at > 0x7e)
            return false;
    return name[0] != '\0';
}

static bool ready_valid(const struct msg_ready *ready)
{
    if (!name_valid(ready->name) || ready->n_arms + ready->n_paused == 0 || ready->credit < 0 ||
        ready->concurrency < 0 || ready->running < 0)
        return false;
    for (size_t i = 0; i < ready->n_arms; i++)
        if (ready->arms[i][0] == '\0' || strlen(ready->arms[i]) > ARM_NAME_MAX)
            return false;
    return true;
}

static struct worker *find_worker(const struct registry *registry, const char *name,
                                  const char *host)
{
    struct worker *worker;
    TAILQ_FOREACH (worker, &registry->workers, entry)
        if (strcmp(worker->name, name) == 0 && strcmp(worker->host, host) == 0)
            return worker;
    return NULL;
}

static void set_text(char **at, const char *text)
{
    free(*at);
    *at = mem_must_strdup(text);
}

static const char *state_of(const char *text)
{
    static const char *const states[] = {"cold", "loading", "warm"};
    for (size_t i = 0; i < sizeof states / sizeof *states; i++)
        if (strcmp(text, states[i]) == 0)
            return states[i];
    return "";
}

/* A copy of at most so many bytes, without a character that this would cut in two. */
static char *copy_start(const char *text, size_t most)
{
    size_t len = strnlen(text, most + 1);
    if (len > most)
        for (len = most; len > 0 && ((unsigned char)text[len] & 0xc0) == 0x80;)
            len--;
    char *copy = mem_must_zalloc(len + 1);
    memcpy(copy, text, len);
    return copy;
}

static void take_over_arms(struct worker *worker, const struct msg_ready *ready)
{
    free(worker->states);
    worker->states = NULL;
    if (ready->n_states > 0 && ready->n_states == ready->n_arms) {
        worker->states = mem_must_zalloc(ready->n_states * sizeof *worker->states);
        for (size_t i = 0; i < ready->n_states; i++)
            worker->states[i] = state_of(ready->states[i]);
    }
    free_texts(&worker->paused, &worker->n_paused);
    worker->paused = mem_must_zalloc((ready->n_paused + 1) * sizeof *worker->paused);
    for (size_t i = 0; i < ready->n_paused; i++)
        worker->paused[worker->n_paused++] = copy_start(ready->paused[i], PAUSED_MAX);
}

static void take_over(struct worker *worker, const struct msg_ready *ready)
{
    take_over_arms(worker, ready);
    set_text(&worker->name, ready->name);
    set_text(&worker->boot, ready->boot);
    set_text(&worker->host, ready->host);
    set_text(&worker->provider, ready->provider);
    set_text(&worker->gpu, ready->gpu);
    worker->pid = ready->pid;
    worker->local = ready->local;
    worker->concurrency = clamp(ready->concurrency, 1, WORKER_MAX_CONCURRENCY);
    worker->running = clamp(ready->running, 0, WORKER_MAX_CONCURRENCY);
    worker->credit = clamp(ready->credit, 0, worker->concurrency);
    set_open(worker);
}

static void worker_free(struct worker *worker)
{
    free(worker->name);
    free(worker->boot);
    free(worker->host);
    free(worker->provider);
    free(worker->gpu);
    free(worker->states);
    free_texts(&worker->paused, &worker->n_paused);
    free(worker);
}

static bool same_arms(const struct worker *worker, const struct msg_ready *ready)
{
    if (worker->n_arms != ready->n_arms || worker->draining)
        return false;
    for (size_t i = 0; i < ready->n_arms; i++)
        if (strcmp(worker->arms[i], ready->arms[i]) != 0)
            return false;
    return true;
}

static struct worker *enter(struct registry *registry)
{
    struct worker *worker = mem_must_zalloc(sizeof *worker);
    worker->gpu_utilization = -1;
    TAILQ_INSERT_TAIL(&registry->workers, worker, entry);
    registry->n_workers++;
    return worker;
}

int registry_join(struct registry *registry, const struct msg_ready *ready, struct worker **ret,
                  enum registry_change *ret_change, bool *ret_lost)
{
    *ret_lost = false;
    if (!ready_valid(ready))
        return -EINVAL;
    struct worker *worker = find_worker(registry, ready->name, ready->host);
    if ((worker == NULL && registry->n_workers >= REGISTRY_MAX_WORKERS) ||
        HASH_COUNT(registry->arms) + 2 * ready->n_arms > REGISTRY_MAX_ARMS)
        return -ENOSPC;
    *ret_change = worker == NULL                           ? REGISTRY_JOINED
                  : strcmp(worker->boot, ready->boot) == 0 ? REGISTRY_UPDATED
                                                           : REGISTRY_RESTARTED;
    if (worker == NULL)
        worker = enter(registry);
    if (!same_arms(worker, ready)) {
        *ret_lost = leave_services(registry, worker);
        enter_services(registry, worker, ready);
    }
    take_over(worker, ready);
    *ret = worker;
    return 0;
}

bool registry_leave(struct registry *registry, struct worker *worker)
{
    bool lost = leave_services(registry, worker);
    TAILQ_REMOVE(&registry->workers, worker, entry);
    registry->n_workers--;
    worker_free(worker);
    return lost;
}

/* --- credit ------------------------------------------------------------------------------- */

bool registry_boasts(const struct worker *worker, int64_t credit, int64_t running)
{
    int64_t most = 2 * worker->concurrency + 16;
    return credit > most || running > most || credit + running > most;
}

int registry_grant(struct worker *worker, int64_t grant)
{
    if (grant < 0)
        return -EINVAL;
    grant = clamp(grant, 0, worker->concurrency);
    worker->credit = clamp(worker->credit + grant, 0, worker->concurrency);
    worker->running = clamp(worker->running - grant, 0, WORKER_MAX_CONCURRENCY);
    set_open(worker);
    return 0;
}

void registry_beat(struct worker *worker, const struct msg_beat *beat, int64_t now_ms,
                   int64_t quiet_ms)
{
    worker->gpu_memory_used = beat->gpu_memory_used;
    worker->gpu_memory_total = beat->gpu_memory_total;
    worker->gpu_utilization = beat->gpu_utilization;
    worker->gpu_temperature = beat->gpu_temperature;
    worker->gpu_power_mw = beat->gpu_power_mw;
    /* A beat that was sent before our last dispatches arrived doesn't count them. */
    if (worker->dispatched_ms != 0 && now_ms - worker->dispatched_ms < quiet_ms)
        return;
    worker->running = clamp(beat->running, 0, WORKER_MAX_CONCURRENCY);
    if (beat->credit > worker->credit)
        worker->credit = clamp(beat->credit, 0, worker->concurrency);
    set_open(worker);
}

bool registry_drain(struct worker *worker)
{
    bool lost = false;
    if (worker->draining)
        return false;
    worker->draining = true;
    set_open(worker);
    for (size_t i = 0; i < worker->n_services; i++)
        lost |= --worker->services[i].arm->n_serving == 0;
    return lost;
}

void registry_spend(struct registry *registry, struct worker *worker, int64_t now_ms)
{
    worker->credit--;
    worker->running++;
    worker->turn = ++registry->turn;
    worker->dispatched_ms = now_ms;
    set_open(worker);
}

void registry_shut(struct worker *worker)
{
    worker->credit = 0;
    set_open(worker);
}
