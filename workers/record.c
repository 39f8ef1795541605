#include "workers/record.h"

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
        .cache_write_tokens = reply->cache_write_tokens,
        .cost_usd = (double)facts->cost_nano_usd / 1e9,
        .cost_known = model->n_prices > 0,
        .reserved_usd = (double)facts->reserved_nano_usd / 1e9,
        .limit_ms = facts->limit_ms,
        .search_ms = facts->search_ms,
        .key = facts->key,
        .cached = facts->cached,
        .hedge = facts->hedge,
        .model_mismatch = reply->model[0] != '\0' && !arms_serves(model, reply->model),
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
            .citations = {facts->citations.len > 0 ? facts->citations.data : "",
                          facts->citations.len},
            .note = facts->note,
        }};
    return message_encode(&message, out);
}
