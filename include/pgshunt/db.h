/*
 * db.h: one libpq connection for work that may block: every wait has a deadline and heeds a stop flag.
 *
 *   struct db *db = db_open(&target, 3000, &why);
 *   PGresult *rows = db_query(db, 3000, &why, "SELECT $1::int", "42");
 *
 * For command line tools and engines; never on a worker's thread. Not thread-safe.
 */
#ifndef PGSHUNT_DB_H
#define PGSHUNT_DB_H

#include <libpq-fe.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "pgshunt/config.h"

/* What libpq is told, as PQconnectStartParams wants it: ends with NULL. */
#define DB_PARAMETERS_MAX 32
struct db_parameters {
    const char *names[DB_PARAMETERS_MAX + 1], *values[DB_PARAMETERS_MAX + 1];
    int count;
};
/* Both strings must outlive the list. */
void db_put(struct db_parameters *list, const char *name, const char *value);
/* TLS as the configuration says it, and nothing from the environment. */
void db_put_tls(struct db_parameters *list, const struct server_tls_config *server);

struct db_target {
    const char *host;
    int port;
    const char *dbname;
    const char *user;
    const char *password; /* NULL, "": none. PGPASSWORD and the password file are tried first */
    const char *application;
    const struct server_tls_config *tls; /* NULL: libpq's own rules */
    bool console;                        /* pgshunt's: knows no startup options */
    const volatile sig_atomic_t *stop;   /* not NULL and true: what waits fails */
};

/* Why something failed: one line. */
struct db_error {
    char text[512];
    char hint[512];   /* the server's; "": none */
    char sqlstate[6]; /* "": not the server's error */
};

struct db;

/* NULL: `error` says why. */
struct db *db_open(const struct db_target *target, int64_t timeout_ms, struct db_error *error);
void db_close(struct db *db); /* NULL is ignored */
/* False: it was lost, and everything fails. */
bool db_is_open(const struct db *db);
PGconn *db_connection(struct db *db); /* for quoting */
/* Another stop flag than its target's; NULL: none. */
void db_set_stop(struct db *db, const volatile sig_atomic_t *stop);
/* Whether a server is there, though it may let nobody in: it is not dead. */
bool db_answers(const struct db_target *target, int64_t timeout_ms);
/*
 * Runs one statement; text parameters follow (NULL: an SQL NULL), `nparams` of them. The caller clears
 * the result. NULL: `error` says why; when the time was over or it was stopped, the statement was
 * cancelled and the connection is closed.
 */
PGresult *db_query(struct db *db, int64_t timeout_ms, struct db_error *error, const char *sql,
                   int nparams, ...);
/* The same where no rows are wanted. */
bool db_run(struct db *db, int64_t timeout_ms, struct db_error *error, const char *sql, int nparams,
            ...);

/* Sends SQL without parameters, to be answered while others are asked; false: `error` says why. */
bool db_send(struct db *db, struct db_error *error, const char *sql);
/* ... and its answer, as of db_query(). */
PGresult *db_take(struct db *db, int64_t timeout_ms, struct db_error *error);

/* CLOCK_MONOTONIC in milliseconds. */
int64_t db_clock_ms(void);

#endif
