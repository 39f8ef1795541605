#include "common/config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/config_tables.h"
#include "common/detect.h"
#include "common/paths.h"
#include "schemas/mem.h"

int config_parse(struct config **ret, const char *name, const char *text, size_t len,
                 struct err *err)
{
    return config_read(ret, name, text, len, NULL, NULL, err);
}

static void release_fields(const struct config_field *fields, size_t n_fields, void *base)
{
    for (size_t i = 0; i < n_fields; i++)
        if (fields[i].kind->release != NULL)
            fields[i].kind->release(&fields[i], base);
}

void config_free(struct config **config)
{
    if (*config == NULL)
        return;
    for (size_t i = 0; i < config_n_sections; i++) {
        const struct config_section *section = &config_sections[i];
        size_t count;
        char *items = config_items(*config, section, &count);
        for (size_t n = 0; n < count; n++) {
            char *name;
            memcpy(&name, items + n * section->size, sizeof name);
            if (!section->list)
                free(name); /* elsewhere the name is one of the fields */
            release_fields(section->fields, section->n_fields, items + n * section->size);
        }
        free(items);
    }
    release_fields(config_fields, config_n_fields, *config);
    free((*config)->path);
    free((*config)->home);
    free(*config);
    *config = NULL;
}

#define FIND(type, member, key)                                                                    \
    const struct config_##type *config_##type(const struct config *config, const char *name)       \
    {                                                                                              \
        for (size_t i = 0; i < config->n_##member; i++)                                            \
            if (config->member[i].key != NULL && strcmp(config->member[i].key, name) == 0)         \
                return &config->member[i];                                                         \
        return NULL;                                                                               \
    }
FIND(provider, providers, name)
FIND(model, models, alias)
FIND(worker, workers, name)
FIND(role, roles, name)

/* --- finding the file ---------------------------------------------------------------------- */

static bool is_set(const char *text)
{
    return text != NULL && text[0] != '\0';
}

/* Whether a supervisor of a local stack listens on the control socket. */
static bool stack_lives(const char *home)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char *path = path_of(home, PATH_STACK_SOCKET);
    bool fits = strlen(path) < sizeof address.sun_path;
    if (fits)
        memcpy(address.sun_path, path, strlen(path));
    free(path);
    int fd = fits ? socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0) : -1;
    bool lives = fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) == 0;
    if (fd >= 0)
        close(fd);
    return lives;
}

/* $XDG_CONFIG_HOME/orchestrator/config.yaml, when it is there; NULL: not. */
static char *user_file(void)
{
    const char *xdg = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
    char *path = NULL;
    if (xdg != NULL && xdg[0] == '/')
        path = mem_must_printf("%s/orchestrator/config.yaml", xdg);
    else if (home != NULL && home[0] == '/')
        path = mem_must_printf("%s/.config/orchestrator/config.yaml", home);
    if (path != NULL && access(path, F_OK) != 0) {
        free(path);
        path = NULL;
    }
    return path;
}

/* What this machine has joined as a daemon or tap. */
static char *joined_file(void)
{
    char *home = path_home(NULL);
    if (home == NULL)
        return NULL;
    char *link = path_of(home, PATH_JOINED_DEFAULT "/config.yaml");
    char *path = realpath(link, NULL); /* its keys are beside it */
    free(home);
    free(link);
    return path;
}

static char *running_file(void)
{
    char *home = path_home(NULL);
    if (home == NULL)
        return NULL;
    char *path = stack_lives(home) ? path_of(home, PATH_RUN_CONFIG) : NULL;
    free(home);
    if (path != NULL && access(path, R_OK) != 0) {
        free(path);
        path = NULL;
    }
    return path;
}

static char *find_file(const char *path)
{
    const char *from_env = getenv("ORCHESTRATOR_CONFIG");
    if (path != NULL)
        return mem_must_strdup(path);
    if (is_set(from_env))
        return mem_must_strdup(from_env);
    char *found = user_file();
    if (found == NULL)
        found = joined_file();
    return found != NULL ? found : running_file();
}

char *config_where(const char *path)
{
    return find_file(path);
}

int config_read_file(const char *path, bool regular, struct buf *text)
{
    struct stat st;
    /* without waiting for the writer of a pipe, when that could not be used anyway */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | (regular ? O_NONBLOCK : 0));
    if (fd < 0)
        return -errno;
    ssize_t got = 1;
    int rc = regular && (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) ? -EINVAL : 0;
    while (rc == 0 && got > 0 && text->len <= YAML_MAX_BYTES && buf_reserve(text, 65536)) {
        got = read(fd, text->data + text->len, 65536);
        text->len += got > 0 ? (size_t)got : 0;
    }
    if (rc == 0)
        rc = got < 0 ? -errno : text->failed ? -ENOMEM : 0;
    close(fd);
    return rc;
}

static int read_text(const char *path, struct buf *text, struct err *err)
{
    int rc = config_read_file(path, false, text);
    if (rc != 0)
        err_set(err, rc, "cannot read the configuration %s: %s", path, strerror(-rc));
    return rc;
}

static int read_config(struct config **ret, const char *path, config_problem_fn *fn, void *ctx,
                       struct err *err)
{
    char *file = find_file(path);
    if (file == NULL)
        return detect_config(ret, err);
    struct buf text = {0};
    int rc = read_text(file, &text, err);
    if (rc != 0 && fn != NULL)
        fn(ctx, false, err->text);
    if (rc == 0)
        rc = config_read(ret, file, text.len > 0 ? text.data : "", text.len, fn, ctx, err);
    buf_release(&text);
    free(file);
    return rc == 0 || rc == -ENOENT || rc == -ENOMEM ? rc : -EINVAL;
}

int config_check(struct config **ret, const char *path, config_problem_fn *fn, void *ctx,
                 struct err *err)
{
    struct err local = {""};
    int rc = read_config(ret, path, fn, ctx, err != NULL ? err : &local);
    const struct config *config = *ret;
    if (rc == 0 && config->listen == NULL && config->broker_local && config->redis_local &&
        stack_lives(config->home))
        rc = config_follow_listen(*ret);
    return rc;
}

int config_load(struct config **ret, const char *path, struct err *err)
{
    return config_check(ret, path, NULL, NULL, err);
}
