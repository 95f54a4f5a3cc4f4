/* plan_scan.c: one walk over a statement: every table at every level, and what pins it to shards. */
#include "router/plan_internal.h"

enum link_kind {
    LINK_NONE,
    LINK_TEST, /* `key IN (SELECT x ...)`: rows matter where x equals the instance's key */
    LINK_PASS, /* FROM (SELECT ...) x: x's key is that of an instance inside */
    LINK_FEED, /* INSERT ... SELECT: the column at `position` becomes the instance's key */
};

/* What the query that is walked next has to do with an instance outside of it. */
struct link {
    enum link_kind kind;
    int instance;
    int position;         /* of its key among the query's results */
    const int *positions; /* ... of the columns of its key, where it has several */
};

struct walk {
    struct planner *p;
    const struct scope *scope;
    const struct cte_names *ctes;
};

static void scan_query(struct planner *p, const struct query *query, enum level_place place,
                       const struct scope *parent, const struct cte_names *ctes, struct link link);
static void scan_expr(const struct walk *w, const struct expr *expr);

static bool has_subqueries(const struct planner *p)
{
    return p->statement->facts & FACT_SUBQUERY;
}

/* ---- expressions ---- */

static void scan_sort(const struct walk *w, const struct sort_item *items, int count)
{
    for (int i = 0; i < count; i++)
        scan_expr(w, items[i].expr);
}

/* `(a, b) IN (SELECT ...)`, where these are the columns of a key. */
static struct link row_link(const struct walk *w, const struct expr *row)
{
    struct planner *p = w->p;
    for (int i = w->scope->first; i < w->scope->end; i++) {
        int *positions = arena_array(p->arena, int, SHARDMAP_MAX_PARTS);
        unsigned found = 0, nparts = p->instances[i].rule->nparts;
        for (int c = 0; nparts && !p->instances[i].nullable && c < row->nargs; c++) {
            int part = composite_part(p, w->scope, row->args[c], i);
            if (part < 0)
                continue;
            positions[part] = c;
            found |= 1U << part;
        }
        if (found && found == (1U << nparts) - 1)
            return (struct link){.kind = LINK_TEST, .instance = i, .positions = positions};
    }
    return (struct link){.kind = LINK_NONE, .instance = -1};
}

/*
 * `key IN (SELECT ...)`, or `key <> ALL (SELECT ...)`: whatever is around it, only rows that equal the
 * key count. Where the key may be NULL, an empty result and a result without a match are different, so
 * nothing follows then.
 */
static struct link sublink_link(const struct walk *w, const struct expr *sublink)
{
    const struct link none = {.kind = LINK_NONE, .instance = -1};
    bool any = same_name(sublink->name, "ANY") &&
               (!sublink->qualifier || same_name(sublink->qualifier, "="));
    bool all = same_name(sublink->name, "ALL") && sublink->qualifier &&
               same_name(sublink->qualifier, "<>");
    if ((!any && !all) || sublink->nargs != 1 || w->p->too_many)
        return none;
    if (sublink->args[0]->kind == EXPR_ROW)
        return row_link(w, sublink->args[0]);
    int i = scope_resolve(w->p, w->scope, sublink->args[0]);
    if (i < 0 || w->p->instances[i].nullable)
        return none;
    return (struct link){.kind = LINK_TEST, .instance = i};
}

static void scan_expr(const struct walk *w, const struct expr *expr)
{
    if (!expr)
        return;
    for (int i = 0; i < expr->nargs; i++)
        scan_expr(w, expr->args[i]);
    if (expr->kind == EXPR_FUNC) {
        scan_expr(w, expr->call->filter);
        scan_sort(w, expr->call->order_by, expr->call->norder_by);
    }
    if (expr->kind == EXPR_SUBLINK && expr->query)
        scan_query(w->p, expr->query, LEVEL_SUBLINK, w->scope, w->ctes, sublink_link(w, expr));
}

static void scan_exprs(const struct walk *w, struct expr **exprs, int count)
{
    for (int i = 0; i < count; i++)
        scan_expr(w, exprs[i]);
}

static void scan_targets(const struct walk *w, const struct target *targets, int count)
{
    for (int i = 0; i < count; i++)
        scan_expr(w, targets[i].expr);
}

/* ---- FROM ---- */

/* The subquery's derived instance, if it has one. */
static struct link pass_link(const struct walk *w, const struct from_item *item)
{
    for (int i = w->scope->first; i < w->scope->end; i++)
        if (w->p->instances[i].item == item && w->p->instances[i].derived)
            return (struct link){.kind = LINK_PASS, .instance = i};
    return (struct link){.kind = LINK_NONE, .instance = -1};
}

static void scan_from(const struct walk *w, const struct from_item *item)
{
    if (item->subquery)
        scan_query(w->p, item->subquery, LEVEL_OTHER, item->lateral ? w->scope : w->scope->parent,
                   w->ctes, pass_link(w, item));
    scan_expr(w, item->function);
    if (item->left)
        scan_from(w, item->left);
    if (item->right)
        scan_from(w, item->right);
    scan_expr(w, item->on);
}

static void scan_below(const struct walk *w, const struct query *q)
{
    for (int i = 0; i < q->nfrom; i++)
        scan_from(w, q->from[i]);
    scan_targets(w, q->targets, q->ntargets);
    scan_expr(w, q->where);
    scan_exprs(w, q->group_by, q->ngroup_by);
    scan_expr(w, q->having);
    scan_exprs(w, q->distinct_on, q->ndistinct_on);
    scan_sort(w, q->order_by, q->norder_by);
    scan_expr(w, q->limit);
    scan_expr(w, q->offset);
    scan_targets(w, q->conflict_set, q->nconflict_set);
    scan_targets(w, q->returning, q->nreturning);
    for (int i = 0; i < q->nrows; i++)
        scan_exprs(w, q->rows[i], q->row_width);
}

/* ---- levels ---- */

static int new_level(struct planner *p, const struct query *query, enum level_place place)
{
    if (p->nlevels == PLAN_MAX_LEVELS) {
        p->too_many = true;
        return PLAN_MAX_LEVELS - 1;
    }
    p->levels[p->nlevels] = (struct level){
        .query = query, .place = place, .first = (short)p->ninstances, .end = (short)p->ninstances};
    return p->nlevels++;
}

static void note_write(struct planner *p, const struct from_item *target)
{
    struct view_content holds;
    const struct view *view = view_of(p, target->schema, target->name);
    if ((view && !view->local) ||
        (plan_is_view(p, target->schema, target->name, &holds) && holds.reference))
        p->view = target->name; /* every shard's copy is to be written */
    switch (plan_rule(p, target->schema, target->name)->class) {
    case TABLE_SHARDED:
    case TABLE_PINNED:
        if (!p->writes_sharded)
            p->writes_sharded = target;
        break;
    case TABLE_REFERENCE:
        if (!p->writes_reference)
            p->writes_reference = target;
        break;
    case TABLE_UNSHARDED:
        if (!p->writes_unsharded)
            p->writes_unsharded = target;
        break;
    }
}

/* Whether rows of the query are rows of its tables one by one: nothing cuts, counts or pairs them. */
static bool is_plain(const struct query *q)
{
    return q->kind == QUERY_SELECT && !q->limit && !q->offset && !q->ngroup_by && !q->having &&
           !q->windows && !q->ndistinct_on;
}

/* Whether the query's results are one for one its targets up to all of the key's. */
static bool has_positions(const struct planner *p, const struct query *q, const struct link *link)
{
    int last = link->position;
    for (unsigned k = 0; link->positions && k < p->instances[link->instance].rule->nparts; k++)
        last = last < link->positions[k] ? link->positions[k] : last;
    for (int i = 0; i <= last; i++)
        if (i >= q->ntargets || q->targets[i].expr->kind == EXPR_STAR)
            return false;
    return true;
}

/* What the query gives for the key: an expression, or a row of such. */
static const struct expr *linked_value(struct planner *p, const struct query *q,
                                       const struct link *link, bool *constant)
{
    if (!link->positions) {
        *constant = expr_is_constant(q->targets[link->position].expr);
        return q->targets[link->position].expr;
    }
    struct expr *row = arena_new(p->arena, struct expr);
    int nparts = (int)p->instances[link->instance].rule->nparts;
    *row = (struct expr){.kind = EXPR_ROW, .args = arena_array(p->arena, struct expr *, nparts)};
    *constant = true;
    for (; row->nargs < nparts; row->nargs++) {
        row->args[row->nargs] = q->targets[link->positions[row->nargs]].expr;
        *constant &= expr_is_constant(row->args[row->nargs]);
    }
    return row;
}

static void apply_link(struct planner *p, const struct scope *scope, struct link link)
{
    const struct query *q = scope->query;
    bool constant;
    if (link.kind == LINK_NONE || q->kind != QUERY_SELECT || !has_positions(p, q, &link))
        return;
    const struct expr *value = linked_value(p, q, &link, &constant);
    int found = link.positions ? composite_source(p, scope, link.positions, link.instance)
                               : scope_resolve(p, scope, value);
    struct shard_set set = {.kind = SHARDS_NONE};
    if (link.kind == LINK_TEST && found >= scope->first && is_plain(q))
        join_add_edge(p, link.instance, found, scope->level, true, false);
    else if (link.kind == LINK_FEED && found >= scope->first && !p->instances[found].nullable)
        join_add_edge(p, found, link.instance, scope->level, true, false);
    else if (link.kind == LINK_FEED && constant &&
             insert_row(p, &p->instances[link.instance], value, &set))
        p->instances[link.instance].set = set;
}

/* Tables of an item, those inside of joins counted one by one. */
static int count_tables(const struct from_item *item)
{
    if (!item->left && !item->right)
        return 1;
    return (item->left ? count_tables(item->left) : 0) +
           (item->right ? count_tables(item->right) : 0);
}

static void check_width(struct planner *p, const struct query *q)
{
    int tables = 0;
    for (int i = 0; i < q->nfrom; i++)
        tables += count_tables(q->from[i]);
    p->too_many |= tables > PLAN_MAX_FROM;
}

/* No other rows than those of the source's keys are changed. */
static void pin_merge(struct planner *p, const struct query *q, struct instance *target)
{
    struct shard_set set;
    if (!target->target || !merge_rows_told(p, q, target, &set))
        return;
    target->set = shards_intersect(p->arena, shardmap_shards(p->map), &target->set, &set);
    target->keyed = true;
}

/* SELECT, UPDATE, DELETE, MERGE: a level with tables and conditions of its own. */
static void scan_level(struct planner *p, const struct query *q, enum level_place place,
                       const struct scope *parent, const struct cte_names *ctes, struct link link)
{
    struct scope scope = {.query = q, .parent = parent, .first = (short)p->ninstances};
    scope.level = new_level(p, q, place);
    if (q->relation) {
        scope_add(p, q->relation, scope.level, NULL);
        note_write(p, q->relation);
        if (p->ninstances > scope.first)
            p->instances[scope.first].target = true;
    }
    for (int i = 0; i < q->nfrom; i++)
        scope_add(p, q->from[i], scope.level, ctes);
    scope.end = (short)p->ninstances;
    p->levels[scope.level].end = scope.end;
    check_width(p, q);
    if (!p->too_many)
        join_conditions(p, &scope);
    if (!p->too_many && q->kind == QUERY_MERGE && scope.end > scope.first)
        pin_merge(p, q, &p->instances[scope.first]);
    if (!p->too_many && link.kind == LINK_PASS)
        derived_tie_subquery(p, &scope, link.instance, ctes);
    else if (!p->too_many && link.kind != LINK_NONE)
        apply_link(p, &scope, link);
    if (has_subqueries(p)) {
        struct walk w = {p, &scope, ctes};
        scan_below(&w, q);
    }
}

/* The rows of its query go to where their keys lead. */
static struct link feed_link(struct planner *p, const struct query *q, int target)
{
    const struct table_rule *rule = p->instances[target].rule;
    struct link link = {.kind = LINK_FEED, .instance = target};
    int *positions = rule->nparts ? arena_array(p->arena, int, rule->nparts) : &link.position;
    for (unsigned k = 0; k < table_rule_nkeys(rule); k++) {
        positions[k] = insert_key_position(p, q, &p->instances[target], k);
        if (positions[k] < 0)
            return (struct link){.kind = LINK_NONE, .instance = -1};
    }
    link.positions = rule->nparts ? positions : NULL;
    return link;
}

static void scan_insert(struct planner *p, const struct query *q, enum level_place place,
                        const struct scope *parent, const struct cte_names *ctes)
{
    struct scope scope = {.query = q, .parent = parent, .first = (short)p->ninstances};
    struct link link = {.kind = LINK_NONE, .instance = -1};
    scope.level = new_level(p, q, place);
    scope_add(p, q->relation, scope.level, NULL);
    note_write(p, q->relation);
    scope.end = (short)p->ninstances;
    p->levels[scope.level].end = scope.end;
    if (scope.end > scope.first)
        p->instances[scope.first].target = true;
    if (scope.end > scope.first && p->instances[scope.first].rule->class == TABLE_SHARDED) {
        insert_pin(p, q, scope.first);
        link = feed_link(p, q, scope.first);
    }
    struct walk w = {p, &scope, ctes};
    if (has_subqueries(p))
        scan_below(&w, q);
    if (q->source && (q->source->kind != QUERY_VALUES || has_subqueries(p)))
        scan_query(p, q->source, LEVEL_OTHER, parent, ctes, link);
}

static void scan_ctes(struct planner *p, const struct query *q, const struct scope *parent,
                      const struct cte_names *outer)
{
    const struct link none = {.kind = LINK_NONE, .instance = -1};
    for (int i = 0; i < q->nctes; i++) {
        struct cte_names names = {q->ctes, q->ctes[i].recursive ? q->nctes : i, outer};
        scan_query(p, q->ctes[i].query, LEVEL_OTHER, parent, &names, none);
    }
}

static void scan_query(struct planner *p, const struct query *q, enum level_place place,
                       const struct scope *parent, const struct cte_names *ctes, struct link link)
{
    const struct link none = {.kind = LINK_NONE, .instance = -1};
    struct cte_names names = {q->ctes, q->nctes, ctes};
    p->has_ctes |= q->nctes > 0;
    scan_ctes(p, q, parent, ctes);
    enum level_place branch = place == LEVEL_SUBLINK ? LEVEL_SUBLINK : LEVEL_OTHER;
    struct scope bare = {.query = q, .parent = parent};
    struct walk w = {p, &bare, &names};
    switch (q->kind) {
    case QUERY_SELECT:
    case QUERY_UPDATE:
    case QUERY_DELETE:
    case QUERY_MERGE:
        scan_level(p, q, place, parent, &names, link);
        break;
    case QUERY_INSERT:
        scan_insert(p, q, place, parent, &names);
        break;
    case QUERY_SETOP:
        scan_query(p, q->left, branch, parent, &names, none);
        scan_query(p, q->right, branch, parent, &names, none);
        scan_below(&w, q);
        break;
    case QUERY_VALUES:
        scan_below(&w, q);
        break;
    }
}

void plan_scan(struct planner *p, const struct query *query)
{
    const struct link none = {.kind = LINK_NONE, .instance = -1};
    scan_query(p, query, LEVEL_TOP, NULL, NULL, none);
    join_propagate(p);
}
