/* What a call says, and when each token of it is due. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "simulator/call_state.h"
#include "simulator/reply.h"
#include "simulator/vectors.h"

/* What an immediate machine (rate 0) reports as its rate: real ones never report zero. */
#define IMMEDIATE_TPS 1e6

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
double sim_call_due_ms(const struct sim_call *call)
{
    double burst_ms = call->rule->timing.burst_ms;
    if (burst_ms <= 0)
        return call->next_ms;
    double after = call->next_ms - call->ready_ms;
    return call->ready_ms + ceil(after / burst_ms) * burst_ms;
}

void sim_call_schedule(struct sim_call *call)
{
    const struct sim_timing *timing = &call->rule->timing;
    double prompt = (double)call->request.prompt_tokens;
    call->answer.load_ms = timing->load_ms;
    call->answer.prompt_ms = reported_ms(prompt, timing->prefill_tps);
    call->ready_ms = timing->load_ms + rate_ms(prompt, timing->prefill_tps);
    call->open_ms = call->request.family->opens_early ? timing->load_ms : call->ready_ms;
    call->next_ms = call->ready_ms + token_ms(call);
}

void sim_call_advance(struct sim_call *call)
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

bool sim_call_more(struct sim_call *call)
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
    if (call->answer.length)
        call->answer.stop[0] = '\0'; /* it was not reached */
    call->text.len = at;
}

/* Cuts the text where the first of the strings begins that end it. */
static void cut_at(struct sim_call *call, const json_t *stop)
{
    const char *text = json_string_value(stop);
    size_t len = json_string_length(stop);
    if (len == 0 || call->text.len == 0)
        return;
    const char *found = memmem(call->text.data, call->text.len, text, len);
    if (found == NULL)
        return;
    call->text.len = (size_t)(found - call->text.data);
    snprintf(call->answer.stop, sizeof call->answer.stop, "%s", text);
}

static void cut_at_stop(struct sim_call *call)
{
    const json_t *stop = call->request.stop;
    size_t i;
    json_t *one;
    if (json_is_array(stop))
        json_array_foreach (stop, i, one)
            cut_at(call, json_is_string(one) ? one : NULL);
    else if (json_is_string(stop))
        cut_at(call, stop);
}

static void add_thoughts(struct sim_call *call)
{
    static const char thoughts[] = "(simulated) What is asked is clear. An answer comes to mind.";
    call->answer.thoughts = call->request.thinks ? thoughts : "";
    for (size_t at = 0, len; call->request.thinks; at += len) {
        if ((len = sim_piece(thoughts + at, sizeof thoughts - 1 - at)) == 0)
            break;
        call->answer.thought_tokens++;
    }
}

void sim_call_make_text(struct sim_call *call)
{
    const struct sim_rule *rule = call->rule;
    struct buf *out = &call->text;
    add_thoughts(call);
    call->answer.finish = rule->fault.finish;
    if (call->request.embed)
        sim_vectors_add(call->request.inputs, call->request.dimensions, out);
    else if (call->request.load_only)
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
    if (!call->request.embed) {
        cut_at_stop(call);
        cut_to_limit(call);
    }
    call->answer.text = call->text.data;
    call->answer.text_len = call->text.len;
}
