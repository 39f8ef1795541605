/* File blocks: what is found in a model's answer, and what a hostile one can't make us write. */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "orchestrator/files.h"
#include "tests/lib/fixture.h"

/* --- finding ------------------------------------------------------------------------------------
 */

/* What comes out of a text: "path=contents|path=contents", problems as "!path: why". */
static void describe(const struct files *files, struct buf *out)
{
    for (size_t i = 0; i < files->n_entries; i++) {
        const struct files_entry *entry = &files->entries[i];
        if (entry->data == NULL)
            continue;
        buf_printf(out, "%s%s=", out->len > 0 ? "|" : "", entry->path);
        buf_add(out, entry->data, entry->len);
    }
    for (size_t i = 0; i < files->n_problems; i++)
        buf_printf(out, "%s!%s: %s", out->len > 0 ? "|" : "", files->problems[i].path,
                   files->problems[i].why);
}

static void expect(const char *text, const char *want)
{
    struct files *files = files_new();
    struct buf got = {0};
    files_scan(files, "a", text, strlen(text));
    files_settle(files);
    describe(files, &got);
    if (strcmp(got.data != NULL ? got.data : "", want) != 0)
        print_error("text:\n%s\n", text);
    assert_string_equal(got.data != NULL ? got.data : "", want);
    buf_release(&got);
    files_free(&files);
}

static void a_fence_with_a_path_in_its_info_string_is_a_file(void **state)
{
    (void)state;
    static const char *const infos[] = {
        "src/a.c",           "c src/a.c",           "c path=src/a.c",       "c:src/a.c",
        "c file=src/a.c",    "c title=\"src/a.c\"", "c filename='src/a.c'", "path=\"src/a.c\"",
        "c {path=src/a.c}",  "c, filepath=src/a.c", " c src/a.c ",          "c \"src/a.c\"",
        "c ./src/a.c",       "c++ name=src/a.c",    "c src//a.c",           "C++:src/a.c",
        "{.c path=src/a.c}",
    };
    for (size_t i = 0; i < sizeof infos / sizeof *infos; i++) {
        char text[256];
        snprintf(text, sizeof text, "Here:\n```%s\nint x;\n```\nDone.\n", infos[i]);
        expect(text, "src/a.c=int x;\n");
        snprintf(text, sizeof text, "~~~~%s\r\nint x;\n~~~~~\n", infos[i]);
        expect(text, "src/a.c=int x;\n");
    }
}

static void a_fence_below_a_line_with_a_path_is_a_file(void **state)
{
    (void)state;
    static const char *const lines[] = {
        "src/a.c",           "src/a.c:",
        "`src/a.c`",         "**src/a.c**",
        "**`src/a.c`**",     "### src/a.c",
        "### `src/a.c`:",    "File: src/a.c",
        "**File:** src/a.c", "**File: `src/a.c`**",
        "- src/a.c",         "1. src/a.c",
        "2) `src/a.c`:",     "## 1. src/a.c",
        "Filename: src/a.c", "`src/a.c` (new file)",
        "  src/a.c  ",       "\"src/a.c\"",
        "file: ./src/a.c:",  "**src/a.c**:",
        "**src/a.c:**",      "#### File: src/a.c",
        "* `src/a.c`",       "Path: src/a.c",
    };
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        char text[256];
        snprintf(text, sizeof text, "Prose.\n\n%s\n```c\nint x;\n```\n", lines[i]);
        expect(text, "src/a.c=int x;\n");
        snprintf(text, sizeof text, "%s\n\n```\nint x;\n```\n", lines[i]);
        expect(text, "src/a.c=int x;\n");
    }
}

static void what_only_looks_like_a_path_is_prose(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "```c\nint x;\n```\n",
        "```\nplain\n```\n",
        "```python title=\"Example\"\nx\n```\n",
        "```node.js\nx\n```\n",
        "```asp.net\nx\n```\n",
        "```text/x-python\nx\n```\n",
        "Run it:\n```sh\nmake\n```\n",
        "Version 1.2.3 is in src/a.c now:\n```\nx\n```\n",
        "See https://example.org/a.c\n```\nx\n```\n",
        "https://example.org/a.c\n```\nx\n```\n",
        "src/a.c\n\n\n```\nfar away\n```\n",
        "src/a.c\nand more prose\n```\nx\n```\n",
        "3.14\n```\nx\n```\n",
        "e.g.\n```\nx\n```\n",
        "``` `inline` src/a.c\nx\n```\n",
        "    no fence here\n",
        "`src/a.c` and `src/b.c`\n```\nx\n```\n",
        "v2.0-rc1\n```\nx\n```\n",
        "``src/a.c``\n",
        "```c if(a.b)\nx\n```\n",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        expect(texts[i], "");
}

static void fences_end_where_they_end(void **state)
{
    (void)state;
    expect("````md README.md\n# A\n```sh\nmake\n```\nend\n````\n",
           "README.md=# A\n```sh\nmake\n```\nend\n");
    expect("```md README.md\n# A\n```sh\nmake\n```\nend\n```\nafter\n",
           "README.md=# A\n```sh\nmake\n```\nend\n");
    expect("```md README.md\n# A\n```\n\n```c a.c\nx\n```\n", "README.md=# A\n|a.c=x\n");
    expect("~~~ a.txt\n```\nb\n```\n~~~\n", "a.txt=```\nb\n```\n");
    expect("```c a.c\n\n```\n", "a.c=\n");
    expect("```c a.c\n```\n", "a.c=");
    expect("1. a.c\n\n   ```c\n   int x;\n     y;\n\n   ```\n", "a.c=int x;\n  y;\n\n");
    expect("\t```c a.c\n\tx\n\t```\n", "a.c=x\n");
    expect("```c a.c\r\nx\r\n```\r\n", "a.c=x\r\n");
    expect("```py a.py\ns = '''\n        ```\n'''\n```\n", "a.py=s = '''\n        ```\n'''\n");
}

static void a_truncated_block_is_no_file(void **state)
{
    (void)state;
    expect("```c src/a.c\nint x;\n", "!src/a.c: the answer ends in the middle of the block");
    expect("```c src/a.c\nint x;\n``", "!src/a.c: the answer ends in the middle of the block");
    expect("<file path=\"a.c\">\nint x;\n", "!a.c: the answer ends in the middle of the block");
    expect("```c src/a.c", "!src/a.c: the answer ends in the middle of the block");
}

static void tags_hold_files_too(void **state)
{
    (void)state;
    expect("<file path=\"src/a.c\">\nint x;\n</file>\n", "src/a.c=int x;\n");
    expect("<file path=src/a.c>\n```c\nint x;\n```\n</file>\nafter\n", "src/a.c=int x;\n");
    expect("<file name=\"a.md\">\n```sh\nmake\n```\ntext\n</file>\n",
           "a.md=```sh\nmake\n```\ntext\n");
    expect("<file>\nint x;\n</file>\n", "");
    expect("<file path=\"a.c\"/>\n", "");
}

static void a_later_block_of_the_same_path_wins(void **state)
{
    (void)state;
    expect("```c a.c\n1\n```\n```c b.c\n2\n```\n```c ./a.c\n3\n```\n", "a.c=3\n|b.c=2\n");
}

#define EDIT(search, replace) "<<<<<<< SEARCH\n" search "=======\n" replace ">>>>>>> REPLACE\n"

static void edits_change_what_came_before(void **state)
{
    (void)state;
    static const char base[] = "```c a.c\none\ntwo\nthree\n```\n";
    char text[1024];
    static const struct {
        const char *edit, *want;
    } cases[] = {
        {"```c a.c\n" EDIT("two\n", "2\n") "```\n", "a.c=one\n2\nthree\n"},
        {"a.c\n```\n" EDIT("two\n", "2\n") "```\n", "a.c=one\n2\nthree\n"},
        {"```c\na.c\n" EDIT("two\n", "2\n") "```\n", "a.c=one\n2\nthree\n"},
        {"a.c\n" EDIT("two\n", "2\n"), "a.c=one\n2\nthree\n"},
        {"**a.c**\n\n" EDIT("two\n", ""), "a.c=one\nthree\n"},
        {"a.c\n" EDIT("one\n", "1\n") EDIT("two\n", "2\n"), "a.c=1\n2\nthree\n"},
        {"```c a.c\n" EDIT("one\n", "1\n") "\n" EDIT("1\ntwo\n", "12\n") "```\n",
         "a.c=12\nthree\n"},
        {"```c a.c\n" EDIT("four\n", "4\n") "```\n",
         "a.c=one\ntwo\nthree\n|!a.c: the text of a SEARCH part is not in the file"},
        {"```c a.c\n" EDIT("", "0\n") "```\n",
         "a.c=one\ntwo\nthree\n|!a.c: the SEARCH part of an edit is empty, but the file is not"},
        {"Prose.\n" EDIT("one\n", "1\n"),
         "a.c=one\ntwo\nthree\n|!: a SEARCH/REPLACE edit does not say which file it is for"},
        {"a.c\n<<<<<<< SEARCH\none\n", "a.c=one\ntwo\nthree\n|!a.c: an edit has no line "
                                       "\"=======\" behind its SEARCH line"},
        {"a.c\n<<<<<<< SEARCH\none\n=======\ntwo\n",
         "a.c=one\ntwo\nthree\n|!a.c: an edit has no line \">>>>>>> REPLACE\" behind its SEARCH "
         "line"},
        {"b.c\n" EDIT("", "new\n"), "a.c=one\ntwo\nthree\n|b.c=new\n"},
        {"../b.c\n" EDIT("one\n", "1\n"),
         "a.c=one\ntwo\nthree\n|!../b.c: the path leads out of the directory (..)"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        snprintf(text, sizeof text, "%s\n%s", base, cases[i].edit);
        expect(text, cases[i].want);
    }
    expect("```c a.c\nsame\nsame\n```\n```c a.c\n" EDIT("same\n", "x\n") "```\n",
           "a.c=same\nsame\n|!a.c: the text of a SEARCH part is in the file more than once");
    expect("```diff a.c\n-one\n+1\n```\n",
           "!a.c: the block is a diff, not the whole file and not SEARCH/REPLACE");
    expect("```diff fix.patch\n-one\n+1\n```\n", "fix.patch=-one\n+1\n");
}

static void an_edit_of_an_unknown_file_is_said(void **state)
{
    (void)state;
    expect("a.c\n" EDIT("one\n", "1\n"),
           "!a.c: it edits a file that is not among the answers: write with --out DIR --force "
           "where it exists");
}

static void dangerous_paths_are_refused_aloud(void **state)
{
    (void)state;
    static const struct {
        const char *path, *why;
    } cases[] = {
        {"/etc/passwd", "the path is absolute"},
        {"//etc/passwd", "the path is absolute"},
        {"../a.c", "the path leads out of the directory (..)"},
        {"a/../../b.c", "the path leads out of the directory (..)"},
        {"a/..", "the path leads out of the directory (..)"},
        {"~/.ssh/authorized_keys", "the path starts in a home directory (~)"},
        {"~root/a.c", "the path starts in a home directory (~)"},
        {"C:\\\\windows\\\\a.c", "the path is one of another system (drive or backslash)"},
        {"a\\b.c", "the path is one of another system (drive or backslash)"},
        {"..\\b.c", "the path is one of another system (drive or backslash)"},
        {".git/config", "the path is in git's own directory, whose files run commands"},
        {"a/.GIT/hooks/pre-commit.sh",
         "the path is in git's own directory, whose files run commands"},
        {"src/", "the path names a directory, not a file"},
        {"src/.", "the path names a directory, not a file"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[256], want[256];
        snprintf(want, sizeof want, "!%s: %s", cases[i].path, cases[i].why);
        snprintf(text, sizeof text, "```c path=%s\nx\n```\n", cases[i].path);
        expect(text, want);
        snprintf(text, sizeof text, "```c %s\nx\n```\n", cases[i].path);
        if (strchr(cases[i].path, ':') == NULL)
            expect(text, want);
    }
    assert_non_null(files_path_problem("a\nb.c"));
    assert_non_null(files_path_problem(""));
    assert_null(files_path_problem("a/b/.hidden"));
    assert_null(files_path_problem(".gitignore"));
    assert_null(files_path_problem(".github/workflows/ci.yml"));
    assert_null(files_path_problem("..a/b..c/...d"));
}

static void names_that_are_too_long_are_refused(void **state)
{
    (void)state;
    char path[2048];
    memset(path, 'a', sizeof path);
    memcpy(path + 256, ".c", 3);
    assert_string_equal(files_path_problem(path), "a name in the path is longer than 255 bytes");
    for (size_t i = 0; i < 1500; i++)
        path[i] = i % 100 == 99 ? '/' : 'a';
    path[1500] = '\0';
    assert_string_equal(files_path_problem(path), "the path is longer than 1024 bytes");
    memcpy(path + 254, ".c", 3);
    for (size_t i = 0; i < 254; i++)
        path[i] = 'a';
    path[253] = '\0';
    assert_null(files_path_problem(path));
}

static void nul_bytes_and_rubbish_are_survived(void **state)
{
    (void)state;
    static const char nul[] = "```c path=a\0b.c\nx\n```\n";
    struct files *files = files_new();
    files_scan(files, "a", nul, sizeof nul - 1);
    assert_int_equal(files->n_entries, 0);
    assert_int_equal(files->n_problems, 1);
    assert_string_equal(files->problems[0].why, "the path has control characters");
    files_free(&files);
    /* Every mark the scanner knows, in random order, from an exact allocation: ASan sees an
     * over-read. */
    static const char *const words[] = {"```",
                                        "~~~",
                                        "````",
                                        "\n",
                                        "\n",
                                        "a.c",
                                        " path=",
                                        "\"",
                                        "`",
                                        "**",
                                        "#",
                                        ":",
                                        "<<<<<<< SEARCH",
                                        "=======",
                                        ">>>>>>> REPLACE",
                                        "<file path=",
                                        ">",
                                        "</file>",
                                        "md ",
                                        "\xff",
                                        "\r\n",
                                        "src/",
                                        " ",
                                        "(",
                                        ")"};
    srand(11);
    for (int round = 0; round < 3000; round++) {
        struct buf text = {0};
        for (int i = rand() % 40; i >= 0; i--)
            buf_add_str(&text, words[(size_t)rand() % (sizeof words / sizeof *words)]);
        char *exact = malloc(text.len);
        memcpy(exact, text.data, text.len);
        files = files_new();
        files_scan(files, "a", exact, text.len);
        files_settle(files);
        files_free(&files);
        free(exact);
        buf_release(&text);
    }
}

/* 16 MiB of openings that never close: found in time that grows with the text, not its square. */
static void hostile_texts_take_linear_time(void **state)
{
    (void)state;
    static const char *const units[] = {"```md a.md\n```x\n", "<file path=a.c>\n", "```c a.c\n",
                                        "a.c\n<<<<<<< SEARCH\n", "a.c\n" EDIT("a\n", "a\n")};
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        struct buf text = {0};
        while (text.len < 4 * 1024 * 1024)
            buf_add_str(&text, units[i]);
        struct files *files = files_new();
        files_scan(files, "a", text.data, text.len);
        assert_true(files->n_problems <= FILES_MOST + 1);
        files_free(&files);
        buf_release(&text);
    }
}

static void a_task_has_at_most_a_thousand_files(void **state)
{
    (void)state;
    struct files *files = files_new();
    for (int i = 0; i < 1002; i++) {
        char text[64];
        snprintf(text, sizeof text, "```c %d/a.c\nx\n```\n", i);
        files_scan(files, "a", text, strlen(text));
    }
    assert_int_equal(files->n_entries, 1000);
    assert_int_equal(files->n_problems, 2);
    files_free(&files);
}

/* --- tasks --------------------------------------------------------------------------------------
 */

static const char task_text[] =
    "{\"subtasks\": ["
    "{\"id\": \"late\", \"kind\": \"run\", \"depends_on\": [\"early\"],"
    " \"output\": \"```c a.c\\nlate\\n```\\n\"},"
    "{\"id\": \"_synthesis\", \"kind\": \"synthesize\", \"depends_on\": [],"
    " \"output\": \"```c c.c\\nsynthesis\\n```\\n\"},"
    "{\"id\": \"early\", \"kind\": \"run\", \"depends_on\": [\"_plan\", \"unknown\"],"
    " \"output\": \"```c a.c\\nearly\\n```\\n```c b.c\\nearly\\n```\\n\"},"
    "{\"id\": \"other\", \"kind\": \"run\", \"depends_on\": [],"
    " \"output\": \"```c c.c\\nother\\n```\\n\"},"
    "{\"id\": \"none\", \"kind\": \"run\", \"depends_on\": [\"none\"], \"output\": null},"
    "{\"id\": \"_plan\", \"kind\": \"plan\", \"depends_on\": [],"
    " \"output\": \"```c plan.c\\nx\\n```\\n\"}]}";

static void dependents_override_and_the_synthesis_is_last(void **state)
{
    (void)state;
    json_t *task = json_parse(task_text, strlen(task_text), NULL);
    struct files *files = files_new();
    struct buf got = {0};
    files_scan_task(files, task);
    describe(files, &got);
    assert_string_equal(got.data, "a.c=late\n|b.c=early\n|c.c=synthesis\n");
    json_t *json = files_json(files);
    assert_string_equal(json_str(json_array_get(json, 0), "path", ""), "a.c");
    assert_int_equal(json_int(json_array_get(json, 0), "bytes", 0), 5);
    assert_string_equal(json_str(json_array_get(json, 0), "source", ""), "late");
    /* printf 'late\n' | sha256sum */
    assert_string_equal(json_str(json_array_get(json, 0), "sha256", ""),
                        "f152945b358aa26a9e72e25381deff94e254c547089bd690dccd218e9414d148");
    json_decref(json);
    json_decref(task);
    buf_release(&got);
    files_free(&files);
}

/* --- writing ------------------------------------------------------------------------------------
 */

static struct fixture fixture;

static int set_up(void **state)
{
    (void)state;
    fixture_init(&fixture);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    fixture_release(&fixture);
    return 0;
}

static const char *path_in(const char *name)
{
    static char path[512];
    snprintf(path, sizeof path, "%s/%s", fixture.dir, name);
    return path;
}

static bool has(const char *name, const char *contents)
{
    struct buf got = {0};
    bool found = fixture_read(path_in(name), &got) &&
                 strcmp(got.data != NULL ? got.data : "", contents) == 0;
    buf_release(&got);
    return found;
}

static bool exists(const char *name)
{
    struct stat st;
    return lstat(path_in(name), &st) == 0;
}

/* Writes the blocks of the text below dir/out; the first problem, or "". */
static const char *write_out(const char *text, bool force)
{
    static char why[1024];
    struct files *files = files_new();
    struct err err = {0};
    files_scan(files, "a", text, strlen(text));
    int rc = files_write(files, path_in("out"), force, &err);
    snprintf(why, sizeof why, "%s",
             rc != 0                  ? err.text
             : files->n_problems == 0 ? ""
                                      : files->problems[0].why);
    files_free(&files);
    return why;
}

static size_t count_names(const char *dir)
{
    char command[600];
    snprintf(command, sizeof command, "ls -A %s | wc -l", path_in(dir));
    FILE *pipe = popen(command, "r");
    size_t n = 0;
    assert_int_equal(fscanf(pipe, "%zu", &n), 1);
    pclose(pipe);
    return n;
}

static void files_are_written_with_their_directories(void **state)
{
    (void)state;
    struct stat st;
    umask(022);
    assert_string_equal(write_out("```c a/b/c.c\nint x;\n```\n```sh run.sh\nls\n```\n", false), "");
    assert_true(has("out/a/b/c.c", "int x;\n"));
    assert_true(has("out/run.sh", "ls\n"));
    assert_int_equal(stat(path_in("out/run.sh"), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0644);
    assert_int_equal(count_names("out/a/b"), 1);
}

static void an_existing_file_stays_without_force(void **state)
{
    (void)state;
    struct stat st;
    fixture_write(&fixture, "out/a.c", "mine\n");
    chmod(path_in("out/a.c"), 0700);
    assert_string_equal(write_out("```c a.c\ntheirs\n```\n```c b.c\nb\n```\n", false),
                        "the file exists; --force replaces it");
    assert_true(has("out/a.c", "mine\n"));
    assert_true(has("out/b.c", "b\n"));
    assert_string_equal(write_out("```c a.c\ntheirs\n```\n", true), "");
    assert_true(has("out/a.c", "theirs\n"));
    assert_int_equal(stat(path_in("out/a.c"), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    assert_int_equal(count_names("out"), 2);
}

static void symbolic_links_are_never_followed(void **state)
{
    (void)state;
    fixture_write(&fixture, "outside/file.c", "outside\n");
    fixture_write(&fixture, "out/x", "");
    assert_int_equal(symlink(path_in("outside"), "link"), 0);
    char link[600];
    snprintf(link, sizeof link, "%s", path_in("out/link"));
    assert_int_equal(rename("link", link), 0);
    snprintf(link, sizeof link, "%s", path_in("outside/file.c"));
    assert_int_equal(symlink(link, path_in("out/file.c")), 0);
    assert_int_equal(symlink("/nowhere/at/all", path_in("out/dangling.c")), 0);
    for (int force = 0; force < 2; force++) {
        assert_non_null(strstr(write_out("```c link/new.c\nx\n```\n", force), "symbolic link"));
        assert_non_null(strstr(write_out("```c link/sub/new.c\nx\n```\n", force), "symbolic link"));
        assert_non_null(strstr(write_out("```c file.c\nx\n```\n", force), "symbolic link"));
        assert_non_null(strstr(write_out("```c dangling.c\nx\n```\n", force), "symbolic link"));
        assert_non_null(
            strstr(write_out("file.c\n" EDIT("outside\n", "x\n"), force), "symbolic link"));
    }
    assert_true(has("outside/file.c", "outside\n"));
    assert_int_equal(count_names("outside"), 1);
}

static void a_file_in_the_way_of_a_directory_is_said(void **state)
{
    (void)state;
    fixture_write(&fixture, "out/a", "file\n");
    assert_string_equal(write_out("```c a/b.c\nx\n```\n", true),
                        "a part of the path is a file or a symbolic link, not a directory");
    assert_string_equal(write_out("```c d/b.c\nx\n```\n```c path=d\nx\n```\n", true),
                        "a directory has that name");
    assert_true(has("out/a", "file\n"));
}

static void edits_of_existing_files_need_force(void **state)
{
    (void)state;
    fixture_write(&fixture, "out/a.c", "one\ntwo\n");
    assert_string_equal(write_out("a.c\n" EDIT("two\n", "2\n"), false),
                        "it edits a file that exists; --force allows that");
    assert_true(has("out/a.c", "one\ntwo\n"));
    assert_string_equal(write_out("a.c\n" EDIT("two\n", "2\n"), true), "");
    assert_true(has("out/a.c", "one\n2\n"));
    assert_string_equal(write_out("a.c\n" EDIT("two\n", "2\n"), true),
                        "the text of a SEARCH part is not in the file");
    assert_string_equal(write_out("b.c\n" EDIT("two\n", "2\n"), true),
                        "the file that it edits does not exist");
    assert_string_equal(write_out("c.c\n" EDIT("", "new\n"), false), "");
    assert_true(has("out/c.c", "new\n"));
}

static void a_file_that_finds_no_room_is_not_there_at_all(void **state)
{
    (void)state;
    struct rlimit limit = {.rlim_cur = 1000, .rlim_max = RLIM_INFINITY}, old;
    struct buf text = {0};
    buf_add_str(&text, "```c big.c\n");
    for (int i = 0; i < 1000; i++)
        buf_add_str(&text, "0123456789\n");
    buf_add_str(&text, "```\n```c small.c\nx\n```\n");
    fixture_write(&fixture, "out/kept.c", "kept\n");
    getrlimit(RLIMIT_FSIZE, &old);
    limit.rlim_max = old.rlim_max;
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &limit);
    char why[1024];
    snprintf(why, sizeof why, "%s", write_out(text.data, false));
    setrlimit(RLIMIT_FSIZE, &old);
    assert_string_equal(why, "the file is larger than this system allows; nothing of it was kept");
    assert_false(exists("out/big.c"));
    assert_true(has("out/small.c", "x\n"));
    assert_int_equal(count_names("out"), 2);
    buf_release(&text);
}

static void a_directory_that_cannot_be_made_is_said(void **state)
{
    (void)state;
    fixture_write(&fixture, "out", "a file\n");
    const char *why = write_out("```c a.c\nx\n```\n", true);
    assert_non_null(strstr(why, "cannot open the directory"));
    assert_non_null(strstr(why, "--out"));
}

/* --- SHA-256 ------------------------------------------------------------------------------------
 */

static void sha256_gives_the_standards_digests(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int times;
        const char *want;
    } cases[] = {
        {"", 1, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {"abc", 1, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 1,
         "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
        {"a", 1000000, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct sha256 sha;
        char hex[SHA256_HEX_SIZE];
        sha256_init(&sha);
        for (int n = 0; n < cases[i].times; n++)
            sha256_add(&sha, cases[i].text, strlen(cases[i].text));
        sha256_hex(&sha, hex);
        assert_string_equal(hex, cases[i].want);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_fence_with_a_path_in_its_info_string_is_a_file),
        cmocka_unit_test(a_fence_below_a_line_with_a_path_is_a_file),
        cmocka_unit_test(what_only_looks_like_a_path_is_prose),
        cmocka_unit_test(fences_end_where_they_end),
        cmocka_unit_test(a_truncated_block_is_no_file),
        cmocka_unit_test(tags_hold_files_too),
        cmocka_unit_test(a_later_block_of_the_same_path_wins),
        cmocka_unit_test(edits_change_what_came_before),
        cmocka_unit_test(an_edit_of_an_unknown_file_is_said),
        cmocka_unit_test(dangerous_paths_are_refused_aloud),
        cmocka_unit_test(names_that_are_too_long_are_refused),
        cmocka_unit_test(nul_bytes_and_rubbish_are_survived),
        cmocka_unit_test(hostile_texts_take_linear_time),
        cmocka_unit_test(a_task_has_at_most_a_thousand_files),
        cmocka_unit_test(dependents_override_and_the_synthesis_is_last),
        cmocka_unit_test_setup_teardown(files_are_written_with_their_directories, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(an_existing_file_stays_without_force, set_up, tear_down),
        cmocka_unit_test_setup_teardown(symbolic_links_are_never_followed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_file_in_the_way_of_a_directory_is_said, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(edits_of_existing_files_need_force, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_file_that_finds_no_room_is_not_there_at_all, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_directory_that_cannot_be_made_is_said, set_up, tear_down),
        cmocka_unit_test(sha256_gives_the_standards_digests),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
