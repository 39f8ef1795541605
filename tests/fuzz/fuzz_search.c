/* What engines answer, what prompts ask and what answers cite: read to its end, within bounds. The
 * first byte chooses. */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "workers/search_engine.h"
#include "workers/utf8.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

static void check(int holds)
{
    if (!holds)
        abort();
}

static void check_line(const char *text, size_t max)
{
    size_t len = strlen(text);
    check(len <= max && utf8_valid(text, len) == len);
    for (size_t i = 0; i < len; i++)
        check((unsigned char)text[i] >= ' ' && text[i] != 0x7f);
}

static void parse(const char *engine, int status, const char *data, size_t size)
{
    struct search_hits hits = {.max = SEARCH_MAX_RESULTS};
    struct err err = {0};
    int rc = search_engine_find(engine)->parse(status, data, size, &hits, &err);
    check(rc <= 0 && (rc == 0 || err.text[0] != '\0') && hits.n <= SEARCH_MAX_RESULTS);
    for (size_t i = 0; i < hits.n; i++) {
        check_line(hits.items[i].title, SEARCH_TITLE_MAX);
        check_line(hits.items[i].url, SEARCH_URL_MAX);
        check_line(hits.items[i].snippet, SEARCH_SNIPPET_MAX);
        check(hits.items[i].title[0] != '\0' && strncasecmp(hits.items[i].url, "http", 4) == 0);
    }
    search_hits_release(&hits);
}

static void ask(const char *data, size_t size)
{
    static const struct search_result results[] = {{"A", "http://a/", "a"}, {"B", "http://b/", ""}};
    struct buf out = {0};
    struct config_provider settings = {.search = "auto"};
    size_t chars = 0;
    search_query(&out, data, size, 1795100000000);
    check(out.failed || utf8_valid(out.data != NULL ? out.data : "", out.len) == out.len);
    for (size_t i = 0; i < out.len; i++)
        chars += ((unsigned char)out.data[i] & 0xc0) != 0x80;
    check(chars <= SEARCH_QUERY_CHARS);
    buf_clear(&out);
    search_wanted(&settings, data, size, 1795100000000);
    search_citations(&out, results, 2, data, size);
    check(out.len > 2); /* never none */
    buf_release(&out);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    static const int statuses[] = {200, 303, 403, 429, 500};
    if (size == 0)
        return 0;
    int status = statuses[data[0] / 8 % 5];
    const char *rest = (const char *)data + 1;
    switch (data[0] % 4) {
    case 0:
        parse("duckduckgo", status, rest, size - 1);
        break;
    case 1:
        parse("searxng", status, rest, size - 1);
        break;
    case 2:
        parse("google", status, rest, size - 1);
        break;
    default:
        ask(rest, size - 1);
    }
    return 0;
}
