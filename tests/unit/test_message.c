/* The codec: what goes in comes out, and nothing else gets in. */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/json.h"
#include "schemas/mem.h"
#include "schemas/message.h"
#include "schemas/table.h"

static const char *strs[] = {"qwen-coder@box/gpu0", "sonnet"};
static int64_t numbers[] = {0, 800};

static void encode(const struct message *message, struct buf *out)
{
    assert_int_equal(message_encode(message, out), 0);
}

/* Every field of a type set to something that is not zero. */
static void fill(struct message *message, enum message_type type)
{
    *message = (struct message){
        .type = type, .source = "test/1", .sequence = 7, .time_ms = 1234567890123, .trace = "abc"};
    size_t n_fields;
    const struct field *fields = message_row(type)->fields(&n_fields);
    for (size_t i = 0; i < n_fields; i++) {
        void *at = field_of(message, &fields[i]);
        switch (fields[i].kind) {
        case KIND_STR:
            *(const char **)at = "caf\xc3\xa9";
            break;
        case KIND_TEXT:
            *(struct bytes *)at = (struct bytes){.data = "a\0b\xff", .len = 4};
            break;
        case KIND_I64:
            *(int64_t *)at = -(int64_t)i - 1;
            break;
        case KIND_F64:
            *(double *)at = 0.25 + (double)i;
            break;
        case KIND_BOOL:
            *(bool *)at = true;
            break;
        case KIND_STRS:
            *(const char ***)at = strs;
            *field_count_of(message, &fields[i]) = 2;
            break;
        case KIND_I64S:
            *(int64_t **)at = numbers;
            *field_count_of(message, &fields[i]) = 2;
            break;
        }
    }
}

static void every_message_survives_a_round_trip(void **state)
{
    (void)state;
    for (int type = MESSAGE_NONE + 1; type < MESSAGE_TYPE_COUNT; type++) {
        struct message in, out;
        struct buf first = {0}, second = {0};
        fill(&in, (enum message_type)type);
        encode(&in, &first);
        assert_int_equal(message_decode(&out, first.data, first.len), 0);
        assert_string_equal(out.source, "test/1");
        assert_int_equal(out.sequence, 7);
        encode(&out, &second);
        assert_int_equal(first.len, second.len);
        assert_memory_equal(first.data, second.data, first.len);
        message_release(&out);
        buf_release(&first);
        buf_release(&second);
    }
}

static void fields_that_were_not_sent_read_as_zero_and_empty(void **state)
{
    (void)state;
    struct message in = {.type = MESSAGE_offer}, out;
    struct buf bytes = {0};
    encode(&in, &bytes);
    assert_int_equal(message_decode(&out, bytes.data, bytes.len), 0);
    assert_string_equal(out.offer.task, "");
    assert_string_equal(out.source, "");
    assert_int_equal(out.offer.n_arms, 0);
    message_release(&out);
    buf_release(&bytes);
}

static void unknown_fields_are_skipped(void **state)
{
    (void)state;
    static const char bytes[] = "\x84\xa1v\x01\xa1t\xa6"
                                "credit\xa5"
                                "later\x92\x01\x81\xa1x\xc0\xa5"
                                "grant\x05";
    struct message out;
    assert_int_equal(message_decode(&out, bytes, sizeof bytes - 1), 0);
    assert_int_equal(out.type, MESSAGE_credit);
    assert_int_equal(out.credit.grant, 5);
    message_release(&out);
}

#define REFUSED(text, rc)                                                                          \
    {                                                                                              \
        text, sizeof text - 1, rc                                                                  \
    }

static void malformed_messages_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t len;
        int rc;
    } rows[] = {
        REFUSED("", -EBADMSG),
        REFUSED("\xc0", -EBADMSG),
        REFUSED("\x80", -EBADMSG),
        REFUSED("\x81\xa1v\x01", -EBADMSG),
        REFUSED("\x82\xa1v\x02\xa1t\xa3"
                "bye",
                -EPROTONOSUPPORT),
        REFUSED("\x82\xa1v\x01\xa1t\xa3"
                "xxx",
                -EPROTONOSUPPORT),
        REFUSED("\x82\xa1v\x01\xa1t\xa3"
                "bye\xc0",
                -EBADMSG), /* trailing byte */
        REFUSED("\x83\xa1v\x01\xa1t\xa6"
                "credit\xa5"
                "grant\xa1x",
                -EBADMSG), /* wrong type */
        REFUSED("\x83\xa1v\x01\xa1t\xa6"
                "credit\xa5"
                "grant\xcf\xff\xff\xff\xff\xff\xff\xff\xff",
                -EBADMSG), /* beyond int64 */
        REFUSED("\x84\xa1v\x01\xa1t\xa6"
                "credit\xa5"
                "grant\x05\xa5"
                "grant\x05",
                -EBADMSG), /* twice */
        REFUSED("\x83\xa1v\x01\xa1t\xa3"
                "bye\xa6"
                "reason\xa2"
                "a\0",
                -EBADMSG),                         /* NUL in a string */
        REFUSED("\xdd\xff\xff\xff\xff", -EBADMSG), /* claims 4 G elements */
        REFUSED("\x82\xa1v\x01\xa1t\xdb\xff\xff\xff\xff"
                "bye",
                -EBADMSG), /* claims 4 GiB of string */
        REFUSED("\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\xc0", -EBADMSG), /* too deep */
        REFUSED("\x81\xc1\xc1", -EBADMSG),                                     /* reserved code */
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct message out;
        /* a copy of exactly that size lets ASan see an over-read */
        char *copy = malloc(rows[i].len + (rows[i].len == 0));
        memcpy(copy, rows[i].bytes, rows[i].len);
        assert_int_equal(message_decode(&out, copy, rows[i].len), rows[i].rc);
        assert_null(out.arena);
        free(copy);
    }
}

static void every_truncation_and_bit_flip_is_survived(void **state)
{
    (void)state;
    for (int type = MESSAGE_NONE + 1; type < MESSAGE_TYPE_COUNT; type++) {
        struct message in, out;
        struct buf bytes = {0};
        fill(&in, (enum message_type)type);
        encode(&in, &bytes);
        for (size_t len = 0; len < bytes.len; len++) {
            char *copy = malloc(len + (len == 0));
            memcpy(copy, bytes.data, len);
            assert_int_equal(message_decode(&out, copy, len), -EBADMSG);
            free(copy);
        }
        for (size_t bit = 0; bit < bytes.len * 8; bit++) {
            bytes.data[bit / 8] = (char)(bytes.data[bit / 8] ^ (1 << bit % 8));
            if (message_decode(&out, bytes.data, bytes.len) == 0)
                message_release(&out);
            bytes.data[bit / 8] = (char)(bytes.data[bit / 8] ^ (1 << bit % 8));
        }
        buf_release(&bytes);
    }
}

static void limits_hold_on_both_sides(void **state)
{
    (void)state;
    char task[70];
    memset(task, 'x', sizeof task - 1);
    task[sizeof task - 1] = '\0';
    struct buf bytes = {0};
    buf_add_str(&bytes, "kept");
    struct message in = {.type = MESSAGE_offer, .offer = {.task = task}}, out;
    assert_int_equal(message_encode(&in, &bytes), -E2BIG);
    assert_string_equal(bytes.data, "kept");
    buf_clear(&bytes);
    buf_add_str(&bytes, "\x83\xa1v\x01\xa1t\xa5offer\xa4task\xd9\x45");
    buf_add_str(&bytes, task);
    assert_int_equal(message_decode(&out, bytes.data, bytes.len), -E2BIG);
    struct message bad = {.type = MESSAGE_sub_event, .sub_event = {.cost_usd = NAN}};
    assert_int_equal(message_encode(&bad, &bytes), -EINVAL);
    buf_release(&bytes);
}

static void running_out_of_memory_is_reported(void **state)
{
    (void)state;
    struct message in, out;
    struct buf bytes = {0}, sink = {0};
    fill(&in, MESSAGE_timing);
    encode(&in, &bytes);
    for (unsigned long k = 1;; k++) {
        mem_fail_at(k);
        int rc = message_decode(&out, bytes.data, bytes.len);
        mem_fail_at(0);
        if (rc == 0)
            break;
        assert_int_equal(rc, -ENOMEM);
        assert_true(k < 10);
    }
    message_release(&out);
    mem_fail_at(1);
    assert_int_equal(message_encode(&in, &sink), -ENOMEM);
    mem_fail_at(0);
    assert_int_equal(sink.len, 0);
    assert_int_equal(message_encode(&in, &sink), 0);
    buf_release(&sink);
    buf_release(&bytes);
}

static void an_event_frame_carries_its_topic(void **state)
{
    (void)state;
    struct message in = {.type = MESSAGE_chunk, .chunk = {.task = "t1", .sub = "a"}}, out;
    struct buf frame = {0};
    const char *topic;
    assert_int_equal(event_encode("task.t1.chunk", &in, &frame), 0);
    assert_true(frame_is_event(frame.data, frame.len));
    assert_int_equal(event_decode(&out, &topic, frame.data, frame.len), 0);
    assert_string_equal(topic, "task.t1.chunk");
    assert_string_equal(out.chunk.sub, "a");
    message_release(&out);
    frame.data[4] = ' ';
    assert_int_equal(event_topic_len(frame.data, frame.len), 0);
    assert_int_equal(event_decode(&out, &topic, frame.data, frame.len), -EBADMSG);
    assert_int_equal(event_topic_len("task", 4), 0);
    assert_int_equal(event_topic_len("task\0", 5), 0);
    buf_release(&frame);
}

static void printed_json_is_valid_and_has_the_fixed_members(void **state)
{
    (void)state;
    for (int type = MESSAGE_NONE + 1; type < MESSAGE_TYPE_COUNT; type++) {
        struct message in;
        struct buf out = {0};
        fill(&in, (enum message_type)type);
        message_print_json(&in, "task.t1.x", &out);
        struct err err = {0};
        json_t *parsed = json_parse(out.data, out.len, &err);
        assert_non_null(parsed);
        assert_string_equal(json_str(parsed, "topic", ""), "task.t1.x");
        assert_string_equal(json_str(parsed, "source", ""), "test/1");
        assert_string_equal(json_str(parsed, "type", ""), message_name((enum message_type)type));
        assert_int_equal(json_int(parsed, "seq", 0), 7);
        assert_int_equal(json_int(parsed, "ts", 0), 1234567890123);
        json_decref(parsed);
        buf_release(&out);
    }
}

static void a_line_for_people_holds_no_control_characters(void **state)
{
    (void)state;
    struct message in = {.type = MESSAGE_task_event,
                         .task_event = {.task = "t1", .title = "\x1b[2J\x07 x", .what = "note"}};
    struct buf out = {0};
    message_print_line(&in, "task.t1.note", &out);
    for (size_t i = 0; i < out.len; i++)
        assert_true((unsigned char)out.data[i] >= 0x20);
    assert_non_null(strstr(out.data, "what=note"));
    assert_null(strstr(out.data, "subtasks="));
    buf_release(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_message_survives_a_round_trip),
        cmocka_unit_test(fields_that_were_not_sent_read_as_zero_and_empty),
        cmocka_unit_test(unknown_fields_are_skipped),
        cmocka_unit_test(malformed_messages_are_refused),
        cmocka_unit_test(every_truncation_and_bit_flip_is_survived),
        cmocka_unit_test(limits_hold_on_both_sides),
        cmocka_unit_test(running_out_of_memory_is_reported),
        cmocka_unit_test(an_event_frame_carries_its_topic),
        cmocka_unit_test(printed_json_is_valid_and_has_the_fixed_members),
        cmocka_unit_test(a_line_for_people_holds_no_control_characters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
