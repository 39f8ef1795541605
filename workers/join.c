#include "workers/join.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/invitation.h"
#include "common/keyring.h"
#include "common/log.h"
#include "common/paths.h"
#include "schemas/mem.h"

/* Others can read a process's arguments, and its user the environment. Its own copy is the one
 * that /proc shows. */
static void hide(char *given)
{
    if (given[0] != '-' && given[0] != '@')
        for (volatile char *at = given; *at != '\0'; at++)
            *at = '*';
}

static int check(const struct msg_invitation *invitation, const char *name, struct err *err)
{
    if (strcmp(invitation->role, keyring_role_name(KEYRING_WORKER)) != 0)
        return err_set(err, -EINVAL,
                       "the token is for an invited %s, not for a worker: use it with "
                       "`orchestrator join`",
                       invitation->role);
    if (name[0] != '\0' && strcmp(name, invitation->name) != 0)
        return err_set(err, -EINVAL,
                       "the token is for worker `%s`, not for `%.100s`: leave --name out",
                       invitation->name, name);
    return 0;
}

static int accept_token(const struct msg_invitation *invitation, const char *name,
                        char **ret_config, struct err *err)
{
    int rc = check(invitation, name, err);
    char *home = rc == 0 ? path_home(err) : NULL;
    if (rc == 0 && home == NULL)
        rc = -EACCES;
    if (rc == 0)
        rc = invitation_accept(home, invitation, clock_wall_ms(), ret_config, err);
    free(home);
    return rc;
}

int join_accept(char *token, const char *name, char **ret_name, char **ret_config, struct err *err)
{
    struct message message;
    struct buf text = {0};
    char *given = token != NULL ? token : getenv(INVITATION_ENV);
    *ret_name = *ret_config = NULL;
    if (given == NULL || given[0] == '\0')
        return token == NULL ? 0 : err_set(err, -EINVAL, "--join needs a token");
    int rc = invitation_fetch(given, &text, err);
    hide(given);
    if (rc == 0)
        rc = invitation_read(&message, text.data, text.len, err);
    if (rc == 0) {
        rc = accept_token(&message.invitation, name, ret_config, err);
        if (rc == 0)
            *ret_name = mem_must_strdup(message.invitation.name);
        message_release(&message);
    }
    if (text.data != NULL)
        explicit_bzero(text.data, text.len);
    buf_release(&text);
    unsetenv(INVITATION_ENV);
    return rc;
}

char *join_config(const char *name)
{
    char *home = path_home(NULL);
    char *path = home != NULL ? invitation_config(home, name) : NULL;
    free(home);
    return path;
}
