#include "orchestrator/prompt.h"

#include <string.h>

#include "orchestrator/plan_check.h"
#include "schemas/mem.h"

#define TITLE_BYTES 80
#define ROLE_LINE_BYTES 120
#define OUTLINE_MAX 200 /* subtasks named to the synthesizer */

size_t prompt_cut(const char *text, size_t len, size_t most)
{
    if (len <= most)
        return len;
    while (most > 0 && ((unsigned char)text[most] & 0xc0) == 0x80)
        most--;
    return most;
}

char *prompt_title(const char *text)
{
    text += strspn(text, " \t\r\n#");
    size_t len = strcspn(text, "\r\n");
    if (len <= TITLE_BYTES)
        return mem_must_strndup(text, len);
    len = prompt_cut(text, len, TITLE_BYTES - 3);
    return mem_must_printf("%.*s...", (int)len, text);
}

static void add_role_system(const struct config *config, const char *role, struct buf *out)
{
    const struct config_role *found = config_role(config, role);
    if (found != NULL && *found->system != '\0')
        buf_printf(out, "%s\n\n", found->system);
}

static void add_role_line(const struct config_role *role, struct buf *out)
{
    size_t line = strcspn(role->system, "\r\n");
    size_t cut = prompt_cut(role->system, line, ROLE_LINE_BYTES);
    if (cut == 0)
        buf_printf(out, "- %s\n", role->name);
    else
        buf_printf(out, "- %s: %.*s%s\n", role->name, (int)cut, role->system,
                   cut < line ? "..." : "");
}

void prompt_planner_system(const struct config *config, struct buf *out)
{
    add_role_system(config, "planner", out);
    buf_add_str(
        out, "You decompose a task into subtasks that other models carry out. Answer with one JSON "
             "object and nothing else:\n"
             "{\"title\": \"short title of the task\", \"subtasks\": [{\"id\": \"short-id\", "
             "\"title\": \"short title\", \"role\": \"one of the roles\", \"prompt\": \"complete "
             "instructions\", \"depends_on\": [\"ids of subtasks whose results it needs\"]}]}\n\n"
             "Rules:\n");
    buf_printf(out,
               "- Use as few subtasks as the task needs, usually 2 to 8 and never more than %lld; "
               "what one model answers well in one go is one subtask.\n",
               (long long)config->max_subtasks);
    buf_add_str(
        out,
        "- Subtasks run in parallel as soon as the results of their depends_on are there: depend "
        "only on what is really needed. The dependencies must not form a cycle.\n"
        "- Whoever carries out a subtask sees only its prompt and the results of its direct "
        "dependencies: write each prompt so that it stands alone, with every name, format and "
        "constraint of the task that matters to it.\n"
        "- A subtask that writes files says their paths in its prompt, and no file is written by "
        "two subtasks.\n"
        "- Do not plan a last subtask that only summarizes: the results are put together "
        "afterwards.\n\n"
        "Roles:\n");
    for (size_t i = 0; i < config->n_roles; i++)
        if (plan_role_assignable(config->roles[i].name))
            add_role_line(&config->roles[i], out);
}

static void add_role_enum(const struct config *config, struct buf *out)
{
    const char *comma = "";
    buf_add_str(out, "{\"type\":\"string\",\"enum\":[");
    for (size_t i = 0; i < config->n_roles; i++) {
        const char *name = config->roles[i].name;
        if (!plan_role_assignable(name))
            continue;
        buf_add_str(out, comma);
        buf_add_json(out, name, strlen(name));
        comma = ",";
    }
    if (*comma == '\0') {
        const char *name = plan_default_role(config)->name;
        buf_add_json(out, name, strlen(name));
    }
    buf_add_str(out, "]}");
}

void prompt_plan_schema(const struct config *config, struct buf *out)
{
    buf_add_str(out, "{\"type\":\"object\",\"properties\":{\"title\":{\"type\":\"string\"},"
                     "\"subtasks\":{\"type\":\"array\",\"items\":{\"type\":\"object\","
                     "\"properties\":{\"id\":{\"type\":\"string\"},\"title\":{\"type\":\"string\"},"
                     "\"role\":");
    add_role_enum(config, out);
    buf_add_str(out, ",\"prompt\":{\"type\":\"string\"},\"depends_on\":{\"type\":\"array\","
                     "\"items\":{\"type\":\"string\"}}},"
                     "\"required\":[\"id\",\"title\",\"role\",\"prompt\",\"depends_on\"],"
                     "\"additionalProperties\":false}}},"
                     "\"required\":[\"title\",\"subtasks\"],\"additionalProperties\":false}");
}

void prompt_repair(const char *task_text, const char *complaint, struct buf *out)
{
    buf_add_str(out, task_text);
    buf_printf(out,
               "\n\nYour previous answer, which is given with this message, is not a usable plan: "
               "%s. Answer again with the whole corrected plan, as one JSON object and nothing "
               "else.\n",
               complaint);
}

void prompt_synthesizer_system(const struct config *config, struct buf *out)
{
    add_role_system(config, "synthesizer", out);
    buf_add_str(
        out,
        "You synthesize the final answer to a task from the results of its subtasks. Answer the "
        "task itself, completely and consistently, as if one author had written it; where results "
        "contradict each other, decide and say why. Files that subtasks have written are kept as "
        "they are: do not repeat their contents, name them and say what they are for and how to "
        "use them. Do not describe how the work was divided.\n");
}

void prompt_synthesis(const struct plan *plan, struct buf *out)
{
    buf_add_str(out, "Write the final answer to the task from the results of its subtasks.\n\n"
                     "The task was carried out in these subtasks:\n");
    for (size_t i = 0; i < plan->n_subtasks && i < OUTLINE_MAX; i++) {
        const struct plan_subtask *subtask = &plan->subtasks[i];
        buf_printf(out, "- %s: %s", subtask->id, subtask->title);
        for (size_t j = 0; j < subtask->n_deps; j++)
            buf_printf(out, "%s%s", j == 0 ? " (uses " : ", ", subtask->deps[j]);
        buf_add_str(out, subtask->n_deps > 0 ? ")\n" : "\n");
    }
    if (plan->n_subtasks > OUTLINE_MAX)
        buf_printf(out, "- and %zu more\n", plan->n_subtasks - OUTLINE_MAX);
}
