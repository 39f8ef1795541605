#include "orchestrator/tap_record.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "schemas/buf.h"
#include "schemas/mem.h"

struct tap_record {
    uv_loop_t *loop;
    char *path;
    int fd;
    struct buf filling; /* what has come since the last write began */
    struct buf writing; /* what the thread writes now */
    size_t written;     /* of it */
    bool busy;
    bool idle;  /* for loop_run_until() */
    int failed; /* first error, negative errno; nothing is written after it */
    uint64_t dropped;
    uv_fs_t request;
};

static void write_more(struct tap_record *record);

static void wrote(uv_fs_t *request)
{
    struct tap_record *record = request->data;
    ssize_t n = request->result;
    uv_fs_req_cleanup(request);
    record->busy = false;
    if (n < 0)
        record->failed = (int)n;
    else
        record->written += (size_t)n;
    write_more(record);
}

static void write_more(struct tap_record *record)
{
    if (record->written == record->writing.len) {
        struct buf empty = record->writing;
        record->writing = record->filling;
        record->filling = empty;
        buf_clear(&record->filling);
        record->written = 0;
    }
    record->idle = record->failed != 0 || record->writing.len == record->written;
    if (record->idle || record->busy)
        return;
    uv_buf_t part = uv_buf_init(record->writing.data + record->written,
                                (unsigned)(record->writing.len - record->written));
    record->busy = true;
    record->request.data = record;
    uv_fs_write(record->loop, &record->request, record->fd, &part, 1, -1, wrote);
}

int tap_record_open(struct tap_record **ret, uv_loop_t *loop, const char *path, struct err *err)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (fd < 0)
        return err_set(err, -errno, "cannot open %s to record to: %s", path, strerror(errno));
    struct tap_record *record = mem_must_zalloc(sizeof *record);
    record->loop = loop;
    record->path = mem_must_strdup(path);
    record->fd = fd;
    record->idle = true;
    *ret = record;
    return 0;
}

void tap_record_add(struct tap_record *record, const char *line, size_t len)
{
    if (record->failed != 0 || record->filling.len + len >= TAP_RECORD_MOST) {
        record->dropped++;
        return;
    }
    buf_add(&record->filling, line, len);
    buf_add_char(&record->filling, '\n');
    if (!record->busy)
        write_more(record);
}

uint64_t tap_record_dropped(struct tap_record *record)
{
    uint64_t dropped = record->dropped;
    record->dropped = 0;
    return dropped;
}

int tap_record_close(struct tap_record **record_ptr, struct err *err)
{
    struct tap_record *record = *record_ptr;
    if (record == NULL)
        return 0;
    if (!record->busy)
        write_more(record);
    loop_run_until(record->loop, &record->idle, -1);
    int rc = record->failed;
    if (fsync(record->fd) != 0 && rc == 0 && errno != EINVAL && errno != EROFS)
        rc = -errno; /* a pipe or a device has nothing to sync */
    if (close(record->fd) != 0 && rc == 0)
        rc = -errno;
    if (rc != 0)
        err_set(err, rc, "cannot record to %s: %s; what was recorded before is whole", record->path,
                strerror(-rc));
    buf_release(&record->filling);
    buf_release(&record->writing);
    free(record->path);
    free(record);
    *record_ptr = NULL;
    return rc;
}
