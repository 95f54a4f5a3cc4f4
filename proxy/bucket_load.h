/*
 * bucket_load.h: how often statements are about which bucket: sampled by workers, written to the catalog now and then.
 *
 * For `pgshuntctl reshard plan --split-hot`. One of LOAD_SAMPLE statements that are planned by a template counts, on
 * whichever worker; counters are shared by all.
 */
#ifndef PGSHUNT_PROXY_BUCKET_LOAD_H
#define PGSHUNT_PROXY_BUCKET_LOAD_H

#include <stdbool.h>

#include "pgshunt/catalog.h"

#define LOAD_SAMPLE 17 /* a prime: clients repeat their statements in rounds of other lengths */

void bucket_load_note(const char *database, const char *keyspace, unsigned bucket);
/* What was counted of the keyspace since the last call, in `arena`, hottest first: single buckets, and the rest of each
 * shard in one. 0: nothing. */
int bucket_load_take(const char *database, const struct shardmap *map,
                     const struct keyspace *keyspace, struct arena *arena,
                     struct catalog_load **loads);

#endif
