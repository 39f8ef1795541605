/* `redis:` of the configuration: `local`, a URL, or a map with what a URL cannot say. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/config_tables.h"
#include "common/paths.h"
#include "schemas/mem.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* What the map is read into. */
struct form {
    struct redis_options options;
    char *url;
    int64_t database;
};

#define FORM(member) .offset = offsetof(struct form, member)
#define OPTION(member) FORM(options.member)
#define LIST(member) OPTION(member), .count_offset = offsetof(struct form, options.n_##member)
static const struct config_field fields[] = {
    {"url", &config_kind_text, FORM(url),
     .help = "One server: `redis://`, `rediss://` or `unix://`, as above."},
    {"sentinels", &config_kind_texts, LIST(sentinels),
     .help = "Addresses of the sentinels, each `host:port`: they say which server is the master."},
    {"master", &config_kind_text, OPTION(master),
     .help = "Its name, as in `sentinel monitor NAME ...`; with `sentinels`."},
    {"cluster", &config_kind_texts, LIST(cluster),
     .help = "Addresses of some nodes of a Redis Cluster, each `host:port`; they tell the others."},
    {"user", &config_kind_text, OPTION(user), .help = "ACL user; by default Redis's `default`."},
    {"password", &config_kind_text, OPTION(password), .help = "Of that user."},
    {"sentinel_user", &config_kind_text, OPTION(sentinel_user),
     .help = "ACL user at the sentinels, where they have one."},
    {"sentinel_password", &config_kind_text, OPTION(sentinel_password),
     .help = "Of the sentinels (`requirepass` there), where they have one."},
    {"database", &config_kind_int, FORM(database), .fallback = "0", .min = 0, .max = 100000,
     .quiet = true, .help = "Number of the database; a cluster has only 0."},
    {"tls", &config_kind_bool, OPTION(tls), .fallback = "false", .quiet = true,
     .help = "TLS to sentinels, master and nodes; for a `url`, write `rediss://`. Needs "
             "`stunnel4`."},
    {"ca", &config_kind_text, OPTION(ca),
     .help = "File with the CAs whose certificates are accepted; by default the system's."},
    {"cert", &config_kind_text, OPTION(cert),
     .help = "File with this client's certificate, where Redis demands one."},
    {"key", &config_kind_text, OPTION(key),
     .help = "File with its key; by default it is in `cert`."},
    {"replicas", &config_kind_int, OPTION(replicas), .fallback = "0", .min = 0, .max = 16,
     .quiet = true,
     .help = "So many replicas must have a submit, a commit or another change that was promised "
             "to someone, before it counts as done. 0: what the master has is enough."},
    {"replicas_timeout_ms", &config_kind_int, OPTION(replicas_timeout_ms), .fallback = "1000",
     .min = 10, .max = 5000, .quiet = true,
     .help = "How long they may take, ms; then it is repeated."},
};

const struct config_field *config_redis_fields(size_t *ret_count)
{
    *ret_count = COUNT(fields);
    return fields;
}

static void release_form(struct form *form)
{
    free(form->url);
    redis_options_release(&form->options);
}

/* --- checks ------------------------------------------------------------------------------- */

static int check_addresses(struct config_reader *reader, const struct yaml_node *node,
                           char *const *texts, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct redis_options scratch = {0};
        const char *reason = strrchr(texts[i], ':') == NULL ? "it has no port" : "";
        char *url = config_text("redis://%s", texts[i]);
        int rc = url == NULL ? -ENOMEM : *reason != '\0' ? -EINVAL : 0;
        if (rc == 0 && strpbrk(texts[i], "@/ ") != NULL)
            rc = -EINVAL;
        if (rc == 0)
            rc = config_redis_url(url, &scratch, &reason);
        free(url);
        redis_options_release(&scratch);
        if (rc == -EINVAL)
            rc = config_problem(reader, yaml_at(node, i) != NULL ? yaml_at(node, i) : node,
                                "`%.100s` is no address: it must be host:port%s%s", texts[i],
                                *reason != '\0' ? "; " : "", reason);
        if (rc != 0)
            return rc;
    }
    return 0;
}

/* The URL's parts, beside what the map has. */
static int take_url(struct config_reader *reader, const struct yaml_node *node, struct form *form)
{
    struct redis_options parsed = {0}, *options = &form->options;
    const char *reason = "";
    if (form->url == NULL)
        return 0;
    int rc = config_redis_url(form->url, &parsed, &reason);
    if (rc == -EINVAL)
        rc = config_problem(reader, config_node_of(node, "url"), "`redis` is not usable: %s",
                            reason);
    else if (rc == 0 && (parsed.password != NULL && options->password != NULL))
        rc = config_problem(reader, config_node_of(node, "password"),
                            "`redis` has two passwords: this one, and one in the URL");
    else if (rc == 0 && parsed.database != 0 && form->database != 0)
        rc = config_problem(reader, config_node_of(node, "database"),
                            "`redis` has two databases: this one, and one in the URL");
    if (rc != 0) {
        redis_options_release(&parsed);
        return rc;
    }
    options->socket = parsed.socket;
    options->host = parsed.host;
    options->port = parsed.port;
    options->tls = options->tls || parsed.tls;
    if (parsed.database != 0)
        form->database = parsed.database;
    char **moves[][2] = {{&options->user, &parsed.user}, {&options->password, &parsed.password}};
    for (size_t i = 0; i < COUNT(moves); i++)
        if (*moves[i][0] == NULL)
            *moves[i][0] = *moves[i][1];
        else
            free(*moves[i][1]);
    return 0;
}

static int check_form(struct config_reader *reader, const struct yaml_node *node,
                      const struct form *form)
{
    const struct redis_options *options = &form->options;
    bool sentinels = options->n_sentinels > 0;
    const struct {
        bool wrong;
        const char *key, *sentence;
    } rules[] = {
        {(form->url != NULL) + sentinels + (options->n_cluster > 0) != 1, "",
         "`redis` needs one of `url`, `sentinels` and `cluster`"},
        {sentinels && options->master == NULL, "sentinels",
         "`sentinels` need `master`: the name of the master that they watch"},
        {!sentinels && options->master != NULL, "master", "`master` is only for `sentinels`"},
        {!sentinels && (options->sentinel_user != NULL || options->sentinel_password != NULL), "",
         "`sentinel_user` and `sentinel_password` are only for `sentinels`"},
        {options->n_cluster > 0 && form->database != 0, "database",
         "a Redis Cluster has no databases but 0"},
        {options->user != NULL && options->password == NULL, "user", "`user` needs a `password`"},
        {options->tls && options->socket != NULL, "tls",
         "a unix socket needs no TLS: leave `tls` out"},
        {!options->tls && (options->ca != NULL || options->cert != NULL || options->key != NULL),
         "", "`ca`, `cert` and `key` are for TLS: use `rediss://`, or set `tls: true`"},
        {options->key != NULL && options->cert == NULL, "key", "`key` is the key of a `cert`"},
    };
    for (size_t i = 0; i < COUNT(rules); i++)
        if (rules[i].wrong)
            return config_problem(reader, config_node_of(node, rules[i].key), "%s",
                                  rules[i].sentence);
    int rc = check_addresses(reader, config_node_of(node, "sentinels"), options->sentinels,
                             options->n_sentinels);
    return rc != 0 ? rc
                   : check_addresses(reader, config_node_of(node, "cluster"), options->cluster,
                                     options->n_cluster);
}

/* --- reading ------------------------------------------------------------------------------ */

static int read_form(struct config_reader *reader, const struct yaml_node *node, struct form *form)
{
    int before = reader->errors;
    int rc = config_defaults(reader, fields, COUNT(fields), form);
    if (rc == 0)
        rc = config_read_map(reader, "`redis` map", fields, COUNT(fields), node, form);
    if (rc == 0 && reader->errors > before)
        rc = -EINVAL; /* told already */
    if (rc == 0)
        rc = take_url(reader, node, form);
    if (rc == 0)
        rc = check_form(reader, node, form);
    char **files[] = {&form->options.ca, &form->options.cert, &form->options.key};
    for (size_t i = 0; i < COUNT(files) && rc == 0; i++)
        rc = config_make_absolute(reader, files[i], 0);
    form->options.database = (int)form->database;
    return rc;
}

static int read_text(struct config_reader *reader, const struct yaml_node *node, bool *ret_local,
                     struct redis_options *options)
{
    const char *text, *reason = "";
    if (!yaml_str(node, &text))
        return config_problem(reader, node,
                              "`redis` must be `local`, a URL, or a map with `url`, `sentinels` "
                              "or `cluster`");
    *ret_local = strcmp(text, "local") == 0;
    if (*ret_local) {
        options->socket = config_text("%s/%s", reader->config->home, PATH_REDIS_SOCKET);
        return options->socket != NULL ? 0 : -ENOMEM;
    }
    int rc = config_redis_url(text, options, &reason);
    return rc == -EINVAL ? config_problem(reader, node, "`redis` is not usable: %s", reason) : rc;
}

static void release_redis(const struct config_field *field, void *base)
{
    (void)field;
    redis_options_release(&((struct config *)base)->redis);
}

static int set_redis(struct config_reader *reader, const struct config_field *field,
                     const struct yaml_node *node, void *base)
{
    struct config *config = base;
    struct form form = {0};
    bool local = false;
    int rc = node->type == YAML_MAP ? read_form(reader, node, &form)
                                    : read_text(reader, node, &local, &form.options);
    if (rc == 0) {
        release_redis(field, base);
        config->redis = form.options;
        config->redis_local = local;
        form.options = (struct redis_options){0};
    }
    release_form(&form);
    return rc;
}

/* --- printing ----------------------------------------------------------------------------- */

static bool is_secret(const struct config_field *field)
{
    return strstr(field->key, "password") != NULL;
}

/* What differs from the default, as a map on one line. The URL is in its parts: it is made again
 * without user and password, which stand beside it. */
static void print_map(const struct redis_options *options, bool show_password, struct buf *out)
{
    struct form form = {.options = *options, .database = options->database};
    struct redis_options address = {.socket = options->socket,
                                    .host = options->host,
                                    .port = options->port,
                                    .tls = options->tls};
    struct buf value = {0}, url = {0};
    if (options->n_sentinels == 0 && options->n_cluster == 0) {
        config_redis_print(&address, false, &url);
        form.url = url.data;
        form.options.tls = false; /* it is in the URL */
    }
    if (form.options.replicas_timeout_ms == 0)
        form.options.replicas_timeout_ms = REDIS_REPLICAS_MS;
    buf_add_char(out, '{');
    const char *separator = "";
    for (size_t i = 0; i < COUNT(fields); i++) {
        buf_clear(&value);
        fields[i].kind->print(&fields[i], &form, &value);
        bool list = fields[i].kind == &config_kind_texts;
        bool none = value.len == 0 || (list && strcmp(value.data, "[]") == 0);
        if (none || (fields[i].quiet && strcmp(value.data, fields[i].fallback) == 0))
            continue;
        buf_printf(out, "%s%s: %s", separator, fields[i].key,
                   is_secret(&fields[i]) && !show_password ? "\"***\"" : value.data);
        separator = ", ";
    }
    buf_add_char(out, '}');
    out->failed |= value.failed || url.failed;
    buf_release(&value);
    buf_release(&url);
}

static bool needs_map(const struct redis_options *options)
{
    return options->n_sentinels > 0 || options->n_cluster > 0 || options->ca != NULL ||
           options->cert != NULL || options->replicas > 0;
}

void config_redis_value(const struct redis_options *options, bool show_password, struct buf *out)
{
    struct buf url = {0};
    if (needs_map(options)) {
        print_map(options, show_password, out);
        return;
    }
    config_redis_print(options, show_password, &url);
    config_add_text(out, url.len > 0 ? url.data : "");
    out->failed |= url.failed;
    buf_release(&url);
}

static void print_redis(const struct config_field *field, const void *base, struct buf *out)
{
    (void)field;
    const struct config *config = base;
    if (config->redis_local)
        buf_add_str(out, "local");
    else
        config_redis_value(&config->redis, true, out);
}

const struct config_kind config_kind_redis = {"`local`, URL or map", set_redis, print_redis,
                                              release_redis};

/* --- what it excludes --------------------------------------------------------------------- */

static bool by_day(const struct config_budget *budget)
{
    return budget->day_usd > 0 || budget->day_tokens > 0;
}

void config_check_redis(struct config_reader *reader, const struct yaml_node *root)
{
    const struct config *config = reader->config;
    bool any = by_day(&config->budget);
    for (size_t i = 0; i < config->n_roles && !any; i++)
        any = by_day(&config->roles[i].budget);
    if (any && config->redis.n_cluster > 0)
        config_problem(reader, config_node_of(root, "redis"),
                       "budgets of a day (`budget.day_usd`, `budget.day_tokens`) do not work with "
                       "`redis: {cluster: ...}`: a day's account and the tasks are on several "
                       "servers; use budgets of a task, or Redis with sentinels");
}
