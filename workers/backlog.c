#include "workers/backlog.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/containers.h"
#include "schemas/mem.h"

struct entry {
    struct backlog_item item;
    TAILQ_ENTRY(entry) link;
};

struct backlog {
    size_t n;
    TAILQ_HEAD(, entry) entries;
};

struct backlog *backlog_new(void)
{
    struct backlog *backlog = mem_must_zalloc(sizeof *backlog);
    TAILQ_INIT(&backlog->entries);
    return backlog;
}

static void take(struct backlog *backlog, struct entry *entry, struct backlog_item *ret)
{
    TAILQ_REMOVE(&backlog->entries, entry, link);
    backlog->n--;
    *ret = entry->item;
    free(entry);
}

void backlog_free(struct backlog **backlog)
{
    struct backlog_item item;
    while (*backlog != NULL && backlog_pop(*backlog, &item))
        ;
    free(*backlog);
    *backlog = NULL;
}

size_t backlog_size(const struct backlog *backlog)
{
    return backlog->n;
}

void backlog_push(struct backlog *backlog, const char *task, const char *sub, const struct arm *arm,
                  int broker)
{
    struct entry *entry = mem_must_zalloc(sizeof *entry);
    entry->item.arm = arm;
    entry->item.broker = broker;
    snprintf(entry->item.task, sizeof entry->item.task, "%s", task);
    snprintf(entry->item.sub, sizeof entry->item.sub, "%s", sub);
    TAILQ_INSERT_TAIL(&backlog->entries, entry, link);
    backlog->n++;
}

bool backlog_pop(struct backlog *backlog, struct backlog_item *ret)
{
    struct entry *entry = TAILQ_FIRST(&backlog->entries);
    if (entry == NULL)
        return false;
    take(backlog, entry, ret);
    return true;
}

bool backlog_remove(struct backlog *backlog, const char *task, const char *sub,
                    struct backlog_item *ret)
{
    struct entry *entry;
    TAILQ_FOREACH (entry, &backlog->entries, link)
        if (strcmp(entry->item.task, task) == 0 &&
            (sub[0] == '\0' || strcmp(entry->item.sub, sub) == 0)) {
            take(backlog, entry, ret);
            return true;
        }
    return false;
}
