/*
 * gather_reduce.c: semi-joins of a gather: what is small comes first, and of what is large only the rows that join it.
 *
 * The servers are asked with EXPLAIN how many rows they expect of each table that has to do with one. From then on
 * it is known what has come: before a table is made that may be reduced, the home gives the values of those it
 * depends on, as an array, and the statements that read the table's rows get it as one more parameter. What to do
 * with the numbers is the router's business (reduce.h).
 */
#include "proxy/gather_internal.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "pgshunt/reduce.h"
#include "pgshunt/wire.h"

struct reduction {
    struct reduce_state state;
    bool *wanted; /* by table: estimates are */
    int at_home;  /* the last estimate that has come: a table, or behind these an edge */
    int *at;      /* ... by source */
    /* Of the table g->table: */
    int *edges, nedges; /* what it may be reduced by; 0: nothing */
    struct param *arrays;
    int64_t *counts;
    int listed;
    bool reduced;
    /* EXPLAIN */
    const char **notes;
    int nnotes, room;
};

static const struct gather_plan *plan_of(const struct gather *g)
{
    return g->plan->gather;
}

static const struct gather_table *table_of(const struct gather *g)
{
    return &plan_of(g)->tables[g->table];
}

static const struct gather_edge *edge_of(const struct gather *g, int i)
{
    return &plan_of(g)->edges[g->reduction->edges[i]];
}

/* ---- estimates ---- */

static void want_tables(struct gather *g, struct reduction *r, bool *any)
{
    const struct gather_plan *plan = plan_of(g);
    for (int i = 0; i < plan->nedges; i++) {
        const struct gather_edge *edge = &plan->edges[i];
        if (!reduce_possible(&r->state, edge->table))
            continue;
        *any = r->wanted[edge->table] = true;
        if (edge->source >= 0)
            r->wanted[edge->source] = true;
    }
}

static int most_mentions(const struct gather_plan *plan)
{
    int most = 1;
    for (int i = 0; i < plan->ntables; i++)
        most = plan->tables[i].mentions > most ? plan->tables[i].mentions : most;
    return most;
}

bool reduction_make(struct gather *g)
{
    const struct gather_plan *plan = plan_of(g);
    const struct config *config = g->client->topology->config;
    struct arena *arena = &g->arena;
    bool any = false;
    if (!plan->nedges || !config->semi_join_values)
        return false;
    struct reduction *r = arena_new(arena, struct reduction);
    r->state = (struct reduce_state){
        .plan = plan,
        .limits = {.values = config->semi_join_values, .factor = config->semi_join_factor},
        .tables = arena_array(arena, struct reduce_table, plan->ntables),
        .local = arena_array(arena, double, plan->nedges)};
    r->wanted = arena_array(arena, bool, plan->ntables);
    r->at = arena_array(arena, int, g->nsources + 1);
    for (int i = 0; i < g->nsources; i++)
        r->at[i] = -1;
    r->at_home = -1;
    int room = most_mentions(plan);
    r->edges = arena_array(arena, int, room);
    r->arrays = arena_array(arena, struct param, room);
    r->counts = arena_array(arena, int64_t, room);
    for (int i = 0; i < plan->nedges; i++) /* another snapshot than the query's would not do */
        r->state.local[i] = plan->edges[i].source < 0 && g->block ? -1 : 0;
    want_tables(g, r, &any);
    if (any)
        g->reduction = r;
    return any;
}

static bool has_rows(const struct gather_table *table, unsigned shard)
{
    for (int i = 0; i < table->nshards; i++)
        if (table->shards[i] == shard)
            return true;
    return false;
}

/* The next estimate that a server gives, behind number `at`: tables in their order, then the home's own edges. */
static int next_estimate(const struct gather *g, const struct source *source, int at)
{
    const struct gather_plan *plan = plan_of(g);
    const struct reduction *r = g->reduction;
    for (at++; at < plan->ntables; at++) {
        const struct gather_table *table = &plan->tables[at];
        if (r->wanted[at] && (source ? has_rows(table, source->shard) : table->rows_here))
            return at;
    }
    for (; !source && at < plan->ntables + plan->nedges; at++)
        if (plan->edges[at - plan->ntables].source < 0 && r->state.local[at - plan->ntables] >= 0)
            return at;
    return -1;
}

static struct shard_query estimate_query(struct gather *g, const struct source *source, int at)
{
    const struct gather_plan *plan = plan_of(g);
    struct shard_query query = at >= plan->ntables ? plan->edges[at - plan->ntables].rows
                               : source ? *gather_source(&plan->tables[at], source->shard)
                                        : plan->tables[at].own;
    query.sql = arena_printf(&g->arena, "EXPLAIN (FORMAT JSON) %s", query.sql);
    return query;
}

void reduction_estimate(struct gather *g)
{
    for (int at = -1; (at = next_estimate(g, NULL, at)) >= 0;) {
        struct shard_query query = estimate_query(g, NULL, at);
        gather_put_home(g, &query, SHARD_TEXT);
    }
    for (int i = 0; i < g->nsources; i++) {
        struct source *source = &g->sources[i];
        struct buffer out = {0};
        for (int at = -1; source->server && (at = next_estimate(g, source, at)) >= 0;) {
            struct shard_query query = estimate_query(g, source, at);
            gather_put_source(g, source, &query, SHARD_TEXT, &out);
        }
        if (buffer_length(&out))
            gather_ask_source(g, source, &out);
    }
}

/* [{"Plan": {"Plan Rows": 42, ...}}] */
static double planned_rows(const char *body, size_t len)
{
    struct wire_reader reader = wire_reader(body, len);
    wire_read16(&reader);
    int32_t length = wire_read32(&reader);
    const char *text = length > 0 ? wire_read_bytes(&reader, (size_t)length) : NULL;
    json_t *document = text && !reader.bad ? json_loadb(text, (size_t)length, 0, NULL) : NULL;
    json_t *plan = json_object_get(json_array_get(document, 0), "Plan");
    double rows = json_number_value(json_object_get(plan, "Plan Rows"));
    json_decref(document);
    return rows;
}

static void take_estimate(struct gather *g, int at, double rows)
{
    const struct gather_plan *plan = plan_of(g);
    if (at >= plan->ntables)
        g->reduction->state.local[at - plan->ntables] = rows;
    else if (at >= 0)
        g->reduction->state.tables[at].expected += rows;
}

void reduction_source_row(struct gather *g, struct source *source, const char *body, size_t len)
{
    int *at = &g->reduction->at[source - g->sources];
    *at = next_estimate(g, source, *at);
    take_estimate(g, *at, planned_rows(body, len));
}

/* ---- values ---- */

static void take_values(struct gather *g, const char *body, size_t len)
{
    struct reduction *r = g->reduction;
    struct wire_reader reader = wire_reader(body, len);
    int i = r->listed++;
    if (i >= r->nedges || wire_read16(&reader) != 2 || wire_read32(&reader) != 8)
        return;
    int64_t count = wire_read64(&reader);
    int32_t length = wire_read32(&reader);
    const char *bytes = length > 0 ? wire_read_bytes(&reader, (size_t)length) : NULL;
    if (reader.bad)
        return;
    r->counts[i] = count;
    if (bytes)
        r->arrays[i] = (struct param){.bytes = arena_strndup(&g->arena, bytes, (size_t)length),
                                      .length = length,
                                      .binary = true};
}

void reduction_home_row(struct gather *g, const char *body, size_t len)
{
    struct reduction *r = g->reduction;
    if (g->phase == GATHER_LISTING) {
        take_values(g, body, len);
        return;
    }
    r->at_home = next_estimate(g, NULL, r->at_home);
    take_estimate(g, r->at_home, planned_rows(body, len));
}

void reduction_fetched(struct gather *g)
{
    struct reduce_table *table = &g->reduction->state.tables[g->table];
    table->fetched = true;
    table->rows = plan_of(g)->empty ? table->expected : (double)(g->rows + g->home_rows);
}

bool reduction_next(struct gather *g)
{
    struct reduction *r = g->reduction;
    int next = reduce_next(&r->state);
    r->reduced = false;
    r->nedges = r->listed = 0;
    if (next >= 0)
        g->table = next;
    return next >= 0;
}

static void note(struct gather *g, const char *text)
{
    struct reduction *r = g->reduction;
    if (r->nnotes == r->room) {
        int room = r->room ? r->room * 2 : 8;
        const char **notes = arena_array(&g->arena, const char *, room);
        if (r->nnotes)
            memcpy(notes, r->notes, sizeof *notes * (size_t)r->nnotes);
        r->notes = notes;
        r->room = room;
    }
    r->notes[r->nnotes++] = text;
}

static void note_edges(struct gather *g)
{
    const struct reduction *r = g->reduction;
    double expected = r->state.tables[g->table].expected;
    for (int i = 0; i < r->nedges; i++) {
        const struct gather_edge *edge = edge_of(g, i);
        const char *of = arena_printf(&g->arena, "%s.%s", edge->source_name, edge->source_column);
        const char *name = table_of(g)->name;
        if (plan_of(g)->empty)
            note(g, arena_printf(&g->arena,
                                 "  semi-join: %s only where %s is among the values of %s; "
                                 "%.0f rows are expected of all",
                                 name, edge->column, of, expected));
        else if (r->reduced)
            note(g, arena_printf(&g->arena,
                                 "  semi-join: %s only where %s is among %lld values of %s; "
                                 "%.0f rows were expected of all",
                                 name, edge->column, (long long)r->counts[i], of, expected));
        else
            note(g, arena_printf(&g->arena, "  no semi-join: %s whole, as %s has too many values",
                                 name, of));
    }
}

bool reduction_list(struct gather *g)
{
    struct reduction *r = g->reduction;
    r->nedges = reduce_edges(&r->state, g->table, r->edges);
    if (plan_of(g)->empty)
        note_edges(g);
    for (int i = 0; i < r->nedges && !plan_of(g)->empty; i++) {
        struct shard_query query = reduce_values_query(&r->state, r->edges[i], &g->arena);
        r->arrays[i] = (struct param){.binary = true};
        r->counts[i] = -1;
        gather_put_home(g, &query, SHARD_BINARY);
    }
    return r->nedges && !plan_of(g)->empty;
}

void reduction_decide(struct gather *g)
{
    struct reduction *r = g->reduction;
    int64_t values = 0;
    r->reduced = true;
    for (int i = 0; i < r->nedges; i++) {
        values += r->counts[i] > 0 ? r->counts[i] : 0;
        r->reduced &= r->counts[i] >= 0 && r->counts[i] <= r->state.limits.values &&
                      reduce_takes(edge_of(g, i), &r->arrays[i], r->counts[i], &g->arena);
    }
    r->reduced &= reduce_pays(&r->state, g->table, values);
    note_edges(g);
}

/* ---- texts ---- */

/* False: no array has anything for the shard. */
static bool reduce_for(struct gather *g, unsigned shard, struct shard_query *query)
{
    const struct reduction *r = g->reduction;
    const struct gather_edge **edges =
        arena_array(&g->arena, const struct gather_edge *, r->nedges);
    struct param *arrays = arena_array(&g->arena, struct param, r->nedges);
    bool any = false;
    for (int i = 0; i < r->nedges; i++) {
        edges[i] = edge_of(g, i);
        arrays[i] =
            reduce_for_shard(g->client->database->map, edges[i], &r->arrays[i], shard, &g->arena);
        any |= !reduce_is_empty(&arrays[i]);
    }
    if (any)
        *query = reduce_query(query, g->ask.params, edges, arrays, r->nedges, &g->arena);
    return any;
}

bool reduction_source(struct gather *g, unsigned shard, struct shard_query *query)
{
    *query = *gather_source(table_of(g), shard);
    return !g->reduction || !g->reduction->reduced || reduce_for(g, shard, query);
}

bool reduction_create(struct gather *g, struct shard_query *query)
{
    const struct gather_table *table = table_of(g);
    *query = table->create;
    if (!g->reduction || !g->reduction->reduced)
        return true;
    *query = table->own;
    if (!reduce_for(g, g->plan->shard, query))
        return false;
    query->sql = arena_printf(&g->arena, "CREATE TEMPORARY TABLE %s ON COMMIT DROP AS %s",
                              table->relation + strlen("pg_temp."), query->sql);
    return true;
}

void reduction_explain(struct gather *g, struct buffer *out)
{
    for (int i = 0; g->reduction && i < g->reduction->nnotes; i++)
        wire_put_text_row(out, &g->reduction->notes[i], 1);
}
