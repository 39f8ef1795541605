/* A file that events are appended to without waiting for its disk. */
#ifndef ORCHESTRATOR_TAP_RECORD_H
#define ORCHESTRATOR_TAP_RECORD_H

#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "common/loop.h"

/* Lines wait in memory while a thread of libuv's pool writes: past this much, they are dropped and
 * counted, so that a slow disk costs events, not memory and not the bus. */
#define TAP_RECORD_MOST ((size_t)64 * 1024 * 1024)

struct tap_record;

int tap_record_open(struct tap_record **ret, uv_loop_t *loop, const char *path, struct err *err);
/* A line, without its newline. */
void tap_record_add(struct tap_record *record, const char *line, size_t len);
/* Lines dropped since the last call. */
uint64_t tap_record_dropped(struct tap_record *record);
/* Writes what waits, syncs and closes. 0, or the first error of all writing, with a sentence.
 * Accepts NULL. */
int tap_record_close(struct tap_record **record, struct err *err);

#endif
