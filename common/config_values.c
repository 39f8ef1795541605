/* The types of values that a configuration has: reading, printing and freeing each. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/config_tables.h"
#include "common/paths.h"
#include "schemas/mem.h"

/* The member that the field describes; tables make sure that the type is right. */
static void *member(const struct config_field *field, void *base)
{
    return (char *)base + field->offset;
}

static const void *member_of(const struct config_field *field, const void *base)
{
    return (const char *)base + field->offset;
}

static size_t *count_of(const struct config_field *field, void *base)
{
    return (size_t *)(void *)((char *)base + field->count_offset);
}

char *config_text(const char *format, ...)
{
    struct buf out = {0};
    va_list args;
    va_start(args, format);
    buf_vprintf(&out, format, args);
    va_end(args);
    char *text = buf_take(&out, NULL);
    if (text == NULL)
        buf_release(&out);
    return text;
}

static void free_texts(char **texts, size_t count)
{
    for (size_t i = 0; texts != NULL && i < count; i++)
        free(texts[i]);
    free(texts);
}

/* --- printing text ------------------------------------------------------------------------ */

static bool is_plain(const char *text)
{
    static const char *const words[] = {"null", "Null",  "NULL",  "true", "True",
                                        "TRUE", "false", "False", "FALSE"};
    static const char safe[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_./-";
    if (*text == '\0' || *text == '-' || *text == '.' || strspn(text, safe) != strlen(text))
        return false;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strcmp(text, words[i]) == 0)
            return false;
    return true;
}

/* Characters beyond ASCII that a YAML reader refuses or takes for line ends. text is UTF-8. */
static unsigned special(const unsigned char *text)
{
    if (text[0] == 0xc2 && text[1] < 0xa0)
        return 0x80u + (text[1] & 0x3fu);
    if (text[0] < 0xe2 || text[0] > 0xef || text[1] == 0 || text[2] == 0)
        return 0;
    unsigned code = (text[0] & 0xfu) << 12 | (text[1] & 0x3fu) << 6 | (text[2] & 0x3fu);
    bool odd = code == 0x2028 || code == 0x2029 || code == 0xfeff || code >= 0xfffe;
    return odd ? code : 0;
}

void config_add_text(struct buf *out, const char *text)
{
    if (is_plain(text)) {
        buf_add_str(out, text);
        return;
    }
    buf_add_char(out, '"');
    for (const unsigned char *at = (const unsigned char *)text; *at != '\0'; at++) {
        unsigned code = *at >= 0x80 ? special(at) : 0;
        if (*at == '"' || *at == '\\')
            buf_printf(out, "\\%c", *at);
        else if (*at == '\n')
            buf_add_str(out, "\\n");
        else if (*at == '\t')
            buf_add_str(out, "\\t");
        else if (*at < 0x20 || *at == 0x7f)
            buf_printf(out, "\\x%02X", *at);
        else if (code != 0)
            buf_printf(out, "\\u%04X", code);
        else
            buf_add_char(out, (char)*at);
        if (code != 0)
            at += code < 0x800 ? 1 : 2;
    }
    buf_add_char(out, '"');
}

static void print_list(char *const *texts, size_t count, struct buf *out)
{
    buf_add_char(out, '[');
    for (size_t i = 0; i < count; i++) {
        if (i > 0)
            buf_add_str(out, ", ");
        config_add_text(out, texts[i]);
    }
    buf_add_char(out, ']');
}

/* --- text --------------------------------------------------------------------------------- */

static int replace_text(char **at, const char *text, size_t len)
{
    char *copy = mem_strndup(text, len);
    if (copy == NULL)
        return -ENOMEM;
    free(*at);
    *at = copy;
    return 0;
}

static int set_text(struct config_reader *reader, const struct config_field *field,
                    const struct yaml_node *node, void *base)
{
    const char *text;
    if (!yaml_str(node, &text))
        return config_problem(reader, node, "`%s` must be text", field->key);
    if (*text == '\0' && strcmp(field->key, "system") != 0)
        return config_problem(reader, node, "`%s` must not be empty", field->key);
    return replace_text(member(field, base), text, node->len);
}

static void print_text(const struct config_field *field, const void *base, struct buf *out)
{
    const char *text = *(char *const *)member_of(field, base);
    if (text != NULL)
        config_add_text(out, text);
}

static void release_text(const struct config_field *field, void *base)
{
    char **at = member(field, base);
    free(*at);
    *at = NULL;
}

const struct config_kind config_kind_text = {"text", set_text, print_text, release_text};

/* --- lists of text ------------------------------------------------------------------------ */

/* Copies a list, or a single text, of the node. */
static int copy_texts(struct config_reader *reader, const struct config_field *field,
                      const struct yaml_node *node, char ***ret, size_t *ret_count)
{
    if (node->type == YAML_MAP)
        return config_problem(reader, node, "`%s` must be a list of texts", field->key);
    size_t count = node->type == YAML_SEQ ? node->count : 1, n = 0;
    if (count > CONFIG_MAX_ITEMS)
        return config_problem(reader, node, "`%s` has more than %d items", field->key,
                              CONFIG_MAX_ITEMS);
    char **texts = mem_zalloc(count * sizeof *texts);
    if (texts == NULL)
        return -ENOMEM;
    const struct yaml_node *item = node->type == YAML_SEQ ? node->first : node;
    int rc = 0;
    for (; rc == 0 && n < count; item = item->next) {
        const char *text;
        if (!yaml_str(item, &text) || *text == '\0')
            rc = config_problem(reader, item, "`%s` must be a list of texts", field->key);
        else
            rc = replace_text(&texts[n++], text, item->len);
    }
    if (rc != 0) {
        free_texts(texts, n);
        return rc;
    }
    *ret = texts;
    *ret_count = count;
    return 0;
}

static void release_texts(const struct config_field *field, void *base)
{
    char ***at = member(field, base);
    size_t *count = count_of(field, base);
    free_texts(*at, *count);
    *at = NULL;
    *count = 0;
}

static int set_texts(struct config_reader *reader, const struct config_field *field,
                     const struct yaml_node *node, void *base)
{
    char **texts = NULL;
    size_t count = 0;
    int rc = copy_texts(reader, field, node, &texts, &count);
    if (rc != 0)
        return rc;
    release_texts(field, base);
    *(char ***)member(field, base) = texts;
    *count_of(field, base) = count;
    return 0;
}

static void print_texts(const struct config_field *field, const void *base, struct buf *out)
{
    size_t count = *(const size_t *)(const void *)((const char *)base + field->count_offset);
    if (count > 0)
        print_list(*(char **const *)member_of(field, base), count, out);
}

const struct config_kind config_kind_texts = {"list of text", set_texts, print_texts,
                                              release_texts};

/* --- numbers and words -------------------------------------------------------------------- */

static int set_int(struct config_reader *reader, const struct config_field *field,
                   const struct yaml_node *node, void *base)
{
    int64_t value;
    if (!yaml_int(node, &value) || (double)value < field->min || (double)value > field->max)
        return config_problem(reader, node, "`%s` must be a whole number from %.0f to %.0f",
                              field->key, field->min, field->max);
    *(int64_t *)member(field, base) = value;
    return 0;
}

static void print_int(const struct config_field *field, const void *base, struct buf *out)
{
    buf_printf(out, "%lld", (long long)*(const int64_t *)member_of(field, base));
}

static int set_num(struct config_reader *reader, const struct config_field *field,
                   const struct yaml_node *node, void *base)
{
    double value;
    if (!yaml_num(node, &value) || value < field->min || value > field->max)
        return config_problem(reader, node, "`%s` must be a number from %.15g to %.15g", field->key,
                              field->min, field->max);
    *(double *)member(field, base) = value;
    return 0;
}

/* The shortest form that reads back to the same number. */
static void print_num(const struct config_field *field, const void *base, struct buf *out)
{
    double value = *(const double *)member_of(field, base);
    char text[40];
    for (int digits = 6; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value)
            break;
    }
    buf_add_str(out, text);
}

static int set_bool(struct config_reader *reader, const struct config_field *field,
                    const struct yaml_node *node, void *base)
{
    bool value;
    if (!yaml_bool(node, &value))
        return config_problem(reader, node, "`%s` must be true or false", field->key);
    *(bool *)member(field, base) = value;
    return 0;
}

static void print_bool(const struct config_field *field, const void *base, struct buf *out)
{
    buf_add_str(out, *(const bool *)member_of(field, base) ? "true" : "false");
}

/* "a, b or c" */
static void list_choices(const char *const *choices, char *out, size_t size)
{
    size_t len = 0;
    for (size_t i = 0; choices[i] != NULL && len < size; i++) {
        const char *before = i == 0 ? "" : choices[i + 1] == NULL ? " or " : ", ";
        int more = snprintf(out + len, size - len, "%s%s", before, choices[i]);
        len += more > 0 ? (size_t)more : 0;
    }
}

/* Checks that the node is one of the choices. */
static int check_choice(struct config_reader *reader, const char *key, const char *const *choices,
                        const struct yaml_node *node)
{
    const char *text = "";
    bool is_text = yaml_str(node, &text);
    for (size_t i = 0; is_text && choices[i] != NULL; i++)
        if (strcmp(choices[i], text) == 0)
            return 0;
    char all[256];
    list_choices(choices, all, sizeof all);
    const char *nearest = is_text ? yaml_nearest(text, choices) : NULL;
    if (nearest != NULL)
        return config_problem(reader, node, "`%s` must be %s, not `%.64s`; did you mean `%s`?", key,
                              all, text, nearest);
    return config_problem(reader, node, "`%s` must be %s", key, all);
}

static int set_choice(struct config_reader *reader, const struct config_field *field,
                      const struct yaml_node *node, void *base)
{
    int rc = check_choice(reader, field->key, field->choices, node);
    return rc != 0 ? rc : set_text(reader, field, node, base);
}

static int set_offline(struct config_reader *reader, const struct config_field *field,
                       const struct yaml_node *node, void *base)
{
    int rc = check_choice(reader, field->key, field->choices, node);
    if (rc == 0)
        *(bool *)member(field, base) = strcmp(node->text, "offline") == 0;
    return rc;
}

static void print_offline(const struct config_field *field, const void *base, struct buf *out)
{
    buf_add_str(out, *(const bool *)member_of(field, base) ? "offline" : "online");
}

static int set_api(struct config_reader *reader, const struct config_field *field,
                   const struct yaml_node *node, void *base)
{
    const char *text = "";
    if (yaml_str(node, &text) && strcmp(text, "search") == 0)
        return config_problem(reader, node,
                              "`api: search` is not available in this version: remove the provider "
                              "and its models");
    const char *names[32] = {0};
    size_t count;
    const struct config_api *table = config_apis(&count);
    for (size_t i = 0; i < count && i < 31; i++)
        names[i] = table[i].name;
    int rc = check_choice(reader, field->key, names, node);
    return rc != 0 ? rc : set_text(reader, field, node, base);
}

const struct config_kind config_kind_int = {"whole number", set_int, print_int, NULL};
const struct config_kind config_kind_num = {"number", set_num, print_num, NULL};
const struct config_kind config_kind_bool = {"true or false", set_bool, print_bool, NULL};
const struct config_kind config_kind_choice = {"word", set_choice, print_text, release_text};
const struct config_kind config_kind_offline = {"word", set_offline, print_offline, NULL};
const struct config_kind config_kind_api = {"word", set_api, print_text, release_text};

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
    return replace_text(member(field, base), text, base_url_len(text));
}

const struct config_kind config_kind_url = {"URL", set_url, print_text, release_text};

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
    int rc = copy_texts(reader, field, node, &texts, &count);
    if (rc != 0)
        return rc;
    if (count == 1 && strcmp(texts[0], "none") == 0) {
        free_texts(texts, count);
        release_texts(field, base);
        return 0;
    }
    for (size_t i = 0; i < count; i++)
        if (!is_key_reference(texts[i])) {
            const struct yaml_node *at = node->type == YAML_SEQ ? yaml_at(node, i) : node;
            free_texts(texts, count);
            return config_problem(reader, at,
                                  "`%s` must say where the key is, not what it is: env:NAME, "
                                  "file:PATH, cmd:COMMAND or none",
                                  field->key);
        }
    release_texts(field, base);
    *(char ***)member(field, base) = texts;
    *count_of(field, base) = count;
    return 0;
}

static void print_keys(const struct config_field *field, const void *base, struct buf *out)
{
    print_texts(field, base, out);
    if (*(const size_t *)(const void *)((const char *)base + field->count_offset) == 0)
        buf_add_str(out, "none");
}

const struct config_kind config_kind_keys = {"place of a key, or a list", set_keys, print_keys,
                                             release_texts};

/* --- Redis and brokers -------------------------------------------------------------------- */

static void release_redis(const struct config_field *field, void *base)
{
    (void)field;
    struct redis_options *redis = &((struct config *)base)->redis;
    free(redis->socket);
    free(redis->host);
    free(redis->user);
    free(redis->password);
    *redis = (struct redis_options){0};
}

static int set_redis(struct config_reader *reader, const struct config_field *field,
                     const struct yaml_node *node, void *base)
{
    struct config *config = base;
    const char *text, *reason = "";
    if (node->type == YAML_MAP)
        return config_problem(reader, node,
                              "`redis`: Sentinel is not supported in this version: give the "
                              "master's address as redis://host:port");
    if (!yaml_str(node, &text))
        return config_problem(reader, node, "`redis` must be `local` or a URL");
    struct redis_options options = {0};
    int rc = 0;
    bool local = strcmp(text, "local") == 0;
    if (local)
        options.socket = config_text("%s/%s", config->home, PATH_REDIS_SOCKET);
    else
        rc = config_redis_url(text, &options, &reason);
    if (local && options.socket == NULL)
        rc = -ENOMEM;
    if (rc == -EINVAL)
        rc = config_problem(reader, node, "`redis` is not usable: %s", reason);
    if (rc == 0)
        release_redis(field, base);
    struct config scratch = {.redis = rc == 0 ? (struct redis_options){0} : options};
    release_redis(field, &scratch);
    if (rc == 0) {
        config->redis = options;
        config->redis_local = local;
    }
    return rc;
}

static void print_redis(const struct config_field *field, const void *base, struct buf *out)
{
    (void)field;
    const struct config *config = base;
    struct buf url = {0};
    if (config->redis_local) {
        buf_add_str(out, "local");
        return;
    }
    config_redis_print(&config->redis, true, &url);
    config_add_text(out, url.len > 0 ? url.data : "");
    out->failed |= url.failed;
    buf_release(&url);
}

const struct config_kind config_kind_redis = {"`local` or URL", set_redis, print_redis,
                                              release_redis};

/* An endpoint and its taps'. 0; -EINVAL with a reason; -ENOMEM. */
static int broker_endpoints(const struct config *config, const char *text, char **ret_broker,
                            char **ret_taps, const char **ret_reason)
{
    const char *colon = strrchr(text, ':');
    if (strcmp(text, "local") == 0) {
        *ret_broker = config_text("ipc://%s/%s", config->home, PATH_BROKER_SOCKET);
        *ret_taps = config_text("ipc://%s/%s", config->home, PATH_TAPS_SOCKET);
    } else if (strncmp(text, "ipc:///", 7) == 0 && text[7] != '\0') {
        *ret_broker = config_text("%s", text);
        *ret_taps = config_text("%s.taps", text);
    } else if (strncmp(text, "tcp://", 6) == 0 && colon > text + 6) {
        char *end;
        long port = strtol(colon + 1, &end, 10);
        if (end == colon + 1 || *end != '\0' || port < 1 || port > 65534) {
            *ret_reason = "the port must be a number from 1 to 65534; taps use the next one";
            return -EINVAL;
        }
        *ret_broker = config_text("%s", text);
        *ret_taps = config_text("%.*s:%ld", (int)(colon - text), text, port + 1);
    } else {
        *ret_reason = "it must be `local`, tcp://host:port or ipc:///path";
        return -EINVAL;
    }
    return *ret_broker != NULL && *ret_taps != NULL ? 0 : -ENOMEM;
}

static void release_brokers(const struct config_field *field, void *base)
{
    (void)field;
    struct config *config = base;
    free_texts(config->brokers, config->n_brokers);
    free_texts(config->taps, config->n_brokers);
    config->brokers = config->taps = NULL;
    config->n_brokers = 0;
}

/* Fills the lists of `config` from the texts. */
static int fill_brokers(struct config_reader *reader, const struct yaml_node *node,
                        char *const *texts, size_t count, struct config *config)
{
    config->brokers = mem_zalloc(count * sizeof *config->brokers);
    config->taps = mem_zalloc(count * sizeof *config->taps);
    if (config->brokers == NULL || config->taps == NULL)
        return -ENOMEM;
    for (size_t i = 0; i < count; i++) {
        const struct yaml_node *at = node->type == YAML_SEQ ? yaml_at(node, i) : node;
        const char *reason = "";
        config->n_brokers = i + 1;
        int rc = broker_endpoints(config, texts[i], &config->brokers[i], &config->taps[i], &reason);
        if (rc == -EINVAL)
            return config_problem(reader, at, "`bus.brokers`: `%.64s` is not usable: %s", texts[i],
                                  reason);
        if (rc != 0)
            return rc;
        for (size_t j = 0; j < i; j++)
            if (strcmp(texts[i], texts[j]) == 0)
                return config_problem(reader, at, "`bus.brokers`: `%.64s` is there twice",
                                      texts[i]);
        config->broker_local |= strcmp(texts[i], "local") == 0;
    }
    return 0;
}

static int set_brokers(struct config_reader *reader, const struct config_field *field,
                       const struct yaml_node *node, void *base)
{
    struct config *config = base;
    struct config made = {.home = config->home};
    char **texts = NULL;
    size_t count = 0;
    int rc = copy_texts(reader, field, node, &texts, &count);
    if (rc == 0 && count == 0)
        rc = config_problem(reader, node, "`bus.brokers` must name at least one broker");
    if (rc == 0)
        rc = fill_brokers(reader, node, texts, count, &made);
    free_texts(texts, count);
    if (rc != 0) {
        release_brokers(field, &made);
        return rc;
    }
    release_brokers(field, base);
    config->brokers = made.brokers;
    config->taps = made.taps;
    config->n_brokers = made.n_brokers;
    config->broker_local = made.broker_local;
    return 0;
}

static void print_brokers(const struct config_field *field, const void *base, struct buf *out)
{
    (void)field;
    const struct config *config = base;
    size_t home_len = strlen(config->home);
    buf_add_char(out, '[');
    for (size_t i = 0; i < config->n_brokers; i++) {
        const char *path = config->brokers[i] + 6; /* behind ipc:// or tcp:// */
        bool local = config->broker_local && strncmp(path, config->home, home_len) == 0 &&
                     strcmp(path + home_len, "/" PATH_BROKER_SOCKET) == 0;
        if (i > 0)
            buf_add_str(out, ", ");
        config_add_text(out, local ? "local" : config->brokers[i]);
    }
    buf_add_char(out, ']');
}

const struct config_kind config_kind_brokers = {"`local` or URL, or a list", set_brokers,
                                                print_brokers, release_brokers};
