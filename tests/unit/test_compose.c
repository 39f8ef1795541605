#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "schemas/mem.h"
#include "workers/compose.h"
#include "workers/utf8.h"

static struct bytes text(const char *value)
{
    return (struct bytes){value, strlen(value)};
}

static struct msg_work make_work(const char *prompt)
{
    return (struct msg_work){.kind = "run",
                             .title = "t",
                             .role = "coder",
                             .model = "",
                             .system = text(""),
                             .prompt = text(prompt),
                             .task_text = text(""),
                             .json_schema = text("")};
}

static void a_prompt_without_dependencies_is_left_alone(void **state)
{
    (void)state;
    struct msg_work work = make_work("do it");
    struct buf out = {0};
    compose_prompt(&out, &work, NULL, 0, 8192, 0);
    assert_string_equal(out.data, "do it");
    buf_release(&out);
}

static void results_come_under_headings_before_the_subtask(void **state)
{
    (void)state;
    const char *ids[] = {"api", "db"}, *titles[] = {"Design the API", ""};
    struct msg_work work = make_work("write tests");
    work.dep_ids = ids;
    work.n_dep_ids = 2;
    work.dep_titles = titles;
    work.n_dep_titles = 2;
    struct bytes results[] = {text("GET /x"), text("tables")};
    struct buf out = {0};
    compose_prompt(&out, &work, results, 2, 8192, 0);
    assert_string_equal(out.data, "## Result of Design the API (api)\n\nGET /x\n\n"
                                  "## Result of db (db)\n\ntables\n\n"
                                  "## Your subtask\n\nwrite tests");
    buf_release(&out);
}

static void a_synthesizer_gets_the_task_too(void **state)
{
    (void)state;
    const char *ids[] = {"a"}, *titles[] = {"A"};
    struct msg_work work = make_work("join");
    work.kind = "synthesize";
    work.task_text = text("build a clock");
    work.dep_ids = ids;
    work.n_dep_ids = work.n_dep_titles = 1;
    work.dep_titles = titles;
    struct bytes results[] = {text("tick")};
    struct buf out = {0};
    compose_prompt(&out, &work, results, 1, 8192, 0);
    assert_string_equal(out.data, "## The whole task\n\nbuild a clock\n\n"
                                  "## Result of A (a)\n\ntick\n\n## Your subtask\n\njoin");
    buf_release(&out);
}

static char *filled(size_t len, char c)
{
    char *data = mem_must_zalloc(len + 1);
    memset(data, c, len);
    return data;
}

static void long_results_share_the_window_and_short_ones_stay_whole(void **state)
{
    (void)state;
    const char *ids[] = {"a", "b", "c"}, *titles[] = {"A", "B", "C"};
    struct msg_work work = make_work("go on");
    work.dep_ids = ids;
    work.dep_titles = titles;
    work.n_dep_ids = work.n_dep_titles = 3;
    char *a = filled(50000, 'a'), *b = filled(40000, 'b');
    struct bytes results[] = {{a, 50000}, {b, 40000}, text("short")};
    struct buf out = {0};
    compose_prompt(&out, &work, results, 3, 4096, 1024);
    size_t count_a = 0, count_b = 0;
    for (size_t i = 0; i < out.len; i++) {
        count_a += out.data[i] == 'a';
        count_b += out.data[i] == 'b';
    }
    assert_in_range(out.len, 11000, (4096 - 1024) * 4);
    assert_in_range(count_a, 5500, 6200);
    assert_in_range(count_b, 5500, 6200); /* half each, not by their length */
    assert_non_null(strstr(out.data, "short"));
    assert_non_null(strstr(out.data, "bytes left out here"));
    buf_release(&out);
    free(a);
    free(b);
}

static void what_is_cut_says_how_much_is_missing(void **state)
{
    (void)state;
    const char *ids[] = {"id"}, *titles[] = {"T"};
    struct msg_work work = make_work("x");
    work.dep_ids = ids;
    work.dep_titles = titles;
    work.n_dep_ids = work.n_dep_titles = 1;
    char *long_text = filled(100000, 'z');
    struct bytes results[] = {{long_text, 100000}};
    struct buf out = {0};
    compose_prompt(&out, &work, results, 1, 1000, 100);
    size_t kept = 0;
    for (size_t i = 0; i < out.len; i++)
        kept += out.data[i] == 'z';
    char note[64];
    snprintf(note, sizeof note, "[... %zu bytes left out here ...]", 100000 - kept);
    assert_non_null(strstr(out.data, note));
    buf_release(&out);
    free(long_text);
}

static void cuts_fall_between_characters(void **state)
{
    (void)state;
    const char *ids[] = {"id"}, *titles[] = {"T"};
    struct msg_work work = make_work("x");
    work.dep_ids = ids;
    work.dep_titles = titles;
    work.n_dep_ids = work.n_dep_titles = 1;
    struct buf euros = {0};
    for (int i = 0; i < 10000; i++)
        buf_add_str(&euros, "\xe2\x82\xac");
    for (int shift = 0; shift < 3; shift++) {
        struct bytes results[] = {{euros.data, euros.len}};
        struct buf out = {0};
        compose_prompt(&out, &work, results, 1, 1000 + shift, 100);
        assert_int_equal(utf8_valid(out.data, out.len), out.len);
        assert_null(strstr(out.data, UTF8_REPLACEMENT));
        buf_release(&out);
    }
    buf_release(&euros);
}

static void what_is_no_utf8_is_repaired(void **state)
{
    (void)state;
    const char *ids[] = {"id"}, *titles[] = {"T\xff"};
    struct msg_work work = make_work("caf\xe9");
    work.prompt = (struct bytes){"a\0b\xc3", 4};
    work.dep_ids = ids;
    work.dep_titles = titles;
    work.n_dep_ids = work.n_dep_titles = 1;
    struct bytes results[] = {{"\xed\xa0\x80", 3}};
    struct buf out = {0};
    compose_prompt(&out, &work, results, 1, 0, 0);
    assert_int_equal(utf8_valid(out.data, out.len), out.len);
    assert_int_equal(strlen(out.data), out.len);
    buf_release(&out);
}

static void a_full_window_still_shows_a_little_of_every_result(void **state)
{
    (void)state;
    const char *ids[] = {"a", "b"}, *titles[] = {"A", "B"};
    char *prompt = filled(100000, 'p'), *result = filled(5000, 'r');
    struct msg_work work = make_work(prompt);
    work.dep_ids = ids;
    work.dep_titles = titles;
    work.n_dep_ids = work.n_dep_titles = 2;
    struct bytes results[] = {{result, 5000}, {result, 5000}};
    struct buf out = {0};
    compose_prompt(&out, &work, results, 2, 1000, 0);
    assert_in_range(out.len, 100000 + 2 * 192, 100000 + 2 * 512);
    buf_release(&out);
    free(prompt);
    free(result);
}

static void more_ids_than_results_do_no_harm(void **state)
{
    (void)state;
    const char *ids[] = {"a", "b"};
    struct msg_work work = make_work("p");
    work.dep_ids = ids;
    work.n_dep_ids = 2;
    struct bytes results[] = {text("only")};
    struct buf out = {0};
    compose_prompt(&out, &work, results, 1, 1000, 0);
    assert_string_equal(out.data, "## Result of a (a)\n\nonly\n\n## Your subtask\n\np");
    buf_release(&out);
}

static void excerpts_are_one_line_and_end_between_characters(void **state)
{
    (void)state;
    char out[12];
    utf8_excerpt(out, sizeof out, " a\n\tb ", 6);
    assert_string_equal(out, "a b");
    utf8_excerpt(out, sizeof out, "12345678901", 11);
    assert_string_equal(out, "12345678901");
    utf8_excerpt(out, sizeof out, "123456789012", 12);
    assert_string_equal(out, "12345678...");
    utf8_excerpt(out, sizeof out,
                 "1234567\xe2\x82\xac"
                 "89",
                 12);
    assert_string_equal(out, "1234567...");
    utf8_excerpt(out, sizeof out, "\xff", 1);
    assert_string_equal(out, UTF8_REPLACEMENT);
    utf8_excerpt(out, sizeof out, "", 0);
    assert_string_equal(out, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_prompt_without_dependencies_is_left_alone),
        cmocka_unit_test(results_come_under_headings_before_the_subtask),
        cmocka_unit_test(a_synthesizer_gets_the_task_too),
        cmocka_unit_test(long_results_share_the_window_and_short_ones_stay_whole),
        cmocka_unit_test(what_is_cut_says_how_much_is_missing),
        cmocka_unit_test(cuts_fall_between_characters),
        cmocka_unit_test(what_is_no_utf8_is_repaired),
        cmocka_unit_test(a_full_window_still_shows_a_little_of_every_result),
        cmocka_unit_test(more_ids_than_results_do_no_harm),
        cmocka_unit_test(excerpts_are_one_line_and_end_between_characters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
