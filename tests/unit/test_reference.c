/* The generated documents are what the tables say. ORCH_UPDATE_DOCS=1 writes them anew. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/config.h"
#include "schemas/buf.h"
#include "schemas/message.h"
#include "tests/lib/fixture.h"

static void check_document(const char *name, void (*print)(struct buf *out))
{
    char path[1024];
    const char *source = getenv("ORCH_SOURCE"), *update = getenv("ORCH_UPDATE_DOCS");
    struct buf wanted = {0}, stored = {0};
    assert_non_null(source);
    snprintf(path, sizeof path, "%s/docs/%s", source, name);
    print(&wanted);
    assert_false(wanted.failed);
    if (update != NULL && strcmp(update, "1") == 0) {
        FILE *file = fopen(path, "we");
        assert_non_null(file);
        assert_int_equal(fwrite(wanted.data, 1, wanted.len, file), wanted.len);
        assert_int_equal(fclose(file), 0);
    }
    fixture_read(path, &stored);
    if (stored.len != wanted.len || memcmp(stored.data, wanted.data, wanted.len) != 0)
        fail_msg("docs/%s is not what the tables say: run this test with ORCH_UPDATE_DOCS=1", name);
    buf_release(&wanted);
    buf_release(&stored);
}

static void reference_of_the_configuration_is_current(void **state)
{
    (void)state;
    check_document("configuration.md", config_reference);
}

static void reference_of_the_messages_is_current(void **state)
{
    (void)state;
    check_document("messages.md", message_reference);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reference_of_the_configuration_is_current),
        cmocka_unit_test(reference_of_the_messages_is_current),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
