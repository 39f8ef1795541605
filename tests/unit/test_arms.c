#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "tests/lib/fixture.h"
#include "workers/arms.h"
#include "workers/gpu.h"
#include "workers/record.h"

static const char yaml[] = "redis: unix:///tmp/none.sock\n"
                           "providers:\n"
                           "  cloud: {api: openai, base_url: 'http://127.0.0.1:1', key: none}\n"
                           "  here:  {api: ollama}\n"
                           "models:\n"
                           "  big:   {provider: cloud, name: gpt-9}\n"
                           "  small: {provider: cloud, name: gpt-9-mini}\n"
                           "  mine:  {provider: here, name: 'qwen:7b'}\n"
                           "workers:\n"
                           "  - {name: all, provider: cloud}\n"
                           "  - {name: some, provider: cloud, models: [small]}\n"
                           "  - {name: cpu, provider: here}\n"
                           "  - {name: gpu, provider: here, gpu: 1}\n"
                           "  - {name: uuid, provider: here, gpu: GPU-12ab}\n";

static void assert_arms(const char *worker, const char *first, size_t n)
{
    struct config *config;
    struct err err = {0};
    if (config_parse(&config, "test", yaml, strlen(yaml), &err) != 0)
        fail_msg("%s", err.text);
    struct arms arms;
    const struct config_worker *self = config_worker(config, worker);
    bool local = strcmp(self->provider, "here") == 0;
    if (arms_init(&arms, config, self, local, "host1", &err) != 0)
        fail_msg("%s", err.text);
    assert_int_equal(arms.n, n);
    assert_string_equal(arms.items[0].name, first);
    assert_ptr_equal(arms_find(&arms, first), &arms.items[0]);
    assert_null(arms_find(&arms, "big"));
    assert_int_equal(arms.items[0].local, local);
    arms_release(&arms);
    config_free(&config);
}

static void remote_arms_are_at_their_provider_and_local_ones_at_host_and_gpu(void **state)
{
    (void)state;
    assert_arms("all", "big@cloud", 2);
    assert_arms("some", "small@cloud", 1);
    assert_arms("cpu", "mine@host1", 1);
    assert_arms("gpu", "mine@host1/gpu1", 1);
    assert_arms("uuid", "mine@host1/GPU-12ab", 1);
}

static void a_worker_without_models_is_told_so(void **state)
{
    (void)state;
    struct config config = {.path = NULL};
    struct config_worker worker = {.name = (char[]){"w"}, .provider = (char[]){"p"}};
    struct arms arms;
    struct err err = {0};
    assert_int_equal(arms_init(&arms, &config, &worker, false, "h", &err), -EINVAL);
    assert_non_null(strstr(err.text, "provider: p"));
}

static void snapshots_and_paths_are_the_same_model(void **state)
{
    (void)state;
    assert_true(arms_model_matches("gpt-6-sol", "gpt-6-sol"));
    assert_true(arms_model_matches("gpt-6-sol", "gpt-6-sol-2026-09-22"));
    assert_true(arms_model_matches("gpt-6-sol-2026-09-22", "gpt-6-sol"));
    assert_true(arms_model_matches("claude-sonnet-4-5", "claude-sonnet-4-5-20250929"));
    assert_true(arms_model_matches("gemini-3-pro", "models/gemini-3-pro-001"));
    assert_true(arms_model_matches("qwen2.5-coder", "qwen2.5-coder:latest"));
    assert_true(arms_model_matches("meta/Llama-3-8B:novita", "llama-3-8b"));
    assert_true(arms_model_matches("/models/q.gguf", "q"));
}

static void other_models_are_not(void **state)
{
    (void)state;
    assert_false(arms_model_matches("gpt-4o", "gpt-4o-mini"));
    assert_false(arms_model_matches("gpt-4", "gpt-4-1"));
    assert_false(arms_model_matches("gpt-4", "gpt-45"));
    assert_false(arms_model_matches("qwen:7b", "qwen:14b"));
    assert_false(arms_model_matches("gpt-6-sol", "gpt-6"));
    assert_false(arms_model_matches("a", "b"));
    assert_false(arms_model_matches("a", ""));
}

static void names_that_the_registry_knows_are_the_same_model(void **state)
{
    (void)state;
    char *served[] = {(char[]){"accounts/x/models/gpt-9"}, (char[]){"nine"}};
    struct config_model model = {.name = (char[]){"gpt9"}, .served = served, .n_served = 2};
    assert_true(arms_serves(&model, "gpt9-2026-09-22"));
    assert_true(arms_serves(&model, "gpt-9"));
    assert_true(arms_serves(&model, "Nine"));
    assert_false(arms_serves(&model, "ten"));
}

static void a_paused_arm_says_why_until_it_is_served_again(void **state)
{
    (void)state;
    struct arm items[] = {{.name = (char[]){"a@p"}}, {.name = (char[]){"b@p"}}};
    struct arms arms = {.items = items, .n = 2};
    assert_true(arms_pause(&arms, "b@p", "overloaded"));
    assert_false(arms_pause(&arms, "b@p", "overloaded"));
    assert_string_equal(items[1].paused, "overloaded");
    assert_null(items[0].paused);
    assert_false(arms_pause(&arms, "c@p", "overloaded"));
    assert_true(arms_resume(&arms, "b@p"));
    assert_false(arms_resume(&arms, "b@p"));
    assert_null(items[1].paused);
}

static void lists_of_cpus_are_read(void **state)
{
    (void)state;
    cpu_set_t cpus;
    assert_int_equal(gpu_parse_cpus(&cpus, "0-3,8,10-11\n"), 0);
    assert_int_equal(CPU_COUNT(&cpus), 7);
    assert_true(CPU_ISSET(8, &cpus) && !CPU_ISSET(9, &cpus));
    const char *const bad[] = {"", "x", "3-1", "0-", "0-99999", "1,,2", "1 2"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(gpu_parse_cpus(&cpus, bad[i]), -EINVAL);
}

static void the_cpus_near_a_gpu_are_found_by_index_and_uuid(void **state)
{
    (void)state;
    struct fixture fixture;
    fixture_init(&fixture);
    fixture_write(&fixture, "proc/driver/nvidia/gpus/0000:1A:00.0/information",
                  "Model: X\nGPU UUID: GPU-aaaa\n");
    fixture_write(&fixture, "proc/driver/nvidia/gpus/0000:b3:00.0/information",
                  "Model: X\nGPU UUID: GPU-bbbb\n");
    fixture_write(&fixture, "sys/bus/pci/devices/0000:1a:00.0/local_cpulist", "0-1\n");
    fixture_write(&fixture, "sys/bus/pci/devices/0000:b3:00.0/local_cpulist", "2-4\n");
    cpu_set_t cpus;
    assert_int_equal(gpu_cpus(&cpus, fixture.dir, "0"), 0);
    assert_int_equal(CPU_COUNT(&cpus), 2);
    assert_int_equal(gpu_cpus(&cpus, fixture.dir, "GPU-bbbb"), 0);
    assert_int_equal(CPU_COUNT(&cpus), 3);
    assert_int_equal(gpu_cpus(&cpus, fixture.dir, "2"), -ENOENT);
    assert_int_equal(gpu_cpus(&cpus, fixture.dir, "GPU-cccc"), -ENOENT);
    assert_int_equal(gpu_cpus(&cpus, "/nonexistent", "0"), -ENOENT);
    fixture_release(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(remote_arms_are_at_their_provider_and_local_ones_at_host_and_gpu),
        cmocka_unit_test(a_worker_without_models_is_told_so),
        cmocka_unit_test(snapshots_and_paths_are_the_same_model),
        cmocka_unit_test(other_models_are_not),
        cmocka_unit_test(names_that_the_registry_knows_are_the_same_model),
        cmocka_unit_test(a_paused_arm_says_why_until_it_is_served_again),
        cmocka_unit_test(lists_of_cpus_are_read),
        cmocka_unit_test(the_cpus_near_a_gpu_are_found_by_index_and_uuid),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
