/* bucket_hold.c: keeps clients waiting whose statements touch buckets that move; counts and ends what is in the way. */
#include "proxy/bucket_hold.h"

#include <string.h>

#include "pgshunt/arena.h"
#include "pgshunt/log.h"
#include "proxy/catalog_watch.h"
#include "proxy/control.h"
#include "proxy/epoch.h"
#include "proxy/node_wait.h"
#include "proxy/old_work.h"
#include "proxy/session.h"

#define MAP_WAIT_US                                                                                \
    2000000 /* a newer map than a guard's has been written, and should be here by then */
#define FORCE_GRACE_US 1000000 /* what was cancelled by force may take so long to end */

static const struct pg_error moved = {
    .sqlstate = "40001",
    .message =
        "the transaction was rolled back because rows it is about are moving to another shard",
    .hint = "Run the transaction again."};
static const struct pg_error changed = {
    .sqlstate = "40001",
    .message = "the shards were changed while the statement waited for rows that moved",
    .hint = "Run the transaction again."};

/* ---- held ---- */

static void hold(struct client *client)
{
    struct worker *worker = client->worker;
    client->bucket_held = true;
    client->waiting_since = worker_now(worker);
    client->state = CLIENT_WAITING;
    list_push_back(&worker->bucket_held, &client->waiting);
}

/* False: it cannot go on under the newest map, and was told. */
static bool takes_newest_map(struct client *client)
{
    if (client->topology == client->worker->topology || session_follow(client))
        return true;
    if (client->state != CLIENT_CLOSED && !client->terminate)
        session_refuse(client, &changed);
    return false;
}

enum bucket_hold bucket_hold(struct client *client,
                             void (*replan)(struct client *client, void *arg), void *arg)
{
    if (client->topology != client->worker->topology) {
        if (!takes_newest_map(client))
            return BUCKET_HOLD_REFUSED;
        session_follow_schema(client);
        replan(client, arg);
        if (!client->request.plan.touches_held)
            return BUCKET_HOLD_NONE;
    }
    client->stats->held++;
    hold(client);
    return BUCKET_HOLD_WAITS;
}

void bucket_hold_cancel(struct client *client)
{
    if (!client->bucket_held)
        return;
    client->bucket_held = false;
    list_remove(&client->waiting);
    client->stats->wait_us += (uint64_t)(worker_now(client->worker) - client->waiting_since);
}

/* ---- released ---- */

/* Its plan is made anew, under the newest map. */
static void route_again(struct client *client)
{
    client->state = CLIENT_BUSY;
    if (client->request.repeat) {
        session_ask_again(client);
        return;
    }
    if (!takes_newest_map(client))
        return;
    session_follow_schema(client);
    if (extended_in_batch(client))
        extended_continue(client);
    else
        simple_replan(client);
    client_hold_input(client);
}

/* ---- refused under an old map ---- */

bool bucket_hold_waits_for_map(struct client *client)
{
    struct worker *worker = client->worker;
    if (!client->request.stale || client->topology != worker->topology)
        return false;
    catalog_watch_look(worker->daemon->catalog, client->database_name);
    hold(client);
    return true;
}

bool bucket_hold_asks_now(struct client *client)
{
    if (!client->bucket_held || !client->request.repeat)
        return false;
    bucket_hold_cancel(client);
    client->request.attempts = CLIENT_ATTEMPTS_OVER;
    client->state = CLIENT_BUSY;
    session_ask_again(client);
    return true;
}

void bucket_hold_tick(struct worker *worker, int64_t now)
{
    struct list_node late;
    list_init(&late);
    list_each(at, following, &worker->bucket_held)
    {
        const struct client *client = list_entry(at, struct client, waiting);
        if (client->request.repeat && now - client->waiting_since > MAP_WAIT_US)
            list_move(&late, at);
    }
    while (!list_empty(&late))
        bucket_hold_asks_now(list_entry(late.next, struct client, waiting));
}

/* ---- all of them ---- */

/* Those who have to go on waiting get back into the list, in the same order. */
static void let_all_go(struct worker *worker)
{
    struct list_node going;
    list_init(&going);
    list_each(at, following, &worker->bucket_held)
    {
        list_move(&going, at);
    }
    while (!list_empty(&going)) {
        struct client *client = list_entry(going.next, struct client, waiting);
        struct worker_stats *stats = client->stats;
        uint64_t held = stats->held, waited = stats->wait_us;
        int64_t since = client->waiting_since;
        bucket_hold_cancel(client);
        route_again(client);
        if (!client->bucket_held)
            continue;
        client->waiting_since = since; /* it is the same wait */
        stats->held = held;
        stats->wait_us = waited;
    }
}

/* Nothing was sent for the statement yet, and what it waits for is no answer. */
static bool may_be_routed_again(const struct client *client)
{
    return client->state == CLIENT_WAITING && !client->nparticipants && client->request.planned &&
           !client->bucket_held && !client->request.node_wait.token &&
           (client->waiting_pool || client->held || client->request.node_wait.waits);
}

static void route_queued_again(struct worker *worker)
{
    struct list_node seen, *at;
    list_init(&seen);
    while ((at = list_visit(&worker->clients, &seen))) {
        struct client *client = list_entry(at, struct client, all);
        const struct database *database =
            client->database ? topology_database(worker->topology, client->database_name) : NULL;
        if (!database || !shardmap_holds(database->map) || !may_be_routed_again(client))
            continue;
        pool_cancel_wait(client);
        control_release(client);
        node_wait_cancel(client);
        route_again(client);
    }
    list_put_back(&worker->clients, &seen);
}

static bool holds_any(const struct topology *topology)
{
    for (int d = 0; d < topology->ndatabases; d++)
        if (shardmap_holds(topology->databases[d].map))
            return true;
    return false;
}

void bucket_hold_map_changed(struct worker *worker)
{
    if (holds_any(worker->topology))
        route_queued_again(worker);
    let_all_go(worker);
}

void bucket_hold_worker_init(struct worker *worker)
{
    list_init(&worker->bucket_held);
}

/* ---- who is in the way ---- */

static bool covers_keyspace(const struct shardmap *map, const struct keyspace *newest)
{
    int index = shardmap_keyspace_by_name(map, newest->name);
    const struct keyspace *keyspace = index < 0 ? NULL : shardmap_keyspace(map, (unsigned)index);
    if (!keyspace || !keyspace->held)
        return false;
    for (size_t i = 0; i < SHARDKEY_BUCKETS / 8; i++)
        if (newest->held[i] & ~keyspace->held[i])
            return false;
    return true;
}

static bool covers_tables(const struct shardmap *map, const struct shardmap *newest)
{
    const char *name;
    for (unsigned i = 0; (name = shardmap_held_table(newest, i)); i++) {
        const struct table_rule *rule = shardmap_rule(map, name);
        if (!rule || !rule->held)
            return false;
    }
    return true;
}

/* What is held under the newest map was held under this one, too. */
static bool covers(const struct shardmap *map, const struct shardmap *newest)
{
    if (!covers_tables(map, newest))
        return false;
    for (unsigned i = 0; i < shardmap_keyspaces(newest); i++) {
        const struct keyspace *keyspace = shardmap_keyspace(newest, i);
        if (keyspace->held && !covers_keyspace(map, keyspace))
            return false;
    }
    return true;
}

/* Calls `visit` for those of the database that are at work under a map that lacks a hold. */
static void each_busy(struct worker *worker, const char *name,
                      void (*visit)(struct client *client, void *arg), void *arg)
{
    const struct database *newest = topology_database(worker->topology, name);
    const struct shardmap *judged = NULL;
    bool covered = true;
    struct list_node seen, *at;
    if (!newest || !shardmap_holds(newest->map))
        return;
    list_init(&seen);
    while ((at = list_visit(&worker->clients, &seen))) {
        struct client *client = list_entry(at, struct client, all);
        if (!client->database || client->console || strcmp(client->database_name, name) != 0 ||
            client->topology == worker->topology || !old_work_is_at_work(client))
            continue;
        if (judged != client->database->map) {
            judged = client->database->map;
            covered = covers(judged, newest->map);
        }
        if (!covered)
            visit(client, arg);
    }
    list_put_back(&worker->clients, &seen);
}

static void count_busy(struct client *client, void *arg)
{
    (void)client;
    ((struct bucket_hold_count *)arg)->busy++;
}

void bucket_hold_count(struct worker *worker, const char *database, struct bucket_hold_count *count)
{
    each_busy(worker, database, count_busy, count);
    list_each(at, following, &worker->bucket_held)
    {
        const struct client *client = list_entry(at, struct client, waiting);
        count->held += strcmp(client->database_name, database) == 0;
    }
}

/* ---- by force ---- */

void bucket_hold_explain(const struct client *client, struct pg_error *error)
{
    if (client->request.moved && strcmp(error->sqlstate, "57014") == 0)
        *error = moved;
    else if (epoch_is_refusal(error))
        epoch_explain(error);
}

bool bucket_hold_has_failed(const struct client *client, struct pg_error *error)
{
    if (!client->tx || !client->tx->moved)
        return false;
    *error = moved;
    return true;
}

/* A COPY that waits for its client's rows hears of no cancel. */
static bool is_stubborn(const struct client *client, int64_t now)
{
    return client->request.moved && now - client->waiting_since > FORCE_GRACE_US;
}

static void end(struct client *client, void *arg)
{
    int64_t now = worker_now(client->worker);
    (void)arg;
    if (client->state == CLIENT_IDLE) {
        session_roll_back(client);
        client->tx->moved = true;
    } else if (is_stubborn(client, now)) {
        client_kill(client, moved.sqlstate, moved.message, "Connect again.");
    } else if (!client->request.moved) {
        client->request.moved = true;
        client_cancel_moved(client);
        client->waiting_since = now;
    }
}

void bucket_hold_force(struct worker *worker, const char *database)
{
    each_busy(worker, database, end, NULL);
}
