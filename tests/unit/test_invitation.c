/* Tokens of `orchestrator invite`: whole they say all, damaged or expired nothing. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/invitation.h"
#include "common/keyring.h"
#include "schemas/mem.h"
#include "tests/lib/fixture.h"

#define NOW_MS 1000000

static const char config[] = "redis: redis://worker-w:secret@h:6379/0\n";

static struct msg_invitation sample(const struct keyring_pair *pair)
{
    return (struct msg_invitation){
        .name = "w",
        .role = "worker",
        .expires_ms = NOW_MS + 1,
        .broker_key = pair->public_key,
        .public_key = pair->public_key,
        .secret_key = pair->secret_key,
        .config = {.data = config, .len = sizeof config - 1},
    };
}

static struct keyring_pair make_pair(void)
{
    struct keyring_pair pair;
    assert_int_equal(keyring_make(&pair, NULL), 0);
    return pair;
}

static struct buf make_token(const struct msg_invitation *invitation)
{
    struct buf token = {0};
    assert_int_equal(invitation_write(invitation, &token), 0);
    return token;
}

static void token_brings_back_what_was_put_in(void **state)
{
    struct keyring_pair pair = make_pair();
    struct msg_invitation invitation = sample(&pair);
    struct buf token = make_token(&invitation), wrapped = {0};
    struct message message;
    struct err err = {""};
    (void)state;
    for (size_t i = 0; i < token.len; i += 70) /* as a mail program does it */
        buf_printf(&wrapped, "%s%.70s", i == 0 ? "  " : "\r\n ", token.data + i);
    const struct buf *forms[] = {&token, &wrapped};
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(invitation_read(&message, forms[i]->data, forms[i]->len, &err), 0);
        assert_string_equal(message.invitation.name, "w");
        assert_string_equal(message.invitation.role, "worker");
        assert_int_equal(message.invitation.expires_ms, NOW_MS + 1);
        assert_string_equal(message.invitation.secret_key, pair.secret_key);
        assert_string_equal(message.invitation.config.data, config);
        message_release(&message);
    }
    buf_release(&token);
    buf_release(&wrapped);
}

static void cut_or_changed_token_is_refused(void **state)
{
    struct keyring_pair pair = make_pair();
    struct msg_invitation invitation = sample(&pair);
    struct buf token = make_token(&invitation);
    struct message message;
    struct err err = {""};
    (void)state;
    for (size_t len = 0; len < token.len; len++) {
        char *cut = mem_must_strndup(token.data, len); /* so that a sanitizer sees its end */
        int rc = invitation_read(&message, cut, len, &err);
        free(cut);
        if (rc == 0)
            fail_msg("taken after %zu of %zu characters", len, token.len);
    }
    assert_non_null(strstr(err.text, "cut off"));
    for (size_t at = 5; at < token.len; at++) {
        char was = token.data[at];
        token.data[at] = was == 'A' ? 'B' : 'A';
        int rc = invitation_read(&message, token.data, token.len, &err);
        /* the last character has bits that stand for nothing */
        if (rc == 0 && at + 1 < token.len)
            fail_msg("taken with another character %zu", at);
        if (rc == 0)
            message_release(&message);
        token.data[at] = was;
    }
    assert_int_equal(invitation_read(&message, "orchestra", 9, &err), -EINVAL);
    assert_non_null(strstr(err.text, "no token"));
    assert_int_equal(invitation_read(&message, "orch_a!b", 8, &err), -EBADMSG);
    buf_release(&token);
}

/* As if another release had made it: the version is in the record, which the checksum covers. */
static void token_of_another_version_is_refused_as_such(void **state)
{
    struct keyring_pair pair = make_pair();
    struct msg_invitation invitation = sample(&pair);
    struct message message;
    struct err err = {""};
    (void)state;
    invitation.version = INVITATION_VERSION + 1;
    struct buf token = {0};
    assert_int_equal(invitation_write_as(&invitation, &token), 0);
    assert_int_equal(invitation_read(&message, token.data, token.len, &err), -EPROTONOSUPPORT);
    assert_non_null(strstr(err.text, "same release"));
    buf_release(&token);
}

static void token_with_fields_that_cannot_be_is_refused(void **state)
{
    struct keyring_pair pair = make_pair();
    struct err err = {""};
    (void)state;
    for (int i = 0; i < 5; i++) {
        struct msg_invitation invitation = sample(&pair);
        struct message message;
        if (i == 0)
            invitation.name = "../../etc";
        else if (i == 1)
            invitation.role = "root";
        else if (i == 2)
            invitation.secret_key = "short";
        else if (i == 3)
            invitation.broker_key = "";
        else
            invitation.expires_ms = -1;
        struct buf token = make_token(&invitation);
        assert_int_equal(invitation_read(&message, token.data, token.len, &err), -EBADMSG);
        buf_release(&token);
    }
}

static mode_t mode_of(const char *path)
{
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    return st.st_mode & 0777;
}

static void accepted_invitation_leaves_private_files(void **state)
{
    struct fixture fixture;
    struct keyring_pair pair = make_pair(), loaded;
    struct msg_invitation invitation = sample(&pair);
    struct err err = {""};
    struct buf text = {0};
    char path[256], *file = NULL;
    (void)state;
    fixture_init(&fixture);
    assert_null(invitation_config(fixture.dir, "w"));
    assert_int_equal(invitation_accept(fixture.dir, &invitation, NOW_MS, &file, &err), 0);
    assert_true(fixture_read(file, &text));
    assert_string_equal(text.data, config);
    assert_int_equal(mode_of(file), 0600);
    free(file);
    snprintf(path, sizeof path, "%s/joined/w", fixture.dir);
    assert_int_equal(mode_of(path), 0700);
    snprintf(path, sizeof path, "%s/joined/w/keys", fixture.dir);
    assert_int_equal(mode_of(path), 0700);
    assert_int_equal(keyring_load(path, "worker-w", &loaded, &err), 0);
    assert_string_equal(loaded.secret_key, pair.secret_key);
    file = invitation_config(fixture.dir, "w");
    assert_non_null(file);
    free(file);
    assert_null(invitation_config(fixture.dir, "../joined/w"));
    buf_release(&text);
    fixture_release(&fixture);
}

static void expired_invitation_is_good_only_where_it_was_used(void **state)
{
    struct fixture fixture;
    struct keyring_pair pair = make_pair(), other = make_pair();
    struct msg_invitation invitation = sample(&pair), next = sample(&other);
    struct err err = {""};
    char *file = NULL;
    (void)state;
    invitation.created_ms = 1;
    next.created_ms = 2;
    fixture_init(&fixture);
    assert_int_equal(invitation_accept(fixture.dir, &invitation, NOW_MS + 1, &file, &err), -ETIME);
    assert_non_null(strstr(err.text, "has expired"));
    assert_null(invitation_config(fixture.dir, "w"));
    assert_int_equal(invitation_accept(fixture.dir, &invitation, NOW_MS, &file, &err), 0);
    free(file);
    assert_int_equal(invitation_accept(fixture.dir, &invitation, NOW_MS + 9, &file, &err), 0);
    free(file);
    /* another one for the same name: it must be good, and takes the place */
    assert_int_equal(invitation_accept(fixture.dir, &next, NOW_MS + 9, &file, &err), -ETIME);
    assert_int_equal(invitation_accept(fixture.dir, &next, NOW_MS, &file, &err), 0);
    free(file);
    /* the earlier one, used again by mistake, does not come back */
    assert_int_equal(invitation_accept(fixture.dir, &invitation, NOW_MS, &file, &err), -ESTALE);
    assert_non_null(strstr(err.text, "older than the one that was used here last"));
    char path[256];
    struct keyring_pair loaded;
    snprintf(path, sizeof path, "%s/joined/w/keys", fixture.dir);
    assert_int_equal(keyring_load(path, "worker-w", &loaded, &err), 0);
    assert_string_equal(loaded.public_key, other.public_key);
    fixture_release(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(token_brings_back_what_was_put_in),
        cmocka_unit_test(cut_or_changed_token_is_refused),
        cmocka_unit_test(token_of_another_version_is_refused_as_such),
        cmocka_unit_test(token_with_fields_that_cannot_be_is_refused),
        cmocka_unit_test(accepted_invitation_leaves_private_files),
        cmocka_unit_test(expired_invitation_is_good_only_where_it_was_used),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
