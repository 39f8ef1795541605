/* Which keys of the directory a peer connects with. */
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "common/peer.h"

/* The only tap-*.key of the directory. */
static int find_tap(const char *dir, char *ret, size_t size, struct err *err)
{
    DIR *open = opendir(dir);
    int found = 0;
    for (struct dirent *at; open != NULL && (at = readdir(open)) != NULL;) {
        size_t len = strlen(at->d_name);
        if (strncmp(at->d_name, "tap-", 4) != 0 || len < 9 || len - 4 >= size ||
            strcmp(at->d_name + len - 4, ".key") != 0)
            continue;
        snprintf(ret, size, "%.*s", (int)(len - 4), at->d_name);
        found++;
    }
    if (open != NULL)
        closedir(open);
    if (found == 1)
        return 0;
    return err_set(err, -ENOENT,
                   "%s has no orchestrator.key and %s tap-NAME.key: make one with `orchestrator "
                   "keys init`, or join with a token of `orchestrator invite`",
                   dir, found == 0 ? "no" : "more than one");
}

int peer_keys(const struct config *config, const char *source, struct bus_keys *store,
              const struct bus_keys **ret_keys, struct err *err)
{
    const char *dir = config->curve_keys;
    char name[NAME_MAX];
    *store = (struct bus_keys){0};
    *ret_keys = NULL;
    if (!config->curve)
        return 0;
    if (strncmp(source, "worker/", 7) == 0)
        snprintf(name, sizeof name, "worker-%s", source + 7);
    else
        snprintf(name, sizeof name, "orchestrator");
    int rc = keyring_load_public(dir, "broker", store->server, err);
    if (rc == 0)
        rc = keyring_load(dir, name, &store->own, err);
    if (rc == -ENOENT && strcmp(source, "tap") == 0 && store->server[0] != '\0')
        rc = find_tap(dir, name, sizeof name, err) == 0 ? keyring_load(dir, name, &store->own, err)
                                                        : -ENOENT;
    if (rc == 0)
        *ret_keys = store;
    return rc;
}
