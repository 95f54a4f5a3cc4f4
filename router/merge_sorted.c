/* merge_sorted.c: the k-way merge by a heap of streams, rows passed on without order, and DISTINCT. */
#include "router/merge_internal.h"

#include <stdlib.h>

/* ---- the heap ---- */

/* Equal rows come in the order of the shards, so that the result is the same every time. */
static bool before(const struct merge *merge, int a, int b)
{
    int order = merge_compare_keys(merge, merge->streams[a].keys, merge->streams[b].keys);
    return order ? order < 0 : a < b;
}

static void sift_down(struct merge *merge, int at)
{
    int *heap = merge->heap, moving = heap[at];
    for (;;) {
        int child = at * 2 + 1;
        if (child >= merge->heap_size)
            break;
        if (child + 1 < merge->heap_size && before(merge, heap[child + 1], heap[child]))
            child++;
        if (before(merge, moving, heap[child]))
            break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = moving;
}

/* Once every stream has a head, or has ended without one. */
static enum load build_heap(struct merge *merge)
{
    bool waiting = false;
    merge->heap_size = 0;
    for (int i = 0; i < merge->nshards; i++) {
        enum load load = merge_load(merge, i);
        if (load == LOAD_FAILED)
            return LOAD_FAILED;
        waiting |= load == LOAD_WAIT;
        if (load == LOAD_SAME || load == LOAD_NEW)
            merge->heap[merge->heap_size++] = i;
    }
    if (waiting)
        return LOAD_WAIT;
    for (int i = merge->heap_size / 2 - 1; i >= 0; i--)
        sift_down(merge, i);
    merge->heap_ready = true;
    return LOAD_NEW;
}

static enum load load_top(struct merge *merge)
{
    enum load load = merge_load(merge, merge->heap[0]);
    if (load == LOAD_END)
        merge->heap[0] = merge->heap[--merge->heap_size];
    if (load == LOAD_END || load == LOAD_NEW) {
        if (merge->heap_size)
            sift_down(merge, 0);
    }
    return load;
}

enum merge_status merge_run_sorted(struct merge *merge, struct buffer *out, size_t room)
{
    size_t start = buffer_length(out);
    if (!merge->heap_ready) {
        enum load load = build_heap(merge);
        if (load != LOAD_NEW)
            return load == LOAD_FAILED ? MERGE_FAILED : MERGE_WAIT;
    }
    while (merge->heap_size) {
        enum load load = load_top(merge);
        if (load == LOAD_FAILED)
            return MERGE_FAILED;
        if (load == LOAD_WAIT)
            return MERGE_WAIT;
        if (load != LOAD_SAME)
            continue;
        struct stream *stream = &merge->streams[merge->heap[0]];
        if (!merge_emit(merge, &stream->head, out))
            return MERGE_FAILED;
        stream->emitted = true;
        if (merge->state != MERGE_WAIT)
            return merge->state;
        if (buffer_length(out) - start >= room)
            return MERGE_FULL;
    }
    return MERGE_DONE;
}

/* ---- in an order that was known before ---- */

static enum merge_status fail_rows(struct merge *merge, int shard, const char *what)
{
    merge_fail(merge, "XX000",
               "A trigger or rule on the table may leave out or add rows: insert the rows of each "
               "shard with a statement of their own, or without RETURNING.",
               "shard %d returned %s rows than it was given", shard, what);
    return MERGE_FAILED;
}

/* Once all rows are out: no shard may have another one. */
static enum merge_status end_of_list(struct merge *merge)
{
    bool waiting = false;
    for (int i = 0; i < merge->nshards; i++) {
        enum load load = merge_load(merge, i);
        if (load == LOAD_FAILED)
            return MERGE_FAILED;
        if (load == LOAD_NEW || load == LOAD_SAME)
            return fail_rows(merge, i, "more");
        waiting |= load == LOAD_WAIT;
    }
    return waiting ? MERGE_WAIT : MERGE_DONE;
}

enum merge_status merge_run_listed(struct merge *merge, struct buffer *out, size_t room)
{
    const struct merge_spec *spec = merge->spec;
    size_t start = buffer_length(out);
    while (merge->next_source < spec->nrows) {
        int shard = spec->row_source[merge->next_source];
        if (shard >= merge->nshards) {
            merge_fail_spec(merge, "a row of a shard that takes no part");
            return MERGE_FAILED;
        }
        enum load load = merge_load(merge, shard);
        if (load == LOAD_FAILED)
            return MERGE_FAILED;
        if (load == LOAD_WAIT)
            return MERGE_WAIT;
        if (load == LOAD_END)
            return fail_rows(merge, shard, "fewer");
        if (!merge_emit(merge, &merge->streams[shard].head, out))
            return MERGE_FAILED;
        merge->streams[shard].emitted = true;
        merge->next_source++;
        if (merge->state != MERGE_WAIT)
            return merge->state;
        if (buffer_length(out) - start >= room)
            return MERGE_FULL;
    }
    return end_of_list(merge);
}

/* ---- without order ---- */

enum merge_status merge_run_plain(struct merge *merge, struct buffer *out, size_t room)
{
    size_t start = buffer_length(out);
    bool waiting = false;
    for (int i = 0; i < merge->nshards; i++) {
        enum load load = merge_load(merge, i);
        for (; load == LOAD_NEW || load == LOAD_SAME; load = merge_load(merge, i)) {
            if (!merge_emit(merge, &merge->streams[i].head, out))
                return MERGE_FAILED;
            merge->streams[i].emitted = true;
            if (merge->state != MERGE_WAIT)
                return merge->state;
            if (buffer_length(out) - start >= room)
                return MERGE_FULL;
        }
        if (load == LOAD_FAILED)
            return MERGE_FAILED;
        waiting |= load == LOAD_WAIT;
    }
    return waiting ? MERGE_WAIT : MERGE_DONE;
}

/* ---- DISTINCT ---- */

/* A row that has been written; owned by merge->distinct_rows. */
struct distinct_row {
    struct keyset_item item;
    char key[];
};

void merge_forget_distinct(struct merge *merge)
{
    for (size_t i = 0; i < merge->distinct_rows.capacity; i++)
        free(merge->distinct_rows.slots[i].item);
    keyset_free(&merge->distinct_rows);
}

/* Whether the column is among the leading sort columns that the client sees. */
static bool leads(const struct merge *merge, int column)
{
    for (int i = 0; i < merge->spec->nsort && merge->sort_columns[i] < merge->visible; i++)
        if (merge->sort_columns[i] == column)
            return true;
    return false;
}

bool merge_prepare_distinct(struct merge *merge)
{
    merge->distinct_orders = arena_array(&merge->arena, struct pg_order, merge->visible);
    merge->distinct_sorted = true;
    for (int i = 0; i < merge->visible; i++) {
        const struct merge_field *field = &merge->description.fields[i];
        if (!pg_order_init_equal(&merge->distinct_orders[i], field->oid, field->size,
                                 field->format))
            return merge_fail_type(merge, i, "DISTINCT");
        merge->distinct_sorted &= leads(merge, i);
    }
    return true;
}

/* The row's visible values, leading sort columns first; *prefix is where those end. */
static bool canonical_row(struct merge *merge, size_t *prefix)
{
    buffer_clear(&merge->distinct_key);
    buffer_reserve(&merge->distinct_key, 1); /* a row of no columns has an address too */
    for (int pass = 0; pass < 2; pass++) {
        for (int i = 0; i < merge->visible; i++)
            if (leads(merge, i) == (pass == 0) &&
                !merge_put_canonical(merge, &merge->distinct_orders[i], i, &merge->distinct_key))
                return false;
        if (pass == 0)
            *prefix = buffer_length(&merge->distinct_key);
    }
    return true;
}

/* Whether the leading sort columns are those of the row before; remembers them. */
static bool same_sort_columns(struct merge *merge, size_t prefix)
{
    const char *key = buffer_head(&merge->distinct_key);
    if (merge->has_last_key && buffer_length(&merge->last_key) == prefix &&
        (!prefix || memcmp(buffer_head(&merge->last_key), key, prefix) == 0))
        return true;
    buffer_clear(&merge->last_key);
    buffer_append(&merge->last_key, key, prefix);
    merge->has_last_key = true;
    return false;
}

static bool add_distinct(struct merge *merge, bool *distinct)
{
    const char *key = buffer_head(&merge->distinct_key);
    size_t length = buffer_length(&merge->distinct_key);
    uint64_t hash = keyset_hash(key, length);
    *distinct = !keyset_find(&merge->distinct_rows, hash, key, length);
    if (!*distinct)
        return true;
    if (merge->distinct_rows.count >= (size_t)merge->max_groups)
        return merge_fail(merge, "53400",
                          "Raise limits.max_groups, order by the distinct columns, or keep the "
                          "statement to one shard by its key.",
                          "too many distinct rows across shards: more than %ld", merge->max_groups);
    struct distinct_row *row = mem_alloc(sizeof *row + length);
    memcpy(row->key, key, length);
    row->item = (struct keyset_item){row->key, length};
    keyset_add(&merge->distinct_rows, hash, &row->item);
    return true;
}

bool merge_is_distinct(struct merge *merge, const struct merge_row *row, bool *distinct)
{
    size_t visible_end, prefix;
    if (!merge_split(merge, row->body, row->length, &visible_end, -1) ||
        !canonical_row(merge, &prefix))
        return false;
    bool same = same_sort_columns(merge, prefix);
    if (merge->distinct_sorted) {
        *distinct = !same;
        return true;
    }
    if (!same) /* in a sorted result no row with the sort columns before can come again */
        merge_forget_distinct(merge);
    return add_distinct(merge, distinct);
}
