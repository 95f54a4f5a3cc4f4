/* lookup_shard.h: a lookup on one shard: the table's column, its index, and the function that proxies call. */
#ifndef PGSHUNT_FLEET_LOOKUP_SHARD_H
#define PGSHUNT_FLEET_LOOKUP_SHARD_H

#include "fleet/fleet.h"

/* What was found of a lookup on one shard. Texts are in the fleet's arena. */
struct lookup_shard {
    const char *table;      /* quoted, with its schema */
    const char *oid;        /* of the table */
    const char *column;     /* quoted */
    const char *key;        /* quoted; of several columns: an array of them */
    const char *row_key;    /* ... of a row of the table that is called t, as text */
    const char *type;       /* of the column, without domains: "bigint" */
    const char *size;       /* of the table, in words */
    const char *index;      /* one that serves, quoted with its schema; NULL: none */
    const char *unfinished; /* of ours, not valid; NULL: none */
    bool building;          /* ... because somebody is at it */
    bool partitioned;
    bool function;     /* as it is to be, and the proxies may call it */
    bool any_function; /* one of that name */
};

/* Fills `found`. False: told why (the table, the column or the key are not there or not fit). */
bool lookup_shard_read(struct fleet *fleet, int shard, const struct lookup_rule *lookup,
                       struct lookup_shard *found);
/* Makes an index that serves, without being in the way of writes; finishes one that was left unfinished.
 * False: told why. */
bool lookup_shard_index(struct fleet *fleet, int shard, const struct lookup_rule *lookup,
                        const struct lookup_shard *found);
/* Installs the function. False: told why. */
bool lookup_shard_install(struct fleet *fleet, int shard, const struct lookup_rule *lookup,
                          const struct lookup_shard *found);
/* Takes the function away: no proxy uses the lookup any more. */
bool lookup_shard_withdraw(struct fleet *fleet, int shard, const struct lookup_rule *lookup);
/* Takes away what was made for the lookup of this name ("orders.id"), also if it is not configured any more. */
bool lookup_shard_drop(struct fleet *fleet, int shard, const char *name);

#endif
