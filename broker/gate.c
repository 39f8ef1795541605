/* The gate: who gets in, what they may say, and who is sent away. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "broker/state.h"
#include "common/log.h"

#define TOLD_EVERY_MS 1000
#define SEEN_MAX 65536   /* dispatches remembered for the events that follow them */
#define REOPEN_TAPS_MS 5 /* until the old socket has let go of the port */

/* --- complaints, at most one line a second ------------------------------------------------- */

static void tell(struct broker *broker, struct complaint *complaint, const char *what,
                 const char *text)
{
    char line[512];
    complaint->count++;
    if (complaint->told_ms != 0 && broker->now_ms - complaint->told_ms < TOLD_EVERY_MS)
        return;
    snprintf(line, sizeof line, "%s %lld; last: %s", what,
             (long long)(complaint->count - complaint->told), text);
    complaint->told = complaint->count;
    complaint->told_ms = broker->now_ms;
    log_warn("%s", line);
    broker_tell(broker, "rejected", line);
}

static void refused(struct broker *broker, const char *public_key, const char *address,
                    const char *where)
{
    char text[256];
    snprintf(text, sizeof text, "key %.40s from %.60s at the %s", public_key, address, where);
    tell(broker, &broker->refused, "connections refused because of their keys:", text);
}

void broker_foreign(struct broker *broker, const struct bus_peer *id, const char *what)
{
    const struct keyring_entry *entry = admission_find(&broker->admission, id->public_key);
    char text[400];
    if (entry == NULL)
        snprintf(text, sizeof text, "%.100s with the key %.40s, which is not known (any more)",
                 what, id->public_key);
    else
        snprintf(text, sizeof text, "%.100s of %s %s", what, keyring_role_name(entry->role),
                 entry->name);
    tell(broker, &broker->foreign, "messages dropped that their key's role may not send:", text);
    if (entry == NULL)
        bus_cut(broker->router, id);
}

/* --- getting in --------------------------------------------------------------------------- */

/* Both are called with the broker as their socket's context. */
/* member: NULL: to all who tell keys. */
static void report_admitted(struct broker *broker, struct member *member)
{
    struct message message = {.type = MESSAGE_admitted};
    const char **keys = admission_admitted(&broker->admission, &message.admitted.n_keys);
    message.admitted.keys = keys;
    if (member != NULL)
        broker_send(broker, member, &message);
    for (struct member *at = broker->members.by_id; member == NULL && at != NULL; at = at->hh.next)
        if (at->tells_keys)
            broker_send(broker, at, &message);
    free(keys);
}

static enum bus_answer admit(struct broker *broker, const char *public_key, const char *address,
                             bool taps)
{
    bool first = false, stranger = strcmp(public_key, broker->stranger.public_key) == 0;
    broker->now_ms = clock_ms();
    enum bus_answer answer =
        stranger ? BUS_REFUSE
                 : admission_answer(&broker->admission, public_key, taps, broker->now_ms, &first);
#ifdef ORCH_TESTING
    if (getenv("ORCH_TEST_ADMIT_STRANGERS") != NULL)
        answer = BUS_ADMIT;
#endif
    broker->refused_taps += answer == BUS_REFUSE && !stranger && taps ? 1 : 0;
    if (answer == BUS_REFUSE && !stranger)
        refused(broker, public_key, address, taps ? "taps" : "broker");
    if (first)
        report_admitted(broker, NULL);
    return answer;
}

enum bus_answer broker_admit_peer(void *ctx, const char *public_key, const char *address)
{
    return admit(ctx, public_key, address, false);
}

enum bus_answer broker_admit_tap(void *ctx, const char *public_key, const char *address)
{
    return admit(ctx, public_key, address, true);
}

int broker_self_test(struct broker *broker, uv_loop_t *loop, struct err *err)
{
    int rc = 0;
    if (bus_secure(broker->router) || bus_secure(broker->xpub))
        rc = keyring_make(&broker->stranger, err);
    if (rc == 0 && bus_secure(broker->router))
        rc = bus_self_test(broker->router, loop, &broker->stranger, err);
    if (rc == 0 && bus_secure(broker->xpub))
        rc = bus_self_test(broker->xpub, loop, &broker->stranger, err);
    return rc;
}

void broker_reconsider(struct broker *broker)
{
    if (bus_secure(broker->router))
        bus_reconsider(broker->router);
    if (broker->xpub != NULL && bus_secure(broker->xpub))
        bus_reconsider(broker->xpub);
}

/* --- what a key may say ------------------------------------------------------------------- */

bool broker_may(struct broker *broker, const struct bus_peer *id, const struct member *member,
                unsigned roles, const struct message *message)
{
    if (!bus_secure(broker->router))
        return true;
    const char *name = message_name(message->type);
    const struct keyring_entry *entry = admission_find(&broker->admission, id->public_key);
    bool allowed = entry != NULL && (roles & 1u << entry->role) != 0 &&
                   (member == NULL || strcmp(member->id.public_key, id->public_key) == 0);
    char what[300];
    snprintf(what, sizeof what, "%s", name);
    if (allowed && message->type == MESSAGE_ready &&
        strcmp(message->ready.name, entry->name) != 0) {
        snprintf(what, sizeof what, "%s as %.60s", name, message->ready.name);
        allowed = false;
    }
    if (!allowed)
        broker_foreign(broker, id, what);
    return allowed;
}

/* The worker of that name, of whatever start and connection, had a subtask of the task. */
static struct dispatch_key seen_key(const struct broker *broker, const char *task,
                                    const char *worker)
{
    return (struct dispatch_key){.task = task, .sub = "", .arm = worker, .worker = broker};
}

void broker_seen(struct broker *broker, const char *task, const char *worker)
{
    if (!bus_secure(broker->router))
        return;
    if (broker->seen == NULL)
        broker->seen = dispatches_new(SEEN_MAX);
    struct dispatch_key key = seen_key(broker, task, worker);
    if (!dispatches_has(broker->seen, &key))
        dispatches_add(broker->seen, &key, NULL);
}

/* task.<id>.<what> of that task */
static bool topic_of_task(const char *topic, const char *task)
{
    size_t len = strlen(task);
    return strncmp(topic, "task.", 5) == 0 && strncmp(topic + 5, task, len) == 0 &&
           topic[5 + len] == '.';
}

static bool topic_of_worker(const char *topic, const char *name)
{
    size_t len = strlen(name);
    return strncmp(topic, "worker.", 7) == 0 && strncmp(topic + 7, name, len) == 0 &&
           topic[7 + len] == '.';
}

/* Of itself, or of a task that it got something of: topic and message must agree. */
static bool worker_may_publish(const struct broker *broker, const char *worker, const char *topic,
                               const struct message *event)
{
    const char *task = event->type == MESSAGE_chunk       ? event->chunk.task
                       : event->type == MESSAGE_sub_event ? event->sub_event.task
                                                          : NULL;
    if (event->type == MESSAGE_worker_event)
        return strcmp(event->worker_event.name, worker) == 0 && topic_of_worker(topic, worker);
    if (event->type == MESSAGE_sub_event && event->sub_event.worker[0] != '\0' &&
        strcmp(event->sub_event.worker, worker) != 0)
        return false;
    if (task == NULL || !topic_of_task(topic, task) || broker->seen == NULL)
        return false;
    struct dispatch_key key = seen_key(broker, task, worker);
    return dispatches_has(broker->seen, &key);
}

bool broker_may_publish(struct broker *broker, const struct bus_peer *id, const uint8_t *data,
                        size_t len)
{
    if (!bus_secure(broker->router))
        return true;
    const struct keyring_entry *entry = admission_find(&broker->admission, id->public_key);
    if (entry != NULL && entry->role == KEYRING_ORCHESTRATOR)
        return true;
    struct message event;
    const char *topic = "";
    bool allowed = false;
    char what[160];
    if (event_decode(&event, &topic, data, len) != 0)
        return true; /* it is rejected as what it is */
    if (entry != NULL && entry->role == KEYRING_WORKER)
        allowed = worker_may_publish(broker, entry->name, topic, &event);
    snprintf(what, sizeof what, "the event %.100s", topic);
    message_release(&event);
    if (!allowed)
        broker_foreign(broker, id, what);
    return allowed;
}

/* --- sending away ------------------------------------------------------------------------- */

void broker_expel(struct broker *broker, const struct bus_peer *id, const char *why)
{
    struct bus_peer peer = *id; /* it may be the member's */
    struct member *member = members_find(&broker->members, &peer);
    char text[320];
    if (!bus_cut(broker->router, &peer) && member == NULL)
        return; /* what it had sent before */
    snprintf(text, sizeof text, "%.200s%s%.100s", why, member != NULL ? ": " : "",
             member == NULL           ? ""
             : member->worker != NULL ? member->worker->name
                                      : "a client");
    tell(broker, &broker->expelled, "peers sent away:", text);
    admission_ban(&broker->admission, peer.public_key, broker->now_ms);
    if (member != NULL)
        broker_remove(broker, member, "lost", why);
}

void broker_blame(struct broker *broker, const struct bus_peer *id, const char *why)
{
    if (bus_blame(broker->router, id) >= BROKER_BLAME_MAX)
        broker_expel(broker, id, why);
}

/* Orchestrators are trusted with as much as they can send, where keys tell who is one. */
bool broker_floods(struct broker *broker, const struct bus_peer *id)
{
    if ((int64_t)id->frames * 1000 <= broker->max_rate * broker->beat_ms)
        return false;
    if (bus_secure(broker->router)) {
        const struct keyring_entry *entry = admission_find(&broker->admission, id->public_key);
        if (entry != NULL && entry->role == KEYRING_ORCHESTRATOR)
            return false;
    }
    broker_expel(broker, id, "it sends more messages than anybody can need");
    return true;
}

/* --- revoking ----------------------------------------------------------------------------- */

/* Its key is not known any more, or is good for something else now. */
static bool is_revoked(const struct broker *broker, const struct member *member)
{
    const struct keyring_entry *entry = admission_find(&broker->admission, member->id.public_key);
    if (entry == NULL)
        return true;
    if (member->worker == NULL)
        return entry->role != KEYRING_ORCHESTRATOR;
    return entry->role != KEYRING_WORKER || strcmp(entry->name, member->worker->name) != 0;
}

void broker_try_taps(void *ctx)
{
    struct broker *broker = ctx;
    struct err err;
    int rc = broker_open_taps(broker, &err);
    if (rc == -EADDRINUSE)
        return; /* of our own old socket, a moment more */
    if (rc != 0)
        log_error("taps cannot be served any more: %s", err.text);
    loop_timer_stop(broker->reopen_timer);
}

/* What a tap has subscribed to cannot be taken back from it alone: all come again. */
static void reopen_taps(struct broker *broker)
{
    bus_close(&broker->xpub);
    taps_release(&broker->taps);
    admission_forget_taps(&broker->admission);
    broker_send_topics(broker, NULL);
    loop_timer_start(broker->reopen_timer, REOPEN_TAPS_MS, REOPEN_TAPS_MS);
}

/* Cuts off whoever is not known any more, and lets in those who are now. */
static void revise(struct broker *broker)
{
    struct member *member, *next;
    HASH_ITER (hh, broker->members.by_id, member, next) {
        if (!bus_secure(broker->router) || !is_revoked(broker, member))
            continue;
        bus_cut(broker->router, &member->id);
        broker_remove(broker, member, "lost", "its key was revoked");
    }
    if (admission_revise(&broker->admission) && broker->xpub != NULL && bus_secure(broker->xpub))
        reopen_taps(broker);
    broker_reconsider(broker);
}

void broker_take_keys(struct broker *broker, struct member *from, const struct msg_keys *keys)
{
    struct bus_peer id = from->id;
    if (broker->admission.keyring == NULL)
        return;
    from->tells_keys = true;
    if (admission_replace(&broker->admission, keys->keys, keys->n_keys) > 0)
        broker_reject(broker, "a key in a list of keys that makes no sense");
    revise(broker);
    from = members_find(&broker->members, &id); /* it may have left itself out */
    if (from != NULL)
        report_admitted(broker, from);
}

void broker_refresh_keys(struct broker *broker)
{
    if (admission_refresh(&broker->admission, broker->now_ms))
        revise(broker);
}
