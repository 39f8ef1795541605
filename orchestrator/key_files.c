#include "orchestrator/key_files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/keyring.h"
#include "common/paths.h"
#include "schemas/mem.h"

/* Makes the public key of the pair one that is allowed: the same file, there, too. */
static int allow(const char *dir, const char *own, struct err *err)
{
    char *folder = path_of(dir, "allow");
    char *public = mem_must_printf("%s/%s.pub", dir, own);
    char *allowed = mem_must_printf("%s/%s.pub", folder, own);
    char *broker = path_of(dir, "broker.key");
    bool here = access(broker, F_OK) == 0;
    int rc = here ? path_make(folder, err) : 0;
    if (here && rc == 0 && link(public, allowed) != 0 && errno != EEXIST)
        rc = err_set(err, -errno, "cannot write %s: %s", allowed, strerror(errno));
    free(folder);
    free(public);
    free(allowed);
    free(broker);
    return rc;
}

int key_files_worker(const char *dir, const char *name, struct err *err)
{
    struct keyring_pair pair = {{0}, {0}};
    char *own = mem_must_printf("%s-%s", keyring_role_name(KEYRING_WORKER), name);
    char *secret = mem_must_printf("%s/%s.key", dir, own);
    int rc = 0;
    if (access(secret, F_OK) != 0) {
        rc = keyring_make(&pair, err);
        if (rc == 0)
            rc = keyring_save(dir, own, &pair, err);
    }
    if (rc == 0)
        rc = allow(dir, own, err);
    explicit_bzero(&pair, sizeof pair);
    free(own);
    free(secret);
    return rc;
}

int key_files_stack(const struct config *config, struct err *err)
{
    if (!config->curve)
        return 0;
    int rc = config->broker_local ? keyring_init(config->curve_keys, err) : 0;
    for (size_t i = 0; rc == 0 && i < config->n_workers && config->broker_local; i++)
        rc = key_files_worker(config->curve_keys, config->workers[i].name, err);
    return rc;
}

bool key_files_forbid(const char *dir, const char *name)
{
    bool any = false;
    for (int role = 0; role < KEYRING_ROLE_COUNT; role++) {
        char *path = mem_must_printf("%s/allow/%s-%s.pub", dir,
                                     keyring_role_name((enum keyring_role)role), name);
        any |= unlink(path) == 0;
        free(path);
    }
    return any;
}
