/*
 * run.h: one failover under way: what was asked, what is known, the connections it is made with.
 *
 *   run.c       from the request to the outcome: resolve, survey, judge, carry out, undo
 *   survey.c    asks the servers
 *   consoles.c  asks and orders the proxies
 *   steps.c     what is done to servers, step by step
 *   status.c    a look at the whole cluster
 *   follow.c    replicas that follow the new primary, and what is left to do by hand
 */
#ifndef PGSHUNT_FAILOVER_RUN_H
#define PGSHUNT_FAILOVER_RUN_H

#include "failover/facts.h"
#include "pgshunt/db.h"

#define RUN_CONNECT_MS 8000
#define RUN_QUERY_MS 10000
#define RUN_HOLD_MS 30000 /* the least that a hold is asked for */

struct run {
    const struct failover_request *request;
    struct arena arena;
    const struct database_config *database;
    const struct shard_config *shard;
    const char *user, *user_password;   /* for servers */
    const char *admin, *admin_password; /* for consoles */
    struct facts facts;
    struct verdict verdict;
    struct db **nodes;   /* by index of facts.nodes; NULL: not reachable */
    struct db **proxies; /* by index of facts.proxies */
    /* how far it has come */
    bool held, fenced, promoted, unfinished;
    uint64_t last_position; /* of the old primary */
    const char *held_at;    /* its clock when the proxies held: older transactions are waited for */
    const char *fenced_at;  /* ... when it was read-only: older sessions are ended */
    struct db_error error;  /* of the step that failed */
    const char *mend;
};

#define RUN_TEXT(run, ...) arena_printf(&(run)->arena, __VA_ARGS__)

/* False when `stop` is set and there is still a way back; run->error says so. */
bool run_goes_on(struct run *run);
/* A little time passes. */
void run_nap(int milliseconds);
void run_tell(struct run *run, enum failover_event_kind kind, const char *step, const char *text,
              const char *mend);
/* For a step: sets run->error. Always false. */
bool run_fails(struct run *run, const char *text, const char *mend);

static inline struct node_facts *run_primary(struct run *run)
{
    return &run->facts.nodes[run->verdict.primary];
}
static inline struct node_facts *run_candidate(struct run *run)
{
    return &run->facts.nodes[run->verdict.candidate];
}
static inline struct db *run_primary_db(struct run *run)
{
    return run->nodes[run->verdict.primary];
}
static inline struct db *run_candidate_db(struct run *run)
{
    return run->nodes[run->verdict.candidate];
}

/* ---- survey.c ---- */

/* Whom to log in as, from request and configuration. */
void survey_logins(struct run *run);
/* False: there is no such shard (run->error, run->mend). */
bool survey_find_shard(struct run *run);
/* Connects to all nodes and fills facts. */
void survey_nodes(struct run *run);
/* Once more, those that are connected: role, timeline and positions only. */
void survey_again(struct run *run);

/* ---- consoles.c ---- */

void consoles_open(struct run *run);
void consoles_survey(struct run *run); /* fills facts.proxies */
/* The same command on every proxy that can be used. False: one has failed (run->error). */
bool consoles_order(struct run *run, const char *command, int64_t timeout_ms);
bool consoles_hold(struct run *run, int64_t limit_ms);
bool consoles_drain(struct run *run, int64_t timeout_ms);
void consoles_release(struct run *run);
/* Waits until all take the node for the primary. False: one does not (run->error). */
bool consoles_await_primary(struct run *run, const struct node_facts *node, int64_t timeout_ms);

/* What SHOW NODES says on each. False: one did not answer. */
bool consoles_tell_nodes(struct run *run,
                         void (*tell)(void *arg, const struct failover_proxy_status *status),
                         void *arg);

/* ---- steps.c ---- */

struct step {
    const char *name;
    const char *help; /* what it does, for a dry run */
    bool (*run)(struct run *run);
};
/* The steps of a verdict; ends with a NULL name. */
const struct step *steps_of(enum verdict_kind kind);
/* Ahead of the promotion: takes back what was done. False: not all of it could be. */
bool steps_undo(struct run *run);

/* ---- follow.c ---- */

bool follow_point(struct run *run);
bool follow_verify(struct run *run);
/* What is left to do for old primaries. */
void follow_tell_rest(struct run *run);

#endif
