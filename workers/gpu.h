/* One NVIDIA GPU: the CPUs near it, and how much of it is in use. Without a driver all is unknown.
 */
#ifndef WORKERS_GPU_H
#define WORKERS_GPU_H

#include <sched.h>
#include <stdint.h>

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
};

/* Reads the usage every 2 s beside the loop, through NVML, which is loaded at run time. */
struct gpu;
struct gpu *gpu_new(uv_loop_t *loop, const char *gpu);
void gpu_free(struct gpu **gpu); /* accepts NULL; the loop must run once more afterwards */
struct gpu_usage gpu_usage(const struct gpu *gpu); /* of NULL: unknown */

#endif
