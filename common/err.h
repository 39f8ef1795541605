/* The sentence for the person who must act: what, where, what to do. */
#ifndef COMMON_ERR_H
#define COMMON_ERR_H

struct err {
    char text[1024]; /* "" while nothing failed */
};

/* Sets the sentence and returns rc, so that `return err_set(err, -EINVAL, ...)` reads well.
 * err may be NULL. */
int err_set(struct err *err, int rc, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* Puts "prefix: " before the sentence; returns rc. */
int err_prefix(struct err *err, int rc, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
