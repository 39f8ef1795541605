#include "common/yaml.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "schemas/mem.h"

/* Nodes and texts are cut from chunks and freed together. */
struct chunk {
    struct chunk *next;
    size_t used, size;
    max_align_t data[];
};

struct yaml {
    struct chunk *chunks;
    char *name;
    struct yaml_node *root;
    size_t n_nodes;
};

/* A collection that is being read. */
struct level {
    struct yaml_node *node;
    struct yaml_node *last;
    struct yaml_node *key; /* read, its value has not come yet */
};

struct reader {
    struct yaml *yaml;
    yaml_parser_t parser;
    const char *text;
    size_t len;
    struct level levels[YAML_MAX_DEPTH];
    int depth;
    struct err *err;
};

static void *arena_take(struct yaml *yaml, size_t size)
{
    size = (size + sizeof(max_align_t) - 1) / sizeof(max_align_t) * sizeof(max_align_t);
    struct chunk *chunk = yaml->chunks;
    if (chunk == NULL || chunk->size - chunk->used < size) {
        size_t room = size > 16384 ? size : 16384;
        chunk = mem_alloc(sizeof *chunk + room);
        if (chunk == NULL)
            return NULL;
        *chunk = (struct chunk){.next = yaml->chunks, .size = room};
        yaml->chunks = chunk;
    }
    void *memory = (char *)chunk->data + chunk->used;
    chunk->used += size;
    return memory;
}

static int fail_at(const char *name, int line, int column, struct err *err, int rc,
                   const char *format, va_list args)
{
    if (err == NULL)
        return rc;
    char what[sizeof err->text];
    vsnprintf(what, sizeof what, format, args);
    return err_set(err, rc, "%s:%d:%d: %s", name, line, column, what);
}

static int reader_fail(struct reader *reader, yaml_mark_t mark, int rc, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

static int reader_fail(struct reader *reader, yaml_mark_t mark, int rc, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    rc = fail_at(reader->yaml->name, (int)mark.line + 1, (int)mark.column + 1, reader->err, rc,
                 format, args);
    va_end(args);
    return rc;
}

int yaml_fail(const struct yaml *yaml, const struct yaml_node *at, struct err *err,
              const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int rc = fail_at(yaml->name, at->line, at->column, err, -EINVAL, format, args);
    va_end(args);
    return rc;
}

static int out_of_memory(struct reader *reader)
{
    return err_set(reader->err, -ENOMEM, "%s: out of memory", reader->yaml->name);
}

/* libyaml tells where bytes are wrong only by their offset. */
static yaml_mark_t mark_of_offset(const struct reader *reader, size_t offset)
{
    yaml_mark_t mark = {0};
    for (size_t i = 0; i < offset && i < reader->len; i++) {
        if (reader->text[i] == '\n') {
            mark.line++;
            mark.column = 0;
        } else if (((unsigned char)reader->text[i] & 0xc0) != 0x80) {
            mark.column++;
        }
    }
    return mark;
}

static int syntax_error(struct reader *reader)
{
    const yaml_parser_t *parser = &reader->parser;
    if (parser->error == YAML_MEMORY_ERROR)
        return out_of_memory(reader);
    const char *problem = parser->problem != NULL ? parser->problem : "not understood";
    if (parser->error == YAML_READER_ERROR)
        return reader_fail(reader, mark_of_offset(reader, parser->problem_offset), -EINVAL,
                           "not valid UTF-8 text: %s", problem);
    if (parser->context != NULL && parser->context_mark.line != parser->problem_mark.line)
        return reader_fail(reader, parser->problem_mark, -EINVAL, "%s, %s that began in line %d",
                           problem, parser->context, (int)parser->context_mark.line + 1);
    return reader_fail(reader, parser->problem_mark, -EINVAL, "%s", problem);
}

static int compare_keys(const void *left, const void *right)
{
    const struct yaml_node *a = *(const struct yaml_node *const *)left;
    const struct yaml_node *b = *(const struct yaml_node *const *)right;
    int order = strcmp(a->text, b->text);
    if (order != 0)
        return order;
    /* The later one is the duplicate. */
    return a->line != b->line ? a->line - b->line : a->column - b->column;
}

static int reject_duplicate_keys(struct reader *reader, const struct yaml_node *map)
{
    if (map->count < 2)
        return 0;
    const struct yaml_node **keys = mem_alloc(map->count * sizeof *keys);
    if (keys == NULL)
        return out_of_memory(reader);
    size_t n = 0;
    for (const struct yaml_node *value = map->first; value != NULL; value = value->next)
        keys[n++] = value->key;
    qsort(keys, n, sizeof *keys, compare_keys);
    int rc = 0;
    for (size_t i = 1; i < n && rc == 0; i++)
        if (strcmp(keys[i - 1]->text, keys[i]->text) == 0)
            rc = yaml_fail(reader->yaml, keys[i], reader->err,
                           "duplicate key `%.64s`: it is in line %d already", keys[i]->text,
                           keys[i - 1]->line);
    free(keys);
    return rc;
}

/* Puts a new node where the document has got to: a key, a value, an item or the root. */
static int reader_attach(struct reader *reader, struct yaml_node *node, yaml_mark_t mark)
{
    if (reader->depth == 0) {
        reader->yaml->root = node;
        return 0;
    }
    struct level *level = &reader->levels[reader->depth - 1];
    if (level->node->type == YAML_MAP && level->key == NULL) {
        if (node->type != YAML_SCALAR)
            return reader_fail(reader, mark, -EINVAL, "a key must be a plain word or a string");
        level->key = node;
        return 0;
    }
    node->key = level->key;
    level->key = NULL;
    if (level->last != NULL)
        level->last->next = node;
    else
        level->node->first = node;
    level->last = node;
    level->node->count++;
    return 0;
}

static int reader_node(struct reader *reader, enum yaml_type type, const yaml_event_t *event,
                       struct yaml_node **ret)
{
    if (++reader->yaml->n_nodes > YAML_MAX_NODES)
        return reader_fail(reader, event->start_mark, -E2BIG, "more than %d values",
                           YAML_MAX_NODES);
    struct yaml_node *node = arena_take(reader->yaml, sizeof *node);
    if (node == NULL)
        return out_of_memory(reader);
    *node = (struct yaml_node){
        .type = type,
        .line = (int)event->start_mark.line + 1,
        .column = (int)event->start_mark.column + 1,
        .text = "",
    };
    *ret = node;
    return reader_attach(reader, node, event->start_mark);
}

static int on_scalar(struct reader *reader, const yaml_event_t *event)
{
    const char *value = (const char *)event->data.scalar.value;
    size_t len = event->data.scalar.length;
    if (memchr(value, '\0', len) != NULL)
        return reader_fail(reader, event->start_mark, -EINVAL, "a NUL character is not allowed");
    struct yaml_node *node;
    int rc = reader_node(reader, YAML_SCALAR, event, &node);
    if (rc != 0)
        return rc;
    char *text = arena_take(reader->yaml, len + 1);
    if (text == NULL)
        return out_of_memory(reader);
    memcpy(text, value, len);
    text[len] = '\0';
    node->text = text;
    node->len = len;
    node->plain = event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    return 0;
}

static int on_open(struct reader *reader, enum yaml_type type, const yaml_event_t *event)
{
    if (reader->depth == YAML_MAX_DEPTH)
        return reader_fail(reader, event->start_mark, -E2BIG, "nested deeper than %d levels",
                           YAML_MAX_DEPTH);
    struct yaml_node *node;
    int rc = reader_node(reader, type, event, &node);
    if (rc == 0)
        reader->levels[reader->depth++] = (struct level){.node = node};
    return rc;
}

static int on_close(struct reader *reader)
{
    const struct yaml_node *node = reader->levels[--reader->depth].node;
    return node->type == YAML_MAP ? reject_duplicate_keys(reader, node) : 0;
}

/* What a configuration or a plan has no use for, and an attacker has. */
static int reject_extras(struct reader *reader, const yaml_event_t *event)
{
    const yaml_char_t *anchor = NULL, *tag = NULL;
    if (event->type == YAML_SCALAR_EVENT) {
        anchor = event->data.scalar.anchor;
        tag = event->data.scalar.tag;
    } else if (event->type == YAML_SEQUENCE_START_EVENT) {
        anchor = event->data.sequence_start.anchor;
        tag = event->data.sequence_start.tag;
    } else if (event->type == YAML_MAPPING_START_EVENT) {
        anchor = event->data.mapping_start.anchor;
        tag = event->data.mapping_start.tag;
    }
    if (anchor != NULL || event->type == YAML_ALIAS_EVENT)
        return reader_fail(reader, event->start_mark, -EINVAL,
                           "anchors (&) and aliases (*) are not supported: write the value out, "
                           "or in quotes if it is text");
    if (tag != NULL)
        return reader_fail(reader, event->start_mark, -EINVAL,
                           "tags (!) are not supported: put text that starts with ! in quotes");
    return 0;
}

static int on_event(struct reader *reader, const yaml_event_t *event)
{
    int rc = reject_extras(reader, event);
    if (rc != 0)
        return rc;
    switch (event->type) {
    case YAML_SCALAR_EVENT:
        return on_scalar(reader, event);
    case YAML_SEQUENCE_START_EVENT:
        return on_open(reader, YAML_SEQ, event);
    case YAML_MAPPING_START_EVENT:
        return on_open(reader, YAML_MAP, event);
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        return on_close(reader);
    case YAML_DOCUMENT_START_EVENT:
        return reader->yaml->root == NULL ? 0
                                          : reader_fail(reader, event->start_mark, -EINVAL,
                                                        "a second document (---) is not allowed");
    default:
        return 0;
    }
}

static int read_events(struct reader *reader)
{
    for (bool end = false; !end;) {
        yaml_event_t event;
        if (yaml_parser_parse(&reader->parser, &event) == 0)
            return syntax_error(reader);
        int rc = on_event(reader, &event);
        end = event.type == YAML_STREAM_END_EVENT;
        yaml_event_delete(&event);
        if (rc != 0)
            return rc;
    }
    return 0;
}

static bool hex4(const char *at, unsigned *ret)
{
    char digits[5] = {at[0], at[1], at[2], at[3], 0};
    char *end;
    *ret = (unsigned)strtoul(digits, &end, 16);
    return end == digits + 4 && digits[0] != '+' && digits[0] != '-' && digits[0] != ' ';
}

/* JSON writes characters beyond U+FFFF as pairs of escapes, which libyaml refuses: each pair
 * becomes YAML's own \U escape. NULL when there is no memory. */
static char *join_surrogates(const char *text, size_t len, size_t *ret_len)
{
    char *copy = mem_strndup(text, len);
    if (copy == NULL)
        return NULL;
    size_t to = 0;
    for (size_t i = 0; i < len;) {
        unsigned high, low;
        if (text[i] == '\\' && len - i >= 12 && text[i + 1] == 'u' && hex4(text + i + 2, &high) &&
            high >= 0xd800 && high < 0xdc00 && text[i + 6] == '\\' && text[i + 7] == 'u' &&
            hex4(text + i + 8, &low) && low >= 0xdc00 && low < 0xe000) {
            char escape[16];
            snprintf(escape, sizeof escape, "\\U%08X",
                     0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00));
            memcpy(copy + to, escape, 10);
            to += 10;
            i += 12;
            continue;
        }
        size_t step = text[i] == '\\' && i + 1 < len ? 2 : 1; /* "\\ud83d" is no escape */
        memcpy(copy + to, text + i, step);
        to += step;
        i += step;
    }
    *ret_len = to;
    return copy;
}

static bool looks_like_json(const char *text, size_t len)
{
    size_t i = 0;
    while (i < len && memchr(" \t\r\n", text[i], 4) != NULL)
        i++;
    return i < len && (text[i] == '{' || text[i] == '[');
}

static int read_tree(struct yaml *yaml, const char *text, size_t len, struct err *err)
{
    struct reader reader = {.yaml = yaml, .text = text, .len = len, .err = err};
    if (yaml_parser_initialize(&reader.parser) == 0)
        return out_of_memory(&reader);
    yaml_parser_set_encoding(&reader.parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&reader.parser, (const unsigned char *)text, len);
    int rc = read_events(&reader);
    yaml_parser_delete(&reader.parser);
    if (rc == 0 && yaml->root == NULL) {
        yaml->root = arena_take(yaml, sizeof *yaml->root);
        if (yaml->root == NULL)
            return out_of_memory(&reader);
        *yaml->root = (struct yaml_node){.plain = true, .line = 1, .column = 1, .text = ""};
    }
    return rc;
}

int yaml_read(struct yaml **ret, const char *name, const char *text, size_t len, struct err *err)
{
    struct yaml *yaml = mem_zalloc(sizeof *yaml);
    if (yaml == NULL || (yaml->name = mem_strndup(name, strlen(name))) == NULL) {
        yaml_release(&yaml);
        return err_set(err, -ENOMEM, "%s: out of memory", name);
    }
    int rc = 0;
    char *joined = NULL;
    if (len > YAML_MAX_BYTES)
        rc = err_set(err, -E2BIG, "%s: larger than %zu MiB", name, YAML_MAX_BYTES >> 20);
    else if (looks_like_json(text, len) && (joined = join_surrogates(text, len, &len)) == NULL)
        rc = err_set(err, -ENOMEM, "%s: out of memory", name);
    if (rc == 0)
        rc = read_tree(yaml, joined != NULL ? joined : text, len, err);
    free(joined);
    if (rc != 0)
        yaml_release(&yaml);
    else
        *ret = yaml;
    return rc;
}

void yaml_release(struct yaml **yaml)
{
    if (*yaml == NULL)
        return;
    for (struct chunk *chunk = (*yaml)->chunks, *next; chunk != NULL; chunk = next) {
        next = chunk->next;
        free(chunk);
    }
    free((*yaml)->name);
    free(*yaml);
    *yaml = NULL;
}

const struct yaml_node *yaml_root(const struct yaml *yaml)
{
    return yaml->root;
}

const char *yaml_name(const struct yaml *yaml)
{
    return yaml->name;
}
