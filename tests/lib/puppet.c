#include "tests/lib/puppet.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/containers.h"
#include "common/task_id.h"
#include "schemas/mem.h"

#define CREDIT 64
#define LEASE_MS 30000

static const char plan[] =
    "{\"title\":\"Boat\",\"subtasks\":["
    "{\"id\":\"a\",\"title\":\"A\",\"role\":\"general\",\"prompt\":\"a\",\"depends_on\":[]},"
    "{\"id\":\"b\",\"title\":\"B\",\"role\":\"general\",\"prompt\":\"b\",\"depends_on\":[]},"
    "{\"id\":\"c\",\"title\":\"C\",\"role\":\"general\",\"prompt\":\"c\",\"depends_on\":[\"a\"]}]}";

/* A subtask that was dispatched. */
struct part {
    UT_hash_handle hh; /* by key */
    struct puppet *puppet;
    char task[TASK_ID_SIZE], sub[SUB_ID_MAX + 1];
    char token[64];
    int64_t attempt;
    size_t dispatches, committed;
    char key[];
};

struct puppet {
    struct peer *peer;
    struct queue *queue;
    struct part *parts;
    char boot[17];
};

static void introduce(void *ctx, int broker)
{
    struct puppet *puppet = ctx;
    const char *arms[] = {"m@p"};
    struct message ready = {.type = MESSAGE_ready,
                            .ready = {.name = "puppet",
                                      .boot = puppet->boot,
                                      .host = "h",
                                      .pid = getpid(),
                                      .provider = "p",
                                      .arms = arms,
                                      .n_arms = 1,
                                      .credit = CREDIT,
                                      .concurrency = CREDIT,
                                      .local = true}};
    peer_send(puppet->peer, broker, &ready);
}

static void committed(void *ctx, enum queue_status status, const char *err)
{
    struct part *part = ctx;
    (void)err;
    part->committed += status == QUEUE_OK;
}

static void commit(struct part *part)
{
    struct buf outcome = {0}, timing = {0};
    const char *text = strcmp(part->sub, "_plan") == 0 ? plan : "done";
    struct message message = {.type = MESSAGE_outcome,
                              .outcome = {.text = {text, strlen(text)},
                                          .finish = "done",
                                          .provider = "p",
                                          .model = "m",
                                          .worker = "puppet",
                                          .arm = "m@p"}};
    struct message record = {.type = MESSAGE_timing,
                             .timing = {.task = part->task,
                                        .sub = part->sub,
                                        .attempt = part->attempt,
                                        .role = "general",
                                        .arm = "m@p",
                                        .result = "done",
                                        .started_ms = clock_wall_ms(),
                                        .total_ms = 1}};
    if (message_encode(&message, &outcome) != 0 || message_encode(&record, &timing) != 0)
        abort();
    queue_commit(part->puppet->queue, part->task, part->sub, part->token,
                 (struct bytes){outcome.data, outcome.len}, (struct bytes){timing.data, timing.len},
                 NULL, committed, part);
    buf_release(&outcome);
    buf_release(&timing);
}

static void claimed(void *ctx, enum queue_status status, const struct queue_claim *claim,
                    const char *err)
{
    struct part *part = ctx;
    (void)status, (void)err;
    if (claim == NULL)
        return;
    snprintf(part->token, sizeof part->token, "%s", claim->token);
    part->attempt = claim->attempt;
    commit(part);
}

static struct part *part_of(struct puppet *puppet, const char *task, const char *sub)
{
    struct part *part;
    char key[TASK_ID_SIZE + SUB_ID_MAX + 2];
    snprintf(key, sizeof key, "%s/%s", task, sub);
    HASH_FIND_STR(puppet->parts, key, part);
    if (part != NULL)
        return part;
    part = mem_must_zalloc(sizeof *part + strlen(key) + 1);
    part->puppet = puppet;
    snprintf(part->task, sizeof part->task, "%s", task);
    snprintf(part->sub, sizeof part->sub, "%s", sub);
    memcpy(part->key, key, strlen(key) + 1);
    HASH_ADD_STR(puppet->parts, key, part);
    return part;
}

static void came(void *ctx, int broker, const struct message *message)
{
    struct puppet *puppet = ctx;
    char nonce[17];
    if (message->type != MESSAGE_dispatch)
        return;
    struct part *part = part_of(puppet, message->dispatch.task, message->dispatch.sub);
    part->dispatches++;
    boot_nonce_make(nonce);
    queue_claim(puppet->queue, part->task, part->sub, "puppet", message->dispatch.arm, nonce,
                LEASE_MS, false, claimed, part);
    struct message credit = {.type = MESSAGE_credit, .credit = {.grant = 1}};
    peer_send(puppet->peer, broker, &credit);
}

struct puppet *puppet_new(uv_loop_t *loop, const struct config *config, struct queue *queue)
{
    static const struct peer_callbacks callbacks = {.introduce = introduce, .message = came};
    struct puppet *puppet = mem_must_zalloc(sizeof *puppet);
    struct err err;
    puppet->queue = queue;
    boot_nonce_make(puppet->boot);
    if (peer_open(&puppet->peer, loop, config, "worker/puppet", puppet->boot, &callbacks, puppet,
                  &err) != 0) {
        fprintf(stderr, "puppet: %s\n", err.text);
        exit(2);
    }
    return puppet;
}

void puppet_free(struct puppet **ret)
{
    struct puppet *puppet = *ret;
    struct part *part, *next;
    *ret = NULL;
    peer_close(&puppet->peer);
    HASH_ITER (hh, puppet->parts, part, next) {
        HASH_DEL(puppet->parts, part);
        free(part);
    }
    free(puppet);
}

struct puppet_counts puppet_counts(const struct puppet *puppet)
{
    struct puppet_counts counts = {0};
    for (const struct part *part = puppet->parts; part != NULL; part = part->hh.next) {
        counts.subtasks++;
        counts.dispatches += part->dispatches;
        counts.committed += part->committed;
        counts.twice += part->committed > 1;
    }
    return counts;
}
