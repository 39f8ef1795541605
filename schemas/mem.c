#include "schemas/mem.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef ORCH_TESTING
static _Thread_local unsigned long fail_in; /* 0: never */
static _Thread_local bool reached;

void mem_fail_at(unsigned long k)
{
    if (k > 0)
        reached = false;
    fail_in = k;
}

bool mem_fail_reached(void)
{
    return reached;
}

static bool must_fail(void)
{
    if (fail_in == 0 || --fail_in > 0)
        return false;
    reached = true;
    return true;
}
#else
static bool must_fail(void)
{
    return false;
}
#endif

void *mem_alloc(size_t size)
{
    return must_fail() ? NULL : malloc(size > 0 ? size : 1);
}

void *mem_zalloc(size_t size)
{
    return must_fail() ? NULL : calloc(1, size > 0 ? size : 1);
}

void *mem_realloc(void *old, size_t size)
{
    return must_fail() ? NULL : realloc(old, size > 0 ? size : 1);
}

char *mem_strndup(const char *text, size_t len)
{
    char *copy = mem_alloc(len + 1);
    if (copy == NULL)
        return NULL;
    if (len > 0)
        memcpy(copy, text, len);
    copy[len] = '\0';
    return copy;
}

static void *must(void *memory)
{
    if (memory != NULL)
        return memory;
    static const char text[] = "out of memory\n";
    fputs(text, stderr);
    abort();
}

void *mem_must_zalloc(size_t size)
{
    return must(calloc(1, size > 0 ? size : 1));
}

void *mem_must_realloc(void *old, size_t size)
{
    return must(realloc(old, size > 0 ? size : 1));
}

char *mem_must_strdup(const char *text)
{
    return must(strdup(text));
}

char *mem_must_strndup(const char *text, size_t len)
{
    char *copy = must(malloc(len + 1));
    if (len > 0)
        memcpy(copy, text, len);
    copy[len] = '\0';
    return copy;
}

char *mem_must_printf(const char *format, ...)
{
    char *text = NULL;
    va_list args;
    va_start(args, format);
    int len = vasprintf(&text, format, args);
    va_end(args);
    return must(len < 0 ? NULL : text);
}
