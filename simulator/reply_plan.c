/* What a task is about, and the plan for it. */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "simulator/reply.h"

/* Of the task as it was given, in each prompt of its plan: the plan must fit into an answer. */
#define MAX_TASK 1000

/* The words that ask for a language; the first that occurs decides. */
static const struct {
    const char *name;
    const char *words[5];
} langs[SIM_LANG_COUNT] = {
    [SIM_LANG_PYTHON] = {"python", {"python", "flask", "django", "pip"}},
    [SIM_LANG_C] = {"c", {"c", "c17", "c11", "makefile"}},
    [SIM_LANG_HTML] = {"html", {"html", "website", "webpage", "css"}},
    [SIM_LANG_JAVASCRIPT] = {"javascript", {"javascript", "node", "js", "typescript"}},
    [SIM_LANG_SHELL] = {"shell", {"shell", "bash", "sh"}},
};

static const char *const code_words[] = {
    "app",     "api",     "cli",     "code",     "program", "script", "function",
    "library", "tool",    "server",  "parser",   "class",   "module", "game",
    "test",    "tests",   "bug",     "refactor", "service", "page",   "database",
    "site",    "command", "package", "client",   "bot",     NULL};
static const char *const storage_words[] = {"database", "storage", "sql",     "sqlite", "store",
                                            "persist",  "save",    "history", NULL};
/* Words that say nothing about the subject. */
static const char *const empty_words[] = {
    "a",     "an",   "the",   "and",    "or",     "with",  "in",    "of",   "for",       "to",
    "write", "make", "build", "create", "please", "me",    "my",    "some", "that",      "which",
    "from",  "into", "using", "small",  "simple", "short", "tests", "test", "file",      "program",
    "on",    "by",   "is",    "are",    "it",     "its",   "about", "one",  "implement", "add",
    "this",  "how",  "what",  "why",    "do",     "does",  "be",    "can",  NULL};

const char *sim_lang_name(enum sim_lang lang)
{
    return lang < SIM_LANG_COUNT ? langs[lang].name : "";
}

static bool is_one_of(const char *word, const char *const *words)
{
    for (; *words != NULL; words++)
        if (strcmp(word, *words) == 0)
            return true;
    return false;
}

static enum sim_lang lang_of(const char *word)
{
    for (int i = 0; i < SIM_LANG_COUNT; i++)
        for (size_t k = 0; k < 5 && langs[i].words[k] != NULL; k++)
            if (strcmp(word, langs[i].words[k]) == 0)
                return (enum sim_lang)i;
    return SIM_LANG_COUNT;
}

/* The next word in lower case (ASCII letters and digits); false at the end. */
static bool next_word(const char **at, const char *end, char ret[24])
{
    size_t n = 0;
    while (*at < end && !isalnum((unsigned char)**at))
        (*at)++;
    while (*at < end && isalnum((unsigned char)**at)) {
        if (n < 23)
            ret[n++] = (char)tolower((unsigned char)**at);
        (*at)++;
    }
    ret[n] = '\0';
    return n > 0;
}

/* What a request begins with before it comes to its subject. */
static const char *const opening_words[] = {
    "please",    "can", "you", "write", "make", "build", "create", "develop", "code", "program",
    "implement", "me",  "a",   "an",    "the",  "small", "simple", "short",   "some", NULL};

/* Skips them, unless nothing is left then. */
static const char *skip_opening(const char *text, const char *end)
{
    const char *at = text, *subject = text;
    char word[24];
    while (at < end && *at != '\n' && next_word(&at, end, word) && is_one_of(word, opening_words)) {
        while (at < end && *at == ' ')
            at++;
        subject = at;
    }
    return subject < end && isalnum((unsigned char)*subject) ? subject : text;
}

/* The title: the first line or sentence, without what would end it inside a plan's prompt. */
static void find_title(struct sim_topic *ret, const char *text, size_t len)
{
    size_t n = 0;
    const char *end = text + len;
    while (text < end && !isalnum((unsigned char)*text) && (unsigned char)*text < 0x80)
        text++;
    text = skip_opening(text, end);
    for (; text < end && n < sizeof ret->title - 1 && *text != '\n'; text++) {
        if (*text == '.' && (text + 1 == end || isspace((unsigned char)text[1])))
            break;
        if (strchr(";\"`\\:", *text) == NULL && (unsigned char)*text >= 0x20)
            ret->title[n++] = *text;
    }
    while (text < end && n > 0 && ((unsigned char)*text & 0xc0) == 0x80)
        if (((unsigned char)ret->title[--n] & 0xc0) == 0xc0)
            break; /* the character that did not fit */
    while (n > 0 && ret->title[n - 1] == ' ')
        n--;
    ret->title[n] = '\0';
    if (n == 0)
        snprintf(ret->title, sizeof ret->title, "the task");
}

/* Up to three telling words of the title. */
static void find_package(struct sim_topic *ret)
{
    const char *at = ret->title, *end = at + strlen(at);
    char word[24];
    size_t len = 0;
    for (int count = 0; count < 3 && next_word(&at, end, word);) {
        if (is_one_of(word, empty_words) || lang_of(word) != SIM_LANG_COUNT)
            continue;
        if (count == 0 && isdigit((unsigned char)word[0]))
            continue; /* no language wants a name to start with a digit */
        if (len + strlen(word) + 2 > sizeof ret->package)
            break;
        len += (size_t)sprintf(ret->package + len, "%s%s", count > 0 ? "_" : "", word);
        count++;
    }
    if (len == 0)
        snprintf(ret->package, sizeof ret->package, "work");
}

/* "Project: TITLE; package: PACKAGE; language: LANG": what a plan puts into its prompts, so that
 * all of its subtasks agree. */
static bool find_project(struct sim_topic *ret, const char *text, size_t len)
{
    static const char mark[] = "Project: ";
    const char *at = len > 0 ? memmem(text, len, mark, sizeof mark - 1) : NULL;
    char line[256], lang[24] = "";
    if (at == NULL)
        return false;
    snprintf(line, sizeof line, "%.*s", (int)(len - (size_t)(at - text)), at);
    line[strcspn(line, "\n")] = '\0';
    if (sscanf(line, "Project: %80[^;]; package: %40[a-z0-9_]; language: %23[a-z]", ret->title,
               ret->package, lang) != 3)
        return false;
    ret->lang = lang_of(lang);
    if (ret->lang == SIM_LANG_COUNT) {
        ret->lang = SIM_LANG_PYTHON;
        ret->prose = strcmp(lang, "prose") == 0;
    }
    return true;
}

void sim_topic_find(struct sim_topic *ret, const struct sim_prompt *prompt)
{
    *ret = (struct sim_topic){.lang = SIM_LANG_COUNT};
    if (find_project(ret, prompt->own, prompt->own_len))
        return;
    const char *at = prompt->task, *end = at + prompt->task_len;
    char word[24];
    bool code = false;
    find_title(ret, prompt->task, prompt->task_len);
    find_package(ret);
    /* A long task says what it is about at its beginning. */
    if (end - at > 4000)
        end = at + 4000;
    while (next_word(&at, end, word)) {
        enum sim_lang lang = lang_of(word);
        if (ret->lang == SIM_LANG_COUNT)
            ret->lang = lang;
        code = code || lang != SIM_LANG_COUNT || is_one_of(word, code_words);
        ret->storage = ret->storage || is_one_of(word, storage_words);
    }
    ret->prose = !code;
    if (ret->lang == SIM_LANG_COUNT)
        ret->lang = SIM_LANG_PYTHON;
}

/* --- the plan ------------------------------------------------------------------------------ */

struct node {
    const char *id, *title, *role, *work;
    const char *deps[4];
};

static const struct node code_nodes[] = {
    {"design",
     "Design",
     "architect",
     "Design it: the parts, their names and their interfaces.",
     {0}},
    {"code", "Code", "coder", "Write the code, as the design fixes it.", {"design"}},
    {"tests",
     "Tests",
     "tester",
     "Write tests of the interfaces that the design fixes.",
     {"design"}},
    {"docs",
     "Documentation",
     "writer",
     "Write the documentation: what it is, how to use it.",
     {"design"}},
    {"review", "Review", "reviewer", "Review the code together with its tests.", {"code", "tests"}},
};
static const struct node storage_nodes[] = {
    {"design",
     "Design",
     "architect",
     "Design it: the parts, their names and their interfaces.",
     {0}},
    {"storage",
     "Storage plan",
     "architect",
     "Design how data is stored: format, file, errors.",
     {"design"}},
    {"code", "Code", "coder", "Write the code, as the designs fix it.", {"design", "storage"}},
    {"tests",
     "Tests",
     "tester",
     "Write tests of the interfaces that the design fixes.",
     {"design"}},
    {"docs",
     "Documentation",
     "writer",
     "Write the documentation: what it is, how to use it.",
     {"design"}},
    {"review",
     "Review",
     "reviewer",
     "Review the code together with its tests.",
     {"code", "tests", "storage"}},
};
static const struct node prose_nodes[] = {
    {"facts", "Facts", "researcher", "Gather the facts that the text needs.", {0}},
    {"outline", "Outline", "architect", "Outline the text: its parts and what each says.", {0}},
    {"draft",
     "Draft",
     "writer",
     "Write the text along the outline, with the facts.",
     {"facts", "outline"}},
    {"review", "Review", "reviewer", "Review the draft against the facts.", {"draft", "facts"}},
};

static void add_node(const struct node *node, const struct sim_topic *topic,
                     const struct sim_prompt *prompt, struct buf *out)
{
    struct buf text = {0};
    size_t len = prompt->task_len < MAX_TASK ? prompt->task_len : MAX_TASK;
    while (len > 0 && len < prompt->task_len && ((unsigned char)prompt->task[len] & 0xc0) == 0x80)
        len--; /* not in the middle of a character */
    buf_printf(&text, "%s\nProject: %s; package: %s; language: %s\n\n", node->work, topic->title,
               topic->package, topic->prose ? "prose" : sim_lang_name(topic->lang));
    buf_add_str(&text, "The task as it was given:\n");
    buf_add(&text, prompt->task, len);
    buf_printf(out, "{\"id\":\"%s\",\"title\":", node->id);
    char title[128];
    snprintf(title, sizeof title, "%s: %s", node->title, topic->title);
    buf_add_json(out, title, strlen(title));
    buf_printf(out, ",\"role\":\"%s\",\"prompt\":", node->role);
    buf_add_json(out, text.data, text.len);
    buf_add_str(out, ",\"depends_on\":[");
    for (size_t i = 0; i < 4 && node->deps[i] != NULL; i++)
        buf_printf(out, "%s\"%s\"", i > 0 ? "," : "", node->deps[i]);
    buf_add_str(out, "]}");
    buf_release(&text);
}

void sim_reply_plan(const struct sim_topic *topic, const struct sim_prompt *prompt, struct buf *out)
{
    const struct node *nodes = code_nodes;
    size_t count = sizeof code_nodes / sizeof *code_nodes;
    if (topic->prose) {
        nodes = prose_nodes;
        count = sizeof prose_nodes / sizeof *prose_nodes;
    } else if (topic->storage) {
        nodes = storage_nodes;
        count = sizeof storage_nodes / sizeof *storage_nodes;
    }
    char title[128];
    snprintf(title, sizeof title, "%s (simulated)", topic->title);
    buf_add_str(out, "{\"title\":");
    buf_add_json(out, title, strlen(title));
    buf_add_str(out, ",\"subtasks\":[");
    for (size_t i = 0; i < count; i++) {
        if (i > 0)
            buf_add_char(out, ',');
        add_node(&nodes[i], topic, prompt, out);
    }
    buf_add_str(out, "]}");
}
