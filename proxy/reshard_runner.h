/*
 * reshard_runner.h: jobs that `pgshuntctl reshard run --detach` has left to the proxies are run by a child process of one of them.
 *
 * Whoever has a job's advisory lock runs it: the child takes it, like a `reshard run` in somebody's terminal does. A proxy starts
 * one where nobody has it, and again, later each time, where it fails. An engine that crashes takes no client along; a proxy that
 * dies takes its children along, and another one takes over.
 */
#ifndef PGSHUNT_PROXY_RESHARD_RUNNER_H
#define PGSHUNT_PROXY_RESHARD_RUNNER_H

#include "pgshunt/config.h"
#include "pgshunt/db.h"

struct reshard_runner;

/* Of one database; its functions are called by one thread, which the children end with. */
struct reshard_runner *reshard_runner_new(const char *database);
/* Starts what is to be run, looks after what does: at most every second. `db` is a session with the catalog. */
void reshard_runner_tend(struct reshard_runner *runner, struct db *db, const struct config *config);
/* Ends the children; their jobs go on elsewhere. NULL is ignored. */
void reshard_runner_free(struct reshard_runner *runner);

#endif
