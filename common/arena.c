/* arena.c: bump allocation in blocks that double, and malloc that ends the process when it fails. */
#include "pgshunt/arena.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ARENA_ALIGN 16
#define ARENA_FIRST_BLOCK 2048
#define SMALL_SIZE 1024
#define ARENA_LARGEST_BLOCK (256 * 1024)

struct arena_block {
    struct arena_block *older;
    size_t size;
    _Alignas(ARENA_ALIGN) char bytes[];
};

static void die_out_of_memory(size_t size)
{
    fprintf(stderr, "pgshunt: out of memory (%zu bytes wanted)\n", size);
    abort();
}

void *mem_alloc(size_t size)
{
    /* Small pieces come from malloc's cache of the thread, which calloc does not look into. */
    bool small = size <= SMALL_SIZE;
    void *p = small ? malloc(size ? size : 1) : calloc(1, size);
    if (!p)
        die_out_of_memory(size);
    __asm__("" : "+r"(p)); /* else the compiler makes a calloc of malloc and memset */
    return small ? memset(p, 0, size) : p;
}

void *mem_realloc(void *old, size_t size)
{
    void *p = realloc(old, size ? size : 1);
    if (!p)
        die_out_of_memory(size);
    return p;
}

char *mem_strdup(const char *text)
{
    size_t len = strlen(text) + 1;
    return memcpy(mem_alloc(len), text, len);
}

void arena_init(struct arena *arena)
{
    *arena = (struct arena){0};
}

static void add_block(struct arena *arena, size_t least)
{
    size_t size = arena->head ? arena->head->size * 2 : ARENA_FIRST_BLOCK;
    if (size > ARENA_LARGEST_BLOCK)
        size = ARENA_LARGEST_BLOCK;
    if (size < least)
        size = least;
    struct arena_block *block = malloc(sizeof *block + size);
    if (!block)
        die_out_of_memory(size);
    block->older = arena->head;
    block->size = size;
    arena->head = block;
    arena->used = 0;
    arena->total += size;
}

void *arena_alloc(struct arena *arena, size_t size)
{
    size = (size + ARENA_ALIGN - 1) & ~(size_t)(ARENA_ALIGN - 1);
    if (!arena->head || arena->head->size - arena->used < size)
        add_block(arena, size);
    void *p = arena->head->bytes + arena->used;
    arena->used += size;
    return memset(p, 0, size);
}

char *arena_strndup(struct arena *arena, const char *text, size_t len)
{
    char *copy = arena_alloc(arena, len + 1);
    if (len) /* of nothing there may be no text */
        memcpy(copy, text, len);
    return copy;
}

char *arena_strdup(struct arena *arena, const char *text)
{
    return arena_strndup(arena, text, strlen(text));
}

char *arena_printf(struct arena *arena, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int len = vsnprintf(NULL, 0, format, args);
    va_end(args);
    char *out = arena_alloc(arena, (size_t)len + 1);
    vsnprintf(out, (size_t)len + 1, format, again);
    va_end(again);
    return out;
}

void arena_reset(struct arena *arena)
{
    while (arena->head && arena->head->older) {
        struct arena_block *older = arena->head->older;
        arena->total -= arena->head->size;
        free(arena->head);
        arena->head = older;
    }
    arena->used = 0;
}

void arena_free(struct arena *arena)
{
    arena_reset(arena);
    free(arena->head);
    arena_init(arena);
}
