/* A provider: how one wire format is spoken. One file each, one row in providers.c.
 *
 * A provider is a struct of pure functions over a request and a reply: it does no I/O, keeps no
 * globals and may be called for thousands of replies in turn. The driver (exchange.c) owns HTTP,
 * framing (SSE, NDJSON), timeouts and retries. */
#ifndef WORKERS_PROVIDER_H
#define WORKERS_PROVIDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "schemas/buf.h"
#include "schemas/error_class.h"

#define PROVIDER_ABI 3

enum finish {
    FINISH_NONE, /* no finish signal yet */
    FINISH_DONE,
    FINISH_LENGTH,
    FINISH_TOOLS,
    FINISH_FILTERED,
    FINISH_OTHER, /* a reason this version doesn't know */
};
const char *finish_name(enum finish finish); /* "done", "length", ...; "" for FINISH_NONE */

enum provider_kind {
    PROVIDER_CHAT,  /* an answer to a prompt */
    PROVIDER_EMBED, /* vectors of texts; the reply's text is a JSON array of arrays of numbers */
    PROVIDER_LIST,  /* names of the models that are served; the reply's text has one a line */
    PROVIDER_KIND_COUNT
};
#define PROVIDER_KIND(kind) (1u << (kind)) /* bit in provider.kinds */

/* By URL, or the data itself. */
struct provider_image {
    const char *url;        /* "" when there is data */
    const char *media_type; /* image/png, ... */
    const char *data;       /* base64 */
};

/* What is asked. Everything is borrowed for the time of build(). What the model refuses is left out
 * by the caller already. */
struct provider_call {
    enum provider_kind kind;
    const char *base_url; /* configured or the provider's default; no trailing slash or version */
    const char *key;      /* NULL: none */
    const char *model;    /* the provider's name of it */
    const char *system;   /* "" : none */
    const char *prompt;
    size_t prompt_len;
    const char *json_schema; /* JSON text of a schema the answer must follow; NULL: free text */
    double temperature;      /* < 0: not sent */
    int64_t max_tokens;      /* 0: the provider's default; where one is required, 4096 */
    int64_t context;         /* the model's window in tokens; 0: unknown (Ollama: num_ctx) */
    bool stream;
    bool has_seed;
    int64_t seed;
    const char *const *stop; /* strings that end the answer */
    size_t n_stop;
    const char *effort; /* of reasoning: "none" to "high"; "": the default */
    const struct provider_image *images;
    size_t n_images;
    const char *const *inputs; /* PROVIDER_EMBED: the texts */
    size_t n_inputs;
    int64_t dimensions;         /* PROVIDER_EMBED: 0: the model's own */
    const char *keep_alive;     /* local runtimes: how long to keep the model loaded; "": default */
    bool responses;             /* OpenAI: the Responses API instead of chat completions */
    bool no_system;             /* the model takes no system prompt: it goes before the prompt */
    bool no_stream_options;     /* the server refuses them */
    const char *const *headers; /* further request headers, "Name: value" */
    size_t n_headers;
};

/* What goes out. Method is POST when body is not empty, else GET. */
struct provider_request {
    struct buf url;
    struct buf headers; /* "Name: value" lines, each ended by \n; may hold the key: never logged */
    struct buf body;
};
void provider_request_release(struct provider_request *request);

struct key;

/* What has been understood so far. The driver zeroes it with provider_reply_init(). */
struct provider_reply {
    const struct key *key;   /* borrowed: what no text for people may show; NULL: none */
    enum provider_kind kind; /* of the call, as the four below: provider_reply_expect() */
    bool responses;
    size_t n_inputs;    /* PROVIDER_EMBED: so many vectors are due */
    int64_t dimensions; /* PROVIDER_EMBED: of so many numbers each; 0: any */
    int64_t max_tokens; /* for APIs whose answers do not say that they hit the limit; 0: none */
    struct buf text;
    struct buf reasoning;
    enum finish finish;
    bool finished; /* the provider's own proof of a complete answer was seen */
    /* -1: unknown. prompt: all of them, cached and written ones included; output: reasoning
     * included */
    int64_t prompt_tokens, cached_tokens, cache_write_tokens, output_tokens, reasoning_tokens;
    double load_ms, prompt_ms, generate_ms; /* the runtime's own figures; -1: not reported */
    char model[128];                        /* served model; "" until known */
    char request_id[128];                   /* the provider's; "" until known */
    enum error_class error;                 /* CLASS_NONE: none */
    char error_text[512];                   /* for people; never contains the key */
    int64_t retry_after_ms;                 /* the server's own delay; -1: none given */
    int64_t scratch[4];                     /* for the provider's functions alone; zero at first */
};
void provider_reply_init(struct provider_reply *reply);
/* Takes over what of the call its answer is read by. */
void provider_reply_expect(struct provider_reply *reply, const struct provider_call *call);
void provider_reply_release(struct provider_reply *reply);
/* Sets error and text unless an error is set already: the first cause stands. */
void provider_reply_fail(struct provider_reply *reply, enum error_class class_, const char *format,
                         ...) __attribute__((format(printf, 3, 4)));

/* Response headers: lookups ignore case; the value of the last one; NULL when not there. */
struct http_headers;
const char *http_header(const struct http_headers *headers, const char *name);

enum provider_framing {
    PROVIDER_SSE,    /* event() gets the joined data: lines of one event; [DONE] included */
    PROVIDER_NDJSON, /* event() gets one line */
};

struct provider {
    uint32_t abi;         /* PROVIDER_ABI */
    const char *api;      /* name in the config: api: NAME */
    const char *title;    /* for people */
    const char *base_url; /* default; NULL: base_url must be configured */
    const char *key_env;  /* usual environment variable of the key; NULL: none */
    bool needs_key;
    bool local;
    enum provider_framing framing;
    unsigned kinds;     /* PROVIDER_KIND() of each kind that build() and body() know */
    const void *quirks; /* the provider's own table row; opaque to the driver */

    /* NULL: no HTTP (noop): the driver calls body() at once with no data.
     * Fills the request. 0; -EINVAL with a sentence when the call can't be expressed. */
    int (*build)(const struct provider *provider, const struct provider_call *call,
                 struct provider_request *ret, struct err *err);
    /* One streamed event. Bad input sets reply->error, never crashes. */
    void (*event)(const struct provider *provider, struct provider_reply *reply, const char *data,
                  size_t len);
    /* The whole body of a 2xx answer that is no stream, also when a stream was asked for. */
    void (*body)(const struct provider *provider, struct provider_reply *reply, const char *data,
                 size_t len);
    /* An answer with status >= 400: classify. data is at most 1 MiB. */
    void (*failure)(const struct provider *provider, struct provider_reply *reply, int status,
                    const struct http_headers *headers, const char *data, size_t len);
    /* The transfer ended well: without `finished` this sets CLASS_BAD_RESPONSE. */
    void (*end)(const struct provider *provider, struct provider_reply *reply);
};

/* NULL when there is none. The table itself is providers.c. */
const struct provider *provider_find(const char *api);
const struct provider *const *provider_table(size_t *ret_count);

#endif
