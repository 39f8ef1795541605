#include <errno.h>
#include <stdlib.h>

#include "common/config.h"
#include "common/log.h"
#include "orchestrator/command.h"
#include "orchestrator/daemon.h"

static const struct command_option options[] = {
    {"name", 0, "NAME", "name of this orchestrator; the host's when not given", false},
    {"ready-fd", 0, "N", "write `ready` to descriptor N once it serves", false},
    {"insecure", 0, NULL, "use a bus beyond this machine that is not encrypted", false},
    {0},
};

/* -1: none was given; -2: no descriptor. */
static int parse_fd(const char *text)
{
    char *end;
    if (text == NULL)
        return -1;
    errno = 0;
    long fd = strtol(text, &end, 10);
    return errno == 0 && end != text && *end == '\0' && fd >= 0 && fd < 1 << 20 ? (int)fd : -2;
}

static int exec(struct invocation *invocation)
{
    const char *fd_text = invocation_value(invocation, "ready-fd");
    int ready_fd = parse_fd(fd_text);
    struct config *config = NULL;
    struct err err = {""};
    if (ready_fd == -2)
        return command_fail(invocation, EXIT_USAGE, "--ready-fd %s is no descriptor", fd_text);
    if (config_load(&config, invocation_config(invocation), &err) != 0)
        return command_fail(invocation, EXIT_USAGE, "%s", err.text);
    if (config_check_exposure(config, invocation_has(invocation, "insecure"), &err) != 0) {
        config_free(&config);
        return command_fail(invocation, EXIT_USAGE, "%s", err.text);
    }
    log_init("orchestrator", LOG_LEVEL_INFO);
    int code = daemon_run(config, invocation_value(invocation, "name"), ready_fd);
    config_free(&config);
    return code;
}

const struct command command_serve = {
    .name = "serve",
    .args = "",
    .summary = "the daemon: offers what is ready, expands plans, archives what is finished",
    .details =
        "Runs until SIGTERM or SIGINT. Several may run: one is active, the others take over\n"
        "when it ends. `orchestrator up` starts one by itself.\n",
    .options = options,
    .exec = exec,
};
