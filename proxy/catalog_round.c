/* catalog_round.c: one look at a database's catalog: its session, what has changed there, what it is told. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pgshunt/log.h"
#include "proxy/bucket_load.h"
#include "proxy/catalog_state.h"
#include "proxy/catalog_watch_internal.h"
#include "proxy/monitor.h"
#include "proxy/monitor_conn.h"
#include "proxy/worker.h"

#define CONNECT_MS 3000
#define HOLD_MS 30  /* between looks while a hold stands */
#define BUSY_MS 5   /* between counts of what is in its way */
#define OLD_MS 200  /* between looks at what is at work under an older map */
#define AWAY_MS 200 /* ... while the catalog is not reached */
#define NO_RIGHTS_MS 60000
#define PATIENCE_MS 5000 /* and three intervals: a proxy not seen for so long is gone */
#define LOAD_MS 5000     /* between counts of statements by bucket */
#define COUNTED_MARGIN_MS                                                                          \
    1000                  /* before who has not said anything for its patience counts as gone */
#define HOLD_TOUCH_MS 500 /* the row is touched so often while a hold stands */

/* ---- the session ---- */

static void leave(struct map_watch *watch)
{
    db_close(watch->db);
    watch->db = NULL;
    node_unref(watch->node);
    watch->node = NULL;
    watch->written_at = 0;
    pthread_mutex_lock(&watch->watches->lock);
    watch->primary[0] = '\0';
    pthread_mutex_unlock(&watch->watches->lock);
}

static const struct shard *catalog_shard(const struct database *database)
{
    for (int i = 0; i < database->nshards; i++)
        if (strcmp(database->shards[i].name, database->config->catalog) == 0)
            return &database->shards[i];
    return &database->shards[0];
}

static void reach(struct map_watch *watch, const struct config *config, struct node *node)
{
    struct monitor_login login = monitor_login(config, "pgshunt catalog");
    struct db_error error;
    struct db_target target = {
        .host = node->host,
        .port = node->port,
        .dbname = node->dbname,
        .user = login.user,
        .password = login.password,
        .application = login.application,
        .tls = config_server_tls(config, NULL, node->host, node->port, node->dbname),
        .stop = &watch->stop,
    };
    watch->db = db_open(&target, CONNECT_MS, &error);
    if (watch->db && db_run(watch->db, CONNECT_MS, &error, "LISTEN pgshunt_map", 0) &&
        db_run(watch->db, CONNECT_MS, &error, "LISTEN " CATALOG_SCHEMA_CHANNEL, 0)) {
        watch->node = node_ref(node);
        watch->no_rights_until = 0;
        watch->lacks_oldest_until = 0;
        return;
    }
    watch_complain(watch, "the catalog cannot be reached: the map stays as it is", error.text,
                   error.hint);
    leave(watch);
}

/* With whoever is the primary now. */
static bool connect_catalog(struct map_watch *watch, const struct config *config,
                            const struct database *database)
{
    struct node *node = shard_primary(catalog_shard(database));
    if (watch->db && (!db_is_open(watch->db) || (node && node != watch->node)))
        leave(watch);
    if (watch->db)
        return true;
    if (!node)
        watch_complain(watch, "the catalog cannot be reached: the map stays as it is",
                       "its shard has no primary", "");
    else
        reach(watch, config, node);
    return watch->db != NULL;
}

/* What pgshuntctl has changed on the servers is known to proxies when they have read it. */
static void read_schema(struct map_watch *watch, const struct database *database)
{
    log_event(LOG_INFO, "the schema is read anew: a change was announced",
              LOG_S("database", watch->database));
    monitor_schema_changed(watch->watches->daemon->monitor, database);
}

/* A change was announced, or the session is lost, or it is time. */
static bool is_to_look(struct map_watch *watch, const struct database *database, bool holds)
{
    PGnotify *notify;
    bool announced = PQconsumeInput(db_connection(watch->db)) == 0, schema = false;
    while ((notify = PQnotifies(db_connection(watch->db)))) {
        schema |= strcmp(notify->relname, CATALOG_SCHEMA_CHANNEL) == 0;
        announced = true;
        PQfreemem(notify);
    }
    if (schema)
        read_schema(watch, database);
    return announced || !holds || db_clock_ms() - watch->looked_at >= HOLD_MS;
}

/* ---- what has changed ---- */

static bool same_range(const struct catalog_range *a, const struct catalog_range *b)
{
    return a->first == b->first && a->last == b->last && strcmp(a->keyspace, b->keyspace) == 0;
}

static bool same_hold(const struct catalog_hold *a, const struct catalog_hold *b)
{
    if (a->id != b->id || a->force != b->force || a->nranges != b->nranges ||
        a->ntables != b->ntables)
        return false;
    for (int i = 0; i < a->ntables; i++)
        if (strcmp(a->tables[i], b->tables[i]) != 0)
            return false;
    for (int i = 0; i < a->nranges; i++)
        if (!same_range(&a->ranges[i], &b->ranges[i]))
            return false;
    return true;
}

static bool same_rule(const struct catalog_rule *a, const struct catalog_rule *b)
{
    bool same = strcmp(a->name, b->name) == 0 && !a->keyspace == !b->keyspace &&
                a->ncolumns == b->ncolumns &&
                (!a->keyspace || strcmp(a->keyspace, b->keyspace) == 0);
    for (int i = 0; same && i < a->ncolumns; i++)
        same = strcmp(a->columns[i], b->columns[i]) == 0;
    return same;
}

static bool same_map(const struct catalog_map *a, const struct catalog_map *b)
{
    if (a->epoch != b->epoch || a->nowners != b->nowners || a->nghosts != b->nghosts ||
        a->nholds != b->nholds || a->nrules != b->nrules || a->nkinds != b->nkinds ||
        a->npieces != b->npieces)
        return false;
    for (int i = 0; i < a->nrules; i++)
        if (!same_rule(&a->rules[i], &b->rules[i]))
            return false;
    for (int i = 0; i < a->nowners; i++)
        if (!same_range(&a->owners[i].range, &b->owners[i].range) ||
            strcmp(a->owners[i].shard, b->owners[i].shard) != 0)
            return false;
    for (int i = 0; i < a->nghosts; i++)
        if (strcmp(a->ghosts[i].keyspace, b->ghosts[i].keyspace) != 0 ||
            strcmp(a->ghosts[i].shard, b->ghosts[i].shard) != 0)
            return false;
    for (int i = 0; i < a->nholds; i++)
        if (!same_hold(&a->holds[i], &b->holds[i]))
            return false;
    return true;
}

/* What was in use is not there any more: somebody has removed it, or a failover has lost the newest change. */
static bool is_older(const struct map_watch *watch, const struct catalog_map *map)
{
    pthread_mutex_lock(&watch->watches->lock);
    bool older = watch->recorded && map->epoch < watch->recorded->map.epoch;
    pthread_mutex_unlock(&watch->watches->lock);
    return older;
}

static void keep_state(struct map_watch *watch)
{
    char why[256];
    struct topology *topology = daemon_topology(watch->watches->daemon);
    const char *path = topology->config->catalog_state_file;
    if (path[0] && !catalog_state_write(path, topology, why, sizeof why))
        watch_complain(watch, "cannot write catalog.state_file", why, path);
    topology_unref(topology);
}

/* After a table has moved into a keyspace, or out of it. */
static void compare_tables(const char *database, const struct database_config *config,
                           const struct catalog_map *recorded)
{
    const char *table = catalog_other_table(config, recorded);
    if (table)
        log_event(LOG_INFO,
                  "what is recorded of a table counts: the configuration says something else of it",
                  LOG_S("database", database), LOG_S("table", table),
                  LOG_S("hint", "\"pgshuntctl map show\" shows what to put into the "
                                "configuration"));
}

/* What the configuration says otherwise is not an error, but somebody may expect that it does something. */
void catalog_compare(const char *database, const struct database_config *config,
                     const struct catalog_map *recorded)
{
    struct arena arena;
    arena_init(&arena);
    const char *difference = catalog_difference(config, recorded, &arena);
    if (difference) /* that is as it should be once buckets have been moved */
        log_event(
            recorded->epoch == 1 ? LOG_WARNING : LOG_INFO,
            "the recorded map of the buckets counts: the configuration would give another one",
            LOG_S("database", database), LOG_I("epoch", recorded->epoch),
            LOG_S("difference", difference),
            LOG_S("hint", "\"pgshuntctl map show\" shows it, \"pgshuntctl reshard\" moves "
                          "buckets"));
    arena_free(&arena);
    compare_tables(database, config, recorded);
}

/* Under the lock: leases may have been prolonged, whether or not anything else has changed. */
static void take(struct map_watch *watch, struct recorded_map *fresh, bool *changed,
                 struct db_error *error)
{
    int64_t now = db_clock_ms();
    const struct catalog_map *map = &fresh->map;
    int64_t *until = mem_alloc(sizeof *until * (size_t)map->nholds + 1);
    for (int i = 0; i < map->nholds; i++)
        until[i] = now + map->holds[i].left_ms;
    *changed = !(watch->recorded ? same_map(&watch->recorded->map, map)
                                 : map->epoch == 0 && map->nholds == 0);
    if (!*changed && map->nholds)
        memcpy(watch->until, until, sizeof *until * (size_t)map->nholds);
    watch->misfit[0] = '\0';
    if (*changed && !watch_use(watch, fresh, until, error)) {
        memcpy(watch->misfit, error->text, sizeof watch->misfit);
        *changed = false;
    }
    watch->read_at = clock_us();
    free(until);
}

static void follow(struct map_watch *watch, const struct database *database,
                   struct recorded_map *fresh)
{
    struct db_error error = {.text = ""};
    bool changed;
    pthread_mutex_lock(&watch->watches->lock);
    bool first = !watch->recorded;
    take(watch, fresh, &changed, &error);
    bool misfit = watch->misfit[0];
    pthread_mutex_unlock(&watch->watches->lock);
    if (misfit)
        watch_complain(watch, error.text, "the map in use stays", error.hint);
    if (!changed)
        return;
    if (first)
        catalog_compare(watch->database, database->config, &fresh->map);
    log_event(LOG_INFO, "the map of the buckets has changed", LOG_S("database", watch->database),
              LOG_I("epoch", fresh->map.epoch), LOG_I("holds", fresh->map.nholds));
    keep_state(watch);
}

/* ---- reading and recording ---- */

static void no_rights(struct map_watch *watch, const struct config *config, const char *what,
                      const struct db_error *error)
{
    struct arena arena;
    arena_init(&arena);
    watch->no_rights_until = db_clock_ms() + NO_RIGHTS_MS;
    watch_complain(watch, what, error->text,
                   arena_printf(&arena, "run as the database's owner: %s",
                                catalog_prepare_sql(&arena, config->monitor_user)));
    arena_free(&arena);
}

static bool may_write(const struct map_watch *watch)
{
    return db_clock_ms() >= watch->no_rights_until;
}

/* Whose arena has the map's pieces. */
static struct recorded_map *owner_of_pieces(struct recorded_map *recorded)
{
    while (recorded->base && recorded->base->map.pieces == recorded->map.pieces)
        recorded = recorded->base;
    return recorded;
}

/* The map in use shares what can be had from it. Only this thread replaces its pieces. */
static bool read_newer(struct map_watch *watch, struct recorded_map *fresh, struct db_error *error)
{
    pthread_mutex_lock(&watch->watches->lock);
    struct recorded_map *known = recorded_map_ref(watch->recorded);
    pthread_mutex_unlock(&watch->watches->lock);
    bool read = catalog_read_newer(watch->db, watch->database, known ? &known->map : NULL,
                                   &fresh->arena, &fresh->map, error);
    if (read && known && fresh->map.npieces && fresh->map.pieces == known->map.pieces)
        fresh->base = recorded_map_ref(owner_of_pieces(known));
    recorded_map_unref(known);
    return read;
}

/* False: the session is lost, or may not read. */
static bool read_catalog(struct map_watch *watch, const struct config *config,
                         struct recorded_map **fresh)
{
    struct db_error error;
    *fresh = recorded_map_new();
    if (read_newer(watch, *fresh, &error))
        return true;
    if (error.sqlstate[0])
        no_rights(watch, config, "the recorded map cannot be read", &error);
    else
        watch_complain(watch, "the catalog cannot be reached: the map stays as it is", error.text,
                       error.hint);
    recorded_map_unref(*fresh);
    *fresh = NULL;
    return false;
}

/* True: something was recorded, so it has to be read again. */
static bool record(struct map_watch *watch, const struct config *config,
                   const struct database *database)
{
    struct db_error error;
    if (!may_write(watch))
        return false;
    if (catalog_record_map(watch->db, database->config, &error)) {
        log_event(LOG_INFO, "recorded the map of the buckets in the catalog",
                  LOG_S("database", watch->database));
        return true;
    }
    if (error.sqlstate[0])
        no_rights(watch, config,
                  "the map of the buckets cannot be recorded: the configuration's is used", &error);
    return false;
}

/* `reloads`: how many there had been before the configuration was taken. */
static bool lacks(struct map_watch *watch, const struct database_config *config,
                  const struct recorded_map *fresh, int64_t reloads)
{
    bool values = !fresh->base || watch->judged != reloads + 1;
    bool lacks = catalog_lacks(config, &fresh->map, values);
    watch->judged = lacks ? 0 : reloads + 1;
    return lacks;
}

static void look(struct map_watch *watch, const struct config *config,
                 const struct database *database, int64_t reloads)
{
    struct recorded_map *fresh;
    if (!read_catalog(watch, config, &fresh))
        return;
    if (is_older(watch, &fresh->map)) {
        watch_complain(watch,
                       "the catalog has an older map of the buckets than is in use, which stays",
                       "it was restored or removed, or a failover has lost the last change",
                       "\"pgshuntctl map show\" shows it; a restart takes it");
        recorded_map_unref(fresh);
        return;
    }
    if (lacks(watch, database->config, fresh, reloads) && record(watch, config, database)) {
        recorded_map_unref(fresh);
        if (!read_catalog(watch, config, &fresh))
            return;
    }
    follow(watch, database, fresh);
    recorded_map_unref(fresh);
}

/* ---- saying ---- */

static bool is_due(const struct map_watch *watch, const struct map_use *use, bool holds,
                   int64_t interval)
{
    int64_t age = db_clock_ms() - watch->written_at;
    return !watch->written_at || memcmp(use, &watch->written, sizeof *use) != 0 ||
           age >= (holds ? HOLD_TOUCH_MS : interval);
}

/* A table of an earlier version gets its columns; where it may not, all else is told. */
static bool write_row(struct map_watch *watch, struct catalog_proxy *self, struct db_error *error)
{
    struct db_error ignored;
    if (db_clock_ms() < watch->lacks_oldest_until)
        self->oldest = -1;
    if (catalog_proxy_seen(watch->db, watch->database, self, error))
        return true;
    if (strcmp(error->sqlstate, "42703") != 0 || self->oldest < 0)
        return false;
    if (!catalog_prepare(watch->db, &ignored)) {
        watch->lacks_oldest_until = db_clock_ms() + NO_RIGHTS_MS;
        self->oldest = -1;
    }
    return catalog_proxy_seen(watch->db, watch->database, self, error);
}

/* As long as its row is young enough no map is changed without this proxy's having heard of it. */
static void note_counted(struct map_watch *watch, int64_t until)
{
    pthread_mutex_lock(&watch->watches->lock);
    if (watch->recorded)
        atomic_store(&watch->recorded->counted_until, until);
    pthread_mutex_unlock(&watch->watches->lock);
}

static void say(struct map_watch *watch, const struct config *config)
{
    struct db_error error;
    pthread_mutex_lock(&watch->watches->lock);
    struct map_use use = watch->used;
    bool holds = watch_holds(watch);
    pthread_mutex_unlock(&watch->watches->lock);
    if (!may_write(watch) || !is_due(watch, &use, holds, config->catalog_interval))
        return;
    struct catalog_proxy self = {
        .id = watch->watches->id,
        .host = watch->watches->host,
        .version = PGSHUNT_VERSION,
        .pid = (int)getpid(),
        .epoch = use.epoch,
        .hold = use.hold,
        .busy = use.busy,
        .held = use.held,
        .oldest = use.oldest.epoch,
        .oldest_who = use.oldest.who,
        .patience_ms = 3 * config->catalog_interval + PATIENCE_MS,
    };
    int64_t now = clock_us();
    if (write_row(watch, &self, &error)) {
        watch->written = use;
        watch->written_at = db_clock_ms();
        note_counted(watch, now + 1000 * (int64_t)(self.patience_ms - COUNTED_MARGIN_MS));
    } else if (error.sqlstate[0]) {
        no_rights(watch, config,
                  "this proxy cannot say in pgshunt.proxy that it is there: nothing can be "
                  "resharded",
                  &error);
    }
}

/* Who else is there, for SHOW PROXIES. */
static void read_proxies(struct map_watch *watch)
{
    struct catalog_proxy *proxies;
    struct db_error ignored;
    int count = 0;
    struct arena *arena = mem_alloc(sizeof *arena);
    arena_init(arena);
    if (!catalog_proxies(watch->db, watch->database, arena, &proxies, &count, &ignored)) {
        watch_free_arena(arena);
        return;
    }
    pthread_mutex_lock(&watch->watches->lock);
    struct arena *old = watch->others;
    watch->others = arena;
    watch->proxies = proxies;
    watch->nproxies = count;
    pthread_mutex_unlock(&watch->watches->lock);
    watch_free_arena(old);
}

/* ---- a round ---- */

static void note_reached(struct map_watch *watch)
{
    pthread_mutex_lock(&watch->watches->lock);
    bool was_away = !watch->primary[0];
    if (db_is_open(watch->db))
        snprintf(watch->primary, sizeof watch->primary, "%s:%d", watch->node->host,
                 watch->node->port);
    else
        watch->primary[0] = '\0';
    bool back = was_away && watch->primary[0] && watch->said[0] && !watch->misfit[0];
    if (watch->primary[0])
        watch->looked = true;
    pthread_cond_broadcast(&watch->watches->tell);
    pthread_mutex_unlock(&watch->watches->lock);
    if (back && may_write(watch)) {
        log_event(LOG_INFO, "the catalog is reached again", LOG_S("database", watch->database));
        watch->said[0] = '\0';
    }
}

/* Who has asked for a hold has died, or is too late: it ends here, and clients never see more than a wait. */
static bool is_too_late(struct map_watch *watch)
{
    bool late = false;
    int64_t now = db_clock_ms();
    pthread_mutex_lock(&watch->watches->lock);
    for (int i = 0; watch_holds(watch) && i < watch->recorded->map.nholds; i++)
        late |= watch->until[i] - now < CATALOG_TOO_LATE_MS;
    pthread_mutex_unlock(&watch->watches->lock);
    return late;
}

static void end_late_holds(struct map_watch *watch, const struct config *config)
{
    struct db_error error;
    if (!may_write(watch) || !is_too_late(watch))
        return;
    watch->looked_at = 0; /* whoever was first */
    if (!catalog_expire(watch->db, watch->database, &error) && error.sqlstate[0] &&
        strcmp(error.sqlstate, "55P03") != 0)
        no_rights(watch, config, "a switch that was not finished cannot be undone", &error);
}

/* A lost session is no reason to end what is under way; a hold is none to begin something. */
static void run_jobs(struct map_watch *watch, const struct config *config, bool holds)
{
    if (holds || !db_is_open(watch->db))
        return;
    if (!watch->runner)
        watch->runner = reshard_runner_new(watch->database);
    reshard_runner_tend(watch->runner, watch->db, config);
}

/* Where statements go to, for who plans what is to move. Where it cannot be written nothing else suffers. */
static void write_load(struct map_watch *watch, const struct database *database)
{
    struct db_error ignored;
    struct catalog_load *loads;
    struct arena arena;
    int64_t now = db_clock_ms();
    if (!may_write(watch) || now - watch->load_at < LOAD_MS)
        return;
    watch->load_at = now;
    arena_init(&arena);
    for (unsigned k = 0; k < shardmap_keyspaces(database->map); k++) {
        int count = bucket_load_take(watch->database, database->map,
                                     shardmap_keyspace(database->map, k), &arena, &loads);
        if (count && !catalog_add_load(watch->db, watch->database, loads, count, &ignored))
            break;
    }
    arena_free(&arena);
}

static void go_round(struct map_watch *watch, const struct config *config,
                     const struct database *database, int64_t reloads)
{
    bool connected = connect_catalog(watch, config, database);
    pthread_mutex_lock(&watch->watches->lock);
    bool holds = watch_holds(watch);
    pthread_mutex_unlock(&watch->watches->lock);
    if (connected && holds) /* who switches waits for it */
        say(watch, config);
    if (connected && holds)
        end_late_holds(watch, config);
    if (db_is_open(watch->db) && is_to_look(watch, database, holds)) {
        watch->looked_at = db_clock_ms();
        look(watch, config, database, reloads);
    }
    note_reached(watch);
    pthread_mutex_lock(&watch->watches->lock);
    holds = watch_holds(watch);
    watch_visit(watch);
    pthread_mutex_unlock(&watch->watches->lock);
    if (db_is_open(watch->db))
        say(watch, config);
    if (!holds && watch->written_at && db_is_open(watch->db))
        read_proxies(watch);
    run_jobs(watch, config, holds);
    if (!holds && db_is_open(watch->db))
        write_load(watch, database);
}

void catalog_round(struct map_watch *watch)
{
    pthread_mutex_lock(&watch->watches->lock);
    int64_t reloads = watch->watches->reloads;
    pthread_mutex_unlock(&watch->watches->lock);
    struct topology *topology = daemon_topology(watch->watches->daemon);
    const struct database *database = topology_database(topology, watch->database);
    if (database)
        go_round(watch, topology->config, database, reloads);
    topology_unref(topology);
}

int64_t catalog_round_pause(struct map_watch *watch)
{
    struct topology *topology = daemon_topology(watch->watches->daemon);
    int64_t interval = topology->config->catalog_interval;
    topology_unref(topology);
    pthread_mutex_lock(&watch->watches->lock);
    bool holds = watch_holds(watch), busy = watch->used.busy > 0;
    bool old = watch_has_old_work(watch);
    pthread_mutex_unlock(&watch->watches->lock);
    if (!db_is_open(watch->db))
        return AWAY_MS;
    if (!holds)
        return old && interval > OLD_MS ? OLD_MS : interval;
    return busy ? BUSY_MS : HOLD_MS;
}

void catalog_round_end(struct map_watch *watch)
{
    struct db_error error;
    reshard_runner_free(watch->runner);
    watch->runner = NULL;
    if (db_is_open(watch->db)) {
        db_set_stop(watch->db, NULL);
        if (watch->written_at &&
            !catalog_proxy_leaves(watch->db, watch->database, watch->watches->id, &error))
            log_event(LOG_INFO, "could not take this proxy's row away",
                      LOG_S("database", watch->database), LOG_S("reason", error.text));
    }
    leave(watch);
}
