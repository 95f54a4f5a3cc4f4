/* keyfind.c: values of key columns, from expressions and parameters, to shards. */
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
static bool value_to_number(struct value *value)
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

static bool fits(int64_t number, uint32_t oid)
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
    if (!value_to_number(value) || !fits(value->number, oid))
        value->state = VALUE_INVALID;
    value->oid = oid;
}

static void cast_to_text(struct planner *p, struct value *value)
{
    if (value->integer || is_integer_type(value->oid)) {
        if (!value_to_number(value)) {
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
        cast_to_text(p, value);
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
    if (value->state == VALUE_KNOWN && value->integer && fits(-value->number, value->oid) &&
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
    return !overflow && fits(result->number, result->oid);
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
                 is_integer_type(b.oid) && value_to_number(&a) && value_to_number(&b);
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

static void value_of(struct planner *p, const struct expr *expr, struct value *value)
{
    p->values.read++;
    keyfind_evaluate(p, expr, value);
}

/* ---- value to key ---- */

static enum value_state integer_key(const struct value *value, struct shardkey *key)
{
    if (value->integer) {
        shardkey_of_bigint(value->number, key);
        return VALUE_KNOWN;
    }
    if (!is_untyped(value->oid) && !is_integer_type(value->oid))
        return VALUE_OPAQUE;
    return keyfind_bigint(value, key) ? VALUE_KNOWN : VALUE_INVALID;
}

static enum value_state uuid_key(const struct value *value, struct shardkey *key)
{
    if (value->integer || (!is_untyped(value->oid) && value->oid != OID_UUID))
        return VALUE_OPAQUE;
    bool ok = value->binary ? shardkey_from_binary(KEY_UUID, 0, value->bytes, value->length, key)
                            : shardkey_from_text(KEY_UUID, value->bytes, value->length, key);
    return ok ? VALUE_KNOWN : VALUE_INVALID;
}

bool keyfind_is_foreign(const struct planner *p, const struct keyspace *keyspace, const char *bytes,
                        size_t length)
{
    const struct route_session *session = p->input->session;
    bool texts = false;
    for (unsigned k = 0; k < (keyspace->nparts ? keyspace->nparts : 1); k++)
        texts |= keyspace->types[k] == KEY_TEXT;
    if (!session || !session->foreign_encoding || !texts)
        return false;
    for (size_t i = 0; i < length; i++)
        if (bytes[i] & 0x80)
            return true;
    return false;
}

static void fail_encoding(struct planner *p, const struct instance *instance)
{
    if (p->failed)
        return;
    p->failed = arena_new(p->arena, struct pg_error);
    *p->failed = (struct pg_error){
        .sqlstate = "0A000",
        .message = arena_printf(p->arena,
                                "a value of \"%s\", the shard key of table \"%s\", is not plain "
                                "ASCII, and client_encoding is not UTF8",
                                plan_key_words(p, instance->rule), instance->rule->name),
        .hint = KEYFIND_ENCODING_HINT,
    };
}

static enum value_state text_key(struct planner *p, const struct instance *instance, bool padded,
                                 struct value *value, enum value_use use, struct shardkey *key)
{
    /* An integer is turned into text when it is stored, but there is no text = integer. */
    if (value->integer || is_integer_type(value->oid)) {
        if (use == VALUE_COMPARED)
            return VALUE_OPAQUE;
        cast_to_text(p, value);
        if (value->state != VALUE_KNOWN)
            return value->state;
    }
    bool known = is_untyped(value->oid) || value->oid == OID_TEXT || value->oid == OID_VARCHAR ||
                 value->oid == OID_BPCHAR;
    if (!known)
        return VALUE_OPAQUE;
    if (keyfind_is_foreign(p, instance->rule->keyspace, value->bytes, value->length)) {
        fail_encoding(p, instance);
        return VALUE_OPAQUE;
    }
    uint32_t oid = padded ? OID_BPCHAR : value->oid;
    bool ok = shardkey_from_binary(KEY_TEXT, oid, value->bytes, value->length, key);
    return ok ? VALUE_KNOWN : VALUE_INVALID;
}

/* `padded`: the column is char(n). */
static enum value_state value_key_of(struct planner *p, const struct instance *instance,
                                     enum key_type type, bool padded, struct value *value,
                                     enum value_use use, struct shardkey *key)
{
    if (value->state != VALUE_KNOWN)
        return value->state;
    return type == KEY_BIGINT ? integer_key(value, key)
           : type == KEY_UUID ? uuid_key(value, key)
                              : text_key(p, instance, padded, value, use, key);
}

static enum value_state value_key(struct planner *p, const struct instance *instance,
                                  struct value *value, enum value_use use, struct shardkey *key)
{
    return value_key_of(p, instance, instance->rule->keyspace->type, instance->blank_padded, value,
                        use, key);
}

enum value_state keyfind_value_shard(struct planner *p, const struct instance *instance,
                                     struct value *value, enum value_use use, unsigned *shard)
{
    struct shardkey key;
    enum value_state state = value_key(p, instance, value, use, &key);
    if (state != VALUE_KNOWN)
        return state;
    const struct keyspace *keyspace = instance->rule->keyspace;
    *shard = shardmap_shard_of(p->map, keyspace, &key);
    p->key_is_held = keyspace->held && keyspace_is_held(keyspace, keyspace_bucket(keyspace, &key));
    return *shard == SHARDMAP_NO_SHARD ? VALUE_NOWHERE : VALUE_KNOWN;
}

/* ---- keys of several columns ---- */

static enum value_state part_key(struct planner *p, const struct instance *instance, unsigned part,
                                 const struct expr *expr, enum value_use use, struct shardkey *key)
{
    struct value value;
    const struct table_rule *rule = instance->rule;
    value_of(p, expr, &value);
    return value_key_of(p, instance, rule->keyspace->types[part],
                        scope_blank_padded(p, rule, part, instance->item), &value, use, key);
}

bool keyfind_part_known(struct planner *p, const struct instance *instance, unsigned part,
                        const struct expr *value)
{
    struct shardkey key;
    return part_key(p, instance, part, value, VALUE_COMPARED, &key) != VALUE_OPAQUE;
}

static bool parts_are_held(const struct keyspace *keyspace, const struct shardkey *keys)
{
    return keyspace->held && keyspace_is_held(keyspace, keyspace_parts_bucket(keyspace, keys));
}

/* The shard of a row of values; what is worst about one of them is so about the row. */
static enum value_state row_shard(struct planner *p, const struct instance *instance,
                                  const struct expr *row, enum value_use use, unsigned *shard)
{
    static const enum value_state worst[] = {VALUE_OPAQUE, VALUE_PENDING, VALUE_NULL,
                                             VALUE_INVALID};
    const struct table_rule *rule = instance->rule;
    struct shardkey keys[SHARDMAP_MAX_PARTS];
    unsigned met = 0;
    if (row->kind != EXPR_ROW || row->nargs != (int)rule->nparts)
        return VALUE_OPAQUE;
    for (unsigned i = 0; i < rule->nparts; i++)
        met |= 1U << part_key(p, instance, i, row->args[i], use, &keys[i]);
    for (size_t i = 0; i < sizeof worst / sizeof worst[0]; i++)
        if (met & 1U << worst[i])
            return worst[i];
    *shard = shardmap_shard_of_parts(p->map, rule->keyspace, keys);
    p->key_is_held = parts_are_held(rule->keyspace, keys);
    return VALUE_KNOWN;
}

enum value_state keyfind_shard(struct planner *p, const struct instance *instance,
                               const struct expr *value, enum value_use use, unsigned *shard)
{
    struct value found;
    if (instance->rule->nparts) {
        enum value_state state = row_shard(p, instance, value, use, shard);
        p->pending |= state == VALUE_PENDING;
        return state;
    }
    value_of(p, value, &found);
    enum value_state state = keyfind_value_shard(p, instance, &found, use, shard);
    if (state == VALUE_PENDING)
        p->pending = true;
    if (state == VALUE_KNOWN)
        template_note(p, instance, value, use, *shard);
    return state;
}

static void note_owner(struct planner *p, struct key_owners *owners, int shard)
{
    if (owners->count == owners->room) {
        int room = owners->room ? 2 * owners->room : 16;
        int *shards = arena_array(p->arena, int, room);
        if (owners->count)
            memcpy(shards, owners->shards, sizeof *shards * (size_t)owners->count);
        owners->shards = shards;
        owners->room = room;
    }
    owners->shards[owners->count++] = shard;
}

/* Adds one compared value to the set; false: not understood. `owners` may be NULL. */
static bool add_state(struct planner *p, enum value_state state, unsigned shard,
                      struct shard_set *set, struct key_owners *owners)
{
    struct shard_set one = {.kind = SHARDS_ONE, .one = shard, .not_held = !p->key_is_held};
    if (state == VALUE_OPAQUE)
        return false;
    if (state == VALUE_KNOWN)
        *set = shards_union(p->arena, shardmap_shards(p->map), set, &one);
    if (owners)
        note_owner(p, owners,
                   state == VALUE_KNOWN     ? (int)shard
                   : state == VALUE_NOWHERE ? KEYFIND_NOBODY
                                            : KEYFIND_EVERY);
    return true; /* NULL equals nothing, what is nowhere neither; an invalid value fails on whichever shard it meets */
}

bool keyfind_equal(struct planner *p, const struct instance *instance, const struct expr *value,
                   struct shard_set *set)
{
    unsigned shard = 0;
    enum value_state state = keyfind_shard(p, instance, value, VALUE_COMPARED, &shard);
    set->kind = SHARDS_NONE;
    return add_state(p, state, shard, set, NULL);
}

static bool add_list(struct planner *p, const struct instance *instance, const struct expr *in,
                     struct shard_set *set, struct key_owners *owners)
{
    set->kind = SHARDS_NONE;
    for (int i = 1; i < in->nargs; i++) {
        unsigned shard = 0;
        enum value_state state = keyfind_shard(p, instance, in->args[i], VALUE_COMPARED, &shard);
        if (!add_state(p, state, shard, set, owners))
            return false;
    }
    return true;
}

bool keyfind_in(struct planner *p, const struct instance *instance, const struct expr *in,
                struct shard_set *set)
{
    return add_list(p, instance, in, set, NULL);
}

/* ---- ranges ---- */

bool keyfind_is_range(const struct instance *instance)
{
    const struct keyspace *keyspace = instance->rule->keyspace;
    /* Text is ordered by the column's collation, and the intervals by bytes. */
    return keyspace->map == MAP_RANGE && keyspace->type != KEY_TEXT;
}

/* One end of a range; *key NULL: none. False: not understood, or nothing can match. */
static bool range_end(struct planner *p, const struct instance *instance, const struct expr *expr,
                      struct shardkey *room, const struct shardkey **key, enum value_state *state)
{
    struct value value;
    *key = NULL;
    if (!expr)
        return true;
    value_of(p, expr, &value);
    *state = value_key(p, instance, &value, VALUE_COMPARED, room);
    p->pending |= *state == VALUE_PENDING;
    *key = room;
    return *state == VALUE_KNOWN;
}

void keyfind_entries(struct planner *p, const struct instance *instance, unsigned first,
                     unsigned end, struct shard_set *set)
{
    const struct keyspace *keyspace = instance->rule->keyspace;
    set->kind = SHARDS_NONE;
    for (; first < end; first++) {
        unsigned bucket = keyspace->entries[first].bucket;
        p->key_is_held = keyspace_is_held(keyspace, bucket);
        add_state(p, VALUE_KNOWN, keyspace->bucket_shard[bucket], set, NULL);
    }
}

bool keyfind_range(struct planner *p, const struct instance *instance, struct key_range *range,
                   struct shard_set *set)
{
    struct shardkey low_room, high_room;
    const struct shardkey *low, *high;
    enum value_state state = VALUE_KNOWN;
    set->kind = SHARDS_NONE;
    range->first = range->end = 1; /* nothing: no row passes, or the server refuses */
    if (!range_end(p, instance, range->low, &low_room, &low, &state) ||
        !range_end(p, instance, range->high, &high_room, &high, &state))
        return state != VALUE_OPAQUE;
    keyspace_range(instance->rule->keyspace, low, high, range->before, &range->first, &range->end);
    keyfind_entries(p, instance, range->first, range->end, set);
    return true;
}

/* ---- arrays ---- */

static uint32_t element_type(uint32_t array_oid)
{
    switch (array_oid) {
    case 1005:
        return OID_INT2;
    case 1007:
        return OID_INT4;
    case 1016:
        return OID_INT8;
    case 1009:
        return OID_TEXT;
    case 1015:
        return OID_VARCHAR;
    case 2951:
        return OID_UUID;
    default:
        return 0;
    }
}

/* The array constructor's type: of its elements, if the cast around says one we know. */
static bool add_elements(struct planner *p, const struct instance *instance,
                         const struct expr *array, uint32_t cast, struct shard_set *set,
                         struct key_owners *owners)
{
    for (int i = 0; i < array->nargs; i++) {
        struct value value;
        value_of(p, array->args[i], &value);
        if (cast && value.state == VALUE_KNOWN && is_untyped(value.oid))
            value.oid = cast;
        unsigned shard = 0;
        enum value_state state = keyfind_value_shard(p, instance, &value, VALUE_COMPARED, &shard);
        p->pending |= state == VALUE_PENDING;
        if (!add_state(p, state, shard, set, owners))
            return false;
    }
    return true;
}

static bool add_array_value(struct planner *p, const struct instance *instance,
                            const struct value *array, uint32_t element, struct shard_set *set,
                            struct key_owners *owners)
{
    struct array_reader reader;
    if (!array_open(&reader, array->bytes, array->length, array->binary, p->arena))
        return false;
    struct value value = {.state = VALUE_KNOWN, .binary = array->binary};
    const char *bytes;
    size_t length;
    while (array_next(&reader, &bytes, &length)) {
        value.state = bytes ? VALUE_KNOWN : VALUE_NULL;
        value.integer = false;
        value.oid = array->binary ? reader.type : element;
        value.bytes = bytes;
        value.length = length;
        unsigned shard = 0;
        enum value_state state = keyfind_value_shard(p, instance, &value, VALUE_COMPARED, &shard);
        if (!add_state(p, state, shard, set, owners))
            return false;
    }
    return !reader.bad;
}

/* "int8[]" and the like around an array. False: a cast we do not follow. */
static bool array_cast(const struct expr *cast, uint32_t *element)
{
    static const struct {
        const char *name;
        uint32_t oid;
    } types[] = {{"int8[]", OID_INT8},
                 {"int4[]", OID_INT4},
                 {"int2[]", OID_INT2},
                 {"text[]", OID_TEXT},
                 {"uuid[]", OID_UUID}};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (same_name(types[i].name, cast->name)) {
            *element = types[i].oid;
            return true;
        }
    return false;
}

static bool add_array(struct planner *p, const struct instance *instance, const struct expr *array,
                      struct shard_set *set, struct key_owners *owners)
{
    uint32_t element = 0;
    set->kind = SHARDS_NONE;
    if (array->kind == EXPR_CAST) {
        if (!array_cast(array, &element))
            return false;
        array = array->args[0];
    }
    if (array->kind == EXPR_ARRAY)
        return add_elements(p, instance, array, element, set, owners);
    struct value value;
    if (array->kind != EXPR_PARAM && array->kind != EXPR_CONST)
        return false;
    value_of(p, array, &value);
    p->pending |= value.state == VALUE_PENDING;
    if (value.state == VALUE_NULL || value.state == VALUE_PENDING)
        return true;
    if (value.state != VALUE_KNOWN || value.integer)
        return false;
    if (!is_untyped(value.oid)) {
        uint32_t declared = element_type(value.oid);
        if (!declared || (element && element != declared))
            return false;
        element = declared;
    }
    return add_array_value(p, instance, &value, element, set, owners);
}

bool keyfind_any(struct planner *p, const struct instance *instance, const struct expr *array,
                 struct shard_set *set)
{
    return add_array(p, instance, array, set, NULL);
}

bool keyfind_owners(struct planner *p, const struct instance *instance, const struct expr *e,
                    struct key_owners *owners)
{
    struct shard_set set;
    *owners = (struct key_owners){.count = 0};
    return e->kind == EXPR_IN ? add_list(p, instance, e, &set, owners)
                              : add_array(p, instance, e->args[1], &set, owners);
}

/* "5,42": values with commas between. */
static bool hint_parts(const struct shardmap *map, const struct keyspace *keyspace,
                       const char *text, unsigned *shard, bool *held)
{
    struct shardkey keys[SHARDMAP_MAX_PARTS];
    unsigned count = 0;
    for (bool more = true; more; count++) {
        size_t length = strcspn(text, ",");
        if (count == keyspace->nparts ||
            !shardkey_from_text(keyspace->types[count], text, length, &keys[count]))
            return false;
        more = text[length] == ',';
        text += length + more;
    }
    if (count != keyspace->nparts)
        return false;
    *shard = shardmap_shard_of_parts(map, keyspace, keys);
    *held = parts_are_held(keyspace, keys);
    return true;
}

bool keyfind_hint(const struct shardmap *map, const struct keyspace *keyspace, const char *text,
                  unsigned *shard, bool *held)
{
    struct shardkey key;
    if (keyspace->nparts)
        return hint_parts(map, keyspace, text, shard, held);
    if (!shardkey_from_text(keyspace->type, text, strlen(text), &key))
        return false;
    *shard = shardmap_shard_of(map, keyspace, &key);
    *held = keyspace->held && keyspace_is_held(keyspace, keyspace_bucket(keyspace, &key));
    return *shard != SHARDMAP_NO_SHARD;
}

/* ---- values as text ---- */

#define LITERAL_MAX 1000 /* bytes of a text that is asked for; longer ones are not indexed either */

/* As the server takes it: no sequence that is cut, overlong, a surrogate or above U+10FFFF. */
static bool is_utf8(const unsigned char *text, size_t length)
{
    for (size_t i = 0; i < length;) {
        unsigned char c = text[i];
        size_t more = c < 0x80 ? 0 : c < 0xc2 ? 4 : c < 0xe0 ? 1 : c < 0xf0 ? 2 : c < 0xf5 ? 3 : 4;
        if (c == 0 || more == 4 || more >= length - i)
            return false;
        for (size_t k = 1; k <= more; k++)
            if ((text[i + k] & 0xc0) != 0x80)
                return false;
        if ((c == 0xe0 && text[i + 1] < 0xa0) || (c == 0xed && text[i + 1] > 0x9f) ||
            (c == 0xf0 && text[i + 1] < 0x90) || (c == 0xf4 && text[i + 1] > 0x8f))
            return false;
        i += more + 1;
    }
    return true;
}

static const char *integer_literal(struct planner *p, struct value *value, uint32_t column_type)
{
    bool good = (value->integer || is_untyped(value->oid) || is_integer_type(value->oid)) &&
                value_to_number(value) && fits(value->number, column_type);
    return good ? arena_printf(p->arena, "%lld", (long long)value->number) : NULL;
}

static const char *uuid_literal(struct planner *p, const struct value *value)
{
    static const char digits[] = "0123456789abcdef";
    struct shardkey key;
    if (uuid_key(value, &key) != VALUE_KNOWN || key.length != 16)
        return NULL;
    char *out = arena_alloc(p->arena, 33);
    for (size_t i = 0; i < 16; i++) {
        out[2 * i] = digits[key.bytes[i] >> 4];
        out[2 * i + 1] = digits[key.bytes[i] & 15];
    }
    out[32] = '\0';
    return out;
}

static const char *text_literal(struct planner *p, const struct value *value)
{
    const struct route_session *session = p->input->session;
    bool text = is_untyped(value->oid) || value->oid == OID_TEXT || value->oid == OID_VARCHAR;
    if (value->integer || !text || value->length > LITERAL_MAX ||
        !is_utf8((const unsigned char *)value->bytes, value->length))
        return NULL;
    for (size_t i = 0; session && session->foreign_encoding && i < value->length; i++)
        if (value->bytes[i] & 0x80)
            return NULL;
    return arena_strndup(p->arena, value->bytes, value->length);
}

static enum value_state literal_of(struct planner *p, struct value *value, uint32_t column_type,
                                   const char **text)
{
    if (value->state != VALUE_KNOWN)
        return value->state == VALUE_INVALID ? VALUE_OPAQUE : value->state;
    if (is_integer_type(column_type))
        *text = integer_literal(p, value, column_type);
    else if (column_type == OID_UUID)
        *text = uuid_literal(p, value);
    else if (column_type == OID_TEXT || column_type == OID_VARCHAR)
        *text = text_literal(p, value);
    else
        *text = NULL;
    return *text ? VALUE_KNOWN : VALUE_OPAQUE;
}

enum value_state keyfind_literal(struct planner *p, const struct expr *expr, uint32_t column_type,
                                 const char **text)
{
    struct value value;
    value_of(p, expr, &value);
    return literal_of(p, &value, column_type, text);
}

typedef bool literal_visitor(void *arg, enum value_state state, const char *text);

static bool visit_literal(struct planner *p, struct value *value, uint32_t column_type,
                          literal_visitor *each, void *arg)
{
    const char *text = NULL;
    enum value_state state = literal_of(p, value, column_type, &text);
    return each(arg, state, text);
}

static bool visit_elements(struct planner *p, const struct expr *array, uint32_t element,
                           uint32_t column_type, literal_visitor *each, void *arg)
{
    for (int i = 0; i < array->nargs; i++) {
        struct value value;
        value_of(p, array->args[i], &value);
        if (element && value.state == VALUE_KNOWN && is_untyped(value.oid))
            value.oid = element;
        if (!visit_literal(p, &value, column_type, each, arg))
            return false;
    }
    return true;
}

static bool visit_array_value(struct planner *p, const struct value *array, uint32_t element,
                              uint32_t column_type, literal_visitor *each, void *arg)
{
    struct array_reader reader;
    const char *bytes;
    size_t length;
    if (!array_open(&reader, array->bytes, array->length, array->binary, p->arena))
        return false;
    while (array_next(&reader, &bytes, &length)) {
        if (!bytes)
            continue;
        struct value value = {.state = VALUE_KNOWN,
                              .binary = array->binary,
                              .oid = array->binary ? reader.type : element,
                              .bytes = bytes,
                              .length = length};
        if (!visit_literal(p, &value, column_type, each, arg))
            return false;
    }
    return !reader.bad;
}

bool keyfind_literals(struct planner *p, const struct expr *array, uint32_t column_type,
                      literal_visitor *each, void *arg)
{
    uint32_t element = 0;
    if (array->kind == EXPR_CAST) {
        if (!array_cast(array, &element))
            return false;
        array = array->args[0];
    }
    if (array->kind == EXPR_ARRAY)
        return visit_elements(p, array, element, column_type, each, arg);
    struct value value;
    if (array->kind != EXPR_PARAM && array->kind != EXPR_CONST)
        return false;
    value_of(p, array, &value);
    if (value.state == VALUE_NULL || value.state == VALUE_PENDING)
        return each(arg, value.state, NULL);
    if (value.state != VALUE_KNOWN || value.integer)
        return false;
    if (!is_untyped(value.oid)) {
        uint32_t declared = element_type(value.oid);
        if (!declared || (element && element != declared))
            return false;
        element = declared;
    }
    return visit_array_value(p, &value, element, column_type, each, arg);
}
