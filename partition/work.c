/* work.c: what all of the engine's functions begin and end with: the catalog, the clock, threads for shards, telling. */
#include "partition/work.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "partition/interval.h"
#include "pgshunt/catalog.h"

#define APPLICATION "pgshunt partition"
#define UNIX_TO_2000 INT64_C(946684800)
#define CLOCKS_MAY_DIFFER (INT64_C(3600) * 1000000)

/* ---- telling ---- */

void work_tell(struct work *work, enum fleet_event_kind kind, int shard, const char *object,
               const char *text, const char *mend)
{
    struct fleet_event event = {
        .kind = kind,
        .shard = shard >= 0 ? work->database->shards[shard].name : NULL,
        .object = object,
        .text = text,
        .mend = mend,
    };
    pthread_mutex_lock(&work->telling);
    work->problems += kind == FLEET_PROBLEM;
    work->failed += kind == FLEET_FAILED;
    work->changed |= kind == FLEET_DONE;
    work->call->fleet.tell(work->call->fleet.arg, &event);
    pthread_mutex_unlock(&work->telling);
}

#define RIGHT_MEND                                                                                 \
    "call this as the table's owner or a member of that role (--user; in the daemon "              \
    "partition.user), "                                                                            \
    "or GRANT the right"

bool work_fails(struct work *work, int shard, const char *object, const char *what,
                const struct db_error *error)
{
    char text[sizeof error->text + 200];
    snprintf(text, sizeof text, "%s: %s", what, error->text);
    const char *mend = error->hint[0]                          ? error->hint
                       : strcmp(error->sqlstate, "42501") == 0 ? RIGHT_MEND
                                                               : NULL;
    work_tell(work, FLEET_FAILED, shard, object, text, mend);
    return false;
}

enum fleet_outcome work_outcome(const struct work *work)
{
    if (work->failed)
        return work->changed ? FLEET_OUTCOME_UNFINISHED : FLEET_OUTCOME_FAILED;
    return work->problems ? FLEET_OUTCOME_DIFFERENT : FLEET_OUTCOME_DONE;
}

bool work_stopped(const struct work *work)
{
    return work->call->fleet.stop && *work->call->fleet.stop;
}

bool work_late(const struct work *work)
{
    return work->until && db_clock_ms() >= work->until;
}

bool work_goes_on(const struct work *work)
{
    return !work_stopped(work) && !work_late(work);
}

int64_t work_limit(const struct work *work, int64_t ms)
{
    int64_t left = work->until ? work->until - db_clock_ms() : ms;
    return left < 1 ? 1 : left < ms ? left : ms;
}

/* ---- sessions ---- */

/*
 * $1: lock_timeout. What autovacuum keeps locked it gives up after deadlock_timeout, where we may set that. Queries of catalogs look
 * dearer to the server than they are: to compile them would take longer than to run them.
 */
static const char session_settings[] =
    "SELECT set_config('lock_timeout', $1, false), set_config('statement_timeout', '0', false),"
    " set_config('idle_in_transaction_session_timeout', '60s', false),"
    " set_config('default_transaction_isolation', 'read committed', false),"
    " set_config('default_transaction_read_only', 'off', false),"
    " set_config('search_path', 'pg_catalog', false), set_config('timezone', 'UTC', false),"
    " set_config('datestyle', 'ISO, YMD', false), set_config('client_min_messages', 'warning', "
    "false), set_config('jit', 'off', false),"
    " (SELECT set_config(name, '20ms', false) FROM pg_settings WHERE name = 'deadlock_timeout'"
    "  AND (SELECT rolsuper FROM pg_roles WHERE rolname = current_user))";

int work_lock_timeout(const struct work *work)
{
    return work->call->lock_timeout ? work->call->lock_timeout : 200;
}

struct db *work_open(struct work *work, unsigned shard, struct db_error *error)
{
    const struct partition_call *call = work->call;
    struct primary_login login = {
        .config = call->fleet.config,
        .database = work->database,
        .user = call->fleet.user,
        .application = APPLICATION,
        .stop = call->fleet.stop,
    };
    char timeout[32];
    snprintf(timeout, sizeof timeout, "%dms", work_lock_timeout(work));
    struct db *db = primary_open(&login, &work->database->shards[shard], error);
    if (db && !db_run(db, WORK_QUERY_MS, error, session_settings, 1, timeout)) {
        db_close(db);
        return NULL;
    }
    return db;
}

/* ---- beginning and end ---- */

static int catalog_shard(const struct database_config *database)
{
    for (int i = 0; i < database->nshards; i++)
        if (strcmp(database->shards[i].name, database->catalog) == 0)
            return i;
    return 0;
}

/* A clock that is wrong by months would have everything expire. */
static void compare_clocks(struct work *work, int64_t now)
{
    int64_t here = ((int64_t)time(NULL) - UNIX_TO_2000) * 1000000;
    work->now = now;
    work->clocks_differ = llabs(here - now) > CLOCKS_MAY_DIFFER;
    if (work->clocks_differ)
        work_tell(
            work, FLEET_PROBLEM, -1, NULL,
            "the clocks of the catalog's server and of this host differ by more than an hour: "
            "nothing expires",
            "set the clock that is wrong");
}

static bool read_clock(struct work *work)
{
    const char *said = work->call->now;
    if (said) {
        if (civil_read(said, &work->now, NULL))
            return true;
        work_tell(work, FLEET_FAILED, -1, NULL,
                  WORK_TEXT(&work->arena, "\"%s\" is no time like 2026-03-01 12:00", said), NULL);
        return false;
    }
    PGresult *rows = db_query(work->catalog, WORK_QUERY_MS, &work->error,
                              "SELECT (extract(epoch FROM clock_timestamp() - "
                              "'2000-01-01 00:00+00'::timestamptz) * 1000000)::bigint",
                              0);
    if (rows)
        compare_clocks(work, strtoll(PQgetvalue(rows, 0, 0), NULL, 10));
    PQclear(rows);
    return rows || work_fails(work, -1, NULL, "cannot read the catalog's clock", &work->error);
}

static bool open_catalog(struct work *work)
{
    int shard = catalog_shard(work->database);
    work->catalog = work_open(work, (unsigned)shard, &work->error);
    if (!work->catalog)
        return work_fails(work, shard, NULL, "cannot connect to the catalog's primary",
                          &work->error);
    if (!catalog_read_map(work->catalog, work->database, &work->map, &work->error))
        return work_fails(work, shard, NULL, "cannot read the catalog", &work->error);
    return read_clock(work);
}

bool work_begin(struct work *work, const struct partition_call *call)
{
    *work = (struct work){.call = call, .until = call->timeout ? db_clock_ms() + call->timeout : 0};
    arena_init(&work->arena);
    pthread_mutex_init(&work->telling, NULL);
    work->database = config_database(call->fleet.config, call->fleet.database);
    if (work->database) {
        work->away = arena_array(&work->arena, bool, work->database->nshards);
        return open_catalog(work);
    }
    work_tell(
        work, FLEET_FAILED, -1, NULL,
        WORK_TEXT(&work->arena, "the configuration has no database \"%s\"", call->fleet.database),
        NULL);
    return false;
}

void work_end(struct work *work)
{
    db_close(work->catalog);
    if (work->map)
        shardmap_free(work->map);
    pthread_mutex_destroy(&work->telling);
    arena_free(&work->arena);
}

/* ---- shards ---- */

struct job {
    struct shard_work shard;
    void (*task)(struct shard_work *shard);
    pthread_t thread;
    bool started;
};

static void *run_job(void *arg)
{
    struct job *job = arg;
    struct shard_work *shard = &job->shard;
    bool *away = &shard->work->away[shard->shard]; /* one thread at a time is at this shard */
    if (*away)
        return NULL;
    arena_init(&shard->arena);
    shard->db = work_open(shard->work, shard->shard, &shard->error);
    *away = !shard->db;
    if (shard->db)
        job->task(shard);
    else
        work_fails(shard->work, (int)shard->shard, NULL, "cannot connect to the shard's primary",
                   &shard->error);
    db_close(shard->db);
    arena_free(&shard->arena);
    return NULL;
}

void work_on_shards(struct work *work, void (*task)(struct shard_work *shard), void *arg)
{
    int count = work->database->nshards;
    struct job *jobs = arena_array(&work->arena, struct job, count);
    for (int i = 0; i < count; i++) {
        jobs[i].task = task;
        jobs[i].shard = (struct shard_work){.work = work, .shard = (unsigned)i, .task = arg};
        jobs[i].started = pthread_create(&jobs[i].thread, NULL, run_job, &jobs[i]) == 0;
        if (!jobs[i].started)
            run_job(&jobs[i]);
    }
    for (int i = 0; i < count; i++)
        if (jobs[i].started)
            pthread_join(jobs[i].thread, NULL);
}

enum place work_place(const struct work *work, const char *schema, const char *table,
                      unsigned shard)
{
    const struct table_rule *rule = shardmap_table(work->map, schema, table);
    switch (rule->class) {
    case TABLE_UNSHARDED:
        return shard == 0 ? PLACE_MUST : PLACE_NONE;
    case TABLE_PINNED:
        return shard == rule->shard ? PLACE_MUST : PLACE_NONE;
    case TABLE_REFERENCE:
        return PLACE_MUST;
    case TABLE_SHARDED:
        return shardmap_owns(rule->keyspace, shard) ? PLACE_MUST : PLACE_MAY;
    }
    return PLACE_NONE;
}

#define LOCK "77419365"

const char work_lock_sql[] = "SELECT pg_try_advisory_lock(" LOCK ", hashtext($1))";
static const char locker_sql[] =
    "SELECT format('pid %s from %s, since %s', a.pid, coalesce(host(a.client_addr), 'this host'), "
    "date_trunc('second', a.backend_start)) FROM pg_locks AS l JOIN pg_stat_activity AS a USING "
    "(pid) "
    "WHERE l.locktype = 'advisory' AND l.classid = " LOCK
    " AND l.objsubid = 2 AND l.granted LIMIT 1";

bool work_lock(struct work *work)
{
    PGresult *rows = db_query(work->catalog, WORK_QUERY_MS, &work->error, work_lock_sql, 1,
                              work->database->name);
    if (!rows)
        return work_fails(work, -1, NULL, "cannot lock", &work->error);
    bool locked = PQgetvalue(rows, 0, 0)[0] == 't';
    PQclear(rows);
    if (locked || work->call->schedule)
        return locked;
    rows = db_query(work->catalog, WORK_QUERY_MS, &work->error, locker_sql, 0);
    work_tell(work, FLEET_FAILED, -1, NULL,
              WORK_TEXT(&work->arena, "another command is at work on partitions: %s",
                        rows && PQntuples(rows) ? PQgetvalue(rows, 0, 0) : "it has just ended"),
              "wait for its end, and call this again");
    PQclear(rows);
    return false;
}

const char *work_quote(struct arena *arena, const char *name)
{
    size_t length = strlen(name);
    char *quoted = arena_alloc(arena, 2 * length + 3), *to = quoted;
    *to++ = '"';
    for (const char *at = name; *at; at++) {
        if (*at == '"')
            *to++ = '"';
        *to++ = *at;
    }
    *to++ = '"';
    *to = '\0';
    return quoted;
}
