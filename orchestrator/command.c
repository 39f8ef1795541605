#include "orchestrator/command.h"

#include <errno.h>
#include <locale.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "common/loop.h"
#include "common/queue.h"
#include "schemas/mem.h"

#define BUDGET_MOST_USD 1000000
#define BUDGET_MOST_TOKENS 1000000000000

const struct command_option command_common_options[] = {
    {"config", 0, "FILE", "configuration file, instead of the usual places", false},
    {"help", 'h', NULL, "print this help", false},
    {0},
};

/* A given option: the row of its table and its value. */
struct given {
    const struct command_option *option;
    const char *value; /* borrowed; NULL: a flag */
};

struct invocation {
    const struct command *command;
    const char **args;
    size_t n_args;
    struct given *given; /* grouped by option, each group in the order of the command line */
    const char **values; /* given[i].value again: what invocation_values() hands out */
    size_t n_given;
};

/* --- parsing -------------------------------------------------------------------------------- */

/* The i-th option of a command, the common ones behind its own; NULL at the end. */
static const struct command_option *option_at(const struct command *command, size_t i)
{
    const struct command_option *at = command->options;
    for (; at != NULL && at->name != NULL; at++, i--) {
        if (i == 0)
            return at;
    }
    for (at = command_common_options; at->name != NULL; at++, i--) {
        if (i == 0)
            return at;
    }
    return NULL;
}

static const char *option_name_at(const void *ctx, size_t i)
{
    const struct command_option *option = option_at(ctx, i);
    return option != NULL ? option->name : NULL;
}

static const struct command_option *option_long(const struct command *command, const char *name,
                                                size_t len)
{
    const struct command_option *option;
    for (size_t i = 0; (option = option_at(command, i)) != NULL; i++) {
        if (strlen(option->name) == len && memcmp(option->name, name, len) == 0)
            return option;
    }
    return NULL;
}

static const struct command_option *option_short(const struct command *command, char letter)
{
    const struct command_option *option;
    for (size_t i = 0; (option = option_at(command, i)) != NULL; i++) {
        if (option->letter == letter)
            return option;
    }
    return NULL;
}

struct parser {
    struct invocation *invocation;
    const char *const *argv;
    int argc, at;
    struct err *err;
};

static int give(struct parser *parser, const struct command_option *option, const char *value)
{
    struct invocation *invocation = parser->invocation;
    size_t place = invocation->n_given;
    for (size_t i = 0; i < invocation->n_given; i++) {
        if (invocation->given[i].option != option)
            continue;
        if (option->value != NULL && !option->repeats)
            return err_set(parser->err, -EINVAL, "--%s was given twice", option->name);
        place = i + 1;
    }
    memmove(invocation->given + place + 1, invocation->given + place,
            (invocation->n_given - place) * sizeof *invocation->given);
    invocation->given[place] = (struct given){option, value};
    invocation->n_given++;
    return 0;
}

/* The value behind an option without "=". */
static int take_value(struct parser *parser, const struct command_option *option)
{
    if (parser->at + 1 >= parser->argc)
        return err_set(parser->err, -EINVAL, "--%s needs a value: --%s %s", option->name,
                       option->name, option->value);
    return give(parser, option, parser->argv[++parser->at]);
}

static int parse_long(struct parser *parser, const char *text)
{
    const struct command *command = parser->invocation->command;
    size_t len = strcspn(text, "=");
    const struct command_option *option = option_long(command, text, len);
    if (option == NULL) {
        char typed[64];
        snprintf(typed, sizeof typed, "%.*s", (int)len, text);
        const char *nearest = command_nearest(typed, option_name_at, command);
        return err_set(parser->err, -EINVAL, "there is no option --%s%s%s%s", typed,
                       nearest != NULL ? "; did you mean --" : "", nearest != NULL ? nearest : "",
                       nearest != NULL ? "?" : "");
    }
    if (text[len] == '=' && option->value == NULL)
        return err_set(parser->err, -EINVAL, "--%s takes no value", option->name);
    if (text[len] == '=')
        return give(parser, option, text + len + 1);
    return option->value != NULL ? take_value(parser, option) : give(parser, option, NULL);
}

/* "-dq", "-f FILE", "-fFILE". */
static int parse_short(struct parser *parser, const char *letters)
{
    for (; *letters != '\0'; letters++) {
        const struct command_option *option = option_short(parser->invocation->command, *letters);
        if (option == NULL)
            return err_set(parser->err, -EINVAL,
                           "there is no option -%c (text that starts with a dash goes behind --)",
                           *letters >= 0x20 && *letters < 0x7f ? *letters : '?');
        if (option->value != NULL)
            return letters[1] != '\0' ? give(parser, option, letters + 1)
                                      : take_value(parser, option);
        int rc = give(parser, option, NULL);
        if (rc != 0)
            return rc;
    }
    return 0;
}

static int parse_all(struct parser *parser)
{
    struct invocation *invocation = parser->invocation;
    bool options = true;
    for (; parser->at < parser->argc; parser->at++) {
        const char *arg = parser->argv[parser->at];
        int rc = 0;
        if (options && strcmp(arg, "--") == 0)
            options = false;
        else if (options && strncmp(arg, "--", 2) == 0)
            rc = parse_long(parser, arg + 2);
        else if (options && arg[0] == '-' && arg[1] != '\0')
            rc = parse_short(parser, arg + 1);
        else
            invocation->args[invocation->n_args++] = arg;
        if (rc != 0)
            return rc;
    }
    return 0;
}

static int check_args(const struct invocation *invocation, struct err *err)
{
    const struct command *command = invocation->command;
    if (invocation->n_args < (size_t)command->min_args)
        return err_set(err, -EINVAL, "%s is missing", command->args);
    if (command->max_args >= 0 && invocation->n_args > (size_t)command->max_args)
        return err_set(err, -EINVAL, "\"%.100s\" is one argument too many%s",
                       invocation->args[command->max_args],
                       command->max_args == 1 ? "; text with spaces needs quotes" : "");
    return 0;
}

int invocation_parse(struct invocation **ret, const struct command *command, int argc,
                     const char *const *argv, struct err *err)
{
    /* A bundle such as "-qd" gives more than one option an argument: count letters. */
    size_t room = (size_t)argc + 1;
    for (int i = 0; i < argc; i++)
        room += argv[i][0] == '-' ? strlen(argv[i]) : 0;
    struct invocation *made = mem_must_zalloc(sizeof *made);
    made->command = command;
    made->args = mem_must_zalloc(((size_t)argc + 1) * sizeof *made->args);
    made->given = mem_must_zalloc(room * sizeof *made->given);
    made->values = mem_must_zalloc(room * sizeof *made->values);
    struct parser parser = {.invocation = made, .argv = argv, .argc = argc, .err = err};
    int rc = parse_all(&parser);
    for (size_t i = 0; i < made->n_given; i++)
        made->values[i] = made->given[i].value;
    if (invocation_has(made, "help"))
        rc = 1;
    else if (rc == 0)
        rc = check_args(made, err);
    if (rc < 0)
        invocation_free(&made);
    *ret = made;
    return rc;
}

void invocation_free(struct invocation **invocation)
{
    if (*invocation == NULL)
        return;
    free((*invocation)->args);
    free((*invocation)->given);
    free((*invocation)->values);
    free(*invocation);
    *invocation = NULL;
}

/* --- what commands ask ---------------------------------------------------------------------- */

size_t invocation_args(const struct invocation *invocation, const char *const **ret_args)
{
    if (ret_args != NULL)
        *ret_args = invocation->args;
    return invocation->n_args;
}

/* Position of the option's first value; n_given when it was not given. */
static size_t find_given(const struct invocation *invocation, const char *option, size_t *ret_n)
{
    size_t first = 0, n = 0;
    while (first < invocation->n_given &&
           strcmp(invocation->given[first].option->name, option) != 0)
        first++;
    while (first + n < invocation->n_given &&
           strcmp(invocation->given[first + n].option->name, option) == 0)
        n++;
    *ret_n = n;
    return first;
}

bool invocation_has(const struct invocation *invocation, const char *option)
{
    size_t n;
    find_given(invocation, option, &n);
    return n > 0;
}

const char *invocation_value(const struct invocation *invocation, const char *option)
{
    size_t n, first = find_given(invocation, option, &n);
    return n > 0 ? invocation->values[first + n - 1] : NULL;
}

size_t invocation_values(const struct invocation *invocation, const char *option,
                         const char *const **ret_values)
{
    size_t n, first = find_given(invocation, option, &n);
    *ret_values = invocation->values + first;
    return n;
}

const char *invocation_config(const struct invocation *invocation)
{
    return invocation_value(invocation, "config");
}

const struct command *invocation_command(const struct invocation *invocation)
{
    return invocation->command;
}

int invocation_int(const struct invocation *invocation, const char *option, int64_t min,
                   int64_t max, int64_t *ret)
{
    const char *text = invocation_value(invocation, option);
    if (text == NULL)
        return 0;
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (end == text || *end != '\0' || errno != 0 || value < min || value > max) {
        command_fail(invocation, EXIT_USAGE,
                     "--%s %.60s: a whole number from %lld to %lld goes here", option, text,
                     (long long)min, (long long)max);
        return -EINVAL;
    }
    *ret = value;
    return 1;
}

int invocation_budget(const struct invocation *invocation, struct queue_spend *ret)
{
    const char *text = invocation_value(invocation, "budget");
    if (text != NULL) {
        char *end;
        text += *text == '$';
        double usd = strtod(text, &end);
        if (end == text || *end != '\0' || !(usd >= 0 && usd <= BUDGET_MOST_USD)) {
            command_fail(invocation, EXIT_USAGE,
                         "--budget %.40s: give an amount in USD from 0 to %d, such as 0.50", text,
                         BUDGET_MOST_USD);
            return -EINVAL;
        }
        ret->nano_usd = (int64_t)llround(usd * 1e9);
    }
    int rc = invocation_int(invocation, "budget-tokens", 0, BUDGET_MOST_TOKENS, &ret->tokens);
    return rc < 0 ? rc : 0;
}

int invocation_seconds(const struct invocation *invocation, const char *option, int64_t *ret_ms)
{
    const char *text = invocation_value(invocation, option);
    if (text == NULL)
        return 0;
    char *end;
    double seconds = strtod(text, &end);
    if (end == text || *end != '\0' || !isfinite(seconds) || seconds < 0 || seconds > 1e9) {
        command_fail(invocation, EXIT_USAGE, "--%s %.60s: a number of seconds goes here", option,
                     text);
        return -EINVAL;
    }
    *ret_ms = (int64_t)(seconds * 1000);
    return 1;
}

int command_fail(const struct invocation *invocation, int code, const char *format, ...)
{
    const char *name = invocation_command(invocation)->name;
    fprintf(stderr, "orchestrator %s: ", name);
    va_list args;
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    return code;
}

/* --- running -------------------------------------------------------------------------------- */

static const char *command_name_at(const void *ctx, size_t i)
{
    (void)ctx;
    return commands[i] != NULL ? commands[i]->name : NULL;
}

static int unknown_command(const char *name)
{
    if (name[0] == '-') {
        fprintf(stderr, "orchestrator: a command goes behind %.60s%s\n", name,
                strcmp(name, "--config") == 0 ? " FILE" : ", which is none");
        fputs("`orchestrator --help` lists them.\n", stderr);
        return EXIT_USAGE;
    }
    const char *nearest = command_nearest(name, command_name_at, NULL);
    fprintf(stderr, "orchestrator: there is no command \"%.60s\"%s%s%s\n", name,
            nearest != NULL ? "; did you mean " : "", nearest != NULL ? nearest : "",
            nearest != NULL ? "?" : "");
    fputs("`orchestrator --help` lists them.\n", stderr);
    return EXIT_USAGE;
}

static int print_overview(FILE *stream)
{
    struct buf help = {0};
    command_overview(&help);
    fwrite(help.data, 1, help.len, stream);
    buf_release(&help);
    return stream == stdout ? EXIT_DONE : EXIT_USAGE;
}

static int print_usage(const struct command *command)
{
    struct buf help = {0};
    command_usage(command, &help);
    fwrite(help.data, 1, help.len, stdout);
    buf_release(&help);
    return EXIT_DONE;
}

static int run_command(const struct command *command, int argc, const char *const *argv)
{
    struct invocation *invocation;
    struct err err = {0};
    int rc = invocation_parse(&invocation, command, argc, argv, &err);
    if (rc < 0) {
        fprintf(stderr, "orchestrator %s: %s\n`orchestrator %s --help` shows how it is used.\n",
                command->name, err.text, command->name);
        return EXIT_USAGE;
    }
    int code = rc == 1 ? print_usage(command) : command->exec(invocation);
    invocation_free(&invocation);
    return code;
}

/* Whether nobody reads standard output any more: what a pipe into `head` ends in. */
static bool reader_left(void)
{
    struct pollfd poll_fd = {.fd = STDOUT_FILENO, .events = POLLOUT};
    return poll(&poll_fd, 1, 0) == 1 && (poll_fd.revents & POLLERR) != 0;
}

int command_flush(int code)
{
    errno = 0;
    if (fflush(stdout) == 0 && !ferror(stdout))
        return code;
    int rc = errno; /* 0: an earlier write failed */
    if (rc == EPIPE || reader_left())
        return code;
    fprintf(stderr,
            "orchestrator: cannot write to standard output%s%s; what was printed is not whole\n",
            rc != 0 ? ": " : "", rc != 0 ? strerror(rc) : "");
    return code == EXIT_DONE ? EXIT_FAILED : code;
}

/* Options before the command's name (--config FILE, --help, --version) are moved behind it. */
static int split_leading(int argc, char **argv, const char **args)
{
    int at = 1;
    while (at < argc && argv[at][0] == '-') {
        if (strcmp(argv[at], "--config") == 0 && at + 1 < argc)
            at++;
        else if (strncmp(argv[at], "--config=", 9) != 0)
            break;
        at++;
    }
    int n = 0;
    for (int i = at + 1; i < argc; i++)
        args[n++] = argv[i];
    /* In front of what follows, so that a later "--" does not turn them into text. */
    memmove(args + (at - 1), args, (size_t)n * sizeof *args);
    for (int i = 1; i < at; i++)
        args[i - 1] = argv[i];
    return at;
}

int command_run(int argc, char **argv)
{
    loop_guard_standard();
    setlocale(LC_CTYPE, "C.UTF-8");
    log_init("orchestrator", LOG_LEVEL_ERROR); /* what a person must know is said by the command */
    signal(SIGPIPE, SIG_IGN);                  /* a reader of ours may go away; writes say so */
    signal(SIGXFSZ, SIG_IGN);                  /* the same for a file size limit */
    const char **args = mem_must_zalloc(((size_t)argc + 1) * sizeof *args);
    int at = split_leading(argc, argv, args);
    const char *name = at < argc ? argv[at] : NULL;
    int code;
    if (name == NULL)
        code = print_overview(stderr);
    else if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0)
        code = print_overview(stdout);
    else if (strcmp(name, "--version") == 0 || strcmp(name, "-V") == 0)
        code = run_command(command_find("version"), 0, NULL);
    else if (command_find(name) == NULL)
        code = unknown_command(name);
    else
        code = run_command(command_find(name), argc - 2, args);
    free(args);
    return command_flush(code);
}
