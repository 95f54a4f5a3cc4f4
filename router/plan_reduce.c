/*
 * plan_reduce.c: semi-joins of a gather: the order of its tables, and the texts that leave rows out.
 *
 * Small tables come first. What came decides about the next: each mention of it takes its values from the edge
 * whose source has the fewest rows. A row is needed by some mention, so the conditions of all are joined by OR.
 */
#include "pgshunt/reduce.h"

#include "pgshunt/pgtypes.h"
#include "pgshunt/wire.h"
#include "router/plan_internal.h"

/* To send few values costs as much as to send these. */
#define LEAST_VALUES 250
/* A source may have more rows than values, but to look for so few among these is not worth it. */
#define ROWS_PER_VALUE 10
/* Values of all sizes in an array. */
#define ARRAY_BYTES "4194304"
#define ARRAY_HEADER 20

/* ---- the order ---- */

/* Rows of the edge's source; negative: not known yet. */
static double source_rows(const struct reduce_state *state, int number)
{
    const struct gather_edge *edge = &state->plan->edges[number];
    if (edge->source < 0)
        return state->local[number];
    const struct reduce_table *source = &state->tables[edge->source];
    return source->fetched ? source->rows : -1;
}

static int best_edge(const struct reduce_state *state, int table, int mention)
{
    double most = (double)state->limits.values * ROWS_PER_VALUE;
    int best = -1;
    for (int i = 0; i < state->plan->nedges; i++) {
        const struct gather_edge *edge = &state->plan->edges[i];
        double rows = source_rows(state, i);
        if (edge->table == table && edge->mention == mention && rows >= 0 && rows <= most &&
            (best < 0 || rows < source_rows(state, best)))
            best = i;
    }
    return best;
}

/* With all that can be known of it. */
static double expected_rows(const struct reduce_state *state, int table)
{
    double rows = 0, expected = state->tables[table].expected;
    int mentions = state->plan->tables[table].mentions;
    for (int i = 0; i < mentions; i++) {
        int edge = best_edge(state, table, i);
        if (edge < 0)
            return expected;
        rows += source_rows(state, edge);
    }
    return mentions && rows < expected ? rows : expected;
}

int reduce_next(const struct reduce_state *state)
{
    int next = -1;
    double fewest = 0;
    for (int i = 0; i < state->plan->ntables; i++) {
        double rows = expected_rows(state, i);
        if (state->tables[i].fetched || (next >= 0 && rows >= fewest))
            continue;
        next = i;
        fewest = rows;
    }
    return next;
}

bool reduce_possible(const struct reduce_state *state, int table)
{
    const struct gather_plan *plan = state->plan;
    for (int i = 0; i < plan->tables[table].mentions; i++) {
        bool any = false;
        for (int k = 0; k < plan->nedges; k++)
            any |= plan->edges[k].table == table && plan->edges[k].mention == i &&
                   (plan->edges[k].source >= 0 || state->local[k] >= 0);
        if (!any)
            return false;
    }
    return plan->tables[table].mentions > 0;
}

bool reduce_pays(const struct reduce_state *state, int table, int64_t values)
{
    int64_t least = values < LEAST_VALUES ? LEAST_VALUES : values;
    return values <= state->limits.values &&
           state->tables[table].expected >= (double)least * (double)state->limits.factor;
}

int reduce_edges(const struct reduce_state *state, int table, int *edges)
{
    int mentions = state->plan->tables[table].mentions;
    if (!reduce_pays(state, table, 0) || !state->limits.values)
        return 0;
    for (int i = 0; i < mentions; i++)
        if ((edges[i] = best_edge(state, table, i)) < 0)
            return 0;
    return mentions;
}

/* ---- values ---- */

static const char *quoted(const char *name, struct arena *arena)
{
    char *out = arena_alloc(arena, 2 * strlen(name) + 3), *to = out;
    *to++ = '"';
    for (; *name; name++) {
        if (*name == '"')
            *to++ = '"';
        *to++ = *name;
    }
    *to++ = '"';
    *to = '\0';
    return out;
}

struct shard_query reduce_values_query(const struct reduce_state *state, int edge,
                                       struct arena *arena)
{
    static const int no_params[1];
    const struct gather_edge *from = &state->plan->edges[edge];
    struct shard_query query = from->rows;
    if (from->source >= 0) {
        query.sql = arena_printf(arena, "SELECT %s FROM %s", quoted(from->source_column, arena),
                                 state->plan->tables[from->source].relation);
        query.params = no_params;
    }
    query.sql = arena_printf(
        arena,
        "SELECT pg_catalog.count(*), CASE WHEN pg_catalog.sum(pg_catalog.pg_column_size(v)) "
        "<= " ARRAY_BYTES " THEN pg_catalog.array_agg(v) END "
        "FROM (SELECT DISTINCT v FROM (%s) AS pgshunt_rows (v) WHERE v IS NOT NULL LIMIT %lld) AS "
        "pgshunt_values",
        query.sql, (long long)state->limits.values + 1);
    return query;
}

static const char *array_type(uint32_t element)
{
    switch (element) {
    case OID_INT2:
        return "int2[]";
    case OID_INT4:
        return "int4[]";
    case OID_INT8:
        return "int8[]";
    case OID_TEXT:
        return "text[]";
    case OID_VARCHAR:
        return "varchar[]";
    case OID_BPCHAR:
        return "bpchar[]";
    case OID_UUID:
        return "uuid[]";
    case OID_OID:
        return "oid[]";
    case OID_NUMERIC:
        return "numeric[]";
    case OID_BYTEA:
        return "bytea[]";
    case OID_DATE:
        return "date[]";
    case OID_TIMESTAMP:
        return "timestamp[]";
    case OID_TIMESTAMPTZ:
        return "timestamptz[]";
    default:
        return NULL;
    }
}

static struct param empty_array(uint32_t type, struct arena *arena)
{
    struct buffer out = {0};
    wire_put32(&out, 0);
    wire_put32(&out, 0);
    wire_put32(&out, (int32_t)type);
    struct param array = {.bytes = arena_strndup(arena, buffer_head(&out), buffer_length(&out)),
                          .length = (int)buffer_length(&out),
                          .binary = true};
    buffer_release(&out);
    return array;
}

bool reduce_takes(const struct gather_edge *edge, struct param *array, int64_t count,
                  struct arena *arena)
{
    struct array_reader reader;
    if (!count)
        *array = empty_array(edge->type, arena);
    if (!array->bytes || !array_open(&reader, array->bytes, (size_t)array->length, true, arena))
        return false;
    return reader.left == count && array_type(reader.type) &&
           rewrite_equal_types(reader.type, edge->type);
}

static uint32_t element_type(const struct param *array)
{
    struct wire_reader in = wire_reader(array->bytes, (size_t)array->length);
    wire_read32(&in);
    wire_read32(&in);
    return (uint32_t)wire_read32(&in);
}

/* ---- texts ---- */

struct shard_query reduce_query(const struct shard_query *plain, const struct params *client,
                                const struct gather_edge *const *edges, const struct param *arrays,
                                int nedges, struct arena *arena)
{
    int have = client ? client->count : 0, used = plain->params ? plain->nparams : have;
    int *params = arena_array(arena, int, used + nedges);
    struct param *values = arena_array(arena, struct param, have + nedges);
    struct shard_query query = *plain;
    const char *any = "";
    for (int i = 0; i < used; i++)
        params[i] = plain->params ? plain->params[i] : i;
    if (have)
        memcpy(values, client->items, sizeof *values * (size_t)have);
    for (int i = 0; i < nedges; i++) {
        any = arena_printf(arena, "%s%spgshunt_rows.%s = ANY ($%d::pg_catalog.%s)", any,
                           i ? " OR " : "", quoted(edges[i]->column, arena), used + i + 1,
                           array_type(element_type(&arrays[i])));
        params[used + i] = have + i;
        values[have + i] = arrays[i];
    }
    query.sql = arena_printf(arena, "SELECT * FROM (%s) AS pgshunt_rows WHERE %s", plain->sql, any);
    query.params = params;
    query.nparams = used + nedges;
    query.values = values;
    return query;
}

/* ---- shards ---- */

static bool is_hashable(uint32_t type)
{
    return type == OID_INT2 || type == OID_INT4 || type == OID_INT8 || type == OID_UUID ||
           type == OID_TEXT || type == OID_VARCHAR;
}

/* A value that is not understood may be on any shard. */
static bool may_be_there(const struct shardmap *map, const struct keyspace *keyspace, uint32_t type,
                         const char *bytes, size_t length, unsigned shard)
{
    struct shardkey key;
    return !shardkey_from_binary(keyspace->type, type, bytes, length, &key) ||
           shardmap_shard_of(map, keyspace, &key) == shard;
}

struct param reduce_for_shard(const struct shardmap *map, const struct gather_edge *edge,
                              const struct param *array, unsigned shard, struct arena *arena)
{
    struct array_reader reader;
    struct buffer out = {0};
    const char *bytes;
    size_t length;
    struct param result = *array;
    int kept = 0;
    if (!edge->keyspace || !is_hashable(element_type(array)) || array->length < ARRAY_HEADER ||
        !array_open(&reader, array->bytes, (size_t)array->length, true, arena))
        return result;
    buffer_append(&out, array->bytes, ARRAY_HEADER);
    while (array_next(&reader, &bytes, &length))
        if (bytes && may_be_there(map, edge->keyspace, reader.type, bytes, length, shard)) {
            buffer_append(&out, reader.item, reader.item_length);
            kept++;
        }
    char *own = arena_strndup(arena, buffer_head(&out), buffer_length(&out));
    wire_set32(own + 12, kept);
    if (!reader.bad)
        result = (struct param){.bytes = own, .length = (int)buffer_length(&out), .binary = true};
    buffer_release(&out);
    return result;
}

bool reduce_is_empty(const struct param *array)
{
    struct wire_reader in = wire_reader(array->bytes, (size_t)array->length);
    int dimensions = wire_read32(&in);
    wire_read32(&in);
    wire_read32(&in);
    return !dimensions || wire_read32(&in) == 0;
}
