#include "workers/record.h"

#include <string.h>

double record_cost_usd(const struct config_model *model, int64_t prompt_tokens,
                       int64_t cached_tokens, int64_t output_tokens)
{
    double prompt = prompt_tokens > 0 ? (double)prompt_tokens : 0;
    double cached = cached_tokens > 0 ? (double)cached_tokens : 0;
    double output = output_tokens > 0 ? (double)output_tokens : 0;
    if (cached > prompt)
        cached = prompt;
    double cached_price = model->price_cached > 0 ? model->price_cached : model->price_input;
    return ((prompt - cached) * model->price_input + cached * cached_price +
            output * model->price_output) /
           1e6;
}

void record_no_report(struct exchange_report *ret, struct provider_reply *reply)
{
    provider_reply_init(reply);
    *ret = (struct exchange_report){.reply = reply, .ttft_ms = -1, .generate_ms = -1};
}

void record_timing(struct msg_timing *ret, const struct record_facts *facts,
                   const struct exchange_report *report, const char *result,
                   enum error_class class_, const char *error)
{
    const struct provider_reply *reply = report->reply;
    const struct config_model *model = facts->arm->model;
    *ret = (struct msg_timing){
        .task = facts->task,
        .sub = facts->sub,
        .attempt = facts->attempt,
        .kind = facts->kind,
        .role = facts->role,
        .arm = facts->arm->name,
        .worker = facts->worker,
        .host = facts->host,
        .provider = facts->provider,
        .model = model->alias,
        .served_model = reply->model,
        .result = result,
        .finish = finish_name(reply->finish),
        .error_class = class_ == CLASS_NONE ? "" : error_class_name(class_),
        .error = error,
        .http_status = report->http_status,
        .started_ms = facts->started_ms,
        .queue_ms = facts->queue_ms,
        .claim_ms = facts->claim_ms,
        .connect_ms = report->connect_ms,
        .ttft_ms = report->ttft_ms,
        .load_ms = reply->load_ms,
        .prompt_ms = reply->prompt_ms,
        .generate_ms = report->generate_ms,
        .total_ms = facts->total_ms,
        .prompt_tokens = reply->prompt_tokens,
        .cached_tokens = reply->cached_tokens,
        .output_tokens = reply->output_tokens,
        .reasoning_tokens = reply->reasoning_tokens,
        .sent_bytes = report->sent_bytes,
        .received_bytes = report->received_bytes,
        .cost_usd = record_cost_usd(model, reply->prompt_tokens, reply->cached_tokens,
                                    reply->output_tokens),
        .model_mismatch = reply->model[0] != '\0' && !arms_model_matches(model->name, reply->model),
    };
}

int record_encode_timing(struct buf *out, const struct msg_timing *timing)
{
    return message_encode(&(struct message){.type = MESSAGE_timing, .timing = *timing}, out);
}

int record_encode_outcome(struct buf *out, const struct record_facts *facts,
                          const struct provider_reply *reply)
{
    buf_reserve(out, reply->text.len + reply->reasoning.len + 512); /* not to double it */
    struct message message = {
        .type = MESSAGE_outcome,
        .outcome = {
            .text = {reply->text.data != NULL ? reply->text.data : "", reply->text.len},
            .reasoning = {reply->reasoning.data != NULL ? reply->reasoning.data : "",
                          reply->reasoning.len},
            .finish = finish_name(reply->finish),
            .provider = facts->provider,
            .model = facts->arm->model->alias,
            .served_model = reply->model,
            .worker = facts->worker,
            .arm = facts->arm->name,
        }};
    return message_encode(&message, out);
}
