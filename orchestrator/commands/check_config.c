#include <stdio.h>
#include <string.h>

#include "common/config.h"
#include "orchestrator/command.h"

static const struct command_option options[] = {
    {"print", 'p', NULL, "print the configuration in effect as YAML, defaults included", false},
    {"json", 0, NULL, "print one JSON object: ok, file, problems", false},
    {0},
};

struct problems {
    bool json;
    int errors, warnings;
    struct buf list; /* of JSON objects */
};

static void add_problem(void *ctx, bool warning, const char *sentence)
{
    struct problems *problems = ctx;
    if (problems->list.len > 0)
        buf_add_char(&problems->list, ',');
    buf_printf(&problems->list, "{\"warning\":%s,\"text\":", warning ? "true" : "false");
    buf_add_json(&problems->list, sentence, strlen(sentence));
    buf_add_char(&problems->list, '}');
    problems->errors += !warning;
    problems->warnings += warning;
    if (!problems->json)
        fprintf(stderr, "%s%s\n", warning ? "warning: " : "", sentence);
}

static void print_json(const struct problems *problems, const struct config *config, bool ok)
{
    struct buf file = {0};
    const char *path = config != NULL ? config->path : "";
    buf_add_json(&file, path, strlen(path));
    printf("{\"ok\":%s,\"file\":%s,\"problems\":[%s]}\n", ok ? "true" : "false", file.data,
           problems->list.len > 0 ? problems->list.data : "");
    buf_release(&file);
}

static void print_config(const struct config *config)
{
    struct buf text = {0};
    config_print_public(config, &text);
    printf("# from %s\n%s", config->path, text.len > 0 ? text.data : "");
    buf_release(&text);
}

static int exec(struct invocation *invocation)
{
    struct problems problems = {.json = invocation_has(invocation, "json")};
    struct config *config = NULL;
    struct err err = {""};
    int rc = config_check(&config, invocation_config(invocation), add_problem, &problems, &err);
    if (rc != 0 && problems.errors == 0)
        add_problem(&problems, false, err.text);
    if (problems.json)
        print_json(&problems, config, rc == 0);
    else if (rc == 0 && invocation_has(invocation, "print"))
        print_config(config);
    else if (rc == 0)
        printf("%s is valid: %zu providers, %zu models, %zu workers, %zu roles%s\n", config->path,
               config->n_providers, config->n_models, config->n_workers, config->n_roles,
               config->simulated ? "; answers are SIMULATED" : "");
    else
        fprintf(stderr, "%d error%s; docs/configuration.md explains every key\n", problems.errors,
                problems.errors == 1 ? "" : "s");
    buf_release(&problems.list);
    config_free(&config);
    return rc == 0 ? EXIT_DONE : EXIT_USAGE;
}

const struct command command_check_config = {
    .name = "check-config",
    .args = "",
    .summary = "tell every error of the configuration, with line and column",
    .details = "Without a file, the configuration that was detected on this machine is checked. "
               "docs/configuration.md explains every key.",
    .options = options,
    .exec = exec,
};
