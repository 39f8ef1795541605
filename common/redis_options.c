/* Where Redis is: addresses, and copies of the options. */
#include <stdlib.h>
#include <string.h>

#include "common/redis_internal.h"
#include "schemas/mem.h"

#define HOST_MAX 255

bool redis_place_parse(const char *text, size_t len, struct redis_place *ret)
{
    const char *colon = memrchr(text, ':', len);
    if (colon == NULL || colon == text)
        return false;
    size_t host_len = (size_t)(colon - text), digits = len - host_len - 1;
    int port = 0;
    for (size_t i = 0; i < digits && port <= 65535; i++) {
        char c = colon[1 + i];
        if (c < '0' || c > '9')
            return false;
        port = port * 10 + (c - '0');
    }
    if (port < 1 || port > 65535)
        return false;
    if (text[0] == '[' && text[host_len - 1] == ']' && host_len > 2) {
        text++;
        host_len -= 2;
    }
    for (size_t i = 0; i < host_len; i++)
        if ((unsigned char)text[i] <= ' ' || text[i] == '[' || text[i] == ']' || text[i] == '@' ||
            text[i] == '/')
            return false;
    if (host_len > HOST_MAX)
        return false;
    *ret = (struct redis_place){.host = mem_must_strndup(text, host_len), .port = port};
    return true;
}

void redis_place_release(struct redis_place *place)
{
    free(place->socket);
    free(place->host);
    *place = (struct redis_place){0};
}

char *redis_place_name(const struct redis_place *place)
{
    if (place->socket != NULL)
        return mem_must_printf("unix:%s", place->socket);
    const char *format = strchr(place->host, ':') != NULL ? "[%s]:%d" : "%s:%d";
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    return mem_must_printf(format, place->host, place->port);
#pragma GCC diagnostic pop
}

/* --- options ------------------------------------------------------------------------------ */

static char *copy(const char *text)
{
    return text != NULL ? mem_must_strdup(text) : NULL;
}

static char **copy_list(char *const *texts, size_t n)
{
    char **list = n > 0 ? mem_must_zalloc(n * sizeof *list) : NULL;
    for (size_t i = 0; i < n; i++)
        list[i] = mem_must_strdup(texts[i]);
    return list;
}

void redis_options_copy(struct redis_options *ret, const struct redis_options *from)
{
    *ret = *from;
#define X(member) ret->member = copy(from->member);
    REDIS_OPTION_TEXTS(X)
#undef X
    ret->sentinels = copy_list(from->sentinels, from->n_sentinels);
    ret->cluster = copy_list(from->cluster, from->n_cluster);
}

static void release_text(char *text)
{
    if (text != NULL)
        explicit_bzero(text, strlen(text)); /* it may be a password */
    free(text);
}

static void release_list(char **texts, size_t n)
{
    for (size_t i = 0; texts != NULL && i < n; i++)
        free(texts[i]);
    free(texts);
}

void redis_options_release(struct redis_options *options)
{
#define X(member) release_text(options->member);
    REDIS_OPTION_TEXTS(X)
#undef X
    release_list(options->sentinels, options->n_sentinels);
    release_list(options->cluster, options->n_cluster);
    *options = (struct redis_options){0};
}
