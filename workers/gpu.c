#include "workers/gpu.h"

#include <ctype.h>
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/log.h"
#include "schemas/mem.h"

#define SAMPLE_MS 2000

/* --- near CPUs -------------------------------------------------------------------------------- */

int gpu_parse_cpus(cpu_set_t *ret, const char *list)
{
    CPU_ZERO(ret);
    const char *at = list;
    while (isdigit((unsigned char)*at)) {
        char *end;
        unsigned long first = strtoul(at, &end, 10), last = first;
        if (*end == '-' && isdigit((unsigned char)end[1]))
            last = strtoul(end + 1, &end, 10);
        if (last >= CPU_SETSIZE || first > last)
            return -EINVAL;
        for (unsigned long cpu = first; cpu <= last; cpu++)
            CPU_SET(cpu, ret);
        at = *end == ',' ? end + 1 : end;
    }
    return (*at == '\0' || *at == '\n') && CPU_COUNT(ret) > 0 ? 0 : -EINVAL;
}

static int read_text(char *text, size_t size, const char *path)
{
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return -ENOENT;
    size_t len = fread(text, 1, size - 1, file);
    text[len] = '\0';
    fclose(file);
    return 0;
}

static bool has_uuid(const char *root, const char *pci, const char *uuid)
{
    char path[512], text[4096];
    snprintf(path, sizeof path, "%s/proc/driver/nvidia/gpus/%s/information", root, pci);
    return read_text(text, sizeof text, path) == 0 && strstr(text, uuid) != NULL;
}

/* PCI address of the GPU: the index counts the addresses in order, as CUDA does with
 * CUDA_DEVICE_ORDER=PCI_BUS_ID. */
static int find_pci(char ret[64], const char *root, const char *gpu)
{
    char path[512];
    struct dirent **entries;
    snprintf(path, sizeof path, "%s/proc/driver/nvidia/gpus", root);
    int n = scandir(path, &entries, NULL, alphasort);
    if (n < 0)
        return -ENOENT;
    bool by_index = isdigit((unsigned char)gpu[0]);
    long wanted = by_index ? strtol(gpu, NULL, 10) : -1, index = 0;
    int rc = -ENOENT;
    for (int i = 0; i < n; i++) {
        const char *pci = entries[i]->d_name;
        bool found = pci[0] != '.' && (by_index ? index++ == wanted : has_uuid(root, pci, gpu));
        if (found && rc != 0 && strlen(pci) < 64) {
            memcpy(ret, pci, strlen(pci) + 1);
            rc = 0;
        }
        free(entries[i]);
    }
    free(entries);
    return rc;
}

int gpu_cpus(cpu_set_t *ret, const char *root, const char *gpu)
{
    char pci[64], path[512], list[1024];
    if (find_pci(pci, root, gpu) != 0)
        return -ENOENT;
    for (char *at = pci; *at != '\0'; at++)
        *at = (char)tolower((unsigned char)*at);
    snprintf(path, sizeof path, "%s/sys/bus/pci/devices/%s/local_cpulist", root, pci);
    if (read_text(list, sizeof list, path) != 0 || gpu_parse_cpus(ret, list) != 0)
        return -ENOENT;
    return 0;
}

/* --- who uses it ------------------------------------------------------------------------------ */

#define LOCK_DIR "/run/lock"

static const char *environment_or(const char *name, const char *fallback)
{
    const char *value = getenv(name);
    return value != NULL && value[0] != '\0' ? value : fallback;
}

/* The name of its lock file: its PCI address where that is known, else what it is called. */
static void lock_path(char *ret, size_t size, const char *dir, const char *root, const char *gpu)
{
    char name[64];
    if (find_pci(name, root, gpu) != 0)
        snprintf(name, sizeof name, "%s", gpu);
    for (char *at = name; *at != '\0'; at++)
        if (!isalnum((unsigned char)*at) && *at != '-' && *at != '.')
            *at = '_';
    snprintf(ret, size, "%s/orchestrator-gpu-%s.lock", dir, name);
}

static int make_common(int fd)
{
    if (fchmod(fd, 0644) == 0)
        return fd;
    int rc = -errno;
    close(fd);
    return rc;
}

/* The directory is everyone's: no link is followed, only the lock counts and not the contents. Who
 * did not make the file opens it without O_CREAT, which the kernel refuses for others' files
 * (fs.protected_regular); and whatever the umask, everyone can. */
static int open_lock(const char *path)
{
    const int flags = O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK;
    for (;;) {
        int fd = open(path, flags);
        if (fd >= 0 || errno != ENOENT)
            return fd >= 0 ? fd : -errno;
        fd = open(path, flags | O_CREAT | O_EXCL, 0644);
        if (fd >= 0)
            return make_common(fd);
        if (errno != EEXIST)
            return -errno;
    }
}

int gpu_lock(int *ret_fd, const char *dir, const char *root, const char *gpu, bool share,
             struct err *err)
{
    char path[512];
    if (dir == NULL)
        dir = environment_or("ORCHESTRATOR_LOCK_DIR", LOCK_DIR);
    lock_path(path, sizeof path, dir, root, gpu);
    int fd = open_lock(path);
    struct stat stat_of_lock;
    if (fd < 0)
        return err_set(err, fd,
                       "%s cannot be opened: %s; ORCHESTRATOR_LOCK_DIR names another "
                       "directory",
                       path, strerror(-fd));
    if (fstat(fd, &stat_of_lock) != 0 || !S_ISREG(stat_of_lock.st_mode)) {
        close(fd);
        return err_set(err, -EINVAL, "%s is no file", path);
    }
    if (flock(fd, (share ? LOCK_SH : LOCK_EX) | LOCK_NB) != 0) {
        int rc = -errno;
        close(fd);
        return err_set(err, rc == -EWOULDBLOCK ? -EBUSY : rc,
                       "another worker on this machine uses GPU %s: pin them to different GPUs, or "
                       "set share: true for both",
                       gpu);
    }
    *ret_fd = fd;
    return 0;
}

/* --- usage ------------------------------------------------------------------------------------ */

/* What is used of NVML's interface (nvml.h, version 11 and later). */
struct nvml_temperature;

struct nvml {
    void *library;
    int (*init)(void);
    int (*shutdown)(void);
    int (*by_index)(unsigned index, void **device);
    int (*by_uuid)(const char *uuid, void **device);
    int (*memory)(void *device, unsigned long long total_free_used[3]);
    int (*utilization)(void *device, unsigned gpu_memory[2]);
    int (*power)(void *device, unsigned *milliwatts); /* this and the rest: may be NULL */
    int (*temperature)(void *device, struct nvml_temperature *ret);
    int (*temperature_v1)(void *device, int sensor, unsigned *ret); /* until version 13 */
};

/* nvmlTemperature_t of version 1, for nvmlDeviceGetTemperatureV. */
struct nvml_temperature {
    unsigned version;
    int sensor; /* 0: the GPU */
    int degrees;
};
#define NVML_TEMPERATURE_V1 ((unsigned)sizeof(struct nvml_temperature) | 1u << 24)

struct gpu {
    uv_work_t work;
    uv_loop_t *loop; /* borrowed */
    struct loop_timer *timer;
    char *name, *library;
    struct nvml nvml; /* the rest is the thread's while busy */
    bool tried, usable;
    void *device;
    struct gpu_usage sample;
    struct gpu_usage usage; /* the loop's */
    bool busy, closed;
};

static bool nvml_load(struct nvml *nvml, const char *library)
{
    const struct {
        const char *name;
        void *at;
        bool optional;
    } symbols[] = {
        {"nvmlInit_v2", &nvml->init, false},
        {"nvmlShutdown", &nvml->shutdown, false},
        {"nvmlDeviceGetHandleByIndex_v2", &nvml->by_index, false},
        {"nvmlDeviceGetHandleByUUID", &nvml->by_uuid, false},
        {"nvmlDeviceGetMemoryInfo", &nvml->memory, false},
        {"nvmlDeviceGetUtilizationRates", &nvml->utilization, false},
        {"nvmlDeviceGetPowerUsage", &nvml->power, true},
        {"nvmlDeviceGetTemperatureV", &nvml->temperature, true},
        {"nvmlDeviceGetTemperature", &nvml->temperature_v1, true},
    };
    nvml->library = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    if (nvml->library == NULL)
        return false;
    for (size_t i = 0; i < sizeof symbols / sizeof *symbols; i++) {
        void *symbol = dlsym(nvml->library, symbols[i].name);
        if (symbol == NULL && !symbols[i].optional)
            return false;
        memcpy(symbols[i].at, &symbol, sizeof symbol);
    }
    return nvml->init() == 0;
}

static bool gpu_find(struct gpu *gpu)
{
    if (!nvml_load(&gpu->nvml, gpu->library))
        return false;
    if (isdigit((unsigned char)gpu->name[0]))
        return gpu->nvml.by_index((unsigned)strtoul(gpu->name, NULL, 10), &gpu->device) == 0;
    return gpu->nvml.by_uuid(gpu->name, &gpu->device) == 0;
}

static int64_t temperature_of(const struct gpu *gpu)
{
    struct nvml_temperature now = {.version = NVML_TEMPERATURE_V1};
    unsigned degrees;
    if (gpu->nvml.temperature != NULL && gpu->nvml.temperature(gpu->device, &now) == 0)
        return now.degrees;
    if (gpu->nvml.temperature_v1 != NULL && gpu->nvml.temperature_v1(gpu->device, 0, &degrees) == 0)
        return (int64_t)degrees;
    return 0;
}

static void sample_work(uv_work_t *work)
{
    struct gpu *gpu = work->data;
    unsigned long long memory[3];
    unsigned rates[2], power_mw;
    if (!gpu->tried)
        gpu->usable = gpu_find(gpu);
    gpu->tried = true;
    gpu->sample = (struct gpu_usage){.utilization = -1};
    if (!gpu->usable)
        return;
    if (gpu->nvml.memory(gpu->device, memory) == 0) {
        gpu->sample.memory_total = (int64_t)memory[0];
        gpu->sample.memory_used = (int64_t)memory[2];
    }
    if (gpu->nvml.utilization(gpu->device, rates) == 0)
        gpu->sample.utilization = rates[0];
    if (gpu->nvml.power != NULL && gpu->nvml.power(gpu->device, &power_mw) == 0)
        gpu->sample.power_mw = power_mw;
    gpu->sample.temperature = temperature_of(gpu);
}

static void gpu_destroy(struct gpu *gpu)
{
    if (gpu->usable)
        gpu->nvml.shutdown();
    if (gpu->nvml.library != NULL)
        dlclose(gpu->nvml.library);
    free(gpu->name);
    free(gpu->library);
    free(gpu);
}

static void sample_done(uv_work_t *work, int status)
{
    (void)status;
    struct gpu *gpu = work->data;
    gpu->busy = false;
    if (gpu->closed) {
        gpu_destroy(gpu);
        return;
    }
    gpu->usage = gpu->sample;
    if (!gpu->usable) {
        log_info("GPU %s: NVML does not know it: its memory and load are not reported", gpu->name);
        loop_timer_stop(gpu->timer);
    }
}

static void sample_due(void *ctx)
{
    struct gpu *gpu = ctx;
    if (!gpu->busy)
        gpu->busy = uv_queue_work(gpu->loop, &gpu->work, sample_work, sample_done) == 0;
}

struct gpu *gpu_new(uv_loop_t *loop, const char *name)
{
    return gpu_new_from(loop, name, environment_or("ORCHESTRATOR_NVML", "libnvidia-ml.so.1"));
}

struct gpu *gpu_new_from(uv_loop_t *loop, const char *name, const char *library)
{
    struct gpu *gpu = mem_must_zalloc(sizeof *gpu);
    gpu->loop = loop;
    gpu->name = mem_must_strdup(name);
    gpu->library = mem_must_strdup(library);
    gpu->usage.utilization = -1;
    gpu->work.data = gpu;
    gpu->timer = loop_timer_new(loop, sample_due, gpu);
    loop_timer_start(gpu->timer, 0, SAMPLE_MS);
    return gpu;
}

void gpu_free(struct gpu **gpu_ptr)
{
    struct gpu *gpu = *gpu_ptr;
    *gpu_ptr = NULL;
    if (gpu == NULL)
        return;
    loop_timer_free(&gpu->timer);
    gpu->closed = true;
    if (!gpu->busy)
        gpu_destroy(gpu);
}

struct gpu_usage gpu_usage(const struct gpu *gpu)
{
    return gpu != NULL ? gpu->usage : (struct gpu_usage){.utilization = -1};
}
