/* merge.c: merging result streams: what is fed, how rows are taken apart, what the client gets. */
#include "router/merge_internal.h"

#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define DATA_ROW_COUNT 2 /* bytes of the column count in a DataRow */
#define MESSAGE_MAX (INT32_MAX - 64)

/* ---- errors ---- */

bool merge_fail(struct merge *merge, const char *sqlstate, const char *hint, const char *format,
                ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    merge->state = MERGE_FAILED;
    merge->error = (struct pg_error){
        .severity = "ERROR",
        .sqlstate = sqlstate,
        .message = arena_strdup(&merge->arena, text),
        .hint = hint,
    };
    return false;
}

static const char *type_name(struct merge *merge, int column)
{
    uint32_t oid = merge->description.fields[column].oid;
    const char *name = pg_type_name(oid);
    return name ? name : arena_printf(&merge->arena, "with oid %u", oid);
}

bool merge_fail_type(struct merge *merge, int column, const char *what)
{
    const struct merge_field *field = &merge->description.fields[column];
    const char *hint = "Keep the statement to one shard by its key, or cast the column to a type "
                       "with a simple order (text, numeric, ...).";
    if (field->oid == OID_MONEY && field->format == 0)
        hint = "Cast the column to numeric.";
    return merge_fail(merge, "0A000", hint,
                      "cannot merge values of type %s across shards: column \"%.64s\" is needed "
                      "for %s",
                      type_name(merge, column), field->name, what);
}

bool merge_fail_value(struct merge *merge, int column, int shard)
{
    uint32_t oid = merge->description.fields[column].oid;
    if (pg_type_has_style(oid))
        return merge_fail(merge, "0A000",
                          "Set DateStyle to ISO and IntervalStyle to postgres, or cast the column "
                          "to text in the statement.",
                          "cannot merge values of type %s across shards in this text format",
                          type_name(merge, column));
    return merge_fail_malformed(
        merge, shard, arena_printf(&merge->arena, "value of type %s", type_name(merge, column)));
}

bool merge_fail_malformed(struct merge *merge, int shard, const char *what)
{
    const char *who = shard < 0 ? "a shard" : arena_printf(&merge->arena, "shard %d", shard);
    return merge_fail(merge, "08P01", "The server does not speak as Postgres does.",
                      "%s sent a malformed %s", who, what);
}

bool merge_fail_spec(struct merge *merge, const char *what)
{
    return merge_fail(merge, "XX000", "This is a bug in pgshunt, please report it.",
                      "the plan of the merge does not fit its result: %s", what);
}

const struct pg_error *merge_error(const struct merge *merge)
{
    return &merge->error;
}

/* ---- life ---- */

struct merge *merge_new(const struct merge_spec *spec, int nshards, long max_groups)
{
    struct merge *merge = mem_alloc(sizeof *merge);
    merge->spec = spec;
    merge->nshards = nshards;
    merge->max_groups = max_groups > 0 ? max_groups : LONG_MAX;
    merge->state = MERGE_WAIT;
    arena_init(&merge->arena);
    merge->nstream_keys = spec->group ? 0 : spec->nsort;
    merge->heap = arena_array(&merge->arena, int, nshards);
    merge->streams = mem_alloc(sizeof(struct stream) * (size_t)nshards);
    for (int i = 0; i < nshards; i++) {
        merge->streams[i].keys = arena_array(&merge->arena, struct pg_key, spec->nsort);
        merge->streams[i].next = arena_array(&merge->arena, struct pg_key, spec->nsort);
    }
    return merge;
}

void merge_free(struct merge *merge)
{
    if (!merge)
        return;
    for (int i = 0; i < merge->nshards; i++)
        buffer_release(&merge->streams[i].rows);
    free(merge->streams);
    merge_free_groups(merge);
    merge_forget_distinct(merge);
    buffer_release(&merge->distinct_key);
    buffer_release(&merge->last_key);
    buffer_release(&merge->scratch);
    pg_collation_close(&merge->collation);
    arena_free(&merge->arena);
    free(merge);
}

void merge_want_description(struct merge *merge, bool wanted)
{
    merge->want_description = wanted;
}

int64_t merge_rows(const struct merge *merge)
{
    return merge->rows;
}

/* ---- rows taken apart ---- */

bool merge_split(struct merge *merge, const char *body, size_t length, size_t *visible_end,
                 int shard)
{
    const char *at = body + DATA_ROW_COUNT, *end = body + length;
    const int count = merge->description.nfields;
    if (length < DATA_ROW_COUNT || wire_get16(body) != count)
        goto malformed;
    *visible_end = DATA_ROW_COUNT;
    for (int i = 0; i < count; i++) {
        if (end - at < 4)
            goto malformed;
        int32_t size = (int32_t)wire_get32(at);
        at += 4;
        if (size < -1 || (size > 0 && size > end - at))
            goto malformed;
        merge->values[i] = (struct merge_value){at, size};
        at += size > 0 ? size : 0;
        if (i + 1 == merge->visible)
            *visible_end = (size_t)(at - body);
    }
    if (at == end)
        return true;
malformed:
    return merge_fail_malformed(merge, shard, "row");
}

bool merge_decode_keys(struct merge *merge, struct pg_key *keys, int shard)
{
    for (int i = 0; i < merge->spec->nsort; i++) {
        int column = merge->sort_columns[i];
        const struct merge_value *value = &merge->values[column];
        if (!pg_order_decode(&merge->sort_orders[i], value->bytes, value->length, &keys[i]))
            return merge_fail_value(merge, column, shard);
    }
    return true;
}

int merge_compare_keys(const struct merge *merge, const struct pg_key *a, const struct pg_key *b)
{
    for (int i = 0; i < merge->spec->nsort; i++) {
        const struct merge_sort_key *sort = &merge->spec->sort[i];
        bool a_null = a[i].length < 0, b_null = b[i].length < 0;
        if (a_null || b_null) {
            if (a_null && b_null)
                continue;
            return a_null == sort->nulls_first ? -1 : 1;
        }
        int order = pg_order_compare(&merge->sort_orders[i], &a[i], &b[i]);
        if (order)
            return (order < 0) == sort->descending ? 1 : -1;
    }
    return 0;
}

bool merge_put_canonical(struct merge *merge, const struct pg_order *order, int column,
                         struct buffer *out)
{
    const struct merge_value *value = &merge->values[column];
    struct pg_key key;
    if (!pg_order_decode(order, value->bytes, value->length, &key))
        return merge_fail_value(merge, column, -1);
    char size[4];
    wire_set32(size, UINT32_MAX);
    buffer_append(out, size, sizeof size);
    if (value->length < 0)
        return true;
    size_t start = buffer_length(out);
    pg_order_canonical(order, &key, out);
    wire_set32(buffer_head(out) + start - 4, (uint32_t)(buffer_length(out) - start));
    return true;
}

/* ---- streams ---- */

static size_t head_size(const struct stream *stream)
{
    return stream->has_head ? 4 + stream->head.length : 0;
}

/* Rows in the buffer that wait to be merged, in bytes. */
static size_t pending(const struct stream *stream)
{
    return buffer_length(&stream->rows) - (stream->emitted ? head_size(stream) : 0);
}

static bool fail_order(struct merge *merge, int shard)
{
    return merge_fail(merge, "0A000",
                      "The collation of an ORDER BY column differs between the servers and this "
                      "host. Order by the column COLLATE \"C\", or install the same locale here.",
                      "rows of shard %d are not in the order pgshunt computes", shard);
}

/* The row at `offset` in the stream becomes the head, keys first in `next`. */
static bool take_head(struct merge *merge, int shard, size_t offset)
{
    struct stream *stream = &merge->streams[shard];
    const char *at = buffer_head(&stream->rows) + offset;
    struct merge_row row = {.body = at + 4, .length = wire_get32(at)};
    if (!merge_split(merge, row.body, row.length, &row.visible_end, shard))
        return false;
    if (merge->nstream_keys) {
        if (!merge_decode_keys(merge, stream->next, shard))
            return false;
        if (stream->has_head && merge_compare_keys(merge, stream->keys, stream->next) > 0)
            return fail_order(merge, shard);
        struct pg_key *keys = stream->keys;
        stream->keys = stream->next;
        stream->next = keys;
    }
    buffer_consume(&stream->rows, offset);
    stream->head = row;
    stream->has_head = true;
    stream->emitted = false;
    return true;
}

enum load merge_load(struct merge *merge, int shard)
{
    struct stream *stream = &merge->streams[shard];
    if (stream->has_head && !stream->emitted)
        return LOAD_SAME;
    size_t offset = head_size(stream);
    if (buffer_length(&stream->rows) > offset)
        return take_head(merge, shard, offset) ? LOAD_NEW : LOAD_FAILED;
    if (!stream->finished)
        return LOAD_WAIT;
    stream->has_head = stream->emitted = false;
    buffer_release(&stream->rows);
    return LOAD_END;
}

/* After the buffer has moved: the head and its keys point into the old memory. */
static bool reload_head(struct merge *merge, int shard)
{
    struct stream *stream = &merge->streams[shard];
    stream->head.body = buffer_head(&stream->rows) + 4;
    if (!merge->nstream_keys)
        return true;
    size_t visible_end;
    return merge_split(merge, stream->head.body, stream->head.length, &visible_end, shard) &&
           merge_decode_keys(merge, stream->keys, shard);
}

static bool feed_row(struct merge *merge, int shard, const char *body, size_t length)
{
    struct stream *stream = &merge->streams[shard];
    uintptr_t before = stream->has_head ? (uintptr_t)buffer_head(&stream->rows) : 0;
    size_t live = buffer_length(&stream->rows), more = length + 4;
    char size[4];
    /* A nearly full buffer would be moved for every row or two: make it twice what is in it. */
    if (stream->rows.cap - stream->rows.end < more)
        buffer_reserve(&stream->rows, more > live ? more : live);
    wire_set32(size, (uint32_t)length);
    buffer_append(&stream->rows, size, sizeof size);
    buffer_append(&stream->rows, body, length);
    return !before || before == (uintptr_t)buffer_head(&stream->rows) || reload_head(merge, shard);
}

bool merge_feed(struct merge *merge, int shard, char type, const char *body, size_t len)
{
    if (merge->state != MERGE_WAIT) /* what a shard sends after the end is of no use */
        return merge->state != MERGE_FAILED;
    if (shard < 0 || shard >= merge->nshards)
        return merge_fail_spec(merge, "a shard that takes no part");
    struct stream *stream = &merge->streams[shard];
    if (type != 'T' && type != 'D' && type != 'C' && type != 'I')
        return true;
    if (stream->finished || len > MESSAGE_MAX)
        return merge_fail(merge, "08P01", "The server does not speak as Postgres does.",
                          "shard %d sent message \"%c\" after the end of its rows", shard, type);
    if (type == 'T')
        return merge_describe(merge, shard, body, len);
    if (type == 'D')
        return feed_row(merge, shard, body, len);
    stream->finished = true;
    return true;
}

bool merge_hungry(const struct merge *merge, int shard)
{
    if (merge->state != MERGE_WAIT || shard < 0 || shard >= merge->nshards)
        return false;
    const struct stream *stream = &merge->streams[shard];
    return !stream->finished && pending(stream) < MERGE_STREAM_BYTES;
}

bool merge_starves(const struct merge *merge, int shard)
{
    return merge_hungry(merge, shard) && !pending(&merge->streams[shard]);
}

/* ---- output ---- */

static void write_row(const struct merge *merge, const struct merge_row *row, struct buffer *out)
{
    size_t message = 4 + row->visible_end;
    char *at = buffer_reserve(out, 1 + message);
    at[0] = 'D';
    wire_set32(at + 1, (uint32_t)message);
    memcpy(at + 5, row->body, row->visible_end);
    at[5] = (char)(merge->visible >> 8);
    at[6] = (char)merge->visible;
    out->end += 1 + message;
}

bool merge_emit(struct merge *merge, const struct merge_row *row, struct buffer *out)
{
    const struct merge_spec *spec = merge->spec;
    if (spec->distinct) {
        bool distinct;
        if (!merge_is_distinct(merge, row, &distinct))
            return false;
        if (!distinct)
            return true;
    }
    if (merge->skipped < spec->offset) {
        merge->skipped++;
        return true;
    }
    write_row(merge, row, out);
    if (++merge->rows == spec->limit)
        merge->state = MERGE_DONE;
    return true;
}

static bool all_finished(const struct merge *merge)
{
    for (int i = 0; i < merge->nshards; i++)
        if (!merge->streams[i].finished)
            return false;
    return true;
}

/* No RowDescription yet. */
static enum merge_status run_undescribed(struct merge *merge)
{
    if (!all_finished(merge))
        return MERGE_WAIT;
    merge->state = MERGE_DONE;
    for (int i = 0; i < merge->nshards; i++)
        if (buffer_length(&merge->streams[i].rows))
            merge_fail_malformed(merge, i, "result: rows without a description");
    return merge->state;
}

enum merge_status merge_run(struct merge *merge, struct buffer *out, size_t room)
{
    if (merge->state != MERGE_WAIT)
        return merge->state;
    if (!merge->described)
        return run_undescribed(merge);
    if (merge->want_description && !merge->description_sent)
        merge_write_description(merge, out);
    merge->description_sent = true;
    if (merge->spec->limit == 0)
        merge->state = MERGE_DONE;
    if (merge->state != MERGE_WAIT)
        return merge->state;
    enum merge_status status = merge->spec->group        ? merge_run_groups(merge, out, room)
                               : merge->spec->row_source ? merge_run_listed(merge, out, room)
                               : merge->nstream_keys     ? merge_run_sorted(merge, out, room)
                                                         : merge_run_plain(merge, out, room);
    if (merge->state == MERGE_WAIT && status == MERGE_DONE)
        merge->state = MERGE_DONE;
    return merge->state == MERGE_WAIT ? status : merge->state;
}
