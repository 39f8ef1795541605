/* A model call as the simulator understands it, whichever API family it came in. */
#ifndef SIMULATOR_REQUEST_H
#define SIMULATOR_REQUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/json.h"
#include "schemas/buf.h"

/* Servers that speak OpenAI's chat completions, each with its own accent.
 * X(constant, name) */
#define SIM_DIALECTS(X)                                                                            \
    X(OPENAI, "openai")                                                                            \
    X(HUGGINGFACE, "huggingface")                                                                  \
    X(LMSTUDIO, "lmstudio")                                                                        \
    X(VLLM, "vllm")                                                                                \
    X(LLAMACPP, "llamacpp")                                                                        \
    X(TGI, "tgi")

enum sim_dialect {
#define X(constant, name) SIM_DIALECT_##constant,
    SIM_DIALECTS(X)
#undef X
        SIM_DIALECT_COUNT
};
const char *sim_dialect_name(enum sim_dialect dialect);
enum sim_dialect sim_dialect_parse(const char *name, size_t len); /* COUNT: unknown */

/* What an HTTP error says; each family has its own row for each.
 * X(constant, name in scenarios) */
#define SIM_KINDS(X)                                                                               \
    X(RATE_LIMIT, "rate_limit")                                                                    \
    X(QUOTA, "quota")                                                                              \
    X(OVERLOADED, "overloaded")                                                                    \
    X(AUTH, "auth")                                                                                \
    X(CONTEXT_TOO_LONG, "context_too_long")                                                        \
    X(BAD_REQUEST, "bad_request")                                                                  \
    X(SERVER_ERROR, "server_error")                                                                \
    X(NO_MODEL, "no_model")                                                                        \
    X(NO_ROUTE, "no_route")                                                                        \
    X(NO_METHOD, "no_method")                                                                      \
    X(TOO_LARGE, "too_large")

enum sim_kind {
#define X(constant, name) SIM_KIND_##constant,
    SIM_KINDS(X)
#undef X
        SIM_KIND_COUNT,
    SIM_KIND_NONE = SIM_KIND_COUNT
};
const char *sim_kind_name(enum sim_kind kind);

struct sim_error {
    enum sim_kind kind;
    int status;           /* 0: the kind's own */
    double retry_after_s; /* < 0: the kind's own */
    char message[512];    /* "": the kind's own */
    char param[64];       /* field that is wrong; "": none */
    bool scripted;        /* the message is the scenario's: its placeholders are replaced */
    bool limited;         /* the scenario's limits say it, and write its headers */
};
/* A bad_request; returns -EINVAL. */
int sim_error_set(struct sim_error *error, const char *param, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

struct sim_family;

struct sim_request {
    const struct sim_family *family;
    enum sim_dialect dialect;
    const char *method, *path; /* borrowed from the exchange */
    char model[128];
    char key[128];
    bool stream;
    bool array;         /* Gemini: a stream as one JSON array */
    bool include_usage; /* OpenAI: usage chunk in a stream */
    bool obfuscate;     /* OpenAI: padding in chunks */
    bool load_only;     /* Ollama: no messages, the model is only loaded (or unloaded) */
    bool unload;
    bool json_mode;             /* JSON was demanded, without a schema */
    bool single;                /* Gemini: vectors of one text, not of a batch */
    bool embed;                 /* vectors of `inputs` are asked for, not an answer */
    bool thinks;                /* the answer begins with thoughts */
    int64_t dimensions;         /* of the vectors; 0: the model's own */
    int64_t images;             /* in the messages; each counts as SIM_IMAGE_TOKENS */
    int64_t cached_tokens;      /* of the prompt: seen before */
    int64_t cache_write_tokens; /* of the prompt: seen for the first time, kept from now on */
    int64_t max_tokens;         /* 0: no limit */
    int64_t ping_ms;            /* llama.cpp: 0: not asked for */
    struct buf system;          /* texts of system messages */
    struct buf prompt;          /* texts of all others, separated by \n */
    int64_t prompt_tokens;      /* (bytes of system and prompt) / 4, rounded up */
    uint64_t prompt_hash;
    json_t *root;         /* the parsed body; owned */
    const json_t *schema; /* that the answer must follow; borrowed from root; NULL: none */
    const json_t *stop;   /* string or strings that end the answer; as above */
    const json_t *inputs; /* text or texts to make vectors of; as above */
};

void sim_request_release(struct sim_request *request);
/* Parses the body's JSON and takes its model. 0; -EINVAL with the error. */
int sim_request_load(struct sim_request *request, const struct buf *body, struct sim_error *ret);
/* Checks what was loaded as the family's real servers do, and fills in the rest. */
int sim_request_check(struct sim_request *request, struct sim_error *ret);

/* For the families' parsers: adds the text of a message's content, which is a string or a list of
 * parts with a "text"; false when it is neither. */
bool sim_request_add_content(struct buf *out, const json_t *content);
void sim_request_add_text(struct buf *out, const char *text, size_t len);

/* splitmix64: the next of a sequence, and a number in [0, 1). */
uint64_t sim_random(uint64_t *state);
double sim_random_unit(uint64_t *state);
uint64_t sim_hash(const void *data, size_t len, uint64_t seed); /* FNV-1a, 64 bits */
#define SIM_IMAGE_TOKENS 256
#define SIM_HASH_SEED 0xcbf29ce484222325ull

#endif
