#include "orchestrator/pace.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/containers.h"
#include "orchestrator/stats.h"
#include "schemas/mem.h"

#define KEEP 200       /* answers that are remembered of each */
#define MAX_KEYS 10000 /* arms and roles on arms; what comes later is not measured */
#define MAX_MS (1e9)   /* eleven days; more is nonsense */

struct answers {
    UT_hash_handle hh;
    double ms[KEEP];    /* a ring */
    uint64_t ids[KEEP]; /* of the attempts, likewise */
    size_t n, at;
    double p95; /* -1: to be computed again */
    char key[]; /* role NUL arm; the role is "" for all of them */
};

struct pace {
    struct answers *by_key;
};

struct pace *pace_new(void)
{
    return mem_must_zalloc(sizeof(struct pace));
}

void pace_free(struct pace **pace)
{
    struct answers *answers, *next;
    if (*pace == NULL)
        return;
    HASH_ITER (hh, (*pace)->by_key, answers, next) {
        HASH_DEL((*pace)->by_key, answers);
        free(answers);
    }
    free(*pace);
    *pace = NULL;
}

#define KEY_MAX 256 /* a role has at most 64 bytes, an arm 128 */

/* 0: they are longer than any message may carry. */
static size_t make_key(char key[KEY_MAX], const char *role, const char *arm)
{
    size_t role_len = strlen(role) + 1, arm_len = strlen(arm);
    if (role_len + arm_len > KEY_MAX)
        return 0;
    memcpy(key, role, role_len);
    memcpy(key + role_len, arm, arm_len);
    return role_len + arm_len;
}

static struct answers *find(const struct pace *pace, const char *role, const char *arm)
{
    char key[KEY_MAX];
    struct answers *answers = NULL;
    size_t len = make_key(key, role, arm);
    if (len > 0)
        HASH_FIND(hh, pace->by_key, key, len, answers);
    return answers;
}

/* FNV-1a of what names an attempt. */
static uint64_t id_of(const struct msg_timing *attempt)
{
    char text[256];
    uint64_t hash = 14695981039346656037u;
    snprintf(text, sizeof text, "%s/%s/%lld", attempt->task, attempt->sub,
             (long long)attempt->attempt);
    for (const char *at = text; *at != '\0'; at++)
        hash = (hash ^ (unsigned char)*at) * 1099511628211u;
    return hash;
}

static bool has(const struct answers *answers, uint64_t id)
{
    for (size_t i = 0; i < answers->n; i++)
        if (answers->ids[i] == id)
            return true;
    return false;
}

static void add(struct pace *pace, const char *role, const char *arm, uint64_t id, double ms)
{
    struct answers *answers = find(pace, role, arm);
    if (answers == NULL) {
        char key[KEY_MAX];
        size_t len = make_key(key, role, arm);
        if (len == 0 || HASH_COUNT(pace->by_key) >= MAX_KEYS)
            return;
        answers = mem_must_zalloc(sizeof *answers + len);
        memcpy(answers->key, key, len);
        HASH_ADD_KEYPTR(hh, pace->by_key, answers->key, len, answers);
    }
    if (has(answers, id))
        return;
    answers->ms[answers->at] = ms;
    answers->ids[answers->at] = id;
    answers->at = (answers->at + 1) % KEEP;
    answers->n += answers->n < KEEP;
    answers->p95 = -1;
}

void pace_add(struct pace *pace, const struct msg_timing *attempt)
{
    bool answered = strcmp(attempt->result, "done") == 0 && !attempt->cached;
    if (!answered || *attempt->arm == '\0' || !(attempt->total_ms >= 0) ||
        attempt->total_ms > MAX_MS)
        return;
    uint64_t id = id_of(attempt);
    add(pace, "", attempt->arm, id, attempt->total_ms);
    if (*attempt->role != '\0')
        add(pace, attempt->role, attempt->arm, id, attempt->total_ms);
}

static double p95(struct answers *answers)
{
    double sorted[KEEP];
    if (answers->p95 < 0) {
        memcpy(sorted, answers->ms, answers->n * sizeof *sorted);
        answers->p95 = stats_percentile(sorted, answers->n, 0.95);
    }
    return answers->p95;
}

int64_t pace_p95_ms(struct pace *pace, const char *role, const char *arm)
{
    struct answers *answers = find(pace, role, arm);
    if (answers == NULL || answers->n < PACE_LEAST)
        answers = find(pace, "", arm);
    if (answers == NULL || answers->n < PACE_LEAST)
        return -1;
    return (int64_t)ceil(p95(answers));
}
