/*
 * plan_default.c: columns that an INSERT leaves to their defaults, and by which it is decided where its rows go.
 *
 * A row's shard is not known before its key is; a reference table's rows have to be alike on all shards. So the
 * first plan only asks a server for what the defaults give (SCATTER_DRAW). With these values (route_input.drawn) the
 * statement is written anew, and planned like any other: what was a default is a literal there.
 */
#include "router/plan_internal.h"

#include "pgshunt/buffer.h"
#include "pgshunt/pgtypes.h"

struct missing {
    const struct schema_column *column;
    int position; /* among the values of a row; -1: not there */
};

struct filling {
    struct planner *p;
    const struct query *query;
    const struct table_rule *rule;
    const struct schema_relation *relation;
    struct missing *missing;
    int nmissing;
    int *rows; /* those that leave something out */
    int nrows;
};

/* ---- what is missing ---- */

static int index_of(const struct schema_relation *relation, const struct schema_column *column)
{
    return (int)(column - relation->columns);
}

static int position_of(const struct filling *f, const struct schema_column *column)
{
    const struct query *query = f->query;
    for (int i = 0; i < query->ntargets; i++)
        if (same_name(query->targets[i].alias, column->name))
            return i;
    int index = index_of(f->relation, column);
    return !query->ntargets && query->source && index < query->source->row_width ? index : -1;
}

static int row_count(const struct query *query)
{
    return query->source ? query->source->nrows : 1;
}

static bool leaves_out(const struct query *query, int row, const struct missing *missing)
{
    bool overridden = query->overriding_user && missing->column->identity;
    return overridden || missing->position < 0 ||
           query->source->rows[row][missing->position]->kind == EXPR_DEFAULT;
}

static void look_at(struct filling *f, const struct schema_column *column)
{
    struct missing missing = {column, position_of(f, column)};
    bool found = false;
    for (int i = 0; i < row_count(f->query) && !found; i++)
        found = leaves_out(f->query, i, &missing);
    if (found)
        f->missing[f->nmissing++] = missing;
}

static void find_rows(struct filling *f)
{
    f->rows = arena_array(f->p->arena, int, row_count(f->query) + 1);
    for (int i = 0; i < row_count(f->query); i++) {
        bool found = false;
        for (int k = 0; k < f->nmissing; k++)
            found |= leaves_out(f->query, i, &f->missing[k]);
        if (found)
            f->rows[f->nrows++] = i;
    }
}

static void find_missing(struct filling *f)
{
    const struct table_rule *rule = f->rule;
    f->missing = arena_array(f->p->arena, struct missing, f->relation->ncolumns + 1);
    for (int i = 0; i < f->relation->ncolumns; i++) {
        const struct schema_column *column = &f->relation->columns[i];
        bool matters = rule->class == TABLE_REFERENCE && column->default_differs;
        if (rule->class == TABLE_SHARDED)
            matters = !rule->nparts && same_name(rule->key, column->name);
        for (unsigned k = 0; rule->class == TABLE_SHARDED && k < rule->nparts; k++)
            matters |= same_name(rule->parts[k], column->name);
        if (matters)
            look_at(f, column);
    }
}

/* ---- whether it can be ---- */

static bool has_rows(const struct query *query)
{
    const struct query *source = query->source;
    return query->kind == QUERY_INSERT && !query->nctes &&
           (!source || (source->kind == QUERY_VALUES && !source->nctes && !source->norder_by &&
                        !source->limit && !source->offset));
}

static bool is_missing(const struct filling *f, const struct schema_column *column)
{
    for (int i = 0; i < f->nmissing; i++)
        if (f->missing[i].column == column)
            return true;
    return false;
}

/* OVERRIDING is about all identity columns: what another one is given must mean the same as before. */
static bool overriding_fits(const struct filling *f)
{
    bool overrides = f->query->overriding_user;
    for (int i = 0; i < f->nmissing; i++)
        overrides |= f->missing[i].column->identity == 'a';
    for (int i = 0; overrides && i < f->relation->ncolumns; i++) {
        const struct schema_column *column = &f->relation->columns[i];
        if (column->identity && !is_missing(f, column) && position_of(f, column) >= 0)
            return false;
    }
    return true;
}

static bool defaults_known(const struct filling *f)
{
    for (int i = 0; i < f->nmissing; i++)
        if (!f->missing[i].column->default_sql)
            return false;
    return f->nmissing > 0;
}

static bool is_explained(const struct planner *p)
{
    return p->input->statement->kind == STMT_EXPLAIN;
}

/* EXPLAIN is about the statement as it is; with ANALYZE it would have to do it all. */
static bool is_in_place(const struct planner *p)
{
    const struct statement *outer = p->input->statement;
    return outer == p->statement || (is_explained(p) && !outer->explain_analyze);
}

/* False: the statement leaves nothing out that matters, or it cannot be filled in. */
static bool open_filling(struct planner *p, const struct query *query, struct filling *f)
{
    const struct route_session *session = p->input->session;
    *f = (struct filling){.p = p, .query = query};
    if (!p->schema || !has_rows(query) || !is_in_place(p) || (session && session->schema_changes))
        return false;
    const struct from_item *table = query->relation;
    f->rule = plan_rule(p, table->schema, table->name);
    f->relation = plan_relation(p, table->schema, table->name);
    if ((f->rule->class != TABLE_SHARDED && f->rule->class != TABLE_REFERENCE) || !f->relation ||
        (f->relation->kind != 'r' && f->relation->kind != 'p'))
        return false;
    find_missing(f);
    find_rows(f);
    if (f->nmissing && p->may_wait && !p->plan->needs_schema)
        p->plan->needs_schema = SCHEMA_CURRENT; /* defaults may be others now */
    return defaults_known(f) && overriding_fits(f);
}

/* ---- the question ---- */

/* Of the types that keys have, so that what the column would make of the value is known. */
static const char *cast_of(uint32_t type)
{
    switch (type) {
    case OID_INT8:
        return "::pg_catalog.int8";
    case OID_INT4:
        return "::pg_catalog.int4";
    case OID_INT2:
        return "::pg_catalog.int2";
    case OID_UUID:
        return "::pg_catalog.uuid";
    default:
        return "";
    }
}

/* A sequence gives unique numbers by itself on one shard only: the first, as when it is asked for them. */
static unsigned drawing_shard(const struct filling *f)
{
    for (int i = 0; i < f->nmissing; i++)
        if (strstr(f->missing[i].column->default_sql, "nextval("))
            return 0;
    return plan_home(f->p);
}

static const char *question(const struct filling *f)
{
    struct buffer sql = {0};
    for (int i = 0; i < f->nmissing; i++)
        buffer_printf(&sql, "%s(%s)%s::pg_catalog.text", i ? ", " : "SELECT ",
                      f->missing[i].column->default_sql, cast_of(f->missing[i].column->type_oid));
    if (f->nrows > 1)
        buffer_printf(&sql, " FROM pg_catalog.generate_series(1, %d)", f->nrows);
    const char *text = arena_strndup(f->p->arena, buffer_head(&sql), buffer_length(&sql));
    buffer_release(&sql);
    return text;
}

void plan_draw(struct planner *p, const struct query *query)
{
    struct filling f;
    struct plan *plan = p->plan;
    static const int no_params[1];
    if (!open_filling(p, query, &f))
        return;
    const char *reason = arena_printf(
        p->arena, "the default of \"%s\" is asked for first, and says where the rows go",
        f.missing[0].column->name);
    plan->error = (struct pg_error){0};
    if (is_explained(p)) {
        plan_direct(p, drawing_shard(&f), reason);
        return;
    }
    if (p->touches_held)
        *p->touches_held = false; /* the rows' keys will tell */
    plan->kind = PLAN_SCATTER;
    plan->mode = SCATTER_DRAW;
    plan->no_transaction = true;
    plan->merge = NULL;
    plan->nwants = 0;
    plan->queries = arena_array(p->arena, struct shard_query, 1);
    plan->nqueries = 1;
    plan->queries[0] = (struct shard_query){
        .shard = drawing_shard(&f), .sql = question(&f), .params = no_params, .primary = true};
    plan->reason = reason;
}

/* ---- the answer ---- */

static struct rewrite_fill_column *fill_columns(const struct filling *f,
                                                const struct drawn_values *drawn)
{
    struct arena *arena = f->p->arena;
    struct rewrite_fill_column *columns =
        arena_array(arena, struct rewrite_fill_column, f->nmissing);
    for (int i = 0; i < f->nmissing; i++) {
        const char **values = arena_array(arena, const char *, row_count(f->query));
        for (int row = 0; row < f->nrows; row++)
            values[f->rows[row]] = drawn->items[row * f->nmissing + i];
        columns[i] = (struct rewrite_fill_column){f->missing[i].column->name,
                                                  f->missing[i].position, values};
    }
    return columns;
}

const struct statement *plan_fill(struct planner *p, const struct query *query)
{
    const struct drawn_values *drawn = p->input->drawn;
    struct filling f;
    struct shard_query filled = {0};
    if (!drawn || !open_filling(p, query, &f) || drawn->count != f.nrows * f.nmissing)
        return NULL;
    struct rewrite_fill fill = {.relation = f.relation,
                                .columns = fill_columns(&f, drawn),
                                .ncolumns = f.nmissing,
                                .nrows = row_count(query),
                                .user_values = query->overriding_user};
    for (int i = 0; i < f.nmissing; i++)
        fill.always |= f.missing[i].column->identity == 'a';
    if (!rewrite_fill(p->statement->text, &fill, p->arena, &filled) || filled.params)
        return NULL;
    struct statement_list list = statement_parse(filled.sql, p->arena);
    return list.count == 1 && list.items[0]->query ? list.items[0] : NULL;
}

void plan_send_filled(struct planner *p, const struct query *query)
{
    if (p->plan->kind != PLAN_DIRECT)
        return;
    struct shard_set one = {.kind = SHARDS_ONE, .one = p->plan->shard};
    plan_scatter(p, SCATTER_WRITE, &one, NULL);
    plan_append_rows(p, query);
}
