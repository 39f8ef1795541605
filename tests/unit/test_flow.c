/* The flow against a small model of queue and brokers that lose, repeat and reorder. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "orchestrator/flow.h"
#include "orchestrator/plan.h"
#include "schemas/mem.h"

/* --- single steps ----------------------------------------------------------------------------- */

static struct flow *flow;
static const struct flow_action *actions;
static size_t n_actions;
static int64_t now_ms, read_serial; /* of the last READ */

static struct flow_event filled(struct flow_event event)
{
    const char **texts[] = {&event.task, &event.sub, &event.text, &event.arm, &event.worker};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (*texts[i] == NULL)
            *texts[i] = "";
    event.now_ms = now_ms;
    event.serial = event.serial != 0 ? event.serial : read_serial;
    return event;
}

static void step(struct flow_event event)
{
    event = filled(event);
    actions = flow_step(flow, &event, &n_actions);
    for (size_t i = 0; i < n_actions; i++)
        if (actions[i].kind == FLOW_READ)
            read_serial = actions[i].serial;
}

static size_t count(enum flow_action_kind kind)
{
    size_t found = 0;
    for (size_t i = 0; i < n_actions; i++)
        found += actions[i].kind == kind;
    return found;
}

static const struct flow_action *only(enum flow_action_kind kind)
{
    const struct flow_action *found = NULL;
    assert_int_equal(count(kind), 1);
    for (size_t i = 0; i < n_actions; i++)
        if (actions[i].kind == kind)
            found = &actions[i];
    return found;
}

static int64_t hedge_after_ms = -1;

static int64_t hedge_ms(void *ctx, struct bytes meta, const char *arm)
{
    (void)ctx;
    assert_true(meta.len == 0 || memcmp(meta.data, "meta", 4) == 0);
    return strcmp(arm, "slow@p") == 0 ? hedge_after_ms : -1;
}

/* A flow that holds all shards. */
static struct flow *whole_flow(const struct flow_options *options)
{
    struct flow *made = flow_new(options);
    size_t n;
    for (int shard = 0; shard < SHARD_COUNT; shard++) {
        struct flow_event event = filled((struct flow_event){.kind = FLOW_EVENT_GAINED});
        event.shard = shard;
        flow_step(made, &event, &n);
        assert_int_equal(n, 0);
    }
    return made;
}

static void start(int brokers)
{
    struct flow_options options = flow_defaults;
    options.hedge_ms = hedge_ms;
    options.brokers = brokers;
    options.reserve_max = 0; /* what is beyond the window is read again */
    now_ms = 1000;
    flow = whole_flow(&options);
}

static void end(void)
{
    flow_free(&flow);
    assert_null(flow);
}

static void welcome(int broker, int64_t limit)
{
    step((struct flow_event){.kind = FLOW_EVENT_WELCOME, .broker = broker, .limit = limit});
}

static void answer_scans(void)
{
    struct flow_action scans[1024];
    size_t n_scans = 0;
    for (size_t i = 0; i < n_actions; i++)
        if (actions[i].kind == FLOW_SCAN)
            scans[n_scans++] = actions[i];
    for (size_t i = 0; i < n_scans; i++)
        step((struct flow_event){
            .kind = FLOW_EVENT_ITEMS, .shard = scans[i].shard, .index = scans[i].index});
}

/* A broker with room and no unread index. */
static void start_settled(int64_t limit)
{
    start(1);
    welcome(0, limit);
    for (int i = 0; i < 100; i++)
        answer_scans();
}

static int sequence;

static void queue_event(struct queue_event event)
{
    char id[32];
    snprintf(id, sizeof id, "1-%d", ++sequence);
    event.id = id;
    event.sub = event.sub != NULL ? event.sub : "";
    event.avoid = event.avoid != NULL ? event.avoid : "";
    event.error_class = event.error_class != NULL ? event.error_class : "";
    event.reason = "";
    step((struct flow_event){.kind = FLOW_EVENT_QUEUE, .queue = &event});
}

static void ready(const char *task, const char *sub, int64_t attempt)
{
    queue_event((struct queue_event){
        .kind = QUEUE_EVENT_READY, .task = task, .sub = sub, .attempt = attempt});
}

static void a_ready_subtask_is_offered_once(void **state)
{
    (void)state;
    start_settled(10);
    ready("t", "a", 0);
    assert_string_equal(only(FLOW_OFFER)->sub, "a");
    ready("t", "a", 0);
    assert_int_equal(count(FLOW_OFFER), 0);
    assert_int_equal(flow_offered(flow, 0), 1);
    end();
}

static void a_new_round_is_offered_again_after_a_failure(void **state)
{
    (void)state;
    start_settled(10);
    ready("t", "a", 0);
    step((struct flow_event){.kind = FLOW_EVENT_TAKEN, .task = "t", .sub = "a"});
    assert_int_equal(flow_offered(flow, 0), 0);
    queue_event(
        (struct queue_event){.kind = QUEUE_EVENT_FAIL, .task = "t", .sub = "a", .attempt = 1});
    ready("t", "a", 1);
    assert_int_equal(count(FLOW_OFFER), 1);
    end();
}

static void what_no_arm_is_left_for_is_buried(void **state)
{
    (void)state;
    start_settled(10);
    ready("t", "a", 1);
    step((struct flow_event){.kind = FLOW_EVENT_EXHAUSTED, .task = "t", .sub = "a"});
    assert_string_equal(only(FLOW_BURY)->sub, "a");
    assert_int_equal(flow_offered(flow, 0), 0);
    ready("t", "a", 1);
    assert_int_equal(count(FLOW_OFFER) + count(FLOW_BURY), 0);
    queue_event((struct queue_event){.kind = QUEUE_EVENT_DEAD, .task = "t", .sub = "a"});
    assert_true(only(FLOW_PUBLISH)->alone);
    ready("t", "b", 1); /* a death that its worker tells of */
    queue_event((struct queue_event){.kind = QUEUE_EVENT_DEAD, .task = "t", .sub = "b"});
    assert_false(only(FLOW_PUBLISH)->alone);
    end();
}

static void nothing_is_offered_beyond_the_window_and_the_rest_is_read_later(void **state)
{
    (void)state;
    start_settled(2);
    ready("t", "a", 0);
    ready("t", "b", 0);
    ready("t", "c", 0);
    assert_int_equal(count(FLOW_OFFER), 0);
    assert_int_equal(flow_offered(flow, 0), 2);
    step((struct flow_event){.kind = FLOW_EVENT_TAKEN, .task = "t", .sub = "a"});
    const struct flow_action *scan = only(FLOW_SCAN);
    assert_int_equal(scan->index, QUEUE_INDEX_READY);
    int shard = scan->shard;
    struct queue_item item = {.task = "t", .sub = "c"};
    step((struct flow_event){.kind = FLOW_EVENT_ITEMS,
                             .shard = shard,
                             .index = QUEUE_INDEX_READY,
                             .items = &item,
                             .n_items = 1});
    assert_string_equal(only(FLOW_OFFER)->sub, "c");
    end();
}

static void what_is_beyond_the_window_waits_in_the_reserve_by_priority(void **state)
{
    (void)state;
    struct flow_options options = flow_defaults;
    options.reserve_max = 2;
    now_ms = 1000;
    flow = whole_flow(&options);
    welcome(0, 1);
    ready("t", "a", 0);
    ready("t", "b", 0);
    queue_event((struct queue_event){
        .kind = QUEUE_EVENT_READY, .task = "t", .sub = "urgent", .priority = 5});
    ready("t", "c", 0);
    assert_int_equal(count(FLOW_OFFER), 0);
    step((struct flow_event){.kind = FLOW_EVENT_TAKEN, .task = "t", .sub = "a"});
    assert_string_equal(only(FLOW_OFFER)->sub, "urgent");
    step((struct flow_event){.kind = FLOW_EVENT_TAKEN, .task = "t", .sub = "urgent"});
    assert_string_equal(only(FLOW_OFFER)->sub, "b");
    assert_int_equal(flow_offered(flow, 0), 1);
    end();
}

static void offers_of_a_lost_broker_move_to_another(void **state)
{
    (void)state;
    start(2);
    welcome(0, 10);
    welcome(1, 10);
    ready("t", "a", 0);
    int broker = only(FLOW_OFFER)->broker;
    step((struct flow_event){.kind = FLOW_EVENT_LOST, .broker = broker});
    assert_int_equal(only(FLOW_OFFER)->broker, 1 - broker);
    assert_int_equal(flow_offered(flow, broker), 0);
    end();
}

static void what_a_lost_broker_dispatched_is_looked_at_without_a_grace(void **state)
{
    (void)state;
    start(2);
    for (int i = 0; i < 200; i++) {
        if (i % 100 == 0)
            welcome(i / 100, 10);
        answer_scans();
    }
    ready("t", "a", 0);
    int broker = only(FLOW_OFFER)->broker;
    step((struct flow_event){.kind = FLOW_EVENT_TAKEN, .broker = broker, .task = "t", .sub = "a"});
    step((struct flow_event){.kind = FLOW_EVENT_LOST, .broker = broker});
    now_ms += 100; /* of 3,000 */
    step((struct flow_event){.kind = FLOW_EVENT_TICK});
    bool asked = false;
    for (size_t i = 0; i < n_actions; i++)
        asked |= actions[i].kind == FLOW_SCAN && actions[i].index == QUEUE_INDEX_READY &&
                 actions[i].shard == 0;
    assert_true(asked);
    struct queue_item item = {.task = "t", .sub = "a", .avoid = "", .error_class = ""};
    step((struct flow_event){
        .kind = FLOW_EVENT_ITEMS, .index = QUEUE_INDEX_READY, .items = &item, .n_items = 1});
    assert_int_equal(only(FLOW_OFFER)->broker, 1 - broker);
    end();
}

static void offers_are_repeated_to_a_broker_that_comes_back(void **state)
{
    (void)state;
    start_settled(10);
    ready("t", "a", 0);
    step((struct flow_event){.kind = FLOW_EVENT_LOST});
    assert_int_equal(count(FLOW_OFFER), 0);
    step((struct flow_event){.kind = FLOW_EVENT_INTRODUCE});
    welcome(0, 10);
    assert_string_equal(only(FLOW_OFFER)->sub, "a");
    end();
}

static void an_offer_that_is_no_longer_in_the_index_is_withdrawn(void **state)
{
    (void)state;
    start_settled(10);
    ready("t", "a", 0);
    now_ms += 2000;
    step((struct flow_event){.kind = FLOW_EVENT_TICK});
    struct flow_action scan = {0};
    for (size_t i = 0; i < n_actions; i++)
        if (actions[i].kind == FLOW_SCAN && actions[i].index == QUEUE_INDEX_READY &&
            actions[i].shard == 0)
            scan = actions[i];
    assert_int_equal(scan.kind, FLOW_SCAN);
    step((struct flow_event){.kind = FLOW_EVENT_ITEMS, .index = QUEUE_INDEX_READY});
    assert_string_equal(only(FLOW_WITHDRAW)->sub, "a");
    assert_int_equal(flow_offered(flow, 0), 0);
    end();
}

static void a_cancelled_task_is_withdrawn_and_broadcast(void **state)
{
    (void)state;
    start_settled(10);
    ready("t", "a", 0);
    ready("u", "a", 0);
    queue_event(
        (struct queue_event){.kind = QUEUE_EVENT_TASK, .task = "t", .state = TASK_CANCELLED});
    assert_string_equal(only(FLOW_CANCEL)->task, "t");
    assert_string_equal(only(FLOW_WITHDRAW)->task, "t");
    assert_int_equal(flow_offered(flow, 0), 1);
    end();
}

static void an_unserved_subtask_is_noted_once(void **state)
{
    (void)state;
    start_settled(10);
    ready("t", "a", 0);
    struct flow_event unserved = {.kind = FLOW_EVENT_UNSERVED, .task = "t", .sub = "a"};
    step(unserved);
    assert_string_equal(only(FLOW_NOTE)->sub, "a");
    step(unserved);
    assert_int_equal(count(FLOW_NOTE), 0);
    end();
}

static void unserved_subtasks_leave_room_for_others(void **state)
{
    (void)state;
    start_settled(4);
    for (int i = 0; i < 40; i++) {
        char sub[16];
        snprintf(sub, sizeof sub, "u%d", i);
        ready("t", sub, 0);
        if (count(FLOW_OFFER) == 1)
            step((struct flow_event){.kind = FLOW_EVENT_UNSERVED, .task = "t", .sub = sub});
    }
    assert_true(flow_offered(flow, 0) <= 2);
    ready("t", "served", 0);
    assert_int_equal(count(FLOW_OFFER), 1);
    /* A worker comes and takes an unserved one: the parked ones follow. */
    step((struct flow_event){.kind = FLOW_EVENT_TAKEN, .task = "t", .sub = "u0"});
    assert_true(count(FLOW_OFFER) >= 1);
    end();
}

static void a_plan_is_read_expanded_and_then_checkpointed(void **state)
{
    (void)state;
    start_settled(10);
    ready("t", PLAN_NODE, 0); /* event 1 */
    int before = sequence;
    queue_event((struct queue_event){
        .kind = QUEUE_EVENT_DONE, .task = "t", .sub = PLAN_NODE, .expands = true});
    assert_string_equal(only(FLOW_READ)->task, "t");
    ready("t", "x", 0);
    step((struct flow_event){.kind = FLOW_EVENT_STOP});
    char id[32];
    snprintf(id, sizeof id, "1-%d", before);
    assert_string_equal(only(FLOW_CHECKPOINT)->id, id);
    step((struct flow_event){.kind = FLOW_EVENT_PLAN,
                             .task = "t",
                             .sub = PLAN_NODE,
                             .verdict = FLOW_VERDICT_PLAN,
                             .text = ""});
    assert_int_equal(only(FLOW_EXPAND)->expand, FLOW_EXPAND_PLAN);
    step((struct flow_event){.kind = FLOW_EVENT_EXPANDED,
                             .task = "t",
                             .sub = PLAN_NODE,
                             .status = QUEUE_OK,
                             .text = ""});
    assert_int_equal(flow_expanding(flow), 0);
    step((struct flow_event){.kind = FLOW_EVENT_STOP});
    snprintf(id, sizeof id, "1-%d", sequence);
    assert_string_equal(only(FLOW_CHECKPOINT)->id, id);
    end();
}

static void a_plan_in_the_middle_of_an_entry_holds_the_whole_entry_back(void **state)
{
    (void)state;
    start_settled(10);
    ready("t", PLAN_NODE, 0);
    int before = sequence;
    queue_event((struct queue_event){.kind = QUEUE_EVENT_DONE, .task = "u", .sub = "x"});
    sequence--; /* what follows is another event of the same entry */
    queue_event((struct queue_event){
        .kind = QUEUE_EVENT_DONE, .task = "t", .sub = PLAN_NODE, .expands = true});
    step((struct flow_event){.kind = FLOW_EVENT_STOP});
    char id[32];
    snprintf(id, sizeof id, "1-%d", before);
    assert_string_equal(only(FLOW_CHECKPOINT)->id, id);
    end();
}

static enum flow_expand expand_of(const char *sub, enum flow_verdict verdict)
{
    queue_event(
        (struct queue_event){.kind = QUEUE_EVENT_DONE, .task = "t", .sub = sub, .expands = true});
    step((struct flow_event){.kind = FLOW_EVENT_PLAN,
                             .task = "t",
                             .sub = sub,
                             .verdict = verdict,
                             .text = "it is a poem"});
    return only(FLOW_EXPAND)->expand;
}

static void a_bad_plan_is_repaired_once_and_then_given_up(void **state)
{
    (void)state;
    start_settled(10);
    assert_int_equal(expand_of(PLAN_NODE, FLOW_VERDICT_BAD), FLOW_EXPAND_REPAIR);
    assert_string_equal(only(FLOW_EXPAND)->text, "it is a poem");
    assert_int_equal(expand_of(PLAN_REPAIR_NODE, FLOW_VERDICT_BAD), FLOW_EXPAND_SINGLE);
    end();
}

static void a_refused_expand_is_tried_again(void **state)
{
    (void)state;
    start_settled(10);
    assert_int_equal(expand_of(PLAN_NODE, FLOW_VERDICT_PLAN), FLOW_EXPAND_PLAN);
    step((struct flow_event){.kind = FLOW_EVENT_EXPANDED,
                             .task = "t",
                             .sub = PLAN_NODE,
                             .status = QUEUE_REFUSED,
                             .text = ""});
    assert_int_equal(flow_expanding(flow), 1);
    now_ms += 1500;
    step((struct flow_event){.kind = FLOW_EVENT_TICK});
    assert_int_equal(count(FLOW_READ), 1);
    end();
}

static void a_checkpoint_waits_until_the_records_are_kept(void **state)
{
    (void)state;
    start_settled(10);
    queue_event((struct queue_event){
        .kind = QUEUE_EVENT_DONE, .task = "t", .sub = "a", .timing = {.data = "x", .len = 1}});
    assert_int_equal(count(FLOW_RECORD), 1);
    now_ms += 1000;
    step((struct flow_event){.kind = FLOW_EVENT_TICK});
    assert_int_equal(count(FLOW_BARRIER), 1);
    assert_int_equal(count(FLOW_CHECKPOINT), 0);
    now_ms += 1000;
    step((struct flow_event){.kind = FLOW_EVENT_TICK});
    assert_int_equal(count(FLOW_BARRIER), 0);
    step((struct flow_event){.kind = FLOW_EVENT_DURABLE});
    assert_int_equal(count(FLOW_CHECKPOINT), 1);
    end();
}

static void after_a_failure_due_retries_are_looked_for_often(void **state)
{
    (void)state;
    start_settled(10);
    queue_event((struct queue_event){
        .kind = QUEUE_EVENT_FAIL, .task = "t", .sub = "a", .attempt = 1, .shard = 5});
    int scans = 0;
    for (int i = 0; i < 10; i++) {
        now_ms += 100;
        step((struct flow_event){.kind = FLOW_EVENT_TICK});
        for (size_t j = 0; j < n_actions; j++)
            scans += actions[j].kind == FLOW_SCAN && actions[j].index == QUEUE_INDEX_DELAY &&
                     actions[j].shard == 5;
        answer_scans();
    }
    assert_true(scans >= 9);
    end();
}

/* --- declined dispatches ---------------------------------------------------------------------- */

static void taken(const char *sub, const char *arm, bool hedge)
{
    step((struct flow_event){.kind = FLOW_EVENT_TAKEN,
                             .task = "t",
                             .sub = sub,
                             .arm = arm,
                             .worker = "w",
                             .hedge = hedge});
}

static void declined(const char *sub, const char *arm, int64_t after_ms)
{
    step((struct flow_event){.kind = FLOW_EVENT_DECLINED,
                             .task = "t",
                             .sub = sub,
                             .arm = arm,
                             .after_ms = after_ms,
                             .text = "50 requests per minute"});
}

static void tick_after(int64_t ms)
{
    now_ms += ms;
    step((struct flow_event){.kind = FLOW_EVENT_TICK});
}

static void a_declined_subtask_is_offered_at_once_but_not_to_that_arm(void **state)
{
    (void)state;
    start_settled(10);
    ready("t", "a", 0);
    taken("a", "sonnet@p", false);
    declined("a", "sonnet@p", 12000);
    assert_string_equal(only(FLOW_OFFER)->avoid, "sonnet@p=12000");
    assert_string_equal(only(FLOW_WAIT)->text, "waits 12 s for sonnet@p: 50 requests per minute");
    assert_int_equal(flow_offered(flow, 0), 1);
    now_ms += 2000;
    taken("a", "haiku@p", false);
    declined("a", "haiku@p", 700);
    assert_string_equal(only(FLOW_OFFER)->avoid, "sonnet@p=10000 haiku@p=700");
    assert_int_equal(count(FLOW_WAIT), 0); /* said lately */
    now_ms += 10000;
    taken("a", "haiku@p", false);
    declined("a", "haiku@p", 150000);
    assert_string_equal(only(FLOW_OFFER)->avoid, "haiku@p=150000"); /* sonnet's time is over */
    assert_string_equal(only(FLOW_WAIT)->text, "waits 3 min for haiku@p: 50 requests per minute");
    end();
}

static void repeated_declines_back_off_by_themselves(void **state)
{
    (void)state;
    start_settled(10);
    ready("t", "a", 0);
    int64_t last = 0;
    for (int i = 0; i < 20; i++) {
        taken("a", "m@p", false);
        declined("a", "m@p", i % 2 == 0 ? 0 : INT64_MIN);
        const char *avoid = only(FLOW_OFFER)->avoid;
        int64_t ms = strtoll(strchr(avoid, '=') + 1, NULL, 10);
        assert_true(ms >= 10 && ms >= last && ms <= 1000);
        last = ms;
    }
    assert_int_equal(last, 1000);
    end();
}

static void an_odd_name_of_an_arm_blocks_nothing_else(void **state)
{
    (void)state;
    start_settled(10);
    ready("t", "a", 0);
    taken("a", "m@p", false);
    declined("a", "x sonnet@p", 5000);
    assert_string_equal(only(FLOW_OFFER)->avoid, "");
    declined("a", "", 5000);
    assert_string_equal(only(FLOW_OFFER)->avoid, "");
    end();
}

static void a_decline_of_what_is_not_known_does_nothing(void **state)
{
    (void)state;
    start_settled(10);
    declined("a", "m@p", 100);
    assert_int_equal(n_actions, 0);
    ready("t", "a", 0);
    taken("a", "m@p", false);
    queue_event((struct queue_event){.kind = QUEUE_EVENT_DONE, .task = "t", .sub = "a"});
    declined("a", "m@p", 100);
    assert_int_equal(n_actions, 0);
    end();
}

static void a_declined_subtask_waits_for_room(void **state)
{
    (void)state;
    start_settled(1);
    ready("t", "a", 0);
    taken("a", "m@p", false);
    ready("t", "b", 0);
    assert_int_equal(count(FLOW_OFFER), 1);
    declined("a", "m@p", 5000);
    assert_int_equal(count(FLOW_OFFER), 0);
    now_ms += 2000;
    taken("b", "n@p", false);
    assert_string_equal(only(FLOW_OFFER)->avoid, "m@p=3000");
    end();
}

static void what_the_queue_says_of_blocked_arms_is_counted_from_when_it_was_ready(void **state)
{
    (void)state;
    start_settled(10);
    queue_event((struct queue_event){.kind = QUEUE_EVENT_READY,
                                     .task = "t",
                                     .sub = "a",
                                     .attempt = 1,
                                     .error_class = "overloaded",
                                     .avoid = "x@p a=b=4000 =7 y@p=0 z@p="});
    assert_string_equal(only(FLOW_OFFER)->avoid, "x@p =7 z@p= a=b=4000");
    assert_string_equal(only(FLOW_OFFER)->error_class, "overloaded");
    now_ms += 1500;
    step((struct flow_event){.kind = FLOW_EVENT_LOST});
    step((struct flow_event){.kind = FLOW_EVENT_INTRODUCE});
    welcome(0, 10);
    assert_string_equal(only(FLOW_OFFER)->avoid, "x@p =7 z@p= a=b=2500");
    step((struct flow_event){.kind = FLOW_EVENT_EXHAUSTED, .task = "t", .sub = "a"});
    assert_string_equal(only(FLOW_BURY)->avoid, "x@p a=b=4000 =7 y@p=0 z@p="); /* as it has it */
    end();
}

static void more_arms_than_are_remembered_are_no_harm(void **state)
{
    (void)state;
    start_settled(10);
    ready("t", "a", 0);
    for (int i = 0; i < 50; i++) {
        char arm[16];
        snprintf(arm, sizeof arm, "m%d@p", i);
        taken("a", arm, false);
        declined("a", arm, 1000 + i);
    }
    assert_true(strlen(only(FLOW_OFFER)->avoid) < 200);
    assert_non_null(strstr(only(FLOW_OFFER)->avoid, "m49@p=1049"));
    end();
}

static void a_paused_arm_is_told_as_the_broker_says_it(void **state)
{
    (void)state;
    start_settled(10);
    ready("t", "a", 0);
    struct flow_event unserved = {
        .kind = FLOW_EVENT_UNSERVED, .task = "t", .sub = "a", .text = "m@p is paused: timeouts"};
    step(unserved);
    assert_string_equal(only(FLOW_NOTE)->text, "m@p is paused: timeouts");
    step(unserved);
    assert_int_equal(count(FLOW_NOTE), 0);
    now_ms += 11000;
    step(unserved);
    assert_int_equal(count(FLOW_NOTE), 1);
    end();
}

static void why_no_arm_is_left_goes_with_the_burial(void **state)
{
    (void)state;
    start_settled(10);
    ready("t", "a", 1);
    step((struct flow_event){
        .kind = FLOW_EVENT_EXHAUSTED, .task = "t", .sub = "a", .text = "it needs a window"});
    assert_string_equal(only(FLOW_BURY)->text, "it needs a window");
    end();
}

/* --- hedges ----------------------------------------------------------------------------------- */

/* Subtask a runs on slow@p, and is hedged after 5 s. */
static void start_hedged(int64_t limit)
{
    hedge_after_ms = 5000;
    start_settled(limit);
    queue_event((struct queue_event){
        .kind = QUEUE_EVENT_READY, .task = "t", .sub = "a", .avoid = "bad@p", .meta = {"meta", 4}});
    taken("a", "slow@p", false);
    assert_int_equal(flow_hedges(flow), 1);
}

static void end_hedged(void)
{
    assert_int_equal(flow_hedges(flow), 0);
    hedge_after_ms = -1;
    end();
}

static void finished(const char *sub, enum queue_event_kind kind, int64_t attempt)
{
    queue_event((struct queue_event){.kind = kind, .task = "t", .sub = sub, .attempt = attempt});
}

static void a_slow_attempt_is_hedged_once_and_the_loser_cancelled(void **state)
{
    (void)state;
    start_hedged(10);
    tick_after(4999);
    assert_int_equal(count(FLOW_OFFER), 0);
    tick_after(1);
    const struct flow_action *offer = only(FLOW_OFFER);
    assert_true(offer->hedge);
    assert_string_equal(offer->running, "slow@p");
    assert_string_equal(offer->avoid, "bad@p");
    assert_int_equal(offer->meta.len, 4);
    tick_after(9999);
    assert_int_equal(count(FLOW_OFFER), 0);
    tick_after(50001);
    assert_true(only(FLOW_OFFER)->hedge); /* the same again: it may have been lost */
    taken("a", "fast@p", true);
    assert_string_equal(only(FLOW_PUBLISH)->what, "hedged");
    assert_string_equal(only(FLOW_PUBLISH)->arm, "fast@p");
    assert_non_null(strstr(only(FLOW_NOTE)->text, "slow@p has taken 65.0 s"));
    tick_after(60000);
    assert_int_equal(count(FLOW_OFFER), 0);
    finished("a", QUEUE_EVENT_DONE, 2);
    assert_string_equal(only(FLOW_CANCEL)->sub, "a");
    end_hedged();
}

static void what_is_done_in_time_is_not_hedged(void **state)
{
    (void)state;
    start_hedged(10);
    finished("a", QUEUE_EVENT_DONE, 1);
    assert_int_equal(count(FLOW_CANCEL), 0);
    tick_after(10000);
    assert_int_equal(count(FLOW_OFFER), 0);
    end_hedged();
}

static void nothing_is_hedged_without_the_roles_wish(void **state)
{
    (void)state;
    hedge_after_ms = 5000;
    start_settled(10);
    ready("t", "a", 0);
    taken("a", "other@p", false);
    assert_int_equal(flow_hedges(flow), 0);
    tick_after(100000);
    assert_int_equal(count(FLOW_OFFER), 0);
    end_hedged();
}

static void an_offered_hedge_is_withdrawn_when_the_attempt_fails(void **state)
{
    (void)state;
    start_hedged(10);
    tick_after(5000);
    finished("a", QUEUE_EVENT_FAIL, 1);
    assert_string_equal(only(FLOW_WITHDRAW)->sub, "a");
    ready("t", "a", 1);
    assert_false(only(FLOW_OFFER)->hedge);
    assert_int_equal(count(FLOW_WITHDRAW), 0);
    end_hedged();
}

static void a_hedge_that_may_be_on_its_way_is_cancelled_with_the_result(void **state)
{
    (void)state;
    start_hedged(10);
    tick_after(5000);
    finished("a", QUEUE_EVENT_DONE, 1); /* `taken` has not come yet */
    assert_string_equal(only(FLOW_CANCEL)->sub, "a");
    taken("a", "fast@p", true);
    assert_int_equal(n_actions, 0);
    end_hedged();
}

static void a_failure_of_one_attempt_leaves_the_other_alone(void **state)
{
    (void)state;
    start_hedged(10);
    tick_after(5000);
    taken("a", "fast@p", true);
    finished("a", QUEUE_EVENT_FAIL, 1);
    assert_int_equal(count(FLOW_WITHDRAW) + count(FLOW_CANCEL), 0);
    finished("a", QUEUE_EVENT_DONE, 2);
    assert_int_equal(count(FLOW_CANCEL), 0); /* nobody else runs it */
    end_hedged();
}

static void what_was_not_claimed_after_all_is_not_hedged(void **state)
{
    (void)state;
    start_hedged(10);
    declined("a", "slow@p", 100);
    assert_int_equal(flow_hedges(flow), 0);
    taken("a", "slow@p", false); /* a new attempt, a new time */
    assert_int_equal(flow_hedges(flow), 1);
    tick_after(4000); /* the claim does not show: forgotten, and found to be ready */
    struct queue_item item = {.task = "t", .sub = "a"};
    step((struct flow_event){
        .kind = FLOW_EVENT_ITEMS, .index = QUEUE_INDEX_READY, .items = &item, .n_items = 1});
    assert_false(only(FLOW_OFFER)->hedge);
    end_hedged();
}

static void a_hedge_that_is_declined_or_finds_no_room_comes_later(void **state)
{
    (void)state;
    start_hedged(1);
    ready("t", "b", 0); /* takes the only place */
    tick_after(5000);
    assert_int_equal(flow_offered(flow, 0), 1);
    for (size_t i = 0; i < n_actions; i++)
        assert_false(actions[i].kind == FLOW_OFFER && actions[i].hedge);
    taken("b", "other@p", false);
    tick_after(100);
    assert_true(only(FLOW_OFFER)->hedge);
    ready("t", "c", 0); /* it counts against the window */
    assert_int_equal(count(FLOW_OFFER), 0);
    taken("a", "fast@p", true);
    step((struct flow_event){.kind = FLOW_EVENT_DECLINED,
                             .task = "t",
                             .sub = "a",
                             .arm = "fast@p",
                             .after_ms = 3000,
                             .hedge = true});
    assert_int_equal(count(FLOW_OFFER), 0);
    tick_after(2999);
    for (size_t i = 0; i < n_actions; i++)
        assert_false(actions[i].kind == FLOW_OFFER && actions[i].hedge);
    tick_after(1);
    assert_true(only(FLOW_OFFER)->hedge);
    step((struct flow_event){.kind = FLOW_EVENT_WINDOW, .task = "t", .sub = "a"}); /* refused */
    tick_after(1000);
    assert_true(only(FLOW_OFFER)->hedge);
    step((struct flow_event){.kind = FLOW_EVENT_LOST});
    step((struct flow_event){.kind = FLOW_EVENT_INTRODUCE});
    welcome(0, 10);
    tick_after(1000);
    assert_int_equal(flow_hedges(flow), 1);
    step((struct flow_event){.kind = FLOW_EVENT_UNHEDGED, .task = "t", .sub = "a"});
    end_hedged();
}

static void tasks_that_are_over_are_not_hedged(void **state)
{
    (void)state;
    start_hedged(10);
    queue_event(
        (struct queue_event){.kind = QUEUE_EVENT_TASK, .task = "t", .state = TASK_CANCELLED});
    end_hedged();
    start_hedged(10);
    tick_after(5000);
    queue_event((struct queue_event){.kind = QUEUE_EVENT_TASK, .task = "t", .state = TASK_FAILED});
    assert_string_equal(only(FLOW_WITHDRAW)->sub, "a");
    end_hedged();
    start_hedged(10);
    tick_after(5000);
    taken("a", "fast@p", true);
    queue_event((struct queue_event){.kind = QUEUE_EVENT_TASK, .task = "t", .state = TASK_FAILED});
    assert_int_equal(flow_hedges(flow), 1); /* what runs may still end well */
    finished("a", QUEUE_EVENT_DONE, 2);
    assert_int_equal(count(FLOW_CANCEL), 1);
    end_hedged();
}

static void a_lost_attempt_is_recorded_and_changes_nothing(void **state)
{
    (void)state;
    start_hedged(10);
    queue_event((struct queue_event){.kind = QUEUE_EVENT_LOST,
                                     .task = "t",
                                     .sub = "a",
                                     .attempt = 2,
                                     .timing = {.data = "x", .len = 1}});
    assert_int_equal(count(FLOW_RECORD), 1);
    assert_int_equal(n_actions, 1);
    assert_int_equal(flow_hedges(flow), 1);
    flow_free(&flow); /* hedges go with it */
    hedge_after_ms = -1;
}

/* --- shards that come and go ------------------------------------------------------------------ */

static void shard_event(enum flow_event_kind kind, int shard)
{
    step((struct flow_event){.kind = kind, .shard = shard});
}

static void a_shard_that_is_not_held_is_left_alone(void **state)
{
    (void)state;
    start(1);
    flow_free(&flow);
    struct flow_options options = flow_defaults;
    flow = flow_new(&options);
    welcome(0, 10);
    assert_int_equal(n_actions, 0);
    ready("t", "a", 0);
    assert_int_equal(n_actions, 0);
    step((struct flow_event){.kind = FLOW_EVENT_TICK});
    assert_int_equal(n_actions, 0);
    assert_false(flow_holds(flow, 0));
    shard_event(FLOW_EVENT_GAINED, 5);
    assert_true(flow_holds(flow, 5));
    for (size_t i = 0; i < n_actions; i++)
        assert_int_equal(actions[i].shard, 5);
    step((struct flow_event){.kind = FLOW_EVENT_TICK});
    for (size_t i = 0; i < n_actions; i++)
        assert_int_equal(actions[i].shard, 5);
    assert_int_equal(count(FLOW_SCAN), 2); /* the ready index is being read already */
    end();
}

static void a_shard_that_leaves_is_withdrawn_kept_checkpointed_and_only_then_released(void **state)
{
    (void)state;
    start_settled(10);
    ready("t", "a", 0);
    assert_int_equal(flow_offered(flow, 0), 1);
    shard_event(FLOW_EVENT_LEAVE, 0);
    assert_string_equal(only(FLOW_WITHDRAW)->sub, "a");
    assert_int_equal(flow_offered(flow, 0), 0);
    assert_false(flow_holds(flow, 0));
    ready("t", "b", 0); /* it was on its way: the next owner reads it */
    assert_int_equal(n_actions, 0);
    char id[32];
    snprintf(id, sizeof id, "1-%d", sequence - 1);
    now_ms += 1;
    step((struct flow_event){.kind = FLOW_EVENT_TICK}); /* it does not wait for the next turn */
    only(FLOW_BARRIER);
    assert_int_equal(count(FLOW_RELEASE), 0);
    step((struct flow_event){.kind = FLOW_EVENT_DURABLE});
    assert_string_equal(only(FLOW_CHECKPOINT)->id, id);
    assert_int_equal(only(FLOW_RELEASE)->shard, 0);
    assert_int_equal(actions[n_actions - 1].kind, FLOW_RELEASE);
    end();
}

static void a_barrier_under_way_does_not_release_a_shard_that_leaves_after_it(void **state)
{
    (void)state;
    start_settled(10);
    ready("t", "a", 0);
    tick_after(flow_defaults.checkpoint_ms);
    only(FLOW_BARRIER);
    ready("t", "b", 0);
    shard_event(FLOW_EVENT_LEAVE, 0);
    step((struct flow_event){.kind = FLOW_EVENT_DURABLE});
    assert_int_equal(count(FLOW_RELEASE), 0);
    tick_after(1);
    only(FLOW_BARRIER);
    step((struct flow_event){.kind = FLOW_EVENT_DURABLE});
    char id[32];
    snprintf(id, sizeof id, "1-%d", sequence);
    assert_string_equal(only(FLOW_CHECKPOINT)->id, id);
    only(FLOW_RELEASE);
    end();
}

static void a_plan_under_way_is_left_to_the_next_owner(void **state)
{
    (void)state;
    start_settled(10);
    ready("t", PLAN_NODE, 0);
    char id[32];
    snprintf(id, sizeof id, "1-%d", sequence);
    queue_event((struct queue_event){
        .kind = QUEUE_EVENT_DONE, .task = "t", .sub = PLAN_NODE, .expands = true});
    only(FLOW_READ);
    shard_event(FLOW_EVENT_LEAVE, 0);
    step((struct flow_event){.kind = FLOW_EVENT_PLAN,
                             .task = "t",
                             .sub = PLAN_NODE,
                             .verdict = FLOW_VERDICT_PLAN,
                             .text = ""});
    assert_int_equal(n_actions, 0);
    tick_after(1);
    step((struct flow_event){.kind = FLOW_EVENT_DURABLE});
    assert_string_equal(only(FLOW_CHECKPOINT)->id, id); /* the one before the plan */
    only(FLOW_RELEASE);
    assert_int_equal(flow_expanding(flow), 0);
    end();
}

static void a_dropped_shard_is_forgotten_at_once_and_begins_anew(void **state)
{
    (void)state;
    start_settled(10);
    ready("t", "a", 0);
    taken("a", "m@p", false);
    ready("t", "b", 0);
    tick_after(flow_defaults.idle_scan_ms);
    assert_true(count(FLOW_SCAN) > 0);
    only(FLOW_BARRIER);
    shard_event(FLOW_EVENT_DROPPED, 0);
    assert_int_equal(n_actions, 0); /* its offers may be another's by now */
    assert_int_equal(flow_offered(flow, 0), 0);
    step((struct flow_event){.kind = FLOW_EVENT_DURABLE});
    assert_int_equal(count(FLOW_CHECKPOINT), 0);
    shard_event(FLOW_EVENT_GAINED, 0);
    struct queue_item item = {.task = "t", .sub = "old"};
    step((struct flow_event){
        .kind = FLOW_EVENT_ITEMS, .index = QUEUE_INDEX_READY, .items = &item, .n_items = 1});
    assert_int_equal(count(FLOW_OFFER), 0); /* the answer is of the time before */
    item.sub = "b";
    tick_after(1);
    step((struct flow_event){
        .kind = FLOW_EVENT_ITEMS, .index = QUEUE_INDEX_READY, .items = &item, .n_items = 1});
    assert_string_equal(only(FLOW_OFFER)->sub, "b");
    end();
}

static void hedges_go_with_their_shard(void **state)
{
    (void)state;
    start_hedged(10);
    assert_int_equal(flow_hedges(flow), 1);
    shard_event(FLOW_EVENT_DROPPED, 1);
    assert_int_equal(flow_hedges(flow), 1);
    shard_event(FLOW_EVENT_DROPPED, 0);
    assert_int_equal(flow_hedges(flow), 0);
    end_hedged();
}

/* --- a world that loses things --------------------------------------------------------------- */

#define SUBS 300
#define BROKERS 2
#define WINDOW 17
#define SHARDS 3

enum model_state { MODEL_READY, MODEL_RUNNING, MODEL_DELAYED, MODEL_DONE };

struct model_sub {
    enum model_state state;
    int64_t attempt, until_ms;
    bool born, offered[BROKERS], hedged[BROKERS], expands;
    int expanded;
};

struct model_event {
    enum queue_event_kind kind;
    int sub;
    int64_t attempt;
};

struct world {
    uint64_t random;
    size_t reserve;
    struct model_sub subs[SUBS];
    struct model_event events[SHARDS][SUBS * 64];
    size_t n_events[SHARDS], applied[SHARDS], checkpoint[SHARDS];
    bool up[BROKERS];
    struct flow_action scans[256]; /* asked, not answered */
    size_t n_scans;
    bool barrier;
    int reads[SUBS * 4];
    int64_t serials[SUBS * 4]; /* of the reads */
    size_t n_reads;
    bool leaving[SHARDS];
};

static struct world world;

static unsigned chance(unsigned sides)
{
    world.random = world.random * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)(world.random >> 33) % sides;
}

static void emit(enum queue_event_kind kind, int sub)
{
    int shard = sub % SHARDS;
    assert_true(world.n_events[shard] < SUBS * 64);
    world.events[shard][world.n_events[shard]++] =
        (struct model_event){kind, sub, world.subs[sub].attempt};
}

static int sub_of(const char *text)
{
    return atoi(text + 1);
}

static void model_step(struct flow_event event);

static void apply_action(struct flow_action action)
{
    int sub = *action.sub == 's' ? sub_of(action.sub) : 0;
    struct model_sub *model = &world.subs[sub];
    switch (action.kind) {
    case FLOW_OFFER:
        if (!world.up[action.broker] || chance(20) == 0)
            break;
        *(action.hedge ? &model->hedged[action.broker] : &model->offered[action.broker]) = true;
        break;
    case FLOW_WITHDRAW:
        model->offered[action.broker] = model->hedged[action.broker] = false;
        break;
    case FLOW_CANCEL:
        assert_int_equal(model->state, MODEL_DONE); /* nobody else is stopped */
        for (int i = 0; i < BROKERS; i++)
            model->hedged[i] = false;
        break;
    case FLOW_SCAN:
        assert_true(world.n_scans < 256);
        world.scans[world.n_scans++] = action;
        break;
    case FLOW_PROMOTE:
        if (model->state == MODEL_DELAYED && model->until_ms <= now_ms) {
            model->state = MODEL_READY;
            emit(QUEUE_EVENT_READY, sub);
        }
        break;
    case FLOW_EXPIRE:
        if (model->state == MODEL_RUNNING && model->until_ms <= now_ms) {
            model->state = MODEL_DELAYED;
            model->until_ms = now_ms + 500;
            emit(QUEUE_EVENT_FAIL, sub);
        }
        break;
    case FLOW_READ:
        assert_true(flow_holds(flow, sub % SHARDS));
        if (world.n_reads < SUBS * 4) /* else the answer is lost with the time of holding it */
            world.serials[world.n_reads] = action.serial;
        world.reads[world.n_reads++] = sub;
        break;
    case FLOW_BARRIER:
        world.barrier = true;
        break;
    case FLOW_CHECKPOINT:
        assert_true(strtoul(action.id + 2, NULL, 10) > world.checkpoint[action.shard]);
        world.checkpoint[action.shard] = strtoul(action.id + 2, NULL, 10);
        break;
    case FLOW_RELEASE:
        assert_true(world.leaving[action.shard]);
        world.leaving[action.shard] = false;
        break;
    default:
        break;
    }
}

static void model_step(struct flow_event event)
{
    event = filled(event);
    const struct flow_action *list = flow_step(flow, &event, &n_actions);
    size_t n_list = n_actions;
    struct flow_action *copy = mem_must_zalloc((n_list + 1) * sizeof *copy);
    if (n_list > 0)
        memcpy(copy, list, n_list * sizeof *copy);
    for (size_t i = 0; i < n_list; i++)
        apply_action(copy[i]);
    for (int i = 0; i < BROKERS; i++)
        assert_true(flow_offered(flow, i) <= WINDOW);
    free(copy);
}

static void deliver_event(int shard)
{
    char id[32], sub[16];
    struct model_event model = world.events[shard][world.applied[shard]];
    world.applied[shard]++;
    snprintf(id, sizeof id, "1-%zu", world.applied[shard]);
    snprintf(sub, sizeof sub, "s%d", model.sub);
    struct queue_event queue = {.kind = model.kind,
                                .id = id,
                                .shard = shard,
                                .task = "t",
                                .sub = sub,
                                .attempt = model.attempt,
                                .expands = world.subs[model.sub].expands,
                                .avoid = "",
                                .reason = "",
                                .error_class = ""};
    model_step((struct flow_event){.kind = FLOW_EVENT_QUEUE, .queue = &queue});
}

static bool in_index(const struct model_sub *model, enum queue_index index)
{
    switch (index) {
    case QUEUE_INDEX_READY:
        return model->state == MODEL_READY;
    case QUEUE_INDEX_LEASE:
        return model->state == MODEL_RUNNING && model->until_ms <= now_ms;
    default:
        return model->state == MODEL_DELAYED && model->until_ms <= now_ms;
    }
}

static void answer_one_scan(void)
{
    size_t at = chance((unsigned)world.n_scans);
    struct flow_action scan = world.scans[at];
    world.scans[at] = world.scans[--world.n_scans];
    struct queue_item items[SUBS];
    char names[SUBS][16];
    size_t n_items = 0;
    int64_t skip = scan.offset, seen = 0;
    for (int i = 0; i < SUBS && seen < scan.limit; i++) {
        const struct model_sub *model = &world.subs[i];
        if (!model->born || i % SHARDS != scan.shard || !in_index(model, scan.index) || skip-- > 0)
            continue;
        seen++;
        if (chance(10) == 0)
            continue; /* it left the index while it was read */
        snprintf(names[n_items], sizeof *names, "s%d", i);
        items[n_items] =
            (struct queue_item){.task = "t", .sub = names[n_items], .attempt = model->attempt};
        n_items++;
    }
    model_step((struct flow_event){.kind = FLOW_EVENT_ITEMS,
                                   .shard = scan.shard,
                                   .index = scan.index,
                                   .items = items,
                                   .n_items = n_items,
                                   .failed = chance(50) == 0});
}

static void claim(int sub)
{
    struct model_sub *model = &world.subs[sub];
    if (model->state != MODEL_READY)
        return;
    model->state = MODEL_RUNNING;
    model->attempt++;
    model->until_ms = now_ms + 300;
}

static void dispatch(int broker, int sub)
{
    char name[16];
    snprintf(name, sizeof name, "s%d", sub);
    world.subs[sub].offered[broker] = false;
    bool declines = chance(8) == 0;
    if (!declines && chance(10) != 0)
        claim(sub);
    if (chance(10) != 0)
        model_step((struct flow_event){.kind = FLOW_EVENT_TAKEN,
                                       .broker = broker,
                                       .task = "t",
                                       .sub = name,
                                       .arm = chance(2) == 0 ? "slow@p" : "m@p"});
    if (declines && chance(10) != 0)
        model_step((struct flow_event){.kind = FLOW_EVENT_DECLINED,
                                       .broker = broker,
                                       .task = "t",
                                       .sub = name,
                                       .arm = "m@p",
                                       .after_ms = chance(1000)});
}

static void dispatch_hedge(int broker, int sub)
{
    char name[16];
    snprintf(name, sizeof name, "s%d", sub);
    world.subs[sub].hedged[broker] = false;
    struct flow_event event = {
        .broker = broker, .task = "t", .sub = name, .arm = "n@p", .hedge = true};
    event.kind = FLOW_EVENT_TAKEN;
    if (chance(10) != 0)
        model_step(event);
    event.kind = FLOW_EVENT_DECLINED;
    if (chance(5) == 0)
        model_step(event);
}

static void finish(int sub)
{
    struct model_sub *model = &world.subs[sub];
    if (model->state != MODEL_RUNNING)
        return;
    if (chance(5) == 0) {
        model->state = MODEL_DELAYED;
        model->until_ms = now_ms + 200;
        emit(QUEUE_EVENT_FAIL, sub);
        return;
    }
    model->state = MODEL_DONE;
    emit(QUEUE_EVENT_DONE, sub);
}

static void bring_broker_up(int broker)
{
    world.up[broker] = true;
    model_step((struct flow_event){.kind = FLOW_EVENT_INTRODUCE, .broker = broker});
    model_step((struct flow_event){.kind = FLOW_EVENT_WELCOME, .broker = broker, .limit = WINDOW});
}

static void restart_broker(int broker)
{
    for (int i = 0; i < SUBS; i++)
        world.subs[i].offered[broker] = world.subs[i].hedged[broker] = false;
    world.up[broker] = false;
    if (chance(2) == 0)
        model_step((struct flow_event){.kind = FLOW_EVENT_LOST, .broker = broker});
    bring_broker_up(broker);
}

static void answer_read(void)
{
    int sub = world.reads[--world.n_reads];
    int64_t serial = world.serials[world.n_reads];
    char name[16];
    snprintf(name, sizeof name, "s%d", sub);
    struct flow_event event = {.kind = FLOW_EVENT_PLAN,
                               .serial = serial,
                               .shard = sub % SHARDS,
                               .task = "t",
                               .sub = name,
                               .text = "",
                               .verdict = chance(4) == 0 ? FLOW_VERDICT_LATER : FLOW_VERDICT_PLAN};
    model_step(event);
    if (event.verdict == FLOW_VERDICT_LATER)
        return;
    event.kind = FLOW_EVENT_EXPANDED;
    event.status = chance(4) == 0 ? QUEUE_REFUSED : QUEUE_OK;
    world.subs[sub].expanded += event.status == QUEUE_OK;
    model_step(event);
}

/* The daemon dies; another one begins at the checkpoints. */
static void restart_flow(void)
{
    struct flow_options options = flow_defaults;
    options.brokers = BROKERS;
    options.reserve_max = world.reserve;
    options.hedge_ms = hedge_ms;
    flow_free(&flow);
    flow = whole_flow(&options);
    world.n_scans = world.n_reads = 0;
    memset(world.leaving, 0, sizeof world.leaving);
    world.barrier = false;
    for (int i = 0; i < SHARDS; i++)
        world.applied[i] = world.checkpoint[i];
    for (int i = 0; i < BROKERS; i++)
        bring_broker_up(i);
}

/* A shard goes to nobody for a while, and comes back. */
static void move_shard(int shard)
{
    if (world.leaving[shard] && chance(2) == 0)
        return;
    struct flow_event event = {.shard = shard};
    event.kind = !world.leaving[shard] && !flow_holds(flow, shard) ? FLOW_EVENT_GAINED
                 : chance(2) == 0                                  ? FLOW_EVENT_LEAVE
                                                                   : FLOW_EVENT_DROPPED;
    world.leaving[shard] = event.kind == FLOW_EVENT_LEAVE;
    if (event.kind == FLOW_EVENT_GAINED)
        world.applied[shard] = world.checkpoint[shard];
    model_step(event);
}

static void random_move(void)
{
    unsigned move = chance(100);
    int sub = (int)chance(SUBS), broker = (int)chance(BROKERS), shard = (int)chance(SHARDS);
    if (move < 10 && !world.subs[sub].born) {
        world.subs[sub].born = true;
        emit(QUEUE_EVENT_READY, sub);
    } else if (move < 40 && world.applied[shard] < world.n_events[shard]) {
        deliver_event(shard);
    } else if (move < 60 && world.n_scans > 0) {
        answer_one_scan();
    } else if (move < 75 && world.subs[sub].offered[broker]) {
        dispatch(broker, sub);
    } else if (move < 75 && world.subs[sub].hedged[broker]) {
        dispatch_hedge(broker, sub);
    } else if (move < 85) {
        finish(sub);
    } else if (move < 90 && world.n_reads > 0) {
        answer_read();
    } else if (move < 92 && world.barrier) {
        world.barrier = false;
        model_step((struct flow_event){.kind = FLOW_EVENT_DURABLE});
    } else if (move < 93 && chance(20) == 0) {
        restart_broker(broker);
    } else if (move == 99) {
        now_ms += 100;
        model_step((struct flow_event){.kind = FLOW_EVENT_TICK});
    }
}

static bool all_done(void)
{
    for (int i = 0; i < SUBS; i++)
        if (!world.subs[i].born || world.subs[i].state != MODEL_DONE ||
            (world.subs[i].expands && world.subs[i].expanded == 0))
            return false;
    return true;
}

static void run_world(uint64_t seed, bool restarts, bool moves)
{
    memset(&world, 0, sizeof world);
    hedge_after_ms = 200;
    world.random = seed * 7919;
    world.reserve = seed % 3 == 0 ? 0 : seed % 3 == 1 ? 20 : SUBS;
    now_ms = 0;
    flow = NULL;
    restart_flow();
    for (int i = 0; i < SUBS; i++)
        world.subs[i].expands = i % 10 == 0;
    for (int i = 0; i < 3000000 && !all_done(); i++) {
        random_move();
        if (restarts && chance(20000) == 0)
            restart_flow();
        if (moves && chance(2000) == 0)
            move_shard((int)chance(SHARDS));
    }
    if (!all_done())
        fail_msg("seed %d: not everything was done after %lld ms", (int)seed, (long long)now_ms);
    for (int i = 0; i < SHARDS; i++) {
        while (!flow_holds(flow, i)) {
            model_step((struct flow_event){.kind = FLOW_EVENT_DROPPED, .shard = i});
            world.applied[i] = world.checkpoint[i];
            model_step((struct flow_event){.kind = FLOW_EVENT_GAINED, .shard = i});
        }
        while (world.applied[i] < world.n_events[i])
            deliver_event(i);
    }
    assert_int_equal(flow_hedges(flow), 0);
    hedge_after_ms = -1;
    /* Without a restart, an outcome is expanded exactly once. With one, the queue's guard decides
     * between the two. */
    for (int i = 0; i < SUBS && !restarts && !moves; i++)
        assert_int_equal(world.subs[i].expanded, world.subs[i].expands);
    flow_free(&flow);
}

static void everything_is_done_in_a_world_that_loses_offers_and_answers(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 30; seed++)
        run_world(seed, false, false);
}

static void everything_is_done_when_the_daemon_restarts_from_its_checkpoints(void **state)
{
    (void)state;
    for (uint64_t seed = 101; seed <= 130; seed++)
        run_world(seed, true, false);
}

static void everything_is_done_while_shards_come_and_go(void **state)
{
    (void)state;
    for (uint64_t seed = 201; seed <= 230; seed++)
        run_world(seed, seed % 2 == 0, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_ready_subtask_is_offered_once),
        cmocka_unit_test(a_new_round_is_offered_again_after_a_failure),
        cmocka_unit_test(what_no_arm_is_left_for_is_buried),
        cmocka_unit_test(nothing_is_offered_beyond_the_window_and_the_rest_is_read_later),
        cmocka_unit_test(what_is_beyond_the_window_waits_in_the_reserve_by_priority),
        cmocka_unit_test(offers_of_a_lost_broker_move_to_another),
        cmocka_unit_test(what_a_lost_broker_dispatched_is_looked_at_without_a_grace),
        cmocka_unit_test(offers_are_repeated_to_a_broker_that_comes_back),
        cmocka_unit_test(an_offer_that_is_no_longer_in_the_index_is_withdrawn),
        cmocka_unit_test(a_cancelled_task_is_withdrawn_and_broadcast),
        cmocka_unit_test(an_unserved_subtask_is_noted_once),
        cmocka_unit_test(unserved_subtasks_leave_room_for_others),
        cmocka_unit_test(a_plan_is_read_expanded_and_then_checkpointed),
        cmocka_unit_test(a_plan_in_the_middle_of_an_entry_holds_the_whole_entry_back),
        cmocka_unit_test(a_bad_plan_is_repaired_once_and_then_given_up),
        cmocka_unit_test(a_refused_expand_is_tried_again),
        cmocka_unit_test(a_checkpoint_waits_until_the_records_are_kept),
        cmocka_unit_test(after_a_failure_due_retries_are_looked_for_often),
        cmocka_unit_test(a_declined_subtask_is_offered_at_once_but_not_to_that_arm),
        cmocka_unit_test(repeated_declines_back_off_by_themselves),
        cmocka_unit_test(an_odd_name_of_an_arm_blocks_nothing_else),
        cmocka_unit_test(a_decline_of_what_is_not_known_does_nothing),
        cmocka_unit_test(a_declined_subtask_waits_for_room),
        cmocka_unit_test(what_the_queue_says_of_blocked_arms_is_counted_from_when_it_was_ready),
        cmocka_unit_test(more_arms_than_are_remembered_are_no_harm),
        cmocka_unit_test(a_paused_arm_is_told_as_the_broker_says_it),
        cmocka_unit_test(why_no_arm_is_left_goes_with_the_burial),
        cmocka_unit_test(a_slow_attempt_is_hedged_once_and_the_loser_cancelled),
        cmocka_unit_test(what_is_done_in_time_is_not_hedged),
        cmocka_unit_test(nothing_is_hedged_without_the_roles_wish),
        cmocka_unit_test(an_offered_hedge_is_withdrawn_when_the_attempt_fails),
        cmocka_unit_test(a_hedge_that_may_be_on_its_way_is_cancelled_with_the_result),
        cmocka_unit_test(a_failure_of_one_attempt_leaves_the_other_alone),
        cmocka_unit_test(what_was_not_claimed_after_all_is_not_hedged),
        cmocka_unit_test(a_hedge_that_is_declined_or_finds_no_room_comes_later),
        cmocka_unit_test(tasks_that_are_over_are_not_hedged),
        cmocka_unit_test(a_lost_attempt_is_recorded_and_changes_nothing),
        cmocka_unit_test(a_shard_that_is_not_held_is_left_alone),
        cmocka_unit_test(a_shard_that_leaves_is_withdrawn_kept_checkpointed_and_only_then_released),
        cmocka_unit_test(a_barrier_under_way_does_not_release_a_shard_that_leaves_after_it),
        cmocka_unit_test(a_plan_under_way_is_left_to_the_next_owner),
        cmocka_unit_test(a_dropped_shard_is_forgotten_at_once_and_begins_anew),
        cmocka_unit_test(hedges_go_with_their_shard),
        cmocka_unit_test(everything_is_done_in_a_world_that_loses_offers_and_answers),
        cmocka_unit_test(everything_is_done_when_the_daemon_restarts_from_its_checkpoints),
        cmocka_unit_test(everything_is_done_while_shards_come_and_go),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
