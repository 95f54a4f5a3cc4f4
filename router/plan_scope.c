/* plan_scope.c: the tables of a query level, and which of them a column belongs to. */
#include "pgshunt/pgtypes.h"
#include "router/plan_internal.h"

#define MAX_ANCESTORS 64

/* Views apart. */
static const struct table_rule *table_rule(const struct planner *p, const char *schema,
                                           const char *name)
{
    schema = plan_schema_of(p, schema, name);
    const struct table_rule *rule = shardmap_table(p->map, schema, name);
    const struct schema_relation *relation = rule->class == TABLE_UNSHARDED && p->schema
                                                 ? schema_relation_any(p->schema, schema, name)
                                                 : NULL;
    /* Postgres allows no cycles; the bound is for a snapshot taken while tables moved. */
    for (int depth = 0; relation && relation->parent && depth < MAX_ANCESTORS; depth++) {
        const struct table_rule *above =
            shardmap_table(p->map, relation->parent_schema, relation->parent);
        if (above->class != TABLE_UNSHARDED)
            return above;
        relation = schema_relation(p->schema, relation->parent_schema, relation->parent);
    }
    return rule;
}

const struct table_rule *plan_rule(const struct planner *p, const char *schema, const char *name)
{
    const struct table_rule *rule = table_rule(p, schema, name);
    const struct view *view =
        rule->class == TABLE_UNSHARDED && p->schema ? view_of(p, schema, name) : NULL;
    return view && view->local ? &view->rule : rule;
}

void plan_needs_schema(const struct planner *p, const char *schema, const char *name)
{
    if (p->may_wait && !(p->schema && schema_relation_any(p->schema, schema, name)))
        p->plan->needs_schema = SCHEMA_FRESH;
}

const struct cte *scope_find_cte(const struct cte_names *names, const struct from_item *item,
                                 struct cte_names *inside)
{
    if (item->schema)
        return NULL;
    for (; names; names = names->parent)
        for (int i = 0; i < names->visible; i++)
            if (same_name(names->ctes[i].name, item->name)) {
                *inside = (struct cte_names){names->ctes, i, names->parent};
                return &names->ctes[i];
            }
    return NULL;
}

static bool is_catalog(const struct from_item *item)
{
    if (!item->schema)
        return strncmp(item->name, "pg_", 3) == 0;
    return same_name(item->schema, "information_schema") || strncmp(item->schema, "pg_", 3) == 0;
}

bool scope_blank_padded(const struct planner *p, const struct table_rule *rule, unsigned part,
                        const struct from_item *item)
{
    if (!rule->keyspace || rule->keyspace->types[part] != KEY_TEXT)
        return false;
    const struct schema_column *column = scope_column(p, item, table_rule_key(rule, part));
    return column && column->type_oid == OID_BPCHAR;
}

static const struct view *view_of_rule(const struct planner *p, const struct table_rule *rule)
{
    for (const struct view *view = p->views->list; view; view = view->next)
        if (rule == &view->rule)
            return view;
    return NULL;
}

static void add_instance(struct planner *p, const struct from_item *item,
                         const struct table_rule *rule, int level)
{
    if (p->ninstances == PLAN_MAX_INSTANCES) {
        p->too_many = true;
        return;
    }
    const struct view *view = view_of_rule(p, rule);
    p->instances[p->ninstances++] = (struct instance){
        .item = item,
        .rule = rule,
        .set = view ? view->set : (struct shard_set){.kind = SHARDS_ALL},
        .level = level,
        .blank_padded = !rule->nparts && scope_blank_padded(p, rule, 0, item),
        .view = view,
    };
    if (rule->class != TABLE_PINNED)
        return;
    struct instance *instance = &p->instances[p->ninstances - 1];
    instance->set = (struct shard_set){.kind = SHARDS_ONE, .one = rule->shard};
    instance->keyed = true;
    if (!plan_is_pinned_view(p, rule, plan_relation(p, item->schema, item->name)))
        p->view = item->name;
}

#define VIEWS_DEEP 32

/* Adds what is behind a view to `holds`. */
static void look_behind(const struct planner *p, const struct schema_relation *view, int depth,
                        struct view_content *holds)
{
    holds->hidden |= !view->resolved || depth > VIEWS_DEEP;
    for (const struct schema_part *part = view->parts; part && !holds->hidden; part = part->next) {
        if (part->kind != PART_RELATION)
            continue;
        const struct schema_relation *inside = schema_relation(p->schema, part->schema, part->name);
        enum table_class class = table_rule(p, part->schema, part->name)->class;
        if (inside && inside->kind == 'v' && class == TABLE_UNSHARDED)
            look_behind(p, inside, depth + 1, holds);
        else if (inside && inside->kind == 'm' && view_of(p, part->schema, part->name))
            holds->hidden = true;
        else if (class == TABLE_REFERENCE)
            holds->reference = true;
        else if (class == TABLE_UNSHARDED)
            holds->unsharded = true;
        else
            holds->hidden = true;
    }
}

bool plan_is_view(const struct planner *p, const char *schema, const char *name,
                  struct view_content *holds)
{
    const struct schema_relation *relation = plan_relation(p, schema, name);
    *holds = (struct view_content){false, false, false};
    if (!relation || relation->kind != 'v')
        return false;
    look_behind(p, relation, 0, holds);
    return true;
}

/* One that reads reference tables alone is like one; else it is like a table on the first shard, which
 * has all of those, too. */
static void add_view(struct planner *p, const char *name, const struct view_content *holds)
{
    if (holds->hidden)
        p->view = name;
    else if (holds->reference && !holds->unsharded)
        p->reference = name;
    else if (!p->unsharded)
        p->unsharded = name;
}

static void add_unsharded(struct planner *p, const struct from_item *item)
{
    struct view_content holds;
    if (p->schema && !is_catalog(item))
        plan_needs_schema(p, item->schema, item->name); /* it may be a view */
    if (view_changed(p, item->name)) {
        p->view = item->name;
        return;
    }
    const struct view *view = is_catalog(item) ? NULL : view_of(p, item->schema, item->name);
    if (is_catalog(item))
        p->catalog = item->name;
    else if (view && view_replace(p, view))
        return;
    else if (view)
        p->view = item->name;
    else if (plan_is_view(p, item->schema, item->name, &holds))
        add_view(p, item->name, &holds);
    else if (!p->unsharded)
        p->unsharded = item->name;
}

/* Whether rows in another order than they come from FROM are as good: SQL says so always, but people know
 * what they see. */
static bool hides_order(const struct query *q)
{
    return q->norder_by || q->ngroup_by || q->kind != QUERY_SELECT;
}

static void add_sharded(struct planner *p, const struct from_item *item,
                        const struct table_rule *rule, int level)
{
    const struct view *view = view_of_rule(p, rule);
    if (view && view_changed(p, item->name)) {
        p->view = item->name;
        return;
    }
    if (view && view->ordered && !hides_order(p->levels[level].query) && view_replace(p, view))
        return;
    add_instance(p, item, rule, level);
}

static void add_table(struct planner *p, const struct from_item *item, int level,
                      const struct cte_names *ctes)
{
    struct cte_names inside;
    const struct cte *cte = scope_find_cte(ctes, item, &inside);
    if (cte) {
        if (item->kind == FROM_TABLE)
            derived_add_cte(p, item, cte, level, &inside);
        return;
    }
    p->ntables++;
    const struct table_rule *rule = plan_rule(p, item->schema, item->name);
    switch (rule->class) {
    case TABLE_SHARDED:
        add_sharded(p, item, rule, level);
        break;
    case TABLE_PINNED:
        add_instance(p, item, rule, level);
        break;
    case TABLE_REFERENCE:
        p->reference = item->name;
        break;
    case TABLE_UNSHARDED:
        add_unsharded(p, item);
        break;
    }
}

void scope_add(struct planner *p, const struct from_item *item, int level,
               const struct cte_names *ctes)
{
    int first = p->ninstances;
    switch (item->kind) {
    case FROM_TABLE:
        add_table(p, item, level, ctes);
        break;
    case FROM_JOIN:
        scope_add(p, item->left, level, ctes);
        scope_add(p, item->right, level, ctes);
        for (int i = first; i < p->ninstances && item->alias; i++)
            p->instances[i].renamed = true; /* the alias hides the names inside */
        break;
    case FROM_OTHER:
        if (item->name) /* a table with renamed columns */
            add_table(p, item, level, ctes);
        if (item->left)
            scope_add(p, item->left, level, ctes);
        if (item->right)
            scope_add(p, item->right, level, ctes);
        for (int i = first; i < p->ninstances; i++)
            p->instances[i].renamed = true;
        break;
    case FROM_SUBQUERY:
        derived_add_subquery(p, item, level, ctes);
        break;
    case FROM_FUNCTION:
        break;
    }
}

/* ---- columns ---- */

static const char *visible_name(const struct from_item *item)
{
    return item->alias ? item->alias : item->name;
}

/* Whether `qualifier.` in the column means this item. */
static bool names_item(const struct expr *column, const struct from_item *item)
{
    const char *name = visible_name(item);
    if (!name || !same_name(column->qualifier, name))
        return false;
    return !column->schema ||
           (!item->alias && (!item->schema || same_name(item->schema, column->schema)));
}

static const struct from_item *find_named(const struct from_item *item, const struct expr *column)
{
    if (names_item(column, item))
        return item;
    if (item->kind != FROM_JOIN || item->alias)
        return NULL;
    const struct from_item *found = find_named(item->left, column);
    return found ? found : find_named(item->right, column);
}

static const struct from_item *find_qualified(const struct query *query, const struct expr *column)
{
    if (query->relation && names_item(column, query->relation))
        return query->relation;
    for (int i = 0; i < query->nfrom; i++) {
        const struct from_item *found = find_named(query->from[i], column);
        if (found)
            return found;
    }
    return NULL;
}

/* A CTE may hide a table of that name; then what we say of its columns would be wrong. */
static bool may_be_cte(const struct planner *p, const struct from_item *item)
{
    return !item->schema && p->has_ctes;
}

/* The table whose columns are asked for; NULL: unknown. */
static const struct schema_relation *columns_of(const struct planner *p,
                                                const struct from_item *item)
{
    if (!p->schema || item->kind != FROM_TABLE)
        return NULL;
    const struct schema_relation *relation = plan_relation(p, item->schema, item->name);
    if (!relation && !may_be_cte(p, item))
        plan_needs_schema(p, item->schema, item->name);
    return relation;
}

const struct schema_column *scope_column(const struct planner *p, const struct from_item *item,
                                         const char *name)
{
    const struct schema_relation *relation = columns_of(p, item);
    return relation ? schema_column(relation, name) : NULL;
}

/* What every table has beside its own columns. */
static bool is_system_column(const char *name)
{
    static const char *const names[] = {"ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (same_name(names[i], name))
            return true;
    return false;
}

static int item_has_column(const struct planner *p, const struct from_item *item, const char *name)
{
    ++*p->work;
    if (item->kind == FROM_JOIN) {
        int left = item_has_column(p, item->left, name);
        int right = item_has_column(p, item->right, name);
        return left > 0 || right > 0 ? 1 : left < 0 || right < 0 ? -1 : 0;
    }
    if (item->kind != FROM_TABLE || !p->schema || may_be_cte(p, item))
        return -1;
    const struct schema_relation *relation = columns_of(p, item);
    if (!relation)
        return -1;
    *p->work += relation->ncolumns;
    return is_system_column(name) || schema_column(relation, name) != NULL;
}

int scope_has_column(const struct planner *p, const struct query *query, const char *name)
{
    int unknown = 0;
    if (*p->work > PLAN_MAX_WORK)
        return -1;
    if (query->relation) {
        int has = item_has_column(p, query->relation, name);
        if (has > 0)
            return 1;
        unknown = has;
    }
    for (int i = 0; i < query->nfrom; i++) {
        int has = item_has_column(p, query->from[i], name);
        if (has > 0)
            return 1;
        unknown |= has;
    }
    return unknown;
}

static const struct from_item *item_with(const struct planner *p, const struct from_item *item,
                                         const char *name)
{
    if (item->kind != FROM_JOIN)
        return item_has_column(p, item, name) > 0 ? item : NULL;
    const struct from_item *found = item_with(p, item->left, name);
    return found ? found : item_with(p, item->right, name);
}

const struct from_item *scope_item(const struct planner *p, const struct query *query,
                                   const struct expr *column)
{
    if (column->qualifier)
        return find_qualified(query, column);
    if (query->nfrom + (query->relation != NULL) == 1) {
        const struct from_item *only = query->relation ? query->relation : query->from[0];
        if (only->kind != FROM_JOIN)
            return only;
    }
    if (query->relation && item_has_column(p, query->relation, column->name) > 0)
        return query->relation;
    for (int i = 0; i < query->nfrom; i++) {
        const struct from_item *found = item_with(p, query->from[i], column->name);
        if (found)
            return found;
    }
    return NULL;
}

static int resolve_qualified(const struct planner *p, const struct scope *scope,
                             const struct expr *column)
{
    for (; scope && *p->work <= PLAN_MAX_WORK; scope = scope->parent) {
        *p->work += scope->query->nfrom + 1;
        const struct from_item *item = find_qualified(scope->query, column);
        if (!item)
            continue;
        for (int i = scope->first; i < scope->end; i++) {
            const struct instance *instance = &p->instances[i];
            if (instance->item == item && !instance->renamed &&
                same_name(instance->rule->key, column->name))
                return i;
        }
        return -1;
    }
    return -1;
}

/*
 * An unqualified name is that of a key if a sharded table of the level has such a key: were there
 * another column of that name, the server would call it ambiguous (or USING made them one). A level
 * where something else might have the column hides those around it.
 */
static int resolve_unqualified(const struct planner *p, const struct scope *scope,
                               const struct expr *column)
{
    for (; scope; scope = scope->parent) {
        for (int i = scope->first; i < scope->end; i++) {
            const struct instance *instance = &p->instances[i];
            if (!instance->renamed && same_name(instance->rule->key, column->name))
                return i;
        }
        if (!scope->parent || scope_has_column(p, scope->query, column->name) != 0)
            return -1;
    }
    return -1;
}

int scope_resolve(const struct planner *p, const struct scope *scope, const struct expr *expr)
{
    if (expr->kind != EXPR_COLUMN)
        return -1;
    return expr->qualifier ? resolve_qualified(p, scope, expr)
                           : resolve_unqualified(p, scope, expr);
}
