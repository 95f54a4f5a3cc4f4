/* login_gate.c: throttles logins to servers and words their failures. */
#include "proxy/login_gate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pgshunt/arena.h"
#include "proxy/credentials.h"
#include "proxy/monitor.h"
#include "proxy/node_health.h"
#include "proxy/pool.h"
#include "proxy/server_secret.h"
#include "proxy/worker.h"

#define DOUBLINGS_MAX 20

static const struct config *config_of(const struct pool *pool)
{
    return pool->worker->topology->config;
}

/* ---- the gate ---- */

bool login_gate_is_open(struct pool *pool)
{
    int limit = config_of(pool)->max_logins;
    /* A node that fails is tried by one at a time. */
    if (atomic_load(&pool->node->breaker) != BREAKER_CLOSED)
        limit = 1;
    pool->gated = limit && atomic_load(&pool->node->logins) >= limit;
    return !pool->gated;
}

void login_gate_enter(struct pool *pool)
{
    atomic_fetch_add(&pool->node->logins, 1);
}

void login_gate_leave(struct pool *pool)
{
    atomic_fetch_sub(&pool->node->logins, 1);
}

bool login_gate_is_due(const struct pool *pool, const struct pool *ended)
{
    return pool->gated && pool->nwaiting && pool->node == ended->node;
}

/* ---- after a failure ---- */

static int64_t pause_us(const struct pool *pool, int64_t first, int64_t most)
{
    int64_t pause = first;
    for (int i = 1; i < pool->failures && i < DOUBLINGS_MAX && pause < most; i++)
        pause *= 2;
    pause = (pause < most ? pause : most) * 1000;
    return pause * (800 + (int64_t)(worker_random(pool->worker) % 401)) / 1000;
}

bool login_is_worth_waiting(const struct pool *pool)
{
    return pool->last_error && strcmp(pool->last_sqlstate, "57P03") == 0;
}

void login_failed(struct pool *pool, const struct server *server, const char *sqlstate,
                  const char *message)
{
    const struct config *config = config_of(pool);
    int64_t now = clock_us();
    free(pool->last_error);
    pool->last_error = mem_strdup(message);
    pool->last_hint = server ? server_secret_hint(server, sqlstate) : NULL;
    snprintf(pool->last_sqlstate, sizeof pool->last_sqlstate, "%s", sqlstate);
    /* Logins that were under way together have failed for the same reason: they are one failure. */
    pool->failures += !server || !pool->failures || server->connected_at > pool->failed_at;
    pool->failed_at = now;
    pool->failed_version = credential_version(pool->account->credential);
    pool->retry_at = now + pause_us(pool, config->login_retry, config->login_retry_max);
    atomic_fetch_add(&pool->node->connect_failures, 1);
    if (server)
        node_refused(pool->node, sqlstate);
    monitor_suspect(pool->worker->daemon->monitor, pool->node);
}

void login_forget_failure(struct pool *pool)
{
    pool->failures = 0;
    pool->retry_at = 0;
}

static bool is_reachable_again(const struct pool *pool)
{
    return (strncmp(pool->last_sqlstate, "08", 2) == 0 || login_is_worth_waiting(pool)) &&
           atomic_load(&pool->node->state) == NODE_STATE_UP &&
           atomic_load(&pool->node->checked_at) > pool->failed_at;
}

bool login_may_try(const struct pool *pool, int64_t now)
{
    if (!pool->failures)
        return true;
    if (pool->nstarting)
        return false;
    if (pool->retry_at <= now ||
        pool->failed_version != credential_version(pool->account->credential))
        return true;
    return now - pool->failed_at >= config_of(pool)->login_retry * 1000 && is_reachable_again(pool);
}

const char *login_refusal(const struct pool *pool, char *message, size_t size)
{
    const struct node *node = pool->node;
    const char *error = pool->last_error ? pool->last_error : "unknown reason";
    if (pool->last_hint) {
        snprintf(message, size, "%s", error);
        return pool->last_hint;
    }
    snprintf(message, size, "cannot connect to %s:%d, database \"%s\": %s", node->host, node->port,
             node->dbname, error);
    return "See SHOW NODES on the admin console; pgshunt tries again by itself.";
}
