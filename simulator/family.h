/* An API family: how its requests are read and its answers, streams and errors are written. One
 * file each, one row in family.c. */
#ifndef SIMULATOR_FAMILY_H
#define SIMULATOR_FAMILY_H

#include "simulator/request.h"

/* An answer while it is written. Times are those of the simulated machine. */
struct sim_answer {
    const struct sim_request *request;
    uint64_t seq;      /* of the request; makes ids */
    int64_t created_s; /* Unix time */
    const char *model; /* served */
    const char *text;
    size_t text_len;
    bool length;          /* ended by max_tokens */
    char stop[64];        /* the string that ended it; "": none did */
    const char *thoughts; /* before the text; "": none */
    int64_t thought_tokens;
    const char *finish;    /* what the scenario has as the finish reason; NULL: the right one */
    bool finished;         /* false: written without a finish reason */
    bool limited;          /* the scenario's limits write the headers of rate limits */
    int64_t output_tokens; /* so far; in open() 0 */
    double load_ms, prompt_ms, decode_ms, total_ms;
};

/* An HTTP error, written. */
struct sim_failure {
    int status;
    const char *type; /* Content-Type */
    struct buf headers;
    struct buf body;
};

/* {model}, {tokens}, {retry}, {method}, {path} and {key} in a message are replaced. */
struct sim_error_row {
    int status;
    const char *type;
    const char *code; /* NULL: null */
    const char *message;
};

struct sim_family {
    const char *name;              /* in scenarios and counts */
    const struct sim_family *base; /* its name stands for this one, too; NULL: none */
    const char *stream_type;       /* Content-Type of streams */
    bool opens_early;              /* the stream's opening is sent before the prompt is evaluated */
    bool only_named;               /* rules count for it only where they name it */
    bool waits_for_headers;        /* nothing at all is sent before the first token */
    int (*parse)(struct sim_request *request, struct sim_error *ret);
    void (*headers)(const struct sim_answer *answer, struct buf *out);
    void (*whole)(const struct sim_answer *answer, struct buf *out);
    void (*open)(const struct sim_answer *answer, struct buf *out);
    void (*piece)(const struct sim_answer *answer, const char *text, size_t len, struct buf *out);
    void (*close)(const struct sim_answer *answer, struct buf *out);
    void (*error)(const struct sim_request *request, const struct sim_error *error,
                  struct sim_failure *ret);
    void (*stream_error)(const struct sim_answer *answer, const struct sim_error *error,
                         struct buf *out);
};

extern const struct sim_family sim_family_openai, sim_family_anthropic, sim_family_gemini,
    sim_family_ollama, sim_family_search, sim_family_responses, sim_family_lmstudio;

#define SIM_FAMILY_MAX 16 /* in the table */

/* NULL when there is none of that name. */
const struct sim_family *sim_family_find(const char *name);
const struct sim_family *const *sim_family_table(size_t *ret_count);

/* For the families: the message of an error, placeholders replaced, and its delay in seconds. */
void sim_family_message(struct buf *out, const struct sim_request *request,
                        const struct sim_error *error, const struct sim_error_row *row);
/* Seconds to wait: the error's own, else 1 for rate_limit, else < 0. */
double sim_family_retry_s(const struct sim_error *error);
void sim_family_add_json(struct buf *out, const char *text);       /* text or null */
void sim_family_add_date(struct buf *out, int64_t unix_s, int ms); /* RFC 3339; ms < 0: none */

#endif
