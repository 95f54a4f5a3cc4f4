/*
 * plan_template.h: what of a plan holds for other values of the statement's literals and parameters, too.
 *
 * Most statements on one shard are there because of one value, the key's. While it plans, the planner keeps
 * account of what it reads: where these were values of keys and nothing else, all of one shard, and the plan was
 * made without a look at any shard's number, then other values of one shard would lead to the same plan for
 * that shard. Such a plan leaves a template, which finds the values' shard by the very functions that the
 * planner has used. A value that is anything but plainly understood (NULL, out of range, not of the key's
 * type, in no list), or values of several shards, are for router_plan().
 */
#ifndef PGSHUNT_PLAN_TEMPLATE_H
#define PGSHUNT_PLAN_TEMPLATE_H

#include <stdbool.h>
#include <stdint.h>

struct arena;
struct expr;
struct keyspace;
struct plan;
struct route_input;
struct table_rule;

#define TEMPLATE_MAX_VALUES 4

/* A value that a table's key is compared with, or gets. */
struct template_value {
    const struct expr *expr; /* of the statement's tree */
    const struct table_rule *rule;
    bool assigned, blank_padded;
};

/* All zero: there is none. Lives with the statement's tree. */
struct plan_template {
    uint64_t map;    /* shardmap_serial() of the map whose rules these are */
    uint64_t schema; /* version of the schema; the business of who calls router_plan() */
    const char *node_reason;
    bool read; /* may run on a replica, as far as the statement goes */
    uint8_t nvalues;
    struct template_value values[TEMPLATE_MAX_VALUES];
};

/*
 * Plans a statement that has the template, by the map and the schema it was made with. False: that is for
 * router_plan(); `plan` is not touched then. plan->reason does not tell the key.
 */
bool router_plan_again(const struct plan_template *made, const struct route_input *input,
                       struct arena *arena, struct plan *plan);
/* The bucket that such a statement is about, for those who count them; SHARDMAP_NO_BUCKET: not known. */
unsigned router_template_bucket(const struct plan_template *made, const struct route_input *input,
                                struct arena *arena, const struct keyspace **keyspace);

#endif
