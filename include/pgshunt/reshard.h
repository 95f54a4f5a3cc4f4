/*
 * reshard.h: the online resharding engine, as `pgshuntctl reshard` and the daemon call it.
 *
 * Each function runs to its end (they may take hours), tells what it does through a callback, may be killed at
 * any moment and called again. How it works: docs/internals/resharding.md. Not thread-safe.
 */
#ifndef PGSHUNT_RESHARD_H
#define PGSHUNT_RESHARD_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "pgshunt/config.h"

enum reshard_event_kind {
    RESHARD_FACT,     /* what is, and is well */
    RESHARD_PROBLEM,  /* stands in the way; `mend` says what to do */
    RESHARD_NOTE,     /* to be known */
    RESHARD_PLANNED,  /* would be done (a dry run) */
    RESHARD_STEP,     /* a named step of the job's history has been done */
    RESHARD_PROGRESS, /* `progress` says how far it is: often, for a display */
    RESHARD_FAILED,
};

enum reshard_phase {
    RESHARD_PHASE_COPY,
    RESHARD_PHASE_INDEX,
    RESHARD_PHASE_STREAM,
    RESHARD_PHASE_VERIFY,
    RESHARD_PHASE_CLEAN
};

/* Of one table (copy, index, verify, clean) or one stream (table NULL). */
struct reshard_progress {
    enum reshard_phase phase;
    const char *table;
    const char *source, *target; /* shards */
    int64_t rows, bytes;         /* done since the job began */
    double rows_expected;        /* -1: not known */
    int64_t bytes_expected;      /* -1: not known */
    int64_t lag_bytes;           /* STREAM: WAL the target has not applied; -1: not known */
    double lag_seconds;          /* ... -1: not known */
    bool done;
};

/* Texts live as long as the callback. */
struct reshard_event {
    enum reshard_event_kind kind;
    const char *shard;  /* NULL: all, or none */
    const char *object; /* a table, a slot, a step; NULL: none */
    const char *text;
    const char *mend; /* statements or a command; NULL: none */
    const struct reshard_progress *progress;
};

enum reshard_outcome {
    RESHARD_DONE,
    RESHARD_DIFFERENT, /* verify: rows differ; plan, create: problems were found, nothing was made */
    RESHARD_REFUSED,   /* not in this state of the job, or no such job; nothing has changed */
    RESHARD_GAVE_UP,   /* a switch that could not finish in time: all is as before */
    RESHARD_STOPPED,   /* by the stop flag: call it again to go on */
    RESHARD_UNFINISHED, /* failed; call it again when the reason is gone */
};

struct reshard_request {
    const struct config *config;
    const char *database;
    const char *user; /* NULL: $PGUSER, monitor.user */
    const char *job;  /* its name; NULL where none is needed */
    bool dry_run;
    const volatile sig_atomic_t *stop;
    void (*tell)(void *arg, const struct reshard_event *event);
    void *arg;
};

struct catalog_load;

/* What is to be moved: one of these or several; they are applied in this order to the map as it is. */
struct reshard_wish {
    const char *add;       /* "s2,s3": shards that get their share */
    const char *drain;     /* "s0": shards that are to have nothing */
    const char *weights;   /* "s0=1,s1=2" */
    const char *move;      /* "0-4095:s2,users/7:s1": buckets, of one keyspace or of all */
    const char *keyspaces; /* "users": only these; NULL: all */
    bool clone;     /* the target is a replica of the source, and is promoted instead of copied */
    bool split_hot; /* the buckets most asked for leave the busiest shards */
    const struct catalog_load *loads; /* what is known of that; the engine reads it */
    int nloads;
    /* Tables instead of buckets: into a keyspace, or out of theirs. */
    const char *tables; /* "orders,public.items" */
    const char *into;   /* "users" */
    const char
        *by; /* "user_id", of several columns "tenant,user"; "items.owner_id": of that table */
    bool out;
    bool skips_disk; /* go on though a target's disk seems too small */
};

struct reshard_run_options {
    int jobs;           /* chunks copied at once; 0: 4 */
    int64_t rate;       /* bytes a second; 0: no limit */
    int64_t max_lag_ms; /* replicas of source and target: copying waits above it; 0: no limit */
    /*
     * What a small transaction may take on a source while it is copied from, in per cent of what it takes without: the copy
     * slows down above it; 0: 150, -1: no limit.
     */
    int max_load;
    int64_t
        drain_ms; /* transactions from before get that long to end, ahead of the copy; 0: 10 min */
    bool until_caught_up; /* returns when the streams are caught up; else streams until stopped */
    int supervisor;       /* process that this one is to end with; 0: none */
};

struct reshard_switch_options {
    int64_t max_pause_ms; /* 0: 500 */
    int64_t drain_ms;     /* running transactions get that long; 0: max_pause_ms */
    bool force;           /* what has not ended by then is cancelled */
};

enum reshard_outcome reshard_plan(const struct reshard_request *request,
                                  const struct reshard_wish *wish);
/* Checks everything, records the job. `prepare_schema`: makes what is missing on empty targets. */
enum reshard_outcome reshard_create(const struct reshard_request *request,
                                    const struct reshard_wish *wish, bool prepare_schema);
enum reshard_outcome reshard_run(const struct reshard_request *request,
                                 const struct reshard_run_options *options);
/* Leaves the job to the proxies: one of them at a time runs it, with these options, until it is over. */
enum reshard_outcome reshard_detach(const struct reshard_request *request,
                                    const struct reshard_run_options *options);
/* `rate`: bytes a second, of all shards together; 0: no limit. */
enum reshard_outcome reshard_verify(const struct reshard_request *request, int jobs, int64_t rate);
enum reshard_outcome reshard_switch(const struct reshard_request *request,
                                    const struct reshard_switch_options *options);
/* Traffic back to the old owners, with all that was written since. */
enum reshard_outcome reshard_rollback(const struct reshard_request *request,
                                      const struct reshard_switch_options *options);
enum reshard_outcome reshard_complete(const struct reshard_request *request, int64_t rate);
enum reshard_outcome reshard_cancel(const struct reshard_request *request);
enum reshard_outcome reshard_pause(const struct reshard_request *request, bool pause);
/* Facts of one job, or of all (job NULL). */
enum reshard_outcome reshard_status(const struct reshard_request *request);
/* Finds what jobs have left behind (slots, publications, origins, guards) and removes it. */
enum reshard_outcome reshard_gc(const struct reshard_request *request);

#endif
