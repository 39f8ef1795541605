#include "simulator/family.h"

#include <string.h>
#include <time.h>

static const struct sim_family *const families[] = {
    &sim_family_openai, &sim_family_anthropic, &sim_family_gemini,   &sim_family_ollama,
    &sim_family_search, &sim_family_responses, &sim_family_lmstudio,
};
_Static_assert(sizeof families / sizeof *families <= SIM_FAMILY_MAX, "raise SIM_FAMILY_MAX");

const struct sim_family *const *sim_family_table(size_t *ret_count)
{
    *ret_count = sizeof families / sizeof *families;
    return families;
}

const struct sim_family *sim_family_find(const char *name)
{
    for (size_t i = 0; i < sizeof families / sizeof *families; i++)
        if (strcmp(families[i]->name, name) == 0)
            return families[i];
    return NULL;
}

double sim_family_retry_s(const struct sim_error *error)
{
    if (error->retry_after_s >= 0)
        return error->retry_after_s;
    return error->kind == SIM_KIND_RATE_LIMIT ? 1 : -1;
}

/* Adds the placeholder at `at` and returns its length; 0 when there is none. */
static size_t add_placeholder(struct buf *out, const char *at, const struct sim_request *request,
                              const struct sim_error *error)
{
    if (strncmp(at, "{model}", 7) == 0)
        return buf_add_str(out, request->model), 7;
    if (strncmp(at, "{tokens}", 8) == 0)
        return buf_printf(out, "%lld", (long long)request->prompt_tokens), 8;
    if (strncmp(at, "{path}", 6) == 0)
        return buf_add_str(out, request->path), 6;
    if (strncmp(at, "{method}", 8) == 0)
        return buf_add_str(out, request->method), 8;
    if (strncmp(at, "{retry}", 7) == 0)
        return buf_printf(out, "%g", sim_family_retry_s(error)), 7;
    if (strncmp(at, "{key}", 5) == 0)
        return buf_add_str(out, request->key), 5;
    return 0;
}

void sim_family_message(struct buf *out, const struct sim_request *request,
                        const struct sim_error *error, const struct sim_error_row *row)
{
    if (error->message[0] != '\0' && !error->scripted) {
        buf_add_str(out, error->message); /* it quotes what came */
        return;
    }
    for (const char *at = error->scripted ? error->message : row->message; *at != '\0';) {
        size_t len = *at == '{' ? add_placeholder(out, at, request, error) : 0;
        if (len == 0) {
            buf_add_char(out, *at);
            len = 1;
        }
        at += len;
    }
}

void sim_family_add_json(struct buf *out, const char *text)
{
    if (text != NULL)
        buf_add_json(out, text, strlen(text));
    else
        buf_add_str(out, "null");
}

void sim_family_add_date(struct buf *out, int64_t unix_s, int ms)
{
    time_t when = (time_t)unix_s;
    struct tm tm;
    char text[32];
    gmtime_r(&when, &tm);
    strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &tm);
    buf_add_str(out, text);
    if (ms >= 0)
        buf_printf(out, ".%03d", ms);
    buf_add_char(out, 'Z');
}
