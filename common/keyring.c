#include "common/keyring.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

#include "common/containers.h"
#include "common/paths.h"
#include "schemas/mem.h"

#define KEY_LEN (KEYRING_KEY_SIZE - 1)
#define NAME_MAX_LEN (sizeof((struct keyring_entry *)0)->name - 1)
#define FILES_MAX 10000 /* in allow/; as many as a `keys` message may hold */
#define ALLOW "allow"

#define Z85 "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"

/* --- roles and keys ----------------------------------------------------------------------- */

static const char *const role_names[KEYRING_ROLE_COUNT] = {
#define X(constant, text) [KEYRING_##constant] = text,
    KEYRING_ROLES(X)
#undef X
};

const char *keyring_role_name(enum keyring_role role)
{
    return (size_t)role < KEYRING_ROLE_COUNT ? role_names[role] : "nobody";
}

enum keyring_role keyring_role_parse(const char *text, size_t len)
{
    size_t role = 0;
    while (role < KEYRING_ROLE_COUNT &&
           (strlen(role_names[role]) != len || memcmp(role_names[role], text, len) != 0))
        role++;
    return (enum keyring_role)role;
}

int keyring_make(struct keyring_pair *ret, struct err *err)
{
    if (zmq_curve_keypair(ret->public_key, ret->secret_key) == 0)
        return 0;
    return err_set(err, -ENOTSUP,
                   "cannot make a CURVE key: %s; use a libzmq that was built with CURVE",
                   zmq_strerror(errno));
}

bool keyring_valid(const char *text, size_t len)
{
    char copy[KEYRING_KEY_SIZE];
    uint8_t key[32];
    if (len != KEY_LEN)
        return false;
    memcpy(copy, text, len);
    copy[len] = '\0';
    return strspn(copy, Z85) == len && zmq_z85_decode(key, copy) != NULL;
}

bool keyring_name_valid(const char *name, size_t len)
{
    if (len == 0 || len > NAME_MAX_LEN || name[0] == '.')
        return false;
    for (size_t i = 0; i < len; i++)
        if (name[i] < 0x21 || name[i] > 0x7e || name[i] == '/')
            return false;
    return true;
}

/* --- files -------------------------------------------------------------------------------- */

static char *file_of(const char *dir, const char *name, const char *suffix)
{
    return mem_must_printf("%s/%s%s", dir, name, suffix);
}

static int write_all(int fd, const char *key)
{
    char line[KEYRING_KEY_SIZE + 1];
    int len = snprintf(line, sizeof line, "%s\n", key);
    ssize_t written = write(fd, line, (size_t)len);
    explicit_bzero(line, sizeof line);
    if (written < 0)
        return -errno;
    return written == len ? (fsync(fd) == 0 ? 0 : -errno) : -ENOSPC;
}

/* Whole or not at all, and never in the place of another file: written beside it, then linked. */
static int write_key(const char *path, const char *key, mode_t mode)
{
    char *beside = mem_must_printf("%s.XXXXXX", path);
    int fd = mkstemp(beside);
    int rc = fd >= 0 ? 0 : -errno;
    if (rc == 0) {
        rc = fchmod(fd, mode) == 0 ? write_all(fd, key) : -errno;
        close(fd);
        if (rc == 0 && link(beside, path) != 0)
            rc = -errno;
        unlink(beside);
    }
    free(beside);
    return rc;
}

static int write_failed(struct err *err, int rc, const char *path)
{
    return rc == -EEXIST
               ? err_set(err, rc, "%s is there already: remove it first if it is to be replaced",
                         path)
               : err_set(err, rc, "cannot write %s: %s", path, strerror(-rc));
}

int keyring_save(const char *dir, const char *name, const struct keyring_pair *pair,
                 struct err *err)
{
    int rc = path_make(dir, err);
    if (rc != 0)
        return rc;
    char *secret = file_of(dir, name, ".key"), *public = file_of(dir, name, ".pub");
    const char *path = secret;
    rc = write_key(secret, pair->secret_key, 0600);
    if (rc == 0) {
        path = public;
        rc = write_key(public, pair->public_key, 0644);
        if (rc != 0)
            unlink(secret);
    }
    if (rc != 0)
        write_failed(err, rc, path);
    free(secret);
    free(public);
    return rc;
}

static int read_failed(struct err *err, int rc, const char *path)
{
    return rc == -ENOENT
               ? err_set(err, rc,
                         "there is no key %s: make one with `orchestrator keys init`, or join with "
                         "a token of `orchestrator invite`",
                         path)
               : err_set(err, rc, "cannot read the key %s: %s", path, strerror(-rc));
}

/* One line of Z85 and nothing else. */
static int read_open(int fd, const char *path, bool secret, char ret[KEYRING_KEY_SIZE],
                     struct err *err)
{
    char text[KEYRING_KEY_SIZE + 2]; /* a longer file shows as one that fills it */
    struct stat st;
    if (fstat(fd, &st) != 0)
        return read_failed(err, -errno, path);
    if (!S_ISREG(st.st_mode))
        return err_set(err, -EINVAL, "%s is no file", path);
    if (secret && (st.st_mode & 077) != 0)
        return err_set(err, -EPERM, "others may read the secret key %s: chmod 600 %s", path, path);
    ssize_t len = read(fd, text, sizeof text);
    if (len < 0)
        return read_failed(err, -errno, path);
    size_t key_len = (size_t)len > 0 && text[len - 1] == '\n' ? (size_t)len - 1 : (size_t)len;
    bool valid = keyring_valid(text, key_len);
    if (valid)
        memcpy(ret, text, KEY_LEN);
    ret[valid ? KEY_LEN : 0] = '\0';
    explicit_bzero(text, sizeof text);
    return valid
               ? 0
               : err_set(err, -EINVAL, "%s holds no key: 40 characters of Z85 and a newline", path);
}

static int read_key(const char *path, bool secret, char ret[KEYRING_KEY_SIZE], struct err *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return read_failed(err, -errno, path);
    int rc = read_open(fd, path, secret, ret, err);
    close(fd);
    return rc;
}

int keyring_load_public(const char *dir, const char *name, char ret[KEYRING_KEY_SIZE],
                        struct err *err)
{
    char *path = file_of(dir, name, ".pub");
    int rc = read_key(path, false, ret, err);
    free(path);
    return rc;
}

/* What NAME.pub says must be what the secret key gives; without the file, that is taken. */
static int check_public(const char *dir, const char *name, struct keyring_pair *pair,
                        struct err *err)
{
    char given[KEYRING_KEY_SIZE];
    if (zmq_curve_public(pair->public_key, pair->secret_key) != 0)
        return err_set(err, -ENOTSUP, "cannot use CURVE keys: %s", zmq_strerror(errno));
    int rc = keyring_load_public(dir, name, given, err);
    if (rc == -ENOENT)
        return 0;
    if (rc == 0 && strcmp(given, pair->public_key) != 0)
        rc = err_set(err, -EINVAL, "%s/%s.pub is not the public key of %s.key: remove it", dir,
                     name, name);
    return rc;
}

int keyring_load(const char *dir, const char *name, struct keyring_pair *ret, struct err *err)
{
    struct keyring_pair pair = {0};
    char *path = file_of(dir, name, ".key");
    int rc = read_key(path, true, pair.secret_key, err);
    if (rc == 0)
        rc = check_public(dir, name, &pair, err);
    if (rc == 0)
        *ret = pair;
    explicit_bzero(&pair, sizeof pair);
    free(path);
    return rc;
}

/* A public key alone is another host's: then there is nothing to make here. */
static int init_pair(const char *dir, const char *name, struct err *err)
{
    struct keyring_pair pair = {0};
    char *secret = file_of(dir, name, ".key"), *public = file_of(dir, name, ".pub");
    bool has_secret = access(secret, F_OK) == 0, has_public = access(public, F_OK) == 0;
    int rc = 0;
    if (has_secret) {
        rc = keyring_load(dir, name, &pair, err);
        if (rc == 0 && !has_public)
            rc = write_key(public, pair.public_key, 0644);
    } else if (!has_public) {
        rc = keyring_make(&pair, err);
        if (rc == 0)
            rc = keyring_save(dir, name, &pair, err);
        if (rc == -EEXIST)
            rc = 0; /* somebody else did the same just now */
    }
    explicit_bzero(&pair, sizeof pair);
    free(secret);
    free(public);
    return rc;
}

int keyring_init(const char *dir, struct err *err)
{
    int rc = path_make(dir, err);
    if (rc == 0)
        rc = init_pair(dir, "broker", err);
    if (rc == 0)
        rc = init_pair(dir, "orchestrator", err);
    return rc;
}

/* --- who may connect ---------------------------------------------------------------------- */

struct item {
    struct keyring_entry entry;
    UT_hash_handle hh; /* by public key */
};

/* Two sets: what the files say stays when orchestrators tell another list. */
struct keyring {
    struct item *files, *told;
};

struct keyring *keyring_new(void)
{
    return mem_must_zalloc(sizeof(struct keyring));
}

static void clear(struct item **items)
{
    struct item *item, *next;
    HASH_ITER (hh, *items, item, next) {
        HASH_DEL(*items, item);
        free(item);
    }
}

void keyring_free(struct keyring **keyring)
{
    if (*keyring == NULL)
        return;
    clear(&(*keyring)->files);
    clear(&(*keyring)->told);
    free(*keyring);
    *keyring = NULL;
}

/* False when the key is there already: one key is good for one name. */
static bool add(struct item **items, enum keyring_role role, const char *name, size_t name_len,
                const char *key)
{
    struct item *item;
    HASH_FIND(hh, *items, key, KEY_LEN, item);
    if (item != NULL)
        return false;
    item = mem_must_zalloc(sizeof *item);
    item->entry.role = role;
    memcpy(item->entry.name, name, name_len);
    memcpy(item->entry.public_key, key, KEY_LEN);
    HASH_ADD(hh, *items, entry.public_key, KEY_LEN, item);
    return true;
}

/* ROLE-NAME.pub */
static int parse_file_name(const char *file, enum keyring_role *ret_role, const char **ret_name,
                           size_t *ret_len)
{
    size_t len = strlen(file);
    const char *dash = strchr(file, '-');
    if (len <= 4 || strcmp(file + len - 4, ".pub") != 0 || dash == NULL)
        return -EINVAL;
    *ret_role = keyring_role_parse(file, (size_t)(dash - file));
    *ret_name = dash + 1;
    *ret_len = (size_t)(file + len - 4 - *ret_name);
    return *ret_role != KEYRING_ROLE_COUNT && dash + 1 < file + len - 4 &&
                   keyring_name_valid(*ret_name, *ret_len)
               ? 0
               : -EINVAL;
}

static int read_allowed(struct keyring *keyring, const char *dir, const char *file, struct err *err)
{
    char key[KEYRING_KEY_SIZE];
    enum keyring_role role;
    const char *name;
    size_t name_len;
    if (parse_file_name(file, &role, &name, &name_len) != 0)
        return err_set(err, -EINVAL,
                       "%s/%s allows nobody: call it ROLE-NAME.pub with role orchestrator, worker "
                       "or tap",
                       dir, file);
    char *path = file_of(dir, file, "");
    int rc = read_key(path, false, key, err);
    if (rc == 0 && !add(&keyring->files, role, name, name_len, key))
        rc = err_set(err, -EINVAL, "%s has the key of another file: one key is for one name", path);
    free(path);
    return rc;
}

static int visible(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

static int read_allow(struct keyring *keyring, const char *dir, struct err *err)
{
    struct dirent **files = NULL;
    int rc = 0, n = scandir(dir, &files, visible, alphasort);
    if (n < 0 && errno != ENOENT)
        return err_set(err, -errno, "cannot read %s: %s", dir, strerror(errno));
    for (int i = 0; i < n; i++) {
        if (i < FILES_MAX && read_allowed(keyring, dir, files[i]->d_name, err) != 0)
            rc = -EINVAL;
        free(files[i]);
    }
    free(files);
    if (n > FILES_MAX)
        rc = err_set(err, -EINVAL, "%s holds more than %d files: the others allow nobody", dir,
                     FILES_MAX);
    return rc;
}

int keyring_read(struct keyring *keyring, const char *dir, struct err *err)
{
    static const char own[] = "orchestrator";
    char key[KEYRING_KEY_SIZE];
    clear(&keyring->files);
    int own_rc = keyring_load_public(dir, own, key, err);
    if (own_rc == 0)
        add(&keyring->files, KEYRING_ORCHESTRATOR, own, strlen(own), key);
    char *allow = file_of(dir, ALLOW, "");
    int rc = read_allow(keyring, allow, err);
    free(allow);
    return own_rc != 0 && own_rc != -ENOENT ? -EINVAL : rc;
}

static bool add_line(struct keyring *keyring, const char *line)
{
    const char *space = strchr(line, ' ');
    const char *name = space != NULL ? space + 1 : NULL;
    const char *end = name != NULL ? strchr(name, ' ') : NULL;
    if (end == NULL)
        return false;
    enum keyring_role role = keyring_role_parse(line, (size_t)(space - line));
    size_t name_len = (size_t)(end - name);
    return role != KEYRING_ROLE_COUNT && keyring_name_valid(name, name_len) &&
           keyring_valid(end + 1, strlen(end + 1)) &&
           add(&keyring->told, role, name, name_len, end + 1);
}

size_t keyring_replace(struct keyring *keyring, const char *const *lines, size_t n)
{
    size_t damaged = 0;
    clear(&keyring->told);
    for (size_t i = 0; i < n; i++)
        damaged += add_line(keyring, lines[i]) ? 0 : 1;
    return damaged;
}

const struct keyring_entry *keyring_find(const struct keyring *keyring, const char *public_key)
{
    struct item *item = NULL;
    if (strlen(public_key) != KEY_LEN)
        return NULL;
    HASH_FIND(hh, keyring->files, public_key, KEY_LEN, item);
    if (item == NULL)
        HASH_FIND(hh, keyring->told, public_key, KEY_LEN, item);
    return item != NULL ? &item->entry : NULL;
}

size_t keyring_size(const struct keyring *keyring)
{
    return HASH_COUNT(keyring->files) + HASH_COUNT(keyring->told);
}
