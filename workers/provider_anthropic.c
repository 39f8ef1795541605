/* Anthropic's Messages API. */
#include <errno.h>
#include <string.h>

#include "workers/call.h"
#include "workers/failure.h"
#include "workers/names.h"
#include "workers/providers.h"
#include "workers/wire.h"

#define VERSION_HEADER "anthropic-version: 2023-06-01\n"
#define DEFAULT_MAX_TOKENS 4096 /* the field is required */
/* Above it, an answer at the slowest rate takes longer than the ten minutes that connections
 * without a byte are kept: such calls are streamed, asked for or not. */
#define MAX_UNSTREAMED_TOKENS 21333
#define MAX_TEMPERATURE 1.0
#define MIN_THINKING_TOKENS 1024

/* --- the request -------------------------------------------------------------------------------
 */

static int64_t max_tokens(const struct provider_call *call)
{
    return call->max_tokens > 0 ? call->max_tokens : DEFAULT_MAX_TOKENS;
}

static bool has_prefix(const char *model, const char *const *prefixes)
{
    for (; *prefixes != NULL; prefixes++)
        if (strncmp(model, *prefixes, strlen(*prefixes)) == 0)
            return true;
    return false;
}

/* Models from before adaptive thinking: they take a budget of tokens instead. */
static const char *const with_budget[] = {
    "claude-3-7-",       "claude-opus-4-0",
    "claude-opus-4-1",   "claude-opus-4-2",
    "claude-sonnet-4-0", "claude-sonnet-4-2",
    "claude-sonnet-4-5", "claude-opus-4-5",
    "claude-haiku-4-5",  NULL,
};
/* Models that can't be told not to think: the lowest effort comes nearest. */
static const char *const always_thinking[] = {
    "claude-fable-5",
    "claude-opus-5-5",
    "claude-sonnet-5-5",
    NULL,
};

static const struct {
    const char *effort;
    const char *word; /* output_config.effort */
    int64_t budget_tokens;
} efforts[] = {
    {"minimal", "low", 1024}, {"low", "low", 2048},      {"medium", "medium", 8192},
    {"high", "high", 16384},  {"xhigh", "xhigh", 32768}, {"max", "max", 65536},
};

/* How a call wants the model to think. */
struct thinking {
    const char *type;      /* NULL: not said */
    const char *effort;    /* NULL: not said */
    int64_t budget_tokens; /* 0: none */
};

static struct thinking thinking_of(const struct provider_call *call)
{
    if (call_thinks_not(call) && has_prefix(call->model, always_thinking))
        return (struct thinking){.effort = "low"};
    if (call_thinks_not(call))
        return (struct thinking){.type = "disabled"};
    if (!call_thinks(call))
        return (struct thinking){0};
    size_t i = 0;
    while (i < sizeof efforts / sizeof *efforts && strcmp(efforts[i].effort, call->effort) != 0)
        i++;
    bool known = i < sizeof efforts / sizeof *efforts;
    if (!has_prefix(call->model, with_budget))
        return (struct thinking){.type = "adaptive",
                                 .effort = known ? efforts[i].word : call->effort};
    /* The budget is a part of max_tokens: a quarter is kept for the answer. */
    int64_t budget = known ? efforts[i].budget_tokens : MIN_THINKING_TOKENS;
    int64_t most = max_tokens(call) / 4 * 3;
    if (budget > most)
        budget = most;
    if (budget < MIN_THINKING_TOKENS)
        return (struct thinking){0}; /* no room to think at all */
    return (struct thinking){.type = "enabled", .budget_tokens = budget};
}

static void add_image(const struct provider_image *image, struct buf *body)
{
    buf_add_str(body, "{\"type\":\"image\",\"source\":{\"type\":");
    if (image->url[0] != '\0') {
        buf_add_str(body, "\"url\"");
        wire_member(body, "url", image->url, strlen(image->url));
    } else {
        buf_add_str(body, "\"base64\"");
        wire_member(body, "media_type", image->media_type, strlen(image->media_type));
        wire_member(body, "data", image->data, strlen(image->data));
    }
    buf_add_str(body, "}},");
}

/* Images stand before the text that asks about them. */
static void add_content(const struct provider_call *call, struct buf *body)
{
    if (call->n_images == 0) {
        call_prompt(call, body);
        return;
    }
    buf_add_char(body, '[');
    for (size_t i = 0; i < call->n_images; i++)
        add_image(&call->images[i], body);
    buf_add_str(body, "{\"type\":\"text\",\"text\":");
    call_prompt(call, body);
    buf_add_str(body, "}]");
}

static void add_thinking(const struct thinking *thinking, struct buf *body)
{
    if (thinking->type == NULL)
        return;
    buf_printf(body, ",\"thinking\":{\"type\":\"%s\"", thinking->type);
    if (thinking->budget_tokens > 0)
        buf_printf(body, ",\"budget_tokens\":%lld", (long long)thinking->budget_tokens);
    buf_add_char(body, '}');
}

static void add_output_config(const struct thinking *thinking, struct json_view schema,
                              struct buf *body)
{
    bool has_schema = schema.kind != JSON_VIEW_NONE;
    if (thinking->effort == NULL && !has_schema)
        return;
    buf_add_str(body, ",\"output_config\":{");
    if (thinking->effort != NULL) {
        buf_add_str(body, "\"effort\":");
        buf_add_json(body, thinking->effort, strlen(thinking->effort));
    }
    if (has_schema) {
        buf_printf(body, "%s\"format\":{\"type\":\"json_schema\",\"schema\":",
                   thinking->effort != NULL ? "," : "");
        buf_add(body, schema.text, schema.len);
        buf_add_char(body, '}');
    }
    buf_add_char(body, '}');
}

static void add_body(const struct provider_call *call, struct json_view schema, struct buf *body)
{
    struct thinking thinking = thinking_of(call);
    buf_add_str(body, "{\"model\":");
    buf_add_json(body, call->model, strlen(call->model));
    buf_printf(body, ",\"max_tokens\":%lld", (long long)max_tokens(call));
    if (call_has_system(call))
        wire_member(body, "system", call->system, strlen(call->system));
    buf_add_str(body, ",\"messages\":[{\"role\":\"user\",\"content\":");
    add_content(call, body);
    buf_add_str(body, "}]");
    call_stop(call, "stop_sequences", body);
    /* A model that thinks takes no temperature but its own. */
    bool thinks = thinking.type != NULL && !call_thinks_not(call);
    if (call->temperature >= 0 && !thinks)
        wire_number(body, "temperature", call->temperature);
    add_thinking(&thinking, body);
    add_output_config(&thinking, schema, body);
    bool streams = call->stream || max_tokens(call) > MAX_UNSTREAMED_TOKENS;
    buf_printf(body, ",\"stream\":%s}", streams ? "true" : "false");
}

static int build_chat(const struct provider *provider, const struct provider_call *call,
                      struct provider_request *ret, struct err *err)
{
    struct json_view schema;
    if (call->temperature > MAX_TEMPERATURE)
        return err_set(err, -EINVAL, "temperature %g is above 1, the most that Anthropic takes",
                       call->temperature);
    int rc = wire_schema(call, &schema, err);
    if (rc == 0)
        rc = wire_url(provider, call, "/v1", "/messages", ret, err);
    if (rc < 0)
        return rc;
    wire_json_body(call, ret);
    add_body(call, schema, &ret->body);
    return 0;
}

static int build(const struct provider *provider, const struct provider_call *call,
                 struct provider_request *ret, struct err *err)
{
    int rc;
    if (call->kind == PROVIDER_EMBED)
        return err_set(err, -EINVAL, "Anthropic has no embeddings");
    if (call->kind == PROVIDER_LIST)
        rc = wire_url(provider, call, "/v1", "/models?limit=1000", ret, err);
    else
        rc = build_chat(provider, call, ret, err);
    if (rc < 0)
        return rc;
    buf_add_str(&ret->headers, VERSION_HEADER);
    if ((rc = call_headers(call, ret, err)) < 0 ||
        (rc = wire_key(provider, call, "x-api-key", "", ret, err)) < 0)
        return rc;
    return wire_finish(ret, err);
}

/* --- the answer --------------------------------------------------------------------------------
 */

static const struct wire_stop stops[] = {
    {"end_turn", FINISH_DONE, CLASS_NONE},
    {"stop_sequence", FINISH_DONE, CLASS_NONE},
    {"max_tokens", FINISH_LENGTH, CLASS_NONE},
    {"model_context_window_exceeded", FINISH_LENGTH, CLASS_NONE},
    {"tool_use", FINISH_TOOLS, CLASS_NONE},
    {"refusal", FINISH_FILTERED, CLASS_NONE},
    {"pause_turn", FINISH_OTHER, CLASS_BAD_RESPONSE}, /* half a turn; only with server tools */
    {NULL, FINISH_NONE, CLASS_NONE},
};

/* The three parts of the prompt are disjoint. Each usage object overwrites the parts it names: the
 * stream's are cumulative. */
enum { INPUT, CACHE_CREATION, CACHE_READ, PARTS };

static void read_usage(struct provider_reply *reply, struct json_view usage)
{
    static const struct json_view_name names[] = {
        JSON_VIEW_NAME("input_tokens"),
        JSON_VIEW_NAME("cache_creation_input_tokens"),
        JSON_VIEW_NAME("cache_read_input_tokens"),
        JSON_VIEW_NAME("output_tokens"),
        JSON_VIEW_NAME("output_tokens_details"),
    };
    struct json_view found[5];
    if (usage.kind != JSON_VIEW_OBJECT)
        return;
    json_view_members(usage, names, 5, found);
    bool known = false;
    for (int i = 0; i < PARTS; i++) {
        wire_count(found[i], &reply->scratch[i]);
        known |= found[i].kind == JSON_VIEW_NUMBER;
    }
    if (known) {
        reply->prompt_tokens =
            reply->scratch[INPUT] + reply->scratch[CACHE_CREATION] + reply->scratch[CACHE_READ];
        reply->cached_tokens = reply->scratch[CACHE_READ];
        reply->cache_write_tokens = reply->scratch[CACHE_CREATION];
    }
    wire_count(found[3], &reply->output_tokens);
    wire_count(json_view_member(found[4], "thinking_tokens"), &reply->reasoning_tokens);
}

/* A refusal explains itself here, and may come without any text. */
static void read_stop(struct provider_reply *reply, struct json_view holder)
{
    static const struct json_view_name names[] = {
        JSON_VIEW_NAME("stop_reason"),
        JSON_VIEW_NAME("stop_details"),
    };
    struct json_view found[2];
    json_view_members(holder, names, 2, found);
    wire_stop(reply, stops, found[0]);
    if (reply->finish != FINISH_FILTERED)
        return;
    char category[64] = "", explanation[256] = "";
    json_view_copy(json_view_member(found[1], "category"), category, sizeof category);
    json_view_copy(json_view_member(found[1], "explanation"), explanation, sizeof explanation);
    if (category[0] != '\0' || explanation[0] != '\0')
        provider_reply_fail(reply, CLASS_REFUSED, "the model refused (%s) %s", category,
                            explanation);
}

/* A block of a whole answer, the beginning of one in a stream, or a delta: what it is tells its
 * members. Other kinds (tools, signatures, citations) carry nothing that is asked for here. */
static void read_block(struct provider_reply *reply, struct json_view block)
{
    static const struct json_view_name names[] = {
        JSON_VIEW_NAME("type"),
        JSON_VIEW_NAME("text"),
        JSON_VIEW_NAME("thinking"),
    };
    struct json_view found[3];
    json_view_members(block, names, 3, found);
    if (json_view_equals(found[0], "text_delta") || json_view_equals(found[0], "text"))
        json_view_text(found[1], &reply->text);
    else if (json_view_equals(found[0], "thinking_delta") || json_view_equals(found[0], "thinking"))
        json_view_text(found[2], &reply->reasoning);
}

/* A message: the whole answer, or what message_start holds. */
static void read_message(struct provider_reply *reply, struct json_view message)
{
    static const struct json_view_name names[] = {
        JSON_VIEW_NAME("id"),
        JSON_VIEW_NAME("model"),
        JSON_VIEW_NAME("content"),
        JSON_VIEW_NAME("usage"),
    };
    struct json_view found[4], block;
    json_view_members(message, names, 4, found);
    wire_name(found[0], reply->request_id, sizeof reply->request_id);
    wire_name(found[1], reply->model, sizeof reply->model);
    read_usage(reply, found[3]);
    while (json_view_next(&found[2], NULL, &block))
        read_block(reply, block);
    read_stop(reply, message);
}

/* The members of an event, found in one walk: `delta` is that of two kinds. */
enum { TYPE, DELTA, BLOCK, MESSAGE, USAGE, ERROR, FOUND };

static void on_message_start(struct provider_reply *reply, const struct json_view *found)
{
    read_message(reply, found[MESSAGE]);
}

static void on_block_start(struct provider_reply *reply, const struct json_view *found)
{
    read_block(reply, found[BLOCK]);
}

static void on_block_delta(struct provider_reply *reply, const struct json_view *found)
{
    read_block(reply, found[DELTA]);
}

static void on_message_delta(struct provider_reply *reply, const struct json_view *found)
{
    read_usage(reply, found[USAGE]);
    read_stop(reply, found[DELTA]);
}

static void on_message_stop(struct provider_reply *reply, const struct json_view *found)
{
    (void)found;
    wire_conclude(reply);
}

/* Events that are not here, such as ping, say nothing. */
static const struct {
    const char *type;
    void (*handle)(struct provider_reply *reply, const struct json_view *found);
} events[] = {
    {"content_block_delta", on_block_delta}, {"content_block_start", on_block_start},
    {"message_start", on_message_start},     {"message_delta", on_message_delta},
    {"message_stop", on_message_stop},
};

static void document(struct provider_reply *reply, struct json_view view, enum error_class unknown)
{
    static const struct json_view_name names[] = {
        [TYPE] = JSON_VIEW_NAME("type"),
        [DELTA] = JSON_VIEW_NAME("delta"),
        [BLOCK] = JSON_VIEW_NAME("content_block"),
        [MESSAGE] = JSON_VIEW_NAME("message"),
        [USAGE] = JSON_VIEW_NAME("usage"),
        [ERROR] = JSON_VIEW_NAME("error"),
    };
    struct json_view found[FOUND];
    json_view_members(view, names, FOUND, found);
    if (json_view_equals(found[TYPE], "error")) {
        failure_inside(reply, view, unknown);
        return;
    }
    if (wire_error(reply, view, found[ERROR], unknown))
        return;
    for (size_t i = 0; i < sizeof events / sizeof *events; i++)
        if (json_view_equals(found[TYPE], events[i].type)) {
            events[i].handle(reply, found);
            return;
        }
    if (json_view_equals(found[TYPE], "message")) /* the whole answer */
        read_message(reply, view);
}

static void event(const struct provider *provider, struct provider_reply *reply, const char *data,
                  size_t len)
{
    (void)provider;
    if (reply->finished || wire_is_done(data, len)) /* proxies add it; it proves nothing */
        return;
    wire_event(reply, data, len, document);
}

static void body(const struct provider *provider, struct provider_reply *reply, const char *data,
                 size_t len)
{
    if (reply->kind == PROVIDER_LIST)
        names_read(reply, data, len, "data", "id", "");
    else
        wire_body(provider, reply, data, len, document);
}

const struct provider provider_anthropic = {
    .abi = PROVIDER_ABI,
    .api = "anthropic",
    .title = "Anthropic",
    .base_url = "https://api.anthropic.com",
    .key_env = "ANTHROPIC_API_KEY",
    .needs_key = true,
    .framing = PROVIDER_SSE,
    .kinds = PROVIDER_KIND(PROVIDER_CHAT) | PROVIDER_KIND(PROVIDER_LIST),
    .build = build,
    .event = event,
    .body = body,
    .failure = failure_http,
    .end = wire_end,
};
