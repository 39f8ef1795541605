/* The headers of one HTTP response. */
#ifndef WORKERS_HTTP_HEADERS_H
#define WORKERS_HTTP_HEADERS_H

#include <stddef.h>

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

#endif
