/* merge_describe.c: RowDescriptions of the shards, and what the spec means in their columns. */
#include "router/merge_internal.h"

#include <stdlib.h>

#define FIELD_TAIL 18 /* bytes of a field behind its name */

/* ---- reading ---- */

/* One field at *at; false when it does not end before `end`. */
static bool read_field(const char **at, const char *end, struct merge_field *field)
{
    const char *terminator = memchr(*at, '\0', (size_t)(end - *at));
    if (!terminator || end - terminator - 1 < FIELD_TAIL)
        return false;
    const char *tail = terminator + 1;
    *field = (struct merge_field){
        .name = *at,
        .oid = wire_get32(tail + 6),
        .size = (int16_t)wire_get16(tail + 10),
        .format = wire_get16(tail + 16),
    };
    *at = tail + FIELD_TAIL;
    return true;
}

/* Fields point into `body`. `visible` may be unknown (-1): all but the hidden ones. */
static bool read_description(struct merge *merge, const char *body, size_t length,
                             struct description *result)
{
    const char *at = body + 2, *end = body + length;
    if (length < 2)
        return false;
    int count = wire_get16(body);
    if ((size_t)count > length / (FIELD_TAIL + 1))
        return false;
    result->nfields = count;
    result->fields = arena_array(&merge->arena, struct merge_field, count);
    result->visible_end = 2;
    for (int i = 0; i < count; i++) {
        if (!read_field(&at, end, &result->fields[i]))
            return false;
        if (result->fields[i].format > 1)
            return false;
        if (i + 1 == count - merge->spec->hidden)
            result->visible_end = (size_t)(at - body);
    }
    return at == end;
}

/* ---- agreement ---- */

/* Types that users make have other oids on every server; their text is the same, and so is the binary
 * form of those of fixed size, as enums are: arrays and composites have oids in theirs. */
static bool same_type(const struct merge_field *a, const struct merge_field *b)
{
    if (a->format != b->format)
        return false;
    if (a->oid == b->oid)
        return true;
    return (a->format == 0 || a->size > 0) && a->oid >= OID_FIRST_USER &&
           b->oid >= OID_FIRST_USER && a->size == b->size;
}

static bool fail_disagreement(struct merge *merge, int shard, const char *what)
{
    return merge_fail(merge, "XX000",
                      "Make the tables alike on all shards: pgshuntctl and SHOW SHARDS help to "
                      "find the one that differs.",
                      "shards disagree about the result: shard %d %s", shard, what);
}

/* Only their text is alike. */
static bool fail_binary(struct merge *merge, const struct merge_field *field)
{
    return merge_fail(
        merge, "0A000",
        "Ask for the column as text, or make types and tables in the same order on all "
        "shards, so that their numbers are the same.",
        "values of a type with another number on each shard cannot be sent in binary: "
        "column \"%.64s\"",
        field->name);
}

static bool check_agreement(struct merge *merge, int shard, const struct description *other)
{
    const struct description *first = &merge->description;
    if (first->nfields != other->nfields)
        return fail_disagreement(merge, shard, "sends another number of columns");
    for (int i = 0; i < first->nfields; i++) {
        const struct merge_field *field = &first->fields[i];
        if (field->format == 1 && other->fields[i].format == 1 && field->oid >= OID_FIRST_USER &&
            other->fields[i].oid >= OID_FIRST_USER && !same_type(field, &other->fields[i]))
            return fail_binary(merge, field);
        if (!same_type(field, &other->fields[i]))
            return fail_disagreement(
                merge, shard,
                arena_printf(&merge->arena, "sends another type in column \"%.64s\"", field->name));
    }
    return true;
}

/* ---- what the spec means here ---- */

static bool resolve_name(struct merge *merge, const char *name, int *column)
{
    const struct description *description = &merge->description;
    *column = -1;
    for (int i = 0; name && i < merge->visible; i++) {
        if (strcmp(description->fields[i].name, name) != 0)
            continue;
        if (*column >= 0)
            return merge_fail(merge, "42702",
                              "Name the column in a list instead of *, with an alias of its own.",
                              "ORDER BY \"%.64s\" is ambiguous", name);
        *column = i;
    }
    if (*column < 0)
        return merge_fail(merge, "42703", "Across shards, order by columns of the result.",
                          "ORDER BY column \"%.64s\" is not in the result", name ? name : "");
    return true;
}

static bool resolve_sort_column(struct merge *merge, int index)
{
    const struct merge_spec *spec = merge->spec;
    int column = spec->sort[index].column;
    if (column == -1) {
        if (!resolve_name(merge, spec->sort_names ? spec->sort_names[index] : NULL, &column))
            return false;
    } else if (column < -1) {
        column = merge->visible + (-2 - column);
    }
    if (column < 0 || column >= merge->description.nfields)
        return merge_fail_spec(merge, "a sort column out of range");
    merge->sort_columns[index] = column;
    return true;
}

static bool resolve_sort(struct merge *merge)
{
    const struct merge_spec *spec = merge->spec;
    merge->sort_columns = arena_array(&merge->arena, int, spec->nsort);
    merge->sort_orders = arena_array(&merge->arena, struct pg_order, spec->nsort);
    for (int i = 0; i < spec->nsort; i++) {
        if (!resolve_sort_column(merge, i))
            return false;
        if (!merge_order(merge, merge->sort_columns[i], &merge->sort_orders[i], "ORDER BY"))
            return false;
    }
    return true;
}

/* The collation is opened when the first column needs it: others do without. */
static bool open_collation(struct merge *merge)
{
    if (merge->collation_open)
        return true;
    const struct merge_spec *spec = merge->spec;
    if (!pg_collation_open(&merge->collation, spec->collate, spec->collation_provider))
        return merge_fail(merge, "0A000",
                          "Order by the column COLLATE \"C\", or install the locale on the host "
                          "of pgshunt (ICU collations cannot be merged).",
                          "cannot merge text under collation \"%.64s\"", spec->collate);
    return merge->collation_open = true;
}

bool merge_order(struct merge *merge, int column, struct pg_order *order, const char *what)
{
    const struct merge_field *field = &merge->description.fields[column];
    if (!pg_order_init(order, field->oid, field->format, &merge->collation))
        return merge_fail_type(merge, column, what);
    return order->kind != PG_KEY_COLLATED || open_collation(merge);
}

static bool resolve(struct merge *merge)
{
    const struct merge_spec *spec = merge->spec;
    int count = merge->description.nfields;
    merge->visible = count - spec->hidden;
    if (spec->hidden < 0 || merge->visible < 0 ||
        (spec->visible >= 0 && spec->visible != merge->visible))
        return merge_fail_spec(merge, "another number of columns");
    merge->values = arena_array(&merge->arena, struct merge_value, count);
    if (!resolve_sort(merge) || (spec->distinct && !merge_prepare_distinct(merge)) ||
        (spec->group && !merge_prepare_groups(merge)))
        return false;
    merge->described = true;
    return true;
}

bool merge_describe(struct merge *merge, int shard, const char *body, size_t length)
{
    struct description other = {.length = length};
    bool again = merge->streams[shard].described;
    merge->streams[shard].described = true;
    if (merge->described) {
        if (length == merge->description.length &&
            memcmp(body, merge->description.body, length) == 0)
            return true;
        if (again) /* each one costs memory until the end */
            return merge_fail_malformed(merge, shard, "result: another row description");
        if (!read_description(merge, body, length, &other))
            return merge_fail_malformed(merge, shard, "row description");
        return check_agreement(merge, shard, &other);
    }
    other.body = arena_alloc(&merge->arena, length);
    memcpy(other.body, body, length);
    if (!read_description(merge, other.body, length, &other))
        return merge_fail_malformed(merge, shard, "row description");
    merge->description = other;
    return resolve(merge);
}

void merge_write_description(struct merge *merge, struct buffer *out)
{
    const struct description *description = &merge->description;
    size_t message = 4 + description->visible_end;
    char *at = buffer_reserve(out, 1 + message);
    at[0] = 'T';
    wire_set32(at + 1, (uint32_t)message);
    memcpy(at + 5, description->body, description->visible_end);
    at[5] = (char)(merge->visible >> 8);
    at[6] = (char)merge->visible;
    out->end += 1 + message;
}
