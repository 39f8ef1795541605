#include "workers/vectors.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

int vectors_check(const struct provider_call *call, struct err *err)
{
    if (call->n_inputs == 0)
        return err_set(err, -EINVAL, "there is no text to make a vector of");
    for (size_t i = 0; i < call->n_inputs; i++)
        if (call->inputs[i][0] == '\0')
            return err_set(err, -EINVAL, "text %zu of %zu is empty: it has no vector", i + 1,
                           call->n_inputs);
    return 0;
}

/* Sum of the squares, counting the numbers; < 0 when one of them is no finite number. */
static double squares(struct json_view vector, size_t *ret_count)
{
    struct json_view number;
    double sum = 0;
    *ret_count = 0;
    while (json_view_next(&vector, NULL, &number)) {
        double value = json_view_num(number, NAN);
        if (!isfinite(value))
            return -1;
        sum += value * value;
        ++*ret_count;
    }
    return isfinite(sum) ? sum : -1;
}

static void add_scaled(struct buf *out, struct json_view number, double scale)
{
    char digits[40];
    snprintf(digits, sizeof digits, "%.9g", json_view_num(number, 0) * scale);
    char *comma = strchr(digits, ','); /* of the locale */
    if (comma != NULL)
        *comma = '.';
    buf_add_str(out, digits);
}

static void add_vector(struct buf *out, struct json_view vector, double scale)
{
    struct json_view number;
    char before = '[';
    buf_reserve(out, vector.len);
    while (json_view_next(&vector, NULL, &number)) {
        buf_add_char(out, before);
        before = ',';
        if (scale == 1)
            buf_add(out, number.text, number.len);
        else
            add_scaled(out, number, scale);
    }
    buf_add_char(out, ']');
}

#define UNIT_TOLERANCE 1e-3 /* of a length: float32 and seven digits stay far below */

static double scale_of(double sum, enum vectors_length length)
{
    bool is_unit = fabs(sqrt(sum) - 1) <= UNIT_TOLERANCE;
    return length == VECTORS_AS_SENT || is_unit || sum <= 0 ? 1 : 1 / sqrt(sum);
}

static void read_list(struct provider_reply *reply, struct json_view list, const char *member,
                      enum vectors_length length)
{
    struct json_view item;
    size_t n = 0, dimensions = 0;
    while (reply->error == CLASS_NONE && json_view_next(&list, NULL, &item)) {
        struct json_view vector = member != NULL ? json_view_member(item, member) : item;
        size_t count = 0;
        double sum = vector.kind == JSON_VIEW_ARRAY ? squares(vector, &count) : -1;
        if (sum < 0 || count == 0 || (n > 0 && count != dimensions)) {
            provider_reply_fail(reply, CLASS_BAD_RESPONSE,
                                "vector %zu of the answer is no array of as many numbers as the "
                                "others have",
                                n + 1);
            return;
        }
        dimensions = count;
        buf_add_char(&reply->text, n == 0 ? '[' : ',');
        add_vector(&reply->text, vector, scale_of(sum, length));
        n++;
    }
    if (n != reply->n_inputs || n == 0)
        provider_reply_fail(reply, CLASS_BAD_RESPONSE, "%zu texts were sent and %zu vectors came",
                            reply->n_inputs, n);
    if (reply->dimensions > 0 && (int64_t)dimensions != reply->dimensions)
        provider_reply_fail(reply, CLASS_BAD_REQUEST,
                            "vectors of %lld numbers were asked for and have %zu: the model or its "
                            "server takes no dimensions",
                            (long long)reply->dimensions, dimensions);
    buf_add_char(&reply->text, ']');
    if (reply->text.failed)
        provider_reply_fail(reply, CLASS_RETRY, "out of memory while reading the vectors");
}

void vectors_read(struct provider_reply *reply, struct json_view list, const char *member,
                  enum vectors_length length)
{
    buf_clear(&reply->text);
    read_list(reply, list, member, length);
    if (reply->error != CLASS_NONE) {
        buf_clear(&reply->text); /* some of the vectors are no answer */
        return;
    }
    reply->finish = FINISH_DONE;
    reply->finished = true;
}
