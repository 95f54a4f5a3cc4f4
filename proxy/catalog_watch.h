/*
 * catalog_watch.h: follows what the catalog has of each sharded database's map: buckets, epoch, ghosts, holds.
 *
 * One thread per database keeps a session with the catalog shard's primary, publishes every change as a new topology and
 * says in pgshunt.proxy which map all workers use. One more lets go of holds whose lease is over, however the others fare.
 *
 *    catalog --notification, or catalog.interval--> read --changed--> published --all workers passed by--> acknowledged
 *                                                                         ^                                    |
 *                                              a hold's lease is over ----'            row in pgshunt.proxy <--'
 */
#ifndef PGSHUNT_PROXY_CATALOG_WATCH_H
#define PGSHUNT_PROXY_CATALOG_WATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pgshunt/catalog.h"
#include "pgshunt/error.h"

struct daemon;
struct topology;
struct catalog_watches;

/*
 * Returns when the maps of all databases are known, or, after wait_ms, taken from the state file or the configuration.
 * NULL: a map that is recorded does not fit the configuration, or there is no thread; `error` says why.
 */
struct catalog_watches *catalog_watch_start(struct daemon *daemon, int wait_ms, char *error,
                                            size_t size);
/* After a reload: databases come and go. Waits likewise for those that come. */
void catalog_watch_follow(struct catalog_watches *watches, int wait_ms);
/* When the workers have ended. Joins and frees; NULL is ignored. */
void catalog_watch_stop(struct catalog_watches *watches);

/* What SHOW and metrics tell; any thread. */
struct catalog_watch_report {
    bool watched;    /* the database's map is recorded in a catalog */
    bool reached;    /* its session is well */
    int64_t epoch;   /* of the map that all workers use */
    int64_t hold;    /* the newest hold that they keep; 0: none */
    int busy, held;  /* see pgshunt.proxy */
    int64_t changes; /* maps published since the start */
    int64_t read_at; /* clock_us() of the last reading; 0: none */
    const struct catalog_proxy
        *proxies; /* alive when it was last read, this one too; in the arena */
    int nproxies;
    const char *self;  /* this process among them */
    char primary[300]; /* host:port the session is with; "": none */
};
void catalog_watch_report(struct catalog_watches *watches, const char *database,
                          struct arena *arena, struct catalog_watch_report *report);

/* The database's map is old, as somebody has found: it is read now. Any thread; `watches` may be NULL. */
void catalog_watch_look(struct catalog_watches *watches, const char *database);

#endif
