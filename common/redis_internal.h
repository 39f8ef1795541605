/* What the files of the Redis client share. From the bottom up: a link is one connection, which
 * knows bytes and replies (redis_link.c, the only place that knows hiredis); a node is one server,
 * to which commands go in order, and again when the link was lost (redis_node.c); the client says
 * where that server is (redis.c), asks sentinels for it (redis_sentinel.c), or has one node for
 * each master of a cluster (redis_cluster.c). */
#ifndef COMMON_REDIS_INTERNAL_H
#define COMMON_REDIS_INTERNAL_H

#include <sys/uio.h>

#include "common/containers.h"
#include "common/redis.h"
#include "schemas/buf.h"

/* --- values ------------------------------------------------------------------------------- */

void redis_value_free(const struct redis_value *value); /* of a reply that was kept */
/* Answers with an ERR of that text; fn may be NULL. */
void redis_answer_error(redis_reply_fn *fn, void *ctx, const char *text);
/* Whether it is an ERR whose first word is that. */
bool redis_is_error(const struct redis_value *value, const char *word);

/* --- link: one connection ----------------------------------------------------------------- */

struct redis_link;

/* Where it leads: a unix socket, or a host and a port. */
struct redis_place {
    char *socket; /* NULL: host and port */
    char *host;
    int port;
};

struct redis_link_callbacks {
    void (*connected)(void *ctx);
    void (*writable)(void *ctx); /* after redis_link_write() has answered -EAGAIN */
    /* True: keeps the value, for redis_value_free(). */
    bool (*reply)(void *ctx, const struct redis_value *value);
    /* The link is of no use any more: close it. why: a sentence. */
    void (*broken)(void *ctx, const char *why);
};

/* Connects in the background. name: of the server, for sentences; it and place are borrowed. turn:
 * the how manyth try, to go through the addresses of a host. NULL with a sentence when it cannot
 * even be tried. */
struct redis_link *redis_link_open(uv_loop_t *loop, const struct redis_place *place,
                                   const char *name, unsigned turn,
                                   const struct redis_link_callbacks *callbacks, void *ctx,
                                   struct err *err);
void redis_link_close(struct redis_link **link); /* accepts NULL; nothing is called after it */
/* Bytes written; -EAGAIN: full, `writable` tells; or another -errno. */
ssize_t redis_link_write(struct redis_link *link, struct iovec *vectors, int n);
/* Waits for room before it is written to. */
bool redis_link_full(const struct redis_link *link);
int64_t redis_link_heard_ms(const struct redis_link *link); /* last bytes read, or its start */

/* --- commands ----------------------------------------------------------------------------- */

/* All but the user's are the client's own, and made anew for each connection. */
enum redis_command_kind {
    COMMAND_USER,
    COMMAND_GREETING, /* AUTH, SELECT */
    COMMAND_LOAD,     /* SCRIPT LOAD */
    COMMAND_ROLE,     /* is it a master? */
    COMMAND_PING,     /* ends the greeting */
    COMMAND_SUBSCRIBE,
    COMMAND_WAIT,   /* have enough replicas what was written before it? */
    COMMAND_ASKING, /* the next one is for a slot that only moves here */
    COMMAND_OWN,    /* answered to fn; lost with the connection */
};

struct redis_command {
    TAILQ_ENTRY(redis_command) entry;
    enum redis_command_kind kind;
    redis_reply_fn *fn;
    void *ctx;
    struct redis_script *script;      /* of an EVALSHA or a SCRIPT LOAD */
    const struct redis_value *answer; /* kept until the replicas have it, too */
    int slot;                         /* of its key; -1: any server will do */
    int tries;                        /* NOSCRIPT answers */
    int redirects;                    /* MOVED and ASK in a row */
    bool survives;                    /* answered only when enough replicas have it */
    bool blocks;                      /* needs a connection on which nothing else waits */
    bool asked;                       /* behind an ASKING */
    size_t len;
    char bytes[];
};
TAILQ_HEAD(redis_commands, redis_command);

/* lens NULL: all are strings. */
struct redis_command *redis_command_new(int argc, const char *const *argv, const size_t *lens);
struct redis_command *redis_command_load(struct redis_script *script);
#ifdef ORCH_TESTING
/* What failpoints call it: its script, or its first word. Good until the next call. */
const char *redis_command_label(const struct redis_command *command);
#endif
/* The hash slot of a key. */
int redis_slot(const char *key, size_t len);
#define REDIS_SLOTS 16384
/* The slot of a command's first key; -1: it has none. */
int redis_command_slot(int argc, const char *const *argv, const size_t *lens);

/* --- node: one server --------------------------------------------------------------------- */

enum redis_node_state {
    NODE_IDLE,       /* nobody has asked for it */
    NODE_DOWN,       /* waits for its next try */
    NODE_FINDING,    /* its address is asked for */
    NODE_CONNECTING, /* and so is its tunnel */
    NODE_GREETING,   /* AUTH, SELECT, SCRIPT LOAD, PING sent; nothing of the user's yet */
    NODE_UP,
};

struct redis_node;

/* What its owner decides. */
struct redis_node_hooks {
    /* Its address is wanted: answer, now or later, with redis_node_connect() or redis_node_fail().
     * NULL: it has one. */
    void (*find)(struct redis_node *node);
    void (*up)(struct redis_node *node);
    /* news: not the same reason as the last time. Nothing of the node is touched after it. */
    void (*down)(struct redis_node *node, const char *why, bool news);
    /* An answer to a user's command that means another server, or another time. True: the command
     * is taken. NULL: such answers are errors. */
    bool (*redirected)(struct redis_node *node, struct redis_command *command,
                       const struct redis_value *value);
    bool master; /* a replica will not do */
};

/* Fields below `state` are redis_node.c's own. */
struct redis_node {
    TAILQ_ENTRY(redis_node) entry; /* of its owner, then of redis->dead */
    struct redis *redis;
    const struct redis_node_hooks *hooks;
    struct redis_place place;
    char *name;  /* "unix:/path" or "host:port" */
    bool alone;  /* of a cluster: for a command that blocks */
    bool mapped; /* of a cluster: serves slots */
    bool failed; /* it was lost, or never there, and did not come back since */
    enum redis_node_state state;
    struct redis_link *link;
    struct tunnel *tunnel; /* TLS; NULL: not needed, or none yet */
    struct loop_timer *reconnect, *retry;
    int64_t backoff_ms;
    int64_t tunnel_ms;            /* since when the tunnel is waited for */
    unsigned connects;            /* counts, to go through a host's addresses */
    struct redis_commands queue;  /* unanswered, in order */
    struct redis_commands held;   /* answered LOADING or the like: sent again by `retry` */
    struct redis_commands unsure; /* answered, but not known to be replicated */
    struct redis_command *unsent; /* NULL: all of `queue` is sent */
    size_t unsent_offset;         /* bytes of it that are sent */
    bool wants_wait;              /* unsent ones must reach replicas */
    int64_t asked_ms;             /* first bytes sent after none were owed */
    char *last_why;               /* told last since it was up; NULL: nothing */
    bool closed;
};

/* place is copied; NULL: `find` will say. */
struct redis_node *redis_node_new(struct redis *redis, const struct redis_node_hooks *hooks,
                                  const struct redis_place *place);
/* Answers what is pending with CLOSED. The memory lasts until the loop's next turn. */
void redis_node_free(struct redis_node **node); /* accepts NULL */
void redis_node_reap(struct redis *redis);      /* frees the memory of those */
void redis_node_start(struct redis_node *node); /* connects, from the loop; again: nothing */
void redis_node_connect(struct redis_node *node, const char *host, int port);
void redis_node_fail(struct redis_node *node, const char *why);
/* Ends the connection; everything that is unanswered will be sent on the next one. */
void redis_node_drop(struct redis_node *node, const char *why, int64_t min_backoff_ms);
void redis_node_add(struct redis_node *node, struct redis_command *command); /* takes it */
void redis_node_flush(struct redis_node *node); /* once per turn of the loop */
/* Takes all that is unanswered, unless the node is up: then some of it may be on its way. */
void redis_node_take(struct redis_node *node, struct redis_commands *into);
bool redis_node_empty(const struct redis_node *node);
/* How long it has owed an answer and said nothing; 0: it owes none. */
int64_t redis_node_silent_ms(const struct redis_node *node);
/* A server that is stuck, or a host that went away without a word. */
void redis_node_watch(struct redis_node *node);
bool redis_node_greeted(const struct redis_node *node); /* GREETING or UP */

/* What redis_connect.c and redis_node.c have of each other. */
#define REDIS_BACKOFF_MIN_MS 10
#define REDIS_BACKOFF_MAX_MS 1000
#define REDIS_READONLY_MS 200   /* a failover takes a moment */
void redis_node_try(void *ctx); /* the time has come for the next try */
/* Before all that is not sent, and behind what is, even in part. */
void redis_node_insert(struct redis_node *node, struct redis_command *command);
void redis_node_write(void *ctx);                                  /* what the socket takes */
bool redis_node_reply(void *ctx, const struct redis_value *value); /* true: keeps it */

/* --- client ------------------------------------------------------------------------------- */

struct redis {
    uv_loop_t *loop;
    uv_prepare_t flush; /* writes once per turn of the loop, before it sleeps */
    struct loop_timer *watch;
    struct redis_options options;
    struct redis_callbacks callbacks;
    void *ctx;
    char *name;
    struct redis_node *node;         /* the server; in a cluster: any, for what has no key */
    struct redis_sentinel *sentinel; /* finds it; NULL: its address is fixed */
    struct redis_cluster *cluster;   /* NULL: it is none */
    TAILQ_HEAD(, redis_node) dead;   /* freed with the next turn */
    size_t pending;                  /* of the user's */
    struct redis_script **scripts;   /* used so far: loaded on each connection */
    size_t n_scripts;
    char *channel; /* of a listener; NULL: it is none */
    redis_reply_fn *message_fn;
    void *message_ctx;
    void (*turn_fn)(void *ctx); /* NULL: nobody wants to know */
    void *turn_ctx;
    bool closed;
};

/* Answers a user's command and frees it. */
void redis_answer(struct redis *redis, struct redis_command *command,
                  const struct redis_value *value);
/* "[::1]:6379" or "host:6379" into host and port; false when it is none of them. */
bool redis_place_parse(const char *text, size_t len, struct redis_place *ret);
void redis_place_release(struct redis_place *place);
char *redis_place_name(const struct redis_place *place);

/* --- sentinels ---------------------------------------------------------------------------- */

struct redis_sentinel *redis_sentinel_new(struct redis *redis);
void redis_sentinel_free(struct redis_sentinel **sentinel); /* accepts NULL */
/* Asks for redis->node's address. */
void redis_sentinel_ask(struct redis_sentinel *sentinel);

/* --- cluster ------------------------------------------------------------------------------ */

/* Makes redis->node, too. */
struct redis_cluster *redis_cluster_new(struct redis *redis);
/* Before redis->node. Answers what is pending with CLOSED; the memory is to be freed once no
 * callback can be under way. Accepts NULL. */
void redis_cluster_close(struct redis_cluster *cluster);
void redis_cluster_send(struct redis_cluster *cluster, struct redis_command *command);
void redis_cluster_flush(struct redis_cluster *cluster);
void redis_cluster_watch(struct redis_cluster *cluster);
bool redis_cluster_up(const struct redis_cluster *cluster);
/* On all servers that are connected; the others load it when they are. */
void redis_cluster_load(struct redis_cluster *cluster, struct redis_script *script);

#endif
