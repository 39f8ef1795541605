/* Who serves which model now. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "orchestrator/models.h"
#include "schemas/mem.h"

/* `alias@place: reason` or `alias@place`: the length of the arm, when it is one of the alias. */
static size_t arm_of(const char *text, const char *alias)
{
    size_t len = strlen(alias);
    if (strncmp(text, alias, len) != 0 || text[len] != '@')
        return 0;
    const char *reason = strstr(text + len, ": ");
    return reason != NULL ? (size_t)(reason - text) : strlen(text);
}

static struct models_arm *add_arm(struct models_arms *arms, const struct config_model *model,
                                  const struct roster_worker *worker, const char *arm, size_t len)
{
    for (size_t i = 0; i < arms->n_items; i++)
        if (strlen(arms->items[i].arm) == len && memcmp(arms->items[i].arm, arm, len) == 0)
            return NULL;
    arms->items = mem_must_realloc(arms->items, (arms->n_items + 1) * sizeof *arms->items);
    struct models_arm *item = &arms->items[arms->n_items++];
    *item = (struct models_arm){.arm = mem_must_strndup(arm, len),
                                .model = model,
                                .worker = worker->name,
                                .state = roster_state(worker, model->alias)};
    return item;
}

void models_arms_find(struct models_arms *ret, const struct config *config,
                      const struct roster *roster)
{
    *ret = (struct models_arms){0};
    for (size_t m = 0; m < config->n_models; m++) {
        const struct config_model *model = &config->models[m];
        /* What one worker has paused another may serve: those that are served come first. */
        for (size_t w = 0; w < roster->n_workers; w++) {
            const struct roster_worker *worker = &roster->workers[w];
            for (size_t a = 0; a < worker->n_arms; a++) {
                size_t len = arm_of(worker->arms[a], model->alias);
                if (len > 0)
                    add_arm(ret, model, worker, worker->arms[a], len);
            }
        }
        for (size_t w = 0; w < roster->n_workers; w++) {
            const struct roster_worker *worker = &roster->workers[w];
            for (size_t p = 0; p < worker->n_paused; p++) {
                size_t len = arm_of(worker->paused[p], model->alias);
                struct models_arm *item =
                    len > 0 ? add_arm(ret, model, worker, worker->paused[p], len) : NULL;
                const char *reason = worker->paused[p] + len;
                if (item != NULL)
                    item->paused = mem_must_strdup(reason + strspn(reason, ": "));
            }
        }
    }
}

void models_arms_release(struct models_arms *arms)
{
    for (size_t i = 0; i < arms->n_items; i++) {
        free(arms->items[i].arm);
        free(arms->items[i].paused);
    }
    free(arms->items);
    *arms = (struct models_arms){0};
}

int models_ask_roster(struct client *client, const struct invocation *invocation,
                      struct roster *ret)
{
    struct err err = {""};
    if (roster_ask(ret, &client->loop, client->config, MODELS_ASK_MS, &err) != 0)
        return command_fail(invocation, EXIT_UNREACHABLE, "%s", err.text);
    if (ret->brokers == 0)
        return command_fail(invocation, EXIT_UNREACHABLE,
                            "no broker answers; `orchestrator doctor` looks for the reason");
    return EXIT_DONE;
}
