/* The bus as the configuration has it: brokers, the address on which the local stack listens for
 * other machines, and what of it is in the open. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/config_tables.h"
#include "common/paths.h"
#include "schemas/mem.h"

/* --- addresses ------------------------------------------------------------------------------ */

/* Length of the host of "HOST:PORT" or "[HOST]:PORT"; the colon is behind it. */
static size_t host_len(const char *text)
{
    const char *colon = strrchr(text, ':');
    return colon != NULL ? (size_t)(colon - text) : strlen(text);
}

bool config_loopback(const char *host)
{
    size_t len = strlen(host);
    const char *const names[] = {"localhost", "::1", "[::1]"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (len == strlen(names[i]) && memcmp(host, names[i], len) == 0)
            return true;
    return strncmp(host, "127.", 4) == 0 && strspn(host, "0123456789.") == len;
}

bool config_exposed(const char *endpoint)
{
    char host[256];
    if (strncmp(endpoint, "tcp://", 6) != 0)
        return false;
    size_t len = host_len(endpoint + 6);
    if (len >= sizeof host)
        return true;
    memcpy(host, endpoint + 6, len);
    host[len] = '\0';
    return !config_loopback(host);
}

int config_check_exposure(const struct config *config, bool insecure, struct err *err)
{
    for (size_t i = 0; i < config->n_brokers && !config->curve && !insecure; i++)
        if (config_exposed(config->brokers[i]))
            return err_set(err, -EPERM,
                           "%s would be used without encryption, and anybody could take part: "
                           "remove `bus.curve.enabled: false` from %s and make keys with "
                           "`orchestrator keys init`, or say --insecure",
                           config->brokers[i], config->path);
    return 0;
}

/* --- listen --------------------------------------------------------------------------------- */

/* HOST[:PORT] as "HOST:PORT" into ret. The reason completes "`listen` is not usable: ". */
static int listen_address(const char *text, char **ret, const char **ret_reason)
{
    size_t len = strlen(text);
    const char *close = text[0] == '[' ? strchr(text, ']') : NULL;
    const char *colon = strchr(close != NULL ? close : text, ':');
    long port = CONFIG_LISTEN_PORT;
    char *end = "";
    if (colon != NULL) {
        port = strtol(colon + 1, &end, 10);
        len = (size_t)(colon - text);
    }
    if (*end != '\0' || (colon != NULL && colon[1] == '\0') || port < 1 || port > 65533) {
        *ret_reason = "the port must be a number from 1 to 65533; the two behind it are used too; "
                      "an IPv6 address stands in [ ]";
        return -EINVAL;
    }
    bool any = len == 0 || strncmp(text, "*", len) == 0 || strncmp(text, "0.0.0.0", len) == 0 ||
               strncmp(text, "[::]", len) == 0;
    if (any || strcspn(text, " /@\"'\\") < len) {
        *ret_reason = "it must be the address or name under which other machines reach this one, "
                      "such as 192.168.1.10";
        return -EINVAL;
    }
    *ret = config_text("%.*s:%ld", (int)len, text, port);
    return *ret != NULL ? 0 : -ENOMEM;
}

static int set_listen(struct config_reader *reader, const struct config_field *field,
                      const struct yaml_node *node, void *base)
{
    const char *text, *reason = "it must be text";
    char *made = NULL;
    int rc = yaml_str(node, &text) ? listen_address(text, &made, &reason) : -EINVAL;
    if (rc == -EINVAL)
        return config_problem(reader, node, "`%s` is not usable: %s", field->key, reason);
    if (rc != 0)
        return rc;
    char **at = config_member(field, base);
    free(*at);
    *at = made;
    return 0;
}

const struct config_kind config_kind_listen = {"address", set_listen, config_print_text,
                                               config_release_text};

/* Port `offset` behind the one listened on, as an endpoint. */
static char *listen_endpoint(const struct config *config, const char *scheme, int offset)
{
    size_t len = host_len(config->listen);
    return config_text("%s%.*s:%d", scheme, (int)len, config->listen,
                       atoi(config->listen + len + 1) + offset);
}

int config_follow_listen(struct config *config)
{
    struct buf text = {0};
    char *path = path_of(config->home, PATH_RUN_LISTEN);
    int rc = config_read_file(path, true, &text);
    if (rc == 0 && text.len > 0) {
        text.data[strcspn(text.data, "\r\n")] = '\0';
        rc = config_listen(config, text.data, NULL);
    }
    buf_release(&text);
    free(path);
    return rc == -ENOMEM ? rc : 0;
}

char *config_listen_redis(const struct config *config)
{
    return listen_endpoint(config, "", 2);
}

/* The broker of the local stack is reached where it listens, also from this machine: it has one
 * socket. */
static int move_broker(struct config *config)
{
    char *home = config_text("ipc://%s/%s", config->home, PATH_BROKER_SOCKET);
    int rc = home != NULL ? 0 : -ENOMEM;
    for (size_t i = 0; rc == 0 && i < config->n_brokers; i++) {
        if (strcmp(config->brokers[i], home) != 0)
            continue;
        char *broker = listen_endpoint(config, "tcp://", 0);
        char *taps = listen_endpoint(config, "tcp://", 1);
        if (broker == NULL || taps == NULL) {
            free(broker);
            free(taps);
            rc = -ENOMEM;
            break;
        }
        free(config->brokers[i]);
        free(config->taps[i]);
        config->brokers[i] = broker;
        config->taps[i] = taps;
    }
    free(home);
    return rc;
}

/* The local redis-server that listens asks everybody for a password; ours is in a file of ours,
 * which is not there before the first start. */
static int take_password(struct config *config)
{
    struct buf text = {0};
    char *path = config_text("%s/%s", config->curve_keys, CONFIG_REDIS_PASSWORD);
    int rc = path == NULL ? -ENOMEM : config_read_file(path, true, &text);
    size_t len = text.len > 0 ? strcspn(text.data, "\r\n") : 0;
    if (rc == 0 && len > 0)
        rc = config_replace_text(&config->redis.password, text.data, len);
    if (text.data != NULL)
        explicit_bzero(text.data, text.len);
    buf_release(&text);
    free(path);
    return rc == -ENOMEM ? rc : 0;
}

static bool any_exposed(const struct config *config)
{
    for (size_t i = 0; i < config->n_brokers; i++)
        if (config_exposed(config->brokers[i]))
            return true;
    return false;
}

int config_listen(struct config *config, const char *address, struct err *err)
{
    const char *reason = "";
    char *made = NULL;
    int rc = config->broker_local && config->redis_local
                 ? listen_address(address, &made, &reason)
                 : err_set(err, -ENOTSUP,
                           "only the local stack's own Redis and broker can listen for other "
                           "machines: %s says where others are",
                           config->path);
    if (rc == -EINVAL)
        err_set(err, rc, "`%.100s` is not usable: %s", address, reason);
    if (rc != 0)
        return rc;
    free(config->listen);
    config->listen = made;
    rc = move_broker(config);
    config->curve |= any_exposed(config);
    return rc != 0 ? rc : take_password(config);
}

/* --- what is complete ----------------------------------------------------------------------- */

int config_complete_bus(struct config_reader *reader, const struct yaml_node *root)
{
    struct config *config = reader->config;
    const struct yaml_node *bus = yaml_map_get(root, "bus");
    const struct yaml_node *enabled = yaml_map_get(yaml_map_get(bus, "curve"), "enabled");
    if (config->listen != NULL && !(config->broker_local && config->redis_local))
        config_problem(reader, config_node_of(root, "listen"),
                       "`listen` is for the local stack: it needs `redis: local` and a broker "
                       "`local`");
    int rc = config->listen != NULL && config->broker_local ? move_broker(config) : 0;
    if (rc == 0 && config->curve_keys == NULL &&
        (config->curve_keys = config_text("%s/%s", config->home, PATH_KEYS)) == NULL)
        rc = -ENOMEM;
    if (rc == 0)
        rc = config_make_absolute(reader, &config->curve_keys, 0);
    if (rc == 0 && config->listen != NULL && config->redis_local)
        rc = take_password(config);
    if (yaml_is_null(enabled))
        config->curve = any_exposed(config);
    for (size_t i = 0; i < config->n_brokers && !config->curve; i++)
        if (config_exposed(config->brokers[i]))
            config_warning(reader, enabled,
                           "%s is not encrypted and asks nobody for a key: programs refuse it "
                           "unless they are told --insecure",
                           config->brokers[i]);
    return rc;
}

/* --- brokers -------------------------------------------------------------------------------- */

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
    config_free_texts(config->brokers, config->n_brokers);
    config_free_texts(config->taps, config->n_brokers);
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
    int rc = config_copy_texts(reader, field, node, &texts, &count);
    if (rc == 0 && count == 0)
        rc = config_problem(reader, node, "`bus.brokers` must name at least one broker");
    if (rc == 0)
        rc = fill_brokers(reader, node, texts, count, &made);
    config_free_texts(texts, count);
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

/* Whether it is the one of the local stack. */
static bool is_local(const struct config *config, const char *endpoint)
{
    const char *path = endpoint + 6; /* behind ipc:// or tcp:// */
    size_t home_len = strlen(config->home);
    if (!config->broker_local)
        return false;
    return (config->listen != NULL && strcmp(path, config->listen) == 0) ||
           (strncmp(path, config->home, home_len) == 0 &&
            strcmp(path + home_len, "/" PATH_BROKER_SOCKET) == 0);
}

static void print_brokers(const struct config_field *field, const void *base, struct buf *out)
{
    (void)field;
    const struct config *config = base;
    buf_add_char(out, '[');
    for (size_t i = 0; i < config->n_brokers; i++) {
        if (i > 0)
            buf_add_str(out, ", ");
        config_add_text(out, is_local(config, config->brokers[i]) ? "local" : config->brokers[i]);
    }
    buf_add_char(out, ']');
}

const struct config_kind config_kind_brokers = {"`local` or URL, or a list", set_brokers,
                                                print_brokers, release_brokers};
