/*
 * cursor.h: results of several shards that a client takes in parts: Execute with a row limit, and SQL's
 * DECLARE, FETCH, MOVE and CLOSE.
 *
 * Each shard has a portal of its own for it, from which rows come a limited number at a time, so that
 * between two parts all servers are free for whatever else the transaction does. The merge keeps what
 * has come and is not out yet. A cursor lives until its transaction ends, or a savepoint made before it
 * is gone back to; it belongs to struct transaction.
 */
#ifndef PGSHUNT_PROXY_CURSOR_H
#define PGSHUNT_PROXY_CURSOR_H

#include "proxy/names.h"
#include "proxy/session.h"

struct cursor;
struct cursors; /* of one transaction */

/* ---- portals ---- */

/* Opens one for the plan of client->request, whose servers are attached, and answers its first
 * `max_rows` rows (0: all). */
void cursor_open_portal(struct client *client, struct portal *portal, const struct scatter_ask *ask,
                        int32_t max_rows);
/* A portal (NULL: DECLARE) for the plan of client->request, which gathers, and has done so: the tables are on
 * its server, behind the gather's savepoint. They get names of the cursor's own, and stay as long as it. */
void cursor_open_gathered(struct client *client, const char *portal, const struct scatter_ask *ask,
                          int32_t max_rows);
/* What the portal has given a part of, or NULL; *gone: a savepoint it was made behind was gone back to. */
struct cursor *cursor_of_portal(const struct client *client, const struct portal *portal,
                                bool *gone);
/* The next part, of a portal or of an SQL cursor executed as one. */
void cursor_execute(struct client *client, struct cursor *cursor, int32_t max_rows);
/* Closes it on all servers, and answers CloseComplete. */
void cursor_close(struct client *client, struct cursor *cursor);
/* Its RowDescription, to be appended to `out`. */
void cursor_describe(const struct cursor *cursor, struct buffer *out);

/* ---- SQL ---- */

/* The one of this name that a DECLARE made; NULL: none, or none over several shards. */
struct cursor *cursor_find(const struct client *client, const char *name);
/* The one that a FETCH, MOVE or CLOSE is about, likewise. */
struct cursor *cursor_of_statement(const struct client *client, const struct statement *statement);
/* DECLARE, the plan is client->request's and its servers are attached. */
void cursor_declare(struct client *client, const struct scatter_ask *ask);
/* FETCH, MOVE, CLOSE of one over several shards, and a DECLARE of its name: carried out, or refused.
 * False: it is a server's business. */
bool cursor_statement(struct client *client, const struct statement *statement, bool silent,
                      bool describe);

/* ---- what ends them ---- */

void cursors_close_all(struct client *client); /* CLOSE ALL was carried out */
void cursors_free(struct cursors *cursors);
/* The transaction goes back to, or forgets, its savepoint with this number. */
void cursors_rollback_to(struct cursors *cursors, int savepoint);
void cursors_release(struct cursors *cursors, int savepoint);

/* ---- while one is at work; called by scatter.c ---- */

void cursor_message(struct cursor *cursor, struct server *server, char type, const char *body,
                    size_t len);
void cursor_lost(struct cursor *cursor, struct server *server, const char *reason);
void cursor_drained(struct cursor *cursor);
void cursor_stop(struct cursor *cursor); /* forgets what it was doing */

#endif
