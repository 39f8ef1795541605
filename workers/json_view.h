/* JSON read in place: a checked view of somebody's bytes, without a tree and without allocation.
 *
 * json_view_parse() checks the whole text once; every view taken from it is then valid JSON. It
 * accepts what jansson accepts, and beyond that: invalid UTF-8, lone surrogates and \u0000 in
 * strings (each becomes U+FFFD when the string is read), members that appear twice (the last one
 * counts) and numbers of any size. A view is valid as long as the bytes are. */
#ifndef WORKERS_JSON_VIEW_H
#define WORKERS_JSON_VIEW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "schemas/buf.h"

#define JSON_VIEW_MAX_DEPTH 512

enum json_view_kind {
    JSON_VIEW_NONE, /* not there */
    JSON_VIEW_NULL,
    JSON_VIEW_FALSE,
    JSON_VIEW_TRUE,
    JSON_VIEW_NUMBER,
    JSON_VIEW_STRING,
    JSON_VIEW_ARRAY,
    JSON_VIEW_OBJECT,
};

/* Where the first containers of a document end, so that none is searched through only to step over
 * it. */
#define JSON_VIEW_ENDS 32
struct json_view_ends {
    size_t n;
    struct {
        const char *from, *to;
    } list[JSON_VIEW_ENDS];
};

struct json_view {
    const char *text; /* borrowed; quotes and brackets included */
    size_t len;
    enum json_view_kind kind;
    const struct json_view_ends *ends; /* borrowed; NULL: not known */
};

/* The name of a member, with its length so that a comparison is one length and one memcmp. */
struct json_view_name {
    const char *text;
    size_t len;
};
#define JSON_VIEW_NAME(literal)                                                                    \
    {                                                                                              \
        literal, sizeof literal - 1                                                                \
    }

/* Exactly one value with white space around it. False, and JSON_VIEW_NONE, when it is none. */
bool json_view_parse(struct json_view *ret, const char *text, size_t len);
/* The same, for documents that are walked through several times. `ends` is filled in, and must live
 * as long as the view and all views inside of it. */
bool json_view_parse_ends(struct json_view *ret, const char *text, size_t len,
                          struct json_view_ends *ends);
/* The members of these names; all JSON_VIEW_NONE when `object` is no object. */
void json_view_members(struct json_view object, const struct json_view_name *names, size_t n,
                       struct json_view *ret);
struct json_view json_view_member(struct json_view object, const char *name);
/* Walks through an array or an object: `rest` starts as a copy of its view. False at the end, and
 * at once for other kinds. key (of an object's member; else JSON_VIEW_NONE) may be NULL. */
bool json_view_next(struct json_view *rest, struct json_view *key, struct json_view *value);
struct json_view json_view_first(struct json_view array); /* the first item */

/* Strings. All are false (and change nothing) when the view is no string. */
bool json_view_text(struct json_view view, struct buf *out); /* appends; valid UTF-8, no NUL */
bool json_view_equals(struct json_view view, const char *text);
/* Cut to cap - 1 bytes at a character's border; ends with NUL. */
bool json_view_copy(struct json_view view, char *ret, size_t cap);
/* The fallback when it is no finite number of fewer than 64 characters; json_view_int() also when
 * it has a fraction or no int64_t holds it. */
int64_t json_view_int(struct json_view view, int64_t fallback);
double json_view_num(struct json_view view, double fallback);

#endif
