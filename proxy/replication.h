/*
 * replication.h: sessions that asked for `replication` in their startup packet: each has a server
 * connection of its own, to which everything is passed through.
 *
 *   logged in --> GREETING --server logged in--> REPLICATING --either side ends--> CLOSED
 *
 * The server is no pool's: it is started with the client's own startup settings (a walsender takes no
 * SET) in a pool that is the session's alone (server->dedicated), counted in daemon->replications up to
 * limits.max_replication, and never reused. It is the client's participant from the start, so that
 * cancel requests, backpressure and the client's end need no special case.
 *
 * Bytes are passed on as they come; only the frames of messages are followed, to know where one ends
 * and whether the server is busy (an expectation for each ReadyForQuery that is awaited).
 */
#ifndef PGSHUNT_PROXY_REPLICATION_H
#define PGSHUNT_PROXY_REPLICATION_H

#include "proxy/client.h"
#include "proxy/startup.h"

struct replication;

/* From the startup packet that asks for it; `packet` is copied. */
struct replication *replication_new(const struct startup *startup, const char *packet, size_t len);
void replication_free(struct client *client);
/* pg_basebackup and pg_receivewal name the database "replication", whatever they are told: finds the
 * one that is meant. False: the client was refused. */
MUST_CHECK bool replication_find_database(struct client *client);
/* Logged in: connects to a primary; the client is greeted when that has logged in too. */
void replication_start(struct client *client);

/* The server's login. */
void replication_put_startup(const struct server *server, struct buffer *out);
void replication_server_ready(struct server *server);
void replication_login_failed(struct server *server, const char *sqlstate, const char *message);

/* Bytes either way. */
void replication_input(struct client *client, const char *data, size_t len);
void replication_readable(struct server *server);
void replication_lost_server(struct client *client, const char *reason);

/* Between messages, and nothing under way that would not go on after a reconnect. */
bool replication_may_end(const struct client *client);
/* "none", "physical" or "logical", as SHOW CLIENTS has it. */
const char *replication_name(const struct client *client);

#endif
