/* drift.h: the parts of a schema that are compared from shard to shard. */
#ifndef PGSHUNT_FLEET_DRIFT_H
#define PGSHUNT_FLEET_DRIFT_H

#include "fleet/fleet.h"

struct drift_query {
    const char *kind; /* "table" */
    const char *sql;
    bool bad; /* what it finds is wrong wherever it is found */
};

/* Ends with a NULL kind. What others are parts of comes ahead of them. */
extern const struct drift_query drift_queries[];

#endif
