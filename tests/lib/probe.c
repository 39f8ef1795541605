#include "tests/lib/probe.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
/* cmocka wants the three above first. */
#include <cmocka.h>

#include "schemas/mem.h"
#include "tests/lib/servers.h"

static void is_up(void *ctx)
{
    ((struct probe *)ctx)->up = true;
}

/* One server; with ORCH_TEST_CLUSTER a cluster of three masters, where tests must fail that kill
 * the server, flush it, open clients of their own or use budgets of a day. */
static struct redis_options start_redis(struct fixture *fixture)
{
    static struct servers cluster;
    if (getenv("ORCH_TEST_CLUSTER") == NULL) {
        fixture_redis_start(fixture);
        return fixture_redis_options(fixture);
    }
    servers_init(&cluster, fixture);
    servers_start_cluster(&cluster, 3, 0, 2000);
    return (struct redis_options){.cluster = cluster.list, .n_cluster = 3};
}

void probe_open(struct probe *probe)
{
    memset(probe, 0, sizeof *probe);
    fixture_init(&probe->fixture);
    struct redis_options options = start_redis(&probe->fixture);
    loop_init(&probe->loop);
    struct redis_callbacks callbacks = {.up = is_up};
    struct err err = {""};
    assert_int_equal(queue_open(&probe->queue, &probe->loop, &options, &callbacks, probe, &err), 0);
    probe_wait_for(probe, &probe->up);
}

void probe_close(struct probe *probe)
{
    queue_log_close(&probe->follow);
    queue_close(&probe->queue);
    loop_finish(&probe->loop);
    struct buf *bufs[] = {&probe->work, &probe->deps, &probe->text, &probe->events, &probe->log};
    for (size_t i = 0; i < sizeof bufs / sizeof *bufs; i++)
        buf_release(bufs[i]);
    fixture_release(&probe->fixture);
}

void probe_wait_for(struct probe *probe, const bool *flag)
{
    assert_int_equal(loop_run_until(&probe->loop, flag, PROBE_WAIT_MS), 0);
}

void probe_wait(struct probe *probe)
{
    probe_wait_for(probe, &probe->done);
    probe->done = false;
}

static void answered(void *ctx, enum queue_status status, const char *err)
{
    struct probe *probe = ctx;
    probe->status = status;
    snprintf(probe->err, sizeof probe->err, "%s", err);
    probe->done = true;
}

static enum queue_status status_of(struct probe *probe)
{
    probe_wait(probe);
    return probe->status;
}

void probe_record(struct buf *out, enum message_type type, const char *text)
{
    struct message message = {.type = type};
    if (type == MESSAGE_work)
        message.work = (struct msg_work){.kind = "run", .prompt = {text, strlen(text)}};
    else if (type == MESSAGE_meta)
        message.meta = (struct msg_meta){.kind = "run", .title = text};
    else if (type == MESSAGE_outcome)
        message.outcome = (struct msg_outcome){.text = {text, strlen(text)}, .finish = "done"};
    else if (type == MESSAGE_timing)
        message.timing = (struct msg_timing){.sub = text, .result = "done"};
    assert_int_equal(message_encode(&message, out), 0);
}

/* --- submitting --------------------------------------------------------------------------- */

/* Nodes with what they point to. */
struct nodes {
    struct queue_node *items;
    struct buf *bufs; /* work, meta, deps of each */
    size_t n;
};

static void split_deps(struct queue_node *node, struct buf *text, const char *deps)
{
    size_t n = 0;
    buf_add_str(text, deps != NULL ? deps : "");
    const char **list = mem_must_zalloc((text->len / 2 + 2) * sizeof *list);
    char *save = NULL;
    for (char *at = text->data != NULL ? strtok_r(text->data, " ", &save) : NULL; at != NULL;
         at = strtok_r(NULL, " ", &save))
        list[n++] = at;
    node->deps = list;
    node->n_deps = n;
}

static struct nodes nodes_make(const struct probe_node *from, size_t n)
{
    struct nodes nodes = {mem_must_zalloc((n + 1) * sizeof *nodes.items),
                          mem_must_zalloc((3 * n + 1) * sizeof *nodes.bufs), n};
    for (size_t i = 0; i < n; i++) {
        struct buf *bufs = &nodes.bufs[3 * i];
        probe_record(&bufs[0], MESSAGE_work, from[i].id);
        probe_record(&bufs[1], MESSAGE_meta, from[i].id);
        nodes.items[i] = (struct queue_node){
            .id = from[i].id,
            .work = {bufs[0].data, bufs[0].len},
            .meta = {bufs[1].data, bufs[1].len},
            .priority = from[i].priority,
            .max_attempts = from[i].max_attempts > 0 ? from[i].max_attempts : 3,
            .expands = from[i].expands,
        };
        split_deps(&nodes.items[i], &bufs[2], from[i].deps);
    }
    return nodes;
}

static void nodes_release(struct nodes *nodes)
{
    for (size_t i = 0; i < nodes->n; i++)
        free((void *)(uintptr_t)nodes->items[i].deps);
    for (size_t i = 0; i < 3 * nodes->n; i++)
        buf_release(&nodes->bufs[i]);
    free(nodes->bufs);
    free(nodes->items);
}

void probe_send_submit(struct probe *probe, const char *task, const char *digest,
                       const struct probe_node *from, size_t n)
{
    struct nodes nodes = nodes_make(from, n);
    struct queue_task queue_task = {.id = task,
                                    .digest = digest,
                                    .title = "a title",
                                    .info = {"{}", 2},
                                    .budget = probe->budget,
                                    .nodes = nodes.items,
                                    .n_nodes = n};
    queue_submit(probe->queue, &queue_task, answered, probe);
    nodes_release(&nodes);
}

enum queue_status probe_submit(struct probe *probe, const char *task, const char *digest,
                               const struct probe_node *nodes, size_t n_nodes)
{
    probe_send_submit(probe, task, digest, nodes, n_nodes);
    return status_of(probe);
}

enum queue_status probe_expand(struct probe *probe, const char *task, const char *parent,
                               const struct probe_node *from, size_t n)
{
    struct nodes nodes = nodes_make(from, n);
    queue_expand(probe->queue, task, parent, nodes.items, n, answered, probe);
    nodes_release(&nodes);
    return status_of(probe);
}

/* --- working ------------------------------------------------------------------------------ */

static void claimed(void *ctx, enum queue_status status, const struct queue_claim *claim,
                    const char *err)
{
    struct probe *probe = ctx;
    answered(probe, status, err);
    assert_true((claim != NULL) == (status == QUEUE_OK));
    if (claim == NULL)
        return;
    snprintf(probe->token, sizeof probe->token, "%s", claim->token);
    probe->attempt = claim->attempt;
    probe->queue_ms = claim->queue_ms;
    probe->budgeted = claim->budgeted;
    buf_clear(&probe->work);
    buf_add(&probe->work, claim->work.data, claim->work.len);
    buf_clear(&probe->deps);
    for (size_t i = 0; i < claim->n_deps; i++) {
        struct message message = {0};
        assert_int_equal(
            message_decode_as(&message, MESSAGE_outcome, claim->deps[i].data, claim->deps[i].len),
            0);
        buf_add(&probe->deps, message.outcome.text.data, message.outcome.text.len);
        buf_add_char(&probe->deps, '\n');
        message_release(&message);
    }
}

enum queue_status probe_claim_for(struct probe *probe, const char *task, const char *sub,
                                  const char *nonce, int64_t lease_ms)
{
    queue_claim(probe->queue, task, sub, "worker", "model@place", nonce, lease_ms, false, claimed,
                probe);
    return status_of(probe);
}

enum queue_status probe_claim(struct probe *probe, const char *task, const char *sub,
                              const char *nonce)
{
    return probe_claim_for(probe, task, sub, nonce, 60000);
}

enum queue_status probe_hedge(struct probe *probe, const char *task, const char *sub,
                              const char *nonce, int64_t lease_ms)
{
    queue_claim(probe->queue, task, sub, "hedger", "model@elsewhere", nonce, lease_ms, true,
                claimed, probe);
    return status_of(probe);
}

enum queue_status probe_reserve(struct probe *probe, const char *task, const char *sub,
                                const char *token, const struct queue_account *accounts,
                                size_t n_accounts, struct queue_spend worst)
{
    queue_reserve(probe->queue, task, sub, token, accounts, n_accounts, worst, answered, probe);
    return status_of(probe);
}

enum queue_status probe_lose(struct probe *probe, const char *task, const char *sub,
                             const char *token)
{
    struct buf timing = {0};
    probe_record(&timing, MESSAGE_timing, sub);
    queue_lose(probe->queue, task, sub, token, (struct bytes){timing.data, timing.len},
               probe->spent, answered, probe);
    buf_release(&timing);
    return status_of(probe);
}

enum queue_status probe_renew(struct probe *probe, const char *task, const char *sub,
                              const char *token, int64_t lease_ms)
{
    queue_renew(probe->queue, task, sub, token, lease_ms, answered, probe);
    return status_of(probe);
}

enum queue_status probe_commit(struct probe *probe, const char *task, const char *sub,
                               const char *token)
{
    struct buf outcome = {0}, timing = {0};
    char text[128];
    snprintf(text, sizeof text, "result of %s", sub);
    probe_record(&outcome, MESSAGE_outcome, text);
    probe_record(&timing, MESSAGE_timing, sub);
    queue_commit(probe->queue, task, sub, token, (struct bytes){outcome.data, outcome.len},
                 (struct bytes){timing.data, timing.len}, probe->spent, answered, probe);
    buf_release(&outcome);
    buf_release(&timing);
    return status_of(probe);
}

enum queue_status probe_fail(struct probe *probe, const char *task, const char *sub,
                             const char *token, enum error_action action, int64_t backoff_ms)
{
    struct buf timing = {0};
    probe_record(&timing, MESSAGE_timing, sub);
    queue_fail(probe->queue, task, sub, token, CLASS_TIMEOUT, action, "it took too long",
               probe->arm != NULL ? probe->arm : "model@place", backoff_ms,
               (struct bytes){timing.data, timing.len}, probe->spent, answered, probe);
    buf_release(&timing);
    return status_of(probe);
}

void probe_run(struct probe *probe, const char *task, const char *sub)
{
    assert_int_equal(probe_claim(probe, task, sub, "run"), QUEUE_OK);
    assert_int_equal(probe_commit(probe, task, sub, probe->token), QUEUE_OK);
}

enum queue_status probe_sub(struct probe *probe, probe_sub_fn *call, const char *task,
                            const char *sub)
{
    call(probe->queue, task, sub, answered, probe);
    return status_of(probe);
}

enum queue_status probe_task(struct probe *probe, probe_task_fn *call, const char *task)
{
    call(probe->queue, task, answered, probe);
    return status_of(probe);
}

/* --- reading ------------------------------------------------------------------------------ */

static void viewed(void *ctx, enum queue_status status, const struct queue_task_view *view,
                   const char *err)
{
    struct probe *probe = ctx;
    answered(probe, status, err);
    buf_clear(&probe->text);
    if (view == NULL) {
        buf_add_str(&probe->text, queue_status_name(status));
        return;
    }
    probe->view_cost = view->cost_nano_usd;
    probe->view_spent = view->spent;
    probe->view_held = view->held;
    buf_printf(&probe->text, "%s %lld/%lld", task_state_name(view->state),
               (long long)view->remaining, (long long)view->total);
    for (size_t i = 0; i < view->n_subs; i++)
        buf_printf(&probe->text, " %s=%s", view->subs[i].id, sub_state_name(view->subs[i].state));
}

const char *probe_read(struct probe *probe, const char *task)
{
    queue_read(probe->queue, task, false, viewed, probe);
    probe_wait(probe);
    return probe->text.data;
}

static void accounted(void *ctx, const struct queue_spend *spent, const struct queue_spend *held,
                      size_t n, const char *err)
{
    struct probe *probe = ctx;
    assert_string_equal(err, "");
    assert_int_equal(n, 1);
    probe->view_spent = *spent;
    probe->view_held = *held;
    probe->done = true;
}

void probe_account(struct probe *probe, const char *name)
{
    queue_accounts(probe->queue, &name, 1, accounted, probe);
    probe_wait(probe);
}

static void replied(void *ctx, const struct redis_value *value)
{
    struct probe *probe = ctx;
    size_t len;
    const char *text = redis_str(value, &len);
    buf_clear(&probe->text);
    if (redis_type(value) == REDIS_INT)
        buf_printf(&probe->text, "%lld", (long long)redis_int(value));
    else
        buf_add(&probe->text, text, len);
    buf_add_str(&probe->text, "");
    probe->done = true;
}

const char *probe_redis(struct probe *probe, const char *words)
{
    redis_simple(queue_redis(probe->queue), replied, probe, words);
    probe_wait(probe);
    return probe->text.data != NULL ? probe->text.data : "";
}

static void finding(void *ctx, const char *task, const char *sub, const char *text)
{
    struct probe *probe = ctx;
    buf_printf(&probe->text, "%s/%s: %s\n", task, sub, text);
}

static void checked(void *ctx, int64_t tasks, int64_t findings, const char *err)
{
    struct probe *probe = ctx;
    (void)tasks;
    answered(probe, QUEUE_OK, err);
    probe->findings = findings;
}

int64_t probe_fsck(struct probe *probe)
{
    buf_clear(&probe->text);
    queue_fsck(probe->queue, finding, checked, probe);
    probe_wait(probe);
    assert_string_equal(probe->err, "");
    if (probe->findings > 0 && !probe->quiet)
        fprintf(stderr, "%s", probe->text.data);
    return probe->findings;
}

static void event(void *ctx, const struct queue_event *event)
{
    static const char *const names[] = {"READY",     "DONE", "FAIL", "DEAD",
                                        "SUBMITTED", "TASK", "LOST"};
    struct probe *probe = ctx;
    buf_printf(&probe->events, "%s %s%s%s", names[event->kind], event->task,
               event->sub[0] != '\0' ? "/" : "", event->sub);
    if (event->kind == QUEUE_EVENT_TASK)
        buf_printf(&probe->events, " %s", task_state_name(event->state));
    if (event->kind == QUEUE_EVENT_FAIL || event->kind == QUEUE_EVENT_DEAD)
        buf_printf(&probe->events, " %s (%s)", event->error_class, event->reason);
    if (event->kind == QUEUE_EVENT_READY && event->avoid[0] != '\0')
        buf_printf(&probe->events, " avoid %s", event->avoid);
    if (event->kind == QUEUE_EVENT_READY && event->meta.len == 0)
        buf_add_str(&probe->events, " no meta");
    if (event->expands)
        buf_add_str(&probe->events, " expands");
    buf_add_char(&probe->events, '\n');
    probe->n_events++;
    snprintf(probe->last_event[event->shard], sizeof *probe->last_event, "%s", event->id);
}

void probe_follow(struct probe *probe)
{
    struct err err = {""};
    assert_int_equal(queue_follow(probe->queue, event, probe, &err), 0);
}

static void logged(void *ctx, const struct queue_log_entry *entry)
{
    struct probe *probe = ctx;
    buf_printf(&probe->log, "%s%s%s\n", entry->what, entry->sub[0] != '\0' ? " " : "", entry->sub);
}

void probe_follow_log(struct probe *probe, const char *task, const char *after)
{
    struct err err = {""};
    assert_int_equal(queue_log_open(&probe->follow, probe->queue, task, after, logged, probe, &err),
                     0);
}

/* Polled on the loop, because what collects runs on it. */
struct text_wait {
    const struct buf *text;
    const char *want;
    bool found;
};

static void look(void *ctx)
{
    struct text_wait *wait = ctx;
    wait->found = wait->text->data != NULL && strstr(wait->text->data, wait->want) != NULL;
}

void probe_wait_text(struct probe *probe, const struct buf *text, const char *want)
{
    struct text_wait wait = {text, want, false};
    struct loop_timer *timer = loop_timer_new(&probe->loop, look, &wait);
    loop_timer_start(timer, 0, 2);
    int rc = loop_run_until(&probe->loop, &wait.found, PROBE_WAIT_MS);
    loop_timer_free(&timer);
    if (rc != 0)
        fail_msg("\"%s\" did not come; there is:\n%s", want,
                 text->data != NULL ? text->data : "nothing");
}
