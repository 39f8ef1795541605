#include "orchestrator/client_result.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "orchestrator/files.h"
#include "orchestrator/render.h"
#include "orchestrator/render_task.h"
#include "orchestrator/task_json.h"

#define FILES_SHOWN 50

void client_announce_simulator(void)
{
    fputs("the simulator answers, so the texts are made up; `orchestrator doctor` says what real "
          "models need\n",
          stderr);
}

static void set_files(json_t *task, const struct files *files)
{
    json_object_set_new(task, "files", files_json(files));
    json_object_set_new(task, "files_skipped", files_problems_json(files));
}

void client_list_files(json_t *task)
{
    struct files *files = files_new();
    files_scan_task(files, task);
    files_settle(files);
    set_files(task, files);
    files_free(&files);
}

/* --- for people ---------------------------------------------------------------------------------
 */

static size_t count_written(const struct files *files)
{
    size_t n = 0;
    for (size_t i = 0; i < files->n_entries; i++)
        n += files->entries[i].written;
    return n;
}

static void print_written(const struct files *files, const char *dir)
{
    size_t n = count_written(files), shown = 0;
    fprintf(stderr, "%zu file%s written below %s\n", n, n == 1 ? "" : "s", dir);
    for (size_t i = 0; i < files->n_entries && shown < FILES_SHOWN; i++) {
        const struct files_entry *entry = &files->entries[i];
        if (!entry->written)
            continue;
        struct buf line = {0};
        buf_add_str(&line, "  ");
        render_cut(&line, entry->path, strlen(entry->path), 200);
        buf_add_str(&line, "  ");
        render_bytes(&line, entry->len);
        fprintf(stderr, "%s\n", line.data);
        buf_release(&line);
        shown++;
    }
    if (n > shown)
        fprintf(stderr, "  and %zu more\n", n - shown);
}

static void print_problems(const struct files *files)
{
    for (size_t i = 0; i < files->n_problems; i++) {
        const struct files_problem *problem = &files->problems[i];
        const char *path = problem->path[0] != '\0' ? problem->path : "a block";
        fprintf(stderr, "not written: %s (of %s): %s\n", path, problem->source, problem->why);
    }
}

static void say_files(const json_t *task, const struct files *files,
                      const struct client_delivery *delivery, const char *dir)
{
    size_t n = json_array_size(json_get(task, "files"));
    if (delivery->out != NULL && !delivery->quiet)
        print_written(files, dir);
    if (delivery->out != NULL)
        print_problems(files);
    else if (n > 0 && !delivery->quiet)
        fprintf(
            stderr,
            "%zu file%s in the answers; `orchestrator result %s --out DIR` writes %s below DIR\n",
            n, n == 1 ? " is" : "s are", json_str(task, "task_id", ""), n == 1 ? "it" : "them");
}

static void say_end(const json_t *task, const struct client_delivery *delivery)
{
    int code = render_task_exit(task);
    if (delivery->timing && !delivery->quiet)
        render_task_timing(task, stderr);
    if (code == EXIT_FAILED)
        render_task_failure(task, stderr);
    else if (code == EXIT_STOPPED)
        fprintf(stderr, "task %s was cancelled; `orchestrator retry %s` runs the rest of it\n",
                json_str(task, "task_id", ""), json_str(task, "task_id", ""));
}

/* --- delivering ---------------------------------------------------------------------------------
 */

static void print_result(const json_t *task, const struct client_delivery *delivery)
{
    json_t *result = json_get(task, "result");
    if (delivery->json) {
        char *text = task_json_dump(task, !delivery->lines);
        puts(text);
        free(text);
    } else if (json_is_string(result)) {
        render_model_text(stdout, json_string_value(result), json_string_length(result));
    }
    /* Before what stderr has to say: on a terminal both are one screen. */
    fflush(stdout);
}

int client_deliver(const struct invocation *invocation, json_t *task,
                   const struct client_delivery *delivery)
{
    struct files *files = files_new();
    struct err err = {0};
    int code = render_task_exit(task), rc = 0;
    files_scan_task(files, task);
    if (delivery->out != NULL)
        rc = files_write(files, delivery->out, delivery->force, &err);
    else
        files_settle(files);
    char *dir = delivery->out != NULL ? realpath(delivery->out, NULL) : NULL;
    set_files(task, files);
    json_object_set_new(task, "out", dir != NULL ? task_json_text(dir, strlen(dir)) : json_null());
    json_object_set_new(task, "simulated", json_boolean(delivery->simulated));
    print_result(task, delivery);
    if (rc != 0)
        command_fail(invocation, EXIT_FAILED, "no file was written: %s", err.text);
    else
        say_files(task, files, delivery, dir != NULL ? dir : delivery->out);
    say_end(task, delivery);
    bool incomplete = rc != 0 || (delivery->out != NULL && files->n_problems > 0);
    if (code == EXIT_DONE && incomplete)
        code = EXIT_FAILED;
    free(dir);
    files_free(&files);
    return code;
}
