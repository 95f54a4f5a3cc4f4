/*
 * arena.h: bump allocation for things that die together (a statement, a plan, a configuration).
 *
 * An arena owns everything allocated from it. Nothing is freed piecemeal: arena_reset() forgets all
 * and keeps the first block for reuse, arena_free() gives everything back. Allocation never returns
 * NULL: running out of memory ends the process (a proxy that cannot allocate a kilobyte is better
 * restarted than half alive).
 */
#ifndef PGSHUNT_ARENA_H
#define PGSHUNT_ARENA_H

#include <stddef.h>

struct arena_block;

struct arena {
    struct arena_block *head; /* newest block, the one allocated from; NULL while unused */
    size_t used;              /* bytes handed out of head */
    size_t total;             /* bytes in all blocks */
};

void arena_init(struct arena *arena);
void arena_reset(struct arena *arena);
void arena_free(struct arena *arena);

/* Zeroed memory of `size` bytes, aligned for any type. */
void *arena_alloc(struct arena *arena, size_t size);

/* Copies; the result is NUL-terminated even when the source (`len` bytes) was not. */
char *arena_strdup(struct arena *arena, const char *text);
char *arena_strndup(struct arena *arena, const char *text, size_t len);
char *arena_printf(struct arena *arena, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#define arena_new(arena, type) ((type *)arena_alloc((arena), sizeof(type)))
#define arena_array(arena, type, count)                                                            \
    ((type *)arena_alloc((arena), sizeof(type) * (size_t)(count)))

/* malloc family that ends the process instead of returning NULL. */
void *mem_alloc(size_t size); /* zeroed */
void *mem_realloc(void *old, size_t size);
char *mem_strdup(const char *text);
/* Makes some hundred bytes zero: for a size they know, compilers put something in place that starts slowly. */
void mem_clear(void *memory, size_t size);

#endif
