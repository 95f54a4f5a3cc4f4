/* catalog_change.c: changes of what is recorded: holds, proxies, ghosts, and buckets that move. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "catalog_internal.h"

#define LEAVE_MS 1000 /* it would be found out without it */

#define NUMBER(text, value)                                                                        \
    char text[32];                                                                                 \
    snprintf(text, sizeof text, "%lld", (long long)(value))

/* Runs a statement that must concern a row at least. False with 40001: it did not. */
#define RUN_ON_A_ROW(db, error, what, ...)                                                         \
    has_row(db_query((db), CATALOG_MS, (error), __VA_ARGS__), (what), (error))

static bool has_row(PGresult *result, const char *what, struct db_error *error)
{
    bool has = result && (PQntuples(result) > 0 || atoi(PQcmdTuples(result)) > 0);
    if (result && !has)
        catalog_refuse(error, "40001", what);
    PQclear(result);
    return has;
}

/* ---- buckets ---- */

bool catalog_write_owners(struct db *db, const char *database, const char *keyspace,
                          const char *const *owners, unsigned count, struct db_error *error)
{
    json_t *ranges = json_array();
    for (unsigned first = 0, last; first < count; first = last + 1) {
        for (last = first; last + 1 < count && strcmp(owners[last + 1], owners[first]) == 0;)
            last++;
        json_array_append_new(ranges, json_pack("{si si ss}", "first", (int)first, "last",
                                                (int)last, "shard", owners[first]));
    }
    char *text = json_dumps(ranges, JSON_COMPACT);
    json_decref(ranges);
    bool done =
        db_run(db, CATALOG_MS, error,
               "DELETE FROM pgshunt.bucket WHERE database = $1 AND keyspace = $2", 2, database,
               keyspace) &&
        db_run(db, CATALOG_MS, error,
               "INSERT INTO pgshunt.bucket (database, keyspace, first, last, shard) SELECT $1, $2, "
               "first, last, shard FROM jsonb_to_recordset($3::jsonb) AS t (first int, last int, "
               "shard text)",
               3, database, keyspace, text);
    free(text);
    return done;
}

/* Writers of the map come one after another: what is in it may be read and then changed. */
static bool lock_map(struct db *db, const char *database, struct db_error *error)
{
    return db_run(db, CATALOG_MS, error,
                  "SELECT pg_advisory_xact_lock(" CATALOG_LOCK " # hashtext($1))", 1, database);
}

static bool raise_epoch(struct db *db, const char *database, const char *job,
                        struct db_error *error)
{
    return db_run(
        db, CATALOG_MS, error,
        "INSERT INTO pgshunt.epoch AS e (database, epoch, job) VALUES ($1, 1, $2) ON "
        "CONFLICT (database) DO UPDATE SET epoch = e.epoch + 1, changed_at = now(), job = "
        "$2",
        2, database, job);
}

/* ---- holds ---- */

static bool insert_hold(struct db *db, const char *database, const char *job, int64_t lease_ms,
                        int64_t *id, struct db_error *error)
{
    NUMBER(lease, lease_ms);
    PGresult *rows = db_query(db, CATALOG_MS, error,
                              "INSERT INTO pgshunt.hold (database, job, until) VALUES ($1, $2, "
                              "clock_timestamp() + $3::bigint * interval '1 ms') RETURNING id",
                              3, database, job, lease);
    if (rows)
        *id = strtoll(PQgetvalue(rows, 0, 0), NULL, 10);
    PQclear(rows);
    return rows != NULL;
}

static bool insert_ranges(struct db *db, int64_t id, const struct catalog_range *ranges, int count,
                          struct db_error *error)
{
    NUMBER(hold, id);
    bool done = true;
    for (int i = 0; done && i < count; i++) {
        NUMBER(first, ranges[i].first);
        NUMBER(last, ranges[i].last);
        done = db_run(db, CATALOG_MS, error,
                      "INSERT INTO pgshunt.hold_bucket VALUES ($1::bigint, $2, $3::int, $4::int)",
                      4, hold, ranges[i].keyspace, first, last);
    }
    return done;
}

static bool insert_tables(struct db *db, int64_t id, const char *const *tables, int count,
                          struct db_error *error)
{
    NUMBER(hold, id);
    bool done = true;
    for (int i = 0; done && i < count; i++)
        done = db_run(db, CATALOG_MS, error,
                      "INSERT INTO pgshunt.hold_table VALUES ($1::bigint, $2)", 2, hold, tables[i]);
    return done;
}

static bool begin_hold(struct db *db, const char *database, const char *job, int64_t lease_ms,
                       int64_t *id, struct db_error *error)
{
    return db_run(db, CATALOG_MS, error,
                  "DELETE FROM pgshunt.hold WHERE database = $1 AND until < "
                  "clock_timestamp() - interval '1 min'",
                  1, database) &&
           insert_hold(db, database, job, lease_ms, id, error);
}

bool catalog_hold(struct db *db, const char *database, const char *job,
                  const struct catalog_range *ranges, int count, int64_t lease_ms, int64_t *id,
                  struct db_error *error)
{
    if (!catalog_begin(db, error))
        return false;
    bool done = begin_hold(db, database, job, lease_ms, id, error) &&
                insert_ranges(db, *id, ranges, count, error) &&
                catalog_announce(db, database, error);
    return catalog_end(db, done, error);
}

bool catalog_hold_tables(struct db *db, const char *database, const char *job,
                         const char *const *tables, int count, int64_t lease_ms, int64_t *id,
                         struct db_error *error)
{
    if (!catalog_begin(db, error))
        return false;
    bool done = begin_hold(db, database, job, lease_ms, id, error) &&
                insert_tables(db, *id, tables, count, error) &&
                catalog_announce(db, database, error);
    return catalog_end(db, done, error);
}

/* A lease that is over is not prolonged: proxies have let go. */
bool catalog_hold_extend(struct db *db, int64_t id, int64_t lease_ms, bool force,
                         struct db_error *error)
{
    NUMBER(hold, id);
    NUMBER(lease, lease_ms);
    return RUN_ON_A_ROW(
        db, error, "the hold is over",
        "WITH held AS (UPDATE pgshunt.hold SET until = clock_timestamp() + $2::bigint * interval "
        "'1 ms', force = $3::bool WHERE id = $1::bigint AND until > clock_timestamp() RETURNING "
        "database) SELECT pg_notify('" CATALOG_CHANNEL "', database) FROM held",
        3, hold, lease, force ? "true" : "false");
}

bool catalog_release(struct db *db, int64_t id, struct db_error *error)
{
    NUMBER(hold, id);
    return db_run(
        db, CATALOG_MS, error,
        "WITH held AS (DELETE FROM pgshunt.hold WHERE id = $1::bigint RETURNING database) "
        "SELECT pg_notify('" CATALOG_CHANNEL "', database) FROM held",
        1, hold);
}

/* ---- proxies ---- */

bool catalog_proxies(struct db *db, const char *database, struct arena *arena,
                     struct catalog_proxy **proxies, int *count, struct db_error *error)
{
    PGresult *rows = db_query(
        db, CATALOG_MS, error,
        "SELECT id, host, pid, version, epoch, hold, busy, held, patience, extract(epoch FROM "
        "clock_timestamp() - seen_at), coalesce(whole->>'oldest', '-1'), "
        "coalesce(whole->>'oldest_who', '') FROM (SELECT *, to_jsonb(p) AS whole FROM "
        "pgshunt.proxy p) "
        "s WHERE database = $1 AND seen_at + patience * interval '1 ms' > clock_timestamp() "
        "ORDER BY started_at, id",
        1, database);
    if (!rows)
        return false;
    *count = PQntuples(rows);
    *proxies = arena_array(arena, struct catalog_proxy, *count);
    for (int i = 0; i < *count; i++)
        (*proxies)[i] = (struct catalog_proxy){
            .id = arena_strdup(arena, PQgetvalue(rows, i, 0)),
            .host = arena_strdup(arena, PQgetvalue(rows, i, 1)),
            .pid = atoi(PQgetvalue(rows, i, 2)),
            .version = arena_strdup(arena, PQgetvalue(rows, i, 3)),
            .epoch = strtoll(PQgetvalue(rows, i, 4), NULL, 10),
            .hold = strtoll(PQgetvalue(rows, i, 5), NULL, 10),
            .busy = atoi(PQgetvalue(rows, i, 6)),
            .held = atoi(PQgetvalue(rows, i, 7)),
            .patience_ms = strtoll(PQgetvalue(rows, i, 8), NULL, 10),
            .seen_seconds = atof(PQgetvalue(rows, i, 9)),
            .oldest = strtoll(PQgetvalue(rows, i, 10), NULL, 10),
            .oldest_who = arena_strdup(arena, PQgetvalue(rows, i, 11)),
        };
    PQclear(rows);
    return true;
}

/* Columns that came later are left out where nothing is to be said in them. */
#define TOUCH(columns, values, changes)                                                            \
    "INSERT INTO pgshunt.proxy (id, database, host, pid, version, patience, epoch, hold, busy, "   \
    "held, seen_at" columns ") SELECT $1::uuid, $2, $3, $4::int, $5, $6::int, $7::bigint, "        \
    "(h->>0)::bigint, (h->>1)::int, (h->>2)::int, clock_timestamp()" values                        \
    " FROM (SELECT $8::jsonb AS h) s ON CONFLICT (id, database) DO UPDATE SET seen_at = "          \
    "excluded.seen_at, patience = excluded.patience, epoch = excluded.epoch, hold = "              \
    "excluded.hold, busy = excluded.busy, held = excluded.held" changes

static bool touch_proxy(struct db *db, const char *database, const struct catalog_proxy *self,
                        struct db_error *error)
{
    NUMBER(pid, self->pid);
    NUMBER(patience, self->patience_ms);
    NUMBER(epoch, self->epoch);
    NUMBER(oldest, self->oldest);
    char holding[96];
    snprintf(holding, sizeof holding, "[%lld,%d,%d]", (long long)self->hold, self->busy,
             self->held);
    if (self->oldest < 0)
        return db_run(db, CATALOG_MS, error, TOUCH("", "", ""), 8, self->id, database, self->host,
                      pid, self->version, patience, epoch, holding);
    return db_run(db, CATALOG_MS, error,
                  TOUCH(", oldest, oldest_who", ", $9::bigint, $10",
                        ", oldest = excluded.oldest, oldest_who = excluded.oldest_who"),
                  10, self->id, database, self->host, pid, self->version, patience, epoch, holding,
                  oldest, self->oldest_who);
}

bool catalog_proxy_seen(struct db *db, const char *database, const struct catalog_proxy *self,
                        struct db_error *error)
{
    return touch_proxy(db, database, self, error) &&
           db_run(db, CATALOG_MS, error,
                  "DELETE FROM pgshunt.proxy WHERE seen_at + patience * interval '1 ms' < "
                  "clock_timestamp()",
                  0);
}

bool catalog_proxy_leaves(struct db *db, const char *database, const char *id,
                          struct db_error *error)
{
    return db_run(db, LEAVE_MS, error,
                  "DELETE FROM pgshunt.proxy WHERE id = $1::uuid AND database = $2", 2, id,
                  database);
}

/* ---- the change of the map ---- */

static bool is_ours(struct db *db, const char *database, const char *job, const char *attempt,
                    int64_t hold, struct db_error *error)
{
    NUMBER(id, hold);
    return RUN_ON_A_ROW(db, error, "the job has been taken over",
                        "SELECT 1 FROM pgshunt.job WHERE name = $1 AND attempt = $2::uuid AND "
                        "database = $3 FOR UPDATE",
                        3, job, attempt, database) &&
           RUN_ON_A_ROW(db, error, "the hold is over",
                        "SELECT 1 FROM pgshunt.hold WHERE id = $1::bigint AND until > "
                        "clock_timestamp() + interval '1 s' FOR UPDATE",
                        1, id);
}

static bool next_epoch(struct db *db, const char *database, const char *job, int64_t epoch,
                       struct db_error *error)
{
    NUMBER(number, epoch);
    return RUN_ON_A_ROW(db, error, "the map has changed meanwhile",
                        "UPDATE pgshunt.epoch SET epoch = epoch + 1, changed_at = now(), job = $2 "
                        "WHERE database = $1 AND epoch + 1 = $3::bigint",
                        3, database, job, number);
}

/* Turns the keyspace's buckets over in `owners`; false: one was not the source's. */
static bool turn_over(const char **owners, unsigned nbuckets, const char *keyspace,
                      const struct catalog_move *moves, int count)
{
    for (int i = 0; i < count; i++) {
        const struct catalog_move *move = &moves[i];
        if (strcmp(move->range.keyspace, keyspace) != 0)
            continue;
        for (unsigned b = move->range.first; b <= move->range.last; b++) {
            if (b >= nbuckets || !owners[b] || strcmp(owners[b], move->source) != 0)
                return false;
            owners[b] = move->target;
        }
    }
    return true;
}

static bool move_buckets(struct db *db, const char *database, const char *keyspace,
                         const struct catalog_move *moves, int count, struct db_error *error)
{
    PGresult *rows = db_query(db, CATALOG_MS, error,
                              "SELECT first, last, shard FROM pgshunt.bucket WHERE database = $1 "
                              "AND keyspace = $2",
                              2, database, keyspace);
    if (!rows)
        return false;
    const char **owners = mem_alloc(sizeof *owners * SHARDKEY_BUCKETS);
    unsigned covered = 0, nbuckets = 0;
    for (int i = 0; i < PQntuples(rows); i++)
        for (int b = atoi(PQgetvalue(rows, i, 0)); b <= atoi(PQgetvalue(rows, i, 1)); b++)
            if (b >= 0 && b < SHARDKEY_BUCKETS && !owners[b]) {
                owners[b] = PQgetvalue(rows, i, 2);
                covered++;
                nbuckets = (unsigned)b + 1 > nbuckets ? (unsigned)b + 1 : nbuckets;
            }
    bool done = covered == nbuckets && turn_over(owners, nbuckets, keyspace, moves, count);
    if (!done)
        catalog_refuse(error, "40001", "the buckets are not the source's");
    else
        done = catalog_write_owners(db, database, keyspace, owners, nbuckets, error);
    free(owners);
    PQclear(rows);
    return done;
}

static bool is_first_of_keyspace(const struct catalog_move *moves, int index)
{
    for (int i = 0; i < index; i++)
        if (strcmp(moves[i].range.keyspace, moves[index].range.keyspace) == 0)
            return false;
    return true;
}

bool catalog_write_ghost(struct db *db, const char *database, const char *keyspace,
                         const char *shard, const char *job, bool has, bool *changed,
                         struct db_error *error)
{
    PGresult *result = db_query(
        db, CATALOG_MS, error,
        has ? "INSERT INTO pgshunt.ghost (database, keyspace, shard, job) VALUES ($1, $2, $3, $4) "
              "ON CONFLICT DO NOTHING"
            : "DELETE FROM pgshunt.ghost WHERE database = $1 AND keyspace = $2 AND shard = $3 AND "
              "job = $4",
        4, database, keyspace, shard, job);
    *changed |= result && atoi(PQcmdTuples(result)) > 0;
    PQclear(result);
    return result != NULL;
}

/* First all that end, then all that begin: a shard may be both source and target. */
static bool turn_ghosts(struct db *db, const char *database, const char *job,
                        const struct catalog_move *moves, int count, struct db_error *error)
{
    bool changed = false, done = true;
    for (int i = 0; done && i < count; i++)
        done = catalog_write_ghost(db, database, moves[i].range.keyspace, moves[i].target, job,
                                   false, &changed, error);
    for (int i = 0; done && i < count; i++)
        done = catalog_write_ghost(db, database, moves[i].range.keyspace, moves[i].source, job,
                                   true, &changed, error);
    return done;
}

static bool finish_flip(struct db *db, const char *database, const char *job, int64_t hold,
                        int64_t epoch, const char *state, struct db_error *error)
{
    NUMBER(number, epoch);
    NUMBER(id, hold);
    return db_run(db, CATALOG_MS, error,
                  "UPDATE pgshunt.job SET state = $2, epoch = $3::bigint, attempt = NULL, error = "
                  "NULL, changed_at = now() WHERE name = $1",
                  3, job, state, number) &&
           db_run(db, CATALOG_MS, error,
                  "INSERT INTO pgshunt.job_step (job, step, detail) VALUES ($1, 'flip', 'epoch ' "
                  "|| $2)",
                  2, job, number) &&
           db_run(db, CATALOG_MS, error, "DELETE FROM pgshunt.hold WHERE id = $1::bigint", 1, id) &&
           catalog_announce(db, database, error);
}

bool catalog_finish_attempt(struct db *db, const char *database,
                            const struct catalog_attempt *attempt, catalog_changer *change,
                            const void *arg, struct db_error *error)
{
    bool changed = false;
    if (!catalog_begin(db, error))
        return false;
    bool done = lock_map(db, database, error) &&
                is_ours(db, database, attempt->job, attempt->attempt, attempt->hold, error) &&
                next_epoch(db, database, attempt->job, attempt->epoch, error) &&
                change(db, database, arg, &changed, error) &&
                finish_flip(db, database, attempt->job, attempt->hold, attempt->epoch,
                            attempt->state, error);
    return catalog_end(db, done, error);
}

struct buckets_turn {
    const char *job;
    const struct catalog_move *moves;
    int count;
};

static bool turn_buckets(struct db *db, const char *database, const void *arg, bool *changed,
                         struct db_error *error)
{
    const struct buckets_turn *turn = arg;
    bool done = true;
    for (int i = 0; done && i < turn->count; i++)
        if (is_first_of_keyspace(turn->moves, i))
            done = move_buckets(db, database, turn->moves[i].range.keyspace, turn->moves,
                                turn->count, error);
    *changed = true;
    return done && turn_ghosts(db, database, turn->job, turn->moves, turn->count, error);
}

bool catalog_flip(struct db *db, const char *database, const char *job, const char *attempt,
                  int64_t hold, const struct catalog_move *moves, int count, int64_t epoch,
                  const char *state, struct db_error *error)
{
    struct catalog_attempt what = {job, attempt, state, hold, epoch};
    struct buckets_turn turn = {job, moves, count};
    return catalog_finish_attempt(db, database, &what, turn_buckets, &turn, error);
}

bool catalog_abort(struct db *db, const char *database, const char *job, const char *attempt,
                   int64_t epoch, const char *state, struct db_error *error)
{
    NUMBER(number, epoch);
    if (!catalog_begin(db, error))
        return false;
    bool done =
        lock_map(db, database, error) &&
        RUN_ON_A_ROW(db, error, "the job has been taken over",
                     "UPDATE pgshunt.job SET attempt = NULL, state = $3, changed_at = now() WHERE "
                     "name = $1 AND attempt = $2::uuid AND database = $4",
                     4, job, attempt, state, database) &&
        db_run(db, CATALOG_MS, error, "DELETE FROM pgshunt.hold WHERE database = $1 AND job = $2",
               2, database, job) &&
        db_run(db, CATALOG_MS, error,
               "UPDATE pgshunt.epoch SET epoch = $2::bigint, changed_at = now(), job = $3 WHERE "
               "database = $1 AND epoch < $2::bigint",
               3, database, number, job) &&
        catalog_announce(db, database, error);
    return catalog_end(db, done, error);
}

/* The state that a job was in before its attempt. */
#define STATE_BEFORE                                                                               \
    "CASE state WHEN 'switching' THEN 'streaming' WHEN 'rolling_back' THEN 'switched' ELSE state " \
    "END"
#define TOO_LATE "h.until < clock_timestamp() + $2::int * interval '1 ms'"

/* One statement: a job that is undone raises the epoch to that of its guards, so that proxies pass them. */
static const char expire_sql[] =
    "WITH over AS (DELETE FROM pgshunt.hold h WHERE h.database = $1 AND h.job IS NOT NULL AND "
    "" TOO_LATE " RETURNING h.job),"
    " undone AS (UPDATE pgshunt.job j SET attempt = NULL, state = " STATE_BEFORE ", changed_at = "
    "now() FROM over WHERE j.name = over.job AND j.database = $1 AND j.attempt IS NOT NULL "
    "RETURNING j.name, j.epoch),"
    " steps AS (INSERT INTO pgshunt.job_step (job, step, detail) SELECT name, 'repair', 'a switch "
    "that was not finished is undone' FROM undone)"
    " UPDATE pgshunt.epoch e SET epoch = greatest(e.epoch, u.epoch), changed_at = now() FROM "
    "(SELECT max(epoch) AS epoch FROM undone) u WHERE e.database = $1 AND u.epoch IS NOT NULL";

bool catalog_expire(struct db *db, const char *database, struct db_error *error)
{
    NUMBER(margin, CATALOG_TOO_LATE_MS);
    if (!catalog_begin(db, error))
        return false;
    bool done = lock_map(db, database, error) &&
                db_run(db, CATALOG_MS, error, expire_sql, 2, database, margin) &&
                catalog_announce(db, database, error);
    return catalog_end(db, done, error);
}

bool catalog_change(struct db *db, const char *database, const char *job, catalog_changer *change,
                    const void *arg, struct db_error *error)
{
    bool changed = false;
    if (!catalog_begin(db, error))
        return false;
    bool done = lock_map(db, database, error) && change(db, database, arg, &changed, error) &&
                (!changed ||
                 (raise_epoch(db, database, job, error) && catalog_announce(db, database, error)));
    return catalog_end(db, done, error);
}

struct ghost_change {
    const char *keyspace, *shard, *job;
    bool has;
};

static bool change_ghost(struct db *db, const char *database, const void *arg, bool *changed,
                         struct db_error *error)
{
    const struct ghost_change *ghost = arg;
    return catalog_write_ghost(db, database, ghost->keyspace, ghost->shard, ghost->job, ghost->has,
                               changed, error);
}

bool catalog_set_ghost(struct db *db, const char *database, const char *keyspace, const char *shard,
                       const char *job, bool has, struct db_error *error)
{
    struct ghost_change ghost = {keyspace, shard, job, has};
    return catalog_change(db, database, job, change_ghost, &ghost, error);
}
