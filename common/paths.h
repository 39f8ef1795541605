/* Where things are on this machine: ORCHESTRATOR_HOME, else $XDG_STATE_HOME/orchestrator, else
 * ~/.local/state/orchestrator. */
#ifndef COMMON_PATHS_H
#define COMMON_PATHS_H

#include "common/err.h"

/* What lies below the home; path_of() joins them. */
#define PATH_RUN "run" /* sockets, pid files, config.yaml in effect; 0700 */
#define PATH_REDIS_SOCKET "run/redis.sock"
#define PATH_BROKER_SOCKET "run/broker.sock"
#define PATH_TAPS_SOCKET "run/taps.sock"
#define PATH_STACK_SOCKET "run/stack.sock" /* control socket of `orchestrator up` */
#define PATH_RUN_CONFIG "run/config.yaml"  /* configuration of the running local stack */
#define PATH_RUN_LISTEN "run/listen"       /* where the running local stack listens, if it does */
#define PATH_KEYS "keys"                   /* CURVE keys, passwords of the local redis-server */
#define PATH_JOINED "joined" /* NAME/: what a token of `orchestrator invite` brought */
#define PATH_JOINED_DEFAULT "joined/.default" /* link to NAME/, of a daemon or tap */
#define PATH_REDIS "redis"                    /* the append-only file */
#define PATH_LOG "log"
#define PATH_SPOOL "spool"
#define PATH_STORE "profile.db"

/* The home, created 0700 with its parents when missing. Caller frees. NULL on failure. */
char *path_home(struct err *err);
/* home/name; caller frees. */
char *path_of(const char *home, const char *name);
/* mkdir -p with 0700; 0 or negative errno. */
int path_make(const char *dir, struct err *err);

#endif
