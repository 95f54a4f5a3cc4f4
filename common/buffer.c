/* buffer.c: the growable byte queue. */
#include "pgshunt/buffer.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pgshunt/arena.h"

#define BUFFER_FIRST 512

static void make_room(struct buffer *buf, size_t more)
{
    size_t live = buffer_length(buf);
    if (buf->start && buf->cap - live >= more) {
        memmove(buf->data, buffer_head(buf), live);
    } else {
        size_t cap = buf->cap ? buf->cap * 2 : BUFFER_FIRST;
        while (cap - live < more)
            cap *= 2;
        char *data = mem_realloc(NULL, cap);
        if (live)
            memcpy(data, buffer_head(buf), live);
        free(buf->data);
        buf->data = data;
        buf->cap = cap;
    }
    buf->start = 0;
    buf->end = live;
}

char *buffer_reserve(struct buffer *buf, size_t more)
{
    if (buf->cap - buf->end < more)
        make_room(buf, more);
    return buf->data + buf->end;
}

void buffer_printf(struct buffer *buf, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int len = vsnprintf(NULL, 0, format, args);
    va_end(args);
    vsnprintf(buffer_reserve(buf, (size_t)len + 1), (size_t)len + 1, format, again);
    va_end(again);
    buf->end += (size_t)len;
}

void buffer_consume(struct buffer *buf, size_t len)
{
    buf->start += len;
    if (buf->start == buf->end)
        buf->start = buf->end = 0;
}

void buffer_clear(struct buffer *buf)
{
    buf->start = buf->end = 0;
}

void buffer_free_data(struct buffer *buf)
{
    free(buf->data);
    *buf = (struct buffer){0};
}
