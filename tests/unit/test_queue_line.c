/* States, stored lines and the names of scripts: the queue without Redis. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/queue_internal.h"
#include "common/sha1.h"

static void states_have_names_and_are_parsed(void **state)
{
    (void)state;
    for (int i = 0; i < SUB_STATE_COUNT; i++) {
        const char *name = sub_state_name((enum sub_state)i);
        assert_int_equal(sub_state_parse(name, strlen(name)), i);
    }
    for (int i = 0; i < TASK_STATE_COUNT; i++) {
        const char *name = task_state_name((enum task_state)i);
        assert_int_equal(task_state_parse(name, strlen(name)), i);
    }
    assert_int_equal(sub_state_parse("READYX", 6), SUB_STATE_COUNT);
    assert_int_equal(sub_state_parse("READ", 4), SUB_STATE_COUNT);
    assert_int_equal(task_state_parse("", 0), TASK_STATE_COUNT);
    assert_string_equal(sub_state_name(SUB_STATE_COUNT), "?");
}

static void terminal_states_are_left_by_no_move(void **state)
{
    (void)state;
    for (int from = 0; from < SUB_STATE_COUNT; from++)
        for (int to = 0; to < SUB_STATE_COUNT; to++)
            if (sub_state_terminal((enum sub_state)from))
                assert_false(sub_state_may_move((enum sub_state)from, (enum sub_state)to));
    assert_true(sub_state_may_move(SUB_RUNNING, SUB_DONE));
    assert_false(sub_state_may_move(SUB_READY, SUB_DONE));
    assert_false(sub_state_may_move(SUB_RUNNING, SUB_READY));
    assert_false(sub_state_may_move(SUB_STATE_COUNT, SUB_READY));
}

static void every_living_state_can_be_cancelled(void **state)
{
    (void)state;
    for (int from = 0; from < SUB_STATE_COUNT; from++)
        assert_int_equal(sub_state_may_move((enum sub_state)from, SUB_CANCELLED),
                         !sub_state_terminal((enum sub_state)from));
}

static void a_line_is_read(void **state)
{
    (void)state;
    static const char text[] = "RUNNING 2 1 0 1795202302123456 1610 timeout 3 -5 1 42";
    struct queue_line line;
    assert_true(queue_line_parse(&line, text, strlen(text)));
    assert_int_equal(line.state, SUB_RUNNING);
    assert_int_equal(line.attempts, 2);
    assert_int_equal(line.left, 1);
    assert_int_equal(line.ready_us, 1795202302123456);
    assert_int_equal(line.queue_us, 1610);
    assert_true(queue_word_is(&line.error_class, "timeout"));
    assert_int_equal(line.priority, -5);
    assert_int_equal(line.expands, 1);
    assert_int_equal(line.order, 42);
    assert_int_equal(line.meta.len, 0);
}

static void the_record_behind_a_line_is_left_as_it_is(void **state)
{
    (void)state;
    static const char text[] = "READY 0 3 0 1 0 - 3 0 0 42 \x81\0 \xff";
    struct queue_line line;
    assert_true(queue_line_parse(&line, text, sizeof text - 1));
    assert_int_equal(line.order, 42);
    assert_int_equal(line.meta.len, 4);
    assert_memory_equal(line.meta.text, "\x81\0 \xff", 4);
}

static void damaged_lines_are_refused(void **state)
{
    (void)state;
    static const char *const lines[] = {
        "",
        " ",
        "READY",
        "READY 0 3 0 1 0 - 3 0 0",
        "READY 0 3 0 1 0 - 3 0 0 0 0",
        "READY 0 3 0 1 0 - 3 0 0 0 ",
        "READY  0 3 0 1 0 - 3 0 0 0",
        "SLEEPING 0 3 0 1 0 - 3 0 0 0",
        "READY x 3 0 1 0 - 3 0 0 0",
        "READY 0x1 3 0 1 0 - 3 0 0 0",
        "READY 99999999999999999999 3 0 1 0 - 3 0 0 0",
        "READY 999999999999999999999999999999 3 0 1 0 - 3 0 0 0",
        "READY +1 3 0 1 0 - 3 0 0 0",
        "READY 0 3 0 1 0 - 3 0 3 0",
    };
    struct queue_line line;
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
        assert_false(queue_line_parse(&line, lines[i], strlen(lines[i])));
    assert_false(queue_line_parse(&line, "READY 0 3 0 1 0 \0 3 0 0 0", 25));
}

static void a_run_is_read(void **state)
{
    (void)state;
    struct queue_run_line run;
    assert_true(queue_run_parse(&run, "1-n worker -", 12));
    assert_int_equal(run.n_attempts, 1);
    assert_true(queue_word_is(&run.attempts[0].token, "1-n"));
    assert_int_equal(run.attempts[0].arm.len, 0);
    assert_false(run.held);
    assert_false(queue_run_parse(&run, "1-n worker", 10));
    assert_false(queue_run_parse(&run, "1-n worker arm more", 19));
    assert_true(queue_run_parse(&run, "1-n worker arm $", 16));
    assert_true(run.held);
    assert_int_equal(run.n_attempts, 1);
    assert_true(queue_run_parse(&run, "1-n w a 2-n v b $", 17));
    assert_true(run.held);
    assert_int_equal(run.n_attempts, 2);
    assert_true(queue_word_is(&run.attempts[1].arm, "b"));
    assert_true(queue_run_parse(&run, "1-n w $ 2-n v $", 15));
    assert_false(run.held);
    assert_false(queue_run_parse(&run, "1-n w a 2-n v", 13));
    assert_false(queue_run_parse(&run, "1-n w a 2-n v b $ $", 19));
}

static void a_budget_is_read(void **state)
{
    (void)state;
    struct queue_budget budget;
    assert_true(queue_budget_parse(&budget, "1 2 3 4 5 9007199254740991", 26));
    assert_int_equal(budget.limit.tokens, 2);
    assert_int_equal(budget.spent.nano_usd, 3);
    assert_true(budget.held.tokens == INT64_C(9007199254740991));
    assert_false(budget.over);
    assert_true(queue_budget_parse(&budget, "1 2 3 4 5 6 over", 16));
    assert_true(budget.over);
    static const char *const lines[] = {"",      "1 2 3 4 5",    "1 2 3 4 5 -6",
                                        " over", "1 2 3 4 5 6 ", "1 2 3 4 5 6 overt"};
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
        assert_false(queue_budget_parse(&budget, lines[i], strlen(lines[i])));
}

static void names_become_words(void **state)
{
    (void)state;
    struct queue_args args = {0};
    queue_args_word(&args, "a b\tc\n");
    queue_args_word(&args, "");
    queue_args_word(&args, NULL);
    assert_string_equal(args.text.data, "a_b_c_--");
    assert_int_equal(args.items[0].len, 6);
    queue_args_release(&args);
}

static void scripts_begin_with_their_shebang_and_keys(void **state)
{
    (void)state;
    for (int i = 0; i < SCRIPT_COUNT; i++) {
        const char *source = queue_script((enum queue_script)i)->source;
        assert_int_equal(strncmp(source, "#!lua", 5), 0);
        assert_null(strstr(source, "-- include"));
    }
    assert_non_null(strstr(queue_script(SCRIPT_renew)->source,
                           "\nlocal task_key, lease_key = KEYS[1], KEYS[2]\n"));
}

static void sha1_of_known_texts(void **state)
{
    (void)state;
    static const struct {
        const char *text, *sha;
    } known[] = {
        {"", "da39a3ee5e6b4b0d3255bfef95601890afd80709"},
        {"abc", "a9993e364706816aba3e25717850c26c9cd0d89d"},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
         "84983e441c3bd26ebaae4aa1f95129e5e54670f1"},
        {"The quick brown fox jumps over the lazy dog", "2fd4e1c67a2d28fced849ee1bb76e7391b93eb12"},
    };
    char sha[41];
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        sha1_hex(known[i].text, strlen(known[i].text), sha);
        assert_string_equal(sha, known[i].sha);
    }
    char a[1000];
    memset(a, 'a', sizeof a);
    sha1_hex(a, sizeof a, sha);
    assert_string_equal(sha, "291e9a6c66994949b57ba5e650361e98fc36b1ba");
    sha1_hex(a, 119, sha);
    assert_string_equal(sha, "ee971065aaa017e0632a8ca6c77bb3bf8b1dfc56");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(states_have_names_and_are_parsed),
        cmocka_unit_test(terminal_states_are_left_by_no_move),
        cmocka_unit_test(every_living_state_can_be_cancelled),
        cmocka_unit_test(a_line_is_read),
        cmocka_unit_test(the_record_behind_a_line_is_left_as_it_is),
        cmocka_unit_test(damaged_lines_are_refused),
        cmocka_unit_test(a_run_is_read),
        cmocka_unit_test(a_budget_is_read),
        cmocka_unit_test(names_become_words),
        cmocka_unit_test(scripts_begin_with_their_shebang_and_keys),
        cmocka_unit_test(sha1_of_known_texts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
