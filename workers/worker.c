#include "workers/worker.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "common/paths.h"
#include "schemas/mem.h"
#include "workers/worker_internal.h"

#define GIVE_BACK_MS 2000 /* after the drain: for the queue to take the failures */

/* --- the start ---------------------------------------------------------------------------------
 */

static void give_up(struct worker *worker, const char *why)
{
    snprintf(worker->failure, sizeof worker->failure, "%s", why);
    worker->stopped = true;
    uv_stop(worker->loop);
}

/* The spool is settled: from now on there is work. */
static void replayed(void *ctx)
{
    struct worker *worker = ctx;
    struct err err = {0};
    if (worker->draining)
        return;
    char *source = mem_must_printf("worker/%s", worker->self->name);
    int rc = peer_open(&worker->peer, worker->loop, worker->config, source, worker->boot,
                       &worker_peer_callbacks, worker, &err);
    free(source);
    if (rc != 0)
        give_up(worker, err.text);
    else
        attempts_publish(worker->attempts, worker->peer);
}

/* Redis is the one that the spool belongs to, or is not. */
static void redis_known(void *ctx, const char *why)
{
    struct worker *worker = ctx;
    if (worker->stopped)
        return;
    if (why[0] != '\0' && worker->replay == NULL)
        give_up(worker, why);
    else if (why[0] != '\0')
        log_error("%s", why);
    else if (worker->replay == NULL)
        worker->replay = replay_new(worker->loop, worker->queue, worker->spool, replayed, worker);
    else
        log_info("Redis is the right one again");
}

static void redis_answered(void *ctx, const struct redis_value *value)
{
    struct worker *worker = ctx;
    char why[512];
    if (worker->stopped)
        return;
    if (redis_type(value) == REDIS_ERR) {
        snprintf(why, sizeof why, "Redis at %s refuses this worker: %s",
                 redis_name(queue_redis(worker->queue)), redis_str(value, NULL));
        give_up(worker, why);
        return;
    }
    char *name = mem_must_printf("%s/%s.epoch", PATH_SPOOL, worker->self->name);
    char *path = path_of(worker->config->home, name);
    queue_guard(worker->queue, path, false, redis_known, worker);
    free(path);
    free(name);
}

static void redis_down(void *ctx, const char *why)
{
    struct worker *worker = ctx;
    log_warn("Redis at %s: %s; trying again", redis_name(queue_redis(worker->queue)), why);
}

static void health_changed(void *ctx, bool healthy)
{
    struct worker *worker = ctx;
    worker->healthy = healthy;
    for (size_t i = 0; i < worker->arms.n; i++)
        arm_state_health(worker->arms.items[i].state, healthy);
    if (worker->peer != NULL)
        worker_introduce(worker);
    worker_tell_ready(worker);
}

static void runtime_news(void *ctx, const char *what, const char *text)
{
    worker_news(ctx, what, text);
}

static bool runtime_busy(void *ctx)
{
    const struct worker *worker = ctx;
    return attempts_running(worker->attempts) > 0;
}

static void reload_signalled(uv_signal_t *handle, int signal_number)
{
    (void)signal_number;
    struct worker *worker = handle->data;
    worker_reload_keys(worker);
}

/* The provider that answers, and the one that wraps it, if any. */
static int find_settings(struct worker *worker, struct err *err)
{
    const struct config *config = worker->config;
    const struct config_worker *self = worker->self;
    worker->settings = config_provider(config, self->provider);
    if (worker->settings == NULL)
        return err_set(err, -EINVAL,
                       "%s: worker %s serves %s, which is not under providers:", config->path,
                       self->name, self->provider);
    if (strcmp(worker->settings->api, "search") != 0)
        return 0;
    worker->search = worker->settings;
    const char *base = worker->search->base != NULL ? worker->search->base : "";
    worker->settings = config_provider(config, base);
    if (worker->settings == NULL || strcmp(worker->settings->api, "search") == 0)
        return err_set(err, -EINVAL,
                       "%s: provider %s: base: must name the provider that answers, not '%s'",
                       config->path, worker->search->name, base);
    return 0;
}

static int find_provider(struct worker *worker, struct err *err)
{
    const struct config_provider *settings = worker->settings;
    if (strcmp(settings->api, "plugin") != 0) {
        worker->provider = provider_find(settings->api);
        if (worker->provider == NULL)
            return err_set(err, -EINVAL, "%s: provider %s: this version cannot speak api: %s",
                           worker->config->path, settings->name, settings->api);
        return 0;
    }
    if (settings->plugin == NULL)
        return err_set(err, -EINVAL, "%s: provider %s: plugin: must name its shared object",
                       worker->config->path, settings->name);
    int rc = plugin_open(&worker->plugin, settings->plugin, &worker->provider, err);
    return rc != 0 ? err_prefix(err, rc, "provider %s", settings->name) : 0;
}

static int find_self(struct worker *worker, const char *name, struct err *err)
{
    worker->self = config_worker(worker->config, name);
    if (worker->self == NULL)
        return err_set(err, -ENOENT,
                       "%s: there is no worker named %s under workers:", worker->config->path,
                       name);
    int rc = find_settings(worker, err);
    if (rc == 0)
        rc = find_provider(worker, err);
    if (rc != 0)
        return rc;
    if (worker->provider->abi != PROVIDER_ABI)
        return err_set(err, -EINVAL, "provider %s was built for another version of this program",
                       worker->settings->api);
    if (gethostname(worker->host, sizeof worker->host - 1) != 0 || worker->host[0] == '\0')
        strcpy(worker->host, "localhost");
    return arms_init(&worker->arms, worker->config, worker->self, worker->provider->local,
                     worker->host, err);
}

static int open_keys(struct worker *worker, struct err *err)
{
    const struct config_provider *settings = worker->settings, *search = worker->search;
    int rc = keys_open(&worker->keys, worker->loop, (const char *const *)settings->keys,
                       settings->n_keys, !worker->provider->needs_key, err);
    if (rc != 0)
        return err_prefix(err, rc, "provider %s has no usable key", settings->name);
    if (settings->n_keys > 0 && keys_count(worker->keys) == 0)
        log_warn("provider %s is called without a key", settings->name);
    if (search == NULL || search->n_engine_keys == 0)
        return 0;
    rc = keys_open(&worker->search_keys, worker->loop, (const char *const *)search->engine_keys,
                   search->n_engine_keys, false, err);
    return rc != 0
               ? err_prefix(err, rc, "the search of provider %s has no usable key", search->name)
               : 0;
}

/* Keys are this process's own: a runtime that it starts does not inherit them. */
static void hide_keys(struct worker *worker, char *const *sources, size_t n)
{
    worker->hidden =
        mem_must_realloc(worker->hidden, (worker->n_hidden + n + 1) * sizeof *worker->hidden);
    for (size_t i = 0; i < n; i++)
        if (strncmp(sources[i], "env:", 4) == 0)
            worker->hidden[worker->n_hidden++] = sources[i] + 4;
}

static int open_runtime(struct worker *worker, struct err *err)
{
    const struct config_worker *self = worker->self;
    if (self->gpu != NULL && self->gpu[0] != '\0') {
        struct err why = {0};
        int busy = gpu_lock(&worker->gpu_lock, NULL, "", self->gpu, self->share, &why);
        if (busy == -EBUSY)
            return err_set(err, busy, "worker %s: %s", self->name, why.text);
        if (busy != 0)
            log_warn("nothing keeps other workers off GPU %s: %s", self->gpu, why.text);
        worker->gpu = gpu_new(worker->loop, self->gpu);
    }
    worker->healthy = self->n_launch == 0;
    if (self->n_launch == 0)
        return 0;
    char *dir = path_of(worker->config->home, PATH_LOG);
    worker->runtime_log = mem_must_printf("%s/%s-runtime.log", dir, self->name);
    int rc = path_make(dir, err);
    free(dir);
    for (size_t i = 0; i < worker->config->n_providers; i++) {
        const struct config_provider *provider = &worker->config->providers[i];
        hide_keys(worker, provider->keys, provider->n_keys);
        hide_keys(worker, provider->engine_keys, provider->n_engine_keys);
    }
    struct runtime_options options = {
        .loop = worker->loop,
        .http = exchanges_http(worker->exchanges),
        .name = self->name,
        .argv = self->launch,
        .n_argv = self->n_launch,
        .health = self->health,
        .gpu = self->gpu,
        .log = worker->runtime_log,
        .hidden = worker->hidden,
        .n_hidden = worker->n_hidden,
        .start_ms = self->start_ms,
        .hang_ms = self->hang_ms,
        .memory_max_bytes = self->memory_max_mb << 20,
        .news = runtime_news,
        .busy = runtime_busy,
    };
    return rc != 0 ? rc : runtime_open(&worker->runtime, &options, health_changed, worker, err);
}

static void open_cache(struct worker *worker)
{
    const struct config *config = worker->config;
    struct answer_cache_options options = {
        .ttl_s = config->cache_ttl_s,
        .max_bytes = config->cache_max_bytes,
        .flight_ms = config->lease_ms,
    };
    if (config->cache)
        worker->cache = answer_cache_new(worker->loop, worker->queue, &options);
}

static void open_attempts(struct worker *worker)
{
    const struct config *config = worker->config;
    struct attempts_options options = {
        .loop = worker->loop,
        .queue = worker->queue,
        .spool = worker->spool,
        .exchanges = worker->exchanges,
        .governor = worker->governor,
        .cache = worker->cache,
        .config = config,
        .provider = worker->provider,
        .settings = worker->settings,
        .name = worker->self->provider,
        .search = worker->search,
        .searches = worker->searches,
        .search_keys = worker->search_keys,
        .worker = worker->self->name,
        .host = worker->host,
        .boot = worker->boot,
        .lease_ms = config->lease_ms,
        .renew_ms = config->renew_ms,
        .abandon_ms = config->abandon_ms,
        .end = worker_attempt_ended,
        .ctx = worker,
    };
    worker->attempts = attempts_new(&options);
}

static void open_handles(struct worker *worker)
{
    worker->turn = mem_must_zalloc(sizeof *worker->turn);
    uv_prepare_init(worker->loop, worker->turn);
    worker->turn->data = worker;
    worker->reload = mem_must_zalloc(sizeof *worker->reload);
    uv_signal_init(worker->loop, worker->reload);
    worker->reload->data = worker;
    uv_signal_start(worker->reload, reload_signalled, SIGHUP);
}

int worker_open(struct worker **ret, uv_loop_t *loop, const struct worker_options *options,
                struct err *err)
{
    static const struct redis_callbacks redis_callbacks = {.down = redis_down};
    struct worker *worker = mem_must_zalloc(sizeof *worker);
    worker->loop = loop;
    worker->config = options->config;
    worker->ready_fd = options->ready_fd;
    worker->gpu_lock = -1;
    worker->drain_ms = options->drain_ms;
    worker->accounts = accounts_new((int)worker->config->n_brokers);
    boot_nonce_make(worker->boot);
    int rc = find_self(worker, options->name, err);
    if (rc == 0)
        rc = open_keys(worker, err);
    if (rc == 0)
        rc = spool_open(&worker->spool, loop,
                        &(struct spool_options){.home = worker->config->home,
                                                .name = worker->self->name,
                                                .durable = worker->provider->build != NULL},
                        err);
    if (rc == 0)
        rc = exchanges_open(&worker->exchanges, loop, err);
    if (rc == 0)
        rc =
            queue_open(&worker->queue, loop, &worker->config->redis, &redis_callbacks, worker, err);
    if (rc == 0)
        rc = worker_open_limits(worker, err);
    if (rc == 0) {
        if (worker->search != NULL)
            worker->searches = searches_new(loop, exchanges_http(worker->exchanges));
        open_cache(worker);
        open_handles(worker);
        open_attempts(worker);
        worker_open_backlog(worker);
        rc = open_runtime(worker, err);
    }
    if (rc != 0) {
        worker->ready_fd = -1; /* still the caller's */
        worker_close(&worker);
        return rc;
    }
    redis_simple(queue_redis(worker->queue), redis_answered, worker, "PING");
    *ret = worker;
    return 0;
}

/* --- the end -----------------------------------------------------------------------------------
 */

static void say_bye(struct worker *worker)
{
    struct message message = {.type = MESSAGE_bye, .bye = {.reason = "draining"}};
    if (worker->peer != NULL)
        peer_send_all(worker->peer, &message);
}

static void drain_over(void *ctx);

static void abort_attempts(struct worker *worker)
{
    worker->aborted = true;
    log_warn("%zu attempts are given back", attempts_running(worker->attempts));
    attempts_abort(worker->attempts);
    loop_timer_start(worker->drain_timer, GIVE_BACK_MS, 0);
}

static void drain_over(void *ctx)
{
    struct worker *worker = ctx;
    if (!worker->aborted) {
        abort_attempts(worker);
        return;
    }
    log_warn("%zu attempts are left to the spool and to their leases",
             attempts_running(worker->attempts));
    worker->stopped = true;
    uv_stop(worker->loop);
}

void worker_stop(struct worker *worker)
{
    if (worker->stopped || worker->aborted)
        return;
    if (worker->draining) {
        abort_attempts(worker);
        return;
    }
    log_info("worker %s stops: %zu attempts run", worker->self->name,
             attempts_running(worker->attempts));
    worker->draining = true;
    worker_decline_all(worker, "the worker is leaving");
    say_bye(worker);
    worker->drain_timer = loop_timer_new(worker->loop, drain_over, worker);
    loop_timer_start(worker->drain_timer, worker->drain_ms, 0);
    worker_check_drained(worker);
}

const char *worker_failure(const struct worker *worker)
{
    return worker->failure;
}

static void handle_closed(uv_handle_t *handle)
{
    free(handle);
}

void worker_close(struct worker **worker_ptr)
{
    struct worker *worker = *worker_ptr;
    *worker_ptr = NULL;
    if (worker == NULL)
        return;
    worker->stopped = true;
    backlog_free(&worker->backlog);
    if (worker->attempts != NULL) {
        attempts_closing(worker->attempts);
        attempts_publish(worker->attempts, NULL);
    }
    governor_close(&worker->governor);
    answer_cache_free(&worker->cache);
    peer_close(&worker->peer);
    queue_close(&worker->queue);
    replay_free(&worker->replay);
    attempts_free(&worker->attempts);
    runtime_close(&worker->runtime);
    searches_free(&worker->searches);
    exchanges_close(&worker->exchanges);
    plugin_close(&worker->plugin);
    spool_close(&worker->spool);
    keys_close(&worker->keys);
    keys_close(&worker->search_keys);
    gpu_free(&worker->gpu);
    if (worker->gpu_lock >= 0)
        close(worker->gpu_lock);
    loop_timer_free(&worker->room_timer);
    loop_timer_free(&worker->pause_timer);
    loop_timer_free(&worker->drain_timer);
    if (worker->turn != NULL)
        uv_close((uv_handle_t *)worker->turn, handle_closed);
    if (worker->reload != NULL)
        uv_close((uv_handle_t *)worker->reload, handle_closed);
    if (worker->ready_fd >= 0)
        close(worker->ready_fd);
    arms_release(&worker->arms);
    free(worker->keys_out);
    free(worker->hidden);
    free(worker->runtime_log);
    accounts_free(&worker->accounts);
    free(worker);
}
