#include "common/invitation.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/keyring.h"
#include "common/paths.h"
#include "common/sha256.h"
#include "schemas/mem.h"

#define PREFIX "orch_"
#define CONFIG_FILE "config.yaml"
#define MADE_FILE "made" /* when the invitation was made, ms */

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/* --- text ------------------------------------------------------------------------------------- */

static void add_base64(struct buf *out, const uint8_t *data, size_t len)
{
    for (size_t i = 0; i < len; i += 3) {
        size_t n = len - i < 3 ? len - i : 3;
        uint32_t bits = (uint32_t)data[i] << 16;
        bits |= n > 1 ? (uint32_t)data[i + 1] << 8 : 0;
        bits |= n > 2 ? data[i + 2] : 0;
        for (size_t digit = 0; digit <= n; digit++)
            buf_add_char(out, alphabet[bits >> (18 - 6 * digit) & 63]);
    }
}

/* False at a character that cannot be there. */
static bool add_bytes(struct buf *out, const char *text, size_t len)
{
    uint32_t bits = 0;
    int n_bits = 0;
    for (size_t i = 0; i < len; i++) {
        const char *at = isspace((unsigned char)text[i]) ? NULL : strchr(alphabet, text[i]);
        if (at == NULL && isspace((unsigned char)text[i]))
            continue;
        if (at == NULL || *at == '\0')
            return false;
        bits = bits << 6 | (uint32_t)(at - alphabet);
        n_bits += 6;
        if (n_bits >= 8) {
            n_bits -= 8;
            buf_add_char(out, (char)(bits >> n_bits & 255));
        }
    }
    return true;
}

static void checksum(const char *data, size_t len, char ret[INVITATION_CHECK])
{
    char hex[SHA256_HEX_SIZE];
    sha256_hex_of(data, len, hex);
    for (size_t i = 0; i < INVITATION_CHECK; i++) {
        unsigned byte = 0;
        sscanf(hex + 2 * i, "%2x", &byte);
        ret[i] = (char)byte;
    }
}

int invitation_write(const struct msg_invitation *invitation, struct buf *out)
{
    struct msg_invitation own = *invitation;
    own.version = INVITATION_VERSION;
    return invitation_write_as(&own, out);
}

int invitation_write_as(const struct msg_invitation *invitation, struct buf *out)
{
    struct message message = {.type = MESSAGE_invitation, .invitation = *invitation};
    struct buf record = {0};
    char check[INVITATION_CHECK];
    int rc = message_encode(&message, &record);
    if (rc == 0) {
        checksum(record.data, record.len, check);
        buf_add(&record, check, sizeof check);
        buf_add_str(out, PREFIX);
        add_base64(out, (const uint8_t *)record.data, record.len);
        rc = record.failed || out->failed ? -ENOMEM : 0;
    }
    if (record.data != NULL)
        explicit_bzero(record.data, record.len);
    buf_release(&record);
    return rc;
}

/* --- reading ---------------------------------------------------------------------------------- */

static int check_fields(const struct msg_invitation *invitation, struct err *err)
{
    const char *role = invitation->role;
    if (invitation->version != INVITATION_VERSION)
        return err_set(err, -EPROTONOSUPPORT,
                       "the token is of version %lld and this program knows version %d: have the "
                       "same release on both machines",
                       (long long)invitation->version, INVITATION_VERSION);
    if (!keyring_name_valid(invitation->name, strlen(invitation->name)) ||
        keyring_role_parse(role, strlen(role)) == KEYRING_ROLE_COUNT ||
        !keyring_valid(invitation->broker_key, strlen(invitation->broker_key)) ||
        !keyring_valid(invitation->public_key, strlen(invitation->public_key)) ||
        !keyring_valid(invitation->secret_key, strlen(invitation->secret_key)) ||
        invitation->expires_ms < 0)
        return err_set(err, -EBADMSG, "the token is damaged: have a new one made");
    return 0;
}

static int decode(struct message *ret, const struct buf *bytes, struct err *err)
{
    char check[INVITATION_CHECK];
    if (bytes->len <= INVITATION_CHECK)
        return err_set(err, -EBADMSG, "the token is cut off: copy the whole line");
    size_t len = bytes->len - INVITATION_CHECK;
    checksum(bytes->data, len, check);
    if (memcmp(check, bytes->data + len, sizeof check) != 0)
        return err_set(err, -EBADMSG,
                       "the token is cut off, or a part of it was changed: copy the whole line");
    int rc = message_decode_as(ret, MESSAGE_invitation, bytes->data, len);
    if (rc == -EPROTONOSUPPORT)
        return err_set(err, rc,
                       "the token was made by another version of the programs: have the same "
                       "release on both machines");
    if (rc != 0)
        return rc == -ENOMEM ? rc
                             : err_set(err, -EBADMSG, "the token is damaged: have a new one made");
    rc = check_fields(&ret->invitation, err);
    if (rc != 0)
        message_release(ret);
    return rc;
}

int invitation_read(struct message *ret, const char *text, size_t len, struct err *err)
{
    struct buf bytes = {0};
    while (len > 0 && isspace((unsigned char)*text)) {
        text++;
        len--;
    }
    if (len > INVITATION_MAX_BYTES || len < strlen(PREFIX) ||
        memcmp(text, PREFIX, strlen(PREFIX)) != 0)
        return err_set(err, -EINVAL,
                       "that is no token: it begins with " PREFIX
                       " and is what `orchestrator invite` prints");
    bool valid = add_bytes(&bytes, text + strlen(PREFIX), len - strlen(PREFIX));
    int rc = bytes.failed ? -ENOMEM : 0;
    if (!valid)
        rc = err_set(err, -EBADMSG, "the token has a character that cannot be in it: copy it anew");
    if (rc == 0)
        rc = decode(ret, &bytes, err);
    if (rc == -ENOMEM)
        err_set(err, rc, "no memory is left to read the token");
    if (bytes.data != NULL)
        explicit_bzero(bytes.data, bytes.len);
    buf_release(&bytes);
    return rc;
}

static int read_all(int fd, struct buf *ret)
{
    ssize_t got = 1;
    while (got > 0 && ret->len <= INVITATION_MAX_BYTES && buf_reserve(ret, 4096)) {
        got = read(fd, ret->data + ret->len, 4096);
        if (got < 0)
            return -errno;
        ret->len += (size_t)got;
        ret->data[ret->len] = '\0';
    }
    return ret->failed ? -ENOMEM : 0;
}

int invitation_fetch(const char *given, struct buf *ret, struct err *err)
{
    if (strcmp(given, "-") != 0 && given[0] != '@') {
        buf_add_str(ret, given);
        return ret->failed ? -ENOMEM : 0;
    }
    bool standard = given[0] == '-';
    int fd = standard ? STDIN_FILENO : open(given + 1, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    int rc = fd < 0 ? -errno : read_all(fd, ret);
    if (fd >= 0 && !standard)
        close(fd);
    if (rc != 0)
        err_set(err, rc, "cannot read the token from %s: %s",
                standard ? "standard input" : given + 1, strerror(-rc));
    return rc;
}

/* --- files ------------------------------------------------------------------------------------ */

/* Removes a directory of ours, two levels deep. */
static void remove_tree(const char *dir, int depth)
{
    DIR *handle = opendir(dir);
    struct dirent *entry;
    while (handle != NULL && (entry = readdir(handle)) != NULL) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        char *path = path_of(dir, entry->d_name);
        if (unlink(path) != 0 && depth > 0)
            remove_tree(path, depth - 1);
        free(path);
    }
    if (handle != NULL)
        closedir(handle);
    rmdir(dir);
}

static int write_file(const char *dir, const char *name, const char *data, size_t len,
                      struct err *err)
{
    char *path = path_of(dir, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    int rc = fd < 0 ? -errno : 0;
    for (size_t done = 0; rc == 0 && done < len;) {
        ssize_t put = write(fd, data + done, len - done);
        if (put > 0)
            done += (size_t)put;
        else
            rc = put < 0 && errno == EINTR ? 0 : put < 0 ? -errno : -ENOSPC;
    }
    if (rc == 0 && fsync(fd) != 0)
        rc = -errno;
    if (fd >= 0)
        close(fd);
    if (rc != 0)
        err_set(err, rc, "cannot write %s: %s", path, strerror(-rc));
    free(path);
    return rc;
}

/* The names under which programs look for their own keys (keyring.h): daemons and tools have one
 * of the directory. */
static char *own_key(const struct msg_invitation *invitation)
{
    const char *worker = keyring_role_name(KEYRING_WORKER);
    if (strcmp(invitation->role, worker) == 0)
        return mem_must_printf("%s-%s", worker, invitation->name);
    return mem_must_strdup(keyring_role_name(KEYRING_ORCHESTRATOR));
}

static int write_keys(const char *dir, const struct msg_invitation *invitation, struct err *err)
{
    struct keyring_pair pair = {{0}, {0}};
    char *keys = path_of(dir, PATH_KEYS), *name = own_key(invitation);
    char *broker = mem_must_printf("%s\n", invitation->broker_key);
    memcpy(pair.public_key, invitation->public_key, KEYRING_KEY_SIZE);
    memcpy(pair.secret_key, invitation->secret_key, KEYRING_KEY_SIZE);
    int rc = path_make(keys, err);
    if (rc == 0)
        rc = write_file(keys, "broker.pub", broker, strlen(broker), err);
    if (rc == 0)
        rc = keyring_save(keys, name, &pair, err);
    explicit_bzero(&pair, sizeof pair);
    free(keys);
    free(name);
    free(broker);
    return rc;
}

/* Whether this very invitation was accepted before: its key is what is there. */
static bool accepted(const char *dir, const struct msg_invitation *invitation)
{
    struct keyring_pair pair;
    char *keys = path_of(dir, PATH_KEYS), *name = own_key(invitation);
    bool same = keyring_load(keys, name, &pair, NULL) == 0 &&
                strcmp(pair.secret_key, invitation->secret_key) == 0;
    explicit_bzero(&pair, sizeof pair);
    free(keys);
    free(name);
    return same;
}

/* When the invitation that is there was made, ms; 0: none is, or it does not say. */
static int64_t made_ms(const char *dir)
{
    long long ms = 0;
    char *path = path_of(dir, MADE_FILE);
    FILE *file = fopen(path, "re");
    if (file != NULL && fscanf(file, "%18lld", &ms) != 1)
        ms = 0;
    if (file != NULL)
        fclose(file);
    free(path);
    return ms;
}

/* What is complete takes the place of what was there, which is then in the draft's. */
static int replace(const char *draft, const char *dir, struct err *err)
{
    int rc = renameat2(AT_FDCWD, draft, AT_FDCWD, dir, RENAME_EXCHANGE) == 0 ? 0 : -errno;
    if (rc == 0)
        remove_tree(draft, 1);
    else if (rc == -ENOENT)
        rc = rename(draft, dir) == 0 ? 0 : -errno;
    return rc == 0 ? 0 : err_set(err, rc, "cannot write %s: %s", dir, strerror(-rc));
}

static int write_all(const char *joined, const char *dir, const struct msg_invitation *invitation,
                     struct err *err)
{
    char *draft = mem_must_printf("%s/.%s.new", joined, invitation->name); /* no name begins so */
    int rc = path_make(joined, err);
    remove_tree(draft, 1);
    if (rc == 0)
        rc = path_make(draft, err);
    if (rc == 0)
        rc = write_keys(draft, invitation, err);
    if (rc == 0 && invitation->redis_ca.len > 0)
        rc = write_file(draft, INVITATION_REDIS_CA, invitation->redis_ca.data,
                        invitation->redis_ca.len, err);
    if (rc == 0)
        rc = write_file(draft, CONFIG_FILE, invitation->config.data, invitation->config.len, err);
    char made[32];
    int made_len = snprintf(made, sizeof made, "%lld\n", (long long)invitation->created_ms);
    if (rc == 0)
        rc = write_file(draft, MADE_FILE, made, (size_t)made_len, err);
    if (rc == 0)
        rc = replace(draft, dir, err);
    if (rc != 0)
        remove_tree(draft, 1);
    free(draft);
    return rc;
}

int invitation_accept(const char *home, const struct msg_invitation *invitation, int64_t now_ms,
                      char **ret_config, struct err *err)
{
    char *joined = path_of(home, PATH_JOINED), *dir = path_of(joined, invitation->name);
    int rc = 0;
    if (!accepted(dir, invitation)) {
        if (invitation->expires_ms > 0 && invitation->expires_ms <= now_ms)
            rc = err_set(err, -ETIME,
                         "the token for %s `%s` has expired: have a new one made with "
                         "`orchestrator invite` (or is the clock of this machine wrong?)",
                         invitation->role, invitation->name);
        else if (made_ms(dir) > invitation->created_ms)
            rc = err_set(
                err, -ESTALE,
                "the token for %s `%s` is older than the one that was used here last: start "
                "without it, or have a new one made with `orchestrator invite`",
                invitation->role, invitation->name);
        else
            rc = write_all(joined, dir, invitation, err);
    }
    if (rc == 0)
        *ret_config = path_of(dir, CONFIG_FILE);
    free(joined);
    free(dir);
    return rc;
}

char *invitation_config(const char *home, const char *name)
{
    if (!keyring_name_valid(name, strlen(name)))
        return NULL;
    char *path = mem_must_printf("%s/" PATH_JOINED "/%s/" CONFIG_FILE, home, name);
    if (access(path, R_OK) == 0)
        return path;
    free(path);
    return NULL;
}
