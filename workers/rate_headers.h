/* What a server says of its rate limits in the headers of an answer. */
#ifndef WORKERS_RATE_HEADERS_H
#define WORKERS_RATE_HEADERS_H

#include <stdint.h>

#include "common/governor.h"
#include "workers/http_headers.h"

/* Reads x-ratelimit-{limit,remaining,reset}-{requests,tokens} (OpenAI and many others; reset is a
 * duration such as 6m0s), anthropic-ratelimit-{requests,tokens,input-tokens,output-tokens}-* (reset
 * in RFC 3339), and {x-,}ratelimit-{limit,remaining,reset} (requests; reset in seconds or as a Unix
 * time). Of several limits of a kind, the tightest: one with nothing left, else the one with the
 * smallest share left. What is not said or not understood is -1. Points in time are compared with
 * the answer's own Date, without one with now_wall_ms (Unix epoch). */
void rate_headers_read(struct governor_server *ret, const struct http_headers *headers,
                       int64_t now_wall_ms);

#endif
