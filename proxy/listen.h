/*
 * listen.h: LISTEN and UNLISTEN of clients. Many clients share one server connection per database, the
 * hub (hub.h), so that listening takes no connection out of a pool.
 *
 *   client --LISTEN--> its worker's channel --subscribe--> the database's hub --LISTEN--> primary
 *   client <--'A'----- its worker's channel <--note------- the database's hub <--'A'----- of shard 0
 *
 * A worker's channel is what its clients have in common: it exists while one of them subscribes to it, and
 * the hub knows of it by a ticket. In a transaction block a LISTEN is prepared at once and takes effect at
 * COMMIT, as Postgres does it. Notifications wait in a bounded queue while their client is busy or in a
 * transaction, and go out ahead of its next ReadyForQuery outside one.
 *
 * A client that listens and has written may have notified itself, maybe by a trigger. Postgres tells it so ahead of
 * its ReadyForQuery; therefore that is held here until the hub has caught up:
 *
 *   its server's 'Z' --> HELD (the client is WAITING) --the hub's server answers an empty query--> 'A'... 'Z'
 *                          '-- the hub is not there, five seconds, a cancel ------------------------'
 */
#ifndef PGSHUNT_PROXY_LISTEN_H
#define PGSHUNT_PROXY_LISTEN_H

#include <stdbool.h>
#include <stdint.h>

#include "pgshunt/buffer.h"
#include "pgshunt/error.h"
#include "pgshunt/statement.h"

struct client;
struct server;
struct listener; /* a client's subscriptions; client->listener, NULL until needed */
struct worker;

/* LISTENs and UNLISTENs of a transaction block, in order. */
struct listen_change {
    bool listen;
    char *channel; /* NULL: UNLISTEN * */
};

struct listen_changes {
    struct listen_change *items;
    int count;
};

void listen_changes_truncate(struct listen_changes *changes, int count);
/* The block has ended: they count, or not. Frees them. */
void listen_transaction_end(struct client *client, struct listen_changes *changes, bool committed);

enum listen_answer {
    LISTEN_DONE,
    LISTEN_WAIT /* the client is WAITING; the statement is to be tried again when it goes on */
};
enum listen_answer listen_to(struct client *client, const char *channel);
void listen_stop(struct client *client, const char *channel); /* NULL: all */
/* A server itself listens for the client now (the LISTEN came with other statements). */
void listen_moved(struct client *client, const char *channel);
/* SELECT pg_listening_channels(), in a form we can answer. */
bool listen_is_question(const struct statement *statement);
bool listen_asks(const struct statement *statement); /* calls the function, in whatever form */
void listen_put_channels(const struct client *client, struct buffer *answer);
bool listen_has_channels(const struct client *client);

/* The client is idle outside a transaction: what has waited goes out. */
void listen_flush(struct client *client);
/* Of a client with a listener: what has waited is put ahead of its ReadyForQuery, if that is outside a transaction. */
void listen_put_queue(struct client *client, struct buffer *out);
/* Something that may have notified it is committed on this server. */
void listen_wrote(struct client *client, const struct server *server);
/* Whether its ReadyForQuery is due outside a transaction, and has to be held. */
bool listen_owes(const struct client *client);
/* Holds it: session_ready() follows. */
void listen_hold(struct client *client);
/* Whether it was held; it is so no longer. */
bool listen_let_go(struct client *client);
void listen_cancel(
    struct client *client); /* it waits no more for a LISTEN, nor with its ReadyForQuery */
/* A NotificationResponse of a server that the client has to itself: its own are shown as such. */
void listen_own_pid(const struct client *client, const struct server *server, char *message,
                    size_t len);
void listen_free(struct client *client);
/* About once a second: those who have waited too long. */
void listen_tick(struct worker *worker, int64_t now);
void listen_worker_free(struct worker *worker);

/* ---- from the hub, on the client's worker ---- */

void listen_confirmed(struct worker *worker, const char *database, const char *channel,
                      uint32_t ticket);
void listen_failed(struct worker *worker, const char *database, const char *channel,
                   uint32_t ticket, const struct pg_error *error);
void listen_notify(struct worker *worker, const char *database, const char *channel,
                   const char *bytes, size_t len);
/* What was committed before hub_catch_up() has been told. */
void listen_caught_up(struct worker *worker, uint32_t ticket);
/* The shared connection was lost and is there again. */
void listen_was_lost(struct worker *worker, const char *database);

#endif
