/* `orchestrator invite`: a token for another machine; and what has to be known of it here. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/access.h"
#include "common/clock.h"
#include "common/invitation.h"
#include "common/paths.h"
#include "common/queue_keys.h"
#include "orchestrator/client.h"
#include "orchestrator/client_input.h"
#include "orchestrator/render.h"
#include "orchestrator/stack_listen.h"
#include "schemas/mem.h"

#define EXPIRES_MS (24 * 3600 * INT64_C(1000))

static const struct command_option options[] = {
    {"worker", 'w', "NAME", "a worker: an entry of `workers:`, or a new one with --provider",
     false},
    {"orchestrator", 0, "NAME", "a further daemon, with its tools", false},
    {"tap", 0, "NAME", "somebody who may only listen to events", false},
    {"expires", 'e', "TIME", "until when it can join: 30m, 24h (default), 7d or never", false},
    {"redis", 0, "URL", "where Redis is, seen from there", false},
    {"broker", 0, "ENDPOINT", "where a broker is, seen from there: tcp://HOST:PORT", true},
    {"provider", 'p', "NAME", "of a new worker: what it serves", false},
    {"concurrency", 0, "N", "of a worker: subtasks at once", false},
    {"json", 0, NULL, "print one JSON object: token, name, role, expires_ms, public_key", false},
    {0},
};

struct invite {
    struct client client;
    const struct invocation *invocation;
    enum keyring_role role;
    const char *name;
    int64_t expires_ms; /* 0: never */
    struct keyring_pair pair;
    char broker_key[KEYRING_KEY_SIZE];
    char password[ACCESS_PASSWORD_SIZE];
    char *user;  /* of Redis, which is made; NULL: none */
    char *redis; /* URL there; NULL: as here */
    struct buf config, token, ca;
};

/* --- what is asked for ------------------------------------------------------------------------ */

static int take_name(struct invite *invite)
{
    int n = 0;
    for (int role = 0; role < KEYRING_ROLE_COUNT; role++) {
        const char *name =
            invocation_value(invite->invocation, keyring_role_name((enum keyring_role)role));
        if (name == NULL)
            continue;
        invite->role = (enum keyring_role)role;
        invite->name = name;
        n++;
    }
    if (n != 1)
        return command_fail(invite->invocation, EXIT_USAGE,
                            "say who is invited: one of --worker, --orchestrator, --tap");
    if (!sub_id_valid(invite->name) || !keyring_name_valid(invite->name, strlen(invite->name)))
        return command_fail(invite->invocation, EXIT_USAGE,
                            "`%.64s` is no name: letters, digits and . _ - , at most 64",
                            invite->name);
    if (invite->role != KEYRING_WORKER && (invocation_has(invite->invocation, "provider") ||
                                           invocation_has(invite->invocation, "concurrency")))
        return command_fail(invite->invocation, EXIT_USAGE,
                            "--provider and --concurrency are for --worker");
    return EXIT_DONE;
}

/* 90s, 30m, 24h, 7d, never. */
static int take_expiry(struct invite *invite)
{
    static const struct {
        char unit;
        int64_t ms;
    } units[] = {{'s', 1000}, {'m', 60000}, {'h', 3600000}, {'d', 86400000}};
    const char *text = invocation_value(invite->invocation, "expires");
    int64_t now_ms = clock_wall_ms();
    char *end = NULL;
    if (text == NULL) {
        invite->expires_ms = now_ms + EXPIRES_MS;
        return EXIT_DONE;
    }
    if (strcmp(text, "never") == 0)
        return EXIT_DONE;
    long n = strtol(text, &end, 10);
    for (size_t i = 0; i < sizeof units / sizeof *units && end != text; i++)
        if (end[0] == units[i].unit && end[1] == '\0' && n > 0 && n <= 100000) {
            invite->expires_ms = now_ms + n * units[i].ms;
            return EXIT_DONE;
        }
    return command_fail(invite->invocation, EXIT_USAGE,
                        "--expires takes a time such as 30m, 24h or 7d, or never, not `%.32s`",
                        text);
}

/* --- addresses -------------------------------------------------------------------------------- */

static int only_here(const struct invite *invite, const char *what, const char *where,
                     const char *option)
{
    const struct config *config = invite->client.config;
    if (config->redis_local && config->broker_local)
        return command_fail(invite->invocation, EXIT_USAGE,
                            "the local stack is reached from this machine only: start it with "
                            "`orchestrator up --listen ADDRESS`, or write `listen: ADDRESS` into "
                            "the configuration, with this machine's address");
    return command_fail(invite->invocation, EXIT_USAGE,
                        "%s at %s is reached from this machine only: give its address in %s, or "
                        "the one that it has for others with %s",
                        what, where, config->path, option);
}

static int check_brokers(const struct invite *invite)
{
    const struct config *config = invite->client.config;
    const char *const *there;
    bool given = invocation_values(invite->invocation, "broker", &there) > 0;
    for (size_t i = 0; i < config->n_brokers && !given && config->listen == NULL; i++)
        if (!config_exposed(config->brokers[i]))
            return only_here(invite, "the broker", config->brokers[i], "--broker tcp://HOST:PORT");
    if (!config->curve)
        return command_fail(invite->invocation, EXIT_USAGE,
                            "the bus is not encrypted and asks nobody for a key: set "
                            "`bus: {curve: {enabled: true}}` in %s first",
                            config->path);
    return EXIT_DONE;
}

/* Sets invite->redis where it is another address there. */
static int check_redis(struct invite *invite)
{
    const struct config *config = invite->client.config;
    const char *given = invocation_value(invite->invocation, "redis");
    if (invite->role == KEYRING_TAP)
        return given == NULL ? EXIT_DONE
                             : command_fail(invite->invocation, EXIT_USAGE,
                                            "a tap does not use Redis: leave --redis out");
    if (given != NULL) {
        invite->redis = mem_must_strdup(given);
        return EXIT_DONE;
    }
    if (config->listen != NULL) {
        char *address = config_listen_redis(config);
        invite->redis = mem_must_printf("rediss://%s/%d", address, config->redis.database);
        free(address);
        return EXIT_DONE;
    }
    if (config->redis.n_cluster > 0)
        return command_fail(invite->invocation, EXIT_USAGE,
                            "users of a Redis Cluster are to be made on each of its nodes, which "
                            "this command does not do: docs/operations.md has their rules");
    if (config->redis.socket != NULL)
        return only_here(invite, "Redis", config->redis.socket, "--redis redis://HOST:PORT");
    if (config->redis.host != NULL && config_loopback(config->redis.host))
        return only_here(invite, "Redis", config->redis.host, "--redis redis://HOST:PORT");
    return EXIT_DONE;
}

/* --- the token -------------------------------------------------------------------------------- */

/* Whether a URL brings its own user: then none is made. */
static bool has_user(const char *url)
{
    const char *host = url != NULL ? strstr(url, "://") : NULL;
    return host != NULL && memchr(host + 3, '@', strcspn(host + 3, "/")) != NULL;
}

/* Who signs the certificate of Redis, where that is not one of those that all machines know. */
static int take_ca(struct invite *invite)
{
    const struct config *config = invite->client.config;
    char *file = config->listen != NULL ? stack_listen_certificate(config) : NULL;
    const char *path = file != NULL ? file : config->redis.ca;
    int code = EXIT_DONE;
    if (config->redis.cert != NULL && !has_user(invite->redis))
        code = command_fail(invite->invocation, EXIT_USAGE,
                            "Redis demands a certificate of each client, which a token does not "
                            "hold: give --redis a URL for that machine");
    else if (path != NULL && client_input_read(&invite->ca, path, NULL) != 0)
        code = command_fail(invite->invocation, EXIT_USAGE, "cannot read %s", path);
    free(file);
    return code;
}

static int make_config(struct invite *invite)
{
    static const enum config_shared shared[] = {
        [KEYRING_ORCHESTRATOR] = CONFIG_SHARE_ALL,
        [KEYRING_WORKER] = CONFIG_SHARE_WORKER,
        [KEYRING_TAP] = CONFIG_SHARE_BUS,
    };
    struct config_share share = {.what = shared[invite->role], .redis = invite->redis};
    struct err err = {""};
    if (invite->role == KEYRING_WORKER) {
        share.worker = invite->name;
        share.provider = invocation_value(invite->invocation, "provider");
    }
    if (invocation_int(invite->invocation, "concurrency", 1, 100000, &share.concurrency) < 0)
        return EXIT_USAGE;
    share.n_brokers = invocation_values(invite->invocation, "broker", &share.brokers);
    if (invite->role != KEYRING_TAP && !has_user(invite->redis)) {
        access_password_make(invite->password);
        invite->user = access_user(invite->role, invite->name);
        share.user = invite->user;
        share.password = invite->password;
    }
    int code = invite->role != KEYRING_TAP ? take_ca(invite) : EXIT_DONE;
    if (code != EXIT_DONE)
        return code;
    share.redis_ca = invite->ca.len > 0 ? INVITATION_REDIS_CA : NULL;
    if (config_share(invite->client.config, &share, &invite->config, &err) != 0)
        return command_fail(invite->invocation, EXIT_USAGE, "%s", err.text);
    return EXIT_DONE;
}

static int make_token(struct invite *invite)
{
    struct err err = {""};
    if (keyring_load_public(invite->client.config->curve_keys, "broker", invite->broker_key,
                            &err) != 0 ||
        keyring_make(&invite->pair, &err) != 0)
        return command_fail(invite->invocation, EXIT_USAGE, "%s", err.text);
    int code = make_config(invite);
    if (code != EXIT_DONE)
        return code;
    const struct msg_invitation record = {
        .name = invite->name,
        .role = keyring_role_name(invite->role),
        .created_ms = clock_wall_ms(),
        .expires_ms = invite->expires_ms,
        .broker_key = invite->broker_key,
        .public_key = invite->pair.public_key,
        .secret_key = invite->pair.secret_key,
        .redis_ca = {.data = invite->ca.data, .len = invite->ca.len},
        .config = {.data = invite->config.data, .len = invite->config.len},
    };
    if (invitation_write(&record, &invite->token) != 0)
        return command_fail(invite->invocation, EXIT_USAGE,
                            "the configuration of `%s` is too large for a token (%zu bytes)",
                            invite->name, invite->config.len);
    return EXIT_DONE;
}

/* --- what is remembered here ------------------------------------------------------------------ */

struct known {
    bool done, answered;
    const char *name;
    enum keyring_role role; /* that the name has already; ROLE_COUNT: none */
    char err[512];
};

static void got_keys(void *ctx, const struct queue_key *keys, size_t n, const char *err)
{
    struct known *known = ctx;
    known->done = true;
    known->answered = keys != NULL || err == NULL || err[0] == '\0';
    snprintf(known->err, sizeof known->err, "%s", err != NULL ? err : "");
    for (size_t i = 0; i < n; i++)
        if (strcmp(keys[i].name, known->name) == 0)
            known->role = keys[i].role;
}

/* A name has one key: who has it in another role would be shut out. */
static int check_name(struct invite *invite)
{
    struct known known = {.name = invite->name, .role = KEYRING_ROLE_COUNT};
    queue_keys_list(invite->client.queue, got_keys, &known);
    int code = client_wait(&invite->client, invite->invocation, &known.done);
    if (code == EXIT_DONE && !known.answered)
        return command_fail(invite->invocation, EXIT_UNREACHABLE, "%s", known.err);
    if (code == EXIT_DONE && known.role != KEYRING_ROLE_COUNT && known.role != invite->role)
        return command_fail(invite->invocation, EXIT_USAGE,
                            "`%s` is the name of an invited %s: choose another one, or revoke that",
                            invite->name, keyring_role_name(known.role));
    return code;
}

struct giving {
    bool done;
    char err[512];
};

static void given(void *ctx, const char *err)
{
    struct giving *giving = ctx;
    giving->done = true;
    snprintf(giving->err, sizeof giving->err, "%s", err);
}

static int give_access(struct invite *invite)
{
    const struct config *config = invite->client.config;
    const char *providers[2] = {NULL, NULL};
    size_t n = 0;
    const struct config_worker *worker = config_worker(config, invite->name);
    const char *own =
        worker != NULL ? worker->provider : invocation_value(invite->invocation, "provider");
    const struct config_provider *provider = own != NULL ? config_provider(config, own) : NULL;
    if (provider != NULL)
        providers[n++] = provider->name;
    if (provider != NULL && provider->base != NULL)
        providers[n++] = provider->base;
    const struct access_grant grant = {.role = invite->role,
                                       .name = invite->name,
                                       .password = invite->password,
                                       .providers = providers,
                                       .n_providers = n};
    struct giving giving = {0};
    access_give(queue_redis(invite->client.queue), &grant, given, &giving);
    int code = client_wait(&invite->client, invite->invocation, &giving.done);
    if (code == EXIT_DONE && giving.err[0] != '\0')
        code = command_fail(invite->invocation, EXIT_UNREACHABLE,
                            "Redis did not make the user %s: %s", invite->user, giving.err);
    return code;
}

static int remember(struct invite *invite)
{
    struct client_answer answer = {0};
    queue_keys_put(invite->client.queue, invite->name, invite->role, invite->pair.public_key,
                   invite->expires_ms, client_answered, &answer);
    int code = client_wait(&invite->client, invite->invocation, &answer.done);
    if (code == EXIT_DONE)
        code = client_explain(&invite->client, invite->invocation, "", &answer);
    if (code != EXIT_DONE || invite->user == NULL)
        return code;
    code = give_access(invite);
    if (code != EXIT_DONE && invite->client.queue != NULL) {
        struct client_answer undone = {0};
        queue_keys_remove(invite->client.queue, invite->name, client_answered, &undone);
        client_wait(&invite->client, invite->invocation, &undone.done);
    }
    return code;
}

/* --- what is said ----------------------------------------------------------------------------- */

static void print_json(const struct invite *invite)
{
    json_t *object = json_pack("{s:s, s:s, s:s, s:I, s:s, s:s*}", "token", invite->token.data,
                               "name", invite->name, "role", keyring_role_name(invite->role),
                               "expires_ms", (json_int_t)invite->expires_ms, "public_key",
                               invite->pair.public_key, "redis_user", invite->user);
    json_dumpf(object, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(object);
}

static void print_token(const struct invite *invite)
{
    struct buf until = {0};
    bool worker = invite->role == KEYRING_WORKER;
    puts(invite->token.data);
    if (invite->expires_ms > 0)
        render_time(&until, invite->expires_ms);
    fprintf(stderr, "\nOn the other machine, %s%s:\n  %s TOKEN\n",
            until.len > 0 ? "until " : "at any time", until.len > 0 ? until.data : "",
            worker ? "orchestrator-worker --join" : "orchestrator join");
    fprintf(stderr,
            "The token is a secret: `-` instead of it reads it from standard input, `@FILE` from a "
            "file.\nTake it back with: orchestrator revoke %s\n",
            invite->name);
    buf_release(&until);
}

/* --- the command ------------------------------------------------------------------------------ */

static int run(struct invite *invite)
{
    int code = check_brokers(invite);
    if (code == EXIT_DONE)
        code = check_redis(invite);
    if (code == EXIT_DONE)
        code = make_token(invite);
    if (code == EXIT_DONE)
        code = client_connect(&invite->client, invite->invocation, false);
    if (code == EXIT_DONE)
        code = check_name(invite);
    if (code == EXIT_DONE)
        code = remember(invite);
    if (code == EXIT_DONE && invocation_has(invite->invocation, "json"))
        print_json(invite);
    else if (code == EXIT_DONE)
        print_token(invite);
    return code;
}

static void wipe(struct buf *secret)
{
    if (secret->data != NULL)
        explicit_bzero(secret->data, secret->len);
    buf_release(secret);
}

static int exec(struct invocation *invocation)
{
    struct invite invite = {.invocation = invocation};
    int code = take_name(&invite);
    if (code == EXIT_DONE)
        code = take_expiry(&invite);
    if (code != EXIT_DONE)
        return code;
    code = client_open(&invite.client, invocation);
    if (code == EXIT_DONE)
        code = run(&invite);
    client_close(&invite.client);
    buf_release(&invite.ca);
    wipe(&invite.config);
    wipe(&invite.token);
    explicit_bzero(&invite.pair, sizeof invite.pair);
    explicit_bzero(invite.password, sizeof invite.password);
    free(invite.user);
    free(invite.redis);
    return code;
}

const struct command command_invite = {
    .name = "invite",
    .args = "--worker NAME | --orchestrator NAME | --tap NAME",
    .summary = "print a token with which another machine takes part",
    .details =
        "The token holds addresses, the brokers' public key, a key pair and a Redis user of its\n"
        "own, and what the machine needs of the configuration; keys of providers stay where the\n"
        "configuration says that they are, on that machine. Inviting a name again makes its\n"
        "earlier token worthless.\n\n"
        "examples:\n  orchestrator invite --worker ollama-0\n"
        "  orchestrator invite --worker box2 --provider ollama --concurrency 2\n",
    .options = options,
    .exec = exec,
};
