/* node_wait.c: holds clients while there is no node for their statement. */
#include "proxy/node_wait.h"

#include <string.h>

#include "proxy/balance.h"
#include "proxy/hold.h"
#include "proxy/monitor.h"
#include "proxy/session.h"

#define LOOK_EVERY_MS 5
#define FRESH_WAIT_US 20000   /* now and then */
#define SAMPLE_WAIT_US 100000 /* once for a new connection */
#define LEAST_WAIT_US 50000   /* a node that has just refused is not asked again at once */

static void resume(struct client *client)
{
    node_wait_cancel(client);
    client->request.avoid = NULL;
    client->state = CLIENT_BUSY;
    if (extended_in_batch(client))
        extended_continue(client);
    else if (client->request.node_wait.token)
        simple_start_over(client);
    else
        simple_continue(client);
}

static bool has_sample(struct client *client, const struct node_wait *wait)
{
    if (wait->token)
        return read_after_is_known(client);
    if (wait->sample)
        return atomic_load(&wait->sample->sampled_at) > wait->asked_at ||
               atomic_load(&wait->sample->state) != NODE_STATE_UP;
    return attach_has_replica(client, wait->shard);
}

static bool is_over(struct client *client, int64_t now)
{
    const struct node_wait *wait = &client->request.node_wait;
    if (wait->give_up_at)
        return now >= wait->give_up_at || has_sample(client, wait);
    if (now >= wait->until)
        return true;
    return now >= wait->look_at && attach_has_node(client, wait->shard, wait->class);
}

static void look(uv_timer_t *timer)
{
    struct worker *worker = timer->data;
    int64_t now = clock_us();
    struct list_node over;
    list_init(&over);
    list_each(at, following, &worker->node_waiting)
    {
        if (is_over(list_entry(at, struct client, waiting), now))
            list_move(&over, at);
    }
    while (!list_empty(&over))
        resume(list_entry(over.next, struct client, waiting));
    if (list_empty(&worker->node_waiting))
        uv_timer_stop(timer);
}

/* Where no node was ever seen well there is nothing to wait for, but something to tell. */
static bool was_well(const struct shard *shard)
{
    for (int i = 0; i < shard->nnodes; i++)
        if (atomic_load(&shard->nodes[i]->checked_at) != 0)
            return true;
    return false;
}

static void wait(struct client *client)
{
    struct worker *worker = client->worker;
    client->request.node_wait.waits = true;
    if (list_empty(&worker->node_waiting))
        uv_timer_start(&worker->node_timer, look, LOOK_EVERY_MS, LOOK_EVERY_MS);
    client->state = CLIENT_WAITING;
    list_push_back(&worker->node_waiting, &client->waiting);
}

static void wait_for(struct client *client, unsigned shard, enum node_class class, int64_t look_at)
{
    struct node_wait *node_wait = &client->request.node_wait;
    node_wait->shard = shard;
    node_wait->class = class;
    node_wait->look_at = look_at;
    wait(client);
}

bool node_wait_fresh(struct client *client, unsigned shard, const struct node *sample)
{
    struct node_wait *wait = &client->request.node_wait;
    const struct shard *of = &client->database->shards[shard];
    if (wait->fresh_waited)
        return false;
    wait->fresh_waited = true;
    wait->sample = sample;
    wait->asked_at = freshness_now();
    wait->give_up_at = clock_us() + (sample ? SAMPLE_WAIT_US : FRESH_WAIT_US);
    for (int i = 0; i < of->nnodes; i++)
        if (!sample || sample == of->nodes[i])
            monitor_suspect(client->worker->daemon->monitor, of->nodes[i]);
    wait_for(client, shard, NODE_CLASS_REPLICA, 0);
    return true;
}

/* The wait for a node, if there is then none, begins when the hold ends. */
void node_wait_held(struct client *client, unsigned shard, enum node_class class, struct node *node)
{
    client->request.node_wait.until =
        hold_until(node) + client->topology->config->failover_wait * 1000;
    wait_for(client, shard, class, 0);
}

bool node_wait(struct client *client, unsigned shard, enum node_class class)
{
    struct node_wait *wait = &client->request.node_wait;
    int64_t now = clock_us(), limit = client->topology->config->failover_wait * 1000;
    if (!wait->until)
        wait->until = now + limit;
    if (now >= wait->until || !was_well(&client->database->shards[shard]))
        return false;
    wait_for(client, shard, class, now + LEAST_WAIT_US);
    return true;
}

enum read_after_token node_wait_token(struct client *client)
{
    const struct database *database = client->database;
    const struct config *config = client->topology->config;
    struct node_wait *node_wait = &client->request.node_wait;
    node_wait->asked_at = freshness_now();
    node_wait->token = true;
    node_wait->give_up_at = clock_us() + (config->failover_wait + config->check_timeout) * 1000;
    for (int i = 0; i < database->nshards; i++) {
        struct node *primary = shard_primary(&database->shards[i]);
        if (primary)
            monitor_suspect(client->worker->daemon->monitor, primary);
    }
    wait(client);
    return READ_AFTER_WAIT;
}

/* Class 08: no connection; 57P0x: it shuts down, starts up, or was ended. */
bool node_wait_is_for(const char *sqlstate)
{
    return strncmp(sqlstate, "08", 2) == 0 || strncmp(sqlstate, "57P0", 4) == 0;
}

void node_wait_cancel(struct client *client)
{
    if (!client->request.node_wait.waits)
        return;
    list_remove(&client->waiting);
    client->request.node_wait.waits = false;
    client->request.node_wait.give_up_at = 0;
}
