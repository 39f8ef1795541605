/* `orchestrator join`: this machine takes part, as its token says. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/config.h"
#include "common/invitation.h"
#include "common/json.h"
#include "common/keyring.h"
#include "common/paths.h"
#include "orchestrator/command.h"
#include "schemas/mem.h"

static const struct command_option options[] = {
    {"json", 0, NULL, "print one JSON object: name, role, config", false},
    {0},
};

/* From now on programs without --config use it, unless the user has a file of his own. */
static int make_default(const char *home, const char *name)
{
    char *link = path_of(home, PATH_JOINED_DEFAULT);
    char *draft = mem_must_printf("%s.new", link);
    unlink(draft);
    int rc = symlink(name, draft) == 0 && rename(draft, link) == 0 ? 0 : -1;
    free(link);
    free(draft);
    return rc;
}

static void tell(const struct invocation *invocation, const struct msg_invitation *invitation,
                 const char *file)
{
    bool worker = strcmp(invitation->role, keyring_role_name(KEYRING_WORKER)) == 0;
    bool tap = strcmp(invitation->role, keyring_role_name(KEYRING_TAP)) == 0;
    if (invocation_has(invocation, "json")) {
        json_t *object = json_pack("{s:s, s:s, s:s}", "name", invitation->name, "role",
                                   invitation->role, "config", file);
        json_dumpf(object, stdout, JSON_INDENT(2));
        putchar('\n');
        json_decref(object);
        return;
    }
    char *found = config_where(NULL);
    char *real = found != NULL ? realpath(found, NULL) : NULL;
    bool other = !worker && (real == NULL || strcmp(real, file) != 0);
    fprintf(stderr, "Joined as %s `%s`; the configuration is %s\nNow: ", invitation->role,
            invitation->name, file);
    if (worker)
        fprintf(stderr, "orchestrator-worker --name %s\n", invitation->name);
    else
        fprintf(stderr, "orchestrator %s%s%s\n", other ? "--config " : "", other ? file : "",
                tap     ? other ? " tap" : "tap"
                : other ? " serve"
                        : "serve");
    free(found);
    free(real);
}

static int join(const struct invocation *invocation, const struct msg_invitation *invitation)
{
    struct err err = {""};
    char *home = path_home(&err), *file = NULL;
    int rc = home != NULL ? invitation_accept(home, invitation, clock_wall_ms(), &file, &err) : -1;
    if (rc == 0 && strcmp(invitation->role, keyring_role_name(KEYRING_WORKER)) != 0 &&
        make_default(home, invitation->name) != 0)
        rc = err_set(&err, -1, "cannot write %s/" PATH_JOINED_DEFAULT, home);
    int code = rc == 0 ? EXIT_DONE : command_fail(invocation, EXIT_FAILED, "%s", err.text);
    if (code == EXIT_DONE && file != NULL)
        tell(invocation, invitation, file);
    free(home);
    free(file);
    return code;
}

static int exec(struct invocation *invocation)
{
    const char *const *args;
    const char *given = invocation_args(invocation, &args) > 0 ? args[0] : getenv(INVITATION_ENV);
    struct message message;
    struct buf token = {0};
    struct err err = {""};
    if (given == NULL)
        return command_fail(
            invocation, EXIT_USAGE,
            "say which token: `orchestrator invite` on the other machine prints it");
    int rc = invitation_fetch(given, &token, &err);
    if (rc == 0)
        rc = invitation_read(&message, token.data, token.len, &err);
    int code = EXIT_DONE;
    if (rc == 0) {
        code = join(invocation, &message.invitation);
        message_release(&message);
    } else {
        code = command_fail(invocation, EXIT_USAGE, "%s", err.text);
    }
    if (token.data != NULL)
        explicit_bzero(token.data, token.len);
    buf_release(&token);
    return code;
}

const struct command command_join = {
    .name = "join",
    .args = "TOKEN",
    .summary = "take part with a token that `orchestrator invite` printed on another machine",
    .details =
        "TOKEN may be - (standard input) or @FILE, so that nobody sees it in a list of processes;\n"
        "without it, ORCHESTRATOR_JOIN is read. Keys and configuration go into the home, for its\n"
        "user only. A worker's token may also be given to `orchestrator-worker --join`.\n",
    .options = options,
    .max_args = 1,
    .exec = exec,
};
