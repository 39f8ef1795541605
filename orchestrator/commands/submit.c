#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/sha256.h"
#include "orchestrator/client.h"
#include "orchestrator/client_input.h"
#include "orchestrator/client_result.h"
#include "orchestrator/plan.h"
#include "orchestrator/plan_images.h"
#include "orchestrator/progress_watch.h"
#include "orchestrator/render.h"
#include "orchestrator/route.h"
#include "orchestrator/task_json.h"

#define TITLE_COLUMNS 80
#define PRIORITY_MOST 1000000

static const struct command_option options[] = {
    {"file", 'f', "FILE", "attach the contents of FILE to the task", true},
    {"plan", 'p', "FILE", "run this plan (YAML or JSON) instead of asking a planner", false},
    {"no-plan", 0, NULL, "run the text as one subtask", false},
    {"role", 'r', "ROLE", "role of that subtask, and of those a planner gives none", false},
    {"model", 'm', "MODEL",
     "model of that subtask, by its name in the configuration (with --no-plan only)", false},
    {"no-synthesis", 0, NULL, "the result is what the last subtasks returned", false},
    {"out", 'o', "DIR", "write the files of the answers below DIR", false},
    {"force", 0, NULL, "replace files that exist below DIR", false},
    {"detach", 'd', NULL, "print the task's id and leave", false},
    {"timeout", 't', "S", "wait at most S seconds; the task goes on", false},
    {"budget", 'b', "USD", "most that the task may cost; 0: no limit; default budget.task_usd",
     false},
    {"budget-tokens", 0, "N", "most tokens that it may use; default budget.task_tokens", false},
    {"no-cache", 0, NULL, "make every call: no answer from the response cache", false},
    {"offline", 0, NULL, "local models only", false},
    {"effort", 0, "LEVEL", "of reasoning: none, minimal, low, medium or high", false},
    {"seed", 0, "N", "of sampling, where the provider takes one", false},
    {"image", 'i', "FILE|URL", "show this image to the model", true},
    {"embed", 0, NULL, "the result is the vector of the text, not an answer", false},
    {"priority", 0, "N", "higher numbers run first; 0 is usual", false},
    {"id", 0, "ID", "the task's id: the same id and content again is the same task", false},
    {"json", 0, NULL, "print one JSON object", false},
    {"quiet", 'q', NULL, "no progress", false},
    {0},
};

/* What is to be submitted. */
struct submission {
    char id[TASK_ID_SIZE];
    struct buf text; /* with the attached files */
    struct buf plan; /* --plan: the file */
    struct buf title;
    char *info;
    char digest[SHA256_HEX_SIZE];
    int64_t priority;
    struct queue_spend budget;
    struct plan_overrides overrides;
    char *images; /* what overrides borrows */
    char images_sha[SHA256_HEX_SIZE];
    int64_t until_ms; /* monotonic; 0: no limit */
    struct plan_nodes nodes;
};

static void submission_release(struct submission *submission)
{
    buf_release(&submission->text);
    buf_release(&submission->plan);
    buf_release(&submission->title);
    free(submission->info);
    free(submission->images);
    plan_nodes_release(&submission->nodes);
}

/* --- reading what was given ------------------------------------------------------------------- */

static int read_text(const struct invocation *invocation, struct submission *submission,
                     struct err *err)
{
    const char *const *args, *const *files;
    size_t n_args = invocation_args(invocation, &args);
    bool planned = invocation_has(invocation, "plan");
    bool from_stdin = n_args > 0 ? strcmp(args[0], "-") == 0 : !planned && !isatty(STDIN_FILENO);
    int rc = 0;
    if (from_stdin)
        rc = client_input_read(&submission->text, "-", err);
    else if (n_args > 0)
        buf_add_str(&submission->text, args[0]);
    if (rc == 0 && submission->text.len > CLIENT_INPUT_MOST)
        rc = err_set(err, -1, "the task has more than %zu MiB: give less, or split it",
                     CLIENT_INPUT_MOST / (1024 * 1024));
    if (rc == 0)
        rc = client_input_check(&submission->text, from_stdin ? "standard input" : "the text", err);
    size_t n_files = invocation_values(invocation, "file", &files);
    for (size_t i = 0; rc == 0 && i < n_files; i++)
        rc = client_input_attach(&submission->text, files[i], err);
    return rc;
}

static bool only_space(const struct buf *text)
{
    return text->len == 0 || strspn(text->data, " \t\r\n") == text->len;
}

/* The first line that says something. */
static void make_title(struct submission *submission, const char *text)
{
    text += strspn(text, " \t\r\n#");
    render_cut(&submission->title, text, strcspn(text, "\r\n"), TITLE_COLUMNS);
    if (submission->title.len == 0)
        buf_add_str(&submission->title, "task");
}

static int check_options(const struct invocation *invocation)
{
    static const char *const pairs[][2] = {
        {"plan", "no-plan"}, {"plan", "role"},      {"plan", "model"},
        {"detach", "out"},   {"detach", "timeout"}, {"plan", "file"},
        {"plan", "embed"},   {"embed", "image"},    {"embed", "effort"},
    };
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        if (invocation_has(invocation, pairs[i][0]) && invocation_has(invocation, pairs[i][1]))
            return command_fail(invocation, EXIT_USAGE, "--%s and --%s exclude each other",
                                pairs[i][0], pairs[i][1]);
    }
    if (invocation_has(invocation, "model") && !invocation_has(invocation, "no-plan"))
        return command_fail(invocation, EXIT_USAGE,
                            "--model needs --no-plan: the models of a planned task are those of "
                            "its roles in the configuration");
    if (invocation_has(invocation, "embed") && !invocation_has(invocation, "no-plan"))
        return command_fail(invocation, EXIT_USAGE,
                            "--embed needs --no-plan: one text, one vector");
    const char *id = invocation_value(invocation, "id"), *out = invocation_value(invocation, "out");
    if (id != NULL && !task_id_valid(id))
        return command_fail(invocation, EXIT_USAGE,
                            "--id %.40s: an id is \"t\" and 16 of 0-9 a-z without i l o u", id);
    /* Better now than after the money is spent. */
    struct stat st;
    if (out != NULL && (*out == '\0' || (stat(out, &st) == 0 && !S_ISDIR(st.st_mode))))
        return command_fail(invocation, EXIT_USAGE, "--out %s: that is no directory", out);
    return EXIT_DONE;
}

static int check_names(const struct invocation *invocation, const struct config *config)
{
    const char *role = invocation_value(invocation, "role");
    const char *model = invocation_value(invocation, "model");
    if (role != NULL && config_role(config, role) == NULL)
        return command_fail(invocation, EXIT_USAGE, "there is no role \"%s\" in %s", role,
                            config->path);
    if (model != NULL && config_model(config, model) == NULL)
        return command_fail(invocation, EXIT_USAGE,
                            "there is no model \"%s\" in %s; `orchestrator models` lists them",
                            model, config->path);
    return EXIT_DONE;
}

/* --- making the task ----------------------------------------------------------------------------
 */

static int nodes_of_plan(const struct invocation *invocation, const struct config *config,
                         struct submission *submission, struct err *err)
{
    const char *file = invocation_value(invocation, "plan");
    struct plan *plan = NULL;
    int rc = client_input_read(&submission->plan, file, err);
    if (rc == 0)
        rc = client_input_check(&submission->plan, file, err);
    if (rc == 0)
        rc = plan_parse_file(&plan, config, strcmp(file, "-") == 0 ? "standard input" : file,
                             submission->plan.data != NULL ? submission->plan.data : "",
                             submission->plan.len, err);
    if (rc != 0)
        return rc;
    if (invocation_has(invocation, "no-synthesis"))
        plan->synthesize = false;
    if (only_space(&submission->text) && *plan->title != '\0')
        buf_add_str(&submission->text, plan->title);
    make_title(submission, *plan->title != '\0' || submission->text.len == 0
                               ? plan->title
                               : submission->text.data);
    rc = plan_to_nodes(&submission->nodes, plan, config,
                       submission->text.data != NULL ? submission->text.data : "", err);
    plan_free(&plan);
    return rc;
}

static int nodes_of_text(const struct invocation *invocation, const struct config *config,
                         struct submission *submission, struct err *err)
{
    if (only_space(&submission->text))
        return err_set(err, -1,
                       "the task is empty: give a text, \"-\" to read it from standard "
                       "input, -f FILE or --plan FILE");
    const char *text = submission->text.data;
    make_title(submission, text);
    if (!invocation_has(invocation, "no-plan"))
        return plan_to_planner_nodes(&submission->nodes, config, text, NULL, NULL, err);
    struct plan *plan = NULL;
    int rc = plan_single(&plan, config, text, invocation_value(invocation, "role"),
                         invocation_value(invocation, "model"), err);
    if (rc == 0 && invocation_has(invocation, "embed"))
        rc = plan_embed(plan, config, err);
    if (rc == 0)
        rc = plan_to_nodes(&submission->nodes, plan, config, text, err);
    plan_free(&plan);
    return rc;
}

static void make_info(const struct invocation *invocation, const struct config *config,
                      struct submission *submission)
{
    const char *role = invocation_value(invocation, "role");
    const char *model = invocation_value(invocation, "model");
    bool planned = !invocation_has(invocation, "plan") && !invocation_has(invocation, "no-plan");
    const struct buf *text = &submission->text;
    json_t *info = json_object();
    json_object_set_new(info, PLAN_INFO_TEXT, task_json_text(text->data, text->len));
    json_object_set_new(info, PLAN_INFO_PLANNED, json_boolean(planned));
    json_object_set_new(info, PLAN_INFO_ROLE, json_string(role != NULL ? role : ""));
    json_object_set_new(info, PLAN_INFO_MODEL, json_string(model != NULL ? model : ""));
    json_object_set_new(info, PLAN_INFO_SYNTHESIZE,
                        json_boolean(!invocation_has(invocation, "no-synthesis")));
    json_object_set_new(info, PLAN_INFO_PRIORITY, json_integer(submission->priority));
    json_object_set_new(info, PLAN_INFO_OVERRIDES, plan_overrides_json(&submission->overrides));
    if (submission->images != NULL) /* for the digest alone: they are in the work */
        json_object_set_new(info, "images", json_string(submission->images_sha));
    if (invocation_has(invocation, "embed"))
        json_object_set_new(info, "embed", json_true());
    json_object_set_new(info, "budget_nano_usd", json_integer(submission->budget.nano_usd));
    json_object_set_new(info, "budget_tokens", json_integer(submission->budget.tokens));
    json_object_set_new(info, "simulated", json_boolean(config->simulated));
    submission->info = json_dumps(info, JSON_COMPACT | JSON_SORT_KEYS);
    if (submission->info == NULL)
        abort();
    json_decref(info);
    /* The same text, options and plan are the same task. */
    struct sha256 sha;
    sha256_init(&sha);
    sha256_add(&sha, submission->info, strlen(submission->info) + 1);
    sha256_add(&sha, submission->plan.data, submission->plan.len);
    sha256_hex(&sha, submission->digest);
}

static int read_images(const struct invocation *invocation, struct submission *submission,
                       struct err *err)
{
    const char *const *given;
    size_t n = invocation_values(invocation, "image", &given);
    struct plan_images images = {0};
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < n; i++)
        rc = plan_images_add(&images, given[i], NULL, err);
    if (rc == 0 && n > 0) {
        struct sha256 sha;
        submission->images = plan_images_take(&images);
        sha256_init(&sha);
        sha256_add(&sha, submission->images, strlen(submission->images));
        sha256_hex(&sha, submission->images_sha);
    }
    plan_images_release(&images);
    return rc;
}

/* What is asked of every subtask, whoever plans it. */
static int read_overrides(const struct invocation *invocation, struct submission *submission,
                          struct err *err)
{
    struct plan_overrides *overrides = &submission->overrides;
    overrides->no_cache = invocation_has(invocation, "no-cache");
    overrides->offline = invocation_has(invocation, "offline");
    overrides->effort = invocation_value(invocation, "effort");
    overrides->has_seed = invocation_has(invocation, "seed");
    int rc = overrides->effort != NULL ? plan_check_effort(overrides->effort, err) : 0;
    if (rc == 0)
        rc = read_images(invocation, submission, err);
    overrides->images = submission->images;
    return rc;
}

static int make_task(const struct invocation *invocation, const struct config *config,
                     struct submission *submission)
{
    struct err err = {0};
    const char *id = invocation_value(invocation, "id");
    int code = check_names(invocation, config);
    if (code != EXIT_DONE)
        return code;
    int rc = read_text(invocation, submission, &err);
    if (rc == 0)
        rc = invocation_has(invocation, "plan")
                 ? nodes_of_plan(invocation, config, submission, &err)
                 : nodes_of_text(invocation, config, submission, &err);
    if (rc == 0)
        rc = read_overrides(invocation, submission, &err);
    if (rc == 0)
        rc = plan_overrides_apply(&submission->nodes, &submission->overrides, &err);
    /* What nothing may run would wait for ever. */
    for (size_t i = 0; rc == 0 && i < submission->nodes.n_nodes; i++)
        rc = route_check(config, &submission->nodes.nodes[i], &err);
    if (rc != 0)
        return command_fail(invocation, EXIT_USAGE, "%s", err.text);
    for (size_t i = 0; i < submission->nodes.n_nodes; i++)
        submission->nodes.nodes[i].priority = submission->priority;
    make_info(invocation, config, submission);
    if (id != NULL)
        snprintf(submission->id, sizeof submission->id, "%s", id);
    else
        task_id_make(submission->id);
    return EXIT_DONE;
}

/* --- submitting ---------------------------------------------------------------------------------
 */

static int send_task(struct client *client, const struct invocation *invocation,
                     const struct submission *submission)
{
    const struct queue_task task = {
        .id = submission->id,
        .digest = submission->digest,
        .title = submission->title.data,
        .info = {submission->info, strlen(submission->info)},
        .budget = submission->budget,
        .nodes = submission->nodes.nodes,
        .n_nodes = submission->nodes.n_nodes,
    };
    struct client_answer answer = {0};
    queue_submit(client->queue, &task, client_answered, &answer);
    int code = client_wait(client, invocation, &answer.done);
    if (code != EXIT_DONE) {
        fprintf(stderr, "repeat it with --id %s: what was stored already is not stored twice\n",
                submission->id);
        return code;
    }
    if (answer.status == QUEUE_CONFLICT)
        return command_fail(invocation, EXIT_USAGE,
                            "task %s exists with another content: choose another --id",
                            submission->id);
    if (answer.status == QUEUE_DUP && !invocation_has(invocation, "quiet"))
        fprintf(stderr, "task %s was submitted before: going on with it\n", submission->id);
    return client_explain(client, invocation, submission->id, &answer);
}

static int print_id(struct client *client, const struct invocation *invocation, const char *id)
{
    json_t *task;
    if (!invocation_has(invocation, "json")) {
        puts(id);
        return EXIT_DONE;
    }
    int code = client_task(client, invocation, id, &task);
    if (code != EXIT_DONE)
        return code;
    printf("{\"task_id\": \"%s\", \"state\": \"%s\", \"simulated\": %s}\n", id,
           json_str(task, "state", ""), client->config->simulated ? "true" : "false");
    json_decref(task);
    return EXIT_DONE;
}

static int follow(struct client *client, const struct invocation *invocation,
                  const struct submission *submission)
{
    const struct watch_options watch = {.quiet = invocation_has(invocation, "quiet"),
                                        .cancels = true,
                                        .until_ms = submission->until_ms};
    const struct client_delivery delivery = {
        .out = invocation_value(invocation, "out"),
        .force = invocation_has(invocation, "force"),
        .json = invocation_has(invocation, "json"),
        .quiet = watch.quiet,
        .timing = true,
        .simulated = client->config->simulated,
    };
    json_t *task;
    int code = watch_task(client, invocation, submission->id, &watch, &task);
    if (code != EXIT_DONE)
        return code;
    code = client_deliver(invocation, task, &delivery);
    json_decref(task);
    return code;
}

static int submit(struct client *client, const struct invocation *invocation,
                  struct submission *submission)
{
    /* Before the stack is started: a wrong plan needs none. */
    int code = make_task(invocation, client->config, submission);
    if (code == EXIT_DONE)
        code = client_connect(client, invocation, true);
    if (code != EXIT_DONE)
        return code;
    if (client->config->simulated)
        client_announce_simulator();
    code = send_task(client, invocation, submission);
    if (code != EXIT_DONE)
        return code;
    if (invocation_has(invocation, "detach"))
        return print_id(client, invocation, submission->id);
    if (!invocation_has(invocation, "quiet"))
        fprintf(stderr, "task %s\n", submission->id);
    return follow(client, invocation, submission);
}

/* What is given, else what the configuration says. */
static int read_budget(const struct invocation *invocation, const struct config *config,
                       struct queue_spend *ret)
{
    ret->nano_usd = (int64_t)llround(config->budget.task_usd * 1e9);
    ret->tokens = config->budget.task_tokens;
    return invocation_budget(invocation, ret) == 0 ? EXIT_DONE : EXIT_USAGE;
}

static int exec(struct invocation *invocation)
{
    struct submission submission = {0};
    struct client client;
    int64_t timeout_ms = 0;
    int code = check_options(invocation);
    if (code != EXIT_DONE)
        return code;
    int limited = invocation_seconds(invocation, "timeout", &timeout_ms);
    if (limited < 0 || invocation_int(invocation, "priority", -PRIORITY_MOST, PRIORITY_MOST,
                                      &submission.priority) < 0)
        return EXIT_USAGE;
    if (invocation_int(invocation, "seed", 0, INT32_MAX, &submission.overrides.seed) < 0)
        return EXIT_USAGE;
    submission.until_ms = limited > 0 ? clock_ms() + timeout_ms : 0;
    code = client_open(&client, invocation);
    if (code == EXIT_DONE)
        code = read_budget(invocation, client.config, &submission.budget);
    if (code == EXIT_DONE)
        code = submit(&client, invocation, &submission);
    client_close(&client);
    submission_release(&submission);
    return code;
}

const struct command command_submit = {
    .name = "submit",
    .args = "[TEXT]",
    .summary = "give a task, follow it, print its result",
    .details =
        "TEXT, or what standard input has when TEXT is \"-\" or missing, is planned into "
        "subtasks,\n"
        "run, and put together. The result goes to standard output, all else to standard error.\n"
        "The local stack is started when none runs.\n\n"
        "Ctrl-C cancels the task; a second one leaves at once. SIGTERM leaves and lets the task go "
        "on.\nFiles in the answers are written only with --out; with --force also over existing "
        "ones.\n\nexamples:\n"
        "  orchestrator submit \"write a word counter in C, with tests\" --out wc\n"
        "  orchestrator submit -f main.c \"find the bugs\" --no-plan --role reviewer\n"
        "  orchestrator submit --plan plan.yaml --json > task.json\n",
    .options = options,
    .max_args = 1,
    .exec = exec,
};
