/* json_view: what jansson accepts is read the same, and a little more is accepted. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/json.h"
#include "schemas/mem.h"
#include "workers/json_view.h"

static struct json_view_ends ends;

/* With and without the ends of containers in turn: they change nothing. */
static bool parse(struct json_view *ret, const char *text)
{
    static int turn;
    return turn++ % 2 == 0 ? json_view_parse(ret, text, strlen(text))
                           : json_view_parse_ends(ret, text, strlen(text), &ends);
}

static const char *text_of(const char *json, struct buf *out)
{
    struct json_view view;
    buf_clear(out);
    assert_true(parse(&view, json));
    assert_true(json_view_text(view, out));
    return out->data;
}

static json_t *tree(struct json_view view)
{
    struct json_view key, value;
    struct buf text = {0};
    json_t *node = NULL;
    switch (view.kind) {
    case JSON_VIEW_OBJECT:
        node = json_object();
        while (json_view_next(&view, &key, &value)) {
            buf_clear(&text);
            json_view_text(key, &text);
            json_object_set_new(node, text.data, tree(value));
        }
        break;
    case JSON_VIEW_ARRAY:
        node = json_array();
        while (json_view_next(&view, NULL, &value))
            json_array_append_new(node, tree(value));
        break;
    case JSON_VIEW_STRING:
        json_view_text(view, &text);
        node = json_stringn(text.data, text.len);
        break;
    case JSON_VIEW_NUMBER: {
        bool whole = memchr(view.text, '.', view.len) == NULL &&
                     memchr(view.text, 'e', view.len) == NULL &&
                     memchr(view.text, 'E', view.len) == NULL;
        node = whole ? json_integer(json_view_int(view, -77)) : json_real(json_view_num(view, -77));
        break;
    }
    default:
        node =
            view.kind == JSON_VIEW_NULL ? json_null() : json_boolean(view.kind == JSON_VIEW_TRUE);
    }
    buf_release(&text);
    return node;
}

static const char *const documents[] = {
    "{}",
    "[]",
    " [ ] ",
    "\t{\r\n}\n",
    "null",
    "true",
    "false",
    "0",
    "-0",
    "12",
    "-1.5e3",
    "9223372036854775807",
    "-9223372036854775808",
    "1E2",
    "0.25",
    "\"\"",
    "\"a\\\"b\\\\c\\/\\b\\f\\n\\r\\t\"",
    "\"\\u0041\\u00e9\\u20AC\\uD83D\\uDE00\"",
    "\"gr\xc3\xbc\xc3\x9f \xf0\x9f\x98\x80\"",
    "[1,[2,[3,{\"a\":[{}]}]],\"]\",\"}\",\"\\\"]\"]",
    "{\"a\":1,\"b\":{\"c\":[1,2,3],\"d\":\"x,y:z\"},\"\\u0065\":null,\"\":[]}",
    "{ \"a\" : [ 1 , true , { \"b\" : null } ] , \"c\" : \"\" }",
    "{\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi\"},\"finish_reason\":null}]}",
};

static const char *const broken[] = {
    "",           " ",          "{",         "}",           "[",      "]",    "{]",
    "[}",         "{\"a\"}",    "{\"a\":}",  "{a:1}",       "{,}",    "[,]",  "[1,]",
    "{\"a\":1,}", "[1 2]",      "nul",       "truex",       "falsey", "01",   "-",
    "1.",         ".5",         "1e",        "1e+",         "+1",     "0x10", "\"",
    "\"a",        "\"\\x\"",    "\"\\u12\"", "\"\\u12G4\"", "\"\n\"", "\"\\", "1 2",
    "{} {}",      "\"a\"\"b\"", "[\"a\"",    "{\"a\":1",    "'a'",    "NaN",  "Infinity",
    "{\"a\":1}x", "[1]]",       "\x01",      "{1:2}",
};

static void valid_documents_are_the_same_as_with_jansson(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof documents / sizeof *documents; i++) {
        struct json_view view;
        json_t *reference = json_loads(documents[i], JSON_DECODE_ANY, NULL);
        assert_non_null(reference);
        for (int turn = 0; turn < 2; turn++) {
            assert_true(parse(&view, documents[i]));
            json_t *is = tree(view);
            if (!json_equal(is, reference))
                print_message("%s\n", documents[i]);
            assert_true(json_equal(is, reference));
            json_decref(is);
        }
        json_decref(reference);
    }
}

static void more_containers_than_their_ends_are_kept_change_nothing(void **state)
{
    (void)state;
    for (int n = 0; n < 3 * JSON_VIEW_ENDS; n++) {
        struct buf json = {0};
        struct json_view view;
        buf_add_char(&json, '[');
        for (int i = 0; i < n; i++)
            buf_printf(&json, "%s{\"a\":[%d,{}],\"]\":\"}\"}", i > 0 ? "," : "", i);
        buf_add_char(&json, ']');
        assert_true(json_view_parse_ends(&view, json.data, json.len, &ends));
        json_t *is = tree(view), *reference = json_loads(json.data, 0, NULL);
        assert_true(json_equal(is, reference));
        json_decref(is);
        json_decref(reference);
        buf_release(&json);
    }
}

static void invalid_documents_are_refused_as_with_jansson(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        struct json_view view = {"x", 1, JSON_VIEW_TRUE, NULL};
        assert_null(json_loads(broken[i], JSON_DECODE_ANY, NULL));
        if (parse(&view, broken[i]))
            print_message("accepted: %s\n", broken[i]);
        assert_false(parse(&view, broken[i]));
        assert_int_equal(view.kind, JSON_VIEW_NONE);
    }
}

/* Every document with each byte cut off, dropped, or replaced: never a byte too far, and never
 * refused where jansson accepts. */
static void damaged_documents_are_judged_no_stricter_than_by_jansson(void **state)
{
    (void)state;
    static const char replacements[] = "\"\\{}[],:0-e. \x01\xff";
    for (size_t i = 0; i < sizeof documents / sizeof *documents; i++) {
        size_t len = strlen(documents[i]);
        for (size_t at = 0; at < len; at++)
            for (size_t r = 0; r < sizeof replacements; r++) {
                /* The last "replacement", NUL, stands for cutting the text here. */
                bool cut = replacements[r] == '\0';
                size_t size = cut ? at : len;
                char *copy = malloc(size + 1);
                memcpy(copy, documents[i], size);
                if (!cut)
                    copy[at] = replacements[r];
                copy = realloc(copy, size > 0 ? size : 1);
                struct json_view view;
                json_t *reference = json_loadb(copy, size, JSON_DECODE_ANY, NULL);
                bool valid = r % 2 == 0 ? json_view_parse(&view, copy, size)
                                        : json_view_parse_ends(&view, copy, size, &ends);
                if (reference != NULL && !valid)
                    print_message("refused: %.*s\n", (int)size, copy);
                assert_true(valid || reference == NULL);
                if (valid && reference != NULL) {
                    json_t *is = tree(view);
                    assert_true(json_equal(is, reference));
                    json_decref(is);
                }
                json_decref(reference);
                free(copy);
            }
    }
}

static void damaged_characters_become_replacement_characters(void **state)
{
    (void)state;
    struct buf out = {0};
    assert_string_equal(text_of("\"a\xff\xc3z\"", &out), "a\xef\xbf\xbd\xef\xbf\xbdz");
    assert_string_equal(text_of("\"\\ud83d x\"", &out), "\xef\xbf\xbd x");
    assert_string_equal(text_of("\"\\ude00\\ud83d\"", &out), "\xef\xbf\xbd\xef\xbf\xbd");
    assert_string_equal(text_of("\"\\ud83d\\u0041\"", &out), "\xef\xbf\xbd"
                                                             "A");
    assert_string_equal(text_of("\"a\\u0000b\"", &out), "a\xef\xbf\xbd"
                                                        "b");
    buf_release(&out);
}

/* {"name":"...","z":1} in memory of exactly its size, which a sanitizer guards. */
static void check_string(const struct buf *inside, const struct buf *expected)
{
    struct buf json = {0}, text = {0};
    struct json_view view;
    buf_add_str(&json, "{\"name\":\"");
    buf_add(&json, inside->data, inside->len);
    buf_add_str(&json, "\",\"z\":1}");
    char *exact = malloc(json.len);
    memcpy(exact, json.data, json.len);
    assert_int_equal(json_view_parse(&view, exact, json.len), expected != NULL);
    if (expected != NULL) {
        assert_true(json_view_text(json_view_member(view, "name"), &text));
        assert_int_equal(text.len, expected->len);
        assert_memory_equal(text.data, expected->data, text.len);
        assert_int_equal(json_view_int(json_view_member(view, "z"), 0), 1);
    }
    for (size_t cut = 0; cut < json.len; cut++) { /* no part of it is a document */
        char *part = malloc(cut + 1);
        memcpy(part, exact, cut);
        assert_false(json_view_parse(&view, part, cut));
        free(part);
    }
    free(exact);
    buf_release(&json);
    buf_release(&text);
}

static void anything_may_stand_at_any_place_of_a_string(void **state)
{
    (void)state;
    static const struct {
        const char *json, *text; /* NULL: not valid */
    } pieces[] = {
        {"", ""},
        {"\\\"", "\""},
        {"\\\\", "\\"},
        {"\\\\\\\"", "\\\""},
        {"\\n", "\n"},
        {"\\u00fc", "\xc3\xbc"},
        {"\\ud83c\\udf89", "\xf0\x9f\x8e\x89"},
        {"\xc3\xbc", "\xc3\xbc"},
        {"\xe6\x97\xa5\xe6\x9c\xac", "\xe6\x97\xa5\xe6\x9c\xac"},
        {"\xf0\x9f\x8e\x89", "\xf0\x9f\x8e\x89"},
        {"\xff", "\xef\xbf\xbd"},
        {"\x7f", "\x7f"},
        {"{[,:]}", "{[,:]}"},
        {"\x1f", NULL},
        {"\n", NULL},
        {"\\x", NULL},
        {"\\u12", NULL},
    };
    for (size_t p = 0; p < sizeof pieces / sizeof *pieces; p++)
        for (size_t before = 0; before < 40; before++)
            for (size_t after = 0; after < 40; after += 13) {
                struct buf inside = {0}, expected = {0};
                for (size_t i = 0; i < before + after + 2; i++) {
                    char plain = (char)('a' + i % 26);
                    if (i == before || i == before + after + 1) {
                        buf_add_str(&inside, pieces[p].json);
                        if (pieces[p].text != NULL)
                            buf_add_str(&expected, pieces[p].text);
                    } else {
                        buf_add_char(&inside, plain);
                        buf_add_char(&expected, plain);
                    }
                }
                buf_reserve(&inside, 1);
                buf_reserve(&expected, 1);
                check_string(&inside, pieces[p].text != NULL ? &expected : NULL);
                buf_release(&inside);
                buf_release(&expected);
            }
}

static void members_are_found_by_name_and_the_last_one_counts(void **state)
{
    (void)state;
    static const struct json_view_name names[] = {JSON_VIEW_NAME("a"), JSON_VIEW_NAME("bb"),
                                                  JSON_VIEW_NAME("c")};
    struct json_view view, found[3];
    assert_true(parse(&view, "{\"bb\":1,\"x\":{\"a\":9},\"\\u0061\":\"y\",\"bb\":2}"));
    json_view_members(view, names, 3, found);
    assert_true(json_view_equals(found[0], "y"));
    assert_int_equal(json_view_int(found[1], 0), 2);
    assert_int_equal(found[2].kind, JSON_VIEW_NONE);
    json_view_members(found[1], names, 3, found);
    assert_int_equal(found[0].kind, JSON_VIEW_NONE);
}

static void values_of_another_kind_give_the_fallback(void **state)
{
    (void)state;
    struct json_view view, item;
    struct buf out = {0};
    char copy[8] = "same";
    assert_true(parse(&view, "{\"a\":[1]}"));
    assert_int_equal(json_view_int(view, 5), 5);
    assert_true(json_view_num(view, 5) == 5);
    assert_false(json_view_text(view, &out));
    assert_false(json_view_copy(view, copy, sizeof copy));
    assert_string_equal(copy, "same");
    assert_false(json_view_equals(view, ""));
    assert_int_equal(json_view_first(view).kind, JSON_VIEW_NONE);
    assert_int_equal(json_view_member(json_view_member(view, "a"), "a").kind, JSON_VIEW_NONE);
    struct json_view none = {0};
    assert_false(json_view_next(&none, NULL, &item));
    assert_false(json_view_text(none, &out));
}

static int64_t as_int(const char *text)
{
    struct json_view view;
    assert_true(parse(&view, text));
    return json_view_int(view, -77);
}

static void integers_that_do_not_fit_give_the_fallback(void **state)
{
    (void)state;
    assert_int_equal(as_int("9223372036854775807"), INT64_MAX);
    assert_int_equal(as_int("-9223372036854775808"), INT64_MIN);
    assert_int_equal(as_int("9223372036854775808"), -77);
    assert_int_equal(as_int("-9223372036854775809"), -77);
    assert_int_equal(as_int("1e99"), -77);
    assert_int_equal(as_int("1e9999"), -77);
    assert_int_equal(as_int("1.5"), -77);
    assert_int_equal(as_int("12.0"), 12);
    assert_int_equal(as_int("1e3"), 1000);
    assert_int_equal(as_int("11111111111111111111111111111111111111111111111111111111111111111111"
                            ".0"),
                     -77);
}

static void copies_are_cut_between_characters(void **state)
{
    (void)state;
    struct json_view view;
    char copy[6];
    assert_true(parse(&view, "\"abc\xe2\x82\xac\""));
    assert_true(json_view_copy(view, copy, sizeof copy));
    assert_string_equal(copy, "abc");
    assert_true(parse(&view, "\"ab\\u20acd\""));
    assert_true(json_view_copy(view, copy, sizeof copy));
    assert_string_equal(copy, "ab\xe2\x82\xac");
}

static void nesting_is_limited(void **state)
{
    (void)state;
    static char text[2 * JSON_VIEW_MAX_DEPTH + 2];
    struct json_view view;
    memset(text, '[', JSON_VIEW_MAX_DEPTH);
    memset(text + JSON_VIEW_MAX_DEPTH, ']', JSON_VIEW_MAX_DEPTH);
    assert_true(json_view_parse(&view, text, 2 * JSON_VIEW_MAX_DEPTH));
    memset(text, '[', JSON_VIEW_MAX_DEPTH + 1);
    memset(text + JSON_VIEW_MAX_DEPTH + 1, ']', JSON_VIEW_MAX_DEPTH + 1);
    assert_false(json_view_parse(&view, text, 2 * JSON_VIEW_MAX_DEPTH + 2));
}

static void failing_allocation_is_left_to_the_buffer(void **state)
{
    (void)state;
    struct json_view view;
    struct buf out = {0};
    assert_true(parse(&view, "\"some \\n text\""));
    mem_fail_at(1);
    assert_true(json_view_text(view, &out));
    mem_fail_at(0);
    assert_true(out.failed);
    buf_release(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(valid_documents_are_the_same_as_with_jansson),
        cmocka_unit_test(more_containers_than_their_ends_are_kept_change_nothing),
        cmocka_unit_test(invalid_documents_are_refused_as_with_jansson),
        cmocka_unit_test(damaged_documents_are_judged_no_stricter_than_by_jansson),
        cmocka_unit_test(damaged_characters_become_replacement_characters),
        cmocka_unit_test(anything_may_stand_at_any_place_of_a_string),
        cmocka_unit_test(members_are_found_by_name_and_the_last_one_counts),
        cmocka_unit_test(values_of_another_kind_give_the_fallback),
        cmocka_unit_test(integers_that_do_not_fit_give_the_fallback),
        cmocka_unit_test(copies_are_cut_between_characters),
        cmocka_unit_test(nesting_is_limited),
        cmocka_unit_test(failing_allocation_is_left_to_the_buffer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
