/* Made-up embeddings: the same text always gets the same vector, and texts that share words get
 * vectors that are near each other. */
#ifndef SIMULATOR_VECTORS_H
#define SIMULATOR_VECTORS_H

#include <stddef.h>
#include <stdint.h>

#include "common/json.h"
#include "schemas/buf.h"

#define SIM_VECTORS_DIMENSIONS 256 /* when the request does not say how many */
#define SIM_VECTORS_MAX_DIMENSIONS 4096

/* Appends a JSON array of numbers, of length 1. */
void sim_vector_add(const char *text, size_t len, int64_t dimensions, struct buf *out);
/* Appends one line, ended by \n, for each text of a list, or for the one string. */
void sim_vectors_add(const json_t *texts, int64_t dimensions, struct buf *out);
/* Walks through such lines: *at starts as their beginning. NULL at the end. */
const char *sim_vectors_next(const char **at, const char *end, size_t *ret_len);

#endif
