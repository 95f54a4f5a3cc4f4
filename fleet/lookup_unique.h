/* lookup_unique.h: whether each value of a lookup's column is of one key only, over all shards. */
#ifndef PGSHUNT_FLEET_LOOKUP_UNIQUE_H
#define PGSHUNT_FLEET_LOOKUP_UNIQUE_H

#include "fleet/lookup_shard.h"

/* Reads all values of all shards, in their order, and tells those that are of several keys. False: it could
 * not be done, and why was told. */
bool lookup_unique_check(struct fleet *fleet, const struct lookup_rule *lookup,
                         const struct lookup_shard *found, int *duplicates);

#endif
