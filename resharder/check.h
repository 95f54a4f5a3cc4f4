/*
 * check.h: everything that would stop a job, found ahead of it and told at once, each with what mends it.
 *
 * Looks only. What stands in the way is told as a problem, what is to be known as a note.
 */
#ifndef PGSHUNT_RESHARDER_CHECK_H
#define PGSHUNT_RESHARDER_CHECK_H

#include "resharder/resharder.h"
#include "resharder/table_job.h"
#include "resharder/tables.h"

struct check {
    struct reshard *reshard; /* with its moves */
    struct table_job *moved; /* tables that enter a keyspace or leave it; NULL: buckets move */
    bool clone;              /* the target is to be a replica of the source */
    bool prepare_schema;     /* what is missing on targets without tables will be made, */
    bool prepared;           /* ... or has been: only problems are told */
    int problems;            /* told so far */
    /* What follows is filled by check_all(). */
    const struct link *links;
    int nlinks;
    bool *makes;             /* by shard: its schema will be made, */
    bool *empty;             /* ... all of it, for there are no tables */
    bool skips_disk;         /* too little of it is no problem */
    bool makes_all;          /* some shard's whole schema has been made */
    struct check_told *told; /* what was told: two links may find the same */
    struct move_tables
        *tables;              /* by shard, read where it is a source or a target that is no clone */
    const char *clone_system; /* of the source of a clone: its cluster, */
    unsigned clone_timeline;  /* ... and timeline */
};

/* False: a shard could not be asked; reshard->error has been told as a failure. */
MUST_CHECK bool check_all(struct check *check);
void check_end(struct check *check);

/* ---- what its parts share ---- */

void check_problem(struct check *check, const char *shard, const char *object, const char *text,
                   const char *mend);
void check_note(struct check *check, const char *shard, const char *object, const char *text,
                const char *mend);
bool check_is_source(const struct check *check, unsigned shard);
bool check_is_target(const struct check *check, unsigned shard);
/* Tells a failure to look at the shard; always false. */
bool check_fails(struct check *check, unsigned shard, const char *what);

/*
 * A question whose answer is what is to be told: rows of ('problem' | 'note', object or NULL, text, mend or NULL).
 * Parameters as of db_query().
 */
MUST_CHECK bool check_ask(struct check *check, unsigned shard, const char *what, const char *sql,
                          const char *first, const char *second);

/* check_server.c: settings, rights, what is under way on a source or target. */
MUST_CHECK bool check_server(struct check *check, unsigned shard);
/* check_tables.c: tables that move, as one shard has them. */
MUST_CHECK bool check_tables(struct check *check, unsigned shard);
/* check_moved.c: tables that enter a keyspace, or leave it: what their new class asks of them. */
MUST_CHECK bool check_moved_names(struct check *check);
MUST_CHECK bool check_moved(struct check *check);
/* check_schema.c: whether a target has what a source has. */
MUST_CHECK bool check_schema(struct check *check, const struct link *link);

#endif
