/*
 * session_function.h: functions of Postgres that read or leave state in a session. A statement that
 * calls one has FACT_SESSION, so that others cost no look.
 */
#ifndef PGSHUNT_SESSION_FUNCTION_H
#define PGSHUNT_SESSION_FUNCTION_H

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

#endif
