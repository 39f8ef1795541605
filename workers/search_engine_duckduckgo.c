/* DuckDuckGo's page for browsers without scripts. There is no contract: it is asked as a browser
 * would ask, and its results are found in any of the shapes that clients of it rely on:
 *
 *   <div class="... web-result"> ... <h2><a href=URL>TITLE</a></h2> ...
 *                                    <a class="result__snippet">SNIPPET</a>
 *   <div class="...body..."><h2>TITLE</h2><a href=URL>SNIPPET</a></div> */
#include <errno.h>
#include <string.h>
#include <strings.h>

#include "workers/search_engine.h"
#include "workers/search_html.h"

#define TITLE "DuckDuckGo"
#define PATH "/html/"
/* It answers nobody who does not look like a current browser. */
#define USER_AGENT "Mozilla/5.0 (X11; Linux x86_64; rv:150.0) Gecko/20100101 Firefox/150.0"

static void build(const struct search_ask *ask, struct provider_request *ret)
{
    search_engine_url(&ret->url, ask->base, PATH);
    buf_add_str(&ret->headers, "Content-Type: application/x-www-form-urlencoded\n"
                               "User-Agent: " USER_AGENT "\n"
                               "Accept: text/html,application/xhtml+xml\n"
                               "Accept-Language: en-US,en;q=0.9\n"
                               "Referer: https://html.duckduckgo.com/\n"
                               "Sec-Fetch-Site: same-origin\n"
                               "Sec-Fetch-Mode: navigate\n"
                               "Sec-Fetch-Dest: document\n"
                               "Sec-Fetch-User: ?1\n"
                               "Cookie: kl=wt-wt\n");
    buf_add_str(&ret->body, "q=");
    search_encode(&ret->body, ask->query);
    buf_add_str(&ret->body, "&b=&kl=wt-wt"); /* all regions */
}

/* --- reading ----------------------------------------------------------------------------------
 */

enum part { PART_NONE, PART_TITLE, PART_SNIPPET, PART_LINK };

/* The result that is being read, and what the page has said of itself. */
struct page {
    struct search_hits *hits;
    bool candidate; /* inside a container of a result, before its heading */
    bool open;      /* a heading has come */
    bool heading;   /* inside the h2 */
    bool ad;
    enum part part;                       /* where text goes */
    const char *ends;                     /* name of the element whose end ends the part */
    struct buf url, title, snippet, link; /* link: text of the first other link */
    bool blocked, links, none;
};

static int hex_digit(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* Appends a percent-encoded value up to the next parameter. */
static void add_decoded(struct buf *out, const char *text, size_t len)
{
    for (size_t at = 0; at < len && text[at] != '&' && text[at] != '#'; at++) {
        int high = at + 2 < len ? hex_digit(text[at + 1]) : -1;
        int low = at + 2 < len ? hex_digit(text[at + 2]) : -1;
        if (text[at] != '%' || high < 0 || low < 0) {
            buf_add_char(out, text[at]);
            continue;
        }
        buf_add_char(out, (char)(high * 16 + low));
        at += 2;
    }
}

static bool starts(const char *text, const char *with)
{
    return strncasecmp(text, with, strlen(with)) == 0;
}

/* The path of an URL of DuckDuckGo's own; NULL for others. */
static const char *own_path(const char *url)
{
    static const char *const hosts[] = {"https://duckduckgo.com/", "http://duckduckgo.com/",
                                        "//duckduckgo.com/", "https://html.duckduckgo.com/",
                                        "//html.duckduckgo.com/"};
    for (size_t i = 0; i < sizeof hosts / sizeof *hosts; i++)
        if (starts(url, hosts[i]))
            return url + strlen(hosts[i]);
    return url[0] == '/' && url[1] != '/' ? url + 1 : NULL;
}

/* Where a link leads: unwrapped where DuckDuckGo counts the click. False for an ad. */
static bool resolve(const struct buf *href, struct buf *ret)
{
    const char *url = href->data != NULL ? href->data : "";
    const char *path = own_path(url);
    if (path == NULL) {
        buf_add_str(ret, starts(url, "//") ? "https:" : "");
        buf_add_str(ret, url);
        return true;
    }
    const char *target = strstr(path, "uddg=");
    if (starts(path, "y.js") || !starts(path, "l/") || target == NULL)
        return false;
    target += strlen("uddg=");
    add_decoded(ret, target, strlen(target));
    return ret->data != NULL && own_path(ret->data) == NULL;
}

static void finish_result(struct page *page)
{
    struct buf url = {0};
    const struct buf *snippet = page->snippet.len > 0 ? &page->snippet : &page->link;
    if (page->open && !page->ad && page->url.len > 0 && resolve(&page->url, &url))
        search_hits_add(page->hits, url.data, url.len, page->title.data, page->title.len,
                        snippet->data, snippet->len);
    page->hits->failed |= url.failed || page->title.failed || page->snippet.failed ||
                          page->link.failed || page->url.failed;
    buf_release(&url);
    buf_clear(&page->url);
    buf_clear(&page->title);
    buf_clear(&page->snippet);
    buf_clear(&page->link);
    page->open = page->heading = page->ad = false;
    page->part = PART_NONE;
}

static void begin_part(struct page *page, enum part part, const char *ends)
{
    page->part = part;
    page->ends = ends;
}

static void open_link(struct page *page, const struct search_html_token *token)
{
    if (!page->open || search_html_has_class(token, "result__url", false))
        return;
    if (page->url.len == 0)
        search_html_attribute(token, "href", &page->url);
    if (!page->heading && page->part == PART_NONE && page->link.len == 0)
        begin_part(page, PART_LINK, "a");
}

static void open_container(struct page *page, const struct search_html_token *token)
{
    bool ad = search_html_has_class(token, "result--ad", true);
    bool outer = ad || search_html_has_class(token, "web-result", false);
    page->none |= search_html_has_class(token, "no-results", true);
    if (!outer && !search_html_has_class(token, "body", true))
        return;
    if (page->open)
        finish_result(page);
    page->candidate = true;
    if (outer) /* the body inside of it does not say so again */
        page->ad = ad;
}

static bool has_id(const struct search_html_token *token, const char *id)
{
    struct buf value = {0};
    bool same = search_html_attribute(token, "id", &value) && value.data != NULL &&
                strcmp(value.data, id) == 0;
    buf_release(&value);
    return same;
}

static void take_open(struct page *page, const struct search_html_token *token)
{
    if (search_html_is(token, SEARCH_HTML_OPEN, "form"))
        page->blocked |= has_id(token, "challenge-form");
    if (search_html_is(token, SEARCH_HTML_OPEN, "div")) {
        page->links |= has_id(token, "links");
        open_container(page, token);
    }
    if (search_html_is(token, SEARCH_HTML_OPEN, "h2") && page->candidate) {
        page->candidate = false;
        page->open = page->heading = true;
        begin_part(page, PART_TITLE, "h2");
    }
    if (page->open && search_html_has_class(token, "result__snippet", false))
        begin_part(page, PART_SNIPPET, search_html_is(token, SEARCH_HTML_OPEN, "a") ? "a" : "div");
    if (search_html_is(token, SEARCH_HTML_OPEN, "a"))
        open_link(page, token);
}

static void take_close(struct page *page, const struct search_html_token *token)
{
    if (search_html_is(token, SEARCH_HTML_CLOSE, "h2"))
        page->heading = false;
    if (page->part != PART_NONE && search_html_is(token, SEARCH_HTML_CLOSE, page->ends))
        page->part = PART_NONE;
}

static void take_text(struct page *page, const struct search_html_token *token)
{
    struct buf *const parts[] = {NULL, &page->title, &page->snippet, &page->link};
    struct buf *part = parts[page->part];
    if (part != NULL && part->len < 8 * SEARCH_SNIPPET_MAX)
        search_html_decode(part, token->text, token->len);
}

static int judge(const struct page *page, int status, struct err *err)
{
    if (page->hits->failed)
        return err_set(err, -ENOMEM, "out of memory");
    if (page->hits->n > 0 || page->links || page->none)
        return 0;
    return err_set(err, -EBADMSG,
                   TITLE " answered HTTP %d with a page in which no results can be found", status);
}

static int parse(int status, const char *data, size_t len, struct search_hits *hits,
                 struct err *err)
{
    struct page page = {.hits = hits};
    struct search_html html = {data, data + len, NULL};
    struct search_html_token token;
    if (status >= 300 && status < 400)
        return 0; /* it sends those home for whom it has nothing */
    if (status == 202 || status == 403 || status == 418 || status == 429)
        return err_set(err, -EAGAIN, TITLE " blocks this machine for now (HTTP %d)", status);
    if (status != 200)
        return search_engine_status(TITLE, status, err);
    while (search_html_next(&html, &token)) {
        if (token.kind == SEARCH_HTML_OPEN)
            take_open(&page, &token);
        else if (token.kind == SEARCH_HTML_CLOSE)
            take_close(&page, &token);
        else
            take_text(&page, &token);
    }
    finish_result(&page);
    int rc = page.blocked && hits->n == 0
                 ? err_set(err, -EAGAIN,
                           TITLE " blocks this machine for now: it asks for a proof that a person "
                                 "searches. Search less often, or use SearXNG")
                 : judge(&page, status, err);
    buf_release(&page.url);
    buf_release(&page.title);
    buf_release(&page.snippet);
    buf_release(&page.link);
    return rc;
}

const struct search_engine search_engine_duckduckgo = {
    .name = "duckduckgo",
    .title = TITLE,
    .base = "https://html.duckduckgo.com",
    .pace_ms = 1000, /* blocking is by address */
    .build = build,
    .parse = parse,
};
