/* Any text is an invitation or an error with a sentence (first byte t); any record that may be in
 * one is read back as it was written. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/invitation.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool accepted(const char *text, size_t len, struct message *ret)
{
    struct err err = {""};
    char *copy = malloc(len > 0 ? len : 1);
    memcpy(copy, text, len);
    int rc = invitation_read(ret, copy, len, &err);
    free(copy);
    if ((rc == 0) != (err.text[0] == '\0'))
        abort();
    return rc == 0;
}

static void check_record(const uint8_t *data, size_t size)
{
    struct message record, again;
    struct buf once = {0}, twice = {0};
    if (message_decode_as(&record, MESSAGE_invitation, data, size) != 0)
        return;
    if (invitation_write_as(&record.invitation, &once) == 0 &&
        accepted(once.data, once.len, &again)) {
        if (invitation_write_as(&again.invitation, &twice) != 0 || once.len != twice.len ||
            memcmp(once.data, twice.data, once.len) != 0)
            abort();
        message_release(&again);
    }
    buf_release(&once);
    buf_release(&twice);
    message_release(&record);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct message message;
    if (size == 0)
        return 0;
    if (data[0] != 't')
        check_record(data + 1, size - 1);
    else if (accepted((const char *)data + 1, size - 1, &message))
        message_release(&message);
    return 0;
}
