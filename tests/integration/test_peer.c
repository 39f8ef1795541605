/* A peer and a broker that the test plays itself. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/bus.h"
#include "common/peer.h"
#include "schemas/message.h"
#include "tests/lib/fixture.h"

#define BEAT_MS 50
#define PATIENCE_MS 20000

struct scene {
    struct fixture fixture;
    uv_loop_t loop;
    char endpoint[128];
    struct bus *broker;
    struct config *config;
    struct peer *peer;
    struct bus_peer id; /* of the peer, once it was heard */
    bool heard, introduced, lost;
};

static void heard(void *ctx, const struct bus_peer *from, const uint8_t *data, size_t len)
{
    (void)data, (void)len;
    struct scene *scene = ctx;
    scene->id = *from;
    scene->heard = true;
}

static void introduce(void *ctx, int broker)
{
    (void)broker;
    ((struct scene *)ctx)->introduced = true;
}

static void take_message(void *ctx, int broker, const struct message *message)
{
    (void)ctx, (void)broker, (void)message;
}

static void lost(void *ctx, int broker)
{
    (void)broker;
    ((struct scene *)ctx)->lost = true;
}

static void scene_open(struct scene *scene)
{
    static const struct peer_callbacks callbacks = {
        .introduce = introduce, .message = take_message, .lost = lost};
    struct err err = {0};
    char yaml[256];
    *scene = (struct scene){0};
    fixture_init(&scene->fixture);
    loop_init(&scene->loop);
    snprintf(scene->endpoint, sizeof scene->endpoint, "ipc://%s/b.sock", scene->fixture.dir);
    int len = snprintf(yaml, sizeof yaml,
                       "bus: {brokers: ['%s'], heartbeat_ms: %d}\n"
                       "providers: {p: {api: noop}}\nmodels: {m: {provider: p}}\n",
                       scene->endpoint, BEAT_MS);
    struct bus_options options = {.kind = BUS_ROUTER, .endpoint = scene->endpoint};
    if (config_parse(&scene->config, "test", yaml, (size_t)len, &err) != 0 ||
        bus_open(&scene->broker, &scene->loop, &options, heard, scene, &err) != 0 ||
        peer_open(&scene->peer, &scene->loop, scene->config, "worker/test", "b1", &callbacks, scene,
                  &err) != 0)
        fail_msg("%s", err.text);
    assert_int_equal(loop_run_until(&scene->loop, &scene->heard, PATIENCE_MS), 0);
}

static void scene_close(struct scene *scene)
{
    peer_close(&scene->peer);
    bus_close(&scene->broker);
    config_free(&scene->config);
    loop_finish(&scene->loop);
    fixture_release(&scene->fixture);
}

/* What the broker sends every so often to whom it knows. */
static void send_beat(struct scene *scene)
{
    struct message message = {.type = MESSAGE_beat, .beat = {.boot = "broker-1"}};
    struct buf out = {0};
    assert_int_equal(message_encode(&message, &out), 0);
    assert_int_equal(bus_send(scene->broker, &scene->id, out.data, out.len), 0);
    buf_release(&out);
}

static void a_broker_that_was_silent_and_knows_us_still_is_introduced_to_again(void **state)
{
    (void)state;
    struct scene scene;
    scene_open(&scene);
    for (int i = 0; i < 2; i++) {
        scene.introduced = scene.lost = false;
        send_beat(&scene);
        assert_int_equal(loop_run_until(&scene.loop, &scene.introduced, PATIENCE_MS), 0);
        assert_int_equal(loop_run_until(&scene.loop, &scene.lost, PATIENCE_MS), 0);
    }
    scene_close(&scene);
}

static int listen_raw(int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on), 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(fd, 16), 0);
    return fd;
}

/* zmq gives up for good on whom it could not shake hands with: the peer does not. */
static void a_peer_comes_in_where_something_else_had_answered_before(void **state)
{
    static const struct peer_callbacks callbacks = {
        .introduce = introduce, .message = take_message, .lost = lost};
    static const char greeting[] = "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n";
    struct scene scene = {0};
    struct err err = {0};
    char yaml[256], bytes[256];
    (void)state;
    fixture_init(&scene.fixture);
    loop_init(&scene.loop);
    int port = fixture_free_port(), listener = listen_raw(port);
    snprintf(scene.endpoint, sizeof scene.endpoint, "tcp://127.0.0.1:%d", port);
    int len = snprintf(yaml, sizeof yaml,
                       "bus: {brokers: ['%s'], heartbeat_ms: %d}\n"
                       "providers: {p: {api: noop}}\nmodels: {m: {provider: p}}\n",
                       scene.endpoint, BEAT_MS);
    if (config_parse(&scene.config, "test", yaml, (size_t)len, &err) != 0 ||
        peer_open(&scene.peer, &scene.loop, scene.config, "worker/test", "b1", &callbacks, &scene,
                  &err) != 0)
        fail_msg("%s", err.text);
    int other = accept(listener, NULL, NULL);
    assert_true(other >= 0);
    assert_int_equal(send(other, greeting, sizeof greeting - 1, 0), sizeof greeting - 1);
    while (recv(other, bytes, sizeof bytes, 0) > 0)
        ; /* until zmq has had enough */
    close(other);
    close(listener);
    struct bus_options options = {.kind = BUS_ROUTER, .endpoint = scene.endpoint};
    assert_int_equal(bus_open(&scene.broker, &scene.loop, &options, heard, &scene, &err), 0);
    assert_int_equal(loop_run_until(&scene.loop, &scene.heard, PATIENCE_MS), 0);
    scene_close(&scene);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_peer_comes_in_where_something_else_had_answered_before),
        cmocka_unit_test(a_broker_that_was_silent_and_knows_us_still_is_introduced_to_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
