/* plan_types.c: whether values of an expression can be told apart and ordered outside of a server. */
#include "pgshunt/pgtypes.h"
#include "router/plan_internal.h"

/* Types that casts and operators say by name, and that have no order here. */
static const struct {
    const char *name;
    uint32_t oid;
} named[] = {{"jsonb", 3802},     {"inet", 869},      {"cidr", 650},     {"interval", OID_INTERVAL},
             {"macaddr", 829},    {"tsvector", 3614}, {"tsquery", 3615}, {"int4range", 3904},
             {"daterange", 3912}, {"tstzrange", 3910}};

static uint32_t named_type(const char *name)
{
    for (size_t i = 0; i < sizeof named / sizeof named[0]; i++)
        if (same_name(named[i].name, name))
            return named[i].oid;
    return 0;
}

static uint32_t column_type(const struct select_plan *s, const struct expr *column)
{
    const struct from_item *item = scope_item(s->p, s->query, column);
    const struct schema_column *known = item ? scope_column(s->p, item, column->name) : NULL;
    return known ? known->type_oid : 0;
}

/* 0: unknown. */
static uint32_t type_of(const struct select_plan *s, const struct expr *expr)
{
    switch ((int)expr->kind) {
    case EXPR_COLUMN:
        return column_type(s, expr);
    case EXPR_COLLATE:
        return type_of(s, expr->args[0]);
    case EXPR_CAST:
        return named_type(expr->name);
    case EXPR_OP: /* json has neither order nor equality on the servers either */
        if (same_name(expr->name, "->") || same_name(expr->name, "#>"))
            return named_type("jsonb");
        return 0;
    case EXPR_FUNC: /* the extremes have the type of what they are taken from */
        if (expr->nargs == 1 && (same_name(expr->name, "min") || same_name(expr->name, "max")))
            return type_of(s, expr->args[0]);
        return 0;
    default:
        return 0;
    }
}

static bool is_known(uint32_t type, enum type_use use, int format)
{
    struct pg_order order;
    if (use == TYPE_AVERAGED)
        return type != OID_INTERVAL;
    if (use == TYPE_ORDERED)
        return pg_order_init(&order, type, format, NULL);
    return type >= OID_FIRST_USER || pg_order_init_equal(&order, type, -1, format);
}

/* What a type's number does not tell (an enum's equality) is seen when the rows come. */
static bool check(struct select_plan *s, uint32_t type, enum type_use use)
{
    const char *name = type < OID_FIRST_USER ? pg_type_name(type) : NULL;
    if (!type || (is_known(type, use, 0) && is_known(type, use, 1)))
        return true;
    plan_refuse_state(
        s->p, "0A000",
        "Keep the statement to one shard by its key, or cast the column to a type with a simple "
        "order (text, numeric, ...).",
        "cannot merge values of type %s across shards",
        name ? name : arena_printf(s->p->arena, "with oid %u", type));
    return false;
}

bool select_type(struct select_plan *s, const struct expr *expr, enum type_use use)
{
    return check(s, type_of(s, expr), use);
}

/* `*` of one table; of several, what cannot be merged is seen when the rows come. */
static bool star_types(struct select_plan *s)
{
    const struct query *q = s->query;
    if (q->nfrom != 1 || q->from[0]->kind != FROM_TABLE || !s->p->schema)
        return true;
    const struct schema_relation *relation =
        schema_relation(s->p->schema, q->from[0]->schema, q->from[0]->name);
    for (int i = 0; relation && i < relation->ncolumns; i++)
        if (!check(s, relation->columns[i].type_oid, TYPE_EQUAL))
            return false;
    return true;
}

bool select_distinct(struct select_plan *s)
{
    const struct query *q = s->query;
    for (int i = 0; i < q->ntargets; i++) {
        const struct expr *expr = q->targets[i].expr;
        bool fine = expr->kind == EXPR_STAR ? star_types(s) : select_equal(s, expr);
        if (!fine)
            return false;
    }
    return true;
}
