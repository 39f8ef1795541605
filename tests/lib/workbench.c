#include "tests/lib/workbench.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/config.h"
#include "common/paths.h"

#define TRIES 4000
#define TURN_MS 5

/* --- the bus -----------------------------------------------------------------------------------
 */

static void introduce(void *ctx, int broker)
{
    struct workbench *bench = ctx;
    struct message hello = {.type = MESSAGE_hello,
                            .hello = {.name = "test", .boot = "b1", .host = "h", .pid = 1}};
    peer_send(bench->peer, broker, &hello);
}

static void welcome(void *ctx, int broker, const struct msg_welcome *message)
{
    struct workbench *bench = ctx;
    (void)broker, (void)message;
    bench->welcomed = true;
}

static void join(char *ret, size_t size, const char **words, size_t n)
{
    size_t at = 0;
    ret[0] = '\0';
    for (size_t i = 0; i < n && at + 1 < size; i++)
        at += (size_t)snprintf(ret + at, size - at, "%s\n", words[i]);
}

static void take_message(void *ctx, int broker, const struct message *message)
{
    struct workbench *bench = ctx;
    (void)broker;
    if (message->type == MESSAGE_worker_info) {
        const struct msg_worker_info *info = &message->worker_info;
        bench->workers++;
        bench->credit = info->credit;
        bench->running = info->running;
        join(bench->arms, sizeof bench->arms, info->arms, info->n_arms);
        join(bench->paused, sizeof bench->paused, info->paused, info->n_paused);
    }
    if (message->type == MESSAGE_decline) {
        bench->declines++;
        bench->decline_ms = message->decline.after_ms;
        snprintf(bench->decline_arm, sizeof bench->decline_arm, "%s", message->decline.arm);
        snprintf(bench->decline_reason, sizeof bench->decline_reason, "%s",
                 message->decline.reason);
    }
    bench->status_done |= message->type == MESSAGE_broker_info;
}

static void take_event(void *ctx, const struct bus_peer *peer, const uint8_t *data, size_t len)
{
    struct workbench *bench = ctx;
    struct message message;
    const char *topic;
    (void)peer;
    if (event_decode(&message, &topic, data, len) != 0)
        return;
    message_print_json(&message, topic, &bench->events);
    buf_add_char(&bench->events, '\n');
    message_release(&message);
}

/* --- opening ------------------------------------------------------------------------------------
 */

static void write_config(struct workbench *bench, const char *yaml)
{
    struct buf text = {0};
    buf_printf(&text,
               "redis: unix://%s\n"
               "bus: {brokers: [local], heartbeat_ms: 200}\n"
               "queue: {lease_ms: 15000, renew_ms: 5000, abandon_ms: 10000}\n",
               bench->fixture.redis_socket);
    int free_port = fixture_free_port();
    for (const char *at = yaml; *at != '\0'; at++) {
        const char *kind = at[0] == '%' && at[1] != '\0' ? strchr("dps", at[1]) : NULL;
        if (kind == NULL) {
            buf_add_char(&text, *at);
            continue;
        }
        if (*kind == 's')
            buf_add_str(&text, bench->fixture.dir);
        else
            buf_printf(&text, "%d", *kind == 'd' ? http_server_port(bench->server) : free_port);
        at++;
    }
    snprintf(bench->config_path, sizeof bench->config_path, "%s",
             fixture_write(&bench->fixture, "config.yaml", text.data));
    buf_release(&text);
}

void workbench_open(struct workbench *bench, const char *yaml)
{
    static const struct peer_callbacks callbacks = {
        .introduce = introduce, .message = take_message, .welcome = welcome};
    struct err err = {0};
    *bench = (struct workbench){0};
    fixture_init(&bench->fixture);
    fixture_redis_start(&bench->fixture);
    loop_init(&bench->loop);
    bench->server = http_server_start();
    unsetenv("ORCH_FAILPOINT");
    write_config(bench, yaml);
    char run[96];
    snprintf(run, sizeof run, "%s/" PATH_RUN, bench->fixture.dir);
    path_make(run, NULL);
    int ready;
    const char *broker[] = {"orchestrator-broker", "--config", bench->config_path, NULL};
    workbench_spawn(bench, broker, "broker.log", &ready);
    assert_string_equal(workbench_ready_line(bench, ready), "ready\n");
    struct redis_options redis = fixture_redis_options(&bench->fixture);
    if (config_load(&bench->config, bench->config_path, &err) != 0)
        fail_msg("%s", err.text);
    struct bus_options tap = {.kind = BUS_SUB, .endpoint = bench->config->taps[0], .subscribe = ""};
    if (queue_open(&bench->queue, &bench->loop, &redis, NULL, NULL, &err) != 0 ||
        bus_open(&bench->tap, &bench->loop, &tap, take_event, bench, &err) != 0 ||
        peer_open(&bench->peer, &bench->loop, bench->config, "orchestrator/test", "b1", &callbacks,
                  bench, &err) != 0)
        fail_msg("%s", err.text);
    assert_int_equal(loop_run_until(&bench->loop, &bench->welcomed, 20000), 0);
}

void workbench_close(struct workbench *bench)
{
    peer_close(&bench->peer);
    bus_close(&bench->tap);
    queue_close(&bench->queue);
    config_free(&bench->config);
    loop_finish(&bench->loop);
    fixture_release(&bench->fixture);
    http_server_stop(&bench->server);
    message_release(&bench->outcome);
    message_release(&bench->timing);
    buf_release(&bench->events);
}

pid_t workbench_spawn(struct workbench *bench, const char *const *argv, const char *log,
                      int *ret_ready)
{
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    fcntl(fds[0], F_SETFD, FD_CLOEXEC);
    char ready[16];
    snprintf(ready, sizeof ready, "%d", fds[1]);
    const char *args[16];
    size_t n = 0;
    for (; argv[n] != NULL; n++)
        args[n] = argv[n];
    args[n++] = "--ready-fd";
    args[n++] = ready;
    args[n] = NULL;
    pid_t pid = fixture_spawn(&bench->fixture, log, args);
    close(fds[1]);
    *ret_ready = fds[0];
    return pid;
}

static void turn(struct workbench *bench)
{
    bool never = false;
    loop_run_until(&bench->loop, &never, TURN_MS);
}

const char *workbench_ready_line(struct workbench *bench, int fd)
{
    static char line[1024];
    ssize_t len = -1;
    fcntl(fd, F_SETFL, O_NONBLOCK);
    for (int i = 0; i < 2 * TRIES && (len = read(fd, line, sizeof line - 1)) < 0; i++)
        turn(bench);
    line[len > 0 ? len : 0] = '\0';
    close(fd);
    return line;
}

pid_t workbench_start_worker_with(struct workbench *bench, const char *name, const char *drain_ms,
                                  int *ret_ready)
{
    char log[32];
    snprintf(log, sizeof log, "worker-%d.log", ++bench->starts);
    const char *argv[] = {"orchestrator-worker", "--name",     name,     "--config",
                          bench->config_path,    "--drain-ms", drain_ms, NULL};
    return workbench_spawn(bench, argv, log, ret_ready);
}

pid_t workbench_start_worker(struct workbench *bench, const char *name)
{
    int ready;
    pid_t pid = workbench_start_worker_with(bench, name, "30000", &ready);
    const char *line = workbench_ready_line(bench, ready);
    if (strcmp(line, "ready\n") != 0)
        fail_msg("worker %s: %s", name, line);
    return pid;
}

/* --- tasks --------------------------------------------------------------------------------------
 */

static struct bytes bytes_of(const char *value)
{
    return (struct bytes){value, strlen(value)};
}

struct msg_work workbench_work(void)
{
    return (struct msg_work){
        .kind = "run",
        .title = "Title",
        .role = "coder",
        .system = bytes_of(""),
        .prompt = bytes_of("do it"),
        .task_text = bytes_of(""),
        .json_schema = bytes_of(""),
        .images = bytes_of(""),
        .inputs = bytes_of(""),
        .temperature = -1,
    };
}

void workbench_answered(void *ctx, enum queue_status status, const char *err)
{
    struct workbench *bench = ctx;
    (void)err;
    bench->answered = true;
    bench->status = status;
}

enum queue_status workbench_answer(struct workbench *bench)
{
    assert_int_equal(loop_run_until(&bench->loop, &bench->answered, 20000), 0);
    bench->answered = false;
    return bench->status;
}

void workbench_submit(struct workbench *bench, const struct msg_work *work,
                      const struct queue_spend *budget)
{
    struct message message = {.type = MESSAGE_work, .work = *work};
    struct buf record = {0};
    assert_int_equal(message_encode(&message, &record), 0);
    struct queue_node node = {
        .id = "a", .work = {record.data, record.len}, .meta = bytes_of(""), .max_attempts = 5};
    task_id_make(bench->task);
    struct queue_task task = {.id = bench->task,
                              .digest = "d",
                              .title = "t",
                              .info = bytes_of(""),
                              .nodes = &node,
                              .n_nodes = 1};
    if (budget != NULL)
        task.budget = *budget;
    queue_submit(bench->queue, &task, workbench_answered, bench);
    assert_int_equal(workbench_answer(bench), QUEUE_OK);
    buf_release(&record);
}

void workbench_offer(struct workbench *bench, const char *model, bool hedge)
{
    int64_t after_ms = 0;
    struct message message = {.type = MESSAGE_offer,
                              .offer = {.task = bench->task,
                                        .sub = "a",
                                        .shard = task_shard(bench->task),
                                        .arms = &model,
                                        .n_arms = 1,
                                        .after_ms = &after_ms,
                                        .n_after_ms = 1,
                                        .hedge = hedge}};
    assert_int_equal(peer_send(bench->peer, 0, &message), 0);
}

static void take_record(struct message *message, enum message_type type, struct bytes bytes)
{
    message_release(message);
    *message = (struct message){0};
    if (bytes.len > 0)
        assert_int_equal(message_decode_as(message, type, bytes.data, bytes.len), 0);
}

static void take_view(void *ctx, enum queue_status status, const struct queue_task_view *view,
                      const char *err)
{
    struct workbench *bench = ctx;
    (void)err;
    bench->answered = true;
    if (status != QUEUE_OK || view->n_subs != 1)
        return;
    const struct queue_sub_view *sub = view->subs;
    bench->state = sub->state;
    bench->attempts_made = sub->attempts;
    bench->spent = view->spent;
    bench->held = view->held;
    snprintf(bench->error_class, sizeof bench->error_class, "%s", sub->error_class);
    snprintf(bench->reason, sizeof bench->reason, "%s", sub->reason);
    take_record(&bench->outcome, MESSAGE_outcome, sub->outcome);
    take_record(&bench->timing, MESSAGE_timing, sub->timing);
}

void workbench_read(struct workbench *bench)
{
    bench->state = SUB_STATE_COUNT;
    queue_read(bench->queue, bench->task, false, take_view, bench);
    workbench_answer(bench);
}

const char *workbench_text(const struct workbench *bench)
{
    return bench->outcome.type == MESSAGE_outcome ? bench->outcome.outcome.text.data : "";
}

/* --- waiting ------------------------------------------------------------------------------------
 */

bool workbench_reaches(struct workbench *bench, enum sub_state state)
{
    for (int i = 0; i < TRIES; i++) {
        workbench_read(bench);
        if (bench->state == state)
            return true;
        turn(bench);
    }
    return false;
}

void workbench_run(struct workbench *bench, const struct msg_work *work, const char *model,
                   enum sub_state state)
{
    workbench_submit(bench, work, NULL);
    workbench_offer(bench, model, false);
    if (!workbench_reaches(bench, state))
        fail_msg("the subtask is %s: %s %s", sub_state_name(bench->state), bench->error_class,
                 bench->reason);
}

void workbench_wait_requests(struct workbench *bench, size_t n)
{
    for (int i = 0; i < TRIES && http_server_requests(bench->server) < n; i++)
        turn(bench);
    assert_true(http_server_requests(bench->server) >= n);
}

void workbench_status(struct workbench *bench)
{
    struct message message = {.type = MESSAGE_status};
    bench->workers = 0;
    bench->credit = bench->running = -1;
    bench->status_done = false;
    if (peer_send(bench->peer, 0, &message) == 0) /* without an answer, nothing was seen */
        loop_run_until(&bench->loop, &bench->status_done, 1000);
}

bool workbench_credit_becomes(struct workbench *bench, int64_t credit)
{
    for (int i = 0; i < TRIES; i++) {
        workbench_status(bench);
        if (bench->credit == credit)
            return true;
        turn(bench);
    }
    return false;
}

void workbench_wait(struct workbench *bench, bool (*fn)(struct workbench *bench))
{
    for (int i = 0; i < TRIES && !fn(bench); i++)
        turn(bench);
    assert_true(fn(bench));
}

void workbench_wait_event(struct workbench *bench, const char *text)
{
    for (int i = 0; i < TRIES; i++) {
        if (bench->events.data != NULL && strstr(bench->events.data, text) != NULL)
            return;
        turn(bench);
    }
    fail_msg("no event with %s came", text);
}
