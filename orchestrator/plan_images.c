#include "orchestrator/plan_images.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "schemas/buf.h"
#include "schemas/mem.h"

#define MIB (1024 * 1024)
#define URL_MAX 2048

const char *plan_image_type(const char *data, size_t len)
{
    /* . stands for any byte */
    static const struct {
        const char *type, *start;
        size_t len;
    } types[] = {
        {"image/png", "\x89PNG\r\n\x1a\n", 8},
        {"image/jpeg", "\xff\xd8\xff", 3},
        {"image/gif", "GIF87a", 6},
        {"image/gif", "GIF89a", 6},
        {"image/webp", "RIFF....WEBP", 12},
    };
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        size_t same = 0;
        while (same < types[i].len && same < len &&
               (types[i].start[same] == '.' || types[i].start[same] == data[same]))
            same++;
        if (same == types[i].len)
            return types[i].type;
    }
    return NULL;
}

/* RFC 4648, with padding. */
static char *base64(const unsigned char *data, size_t len)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char *text = mem_must_zalloc((len + 2) / 3 * 4 + 1);
    char *out = text;
    for (size_t i = 0; i < len; i += 3) {
        size_t left = len - i;
        unsigned bits = (unsigned)data[i] << 16;
        bits |= left > 1 ? (unsigned)data[i + 1] << 8 : 0;
        bits |= left > 2 ? (unsigned)data[i + 2] : 0;
        *out++ = digits[bits >> 18];
        *out++ = digits[bits >> 12 & 63];
        *out++ = left > 1 ? digits[bits >> 6 & 63] : '=';
        *out++ = left > 2 ? digits[bits & 63] : '=';
    }
    return text;
}

static bool is_url(const char *where)
{
    return strncmp(where, "http://", 7) == 0 || strncmp(where, "https://", 8) == 0;
}

static int add_url(struct plan_images *images, const char *url, struct err *err)
{
    size_t len = strlen(url);
    for (const char *at = url; *at != '\0'; at++)
        if (*at <= ' ' || *at > '~')
            return err_set(err, -EINVAL, "image %.80s: the address has a character that none has",
                           url);
    if (len > URL_MAX || url[len - 1] == '/')
        return err_set(err, -EINVAL, "image %.80s: that is no usable address", url);
    json_array_append_new(images->list, json_pack("{s:s}", "url", url));
    return 0;
}

/* A whole regular file of at most `most` bytes. */
static int read_file(const char *path, size_t most, struct buf *out, struct err *err)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        const char *why = fd >= 0 ? "it is no regular file" : strerror(errno);
        int rc = err_set(err, -EINVAL, "cannot read the image %.256s: %s", path, why);
        if (fd >= 0)
            close(fd);
        return rc;
    }
    ssize_t got = 1;
    while (got > 0 && out->len <= most && buf_reserve(out, 65536)) {
        got = read(fd, out->data + out->len, 65536);
        out->len += got > 0 ? (size_t)got : 0;
    }
    int saved = errno;
    close(fd);
    if (got < 0 || out->failed)
        return err_set(err, -EINVAL, "cannot read the image %.256s: %s", path,
                       strerror(got < 0 ? saved : ENOMEM));
    if (out->len > most)
        return err_set(err, -EINVAL,
                       "image %.256s: the images of a subtask may have %d MiB together", path,
                       (int)(PLAN_IMAGES_MAX_BYTES / MIB));
    return 0;
}

static int add_file(struct plan_images *images, const char *path, struct err *err)
{
    struct buf data = {0};
    int rc = read_file(path, PLAN_IMAGES_MAX_BYTES - images->bytes, &data, err);
    const char *type = rc == 0 && data.len > 0 ? plan_image_type(data.data, data.len) : NULL;
    if (rc == 0 && type == NULL)
        rc = err_set(err, -EINVAL, "image %.256s: it is no PNG, JPEG, GIF or WebP", path);
    if (rc == 0) {
        char *text = base64((const unsigned char *)data.data, data.len);
        json_array_append_new(images->list,
                              json_pack("{s:s, s:s}", "media_type", type, "data", text));
        images->bytes += data.len;
        free(text);
    }
    buf_release(&data);
    return rc;
}

int plan_images_add(struct plan_images *images, const char *where, const char *folder,
                    struct err *err)
{
    if (images->list == NULL && (images->list = json_array()) == NULL)
        abort();
    if (json_array_size(images->list) >= PLAN_IMAGES_MAX)
        return err_set(err, -EINVAL, "image %.80s: a subtask may have %d images", where,
                       PLAN_IMAGES_MAX);
    if (is_url(where))
        return add_url(images, where, err);
    char *path = folder != NULL && *where != '/' ? mem_must_printf("%s/%s", folder, where)
                                                 : mem_must_strdup(where);
    int rc = add_file(images, path, err);
    free(path);
    return rc;
}

char *plan_images_take(struct plan_images *images)
{
    char *text = json_array_size(images->list) > 0 ? json_dumps(images->list, JSON_COMPACT)
                                                   : mem_must_strdup("");
    if (text == NULL)
        abort();
    plan_images_release(images);
    return text;
}

void plan_images_release(struct plan_images *images)
{
    json_decref(images->list);
    *images = (struct plan_images){0};
}
