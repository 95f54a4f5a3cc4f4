/* plan_expr.c: questions about expressions: equal, constant, what name, aggregate or not. */
#include <stdlib.h>

#include "router/builtin_functions.h"
#include "router/plan_internal.h"

bool expr_any(const struct expr *expr, bool (*visit)(const struct expr *, void *), void *context)
{
    if (!expr)
        return false;
    if (visit(expr, context))
        return true;
    for (int i = 0; i < expr->nargs; i++)
        if (expr_any(expr->args[i], visit, context))
            return true;
    if (expr->kind != EXPR_FUNC)
        return false;
    for (int i = 0; i < expr->call->norder_by; i++)
        if (expr_any(expr->call->order_by[i].expr, visit, context))
            return true;
    return expr_any(expr->call->filter, visit, context);
}

bool expr_is_constant(const struct expr *expr)
{
    while (expr->kind == EXPR_CAST)
        expr = expr->args[0];
    return expr->kind == EXPR_CONST || expr->kind == EXPR_PARAM;
}

static bool same_text(const char *a, const char *b)
{
    return a == b || (a && b && same_name(a, b));
}

static bool same_call(const struct call_detail *a, const struct call_detail *b)
{
    if (a->norder_by || b->norder_by || a->over || b->over || a->within_group || b->within_group)
        return false;
    if (a->star != b->star || a->distinct != b->distinct || a->variadic != b->variadic)
        return false;
    return (!a->filter && !b->filter) ||
           (a->filter && b->filter && expr_same(a->filter, b->filter));
}

/* Casts lose their type modifiers in our tree (varchar(3)), so these types are never the same. */
static bool has_modifier(const struct expr *cast)
{
    static const char *const types[] = {"int2",   "int4",   "int8", "text", "uuid", "bool",
                                        "float4", "float8", "date", "json", "jsonb"};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (same_name(types[i], cast->name))
            return false;
    return true;
}

bool expr_same(const struct expr *a, const struct expr *b)
{
    if (a->kind != b->kind || a->nargs != b->nargs || a->negated != b->negated ||
        a->number != b->number || a->const_kind != b->const_kind)
        return false;
    if (a->kind == EXPR_SUBLINK || a->kind == EXPR_OTHER || a->kind == EXPR_DEFAULT ||
        a->kind == EXPR_STAR || (a->kind == EXPR_CAST && has_modifier(a)))
        return false;
    /* CASE x WHEN y ... and CASE WHEN x THEN y ... have the same parts. */
    if (a->kind == EXPR_CASE)
        return false;
    if (!same_text(a->name, b->name) || !same_text(a->qualifier, b->qualifier) ||
        !same_text(a->schema, b->schema))
        return false;
    if (a->kind == EXPR_FUNC && !same_call(a->call, b->call))
        return false;
    for (int i = 0; i < a->nargs; i++)
        if (!expr_same(a->args[i], b->args[i]))
            return false;
    return true;
}

const char *target_name(const struct target *target)
{
    if (target->alias)
        return target->alias;
    const struct expr *expr = target->expr;
    while (expr->kind == EXPR_COLLATE ||
           (expr->kind == EXPR_CAST && expr->args[0]->kind != EXPR_CONST))
        expr = expr->args[0];
    return expr->kind == EXPR_COLUMN || expr->kind == EXPR_FUNC ? expr->name : NULL;
}

/* ---- functions ---- */

/* All aggregates of pg_catalog up to PostgreSQL 17; sorted for bsearch. */
static const char *const aggregates[] = {
    "any_value",
    "array_agg",
    "avg",
    "bit_and",
    "bit_or",
    "bit_xor",
    "bool_and",
    "bool_or",
    "corr",
    "count",
    "covar_pop",
    "covar_samp",
    "cume_dist",
    "dense_rank",
    "every",
    "json_agg",
    "json_agg_strict",
    "json_object_agg",
    "json_object_agg_strict",
    "json_object_agg_unique",
    "json_object_agg_unique_strict",
    "jsonb_agg",
    "jsonb_agg_strict",
    "jsonb_object_agg",
    "jsonb_object_agg_strict",
    "jsonb_object_agg_unique",
    "jsonb_object_agg_unique_strict",
    "max",
    "min",
    "mode",
    "percent_rank",
    "percentile_cont",
    "percentile_disc",
    "range_agg",
    "range_intersect_agg",
    "rank",
    "regr_avgx",
    "regr_avgy",
    "regr_count",
    "regr_intercept",
    "regr_r2",
    "regr_slope",
    "regr_sxx",
    "regr_sxy",
    "regr_syy",
    "stddev",
    "stddev_pop",
    "stddev_samp",
    "string_agg",
    "sum",
    "var_pop",
    "var_samp",
    "variance",
    "xmlagg",
};

/* Functions that give each shard a value of its own; volatile ones are known from the schema. */
static const char *const differing[] = {
    "clock_timestamp",
    "current_setting",
    "gen_random_uuid",
    "inet_server_addr",
    "nextval",
    "now",
    "pg_backend_pid",
    "pg_current_wal_lsn",
    "pg_current_xact_id",
    "pg_postmaster_start_time",
    "random",
    "setval",
    "statement_timestamp",
    "timeofday",
    "transaction_timestamp",
    "txid_current",
    "uuid_generate_v1",
    "uuid_generate_v1mc",
    "uuid_generate_v4",
    "uuidv4",
    "uuidv7",
};

static int compare_names(const void *key, const void *item)
{
    return strcmp(key, *(const char *const *)item);
}

static bool is_listed(const char *name, const char *const *list, size_t count)
{
    return bsearch(name, list, count, sizeof *list, compare_names) != NULL;
}

enum function_class function_class(const struct planner *p, const struct expr *call)
{
    bool catalog = !call->qualifier || same_name(call->qualifier, "pg_catalog");
    if (call->call->within_group || call->call->filter || call->call->distinct || call->call->star)
        return FUNCTION_AGGREGATE;
    if (catalog && is_listed(call->name, aggregates, sizeof aggregates / sizeof aggregates[0]))
        return FUNCTION_AGGREGATE;
    if (!catalog)
        return FUNCTION_UNSURE;
    bool known =
        builtin_function(call->name) != BUILTIN_UNKNOWN ||
        (p->schema && schema_function(p->schema, "pg_catalog", call->name) != VOLATILITY_UNKNOWN);
    return known ? FUNCTION_PLAIN : FUNCTION_UNSURE;
}

bool function_differs(const struct planner *p, const struct function_ref *function)
{
    if (is_listed(function->name, differing, sizeof differing / sizeof differing[0]))
        return true;
    enum builtin_class builtin = builtin_function(function->name);
    if (builtin == BUILTIN_HARMLESS || builtin == BUILTIN_VOLATILE)
        return true;
    return p->schema &&
           schema_function(p->schema, function->schema, function->name) == VOLATILITY_VOLATILE;
}
