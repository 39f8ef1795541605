#include "common/paths.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "schemas/mem.h"

int path_make(const char *dir, struct err *err)
{
    char *path = mem_must_strdup(dir);
    int rc = 0;
    for (char *at = path + 1; rc == 0; at++) {
        if (*at != '/' && *at != '\0')
            continue;
        char saved = *at;
        *at = '\0';
        if (mkdir(path, 0700) != 0 && errno != EEXIST)
            rc = -errno;
        *at = saved;
        if (saved == '\0')
            break;
    }
    struct stat st;
    if (rc == 0 && (stat(path, &st) != 0 || !S_ISDIR(st.st_mode)))
        rc = -ENOTDIR;
    free(path);
    if (rc != 0)
        return err_set(
            err, rc,
            "cannot create the directory %s: %s; choose another place with ORCHESTRATOR_HOME", dir,
            strerror(-rc));
    return 0;
}

char *path_of(const char *home, const char *name)
{
    return mem_must_printf("%s/%s", home, name);
}

static char *choose_home(void)
{
    const char *set = getenv("ORCHESTRATOR_HOME");
    if (set != NULL && set[0] != '\0')
        return mem_must_strdup(set);
    const char *state = getenv("XDG_STATE_HOME");
    if (state != NULL && state[0] == '/')
        return path_of(state, "orchestrator");
    const char *home = getenv("HOME");
    return path_of(home != NULL && home[0] == '/' ? home : "/tmp", ".local/state/orchestrator");
}

char *path_home(struct err *err)
{
    char *chosen = choose_home();
    if (path_make(chosen, err) != 0) {
        free(chosen);
        return NULL;
    }
    char *absolute = realpath(chosen, NULL);
    if (absolute == NULL)
        err_set(err, -errno, "cannot resolve %s: %s", chosen, strerror(errno));
    free(chosen);
    return absolute;
}
