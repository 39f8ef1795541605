/* Ollama's /api/chat: bytes in, reply out. */
#include "tests/unit/provider_check.h"

#define LINE(content)                                                                              \
    "{\"model\":\"qwen3:8b\",\"created_at\":\"2026-11-20T10:00:00.1Z\",\"message\":"               \
    "{\"role\":\"assistant\",\"content\":\"" content "\"},\"done\":false}\n"
#define DONE_WITH(rest)                                                                            \
    "{\"model\":\"qwen3:8b\",\"message\":{\"role\":\"assistant\",\"content\":\"\"},\"done\":"      \
    "true" rest "}\n"
#define METRICS                                                                                    \
    ",\"total_duration\":900000000,\"load_duration\":50000000,\"prompt_eval_count\":26,"           \
    "\"prompt_eval_duration\":130500000,\"eval_count\":12,\"eval_duration\":600000000"
#define DONE DONE_WITH(",\"done_reason\":\"stop\"" METRICS)

static void stream_succeeds_with_done(void **state)
{
    (void)state;
    struct provider_reply reply = stream("ollama", LINE("4") LINE(" C") DONE);
    assert_success(&reply, "4 C");
    assert_int_equal(reply.finish, FINISH_DONE);
    assert_string_equal(reply.model, "qwen3:8b");
    provider_reply_release(&reply);
}

static void nanoseconds_become_milliseconds(void **state)
{
    (void)state;
    struct provider_reply reply = stream("ollama", LINE("4") DONE);
    assert_true(reply.load_ms > 49.999 && reply.load_ms < 50.001);
    assert_true(reply.prompt_ms > 130.499 && reply.prompt_ms < 130.501);
    assert_true(reply.generate_ms > 599.999 && reply.generate_ms < 600.001);
    assert_int_equal(reply.prompt_tokens, 26);
    assert_int_equal(reply.output_tokens, 12);
    assert_int_equal(reply.cached_tokens, -1);
    provider_reply_release(&reply);
}

static void zero_metrics_that_are_left_out_are_zero(void **state)
{
    (void)state;
    struct provider_reply reply =
        stream("ollama", LINE("4") DONE_WITH(",\"done_reason\":\"stop\",\"eval_count\":12"));
    assert_success(&reply, "4");
    assert_int_equal(reply.output_tokens, 12);
    assert_int_equal(reply.prompt_tokens, 0);
    assert_true(reply.load_ms == 0);
    provider_reply_release(&reply);
    reply = stream("ollama", LINE("4") DONE_WITH(""));
    assert_success(&reply, "4");
    assert_int_equal(reply.output_tokens, -1);
    assert_true(reply.load_ms == -1);
    provider_reply_release(&reply);
}

static void last_line_needs_no_line_feed(void **state)
{
    (void)state;
    struct provider_reply reply = stream(
        "ollama",
        LINE("4") "{\"message\":{\"content\":\"!\"},\"done\":true,\"done_reason\":\"stop\"}");
    assert_success(&reply, "4!");
    provider_reply_release(&reply);
}

static void done_reasons_are_mapped(void **state)
{
    (void)state;
    static const struct {
        const char *stream;
        enum finish finish;
        enum error_class class_;
    } cases[] = {
        {LINE("4") DONE_WITH(",\"done_reason\":\"stop\""), FINISH_DONE, CLASS_NONE},
        {LINE("4") DONE_WITH(",\"done_reason\":\"length\""), FINISH_LENGTH, CLASS_NONE},
        {LINE("4") DONE_WITH(",\"done_reason\":\"new\""), FINISH_OTHER, CLASS_NONE},
        {LINE("4") DONE_WITH(",\"done_reason\":null"), FINISH_DONE, CLASS_NONE},
        {LINE("4") DONE_WITH(""), FINISH_DONE, CLASS_NONE},
        {DONE_WITH(",\"done_reason\":\"length\""), FINISH_LENGTH, CLASS_BAD_REQUEST},
        {"{\"message\":{\"content\":\"\",\"tool_calls\":[{\"function\":{\"name\":\"f\","
         "\"arguments\":{}}}]},\"done\":false}\n" DONE,
         FINISH_TOOLS, CLASS_BAD_RESPONSE},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct provider_reply reply = stream("ollama", cases[i].stream);
        assert_int_equal(reply.finish, cases[i].finish);
        assert_int_equal(reply.error, cases[i].class_);
        assert_int_equal(reply.finished, cases[i].class_ == CLASS_NONE);
        provider_reply_release(&reply);
    }
}

static void loading_or_unloading_a_model_is_no_success(void **state)
{
    (void)state;
    struct provider_reply reply = stream("ollama", DONE_WITH(",\"done_reason\":\"load\""));
    assert_error(&reply, CLASS_BAD_RESPONSE);
    provider_reply_release(&reply);
    reply = body("ollama", DONE_WITH(",\"done_reason\":\"unload\""));
    assert_error(&reply, CLASS_BAD_RESPONSE);
    provider_reply_release(&reply);
}

static void error_line_in_a_stream_with_status_200_is_an_error(void **state)
{
    (void)state;
    static const struct {
        const char *stream;
        enum error_class class_;
    } cases[] = {
        {LINE("4") "{\"error\":\"an error was encountered while running the model\"}\n",
         CLASS_RETRY},
        {LINE("4") "{\"error\":\"x\"}\n" DONE, CLASS_RETRY},
        {"{\"error\":\"model \\\"x\\\" not found, try pulling it first\"}", CLASS_BAD_REQUEST},
        {"{\"error\":\"server busy, please try again.  maximum pending requests exceeded\"}",
         CLASS_OVERLOADED},
        {"{\"error\":\"the input length exceeds the context length\"}", CLASS_CONTEXT_TOO_LONG},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct provider_reply reply = stream("ollama", cases[i].stream);
        assert_error(&reply, cases[i].class_);
        provider_reply_release(&reply);
    }
}

static void truncated_stream_is_never_a_success(void **state)
{
    (void)state;
    static const char whole[] = LINE("4") LINE(" C") DONE;
    for (size_t len = 0; len < sizeof whole - 3; len++) {
        char *cut = strndup(whole, len);
        struct provider_reply reply = stream("ollama", cut);
        assert_error(&reply, CLASS_BAD_RESPONSE);
        provider_reply_release(&reply);
        free(cut);
    }
}

static void thinking_goes_to_reasoning(void **state)
{
    (void)state;
    struct provider_reply reply = stream(
        "ollama",
        "{\"message\":{\"content\":\"\",\"thinking\":\"hm\"},\"done\":false}\n" LINE("4") DONE);
    assert_success(&reply, "4");
    assert_string_equal(reasoning_of(&reply), "hm");
    provider_reply_release(&reply);
}

static void whole_answer_is_read(void **state)
{
    (void)state;
    struct provider_reply reply =
        body("ollama", "{\"model\":\"q\",\"message\":{\"role\":\"assistant\",\"content\":\"4 C\"},"
                       "\"done\":true,\"done_reason\":\"stop\"" METRICS "}");
    assert_success(&reply, "4 C");
    assert_int_equal(reply.output_tokens, 12);
    provider_reply_release(&reply);
}

static void stream_that_does_not_say_so_is_read_as_one(void **state)
{
    (void)state;
    struct provider_reply reply = body("ollama", LINE("4") LINE(" C") DONE);
    assert_success(&reply, "4 C");
    provider_reply_release(&reply);
    reply = body("ollama", LINE("4") LINE(" C"));
    assert_error(&reply, CLASS_BAD_RESPONSE);
    provider_reply_release(&reply);
}

static void whole_answer_without_done_is_no_success(void **state)
{
    (void)state;
    static const char *const bodies[] = {
        "{\"message\":{\"content\":\"x\"},\"done\":false}",
        "{\"message\":{\"content\":\"x\"}}",
        "{\"message\":{\"content\":\"x\"},\"done\":\"true\"}",
        "{}",
        "[]",
        "",
        "Ollama is running",
        "<html><title>x</title>",
    };
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++) {
        struct provider_reply reply = body("ollama", bodies[i]);
        assert_error(&reply, CLASS_BAD_RESPONSE);
        provider_reply_release(&reply);
    }
}

static void errors_have_their_classes(void **state)
{
    (void)state;
    static const struct error_case cases[] = {
        {400, NULL, "{\"error\":\"option num_ctx must be of type integer\"}", CLASS_BAD_REQUEST,
         -1},
        {400, NULL, "{\"error\":\"\\\"x\\\" does not support thinking\"}", CLASS_BAD_REQUEST, -1},
        {400, NULL, "{\"error\":\"the input length exceeds the context length\"}",
         CLASS_CONTEXT_TOO_LONG, -1},
        {404, NULL, "{\"error\":\"model \\\"x\\\" not found, try pulling it first\"}",
         CLASS_BAD_REQUEST, -1},
        {429, NULL, "{\"error\":\"too many requests\"}", CLASS_RATE_LIMITED, -1},
        {499, NULL, "{\"error\":\"cancelled\"}", CLASS_RETRY, -1},
        {500, NULL, "{\"error\":\"llama runner process has terminated\"}", CLASS_RETRY, -1},
        {500, NULL,
         "{\"error\":\"model requires more system memory (9 GiB) than is available (2 GiB)\"}",
         CLASS_BAD_REQUEST, -1},
        {502, NULL, "{\"error\":\"x\"}", CLASS_RETRY, -1},
        {503, NULL,
         "{\"error\":\"server busy, please try again.  maximum pending requests exceeded\"}",
         CLASS_OVERLOADED, -1},
        {401, NULL, "{\"error\":\"unauthorized " KEY "\"}", CLASS_AUTH, -1},
        {404, NULL, "404 page not found", CLASS_BAD_REQUEST, -1},
    };
    check_errors("ollama", cases, sizeof cases / sizeof *cases);
}

static void request_is_exact(void **state)
{
    (void)state;
    struct provider_call call = plain_call();
    call.system = "Be terse.";
    call.temperature = 0;
    call.max_tokens = 256;
    call.context = 8192;
    call.json_schema = "{\"type\":\"object\"}";
    check_request("ollama", &call, "http://127.0.0.1:11434/api/chat",
                  "Content-Type: application/json\nAuthorization: Bearer " KEY "\n",
                  "{\"model\":\"m\",\"messages\":[{\"role\":\"system\",\"content\":\"Be terse.\"},"
                  "{\"role\":\"user\",\"content\":\"Hi\"}],\"format\":{\"type\":\"object\"},"
                  "\"truncate\":false,\"options\":{\"num_ctx\":8192,\"num_predict\":256,"
                  "\"temperature\":0},\"stream\":true}");
}

static void plain_request_says_stream_false_because_the_default_is_true(void **state)
{
    (void)state;
    struct provider_call call = plain_call();
    call.key = NULL;
    call.stream = false;
    call.base_url = "http://127.0.0.1:9/api/";
    check_request("ollama", &call, "http://127.0.0.1:9/api/chat",
                  "Content-Type: application/json\n",
                  "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}],"
                  "\"truncate\":false,\"options\":{},\"stream\":false}");
}

static void num_ctx_is_the_models_context_in_every_call(void **state)
{
    (void)state;
    struct provider_call call = plain_call();
    call.context = 4096;
    struct provider_request request = build("ollama", &call);
    assert_non_null(strstr(request.body.data, "\"num_ctx\":4096"));
    provider_request_release(&request);
}

#define CHAT_URL "http://127.0.0.1:11434/api/chat"
#define HEADERS "Content-Type: application/json\nAuthorization: Bearer " KEY "\n"
#define HI "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}],"
#define REST "\"truncate\":false,\"stream\":true,\"options\":{}"

static void models_are_listed(void **state)
{
    (void)state;
    struct provider_call call = plain_call();
    call.kind = PROVIDER_LIST;
    call.key = NULL;
    struct provider_request request = build("ollama", &call);
    assert_string_equal(request.url.data, "http://127.0.0.1:11434/api/tags");
    assert_int_equal(request.body.len, 0);
    provider_request_release(&request);
    struct provider_reply reply =
        body_of("ollama", PROVIDER_LIST, 0,
                "{\"models\":[{\"name\":\"qwen3:8b\",\"model\":\"qwen3:8b\"}]}");
    assert_success(&reply, "qwen3:8b\n");
    provider_reply_release(&reply);
    reply = body_of("ollama", PROVIDER_LIST, 0, "{\"models\":null}"); /* Go's empty list */
    assert_success(&reply, "");
    provider_reply_release(&reply);
    reply = body_of("ollama", PROVIDER_LIST, 0, "Ollama is running");
    assert_error(&reply, CLASS_BAD_RESPONSE);
    provider_reply_release(&reply);
}

static void seed_and_stop_strings_are_options(void **state)
{
    (void)state;
    struct provider_call call = plain_call();
    call.stop = (const char *const[]){"END"};
    call.n_stop = 1;
    call.has_seed = true;
    call.seed = 7;
    check_request("ollama", &call, CHAT_URL, HEADERS,
                  HI "\"truncate\":false,\"stream\":true,\"options\":{\"seed\":7,"
                     "\"stop\":[\"END\"]}}");
}

static void keep_alive_without_a_unit_is_a_number(void **state)
{
    (void)state;
    static const struct {
        const char *text, *json;
    } cases[] = {
        {"300", "300"},         {"-1", "-1"},         {"0", "0"},
        {"10m", "\"10m\""},     {"300s", "\"300s\""}, {"-1s", "\"-1s\""},
        {"1h30m", "\"1h30m\""}, {"1.5h", "\"1.5h\""}, {"500ms", "\"500ms\""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct provider_call call = plain_call();
        struct buf expected = {0};
        call.keep_alive = cases[i].text;
        buf_printf(&expected, HI REST ",\"keep_alive\":%s}", cases[i].json);
        check_request("ollama", &call, CHAT_URL, HEADERS, expected.data);
        buf_release(&expected);
    }
    static const char *const bad[] = {
        "10 m", "m", "soon", "1x", "-", "10m5", "99999999999999999999"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct provider_call call = plain_call();
        struct err err;
        call.keep_alive = bad[i];
        assert_int_equal(build_error("ollama", &call, &err), -EINVAL);
        assert_non_null(strstr(err.text, "keep_alive"));
    }
}

static void effort_is_on_or_off_and_a_level_only_for_gpt_oss(void **state)
{
    (void)state;
    static const struct {
        const char *model, *effort, *think; /* "": not sent */
    } cases[] = {
        {"qwen3:8b", "low", ",\"think\":true"},
        {"qwen3:8b", "none", ",\"think\":false"},
        {"qwen3:8b", "", ""},
        {"qwen3:8b", NULL, ""},
        {"gpt-oss:20b", "minimal", ",\"think\":\"low\""},
        {"gpt-oss:20b", "medium", ",\"think\":\"medium\""},
        {"hf.co/x/gpt-oss:20b", "max", ",\"think\":\"high\""},
        {"gpt-oss:20b", "none", ",\"think\":\"low\""}, /* it knows no off */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct provider_call call = plain_call();
        struct buf expected = {0};
        call.model = cases[i].model;
        call.effort = cases[i].effort;
        buf_printf(&expected,
                   "{\"model\":\"%s\",\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]," REST
                   "%s}",
                   call.model, cases[i].think);
        check_request("ollama", &call, CHAT_URL, HEADERS, expected.data);
        buf_release(&expected);
    }
}

static void images_are_base64_and_never_an_address(void **state)
{
    (void)state;
    struct provider_image images[] = {
        {.url = "", .media_type = "image/png", .data = "aGk="},
        {.url = "", .media_type = "image/png", .data = "eW8="},
    };
    struct provider_call call = plain_call();
    struct err err;
    call.images = images;
    call.n_images = 2;
    check_request("ollama", &call, CHAT_URL, HEADERS,
                  "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"Hi\","
                  "\"images\":[\"aGk=\",\"eW8=\"]}]," REST "}");
    images[1].url = "https://h/a.png";
    assert_int_equal(build_error("ollama", &call, &err), -EINVAL);
    assert_non_null(strstr(err.text, "https://h/a.png"));
    assert_non_null(strstr(err.text, "file"));
}

static void prompt_is_never_cut_without_a_word(void **state)
{
    (void)state;
    struct provider_call call = plain_call();
    struct provider_request request = build("ollama", &call);
    assert_non_null(strstr(request.body.data, "\"truncate\":false"));
    provider_request_release(&request);
    struct provider_reply reply =
        failure("ollama", 400, NULL, "{\"error\":\"the input length exceeds the context length\"}");
    assert_error(&reply, CLASS_CONTEXT_TOO_LONG);
}

static void runner_options_are_the_same_whatever_is_asked(void **state)
{
    (void)state;
    struct provider_call call = plain_call();
    call.context = 8192;
    call.max_tokens = 100;
    call.temperature = 0.5;
    call.effort = "low";
    struct provider_request chat = build("ollama", &call);
    call.kind = PROVIDER_EMBED;
    call.inputs = (const char *const[]){"a"};
    call.n_inputs = 1;
    struct provider_request embed = build("ollama", &call);
    assert_non_null(strstr(chat.body.data, "\"num_ctx\":8192"));
    assert_non_null(strstr(embed.body.data, "\"num_ctx\":8192"));
    static const char *const others[] = {"num_gpu", "num_batch", "main_gpu", "shift"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        assert_null(strstr(chat.body.data, others[i]));
        assert_null(strstr(embed.body.data, others[i]));
    }
    provider_request_release(&chat);
    provider_request_release(&embed);
}

static void model_that_is_not_there_tells_how_to_get_it(void **state)
{
    (void)state;
    static const char *const bodies[] = {
        "{\"error\":\"model \\\"qwen3:8b\\\" not found, try pulling it first\"}",
        "{\"error\":\"model 'qwen3:8b' not found\"}",
    };
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++) {
        struct provider_reply reply = failure("ollama", 404, NULL, bodies[i]);
        assert_error(&reply, CLASS_BAD_REQUEST);
        assert_non_null(strstr(reply.error_text, "`ollama pull qwen3:8b`"));
        reply = stream("ollama", bodies[i]);
        assert_error(&reply, CLASS_BAD_REQUEST);
        assert_non_null(strstr(reply.error_text, "`ollama pull qwen3:8b`"));
        provider_reply_release(&reply);
    }
    static const char *const others[] = {"{\"error\":\"model \\\"x not found\"}",
                                         "{\"error\":\"model not found\"}", "{\"error\":1}",
                                         "404 page not found"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        struct provider_reply reply = failure("ollama", 404, NULL, others[i]);
        assert_error(&reply, CLASS_BAD_REQUEST);
        assert_null(strstr(reply.error_text, "ollama pull"));
    }
}

static void cloud_model_is_another_than_a_local_one(void **state)
{
    (void)state;
#define REMOTE(model)                                                                              \
    "{\"model\":\"" model "\",\"remote_model\":\"gpt-oss:120b\",\"remote_host\":"                  \
    "\"https://ollama.com:443\",\"message\":{\"content\":\"x\"},\"done\":true}"
    struct provider_reply reply = body("ollama", REMOTE("gpt-oss:120b-cloud"));
    assert_success(&reply, "x");
    assert_string_equal(reply.model, "gpt-oss:120b-cloud");
    provider_reply_release(&reply);
    reply = body("ollama", REMOTE("mine"));
    assert_success(&reply, "x");
    assert_string_equal(reply.model, "gpt-oss:120b at https://ollama.com:443");
    provider_reply_release(&reply);
}

static void model_without_system_prompt_gets_it_before_the_prompt(void **state)
{
    (void)state;
    struct provider_call call = plain_call();
    call.system = "Be terse.";
    call.no_system = true;
    check_request("ollama", &call, CHAT_URL, HEADERS,
                  "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":"
                  "\"Be terse.\\n\\nHi\"}]," REST "}");
}

static void texts_are_embedded_without_being_cut(void **state)
{
    (void)state;
    struct provider_call call = plain_call();
    struct err err;
    call.kind = PROVIDER_EMBED;
    call.inputs = (const char *const[]){"first", "sec\"ond"};
    call.n_inputs = 2;
    call.dimensions = 512;
    call.keep_alive = "5m";
    check_request("ollama", &call, "http://127.0.0.1:11434/api/embed", HEADERS,
                  "{\"model\":\"m\",\"input\":[\"first\",\"sec\\\"ond\"],\"dimensions\":512,"
                  "\"truncate\":false,\"options\":{},\"keep_alive\":\"5m\"}");
    call.inputs = (const char *const[]){"", "b"};
    assert_int_equal(build_error("ollama", &call, &err), -EINVAL);
    assert_non_null(strstr(err.text, "text 1 of 2 is empty"));
}

static void vectors_come_in_the_order_of_the_texts(void **state)
{
    (void)state;
    struct provider_reply reply =
        body_of("ollama", PROVIDER_EMBED, 2,
                "{\"model\":\"nomic-embed-text\",\"embeddings\":[[0.01, -0.02],[0.03,4e-2]],"
                "\"total_duration\":14000000,\"load_duration\":1000000,\"prompt_eval_count\":8}");
    assert_success(&reply, "[[0.01,-0.02],[0.03,4e-2]]");
    assert_string_equal(reply.model, "nomic-embed-text");
    assert_int_equal(reply.prompt_tokens, 8);
    assert_int_equal(reply.output_tokens, 0);
    assert_true(reply.load_ms > 0.999 && reply.load_ms < 1.001);
    provider_reply_release(&reply);
}

static void stream_in_the_place_of_vectors_is_no_answer(void **state)
{
    (void)state;
    struct provider_reply reply = body_of("ollama", PROVIDER_EMBED, 1, LINE("4") DONE);
    assert_error(&reply, CLASS_BAD_RESPONSE);
    assert_int_equal(reply.text.len, 0);
    provider_reply_release(&reply);
}

static void vectors_that_do_not_match_the_texts_are_bad_response(void **state)
{
    (void)state;
    static const char *const bodies[] = {
        "{\"embeddings\":[[1,2]]}",
        "{\"embeddings\":[[1,2],[1]]}",
        "{\"embeddings\":[[1,2],[1,null]]}",
        "{\"embeddings\":[[1,2],3]}",
        "{\"embeddings\":[]}",
        "{\"embeddings\":null}",
        "{\"embedding\":[1,2]}",
        "{}",
        "",
    };
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++) {
        struct provider_reply reply = body_of("ollama", PROVIDER_EMBED, 2, bodies[i]);
        assert_error(&reply, CLASS_BAD_RESPONSE);
        assert_int_equal(reply.text.len, 0);
        provider_reply_release(&reply);
    }
}

static void vectors_of_another_size_than_asked_for_are_refused(void **state)
{
    (void)state;
    static const char answer[] = "{\"embeddings\":[[1,2]]}";
    const struct provider *provider = provider_find("ollama");
    struct provider_call call = {.kind = PROVIDER_EMBED, .n_inputs = 1};
    for (int64_t asked = 0; asked <= 3; asked++) {
        struct provider_reply reply;
        provider_reply_init(&reply);
        call.dimensions = asked;
        provider_reply_expect(&reply, &call);
        provider->body(provider, &reply, answer, sizeof answer - 1);
        assert_int_equal(reply.error, asked == 0 || asked == 2 ? CLASS_NONE : CLASS_BAD_REQUEST);
        provider_reply_release(&reply);
    }
}

static void thinking_that_eats_the_output_limit_says_so(void **state)
{
    (void)state;
    struct provider_reply reply = stream(
        "ollama", "{\"message\":{\"content\":\"\",\"thinking\":\"hm\"},\"done\":false}\n" DONE_WITH(
                      ",\"done_reason\":\"length\""));
    assert_error(&reply, CLASS_BAD_REQUEST);
    assert_non_null(strstr(reply.error_text, "max_tokens"));
    provider_reply_release(&reply);
}

static void every_split_of_a_stream_gives_the_same(void **state)
{
    (void)state;
    check_every_split("ollama", LINE("4") LINE(" C") DONE);
    check_every_split("ollama", LINE("Gr\xc3\xbc\xc3\x9f"
                                     "e \\u00fc \\ud83c\\udf89") DONE);
    check_every_split("ollama", LINE("4") "{\"error\":\"x\"}\r\n");
    check_every_split("ollama", "{\"message\":{\"thinking\":\"hm\"},\"done\":false}\n\n" DONE);
}

static void nulls_and_wrong_types_never_crash(void **state)
{
    (void)state;
    static const char document[] =
        "{\"model\":\"q\",\"message\":{\"content\":\"x\",\"thinking\":\"y\",\"tool_calls\":"
        "[{\"function\":{}}]},\"done\":true,\"done_reason\":\"stop\"" METRICS ",\"error\":null}";
    wrong_types("ollama", document, true);
    wrong_types("ollama", document, false);
    wrong_types_of("ollama", PROVIDER_LIST, "{\"models\":[{\"name\":\"a\"}]}");
    wrong_types_of("ollama", PROVIDER_EMBED,
                   "{\"model\":\"m\",\"remote_host\":\"h\",\"remote_model\":\"r\","
                   "\"embeddings\":[[1,2],[3,4]],\"load_duration\":1,\"prompt_eval_count\":2}");
}

static void memory_that_runs_out_is_an_error(void **state)
{
    (void)state;
    check_memory_failures("ollama", LINE("4") LINE(" C") DONE, "4 C");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stream_succeeds_with_done),
        cmocka_unit_test(nanoseconds_become_milliseconds),
        cmocka_unit_test(zero_metrics_that_are_left_out_are_zero),
        cmocka_unit_test(last_line_needs_no_line_feed),
        cmocka_unit_test(done_reasons_are_mapped),
        cmocka_unit_test(loading_or_unloading_a_model_is_no_success),
        cmocka_unit_test(error_line_in_a_stream_with_status_200_is_an_error),
        cmocka_unit_test(truncated_stream_is_never_a_success),
        cmocka_unit_test(thinking_goes_to_reasoning),
        cmocka_unit_test(whole_answer_is_read),
        cmocka_unit_test(stream_that_does_not_say_so_is_read_as_one),
        cmocka_unit_test(whole_answer_without_done_is_no_success),
        cmocka_unit_test(errors_have_their_classes),
        cmocka_unit_test(request_is_exact),
        cmocka_unit_test(plain_request_says_stream_false_because_the_default_is_true),
        cmocka_unit_test(num_ctx_is_the_models_context_in_every_call),
        cmocka_unit_test(models_are_listed),
        cmocka_unit_test(seed_and_stop_strings_are_options),
        cmocka_unit_test(keep_alive_without_a_unit_is_a_number),
        cmocka_unit_test(effort_is_on_or_off_and_a_level_only_for_gpt_oss),
        cmocka_unit_test(images_are_base64_and_never_an_address),
        cmocka_unit_test(prompt_is_never_cut_without_a_word),
        cmocka_unit_test(runner_options_are_the_same_whatever_is_asked),
        cmocka_unit_test(model_that_is_not_there_tells_how_to_get_it),
        cmocka_unit_test(cloud_model_is_another_than_a_local_one),
        cmocka_unit_test(model_without_system_prompt_gets_it_before_the_prompt),
        cmocka_unit_test(texts_are_embedded_without_being_cut),
        cmocka_unit_test(vectors_come_in_the_order_of_the_texts),
        cmocka_unit_test(stream_in_the_place_of_vectors_is_no_answer),
        cmocka_unit_test(vectors_that_do_not_match_the_texts_are_bad_response),
        cmocka_unit_test(vectors_of_another_size_than_asked_for_are_refused),
        cmocka_unit_test(thinking_that_eats_the_output_limit_says_so),
        cmocka_unit_test(every_split_of_a_stream_gives_the_same),
        cmocka_unit_test(nulls_and_wrong_types_never_crash),
        cmocka_unit_test(memory_that_runs_out_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
