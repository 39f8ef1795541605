#include "orchestrator/doctor.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "schemas/mem.h"

void doctor_add(struct doctor *doctor, enum doctor_level level, const char *name,
                const char *detail, const char *cure)
{
    size_t n = doctor->n_checks++;
    doctor->checks = mem_must_realloc(doctor->checks, (n + 1) * sizeof *doctor->checks);
    struct doctor_check *check = &doctor->checks[n];
    check->level = level;
    snprintf(check->name, sizeof check->name, "%s", name);
    snprintf(check->detail, sizeof check->detail, "%s", detail);
    snprintf(check->cure, sizeof check->cure, "%s", level == DOCTOR_OK ? "" : cure);
    doctor->bad |= level == DOCTOR_BAD;
}

void doctor_release(struct doctor *doctor)
{
    free(doctor->checks);
    *doctor = (struct doctor){0};
}

/* Whether one place of a key has something; the key itself is not looked at. */
static const char *place_state(const char *place)
{
    if (strncmp(place, "env:", 4) == 0) {
        const char *value = getenv(place + 4);
        return value != NULL && value[0] != '\0' ? "set" : "missing";
    }
    if (strncmp(place, "file:", 5) == 0)
        return access(place + 5, R_OK) == 0 ? "set" : "missing";
    return "by command";
}

const char *doctor_key_state(const struct config_provider *provider)
{
    const char *state = "not needed";
    if (provider == NULL)
        return "missing";
    for (size_t i = 0; i < provider->n_keys; i++) {
        state = place_state(provider->keys[i]);
        if (strcmp(state, "missing") != 0)
            break; /* one key of a pool is enough */
    }
    return state;
}

static void note_warning(void *ctx, bool warning, const char *sentence)
{
    if (warning)
        doctor_add(ctx, DOCTOR_NOTE, "configuration", sentence, "");
    else
        doctor_add(ctx, DOCTOR_BAD, "configuration", sentence,
                   "correct the file; docs/configuration.md explains every key");
}

void doctor_examine(struct doctor *doctor, const char *path)
{
    struct config *config = NULL;
    struct err err = {""};
    char detail[512];
    *doctor = (struct doctor){0};
    if (config_check(&config, path, note_warning, doctor, &err) != 0) {
        if (!doctor->bad)
            doctor_add(doctor, DOCTOR_BAD, "configuration", err.text, "");
        return;
    }
    bool found = strcmp(config->path, CONFIG_BUILT_IN) != 0;
    snprintf(detail, sizeof detail, "%s%s: %zu providers, %zu models, %zu workers",
             found ? "" : "no file, detected on this machine", found ? config->path : "",
             config->n_providers, config->n_models, config->n_workers);
    doctor_add(doctor, DOCTOR_OK, "configuration", detail, "");
    if (config->simulated)
        doctor_add(doctor, DOCTOR_NOTE, "simulator", "answers are SIMULATED",
                   "set ANTHROPIC_API_KEY, OPENAI_API_KEY, GEMINI_API_KEY or HF_TOKEN, or start "
                   "Ollama, LM Studio, llama-server or vLLM");
    doctor_machine(doctor, config);
    doctor_services(doctor, config);
    config_free(&config);
}
