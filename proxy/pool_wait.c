/* pool_wait.c: clients that wait for a server of a pool: first come first served, told, refused. */
#include <stdio.h>

#include "pgshunt/wire.h"
#include "proxy/client.h"
#include "proxy/pool_internal.h"
#include "proxy/worker.h"

static struct client *first_waiting(const struct pool *pool)
{
    return list_entry(pool->waiting.next, struct client, waiting);
}

int64_t pool_waits_since(const struct pool *pool)
{
    return list_empty(&pool->waiting) ? 0 : first_waiting(pool)->waiting_since;
}

/* The other workers see how long the first one has waited. */
static void publish(struct pool *pool)
{
    budget_waiting(pool->budget, pool->worker->index, pool_waits_since(pool));
    if (list_empty(&pool->waiting))
        pool_relax(pool);
}

void pool_wait(struct pool *pool, struct client *client, unsigned shard)
{
    client->waiting_pool = pool;
    client->waiting_shard = shard;
    client->waiting_since = worker_now(pool->worker);
    client->told_waiting = false;
    bool first = list_empty(&pool->waiting); /* nwaiting still counts those who are being refused */
    list_push_back(&pool->waiting, &client->waiting);
    pool->nwaiting++;
    if (first)
        publish(pool);
    if (client->nparticipants)
        deadlock_wait(client);
}

void pool_stop_waiting(struct client *client)
{
    struct pool *pool = client->waiting_pool;
    bool first = pool->waiting.next == &client->waiting;
    list_remove(&client->waiting);
    pool->nwaiting--;
    client->waiting_pool = NULL;
    if (first)
        publish(pool);
    if (client->holds_and_waits)
        deadlock_end(client);
    int64_t waited = worker_now(pool->worker) - client->waiting_since;
    pool->wait_us += (uint64_t)waited;
    worker_stats_of(pool->worker, pool->account->database)->wait_us += (uint64_t)waited;
}

void pool_cancel_wait(struct client *client)
{
    if (client->waiting_pool)
        pool_stop_waiting(client);
}

/* Those who come back to wait while we tell the others are not told again. */
static void refuse(struct pool *pool, struct list_node *refused, const char *sqlstate,
                   const char *message, const char *hint)
{
    publish(pool);
    while (!list_empty(refused)) {
        struct client *client = list_entry(refused->next, struct client, waiting);
        pool_stop_waiting(client);
        client->request.avoid = pool->node;
        client_no_server(client, sqlstate, message, hint);
    }
}

void pool_refuse_waiting(struct pool *pool, const char *sqlstate, const char *message,
                         const char *hint)
{
    struct list_node refused;
    list_init(&refused);
    list_each(at, following, &pool->waiting)
    {
        list_remove(at);
        list_push_back(&refused, at);
    }
    refuse(pool, &refused, sqlstate, message, hint);
}

/* Down, or no primary any more: what a client waits for here will not come, or be the wrong thing. */
static bool waits_in_vain(const struct node *node, const struct client *client)
{
    bool wants_primary = client->request.planned && client->request.plan.node == NODE_CLASS_PRIMARY;
    return atomic_load(&node->state) == NODE_STATE_DOWN ||
           (wants_primary &&
            (atomic_load(&node->role) == NODE_ROLE_REPLICA || atomic_load(&node->fenced)));
}

static void send_elsewhere(struct pool *pool)
{
    struct list_node refused;
    list_init(&refused);
    list_each(at, following, &pool->waiting)
    {
        if (!waits_in_vain(pool->node, list_entry(at, struct client, waiting)))
            continue;
        list_remove(at);
        list_push_back(&refused, at);
    }
    if (!list_empty(&refused))
        refuse(pool, &refused, "57P03", "the server a connection was waited for is gone",
               "Run the statement again; SHOW NODES on the admin console tells which servers "
               "answer.");
}

/* ---- with time ---- */

static void refuse_late(struct pool *pool, struct client *client)
{
    char message[200];
    const struct budget *limit = pool->squeezed_by;
    snprintf(message, sizeof message,
             "no server connection became free in time (pool.query_wait_timeout); the limit that "
             "was reached: %s",
             limit ? limit->setting : pool->budget->setting);
    pool->wait_timeouts++;
    pool_stop_waiting(client);
    client->request.attempts = CLIENT_ATTEMPTS_OVER;
    client_no_server(client, "53300", message,
                     "Raise that limit, shorten transactions, or wait less often; SHOW POOLS tells "
                     "who holds connections.");
}

static void tell(const struct pool *pool, struct client *client)
{
    char message[200];
    const struct budget *limit = pool->squeezed_by;
    snprintf(
        message, sizeof message,
        "still waiting for a server connection; %d clients wait; the limit that is reached: %s",
        pool->nwaiting, limit ? limit->setting : pool->budget->setting);
    struct pg_error notice = {.severity = "NOTICE",
                              .sqlstate = "00000",
                              .message = message,
                              .hint = "pool.query_wait_notify sets when this is said, "
                                      "pool.query_wait_timeout how long one waits."};
    struct buffer out = {0};
    client->told_waiting = true;
    /* Before it is logged in a client does not expect notices. */
    if (client->state != CLIENT_WAITING)
        return;
    wire_put_notice(&out, &notice);
    client_send_buffer(client, &out);
}

/* The first to have waited so long stand at the head of the queue. */
static void tell_waiting(struct pool *pool, int64_t now)
{
    int64_t after = pool->account->settings.query_wait_notify * 1000;
    list_each(at, following, &pool->waiting)
    {
        struct client *client = list_entry(at, struct client, waiting);
        if (!after || now - client->waiting_since < after)
            return;
        if (!client->told_waiting)
            tell(pool, client);
    }
}

void pool_tick_waiting(struct pool *pool, int64_t now)
{
    int64_t limit = pool->account->settings.query_wait_timeout * 1000;
    send_elsewhere(pool);
    tell_waiting(pool, now);
    while (limit && pool->nwaiting) {
        struct client *client = first_waiting(pool);
        if (now - client->waiting_since < limit)
            return;
        refuse_late(pool, client);
    }
}
