#include <errno.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bus.h"
#include "common/clock.h"
#include "common/containers.h"
#include "common/peer.h"
#include "orchestrator/client.h"
#include "orchestrator/render.h"
#include "orchestrator/stack.h"
#include "orchestrator/tap_record.h"
#include "schemas/mem.h"

#define FLUSH_MS 100 /* what was printed is seen after this at the latest */
#define REOPEN_MIN_MS 1000
#define REOPEN_MAX_MS 60000
#define SILENT_MS 8000 /* how long nothing may come before that is said */

static const struct command_option options[] = {
    {"json", 0, NULL, "print one JSON object a line", false},
    {"record", 0, "FILE", "append the events to FILE, as JSON lines", false},
    {"count", 'n', "N", "leave after N events", false},
    {"timeout", 't', "S", "leave after S seconds", false},
    {0},
};

/* What the last event of a source was: numbers that are missing were lost on the way. */
struct source {
    char *name;
    int64_t sequence;
    UT_hash_handle hh;
};

struct tap;

/* At one broker. One that does not know our key (yet) lets nothing through, and zmq gives up then:
 * what stays silent is opened anew. */
struct outlet {
    struct tap *tap;
    struct bus *bus;
    bool heard;
    int64_t opened_ms, wait_ms;
};

struct tap {
    struct client client;
    const char *pattern; /* NULL: every topic */
    bool glob;
    bool all; /* subscribed to everything: gaps in numbers are losses */
    bool json;
    bool tty;
    int64_t count, left; /* left: events until the end; count 0: no limit */
    bool over;           /* the end */
    bool stopped;        /* by a signal, or because nobody reads */
    struct source *sources;
    struct tap_record *record;
    struct outlet *outlets;
    size_t n_outlets;
    char *prefix; /* of the topics subscribed to */
    bool told;    /* that nothing comes */
    struct buf line;
};

/* --- events -------------------------------------------------------------------------------------
 */

static void check_gap(struct tap *tap, const struct message *message)
{
    struct source *source;
    if (!tap->all || message->sequence <= 0 || *message->source == '\0')
        return;
    HASH_FIND_STR(tap->sources, message->source, source);
    if (source == NULL) {
        source = mem_must_zalloc(sizeof *source);
        source->name = mem_must_strdup(message->source);
        source->sequence = message->sequence;
        HASH_ADD_KEYPTR(hh, tap->sources, source->name, strlen(source->name), source);
        return;
    }
    int64_t missed = message->sequence - source->sequence - 1;
    if (missed > 0)
        fprintf(stderr, "missed %lld event%s of %s\n", (long long)missed, missed == 1 ? "" : "s",
                source->name);
    source->sequence = message->sequence; /* a lower one: the source was started again */
}

static void print_event(struct tap *tap, const struct message *message, const char *topic)
{
    struct buf *line = &tap->line;
    buf_clear(line);
    if (tap->json || tap->record != NULL)
        message_print_json(message, topic, line);
    if (tap->record != NULL)
        tap_record_add(tap->record, line->data, line->len);
    if (!tap->json) {
        buf_clear(line);
        message_print_line(message, topic, line);
    }
    if (tap->tty) {
        struct buf safe = {0};
        render_safe(&safe, line->data, line->len, true);
        fwrite(safe.data, 1, safe.len, stdout);
        buf_release(&safe);
    } else {
        fwrite(line->data, 1, line->len, stdout);
    }
    putchar('\n');
}

static bool wanted(const struct tap *tap, const char *topic)
{
    if (tap->pattern == NULL)
        return true;
    if (!tap->glob)
        return strncmp(topic, tap->pattern, strlen(tap->pattern)) == 0;
    return fnmatch(tap->pattern, topic, 0) == 0;
}

static void frame_came(void *ctx, const struct bus_peer *peer, const uint8_t *data, size_t len)
{
    struct outlet *outlet = ctx;
    struct tap *tap = outlet->tap;
    struct message message;
    const char *topic;
    (void)peer;
    outlet->heard = true;
    if (tap->over)
        return;
    if (event_decode(&message, &topic, data, len) != 0) {
        fputs("skipped an event that cannot be read: is the sender of another version?\n", stderr);
        return;
    }
    check_gap(tap, &message);
    if (wanted(tap, topic)) {
        print_event(tap, &message, topic);
        tap->over = tap->count > 0 && --tap->left == 0;
    }
    message_release(&message);
}

static void flush_due(void *ctx)
{
    struct tap *tap = ctx;
    uint64_t dropped = tap->record != NULL ? tap_record_dropped(tap->record) : 0;
    if (dropped > 0)
        fprintf(stderr, "%llu event%s not recorded: the disk is too slow or refuses\n",
                (unsigned long long)dropped, dropped == 1 ? " was" : "s were");
    if (fflush(stdout) != 0 || ferror(stdout))
        tap->stopped = tap->over = true;
}

static void stop_signalled(void *ctx, int signal_number)
{
    struct tap *tap = ctx;
    (void)signal_number;
    tap->stopped = tap->over = true;
}

/* --- opening ------------------------------------------------------------------------------------
 */

/* The part of a glob that every match begins with. */
static char *literal_prefix(const char *pattern)
{
    return mem_must_strndup(pattern, strcspn(pattern, "*?[\\"));
}

static int outlet_open(struct outlet *outlet, const char *endpoint, struct err *err)
{
    struct tap *tap = outlet->tap;
    struct bus_keys store;
    struct bus_options socket = {.kind = BUS_SUB, .endpoint = endpoint, .subscribe = tap->prefix};
    int rc = peer_keys(tap->client.config, "tap", &store, &socket.keys, err);
    if (rc == 0)
        rc = bus_open(&outlet->bus, &tap->client.loop, &socket, frame_came, outlet, err);
    explicit_bzero(&store, sizeof store);
    outlet->opened_ms = clock_ms();
    return rc;
}

static void reopen_silent(void *ctx)
{
    struct tap *tap = ctx;
    const struct config *config = tap->client.config;
    struct err err = {0};
    for (size_t i = 0; i < tap->n_outlets; i++) {
        struct outlet *outlet = &tap->outlets[i];
        if (outlet->heard || clock_ms() - outlet->opened_ms < outlet->wait_ms)
            continue;
        if (outlet->wait_ms >= SILENT_MS && !tap->told) {
            fprintf(stderr,
                    "nothing comes from %s: perhaps nothing happens, perhaps it does not let this "
                    "key in (`orchestrator keys list` where it was invited)\n",
                    config->taps[i]);
            tap->told = true;
        }
        bus_close(&outlet->bus);
        if (outlet_open(outlet, config->taps[i], &err) != 0)
            fprintf(stderr, "%s\n", err.text);
        outlet->wait_ms = outlet->wait_ms < REOPEN_MAX_MS / 2 ? 2 * outlet->wait_ms : REOPEN_MAX_MS;
    }
}

static int tap_open(struct tap *tap, const struct invocation *invocation)
{
    const struct config *config = tap->client.config;
    const char *file = invocation_value(invocation, "record");
    struct err err = {0};
    if (file != NULL && tap_record_open(&tap->record, &tap->client.loop, file, &err) != 0)
        return command_fail(invocation, EXIT_USAGE, "%s", err.text);
    tap->prefix = literal_prefix(tap->pattern != NULL ? tap->pattern : "");
    tap->glob = tap->pattern != NULL && strlen(tap->prefix) < strlen(tap->pattern);
    tap->all = *tap->prefix == '\0';
    tap->outlets = mem_must_zalloc((config->n_brokers + 1) * sizeof *tap->outlets);
    int code = EXIT_DONE;
    for (size_t i = 0; code == EXIT_DONE && i < config->n_brokers; i++) {
        tap->outlets[i] = (struct outlet){.tap = tap, .wait_ms = REOPEN_MIN_MS};
        tap->n_outlets = i + 1;
        if (outlet_open(&tap->outlets[i], config->taps[i], &err) != 0)
            code = command_fail(invocation, EXIT_UNREACHABLE, "%s", err.text);
    }
    if (config->broker_local && !stack_running(config))
        fputs("the local stack does not run: waiting for it (`orchestrator up -d` starts it)\n",
              stderr);
    return code;
}

static int tap_close(struct tap *tap, const struct invocation *invocation, int code)
{
    struct source *source, *next;
    struct err err = {0};
    for (size_t i = 0; i < tap->n_outlets; i++)
        bus_close(&tap->outlets[i].bus);
    free(tap->outlets);
    free(tap->prefix);
    if (tap_record_close(&tap->record, &err) != 0)
        code = command_fail(invocation, EXIT_FAILED, "%s", err.text);
    HASH_ITER (hh, tap->sources, source, next) {
        HASH_DEL(tap->sources, source);
        free(source->name);
        free(source);
    }
    buf_release(&tap->line);
    return code;
}

static int listen_until(struct tap *tap, const struct invocation *invocation, int64_t timeout_ms)
{
    struct loop_timer *flush = loop_timer_new(&tap->client.loop, flush_due, tap);
    struct loop_timer *reopen = loop_timer_new(&tap->client.loop, reopen_silent, tap);
    if (tap->client.config->curve)
        loop_timer_start(reopen, REOPEN_MIN_MS, REOPEN_MIN_MS);
    loop_on_stop(&tap->client.loop, stop_signalled, tap);
    loop_timer_start(flush, FLUSH_MS, FLUSH_MS);
    bool late = loop_run_until(&tap->client.loop, &tap->over, timeout_ms) != 0;
    loop_stop_release(&tap->client.loop);
    loop_timer_free(&flush);
    loop_timer_free(&reopen);
    if (late && tap->count > 0)
        return command_fail(invocation, EXIT_STOPPED, "%lld of %lld events came in time",
                            (long long)(tap->count - tap->left), (long long)tap->count);
    return EXIT_DONE;
}

static int exec(struct invocation *invocation)
{
    const char *const *args;
    struct tap tap = {.json = invocation_has(invocation, "json"),
                      .tty = render_terminal(fileno(stdout)).tty};
    int64_t timeout_ms = -1;
    if (invocation_args(invocation, &args) > 0)
        tap.pattern = args[0];
    if (invocation_int(invocation, "count", 1, INT64_MAX, &tap.count) < 0 ||
        invocation_seconds(invocation, "timeout", &timeout_ms) < 0)
        return EXIT_USAGE;
    tap.left = tap.count;
    int code = client_open(&tap.client, invocation);
    if (code != EXIT_DONE)
        return code;
    code = tap_open(&tap, invocation);
    if (code == EXIT_DONE)
        code = listen_until(&tap, invocation, timeout_ms);
    code = tap_close(&tap, invocation, code);
    client_close(&tap.client);
    return code;
}

const struct command command_tap = {
    .name = "tap",
    .args = "[PATTERN]",
    .summary = "the bus, live: events as they happen",
    .details =
        "PATTERN is the beginning of a topic (task.t0abc) or, with * ? or [], a pattern of the "
        "whole "
        "topic.\nTopics are task.ID.WHAT, worker.NAME.WHAT and broker.WHAT; docs/messages.md has "
        "them all.\nWithout a pattern (or with one that begins with *), gaps in the numbers of a "
        "source are\nreported: a slow tap loses events, it never slows the work.\n"
        "Exit code 4 when --timeout passed before --count events came.\n\n"
        "examples:\n  orchestrator tap 'task.*.done'\n"
        "  orchestrator tap --json --record events.jsonl\n",
    .options = options,
    .max_args = 1,
    .exec = exec,
};
