/* program.h: a Postgres program run on a shard: where it is, how it logs in, what it says. */
#ifndef PGSHUNT_RESHARDER_PROGRAM_H
#define PGSHUNT_RESHARDER_PROGRAM_H

#include "resharder/resharder.h"

/* "pg_dump" in $PGSHUNT_PG_BINDIR, of the newest version installed, or in PATH. In the arena. */
const char *program_find(struct reshard *reshard, const char *name);
/*
 * Runs it (argv[0] is its path) with a login to the shard's primary in its environment; what it prints and its complaints go to these
 * files (`out` NULL: nowhere). Its exit status; -1: it could not be run, or it was stopped: reshard->error.
 */
int program_run(struct reshard *reshard, unsigned shard, const char *const *argv, const char *out,
                const char *complaints);
/* The same; `watch` is called many times a second while it runs. */
int program_run_watched(struct reshard *reshard, unsigned shard, const char *const *argv,
                        const char *out, const char *complaints, void (*watch)(void *arg),
                        void *arg);

#endif
