#include "simulator/scenario_read.h"

#include <errno.h>
#include <string.h>

#include "simulator/family.h"

#define MAX_TOKENS 1000000
#define MAX_MS 86400000.0

int sim_timing_read(struct sim_timing *ret, const struct yaml *yaml, const struct yaml_node *node,
                    struct err *err)
{
    static const char *const keys[] = {"load_ms",  "prefill_tps", "decode_tps", "jitter",
                                       "burst_ms", "ping_ms",     NULL};
    if (yaml_is_null(node))
        return 0;
    int rc = yaml_check_keys(yaml, node, "timing", keys, err);
    if (rc != 0 || (rc = yaml_get_num(yaml, node, "load_ms", 0, MAX_MS, &ret->load_ms, err)) != 0 ||
        (rc = yaml_get_num(yaml, node, "prefill_tps", 0, 1e9, &ret->prefill_tps, err)) != 0 ||
        (rc = yaml_get_num(yaml, node, "decode_tps", 0, 1e9, &ret->decode_tps, err)) != 0 ||
        (rc = yaml_get_num(yaml, node, "jitter", 0, 1, &ret->jitter, err)) != 0 ||
        (rc = yaml_get_num(yaml, node, "burst_ms", 0, MAX_MS, &ret->burst_ms, err)) != 0)
        return rc;
    return yaml_get_int(yaml, node, "ping_ms", 0, (int64_t)MAX_MS, &ret->ping_ms, err);
}

int sim_limit_read(struct sim_limit *ret, const struct yaml *yaml, const struct yaml_node *node,
                   struct err *err)
{
    static const char *const keys[] = {"requests_per_minute", "tokens_per_minute", "concurrency",
                                       "window_ms", NULL};
    if (yaml_is_null(node))
        return 0;
    int rc = yaml_check_keys(yaml, node, "limits", keys, err);
    if (rc != 0 ||
        (rc = yaml_get_int(yaml, node, keys[0], 0, INT32_MAX, &ret->requests, err)) != 0 ||
        (rc = yaml_get_int(yaml, node, keys[1], 0, INT64_MAX / 4, &ret->tokens, err)) != 0 ||
        (rc = yaml_get_int(yaml, node, keys[2], 0, INT32_MAX, &ret->concurrency, err)) != 0)
        return rc;
    return yaml_get_int(yaml, node, keys[3], 0, (int64_t)MAX_MS, &ret->window_ms, err);
}

/* --- faults -------------------------------------------------------------------------------- */

void sim_fault_init(struct sim_fault *fault)
{
    *fault = (struct sim_fault){.kind = SIM_KIND_NONE,
                                .retry_after_s = -1,
                                .truncate_after = SIM_NEVER,
                                .malformed_after = SIM_NEVER,
                                .error_after = SIM_NEVER,
                                .stall_after = SIM_NEVER};
}

static const char *const fault_keys[] = {"kind",
                                         "status",
                                         "retry_after",
                                         "message",
                                         "truncate_after",
                                         "malformed_json",
                                         "error_in_stream",
                                         "stall_after",
                                         "stall_ms",
                                         "drip",
                                         "wrong_model",
                                         "finish",
                                         "html",
                                         "close_before_headers",
                                         "no_finish",
                                         "empty",
                                         NULL};

static int kind_read(enum sim_kind *ret, const struct yaml *yaml, const struct yaml_node *node,
                     struct err *err)
{
    const char *names[SIM_KIND_COUNT + 1] = {0};
    for (int i = 0; i < SIM_KIND_COUNT; i++) {
        names[i] = sim_kind_name((enum sim_kind)i);
        if (strcmp(node->text, names[i]) == 0) {
            *ret = (enum sim_kind)i;
            return 0;
        }
    }
    const char *near = yaml_nearest(node->text, names);
    return yaml_fail(yaml, node, err, "unknown kind of fault `%s`%s%s%s", node->text,
                     near != NULL ? "; did you mean `" : "", near != NULL ? near : "",
                     near != NULL ? "`?" : "");
}

/* "after": a number of tokens; true is 0, false is never. */
static int after_read(int64_t *ret, const struct yaml *yaml, const struct yaml_node *map,
                      const char *key, struct err *err)
{
    const struct yaml_node *node = yaml_map_get(map, key);
    bool on;
    if (!yaml_bool(node, &on))
        return yaml_get_int(yaml, map, key, 0, MAX_TOKENS, ret, err);
    *ret = on ? 0 : SIM_NEVER;
    return 0;
}

/* The short form: `fault: rate_limit`, `fault: html`. */
static int fault_read_word(struct sim_fault *ret, const struct yaml *yaml,
                           const struct yaml_node *node, struct err *err)
{
    bool *flag = strcmp(node->text, "html") == 0                   ? &ret->html
                 : strcmp(node->text, "close_before_headers") == 0 ? &ret->close_before_headers
                 : strcmp(node->text, "no_finish") == 0            ? &ret->no_finish
                 : strcmp(node->text, "empty") == 0                ? &ret->empty
                                                                   : NULL;
    int64_t *after = strcmp(node->text, "malformed_json") == 0    ? &ret->malformed_after
                     : strcmp(node->text, "error_in_stream") == 0 ? &ret->error_after
                                                                  : NULL;
    if (flag != NULL)
        *flag = true;
    else if (after != NULL)
        *after = 0;
    else
        return kind_read(&ret->kind, yaml, node, err);
    return 0;
}

static int drip_read(struct sim_fault *ret, const struct yaml *yaml, const struct yaml_node *node,
                     struct err *err)
{
    static const char *const keys[] = {"bytes", "every_ms", NULL};
    if (node == NULL)
        return 0;
    ret->drip_bytes = 1;
    ret->drip_ms = 20;
    bool on;
    if (yaml_bool(node, &on)) {
        ret->drip_bytes = on ? 1 : 0;
        return 0;
    }
    int rc = yaml_check_keys(yaml, node, "drip", keys, err);
    if (rc == 0)
        rc = yaml_get_int(yaml, node, "bytes", 1, 1 << 20, &ret->drip_bytes, err);
    if (rc == 0)
        rc = yaml_get_int(yaml, node, "every_ms", 1, (int64_t)MAX_MS, &ret->drip_ms, err);
    return rc;
}

static int fault_read_flags(struct sim_fault *ret, const struct yaml *yaml,
                            const struct yaml_node *node, struct err *err)
{
    int rc = yaml_get_bool(yaml, node, "html", &ret->html, err);
    if (rc == 0)
        rc = yaml_get_bool(yaml, node, "close_before_headers", &ret->close_before_headers, err);
    if (rc == 0)
        rc = yaml_get_bool(yaml, node, "no_finish", &ret->no_finish, err);
    if (rc == 0)
        rc = yaml_get_bool(yaml, node, "empty", &ret->empty, err);
    return rc;
}

static int fault_read_tokens(struct sim_fault *ret, const struct yaml *yaml,
                             const struct yaml_node *node, struct err *err)
{
    int rc = after_read(&ret->truncate_after, yaml, node, "truncate_after", err);
    if (rc == 0)
        rc = after_read(&ret->malformed_after, yaml, node, "malformed_json", err);
    if (rc == 0)
        rc = after_read(&ret->error_after, yaml, node, "error_in_stream", err);
    if (rc == 0)
        rc = after_read(&ret->stall_after, yaml, node, "stall_after", err);
    return rc;
}

int sim_fault_read(struct sim_fault *ret, const struct yaml *yaml, const struct yaml_node *node,
                   struct err *err)
{
    if (yaml_is_null(node))
        return 0;
    if (node->type == YAML_SCALAR)
        return fault_read_word(ret, yaml, node, err);
    int rc = yaml_check_keys(yaml, node, "a fault", fault_keys, err);
    const struct yaml_node *kind = yaml_map_get(node, "kind");
    if (rc == 0 && kind != NULL)
        rc = kind_read(&ret->kind, yaml, kind, err);
    if (rc != 0 || (rc = yaml_get_int(yaml, node, "status", 100, 599, &ret->status, err)) != 0 ||
        (rc = yaml_get_num(yaml, node, "retry_after", 0, 86400, &ret->retry_after_s, err)) != 0 ||
        (rc = yaml_get_str(yaml, node, "message", &ret->message, err)) != 0 ||
        (rc = fault_read_tokens(ret, yaml, node, err)) != 0 ||
        (rc = yaml_get_int(yaml, node, "stall_ms", 0, (int64_t)MAX_MS, &ret->stall_ms, err)) != 0 ||
        (rc = drip_read(ret, yaml, yaml_map_get(node, "drip"), err)) != 0 ||
        (rc = yaml_get_str(yaml, node, "wrong_model", &ret->served_model, err)) != 0 ||
        (rc = yaml_get_str(yaml, node, "finish", &ret->finish, err)) != 0)
        return rc;
    rc = fault_read_flags(ret, yaml, node, err);
    if (rc != 0 || ret->status == 0 || ret->html)
        return rc;
    if (ret->status < 400)
        return yaml_fail(yaml, yaml_map_get(node, "status"), err,
                         "the status of a fault is 400 to 599");
    if (ret->kind == SIM_KIND_NONE)
        ret->kind = ret->status >= 500 ? SIM_KIND_SERVER_ERROR : SIM_KIND_BAD_REQUEST;
    return 0;
}

/* --- rules --------------------------------------------------------------------------------- */

static int api_read(struct sim_rule *ret, const struct yaml *yaml, const struct yaml_node *match,
                    struct err *err)
{
    const char *name = NULL;
    int rc = yaml_get_str(yaml, match, "api", &name, err);
    if (rc != 0 || name == NULL)
        return rc;
    ret->family = sim_family_find(name);
    if (ret->family == NULL)
        return yaml_fail(yaml, yaml_map_get(match, "api"), err,
                         "unknown api `%s`: one of openai, anthropic, gemini, ollama, search, "
                         "responses, lmstudio",
                         name);
    return 0;
}

static int match_read(struct sim_rule *ret, const struct yaml *yaml, const struct yaml_node *node,
                      struct err *err)
{
    static const char *const keys[] = {"path",   "api",   "model", "key",         "prompt",
                                       "system", "times", "after", "probability", NULL};
    if (yaml_is_null(node))
        return 0;
    int rc = yaml_check_keys(yaml, node, "match", keys, err);
    if (rc != 0 || (rc = api_read(ret, yaml, node, err)) != 0 ||
        (rc = yaml_get_str(yaml, node, "path", &ret->path, err)) != 0 ||
        (rc = yaml_get_str(yaml, node, "model", &ret->model, err)) != 0 ||
        (rc = yaml_get_str(yaml, node, "key", &ret->key, err)) != 0 ||
        (rc = yaml_get_str(yaml, node, "prompt", &ret->prompt, err)) != 0 ||
        (rc = yaml_get_str(yaml, node, "system", &ret->system, err)) != 0 ||
        (rc = yaml_get_int(yaml, node, "times", 0, INT64_MAX, &ret->times, err)) != 0 ||
        (rc = yaml_get_int(yaml, node, "after", 0, INT64_MAX, &ret->after, err)) != 0)
        return rc;
    return yaml_get_num(yaml, node, "probability", 0, 1, &ret->probability, err);
}

static int reply_read(struct sim_rule *ret, const struct yaml *yaml, const struct yaml_node *node,
                      struct err *err)
{
    static const char *const keys[] = {"text", "builtin", "echo", NULL};
    if (yaml_is_null(node))
        return 0;
    bool builtin = false, echo = false;
    int rc = yaml_check_keys(yaml, node, "reply", keys, err);
    if (rc != 0 || (rc = yaml_get_str(yaml, node, "text", &ret->text, err)) != 0 ||
        (rc = yaml_get_bool(yaml, node, "builtin", &builtin, err)) != 0 ||
        (rc = yaml_get_bool(yaml, node, "echo", &echo, err)) != 0)
        return rc;
    if (builtin + echo + (ret->text != NULL) != 1)
        return yaml_fail(yaml, node, err, "a reply is one of text, builtin: true, echo: true");
    ret->reply = echo ? SIM_REPLY_ECHO : builtin ? SIM_REPLY_BUILTIN : SIM_REPLY_TEXT;
    return 0;
}

int sim_rule_read(struct sim_rule *ret, const struct sim_timing *timing, const struct yaml *yaml,
                  const struct yaml_node *node, struct err *err)
{
    static const char *const keys[] = {"match",  "reply", "timing", "tokens",
                                       "served", "fault", NULL};
    *ret = (struct sim_rule){.times = -1, .probability = 1, .timing = *timing};
    sim_fault_init(&ret->fault);
    int rc = yaml_check_keys(yaml, node, "a rule", keys, err);
    if (rc != 0 || (rc = match_read(ret, yaml, yaml_map_get(node, "match"), err)) != 0 ||
        (rc = reply_read(ret, yaml, yaml_map_get(node, "reply"), err)) != 0 ||
        (rc = sim_timing_read(&ret->timing, yaml, yaml_map_get(node, "timing"), err)) != 0 ||
        (rc = yaml_get_int(yaml, node, "tokens", 0, MAX_TOKENS, &ret->tokens, err)) != 0 ||
        (rc = yaml_get_str(yaml, node, "served", &ret->served, err)) != 0)
        return rc;
    return sim_fault_read(&ret->fault, yaml, yaml_map_get(node, "fault"), err);
}
