/* pool_upkeep.c: what happens to pools with time: the minimum, idle and lifetime limits, waiting. */
#include "proxy/control.h"
#include "proxy/login_gate.h"
#include "proxy/pool_internal.h"
#include "proxy/worker.h"

/* ---- too old, too long ---- */

static bool is_spare(const struct pool *pool)
{
    return atomic_load(&pool->budget->used) > pool->account->settings.min_size;
}

static void expire_idle(struct pool *pool, int64_t now)
{
    int64_t limit = pool->account->settings.server_idle_timeout * 1000;
    struct list_node seen, *at;
    list_init(&seen);
    while ((at = list_visit(&pool->idle, &seen))) {
        struct server *server = list_entry(at, struct server, link);
        if (server->expires_at && now > server->expires_at)
            server_drop(server, "server_lifetime");
        else if (limit && now - server->idle_since > limit && is_spare(pool))
            server_drop(server, "server_idle_timeout");
        else if (pool_has_surplus(pool))
            server_drop(server, "pool_size");
    }
    list_put_back(&pool->idle, &seen);
}

static void expire_starting(struct pool *pool, int64_t now)
{
    int64_t limit = pool->worker->topology->config->connect_timeout * 1000;
    struct list_node late;
    list_init(&late);
    list_each(at, following, &pool->starting)
    {
        if (now - list_entry(at, struct server, link)->connected_at > limit)
            list_move(&late, at);
    }
    while (!list_empty(&late))
        pool_login_failed(list_entry(late.next, struct server, link), "08001",
                          "the server did not finish the login in time");
}

/* ---- the minimum ---- */

/* One connection each tick and worker, so that many pools do not storm a server that has come back. */
static void keep_minimum(struct pool *pool, int64_t now)
{
    struct worker *worker = pool->worker;
    int least = (int)pool->account->settings.min_size;
    if (atomic_load(&pool->budget->used) >= least || worker->warming || pool->retired ||
        pool->retry_at > now || worker->phase != WORKER_RUNNING ||
        atomic_load(&pool->node->state) != NODE_STATE_UP ||
        control_is_paused(worker, pool->account->database))
        return;
    if (!login_gate_is_open(pool))
        return;
    if (pool_take_room(pool, least, INT64_MAX, now) != ROOM_TAKEN) {
        pool_relax(pool);
        return;
    }
    worker->warming = true;
    pool_start(pool);
}

/* Pools of users with a minimum of their own are there before the first client. */
void pools_warm_up(struct worker *worker)
{
    const struct topology *topology = worker->topology;
    for (int i = 0; i < topology->config->nusers; i++) {
        const struct user_config *user = &topology->config->users[i];
        for (int j = 0; user->pool.min_size > 0 && j < topology->ndatabases; j++) {
            const struct database *database = &topology->databases[j];
            struct account *account = account_get(worker, database->name, user->name);
            for (int k = 0; k < database->nshards; k++)
                for (int l = 0; l < database->shards[k].nnodes; l++)
                    pool_get(account, database->shards[k].nodes[l]);
        }
    }
}

/* ---- the tick ---- */

static void tick_pool(struct pool *pool, int64_t now)
{
    /* What was idle while a node was away may be dead without having said so. */
    if (atomic_load(&pool->node->state) == NODE_STATE_DOWN)
        pool->doubted_at = now;
    expire_idle(pool, now);
    expire_starting(pool, now);
    pool_tick_tended(pool, now);
    pool_tick_waiting(pool, now);
    if (pool->nwaiting)
        pool_feed(pool);
    keep_minimum(pool, now);
}

static bool is_empty(const struct pool *pool)
{
    return !pool->nidle && !pool->nactive && !pool->nstarting && !pool->nwaiting;
}

static void tick_account(struct account *account, int64_t now)
{
    for (struct pool **at = &account->pools; *at;) {
        struct pool *pool = *at;
        tick_pool(pool, now);
        if (pool->retired && is_empty(pool)) {
            *at = pool->next;
            pool_free(pool);
        } else {
            at = &pool->next;
        }
    }
}

void pools_tick(struct worker *worker, int64_t now)
{
    worker->warming = false;
    for (struct account *account = worker->accounts; account; account = account->hh.next)
        tick_account(account, now);
}
