#include "workers/brief.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "schemas/mem.h"
#include "workers/compose.h"
#include "workers/utf8.h"

static int compose(struct brief *brief, const struct queue_claim *claim, int64_t context)
{
    const struct msg_work *work = &brief->message.work;
    struct message *deps = mem_must_zalloc((claim->n_deps + 1) * sizeof *deps);
    struct bytes *texts = mem_must_zalloc((claim->n_deps + 1) * sizeof *texts);
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < claim->n_deps; i++) {
        rc = message_decode_as(&deps[i], MESSAGE_outcome, claim->deps[i].data, claim->deps[i].len);
        if (rc == 0)
            texts[i] = deps[i].outcome.text;
    }
    if (rc == 0) {
        compose_prompt(&brief->prompt, work, texts, claim->n_deps, context, work->max_tokens);
        utf8_add_repaired(&brief->system, work->system.data, work->system.len);
        rc = brief->prompt.failed || brief->system.failed ? -ENOMEM : 0;
    }
    for (size_t i = 0; i < claim->n_deps; i++)
        message_release(&deps[i]);
    free(texts);
    free(deps);
    return rc;
}

static int copy(struct brief *brief)
{
    const struct msg_work *work = &brief->message.work;
    utf8_add_repaired(&brief->prompt, work->prompt.data, work->prompt.len);
    return brief->prompt.failed ? -ENOMEM : 0;
}

int brief_read(struct brief *ret, const struct queue_claim *claim, int64_t context)
{
    *ret = (struct brief){0};
    int rc = message_decode_as(&ret->message, MESSAGE_work, claim->work.data, claim->work.len);
    if (rc != 0)
        return rc;
    const char *kind = ret->message.work.kind;
    if (strcmp(kind, "embed") == 0 || strcmp(kind, "list") == 0)
        return copy(ret);
    return compose(ret, claim, context);
}

void brief_release(struct brief *brief)
{
    message_release(&brief->message);
    buf_release(&brief->prompt);
    buf_release(&brief->system);
}
