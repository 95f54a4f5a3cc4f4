/*
 * hub.h: the one server connection of a database over which all its clients' notifications come.
 *
 * A hub lives on one worker (by a hash of the database's name); the others talk to it by messages. Its
 * connection goes to the primary of the first shard, as the user of the first client that listened; it is
 * not counted in pool.size and knows no idle timeout or lifetime.
 *
 *   (none) --a worker subscribes--> CONNECTING --login--> READY --lost, or the primary changed--> WAITING
 *                                       ^                                                            |
 *                                       '------------------ after a pause that grows ----------------'
 *
 * When nobody listens any more the connection is closed.
 */
#ifndef PGSHUNT_PROXY_HUB_H
#define PGSHUNT_PROXY_HUB_H

#include <stdint.h>

struct hub;
struct server;
struct worker;

/* From any worker; the answer is listen_confirmed() or listen_failed() there. */
void hub_subscribe(struct worker *worker, const char *database, const char *user,
                   const char *channel, uint32_t ticket);
void hub_unsubscribe(struct worker *worker, const char *database, const char *channel,
                     uint32_t ticket);

/* Asks what has been committed so far to be told: listen_caught_up() on this worker follows what listen_notify()
 * got of that. Where nobody listens, or not yet again, it follows at once. */
void hub_catch_up(struct worker *worker, const char *database, uint32_t ticket);

/* ---- on the hub's worker ---- */

void hub_tick(struct worker *worker, int64_t now);
void hub_worker_free(struct worker *worker);
void hub_server_ready(struct server *server);
void hub_login_failed(struct server *server, const char *sqlstate, const char *message);
void hub_readable(struct server *server);
void hub_server_gone(struct server *server, const char *reason); /* by server_drop */

#endif
