#include "workers/news.h"

#include <stdio.h>
#include <string.h>

#include "workers/utf8.h"

#define CHUNK_BYTES ((size_t)60 * 1024) /* the message's limit is 64 KiB */

static void topic_make(char topic[TOPIC_MAX_BYTES], const char *task, const char *what)
{
    snprintf(topic, TOPIC_MAX_BYTES, "task.%s.%s", task, what);
}

void news_sub(struct peer *peer, const char *what, const struct record_facts *facts,
              struct bytes timing, const char *text)
{
    char topic[TOPIC_MAX_BYTES];
    if (peer == NULL)
        return;
    topic_make(topic, facts->task, what);
    if (!peer_wanted(peer, topic))
        return;
    struct message message = {.type = MESSAGE_sub_event,
                              .sub_event = {
                                  .task = facts->task,
                                  .sub = facts->sub,
                                  .what = what,
                                  .title = facts->title,
                                  .role = facts->role,
                                  .arm = facts->arm->name,
                                  .worker = facts->worker,
                                  .attempt = facts->attempt,
                                  .queue_ms = facts->queue_ms,
                                  .ttft_ms = -1,
                                  .prompt_tokens = -1,
                                  .output_tokens = -1,
                              }};
    struct message decoded = {0};
    if (timing.len > 0 &&
        message_decode_as(&decoded, MESSAGE_timing, timing.data, timing.len) == 0) {
        message.sub_event.error_class = decoded.timing.error_class;
        message.sub_event.error = decoded.timing.error;
        message.sub_event.ttft_ms = decoded.timing.ttft_ms;
        message.sub_event.total_ms = decoded.timing.total_ms;
        message.sub_event.prompt_tokens = decoded.timing.prompt_tokens;
        message.sub_event.output_tokens = decoded.timing.output_tokens;
        message.sub_event.cost_usd = decoded.timing.cost_usd;
    }
    char cut[512]; /* the message's limit */
    if (text != NULL) {
        size_t len = strlen(text);
        len = len < sizeof cut ? len : utf8_floor(text, len, sizeof cut - 1);
        snprintf(cut, sizeof cut, "%.*s", (int)len, text);
        message.sub_event.error = cut;
    }
    peer_event(peer, topic, &message);
    message_release(&decoded);
}

/* Length of the text without a last character of which bytes are missing. */
static size_t whole_characters(const char *text, size_t len)
{
    for (size_t back = 1; back <= 3 && back <= len; back++) {
        unsigned char c = (unsigned char)text[len - back];
        if (c < 0x80)
            return len;
        size_t need = c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : c >= 0xc0 ? 2 : 0;
        if (need > 0)
            return need > back ? len - back : len;
    }
    return len;
}

void news_chunk(struct peer *peer, const struct record_facts *facts,
                const struct provider_reply *reply, double elapsed_ms, size_t *at)
{
    char topic[TOPIC_MAX_BYTES];
    if (reply->text.len <= *at)
        return;
    topic_make(topic, facts->task, "chunk");
    if (peer == NULL || !peer_wanted(peer, topic)) {
        *at = reply->text.len;
        return;
    }
    size_t end = whole_characters(reply->text.data, reply->text.len);
    int64_t tokens = reply->output_tokens;
    if (tokens <= 0)
        tokens = (int64_t)(reply->text.len + reply->reasoning.len + 3) / 4;
    while (*at < end) {
        size_t len = utf8_floor(reply->text.data + *at, end - *at, CHUNK_BYTES);
        struct message message = {.type = MESSAGE_chunk,
                                  .chunk = {
                                      .task = facts->task,
                                      .sub = facts->sub,
                                      .attempt = facts->attempt,
                                      .text = {reply->text.data + *at, len},
                                      .tokens = tokens,
                                      .elapsed_ms = elapsed_ms,
                                  }};
        peer_event(peer, topic, &message);
        *at += len;
    }
}
