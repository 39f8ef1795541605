#include "common/failpoint.h"

#ifdef ORCH_TESTING
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define NAME_BYTES (FAILPOINT_LINE - 12) /* the count, a blank and a newline need the rest */

static struct {
    pthread_once_t once;
    pthread_mutex_t lock;
    bool armed; /* one of the two variables is set */
    char wanted[NAME_BYTES];
    unsigned long left; /* passages until it acts */
    int signal_number;
    char *lines; /* of the log, mapped; NULL: none */
    unsigned long counts[FAILPOINT_LINES];
    char names[FAILPOINT_LINES][NAME_BYTES];
    size_t n;
} points = {.once = PTHREAD_ONCE_INIT, .lock = PTHREAD_MUTEX_INITIALIZER};

static void read_wanted(const char *text)
{
    size_t len = strcspn(text, ":");
    snprintf(points.wanted, sizeof points.wanted, "%.*s", (int)len, text);
    points.left = 1;
    points.signal_number = SIGKILL;
    if (text[len] != ':')
        return;
    char *end;
    points.left = strtoul(text + len + 1, &end, 10);
    if (strcmp(end, ":stop") == 0)
        points.signal_number = SIGSTOP;
}

static void map_log(const char *path)
{
    size_t size = (size_t)FAILPOINT_LINE * FAILPOINT_LINES;
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    void *lines = MAP_FAILED;
    if (fd >= 0 && ftruncate(fd, (off_t)size) == 0)
        lines = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (lines == MAP_FAILED)
        perror(path);
    else
        points.lines = lines;
    if (fd >= 0)
        close(fd);
}

static void set_up(void)
{
    const char *wanted = getenv("ORCH_FAILPOINT"), *log = getenv("ORCH_FAILPOINT_LOG");
    if (wanted != NULL)
        read_wanted(wanted);
    if (log != NULL)
        map_log(log);
    points.armed = wanted != NULL || points.lines != NULL;
}

static void count(const char *name)
{
    size_t at = 0;
    while (at < points.n && strcmp(points.names[at], name) != 0)
        at++;
    if (at == FAILPOINT_LINES)
        return;
    if (at == points.n)
        strcpy(points.names[points.n++], name);
    char line[FAILPOINT_LINE + 1];
    snprintf(line, sizeof line, "%-*s %10lu\n", NAME_BYTES, name, ++points.counts[at]);
    memcpy(points.lines + at * FAILPOINT_LINE, line, FAILPOINT_LINE);
}

void failpoint_reach(const char *part, const char *what)
{
    pthread_once(&points.once, set_up);
    if (!points.armed)
        return;
    char name[NAME_BYTES];
    if (what != NULL)
        snprintf(name, sizeof name, "%s.%s", part, what);
    else
        snprintf(name, sizeof name, "%s", part);
    pthread_mutex_lock(&points.lock);
    if (points.lines != NULL)
        count(name);
    bool acts = strcmp(name, points.wanted) == 0 && points.left > 0 && --points.left == 0;
    pthread_mutex_unlock(&points.lock);
    if (acts)
        raise(points.signal_number);
}
#else
typedef int failpoint_unused; /* a translation unit is never empty */
#endif
