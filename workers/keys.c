#include "workers/keys.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/sha256.h"
#include "schemas/mem.h"

extern char **environ;

/* A beginning of a key that is taken for its rest cut off: anywhere, and at the end of a text. */
#define KEY_PART 8
#define KEY_PART_CUT 4

/* Its digest is that of no other use of the same value. */
#define FINGERPRINT_PREFIX "orchestrator key\n"

struct key {
    size_t refs;
    char fingerprint[KEY_FINGERPRINT_SIZE];
    size_t len;
    char value[];
};

const char *key_value(const struct key *key)
{
    return key != NULL ? key->value : NULL;
}

const char *key_fingerprint(const struct key *key)
{
    return key != NULL ? key->fingerprint : "";
}

static void take_fingerprint(struct key *key)
{
    struct sha256 sha;
    char hex[SHA256_HEX_SIZE];
    sha256_init(&sha);
    sha256_add(&sha, FINGERPRINT_PREFIX, strlen(FINGERPRINT_PREFIX));
    sha256_add(&sha, key->value, key->len);
    sha256_hex(&sha, hex);
    memcpy(key->fingerprint, hex, KEY_FINGERPRINT_SIZE - 1);
    explicit_bzero(&sha, sizeof sha);
}

struct key *key_keep(struct key *key)
{
    if (key != NULL)
        key->refs++;
    return key;
}

void key_drop(struct key **key_ptr)
{
    struct key *key = *key_ptr;
    *key_ptr = NULL;
    if (key == NULL || --key->refs > 0)
        return;
    explicit_bzero(key->value, key->len);
    free(key);
}

/* How many bytes at `at` are the key or such a beginning of it as a cut may leave. */
static size_t key_part(const struct key *key, const char *at)
{
    size_t same = 0;
    while (same < key->len && at[same] == key->value[same])
        same++;
    bool cut = at[same] == '\0' || strncmp(at + same, "...", 3) == 0;
    return same == key->len || same >= (cut ? KEY_PART_CUT : KEY_PART) ? same : 0;
}

void key_scrub(const struct key *key, char *text)
{
    if (key == NULL || key->len == 0)
        return;
    char *to = text;
    for (const char *from = text; *from != '\0';) {
        size_t part = key_part(key, from);
        size_t stars = part < 3 ? part : 3;
        if (part == 0) {
            *to++ = *from++;
            continue;
        }
        memset(to, '*', stars); /* never longer than what it replaces */
        to += stars;
        from += part;
    }
    *to = '\0';
}

/* --- sources ---------------------------------------------------------------------------------- */

/* Makes a key of the first line of the text. */
static int key_make(struct key **ret, const char *source, const char *text, size_t len,
                    struct err *err)
{
    const char *newline = memchr(text, '\n', len);
    if (newline != NULL)
        len = (size_t)(newline - text);
    while (len > 0 && isspace((unsigned char)text[len - 1]))
        len--;
    while (len > 0 && isspace((unsigned char)*text)) {
        text++;
        len--;
    }
    if (len == 0)
        return err_set(err, -EINVAL, "the key of %s is empty", source);
    if (len > KEY_MAX_BYTES)
        return err_set(err, -EINVAL, "the key of %s is longer than %zu bytes", source,
                       KEY_MAX_BYTES);
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)text[i] <= ' ' || (unsigned char)text[i] >= 0x7f)
            return err_set(err, -EINVAL,
                           "the key of %s has a blank or a character outside ASCII in it", source);
    struct key *key = mem_must_zalloc(sizeof *key + len + 1);
    *key = (struct key){.refs = 1, .len = len};
    memcpy(key->value, text, len);
    take_fingerprint(key);
    *ret = key;
    return 0;
}

static int read_env(struct key **ret, const char *source, const char *name, struct err *err)
{
    const char *value = getenv(name);
    if (value == NULL || value[0] == '\0')
        return err_set(err, -ENOENT, "the environment variable %s is not set", name);
    return key_make(ret, source, value, strlen(value), err);
}

/* Reads until a newline, the end, size bytes or the deadline. Returns a length or negative errno.
 */
static ssize_t read_line(int fd, char *text, size_t size, int64_t deadline_ms)
{
    size_t len = 0;
    while (len < size && memchr(text, '\n', len) == NULL) {
        struct pollfd ready = {.fd = fd, .events = POLLIN};
        int64_t left = deadline_ms - clock_ms();
        int rc = poll(&ready, 1, left > 0 ? (int)left : 0);
        if (rc < 0 && errno == EINTR)
            continue;
        if (rc <= 0)
            return rc < 0 ? -errno : -ETIMEDOUT;
        ssize_t got = read(fd, text + len, size - len);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -errno;
        if (got == 0)
            break;
        len += (size_t)got;
    }
    return (ssize_t)len;
}

static int read_file(struct key **ret, const char *source, const char *path, struct err *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return err_set(err, -errno, "cannot read the key file %s: %s", path, strerror(errno));
    char text[KEY_MAX_BYTES + 2] = "";
    ssize_t len = read_line(fd, text, sizeof text, clock_ms() + KEY_COMMAND_MS);
    close(fd);
    int rc = len < 0 ? err_set(err, (int)len, "cannot read the key file %s: %s", path,
                               strerror((int)-len))
                     : key_make(ret, source, text, (size_t)len, err);
    explicit_bzero(text, sizeof text);
    return rc;
}

/* Starts the command in a process group of its own, so that all of it can be ended. */
static int command_start(pid_t *ret_pid, int *ret_fd, const char *command)
{
    int pipe_fds[2];
    if (pipe2(pipe_fds, O_CLOEXEC) != 0)
        return -errno;
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t defaults;
    sigemptyset(&defaults);
    sigaddset(&defaults, SIGPIPE);
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, pipe_fds[1], STDOUT_FILENO);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGDEF);
    posix_spawnattr_setpgroup(&attributes, 0);
    posix_spawnattr_setsigdefault(&attributes, &defaults);
    const char *argv[] = {"sh", "-c", command, NULL};
    int rc = posix_spawn(ret_pid, "/bin/sh", &actions, &attributes, (char *const *)(uintptr_t)argv,
                         environ);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    close(pipe_fds[1]);
    if (rc != 0)
        close(pipe_fds[0]);
    else
        *ret_fd = pipe_fds[0];
    return -rc;
}

/* Exit status of the command; it is ended when it is not done by the deadline. */
static int command_reap(pid_t pid, int64_t deadline_ms)
{
    int status = 0;
    pid_t got;
    while ((got = waitpid(pid, &status, WNOHANG)) == 0 && clock_ms() < deadline_ms)
        poll(NULL, 0, 2);
    kill(-pid, SIGKILL); /* what it left behind, or all of it */
    while (got == 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return got > 0 && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int read_command(struct key **ret, const char *source, const char *command, struct err *err)
{
    int fd = -1;
    pid_t pid = -1;
    int rc = command_start(&pid, &fd, command);
    if (rc != 0)
        return err_set(err, rc, "cannot start the key command: %s", strerror(-rc));
    int64_t deadline_ms = clock_ms() + KEY_COMMAND_MS;
    char text[KEY_MAX_BYTES + 2] = "";
    ssize_t len = read_line(fd, text, sizeof text, deadline_ms);
    close(fd);
    bool line = len > 0 && memchr(text, '\n', (size_t)len) != NULL;
    int status = command_reap(pid, len == -ETIMEDOUT ? 0 : clock_ms() + 1000);
    if (len == -ETIMEDOUT)
        rc = err_set(err, -ETIMEDOUT, "the key command printed nothing within %d s: %s",
                     KEY_COMMAND_MS / 1000, command);
    else if (len < 0)
        rc = err_set(err, (int)len, "cannot read from the key command: %s", strerror((int)-len));
    else if (status > 0 && !line)
        rc = err_set(err, -EINVAL, "the key command ended with status %d: %s", status, command);
    else
        rc = key_make(ret, source, text, (size_t)len, err);
    explicit_bzero(text, sizeof text);
    return rc;
}

int key_read(struct key **ret, const char *source, struct err *err)
{
    static const struct {
        const char *prefix;
        int (*read)(struct key **ret, const char *source, const char *what, struct err *err);
    } kinds[] = {{"env:", read_env}, {"file:", read_file}, {"cmd:", read_command}};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        size_t len = strlen(kinds[i].prefix);
        if (strncmp(source, kinds[i].prefix, len) == 0)
            return kinds[i].read(ret, source, source + len, err);
    }
    return err_set(err, -EINVAL, "a key must be env:NAME, file:PATH or cmd:COMMAND");
}

/* --- the pool ----------------------------------------------------------------------------------
 */

struct keys {
    uv_loop_t *loop; /* borrowed */
    char **sources;
    struct key **items; /* one per source; NULL: could not be read */
    size_t n;
    keys_changed_fn *changed; /* NULL: nobody asks */
    void *ctx;
    struct reload *reload; /* in progress; NULL: none */
    bool again;            /* reload once more when that is done */
};

/* What the thread works on: it never touches the pool itself. */
struct reload {
    uv_work_t work;
    struct keys *keys; /* NULL: the pool was closed */
    char **sources;
    struct key **items;
    size_t n;
};

static void free_lists(char **sources, struct key **items, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        free(sources[i]);
        key_drop(&items[i]);
    }
    free(sources);
    free(items);
}

static char **copy_sources(const char *const *sources, size_t n)
{
    char **copy = mem_must_zalloc((n + 1) * sizeof *copy);
    for (size_t i = 0; i < n; i++)
        copy[i] = mem_must_strdup(sources[i]);
    return copy;
}

static size_t read_all(char *const *sources, struct key **items, size_t n, struct err *first)
{
    size_t good = 0;
    for (size_t i = 0; i < n; i++) {
        struct err err = {0};
        if (key_read(&items[i], sources[i], &err) == 0)
            good++;
        else if (first->text[0] == '\0')
            *first = err;
        if (err.text[0] != '\0')
            log_warn("%s", err.text);
    }
    return good;
}

int keys_open(struct keys **ret, uv_loop_t *loop, const char *const *sources, size_t n,
              bool may_be_empty, struct err *err)
{
    struct keys *keys = mem_must_zalloc(sizeof *keys);
    *keys = (struct keys){.loop = loop, .n = n};
    keys->sources = copy_sources(sources, n);
    keys->items = mem_must_zalloc((n + 1) * sizeof(struct key *));
    struct err first = {0};
    if (read_all(keys->sources, keys->items, n, &first) == 0 && n > 0 && !may_be_empty) {
        keys_close(&keys);
        return err_set(err, -ENOENT, "%s", first.text);
    }
    *ret = keys;
    return 0;
}

void keys_close(struct keys **keys_ptr)
{
    struct keys *keys = *keys_ptr;
    *keys_ptr = NULL;
    if (keys == NULL)
        return;
    if (keys->reload != NULL)
        keys->reload->keys = NULL;
    free_lists(keys->sources, keys->items, keys->n);
    free(keys);
}

size_t keys_count(const struct keys *keys)
{
    size_t count = 0;
    for (size_t i = 0; i < keys->n; i++)
        count += keys->items[i] != NULL;
    return count;
}

struct key *keys_at(const struct keys *keys, size_t place)
{
    size_t count = keys_count(keys);
    if (count == 0)
        return NULL;
    place %= count; /* the pool was larger when the place was given */
    size_t i = 0;
    while (keys->items[i] == NULL || place-- > 0)
        i++;
    return key_keep(keys->items[i]);
}

const char *keys_source(const struct keys *keys, const char *fingerprint)
{
    for (size_t i = 0; i < keys->n; i++)
        if (keys->items[i] != NULL && strcmp(keys->items[i]->fingerprint, fingerprint) == 0)
            return strncmp(keys->sources[i], "cmd:", 4) == 0 ? "cmd:" : keys->sources[i];
    return "";
}

static void reload_work(uv_work_t *work)
{
    struct reload *reload = work->data;
    struct err first = {0};
    read_all(reload->sources, reload->items, reload->n, &first);
}

static void reload_done(uv_work_t *work, int status)
{
    struct reload *reload = work->data;
    struct keys *keys = reload->keys;
    if (keys != NULL) {
        keys->reload = NULL;
        for (size_t i = 0; status == 0 && i < keys->n; i++) {
            struct key *fresh = reload->items[i];
            if (fresh == NULL)
                continue;
            reload->items[i] = keys->items[i];
            keys->items[i] = fresh;
        }
        log_info("keys read again: %zu of %zu are usable", keys_count(keys), keys->n);
        if (keys->changed != NULL)
            keys->changed(keys->ctx);
        if (keys->again)
            keys_reload(keys, keys->changed, keys->ctx);
    }
    free_lists(reload->sources, reload->items, reload->n);
    free(reload);
}

void keys_reload(struct keys *keys, keys_changed_fn *changed, void *ctx)
{
    keys->changed = changed;
    keys->ctx = ctx;
    keys->again = keys->reload != NULL;
    if (keys->reload != NULL || keys->n == 0)
        return;
    struct reload *reload = mem_must_zalloc(sizeof *reload);
    *reload = (struct reload){.keys = keys, .n = keys->n};
    reload->work.data = reload;
    reload->sources = copy_sources((const char *const *)keys->sources, keys->n);
    reload->items = mem_must_zalloc((keys->n + 1) * sizeof(struct key *));
    if (uv_queue_work(keys->loop, &reload->work, reload_work, reload_done) != 0) {
        free_lists(reload->sources, reload->items, reload->n);
        free(reload);
        return;
    }
    keys->reload = reload;
}
