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
/* The key alone. */
enum value_state keyfind_value_key(struct planner *p, const struct instance *instance,
                                   struct value *value, enum value_use use, struct shardkey *key);
/* The same, and it counts: a plan that has read a value in any other way than as a key makes no template. */
void keyfind_value(struct planner *p, const struct expr *expr, struct value *value);
/* The integer that the value is, as any integer type reads it; false: it is none. */
bool keyfind_number(struct value *value);
bool keyfind_fits(int64_t number, uint32_t oid);
void keyfind_to_text(struct planner *p, struct value *value);
enum value_state keyfind_uuid(const struct value *value, struct shardkey *key);

/* A value for a column of a key that has several. It is not to be copied: its key may point into it. */
struct part_value {
    enum value_state state;
    struct shardkey key;
    const struct expr *expr; /* NULL: an element of an array */
};

enum value_state keyfind_part(struct planner *p, const struct instance *instance, unsigned part,
                              struct value *value, enum value_use use, struct shardkey *key);
/* The shard of a value for each column; what is worst about one of them is so about all. */
enum value_state keyfind_parts(struct planner *p, const struct instance *instance,
                               const struct part_value *const *row, unsigned *shard);
/* Adds one compared value to the set; false: not understood. `owners` may be NULL. */
bool keyfind_add(struct planner *p, enum value_state state, unsigned shard, struct shard_set *set,
                 struct key_owners *owners);

/* False: no more of them. */
typedef bool value_visitor(void *arg, struct value *value);
/* The elements of an array one by one, each of them a value; NULLs are among them. VALUE_KNOWN: all were visited;
 * VALUE_NULL, VALUE_PENDING: the array itself is; VALUE_OPAQUE: it is not understood, or `each` has ended it. */
enum value_state keyfind_elements(struct planner *p, const struct expr *array, value_visitor *each,
                                  void *arg);
/* The canonical key of bytes that are of an integer type or of none; false: they are no integer. */
bool keyfind_bigint(const struct value *value, struct shardkey *key);

#endif
