/* Events about attempts, for taps. Nothing is built that no tap wants. */
#ifndef WORKERS_NEWS_H
#define WORKERS_NEWS_H

#include "common/peer.h"
#include "workers/record.h"

/* what: running, done, retry, dead, cached, mismatch, budget. timing: the encoded record; len 0
 * while it runs. text: for people; NULL: the error of the record. A NULL peer publishes nothing. */
void news_sub(struct peer *peer, const char *what, const struct record_facts *facts,
              struct bytes timing, const char *text);

/* Publishes what has been appended to the text since *at, in pieces that end between characters,
 * and moves *at; text that no tap wants is skipped. A character that is not complete stays for the
 * next time. */
void news_chunk(struct peer *peer, const struct record_facts *facts,
                const struct provider_reply *reply, double elapsed_ms, size_t *at);

#endif
