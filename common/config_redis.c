/* Where Redis is: URLs to options and back. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/config_tables.h"
#include "schemas/mem.h"

#define REDIS_PORT 6379
#define MAX_DATABASE 100000

static bool add_percent(struct buf *out, const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        char digits[3] = {0};
        char *end;
        if (text[i] != '%') {
            buf_add_char(out, text[i]);
            continue;
        }
        if (len - i < 3)
            return false;
        memcpy(digits, text + i + 1, 2);
        long byte = strtol(digits, &end, 16);
        if (end != digits + 2 || byte <= 0)
            return false;
        buf_add_char(out, (char)byte);
        i += 2;
    }
    return true;
}

/* Percent-decodes; -EINVAL when an escape is wrong. *ret stays NULL for no text. */
static int decode(const char *text, size_t len, char **ret)
{
    struct buf out = {0};
    if (len == 0)
        return 0;
    bool valid = add_percent(&out, text, len);
    if (!valid || out.failed) {
        buf_release(&out);
        return valid ? -ENOMEM : -EINVAL;
    }
    *ret = buf_take(&out, NULL);
    return 0;
}

/* Digits only, at most max; -1 when it is something else. */
static int number(const char *text, size_t len, int max)
{
    long value = 0;
    if (len == 0 || len > 9)
        return -1;
    for (size_t i = 0; i < len; i++) {
        if (text[i] < '0' || text[i] > '9')
            return -1;
        value = value * 10 + (text[i] - '0');
    }
    return value <= max ? (int)value : -1;
}

static int parse_credentials(const char *text, size_t len, struct redis_options *ret,
                             const char **ret_reason)
{
    const char *colon = memchr(text, ':', len);
    size_t user_len = colon != NULL ? (size_t)(colon - text) : len;
    int rc = decode(text, user_len, &ret->user);
    if (rc == 0 && colon != NULL)
        rc = decode(colon + 1, len - user_len - 1, &ret->password);
    if (rc == -EINVAL)
        *ret_reason = "user or password have a wrong %-escape";
    return rc;
}

static int parse_host(const char *text, size_t len, struct redis_options *ret,
                      const char **ret_reason)
{
    const char *bracket = text[0] == '[' ? memchr(text, ']', len) : NULL;
    size_t host_len = bracket != NULL ? (size_t)(bracket - text) + 1 : 0;
    const char *colon = memchr(text + host_len, ':', len - host_len);
    ret->port = REDIS_PORT;
    if (colon != NULL) {
        ret->port = number(colon + 1, len - (size_t)(colon - text) - 1, 65535);
        len = (size_t)(colon - text);
    }
    if (ret->port <= 0) {
        *ret_reason = "the port must be a number from 1 to 65535";
        return -EINVAL;
    }
    bool bracketed = bracket != NULL && host_len == len;
    if (len == 0 || (text[0] == '[' && !bracketed)) {
        *ret_reason = "it has no host";
        return -EINVAL;
    }
    ret->host = bracketed ? mem_strndup(text + 1, len - 2) : mem_strndup(text, len);
    return ret->host != NULL ? 0 : -ENOMEM;
}

static int parse_tcp(const char *rest, struct redis_options *ret, const char **ret_reason)
{
    size_t authority = strcspn(rest, "/");
    const char *path = rest + authority;
    if (*path == '/' && path[1] != '\0') {
        ret->database = number(path + 1, strlen(path + 1), MAX_DATABASE);
        if (ret->database < 0) {
            *ret_reason = "what follows the / must be the number of a database";
            return -EINVAL;
        }
    }
    const char *at = memrchr(rest, '@', authority);
    if (at != NULL) {
        int rc = parse_credentials(rest, (size_t)(at - rest), ret, ret_reason);
        if (rc != 0)
            return rc;
        authority -= (size_t)(at + 1 - rest);
        rest = at + 1;
    }
    return parse_host(rest, authority, ret, ret_reason);
}

static int parse_unix(const char *path, struct redis_options *ret, const char **ret_reason)
{
    size_t len = strcspn(path, "?");
    if (path[0] != '/' || len < 2) {
        *ret_reason = "the path of the socket must be absolute: unix:///path";
        return -EINVAL;
    }
    if (path[len] == '?') {
        const char *query = path + len + 1;
        bool known = strncmp(query, "db=", 3) == 0;
        ret->database = known ? number(query + 3, strlen(query + 3), MAX_DATABASE) : -1;
        if (ret->database < 0) {
            *ret_reason = "behind the ? only db=NUMBER is known";
            return -EINVAL;
        }
    }
    ret->socket = mem_strndup(path, len);
    return ret->socket != NULL ? 0 : -ENOMEM;
}

int config_redis_url(const char *url, struct redis_options *ret, const char **ret_reason)
{
    *ret = (struct redis_options){0};
    ret->tls = strncmp(url, "rediss://", 9) == 0;
    if (ret->tls || strncmp(url, "redis://", 8) == 0)
        return parse_tcp(url + (ret->tls ? 9 : 8), ret, ret_reason);
    if (strncmp(url, "unix://", 7) == 0)
        return parse_unix(url + 7, ret, ret_reason);
    *ret_reason = "it must be `local`, redis://[[user]:password@]host[:port][/db], rediss://... "
                  "or unix:///path";
    return -EINVAL;
}

static void add_encoded(struct buf *out, const char *text)
{
    for (; *text != '\0'; text++) {
        unsigned char c = (unsigned char)*text;
        bool plain = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
                     memchr("-._~", c, 4) != NULL;
        if (plain)
            buf_add_char(out, (char)c);
        else
            buf_printf(out, "%%%02X", c);
    }
}

void config_redis_print(const struct redis_options *options, bool show_password, struct buf *out)
{
    if (options->socket != NULL) {
        buf_printf(out, "unix://%s", options->socket);
        if (options->database > 0)
            buf_printf(out, "?db=%d", options->database);
        return;
    }
    buf_add_str(out, options->tls ? "rediss://" : "redis://");
    if (options->user != NULL)
        add_encoded(out, options->user);
    if (options->password != NULL) {
        buf_add_char(out, ':');
        if (show_password)
            add_encoded(out, options->password);
        else
            buf_add_str(out, "***");
    }
    if (options->user != NULL || options->password != NULL)
        buf_add_char(out, '@');
    bool v6 = options->host != NULL && strchr(options->host, ':') != NULL;
    buf_printf(out, v6 ? "[%s]:%d/%d" : "%s:%d/%d", options->host != NULL ? options->host : "",
               options->port, options->database);
}
