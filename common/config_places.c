/* Values that say where something is: URLs, keys, Redis. config_bus.c has the brokers. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/config_tables.h"
#include "common/paths.h"
#include "schemas/mem.h"

/* --- URLs and keys ------------------------------------------------------------------------ */

bool config_url_check(const char *url, const char **ret_reason)
{
    size_t scheme = strncmp(url, "http://", 7) == 0 ? 7 : strncmp(url, "https://", 8) == 0 ? 8 : 0;
    size_t authority = strcspn(url + scheme, "/?#");
    const char *host = url + scheme;
    if (scheme == 0)
        *ret_reason = "it must start with http:// or https://";
    else if (memchr(host, '@', authority) != NULL)
        *ret_reason = "a user or a key does not belong in it: use `key`";
    else if (authority == 0 || host[0] == ':')
        *ret_reason = "it has no host";
    else if (strpbrk(url, "?#") != NULL)
        *ret_reason = "it must not have ? or #";
    else if (strpbrk(url, " \t\r\n\"<>\\^`{|}") != NULL)
        *ret_reason = "it has a character that URLs cannot have";
    else
        return true;
    return false;
}

/* Without trailing slashes and the version that the vendor's own clients add. */
static size_t base_url_len(const char *url)
{
    static const char *const versions[] = {"/v1", "/v1beta", "/api"};
    size_t len = strlen(url);
    while (len > 0 && url[len - 1] == '/')
        len--;
    for (size_t i = 0; i < sizeof versions / sizeof *versions; i++) {
        size_t tail = strlen(versions[i]);
        if (len > tail && strncmp(url + len - tail, versions[i], tail) == 0) {
            len -= tail;
            break;
        }
    }
    while (len > 0 && url[len - 1] == '/')
        len--;
    return len;
}

static int set_url(struct config_reader *reader, const struct config_field *field,
                   const struct yaml_node *node, void *base)
{
    const char *text, *reason;
    if (!yaml_str(node, &text))
        return config_problem(reader, node, "`%s` must be a URL", field->key);
    if (!config_url_check(text, &reason))
        return config_problem(reader, node, "`%s` is not a usable URL: %s", field->key, reason);
    return config_replace_text(config_member(field, base), text, base_url_len(text));
}

const struct config_kind config_kind_url = {"URL", set_url, config_print_text, config_release_text};

static bool is_key_reference(const char *text)
{
    static const char *const prefixes[] = {"env:", "file:", "cmd:"};
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++) {
        size_t len = strlen(prefixes[i]);
        if (strncmp(text, prefixes[i], len) == 0)
            return text[len] != '\0';
    }
    return false;
}

/* The message never repeats the value: it may be the key itself. */
static int set_keys(struct config_reader *reader, const struct config_field *field,
                    const struct yaml_node *node, void *base)
{
    char **texts = NULL;
    size_t count = 0;
    int rc = config_copy_texts(reader, field, node, &texts, &count);
    if (rc != 0)
        return rc;
    if (count == 1 && strcmp(texts[0], "none") == 0) {
        config_free_texts(texts, count);
        config_release_texts(field, base);
        return 0;
    }
    for (size_t i = 0; i < count; i++)
        if (!is_key_reference(texts[i])) {
            const struct yaml_node *at = node->type == YAML_SEQ ? yaml_at(node, i) : node;
            config_free_texts(texts, count);
            return config_problem(reader, at,
                                  "`%s` must say where the key is, not what it is: env:NAME, "
                                  "file:PATH, cmd:COMMAND or none",
                                  field->key);
        }
    config_release_texts(field, base);
    *(char ***)config_member(field, base) = texts;
    *config_count_of(field, base) = count;
    return 0;
}

static void print_keys(const struct config_field *field, const void *base, struct buf *out)
{
    if (*(const size_t *)(const void *)((const char *)base + field->count_offset) == 0)
        buf_add_str(out, "none");
    else
        config_print_texts(field, base, out);
}

const struct config_kind config_kind_keys = {"place of a key, or a list", set_keys, print_keys,
                                             config_release_texts};
