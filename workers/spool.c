#include "workers/spool.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "common/containers.h"
#include "common/failpoint.h"
#include "common/log.h"
#include "common/paths.h"
#include "schemas/mem.h"

#define TRUNCATE_BYTES ((size_t)256 * 1024)      /* an empty spool's file may grow to this */
#define REWRITE_BYTES ((size_t)16 * 1024 * 1024) /* smaller files are never rewritten */
#define PENDING_BYTES ((size_t)64 * 1024)
#define PROBE_BYTES ((size_t)64 * 1024)
#define PROBE_MS 1000 /* while writing fails */

struct extent {
    size_t at, len; /* len 0: none */
};

/* An attempt that has not ended. */
struct live {
    struct extent claim, response;
    unsigned sync_round; /* in which the response was written */
    UT_hash_handle hh;
    char token[];
};

struct spool {
    uv_loop_t *loop; /* borrowed */
    char *path;
    int fd, lock_fd;
    bool durable;
    bool failing;       /* the last write failed, and that was logged */
    int failure;        /* negative errno of that write */
    bool told;          /* the watcher knows that writing fails */
    bool syncing;       /* a thread runs fdatasync */
    bool closed;        /* freed when the thread is done */
    size_t size;        /* good bytes of the file */
    size_t live_bytes;  /* of them, records of attempts that have not ended */
    size_t rewrite_at;  /* size at which rewriting is tried */
    struct buf pending; /* records that follow the file's end */
    struct live *live;  /* by token, in order of their beginning */
    struct blame *blame;
    unsigned sync_round;
    size_t unsynced; /* responses of this round that have not ended */
    struct loop_timer *sync_timer, *probe_timer;
    spool_news_fn *news; /* NULL: nobody wants to know */
    void *news_ctx;
    uv_prepare_t *turn; /* flushes pending records before the loop waits */
    uv_work_t work;
};

/* --- live attempts --------------------------------------------------------------------------- */

static struct live *live_find(struct spool *spool, const char *token)
{
    struct live *live;
    HASH_FIND_STR(spool->live, token, live);
    return live;
}

static struct live *live_add(struct spool *spool, const char *token)
{
    struct live *live = live_find(spool, token);
    if (live != NULL)
        return live;
    size_t len = strlen(token);
    live = mem_must_zalloc(sizeof *live + len + 1);
    memcpy(live->token, token, len);
    HASH_ADD_KEYPTR(hh, spool->live, live->token, len, live);
    return live;
}

static void live_remove(struct spool *spool, struct live *live)
{
    spool->live_bytes -= live->claim.len + live->response.len;
    HASH_DEL(spool->live, live);
    free(live);
}

/* Books a record that lies, or will lie, at `at`. */
static struct live *live_note(struct spool *spool, const struct spool_record *record, size_t at,
                              size_t len)
{
    if (record->kind == SPOOL_END) {
        struct live *ended = live_find(spool, record->token);
        if (ended != NULL)
            live_remove(spool, ended);
        return NULL;
    }
    struct live *live = live_add(spool, record->token);
    struct extent *extent = record->kind == SPOOL_CLAIM ? &live->claim : &live->response;
    spool->live_bytes += len - extent->len;
    *extent = (struct extent){at, len};
    return live;
}

/* --- reading --------------------------------------------------------------------------------- */

/* Position of the next undamaged record from `at` on; len when there is none. */
static size_t next_record(const char *data, size_t len, size_t at)
{
    struct spool_record record;
    while (at < len) {
        const char *magic = memmem(data + at, len - at, SPOOL_MAGIC, 4);
        if (magic == NULL)
            return len;
        at = (size_t)(magic - data);
        if (spool_record_decode(&record, magic, len - at) > 0)
            return at;
        at++;
    }
    return len;
}

static void read_records(struct spool *spool, const char *data, size_t len)
{
    size_t at = 0;
    while (at < len) {
        struct spool_record record;
        ssize_t used = spool_record_decode(&record, data + at, len - at);
        if (used > 0) {
            live_note(spool, &record, at, (size_t)used);
            at += (size_t)used;
            continue;
        }
        size_t next = next_record(data, len, at + 1);
        if (next == len)
            break;
        log_warn("%s: %zu damaged bytes at %zu are skipped", spool->path, next - at, at);
        at = next;
    }
    if (at < len)
        log_info("%s: an unfinished record of %zu bytes at its end is dropped", spool->path,
                 len - at);
    spool->size = at;
}

static int read_file(struct spool *spool, struct err *err)
{
    struct stat st;
    if (fstat(spool->fd, &st) != 0)
        return err_set(err, -errno, "cannot read %s: %s", spool->path, strerror(errno));
    if (st.st_size == 0)
        return 0;
    size_t len = (size_t)st.st_size;
    char *data = mmap(NULL, len, PROT_READ, MAP_PRIVATE, spool->fd, 0);
    if (data == MAP_FAILED)
        return err_set(err, -errno, "cannot read %s: %s", spool->path, strerror(errno));
    read_records(spool, data, len);
    munmap(data, len);
    if (spool->size < len && ftruncate(spool->fd, (off_t)spool->size) != 0)
        return err_set(err, -errno, "cannot repair %s: %s", spool->path, strerror(errno));
    return 0;
}

void spool_replay(struct spool *spool, spool_replay_fn *fn, void *ctx)
{
    struct live *live, *next;
    spool_flush(spool);
    HASH_ITER (hh, spool->live, live, next) {
        struct extent extent = live->response.len > 0 ? live->response : live->claim;
        char *data = mem_must_zalloc(extent.len + 1);
        struct spool_record record;
        if (pread(spool->fd, data, extent.len, (off_t)extent.at) == (ssize_t)extent.len &&
            spool_record_decode(&record, data, extent.len) > 0)
            fn(ctx, &record);
        else
            log_error("%s: the record at %zu cannot be read again", spool->path, extent.at);
        free(data);
    }
}

/* --- writing --------------------------------------------------------------------------------- */

static int write_all(int fd, struct iovec *parts, int n, size_t at)
{
    while (n > 0) {
        ssize_t done = pwritev(fd, parts, n, (off_t)at);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return done < 0 ? -errno : -EIO;
        at += (size_t)done;
        while (n > 0 && (size_t)done >= parts->iov_len) {
            done -= (ssize_t)parts->iov_len;
            parts++;
            n--;
        }
        if (n > 0) {
            parts->iov_base = (char *)parts->iov_base + done;
            parts->iov_len -= (size_t)done;
        }
    }
    return 0;
}

static void say_failed(struct spool *spool, int rc)
{
    spool->failure = rc;
    if (spool->failing)
        return;
    spool->failing = true;
    log_error("cannot write %s: %s; no new work is taken until it can be: make room on the disk",
              spool->path, strerror(-rc));
    /* Not from within whatever wanted to write. */
    loop_timer_start(spool->probe_timer, 0, PROBE_MS);
}

/* Tells the watcher; then tries whether a response of usual size could be kept: a short record may
 * find room where no answer does. */
static void probe(void *ctx)
{
    static char nothing[PROBE_BYTES];
    struct spool *spool = ctx;
    char why[512] = "";
    if (!spool->told) {
        snprintf(why, sizeof why, "the spool %s cannot be written: %s", spool->path,
                 strerror(-spool->failure));
    } else {
        struct iovec part = {nothing, sizeof nothing};
        int rc = write_all(spool->fd, &part, 1, spool->size);
        if (ftruncate(spool->fd, (off_t)spool->size) != 0) /* the next reader skips it */
            log_debug("%s has nothing behind its records", spool->path);
        if (rc != 0)
            return;
        log_info("%s can be written again", spool->path);
        spool->failing = false;
        loop_timer_stop(spool->probe_timer);
    }
    spool->told = spool->failing;
    if (spool->news != NULL)
        spool->news(spool->news_ctx, why);
}

/* Writes what is pending and the bytes of a response behind it. */
static int write_out(struct spool *spool, struct bytes outcome, struct bytes timing)
{
    size_t total = spool->pending.len + outcome.len + timing.len;
    struct iovec parts[] = {
        {spool->pending.data, spool->pending.len},
        {(char *)(uintptr_t)outcome.data, outcome.len},
        {(char *)(uintptr_t)timing.data, timing.len},
    };
    FAILPOINT("spool.write");
    int rc = write_all(spool->fd, parts, 3, spool->size);
    FAILPOINT("spool.written");
    buf_clear(&spool->pending);
    uv_prepare_stop(spool->turn);
    if (rc != 0) {
        say_failed(spool, rc);
        if (ftruncate(spool->fd, (off_t)spool->size) != 0) /* else the next reader skips it */
            log_debug("%s keeps a torn record", spool->path);
        return rc;
    }
    spool->size += total;
    return 0;
}

/* Records whose write failed are in no file: nothing may be read there later. */
static void forget_unwritten(struct spool *spool)
{
    struct live *live, *next;
    HASH_ITER (hh, spool->live, live, next) {
        struct extent *extents[] = {&live->claim, &live->response};
        for (size_t i = 0; i < 2; i++)
            if (extents[i]->len > 0 && extents[i]->at >= spool->size) {
                spool->live_bytes -= extents[i]->len;
                *extents[i] = (struct extent){0};
            }
        if (live->claim.len + live->response.len == 0)
            live_remove(spool, live);
    }
}

void spool_flush(struct spool *spool)
{
    if (spool->pending.len > 0 && write_out(spool, (struct bytes){0}, (struct bytes){0}) != 0)
        forget_unwritten(spool);
}

static void turn_ends(uv_prepare_t *turn)
{
    spool_flush(turn->data);
}

/* Puts the record (without a response's bytes) behind what is pending. */
static struct live *append(struct spool *spool, const struct spool_record *record)
{
    size_t at = spool->size + spool->pending.len, before = spool->pending.len;
    int rc = spool_record_encode(&spool->pending, record);
    if (rc != 0) {
        say_failed(spool, rc);
        return NULL;
    }
    size_t len = spool->pending.len - before + record->outcome.len + record->timing.len;
    if (before == 0)
        uv_prepare_start(spool->turn, turn_ends);
    return live_note(spool, record, at, len);
}

/* --- a short file ------------------------------------------------------------------------------
 */

static int copy_extent(int to, size_t to_at, int from, const struct extent *extent)
{
    char *data = mem_must_zalloc(extent->len);
    int rc = 0;
    if (pread(from, data, extent->len, (off_t)extent->at) != (ssize_t)extent->len)
        rc = -EIO;
    if (rc == 0)
        rc = write_all(to, &(struct iovec){data, extent->len}, 1, to_at);
    free(data);
    return rc;
}

/* Writes the records of all live attempts to another file. */
static int copy_live(struct spool *spool, int to, size_t *ret_size)
{
    struct live *live, *next;
    size_t size = 0;
    HASH_ITER (hh, spool->live, live, next) {
        const struct extent *extents[] = {&live->claim, &live->response};
        for (size_t i = 0; i < 2; i++) {
            int rc = extents[i]->len > 0 ? copy_extent(to, size, spool->fd, extents[i]) : 0;
            if (rc != 0)
                return rc;
            size += extents[i]->len;
        }
    }
    *ret_size = size;
    return spool->durable && fdatasync(to) != 0 ? -errno : 0;
}

static void move_extents(struct spool *spool)
{
    struct live *live, *next;
    size_t at = 0;
    HASH_ITER (hh, spool->live, live, next) {
        live->claim.at = at;
        live->response.at = at + live->claim.len;
        at += live->claim.len + live->response.len;
    }
}

static int rewrite(struct spool *spool)
{
    char *fresh = mem_must_printf("%s.new", spool->path);
    size_t size = 0;
    int fd = open(fresh, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    int rc = fd < 0 ? -errno : copy_live(spool, fd, &size);
    FAILPOINT("spool.rewrite");
    if (rc == 0 && rename(fresh, spool->path) != 0)
        rc = -errno;
    FAILPOINT("spool.rewritten");
    if (rc == 0) {
        close(spool->fd);
        spool->fd = fd;
        spool->size = size;
        move_extents(spool);
    } else if (fd >= 0) {
        close(fd);
        unlink(fresh);
    }
    free(fresh);
    return rc;
}

/* Called when an attempt has ended. */
static void shorten(struct spool *spool)
{
    if (spool->live == NULL && spool->size + spool->pending.len >= TRUNCATE_BYTES) {
        buf_clear(&spool->pending);
        uv_prepare_stop(spool->turn);
        FAILPOINT("spool.cut");
        if (ftruncate(spool->fd, 0) == 0)
            spool->size = 0;
        FAILPOINT("spool.short");
        return;
    }
    if (spool->size < spool->rewrite_at || spool->live_bytes > spool->size / 4 || spool->syncing)
        return;
    spool_flush(spool);
    int rc = rewrite(spool);
    if (rc != 0)
        say_failed(spool, rc);
    spool->rewrite_at = spool->size * 2 > REWRITE_BYTES ? spool->size * 2 : REWRITE_BYTES;
}

/* --- the disk ----------------------------------------------------------------------------------
 */

static void spool_free(struct spool *spool)
{
    struct live *live, *next;
    HASH_ITER (hh, spool->live, live, next) {
        HASH_DEL(spool->live, live);
        free(live);
    }
    if (spool->fd >= 0)
        close(spool->fd);
    if (spool->lock_fd >= 0)
        close(spool->lock_fd);
    blame_free(&spool->blame);
    buf_release(&spool->pending);
    free(spool->path);
    free(spool);
}

static void sync_work(uv_work_t *work)
{
    struct spool *spool = work->data;
    FAILPOINT("spool.sync");
    if (fdatasync(spool->fd) != 0)
        log_error("cannot bring %s to the disk: %s", spool->path, strerror(errno));
    FAILPOINT("spool.synced");
}

static void sync_done(uv_work_t *work, int status)
{
    (void)status;
    struct spool *spool = work->data;
    spool->syncing = false;
    if (spool->closed)
        spool_free(spool);
    else if (spool->unsynced > 0 && !loop_timer_active(spool->sync_timer))
        loop_timer_start(spool->sync_timer, SPOOL_SYNC_DELAY_MS, 0);
}

static void sync_due(void *ctx)
{
    struct spool *spool = ctx;
    if (spool->unsynced == 0 || spool->syncing)
        return;
    spool->sync_round++;
    spool->unsynced = 0;
    spool->work.data = spool;
    spool->syncing = uv_queue_work(spool->loop, &spool->work, sync_work, sync_done) == 0;
}

/* --- the interface ------------------------------------------------------------------------------
 */

void spool_claim(struct spool *spool, const char *task, const char *sub, const char *token,
                 const char *arm)
{
    append(spool, &(struct spool_record){
                      .kind = SPOOL_CLAIM, .task = task, .sub = sub, .token = token, .arm = arm});
    if (spool->pending.len > PENDING_BYTES)
        spool_flush(spool);
}

void spool_response(struct spool *spool, const char *task, const char *sub, const char *token,
                    const char *arm, struct bytes outcome, struct bytes timing)
{
    struct spool_record record = {.kind = SPOOL_RESPONSE,
                                  .task = task,
                                  .sub = sub,
                                  .token = token,
                                  .arm = arm,
                                  .outcome = outcome,
                                  .timing = timing};
    struct live *live = append(spool, &record);
    if (live == NULL)
        return;
    if (write_out(spool, outcome, timing) != 0) {
        forget_unwritten(spool);
        return;
    }
    if (!spool->durable)
        return;
    live->sync_round = spool->sync_round;
    spool->unsynced++;
    if (!spool->syncing && !loop_timer_active(spool->sync_timer))
        loop_timer_start(spool->sync_timer, SPOOL_SYNC_DELAY_MS, 0);
}

void spool_end(struct spool *spool, const char *token)
{
    struct live *live = live_find(spool, token);
    if (live == NULL)
        return;
    if (spool->durable && live->response.len > 0 && live->sync_round == spool->sync_round &&
        spool->unsynced > 0)
        spool->unsynced--;
    append(spool, &(struct spool_record){.kind = SPOOL_END, .token = token});
    if (spool->pending.len > PENDING_BYTES)
        spool_flush(spool);
    shorten(spool);
}

void spool_watch(struct spool *spool, spool_news_fn *fn, void *ctx)
{
    spool->news = fn;
    spool->news_ctx = ctx;
}

size_t spool_outstanding(const struct spool *spool)
{
    return HASH_COUNT(spool->live);
}

size_t spool_file_bytes(const struct spool *spool)
{
    return spool->size;
}

struct blame *spool_blame(const struct spool *spool)
{
    return spool->blame;
}

static int lock(struct spool *spool, const char *path, const char *name, struct err *err)
{
    spool->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (spool->lock_fd < 0)
        return err_set(err, -errno, "cannot create %s: %s", path, strerror(errno));
    char owner[32] = "";
    if (flock(spool->lock_fd, LOCK_EX | LOCK_NB) != 0) {
        ssize_t len = pread(spool->lock_fd, owner, sizeof owner - 1, 0);
        owner[len > 0 ? len : 0] = '\0';
        return err_set(err, -EBUSY,
                       "a worker named %s runs on this host already (process %s); stop it, or give "
                       "this one another name under workers:",
                       name, owner[0] != '\0' ? owner : "unknown");
    }
    int len = snprintf(owner, sizeof owner, "%d", (int)getpid());
    if (ftruncate(spool->lock_fd, 0) != 0 || pwrite(spool->lock_fd, owner, (size_t)len, 0) < 0)
        log_debug("cannot write the process id into %s", path); /* only the sentence above has it */
    return 0;
}

static int open_files(struct spool *spool, const struct spool_options *options, struct err *err)
{
    const char *name = options->name;
    if (name[0] == '\0' || name[0] == '.' || strchr(name, '/') != NULL)
        return err_set(err, -EINVAL,
                       "\"%s\" cannot be the name of a worker: use letters, digits, "
                       "- and _",
                       name);
    char *dir = path_of(options->home, PATH_SPOOL);
    char *lock_path = mem_must_printf("%s/%s.lock", dir, name);
    spool->path = mem_must_printf("%s/%s.spool", dir, name);
    int rc = path_make(dir, err);
    if (rc == 0)
        rc = lock(spool, lock_path, name, err);
    if (rc == 0) {
        spool->fd = open(spool->path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        if (spool->fd < 0)
            rc = err_set(err, -errno, "cannot create %s: %s", spool->path, strerror(errno));
    }
    if (rc == 0) {
        char *blame_path = mem_must_printf("%s/%s.now", dir, name);
        spool->blame = blame_new(blame_path);
        free(blame_path);
    }
    free(lock_path);
    free(dir);
    return rc;
}

int spool_open(struct spool **ret, uv_loop_t *loop, const struct spool_options *options,
               struct err *err)
{
    struct spool *spool = mem_must_zalloc(sizeof *spool);
    *spool = (struct spool){.loop = loop,
                            .fd = -1,
                            .lock_fd = -1,
                            .durable = options->durable,
                            .rewrite_at = REWRITE_BYTES};
    int rc = open_files(spool, options, err);
    if (rc == 0)
        rc = read_file(spool, err);
    if (rc != 0) {
        spool_free(spool);
        return rc;
    }
    spool->sync_timer = loop_timer_new(loop, sync_due, spool);
    spool->probe_timer = loop_timer_new(loop, probe, spool);
    signal(SIGXFSZ, SIG_IGN); /* a limit of file sizes is a full disk, not the end */
    spool->turn = mem_must_zalloc(sizeof *spool->turn);
    uv_prepare_init(loop, spool->turn);
    spool->turn->data = spool;
    *ret = spool;
    return 0;
}

static void turn_closed(uv_handle_t *handle)
{
    free(handle);
}

void spool_close(struct spool **spool_ptr)
{
    struct spool *spool = *spool_ptr;
    *spool_ptr = NULL;
    if (spool == NULL)
        return;
    spool_flush(spool);
    if (spool->live == NULL && ftruncate(spool->fd, 0) != 0)
        log_debug("cannot empty %s", spool->path); /* the next start reads that all has ended */
    loop_timer_free(&spool->sync_timer);
    loop_timer_free(&spool->probe_timer);
    uv_close((uv_handle_t *)spool->turn, turn_closed);
    spool->closed = true;
    if (!spool->syncing)
        spool_free(spool);
}
