/* A spool file of any bytes: it opens, what it still has is replayed, and what is added is there
 * the next time. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "common/paths.h"
#include "workers/spool.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char home[64], path[128];
static uv_loop_t loop;

static void remove_home(void)
{
    char dir[96];
    unlink(path);
    snprintf(dir, sizeof dir, "%s/spool/f.lock", home);
    unlink(dir);
    snprintf(dir, sizeof dir, "%s/spool", home);
    rmdir(dir);
    rmdir(home);
    loop_finish(&loop);
}

static void prepare(void)
{
    char dir[96];
    struct err err;
    if (home[0] != '\0')
        return;
    log_init("fuzz", LOG_LEVEL_ERROR);
    snprintf(home, sizeof home, "/dev/shm/fuzz-spool-XXXXXX");
    if (mkdtemp(home) == NULL)
        abort();
    snprintf(dir, sizeof dir, "%s/spool", home);
    snprintf(path, sizeof path, "%s/f.spool", dir);
    if (path_make(dir, &err) != 0)
        abort();
    loop_init(&loop);
    atexit(remove_home);
}

struct seen {
    size_t n;
    bool ours;
};

static void replay(void *ctx, const struct spool_record *record)
{
    struct seen *seen = ctx;
    seen->n++;
    if (record->kind == SPOOL_END || strlen(record->task) + strlen(record->sub) > 512)
        abort();
    seen->ours = seen->ours || strcmp(record->token, "9-ours") == 0;
}

static struct spool *reopen(struct seen *seen)
{
    struct spool_options options = {.home = home, .name = "f"};
    struct spool *spool;
    struct err err = {""};
    if (spool_open(&spool, &loop, &options, &err) != 0)
        abort();
    spool_replay(spool, replay, seen);
    if (seen->n > spool_outstanding(spool))
        abort();
    return spool;
}

static void shut(struct spool **spool)
{
    spool_close(spool);
    uv_run(&loop, UV_RUN_NOWAIT);
    uv_run(&loop, UV_RUN_NOWAIT);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct spool_record record;
    struct seen first = {0}, second = {0};
    prepare();
    char *copy = malloc(size > 0 ? size : 1);
    memcpy(copy, data, size);
    ssize_t used = spool_record_decode(&record, copy, size);
    free(copy);
    if (used > (ssize_t)size)
        abort();
    FILE *file = fopen(path, "wb");
    if (file == NULL || fwrite(data, 1, size, file) != size || fclose(file) != 0)
        abort();
    struct spool *spool = reopen(&first);
    spool_claim(spool, "t", "s", "9-ours", "m@p");
    spool_response(spool, "t", "s", "9-ours", "m@p", (struct bytes){"o", 1},
                   (struct bytes){"t", 1});
    shut(&spool);
    spool = reopen(&second);
    if (!second.ours || second.n < first.n)
        abort(); /* what was there is there, and what was added */
    shut(&spool);
    return 0;
}
