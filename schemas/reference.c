#include <string.h>

#include "schemas/message.h"
#include "schemas/table.h"

static const char *const kinds[] = {
    [KIND_STR] = "string",
    [KIND_TEXT] = "text",
    [KIND_I64] = "integer",
    [KIND_F64] = "number",
    [KIND_BOOL] = "boolean",
    [KIND_STRS] = "array of strings",
    [KIND_I64S] = "array of integers",
};

static void add_limit(const struct field *field, struct buf *out)
{
    bool list = field->kind == KIND_STRS || field->kind == KIND_I64S;
    if (field->limit == 0)
        buf_add_str(out, "");
    else if (field->limit % (1024 * 1024) == 0)
        buf_printf(out, "%zu MiB", field->limit / (1024 * 1024));
    else if (field->limit % 1024 == 0)
        buf_printf(out, "%zu KiB", field->limit / 1024);
    else
        buf_printf(out, "%zu %s", field->limit, list ? "items" : "bytes");
}

static void add_message(const struct message_row *row, struct buf *out)
{
    buf_printf(out,
               "\n### `%s`\n\n%s: %s.\n\n| field | type | limit | meaning |\n|---|---|---|---|\n",
               row->name, row->flow, row->text);
    size_t n_fields;
    const struct field *fields = row->fields(&n_fields);
    for (size_t i = 0; i < n_fields; i++) {
        buf_printf(out, "| `%s` | %s | ", fields[i].name, kinds[fields[i].kind]);
        add_limit(&fields[i], out);
        buf_printf(out, " | %s |\n", fields[i].text);
    }
}

void message_reference(struct buf *out)
{
    buf_printf(out,
               "# Messages\n\n"
               "Made from `schemas/messages.def`; a test keeps the two equal.\n\n"
               "A message is one msgpack map keyed by field name. Fields that are zero or empty "
               "are not sent; unknown\n"
               "fields are skipped. Every map starts with the envelope:\n\n"
               "| key | type | meaning |\n|---|---|---|\n"
               "| `v` | integer | version of the envelope: %d |\n"
               "| `t` | string | name of the message |\n"
               "| `src` | string | who sent it, such as `worker/ollama-0` |\n"
               "| `seq` | integer | number of the event, counted by its source from 1 |\n"
               "| `ts` | integer | the sender's clock, milliseconds since 1970 |\n"
               "| `tr` | string | trace id |\n\n"
               "A control message between peers, and a record in Redis, is such a map. An event is "
               "one frame\n"
               "`topic NUL map`, so that a tap can subscribe to a prefix of the topic. A decoder "
               "takes at most %zu MiB and\n"
               "refuses trailing bytes, wrong types and fields over their limit.\n\n## Table\n",
               MESSAGE_VERSION, MESSAGE_MAX_BYTES / (1024 * 1024));
    for (int type = MESSAGE_NONE + 1; type < MESSAGE_TYPE_COUNT; type++)
        add_message(message_row((enum message_type)type), out);
}
