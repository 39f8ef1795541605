#include "orchestrator/client_input.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "orchestrator/render.h"

static int read_all(struct buf *out, int fd, const char *name, struct err *err)
{
    for (;;) {
        if (!buf_reserve(out, 64 * 1024))
            return err_set(err, -ENOMEM, "%s: memory is out", name);
        ssize_t n = read(fd, out->data + out->len, 64 * 1024);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_set(err, -errno, "cannot read %s: %s", name, strerror(errno));
        if (n == 0)
            break;
        out->len += (size_t)n;
        out->data[out->len] = '\0';
        if (out->len > CLIENT_INPUT_MOST)
            return err_set(err, -EFBIG,
                           "with %s the task has more than %zu MiB, which is the most a task may "
                           "have: give less, or split it into several tasks",
                           name, CLIENT_INPUT_MOST / (1024 * 1024));
    }
    return 0;
}

int client_input_read(struct buf *out, const char *path, struct err *err)
{
    if (strcmp(path, "-") == 0)
        return read_all(out, STDIN_FILENO, "standard input", err);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_set(err, -errno, "cannot open %s: %s", path, strerror(errno));
    struct stat st;
    int rc = fstat(fd, &st) == 0 && S_ISDIR(st.st_mode)
                 ? err_set(err, -EINVAL, "%s is a directory: give the files in it", path)
                 : read_all(out, fd, path, err);
    close(fd);
    return rc;
}

int client_input_check(const struct buf *text, const char *what, struct err *err)
{
    if (text->len == 0)
        return 0;
    size_t valid = render_utf8_valid(text->data, text->len);
    const char *nul = memchr(text->data, '\0', text->len);
    if (nul != NULL && (size_t)(nul - text->data) < valid)
        return err_set(err, -EINVAL, "%s is not text: it has a zero byte at offset %zu", what,
                       (size_t)(nul - text->data));
    if (valid < text->len)
        return err_set(
            err, -EINVAL,
            "%s is not UTF-8 at offset %zu (byte 0x%02x): convert it with iconv -t UTF-8", what,
            valid, (unsigned)(unsigned char)text->data[valid]);
    return 0;
}

/* A fence that is longer than every run of backticks in the contents. */
static size_t fence_len(const struct buf *contents)
{
    size_t longest = 2, run = 0;
    for (size_t i = 0; i < contents->len; i++) {
        run = contents->data[i] == '`' ? run + 1 : 0;
        longest = run > longest ? run : longest;
    }
    return longest + 1;
}

static void add_fence(struct buf *out, size_t len)
{
    for (size_t i = 0; i < len; i++)
        buf_add_char(out, '`');
}

int client_input_attach(struct buf *out, const char *path, struct err *err)
{
    struct buf contents = {0};
    int rc = client_input_read(&contents, path, err);
    if (rc == 0)
        rc = client_input_check(&contents, path, err);
    if (rc == 0 && out->len + contents.len > CLIENT_INPUT_MOST)
        rc = err_set(err, -EFBIG,
                     "with %s the task has more than %zu MiB, which is the most a task may have: "
                     "attach less, or split it into several tasks",
                     path, CLIENT_INPUT_MOST / (1024 * 1024));
    if (rc == 0) {
        size_t fence = fence_len(&contents);
        buf_printf(out, "%sFile %s:\n\n", out->len > 0 ? "\n\n" : "", path);
        add_fence(out, fence);
        buf_add_char(out, '\n');
        buf_add(out, contents.data, contents.len);
        if (contents.len > 0 && contents.data[contents.len - 1] != '\n')
            buf_add_char(out, '\n');
        add_fence(out, fence);
        buf_add_char(out, '\n');
    }
    buf_release(&contents);
    return rc;
}
