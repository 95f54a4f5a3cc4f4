/*
 * pipe.h: a session whose statements are sent ahead of the answers to those before (libpq's pipeline mode).
 *
 * Statements run in order; pipe_sync() ends a group. What an answer means is told by a callback when it comes. After the
 * first failure `failed` stays set and the session is only good to be closed. Sending waits while the server has
 * much to do, so that memory stays bounded; while it waits, `attend` is called at least every PIPE_ATTEND_MS.
 */
#ifndef PGSHUNT_RESHARDER_PIPE_H
#define PGSHUNT_RESHARDER_PIPE_H

#include "pgshunt/db.h"
#include "pgshunt/error.h"

#define PIPE_ATTEND_MS 250

/* What comes back for a statement (its last result) or a sync. */
struct pipe_expected {
    void (*take)(void *arg, const struct pipe_expected *expected, const PGresult *result);
    void *object;
    int64_t number;
};

struct pipe {
    struct db *db; /* owned */
    PGconn *pg;    /* db's */
    struct pipe_expected *ring;
    size_t head, count, room;
    bool unasked; /* the server may keep answers to itself: no sync or flush is behind the newest */
    size_t unsent;   /* bytes given to libpq since it had sent all */
    bool has_result; /* of the first expected one a result has come */
    bool waiting;    /* for its server: only answers may be taken */
    bool failed;
    struct db_error error;
    void *arg; /* of the callbacks */
    void (*attend)(void *arg);
    const volatile sig_atomic_t *stop;
};

/* Takes the session over, whatever comes of it. */
MUST_CHECK bool pipe_open(struct pipe *pipe, struct db *db, void *arg, void (*attend)(void *arg),
                          const volatile sig_atomic_t *stop);
void pipe_close(struct pipe *pipe);

MUST_CHECK bool pipe_prepare(struct pipe *pipe, const char *name, const char *sql, int ntypes,
                             const uint32_t *types);
struct pipe_parameters {
    int count;
    const char *const *values;
    const int *lengths, *formats; /* NULL: all are texts */
};
MUST_CHECK bool pipe_execute(struct pipe *pipe, const char *name,
                             const struct pipe_parameters *parameters,
                             const struct pipe_expected *expected);
/* The same of a statement that is not prepared. */
MUST_CHECK bool pipe_query(struct pipe *pipe, const char *sql,
                           const struct pipe_parameters *parameters,
                           const struct pipe_expected *expected);
/* ... and has no parameters. */
MUST_CHECK bool pipe_run(struct pipe *pipe, const char *sql, const struct pipe_expected *expected);
MUST_CHECK bool pipe_sync(struct pipe *pipe, const struct pipe_expected *expected);
/* Takes what has come, without waiting. */
MUST_CHECK bool pipe_take(struct pipe *pipe);
/* Waits until no more than `left` answers are missing. */
MUST_CHECK bool pipe_wait(struct pipe *pipe, size_t left);
/*
 * Runs one statement (NULL: without parameters) and waits for its rows, amid whatever is under way. The caller
 * clears them. NULL: failed.
 */
PGresult *pipe_ask(struct pipe *pipe, const char *sql, const struct pipe_parameters *parameters);
/* Sets the first failure that is not the server's. Always false. */
bool pipe_fail(struct pipe *pipe, const char *text);

#endif
