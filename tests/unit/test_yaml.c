/* YAML: what is read, what is refused and with which words, hostile bytes, no memory. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/yaml.h"
#include "schemas/buf.h"
#include "schemas/mem.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

static struct yaml *read_text(const char *text)
{
    struct yaml *yaml = NULL;
    struct err err = {""};
    if (yaml_read(&yaml, "t", text, strlen(text), &err) != 0)
        fail_msg("%s", err.text);
    return yaml;
}

static void yaml_keeps_types_and_positions(void **state)
{
    (void)state;
    struct yaml *yaml = read_text("a: 1\nb:\n  - x\n  - 'y'\nc: {d: true, e: 1.5, f: ~}\n");
    const struct yaml_node *root = yaml_root(yaml), *b = yaml_map_get(root, "b");
    int64_t number = 0;
    double real = 0;
    bool flag = false;
    const char *text = "";
    assert_int_equal(root->type, YAML_MAP);
    assert_int_equal(root->count, 3);
    assert_true(yaml_int(yaml_map_get(root, "a"), &number));
    assert_int_equal(number, 1);
    assert_int_equal(b->type, YAML_SEQ);
    assert_string_equal(b->key->text, "b");
    assert_true(yaml_str(yaml_at(b, 1), &text));
    assert_string_equal(text, "y");
    assert_false(yaml_at(b, 1)->plain);
    assert_int_equal(yaml_at(b, 1)->line, 4);
    assert_int_equal(yaml_at(b, 1)->column, 5);
    assert_null(yaml_at(b, 2));
    const struct yaml_node *c = yaml_map_get(root, "c");
    assert_true(yaml_bool(yaml_map_get(c, "d"), &flag));
    assert_true(flag);
    assert_true(yaml_num(yaml_map_get(c, "e"), &real));
    assert_true(real == 1.5);
    assert_true(yaml_is_null(yaml_map_get(c, "f")));
    assert_true(yaml_is_null(yaml_map_get(c, "none")));
    yaml_release(&yaml);
}

static void yaml_quotes_make_text(void **state)
{
    (void)state;
    struct yaml *yaml = read_text("['1', 'true', 'null', yes, 0x10, 1e3]");
    const struct yaml_node *root = yaml_root(yaml);
    int64_t number;
    double real;
    bool flag;
    const char *text;
    assert_false(yaml_int(yaml_at(root, 0), &number));
    assert_false(yaml_bool(yaml_at(root, 1), &flag));
    assert_false(yaml_is_null(yaml_at(root, 2)));
    assert_true(yaml_str(yaml_at(root, 2), &text));
    assert_false(yaml_bool(yaml_at(root, 3), &flag));
    assert_false(yaml_int(yaml_at(root, 4), &number));
    assert_false(yaml_int(yaml_at(root, 5), &number));
    assert_true(yaml_num(yaml_at(root, 5), &real));
    assert_true(real == 1000);
    yaml_release(&yaml);
}

static void yaml_reads_json_with_its_escapes(void **state)
{
    (void)state;
    struct yaml *yaml =
        read_text("{\"a\":\"\\ud83d\\ude00 \\\\ud83d \\u00e9\\/\",\"b\":[1,{\"c\":null}]}");
    const char *text = "";
    assert_true(yaml_str(yaml_map_get(yaml_root(yaml), "a"), &text));
    assert_string_equal(text, "\xf0\x9f\x98\x80 \\ud83d \xc3\xa9/");
    assert_int_equal(yaml_map_get(yaml_root(yaml), "b")->count, 2);
    yaml_release(&yaml);
}

static void yaml_nothing_is_null(void **state)
{
    (void)state;
    static const char *const texts[] = {"", "\n# only a comment\n", "---\n", "~"};
    for (size_t i = 0; i < COUNT(texts); i++) {
        struct yaml *yaml = read_text(texts[i]);
        assert_true(yaml_is_null(yaml_root(yaml)));
        yaml_release(&yaml);
    }
}

static void yaml_refuses_with_the_place(void **state)
{
    static const struct {
        const char *text;
        int rc;
        const char *sentence;
    } cases[] = {
        {"a: 1\na: 2", -EINVAL, "t:2:1: duplicate key `a`: it is in line 1 already"},
        {"{\"a\": 1, \"a\": 2}", -EINVAL, "t:1:10: duplicate key `a`: it is in line 1 already"},
        {"a: [1, 2\n", -EINVAL,
         "t:2:1: did not find expected ',' or ']', while parsing a flow sequence that began in "
         "line 1"},
        {"a: &x 1\n", -EINVAL,
         "t:1:4: anchors (&) and aliases (*) are not supported: write the value out, or in quotes "
         "if it is text"},
        {"a: *x\n", -EINVAL,
         "t:1:4: anchors (&) and aliases (*) are not supported: write the value out, or in quotes "
         "if it is text"},
        {"a: !!str 5\n", -EINVAL,
         "t:1:4: tags (!) are not supported: put text that starts with ! in quotes"},
        {"a: b\n  c: d\n", -EINVAL, "t:2:4: mapping values are not allowed in this context"},
        {"x\n--- y\n", -EINVAL, "t:2:1: a second document (---) is not allowed"},
        {"a: \"x\\0\"", -EINVAL, "t:1:4: a NUL character is not allowed"},
        {"? [a]\n: b", -EINVAL, "t:1:3: a key must be a plain word or a string"},
        {"a: \xff\n", -EINVAL, "t:1:4: not valid UTF-8 text: invalid leading UTF-8 octet"},
        {"b: 1\na: \xc3\x28\n", -EINVAL,
         "t:2:5: not valid UTF-8 text: invalid trailing UTF-8 octet"},
        {"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[", -E2BIG, "t:1:33: nested deeper than 32 levels"},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct yaml *yaml = NULL;
        struct err err = {""};
        assert_int_equal(yaml_read(&yaml, "t", cases[i].text, strlen(cases[i].text), &err),
                         cases[i].rc);
        assert_string_equal(err.text, cases[i].sentence);
        assert_null(yaml);
    }
}

static void yaml_bounds_size_and_number(void **state)
{
    (void)state;
    struct yaml *yaml = NULL;
    struct err err = {""};
    struct buf text = {0};
    for (int i = 0; i < YAML_MAX_NODES; i++)
        buf_add_str(&text, "- a\n");
    assert_int_equal(yaml_read(&yaml, "t", text.data, text.len, &err), -E2BIG);
    assert_string_equal(err.text, "t:200000:3: more than 200000 values");
    buf_clear(&text);
    assert_true(buf_reserve(&text, YAML_MAX_BYTES + 1));
    memset(text.data, ' ', YAML_MAX_BYTES + 1);
    assert_int_equal(yaml_read(&yaml, "t", text.data, YAML_MAX_BYTES + 1, &err), -E2BIG);
    assert_string_equal(err.text, "t: larger than 16 MiB");
    buf_release(&text);
}

static void yaml_members_are_checked(void **state)
{
    (void)state;
    static const char *const keys[] = {"title", "prompt", "depends_on", NULL};
    struct yaml *yaml = read_text("title: 5\nprompt: [x]\ndepends: 1\nn: 11\nlist: [a, b]\n");
    const struct yaml_node *root = yaml_root(yaml);
    struct err err = {""};
    const char *text = "kept";
    int64_t number = 7;
    const char **list = NULL;
    size_t n = 0;
    assert_int_equal(yaml_get_str(yaml, root, "title", &text, &err), 0);
    assert_string_equal(text, "5");
    assert_int_equal(yaml_get_str(yaml, root, "absent", &text, &err), 0);
    assert_string_equal(text, "5");
    assert_int_equal(yaml_get_str(yaml, root, "prompt", &text, &err), -EINVAL);
    assert_string_equal(err.text, "t:2:9: `prompt` must be text");
    assert_int_equal(yaml_get_int(yaml, root, "n", 1, 10, &number, &err), -EINVAL);
    assert_string_equal(err.text, "t:4:4: `n` must be between 1 and 10");
    assert_int_equal(number, 7);
    assert_int_equal(yaml_get_strs(yaml, root, "list", &list, &n, &err), 0);
    assert_int_equal(n, 2);
    assert_string_equal(list[1], "b");
    free(list);
    assert_int_equal(yaml_check_keys(yaml, root, "a subtask", keys, &err), -EINVAL);
    assert_string_equal(err.text,
                        "t:3:1: unknown key `depends` in a subtask; did you mean `depends_on`?");
    yaml_release(&yaml);
}

static void yaml_nearest_knows_slips_of_the_finger(void **state)
{
    static const char *const choices[] = {"providers", "models", "port", NULL};
    (void)state;
    assert_string_equal(yaml_nearest("provider", choices), "providers");
    assert_string_equal(yaml_nearest("prot", choices), "port");
    assert_string_equal(yaml_nearest("modles", choices), "models");
    assert_null(yaml_nearest("temperature", choices));
    assert_null(yaml_nearest("", choices));
}

/* Every prefix, and every byte replaced by every other of a few: never a crash. */
static void yaml_survives_broken_bytes(void **state)
{
    static const char text[] = "a: [1, {b: \"\\u00e9 x\"}]\nc: |\n  text\n  more\n'd': >-\n  x\n";
    static const char bytes[] = "\0\xff\x80:-[]{}'\"\n\t &*!|>%@\\";
    (void)state;
    for (size_t i = 0; i < sizeof text; i++) {
        struct yaml *yaml = NULL;
        yaml_read(&yaml, "t", text, i, NULL);
        yaml_release(&yaml);
        for (size_t b = 0; b < sizeof bytes; b++) {
            char copy[sizeof text];
            memcpy(copy, text, sizeof text);
            copy[i] = bytes[b];
            yaml = NULL;
            yaml_read(&yaml, "t", copy, sizeof copy - 1, NULL);
            yaml_release(&yaml);
        }
    }
}

static void yaml_without_memory_says_so_and_leaks_nothing(void **state)
{
    static const char text[] =
        "{\"a\": [1, \"x\", {\"b\": 2, \"c\": 3}], \"d\": \"\\ud83d\\ude00\"}";
    (void)state;
    int rc = -ENOMEM;
    unsigned long k = 0;
    while (rc == -ENOMEM) {
        struct yaml *yaml = NULL;
        struct err err = {""};
        mem_fail_at(++k);
        rc = yaml_read(&yaml, "t", text, sizeof text - 1, &err);
        mem_fail_at(0);
        if (rc == -ENOMEM)
            assert_string_equal(err.text, "t: out of memory");
        yaml_release(&yaml);
    }
    assert_int_equal(rc, 0);
    assert_true(k > 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(yaml_keeps_types_and_positions),
        cmocka_unit_test(yaml_quotes_make_text),
        cmocka_unit_test(yaml_reads_json_with_its_escapes),
        cmocka_unit_test(yaml_nothing_is_null),
        cmocka_unit_test(yaml_refuses_with_the_place),
        cmocka_unit_test(yaml_bounds_size_and_number),
        cmocka_unit_test(yaml_members_are_checked),
        cmocka_unit_test(yaml_nearest_knows_slips_of_the_finger),
        cmocka_unit_test(yaml_survives_broken_bytes),
        cmocka_unit_test(yaml_without_memory_says_so_and_leaks_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
