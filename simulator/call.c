#include "simulator/call.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "schemas/mem.h"
#include "simulator/call_state.h"

/* --- refusals ------------------------------------------------------------------------------ */

struct sim_error sim_call_error(const struct sim_fault *fault)
{
    struct sim_error error = {
        .kind = fault->kind, .status = (int)fault->status, .retry_after_s = fault->retry_after_s};
    if (error.kind == SIM_KIND_NONE)
        error.kind = SIM_KIND_OVERLOADED;
    error.scripted = fault->message != NULL;
    if (error.scripted)
        snprintf(error.message, sizeof error.message, "%s", fault->message);
    return error;
}

/* limits: those that count, whose headers go along; NULL: none. */
static int refuse(struct sim_exchange *exchange, const struct sim_request *request,
                  const struct sim_error *error, const struct sim_call *limits)
{
    struct sim_failure failure = {0};
    request->family->error(request, error, &failure);
    if (limits != NULL)
        sim_call_limit_headers(limits, &failure.headers);
    sim_exchange_reply(exchange, failure.status, failure.type, &failure.headers, &failure.body);
    buf_release(&failure.headers);
    return failure.status;
}

int sim_call_refuse(struct sim_exchange *exchange, const struct sim_request *request,
                    const struct sim_error *error)
{
    return refuse(exchange, request, error, NULL);
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
    struct sim_error error = sim_call_error(fault);
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

/* Whether the key may make the call now, by the scenario's limits. 0 or -1 with the error. */
static int permit(struct sim_call *call, struct sim_error *ret)
{
    struct sim_request *request = &call->request;
    call->permit =
        sim_limits_admit(call->sim->limits, sim_scenario_limit(call->scenario, request->key),
                         request->key, request->prompt_tokens);
    call->limited = !call->permit.admitted;
    if (call->limited)
        *ret = (struct sim_error){.kind = SIM_KIND_RATE_LIMIT,
                                  .retry_after_s = (double)call->permit.retry_ms / 1000,
                                  .limited = true};
    return call->limited ? -1 : 0;
}

void sim_call_limit_headers(const struct sim_call *call, struct buf *out)
{
    const struct sim_request *request = &call->request;
    if (request->family == &sim_family_anthropic)
        sim_limits_headers(&call->permit, SIM_LIMIT_ANTHROPIC, out);
    else if (request->dialect == SIM_DIALECT_OPENAI && request->family != &sim_family_gemini &&
             request->family != &sim_family_ollama)
        sim_limits_headers(&call->permit, SIM_LIMIT_OPENAI, out);
}

/* What the prompt cache has of it, in tokens. */
static void look_up_prefix(struct sim_call *call)
{
    struct sim_request *request = &call->request;
    size_t added, seen = sim_prefixes_seen(call->sim->prefixes, request->model, &request->system,
                                           &request->prompt, &added);
    request->cached_tokens = (int64_t)seen / 4;
    request->cache_write_tokens = (int64_t)added / 4;
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
                  fault->served_model != NULL || fault->finish != NULL;
    bool refused = fault->close_before_headers || fault->html ||
                   (in_stream ? !call->request.stream : fault->kind != SIM_KIND_NONE);
    if (refused) {
        sim_request_release(&call->request);
        send_after(exchange, load_ms, send_fault);
        return;
    }
    call->generates = true;
    if (!call->request.embed)
        look_up_prefix(call);
    sim_call_make_text(call);
    sim_call_schedule(call);
    sim_request_release(&call->request); /* numbers and the model are all that is left of it */
    if (call->request.stream) {
        bool waits = call->request.family->waits_for_headers;
        send_after(exchange, waits ? call->ready_ms : load_ms, sim_call_send_stream);
        return;
    }
    while (!call->request.embed && sim_call_more(call))
        sim_call_advance(call);
    call->answer.total_ms = call->answer.load_ms + call->answer.prompt_ms + call->answer.decode_ms;
    double decode_ms = call->rule->timing.decode_tps > 0 ? call->answer.decode_ms : 0;
    send_after(exchange, call->ready_ms + decode_ms, sim_call_send_whole);
}

/* The one asked for, unless the rule names another. */
static const char *served_model(const struct sim_call *call)
{
    const struct sim_rule *rule = call->rule;
    if (rule != NULL && rule->fault.served_model != NULL)
        return rule->fault.served_model;
    return rule != NULL && rule->served != NULL ? rule->served : call->request.model;
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
        rc = permit(call, &error);
    if (rc == 0)
        call->rule = sim_scenario_match(call->scenario, &call->request, &sim->random, &index);
    uint64_t seq = sim_journal_begin(sim->journal, &call->request,
                                     sim_exchange_header(exchange, "x-orch-task"),
                                     sim_exchange_header(exchange, "x-orch-subtask"), index);
    call->random = sim->random ^ (seq * 0x9e3779b97f4a7c15ull);
    call->answer = (struct sim_answer){
        .request = &call->request,
        .seq = seq,
        .created_s = clock_wall_ms() / 1000,
        .model = served_model(call),
        .thoughts = "",
        .limited = sim_limits_told(&call->permit),
    };
    if (rc == 0) {
        answer(call, exchange);
        return;
    }
    call->fault = true;
    call->status = refuse(exchange, &call->request, &error, call);
}

/* The share of the answer that was made before the client left, when it got nothing of it. */
static int64_t made_tokens(const struct sim_call *call)
{
    double after_ms = clock_ms_f() - call->start_ms - call->ready_ms;
    double decode_ms = call->rule->timing.decode_tps > 0 ? call->answer.decode_ms : 0;
    if (call->request.stream || call->status == 200 || after_ms >= decode_ms)
        return call->answer.output_tokens;
    return after_ms > 0 ? (int64_t)((double)call->answer.output_tokens * after_ms / decode_ms) : 0;
}

/* What a provider would bill: everything that was made, whether it arrived or not. */
static void bill(const struct sim_call *call, struct sim_ending *ending)
{
    if (!call->generates)
        return;
    bool opened = call->status == 200;
    ending->billed_prompt_tokens = call->request.prompt_tokens;
    ending->billed_output_tokens = made_tokens(call) + (opened ? call->answer.thought_tokens : 0);
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
        .outcome = call->limited ? SIM_OUTCOME_LIMITED
                   : call->fault ? SIM_OUTCOME_FAULT
                   : sent        ? SIM_OUTCOME_COMPLETED
                                 : SIM_OUTCOME_CUT,
        .output_tokens = call->answer.output_tokens,
        .ms = clock_ms_f() - call->start_ms,
    };
    bill(call, &ending);
    sim_limits_end(&call->permit, ending.billed_output_tokens);
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
