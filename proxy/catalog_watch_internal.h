/* catalog_watch_internal.h: one database's watch, as its thread (catalog_round.c) and the rest (catalog_watch.c) share it. */
#ifndef PGSHUNT_PROXY_CATALOG_WATCH_INTERNAL_H
#define PGSHUNT_PROXY_CATALOG_WATCH_INTERNAL_H

#include <pthread.h>
#include <signal.h>

#include "pgshunt/catalog.h"
#include "proxy/catalog_watch.h"
#include "proxy/old_work.h"
#include "proxy/reshard_runner.h"
#include "proxy/topology.h"

/* What all workers were seen to use. */
struct map_use {
    int64_t epoch, hold;
    int busy, held;
    struct old_work oldest; /* zeroed: it is compared byte by byte */
};

struct map_watch {
    struct map_watch *next;
    struct catalog_watches *watches;
    char *database;
    pthread_t thread;
    int wake; /* eventfd: there is something to do before the pause is over */
    volatile sig_atomic_t stop;

    /* its thread's own */
    struct db *db;
    struct node *node;      /* reference: whom db is with */
    struct map_use written; /* in its row */
    int64_t written_at;     /* db_clock_ms(); 0: there is no row of this session's */
    int64_t judged;         /* watches->reloads + 1 when `recorded` had all of the configuration */
    int64_t looked_at;      /* at the catalog, db_clock_ms() */
    int64_t lacks_oldest_until;    /* pgshunt.proxy has no such column, and may not be changed */
    int64_t load_at;               /* statements by bucket were written last */
    int64_t no_rights_until;       /* nothing is written before: it was refused */
    struct reshard_runner *runner; /* NULL: nothing was looked at yet */
    char said[512];                /* what was logged last, so as not to repeat it */

    /* guarded by watches->lock */
    int references;   /* its thread's and those of visits under way */
    bool looked;      /* its first reading is over, well or not */
    char misfit[512]; /* why what is recorded does not fit the configuration; "": it does */
    struct recorded_map *recorded; /* in use; NULL: the configuration's */
    int64_t *until;                /* when the leases of its holds are over, db_clock_ms() */
    bool visiting;                 /* the workers are passed by */
    bool changed;                  /* `recorded`, since the last such round began */
    struct map_use used;
    int64_t changes, read_at;
    char primary[300];    /* "": it is not reached */
    struct arena *others; /* has `proxies`; owned; NULL: not read yet */
    struct catalog_proxy *proxies;
    int nproxies;
};

struct catalog_watches {
    struct daemon *daemon;
    char id[37], host[256];
    pthread_mutex_t follow_lock; /* one reload after another */
    pthread_t keeper;            /* lets go of holds */
    bool has_keeper;

    pthread_mutex_t lock;
    pthread_cond_t tell; /* CLOCK_MONOTONIC: something of what the lock guards has changed */
    struct map_watch *list;
    int64_t reloads; /* of the configuration */
    bool stop;
};

/* One look at the catalog: follows it, and says what this proxy does. On the watch's thread; may block. */
void catalog_round(struct map_watch *watch);
/* How long until the next one may be due. */
int64_t catalog_round_pause(struct map_watch *watch);
/* Takes the proxy's row away and ends the session. */
void catalog_round_end(struct map_watch *watch);

/* Under the lock: the map is used from now on; `until` as in struct map_watch. False: it does not fit; `error` says why. */
MUST_CHECK bool watch_use(struct map_watch *watch, struct recorded_map *recorded,
                          const int64_t *until, struct db_error *error);
/* Under the lock: what the workers use is asked for, if need be. */
void watch_visit(struct map_watch *watch);
void watch_free_arena(struct arena *arena);      /* NULL is ignored */
bool watch_holds(const struct map_watch *watch); /* under the lock */
/* Under the lock: something is at work under an older map than the newest. */
bool watch_has_old_work(const struct map_watch *watch);
/* Says so where shards and weights of the configuration would give another map than is recorded. */
void catalog_compare(const char *database, const struct database_config *config,
                     const struct catalog_map *recorded);
/* Logs a warning, unless it was the last thing said. */
void watch_complain(struct map_watch *watch, const char *what, const char *reason,
                    const char *hint);

#endif
