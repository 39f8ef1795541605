#include "workers/blame.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/log.h"
#include "common/task_id.h"
#include "schemas/mem.h"

#define FILE_BYTES 4096

/* The page. The token is written last and cleared first: words without it mean nothing. What is
 * torn names no attempt of the queue, and is refused there. */
struct page {
    char token[128];
    char task[TASK_ID_SIZE];
    char sub[SUB_ID_MAX + 1];
};

struct blame {
    struct page *now; /* mapped; NULL: there is no file */
    struct page last;
};

/* A page of the file that has no place on the disk yet would be a SIGBUS when the disk is full. */
static bool is_allocated(int fd)
{
    errno = posix_fallocate(fd, 0, FILE_BYTES);
    return errno == 0;
}

static void *map(const char *path)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    void *page = MAP_FAILED;
    if (fd >= 0 && is_allocated(fd))
        page = mmap(NULL, FILE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (page == MAP_FAILED)
        log_warn("cannot map %s: %s; when this worker dies of a subtask, nobody will know of which",
                 path, strerror(errno));
    if (fd >= 0)
        close(fd);
    return page != MAP_FAILED ? page : NULL;
}

/* The file is as little to be trusted as any: each word has an end. */
static void end_words(struct page *page)
{
    page->token[sizeof page->token - 1] = '\0';
    page->task[sizeof page->task - 1] = '\0';
    page->sub[sizeof page->sub - 1] = '\0';
    if (!task_id_valid(page->task) || !sub_id_valid(page->sub))
        page->token[0] = '\0';
}

struct blame *blame_new(const char *path)
{
    struct blame *blame = mem_must_zalloc(sizeof *blame);
    blame->now = map(path);
    if (blame->now == NULL)
        return blame;
    blame->last = *blame->now;
    end_words(&blame->last);
    blame_leave(blame);
    return blame;
}

void blame_free(struct blame **ret)
{
    struct blame *blame = *ret;
    *ret = NULL;
    if (blame == NULL)
        return;
    blame_leave(blame);
    if (blame->now != NULL)
        munmap(blame->now, FILE_BYTES);
    free(blame);
}

struct blame_for blame_last(const struct blame *blame)
{
    return (struct blame_for){blame->last.task, blame->last.sub, blame->last.token};
}

static void copy_word(char *to, size_t size, const char *word)
{
    size_t len = strnlen(word, size - 1);
    memcpy(to, word, len);
    to[len] = '\0';
}

void blame_enter(struct blame *blame, const struct blame_for *attempt)
{
    if (blame == NULL || blame->now == NULL || attempt->token == NULL)
        return;
    struct page *now = blame->now;
    copy_word(now->task, sizeof now->task, attempt->task);
    copy_word(now->sub, sizeof now->sub, attempt->sub);
    copy_word(now->token, sizeof now->token, attempt->token);
}

void blame_leave(struct blame *blame)
{
    if (blame != NULL && blame->now != NULL)
        blame->now->token[0] = '\0';
}
