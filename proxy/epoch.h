/*
 * epoch.h: what a server connection says of the map that its statements were planned by (setting pgshunt.epoch).
 *
 * The guards of a reshard job (include/pgshunt/guard.h) refuse writes under an older map than they know. So each statement
 * goes under the number of the map that its client has, whoever had the connection before: it is given at login,
 * and set ahead of a statement, in the same write, where the connection carries another. Databases whose map is not
 * recorded (epoch 0) have none.
 */
#ifndef PGSHUNT_PROXY_EPOCH_H
#define PGSHUNT_PROXY_EPOCH_H

#include <stdbool.h>
#include <stdint.h>

#include "pgshunt/buffer.h"
#include "pgshunt/error.h"
#include "pgshunt/shardmap.h"
#include "proxy/client.h"

#define EPOCH_UNKNOWN (-1) /* it is set ahead of the next statement */

/* What statements planned by this map carry. Whoever keeps a hold writes to none of the buckets that move: it may say that it
 * stands behind the move already. */
static inline int64_t epoch_of_map(const struct shardmap *map)
{
    int64_t epoch = shardmap_epoch(map);
    return epoch ? epoch + shardmap_holds(map) : 0;
}

/* At login: what the connection begins with, and goes back to with RESET ALL. */
void epoch_put_startup(struct server *server, struct buffer *out);
/* Ahead of a statement of the client's: SQL that makes the connection carry the client's. */
void epoch_put(const struct client *client, struct server *server, struct buffer *sql);
static inline void epoch_ahead(const struct client *client, struct server *server,
                               struct buffer *sql)
{
    if (server->epoch != epoch_of_map(client->database->map))
        epoch_put(client, server, sql);
}
/* Somebody may have set it to something else, or back. */
static inline void epoch_forget(struct server *server)
{
    server->epoch = EPOCH_UNKNOWN;
}
/* What was set in a transaction, or behind a savepoint, may be undone. */
static inline void epoch_undone(struct server *server)
{
    if (server->epoch_is_local)
        epoch_forget(server);
    server->epoch_is_local = false;
}

/* The server's error is a guard's. */
bool epoch_is_refusal(const struct pg_error *error);
/* The client's map is old: it is told to begin again. */
void epoch_explain(struct pg_error *error);

#endif
