/* keyfind_value.c: what expressions and parameters are worth, as the server will understand them. */
#include <stdio.h>

#include "router/keyfind_internal.h"

/*
 * Rule of this file: a value is either understood exactly as the server will understand it, or it is
 * VALUE_OPAQUE, and then nothing is concluded from it.
 */
static void constant_value(const struct expr *expr, struct value *value)
{
    value->state = VALUE_KNOWN;
    switch (expr->const_kind) {
    case CONST_NULL:
        value->state = VALUE_NULL;
        break;
    case CONST_INT:
        value->integer = true;
        value->number = expr->number;
        value->oid = expr->number == (int32_t)expr->number ? OID_INT4 : OID_INT8;
        break;
    case CONST_STRING:
        value->oid = OID_UNKNOWN;
        value->bytes = expr->name;
        value->length = strlen(expr->name);
        break;
    case CONST_FLOAT:
    case CONST_BOOL:
    case CONST_BITS:
        value->state = VALUE_OPAQUE;
        break;
    }
}

static void param_value(const struct planner *p, const struct expr *expr, struct value *value)
{
    const struct params *params = p->input->params;
    value->state = VALUE_PENDING;
    if (!params || expr->number < 1 || expr->number > params->count)
        return;
    const struct param *param = &params->items[expr->number - 1];
    value->state = param->bytes ? VALUE_KNOWN : VALUE_NULL;
    value->oid = param->type_oid;
    value->binary = param->binary;
    value->bytes = param->bytes;
    value->length = param->length > 0 ? (size_t)param->length : 0;
}

/* ---- casts ---- */

static uint32_t cast_target(const struct expr *cast)
{
    static const struct {
        const char *name;
        uint32_t oid;
    } types[] = {{"int8", OID_INT8},
                 {"int4", OID_INT4},
                 {"int2", OID_INT2},
                 {"text", OID_TEXT},
                 {"uuid", OID_UUID}};
    if (cast->qualifier && !same_name(cast->qualifier, "pg_catalog"))
        return 0;
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (same_name(types[i].name, cast->name))
            return types[i].oid;
    return 0; /* varchar(n) and char(n) may cut the value, numeric rounds: not ours to redo */
}

bool keyfind_bigint(const struct value *value, struct shardkey *key)
{
    uint32_t oid = is_integer_type(value->oid) ? value->oid : 0;
    return value->binary ? shardkey_from_binary(KEY_BIGINT, oid, value->bytes, value->length, key)
                         : shardkey_from_text(KEY_BIGINT, value->bytes, value->length, key);
}

/* The integer that the value is, as any integer type reads it. */
bool keyfind_number(struct value *value)
{
    if (value->integer)
        return true;
    struct shardkey key;
    if (!keyfind_bigint(value, &key))
        return false;
    uint64_t bits = 0;
    for (int i = 0; i < 8; i++)
        bits = bits << 8 | key.bytes[i];
    value->integer = true;
    value->number = (int64_t)bits;
    return true;
}

bool keyfind_fits(int64_t number, uint32_t oid)
{
    return oid == OID_INT8 || (oid == OID_INT4 && number == (int32_t)number) ||
           (oid == OID_INT2 && number == (int16_t)number);
}

static void cast_to_integer(struct value *value, uint32_t oid)
{
    bool text = value->oid == OID_TEXT || value->oid == OID_VARCHAR;
    if (text)
        value->binary = false; /* text is the same bytes in both forms */
    if (!text && !is_untyped(value->oid) && !is_integer_type(value->oid)) {
        value->state = VALUE_OPAQUE;
        return;
    }
    /* A parameter without a type gets this one: its binary form has to have this width. */
    if (value->binary && is_untyped(value->oid))
        value->oid = oid;
    if (!keyfind_number(value) || !keyfind_fits(value->number, oid))
        value->state = VALUE_INVALID;
    value->oid = oid;
}

void keyfind_to_text(struct planner *p, struct value *value)
{
    if (value->integer || is_integer_type(value->oid)) {
        if (!keyfind_number(value)) {
            value->state = VALUE_INVALID;
            return;
        }
        value->bytes = arena_printf(p->arena, "%lld", (long long)value->number);
        value->length = strlen(value->bytes);
        value->integer = value->binary = false;
    } else if (!is_untyped(value->oid) && value->oid != OID_TEXT && value->oid != OID_VARCHAR) {
        value->state = VALUE_OPAQUE;
    }
    value->oid = OID_TEXT;
}

static void cast_to_uuid(struct value *value)
{
    bool text = value->oid == OID_TEXT || value->oid == OID_VARCHAR;
    if (text)
        value->binary = false;
    if (!text && !is_untyped(value->oid) && value->oid != OID_UUID)
        value->state = VALUE_OPAQUE;
    value->oid = OID_UUID;
}

static void cast_value(struct planner *p, const struct expr *cast, struct value *value)
{
    keyfind_evaluate(p, cast->args[0], value);
    uint32_t target = cast_target(cast);
    if (value->state == VALUE_NULL)
        return;
    if (target == 0) {
        value->state = VALUE_OPAQUE;
        return;
    }
    if (value->state != VALUE_KNOWN)
        return;
    if (target == OID_TEXT)
        keyfind_to_text(p, value);
    else if (target == OID_UUID)
        cast_to_uuid(value);
    else
        cast_to_integer(value, target);
}

/* -(42::bigint); the grammar itself folds -42 into the literal. */
static void negative_value(struct planner *p, const struct expr *expr, struct value *value)
{
    keyfind_evaluate(p, expr->args[0], value);
    if (value->state == VALUE_PENDING || value->state == VALUE_NULL)
        return;
    if (value->state == VALUE_KNOWN && value->integer && keyfind_fits(-value->number, value->oid) &&
        value->number != INT64_MIN)
        value->number = -value->number;
    else
        value->state = VALUE_OPAQUE;
}

/* Both sides are integers of a known type, and the result is as the server has it. */
static bool compute(char op, const struct value *a, const struct value *b, struct value *result)
{
    static const uint32_t widths[] = {OID_INT8, OID_INT4, OID_INT2};
    bool overflow = op == '+'   ? __builtin_add_overflow(a->number, b->number, &result->number)
                    : op == '-' ? __builtin_sub_overflow(a->number, b->number, &result->number)
                                : __builtin_mul_overflow(a->number, b->number, &result->number);
    result->integer = true;
    for (size_t i = 0; i < 3; i++) /* the wider of the two types is the result's */
        if (a->oid == widths[i] || b->oid == widths[i]) {
            result->oid = widths[i];
            break;
        }
    return !overflow && keyfind_fits(result->number, result->oid);
}

/* 40 + 2; of + - * only, which have no rounding. */
static void arithmetic_value(struct planner *p, const struct expr *expr, struct value *value)
{
    struct value a, b;
    keyfind_evaluate(p, expr->args[0], &a);
    keyfind_evaluate(p, expr->args[1], &b);
    if (a.state == VALUE_OPAQUE || b.state == VALUE_OPAQUE)
        return;
    if (a.state == VALUE_PENDING || b.state == VALUE_PENDING) {
        value->state = VALUE_PENDING;
        return;
    }
    bool known = a.state == VALUE_KNOWN && b.state == VALUE_KNOWN && is_integer_type(a.oid) &&
                 is_integer_type(b.oid) && keyfind_number(&a) && keyfind_number(&b);
    if (known)
        value->state = compute(expr->name[0], &a, &b, value) ? VALUE_KNOWN : VALUE_INVALID;
}

static bool is_arithmetic(const struct expr *expr)
{
    return expr->kind == EXPR_OP && expr->nargs == 2 && !expr->qualifier &&
           (same_name(expr->name, "+") || same_name(expr->name, "-") || same_name(expr->name, "*"));
}

void keyfind_evaluate(struct planner *p, const struct expr *expr, struct value *value)
{
    *value = (struct value){.state = VALUE_OPAQUE};
    if (expr->kind == EXPR_CONST)
        constant_value(expr, value);
    else if (expr->kind == EXPR_PARAM)
        param_value(p, expr, value);
    else if (expr->kind == EXPR_CAST)
        cast_value(p, expr, value);
    else if (expr->kind == EXPR_OP && expr->nargs == 1 && same_name(expr->name, "-") &&
             !expr->qualifier)
        negative_value(p, expr, value);
    else if (is_arithmetic(expr))
        arithmetic_value(p, expr, value);
}

void keyfind_value(struct planner *p, const struct expr *expr, struct value *value)
{
    p->values.read++;
    keyfind_evaluate(p, expr, value);
}
