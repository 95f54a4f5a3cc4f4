/*
 * pins.h: why a server connection stays with its client between transactions.
 *
 *   a statement completes --pins_follow--> pinned, with a reason
 *   something that may end it (DROP, ROLLBACK, an unlock, ...) --> in doubt
 *   outside a transaction, in doubt: the server is asked (a probe) --> still pinned, or free for the pool
 *   DISCARD ALL, UNLISTEN *, CLOSE ALL, ... --> that reason is gone, no need to ask
 *   the client leaves --> DISCARD ALL, and the connection is used again; where that is not enough, closed
 */
#ifndef PGSHUNT_PROXY_PINS_H
#define PGSHUNT_PROXY_PINS_H

#include <stdbool.h>
#include <stdint.h>

#include "pgshunt/error.h"
#include "pgshunt/statement.h"

struct client;
struct server;

enum pin_reason {
    PIN_TEMPORARY,
    PIN_LOCK,
    PIN_CURSOR,
    PIN_LISTEN,
    PIN_PREPARE,
    PIN_SEQUENCE,
    PIN_SEED,
    PIN_SET_CONFIG,
    PIN_LOAD,
    PIN_DBLINK,
    PIN_ORIGIN,
    PIN_FUNCTION,
    PIN_REPLICATION,
    PIN_REASONS,
};

/* As the console and the metrics show it. */
const char *pin_reason_name(enum pin_reason reason);
/* Names of the reasons in a set of bits, separated by ", ". Returns `out`. */
const char *pins_describe(uint32_t pins, char *out, int size);
/* Reasons of all of a client's servers. */
uint32_t pins_of(const struct client *client);

void pin(struct client *client, struct server *server, enum pin_reason reason);
void unpin(struct server *server, enum pin_reason reason);
void unpin_all(struct server *server); /* DISCARD ALL */
/* A statement has completed on this server: what it leaves behind, and what it may have ended. */
void pins_follow(struct client *client, struct server *server, const struct statement *statement);
/* A transaction has ended there, or went back to a savepoint. */
void pins_rolled_back(struct server *server);
void pins_committed(struct server *server);
/* At the end of a request, outside a transaction: asks a server whose pins are in doubt. */
COLD void pins_probe(struct client *client, struct server *server);
/* The answer: bits of the reasons that still hold (-1: there was an error). */
COLD void pins_probed(struct server *server, int64_t holding);
/* Tells the client what it was pinned for, once, if the configuration says so. */
COLD void pins_notice(struct client *client);
/* Whether DISCARD ALL makes the connection as new. */
bool pins_can_be_reset(const struct server *server);

#endif
