/* One node for each master, and one more, redis->node, which is with whichever server of the
 * cluster answers: it asks for the map of slots, and sends what has no key. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/redis_internal.h"
#include "schemas/mem.h"

#define REFRESH_MS 250 /* between two questions for the map while something is lost */
#define RETRY_MS 50    /* after TRYAGAIN and the like */
#define SILENT_MS 2000 /* after which a server that owes answers may be no master any more */
#define REDIRECTS 8    /* in a row, until it is tried more slowly */
#define SCRIPT_TRIES 3
#define NODES_MAX 2048 /* addresses of one cluster; more is nonsense */

TAILQ_HEAD(nodes, redis_node);

struct redis_cluster {
    struct redis *redis;
    struct redis_node *owners[REDIS_SLOTS]; /* NULL: nobody */
    struct nodes nodes;                     /* the masters, and those for commands that block */
    struct redis_commands waiting;          /* nobody serves their slot now, or they were told so */
    struct loop_timer *retry, *refresh;
    char **known; /* addresses that the map has told */
    size_t n_known;
    size_t next;   /* address to go to, of known and the configured ones */
    size_t lost;   /* so many did not answer since one did */
    bool asking;   /* the map is on its way */
    bool complete; /* there is a map */
    bool up;       /* told so */
};

static void route(struct redis_cluster *cluster, struct redis_command *command);

/* --- whether all is well ------------------------------------------------------------------ */

static void check_up(struct redis_cluster *cluster)
{
    struct redis *redis = cluster->redis;
    const struct redis_node *node;
    if (cluster->up || !cluster->complete || redis->node->state != NODE_UP)
        return;
    TAILQ_FOREACH (node, &cluster->nodes, entry)
        if (node->mapped && node->failed && !node->alone)
            return;
    cluster->up = true;
    if (redis->callbacks.up != NULL)
        redis->callbacks.up(redis->ctx);
}

bool redis_cluster_up(const struct redis_cluster *cluster)
{
    return cluster->up;
}

static void refresh_soon(struct redis_cluster *cluster, int64_t after_ms)
{
    if (!loop_timer_active(cluster->refresh))
        loop_timer_start(cluster->refresh, after_ms, 0);
}

static void tell_down(struct redis_cluster *cluster, const char *why, bool news)
{
    struct redis *redis = cluster->redis;
    cluster->up = false;
    if (news && redis->callbacks.down != NULL)
        redis->callbacks.down(redis->ctx, why);
}

/* --- masters ------------------------------------------------------------------------------ */

static struct redis_cluster *cluster_of(const struct redis_node *node)
{
    return node->redis->cluster;
}

static void master_up(struct redis_node *node)
{
    check_up(cluster_of(node));
}

static void master_down(struct redis_node *node, const char *why, bool news)
{
    refresh_soon(cluster_of(node), 0);
    if (!node->alone)
        tell_down(cluster_of(node), why, news);
}

static bool redirected(struct redis_node *node, struct redis_command *command,
                       const struct redis_value *value);

static const struct redis_node_hooks master_hooks = {
    .up = master_up, .down = master_down, .redirected = redirected};

static bool is_at(const struct redis_node *node, const char *host, int port)
{
    return node->place.port == port && strcmp(node->place.host, host) == 0;
}

static struct redis_node *add_node(struct redis_cluster *cluster, const char *host, int port)
{
    struct redis_place place = {.host = (char *)(uintptr_t)host, .port = port};
    struct redis_node *node = redis_node_new(cluster->redis, &master_hooks, &place);
    TAILQ_INSERT_TAIL(&cluster->nodes, node, entry);
    return node;
}

static struct redis_node *node_at(struct redis_cluster *cluster, const char *host, int port)
{
    struct redis_node *node;
    TAILQ_FOREACH (node, &cluster->nodes, entry)
        if (!node->alone && is_at(node, host, port))
            return node;
    return add_node(cluster, host, port);
}

/* A connection to the same server on which nothing waits. */
static struct redis_node *alone_at(struct redis_cluster *cluster, const struct redis_node *master)
{
    struct redis_node *node;
    TAILQ_FOREACH (node, &cluster->nodes, entry)
        if (node->alone && redis_node_empty(node) &&
            is_at(node, master->place.host, master->place.port))
            return node;
    node = add_node(cluster, master->place.host, master->place.port);
    node->alone = true;
    node->mapped = true;
    return node;
}

static void send_to(struct redis_cluster *cluster, struct redis_node *master,
                    struct redis_command *command)
{
    redis_node_add(command->blocks ? alone_at(cluster, master) : master, command);
}

/* --- commands ----------------------------------------------------------------------------- */

static void wait_for_map(struct redis_cluster *cluster, struct redis_command *command)
{
    TAILQ_INSERT_TAIL(&cluster->waiting, command, entry);
    refresh_soon(cluster, cluster->complete ? REFRESH_MS : 0);
}

static void route(struct redis_cluster *cluster, struct redis_command *command)
{
    if (command->slot < 0)
        redis_node_add(cluster->redis->node, command);
    else if (cluster->owners[command->slot] != NULL)
        send_to(cluster, cluster->owners[command->slot], command);
    else
        wait_for_map(cluster, command);
}

void redis_cluster_send(struct redis_cluster *cluster, struct redis_command *command)
{
    route(cluster, command);
}

static void route_all(struct redis_cluster *cluster, struct redis_commands *commands)
{
    struct redis_command *command;
    struct redis_commands now;
    TAILQ_INIT(&now);
    TAILQ_CONCAT(&now, commands, entry); /* what cannot be sent yet goes back to the list */
    while ((command = TAILQ_FIRST(&now)) != NULL) {
        TAILQ_REMOVE(&now, command, entry);
        route(cluster, command);
    }
}

static void retry_waiting(void *ctx)
{
    struct redis_cluster *cluster = ctx;
    route_all(cluster, &cluster->waiting);
}

static void try_later(struct redis_cluster *cluster, struct redis_command *command)
{
    command->redirects = 0;
    command->asked = false;
    TAILQ_INSERT_TAIL(&cluster->waiting, command, entry);
    if (!loop_timer_active(cluster->retry))
        loop_timer_start(cluster->retry, RETRY_MS, 0);
}

void redis_cluster_load(struct redis_cluster *cluster, struct redis_script *script)
{
    struct redis_node *node;
    TAILQ_FOREACH (node, &cluster->nodes, entry)
        if (redis_node_greeted(node))
            redis_node_add(node, redis_command_load(script));
}

/* --- redirections ------------------------------------------------------------------------- */

/* "MOVED 3999 127.0.0.1:6381"; without a host it is the one that says so. False: it is nonsense. */
static bool parse_redirect(const struct redis_node *node, const struct redis_value *value,
                           int *ret_slot, struct redis_place *ret)
{
    char text[320];
    int slot, at = 0;
    if (sscanf(redis_str(value, NULL), "%*s %5d %n", &slot, &at) != 1 || at == 0 || slot < 0 ||
        slot >= REDIS_SLOTS)
        return false;
    const char *address = redis_str(value, NULL) + at;
    snprintf(text, sizeof text, "%s%.300s", address[0] == ':' ? node->place.host : "", address);
    *ret_slot = slot;
    return redis_place_parse(text, strcspn(text, " "), ret);
}

static void follow(struct redis_cluster *cluster, struct redis_command *command,
                   struct redis_node *to, bool ask)
{
    if (ask) {
        struct redis_node *node = command->blocks ? alone_at(cluster, to) : to;
        struct redis_command *asking = redis_command_new(1, (const char *[]){"ASKING"}, NULL);
        asking->kind = COMMAND_ASKING;
        command->asked = true;
        redis_node_add(node, asking);
        redis_node_add(node, command);
        return;
    }
    cluster->owners[command->slot] = to;
    to->mapped = true;
    refresh_soon(cluster, 0);
    send_to(cluster, to, command);
}

static bool redirected(struct redis_node *node, struct redis_command *command,
                       const struct redis_value *value)
{
    struct redis_cluster *cluster = cluster_of(node);
    bool ask = redis_is_error(value, "ASK"), moved = redis_is_error(value, "MOVED");
    bool down = redis_is_error(value, "CLUSTERDOWN");
    struct redis_place place = {0};
    int slot;
    bool asked = command->asked;
    command->asked = false;
    if (redis_type(value) != REDIS_ERR || command->slot < 0)
        return false;
    if ((ask || moved) && ++command->redirects <= REDIRECTS &&
        parse_redirect(node, value, &slot, &place)) {
        follow(cluster, command, node_at(cluster, place.host, place.port), ask);
        redis_place_release(&place);
        return true;
    }
    redis_place_release(&place);
    if (asked && redis_is_error(value, "NOSCRIPT") && command->tries++ < SCRIPT_TRIES) {
        redis_node_add(node, redis_command_load(command->script));
        try_later(cluster, command);
        return true;
    }
    if (!ask && !moved && !down && !redis_is_error(value, "TRYAGAIN") &&
        !redis_is_error(value, "UNBLOCKED"))
        return false;
    if (down || moved)
        refresh_soon(cluster, 0);
    try_later(cluster, command);
    return true;
}

/* --- the map ------------------------------------------------------------------------------ */

static void know_address(struct redis_cluster *cluster, const struct redis_place *place)
{
    char *name = redis_place_name(place);
    bool is_new = cluster->n_known < NODES_MAX;
    for (size_t i = 0; i < cluster->n_known && is_new; i++)
        is_new = strcmp(cluster->known[i], name) != 0;
    if (!is_new) {
        free(name);
        return;
    }
    cluster->known =
        mem_must_realloc(cluster->known, (cluster->n_known + 1) * sizeof *cluster->known);
    cluster->known[cluster->n_known++] = name;
}

static void forget_addresses(struct redis_cluster *cluster)
{
    for (size_t i = 0; i < cluster->n_known; i++)
        free(cluster->known[i]);
    free(cluster->known);
    cluster->known = NULL;
    cluster->n_known = 0;
}

/* value: [host, port, ...]. An unknown host is that of the server which tells. */
static bool parse_node(const struct redis_cluster *cluster, const struct redis_value *value,
                       struct redis_place *ret)
{
    char text[320];
    const char *host = redis_str(redis_at(value, 0), NULL);
    if (host[0] == '\0' || strcmp(host, "?") == 0)
        host = cluster->redis->node->place.host;
    int n = snprintf(text, sizeof text, "%s:%lld", host, (long long)redis_int(redis_at(value, 1)));
    return n > 0 && (size_t)n < sizeof text && redis_place_parse(text, (size_t)n, ret);
}

/* value: [first slot, last slot, master, replica, ...] */
static size_t take_range(struct redis_cluster *cluster, const struct redis_value *value)
{
    int64_t first = redis_int(redis_at(value, 0)), last = redis_int(redis_at(value, 1));
    struct redis_place place;
    if (redis_len(value) < 3 || first < 0 || last < first || last >= REDIS_SLOTS ||
        cluster->n_known >= NODES_MAX || !parse_node(cluster, redis_at(value, 2), &place))
        return 0;
    struct redis_node *master = node_at(cluster, place.host, place.port);
    know_address(cluster, &place);
    redis_place_release(&place);
    for (int64_t slot = first; slot <= last; slot++)
        cluster->owners[slot] = master;
    master->mapped = true;
    for (size_t i = 3; i < redis_len(value); i++)
        if (parse_node(cluster, redis_at(value, i), &place)) {
            know_address(cluster, &place);
            redis_place_release(&place);
        }
    return (size_t)(last - first + 1);
}

/* What waits at servers that are not there goes to who serves its slot now; what nobody needs goes.
 */
static void settle_nodes(struct redis_cluster *cluster)
{
    struct redis_commands moving;
    struct redis_node *node, *next;
    TAILQ_INIT(&moving);
    TAILQ_FOREACH (node, &cluster->nodes, entry)
        if (node->alone)
            node->mapped = node_at(cluster, node->place.host, node->place.port)->mapped;
    TAILQ_FOREACH (node, &cluster->nodes, entry)
        if (!node->mapped && redis_node_silent_ms(node) > SILENT_MS)
            redis_node_drop(node, "another server is the master now", 0);
    if (cluster->redis->closed)
        return; /* by the callback that was told so */
    TAILQ_FOREACH (node, &cluster->nodes, entry)
        if (!node->mapped || node->failed)
            redis_node_take(node, &moving);
    TAILQ_FOREACH_SAFE (node, &cluster->nodes, entry, next)
        if (redis_node_empty(node) && (!node->mapped || (node->alone && node->failed))) {
            TAILQ_REMOVE(&cluster->nodes, node, entry);
            redis_node_free(&node);
        }
    TAILQ_CONCAT(&moving, &cluster->waiting, entry);
    route_all(cluster, &moving);
}

/* value: [range, ...] of CLUSTER SLOTS */
static void map_told(void *ctx, const struct redis_value *value)
{
    struct redis_cluster *cluster = ctx;
    struct redis_node *roaming = cluster->redis->node, *node;
    size_t slots = 0;
    char why[512];
    cluster->asking = false;
    if (redis_type(value) == REDIS_ERR) {
        snprintf(why, sizeof why, "Redis at %s does not show the map of its cluster: %.300s",
                 roaming->name, redis_str(value, NULL));
        redis_node_drop(roaming, why, REFRESH_MS);
        return;
    }
    forget_addresses(cluster);
    memset(cluster->owners, 0, sizeof cluster->owners);
    TAILQ_FOREACH (node, &cluster->nodes, entry)
        node->mapped = false;
    for (size_t i = 0; i < redis_len(value); i++)
        slots += take_range(cluster, redis_at(value, i));
    if (slots == 0) {
        snprintf(why, sizeof why, "the cluster that Redis at %s belongs to serves no slots",
                 roaming->name);
        redis_node_drop(roaming, why, REFRESH_MS);
        return;
    }
    cluster->complete = true;
    settle_nodes(cluster);
    if (cluster->redis->closed)
        return;
    bool lost = !TAILQ_EMPTY(&cluster->waiting);
    TAILQ_FOREACH (node, &cluster->nodes, entry)
        lost = lost || node->failed;
    if (lost)
        refresh_soon(cluster, REFRESH_MS);
    check_up(cluster);
}

static void ask_for_map(void *ctx)
{
    struct redis_cluster *cluster = ctx;
    struct redis_node *roaming = cluster->redis->node;
    if (cluster->asking || roaming->state != NODE_UP || cluster->redis->channel != NULL)
        return; /* its answer, or the next server, will do; a listener needs no map */
    struct redis_command *command =
        redis_command_new(2, (const char *[]){"CLUSTER", "SLOTS"}, NULL);
    command->kind = COMMAND_OWN;
    command->fn = map_told;
    command->ctx = cluster;
    cluster->asking = true;
    redis_node_add(roaming, command);
}

/* --- the one that roams ------------------------------------------------------------------- */

static void roam(struct redis_node *node)
{
    struct redis_cluster *cluster = cluster_of(node);
    const struct redis_options *options = &node->redis->options;
    size_t at = cluster->next++ % (cluster->n_known + options->n_cluster);
    const char *name =
        at < cluster->n_known ? cluster->known[at] : options->cluster[at - cluster->n_known];
    struct redis_place place = {0};
    if (!redis_place_parse(name, strlen(name), &place))
        return; /* redis_open() has checked them */
    redis_node_connect(node, place.host, place.port);
    redis_place_release(&place);
}

static void roaming_up(struct redis_node *node)
{
    struct redis_cluster *cluster = cluster_of(node);
    cluster->asking = false;
    cluster->lost = 0;
    if (node->redis->channel != NULL)
        cluster->complete = true;
    ask_for_map(cluster);
    check_up(cluster);
}

static void roaming_down(struct redis_node *node, const char *why, bool news)
{
    struct redis_cluster *cluster = cluster_of(node);
    cluster->asking = false;
    /* Another one will do: that is no news unless all are lost. */
    (void)news;
    if (++cluster->lost == cluster->n_known + node->redis->options.n_cluster)
        tell_down(cluster, why, true);
}

static const struct redis_node_hooks roaming_hooks = {
    .find = roam, .up = roaming_up, .down = roaming_down};

/* --- the loop ----------------------------------------------------------------------------- */

void redis_cluster_flush(struct redis_cluster *cluster)
{
    struct redis_node *node;
    TAILQ_FOREACH (node, &cluster->nodes, entry)
        redis_node_flush(node);
}

void redis_cluster_watch(struct redis_cluster *cluster)
{
    struct redis_node *node, *next;
    struct redis *redis = cluster->redis;
    if (cluster->asking && redis_node_silent_ms(redis->node) > SILENT_MS)
        redis_node_drop(redis->node, "a node of the cluster does not answer: asking another", 0);
    TAILQ_FOREACH_SAFE (node, &cluster->nodes, entry, next) {
        if (redis->closed)
            return;
        if (!node->alone && redis_node_silent_ms(node) > SILENT_MS)
            refresh_soon(cluster, 0);
        redis_node_watch(node);
    }
}

struct redis_cluster *redis_cluster_new(struct redis *redis)
{
    struct redis_cluster *cluster = mem_must_zalloc(sizeof *cluster);
    cluster->redis = redis;
    TAILQ_INIT(&cluster->nodes);
    TAILQ_INIT(&cluster->waiting);
    cluster->retry = loop_timer_new(redis->loop, retry_waiting, cluster);
    cluster->refresh = loop_timer_new(redis->loop, ask_for_map, cluster);
    redis->node = redis_node_new(redis, &roaming_hooks, NULL);
    return cluster;
}

void redis_cluster_close(struct redis_cluster *cluster)
{
    if (cluster == NULL)
        return;
    loop_timer_free(&cluster->retry);
    loop_timer_free(&cluster->refresh);
    struct redis_command *command;
    while ((command = TAILQ_FIRST(&cluster->waiting)) != NULL) {
        TAILQ_REMOVE(&cluster->waiting, command, entry);
        cluster->redis->pending--;
        redis_answer_closed(command->fn, command->ctx);
        free(command);
    }
    struct redis_node *node;
    while ((node = TAILQ_FIRST(&cluster->nodes)) != NULL) {
        TAILQ_REMOVE(&cluster->nodes, node, entry);
        redis_node_free(&node);
    }
    forget_addresses(cluster);
}
