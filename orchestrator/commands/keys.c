#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/access.h"
#include "common/clock.h"
#include "common/queue_keys.h"
#include "orchestrator/client.h"
#include "orchestrator/key_files.h"
#include "orchestrator/render.h"
#include "schemas/mem.h"

static const struct command_option options[] = {
    {"worker", 0, "NAME", "init: also keys of a worker that runs on this machine", true},
    {"json", 0, NULL, "list: print one JSON array: name, role, public_key, expires_ms, joined",
     false},
    {0},
};

/* --- init ------------------------------------------------------------------------------------- */

static int init(const struct invocation *invocation, const char *given)
{
    struct config *config;
    struct err err = {""};
    const char *const *workers;
    size_t n_workers = invocation_values(invocation, "worker", &workers);
    if (config_load(&config, invocation_config(invocation), &err) != 0)
        return command_fail(invocation, EXIT_USAGE, "%s", err.text);
    const char *dir = given != NULL ? given : config->curve_keys;
    int rc = keyring_init(dir, &err);
    for (size_t i = 0; rc == 0 && i < n_workers; i++)
        rc = key_files_worker(dir, workers[i], &err);
    if (rc != 0) {
        config_free(&config);
        return command_fail(invocation, EXIT_FAILED, "%s", err.text);
    }
    printf("%s\n", dir);
    fprintf(stderr, "The keys of brokers and orchestrators are in %s, for their user only.\n", dir);
    if (strcmp(dir, config->curve_keys) != 0)
        fprintf(stderr, "Write into the configuration: bus: {curve: {keys: %s}}\n", dir);
    fputs("Brokers on other machines need the whole directory. Let workers in with "
          "`orchestrator invite --worker NAME`.\n",
          stderr);
    config_free(&config);
    return EXIT_DONE;
}

/* --- list ------------------------------------------------------------------------------------- */

struct listing {
    bool done, json;
    json_t *keys; /* NULL: Redis did not say */
    char err[512];
};

static void got_keys(void *ctx, const struct queue_key *keys, size_t n, const char *err)
{
    struct listing *listing = ctx;
    int64_t now_ms = clock_wall_ms();
    listing->done = true;
    snprintf(listing->err, sizeof listing->err, "%s", err != NULL ? err : "");
    if (keys == NULL && listing->err[0] != '\0')
        return;
    listing->keys = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(listing->keys,
                              json_pack("{s:s, s:s, s:s, s:I, s:b, s:b}", "name", keys[i].name,
                                        "role", keyring_role_name(keys[i].role), "public_key",
                                        keys[i].public_key, "expires_ms",
                                        (json_int_t)keys[i].expires_ms, "joined", keys[i].joined,
                                        "expired", queue_key_expired(&keys[i], now_ms)));
}

static void print_table(const json_t *keys)
{
    static const struct render_column columns[] = {
        {"name", false, 0},  {"role", false, 0},       {"state", false, 0},
        {"until", false, 0}, {"public key", false, 0}, {0},
    };
    struct render_table *table = render_table_new(columns);
    json_t *key;
    size_t i;
    json_array_foreach (keys, i, key) {
        struct buf until = {0};
        bool joined = json_is_true(json_object_get(key, "joined"));
        bool expired = json_is_true(json_object_get(key, "expired"));
        int64_t expires_ms = json_int(key, "expires_ms", 0);
        if (expires_ms > 0 && !joined)
            render_time(&until, expires_ms);
        render_table_add(table, json_str(key, "name", ""));
        render_table_add(table, json_str(key, "role", ""));
        render_table_add(table, joined ? "joined" : expired ? "expired" : "invited");
        render_table_add(table, until.len > 0 ? until.data : "-");
        render_table_add(table, json_str(key, "public_key", ""));
        buf_release(&until);
    }
    render_table_print(&table, stdout, 0);
}

static int list(const struct invocation *invocation)
{
    struct client client;
    struct listing listing = {.json = invocation_has(invocation, "json")};
    int code = client_open(&client, invocation);
    if (code == EXIT_DONE)
        code = client_connect(&client, invocation, false);
    if (code == EXIT_DONE) {
        queue_keys_list(client.queue, got_keys, &listing);
        code = client_wait(&client, invocation, &listing.done);
    }
    if (code == EXIT_DONE && listing.keys == NULL)
        code = command_fail(invocation, EXIT_UNREACHABLE, "%s", listing.err);
    else if (code == EXIT_DONE && listing.err[0] != '\0')
        command_fail(invocation, EXIT_DONE, "%s", listing.err);
    if (code == EXIT_DONE && listing.json) {
        json_dumpf(listing.keys, stdout, JSON_INDENT(2));
        putchar('\n');
    } else if (code == EXIT_DONE && json_array_size(listing.keys) == 0) {
        fputs("nobody is invited; `orchestrator invite --worker NAME` does it\n", stderr);
    } else if (code == EXIT_DONE) {
        print_table(listing.keys);
    }
    json_decref(listing.keys);
    client_close(&client);
    return code;
}

/* --- acl -------------------------------------------------------------------------------------- */

/* For who makes users of Redis by hand: the words of ACL SETUSER, or a line of an aclfile. */
static int print_rules(const struct invocation *invocation, const char *role_name)
{
    struct config *config;
    struct err err = {""};
    struct buf rules = {0};
    enum keyring_role role = keyring_role_parse(role_name, strlen(role_name));
    if (role == KEYRING_ROLE_COUNT || role == KEYRING_TAP)
        return command_fail(invocation, EXIT_USAGE,
                            "it is `keys acl worker` or `keys acl orchestrator`");
    if (config_load(&config, invocation_config(invocation), &err) != 0)
        return command_fail(invocation, EXIT_USAGE, "%s", err.text);
    const char **providers = mem_must_zalloc((config->n_providers + 1) * sizeof *providers);
    for (size_t i = 0; i < config->n_providers; i++)
        providers[i] = config->providers[i].name;
    access_rules(role, providers, config->n_providers, &rules);
    puts(rules.data + 1); /* behind the space that it begins with */
    buf_release(&rules);
    free(providers);
    config_free(&config);
    return EXIT_DONE;
}

/* --- the command ------------------------------------------------------------------------------ */

static int exec(struct invocation *invocation)
{
    const char *const *args;
    size_t n_args = invocation_args(invocation, &args);
    const char *what = args[0], *more = n_args > 1 ? args[1] : NULL;
    bool init_asked = strcmp(what, "init") == 0, list_asked = strcmp(what, "list") == 0;
    if (invocation_has(invocation, "worker") && !init_asked)
        return command_fail(invocation, EXIT_USAGE, "--worker is for `keys init`");
    if (invocation_has(invocation, "json") && !list_asked)
        return command_fail(invocation, EXIT_USAGE, "--json is for `keys list`");
    if (init_asked)
        return init(invocation, more);
    if (list_asked && more == NULL)
        return list(invocation);
    if (strcmp(what, "acl") == 0 && more != NULL)
        return print_rules(invocation, more);
    return command_fail(invocation, EXIT_USAGE,
                        "it is `keys init [DIR]`, `keys list` or `keys acl ROLE`");
}

const struct command command_keys = {
    .name = "keys",
    .args = "init [DIR] | list | acl ROLE",
    .summary = "keys of the bus: make them, or list who is invited",
    .details =
        "init makes the keys of brokers and orchestrators, in DIR or where `bus.curve.keys` says;\n"
        "what is there already stays. list shows who was invited, and who has joined; those whose\n"
        "keys are files of a broker's directory are not in it. acl prints what a Redis user of a\n"
        "worker or an orchestrator may do, as words of ACL SETUSER or of an aclfile; invite makes\n"
        "such users by itself.\n",
    .options = options,
    .min_args = 1,
    .max_args = 2,
    .exec = exec,
};
