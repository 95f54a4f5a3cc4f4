/*
 * plan_view.c: views of sharded tables.
 *
 * What a view is made of comes with the schema. Its definition is planned like a query of its own, which
 * tells one of two things:
 *
 *   local   every shard can answer for its own rows, and all answers one after the other are the view. It is
 *           then like a sharded table: its key is the column that shows one. Statements keep its name, so that
 *           the servers judge who may read it, and what its owner may.
 *   else    the statement is planned again with the definition as a subquery in the view's place. If one
 *           shard answers that, it gets the statement as it was; else the tables behind the view are
 *           gathered, which is done by who reads it.
 */
#include "router/plan_internal.h"

#define VIEWS_DEEP 16

/* ---- looking behind one ---- */

/* Whether the view's column is a key of what is behind it, or of such a key. */
static bool view_shows_key(const struct view *view, const char *column)
{
    const struct schema_relation *relation = view->relation;
    for (int i = 0; i < relation->ncolumns && view->shows_key; i++)
        if (view->shows_key[i] && same_name(relation->columns[i].name, column))
            return true;
    return false;
}

static struct planner *sub_planner(const struct planner *p, const struct statement *statement,
                                   const struct route_input *input, struct plan *plan)
{
    struct planner *sub = arena_new(p->arena, struct planner);
    plan_init(sub, input, p->hints, p->arena, plan);
    sub->statement = statement;
    sub->work = p->work;
    sub->views = p->views;
    sub->touches_held = NULL;
    return sub;
}

/* Rows of each shard as they come: no limit, no group, nothing told apart. */
static bool is_appended(const struct plan *plan)
{
    const struct merge_spec *spec = plan->merge;
    return plan->kind == PLAN_SCATTER && plan->mode == SCATTER_ROWS && spec && !spec->group &&
           !spec->distinct && spec->limit < 0 && !spec->offset && !spec->limit_param &&
           !spec->offset_param;
}

static bool find_shards(const struct planner *sub, struct view *view)
{
    const struct plan *plan = sub->plan;
    if (is_appended(plan))
        view->set = plan_top_reach(sub);
    else if (plan->kind == PLAN_DIRECT && plan_reach(sub).kind == SHARDS_ONE)
        view->set = (struct shard_set){
            .kind = SHARDS_ONE, .one = plan->shard, .not_held = plan_reach(sub).not_held};
    else
        return false;
    return true;
}

/* A column that a view behind this one shows, beside its key: a change of it changes the key. */
static bool is_shown_again(const struct planner *sub, const struct scope *scope,
                           const struct expr *expr)
{
    const struct from_item *item =
        expr->kind == EXPR_COLUMN ? scope_item(sub, scope->query, expr) : NULL;
    for (int i = scope->first; item && i < scope->end; i++) {
        const struct instance *instance = &sub->instances[i];
        if (instance->item == item && instance->view && view_shows_key(instance->view, expr->name))
            return true;
    }
    return false;
}

/* Whether the expression is a key, or a column of one that has several. */
static bool is_of_key(const struct planner *sub, const struct scope *scope, const struct expr *expr)
{
    if (scope_resolve(sub, scope, expr) >= 0 || is_shown_again(sub, scope, expr))
        return true;
    for (int i = scope->first; i < scope->end; i++)
        if (composite_part(sub, scope, expr, i) >= 0)
            return true;
    return false;
}

/* The item of the select list that is this column of the instance's key; -1: none. */
static int part_target(const struct planner *sub, const struct scope *scope, int instance,
                       unsigned part)
{
    for (int i = 0; i < scope->query->ntargets; i++)
        if (composite_part(sub, scope, scope->query->targets[i].expr, instance) == (int)part)
            return i;
    return -1;
}

/* False: not all columns of the instance's key are shown. */
static bool take_parts(const struct planner *sub, const struct scope *scope, int instance,
                       struct view *view)
{
    const struct table_rule *rule = sub->instances[instance].rule;
    if (!rule->nparts || sub->instances[instance].nullable || sub->instances[instance].renamed)
        return false;
    const char **parts = arena_array(sub->arena, const char *, rule->nparts);
    for (unsigned k = 0; k < rule->nparts; k++) {
        int target = part_target(sub, scope, instance, k);
        if (target < 0)
            return false;
        parts[k] = view->relation->columns[target].name;
    }
    view->rule.keyspace = rule->keyspace;
    view->rule.parts = parts;
    view->rule.nparts = rule->nparts;
    return true;
}

/* The view's columns are those of the select list, one by one. */
static void find_key(const struct planner *sub, struct view *view)
{
    const struct query *query = view->definition->query;
    const struct schema_relation *relation = view->relation;
    const struct scope scope = {.query = query, .first = 0, .end = (short)sub->levels[0].end};
    int target;
    int instance = derived_shown_key(sub, query, &target);
    view->rule = (struct table_rule){.schema = relation->schema,
                                     .name = relation->name,
                                     .class = TABLE_SHARDED,
                                     .keyspace = sub->instances[0].rule->keyspace,
                                     .key = ""};
    for (int i = 0; i < sub->ninstances; i++)
        view->several_columns |=
            sub->instances[i].rule->nparts > 0 ||
            (sub->instances[i].view && sub->instances[i].view->several_columns);
    if (query->ntargets != relation->ncolumns)
        return;
    view->shows_key = arena_array(sub->arena, bool, query->ntargets);
    for (int i = 0; i < query->ntargets; i++)
        view->shows_key[i] = is_of_key(sub, &scope, query->targets[i].expr);
    if (instance >= 0) {
        view->rule.keyspace = sub->instances[instance].rule->keyspace;
        view->rule.key = relation->columns[target].name;
        return;
    }
    for (int i = scope.first; i < scope.end && query->kind == QUERY_SELECT; i++)
        if (take_parts(sub, &scope, i, view))
            return;
}

static void look(struct planner *p, struct view *view)
{
    struct route_input *input = arena_new(p->arena, struct route_input);
    struct plan *plan = arena_new(p->arena, struct plan);
    static const struct hints none = {.shard = NULL};
    *input = (struct route_input){
        .statement = view->definition, .map = p->map, .schema = p->schema, .session = NULL};
    struct planner *sub = sub_planner(p, view->definition, input, plan);
    sub->hints = &none;
    sub->may_wait = false;
    plan_in_gears(sub, view->definition->query);
    view->sharded = sub->ninstances || sub->view || view->relation->kind == 'v';
    if (!sub->ninstances || sub->failed || sub->view || !find_shards(sub, view))
        return;
    find_key(sub, view);
    if (!*view->rule.key && !view->rule.nparts && view->rule.keyspace &&
        view->rule.keyspace->ghosts && view->relation->kind == 'v')
        return; /* which of its rows a shard does not own can be told inside of it only */
    view->ordered = view->definition->query->norder_by > 0;
    view->local = true;
}

bool view_is_local(struct planner *p, const struct statement *definition)
{
    struct schema_relation *relation = arena_new(p->arena, struct schema_relation);
    struct view view = {.relation = relation, .definition = definition};
    *relation = (struct schema_relation){.schema = "", .name = "", .kind = 'm'};
    p->views->depth++;
    look(p, &view);
    p->views->depth--;
    return view.local && view.set.kind == SHARDS_ALL;
}

static const struct statement *read_definition(struct planner *p,
                                               const struct schema_relation *relation)
{
    if (!relation->definition)
        return NULL;
    struct statement_list list = statement_parse(relation->definition, p->arena);
    bool fits = list.count == 1 && !list.items[0]->syntax_error && list.items[0]->query;
    return fits ? list.items[0] : NULL;
}

static const struct view *find_view(const struct planner *p, const struct schema_relation *relation)
{
    for (const struct view *view = p->views->list; view; view = view->next)
        if (view->relation == relation)
            return view;
    return NULL;
}

static const struct view *learn(struct planner *p, const struct schema_relation *relation)
{
    struct view *view = arena_new(p->arena, struct view);
    *view = (struct view){.relation = relation, .sharded = true, .next = p->views->list};
    p->views->list =
        view; /* before it is looked at: Postgres knows no view of itself, but who knows */
    view->definition = read_definition(p, relation);
    if (!view->definition || p->views->depth == VIEWS_DEEP)
        return view;
    p->views->depth++;
    look(p, view);
    p->views->depth--;
    return view;
}

static bool has_sharded_behind(const struct planner *p, const struct schema_relation *relation)
{
    struct view_content holds;
    return plan_is_view(p, relation->schema, relation->name, &holds) && holds.hidden;
}

const struct view *view_of(const struct planner *p, const char *schema, const char *name)
{
    const struct schema_relation *relation = plan_relation(p, schema, name);
    if (!relation || (relation->kind != 'v' && relation->kind != 'm'))
        return NULL;
    if (p->may_wait && !p->plan->needs_schema)
        p->plan->needs_schema = SCHEMA_CURRENT;
    const struct view *view = find_view(p, relation);
    if (!view &&
        (relation->kind == 'm' ? relation->definition != NULL : has_sharded_behind(p, relation)))
        view = learn((struct planner *)p, relation); /* fills what is remembered alone */
    return view && view->sharded ? view : NULL;
}

const char *view_changed(const struct planner *p, const char *name)
{
    const struct route_session *session = p->input->session;
    for (const char *const *at = session ? session->changed_views : NULL; at && *at; at++)
        if (same_name(*at, name))
            return *at;
    return NULL;
}

/* ---- putting it in ---- */

bool view_replace(struct planner *p, const struct view *view)
{
    if (!view->definition || view->relation->kind != 'v')
        return false;
    for (int i = 0; i < p->nreplace; i++)
        if (p->replace[i] == view)
            return true;
    if (p->nreplace == PLAN_MAX_REPLACED)
        return false;
    p->replace[p->nreplace++] = view;
    return true;
}

/* Whether the name of a view to be put in means something else, too, in this statement. */
static bool is_ambiguous(const struct planner *p)
{
    for (int i = 0; i < p->statement->nrelations; i++) {
        const struct relation_ref *ref = &p->statement->relations[i];
        for (int k = 0; k < p->nreplace; k++)
            if (same_name(ref->name, p->replace[k]->relation->name) &&
                plan_relation(p, ref->schema, ref->name) != p->replace[k]->relation)
                return true;
    }
    return false;
}

/* The statement with the definitions in it; NULL: it cannot be made. */
static struct statement *put_in(struct planner *p)
{
    const struct schema_relation *relations[PLAN_MAX_REPLACED];
    struct shard_query out = {0};
    for (int i = 0; i < p->nreplace; i++)
        relations[i] = p->replace[i]->relation;
    if (!rewrite_views(p->statement->text, relations, p->nreplace, p->arena, &out))
        return NULL;
    struct statement_list list = statement_parse(out.sql, p->arena);
    if (list.count != 1 || list.items[0]->syntax_error || !list.items[0]->query)
        return NULL;
    return list.items[0];
}

bool view_plan(struct planner *p)
{
    if (p->rounds == VIEWS_DEEP || is_ambiguous(p))
        return false;
    struct statement *statement = put_in(p);
    if (!statement)
        return false;
    struct planner *sub = sub_planner(p, statement, p->input, p->plan);
    sub->touches_held = p->touches_held;
    sub->written = p->written ? p->written : p->statement;
    sub->opened = p->written ? p->opened : p->replace;
    sub->nopened = p->written ? p->nopened : p->nreplace;
    sub->rounds = p->rounds + 1;
    statement->location = sub->written->location; /* it stands where that stood */
    statement->length = sub->written->length;
    plan_query(sub, statement->query);
    return true;
}

/* ---- who may read it ---- */

const char *view_guarded(const struct planner *p)
{
    bool owned = false;
    for (int i = 0; i < p->nopened; i++)
        owned |= !p->opened[i]->relation->invoker;
    for (int i = 0; i < p->statement->nrelations && owned; i++) {
        const struct relation_ref *ref = &p->statement->relations[i];
        const struct schema_relation *relation =
            schema_relation_any(p->schema, ref->schema, ref->name);
        if (relation && relation->row_security)
            return relation->name;
    }
    return NULL;
}

const char *const *view_checks(struct planner *p, int *count)
{
    struct rewrite_gather rewrite = {.schema = p->schema, .ntables = p->nopened};
    struct shard_query ignored = {0};
    const char **checks = arena_array(p->arena, const char *, p->nopened + 1);
    rewrite.tables = arena_array(p->arena, struct rewrite_gather_table, p->nopened + 1);
    for (int i = 0; i < p->nopened; i++) {
        const struct schema_relation *relation = p->opened[i]->relation;
        rewrite.tables[i].relation = relation;
        rewrite.tables[i].unqualified = plan_relation(p, NULL, relation->name) == relation;
        rewrite.tables[i].used = arena_array(p->arena, bool, relation->ncolumns + 1);
    }
    if (!rewrite_gather(p->written->text, &rewrite, p->arena, &ignored))
        return NULL;
    for (int i = 0; i < p->nopened; i++)
        checks[i] = rewrite.tables[i].probe;
    *count = p->nopened;
    return checks;
}

/* ---- changing what is behind it ---- */

static bool shows_other_key(const struct view *view, const char *column)
{
    for (unsigned k = 0; k < table_rule_nkeys(&view->rule); k++)
        if (same_name(column, table_rule_key(&view->rule, k)))
            return false;
    return view_shows_key(view, column);
}

static bool sets_other_key(const struct view *view, const struct target *list, int count)
{
    for (int i = 0; i < count; i++)
        if (list[i].alias && shows_other_key(view, list[i].alias))
            return true;
    return false;
}

static void refuse_change(struct planner *p, const struct view *view)
{
    bool hidden = view->several_columns && !view->rule.nparts;
    plan_refuse(p, "Change the table itself.",
                hidden ? "view \"%s\" does not show all columns of the shard key of its table, and "
                         "a change of one of them might move rows to another shard"
                       : "view \"%s\" shows the shard key of its table twice, and a change of the "
                         "other column might move rows to another shard",
                view->relation->name);
}

bool view_may_change(struct planner *p, const struct view *view, const struct query *query)
{
    bool update = query->kind == QUERY_UPDATE || query->kind == QUERY_INSERT;
    if ((!update || !sets_other_key(view, query->targets, query->ntargets)) &&
        !sets_other_key(view, query->conflict_set, query->nconflict_set))
        return true;
    refuse_change(p, view);
    return false;
}
