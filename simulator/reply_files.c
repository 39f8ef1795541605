/* The files that the built-in coder, tester and writer write: small, but they run. */
#include <string.h>

#include "simulator/reply.h"

struct template
{
    const char *info; /* info string of the code block, before " path=" */
    const char *path;
    const char *text; /* {title}, {package} and {PACKAGE} are replaced */
};

#define MAX_FILES 3

static const struct template code[SIM_LANG_COUNT][MAX_FILES] = {
    [SIM_LANG_PYTHON] =
        {{"python", "{package}.py",
          "\"\"\"{title} (simulated).\"\"\"\n"
          "import argparse\n"
          "import json\n"
          "import pathlib\n"
          "\n"
          "\n"
          "class Entries:\n"
          "    \"\"\"An ordered list of short texts, kept in a JSON file.\"\"\"\n"
          "\n"
          "    def __init__(self, path):\n"
          "        self.path = pathlib.Path(path)\n"
          "        self.items = json.loads(self.path.read_text()) if self.path.exists() else []\n"
          "\n"
          "    def add(self, text):\n"
          "        if not text.strip():\n"
          "            raise ValueError(\"an entry needs a text\")\n"
          "        self.items.append(text.strip())\n"
          "        self.save()\n"
          "\n"
          "    def remove(self, number):\n"
          "        if not 1 <= number <= len(self.items):\n"
          "            raise ValueError(f\"there is no entry {number}\")\n"
          "        del self.items[number - 1]\n"
          "        self.save()\n"
          "\n"
          "    def save(self):\n"
          "        self.path.write_text(json.dumps(self.items))\n"
          "\n"
          "\n"
          "def main(arguments=None):\n"
          "    parser = argparse.ArgumentParser(description=\"{title}\")\n"
          "    parser.add_argument(\"--file\", default=\"{package}.json\")\n"
          "    parser.add_argument(\"action\", choices=[\"add\", \"list\", \"remove\"])\n"
          "    parser.add_argument(\"value\", nargs=\"?\", default=\"\")\n"
          "    options = parser.parse_args(arguments)\n"
          "    entries = Entries(options.file)\n"
          "    try:\n"
          "        if options.action == \"add\":\n"
          "            entries.add(options.value)\n"
          "        elif options.action == \"remove\":\n"
          "            entries.remove(int(options.value or 0))\n"
          "    except ValueError as problem:\n"
          "        parser.error(str(problem))\n"
          "    for number, text in enumerate(entries.items, 1):\n"
          "        print(f\"{number}. {text}\")\n"
          "\n"
          "\n"
          "if __name__ == \"__main__\":\n"
          "    main()\n"}},
    [SIM_LANG_C] =
        {{"c", "{package}.h",
          "/* {title} (simulated): an ordered list of short texts. */\n"
          "#ifndef {PACKAGE}_H\n"
          "#define {PACKAGE}_H\n"
          "\n"
          "#define {PACKAGE}_MAX 100\n"
          "\n"
          "struct {package} {\n"
          "    char texts[{PACKAGE}_MAX][80];\n"
          "    int count;\n"
          "};\n"
          "\n"
          "/* 0, or -1 when the list is full or the text is empty or too long. */\n"
          "int {package}_add(struct {package} *list, const char *text);\n"
          "/* number: from 1. 0, or -1 when there is no such entry. */\n"
          "int {package}_remove(struct {package} *list, int number);\n"
          "\n"
          "#endif\n"},
         {"c", "{package}.c",
          "#include \"{package}.h\"\n"
          "\n"
          "#include <string.h>\n"
          "\n"
          "int {package}_add(struct {package} *list, const char *text)\n"
          "{\n"
          "    size_t len = strlen(text);\n"
          "    if (list->count == {PACKAGE}_MAX || len == 0 || len >= sizeof list->texts[0])\n"
          "        return -1;\n"
          "    memcpy(list->texts[list->count++], text, len + 1);\n"
          "    return 0;\n"
          "}\n"
          "\n"
          "int {package}_remove(struct {package} *list, int number)\n"
          "{\n"
          "    if (number < 1 || number > list->count)\n"
          "        return -1;\n"
          "    memmove(list->texts[number - 1], list->texts[number],\n"
          "            sizeof list->texts[0] * (size_t)(list->count - number));\n"
          "    list->count--;\n"
          "    return 0;\n"
          "}\n"}},
    [SIM_LANG_HTML] =
        {{"html", "index.html",
          "<!doctype html>\n"
          "<html lang=\"en\">\n"
          "<head>\n"
          "  <meta charset=\"utf-8\">\n"
          "  <title>{title} (simulated)</title>\n"
          "  <link rel=\"stylesheet\" href=\"{package}.css\">\n"
          "</head>\n"
          "<body>\n"
          "  <h1>{title}</h1>\n"
          "  <form id=\"form\"><input id=\"text\" required placeholder=\"New "
          "entry\"><button>Add</button></form>\n"
          "  <ol id=\"list\"></ol>\n"
          "  <script src=\"{package}.js\"></script>\n"
          "</body>\n"
          "</html>\n"},
         {"css", "{package}.css",
          "/* {title} (simulated) */\n"
          "body { font-family: sans-serif; max-width: 40rem; margin: 2rem auto; }\n"
          "li { padding: 0.3rem; cursor: pointer; }\n"},
         {"javascript", "{package}.js",
          "// {title} (simulated): entries are added by the form and removed by a click.\n"
          "const list = document.getElementById('list');\n"
          "document.getElementById('form').addEventListener('submit', (event) => {\n"
          "  event.preventDefault();\n"
          "  const item = document.createElement('li');\n"
          "  const field = document.getElementById('text');\n"
          "  item.textContent = field.value.trim();\n"
          "  item.addEventListener('click', () => item.remove());\n"
          "  if (item.textContent) list.append(item);\n"
          "  field.value = '';\n"
          "});\n"}},
    [SIM_LANG_JAVASCRIPT] = {{"javascript", "{package}.js",
                              "// {title} (simulated): an ordered list of short texts.\n"
                              "class Entries {\n"
                              "  constructor() { this.items = []; }\n"
                              "\n"
                              "  add(text) {\n"
                              "    if (!text.trim()) throw new Error('an entry needs a text');\n"
                              "    this.items.push(text.trim());\n"
                              "  }\n"
                              "\n"
                              "  remove(number) {\n"
                              "    if (!(number >= 1 && number <= this.items.length)) throw new "
                              "Error(`there is no entry ${number}`);\n"
                              "    this.items.splice(number - 1, 1);\n"
                              "  }\n"
                              "}\n"
                              "\n"
                              "module.exports = { Entries };\n"}},
    [SIM_LANG_SHELL] = {{"shell", "{package}.sh",
                         "#!/bin/sh\n"
                         "# {title} (simulated): an ordered list of short texts in a file.\n"
                         "set -eu\n"
                         "file=${FILE:-{package}.txt}\n"
                         "touch \"$file\"\n"
                         "case ${1:-list} in\n"
                         "add) [ -n \"${2:-}\" ] || { echo \"an entry needs a text\" >&2; exit 2; "
                         "}; echo \"$2\" >>\"$file\" ;;\n"
                         "remove) sed -i \"${2:?a number is needed}d\" \"$file\" ;;\n"
                         "list) ;;\n"
                         "*) echo \"usage: $0 add TEXT | remove NUMBER | list\" >&2; exit 2 ;;\n"
                         "esac\n"
                         "nl -w1 -s'. ' \"$file\"\n"}},
};

static const struct template tests[SIM_LANG_COUNT][MAX_FILES] = {
    [SIM_LANG_PYTHON] =
        {{"python", "test_{package}.py",
          "\"\"\"Tests of {title} (simulated).\"\"\"\n"
          "import os\n"
          "import tempfile\n"
          "import unittest\n"
          "\n"
          "from {package} import Entries\n"
          "\n"
          "\n"
          "class EntriesTest(unittest.TestCase):\n"
          "    def setUp(self):\n"
          "        self.directory = tempfile.TemporaryDirectory()\n"
          "        self.addCleanup(self.directory.cleanup)\n"
          "        self.path = os.path.join(self.directory.name, \"entries.json\")\n"
          "\n"
          "    def test_entries_are_kept_in_order(self):\n"
          "        entries = Entries(self.path)\n"
          "        entries.add(\"one\")\n"
          "        entries.add(\"two\")\n"
          "        self.assertEqual(Entries(self.path).items, [\"one\", \"two\"])\n"
          "\n"
          "    def test_an_empty_entry_is_refused(self):\n"
          "        with self.assertRaises(ValueError):\n"
          "            Entries(self.path).add(\"  \")\n"
          "\n"
          "    def test_a_missing_entry_cannot_be_removed(self):\n"
          "        with self.assertRaises(ValueError):\n"
          "            Entries(self.path).remove(1)\n"
          "\n"
          "\n"
          "if __name__ == \"__main__\":\n"
          "    unittest.main()\n"}},
    [SIM_LANG_C] =
        {{"c", "test_{package}.c",
          "/* Tests of {title} (simulated): cc test_{package}.c {package}.c && ./a.out */\n"
          "#include <assert.h>\n"
          "#include <string.h>\n"
          "\n"
          "#include \"{package}.h\"\n"
          "\n"
          "int main(void)\n"
          "{\n"
          "    struct {package} list = {0};\n"
          "    assert({package}_add(&list, \"one\") == 0 && {package}_add(&list, \"two\") == 0);\n"
          "    assert({package}_add(&list, \"\") == -1);\n"
          "    assert({package}_remove(&list, 1) == 0 && strcmp(list.texts[0], \"two\") == 0);\n"
          "    assert({package}_remove(&list, 2) == -1);\n"
          "    return 0;\n"
          "}\n"}},
    [SIM_LANG_HTML] = {{"markdown", "TESTING.md",
                        "# Testing {title} (simulated)\n"
                        "\n"
                        "1. Open `index.html`: the heading is shown and the list is empty.\n"
                        "2. Add an entry: it appears at the end of the list.\n"
                        "3. Click it: it is gone. An empty entry is refused.\n"}},
    [SIM_LANG_JAVASCRIPT] = {{"javascript", "test_{package}.js",
                              "// Tests of {title} (simulated): node test_{package}.js\n"
                              "const assert = require('node:assert');\n"
                              "const { Entries } = require('./{package}.js');\n"
                              "\n"
                              "const entries = new Entries();\n"
                              "entries.add('one');\n"
                              "entries.add('two');\n"
                              "entries.remove(1);\n"
                              "assert.deepStrictEqual(entries.items, ['two']);\n"
                              "assert.throws(() => entries.add(' '));\n"
                              "assert.throws(() => entries.remove(2));\n"}},
    [SIM_LANG_SHELL] = {{"shell", "test_{package}.sh",
                         "#!/bin/sh\n"
                         "# Tests of {title} (simulated).\n"
                         "set -eu\n"
                         "FILE=$(mktemp)\n"
                         "export FILE\n"
                         "trap 'rm -f \"$FILE\"' EXIT\n"
                         "sh {package}.sh add one >/dev/null\n"
                         "[ \"$(sh {package}.sh add two | tail -n 1)\" = \"2. two\" ]\n"
                         "! sh {package}.sh add '' 2>/dev/null\n"}},
};

static const struct template readme = {
    "markdown", "README.md",
    "# {title}\n"
    "\n"
    "(simulated) Written by a rule of thumb, not by a model.\n"
    "\n"
    "## What it is\n"
    "\n"
    "{package} keeps an ordered list of short texts: entries are added, listed and removed.\n"
    "\n"
    "## Files\n"
    "\n"
    "Every file's name starts with `{package}`; those that start with `test_` are its tests.\n"};

static const struct template text = {
    "markdown", "{package}.md",
    "# {title}\n"
    "\n"
    "(simulated) A model would write this text; a rule of thumb made its frame.\n"
    "\n"
    "## Background\n"
    "\n"
    "What the reader needs to know about: {title}.\n"
    "\n"
    "## Main part\n"
    "\n"
    "The facts that were gathered, in the order of the outline.\n"
    "\n"
    "## Conclusion\n"
    "\n"
    "What follows from them.\n"};

static void add_upper(struct buf *out, const char *name)
{
    for (; *name != '\0'; name++)
        buf_add_char(out, *name >= 'a' && *name <= 'z' ? (char)(*name - 'a' + 'A') : *name);
}

static void expand(struct buf *out, const char *from, const struct sim_topic *topic)
{
    while (*from != '\0') {
        size_t plain = strcspn(from, "{");
        buf_add(out, from, plain);
        from += plain;
        if (strncmp(from, "{title}", 7) == 0) {
            buf_add_str(out, topic->title);
            from += 7;
        } else if (strncmp(from, "{package}", 9) == 0) {
            buf_add_str(out, topic->package);
            from += 9;
        } else if (strncmp(from, "{PACKAGE}", 9) == 0) {
            add_upper(out, topic->package);
            from += 9;
        } else if (*from == '{') {
            buf_add_char(out, *from++);
        }
    }
}

static void add_file(const struct template *file, const struct sim_topic *topic, struct buf *out)
{
    buf_printf(out, "\n```%s path=", file->info);
    expand(out, file->path, topic);
    buf_add_char(out, '\n');
    expand(out, file->text, topic);
    buf_add_str(out, "```\n");
}

void sim_reply_files(enum sim_role role, const struct sim_topic *topic, struct buf *out)
{
    if (role == SIM_ROLE_WRITER) {
        buf_printf(out, "A text about %s (simulated).\n", topic->title);
        add_file(topic->prose ? &text : &readme, topic, out);
        return;
    }
    const struct template *files = role == SIM_ROLE_TESTER ? tests[topic->lang] : code[topic->lang];
    buf_printf(out, "%s %s (simulated).\n", role == SIM_ROLE_TESTER ? "Tests of" : "Code of",
               topic->title);
    for (size_t i = 0; i < MAX_FILES && files[i].path != NULL; i++)
        add_file(&files[i], topic, out);
}
