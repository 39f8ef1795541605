/* The files of deploy/: units that give away little, and what the containers share. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/config.h"
#include "common/keyring.h"
#include "tests/lib/fixture.h"

static const char *const units[] = {"orchestrator-broker.service", "orchestrator.service",
                                    "orchestrator-worker@.service"};
#define N_UNITS (sizeof units / sizeof *units)

static const char *source(const char *name)
{
    static char path[1024];
    assert_non_null(getenv("ORCH_SOURCE"));
    snprintf(path, sizeof path, "%s/%s", getenv("ORCH_SOURCE"), name);
    return path;
}

static void units_are_exposed_to_less_than_3_of_10(void **state)
{
    static const char *const tools[] = {"/usr/bin/systemd-analyze", "/bin/systemd-analyze"};
    struct fixture fixture;
    const char *tool = access(tools[0], X_OK) == 0 ? tools[0] : tools[1];
    (void)state;
    if (access(tool, X_OK) != 0) {
        print_message("there is no systemd-analyze here\n");
        skip();
    }
    fixture_init(&fixture);
    for (size_t i = 0; i < N_UNITS; i++) {
        char name[128];
        struct buf out = {0};
        snprintf(name, sizeof name, "deploy/%s", units[i]);
        const char *argv[] = {
            tool, "security", "--offline=true", "--threshold=29", "--no-pager", source(name), NULL};
        if (fixture_run(&fixture, argv, &out, NULL) != 0)
            fail_msg("%s: %s", name, out.data);
        assert_non_null(strstr(out.data, "Overall exposure level"));
        buf_release(&out);
    }
    fixture_release(&fixture);
}

static void units_run_as_nobody_special_and_keep_their_files_private(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_UNITS; i++) {
        char name[128];
        struct buf text = {0};
        snprintf(name, sizeof name, "deploy/%s", units[i]);
        assert_true(fixture_read(source(name), &text));
        assert_non_null(strstr(text.data, "\nUser=orchestrator"));
        assert_non_null(strstr(text.data, "\nStateDirectoryMode=0700\n"));
        assert_non_null(strstr(text.data, "\nUMask=0077\n"));
        buf_release(&text);
    }
}

/* --- containers ------------------------------------------------------------------------------- */

static void make_shared(struct fixture *fixture)
{
    char path[256];
    static const char *const volumes[] = {"", "/main", "/workers", "/redis"};
    for (size_t i = 0; i < sizeof volumes / sizeof *volumes; i++) {
        snprintf(path, sizeof path, "%s/shared%s", fixture->dir, volumes[i]);
        mkdir(path, 0755);
    }
    char search[2048]; /* as in the image */
    snprintf(search, sizeof search, "%s:/usr/bin:/bin", getenv("ORCH_BIN"));
    setenv("PATH", search, 1);
    snprintf(path, sizeof path, "%s/shared", fixture->dir);
    setenv("ROOT", path, 1);
    setenv("TEMPLATE", source("deploy/compose.yaml"), 1);
    char script[1024];
    snprintf(script, sizeof script, "%s", source("deploy/compose-init.sh"));
    assert_int_equal(fixture_run(fixture,
                                 (const char *[]){"/bin/sh", script, "sim", "claude", NULL}, NULL,
                                 NULL),
                     0);
}

/* The configuration of one kind of container, and its password. */
static struct config *load(struct fixture *fixture, const char *name)
{
    char path[256];
    struct config *config = NULL;
    struct err err = {""};
    snprintf(path, sizeof path, "%s/shared/%s/config.yaml", fixture->dir, name);
    if (config_load(&config, path, &err) != 0)
        fail_msg("%s", err.text);
    assert_true(config->curve);
    assert_non_null(config->redis.password);
    return config;
}

static void containers_share_keys_and_passwords_that_are_made_once(void **state)
{
    struct fixture fixture;
    struct keyring_pair pair;
    struct err err = {""};
    struct buf before = {0}, after = {0};
    char path[256];
    (void)state;
    fixture_init(&fixture);
    make_shared(&fixture);
    struct config *own = load(&fixture, "main"), *workers = load(&fixture, "workers");
    assert_string_equal(own->redis.user, "default");
    assert_string_equal(workers->redis.user, "workers");
    assert_string_not_equal(own->redis.password, workers->redis.password);
    assert_int_equal(keyring_load(own->curve_keys, "broker", &pair, &err), 0);
    assert_int_equal(keyring_load(own->curve_keys, "orchestrator", &pair, &err), 0);
    assert_int_equal(keyring_load(workers->curve_keys, "worker-sim", &pair, &err), 0);
    assert_int_equal(keyring_load(workers->curve_keys, "worker-claude", &pair, &err), 0);
    assert_int_not_equal(keyring_load(workers->curve_keys, "broker", &pair, &err), 0);
    assert_int_not_equal(keyring_load(workers->curve_keys, "orchestrator", &pair, &err), 0);
    snprintf(path, sizeof path, "%s/shared/redis/users.acl", fixture.dir);
    assert_true(fixture_read(path, &before));
    make_shared(&fixture);
    assert_true(fixture_read(path, &after));
    assert_string_equal(before.data, after.data);
    assert_null(strstr(before.data, own->redis.password));
    config_free(&own);
    config_free(&workers);
    buf_release(&before);
    buf_release(&after);
    fixture_release(&fixture);
}

static void redis_takes_the_users_of_the_containers(void **state)
{
    struct fixture fixture;
    struct buf out = {0};
    char users[256], socket[256];
    (void)state;
    fixture_init(&fixture);
    make_shared(&fixture);
    struct config *workers = load(&fixture, "workers");
    snprintf(users, sizeof users, "%s/shared/redis/users.acl", fixture.dir);
    snprintf(socket, sizeof socket, "%s/r.sock", fixture.dir);
    fixture_spawn(&fixture, "redis.log",
                  (const char *[]){"/usr/bin/redis-server", "--port", "0", "--unixsocket", socket,
                                   "--aclfile", users, "--save", "", NULL});
    assert_true(fixture_wait_listen(socket, 0, 30000));
    setenv("REDISCLI_AUTH", workers->redis.password, 1);
    const struct {
        const char *words[4];
        const char *answer;
    } rows[] = {
        {{"hset", "orch:{s1}:task:t", "state", "x"}, "1"},
        {{"hset", "orch:{l:sim}:state", "x", "y"}, "1"},
        {{"hset", "orch:{d}:keys", "me", "x"}, "NOPERM"},
        {{"hset", "orch:{d}:access", "me", "x"}, "NOPERM"},
        {{"config", "get", "*", NULL}, "NOPERM"},
        {{"flushall", NULL, NULL, NULL}, "NOPERM"},
        {{"acl", "setuser", "me", "on"}, "NOPERM"},
        {{"keys", "*", NULL, NULL}, "NOPERM"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const char *const *words = rows[i].words;
        buf_clear(&out);
        fixture_run(&fixture,
                    (const char *[]){"/usr/bin/redis-cli", "-s", socket, "--user", "workers",
                                     words[0], words[1], words[2], words[3], NULL},
                    &out, NULL);
        if (strstr(out.data, rows[i].answer) == NULL)
            fail_msg("%s %s: %s", words[0], words[1] != NULL ? words[1] : "", out.data);
    }
    unsetenv("REDISCLI_AUTH");
    config_free(&workers);
    buf_release(&out);
    fixture_release(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(units_are_exposed_to_less_than_3_of_10),
        cmocka_unit_test(units_run_as_nobody_special_and_keep_their_files_private),
        cmocka_unit_test(containers_share_keys_and_passwords_that_are_made_once),
        cmocka_unit_test(redis_takes_the_users_of_the_containers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
