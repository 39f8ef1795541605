/* The broker's process against workers, orchestrators, taps and strangers. */
#include <errno.h>
#include <libgen.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "common/bus.h"
#include "common/clock.h"
#include "common/config.h"
#include "common/paths.h"
#include "common/peer.h"
#include "schemas/mem.h"
#include "tests/lib/fixture.h"

#define WAIT_MS 20000
#define BEAT_MS 100

struct test {
    struct fixture fixture;
    uv_loop_t loop;
    struct config *config;
    char config_path[160];
    char endpoint[160], taps[160];
    pid_t broker;
    struct err err;
};

/* A worker or an orchestrator (arms NULL). */
struct actor {
    struct test *test;
    struct peer *peer;
    char name[32], boot[32];
    const char *arms[4];
    size_t n_arms;
    int64_t credit, concurrency, running;
    int introduced, welcomed, lost, beats;
    int64_t introduced_ms;
    bool close_in_callback;
    const char *paused; /* of its first arm: the reason; it is then not among the arms */
    size_t got[MESSAGE_TYPE_COUNT];
    struct buf log;      /* "what task/sub " of each message */
    struct message last; /* strings: in `last_bytes` */
    struct buf last_bytes;
    struct message info; /* the last worker_info, likewise */
    struct buf info_bytes;
    struct buf workers; /* "name provider host pid arm credit concurrency running gpu local\n" */
};

/* Runs the loop until the condition holds; peers beat, so it never blocks for long. */
#define UNTIL(t, condition)                                                                        \
    for (int64_t until_ = clock_ms() + WAIT_MS; !(condition);) {                                   \
        if (clock_ms() > until_)                                                                   \
            fail_msg("waited in vain for %s", #condition);                                         \
        uv_run(&(t)->loop, UV_RUN_ONCE);                                                           \
    }

#define assert_log(actor, expected)                                                                \
    do {                                                                                           \
        buf_add_str(&(actor)->log, "");                                                            \
        assert_string_equal((actor)->log.data, expected);                                          \
        buf_clear(&(actor)->log);                                                                  \
    } while (0)

/* --- the broker --------------------------------------------------------------------------- */

static void start_broker(struct test *t)
{
    const char *argv[] = {"orchestrator-broker", "--config", t->config_path, NULL};
    t->broker = fixture_spawn(&t->fixture, "broker.log", argv);
    assert_true(fixture_wait_listen(t->endpoint + strlen("ipc://"), 0, WAIT_MS));
}

static void configure(struct test *t, int64_t max_offers)
{
    char text[256];
    snprintf(text, sizeof text, "bus: {brokers: [local], heartbeat_ms: %d, max_offers: %lld}\n",
             BEAT_MS, (long long)max_offers);
    snprintf(t->config_path, sizeof t->config_path, "%s",
             fixture_write(&t->fixture, "config.yaml", text));
    config_free(&t->config);
    if (config_parse(&t->config, "config.yaml", text, strlen(text), &t->err) != 0)
        fail_msg("%s", t->err.text);
    snprintf(t->endpoint, sizeof t->endpoint, "%s", t->config->brokers[0]);
    snprintf(t->taps, sizeof t->taps, "%s", t->config->taps[0]);
}

static int setup_quiet(void **state)
{
    struct test *t = calloc(1, sizeof *t);
    fixture_init(&t->fixture);
    loop_init(&t->loop);
    configure(t, 1000);
    *state = t;
    return 0;
}

static int setup(void **state)
{
    setup_quiet(state);
    start_broker(*state);
    return 0;
}

static int teardown(void **state)
{
    struct test *t = *state;
    struct buf log = {0};
    char path[160];
    snprintf(path, sizeof path, "%s/broker.log", t->fixture.dir);
    if (fixture_read(path, &log) && log.len > 0 &&
        (strstr(log.data, "ERROR: ") != NULL || strstr(log.data, "runtime error") != NULL))
        fprintf(stderr, "%s", log.data); /* a sanitizer's report */
    buf_release(&log);
    config_free(&t->config);
    loop_finish(&t->loop);
    fixture_release(&t->fixture);
    free(t);
    return 0;
}

/* --- actors ------------------------------------------------------------------------------- */

static void introduce(void *ctx, int broker)
{
    struct actor *actor = ctx;
    struct message hello = {.type = MESSAGE_hello,
                            .hello = {.name = actor->name, .boot = actor->boot, .host = "h"}};
    struct message ready = {.type = MESSAGE_ready,
                            .ready = {.name = actor->name,
                                      .boot = actor->boot,
                                      .host = "h",
                                      .pid = 42,
                                      .provider = "p",
                                      .gpu = "0",
                                      .local = true,
                                      .arms = actor->arms,
                                      .n_arms = actor->n_arms,
                                      .credit = actor->credit,
                                      .concurrency = actor->concurrency,
                                      .running = actor->running}};
    const char *states[] = {"warm", "cold", "loading", "warm"};
    char paused[128];
    const char *list[] = {paused};
    ready.ready.states = states;
    ready.ready.n_states = actor->n_arms;
    if (actor->paused != NULL) {
        snprintf(paused, sizeof paused, "%s: %s", actor->arms[0], actor->paused);
        ready.ready.paused = list;
        ready.ready.n_paused = 1;
        ready.ready.arms++;
        ready.ready.n_arms--;
        ready.ready.n_states--;
    }
    actor->introduced++;
    actor->introduced_ms = clock_ms();
    assert_int_equal(peer_send(actor->peer, broker, actor->n_arms > 0 ? &ready : &hello), 0);
}

static void log_sub(struct actor *actor, const char *what, const char *task, const char *sub)
{
    buf_printf(&actor->log, "%s %s/%s ", what, task, sub);
}

static void log_worker(struct actor *actor, const struct msg_worker_info *info)
{
    buf_printf(&actor->workers, "%s %s %s %lld %s %lld %lld %lld %s %d\n", info->name,
               info->provider, info->host, (long long)info->pid,
               info->n_arms > 0 ? info->arms[0] : "-", (long long)info->credit,
               (long long)info->concurrency, (long long)info->running, info->gpu, info->local);
    assert_true(info->idle_ms < WAIT_MS);
}

static void keep(struct message *at, struct buf *bytes, const struct message *message)
{
    message_release(at);
    buf_clear(bytes);
    assert_int_equal(message_encode(message, bytes), 0);
    assert_int_equal(message_decode(at, bytes->data, bytes->len), 0);
}

static void on_message(void *ctx, int broker, const struct message *message)
{
    struct actor *actor = ctx;
    (void)broker;
    actor->got[message->type]++;
    keep(&actor->last, &actor->last_bytes, message);
    switch ((int)message->type) {
    case MESSAGE_dispatch:
        log_sub(actor, "dispatch", message->dispatch.task, message->dispatch.sub);
        break;
    case MESSAGE_taken:
        log_sub(actor, "taken", message->taken.task, message->taken.sub);
        break;
    case MESSAGE_unserved:
        log_sub(actor, "unserved", message->unserved.task, message->unserved.sub);
        break;
    case MESSAGE_decline:
        log_sub(actor, "decline", message->decline.task, message->decline.sub);
        break;
    case MESSAGE_window:
        log_sub(actor, "window", message->window.task, message->window.sub);
        break;
    case MESSAGE_cancel:
        log_sub(actor, "cancel", message->cancel.task, message->cancel.sub);
        break;
    case MESSAGE_worker_info:
        log_worker(actor, &message->worker_info);
        keep(&actor->info, &actor->info_bytes, message);
        break;
    default:
        break;
    }
    if (actor->close_in_callback)
        peer_close(&actor->peer);
}

static void on_welcome(void *ctx, int broker, const struct msg_welcome *welcome)
{
    struct actor *actor = ctx;
    (void)broker;
    assert_int_equal(welcome->beat_ms, BEAT_MS);
    assert_int_equal(welcome->max_offers, actor->test->config->max_offers);
    actor->welcomed++;
}

static void on_lost(void *ctx, int broker)
{
    (void)broker;
    ((struct actor *)ctx)->lost++;
}

/* What a worker really does: it says how it stands. */
static void on_beat(void *ctx, struct msg_beat *beat)
{
    struct actor *actor = ctx;
    beat->running = actor->running;
    beat->gpu_temperature = 61;
    beat->gpu_power_mw = 350000;
    actor->beats++;
}

static void enter(struct test *t, struct actor *actor, const char *kind, const char *name)
{
    static const struct peer_callbacks callbacks = {.introduce = introduce,
                                                    .message = on_message,
                                                    .welcome = on_welcome,
                                                    .lost = on_lost,
                                                    .beat = on_beat};
    static int starts;
    char source[64];
    actor->test = t;
    snprintf(actor->name, sizeof actor->name, "%s", name);
    snprintf(actor->boot, sizeof actor->boot, "boot%d", ++starts);
    snprintf(source, sizeof source, "%s/%s", kind, name);
    if (peer_open(&actor->peer, &t->loop, t->config, source, actor->boot, &callbacks, actor,
                  &t->err) != 0)
        fail_msg("%s", t->err.text);
    UNTIL(t, actor->welcomed > 0);
}

static void enter_worker(struct test *t, struct actor *actor, const char *name, const char *arm,
                         int64_t credit)
{
    actor->arms[0] = arm;
    actor->n_arms = 1;
    actor->credit = credit;
    actor->concurrency = 4;
    enter(t, actor, "worker", name);
}

static void leave(struct actor *actor)
{
    peer_close(&actor->peer);
    message_release(&actor->last);
    buf_release(&actor->last_bytes);
    message_release(&actor->info);
    buf_release(&actor->info_bytes);
    buf_release(&actor->log);
    buf_release(&actor->workers);
}

static void offer_to(struct actor *actor, const char *sub, const char *first, const char *second,
                     int64_t after_ms)
{
    const char *arms[] = {first, second};
    int64_t after[] = {0, after_ms};
    struct message offer = {.type = MESSAGE_offer,
                            .trace = "tr1",
                            .offer = {.task = "t1",
                                      .sub = sub,
                                      .shard = 7,
                                      .arms = arms,
                                      .n_arms = second != NULL ? 2 : 1,
                                      .after_ms = after,
                                      .n_after_ms = second != NULL ? 2 : 1}};
    assert_int_equal(peer_send(actor->peer, 0, &offer), 0);
}

static void offer(struct actor *actor, const char *sub, const char *arm)
{
    offer_to(actor, sub, arm, NULL, 0);
}

static void send_credit(struct actor *actor, int64_t grant)
{
    struct message credit = {.type = MESSAGE_credit, .credit = {.grant = grant}};
    assert_int_equal(peer_send(actor->peer, 0, &credit), 0);
}

static void send_bye(struct actor *actor)
{
    struct message bye = {.type = MESSAGE_bye, .bye = {.reason = "enough"}};
    assert_int_equal(peer_send(actor->peer, 0, &bye), 0);
}

static void send_decline(struct actor *actor, const char *sub, const char *arm, int64_t after_ms)
{
    struct message decline = {.type = MESSAGE_decline,
                              .decline = {.task = "t1",
                                          .sub = sub,
                                          .arm = arm,
                                          .after_ms = after_ms,
                                          .reason = "50 requests per minute"}};
    assert_int_equal(peer_send(actor->peer, 0, &decline), 0);
}

/* Everything sent before is done when the answer is here. */
static void ask_status(struct test *t, struct actor *actor)
{
    struct message status = {.type = MESSAGE_status};
    size_t before = actor->got[MESSAGE_broker_info];
    assert_int_equal(peer_send(actor->peer, 0, &status), 0);
    UNTIL(t, actor->got[MESSAGE_broker_info] > before);
}

static int64_t count_workers(struct test *t, struct actor *actor)
{
    ask_status(t, actor);
    return actor->last.broker_info.workers;
}

/* --- taps --------------------------------------------------------------------------------- */

struct tap {
    struct bus *bus;
    struct buf topics; /* each with a space behind it */
    struct message last;
};

static void on_event(void *ctx, const struct bus_peer *from, const uint8_t *data, size_t len)
{
    struct tap *tap = ctx;
    const char *topic;
    (void)from;
    message_release(&tap->last);
    assert_int_equal(event_decode(&tap->last, &topic, data, len), 0);
    buf_printf(&tap->topics, "%s ", topic);
}

static void open_tap(struct test *t, struct tap *tap, const char *prefix)
{
    struct bus_options options = {.kind = BUS_SUB, .endpoint = t->taps, .subscribe = prefix};
    if (bus_open(&tap->bus, &t->loop, &options, on_event, tap, &t->err) != 0)
        fail_msg("%s", t->err.text);
}

static void close_tap(struct tap *tap)
{
    bus_close(&tap->bus);
    message_release(&tap->last);
    buf_release(&tap->topics);
}

static bool saw(struct tap *tap, const char *topic)
{
    return tap->topics.data != NULL && strstr(tap->topics.data, topic) != NULL;
}

/* --- work --------------------------------------------------------------------------------- */

static void offer_is_dispatched_and_the_orchestrator_told(void **state)
{
    struct test *t = *state;
    struct actor w = {0}, o = {0};
    enter_worker(t, &w, "w1", "m@h", 4);
    enter(t, &o, "orchestrator", "o1");
    offer(&o, "a", "m@h");
    UNTIL(t, w.got[MESSAGE_dispatch] == 1 && o.got[MESSAGE_taken] == 1);
    assert_string_equal(w.last.dispatch.arm, "m@h");
    assert_int_equal(w.last.dispatch.shard, 7);
    assert_string_equal(w.last.trace, "tr1");
    assert_string_equal(o.last.taken.worker, "w1");
    assert_log(&w, "dispatch t1/a ");
    assert_log(&o, "taken t1/a ");
    leave(&w);
    leave(&o);
}

static void credit_bounds_the_dispatches_and_a_grant_brings_more(void **state)
{
    struct test *t = *state;
    struct actor w = {0}, o = {0};
    enter_worker(t, &w, "w1", "m@h", 2);
    enter(t, &o, "orchestrator", "o1");
    for (int i = 0; i < 4; i++)
        offer(&o, (const char *[]){"a", "b", "c", "d"}[i], "m@h");
    UNTIL(t, w.got[MESSAGE_dispatch] == 2);
    ask_status(t, &o);
    assert_int_equal(o.last.broker_info.offers, 2);
    assert_log(&w, "dispatch t1/a dispatch t1/b ");
    send_credit(&w, 1);
    UNTIL(t, w.got[MESSAGE_dispatch] == 3);
    ask_status(t, &o);
    assert_log(&w, "dispatch t1/c ");
    send_credit(&w, 5);
    UNTIL(t, w.got[MESSAGE_dispatch] == 4);
    assert_log(&w, "dispatch t1/d ");
    leave(&w);
    leave(&o);
}

static void offer_spills_over_in_time(void **state)
{
    struct test *t = *state;
    struct actor local = {0}, cloud = {0}, o = {0};
    enter_worker(t, &local, "local", "small@h", 0);
    enter_worker(t, &cloud, "cloud", "big@cloud", 1);
    enter(t, &o, "orchestrator", "o1");
    int64_t start = clock_ms();
    offer_to(&o, "a", "small@h", "big@cloud", 200);
    UNTIL(t, cloud.got[MESSAGE_dispatch] == 1);
    assert_true(clock_ms() - start >= 199);
    assert_int_equal(local.got[MESSAGE_dispatch], 0);
    leave(&local);
    leave(&cloud);
    leave(&o);
}

static void repeated_offer_is_dispatched_once(void **state)
{
    struct test *t = *state;
    struct actor w = {0}, o = {0};
    enter_worker(t, &w, "w1", "m@h", 0);
    enter(t, &o, "orchestrator", "o1");
    offer(&o, "a", "m@h");
    offer(&o, "a", "m@h");
    ask_status(t, &o);
    assert_int_equal(o.last.broker_info.offers, 1);
    send_credit(&w, 4);
    UNTIL(t, o.got[MESSAGE_taken] == 1);
    ask_status(t, &o);
    assert_int_equal(o.last.broker_info.dispatched, 1);
    leave(&w);
    leave(&o);
}

static void offer_that_nobody_serves_is_told_and_served_later(void **state)
{
    struct test *t = *state;
    struct actor w = {0}, o = {0};
    enter(t, &o, "orchestrator", "o1");
    offer(&o, "a", "m@h");
    UNTIL(t, o.got[MESSAGE_unserved] == 1);
    enter_worker(t, &w, "w1", "m@h", 1);
    UNTIL(t, w.got[MESSAGE_dispatch] == 1 && o.got[MESSAGE_taken] == 1);
    assert_log(&o, "unserved t1/a taken t1/a ");
    leave(&w);
    leave(&o);
}

static void decline_reaches_who_offered_and_gives_no_credit(void **state)
{
    struct test *t = *state;
    struct actor w = {0}, o = {0}, other = {0};
    enter_worker(t, &w, "w1", "m@h", 1);
    enter(t, &o, "orchestrator", "o1");
    enter(t, &other, "orchestrator", "o2");
    offer(&o, "a", "m@h");
    UNTIL(t, w.got[MESSAGE_dispatch] == 1);
    send_decline(&w, "a", "m@h", 1200);
    UNTIL(t, o.got[MESSAGE_decline] == 1);
    assert_string_equal(o.last.decline.reason, "50 requests per minute");
    assert_string_equal(o.last.decline.arm, "m@h");
    assert_int_equal(o.last.decline.after_ms, 1200);
    assert_log(&o, "taken t1/a decline t1/a ");
    offer(&o, "a", "m@h");
    ask_status(t, &o);
    assert_int_equal(w.got[MESSAGE_dispatch], 1);
    send_credit(&w, 1);
    UNTIL(t, w.got[MESSAGE_dispatch] == 2);
    assert_int_equal(other.got[MESSAGE_decline], 0);
    leave(&w);
    leave(&o);
    leave(&other);
}

static void decline_of_what_was_not_dispatched_to_the_worker_is_rejected(void **state)
{
    struct test *t = *state;
    struct actor w = {0}, liar = {0}, o = {0};
    enter_worker(t, &w, "w1", "m@h", 1);
    enter_worker(t, &liar, "w2", "n@h", 1);
    enter(t, &o, "orchestrator", "o1");
    offer(&o, "a", "m@h");
    UNTIL(t, w.got[MESSAGE_dispatch] == 1);
    send_decline(&liar, "a", "m@h", 5);
    UNTIL(t, (ask_status(t, &o), o.last.broker_info.rejected == 1));
    send_decline(&w, "a", "m@h", INT64_MIN);
    send_decline(&w, "a", "m@h", 5);
    send_decline(&w, "b", "m@h", 5);
    UNTIL(t, (ask_status(t, &o), o.last.broker_info.rejected == 3));
    assert_int_equal(o.got[MESSAGE_decline], 1);
    leave(&w);
    leave(&liar);
    leave(&o);
}

static void decline_reaches_all_orchestrators_when_who_offered_is_gone(void **state)
{
    struct test *t = *state;
    struct actor w = {0}, o = {0}, heir = {0};
    enter_worker(t, &w, "w1", "m@h", 1);
    enter(t, &o, "orchestrator", "o1");
    enter(t, &heir, "orchestrator", "o2");
    offer(&o, "a", "m@h");
    UNTIL(t, w.got[MESSAGE_dispatch] == 1);
    send_bye(&o);
    UNTIL(t, (ask_status(t, &heir), heir.last.broker_info.orchestrators == 1));
    send_decline(&w, "a", "m@h", 5);
    UNTIL(t, heir.got[MESSAGE_decline] == 1);
    leave(&w);
    leave(&o);
    leave(&heir);
}

static void hedge_is_dispatched_and_told_as_one(void **state)
{
    struct test *t = *state;
    struct actor w = {0}, o = {0};
    const char *arms[] = {"m@h"};
    struct message hedge = {
        .type = MESSAGE_offer,
        .offer = {.task = "t1", .sub = "a", .arms = arms, .n_arms = 1, .hedge = true}};
    enter_worker(t, &w, "w1", "m@h", 2);
    enter(t, &o, "orchestrator", "o1");
    offer(&o, "a", "m@h");
    UNTIL(t, w.got[MESSAGE_dispatch] == 1 && o.got[MESSAGE_taken] == 1);
    assert_false(w.last.dispatch.hedge || o.last.taken.hedge);
    assert_int_equal(peer_send(o.peer, 0, &hedge), 0);
    UNTIL(t, w.got[MESSAGE_dispatch] == 2 && o.got[MESSAGE_taken] == 2);
    assert_true(w.last.dispatch.hedge && o.last.taken.hedge);
    leave(&w);
    leave(&o);
}

static void paused_arm_gets_nothing_and_says_why(void **state)
{
    struct test *t = *state;
    struct actor w = {0}, o = {0};
    enter_worker(t, &w, "w1", "m@h", 4);
    enter(t, &o, "orchestrator", "o1");
    w.paused = "5 timeouts in a row, next try in 20 s";
    introduce(&w, 0);
    UNTIL(t, w.welcomed == 2);
    offer(&o, "a", "m");
    UNTIL(t, o.got[MESSAGE_unserved] == 1);
    assert_string_equal(o.last.unserved.reason,
                        "m@h is paused: 5 timeouts in a row, next try in 20 s");
    ask_status(t, &o);
    assert_int_equal(o.info.worker_info.n_arms, 0);
    assert_int_equal(o.info.worker_info.n_paused, 1);
    assert_string_equal(o.info.worker_info.paused[0], "m@h: 5 timeouts in a row, next try in 20 s");
    w.paused = NULL;
    introduce(&w, 0);
    UNTIL(t, w.got[MESSAGE_dispatch] == 1);
    leave(&w);
    leave(&o);
}

static void withdrawn_offer_is_not_dispatched(void **state)
{
    struct test *t = *state;
    struct actor w = {0}, o = {0};
    struct message withdraw = {.type = MESSAGE_withdraw, .withdraw = {.task = "t1", .sub = "a"}};
    enter_worker(t, &w, "w1", "m@h", 0);
    enter(t, &o, "orchestrator", "o1");
    offer(&o, "a", "m@h");
    offer(&o, "b", "m@h");
    peer_send(o.peer, 0, &withdraw);
    ask_status(t, &o);
    send_credit(&w, 4);
    UNTIL(t, w.got[MESSAGE_dispatch] == 1);
    assert_log(&w, "dispatch t1/b ");
    leave(&w);
    leave(&o);
}

static void cancel_reaches_every_worker_and_voids_the_offers(void **state)
{
    struct test *t = *state;
    struct actor x = {0}, y = {0}, o = {0};
    struct message cancel = {.type = MESSAGE_cancel, .cancel = {.task = "t1"}};
    enter_worker(t, &x, "x", "m@h", 0);
    enter_worker(t, &y, "y", "n@h", 0);
    enter(t, &o, "orchestrator", "o1");
    offer(&o, "a", "m@h");
    peer_send(o.peer, 0, &cancel);
    UNTIL(t, x.got[MESSAGE_cancel] == 1 && y.got[MESSAGE_cancel] == 1);
    assert_log(&x, "cancel t1/ ");
    ask_status(t, &o);
    assert_int_equal(o.last.broker_info.offers, 0);
    leave(&x);
    leave(&y);
    leave(&o);
}

static void drained_worker_is_told_and_gets_nothing_more(void **state)
{
    struct test *t = *state;
    struct actor x = {0}, y = {0}, o = {0};
    struct message drain = {.type = MESSAGE_drain, .drain = {.worker = "x"}};
    enter_worker(t, &x, "x", "m@h", 4);
    enter_worker(t, &y, "y", "m@h", 2);
    enter(t, &o, "tool", "o1");
    peer_send(o.peer, 0, &drain);
    UNTIL(t, x.got[MESSAGE_drain] == 1);
    offer(&o, "a", "m@h");
    offer(&o, "b", "m@h");
    UNTIL(t, y.got[MESSAGE_dispatch] == 2);
    assert_int_equal(x.got[MESSAGE_dispatch], 0);
    assert_int_equal(y.got[MESSAGE_drain], 0);
    leave(&x);
    leave(&y);
    leave(&o);
}

static void full_broker_refuses_by_name_and_tells_when_there_is_room(void **state)
{
    struct test *t = *state;
    struct actor w = {0}, o = {0};
    struct tap tap = {0};
    configure(t, 4);
    start_broker(t);
    enter_worker(t, &w, "w1", "m@h", 0);
    enter(t, &o, "orchestrator", "o1");
    open_tap(t, &tap, "broker.");
    UNTIL(t, saw(&tap, "broker.started "));
    for (int i = 0; i < 6; i++)
        offer(&o, (const char *[]){"a", "b", "c", "d", "e", "f"}[i], "m@h");
    UNTIL(t, o.got[MESSAGE_window] == 2);
    assert_int_equal(o.last.window.limit, 4);
    assert_int_equal(o.last.window.held, 4);
    assert_log(&o, "window t1/e window t1/f ");
    UNTIL(t, saw(&tap, "broker.full "));
    send_credit(&w, 2);
    UNTIL(t, o.got[MESSAGE_window] == 3);
    assert_log(&o, "taken t1/a taken t1/b window / ");
    UNTIL(t, saw(&tap, "broker.room "));
    assert_string_equal(tap.topics.data, "broker.started broker.full broker.room ");
    close_tap(&tap);
    leave(&w);
    leave(&o);
}

/* --- coming and going --------------------------------------------------------------------- */

static void worker_that_dies_is_lost_and_gets_nothing(void **state)
{
    struct test *t = *state;
    struct actor w = {0}, o = {0};
    struct tap tap = {0};
    open_tap(t, &tap, "worker.w1.");
    enter(t, &o, "orchestrator", "o1");
    UNTIL(t, peer_wanted(o.peer, "worker.w1.x"));
    enter_worker(t, &w, "w1", "m@h", 4);
    leave(&w); /* without a bye, as when it is killed */
    UNTIL(t, saw(&tap, "worker.w1.lost "));
    assert_string_equal(tap.last.worker_event.text, "its connection is gone");
    offer(&o, "a", "m@h");
    UNTIL(t, o.got[MESSAGE_unserved] == 1);
    assert_int_equal(count_workers(t, &o), 0);
    close_tap(&tap);
    leave(&o);
}

static void offer_to_a_worker_that_just_died_goes_to_the_next(void **state)
{
    struct test *t = *state;
    struct actor dead = {0}, alive = {0}, o = {0};
    enter_worker(t, &dead, "dead", "m@h", 4);
    enter_worker(t, &alive, "alive", "m@h", 4);
    enter(t, &o, "orchestrator", "o1");
    leave(&dead);
    UNTIL(t, count_workers(t, &o) == 1);
    for (int i = 0; i < 4; i++)
        offer(&o, (const char *[]){"a", "b", "c", "d"}[i], "m@h");
    UNTIL(t, alive.got[MESSAGE_dispatch] == 4);
    leave(&alive);
    leave(&o);
}

static void on_nothing(void *ctx, const struct bus_peer *from, const uint8_t *data, size_t len)
{
    (void)ctx, (void)from, (void)data, (void)len;
}

static void silent_worker_is_lost_after_three_beats(void **state)
{
    struct test *t = *state;
    struct actor o = {0};
    struct tap tap = {0};
    struct bus *silent; /* its connection stands, and it never says anything again */
    const char *arms[] = {"m@h"};
    struct message ready = {
        .type = MESSAGE_ready,
        .ready = {
            .name = "w1", .boot = "b", .arms = arms, .n_arms = 1, .credit = 4, .concurrency = 4}};
    struct bus_options options = {.kind = BUS_DEALER, .endpoint = t->endpoint};
    struct buf bytes = {0};
    enter(t, &o, "orchestrator", "o1");
    open_tap(t, &tap, "worker.");
    UNTIL(t, peer_wanted(o.peer, "worker.w1.x"));
    assert_int_equal(bus_open(&silent, &t->loop, &options, on_nothing, NULL, &t->err), 0);
    assert_int_equal(message_encode(&ready, &bytes), 0);
    UNTIL(t, bus_send(silent, NULL, bytes.data, bytes.len) == 0);
    UNTIL(t, saw(&tap, "worker.w1.joined "));
    int64_t start = clock_ms();
    UNTIL(t, saw(&tap, "worker.w1.lost "));
    assert_true(clock_ms() - start >= 2 * BEAT_MS);
    assert_string_equal(tap.last.worker_event.text, "it missed three heartbeats");
    offer(&o, "a", "m@h");
    UNTIL(t, o.got[MESSAGE_unserved] == 1);
    buf_release(&bytes);
    bus_close(&silent);
    close_tap(&tap);
    leave(&o);
}

static void worker_that_says_bye_has_left(void **state)
{
    struct test *t = *state;
    struct actor w = {0}, o = {0};
    struct tap tap = {0};
    enter(t, &o, "orchestrator", "o1");
    open_tap(t, &tap, "worker.w1.");
    UNTIL(t, peer_wanted(o.peer, "worker.w1.x"));
    enter_worker(t, &w, "w1", "m@h", 4);
    UNTIL(t, saw(&tap, "worker.w1.joined "));
    assert_string_equal(tap.last.worker_event.provider, "p");
    send_bye(&w);
    leave(&w);
    UNTIL(t, saw(&tap, "worker.w1.left "));
    assert_string_equal(tap.last.worker_event.text, "enough");
    assert_false(saw(&tap, "lost"));
    close_tap(&tap);
    leave(&o);
}

static void worker_started_again_takes_its_old_place(void **state)
{
    struct test *t = *state;
    struct actor old = {0}, new = {0}, o = {0};
    enter(t, &o, "orchestrator", "o1");
    enter_worker(t, &old, "w1", "m@h", 0);
    enter_worker(t, &new, "w1", "n@h", 4);
    assert_int_equal(count_workers(t, &o), 1);
    offer(&o, "a", "n@h");
    UNTIL(t, new.got[MESSAGE_dispatch] == 1);
    offer(&o, "b", "m@h");
    UNTIL(t, o.got[MESSAGE_unserved] == 1);
    leave(&old);
    leave(&new);
    leave(&o);
}

static void broker_that_was_killed_is_told_everything_again(void **state)
{
    struct test *t = *state;
    struct actor w = {0}, o = {0};
    struct tap tap = {0};
    enter_worker(t, &w, "w1", "m@h", 4);
    enter(t, &o, "orchestrator", "o1");
    open_tap(t, &tap, "broker.");
    UNTIL(t, saw(&tap, "broker.started "));
    fixture_kill(&t->fixture, t->broker, SIGKILL); /* leaves its sockets behind */
    UNTIL(t, !peer_connected(o.peer, 0));
    assert_int_equal(peer_send(o.peer, 0, &(struct message){.type = MESSAGE_status}), -EAGAIN);
    buf_clear(&tap.topics);
    start_broker(t);
    int64_t start = clock_ms();
    UNTIL(t, w.welcomed == 2 && o.welcomed == 2);
    int64_t took = clock_ms() - start;
    print_message("introduced again %lld ms after the return\n", (long long)took);
    assert_true(took < 2000);
    assert_int_equal(w.introduced, 2);
    offer(&o, "a", "m@h");
    UNTIL(t, w.got[MESSAGE_dispatch] == 1);
    UNTIL(t, saw(&tap, "broker.started "));
    close_tap(&tap);
    leave(&w);
    leave(&o);
}

static void peers_notice_at_once_that_a_broker_was_killed(void **state)
{
    struct test *t = *state;
    struct actor o = {0};
    enter(t, &o, "orchestrator", "o1");
    assert_true(peer_connected(o.peer, 0));
    fixture_kill(&t->fixture, t->broker, SIGKILL);
    UNTIL(t, o.lost == 1); /* a silent one, after three beats: see below */
    assert_false(peer_connected(o.peer, 0));
    start_broker(t);
    UNTIL(t, o.welcomed == 2);
    assert_true(peer_connected(o.peer, 0));
    leave(&o);
}

static void hung_broker_is_lost_and_found(void **state)
{
    struct test *t = *state;
    struct actor w = {0}, o = {0};
    enter_worker(t, &w, "w1", "m@h", 4);
    enter(t, &o, "orchestrator", "o1");
    kill(t->broker, SIGSTOP);
    UNTIL(t, w.lost == 1 && o.lost == 1);
    kill(t->broker, SIGCONT);
    UNTIL(t, peer_connected(o.peer, 0) && peer_connected(w.peer, 0));
    offer(&o, "a", "m@h");
    UNTIL(t, w.got[MESSAGE_dispatch] == 1);
    /* It took its credit back when the broker was lost, so it grants it again. */
    assert_int_equal(w.introduced, 2);
    leave(&w);
    leave(&o);
}

static void peer_may_be_closed_in_its_callback(void **state)
{
    struct test *t = *state;
    struct actor w = {.close_in_callback = true}, o = {0};
    enter_worker(t, &w, "w1", "m@h", 4);
    enter(t, &o, "orchestrator", "o1");
    offer(&o, "a", "m@h");
    offer(&o, "b", "m@h");
    UNTIL(t, w.peer == NULL);
    assert_int_equal(w.got[MESSAGE_dispatch], 1);
    UNTIL(t, count_workers(t, &o) == 0);
    leave(&w);
    leave(&o);
}

/* A broker that the test plays: it asks everybody who they are, and never starts anew. */
struct fake {
    struct bus *bus;
    int beats, hellos;
};

static void answer_who(void *ctx, const struct bus_peer *from, const uint8_t *data, size_t len)
{
    struct fake *fake = ctx;
    struct message message, who = {.type = MESSAGE_who, .who = {.boot = "same"}};
    struct buf bytes = {0};
    assert_int_equal(message_decode(&message, data, len), 0);
    fake->beats += message.type == MESSAGE_beat;
    fake->hellos += message.type == MESSAGE_hello;
    message_release(&message);
    assert_int_equal(message_encode(&who, &bytes), 0);
    for (int i = 0; i < 2; i++)
        assert_int_equal(bus_send(fake->bus, from, bytes.data, bytes.len), 0);
    buf_release(&bytes);
}

static void open_fake(struct test *t, struct fake *fake)
{
    struct bus_options options = {.kind = BUS_ROUTER, .endpoint = t->endpoint};
    if (bus_open(&fake->bus, &t->loop, &options, answer_who, fake, &t->err) != 0)
        fail_msg("%s", t->err.text);
}

static void peer_introduces_itself_once_on_each_connection(void **state)
{
    static const struct peer_callbacks callbacks = {
        .introduce = introduce, .message = on_message, .lost = on_lost};
    struct test *t = *state;
    struct fake fake = {0};
    struct actor o = {.test = t, .name = "o1", .boot = "b1"};
    t->config->beat_ms = 60000; /* what happens is not the heartbeat's doing */
    assert_int_equal(path_make(dirname(strdupa(t->endpoint + strlen("ipc://"))), &t->err), 0);
    open_fake(t, &fake);
    assert_int_equal(
        peer_open(&o.peer, &t->loop, t->config, "orchestrator/o1", "b1", &callbacks, &o, &t->err),
        0);
    UNTIL(t, fake.hellos == 1);
    assert_int_equal(fake.beats, 1);
    bus_close(&fake.bus);
    UNTIL(t, !peer_connected(o.peer, 0));
    open_fake(t, &fake);
    UNTIL(t, fake.hellos == 2);
    assert_int_equal(fake.beats, 2);
    assert_int_equal(o.introduced, 2);
    bus_close(&fake.bus);
    leave(&o);
}

/* --- taps --------------------------------------------------------------------------------- */

static void send_note(struct actor *actor, const char *topic, const char *text)
{
    struct message note = {.type = MESSAGE_task_event,
                           .task_event = {.what = "note", .text = text}};
    peer_event(actor->peer, topic, &note);
}

static void tap_gets_the_events_of_its_prefix_and_others_are_not_sent(void **state)
{
    struct test *t = *state;
    struct actor o = {0};
    struct tap tap = {0};
    enter(t, &o, "orchestrator", "o1");
    assert_false(peer_wanted(o.peer, "task.t1.note"));
    send_note(&o, "task.t1.note", "nobody listens");
    open_tap(t, &tap, "task.t1.");
    UNTIL(t, peer_wanted(o.peer, "task.t1.note"));
    assert_false(peer_wanted(o.peer, "task.t2.note"));
    send_note(&o, "task.t2.note", "other");
    send_note(&o, "task.t1.note", "one");
    send_note(&o, "task.t1.last", "two");
    UNTIL(t, saw(&tap, "task.t1.last "));
    assert_string_equal(tap.topics.data, "task.t1.note task.t1.last ");
    assert_int_equal(tap.last.sequence, 2);
    assert_string_equal(tap.last.source, "orchestrator/o1");
    assert_string_equal(tap.last.task_event.text, "two");
    ask_status(t, &o);
    assert_int_equal(o.last.broker_info.events, 2);
    bus_close(&tap.bus);
    UNTIL(t, !peer_wanted(o.peer, "task.t1.note"));
    close_tap(&tap);
    leave(&o);
}

static void worker_beats_are_events_only_when_a_tap_wants_them(void **state)
{
    struct test *t = *state;
    struct actor w = {0}, o = {0};
    struct tap tap = {0}, other = {0};
    enter(t, &o, "tool", "o1");
    enter_worker(t, &w, "w1", "m@h", 4);
    UNTIL(t, w.beats >= 3);
    ask_status(t, &o);
    assert_int_equal(o.last.broker_info.events, 0);
    open_tap(t, &other, "worker.w2.");
    open_tap(t, &tap, "worker.w1.beat");
    UNTIL(t, saw(&tap, "worker.w1.beat worker.w1.beat "));
    assert_int_equal(tap.last.worker_event.credit, 4);
    assert_int_equal(other.topics.len, 0);
    close_tap(&tap);
    close_tap(&other);
    leave(&w);
    leave(&o);
}

/* --- asking ------------------------------------------------------------------------------- */

static void status_has_the_states_of_models_and_what_the_gpu_measures(void **state)
{
    struct test *t = *state;
    struct actor w = {0}, tool = {0};
    enter_worker(t, &w, "w1", "m@h/gpu0", 3);
    enter(t, &tool, "tool", "t1");
    UNTIL(t, (ask_status(t, &tool), tool.info.worker_info.gpu_temperature == 61));
    assert_int_equal(tool.info.worker_info.gpu_power_mw, 350000);
    assert_int_equal(tool.info.worker_info.n_states, 1);
    assert_string_equal(tool.info.worker_info.states[0], "warm");
    leave(&w);
    leave(&tool);
}

static void status_describes_the_workers_and_the_broker(void **state)
{
    struct test *t = *state;
    struct actor w = {0}, o = {0}, tool = {0};
    w.running = 1;
    enter_worker(t, &w, "w1", "m@h/gpu0", 3);
    enter(t, &o, "orchestrator", "o1");
    enter(t, &tool, "tool", "t1");
    struct message status = {.type = MESSAGE_status};
    assert_int_equal(peer_send(tool.peer, 0, &status), 0);
    UNTIL(t, tool.got[MESSAGE_worker_info] == 1);
    assert_string_equal(tool.workers.data, "w1 p h 42 m@h/gpu0 3 4 1 0 1\n");
    UNTIL(t, tool.got[MESSAGE_broker_info] == 1);
    const struct msg_broker_info *broker = &tool.last.broker_info;
    assert_int_equal(broker->pid, t->broker);
    assert_int_equal(broker->workers, 1);
    assert_int_equal(broker->orchestrators, 1);
    assert_int_equal(broker->max_offers, 1000);
    assert_int_equal(broker->rejected, 0);
    leave(&w);
    leave(&o);
    leave(&tool);
}

/* --- strangers and fools ------------------------------------------------------------------ */

static void garbage_is_counted_and_does_no_harm(void **state)
{
    struct test *t = *state;
    struct actor w = {0}, o = {0};
    struct bus *fool;
    struct bus_options options = {.kind = BUS_DEALER, .endpoint = t->endpoint};
    uint8_t noise[300];
    int sent = 0;
    enter_worker(t, &w, "w1", "m@h", 4);
    enter(t, &o, "orchestrator", "o1");
    assert_int_equal(bus_open(&fool, &t->loop, &options, on_nothing, NULL, &t->err), 0);
    UNTIL(t, bus_send(fool, NULL, "", 0) == 0);
    srand(5);
    for (; sent < 2000; sent++) {
        size_t len = (size_t)(rand() % (int)sizeof noise);
        for (size_t i = 0; i < len; i++)
            noise[i] = (uint8_t)rand();
        if (len > 0 && rand() % 2 == 0)
            noise[0] = (uint8_t)(0x80 | (rand() % 16));  /* looks like a map */
        UNTIL(t, bus_send(fool, NULL, noise, len) == 0); /* cut off, it comes again */
    }
    UNTIL(t, (ask_status(t, &o), o.last.broker_info.rejected > 500));
    assert_true(o.last.broker_info.cut > 0);
    offer(&o, "a", "m@h");
    UNTIL(t, w.got[MESSAGE_dispatch] == 1);
    bus_close(&fool);
    leave(&w);
    leave(&o);
}

static void messages_that_their_sender_may_not_say_are_rejected(void **state)
{
    struct test *t = *state;
    struct actor w = {0}, o = {0};
    enter_worker(t, &w, "w1", "m@h", 0);
    enter(t, &o, "orchestrator", "o1");
    offer(&w, "a", "m@h");
    send_credit(&o, 4);
    send_credit(&w, -7);
    struct message welcome = {.type = MESSAGE_welcome};
    struct message unsuitable = {.type = MESSAGE_offer, .offer = {.task = "t1", .sub = "x"}};
    peer_send(w.peer, 0, &welcome);
    peer_send(o.peer, 0, &unsuitable);
    UNTIL(t, (ask_status(t, &o), o.last.broker_info.rejected == 5));
    assert_int_equal(o.last.broker_info.offers, 0);
    send_credit(&w, INT64_MAX);
    offer(&o, "a", "m@h");
    UNTIL(t, w.got[MESSAGE_dispatch] == 1);
    leave(&w);
    leave(&o);
}

static void many_peers_come_and_go(void **state)
{
    struct test *t = *state;
    struct actor o = {0};
    enter(t, &o, "orchestrator", "o1");
    for (int round = 0; round < 3; round++) {
        struct actor *workers = mem_must_zalloc(30 * sizeof *workers);
        char name[32];
        for (int i = 0; i < 30; i++) {
            snprintf(name, sizeof name, "w%d", i);
            enter_worker(t, &workers[i], name, "m@h", 1);
        }
        size_t before = o.got[MESSAGE_taken];
        for (int i = 0; i < 30; i++) {
            snprintf(name, sizeof name, "s%d", i);
            offer(&o, name, "m@h");
        }
        UNTIL(t, o.got[MESSAGE_taken] == before + 30);
        for (int i = 0; i < 30; i++) {
            UNTIL(t, workers[i].got[MESSAGE_dispatch] == 1); /* one each: the least loaded */
            leave(&workers[i]);
        }
        UNTIL(t, count_workers(t, &o) == 0);
        free(workers);
    }
    leave(&o);
}

/* --- the process -------------------------------------------------------------------------- */

static void second_broker_on_the_endpoint_says_so_and_ends(void **state)
{
    struct test *t = *state;
    struct actor o = {0};
    struct buf errors = {0}, out = {0};
    const char *argv[] = {"orchestrator-broker", "--config", t->config_path,
                          "--ready-fd",          "1",        NULL};
    assert_int_equal(fixture_run(&t->fixture, argv, &out, &errors), 3);
    assert_non_null(strstr(errors.data, "served by another process"));
    assert_non_null(strstr(out.data, "served by another process"));
    assert_non_null(strstr(errors.data, "broker.sock"));
    enter(t, &o, "orchestrator", "o1");
    buf_release(&errors);
    buf_release(&out);
    leave(&o);
}

static void broker_that_is_told_to_stop_says_so_and_ends_cleanly(void **state)
{
    struct test *t = *state;
    struct actor o = {0};
    struct tap tap = {0};
    struct stat st;
    enter(t, &o, "orchestrator", "o1");
    open_tap(t, &tap, "broker.");
    UNTIL(t, saw(&tap, "broker.started "));
    kill(t->broker, SIGTERM);
    UNTIL(t, saw(&tap, "broker.stopping "));
    assert_int_equal(fixture_wait_exit(&t->fixture, t->broker, WAIT_MS), 0);
    assert_int_equal(stat(t->endpoint + strlen("ipc://"), &st), -1);
    assert_int_equal(stat(t->taps + strlen("ipc://"), &st), -1);
    close_tap(&tap);
    leave(&o);
}

static void broker_serves_tcp_too(void **state)
{
    struct test *t = *state;
    struct actor w = {0}, o = {0};
    struct tap tap = {0};
    struct buf text = {0};
    int port = fixture_free_port();
    buf_printf(&text, "bus: {brokers: [\"tcp://127.0.0.1:%d\"], heartbeat_ms: %d}\n", port,
               BEAT_MS);
    snprintf(t->config_path, sizeof t->config_path, "%s",
             fixture_write(&t->fixture, "tcp.yaml", text.data));
    config_free(&t->config);
    assert_int_equal(config_parse(&t->config, "tcp", text.data, text.len, &t->err), 0);
    snprintf(t->taps, sizeof t->taps, "tcp://127.0.0.1:%d", port + 1);
    const char *argv[] = {"orchestrator-broker", "--config", t->config_path, NULL};
    t->broker = fixture_spawn(&t->fixture, "broker.log", argv);
    enter_worker(t, &w, "w1", "m@h", 4);
    enter(t, &o, "orchestrator", "o1");
    open_tap(t, &tap, "");
    UNTIL(t, peer_wanted(o.peer, "task.t1.note"));
    offer(&o, "a", "m@h");
    UNTIL(t, w.got[MESSAGE_dispatch] == 1);
    send_note(&o, "task.t1.note", "hello");
    UNTIL(t, saw(&tap, "task.t1.note "));
    close_tap(&tap);
    leave(&w);
    leave(&o);
    buf_release(&text);
}

static void bad_options_are_usage_errors(void **state)
{
    struct test *t = *state;
    static const char *const wrong[][3] = {
        {"--bogus"}, {"extra"}, {"--ready-fd", "x"}, {"--endpoint", "nonsense"}, {"--config"}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct buf errors = {0};
        const char *argv[] = {"orchestrator-broker", wrong[i][0], wrong[i][1], NULL};
        assert_int_equal(fixture_run(&t->fixture, argv, NULL, &errors), 2);
        assert_true(errors.len > 0);
        buf_release(&errors);
    }
    struct buf out = {0};
    const char *help[] = {"orchestrator-broker", "--help", NULL};
    assert_int_equal(fixture_run(&t->fixture, help, &out, NULL), 0);
    assert_non_null(strstr(out.data, "--ready-fd"));
    buf_release(&out);
}

static void offers_travel_fast(void **state)
{
    struct test *t = *state;
    struct actor w = {0}, o = {0};
    enter_worker(t, &w, "w1", "m@h", 1);
    enter(t, &o, "orchestrator", "o1");
    double best = 1e9, start = clock_ms_f();
    for (size_t i = 1; i <= 500; i++) {
        double sent = clock_ms_f();
        offer(&o, "a", "m@h");
        UNTIL(t, w.got[MESSAGE_dispatch] == i);
        best = clock_ms_f() - sent < best ? clock_ms_f() - sent : best;
        send_credit(&w, 1);
    }
    print_message("offer to dispatch: best %.3f ms, mean with credit %.3f ms\n", best,
                  (clock_ms_f() - start) / 500);
    assert_true(best < 50); /* a missed signal would wait for the next heartbeat */
    leave(&w);
    leave(&o);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
#define TEST_QUIET(name) cmocka_unit_test_setup_teardown(name, setup_quiet, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(offer_is_dispatched_and_the_orchestrator_told),
        TEST(credit_bounds_the_dispatches_and_a_grant_brings_more),
        TEST(offer_spills_over_in_time),
        TEST(repeated_offer_is_dispatched_once),
        TEST(offer_that_nobody_serves_is_told_and_served_later),
        TEST(decline_reaches_who_offered_and_gives_no_credit),
        TEST(decline_of_what_was_not_dispatched_to_the_worker_is_rejected),
        TEST(decline_reaches_all_orchestrators_when_who_offered_is_gone),
        TEST(hedge_is_dispatched_and_told_as_one),
        TEST(paused_arm_gets_nothing_and_says_why),
        TEST(withdrawn_offer_is_not_dispatched),
        TEST(cancel_reaches_every_worker_and_voids_the_offers),
        TEST(drained_worker_is_told_and_gets_nothing_more),
        TEST_QUIET(full_broker_refuses_by_name_and_tells_when_there_is_room),
        TEST(worker_that_dies_is_lost_and_gets_nothing),
        TEST(offer_to_a_worker_that_just_died_goes_to_the_next),
        TEST(silent_worker_is_lost_after_three_beats),
        TEST(worker_that_says_bye_has_left),
        TEST(worker_started_again_takes_its_old_place),
        TEST(broker_that_was_killed_is_told_everything_again),
        TEST(peers_notice_at_once_that_a_broker_was_killed),
        TEST(hung_broker_is_lost_and_found),
        TEST(peer_may_be_closed_in_its_callback),
        TEST_QUIET(peer_introduces_itself_once_on_each_connection),
        TEST(tap_gets_the_events_of_its_prefix_and_others_are_not_sent),
        TEST(worker_beats_are_events_only_when_a_tap_wants_them),
        TEST(status_describes_the_workers_and_the_broker),
        TEST(status_has_the_states_of_models_and_what_the_gpu_measures),
        TEST(garbage_is_counted_and_does_no_harm),
        TEST(messages_that_their_sender_may_not_say_are_rejected),
        TEST(many_peers_come_and_go),
        TEST(second_broker_on_the_endpoint_says_so_and_ends),
        TEST(broker_that_is_told_to_stop_says_so_and_ends_cleanly),
        TEST_QUIET(broker_serves_tcp_too),
        TEST_QUIET(bad_options_are_usage_errors),
        TEST(offers_travel_fast),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
