/* Which worker gets which offer, and when: pure, with the clock in the test's hand. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "broker/offers.h"
#include "common/clock.h"
#include "schemas/buf.h"

struct broker_state {
    struct registry registry;
    struct offers *offers;
    struct buf log;          /* what the hooks were told, separated by spaces */
    const char *unreachable; /* worker whose dispatches fail */
    bool quiet;
    size_t dispatched;
};

static bool on_dispatch(void *ctx, const struct offer_view *offer, struct worker *worker,
                        const char *arm)
{
    struct broker_state *b = ctx;
    if (b->unreachable != NULL && strcmp(worker->name, b->unreachable) == 0)
        return false;
    b->dispatched++;
    if (!b->quiet)
        buf_printf(&b->log, "%s%s:%s@%s ", offer->hedge ? "hedge-" : "", offer->sub, worker->name,
                   arm);
    return true;
}

static void on_unserved(void *ctx, const struct offer_view *offer, const char *paused)
{
    struct broker_state *b = ctx;
    assert_false(offer->hedge);
    buf_printf(&b->log, "%s:unserved%s%s ", offer->sub, paused != NULL ? "=" : "",
               paused != NULL ? paused : "");
}

static const struct offers_hooks hooks = {on_dispatch, on_unserved};

static void open_with(struct broker_state *b, size_t max)
{
    *b = (struct broker_state){0};
    registry_init(&b->registry);
    b->offers = offers_new(&b->registry, max, &hooks, b);
}

static int setup(void **state)
{
    struct broker_state *b = malloc(sizeof *b);
    open_with(b, 100);
    *state = b;
    return 0;
}

static void close_state(struct broker_state *b)
{
    offers_free(&b->offers);
    registry_release(&b->registry);
    assert_null(b->registry.arms); /* every reference came back */
    buf_release(&b->log);
}

static int teardown(void **state)
{
    close_state(*state);
    free(*state);
    return 0;
}

/* What happened since the last call. */
#define assert_log(b, expected)                                                                    \
    do {                                                                                           \
        buf_add_str(&(b)->log, "");                                                                \
        assert_string_equal((b)->log.data != NULL ? (b)->log.data : "", expected);                 \
        buf_clear(&(b)->log);                                                                      \
    } while (0)

/* arms: separated by spaces. */
static struct worker *join_more(struct broker_state *b, const char *name, const char *arms,
                                int64_t credit, int64_t concurrency, int64_t running, int64_t now)
{
    char copy[512];
    const char *list[16];
    size_t n = 0;
    snprintf(copy, sizeof copy, "%s", arms);
    for (char *at = strtok(copy, " "); at != NULL; at = strtok(NULL, " "))
        list[n++] = at;
    struct msg_ready ready = {.name = name,
                              .boot = "b1",
                              .host = "h",
                              .provider = "p",
                              .arms = list,
                              .n_arms = n,
                              .credit = credit,
                              .concurrency = concurrency,
                              .running = running,
                              .gpu = ""};
    struct worker *worker;
    enum registry_change change;
    bool lost;
    assert_int_equal(registry_join(&b->registry, &ready, &worker, &change, &lost), 0);
    offers_serve(b->offers, worker, now);
    if (lost)
        offers_arm_lost(b->offers, now);
    return worker;
}

static struct worker *join(struct broker_state *b, const char *name, const char *arms,
                           int64_t credit, int64_t now)
{
    return join_more(b, name, arms, credit, 4, 0, now);
}

static void leave(struct broker_state *b, struct worker *worker, int64_t now)
{
    if (registry_leave(&b->registry, worker))
        offers_arm_lost(b->offers, now);
}

static void grant(struct broker_state *b, struct worker *worker, int64_t credit, int64_t now)
{
    assert_int_equal(registry_grant(worker, credit), 0);
    offers_serve(b->offers, worker, now);
}

/* arms: "arm/after_ms" separated by spaces; the after_ms may be missing. */
static int put_any(struct broker_state *b, const char *sub, const char *arms, int64_t priority,
                   bool hedge, int64_t now)
{
    static int owner;
    char copy[512];
    const char *list[16];
    int64_t after[16];
    size_t n = 0;
    snprintf(copy, sizeof copy, "%s", arms);
    for (char *at = strtok(copy, " "); at != NULL; at = strtok(NULL, " "), n++) {
        char *slash = strchr(at, '/');
        list[n] = at;
        after[n] = slash != NULL ? atoi(slash + 1) : 0;
        if (slash != NULL)
            *slash = '\0';
    }
    struct msg_offer offer = {.task = "t",
                              .sub = sub,
                              .priority = priority,
                              .arms = list,
                              .n_arms = n,
                              .after_ms = after,
                              .n_after_ms = n,
                              .hedge = hedge};
    return offers_put(b->offers, &offer, "", &owner, now);
}

static int put_more(struct broker_state *b, const char *sub, const char *arms, int64_t priority,
                    int64_t now)
{
    return put_any(b, sub, arms, priority, false, now);
}

static void put_hedge(struct broker_state *b, const char *sub, const char *arms, int64_t now)
{
    assert_int_equal(put_any(b, sub, arms, 0, true, now), 0);
}

static void put(struct broker_state *b, const char *sub, const char *arms, int64_t now)
{
    assert_int_equal(put_more(b, sub, arms, 0, now), 0);
}

static void offer_goes_out_at_once_to_a_worker_with_credit(void **state)
{
    struct broker_state *b = *state;
    join(b, "w", "m@h", 1, 0);
    put(b, "a", "m@h", 0);
    assert_log(b, "a:w@m@h ");
    assert_int_equal(offers_count(b->offers), 0);
}

static void offer_prefers_its_first_arm(void **state)
{
    struct broker_state *b = *state;
    join(b, "cloud", "big@cloud", 1, 0);
    join(b, "local", "small@h", 1, 0);
    put(b, "a", "small@h big@cloud", 0);
    put(b, "b", "small@h big@cloud", 0);
    assert_log(b, "a:local@small@h b:cloud@big@cloud ");
}

static void offer_of_a_model_takes_any_place(void **state)
{
    struct broker_state *b = *state;
    join(b, "w", "m@h/gpu1", 1, 0);
    put(b, "a", "m", 0);
    assert_log(b, "a:w@m@h/gpu1 ");
    put(b, "b", "m@h/gpu0", 0);
    assert_log(b, "b:unserved ");
}

static void offer_spills_over_once_its_time_has_passed(void **state)
{
    struct broker_state *b = *state;
    join(b, "local", "small@h", 0, 0);
    join(b, "cloud", "big@cloud", 1, 0);
    put(b, "a", "small@h big@cloud/800", 1000);
    assert_log(b, "");
    assert_int_equal(offers_due_ms(b->offers), 1800);
    offers_tick(b->offers, 1799);
    assert_log(b, "");
    offers_tick(b->offers, 1800);
    assert_log(b, "a:cloud@big@cloud ");
    assert_int_equal(offers_due_ms(b->offers), -1);
}

static void offer_waits_at_both_arms_after_it_spilled(void **state)
{
    struct broker_state *b = *state;
    struct worker *local = join(b, "local", "small@h", 0, 0);
    struct worker *cloud = join(b, "cloud", "big@cloud", 0, 0);
    put(b, "a", "small@h big@cloud/800", 0);
    put(b, "b", "small@h big@cloud/800", 0);
    grant(b, cloud, 1, 799);
    assert_log(b, "");
    offers_tick(b->offers, 800);
    assert_log(b, "a:cloud@big@cloud ");
    grant(b, local, 1, 900);
    assert_log(b, "b:local@small@h ");
    assert_int_equal(offers_count(b->offers), 0);
}

static void offer_uses_the_next_arm_at_once_when_nobody_serves_the_earlier(void **state)
{
    struct broker_state *b = *state;
    join(b, "cloud", "big@cloud", 1, 0);
    put(b, "a", "small@h other@h/300 big@cloud/800", 0);
    assert_log(b, "a:cloud@big@cloud ");
}

static void offer_does_not_jump_over_a_later_arm_that_is_served(void **state)
{
    struct broker_state *b = *state;
    join(b, "cloud", "big@cloud", 1, 0);
    join(b, "other", "other@h", 0, 0);
    put(b, "a", "small@h other@h/300 big@cloud/800", 0);
    assert_log(b, "");
    assert_int_equal(offers_due_ms(b->offers), 800);
}

static void offer_spills_at_once_when_the_last_worker_of_its_arm_leaves(void **state)
{
    struct broker_state *b = *state;
    struct worker *local = join(b, "local", "small@h", 0, 0);
    struct worker *second = join(b, "second", "small@h", 0, 0);
    join(b, "cloud", "big@cloud", 1, 0);
    put(b, "a", "small@h big@cloud/800", 0);
    leave(b, local, 10);
    assert_log(b, "");
    leave(b, second, 20);
    assert_log(b, "a:cloud@big@cloud ");
}

static void offer_spills_at_once_when_the_last_worker_of_its_arm_drains(void **state)
{
    struct broker_state *b = *state;
    struct worker *local = join(b, "local", "small@h", 0, 0);
    join(b, "cloud", "big@cloud", 1, 0);
    put(b, "a", "small@h big@cloud/800", 0);
    assert_true(registry_drain(local));
    offers_arm_lost(b->offers, 10);
    assert_log(b, "a:cloud@big@cloud ");
    grant(b, local, 2, 20);
    put(b, "b", "small@h", 30);
    assert_log(b, "b:unserved ");
}

static void offer_with_entries_out_of_order_uses_each_at_its_own_time(void **state)
{
    struct broker_state *b = *state;
    join(b, "one", "one@h", 0, 0);
    join(b, "two", "two@h", 1, 0);
    join(b, "three", "three@h", 1, 0);
    put(b, "a", "one@h two@h/500 three@h/200", 0);
    assert_int_equal(offers_due_ms(b->offers), 200);
    offers_tick(b->offers, 200);
    assert_log(b, "a:three@three@h ");
}

static void offer_waits_for_its_first_arm_also_when_that_is_the_only_one(void **state)
{
    struct broker_state *b = *state;
    join(b, "w", "m@h", 1, 0);
    put(b, "a", "m@h/300", 1000);
    assert_log(b, "");
    assert_int_equal(offers_due_ms(b->offers), 1300);
    offers_tick(b->offers, 1299);
    assert_log(b, "");
    offers_tick(b->offers, 1300);
    assert_log(b, "a:w@m@h ");
}

static void offer_keeps_away_from_arms_in_front_until_their_time(void **state)
{
    struct broker_state *b = *state;
    join(b, "w", "busy@h", 1, 0);
    put(b, "a", "limited@h/900 busy@h/300 small@h", 0); /* nobody serves the others */
    assert_log(b, "");
    struct worker *limited = join(b, "l", "limited@h", 1, 1);
    assert_log(b, "");
    leave(b, limited, 2);
    assert_log(b, "");
    offers_tick(b->offers, 300);
    assert_log(b, "a:w@busy@h ");
}

static void offer_spills_at_once_past_arms_in_front_that_are_served(void **state)
{
    struct broker_state *b = *state;
    join(b, "w", "limited@h", 1, 0);
    join(b, "cloud", "big@cloud", 1, 0);
    put(b, "a", "limited@h/9000 small@h big@cloud/800", 0); /* it would only wait for small@h */
    assert_log(b, "a:cloud@big@cloud ");
}

static void hedge_stands_beside_the_offer_of_its_subtask(void **state)
{
    struct broker_state *b = *state;
    struct worker *w = join(b, "w", "m@h", 0, 0);
    put(b, "a", "m@h", 0);
    put_hedge(b, "a", "m@h", 0);
    put_hedge(b, "a", "m@h", 0);
    assert_int_equal(offers_count(b->offers), 2);
    grant(b, w, 4, 1);
    assert_log(b, "a:w@m@h hedge-a:w@m@h ");
    put_hedge(b, "b", "m@h", 2);
    assert_log(b, "hedge-b:w@m@h ");
}

static void hedge_gets_credit_only_when_no_first_attempt_of_its_priority_waits(void **state)
{
    struct broker_state *b = *state;
    struct worker *w = join(b, "w", "m@h", 0, 0);
    put_more(b, "low", "m@h", -1, 0);
    put_hedge(b, "a", "m@h", 0);
    put(b, "b", "m@h", 1);
    grant(b, w, 3, 2);
    assert_log(b, "b:w@m@h hedge-a:w@m@h low:w@m@h ");
}

static void hedge_that_nobody_serves_is_not_told(void **state)
{
    struct broker_state *b = *state;
    put_hedge(b, "a", "m@h", 0);
    assert_log(b, "");
    join(b, "w", "m@h", 1, 1);
    assert_log(b, "hedge-a:w@m@h ");
}

static void hedge_is_withdrawn_with_its_subtask_and_its_task(void **state)
{
    struct broker_state *b = *state;
    put_hedge(b, "a", "m@h", 0);
    assert_int_equal(offers_withdraw(b->offers, "t", "a"), 1);
    put(b, "a", "m@h", 0);
    put_hedge(b, "a", "m@h", 0);
    assert_int_equal(offers_withdraw(b->offers, "t", "a"), 2);
    put_hedge(b, "a", "m@h", 0);
    assert_int_equal(offers_withdraw(b->offers, "t", ""), 1);
    assert_int_equal(offers_count(b->offers), 0);
}

static void offer_of_a_paused_arm_is_told_why_nobody_serves_it(void **state)
{
    struct broker_state *b = *state;
    const char *paused[] = {"other@h: no", "m@h: 5 timeouts in a row"};
    struct msg_ready ready = {.name = "w",
                              .boot = "b1",
                              .host = "h",
                              .provider = "p",
                              .gpu = "",
                              .paused = paused,
                              .n_paused = 2,
                              .credit = 4,
                              .concurrency = 4};
    struct worker *worker = join(b, "w", "m@h", 0, 0);
    enum registry_change change;
    bool lost;
    put(b, "a", "m", 0);
    assert_int_equal(registry_join(&b->registry, &ready, &worker, &change, &lost), 0);
    assert_true(lost);
    offers_serve(b->offers, worker, 1);
    offers_arm_lost(b->offers, 1);
    assert_log(b, "a:unserved=m@h: 5 timeouts in a row ");
    put(b, "b", "n@h m@h", 2);
    assert_log(b, "b:unserved=m@h: 5 timeouts in a row ");
    put(b, "c", "m@elsewhere", 3);
    assert_log(b, "c:unserved ");
    join(b, "w", "m@h", 4, 5);
    assert_log(b, "a:w@m@h b:w@m@h ");
}

static void offer_that_nobody_serves_is_told_once_and_dispatched_when_a_worker_joins(void **state)
{
    struct broker_state *b = *state;
    put(b, "a", "m@h big@cloud/800", 0);
    assert_log(b, "a:unserved ");
    offers_tick(b->offers, 5000);
    assert_log(b, "");
    struct worker *w = join(b, "w", "m@h", 0, 6000);
    leave(b, w, 6001);
    assert_log(b, "");
    join(b, "w", "m@h", 1, 7000);
    assert_log(b, "a:w@m@h ");
}

static void offer_becomes_unserved_when_its_last_worker_leaves(void **state)
{
    struct broker_state *b = *state;
    struct worker *w = join(b, "w", "m@h", 0, 0);
    put(b, "a", "m@h", 0);
    assert_log(b, "");
    leave(b, w, 1);
    assert_log(b, "a:unserved ");
}

static void credit_serves_by_priority_then_by_age(void **state)
{
    struct broker_state *b = *state;
    struct worker *w = join(b, "w", "m@h n@h", 0, 0);
    put_more(b, "low", "m@h", -5, 0);
    put_more(b, "first", "m@h", 0, 1);
    put_more(b, "second", "n@h", 0, 2);
    put_more(b, "third", "m@h", 0, 3);
    put_more(b, "high", "n@h", 7, 4);
    grant(b, w, 2, 10);
    assert_log(b, "high:w@n@h first:w@m@h ");
    grant(b, w, 4, 11);
    assert_log(b, "second:w@n@h third:w@m@h low:w@m@h ");
}

static void least_loaded_worker_is_chosen_by_its_share(void **state)
{
    struct broker_state *b = *state;
    join_more(b, "small", "m@h", 2, 2, 1, 0);   /* 50 % */
    join_more(b, "large", "m@h", 10, 10, 4, 0); /* 40 % */
    put(b, "a", "m@h", 0);
    put(b, "b", "m@h", 0); /* now 50 % each: who got nothing yet */
    put(b, "c", "m@h", 0);
    assert_log(b, "a:large@m@h b:small@m@h c:large@m@h ");
}

static void equal_workers_take_turns(void **state)
{
    struct broker_state *b = *state;
    struct worker *x = join(b, "x", "m@h", 4, 0);
    struct worker *y = join(b, "y", "m@h", 4, 0);
    char got[8] = "";
    for (int i = 0; i < 4; i++) {
        put(b, "a", "m@h", 0);
        got[i] = b->log.data[2];
        buf_clear(&b->log);
        registry_grant(x, x->running);
        registry_grant(y, y->running);
    }
    assert_true(strcmp(got, "xyxy") == 0 || strcmp(got, "yxyx") == 0);
}

static void no_worker_gets_more_than_its_credit(void **state)
{
    struct broker_state *b = *state;
    struct worker *w = join(b, "w", "m@h", 2, 0);
    put(b, "a", "m@h", 0);
    put(b, "b", "m@h", 0);
    put(b, "c", "m@h", 0);
    assert_log(b, "a:w@m@h b:w@m@h ");
    assert_int_equal(w->credit, 0);
    assert_int_equal(offers_count(b->offers), 1);
}

static void repeated_offer_replaces_the_first_and_is_dispatched_once(void **state)
{
    struct broker_state *b = *state;
    struct worker *w = join(b, "w", "m@h n@h", 0, 0);
    put(b, "a", "m@h", 0);
    put(b, "b", "m@h", 0);
    put(b, "a", "n@h m@h", 5); /* other arms, the same place in the line */
    assert_int_equal(offers_count(b->offers), 2);
    grant(b, w, 3, 10);
    assert_log(b, "a:w@n@h b:w@m@h ");
}

static void repeated_offer_keeps_its_age_when_its_arms_are_the_same(void **state)
{
    struct broker_state *b = *state;
    join(b, "local", "small@h", 0, 0);
    join(b, "cloud", "big@cloud", 4, 0);
    put(b, "same", "small@h big@cloud/800", 0);
    put(b, "same", "small@h big@cloud/800", 700);
    put(b, "other", "small@h big@cloud/800", 0);
    put(b, "other", "small@h big@cloud/700", 700);
    offers_tick(b->offers, 800);
    assert_log(b, "same:cloud@big@cloud ");
    offers_tick(b->offers, 1400);
    assert_log(b, "other:cloud@big@cloud ");
}

static void withdrawn_offers_are_not_dispatched(void **state)
{
    struct broker_state *b = *state;
    struct worker *w = join(b, "w", "m@h", 0, 0);
    put(b, "a", "m@h", 0);
    put(b, "b", "m@h x@h/100", 0);
    put(b, "c", "m@h", 0);
    assert_int_equal(offers_withdraw(b->offers, "t", "a"), 1);
    assert_int_equal(offers_withdraw(b->offers, "t", "a"), 0);
    grant(b, w, 1, 1);
    assert_log(b, "b:w@m@h ");
    put(b, "d", "m@h", 0);
    assert_int_equal(offers_withdraw(b->offers, "other", ""), 0);
    assert_int_equal(offers_withdraw(b->offers, "t", ""), 2);
    grant(b, w, 4, 2);
    assert_log(b, "");
    assert_int_equal(offers_due_ms(b->offers), -1);
}

static void offers_are_bounded_and_a_repeated_one_still_fits(void **state)
{
    struct broker_state b;
    (void)state;
    open_with(&b, 2);
    struct worker *w = join(&b, "w", "m@h", 0, 0);
    put(&b, "a", "m@h", 0);
    put(&b, "b", "m@h", 0);
    assert_int_equal(put_more(&b, "c", "m@h", 0, 0), -ENOBUFS);
    put(&b, "a", "m@h", 0);
    assert_int_equal(offers_count(b.offers), 2);
    grant(&b, w, 1, 0);
    put(&b, "c", "m@h", 0);
    close_state(&b);
}

static void full_broker_still_passes_on_what_it_need_not_hold(void **state)
{
    struct broker_state b;
    (void)state;
    open_with(&b, 1);
    join(&b, "w", "m@h", 0, 0);
    put(&b, "a", "m@h", 0);
    join(&b, "idle", "n@h", 1, 0);
    put(&b, "b", "n@h", 0);
    assert_log(&b, "b:idle@n@h ");
    close_state(&b);
}

static void offers_without_sense_are_refused(void **state)
{
    struct broker_state *b = *state;
    const char *arms[] = {"m@h"}, *empty[] = {""};
    int64_t negative[] = {-1}, far[] = {INT64_MAX}, two[] = {0, 0};
    struct msg_offer good = {.task = "t", .sub = "s", .arms = arms, .n_arms = 1};
    struct msg_offer bad[] = {good, good, good, good, good, good, good, good, good};
    bad[0].task = "";
    bad[1].sub = "";
    bad[2].n_arms = 0;
    bad[3].arms = empty;
    bad[4].after_ms = negative, bad[4].n_after_ms = 1;
    bad[5].after_ms = far, bad[5].n_after_ms = 1;
    bad[6].after_ms = two, bad[6].n_after_ms = 2;
    bad[7].shard = SHARD_COUNT;
    bad[8].shard = -1;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(offers_put(b->offers, &bad[i], "", NULL, 0), -EINVAL);
    assert_int_equal(offers_count(b->offers), 0);
    assert_int_equal(offers_put(b->offers, &good, "", NULL, 0), 0);
}

static void worker_that_cannot_be_reached_is_passed_over(void **state)
{
    struct broker_state *b = *state;
    struct worker *dead = join_more(b, "dead", "m@h", 4, 4, 0, 0);
    join_more(b, "alive", "m@h", 4, 4, 2, 0);
    b->unreachable = "dead";
    put(b, "a", "m@h", 0);
    assert_log(b, "a:alive@m@h ");
    assert_int_equal(dead->credit, 0);
    assert_false(dead->open);
}

static void offers_of_an_owner_go_with_it(void **state)
{
    struct broker_state *b = *state;
    const char *arms[] = {"m@h"};
    struct msg_offer offer = {.task = "u", .sub = "s", .arms = arms, .n_arms = 1};
    int mine;
    assert_int_equal(offers_put(b->offers, &offer, "", &mine, 0), 0);
    put(b, "a", "m@h", 0);
    assert_int_equal(offers_drop_owner(b->offers, &mine), 1);
    assert_int_equal(offers_count(b->offers), 1);
}

static void worker_with_other_arms_serves_the_new_ones_only(void **state)
{
    struct broker_state *b = *state;
    struct worker *w = join(b, "w", "m@h", 0, 0);
    put(b, "a", "m@h n@h/500", 0);
    put(b, "b", "m@h", 0);
    assert_ptr_equal(join(b, "w", "n@h", 1, 10), w);
    assert_log(b, "a:w@n@h b:unserved ");
    assert_int_equal(b->registry.n_workers, 1);
}

/* A model of the rules in the simplest form, against random runs of the real thing: nobody with
 * credit while something usable waits, no offer twice, none lost. */
static void random_runs_keep_the_invariant(void **state)
{
    static const char *const arms[] = {"a@h", "b@h", "c@h", "d@h"};
    struct broker_state b;
    struct worker *workers[4] = {0};
    int64_t now = 0;
    size_t puts = 0, withdrawn = 0;
    char sub[32], name[32], list[64];
    (void)state;
    open_with(&b, 100000);
    b.quiet = true;
    srand(11);
    for (int step = 0; step < 20000; step++) {
        int w = rand() % 4;
        now += rand() % 3;
        offers_tick(b.offers, now);
        switch (rand() % 6) {
        case 0:
        case 1:
            snprintf(sub, sizeof sub, "s%zu", puts++);
            snprintf(list, sizeof list, "%s %s/%d %s/%d", arms[rand() % 4], arms[rand() % 4],
                     rand() % 50, arms[rand() % 4], rand() % 50);
            assert_int_equal(put_more(&b, sub, list, rand() % 3, now), 0);
            break;
        case 2:
            if (workers[w] != NULL)
                grant(&b, workers[w], rand() % 3, now);
            break;
        case 3:
            snprintf(name, sizeof name, "w%d", w);
            workers[w] = join(&b, name, arms[w], rand() % 3, now);
            break;
        case 4:
            if (workers[w] != NULL && rand() % 4 == 0) {
                leave(&b, workers[w], now);
                workers[w] = NULL;
            }
            break;
        default:
            snprintf(sub, sizeof sub, "s%zu", puts == 0 ? 0 : (size_t)rand() % puts);
            withdrawn += offers_withdraw(b.offers, "t", sub);
        }
        for (int i = 0; i < 4; i++)
            if (workers[i] != NULL && workers[i]->open)
                assert_null(heap_first(&registry_find(&b.registry, arms[i])->waiting));
        assert_int_equal(puts, b.dispatched + withdrawn + offers_count(b.offers));
    }
    assert_true(b.dispatched > 1000);
    close_state(&b);
}

/* 200,000 waiting offers cost a dispatch no more than a few do: a hundredth of a second for each
 * would be minutes. */
static void many_waiting_offers_do_not_slow_a_dispatch(void **state)
{
    struct broker_state b;
    char sub[32];
    (void)state;
    open_with(&b, 200000);
    b.quiet = true;
    struct worker *w = join_more(&b, "w", "m@h n@h", 0, 64, 0, 0);
    double start = clock_ms_f();
    for (int i = 0; i < 200000; i++) {
        snprintf(sub, sizeof sub, "s%d", i);
        assert_int_equal(put_more(&b, sub, "m@h n@h big@cloud/60000", i % 7, 0), 0);
    }
    double held = clock_ms_f();
    while (offers_count(b.offers) > 0)
        grant(&b, w, 64, 1);
    double done = clock_ms_f();
    print_message("200,000 offers: put at %.0f/s, dispatched at %.0f/s\n", 2e8 / (held - start),
                  2e8 / (done - held));
    assert_int_equal(b.dispatched, 200000);
    assert_true(done - start < 60000);
    close_state(&b);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(offer_goes_out_at_once_to_a_worker_with_credit),
        TEST(offer_prefers_its_first_arm),
        TEST(offer_of_a_model_takes_any_place),
        TEST(offer_spills_over_once_its_time_has_passed),
        TEST(offer_waits_at_both_arms_after_it_spilled),
        TEST(offer_uses_the_next_arm_at_once_when_nobody_serves_the_earlier),
        TEST(offer_does_not_jump_over_a_later_arm_that_is_served),
        TEST(offer_spills_at_once_when_the_last_worker_of_its_arm_leaves),
        TEST(offer_spills_at_once_when_the_last_worker_of_its_arm_drains),
        TEST(offer_with_entries_out_of_order_uses_each_at_its_own_time),
        TEST(offer_waits_for_its_first_arm_also_when_that_is_the_only_one),
        TEST(offer_keeps_away_from_arms_in_front_until_their_time),
        TEST(offer_spills_at_once_past_arms_in_front_that_are_served),
        TEST(hedge_stands_beside_the_offer_of_its_subtask),
        TEST(hedge_gets_credit_only_when_no_first_attempt_of_its_priority_waits),
        TEST(hedge_that_nobody_serves_is_not_told),
        TEST(hedge_is_withdrawn_with_its_subtask_and_its_task),
        TEST(offer_of_a_paused_arm_is_told_why_nobody_serves_it),
        TEST(offer_that_nobody_serves_is_told_once_and_dispatched_when_a_worker_joins),
        TEST(offer_becomes_unserved_when_its_last_worker_leaves),
        TEST(credit_serves_by_priority_then_by_age),
        TEST(least_loaded_worker_is_chosen_by_its_share),
        TEST(equal_workers_take_turns),
        TEST(no_worker_gets_more_than_its_credit),
        TEST(repeated_offer_replaces_the_first_and_is_dispatched_once),
        TEST(repeated_offer_keeps_its_age_when_its_arms_are_the_same),
        TEST(withdrawn_offers_are_not_dispatched),
        cmocka_unit_test(offers_are_bounded_and_a_repeated_one_still_fits),
        cmocka_unit_test(full_broker_still_passes_on_what_it_need_not_hold),
        TEST(offers_without_sense_are_refused),
        TEST(worker_that_cannot_be_reached_is_passed_over),
        TEST(offers_of_an_owner_go_with_it),
        TEST(worker_with_other_arms_serves_the_new_ones_only),
        cmocka_unit_test(random_runs_keep_the_invariant),
        cmocka_unit_test(many_waiting_offers_do_not_slow_a_dispatch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
