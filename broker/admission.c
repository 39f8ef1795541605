#include "broker/admission.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/log.h"
#include "schemas/mem.h"

/* A key and until when it is marked. */
struct admission_mark {
    char public_key[KEYRING_KEY_SIZE];
    int64_t until_ms;
    UT_hash_handle hh;
};

static struct admission_mark *find_mark(struct admission_mark *marks, const char *public_key)
{
    struct admission_mark *mark;
    HASH_FIND_STR(marks, public_key, mark);
    return mark;
}

static void set_mark(struct admission_mark **marks, const char *public_key, int64_t until_ms)
{
    struct admission_mark *mark = find_mark(*marks, public_key);
    if (mark == NULL) {
        mark = mem_must_zalloc(sizeof *mark);
        strncpy(mark->public_key, public_key, sizeof mark->public_key - 1);
        HASH_ADD_STR(*marks, public_key, mark);
    }
    mark->until_ms = until_ms;
}

static void remove_mark(struct admission_mark **marks, struct admission_mark *mark)
{
    HASH_DEL(*marks, mark);
    free(mark);
}

static void clear_marks(struct admission_mark **marks)
{
    struct admission_mark *mark, *next;
    HASH_ITER (hh, *marks, mark, next)
        remove_mark(marks, mark);
}

/* Changes when a file comes or goes. */
static int64_t stamp_of(const char *dir)
{
    static const char *const names[] = {"", "/allow"};
    uint64_t stamp = 0;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct stat st;
        char *path = mem_must_printf("%s%s", dir, names[i]);
        if (stat(path, &st) == 0)
            stamp = stamp * 31 + (uint64_t)st.st_mtim.tv_sec * 1000000000 +
                    (uint64_t)st.st_mtim.tv_nsec;
        free(path);
    }
    return (int64_t)stamp;
}

/* A damaged file keeps out whom it means; the others are let in. */
static void read_files(struct admission *admission, int64_t now_ms)
{
    struct err err = {0};
    admission->stamp = stamp_of(admission->dir);
    admission->read_ms = now_ms;
    if (keyring_read(admission->keyring, admission->dir, &err) != 0)
        log_warn("%s", err.text);
}

int admission_open(struct admission *admission, const char *dir, int64_t now_ms, struct err *err)
{
    *admission = (struct admission){.started_ms = now_ms};
    if (dir == NULL)
        return 0;
    int rc = keyring_load(dir, "broker", &admission->pair, err);
    if (rc != 0)
        return rc;
    admission->keyring = keyring_new();
    admission->dir = mem_must_strdup(dir);
    read_files(admission, now_ms);
    return 0;
}

bool admission_refresh(struct admission *admission, int64_t now_ms)
{
    if (admission->keyring == NULL || now_ms - admission->looked_ms < ADMISSION_LOOK_MS)
        return false;
    admission->looked_ms = now_ms;
    if (now_ms - admission->read_ms < ADMISSION_READ_MS &&
        stamp_of(admission->dir) == admission->stamp)
        return false;
    read_files(admission, now_ms);
    return true;
}

void admission_release(struct admission *admission)
{
    clear_marks(&admission->admitted);
    clear_marks(&admission->tapping);
    clear_marks(&admission->banned);
    keyring_free(&admission->keyring);
    free(admission->dir);
    admission->dir = NULL;
    explicit_bzero(&admission->pair, sizeof admission->pair);
}

const struct keyring_entry *admission_find(const struct admission *admission,
                                           const char *public_key)
{
    return public_key[0] != '\0' ? keyring_find(admission->keyring, public_key) : NULL;
}

static bool banned(struct admission *admission, const char *public_key, int64_t now_ms)
{
    struct admission_mark *mark = find_mark(admission->banned, public_key);
    if (mark == NULL)
        return false;
    if (now_ms < mark->until_ms)
        return true;
    remove_mark(&admission->banned, mark);
    return false;
}

enum bus_answer admission_answer(struct admission *admission, const char *public_key, bool taps,
                                 int64_t now_ms, bool *ret_first)
{
    *ret_first = false;
    const struct keyring_entry *entry = admission_find(admission, public_key);
    if (entry == NULL)
        return !admission->told && now_ms - admission->started_ms < ADMISSION_LATER_MS ? BUS_LATER
                                                                                       : BUS_REFUSE;
    if (banned(admission, public_key, now_ms) ||
        entry->role == (taps ? KEYRING_WORKER : KEYRING_TAP))
        return BUS_REFUSE;
    if (taps)
        set_mark(&admission->tapping, public_key, 0);
    *ret_first = find_mark(admission->admitted, public_key) == NULL;
    set_mark(&admission->admitted, public_key, 0);
    return BUS_ADMIT;
}

bool admission_revise(struct admission *admission)
{
    struct admission_mark *mark, *next;
    bool tap = false;
    HASH_ITER (hh, admission->admitted, mark, next)
        if (admission_find(admission, mark->public_key) == NULL)
            remove_mark(&admission->admitted, mark);
    HASH_ITER (hh, admission->tapping, mark, next) {
        const struct keyring_entry *entry = admission_find(admission, mark->public_key);
        tap |= entry == NULL || entry->role == KEYRING_WORKER;
    }
    return tap;
}

size_t admission_replace(struct admission *admission, const char *const *lines, size_t n)
{
    admission->told = true;
    return keyring_replace(admission->keyring, lines, n);
}

const char **admission_admitted(const struct admission *admission, size_t *ret_n)
{
    const char **keys = mem_must_zalloc((HASH_COUNT(admission->admitted) + 1) * sizeof *keys);
    size_t n = 0;
    for (struct admission_mark *at = admission->admitted; at != NULL; at = at->hh.next)
        keys[n++] = at->public_key;
    *ret_n = n;
    return keys;
}

void admission_forget_taps(struct admission *admission)
{
    clear_marks(&admission->tapping);
}

void admission_ban(struct admission *admission, const char *public_key, int64_t now_ms)
{
    if (public_key[0] != '\0' && HASH_COUNT(admission->banned) < ADMISSION_BANS_MAX)
        set_mark(&admission->banned, public_key, now_ms + ADMISSION_BAN_MS);
}
