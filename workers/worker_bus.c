#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/task_id.h"
#include "workers/worker_internal.h"

#define UNHEALTHY_MS 1000 /* when a runtime that is not usable may be tried again */

static int64_t n_busy(const struct worker *worker)
{
    return (int64_t)(attempts_running(worker->attempts) + backlog_size(worker->backlog));
}

void worker_news(struct worker *worker, const char *what, const char *text)
{
    char topic[TOPIC_MAX_BYTES];
    if (worker->peer == NULL)
        return;
    struct message message = {.type = MESSAGE_worker_event,
                              .worker_event = {
                                  .name = worker->self->name,
                                  .what = what,
                                  .provider = worker->self->provider,
                                  .host = worker->host,
                                  .running = n_busy(worker),
                                  .credit = accounts_least(worker->accounts),
                                  .text = text,
                                  .gpu_utilization = -1,
                              }};
    snprintf(topic, sizeof topic, "worker.%s.%s", worker->self->name, what);
    peer_event(worker->peer, topic, &message);
}

static bool is_open(const struct worker *worker)
{
    return worker->healthy && !worker->draining && worker->halted[0] == '\0';
}

/* --- credit ------------------------------------------------------------------------------------
 */

/* Calls that could start besides those that wait here; *ret_delay_ms: when it may be more. */
static int64_t room_of(const struct worker *worker, int64_t *ret_delay_ms)
{
    int64_t room = governor_room(worker->governor, ret_delay_ms);
    return room == INT64_MAX ? room : room - (int64_t)backlog_size(worker->backlog);
}

/* What is held back is granted when the limits have room again. */
static void wait_for_room(struct worker *worker, int64_t delay_ms)
{
    if (delay_ms > 0 && !loop_timer_active(worker->room_timer))
        loop_timer_start(worker->room_timer, delay_ms, 0);
}

static void send_ready(struct worker *worker, int broker)
{
    const char *names[ARMS_MAX], *paused[ARMS_MAX], *states[ARMS_MAX];
    int64_t now_ms = clock_ms();
    char reasons[ARMS_MAX][256];
    size_t n = 0, n_paused = 0;
    bool local = true;
    for (size_t i = 0; i < worker->arms.n; i++) {
        const struct arm *arm = &worker->arms.items[i];
        local = local && arm->local;
        const char *why = worker->halted[0] != '\0' ? worker->halted : arm->paused;
        if (why == NULL) {
            states[n] = arm_state_text(arm_state_at(arm->state, now_ms));
            names[n++] = arm->name;
            continue;
        }
        snprintf(reasons[n_paused], sizeof reasons[0], "%.100s: %.150s", arm->name, why);
        paused[n_paused] = reasons[n_paused];
        n_paused++;
    }
    struct message message = {.type = MESSAGE_ready,
                              .ready = {
                                  .name = worker->self->name,
                                  .boot = worker->boot,
                                  .host = worker->host,
                                  .pid = getpid(),
                                  .provider = worker->self->provider,
                                  .arms = names,
                                  .n_arms = n,
                                  .credit = accounts_credit(worker->accounts, broker),
                                  .concurrency = worker->self->concurrency,
                                  .running = n_busy(worker),
                                  .gpu = worker->self->gpu,
                                  .local = local,
                                  .states = states,
                                  .n_states = n,
                                  .paused = paused,
                                  .n_paused = n_paused,
                              }};
    int rc = peer_send(worker->peer, broker, &message);
    if (rc != 0)
        log_debug("broker %d was not reached: %s", broker, strerror(-rc));
}

void worker_introduce(struct worker *worker)
{
    int64_t places = is_open(worker) ? worker->self->concurrency - n_busy(worker) : 0;
    int64_t delay_ms = 0;
    int64_t room = room_of(worker, &delay_ms);
    accounts_divide(worker->accounts, places, room);
    if (room < places)
        wait_for_room(worker, delay_ms);
    for (int i = 0; i < peer_brokers(worker->peer); i++)
        if (accounts_introduced(worker->accounts, i))
            send_ready(worker, i);
}

/* A broker without any credit gets one call's worth of the room, so that others that hold theirs
 * unused cannot starve it. */
static void grant_owed(struct worker *worker)
{
    int64_t delay_ms = 0;
    int64_t room = room_of(worker, &delay_ms);
    int64_t left = room == INT64_MAX ? room : room - accounts_granted(worker->accounts);
    bool held = false;
    for (int i = 0; i < peer_brokers(worker->peer); i++) {
        int64_t owed = accounts_owed(worker->accounts, i);
        bool starves = room > 0 && accounts_credit(worker->accounts, i) == 0;
        int64_t most = left > 0 ? left : starves;
        int64_t grant = owed < most ? owed : most;
        struct message message = {.type = MESSAGE_credit, .credit = {.grant = grant}};
        held |= owed > grant;
        if (grant <= 0 || peer_send(worker->peer, i, &message) != 0)
            continue; /* else the next turn or beat tries again */
        accounts_pay(worker->accounts, i, grant);
        left -= left == INT64_MAX ? 0 : grant;
    }
    if (held)
        wait_for_room(worker, delay_ms);
}

static void turn_ends(uv_prepare_t *turn)
{
    struct worker *worker = turn->data;
    uv_prepare_stop(turn);
    grant_owed(worker);
}

static void grant_soon(struct worker *worker)
{
    if (worker->peer != NULL && !uv_is_active((const uv_handle_t *)worker->turn))
        uv_prepare_start(worker->turn, turn_ends);
}

static void owe(struct worker *worker, int broker)
{
    if (!is_open(worker) || worker->peer == NULL)
        return;
    accounts_owe(worker->accounts, broker);
    grant_soon(worker);
}

static void room_again(void *ctx)
{
    struct worker *worker = ctx;
    grant_soon(worker);
    backlog_pump(worker->backlog);
}

/* --- dispatches --------------------------------------------------------------------------------
 */

void worker_check_drained(struct worker *worker)
{
    if (worker->draining && !worker->stopped && attempts_running(worker->attempts) == 0) {
        worker->stopped = true;
        uv_stop(worker->loop);
    }
}

static bool has_place(void *ctx, size_t asking)
{
    const struct worker *worker = ctx;
    return (int64_t)(attempts_running(worker->attempts) + asking) < worker->self->concurrency;
}

static void start(void *ctx, const struct dispatch *dispatch, const struct governor_permit *permit)
{
    struct worker *worker = ctx;
    struct key *key = keys_at(worker->keys, permit->key);
    attempts_start(worker->attempts, dispatch, permit, &key);
}

/* The broker offers it again, to others at once. */
static void send_decline(struct worker *worker, const struct dispatch *dispatch, int64_t after_ms,
                         const char *reason)
{
    char cut[256];
    snprintf(cut, sizeof cut, "%s", reason);
    struct message message = {.type = MESSAGE_decline,
                              .decline = {.task = dispatch->task,
                                          .sub = dispatch->sub,
                                          .arm = dispatch->arm->name,
                                          .after_ms = after_ms,
                                          .reason = cut,
                                          .hedge = dispatch->hedge}};
    log_debug("%s/%s on %s is declined for %lld ms: %s", dispatch->task, dispatch->sub,
              dispatch->arm->name, (long long)after_ms, reason);
    if (worker->peer == NULL || peer_send(worker->peer, dispatch->broker, &message) != 0)
        log_debug("the broker did not hear that; the orchestrators find it in the queue");
}

static void decline(void *ctx, const struct dispatch *dispatch, int64_t after_ms,
                    const char *reason)
{
    struct worker *worker = ctx;
    send_decline(worker, dispatch, after_ms, reason);
    owe(worker, dispatch->broker);
}

void worker_decline_all(struct worker *worker, const char *reason)
{
    struct dispatch dispatch;
    while (backlog_remove(worker->backlog, "", "", &dispatch))
        send_decline(worker, &dispatch, 0, reason);
}

/* An answer that could be lost with this process is not worth asking for. */
static void spool_changed(void *ctx, const char *why)
{
    struct worker *worker = ctx;
    snprintf(worker->halted, sizeof worker->halted, "%s", why);
    if (why[0] != '\0')
        worker_decline_all(worker, why);
    if (worker->peer != NULL)
        worker_introduce(worker);
}

void worker_open_backlog(struct worker *worker)
{
    if (worker->provider->build != NULL) /* else answers cost nothing */
        spool_watch(worker->spool, spool_changed, worker);
    struct backlog_options options = {
        .loop = worker->loop,
        .governor = worker->governor,
        .has_place = has_place,
        .start = start,
        .decline = decline,
        .ctx = worker,
    };
    worker->backlog = backlog_new(&options);
    worker->room_timer = loop_timer_new(worker->loop, room_again, worker);
}

void worker_attempt_ended(void *ctx, int broker)
{
    struct worker *worker = ctx;
    if (worker->stopped) /* the backlog may be gone, and nobody is to have the place */
        return;
    owe(worker, broker);
    backlog_pump(worker->backlog);
    worker_check_drained(worker);
}

static void on_dispatch(struct worker *worker, int broker, const struct message *message)
{
    const struct msg_dispatch *hint = &message->dispatch;
    struct dispatch dispatch = {.arm = arms_find(&worker->arms, hint->arm),
                                .broker = broker,
                                .hedge = hint->hedge,
                                .arrived_ms = clock_ms_f()};
    accounts_spend(worker->accounts, broker);
    if (dispatch.arm == NULL || !task_id_valid(hint->task) || !sub_id_valid(hint->sub)) {
        log_warn("a broker dispatched %s/%s to the arm %s, which is not served here", hint->task,
                 hint->sub, hint->arm);
        owe(worker, broker);
        return;
    }
    snprintf(dispatch.task, sizeof dispatch.task, "%s", hint->task);
    snprintf(dispatch.sub, sizeof dispatch.sub, "%s", hint->sub);
    if (worker->draining) {
        send_decline(worker, &dispatch, 0, "the worker is leaving");
    } else if (!worker->healthy) {
        send_decline(worker, &dispatch, UNHEALTHY_MS, "its runtime is not usable now");
    } else if (worker->halted[0] != '\0') {
        send_decline(worker, &dispatch, UNHEALTHY_MS, worker->halted);
    } else {
        backlog_push(worker->backlog, &dispatch);
        backlog_pump(worker->backlog);
    }
}

static void on_cancel(struct worker *worker, int broker, const struct message *message)
{
    const struct msg_cancel *cancel = &message->cancel;
    struct dispatch dispatch;
    (void)broker;
    if (cancel->task[0] == '\0')
        return;
    while (backlog_remove(worker->backlog, cancel->task, cancel->sub, &dispatch))
        owe(worker, dispatch.broker);
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

void worker_tell_ready(struct worker *worker)
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
    worker_introduce(worker);
}

static void welcome(void *ctx, int broker, const struct msg_welcome *message)
{
    struct worker *worker = ctx;
    (void)broker, (void)message;
    if (!worker->welcomed)
        log_info("worker %s serves %zu arms, %lld at once", worker->self->name, worker->arms.n,
                 (long long)worker->self->concurrency);
    worker->welcomed = true;
    worker->news_due = worker->runtime != NULL;
    worker_tell_ready(worker);
}

static void lost(void *ctx, int broker)
{
    struct worker *worker = ctx;
    accounts_lose(worker->accounts, broker);
    log_warn("the broker at %s is silent", worker->config->brokers[broker]);
    worker_introduce(worker);
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

static void tell_state(struct worker *worker, const struct arm *arm, enum arm_state_name now)
{
    char text[256];
    const struct arm_state *state = arm->state;
    bool took = now == ARM_STATE_WARM && state->load_ms > 0;
    int len = snprintf(text, sizeof text, "%.128s", arm->name);
    if (took && len > 0)
        snprintf(text + len, sizeof text - (size_t)len, ": loaded in %.1f s",
                 state->load_ms / 1000);
    worker_news(worker, arm_state_text(now), text);
}

static void tell_reloads(struct worker *worker, const struct arm *arm)
{
    char text[512];
    struct arm_state *state = arm->state;
    if (state->reloads == state->told_reloads)
        return;
    state->told_reloads = state->reloads;
    snprintf(text, sizeof text,
             "%.128s was loaded again in %.1f s though it was warm (%lld times so far): another "
             "context, another model or another client takes its place in the runtime",
             arm->name, state->load_ms / 1000, (long long)state->reloads);
    log_warn("%s", text);
    worker_news(worker, "note", text);
}

/* Brokers are told when models are loaded or unloaded, with the next beat. */
static void tell_states(struct worker *worker)
{
    int64_t now_ms = clock_ms();
    bool changed = false;
    for (size_t i = 0; i < worker->arms.n; i++) {
        const struct arm *arm = &worker->arms.items[i];
        enum arm_state_name now = arm_state_at(arm->state, now_ms);
        tell_reloads(worker, arm);
        if (now == arm->state->told)
            continue;
        arm->state->told = now;
        changed = true;
        tell_state(worker, arm, now);
    }
    if (changed)
        worker_introduce(worker);
}

/* Events are dropped while no tap is known: not at the welcome, but with the beat after it. */
static void tell_runtime(struct worker *worker)
{
    if (worker->news_due && worker->runtime != NULL)
        runtime_tell(worker->runtime);
    worker->news_due = false;
}

static void fill_beat(void *ctx, struct msg_beat *beat)
{
    struct worker *worker = ctx;
    struct gpu_usage usage = gpu_usage(worker->gpu);
    grant_owed(worker);
    if (accounts_uneven(worker->accounts))
        worker_introduce(worker);
    tell_states(worker);
    tell_runtime(worker);
    beat->running = n_busy(worker);
    beat->credit = accounts_least(worker->accounts);
    beat->gpu_memory_used = usage.memory_used;
    beat->gpu_memory_total = usage.memory_total;
    beat->gpu_utilization = usage.utilization;
    beat->gpu_temperature = usage.temperature;
    beat->gpu_power_mw = usage.power_mw;
}

const struct peer_callbacks worker_peer_callbacks = {
    .introduce = introduce,
    .message = take_message,
    .welcome = welcome,
    .lost = lost,
    .beat = fill_beat,
};
