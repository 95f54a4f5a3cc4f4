/* plan_change_internal.h: what plan_change.c and plan_merge.c share: the plan of a change that is being made. */
#ifndef PGSHUNT_ROUTER_PLAN_CHANGE_INTERNAL_H
#define PGSHUNT_ROUTER_PLAN_CHANGE_INTERNAL_H

#include "pgshunt/change.h"
#include "router/plan_internal.h"

struct making {
    struct planner *p;
    const struct query *query;
    struct change_plan *change;
    const struct schema_relation *relation; /* of the table that is written */
    const struct table_rule *rule;
};

/* The mention of the table that is written; -1: it is none of a sharded table's. */
int making_target(const struct making *m);
/* What the rows' keys are, but for their places. */
void making_fill_rows(struct making *m, struct change_rows *rows);
/* Plans the query that gives the rows; false: it cannot be, or only for a description. */
bool making_sources(struct making *m, const struct shard_query *source);
/* Whether a table that is gathered would be taken for the one that is written. */
bool making_hides_target(const struct making *m);
/* The plan is made: rows from everywhere, by way of shard `home`. */
void making_finish(struct making *m, unsigned home, const char *reason);
/* EXPLAIN: what each shard would be asked for. */
void making_explain(struct making *m, const struct shard_query *queries, int count);

/* MERGE whose source is not on the shards of its target's rows: see plan_merge.c. */
void change_merge(struct making *m);

#endif
