/*
 * run_copy.h: the part of a job's run between its streams' slots and its indexes: everything copied, in as many passes as it takes.
 */
#ifndef PGSHUNT_RESHARDER_RUN_COPY_H
#define PGSHUNT_RESHARDER_RUN_COPY_H

#include "resharder/job.h"

/*
 * Copies what is missing, starting again after what passes (a lost connection, a restarted server). When it is done, the
 * forward streams have everything to begin exactly behind the snapshots. False: reshard->error; or the job is in another state
 * than `copying` (job->state).
 */
MUST_CHECK bool run_copy(struct reshard *reshard, struct job *job,
                         const struct reshard_run_options *options);

#endif
