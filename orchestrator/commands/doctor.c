#include "orchestrator/doctor.h"

#include <stdio.h>
#include <string.h>

#include "orchestrator/command.h"

static const struct command_option options[] = {
    {"json", 0, NULL, "print one JSON object: ok, checks (check, level, detail, cure)", false},
    {0},
};

static const char *const levels[] = {"ok", "note", "bad"};

static void print_json(const struct doctor *doctor)
{
    struct buf out = {0};
    buf_printf(&out, "{\"ok\":%s,\"checks\":[", doctor->bad ? "false" : "true");
    for (size_t i = 0; i < doctor->n_checks; i++) {
        const struct doctor_check *check = &doctor->checks[i];
        buf_printf(&out, "%s{\"check\":", i > 0 ? "," : "");
        buf_add_json(&out, check->name, strlen(check->name));
        buf_printf(&out, ",\"level\":\"%s\",\"detail\":", levels[check->level]);
        buf_add_json(&out, check->detail, strlen(check->detail));
        buf_add_str(&out, ",\"cure\":");
        buf_add_json(&out, check->cure, strlen(check->cure));
        buf_add_char(&out, '}');
    }
    buf_add_str(&out, "]}");
    puts(out.data);
    buf_release(&out);
}

static void print_lines(const struct doctor *doctor)
{
    int bad = 0;
    for (size_t i = 0; i < doctor->n_checks; i++) {
        const struct doctor_check *check = &doctor->checks[i];
        printf("%-5s %s: %s\n", levels[check->level], check->name, check->detail);
        if (check->cure[0] != '\0')
            printf("      -> %s\n", check->cure);
        bad += check->level == DOCTOR_BAD;
    }
    if (bad == 0)
        puts("nothing is wrong");
    else
        printf("%d thing%s to put right\n", bad, bad == 1 ? "" : "s");
}

static int exec(struct invocation *invocation)
{
    struct doctor doctor;
    doctor_examine(&doctor, invocation_config(invocation));
    if (invocation_has(invocation, "json"))
        print_json(&doctor);
    else
        print_lines(&doctor);
    int code = doctor.bad ? EXIT_FAILED : EXIT_DONE;
    doctor_release(&doctor);
    return code;
}

const struct command command_doctor = {
    .name = "doctor",
    .args = "",
    .summary = "look for what is missing or wrong, and say how to put it right",
    .options = options,
    .exec = exec,
};
