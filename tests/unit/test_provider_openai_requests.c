/* What is sent to OpenAI and to those who speak its chat completions. */
#include "tests/unit/provider_check.h"

static const char *const family[] = {"openai", "huggingface", "lmstudio",         "llamacpp",
                                     "vllm",   "tgi",         "openai-compatible"};
#define FAMILY (sizeof family / sizeof *family)

static void request_of_openai_is_exact(void **state)
{
    (void)state;
    struct provider_call call = plain_call();
    call.system = "Be \"terse\".";
    call.prompt = "Gr\xc3\xbc\xc3\x9f\n\xff";
    call.prompt_len = strlen(call.prompt);
    call.temperature = 0.2;
    call.max_tokens = 800;
    call.json_schema = "{\"type\":\"object\",\"properties\":{\"text\":{\"type\":\"string\"}},"
                       "\"required\":[\"text\"],\"additionalProperties\":false}";
    check_request(
        "openai", &call, "https://api.openai.com/v1/chat/completions",
        "Content-Type: application/json\nAuthorization: Bearer " KEY "\n",
        "{\"model\":\"m\",\"messages\":[{\"role\":\"developer\",\"content\":\"Be \\\"terse\\\".\"},"
        "{\"role\":\"user\",\"content\":\"Gr\xc3\xbc\xc3\x9f\\n\xef\xbf\xbd\"}],"
        "\"max_completion_tokens\":800,\"temperature\":0.2,\"response_format\":"
        "{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"answer\",\"strict\":true,\"schema\":"
        "{\"type\":\"object\",\"properties\":{\"text\":{\"type\":\"string\"}},"
        "\"required\":[\"text\"],\"additionalProperties\":false}}},\"stream\":true,"
        "\"stream_options\":{\"include_usage\":true,\"include_obfuscation\":false}}");
}

static void plain_request_holds_nothing_that_was_not_asked(void **state)
{
    (void)state;
    struct provider_call call = plain_call();
    call.stream = false;
    call.key = NULL;
    call.base_url = "http://127.0.0.1:9";
    check_request("openai-compatible", &call, "http://127.0.0.1:9/v1/chat/completions",
                  "Content-Type: application/json\n",
                  "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}],"
                  "\"stream\":false}");
}

static void only_openai_gets_max_completion_tokens(void **state)
{
    (void)state;
    struct provider_call call = plain_call();
    call.max_tokens = 5;
    call.base_url = "http://h";
    call.json_schema = "{}"; /* no native API for that */
    for (size_t i = 0; i < FAMILY; i++) {
        struct provider_request request = build(family[i], &call);
        bool openai = strcmp(family[i], "openai") == 0;
        assert_int_equal(strstr(request.body.data, "\"max_completion_tokens\":5") != NULL, openai);
        assert_int_equal(strstr(request.body.data, "\"max_tokens\":5") != NULL, !openai);
        assert_int_equal(strstr(request.body.data, "obfuscation") != NULL, openai);
        assert_non_null(strstr(request.body.data, "\"include_usage\":true"));
        provider_request_release(&request);
    }
}

static void structured_output_has_each_servers_own_form(void **state)
{
    (void)state;
    static const struct {
        const char *api, *format;
    } cases[] = {
        {"huggingface", "{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"answer\",\"strict\":"
                        "false,\"schema\":{\"type\":\"object\"}}}"},
        {"lmstudio", "{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"answer\",\"strict\":"
                     "false,\"schema\":{\"type\":\"object\"}}}"},
        {"llamacpp", "{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"answer\",\"schema\":"
                     "{\"type\":\"object\"}}}"},
        {"tgi", "{\"type\":\"json\",\"value\":{\"type\":\"object\"}}"},
    };
    struct provider_call call = plain_call();
    call.base_url = "http://h";
    call.json_schema = " {\"type\":\"object\"} ";
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct provider_request request = build(cases[i].api, &call);
        json_t *json = json_loads(request.body.data, 0, NULL);
        char *format = json_dumps(json_object_get(json, "response_format"), 0);
        assert_non_null(format);
        assert_json(format, strlen(format), cases[i].format);
        free(format);
        json_decref(json);
        provider_request_release(&request);
    }
}

static void strict_is_said_only_of_schemas_that_are(void **state)
{
    (void)state;
    static const struct {
        const char *schema;
        bool strict;
    } cases[] = {
        {"{\"type\":\"object\",\"properties\":{},\"additionalProperties\":false}", true},
        {"{\"type\":\"object\",\"properties\":{}}", false},
        {"{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"string\"}},\"required\":[],"
         "\"additionalProperties\":false}",
         false},
        {"{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"array\",\"items\":{\"type\":"
         "\"object\"}}},\"required\":[\"a\"],\"additionalProperties\":false}",
         false},
        {"{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"array\",\"items\":{\"type\":"
         "\"string\"}}},\"required\":[\"a\"],\"additionalProperties\":false}",
         true},
    };
    struct provider_call call = plain_call();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        call.json_schema = cases[i].schema;
        struct provider_request request = build("openai", &call);
        assert_non_null(
            strstr(request.body.data, cases[i].strict ? "\"strict\":true" : "\"strict\":false"));
        provider_request_release(&request);
    }
}

static void tgi_gets_no_temperature_of_zero(void **state)
{
    (void)state;
    struct provider_call call = plain_call();
    call.base_url = "http://h";
    call.temperature = 0;
    struct provider_request request = build("tgi", &call);
    assert_null(strstr(request.body.data, "temperature"));
    provider_request_release(&request);
    request = build("vllm", &call);
    assert_non_null(strstr(request.body.data, "\"temperature\":0"));
    provider_request_release(&request);
}

static void base_url_gets_its_version_once(void **state)
{
    (void)state;
    static const struct {
        const char *base, *url;
    } cases[] = {
        {"http://h:1", "http://h:1/v1/chat/completions"},
        {"http://h:1/", "http://h:1/v1/chat/completions"},
        {"http://h:1/v1", "http://h:1/v1/chat/completions"},
        {"http://h:1/v1/", "http://h:1/v1/chat/completions"},
        {"https://api.groq.com/openai", "https://api.groq.com/openai/v1/chat/completions"},
        {"https://open.bigmodel.cn/api/paas/v4",
         "https://open.bigmodel.cn/api/paas/v4/chat/completions"},
        {"https://g.example/v1beta/openai/", "https://g.example/v1beta/openai/chat/completions"},
    };
    struct provider_call call = plain_call();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        call.base_url = cases[i].base;
        struct provider_request request = build("openai-compatible", &call);
        assert_string_equal(request.url.data, cases[i].url);
        provider_request_release(&request);
    }
}

static void calls_that_cannot_be_expressed_are_refused_with_a_sentence(void **state)
{
    (void)state;
    struct err err;
    struct provider_call call = plain_call();
    assert_int_equal(build_error("openai-compatible", &call, &err), -EINVAL);
    assert_non_null(strstr(err.text, "base_url"));
    call.base_url = "ftp://x";
    assert_int_equal(build_error("openai", &call, &err), -EINVAL);
    call.base_url = "http://x/\r\nEvil: 1";
    assert_int_equal(build_error("openai", &call, &err), -EINVAL);
    call.base_url = NULL;
    call.key = NULL;
    assert_int_equal(build_error("openai", &call, &err), -EINVAL);
    assert_non_null(strstr(err.text, "OPENAI_API_KEY"));
    call.key = "sk-1\nEvil: 1";
    assert_int_equal(build_error("openai", &call, &err), -EINVAL);
    assert_null(strstr(err.text, "sk-1"));
    call.key = KEY;
    call.json_schema = "{\"type\":";
    assert_int_equal(build_error("openai", &call, &err), -EINVAL);
    call.json_schema = "[]";
    assert_int_equal(build_error("openai", &call, &err), -EINVAL);
}

/* The member of a request's body, as compact JSON that the caller frees; NULL when it is not there.
 */
static char *member(const char *api, const struct provider_call *call, const char *name)
{
    struct provider_request request = build(api, call);
    json_t *json = json_loads(request.body.data, 0, NULL);
    assert_non_null(json);
    json_t *value = json_object_get(json, name);
    char *text = value != NULL ? json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
    json_decref(json);
    provider_request_release(&request);
    return text;
}

static void check_member(const char *api, const struct provider_call *call, const char *name,
                         const char *expected)
{
    char *text = member(api, call, name);
    if (expected == NULL) {
        assert_null(text);
        return;
    }
    assert_non_null(text);
    assert_string_equal(text, expected);
    free(text);
}

static void seed_and_stop_strings_are_sent(void **state)
{
    (void)state;
    struct provider_call call = plain_call();
    call.base_url = "http://h";
    call.has_seed = true;
    call.seed = 0;
    call.stop = (const char *const[]){"END", "\"\n"};
    call.n_stop = 2;
    for (size_t i = 0; i < FAMILY; i++) {
        check_member(family[i], &call, "seed", "0");
        check_member(family[i], &call, "stop", "[\"END\",\"\\\"\\n\"]");
    }
    call.has_seed = false;
    call.n_stop = 0;
    for (size_t i = 0; i < FAMILY; i++) {
        check_member(family[i], &call, "seed", NULL);
        check_member(family[i], &call, "stop", NULL);
    }
}

static void more_than_four_stop_strings_are_refused_where_four_are_the_most(void **state)
{
    (void)state;
    struct provider_call call = plain_call();
    struct err err;
    call.base_url = "http://h";
    call.stop = (const char *const[]){"1", "2", "3", "4", "5"};
    call.n_stop = 5;
    static const char *const strict[] = {"openai", "huggingface", "tgi"};
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(build_error(strict[i], &call, &err), -EINVAL);
        assert_non_null(strstr(err.text, "at most 4"));
    }
    check_member("vllm", &call, "stop", "[\"1\",\"2\",\"3\",\"4\",\"5\"]");
}

static void effort_is_said_as_each_server_takes_it(void **state)
{
    (void)state;
    static const struct {
        const char *api, *effort, *member, *value;
    } cases[] = {
        {"openai", "high", "reasoning_effort", "\"high\""},
        {"openai", "none", "reasoning_effort", "\"none\""},
        {"openai", "", "reasoning_effort", NULL},
        {"huggingface", "low", "reasoning_effort", "\"low\""},
        {"vllm", "low", "reasoning_effort", "\"low\""},
        {"vllm", "none", "reasoning_effort", NULL},
        {"vllm", "none", "chat_template_kwargs", "{\"enable_thinking\":false}"},
        {"llamacpp", "none", "chat_template_kwargs", "{\"enable_thinking\":false}"},
        {"llamacpp", "high", "chat_template_kwargs", NULL},
        {"tgi", "high", "reasoning_effort", NULL},
        {"lmstudio", "high", "reasoning", "\"high\""},
        {"lmstudio", "minimal", "reasoning", "\"low\""},
        {"lmstudio", "none", "reasoning", "\"off\""},
    };
    struct provider_call call = plain_call();
    call.base_url = "http://h";
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        call.effort = cases[i].effort;
        check_member(cases[i].api, &call, cases[i].member, cases[i].value);
    }
}

static void images_go_by_url_or_as_data(void **state)
{
    (void)state;
    static const struct provider_image images[] = {
        {.url = "https://h/\"a\".png", .media_type = "", .data = ""},
        {.url = "", .media_type = "image/png", .data = "iVBORw0KGgo="},
    };
    struct provider_call call = plain_call();
    call.base_url = "http://h";
    call.images = images;
    call.n_images = 2;
    for (size_t i = 0; i < FAMILY; i++)
        check_member(family[i], &call, "messages",
                     "[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"Hi\"},"
                     "{\"type\":\"image_url\",\"image_url\":{\"url\":\"https://h/\\\"a\\\".png\"}},"
                     "{\"type\":\"image_url\",\"image_url\":{\"url\":\"data:image/png;base64,"
                     "iVBORw0KGgo=\"}}]}]");
}

static void image_that_is_no_base64_is_refused(void **state)
{
    (void)state;
    static const struct provider_image wrong[] = {
        {.url = "", .media_type = "image/png", .data = "no\"base64"},
        {.url = "", .media_type = "image/png", .data = ""},
        {.url = "", .media_type = "image/\"png", .data = "AAAA"},
        {.url = "", .media_type = "", .data = "AAAA"},
    };
    struct provider_call call = plain_call();
    struct err err;
    call.n_images = 1;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        call.images = &wrong[i];
        call.responses = i % 2 == 1;
        assert_int_equal(build_error("openai", &call, &err), -EINVAL);
        assert_non_null(strstr(err.text, "image 1"));
    }
}

static void model_without_system_prompts_gets_it_before_the_prompt(void **state)
{
    (void)state;
    struct provider_call call = plain_call();
    call.base_url = "http://h";
    call.system = "Be terse.";
    call.no_system = true;
    check_member("vllm", &call, "messages",
                 "[{\"role\":\"user\",\"content\":\"Be terse.\\n\\nHi\"}]");
}

static void servers_that_refuse_stream_options_get_none(void **state)
{
    (void)state;
    struct provider_call call = plain_call();
    call.base_url = "http://h";
    check_member("openai-compatible", &call, "stream_options", "{\"include_usage\":true}");
    call.no_stream_options = true;
    check_member("openai-compatible", &call, "stream_options", NULL);
    call.stream = false;
    call.no_stream_options = false;
    check_member("openai-compatible", &call, "stream_options", NULL);
}

static void own_headers_go_along_on_every_kind_of_call(void **state)
{
    (void)state;
    struct provider_call call = plain_call();
    call.headers = (const char *const[]){"X-HF-Bill-To: my-org"};
    call.n_headers = 1;
    call.inputs = (const char *const[]){"a"};
    call.n_inputs = 1;
    for (int kind = 0; kind < PROVIDER_KIND_COUNT; kind++) {
        call.kind = (enum provider_kind)kind;
        struct provider_request request = build("huggingface", &call);
        assert_non_null(strstr(request.headers.data, "X-HF-Bill-To: my-org\n"));
        assert_non_null(strstr(request.headers.data, "Authorization: Bearer " KEY "\n"));
        provider_request_release(&request);
    }
    struct err err;
    call.headers = (const char *const[]){"X-A: 1\r\nEvil: 2"};
    assert_int_equal(build_error("huggingface", &call, &err), -EINVAL);
}

static void llamacpp_is_asked_for_its_prompt_cache(void **state)
{
    (void)state;
    struct provider_call call = plain_call();
    call.base_url = "http://h";
    check_member("llamacpp", &call, "cache_prompt", "true");
    check_member("vllm", &call, "cache_prompt", NULL);
}

static void models_are_asked_for(void **state)
{
    (void)state;
    struct provider_call call = plain_call();
    call.kind = PROVIDER_LIST;
    struct provider_request request = build("openai", &call);
    assert_string_equal(request.url.data, "https://api.openai.com/v1/models");
    assert_non_null(strstr(request.headers.data, "Authorization: Bearer " KEY "\n"));
    assert_int_equal(request.body.len, 0);
    provider_request_release(&request);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(request_of_openai_is_exact),
        cmocka_unit_test(plain_request_holds_nothing_that_was_not_asked),
        cmocka_unit_test(only_openai_gets_max_completion_tokens),
        cmocka_unit_test(structured_output_has_each_servers_own_form),
        cmocka_unit_test(strict_is_said_only_of_schemas_that_are),
        cmocka_unit_test(tgi_gets_no_temperature_of_zero),
        cmocka_unit_test(base_url_gets_its_version_once),
        cmocka_unit_test(calls_that_cannot_be_expressed_are_refused_with_a_sentence),
        cmocka_unit_test(seed_and_stop_strings_are_sent),
        cmocka_unit_test(more_than_four_stop_strings_are_refused_where_four_are_the_most),
        cmocka_unit_test(effort_is_said_as_each_server_takes_it),
        cmocka_unit_test(images_go_by_url_or_as_data),
        cmocka_unit_test(image_that_is_no_base64_is_refused),
        cmocka_unit_test(model_without_system_prompts_gets_it_before_the_prompt),
        cmocka_unit_test(servers_that_refuse_stream_options_get_none),
        cmocka_unit_test(own_headers_go_along_on_every_kind_of_call),
        cmocka_unit_test(llamacpp_is_asked_for_its_prompt_cache),
        cmocka_unit_test(models_are_asked_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
