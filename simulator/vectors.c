#include "simulator/vectors.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "schemas/mem.h"
#include "simulator/request.h"

#define NUMBERS_OF_WORD 8 /* so many places of the vector a word has a part in */

/* Each word adds to a few places that its hash chooses. */
static void add_word(double *vector, size_t dimensions, const char *word, size_t len)
{
    char lower[64];
    if (len > sizeof lower)
        len = sizeof lower;
    for (size_t i = 0; i < len; i++)
        lower[i] = (char)tolower((unsigned char)word[i]);
    uint64_t state = sim_hash(lower, len, SIM_HASH_SEED);
    for (int i = 0; i < NUMBERS_OF_WORD; i++) {
        size_t place = (size_t)(sim_random(&state) % dimensions);
        vector[place] += 2 * sim_random_unit(&state) - 1;
    }
}

void sim_vector_add(const char *text, size_t len, int64_t dimensions, struct buf *out)
{
    size_t n = dimensions > 0 ? (size_t)dimensions : SIM_VECTORS_DIMENSIONS;
    double *vector = mem_must_zalloc(n * sizeof *vector), sum = 0;
    const char *at = text, *end = text + len;
    while (at < end) {
        const char *word = at;
        while (at < end && !isspace((unsigned char)*at))
            at++;
        if (at > word)
            add_word(vector, n, word, (size_t)(at - word));
        at++;
    }
    for (size_t i = 0; i < n; i++)
        sum += vector[i] * vector[i];
    if (sum <= 0) {
        vector[0] = 1;
        sum = 1;
    }
    for (size_t i = 0; i < n; i++) {
        buf_add_char(out, i == 0 ? '[' : ',');
        if (vector[i] == 0)
            buf_add_char(out, '0');
        else
            buf_printf(out, "%.7g", vector[i] / sqrt(sum));
    }
    buf_add_char(out, ']');
    free(vector);
}

static void add_text(const json_t *text, int64_t dimensions, struct buf *out)
{
    if (!json_is_string(text))
        return;
    sim_vector_add(json_string_value(text), json_string_length(text), dimensions, out);
    buf_add_char(out, '\n');
}

void sim_vectors_add(const json_t *texts, int64_t dimensions, struct buf *out)
{
    size_t i;
    json_t *text;
    if (json_is_array(texts))
        json_array_foreach (texts, i, text)
            add_text(text, dimensions, out);
    else
        add_text(texts, dimensions, out);
}

const char *sim_vectors_next(const char **at, const char *end, size_t *ret_len)
{
    const char *line = *at;
    const char *line_end = line < end ? memchr(line, '\n', (size_t)(end - line)) : NULL;
    if (line_end == NULL)
        return NULL;
    *ret_len = (size_t)(line_end - line);
    *at = line_end + 1;
    return line;
}
