#include "common/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Both format into a copy first: the arguments may point into err. */

int err_set(struct err *err, int rc, const char *format, ...)
{
    if (err == NULL)
        return rc;
    struct err made;
    va_list args;
    va_start(args, format);
    vsnprintf(made.text, sizeof made.text, format, args);
    va_end(args);
    *err = made;
    return rc;
}

int err_prefix(struct err *err, int rc, const char *format, ...)
{
    if (err == NULL)
        return rc;
    char prefix[256];
    va_list args;
    va_start(args, format);
    vsnprintf(prefix, sizeof prefix, format, args);
    va_end(args);
    size_t prefix_len = strlen(prefix);
    size_t room = sizeof err->text - prefix_len - 3; /* for ": " and the NUL */
    struct err made;
    snprintf(made.text, sizeof made.text, "%s: %.*s", prefix, (int)room, err->text);
    *err = made;
    return rc;
}
