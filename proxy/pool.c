/* pool.c: server connections per (database, user, node): checkout, checkin, waiting, limits. */
#include "proxy/pool.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pgshunt/arena.h"
#include "pgshunt/log.h"
#include "proxy/client.h"
#include "proxy/login_gate.h"
#include "proxy/replication.h"
#include "proxy/server_secret.h"
#include "proxy/worker.h"

static void feed(struct pool *pool);

/* ---- accounts and pools ---- */

static char *server_user(const struct worker *worker, const char *database, const char *user)
{
    const struct database_config *config = config_database(worker->topology->config, database);
    return mem_strdup(config && config->user[0] ? config->user : user);
}

struct account *account_get(struct worker *worker, const char *database, const char *user)
{
    size_t db_size = strlen(database) + 1, size = db_size + strlen(user) + 1;
    struct account *fresh = mem_alloc(sizeof *fresh + size), *account;
    memcpy(fresh->key, database, db_size);
    memcpy(fresh->key + db_size, user, size - db_size);
    HASH_FIND(hh, worker->accounts, fresh->key, size, account);
    if (account) {
        free(fresh);
        return account;
    }
    fresh->worker = worker;
    fresh->database = fresh->key;
    fresh->user = fresh->key + db_size;
    fresh->server_user = server_user(worker, database, user);
    fresh->credential = credential_get(&worker->daemon->credentials, database, user);
    HASH_ADD(hh, worker->accounts, key, size, fresh);
    return fresh;
}

static int pool_limit(const struct config *config, const char *database)
{
    const struct database_config *db = config_database(config, database);
    return (int)(db && db->pool.size > 0 ? db->pool.size : config->pool.size);
}

/* The budget shared by all workers; lives as long as the process. */
static struct budget *budget_get(struct account *account, struct node *node)
{
    struct daemon *daemon = account->worker->daemon;
    char key[512];
    snprintf(key, sizeof key, "%d %s %s", node->id, account->database, account->user);
    struct budget *budget;
    pthread_mutex_lock(&daemon->budgets_lock);
    HASH_FIND_STR(daemon->budgets, key, budget);
    if (!budget) {
        budget = mem_alloc(sizeof *budget);
        budget->key = mem_strdup(key);
        HASH_ADD_KEYPTR(hh, daemon->budgets, budget->key, strlen(budget->key), budget);
    }
    atomic_store(&budget->limit, pool_limit(account->worker->topology->config, account->database));
    pthread_mutex_unlock(&daemon->budgets_lock);
    return budget;
}

struct pool *pool_get(struct account *account, struct node *node)
{
    for (struct pool *pool = account->pools; pool; pool = pool->next)
        if (pool->node == node)
            return pool;
    struct pool *pool = mem_alloc(sizeof *pool);
    pool->account = account;
    pool->worker = account->worker;
    pool->node = node_ref(node);
    pool->budget = budget_get(account, node);
    pool->beggar = -1;
    list_init(&pool->idle);
    list_init(&pool->starting);
    list_init(&pool->waiting);
    pool->next = account->pools;
    account->pools = pool;
    return pool;
}

static bool budget_take(struct budget *budget)
{
    int used = atomic_load(&budget->used);
    while (used < atomic_load(&budget->limit))
        if (atomic_compare_exchange_weak(&budget->used, &used, used + 1))
            return true;
    return false;
}

/* ---- handing connections between workers ---- */

struct transfer {
    struct message message;
    struct server *server;
    struct worker *from, *to;
    char *database, *user;
    struct node *node;
};

static void free_transfer(struct transfer *transfer)
{
    node_unref(transfer->node);
    free(transfer->database);
    free(transfer->user);
    free(transfer);
}

/* The receiving worker has ended, and so does the process. */
static void drop_transfer(struct message *message)
{
    struct transfer *transfer = (struct transfer *)message;
    atomic_fetch_sub(&transfer->server->pool->budget->used, 1);
    server_discard(transfer->server);
    free_transfer(transfer);
}

/* On the receiving worker. */
static void adopt(struct worker *worker, struct message *message)
{
    struct transfer *transfer = (struct transfer *)message;
    struct server *server = transfer->server;
    struct account *account = account_get(worker, transfer->database, transfer->user);
    server->worker = worker;
    server->pool = pool_get(account, transfer->node);
    free_transfer(transfer);
    list_push_back(&worker->servers, &server->all);
    if (!conn_adopt(&server->conn, &worker->loop)) {
        /* No event loop will ever close it: take it off the books by hand. */
        atomic_fetch_sub(&server->pool->budget->used, 1);
        list_remove(&server->all);
        server_discard(server);
        return;
    }
    server->pool->nactive++; /* as if just done with a client */
    server->state = SERVER_ACTIVE;
    pool_checkin(server);
}

static void post_transfer(struct conn *conn)
{
    struct server *server = list_entry(conn, struct server, conn);
    struct transfer *transfer = server->handover;
    server->handover = NULL;
    worker_post(transfer->to, &transfer->message);
}

/* An idle server off all lists goes to another worker; its place in the budget goes with it. */
static void hand_over(struct server *server, int to)
{
    struct pool *pool = server->pool;
    struct transfer *transfer = mem_alloc(sizeof *transfer);
    transfer->message.run = adopt;
    transfer->message.drop = drop_transfer;
    transfer->server = server;
    transfer->to = &pool->worker->daemon->workers[to];
    transfer->database = mem_strdup(pool->account->database);
    transfer->user = mem_strdup(pool->account->user);
    transfer->node = node_ref(pool->node);
    server->handover = transfer;
    list_remove(&server->all);
    conn_detach(&server->conn, post_transfer);
}

struct begging {
    struct message message;
    int from;
    bool has_none;
    struct transfer who; /* database, user, node only */
};

static void drop_begging(struct message *message)
{
    struct begging *begging = (struct begging *)message;
    node_unref(begging->who.node);
    free(begging->who.database);
    free(begging->who.user);
    free(begging);
}

/* On every other worker. */
static void hear_beggar(struct worker *worker, struct message *message)
{
    struct begging *begging = (struct begging *)message;
    struct account *account = account_get(worker, begging->who.database, begging->who.user);
    struct pool *pool = pool_get(account, begging->who.node);
    if (!list_empty(&pool->idle) && !pool->nwaiting) {
        struct server *server = list_entry(pool->idle.prev, struct server, link);
        list_remove(&server->link);
        pool->nidle--;
        hand_over(server, begging->from);
    } else if (begging->has_none) {
        pool->beggar = begging->from;
    }
    drop_begging(message);
}

static void beg(struct pool *pool)
{
    struct daemon *daemon = pool->worker->daemon;
    for (int i = 0; i < daemon->nworkers; i++) {
        if (i == pool->worker->index)
            continue;
        struct begging *begging = mem_alloc(sizeof *begging);
        begging->message.run = hear_beggar;
        begging->message.drop = drop_begging;
        begging->from = pool->worker->index;
        begging->has_none = pool->nactive + pool->nidle + pool->nstarting == 0;
        begging->who.database = mem_strdup(pool->account->database);
        begging->who.user = mem_strdup(pool->account->user);
        begging->who.node = node_ref(pool->node);
        worker_post(&daemon->workers[i], &begging->message);
    }
}

/* ---- waiting ---- */

static void stop_waiting(struct client *client)
{
    struct pool *pool = client->waiting_pool;
    list_remove(&client->waiting);
    pool->nwaiting--;
    client->waiting_pool = NULL;
    int64_t waited = worker_now(pool->worker) - client->waiting_since;
    pool->wait_us += (uint64_t)waited;
    worker_stats_of(pool->worker, pool->account->database)->wait_us += (uint64_t)waited;
}

void pool_cancel_wait(struct client *client)
{
    if (client->waiting_pool)
        stop_waiting(client);
}

static void refuse_waiting(struct pool *pool, const char *sqlstate, const char *message,
                           const char *hint)
{
    struct list_node refused;
    list_init(&refused);
    /* Those who come back to wait while we tell the others are not told again. */
    list_each(at, following, &pool->waiting)
    {
        list_remove(at);
        list_push_back(&refused, at);
    }
    while (!list_empty(&refused)) {
        struct client *client = list_entry(refused.next, struct client, waiting);
        stop_waiting(client);
        client->request.avoid = pool->node;
        client_no_server(client, sqlstate, message, hint);
    }
}

static void assign(struct pool *pool, struct server *server, struct client *client, unsigned shard)
{
    server->state = SERVER_ACTIVE;
    server->request_at = worker_now(pool->worker);
    pool->nactive++;
    pool->assignments++;
    client_attach(client, server, shard);
}

/* Gives a server that is on no list to whoever waits longest. */
static void serve_first(struct pool *pool, struct server *server)
{
    struct client *client = list_entry(pool->waiting.next, struct client, waiting);
    stop_waiting(client);
    assign(pool, server, client, client->waiting_shard);
    client_server_ready(client, server);
}

/* ---- starting connections ---- */

static void refuse_as_failed(struct pool *pool)
{
    char message[512];
    const char *hint = login_refusal(pool, message, sizeof message);
    refuse_waiting(pool, pool->last_sqlstate, message, hint);
}

static bool start_one(struct pool *pool)
{
    struct server *server = server_start(pool);
    if (!server) {
        login_gate_leave(pool);
        atomic_fetch_sub(&pool->budget->used, 1);
        login_failed(pool, NULL, "08006", "connection refused or address unknown");
        return false;
    }
    list_push_back(&pool->starting, &server->link);
    pool->nstarting++;
    return true;
}

/* Starts what the waiting clients need and the limits allow. */
static void feed(struct pool *pool)
{
    bool starved = false;
    while (pool->nstarting < pool->nwaiting && login_may_try(pool, clock_us()) &&
           login_gate_enter(pool)) {
        starved = !budget_take(pool->budget);
        if (starved)
            login_gate_leave(pool);
        if (starved || !start_one(pool))
            break;
    }
    if (pool->nwaiting && !pool->nstarting && !pool->nactive && !pool->nidle && !starved &&
        !login_may_try(pool, clock_us()) && !login_is_worth_waiting(pool))
        refuse_as_failed(pool);
    if (starved)
        beg(pool);
}

/* A login at this pool's node has ended: others may have waited for that. */
static void feed_gated(struct pool *ended)
{
    login_gate_leave(ended);
    for (struct account *account = ended->worker->accounts; account; account = account->hh.next)
        for (struct pool *pool = account->pools; pool; pool = pool->next)
            if (login_gate_is_due(pool, ended))
                feed(pool);
}

enum checkout pool_checkout(struct pool *pool, struct client *client, unsigned shard)
{
    if (!pool->nwaiting && !list_empty(&pool->idle)) {
        struct server *server = list_entry(pool->idle.next, struct server, link);
        list_remove(&server->link);
        pool->nidle--;
        assign(pool, server, client, shard);
        return CHECKOUT_READY;
    }
    client->waiting_pool = pool;
    client->waiting_shard = shard;
    client->waiting_since = worker_now(pool->worker);
    list_push_back(&pool->waiting, &client->waiting);
    pool->nwaiting++;
    feed(pool);
    return CHECKOUT_WAITING;
}

/* ---- servers coming free and going ---- */

static void make_idle(struct pool *pool, struct server *server)
{
    server->state = SERVER_IDLE;
    server->idle_since = worker_now(pool->worker);
    list_push_front(&pool->idle, &server->link);
    pool->nidle++;
}

void pool_checkin(struct server *server)
{
    struct pool *pool = server->pool;
    bool worn = server->expires_at && worker_now(pool->worker) > server->expires_at;
    if (server->discard || server->tx_status != 'I' || server->expect_count || worn ||
        pool->retired) {
        server_drop(server, worn ? "server_lifetime" : "not fit for reuse");
        return;
    }
    if (server->cancels) {
        server->parked = true; /* cancel.c brings it here again */
        return;
    }
    server->parked = false;
    pool->nactive--;
    server->wrote = server->begun = false;
    if (pool->beggar >= 0) {
        int to = pool->beggar;
        pool->beggar = -1;
        hand_over(server, to);
        return;
    }
    if (pool->nwaiting)
        serve_first(pool, server);
    else
        make_idle(pool, server);
}

void pool_server_ready(struct server *server)
{
    struct pool *pool = server->pool;
    if (server->dedicated) {
        replication_server_ready(server);
        return;
    }
    list_remove(&server->link);
    pool->nstarting--;
    login_forget_failure(pool);
    pool->nactive++;
    server->state = SERVER_ACTIVE;
    int64_t lifetime = pool->worker->topology->config->pool.server_lifetime;
    server->expires_at = lifetime ? clock_us() + lifetime * 1000 -
                                        (int64_t)(worker_random(pool->worker) % 1000) * lifetime / 5
                                  : 0;
    log_event(LOG_DEBUG, "server connection ready", LOG_I("server", server->id),
              LOG_S("host", pool->node->host), LOG_I("port", pool->node->port),
              LOG_S("user", pool->account->server_user), LOG_I("pid", server->backend_pid));
    pool_checkin(server);
    feed_gated(pool);
}

void pool_login_failed(struct server *server, const char *sqlstate, const char *message)
{
    struct pool *pool = server->pool;
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

void pool_remove(struct server *server)
{
    struct pool *pool = server->pool;
    if (server->dedicated)
        return;
    bool was_starting = server->state == SERVER_CONNECTING || server->state == SERVER_LOGIN;
    list_remove(&server->link);
    switch (server->state) {
    case SERVER_CONNECTING:
    case SERVER_LOGIN:
        pool->nstarting--;
        break;
    case SERVER_IDLE:
        pool->nidle--;
        break;
    case SERVER_ACTIVE:
        pool->nactive--;
        break;
    case SERVER_CLOSED:
        return;
    }
    server->state = SERVER_CLOSED;
    atomic_fetch_sub(&pool->budget->used, 1);
    if (pool->nwaiting)
        feed(pool);
    if (was_starting)
        feed_gated(pool);
}

/* ---- upkeep ---- */

static void expire_idle(struct pool *pool, const struct config *config, int64_t now)
{
    list_each(at, following, &pool->idle)
    {
        struct server *server = list_entry(at, struct server, link);
        if (server->expires_at && now > server->expires_at)
            server_drop(server, "server_lifetime");
        else if (config->pool.server_idle_timeout &&
                 now - server->idle_since > config->pool.server_idle_timeout * 1000)
            server_drop(server, "server_idle_timeout");
    }
}

static void expire_starting(struct pool *pool, const struct config *config, int64_t now)
{
    list_each(at, following, &pool->starting)
    {
        struct server *server = list_entry(at, struct server, link);
        if (now - server->connected_at > config->connect_timeout * 1000)
            pool_login_failed(server, "08001", "the server did not finish the login in time");
    }
}

static void expire_waiting(struct pool *pool, const struct config *config, int64_t now)
{
    while (config->pool.query_wait_timeout && pool->nwaiting) {
        struct client *client = list_entry(pool->waiting.next, struct client, waiting);
        if (now - client->waiting_since < config->pool.query_wait_timeout * 1000)
            return;
        stop_waiting(client);
        client_no_server(client, "53300",
                         "no server connection became free in time (pool.query_wait_timeout)",
                         "Raise pool.size, shorten transactions, or wait less often; SHOW POOLS "
                         "tells who holds connections.");
    }
}

static void tick_pool(struct pool *pool, int64_t now)
{
    const struct config *config = pool->worker->topology->config;
    expire_idle(pool, config, now);
    expire_starting(pool, config, now);
    expire_waiting(pool, config, now);
    if (pool->nwaiting)
        feed(pool);
}

static void free_pool(struct pool *pool)
{
    node_unref(pool->node);
    free(pool->last_error);
    free(pool);
}

static bool pool_is_empty(const struct pool *pool)
{
    return !pool->nidle && !pool->nactive && !pool->nstarting && !pool->nwaiting;
}

static void tick_account(struct account *account, int64_t now)
{
    for (struct pool **at = &account->pools; *at;) {
        struct pool *pool = *at;
        tick_pool(pool, now);
        if (pool->retired && pool_is_empty(pool)) {
            *at = pool->next;
            free_pool(pool);
        } else {
            at = &pool->next;
        }
    }
}

void pools_tick(struct worker *worker, int64_t now)
{
    for (struct account *account = worker->accounts; account; account = account->hh.next)
        tick_account(account, now);
}

static bool node_is_configured(const struct topology *topology, const struct node *node)
{
    for (int i = 0; i < topology->ndatabases; i++)
        for (int j = 0; j < topology->databases[i].nshards; j++)
            for (int k = 0; k < topology->databases[i].shards[j].nnodes; k++)
                if (topology->databases[i].shards[j].nodes[k] == node)
                    return true;
    return false;
}

static void close_idle(struct pool *pool, const char *reason)
{
    while (!list_empty(&pool->idle))
        server_drop(list_entry(pool->idle.next, struct server, link), reason);
}

void pools_reload(struct worker *worker)
{
    for (struct account *account = worker->accounts; account; account = account->hh.next) {
        for (struct pool *pool = account->pools; pool; pool = pool->next) {
            pool->retired = !node_is_configured(worker->topology, pool->node);
            login_forget_failure(pool);
            atomic_store(&pool->budget->limit,
                         pool_limit(worker->topology->config, account->database));
            if (pool->retired)
                close_idle(pool, "the node has left the configuration");
        }
    }
}

void pools_close_idle(struct worker *worker)
{
    for (struct account *account = worker->accounts; account; account = account->hh.next)
        for (struct pool *pool = account->pools; pool; pool = pool->next)
            close_idle(pool, "shutdown");
}

void pools_free(struct worker *worker)
{
    struct account *account, *next;
    HASH_ITER(hh, worker->accounts, account, next)
    {
        HASH_DEL(worker->accounts, account);
        while (account->pools) {
            struct pool *pool = account->pools;
            account->pools = pool->next;
            free_pool(pool);
        }
        free(account->server_user);
        free(account);
    }
}
