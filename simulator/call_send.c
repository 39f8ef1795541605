/* Puts a call's answer on the wire: streamed or whole, with the damage that its rule asks for. */
#include <string.h>

#include "common/clock.h"
#include "simulator/call_state.h"

/* A stream's bytes are produced in portions of about this size, so that a slow reader of an
 * immediate answer costs no memory. */
#define PORTION_BYTES 8192
#define PING_MS 30000

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
        struct sim_error error = sim_call_error(fault);
        call->request.family->stream_error(&call->answer, &error, out);
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
    sim_call_advance(call);
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
        if (call->stage == SIM_STAGE_PIECES)
            due_ms = sim_call_more(call) ? sim_call_due_ms(call) : call->next_ms;
        if (call->stage == SIM_STAGE_PIECES && strike(call, out, &end, ret_wait_ms)) {
            if (end != SIM_FILL_MORE || *ret_wait_ms < 0)
                return end;
            continue;
        }
        if (call->stage == SIM_STAGE_PIECES && !sim_call_more(call))
            return stream_close(call, out);
        if (must_wait(call, due_ms, out, ret_wait_ms))
            return SIM_FILL_MORE;
        if (call->stage == SIM_STAGE_PIECES)
            add_piece(call, out);
        else
            call->request.family->open(&call->answer, out);
        call->stage = SIM_STAGE_PIECES;
        call->last_ms = clock_ms_f();
    }
    return SIM_FILL_MORE;
}

void sim_call_send_stream(void *ctx, struct sim_exchange *exchange)
{
    (void)ctx;
    struct sim_call *call = sim_exchange_data(exchange);
    const struct sim_family *family = call->request.family;
    struct buf headers = {0};
    family->headers(&call->answer, &headers);
    sim_call_limit_headers(call, &headers);
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

void sim_call_send_whole(void *ctx, struct sim_exchange *exchange)
{
    (void)ctx;
    struct sim_call *call = sim_exchange_data(exchange);
    const struct sim_fault *fault = &call->rule->fault;
    struct buf headers = {0}, body = {0};
    call->status = 200;
    call->answer.finished = !fault->no_finish;
    call->request.family->headers(&call->answer, &headers);
    sim_call_limit_headers(call, &headers);
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
