/* Bus sockets on a loop, against each other and against strangers. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/bus.h"
#include "common/clock.h"
#include "schemas/mem.h"
#include "tests/lib/fixture.h"

#define WAIT_MS 20000

struct end {
    struct bus *bus;
    size_t frames;
    size_t awaited; /* frames that set `done` */
    bool done;
    bool up, downed, upped;
    bool in_order; /* frames hold a counter */
    bool echo;
    bool close_in_callback;
    bool send_late;
    size_t turn_frames, most_in_a_turn;
    struct bus_peer from;
    char last[256];
    size_t last_len;
};

struct test {
    struct fixture fixture;
    uv_loop_t loop;
    char endpoint[160];
    char path[128];
    struct err err;
    struct end a, b;
};

static int setup(void **state)
{
    struct test *t = calloc(1, sizeof *t);
    fixture_init(&t->fixture);
    loop_init(&t->loop);
    snprintf(t->path, sizeof t->path, "%s/bus.sock", t->fixture.dir);
    snprintf(t->endpoint, sizeof t->endpoint, "ipc://%s", t->path);
    *state = t;
    return 0;
}

static int teardown(void **state)
{
    struct test *t = *state;
    bus_close(&t->a.bus);
    bus_close(&t->b.bus);
    loop_finish(&t->loop);
    fixture_release(&t->fixture);
    free(t);
    return 0;
}

static void on_frame(void *ctx, const struct bus_peer *from, const uint8_t *data, size_t len)
{
    struct end *end = ctx;
    if (from != NULL)
        end->from = *from;
    end->last_len = len < sizeof end->last ? len : sizeof end->last - 1;
    memcpy(end->last, data, end->last_len);
    end->last[end->last_len] = '\0';
    if (end->in_order)
        assert_int_equal(strtoul(end->last, NULL, 10), end->frames);
    end->frames++;
    if (++end->turn_frames > end->most_in_a_turn)
        end->most_in_a_turn = end->turn_frames;
    end->done = end->frames == end->awaited;
    if (end->echo)
        assert_int_equal(bus_send(end->bus, from, data, len), 0);
    if (end->close_in_callback)
        bus_close(&end->bus);
}

static void on_link(void *ctx, bool up)
{
    struct end *end = ctx;
    end->up = up;
    end->upped |= up;
    end->downed |= !up;
}

static int open_at(struct test *t, struct end *end, enum bus_kind kind, const char *endpoint)
{
    struct bus_options options = {.kind = kind, .endpoint = endpoint, .max_bytes = 1024 * 1024};
    int rc = bus_open(&end->bus, &t->loop, &options, on_frame, end, &t->err);
    if (rc == 0 && kind == BUS_DEALER)
        bus_watch(end->bus, on_link);
    return rc;
}

static void open_end(struct test *t, struct end *end, enum bus_kind kind)
{
    if (open_at(t, end, kind, t->endpoint) != 0)
        fail_msg("%s", t->err.text);
}

static void wait_for(struct test *t, const bool *flag)
{
    int64_t start = clock_ms();
    assert_int_equal(loop_run_until(&t->loop, flag, WAIT_MS), 0);
    assert_true(clock_ms() - start < WAIT_MS); /* else it was the end of the wait that woke it */
}

/* a: ROUTER, b: DEALER, connected and known to each other. */
static void open_pair(struct test *t)
{
    open_end(t, &t->a, BUS_ROUTER);
    open_end(t, &t->b, BUS_DEALER);
    wait_for(t, &t->b.up);
    t->a.awaited = 1;
    assert_int_equal(bus_send(t->b.bus, NULL, "hi", 2), 0);
    wait_for(t, &t->a.done);
    assert_string_equal(t->a.last, "hi");
    t->a.frames = 0;
    t->a.done = false;
}

static void frames_travel_both_ways(void **state)
{
    struct test *t = *state;
    open_pair(t);
    t->b.awaited = 1;
    assert_int_equal(bus_send(t->a.bus, &t->a.from, "hello", 5), 0);
    wait_for(t, &t->b.done);
    assert_string_equal(t->b.last, "hello");
}

static void empty_frame_arrives_as_such(void **state)
{
    struct test *t = *state;
    open_pair(t);
    t->a.awaited = 1;
    assert_int_equal(bus_send(t->b.bus, NULL, "", 0), 0);
    wait_for(t, &t->a.done);
    assert_int_equal(t->a.last_len, 0);
}

static void new_turn(uv_prepare_t *handle)
{
    ((struct end *)handle->data)->turn_frames = 0;
}

static void bursts_arrive_whole_in_order_and_let_others_have_their_turn(void **state)
{
    struct test *t = *state;
    uv_prepare_t turns;
    open_pair(t);
    uv_prepare_init(&t->loop, &turns);
    turns.data = &t->a;
    uv_prepare_start(&turns, new_turn);
    t->a.awaited = t->b.awaited = 5000;
    t->a.in_order = t->b.in_order = t->a.echo = true;
    for (int i = 0; i < 5000; i++) {
        char text[16];
        int len = snprintf(text, sizeof text, "%d", i);
        assert_int_equal(bus_send(t->b.bus, NULL, text, (size_t)len), 0);
    }
    wait_for(t, &t->a.done);
    wait_for(t, &t->b.done);
    assert_true(t->a.most_in_a_turn <= BUS_BURST);
    uv_close((uv_handle_t *)&turns, NULL);
    uv_run(&t->loop, UV_RUN_NOWAIT);
}

/* A send may swallow the signal of a frame that has just come (zmq looks at its mailbox at most
 * once a millisecond, hence the duration); nobody signals that frame again. */
static void no_signal_is_lost_between_sends_and_receives(void **state)
{
    struct test *t = *state;
    open_pair(t);
    for (size_t i = 1; i <= 30; i++) {
        t->b.awaited = i;
        t->b.done = false;
        assert_int_equal(bus_send(t->a.bus, &t->a.from, "x", 1), 0);
        int64_t end = clock_ns() + 3000000;
        for (int64_t next = 0; clock_ns() < end;) {
            if (clock_ns() < next)
                continue;
            assert_int_equal(bus_send(t->b.bus, NULL, "y", 1), 0);
            next = clock_ns() + 100000;
        }
        wait_for(t, &t->b.done);
    }
}

static void send_late(uv_prepare_t *handle)
{
    struct end *end = handle->data;
    if (!end->send_late)
        return;
    end->send_late = false;
    struct bus_peer nobody = {.len = 5, .id = "abcd"};
    int64_t until = clock_ns() + 3000000; /* see above: by then zmq looks at its mailbox */
    while (clock_ns() < until)
        ;
    assert_int_equal(bus_send(end->bus, &nobody, "y", 1), -EHOSTUNREACH);
}

/* The same, when the send comes after the socket was looked at and just before the loop blocks. It
 * goes to nobody, so that no answer wakes the loop. */
static void no_signal_is_lost_to_a_send_before_the_loop_blocks(void **state)
{
    struct test *t = *state;
    uv_prepare_t late;
    uv_prepare_init(&t->loop, &late);
    late.data = &t->a;
    uv_prepare_start(&late, send_late); /* what is started first is called last */
    open_pair(t);
    for (size_t i = 1; i <= 30; i++) {
        t->a.awaited = i;
        t->a.done = false;
        t->a.send_late = true;
        assert_int_equal(bus_send(t->b.bus, NULL, "x", 1), 0);
        wait_for(t, &t->a.done);
    }
    uv_close((uv_handle_t *)&late, NULL);
    uv_run(&t->loop, UV_RUN_NOWAIT);
}

static void router_says_when_it_does_not_know_the_peer(void **state)
{
    struct test *t = *state;
    struct bus_peer nobody = {.len = 5, .id = "abcd"};
    open_pair(t);
    assert_int_equal(bus_send(t->a.bus, &nobody, "x", 1), -EHOSTUNREACH);
    bus_close(&t->b.bus);
    bool gone = false;
    for (int64_t end = clock_ms() + WAIT_MS; !gone && clock_ms() < end;) {
        loop_run_until(&t->loop, &gone, 5);
        gone = bus_send(t->a.bus, &t->a.from, "x", 1) == -EHOSTUNREACH;
    }
    assert_true(gone);
}

static void dealer_without_a_connection_refuses_to_send(void **state)
{
    struct test *t = *state;
    open_end(t, &t->b, BUS_DEALER);
    assert_int_equal(bus_send(t->b.bus, NULL, "x", 1), -EAGAIN);
}

static void dealer_tells_when_its_connection_goes_and_comes(void **state)
{
    struct test *t = *state;
    open_pair(t);
    bus_close(&t->a.bus);
    wait_for(t, &t->b.downed);
    assert_false(t->b.up);
    assert_int_equal(bus_send(t->b.bus, NULL, "x", 1), -EAGAIN);
    t->b.upped = false;
    int64_t start = clock_ms();
    open_end(t, &t->a, BUS_ROUTER);
    wait_for(t, &t->b.upped);
    print_message("connected again after %lld ms\n", (long long)(clock_ms() - start));
}

static void full_queue_refuses_instead_of_blocking(void **state)
{
    struct test *t = *state;
    struct bus_options small = {.kind = BUS_ROUTER, .endpoint = t->endpoint, .high_water = 10};
    char *block = mem_must_zalloc(64 * 1024);
    int sent = 0, rc = 0;
    assert_int_equal(bus_open(&t->a.bus, &t->loop, &small, on_frame, &t->a, &t->err), 0);
    small.kind = BUS_DEALER;
    assert_int_equal(bus_open(&t->b.bus, &t->loop, &small, on_frame, &t->b, &t->err), 0);
    bus_watch(t->b.bus, on_link);
    wait_for(t, &t->b.up);
    while (rc == 0 && sent < 100000) { /* nobody runs the loop, so nobody reads */
        rc = bus_send(t->b.bus, NULL, block, 64 * 1024);
        sent += rc == 0;
    }
    assert_int_equal(rc, -EAGAIN);
    t->a.awaited = (size_t)sent;
    wait_for(t, &t->a.done);
    free(block);
}

static void closing_in_a_callback_ends_the_callbacks(void **state)
{
    struct test *t = *state;
    open_pair(t);
    t->a.close_in_callback = true;
    for (int i = 0; i < 10; i++)
        bus_send(t->b.bus, NULL, "x", 1);
    wait_for(t, &t->b.downed);
    assert_int_equal(t->a.frames, 1);
}

static void last_messages_before_closing_still_arrive(void **state)
{
    struct test *t = *state;
    char block[10000] = "bye";
    open_pair(t);
    t->a.awaited = 100; /* more than the kernel's buffers take */
    for (int i = 0; i < 100; i++)
        assert_int_equal(bus_send(t->b.bus, NULL, block, sizeof block), 0);
    bus_close(&t->b.bus);
    wait_for(t, &t->a.done);
}

static void ipc_socket_is_private(void **state)
{
    struct test *t = *state;
    struct stat st;
    open_end(t, &t->a, BUS_ROUTER);
    assert_int_equal(stat(t->path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    bus_close(&t->a.bus);
    assert_int_equal(stat(t->path, &st), -1);
}

static int listen_raw(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(fd, 1), 0);
    return fd;
}

static void stale_ipc_socket_is_replaced(void **state)
{
    struct test *t = *state;
    close(listen_raw(t->path)); /* its owner is gone, the file is not */
    open_pair(t);
}

static void served_ipc_socket_is_not_stolen(void **state)
{
    struct test *t = *state;
    open_end(t, &t->a, BUS_ROUTER);
    assert_int_equal(open_at(t, &t->b, BUS_ROUTER, t->endpoint), -EADDRINUSE);
    assert_non_null(strstr(t->err.text, "served by another process"));
    open_end(t, &t->b, BUS_DEALER);
    wait_for(t, &t->b.up);
}

/* The moment between looking for a living owner and binding: whoever is in it holds the lock. */
static void ipc_socket_that_another_is_about_to_serve_is_not_taken(void **state)
{
    struct test *t = *state;
    int fd = open(fixture_write(&t->fixture, "bus.sock.lock", ""), O_RDWR);
    assert_int_equal(flock(fd, LOCK_EX), 0);
    assert_int_equal(open_at(t, &t->a, BUS_ROUTER, t->endpoint), -EADDRINUSE);
    close(fd);
    open_end(t, &t->a, BUS_ROUTER);
}

static void ipc_socket_of_a_stranger_is_not_stolen(void **state)
{
    struct test *t = *state;
    int fd = listen_raw(t->path);
    assert_int_equal(open_at(t, &t->a, BUS_ROUTER, t->endpoint), -EADDRINUSE);
    assert_non_null(strstr(t->err.text, t->path));
    close(fd);
}

static void file_in_the_way_is_left_alone(void **state)
{
    struct test *t = *state;
    struct buf text = {0};
    fixture_write(&t->fixture, "bus.sock", "precious");
    assert_int_equal(open_at(t, &t->a, BUS_ROUTER, t->endpoint), -EEXIST);
    assert_non_null(strstr(t->err.text, "is no socket"));
    assert_true(fixture_read(t->path, &text));
    assert_string_equal(text.data, "precious");
    buf_release(&text);
}

static void path_too_long_is_explained(void **state)
{
    struct test *t = *state;
    char endpoint[300];
    snprintf(endpoint, sizeof endpoint, "ipc://%s/%0150d", t->fixture.dir, 1);
    assert_int_equal(open_at(t, &t->a, BUS_ROUTER, endpoint), -ENAMETOOLONG);
    assert_non_null(strstr(t->err.text, "the system allows 107"));
}

static void bad_endpoints_are_explained(void **state)
{
    struct test *t = *state;
    static const char *const bad[] = {"",
                                      "local",
                                      "tcp://",
                                      "tcp://127.0.0.1",
                                      "ipc://",
                                      "http://x:1",
                                      "tcp://127.0.0.1:99999",
                                      "ipc://@x"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        t->err.text[0] = '\0';
        assert_true(open_at(t, &t->a, BUS_ROUTER, bad[i]) < 0);
        assert_null(t->a.bus);
        assert_string_not_equal(t->err.text, "");
    }
}

static void tcp_binds_a_host_by_name_and_says_when_it_is_in_use(void **state)
{
    if (!fixture_has_localhost())
        skip();
    struct test *t = *state;
    snprintf(t->endpoint, sizeof t->endpoint, "tcp://localhost:%d", fixture_free_port());
    open_pair(t);
    struct end other = {0};
    assert_int_equal(open_at(t, &other, BUS_ROUTER, t->endpoint), -EADDRINUSE);
    assert_non_null(strstr(t->err.text, "another process uses it"));
    assert_int_equal(open_at(t, &other, BUS_ROUTER, "tcp://203.0.113.9:5599"), -EADDRNOTAVAIL);
    assert_non_null(strstr(t->err.text, "no such address"));
}

static void taps_get_what_they_subscribed_to(void **state)
{
    struct test *t = *state;
    open_end(t, &t->a, BUS_XPUB);
    open_end(t, &t->b, BUS_SUB);
    t->a.awaited = 1;
    assert_int_equal(bus_subscribe(t->b.bus, "task."), 0);
    wait_for(t, &t->a.done);
    assert_memory_equal(t->a.last, "\1task.", 6);
    t->b.awaited = 2;
    bus_send(t->a.bus, NULL, "worker.x", 8);
    bus_send(t->a.bus, NULL, "task.1", 6);
    bus_send(t->a.bus, NULL, "broker.x", 8);
    bus_send(t->a.bus, NULL, "task.2", 6);
    wait_for(t, &t->b.done);
    assert_string_equal(t->b.last, "task.2");
    t->a.awaited = 2;
    t->a.done = false;
    bus_close(&t->b.bus);
    wait_for(t, &t->a.done);
    assert_memory_equal(t->a.last, "\0task.", 6);
}

/* --- strangers that speak ZMTP by hand, or nothing known ---------------------------------- */

static int connect_raw(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t len = strlen(path);
    assert_true(len < sizeof address.sun_path);
    memcpy(address.sun_path, path, len);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

static void say(int fd, const void *bytes, size_t len)
{
    assert_int_equal(send(fd, bytes, len, MSG_NOSIGNAL), len);
}

static void hear(int fd, size_t len)
{
    char bytes[256];
    assert_true(len <= sizeof bytes);
    assert_int_equal(recv(fd, bytes, len, MSG_WAITALL), len);
}

/* RFC 23, NULL mechanism. */
static int greet_zmtp(const char *path)
{
    char greeting[64] = {'\xff', [9] = '\x7f', [10] = 3, [12] = 'N', 'U', 'L', 'L'};
    int fd = connect_raw(path);
    say(fd, greeting, sizeof greeting);
    return fd;
}

/* Messages may follow only after the other side's READY. */
static int connect_zmtp(const char *path)
{
    static const char ready[] = "\4\x1c\5READY\13Socket-Type\0\0\0\6DEALER";
    int fd = greet_zmtp(path);
    say(fd, ready, 2 + (size_t)ready[1]);
    hear(fd, 64 + 2);
    hear(fd, strlen("5READY1Socket-Type4444ROUTER1Identity4444"));
    return fd;
}

static void message_of_several_frames_is_dropped(void **state)
{
    struct test *t = *state;
    open_end(t, &t->a, BUS_ROUTER);
    int fd = connect_zmtp(t->path);
    t->a.awaited = 1;
    say(fd, "\1\1a\1\1b\0\1c", 9); /* a b c in one message */
    say(fd, "\1\0\0\1q", 5);       /* an empty frame and a body, as REQ sends them */
    say(fd, "\0\4good", 6);
    wait_for(t, &t->a.done);
    assert_string_equal(t->a.last, "good");
    close(fd);
}

static void message_over_the_limit_ends_that_connection_only(void **state)
{
    struct test *t = *state;
    open_pair(t);
    struct end other = {0};
    open_end(t, &other, BUS_DEALER);
    wait_for(t, &other.up);
    char *huge = mem_must_zalloc(3 * 1024 * 1024);
    bus_send(other.bus, NULL, huge, 3 * 1024 * 1024);
    wait_for(t, &other.downed);
    t->a.awaited = 1;
    bus_send(t->b.bus, NULL, "fine", 4);
    wait_for(t, &t->a.done);
    assert_string_equal(t->a.last, "fine");
    bus_close(&other.bus);
    free(huge);
}

static void bytes_that_are_no_zmtp_do_no_harm(void **state)
{
    struct test *t = *state;
    char noise[256];
    open_pair(t);
    srand(3);
    for (int i = 0; i < 60; i++) {
        int fd = i % 3 == 0   ? connect_raw(t->path)
                 : i % 3 == 1 ? greet_zmtp(t->path)
                              : connect_zmtp(t->path);
        for (size_t k = 0; k < sizeof noise; k++)
            noise[k] = (char)rand();
        if (i % 3 == 2)
            noise[0] = '\x87'; /* a frame with reserved flags */
        send(fd, noise, 1 + (size_t)(rand() % 255), MSG_NOSIGNAL);
        close(fd);
    }
    t->a.awaited = 1;
    bus_send(t->b.bus, NULL, "fine", 4);
    wait_for(t, &t->a.done);
    assert_string_equal(t->a.last, "fine");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(frames_travel_both_ways),
        TEST(empty_frame_arrives_as_such),
        TEST(bursts_arrive_whole_in_order_and_let_others_have_their_turn),
        TEST(no_signal_is_lost_between_sends_and_receives),
        TEST(no_signal_is_lost_to_a_send_before_the_loop_blocks),
        TEST(router_says_when_it_does_not_know_the_peer),
        TEST(dealer_without_a_connection_refuses_to_send),
        TEST(dealer_tells_when_its_connection_goes_and_comes),
        TEST(full_queue_refuses_instead_of_blocking),
        TEST(closing_in_a_callback_ends_the_callbacks),
        TEST(last_messages_before_closing_still_arrive),
        TEST(ipc_socket_is_private),
        TEST(stale_ipc_socket_is_replaced),
        TEST(served_ipc_socket_is_not_stolen),
        TEST(ipc_socket_that_another_is_about_to_serve_is_not_taken),
        TEST(ipc_socket_of_a_stranger_is_not_stolen),
        TEST(file_in_the_way_is_left_alone),
        TEST(path_too_long_is_explained),
        TEST(bad_endpoints_are_explained),
        TEST(tcp_binds_a_host_by_name_and_says_when_it_is_in_use),
        TEST(taps_get_what_they_subscribed_to),
        TEST(message_of_several_frames_is_dropped),
        TEST(message_over_the_limit_ends_that_connection_only),
        TEST(bytes_that_are_no_zmtp_do_no_harm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
