#include "simulator/reply.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#define PIECE_BYTES 12
#define PIECE_SPACE 16

static const struct {
    const char *name, *system, *prompt;
} roles[] = {
#define X(constant, role, in_system, in_prompt) {role, in_system, in_prompt},
    SIM_ROLES(X)
#undef X
};

/* --- taking a prompt apart ----------------------------------------------------------------- */

static void section_add(struct sim_prompt *ret, const char *text, size_t len)
{
    static const char result[] = "Result of ", whole[] = "The whole task", own[] = "Your subtask";
    const char *line_end = memchr(text, '\n', len);
    size_t head = line_end != NULL ? (size_t)(line_end - text) + 1 : len;
    if (len >= sizeof result - 1 && memcmp(text, result, sizeof result - 1) == 0) {
        if (ret->n_results < sizeof ret->results / sizeof *ret->results) {
            ret->results[ret->n_results] = text + sizeof result - 1;
            ret->result_lens[ret->n_results++] = len - (sizeof result - 1);
        }
    } else if (len >= sizeof whole - 1 && memcmp(text, whole, sizeof whole - 1) == 0) {
        ret->task = text + head;
        ret->task_len = len - head;
    } else if (len >= sizeof own - 1 && memcmp(text, own, sizeof own - 1) == 0) {
        ret->own = text + head;
        ret->own_len = len - head;
    }
}

/* Start of the next heading this module knows, or the end. */
static const char *next_heading(const char *at, const char *end)
{
    static const char *const headings[] = {"## Result of ", "## The whole task", "## Your subtask"};
    const char *nearest = end;
    for (size_t i = 0; i < sizeof headings / sizeof *headings; i++) {
        const char *found = memmem(at, (size_t)(end - at), headings[i], strlen(headings[i]));
        if (found != NULL && found < nearest)
            nearest = found;
    }
    return nearest;
}

void sim_prompt_split(struct sim_prompt *ret, const struct buf *prompt)
{
    *ret = (struct sim_prompt){0};
    const char *text = prompt->data != NULL ? prompt->data : "";
    const char *end = text + prompt->len;
    const char *heading = next_heading(text, end);
    ret->own = text;
    ret->own_len = (size_t)(heading - text);
    while (heading < end) {
        const char *next = next_heading(heading + 3, end);
        section_add(ret, heading + 3, (size_t)(next - heading) - 3);
        heading = next;
    }
    if (ret->task == NULL) {
        ret->task = ret->own;
        ret->task_len = ret->own_len;
    }
}

/* Whether one of the words, separated by |, is in the text, whatever its case. */
static bool has_word(const char *words, const char *text)
{
    while (*words != '\0') {
        size_t len = strcspn(words, "|");
        char word[64];
        snprintf(word, sizeof word, "%.*s", (int)len, words);
        if (strcasestr(text, word) != NULL)
            return true;
        words += len + (words[len] == '|');
    }
    return false;
}

/* The first sentence, which tells the role; also where it goes on for too long. */
static void first_sentence(char *ret, size_t size, const char *text, size_t len)
{
    while (len > 0 && isspace((unsigned char)*text))
        text++, len--;
    size_t n = 0;
    while (n < len && n < size - 1 && text[n] != '\n' &&
           !(text[n] == '.' && (n + 1 == len || isspace((unsigned char)text[n + 1]))))
        n++;
    while (n > 0 && n < len && ((unsigned char)text[n] & 0xc0) == 0x80)
        n--; /* not in the middle of a character */
    if (n > 0)
        memcpy(ret, text, n);
    ret[n] = '\0';
}

enum sim_role sim_role_find(const struct sim_request *request, const struct sim_prompt *prompt)
{
    char system[201], own[201];
    first_sentence(system, sizeof system, request->system.data, request->system.len);
    first_sentence(own, sizeof own, prompt->own, prompt->own_len);
    for (int i = 0; i < SIM_ROLE_COUNT; i++)
        if (has_word(roles[i].system, system))
            return (enum sim_role)i;
    if (prompt->n_results > 1 && prompt->own_len < 40)
        return SIM_ROLE_SYNTHESIZER;
    for (int i = 0; i < SIM_ROLE_COUNT; i++)
        if (has_word(roles[i].prompt, own))
            return (enum sim_role)i;
    return prompt->n_results > 1 ? SIM_ROLE_SYNTHESIZER : SIM_ROLE_COUNT;
}

static bool wants_plan(const struct sim_request *request)
{
    if (json_path(request->schema, "properties.subtasks") != NULL)
        return true;
    return request->system.data != NULL && strcasestr(request->system.data, "decompose") != NULL;
}

/* --- answers for people -------------------------------------------------------------------- */

/* "Title (id)" of a result: its first line. */
static void add_result_name(struct buf *out, const struct sim_prompt *prompt, size_t i)
{
    const char *text = prompt->results[i];
    const char *end = memchr(text, '\n', prompt->result_lens[i]);
    size_t len = end != NULL ? (size_t)(end - text) : prompt->result_lens[i];
    buf_add(out, text, len < 120 ? len : 120);
}

static size_t count_files(const char *text, size_t len)
{
    size_t count = 0;
    const char *end = text + len;
    while (text < end && (text = memmem(text, (size_t)(end - text), " path=", 6)) != NULL) {
        text += 6;
        count++;
    }
    return count;
}

static void add_results(struct buf *out, const struct sim_prompt *prompt, const char *verdict)
{
    for (size_t i = 0; i < prompt->n_results; i++) {
        buf_add_str(out, "- ");
        add_result_name(out, prompt, i);
        size_t files = count_files(prompt->results[i], prompt->result_lens[i]);
        buf_printf(out, ": %zu bytes, %zu file%s%s\n", prompt->result_lens[i], files,
                   files == 1 ? "" : "s", verdict);
    }
}

static void reply_review(const struct sim_topic *topic, const struct sim_prompt *prompt,
                         struct buf *out)
{
    buf_printf(out, "Review of %s (simulated).\n\nLooked at:\n", topic->title);
    add_results(out, prompt, ", complete and readable");
    if (prompt->n_results == 0)
        buf_add_str(out, "- the prompt alone: no results were handed over\n");
    buf_add_str(out, "\nNo finding: names and paths agree with one another. A rule of thumb wrote "
                     "this, not a model.\n\nverdict: accept\n");
}

static void reply_synthesis(const struct sim_topic *topic, const struct sim_prompt *prompt,
                            struct buf *out)
{
    buf_printf(out, "# %s\n\n(simulated) The work is done. It is made of:\n\n", topic->title);
    add_results(out, prompt, "");
    buf_add_str(out, "\nThe files of these results belong together and are stored already.\n");
}

static void reply_notes(enum sim_role role, const struct sim_topic *topic,
                        const struct sim_prompt *prompt, struct buf *out)
{
    if (role == SIM_ROLE_ARCHITECT)
        buf_printf(out,
                   "Design of %s (simulated).\n\n- `%s` holds the logic: add, list and remove "
                   "entries, each a short text.\n- Names are kept in the order they were added; "
                   "an unknown name is an error, not a crash.\n- Language: %s. Every file's name "
                   "starts with `%s`.\n",
                   topic->title, topic->package, sim_lang_name(topic->lang), topic->package);
    else
        buf_printf(out,
                   "Notes on %s (simulated).\n\n- Established: nothing, since no source was "
                   "read.\n- Likely: the task asks for a short, structured text.\n- Unknown: all "
                   "facts. A real model would answer here.\n",
                   topic->title);
    if (prompt->n_results > 0)
        buf_add_str(out, "\nBuilt on:\n");
    add_results(out, prompt, "");
}

static void reply_plain(const struct sim_request *request, const struct sim_prompt *prompt,
                        struct buf *out)
{
    char sentence[121];
    first_sentence(sentence, sizeof sentence, prompt->own, prompt->own_len);
    buf_printf(out, "(simulated) No model runs here. You asked %s: \"%s\".", request->model,
               sentence);
}

void sim_reply_builtin(const struct sim_request *request, struct buf *out)
{
    struct sim_prompt prompt;
    struct sim_topic topic;
    sim_prompt_split(&prompt, &request->prompt);
    sim_topic_find(&topic, &prompt);
    if (wants_plan(request)) {
        sim_reply_plan(&topic, &prompt, out);
        return;
    }
    if (request->schema != NULL) {
        sim_reply_schema(request->schema, out);
        return;
    }
    if (request->json_mode) {
        buf_add_str(out, "{\"answer\":\"(simulated)\"}");
        return;
    }
    enum sim_role role = sim_role_find(request, &prompt);
    if (role == SIM_ROLE_SYNTHESIZER)
        reply_synthesis(&topic, &prompt, out);
    else if (role == SIM_ROLE_REVIEWER)
        reply_review(&topic, &prompt, out);
    else if (role == SIM_ROLE_ARCHITECT || role == SIM_ROLE_RESEARCHER)
        reply_notes(role, &topic, &prompt, out);
    else if (role == SIM_ROLE_COUNT)
        reply_plain(request, &prompt, out);
    else
        sim_reply_files(role, &topic, out);
}

void sim_reply_filler(int64_t tokens, struct buf *out)
{
    static const char *const words[] = {" a",      " word",  " of",  " filler", " text",
                                        " stands", " where", " a",   " model",  " would",
                                        " have",   " put",   " its", " own",    " answer."};
    if (tokens > 0)
        buf_add_str(out, "(simulated)");
    for (int64_t i = 1; i < tokens; i++)
        buf_add_str(out, words[(size_t)i % (sizeof words / sizeof *words)]);
}

size_t sim_piece(const char *text, size_t len)
{
    size_t n = 0, word = 0;
    while (n < len && n < PIECE_SPACE && isspace((unsigned char)text[n]))
        n++;
    while (n < len && word < PIECE_BYTES && !isspace((unsigned char)text[n]))
        n++, word++;
    while (n < len && ((unsigned char)text[n] & 0xc0) == 0x80)
        n++;
    return n;
}
