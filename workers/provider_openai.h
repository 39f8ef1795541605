/* What the files of OpenAI's family share: chat completions, the Responses API and embeddings, and
 * how the servers that speak them differ. */
#ifndef WORKERS_PROVIDER_OPENAI_H
#define WORKERS_PROVIDER_OPENAI_H

#include "workers/json_view.h"
#include "workers/provider.h"
#include "workers/wire.h"

enum openai_schema {
    OPENAI_SCHEMA_NAMED,  /* {"type":"json_schema","json_schema":{"name":...,"schema":...}} */
    OPENAI_SCHEMA_STRICT, /* the same with "strict" */
    OPENAI_SCHEMA_VALUE,  /* {"type":"json","value":...}: TGI's grammars */
};

enum openai_vectors {
    OPENAI_VECTORS_V1,       /* /v1/embeddings */
    OPENAI_VECTORS_PIPELINE, /* Hugging Face's router: a path for each model */
    OPENAI_VECTORS_TEI,      /* /embed of Text Embeddings Inference */
};

/* A row for each server. */
struct openai_quirks {
    const char *system_role;
    const char *max_tokens; /* name of the member */
    enum openai_schema schema;
    enum openai_vectors vectors;
    size_t max_stop;     /* most strings that end an answer; 0: no limit known */
    size_t max_inputs;   /* most texts of one call for vectors; 0: no limit known */
    bool needs_done;     /* an answer is complete with [DONE] only, not with its finish reason */
    bool no_obfuscation; /* asks that chunks are not padded against eavesdroppers */
    bool no_zero;        /* temperature 0 is refused, and is what it does without one */
    bool no_effort;      /* knows no reasoning_effort */
    bool thinking_kwarg; /* thinking is switched off in the chat template's arguments */
    bool cache_prompt;   /* the prompt cache is asked for by name */
    bool ttl;            /* keep_alive goes into "ttl", in seconds */
    wire_document *document; /* of a chat */
};

/* -EINVAL when an image's data is no base64, or its type is none. */
int openai_images_check(const struct provider_call *call, struct err *err);
/* The image's address, or a data: URI, as a JSON string; once it was checked. */
void openai_add_image(const struct provider_image *image, struct buf *body);
/* Whether strict mode takes the schema. */
bool openai_schema_is_strict(struct json_view schema);

int openai_chat_build(const struct provider *provider, const struct provider_call *call,
                      struct provider_request *ret, struct err *err);
/* A chunk, or a whole answer (wire_document). */
void openai_chat_document(struct provider_reply *reply, struct json_view view,
                          enum error_class unknown);

int openai_responses_build(const struct provider *provider, const struct provider_call *call,
                           struct provider_request *ret, struct err *err);
void openai_responses_event(struct provider_reply *reply, const char *data, size_t len);
void openai_responses_body(const struct provider *provider, struct provider_reply *reply,
                           const char *data, size_t len);

int openai_embed_build(const struct provider *provider, const struct provider_call *call,
                       struct provider_request *ret, struct err *err);
void openai_embed_body(struct provider_reply *reply, const char *data, size_t len);

/* The functions of a row. */
int openai_build(const struct provider *provider, const struct provider_call *call,
                 struct provider_request *ret, struct err *err);
void openai_event(const struct provider *provider, struct provider_reply *reply, const char *data,
                  size_t len);
void openai_body(const struct provider *provider, struct provider_reply *reply, const char *data,
                 size_t len);
void openai_end(const struct provider *provider, struct provider_reply *reply);

/* In reply->scratch. */
enum {
    OPENAI_DONE_SEEN,  /* what follows [DONE], or a terminal event, is nothing */
    OPENAI_TOOLS_SEEN, /* the model called a tool */
    OPENAI_PARTS_SEEN, /* text came in parts, so a whole that repeats it is not read again */
};

/* Token counts of a usage object. names: of prompt, output, and the details of each, which have the
 * same members in both of OpenAI's APIs. */
#define OPENAI_USAGE 4
void openai_usage(struct provider_reply *reply, struct json_view usage,
                  const struct json_view_name names[OPENAI_USAGE]);

#endif
