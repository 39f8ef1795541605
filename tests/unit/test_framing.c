/* framing: the same events, however the bytes are cut. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "schemas/mem.h"
#include "workers/framing.h"

/* Events as text: each between < and >. */
struct heard {
    struct buf text;
    int count;
    int stop_after; /* 0: never */
};

static bool hear(void *ctx, const char *data, size_t len)
{
    struct heard *heard = ctx;
    buf_add_char(&heard->text, '<');
    buf_add(&heard->text, data, len);
    buf_add_char(&heard->text, '>');
    return ++heard->count != heard->stop_after;
}

static struct heard feed_two(enum provider_framing kind, const char *data, size_t len, size_t cut)
{
    struct heard heard = {0};
    struct framing framing;
    char *first = malloc(cut + 1); /* gone when the second piece comes */
    assert_non_null(first);
    memcpy(first, data, cut);
    framing_init(&framing, kind);
    assert_int_equal(framing_feed(&framing, first, cut, hear, &heard), 0);
    memset(first, '?', cut);
    free(first);
    assert_int_equal(framing_feed(&framing, data + cut, len - cut, hear, &heard), 0);
    assert_int_equal(framing_end(&framing, hear, &heard), 0);
    framing_release(&framing);
    return heard;
}

static struct heard feed_bytes(enum provider_framing kind, const char *data, size_t len)
{
    struct heard heard = {0};
    struct framing framing;
    framing_init(&framing, kind);
    for (size_t i = 0; i < len; i++) {
        char *byte = malloc(1); /* a sanitizer sees whoever looks beyond it */
        *byte = data[i];
        assert_int_equal(framing_feed(&framing, byte, 1, hear, &heard), 0);
        free(byte);
    }
    assert_int_equal(framing_end(&framing, hear, &heard), 0);
    framing_release(&framing);
    return heard;
}

static void check_len(enum provider_framing kind, const char *data, size_t len,
                      const char *expected)
{
    for (size_t cut = 0; cut <= len; cut++) {
        struct heard heard = feed_two(kind, data, len, cut);
        assert_string_equal(heard.text.data != NULL ? heard.text.data : "", expected);
        buf_release(&heard.text);
    }
    struct heard heard = feed_bytes(kind, data, len);
    assert_string_equal(heard.text.data != NULL ? heard.text.data : "", expected);
    buf_release(&heard.text);
}

/* Whole, cut in two at every place, and byte by byte. */
static void check(enum provider_framing kind, const char *data, const char *expected)
{
    check_len(kind, data, strlen(data), expected);
}

static void sse_events_end_at_blank_lines_of_any_kind(void **state)
{
    (void)state;
    check(PROVIDER_SSE, "data: a\n\ndata: b\r\n\r\ndata: c\r\rdata: d\n\n", "<a><b><c><d>");
}

static void sse_data_lines_join_with_line_feeds(void **state)
{
    (void)state;
    check(PROVIDER_SSE, "data: a\ndata:\ndata: b\r\ndata\n\n", "<a\n\nb\n>");
}

static void sse_one_space_after_the_colon_goes_and_none_is_needed(void **state)
{
    (void)state;
    check(PROVIDER_SSE, "data:{\"index\":1}\n\ndata:  two\n\n", "<{\"index\":1}>< two>");
}

static void sse_comments_and_other_fields_are_skipped(void **state)
{
    (void)state;
    check(PROVIDER_SSE,
          ": ping\n\n:\n\nevent: x\nid: 7\nretry: 10\nfoo: bar\nbaz\ndatax: no\ndata: a\n:c\n\n",
          "<a>");
}

static void sse_done_is_passed_through(void **state)
{
    (void)state;
    check(PROVIDER_SSE, "data: {}\n\ndata: [DONE]\n\n", "<{}><[DONE]>");
}

static void sse_last_event_needs_no_blank_line(void **state)
{
    (void)state;
    check(PROVIDER_SSE, "data: a\n\ndata: b\n", "<a><b>");
    check(PROVIDER_SSE, "data: a\n\ndata: b", "<a><b>");
    check(PROVIDER_SSE, "data: a\n\ndata: b\r", "<a><b>");
    check(PROVIDER_SSE, "data: a\ndata: b", "<a\nb>");
}

static void sse_byte_order_mark_is_tolerated_at_the_start_only(void **state)
{
    (void)state;
    check(PROVIDER_SSE,
          "\xef\xbb\xbf"
          "data: a\n\n\xef\xbb\xbf"
          "data: b\n\n",
          "<a>");
    check(PROVIDER_NDJSON, "\xef\xbb\xbf{}\n", "<{}>");
}

static void sse_data_may_hold_any_byte_and_split_characters(void **state)
{
    (void)state;
    static const char data[] = "data: gr\xc3\xbc\xc3\x9f \xf0\x9f\x98\x80\n\n";
    check(PROVIDER_SSE, data, "<gr\xc3\xbc\xc3\x9f \xf0\x9f\x98\x80>");
}

static void sse_raw_json_between_events_is_one_event(void **state)
{
    (void)state;
    check(PROVIDER_SSE, "data: a\n\n[{\n  \"error\": {\n\n    \"code\": 503\n  }\n}\n]\n",
          "<a><[{\n  \"error\": {\n    \"code\": 503\n  }\n}\n]>");
    check(PROVIDER_SSE, "data: a\n{\"error\":1}\n\ndata: [DONE]\n\n", "<a><{\"error\":1}><[DONE]>");
    check(PROVIDER_SSE, "{\"error\":1}", "<{\"error\":1}>");
    check(PROVIDER_SSE, "{\"a\":1}\nevent: x\ndata: b\n\n", "<{\"a\":1}><b>");
}

static void ndjson_lines_are_events_and_blank_ones_are_not(void **state)
{
    (void)state;
    check(PROVIDER_NDJSON, "{\"a\":1}\r\n\n  \r\n{\"b\":\"\\r\"}\n{\"c\":3}",
          "<{\"a\":1}><{\"b\":\"\\r\"}><{\"c\":3}>");
}

static void nothing_gives_nothing(void **state)
{
    (void)state;
    check(PROVIDER_SSE, "", "");
    check(PROVIDER_SSE, "\r\n\n\r\r\n", "");
    check(PROVIDER_NDJSON, "", "");
    check(PROVIDER_NDJSON, "\n\n", "");
}

/* Texts made of the pieces that matter, all cuts: the whole feed is the reference. */
static void any_mixture_is_the_same_for_every_cut(void **state)
{
    (void)state;
    static const char *const pieces[] = {"data:", "data: x", "\n",  "\r",          "\r\n", ":c",
                                         "{\"",   "[",       "id:", "\n\n",        "}",    "data",
                                         " ",     "event:e", "a",   "\xef\xbb\xbf"};
    unsigned seed = 7;
    for (int round = 0; round < 400; round++) {
        struct buf text = {0};
        for (int i = 0; i < 12; i++) {
            seed = seed * 1103515245 + 12345;
            buf_add_str(&text, pieces[(seed >> 16) % (sizeof pieces / sizeof *pieces)]);
        }
        for (int kind = PROVIDER_SSE; kind <= PROVIDER_NDJSON; kind++) {
            struct heard whole = feed_two((enum provider_framing)kind, text.data, text.len, 0);
            check_len((enum provider_framing)kind, text.data, text.len,
                      whole.text.data != NULL ? whole.text.data : "");
            buf_release(&whole.text);
        }
        buf_release(&text);
    }
}

static bool is_inside(void *ctx, const char *data, size_t len)
{
    const char *const *range = ctx;
    assert_true(data >= range[0] && data + len <= range[1]);
    return true;
}

static void event_whole_in_the_input_is_not_copied(void **state)
{
    (void)state;
    static const char sse[] = "event: x\ndata: {\"a\":1}\n\ndata: b\n\n";
    static const char ndjson[] = "{\"a\":1}\n{}\n";
    const char *sse_range[] = {sse, sse + sizeof sse};
    const char *ndjson_range[] = {ndjson, ndjson + sizeof ndjson};
    struct framing framing;
    framing_init(&framing, PROVIDER_SSE);
    framing_feed(&framing, sse, sizeof sse - 1, is_inside, sse_range);
    assert_int_equal(framing.data.cap, 0);
    framing_release(&framing);
    framing_init(&framing, PROVIDER_NDJSON);
    framing_feed(&framing, ndjson, sizeof ndjson - 1, is_inside, ndjson_range);
    framing_release(&framing);
}

static void callback_that_returns_false_is_not_called_again(void **state)
{
    (void)state;
    static const char data[] = "data: a\n\ndata: b\n\ndata: c\n\n{\"x\":1}\ndata: d\n\n";
    for (int stop = 1; stop <= 4; stop++) {
        struct heard heard = {.stop_after = stop};
        struct framing framing;
        framing_init(&framing, PROVIDER_SSE);
        assert_int_equal(framing_feed(&framing, data, sizeof data - 1, hear, &heard), 0);
        assert_int_equal(framing_feed(&framing, data, sizeof data - 1, hear, &heard), 0);
        assert_int_equal(framing_end(&framing, hear, &heard), 0);
        assert_int_equal(heard.count, stop);
        framing_release(&framing);
        buf_release(&heard.text);
    }
}

static bool count_only(void *ctx, const char *data, size_t len)
{
    (void)data;
    *(size_t *)ctx += len;
    return true;
}

/* A line of `len` bytes that begins with `begin`, fed in pieces. */
static int feed_long(enum provider_framing kind, const char *begin, size_t len, size_t piece,
                     size_t *ret_heard)
{
    struct framing framing;
    framing_init(&framing, kind);
    char *line = malloc(len + 2);
    memset(line, 'x', len);
    memcpy(line, begin, strlen(begin));
    memcpy(line + len, "\n\n", 2);
    *ret_heard = 0;
    int rc = 0;
    for (size_t at = 0; rc == 0 && at < len + 2; at += piece)
        rc = framing_feed(&framing, line + at, len + 2 - at < piece ? len + 2 - at : piece,
                          count_only, ret_heard);
    if (rc < 0)
        assert_int_equal(framing_feed(&framing, "data: y\n\n", 9, count_only, ret_heard), rc);
    framing_release(&framing);
    free(line);
    return rc;
}

static void event_that_is_too_long_is_refused_however_it_is_cut(void **state)
{
    (void)state;
    static const size_t pieces[] = {FRAMING_MAX_EVENT * 2, 4096, 1000003};
    for (size_t i = 0; i < 3; i++) {
        size_t heard;
        assert_int_equal(feed_long(PROVIDER_SSE, "data: ", FRAMING_MAX_EVENT, pieces[i], &heard),
                         0);
        assert_int_equal(heard, FRAMING_MAX_EVENT - 6);
        assert_int_equal(
            feed_long(PROVIDER_SSE, "data: ", FRAMING_MAX_EVENT + 1, pieces[i], &heard), -EMSGSIZE);
        assert_int_equal(heard, 0);
        assert_int_equal(feed_long(PROVIDER_SSE, ":", FRAMING_MAX_EVENT + 1, pieces[i], &heard),
                         -EMSGSIZE);
        assert_int_equal(feed_long(PROVIDER_NDJSON, "{", FRAMING_MAX_EVENT, pieces[i], &heard), 0);
        assert_int_equal(heard, FRAMING_MAX_EVENT);
        assert_int_equal(feed_long(PROVIDER_NDJSON, "{", FRAMING_MAX_EVENT + 1, pieces[i], &heard),
                         -EMSGSIZE);
    }
}

static void joined_lines_that_are_too_long_are_refused(void **state)
{
    (void)state;
    struct framing framing;
    size_t heard = 0, len = FRAMING_MAX_EVENT / 4;
    char *line = malloc(len + 1);
    memset(line, 'x', len);
    memcpy(line, "data: ", 6);
    line[len] = '\n';
    framing_init(&framing, PROVIDER_SSE);
    int rc = 0;
    for (int i = 0; i < 5; i++)
        rc = framing_feed(&framing, line, len + 1, count_only, &heard);
    assert_int_equal(rc, -EMSGSIZE);
    framing_release(&framing);
    free(line);
}

static void lines_without_number_take_linear_time(void **state)
{
    (void)state;
    /* Quadratic search would need minutes for this. */
    size_t len = 4 * 1024 * 1024, heard = 0;
    char *text = malloc(len);
    struct framing framing;
    memset(text, '\r', len);
    framing_init(&framing, PROVIDER_SSE);
    assert_int_equal(framing_feed(&framing, text, len, count_only, &heard), 0);
    framing_release(&framing);
    memset(text, '\n', len);
    framing_init(&framing, PROVIDER_SSE);
    assert_int_equal(framing_feed(&framing, text, len, count_only, &heard), 0);
    framing_release(&framing);
    free(text);
    assert_int_equal(heard, 0);
}

static void failing_allocation_is_told_and_leaves_nothing_behind(void **state)
{
    (void)state;
    static const char data[] = "data: a\ndata: b\n\n{\"raw\":\n1}\ndata: c\r\n\r\ndata: last";
    bool failed = true;
    for (unsigned long k = 1; failed; k++) {
        struct framing framing;
        size_t heard = 0;
        framing_init(&framing, PROVIDER_SSE);
        mem_fail_at(k);
        int rc = 0;
        for (size_t i = 0; rc == 0 && i < sizeof data - 1; i++)
            rc = framing_feed(&framing, data + i, 1, count_only, &heard);
        if (rc == 0)
            rc = framing_end(&framing, count_only, &heard);
        mem_fail_at(0);
        failed = rc < 0;
        if (failed)
            assert_int_equal(rc, -ENOMEM);
        else
            assert_int_equal(heard, 3 + 10 + 1 + 4);
        framing_release(&framing);
        assert_true(k < 100);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sse_events_end_at_blank_lines_of_any_kind),
        cmocka_unit_test(sse_data_lines_join_with_line_feeds),
        cmocka_unit_test(sse_one_space_after_the_colon_goes_and_none_is_needed),
        cmocka_unit_test(sse_comments_and_other_fields_are_skipped),
        cmocka_unit_test(sse_done_is_passed_through),
        cmocka_unit_test(sse_last_event_needs_no_blank_line),
        cmocka_unit_test(sse_byte_order_mark_is_tolerated_at_the_start_only),
        cmocka_unit_test(sse_data_may_hold_any_byte_and_split_characters),
        cmocka_unit_test(sse_raw_json_between_events_is_one_event),
        cmocka_unit_test(ndjson_lines_are_events_and_blank_ones_are_not),
        cmocka_unit_test(nothing_gives_nothing),
        cmocka_unit_test(any_mixture_is_the_same_for_every_cut),
        cmocka_unit_test(event_whole_in_the_input_is_not_copied),
        cmocka_unit_test(callback_that_returns_false_is_not_called_again),
        cmocka_unit_test(event_that_is_too_long_is_refused_however_it_is_cut),
        cmocka_unit_test(joined_lines_that_are_too_long_are_refused),
        cmocka_unit_test(lines_without_number_take_linear_time),
        cmocka_unit_test(failing_allocation_is_told_and_leaves_nothing_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
