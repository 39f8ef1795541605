#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "orchestrator/render.h"
#include "schemas/mem.h"

#define MOST_COLUMNS 16

struct cell {
    char *text; /* harmless */
    int width;
};

struct render_table {
    const struct render_column *columns; /* borrowed */
    size_t n_columns;
    int widths[MOST_COLUMNS];
    struct cell *cells; /* row by row */
    size_t n_cells, room;
};

struct render_table *render_table_new(const struct render_column *columns)
{
    struct render_table *table = mem_must_zalloc(sizeof *table);
    table->columns = columns;
    while (columns[table->n_columns].title != NULL && table->n_columns < MOST_COLUMNS) {
        const char *title = columns[table->n_columns].title;
        table->widths[table->n_columns++] = render_width(title, strlen(title));
    }
    return table;
}

void render_table_add(struct render_table *table, const char *text)
{
    size_t column = table->n_cells % table->n_columns;
    if (table->n_cells == table->room) {
        table->room = table->room > 0 ? 2 * table->room : 64;
        table->cells = mem_must_realloc(table->cells, table->room * sizeof *table->cells);
    }
    int most = table->columns[column].most;
    struct buf safe = {0};
    struct cell *cell = &table->cells[table->n_cells++];
    cell->width = render_cut(&safe, text != NULL ? text : "", text != NULL ? strlen(text) : 0,
                             most > 0 ? most : 100000);
    cell->text = mem_must_strndup(safe.data != NULL ? safe.data : "", safe.len);
    if (cell->width > table->widths[column])
        table->widths[column] = cell->width;
    buf_release(&safe);
}

void render_table_addf(struct render_table *table, const char *format, ...)
{
    struct buf text = {0};
    va_list args;
    va_start(args, format);
    buf_vprintf(&text, format, args);
    va_end(args);
    render_table_add(table, text.data);
    buf_release(&text);
}

size_t render_table_rows(const struct render_table *table)
{
    return table->n_cells / table->n_columns;
}

static void print_cell(const struct render_table *table, FILE *stream, size_t column,
                       const char *text, int width)
{
    int fill = table->widths[column] - width;
    bool last = column + 1 == table->n_columns;
    if (column > 0)
        fputs("  ", stream);
    if (table->columns[column].right)
        fprintf(stream, "%*s%s", fill, "", text);
    else
        fprintf(stream, "%s%*s", text, last ? 0 : fill, "");
    if (last)
        fputc('\n', stream);
}

void render_table_print(struct render_table **table, FILE *stream, int indent)
{
    struct render_table *t = *table;
    for (size_t i = 0; i < t->n_columns; i++) {
        const char *title = t->columns[i].title;
        fprintf(stream, "%*s", i == 0 ? indent : 0, "");
        print_cell(t, stream, i, title, render_width(title, strlen(title)));
    }
    for (size_t i = 0; i < t->n_cells; i++) {
        size_t column = t->n_columns > 0 ? i % t->n_columns : 0;
        fprintf(stream, "%*s", column == 0 ? indent : 0, "");
        print_cell(t, stream, column, t->cells[i].text, t->cells[i].width);
        free(t->cells[i].text);
    }
    free(t->cells);
    free(t);
    *table = NULL;
}
