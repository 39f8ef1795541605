/* The headers of one HTTP response, and what they say about trying again. */
#ifndef WORKERS_HTTP_HEADERS_H
#define WORKERS_HTTP_HEADERS_H

#include <stddef.h>
#include <stdint.h>

#include "schemas/buf.h"

#define HTTP_HEADERS_MAX ((size_t)64 * 1024) /* bytes kept; what exceeds them is dropped */

/* All zero is empty. */
struct http_headers {
    struct buf pairs; /* name NUL value NUL ... */
};

void http_headers_release(struct http_headers *headers);
void http_headers_clear(struct http_headers *headers);
/* One line as it came, "Name: value" with or without its CRLF. Lines without a colon are dropped.
 */
void http_headers_add(struct http_headers *headers, const char *line, size_t len);
/* Value of the last header of that name, case ignored; NULL when there is none. Borrowed until the
 * headers change. */
const char *http_header(const struct http_headers *headers, const char *name);

/* How long the server asks to wait, in ms from wall_ms (Unix epoch): retry-after-ms, else
 * Retry-After in seconds or as an HTTP date (RFC 9110, 10.2.3). -1 when it does not say; at most
 * HTTP_RETRY_AFTER_MAX_MS. */
#define HTTP_RETRY_AFTER_MAX_MS ((int64_t)24 * 3600 * 1000)
int64_t http_retry_after_ms(const struct http_headers *headers, int64_t wall_ms);

#endif
