/* id_functions.h: the functions that give unique ids, as they are installed on every shard. */
#ifndef PGSHUNT_FLEET_ID_FUNCTIONS_H
#define PGSHUNT_FLEET_ID_FUNCTIONS_H

#include "fleet/fleet.h"

/* What every shard has of its own. */
struct id_numbers {
    int *numbers; /* per shard, below the stride; each another */
    bool *news;   /* ... and it is not installed so yet */
    int stride;
    bool new_stride;
    bool installed; /* everywhere, as it is to be */
};

/* Reads the shards' numbers and gives those a number that have none. `stride` 0: as it is, else
 * FLEET_STRIDE. False: told why not. */
bool id_numbers_read(struct fleet *fleet, int stride, struct id_numbers *ids);
/* Installs numbers and functions on every shard, one transaction each. False: told why. */
bool id_functions_install(struct fleet *fleet, const struct id_numbers *ids);

#endif
