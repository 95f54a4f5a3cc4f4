/*
 * streams.h: both streams of every link of a job: made, started, looked at, started again.
 *
 * Forward and reverse are the same but for who is the source; each leaves out what the other has done. See
 * docs/internals/resharding.md, "Streams".
 */
#ifndef PGSHUNT_RESHARDER_STREAMS_H
#define PGSHUNT_RESHARDER_STREAMS_H

#include "resharder/job.h"
#include "resharder/stream.h"

struct streams;

/*
 * Tables of the streams' progress, publications, slots and origins, where they are missing: each recorded first. The streams back
 * (`reverse`) are made behind the copy, or else what was copied would come back by them.
 */
MUST_CHECK bool streams_make(struct reshard *reshard, const struct job *job, bool reverse);
/* The parts of the forward streams on their sources, which keep WAL from then on, and those on their targets. */
MUST_CHECK bool streams_make_sources(struct reshard *reshard, const struct job *job);
MUST_CHECK bool streams_make_targets(struct reshard *reshard, const struct job *job);
/* The name of the origin that changes of shard `source` have on the shards they are applied on. In the arena. */
const char *streams_origin(struct reshard *reshard, const struct job *job, unsigned source,
                           bool reverse);
/* ... and of the publication on the shards that changes come from. */
const char *streams_publication(struct reshard *reshard, const struct job *job, bool reverse);

/*
 * Starts them: all, or (`until`, by shard's number) only the forward ones up to these positions, for a copy that is
 * done in several passes. Up to the newest snapshot that was copied under (see streams_remember()) the forward ones may meet
 * rows that are newer or missing. NULL: reshard->error.
 */
struct streams *streams_start(struct reshard *reshard, const struct job *job,
                              const uint64_t *until);
/* The same of the streams back, up to these positions of their sources (the job's targets). */
struct streams *streams_start_back(struct reshard *reshard, const struct job *job,
                                   const uint64_t *until);
void streams_stop(struct streams *streams); /* NULL is ignored */

/* The position ("0/16B3748") of the snapshot that rows of `source` are copied under now. */
MUST_CHECK bool streams_remember(struct reshard *reshard, const struct job *job, unsigned source,
                                 const char *lsn);

enum streams_health {
    STREAMS_RUNNING,
    STREAMS_FINISHED, /* all have reached `until` */
    STREAMS_FAILED,   /* reshard->error; starting them again does not help before it is mended */
};
/* To be called about every 100 ms: starts again what was interrupted, tells how far they are (about every second). */
enum streams_health streams_tend(struct streams *streams);
/* Whether they have failed because the tables of both sides differ, for longer than DDL through pgshunt takes. */
bool streams_misfit(const struct streams *streams);
/* Whether each is less than `ms` behind what is known (unknown is not). */
bool streams_are_close(struct streams *streams, int64_t ms);

#endif
