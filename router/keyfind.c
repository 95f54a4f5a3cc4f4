/* keyfind.c: values of key columns to shards. */
#include "router/keyfind_internal.h"

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

enum value_state keyfind_uuid(const struct value *value, struct shardkey *key)
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
        keyfind_to_text(p, value);
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
           : type == KEY_UUID ? keyfind_uuid(value, key)
                              : text_key(p, instance, padded, value, use, key);
}

static enum value_state value_key(struct planner *p, const struct instance *instance,
                                  struct value *value, enum value_use use, struct shardkey *key)
{
    return value_key_of(p, instance, instance->rule->keyspace->type, instance->blank_padded, value,
                        use, key);
}

enum value_state keyfind_value_key(struct planner *p, const struct instance *instance,
                                   struct value *value, enum value_use use, struct shardkey *key)
{
    return value_key(p, instance, value, use, key);
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

enum value_state keyfind_part(struct planner *p, const struct instance *instance, unsigned part,
                              struct value *value, enum value_use use, struct shardkey *key)
{
    const struct table_rule *rule = instance->rule;
    return value_key_of(p, instance, rule->keyspace->types[part],
                        scope_blank_padded(p, rule, part, instance->item), value, use, key);
}

static bool parts_are_held(const struct keyspace *keyspace, const struct shardkey *keys)
{
    return keyspace->held && keyspace_is_held(keyspace, keyspace_parts_bucket(keyspace, keys));
}

enum value_state keyfind_parts(struct planner *p, const struct instance *instance,
                               const struct part_value *const *row, unsigned *shard)
{
    static const enum value_state worst[] = {VALUE_OPAQUE, VALUE_PENDING, VALUE_NULL,
                                             VALUE_INVALID};
    const struct table_rule *rule = instance->rule;
    struct shardkey keys[SHARDMAP_MAX_PARTS];
    unsigned met = 0;
    for (unsigned i = 0; i < rule->nparts; i++) {
        met |= 1U << row[i]->state;
        keys[i] = row[i]->key; /* what it points to stays where it is */
    }
    for (size_t i = 0; i < sizeof worst / sizeof worst[0]; i++)
        if (met & 1U << worst[i])
            return worst[i];
    *shard = shardmap_shard_of_parts(p->map, rule->keyspace, keys);
    p->key_is_held = parts_are_held(rule->keyspace, keys);
    return VALUE_KNOWN;
}

static enum value_state row_shard(struct planner *p, const struct instance *instance,
                                  const struct expr *row, enum value_use use, unsigned *shard)
{
    struct part_value values[SHARDMAP_MAX_PARTS];
    const struct part_value *parts[SHARDMAP_MAX_PARTS];
    const struct table_rule *rule = instance->rule;
    if (row->kind != EXPR_ROW || row->nargs != (int)rule->nparts)
        return VALUE_OPAQUE;
    for (unsigned i = 0; i < rule->nparts; i++) {
        struct value value;
        keyfind_value(p, row->args[i], &value);
        values[i].state = keyfind_part(p, instance, i, &value, use, &values[i].key);
        parts[i] = &values[i];
    }
    return keyfind_parts(p, instance, parts, shard);
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
    keyfind_value(p, value, &found);
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

bool keyfind_add(struct planner *p, enum value_state state, unsigned shard, struct shard_set *set,
                 struct key_owners *owners)
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
    return keyfind_add(p, state, shard, set, NULL);
}

static bool add_list(struct planner *p, const struct instance *instance, const struct expr *in,
                     struct shard_set *set, struct key_owners *owners)
{
    set->kind = SHARDS_NONE;
    for (int i = 1; i < in->nargs; i++) {
        unsigned shard = 0;
        enum value_state state = keyfind_shard(p, instance, in->args[i], VALUE_COMPARED, &shard);
        if (!keyfind_add(p, state, shard, set, owners))
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
    keyfind_value(p, expr, &value);
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
        keyfind_add(p, VALUE_KNOWN, keyspace->bucket_shard[bucket], set, NULL);
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

struct adding {
    struct planner *p;
    const struct instance *instance;
    struct shard_set *set;
    struct key_owners *owners;
};

static bool add_element(void *arg, struct value *value)
{
    const struct adding *a = arg;
    unsigned shard = 0;
    enum value_state state = keyfind_value_shard(a->p, a->instance, value, VALUE_COMPARED, &shard);
    a->p->pending |= state == VALUE_PENDING;
    return keyfind_add(a->p, state, shard, a->set, a->owners);
}

static bool add_array(struct planner *p, const struct instance *instance, const struct expr *array,
                      struct shard_set *set, struct key_owners *owners)
{
    struct adding adding = {p, instance, set, owners};
    set->kind = SHARDS_NONE;
    enum value_state state = keyfind_elements(p, array, add_element, &adding);
    p->pending |= state == VALUE_PENDING;
    return state != VALUE_OPAQUE;
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
