/* topology.c: builds databases, shards and nodes from a configuration, keeping what a reload keeps. */
#include "proxy/topology.h"

#include <arpa/inet.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <time.h>

#include "pgshunt/arena.h"
#include "pgshunt/unixpath.h"
#include "proxy/freshness.h"

/* The current schema of one database name; outlives topologies, as nodes do. */
struct schema_slot {
    atomic_int references;
    pthread_mutex_t lock;       /* guards `current` against being freed while it is referenced */
    struct schema_ref *current; /* the slot holds a reference; NULL: none yet */
    _Atomic uint64_t version;   /* of `current`, readable without the lock */
    _Atomic int64_t read_at, changed_at;
};

static atomic_int next_node_id = 1;
/* One counter for all slots: a version names one snapshot, so caches need not know its database. */
static _Atomic uint64_t next_schema_version = 1;

int64_t clock_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

const char *node_role_name(enum node_role role)
{
    switch (role) {
    case NODE_ROLE_PRIMARY:
        return "primary";
    case NODE_ROLE_REPLICA:
        return "replica";
    case NODE_ROLE_UNKNOWN:
        break;
    }
    return "unknown";
}

const char *node_state_name(enum node_state state)
{
    switch (state) {
    case NODE_STATE_UP:
        return "up";
    case NODE_STATE_DOWN:
        return "down";
    case NODE_STATE_UNKNOWN:
        break;
    }
    return "unknown";
}

/* ---- nodes ---- */

void node_set_address(struct node *node, const struct sockaddr *address, socklen_t length)
{
    if (length > sizeof node->address)
        return;
    pthread_mutex_lock(&node->address_lock);
    memset(&node->address, 0, sizeof node->address);
    memcpy(&node->address, address, length);
    node->address_length = length;
    pthread_mutex_unlock(&node->address_lock);
    atomic_store(&node->resolved, true);
}

bool node_address(struct node *node, struct sockaddr_storage *address, socklen_t *length)
{
    if (!atomic_load(&node->resolved))
        return false;
    pthread_mutex_lock(&node->address_lock);
    *address = node->address;
    *length = node->address_length;
    pthread_mutex_unlock(&node->address_lock);
    return true;
}

/* Sockets and IP addresses need no name server. Names are left to the monitor. */
static void resolve_literal(struct node *node)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons((uint16_t)node->port)};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)node->port)};
    struct sockaddr_un local = {.sun_family = AF_UNIX};

    if (node->host[0] == '/') {
        if (unix_path(local.sun_path, node->host, node->port))
            node_set_address(
                node, (struct sockaddr *)&local,
                (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(local.sun_path) + 1));
    } else if (inet_pton(AF_INET, node->host, &v4.sin_addr) == 1) {
        node_set_address(node, (struct sockaddr *)&v4, sizeof v4);
    } else if (inet_pton(AF_INET6, node->host, &v6.sin6_addr) == 1) {
        node_set_address(node, (struct sockaddr *)&v6, sizeof v6);
    }
}

static struct node *node_new(const struct node_config *config, const char *dbname)
{
    struct node *node = mem_alloc(sizeof *node);
    atomic_init(&node->references, 1);
    node->id = atomic_fetch_add(&next_node_id, 1);
    node->host = mem_strdup(config->host);
    node->port = config->port;
    node->dbname = mem_strdup(dbname);
    node->region = mem_strdup(config->region ? config->region : "");
    atomic_init(&node->weight, config->weight);
    atomic_init(&node->lag_us, -1);
    atomic_init(&node->held_lag_us, -1);
    atomic_init(&node->lag_bytes, -1);
    pthread_mutex_init(&node->address_lock, NULL);
    resolve_literal(node);
    return node;
}

struct node *node_ref(struct node *node)
{
    atomic_fetch_add(&node->references, 1);
    return node;
}

void node_unref(struct node *node)
{
    if (!node || atomic_fetch_sub(&node->references, 1) != 1)
        return;
    pthread_mutex_destroy(&node->address_lock);
    free(node->host);
    free(node->dbname);
    free(node->region);
    free(node);
}

/*
 * A node whose region changed is a new node, because readers use the old text without a lock; it starts
 * with what is known of the old one so that the reload is no gap in service. A stint is not taken over: the
 * new one is watched over a connection of its own.
 */
static void copy_state(struct node *to, struct node *from)
{
    struct sockaddr_storage address;
    socklen_t length;
    atomic_store(&to->role, atomic_load(&from->role));
    atomic_store(&to->state, atomic_load(&from->state));
    atomic_store(&to->lag_us, atomic_load(&from->lag_us));
    atomic_store(&to->held_lag_us, atomic_load(&from->held_lag_us));
    atomic_store(&to->lag_bytes, atomic_load(&from->lag_bytes));
    atomic_store(&to->wal_position, atomic_load(&from->wal_position));
    atomic_store(&to->fresh_as_of, atomic_load(&from->fresh_as_of));
    atomic_store(&to->checked_at, atomic_load(&from->checked_at));
    atomic_store(&to->up_since, atomic_load(&from->up_since));
    atomic_store(&to->checks_failed, atomic_load(&from->checks_failed));
    atomic_store(&to->connect_failures, atomic_load(&from->connect_failures));
    atomic_store(&to->timeline, atomic_load(&from->timeline));
    atomic_store(&to->fenced, atomic_load(&from->fenced));
    atomic_store(&to->held_until, atomic_load(&from->held_until));
    atomic_store(&to->read_only, atomic_load(&from->read_only));
    atomic_store(&to->dead_since, atomic_load(&from->dead_since));
    atomic_store(&to->breaker_opened, atomic_load(&from->breaker_opened));
    if (node_address(from, &address, &length))
        node_set_address(to, (struct sockaddr *)&address, length);
}

static struct node *find_node(const struct topology *topology, const struct node_config *config,
                              const char *dbname)
{
    for (int d = 0; topology && d < topology->ndatabases; d++)
        for (int s = 0; s < topology->databases[d].nshards; s++) {
            const struct shard *shard = &topology->databases[d].shards[s];
            for (int n = 0; n < shard->nnodes; n++) {
                struct node *node = shard->nodes[n];
                /* Shards still being filled have empty places. */
                if (node && node->port == config->port && strcmp(node->host, config->host) == 0 &&
                    strcmp(node->dbname, dbname) == 0)
                    return node;
            }
        }
    return NULL;
}

/* A reference on the node for this place: one already in `topology`, one from `old`, or a new one. */
static struct node *take_node(const struct topology *topology, const struct topology *old,
                              const struct node_config *config, const char *dbname)
{
    struct node *node = find_node(topology, config, dbname);
    if (node)
        return node_ref(node);
    node = find_node(old, config, dbname);
    if (!node)
        return node_new(config, dbname);
    if (strcmp(node->region, config->region ? config->region : "") != 0) {
        struct node *moved = node_new(config, dbname);
        copy_state(moved, node);
        return moved;
    }
    atomic_store(&node->weight, config->weight);
    return node_ref(node);
}

/* ---- schemas ---- */

static struct schema_slot *slot_new(void)
{
    struct schema_slot *slot = mem_alloc(sizeof *slot);
    atomic_init(&slot->references, 1);
    pthread_mutex_init(&slot->lock, NULL);
    return slot;
}

static void slot_unref(struct schema_slot *slot)
{
    if (!slot || atomic_fetch_sub(&slot->references, 1) != 1)
        return;
    schema_unref(slot->current);
    pthread_mutex_destroy(&slot->lock);
    free(slot);
}

struct schema_ref *topology_schema(const struct database *database)
{
    struct schema_slot *slot = database->schema;
    pthread_mutex_lock(&slot->lock);
    struct schema_ref *ref = slot->current;
    if (ref)
        atomic_fetch_add(&ref->references, 1);
    pthread_mutex_unlock(&slot->lock);
    return ref;
}

uint64_t topology_schema_version(const struct database *database)
{
    return atomic_load(&database->schema->version);
}

int64_t topology_schema_read_at(const struct database *database)
{
    return atomic_load(&database->schema->read_at);
}

void topology_schema_was_read(const struct database *database, int64_t began_at)
{
    atomic_store(&database->schema->read_at, began_at);
}

int64_t topology_schema_changed_at(const struct database *database)
{
    return atomic_load(&database->schema->changed_at);
}

void topology_schema_changes(const struct database *database)
{
    atomic_store(&database->schema->changed_at, clock_us());
}

void topology_publish_schema(const struct database *database, struct schema *schema)
{
    struct schema_slot *slot = database->schema;
    struct schema_ref *ref = mem_alloc(sizeof *ref);
    atomic_init(&ref->references, 1);
    ref->schema = schema;

    pthread_mutex_lock(&slot->lock);
    struct schema_ref *previous = slot->current;
    ref->version = atomic_fetch_add(&next_schema_version, 1);
    slot->current = ref;
    atomic_store(&slot->version, ref->version);
    pthread_mutex_unlock(&slot->lock);
    schema_unref(previous);
}

void schema_unref(struct schema_ref *ref)
{
    if (!ref || atomic_fetch_sub(&ref->references, 1) != 1)
        return;
    schema_free(ref->schema);
    free(ref);
}

/* ---- maps ---- */

struct recorded_map *recorded_map_new(void)
{
    struct recorded_map *recorded = mem_alloc(sizeof *recorded);
    atomic_init(&recorded->references, 1);
    arena_init(&recorded->arena);
    return recorded;
}

struct recorded_map *recorded_map_ref(struct recorded_map *recorded)
{
    if (recorded)
        atomic_fetch_add(&recorded->references, 1);
    return recorded;
}

void recorded_map_unref(struct recorded_map *recorded)
{
    if (!recorded || atomic_fetch_sub(&recorded->references, 1) != 1)
        return;
    recorded_map_unref(recorded->base);
    arena_free(&recorded->arena);
    free(recorded);
}

static bool uses_recorded(const struct config *config, const struct database_config *database)
{
    return config->catalog_map == CATALOG_RECORDED && catalog_is_for(database);
}

bool topology_maps_fit(const struct topology *topology, const struct config *config,
                       struct db_error *error)
{
    for (int d = 0; d < config->ndatabases; d++) {
        const struct database_config *next = &config->databases[d];
        const struct database *database = topology_database(topology, next->name);
        if (!database || !database->recorded || !uses_recorded(config, next))
            continue;
        struct shardmap *map = catalog_lay(next, &database->recorded->map, error);
        if (!map)
            return false;
        shardmap_free(map);
    }
    return true;
}

/* `recorded` fits: it has been tried. */
static void build_map(struct database *database, const struct config *config,
                      struct recorded_map *recorded)
{
    struct db_error error;
    if (recorded && uses_recorded(config, database->config))
        database->map = catalog_lay(database->config, &recorded->map, &error);
    if (database->map)
        database->recorded = recorded_map_ref(recorded);
    else
        database->map = shardmap_of_config(database->config);
}

/* ---- the whole ---- */

static void build_shard(struct shard *shard, int index, const struct shard_config *config,
                        const struct topology *topology, const struct topology *old)
{
    shard->name = mem_strdup(config->name);
    shard->dbname = mem_strdup(config->dbname);
    shard->index = index;
    shard->nodes = mem_alloc(sizeof *shard->nodes * (size_t)config->nnodes);
    shard->nnodes = config->nnodes;
    for (int n = 0; n < config->nnodes; n++)
        shard->nodes[n] = take_node(topology, old, &config->nodes[n], config->dbname);
}

static void build_database(struct database *database, const struct database_config *config,
                           const struct topology *topology, const struct topology *old)
{
    database->name = mem_strdup(config->name);
    database->config = config;
    database->shards = mem_alloc(sizeof *database->shards * (size_t)config->nshards);
    database->nshards = config->nshards;
    for (int s = 0; s < config->nshards; s++)
        build_shard(&database->shards[s], s, &config->shards[s], topology, old);
    const struct database *before = old ? topology_database(old, config->name) : NULL;
    build_map(database, topology->config, before ? before->recorded : NULL);
    database->map_since = before ? before->map_since : 0;
    if (before) {
        database->schema = before->schema;
        atomic_fetch_add(&database->schema->references, 1);
    } else {
        database->schema = slot_new();
    }
}

static struct topology *build(struct config *config, const struct topology *old)
{
    struct topology *topology = mem_alloc(sizeof *topology);
    atomic_init(&topology->references, 1);
    topology->config = config;
    topology->databases = mem_alloc(sizeof *topology->databases * (size_t)config->ndatabases);
    topology->ndatabases = config->ndatabases;
    for (int d = 0; d < config->ndatabases; d++)
        build_database(&topology->databases[d], &config->databases[d], topology, old);
    return topology;
}

struct topology *topology_new(struct config *config, struct topology *old)
{
    struct topology *topology = build(config, old);
    topology->version = old ? old->version + 1 : 1;
    return topology;
}

/*
 * A replica that is behind a change of owners has rows of both: what its shard got or lost then, and the keys by
 * which rows are left out, may not be there yet.
 */
static int64_t map_since(const struct database *before, const struct recorded_map *recorded)
{
    if (before->recorded && before->recorded->map.epoch == recorded->map.epoch)
        return before->map_since;
    return recorded->map.epoch > 1 ? freshness_now() : 0;
}

struct topology *topology_with_map(struct topology *old, const char *name,
                                   struct recorded_map *recorded, struct db_error *error)
{
    const struct database *before = topology_database(old, name);
    struct shardmap *map = before ? catalog_lay(before->config, &recorded->map, error) : NULL;
    if (!map)
        return NULL;
    struct topology *topology = build(old->config, old);
    struct database *database = (struct database *)topology_database(topology, name);
    topology->version = old->version;
    topology->owner = topology_ref(old->owner ? old->owner : old);
    topology->tls = old->tls;
    shardmap_free(database->map);
    database->map = map;
    recorded_map_unref(database->recorded);
    database->recorded = recorded_map_ref(recorded);
    database->map_since = map_since(before, recorded);
    return topology;
}

struct topology *topology_ref(struct topology *topology)
{
    atomic_fetch_add(&topology->references, 1);
    return topology;
}

static void free_database(struct database *database)
{
    for (int s = 0; s < database->nshards; s++) {
        struct shard *shard = &database->shards[s];
        for (int n = 0; n < shard->nnodes; n++)
            node_unref(shard->nodes[n]);
        free(shard->nodes);
        free(shard->name);
        free(shard->dbname);
    }
    free(database->shards);
    shardmap_free(database->map);
    recorded_map_unref(database->recorded);
    slot_unref(database->schema);
    free(database->name);
}

void topology_unref(struct topology *topology)
{
    if (!topology || atomic_fetch_sub(&topology->references, 1) != 1)
        return;
    for (int d = 0; d < topology->ndatabases; d++)
        free_database(&topology->databases[d]);
    free(topology->databases);
    if (topology->owner) {
        topology_unref(topology->owner);
    } else {
        tls_setup_unref(topology->tls);
        config_free(topology->config);
    }
    free(topology);
}

const struct database *topology_database(const struct topology *topology, const char *name)
{
    for (int d = 0; d < topology->ndatabases; d++)
        if (topology->databases[d].name && strcmp(topology->databases[d].name, name) == 0)
            return &topology->databases[d];
    return NULL;
}

struct node *shard_primary(const struct shard *shard)
{
    int highest = 0;
    for (int n = 0; n < shard->nnodes; n++) {
        int timeline = atomic_load(&shard->nodes[n]->timeline);
        if (timeline > highest)
            highest = timeline;
    }
    for (int n = 0; n < shard->nnodes; n++) {
        struct node *node = shard->nodes[n];
        if (atomic_load(&node->role) == NODE_ROLE_PRIMARY &&
            atomic_load(&node->state) != NODE_STATE_DOWN &&
            atomic_load(&node->timeline) >= highest && !atomic_load(&node->fenced))
            return node;
    }
    return NULL;
}
