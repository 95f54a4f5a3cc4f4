/*
 * parse_expr.c: Postgres' raw expression nodes into struct expr.
 *
 * A node without a form of its own becomes EXPR_OTHER with the expressions inside as arguments, found
 * by Postgres' own raw_expression_tree_walker, so that no call, parameter or subquery is ever missed.
 */
#include "router/parse_internal.h"
#include "pgshunt/session_function.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct expr *new_expr(struct convert *c, enum expr_kind kind, int location)
{
    struct expr *e = arena_new(c->arena, struct expr);
    e->kind = kind;
    e->location = parse_location(c, location);
    return e;
}

int parse_exprs(struct convert *c, const List *list, struct expr ***out)
{
    int count = list_length(list);
    *out = count ? arena_array(c->arena, struct expr *, count) : NULL;
    for (int i = 0; i < count; i++)
        (*out)[i] = parse_expr(c, list_nth(list, i));
    return count;
}

int parse_sort(struct convert *c, const List *list, struct sort_item **out)
{
    int count = list_length(list);
    *out = count ? arena_array(c->arena, struct sort_item, count) : NULL;
    for (int i = 0; i < count; i++) {
        const SortBy *sort = list_nth(list, i);
        struct sort_item *item = &(*out)[i];
        item->expr = parse_expr(c, sort->node);
        item->descending = sort->sortby_dir == SORTBY_DESC;
        item->using_op = sort->sortby_dir == SORTBY_USING;
        item->nulls_first = sort->sortby_nulls == SORTBY_NULLS_DEFAULT
                                ? item->descending
                                : sort->sortby_nulls == SORTBY_NULLS_FIRST;
    }
    return count;
}

/* ---- anything else ---- */

struct children {
    struct convert *convert;
    struct expr *parent;
};

static void add_child(struct children *children, struct expr *child)
{
    struct expr *parent = children->parent;
    parent->args =
        parse_grow(children->convert->arena, parent->args, parent->nargs, sizeof *parent->args);
    parent->args[parent->nargs++] = child;
}

static bool collect_child(Node *node, void *context)
{
    struct children *children = context;
    struct convert *c = children->convert;
    if (!node || pgtree_barren(node))
        return false;
    if (!pgtree_container(node)) {
        add_child(children, parse_expr(c, node));
        return c->failed;
    }
    if (!parse_enter(c))
        return true;
    bool stop = pgtree_children(node, collect_child, context);
    parse_leave(c);
    return stop;
}

static const char *node_name(const Node *node)
{
    switch ((int)nodeTag(node)) {
    case T_A_Indirection:
        return "INDIRECTION";
    case T_BooleanTest:
        return "BOOLEAN TEST";
    case T_CoalesceExpr:
        return "COALESCE";
    case T_CurrentOfExpr:
        return "CURRENT OF";
    case T_GroupingFunc:
        return "GROUPING";
    case T_GroupingSet:
        return "GROUPING SET";
    case T_MinMaxExpr:
        return ((const MinMaxExpr *)node)->op == IS_GREATEST ? "GREATEST" : "LEAST";
    case T_NamedArgExpr:
        return "NAMED ARGUMENT";
    case T_RangeTableFunc:
        return "XMLTABLE";
    case T_SQLValueFunction:
        return "SQL VALUE FUNCTION";
    case T_XmlExpr:
    case T_XmlSerialize:
        return "XML";
    default:
        return "EXPRESSION";
    }
}

static struct expr *convert_other(struct convert *c, Node *node)
{
    struct expr *e = new_expr(c, EXPR_OTHER, -1);
    if (!pgtree_known(node)) {
        c->failed = true;
        return e;
    }
    e->name = node_name(node);
    struct children children = {c, e};
    pgtree_children(node, collect_child, &children);
    return e;
}

void parse_children(struct convert *c, Node *node, struct expr *parent)
{
    struct children children = {c, parent};
    collect_child(node, &children);
}

void parse_discard(struct convert *c, Node *node)
{
    struct expr ignored = {.kind = EXPR_OTHER};
    parse_children(c, node, &ignored);
}

/* ---- leaves ---- */

static struct expr *convert_column(struct convert *c, const ColumnRef *ref)
{
    struct expr *e = new_expr(c, EXPR_COLUMN, ref->location);
    int count = list_length(ref->fields);
    const char **parts[] = {&e->name, &e->qualifier, &e->schema};
    for (int i = 0; i < 3 && i < count; i++) {
        const Node *field = list_nth(ref->fields, count - 1 - i);
        if (IsA(field, A_Star))
            e->kind = EXPR_STAR;
        else
            *parts[i] = parse_copy(c, strVal(field));
    }
    return e;
}

/* Integers too wide for the grammar's int come as text: "12345678901", newer also "0x..." and "1_000". */
static bool wide_integer(const char *text, int64_t *number)
{
    char digits[80];
    size_t n = 0;
    for (const char *p = text; *p; p++) {
        if (*p == '_')
            continue;
        if (n == sizeof digits - 1)
            return false;
        digits[n++] = *p;
    }
    digits[n] = '\0';
    bool negative = digits[0] == '-';
    const char *body = digits + negative;
    int base = 10;
    if (body[0] == '0' && body[1] && strchr("xXoObB", body[1])) {
        base = strchr("xX", body[1]) ? 16 : strchr("oO", body[1]) ? 8 : 2;
        body += 2;
    }
    if (!body[0] || body[strspn(body, "0123456789abcdefABCDEF")])
        return false;
    char *end;
    errno = 0;
    unsigned long long value = strtoull(body, &end, base);
    if (*end || errno || value > (unsigned long long)INT64_MAX + negative)
        return false;
    *number = (int64_t)(negative ? 0 - value : value);
    return true;
}

/* As arena_printf("%d"), which would be a good part of the cost of a point read. */
static const char *integer_text(struct convert *c, int64_t number)
{
    char text[24], *p = text + sizeof text - 1;
    uint64_t left = number < 0 ? 0 - (uint64_t)number : (uint64_t)number;
    *p = '\0';
    do {
        *--p = (char)('0' + left % 10);
    } while (left /= 10);
    if (number < 0)
        *--p = '-';
    return arena_strndup(c->arena, p, (size_t)(text + sizeof text - 1 - p));
}

static void note_constant(struct convert *c, struct expr *e)
{
    struct constant_list *list = c->constants;
    list->items = parse_grow(c->arena, list->items, list->count, sizeof(struct expr *));
    list->items[list->count++] = e;
}

static struct expr *convert_const(struct convert *c, const A_Const *constant)
{
    struct expr *e = new_expr(c, EXPR_CONST, constant->location);
    if (c->constants)
        note_constant(c, e);
    if (constant->isnull) {
        e->const_kind = CONST_NULL;
        e->name = "NULL";
        return e;
    }
    switch ((int)nodeTag(&constant->val.node)) {
    case T_Integer:
        e->const_kind = CONST_INT;
        e->number = constant->val.ival.ival;
        e->name = integer_text(c, e->number);
        break;
    case T_Float:
        e->const_kind = wide_integer(constant->val.fval.fval, &e->number) ? CONST_INT : CONST_FLOAT;
        e->name = parse_copy(c, constant->val.fval.fval);
        break;
    case T_Boolean:
        e->const_kind = CONST_BOOL;
        e->number = constant->val.boolval.boolval;
        e->name = e->number ? "true" : "false";
        break;
    case T_BitString:
        e->const_kind = CONST_BITS;
        e->name = parse_copy(c, constant->val.bsval.bsval);
        break;
    default:
        e->const_kind = CONST_STRING;
        e->name = parse_copy(c, constant->val.sval.sval);
        break;
    }
    return e;
}

static struct expr *convert_param(struct convert *c, const ParamRef *param)
{
    struct expr *e = new_expr(c, EXPR_PARAM, param->location);
    e->number = param->number;
    if (param->number < 1) /* $0: the server refuses it */
        c->failed = true;
    c->statement->facts |= FACT_PARAMS;
    if (param->number > c->statement->max_param)
        c->statement->max_param = param->number;
    return e;
}

/* ---- operators ---- */

static struct expr *convert_binary(struct convert *c, enum expr_kind kind, const char *name,
                                   const A_Expr *a)
{
    struct expr *e = new_expr(c, kind, a->location);
    e->name = name;
    e->args = arena_array(c->arena, struct expr *, 2);
    if (a->lexpr)
        e->args[e->nargs++] = parse_expr(c, a->lexpr);
    if (a->rexpr)
        e->args[e->nargs++] = parse_expr(c, a->rexpr);
    return e;
}

/* The left side and, from a list, everything on the right. */
static struct expr *convert_with_list(struct convert *c, enum expr_kind kind, const char *name,
                                      const A_Expr *a)
{
    const List *right = (const List *)a->rexpr;
    int count = list_length(right);
    struct expr *e = new_expr(c, kind, a->location);
    e->name = name;
    e->args = arena_array(c->arena, struct expr *, count + 1);
    e->args[e->nargs++] = parse_expr(c, a->lexpr);
    for (int i = 0; i < count; i++)
        e->args[e->nargs++] = parse_expr(c, list_nth(right, i));
    return e;
}

static struct expr *negate(struct convert *c, struct expr *inner)
{
    struct expr *e = arena_new(c->arena, struct expr);
    e->kind = EXPR_NOT;
    e->location = inner->location;
    e->args = arena_array(c->arena, struct expr *, 1);
    e->args[e->nargs++] = inner;
    return e;
}

static struct expr *convert_operator(struct convert *c, const A_Expr *a)
{
    const char *schema;
    const char *name = parse_name(c, a->name, &schema);
    struct expr *e;
    switch ((int)a->kind) {
    case AEXPR_OP:
        e = convert_binary(c, EXPR_OP, name, a);
        e->qualifier = schema;
        return e;
    case AEXPR_OP_ANY:
        e = convert_binary(c, EXPR_ANY, name, a);
        e->qualifier = schema;
        return e;
    case AEXPR_IN:
        e = convert_with_list(c, EXPR_IN, "IN", a);
        e->negated = !strcmp(name, "<>");
        return e;
    case AEXPR_BETWEEN:
        return convert_with_list(c, EXPR_BETWEEN, "BETWEEN", a);
    case AEXPR_NOT_BETWEEN:
        return negate(c, convert_with_list(c, EXPR_BETWEEN, "BETWEEN", a));
    case AEXPR_BETWEEN_SYM:
        return convert_with_list(c, EXPR_OTHER, "BETWEEN SYMMETRIC", a);
    case AEXPR_NOT_BETWEEN_SYM:
        return convert_with_list(c, EXPR_OTHER, "NOT BETWEEN SYMMETRIC", a);
    case AEXPR_OP_ALL:
        return convert_binary(c, EXPR_OTHER, "ALL", a);
    case AEXPR_DISTINCT:
        return convert_binary(c, EXPR_OTHER, "IS DISTINCT FROM", a);
    case AEXPR_NOT_DISTINCT:
        return convert_binary(c, EXPR_OTHER, "IS NOT DISTINCT FROM", a);
    case AEXPR_NULLIF:
        return convert_binary(c, EXPR_OTHER, "NULLIF", a);
    case AEXPR_LIKE:
        return convert_binary(c, EXPR_OTHER, name[0] == '!' ? "NOT LIKE" : "LIKE", a);
    case AEXPR_ILIKE:
        return convert_binary(c, EXPR_OTHER, name[0] == '!' ? "NOT ILIKE" : "ILIKE", a);
    case AEXPR_SIMILAR:
        return convert_binary(c, EXPR_OTHER, name[0] == '!' ? "NOT SIMILAR" : "SIMILAR", a);
    default:
        c->failed = true;
        return new_expr(c, EXPR_OTHER, a->location);
    }
}

static struct expr *convert_bool(struct convert *c, const BoolExpr *b)
{
    enum expr_kind kind = b->boolop == AND_EXPR  ? EXPR_AND
                          : b->boolop == OR_EXPR ? EXPR_OR
                                                 : EXPR_NOT;
    struct expr *e = new_expr(c, kind, b->location);
    e->nargs = parse_exprs(c, b->args, &e->args);
    return e;
}

static struct expr *convert_null_test(struct convert *c, const NullTest *test)
{
    struct expr *e = new_expr(c, EXPR_NULL_TEST, test->location);
    e->negated = test->nulltesttype == IS_NOT_NULL;
    e->args = arena_array(c->arena, struct expr *, 1);
    e->args[e->nargs++] = parse_expr(c, (Node *)test->arg);
    return e;
}

static struct expr *convert_cast(struct convert *c, const TypeCast *cast)
{
    /* TRUE and FALSE are casts without a location around the constant. */
    if (cast->location < 0 && IsA(cast->arg, A_Const) &&
        IsA(&((const A_Const *)cast->arg)->val.node, Boolean))
        return parse_expr(c, cast->arg);
    struct expr *e = new_expr(c, EXPR_CAST, cast->location);
    e->name = parse_name(c, cast->typeName->names, &e->qualifier);
    if (cast->typeName->arrayBounds)
        e->name = arena_printf(c->arena, "%s[]", e->name);
    e->args = arena_array(c->arena, struct expr *, 1);
    e->args[e->nargs++] = parse_expr(c, cast->arg);
    return e;
}

static struct expr *convert_collate(struct convert *c, const CollateClause *collate)
{
    struct expr *e = new_expr(c, EXPR_COLLATE, collate->location);
    e->name = parse_name(c, collate->collname, &e->qualifier);
    e->args = arena_array(c->arena, struct expr *, 1);
    e->args[e->nargs++] = parse_expr(c, collate->arg);
    return e;
}

static struct expr *convert_case(struct convert *c, const CaseExpr *expr)
{
    struct expr *e = new_expr(c, EXPR_CASE, expr->location);
    int whens = list_length(expr->args);
    e->args = arena_array(c->arena, struct expr *, whens * 2 + 2);
    if (expr->arg)
        e->args[e->nargs++] = parse_expr(c, (Node *)expr->arg);
    for (int i = 0; i < whens; i++) {
        const CaseWhen *when = list_nth(expr->args, i);
        e->args[e->nargs++] = parse_expr(c, (Node *)when->expr);
        e->args[e->nargs++] = parse_expr(c, (Node *)when->result);
    }
    if (expr->defresult)
        e->args[e->nargs++] = parse_expr(c, (Node *)expr->defresult);
    return e;
}

/* ---- calls and subqueries ---- */

static struct expr *convert_call(struct convert *c, const FuncCall *call)
{
    struct expr *e = new_expr(c, EXPR_FUNC, call->location);
    struct call_detail *detail = e->call = arena_new(c->arena, struct call_detail);
    e->name = parse_name(c, call->funcname, &e->qualifier);
    e->nargs = parse_exprs(c, call->args, &e->args);
    detail->star = call->agg_star;
    detail->distinct = call->agg_distinct;
    detail->variadic = call->func_variadic;
    detail->within_group = call->agg_within_group;
    detail->filter = parse_expr(c, call->agg_filter);
    detail->norder_by = parse_sort(c, call->agg_order, &detail->order_by);
    if (call->over) {
        detail->over = true;
        if (c->query)
            c->query->windows = true;
        parse_discard(c, (Node *)call->over);
    }
    struct statement *statement = c->statement;
    if (session_function(e->name))
        statement->facts |= FACT_SESSION;
    statement->functions = parse_grow(c->arena, statement->functions, statement->nfunctions,
                                      sizeof *statement->functions);
    statement->functions[statement->nfunctions++] =
        (struct function_ref){.schema = e->qualifier, .name = e->name, .nargs = e->nargs};
    return e;
}

static const char *sublink_name(SubLinkType type)
{
    switch ((int)type) {
    case EXISTS_SUBLINK:
        return "EXISTS";
    case ALL_SUBLINK:
        return "ALL";
    case ANY_SUBLINK:
        return "ANY";
    case ROWCOMPARE_SUBLINK:
        return "ROW";
    case ARRAY_SUBLINK:
        return "ARRAY";
    default:
        return "EXPR";
    }
}

static struct expr *convert_sublink(struct convert *c, const SubLink *link)
{
    struct expr *e = new_expr(c, EXPR_SUBLINK, link->location);
    const char *schema;
    e->name = sublink_name(link->subLinkType);
    e->qualifier = link->operName ? parse_name(c, link->operName, &schema) : NULL;
    if (link->testexpr) {
        e->args = arena_array(c->arena, struct expr *, 1);
        e->args[e->nargs++] = parse_expr(c, link->testexpr);
    }
    c->statement->facts |= FACT_SUBQUERY;
    e->query = parse_query(c, link->subselect);
    return e;
}

/* A query that stands where an expression is expected (JSON_ARRAY(SELECT ...)). */
static struct expr *convert_bare_query(struct convert *c, Node *node)
{
    struct expr *e = new_expr(c, EXPR_SUBLINK, -1);
    e->name = "EXPR";
    c->statement->facts |= FACT_SUBQUERY;
    e->query = parse_query(c, node);
    return e;
}

static struct expr *convert_items(struct convert *c, enum expr_kind kind, const List *items,
                                  int location)
{
    struct expr *e = new_expr(c, kind, location);
    e->nargs = parse_exprs(c, items, &e->args);
    return e;
}

/* One case per node kind: the one long switch of this file. */
static struct expr *convert_node(struct convert *c, Node *node)
{
    switch ((int)nodeTag(node)) {
    case T_ColumnRef:
        return convert_column(c, (ColumnRef *)node);
    case T_A_Const:
        return convert_const(c, (A_Const *)node);
    case T_ParamRef:
        return convert_param(c, (ParamRef *)node);
    case T_A_Expr:
        return convert_operator(c, (A_Expr *)node);
    case T_BoolExpr:
        return convert_bool(c, (BoolExpr *)node);
    case T_FuncCall:
        return convert_call(c, (FuncCall *)node);
    case T_TypeCast:
        return convert_cast(c, (TypeCast *)node);
    case T_SubLink:
        return convert_sublink(c, (SubLink *)node);
    case T_NullTest:
        return convert_null_test(c, (NullTest *)node);
    case T_CaseExpr:
        return convert_case(c, (CaseExpr *)node);
    case T_CollateClause:
        return convert_collate(c, (CollateClause *)node);
    case T_RowExpr:
        return convert_items(c, EXPR_ROW, ((RowExpr *)node)->args, ((RowExpr *)node)->location);
    case T_A_ArrayExpr:
        return convert_items(c, EXPR_ARRAY, ((A_ArrayExpr *)node)->elements,
                             ((A_ArrayExpr *)node)->location);
    case T_SetToDefault:
        return new_expr(c, EXPR_DEFAULT, ((SetToDefault *)node)->location);
    case T_A_Star: /* MERGE's and RETURNING's bare star */
        return new_expr(c, EXPR_STAR, -1);
    case T_SelectStmt:
        return convert_bare_query(c, node);
    default:
        return convert_other(c, node);
    }
}

struct expr *parse_expr(struct convert *c, Node *node)
{
    if (!node)
        return NULL;
    if (!parse_enter(c))
        return new_expr(c, EXPR_OTHER, -1);
    struct expr *e = convert_node(c, node);
    parse_leave(c);
    return e;
}
