/* copyrow.c: walks the rows of a COPY TO field by field. */
#include "resharder/copyrow.h"

#include <string.h>

#include "pgshunt/wire.h"

/* Signature, no flags, no extension. */
const char copyrow_header[COPYROW_HEADER_SIZE] = "PGCOPY\n\377\r\n\0\0\0\0\0\0\0\0";
const char copyrow_trailer[2] = "\377\377";

#define SIGNATURE_SIZE 11
#define CRITICAL_FLAGS 0xffff0000u /* a reader that does not know one has to give up */
#define EXTENSION_MAX (1 << 20)

/* How far something that has to be seen whole has come. */
enum seen { SEEN_MORE, SEEN_WHOLE, SEEN_WRONG };

void copyrow_begin(struct copyrow *row, const struct copyrow_taker *taker, bool binary,
                   unsigned nkey, unsigned ncolumns)
{
    *row = (struct copyrow){
        .taker = *taker,
        .binary = binary,
        .nkey = nkey,
        .ncolumns = ncolumns,
        .place = binary ? COPYROW_HEADER : COPYROW_KEY,
        .who = COPYROW_NOBODY,
    };
}

void copyrow_release(struct copyrow *row)
{
    buffer_release(&row->held);
    buffer_release(&row->text);
}

static enum seen wrong(struct copyrow *row, const char *error)
{
    row->error = error;
    return SEEN_WRONG;
}

/* ---- what has to be seen whole: the header, and a row up to the end of its key ---- */

/* *size: how much it takes, as far as that is known. */
static enum seen see_header(struct copyrow *row, const char *bytes, size_t length, size_t *size)
{
    *size = COPYROW_HEADER_SIZE;
    if (length < *size)
        return SEEN_MORE;
    if (memcmp(bytes, copyrow_header, SIGNATURE_SIZE) != 0)
        return wrong(row, "not the binary format of COPY");
    if (wire_get32(bytes + SIGNATURE_SIZE) & CRITICAL_FLAGS)
        return wrong(row, "a binary format of COPY that is not known");
    uint32_t extension = wire_get32(bytes + SIGNATURE_SIZE + 4);
    if (extension > EXTENSION_MAX)
        return wrong(row, "the header of the binary COPY is malformed");
    *size += extension;
    return length < *size ? SEEN_MORE : SEEN_WHOLE;
}

static enum seen see_binary_key(struct copyrow *row, const char *bytes, size_t length, size_t *size,
                                struct move_value *key)
{
    *size = 2;
    if (length < *size)
        return SEEN_MORE;
    unsigned count = wire_get16(bytes);
    if (count == 0xffff) {
        row->place = COPYROW_TRAILER;
        return SEEN_WHOLE;
    }
    if (count != row->ncolumns)
        return wrong(row, "a row of the COPY has another number of columns");
    for (unsigned i = 0; i < row->nkey; i++) {
        size_t at = *size;
        *size += 4;
        if (length < *size)
            return SEEN_MORE;
        int32_t field = (int32_t)wire_get32(bytes + at);
        if (field < -1 || field > COPYROW_KEY_MAX)
            return wrong(row, "a row's key is too long");
        key[i] = (struct move_value){.binary = true};
        if (field < 0)
            continue;
        *size += (size_t)field;
        if (length < *size)
            return SEEN_MORE;
        key[i].bytes = bytes + at + 4;
        key[i].length = (size_t)field;
    }
    return SEEN_WHOLE;
}

/* What stands for `c` behind a backslash, as COPY TO writes it. */
static char unescaped(char c)
{
    static const char from[] = "bfnrtv", to[] = "\b\f\n\r\t\v";
    const char *found = c ? strchr(from, c) : NULL;
    return found ? to[found - from] : c;
}

static void read_text_field(struct copyrow *row, const char *bytes, size_t length,
                            struct move_value *value)
{
    *value = (struct move_value){.bytes = NULL};
    if (length == 2 && memcmp(bytes, "\\N", 2) == 0)
        return;
    value->bytes = bytes;
    value->length = length;
    if (!memchr(bytes, '\\', length))
        return;
    size_t begin = row->text.end;
    for (size_t i = 0; i < length; i++) {
        bool escape = bytes[i] == '\\' && i + 1 < length;
        char c = escape ? unescaped(bytes[++i]) : bytes[i];
        buffer_append(&row->text, &c, 1);
    }
    value->bytes = row->text.data + begin;
    value->length = row->text.end - begin;
}

/* COPY TO escapes newlines and tabs in values: each that is there is an end. */
static enum seen see_text_key(struct copyrow *row, const char *bytes, size_t length, size_t *size,
                              struct move_value *key)
{
    const char *ends[COPYROW_KEY_COLUMNS];
    *size = 0;
    for (unsigned i = 0; i < row->nkey; i++) {
        bool last = i + 1 == row->ncolumns;
        const char *end = bytes + *size;
        while (end < bytes + length && *end != '\t' && *end != '\n')
            end++;
        if (end == bytes + length) {
            *size = length + 1;
            return length > COPYROW_KEY_MAX ? wrong(row, "a row's key is too long") : SEEN_MORE;
        }
        if (*end != (last ? '\n' : '\t'))
            return wrong(row, "a row of the COPY has another number of columns");
        ends[i] = end;
        *size = (size_t)(end - bytes) + 1;
    }
    buffer_clear(&row->text);
    buffer_reserve(&row->text, *size + 1); /* so that it does not move */
    for (unsigned i = 0; i < row->nkey; i++) {
        const char *begin = i ? ends[i - 1] + 1 : bytes;
        read_text_field(row, begin, (size_t)(ends[i] - begin), &key[i]);
    }
    /* The newline is the body's: it ends the row there. */
    if (row->nkey == row->ncolumns)
        --*size;
    return SEEN_WHOLE;
}

static enum seen see(struct copyrow *row, const char *bytes, size_t length, size_t *size,
                     struct move_value *key)
{
    if (row->place == COPYROW_HEADER)
        return see_header(row, bytes, length, size);
    return row->binary ? see_binary_key(row, bytes, length, size, key)
                       : see_text_key(row, bytes, length, size, key);
}

/* ---- the body ---- */

static void give(struct copyrow *row, const char *from, const char *to)
{
    if (row->who != COPYROW_NOBODY && to > from)
        row->taker.take(row->taker.arg, row->who, from, (size_t)(to - from));
}

static void end_row(struct copyrow *row)
{
    row->rows++;
    row->place = COPYROW_KEY;
    if (row->who != COPYROW_NOBODY && row->taker.end)
        row->taker.end(row->taker.arg, row->who);
}

/* Returns where the next field's bytes begin; NULL: its length is not whole, or wrong. */
static const char *begin_field(struct copyrow *row, const char *at, const char *end)
{
    char bytes[4];
    size_t held = buffer_length(&row->held), wanted = 4 - held;
    size_t here = (size_t)(end - at) < wanted ? (size_t)(end - at) : wanted;
    if (!held && here == 4) {
        memcpy(bytes, at, 4);
    } else {
        buffer_append(&row->held, at, here);
        if (buffer_length(&row->held) < 4)
            return NULL;
        memcpy(bytes, buffer_head(&row->held), 4);
        buffer_clear(&row->held);
    }
    int32_t length = (int32_t)wire_get32(bytes);
    if (length < -1) {
        row->error = "a field of the binary COPY is malformed";
        return NULL;
    }
    row->fields--;
    row->field = length < 0 ? 0 : (uint32_t)length;
    return at + here;
}

/* The rest of a row: returns where it ends, or `end`. `from`: what has not been given yet. */
static const char *binary_body(struct copyrow *row, const char *from, const char *at,
                               const char *end)
{
    for (;;) {
        size_t here = (size_t)(end - at) < row->field ? (size_t)(end - at) : row->field;
        row->field -= (uint32_t)here;
        at += here;
        if (row->field || (row->fields && at == end))
            break;
        if (!row->fields) {
            give(row, from, at);
            end_row(row);
            return at;
        }
        const char *next = begin_field(row, at, end);
        if (!next)
            break;
        at = next;
    }
    give(row, from, end);
    return end;
}

static const char *text_body(struct copyrow *row, const char *from, const char *at, const char *end)
{
    const char *newline = memchr(at, '\n', (size_t)(end - at));
    give(row, from, newline ? newline + 1 : end);
    if (newline)
        end_row(row);
    return newline ? newline + 1 : end;
}

static const char *body(struct copyrow *row, const char *from, const char *at, const char *end)
{
    return row->binary ? binary_body(row, from, at, end) : text_body(row, from, at, end);
}

/* ---- feeding ---- */

/* A row's key has been seen in the `size` bytes at `begin`. */
static void begin_row(struct copyrow *row, const struct move_value *key)
{
    row->who = row->taker.choose(row->taker.arg, key);
    row->place = COPYROW_BODY;
    row->fields = row->ncolumns - row->nkey;
    row->field = 0;
}

/* The first bytes of something whose earlier ones are held. Returns what is left of them; NULL: error. */
static const char *go_on_held(struct copyrow *row, const char *at, const char *end)
{
    struct move_value key[COPYROW_KEY_COLUMNS];
    size_t size;
    enum seen seen;
    for (;;) {
        seen = see(row, buffer_head(&row->held), buffer_length(&row->held), &size, key);
        if (seen != SEEN_MORE || at == end)
            break;
        size_t missing = size - buffer_length(&row->held), here = (size_t)(end - at);
        if (!row->binary) { /* how much is not known: what a key takes, at most */
            const char *stop = memchr(at, '\n', here), *tab = memchr(at, '\t', here);
            stop = tab && (!stop || tab < stop) ? tab : stop;
            missing = stop ? (size_t)(stop - at) + 1 : here;
        }
        buffer_append(&row->held, at, here < missing ? here : missing);
        at += here < missing ? here : missing;
    }
    if (seen != SEEN_WHOLE)
        return seen == SEEN_WRONG ? NULL : at;
    if (row->place == COPYROW_KEY) {
        const char *head = buffer_head(&row->held);
        begin_row(row, key);
        give(row, head, head + size);
        /* A text row of nothing but its key: the newline is there already. */
        if (size < buffer_length(&row->held))
            text_body(row, head + size, head + size, head + buffer_length(&row->held));
    } else if (row->place == COPYROW_HEADER) {
        row->place = COPYROW_KEY;
    }
    buffer_clear(&row->held);
    return at;
}

/* What begins here. Returns what is left; NULL: error. */
static const char *go_on(struct copyrow *row, const char *at, const char *end)
{
    struct move_value key[COPYROW_KEY_COLUMNS];
    size_t size;
    enum seen seen = see(row, at, (size_t)(end - at), &size, key);
    if (seen == SEEN_WRONG)
        return NULL;
    if (seen == SEEN_MORE) {
        buffer_append(&row->held, at, (size_t)(end - at));
        return end;
    }
    if (row->place == COPYROW_HEADER) {
        row->place = COPYROW_KEY;
        return at + size;
    }
    if (row->place == COPYROW_TRAILER)
        return at + size;
    begin_row(row, key);
    return body(row, at, at + size, end);
}

bool copyrow_feed(struct copyrow *row, const char *bytes, size_t length)
{
    const char *at = bytes, *end = bytes + length;
    while (at && at < end && !row->error) {
        if (row->place == COPYROW_TRAILER)
            row->error = "something follows the end of the binary COPY";
        else if (row->place == COPYROW_BODY)
            at = body(row, at, at, end);
        else if (buffer_length(&row->held))
            at = go_on_held(row, at, end);
        else
            at = go_on(row, at, end);
        /* A row whose key are all its columns ends where the key does. */
        if (at == end && !row->error && row->binary && row->place == COPYROW_BODY && !row->fields &&
            !row->field)
            end_row(row);
    }
    return !row->error;
}

bool copyrow_finish(struct copyrow *row)
{
    bool whole = row->binary ? row->place == COPYROW_TRAILER
                             : row->place == COPYROW_KEY && buffer_length(&row->held) == 0;
    if (!row->error && !whole)
        row->error = "the COPY ended within a row";
    return !row->error;
}
