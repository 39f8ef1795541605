/* Vectors of texts from OpenAI's family, Hugging Face and Text Embeddings Inference. */
#include <stdio.h>

#include "tests/unit/provider_check.h"

static const char *const family[] = {"openai", "huggingface", "lmstudio",         "llamacpp",
                                     "vllm",   "tgi",         "openai-compatible"};
#define FAMILY (sizeof family / sizeof *family)

#define ITEM(index, vector)                                                                        \
    "{\"object\":\"embedding\",\"index\":" index ",\"embedding\":" vector "}"
#define LIST(items, usage)                                                                         \
    "{\"object\":\"list\",\"model\":\"text-embedding-3-small\",\"data\":[" items                   \
    "],\"usage\":" usage "}"
#define USAGE "{\"prompt_tokens\":4,\"total_tokens\":4}"

static struct provider_call embed_call(void)
{
    static const char *const inputs[] = {"first", "Gr\xc3\xbc\xc3\x9f \"2\"\n"};
    struct provider_call call = plain_call();
    call.kind = PROVIDER_EMBED;
    call.stream = false;
    call.inputs = inputs;
    call.n_inputs = 2;
    return call;
}

static void vectors_are_read_as_they_were_written(void **state)
{
    (void)state;
    for (size_t i = 0; i < FAMILY; i++) {
        struct provider_reply reply =
            body_of(family[i], PROVIDER_EMBED, 2,
                    LIST(ITEM("0", "[0.010, -2.5e-3 ,1]") "," ITEM("1", "[ 0,3,4.0 ]"), USAGE));
        assert_success(&reply, "[[0.010,-2.5e-3,1],[0,3,4.0]]");
        assert_int_equal(reply.prompt_tokens, 4);
        assert_int_equal(reply.output_tokens, 0);
        assert_string_equal(reply.model, "text-embedding-3-small");
        assert_int_equal(reply.finish, FINISH_DONE);
        provider_reply_release(&reply);
    }
}

static void vectors_are_ordered_by_index(void **state)
{
    (void)state;
    struct provider_reply reply =
        body_of("vllm", PROVIDER_EMBED, 3,
                LIST(ITEM("2", "[2]") "," ITEM("0", "[0]") "," ITEM("1", "[1]"), USAGE));
    assert_success(&reply, "[[0],[1],[2]]");
    provider_reply_release(&reply);
    /* Without indexes, as they come. */
    reply =
        body_of("vllm", PROVIDER_EMBED, 2, "{\"data\":[{\"embedding\":[5]},{\"embedding\":[6]}]}");
    assert_success(&reply, "[[5],[6]]");
    assert_int_equal(reply.prompt_tokens, -1);
    provider_reply_release(&reply);
}

static void vectors_that_are_not_one_for_each_text_are_no_answer(void **state)
{
    (void)state;
    static const char *const bodies[] = {
        LIST(ITEM("0", "[1]"), USAGE),
        LIST(ITEM("0", "[1]") "," ITEM("0", "[1]"), USAGE),
        LIST(ITEM("0", "[1]") "," ITEM("2", "[1]"), USAGE),
        LIST(ITEM("0", "[1]") "," ITEM("-1", "[1]"), USAGE),
        LIST(ITEM("0", "[1]") "," ITEM("1", "[1]") "," ITEM("2", "[1]"), USAGE),
        LIST(ITEM("0", "[1]") "," ITEM("1", "[1,2]"), USAGE),
        LIST(ITEM("0", "[]") "," ITEM("1", "[]"), USAGE),
        LIST(ITEM("0", "[1]") "," ITEM("1", "[null]"), USAGE),
        LIST(ITEM("0", "\"AAAA\"") "," ITEM("1", "\"AAAA\""), USAGE),
        LIST("", USAGE),
        "{\"data\":null}",
        "{}",
        "[]",
        "[[1],[2],[3]]",
        "[1,2]",
        "null",
        "",
        "<html><title>Sign in</title></html>",
    };
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++)
        for (size_t k = 0; k < FAMILY; k++) {
            struct provider_reply reply = body_of(family[k], PROVIDER_EMBED, 2, bodies[i]);
            assert_error(&reply, CLASS_BAD_RESPONSE);
            provider_reply_release(&reply);
        }
}

static void arrays_of_feature_extraction_are_read(void **state)
{
    (void)state;
    static const char *const apis[] = {"huggingface", "tgi"};
    for (size_t i = 0; i < 2; i++) {
        struct provider_reply reply =
            body_of(apis[i], PROVIDER_EMBED, 2, "[[0.1, 0.2], [0.3, 0.4]]\n");
        assert_success(&reply, "[[0.1,0.2],[0.3,0.4]]");
        assert_int_equal(reply.prompt_tokens, -1);
        provider_reply_release(&reply);
        reply = body_of(apis[i], PROVIDER_EMBED, 1, "[0.1, 0.2]"); /* one text, no array of it */
        assert_success(&reply, "[[0.1,0.2]]");
        provider_reply_release(&reply);
    }
}

static void vector_for_each_token_is_an_error_that_says_so(void **state)
{
    (void)state;
    struct provider_reply reply =
        body_of("huggingface", PROVIDER_EMBED, 1, "[[[0.1,0.2],[0.3,0.4]]]");
    assert_error(&reply, CLASS_BAD_REQUEST); /* the same model would do it again */
    assert_non_null(strstr(reply.error_text, "each token"));
    provider_reply_release(&reply);
}

static void quirk_usage_of_lmstudio_vectors_may_be_zero(void **state)
{
    (void)state;
    struct provider_reply reply =
        body_of("lmstudio", PROVIDER_EMBED, 1,
                LIST(ITEM("0", "[1]"), "{\"prompt_tokens\":0,\"total_tokens\":0}"));
    assert_success(&reply, "[[1]]");
    assert_int_equal(reply.prompt_tokens, -1);
    provider_reply_release(&reply);
}

static void vectors_of_another_size_than_asked_for_are_an_error(void **state)
{
    (void)state;
    expected_call.dimensions = 2;
    struct provider_reply reply =
        body_of("llamacpp", PROVIDER_EMBED, 1, LIST(ITEM("0", "[1,2,3]"), USAGE));
    assert_error(&reply, CLASS_BAD_REQUEST);
    assert_non_null(strstr(reply.error_text, "have 3"));
    provider_reply_release(&reply);
    reply = body_of("llamacpp", PROVIDER_EMBED, 1, LIST(ITEM("0", "[1,2]"), USAGE));
    assert_success(&reply, "[[1,2]]");
    provider_reply_release(&reply);
    expected_call.dimensions = 0;
}

static void error_with_status_200_is_classified(void **state)
{
    (void)state;
    struct provider_reply reply =
        body_of("openai", PROVIDER_EMBED, 1,
                "{\"error\":{\"message\":\"no money\",\"type\":\"insufficient_quota\"}}");
    assert_error(&reply, CLASS_QUOTA);
    provider_reply_release(&reply);
}

static void errors_of_embedding_servers_have_their_classes(void **state)
{
    (void)state;
    static const struct error_case cases[] = {
        {500, NULL,
         "{\"error\":{\"code\":500,\"message\":\"input is too large to process. increase the "
         "physical batch size\",\"type\":\"server_error\"}}",
         CLASS_CONTEXT_TOO_LONG, -1},
        {413, NULL,
         "{\"error\":\"batch size 64 > maximum allowed batch size 32\",\"error_type\":"
         "\"Validation\"}",
         CLASS_BAD_REQUEST, -1},
        {413, NULL,
         "{\"error\":\"Input validation error: `inputs` must have less than 512 tokens. Given: "
         "600\",\"error_type\":\"Validation\"}",
         CLASS_CONTEXT_TOO_LONG, -1},
        {422, NULL, "{\"error\":\"bad text\",\"error_type\":\"Tokenizer\"}", CLASS_BAD_REQUEST, -1},
        {424, NULL, "{\"error\":\"cuda\",\"error_type\":\"Backend\"}", CLASS_RETRY, -1},
        {429, NULL, "{\"error\":\"Model is overloaded\",\"error_type\":\"Overloaded\"}",
         CLASS_OVERLOADED, -1},
        {503, NULL, "{\"error\":\"no\",\"error_type\":\"Unhealthy\"}", CLASS_OVERLOADED, -1},
        {400, NULL, "{\"error\":\"`inputs` cannot be empty\",\"error_type\":\"Empty\"}",
         CLASS_BAD_REQUEST, -1},
        {429, NULL,
         "{\"message\":\"Model is overloaded\",\"code\":429,\"error_type\":"
         "\"Overloaded\"}",
         CLASS_OVERLOADED, -1},
        {404, NULL, "{\"error\":\"Model x does not exist\"}", CLASS_BAD_REQUEST, -1},
    };
    check_errors("tgi", cases, sizeof cases / sizeof *cases);
    check_errors("huggingface", cases, sizeof cases / sizeof *cases);
    check_errors("llamacpp", cases, sizeof cases / sizeof *cases);
}

static void requests_have_each_servers_own_form(void **state)
{
    (void)state;
#define INPUTS "[\"first\",\"Gr\xc3\xbc\xc3\x9f \\\"2\\\"\\n\"]"
    static const char v1[] = "{\"model\":\"org/m\",\"input\":" INPUTS
                             ",\"dimensions\":512,\"encoding_format\":\"float\"}";
    static const char tei[] =
        "{\"inputs\":" INPUTS ",\"dimensions\":512,\"normalize\":true,\"truncate\":false}";
    static const char *const hosts[] = {"openai", "lmstudio", "llamacpp", "vllm",
                                        "openai-compatible"};
    struct provider_call call = embed_call();
    call.model = "org/m";
    call.dimensions = 512;
    call.base_url = "http://h/v1";
#define HEADERS "Content-Type: application/json\nAuthorization: Bearer " KEY "\n"
    for (size_t i = 0; i < sizeof hosts / sizeof *hosts; i++)
        check_request(hosts[i], &call, "http://h/v1/embeddings", HEADERS, v1);
    check_request("tgi", &call, "http://h/embed", HEADERS, tei);
}

static void quirk_vectors_of_the_hugging_face_router_have_a_path_of_their_own(void **state)
{
    (void)state;
    static const char json[] = "{\"inputs\":" INPUTS ",\"normalize\":true,\"truncate\":false}";
    struct provider_call call = embed_call();
    call.model = "BAAI/bge small";
    check_request("huggingface", &call,
                  "https://router.huggingface.co/hf-inference/models/BAAI/bge%20small/pipeline/"
                  "feature-extraction",
                  HEADERS, json);
    call.base_url = "https://router.huggingface.co/v1/";
    check_request("huggingface", &call,
                  "https://router.huggingface.co/hf-inference/models/BAAI/bge%20small/pipeline/"
                  "feature-extraction",
                  HEADERS, json);
    call.base_url = "https://abc.eu-west-1.aws.endpoints.huggingface.cloud";
    struct provider_request request = build("huggingface", &call);
    assert_string_equal(request.url.data, "https://abc.eu-west-1.aws.endpoints.huggingface.cloud"
                                          "/v1/embeddings");
    provider_request_release(&request);
    call.base_url = NULL;
    call.dimensions = 5;
    struct err err;
    assert_int_equal(build_error("huggingface", &call, &err), -EINVAL);
}

static void texts_that_are_empty_or_too_many_are_refused(void **state)
{
    (void)state;
    static const char *const inputs[] = {"a", "", "b"};
    static const char *many[2049];
    struct provider_call call = embed_call();
    struct err err;
    call.base_url = "http://h";
    call.inputs = inputs;
    call.n_inputs = 3;
    for (size_t i = 0; i < FAMILY; i++) {
        assert_int_equal(build_error(family[i], &call, &err), -EINVAL);
        assert_non_null(strstr(err.text, "text 2 of 3"));
    }
    call.n_inputs = 0;
    assert_int_equal(build_error("openai", &call, &err), -EINVAL);
    for (size_t i = 0; i < 2049; i++)
        many[i] = "a";
    call.inputs = many;
    call.n_inputs = 2049;
    assert_int_equal(build_error("openai", &call, &err), -EINVAL);
    assert_non_null(strstr(err.text, "2048"));
    call.n_inputs = 2048;
    struct provider_request request = build("openai", &call);
    provider_request_release(&request);
}

static void chat_in_the_place_of_vectors_is_no_answer(void **state)
{
    (void)state;
    static const struct {
        const char *api, *body;
    } cases[] = {
        {"openai", "data: {\"choices\":[{\"delta\":{\"content\":\"[[1]]\"},\"finish_reason\":"
                   "\"stop\"}]}\n\ndata: [DONE]\n\n"},
        {"ollama", "{\"message\":{\"content\":\"[[1]]\"},\"done\":false}\n"
                   "{\"message\":{\"content\":\"\"},\"done\":true,\"done_reason\":\"stop\"}\n"},
        {"gemini", "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"[[1]]\"}]},"
                   "\"finishReason\":\"STOP\"}]}\n\n"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct provider_reply reply = body(cases[i].api, cases[i].body);
        assert_success(&reply, "[[1]]"); /* of a chat it would be one */
        provider_reply_release(&reply);
        reply = body_of(cases[i].api, PROVIDER_EMBED, 1, cases[i].body);
        assert_error(&reply, CLASS_BAD_RESPONSE);
        provider_reply_release(&reply);
    }
}

static void nulls_and_wrong_types_never_crash(void **state)
{
    (void)state;
    for (size_t i = 0; i < FAMILY; i++) {
        wrong_types_of(family[i], PROVIDER_EMBED,
                       LIST(ITEM("1", "[1,2]") "," ITEM("0", "[1,2]"), USAGE));
        wrong_types_of(family[i], PROVIDER_EMBED, "[[1,2],[3,4]]");
        wrong_types_of(family[i], PROVIDER_LIST, "{\"data\":[{\"id\":\"a\"}],\"error\":null}");
    }
}

static void memory_that_runs_out_is_an_error(void **state)
{
    (void)state;
    for (unsigned long k = 1; k < 20; k++) {
        const struct provider *provider = provider_find("openai");
        static const char text[] = LIST(ITEM("1", "[1,2]") "," ITEM("0", "[3,4]"), USAGE);
        struct provider_reply reply;
        provider_reply_init(&reply);
        reply.kind = PROVIDER_EMBED;
        reply.n_inputs = 2;
        mem_fail_at(k);
        provider->body(provider, &reply, text, sizeof text - 1);
        mem_fail_at(0);
        provider->end(provider, &reply);
        if (reply.error == CLASS_NONE)
            assert_success(&reply, "[[3,4],[1,2]]");
        else
            assert_error(&reply, CLASS_RETRY);
        provider_reply_release(&reply);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vectors_are_read_as_they_were_written),
        cmocka_unit_test(vectors_are_ordered_by_index),
        cmocka_unit_test(vectors_that_are_not_one_for_each_text_are_no_answer),
        cmocka_unit_test(arrays_of_feature_extraction_are_read),
        cmocka_unit_test(vector_for_each_token_is_an_error_that_says_so),
        cmocka_unit_test(quirk_usage_of_lmstudio_vectors_may_be_zero),
        cmocka_unit_test(vectors_of_another_size_than_asked_for_are_an_error),
        cmocka_unit_test(error_with_status_200_is_classified),
        cmocka_unit_test(errors_of_embedding_servers_have_their_classes),
        cmocka_unit_test(requests_have_each_servers_own_form),
        cmocka_unit_test(quirk_vectors_of_the_hugging_face_router_have_a_path_of_their_own),
        cmocka_unit_test(texts_that_are_empty_or_too_many_are_refused),
        cmocka_unit_test(chat_in_the_place_of_vectors_is_no_answer),
        cmocka_unit_test(nulls_and_wrong_types_never_crash),
        cmocka_unit_test(memory_that_runs_out_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
