/*
 * scatter_internal.h: what scatter.c (a fan-out and its answers) and twophase.c (how what it changed is
 * committed) share.
 */
#ifndef PGSHUNT_PROXY_SCATTER_INTERNAL_H
#define PGSHUNT_PROXY_SCATTER_INTERNAL_H

#include "pgshunt/arena.h"
#include "proxy/session.h"
#include "proxy/twophase_gid.h"

/* The phases after RUNNING: see twophase.c. */
enum scatter_phase {
    SCATTER_RUNNING,
    SCATTER_READING,
    SCATTER_COMMITTING,
    SCATTER_PREPARING,
    SCATTER_DECIDING,
    SCATTER_FINISHING,
    SCATTER_WAITING,
    SCATTER_ROLLING_BACK,
    SCATTER_DONE,
};

/* Behind the last statement: what a commit could still fail of, and whether there is anything to commit. */
#define COMMIT_CHECK                                                                               \
    "SET CONSTRAINTS ALL IMMEDIATE; SELECT pg_catalog.txid_current_if_assigned() IS NOT NULL"

struct part {
    struct server *server; /* NULL: lost */
    const char *shard_name;
    int awaited;    /* ReadyForQuerys to come */
    bool ahead;     /* plan->ahead was sent; the query follows its success */
    bool complete;  /* its rows are all here */
    bool cancelled; /* asked to stop: its error is ours and means nothing */
    bool wrote;     /* there is something to commit */
    bool asked;     /* PREPARE TRANSACTION was sent */
    bool prepared;  /* ... and done */
    bool finished;  /* ... and COMMIT PREPARED or ROLLBACK PREPARED was */
    bool committed;
    bool parses;            /* its Parse was sent and not answered */
    struct prepared *named; /* what it runs under a name of: reference; or NULL */
    char *tag;
    struct buffer rows; /* EXPLAIN: kept until all are there */
};

struct scatter {
    struct copy_encode *encode; /* the merged rows are given as a COPY; else NULL */
    struct buffer merged;       /* ... and are here ahead of it */
    struct scatter_copy *copy;  /* it is a COPY; else NULL */
    struct gather *gather;      /* the plan gathers: everything is passed on to it; else NULL */
    struct change *change;      /* rows go from shard to shard: it is told what comes; else NULL */
    struct cursor *cursor; /* a result taken in parts: everything is passed on to it; else NULL */
    struct client *client;
    struct scatter_ask ask;
    const struct statement *statement;
    const struct plan *plan; /* client->request.plan */
    enum scatter_phase phase;
    bool ends_itself; /* begun here: to be committed or rolled back here */
    bool commits;     /* it is the COMMIT of a transaction over several shards */
    bool one_by_one;  /* COMMITs were sent that may fail on one and not on another */
    bool rows_done;   /* the merge has all it needs */
    bool described;
    bool named; /* its parts run under names */
    struct merge *merge;
    struct buffer out;
    struct arena arena; /* error texts */
    bool failed;
    struct pg_error error;
    /* two-phase commit */
    struct part *decider;     /* NULL: it is none */
    bool unknown;             /* the decider was lost while it decided */
    int64_t prepared_at;      /* clock_us() when PREPARE was sent */
    int64_t wait_until;       /* WAITING */
    struct commit_wait *wait; /* its timer, owned; NULL: none */
    char gid[GID_SIZE];
    int nparts, awaited;
    struct part parts[];
};

static inline bool is_explain(const struct scatter *scatter)
{
    return scatter->statement && scatter->statement->kind == STMT_EXPLAIN;
}

/* ---- scatter.c ---- */

/* One more ReadyForQuery is to come from it. */
void scatter_await(struct scatter *scatter, struct part *part);
void scatter_fail(struct scatter *scatter, const struct pg_error *error, const char *shard_name);
/* Something was answered, or has come to an end by itself. */
void scatter_advance(struct scatter *scatter);
/* It is COMMIT or ROLLBACK AND CHAIN. */
bool scatter_chains(const struct scatter *scatter);

/* ---- scatter_copying.c ---- */

/* The client asked for a description ahead of it: there are no rows as a SELECT has them. */
void scatter_put_no_data(struct scatter *scatter);
/* A shard's message of a COPY. */
void scatter_copying_message(struct scatter *scatter, struct part *part, int index, char type,
                             const char *body, size_t len);

/* ---- scatter_explain.c ---- */

/* All shards have answered an EXPLAIN. */
void scatter_put_explain(struct scatter *scatter);

/* ---- scatter_named.c ---- */

/* Whether its parts are to run under names. Once for each fan-out. */
bool scatter_has_names(const struct scatter *scatter);
/* The name the part runs under; what must be closed first is put to `out`. The part's Parse, if part->parses
 * now, is the caller's. */
const char *scatter_name_part(struct scatter *scatter, struct part *part,
                              const struct shard_query *query, struct buffer *out);
/* ParseComplete has come. */
void scatter_part_parsed(struct scatter *scatter, struct part *part);
/* The server's statement is no longer what it was, which is the error: true if all is to run once more. */
bool scatter_is_outdated(struct scatter *scatter, struct part *part, const struct pg_error *error);
void scatter_forget_names(struct scatter *scatter);

/* ---- scatter_newer.c ---- */

/* The error is a guard's, and the request is asked again (now, or when a newer map is there): the fan-out is gone. */
COLD bool scatter_asks_newer(struct scatter *scatter, const struct pg_error *error);

/* ---- scatter_steps.c ---- */

/* It runs outside a transaction, each shard by itself: one that fails does not stop the others. */
bool scatter_goes_on(const struct scatter *scatter);
/* It has failed: adds to its error where it is done, and how to do the rest. */
void scatter_explain_steps(struct scatter *scatter);

/* ---- twophase.c ---- */

/* All that was awaited has come: goes on to the next phase that awaits something, or to DONE. */
void commit_advance(struct scatter *scatter);
/* Answers of the phases after RUNNING. An error (which may be explained in passing) that was taken does
 * not fail the fan-out. */
bool commit_took_error(struct scatter *scatter, struct part *part, struct pg_error *error);
void commit_took_tag(struct scatter *scatter, struct part *part, const char *tag);
/* The row of COMMIT_CHECK. */
void commit_took_check(struct part *part, const char *body, size_t len);
/* The part's server is lost, for which `error` is the reason: whether that fails the fan-out. */
bool commit_lost(struct scatter *scatter, struct part *part, struct pg_error *error);
/* It is being freed, perhaps in the middle. */
void commit_forget(struct scatter *scatter);

#endif
