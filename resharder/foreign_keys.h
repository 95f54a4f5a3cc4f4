/*
 * foreign_keys.h: foreign keys made behind the rows of a target without a strong lock: NOT VALID first, which reads no rows,
 * and then validated, meanwhile all others read and write both tables.
 *
 * Only plain tables' are made so: a partitioned table's cannot be NOT VALID before PostgreSQL 18, and where what is referred to is
 * partitioned, validating leaves the keys behind its partitions as they were. Those, and what is not valid on the source
 * either, are left to pg_restore.
 */
#ifndef PGSHUNT_RESHARDER_FOREIGN_KEYS_H
#define PGSHUNT_RESHARDER_FOREIGN_KEYS_H

#include "resharder/resharder.h"

struct foreign_key {
    unsigned oid;           /* on the source, as in a dump's list */
    const char *table;      /* quoted, with its schema */
    const char *name;       /* as the catalog has it */
    const char *quoted;     /* ... as SQL has it */
    const char *definition; /* FOREIGN KEY ..., with all schemas */
    bool wanted;            /* by the caller; at first none is */
};

struct foreign_keys {
    struct foreign_key *items; /* ordered by table */
    int count;
};

/* A shard's foreign keys that can be made so, in the arena. False: reshard->error. */
MUST_CHECK bool foreign_keys_read(struct reshard *reshard, unsigned shard,
                                  struct foreign_keys *keys);
/*
 * Makes those that are wanted and not there, and validates those that are not valid, `jobs` at once; tells of each. May be called
 * again, whatever was interrupted where. False: reshard->error.
 */
MUST_CHECK bool foreign_keys_make(struct reshard *reshard, unsigned shard,
                                  const struct foreign_keys *keys, int jobs);

#endif
