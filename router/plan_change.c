/*
 * plan_change.c: changes whose rows come from, or go to, other shards than the one that says so.
 *
 * Comes last, when the statement was refused: what can be done on each shard by itself is. The query that
 * gives an INSERT's rows is planned like any statement of its own; rows that would have to be merged are
 * gathered instead, for the order and the counting are a server's business then.
 */
#include "router/plan_change_internal.h"

#include "pgshunt/buffer.h"

/* ---- whether it can be ---- */

/* EXPLAIN shows what is read; with ANALYZE it would have to do it all. */
static bool is_in_place(const struct planner *p)
{
    const struct statement *outer = p->input->statement;
    return outer == p->statement || (outer->kind == STMT_EXPLAIN && !outer->explain_analyze);
}

/* What a WITH of an INSERT changes is on the shard where its rows come from. */
static bool writes_fit(const struct planner *p, const struct query *query)
{
    const struct from_item *to = query->relation;
    if (query->kind == QUERY_INSERT)
        return plan_rule(p, to->schema, to->name)->class == TABLE_SHARDED ||
               plan_rule(p, to->schema, to->name)->class == TABLE_REFERENCE;
    return (query->kind == QUERY_UPDATE || query->kind == QUERY_DELETE ||
            query->kind == QUERY_MERGE) &&
           p->writes_sharded == to && !p->writes_reference && !p->writes_unsharded;
}

static bool may_change(const struct planner *p, const struct query *query)
{
    const struct route_session *session = p->input->session;
    return writes_fit(p, query) && is_in_place(p) && p->schema && !p->view && !p->written &&
           !p->keyed && !p->too_many && same_name(p->plan->error.sqlstate, "0A000") &&
           !(session && (session->temp_tables || (session->foreign_encoding && p->failed)));
}

static bool find_relation(struct making *m)
{
    const struct from_item *item = m->query->relation;
    m->rule = plan_rule(m->p, item->schema, item->name);
    m->relation = plan_relation(m->p, item->schema, item->name);
    if (m->relation && m->relation->ncolumns)
        return true;
    plan_needs_schema(m->p, item->schema, item->name);
    return false;
}

int making_target(const struct making *m)
{
    const struct planner *p = m->p;
    for (int i = 0; i < p->ninstances; i++)
        if (p->instances[i].target && p->levels[p->instances[i].level].query == m->query)
            return i;
    return -1;
}

/* ---- parts that both have ---- */

void making_fill_rows(struct making *m, struct change_rows *rows)
{
    const struct route_session *session = m->p->input->session;
    rows->table = m->relation->name;
    rows->ascii_keys = session && session->foreign_encoding;
    if (m->rule->class != TABLE_SHARDED)
        return;
    rows->key = plan_key_words(m->p, m->rule);
    rows->keyspace = m->rule->keyspace;
    rows->nkeys = table_rule_nkeys(m->rule);
    for (unsigned k = 0; k < rows->nkeys; k++)
        rows->keys[k].blank_padded = scope_blank_padded(m->p, m->rule, k, m->query->relation);
}

/* A shard that has all tables of the statement. */
static unsigned judge(const struct planner *p, unsigned home)
{
    for (int i = 0; i < p->statement->nrelations; i++) {
        const struct relation_ref *ref = &p->statement->relations[i];
        const struct table_rule *rule = plan_rule(p, ref->schema, ref->name);
        if (rule->class == TABLE_PINNED)
            return rule->shard;
    }
    return home;
}

/* All shards take part: whose rows come is not known before. */
void making_finish(struct making *m, unsigned home, const char *reason)
{
    struct planner *p = m->p;
    unsigned nshards = shardmap_shards(p->map);
    struct plan *plan = p->plan;
    m->change->text = p->statement->text;
    m->change->returning = m->query->nreturning > 0;
    plan->kind = PLAN_SCATTER;
    plan->mode = SCATTER_CHANGE;
    plan->shard = home;
    plan->merge = NULL;
    plan->change = m->change;
    m->change->judge = judge(p, home);
    plan->reason = reason;
    plan->queries = arena_array(p->arena, struct shard_query, nshards);
    plan->nqueries = 0;
    for (unsigned s = 0; s < nshards; s++)
        plan->queries[plan->nqueries++] =
            (struct shard_query){.shard = s, .sql = p->statement->text, .primary = true};
    plan->error = (struct pg_error){0};
}

void making_explain(struct making *m, const struct shard_query *queries, int count)
{
    struct plan *plan = m->p->plan;
    if (m->p->input->statement == m->p->statement)
        return;
    plan->queries = arena_array(m->p->arena, struct shard_query, count);
    memcpy(plan->queries, queries, sizeof *queries * (size_t)count);
    plan->nqueries = count;
}

/* ---- INSERT: where its rows come from ---- */

const struct params *plan_take_params(struct planner *p, const struct shard_query *source)
{
    const struct params *all = p->input->params;
    if (!all || !source->params)
        return all;
    struct params *some = arena_new(p->arena, struct params);
    struct param *items = arena_array(p->arena, struct param, source->nparams + 1);
    for (int i = 0; i < source->nparams; i++)
        if (source->params[i] < all->count)
            items[i] = all->items[source->params[i]];
    *some = (struct params){.items = items, .count = source->nparams};
    return some;
}

/* A shard's own values for parameters of `source`, in the places that the client has them. */
static const struct param *place_values(struct planner *p, const struct shard_query *source,
                                        const struct param *values)
{
    const struct params *all = p->input->params;
    struct param *placed = arena_array(p->arena, struct param, all->count + 1);
    if (all->count)
        memcpy(placed, all->items, sizeof *placed * (size_t)all->count);
    for (int i = 0; i < source->nparams; i++)
        if (source->params[i] < all->count)
            placed[source->params[i]] = values[i];
    return placed;
}

void plan_number_as_client(struct planner *p, const struct shard_query *source,
                           struct shard_query *inner)
{
    if (!source->params)
        return;
    if (inner->values)
        inner->values = place_values(p, source, inner->values);
    if (!inner->params) {
        inner->params = source->params;
        inner->nparams = source->nparams;
        return;
    }
    int *numbers = arena_array(p->arena, int, inner->nparams + 1);
    for (int i = 0; i < inner->nparams; i++)
        numbers[i] = source->params[inner->params[i]];
    inner->params = numbers;
}

static bool is_append(const struct plan *plan)
{
    const struct merge_spec *spec = plan->merge;
    bool rows = plan->mode == SCATTER_ROWS || plan->mode == SCATTER_WRITE;
    return plan->kind == PLAN_SCATTER && rows && spec && !spec->nsort && !spec->group &&
           !spec->distinct && spec->limit < 0 && !spec->offset && !spec->limit_param &&
           !spec->offset_param && !spec->hidden;
}

/* Sequences are the first shard's; and a clock or a dice says one thing for all rows. */
static bool differs(const struct planner *p, const struct statement *statement)
{
    for (int i = 0; i < statement->nfunctions; i++)
        if (function_differs(p, &statement->functions[i]))
            return true;
    return false;
}

static void number_gather(struct planner *p, const struct shard_query *source,
                          const struct gather_plan *gather)
{
    for (int i = 0; i < gather->ntables; i++) {
        struct gather_table *table = &gather->tables[i];
        plan_number_as_client(p, source, &table->create);
        plan_number_as_client(p, source, &table->make);
        plan_number_as_client(p, source, &table->source);
        if (table->hides)
            plan_number_as_client(p, source, &table->hidden);
    }
}

/* The rows of `plan` are the sources. False: it cannot be, or only for a description. */
static bool take_sources(struct making *m, const struct shard_query *source,
                         const struct statement *statement, struct plan *plan)
{
    struct planner *p = m->p;
    struct change_plan *change = m->change;
    int count = is_append(plan) ? plan->nqueries : 1;
    struct shard_query *sources = arena_array(p->arena, struct shard_query, count);
    if (plan->kind == PLAN_DIRECT) {
        sources[0] = (struct shard_query){.shard = plan->shard, .sql = statement->text};
    } else if (plan->mode == SCATTER_GATHER) {
        change->gather = plan->gather;
        sources[0] = plan->gather->query;
        sources[0].shard = plan->shard;
        number_gather(p, source, plan->gather);
    } else {
        memcpy(sources, plan->queries, sizeof *sources * (size_t)count);
    }
    for (int i = 0; i < count; i++)
        plan_number_as_client(p, source, &sources[i]);
    change->sources = sources;
    change->nsources = count;
    return true;
}

static bool calls_nextval(const struct statement *statement)
{
    for (int i = 0; i < statement->nfunctions; i++)
        if (same_name(statement->functions[i].name, "nextval"))
            return true;
    return false;
}

/* Whether a plan that would do for the client does not for rows to be inserted. */
static bool is_to_be_gathered(const struct planner *p, const struct statement *statement,
                              const struct plan *plan, bool sharded)
{
    if (plan->kind == PLAN_DIRECT)
        return sharded && calls_nextval(statement);
    return plan->kind == PLAN_SCATTER && plan->mode == SCATTER_ROWS &&
           (!is_append(plan) || differs(p, statement));
}

static bool gives_rows(const struct plan *plan)
{
    return plan->kind == PLAN_DIRECT || is_append(plan) ||
           (plan->kind == PLAN_SCATTER && plan->mode == SCATTER_GATHER);
}

bool making_sources(struct making *m, const struct shard_query *source)
{
    struct planner *p = m->p;
    struct statement_list list = statement_parse(source->sql, p->arena);
    struct plan plan = {.kind = PLAN_DIRECT, .node = NODE_CLASS_PRIMARY, .write = true};
    if (list.count != 1 || list.items[0]->kind != STMT_QUERY || !list.items[0]->query)
        return false;
    const struct statement *statement = list.items[0];
    const struct params *params = plan_take_params(p, source);
    bool sharded = plan_inner_statement(p, statement, params, &plan, false, NULL);
    if (plan.kind == PLAN_SCATTER && plan.mode == SCATTER_WRITE && differs(p, statement))
        return false;
    if (is_to_be_gathered(p, statement, &plan, sharded))
        plan_inner_statement(p, statement, params, &plan, true, NULL);
    if (plan.needs_schema > p->plan->needs_schema)
        p->plan->needs_schema = plan.needs_schema;
    if (plan.needs_params) {
        plan_direct(p, plan_home(p), "shard key parameter not bound yet");
        p->plan->needs_params = true;
        return false;
    }
    if (plan.kind == PLAN_DIRECT && !sharded && calls_nextval(statement))
        plan.shard = 0;
    if (plan.kind == PLAN_REFUSE) {
        p->plan->error = plan.error;
        p->plan->reason = plan.reason;
    }
    return gives_rows(&plan) && take_sources(m, source, statement, &plan);
}

/* ---- INSERT: how its rows go in ---- */

static bool is_bare(const struct expr *value)
{
    return value->kind == EXPR_PARAM ||
           (value->kind == EXPR_CONST &&
            (value->const_kind == CONST_STRING || value->const_kind == CONST_NULL));
}

static bool column_is_bare(const struct query *values, int column)
{
    for (int i = 0; i < values->nrows; i++)
        if (!is_bare(values->rows[i][column]))
            return false;
    return true;
}

static void find_untyped(struct making *m, const struct query *source)
{
    struct change_rows *rows = &m->change->rows;
    int count = source->kind == QUERY_VALUES   ? source->row_width
                : source->kind == QUERY_SELECT ? source->ntargets
                                               : 0;
    bool *untyped = arena_array(m->p->arena, bool, count + 1);
    for (int i = 0; i < count; i++) {
        if (source->kind == QUERY_SELECT && source->targets[i].expr->kind == EXPR_STAR)
            break;
        untyped[i] = source->kind == QUERY_VALUES ? column_is_bare(source, i)
                                                  : is_bare(source->targets[i].expr);
        rows->nuntyped = i + 1;
    }
    rows->untyped = untyped;
}

static bool is_default(const struct expr *expr, void *context)
{
    (void)context;
    return expr->kind == EXPR_DEFAULT;
}

static bool has_default(const struct query *values)
{
    for (int i = 0; i < values->nrows; i++)
        for (int k = 0; k < values->row_width; k++)
            if (expr_any(values->rows[i][k], is_default, NULL))
                return true;
    return false;
}

bool making_hides_target(const struct making *m)
{
    const struct gather_plan *gather = m->change->gather;
    for (int i = 0; gather && i < gather->ntables; i++)
        if (same_name(gather->tables[i].name, m->relation->name))
            return true;
    return false;
}

static bool frame_rows(struct making *m)
{
    struct planner *p = m->p;
    struct change_rows *rows = &m->change->rows;
    struct rewrite_frame frame = {.schema = making_hides_target(m) ? m->relation->schema : NULL};
    if (!rewrite_insert_frame(p->statement->text, &frame, p->arena))
        return false;
    if (!frame.tail.params)
        frame.tail.nparams = p->statement->max_param;
    rows->head = frame.head;
    rows->tail = frame.tail;
    rows->in_one_statement = frame.updates;
    return true;
}

static bool find_positions(struct making *m)
{
    struct planner *p = m->p;
    if (m->rule->class != TABLE_SHARDED)
        return true;
    int target = making_target(m);
    for (unsigned k = 0; target >= 0 && k < table_rule_nkeys(m->rule); k++) {
        int position = insert_key_position(p, m->query, &p->instances[target], k);
        if (position < 0)
            return false;
        m->change->rows.keys[k].position = position;
    }
    return target >= 0;
}

static bool is_clock(const struct expr *expr, void *context)
{
    (void)context;
    return expr->kind == EXPR_OTHER && same_name(expr->name, "SQL VALUE FUNCTION");
}

/* What each copy's server computes for itself. */
static bool updates_differ(const struct making *m)
{
    const struct query *query = m->query;
    if (query->on_conflict_update && differs(m->p, m->p->statement))
        return true;
    for (int i = 0; i < query->nconflict_set; i++)
        if (query->conflict_set[i].expr && expr_any(query->conflict_set[i].expr, is_clock, NULL))
            return true;
    return false;
}

static bool is_insert(const struct making *m)
{
    const struct query *source = m->query->source;
    if (m->rule->class == TABLE_REFERENCE &&
        (updates_differ(m) || !plan_reference_defaults(m->p, m->query)))
        return false;
    return source && !(source->kind == QUERY_VALUES && has_default(source)) &&
           plan_keeps_key(m->p, m->query, -1);
}

/* Rows whose key is that of the row they come from are on their shard already. */
static bool stays_on_shard(struct making *m)
{
    const struct planner *p = m->p;
    int target = making_target(m);
    if (target < 0 || m->change->gather || m->change->nsources < 2)
        return false;
    for (int i = 0; i < p->nedges; i++)
        if (p->edges[i].to == target && p->edges[i].forward)
            return true;
    return false;
}

static void insert_on_each(struct making *m)
{
    struct planner *p = m->p;
    struct plan *plan = p->plan;
    int count = m->change->nsources;
    plan->kind = PLAN_SCATTER;
    plan->mode = SCATTER_WRITE;
    plan->queries = arena_array(p->arena, struct shard_query, count);
    plan->nqueries = count;
    for (int i = 0; i < count; i++)
        plan->queries[i] =
            (struct shard_query){.shard = m->change->sources[i].shard, .sql = p->statement->text};
    plan_append_rows(p, m->query);
    plan->error = (struct pg_error){0};
    plan->reason = arena_printf(p->arena, "rows of %s keep their shard key", m->relation->name);
}

static void change_insert(struct making *m)
{
    struct planner *p = m->p;
    struct shard_query source = {0};
    m->change = arena_new(p->arena, struct change_plan);
    if (!is_insert(m) || !find_positions(m) ||
        !rewrite_insert_source(p->statement->text, p->arena, &source) ||
        !making_sources(m, &source) || !frame_rows(m))
        return;
    if (stays_on_shard(m)) {
        insert_on_each(m);
        return;
    }
    making_fill_rows(m, &m->change->rows);
    m->change->verb = "INSERT 0";
    find_untyped(m, m->query->source);
    making_finish(m, m->change->sources[0].shard,
                  arena_printf(p->arena, "rows of a query into %s", m->relation->name));
    making_explain(m, m->change->sources, m->change->nsources);
}

/* ---- UPDATE of keys ---- */

static bool is_mentioned_once(const struct making *m)
{
    const struct statement *statement = m->p->statement;
    int count = 0;
    for (int i = 0; i < statement->nrelations; i++) {
        const struct relation_ref *ref = &statement->relations[i];
        count += same_name(ref->name, m->relation->name);
    }
    return count == 1;
}

struct volatile_search {
    const struct planner *p;
};

/* It is computed twice: to find the shard, and for the row. */
static bool is_fickle(const struct expr *expr, void *context)
{
    const struct volatile_search *search = context;
    if (expr->kind != EXPR_FUNC)
        return expr->kind == EXPR_SUBLINK;
    struct function_ref call = {expr->qualifier, expr->name, expr->nargs};
    return function_differs(search->p, &call);
}

static bool key_is_steady(const struct making *m)
{
    struct volatile_search search = {m->p};
    for (int i = 0; i < m->query->ntargets; i++)
        for (unsigned k = 0; k < table_rule_nkeys(m->rule); k++)
            if (same_name(m->query->targets[i].alias, table_rule_key(m->rule, k)) &&
                expr_any(m->query->targets[i].expr, is_fickle, &search))
                return false;
    return true;
}

static bool is_update(const struct making *m)
{
    const struct planner *p = m->p;
    return p->moves_key && !m->query->nctes && m->rule->class == TABLE_SHARDED &&
           making_target(m) >= 0 && !(p->statement->facts & FACT_MODIFYING_CTE) &&
           (m->relation->kind == 'r' || m->relation->kind == 'p') && is_mentioned_once(m) &&
           key_is_steady(m);
}

static void put_literal(struct buffer *out, const char *text)
{
    buffer_append(out, "'", 1);
    for (; *text; text++)
        buffer_append(out, *text == '\'' ? "''" : text, *text == '\'' ? 2 : 1);
    buffer_append(out, "'", 1);
}

/*
 * The row that is taken away must be whole, and nothing else may go with it: a column that the schema does
 * not know yet, columns of a child's own, rows that refer to it and are deleted or emptied along.
 */
static const char *checks(const struct making *m)
{
    struct buffer name = {0};
    put_literal(&name, m->relation->schema);
    buffer_printf(&name, " AND c.relname = ");
    put_literal(&name, m->relation->name);
    buffer_append(&name, "", 1);
    const char *sql = arena_printf(
        m->p->arena,
        "SELECT CASE WHEN (SELECT pg_catalog.count(*) FROM pg_catalog.pg_attribute AS a"
        " WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) <> %d THEN 'columns'"
        " WHEN c.relkind = 'r' AND c.relhassubclass THEN 'children'"
        " WHEN EXISTS (SELECT FROM pg_catalog.pg_constraint AS f WHERE f.confrelid = c.oid"
        " AND f.contype = 'f' AND f.confdeltype IN ('c', 'n', 'd')) THEN 'cascade' END"
        " FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n"
        " ON n.oid = c.relnamespace WHERE n.nspname = %s",
        m->relation->ncolumns, (const char *)buffer_head(&name));
    buffer_release(&name);
    return sql;
}

#define OID_TEXT_ARRAY 1009
#define OID_TID_ARRAY 1010

static bool fill_move(struct making *m, struct rewrite_move *from, struct change_move *move)
{
    struct planner *p = m->p;
    struct change_rows *rows = &m->change->rows;
    if (!rewrite_move(p->statement->text, from, p->arena))
        return false;
    *move = (struct change_move){
        .look = from->look,
        .stay = from->stay,
        .go = from->go,
        .checks = checks(m),
        .list = from->list,
        .list_type = m->relation->kind == 'p' ? OID_TEXT_ARRAY : OID_TID_ARRAY,
    };
    rows->head = from->head;
    rows->tail = from->tail;
    if (!rows->tail.params)
        rows->tail.nparams = from->list;
    for (unsigned k = 0; k < from->nkeys; k++)
        rows->keys[k].position = from->positions[k];
    rows->untyped = from->untyped;
    rows->nuntyped = from->ncolumns;
    m->change->move = move;
    return true;
}

static void look_at(struct making *m, const struct shard_set *reach)
{
    unsigned nshards = shardmap_shards(m->p->map),
             *shards = arena_array(m->p->arena, unsigned, nshards);
    for (unsigned s = 0; s < nshards; s++)
        if (shards_contain(reach, s) && plan_may_have(m->rule->keyspace, s))
            shards[m->change->nlook_at++] = s;
    m->change->look_at = shards;
}

/* Each shard looks at the rows that it owns. False: refused. */
static bool fill_looks(struct making *m, struct change_move *move)
{
    struct planner *p = m->p;
    struct change_plan *change = m->change;
    struct shard_query *looks = arena_array(p->arena, struct shard_query, change->nlook_at);
    for (int i = 0; i < change->nlook_at; i++) {
        looks[i] = move->look;
        looks[i].shard = change->look_at[i];
        if (!plan_hide_text(p, &looks[i]))
            return false;
    }
    move->looks = looks;
    return true;
}

static void change_update(struct making *m)
{
    struct planner *p = m->p;
    struct shard_set reach = plan_reach(p);
    struct rewrite_move move = {.relation = m->relation,
                                .keys = m->rule->nparts ? m->rule->parts : &m->rule->key,
                                .nkeys = table_rule_nkeys(m->rule),
                                .list = p->statement->max_param};
    if (!is_update(m) || reach.kind == SHARDS_NONE)
        return;
    move.types = m->rule->keyspace->types;
    m->change = arena_new(p->arena, struct change_plan);
    struct change_move *moving = arena_new(p->arena, struct change_move);
    if (!fill_move(m, &move, moving))
        return;
    making_fill_rows(m, &m->change->rows);
    m->change->verb = "UPDATE";
    look_at(m, &reach);
    if (!fill_looks(m, moving))
        return;
    making_finish(m, m->change->look_at[0],
                  arena_printf(p->arena, "rows of %s get other keys", m->relation->name));
    making_explain(m, moving->looks, m->change->nlook_at);
}

/* ---- UPDATE and DELETE that read rows of other shards ---- */

const char *change_of_shard(const char *sql, unsigned shard, struct arena *arena)
{
    static const char mark[] = "-1 AS " CHANGE_SHARD;
    const char *found = strstr(sql, mark);
    if (!found)
        return sql;
    return arena_printf(arena, "%.*s%u%s", (int)(found - sql), sql, shard, found + 2);
}

static bool is_apart(const struct making *m)
{
    const struct planner *p = m->p;
    return !p->moves_key && m->rule->class == TABLE_SHARDED && making_target(m) >= 0 &&
           !(p->statement->facts & (FACT_MODIFYING_CTE | FACT_LOCKING)) &&
           (m->relation->kind == 'r' || m->relation->kind == 'p');
}

static bool find_apart(struct making *m, const struct shard_query *source)
{
    struct planner *p = m->p;
    struct statement_list list = statement_parse(source->sql, p->arena);
    struct plan plan = {.kind = PLAN_DIRECT, .node = NODE_CLASS_PRIMARY, .write = true};
    if (list.count != 1 || list.items[0]->kind != STMT_QUERY || !list.items[0]->query)
        return false;
    plan_inner_statement(p, list.items[0], plan_take_params(p, source), &plan, true, m->relation);
    if (plan.needs_schema > p->plan->needs_schema)
        p->plan->needs_schema = plan.needs_schema;
    return plan.kind == PLAN_SCATTER && plan.mode == SCATTER_GATHER &&
           take_sources(m, source, list.items[0], &plan);
}

/* What would be said if it were refused is why it is done so. */
static const char *reason_of(struct planner *p, const char *message)
{
    const char *end = strstr(message, " is not supported yet");
    return end ? arena_strndup(p->arena, message, (size_t)(end - message)) : message;
}

static void change_apart(struct making *m)
{
    struct planner *p = m->p;
    struct rewrite_apart apart = {.relation = m->relation};
    struct pg_error refusal = p->plan->error;
    if (!is_apart(m) || !plan_keeps_key(p, m->query, -1))
        return;
    m->change = arena_new(p->arena, struct change_plan);
    if (!rewrite_apart(p->statement->text, &apart, p->arena) || !find_apart(m, &apart.source))
        return;
    struct change_rows *rows = &m->change->rows;
    rows->table = m->relation->name;
    rows->by_shard = true;
    rows->skip = 1;
    rows->head = apart.head;
    rows->tail = apart.tail;
    if (!rows->tail.params)
        rows->tail.nparams = p->statement->max_param;
    m->change->verb = m->query->kind == QUERY_UPDATE ? "UPDATE" : "DELETE";
    making_finish(m, m->change->sources[0].shard, reason_of(p, refusal.message));
    struct shard_query whole = {.shard = m->change->judge, .sql = p->statement->text};
    making_explain(m, &whole, 1);
}

void plan_change(struct planner *p, const struct query *query)
{
    struct making m = {.p = p, .query = query};
    if (!may_change(p, query) || !find_relation(&m))
        return;
    if (query->kind == QUERY_INSERT)
        change_insert(&m);
    else if (query->kind == QUERY_MERGE)
        change_merge(&m);
    else if (p->moves_key)
        change_update(&m);
    else
        change_apart(&m);
}
