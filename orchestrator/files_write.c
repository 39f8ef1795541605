/* Writes files below a directory that a model must not leave: every step of a path is opened on
 * its own, relative to the one before, without following links. */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/task_id.h"
#include "orchestrator/files.h"
#include "schemas/mem.h"

#define FILE_MODE 0644
#define DIR_MODE 0755

/* The kernel keeps the walk below `dir` as well (Linux 5.6); where it can't, O_NOFOLLOW and names
 * without slashes do the same for one step. */
static int open_step(int dir, const char *name, int flags)
{
    struct open_how how = {
        .flags = (uint64_t)(unsigned)(flags | O_NOFOLLOW | O_CLOEXEC),
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
    };
    int fd = (int)syscall(SYS_openat2, dir, name, &how, sizeof how);
    if (fd < 0 && (errno == ENOSYS || errno == EPERM || errno == EINVAL))
        fd = openat(dir, name, flags | O_NOFOLLOW | O_CLOEXEC);
    return fd;
}

/* The directory that the file is to be in; made where missing. Negative errno on failure. The name
 * of the file is in ret_name. */
static int open_parent(int root, const char *path, bool make, const char **ret_name)
{
    int dir = fcntl(root, F_DUPFD_CLOEXEC, 3);
    if (dir < 0)
        return -errno;
    char step[FILES_NAME_MAX + 1];
    const char *at = path;
    for (const char *slash; (slash = strchr(at, '/')) != NULL; at = slash + 1) {
        snprintf(step, sizeof step, "%.*s", (int)(slash - at), at);
        if (make && mkdirat(dir, step, DIR_MODE) != 0 && errno != EEXIST) {
            int rc = -errno;
            close(dir);
            return rc;
        }
        int next = open_step(dir, step, O_RDONLY | O_DIRECTORY);
        int rc = -errno;
        close(dir);
        if (next < 0)
            return rc;
        dir = next;
    }
    *ret_name = at;
    return dir;
}

static const char *why_of(int rc)
{
    switch (-rc) {
    case ELOOP:
        return "a symbolic link is in the way";
    case ENOTDIR:
        return "a part of the path is a file or a symbolic link, not a directory";
    case EXDEV:
        return "the path leads out of the directory";
    case EEXIST:
        return "the file exists; --force replaces it";
    case EISDIR:
        return "a directory has that name";
    case EPERM:
        return "something that is no regular file has that name";
    case ENOSPC:
    case EDQUOT:
        return "no space is left on the device; nothing of the file was kept";
    case EFBIG:
        return "the file is larger than this system allows; nothing of it was kept";
    default:
        return strerror(-rc);
    }
}

static int write_all(int fd, const char *data, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, data, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        data += n;
        len -= (size_t)n;
    }
    return fsync(fd) == 0 ? 0 : -errno;
}

/* Renames without replacing; file systems without that get a link, which doesn't replace either. */
static int rename_new(int dir, const char *from, const char *to)
{
    if (renameat2(dir, from, dir, to, RENAME_NOREPLACE) == 0)
        return 0;
    if (errno != EINVAL && errno != ENOSYS)
        return -errno;
    if (linkat(dir, from, dir, to, 0) != 0)
        return -errno;
    unlinkat(dir, from, 0);
    return 0;
}

/* What is at the name now. 0 with its permissions (FILE_MODE for a new file), or why it stays. */
static int check_place(int dir, const char *name, bool force, mode_t *ret_mode)
{
    struct stat st;
    if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) != 0) {
        *ret_mode = 0;
        return errno == ENOENT ? 0 : -errno;
    }
    if (S_ISLNK(st.st_mode))
        return -ELOOP;
    if (S_ISDIR(st.st_mode))
        return -EISDIR;
    if (!force)
        return -EEXIST;
    *ret_mode = st.st_mode & 0777;
    return S_ISREG(st.st_mode) ? 0 : -EPERM;
}

static int write_file(int dir, const char *name, const struct files_entry *entry, bool force)
{
    mode_t mode;
    int rc = check_place(dir, name, force, &mode);
    if (rc != 0)
        return rc;
    char nonce[17], temporary[32];
    boot_nonce_make(nonce);
    snprintf(temporary, sizeof temporary, ".new-%s", nonce);
    int fd =
        openat(dir, temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, FILE_MODE);
    if (fd < 0)
        return -errno;
    rc = write_all(fd, entry->data, entry->len);
    if (rc == 0 && mode != 0 && fchmod(fd, mode) != 0)
        rc = -errno;
    if (close(fd) != 0 && rc == 0)
        rc = -errno;
    if (rc == 0 && force)
        rc = renameat(dir, temporary, dir, name) == 0 ? 0 : -errno;
    else if (rc == 0)
        rc = rename_new(dir, temporary, name);
    if (rc != 0)
        unlinkat(dir, temporary, 0);
    else
        fsync(dir); /* the name too; a file system that can't is no failure */
    return rc;
}

/* --- edits of files that exist -------------------------------------------------------------- */

static int read_file(int dir, const char *name, char **ret, size_t *ret_len)
{
    int fd = open_step(dir, name, O_RDONLY | O_NONBLOCK);
    if (fd < 0)
        return -errno;
    struct stat st;
    int rc = fstat(fd, &st) != 0 ? -errno : !S_ISREG(st.st_mode) ? -EPERM : 0;
    if (rc == 0 && (uint64_t)st.st_size > FILES_MAX_BYTES)
        rc = -EFBIG;
    char *data = rc == 0 ? mem_must_zalloc((size_t)st.st_size + 1) : NULL;
    size_t len = 0;
    while (rc == 0 && len < (size_t)st.st_size) {
        ssize_t n = read(fd, data + len, (size_t)st.st_size - len);
        if (n == 0)
            break;
        if (n < 0 && errno != EINTR)
            rc = -errno;
        len += n > 0 ? (size_t)n : 0;
    }
    close(fd);
    if (rc != 0) {
        free(data);
        return rc;
    }
    *ret = data;
    *ret_len = len;
    return 0;
}

/* Makes the data of an entry that has only edits. NULL, or why not. */
static const char *resolve_edits(int root, struct files_entry *entry, bool force)
{
    const char *name = "";
    char *base = NULL;
    size_t base_len = 0;
    int dir = open_parent(root, entry->path, false, &name);
    int rc = dir < 0 ? dir : read_file(dir, name, &base, &base_len);
    if (dir >= 0)
        close(dir);
    if (rc == -ENOENT && entry->edits[0].search_len > 0)
        return "the file that it edits does not exist";
    if (rc != 0 && rc != -ENOENT)
        return why_of(rc);
    const char *problem = NULL;
    if (rc == 0 && !force)
        problem = "it edits a file that exists; --force allows that";
    else
        problem = files_entry_edit(entry, base != NULL ? base : "", base_len);
    free(base);
    return problem;
}

/* --- the directory -------------------------------------------------------------------------- */

/* mkdir -p, with the permissions that a person's own mkdir would give. */
static int make_directory(const char *dir, struct err *err)
{
    char *path = mem_must_strdup(dir);
    for (char *at = path + 1; at[-1] != '\0' && *at != '\0'; at++) {
        if (*at != '/')
            continue;
        *at = '\0';
        mkdir(path, 0777); /* the last mkdir says what is wrong */
        *at = '/';
    }
    int rc = mkdir(path, 0777) == 0 || errno == EEXIST ? 0 : -errno;
    free(path);
    return rc == 0
               ? 0
               : err_set(err, rc, "cannot make the directory %s: %s; give another one with --out",
                         dir, strerror(-rc));
}

static const char *write_entry(int root, struct files_entry *entry, bool force)
{
    const char *problem = entry->data == NULL ? resolve_edits(root, entry, force) : NULL;
    if (problem != NULL)
        return problem;
    const char *name = "";
    int dir = open_parent(root, entry->path, true, &name);
    int rc = dir < 0 ? dir : write_file(dir, name, entry, force);
    if (dir >= 0)
        close(dir);
    entry->written = rc == 0;
    return rc == 0 ? NULL : why_of(rc);
}

int files_write(struct files *files, const char *dir, bool force, struct err *err)
{
    int rc = make_directory(dir, err);
    if (rc != 0)
        return rc;
    int root = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (root < 0)
        return err_set(err, -errno, "cannot open the directory %s: %s; give another one with --out",
                       dir, strerror(errno));
    for (size_t i = 0; i < files->n_entries; i++) {
        struct files_entry *entry = &files->entries[i];
        const char *problem = write_entry(root, entry, force);
        if (problem != NULL)
            files_complain(files, entry->path, strlen(entry->path), entry->source, "%s", problem);
    }
    close(root);
    return 0;
}
