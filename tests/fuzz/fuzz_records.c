/* What is stored of a subtask and its task may be any bytes: it is shown, archived, offered and put
 * into prompts, as far as it can be read. Parts are separated by 0xff 0xfe: meta, work, outcome,
 * timing, info; what is missing is empty. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "orchestrator/files.h"
#include "orchestrator/plan.h"
#include "orchestrator/render_task.h"
#include "orchestrator/task_json.h"
#include "workers/compose.h"
#include "workers/utf8.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { META, WORK, OUTCOME, TIMING, INFO, PARTS };

static void cut(const uint8_t *data, size_t size, struct bytes parts[PARTS])
{
    for (size_t i = 0; i < PARTS; i++) {
        const uint8_t *end = size > 0 ? memmem(data, size, "\xff\xfe", 2) : NULL;
        size_t len = end != NULL && i + 1 < PARTS ? (size_t)(end - data) : size;
        char *copy = malloc(len + 1); /* records are terminated, as replies of Redis are */
        memcpy(copy, data, len);
        copy[len] = '\0';
        parts[i] = (struct bytes){copy, len};
        size_t used = len == size ? len : len + 2;
        data += used;
        size -= used;
    }
}

static void show(const struct bytes parts[PARTS])
{
    static const char *const deps[] = {"a"};
    struct queue_sub_view subs[] = {
        {.id = "a", .state = SUB_DONE, .attempts = 1, .owner = "w", .arm = "m@p"},
        {.id = "b",
         .state = SUB_RUNNING,
         .attempts = 2,
         .owner = "w",
         .arm = "m@p",
         .deps = deps,
         .n_deps = 1},
    };
    for (size_t i = 0; i < 2; i++) {
        subs[i].meta = parts[META];
        subs[i].work = parts[WORK];
        subs[i].outcome = i == 0 ? parts[OUTCOME] : (struct bytes){"", 0};
        subs[i].timing = parts[TIMING];
        subs[i].error_class = subs[i].reason = "";
    }
    struct queue_task_view view = {.id = "tsk",
                                   .state = TASK_DONE,
                                   .title = "a title",
                                   .digest = "d",
                                   .info = parts[INFO],
                                   .total = 2,
                                   .subs = subs,
                                   .n_subs = 2};
    json_t *task = task_json(&view);
    char *text = task_json_dump(task, false);
    if (text == NULL)
        abort();
    free(text);
    struct files *files = files_new();
    files_scan_task(files, task);
    files_free(&files);
    json_decref(task);
    json_t *info = json_parse(parts[INFO].data, parts[INFO].len, NULL);
    plan_overrides_of(info);
    json_decref(info);
}

static void compose(const struct bytes parts[PARTS])
{
    struct message work, outcome;
    struct buf prompt = {0};
    if (message_decode_as(&work, MESSAGE_work, parts[WORK].data, parts[WORK].len) != 0)
        return;
    bool has =
        message_decode_as(&outcome, MESSAGE_outcome, parts[OUTCOME].data, parts[OUTCOME].len) == 0;
    struct bytes results[2] = {0};
    if (has)
        results[0] = results[1] = outcome.outcome.text;
    compose_prompt(&prompt, &work.work, results, has ? 2 : 0, 500, work.work.max_tokens);
    if (utf8_valid(prompt.data != NULL ? prompt.data : "", prompt.len) != prompt.len ||
        (prompt.len > 0 && memchr(prompt.data, '\0', prompt.len) != NULL))
        abort();
    buf_release(&prompt);
    if (has)
        message_release(&outcome);
    message_release(&work);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bytes parts[PARTS];
    cut(data, size, parts);
    show(parts);
    compose(parts);
    for (size_t i = 0; i < PARTS; i++)
        free((void *)(uintptr_t)parts[i].data);
    return 0;
}
