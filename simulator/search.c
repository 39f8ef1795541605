#include "simulator/search.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "schemas/mem.h"
#include "simulator/call_state.h"

#define JSON "application/json"
#define HTML "text/html; charset=UTF-8"
#define RESULTS_MAX 20

struct result {
    char *title, *url, *snippet;
};

struct results {
    struct result items[RESULTS_MAX];
    size_t n;
    const char *query;
};

struct engine {
    const char *name; /* stands for the model in scenarios and in the journal */
    const char *method, *path, *type;
    void (*write)(const struct results *results, struct buf *out);
    /* Status and body of an error. */
    int (*refuse)(const struct sim_error *error, struct buf *out);
};

/* --- what is found ------------------------------------------------------------------------- */

static void add_result(struct results *results, char *title, char *url, char *snippet)
{
    if (results->n == RESULTS_MAX) {
        free(title);
        free(url);
        free(snippet);
        return;
    }
    results->items[results->n++] = (struct result){title, url, snippet};
}

static void release_results(struct results *results)
{
    for (size_t i = 0; i < results->n; i++) {
        free(results->items[i].title);
        free(results->items[i].url);
        free(results->items[i].snippet);
    }
    results->n = 0;
}

/* The next of the parts that | separates; the last one takes the rest. */
static char *take_part(const char **at, const char *end, bool last)
{
    const char *bar = last ? NULL : memchr(*at, '|', (size_t)(end - *at));
    const char *from = *at, *to = bar != NULL ? bar : end;
    *at = bar != NULL ? bar + 1 : end;
    while (from < to && *from == ' ')
        from++;
    while (to > from && to[-1] == ' ')
        to--;
    return mem_must_strndup(from, (size_t)(to - from));
}

/* The rule's text: a result a line, "title | URL | snippet". */
static void read_results(struct results *results, const char *text)
{
    while (*text != '\0') {
        const char *at = text, *end = text + strcspn(text, "\n");
        if (end > text) {
            char *title = take_part(&at, end, false), *url = take_part(&at, end, false);
            add_result(results, title, url, take_part(&at, end, true));
        }
        text = *end != '\0' ? end + 1 : end;
    }
}

static void make_results(struct results *results)
{
    for (int i = 1; i <= 3; i++)
        add_result(results, mem_must_printf("Page %d on %s (simulated)", i, results->query),
                   mem_must_printf("https://www%d.example/page?n=%d&lang=en", i, i),
                   mem_must_printf("What page %d says about \"%s\" & more.", i, results->query));
}

/* --- DuckDuckGo ---------------------------------------------------------------------------- */

static void add_escaped(struct buf *out, const char *text)
{
    for (; *text != '\0'; text++) {
        if (*text == '&')
            buf_add_str(out, "&amp;");
        else if (*text == '<')
            buf_add_str(out, "&lt;");
        else if (*text == '>')
            buf_add_str(out, "&gt;");
        else if (*text == '"')
            buf_add_str(out, "&quot;");
        else if (*text == '\'')
            buf_add_str(out, "&#x27;");
        else
            buf_add_char(out, *text);
    }
}

static void add_encoded(struct buf *out, const char *text)
{
    for (; *text != '\0'; text++)
        if (strchr(":/?&=%#+ ", *text) != NULL)
            buf_printf(out, "%%%02X", (unsigned char)*text);
        else
            buf_add_char(out, *text);
}

static void write_page_result(const struct result *result, bool wrapped, struct buf *out)
{
    buf_add_str(out, "<div class=\"result results_links results_links_deep web-result \">\n"
                     "<div class=\"links_main links_deep result__body\">\n"
                     "<h2 class=\"result__title\"><a rel=\"nofollow\" class=\"result__a\" href=\"");
    if (wrapped) {
        buf_add_str(out, "//duckduckgo.com/l/?uddg=");
        add_encoded(out, result->url);
        buf_add_str(out, "&amp;rut=51300000");
    } else {
        add_escaped(out, result->url);
    }
    buf_add_str(out, "\">");
    add_escaped(out, result->title);
    buf_add_str(out, "</a></h2>\n<a class=\"result__url\" href=\"");
    add_escaped(out, result->url);
    buf_add_str(out, "\">www.example</a>\n<a class=\"result__snippet\" href=\"");
    add_escaped(out, result->url);
    buf_add_str(out, "\"><b>");
    add_escaped(out, result->snippet);
    buf_add_str(out, "</b></a>\n</div>\n</div>\n");
}

static void write_page(const struct results *results, struct buf *out)
{
    buf_add_str(out, "<!DOCTYPE html>\n<html><head><title>");
    add_escaped(out, results->query);
    buf_add_str(out, " at DuckDuckGo</title></head>\n<body class=\"body--html\">\n"
                     "<form id=\"search_form_homepage\" action=\"/html/\" method=\"post\"></form>\n"
                     "<div class=\"serp__results\"><div id=\"links\" class=\"results\">\n");
    if (results->n == 0)
        buf_add_str(out, "<div class=\"no-results\">No results.</div>\n");
    else
        buf_add_str(out, "<div class=\"result results_links results_links_deep result--ad \">\n"
                         "<div class=\"links_main links_deep result__body\"><h2 class=\"result__"
                         "title\"><a class=\"result__a\" href=\"https://duckduckgo.com/y.js?"
                         "ad_domain=shop.example\">An ad (simulated)</a></h2></div></div>\n");
    for (size_t i = 0; i < results->n; i++)
        write_page_result(&results->items[i], i == 1, out);
    buf_add_str(out, "</div></div>\n</body></html>\n");
}

static int refuse_page(const struct sim_error *error, struct buf *out)
{
    if (error->kind == SIM_KIND_RATE_LIMIT || error->kind == SIM_KIND_QUOTA) {
        buf_add_str(out, "<!DOCTYPE html>\n<html><body><form id=\"challenge-form\" "
                         "action=\"//duckduckgo.com/anomaly.js\" method=\"POST\">\n"
                         "<div class=\"anomaly-modal__title\">Unfortunately, bots use DuckDuckGo "
                         "too.</div></form></body></html>\n");
        return 200;
    }
    buf_add_str(out, "<html><body>If this error persists, please let us know</body></html>\n");
    return error->kind == SIM_KIND_AUTH ? 403 : error->kind == SIM_KIND_OVERLOADED ? 503 : 500;
}

/* --- SearXNG ------------------------------------------------------------------------------- */

static void add_json(struct buf *out, const char *text)
{
    buf_add_json(out, text, strlen(text));
}

static void write_searxng(const struct results *results, struct buf *out)
{
    buf_add_str(out, "{\"query\":");
    add_json(out, results->query);
    buf_add_str(out, ",\"results\":[");
    for (size_t i = 0; i < results->n; i++) {
        buf_add_str(out, i > 0 ? ",{\"url\":" : "{\"url\":");
        add_json(out, results->items[i].url);
        buf_add_str(out, ",\"title\":");
        add_json(out, results->items[i].title);
        buf_add_str(out, ",\"content\":");
        add_json(out, results->items[i].snippet);
        buf_printf(out,
                   ",\"engine\":\"simulated\",\"engines\":[\"simulated\"],\"score\":%g,"
                   "\"category\":\"general\",\"positions\":[%zu],\"template\":\"default.html\","
                   "\"publishedDate\":null}",
                   1.0 / (double)(i + 1), i + 1);
    }
    buf_add_str(out, "],\"answers\":[],\"corrections\":[],\"infoboxes\":[],\"suggestions\":[],"
                     "\"unresponsive_engines\":[]}");
}

static int refuse_searxng(const struct sim_error *error, struct buf *out)
{
    if (error->kind == SIM_KIND_OVERLOADED || error->kind == SIM_KIND_QUOTA) {
        buf_add_str(out,
                    "{\"query\":\"\",\"results\":[],\"answers\":[],\"corrections\":[],"
                    "\"infoboxes\":[],\"suggestions\":[],\"unresponsive_engines\":[[\"google\","
                    "\"timeout\"],[\"duckduckgo\",\"CAPTCHA\"]]}");
        return 200;
    }
    int status = error->kind == SIM_KIND_AUTH          ? 403
                 : error->kind == SIM_KIND_RATE_LIMIT  ? 429
                 : error->kind == SIM_KIND_BAD_REQUEST ? 400
                                                       : 500;
    buf_printf(out, "<!doctype html>\n<html lang=en>\n<title>%d</title>\n<h1>%d</h1>\n", status,
               status);
    return status;
}

/* --- Google -------------------------------------------------------------------------------- */

static void write_google(const struct results *results, struct buf *out)
{
    buf_printf(out,
               "{\"kind\":\"customsearch#search\",\"searchInformation\":{\"searchTime\":0.3,"
               "\"totalResults\":\"%zu\"}",
               results->n);
    for (size_t i = 0; i < results->n; i++) {
        buf_add_str(out, i > 0 ? ",{\"kind\":\"customsearch#result\",\"title\":"
                               : ",\"items\":[{\"kind\":\"customsearch#result\",\"title\":");
        add_json(out, results->items[i].title);
        buf_add_str(out, ",\"link\":");
        add_json(out, results->items[i].url);
        buf_add_str(out, ",\"displayLink\":\"www.example\",\"snippet\":");
        add_json(out, results->items[i].snippet);
        buf_add_str(out, ",\"pagemap\":{}}");
    }
    buf_add_str(out, results->n > 0 ? "]}" : "}");
}

static int refuse_google(const struct sim_error *error, struct buf *out)
{
    static const struct {
        enum sim_kind kind;
        int code;
        const char *status, *message;
    } rows[] = {
        {SIM_KIND_AUTH, 400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key."},
        {SIM_KIND_BAD_REQUEST, 400, "INVALID_ARGUMENT", "Request contains an invalid argument."},
        {SIM_KIND_RATE_LIMIT, 429, "RESOURCE_EXHAUSTED",
         "Quota exceeded for quota metric 'Queries' and limit 'Queries per minute per user'."},
        {SIM_KIND_QUOTA, 429, "RESOURCE_EXHAUSTED",
         "Quota exceeded for quota metric 'Queries' and limit 'Queries per day'."},
        {SIM_KIND_OVERLOADED, 503, "UNAVAILABLE", "The service is currently unavailable."},
        {SIM_KIND_NONE, 500, "INTERNAL", "Internal error encountered."},
    };
    size_t i = 0;
    while (rows[i].kind != SIM_KIND_NONE && rows[i].kind != error->kind)
        i++;
    buf_printf(out, "{\"error\":{\"code\":%d,\"message\":", rows[i].code);
    add_json(out, error->message[0] != '\0' ? error->message : rows[i].message);
    buf_printf(out, ",\"errors\":[],\"status\":\"%s\"}}", rows[i].status);
    return rows[i].code;
}

static const struct engine engines[] = {
    {"duckduckgo", "POST", "/html/", HTML, write_page, refuse_page},
    {"searxng", "GET", "/search", JSON, write_searxng, refuse_searxng},
    {"google", "GET", "/customsearch/v1", JSON, write_google, refuse_google},
};

static const struct engine *engine_of(const struct sim_call *call)
{
    const struct engine *engine = engines;
    while (strcmp(engine->name, call->request.model) != 0)
        engine++;
    return engine;
}

/* --- the request --------------------------------------------------------------------------- */

/* Appends the value of a parameter of a form, decoded. */
static void add_form_value(struct buf *out, const struct buf *form, const char *name)
{
    size_t len = strlen(name);
    const char *at = form->data != NULL ? form->data : "";
    while (strncmp(at, name, len) != 0 || at[len] != '=') {
        at = strchr(at, '&');
        if (at == NULL)
            return;
        at++;
    }
    for (at += len + 1; *at != '\0' && *at != '&'; at++) {
        unsigned code;
        char digits[3] = {at[0] == '%' ? at[1] : '\0',
                          at[0] == '%' && at[1] != '\0' ? at[2] : '\0'};
        if (digits[1] != '\0' && sscanf(digits, "%2x", &code) == 1) {
            buf_add_char(out, (char)code);
            at += 2;
        } else {
            buf_add_char(out, (char)(*at == '+' ? ' ' : *at));
        }
    }
}

static void read_query(struct sim_exchange *exchange, struct buf *out)
{
    const char *query = sim_exchange_query(exchange, "q");
    if (query != NULL)
        buf_add_str(out, query);
    else
        add_form_value(out, sim_exchange_body(exchange), "q");
    buf_reserve(out, 1);
}

/* What the real ones look at first. 0 or -1 with the error. */
static int admit(const struct sim_call *call, struct sim_exchange *exchange, struct sim_error *ret)
{
    const char *format = sim_exchange_query(exchange, "format");
    bool google = strcmp(call->request.model, "google") == 0;
    *ret = (struct sim_error){.kind = SIM_KIND_NONE, .retry_after_s = -1};
    if (call->request.prompt.len == 0 || (google && sim_exchange_query(exchange, "cx") == NULL))
        ret->kind = SIM_KIND_BAD_REQUEST;
    else if (google && (call->request.key[0] == '\0' ||
                        !sim_scenario_admits(call->scenario, call->request.key)))
        ret->kind = SIM_KIND_AUTH;
    else if (strcmp(call->request.model, "searxng") == 0 &&
             (format == NULL || strcmp(format, "json") != 0))
        ret->kind = SIM_KIND_BAD_REQUEST;
    return ret->kind == SIM_KIND_NONE ? 0 : -1;
}

/* --- the answer ---------------------------------------------------------------------------- */

static void send_error(struct sim_call *call, struct sim_exchange *exchange,
                       const struct sim_error *error)
{
    const struct engine *engine = engine_of(call);
    struct buf body = {0};
    call->fault = true;
    call->status = engine->refuse(error, &body);
    if (error->status != 0)
        call->status = error->status;
    bool json = body.data != NULL && body.data[0] == '{';
    sim_exchange_reply(exchange, call->status, json ? JSON : HTML, NULL, &body);
}

static void write_answer(struct sim_call *call)
{
    struct results results = {.query = call->request.prompt.data};
    if (call->rule->fault.empty)
        results.n = 0;
    else if (call->rule->reply == SIM_REPLY_TEXT && call->rule->text != NULL)
        read_results(&results, call->rule->text);
    else
        make_results(&results);
    engine_of(call)->write(&results, &call->text);
    release_results(&results);
}

/* Half of the answer, then the end of the connection, or silence. */
static enum sim_fill fill_half(void *ctx, struct sim_exchange *exchange, struct buf *out,
                               double *ret_wait_ms)
{
    (void)ctx;
    struct sim_call *call = sim_exchange_data(exchange);
    if (!call->stalled)
        buf_add(out, call->text.data, call->text.len / 2);
    call->stalled = true;
    *ret_wait_ms = -1;
    return call->rule->fault.stall_after != SIM_NEVER ? SIM_FILL_MORE : SIM_FILL_CUT;
}

static void send_found(struct sim_call *call, struct sim_exchange *exchange)
{
    const struct sim_fault *fault = &call->rule->fault;
    write_answer(call);
    call->status = 200;
    call->fault = fault->malformed_after != SIM_NEVER || fault->truncate_after != SIM_NEVER ||
                  fault->stall_after != SIM_NEVER;
    if (fault->malformed_after != SIM_NEVER)
        call->text.len /= 2;
    if (fault->truncate_after != SIM_NEVER || fault->stall_after != SIM_NEVER)
        sim_exchange_stream(exchange, 200, engine_of(call)->type, NULL, fill_half);
    else
        sim_exchange_reply(exchange, 200, engine_of(call)->type, NULL, &call->text);
}

static void send_html(struct sim_call *call, struct sim_exchange *exchange)
{
    struct buf body = {0};
    call->fault = true;
    call->status = call->rule->fault.status != 0 ? (int)call->rule->fault.status : 502;
    buf_add_str(&body, "<html><head><title>502 Bad Gateway</title></head></html>\n");
    sim_exchange_reply(exchange, call->status, HTML, NULL, &body);
}

static void answer(void *ctx, struct sim_exchange *exchange)
{
    (void)ctx;
    struct sim_call *call = sim_exchange_data(exchange);
    const struct sim_fault *fault = &call->rule->fault;
    if (fault->close_before_headers) {
        call->fault = true;
        sim_exchange_cut(exchange);
    } else if (fault->html) {
        send_html(call, exchange);
    } else if (fault->kind != SIM_KIND_NONE) {
        struct sim_error error = sim_call_error(fault);
        send_error(call, exchange, &error);
    } else {
        send_found(call, exchange);
    }
}

static void start(struct sim *sim, struct sim_exchange *exchange, const struct sim_request *request,
                  const struct engine *engine)
{
    struct sim_call *call = mem_must_zalloc(sizeof *call);
    struct sim_error error;
    int index = -1;
    sim_exchange_set_data(exchange, call);
    call->sim = sim;
    call->scenario = sim_scenario_ref(sim->scenario);
    call->request = *request;
    call->request.family = &sim_family_search;
    call->start_ms = clock_ms_f();
    snprintf(call->request.model, sizeof call->request.model, "%s", engine->name);
    sim_call_key(exchange, call->request.key, sizeof call->request.key);
    read_query(exchange, &call->request.prompt);
    int rc = admit(call, exchange, &error);
    if (rc == 0)
        call->rule = sim_scenario_match(call->scenario, &call->request, &sim->random, &index);
    call->answer.seq = sim_journal_begin(sim->journal, &call->request, NULL, NULL, index);
    if (rc != 0)
        send_error(call, exchange, &error);
    else if (call->rule->timing.load_ms > 0)
        sim_exchange_wait(exchange, call->rule->timing.load_ms, answer);
    else
        answer(NULL, exchange);
}

bool sim_search_answer(struct sim *sim, struct sim_exchange *exchange,
                       const struct sim_request *request)
{
    for (size_t i = 0; i < sizeof engines / sizeof *engines; i++)
        if (strcmp(request->path, engines[i].path) == 0 &&
            strcmp(request->method, engines[i].method) == 0) {
            start(sim, exchange, request, &engines[i]);
            return true;
        }
    return false;
}

/* Only its name counts: no model call is a search. */
const struct sim_family sim_family_search = {.name = "search", .only_named = true};
