/*
 * login_gate.h: how hard pgshunt knocks at its servers' doors: at most pool.max_logins logins in
 * progress per node, of all workers together; after a failure a pause that grows; and what the clients
 * that wait are told.
 */
#ifndef PGSHUNT_PROXY_LOGIN_GATE_H
#define PGSHUNT_PROXY_LOGIN_GATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pgshunt/error.h"

struct pool;
struct server;

/* Whether a login at the pool's node may begin. False: enough of them are under way; the pool is fed
 * again when one ends. Workers do not wait for each other here: at most one login each goes beyond. */
bool login_gate_is_open(struct pool *pool);
/* A login begins: it has a place until login_gate_leave(). */
void login_gate_enter(struct pool *pool);
/* A login has ended, well or not. The caller feeds the pools for which login_gate_is_due() holds. */
void login_gate_leave(struct pool *pool);
bool login_gate_is_due(const struct pool *pool, const struct pool *ended);

/*
 * A login failed: nobody tries again before a pause, pool.login_retry at first and twice as long each
 * time up to pool.login_retry_max, a fifth more or less so that many pools do not come back at once.
 * `server` NULL: it did not come to a login.
 */
COLD void login_failed(struct pool *pool, const struct server *server, const char *sqlstate,
                       const char *message);
/* A login succeeded, or the configuration was read again. */
void login_forget_failure(struct pool *pool);
/* The pause is over, and after a failure nobody else is trying. It is cut short where the reason has gone: clients have proven new keys, or the
 * monitor has reached the node since. */
bool login_may_try(const struct pool *pool, int64_t now);
/* The server said that it is starting up (57P03): who waits goes on waiting. */
bool login_is_worth_waiting(const struct pool *pool);
/* Why the last login failed, for clients: the server's own words where it spoke. */
COLD const char *login_refusal(const struct pool *pool, char *message, size_t size);

#endif
