#include "workers/worker.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/paths.h"
#include "common/peer.h"
#include "common/queue.h"
#include "common/task_id.h"
#include "schemas/mem.h"
#include "workers/accounts.h"
#include "workers/arms.h"
#include "workers/attempt.h"
#include "workers/backlog.h"
#include "workers/exchange.h"
#include "workers/gpu.h"
#include "workers/keys.h"
#include "workers/limiter.h"
#include "workers/provider.h"
#include "workers/replay.h"
#include "workers/runtime.h"
#include "workers/spool.h"

#define GIVE_BACK_MS 2000 /* after the drain: for the queue to take the failures */

struct worker {
    uv_loop_t *loop;             /* borrowed */
    const struct config *config; /* borrowed, and so is what follows up to provider */
    const struct config_worker *self;
    const struct config_provider *settings;
    const struct provider *provider;
    char host[128];
    char boot[17];
    int ready_fd;
    int64_t drain_ms;
    struct arms arms;
    struct keys *keys;
    struct spool *spool;
    struct exchanges *exchanges;
    struct queue *queue;
    struct attempts *attempts;
    struct replay *replay;
    struct peer *peer; /* NULL until the spool is replayed */
    struct runtime *runtime;
    struct gpu *gpu;
    char *runtime_log;
    struct limiter limiter;
    struct accounts *accounts;
    struct backlog *backlog;
    struct loop_timer *limit_timer, *drain_timer;
    uv_prepare_t *turn;     /* sends what is owed before the loop waits */
    uv_signal_t *reload;    /* SIGHUP */
    bool welcomed, healthy; /* a broker answered; the runtime (if any) is usable */
    bool draining, aborted, stopped;
    char failure[1024];
};

/* --- credit ------------------------------------------------------------------------------------
 */

static int64_t n_busy(const struct worker *worker)
{
    return (int64_t)(attempts_running(worker->attempts) + backlog_size(worker->backlog));
}

static void send_ready(struct worker *worker, int broker)
{
    const char *names[ARMS_MAX];
    bool local = true;
    for (size_t i = 0; i < worker->arms.n; i++) {
        names[i] = worker->arms.items[i].name;
        local = local && worker->arms.items[i].local;
    }
    struct message message = {.type = MESSAGE_ready,
                              .ready = {
                                  .name = worker->self->name,
                                  .boot = worker->boot,
                                  .host = worker->host,
                                  .pid = getpid(),
                                  .provider = worker->self->provider,
                                  .arms = names,
                                  .n_arms = worker->arms.n,
                                  .credit = accounts_credit(worker->accounts, broker),
                                  .concurrency = worker->self->concurrency,
                                  .running = n_busy(worker),
                                  .gpu = worker->self->gpu,
                                  .local = local,
                              }};
    int rc = peer_send(worker->peer, broker, &message);
    if (rc != 0)
        log_debug("broker %d was not reached: %s", broker, strerror(-rc));
}

/* Tells all brokers what they may send from now on. */
static void introduce_all(struct worker *worker)
{
    bool open = worker->healthy && !worker->draining;
    accounts_divide(worker->accounts, open ? worker->self->concurrency - n_busy(worker) : 0);
    for (int i = 0; i < peer_brokers(worker->peer); i++)
        if (accounts_introduced(worker->accounts, i))
            send_ready(worker, i);
}

static void grant_owed(struct worker *worker)
{
    for (int i = 0; i < peer_brokers(worker->peer); i++) {
        int64_t owed = accounts_owed(worker->accounts, i);
        struct message message = {.type = MESSAGE_credit, .credit = {.grant = owed}};
        if (owed > 0 && peer_send(worker->peer, i, &message) == 0)
            accounts_pay(worker->accounts, i); /* else the next turn or beat tries again */
    }
}

static void turn_ends(uv_prepare_t *turn)
{
    struct worker *worker = turn->data;
    uv_prepare_stop(turn);
    grant_owed(worker);
}

static void owe(struct worker *worker, int broker)
{
    if (!worker->healthy || worker->draining || worker->peer == NULL)
        return;
    accounts_owe(worker->accounts, broker);
    if (!uv_is_active((const uv_handle_t *)worker->turn))
        uv_prepare_start(worker->turn, turn_ends);
}

/* --- dispatches --------------------------------------------------------------------------------
 */

static void check_drained(struct worker *worker)
{
    if (worker->draining && !worker->stopped && attempts_running(worker->attempts) == 0) {
        worker->stopped = true;
        uv_stop(worker->loop);
    }
}

/* Starts what waits, as far as there is room. */
static void pump(struct worker *worker)
{
    struct backlog_item item;
    while (backlog_size(worker->backlog) > 0 &&
           (int64_t)attempts_running(worker->attempts) < worker->self->concurrency) {
        int64_t delay_ms = limiter_delay_ms(&worker->limiter, clock_ms());
        if (delay_ms > 0) {
            loop_timer_start(worker->limit_timer, delay_ms, 0);
            return;
        }
        limiter_request(&worker->limiter);
        backlog_pop(worker->backlog, &item);
        attempts_start(worker->attempts, item.task, item.sub, item.arm, item.broker);
    }
}

static void limit_over(void *ctx)
{
    pump(ctx);
}

static void attempt_ended(void *ctx, int broker, int64_t tokens)
{
    struct worker *worker = ctx;
    limiter_tokens(&worker->limiter, tokens);
    owe(worker, broker);
    pump(worker);
    check_drained(worker);
}

static void on_dispatch(struct worker *worker, int broker, const struct message *message)
{
    const struct msg_dispatch *dispatch = &message->dispatch;
    accounts_spend(worker->accounts, broker);
    if (worker->draining)
        return; /* never claimed: it is offered again */
    const struct arm *arm = arms_find(&worker->arms, dispatch->arm);
    if (arm == NULL || !task_id_valid(dispatch->task) || !sub_id_valid(dispatch->sub)) {
        log_warn("a broker dispatched %s/%s to the arm %s, which is not served here",
                 dispatch->task, dispatch->sub, dispatch->arm);
        owe(worker, broker);
        return;
    }
    backlog_push(worker->backlog, dispatch->task, dispatch->sub, arm, broker);
    pump(worker);
}

static void on_cancel(struct worker *worker, int broker, const struct message *message)
{
    const struct msg_cancel *cancel = &message->cancel;
    struct backlog_item item;
    while (backlog_remove(worker->backlog, cancel->task, cancel->sub, &item))
        owe(worker, item.broker);
    (void)broker;
    attempts_cancel(worker->attempts, cancel->task, cancel->sub);
}

static void on_drain(struct worker *worker, int broker, const struct message *message)
{
    (void)broker;
    const char *name = message->drain.worker;
    if (!worker->draining && (name[0] == '\0' || strcmp(name, worker->self->name) == 0))
        worker_stop(worker);
}

/* --- the bus -----------------------------------------------------------------------------------
 */

static void tell_ready(struct worker *worker)
{
    if (!worker->welcomed || !worker->healthy || worker->ready_fd < 0)
        return;
    if (write(worker->ready_fd, "ready\n", 6) < 0)
        log_debug("nobody waits for this worker to be ready");
    close(worker->ready_fd);
    worker->ready_fd = -1;
}

static void introduce(void *ctx, int broker)
{
    struct worker *worker = ctx;
    accounts_introduce(worker->accounts, broker);
    introduce_all(worker);
}

static void welcome(void *ctx, int broker, const struct msg_welcome *message)
{
    struct worker *worker = ctx;
    (void)broker, (void)message;
    if (!worker->welcomed)
        log_info("worker %s serves %zu arms, %lld at once", worker->self->name, worker->arms.n,
                 (long long)worker->self->concurrency);
    worker->welcomed = true;
    tell_ready(worker);
}

static void lost(void *ctx, int broker)
{
    struct worker *worker = ctx;
    accounts_lose(worker->accounts, broker);
    log_warn("the broker at %s is silent", worker->config->brokers[broker]);
    introduce_all(worker);
}

static void take_message(void *ctx, int broker, const struct message *message)
{
    static void (*const handlers[MESSAGE_TYPE_COUNT])(struct worker * worker, int broker,
                                                      const struct message *message) = {
        [MESSAGE_dispatch] = on_dispatch,
        [MESSAGE_cancel] = on_cancel,
        [MESSAGE_drain] = on_drain,
    };
    if (handlers[message->type] != NULL)
        handlers[message->type](ctx, broker, message);
    else
        log_debug("a broker sent a message of type %s", message_name(message->type));
}

static void fill_beat(void *ctx, struct msg_beat *beat)
{
    struct worker *worker = ctx;
    struct gpu_usage usage = gpu_usage(worker->gpu);
    grant_owed(worker);
    beat->running = n_busy(worker);
    beat->credit = accounts_least(worker->accounts);
    beat->gpu_memory_used = usage.memory_used;
    beat->gpu_memory_total = usage.memory_total;
    beat->gpu_utilization = usage.utilization;
}

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
    static const struct peer_callbacks callbacks = {
        .introduce = introduce,
        .message = take_message,
        .welcome = welcome,
        .lost = lost,
        .beat = fill_beat,
    };
    struct worker *worker = ctx;
    struct err err = {0};
    if (worker->draining)
        return;
    char *source = mem_must_printf("worker/%s", worker->self->name);
    int rc = peer_open(&worker->peer, worker->loop, worker->config, source, worker->boot,
                       &callbacks, worker, &err);
    free(source);
    if (rc != 0)
        give_up(worker, err.text);
    else
        attempts_publish(worker->attempts, worker->peer);
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
    worker->replay = replay_new(worker->loop, worker->queue, worker->spool, replayed, worker);
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
    if (worker->peer != NULL)
        introduce_all(worker);
    tell_ready(worker);
}

static void reload_signalled(uv_signal_t *handle, int signal_number)
{
    (void)signal_number;
    struct worker *worker = handle->data;
    keys_reload(worker->keys);
}

static int find_self(struct worker *worker, const char *name, struct err *err)
{
    worker->self = config_worker(worker->config, name);
    if (worker->self == NULL)
        return err_set(err, -ENOENT,
                       "%s: there is no worker named %s under workers:", worker->config->path,
                       name);
    worker->settings = config_provider(worker->config, worker->self->provider);
    if (worker->settings == NULL)
        return err_set(err, -EINVAL, "%s: worker %s serves %s, which is not under providers:",
                       worker->config->path, name, worker->self->provider);
    worker->provider = provider_find(worker->settings->api);
    if (worker->provider == NULL)
        return err_set(err, -EINVAL, "%s: provider %s: this version cannot speak api: %s",
                       worker->config->path, worker->settings->name, worker->settings->api);
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
    const struct config_provider *settings = worker->settings;
    int rc = keys_open(&worker->keys, worker->loop, (const char *const *)settings->keys,
                       settings->n_keys, err);
    if (rc != 0 && !worker->provider->needs_key) {
        log_warn("provider %s is called without a key", settings->name);
        return keys_open(&worker->keys, worker->loop, NULL, 0, err);
    }
    if (rc != 0)
        return err_prefix(err, rc, "provider %s has no usable key", settings->name);
    return 0;
}

/* The limits are for all workers of the provider together: this one keeps to its part of them. */
static void open_limiter(struct worker *worker)
{
    int64_t others = 0;
    for (size_t i = 0; i < worker->config->n_workers; i++)
        others += &worker->config->workers[i] != worker->self &&
                  strcmp(worker->config->workers[i].provider, worker->self->provider) == 0;
    int64_t n = 1 + others;
    int64_t requests = worker->settings->requests_per_minute;
    int64_t tokens = worker->settings->tokens_per_minute;
    limiter_init(&worker->limiter, (requests + n - 1) / n, (tokens + n - 1) / n, clock_ms());
}

static int open_runtime(struct worker *worker, struct err *err)
{
    const struct config_worker *self = worker->self;
    if (self->gpu != NULL && self->gpu[0] != '\0')
        worker->gpu = gpu_new(worker->loop, self->gpu);
    worker->healthy = self->n_launch == 0;
    if (self->n_launch == 0)
        return 0;
    char *dir = path_of(worker->config->home, PATH_LOG);
    worker->runtime_log = mem_must_printf("%s/%s-runtime.log", dir, self->name);
    int rc = path_make(dir, err);
    free(dir);
    struct runtime_options options = {
        .loop = worker->loop,
        .http = exchanges_http(worker->exchanges),
        .name = self->name,
        .argv = self->launch,
        .n_argv = self->n_launch,
        .health = self->health,
        .gpu = self->gpu,
        .log = worker->runtime_log,
    };
    return rc != 0 ? rc : runtime_open(&worker->runtime, &options, health_changed, worker, err);
}

static void open_attempts(struct worker *worker)
{
    const struct config *config = worker->config;
    struct attempts_options options = {
        .loop = worker->loop,
        .queue = worker->queue,
        .spool = worker->spool,
        .exchanges = worker->exchanges,
        .keys = worker->keys,
        .provider = worker->provider,
        .settings = worker->settings,
        .worker = worker->self->name,
        .host = worker->host,
        .boot = worker->boot,
        .lease_ms = config->lease_ms,
        .renew_ms = config->renew_ms,
        .abandon_ms = config->abandon_ms,
        .end = attempt_ended,
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
    worker->limit_timer = loop_timer_new(worker->loop, limit_over, worker);
}

int worker_open(struct worker **ret, uv_loop_t *loop, const struct worker_options *options,
                struct err *err)
{
    static const struct redis_callbacks redis_callbacks = {.down = redis_down};
    struct worker *worker = mem_must_zalloc(sizeof *worker);
    worker->loop = loop;
    worker->config = options->config;
    worker->ready_fd = options->ready_fd;
    worker->drain_ms = options->drain_ms;
    worker->accounts = accounts_new((int)worker->config->n_brokers);
    worker->backlog = backlog_new();
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
    if (rc == 0) {
        open_limiter(worker);
        open_handles(worker);
        open_attempts(worker);
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
    backlog_free(&worker->backlog); /* never claimed: it is offered again */
    worker->backlog = backlog_new();
    say_bye(worker);
    worker->drain_timer = loop_timer_new(worker->loop, drain_over, worker);
    loop_timer_start(worker->drain_timer, worker->drain_ms, 0);
    check_drained(worker);
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
    if (worker->attempts != NULL) {
        attempts_closing(worker->attempts);
        attempts_publish(worker->attempts, NULL);
    }
    peer_close(&worker->peer);
    queue_close(&worker->queue);
    replay_free(&worker->replay);
    attempts_free(&worker->attempts);
    runtime_close(&worker->runtime);
    exchanges_close(&worker->exchanges);
    spool_close(&worker->spool);
    keys_close(&worker->keys);
    gpu_free(&worker->gpu);
    loop_timer_free(&worker->limit_timer);
    loop_timer_free(&worker->drain_timer);
    if (worker->turn != NULL)
        uv_close((uv_handle_t *)worker->turn, handle_closed);
    if (worker->reload != NULL)
        uv_close((uv_handle_t *)worker->reload, handle_closed);
    if (worker->ready_fd >= 0)
        close(worker->ready_fd);
    backlog_free(&worker->backlog);
    arms_release(&worker->arms);
    free(worker->runtime_log);
    accounts_free(&worker->accounts);
    free(worker);
}
