#include "common/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char *const names[] = {"error", "warn", "info", "debug"};
static char program_name[64] = "orchestrator";
static enum log_level max_level = LOG_LEVEL_INFO;

void log_init(const char *program, enum log_level level)
{
    snprintf(program_name, sizeof program_name, "%s", program);
    max_level = level;
    const char *wanted = getenv("ORCHESTRATOR_LOG");
    for (size_t i = 0; wanted != NULL && i < sizeof names / sizeof *names; i++)
        if (strcmp(wanted, names[i]) == 0)
            max_level = (enum log_level)i;
}

void log_write(enum log_level level, const char *format, ...)
{
    if (level > max_level)
        return;
    struct timespec now;
    struct tm parts;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &parts);
    char line[2048];
    size_t len = strftime(line, sizeof line, "%Y-%m-%dT%H:%M:%S", &parts);
    len += (size_t)snprintf(line + len, sizeof line - len, ".%03ldZ %s %s: ", now.tv_nsec / 1000000,
                            names[level], program_name);
    va_list args;
    va_start(args, format);
    int more = vsnprintf(line + len, sizeof line - len, format, args);
    va_end(args);
    len += more > 0 ? (size_t)more : 0;
    if (len > sizeof line - 1)
        len = sizeof line - 1;
    line[len++] = '\n'; /* one write: lines of several processes don't mix */
    if (write(STDERR_FILENO, line, len) < 0)
        return;
}
