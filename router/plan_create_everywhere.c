/*
 * plan_create_everywhere.c: CREATE TABLE AS and SELECT INTO of a table that is sharded, or of reference.
 *
 * Where the query gives each row the key of the row it comes from, every shard makes the table with its own rows. Else
 * it is made without any, and the query's rows are inserted, each where its key leads: as by INSERT ... SELECT.
 */
#include "router/plan_change_internal.h"

/* ---- rows that stay where they are ---- */

struct shown {
    const struct planner *sub; /* has seen the query */
    const struct scope *scope;
    const struct rewrite_create *form;
    const struct table_rule *rule; /* of the new table */
};

/* The expression that becomes the column; NULL: none is seen to. With a list of names it is told by its place. */
static const struct expr *shown_as(const struct shown *s, const char *name)
{
    const struct query *q = s->scope->query;
    const struct expr *found = NULL;
    for (int i = 0; i < q->ntargets; i++) {
        if (q->targets[i].expr->kind == EXPR_STAR)
            return s->form->nnames ? NULL : found;
        const char *own = target_name(&q->targets[i]);
        if (i < s->form->nnames)
            own = s->form->names[i];
        if (own && same_name(own, name))
            found = q->targets[i].expr;
    }
    return found;
}

static bool covers(const struct expr *star, const struct from_item *item)
{
    const char *name = item->alias ? item->alias : item->name;
    return !star->qualifier || (!star->schema && name && same_name(star->qualifier, name));
}

/* Whether a star of the query shows the instance's column of that name, under it. */
static bool is_in_star(const struct shown *s, const struct instance *instance)
{
    const struct query *q = s->scope->query;
    for (int i = 0; i < q->ntargets && !s->form->nnames; i++)
        if (q->targets[i].expr->kind == EXPR_STAR && covers(q->targets[i].expr, instance->item))
            return true;
    return false;
}

/* Whether the new table's column is that column of the instance's key. */
static bool shows_part(const struct shown *s, int i, unsigned part)
{
    const struct instance *instance = &s->sub->instances[i];
    const char *name = table_rule_key(s->rule, part);
    const struct expr *expr = shown_as(s, name);
    if (!expr)
        return same_name(table_rule_key(instance->rule, part), name) && is_in_star(s, instance);
    return instance->rule->nparts ? composite_part(s->sub, s->scope, expr, i) == (int)part
                                  : scope_resolve(s->sub, s->scope, expr) == i;
}

static bool shows_key(const struct shown *s, int i)
{
    const struct instance *instance = &s->sub->instances[i];
    if (instance->rule->class != TABLE_SHARDED || instance->rule->keyspace != s->rule->keyspace ||
        instance->nullable || instance->renamed || instance->derived ||
        instance->rule->nparts != s->rule->nparts || !*table_rule_key(instance->rule, 0))
        return false;
    for (unsigned k = 0; k < table_rule_nkeys(s->rule); k++)
        if (!shows_part(s, i, k))
            return false;
    return true;
}

static bool keeps_key(struct planner *p, const struct statement *inner,
                      const struct table_rule *rule, const struct rewrite_create *form)
{
    static const struct hints none = {.shard = NULL};
    struct route_input *input = arena_new(p->arena, struct route_input);
    struct planner *sub = arena_new(p->arena, struct planner);
    struct plan *plan = arena_new(p->arena, struct plan);
    if (rule->class != TABLE_SHARDED || inner->query->kind != QUERY_SELECT || inner->query->nctes)
        return false;
    *input = *p->input;
    input->statement = inner;
    plan_init(sub, input, &none, p->arena, plan);
    sub->work = p->work;
    sub->views = p->views;
    sub->touches_held = NULL;
    plan_scan(sub, inner->query);
    if (!sub->nlevels || sub->too_many || sub->levels[0].query != inner->query)
        return false;
    struct scope scope = {.query = inner->query, .end = sub->levels[0].end};
    struct shown shown = {sub, &scope, form, rule};
    for (int i = 0; i < scope.end; i++)
        if (shows_key(&shown, i))
            return true;
    return false;
}

/* ---- the plan ---- */

static void make_on_each(struct making *m, const struct statement *create,
                         const struct rewrite_create *form, struct change_create *creating)
{
    struct planner *p = m->p;
    unsigned nshards = shardmap_shards(p->map);
    struct shard_query *each = arena_array(p->arena, struct shard_query, nshards);
    for (unsigned s = 0; s < nshards; s++)
        each[s] = form->made;
    for (int i = 0; i < m->change->nsources; i++)
        plan_fill_create(p, create, &m->change->sources[i], &each[m->change->sources[i].shard]);
    creating->each = each;
    m->change->nsources = 0;
}

static void fill_rows(struct making *m, const struct statement *create,
                      const struct rewrite_create *form, struct change_create *creating)
{
    struct planner *p = m->p;
    struct change_rows *rows = &m->change->rows;
    const struct route_session *session = p->input->session;
    rows->table = create->relations[0].name;
    rows->head = form->head;
    rows->tail = (struct shard_query){.sql = ""};
    rows->ascii_keys = session && session->foreign_encoding;
    creating->names = form->names;
    creating->nnames = form->nnames;
    if (m->rule->class != TABLE_SHARDED)
        return;
    rows->key = plan_key_words(p, m->rule);
    rows->keyspace = m->rule->keyspace;
    rows->nkeys = table_rule_nkeys(m->rule);
    const char **keys = arena_array(p->arena, const char *, rows->nkeys);
    for (unsigned k = 0; k < rows->nkeys; k++)
        keys[k] = table_rule_key(m->rule, k);
    creating->keys = keys;
}

/* A temporary table of that name would be taken for it. */
static bool is_hidden(const struct change_plan *change, const struct relation_ref *table)
{
    for (int i = 0; change->gather && i < change->gather->ntables; i++)
        if (!table->schema && same_name(change->gather->tables[i].name, table->name))
            return true;
    return false;
}

static bool may_create(const struct planner *p)
{
    const struct statement *outer = p->statement;
    const struct route_session *session = p->input->session;
    bool said = p->hints->key || (session && session->key && *session->key);
    return p->input->statement == outer && p->schema && !said &&
           !(outer->facts & FACT_MODIFYING_CTE) && !(session && session->temp_tables);
}

static void refuse(struct planner *p)
{
    plan_refuse(p, "Create the table first, then fill it with INSERT.",
                "%s for a table that is on every shard, in this form, is not supported yet",
                p->statement->tag);
}

void plan_create_everywhere(struct planner *p, const struct table_rule *rule)
{
    const struct statement *outer = p->statement, *create;
    struct rewrite_create form = {.nnames = 0};
    struct change_create *creating = arena_new(p->arena, struct change_create);
    refuse(p);
    if (!may_create(p) || !(create = plan_as_create(p, outer)) || !create->inner->query ||
        !rewrite_create_parts(create->text, p->arena, &form))
        return;
    struct making m = {.p = p, .query = create->inner->query, .rule = rule};
    m.change = arena_new(p->arena, struct change_plan);
    struct shard_query source = {.sql = create->inner->text};
    if (!making_sources(&m, &source) || is_hidden(m.change, &create->relations[0]))
        return;
    creating->everywhere = true;
    creating->without = form.without;
    creating->exists = form.exists;
    creating->made = form.made;
    m.change->create = creating;
    m.change->verb = "SELECT";
    fill_rows(&m, create, &form, creating);
    unsigned home = m.change->sources[0].shard;
    bool stays = !m.change->gather && keeps_key(p, create->inner, rule, &form);
    if (stays)
        make_on_each(&m, create, &form, creating);
    making_finish(
        &m, home,
        stays ? arena_printf(p->arena, "rows of %s keep their shard key", create->relations[0].name)
              : arena_printf(p->arena, "rows of a query into %s", create->relations[0].name));
}
