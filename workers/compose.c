#include "workers/compose.h"

#include <stdlib.h>
#include <string.h>

#include "schemas/mem.h"
#include "workers/utf8.h"

#define HEADING_BYTES 64 /* of each part, beside its title */
#define NOTE_BYTES 64    /* room of the note about what is missing */

/* A part of the prompt that may be cut. */
struct part {
    const char *title; /* NULL: the whole task */
    const char *id;
    const char *text;
    size_t len;
    size_t keep; /* bytes of it that go into the prompt */
    struct buf repaired;
};

static void part_set(struct part *part, const char *title, const char *id, struct bytes text)
{
    *part = (struct part){.title = title, .id = id, .text = text.data, .len = text.len};
    if (utf8_valid(text.data, text.len) == text.len)
        return;
    utf8_add_repaired(&part->repaired, text.data, text.len);
    part->text = part->repaired.data;
    part->len = part->repaired.len;
}

static int by_length(const void *left, const void *right)
{
    const struct part *a = *(const struct part *const *)left;
    const struct part *b = *(const struct part *const *)right;
    return (a->len > b->len) - (a->len < b->len);
}

/* Shortest first: whoever needs less than an equal share of what is left raises the others' share.
 */
static void share(struct part *parts, size_t n, size_t budget)
{
    struct part **sorted = mem_must_zalloc((n + 1) * sizeof *sorted);
    for (size_t i = 0; i < n; i++)
        sorted[i] = &parts[i];
    qsort(sorted, n, sizeof *sorted, by_length);
    for (size_t i = 0; i < n; i++) {
        size_t fair = budget / (n - i);
        if (fair < COMPOSE_MIN_SHARE)
            fair = COMPOSE_MIN_SHARE;
        sorted[i]->keep = sorted[i]->len < fair ? sorted[i]->len : fair;
        budget -= sorted[i]->keep < budget ? sorted[i]->keep : budget;
    }
    free(sorted);
}

static void add_cut(struct buf *out, const struct part *part)
{
    size_t keep = part->keep > NOTE_BYTES ? part->keep - NOTE_BYTES : part->keep;
    size_t head = utf8_floor(part->text, part->len, keep / 2);
    size_t tail = utf8_floor(part->text, part->len, part->len - (keep - keep / 2));
    buf_add(out, part->text, head);
    buf_printf(out, "\n\n[... %zu bytes left out here ...]\n\n", tail - head);
    buf_add(out, part->text + tail, part->len - tail);
}

static void add_part(struct buf *out, const struct part *part)
{
    if (part->title == NULL) {
        buf_add_str(out, "## The whole task\n\n");
    } else {
        buf_add_str(out, "## Result of ");
        utf8_add_repaired(out, part->title, strlen(part->title));
        buf_add_str(out, " (");
        utf8_add_repaired(out, part->id, strlen(part->id));
        buf_add_str(out, ")\n\n");
    }
    if (part->keep < part->len)
        add_cut(out, part);
    else
        buf_add(out, part->text, part->len);
    buf_add_str(out, "\n\n");
}

static size_t budget_bytes(const struct msg_work *work, size_t n_parts, int64_t context,
                           int64_t max_tokens)
{
    int64_t tokens = context > 0 ? context : COMPOSE_UNKNOWN_TOKENS;
    int64_t answer = max_tokens > 0 ? max_tokens : 4096;
    if (answer > tokens / 2)
        answer = tokens / 2;
    int64_t fixed = (int64_t)(work->prompt.len + work->system.len + work->json_schema.len +
                              n_parts * HEADING_BYTES);
    int64_t left = (tokens - answer) * COMPOSE_BYTES_PER_TOKEN - fixed;
    return left > 0 ? (size_t)left : 0;
}

void compose_prompt(struct buf *out, const struct msg_work *work, const struct bytes *results,
                    size_t n_results, int64_t context, int64_t max_tokens)
{
    size_t n_deps = n_results < work->n_dep_ids ? n_results : work->n_dep_ids;
    size_t n = n_deps + (work->task_text.len > 0);
    if (n == 0) {
        utf8_add_repaired(out, work->prompt.data, work->prompt.len);
        return;
    }
    struct part *parts = mem_must_zalloc(n * sizeof *parts);
    for (size_t i = 0; i < n_deps; i++) {
        const char *title = i < work->n_dep_titles ? work->dep_titles[i] : "";
        const char *id = work->dep_ids[i];
        part_set(&parts[n - n_deps + i], title[0] != '\0' ? title : id, id, results[i]);
    }
    if (n > n_deps)
        part_set(&parts[0], NULL, "", work->task_text);
    share(parts, n, budget_bytes(work, n, context, max_tokens));
    for (size_t i = 0; i < n; i++) {
        add_part(out, &parts[i]);
        buf_release(&parts[i].repaired);
    }
    buf_add_str(out, "## Your subtask\n\n");
    utf8_add_repaired(out, work->prompt.data, work->prompt.len);
    free(parts);
}
