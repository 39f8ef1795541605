/* Text for a terminal: harmless, measured in columns, cut to fit; numbers for people; tables. */
#ifndef ORCHESTRATOR_RENDER_H
#define ORCHESTRATOR_RENDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "schemas/buf.h"

struct render_terminal {
    bool live;   /* a terminal that can move its cursor */
    bool tty;    /* a terminal at all: what a model wrote must be made harmless */
    bool color;  /* live, and NO_COLOR is not set */
    int columns; /* 80 where unknown */
    int rows;    /* 24 where unknown */
};
/* Looks at the descriptor, TERM, NO_COLOR; ask again after a resize. */
struct render_terminal render_terminal(int fd);

/* Appends text made harmless: escape sequences are removed, other control characters and marks
 * that turn the direction of writing become U+FFFD, as do bytes that are no UTF-8. Lines and tabs
 * stay; with one_line they become spaces. */
void render_safe(struct buf *out, const char *text, size_t len, bool one_line);
/* How many bytes from the start are valid UTF-8; len when all are. */
size_t render_utf8_valid(const char *text, size_t len);
/* Columns that harmless one-line text takes on a terminal. */
int render_width(const char *text, size_t len);
/* Appends one line of text made harmless and cut to at most `columns` columns, the last of them
 * "…" when something was cut. Returns the columns used. */
int render_cut(struct buf *out, const char *text, size_t len, int columns);
/* The same, filled up with spaces to exactly `columns`. */
void render_fit(struct buf *out, const char *text, size_t len, int columns);

/* "850 ms", "12.3 s", "4 min 05 s", "3 h 20 min"; "-" for less than 0. */
void render_duration(struct buf *out, double ms);
/* "512 B", "3.4 KiB", "12 MiB". */
void render_bytes(struct buf *out, uint64_t bytes);
/* "2025-11-20 18:43:05", local time; "-" for 0. */
void render_time(struct buf *out, int64_t wall_ms);

/* A table whose columns are as wide as their contents; cells are made harmless. */
struct render_table;
struct render_column {
    const char *title;
    bool right; /* numbers */
    int most;   /* columns at most, the rest is cut; 0: no limit */
};
/* columns: ended by a row without title; borrowed. */
struct render_table *render_table_new(const struct render_column *columns);
void render_table_add(struct render_table *table, const char *text); /* the next cell; NULL: "" */
void render_table_addf(struct render_table *table, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
size_t render_table_rows(const struct render_table *table);
/* Prints titles and rows, each line indented by `indent` spaces, and frees the table. */
void render_table_print(struct render_table **table, FILE *stream, int indent);

/* Writes what a model wrote: as it is to a file or pipe, harmless to a terminal; ends the line. */
void render_model_text(FILE *stream, const char *text, size_t len);

#endif
