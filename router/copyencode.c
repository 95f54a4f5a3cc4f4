/* copyencode.c: rows of a merged result as COPY TO STDOUT gives them, byte for byte as Postgres' copyto.c. */
#include "pgshunt/copyencode.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "pgshunt/arena.h"
#include "pgshunt/wire.h"

#define BINARY_HEADER "PGCOPY\n\377\r\n\0\0\0\0\0\0\0\0" /* and a zero more, the string's own */
#define BINARY_HEADER_LENGTH 19

struct copy_encode {
    const struct copy_rows *rows;
    bool headed; /* binary: the header is out; it goes with the first row, as Postgres sends it */
};

struct copy_encode *copy_encode_new(const struct copy_rows *rows)
{
    struct copy_encode *encode = mem_alloc(sizeof *encode);
    encode->rows = rows;
    return encode;
}

void copy_encode_free(struct copy_encode *encode)
{
    free(encode);
}

static void put(struct buffer *out, char c)
{
    buffer_append(out, &c, 1);
}

/* ---- fields ---- */

/* What stands behind a backslash for it; 0: it stands for itself. */
static char text_escape(char c, char delimiter)
{
    static const char plain[] = "\b\f\n\r\t\v", letters[] = "bfnrtv";
    const char *found = c ? strchr(plain, c) : NULL;
    if (found) /* a tab that is the delimiter too */
        return letters[found - plain];
    return c == '\\' || c == delimiter ? c : '\0';
}

static void put_text(const struct copy_rows *rows, const char *value, size_t length,
                     struct buffer *out)
{
    const char *end = value + length, *from = value;
    for (const char *at = value; at < end; at++) {
        char escape = text_escape(*at, rows->delimiter);
        if (!escape)
            continue;
        buffer_append(out, from, (size_t)(at - from));
        put(out, '\\');
        put(out, escape);
        from = at + 1;
    }
    buffer_append(out, from, (size_t)(end - from));
}

static bool is(const char *value, size_t length, const char *text)
{
    return length == strlen(text) && memcmp(value, text, length) == 0;
}

static bool needs_quotes(const struct copy_rows *rows, const char *value, size_t length, bool alone)
{
    if (is(value, length, rows->null) || (alone && is(value, length, "\\.")))
        return true;
    for (size_t i = 0; i < length; i++)
        if (value[i] == rows->delimiter || value[i] == rows->quote || value[i] == '\n' ||
            value[i] == '\r')
            return true;
    return false;
}

static void put_csv(const struct copy_rows *rows, const char *value, size_t length, bool quote,
                    bool alone, struct buffer *out)
{
    if (!quote && !needs_quotes(rows, value, length, alone)) {
        buffer_append(out, value, length);
        return;
    }
    put(out, rows->quote);
    for (size_t i = 0; i < length; i++) {
        if (value[i] == rows->quote || value[i] == rows->escape)
            put(out, rows->escape);
        put(out, value[i]);
    }
    put(out, rows->quote);
}

/* ---- messages ---- */

static void put_header(const struct copy_encode *encode, struct wire_reader *reader, int count,
                       struct buffer *out)
{
    const struct copy_rows *rows = encode->rows;
    size_t begin = wire_begin(out, 'd');
    for (int i = 0; i < count && !reader->bad; i++) {
        const char *name = wire_read_cstring(reader);
        wire_read_bytes(reader, 18);
        if (i)
            put(out, rows->delimiter);
        if (rows->format == COPY_CSV)
            put_csv(rows, name, strlen(name), false, count == 1, out);
        else
            put_text(rows, name, strlen(name), out);
    }
    put(out, '\n');
    wire_end(out, begin);
}

static void put_response(struct copy_encode *encode, const char *body, size_t len,
                         struct buffer *out)
{
    const struct copy_rows *rows = encode->rows;
    struct wire_reader reader = wire_reader(body, len);
    bool binary = rows->format == COPY_BINARY;
    int count = wire_read16(&reader);
    size_t begin = wire_begin(out, 'H');
    wire_put8(out, binary);
    wire_put16(out, count);
    for (int i = 0; i < count; i++)
        wire_put16(out, binary);
    wire_end(out, begin);
    if (rows->header)
        put_header(encode, &reader, count, out);
}

static void put_fields(const struct copy_rows *rows, const char *body, size_t len,
                       struct buffer *out)
{
    struct wire_reader reader = wire_reader(body, len);
    int count = wire_read16(&reader);
    for (int i = 0; i < count && !reader.bad; i++) {
        int32_t length = wire_read32(&reader);
        const char *value = length >= 0 ? wire_read_bytes(&reader, (size_t)length) : NULL;
        if (i)
            put(out, rows->delimiter);
        if (length < 0)
            buffer_append(out, rows->null, strlen(rows->null));
        else if (!reader.bad && rows->format == COPY_CSV)
            put_csv(rows, value, (size_t)length, rows->force_quote, count == 1, out);
        else if (!reader.bad)
            put_text(rows, value, (size_t)length, out);
    }
    put(out, '\n');
}

/* A tuple of the binary format is what a DataRow is. */
static void put_row(struct copy_encode *encode, const char *body, size_t len, struct buffer *out)
{
    size_t begin = wire_begin(out, 'd');
    if (encode->rows->format == COPY_BINARY) {
        if (!encode->headed)
            buffer_append(out, BINARY_HEADER, BINARY_HEADER_LENGTH);
        encode->headed = true;
        buffer_append(out, body, len);
    } else {
        put_fields(encode->rows, body, len, out);
    }
    wire_end(out, begin);
}

void copy_encode_put(struct copy_encode *encode, struct buffer *from, struct buffer *out)
{
    while (buffer_length(from) >= WIRE_HEADER) {
        const char *at = buffer_head(from);
        size_t length = wire_get32(at + 1);
        if (at[0] == 'T')
            put_response(encode, at + WIRE_HEADER, length - 4, out);
        else
            put_row(encode, at + WIRE_HEADER, length - 4, out);
        buffer_consume(from, 1 + length);
    }
}

void copy_encode_end(const struct copy_encode *encode, struct buffer *out)
{
    if (encode->rows->format == COPY_BINARY) {
        size_t begin = wire_begin(out, 'd');
        if (!encode->headed)
            buffer_append(out, BINARY_HEADER, BINARY_HEADER_LENGTH);
        buffer_append(out, "\377\377", 2);
        wire_end(out, begin);
    }
    wire_put_simple(out, 'c');
}
