#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/peer.h"
#include "orchestrator/client.h"
#include "orchestrator/client_result.h"
#include "orchestrator/render.h"
#include "orchestrator/task_json.h"
#include "schemas/mem.h"

#define ANSWER_MS 500 /* for the brokers */
#define BUDGETS_SHOWN 64
#define NANO 1e9

static const struct command_option options[] = {
    {"json", 0, NULL, "print one JSON object", false},
    {0},
};

struct status {
    struct client *client;
    struct peer *peer;
    char boot[17];
    bool *answered; /* by broker */
    bool all;       /* every broker has answered */
    bool depths_done, orchestrators_done, budgets_done;
    json_t *orchestrators, *brokers, *workers, *queue, *budgets;
};

/* --- brokers and workers ------------------------------------------------------------------------
 */

static void introduce(void *ctx, int broker)
{
    struct status *status = ctx;
    char host[128] = "";
    gethostname(host, sizeof host - 1);
    struct message hello = {
        .type = MESSAGE_hello,
        .hello = {.name = "status", .boot = status->boot, .host = host, .pid = getpid()},
    };
    struct message ask = {.type = MESSAGE_status, .status = {.want = ""}};
    peer_send(status->peer, broker, &hello);
    peer_send(status->peer, broker, &ask);
}

static json_t *text_json(const char *text)
{
    return task_json_text(text, strlen(text));
}

static json_t *gpu_json(const struct msg_worker_info *info)
{
    if (*info->gpu == '\0')
        return json_null();
    json_t *gpu = json_object();
    json_object_set_new(gpu, "id", text_json(info->gpu));
    bool known = info->gpu_memory_total > 0;
    json_object_set_new(gpu, "memory_used",
                        known ? json_integer(info->gpu_memory_used) : json_null());
    json_object_set_new(gpu, "memory_total",
                        known ? json_integer(info->gpu_memory_total) : json_null());
    json_object_set_new(gpu, "utilization",
                        info->gpu_utilization >= 0 ? json_integer(info->gpu_utilization)
                                                   : json_null());
    json_object_set_new(gpu, "temperature",
                        info->gpu_temperature > 0 ? json_integer(info->gpu_temperature)
                                                  : json_null());
    json_object_set_new(gpu, "power_w",
                        info->gpu_power_mw > 0 ? json_real((double)info->gpu_power_mw / 1000)
                                               : json_null());
    return gpu;
}

/* Several brokers know the same worker: their credits add up, the rest is the same. */
static json_t *known_worker(const json_t *workers, const struct msg_worker_info *info)
{
    json_t *worker;
    size_t i;
    json_array_foreach (workers, i, worker) {
        if (strcmp(json_str(worker, "name", ""), info->name) == 0 &&
            strcmp(json_str(worker, "host", ""), info->host) == 0 &&
            json_int(worker, "pid", 0) == info->pid)
            return worker;
    }
    return NULL;
}

static void on_worker(struct status *status, const struct msg_worker_info *info)
{
    json_t *worker = known_worker(status->workers, info);
    if (worker != NULL) {
        json_object_set_new(worker, "credit",
                            json_integer(json_int(worker, "credit", 0) + info->credit));
        return;
    }
    json_t *arms = json_array();
    for (size_t i = 0; i < info->n_arms; i++)
        json_array_append_new(arms, text_json(info->arms[i]));
    /* cold, loading, warm by arm; and why the others are not served for now */
    json_t *states = json_object(), *paused = json_array();
    for (size_t i = 0; i < info->n_states && i < info->n_arms; i++)
        if (info->states[i][0] != '\0')
            json_object_set_new(states, info->arms[i], text_json(info->states[i]));
    for (size_t i = 0; i < info->n_paused; i++)
        json_array_append_new(paused, text_json(info->paused[i]));
    worker = json_object();
    json_object_set_new(worker, "name", text_json(info->name));
    json_object_set_new(worker, "provider", text_json(info->provider));
    json_object_set_new(worker, "host", text_json(info->host));
    json_object_set_new(worker, "pid", json_integer(info->pid));
    json_object_set_new(worker, "arms", arms);
    json_object_set_new(worker, "states", states);
    json_object_set_new(worker, "paused", paused);
    json_object_set_new(worker, "credit", json_integer(info->credit));
    json_object_set_new(worker, "concurrency", json_integer(info->concurrency));
    json_object_set_new(worker, "running", json_integer(info->running));
    json_object_set_new(worker, "local", json_boolean(info->local));
    json_object_set_new(worker, "gpu", gpu_json(info));
    json_object_set_new(worker, "idle_ms", json_integer(info->idle_ms));
    json_array_append_new(status->workers, worker);
}

static void on_broker(struct status *status, int broker, const struct msg_broker_info *info)
{
    json_t *object = json_array_get(status->brokers, (size_t)broker);
    json_object_set_new(object, "reachable", json_true());
    json_object_set_new(object, "name", text_json(info->name));
    json_object_set_new(object, "host", text_json(info->host));
    json_object_set_new(object, "pid", json_integer(info->pid));
    json_object_set_new(object, "uptime_ms", json_integer(info->uptime_ms));
    json_object_set_new(object, "workers", json_integer(info->workers));
    json_object_set_new(object, "orchestrators", json_integer(info->orchestrators));
    json_object_set_new(object, "offers", json_integer(info->offers));
    json_object_set_new(object, "max_offers", json_integer(info->max_offers));
    json_object_set_new(object, "dispatched", json_integer(info->dispatched));
    json_object_set_new(object, "events", json_integer(info->events));
    json_object_set_new(object, "rejected", json_integer(info->rejected));
    json_object_set_new(object, "connections", json_integer(info->connections));
    json_object_set_new(object, "refused", json_integer(info->refused));
    json_object_set_new(object, "foreign", json_integer(info->foreign));
    json_object_set_new(object, "cut", json_integer(info->cut));
    status->answered[broker] = true;
    status->all = true;
    for (int i = 0; i < peer_brokers(status->peer); i++)
        status->all = status->all && status->answered[i];
}

static void message_came(void *ctx, int broker, const struct message *message)
{
    struct status *status = ctx;
    if (message->type == MESSAGE_worker_info && !status->answered[broker])
        on_worker(status, &message->worker_info);
    else if (message->type == MESSAGE_broker_info && !status->answered[broker])
        on_broker(status, broker, &message->broker_info);
}

static void ask_brokers(struct status *status, const struct invocation *invocation)
{
    const struct config *config = status->client->config;
    static const struct peer_callbacks callbacks = {.introduce = introduce,
                                                    .message = message_came};
    struct err err = {0};
    for (size_t i = 0; i < config->n_brokers; i++) {
        json_t *broker = json_object();
        json_object_set_new(broker, "endpoint", text_json(config->brokers[i]));
        json_object_set_new(broker, "reachable", json_false());
        json_array_append_new(status->brokers, broker);
    }
    status->answered = mem_must_zalloc((config->n_brokers + 1) * sizeof *status->answered);
    boot_nonce_make(status->boot);
    if (peer_open(&status->peer, &status->client->loop, config, "tool/status", status->boot,
                  &callbacks, status, &err) != 0) {
        command_fail(invocation, EXIT_UNREACHABLE, "%s", err.text);
        return;
    }
    loop_run_until(&status->client->loop, &status->all, ANSWER_MS);
    struct message bye = {.type = MESSAGE_bye, .bye = {.reason = "answered"}};
    peer_send_all(status->peer, &bye);
    peer_close(&status->peer);
}

/* --- Redis ------------------------------------------------------------------------------------ */

static void orchestrators_came(void *ctx, const char *const *jsons, size_t n, const char *err)
{
    struct status *status = ctx;
    (void)err;
    for (size_t i = 0; i < n; i++) {
        json_t *orchestrator = json_parse(jsons[i], strlen(jsons[i]), NULL);
        if (json_is_object(orchestrator))
            json_array_append(status->orchestrators, orchestrator);
        json_decref(orchestrator);
    }
    status->orchestrators_done = true;
}

static void depths_came(void *ctx, const struct queue_depths *depths, const char *err)
{
    struct status *status = ctx;
    status->depths_done = true;
    if (depths == NULL || (err != NULL && *err != '\0'))
        return;
    status->queue = json_object();
    json_object_set_new(status->queue, "ready", json_integer(depths->ready));
    json_object_set_new(status->queue, "running", json_integer(depths->running));
    json_object_set_new(status->queue, "delayed", json_integer(depths->delayed));
    json_object_set_new(status->queue, "held", json_integer(depths->held));
    json_object_set_new(status->queue, "dead", json_integer(depths->dead));
    json_object_set_new(status->queue, "tasks", json_integer(depths->tasks));
}

/* The budgets of a day that the configuration has: of everything, then of roles. */
static size_t list_budgets(const struct config *config, const struct config_budget **budgets,
                           char **names, size_t room)
{
    size_t n = 0;
    if (config->budget.day_usd > 0 || config->budget.day_tokens > 0) {
        budgets[n] = &config->budget;
        names[n++] = mem_must_strdup("day");
    }
    for (size_t i = 0; i < config->n_roles && n < room; i++) {
        const struct config_role *role = &config->roles[i];
        if (role->budget.day_usd <= 0 && role->budget.day_tokens <= 0)
            continue;
        budgets[n] = &role->budget;
        names[n++] = mem_must_printf("role:%s", role->name);
    }
    return n;
}

static void budgets_came(void *ctx, const struct queue_spend *spent, const struct queue_spend *held,
                         size_t n, const char *err)
{
    struct status *status = ctx;
    (void)err;
    status->budgets_done = true;
    for (size_t i = 0; i < n; i++) {
        json_t *budget = json_array_get(status->budgets, i);
        json_object_set_new(budget, "spent_usd", json_real((double)spent[i].nano_usd / NANO));
        json_object_set_new(budget, "held_usd", json_real((double)held[i].nano_usd / NANO));
        json_object_set_new(budget, "spent_tokens", json_integer(spent[i].tokens));
        json_object_set_new(budget, "held_tokens", json_integer(held[i].tokens));
    }
}

static int ask_budgets(struct status *status, const struct invocation *invocation)
{
    const struct config_budget *budgets[BUDGETS_SHOWN];
    char *names[BUDGETS_SHOWN];
    size_t n = list_budgets(status->client->config, budgets, names, BUDGETS_SHOWN);
    for (size_t i = 0; i < n; i++) {
        json_t *budget = json_object();
        json_object_set_new(budget, "name", text_json(names[i]));
        json_object_set_new(budget, "limit_usd", json_real(budgets[i]->day_usd));
        json_object_set_new(budget, "limit_tokens", json_integer(budgets[i]->day_tokens));
        json_array_append_new(status->budgets, budget);
    }
    int code = EXIT_DONE;
    if (n > 0) {
        queue_accounts(status->client->queue, (const char *const *)names, n, budgets_came, status);
        code = client_wait(status->client, invocation, &status->budgets_done);
    }
    for (size_t i = 0; i < n; i++)
        free(names[i]);
    return code;
}

static int ask_redis(struct status *status, const struct invocation *invocation)
{
    struct client *client = status->client;
    int code = client_connect(client, invocation, false);
    if (code != EXIT_DONE)
        return code;
    queue_orchestrators(client->queue, orchestrators_came, status);
    queue_depths(client->queue, depths_came, status);
    code = client_wait(client, invocation, &status->orchestrators_done);
    if (code == EXIT_DONE)
        code = client_wait(client, invocation, &status->depths_done);
    return code == EXIT_DONE ? ask_budgets(status, invocation) : code;
}

/* --- printing --------------------------------------------------------------------------------- */

static void print_json(struct status *status)
{
    json_t *object = json_object();
    json_object_set(object, "orchestrators", status->orchestrators);
    json_object_set(object, "brokers", status->brokers);
    json_object_set(object, "workers", status->workers);
    json_object_set_new(object, "queue",
                        status->queue != NULL ? json_incref(status->queue) : json_null());
    json_object_set(object, "budgets", status->budgets);
    json_object_set_new(object, "simulated", json_boolean(status->client->config->simulated));
    char *text = task_json_dump(object, true);
    puts(text);
    free(text);
    json_decref(object);
}

static void print_processes(const struct status *status)
{
    static const struct render_column columns[] = {
        {"process", false, 0}, {"name", false, 40},  {"host", false, 32},
        {"pid", true, 0},      {"state", false, 60}, {0},
    };
    struct render_table *table = render_table_new(columns);
    json_t *process;
    size_t i;
    json_array_foreach (status->orchestrators, i, process) {
        render_table_add(table, "orchestrator");
        render_table_add(table, json_str(process, "name", ""));
        render_table_add(table, json_str(process, "host", ""));
        render_table_addf(table, "%lld", (long long)json_int(process, "pid", 0));
        render_table_addf(table, "%lld shards", (long long)json_int(process, "shards", 0));
    }
    json_array_foreach (status->brokers, i, process) {
        bool reachable = json_bool(process, "reachable", false);
        render_table_add(table, "broker");
        render_table_add(table, json_str(process, "endpoint", ""));
        render_table_add(table, json_str(process, "host", "-"));
        render_table_addf(table, "%lld", (long long)json_int(process, "pid", 0));
        int64_t dropped = json_int(process, "rejected", 0) + json_int(process, "foreign", 0);
        if (reachable)
            render_table_addf(table,
                              "%lld/%lld offers, %lld dispatched, %lld rejected, %lld refused",
                              (long long)json_int(process, "offers", 0),
                              (long long)json_int(process, "max_offers", 0),
                              (long long)json_int(process, "dispatched", 0), (long long)dropped,
                              (long long)json_int(process, "refused", 0));
        else
            render_table_add(table, "does not answer");
    }
    render_table_print(&table, stdout, 0);
}

/* "0: 12/80 GiB, 42 %, 61 C, 250 W" */
static void add_gpu(struct render_table *table, const json_t *gpu)
{
    const double gib = 1024.0 * 1024 * 1024;
    struct buf text = {0};
    if (!json_is_object(gpu)) {
        render_table_add(table, "-");
        return;
    }
    buf_add_str(&text, json_str(gpu, "id", ""));
    if (json_num(gpu, "memory_total", 0) > 0)
        buf_printf(&text, ": %.1f/%.0f GiB", json_num(gpu, "memory_used", 0) / gib,
                   json_num(gpu, "memory_total", 0) / gib);
    if (json_int(gpu, "utilization", -1) >= 0)
        buf_printf(&text, ", %lld %%", (long long)json_int(gpu, "utilization", 0));
    if (json_int(gpu, "temperature", 0) > 0)
        buf_printf(&text, ", %lld C", (long long)json_int(gpu, "temperature", 0));
    if (json_num(gpu, "power_w", 0) > 0)
        buf_printf(&text, ", %.0f W", json_num(gpu, "power_w", 0));
    render_table_add(table, text.data);
    buf_release(&text);
}

static void print_paused(const struct status *status)
{
    json_t *worker, *line;
    size_t i, j;
    json_array_foreach (status->workers, i, worker) {
        json_array_foreach (json_get(worker, "paused"), j, line) {
            struct buf safe = {0};
            const char *text = json_string_value(line);
            render_safe(&safe, text, strlen(text), true);
            printf("paused at %s: %s\n", json_str(worker, "name", ""),
                   safe.data != NULL ? safe.data : "");
            buf_release(&safe);
        }
    }
}

static void print_workers(const struct status *status)
{
    static const struct render_column columns[] = {
        {"worker", false, 32}, {"provider", false, 20}, {"host", false, 32},
        {"pid", true, 0},      {"running", true, 0},    {"credit", true, 0},
        {"gpu", false, 40},    {"arms", false, 80},     {0},
    };
    struct render_table *table = render_table_new(columns);
    json_t *worker, *arm;
    size_t i, j;
    json_array_foreach (status->workers, i, worker) {
        struct buf arms = {0};
        json_array_foreach (json_get(worker, "arms"), j, arm) {
            const char *name = json_string_value(arm);
            const char *state = json_str(json_get(worker, "states"), name, NULL);
            buf_printf(&arms, "%s%s", j > 0 ? " " : "", name);
            if (state != NULL)
                buf_printf(&arms, " (%s)", state);
        }
        render_table_add(table, json_str(worker, "name", ""));
        render_table_add(table, json_str(worker, "provider", ""));
        render_table_add(table, json_str(worker, "host", ""));
        render_table_addf(table, "%lld", (long long)json_int(worker, "pid", 0));
        render_table_addf(table, "%lld/%lld", (long long)json_int(worker, "running", 0),
                          (long long)json_int(worker, "concurrency", 0));
        render_table_addf(table, "%lld", (long long)json_int(worker, "credit", 0));
        add_gpu(table, json_get(worker, "gpu"));
        render_table_add(table, arms.data != NULL ? arms.data : "-");
        buf_release(&arms);
    }
    putchar('\n');
    render_table_print(&table, stdout, 0);
    print_paused(status);
}

static void print_budgets(const struct status *status)
{
    json_t *budget;
    size_t i;
    json_array_foreach (status->budgets, i, budget) {
        const char *name = json_str(budget, "name", "");
        if (json_num(budget, "limit_usd", 0) > 0)
            printf("budget of %s: $%.4f of $%.4f spent today, $%.4f reserved\n", name,
                   json_num(budget, "spent_usd", 0), json_num(budget, "limit_usd", 0),
                   json_num(budget, "held_usd", 0));
        if (json_int(budget, "limit_tokens", 0) > 0)
            printf("budget of %s: %lld of %lld tokens used today, %lld reserved\n", name,
                   (long long)json_int(budget, "spent_tokens", 0),
                   (long long)json_int(budget, "limit_tokens", 0),
                   (long long)json_int(budget, "held_tokens", 0));
    }
}

static void print_text(const struct status *status)
{
    print_processes(status);
    if (json_array_size(status->workers) > 0)
        print_workers(status);
    if (status->queue != NULL)
        printf(
            "\nqueue: %lld ready, %lld running, %lld delayed, %lld held, %lld dead; %lld tasks\n",
            (long long)json_int(status->queue, "ready", 0),
            (long long)json_int(status->queue, "running", 0),
            (long long)json_int(status->queue, "delayed", 0),
            (long long)json_int(status->queue, "held", 0),
            (long long)json_int(status->queue, "dead", 0),
            (long long)json_int(status->queue, "tasks", 0));
    print_budgets(status);
}

/* What is missing is said, and makes the exit code. */
static int complain(const struct status *status, const struct invocation *invocation)
{
    int code = EXIT_DONE;
    json_t *broker;
    size_t i;
    json_array_foreach (status->brokers, i, broker) {
        if (!json_bool(broker, "reachable", false))
            code = command_fail(invocation, EXIT_UNREACHABLE,
                                "the broker at %s does not answer; is orchestrator-broker running?",
                                json_str(broker, "endpoint", ""));
    }
    if (status->queue != NULL && json_array_size(status->orchestrators) == 0)
        code = command_fail(invocation, EXIT_UNREACHABLE,
                            "no daemon is alive; `orchestrator serve` starts one");
    if (json_array_size(status->workers) == 0)
        fputs("no worker is connected: nothing will run\n", stderr);
    return code;
}

static int exec(struct invocation *invocation)
{
    struct client client;
    struct status status = {.client = &client};
    int code = client_open(&client, invocation);
    if (code != EXIT_DONE)
        return code;
    status.orchestrators = json_array();
    status.brokers = json_array();
    status.workers = json_array();
    status.budgets = json_array();
    code = ask_redis(&status, invocation);
    ask_brokers(&status, invocation);
    if (invocation_has(invocation, "json"))
        print_json(&status);
    else
        print_text(&status);
    fflush(stdout);
    if (client.config->simulated)
        client_announce_simulator();
    int missing = complain(&status, invocation);
    code = code == EXIT_DONE ? missing : code;
    json_decref(status.orchestrators);
    json_decref(status.brokers);
    json_decref(status.workers);
    json_decref(status.budgets);
    json_decref(status.queue);
    free(status.answered);
    client_close(&client);
    return code;
}

const struct command command_status = {
    .name = "status",
    .args = "",
    .summary = "processes, workers, arms and queue depths",
    .details = "What does not answer within half a second is said, and gives exit code 3.\n",
    .options = options,
    .exec = exec,
};
