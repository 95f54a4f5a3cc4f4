/*
 * ready.h: what a shard needs before rows are copied to it or streamed from it.
 *
 * All of it may be called again. False: reshard->error.
 */
#ifndef PGSHUNT_RESHARDER_READY_H
#define PGSHUNT_RESHARDER_READY_H

#include "resharder/job.h"

/* Tables of ghost keys, where rows of the job may be met by statements without a key. */
MUST_CHECK bool ready_ghosts(struct reshard *reshard, unsigned shard);
/* Old rows in the stream tell their sharding key: replica identities that do not are FULL until the job is over. */
MUST_CHECK bool ready_identities(struct reshard *reshard, const struct job *job, unsigned shard);

#endif
