/*
 * pgtree.h: Postgres' own parser and node headers, for router/parse*.c and router/rewrite*.c alone.
 *
 * Hides what differs between the libpg_query of Postgres 15 (Debian), 16 and 17. Nothing in here may be
 * called that can ereport(): outside the parser nobody catches it.
 */
#ifndef PGSHUNT_PGTREE_H
#define PGSHUNT_PGTREE_H

#define EXPR_SUBLINK PG_EXPR_SUBLINK /* ours is another */
#include <pg_query.h>
#if __has_include("pg_query_internal.h")
#include "pg_query_internal.h" /* a libpg_query source tree */
#else
#include <pg_query/pg_query_internal.h> /* libpg-query-dev, with postgresql-server-dev's node headers */
#endif
#include "nodes/nodeFuncs.h"
#include "nodes/parsenodes.h"
#include "nodes/pg_list.h"
#include "nodes/value.h"
#include "utils/timestamp.h"
#undef EXPR_SUBLINK

static inline PgQueryInternalParsetreeAndError pgtree_parse(const char *sql)
{
#if PG_MAJORVERSION_NUM >= 16
    return pg_query_raw_parse(sql, 0);
#else
    return pg_query_raw_parse(sql);
#endif
}

/* libpg_query has LimitOption in an order of its own, which only the headers of its source trees show. */
static inline bool pgtree_with_ties(const SelectStmt *select)
{
    enum { WITH_TIES = 2 };
    return (int)select->limitOption == WITH_TIES;
}

/* Calls `visit` for each direct child. Only for nodes pgtree_known() knows: others would ereport(). */
static inline bool pgtree_children(Node *node, bool (*visit)(Node *, void *), void *context)
{
    return raw_expression_tree_walker(node, visit, context);
}

/* Expression and helper nodes without a form of their own in struct expr. */
static inline bool pgtree_known(const Node *node)
{
    switch ((int)nodeTag(node)) {
    case T_A_Indices:
    case T_A_Indirection:
    case T_A_Star:
    case T_Alias:
    case T_BooleanTest:
    case T_CoalesceExpr:
    case T_ColumnDef:
    case T_CurrentOfExpr:
    case T_GroupingFunc:
    case T_GroupingSet:
    case T_List:
    case T_MinMaxExpr:
    case T_NamedArgExpr:
    case T_RangeTableFunc:
    case T_RangeTableFuncCol:
    case T_ResTarget:
    case T_SQLValueFunction:
    case T_SortBy:
    case T_String:
    case T_Integer:
    case T_Float:
    case T_Boolean:
    case T_BitString:
    case T_TypeName:
    case T_WindowDef:
    case T_XmlExpr:
    case T_XmlSerialize:
#if PG_MAJORVERSION_NUM >= 16
    case T_JsonAggConstructor:
    case T_JsonArrayAgg:
    case T_JsonArrayConstructor:
    case T_JsonArrayQueryConstructor:
    case T_JsonFormat:
    case T_JsonIsPredicate:
    case T_JsonKeyValue:
    case T_JsonObjectAgg:
    case T_JsonObjectConstructor:
    case T_JsonOutput:
    case T_JsonReturning:
    case T_JsonValueExpr:
#endif
#if PG_MAJORVERSION_NUM >= 17
    case T_JsonArgument:
    case T_JsonBehavior:
    case T_JsonFuncExpr:
    case T_JsonParseExpr:
    case T_JsonScalarExpr:
    case T_JsonSerializeExpr:
    case T_JsonTable:
    case T_JsonTableColumn:
    case T_JsonTablePathSpec:
    case T_MergeSupportFunc:
#endif
        return true;
    default:
        return false;
    }
}

/* Known nodes that are no expressions themselves: their children belong to the expression around. */
static inline bool pgtree_container(const Node *node)
{
    switch ((int)nodeTag(node)) {
    case T_A_Indices:
    case T_ColumnDef:
    case T_List:
    case T_RangeTableFuncCol:
    case T_ResTarget:
    case T_SortBy:
    case T_WindowDef:
#if PG_MAJORVERSION_NUM >= 16
    case T_JsonAggConstructor:
    case T_JsonKeyValue:
    case T_JsonOutput:
    case T_JsonReturning:
    case T_JsonValueExpr:
#endif
#if PG_MAJORVERSION_NUM >= 17
    case T_JsonArgument:
    case T_JsonBehavior:
    case T_JsonTableColumn:
    case T_JsonTablePathSpec:
#endif
        return true;
    default:
        return false;
    }
}

/* Names and types inside expressions, where there is nothing to find. */
static inline bool pgtree_barren(const Node *node)
{
    switch ((int)nodeTag(node)) {
    case T_A_Star:
    case T_Alias:
    case T_String:
    case T_Integer:
    case T_Float:
    case T_Boolean:
    case T_BitString:
    case T_TypeName:
#if PG_MAJORVERSION_NUM >= 16
    case T_JsonFormat:
#endif
        return true;
    default:
        return false;
    }
}

#endif
