/* Whether Redis is still the one that this process knows (queue_guard()).
 *
 * Who was given answers by another Redis could only tell by what it lacks: GONE for an empty one,
 * STALE for an older copy. So before such an answer is passed on, the epoch is asked for behind
 * it on the same connection. In between it is asked for at each connection and every few seconds.
 */
#include "common/queue_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/task_id.h"
#include "schemas/mem.h"

#define KEY "orch:{d}:epoch"
#define REFUSED_KEY "orch:{s0}:refused" /* of a call that touches no key: everybody may name it */
#define ID_LEN 32                       /* hexadecimal digits */
#define LOOK_MS 5000
#define TOUCH_MS 1000 /* who leads notes the time so often */
#define KEEP_S 60     /* the time in the file may be so old */
/* With appendfsync everysec or no, or after a failover, the last seconds may rightly be missing. */
#define OLDER_S 60
#define CURE                                                                                       \
    "nothing is taken from it or written to it, and responses stay in their spools: restore its "  \
    "append-only file and start it again, or, to go on with what it has now, run `orchestrator "   \
    "fsck --accept-new-epoch`"

struct queue_epoch {
    struct queue *queue; /* borrowed */
    char *path;
    bool leads;
    queue_epoch_fn *fn;
    void *ctx;
    struct loop_timer *timer;
    char id[ID_LEN + 1];    /* that this process knows; "": none yet */
    int64_t time_s, kept_s; /* latest time seen, and that in the file */
    bool told, asked, making;
    char why[512];    /* why the calls are not made; "": they are */
    char failed[256]; /* the last error that was logged */
};

/* --- what is remembered
 * ----------------------------------------------------------------------- */

static void recall(struct queue_epoch *epoch)
{
    FILE *file = fopen(epoch->path, "re");
    if (file == NULL)
        return;
    char id[ID_LEN + 1];
    int64_t time_s;
    if (fscanf(file, "%32[0-9a-f] %" SCNd64, id, &time_s) == 2 && time_s >= 0) {
        memcpy(epoch->id, id, sizeof id);
        epoch->time_s = epoch->kept_s = time_s;
    } else {
        log_warn("%s cannot be read: which Redis was used before is not known", epoch->path);
    }
    fclose(file);
}

static int write_file(const char *path, const char *text, bool durable)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    size_t len = strlen(text);
    int rc = write(fd, text, len) == (ssize_t)len ? 0 : -EIO;
    if (rc == 0 && durable && fsync(fd) != 0)
        rc = -errno;
    return close(fd) == 0 ? rc : -errno;
}

/* durable: it must not be forgotten when the machine crashes. */
static void remember(struct queue_epoch *epoch, bool durable)
{
    char *other = mem_must_printf("%s.%d.new", epoch->path, (int)getpid());
    char *text = mem_must_printf("%s %" PRId64 "\n", epoch->id, epoch->time_s);
    int rc = write_file(other, text, durable);
    if (rc == 0 && rename(other, epoch->path) != 0)
        rc = -errno;
    if (rc != 0) {
        log_warn("cannot write %s (%s): after a restart, a Redis that was emptied would not be "
                 "noticed",
                 epoch->path, strerror(-rc));
        unlink(other);
    }
    epoch->kept_s = epoch->time_s;
    free(other);
    free(text);
}

/* --- judging
 * ---------------------------------------------------------------------------------- */

static void time_text(char ret[32], int64_t time_s)
{
    time_t seconds = (time_t)time_s;
    struct tm tm;
    if (gmtime_r(&seconds, &tm) == NULL || strftime(ret, 32, "%Y-%m-%d %H:%M:%S UTC", &tm) == 0)
        snprintf(ret, 32, "%" PRId64, time_s);
}

static void tell(struct queue_epoch *epoch, const char *why)
{
    bool changed = !epoch->told || strcmp(why, epoch->why) != 0;
    epoch->told = true;
    snprintf(epoch->why, sizeof epoch->why, "%s", why);
    if (changed)
        epoch->fn(epoch->ctx, epoch->why);
}

static void take(struct queue_epoch *epoch, const char *id, int64_t time_s)
{
    bool other = strcmp(epoch->id, id) != 0;
    if (other)
        snprintf(epoch->id, sizeof epoch->id, "%s", id);
    if (other || time_s > epoch->time_s)
        epoch->time_s = time_s;
    if (other || epoch->time_s >= epoch->kept_s + KEEP_S)
        remember(epoch, other);
    tell(epoch, "");
}

static bool is_id(const char *text)
{
    return strlen(text) == ID_LEN && strspn(text, "0123456789abcdef") == ID_LEN;
}

static void judge(struct queue_epoch *epoch, const char *id, int64_t time_s, bool accepted)
{
    char why[sizeof epoch->why], has[32], known[32];
    const char *name = redis_name(epoch->queue->redis);
    if (is_id(id) && (epoch->id[0] == '\0' || (accepted && strcmp(epoch->id, id) != 0))) {
        if (epoch->id[0] != '\0')
            log_warn("Redis at %s has epoch %.8s instead of %.8s, as was accepted", name, id,
                     epoch->id);
        take(epoch, id, time_s);
        return;
    }
    if (id[0] == '\0' && epoch->id[0] == '\0')
        return;
    if (strcmp(epoch->id, id) != 0) {
        snprintf(why, sizeof why,
                 "Redis at %s was emptied or is another one (its epoch is %.8s, but %.8s was "
                 "expected); " CURE,
                 name, id[0] != '\0' ? id : "missing", epoch->id);
        tell(epoch, why);
    } else if (time_s < epoch->time_s - OLDER_S) {
        time_text(has, time_s);
        time_text(known, epoch->time_s);
        snprintf(why, sizeof why,
                 "Redis at %s is an older copy (it is of %s, but was seen at %s); " CURE, name, has,
                 known);
        tell(epoch, why);
    } else {
        take(epoch, id, time_s);
    }
}

/* --- asking
 * ----------------------------------------------------------------------------------- */

static void ask(struct queue *queue, const char *what, const char *sentence, redis_reply_fn *fn,
                void *ctx)
{
    char halves[2][17];
    boot_nonce_make(halves[0]);
    boot_nonce_make(halves[1]);
    struct queue_args args = {0};
    queue_args_str(&args, strcmp(what, "refuse") == 0 ? REFUSED_KEY : KEY);
    queue_args_str(&args, what);
    queue_args_printf(&args, "%s%s", halves[0], halves[1]);
    queue_args_str(&args, sentence);
    queue_eval(queue, &args, SCRIPT_epoch, 1, fn, ctx);
    queue_args_release(&args);
}

/* Who does not lead may have a user that only reads it: a call of a script counts as a write. */
static void read_epoch(struct queue *queue, redis_reply_fn *fn, void *ctx)
{
    redis_simple(queue->redis, fn, ctx, "HMGET " KEY " id time accepted");
}

/* Takes the answer into account; false when it is an error. */
static bool read_answer(struct queue_epoch *epoch, const struct redis_value *value, struct err *err)
{
    if (queue_failed(value, err))
        return false;
    judge(epoch, redis_str(redis_at(value, 0), NULL), redis_int(redis_at(value, 1)),
          redis_int(redis_at(value, 2)) != 0);
    return true;
}

/* Of who leads. */
static const char *usual(const struct queue_epoch *epoch)
{
    if (epoch->id[0] == '\0')
        return "make";
    return epoch->why[0] == '\0' && epoch->told ? "touch" : "look";
}

static void looked(void *ctx, const struct redis_value *value)
{
    struct queue_epoch *epoch = ctx;
    struct err err = {""};
    if (redis_type(value) == REDIS_ERR && strncmp(redis_str(value, NULL), "CLOSED", 6) == 0)
        return;
    bool fine = read_answer(epoch, value, &err);
    if (fine && !epoch->leads && epoch->id[0] == '\0' && !epoch->making) {
        epoch->making = true;
        ask(epoch->queue, "make", "", looked, epoch);
        return;
    }
    epoch->asked = epoch->making = false;
    if (!fine && strcmp(epoch->failed, err.text) != 0)
        log_warn("cannot tell which Redis this is: %s", err.text);
    snprintf(epoch->failed, sizeof epoch->failed, "%.255s", fine ? "" : err.text);
}

static void look(void *ctx)
{
    struct queue_epoch *epoch = ctx;
    if (epoch->asked)
        return;
    epoch->asked = true;
    if (epoch->leads)
        ask(epoch->queue, usual(epoch), "", looked, epoch);
    else
        read_epoch(epoch->queue, looked, epoch);
}

void queue_epoch_up(struct queue_epoch *epoch)
{
    look(epoch);
}

void queue_guard(struct queue *queue, const char *path, bool leads, queue_epoch_fn *fn, void *ctx)
{
    struct queue_epoch *epoch = mem_must_zalloc(sizeof *epoch);
    epoch->queue = queue;
    epoch->path = mem_must_strdup(path);
    epoch->leads = leads;
    epoch->fn = fn;
    epoch->ctx = ctx;
    epoch->timer = loop_timer_new(queue->loop, look, epoch);
    recall(epoch);
    queue->epoch = epoch;
    loop_timer_start(epoch->timer, leads ? TOUCH_MS : LOOK_MS, leads ? TOUCH_MS : LOOK_MS);
    look(epoch);
}

void queue_epoch_free(struct queue_epoch **ret)
{
    struct queue_epoch *epoch = *ret;
    *ret = NULL;
    if (epoch == NULL)
        return;
    if (epoch->leads && epoch->why[0] == '\0' && epoch->time_s > epoch->kept_s)
        remember(epoch, false); /* the next start knows how new it was */
    loop_timer_free(&epoch->timer);
    free(epoch->path);
    free(epoch);
}

/* --- calls that are not made
 * -------------------------------------------------------------------
 */

static const bool reads[SCRIPT_COUNT] = {
    [SCRIPT_read] = true, [SCRIPT_log] = true, [SCRIPT_check] = true};

bool queue_epoch_bars(struct queue *queue, enum queue_script script, redis_reply_fn *fn, void *ctx)
{
    struct queue_epoch *epoch = queue->epoch;
    if (epoch == NULL || epoch->why[0] == '\0' || reads[script])
        return false;
    ask(queue, "refuse", epoch->why, fn, ctx);
    return true;
}

/* --- answers that are not passed on at once
 * ----------------------------------------------------
 */

struct verifying {
    struct queue *queue;
    queue_fn *fn;
    void *ctx;
    enum queue_status status;
};

static void verified(void *ctx, const struct redis_value *value)
{
    struct verifying verifying = *(struct verifying *)ctx;
    free(ctx);
    struct queue_epoch *epoch = verifying.queue->epoch;
    struct err err = {""};
    if (!read_answer(epoch, value, &err))
        verifying.fn(verifying.ctx, queue_status_of(value, &err), err.text);
    else if (epoch->why[0] != '\0')
        verifying.fn(verifying.ctx, QUEUE_REFUSED, epoch->why);
    else
        verifying.fn(verifying.ctx, verifying.status, "");
}

bool queue_epoch_verify(struct queue *queue, enum queue_status status, queue_fn *fn, void *ctx)
{
    if (queue->epoch == NULL || (status != QUEUE_GONE && status != QUEUE_STALE))
        return false;
    struct verifying *verifying = mem_must_zalloc(sizeof *verifying);
    *verifying = (struct verifying){queue, fn, ctx, status};
    read_epoch(queue, verified, verifying);
    return true;
}

/* --- going on with another one
 * ----------------------------------------------------------------- */

struct accepting {
    queue_fn *fn;
    void *ctx;
};

static void accepted(void *ctx, const struct redis_value *value)
{
    struct accepting accepting = *(struct accepting *)ctx;
    free(ctx);
    struct err err = {""};
    enum queue_status status = queue_failed(value, &err) ? queue_status_of(value, &err) : QUEUE_OK;
    accepting.fn(accepting.ctx, status, err.text);
}

void queue_accept_epoch(struct queue *queue, queue_fn *fn, void *ctx)
{
    struct accepting *accepting = mem_must_zalloc(sizeof *accepting);
    *accepting = (struct accepting){fn, ctx};
    ask(queue, "accept", "", accepted, accepting);
}
