/* A provider that dies of what it is asked: "#kill-in-request" kills the worker while the request
 * is built, "#kill-in-answer" when the answer that repeats it comes. Else it is a plain client of
 * the simulator, as Ollama's API has it. */
#include <signal.h>
#include <string.h>

#include <orchestrator/provider.h>

static void die_of(const char *data, size_t len, const char *word)
{
    if (data != NULL && memmem(data, len, word, strlen(word)) != NULL)
        raise(SIGKILL);
}

static int build(const struct provider *provider, const struct provider_call *call,
                 struct provider_request *ret, struct err *err)
{
    die_of(call->prompt, call->prompt_len, "#kill-in-request");
    int rc = wire_url(provider, call, "/api", "/chat", ret, err);
    if (rc == 0)
        rc = call_headers(call, ret, err);
    if (rc != 0)
        return rc;
    wire_json_body(call, ret);
    buf_add_str(&ret->body, "{\"messages\":[{\"role\":\"user\",\"content\":");
    call_prompt(call, &ret->body);
    buf_printf(&ret->body, "}],\"stream\":%s,\"model\":", call->stream ? "true" : "false");
    buf_add_json(&ret->body, call->model, strlen(call->model));
    buf_add_char(&ret->body, '}');
    return wire_finish(ret, err);
}

static void take(struct provider_reply *reply, struct json_view document, enum error_class unknown)
{
    static const struct json_view_name names[] = {
        JSON_VIEW_NAME("error"),
        JSON_VIEW_NAME("message"),
        JSON_VIEW_NAME("done"),
    };
    static const struct json_view_name inner[] = {JSON_VIEW_NAME("content")};
    struct json_view members[3], content[1];
    json_view_members(document, names, 3, members);
    if (wire_error(reply, document, members[0], unknown))
        return;
    json_view_members(members[1], inner, 1, content);
    json_view_text(content[0], &reply->text);
    die_of(reply->text.data, reply->text.len, "#kill-in-answer");
    if (members[2].kind == JSON_VIEW_TRUE) {
        reply->finish = FINISH_DONE;
        wire_conclude(reply);
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

static const struct provider poison = {
    .abi = PROVIDER_ABI,
    .api = "poison",
    .title = "a provider that dies of what it is asked",
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

/* For the loader; nothing else may be seen. */
__attribute__((visibility("default"))) const struct provider *orchestrator_provider(uint32_t abi);

const struct provider *orchestrator_provider(uint32_t abi)
{
    return abi == PROVIDER_ABI ? &poison : NULL;
}
