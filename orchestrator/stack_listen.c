#include "orchestrator/stack_listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/access.h"
#include "common/paths.h"
#include "common/sha256.h"
#include "orchestrator/key_files.h"
#include "schemas/mem.h"

#define CERTIFICATE_DAYS "3650"

/* The host listened on, without port and brackets. The caller frees. */
static char *host_of(const struct config *config)
{
    const char *text = config->listen, *colon = strrchr(text, ':');
    size_t len = (size_t)(colon - text);
    return text[0] == '[' ? mem_must_strndup(text + 1, len - 2) : mem_must_strndup(text, len);
}

static char *file_of_host(const struct config *config, const char *suffix)
{
    char *host = host_of(config);
    char *path = mem_must_printf("%s/redis-%s.%s", config->curve_keys, host, suffix);
    free(host);
    return path;
}

char *stack_listen_certificate(const struct config *config)
{
    return file_of_host(config, "crt");
}

char *stack_listen_key(const struct config *config)
{
    return file_of_host(config, "key");
}

char *stack_listen_users(const struct config *config)
{
    return path_of(config->home, PATH_REDIS "/users.acl");
}

/* Whole or not at all, for its user only. */
static int write_private(const char *path, const char *text, struct err *err)
{
    char *draft = mem_must_printf("%s.new", path);
    int fd = open(draft, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    size_t len = strlen(text);
    int rc = fd >= 0 && write(fd, text, len) == (ssize_t)len && fsync(fd) == 0 ? 0 : -errno;
    if (fd >= 0)
        close(fd);
    if (rc == 0 && rename(draft, path) != 0)
        rc = -errno;
    if (rc != 0)
        err_set(err, rc, "cannot write %s: %s", path, strerror(-rc));
    free(draft);
    return rc;
}

/* --- the certificate -------------------------------------------------------------------------- */

/* Runs openssl, whose words are few and ours. What it says is in its log. */
static int run_openssl(char *const *argv, const char *log)
{
    int status = 0;
    pid_t pid = fork();
    if (pid == 0) {
        int fd = open(log, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        umask(077);
        dup2(fd, STDOUT_FILENO);
        dup2(fd, STDERR_FILENO);
        execvp(argv[0], argv);
        _exit(errno == ENOENT ? 127 : 126);
    }
    if (pid < 0)
        return -errno;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return -errno;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
        return -ENOENT;
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EIO;
}

static int make_certificate(const struct config *config, struct err *err)
{
    unsigned char address[16];
    char *certificate = stack_listen_certificate(config), *key = stack_listen_key(config);
    char *draft = mem_must_printf("%s.new", certificate), *host = host_of(config);
    char *log = path_of(config->home, PATH_LOG "/openssl.log");
    bool ip = inet_pton(AF_INET, host, address) == 1 || inet_pton(AF_INET6, host, address) == 1;
    char *name = mem_must_printf("subjectAltName=%s:%s", ip ? "IP" : "DNS", host);
    char *argv[] = {"openssl",
                    "req",
                    "-x509",
                    "-newkey",
                    "ec",
                    "-pkeyopt",
                    "ec_paramgen_curve:prime256v1",
                    "-nodes",
                    "-days",
                    CERTIFICATE_DAYS,
                    "-subj",
                    "/CN=orchestrator",
                    "-addext",
                    name,
                    "-keyout",
                    key,
                    "-out",
                    draft,
                    NULL};
    int rc = access(certificate, R_OK) == 0 && access(key, R_OK) == 0 ? 0 : -EAGAIN;
    if (rc == -EAGAIN) {
        rc = run_openssl(argv, log);
        if (rc == 0 && rename(draft, certificate) != 0)
            rc = -errno;
    }
    if (rc == -ENOENT)
        err_set(err, rc,
                "there is no `openssl` on this machine, which makes the certificate of "
                "Redis: install it");
    else if (rc != 0)
        err_set(err, rc, "openssl made no certificate for %s: %s says why", host, log);
    free(certificate);
    free(key);
    free(draft);
    free(host);
    free(log);
    free(name);
    return rc;
}

/* --- users ------------------------------------------------------------------------------------ */

/* Our own user's password, made when there is none, and the file that redis-server reads. */
static int make_users(const struct config *config, struct err *err)
{
    char password[ACCESS_PASSWORD_SIZE], hash[SHA256_HEX_SIZE];
    char *file = path_of(config->curve_keys, CONFIG_REDIS_PASSWORD);
    char *users = stack_listen_users(config);
    const char *own = config->redis.password;
    int rc = 0;
    if (own == NULL) {
        access_password_make(password);
        rc = write_private(file, password, err);
        own = password;
    }
    sha256_hex_of(own, strlen(own), hash);
    char *line = mem_must_printf("user default on #%s ~* &* +@all\n", hash);
    if (rc == 0)
        rc = write_private(users, line, err);
    explicit_bzero(password, sizeof password);
    free(line);
    free(file);
    free(users);
    return rc;
}

int stack_listen_prepare(const struct config *config, struct err *err)
{
    char *listen = path_of(config->home, PATH_RUN_LISTEN);
    int rc = key_files_stack(config, err);
    if (config->listen == NULL) {
        unlink(listen);
        free(listen);
        return rc;
    }
    if (rc == 0)
        rc = path_make(config->curve_keys, err);
    if (rc == 0)
        rc = make_certificate(config, err);
    if (rc == 0)
        rc = make_users(config, err);
    if (rc == 0)
        rc = write_private(listen, config->listen, err);
    free(listen);
    return rc;
}
