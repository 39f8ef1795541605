/* Many short histories of a world that loses, repeats and reorders, each from its seed: see
 * tests/lib/world.h. A failure names its seed; ORCH_SEED=N repeats that history and writes its
 * steps to stderr, ORCH_HISTORIES=N runs so many. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "schemas/mem.h"
#include "tests/lib/world.h"

/* A history takes about 0.05 ms in a Release build; under the sanitizers ten times as much: there
 * the number keeps the suite short, and memory is what is looked at. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define HISTORIES 5000
#elif !defined(NDEBUG)
#define HISTORIES 20000
#else
#define HISTORIES 100000
#endif

static void live(struct world *world, uint64_t seed, bool trace)
{
    world_init(world, seed, trace);
    int moves = 80 + (int)world_chance(world, 300);
    for (int i = 0; i < moves; i++)
        world_move(world);
    world_settle(world);
    world_release(world);
}

static void everything_submitted_finishes_in_every_history(void **state)
{
    (void)state;
    const char *seed = getenv("ORCH_SEED"), *count = getenv("ORCH_HISTORIES");
    struct world *world = mem_must_zalloc(sizeof *world);
    if (seed != NULL) {
        live(world, strtoull(seed, NULL, 10), true);
    } else {
        uint64_t n = count != NULL ? strtoull(count, NULL, 10) : HISTORIES;
        for (uint64_t i = 1; i <= n; i++)
            live(world, i, false);
        print_message("%llu histories\n", (unsigned long long)n);
    }
    free(world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything_submitted_finishes_in_every_history),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
