/* console_state.c: SHOW NODES and SHARDS, and of the process CONFIG, STATE, MEM, VERSION and HELP. */
#include "proxy/console_show.h"

#include <inttypes.h>
#include <malloc.h>
#include <stdio.h>
#include <string.h>

#include "pgshunt/config.h"
#include "proxy/client.h"
#include "proxy/console_command.h"
#include "proxy/hold.h"
#include "proxy/pool.h"
#include "proxy/prepared.h"
#include "proxy/server.h"

/* ---- SHOW NODES ---- */

struct node_sum {
    int active, idle, login, waiting;
};

/* What the clients of one database have on a node. */
static struct node_sum sum_node(const struct report *report, const char *database,
                                const struct node *node)
{
    struct node_sum sum = {0};
    for (const struct report_pool *pool = report->pools; pool; pool = pool->hh.next) {
        if (pool->node != node || strcmp(pool->database, database) != 0)
            continue;
        sum.active += pool->active;
        sum.idle += pool->idle;
        sum.login += pool->login;
        sum.waiting += pool->waiting;
    }
    return sum;
}

static void put_unless_negative(struct console_table *table, int64_t value)
{
    if (value < 0)
        console_null(table);
    else
        console_integer(table, value);
}

static void put_wal_position(struct console_table *table, uint64_t position)
{
    char text[32];
    snprintf(text, sizeof text, "%X/%X", (unsigned)(position >> 32), (unsigned)position);
    console_text(table, position ? text : NULL);
}

static void put_lag(struct console_table *table, const struct node *node)
{
    int64_t lag_us = atomic_load(&node->lag_us);
    put_unless_negative(table, lag_us < 0 ? -1 : (lag_us + 500) / 1000);
    put_unless_negative(table, atomic_load(&node->lag_bytes));
    put_wal_position(table, atomic_load(&node->wal_position));
}

/* What is left of its hold. */
static void put_held(struct console_table *table, struct node *node)
{
    int64_t until = hold_until(node);
    console_integer(table, until ? (until - clock_us() + 999) / 1000 : 0);
}

static void put_node(struct console_table *table, const struct report *report,
                     const struct database *database, const struct shard *shard, struct node *node)
{
    struct node_sum sum = sum_node(report, database->name, node);
    int64_t checked_at = atomic_load(&node->checked_at), age = report->now - checked_at;
    console_text(table, database->name);
    console_text(table, shard->name);
    console_integer(table, node->id);
    console_text(table, node->host);
    console_integer(table, node->port);
    console_text(table, node->region);
    console_integer(table, atomic_load(&node->weight));
    console_text(table, node_role_name((enum node_role)atomic_load(&node->role)));
    console_text(table, node_state_name((enum node_state)atomic_load(&node->state)));
    console_bool(table, shard_primary(shard) == node);
    put_lag(table, node);
    put_unless_negative(table, atomic_load(&node->timeline) ? atomic_load(&node->timeline) : -1);
    console_bool(table, atomic_load(&node->fenced));
    put_unless_negative(table, !checked_at ? -1 : age > 0 ? age / 1000 : 0);
    console_integer(table, atomic_load(&node->checks_failed));
    console_integer(table, atomic_load(&node->connect_failures));
    console_text(table, breaker_state_name((enum breaker_state)atomic_load(&node->breaker)));
    console_integer(table, atomic_load(&node->breaker_failures));
    console_bool(table, atomic_load(&node->read_only));
    console_integer(table, sum.active);
    console_integer(table, sum.idle);
    console_integer(table, sum.login);
    console_integer(table, sum.waiting);
    put_held(table, node);
}

void console_show_nodes(struct console_table *table, const struct report *report)
{
    for (int i = 0; i < report->topology->ndatabases; i++) {
        const struct database *database = &report->topology->databases[i];
        for (int j = 0; j < database->nshards; j++)
            for (int k = 0; k < database->shards[j].nnodes; k++)
                put_node(table, report, database, &database->shards[j],
                         database->shards[j].nodes[k]);
    }
}

/* ---- SHOW SHARDS ---- */

/* "users=8192": buckets by keyspace; one by list or range has values or intervals: "regions=list(3)". */
static unsigned list_keyspaces(const struct database *database, int shard, struct buffer *text)
{
    unsigned sum = 0;
    for (unsigned i = 0; i < shardmap_keyspaces(database->map); i++) {
        const struct keyspace *keyspace = shardmap_keyspace(database->map, i);
        buffer_printf(text, "%s%s=", i ? "," : "", keyspace->name);
        if (keyspace->map != MAP_HASH) {
            buffer_printf(text, "%s(%u)", keyspace->map == MAP_LIST ? "list" : "range",
                          shardmap_entries_of(keyspace, (unsigned)shard));
            continue;
        }
        unsigned buckets = shardmap_buckets_of(keyspace, (unsigned)shard);
        buffer_printf(text, "%u", buckets);
        sum += buckets;
    }
    buffer_append(text, "", 1);
    return sum;
}

static bool is_fresh(const struct node *node, int64_t max_lag_ms)
{
    int64_t lag = atomic_load(&node->held_lag_us);
    return atomic_load(&node->role) == NODE_ROLE_REPLICA &&
           atomic_load(&node->state) == NODE_STATE_UP && lag >= 0 && lag <= max_lag_ms * 1000;
}

static void put_primary(struct console_table *table, const struct shard *shard)
{
    const struct node *primary = shard_primary(shard);
    struct buffer text = {0};
    if (primary)
        buffer_printf(&text, "%s:%d", primary->host, primary->port);
    buffer_append(&text, "", 1);
    console_text(table, primary ? buffer_head(&text) : NULL);
    buffer_release(&text);
}

static void put_shard(struct console_table *table, const struct report *report,
                      const struct database *database, const struct shard *shard)
{
    int up = 0, fresh = 0, active = 0, idle = 0;
    for (int i = 0; i < shard->nnodes; i++) {
        struct node_sum sum = sum_node(report, database->name, shard->nodes[i]);
        up += atomic_load(&shard->nodes[i]->state) == NODE_STATE_UP;
        fresh += is_fresh(shard->nodes[i], report->topology->config->pool.max_lag);
        active += sum.active;
        idle += sum.idle;
    }
    struct buffer keyspaces = {0};
    unsigned buckets = list_keyspaces(database, shard->index, &keyspaces);
    console_text(table, database->name);
    console_text(table, shard->name);
    console_integer(table, shard->index);
    console_text(table, shard->dbname);
    put_primary(table, shard);
    console_integer(table, shard->nnodes);
    console_integer(table, up);
    console_integer(table, fresh);
    console_integer(table, database->config->shards[shard->index].weight);
    console_integer(table, buckets);
    console_text(table, buffer_head(&keyspaces));
    console_integer(table, active);
    console_integer(table, idle);
    buffer_release(&keyspaces);
}

void console_show_shards(struct console_table *table, const struct report *report)
{
    for (int i = 0; i < report->topology->ndatabases; i++)
        for (int j = 0; j < report->topology->databases[i].nshards; j++)
            put_shard(table, report, &report->topology->databases[i],
                      &report->topology->databases[i].shards[j]);
}

/* ---- the process ---- */

static void put_setting(struct console_table *table, const char *key, const char *value,
                        const char *initial, bool changeable)
{
    console_text(table, key);
    console_text(table, value);
    console_text(table, initial);
    console_text(table, changeable ? "yes" : "no");
}

void console_show_config(struct console_table *table, const struct report *report)
{
    const struct config *config = report->topology->config;
    char value[4096];
    for (int i = 0; i < settings_count(); i++) {
        const struct setting_info *info = settings_info(i);
        settings_value(config, i, value, sizeof value);
        put_setting(table, info->name, value, info->initial, info->reloadable);
    }
    /* PgBouncer's names for what its exporters read. */
    snprintf(value, sizeof value, "%d", config->max_clients);
    put_setting(table, "max_client_conn", value, "1000", true);
    snprintf(value, sizeof value, "%d", (int)config->max_user_connections);
    put_setting(table, "max_user_connections", value, "0", true);
}

void console_show_state(struct console_table *table, const struct report *report)
{
    bool at_work = !report->draining && !report->paused && !report->suspended;
    const char *const rows[][2] = {
        {"active", at_work ? "yes" : "no"},
        {"paused", report->paused ? "yes" : "no"},
        {"suspended", report->suspended ? "yes" : "no"},
        {"draining", report->draining ? "yes" : "no"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        console_text(table, rows[i][0]);
        console_text(table, rows[i][1]);
    }
}

static void put_memory(struct console_table *table, const char *name, size_t size, int64_t used)
{
    console_text(table, name);
    console_integer(table, (int64_t)size);
    console_integer(table, used);
    console_integer(table, 0);
    console_integer(table, (int64_t)size * used);
}

void console_show_mem(struct console_table *table, const struct report *report)
{
    int64_t clients = 0, servers = 0, prepared = 0;
    for (int i = 0; i < report->nworkers; i++) {
        clients += report->workers[i].clients;
        servers += report->workers[i].servers;
        prepared += report->workers[i].prepared;
    }
    put_memory(table, "client", sizeof(struct client), clients);
    put_memory(table, "server", sizeof(struct server), servers);
    put_memory(table, "prepared_statement", sizeof(struct prepared), prepared);
    put_memory(table, "io_buffer", IO_BUFFER_SIZE, report->nworkers);
    struct mallinfo2 heap = mallinfo2();
    console_text(table, "heap");
    console_integer(table, 1);
    console_integer(table, (int64_t)(heap.uordblks + heap.hblkhd));
    console_integer(table, (int64_t)heap.fordblks);
    console_integer(table, (int64_t)(heap.arena + heap.hblkhd));
}

void console_show_version(struct console_table *table, const struct report *report)
{
    (void)report;
    console_text(table, CONSOLE_VERSION);
}

void console_show_help(struct console_table *table, const struct report *report)
{
    int count;
    const struct console_command *commands = console_commands(&count);
    (void)report;
    for (int i = 0; i < count; i++) {
        if (!commands[i].help)
            continue;
        console_text(table, commands[i].words);
        console_text(table, commands[i].help);
    }
    console_text(table, "SHOW name");
    console_text(table, "one setting, by its name in SHOW CONFIG");
}
