/* Any headers of a response: delays and limits are read within their bounds, or not at all. Lines
 * as they come; the last one is also taken for a message and a duration. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "workers/rate_headers.h"
#include "workers/retry_after.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define NOW_MS ((int64_t)1795100000000)

static void check_delay(int64_t ms)
{
    if (ms < -1 || ms > RETRY_AFTER_MAX_MS)
        abort();
}

static void check_line(const uint8_t *line, size_t len)
{
    char *text = malloc(len + 1);
    memcpy(text, line, len);
    text[len] = '\0';
    check_delay(retry_after_value(text, NOW_MS));
    check_delay(retry_after_duration(text));
    check_delay(retry_after_message(text));
    free(text);
}

static void check_limit(int64_t limit, int64_t remaining, int64_t reset_ms)
{
    if (limit < -1 || remaining < -1 || reset_ms < -1)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct http_headers headers = {0};
    struct governor_server server;
    while (size > 0) {
        const uint8_t *end = memchr(data, '\n', size);
        size_t len = end != NULL ? (size_t)(end - data) + 1 : size;
        char *line = malloc(len);
        memcpy(line, data, len);
        http_headers_add(&headers, line, len);
        free(line);
        if (len == size)
            check_line(data, len);
        data += len;
        size -= len;
    }
    check_delay(retry_after_headers(&headers, NOW_MS));
    check_delay(retry_after_resets(&headers, NOW_MS));
    retry_after_now(&headers, NOW_MS);
    rate_headers_read(&server, &headers, NOW_MS);
    check_limit(server.limit_requests, server.remaining_requests, server.reset_requests_ms);
    check_limit(server.limit_tokens, server.remaining_tokens, server.reset_tokens_ms);
    http_header(&headers, "date");
    http_headers_release(&headers);
    return 0;
}
