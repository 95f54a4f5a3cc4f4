/*
 * snapshot.h: a snapshot of a shard at a known position of its WAL, that other sessions read under.
 *
 * A temporary logical slot is made for its snapshot: the snapshot has exactly what was committed before the
 * position, and a stream from that position brings exactly the rest. It lives as long as this session.
 */
#ifndef PGSHUNT_RESHARDER_SNAPSHOT_H
#define PGSHUNT_RESHARDER_SNAPSHOT_H

#include "resharder/resharder.h"

struct snapshot {
    PGconn *pg; /* a replication connection; owned */
    char name[64];
    char lsn[32]; /* "0/16B3748" */
    uint64_t position;
};

/*
 * Waits for transactions under way on the shard to end (they are named in a note when it takes long). False: error.
 * `label` tells the slot from others of the job.
 */
MUST_CHECK bool snapshot_take(struct reshard *reshard, unsigned shard, const char *label,
                              struct snapshot *snapshot, struct db_error *error);
/* Whether it can still be read under. */
bool snapshot_is_alive(struct snapshot *snapshot);
void snapshot_drop(struct snapshot *snapshot);
/* Begins a transaction that reads under the snapshot of that name. */
MUST_CHECK bool snapshot_enter(struct db *db, const char *name, struct db_error *error);

#endif
