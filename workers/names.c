#include "workers/names.h"

#include <errno.h>

#include "workers/failure.h"
#include "workers/wire.h"

void names_read(struct provider_reply *reply, const char *data, size_t len, const char *list,
                const char *name, const char *prefix)
{
    struct json_view document;
    if (reply->error != CLASS_NONE)
        return;
    if (!json_view_parse(&document, data, len)) {
        failure_no_json(reply, "the list of models", data, len);
        return;
    }
    struct json_view holder =
        document.kind == JSON_VIEW_ARRAY ? json_view_first(document) : document;
    if (wire_error(reply, document, json_view_member(holder, "error"), CLASS_BAD_RESPONSE))
        return;
    int rc = wire_list(data, len, list, name, prefix, &reply->text);
    if (rc != 0) {
        provider_reply_fail(reply, rc == -ENOMEM ? CLASS_RETRY : CLASS_BAD_RESPONSE,
                            rc == -ENOMEM ? "out of memory while reading the list of models"
                                          : "the list of models has no \"%s\"",
                            list);
        return;
    }
    reply->finish = FINISH_DONE;
    reply->finished = true;
}
