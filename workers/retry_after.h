/* How long a server asks to wait: the many ways in which that is said.
 *
 * All delays are in ms, rounded up, never negative; -1: nothing understandable is said. They are
 * kept as the server gave them, up to RETRY_AFTER_MAX_MS: whether to wait so long is for the caller
 * to decide. */
#ifndef WORKERS_RETRY_AFTER_H
#define WORKERS_RETRY_AFTER_H

#include <stddef.h>
#include <stdint.h>

#include "workers/http_headers.h"

#define RETRY_AFTER_MAX_MS ((int64_t)366 * 24 * 3600 * 1000)

/* What time it is by the answer's own Date header; without a valid one, wall_ms (Unix epoch). */
int64_t retry_after_now(const struct http_headers *headers, int64_t wall_ms);
/* The headers that say it outright: retry-after-ms, then retry-after. A date is compared with the
 * response's own Date header, so that clocks that differ do no harm; without one, with wall_ms
 * (Unix epoch). */
int64_t retry_after_headers(const struct http_headers *headers, int64_t wall_ms);
/* When the rate limits that are used up start anew, the latest of them: x-ratelimit-reset-* of the
 * OpenAI family (durations), anthropic-ratelimit-*-reset (RFC 3339). */
int64_t retry_after_resets(const struct http_headers *headers, int64_t wall_ms);
/* A header's value: seconds ("2", "1.5"), a Unix time, an HTTP date (RFC 9110, 5.6.7), an RFC 3339
 * time, or a duration. now_ms (Unix epoch) is what dates are compared with. */
int64_t retry_after_value(const char *value, int64_t now_ms);
/* A duration as Go and protobuf write it: "6m0s", "20ms", "1h2m3.5s", "12.5s". */
int64_t retry_after_duration(const char *text);
/* The delay in a sentence such as "Please try again in 1m30s." or "Please retry after 26
 * seconds". */
int64_t retry_after_message(const char *message);

#endif
