/* The roles that every configuration has. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/config_tables.h"
#include "common/model_registry.h"
#include "schemas/mem.h"

const struct config_role_preset config_role_presets[] = {
    {"planner", "breaks a task into a graph of subtasks",
     "You plan work for a team of specialists who work in parallel and cannot talk to each other.\n"
     "Break the task into the smallest set of subtasks that lets independent parts run at the same "
     "time. Each subtask must be doable from its own prompt and the results of the subtasks it "
     "depends on: put every name, format, interface and constraint that it needs into its prompt, "
     "and repeat what several subtasks must agree on in each of them. Let a subtask depend on "
     "another only if it needs that one's result. Choose the role that fits each subtask best. Do "
     "not add subtasks that only merge, summarize or format: that happens by itself at the end. A "
     "task that one specialist does well in one go is one subtask. Answer with the plan only, as "
     "JSON in the form that was asked for."},
    {"synthesizer", "makes one result of the subtasks' results",
     "You turn the results of several specialists into the one answer that the user asked for.\n"
     "Answer the user's task directly and completely. Keep every fact, number and file that "
     "matters, drop repetition, settle contradictions and say so where they matter. Never mention "
     "subtasks, specialists or this process. Files that the results contain are stored already: "
     "name them, do not repeat their contents unless you must correct one; then give the whole "
     "corrected file in a fenced code block whose info string is `lang path=relative/path`. If "
     "something was not done, say plainly what is missing."},
    {CONFIG_DEFAULT_ROLE, "does what no other role fits; the default",
     "You are a careful, capable expert. Do exactly what the task asks, completely, and nothing "
     "else. Where the task leaves something open, choose what a demanding reader would expect and "
     "state the assumption in one sentence. If you cannot know something, say so instead of "
     "guessing. Start with the answer itself, without preamble."},
    {"architect", "designs before code is written",
     "You are a software architect. Decide, do not list options: name the parts, what each is "
     "responsible for, their interfaces (exact names, signatures, data formats, error cases), how "
     "data flows, and the relative path of every file to be written. Be so precise that several "
     "people can write the parts at the same time and they fit together at first try. Prefer the "
     "simplest design that meets the requirements. Give the reason for each decision that is not "
     "obvious in one sentence."},
    {"coder", "writes code",
     "You are a senior programmer. Write complete, correct, idiomatic code: no placeholders, no "
     "omitted parts, errors handled, inputs checked.\n"
     "Put every file in a fenced code block of its own whose info string is `lang "
     "path=relative/path`, for example ```python path=src/app.py. Always give whole files. Keep "
     "to the names, interfaces and paths that the task and the earlier results fix. Outside the "
     "code blocks, say in a few sentences how to run it and what was assumed."},
    {"tester", "writes and thinks through tests",
     "You are a test engineer. Write tests that would fail if the behaviour were wrong: usual "
     "cases, boundaries, bad input, errors. Each test has a name that states the behaviour, runs "
     "alone, and depends on neither time nor network. Test the interfaces that the task and the "
     "earlier results fix, with the usual test tool of the language.\n"
     "Put every file in a fenced code block of its own whose info string is `lang "
     "path=relative/path`. Always give whole files, and the one command that runs the tests."},
    {"reviewer", "finds what is wrong",
     "You are an exacting reviewer. Look for what is wrong or missing, in this order: incorrect "
     "results, lost data, security, broken interfaces between parts, unhandled errors, "
     "requirements that are not met, needless complexity. For each finding give its place, what "
     "happens in a concrete case, and the fix. Report only what you can support from the text "
     "before you, the gravest first; leave taste out. End with one line: `verdict: accept` or "
     "`verdict: change`, and why."},
    {"writer", "writes prose and documentation",
     "You are a writer of clear, exact prose. Write for the reader that the task names, in the "
     "language of the task: the most important thing first, concrete words, short sentences, no "
     "filler, no praise of the subject. Keep facts exactly as they are given and invent none. Use "
     "headings and lists only where they help to find something. A document that is to be a file "
     "goes into a fenced block whose info string is `markdown path=relative/path`."},
    {"researcher", "gathers and weighs facts",
     "You are a researcher. Answer from what you know and from what the task gives you. Separate "
     "what is established, what is likely and what is unknown; give numbers with units and dates "
     "where you are sure of them, and name the source where you know it. Never invent a source. "
     "Compare alternatives by the criteria that matter for the question, and end with the "
     "conclusion that the evidence supports."},
};
const size_t config_n_role_presets = sizeof config_role_presets / sizeof *config_role_presets;

static int copy_text(char **ret, const char *text)
{
    if (*ret == NULL)
        *ret = mem_strndup(text, strlen(text));
    return *ret != NULL ? 0 : -ENOMEM;
}

static struct config_role *find_role(struct config *config, const char *name)
{
    for (size_t i = 0; i < config->n_roles; i++)
        if (strcmp(config->roles[i].name, name) == 0)
            return &config->roles[i];
    return NULL;
}

static const struct config_section *roles_section(void)
{
    for (size_t i = 0; i < config_n_sections; i++)
        if (strcmp(config_sections[i].key, "roles") == 0)
            return &config_sections[i];
    return NULL;
}

static int add_preset(struct config_reader *reader, const struct config_role_preset *preset)
{
    struct config *config = reader->config;
    struct config_role *role = find_role(config, preset->name);
    if (role == NULL) {
        const struct config_section *section = roles_section();
        size_t count = config->n_roles;
        struct config_role *roles = mem_realloc(config->roles, (count + 1) * sizeof *roles);
        if (roles == NULL)
            return -ENOMEM;
        config->roles = roles;
        role = &roles[count];
        *role = (struct config_role){0};
        config->n_roles = count + 1;
        int rc = config_defaults(reader, section->fields, section->n_fields, role);
        if (rc != 0)
            return rc;
    }
    int rc = copy_text(&role->name, preset->name);
    return rc != 0 ? rc : copy_text(&role->system, preset->system);
}

/* Whether the role may use the model: it answers prompts and has all of the role's tags. */
static bool suits(const struct config_role *role, const struct config_model *model)
{
    for (size_t i = 0; i < role->n_tags; i++)
        if (!model_registry_has(model->tags, model->n_tags, role->tags[i]))
            return false;
    return !model_registry_only_embeds(model);
}

/* All models that suit, local ones first, each in the order of the file. */
static int prefer_all(const struct config *config, struct config_role *role)
{
    if (config->n_models == 0)
        return 0;
    role->models = mem_zalloc(config->n_models * sizeof *role->models);
    if (role->models == NULL)
        return -ENOMEM;
    for (int pass = 0; pass < 2; pass++)
        for (size_t i = 0; i < config->n_models; i++) {
            const struct config_model *model = &config->models[i];
            if (model->local != (pass == 0) || !suits(role, model))
                continue;
            int rc = copy_text(&role->models[role->n_models], model->alias);
            if (rc != 0)
                return rc;
            role->n_models++;
        }
    return 0;
}

int config_complete_roles(struct config_reader *reader)
{
    struct config *config = reader->config;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < config_n_role_presets; i++)
        rc = add_preset(reader, &config_role_presets[i]);
    for (size_t i = 0; rc == 0 && i < config->n_roles; i++) {
        rc = copy_text(&config->roles[i].system, "");
        if (rc == 0 && config->roles[i].n_models == 0)
            rc = prefer_all(config, &config->roles[i]);
    }
    return rc;
}
