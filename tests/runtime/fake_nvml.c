/* A library in the place of NVIDIA's, with one GPU: what nvml.h promises, as far as it is used. */
#include <string.h>

#define NOT_FOUND 6
#define INVALID 2
#define NOT_SUPPORTED 3

static int device;

int nvmlInit_v2(void);
int nvmlShutdown(void);
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **ret);
int nvmlDeviceGetHandleByUUID(const char *uuid, void **ret);
int nvmlDeviceGetMemoryInfo(void *at, unsigned long long total_free_used[3]);
int nvmlDeviceGetUtilizationRates(void *at, unsigned gpu_memory[2]);
int nvmlDeviceGetPowerUsage(void *at, unsigned *milliwatts);
int nvmlDeviceGetTemperatureV(void *at, void *ret);
int nvmlDeviceGetTemperature(void *at, int sensor, unsigned *ret);

int nvmlInit_v2(void)
{
    return 0;
}

int nvmlShutdown(void)
{
    return 0;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **ret)
{
    *ret = &device;
    return index == 0 ? 0 : NOT_FOUND;
}

int nvmlDeviceGetHandleByUUID(const char *uuid, void **ret)
{
    *ret = &device;
    return strcmp(uuid, "GPU-1234") == 0 ? 0 : NOT_FOUND;
}

int nvmlDeviceGetMemoryInfo(void *at, unsigned long long total_free_used[3])
{
    total_free_used[0] = 80ULL << 30;
    total_free_used[1] = 50ULL << 30;
    total_free_used[2] = 30ULL << 30;
    return at == &device ? 0 : INVALID;
}

int nvmlDeviceGetUtilizationRates(void *at, unsigned gpu_memory[2])
{
    gpu_memory[0] = 42;
    gpu_memory[1] = 7;
    return at == &device ? 0 : INVALID;
}

int nvmlDeviceGetPowerUsage(void *at, unsigned *milliwatts)
{
    *milliwatts = 250000;
    return at == &device ? 0 : INVALID;
}

int nvmlDeviceGetTemperatureV(void *at, void *ret)
{
    (void)at, (void)ret;
    return NOT_SUPPORTED; /* as an older GPU: the other one is asked then */
}

int nvmlDeviceGetTemperature(void *at, int sensor, unsigned *ret)
{
    *ret = 61;
    return at == &device && sensor == 0 ? 0 : INVALID;
}
