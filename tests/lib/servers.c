#include "tests/lib/servers.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define SLOTS 16384
#define WORDS 40

static void die(const char *what, int index)
{
    fprintf(stderr, "servers: %s (server %d)\n", what, index);
    exit(2);
}

void servers_init(struct servers *servers, struct fixture *fixture)
{
    memset(servers, 0, sizeof *servers);
    servers->fixture = fixture;
    for (int i = 0; i < SERVERS_MAX; i++)
        servers->list[i] = servers->addresses[i];
}

/* Its directory and port, at its first start. */
static void place(struct servers *servers, int index, char dir[96])
{
    snprintf(dir, 96, "%s/server%d", servers->fixture->dir, index);
    mkdir(dir, 0700);
    if (servers->ports[index] == 0)
        servers->ports[index] = fixture_free_port();
    snprintf(servers->addresses[index], sizeof servers->addresses[index], "127.0.0.1:%d",
             servers->ports[index]);
}

static void launch(struct servers *servers, int index, const char *const *argv)
{
    char log[32];
    snprintf(log, sizeof log, "server%d.log", index);
    servers->pids[index] = fixture_spawn(servers->fixture, log, argv);
    if (!fixture_wait_listen(NULL, servers->ports[index], SERVERS_WAIT_MS))
        die("it did not start", index);
    servers_wait(servers, index, "ping", "");
}

void servers_start(struct servers *servers, int index, const char *const *options)
{
    char dir[96], port[16];
    place(servers, index, dir);
    snprintf(port, sizeof port, "%d", servers->ports[index]);
    const char *argv[WORDS] = {"/usr/bin/redis-server",
                               "--port",
                               port,
                               "--bind",
                               "127.0.0.1",
                               "--dir",
                               dir,
                               "--appendonly",
                               "yes",
                               "--appendfsync",
                               "always",
                               "--save",
                               "",
                               "--maxmemory-policy",
                               "noeviction",
                               "--repl-diskless-sync-delay",
                               "0",
                               "--repl-ping-replica-period",
                               "1"};
    int n = 0;
    while (argv[n] != NULL)
        n++;
    for (int i = 0; options != NULL && options[i] != NULL && n + 1 < WORDS; i++)
        argv[n++] = options[i];
    launch(servers, index, argv);
}

void servers_start_sentinel(struct servers *servers, int index, int master, int quorum,
                            const char *const *options)
{
    char dir[96], text[1024], name[32];
    bool again = servers->ports[index] != 0;
    place(servers, index, dir);
    int len = snprintf(text, sizeof text,
                       "port %d\nbind 127.0.0.1\ndir %s\n"
                       "sentinel monitor mymaster 127.0.0.1 %d %d\n"
                       "sentinel down-after-milliseconds mymaster 1000\n"
                       "sentinel failover-timeout mymaster 6000\n",
                       servers->ports[index], dir, servers->ports[master], quorum);
    for (int i = 0; options != NULL && options[i] != NULL; i++)
        len += snprintf(text + len, sizeof text - (size_t)len, "%s\n", options[i]);
    snprintf(name, sizeof name, "server%d/sentinel.conf", index);
    char path[160];
    snprintf(path, sizeof path, "%s/%s", servers->fixture->dir, name);
    if (!again) /* it writes into this file what it learns */
        fixture_write(servers->fixture, name, text);
    launch(servers, index, (const char *[]){"/usr/bin/redis-server", path, "--sentinel", NULL});
}

void servers_kill(struct servers *servers, int index, int signal_number)
{
    fixture_kill(servers->fixture, servers->pids[index], signal_number);
    servers->pids[index] = 0;
}

void servers_signal(struct servers *servers, int index, int signal_number)
{
    kill(servers->pids[index], signal_number);
}

const char *servers_ask(struct servers *servers, int index, const char *words)
{
    static struct buf out;
    char copy[4096], port[16], *save = NULL;
    snprintf(port, sizeof port, "%d", servers->ports[index]);
    snprintf(copy, sizeof copy, "%s", words);
    const char *argv[WORDS] = {"/usr/bin/redis-cli", "-p", port};
    int n = 3;
    for (char *word = strtok_r(copy, " ", &save); word != NULL && n + 1 < WORDS;
         word = strtok_r(NULL, " ", &save))
        argv[n++] = word;
    buf_clear(&out);
    struct buf errors = {0};
    fixture_run(servers->fixture, argv, &out, &errors);
    if (errors.len > 0)
        buf_add(&out, errors.data, errors.len);
    buf_release(&errors);
    return out.data != NULL ? out.data : "";
}

struct waiting {
    struct servers *servers;
    int index;
    const char *words, *text;
};

static bool prints(void *ctx)
{
    const struct waiting *waiting = ctx;
    const char *out = servers_ask(waiting->servers, waiting->index, waiting->words);
    return strstr(out, waiting->text) != NULL && strstr(out, "Could not connect") == NULL &&
           strstr(out, "LOADING") == NULL;
}

void servers_wait(struct servers *servers, int index, const char *words, const char *text)
{
    struct waiting waiting = {servers, index, words, text};
    if (fixture_wait(prints, &waiting, SERVERS_WAIT_MS))
        return;
    fprintf(stderr, "servers: %s never printed %s, but\n%s\n", words, text,
            servers_ask(servers, index, words));
    die("it took too long", index);
}

void servers_start_replicated(struct servers *servers)
{
    char replicaof[32];
    servers_start(servers, 0, NULL);
    snprintf(replicaof, sizeof replicaof, "127.0.0.1 %d", servers->ports[0]);
    servers_start(servers, 1, (const char *[]){"--replicaof", replicaof, NULL});
    servers_wait(servers, 1, "info replication", "master_link_status:up");
    for (int i = 0; i < SERVERS_SENTINELS; i++)
        servers_start_sentinel(servers, SERVERS_SENTINEL + i, 0, 2, NULL);
    for (int i = 0; i < SERVERS_SENTINELS; i++) {
        servers_wait(servers, SERVERS_SENTINEL + i, "info sentinel", "slaves=1,sentinels=3");
        servers_wait(servers, SERVERS_SENTINEL + i, "info sentinel", "status=ok");
    }
}

/* --- cluster ------------------------------------------------------------------------------ */

static int first_slot(int masters, int master)
{
    return SLOTS * master / masters;
}

int servers_owner(int masters, int slot)
{
    int master = 0;
    while (master + 1 < masters && slot >= first_slot(masters, master + 1))
        master++;
    return master;
}

static void must_be_ok(struct servers *servers, int index, const char *words)
{
    if (strncmp(servers_ask(servers, index, words), "OK", 2) != 0)
        die(words, index);
}

void servers_start_cluster(struct servers *servers, int masters, int replicas, int node_timeout_ms)
{
    char words[160], timeout[16], bus[16], id[64];
    int all = masters + replicas;
    snprintf(timeout, sizeof timeout, "%d", node_timeout_ms);
    for (int i = 0; i < all; i++) {
        char dir[96];
        place(servers, i, dir);
        snprintf(bus, sizeof bus, "%d", servers->ports[i] + 1); /* was free, too */
        servers_start(servers, i,
                      (const char *[]){"--cluster-enabled", "yes", "--cluster-port", bus,
                                       "--cluster-node-timeout", timeout,
                                       "--cluster-replica-validity-factor", "0", NULL});
    }
    for (int i = 0; i < masters; i++) {
        snprintf(words, sizeof words, "cluster addslotsrange %d %d", first_slot(masters, i),
                 first_slot(masters, i + 1) - 1);
        must_be_ok(servers, i, words);
        snprintf(words, sizeof words, "cluster set-config-epoch %d", i + 1);
        must_be_ok(servers, i, words);
    }
    for (int i = 1; i < all; i++) {
        snprintf(words, sizeof words, "cluster meet 127.0.0.1 %d %d", servers->ports[i],
                 servers->ports[i] + 1);
        must_be_ok(servers, 0, words);
    }
    snprintf(words, sizeof words, "cluster_known_nodes:%d\r", all);
    for (int i = 0; i < all; i++)
        servers_wait(servers, i, "cluster info", words);
    for (int i = 0; i < replicas; i++) {
        snprintf(id, sizeof id, "%.40s", servers_ask(servers, i, "cluster myid"));
        snprintf(words, sizeof words, "cluster replicate %s", id);
        servers_wait(servers, masters + i, words, "OK");
    }
    for (int i = 0; i < all; i++)
        servers_wait(servers, i, "cluster info", "cluster_state:ok");
    for (int i = 0; i < replicas; i++)
        servers_wait(servers, masters + i, "info replication", "master_link_status:up");
}
