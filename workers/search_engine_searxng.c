/* SearXNG, one's own meta search. Its JSON is switched off until its settings allow it. */
#include <errno.h>
#include <string.h>

#include "workers/json_view.h"
#include "workers/search_engine.h"

#define TITLE "SearXNG"

static void build(const struct search_ask *ask, struct provider_request *ret)
{
    search_engine_url(&ret->url, ask->base, "/search");
    buf_add_str(&ret->url, "?q=");
    search_encode(&ret->url, ask->query);
    buf_add_str(&ret->url, "&format=json&categories=general&pageno=1");
    buf_add_str(&ret->headers, "Accept: application/json\n");
}

static int refuse(int status, struct err *err)
{
    if (status == 403)
        return err_set(err, -EACCES,
                       TITLE " refuses to answer as JSON (HTTP 403): put `search: formats: [html, "
                             "json]` into its settings.yml and restart it");
    if (status == 429)
        return err_set(err, -EAGAIN,
                       TITLE " limits this machine (HTTP 429): switch its limiter off for it");
    return search_engine_status(TITLE, status, err);
}

/* "google (timeout), brave (too many requests)": [name, reason] each. */
static void add_engines(struct buf *out, struct json_view engines)
{
    struct json_view item, word;
    for (int i = 0; i < 5 && json_view_next(&engines, NULL, &item); i++) {
        buf_add_str(out, i > 0 ? ", " : "");
        if (json_view_text(item, out) || !json_view_next(&item, NULL, &word))
            continue;
        json_view_text(word, out);
        if (!json_view_next(&item, NULL, &word))
            continue;
        buf_add_str(out, " (");
        json_view_text(word, out);
        buf_add_char(out, ')');
    }
}

/* Nothing was found: by nobody, or because nobody was reached? */
static int judge_nothing(struct json_view unresponsive, struct err *err)
{
    struct buf names = {0};
    if (json_view_first(unresponsive).kind == JSON_VIEW_NONE)
        return 0;
    add_engines(&names, unresponsive);
    err_set(err, 0, TITLE " got no answer from its engines: %.400s",
            names.data != NULL ? names.data : "");
    buf_release(&names);
    return -EAGAIN;
}

static int parse(int status, const char *data, size_t len, struct search_hits *hits,
                 struct err *err)
{
    struct json_view document, item;
    if (status != 200)
        return refuse(status, err);
    if (!json_view_parse(&document, data, len))
        return err_set(err, -EBADMSG, TITLE " did not answer with JSON: is `engine_url` right?");
    struct json_view results = json_view_member(document, "results");
    if (results.kind != JSON_VIEW_ARRAY)
        return err_set(err, -EBADMSG, TITLE "'s answer has no `results`: is `engine_url` right?");
    while (json_view_next(&results, NULL, &item))
        search_hits_add_json(hits, item, "url", "title", "content");
    if (hits->failed)
        return err_set(err, -ENOMEM, "out of memory");
    return hits->n > 0 ? 0 : judge_nothing(json_view_member(document, "unresponsive_engines"), err);
}

const struct search_engine search_engine_searxng = {
    .name = "searxng",
    .title = TITLE,
    .build = build,
    .parse = parse,
};
