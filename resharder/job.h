/*
 * job.h: a job's rows in the catalog: what moves, its state and history, what it has made, who runs it.
 *
 * Every change of state names the state that it expects, so that two commands at once cannot both win. What a job
 * makes outside of the catalog is recorded before it is made and struck out when it is gone.
 */
#ifndef PGSHUNT_RESHARDER_JOB_H
#define PGSHUNT_RESHARDER_JOB_H

#include <jansson.h>

#include "resharder/resharder.h"
#include "resharder/table_job.h"

enum job_state {
    JOB_CREATED,    /* recorded; nothing is made yet */
    JOB_COPYING,    /* slots are there, rows are copied */
    JOB_INDEXING,   /* all rows are there; indexes and constraints are made */
    JOB_STREAMING,  /* the sources own the buckets, the targets follow */
    JOB_SWITCHING,  /* a switch is under way: `attempt` is whose */
    JOB_SWITCHED,   /* the targets own the buckets, the sources follow */
    JOB_ROLLING,    /* a rollback is under way: likewise */
    JOB_COMPLETING, /* no way back any more; the sources are cleared */
    JOB_COMPLETED,
    JOB_CANCELLING, /* everything it has made is removed */
    JOB_CANCELLED,
};
#define JOB_STATES (JOB_CANCELLED + 1)

struct job {
    const char *name;
    enum job_state state;
    const char *attempt; /* uuid; NULL: none */
    int64_t
        epoch; /* of the guards of a switch under way, else of the map after the last one; 0: none yet */
    bool paused;
    const char *error; /* why it stands still; NULL: it does not */
    const char *created_at, *changed_at;
    json_t *options; /* owned: job_free() */
    bool of_tables;
    const struct table_job *tables; /* what kind "table" moves; NULL: buckets */
};

const char *job_state_name(enum job_state state);
/* A name fit to be part of slots': [a-z][a-z0-9_]{0,20}. */
bool job_name_is_valid(const char *name);

/* Records it with its moves; of tables: where reshard->moves has some. False: reshard->error; SQLSTATE 23505: there is one of that name. */
MUST_CHECK bool job_create(struct reshard *reshard, const char *name, const struct moves *moves,
                           const json_t *options);
enum job_found { JOB_FOUND, JOB_MISSING, JOB_UNREADABLE };
/* The job of the request and its moves, into reshard->moves. UNREADABLE: reshard->error. */
enum job_found job_load(struct reshard *reshard, struct job *job);
void job_free(struct job *job);
/* Completed, or cancelled. */
bool job_is_over(const struct job *job);
/* The same, as every command begins: told what is wrong, with the outcome to return in *outcome: false. */
bool job_open(struct reshard *reshard, struct job *job, enum reshard_outcome *outcome);
/* Reads state, attempt, epoch, paused and error again. */
MUST_CHECK bool job_look(struct reshard *reshard, struct job *job);

/* From one of the states (bits: JOB_BIT) to another; false: reshard->error (40001: it is in none of them). */
#define JOB_BIT(state) (1u << (state))
MUST_CHECK bool job_set_state(struct reshard *reshard, struct job *job, unsigned from,
                              enum job_state to);
MUST_CHECK bool job_set_paused(struct reshard *reshard, struct job *job, bool paused);
/* Why it stands still, for status; NULL: it does not any more. */
void job_set_error(struct reshard *reshard, struct job *job, const char *error);
/* Begins a switch: a new attempt (in job->attempt), the epoch its guards will have, the state. */
MUST_CHECK bool job_begin_attempt(struct reshard *reshard, struct job *job, unsigned from,
                                  enum job_state to, int64_t epoch);
/* A line of its history, told as a step too. */
void job_step(struct reshard *reshard, const struct job *job, const char *step, const char *detail);

/* ---- what it has made ---- */

struct job_object {
    const char *shard, *kind, *name,
        *detail; /* kind: slot, publication, origin, guard, ghost, identity, ... */
};

/* Before it is made. Twice is once. */
MUST_CHECK bool job_will_make(struct reshard *reshard, const struct job *job, unsigned shard,
                              const char *kind, const char *name, const char *detail);
/* After it is gone. */
MUST_CHECK bool job_has_removed(struct reshard *reshard, const struct job *job,
                                const struct job_object *object);
/* In the order they were recorded, in reshard's arena. */
MUST_CHECK bool job_objects(struct reshard *reshard, const struct job *job,
                            struct job_object **objects, int *count);

/* ---- who runs it ---- */

struct job_lock;

/* NULL: reshard->error says why not: SQLSTATE 55P03 and who has it. One process at a time has a job's `run`. */
struct job_lock *job_lock(struct reshard *reshard, const struct job *job);
/* Whether it is still held: asks the server. */
/* Who has it, for people; NULL: nobody, or it cannot be told. */
const char *job_runner(struct reshard *reshard, const struct job *job);
/* Has others see who holds it: `who` is the session's name from now on. */
void job_lock_name(struct job_lock *lock, const char *who);
bool job_lock_holds(struct job_lock *lock);
void job_unlock(struct job_lock *lock); /* NULL is ignored */

/* ---- all of them ---- */

/* Names of the database's jobs that are not over (or all), in reshard's arena. */
MUST_CHECK bool job_names(struct reshard *reshard, bool all, const char *const **names, int *count);

#endif
