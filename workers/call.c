#include "workers/call.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

/* The length of a header's name; 0 when the line is no header. */
static size_t name_length(const char *header)
{
    static const char name_chars[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                     "0123456789!#$%&'*+-.^_`|~"; /* RFC 9110 */
    size_t len = strspn(header, name_chars);
    return header[len] == ':' ? len : 0;
}

static bool has_control(const char *text)
{
    for (; *text != '\0'; text++)
        if (((unsigned char)*text < ' ' && *text != '\t') || *text == 0x7f)
            return true;
    return false;
}

/* Takes the header of that name out of the lines. */
static void drop_header(struct buf *headers, const char *name, size_t len)
{
    for (char *line = headers->data; line != NULL && *line != '\0';) {
        char *next = strchr(line, '\n');
        next = next != NULL ? next + 1 : line + strlen(line);
        if (strncasecmp(line, name, len) != 0 || line[len] != ':') {
            line = next;
            continue;
        }
        size_t rest = (size_t)(headers->data + headers->len - next);
        memmove(line, next, rest + 1);
        headers->len = (size_t)(line - headers->data) + rest;
    }
}

int call_headers(const struct provider_call *call, struct provider_request *ret, struct err *err)
{
    for (size_t i = 0; i < call->n_headers; i++) {
        const char *header = call->headers[i];
        size_t len = name_length(header);
        if (len == 0 || has_control(header))
            return err_set(err, -EINVAL,
                           "request header %zu of the provider is no line \"Name: value\"", i + 1);
        drop_header(&ret->headers, header, len);
        buf_add_str(&ret->headers, header);
        buf_add_char(&ret->headers, '\n');
    }
    return 0;
}

bool call_has_system(const struct provider_call *call)
{
    return call->system[0] != '\0' && !call->no_system;
}

void call_prompt(const struct provider_call *call, struct buf *body)
{
    if (call->system[0] == '\0' || !call->no_system) {
        buf_add_json(body, call->prompt, call->prompt_len);
        return;
    }
    struct buf text = {0};
    buf_add_str(&text, call->system);
    buf_add_str(&text, "\n\n");
    buf_add(&text, call->prompt, call->prompt_len);
    if (text.failed)
        body->failed = true;
    else
        buf_add_json(body, text.data, text.len);
    buf_release(&text);
}

void call_stop(const struct provider_call *call, const char *name, struct buf *body)
{
    bool any = false;
    for (size_t i = 0; i < call->n_stop; i++) {
        if (call->stop[i][0] == '\0')
            continue;
        if (any)
            buf_add_char(body, ',');
        else
            buf_printf(body, ",\"%s\":[", name);
        any = true;
        buf_add_json(body, call->stop[i], strlen(call->stop[i]));
    }
    if (any)
        buf_add_char(body, ']');
}

bool call_thinks(const struct provider_call *call)
{
    return call->effort != NULL && call->effort[0] != '\0' && !call_thinks_not(call);
}

bool call_thinks_not(const struct provider_call *call)
{
    return call->effort != NULL && strcmp(call->effort, "none") == 0;
}
