/* rewrite_merge.c: a MERGE taken apart into the query of its source's rows and the MERGE of rows that are told. */
#include "router/rewrite_internal.h"

#include <string.h>

/* Stands for the names of the source's columns, which are known when its rows are. */
#define COLUMNS_MARK "pgshunt_columns"

static void *new_node(size_t size, NodeTag tag)
{
    Node *node = palloc0(size);
    node->type = tag;
    return node;
}

static Node *string_node(const char *text)
{
    return (Node *)makeString(pstrdup(text));
}

/* ---- what cannot travel ---- */

static bool is_collated(const struct rewrite_merge *merge, const Node *name)
{
    if (IsA(name, A_Star))
        return merge->ncollated > 0;
    for (int i = 0; IsA(name, String) && i < merge->ncollated; i++)
        if (strcmp(strVal((void *)name), merge->collated[i]) == 0)
            return true;
    return false;
}

/* A collation is a column's own: a value on its way has its type's. */
static bool names_collated(Node *node, void *context)
{
    if (!node)
        return false;
    if (IsA(node, CollateClause))
        return true;
    if (IsA(node, ColumnRef))
        return is_collated(context, llast(((ColumnRef *)node)->fields));
    return pgtree_children(node, names_collated, context);
}

/* Names of columns with their table's schema: the source is no table any more. */
static bool names_in_full(Node *node, void *context)
{
    if (!node)
        return false;
    if (IsA(node, ColumnRef))
        return list_length(((ColumnRef *)node)->fields) > 2;
    return pgtree_children(node, names_in_full, context);
}

static bool is_one_thing(const Node *source)
{
    return IsA(source, RangeVar) || IsA(source, RangeSubselect) || IsA(source, RangeFunction) ||
           IsA(source, RangeTableFunc) || IsA(source, RangeTableSample);
}

/* The name by which the source's columns are called; NULL: it has none of its own. */
static const char *visible_name(const Node *source)
{
    const Alias *alias = NULL;
    if (IsA(source, RangeTableSample))
        source = ((const RangeTableSample *)source)->relation;
    if (IsA(source, RangeVar))
        alias = ((const RangeVar *)source)->alias;
    else if (IsA(source, RangeSubselect))
        alias = ((const RangeSubselect *)source)->alias;
    else if (IsA(source, RangeFunction))
        alias = ((const RangeFunction *)source)->alias;
    else if (IsA(source, RangeTableFunc))
        alias = ((const RangeTableFunc *)source)->alias;
    if (alias)
        return alias->aliasname;
    return IsA(source, RangeVar) ? ((const RangeVar *)source)->relname : NULL;
}

/* ---- ON ---- */

/* The condition of that number among those joined by AND, as the planner counts them. */
static const Node *condition(const Node *on, int *number)
{
    if (!IsA(on, BoolExpr) || ((const BoolExpr *)on)->boolop != AND_EXPR)
        return (*number)-- == 0 ? on : NULL;
    const List *args = ((const BoolExpr *)on)->args;
    for (int i = 0; i < list_length(args); i++) {
        const Node *found = condition(list_nth(args, i), number);
        if (found)
            return found;
    }
    return NULL;
}

static Node *partner_value(const MergeStmt *merge, const struct rewrite_partner *partner)
{
    int number = partner->condition;
    const Node *found = condition(merge->joinCondition, &number);
    if (!found || !IsA(found, A_Expr))
        return NULL;
    Node *side = partner->side ? ((const A_Expr *)found)->rexpr : ((const A_Expr *)found)->lexpr;
    if (partner->column < 0 || !side)
        return side;
    if (!IsA(side, RowExpr) || partner->column >= list_length(((RowExpr *)side)->args))
        return NULL;
    return list_nth(((RowExpr *)side)->args, partner->column);
}

/* ---- the two ---- */

static ResTarget *result(Node *value)
{
    ResTarget *target = new_node(sizeof *target, T_ResTarget);
    target->val = value;
    target->location = -1;
    return target;
}

static Node *all_columns(void)
{
    ColumnRef *ref = new_node(sizeof *ref, T_ColumnRef);
    ref->fields = list_make1(new_node(sizeof(A_Star), T_A_Star));
    ref->location = -1;
    return (Node *)ref;
}

/* NULL: a partner is not to be seen. */
static Node *source_rows(const struct rewrite_merge *merge, const MergeStmt *statement)
{
    SelectStmt *select = new_node(sizeof *select, T_SelectStmt);
    for (unsigned i = 0; i < merge->npartners; i++) {
        Node *value = partner_value(statement, &merge->partners[i]);
        if (!value)
            return NULL;
        select->targetList = lappend(select->targetList, result(value));
    }
    select->targetList = lappend(select->targetList, result(all_columns()));
    select->fromClause = list_make1(statement->sourceRelation);
    select->withClause = statement->withClause;
    return (Node *)select;
}

static Node *told_rows(const char *name)
{
    RangeSubselect *rows = new_node(sizeof *rows, T_RangeSubselect);
    rows->subquery = rewrite_marked_values();
    rows->alias = new_node(sizeof *rows->alias, T_Alias);
    rows->alias->aliasname = pstrdup(name);
    rows->alias->colnames = list_make1(string_node(COLUMNS_MARK));
    return (Node *)rows;
}

/* SET (a, b) = (1, 2) as SET a = 1, b = 2. False: from a subquery. */
static bool assign_one_by_one(const MergeWhenClause *when)
{
    for (int i = 0; i < list_length(when->targetList); i++) {
        ResTarget *target = list_nth(when->targetList, i);
        if (!target->val || !IsA(target->val, MultiAssignRef))
            continue;
        const MultiAssignRef *part = (const MultiAssignRef *)target->val;
        if (!IsA(part->source, RowExpr) ||
            part->colno > list_length(((RowExpr *)part->source)->args))
            return false;
        target->val = list_nth(((RowExpr *)part->source)->args, part->colno - 1);
    }
    return true;
}

static bool actions_fit(const MergeStmt *statement)
{
    for (int i = 0; i < list_length(statement->mergeWhenClauses); i++) {
        const MergeWhenClause *when = list_nth(statement->mergeWhenClauses, i);
        if (when->override == OVERRIDING_USER_VALUE || !assign_one_by_one(when))
            return false;
    }
    return !rewrite_finds_sublink((Node *)statement->mergeWhenClauses, NULL) &&
           !rewrite_finds_sublink(statement->joinCondition, NULL) &&
           !names_in_full((Node *)statement->mergeWhenClauses, NULL) &&
           !names_in_full(statement->joinCondition, NULL);
}

static bool source_fits(const struct rewrite_merge *merge, const MergeStmt *statement)
{
    Node *source = statement->sourceRelation;
    return is_one_thing(source) && visible_name(source) &&
           !(merge->ncollated && IsA(source, RangeVar)) && !names_collated(source, (void *)merge) &&
           !names_collated((Node *)statement->withClause, (void *)merge);
}

/* Text of the tail in two, where the names of columns belong. */
static bool cut_columns(struct rewrite_merge *merge, struct arena *arena)
{
    static const char mark[] = "(" COLUMNS_MARK ")";
    const char *found = strstr(merge->tail.sql, mark);
    if (!found)
        return false;
    merge->alias = arena_strndup(arena, merge->tail.sql, (size_t)(found - merge->tail.sql));
    merge->tail.sql = arena_strdup(arena, found + sizeof mark - 1);
    return true;
}

static bool make_both(struct rewriting *r, struct rewrite_merge *merge, struct arena *arena)
{
    MergeStmt *statement = (MergeStmt *)r->statement;
    MergeStmt *told = palloc0(sizeof *told);
    Node *rows = source_rows(merge, statement);
    if (!rows)
        return false;
    *told = *statement;
    told->withClause = NULL;
    told->sourceRelation = told_rows(visible_name(statement->sourceRelation));
    told->relation = palloc0(sizeof(RangeVar));
    *told->relation = *statement->relation;
    if (merge->schema && !told->relation->schemaname)
        told->relation->schemaname = pstrdup(merge->schema);
    Node *trees[] = {rows, (Node *)told};
    struct shard_query *texts[] = {&merge->source, &merge->tail};
    return rewrite_all(r, trees, texts, 2, arena) &&
           rewrite_cut_rows(arena, &merge->head, &merge->tail) && cut_columns(merge, arena);
}

bool rewrite_merge(const char *text, struct rewrite_merge *merge, struct arena *arena)
{
    struct rewriting r;
    rewrite_open(&r, text);
    MergeStmt *statement =
        r.statement && IsA(r.statement, MergeStmt) ? (MergeStmt *)r.statement : NULL;
    bool ok = statement && actions_fit(statement) && source_fits(merge, statement) &&
              make_both(&r, merge, arena);
    rewrite_abandon(&r);
    return ok;
}
