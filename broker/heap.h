/* A binary heap of objects that know their place in it: smallest first, any removed in O(log n). */
#ifndef BROKER_HEAP_H
#define BROKER_HEAP_H

#include <stdbool.h>
#include <stddef.h>

typedef bool heap_less_fn(const void *a, const void *b);

struct heap {
    void **items; /* 1-based: items[0] is not used */
    size_t n;
    size_t cap;
    heap_less_fn *less;
    size_t place_offset; /* of the item's `size_t` place: 0 while it is in no heap */
};

void heap_init(struct heap *heap, heap_less_fn *less, size_t place_offset);
void heap_release(struct heap *heap);
void heap_insert(struct heap *heap, void *item);
void heap_remove(struct heap *heap, void *item); /* fine when the item is in no heap */
void *heap_first(const struct heap *heap);       /* NULL when empty */

#endif
