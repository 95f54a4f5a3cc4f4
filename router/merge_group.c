/* merge_group.c: groups put together from the shards' partial groups, and their aggregates. */
#include "router/merge_internal.h"

#include <stdlib.h>

#include <xxhash.h>

#define HASH_FUNCTION(key, length, hash) (hash) = (unsigned)XXH3_64bits((key), (length))
#define uthash_malloc(size) mem_alloc(size)
#include <uthash.h>

/* The least or greatest value so far; `bytes` is owned. */
struct best {
    char *bytes;
    int32_t length; /* -1: NULL, no value yet */
    int32_t capacity;
    struct pg_key key; /* of it, pointing into bytes */
};

struct aggregate {
    union {
        struct pg_sum sum; /* COUNT, SUM, AVG */
        struct best best;  /* MIN, MAX */
    };
    struct pg_sum count; /* AVG */
};

/* One group. Itself, its key and its row live in merge->arena; its aggregates own memory. */
struct group {
    UT_hash_handle hh;
    const char *row; /* body of the first row: values of AGGREGATE_NONE; NULL: no row came */
    size_t row_length;
    struct merge_row result;       /* finished row, where the groups are sorted */
    struct pg_key *sort_keys;      /* of it */
    struct aggregate aggregates[]; /* one per column of the spec */
};

static enum aggregate_kind kind_of(const struct merge *merge, int column)
{
    return column < merge->spec->ncolumns ? merge->spec->columns[column].aggregate : AGGREGATE_NONE;
}

/* ---- what the spec asks of the columns ---- */

/*
 * avg(real) is double precision, but sum(real) is real: adding those would lose digits, so there each
 * shard's average is taken times its count.
 */
static bool averages_are_weighted(const struct merge *merge, int column)
{
    int sum_column = merge->spec->columns[column].sum_column;
    return merge->description.fields[sum_column].oid == OID_FLOAT4;
}

static void init_sum(const struct merge *merge, int column, struct pg_sum *sum)
{
    const struct merge_field *field = &merge->description.fields[column];
    pg_sum_init(sum, field->oid, field->format);
}

static bool check_sum(struct merge *merge, int column, const char *what)
{
    struct pg_sum sum;
    const struct merge_field *field = &merge->description.fields[column];
    return pg_sum_init(&sum, field->oid, field->format) || merge_fail_type(merge, column, what);
}

static bool check_count(struct merge *merge, int column)
{
    return merge->description.fields[column].oid == OID_INT8 ||
           merge_fail_type(merge, column, "count");
}

static bool check_average(struct merge *merge, int column)
{
    const struct merge_column *spec = &merge->spec->columns[column];
    const struct merge_field *fields = merge->description.fields;
    int count = merge->description.nfields;
    if (spec->sum_column < 0 || spec->sum_column >= count || spec->count_column < 0 ||
        spec->count_column >= count)
        return merge_fail_spec(merge, "an average of columns out of range");
    if (!pg_average_known(fields[column].oid, fields[spec->sum_column].oid))
        return merge_fail_type(merge, column, "avg");
    return check_sum(merge, spec->sum_column, "avg") && check_count(merge, spec->count_column);
}

static bool prepare_column(struct merge *merge, int column)
{
    switch (kind_of(merge, column)) {
    case AGGREGATE_NONE:
        return true;
    case AGGREGATE_COUNT:
        return check_count(merge, column);
    case AGGREGATE_SUM:
        return check_sum(merge, column, "sum");
    case AGGREGATE_MIN:
    case AGGREGATE_MAX:
        return merge_order(merge, column, &merge->best_orders[column], "min or max");
    case AGGREGATE_AVG:
        return check_average(merge, column);
    }
    return merge_fail_spec(merge, "an unknown aggregate");
}

static bool prepare_key(struct merge *merge, int index)
{
    int column = merge->spec->group_keys[index];
    if (column < 0 || column >= merge->description.nfields)
        return merge_fail_spec(merge, "a group key out of range");
    const struct merge_field *field = &merge->description.fields[column];
    return pg_order_init_equal(&merge->group_orders[index], field->oid, field->size,
                               field->format) ||
           merge_fail_type(merge, column, "GROUP BY");
}

bool merge_prepare_groups(struct merge *merge)
{
    const struct merge_spec *spec = merge->spec;
    if (spec->ncolumns > merge->description.nfields)
        return merge_fail_spec(merge, "more aggregates than columns");
    merge->best_orders = arena_array(&merge->arena, struct pg_order, spec->ncolumns);
    merge->group_orders = arena_array(&merge->arena, struct pg_order, spec->ngroup_keys);
    for (int i = 0; i < spec->ncolumns; i++)
        if (!prepare_column(merge, i))
            return false;
    for (int i = 0; i < spec->ngroup_keys; i++)
        if (!prepare_key(merge, i))
            return false;
    return true;
}

/* ---- groups ---- */

static void init_aggregate(const struct merge *merge, int column, struct aggregate *aggregate)
{
    switch (kind_of(merge, column)) {
    case AGGREGATE_COUNT:
    case AGGREGATE_SUM:
        init_sum(merge, column, &aggregate->sum);
        break;
    case AGGREGATE_MIN:
    case AGGREGATE_MAX:
        aggregate->best.length = -1;
        break;
    case AGGREGATE_AVG:
        init_sum(merge,
                 averages_are_weighted(merge, column) ? column
                                                      : merge->spec->columns[column].sum_column,
                 &aggregate->sum);
        init_sum(merge, merge->spec->columns[column].count_column, &aggregate->count);
        break;
    case AGGREGATE_NONE:
        break;
    }
}

static void free_group(const struct merge *merge, struct group *group)
{
    for (int i = 0; i < merge->spec->ncolumns; i++) {
        enum aggregate_kind kind = kind_of(merge, i);
        if (kind == AGGREGATE_MIN || kind == AGGREGATE_MAX)
            free(group->aggregates[i].best.bytes);
        else if (kind != AGGREGATE_NONE)
            pg_sum_free(&group->aggregates[i].sum);
    }
}

void merge_free_groups(struct merge *merge)
{
    struct group *group, *next;
    if (merge->sorted) { /* the hash is gone already */
        for (long i = merge->next_group; i < merge->ngroups; i++)
            free_group(merge, merge->sorted[i]);
    }
    HASH_ITER(hh, merge->groups, group, next)
    {
        HASH_DEL(merge->groups, group);
        free_group(merge, group);
    }
    free(merge->sorted);
    merge->sorted = NULL;
}

static struct group *new_group(struct merge *merge)
{
    int columns = merge->spec->ncolumns;
    struct group *group =
        arena_alloc(&merge->arena, sizeof *group + sizeof(struct aggregate) * (size_t)columns);
    for (int i = 0; i < columns; i++)
        init_aggregate(merge, i, &group->aggregates[i]);
    merge->ngroups++;
    return group;
}

static bool put_group_key(struct merge *merge)
{
    buffer_clear(&merge->scratch);
    buffer_reserve(&merge->scratch, 1); /* a key of no columns has an address too */
    for (int i = 0; i < merge->spec->ngroup_keys; i++)
        if (!merge_put_canonical(merge, &merge->group_orders[i], merge->spec->group_keys[i],
                                 &merge->scratch))
            return false;
    return true;
}

/* The group of the row split last; made if it is new. NULL: failed. */
static struct group *find_group(struct merge *merge, const struct merge_row *row)
{
    if (!put_group_key(merge))
        return NULL;
    const char *key = buffer_head(&merge->scratch);
    size_t length = buffer_length(&merge->scratch);
    struct group *group;
    HASH_FIND(hh, merge->groups, key, length, group);
    if (group)
        return group;
    if (merge->ngroups >= merge->max_groups) {
        merge_fail(merge, "53400",
                   "Raise limits.max_groups, or keep the statement to one shard by its key.",
                   "too many groups across shards: more than %ld", merge->max_groups);
        return NULL;
    }
    group = new_group(merge);
    char *copy = arena_alloc(&merge->arena, length + row->length);
    memcpy(copy, key, length);
    memcpy(copy + length, row->body, row->length);
    group->row = copy + length;
    group->row_length = row->length;
    HASH_ADD_KEYPTR(hh, merge->groups, copy, length, group);
    return group;
}

/* ---- adding a row ---- */

static bool check_status(struct merge *merge, enum pg_status status, int column, int shard,
                         uint32_t oid)
{
    if (status == PG_OK)
        return true;
    if (status == PG_MALFORMED)
        return merge_fail_value(merge, column, shard);
    return merge_fail(merge, pg_sum_overflow_state(oid),
                      "Cast the argument of the aggregate to numeric.", "%s",
                      pg_sum_overflow_message(oid));
}

static bool add_value(struct merge *merge, struct pg_sum *sum, int column, int shard)
{
    const struct merge_value *value = &merge->values[column];
    return check_status(merge, pg_sum_add(sum, value->bytes, value->length), column, shard,
                        sum->oid);
}

static bool add_best(struct merge *merge, struct best *best, int column, int shard)
{
    const struct merge_value *value = &merge->values[column];
    const struct pg_order *order = &merge->best_orders[column];
    struct pg_key key;
    if (value->length < 0)
        return true;
    if (!pg_order_decode(order, value->bytes, value->length, &key))
        return merge_fail_value(merge, column, shard);
    if (best->length >= 0) {
        int relation = pg_order_compare(order, &key, &best->key);
        if (kind_of(merge, column) == AGGREGATE_MIN ? relation >= 0 : relation <= 0)
            return true;
    }
    if (value->length > best->capacity || !best->bytes) {
        best->capacity = value->length;
        best->bytes = mem_realloc(best->bytes, (size_t)value->length);
    }
    memcpy(best->bytes, value->bytes, (size_t)value->length);
    best->length = value->length;
    return pg_order_decode(order, best->bytes, best->length, &best->key);
}

static bool add_average(struct merge *merge, struct aggregate *aggregate, int column, int shard)
{
    const struct merge_column *spec = &merge->spec->columns[column];
    if (!averages_are_weighted(merge, column))
        return add_value(merge, &aggregate->sum, spec->sum_column, shard) &&
               add_value(merge, &aggregate->count, spec->count_column, shard);
    const struct merge_value *value = &merge->values[column];
    int64_t before = aggregate->count.integer;
    if (!add_value(merge, &aggregate->count, spec->count_column, shard))
        return false;
    int64_t count = (int64_t)((uint64_t)aggregate->count.integer - (uint64_t)before);
    return check_status(merge,
                        pg_sum_add_weighted(&aggregate->sum, value->bytes, value->length, count),
                        column, shard, OID_FLOAT8);
}

static bool add_row(struct merge *merge, const struct merge_row *row, int shard)
{
    struct group *group = find_group(merge, row);
    if (!group)
        return false;
    for (int i = 0; i < merge->spec->ncolumns; i++) {
        struct aggregate *aggregate = &group->aggregates[i];
        bool added = true;
        switch (kind_of(merge, i)) {
        case AGGREGATE_NONE:
            break;
        case AGGREGATE_COUNT:
        case AGGREGATE_SUM:
            added = add_value(merge, &aggregate->sum, i, shard);
            break;
        case AGGREGATE_MIN:
        case AGGREGATE_MAX:
            added = add_best(merge, &aggregate->best, i, shard);
            break;
        case AGGREGATE_AVG:
            added = add_average(merge, aggregate, i, shard);
            break;
        }
        if (!added)
            return false;
    }
    return true;
}

/* ---- results ---- */

static void put_bytes(struct buffer *out, const char *bytes, int32_t length)
{
    char size[4];
    wire_set32(size, (uint32_t)length);
    buffer_append(out, size, sizeof size);
    if (length > 0)
        buffer_append(out, bytes, (size_t)length);
}

static bool put_result(struct merge *merge, struct group *group, int column, struct buffer *out)
{
    struct aggregate *aggregate = &group->aggregates[column];
    const struct merge_value *value = &merge->values[column];
    enum pg_status status = PG_OK;
    switch (kind_of(merge, column)) {
    case AGGREGATE_NONE:
        put_bytes(out, value->bytes, group->row ? value->length : -1);
        return true;
    case AGGREGATE_COUNT:
        aggregate->sum.any = true; /* the count of nothing is 0 */
        status = pg_sum_append(&aggregate->sum, out);
        break;
    case AGGREGATE_SUM:
        status = pg_sum_append(&aggregate->sum, out);
        break;
    case AGGREGATE_MIN:
    case AGGREGATE_MAX:
        put_bytes(out, aggregate->best.bytes, aggregate->best.length);
        return true;
    case AGGREGATE_AVG:
        status = pg_average_append(&aggregate->sum, aggregate->count.integer,
                                   merge->description.fields[column].format, out);
        break;
    }
    return check_status(merge, status, column, -1, merge->description.fields[column].oid);
}

/* Puts the finished row of a group into merge->scratch. */
static bool build_row(struct merge *merge, struct group *group, struct merge_row *row)
{
    struct buffer *out = &merge->scratch;
    int count = merge->description.nfields;
    size_t visible_end;
    if (group->row && !merge_split(merge, group->row, group->row_length, &visible_end, -1))
        return false;
    buffer_clear(out);
    char columns[2] = {(char)(count >> 8), (char)count};
    buffer_append(out, columns, sizeof columns);
    row->visible_end = sizeof columns;
    for (int i = 0; i < count; i++) {
        if (!put_result(merge, group, i, out))
            return false;
        if (i + 1 == merge->visible)
            row->visible_end = buffer_length(out);
    }
    row->body = buffer_head(out);
    row->length = buffer_length(out);
    return true;
}

/* A finished row of its own and its sort keys, for sorting. */
static bool build_sortable(struct merge *merge, struct group *group)
{
    struct merge_row row;
    size_t visible_end;
    if (!build_row(merge, group, &row))
        return false;
    char *copy = arena_alloc(&merge->arena, row.length);
    memcpy(copy, row.body, row.length);
    row.body = copy;
    group->result = row;
    group->sort_keys = arena_array(&merge->arena, struct pg_key, merge->spec->nsort);
    return merge_split(merge, row.body, row.length, &visible_end, -1) &&
           merge_decode_keys(merge, group->sort_keys, -1);
}

static int compare_groups(const void *a, const void *b, void *data)
{
    const struct group *const *left = a, *const *right = b;
    return merge_compare_keys(data, (*left)->sort_keys, (*right)->sort_keys);
}

/* All rows are in: lists the groups in the order they will be written. */
static bool finish_groups(struct merge *merge)
{
    struct group *group, *next;
    if (!merge->groups &&
        !merge->spec->ngroup_keys) { /* aggregates without GROUP BY: always a row */
        group = new_group(merge);
        HASH_ADD_KEYPTR(hh, merge->groups, "", 0, group);
    }
    long count = 0;
    struct group **sorted = mem_alloc(sizeof *sorted * (size_t)(merge->ngroups + 1));
    HASH_ITER(hh, merge->groups, group, next)
    sorted[count++] = group;
    HASH_CLEAR(hh, merge->groups);
    merge->sorted = sorted;
    if (!merge->spec->nsort)
        return true;
    for (long i = 0; i < count; i++)
        if (!build_sortable(merge, sorted[i]))
            return false;
    qsort_r(sorted, (size_t)count, sizeof *sorted, compare_groups, merge);
    return true;
}

static enum load collect(struct merge *merge)
{
    enum load result = LOAD_END;
    for (int i = 0; i < merge->nshards; i++) {
        enum load load = merge_load(merge, i);
        for (; load == LOAD_NEW; load = merge_load(merge, i)) {
            if (!add_row(merge, &merge->streams[i].head, i))
                return LOAD_FAILED;
            merge->streams[i].emitted = true;
        }
        if (load == LOAD_FAILED)
            return LOAD_FAILED;
        if (load == LOAD_WAIT)
            result = LOAD_WAIT;
    }
    return result;
}

static bool write_group(struct merge *merge, struct buffer *out)
{
    struct group *group = merge->sorted[merge->next_group];
    struct merge_row row = group->result;
    bool built = row.body || build_row(merge, group, &row);
    free_group(merge, group);
    merge->next_group++;
    return built && merge_emit(merge, &row, out);
}

enum merge_status merge_run_groups(struct merge *merge, struct buffer *out, size_t room)
{
    size_t start = buffer_length(out);
    if (!merge->sorted) {
        enum load load = collect(merge);
        if (load != LOAD_END)
            return load == LOAD_FAILED ? MERGE_FAILED : MERGE_WAIT;
        if (!finish_groups(merge))
            return MERGE_FAILED;
    }
    while (merge->next_group < merge->ngroups) {
        if (!write_group(merge, out))
            return MERGE_FAILED;
        if (merge->state != MERGE_WAIT)
            return merge->state;
        if (buffer_length(out) - start >= room && merge->next_group < merge->ngroups)
            return MERGE_FULL;
    }
    return MERGE_DONE;
}
