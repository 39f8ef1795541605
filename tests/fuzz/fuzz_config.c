/* Any bytes are a configuration or an error; what is read prints as what reads back to the same. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    setenv("ORCHESTRATOR_HOME", "/tmp", 1);
    struct config *first = NULL, *second = NULL;
    struct err err = {""};
    char *copy = malloc(size + 1); /* an exact end, for the sanitizer */
    memcpy(copy, data, size);
    int rc = config_parse(&first, "/tmp/fuzz", copy, size, &err);
    free(copy);
    if (rc != 0) {
        if (err.text[0] == '\0')
            abort(); /* every refusal has a sentence */
        return 0;
    }
    struct buf once = {0}, twice = {0};
    config_print(first, &once);
    if (config_parse(&second, "/tmp/again", once.data, once.len, &err) != 0)
        abort();
    config_print(second, &twice);
    if (once.len != twice.len || memcmp(once.data, twice.data, once.len) != 0)
        abort();
    buf_release(&once);
    buf_release(&twice);
    config_free(&first);
    config_free(&second);
    return 0;
}
