/* Configurations that people copy: they must be valid. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/config.h"
#include "tests/lib/fixture.h"

static void read_source(const char *name, struct buf *out)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", getenv("ORCH_SOURCE"), name);
    assert_true(fixture_read(path, out));
}

static void check(const char *where, const char *yaml, size_t len)
{
    struct config *config = NULL;
    struct err err = {""};
    if (config_parse(&config, where, yaml, len, &err) != 0)
        fail_msg("%s\n%.*s", err.text, (int)len, yaml);
    config_free(&config);
}

static void the_configuration_of_the_containers_is_valid(void **state)
{
    (void)state;
    struct buf text = {0};
    read_source("deploy/compose.yaml", &text);
    check("deploy/compose.yaml", text.data, text.len);
    buf_release(&text);
}

/* The blocks between ```yaml and ``` that begin with a section of the configuration. Returns how
 * many there are. */
static int check_blocks(const char *name)
{
    static const char *const sections[] = {"providers:", "models:", "workers:", "redis:"};
    static const char open[] = "\n```yaml\n", close[] = "\n```";
    struct buf text = {0};
    int n = 0;
    read_source(name, &text);
    for (const char *at = text.data; (at = strstr(at, open)) != NULL;) {
        at += strlen(open);
        const char *end = strstr(at, close);
        assert_non_null(end);
        for (size_t i = 0; i < sizeof sections / sizeof *sections; i++) {
            if (strncmp(at, sections[i], strlen(sections[i])) != 0)
                continue;
            check(name, at, (size_t)(end - at));
            n++;
        }
        at = end;
    }
    buf_release(&text);
    return n;
}

static void the_examples_of_the_documents_are_valid(void **state)
{
    (void)state;
    assert_true(check_blocks("docs/providers.md") >= 10);
    assert_true(check_blocks("docs/operations.md") >= 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_configuration_of_the_containers_is_valid),
        cmocka_unit_test(the_examples_of_the_documents_are_valid),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
