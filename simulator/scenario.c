#include "simulator/scenario.h"

#include <errno.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>

#include "common/yaml.h"
#include "schemas/mem.h"
#include "simulator/family.h"
#include "simulator/scenario_read.h"

struct dialect_map {
    const char *model; /* glob */
    enum sim_dialect dialect;
};

struct key_limit {
    const char *key;
    struct sim_limit limit;
};

struct sim_scenario {
    int references;
    struct yaml *yaml; /* owns the strings; NULL for the default */
    int64_t seed;
    const char **keys, **models;
    size_t n_keys, n_models;
    struct dialect_map *dialects;
    size_t n_dialects;
    struct sim_limit limit; /* of every key that has none of its own */
    struct key_limit *key_limits;
    size_t n_key_limits;
    struct sim_rule *rules;
    size_t n_rules;
    struct sim_rule fallback;
};

static const char *const default_models[] = {"sim-large", "sim-medium", "sim-small", "sim-local"};

static int dialects_read(struct sim_scenario *scenario, const struct yaml_node *node,
                         struct err *err)
{
    if (yaml_is_null(node))
        return 0;
    if (node->type != YAML_MAP)
        return yaml_fail(scenario->yaml, node, err,
                         "dialects maps model names to dialects, such as {\"qwen*\": vllm}");
    scenario->dialects = mem_must_zalloc((node->count + 1) * sizeof *scenario->dialects);
    for (const struct yaml_node *child = node->first; child != NULL; child = child->next) {
        enum sim_dialect dialect = sim_dialect_parse(child->text, child->len);
        if (dialect == SIM_DIALECT_COUNT)
            return yaml_fail(scenario->yaml, child, err,
                             "unknown dialect `%s`: one of openai, huggingface, lmstudio, vllm, "
                             "llamacpp, tgi",
                             child->text);
        scenario->dialects[scenario->n_dialects++] =
            (struct dialect_map){child->key->text, dialect};
    }
    return 0;
}

static int key_limits_read(struct sim_scenario *scenario, const struct yaml_node *node,
                           struct err *err)
{
    if (yaml_is_null(node))
        return 0;
    if (node->type != YAML_MAP)
        return yaml_fail(scenario->yaml, node, err,
                         "key_limits maps keys to limits, such as {secret-1: {concurrency: 2}}");
    scenario->key_limits = mem_must_zalloc((node->count + 1) * sizeof *scenario->key_limits);
    int rc = 0;
    for (const struct yaml_node *child = node->first; child != NULL && rc == 0;
         child = child->next) {
        struct key_limit *key = &scenario->key_limits[scenario->n_key_limits++];
        *key = (struct key_limit){child->key->text, scenario->limit};
        rc = sim_limit_read(&key->limit, scenario->yaml, child, err);
    }
    return rc;
}

static int rules_read(struct sim_scenario *scenario, const struct yaml_node *node, struct err *err)
{
    if (yaml_is_null(node))
        return 0;
    if (node->type != YAML_SEQ)
        return yaml_fail(scenario->yaml, node, err, "rules is a list of rules");
    scenario->rules = mem_must_zalloc((node->count + 1) * sizeof *scenario->rules);
    int rc = 0;
    for (const struct yaml_node *child = node->first; child != NULL && rc == 0; child = child->next)
        rc = sim_rule_read(&scenario->rules[scenario->n_rules++], &scenario->fallback.timing,
                           scenario->yaml, child, err);
    return rc;
}

static int scenario_read(struct sim_scenario *scenario, struct err *err)
{
    static const char *const keys[] = {"seed",   "keys",   "models",     "dialects", "timing",
                                       "tokens", "limits", "key_limits", "rules",    NULL};
    const struct yaml *yaml = scenario->yaml;
    const struct yaml_node *root = yaml_root(yaml);
    if (yaml_is_null(root))
        return 0;
    int rc = yaml_check_keys(yaml, root, "a scenario", keys, err);
    if (rc != 0 ||
        (rc = yaml_get_int(yaml, root, "seed", 0, INT64_MAX, &scenario->seed, err)) != 0 ||
        (rc = yaml_get_strs(yaml, root, "keys", &scenario->keys, &scenario->n_keys, err)) != 0 ||
        (rc = yaml_get_strs(yaml, root, "models", &scenario->models, &scenario->n_models, err)) !=
            0 ||
        (rc = dialects_read(scenario, yaml_map_get(root, "dialects"), err)) != 0 ||
        (rc = sim_timing_read(&scenario->fallback.timing, yaml, yaml_map_get(root, "timing"),
                              err)) != 0 ||
        (rc = sim_limit_read(&scenario->limit, yaml, yaml_map_get(root, "limits"), err)) != 0 ||
        (rc = key_limits_read(scenario, yaml_map_get(root, "key_limits"), err)) != 0 ||
        (rc = yaml_get_int(yaml, root, "tokens", 0, 1000000, &scenario->fallback.tokens, err)) != 0)
        return rc;
    return rules_read(scenario, yaml_map_get(root, "rules"), err);
}

int sim_scenario_parse(struct sim_scenario **ret, const char *name, const char *text, size_t len,
                       struct err *err)
{
    struct sim_scenario *scenario = mem_must_zalloc(sizeof *scenario);
    scenario->references = 1;
    scenario->seed = -1;
    scenario->fallback = (struct sim_rule){
        .times = -1, .probability = 1, .timing = {.prefill_tps = 2000, .decode_tps = 200}};
    sim_fault_init(&scenario->fallback.fault);
    int rc = 0;
    if (text != NULL)
        rc = yaml_read(&scenario->yaml, name, text, len, err);
    if (rc == 0 && text != NULL)
        rc = scenario_read(scenario, err);
    if (rc != 0) {
        sim_scenario_unref(&scenario);
        return rc;
    }
    *ret = scenario;
    return 0;
}

struct sim_scenario *sim_scenario_ref(struct sim_scenario *scenario)
{
    scenario->references++;
    return scenario;
}

void sim_scenario_unref(struct sim_scenario **ref)
{
    struct sim_scenario *scenario = *ref;
    *ref = NULL;
    if (scenario == NULL || --scenario->references > 0)
        return;
    free(scenario->keys);
    free(scenario->models);
    free(scenario->dialects);
    free(scenario->key_limits);
    free(scenario->rules);
    yaml_release(&scenario->yaml);
    free(scenario);
}

int64_t sim_scenario_seed(const struct sim_scenario *scenario)
{
    return scenario->seed;
}

static bool glob_fits(const char *pattern, const char *text)
{
    return pattern == NULL || fnmatch(pattern, text, 0) == 0;
}

static bool text_fits(const char *part, const struct buf *text)
{
    return part == NULL ||
           (text->data != NULL && memmem(text->data, text->len, part, strlen(part)) != NULL);
}

static bool rule_fits(const struct sim_rule *rule, const struct sim_request *request)
{
    bool named = rule->family != NULL || request->family->only_named;
    bool family = rule->family == request->family ||
                  (rule->family != NULL && rule->family == request->family->base);
    return (!named || family) && glob_fits(rule->path, request->path) &&
           glob_fits(rule->model, request->model) && glob_fits(rule->key, request->key) &&
           text_fits(rule->prompt, &request->prompt) && text_fits(rule->system, &request->system);
}

const struct sim_rule *sim_scenario_match(struct sim_scenario *scenario,
                                          const struct sim_request *request, uint64_t *random,
                                          int *ret_index)
{
    for (size_t i = 0; i < scenario->n_rules; i++) {
        struct sim_rule *rule = &scenario->rules[i];
        if (!rule_fits(rule, request) ||
            (rule->probability < 1 && sim_random_unit(random) >= rule->probability))
            continue;
        int64_t n = rule->matched++;
        if (n < rule->after || (rule->times >= 0 && n - rule->after >= rule->times))
            continue;
        *ret_index = (int)i;
        return rule;
    }
    *ret_index = -1;
    return &scenario->fallback;
}

void sim_scenario_reset(struct sim_scenario *scenario)
{
    for (size_t i = 0; i < scenario->n_rules; i++)
        scenario->rules[i].matched = 0;
}

bool sim_scenario_admits(const struct sim_scenario *scenario, const char *key)
{
    for (size_t i = 0; i < scenario->n_keys; i++)
        if (strcmp(scenario->keys[i], key) == 0)
            return true;
    return scenario->n_keys == 0;
}

bool sim_scenario_serves(const struct sim_scenario *scenario, const char *model)
{
    for (size_t i = 0; i < scenario->n_models; i++)
        if (strcmp(scenario->models[i], model) == 0)
            return true;
    return scenario->n_models == 0;
}

const struct sim_limit *sim_scenario_limit(const struct sim_scenario *scenario, const char *key)
{
    for (size_t i = 0; i < scenario->n_key_limits; i++)
        if (strcmp(scenario->key_limits[i].key, key) == 0)
            return &scenario->key_limits[i].limit;
    return &scenario->limit;
}

const char *const *sim_scenario_models(const struct sim_scenario *scenario, size_t *ret_count)
{
    bool listed = scenario->n_models > 0;
    *ret_count = listed ? scenario->n_models : sizeof default_models / sizeof *default_models;
    return listed ? scenario->models : default_models;
}

enum sim_dialect sim_scenario_dialect(const struct sim_scenario *scenario, const char *model)
{
    for (size_t i = 0; i < scenario->n_dialects; i++)
        if (glob_fits(scenario->dialects[i].model, model))
            return scenario->dialects[i].dialect;
    return SIM_DIALECT_COUNT;
}
