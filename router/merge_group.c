/* merge_group.c: groups put together from the shards' partial groups, and their aggregates. */
#include "router/merge_internal.h"

#include <stdlib.h>

/* Rows of one shard looked at together. */
#define AHEAD 16

/* The least or greatest value so far; `bytes` is owned. */
struct best {
    char *bytes;
    int32_t length; /* -1: NULL, no value yet */
    int32_t capacity;
    struct pg_key key; /* of it, pointing into bytes */
};

union aggregate {
    struct pg_sum sum; /* COUNT, SUM; AVG: two, its sum and its count */
    struct best best;  /* MIN, MAX */
};

/* A finished row, where the groups are sorted. */
struct sortable {
    struct merge_row row;
    struct pg_key keys[];
};

/* One group, its key and its row, side by side in merge->arena; its aggregates own memory. */
struct group {
    struct keyset_item item;
    struct group *next;
    const char *row; /* body of the first row: values of AGGREGATE_NONE; NULL: no row came */
    size_t row_length;
    struct sortable *result;
    union aggregate aggregates[];
};

static enum aggregate_kind kind_of(const struct merge *merge, int column)
{
    return column < merge->spec->ncolumns ? merge->spec->columns[column].aggregate : AGGREGATE_NONE;
}

static int slots_of(enum aggregate_kind kind)
{
    return kind == AGGREGATE_NONE ? 0 : kind == AGGREGATE_AVG ? 2 : 1;
}

/* Of a column that is an aggregate. */
static union aggregate *aggregate_of(const struct merge *merge, struct group *group, int column)
{
    return &group->aggregates[merge->slots[column]];
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
    merge->slots = arena_array(&merge->arena, int, spec->ncolumns);
    for (int i = 0; i < spec->ncolumns; i++) {
        if (!prepare_column(merge, i))
            return false;
        merge->slots[i] = merge->nslots;
        merge->nslots += slots_of(kind_of(merge, i));
    }
    for (int i = 0; i < spec->ngroup_keys; i++)
        if (!prepare_key(merge, i))
            return false;
    return true;
}

/* ---- groups ---- */

static void init_aggregate(const struct merge *merge, int column, union aggregate *aggregate)
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
        init_sum(merge, merge->spec->columns[column].count_column, &aggregate[1].sum);
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
            free(aggregate_of(merge, group, i)->best.bytes);
        else if (kind != AGGREGATE_NONE)
            pg_sum_free(&aggregate_of(merge, group, i)->sum);
    }
}

void merge_free_groups(struct merge *merge)
{
    if (merge->sorted) { /* those before are freed */
        for (long i = merge->next_group; i < merge->ngroups; i++)
            free_group(merge, merge->sorted[i]);
    } else {
        for (struct group *group = merge->first_group; group; group = group->next)
            free_group(merge, group);
    }
    keyset_free(&merge->groups);
    free(merge->sorted);
    merge->sorted = NULL;
    merge->first_group = NULL;
}

/* With the bytes of its key and of its first row (NULL: none) behind it. */
static struct group *new_group(struct merge *merge, const char *key, size_t length,
                               const struct merge_row *row)
{
    size_t size = sizeof(struct group) + sizeof(union aggregate) * (size_t)merge->nslots;
    struct group *group = arena_alloc(&merge->arena, size + length + (row ? row->length : 0));
    char *bytes = (char *)group + size;
    memcpy(bytes, key, length);
    group->item = (struct keyset_item){bytes, length};
    if (row) {
        memcpy(bytes + length, row->body, row->length);
        group->row = bytes + length;
        group->row_length = row->length;
    }
    for (int i = 0; i < merge->spec->ncolumns; i++)
        init_aggregate(merge, i, aggregate_of(merge, group, i));
    *(merge->last_group ? &merge->last_group->next : &merge->first_group) = group;
    merge->last_group = group;
    merge->ngroups++;
    return group;
}

/* Of the row split last, behind what is in `scratch`. */
static bool put_group_key(struct merge *merge)
{
    buffer_reserve(&merge->scratch, 1); /* a key of no columns has an address too */
    for (int i = 0; i < merge->spec->ngroup_keys; i++)
        if (!merge_put_canonical(merge, &merge->group_orders[i], merge->spec->group_keys[i],
                                 &merge->scratch))
            return false;
    return true;
}

/* The keys of the rows that come next from one shard. Among millions of groups each look-up waits for memory:
 * they wait together. */
struct ahead {
    int count;
    int at; /* the next one's */
    struct {
        uint64_t hash;
        size_t offset, length; /* of the key in merge->scratch */
    } keys[AHEAD];
};

static bool look_ahead(struct merge *merge, int shard, struct ahead *ahead)
{
    const struct stream *stream = &merge->streams[shard];
    ahead->count = ahead->at = 0;
    buffer_clear(&merge->scratch);
    if (!buffer_length(&stream->rows))
        return true;
    const char *end = buffer_head(&stream->rows) + buffer_length(&stream->rows);
    const char *at = buffer_head(&stream->rows) + (stream->has_head ? 4 + stream->head.length : 0);
    for (; at < end && ahead->count < AHEAD; at += 4 + wire_get32(at)) {
        size_t visible_end, start = buffer_length(&merge->scratch);
        if (!merge_split(merge, at + 4, wire_get32(at), &visible_end, shard) ||
            !put_group_key(merge))
            return false;
        size_t length = buffer_length(&merge->scratch) - start;
        uint64_t hash = keyset_hash(buffer_head(&merge->scratch) + start, length);
        ahead->keys[ahead->count].hash = hash;
        ahead->keys[ahead->count].offset = start;
        ahead->keys[ahead->count++].length = length;
        keyset_want_slot(&merge->groups, hash);
    }
    for (int i = 0; i < ahead->count; i++)
        keyset_want_item(&merge->groups, ahead->keys[i].hash);
    return true;
}

/* The group of a row, whose key comes next; made if it is new. NULL: failed. */
static struct group *find_group(struct merge *merge, const struct merge_row *row,
                                struct ahead *ahead)
{
    uint64_t hash = ahead->keys[ahead->at].hash;
    const char *key = buffer_head(&merge->scratch) + ahead->keys[ahead->at].offset;
    size_t length = ahead->keys[ahead->at++].length;
    struct keyset_item *item = keyset_find(&merge->groups, hash, key, length);
    if (item)
        return (struct group *)item;
    if (merge->ngroups >= merge->max_groups) {
        merge_fail(merge, "53400",
                   "Raise limits.max_groups, or keep the statement to one shard by its key.",
                   "too many groups across shards: more than %ld", merge->max_groups);
        return NULL;
    }
    struct group *group = new_group(merge, key, length, row);
    keyset_add(&merge->groups, hash, &group->item);
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

static bool add_average(struct merge *merge, union aggregate *aggregate, int column, int shard)
{
    const struct merge_column *spec = &merge->spec->columns[column];
    struct pg_sum *count = &aggregate[1].sum;
    if (!averages_are_weighted(merge, column))
        return add_value(merge, &aggregate->sum, spec->sum_column, shard) &&
               add_value(merge, count, spec->count_column, shard);
    const struct merge_value *value = &merge->values[column];
    int64_t before = count->integer;
    if (!add_value(merge, count, spec->count_column, shard))
        return false;
    int64_t more = (int64_t)((uint64_t)count->integer - (uint64_t)before);
    return check_status(merge,
                        pg_sum_add_weighted(&aggregate->sum, value->bytes, value->length, more),
                        column, shard, OID_FLOAT8);
}

static bool add_row(struct merge *merge, const struct merge_row *row, int shard,
                    struct ahead *ahead)
{
    struct group *group = find_group(merge, row, ahead);
    if (!group)
        return false;
    for (int i = 0; i < merge->spec->ncolumns; i++) {
        union aggregate *aggregate = aggregate_of(merge, group, i);
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
    union aggregate *aggregate = aggregate_of(merge, group, column);
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
        status = pg_average_append(&aggregate->sum, aggregate[1].sum.integer,
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
    size_t size = sizeof *group->result + sizeof(struct pg_key) * (size_t)merge->spec->nsort;
    group->result = arena_alloc(&merge->arena, size + row.length);
    memcpy((char *)group->result + size, row.body, row.length);
    row.body = (char *)group->result + size;
    group->result->row = row;
    return merge_split(merge, row.body, row.length, &visible_end, -1) &&
           merge_decode_keys(merge, group->result->keys, -1);
}

static int compare_groups(const void *a, const void *b, void *data)
{
    const struct group *const *left = a, *const *right = b;
    return merge_compare_keys(data, (*left)->result->keys, (*right)->result->keys);
}

/* All rows are in: lists the groups in the order they will be written. */
static bool finish_groups(struct merge *merge)
{
    if (!merge->ngroups &&
        !merge->spec->ngroup_keys) /* aggregates without GROUP BY: always a row */
        new_group(merge, "", 0, NULL);
    keyset_free(&merge->groups);
    long count = 0;
    merge->sorted = mem_alloc(sizeof *merge->sorted * (size_t)(merge->ngroups + 1));
    for (struct group *group = merge->first_group; group; group = group->next)
        merge->sorted[count++] = group;
    if (!merge->spec->nsort)
        return true;
    for (long i = 0; i < count; i++)
        if (!build_sortable(merge, merge->sorted[i]))
            return false;
    qsort_r(merge->sorted, (size_t)count, sizeof *merge->sorted, compare_groups, merge);
    return true;
}

/* All that is there of one shard. */
static enum load collect_shard(struct merge *merge, int shard)
{
    struct ahead ahead = {0};
    for (;;) {
        if (ahead.at == ahead.count && !look_ahead(merge, shard, &ahead))
            return LOAD_FAILED;
        enum load load = merge_load(merge, shard);
        if (load != LOAD_NEW)
            return load;
        if (!add_row(merge, &merge->streams[shard].head, shard, &ahead))
            return LOAD_FAILED;
        merge->streams[shard].emitted = true;
    }
}

static enum load collect(struct merge *merge)
{
    enum load result = LOAD_END;
    for (int i = 0; i < merge->nshards; i++) {
        enum load load = collect_shard(merge, i);
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
    struct merge_row row;
    if (group->result)
        row = group->result->row;
    bool built = group->result || build_row(merge, group, &row);
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
