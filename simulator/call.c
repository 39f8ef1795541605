#include "simulator/call.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "schemas/mem.h"
#include "simulator/family.h"
#include "simulator/reply.h"

/* A stream's bytes are produced in portions of about this size, so that a slow reader of an
 * immediate answer costs no memory. */
#define PORTION_BYTES 8192
#define PING_MS 30000
/* What an immediate machine (rate 0) reports as its rate: real ones never report zero. */
#define IMMEDIATE_TPS 1e6

enum stage {
    STAGE_OPEN,
    STAGE_PIECES,
    STAGE_CLOSE,
};

struct sim_call {
    struct sim *sim;
    struct sim_scenario *scenario; /* keeps the rule alive */
    const struct sim_rule *rule;
    struct sim_request request;
    struct sim_answer answer;
    struct buf text;
    uint64_t random;
    enum stage stage;
    size_t at;         /* in text */
    size_t next_len;   /* of the piece at `at`; 0: not looked at yet */
    double start_ms;   /* clock when the request had come */
    double open_ms;    /* after the start: when the first bytes of a stream leave */
    double ready_ms;   /* after the start: load and prompt are done */
    double next_ms;    /* after the start: the piece at `at` is due */
    double stalled_ms; /* by which a stall has shifted everything */
    double last_ms;    /* clock when bytes were produced last */
    bool stalled;
    bool fault; /* what was sent is no right answer */
    int status;
};

/* --- the schedule -------------------------------------------------------------------------- */

static double rate_ms(double count, double tps)
{
    return tps > 0 ? count * 1000 / tps : 0;
}

static double reported_ms(double count, double tps)
{
    return count * 1000 / (tps > 0 ? tps : IMMEDIATE_TPS);
}

/* The time that the next token takes. */
static double token_ms(struct sim_call *call)
{
    const struct sim_timing *timing = &call->rule->timing;
    double ms = rate_ms(1, timing->decode_tps);
    if (timing->jitter > 0 && ms > 0)
        ms *= 1 + timing->jitter * (2 * sim_random_unit(&call->random) - 1);
    return ms;
}

/* Tokens that are due within one burst leave together, at its end. */
static double leaving_ms(const struct sim_call *call, double due_ms)
{
    double burst_ms = call->rule->timing.burst_ms;
    if (burst_ms <= 0)
        return due_ms;
    double after = due_ms - call->ready_ms;
    return call->ready_ms + ceil(after / burst_ms) * burst_ms;
}

static void schedule(struct sim_call *call)
{
    const struct sim_timing *timing = &call->rule->timing;
    double prompt = (double)call->request.prompt_tokens;
    call->answer.load_ms = timing->load_ms;
    call->answer.prompt_ms = reported_ms(prompt, timing->prefill_tps);
    call->ready_ms = timing->load_ms + rate_ms(prompt, timing->prefill_tps);
    call->open_ms = call->request.family->opens_early ? timing->load_ms : call->ready_ms;
    call->next_ms = call->ready_ms + token_ms(call);
}

/* Enters the piece that is due in the answer and schedules the one behind it. */
static void advance(struct sim_call *call)
{
    struct sim_answer *answer = &call->answer;
    answer->output_tokens++;
    answer->decode_ms = call->rule->timing.decode_tps > 0
                            ? call->next_ms - call->ready_ms
                            : reported_ms((double)answer->output_tokens, 0);
    answer->total_ms = answer->load_ms + answer->prompt_ms + answer->decode_ms;
    call->at += call->next_len;
    call->next_len = 0;
    call->next_ms += token_ms(call);
}

static bool more_text(struct sim_call *call)
{
    if (call->next_len == 0)
        call->next_len = sim_piece(call->text.data + call->at, call->text.len - call->at);
    return call->next_len > 0;
}

/* --- the answer's text --------------------------------------------------------------------- */

static void cut_to_limit(struct sim_call *call)
{
    int64_t limit = call->request.max_tokens;
    size_t at = 0, len;
    if (limit <= 0)
        return;
    for (int64_t n = 0; n < limit; n++, at += len)
        if ((len = sim_piece(call->text.data + at, call->text.len - at)) == 0)
            return;
    call->answer.length = at < call->text.len;
    call->text.len = at;
}

static void make_text(struct sim_call *call)
{
    const struct sim_rule *rule = call->rule;
    struct buf *out = &call->text;
    if (call->request.load_only)
        ;
    else if (rule->tokens > 0)
        sim_reply_filler(rule->tokens, out);
    else if (rule->reply == SIM_REPLY_TEXT)
        buf_add_str(out, rule->text);
    else if (rule->reply == SIM_REPLY_ECHO && call->request.prompt.len > 0)
        buf_add(out, call->request.prompt.data, call->request.prompt.len);
    else if (rule->reply == SIM_REPLY_BUILTIN)
        sim_reply_builtin(&call->request, out);
    buf_reserve(out, 1); /* data is not NULL from here on */
    cut_to_limit(call);
    call->answer.text = call->text.data;
    call->answer.text_len = call->text.len;
}

/* --- streams ------------------------------------------------------------------------------- */

/* Breaks the event that begins at `from`: half of it is lost, its end stays. */
static void break_event(struct buf *out, size_t from)
{
    char end[8];
    size_t tail = 0;
    while (tail < sizeof end - 1 && out->len - tail > from &&
           strchr("\r\n", out->data[out->len - tail - 1]) != NULL)
        tail++;
    memcpy(end, out->data + out->len - tail, tail);
    out->len = from + (out->len - tail - from) * 2 / 3;
    buf_add(out, end, tail);
}

static void stream_error(struct sim_call *call, struct buf *out)
{
    const struct sim_fault *fault = &call->rule->fault;
    struct sim_error error = {.kind = fault->kind, .retry_after_s = fault->retry_after_s};
    if (error.kind == SIM_KIND_NONE)
        error.kind = SIM_KIND_OVERLOADED;
    if (fault->message != NULL)
        snprintf(error.message, sizeof error.message, "%s", fault->message);
    call->request.family->stream_error(&call->answer, &error, out);
}

/* A fault that strikes before the next piece; false when none does. */
static bool strike(struct sim_call *call, struct buf *out, enum sim_fill *ret, double *ret_wait_ms)
{
    const struct sim_fault *fault = &call->rule->fault;
    int64_t n = call->answer.output_tokens;
    if (fault->truncate_after == n) {
        *ret = SIM_FILL_CUT;
        return true;
    }
    if (fault->error_after == n) {
        stream_error(call, out);
        *ret = SIM_FILL_END;
        return true;
    }
    if (fault->stall_after == n && (fault->stall_ms == 0 || !call->stalled)) {
        call->stalled = true;
        call->stalled_ms = (double)fault->stall_ms;
        *ret = SIM_FILL_MORE;
        *ret_wait_ms = fault->stall_ms > 0 ? 0 : -1;
        return true;
    }
    return false;
}

/* Waits until due_ms after the start, with a llama.cpp ping in between where one is due. */
static bool must_wait(struct sim_call *call, double due_ms, struct buf *out, double *ret_wait_ms)
{
    double now_ms = clock_ms_f();
    double wait_ms = call->start_ms + call->stalled_ms + due_ms - now_ms;
    if (wait_ms <= 0)
        return false;
    bool pings =
        call->request.family == &sim_family_openai && call->request.dialect == SIM_DIALECT_LLAMACPP;
    double every_ms = (double)call->rule->timing.ping_ms;
    if (every_ms <= 0)
        every_ms = call->request.ping_ms > 0 ? (double)call->request.ping_ms : PING_MS;
    if (pings && out->len == 0 && now_ms >= call->last_ms + every_ms) {
        buf_add_str(out, ":\n\n");
        call->last_ms = now_ms;
    }
    if (pings && call->last_ms + every_ms - now_ms < wait_ms)
        wait_ms = call->last_ms + every_ms - now_ms;
    *ret_wait_ms = wait_ms;
    return true;
}

static void add_piece(struct sim_call *call, struct buf *out)
{
    size_t from = out->len;
    const char *text = call->text.data + call->at;
    size_t len = call->next_len;
    bool broken = call->rule->fault.malformed_after == call->answer.output_tokens;
    advance(call);
    call->request.family->piece(&call->answer, text, len, out);
    if (broken && !out->failed)
        break_event(out, from);
}

static enum sim_fill stream_close(struct sim_call *call, struct buf *out)
{
    const struct sim_fault *fault = &call->rule->fault;
    if (fault->no_finish)
        return SIM_FILL_END;
    call->answer.finished = true;
    if (call->answer.total_ms <= 0)
        call->answer.total_ms = call->answer.load_ms + call->answer.prompt_ms;
    size_t from = out->len;
    call->request.family->close(&call->answer, out);
    if (fault->malformed_after >= call->answer.output_tokens && !out->failed)
        break_event(out, from); /* the answer was shorter than that */
    return SIM_FILL_END;
}

static enum sim_fill stream_fill(void *ctx, struct sim_exchange *exchange, struct buf *out,
                                 double *ret_wait_ms)
{
    (void)ctx;
    struct sim_call *call = sim_exchange_data(exchange);
    enum sim_fill end = SIM_FILL_MORE;
    if (call->rule->fault.empty)
        return SIM_FILL_END;
    while (out->len < PORTION_BYTES) {
        double due_ms = call->open_ms;
        if (call->stage == STAGE_PIECES)
            due_ms = more_text(call) ? leaving_ms(call, call->next_ms) : call->next_ms;
        if (call->stage == STAGE_PIECES && strike(call, out, &end, ret_wait_ms)) {
            if (end != SIM_FILL_MORE || *ret_wait_ms < 0)
                return end;
            continue;
        }
        if (call->stage == STAGE_PIECES && !more_text(call))
            return stream_close(call, out);
        if (must_wait(call, due_ms, out, ret_wait_ms))
            return SIM_FILL_MORE;
        if (call->stage == STAGE_PIECES)
            add_piece(call, out);
        else
            call->request.family->open(&call->answer, out);
        call->stage = STAGE_PIECES;
        call->last_ms = clock_ms_f();
    }
    return SIM_FILL_MORE;
}

static void start_stream(void *ctx, struct sim_exchange *exchange)
{
    (void)ctx;
    struct sim_call *call = sim_exchange_data(exchange);
    const struct sim_family *family = call->request.family;
    struct buf headers = {0};
    family->headers(&call->answer, &headers);
    call->status = 200;
    sim_exchange_drip(exchange, call->rule->fault.drip_bytes, call->rule->fault.drip_ms);
    sim_exchange_stream(exchange, 200,
                        call->request.array ? "application/json; charset=UTF-8"
                                            : family->stream_type,
                        &headers, stream_fill);
    buf_release(&headers);
}

/* --- whole answers ------------------------------------------------------------------------- */

/* The body lies in call->text once it is written; stall and cut come in its middle. */
static enum sim_fill whole_fill(void *ctx, struct sim_exchange *exchange, struct buf *out,
                                double *ret_wait_ms)
{
    (void)ctx;
    struct sim_call *call = sim_exchange_data(exchange);
    const struct sim_fault *fault = &call->rule->fault;
    bool stalls = fault->stall_after != SIM_NEVER, cuts = fault->truncate_after != SIM_NEVER;
    size_t half = call->text.len / 2;
    if (call->at == 0 && (stalls || cuts)) {
        buf_add(out, call->text.data, half);
        call->at = half;
        *ret_wait_ms = fault->stall_ms > 0 ? (double)fault->stall_ms : -1;
        return cuts ? SIM_FILL_CUT : SIM_FILL_MORE;
    }
    if (stalls && !call->stalled) {
        call->stalled = true;
        *ret_wait_ms = fault->stall_ms > 0 ? (double)fault->stall_ms : -1;
        return SIM_FILL_MORE;
    }
    buf_add(out, call->text.data + call->at, call->text.len - call->at);
    return SIM_FILL_END;
}

static void send_whole(void *ctx, struct sim_exchange *exchange)
{
    (void)ctx;
    struct sim_call *call = sim_exchange_data(exchange);
    const struct sim_fault *fault = &call->rule->fault;
    struct buf headers = {0}, body = {0};
    call->status = 200;
    call->answer.finished = !fault->no_finish;
    call->request.family->headers(&call->answer, &headers);
    if (!fault->empty)
        call->request.family->whole(&call->answer, &body);
    if (fault->malformed_after != SIM_NEVER)
        body.len /= 2;
    bool in_parts = fault->stall_after != SIM_NEVER || fault->truncate_after != SIM_NEVER ||
                    fault->drip_bytes > 0;
    if (in_parts) {
        buf_release(&call->text);
        call->text = body;
        call->at = 0;
        sim_exchange_drip(exchange, fault->drip_bytes, fault->drip_ms);
        sim_exchange_stream(exchange, 200, "application/json", &headers, whole_fill);
    } else {
        buf_reserve(&body, 1);
        sim_exchange_reply(exchange, 200, "application/json", &headers, &body);
    }
    buf_release(&headers);
}

/* --- refusals ------------------------------------------------------------------------------ */

int sim_call_refuse(struct sim_exchange *exchange, const struct sim_request *request,
                    const struct sim_error *error)
{
    struct sim_failure failure = {0};
    request->family->error(request, error, &failure);
    sim_exchange_reply(exchange, failure.status, failure.type, &failure.headers, &failure.body);
    buf_release(&failure.headers);
    return failure.status;
}

static void send_html(struct sim_exchange *exchange, int status)
{
    struct buf body = {0};
    buf_add_str(&body, "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n"
                       "<center><h1>502 Bad Gateway</h1></center>\r\n"
                       "<hr><center>nginx/1.24.0</center>\r\n</body>\r\n</html>\r\n");
    sim_exchange_reply(exchange, status, "text/html", NULL, &body);
}

static void send_fault(void *ctx, struct sim_exchange *exchange)
{
    (void)ctx;
    struct sim_call *call = sim_exchange_data(exchange);
    const struct sim_fault *fault = &call->rule->fault;
    call->fault = true;
    if (fault->close_before_headers) {
        sim_exchange_cut(exchange);
        return;
    }
    if (fault->html) {
        call->status = fault->status != 0 ? (int)fault->status : 502;
        send_html(exchange, call->status);
        return;
    }
    struct sim_error error = {
        .kind = fault->kind, .status = (int)fault->status, .retry_after_s = fault->retry_after_s};
    if (error.kind == SIM_KIND_NONE)
        error.kind = SIM_KIND_SERVER_ERROR;
    if (fault->message != NULL)
        snprintf(error.message, sizeof error.message, "%s", fault->message);
    call->status = sim_call_refuse(exchange, &call->request, &error);
}

/* --- the call ------------------------------------------------------------------------------ */

void sim_call_key(const struct sim_exchange *exchange, char *ret, size_t size)
{
    const char *key = sim_exchange_header(exchange, "x-api-key");
    if (key == NULL)
        key = sim_exchange_header(exchange, "x-goog-api-key");
    const char *bearer = sim_exchange_header(exchange, "Authorization");
    if (key == NULL && bearer != NULL)
        key = strncasecmp(bearer, "Bearer ", 7) == 0 ? bearer + 7 : bearer;
    if (key == NULL)
        key = sim_exchange_query(exchange, "key");
    snprintf(ret, size, "%s", key != NULL ? key : "");
}

static void choose_dialect(struct sim_call *call, bool chosen)
{
    enum sim_dialect mapped = sim_scenario_dialect(call->scenario, call->request.model);
    if (!chosen && mapped != SIM_DIALECT_COUNT)
        call->request.dialect = mapped;
    if (call->request.dialect == SIM_DIALECT_COUNT)
        call->request.dialect = SIM_DIALECT_OPENAI;
}

/* What a real server looks at before it asks its model. 0 or -1 with the error. */
static int admit(struct sim_call *call, struct sim_exchange *exchange, struct sim_error *ret)
{
    struct sim_request *request = &call->request;
    bool chosen = request->dialect != SIM_DIALECT_COUNT;
    int rc = 0;
    *ret = (struct sim_error){.retry_after_s = -1};
    if (sim_exchange_too_large(exchange))
        ret->kind = SIM_KIND_TOO_LARGE, rc = -1;
    else if (!sim_scenario_admits(call->scenario, request->key))
        ret->kind = SIM_KIND_AUTH, rc = -1;
    else
        rc = sim_request_load(request, sim_exchange_body(exchange), ret);
    choose_dialect(call, chosen);
    buf_release(sim_exchange_body(exchange));
    if (rc == 0)
        rc = sim_request_check(request, ret);
    if (rc == 0 && !sim_scenario_serves(call->scenario, request->model))
        ret->kind = SIM_KIND_NO_MODEL, rc = -1;
    return rc;
}

static void send_after(struct sim_exchange *exchange, double wait_ms, sim_exchange_fn *send)
{
    if (wait_ms > 0)
        sim_exchange_wait(exchange, wait_ms, send);
    else
        send(NULL, exchange);
}

static void answer(struct sim_call *call, struct sim_exchange *exchange)
{
    const struct sim_fault *fault = &call->rule->fault;
    double load_ms = call->rule->timing.load_ms;
    bool in_stream = fault->error_after != SIM_NEVER;
    call->fault = in_stream || fault->truncate_after != SIM_NEVER ||
                  fault->malformed_after != SIM_NEVER || fault->no_finish || fault->empty ||
                  fault->served_model != NULL;
    bool refused = fault->close_before_headers || fault->html ||
                   (in_stream ? !call->request.stream : fault->kind != SIM_KIND_NONE);
    if (refused) {
        sim_request_release(&call->request);
        send_after(exchange, load_ms, send_fault);
        return;
    }
    make_text(call);
    schedule(call);
    sim_request_release(&call->request); /* numbers and the model are all that is left of it */
    if (call->request.stream) {
        bool waits = call->request.family->waits_for_headers;
        send_after(exchange, waits ? call->ready_ms : load_ms, start_stream);
        return;
    }
    while (more_text(call))
        advance(call);
    call->answer.total_ms = call->answer.load_ms + call->answer.prompt_ms + call->answer.decode_ms;
    double decode_ms = call->rule->timing.decode_tps > 0 ? call->answer.decode_ms : 0;
    send_after(exchange, call->ready_ms + decode_ms, send_whole);
}

void sim_call_start(struct sim *sim, struct sim_exchange *exchange, struct sim_request *request)
{
    struct sim_call *call = mem_must_zalloc(sizeof *call);
    struct sim_error error;
    int index = -1;
    sim_exchange_set_data(exchange, call);
    call->sim = sim;
    call->scenario = sim_scenario_ref(sim->scenario);
    call->request = *request;
    *request = (struct sim_request){0};
    call->start_ms = call->last_ms = clock_ms_f();
    sim_call_key(exchange, call->request.key, sizeof call->request.key);
    int rc = admit(call, exchange, &error);
    if (rc == 0)
        call->rule = sim_scenario_match(call->scenario, &call->request, &sim->random, &index);
    const struct sim_fault *fault = rc == 0 ? &call->rule->fault : NULL;
    uint64_t seq = sim_journal_begin(sim->journal, &call->request,
                                     sim_exchange_header(exchange, "x-orch-task"),
                                     sim_exchange_header(exchange, "x-orch-subtask"), index);
    call->random = sim->random ^ (seq * 0x9e3779b97f4a7c15ull);
    call->answer = (struct sim_answer){
        .request = &call->request,
        .seq = seq,
        .created_s = clock_wall_ms() / 1000,
        .model = fault != NULL && fault->served_model != NULL ? fault->served_model
                                                              : call->request.model,
    };
    if (rc == 0) {
        answer(call, exchange);
        return;
    }
    call->fault = true;
    call->status = sim_call_refuse(exchange, &call->request, &error);
}

void sim_call_done(struct sim *sim, void *data, bool sent)
{
    struct sim_call *call = data;
    if (call == NULL)
        return;
    struct sim_ending ending = {
        .seq = call->answer.seq,
        .request = &call->request,
        .status = call->status,
        .outcome = call->fault ? SIM_OUTCOME_FAULT
                   : sent      ? SIM_OUTCOME_COMPLETED
                               : SIM_OUTCOME_CUT,
        .output_tokens = call->answer.output_tokens,
        .ms = clock_ms_f() - call->start_ms,
    };
    sim_journal_end(sim->journal, &ending);
    if (!sim->quiet)
        log_info("%s %s %s: %d, %lld tokens in %.0f ms%s", call->request.family->name,
                 call->request.model, call->request.stream ? "stream" : "whole", call->status,
                 (long long)call->answer.output_tokens, ending.ms,
                 ending.outcome == SIM_OUTCOME_CUT ? ", cut by the client" : "");
    sim_request_release(&call->request);
    sim_scenario_unref(&call->scenario);
    buf_release(&call->text);
    free(call);
}
