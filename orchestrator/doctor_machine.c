/* Checks of this machine: programs, folders, limits. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "common/model_registry.h"
#include "common/paths.h"
#include "orchestrator/doctor.h"
#include "orchestrator/stack.h"
#include "orchestrator/stack_topology.h"

#define REGISTRY_NOTE_DAYS 180
#define MIB (1024.0 * 1024)
#define DISK_BAD_MIB 100.0
#define DISK_NOTE_MIB 1024.0
#define DESCRIPTORS_NOTE 12000 /* 10,000 calls in flight and what else is open */
#define DESCRIPTORS_BAD 256

/* The version of the redis-server in PATH, such as "7.0.15"; false when none answers. */
static bool redis_version(char *ret, size_t size)
{
    char line[256] = "";
    FILE *out = popen("redis-server --version 2>/dev/null", "re");
    if (out == NULL)
        return false;
    bool answered = fgets(line, sizeof line, out) != NULL;
    pclose(out);
    const char *version = strstr(line, "v=");
    if (!answered || version == NULL)
        return false;
    snprintf(ret, size, "%.*s", (int)strcspn(version + 2, " \n"), version + 2);
    return true;
}

static void check_redis_server(struct doctor *doctor, const struct config *config)
{
    char version[64], detail[128];
    int major = 0, minor = 0, patch = 0;
    if (!config->redis_local)
        return;
    if (!redis_version(version, sizeof version)) {
        doctor_add(doctor, DOCTOR_BAD, "redis-server", "not found in PATH",
                   "install it: apt-get install redis-server");
        return;
    }
    snprintf(detail, sizeof detail, "version %s", version);
    bool read = sscanf(version, "%d.%d.%d", &major, &minor, &patch) == 3;
    bool fits = read && major * 1000000 + minor * 1000 + patch >= 7000015;
    doctor_add(doctor, fits ? DOCTOR_OK : DOCTOR_BAD, "redis-server", detail,
               "install version 7.0.15 or later");
}

static void check_programs(struct doctor *doctor)
{
    static const char *const names[] = {"orchestrator-broker", "orchestrator-worker",
                                        "orchestrator-sim"};
    char missing[512] = "";
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char *path = stack_program(names[i]);
        size_t len = strlen(missing);
        if (access(path, X_OK) != 0)
            snprintf(missing + len, sizeof missing - len, "%s%s",
                     len > 0 ? ", " : "missing: ", path);
        free(path);
    }
    bool complete = missing[0] == '\0';
    doctor_add(doctor, complete ? DOCTOR_OK : DOCTOR_BAD, "programs",
               complete ? "broker, worker and simulator lie beside orchestrator" : missing,
               "build and install all programs into one folder: cmake --build build");
}

static void check_home(struct doctor *doctor, const struct config *config)
{
    char detail[512];
    struct err err = {""};
    char *probe = path_of(config->home, ".doctor");
    FILE *file = fopen(probe, "we");
    bool written = file != NULL && fputs("x", file) >= 0;
    int saved = errno;
    if (file != NULL && fclose(file) != 0) { /* a full disk is met only here */
        written = false;
        saved = errno;
    }
    unlink(probe);
    free(probe);
    snprintf(detail, sizeof detail, "%s%s%s", config->home, written ? "" : ": ",
             written ? " is writable" : strerror(saved));
    doctor_add(doctor, written ? DOCTOR_OK : DOCTOR_BAD, "home", detail,
               "make it writable or make room, or set ORCHESTRATOR_HOME to another directory");
    if (stack_check_home(config->home, &err) != 0)
        doctor_add(doctor, DOCTOR_BAD, "sockets", err.text,
                   "set ORCHESTRATOR_HOME to a shorter path");
}

static void check_disk(struct doctor *doctor, const struct config *config)
{
    struct statvfs fs;
    char detail[512];
    if (statvfs(config->home, &fs) != 0)
        return; /* the check of the home has said why */
    double free_mib = (double)fs.f_bavail * (double)fs.f_frsize / MIB;
    enum doctor_level level = free_mib < DISK_BAD_MIB    ? DOCTOR_BAD
                              : free_mib < DISK_NOTE_MIB ? DOCTOR_NOTE
                                                         : DOCTOR_OK;
    snprintf(detail, sizeof detail, "%.1f GiB free below %.400s", free_mib / 1024, config->home);
    doctor_add(doctor, level, "disk", detail,
               "make room: Redis refuses work when it cannot write its file");
}

static void check_descriptors(struct doctor *doctor)
{
    struct rlimit limit;
    char detail[128];
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return;
    enum doctor_level level = limit.rlim_max < DESCRIPTORS_BAD    ? DOCTOR_BAD
                              : limit.rlim_max < DESCRIPTORS_NOTE ? DOCTOR_NOTE
                                                                  : DOCTOR_OK;
    if (limit.rlim_max == RLIM_INFINITY)
        snprintf(detail, sizeof detail, "no limit");
    else
        snprintf(detail, sizeof detail, "at most %llu open files per process",
                 (unsigned long long)limit.rlim_max);
    doctor_add(doctor, level, "descriptors", detail,
               "raise the hard limit (ulimit -Hn, LimitNOFILE= of systemd): every call in flight "
               "needs one");
}

/* Which version this is, and how old what it knows of models is. */
static void check_version(struct doctor *doctor)
{
    const struct model_registry *registry = model_registry_shipped();
    char detail[128];
    time_t now = time(NULL);
    struct tm as_of = {0};
    if (registry == NULL)
        return;
    const char *date = model_registry_as_of(registry);
    bool old = strptime(date, "%Y-%m-%d", &as_of) != NULL &&
               difftime(now, timegm(&as_of)) > REGISTRY_NOTE_DAYS * 86400.0;
    snprintf(detail, sizeof detail, "orchestrator " ORCH_VERSION ", registry of models of %.20s",
             date);
    doctor_add(doctor, old ? DOCTOR_NOTE : DOCTOR_OK, "version", detail,
               "prices and models have changed since: install a later version, or set `price` in "
               "the configuration");
}

void doctor_machine(struct doctor *doctor, const struct config *config)
{
    check_version(doctor);
    check_programs(doctor);
    check_redis_server(doctor, config);
    check_home(doctor, config);
    check_disk(doctor, config);
    check_descriptors(doctor);
    doctor_gpus(doctor, config, "");
}
