/* plan_insert.c: INSERT into sharded tables: the key of each row, and rows split by shard. */
#include "router/plan_internal.h"

enum { POSITION_MISSING = -1, POSITION_UNKNOWN = -2 };

static const char *target_table(const struct instance *target)
{
    return target->rule->name;
}

static void fail(struct planner *p, const char *sqlstate, const char *message, const char *hint)
{
    if (p->failed)
        return; /* the first one counts */
    p->failed = arena_new(p->arena, struct pg_error);
    p->failed->sqlstate = sqlstate;
    p->failed->message = message;
    p->failed->hint = hint;
}

const char *plan_key_words(struct planner *p, const struct table_rule *rule)
{
    const char *words = table_rule_key(rule, 0);
    for (unsigned i = 1; i < rule->nparts; i++)
        words = arena_printf(p->arena, "%s, %s", words, rule->parts[i]);
    return words;
}

static void fail_without_key(struct planner *p, const struct instance *target)
{
    const char *key = plan_key_words(p, target->rule), *table = target_table(target);
    if (!*key) {
        fail(p, "0A000",
             arena_printf(p->arena,
                          "view \"%s\" does not show the shard key of its table, which a new row "
                          "needs",
                          table),
             "Insert into the table itself, or say where the row goes with a comment: "
             "/* pgshunt: key=... */");
        return;
    }
    fail(p, "23502",
         arena_printf(p->arena, "INSERT gives no value for \"%s\", the shard key of table \"%s\"",
                      key, table),
         arena_printf(
             p->arena,
             "Name the column \"%s\" in the column list and give each row a value: it decides "
             "on which shard the row lives. A default is asked for by a plain INSERT of VALUES "
             "alone; else get its value first, with SELECT nextval('...') or SELECT "
             "pgshunt.next_id().",
             key));
}

/* -1: not given, -2: cannot be known. */
static int schema_position(struct planner *p, const struct instance *target, const char *key)
{
    const struct from_item *item = target->item;
    const struct schema_relation *relation =
        p->schema ? schema_relation(p->schema, item->schema, item->name) : NULL;
    for (int i = 0; relation && i < relation->ncolumns; i++)
        if (same_name(relation->columns[i].name, key))
            return i;
    plan_needs_schema(p, item->schema, item->name);
    return POSITION_UNKNOWN;
}

/* OVERRIDING USER VALUE: what is given for an identity column does not count. Which column of its table one of a
 * view is, is not asked. */
static bool is_overridden(struct planner *p, const struct query *query,
                          const struct instance *target)
{
    const struct from_item *item = target->item;
    const struct schema_relation *relation =
        query->overriding_user ? plan_relation(p, item->schema, item->name) : NULL;
    if (!relation && query->overriding_user)
        plan_needs_schema(p, item->schema, item->name);
    bool overridden = query->overriding_user && (!relation || target->view);
    for (int i = 0; relation && i < relation->ncolumns; i++) {
        const struct schema_column *column = &relation->columns[i];
        bool part = same_name(column->name, target->rule->key);
        for (unsigned k = 0; k < target->rule->nparts; k++)
            part |= same_name(column->name, target->rule->parts[k]);
        overridden |= part && column->identity;
    }
    return overridden;
}

int insert_key_position(struct planner *p, const struct query *query, const struct instance *target,
                        unsigned part)
{
    const char *key = table_rule_key(target->rule, part);
    int position = POSITION_MISSING;
    for (int i = 0; i < query->ntargets; i++)
        if (same_name(query->targets[i].alias, key))
            position = i;
    if (query->ntargets == 0 && query->source && *key)
        position = schema_position(p, target, key);
    if (query->source && query->source->kind == QUERY_VALUES &&
        position >= query->source->row_width)
        position = POSITION_MISSING;
    if (is_overridden(p, query, target))
        position = POSITION_MISSING;
    if (position == POSITION_MISSING)
        fail_without_key(p, target);
    if (position == POSITION_UNKNOWN)
        fail(p, "0A000",
             arena_printf(
                 p->arena,
                 "INSERT into sharded table \"%s\" without a column list, and its columns are "
                 "not known",
                 target_table(target)),
             arena_printf(p->arena, "Name the columns, the shard key \"%s\" among them.", key));
    return position;
}

bool insert_row(struct planner *p, const struct instance *target, const struct expr *value,
                struct shard_set *set)
{
    const char *key = plan_key_words(p, target->rule);
    unsigned shard = 0;
    if (!value || value->kind == EXPR_DEFAULT) {
        fail_without_key(p, target);
        return false;
    }
    switch (keyfind_shard(p, target, value, VALUE_ASSIGNED, &shard)) {
    case VALUE_KNOWN:
        *set = (struct shard_set){.kind = SHARDS_ONE, .one = shard, .not_held = !p->key_is_held};
        return true;
    case VALUE_NULL:
        fail(p, "23502",
             arena_printf(p->arena, "null value in \"%s\", the shard key of table \"%s\"", key,
                          target_table(target)),
             arena_printf(p->arena, "Give \"%s\" a value: it decides on which shard the row lives.",
                          key));
        return false;
    case VALUE_OPAQUE:
        fail(p, "0A000",
             arena_printf(
                 p->arena,
                 "the value of \"%s\", the shard key of table \"%s\", cannot be known before "
                 "the statement runs",
                 key, target_table(target)),
             arena_printf(
                 p->arena,
                 "Give \"%s\" as a literal or a parameter of the key's type, or say where the "
                 "row goes with a comment: /* pgshunt: key=... */",
                 key));
        return false;
    case VALUE_NOWHERE:
        fail(p, "23514",
             arena_printf(p->arena,
                          "the value of \"%s\", the shard key of table \"%s\", is in no list of "
                          "keyspace \"%s\"",
                          key, target_table(target), target->rule->keyspace->name),
             "Add the value to a shard's list, or name a default shard, in the configuration.");
        return false;
    case VALUE_PENDING:
    case VALUE_INVALID: /* the server refuses it, whichever it is */
        set->kind = SHARDS_NONE;
        return true;
    }
    return false;
}

static const struct expr *key_of_row(struct planner *p, const struct query *query,
                                     const struct instance *target, int row, int position)
{
    struct expr *const *values = query->source->rows[row];
    return target->rule->nparts ? composite_row(p, query, target, values) : values[position];
}

void insert_pin(struct planner *p, const struct query *query, int target)
{
    struct instance *instance = &p->instances[target];
    const struct query *values = query->source;
    if (instance->rule->nparts && is_overridden(p, query, instance))
        fail_without_key(p, instance);
    if (!values || values->kind != QUERY_VALUES)
        return;
    int position = instance->rule->nparts ? 0 : insert_key_position(p, query, instance, 0);
    if (position < 0)
        return;
    struct shard_set all = {.kind = SHARDS_NONE};
    for (int i = 0; i < values->nrows; i++) {
        struct shard_set one;
        if (!insert_row(p, instance, key_of_row(p, query, instance, i, position), &one))
            return;
        all = shards_union(p->arena, shardmap_shards(p->map), &all, &one);
    }
    instance->set = all;
    instance->pin = instance->rule->nparts ? NULL : values->rows[0][position];
}

/* ---- several shards ---- */

/* The number each shard of the set has among plan->queries, which are started here. */
static uint16_t *start_queries(struct planner *p, const struct shard_set *reach, unsigned *first)
{
    unsigned nshards = shardmap_shards(p->map);
    uint16_t *number = arena_array(p->arena, uint16_t, nshards);
    p->plan->queries = arena_array(p->arena, struct shard_query, shards_count(reach, nshards));
    for (unsigned s = nshards; s-- > 0;)
        if (shards_contain(reach, s))
            *first = s;
    for (unsigned s = 0; s < nshards; s++)
        if (shards_contain(reach, s)) {
            number[s] = (uint16_t)p->plan->nqueries;
            p->plan->queries[p->plan->nqueries++].shard = s;
        }
    return number;
}

/* Which query takes each row; a row whose value the server will refuse goes with the first shard. */
static bool split_rows(struct planner *p, const struct query *query, int position,
                       const struct shard_set *reach, uint16_t *part)
{
    const struct query *values = query->source;
    unsigned first = 0;
    const uint16_t *number = start_queries(p, reach, &first);
    for (int i = 0; i < values->nrows; i++) {
        struct shard_set one;
        if (!insert_row(p, &p->instances[0], key_of_row(p, query, &p->instances[0], i, position),
                        &one))
            return false;
        part[i] = number[one.kind == SHARDS_ONE ? one.one : first];
    }
    return true;
}

/* RETURNING gives the rows in the order of VALUES, as one Postgres does, where none can be missing. */
static void order_rows(struct planner *p, const struct query *query, const uint16_t *part,
                       bool whole)
{
    plan_append_rows(p, query);
    if (!query->nreturning || !whole)
        return;
    struct merge_spec *spec = arena_new(p->arena, struct merge_spec);
    *spec = *p->plan->merge;
    spec->row_source = part;
    spec->nrows = query->source->nrows;
    p->plan->merge = spec;
}

static void refuse_select_source(struct planner *p)
{
    plan_refuse(
        p,
        "Read the rows first and insert them with VALUES, or restrict both sides to one value "
        "of the shard key.",
        "INSERT ... SELECT into sharded table \"%s\" from more than one shard is not supported "
        "yet",
        target_table(&p->instances[0]));
}

void plan_insert(struct planner *p, const struct query *query)
{
    const struct query *values = query->source;
    if (!values || values->kind != QUERY_VALUES) {
        refuse_select_source(p);
        return;
    }
    if (p->ninstances > 1 || query->nctes || values->norder_by || values->limit || values->offset) {
        plan_refuse_shape(p, "INSERT of rows for several shards with a subquery, WITH or LIMIT");
        return;
    }
    if (!plan_keeps_key(p, query, -1))
        return;
    struct shard_set reach = plan_reach(p);
    bool composite = p->instances[0].rule->nparts > 0;
    int position = composite ? 0 : insert_key_position(p, query, &p->instances[0], 0);
    uint16_t *part = arena_array(p->arena, uint16_t, values->nrows);
    bool whole = false;
    bool ok = position >= 0 && split_rows(p, query, position, &reach, part);
    struct rewrite_rows rows = {part, values->nrows, p->plan->nqueries};
    if (!ok || !rewrite_insert(p->statement->text, &rows, p->arena, p->plan->queries, &whole)) {
        plan_refuse(p, "Insert the rows of each shard with a statement of their own.",
                    "these rows cannot be split by shard");
        return;
    }
    p->plan->kind = PLAN_SCATTER;
    p->plan->mode = SCATTER_WRITE;
    order_rows(p, query, part, whole);
    p->plan->reason =
        arena_printf(p->arena, "rows by shard key %s.%s", target_table(&p->instances[0]),
                     plan_key_words(p, p->instances[0].rule));
}
