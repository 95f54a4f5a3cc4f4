/*
 * proxies.h: waits until every proxy leaves out what the map says, in transactions that had begun before, too.
 */
#ifndef PGSHUNT_RESHARDER_PROXIES_H
#define PGSHUNT_RESHARDER_PROXIES_H

#include "resharder/job.h"

/*
 * All proxies use the map as it is recorded now, and nothing is at work there under an older one. The former has its own limit;
 * the latter, transactions that take long, `drain_ms` (0: ten minutes). False: reshard->error names who stands in the way
 * (55P03), or the job has been cancelled.
 */
MUST_CHECK bool proxies_wait(struct reshard *reshard, struct job *job, int64_t drain_ms);

#endif
