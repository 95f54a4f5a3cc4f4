/* report_json.c: a report as JSON for /api/status, and in a few words for /readyz. */
#include "proxy/report.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "pgshunt/buffer.h"

/* Texts from the configuration need not be UTF-8, which is all that JSON can hold. */
static json_t *text(const char *value)
{
    struct arena arena;
    arena_init(&arena);
    json_t *result = json_string(report_text(&arena, value));
    arena_free(&arena);
    return result;
}

static json_t *integer_unless_negative(int64_t value)
{
    return value < 0 ? json_null() : json_integer(value);
}

/* ---- databases ---- */

static json_t *lag_ms(const struct node *node)
{
    int64_t lag_us = atomic_load(&node->lag_us);
    return lag_us < 0 ? json_null() : json_real((double)lag_us / 1000.0);
}

static json_t *node_json(const struct report *report, const struct node *node)
{
    json_t *object = json_object();
    int64_t checked_at = atomic_load(&node->checked_at), age = report->now - checked_at;
    uint64_t wal = atomic_load(&node->wal_position);
    char position[32];
    snprintf(position, sizeof position, "%" PRIX64 "/%" PRIX64, wal >> 32, wal & UINT32_MAX);
    json_object_set_new(object, "id", json_integer(node->id));
    json_object_set_new(object, "host", text(node->host));
    json_object_set_new(object, "port", json_integer(node->port));
    json_object_set_new(object, "region", text(node->region));
    json_object_set_new(object, "weight", json_integer(atomic_load(&node->weight)));
    json_object_set_new(object, "role",
                        text(node_role_name((enum node_role)atomic_load(&node->role))));
    json_object_set_new(object, "state",
                        text(node_state_name((enum node_state)atomic_load(&node->state))));
    json_object_set_new(object, "fenced", json_boolean(atomic_load(&node->fenced)));
    json_object_set_new(object, "lag_ms", lag_ms(node));
    json_object_set_new(object, "lag_bytes",
                        integer_unless_negative(atomic_load(&node->lag_bytes)));
    json_object_set_new(object, "wal_position", wal ? json_string(position) : json_null());
    json_object_set_new(object, "timeline", json_integer(atomic_load(&node->timeline)));
    json_object_set_new(object, "checked_ms_ago",
                        integer_unless_negative(!checked_at ? -1
                                                : age > 0   ? age / 1000
                                                            : 0));
    json_object_set_new(object, "checks_failed", json_integer(atomic_load(&node->checks_failed)));
    json_object_set_new(object, "connect_failures",
                        json_integer(atomic_load(&node->connect_failures)));
    json_object_set_new(object, "breaker",
                        text(breaker_state_name((enum breaker_state)atomic_load(&node->breaker))));
    json_object_set_new(object, "breaker_failures",
                        json_integer(atomic_load(&node->breaker_failures)));
    json_object_set_new(object, "read_only", json_boolean(atomic_load(&node->read_only)));
    return object;
}

static json_t *primary_json(const struct shard *shard)
{
    const struct node *primary = shard_primary(shard);
    return primary ? json_integer(primary->id) : json_null();
}

static json_t *shard_json(const struct report *report, const struct shard *shard)
{
    json_t *object = json_object(), *nodes = json_array();
    json_object_set_new(object, "name", text(shard->name));
    json_object_set_new(object, "dbname", text(shard->dbname));
    json_object_set_new(object, "primary", primary_json(shard));
    for (int i = 0; i < shard->nnodes; i++)
        json_array_append_new(nodes, node_json(report, shard->nodes[i]));
    json_object_set_new(object, "nodes", nodes);
    return object;
}

static json_t *keyspace_json(const struct database *database, const struct keyspace *keyspace)
{
    json_t *object = json_object(), *buckets = json_object();
    json_object_set_new(object, "name", text(keyspace->name));
    json_object_set_new(object, "hash",
                        json_string(keyspace->hash == HASH_POSTGRES ? "postgres" : "xxh64"));
    static const char *const maps[] = {"hash", "list", "range"};
    json_object_set_new(object, "map", json_string(maps[keyspace->map]));
    for (int i = 0; i < database->nshards; i++) {
        struct arena arena;
        arena_init(&arena);
        json_object_set_new(buckets, report_text(&arena, database->shards[i].name),
                            json_integer(shardmap_buckets_of(keyspace, (unsigned)i)));
        arena_free(&arena);
    }
    json_object_set_new(object, "buckets", buckets);
    return object;
}

static json_t *database_json(const struct report *report, const struct database *database)
{
    json_t *object = json_object(), *shards = json_array(), *keyspaces = json_array();
    json_object_set_new(object, "name", text(database->name));
    for (int i = 0; i < database->nshards; i++)
        json_array_append_new(shards, shard_json(report, &database->shards[i]));
    for (unsigned i = 0; i < shardmap_keyspaces(database->map); i++)
        json_array_append_new(keyspaces,
                              keyspace_json(database, shardmap_keyspace(database->map, i)));
    json_object_set_new(object, "shards", shards);
    json_object_set_new(object, "keyspaces", keyspaces);
    return object;
}

/* ---- pools, counters ---- */

static json_t *pool_json(const struct report *report, const struct report_pool *pool)
{
    json_t *object = json_object();
    const struct shard *shard = report_shard_of(report, pool->database, pool->node);
    json_object_set_new(object, "shard", shard ? text(shard->name) : json_null());
    json_object_set_new(object, "node", json_integer(pool->node->id));
    json_object_set_new(object, "size", json_integer(pool->limit));
    json_object_set_new(object, "active", json_integer(pool->active));
    json_object_set_new(object, "idle", json_integer(pool->idle));
    json_object_set_new(object, "login", json_integer(pool->login));
    json_object_set_new(object, "waiting", json_integer(pool->waiting));
    json_object_set_new(object, "longest_wait_ms", json_integer(pool->longest_wait_us / 1000));
    return object;
}

static json_t *account_json(const struct report *report, const struct report_account *account)
{
    json_t *object = json_object(), *nodes = json_array();
    json_object_set_new(object, "database", text(account->database));
    json_object_set_new(object, "user", text(account->user));
    json_object_set_new(object, "clients_active", json_integer(account->active));
    json_object_set_new(object, "clients_idle", json_integer(account->idle));
    json_object_set_new(object, "clients_waiting", json_integer(account->waiting));
    for (const struct report_pool *pool = account->pools; pool; pool = pool->next)
        json_array_append_new(nodes, pool_json(report, pool));
    json_object_set_new(object, "nodes", nodes);
    return object;
}

static json_t *stats_json(const struct report_stats *row)
{
    json_t *object = json_object();
    const struct {
        const char *name;
        uint64_t value;
    } fields[] = {
        {"queries", row->counts.queries},
        {"transactions", row->counts.transactions},
        {"bytes_received", row->counts.bytes_in},
        {"bytes_sent", row->counts.bytes_out},
        {"query_us", row->counts.query_us},
        {"transaction_us", row->counts.xact_us},
        {"wait_us", row->counts.wait_us},
        {"direct", row->counts.direct},
        {"scatter", row->counts.scatter},
        {"gather", row->counts.gather},
        {"refused", row->counts.refused},
        {"reads_on_replica", row->counts.reads_on_replica},
        {"reads_on_primary", row->counts.reads_on_primary},
        {"retries", row->counts.retries},
        {"misrouted", row->counts.misrouted},
        {"pipelined", row->counts.pipelined},
        {"keyless", row->counts.keyless},
        {"held", row->counts.held},
        {"stale", row->counts.stale},
        {"server_errors", row->counts.errors},
        {"logins", row->counts.logins},
    };
    json_object_set_new(object, "database", text(row->database));
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++)
        json_object_set_new(object, fields[i].name, json_integer((json_int_t)fields[i].value));
    return object;
}

static json_t *worker_json(const struct report_worker *worker)
{
    json_t *object = json_object();
    json_object_set_new(object, "worker", json_integer(worker->index + 1));
    json_object_set_new(object, "clients", json_integer(worker->clients));
    json_object_set_new(object, "servers", json_integer(worker->servers));
    return object;
}

char *report_json(const struct report *report)
{
    json_t *root = json_object(), *databases = json_array(), *pools = json_array();
    json_t *stats = json_array(), *workers = json_array();
    int64_t uptime_us = report->now - report->started_at;
    json_object_set_new(root, "version", json_string(PGSHUNT_VERSION));
    json_object_set_new(root, "uptime_seconds", json_integer(uptime_us / 1000000));
    json_object_set_new(root, "draining", json_boolean(report->draining));
    json_object_set_new(root, "paused", json_boolean(report->paused));
    json_object_set_new(root, "suspended", json_boolean(report->suspended));
    json_object_set_new(root, "last_reload_successful", json_boolean(report->reload_ok));
    json_object_set_new(root, "clients", json_integer(report_logged_in(report)));
    json_object_set_new(root, "clients_logging_in", json_integer(report->logging_in));
    json_object_set_new(root, "max_clients", json_integer(report->topology->config->max_clients));
    json_object_set_new(root, "servers", json_integer(report_server_count(report)));
    for (int i = 0; i < report->topology->ndatabases; i++)
        json_array_append_new(databases, database_json(report, &report->topology->databases[i]));
    for (const struct report_account *row = report->accounts; row; row = row->hh.next)
        json_array_append_new(pools, account_json(report, row));
    for (const struct report_stats *row = report->stats; row; row = row->hh.next)
        json_array_append_new(stats, stats_json(row));
    for (int i = 0; i < report->nworkers; i++)
        json_array_append_new(workers, worker_json(&report->workers[i]));
    json_object_set_new(root, "databases", databases);
    json_object_set_new(root, "pools", pools);
    json_object_set_new(root, "stats", stats);
    json_object_set_new(root, "workers", workers);
    char *json = json_dumps(root, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
    json_decref(root);
    return json;
}

/* ---- readiness ---- */

/* One that owns nothing yet is not needed: a replica is there that is to become its primary, or nothing at all. */
static bool is_needed(const struct database *database, int shard)
{
    bool sharded = shardmap_keyspaces(database->map) > 0;
    for (unsigned k = 0; k < shardmap_keyspaces(database->map); k++)
        if (shardmap_owns(shardmap_keyspace(database->map, k), (unsigned)shard))
            return true;
    return shard == 0 || !sharded || database->config->nschemas ||
           strcmp(database->shards[shard].name, database->config->catalog) == 0;
}

bool report_ready(const struct report *report, struct buffer *out)
{
    bool ready = !report->draining && !report->suspended;
    if (report->draining)
        buffer_printf(out, "pgshunt is shutting down\n");
    if (report->suspended)
        buffer_printf(out, "pgshunt is suspended\n");
    for (int i = 0; i < report->topology->ndatabases; i++) {
        const struct database *database = &report->topology->databases[i];
        ready &= !report->closed[i];
        if (report->closed[i])
            buffer_printf(out, "database %s is %s\n", database->name,
                          report->closed[i] & CLOSED_PAUSED ? "paused" : "disabled");
        for (int j = 0; j < database->nshards; j++) {
            if (shard_primary(&database->shards[j]) || !is_needed(database, j))
                continue;
            buffer_printf(out, "database %s: shard %s has no primary\n", database->name,
                          database->shards[j].name);
            ready = false;
        }
    }
    return ready;
}
