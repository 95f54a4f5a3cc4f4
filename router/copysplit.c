/* copysplit.c: rows of a COPY FROM to their shards: pieces of the stream, keys, errors. */
#include "router/copysplit_internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pgshunt/pgtypes.h"

/* What is added to the start of a row to find its end: most rows are short. */
#define STEP_MIN 1024

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool digits_are_plain(const struct copy_rows *rows)
{
    for (unsigned i = 0; i < rows->nkeys; i++)
        if (rows->keyspace->types[i] != KEY_BIGINT)
            return false;
    return !is_digit(rows->delimiter) && !is_digit(rows->quote) && !is_digit(rows->escape) &&
           !is_digit(rows->null[0]) && !(rows->default_ && is_digit(rows->default_[0]));
}

static void order_keys(struct copy_split *split)
{
    const struct copy_key_column *keys = split->rows->keys;
    for (unsigned i = 0; i < split->rows->nkeys; i++) {
        unsigned at = i;
        for (; at > 0 && keys[split->steps[at - 1].part].field > keys[i].field; at--)
            split->steps[at].part = split->steps[at - 1].part;
        split->steps[at].part = i;
    }
    for (unsigned i = 0; i < split->rows->nkeys; i++)
        split->steps[i].skip =
            keys[split->steps[i].part].field - (i ? keys[split->steps[i - 1].part].field : 0);
}

struct copy_split *copy_split_new(const struct copy_rows *rows, size_t most)
{
    struct copy_split *split = mem_alloc(sizeof *split);
    split->rows = rows;
    split->most = most;
    split->nshards = shardmap_shards(rows->map);
    split->line = 1;
    row_log_init(&split->log, split->nshards);
    split->plain_digits = rows->format != COPY_BINARY && digits_are_plain(rows);
    order_keys(split);
    arena_init(&split->arena);
    return split;
}

void copy_split_free(struct copy_split *split)
{
    if (!split)
        return;
    row_log_free(&split->log);
    buffer_release(&split->carry);
    for (unsigned i = 0; i < SHARDMAP_MAX_PARTS; i++)
        buffer_release(&split->unquoted[i]);
    arena_free(&split->arena);
    free(split);
}

const struct pg_error *copy_split_error(const struct copy_split *split)
{
    return &split->error;
}

/* All names that Postgres takes for its client-only encodings have one of these in them. */
bool copy_encoding_hides_ascii(const char *encoding)
{
    static const char *const words[] = {"big5", "gb18030", "gbk", "uhc", "johab", "jis",
                                        "932",  "936",     "949", "950", "kanji"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strcasestr(encoding, words[i]))
            return true;
    return false;
}

/* ---- errors ---- */

bool copy_split_fail(struct copy_split *split, const char *sqlstate, const char *hint,
                     const char *message, ...)
{
    char text[512];
    va_list args;
    if (split->failed)
        return false;
    va_start(args, message);
    vsnprintf(text, sizeof text, message, args);
    va_end(args);
    split->failed = true;
    split->error = (struct pg_error){
        .sqlstate = sqlstate,
        .message = arena_strdup(&split->arena, text),
        .hint = hint,
        .where = arena_printf(&split->arena, "COPY %s, line %lld", split->rows->table,
                              (long long)(split->line + split->more_lines)),
    };
    return false;
}

/* The failure at hand is of that part's value. Always false. */
static bool about_key(struct copy_split *split, unsigned part, const char *value)
{
    split->error.where = arena_printf(&split->arena, "%s, column %s: %s", split->error.where,
                                      split->rows->keys[part].name, value);
    return false;
}

int64_t copy_split_line(const struct copy_split *split, unsigned shard, int64_t part_line)
{
    int64_t behind = part_line - row_log_lines(&split->log, shard);
    if (split->passing && split->target == shard && behind > 0)
        return split->line + behind - 1;
    return row_log_find(&split->log, shard, part_line, split->line);
}

bool copy_split_no_key(struct copy_split *split, unsigned part, enum copy_key key)
{
    bool null = key == COPY_KEY_NULL;
    copy_split_fail(
        split, "23502",
        "Give the column a value in each row: it decides on which shard the row lives. A default "
        "cannot.",
        split->rows->nkeys > 1 ? "%s in \"%s\", a column of the shard key of table \"%s\""
                               : "%s in \"%s\", the shard key of table \"%s\"",
        null ? "null value" : "default", split->rows->keys[part].name, split->rows->table);
    return about_key(split, part, null ? "null input" : "default");
}

/* ---- keys ---- */

static const char *type_name(enum key_type type)
{
    return type == KEY_BIGINT ? "bigint" : type == KEY_UUID ? "uuid" : "text";
}

/* Text of a server's message has to be valid in its encoding. */
static const char *printable(struct copy_split *split, const char *value, size_t length)
{
    char *text = arena_strndup(&split->arena, value, length < 80 ? length : 80);
    for (char *at = text; *at; at++)
        if ((unsigned char)*at < ' ' || (unsigned char)*at >= 127)
            *at = '?';
    return text;
}

static bool is_ascii(const char *value, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if ((unsigned char)value[i] >= 128)
            return false;
    return true;
}

static bool refuse_value(struct copy_split *split, unsigned part, const char *value, size_t length,
                         bool binary)
{
    enum key_type type = split->rows->keyspace->types[part];
    const char *text = binary ? "binary" : printable(split, value, length);
    if (binary)
        copy_split_fail(split, "22P03",
                        "The binary value must be one of the column's type: check the "
                        "order of the columns, or COPY in text or csv format.",
                        "incorrect binary data format of %s key \"%s\"", type_name(type),
                        split->rows->keys[part].name);
    else
        copy_split_fail(split, "22P02",
                        "The value decides on which shard the row lives: write it plainly.",
                        "invalid input syntax for type %s: \"%s\"", type_name(type), text);
    return about_key(split, part, arena_printf(&split->arena, "\"%s\"", text));
}

static bool refuse_unlisted(struct copy_split *split, const char *value, size_t length, bool binary)
{
    const struct copy_rows *rows = split->rows;
    const char *text = binary ? "binary" : printable(split, value, length);
    copy_split_fail(
        split, "23514",
        "Add the value to a shard's list, or name a default shard, in the configuration.",
        "the value of \"%s\", the shard key of table \"%s\", is in no list of keyspace \"%s\"",
        rows->keys[0].name, rows->table, rows->keyspace->name);
    return about_key(split, 0, arena_printf(&split->arena, "\"%s\"", text));
}

bool copy_split_key(struct copy_split *split, unsigned part, const char *value, size_t length,
                    bool binary, struct shardkey *key)
{
    const struct copy_rows *rows = split->rows;
    enum key_type type = rows->keyspace->types[part];
    uint32_t column = rows->keys[part].type;
    if (type == KEY_TEXT && rows->only_ascii_keys && !is_ascii(value, length))
        return copy_split_fail(split, "0A000",
                               "Send the rows in UTF-8: SET client_encoding = UTF8.",
                               "text keys beyond ASCII are only understood in UTF-8");
    while (column == OID_BPCHAR && length && value[length - 1] == ' ')
        length--;
    bool ok = binary ? shardkey_from_binary(type, column, value, length, key)
                     : shardkey_from_text(type, value, length, key);
    return ok || refuse_value(split, part, value, length, binary);
}

bool copy_split_shard(struct copy_split *split, const struct shardkey *keys, const char *value,
                      size_t length, bool binary, unsigned *shard)
{
    *shard = shardmap_shard_of_row(split->rows->map, split->rows->keyspace, keys);
    if (*shard == SHARDMAP_NO_SHARD)
        return refuse_unlisted(split, value, length, binary);
    return true;
}

void copy_split_to_all(struct copy_split *split, const char *bytes, size_t len,
                       struct buffer *parts)
{
    for (unsigned shard = 0; shard < split->nshards; shard++)
        buffer_append(&parts[shard], bytes, len);
}

/* ---- pieces ---- */

static size_t take(struct copy_split *split, const char *bytes, size_t len, bool last,
                   struct buffer *parts)
{
    bool binary = split->rows->format == COPY_BINARY;
    if (split->done && binary && len)
        copy_split_fail(split, "22P04", "The binary format's trailer ends the data.",
                        "received copy data after EOF marker");
    if (split->done || split->failed)
        return len;
    return binary ? copy_split_tuples(split, bytes, len, parts)
                  : copy_split_lines(split, bytes, len, last, parts);
}

static bool refuse_long(struct copy_split *split)
{
    return copy_split_fail(
        split, "54000", "Raise limits.max_message, or put the shard key ahead of long columns.",
        "a row is longer than limits.max_message and its shard key has not come");
}

/*
 * Completes the row in `carry` with as little of the piece as will do: the next rows are taken from the
 * piece itself. Returns what of the piece is used.
 */
static size_t finish_carry(struct copy_split *split, const char *bytes, size_t len,
                           struct buffer *parts)
{
    struct buffer *carry = &split->carry;
    size_t given = 0;
    while (buffer_length(carry) && given < len && !split->failed) {
        size_t had = buffer_length(carry), step = had > STEP_MIN ? had : STEP_MIN;
        step = step < len - given ? step : len - given;
        buffer_append(carry, bytes + given, step);
        given += step;
        size_t used = take(split, buffer_head(carry), had + step, false, parts);
        if (used >= had) {
            given -= had + step - used;
            buffer_clear(carry);
        } else if (used) {
            buffer_consume(carry, used);
        } else if (buffer_length(carry) > split->most) {
            refuse_long(split);
        }
    }
    return given;
}

bool copy_split_feed(struct copy_split *split, const char *bytes, size_t len, struct buffer *parts)
{
    size_t used = finish_carry(split, bytes, len, parts);
    if (used < len && !split->failed) {
        used += take(split, bytes + used, len - used, false, parts);
        if (len - used > split->most)
            refuse_long(split);
        buffer_append(&split->carry, bytes + used, len - used);
    }
    return !split->failed;
}

bool copy_split_end(struct copy_split *split, struct buffer *parts)
{
    size_t len = buffer_length(&split->carry);
    if (split->failed || (!len && split->started))
        return !split->failed;
    if (take(split, len ? buffer_head(&split->carry) : "", len, true, parts) < len ||
        (split->rows->format == COPY_BINARY && !split->started))
        copy_split_fail(split, "22P04", "The stream ends in the middle of a row, or of its header.",
                        "unexpected EOF in COPY data");
    buffer_clear(&split->carry);
    return !split->failed;
}
