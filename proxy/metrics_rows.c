/* metrics_rows.c: metrics of clients, pools, nodes and shards. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proxy/metrics.h"

#define OTHERS "(others)"
#define NODE_LABEL_MAX 300

static void node_label(const struct node *node, char *out, size_t size)
{
    const char *open = strchr(node->host, ':') ? "[" : "", *close = *open ? "]" : "";
    snprintf(out, size, "%s%s%s:%d", open, node->host, close, node->port);
}

/* ---- clients ---- */

enum client_metric { CLIENTS_ACTIVE, CLIENTS_IDLE, CLIENTS_WAITING, CLIENT_METRICS };

static const char *const client_states[] = {"active", "idle", "waiting"};

struct client_counts {
    int values[CLIENT_METRICS];
};

static void put_clients(struct buffer *out, const char *database, const char *user,
                        const struct client_counts *counts)
{
    for (int i = 0; i < CLIENT_METRICS; i++) {
        struct metric_label labels[] = {
            {"database", database}, {"user", user}, {"state", client_states[i]}};
        metrics_sample(out, "clients", labels, 3, counts->values[i]);
    }
}

/* Rows are sorted by database: the others of one follow each other. */
void metrics_write_accounts(const struct report *report, struct buffer *out)
{
    struct client_counts others = {{0}};
    const char *others_of = NULL;
    int written = 0;
    metrics_family(out, "clients", "gauge", "Clients that are logged in, by state.");
    for (const struct report_account *row = report->accounts; row; row = row->hh.next) {
        struct client_counts counts = {{row->active, row->idle, row->waiting}};
        if (strcmp(row->user, OTHERS) != 0 && written++ < METRICS_ACCOUNTS_MAX) {
            put_clients(out, row->database, row->user, &counts);
            continue;
        }
        if (others_of && strcmp(others_of, row->database) != 0) {
            put_clients(out, others_of, OTHERS, &others);
            others = (struct client_counts){{0}};
        }
        others_of = row->database;
        for (int i = 0; i < CLIENT_METRICS; i++)
            others.values[i] += counts.values[i];
    }
    if (others_of)
        put_clients(out, others_of, OTHERS, &others);
}

/* ---- pools ---- */

static double pool_limit(const struct report_pool *pool)
{
    return pool->limit;
}

static double pool_waiting(const struct report_pool *pool)
{
    return pool->waiting;
}

static double pool_longest_wait(const struct report_pool *pool)
{
    return (double)pool->longest_wait_us / 1e6;
}

static double pool_active(const struct report_pool *pool)
{
    return pool->active;
}

static double pool_idle(const struct report_pool *pool)
{
    return pool->idle;
}

static double pool_login(const struct report_pool *pool)
{
    return pool->login;
}

static double pool_cancels(const struct report_pool *pool)
{
    return pool->cancels;
}

static double pool_tested(const struct report_pool *pool)
{
    return pool->tended;
}

static double pool_least(const struct report_pool *pool)
{
    return pool->least;
}

static double pool_prepared(const struct report_pool *pool)
{
    return pool->prepared;
}

static double pool_reserve(const struct report_pool *pool)
{
    return pool->reserve;
}

static double pool_wait_timeouts(const struct report_pool *pool)
{
    return (double)pool->wait_timeouts;
}

static double pool_deadlocks(const struct report_pool *pool)
{
    return (double)pool->deadlocks;
}

static double pool_evictions(const struct report_pool *pool)
{
    return (double)pool->evictions;
}

static double pool_reserves(const struct report_pool *pool)
{
    return (double)pool->reserves;
}

static double pool_moves(const struct report_pool *pool)
{
    return (double)pool->moves;
}

/* Rows of one family follow each other; the first has the help. */
static const struct {
    const char *name, *type, *help;
    double (*value)(const struct report_pool *pool);
    const char *label, *is; /* one more label, or NULL */
} pool_metrics[] = {
    {"pool_size", "gauge",
     "Most server connections of a pool (database, user, node), all workers together.", pool_limit,
     NULL, NULL},
    {"pool_min_size", "gauge", "Server connections of a pool that are kept open.", pool_least, NULL,
     NULL},
    {"pool_reserve_size", "gauge",
     "Server connections of a pool beyond its size, for clients that have waited long.",
     pool_reserve, NULL, NULL},
    {"server_connections", "gauge", "Server connections of a pool, by state.", pool_active, "state",
     "active"},
    {"server_connections", NULL, NULL, pool_idle, "state", "idle"},
    {"server_connections", NULL, NULL, pool_login, "state", "login"},
    {"server_connections", NULL, NULL, pool_tested, "state", "tested"},
    {"server_prepared_statements", "gauge",
     "Prepared statements on the server connections of a pool.", pool_prepared, NULL, NULL},
    {"pool_waiting_clients", "gauge", "Clients that wait for a connection of the pool.",
     pool_waiting, NULL, NULL},
    {"pool_longest_wait_seconds", "gauge",
     "How long the client that waits longest has been waiting.", pool_longest_wait, NULL, NULL},
    {"pool_refused_total", "counter", "Clients that waited for a connection of the pool in vain.",
     pool_wait_timeouts, "reason", "query_wait_timeout"},
    {"pool_refused_total", NULL, NULL, pool_deadlocks, "reason", "deadlock"},
    {"pool_reserve_used_total", "counter", "Server connections started from the reserve.",
     pool_reserves, NULL, NULL},
    {"pool_evictions_total", "counter",
     "Server connections of the pool closed to make room for another pool.", pool_evictions, NULL,
     NULL},
    {"pool_moves_total", "counter", "Server connections that went to another worker thread.",
     pool_moves, NULL, NULL},
    {"pool_cancel_requests", "gauge", "Cancel requests under way to servers of the pool.",
     pool_cancels, NULL, NULL},
};

#define POOL_METRICS (sizeof pool_metrics / sizeof pool_metrics[0])

static void put_pool(struct buffer *out, const struct report *report,
                     const struct report_pool *pool, size_t metric)
{
    char node[NODE_LABEL_MAX];
    const struct shard *shard = report_shard_of(report, pool->database, pool->node);
    node_label(pool->node, node, sizeof node);
    struct metric_label labels[] = {{"database", pool->database},
                                    {"user", pool->user},
                                    {"shard", shard ? shard->name : ""},
                                    {"node", node},
                                    {pool_metrics[metric].label, pool_metrics[metric].is}};
    metrics_sample(out, pool_metrics[metric].name, labels, pool_metrics[metric].label ? 5 : 4,
                   pool_metrics[metric].value(pool));
}

/* A node that a reload replaced by its like lives on while it has connections; its samples would be
 * the new one's a second time. */
static bool is_served(const struct report *report, const struct report_pool *pool)
{
    return report_shard_of(report, pool->database, pool->node) != NULL;
}

void metrics_write_pools(const struct report *report, struct buffer *out)
{
    for (size_t i = 0; i < POOL_METRICS; i++) {
        if (pool_metrics[i].help)
            metrics_family(out, pool_metrics[i].name, pool_metrics[i].type, pool_metrics[i].help);
        int written = 0;
        for (const struct report_account *row = report->accounts; row; row = row->hh.next) {
            if (written++ == METRICS_ACCOUNTS_MAX)
                break;
            for (const struct report_pool *pool = row->pools; pool; pool = pool->next)
                if (is_served(report, pool))
                    put_pool(out, report, pool, i);
        }
    }
}

/* ---- nodes ---- */

struct node_at {
    const struct report *report;
    const struct database *database;
    const struct shard *shard;
    const struct node *node;
};

/* False: nothing is known; there is no sample. */
typedef bool node_value(const struct node_at *at, double *value);

static bool node_up(const struct node_at *at, double *value)
{
    *value = atomic_load(&at->node->state) == NODE_STATE_UP;
    return true;
}

static bool node_lag(const struct node_at *at, double *value)
{
    *value = (double)atomic_load(&at->node->lag_us) / 1e6;
    return *value >= 0;
}

static bool node_lag_bytes(const struct node_at *at, double *value)
{
    *value = (double)atomic_load(&at->node->lag_bytes);
    return *value >= 0;
}

static bool node_wal(const struct node_at *at, double *value)
{
    *value = (double)atomic_load(&at->node->wal_position);
    return *value > 0;
}

static bool node_timeline(const struct node_at *at, double *value)
{
    *value = atomic_load(&at->node->timeline);
    return *value > 0;
}

static bool node_fenced(const struct node_at *at, double *value)
{
    *value = atomic_load(&at->node->fenced);
    return true;
}

static bool node_age(const struct node_at *at, double *value)
{
    int64_t checked_at = atomic_load(&at->node->checked_at);
    int64_t age = at->report->now - checked_at;
    *value = age > 0 ? (double)age / 1e6 : 0;
    return checked_at != 0;
}

static bool node_checks_failed(const struct node_at *at, double *value)
{
    *value = (double)atomic_load(&at->node->checks_failed);
    return true;
}

static bool node_connect_failures(const struct node_at *at, double *value)
{
    *value = (double)atomic_load(&at->node->connect_failures);
    return true;
}

static bool is_role(const struct node_at *at, enum node_role role, double *value)
{
    *value = atomic_load(&at->node->role) == (int)role;
    return true;
}

static bool is_primary(const struct node_at *at, double *value)
{
    return is_role(at, NODE_ROLE_PRIMARY, value);
}

static bool is_replica(const struct node_at *at, double *value)
{
    return is_role(at, NODE_ROLE_REPLICA, value);
}

static bool is_unknown(const struct node_at *at, double *value)
{
    return is_role(at, NODE_ROLE_UNKNOWN, value);
}

static bool node_breaker(const struct node_at *at, double *value)
{
    enum breaker_state state = (enum breaker_state)atomic_load(&at->node->breaker);
    *value = state == BREAKER_OPEN ? 1 : state == BREAKER_HALF_OPEN ? 0.5 : 0;
    return true;
}

static bool node_breaker_opened(const struct node_at *at, double *value)
{
    *value = (double)atomic_load(&at->node->breaker_opened);
    return true;
}

static bool node_read_only(const struct node_at *at, double *value)
{
    *value = atomic_load(&at->node->read_only);
    return true;
}

static const struct {
    const char *name, *type, *help;
    node_value *value;
    const char *role; /* label, or NULL */
} node_metrics[] = {
    {"node_up", "gauge", "1 if the node is in use: it answers checks and its breaker is not open.",
     node_up, NULL},
    {"node_role", "gauge", "1 for the role the node said it has, 0 for the others.", is_primary,
     "primary"},
    {"node_role", NULL, NULL, is_replica, "replica"},
    {"node_role", NULL, NULL, is_unknown, "unknown"},
    {"node_lag_seconds", "gauge",
     "How long ago its primary was where the node is; 0 on a primary. None while unknown.",
     node_lag, NULL},
    {"node_lag_bytes", "gauge", "WAL the node has yet to replay. None while unknown.",
     node_lag_bytes, NULL},
    {"node_wal_position_bytes", "gauge",
     "WAL position: written by a primary, replayed by a replica.", node_wal, NULL},
    {"node_timeline", "gauge", "Highest timeline seen on the node.", node_timeline, NULL},
    {"node_fenced", "gauge", "1 if the node can be written but is not: another one outranks it.",
     node_fenced, NULL},
    {"node_last_check_age_seconds", "gauge", "Time since the node last answered a check.", node_age,
     NULL},
    {"node_check_failures_total", "counter", "Checks the node did not answer.", node_checks_failed,
     NULL},
    {"node_connect_failures_total", "counter", "Connections to the node that failed or broke.",
     node_connect_failures, NULL},
    {"node_breaker", "gauge", "The node's circuit breaker: 0 closed, 0.5 half-open, 1 open.",
     node_breaker, NULL},
    {"node_breaker_opened_total", "counter", "Times the node's circuit breaker has opened.",
     node_breaker_opened, NULL},
    {"node_read_only", "gauge",
     "1 if the node is a primary whose sessions are read-only by default.", node_read_only, NULL},
};

static void put_node(struct buffer *out, const struct node_at *at, size_t metric)
{
    double value;
    char node[NODE_LABEL_MAX];
    if (!node_metrics[metric].value(at, &value))
        return;
    node_label(at->node, node, sizeof node);
    struct metric_label labels[] = {{"database", at->database->name},
                                    {"shard", at->shard->name},
                                    {"node", node},
                                    {"region", at->node->region},
                                    {"role", node_metrics[metric].role}};
    metrics_sample(out, node_metrics[metric].name, labels, node_metrics[metric].role ? 5 : 4,
                   value);
}

static void put_node_metric(struct buffer *out, const struct report *report, size_t metric)
{
    for (int i = 0; i < report->topology->ndatabases; i++) {
        const struct database *database = &report->topology->databases[i];
        for (int j = 0; j < database->nshards; j++) {
            const struct shard *shard = &database->shards[j];
            for (int k = 0; k < shard->nnodes; k++) {
                struct node_at at = {report, database, shard, shard->nodes[k]};
                put_node(out, &at, metric);
            }
        }
    }
}

static void put_shards(struct buffer *out, const struct report *report)
{
    metrics_family(out, "shard_has_primary", "gauge", "1 if the shard can be written.");
    for (int i = 0; i < report->topology->ndatabases; i++) {
        const struct database *database = &report->topology->databases[i];
        for (int j = 0; j < database->nshards; j++) {
            struct metric_label labels[] = {{"database", database->name},
                                            {"shard", database->shards[j].name}};
            metrics_sample(out, "shard_has_primary", labels, 2,
                           shard_primary(&database->shards[j]) != NULL);
        }
    }
}

static void put_keyspace(struct buffer *out, const struct database *database, unsigned index)
{
    const struct keyspace *keyspace = shardmap_keyspace(database->map, index);
    for (int j = 0; j < database->nshards; j++) {
        struct metric_label labels[] = {{"database", database->name},
                                        {"keyspace", keyspace->name},
                                        {"shard", database->shards[j].name}};
        metrics_sample(out, "shard_buckets", labels, 3, shardmap_buckets_of(keyspace, (unsigned)j));
    }
}

static void put_buckets(struct buffer *out, const struct report *report)
{
    metrics_family(out, "shard_buckets", "gauge", "Buckets of a keyspace that the shard owns.");
    for (int i = 0; i < report->topology->ndatabases; i++) {
        const struct database *database = &report->topology->databases[i];
        for (unsigned k = 0; k < shardmap_keyspaces(database->map); k++)
            put_keyspace(out, database, k);
    }
}

void metrics_write_nodes(const struct report *report, struct buffer *out)
{
    for (size_t i = 0; i < sizeof node_metrics / sizeof node_metrics[0]; i++) {
        if (node_metrics[i].help)
            metrics_family(out, node_metrics[i].name, node_metrics[i].type, node_metrics[i].help);
        put_node_metric(out, report, i);
    }
    put_shards(out, report);
    put_buckets(out, report);
}
