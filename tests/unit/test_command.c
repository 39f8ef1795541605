/* Options, help, completion; text that is made harmless; rows and lines of progress. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "orchestrator/command.h"
#include "orchestrator/completion.h"
#include "orchestrator/progress.h"
#include "orchestrator/render.h"

/* --- options ------------------------------------------------------------------------------------
 */

static const struct command_option options[] = {
    {"file", 'f', "FILE", "a file", true},  {"count", 'n', "N", "a number", false},
    {"timeout", 0, "S", "seconds", false},  {"quiet", 'q', NULL, "say nothing", false},
    {"json", 0, NULL, "print JSON", false}, {0},
};

static const struct command command = {
    .name = "test", .args = "[TEXT]", .summary = "tests", .options = options, .max_args = 1};

#define PARSE(...) parse((const char *const[]){__VA_ARGS__, NULL})

static struct err err;
static int last_rc;

static struct invocation *parse(const char *const *argv)
{
    struct invocation *invocation;
    int argc = 0;
    while (argv[argc] != NULL)
        argc++;
    err = (struct err){0};
    last_rc = invocation_parse(&invocation, &command, argc, argv, &err);
    return invocation;
}

static void options_are_taken_in_every_form(void **state)
{
    (void)state;
    static const char *const forms[][6] = {
        {"-q", "-f", "a.c", "text", NULL},
        {"-qf", "a.c", "text", NULL},
        {"-qfa.c", "text", NULL},
        {"text", "--file=a.c", "--quiet", NULL},
        {"--quiet", "--file", "a.c", "--", "text", NULL},
    };
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        struct invocation *invocation = parse(forms[i]);
        const char *const *args;
        assert_int_equal(last_rc, 0);
        assert_true(invocation_has(invocation, "quiet"));
        assert_false(invocation_has(invocation, "json"));
        assert_string_equal(invocation_value(invocation, "file"), "a.c");
        assert_int_equal(invocation_args(invocation, &args), 1);
        assert_string_equal(args[0], "text");
        invocation_free(&invocation);
    }
}

static void repeated_options_keep_their_order(void **state)
{
    (void)state;
    const char *const *files;
    struct invocation *invocation =
        PARSE("-f", "1", "--count", "7", "--file=2", "-q", "-f3", "-q", "--config", "c.yaml");
    assert_int_equal(last_rc, 0);
    assert_int_equal(invocation_values(invocation, "file", &files), 3);
    assert_string_equal(files[0], "1");
    assert_string_equal(files[1], "2");
    assert_string_equal(files[2], "3");
    assert_string_equal(invocation_value(invocation, "file"), "3");
    assert_string_equal(invocation_value(invocation, "count"), "7");
    assert_string_equal(invocation_config(invocation), "c.yaml");
    assert_int_equal(invocation_values(invocation, "timeout", &files), 0);
    invocation_free(&invocation);
}

static void what_follows_two_dashes_is_text(void **state)
{
    (void)state;
    const char *const *args;
    struct invocation *invocation = PARSE("--", "--quiet");
    assert_int_equal(invocation_args(invocation, &args), 1);
    assert_string_equal(args[0], "--quiet");
    assert_false(invocation_has(invocation, "quiet"));
    invocation_free(&invocation);
    invocation = PARSE("-");
    assert_int_equal(invocation_args(invocation, &args), 1);
    invocation_free(&invocation);
}

static void wrong_arguments_get_one_sentence(void **state)
{
    (void)state;
    static const struct {
        const char *argv[4], *want;
    } cases[] = {
        {{"--qiet"}, "there is no option --qiet; did you mean --quiet?"},
        {{"--timeuot=3"}, "there is no option --timeuot; did you mean --timeout?"},
        {{"--confg"}, "there is no option --confg; did you mean --config?"},
        {{"--zzzzzz"}, "there is no option --zzzzzz"},
        {{"--time"}, "there is no option --time; did you mean --timeout?"},
        {{"-x"}, "there is no option -x (text that starts with a dash goes behind --)"},
        {{"-q5"}, "there is no option -5 (text that starts with a dash goes behind --)"},
        {{"--file"}, "--file needs a value: --file FILE"},
        {{"-f"}, "--file needs a value: --file FILE"},
        {{"--quiet=yes"}, "--quiet takes no value"},
        {{"--count", "1", "--count=2"}, "--count was given twice"},
        {{"two", "words"}, "\"words\" is one argument too many; text with spaces needs quotes"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct invocation *invocation = parse(cases[i].argv);
        assert_null(invocation);
        assert_int_equal(last_rc, -EINVAL);
        assert_string_equal(err.text, cases[i].want);
    }
}

static void a_missing_argument_is_named(void **state)
{
    (void)state;
    static const struct command wants = {
        .name = "wants", .args = "ID...", .summary = "", .min_args = 1, .max_args = -1};
    struct invocation *invocation;
    assert_int_equal(invocation_parse(&invocation, &wants, 0, NULL, &err), -EINVAL);
    assert_string_equal(err.text, "ID... is missing");
    const char *const help[] = {"--help"};
    assert_int_equal(invocation_parse(&invocation, &wants, 1, help, &err), 1);
    invocation_free(&invocation);
}

static void numbers_are_checked(void **state)
{
    (void)state;
    int64_t value = 5;
    struct invocation *invocation = PARSE("-n", "12", "--timeout", "0.25");
    assert_int_equal(invocation_int(invocation, "count", 1, 20, &value), 1);
    assert_int_equal(value, 12);
    assert_int_equal(invocation_int(invocation, "count", 1, 11, &value), -EINVAL);
    assert_int_equal(invocation_seconds(invocation, "timeout", &value), 1);
    assert_int_equal(value, 250);
    invocation_free(&invocation);
    invocation = PARSE("-n", "12x", "--timeout", "nan");
    assert_int_equal(invocation_int(invocation, "count", 1, 20, &value), -EINVAL);
    assert_int_equal(invocation_seconds(invocation, "timeout", &value), -EINVAL);
    invocation_free(&invocation);
    invocation = PARSE("-n", "99999999999999999999", "--timeout", "-1");
    assert_int_equal(invocation_int(invocation, "count", INT64_MIN, INT64_MAX, &value), -EINVAL);
    assert_int_equal(invocation_seconds(invocation, "timeout", &value), -EINVAL);
    assert_int_equal(value, 250);
    invocation_free(&invocation);
    invocation = PARSE("-q");
    assert_int_equal(invocation_int(invocation, "count", 1, 20, &value), 0);
    invocation_free(&invocation);
}

/* --- help and completion ------------------------------------------------------------------------
 */

static void help_names_every_command_and_option(void **state)
{
    (void)state;
    struct buf overview = {0};
    command_overview(&overview);
    size_t n = 0;
    for (const struct command *const *at = commands; *at != NULL; at++, n++) {
        struct buf usage = {0};
        assert_non_null(strstr(overview.data, (*at)->summary));
        assert_non_null(strstr(overview.data, (*at)->name));
        assert_ptr_equal(command_find((*at)->name), *at);
        assert_non_null((*at)->exec);
        command_usage(*at, &usage);
        for (const struct command_option *option = (*at)->options;
             option != NULL && option->name != NULL; option++) {
            assert_non_null(strstr(usage.data, option->name));
            assert_non_null(strstr(usage.data, option->help));
        }
        assert_non_null(strstr(usage.data, "--config FILE"));
        assert_non_null(strstr(usage.data, "exit codes:"));
        assert_non_null(strstr(usage.data, "ORCHESTRATOR_HOME"));
        buf_release(&usage);
    }
    assert_int_equal(n, 25);
    assert_non_null(strstr(overview.data, "NO_COLOR"));
    assert_null(command_find("sumbit"));
    buf_release(&overview);
}

/* Two options of one command that can't both be meant. */
static void names_of_options_are_unique(void **state)
{
    (void)state;
    for (const struct command *const *at = commands; *at != NULL; at++) {
        for (const struct command_option *a = (*at)->options; a != NULL && a->name != NULL; a++) {
            for (const struct command_option *b = a + 1; b->name != NULL; b++) {
                assert_string_not_equal(a->name, b->name);
                assert_true(a->letter == 0 || a->letter != b->letter);
            }
            assert_true(a->letter != 'h');
        }
    }
}

static void completion_knows_commands_and_options(void **state)
{
    (void)state;
    struct buf bash = {0}, zsh = {0};
    assert_int_equal(completion_script("bash", &bash), 0);
    assert_int_equal(completion_script("zsh", &zsh), 0);
    assert_int_equal(completion_script("fish", &zsh), -EINVAL);
    assert_non_null(strstr(bash.data, "submit) options=\" --file -f --plan -p"));
    assert_non_null(strstr(bash.data, "check-config"));
    assert_non_null(strstr(zsh.data, "bashcompinit"));
    buf_release(&bash);
    buf_release(&zsh);
}

/* What bash itself makes of the script. */
static void bash_completes_with_the_script(void **state)
{
    (void)state;
    static const struct {
        const char *line, *want;
    } cases[] = {
        {"orchestrator sub", "submit"},
        {"orchestrator submit --no-s", "--no-synthesis"},
        {"orchestrator --config x.yaml tap --rec", "--record"},
        {"orchestrator help canc", "cancel"},
    };
    struct buf script = {0};
    completion_script("bash", &script);
    FILE *file = fopen("completion.bash", "w");
    fwrite(script.data, 1, script.len, file);
    fputs("\nCOMP_WORDS=($LINE); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _orchestrator\n"
          "echo \"${COMPREPLY[*]}\"\n",
          file);
    fclose(file);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char got[256] = "";
        setenv("LINE", cases[i].line, 1);
        FILE *pipe = popen("bash completion.bash", "r");
        assert_non_null(fgets(got, sizeof got, pipe));
        pclose(pipe);
        got[strcspn(got, "\n")] = '\0';
        assert_string_equal(got, cases[i].want);
    }
    remove("completion.bash");
    buf_release(&script);
}

/* --- harmless text ------------------------------------------------------------------------------
 */

static void expect_safe(const char *text, bool one_line, const char *want)
{
    struct buf got = {0};
    render_safe(&got, text, strlen(text), one_line);
    assert_string_equal(got.data != NULL ? got.data : "", want);
    buf_release(&got);
}

#define BAD "\xef\xbf\xbd"

static void escape_sequences_are_taken_out(void **state)
{
    (void)state;
    expect_safe("a\033[31mred\033[0m", false, "ared");
    expect_safe("\033]0;title\aplain", false, "plain");
    expect_safe("\033]52;c;ZXZpbA==\033\\plain", false, "plain");
    expect_safe("\033Pdcs\033\\x\033_apc\033\\y", false, "xy");
    expect_safe("\033(0x\033cy\0337z", false, "xyz");
    expect_safe("a\033[2Jb\033[1;1Hc\033[?1049hd", false, "abcd");
    expect_safe("end\033", false, "end");
    expect_safe("end\033[", false, "end");
    expect_safe("end\033[31", false, "end");
    expect_safe("\033]never closed\nnext", false, "never closed\nnext");
    expect_safe("\033\033[31mx", false, "x");
    expect_safe("a\bb\x7f\rc\001", false, "a" BAD "b" BAD BAD "c" BAD);
    expect_safe("a\xc2\x9b"
                "31mb",
                false, "a" BAD "31mb");
    expect_safe("a\x9b"
                "b",
                false, "a" BAD "b");
    expect_safe("\xe2\x80\xae"
                "gnp.exe",
                false, BAD "gnp.exe");
    expect_safe("\xc0\xaf\xed\xa0\x80", false, BAD BAD BAD BAD BAD);
    expect_safe("two\nlines\tand\r\n", false, "two\nlines\tand\n");
    expect_safe("two\nlines\tand\r\n", true, "two lines and ");
    expect_safe("\xe4\xb8\xad\xe6\x96\x87 \xc3\xa9", false, "\xe4\xb8\xad\xe6\x96\x87 \xc3\xa9");
}

static void text_is_cut_by_columns_not_bytes(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int columns, used;
        const char *want;
    } cases[] = {
        {"abc", 3, 3, "abc"},
        {"abcd", 3, 3, "ab\xe2\x80\xa6"},
        {"abcd", 1, 1, "\xe2\x80\xa6"},
        {"abcd", 0, 0, ""},
        {"", 3, 0, ""},
        {"\xe4\xb8\xad\xe6\x96\x87", 4, 4, "\xe4\xb8\xad\xe6\x96\x87"},
        {"\xe4\xb8\xad\xe6\x96\x87", 3, 3, "\xe4\xb8\xad\xe2\x80\xa6"},
        {"\xe4\xb8\xad\xe6\x96\x87", 2, 1, "\xe2\x80\xa6"},
        {"e\xcc\x81"
         "e\xcc\x81"
         "e",
         2, 2, "e\xcc\x81\xe2\x80\xa6"},
        {"\033[31mabc", 3, 3, "abc"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct buf got = {0};
        int used = render_cut(&got, cases[i].text, strlen(cases[i].text), cases[i].columns);
        assert_string_equal(got.data != NULL ? got.data : "", cases[i].want);
        assert_int_equal(used, cases[i].used);
        buf_release(&got);
    }
}

static void numbers_read_well(void **state)
{
    (void)state;
    static const struct {
        double ms;
        const char *want;
    } cases[] = {
        {-1, "-"},         {0, "0.0 ms"},          {0.84, "0.8 ms"},      {850, "850 ms"},
        {12345, "12.3 s"}, {245000, "4 min 05 s"}, {59960, "1 min 00 s"}, {12000000, "3 h 20 min"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct buf got = {0};
        render_duration(&got, cases[i].ms);
        assert_string_equal(got.data, cases[i].want);
        buf_release(&got);
    }
    struct buf bytes = {0};
    render_bytes(&bytes, 512);
    buf_add_char(&bytes, ' ');
    render_bytes(&bytes, 3500);
    buf_add_char(&bytes, ' ');
    render_bytes(&bytes, 12 * 1024 * 1024);
    assert_string_equal(bytes.data, "512 B 3.4 KiB 12 MiB");
    buf_release(&bytes);
}

/* --- progress -----------------------------------------------------------------------------------
 */

static void tell(struct progress *progress, const char *id, const char *what, const char *sub,
                 const char *arm, const char *text)
{
    const struct queue_log_entry entry = {.id = id,
                                          .what = what,
                                          .sub = sub,
                                          .worker = "w",
                                          .arm = arm,
                                          .attempt = *sub != '\0' ? 1 : 0,
                                          .error_class = "",
                                          .text = text};
    progress_entry(progress, &entry, 5000);
}

static void elsewhere_every_transition_is_one_plain_line(void **state)
{
    (void)state;
    const struct progress_options plain = {.terminal = {.columns = 80, .rows = 24}, .fd = -1};
    struct progress *progress = progress_new(&plain);
    tell(progress, "1000-0", "submitted", "", "", "");
    tell(progress, "1000-1", "ready", "api", "", "");
    tell(progress, "1500-0", "running", "api", "qwen@host", "");
    tell(progress, "3500-0", "done", "api", "qwen@host", "");
    tell(progress, "3600-0", "retry", "b", "", "rate\nlimited \033[31m");
    tell(progress, "4000-0", "task-done", "", "", "");
    progress_draw(progress, 5000);
    assert_string_equal(progress_out(progress)->data, "[    0.0 s] submitted\n"
                                                      "[    0.5 s] api: running on qwen@host\n"
                                                      "[    2.5 s] api: done in 2.0 s\n"
                                                      "[    2.6 s] b: retry: rate limited \n"
                                                      "[    3.0 s] task-done\n");
    progress_free(&progress);
}

static int longest_line(const struct buf *out)
{
    int longest = 0;
    struct buf safe = {0};
    render_safe(&safe, out->data, out->len, false);
    for (const char *at = safe.data; at != NULL && *at != '\0';) {
        size_t len = strcspn(at, "\n");
        int width = render_width(at, len);
        longest = width > longest ? width : longest;
        at += len + (at[len] == '\n');
    }
    buf_release(&safe);
    return longest;
}

static void rows_never_wrap_nor_scroll(void **state)
{
    (void)state;
    for (int columns = 1; columns < 140; columns += 3) {
        const struct progress_options live = {
            .terminal = {.live = true, .tty = true, .color = true, .columns = columns, .rows = 10},
            .fd = -1};
        struct progress *progress = progress_new(&live);
        for (int i = 0; i < 30; i++) {
            char id[64];
            snprintf(id, sizeof id, "subtask-%d-\xe4\xb8\xad\xe6\x96\x87-\033[31m-and-more", i);
            tell(progress, "1000-0", i < 5 ? "running" : "ready", id,
                 "a-model-with-a-long-name@a-host-with-a-long-name/gpu0", "");
            progress_chunk(progress, id, 1, 1000, 1234);
        }
        progress_draw(progress, 90000);
        const struct buf *out = progress_out(progress);
        size_t lines = 0;
        for (size_t i = 0; i < out->len; i++)
            lines += out->data[i] == '\n';
        assert_int_equal(lines, 8);
        assert_true(longest_line(out) < columns || columns == 1);
        assert_null(strstr(out->data, "\033[31m-and"));
        progress_free(&progress);
    }
}

static void rows_are_redrawn_in_place(void **state)
{
    (void)state;
    const struct progress_options live = {
        .terminal = {.live = true, .tty = true, .columns = 100, .rows = 24}, .fd = -1};
    struct progress *progress = progress_new(&live);
    tell(progress, "1000-0", "running", "a", "m@h", "");
    tell(progress, "1000-1", "running", "b", "m@h", "");
    progress_chunk(progress, "a", 1, 50, 1000);
    progress_draw(progress, 3000);
    assert_non_null(strstr(progress_out(progress)->data, "50.0 tok/s"));
    assert_non_null(strstr(progress_out(progress)->data, "2.0 s"));
    assert_null(strstr(progress_out(progress)->data, "\033["));
    progress_note(progress, "a note");
    assert_non_null(strstr(progress_out(progress)->data, "\033[2A\r\033[Ja note\n"));
    progress_draw(progress, 3000);
    progress_draw(progress, 3100);
    assert_non_null(strstr(progress_out(progress)->data, "\033[2A\r\033[Jrunning"));
    progress_free(&progress);
}

static void quiet_progress_only_notes(void **state)
{
    (void)state;
    const struct progress_options quiet = {.terminal = {.columns = 80}, .fd = -1, .quiet = true};
    struct progress *progress = progress_new(&quiet);
    tell(progress, "1000-0", "running", "a", "m@h", "");
    progress_draw(progress, 3000);
    progress_note(progress, "Redis is away");
    assert_string_equal(progress_out(progress)->data, "Redis is away\n");
    progress_free(&progress);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_are_taken_in_every_form),
        cmocka_unit_test(repeated_options_keep_their_order),
        cmocka_unit_test(what_follows_two_dashes_is_text),
        cmocka_unit_test(wrong_arguments_get_one_sentence),
        cmocka_unit_test(a_missing_argument_is_named),
        cmocka_unit_test(numbers_are_checked),
        cmocka_unit_test(help_names_every_command_and_option),
        cmocka_unit_test(names_of_options_are_unique),
        cmocka_unit_test(completion_knows_commands_and_options),
        cmocka_unit_test(bash_completes_with_the_script),
        cmocka_unit_test(escape_sequences_are_taken_out),
        cmocka_unit_test(text_is_cut_by_columns_not_bytes),
        cmocka_unit_test(numbers_read_well),
        cmocka_unit_test(elsewhere_every_transition_is_one_plain_line),
        cmocka_unit_test(rows_never_wrap_nor_scroll),
        cmocka_unit_test(rows_are_redrawn_in_place),
        cmocka_unit_test(quiet_progress_only_notes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
