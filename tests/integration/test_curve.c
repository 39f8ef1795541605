/* Keys at the broker: who gets in, what they may say, and who is shut out again. The broker runs on
 * the test's loop; whoever attacks it speaks for itself, over plain bus sockets. */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "broker/broker.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/peer.h"
#include "tests/lib/fixture.h"

#define WAIT_MS 30000
#define BEAT_MS 2000 /* of the broker: actors send none by themselves */
#define PEER_BEAT_MS 50

struct test {
    struct fixture fixture;
    uv_loop_t loop;
    char keys[96]; /* of the broker's host */
    char endpoint[64], taps[64];
    struct broker_options options;
    struct broker *broker;
    struct keyring_pair server;
    struct err err;
};

/* A socket with a key, or none. */
struct actor {
    struct test *test;
    struct bus *bus;
    struct bus_keys keys;
    bool up;
    size_t frames;
    size_t got[MESSAGE_TYPE_COUNT];
    struct msg_broker_info info; /* numbers only */
    char topic[200];             /* of the last event */
    size_t heard;                /* events but the broker's own */
    char admitted[512];          /* keys, as last told */
};

#define UNTIL(t, condition)                                                                        \
    for (int64_t until_ = clock_ms() + WAIT_MS; !(condition);) {                                   \
        if (clock_ms() > until_)                                                                   \
            fail_msg("waited in vain for %s", #condition);                                         \
        turn(t);                                                                                   \
    }

static void woken(uv_timer_t *timer)
{
    (void)timer;
}

/* One turn of the loop, of 20 ms at most. */
static void turn(struct test *t)
{
    uv_timer_t timer;
    uv_timer_init(&t->loop, &timer);
    uv_timer_start(&timer, woken, 20, 0);
    uv_run(&t->loop, UV_RUN_ONCE);
    uv_close((uv_handle_t *)&timer, NULL);
    uv_run(&t->loop, UV_RUN_NOWAIT);
}

/* --- the stage ---------------------------------------------------------------------------- */

static void start_broker(struct test *t)
{
    if (broker_open(&t->broker, &t->loop, &t->options, &t->err) != 0)
        fail_msg("%s", t->err.text);
}

static int setup_quiet(void **state)
{
    struct test *t = calloc(1, sizeof *t);
    fixture_init(&t->fixture);
    loop_init(&t->loop);
    int port = fixture_free_port();
    snprintf(t->keys, sizeof t->keys, "%s/keys", t->fixture.dir);
    snprintf(t->endpoint, sizeof t->endpoint, "tcp://127.0.0.1:%d", port);
    snprintf(t->taps, sizeof t->taps, "tcp://127.0.0.1:%d", port + 1);
    assert_int_equal(keyring_init(t->keys, &t->err), 0);
    assert_int_equal(keyring_load(t->keys, "broker", &t->server, &t->err), 0);
    t->options = (struct broker_options){
        .endpoint = t->endpoint, .taps = t->taps, .beat_ms = BEAT_MS, .keys = t->keys};
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
    unsetenv("ORCH_TEST_NO_CUT");
    unsetenv("ORCH_TEST_ADMIT_STRANGERS");
    broker_close(&t->broker);
    loop_finish(&t->loop);
    fixture_release(&t->fixture);
    free(t);
    return 0;
}

/* --- actors ------------------------------------------------------------------------------- */

static void keep_admitted(struct actor *actor, const struct msg_admitted *admitted)
{
    actor->admitted[0] = '\0';
    for (size_t i = 0; i < admitted->n_keys; i++)
        snprintf(actor->admitted + strlen(actor->admitted),
                 sizeof actor->admitted - strlen(actor->admitted), "%s\n", admitted->keys[i]);
}

static void on_frame(void *ctx, const struct bus_peer *from, const uint8_t *data, size_t len)
{
    struct actor *actor = ctx;
    struct message message;
    const char *topic;
    (void)from;
    actor->frames++;
    if (frame_is_event(data, len) && event_decode(&message, &topic, data, len) == 0) {
        snprintf(actor->topic, sizeof actor->topic, "%s", topic);
        actor->heard +=
            strcmp(topic, "broker.started") != 0 && strcmp(topic, "broker.rejected") != 0;
    } else if (message_decode(&message, data, len) == 0) {
        actor->got[message.type]++;
        if (message.type == MESSAGE_broker_info)
            actor->info = message.broker_info;
        if (message.type == MESSAGE_admitted)
            keep_admitted(actor, &message.admitted);
    } else {
        return;
    }
    message_release(&message);
}

static void on_link(void *ctx, bool up)
{
    ((struct actor *)ctx)->up = up;
}

static void own_key(struct test *t, struct actor *actor, const char *name)
{
    memcpy(actor->keys.server, t->server.public_key, KEYRING_KEY_SIZE);
    assert_int_equal(keyring_load(t->keys, name, &actor->keys.own, &t->err), 0);
}

static void new_key(struct test *t, struct actor *actor)
{
    memcpy(actor->keys.server, t->server.public_key, KEYRING_KEY_SIZE);
    assert_int_equal(keyring_make(&actor->keys.own, &t->err), 0);
}

/* A new key that a file of the broker's directory allows. */
static void allowed_key(struct test *t, struct actor *actor, const char *file)
{
    char name[160], text[64];
    new_key(t, actor);
    snprintf(name, sizeof name, "keys/allow/%s.pub", file);
    snprintf(text, sizeof text, "%s\n", actor->keys.own.public_key);
    fixture_write(&t->fixture, name, text);
}

static void open_at(struct test *t, struct actor *actor, enum bus_kind kind, bool secure)
{
    struct bus_options options = {.kind = kind,
                                  .endpoint = kind == BUS_SUB ? t->taps : t->endpoint,
                                  .subscribe = kind == BUS_SUB ? "" : NULL,
                                  .keys = secure ? &actor->keys : NULL};
    actor->test = t;
    if (bus_open(&actor->bus, &t->loop, &options, on_frame, actor, &t->err) != 0)
        fail_msg("%s", t->err.text);
    if (kind == BUS_DEALER)
        bus_watch(actor->bus, on_link);
}

static void leave(struct actor *actor)
{
    bus_close(&actor->bus);
}

static void send_message(struct actor *actor, struct message message)
{
    struct buf out = {0};
    message.source = "somebody/x";
    assert_int_equal(message_encode(&message, &out), 0);
    bus_send(actor->bus, NULL, out.data, out.len);
    buf_release(&out);
}

static void send_event(struct actor *actor, const char *topic, struct message event)
{
    struct buf out = {0};
    event.source = "somebody/x";
    event.sequence = 1;
    assert_int_equal(event_encode(topic, &event, &out), 0);
    bus_send(actor->bus, NULL, out.data, out.len);
    buf_release(&out);
}

static void send_hello(struct actor *actor, const char *name)
{
    struct message hello = {.type = MESSAGE_hello,
                            .hello = {.name = name, .boot = name, .host = "h"}};
    struct buf out = {0};
    char source[64];
    snprintf(source, sizeof source, "orchestrator/%s", name);
    hello.source = source;
    assert_int_equal(message_encode(&hello, &out), 0);
    assert_int_equal(bus_send(actor->bus, NULL, out.data, out.len), 0);
    buf_release(&out);
}

static void send_ready(struct actor *actor, const char *name, int64_t credit)
{
    const char *arms[] = {"m@p"};
    send_message(actor, (struct message){.type = MESSAGE_ready,
                                         .ready = {.name = name,
                                                   .boot = "b",
                                                   .host = "h",
                                                   .provider = "p",
                                                   .arms = arms,
                                                   .n_arms = 1,
                                                   .credit = credit,
                                                   .concurrency = 4}});
}

static void send_offer(struct actor *actor, const char *task)
{
    const char *arms[] = {"m@p"};
    int64_t after[] = {0};
    send_message(actor, (struct message){.type = MESSAGE_offer,
                                         .offer = {.task = task,
                                                   .sub = "s",
                                                   .shard = 1,
                                                   .arms = arms,
                                                   .n_arms = 1,
                                                   .after_ms = after,
                                                   .n_after_ms = 1}});
}

/* The orchestrator of the broker's own host. */
static void enter_orchestrator(struct test *t, struct actor *actor)
{
    own_key(t, actor, "orchestrator");
    open_at(t, actor, BUS_DEALER, true);
    UNTIL(t, actor->up);
    send_hello(actor, "o");
    UNTIL(t, actor->got[MESSAGE_welcome] == 1);
}

static void enter_worker(struct test *t, struct actor *actor, const char *name)
{
    open_at(t, actor, BUS_DEALER, true);
    UNTIL(t, actor->up);
    send_ready(actor, name, 4);
    UNTIL(t, actor->got[MESSAGE_welcome] == 1);
}

/* What the broker has counted, and seen, up to everything sent before. */
static struct msg_broker_info ask(struct test *t, struct actor *orchestrator)
{
    size_t before = orchestrator->got[MESSAGE_broker_info];
    send_message(orchestrator, (struct message){.type = MESSAGE_status});
    UNTIL(t, orchestrator->got[MESSAGE_broker_info] > before);
    return orchestrator->info;
}

/* Tells who was invited: `ROLE NAME` with the actor's key; NULL: nobody. */
static void tell_keys(struct test *t, struct actor *orchestrator, const char *who,
                      const struct actor *actor)
{
    char line[200];
    const char *lines[] = {line};
    if (who != NULL)
        snprintf(line, sizeof line, "%s %s", who, actor->keys.own.public_key);
    send_message(orchestrator, (struct message){.type = MESSAGE_keys,
                                                .keys = {.keys = lines, .n_keys = who != NULL}});
    ask(t, orchestrator);
}

/* Makes events of the worker, until both taps have heard one. */
static void make_heard(struct test *t, struct actor *worker, const struct actor *tap,
                       const struct actor *other)
{
    int64_t until = clock_ms() + WAIT_MS;
    while (tap->frames == 0 || other->frames == 0) {
        send_message(worker, (struct message){.type = MESSAGE_beat});
        turn(t);
        assert_true(clock_ms() < until);
    }
}

/* --- getting in --------------------------------------------------------------------------- */

static void known_keys_come_in_and_work(void **state)
{
    struct test *t = *state;
    struct actor worker = {0}, orchestrator = {0};
    allowed_key(t, &worker, "worker-a");
    start_broker(t);
    enter_orchestrator(t, &orchestrator);
    enter_worker(t, &worker, "a");
    send_offer(&orchestrator, "t1");
    UNTIL(t, worker.got[MESSAGE_dispatch] == 1 && orchestrator.got[MESSAGE_taken] == 1);
    struct msg_broker_info info = ask(t, &orchestrator);
    assert_int_equal(info.refused, 0);
    assert_int_equal(info.foreign, 0);
    assert_int_equal(info.rejected, 0);
    assert_int_equal(info.connections, 2);
    leave(&worker);
    leave(&orchestrator);
}

static void strangers_are_refused_with_and_without_a_key(void **state)
{
    struct test *t = *state;
    struct actor unknown = {0}, plain = {0}, orchestrator = {0};
    enter_orchestrator(t, &orchestrator);
    tell_keys(t, &orchestrator, NULL, NULL); /* from now on the list is complete */
    new_key(t, &unknown);
    open_at(t, &unknown, BUS_DEALER, true);
    open_at(t, &plain, BUS_DEALER, false);
    UNTIL(t, ask(t, &orchestrator).refused >= 2);
    assert_false(unknown.up);
    assert_false(plain.up);
    assert_int_equal(unknown.frames + plain.frames, 0);
    leave(&unknown);
    leave(&plain);
    leave(&orchestrator);
}

static void a_broker_that_lets_strangers_in_does_not_start(void **state)
{
    struct test *t = *state;
    setenv("ORCH_TEST_ADMIT_STRANGERS", "1", 1);
    assert_int_equal(broker_open(&t->broker, &t->loop, &t->options, &t->err), -EACCES);
    assert_non_null(strstr(t->err.text, "a key that nobody knows"));
    assert_null(t->broker);
    unsetenv("ORCH_TEST_ADMIT_STRANGERS");
    UNTIL(t, broker_open(&t->broker, &t->loop, &t->options, &t->err) == 0);
}

static void a_broker_without_its_key_does_not_start(void **state)
{
    struct test *t = *state;
    char path[128];
    snprintf(path, sizeof path, "%s/broker.key", t->keys);
    assert_int_equal(chmod(path, 0644), 0);
    assert_int_equal(broker_open(&t->broker, &t->loop, &t->options, &t->err), -EPERM);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(broker_open(&t->broker, &t->loop, &t->options, &t->err), -ENOENT);
}

static void a_false_broker_is_not_spoken_to(void **state)
{
    struct test *t = *state;
    struct actor orchestrator = {0}, deceived = {0};
    struct keyring_pair other;
    enter_orchestrator(t, &orchestrator);
    own_key(t, &deceived, "orchestrator");
    assert_int_equal(keyring_make(&other, &t->err), 0);
    memcpy(deceived.keys.server, other.public_key, KEYRING_KEY_SIZE);
    open_at(t, &deceived, BUS_DEALER, true);
    UNTIL(t, ask(t, &orchestrator).refused > 0);
    assert_false(deceived.up);
    leave(&deceived);
    leave(&orchestrator);
}

static void a_tap_reaches_the_taps_only_and_a_worker_the_broker_only(void **state)
{
    struct test *t = *state;
    struct actor tap = {0}, worker = {0}, orchestrator = {0}, both = {0};
    allowed_key(t, &tap, "tap-screen");
    allowed_key(t, &worker, "worker-a");
    start_broker(t);
    enter_orchestrator(t, &orchestrator);
    tell_keys(t, &orchestrator, NULL, NULL);
    own_key(t, &both, "orchestrator");
    struct actor tap_here = tap, worker_there = worker;
    open_at(t, &tap, BUS_SUB, true);
    open_at(t, &both, BUS_SUB, true);
    open_at(t, &tap_here, BUS_DEALER, true);
    UNTIL(t, ask(t, &orchestrator).refused == 1);
    open_at(t, &worker_there, BUS_SUB, true);
    UNTIL(t, ask(t, &orchestrator).refused >= 2);
    enter_worker(t, &worker, "a");
    make_heard(t, &worker, &tap, &both);
    assert_false(tap_here.up);
    assert_int_equal(worker_there.frames, 0);
    leave(&tap);
    leave(&both);
    leave(&tap_here);
    leave(&worker_there);
    leave(&worker);
    leave(&orchestrator);
}

/* --- what a key may say ------------------------------------------------------------------- */

static void a_worker_comes_in_under_its_keys_name_only(void **state)
{
    struct test *t = *state;
    struct actor worker = {0}, orchestrator = {0};
    allowed_key(t, &worker, "worker-a");
    start_broker(t);
    enter_orchestrator(t, &orchestrator);
    open_at(t, &worker, BUS_DEALER, true);
    UNTIL(t, worker.up);
    send_ready(&worker, "b", 4);
    UNTIL(t, ask(t, &orchestrator).foreign == 1);
    assert_int_equal(orchestrator.info.workers, 0);
    send_ready(&worker, "a", 4);
    UNTIL(t, ask(t, &orchestrator).workers == 1);
    assert_int_equal(orchestrator.info.foreign, 1);
    leave(&worker);
    leave(&orchestrator);
}

/* Every message, from a key that may not send it. */
static void messages_of_another_role_are_dropped_and_counted(void **state)
{
    static const enum message_type of_orchestrators[] = {
        MESSAGE_hello, MESSAGE_offer,  MESSAGE_withdraw, MESSAGE_cancel,
        MESSAGE_drain, MESSAGE_status, MESSAGE_keys};
    static const enum message_type of_workers[] = {MESSAGE_ready, MESSAGE_credit, MESSAGE_decline};
    struct test *t = *state;
    struct actor worker = {0}, watched = {0}, orchestrator = {0}, second = {0};
    allowed_key(t, &worker, "worker-a");
    allowed_key(t, &watched, "worker-b");
    start_broker(t);
    enter_orchestrator(t, &orchestrator);
    enter_worker(t, &watched, "b");
    open_at(t, &worker, BUS_DEALER, true); /* does not introduce itself */
    UNTIL(t, worker.up);
    size_t n = sizeof of_orchestrators / sizeof *of_orchestrators;
    for (size_t i = 0; i < n; i++) {
        if (of_orchestrators[i] == MESSAGE_hello)
            send_hello(&worker, "x");
        else
            send_message(&worker, (struct message){.type = of_orchestrators[i]});
        UNTIL(t, ask(t, &orchestrator).foreign == (int64_t)i + 1);
    }
    assert_int_equal(worker.frames, 0);
    own_key(t, &second, "orchestrator");
    open_at(t, &second, BUS_DEALER, true);
    UNTIL(t, second.up);
    send_ready(&second, "o", 4);
    UNTIL(t, ask(t, &orchestrator).foreign == (int64_t)n + 1);
    for (size_t i = 1; i < sizeof of_workers / sizeof *of_workers; i++) {
        send_message(&second, (struct message){.type = of_workers[i]});
        UNTIL(t, ask(t, &orchestrator).foreign == (int64_t)(n + i) + 1);
    }
    assert_int_equal(watched.got[MESSAGE_cancel] + watched.got[MESSAGE_drain], 0);
    assert_int_equal(orchestrator.info.workers, 1);
    assert_int_equal(orchestrator.info.orchestrators, 1);
    leave(&worker);
    leave(&watched);
    leave(&second);
    leave(&orchestrator);
}

static void a_worker_speaks_of_itself_and_of_its_tasks_only(void **state)
{
    struct test *t = *state;
    struct actor worker = {0}, orchestrator = {0}, tap = {0};
    static const struct {
        const char *topic, *name, *task, *worker;
        enum message_type type;
        bool allowed;
    } events[] = {
        {"worker.a.note", "a", "", "", MESSAGE_worker_event, true},
        {"worker.b.note", "b", "", "", MESSAGE_worker_event, false},
        {"worker.a.note", "b", "", "", MESSAGE_worker_event, false},
        {"worker.b.note", "a", "", "", MESSAGE_worker_event, false},
        {"worker.ab.note", "a", "", "", MESSAGE_worker_event, false},
        {"broker.stopping", "a", "", "", MESSAGE_worker_event, false},
        {"broker.stopping", "", "", "", MESSAGE_broker_event, false},
        {"task.t1.done", "", "t1", "a", MESSAGE_sub_event, true},
        {"task.t1.done", "", "t1", "", MESSAGE_sub_event, true},
        {"task.t1.done", "", "t1", "b", MESSAGE_sub_event, false},
        {"task.t2.done", "", "t2", "a", MESSAGE_sub_event, false},
        {"task.t2.done", "", "t1", "a", MESSAGE_sub_event, false},
        {"task.t1.done", "", "t2", "a", MESSAGE_sub_event, false},
        {"task.t1.done", "", "t1", "", MESSAGE_task_event, false},
        {"task.t1.chunk", "", "t1", "", MESSAGE_chunk, true},
        {"task.t2.chunk", "", "t2", "", MESSAGE_chunk, false},
    };
    allowed_key(t, &worker, "worker-a");
    start_broker(t);
    enter_orchestrator(t, &orchestrator);
    enter_worker(t, &worker, "a");
    send_offer(&orchestrator, "t1");
    UNTIL(t, worker.got[MESSAGE_dispatch] == 1);
    own_key(t, &tap, "orchestrator");
    open_at(t, &tap, BUS_SUB, true);
    UNTIL(t, tap.frames > 0); /* the worker's beats */
    int64_t refused = 0;
    size_t published = 0;
    tap.heard = 0;
    for (size_t i = 0; i < sizeof events / sizeof *events; i++) {
        struct message event = {.type = events[i].type};
        if (event.type == MESSAGE_worker_event)
            event.worker_event.name = events[i].name;
        else if (event.type == MESSAGE_sub_event)
            event.sub_event =
                (struct msg_sub_event){.task = events[i].task, .worker = events[i].worker};
        else if (event.type == MESSAGE_chunk)
            event.chunk.task = events[i].task;
        else if (event.type == MESSAGE_task_event)
            event.task_event.task = events[i].task;
        tap.topic[0] = '\0';
        send_event(&worker, events[i].topic, event);
        refused += events[i].allowed ? 0 : 1;
        published += events[i].allowed ? 1 : 0;
        if (events[i].allowed)
            UNTIL(t, strcmp(tap.topic, events[i].topic) == 0)
        else
            UNTIL(t, ask(t, &orchestrator).foreign == refused);
        assert_int_equal(ask(t, &orchestrator).foreign, refused);
    }
    send_event(&worker, "worker.a.last",
               (struct message){.type = MESSAGE_worker_event, .worker_event = {.name = "a"}});
    UNTIL(t, strcmp(tap.topic, "worker.a.last") == 0);
    assert_int_equal(tap.heard, published + 1);
    leave(&tap);
    leave(&worker);
    leave(&orchestrator);
}

/* --- invited and revoked ------------------------------------------------------------------ */

static void introduce_nothing(void *ctx, int broker)
{
    (void)ctx, (void)broker;
}

static void take_nothing(void *ctx, int broker, const struct message *message)
{
    (void)ctx, (void)broker, (void)message;
}

static void who_is_invited_comes_in_without_a_restart(void **state)
{
    struct test *t = *state;
    struct actor orchestrator = {0}, key = {0};
    struct config *config;
    struct peer *peer;
    char yaml[512], dir[128];
    enter_orchestrator(t, &orchestrator);
    tell_keys(t, &orchestrator, NULL, NULL);
    /* The other host: the brokers' public key and its own pair. */
    snprintf(dir, sizeof dir, "%s/other", t->fixture.dir);
    new_key(t, &key);
    assert_int_equal(keyring_save(dir, "worker-a", &key.keys.own, &t->err), 0);
    char text[64];
    snprintf(text, sizeof text, "%s\n", t->server.public_key);
    fixture_write(&t->fixture, "other/broker.pub", text);
    int len = snprintf(yaml, sizeof yaml,
                       "bus: {brokers: ['%s'], heartbeat_ms: %d, curve: {enabled: true, keys: "
                       "'%s'}}\nproviders: {p: {api: noop}}\nmodels: {m: {provider: p}}\n",
                       t->endpoint, PEER_BEAT_MS, dir);
    if (config_parse(&config, "test", yaml, (size_t)len, &t->err) != 0)
        fail_msg("%s", t->err.text);
    static const struct peer_callbacks callbacks = {.introduce = introduce_nothing,
                                                    .message = take_nothing};
    if (peer_open(&peer, &t->loop, config, "worker/a", "b1", &callbacks, NULL, &t->err) != 0)
        fail_msg("%s", t->err.text);
    UNTIL(t, ask(t, &orchestrator).refused >= 2); /* also its second socket */
    assert_false(peer_connected(peer, 0));
    tell_keys(t, &orchestrator, "worker a", &key);
    UNTIL(t, peer_connected(peer, 0)); /* the broker answered its heartbeat */
    peer_close(&peer);
    config_free(&config);
    leave(&orchestrator);
}

static void a_key_is_put_off_until_an_orchestrator_has_told_who_was_invited(void **state)
{
    struct test *t = *state;
    struct actor worker = {0}, orchestrator = {0};
    new_key(t, &worker);
    open_at(t, &worker, BUS_DEALER, true);
    enter_orchestrator(t, &orchestrator);
    assert_int_equal(ask(t, &orchestrator).refused, 0);
    tell_keys(t, &orchestrator, "worker a", &worker);
    UNTIL(t, worker.up); /* over the very connection */
    assert_int_equal(ask(t, &orchestrator).refused, 0);
    leave(&worker);
    leave(&orchestrator);
}

static void who_tells_keys_is_told_who_came_with_them(void **state)
{
    struct test *t = *state;
    struct actor worker = {0}, tap = {0}, orchestrator = {0};
    allowed_key(t, &tap, "tap-screen");
    start_broker(t);
    new_key(t, &worker);
    enter_orchestrator(t, &orchestrator);
    tell_keys(t, &orchestrator, "worker a", &worker);
    assert_int_equal(orchestrator.got[MESSAGE_admitted], 1);
    assert_null(strstr(orchestrator.admitted, worker.keys.own.public_key));
    open_at(t, &worker, BUS_DEALER, true);
    UNTIL(t, strstr(orchestrator.admitted, worker.keys.own.public_key) != NULL);
    open_at(t, &tap, BUS_SUB, true);
    UNTIL(t, strstr(orchestrator.admitted, tap.keys.own.public_key) != NULL);
    /* Also who asks later. */
    orchestrator.admitted[0] = '\0';
    tell_keys(t, &orchestrator, "worker a", &worker);
    assert_non_null(strstr(orchestrator.admitted, worker.keys.own.public_key));
    tell_keys(t, &orchestrator, NULL, NULL);
    assert_null(strstr(orchestrator.admitted, worker.keys.own.public_key));
    leave(&worker);
    leave(&tap);
    leave(&orchestrator);
}

static void a_revoked_workers_messages_are_dropped_at_once(void **state)
{
    struct test *t = *state;
    struct actor worker = {0}, orchestrator = {0}, other = {0};
    setenv("ORCH_TEST_NO_CUT", "1", 1); /* its connection stays, as if the end were slow to come */
    allowed_key(t, &other, "worker-b");
    start_broker(t);
    new_key(t, &worker);
    enter_orchestrator(t, &orchestrator);
    tell_keys(t, &orchestrator, "worker a", &worker);
    enter_worker(t, &worker, "a");
    tell_keys(t, &orchestrator, NULL, NULL);
    assert_int_equal(ask(t, &orchestrator).workers, 0);
    size_t dispatched = worker.got[MESSAGE_dispatch];
    send_ready(&worker, "a", 4);
    UNTIL(t, ask(t, &orchestrator).foreign == 1);
    assert_int_equal(orchestrator.info.workers, 0);
    send_event(&worker, "worker.a.note",
               (struct message){.type = MESSAGE_worker_event, .worker_event = {.name = "a"}});
    UNTIL(t, ask(t, &orchestrator).foreign == 2);
    /* What it would have got goes to another one. */
    send_offer(&orchestrator, "t1");
    enter_worker(t, &other, "b");
    UNTIL(t, other.got[MESSAGE_dispatch] == 1);
    assert_int_equal(worker.got[MESSAGE_dispatch], dispatched);
    leave(&worker);
    leave(&other);
    leave(&orchestrator);
}

static void a_revoked_workers_connection_ends_and_it_does_not_come_back(void **state)
{
    struct test *t = *state;
    struct actor worker = {0}, again = {0}, orchestrator = {0};
    new_key(t, &worker);
    enter_orchestrator(t, &orchestrator);
    tell_keys(t, &orchestrator, "worker a", &worker);
    enter_worker(t, &worker, "a");
    tell_keys(t, &orchestrator, NULL, NULL);
    UNTIL(t, !worker.up);
    again.keys = worker.keys;
    int64_t refused = ask(t, &orchestrator).refused;
    open_at(t, &again, BUS_DEALER, true);
    UNTIL(t, ask(t, &orchestrator).refused > refused);
    assert_false(again.up || worker.up);
    leave(&worker);
    leave(&again);
    leave(&orchestrator);
}

static void a_revoked_tap_hears_nothing_more_and_others_do(void **state)
{
    struct test *t = *state;
    struct actor tap = {0}, other = {0}, worker = {0}, orchestrator = {0};
    allowed_key(t, &worker, "worker-a");
    start_broker(t);
    new_key(t, &tap);
    enter_orchestrator(t, &orchestrator);
    tell_keys(t, &orchestrator, "tap screen", &tap);
    enter_worker(t, &worker, "a");
    own_key(t, &other, "orchestrator");
    open_at(t, &other, BUS_SUB, true);
    open_at(t, &tap, BUS_SUB, true);
    make_heard(t, &worker, &tap, &other);
    tell_keys(t, &orchestrator, NULL, NULL);
    int64_t refused = orchestrator.info.refused;
    UNTIL(t, ask(t, &orchestrator).refused > refused); /* it has tried again */
    tap.frames = other.frames = 0;
    make_heard(t, &worker, &other, &other); /* it has subscribed again */
    assert_int_equal(tap.frames, 0);
    leave(&tap);
    leave(&other);
    leave(&worker);
    leave(&orchestrator);
}

static void a_file_that_comes_or_goes_is_noticed(void **state)
{
    struct test *t = *state;
    struct actor worker = {0}, orchestrator = {0};
    char path[128];
    enter_orchestrator(t, &orchestrator);
    tell_keys(t, &orchestrator, NULL, NULL);
    allowed_key(t, &worker, "worker-a");
    for (int64_t until = clock_ms() + WAIT_MS; !worker.up;) { /* refused, until it is noticed */
        int64_t refused = ask(t, &orchestrator).refused;
        bus_close(&worker.bus);
        open_at(t, &worker, BUS_DEALER, true);
        UNTIL(t, worker.up || ask(t, &orchestrator).refused > refused);
        assert_true(clock_ms() < until);
    }
    send_ready(&worker, "a", 4);
    UNTIL(t, ask(t, &orchestrator).workers == 1);
    snprintf(path, sizeof path, "%s/allow/worker-a.pub", t->keys);
    assert_int_equal(unlink(path), 0);
    UNTIL(t, ask(t, &orchestrator).workers == 0 && !worker.up);
    leave(&worker);
    leave(&orchestrator);
}

static void only_orchestrators_are_believed_about_keys(void **state)
{
    struct test *t = *state;
    struct actor worker = {0}, friend = {0}, orchestrator = {0};
    allowed_key(t, &worker, "worker-a");
    start_broker(t);
    enter_orchestrator(t, &orchestrator);
    enter_worker(t, &worker, "a");
    new_key(t, &friend);
    char line[200];
    const char *lines[] = {line};
    snprintf(line, sizeof line, "orchestrator x %s", friend.keys.own.public_key);
    send_message(&worker,
                 (struct message){.type = MESSAGE_keys, .keys = {.keys = lines, .n_keys = 1}});
    UNTIL(t, ask(t, &orchestrator).rejected + orchestrator.info.foreign == 1);
    tell_keys(t, &orchestrator, NULL, NULL);
    open_at(t, &friend, BUS_DEALER, true);
    UNTIL(t, ask(t, &orchestrator).refused == 1);
    assert_false(friend.up);
    leave(&worker);
    leave(&friend);
    leave(&orchestrator);
}

/* --- the program -------------------------------------------------------------------------- */

static int run_broker(struct test *t, const char *config, const char *endpoint, const char *more,
                      struct buf *errors)
{
    char taps[80];
    snprintf(taps, sizeof taps, "ipc://%s/taps.sock", t->fixture.dir);
    const char *argv[] = {"orchestrator-broker",
                          "--config",
                          config,
                          "--endpoint",
                          endpoint,
                          "--taps",
                          taps,
                          more,
                          NULL};
    buf_clear(errors);
    return fixture_run(&t->fixture, argv, NULL, errors);
}

static void a_bind_that_others_reach_is_refused_without_keys(void **state)
{
    struct test *t = *state;
    struct buf errors = {0};
    char endpoint[64], open_to_all[128], path[160];
    snprintf(endpoint, sizeof endpoint, "tcp://0.0.0.0:%d", fixture_free_port());
    snprintf(open_to_all, sizeof open_to_all, "bus: {brokers: ['%s'], curve: {enabled: false}}\n",
             endpoint);
    /* No keys yet. */
    snprintf(
        path, sizeof path, "%s",
        fixture_write(&t->fixture, "c.yaml", "bus: {brokers: [local], curve: {keys: 'none'}}\n"));
    assert_int_equal(run_broker(t, path, endpoint, NULL, &errors), 3);
    assert_non_null(strstr(errors.data, "orchestrator keys init"));
    /* Said no, without saying it twice. */
    fixture_write(&t->fixture, "c.yaml", open_to_all);
    assert_int_equal(run_broker(t, path, endpoint, NULL, &errors), 2);
    assert_non_null(strstr(errors.data, "orchestrator keys init"));
    assert_non_null(strstr(errors.data, "--insecure"));
    /* Said twice. */
    char taps[80];
    snprintf(taps, sizeof taps, "ipc://%s/taps.sock", t->fixture.dir);
    const char *argv[] = {
        "orchestrator-broker", "--config", path, "--endpoint", endpoint, "--taps", taps,
        "--insecure",          NULL};
    pid_t pid = fixture_spawn(&t->fixture, "broker.log", argv);
    assert_true(fixture_wait_text(&t->fixture, "broker.log", "serves", WAIT_MS));
    fixture_kill(&t->fixture, pid, SIGTERM);
    buf_release(&errors);
}

static void the_program_keeps_strangers_out(void **state)
{
    struct test *t = *state;
    struct actor plain = {0}, orchestrator = {0};
    char yaml[400], path[160];
    snprintf(yaml, sizeof yaml,
             "bus: {brokers: ['%s'], heartbeat_ms: %d, curve: {enabled: true, keys: '%s'}}\n",
             t->endpoint, BEAT_MS, t->keys);
    snprintf(path, sizeof path, "%s", fixture_write(&t->fixture, "c.yaml", yaml));
    const char *argv[] = {"orchestrator-broker", "--config", path, NULL};
    fixture_spawn(&t->fixture, "broker.log", argv);
    assert_true(fixture_wait_text(&t->fixture, "broker.log", "to known keys only", WAIT_MS));
    enter_orchestrator(t, &orchestrator);
    assert_int_equal(ask(t, &orchestrator).refused, 0); /* its own test is not counted */
    open_at(t, &plain, BUS_DEALER, false);
    UNTIL(t, ask(t, &orchestrator).refused > 0);
    assert_false(plain.up);
    leave(&plain);
    leave(&orchestrator);
}

#define TEST(fn, how) cmocka_unit_test_setup_teardown(fn, how, teardown)
int main(void)
{
    log_init("test_curve", LOG_LEVEL_ERROR); /* ORCHESTRATOR_LOG=warn shows what brokers tell */
    const struct CMUnitTest tests[] = {
        TEST(known_keys_come_in_and_work, setup_quiet),
        TEST(strangers_are_refused_with_and_without_a_key, setup),
        TEST(a_broker_that_lets_strangers_in_does_not_start, setup_quiet),
        TEST(a_broker_without_its_key_does_not_start, setup_quiet),
        TEST(a_false_broker_is_not_spoken_to, setup),
        TEST(a_tap_reaches_the_taps_only_and_a_worker_the_broker_only, setup_quiet),
        TEST(a_worker_comes_in_under_its_keys_name_only, setup_quiet),
        TEST(messages_of_another_role_are_dropped_and_counted, setup_quiet),
        TEST(a_worker_speaks_of_itself_and_of_its_tasks_only, setup_quiet),
        TEST(who_is_invited_comes_in_without_a_restart, setup),
        TEST(a_key_is_put_off_until_an_orchestrator_has_told_who_was_invited, setup),
        TEST(who_tells_keys_is_told_who_came_with_them, setup_quiet),
        TEST(a_revoked_workers_messages_are_dropped_at_once, setup_quiet),
        TEST(a_revoked_workers_connection_ends_and_it_does_not_come_back, setup),
        TEST(a_revoked_tap_hears_nothing_more_and_others_do, setup_quiet),
        TEST(a_file_that_comes_or_goes_is_noticed, setup),
        TEST(only_orchestrators_are_believed_about_keys, setup_quiet),
        TEST(a_bind_that_others_reach_is_refused_without_keys, setup_quiet),
        TEST(the_program_keeps_strangers_out, setup_quiet),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
