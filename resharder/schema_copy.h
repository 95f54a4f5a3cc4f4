/*
 * schema_copy.h: tables on an empty target made as a source has them, by pg_dump and pg_restore (`--prepare-schema`).
 *
 *   schema_copy_tables (create): types, functions, tables, primary keys and other constraints with indexes, in one
 *                                transaction; then rows of reference tables
 *   ... rows are copied ...
 *   schema_copy_finish (run):    indexes, triggers, several at once; then foreign keys (foreign_keys.h)
 *
 * Tables that are not sharded stay where they are, and views on them. The programs are those of the newest version
 * installed, or in the folder $PGSHUNT_PG_BINDIR.
 */
#ifndef PGSHUNT_RESHARDER_SCHEMA_COPY_H
#define PGSHUNT_RESHARDER_SCHEMA_COPY_H

#include "resharder/job.h"

/* Whether the shard has no tables (but pgshunt's own); false: reshard->error. */
MUST_CHECK bool schema_is_empty(struct reshard *reshard, unsigned shard, bool *empty);
/* `only`: nothing but the tables that move, next to what is there. False: reshard->error. */
MUST_CHECK bool schema_copy_tables(struct reshard *reshard, unsigned source, unsigned target,
                                   bool only);
/*
 * Makes what the job's targets lack still, where it was created with `--prepare-schema`, and gathers statistics on all of them.
 * May be called again. False: reshard->error.
 */
MUST_CHECK bool schema_copy_finish(struct reshard *reshard, const struct job *job, int jobs);

#endif
