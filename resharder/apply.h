/*
 * apply.h: changes of a source carried out on a target, in commit order, several transactions in one.
 *
 *   apply_begin --apply_change*--> apply_end --...--> apply_commit (or another apply_begin)
 *
 * Only rows of buckets that the link moves are touched. In each transaction on the target go with the data: the keys
 * of rows that are new there (ghost keys), the position (replication origin), the newest marker. The keys of
 * such rows go into the *source's* table of ghost keys as well, which may be later; but a marker is committed behind them, and
 * apply_kept() tells up to where both sides are complete and durable. What the target had when it was opened, and comes once
 * more because the source may lack keys, is only looked through for those.
 *
 * Until `consistent_after` the target may have newer rows than the position (chunks copied under a later snapshot): changes
 * are carried out so that the rows are right when that position is passed. Behind it a change of a row that is
 * not there is counted as missed: something is wrong. A row that is inserted and is there fails with 23505, which is passing: try
 * again, `careful`.
 */
#ifndef PGSHUNT_RESHARDER_APPLY_H
#define PGSHUNT_RESHARDER_APPLY_H

#include "pgshunt/db.h"
#include "resharder/move.h"
#include "resharder/pgoutput.h"
#include "resharder/tables.h"

/* Logical messages with this prefix are markers. */
#define APPLY_MARKER_PREFIX "pgshunt"

/* The SQLSTATE of a row that is inserted and is there. */
#define APPLY_THERE_ALREADY "23505"

struct apply;

struct apply_options {
    const struct move_tables *tables; /* as the source has them */
    const struct moves *moves;
    struct link link;
    const char *job;
    const char *source; /* the shard's name, for pgshunt.applied */
    const char *origin; /* on the target; made by the caller */
    uint64_t consistent_after;
    bool
        careful; /* a row that is inserted may be there, against all expectation: it gets the new values */
    bool
        text; /* values come as text: what they were before a column's type changed may be read as what it is now */
    void *arg;
    void (*attend)(void *arg);         /* at least every 250 ms while a call waits */
    const volatile sig_atomic_t *stop; /* what waits fails */
};

struct apply_progress {
    uint64_t applied; /* all up to here is on the target, committed; where it was at the start */
    int64_t inserted, updated, deleted;     /* rows */
    int64_t left_out;                       /* rows that do not move */
    int64_t missed_updates, missed_deletes; /* rows that were not there: the sides differ */
    int64_t transactions, commits;          /* of the source; on the target */
    char marker[128];                       /* the newest applied; "": none since the start */
    int64_t markers;                        /* how many */
    uint64_t source_end;                    /* end of the source's WAL ... */
    int64_t source_asked_ms; /* ... when it was asked (db_clock_ms); 0: not known yet */
};

struct apply_failure {
    struct db_error error;
    char mend[256]; /* what to do; "": nothing is known */
    bool passing;   /* worth another try */
    bool
        misfit; /* the tables of both sides differ: passing where the same DDL is under way on the other */
};

/* Both sessions are taken over, whatever comes of it. NULL: `failure` says why. Go on where the slot is. */
struct apply *apply_open(const struct apply_options *options, struct db *source, struct db *target,
                         struct apply_failure *failure);
void apply_close(struct apply *apply); /* NULL is ignored; what is not committed is undone */

/* Rows that the stream from `source` still had to make whole are on the target now: by a copy of all there is. */
MUST_CHECK bool apply_owed_forget(struct db *target, const char *job, const char *source,
                                  struct db_error *error);

/* A transaction whose commit is at `lsn` begins. */
MUST_CHECK bool apply_begin(struct apply *apply, uint64_t lsn);
/* A RELATION or TYPE (at any time), or a change within a transaction. */
MUST_CHECK bool apply_change(struct apply *apply, const struct pgoutput_message *message);
/* It is complete; `end`: behind its commit. */
MUST_CHECK bool apply_end(struct apply *apply, uint64_t end, int64_t time);
/* Sends all complete transactions for commit; not within one. */
MUST_CHECK bool apply_commit(struct apply *apply);
/* Whether there is so much, or a marker, that apply_commit() should not wait for more. */
bool apply_is_due(const struct apply *apply);
/* The marker that the next commit has; NULL: none. */
const char *apply_marker(const struct apply *apply);
/* Complete transactions that are not sent for commit. */
bool apply_has_pending(const struct apply *apply);
/* Commits that the target has not answered. */
int apply_commits_under_way(const struct apply *apply);
/* Takes what the servers have answered. */
MUST_CHECK bool apply_take(struct apply *apply);
/* Sends the keys that wait for the source, and waits until both servers have answered all. */
MUST_CHECK bool apply_wait(struct apply *apply);
/* Sends them, too, but waits only so long: for one who was told to stop. */
void apply_flush_keys(struct apply *apply, int64_t ms);
/* What is on the target the slot may forget up to here, for the keys' sake; UINT64_MAX: all of it. */
uint64_t apply_kept(const struct apply *apply);
/* Whether the source has the keys of all that was ever given. */
bool apply_keys_are_kept(const struct apply *apply);
/*
 * Now and then, also while a call waits: sends the keys that wait for the source and asks it for the end of its WAL, unless it is
 * being asked; the answer goes into the progress.
 */
MUST_CHECK bool apply_ask_source(struct apply *apply);
int apply_socket(const struct apply *apply);        /* the target's, to be polled for reading */
int apply_source_socket(const struct apply *apply); /* the source's */

const struct apply_progress *apply_progress(const struct apply *apply);
/* Why a call has failed. */
const struct apply_failure *apply_failure(const struct apply *apply);
/* Whether an SQLSTATE ("": the connection) is of a kind that goes away. */
bool apply_is_passing(const char *sqlstate);

#endif
