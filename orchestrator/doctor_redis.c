/* Redis: whether it answers, and whether it is set up to lose nothing. */
#include <stdio.h>
#include <string.h>

#include "common/loop.h"
#include "common/redis.h"
#include "orchestrator/doctor.h"

#define REDIS_MS 2000

struct redis_look {
    bool answered, done;
    size_t left; /* answers that still come */
    char why[256];
    char version[32], policy[32], appendonly[8], appendfsync[16];
    bool refused; /* it does not show its settings */
};

static void answered(struct redis_look *look)
{
    look->done = --look->left == 0;
}

static void pinged(void *ctx, const struct redis_value *value)
{
    struct redis_look *look = ctx;
    if (redis_type(value) == REDIS_ERR)
        snprintf(look->why, sizeof look->why, "%s", redis_str(value, NULL));
    else
        look->answered = true;
    answered(look);
}

static void informed(void *ctx, const struct redis_value *value)
{
    static const char key[] = "redis_version:";
    struct redis_look *look = ctx;
    const char *text = redis_type(value) == REDIS_STR ? redis_str(value, NULL) : "";
    const char *version = strstr(text, key);
    if (version != NULL) {
        version += sizeof key - 1;
        snprintf(look->version, sizeof look->version, "%.*s", (int)strcspn(version, "\r\n"),
                 version);
    }
    answered(look);
}

static void configured(void *ctx, const struct redis_value *value)
{
    struct redis_look *look = ctx;
    const struct {
        const char *name;
        char *at;
        size_t size;
    } settings[] = {{"maxmemory-policy", look->policy, sizeof look->policy},
                    {"appendonly", look->appendonly, sizeof look->appendonly},
                    {"appendfsync", look->appendfsync, sizeof look->appendfsync}};
    look->refused |= redis_type(value) == REDIS_ERR;
    for (size_t i = 0; i + 1 < redis_len(value); i += 2)
        for (size_t s = 0; s < sizeof settings / sizeof *settings; s++)
            if (strcmp(redis_str(redis_at(value, i), NULL), settings[s].name) == 0)
                snprintf(settings[s].at, settings[s].size, "%s",
                         redis_str(redis_at(value, i + 1), NULL));
    answered(look);
}

static void went_down(void *ctx, const char *why)
{
    struct redis_look *look = ctx;
    snprintf(look->why, sizeof look->why, "%s", why);
}

static void check_version(struct doctor *doctor, const struct redis_look *look)
{
    int major = 0, minor = 0, patch = 0;
    char detail[96];
    if (look->version[0] == '\0')
        return;
    bool read = sscanf(look->version, "%d.%d.%d", &major, &minor, &patch) == 3;
    bool fits = read && major * 1000000 + minor * 1000 + patch >= 7000015;
    snprintf(detail, sizeof detail, "the server is version %s", look->version);
    doctor_add(doctor, fits ? DOCTOR_OK : DOCTOR_BAD, "redis version", detail,
               "install version 7.0.15 or later");
}

static void check_settings(struct doctor *doctor, const struct redis_look *look)
{
    char detail[128];
    if (look->refused) {
        doctor_add(doctor, DOCTOR_NOTE, "redis settings", "it does not show its settings",
                   "make sure that it has maxmemory-policy noeviction, appendonly yes and "
                   "appendfsync always");
        return;
    }
    if (look->policy[0] != '\0' && strcmp(look->policy, "noeviction") != 0) {
        snprintf(detail, sizeof detail, "maxmemory-policy is %s: it throws tasks away",
                 look->policy);
        doctor_add(doctor, DOCTOR_BAD, "redis eviction", detail,
                   "redis-cli config set maxmemory-policy noeviction, and in its redis.conf");
    }
    if (strcmp(look->appendonly, "no") == 0)
        doctor_add(doctor, DOCTOR_BAD, "redis durability",
                   "appendonly is no: what it has is lost when it ends",
                   "redis-cli config set appendonly yes, and in its redis.conf");
    else if (look->appendfsync[0] != '\0' && strcmp(look->appendfsync, "always") != 0) {
        snprintf(detail, sizeof detail, "appendfsync is %s: a crash can lose the last writes",
                 look->appendfsync);
        doctor_add(doctor, DOCTOR_NOTE, "redis durability", detail,
                   "redis-cli config set appendfsync always, unless that is meant");
    }
}

void doctor_redis(struct doctor *doctor, const struct config *config)
{
    static const struct redis_callbacks callbacks = {.down = went_down};
    struct redis_look look = {.left = 5};
    struct redis *redis = NULL;
    struct err err = {""};
    char detail[512];
    uv_loop_t loop;
    loop_init(&loop);
    if (redis_open(&redis, &loop, &config->redis, &callbacks, &look, &err) != 0) {
        doctor_add(doctor, DOCTOR_BAD, "redis", err.text, "correct `redis` in the configuration");
        loop_finish(&loop);
        return;
    }
    redis_simple(redis, pinged, &look, "PING");
    redis_simple(redis, informed, &look, "INFO server");
    redis_simple(redis, configured, &look, "CONFIG GET maxmemory-policy");
    redis_simple(redis, configured, &look, "CONFIG GET appendonly");
    redis_simple(redis, configured, &look, "CONFIG GET appendfsync");
    loop_run_until(&loop, &look.done, REDIS_MS);
    bool done = look.done;
    snprintf(detail, sizeof detail, "%.200s %s%s", redis_name(redis),
             look.answered ? "answers" : "does not answer: ", look.answered ? "" : look.why);
    doctor_add(doctor, look.answered ? DOCTOR_OK : DOCTOR_BAD, "redis", detail,
               config->redis_local ? "read log/redis.log in the home: a full disk ends Redis"
                                   : "start it, or correct `redis` in the configuration");
    if (done && look.answered) {
        check_version(doctor, &look);
        check_settings(doctor, &look);
    }
    redis_close(&redis);
    loop_finish(&loop);
}
