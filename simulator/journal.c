#include "simulator/journal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/containers.h"
#include "schemas/mem.h"
#include "simulator/family.h"

#define MAX_PROMPTS 262144 /* distinct prompts counted; later ones are only counted together */
#define MAX_MODELS 1000
#define MAX_LISTED 1000 /* repeated prompts listed in the statistics */
#define MAX_STATUS 600

struct entry {
    uint64_t seq; /* 0: empty */
    int64_t time_ms;
    const char *api, *dialect;
    char method[8], path[96], model[128], task[40], sub[72];
    char prompt[200];
    size_t prompt_len;
    uint64_t prompt_hash;
    bool stream;
    int rule, status;
    enum sim_outcome outcome;
    int64_t prompt_tokens, output_tokens;
    int64_t billed_prompt_tokens, billed_output_tokens;
    int64_t max_tokens, images, seed;
    bool embed, has_seed;
    char stop[96]; /* the strings that end the answer, as JSON */
    double ms;
};

struct counts {
    int64_t requests;
    int64_t outcomes[SIM_OUTCOME_COUNT];
    int64_t prompt_tokens, output_tokens;
    int64_t billed_prompt_tokens, billed_output_tokens;
};

struct model {
    char name[128];
    struct counts counts;
    UT_hash_handle hh;
};

struct prompt {
    uint64_t hash;
    uint32_t requests, completed;
    UT_hash_handle hh;
};

struct sim_journal {
    struct entry *ring; /* SIM_JOURNAL_MAX of them */
    uint64_t seq;       /* last number given */
    uint64_t reset_seq; /* numbers up to here are forgotten */
    int64_t in_flight, peak_in_flight, other, untracked;
    struct counts total;
    struct counts families[SIM_FAMILY_MAX];
    int64_t statuses[MAX_STATUS];
    struct model *models;
    struct prompt *prompts;
};

static const char *const outcome_names[] = {
#define X(constant, name) name,
    SIM_OUTCOMES(X)
#undef X
};

struct sim_journal *sim_journal_new(void)
{
    struct sim_journal *journal = mem_must_zalloc(sizeof *journal);
    journal->ring = mem_must_zalloc(SIM_JOURNAL_MAX * sizeof *journal->ring);
    return journal;
}

static void forget_tables(struct sim_journal *journal)
{
    struct model *model, *next_model;
    HASH_ITER (hh, journal->models, model, next_model) {
        HASH_DEL(journal->models, model);
        free(model);
    }
    struct prompt *prompt, *next_prompt;
    HASH_ITER (hh, journal->prompts, prompt, next_prompt) {
        HASH_DEL(journal->prompts, prompt);
        free(prompt);
    }
}

void sim_journal_free(struct sim_journal **ref)
{
    struct sim_journal *journal = *ref;
    *ref = NULL;
    if (journal == NULL)
        return;
    forget_tables(journal);
    free(journal->ring);
    free(journal);
}

void sim_journal_reset(struct sim_journal *journal)
{
    forget_tables(journal);
    memset(journal->ring, 0, SIM_JOURNAL_MAX * sizeof *journal->ring);
    struct entry *ring = journal->ring;
    uint64_t seq = journal->seq;
    int64_t in_flight = journal->in_flight;
    *journal = (struct sim_journal){.ring = ring,
                                    .seq = seq,
                                    .reset_seq = seq,
                                    .in_flight = in_flight,
                                    .peak_in_flight = in_flight};
}

void sim_journal_other(struct sim_journal *journal)
{
    journal->other++;
}

/* --- counting ------------------------------------------------------------------------------ */

/* NULL past the limit, and for names that are empty. */
static struct model *model_of(struct sim_journal *journal, const char *name)
{
    struct model *model = NULL;
    char key[sizeof model->name];
    snprintf(key, sizeof key, "%s", name);
    HASH_FIND_STR(journal->models, key, model);
    if (model != NULL || key[0] == '\0' || HASH_COUNT(journal->models) >= MAX_MODELS)
        return model;
    model = mem_must_zalloc(sizeof *model);
    memcpy(model->name, key, sizeof key);
    HASH_ADD_STR(journal->models, name, model);
    return model;
}

static struct prompt *prompt_of(struct sim_journal *journal, uint64_t hash)
{
    struct prompt *prompt = NULL;
    HASH_FIND(hh, journal->prompts, &hash, sizeof hash, prompt);
    if (prompt != NULL || hash == 0)
        return prompt;
    if (HASH_COUNT(journal->prompts) >= MAX_PROMPTS) {
        journal->untracked++;
        return NULL;
    }
    prompt = mem_must_zalloc(sizeof *prompt);
    prompt->hash = hash;
    HASH_ADD(hh, journal->prompts, hash, sizeof hash, prompt);
    return prompt;
}

static struct counts *family_of(struct sim_journal *journal, const struct sim_family *family)
{
    size_t count;
    const struct sim_family *const *table = sim_family_table(&count);
    size_t i = 0;
    while (i + 1 < count && table[i] != family)
        i++;
    return &journal->families[i];
}

/* What was asked besides, where each API has it. */
static void fill_options(struct entry *entry, const struct sim_request *request)
{
    static const char *const seeds[] = {"seed", "generationConfig.seed", "generation_config.seed",
                                        "options.seed"};
    for (size_t i = 0; i < sizeof seeds / sizeof *seeds; i++) {
        const json_t *seed = json_path(request->root, seeds[i]);
        entry->has_seed |= json_is_integer(seed);
        entry->seed = json_is_integer(seed) ? json_integer_value(seed) : entry->seed;
    }
    size_t len = request->stop != NULL ? json_dumpb(request->stop, entry->stop, sizeof entry->stop,
                                                    JSON_COMPACT | JSON_ENCODE_ANY)
                                       : 0;
    snprintf(entry->stop + (len < sizeof entry->stop ? len : 0),
             sizeof entry->stop - (len < sizeof entry->stop ? len : 0), "%s",
             len == 0 || len >= sizeof entry->stop ? "null" : "");
    entry->max_tokens = request->max_tokens;
    entry->images = request->images;
    entry->embed = request->embed;
}

static void fill(struct entry *entry, const struct sim_request *request, const char *task,
                 const char *sub)
{
    entry->api = request->family->name;
    entry->dialect =
        request->family == &sim_family_openai || request->family->base == &sim_family_openai
            ? sim_dialect_name(request->dialect)
            : "";
    snprintf(entry->method, sizeof entry->method, "%s", request->method);
    snprintf(entry->path, sizeof entry->path, "%s", request->path);
    snprintf(entry->model, sizeof entry->model, "%s", request->model);
    snprintf(entry->task, sizeof entry->task, "%s", task != NULL ? task : "");
    snprintf(entry->sub, sizeof entry->sub, "%s", sub != NULL ? sub : "");
    size_t len = request->prompt.len;
    entry->prompt_len = len < sizeof entry->prompt ? len : sizeof entry->prompt;
    if (entry->prompt_len > 0)
        memcpy(entry->prompt, request->prompt.data, entry->prompt_len);
    /* Not in the middle of a character. */
    while (entry->prompt_len < len && entry->prompt_len > 0 &&
           ((unsigned char)request->prompt.data[entry->prompt_len] & 0xc0) == 0x80)
        entry->prompt_len--;
    entry->prompt_hash = request->prompt_hash;
    entry->prompt_tokens = request->prompt_tokens;
    entry->stream = request->stream;
    fill_options(entry, request);
}

uint64_t sim_journal_begin(struct sim_journal *journal, const struct sim_request *request,
                           const char *task, const char *sub, int rule)
{
    uint64_t seq = ++journal->seq;
    struct entry *entry = &journal->ring[seq % SIM_JOURNAL_MAX];
    *entry = (struct entry){.seq = seq, .time_ms = clock_wall_ms(), .rule = rule};
    fill(entry, request, task, sub);
    if (++journal->in_flight > journal->peak_in_flight)
        journal->peak_in_flight = journal->in_flight;
    struct model *model = model_of(journal, request->model);
    struct prompt *prompt = prompt_of(journal, request->prompt_hash);
    journal->total.requests++;
    family_of(journal, request->family)->requests++;
    if (model != NULL)
        model->counts.requests++;
    if (prompt != NULL)
        prompt->requests++;
    return seq;
}

static void count_end(struct counts *counts, const struct sim_ending *ending)
{
    counts->outcomes[ending->outcome]++;
    if (ending->outcome == SIM_OUTCOME_COMPLETED)
        counts->prompt_tokens += ending->request->prompt_tokens;
    counts->output_tokens += ending->output_tokens;
    counts->billed_prompt_tokens += ending->billed_prompt_tokens;
    counts->billed_output_tokens += ending->billed_output_tokens;
}

void sim_journal_end(struct sim_journal *journal, const struct sim_ending *ending)
{
    journal->in_flight--;
    if (ending->seq <= journal->reset_seq)
        return;
    struct entry *entry = &journal->ring[ending->seq % SIM_JOURNAL_MAX];
    if (entry->seq == ending->seq) {
        entry->status = ending->status;
        entry->outcome = ending->outcome;
        entry->output_tokens = ending->output_tokens;
        entry->billed_prompt_tokens = ending->billed_prompt_tokens;
        entry->billed_output_tokens = ending->billed_output_tokens;
        entry->ms = ending->ms;
    }
    const struct sim_request *request = ending->request;
    struct model *model = model_of(journal, request->model);
    struct prompt *prompt = NULL;
    HASH_FIND(hh, journal->prompts, &request->prompt_hash, sizeof request->prompt_hash, prompt);
    count_end(&journal->total, ending);
    count_end(family_of(journal, request->family), ending);
    if (model != NULL)
        count_end(&model->counts, ending);
    if (prompt != NULL && ending->outcome == SIM_OUTCOME_COMPLETED)
        prompt->completed++;
    if (ending->status >= 0 && ending->status < MAX_STATUS)
        journal->statuses[ending->status]++;
}

/* --- printing ------------------------------------------------------------------------------ */

static void add_text(struct buf *out, const char *name, const char *text)
{
    buf_printf(out, ",\"%s\":", name);
    buf_add_json(out, text, strlen(text));
}

static void print_entry(const struct entry *entry, struct buf *out)
{
    buf_printf(out, "{\"seq\":%llu,\"time_ms\":%lld", (unsigned long long)entry->seq,
               (long long)entry->time_ms);
    add_text(out, "api", entry->api);
    add_text(out, "dialect", entry->dialect);
    add_text(out, "method", entry->method);
    add_text(out, "path", entry->path);
    add_text(out, "model", entry->model);
    add_text(out, "task", entry->task);
    add_text(out, "subtask", entry->sub);
    buf_printf(out, ",\"stream\":%s,\"prompt_hash\":\"%016llx\",\"prompt\":",
               entry->stream ? "true" : "false", (unsigned long long)entry->prompt_hash);
    buf_add_json(out, entry->prompt, entry->prompt_len);
    buf_printf(out, ",\"embed\":%s,\"max_tokens\":%lld,\"images\":%lld,\"stop\":%s,\"seed\":",
               entry->embed ? "true" : "false", (long long)entry->max_tokens,
               (long long)entry->images, entry->stop);
    if (entry->has_seed)
        buf_printf(out, "%lld", (long long)entry->seed);
    else
        buf_add_str(out, "null");
    buf_printf(out,
               ",\"rule\":%d,\"status\":%d,\"outcome\":\"%s\",\"prompt_tokens\":%lld,"
               "\"output_tokens\":%lld,\"billed_prompt_tokens\":%lld,"
               "\"billed_output_tokens\":%lld,\"ms\":%.3f}",
               entry->rule, entry->status, outcome_names[entry->outcome],
               (long long)entry->prompt_tokens, (long long)entry->output_tokens,
               (long long)entry->billed_prompt_tokens, (long long)entry->billed_output_tokens,
               entry->ms);
}

void sim_journal_print(const struct sim_journal *journal, uint64_t after, int64_t limit,
                       struct buf *out)
{
    uint64_t oldest = journal->seq > SIM_JOURNAL_MAX ? journal->seq - SIM_JOURNAL_MAX : 0;
    uint64_t from = after > oldest ? after : oldest;
    if (from < journal->reset_seq)
        from = journal->reset_seq;
    bool first = true;
    buf_add_char(out, '[');
    for (uint64_t seq = from + 1; seq <= journal->seq && limit > 0; seq++, limit--) {
        if (!first)
            buf_add_str(out, ",\n");
        first = false;
        print_entry(&journal->ring[seq % SIM_JOURNAL_MAX], out);
    }
    buf_add_str(out, "]\n");
}

static void print_counts(const struct counts *counts, struct buf *out)
{
    buf_printf(out,
               "\"requests\":%lld,\"completed\":%lld,\"cut\":%lld,\"faults\":%lld,"
               "\"limited\":%lld,\"prompt_tokens\":%lld,\"output_tokens\":%lld,"
               "\"billed_prompt_tokens\":%lld,\"billed_output_tokens\":%lld",
               (long long)counts->requests, (long long)counts->outcomes[SIM_OUTCOME_COMPLETED],
               (long long)counts->outcomes[SIM_OUTCOME_CUT],
               (long long)counts->outcomes[SIM_OUTCOME_FAULT],
               (long long)counts->outcomes[SIM_OUTCOME_LIMITED], (long long)counts->prompt_tokens,
               (long long)counts->output_tokens, (long long)counts->billed_prompt_tokens,
               (long long)counts->billed_output_tokens);
}

static void print_named(const char *name, const struct counts *counts, bool first, struct buf *out)
{
    if (!first)
        buf_add_char(out, ',');
    buf_add_json(out, name, strlen(name));
    buf_add_str(out, ":{");
    print_counts(counts, out);
    buf_add_char(out, '}');
}

static void print_repeated(const struct sim_journal *journal, struct buf *out)
{
    int64_t repeated = 0, paid_twice = 0;
    buf_add_str(out, ",\"repeated\":[");
    for (const struct prompt *prompt = journal->prompts; prompt != NULL; prompt = prompt->hh.next) {
        paid_twice += prompt->completed > 1;
        if (prompt->requests < 2)
            continue;
        if (repeated++ < MAX_LISTED)
            buf_printf(out, "%s{\"prompt_hash\":\"%016llx\",\"requests\":%u,\"completed\":%u}",
                       repeated > 1 ? "," : "", (unsigned long long)prompt->hash, prompt->requests,
                       prompt->completed);
    }
    buf_printf(out,
               "],\"distinct_prompts\":%u,\"repeated_prompts\":%lld,\"completed_twice\":%lld,"
               "\"untracked\":%lld",
               HASH_COUNT(journal->prompts), (long long)repeated, (long long)paid_twice,
               (long long)journal->untracked);
}

void sim_journal_print_stats(const struct sim_journal *journal, int64_t connections,
                             struct buf *out)
{
    size_t count;
    const struct sim_family *const *families = sim_family_table(&count);
    buf_add_char(out, '{');
    print_counts(&journal->total, out);
    buf_printf(out,
               ",\"in_flight\":%lld,\"peak_in_flight\":%lld,\"connections\":%lld,"
               "\"other_requests\":%lld,\"by_api\":{",
               (long long)journal->in_flight, (long long)journal->peak_in_flight,
               (long long)connections, (long long)journal->other);
    for (size_t i = 0; i < count; i++)
        print_named(families[i]->name, &journal->families[i], i == 0, out);
    buf_add_str(out, "},\"by_model\":{");
    for (const struct model *model = journal->models; model != NULL; model = model->hh.next)
        print_named(model->name, &model->counts, model == journal->models, out);
    buf_add_str(out, "},\"by_status\":{");
    bool first = true;
    for (int status = 0; status < MAX_STATUS; status++) {
        if (journal->statuses[status] == 0)
            continue;
        buf_printf(out, "%s\"%d\":%lld", first ? "" : ",", status,
                   (long long)journal->statuses[status]);
        first = false;
    }
    buf_add_char(out, '}');
    print_repeated(journal, out);
    buf_add_str(out, "}\n");
}
