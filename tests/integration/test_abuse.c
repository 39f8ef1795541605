/* Peers that flood, boast, babble, stay silent or come in crowds: each is cut off or bounded and
 * counted, and the work beside it goes on. The broker runs on the test's loop. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "broker/broker.h"
#include "common/bus.h"
#include "common/clock.h"
#include "common/log.h"
#include "schemas/mem.h"
#include "schemas/message.h"
#include "tests/lib/fixture.h"

#define WAIT_MS 30000
#define BEAT_MS 500
#define RATE 4000 /* messages a second of one peer */
#define CONNECTIONS 64

struct test {
    struct fixture fixture;
    uv_loop_t loop;
    int port;
    char endpoint[64], taps[64];
    struct broker_options options;
    struct broker *broker;
    struct err err;
    size_t tasks; /* offered so far */
};

struct actor {
    struct bus *bus;
    struct bus_keys keys;
    bool up, was_down;
    int64_t beat_ms; /* when it last sent one */
    size_t frames;
    size_t got[MESSAGE_TYPE_COUNT];
    bool all; /* of the last `topics` */
    struct msg_broker_info info;
};

/* The healthy work: a worker that takes everything, and who offers it. */
struct healthy {
    struct actor worker, orchestrator;
};

static struct healthy healthy;

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

static void send_message(struct actor *actor, struct message message)
{
    struct buf out = {0};
    if (message.source == NULL)
        message.source = "somebody/x";
    assert_int_equal(message_encode(&message, &out), 0);
    bus_send(actor->bus, NULL, out.data, out.len);
    buf_release(&out);
}

static void beat(struct actor *actor)
{
    if (actor->bus == NULL || clock_ms() - actor->beat_ms < BEAT_MS)
        return;
    actor->beat_ms = clock_ms();
    send_message(actor, (struct message){.type = MESSAGE_beat});
}

/* One turn of the loop, of 20 ms at most; the healthy ones stay alive. */
static void turn(struct test *t)
{
    uv_timer_t timer;
    beat(&healthy.worker);
    beat(&healthy.orchestrator);
    uv_timer_init(&t->loop, &timer);
    uv_timer_start(&timer, woken, 20, 0);
    uv_run(&t->loop, UV_RUN_ONCE);
    uv_close((uv_handle_t *)&timer, NULL);
    uv_run(&t->loop, UV_RUN_NOWAIT);
}

static void on_frame(void *ctx, const struct bus_peer *from, const uint8_t *data, size_t len)
{
    struct actor *actor = ctx;
    struct message message;
    (void)from;
    actor->frames++;
    if (frame_is_event(data, len) || message_decode(&message, data, len) != 0)
        return;
    actor->got[message.type]++;
    if (message.type == MESSAGE_broker_info)
        actor->info = message.broker_info;
    if (message.type == MESSAGE_topics)
        actor->all = message.topics.all;
    message_release(&message);
}

static void on_link(void *ctx, bool up)
{
    struct actor *actor = ctx;
    actor->up = up;
    actor->was_down |= !up;
}

static void enter(struct test *t, struct actor *actor, enum bus_kind kind)
{
    struct bus_options options = {.kind = kind,
                                  .endpoint = kind == BUS_SUB ? t->taps : t->endpoint,
                                  .keys = actor->keys.server[0] != '\0' ? &actor->keys : NULL};
    if (bus_open(&actor->bus, &t->loop, &options, on_frame, actor, &t->err) != 0)
        fail_msg("%s", t->err.text);
    if (kind != BUS_DEALER)
        return;
    bus_watch(actor->bus, on_link);
    UNTIL(t, actor->up);
}

static void leave(struct actor *actor)
{
    bus_close(&actor->bus);
}

static void send_ready(struct actor *actor, const char *name, const char *arm, int64_t concurrency)
{
    send_message(actor, (struct message){.type = MESSAGE_ready,
                                         .ready = {.name = name,
                                                   .boot = name,
                                                   .host = "h",
                                                   .provider = "p",
                                                   .arms = &arm,
                                                   .n_arms = 1,
                                                   .credit = concurrency,
                                                   .concurrency = concurrency}});
}

static struct msg_broker_info ask(struct test *t)
{
    struct actor *actor = &healthy.orchestrator;
    size_t before = actor->got[MESSAGE_broker_info];
    send_message(actor, (struct message){.type = MESSAGE_status});
    UNTIL(t, actor->got[MESSAGE_broker_info] > before);
    return actor->info;
}

/* Work is offered, dispatched, and done. */
static void work_goes_on(struct test *t)
{
    const char *arms[] = {"m@healthy"};
    int64_t after[] = {0};
    for (int i = 0; i < 20; i++) {
        char task[32];
        size_t before = healthy.worker.got[MESSAGE_dispatch];
        snprintf(task, sizeof task, "t%zu", ++t->tasks);
        send_message(&healthy.orchestrator, (struct message){.type = MESSAGE_offer,
                                                             .offer = {.task = task,
                                                                       .sub = "s",
                                                                       .shard = 1,
                                                                       .arms = arms,
                                                                       .n_arms = 1,
                                                                       .after_ms = after,
                                                                       .n_after_ms = 1}});
        UNTIL(t, healthy.worker.got[MESSAGE_dispatch] == before + 1);
        send_message(&healthy.worker,
                     (struct message){.type = MESSAGE_credit, .credit = {.grant = 1}});
    }
}

static int start(struct test *t)
{
    if (broker_open(&t->broker, &t->loop, &t->options, &t->err) != 0)
        fail_msg("%s", t->err.text);
    enter(t, &healthy.worker, BUS_DEALER);
    send_ready(&healthy.worker, "healthy", "m@healthy", 4);
    enter(t, &healthy.orchestrator, BUS_DEALER);
    send_message(&healthy.orchestrator,
                 (struct message){.type = MESSAGE_hello,
                                  .source = "orchestrator/o",
                                  .hello = {.name = "o", .boot = "o", .host = "h"}});
    UNTIL(t, healthy.worker.got[MESSAGE_welcome] + healthy.orchestrator.got[MESSAGE_welcome] == 2);
    return 0;
}

/* --- a process that can be stopped ---------------------------------------------------------- */

/* Reads as a tap of everything or a worker, in a process that was forked before zmq had threads. */
struct reader {
    pid_t pid;
    int go, ready; /* pipes */
};

static struct reader reader;

static void read_for_ever(struct test *t, enum bus_kind kind)
{
    struct actor actor = {0};
    uv_loop_t loop;
    struct bus_options options = {.kind = kind,
                                  .endpoint = kind == BUS_SUB ? t->taps : t->endpoint,
                                  .subscribe = kind == BUS_SUB ? "" : NULL};
    if (uv_loop_init(&loop) != 0 ||
        bus_open(&actor.bus, &loop, &options, on_frame, &actor, NULL) != 0)
        _exit(1);
    if (kind == BUS_DEALER) {
        bus_watch(actor.bus, on_link);
        while (!actor.up)
            uv_run(&loop, UV_RUN_ONCE);
        send_ready(&actor, "sleeper", "m@sleeper", 4);
    }
    while (actor.frames == 0)
        uv_run(&loop, UV_RUN_ONCE);
    if (write(reader.ready, "x", 1) != 1)
        _exit(1);
    for (;;)
        uv_run(&loop, UV_RUN_ONCE);
}

static void fork_reader(struct test *t, enum bus_kind kind)
{
    int go[2], ready[2];
    char byte;
    assert_int_equal(pipe(go) + pipe(ready), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    reader = pid > 0 ? (struct reader){pid, go[1], ready[0]} : (struct reader){0, go[0], ready[1]};
    close(pid > 0 ? go[0] : go[1]);
    close(pid > 0 ? ready[1] : ready[0]);
    if (pid > 0)
        return;
    if (read(reader.go, &byte, 1) != 1) /* the test has ended */
        _exit(1);
    read_for_ever(t, kind);
}

/* Until it has got something. */
static void start_reader(struct test *t)
{
    struct pollfd item = {.fd = reader.ready, .events = POLLIN};
    assert_int_equal(write(reader.go, "x", 1), 1);
    UNTIL(t, poll(&item, 1, 0) == 1);
}

static void end_reader(void)
{
    if (reader.pid == 0)
        return;
    kill(reader.pid, SIGKILL);
    waitpid(reader.pid, NULL, 0);
    close(reader.go);
    close(reader.ready);
    reader.pid = 0;
}

/* --- setting up ---------------------------------------------------------------------------- */

static int setup_quiet(void **state)
{
    struct test *t = calloc(1, sizeof *t);
    healthy = (struct healthy){0};
    fixture_init(&t->fixture);
    loop_init(&t->loop);
    t->port = fixture_free_port();
    snprintf(t->endpoint, sizeof t->endpoint, "tcp://127.0.0.1:%d", t->port);
    snprintf(t->taps, sizeof t->taps, "tcp://127.0.0.1:%d", t->port + 1);
    t->options = (struct broker_options){.endpoint = t->endpoint,
                                         .taps = t->taps,
                                         .beat_ms = BEAT_MS,
                                         .max_rate = RATE,
                                         .introduce_ms = 2 * BEAT_MS,
                                         .max_connections = CONNECTIONS};
    *state = t;
    return 0;
}

static int setup(void **state)
{
    setup_quiet(state);
    return start(*state);
}

/* Nobody is cut off for being silent. */
static int setup_patient(void **state)
{
    setup_quiet(state);
    ((struct test *)*state)->options.introduce_ms = 100 * WAIT_MS;
    return start(*state);
}

/* The healthy ones send a lot themselves. */
static int setup_busy(void **state, enum bus_kind kind)
{
    struct test *t;
    setup_quiet(state);
    t = *state;
    t->options.max_rate = 100 * 1000 * 1000;
    fork_reader(t, kind);
    return start(t);
}

static int setup_tap(void **state)
{
    return setup_busy(state, BUS_SUB);
}

static int setup_sleeper(void **state)
{
    return setup_busy(state, BUS_DEALER);
}

static int teardown(void **state)
{
    struct test *t = *state;
    end_reader();
    leave(&healthy.worker);
    leave(&healthy.orchestrator);
    broker_close(&t->broker);
    loop_finish(&t->loop);
    fixture_release(&t->fixture);
    free(t);
    return 0;
}

/* --- below zmq ---------------------------------------------------------------------------- */

static int dial(int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
    return fd;
}

/* Whether the other side has ended the connection; what it said before is read. */
static bool ended(int fd)
{
    char bytes[4096];
    ssize_t n;
    while ((n = recv(fd, bytes, sizeof bytes, 0)) > 0)
        ;
    return n == 0 || (errno != EAGAIN && errno != EINTR);
}

static void who_says_nothing_is_hung_up_on(void **state)
{
    struct test *t = *state;
    int silent = dial(t->port), half = dial(t->port), tap = dial(t->port + 1);
    /* The first half of a greeting. */
    assert_int_equal(send(half, "\xff\0\0\0\0\0\0\0\x01\x7f\x03", 11, MSG_NOSIGNAL), 11);
    UNTIL(t, ended(silent) && ended(half) && ended(tap));
    work_goes_on(t);
    assert_int_equal(ask(t).connections, 2);
    close(silent);
    close(half);
    close(tap);
}

static void who_speaks_another_language_is_hung_up_on(void **state)
{
    struct test *t = *state;
    static const char *const languages[] = {
        "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "*1\r\n$4\r\nPING\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"};
    size_t n = sizeof languages / sizeof *languages;
    for (size_t i = 0; i < n; i++) {
        int fd = dial(t->port);
        for (int more = 0; more < 20; more++) /* enough to be no greeting */
            send(fd, languages[i], strlen(languages[i]), MSG_NOSIGNAL);
        UNTIL(t, ended(fd));
        close(fd);
    }
    work_goes_on(t);
    UNTIL(t, ask(t).refused >= (int64_t)n);
    assert_int_equal(healthy.orchestrator.info.rejected, 0);
}

static void more_connections_than_allowed_are_closed(void **state)
{
    struct test *t = *state;
    enum { CROWD = 600 };
    static int fds[CROWD];
    struct actor late = {0};
    for (int i = 0; i < CROWD; i++)
        fds[i] = dial(t->port);
    UNTIL(t, ask(t).connections <= CONNECTIONS &&
                 healthy.orchestrator.info.cut >= CROWD - CONNECTIONS);
    work_goes_on(t);
    for (int i = 0; i < CROWD; i++)
        close(fds[i]);
    UNTIL(t, ask(t).connections == 2);
    enter(t, &late, BUS_DEALER); /* there is room again */
    send_ready(&late, "late", "m@late", 1);
    UNTIL(t, late.got[MESSAGE_welcome] == 1);
    leave(&late);
}

/* --- within zmq --------------------------------------------------------------------------- */

static void who_never_introduces_itself_is_cut_off(void **state)
{
    struct test *t = *state;
    struct actor silent = {0};
    enter(t, &silent, BUS_DEALER);
    silent.was_down = false;
    UNTIL(t, silent.was_down);
    assert_true(ask(t).cut > 0);
    assert_false(healthy.worker.was_down || healthy.orchestrator.was_down);
    work_goes_on(t);
    leave(&silent);
}

static void a_flood_is_cut_off(void **state)
{
    struct test *t = *state;
    struct actor flood = {0};
    enter(t, &flood, BUS_DEALER);
    send_ready(&flood, "flood", "m@flood", 4);
    UNTIL(t, flood.got[MESSAGE_welcome] == 1);
    flood.was_down = false;
    int64_t until = clock_ms() + WAIT_MS;
    while (!flood.was_down) {
        for (int i = 0; i < 1000; i++)
            send_message(&flood, (struct message){.type = MESSAGE_beat});
        turn(t);
        assert_true(clock_ms() < until);
    }
    UNTIL(t, ask(t).workers == 1);
    assert_true(healthy.orchestrator.info.cut > 0);
    work_goes_on(t);
    leave(&flood);
}

static void as_much_as_a_peer_can_need_is_no_flood(void **state)
{
    struct test *t = *state;
    struct actor busy = {0};
    enter(t, &busy, BUS_DEALER);
    send_ready(&busy, "busy", "m@busy", 4);
    UNTIL(t, busy.got[MESSAGE_welcome] == 1);
    busy.was_down = false;
    for (int i = 0; i < RATE * BEAT_MS / 1000 / 2; i++)
        send_message(&busy, (struct message){.type = MESSAGE_beat});
    work_goes_on(t);
    assert_int_equal(ask(t).workers, 2);
    assert_int_equal(healthy.orchestrator.info.cut, 0);
    leave(&busy);
}

static void a_peer_that_keeps_babbling_is_cut_off(void **state)
{
    struct test *t = *state;
    struct actor babbler = {0};
    enter(t, &babbler, BUS_DEALER);
    send_ready(&babbler, "babbler", "m@babbler", 4);
    UNTIL(t, babbler.got[MESSAGE_welcome] == 1);
    babbler.was_down = false;
    for (int i = 0; i < 50; i++)
        bus_send(babbler.bus, NULL, "\xc1\xc1", 2);
    UNTIL(t, ask(t).rejected == 50); /* now and then may happen */
    assert_int_equal(healthy.orchestrator.info.workers, 2);
    for (int i = 0; i < 100; i++)
        bus_send(babbler.bus, NULL, "\xc1\xc1", 2);
    UNTIL(t, babbler.was_down);
    assert_int_equal(ask(t).workers, 1);
    work_goes_on(t);
    leave(&babbler);
}

static void a_worker_that_boasts_is_cut_off(void **state)
{
    struct test *t = *state;
    struct actor boaster = {0};
    enter(t, &boaster, BUS_DEALER);
    send_ready(&boaster, "boaster", "m@boaster", 4);
    UNTIL(t, boaster.got[MESSAGE_welcome] == 1);
    boaster.was_down = false;
    for (int64_t until = clock_ms() + WAIT_MS; !boaster.was_down;) {
        send_message(&boaster,
                     (struct message){.type = MESSAGE_credit, .credit = {.grant = 1000000}});
        send_message(&boaster, (struct message){.type = MESSAGE_beat,
                                                .beat = {.credit = 5000, .running = 4}});
        turn(t);
        assert_true(clock_ms() < until);
    }
    assert_true(ask(t).rejected >= 100);
    work_goes_on(t);
    leave(&boaster);
}

static void a_message_that_is_too_large_ends_the_connection(void **state)
{
    struct test *t = *state;
    struct actor large = {0};
    size_t len = 4 * 1024 * 1024;
    char *bytes = mem_must_zalloc(len);
    enter(t, &large, BUS_DEALER);
    send_ready(&large, "large", "m@large", 4);
    UNTIL(t, large.got[MESSAGE_welcome] == 1);
    large.was_down = false;
    int64_t rejected = ask(t).rejected;
    assert_int_equal(bus_send(large.bus, NULL, bytes, len), 0);
    UNTIL(t, large.was_down);
    assert_int_equal(ask(t).rejected, rejected); /* it was never read */
    work_goes_on(t);
    free(bytes);
    leave(&large);
}

static void send_note(struct actor *actor, const char *text)
{
    struct message event = {.type = MESSAGE_worker_event,
                            .source = "worker/healthy",
                            .sequence = 1,
                            .worker_event = {.name = "healthy", .what = "note", .text = text}};
    struct buf out = {0};
    assert_int_equal(event_encode("worker.healthy.note", &event, &out), 0);
    bus_send(actor->bus, NULL, out.data, out.len);
    buf_release(&out);
}

static void a_stopped_tap_slows_nobody(void **state)
{
    struct test *t = *state;
    char text[1000];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    struct actor tap = {0};
    start_reader(t); /* it is told that the broker has started */
    enter(t, &tap, BUS_SUB);
    bus_subscribe(tap.bus, "");
    UNTIL(t, (send_note(&healthy.worker, ""), tap.frames > 0));
    kill(reader.pid, SIGSTOP);
    size_t before = tap.frames;
    for (int i = 0; i < 30; i++) { /* 30 MB: more than the buffers of a connection hold */
        for (int j = 0; j < 1000; j++)
            send_note(&healthy.worker, text);
        UNTIL(t, tap.frames >= before + (size_t)(i + 1) * 1000);
    }
    work_goes_on(t);
    assert_false(healthy.worker.was_down);
    leave(&tap);
}

static void a_peer_that_never_reads_holds_nobody_up(void **state)
{
    struct test *t = *state;
    start_reader(t);
    assert_int_equal(ask(t).workers, 2);
    kill(reader.pid, SIGSTOP);
    size_t before = healthy.worker.got[MESSAGE_cancel];
    for (int i = 0; i < 40; i++) { /* to all workers: more than a queue of 10,000 holds */
        for (int j = 0; j < 1000; j++)
            send_message(&healthy.orchestrator,
                         (struct message){.type = MESSAGE_cancel, .cancel = {.task = "t0"}});
        UNTIL(t, healthy.worker.got[MESSAGE_cancel] >= before + (size_t)(i + 1) * 1000);
    }
    work_goes_on(t);
}

static void thousands_of_subscriptions_are_taken_together(void **state)
{
    struct test *t = *state;
    struct actor tap = {0};
    enter(t, &tap, BUS_SUB);
    for (int i = 0; i < 10000; i++) {
        char prefix[32];
        snprintf(prefix, sizeof prefix, "task.t%d", i);
        assert_int_equal(bus_subscribe(tap.bus, prefix), 0);
    }
    UNTIL(t, healthy.worker.all); /* the broker asks for everything */
    work_goes_on(t);
    leave(&tap);
    /* When it is gone nobody wants anything. */
    UNTIL(t, !healthy.worker.all);
    work_goes_on(t);
}

/* --- with keys ---------------------------------------------------------------------------- */

static void own_key(const char *dir, struct actor *actor, const char *name)
{
    struct err err;
    assert_int_equal(keyring_load_public(dir, "broker", actor->keys.server, &err), 0);
    assert_int_equal(keyring_load(dir, name, &actor->keys.own, &err), 0);
}

static void allow(struct test *t, const char *dir, const char *name)
{
    struct keyring_pair pair;
    char file[64], text[64];
    assert_int_equal(keyring_make(&pair, &t->err), 0);
    assert_int_equal(keyring_save(dir, name, &pair, &t->err), 0);
    snprintf(file, sizeof file, "keys/allow/%s.pub", name);
    snprintf(text, sizeof text, "%s\n", pair.public_key);
    fixture_write(&t->fixture, file, text);
}

static void a_key_that_was_sent_away_is_kept_out_for_a_while(void **state)
{
    struct test *t = *state;
    struct actor babbler = {0}, again = {0};
    char dir[96];
    snprintf(dir, sizeof dir, "%s/keys", t->fixture.dir);
    assert_int_equal(keyring_init(dir, &t->err), 0);
    allow(t, dir, "worker-healthy");
    allow(t, dir, "worker-babbler");
    own_key(dir, &healthy.worker, "worker-healthy");
    own_key(dir, &healthy.orchestrator, "orchestrator");
    own_key(dir, &babbler, "worker-babbler");
    own_key(dir, &again, "worker-babbler");
    t->options.keys = dir;
    start(t);
    enter(t, &babbler, BUS_DEALER);
    for (int i = 0; i < 150; i++)
        bus_send(babbler.bus, NULL, "\xc1\xc1", 2);
    babbler.was_down = false;
    UNTIL(t, babbler.was_down);
    int64_t refused = ask(t).refused;
    struct bus_options options = {.kind = BUS_DEALER, .endpoint = t->endpoint, .keys = &again.keys};
    assert_int_equal(bus_open(&again.bus, &t->loop, &options, on_frame, &again, &t->err), 0);
    bus_watch(again.bus, on_link);
    UNTIL(t, ask(t).refused > refused);
    assert_false(again.up);
    work_goes_on(t);
    leave(&babbler);
    leave(&again);
}

#define TEST(fn, how) cmocka_unit_test_setup_teardown(fn, how, teardown)
int main(void)
{
    log_init("test_abuse", LOG_LEVEL_ERROR);
    const struct CMUnitTest tests[] = {
        TEST(who_says_nothing_is_hung_up_on, setup),
        TEST(who_speaks_another_language_is_hung_up_on, setup),
        TEST(more_connections_than_allowed_are_closed, setup_patient),
        TEST(who_never_introduces_itself_is_cut_off, setup),
        TEST(a_flood_is_cut_off, setup),
        TEST(as_much_as_a_peer_can_need_is_no_flood, setup),
        TEST(a_peer_that_keeps_babbling_is_cut_off, setup),
        TEST(a_worker_that_boasts_is_cut_off, setup),
        TEST(a_message_that_is_too_large_ends_the_connection, setup),
        TEST(a_stopped_tap_slows_nobody, setup_tap),
        TEST(a_peer_that_never_reads_holds_nobody_up, setup_sleeper),
        TEST(thousands_of_subscriptions_are_taken_together, setup),
        TEST(a_key_that_was_sent_away_is_kept_out_for_a_while, setup_quiet),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
