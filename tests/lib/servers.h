/* Several redis-servers on the loopback, for tests of replicas, sentinels and clusters. */
#ifndef TESTS_LIB_SERVERS_H
#define TESTS_LIB_SERVERS_H

#include "tests/lib/fixture.h"

#define SERVERS_MAX 8
#define SERVERS_WAIT_MS 60000

struct servers {
    struct fixture *fixture;
    int ports[SERVERS_MAX]; /* of those that were started once; else 0 */
    pid_t pids[SERVERS_MAX];
    char addresses[SERVERS_MAX][32]; /* "127.0.0.1:port" */
    char *list[SERVERS_MAX];         /* the same, for options */
};

void servers_init(struct servers *servers, struct fixture *fixture);
/* Starts a redis-server with these further options (NULL ends them; NULL: none), AOF always, and
 * returns when it answers. Started again it has its port and its data. */
void servers_start(struct servers *servers, int index, const char *const *options);
/* Starts a sentinel that watches `master` at that server under the name `mymaster`. */
void servers_start_sentinel(struct servers *servers, int index, int master, int quorum,
                            const char *const *options);
/* A master (0), its replica (1) and three sentinels behind them, which know all of each other. */
void servers_start_replicated(struct servers *servers);
#define SERVERS_SENTINEL 2 /* the first */
#define SERVERS_SENTINELS 3
void servers_kill(struct servers *servers, int index, int signal_number);
void servers_signal(struct servers *servers, int index, int signal_number);
/* What redis-cli prints for these words, separated by spaces; valid until the next call. */
const char *servers_ask(struct servers *servers, int index, const char *words);
/* Until what it prints contains the text; the test ends when it takes too long. */
void servers_wait(struct servers *servers, int index, const char *words, const char *text);

/* A cluster of the servers 0 to masters - 1, with one replica for each of the first `replicas`
 * masters behind them; returns when all of them find it well. node_timeout_ms: silence after which
 * a master is replaced. */
void servers_start_cluster(struct servers *servers, int masters, int replicas, int node_timeout_ms);
/* Which of the masters serves the slot. */
int servers_owner(int masters, int slot);

#endif
