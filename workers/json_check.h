/* Whether bytes are JSON: the one pass that everything json_view does afterwards relies on. */
#ifndef WORKERS_JSON_CHECK_H
#define WORKERS_JSON_CHECK_H

#include <stdbool.h>

#include "workers/json_view.h"

/* The place behind the value that begins at `at`; NULL when none does. ends may be NULL. */
const char *json_check_value(const char *at, const char *end, struct json_view_ends *ends);
/* The four digits of \uXXXX; -1 when they are not four. */
int json_check_hex(const char *at, const char *end);

/* For those who walk over what was checked. */

static inline bool json_check_is_space(char c)
{
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

static inline bool json_check_is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static inline const char *json_check_skip_space(const char *at, const char *end)
{
    if (at < end && (unsigned char)*at > ' ') /* as nearly always */
        return at;
    while (at < end && json_check_is_space(*at))
        at++;
    return at;
}

#endif
