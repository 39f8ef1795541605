#include "workers/arm_state.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MINUTE_MS 60000
#define HOUR_MS (60 * MINUTE_MS)
#define KEEP_MAX_MS (1000LL * 24 * HOUR_MS)

const char *arm_state_text(enum arm_state_name state)
{
    static const char *const texts[] = {"", "cold", "loading", "warm"};
    return texts[state];
}

/* What "ms", "s", "m", "h" are in ms; 0: something else. */
static int64_t unit_ms(const char *unit, size_t len)
{
    static const struct {
        const char *name;
        int64_t ms;
    } units[] = {{"ms", 1}, {"s", 1000}, {"m", MINUTE_MS}, {"h", HOUR_MS}};
    for (size_t i = 0; i < sizeof units / sizeof *units; i++)
        if (strlen(units[i].name) == len && strncmp(unit, units[i].name, len) == 0)
            return units[i].ms;
    return 0;
}

int64_t arm_state_keep_ms(const char *keep_alive)
{
    double ms = 0;
    const char *at = keep_alive;
    if (*at == '-') /* any negative time is for ever */
        return isdigit((unsigned char)at[1]) ? -1 : -2;
    if (*at == '\0')
        return -2;
    while (*at != '\0') {
        char *end;
        if (!isdigit((unsigned char)*at) && *at != '.')
            return -2;
        double amount = strtod(at, &end);
        size_t len = strspn(end, "abcdefghijklmnopqrstuvwxyz");
        bool bare = len == 0 && *end == '\0' && at == keep_alive;
        int64_t unit = bare ? 1000 : unit_ms(end, len);
        if (end == at || unit == 0)
            return -2;
        ms += amount * (double)unit;
        at = end + len;
    }
    return ms < (double)KEEP_MAX_MS ? (int64_t)ms : KEEP_MAX_MS;
}

void arm_state_init(struct arm_state *state, const char *api, const char *keep_alive, bool local,
                    bool owned)
{
    static const struct {
        const char *api;
        int64_t keep_ms;
    } habits[] = {{"ollama", 5 * MINUTE_MS}, {"lmstudio", HOUR_MS}};
    *state = (struct arm_state){.local = local, .owned = owned, .keep_ms = -1};
    for (size_t i = 0; i < sizeof habits / sizeof *habits; i++)
        if (strcmp(habits[i].api, api) == 0)
            state->keep_ms = habits[i].keep_ms;
    int64_t set_ms = keep_alive != NULL ? arm_state_keep_ms(keep_alive) : -2;
    if (set_ms != -2)
        state->keep_ms = set_ms;
}

static bool is_unloaded(const struct arm_state *state, int64_t now_ms)
{
    return state->calls == 0 && state->keep_ms >= 0 && now_ms - state->used_ms >= state->keep_ms;
}

bool arm_state_call(struct arm_state *state, int64_t now_ms)
{
    bool warm = arm_state_at(state, now_ms) == ARM_STATE_WARM;
    if (is_unloaded(state, now_ms))
        state->loaded = false;
    state->calls++;
    return warm;
}

void arm_state_token(struct arm_state *state)
{
    state->loaded = true;
}

void arm_state_load(struct arm_state *state, bool warm, double load_ms)
{
    if (!state->local || load_ms < ARM_STATE_LOAD_MS)
        return;
    state->load_ms = load_ms;
    state->reloads += warm;
}

void arm_state_lost(struct arm_state *state)
{
    state->loaded = false;
}

void arm_state_end(struct arm_state *state, int64_t now_ms)
{
    if (state->calls > 0)
        state->calls--;
    state->used_ms = now_ms;
}

/* What ends forgets its models. */
void arm_state_health(struct arm_state *state, bool healthy)
{
    state->healthy = healthy;
    state->loaded = state->loaded && healthy;
}

enum arm_state_name arm_state_at(const struct arm_state *state, int64_t now_ms)
{
    if (!state->local)
        return ARM_STATE_UNKNOWN;
    if (state->owned && !state->healthy)
        return ARM_STATE_LOADING;
    if (state->loaded && !is_unloaded(state, now_ms))
        return ARM_STATE_WARM;
    if (state->calls > 0)
        return ARM_STATE_LOADING;
    /* A launched server of one model has loaded it when it is healthy; Ollama loads with a call. */
    return state->owned && state->keep_ms < 0 ? ARM_STATE_WARM : ARM_STATE_COLD;
}
