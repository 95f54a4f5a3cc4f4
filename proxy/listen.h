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
 * transaction.
 */
#ifndef PGSHUNT_PROXY_LISTEN_H
#define PGSHUNT_PROXY_LISTEN_H

#include <stdbool.h>
#include <stdint.h>

#include "pgshunt/buffer.h"
#include "pgshunt/error.h"
#include "pgshunt/statement.h"

struct client;
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
void listen_cancel(struct client *client); /* it waits no more for a LISTEN */
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
/* The shared connection was lost and is there again. */
void listen_was_lost(struct worker *worker, const char *database);

#endif
