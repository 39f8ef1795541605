#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "schemas/message.h"
#include "schemas/table.h"

static void print_number(double value, struct buf *out)
{
    buf_printf(out, "%.6g", value);
}

static void print_json_strs(const char *const *items, size_t n, struct buf *out)
{
    buf_add_char(out, '[');
    for (size_t i = 0; i < n; i++) {
        buf_add_str(out, i > 0 ? "," : "");
        buf_add_json(out, items[i], strlen(items[i]));
    }
    buf_add_char(out, ']');
}

static void print_json_i64s(const int64_t *items, size_t n, struct buf *out)
{
    buf_add_char(out, '[');
    for (size_t i = 0; i < n; i++)
        buf_printf(out, "%s%" PRId64, i > 0 ? "," : "", items[i]);
    buf_add_char(out, ']');
}

static void print_json_value(const struct message *message, const struct field *field,
                             struct buf *out)
{
    const void *at = field_of(message, field);
    switch (field->kind) {
    case KIND_STR: {
        const char *text = *(const char *const *)at;
        buf_add_json(out, text != NULL ? text : "", text != NULL ? strlen(text) : 0);
        break;
    }
    case KIND_TEXT:
        buf_add_json(out, ((const struct bytes *)at)->data, ((const struct bytes *)at)->len);
        break;
    case KIND_I64:
        buf_printf(out, "%" PRId64, *(const int64_t *)at);
        break;
    case KIND_F64:
        print_number(*(const double *)at, out);
        break;
    case KIND_BOOL:
        buf_add_str(out, *(const bool *)at ? "true" : "false");
        break;
    case KIND_STRS:
        print_json_strs(*(const char *const *const *)at, *field_count_of(message, field), out);
        break;
    case KIND_I64S:
        print_json_i64s(*(const int64_t *const *)at, *field_count_of(message, field), out);
        break;
    }
}

static void print_member(const char *name, const char *text, struct buf *out)
{
    buf_printf(out, "\"%s\":", name);
    buf_add_json(out, text != NULL ? text : "", text != NULL ? strlen(text) : 0);
    buf_add_char(out, ',');
}

void message_print_json(const struct message *message, const char *topic, struct buf *out)
{
    const struct message_row *row = message_row(message->type);
    buf_add_char(out, '{');
    if (topic != NULL)
        print_member("topic", topic, out);
    buf_printf(out, "\"ts\":%" PRId64 ",", message->time_ms);
    print_member("source", message->source, out);
    buf_printf(out, "\"seq\":%" PRId64 ",\"type\":\"%s\"", message->sequence,
               message_name(message->type));
    if (message->trace != NULL && message->trace[0] != '\0') {
        buf_add_char(out, ',');
        print_member("trace", message->trace, out);
        out->len--; /* the comma: one follows before each field */
    }
    size_t n_fields = 0;
    const struct field *fields = row != NULL ? row->fields(&n_fields) : NULL;
    for (size_t i = 0; i < n_fields; i++) {
        buf_printf(out, ",\"%s\":", fields[i].name);
        print_json_value(message, &fields[i], out);
    }
    buf_add_char(out, '}');
}

/* --- lines for people ------------------------------------------------------------------ */

#define LINE_TEXT_MAX 200 /* bytes of one field */

/* Printable text of a stranger: control characters would reach the reader's terminal. */
static void print_plain(const char *text, size_t len, struct buf *out)
{
    size_t shown = len < LINE_TEXT_MAX ? len : LINE_TEXT_MAX;
    while (shown < len && shown > 0 && ((unsigned char)text[shown] & 0xc0) == 0x80)
        shown--; /* not in the middle of a character */
    struct buf json = {0};
    buf_add_json(&json, text, shown);
    if (json.failed)
        return;
    bool bare = json.len == shown + 2 && shown > 0 && memchr(text, ' ', shown) == NULL;
    buf_add(out, json.data + (bare ? 1 : 0), json.len - (bare ? 2 : 0));
    if (shown < len)
        buf_printf(out, "+%zu", len - shown);
    buf_release(&json);
}

static bool print_line_value(const struct message *message, const struct field *field,
                             struct buf *out)
{
    const void *at = field_of(message, field);
    size_t before = out->len;
    buf_printf(out, " %s=", field->name);
    size_t start = out->len;
    if (field->kind == KIND_STR && *(const char *const *)at != NULL)
        print_plain(*(const char *const *)at, strlen(*(const char *const *)at), out);
    else if (field->kind == KIND_TEXT)
        print_plain(((const struct bytes *)at)->data, ((const struct bytes *)at)->len, out);
    else if (field->kind != KIND_STR)
        print_json_value(message, field, out);
    static const char *const nothing[] = {"", "\"\"", "0", "false", "[]"};
    for (size_t i = 0; i < sizeof nothing / sizeof *nothing; i++)
        if (out->data != NULL && strcmp(out->data + start, nothing[i]) == 0) {
            out->len = before;
            out->data[before] = '\0';
            return false;
        }
    return true;
}

void message_print_line(const struct message *message, const char *topic, struct buf *out)
{
    const struct message_row *row = message_row(message->type);
    time_t seconds = (time_t)(message->time_ms / 1000);
    struct tm parts;
    char clock[16];
    localtime_r(&seconds, &parts);
    strftime(clock, sizeof clock, "%H:%M:%S", &parts);
    buf_printf(out, "%s.%03d %s", clock, (int)(message->time_ms % 1000),
               topic != NULL ? topic : message_name(message->type));
    size_t n_fields = 0;
    const struct field *fields = row != NULL ? row->fields(&n_fields) : NULL;
    for (size_t i = 0; i < n_fields && !out->failed; i++)
        print_line_value(message, &fields[i], out);
}
