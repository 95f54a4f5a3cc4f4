/*
 * buffer.h: a growable queue of bytes: append at the end, consume at the start.
 *
 *     data        data+start          data+end          data+cap
 *      | consumed  |  readable bytes    |  free            |
 *
 * A buffer owns `data`. An empty buffer may own no memory at all (idle connections hold none):
 * buffer_release() gives the memory back. Pointers into a buffer die with the next append.
 */
#ifndef PGSHUNT_BUFFER_H
#define PGSHUNT_BUFFER_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

struct buffer {
    char *data;
    size_t start;
    size_t end;
    size_t cap;
};

static inline size_t buffer_length(const struct buffer *buf)
{
    return buf->end - buf->start;
}

static inline char *buffer_head(const struct buffer *buf)
{
    return buf->data ? buf->data + buf->start : NULL; /* NULL + 0 is undefined in C */
}

/* Makes room for `more` bytes behind the readable ones and returns where they go. */
char *buffer_reserve(struct buffer *buf, size_t more);
/* Here, so that the few bytes of most messages' fields cost no call. */
static inline void buffer_append(struct buffer *buf, const void *bytes, size_t len)
{
    if (!len)
        return;
    bool fits = buf->cap - buf->end >= len;
    memcpy(__builtin_expect(fits, true) ? buf->data + buf->end : buffer_reserve(buf, len), bytes,
           len);
    buf->end += len;
}
void buffer_printf(struct buffer *buf, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Drops `len` readable bytes from the start; an emptied buffer starts over at 0. */
void buffer_consume(struct buffer *buf, size_t len);
void buffer_clear(struct buffer *buf);
void buffer_free_data(struct buffer *buf);
static inline void buffer_release(struct buffer *buf)
{
    if (buf->data) /* most have none: that costs no call */
        buffer_free_data(buf);
}

#endif
