/*
 * apply_batch.c: rows become statements for many rows at once.
 *
 * Each table has up to three statements that fill: one that inserts, one that updates, one that deletes. Where the key is the
 * table's only unique index, rows of different locators do not get in each other's way, whatever their order, and all
 * three fill at once; a row that waits in one is sent before it is put into another, and an UPDATE of a row that waits
 * for an UPDATE of the same columns replaces it. Where there are other unique indexes the order counts, and only one fills. Between
 * tables there is no order: constraints between them are not checked while replicating.
 */
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "pgshunt/arena.h"
#include "pgshunt/wire.h"
#include "resharder/apply_internal.h"

#define PARAMETERS_MAX 16000            /* of a statement; the protocol has room for 65535 */
#define BATCH_BYTES (256 * 1024)        /* of a statement's values */
#define BATCHED_BYTES (2 * 1024 * 1024) /* of all that wait */
#define PREPARED_MAX 500                /* statements on the target */
#define REPLAN_MS 10000
#define REPLAN_ROWS 1024 /* a look whether it is time, so often */

const int apply_sizes[APPLY_SIZES] = {64, 16, 4, 1};

/* ---- shapes ---- */

static int rows_at_most(const struct apply_shape *shape)
{
    if (shape->kind >= APPLY_MOVE)
        return 1;
    int rows = shape->nparams ? PARAMETERS_MAX / shape->nparams : 1;
    if (shape->arrays && rows > apply_sizes[0])
        return rows < APPLY_ROWS ? rows : APPLY_ROWS;
    for (int i = 0; i < APPLY_SIZES; i++)
        if (apply_sizes[i] <= rows)
            return apply_sizes[i];
    return 1;
}

static bool sets_what_is_present(enum apply_kind kind)
{
    return kind != APPLY_INSERT && kind != APPLY_DELETE && kind != APPLY_DELETE_FULL;
}

static bool same_columns(const struct apply_relation *relation, const struct apply_shape *shape,
                         const struct pgoutput_tuple *row)
{
    if (!sets_what_is_present(shape->kind))
        return true;
    for (int i = 0; i < relation->ncolumns; i++)
        if (shape->present[i] != (row->values[i].kind != PGOUTPUT_UNCHANGED))
            return false;
    return true;
}

static bool has_arrays(const struct apply_relation *relation)
{
    for (int i = 0; i < relation->ncolumns; i++)
        if (!relation->columns[i].left_out && !relation->columns[i].array)
            return false;
    return true;
}

static struct apply_shape *new_shape(struct apply *apply, struct apply_relation *relation,
                                     enum apply_kind kind, const struct pgoutput_tuple *row,
                                     bool over)
{
    struct apply_shape *shape = arena_new(&relation->arena, struct apply_shape);
    shape->kind = kind;
    shape->over = over;
    shape->number = ++apply->shapes;
    shape->present = arena_array(&relation->arena, bool, relation->ncolumns + 1);
    for (int i = 0; i < relation->ncolumns; i++)
        shape->present[i] = sets_what_is_present(kind) && row->values[i].kind != PGOUTPUT_UNCHANGED;
    bool full = kind == APPLY_UPDATE_FULL || kind == APPLY_DELETE_FULL;
    for (int i = 0; i < relation->ncolumns; i++) {
        const struct apply_column *column = &relation->columns[i];
        shape->nparams += apply_is_parameter(relation, shape, i);
        if (kind != APPLY_INSERT)
            shape->nlocators += full ? !column->left_out : column->locator;
    }
    shape->nparams += shape->nlocators;
    shape->arrays = kind < APPLY_MOVE && has_arrays(relation);
    shape->max = rows_at_most(shape);
    shape->next = relation->shapes;
    relation->shapes = shape;
    return shape;
}

static struct apply_shape *find_shape(struct apply *apply, struct apply_relation *relation,
                                      enum apply_kind kind, const struct pgoutput_tuple *row)
{
    bool over = kind == APPLY_INSERT && (!apply->strict || apply->options.careful);
    for (struct apply_shape *shape = relation->shapes; shape; shape = shape->next)
        if (shape->kind == kind && shape->over == over && same_columns(relation, shape, row))
            return shape;
    return new_shape(apply, relation, kind, row, over);
}

static void name_of(const struct apply_shape *shape, int rows, char name[32])
{
    snprintf(name, 32, "s%d_%d", shape->number, rows);
}

static bool prepare(struct apply *apply, const struct apply_relation *relation,
                    struct apply_shape *shape, int size)
{
    char name[32];
    int rows = apply_sizes[size];
    size_t nparams = (size_t)rows * (size_t)shape->nparams;
    uint32_t *types = mem_alloc((nparams + 1) * sizeof *types);
    apply_sql_types(relation, shape, types);
    for (size_t i = (size_t)shape->nparams; i < nparams; i++)
        types[i] = types[i - (size_t)shape->nparams];
    apply_sql(relation, shape, rows, &apply->sql);
    name_of(shape, rows, name);
    bool good = pipe_prepare(&apply->target, name, buffer_head(&apply->sql), (int)nparams, types);
    free(types);
    shape->prepared[size] = good;
    apply->prepared++;
    return good;
}

static bool prepare_arrays(struct apply *apply, const struct apply_relation *relation,
                           struct apply_shape *shape)
{
    char name[32];
    uint32_t *types = mem_alloc(((size_t)shape->nparams + 1) * sizeof *types);
    apply_sql_array_types(relation, shape, types);
    apply_sql(relation, shape, 0, &apply->sql);
    name_of(shape, 0, name);
    bool good = pipe_prepare(&apply->target, name, buffer_head(&apply->sql), shape->nparams, types);
    free(types);
    shape->prepared[APPLY_SIZES] = good;
    apply->prepared++;
    return good;
}

/* ---- sending ---- */

static void count_missed(const struct pipe_expected *expected, const PGresult *result,
                         int64_t *missed)
{
    int64_t found = strtoll(PQcmdTuples((PGresult *)result), NULL, 10);
    if (expected->number > found) /* 0 where it does not matter */
        *missed += expected->number - found;
}

static void took_update(void *arg, const struct pipe_expected *expected, const PGresult *result)
{
    count_missed(expected, result, &((struct apply *)arg)->progress.missed_updates);
}

static void took_delete(void *arg, const struct pipe_expected *expected, const PGresult *result)
{
    count_missed(expected, result, &((struct apply *)arg)->progress.missed_deletes);
}

static struct pipe_expected expected_of(const struct apply *apply, enum apply_kind kind, int rows)
{
    struct pipe_expected expected = {.number = apply->strict ? rows : 0};
    if (kind == APPLY_DELETE || kind == APPLY_DELETE_FULL)
        expected.take = took_delete;
    else if (kind != APPLY_INSERT)
        expected.take = took_update;
    return expected;
}

static void put_array(const struct apply_batch *batch, size_t parameter, uint32_t type,
                      struct buffer *out)
{
    size_t nparams = (size_t)batch->shape->nparams;
    const struct apply_value *value = &batch->values[parameter];
    bool nulls = false;
    for (int i = 0; i < batch->count; i++)
        nulls = nulls || value[(size_t)i * nparams].length < 0;
    wire_put32(out, 1);
    wire_put32(out, nulls);
    wire_put32(out, type);
    wire_put32(out, batch->count);
    wire_put32(out, 1);
    for (int i = 0; i < batch->count; i++, value += nparams) {
        wire_put32(out, value->length);
        if (value->length > 0)
            buffer_append(out, buffer_head(&batch->bytes) + value->offset, (size_t)value->length);
    }
}

/* All rows of the batch, with an array for each column: one dimension, from 1. */
static bool send_arrays(struct apply *apply, const struct apply_relation *relation,
                        struct apply_batch *batch)
{
    struct apply_shape *shape = batch->shape;
    if (!shape->prepared[APPLY_SIZES] && !prepare_arrays(apply, relation, shape))
        return false;
    size_t nparams = (size_t)shape->nparams;
    struct buffer *out = &apply->values;
    uint32_t *types = mem_alloc(nparams * sizeof *types);
    size_t *offsets = mem_alloc((nparams + 1) * sizeof *offsets);
    apply_sql_types(relation, shape, types);
    buffer_clear(out);
    for (size_t p = 0; p < nparams; p++) {
        offsets[p] = buffer_length(out);
        put_array(batch, p, types[p], out);
    }
    offsets[nparams] = buffer_length(out);
    const char **values = mem_alloc(nparams * sizeof *values);
    int *numbers = mem_alloc(2 * nparams * sizeof *numbers), *formats = numbers + nparams;
    for (size_t p = 0; p < nparams; p++) {
        values[p] = buffer_head(out) + offsets[p];
        numbers[p] = (int)(offsets[p + 1] - offsets[p]);
        formats[p] = 1;
    }
    char name[32];
    name_of(shape, 0, name);
    struct pipe_parameters parameters = {shape->nparams, values, numbers, formats};
    struct pipe_expected expected = expected_of(apply, shape->kind, batch->count);
    bool good = pipe_execute(&apply->target, name, &parameters, &expected);
    free(types);
    free(offsets);
    free(values);
    free(numbers);
    return good;
}

/* `rows` of the batch, from the row `first`. */
static bool send_rows(struct apply *apply, const struct apply_relation *relation,
                      struct apply_batch *batch, int first, int size)
{
    struct apply_shape *shape = batch->shape;
    int rows = apply_sizes[size];
    size_t nparams = (size_t)rows * (size_t)shape->nparams;
    if (!shape->prepared[size] && !prepare(apply, relation, shape, size))
        return false;
    const char **values = mem_alloc((nparams + 1) * sizeof *values);
    int *numbers = mem_alloc((2 * nparams + 1) * sizeof *numbers), *formats = numbers + nparams;
    const struct apply_value *value = &batch->values[first * shape->nparams];
    for (size_t i = 0; i < nparams; i++, value++) {
        values[i] = value->length < 0 ? NULL : buffer_head(&batch->bytes) + value->offset;
        numbers[i] = value->length < 0 ? 0 : value->length;
        formats[i] = value->binary;
    }
    char name[32];
    name_of(shape, rows, name);
    struct pipe_parameters parameters = {(int)nparams, values, numbers, formats};
    struct pipe_expected expected = expected_of(apply, shape->kind, rows);
    bool good = pipe_execute(&apply->target, name, &parameters, &expected);
    free(values);
    free(numbers);
    return good;
}

static bool send_batch(struct apply *apply, const struct apply_relation *relation,
                       struct apply_batch *batch)
{
    bool good = true;
    int sent = 0, size = 0;
    if (batch->shape->arrays && !batch->texts && batch->count > 1) {
        good = send_arrays(apply, relation, batch);
        sent = batch->count;
    }
    while (sent < batch->count && good) {
        while (apply_sizes[size] > batch->count - sent || apply_sizes[size] > batch->shape->max)
            size++;
        good = send_rows(apply, relation, batch, sent, size);
        sent += apply_sizes[size];
    }
    size_t bytes = buffer_length(&batch->bytes);
    apply->batched -= bytes;
    batch->count = 0;
    batch->texts = false;
    memset(batch->index, 0, sizeof batch->index);
    if (batch->bytes.cap > BATCH_BYTES)
        buffer_release(&batch->bytes);
    else
        buffer_clear(&batch->bytes);
    return good || apply_pipe_failed(apply, &apply->target, "target");
}

bool apply_send_relation(struct apply *apply, struct apply_relation *relation)
{
    for (size_t i = 0; i < sizeof relation->batches / sizeof *relation->batches; i++)
        if (relation->batches[i].count && !send_batch(apply, relation, &relation->batches[i]))
            return false;
    return true;
}

bool apply_send_all(struct apply *apply)
{
    for (struct apply_relation *relation = apply->relations; relation; relation = relation->next)
        if (!apply_send_relation(apply, relation))
            return false;
    return true;
}

static void forget_prepared(struct apply *apply)
{
    for (struct apply_relation *relation = apply->relations; relation; relation = relation->next)
        for (struct apply_shape *shape = relation->shapes; shape; shape = shape->next)
            memset(shape->prepared, 0, sizeof shape->prepared);
    apply->prepared = 0;
}

/*
 * A plan made while a table was empty may read it whole, and nothing tells the server that it has grown: so plans are
 * made again when there may be twice as many rows, and every REPLAN_MS.
 */
bool apply_replan(struct apply *apply)
{
    int64_t rows = apply->progress.inserted + apply->progress.updated + apply->progress.deleted;
    bool good = true;
    if (apply->prepared > PREPARED_MAX) {
        forget_prepared(apply);
        good = pipe_run(&apply->target, "DEALLOCATE ALL", NULL) && apply_prepare_fixed(apply);
    } else if (rows > 2 * apply->replanned_rows ||
               (rows > apply->replanned_rows && db_clock_ms() - apply->replanned_ms > REPLAN_MS)) {
        good = pipe_run(&apply->target, "DISCARD PLANS", NULL);
        apply->replanned_ms = db_clock_ms();
        apply->replanned_rows = rows > 200 ? rows : 200;
    }
    return good || apply_pipe_failed(apply, &apply->target, "target");
}

/* ---- rows ---- */

static void put_value(struct apply_batch *batch, struct apply_value *place,
                      const struct pgoutput_value *value)
{
    place->binary = value->kind == PGOUTPUT_BINARY;
    batch->texts = batch->texts || (value->bytes && !place->binary);
    place->length = value->bytes ? (int)value->length : -1;
    place->offset = buffer_length(&batch->bytes);
    if (!value->bytes)
        return;
    buffer_append(&batch->bytes, value->bytes, value->length);
    buffer_append(&batch->bytes, "", 1);
}

static void grow(struct apply_batch *batch)
{
    int rows = batch->room ? 4 * batch->room : 4;
    batch->room = rows < batch->shape->max ? rows : batch->shape->max;
    batch->values =
        mem_realloc(batch->values, (size_t)batch->room * (size_t)(batch->shape->nparams + 1) *
                                       sizeof *batch->values);
}

/* The values of a row into its place of the batch. */
static void put_row(struct apply *apply, const struct apply_relation *relation,
                    struct apply_batch *batch, int index, const struct pgoutput_tuple *row,
                    const struct pgoutput_tuple *located)
{
    const struct apply_shape *shape = batch->shape;
    bool full = shape->kind == APPLY_UPDATE_FULL || shape->kind == APPLY_DELETE_FULL;
    struct apply_value *place = &batch->values[index * shape->nparams];
    size_t before = buffer_length(&batch->bytes);
    for (int i = 0; i < relation->ncolumns; i++)
        if (apply_is_parameter(relation, shape, i))
            put_value(batch, place++, &row->values[i]);
    for (int i = 0; i < relation->ncolumns && shape->kind != APPLY_INSERT; i++)
        if (full ? !relation->columns[i].left_out : relation->columns[i].locator)
            put_value(batch, place++, &located->values[i]);
    apply->batched += buffer_length(&batch->bytes) - before;
}

static uint64_t hash_locator(const struct apply_relation *relation,
                             const struct pgoutput_tuple *located, bool inserts)
{
    static _Thread_local uint64_t number;
    uint64_t hash = 1;
    if (inserts && !relation->nprimary)
        return ++number; /* no two are the same */
    for (int i = 0; i < relation->ncolumns; i++)
        if (inserts ? relation->columns[i].primary : relation->columns[i].locator)
            hash = XXH3_64bits_withSeed(located->values[i].bytes, located->values[i].length, hash);
    return hash;
}

static int find_hash(const struct apply_batch *batch, uint64_t hash)
{
    for (uint64_t at = hash; batch->index[at % APPLY_INDEX]; at++)
        if (batch->hashes[batch->index[at % APPLY_INDEX] - 1] == hash)
            return batch->index[at % APPLY_INDEX] - 1;
    return -1;
}

static void put_hash(struct apply_batch *batch, int place, uint64_t hash)
{
    uint64_t at = hash;
    while (batch->index[at % APPLY_INDEX])
        at++;
    batch->hashes[place] = hash;
    batch->index[at % APPLY_INDEX] = (uint16_t)(place + 1);
}

/* The row that waits there is this one, not only of the same hash. */
static bool is_row(const struct apply_relation *relation, const struct apply_batch *batch,
                   int index, const struct pgoutput_tuple *located)
{
    const struct apply_shape *shape = batch->shape;
    const struct apply_value *at = &batch->values[(index + 1) * shape->nparams - shape->nlocators];
    for (int i = 0; i < relation->ncolumns; i++) {
        const struct pgoutput_value *value = &located->values[i];
        if (!relation->columns[i].locator)
            continue;
        if (at->length != (int)value->length || !value->bytes ||
            memcmp(buffer_head(&batch->bytes) + at->offset, value->bytes, value->length) != 0)
            return false;
        at++;
    }
    return true;
}

/* Sends what has to be done before the row. Whether it replaces one: its place; -1: not; -2: failed. */
enum { NO_PLACE = -1, FAILED = -2 };
static int clear_way(struct apply *apply, struct apply_relation *relation,
                     struct apply_batch *batch, const struct pgoutput_tuple *located, uint64_t hash)
{
    for (size_t i = 0; i < sizeof relation->batches / sizeof *relation->batches; i++) {
        struct apply_batch *other = &relation->batches[i];
        int place = other->count ? find_hash(other, hash) : -1;
        bool in_the_way = other == batch ? place >= 0 : !relation->only_key || place >= 0;
        if (!other->count || !in_the_way)
            continue;
        if (other == batch && relation->only_key && batch->shape->kind == APPLY_UPDATE &&
            is_row(relation, batch, place, located))
            return place;
        if (!send_batch(apply, relation, other))
            return FAILED;
    }
    return NO_PLACE;
}

static bool is_full(const struct apply_batch *batch)
{
    return batch->count == batch->shape->max || buffer_length(&batch->bytes) > BATCH_BYTES;
}

static bool begin_batch(struct apply *apply, struct apply_relation *relation,
                        struct apply_batch *batch, struct apply_shape *shape)
{
    if (batch->shape == shape)
        return true;
    if (batch->count && !send_batch(apply, relation, batch))
        return false;
    batch->shape = shape;
    batch->room = 0;
    return true;
}

static bool put_batched(struct apply *apply, struct apply_relation *relation,
                        struct apply_shape *shape, const struct pgoutput_tuple *row,
                        const struct pgoutput_tuple *located)
{
    struct apply_batch *batch = &relation->batches[shape->kind];
    uint64_t hash = hash_locator(relation, located, shape->kind == APPLY_INSERT);
    if (!begin_batch(apply, relation, batch, shape))
        return false;
    int place = clear_way(apply, relation, batch, located, hash);
    if (place == FAILED)
        return false;
    if (place == NO_PLACE) {
        if (batch->count == batch->room)
            grow(batch);
        place = batch->count++;
        put_hash(batch, place, hash);
    }
    put_row(apply, relation, batch, place, row, located);
    if (is_full(batch) && !send_batch(apply, relation, batch))
        return false;
    return apply->batched < BATCHED_BYTES || apply_send_all(apply);
}

/* A statement of its own, behind all that waits. */
static bool put_alone(struct apply *apply, struct apply_relation *relation,
                      struct apply_shape *shape, const struct pgoutput_tuple *row,
                      const struct pgoutput_tuple *located)
{
    struct apply_batch batch = {.shape = shape};
    if (!apply_send_relation(apply, relation))
        return false;
    grow(&batch);
    put_row(apply, relation, &batch, 0, row, located);
    batch.count = 1;
    bool good = send_batch(apply, relation, &batch);
    buffer_release(&batch.bytes);
    free(batch.values);
    return good;
}

bool apply_put(struct apply *apply, struct apply_relation *relation, enum apply_kind kind,
               const struct pgoutput_tuple *row, const struct pgoutput_tuple *located)
{
    struct apply_shape *shape = find_shape(apply, relation, kind, row);
    if (!apply_open_transaction(apply))
        return false;
    if (++apply->rows % REPLAN_ROWS == 0 && !apply_replan(apply))
        return false;
    if (sets_what_is_present(kind) && shape->nparams == shape->nlocators)
        return true; /* nothing to be set */
    /* Rows without a locator's index cannot be told apart while they wait. */
    bool alone = kind >= APPLY_MOVE || (kind != APPLY_INSERT && !relation->nlocators);
    return alone ? put_alone(apply, relation, shape, row, located)
                 : put_batched(apply, relation, shape, row, located);
}
