#include "workers/ask.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/price.h"
#include "schemas/mem.h"

#define FRAME_TOKENS 256         /* what families add around the texts */
#define UNKNOWN_ANSWER (1 << 17) /* tokens of an answer that cannot be bounded */

static bool lists(char *const *list, size_t n, const char *word)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(list[i], word) == 0)
            return true;
    return false;
}

static bool refuses(const struct config_model *model, const char *parameter)
{
    return lists(model->refuses, model->n_refuses, parameter);
}

/* A model of which nothing is known is tried. */
static bool can(const struct config_model *model, const char *capability)
{
    return model->n_capabilities == 0 ||
           lists(model->capabilities, model->n_capabilities, capability);
}

/* The smaller of two limits of which 0 is none. */
static int64_t tighter(int64_t a, int64_t b)
{
    if (a <= 0 || b <= 0)
        return a > b ? a : b;
    return a < b ? a : b;
}

const struct msg_work *ask_work(const struct ask *ask)
{
    return &ask->brief.message.work;
}

/* --- what is asked ---------------------------------------------------------------------------- */

static enum provider_kind kind_of(const char *kind)
{
    if (strcmp(kind, "embed") == 0)
        return PROVIDER_EMBED;
    return strcmp(kind, "list") == 0 ? PROVIDER_LIST : PROVIDER_CHAT;
}

static bool provider_has(const struct provider *provider, enum provider_kind kind)
{
    unsigned kinds = provider->kinds != 0 ? provider->kinds : PROVIDER_KIND(PROVIDER_CHAT);
    return (kinds & PROVIDER_KIND(kind)) != 0;
}

static int check_kind(const struct ask *ask, enum provider_kind kind, struct err *err)
{
    static const char *const words[PROVIDER_KIND_COUNT] = {
        [PROVIDER_CHAT] = "answers to prompts",
        [PROVIDER_EMBED] = "embeddings",
        [PROVIDER_LIST] = "a list of its models",
    };
    const struct ask_options *options = &ask->options;
    struct buf others = {0};
    size_t n;
    const struct provider *const *table = provider_table(&n);
    if (kind == PROVIDER_EMBED && !can(options->model, "embeddings"))
        return err_set(err, -EINVAL,
                       "the model %s makes no embeddings: give the subtask a model whose "
                       "capabilities have embeddings",
                       options->model->alias);
    if (provider_has(options->provider, kind))
        return 0;
    for (size_t i = 0; i < n; i++)
        if (provider_has(table[i], kind))
            buf_printf(&others, "%s%s", others.len > 0 ? ", " : "", table[i]->api);
    err_set(err, -EINVAL,
            "provider %s (api: %s) has no %s: give the subtask a model of a provider with one of "
            "these apis: %s",
            options->settings->name, options->provider->api, words[kind],
            others.len > 0 ? others.data : "none of this version");
    buf_release(&others);
    return -EINVAL;
}

/* A JSON array out of the record; *ret stays NULL for an empty text. */
static int parse_list(json_t **ret, struct bytes text, const char *what, struct err *err)
{
    struct err why = {0};
    if (text.len == 0)
        return 0;
    *ret = json_parse(text.data, text.len, &why);
    if (json_is_array(*ret) && json_array_size(*ret) > 0)
        return 0;
    return err_set(err, -EINVAL, "the subtask's %s are no JSON array with something in it%s%s",
                   what, why.text[0] != '\0' ? ": " : "", why.text);
}

static int take_images(struct ask *ask, struct err *err)
{
    int rc = parse_list(&ask->images, ask_work(ask)->images, "images", err);
    if (rc != 0 || ask->images == NULL)
        return rc;
    if (!can(ask->options.model, "images"))
        return err_set(err, -EINVAL,
                       "the model %s reads no images: give the subtask a model whose capabilities "
                       "have images",
                       ask->options.model->alias);
    size_t n = json_array_size(ask->images);
    ask->image_list = mem_must_zalloc(n * sizeof *ask->image_list);
    for (size_t i = 0; i < n; i++) {
        const json_t *image = json_array_get(ask->images, i);
        ask->image_list[i] = (struct provider_image){
            .url = json_str(image, "url", ""),
            .media_type = json_str(image, "media_type", ""),
            .data = json_str(image, "data", ""),
        };
        if (ask->image_list[i].url[0] == '\0' && ask->image_list[i].data[0] == '\0')
            return err_set(err, -EINVAL, "image %zu of the subtask has neither url nor data", i);
    }
    ask->call.images = ask->image_list;
    ask->call.n_images = n;
    return 0;
}

static int take_inputs(struct ask *ask, struct err *err)
{
    int rc = parse_list(&ask->inputs, ask_work(ask)->inputs, "inputs", err);
    if (rc != 0)
        return rc;
    size_t n = ask->inputs != NULL ? json_array_size(ask->inputs) : 1;
    ask->input_list = mem_must_zalloc(n * sizeof *ask->input_list);
    ask->input_list[0] = ask->call.prompt;
    for (size_t i = 0; ask->inputs != NULL && i < n; i++) {
        const json_t *text = json_array_get(ask->inputs, i);
        ask->input_list[i] = json_string_value(text);
        if (ask->input_list[i] == NULL || strlen(ask->input_list[i]) != json_string_length(text))
            return err_set(err, -EINVAL, "input %zu of the subtask is no text, or has a NUL in it",
                           i);
    }
    ask->call.inputs = ask->input_list;
    ask->call.n_inputs = n;
    ask->call.dimensions = ask_work(ask)->dimensions;
    return 0;
}

/* Where the API has no place for the schema, or the model takes none. */
static void schema_into_prompt(struct ask *ask)
{
    struct buf *prompt = &ask->brief.prompt;
    buf_add_str(prompt, "\n\nAnswer with one JSON document alone, without any other text, that "
                        "follows this JSON schema:\n\n");
    buf_add_str(prompt, ask->call.json_schema);
    ask->call.json_schema = NULL;
    ask->call.prompt = prompt->data;
    ask->call.prompt_len = prompt->len;
}

static void leave_out(struct ask *ask)
{
    const struct config_model *model = ask->options.model;
    struct provider_call *call = &ask->call;
    if (refuses(model, "temperature"))
        call->temperature = -1;
    if (refuses(model, "seed"))
        call->has_seed = false;
    if (refuses(model, "stop"))
        call->n_stop = 0;
    if (refuses(model, "effort"))
        call->effort = "";
    if (refuses(model, "max_tokens"))
        call->max_tokens = 0;
    call->no_system = refuses(model, "system");
    call->no_stream_options = refuses(model, "stream_options");
    if (call->json_schema != NULL && (refuses(model, "json_schema") || !can(model, "json_schema")))
        schema_into_prompt(ask);
}

static void take_chat(struct ask *ask)
{
    const struct msg_work *work = ask_work(ask);
    const struct config_model *model = ask->options.model;
    struct provider_call *call = &ask->call;
    call->system = ask->brief.system.data != NULL ? ask->brief.system.data : "";
    call->json_schema = work->json_schema.len > 0 ? work->json_schema.data : NULL;
    call->temperature = work->temperature;
    call->max_tokens =
        work->max_tokens > 0 ? tighter(work->max_tokens, model->max_output) : model->max_output;
    call->stream = ask->options.settings->stream;
    call->has_seed = work->has_seed;
    call->seed = work->seed;
    call->stop = work->stop;
    call->n_stop = work->n_stop;
    call->effort = work->effort[0] != '\0' ? work->effort
                   : model->effort != NULL ? model->effort
                                           : "";
    call->responses = model->endpoint != NULL && strcmp(model->endpoint, "responses") == 0;
    leave_out(ask);
}

static void take_common(struct ask *ask, enum provider_kind kind)
{
    const struct ask_options *options = &ask->options;
    const struct config_provider *settings = options->settings;
    const struct buf *prompt = &ask->brief.prompt;
    ask->call = (struct provider_call){
        .kind = kind,
        .base_url = settings->base_url != NULL ? settings->base_url : options->provider->base_url,
        .model = options->model->name,
        .system = "",
        .prompt = prompt->data != NULL ? prompt->data : "",
        .prompt_len = prompt->len,
        .temperature = -1,
        .context = options->model->context,
        .effort = "",
        .keep_alive = options->model->keep_alive != NULL ? options->model->keep_alive : "",
        .headers = (const char *const *)settings->headers,
        .n_headers = settings->n_headers,
    };
}

int ask_read(struct ask *ret, const struct ask_options *options, const struct queue_claim *claim,
             struct err *err)
{
    *ret = (struct ask){.options = *options};
    int rc = brief_read(&ret->brief, claim, options->model->context);
    if (rc != 0)
        return rc == -ENOMEM ? rc : -EBADMSG;
    enum provider_kind kind = kind_of(ask_work(ret)->kind);
    take_common(ret, kind);
    rc = check_kind(ret, kind, err);
    if (rc == 0 && kind == PROVIDER_CHAT) {
        take_chat(ret);
        rc = take_images(ret, err);
    }
    if (rc == 0 && kind == PROVIDER_EMBED)
        rc = take_inputs(ret, err);
    return rc == 0 && ret->brief.prompt.failed ? -ENOMEM : rc;
}

void ask_release(struct ask *ask)
{
    brief_release(&ask->brief);
    json_decref(ask->images);
    json_decref(ask->inputs);
    free(ask->image_list);
    free(ask->input_list);
    *ask = (struct ask){0};
}

void ask_set_prompt(struct ask *ask, struct buf *prompt)
{
    buf_release(&ask->brief.prompt);
    ask->brief.prompt = *prompt;
    *prompt = (struct buf){0};
    ask->call.prompt = ask->brief.prompt.data != NULL ? ask->brief.prompt.data : "";
    ask->call.prompt_len = ask->brief.prompt.len;
}

/* --- what it can cost, and whether it must be made ---------------------------------------------
 */

void ask_bound_answer(struct ask *ask)
{
    const struct config_model *model = ask->options.model;
    bool unbound = ask_work(ask)->max_tokens <= 0 && !refuses(model, "max_tokens");
    if (ask->call.kind == PROVIDER_CHAT && unbound)
        ask->call.max_tokens = tighter(ASK_ANSWER_TOKENS, model->max_output);
}

static int64_t answer_tokens(const struct ask *ask)
{
    const struct config_model *model = ask->options.model;
    if (ask->call.kind != PROVIDER_CHAT)
        return 0;
    if (ask->call.max_tokens > 0)
        return ask->call.max_tokens;
    if (model->max_output > 0 || model->context > 0)
        return tighter(model->max_output, model->context);
    return UNKNOWN_ANSWER;
}

static int64_t text_bytes(const struct ask *ask)
{
    const struct provider_call *call = &ask->call;
    int64_t bytes = (int64_t)(call->prompt_len + strlen(call->system)) + ask->more_bytes;
    if (call->json_schema != NULL)
        bytes += (int64_t)strlen(call->json_schema);
    for (size_t i = 0; i < call->n_stop; i++)
        bytes += (int64_t)strlen(call->stop[i]);
    for (size_t i = 0; i < call->n_inputs; i++)
        bytes += (int64_t)strlen(call->inputs[i]);
    return bytes;
}

struct queue_spend ask_worst(const struct ask *ask, int64_t wall_ms)
{
    if (ask->call.kind == PROVIDER_LIST)
        return (struct queue_spend){0};
    int64_t prompt =
        text_bytes(ask) + FRAME_TOKENS + (int64_t)ask->call.n_images * ASK_IMAGE_TOKENS;
    int64_t answer = answer_tokens(ask);
    return (struct queue_spend){
        .nano_usd = price_worst_nano_usd(ask->options.model, wall_ms, prompt, answer),
        .tokens = prompt + answer,
    };
}

bool ask_cacheable(const struct ask *ask)
{
    const char *wish = ask_work(ask)->cache;
    if (ask->call.kind == PROVIDER_LIST || strcmp(wish, "off") == 0)
        return false;
    return strcmp(wish, "on") == 0 || ask->call.kind == PROVIDER_EMBED ||
           (ask->call.temperature >= 0 && ask->call.temperature <= 0);
}
