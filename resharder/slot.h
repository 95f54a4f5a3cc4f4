/*
 * slot.h: replication connections, slots with their snapshots, publications.
 *
 * Nothing here is recorded in the catalog: the caller does that, before it is made.
 */
#ifndef PGSHUNT_RESHARDER_SLOT_H
#define PGSHUNT_RESHARDER_SLOT_H

#include "resharder/resharder.h"
#include "resharder/tables.h"

/* A slot's snapshot: the data as they are at `lsn`, where the slot's changes begin. Good until released. */
struct slot_snapshot {
    PGconn *connection; /* exports it; must do nothing else */
    char name[64];      /* for SET TRANSACTION SNAPSHOT */
    char lsn_text[32];
    uint64_t lsn;
};

/* A replication connection with the shard's primary. NULL: reshard->error. The caller closes it (PQfinish). */
PGconn *slot_connect(struct reshard *reshard, unsigned shard);
/* One command on it. NULL: reshard->error; then it is only good to be closed. */
PGresult *slot_command(struct reshard *reshard, PGconn *connection, const char *command,
                       int64_t timeout_ms);

/*
 * Makes a slot and keeps its snapshot open. The server waits for all transactions that have written by now: after
 * `timeout_ms` it is given up, nothing is left, and reshard->error names who holds it up.
 */
MUST_CHECK bool slot_create(struct reshard *reshard, unsigned shard, const char *slot,
                            int64_t timeout_ms, struct slot_snapshot *snapshot);
void slot_release_snapshot(struct slot_snapshot *snapshot);
/*
 * Makes a publication of the tables (partitioned ones as their roots). Before version 14, where there are no logical
 * messages, of pgshunt.marker too, which is made: a row inserted there is a marker.
 */
MUST_CHECK bool slot_publish(struct reshard *reshard, unsigned shard, const char *publication,
                             const struct move_tables *tables);
/* Makes the origin on the shard where it is missing. */
MUST_CHECK bool slot_create_origin(struct reshard *reshard, unsigned shard, const char *origin);
/* Writes a marker on the shard, in whichever way its version knows. */
MUST_CHECK bool slot_mark(struct db *db, const char *marker, struct db_error *error);

#endif
