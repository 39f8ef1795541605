/* One NVIDIA GPU: the CPUs near it, and how much of it is in use. Without a driver all is unknown.
 */
#ifndef WORKERS_GPU_H
#define WORKERS_GPU_H

#include <sched.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "common/loop.h"

/* The CPUs of the NUMA node that the GPU (an index in PCI order, or a UUID) is attached to, from
 * root/proc/driver/nvidia and root/sys; root "" is the machine's own. 0; -ENOENT when they are not
 * told. */
int gpu_cpus(cpu_set_t *ret, const char *root, const char *gpu);
/* "0-3,8,10-11" as in /sys; 0 or -EINVAL. */
int gpu_parse_cpus(cpu_set_t *ret, const char *list);

struct gpu_usage {
    int64_t memory_used, memory_total; /* bytes; 0: unknown */
    int64_t utilization;               /* percent; -1: unknown */
    int64_t temperature;               /* degrees Celsius; 0: unknown */
    int64_t power_mw;                  /* milliwatts; 0: unknown */
};

/* Says that a worker on this machine uses the GPU: until the descriptor is closed, another one that
 * does not share it is refused, and with share it is refused unless all share. An index and the
 * UUID of the same GPU are one where the driver tells, below root as for gpu_cpus(). dir: where the
 * lock files are; NULL: what ORCHESTRATOR_LOCK_DIR says, or else /run/lock. 0; -EBUSY with a
 * sentence; another negative errno with one where locks cannot be made, which need not stop anyone.
 */
int gpu_lock(int *ret_fd, const char *dir, const char *root, const char *gpu, bool share,
             struct err *err);

/* Reads the usage every 2 s beside the loop, through NVML, which is loaded at run time: from where
 * ORCHESTRATOR_NVML says, or else the driver's. */
struct gpu;
struct gpu *gpu_new(uv_loop_t *loop, const char *gpu);
struct gpu *gpu_new_from(uv_loop_t *loop, const char *gpu, const char *library);
void gpu_free(struct gpu **gpu); /* accepts NULL; the loop must run once more afterwards */
struct gpu_usage gpu_usage(const struct gpu *gpu); /* of NULL: unknown */

#endif
