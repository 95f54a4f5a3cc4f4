/*
 * sequences.h: what currval() and lastval() say is a session's, and servers serve many clients.
 *
 * A server carries the id of the client whose statements alone may have left sequence state there
 * (server->sequence_user): nobody's, one client's, or that of several. A client knows which server it
 * wrote to last. Before a client calls a function that may look at such state, or begins a transaction, on
 * a server with somebody else's DISCARD SEQUENCES goes ahead, in the same write. So a client finds its own
 * values or none (then Postgres answers 55000), never another's. Only what triggers hide outside
 * transactions is not seen: to say it ahead of every write would cost a fifth of a plain INSERT.
 *
 *   a client asks for them outside a transaction --> its last server, if that is idle and still its own
 *   ... which it was not --> from now on its writes pin the server (PIN_SEQUENCE)
 *   the user of the database has asked so once, any client of it --> from then on an INSERT begins with a
 *       clean server, and another client's write takes another server than that for a second
 */
#ifndef PGSHUNT_PROXY_SEQUENCES_H
#define PGSHUNT_PROXY_SEQUENCES_H

#include <stdbool.h>
#include <stdint.h>

#include "pgshunt/statement.h"
#include "proxy/list.h"

struct buffer;
struct client;
struct plan;
struct server;

/* A statement of the request was planned. */
void sequences_planned(struct client *client, const struct statement *statement,
                       const struct plan *plan);
/* The batch under way cannot go on here: what it has read so far is to be settled first. */
bool sequences_in_the_way(const struct client *client, const struct server *server);
/* Appends DISCARD SEQUENCES to the text that goes ahead, or sends it as a message of its own. */
void sequences_ahead(struct client *client, struct server *server, struct buffer *out,
                     struct buffer *sql);
/* What was sent to a server already in use may write. */
void sequences_used(struct client *client, struct server *server);
/* A write has completed. */
void sequences_follow(struct client *client, struct server *server);
/*
 * Which of the idle servers (there is one) the client is to get: the one with the values it asks for, else
 * the one used last, but not one with values that another client has put there a moment ago and may ask
 * for. `*another`: all of them are such, and to write one more connection would be better.
 */
struct server *sequences_choose(const struct client *client, const struct list_node *idle,
                                int64_t now, bool *another);

#endif
