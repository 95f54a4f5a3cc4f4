/*
 * copy.h: the rows that move, copied from sources to targets as of a snapshot, many pieces at once.
 *
 * A chunk is a range of pages of a source's table. Its rows are read once and go to all targets of that source; on each
 * target they are written in one transaction with the chunk's row in pgshunt.chunk, so that whatever is killed,
 * nothing is copied twice or left out. Keys of the rows are in the ghost tables of both shards before they can be seen.
 *
 * When a snapshot is lost, what is missing is copied under another one ("a later pass"): the caller has by then brought
 * the targets up to exactly that snapshot's position with the stream, as far as rows are there. So a row that
 * is there is as the snapshot has it, and only missing ones are inserted: those of chunks not done, and in chunks that
 * are done, row versions written since the first snapshot (their rows may have moved in from a chunk not done).
 */
#ifndef PGSHUNT_RESHARDER_COPY_H
#define PGSHUNT_RESHARDER_COPY_H

#include "resharder/resharder.h"
#include "resharder/snapshot.h"
#include "resharder/tables.h"

#define COPY_CHUNK_PAGES 2048
/* SQLSTATE of a failure that only another snapshot mends: a table was rewritten since it was taken. */
#define COPY_REWRITTEN "55000"

/* One source at work. */
struct copy_source {
    unsigned shard;
    const unsigned *targets;
    int ntargets;
    const struct move_tables *tables; /* as the source has them */
    const char *snapshot;             /* its name */
    int pass;                         /* 1: the first */
    const char *oldest;               /* pass > 1: xmin of the first snapshot */
    bool
        emptied; /* pass > 1: tables without a primary key were emptied (copy_empty()), and are copied anew */
};

enum copy_wish { COPY_GO, COPY_REST, COPY_LEAVE };

struct copy_options {
    int jobs;
    int64_t rate, max_lag_ms;          /* as of reshard_run_options */
    int max_load;                      /* likewise */
    int64_t chunk_pages;               /* 0: COPY_CHUNK_PAGES; the same for all of a job's life */
    enum copy_wish (*wish)(void *arg); /* asked every second; NULL: go */
    void *arg;
};

/* Makes what a target needs to be copied to, where it is missing. */
MUST_CHECK bool copy_prepare(struct db *target, struct db_error *error);
/* Forgets what was copied from the source to this target. */
MUST_CHECK bool copy_forget(struct reshard *reshard, struct db *target, unsigned source,
                            struct db_error *error);
/*
 * Rows without a primary key cannot be told from those that are missing: of such tables, removes from the target what came
 * from the source, and forgets that it was copied. At the position of the snapshot that they are copied under then.
 */
MUST_CHECK bool copy_empty(struct reshard *reshard, unsigned source, unsigned target,
                           const struct move_tables *tables);
/* Whether any chunk of the source is there. */
MUST_CHECK bool copy_has_begun(struct reshard *reshard, struct db *target, unsigned source,
                               bool *begun, struct db_error *error);
/* Copies all that is missing. False: reshard->error; it may be called again while the snapshots are alive. */
MUST_CHECK bool copy_run(struct reshard *reshard, const struct copy_source *sources, int count,
                         const struct copy_options *options);

#endif
