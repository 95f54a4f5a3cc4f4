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
 * Table of the streams' progress, publications, slots and origins, where they are missing: each recorded first. The
 * forward ones before the copy, which is what they begin with; the reverse ones behind it, for it is none of their
 * business: rows of the copy would come back as they were.
 */
MUST_CHECK bool streams_make(struct reshard *reshard, const struct job *job, bool reverse);

/*
 * Starts them: all, or only the forward ones up to where `until` says (by shard's number, positions; for a copy that is
 * done in several passes). Until `consistent` (by source) the forward ones may meet rows that are newer or missing. NULL: reshard->error.
 */
struct streams_options {
    const uint64_t *until;      /* NULL: for ever, both ways */
    const uint64_t *consistent; /* by shard's number */
};
struct streams *streams_start(struct reshard *reshard, const struct job *job,
                              const struct streams_options *options);
void streams_stop(struct streams *streams); /* NULL is ignored */

enum streams_health {
    STREAMS_RUNNING,
    STREAMS_FINISHED, /* all have reached `until` */
    STREAMS_FAILED,   /* reshard->error; starting them again does not help before it is mended */
};
/* To be called about every 100 ms: starts again what was interrupted, tells how far they are (about every second). */
enum streams_health streams_tend(struct streams *streams);
/* Whether each is less than `ms` behind what is known (unknown is not). */
bool streams_are_close(struct streams *streams, int64_t ms);

#endif
