/* pool_account.c: accounts and pools: found, made, with the settings and limits that hold for them. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pgshunt/arena.h"
#include "proxy/login_gate.h"
#include "proxy/pool_internal.h"
#include "proxy/worker.h"

enum { CLIENTS_OF_DATABASE, CLIENTS_OF_USER };

static const struct config *config_of(const struct account *account)
{
    return account->worker->topology->config;
}

/* ---- budgets by name ---- */

static struct budget *named_budget(struct worker *worker, bool places, const char *setting,
                                   const char *format, ...) __attribute__((format(printf, 4, 5)));

static struct budget *named_budget(struct worker *worker, bool places, const char *setting,
                                   const char *format, ...)
{
    char *key = NULL;
    va_list args;
    va_start(args, format);
    int length = vasprintf(&key, format, args);
    va_end(args);
    if (length < 0)
        abort();
    struct budget *budget = budget_get(worker->daemon, key, places, setting);
    free(key);
    return budget;
}

/* ---- accounts ---- */

static char *server_user(const struct worker *worker, const char *database, const char *user)
{
    const struct database_config *config = config_database(worker->topology->config, database);
    return mem_strdup(config && config->user[0] ? config->user : user);
}

void account_load(struct account *account)
{
    const struct config *config = config_of(account);
    config_pool_settings(config, account->database, account->user, &account->settings);
    config_route_wish(config, account->database, account->user, &account->wish);
    budget_set_limit(account->clients[CLIENTS_OF_DATABASE],
                     config_database_clients(config, account->database));
    budget_set_limit(account->clients[CLIENTS_OF_USER], config_user_clients(config, account->user));
}

static struct account *new_account(struct worker *worker, struct account *account, size_t db_size)
{
    account->worker = worker;
    account->database = account->key;
    account->user = account->key + db_size;
    account->server_user = server_user(worker, account->database, account->user);
    account->credential =
        credential_get(&worker->daemon->credentials, account->database, account->user);
    account->clients[CLIENTS_OF_DATABASE] = named_budget(
        worker, false, "max_clients of the database", "clients of database %s", account->database);
    account->clients[CLIENTS_OF_USER] =
        named_budget(worker, false, "max_clients of the user", "clients of user %s", account->user);
    account_load(account);
    return account;
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
    new_account(worker, fresh, db_size);
    HASH_ADD(hh, worker->accounts, key, size, fresh);
    return fresh;
}

bool account_admit(struct account *account, struct pg_error *error)
{
    if (!budget_take(account->clients[CLIENTS_OF_DATABASE])) {
        *error = (struct pg_error){
            .sqlstate = "53300",
            .message = "too many clients of this database (max_clients of the database)",
            .hint = "Raise the database's max_clients (or limits.max_database_clients), or close "
                    "connections that are not used."};
        return false;
    }
    if (!budget_take(account->clients[CLIENTS_OF_USER])) {
        budget_give(account->clients[CLIENTS_OF_DATABASE]);
        *error = (struct pg_error){
            .sqlstate = "53300",
            .message = "too many clients of this user (max_clients of the user)",
            .hint = "Raise the user's max_clients in the users file (or limits.max_user_clients), "
                    "or close connections that are not used."};
        return false;
    }
    return true;
}

void account_leave(struct account *account)
{
    budget_give(account->clients[CLIENTS_OF_DATABASE]);
    budget_give(account->clients[CLIENTS_OF_USER]);
}

/* ---- pools ---- */

void pool_load_limits(struct pool *pool)
{
    const struct account *account = pool->account;
    const struct config *config = config_of(account);
    pool->check_delay_us = config->server_check_delay * 1000;
    budget_set_limit(pool->budget, account->settings.size);
    atomic_store(&pool->budget->reserve, (int)account->settings.reserve_size);
    budget_set_limit(pool->limits[LIMIT_TOTAL], config->max_server_connections);
    budget_set_limit(pool->limits[LIMIT_NODE], config->max_node_connections);
    budget_set_limit(pool->limits[LIMIT_DATABASE],
                     config_database_connections(config, account->database));
    budget_set_limit(pool->limits[LIMIT_USER], config_user_connections(config, account->user));
}

static void find_budgets(struct pool *pool)
{
    const struct account *account = pool->account;
    struct worker *worker = pool->worker;
    const struct node *node = pool->node;
    pool->budget = named_budget(worker, true, "pool.size", "pool %d %zu %s %s", node->id,
                                strlen(account->database), account->database, account->user);
    pool->limits[LIMIT_TOTAL] =
        named_budget(worker, false, "limits.max_server_connections", "servers");
    pool->limits[LIMIT_NODE] = named_budget(worker, false, "limits.max_node_connections",
                                            "servers at %s:%d", node->host, node->port);
    pool->limits[LIMIT_DATABASE] = named_budget(worker, false, "max_connections of the database",
                                                "servers of database %s", account->database);
    pool->limits[LIMIT_USER] = named_budget(worker, false, "max_connections of the user",
                                            "servers of user %s", account->user);
    pool_load_limits(pool);
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

/* Nobody new is to use it: its database or node has left the configuration. */
static bool is_retired(const struct pool *pool)
{
    const struct topology *topology = pool->worker->topology;
    return !topology_database(topology, pool->account->database) ||
           !node_is_configured(topology, pool->node);
}

struct pool *pool_private(struct account *account, struct node *node)
{
    struct pool *pool = mem_alloc(sizeof *pool);
    pool->account = account;
    pool->worker = account->worker;
    pool->node = node_ref(node);
    list_init(&pool->idle);
    list_init(&pool->starting);
    list_init(&pool->tended);
    list_init(&pool->waiting);
    list_init(&pool->squeezed);
    return pool;
}

struct pool *pool_get(struct account *account, struct node *node)
{
    for (struct pool *pool = account->pools; pool; pool = pool->next)
        if (pool->node == node)
            return pool;
    struct pool *pool = pool_private(account, node);
    find_budgets(pool);
    pool->retired = is_retired(pool);
    pool->next = account->pools;
    account->pools = pool;
    return pool;
}

void pool_free(struct pool *pool)
{
    list_remove(&pool->squeezed);
    node_unref(pool->node);
    free(pool->last_error);
    guc_set_release(&pool->defaults);
    free(pool);
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
            pool_free(pool);
        }
        free(account->server_user);
        free(account);
    }
}

/* ---- reload ---- */

static void close_idle(struct pool *pool, const char *reason)
{
    while (!list_empty(&pool->idle))
        server_drop(list_entry(pool->idle.next, struct server, link), reason);
}

static void reload_pool(struct pool *pool)
{
    pool->retired = is_retired(pool);
    login_forget_failure(pool);
    pool_load_limits(pool);
    if (pool->retired)
        close_idle(pool, "the node has left the configuration");
    /* Those too many that are busy are closed when they come free. */
    while (pool_has_surplus(pool) && !list_empty(&pool->idle))
        server_drop(list_entry(pool->idle.prev, struct server, link), "pool_size");
}

/* A shorter lifetime holds for those that are there, too. */
static void reload_lifetimes(struct worker *worker)
{
    list_each(at, following, &worker->servers)
    {
        struct server *server = list_entry(at, struct server, all);
        if (server->state == SERVER_IDLE || server->state == SERVER_ACTIVE)
            pool_set_lifetime(server);
    }
}

/* Servers logged in as another user than the configuration says now are not used again. */
static void reload_server_user(struct account *account)
{
    struct worker *worker = account->worker;
    char *user = server_user(worker, account->database, account->user);
    bool same = strcmp(user, account->server_user) == 0;
    free(account->server_user);
    account->server_user = user;
    if (same)
        return;
    list_each(at, following, &worker->servers)
    {
        struct server *server = list_entry(at, struct server, all);
        if (server->pool->account == account)
            server->discard = true;
    }
    for (struct pool *pool = account->pools; pool; pool = pool->next)
        close_idle(pool, "the database's user has changed");
}

void pools_reload(struct worker *worker)
{
    for (struct account *account = worker->accounts; account; account = account->hh.next) {
        reload_server_user(account);
        account_load(account);
        for (struct pool *pool = account->pools; pool; pool = pool->next)
            reload_pool(pool);
    }
    reload_lifetimes(worker);
}

/* ---- a pool of one ---- */

void pool_private_free(struct pool *pool)
{
    node_unref(pool->node);
    free(pool->last_error);
    guc_set_release(&pool->defaults);
    free(pool);
}
