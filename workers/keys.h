/* A provider's keys: where they come from, whose turn it is, and keeping them out of sight. */
#ifndef WORKERS_KEYS_H
#define WORKERS_KEYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "common/loop.h"

#define KEY_MAX_BYTES ((size_t)8 * 1024)
#define KEY_COMMAND_MS 10000 /* most time a cmd: source may take */

/* One key's value, shared by the calls that use it; its bytes are wiped with the last reference. */
struct key;
const char *key_value(const struct key *key); /* NULL for a NULL key */
/* What people and other processes may see of it: the same for the same value on all machines, and
 * no help to whoever looks for the value. "" for a NULL key. */
#define KEY_FINGERPRINT_SIZE 13
const char *key_fingerprint(const struct key *key);
struct key *key_keep(struct key *key); /* one more reference; accepts NULL */
void key_drop(struct key **key);       /* accepts NULL */
/* Replaces every occurrence of the value in the text by ***, in place, and so its beginning where
 * the text was cut; accepts NULL keys. */
void key_scrub(const struct key *key, char *text);

/* Reads one source: "env:NAME", "file:PATH" (its first line) or "cmd:COMMAND" (first line that
 * /bin/sh -c COMMAND prints, within KEY_COMMAND_MS). Spaces around it do not count. Blocks. 0;
 * -ENOENT, -EINVAL, -ETIMEDOUT or another negative errno, with a sentence that never has the key.
 */
int key_read(struct key **ret, const char *source, struct err *err);

/* A pool of keys: those of its sources that could be read, in the order of the sources. Which one a
 * call uses is decided elsewhere, by its place in the pool (governor.h). */
struct keys;
/* They were read again: the pool may hold others now. */
typedef void keys_changed_fn(void *ctx);
/* Reads all sources, which are copied. Some that fail are logged; when all fail, the first one's
 * errno and sentence, unless the pool may be empty. n == 0 is a pool without keys. Blocks: call it
 * before the loop runs. */
int keys_open(struct keys **ret, uv_loop_t *loop, const char *const *sources, size_t n,
              bool may_be_empty, struct err *err);
void keys_close(struct keys **keys); /* accepts NULL; the loop must run once more afterwards */
size_t keys_count(const struct keys *keys);
/* The key at that place, with a reference for the caller; places wrap around. NULL when the pool is
 * empty. */
struct key *keys_at(const struct keys *keys, size_t place);
/* Where the key of that fingerprint comes from, such as "env:NAME"; of a command only "cmd:", whose
 * words may be secret. "" when no key has it. */
const char *keys_source(const struct keys *keys, const char *fingerprint);
/* Reads all sources again beside the loop, then calls changed(), which may be NULL; a source that
 * fails now keeps its former value. Asked for while it reads, it reads once more. */
void keys_reload(struct keys *keys, keys_changed_fn *changed, void *ctx);

#endif
