/* Google's Custom Search JSON API. Closed to new customers; it ends on 2027-01-01. */
#include <errno.h>
#include <string.h>

#include "workers/json_view.h"
#include "workers/search_engine.h"

#define TITLE "Google Custom Search"
#define MAX_RESULTS 10 /* of one request */

static void build(const struct search_ask *ask, struct provider_request *ret)
{
    int64_t num = ask->max_results < MAX_RESULTS ? ask->max_results : MAX_RESULTS;
    search_engine_url(&ret->url, ask->base, "/customsearch/v1");
    buf_add_str(&ret->url, "?key=");
    search_encode(&ret->url, ask->key);
    buf_add_str(&ret->url, "&cx=");
    search_encode(&ret->url, ask->cx);
    buf_add_str(&ret->url, "&q=");
    search_encode(&ret->url, ask->query);
    buf_printf(&ret->url, "&num=%lld", (long long)(num > 0 ? num : 1));
    buf_add_str(&ret->headers, "Accept: application/json\n");
}

/* {"error": {"code", "message", "status"}} */
static int refuse(int status, const char *data, size_t len, struct err *err)
{
    struct json_view document;
    char message[300] = "";
    if (json_view_parse(&document, data, len))
        json_view_copy(json_view_member(json_view_member(document, "error"), "message"), message,
                       sizeof message);
    const char *colon = message[0] != '\0' ? ": " : "";
    if (status == 429)
        return err_set(err, -EAGAIN, TITLE "'s quota is used up (HTTP 429)%s%s", colon, message);
    if (status == 403)
        return err_set(err, -EACCES,
                       TITLE " refuses the key, or its quota is used up (HTTP 403)%s%s", colon,
                       message);
    return err_set(err, -EIO, TITLE " answered HTTP %d%s%s", status, colon, message);
}

static int parse(int status, const char *data, size_t len, struct search_hits *hits,
                 struct err *err)
{
    struct json_view document, item;
    if (status != 200)
        return refuse(status, data, len, err);
    if (!json_view_parse(&document, data, len) || document.kind != JSON_VIEW_OBJECT)
        return err_set(err, -EBADMSG, TITLE " did not answer with a JSON object");
    struct json_view error = json_view_member(document, "error");
    if (error.kind == JSON_VIEW_OBJECT)
        return refuse((int)json_view_int(json_view_member(error, "code"), 200), data, len, err);
    struct json_view items = json_view_member(document, "items"); /* missing: nothing was found */
    while (json_view_next(&items, NULL, &item))
        search_hits_add_json(hits, item, "link", "title", "snippet");
    return hits->failed ? err_set(err, -ENOMEM, "out of memory") : 0;
}

const struct search_engine search_engine_google = {
    .name = "google",
    .title = TITLE,
    .base = "https://www.googleapis.com",
    .needs_key = true,
    .build = build,
    .parse = parse,
};
