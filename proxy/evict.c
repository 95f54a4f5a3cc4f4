/*
 * evict.c: ends server connections to nodes that are dead, no primary any more, or at another address.
 *
 * What a dead machine owes never comes, and no error either: the monitor's verdict is all there is. A
 * read of which nothing has been passed on is asked again elsewhere at once. Everything else, which
 * would fail, is given routing.failover_wait: a server that was only stopped may still answer.
 */
#include "proxy/evict.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/socket.h>

#include "proxy/client.h"
#include "proxy/node_health.h"
#include "proxy/worker.h"

enum verdict { STAYS, LEAVES, ENDS };

/* Microseconds since anything came from the server. */
static int64_t silent_for(const struct server *server, int64_t now)
{
    struct tcp_info info;
    socklen_t length = sizeof info;
    if (getsockopt(server->conn.fd, IPPROTO_TCP, TCP_INFO, &info, &length) == 0 &&
        length > offsetof(struct tcp_info, tcpi_last_data_recv))
        return (int64_t)info.tcpi_last_data_recv * 1000;
    return now - server->request_at;
}

static bool may_repeat(const struct client *client)
{
    return client && client->request.retriable && !client->request.forwarded && !client->tx;
}

/* Of a node that has not answered its checks since. */
static bool is_given_up(const struct server *server, int64_t dead_since, int64_t now)
{
    if (server->state != SERVER_ACTIVE || !server->expect_count)
        return false;
    int64_t patience =
        may_repeat(server->client) ? 0 : server->worker->topology->config->failover_wait * 1000;
    return now - dead_since >= patience && silent_for(server, now) >= now - dead_since;
}

static enum verdict judge(struct server *server, int64_t now)
{
    struct node *node = server->pool->node;
    int64_t dead_since = atomic_load(&node->dead_since);
    if (server->connected_at < atomic_load(&node->lost_before)) {
        snprintf(server->fatal, sizeof server->fatal,
                 "the server is no longer what it was (another primary, or started anew)");
        if (!server->fatal_sqlstate[0])
            snprintf(server->fatal_sqlstate, sizeof server->fatal_sqlstate, "57P01");
        return ENDS;
    }
    if (dead_since && is_given_up(server, dead_since, now)) {
        snprintf(server->fatal, sizeof server->fatal, "the server does not answer any more");
        return ENDS;
    }
    return server->connected_at < atomic_load(&node->leave_before) ? LEAVES : STAYS;
}

static void leave(struct server *server, struct list_node *doomed)
{
    if (server->hub || server->dedicated)
        return;
    if (server->state == SERVER_IDLE)
        list_move(doomed, &server->all);
    else
        server->discard = true;
}

static void sweep(struct worker *worker, int64_t now)
{
    struct list_node doomed;
    list_init(&doomed);
    list_each(at, following, &worker->servers)
    {
        struct server *server = list_entry(at, struct server, all);
        if (server->handover)
            continue;
        switch (judge(server, now)) {
        case STAYS:
            break;
        case LEAVES:
            leave(server, &doomed);
            break;
        case ENDS:
            list_move(&doomed, at);
            break;
        }
    }
    while (!list_empty(&doomed)) {
        struct server *server = list_entry(doomed.next, struct server, all);
        server_close(server, server->fatal[0] ? server->fatal : "its node is elsewhere now");
    }
}

static bool has_dead_node(const struct topology *topology)
{
    for (int d = 0; d < topology->ndatabases; d++)
        for (int s = 0; s < topology->databases[d].nshards; s++) {
            const struct shard *shard = &topology->databases[d].shards[s];
            for (int n = 0; n < shard->nnodes; n++)
                if (atomic_load(&shard->nodes[n]->dead_since))
                    return true;
        }
    return false;
}

void evict_tick(struct worker *worker, int64_t now)
{
    unsigned disowned = node_disowned_count();
    if (disowned == worker->disowned && !has_dead_node(worker->topology))
        return;
    worker->disowned = disowned;
    sweep(worker, now);
}
