/* Out of memory at every allocation, one after the other, of every parser of outside input: a clean
 * refusal, or the same result as with memory; never a crash, never half of it, and nothing is left
 * behind (which the leak checker sees). The inputs are the fuzzers' corpora. Allocations
 * of libyaml and jansson are not among them: the latter drops digits when one fails. */
#include <dirent.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/config.h"
#include "common/invitation.h"
#include "orchestrator/files.h"
#include "orchestrator/plan.h"
#include "schemas/mem.h"
#include "schemas/message.h"
#include "workers/framing.h"
#include "workers/json_view.h"
#include "workers/provider.h"
#include "workers/rate_headers.h"
#include "workers/search_engine.h"
#include "workers/spool_record.h"

/* Reads the input, with the k-th allocation failing; what came out of it is written into `out` with
 * memory again. 0, or a negative errno, which a sentence goes with where the parser has one. */
typedef int parse_fn(const char *data, size_t len, unsigned long k, struct buf *out);

static void add_sentence(const struct err *err, int rc)
{
    if (rc != 0)
        assert_true(err->text[0] != '\0');
}

/* --- messages --------------------------------------------------------------------------------- */

static int parse_message(const char *data, size_t len, unsigned long k, struct buf *out)
{
    struct message message;
    const char *topic = NULL;
    bool event = frame_is_event(data, len);
    mem_fail_at(k);
    int rc =
        event ? event_decode(&message, &topic, data, len) : message_decode(&message, data, len);
    mem_fail_at(0);
    if (rc != 0)
        return rc;
    message_print_json(&message, topic, out);
    message_release(&message);
    return 0;
}

static int parse_invitation(const char *data, size_t len, unsigned long k, struct buf *out)
{
    struct message message;
    struct err err = {""};
    if (len == 0 || *data != 't')
        return -EINVAL;
    mem_fail_at(k);
    int rc = invitation_read(&message, data + 1, len - 1, &err);
    mem_fail_at(0);
    add_sentence(&err, rc);
    if (rc != 0)
        return rc;
    assert_int_equal(invitation_write_as(&message.invitation, out), 0);
    message_release(&message);
    return 0;
}

static int parse_spool(const char *data, size_t len, unsigned long k, struct buf *out)
{
    struct spool_record record;
    mem_fail_at(k);
    ssize_t used = spool_record_decode(&record, data, len);
    mem_fail_at(0);
    if (used < 0)
        return -EBADMSG;
    buf_printf(out, "%d %s %s %s", (int)record.kind, record.task, record.sub, record.token);
    return 0;
}

/* --- answers of providers --------------------------------------------------------------------- */

static bool hear(void *ctx, const char *data, size_t len)
{
    struct buf *heard = ctx; /* has room already */
    buf_printf(heard, "%zu:%.*s|", len, (int)len, data);
    return true;
}

static int parse_framing(const char *data, size_t len, unsigned long k, struct buf *out)
{
    struct framing framing;
    if (len < 2)
        return -EINVAL;
    buf_reserve(out, 64 * 1024);
    framing_init(&framing, *data % 2 == 0 ? PROVIDER_NDJSON : PROVIDER_SSE);
    mem_fail_at(k);
    int rc = 0;
    for (size_t at = 2; at < len && rc == 0; at += 5)
        rc = framing_feed(&framing, data + at, len - at < 5 ? len - at : 5, hear, out);
    if (rc == 0)
        rc = framing_end(&framing, hear, out);
    mem_fail_at(0);
    framing_release(&framing);
    return rc;
}

static bool add_view(struct json_view view, struct buf *text)
{
    struct json_view key, value;
    if (view.kind == JSON_VIEW_STRING)
        return json_view_text(view, text);
    if (view.kind != JSON_VIEW_OBJECT && view.kind != JSON_VIEW_ARRAY)
        return true;
    bool whole = true;
    while (json_view_next(&view, view.kind == JSON_VIEW_OBJECT ? &key : NULL, &value))
        whole = add_view(value, text) && whole;
    return whole;
}

static int parse_view(const char *data, size_t len, unsigned long k, struct buf *out)
{
    struct json_view view;
    struct buf text = {0};
    mem_fail_at(k);
    int rc = json_view_parse(&view, data, len) ? 0 : -EBADMSG;
    bool whole = rc == 0 && add_view(view, &text);
    mem_fail_at(0);
    if (rc == 0 && !whole)
        assert_true(text.failed);
    if (rc == 0 && text.failed)
        rc = -ENOMEM;
    if (rc == 0)
        buf_add(out, text.data != NULL ? text.data : "", text.len);
    buf_release(&text);
    return rc;
}

struct feeding {
    const struct provider *provider;
    struct provider_reply *reply;
};

static bool feed(void *ctx, const char *data, size_t len)
{
    struct feeding *feeding = ctx;
    feeding->provider->event(feeding->provider, feeding->reply, data, len);
    return true;
}

static int stream(const struct provider *provider, struct provider_reply *reply, const char *data,
                  size_t len)
{
    struct feeding feeding = {provider, reply};
    struct framing framing;
    framing_init(&framing, provider->framing);
    int rc = framing_feed(&framing, data, len, feed, &feeding);
    if (rc == 0)
        rc = framing_end(&framing, feed, &feeding);
    framing_release(&framing);
    return rc;
}

static void failure(const struct provider *provider, struct provider_reply *reply, const char *data,
                    size_t len)
{
    struct http_headers headers = {0};
    http_headers_add(&headers, "retry-after: 5", 14);
    provider->failure(provider, reply, 429, &headers, data, len);
    http_headers_release(&headers);
}

/* As fuzz_provider.c reads its input. */
static int parse_provider(const char *data, size_t len, unsigned long k, struct buf *out)
{
    size_t n;
    const struct provider *const *table = provider_table(&n);
    if (len < 3)
        return -EINVAL;
    const struct provider *provider = table[(uint8_t)(data[0] - 'a') % n];
    char how = data[1];
    size_t skip = how == 'e' ? 3 : 2;
    struct provider_call call = {.kind = how == 'e'   ? PROVIDER_EMBED
                                         : how == 'l' ? PROVIDER_LIST
                                                      : PROVIDER_CHAT,
                                 .responses = how == 'r' || how == 'R',
                                 .n_inputs = how == 'e' ? (uint8_t)(data[2] - '0') % 16 : 0,
                                 .max_tokens = 5};
    struct provider_reply reply;
    provider_reply_init(&reply);
    provider_reply_expect(&reply, &call);
    mem_fail_at(k);
    int rc = 0;
    if (how == 's' || how == 'r')
        rc = stream(provider, &reply, data + skip, len - skip);
    else if (how == 'f')
        failure(provider, &reply, data + skip, len - skip);
    else
        provider->body(provider, &reply, data + skip, len - skip);
    if (rc == 0)
        provider->end(provider, &reply);
    mem_fail_at(0);
    if (rc == 0 && reply.error != CLASS_NONE) {
        assert_true(reply.error_text[0] != '\0');
        rc = -EBADMSG;
    }
    if (rc == 0)
        buf_printf(out, "%.*s|%.*s|%lld", (int)reply.text.len,
                   reply.text.data != NULL ? reply.text.data : "", (int)reply.reasoning.len,
                   reply.reasoning.data != NULL ? reply.reasoning.data : "",
                   (long long)reply.output_tokens);
    provider_reply_release(&reply);
    return rc;
}

static int parse_headers(const char *data, size_t len, unsigned long k, struct buf *out)
{
    struct http_headers headers = {0};
    struct governor_server server;
    const char *end;
    mem_fail_at(k);
    for (; len > 0 && (end = memchr(data, '\n', len)) != NULL;
         len -= (size_t)(end - data) + 1, data = end + 1)
        http_headers_add(&headers, data, (size_t)(end - data));
    rate_headers_read(&server, &headers, 1795100000000);
    mem_fail_at(0);
    int rc = headers.pairs.failed ? -ENOMEM : 0;
    buf_printf(out, "%lld %lld", (long long)server.limit_requests, (long long)server.limit_tokens);
    http_headers_release(&headers);
    return rc;
}

static int parse_search(const char *data, size_t len, unsigned long k, struct buf *out)
{
    static const char *const engines[] = {"duckduckgo", "searxng", "google"};
    struct search_hits hits = {.max = SEARCH_MAX_RESULTS};
    struct err err = {""};
    if (len == 0 || *data % 4 == 3)
        return -EINVAL;
    mem_fail_at(k);
    int rc = search_engine_find(engines[*data % 4])->parse(200, data + 1, len - 1, &hits, &err);
    mem_fail_at(0);
    add_sentence(&err, rc);
    for (size_t i = 0; rc == 0 && i < hits.n; i++)
        buf_printf(out, "%s %s %s|", hits.items[i].title, hits.items[i].url, hits.items[i].snippet);
    search_hits_release(&hits);
    return rc;
}

/* --- what people and models write ------------------------------------------------------------- */

static struct config_role roles[] = {{.name = "writer", .system = "You write.", .temperature = -1}};
static struct config_model models[] = {{.alias = "sonnet"}};
static struct config config = {.path = "t.yaml",
                               .max_subtasks = 20,
                               .max_attempts = 3,
                               .roles = roles,
                               .n_roles = 1,
                               .models = models,
                               .n_models = 1};

static int parse_plan(const char *data, size_t len, unsigned long k, struct buf *out)
{
    struct plan *plan = NULL;
    struct err err = {""};
    if (len == 0)
        return -EINVAL;
    mem_fail_at(k);
    int rc = *data == 'f' ? plan_parse_file(&plan, &config, "p.yaml", data + 1, len - 1, &err)
                          : plan_parse_answer(&plan, &config, data + 1, len - 1, &err);
    mem_fail_at(0);
    add_sentence(&err, rc);
    assert_true((rc == 0) == (plan != NULL));
    for (size_t i = 0; plan != NULL && i < plan->n_subtasks; i++) {
        const struct plan_subtask *subtask = &plan->subtasks[i];
        buf_printf(out, "%s %s %s %s %s %zu|", subtask->id, subtask->title, subtask->role,
                   subtask->model, subtask->prompt, subtask->n_deps);
    }
    plan_free(&plan);
    return rc;
}

static int parse_files(const char *data, size_t len, unsigned long k, struct buf *out)
{
    struct files *files = files_new();
    mem_fail_at(k);
    files_scan(files, "one", data, len);
    files_settle(files);
    mem_fail_at(0);
    for (size_t i = 0; i < files->n_entries; i++) {
        const struct files_entry *entry = &files->entries[i];
        buf_printf(out, "%s %.*s %zu|", entry->path, (int)entry->len,
                   entry->data != NULL ? entry->data : "", entry->n_edits);
    }
    int rc = 0; /* its sentences are its problems */
    for (size_t i = 0; i < files->n_problems; i++)
        rc = strcmp(files->problems[i].why, "memory is out") == 0 ? -ENOMEM : rc;
    buf_printf(out, "%zu problems", files->n_problems);
    files_free(&files);
    return rc;
}

static int parse_config(const char *data, size_t len, unsigned long k, struct buf *out)
{
    struct config *read = NULL;
    struct err err = {""};
    if (len > 2000) /* test_config has a large one */
        return -EINVAL;
    mem_fail_at(k);
    int rc = config_parse(&read, "t.yaml", data, len, &err);
    mem_fail_at(0);
    add_sentence(&err, rc);
    if (rc == 0)
        config_print(read, out);
    config_free(&read);
    return rc;
}

/* --- the table -------------------------------------------------------------------------------- */

static const struct {
    const char *name, *corpus;
    parse_fn *parse;
} parsers[] = {
    {"messages and events", "fuzz_message", parse_message},
    {"invitations", "fuzz_invitation", parse_invitation},
    {"spool records", "fuzz_spool", parse_spool},
    {"framing", "fuzz_framing", parse_framing},
    {"views of JSON", "fuzz_json_view", parse_view},
    {"answers of providers", "fuzz_provider", parse_provider},
    {"headers", "fuzz_headers", parse_headers},
    {"results of searches", "fuzz_search", parse_search},
    {"plans", "fuzz_plan", parse_plan},
    {"file blocks", "fuzz_files", parse_files},
    {"configuration, YAML", "fuzz_config", parse_config},
};

#define INPUT_MAX ((size_t)64 * 1024)
#define ALLOCATIONS_MAX 20000UL

/* Returns at how many places it was made to fail. */
static unsigned long fail_everywhere(parse_fn *parse, const char *what, const char *data,
                                     size_t len)
{
    struct buf whole = {0}, out = {0};
    int with_memory = parse(data, len, 0, &whole);
    unsigned long k = 1;
    for (bool reached = true; reached; k++) {
        buf_clear(&out);
        int rc = parse(data, len, k, &out);
        reached = mem_fail_reached();
        assert_true(k < ALLOCATIONS_MAX);
        if (rc != 0 && reached)
            continue;
        if (rc != with_memory || out.len != whole.len ||
            (out.len > 0 && memcmp(out.data, whole.data, out.len) != 0))
            fail_msg("%s: another result when allocation %lu fails (%d): %.*s", what, k, rc,
                     (int)(out.len < 300 ? out.len : 300), out.data);
    }
    buf_release(&whole);
    buf_release(&out);
    return k - 2;
}

static unsigned long fail_file(parse_fn *parse, const char *path)
{
    static char data[INPUT_MAX];
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    size_t len = fread(data, 1, sizeof data, file);
    fclose(file);
    char *exact = malloc(len > 0 ? len : 1);
    memcpy(exact, data, len);
    unsigned long places = fail_everywhere(parse, path, exact, len);
    free(exact);
    return places;
}

static void without_memory_every_parser_refuses_or_gives_the_same(void **state)
{
    (void)state;
    const char *source = getenv("ORCH_SOURCE");
    assert_non_null(source);
    for (size_t i = 0; i < sizeof parsers / sizeof *parsers; i++) {
        char dir[1024], path[2048];
        unsigned long places = 0;
        snprintf(dir, sizeof dir, "%s/tests/fuzz/corpus/%s", source, parsers[i].corpus);
        DIR *files = opendir(dir);
        assert_non_null(files);
        for (struct dirent *entry; (entry = readdir(files)) != NULL;) {
            snprintf(path, sizeof path, "%s/%s", dir, entry->d_name);
            if (entry->d_name[0] != '.')
                places += fail_file(parsers[i].parse, path);
        }
        closedir(files);
        print_message("%-22s %6lu allocations failed\n", parsers[i].name, places);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_memory_every_parser_refuses_or_gives_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
