/*
 * session_function.h: functions of Postgres that read or leave state in a session. A statement that
 * calls one has FACT_SESSION, so that others cost no look.
 */
#ifndef PGSHUNT_SESSION_FUNCTION_H
#define PGSHUNT_SESSION_FUNCTION_H

#include <stdbool.h>

enum session_function {
    SESSION_NOTHING,
    SESSION_SET_CONFIG,
    SESSION_LOCK,       /* takes an advisory lock that lasts as long as the session */
    SESSION_UNLOCK,     /* gives one back */
    SESSION_UNLOCK_ALL, /* gives all of them back */
    SESSION_SEED,       /* setseed() */
    SESSION_DBLINK,     /* opens a connection that stays */
    SESSION_ORIGIN,     /* the session replays from a replication origin */
    SESSION_SEQUENCE,   /* what currval() and lastval() will say */
    SESSION_CURRVAL,    /* says what a sequence function said before in this session */
    SESSION_LISTENING,  /* pg_listening_channels() */
};

/* By its bare name: one of another schema that is named alike counts too. */
enum session_function session_function(const char *name);

struct statement;

/* Whether a statement may say or use what a sequence function said before: it calls such a function, or one
 * that is not Postgres' own and may do so inside, or is a block of code. Triggers are not seen. */
bool statement_may_use_sequence_state(const struct statement *statement);

#endif
