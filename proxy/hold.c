/* hold.c: nodes that nothing new is sent to, and the clients that wait for that to end. */
#include "proxy/hold.h"

#include <string.h>

#include "pgshunt/log.h"
#include "proxy/client.h"
#include "proxy/node_wait.h"
#include "proxy/pool.h"
#include "proxy/worker.h"

int64_t hold_until(struct node *node)
{
    int64_t until = atomic_load(&node->held_until);
    return until && clock_us() < until ? until : 0;
}

static bool same_server(const struct node *a, const struct node *b)
{
    return a->port == b->port && strcmp(a->host, b->host) == 0;
}

/* Sets it for every database that has the server. True: it was held on one. */
static bool set(const struct topology *topology, const struct node *server, int64_t until)
{
    bool was_held = false;
    for (int d = 0; d < topology->ndatabases; d++)
        for (int s = 0; s < topology->databases[d].nshards; s++) {
            const struct shard *shard = &topology->databases[d].shards[s];
            for (int n = 0; n < shard->nnodes; n++)
                if (same_server(shard->nodes[n], server))
                    was_held |= atomic_exchange(&shard->nodes[n]->held_until, until) > clock_us();
        }
    return was_held;
}

void hold_begin(const struct topology *topology, const struct node *node, int64_t until)
{
    set(topology, node, until);
}

bool hold_end(const struct topology *topology, const struct shard *shard)
{
    bool was_held = false;
    for (int n = 0; n < shard->nnodes; n++)
        if (atomic_load(&shard->nodes[n]->held_until))
            was_held |= set(topology, shard->nodes[n], 0);
    return was_held;
}

void hold_move_queued(struct worker *worker)
{
    list_each(at, following, &worker->clients)
    {
        struct client *client = list_entry(at, struct client, all);
        const struct pool *pool = client->waiting_pool;
        if (!pool || client->state == CLIENT_GREETING || !client->request.planned ||
            !hold_until(pool->node))
            continue;
        struct node *node = pool->node;
        unsigned shard = client->waiting_shard;
        pool_cancel_wait(client);
        node_wait_held(client, shard, client->request.plan.node, node);
    }
}

static bool is_of(const struct node *node, const struct shard *shard)
{
    for (int n = 0; n < shard->nnodes; n++)
        if (same_server(shard->nodes[n], node))
            return true;
    return false;
}

static bool is_busy(const struct server *server)
{
    return server->expect_count > 0 || server->begun ||
           (server->tx_status && server->tx_status != 'I');
}

int hold_count_busy(const struct worker *worker, const struct shard *shard)
{
    int count = 0;
    list_each(at, following, &worker->servers)
    {
        const struct server *server = list_entry(at, struct server, all);
        if (server->dedicated || server->hub || server->state == SERVER_IDLE || !server->client ||
            !is_of(server->pool->node, shard) || !hold_until(server->pool->node))
            continue;
        count += is_busy(server);
    }
    return count;
}

void hold_tick(struct worker *worker, int64_t now)
{
    const struct topology *topology = worker->topology;
    for (int d = 0; d < topology->ndatabases; d++)
        for (int s = 0; s < topology->databases[d].nshards; s++) {
            const struct shard *shard = &topology->databases[d].shards[s];
            for (int n = 0; n < shard->nnodes; n++) {
                struct node *node = shard->nodes[n];
                int64_t until = atomic_load(&node->held_until);
                if (!until || now < until ||
                    !atomic_compare_exchange_strong(&node->held_until, &until, 0))
                    continue;
                log_event(LOG_WARNING, "a hold has reached its time limit",
                          LOG_S("shard", shard->name), LOG_S("node", node->host),
                          LOG_I("port", node->port),
                          LOG_S("hint", "RELEASE did not come: did pgshuntctl fail?"));
            }
        }
}
