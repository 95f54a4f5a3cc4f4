/* keyfind_internal.h: values on their way from an expression to a key. */
#ifndef PGSHUNT_ROUTER_KEYFIND_INTERNAL_H
#define PGSHUNT_ROUTER_KEYFIND_INTERNAL_H

#include "pgshunt/pgtypes.h"
#include "router/plan_internal.h"

struct value {
    enum value_state state;
    uint32_t oid; /* 0 or OID_UNKNOWN: takes the type of what it meets */
    bool integer; /* the value is `number`, not bytes */
    bool binary;
    int64_t number;
    const char *bytes;
    size_t length;
};

static inline bool is_integer_type(uint32_t oid)
{
    return oid == OID_INT8 || oid == OID_INT4 || oid == OID_INT2;
}

static inline bool is_untyped(uint32_t oid)
{
    return oid == 0 || oid == OID_UNKNOWN;
}

/* Of the planner these go by p->input, p->map and p->arena, and set p->failed and p->key_is_held. */
void keyfind_evaluate(struct planner *p, const struct expr *expr, struct value *value);
enum value_state keyfind_value_shard(struct planner *p, const struct instance *instance,
                                     struct value *value, enum value_use use, unsigned *shard);
/* The canonical key of bytes that are of an integer type or of none; false: they are no integer. */
bool keyfind_bigint(const struct value *value, struct shardkey *key);

#endif
