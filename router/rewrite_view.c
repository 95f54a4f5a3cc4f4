/* rewrite_view.c: a statement with the definitions of views as subqueries in their places. */
#include "router/rewrite_internal.h"

#include <string.h>

struct openings {
    const struct schema_relation *const *views;
    int nviews;
    bool obstacle; /* a name may mean something else, or stands where no subquery can */
};

static const struct schema_relation *find_view(const struct openings *o, const RangeVar *range)
{
    for (int i = 0; i < o->nviews; i++)
        if (strcmp(o->views[i]->name, range->relname) == 0 &&
            (!range->schemaname || strcmp(o->views[i]->schema, range->schemaname) == 0))
            return o->views[i];
    return NULL;
}

static void *new_node(size_t size, NodeTag tag)
{
    Node *node = palloc0(size);
    node->type = tag;
    return node;
}

static Node *parse_definition(struct openings *o, const char *definition)
{
    PgQueryInternalParsetreeAndError parsed = pgtree_parse(definition);
    Node *node = NULL;
    if (!parsed.error && list_length(parsed.tree) == 1)
        node = ((RawStmt *)linitial(parsed.tree))->stmt;
    free(parsed.stderr_buffer);
    if (parsed.error)
        pg_query_free_error(parsed.error);
    o->obstacle |= !node || !IsA(node, SelectStmt);
    return node;
}

/* The FROM item itself, or what takes its place. */
static Node *opened(struct openings *o, Node *item)
{
    if (!item || !IsA(item, RangeVar))
        return item;
    RangeVar *range = (RangeVar *)item;
    const struct schema_relation *view = find_view(o, range);
    if (!view)
        return item;
    RangeSubselect *subselect = new_node(sizeof *subselect, T_RangeSubselect);
    Alias *alias = range->alias;
    if (!alias) {
        alias = new_node(sizeof *alias, T_Alias);
        alias->aliasname = pstrdup(range->relname);
    }
    subselect->subquery = parse_definition(o, view->definition);
    subselect->alias = alias;
    return (Node *)subselect;
}

static void open_list(struct openings *o, List *items)
{
    for (int i = 0; i < list_length(items); i++) {
        ListCell *cell = list_nth_cell(items, i);
        lfirst(cell) = opened(o, lfirst(cell));
    }
}

/* public.v.id -> v.id: a subquery has no schema. */
static void drop_schema(const struct openings *o, ColumnRef *column)
{
    if (list_length(column->fields) != 3 || !IsA(linitial(column->fields), String) ||
        !IsA(lsecond(column->fields), String))
        return;
    RangeVar named = {.type = T_RangeVar,
                      .schemaname = strVal(linitial(column->fields)),
                      .relname = strVal(lsecond(column->fields))};
    if (find_view(o, &named))
        column->fields = list_make2(lsecond(column->fields), lthird(column->fields));
}

/* Children first: what is put in is left as it is. */
static bool open_node(Node *node, void *context)
{
    struct openings *o = context;
    if (!node)
        return false;
    if (IsA(node, ColumnRef)) {
        drop_schema(o, (ColumnRef *)node);
        return false;
    }
    if (IsA(node, CommonTableExpr)) {
        RangeVar as = {.type = T_RangeVar, .relname = ((CommonTableExpr *)node)->ctename};
        o->obstacle |= find_view(o, &as) != NULL;
    }
    if (IsA(node, RangeTableSample)) {
        Node *sampled = ((RangeTableSample *)node)->relation;
        o->obstacle |= IsA(sampled, RangeVar) && find_view(o, (RangeVar *)sampled) != NULL;
    }
    if (IsA(node, RangeVar) || pgtree_children(node, open_node, o))
        return false;
    switch ((int)nodeTag(node)) {
    case T_SelectStmt:
        open_list(o, ((SelectStmt *)node)->fromClause);
        break;
    case T_UpdateStmt:
        open_list(o, ((UpdateStmt *)node)->fromClause);
        break;
    case T_DeleteStmt:
        open_list(o, ((DeleteStmt *)node)->usingClause);
        break;
    case T_JoinExpr: {
        JoinExpr *join = (JoinExpr *)node;
        join->larg = opened(o, join->larg);
        join->rarg = opened(o, join->rarg);
        break;
    }
    default:
        break;
    }
    return false;
}

bool rewrite_views(const char *text, const struct schema_relation *const *views, int nviews,
                   struct arena *arena, struct shard_query *out)
{
    struct rewriting r;
    struct openings o = {.views = views, .nviews = nviews};
    rewrite_open(&r, text);
    if (!r.statement)
        return rewrite_abandon(&r);
    open_node(r.statement, &o);
    return o.obstacle ? rewrite_abandon(&r) : rewrite_close(&r, arena, out);
}
