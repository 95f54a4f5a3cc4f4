/*
 * monitor_conn.h: one libpq connection on a libuv loop, never blocking: for the monitor, and for what else asks
 * servers on its own behalf.
 */
#ifndef PGSHUNT_PROXY_MONITOR_CONN_H
#define PGSHUNT_PROXY_MONITOR_CONN_H

#include <libpq-fe.h>
#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "pgshunt/config.h"
#include "proxy/topology.h"

struct monitor_conn;

/* None of these is called after monitor_conn_close(), which each of them may call. */
struct monitor_conn_events {
    void (*ready)(void *arg); /* logged in; a query may be sent */
    /* One result of the query in flight, freed after the call; then NULL once: the query is over. */
    void (*result)(void *arg, const PGresult *result);
    /* Unusable now: close it. `sqlstate` is "" unless the server refused the login with one. */
    void (*failed)(void *arg, const char *why, const char *sqlstate);
};

struct monitor_login {
    const char *user;
    const char *password; /* "": none known */
    const char *application;
    const char *dbname;          /* NULL, "": the node's */
    const struct config *config; /* says how the node wants TLS */
};

/* Whom the monitor logs in as, from the configuration (points into it). */
struct monitor_login monitor_login(const struct config *config, const char *application);

/* The same for any user; `password` "": the users file's, if it is a plain one. */
struct monitor_login monitor_login_as(const struct config *config, const char *user,
                                      const char *password, const char *dbname,
                                      const char *application);

/*
 * Starts to connect to the address `node` has now. The outcome always comes as an event, from the loop,
 * never from inside this call.
 */
struct monitor_conn *monitor_conn_open(uv_loop_t *loop, struct node *node,
                                       const struct monitor_login *login, int64_t timeout_ms,
                                       const struct monitor_conn_events *events, void *arg);
/* Ends it in whatever state it is. Memory goes when the loop has let go of it. NULL is ignored. */
void monitor_conn_close(struct monitor_conn *conn);
/* Each sends one query; events follow. With `by_row` every row comes as a result of its own. */
void monitor_conn_query(struct monitor_conn *conn, const char *sql, bool by_row,
                        int64_t timeout_ms);
/* ... with one parameter, $1, as text. */
void monitor_conn_query_with(struct monitor_conn *conn, const char *sql, const char *value,
                             int64_t timeout_ms);
void monitor_conn_prepare(struct monitor_conn *conn, const char *name, const char *sql,
                          int64_t timeout_ms);
void monitor_conn_execute(struct monitor_conn *conn, const char *name, int64_t timeout_ms);
/* ... with one parameter, as text. */
void monitor_conn_execute_with(struct monitor_conn *conn, const char *name, const char *value,
                               int64_t timeout_ms);

#endif
