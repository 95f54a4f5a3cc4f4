/* detach.h: options of `run` that a job has recorded. */
#ifndef PGSHUNT_RESHARDER_DETACH_H
#define PGSHUNT_RESHARDER_DETACH_H

#include "pgshunt/reshard.h"
#include "resharder/job.h"

/* What is said counts, then what was recorded by --detach. */
struct reshard_run_options detach_options(const struct job *job,
                                          const struct reshard_run_options *said);

#endif
