/* What could be wrong on this machine, looked at one by one; each finding with its cure. */
#ifndef ORCHESTRATOR_DOCTOR_H
#define ORCHESTRATOR_DOCTOR_H

#include <stdbool.h>
#include <stddef.h>

#include "common/config.h"

enum doctor_level {
    DOCTOR_OK,
    DOCTOR_NOTE, /* worth knowing, nothing is broken */
    DOCTOR_BAD,
};

struct doctor_check {
    enum doctor_level level;
    char name[64];
    char detail[512];
    char cure[512]; /* "" when there is nothing to do */
};

struct doctor {
    struct doctor_check *checks;
    size_t n_checks;
    bool bad; /* at least one is */
};

void doctor_release(struct doctor *doctor);
/* All checks; `path` as for config_load(). */
void doctor_examine(struct doctor *doctor, const char *path);

/* The parts; each has a file of its name, but for those of doctor_runtimes.c. */
void doctor_add(struct doctor *doctor, enum doctor_level level, const char *name,
                const char *detail, const char *cure);
void doctor_machine(struct doctor *doctor, const struct config *config);
void doctor_services(struct doctor *doctor, const struct config *config);
void doctor_keys(struct doctor *doctor, const struct config *config);     /* runs `cmd:` keys */
void doctor_runtimes(struct doctor *doctor, const struct config *config); /* local ones */
void doctor_extras(struct doctor *doctor, const struct config *config);   /* engines, plug-ins */
void doctor_redis(struct doctor *doctor, const struct config *config);
/* running: the local stack does. */
void doctor_bus(struct doctor *doctor, const struct config *config, bool running);
/* root/proc/driver/nvidia is looked at; root "" is the machine's own. */
void doctor_gpus(struct doctor *doctor, const struct config *config, const char *root);

/* "set", "missing", "not needed", or "by command", which is not run. */
const char *doctor_key_state(const struct config_provider *provider);

#endif
