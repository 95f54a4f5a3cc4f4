/* plan_order.c: ORDER BY, DISTINCT's order, LIMIT and OFFSET of rows that come from several shards. */
#include "pgshunt/pgtypes.h"
#include "router/plan_internal.h"

/* ---- finding things in the select list ---- */

static bool single_table(const struct query *q)
{
    return q->nfrom == 1 && q->from[0]->kind == FROM_TABLE;
}

/* `u.name` and `name` are the same column where there is only one table. */
static bool same_expression(const struct query *q, const struct expr *a, const struct expr *b)
{
    if (a->kind == EXPR_COLUMN && b->kind == EXPR_COLUMN && single_table(q))
        return same_name(a->name, b->name);
    return expr_same(a, b);
}

int select_same_target(const struct select_plan *s, const struct expr *expr)
{
    int end = s->star < 0 ? s->query->ntargets : s->star;
    for (int i = 0; i < end; i++)
        if (same_expression(s->query, s->query->targets[i].expr, expr))
            return i;
    return -1;
}

int select_named_target(const struct select_plan *s, const char *name)
{
    int found = -1;
    for (int i = 0; i < s->query->ntargets; i++) {
        const char *own = target_name(&s->query->targets[i]);
        if (!own || !same_name(own, name))
            continue;
        if (found >= 0 &&
            !same_expression(s->query, s->query->targets[found].expr, s->query->targets[i].expr))
            return -2;
        if (found < 0)
            found = i;
    }
    return found;
}

int select_add_column(struct select_plan *s, enum rewrite_source source, int index)
{
    if (s->ncolumns == SELECT_MAX_COLUMNS) {
        plan_refuse_shape(s->p, "ORDER BY and GROUP BY of so many expressions over several shards");
        return -1;
    }
    s->columns[s->ncolumns] = (struct rewrite_column){source, index};
    s->spec->hidden++;
    return s->ncolumns++;
}

/* ---- collations ---- */

enum collation { COLLATION_NONE, COLLATION_DEFAULT, COLLATION_C, COLLATION_OTHER };

static enum collation collation_named(const char *name)
{
    if (same_name(name, "C") || same_name(name, "POSIX"))
        return COLLATION_C;
    return same_name(name, "default") ? COLLATION_DEFAULT : COLLATION_OTHER;
}

static bool is_text_type(uint32_t oid)
{
    return oid == OID_TEXT || oid == OID_VARCHAR || oid == OID_BPCHAR;
}

static enum collation column_collation(const struct select_plan *s, const struct expr *column)
{
    const struct from_item *item = scope_item(s->p, s->query, column);
    const struct schema_column *known = item ? scope_column(s->p, item, column->name) : NULL;
    if (!known)
        return COLLATION_DEFAULT;
    if (!known->collation_default && known->collation)
        return known->type_oid == OID_NAME ? COLLATION_NONE : collation_named(known->collation);
    return is_text_type(known->type_oid) || known->type_oid >= 10000 ? COLLATION_DEFAULT
                                                                     : COLLATION_NONE;
}

static bool casts_to_number(const struct expr *cast)
{
    static const char *const types[] = {"int2",    "int4",        "int8",    "float4", "float8",
                                        "numeric", "bool",        "uuid",    "date",   "timestamp",
                                        "time",    "timestamptz", "interval"};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (same_name(types[i], cast->name))
            return true;
    return false;
}

/* As Postgres derives it: an explicit COLLATE, else what the columns inside bring along. */
static enum collation collation_of(const struct select_plan *s, const struct expr *expr)
{
    if (expr->kind == EXPR_COLUMN)
        return column_collation(s, expr);
    if (expr->kind == EXPR_COLLATE)
        return collation_named(expr->name);
    if (expr->kind == EXPR_CONST && expr->const_kind != CONST_STRING)
        return COLLATION_NONE;
    if (expr->kind == EXPR_CAST && casts_to_number(expr))
        return COLLATION_NONE;
    if (expr->kind == EXPR_FUNC && same_name(expr->name, "count"))
        return COLLATION_NONE;
    enum collation found = expr->nargs ? COLLATION_NONE : COLLATION_DEFAULT;
    for (int i = 0; i < expr->nargs; i++) {
        enum collation inside = collation_of(s, expr->args[i]);
        if (inside > found)
            found = inside;
    }
    return found;
}

static bool refuse_collation(struct select_plan *s, const char *what)
{
    plan_refuse(
        s->p,
        "Give every text column of the ORDER BY the same collation, \"C\" or the database's "
        "own, or restrict the statement to one shard.",
        "merging rows of several shards in the order of %s is not supported yet", what);
    return false;
}

bool select_collation(struct select_plan *s, const struct expr *expr)
{
    enum collation found = collation_of(s, expr);
    if (!select_type(s, expr, TYPE_ORDERED))
        return false;
    if (found == COLLATION_OTHER)
        return refuse_collation(s, "a column's own collation");
    s->sorts_default |= found == COLLATION_DEFAULT;
    s->sorts_c |= found == COLLATION_C;
    if (s->sorts_default && s->sorts_c)
        return refuse_collation(s, "several collations");
    return true;
}

/* Equality needs no order, but a collation of its own may call different texts equal. */
bool select_equal(struct select_plan *s, const struct expr *expr)
{
    if (collation_of(s, expr) == COLLATION_OTHER)
        return refuse_collation(s, "a column's own collation");
    return select_type(s, expr, TYPE_EQUAL);
}

/* ---- ORDER BY ---- */

static bool refuse_distinct(struct select_plan *s)
{
    plan_refuse_shape(s->p,
                      "SELECT DISTINCT over several shards with ORDER BY an expression that is "
                      "not in the select list as it stands");
    return false;
}

/* A key that is no column of the result becomes one, behind the others. */
static bool hidden_key(struct select_plan *s, int index, struct merge_sort_key *key)
{
    if (s->query->distinct)
        return refuse_distinct(s);
    int hidden = select_add_column(s, REWRITE_SORT, index);
    key->column = -2 - hidden;
    return hidden >= 0 && select_collation(s, s->query->order_by[index].expr);
}

static bool visible_key(struct select_plan *s, int target, struct merge_sort_key *key)
{
    key->column = target;
    return select_collation(s, s->query->targets[target].expr);
}

static bool position_key(struct select_plan *s, int64_t position, struct merge_sort_key *key)
{
    if (position < 1 || position > 1664 || (s->star < 0 && position > s->query->ntargets)) {
        s->server_judges = true;
        return true;
    }
    if (s->star < 0 || position <= s->star)
        return visible_key(s, (int)position - 1, key);
    key->column = (int)position - 1;
    s->sorts_default = true; /* one of the star's columns: it could be text */
    return s->sorts_c ? refuse_collation(s, "several collations") : true;
}

/* Whether the select list has a bare `*`: every column of the tables is in the result by its name. */
static bool has_bare_star(const struct query *q)
{
    for (int i = 0; i < q->ntargets; i++)
        if (q->targets[i].expr->kind == EXPR_STAR && !q->targets[i].expr->qualifier)
            return true;
    return false;
}

/* A column whose name is enough to find it in a result with `*`. */
static bool is_found_by_name(const struct select_plan *s, const struct expr *column, int named)
{
    if (s->star < 0 || column->kind != EXPR_COLUMN)
        return false;
    if (column->qualifier)
        return single_table(s->query) && has_bare_star(s->query) && named == -1;
    return named >= 0 || has_bare_star(s->query);
}

static bool order_key(struct select_plan *s, int index, struct merge_sort_key *key)
{
    const struct expr *expr = s->query->order_by[index].expr;
    if (expr->kind == EXPR_CONST && expr->const_kind == CONST_INT)
        return position_key(s, expr->number, key);
    int named = expr->kind == EXPR_COLUMN ? select_named_target(s, expr->name) : -1;
    bool plain_name = expr->kind == EXPR_COLUMN && !expr->qualifier;
    if (plain_name && named == -2) {
        s->server_judges = true; /* ambiguous */
        return true;
    }
    if (is_found_by_name(s, expr, named)) {
        key->column = -1;
        s->spec->sort_names[index] = expr->name;
        return select_collation(s, plain_name && named >= 0 ? s->query->targets[named].expr : expr);
    }
    if (plain_name && named >= 0)
        return visible_key(s, named, key);
    int same = select_same_target(s, expr);
    return same >= 0 ? visible_key(s, same, key) : hidden_key(s, index, key);
}

bool select_order(struct select_plan *s)
{
    const struct query *q = s->query;
    struct merge_spec *spec = s->spec;
    spec->sort = arena_array(s->p->arena, struct merge_sort_key, q->norder_by);
    spec->sort_names = arena_array(s->p->arena, const char *, q->norder_by);
    for (int i = 0; i < q->norder_by; i++) {
        const struct sort_item *item = &q->order_by[i];
        if (item->using_op) {
            plan_refuse_shape(s->p, "ORDER BY ... USING over several shards");
            return false;
        }
        struct merge_sort_key *key = &spec->sort[spec->nsort++];
        key->descending = item->descending;
        key->nulls_first = item->nulls_first;
        if (!order_key(s, i, key))
            return false;
    }
    return true;
}

/* ---- LIMIT, OFFSET ---- */

enum limit_state { LIMIT_NONE, LIMIT_KNOWN, LIMIT_PARAM, LIMIT_WRONG, LIMIT_OPAQUE };

static bool decode_integer(bool binary, uint32_t oid, const char *bytes, size_t length,
                           int64_t *value)
{
    struct shardkey key;
    bool ok = binary ? shardkey_from_binary(KEY_BIGINT, oid, bytes, length, &key)
                     : shardkey_from_text(KEY_BIGINT, bytes, length, &key);
    if (!ok)
        return false;
    uint64_t bits = 0;
    for (int i = 0; i < 8; i++)
        bits = bits << 8 | key.bytes[i];
    *value = (int64_t)bits;
    return true;
}

static enum limit_state param_limit(const struct planner *p, const struct expr *expr,
                                    int64_t *value, int *number)
{
    const struct params *params = p->input->params;
    *number = (int)expr->number;
    if (!params || expr->number > params->count)
        return LIMIT_PARAM;
    const struct param *param = &params->items[expr->number - 1];
    if (!param->bytes)
        return LIMIT_NONE;
    if (!decode_integer(param->binary, param->type_oid, param->bytes, (size_t)param->length, value))
        return LIMIT_PARAM; /* the caller or the server will find out */
    return *value < 0 ? LIMIT_WRONG : LIMIT_KNOWN;
}

static enum limit_state limit_value(const struct planner *p, const struct expr *expr,
                                    int64_t *value, int *number)
{
    if (!expr)
        return LIMIT_NONE;
    while (expr->kind == EXPR_CAST &&
           (same_name(expr->name, "int8") || same_name(expr->name, "int4") ||
            same_name(expr->name, "int2")))
        expr = expr->args[0];
    if (expr->kind == EXPR_PARAM)
        return param_limit(p, expr, value, number);
    if (expr->kind != EXPR_CONST)
        return LIMIT_OPAQUE;
    if (expr->const_kind == CONST_NULL)
        return LIMIT_NONE;
    if (expr->const_kind == CONST_INT)
        *value = expr->number;
    else if (expr->const_kind != CONST_STRING ||
             !decode_integer(false, 0, expr->name, strlen(expr->name), value))
        return LIMIT_OPAQUE;
    return *value < 0 ? LIMIT_WRONG : LIMIT_KNOWN;
}

bool select_limits(struct select_plan *s)
{
    const struct query *q = s->query;
    struct merge_spec *spec = s->spec;
    int64_t limit = -1, offset = 0;
    enum limit_state limited = limit_value(s->p, q->limit, &limit, &spec->limit_param);
    enum limit_state skipped = limit_value(s->p, q->offset, &offset, &spec->offset_param);
    if (limited == LIMIT_OPAQUE || skipped == LIMIT_OPAQUE) {
        plan_refuse(s->p, "Use a number or a parameter.",
                    "%s of an expression over several shards is not supported yet",
                    limited == LIMIT_OPAQUE ? "LIMIT" : "OFFSET");
        return false;
    }
    s->server_judges |= limited == LIMIT_WRONG || skipped == LIMIT_WRONG;
    spec->limit = limited == LIMIT_KNOWN ? limit : -1;
    spec->offset = skipped == LIMIT_KNOWN ? offset : 0;
    if (spec->group)
        return true;
    s->fold_offset = q->offset != NULL;
    return true;
}
