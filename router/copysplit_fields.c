/* copysplit_fields.c: the key's field in a row of COPY's formats, as Postgres reads it. */
#include "router/copysplit_internal.h"

#include <string.h>

#include "pgshunt/wire.h"

struct field {
    const char *at, *end; /* as it stands there */
    bool quoted;
};

static bool is_text(const struct field *field, const char *text)
{
    size_t len = strlen(text);
    return (size_t)(field->end - field->at) == len && memcmp(field->at, text, len) == 0;
}

/* Where neither escapes nor quotes are up to the field's end, delimiters are all there is to see.
 * False: it is to be read with care. */
static bool find_plain(const struct copy_rows *rows, int key, const char *row, const char *end,
                       bool whole, struct field *field, bool *absent)
{
    const char *at = row, *stop = row;
    for (int i = 0; i <= key && !*absent; i++) {
        at = i ? stop + 1 : row;
        stop = at < end ? memchr(at, rows->delimiter, (size_t)(end - at)) : NULL;
        *absent = !stop && (i < key || !whole);
        stop = stop ? stop : end;
    }
    *field = (struct field){at, stop, false};
    char special = rows->format == COPY_CSV ? rows->quote : '\\';
    return stop == row || !memchr(row, special, (size_t)(stop - row));
}

static void put(struct buffer *out, char c)
{
    buffer_append(out, &c, 1);
}

/* ---- text ---- */

static bool find_escaped(const struct copy_rows *rows, int key, const char *row, const char *end,
                         bool whole, struct field *field)
{
    const char *at = row, *start = row;
    for (int number = 0;; at++) {
        if (at >= end) {
            *field = (struct field){start, end, false};
            return whole && number == key;
        }
        if (*at == '\\') {
            at++;
        } else if (*at == rows->delimiter) {
            if (number++ == key) {
                *field = (struct field){start, at, false};
                return true;
            }
            start = at + 1;
        }
    }
}

static int digit(char c, int base)
{
    int value = c >= '0' && c <= '9'   ? c - '0'
                : c >= 'a' && c <= 'f' ? c - 'a' + 10
                : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                       : 99;
    return value < base ? value : -1;
}

/* Up to `most` digits; `at` is left behind them. */
static char number(const char **at, const char *end, int base, int most)
{
    int value = 0;
    for (int i = 0; i < most && *at < end && digit(**at, base) >= 0; i++, (*at)++)
        value = value * base + digit(**at, base);
    return (char)value;
}

static char escaped(const char **at, const char *end)
{
    static const char letters[] = "bfnrtv", meant[] = "\b\f\n\r\t\v";
    if (digit(**at, 8) >= 0)
        return number(at, end, 8, 3);
    char c = *(*at)++;
    if (c == 'x' && *at < end && digit(**at, 16) >= 0)
        return number(at, end, 16, 2);
    const char *letter = strchr(letters, c);
    return c && letter ? meant[letter - letters] : c;
}

static void unescape(const struct field *field, struct buffer *out)
{
    for (const char *at = field->at; at < field->end;) {
        char c = *at++;
        if (c != '\\')
            put(out, c);
        else if (at < field->end)
            put(out, escaped(&at, field->end));
    }
}

/* ---- csv ---- */

/* Behind an opening quote: up to behind the closing one; at `end` there is none. */
static const char *skip_quoted(const struct copy_rows *rows, const char *at, const char *end,
                               struct buffer *out)
{
    while (at < end) {
        char c = *at++;
        if (c == rows->escape && at < end && (*at == rows->escape || *at == rows->quote)) {
            if (out)
                put(out, *at);
            at++;
            continue;
        }
        if (c == rows->quote)
            return at;
        if (out)
            put(out, c);
    }
    return NULL;
}

/* False: not there, or its quotes are not closed. */
static bool find_quoted(const struct copy_rows *rows, int key, const char *row, const char *end,
                        bool whole, struct field *field)
{
    const char *at = row;
    *field = (struct field){row, row, false};
    for (int number = 0; at < end;) {
        if (*at == rows->quote) {
            field->quoted = true;
            at = skip_quoted(rows, at + 1, end, NULL);
            if (!at)
                return false;
        } else if (*at == rows->delimiter) {
            field->end = at++;
            if (number++ == key)
                return true;
            *field = (struct field){at, at, false};
        } else {
            at++;
        }
        if (at >= end) {
            field->end = end;
            return whole && number == key;
        }
    }
    return false;
}

static void unquote(const struct copy_rows *rows, const struct field *field, struct buffer *out)
{
    for (const char *at = field->at; at && at < field->end;) {
        if (*at == rows->quote)
            at = skip_quoted(rows, at + 1, field->end, out);
        else
            put(out, *at++);
    }
}

/* ---- both ---- */

static enum copy_key judge(const struct copy_rows *rows, unsigned part, const struct field *field,
                           const char *value, size_t length)
{
    const struct copy_key_column *key = &rows->keys[part];
    size_t null = strlen(rows->null);
    if (!field->quoted && rows->default_ && is_text(field, rows->default_))
        return COPY_KEY_DEFAULT;
    if (!field->quoted && is_text(field, rows->null))
        return key->force_not_null ? COPY_KEY_VALUE : COPY_KEY_NULL;
    if (key->force_null && length == null && memcmp(value, rows->null, null) == 0)
        return COPY_KEY_NULL;
    return COPY_KEY_VALUE;
}

enum copy_key copy_text_key(struct copy_split *split, unsigned part, const char *row,
                            const char *end, bool whole, const char **value, size_t *length)
{
    const struct copy_rows *rows = split->rows;
    struct buffer *unquoted = &split->unquoted[part];
    int key = rows->keys[part].field;
    struct field field;
    bool absent = false, csv = rows->format == COPY_CSV;
    if (find_plain(rows, key, row, end, whole, &field, &absent)) {
        if (absent)
            return COPY_KEY_ABSENT;
        *value = field.at;
        *length = (size_t)(field.end - field.at);
        return judge(rows, part, &field, *value, *length);
    }
    if (csv ? !find_quoted(rows, key, row, end, whole, &field)
            : !find_escaped(rows, key, row, end, whole, &field))
        return COPY_KEY_ABSENT;
    buffer_clear(unquoted);
    if (csv)
        unquote(rows, &field, unquoted);
    else
        unescape(&field, unquoted);
    *value = buffer_length(unquoted) ? buffer_head(unquoted) : "";
    *length = buffer_length(unquoted);
    return judge(rows, part, &field, *value, *length);
}

/* ---- binary ---- */

#define SIGNATURE "PGCOPY\n\377\r\n"
#define SIGNATURE_LENGTH 11 /* with its zero */
#define HEADER_LENGTH 19    /* ... flags, and the length of what follows */

/* 0: not all of it is there. */
static size_t take_header(struct copy_split *split, const char *bytes, size_t len,
                          struct buffer *parts)
{
    size_t known = len < SIGNATURE_LENGTH ? len : SIGNATURE_LENGTH;
    if (memcmp(bytes, SIGNATURE, known) != 0) {
        copy_split_fail(split, "22P04", "The rows are not in COPY's binary format.",
                        "COPY file signature not recognized");
        return 0;
    }
    if (len < HEADER_LENGTH)
        return 0;
    uint32_t extension = wire_get32(bytes + SIGNATURE_LENGTH + 4);
    if (extension > INT32_MAX) {
        copy_split_fail(split, "22P04", "The rows are not in COPY's binary format.",
                        "invalid COPY file header (wrong length)");
        return 0;
    }
    size_t whole = HEADER_LENGTH + (size_t)extension;
    if (len < whole)
        return 0;
    copy_split_to_all(split, bytes, whole, parts);
    split->started = true;
    return whole;
}

static int field_count(const char *row)
{
    return (int16_t)((unsigned char)row[0] << 8 | (unsigned char)row[1]);
}

#define ABSENT (-2)

struct binary_value {
    const char *at;
    int32_t length; /* -1: NULL; or ABSENT */
};

/* The end of the tuple and the parts of its key. NULL: not all of it is there. */
static const char *walk_tuple(struct copy_split *split, const char *row, const char *end,
                              struct binary_value *parts)
{
    const struct copy_rows *rows = split->rows;
    const char *at = row + 2;
    for (unsigned k = 0; k < rows->nkeys; k++)
        parts[k].length = ABSENT;
    for (int i = 0, count = field_count(row); i < count; i++) {
        if (end - at < 4)
            return NULL;
        int32_t length = (int32_t)wire_get32(at);
        at += 4;
        if (length < -1) {
            copy_split_fail(split, "22P04", "The rows are not in COPY's binary format.",
                            "invalid field size");
            return NULL;
        }
        for (unsigned k = 0; k < rows->nkeys; k++)
            if (i == rows->keys[k].field)
                parts[k] = (struct binary_value){at, length};
        if (length > 0 && end - at < length)
            return NULL;
        at += length > 0 ? length : 0;
    }
    return at;
}

/* A tuple that lacks a part of the key is refused by whichever shard. False: failed. */
static bool find_tuple(struct copy_split *split, const struct binary_value *values, unsigned *shard)
{
    struct shardkey keys[SHARDMAP_MAX_PARTS];
    *shard = 0;
    for (unsigned k = 0; k < split->rows->nkeys; k++) {
        if (values[k].length == ABSENT)
            return true;
        if (values[k].length == -1)
            return copy_split_no_key(split, k, COPY_KEY_NULL);
        if (!copy_split_key(split, k, values[k].at, (size_t)values[k].length, true, &keys[k]))
            return false;
    }
    return copy_split_shard(split, keys, values[0].at, (size_t)values[0].length, true, shard);
}

static bool give_tuple(struct copy_split *split, const char *row, size_t len,
                       const struct binary_value *values, struct buffer *parts)
{
    unsigned shard;
    if (!find_tuple(split, values, &shard))
        return false;
    buffer_append(&parts[shard], row, len);
    row_log_put(&split->log, shard, 1);
    split->line++;
    return true;
}

size_t copy_split_tuples(struct copy_split *split, const char *bytes, size_t len,
                         struct buffer *parts)
{
    size_t used = 0;
    if (!split->started && len)
        used = take_header(split, bytes, len, parts);
    while (split->started && !split->failed && len - used >= 2) {
        const char *row = bytes + used;
        struct binary_value values[SHARDMAP_MAX_PARTS];
        if (field_count(row) == -1) {
            copy_split_to_all(split, row, 2, parts);
            split->done = true;
            return used + 2;
        }
        const char *next = walk_tuple(split, row, bytes + len, values);
        if (!next || !give_tuple(split, row, (size_t)(next - row), values, parts))
            break;
        used += (size_t)(next - row);
    }
    return split->failed ? len : used;
}
