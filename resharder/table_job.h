/*
 * table_job.h: tables that enter a keyspace, or leave it: jobs of kind "table".
 *
 * An unsharded table is at home on the first shard. Into a keyspace go its rows of buckets that other shards own; those
 * of the home's own buckets stay. Out of one, all come home. Copy, streams, verify and switch are those of any job, for
 * these tables alone (struct moves); what the flip changes is what the tables are (pgshunt.table_rule), not whose the
 * buckets are. The engine's own map has them as tables of the keyspace all the time.
 */
#ifndef PGSHUNT_RESHARDER_TABLE_JOB_H
#define PGSHUNT_RESHARDER_TABLE_JOB_H

#include <jansson.h>

#include "pgshunt/catalog.h"
#include "resharder/resharder.h"

#define TABLE_JOB_KIND "table"

struct job;

struct table_job {
    const struct catalog_rule *rules; /* of the tables while they are the keyspace's */
    int count;
    const struct keyspace *keyspace; /* of reshard->map */
    bool out;
};

/*
 * What is wished: laid over reshard->map, its moves in reshard->moves. NULL: told why; where no row has to move, that is
 * no reason for a job either.
 */
struct table_job *table_job_wish(struct reshard *reshard, const struct reshard_wish *wish);
/* As an option of the job, and back again; NULL: reshard->error. reshard->moves has been read before. */
json_t *table_job_json(const struct table_job *tables);
struct table_job *table_job_read(struct reshard *reshard, const json_t *options);

/* Records what the tables are, so that nothing makes them anything else meanwhile. */
MUST_CHECK bool table_job_keep(struct reshard *reshard, const struct job *job);
/* Sequences of tables that enter are interleaved: every shard will give numbers. */
MUST_CHECK bool table_job_sequences(struct reshard *reshard, const struct job *job);
MUST_CHECK bool table_job_hold(struct reshard *reshard, const struct job *job, int64_t lease_ms,
                               int64_t *hold);
/* The switch (`forth`), or the rollback. */
MUST_CHECK bool table_job_flip(struct reshard *reshard, const struct job *job, int64_t hold,
                               bool forth, const char *state);
/* The job ends, cancelled or completed. Of buckets: nothing to do. */
MUST_CHECK bool table_job_settle(struct reshard *reshard, const struct job *job, bool cancelled);
/* Tells what to put into the configuration, or to take out of it. */
void table_job_advise(struct reshard *reshard, const struct job *job);
void table_job_tell(struct reshard *reshard, const struct table_job *tables,
                    enum reshard_event_kind kind);

#endif
