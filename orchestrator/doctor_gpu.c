/* GPUs that workers are pinned to: whether they are there, and whether two share one. */
#include <dirent.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "orchestrator/doctor.h"

#define GPUS_MAX 64
#define UUID_SIZE 64

/* The driver's GPUs in PCI order, which is how they are counted. */
struct gpus {
    char uuids[GPUS_MAX][UUID_SIZE];
    size_t count;
};

static void read_uuid(const char *path, char ret[UUID_SIZE])
{
    char line[256];
    FILE *file = fopen(path, "re");
    ret[0] = '\0';
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        const char *uuid = strstr(line, "GPU-");
        if (strncmp(line, "GPU UUID:", 9) == 0 && uuid != NULL)
            snprintf(ret, UUID_SIZE, "%.*s", (int)strcspn(uuid, " \t\r\n"), uuid);
    }
    if (file != NULL)
        fclose(file);
}

static int not_hidden(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

static void find_gpus(const char *root, struct gpus *ret)
{
    char dir[256], path[512];
    struct dirent **entries = NULL;
    *ret = (struct gpus){.count = 0};
    snprintf(dir, sizeof dir, "%s/proc/driver/nvidia/gpus", root);
    int count = scandir(dir, &entries, not_hidden, alphasort);
    for (int i = 0; i < count; i++) {
        if (ret->count < GPUS_MAX) {
            snprintf(path, sizeof path, "%s/%.64s/information", dir, entries[i]->d_name);
            read_uuid(path, ret->uuids[ret->count++]);
        }
        free(entries[i]);
    }
    free(entries);
}

/* The GPU's number; -1: there is none such. */
static int gpu_index(const struct gpus *gpus, const char *gpu)
{
    char *end;
    long index = strtol(gpu, &end, 10);
    if (end != gpu && *end == '\0')
        return index >= 0 && (size_t)index < gpus->count ? (int)index : -1;
    for (size_t i = 0; i < gpus->count; i++)
        if (strncmp(gpus->uuids[i], gpu, strlen(gpu)) == 0 && *gpu != '\0')
            return (int)i;
    return -1;
}

static void check_worker(struct doctor *doctor, const struct config *config,
                         const struct gpus *gpus, size_t at)
{
    const struct config_worker *worker = &config->workers[at];
    char name[80], detail[256];
    int index = gpu_index(gpus, worker->gpu);
    snprintf(name, sizeof name, "gpu %.64s", worker->name);
    if (index < 0) {
        snprintf(detail, sizeof detail, "GPU `%.64s` is not there: %s", worker->gpu,
                 gpus->count > 0 ? "the driver has others" : "this machine has no NVIDIA driver");
        doctor_add(doctor, gpus->count > 0 ? DOCTOR_BAD : DOCTOR_NOTE, name, detail,
                   gpus->count > 0 ? "correct `gpu`: nvidia-smi -L lists them"
                                   : "install the driver, or remove `gpu`: the runtime works on "
                                     "the CPU");
        return;
    }
    for (size_t i = 0; i < at; i++) {
        const struct config_worker *other = &config->workers[i];
        if (other->gpu == NULL || gpu_index(gpus, other->gpu) != index)
            continue;
        bool shared = worker->share && other->share;
        snprintf(detail, sizeof detail, "GPU %d is that of worker `%.64s` too", index, other->name);
        doctor_add(doctor, shared ? DOCTOR_NOTE : DOCTOR_BAD, name, detail,
                   shared ? "their models must fit into its memory together"
                          : "give one of them another, or set `share: true` on both");
        return;
    }
    snprintf(detail, sizeof detail, "GPU %d is there", index);
    doctor_add(doctor, DOCTOR_OK, name, detail, "");
}

void doctor_gpus(struct doctor *doctor, const struct config *config, const char *root)
{
    struct gpus gpus;
    bool wanted = false;
    find_gpus(root, &gpus);
    for (size_t i = 0; i < config->n_workers; i++) {
        if (config->workers[i].gpu == NULL)
            continue;
        wanted = true;
        check_worker(doctor, config, &gpus, i);
    }
    if (!wanted || gpus.count == 0)
        return;
    void *nvml = dlopen("libnvidia-ml.so.1", RTLD_LAZY | RTLD_LOCAL);
    doctor_add(doctor, nvml != NULL ? DOCTOR_OK : DOCTOR_NOTE, "nvml",
               nvml != NULL ? "the driver's library is there" : "libnvidia-ml.so.1 is missing",
               "install it with the driver (libnvidia-ml1): without it, memory and use of the GPUs "
               "are not shown");
    if (nvml != NULL)
        dlclose(nvml);
}
