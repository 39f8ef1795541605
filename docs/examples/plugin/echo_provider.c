/* A provider from outside, whole: the wire format of an imaginary server that says everything
 * twice.
 *
 *     POST /v1/echo   {"model": "parrot", "prompt": "Hi", "stream": true}
 *
 *     {"text": "Hi "}
 *     {"text": "Hi"}
 *     {"done": true, "model": "parrot", "tokens_in": 1, "tokens_out": 2}
 *
 * and without "stream" one document: {"text": "Hi Hi", "done": true, ...}.
 *
 *     cc -shared -fPIC -I PREFIX/include -o echo_provider.so echo_provider.c
 *
 * Functions of the header are the worker's own: nothing is linked. */
#include <string.h>

#include <orchestrator/provider.h>

/* --- the request ----------------------------------------------------------------------------
 */

static int build(const struct provider *provider, const struct provider_call *call,
                 struct provider_request *ret, struct err *err)
{
    int rc = wire_url(provider, call, "/v1", "/echo", ret, err);
    if (rc == 0)
        rc = call_headers(call, ret, err);
    if (rc == 0)
        rc = wire_key(provider, call, "Authorization", "Bearer ", ret, err);
    if (rc != 0)
        return rc;
    wire_json_body(call, ret);
    buf_add_str(&ret->body, "{\"prompt\":");
    call_prompt(call, &ret->body); /* the system prompt, too: this format has no place for it */
    buf_printf(&ret->body, ",\"stream\":%s,\"model\":", call->stream ? "true" : "false");
    buf_add_json(&ret->body, call->model, strlen(call->model));
    buf_add_char(&ret->body, '}');
    return wire_finish(ret, err); /* -ENOMEM when any of the above had no memory */
}

/* --- the answer -----------------------------------------------------------------------------
 */

/* A line of the stream, or the one document. The bytes are a stranger's: every member may be
 * missing, or be something else. */
static void take(struct provider_reply *reply, struct json_view document, enum error_class unknown)
{
    static const struct json_view_name names[] = {
        JSON_VIEW_NAME("error"),     JSON_VIEW_NAME("text"),       JSON_VIEW_NAME("model"),
        JSON_VIEW_NAME("tokens_in"), JSON_VIEW_NAME("tokens_out"), JSON_VIEW_NAME("done"),
    };
    enum { ERROR, TEXT, MODEL, TOKENS_IN, TOKENS_OUT, DONE, COUNT };
    struct json_view members[COUNT];
    json_view_members(document, names, COUNT, members);
    if (wire_error(reply, document, members[ERROR], unknown))
        return;
    json_view_text(members[TEXT], &reply->text);
    wire_name(members[MODEL], reply->model, sizeof reply->model);
    wire_count(members[TOKENS_IN], &reply->prompt_tokens);
    wire_count(members[TOKENS_OUT], &reply->output_tokens);
    if (members[DONE].kind == JSON_VIEW_TRUE) {
        reply->finish = FINISH_DONE;
        wire_conclude(reply); /* the proof of a complete answer: without it there is no success */
    }
}

static void event(const struct provider *provider, struct provider_reply *reply, const char *data,
                  size_t len)
{
    (void)provider;
    wire_event(reply, data, len, take);
}

static void body(const struct provider *provider, struct provider_reply *reply, const char *data,
                 size_t len)
{
    wire_body(provider, reply, data, len, take);
}

/* --- the provider ---------------------------------------------------------------------------
 */

static const struct provider echo = {
    .abi = PROVIDER_ABI,
    .api = "echo",
    .title = "a server that says everything twice",
    .base_url = "http://127.0.0.1:7777",
    .local = true,
    .framing = PROVIDER_NDJSON,
    .kinds = PROVIDER_KIND(PROVIDER_CHAT),
    .build = build,
    .event = event,
    .body = body,
    .failure = failure_http,
    .end = wire_end,
};

const struct provider *orchestrator_provider(uint32_t abi)
{
    return abi == PROVIDER_ABI ? &echo : NULL;
}
