/*
 * series.h: the statements of one Query message run one after the other, each with a plan of its own.
 *
 *   (no block) --a statement--> implicit block --BEGIN--> the client's block
 *                                |        |                   |
 *                                | error  | the last          | COMMIT, ROLLBACK: as ever; an error fails it
 *                                v        v
 *                            rolled back  committed           then one ReadyForQuery
 *
 * A message all of which is for one shard never comes here: it goes to its server as a whole. What stands
 * outside of a block is one transaction, as with Postgres, on as many shards as it takes.
 */
#ifndef PGSHUNT_PROXY_SERIES_H
#define PGSHUNT_PROXY_SERIES_H

#include "proxy/client.h"

struct series;

/* The plan of the whole message does not stand: its statements have to go one by one. */
bool series_is_needed(const struct client *client);
/* One of them is the session's own business (SET pgshunt.*). */
bool series_has_own(const struct statement_list *list);
/* Takes over the Query in client->request. */
void series_start(struct client *client);
/* The request at hand is answered up to its ReadyForQuery. True: it was a statement of a series, which
 * goes on, and gives the ReadyForQuery in its time. */
bool series_goes_on(struct client *client);
/* The statement at hand has failed: nothing behind it is run. */
void series_failed(struct client *client);
/* A server's error about the statement at hand, with its position as one in the whole message. */
void series_put_error(const struct client *client, const char *body, size_t len,
                      struct buffer *out);

#endif
