/* pool_internal.h: what the pool's files share with each other and with nobody else. */
#ifndef PGSHUNT_PROXY_POOL_INTERNAL_H
#define PGSHUNT_PROXY_POOL_INTERNAL_H

#include "pgshunt/error.h"
#include "proxy/pool.h"

/* ---- pool.c ---- */

/* Starts what the waiting clients need and the limits allow. */
void pool_feed(struct pool *pool);
/* A server on no list, free: to whom waits longest here, or to the idle ones. */
void pool_serve(struct pool *pool, struct server *server, int64_t now);
/* Takes an idle server off its list. */
void pool_take_idle(struct pool *pool, struct server *server);
/* Starts a connection that has its place in the limits already. False: it failed at once. */
COLD bool pool_start(struct pool *pool);

/* When it will have lived long enough: a part of a fifth that is its own before the limit. */
void pool_set_lifetime(struct server *server);

/* ---- pool_account.c ---- */

void account_load(struct account *account);
void pool_load_limits(struct pool *pool);
void pool_free(struct pool *pool);

/* ---- pool_wait.c ---- */

/* The first waiting client has been there since; 0: none waits. */
int64_t pool_waits_since(const struct pool *pool);
void pool_wait(struct pool *pool, struct client *client, unsigned shard);
void pool_stop_waiting(struct client *client);
void pool_refuse_waiting(struct pool *pool, const char *sqlstate, const char *message,
                         const char *hint);
/* Tells those who wait long, refuses those who have waited too long. */
void pool_tick_waiting(struct pool *pool, int64_t now);

/* ---- pool_tend.c ---- */

/* Whether the settings want this server reset before another client gets it; if so that has begun. */
COLD bool pool_reset(struct server *server);
/* Whether an idle server is to be tested before use. */
bool pool_doubts(const struct pool *pool, const struct server *server, int64_t now);
COLD void pool_test(struct pool *pool, struct server *server);
void pool_tick_tended(struct pool *pool, int64_t now);

/* ---- pool_room.c ---- */

/* A place in the pool's size (`most`) and in all limits, for a client that waits since. */
enum room { ROOM_TAKEN, ROOM_POOL_FULL, ROOM_NONE };
enum room pool_take_room(struct pool *pool, int most, int64_t since, int64_t now);
void pool_give_room(struct pool *pool);
/* After ROOM_NONE: closes an idle server of another pool here, true; or asks the other workers to. */
bool pool_make_room(struct pool *pool, int64_t now);
/* No client of the pool is kept waiting by a limit any more. */
void pool_relax(struct pool *pool);
/* Whether it has looked for room a moment ago. */
bool pool_is_asking(const struct pool *pool, int64_t now);
/* Whether a free server should be closed for a pool that has waited longer for room: the worker to
 * tell once it is, -1: no. */
int pool_yields(struct pool *pool, int64_t now);
void pool_tell_room(struct pool *pool, int worker);
/* A connection has gone by itself: who wants its place in a limit most, and was not told of one yet, is. */
void pool_tell_wanting(struct pool *pool);
/* Whether the pool has more servers than it may: after a reload, or from the reserve. */
bool pool_has_surplus(const struct pool *pool);

/* ---- pool_move.c ---- */

/* A server off all lists goes to another worker; its places in the limits go with it. */
COLD void pool_move(struct server *server, int to);
/* Asks workers that have idle servers of this pool for one. False: there is nobody to ask. */
bool pool_beg(struct pool *pool);
/* A place in the pool's size has come free: a worker whose clients wait longest may use it. */
void pool_tell_place(struct pool *pool);

/* ---- pool_deadlock.c ---- */

/* A client that holds servers begins, or ends, to wait for one more (its waiting_pool). */
void deadlock_wait(struct client *client);
void deadlock_end(struct client *client);
/* Whether this client and others wait for each other, for ever. */
COLD bool deadlock_found(struct client *client);

#endif
