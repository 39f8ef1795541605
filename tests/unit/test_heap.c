#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "broker/heap.h"

struct item {
    int value;
    size_t place;
};

static bool smaller(const void *a, const void *b)
{
    return ((const struct item *)a)->value < ((const struct item *)b)->value;
}

#define N 1000

static void fill(struct heap *heap, struct item *items)
{
    srand(7);
    heap_init(heap, smaller, offsetof(struct item, place));
    for (int i = 0; i < N; i++) {
        items[i] = (struct item){.value = rand() % 300};
        heap_insert(heap, &items[i]);
    }
}

static void assert_drains_in_order(struct heap *heap, size_t n)
{
    int last = -1;
    struct item *item;
    while ((item = heap_first(heap)) != NULL) {
        assert_true(item->value >= last);
        last = item->value;
        heap_remove(heap, item);
        assert_int_equal(item->place, 0);
        n--;
    }
    assert_int_equal(n, 0);
    heap_release(heap);
}

static void heap_gives_the_smallest_first(void **state)
{
    struct heap heap;
    struct item items[N];
    (void)state;
    fill(&heap, items);
    assert_drains_in_order(&heap, N);
}

static void heap_stays_in_order_when_any_item_is_removed(void **state)
{
    struct heap heap;
    struct item items[N];
    size_t left = N;
    (void)state;
    fill(&heap, items);
    for (int i = 0; i < N; i += 3, left--)
        heap_remove(&heap, &items[(i * 7) % N]);
    assert_drains_in_order(&heap, heap.n);
    assert_true(left < N);
}

static void heap_ignores_an_item_that_it_does_not_hold(void **state)
{
    struct heap heap;
    struct item item = {.value = 1};
    (void)state;
    heap_init(&heap, smaller, offsetof(struct item, place));
    heap_remove(&heap, &item);
    assert_null(heap_first(&heap));
    heap_release(&heap);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(heap_gives_the_smallest_first),
        cmocka_unit_test(heap_stays_in_order_when_any_item_is_removed),
        cmocka_unit_test(heap_ignores_an_item_that_it_does_not_hold),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
