/* pool.c: server connections per (database, user, node): checkout, checkin, starting and failing. */
#include "proxy/pool.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pgshunt/arena.h"
#include "pgshunt/log.h"
#include "proxy/client.h"
#include "proxy/hub.h"
#include "proxy/login_gate.h"
#include "proxy/node_health.h"
#include "proxy/pool_internal.h"
#include "proxy/replication.h"
#include "proxy/sequences.h"
#include "proxy/server_secret.h"
#include "proxy/worker.h"

/* ---- to and from the idle list ---- */

/* The other workers see how many there are to ask for. */
static void publish_idle(struct pool *pool)
{
    atomic_store_explicit(&pool->budget->places[pool->worker->index].idle, pool->nidle,
                          memory_order_relaxed);
}

void pool_take_idle(struct pool *pool, struct server *server)
{
    list_remove(&server->link);
    pool->nidle--;
    publish_idle(pool);
}

static void make_idle(struct pool *pool, struct server *server, int64_t now)
{
    server->state = SERVER_IDLE;
    server->idle_since = now;
    if (pool->worker->topology->config->server_round_robin)
        list_push_back(&pool->idle, &server->link);
    else
        list_push_front(&pool->idle, &server->link);
    pool->nidle++;
    publish_idle(pool);
}

static void assign(struct pool *pool, struct server *server, struct client *client, unsigned shard,
                   int64_t now)
{
    server->state = SERVER_ACTIVE;
    server->request_at = now;
    pool->nactive++;
    pool->assignments++;
    client_attach(client, server, shard);
}

void pool_serve(struct pool *pool, struct server *server, int64_t now)
{
    if (!pool->nwaiting) {
        make_idle(pool, server, now);
        return;
    }
    struct client *client = list_entry(pool->waiting.next, struct client, waiting);
    pool_stop_waiting(client);
    assign(pool, server, client, client->waiting_shard, now);
    client_server_ready(client, server);
}

/* ---- starting connections ---- */

static void refuse_as_failed(struct pool *pool)
{
    char message[512];
    const char *hint = login_refusal(pool, message, sizeof message);
    pool_refuse_waiting(pool, pool->last_sqlstate, message, hint);
}

bool pool_start(struct pool *pool)
{
    login_gate_enter(pool);
    struct server *server = server_start(pool);
    if (!server) {
        login_gate_leave(pool);
        pool_give_room(pool);
        login_failed(pool, NULL, "08006", "connection refused or address unknown");
        return false;
    }
    list_push_back(&pool->starting, &server->link);
    pool->nstarting++;
    return true;
}

/* The pool's size, and its reserve for who has waited long. */
static int most_servers(const struct pool *pool, int64_t now)
{
    int limit = atomic_load(&pool->budget->limit);
    int64_t since = pool_waits_since(pool), after = pool->account->settings.reserve_timeout * 1000;
    bool late = after && since && now - since >= after;
    return late ? limit + atomic_load(&pool->budget->reserve) : limit;
}

static enum room take_room(struct pool *pool, int64_t now)
{
    int most = most_servers(pool, now);
    int64_t since = pool_waits_since(pool);
    if (pool_is_asking(pool, now))
        return ROOM_NONE;
    enum room room = pool_take_room(pool, most, since, now);
    if (room == ROOM_NONE && !pool_beg(pool) && pool_make_room(pool, now))
        room = pool_take_room(pool, most, since, now);
    if (room != ROOM_NONE)
        pool_relax(pool);
    if (room == ROOM_TAKEN && pool_has_surplus(pool))
        pool->reserves++;
    return room;
}

/* A login may begin, as far as its node is concerned. */
static bool door_is_open(struct pool *pool)
{
    return login_may_try(pool, worker_now(pool->worker)) && login_gate_is_open(pool);
}

/* Idle ones may be left while clients wait: those that have to be tested first. */
static void test_idle(struct pool *pool)
{
    while (pool->nstarting + pool->ntended < pool->nwaiting && !list_empty(&pool->idle))
        pool_test(pool, list_entry(pool->idle.next, struct server, link));
}

void pool_feed(struct pool *pool)
{
    enum room room = ROOM_TAKEN;
    test_idle(pool);
    while (pool->nstarting + pool->ntended < pool->nwaiting && door_is_open(pool)) {
        room = take_room(pool, worker_now(pool->worker));
        if (room != ROOM_TAKEN || !pool_start(pool))
            break;
    }
    if (room == ROOM_POOL_FULL)
        pool_beg(pool);
    else if (room == ROOM_TAKEN && pool->nwaiting && !pool->nstarting && !pool->nactive &&
             !pool->nidle && !login_may_try(pool, worker_now(pool->worker)) &&
             !login_is_worth_waiting(pool))
        refuse_as_failed(pool);
}

/* A login at this pool's node has ended: others may have waited for that. */
static void feed_gated(struct pool *ended)
{
    login_gate_leave(ended);
    for (struct account *account = ended->worker->accounts; account; account = account->hh.next)
        for (struct pool *pool = account->pools; pool; pool = pool->next)
            if (login_gate_is_due(pool, ended))
                pool_feed(pool);
}

/* ---- checkout ---- */

static void refuse_deadlock(struct client *client)
{
    struct pool *pool = client->waiting_pool;
    pool->deadlocks++;
    pool_stop_waiting(client);
    client->request.attempts = CLIENT_ATTEMPTS_OVER;
    client_no_server(client, "40P01",
                     "deadlock detected: clients wait for server connections that they hold from "
                     "each other",
                     "End the transaction and run it again. A larger pool_size, or transactions "
                     "that use the shards in the same order, make this rare.");
}

/* One more connection, though there are idle ones. False: there is no room. */
static bool start_another(struct pool *pool, struct client *client, unsigned shard, int64_t now)
{
    if (!door_is_open(pool) || take_room(pool, now) != ROOM_TAKEN)
        return false;
    if (!pool_start(pool))
        return false;
    pool_wait(pool, client, shard);
    return true;
}

enum checkout pool_checkout(struct pool *pool, struct client *client, unsigned shard)
{
    if (!pool->nwaiting && !list_empty(&pool->idle)) {
        int64_t now = worker_now(pool->worker);
        bool another = false;
        struct server *server = sequences_choose(client, &pool->idle, now, &another);
        if (another && start_another(pool, client, shard, now))
            return CHECKOUT_WAITING;
        if (!pool_doubts(pool, server, now)) {
            pool_take_idle(pool, server);
            assign(pool, server, client, shard, now);
            return CHECKOUT_READY;
        }
        pool_test(pool, server);
    }
    pool_wait(pool, client, shard);
    pool_feed(pool);
    if (client->holds_and_waits && deadlock_found(client))
        refuse_deadlock(client);
    return CHECKOUT_WAITING;
}

/* ---- servers coming free and going ---- */

static bool is_fit(const struct server *server)
{
    return !server->discard && !server->copy_rest && server->tx_status == 'I' &&
           !server->expect_count;
}

/* The reserve is for those who wait, and a pool that has left the configuration for who was in it. */
static bool is_too_many(const struct pool *pool, int worker)
{
    if (!pool_has_surplus(pool) && !pool->retired)
        return false;
    int used = atomic_load(&pool->budget->used);
    int most = atomic_load(&pool->budget->limit) + atomic_load(&pool->budget->reserve);
    return used > most || (!pool->nwaiting && worker < 0);
}

/* A server nobody has any claim on. */
static void release(struct pool *pool, struct server *server, int64_t now)
{
    int worker = budget_neediest(pool->budget, pool->worker->index, pool_waits_since(pool));
    if (is_too_many(pool, worker)) {
        server_drop(server, pool->retired ? "the node has left the configuration" : "pool_size");
        return;
    }
    int room = pool_yields(pool, now);
    if (room >= 0) {
        pool->evictions++;
        server_drop(server, "room for another pool");
        pool_tell_room(pool, room);
        return;
    }
    server->parked = false;
    pool->nactive--;
    server->wrote = server->begun = false;
    server->gathered = server->guarded = server->notified = false;
    if (worker >= 0)
        pool_move(server, worker);
    else
        pool_serve(pool, server, now);
}

void pool_checkin(struct server *server)
{
    int64_t now = worker_now(server->worker);
    bool worn = server->expires_at && now > server->expires_at;
    if (worn || !is_fit(server)) {
        server_drop(server, worn ? "server_lifetime" : "not fit for reuse");
        return;
    }
    if (server->cancels) {
        server->parked = true; /* cancel.c brings it here again */
        return;
    }
    if (server->kept && pool_reset(server))
        return;
    release(server->pool, server, now);
}

void pool_set_lifetime(struct server *server)
{
    int64_t lifetime = server->pool->account->settings.server_lifetime;
    int64_t part = (server->id * 2654435761u >> 16) % 1000;
    server->expires_at =
        lifetime ? server->connected_at + lifetime * 1000 - part * lifetime / 5 : 0;
}

void pool_server_ready(struct server *server)
{
    struct pool *pool = server->pool;
    if (server->hub) {
        hub_server_ready(server);
        return;
    }
    if (server->dedicated) {
        replication_server_ready(server);
        return;
    }
    list_remove(&server->link);
    pool->nstarting--;
    login_forget_failure(pool);
    node_proved(pool->node);
    pool->nactive++;
    server->state = SERVER_ACTIVE;
    server->ready_at = freshness_now();
    pool_set_lifetime(server);
    log_event(LOG_DEBUG, "server connection ready", LOG_I("server", server->id),
              LOG_S("host", pool->node->host), LOG_I("port", pool->node->port),
              LOG_S("user", pool->account->server_user), LOG_I("pid", server->backend_pid));
    pool_checkin(server);
    feed_gated(pool);
}

void pool_login_failed(struct server *server, const char *sqlstate, const char *message)
{
    struct pool *pool = server->pool;
    if (server->hub) {
        hub_login_failed(server, sqlstate, message);
        return;
    }
    if (server->dedicated) {
        replication_login_failed(server, sqlstate, message);
        return;
    }
    log_event(LOG_WARNING, "login to server failed", LOG_S("host", pool->node->host),
              LOG_I("port", pool->node->port), LOG_S("user", pool->account->server_user),
              LOG_S("database", pool->node->dbname), LOG_S("sqlstate", sqlstate),
              LOG_S("reason", message));
    server_secret_refused(server, sqlstate);
    login_failed(pool, server, sqlstate, message);
    server_drop(server, message);
}

static void take_off(struct pool *pool, struct server *server)
{
    switch (server->state) {
    case SERVER_CONNECTING:
    case SERVER_LOGIN:
        pool->nstarting--;
        break;
    case SERVER_IDLE:
        pool->nidle--;
        publish_idle(pool);
        break;
    case SERVER_ACTIVE:
        pool->nactive--;
        pool->ntended -= server->tended;
        break;
    case SERVER_CLOSED:
        break;
    }
}

void pool_remove(struct server *server)
{
    struct pool *pool = server->pool;
    if (server->dedicated || server->hub || server->state == SERVER_CLOSED)
        return;
    bool was_starting = server->state == SERVER_CONNECTING || server->state == SERVER_LOGIN;
    list_remove(&server->link);
    take_off(pool, server);
    server->state = SERVER_CLOSED;
    pool_give_room(pool);
    pool_tell_place(pool);
    if (pool->nwaiting)
        pool_feed(pool);
    pool_tell_wanting(pool);
    if (was_starting)
        feed_gated(pool);
}
