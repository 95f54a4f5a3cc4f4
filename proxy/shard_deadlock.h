/*
 * shard_deadlock.h: transactions on several shards that wait for each other, which no single server can see.
 *
 *   a worker's tick: a client with servers on several shards waits for longer than routing.shard_deadlock_timeout
 *        --> noted, with its servers' pids, as long as it waits
 *   the thread, while several are noted: asks their servers who waits for whom (pg_blocking_pids); all servers of
 *        one client are one transaction. A circle over several servers that is there twice in a row
 *        --> its youngest transaction's statement is cancelled, and the client told 40P01
 *
 * Circles of one server are that server's to break. Transactions of other proxies are not known: circles through
 * them are not found.
 */
#ifndef PGSHUNT_PROXY_SHARD_DEADLOCK_H
#define PGSHUNT_PROXY_SHARD_DEADLOCK_H

#include <stdint.h>

struct client;
struct daemon;
struct pg_error;
struct shard_deadlocks;

/* NULL: no thread. */
struct shard_deadlocks *shard_deadlocks_start(struct daemon *daemon);
/* Joins and frees; NULL is ignored. Workers have ended. */
void shard_deadlocks_stop(struct shard_deadlocks *deadlocks);
/* On the client's worker, now and then while it waits for an answer. */
void shard_deadlock_look(struct client *client, int64_t now);
/* If that is why the server has cancelled the client's statement: what to say in its place. */
void shard_deadlock_explain(const struct client *client, struct pg_error *error);

#endif
