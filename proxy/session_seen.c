/* session_seen.c: what the session has written and seen, shard by shard, and what its reads need for it. */
#include "proxy/session.h"

#include <stdlib.h>

#include "pgshunt/arena.h"
#include "proxy/pool.h"
#include "proxy/read_after.h"

/* Of the shard; NULL: it has no other node to read from, or is not known. */
static struct freshness *find(struct client *client, unsigned shard)
{
    const struct database *database = client->database;
    if (shard >= (unsigned)database->nshards || database->shards[shard].nnodes < 2)
        return NULL;
    if (!client->freshness)
        client->freshness = mem_alloc(sizeof *client->freshness * (size_t)database->nshards);
    return &client->freshness[shard];
}

void session_wrote(struct client *client, const struct server *server)
{
    if (client->listener)
        listen_wrote(client, server);
    struct freshness *freshness = find(client, server->shard);
    if (!freshness)
        return;
    freshness->wrote_at = freshness_now();
    freshness->behind_since = 0;
}

void session_saw(struct client *client, const struct server *server)
{
    struct freshness *freshness = find(client, server->shard);
    if (freshness)
        freshness_saw(freshness, server->stint);
}

static int64_t check_interval(const struct client *client)
{
    return client->topology->config->lag_check_interval * 1000;
}

/* One that is usually there within the time of a check or two. */
static bool is_close(const struct node *node, int64_t interval)
{
    int64_t lag = atomic_load(&node->lag_us);
    return atomic_load(&node->role) == NODE_ROLE_REPLICA &&
           atomic_load(&node->state) == NODE_STATE_UP && lag >= 0 && lag <= 2 * interval;
}

bool session_is_stuck(struct client *client, unsigned shard)
{
    struct freshness *freshness = find(client, shard);
    int64_t now = worker_now(client->worker), interval = check_interval(client);
    const struct shard *of = &client->database->shards[shard];
    if (!freshness)
        return false;
    if (!freshness->behind_since)
        freshness->behind_since = now;
    for (int i = 0; now - freshness->behind_since > 2 * interval && i < of->nnodes; i++)
        if (is_close(of->nodes[i], interval))
            return true;
    return false;
}

void session_stays_stuck(struct client *client, unsigned shard)
{
    struct freshness *freshness = find(client, shard);
    if (freshness)
        freshness->behind_since = worker_now(client->worker) + 8 * check_interval(client);
}

void session_saw_anything(struct client *client)
{
    client->floor_at = freshness_now();
    free(client->freshness);
    client->freshness = NULL;
}

void session_need(const struct client *client, unsigned shard, const struct route_wish *wish,
                  struct freshness_need *need)
{
    bool writes = wish->read_your_writes == SAID_ON, reads = wish->monotonic_reads == SAID_ON;
    *need = (struct freshness_need){.as_of = writes || reads ? client->floor_at : 0};
    if (client->database && client->database->map_since > need->as_of)
        need->as_of = client->database->map_since;
    if (client->own)
        need->position = read_after_of(client, shard);
    if (!client->freshness)
        return;
    const struct freshness *freshness = &client->freshness[shard];
    if (writes && freshness->wrote_at > need->as_of)
        need->as_of = freshness->wrote_at;
    if (!reads)
        return;
    if (freshness->seen_on) {
        need->seen_on = freshness->seen_on;
        need->seen_at = freshness->seen_at;
    } else if (freshness->seen_at > need->as_of) {
        need->as_of = freshness->seen_at;
    }
}
