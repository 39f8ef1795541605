/* The text of an answer, when the scenario does not give it: rules of thumb that plan, write small
 * files, review and summarize, so that a whole task runs without any model. The same request always
 * gets the same text, and every text says that it is simulated. */
#ifndef SIMULATOR_REPLY_H
#define SIMULATOR_REPLY_H

#include "simulator/request.h"

/* X(constant, name of the role, words of a system prompt's first sentence, words of a prompt's)
 * In order of preference: a "test engineer" is a tester, though engineers write code. */
#define SIM_ROLES(X)                                                                               \
    X(SYNTHESIZER, "synthesizer", "synthes|turn the results|combine the results",                  \
      "synthes|combine the results")                                                               \
    X(REVIEWER, "reviewer", "review|critic", "review|check the")                                   \
    X(TESTER, "tester", "test", "write tests|test ")                                               \
    X(RESEARCHER, "researcher", "research", "research|gather|find out|collect")                    \
    X(ARCHITECT, "architect", "architect|design", "design|outline|specify")                        \
    X(WRITER, "writer", "writer|writes|document", "document|readme|describe|essay|draft|explain")  \
    X(CODER, "coder", "programmer|coder|code|developer|engineer",                                  \
      "code|implement|program|write a|build|create|develop")

enum sim_role {
#define X(constant, name, system, prompt) SIM_ROLE_##constant,
    SIM_ROLES(X)
#undef X
        SIM_ROLE_COUNT
};

enum sim_lang {
    SIM_LANG_PYTHON,
    SIM_LANG_C,
    SIM_LANG_HTML,
    SIM_LANG_JAVASCRIPT,
    SIM_LANG_SHELL,
    SIM_LANG_COUNT
};
const char *sim_lang_name(enum sim_lang lang);

/* What a task is about, from its words. */
struct sim_topic {
    char title[81];   /* "command line todo app in Python" */
    char package[41]; /* "command_line_todo": letters, digits and _ */
    enum sim_lang lang;
    bool prose;   /* to be written, not programmed */
    bool storage; /* it keeps data */
};

/* A prompt of the orchestrator, taken apart (see workers/compose.h for its headings). */
struct sim_prompt {
    const char *task; /* the whole task where it is told, else the prompt itself; borrowed */
    size_t task_len;
    const char *own; /* this subtask's part; borrowed */
    size_t own_len;
    const char *results[64]; /* the texts after "## Result of ", up to the next heading; borrowed */
    size_t result_lens[64];
    size_t n_results;
};

void sim_prompt_split(struct sim_prompt *ret, const struct buf *prompt);
void sim_topic_find(struct sim_topic *ret, const struct sim_prompt *prompt);
/* SIM_ROLE_COUNT: none fits. */
enum sim_role sim_role_find(const struct sim_request *request, const struct sim_prompt *prompt);

/* Appends the built-in answer. */
void sim_reply_builtin(const struct sim_request *request, struct buf *out);
/* Appends `tokens` pieces of text. */
void sim_reply_filler(int64_t tokens, struct buf *out);

/* The parts of the above. */
void sim_reply_plan(const struct sim_topic *topic, const struct sim_prompt *prompt,
                    struct buf *out);
void sim_reply_files(enum sim_role role, const struct sim_topic *topic, struct buf *out);
/* A smallest value that follows the JSON schema. */
void sim_reply_schema(const json_t *schema, struct buf *out);

/* Length of the next piece ("token") of a text: white space and at most 12 bytes of a word, never
 * cut inside a character; 0 only at the end. */
size_t sim_piece(const char *text, size_t len);

#endif
