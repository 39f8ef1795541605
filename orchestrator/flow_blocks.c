/* Arms that must not run a subtask before a time: what workers declined, and what the queue says of
 * rate limits and overload. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "orchestrator/flow_state.h"
#include "schemas/mem.h"

#define BLOCK_MAX_MS ((int64_t)7 * 24 * 3600 * 1000)
#define ARM_MAX 128 /* bytes; what messages.def allows */

/* The number behind the last `=` of a word; -1: there is none. */
static int64_t word_ms(const char *word, size_t len, size_t *ret_arm_len)
{
    size_t at = len;
    while (at > 0 && word[at - 1] >= '0' && word[at - 1] <= '9')
        at--;
    if (at == len || at < 2 || word[at - 1] != '=')
        return -1;
    *ret_arm_len = at - 1;
    int64_t ms = strtoll(word + at, NULL, 10);
    return ms < BLOCK_MAX_MS ? ms : BLOCK_MAX_MS;
}

struct blocks *flow_blocks_parse(const char *avoid, int64_t now_ms)
{
    struct blocks *blocks = NULL;
    for (const char *at = avoid + strspn(avoid, " "); *at != '\0';) {
        size_t len = strcspn(at, " "), arm_len;
        int64_t ms = word_ms(at, len, &arm_len);
        if (ms > 0 && arm_len <= ARM_MAX) {
            char arm[ARM_MAX + 1];
            memcpy(arm, at, arm_len);
            arm[arm_len] = '\0';
            flow_blocks_add(&blocks, arm, now_ms + ms);
        }
        at += len;
        at += strspn(at, " ");
    }
    return blocks;
}

/* The place of the arm; a new one; or, when all are used, that of the arm that is free soonest. */
static struct block *place_for(struct blocks *blocks, const char *arm)
{
    struct block *soonest = &blocks->items[0];
    for (size_t i = 0; i < blocks->n; i++) {
        if (strcmp(blocks->items[i].arm, arm) == 0)
            return &blocks->items[i];
        if (blocks->items[i].until_ms < soonest->until_ms)
            soonest = &blocks->items[i];
    }
    return blocks->n < BLOCKS_MAX ? &blocks->items[blocks->n++] : soonest;
}

void flow_blocks_add(struct blocks **blocks, const char *arm, int64_t until_ms)
{
    if (*arm == '\0' || strchr(arm, ' ') != NULL)
        return; /* it would be no word, or several */
    if (*blocks == NULL)
        *blocks = mem_must_zalloc(sizeof **blocks);
    struct block *block = place_for(*blocks, arm);
    if (block->arm == NULL || strcmp(block->arm, arm) != 0) {
        free(block->arm);
        *block = (struct block){.arm = mem_must_strdup(arm)};
    }
    block->until_ms = until_ms;
}

void flow_blocks_free(struct blocks **blocks)
{
    if (*blocks == NULL)
        return;
    for (size_t i = 0; i < (*blocks)->n; i++)
        free((*blocks)->items[i].arm);
    free(*blocks);
    *blocks = NULL;
}

const char *flow_blocks_avoid(struct flow *flow, const struct blocks *blocks, const char *avoid)
{
    struct buf text = {0};
    if (blocks == NULL)
        return avoid;
    for (const char *at = avoid + strspn(avoid, " "); *at != '\0'; at += strspn(at, " ")) {
        size_t len = strcspn(at, " "), arm_len;
        if (word_ms(at, len, &arm_len) < 0)
            buf_printf(&text, "%s%.*s", text.len > 0 ? " " : "", (int)len, at);
        at += len;
    }
    for (size_t i = 0; i < blocks->n; i++) {
        const struct block *block = &blocks->items[i];
        if (block->until_ms > flow->now_ms)
            buf_printf(&text, "%s%s=%" PRId64, text.len > 0 ? " " : "", block->arm,
                       block->until_ms - flow->now_ms);
    }
    const char *result = flow_text(flow, "%s", text.len > 0 ? text.data : "");
    buf_release(&text);
    return result;
}
