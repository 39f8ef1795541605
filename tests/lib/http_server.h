/* A provider's HTTP server that can misbehave, in threads of the test itself. It speaks chat
 * completions; the first segment of the path says how: */
#ifndef TESTS_LIB_HTTP_SERVER_H
#define TESTS_LIB_HTTP_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "schemas/buf.h"

/* X(path, what the server does) */
#define HTTP_SERVER_MANNERS(X)                                                                     \
    X(ok, "streams \"one two three\" with usage, and ends well")                                   \
    X(whole, "answers \"one two three\" as one JSON document")                                     \
    X(hold, "streams \"one \", and the rest after http_server_release()")                          \
    X(stall, "reads the request and never answers")                                                \
    X(comments, "streams comments, but no token")                                                  \
    X(gap, "streams one token, then nothing")                                                      \
    X(bulky, "streams 72 MiB of comments between its tokens")                                      \
    X(torrent, "streams comments without an end")                                                  \
    X(drip, "streams a comment every 40 ms 20 times between its tokens")                           \
    X(truncate, "streams one token and closes")                                                    \
    X(unfinished, "streams one token and ends the stream well, without a finish signal")           \
    X(linger, "streams all and then keeps the response open")                                      \
    X(reset, "closes without an answer")                                                           \
    X(garbage, "answers what is no HTTP")                                                          \
    X(html, "answers an HTML page with status 200")                                                \
    X(limited, "answers 429 with Retry-After: 7")                                                  \
    X(broken, "answers 500")                                                                       \
    X(moved, "answers 302 to /ok")                                                                 \
    X(unauthorized, "answers 401 and quotes the key")                                              \
    X(error, "streams one token, then an error event")                                             \
    X(talkative, "streams tokens without an end")                                                  \
    X(endless, "answers with one document without an end")                                         \
    X(flood, "streams one line without an end")                                                    \
    X(other, "like ok, but another model serves")                                                  \
    X(pool, "like ok; 401, quoting the key, to keys bad-...; 429 for want of money to poor-...")   \
    X(overloaded, "answers 503 until http_server_release(), then like ok")                         \
    X(spent, "like whole, with headers that say that no request is left for a minute")             \
    X(uncounted, "like ok, but says nothing of usage")                                             \
    X(vectors, "answers two vectors")                                                              \
    X(models, "answers a list of two models")                                                      \
    X(found, "answers one search result, as SearXNG does")                                         \
    X(mirror, "answers 400 and quotes the head of the request")                                    \
    X(torn, "answers JSON that breaks off, with the key in it")                                    \
    X(away, "answers 302 to a place with the key in its name")

struct http_server;

struct http_server *http_server_start(void); /* on 127.0.0.1, any port */
void http_server_stop(struct http_server **server);
int http_server_port(const struct http_server *server);

/* Complete requests received; responses during which the client went away. */
size_t http_server_requests(struct http_server *server);
size_t http_server_hangups(struct http_server *server);
/* Connections accepted so far. */
size_t http_server_connections(struct http_server *server);
/* Lets those on hold, and all that come, go on. */
void http_server_release(struct http_server *server);
/* Head and body of the last request. */
void http_server_last(struct http_server *server, struct buf *out);
/* Waits until n requests (n hangups) were counted; false after 20 s. */
bool http_server_wait_requests(struct http_server *server, size_t n);
bool http_server_wait_hangups(struct http_server *server, size_t n);

#endif
