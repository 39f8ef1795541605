/* The configuration in effect as YAML, and the reference for people; both from the tables. */
#include <stdio.h>
#include <string.h>

#include "common/config_tables.h"

#define DEPTH_MAX 4

enum manner {
    MANNER_WHOLE,
    MANNER_PUBLIC, /* without the password of Redis */
    MANNER_TERSE,  /* without what is as by default */
};

static void indent(struct buf *out, size_t depth)
{
    for (size_t i = 0; i < depth; i++)
        buf_add_str(out, "  ");
}

/* Length of the part of both keys that names the same maps. */
static size_t common_parents(const char *a, const char *b)
{
    size_t same = 0;
    for (size_t i = 0; a[i] != '\0' && a[i] == b[i]; i++)
        if (a[i] == '.')
            same = i + 1;
    return same;
}

/* "a.b.c: value" as nested maps; the parents that `last` had are not repeated. */
static void print_nested(const char *key, const char *last, size_t depth, const char *value,
                         struct buf *out)
{
    size_t at = common_parents(key, last);
    for (size_t i = 0; i < at; i++)
        depth += key[i] == '.';
    for (;; depth++) {
        size_t len = strcspn(key + at, ".");
        indent(out, depth);
        buf_printf(out, "%.*s:", (int)len, key + at);
        if (key[at + len] == '\0')
            break;
        buf_add_char(out, '\n');
        at += len + 1;
    }
    buf_printf(out, " %s\n", value);
}

static void print_fields(const struct config_field *fields, size_t n_fields, const void *base,
                         size_t depth, enum manner manner, struct buf *out)
{
    const char *last = "";
    struct buf value = {0};
    for (size_t i = 0; i < n_fields; i++) {
        const struct config_field *field = &fields[i];
        buf_clear(&value);
        if (manner == MANNER_PUBLIC && field->kind == &config_kind_redis &&
            !((const struct config *)base)->redis_local)
            config_redis_value(&((const struct config *)base)->redis, false, &value);
        else
            field->kind->print(field, base, &value);
        out->failed |= value.failed;
        bool quiet = field->quiet || (manner == MANNER_TERSE && field->fallback != NULL);
        if (value.len == 0 || (quiet && strcmp(value.data, field->fallback) == 0))
            continue;
        print_nested(field->key, last, depth, value.data, out);
        last = field->key;
    }
    buf_release(&value);
}

static void print_section(const struct config *config, const struct config_section *section,
                          enum manner manner, struct buf *out)
{
    size_t count;
    const char *items = config_items(config, section, &count);
    if (count == 0)
        return;
    buf_printf(out, "%s:\n", section->key);
    for (size_t i = 0; i < count; i++) {
        const char *item = items + i * section->size, *name;
        memcpy(&name, item, sizeof name);
        indent(out, 1);
        if (section->list) {
            buf_add_str(out, "-\n");
        } else {
            config_add_text(out, name);
            buf_add_str(out, ":\n");
        }
        print_fields(section->fields, section->n_fields, item, 2, manner, out);
    }
}

static void print_all(const struct config *config, enum manner manner, struct buf *out)
{
    print_fields(config_fields, config_n_fields, config, 0, manner, out);
    for (size_t i = 0; i < config_n_sections; i++)
        print_section(config, &config_sections[i], manner, out);
}

void config_print(const struct config *config, struct buf *out)
{
    print_all(config, MANNER_WHOLE, out);
}

void config_print_public(const struct config *config, struct buf *out)
{
    print_all(config, MANNER_PUBLIC, out);
}

void config_print_terse(const struct config *config, struct buf *out)
{
    print_all(config, MANNER_TERSE, out);
}

/* --- reference ----------------------------------------------------------------------------- */

static const char intro[] =
    "# Configuration\n"
    "\n"
    "<!-- Generated from the tables in common/config_tables.c. To change it, change the tables "
    "and\n"
    "     run the test `test_reference` with ORCH_UPDATE_DOCS=1. -->\n"
    "\n"
    "One YAML file serves every program. It is looked for in this order:\n"
    "\n"
    "1. `--config FILE`\n"
    "2. the file that `ORCHESTRATOR_CONFIG` names\n"
    "3. `$XDG_CONFIG_HOME/orchestrator/config.yaml`, or `~/.config/orchestrator/config.yaml`\n"
    "4. what this machine has joined with `orchestrator join`\n"
    "5. the configuration of the local stack that runs now\n"
    "6. without any of these, what is found on this machine: keys in the environment\n"
    "   (`ANTHROPIC_API_KEY`, `OPENAI_API_KEY`, `GEMINI_API_KEY` or `GOOGLE_API_KEY`, `HF_TOKEN`) "
    "and\n"
    "   local runtimes on their usual ports (Ollama 11434, LM Studio 1234, llama-server 8080 and "
    "9931,\n"
    "   vLLM 8000). If there is nothing, the simulator answers, and every output says so.\n"
    "   `ORCHESTRATOR_DETECT=simulator` looks for nothing and takes the simulator; "
    "`ORCHESTRATOR_OLLAMA_PORT`,\n"
    "   `ORCHESTRATOR_LMSTUDIO_PORT`, `ORCHESTRATOR_LLAMACPP_PORT`, "
    "`ORCHESTRATOR_LLAMACPP2_PORT` and\n"
    "   `ORCHESTRATOR_VLLM_PORT` name other ports (0: do not look).\n"
    "\n"
    "`orchestrator check-config` tells every error with line and column; `orchestrator "
    "check-config "
    "--print`\n"
    "shows the configuration in effect, defaults included. Unknown keys are errors. Relative paths "
    "are\n"
    "relative to the folder of the file. Keys of providers are never in the file, only where they "
    "are.\n"
    "\n"
    "```yaml\n"
    "redis: local\n"
    "providers:\n"
    "  claude: {api: anthropic, key: env:ANTHROPIC_API_KEY}\n"
    "  ollama: {api: ollama, base_url: \"http://127.0.0.1:11434\"}\n"
    "models:\n"
    "  qwen-coder: {provider: ollama, name: \"qwen2.5-coder:7b\", context: 32768, local: true}\n"
    "  sonnet: {provider: claude, name: claude-sonnet-5-5, price: {input: 2, output: 10}}\n"
    "workers:\n"
    "  - {name: ollama-0, provider: ollama, concurrency: 2, gpu: 0}\n"
    "  - {name: claude, provider: claude, concurrency: 64}\n"
    "roles:\n"
    "  planner: {models: [sonnet, qwen-coder], max_tokens: 4096}\n"
    "  coder: {models: [qwen-coder, sonnet]}\n"
    "```\n";

static void add_limits(const struct config_field *field, struct buf *out)
{
    if (field->kind == &config_kind_int || field->kind == &config_kind_num)
        buf_printf(out, ", %.15g to %.15g", field->min, field->max);
    for (size_t i = 0; field->choices != NULL && field->choices[i] != NULL; i++)
        buf_printf(out, "%s`%s`", i == 0 ? ": " : ", ", field->choices[i]);
}

static void reference_fields(const struct config_field *fields, size_t n_fields, struct buf *out)
{
    buf_add_str(out, "\n| key | type | default | meaning |\n|---|---|---|---|\n");
    for (size_t i = 0; i < n_fields; i++) {
        const struct config_field *field = &fields[i];
        buf_printf(out, "| `%s` | %s", field->key, field->kind->title);
        add_limits(field, out);
        if (field->fallback != NULL)
            buf_printf(out, " | `%s`", field->fallback);
        else
            buf_add_str(out, field->required ? " | required" : " | ");
        buf_printf(out, " | %s |\n", field->help);
    }
}

static void reference_section(const struct config_section *section, struct buf *out)
{
    buf_printf(out, "\n## %s\n\n%s\n\n", section->key, section->help);
    if (section->list)
        buf_printf(out, "A list: `%s: [{name: ..., ...}]`.\n", section->key);
    else
        buf_printf(out, "A map: `%s: {NAME: {...}}`.\n", section->key);
    reference_fields(section->fields, section->n_fields, out);
    if (strcmp(section->key, "providers") == 0) {
        size_t count;
        const struct config_api *apis = config_apis(&count);
        buf_add_str(out, "\n| api | speaks | default `base_url` | default `key` | local |\n"
                         "|---|---|---|---|---|\n");
        for (size_t i = 0; i < count; i++)
            buf_printf(out, "| `%s` | %s | %s | %s%s | %s |\n", apis[i].name, apis[i].title,
                       apis[i].base_url != NULL ? apis[i].base_url
                       : apis[i].wraps          ? "its own"
                                                : "required",
                       apis[i].key_env != NULL ? "env:" : "none",
                       apis[i].key_env != NULL ? apis[i].key_env : "",
                       apis[i].local ? "yes" : "no");
    }
    if (strcmp(section->key, "roles") == 0) {
        buf_add_str(out, "\nBuilt-in roles:\n\n| role | what it does |\n|---|---|\n");
        for (size_t i = 0; i < config_n_role_presets; i++)
            buf_printf(out, "| `%s` | %s |\n", config_role_presets[i].name,
                       config_role_presets[i].help);
    }
}

void config_reference(struct buf *out)
{
    buf_add_str(out, intro);
    buf_add_str(out, "\n## Top level\n\nA dot stands for a nested map: `bus.brokers` is "
                     "`bus: {brokers: ...}`.\n");
    reference_fields(config_fields, config_n_fields, out);
    size_t n_redis;
    const struct config_field *redis = config_redis_fields(&n_redis);
    buf_add_str(out, "\n## redis\n\nAs a map: `redis: {...}`, with one of `url`, `sentinels` and "
                     "`cluster`. [operations.md](operations.md#redis) tells which to choose.\n");
    reference_fields(redis, n_redis, out);
    for (size_t i = 0; i < config_n_sections; i++)
        reference_section(&config_sections[i], out);
}
