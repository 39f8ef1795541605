#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/lib/fixture.h"
#include "workers/blame.h"

#define TASK "t00000000000000aa"

static const struct blame_for one = {TASK, "a", "1-nonce"}, other = {TASK, "b", "2-nonce"};
static struct fixture fixture;
static char path[128];

static int setup(void **state)
{
    (void)state;
    fixture_init(&fixture);
    snprintf(path, sizeof path, "%s/w.now", fixture.dir);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    fixture_release(&fixture);
    return 0;
}

typedef void life_fn(struct blame *blame);

/* A process does that and is killed. */
static void live_and_die(life_fn *life)
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        life(blame_new(path));
        raise(SIGKILL);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
}

static void assert_blamed(const char *sub, const char *token)
{
    struct blame *blame = blame_new(path);
    struct blame_for last = blame_last(blame);
    assert_string_equal(last.token, token);
    if (token[0] != '\0') {
        assert_string_equal(last.task, TASK);
        assert_string_equal(last.sub, sub);
    }
    blame_free(&blame);
    assert_null(blame);
    blame_free(&blame);
}

static void work_on_one(struct blame *blame)
{
    blame_enter(blame, &other);
    blame_leave(blame);
    blame_enter(blame, &one);
}

static void come_through(struct blame *blame)
{
    blame_enter(blame, &one);
    blame_leave(blame);
}

static void who_was_at_work_is_blamed_once(void **state)
{
    (void)state;
    assert_blamed("", "");
    live_and_die(work_on_one);
    assert_blamed("a", "1-nonce");
    assert_blamed("", "");
}

static void who_came_through_is_not_blamed(void **state)
{
    (void)state;
    live_and_die(come_through);
    assert_blamed("", "");
}

static void a_damaged_file_blames_nobody(void **state)
{
    (void)state;
    char junk[4096];
    memset(junk, 'x', sizeof junk);
    FILE *file = fopen(path, "we");
    assert_non_null(file);
    assert_int_equal(fwrite(junk, 1, sizeof junk, file), sizeof junk);
    assert_int_equal(fclose(file), 0);
    assert_blamed("", "");
}

static void without_a_file_nobody_is_blamed(void **state)
{
    (void)state;
    snprintf(path, sizeof path, "%s/none/w.now", fixture.dir);
    live_and_die(work_on_one);
    assert_blamed("", "");
    blame_enter(NULL, &one); /* both accept NULL */
    blame_leave(NULL);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(who_was_at_work_is_blamed_once),
        TEST(who_came_through_is_not_blamed),
        TEST(a_damaged_file_blames_nobody),
        TEST(without_a_file_nobody_is_blamed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
