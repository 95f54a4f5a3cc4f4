/* rewrite_select.c: a SELECT for one of several shards: columns to merge by, no OFFSET. */
#include "router/rewrite_internal.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

/* Unlike what any application calls a column, so that no ORDER BY name meets it. */
#define HIDDEN_NAME "pgshunt_hidden_"

/* ---- building nodes ---- */

/* makeNode() would use the server's CurrentMemoryContext, which is thread-local in libpg_query. */
static void *new_node(size_t size, NodeTag tag)
{
    Node *node = palloc0(size);
    node->type = tag;
    return node;
}

#define NEW_NODE(type) ((type *)new_node(sizeof(type), T_##type))

static TypeName *type_named(const char *name)
{
    TypeName *type = NEW_NODE(TypeName);
    type->names = list_make2(makeString(pstrdup("pg_catalog")), makeString(pstrdup(name)));
    type->typemod = -1;
    type->location = -1;
    return type;
}

static Node *cast(Node *arg, const char *type)
{
    TypeCast *node = NEW_NODE(TypeCast);
    node->arg = arg;
    node->typeName = type_named(type);
    node->location = -1;
    return (Node *)node;
}

static Node *integer(int64_t value)
{
    A_Const *node = NEW_NODE(A_Const);
    node->location = -1;
    if (value <= INT_MAX) {
        node->val.ival.type = T_Integer;
        node->val.ival.ival = (int)value;
    } else { /* as the grammar keeps wide integers */
        char text[32];
        pg_snprintf(text, sizeof text, "%lld", (long long)value);
        node->val.fval.type = T_Float;
        node->val.fval.fval = pstrdup(text);
    }
    return (Node *)node;
}

static Node *plus(Node *left, Node *right)
{
    A_Expr *node = NEW_NODE(A_Expr);
    node->kind = AEXPR_OP;
    node->name = list_make1(makeString(pstrdup("+")));
    node->lexpr = left;
    node->rexpr = right;
    node->location = -1;
    return (Node *)node;
}

/* ---- columns ---- */

static Node *target_value(const SelectStmt *select, int index)
{
    if (index >= list_length(select->targetList))
        return NULL;
    return ((ResTarget *)list_nth(select->targetList, index))->val;
}

/* avg(x) as another aggregate of the same arguments and FILTER. */
static Node *instead_of_avg(const Node *node, const char *name)
{
    if (!node || !IsA(node, FuncCall))
        return NULL;
    FuncCall *call = copyObjectImpl(node);
    call->funcname = list_make2(makeString(pstrdup("pg_catalog")), makeString(pstrdup(name)));
    return (Node *)call;
}

static Node *sort_value(const SelectStmt *select, int index)
{
    if (index >= list_length(select->sortClause))
        return NULL;
    return ((SortBy *)list_nth(select->sortClause, index))->node;
}

static Node *column_value(const SelectStmt *select, const struct rewrite_column *column)
{
    switch (column->source) {
    case REWRITE_SORT:
        return copyObjectImpl(sort_value(select, column->index));
    case REWRITE_GROUP:
        if (column->index >= list_length(select->groupClause))
            return NULL;
        return copyObjectImpl(list_nth(select->groupClause, column->index));
    case REWRITE_SUM:
        return instead_of_avg(target_value(select, column->index), "sum");
    case REWRITE_COUNT:
        return instead_of_avg(target_value(select, column->index), "count");
    case REWRITE_SORT_SUM:
        return instead_of_avg(sort_value(select, column->index), "sum");
    case REWRITE_SORT_COUNT:
        return instead_of_avg(sort_value(select, column->index), "count");
    }
    return NULL;
}

static bool add_columns(SelectStmt *select, const struct rewrite_select *change)
{
    List *added = NIL;
    for (int i = 0; i < change->ncolumns; i++) {
        char name[sizeof HIDDEN_NAME + 12];
        ResTarget *target = NEW_NODE(ResTarget);
        target->val = column_value(select, &change->columns[i]);
        if (!target->val)
            return false;
        pg_snprintf(name, sizeof name, HIDDEN_NAME "%d", i + 1);
        target->name = pstrdup(name);
        target->location = -1;
        added = lappend(added, target);
    }
    select->targetList = list_concat(select->targetList, added);
    return true;
}

/* ---- LIMIT, OFFSET ---- */

/*
 * What the grammar leaves where there is neither. Not by name: libpg_query numbers enum LimitOption
 * otherwise than the headers of the server that Debian compiles it with.
 */
#define NO_LIMIT_OPTION ((LimitOption)0)

static bool is_null(const Node *node)
{
    return IsA(node, A_Const) && ((const A_Const *)node)->isnull;
}

static bool plain_integer(const Node *node, int64_t *value)
{
    if (!IsA(node, A_Const) || is_null(node))
        return false;
    const A_Const *constant = (const A_Const *)node;
    if (IsA(&constant->val.node, Integer)) {
        *value = constant->val.ival.ival;
        return *value >= 0;
    }
    if (!IsA(&constant->val.node, Float))
        return false;
    const char *text = constant->val.fval.fval;
    if (!*text || text[strspn(text, "0123456789")])
        return false;
    *value = strtoll(text, NULL, 10); /* saturates */
    return true;
}

/* Both as bigint, so that parameters keep the type LIMIT gives them; added where they cannot overflow. */
static Node *sum_of(Node *limit, Node *offset)
{
    MinMaxExpr *least = NEW_NODE(MinMaxExpr);
    Node *sum = plus(cast(cast(limit, "int8"), "numeric"), cast(cast(offset, "int8"), "numeric"));
    least->op = IS_LEAST;
    least->args = list_make2(sum, integer(INT64_MAX));
    least->location = -1;
    return cast((Node *)least, "int8");
}

/* Each shard has to give the rows that the offset will skip, because it may have all of them. */
static void fold_offset(SelectStmt *select)
{
    Node *limit = select->limitCount, *offset = select->limitOffset;
    int64_t rows, skipped, sum;
    select->limitOffset = NULL;
    if (!limit)
        select->limitOption = NO_LIMIT_OPTION;
    if (!offset || !limit || is_null(limit) || is_null(offset))
        return;
    if (!plain_integer(limit, &rows) || !plain_integer(offset, &skipped))
        select->limitCount = sum_of(limit, offset);
    else
        select->limitCount = integer(__builtin_add_overflow(rows, skipped, &sum) ? INT64_MAX : sum);
}

bool rewrite_select(const char *text, const struct rewrite_select *change, struct arena *arena,
                    struct shard_query *out)
{
    struct rewriting r;
    rewrite_open(&r, text);
    if (!r.statement || !IsA(r.statement, SelectStmt))
        return rewrite_abandon(&r);
    SelectStmt *select = (SelectStmt *)r.statement;
    if (!add_columns(select, change))
        return rewrite_abandon(&r);
    if (change->drop_order)
        select->sortClause = NIL;
    if (change->drop_limit) {
        select->limitCount = select->limitOffset = NULL;
        select->limitOption = NO_LIMIT_OPTION;
    }
    if (change->fold_offset)
        fold_offset(select);
    return rewrite_close(&r, arena, out);
}
