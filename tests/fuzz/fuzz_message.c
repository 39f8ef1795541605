/* Any bytes: decoded or refused, printed, and encoded again to what decodes the same. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "schemas/message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct message *message, const char *topic)
{
    struct buf text = {0}, bytes = {0};
    struct message again;
    message_print_json(message, topic, &text);
    message_print_line(message, topic, &text);
    if (message_encode(message, &bytes) != 0 || message_decode(&again, bytes.data, bytes.len) != 0)
        abort();
    message_release(&again);
    buf_release(&text);
    buf_release(&bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct message message;
    const char *topic = NULL;
    int rc = frame_is_event(data, size) ? event_decode(&message, &topic, data, size)
                                        : message_decode(&message, data, size);
    if (rc == 0) {
        check(&message, topic);
        message_release(&message);
    }
    return 0;
}
