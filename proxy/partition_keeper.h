/*
 * partition_keeper.h: the thread that maintains partitions by time when that is due, and knows how they are.
 *
 * Every partition.interval it looks, for each database, whether a run was meant to be since the last one began. Many proxies
 * may: the engine's lock lets one at a time, and who comes next finds that it has been done.
 */
#ifndef PGSHUNT_PROXY_PARTITION_KEEPER_H
#define PGSHUNT_PROXY_PARTITION_KEEPER_H

#include "pgshunt/arena.h"
#include "pgshunt/partition.h"

struct daemon;
struct partition_keeper;

/* NULL: no thread. */
struct partition_keeper *partition_keeper_start(struct daemon *daemon);
void partition_keeper_stop(struct partition_keeper *keeper); /* joins and frees; NULL is ignored */

/* One database's policies and their tables, as they were when they were last looked at. */
struct partition_report {
    const struct partition_table *tables; /* names and numbers alone */
    int ntables;
    double last_success, last_seconds; /* as in struct partition_survey */
};
/* Copied into the arena. Thread-safe. */
void partition_keeper_report(struct partition_keeper *keeper, const char *database,
                             struct arena *arena, struct partition_report *report);

#endif
