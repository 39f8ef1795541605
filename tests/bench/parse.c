/* How fast streams are read, on one core: framing alone, and with the provider's event(), in pieces
 * as curl hands them over; beside what copying and searching the same bytes costs. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/bench/bench.h"
#include "workers/framing.h"
#include "workers/provider.h"

#define STREAM_BYTES ((size_t)4 * 1024 * 1024)
#define PIECE_BYTES 16384 /* CURL_MAX_WRITE_SIZE */
#define RUN_MS 400.0
#define GOAL_MB_S 500

/* One wire format: how its events begin and end around a text. */
struct format {
    const char *name, *api, *begin, *end;
};
static const struct format formats[] = {
    {"SSE anthropic", "anthropic",
     "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{"
     "\"type\":\"text_delta\",\"text\":\"",
     "\"}}\n\n"},
    {"SSE openai", "openai",
     "data: {\"id\":\"chatcmpl-CgKXZ1LT9bmyGQ\",\"object\":\"chat.completion.chunk\",\"created\":"
     "1795168800,\"model\":\"gpt-6-luna\",\"service_tier\":\"default\",\"system_fingerprint\":null,"
     "\"choices\":[{\"index\":0,\"delta\":{\"content\":\"",
     "\"},\"logprobs\":null,\"finish_reason\":null}],\"obfuscation\":\"aB3dE5\"}\n\n"},
    {"SSE gemini", "gemini", "data: {\"candidates\": [{\"content\": {\"parts\": [{\"text\": \"",
     "\"}],\"role\": \"model\"},\"index\": 0}],\"usageMetadata\": {\"promptTokenCount\": 8,"
     "\"candidatesTokenCount\": 7,\"totalTokenCount\": 15},\"modelVersion\": \"gemini-3.6-flash\","
     "\"responseId\": \"mYZ1aPqzKs\"}\r\n\r\n"},
    {"NDJSON ollama", "ollama",
     "{\"model\":\"qwen3:8b\",\"created_at\":\"2026-11-20T10:00:00.123456789Z\",\"message\":{"
     "\"role\":\"assistant\",\"content\":\"",
     "\"},\"done\":false}\n"},
};

/* Text as models write it: an escape in every 50 bytes, a letter that is no ASCII in 150. */
static void add_text(struct buf *out, size_t len, unsigned *random)
{
    static const char *const words[] = {"the ",
                                        "queue ",
                                        "holds ",
                                        "a ",
                                        "task, ",
                                        "which ",
                                        ".\\n\\n",
                                        "\\\"x\\\" ",
                                        "Gr\xc3\xb6\xc3\x9f"
                                        "e "};
    for (size_t from = out->len; out->len - from < len;) {
        *random = *random * 1664525 + 1013904223;
        unsigned pick = (*random >> 16) % 64;
        buf_add_str(out, words[pick < 7 ? 6 + pick / 3 : pick % 6]);
    }
}

static void make_stream(const struct format *format, size_t least, size_t most, struct buf *out)
{
    unsigned random = 7;
    while (out->len < STREAM_BYTES) {
        random = random * 1664525 + 1013904223;
        buf_add_str(out, format->begin);
        add_text(out, least + (random >> 8) % (most - least + 1), &random);
        buf_add_str(out, format->end);
    }
}

/* Time of this process on its core: what else runs on the machine takes none of it. */
static double cpu_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

struct reading {
    const struct provider *provider; /* NULL: framing alone */
    struct provider_reply reply;
    size_t events, bytes;
};

static bool take(void *ctx, const char *data, size_t len)
{
    struct reading *reading = ctx;
    reading->events++;
    reading->bytes += len;
    if (reading->provider != NULL)
        reading->provider->event(reading->provider, &reading->reply, data, len);
    return true;
}

static void read_once(struct reading *reading, enum provider_framing kind, const struct buf *bytes)
{
    struct framing framing;
    framing_init(&framing, kind);
    for (size_t at = 0; at < bytes->len; at += PIECE_BYTES) {
        size_t len = bytes->len - at < PIECE_BYTES ? bytes->len - at : PIECE_BYTES;
        framing_feed(&framing, bytes->data + at, len, take, reading);
    }
    framing_release(&framing);
    if (reading->provider != NULL && (reading->reply.text.len == 0 || reading->reply.error != 0))
        abort(); /* it was no stream */
    buf_clear(&reading->reply.text);
}

/* MB/s. */
static double reading_rate(const struct format *format, bool events, const struct buf *bytes)
{
    struct reading reading = {0};
    const struct provider *provider = provider_find(format->api);
    if (events)
        reading.provider = provider;
    provider_reply_init(&reading.reply);
    double started = cpu_ms(), ms = 0;
    size_t total = 0;
    for (; ms < RUN_MS; ms = cpu_ms() - started) {
        read_once(&reading, provider->framing, bytes);
        total += bytes->len;
    }
    provider_reply_release(&reading.reply);
    return (double)total / 1e3 / ms;
}

/* The floor: each byte is copied once, and each line's end is found once. */
static double floor_rate(const struct buf *bytes)
{
    char *copy = malloc(bytes->len);
    double started = cpu_ms(), ms = 0;
    size_t total = 0, lines = 0;
    for (; ms < RUN_MS; ms = cpu_ms() - started) {
        memcpy(copy, bytes->data, bytes->len);
        for (const char *at = copy, *end = copy + bytes->len; at < end; lines++) {
            at = memchr(at, '\n', (size_t)(end - at));
            at = at != NULL ? at + 1 : end;
        }
        total += bytes->len;
    }
    if (lines == 0)
        abort();
    free(copy);
    return (double)total / 1e3 / ms;
}

static void run_size(const struct format *format, const char *size, size_t least, size_t most)
{
    struct buf bytes = {0};
    make_stream(format, least, most, &bytes);
    double floor = floor_rate(&bytes);
    for (int events = 0; events < 2; events++) {
        double rate = reading_rate(format, events, &bytes);
        char name[64], goal[32];
        snprintf(name, sizeof name, "%s, %s%s", format->name, size, events ? ", event()" : "");
        snprintf(goal, sizeof goal, ">= %d MB/s", GOAL_MB_S);
        figure_print(&(struct figure){name, rate, "MB/s", "memcpy + memchr", floor, false, goal,
                                      rate >= GOAL_MB_S});
    }
    buf_release(&bytes);
}

static void run(void)
{
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        run_size(&formats[i], "tokens", 20, 100);
        run_size(&formats[i], "64 KiB", 65536, 65536);
    }
}

const struct benchmark benchmark_parse = {"parse", "how fast streams of SSE and NDJSON are read",
                                          run};
