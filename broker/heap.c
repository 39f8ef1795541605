#include "broker/heap.h"

#include <assert.h>
#include <stdlib.h>

#include "schemas/mem.h"

void heap_init(struct heap *heap, heap_less_fn *less, size_t place_offset)
{
    *heap = (struct heap){.less = less, .place_offset = place_offset};
}

void heap_release(struct heap *heap)
{
    free(heap->items);
    heap->items = NULL;
    heap->n = heap->cap = 0;
}

static size_t *place_of(const struct heap *heap, void *item)
{
    return (size_t *)((char *)item + heap->place_offset);
}

static void put(struct heap *heap, size_t at, void *item)
{
    heap->items[at] = item;
    *place_of(heap, item) = at;
}

static void sift_up(struct heap *heap, size_t at, void *item)
{
    for (; at > 1 && heap->less(item, heap->items[at / 2]); at /= 2)
        put(heap, at, heap->items[at / 2]);
    put(heap, at, item);
}

static void sift_down(struct heap *heap, size_t at, void *item)
{
    while (at * 2 <= heap->n) {
        size_t child = at * 2;
        if (child < heap->n && heap->less(heap->items[child + 1], heap->items[child]))
            child++;
        if (!heap->less(heap->items[child], item))
            break;
        put(heap, at, heap->items[child]);
        at = child;
    }
    put(heap, at, item);
}

void heap_insert(struct heap *heap, void *item)
{
    assert(*place_of(heap, item) == 0);
    if (heap->n + 1 >= heap->cap) {
        heap->cap = heap->cap < 8 ? 8 : heap->cap * 2;
        heap->items = mem_must_realloc(heap->items, heap->cap * sizeof *heap->items);
    }
    sift_up(heap, ++heap->n, item);
}

void heap_remove(struct heap *heap, void *item)
{
    size_t at = *place_of(heap, item);
    if (at == 0)
        return;
    assert(at <= heap->n && heap->items[at] == item);
    *place_of(heap, item) = 0;
    void *last = heap->items[heap->n--];
    if (last == item)
        return;
    if (at > 1 && heap->less(last, heap->items[at / 2]))
        sift_up(heap, at, last);
    else
        sift_down(heap, at, last);
}

void *heap_first(const struct heap *heap)
{
    return heap->n > 0 ? heap->items[1] : NULL;
}
