/* Keys of the bus: whether those that this machine needs are there, good and private, and whether
 * somebody who was invited did not come. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/keyring.h"
#include "common/paths.h"
#include "common/queue_keys.h"
#include "orchestrator/doctor.h"
#include "schemas/mem.h"

#define REDIS_MS 2000

static bool there(const char *dir, const char *name, const char *suffix)
{
    char *path = mem_must_printf("%s/%s%s", dir, name, suffix);
    bool found = access(path, F_OK) == 0;
    free(path);
    return found;
}

/* Reads a pair, and says what is wrong with it. */
static bool check_pair(struct doctor *doctor, const char *dir, const char *name, const char *cure)
{
    struct keyring_pair pair;
    struct err err = {""};
    int rc = keyring_load(dir, name, &pair, &err);
    explicit_bzero(&pair, sizeof pair);
    if (rc != 0)
        doctor_add(doctor, DOCTOR_BAD, "keys", err.text, cure);
    return rc == 0;
}

static void check_workers(struct doctor *doctor, const struct config *config, size_t *good)
{
    for (size_t i = 0; i < config->n_workers; i++) {
        char name[160];
        snprintf(name, sizeof name, "worker-%.128s", config->workers[i].name);
        if (there(config->curve_keys, name, ".key")) /* else it runs elsewhere */
            *good += check_pair(doctor, config->curve_keys, name,
                                "correct the file, or remove it and make another with "
                                "`orchestrator keys init --worker NAME`");
    }
}

static void check_directory(struct doctor *doctor, const char *dir)
{
    struct stat st;
    char detail[512], cure[512];
    if (stat(dir, &st) != 0 || (st.st_mode & 077) == 0)
        return;
    snprintf(detail, sizeof detail, "others may look into %.400s (mode %03o)", dir,
             (unsigned)st.st_mode & 0777);
    snprintf(cure, sizeof cure, "chmod 700 %.400s", dir);
    doctor_add(doctor, DOCTOR_NOTE, "keys", detail, cure);
}

static void check_files(struct doctor *doctor, const struct config *config)
{
    const char *dir = config->curve_keys;
    char public[KEYRING_KEY_SIZE], detail[512];
    struct err err = {""};
    size_t good = 0;
    bool own = there(dir, "broker", ".key");
    /* The local stack makes what is missing. */
    if (config->broker_local && !own)
        return;
    if (own)
        good += check_pair(doctor, dir, "broker", "correct or restore it: peers know no other");
    else if (keyring_load_public(dir, "broker", public, &err) != 0)
        doctor_add(doctor, DOCTOR_BAD, "keys", err.text,
                   "`orchestrator keys init` where brokers run, or a token of `orchestrator "
                   "invite` elsewhere");
    good += check_pair(doctor, dir, "orchestrator",
                       "`orchestrator keys init` where brokers run, or a token of `orchestrator "
                       "invite --orchestrator NAME` elsewhere");
    check_workers(doctor, config, &good);
    check_directory(doctor, dir);
    snprintf(detail, sizeof detail, "%zu of this machine's are good, in %.400s", good, dir);
    if (good > 0)
        doctor_add(doctor, DOCTOR_OK, "keys", detail, "");
}

/* --- who was invited -------------------------------------------------------------------------- */

struct look {
    struct doctor *doctor;
    bool done;
};

static void got_keys(void *ctx, const struct queue_key *keys, size_t n, const char *err)
{
    struct look *look = ctx;
    char names[256] = "", detail[512];
    size_t late = 0, len = 0;
    look->done = true;
    for (size_t i = 0; i < n; i++) {
        if (!queue_key_expired(&keys[i], clock_wall_ms()))
            continue;
        if (len < sizeof names)
            len += (size_t)snprintf(names + len, sizeof names - len, "%s%.64s",
                                    late > 0 ? ", " : "", keys[i].name);
        late++;
    }
    if (err != NULL && err[0] != '\0')
        doctor_add(look->doctor, DOCTOR_NOTE, "invitations", err, "");
    snprintf(detail, sizeof detail, "%zu expired before they were used: %.400s", late, names);
    if (late > 0)
        doctor_add(look->doctor, DOCTOR_NOTE, "invitations", detail,
                   "invite them again, or `orchestrator revoke NAME`");
}

static void check_invited(struct doctor *doctor, const struct config *config)
{
    struct look look = {.doctor = doctor};
    struct redis_callbacks callbacks = {0};
    struct queue *queue = NULL;
    uv_loop_t loop;
    loop_init(&loop);
    if (queue_open(&queue, &loop, &config->redis, &callbacks, NULL, NULL) == 0) {
        queue_keys_list(queue, got_keys, &look);
        loop_run_until(&loop, &look.done, REDIS_MS); /* doctor_redis() says why it does not */
        look.doctor = &(struct doctor){0};           /* an answer that comes with the end */
        queue_close(&queue);
        doctor_release(look.doctor);
    }
    loop_finish(&loop);
}

void doctor_bus(struct doctor *doctor, const struct config *config, bool running)
{
    for (size_t i = 0; i < config->n_brokers && !config->curve; i++)
        if (config_exposed(config->brokers[i]))
            doctor_add(doctor, DOCTOR_NOTE, "keys",
                       "the bus is not encrypted, and whoever reaches it takes part",
                       "remove `bus.curve.enabled: false` and make keys: orchestrator keys init");
    if (!config->curve)
        return;
    check_files(doctor, config);
    if (!config->redis_local || running)
        check_invited(doctor, config);
}
