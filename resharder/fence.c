/* fence.c: locks, guards and markers on a shard. */
#include "resharder/fence.h"

#include <stdlib.h>
#include <string.h>

#include "pgshunt/buffer.h"
#include "pgshunt/guard.h"
#include "resharder/slot.h"

#define LIFT_MS 10000

struct fence {
    struct reshard *reshard;
    const struct move_tables *tables;
    unsigned shard;
    struct db *db;
    bool locked;
};

struct fence *fence_open(struct reshard *reshard, unsigned shard, const struct move_tables *tables)
{
    struct db *db = reshard_open(reshard, shard, &reshard->error);
    if (!db)
        return NULL;
    struct fence *fence = mem_alloc(sizeof *fence);
    *fence = (struct fence){.reshard = reshard, .tables = tables, .shard = shard, .db = db};
    return fence;
}

void fence_close(struct fence *fence)
{
    if (!fence)
        return;
    db_close(fence->db); /* the server rolls back what is open */
    free(fence);
}

static bool run(struct fence *fence, const char *sql)
{
    return db_run(fence->db, RESHARD_QUERY_MS, &fence->reshard->error, sql, 0);
}

/* ---- the lock ---- */

/* "a", "b": with their partitions, which LOCK TABLE takes along. */
static const char *table_list(const struct fence *fence)
{
    const char *list = "";
    for (int i = 0; i < fence->tables->count; i++)
        list = RESHARD_TEXT(fence->reshard, "%s%s%s", list, i ? ", " : "",
                            fence->tables->items[i].relation);
    return list;
}

/* Only a superuser, or who was granted it, may set it: then an autovacuum worker yields at once. */
static bool be_quick(struct fence *fence)
{
    return run(fence, "SAVEPOINT quick") &&
           (run(fence, "SET LOCAL deadlock_timeout = '10ms'") ||
            (db_is_open(fence->db) && run(fence, "ROLLBACK TO quick"))) &&
           run(fence,
               RESHARD_TEXT(fence->reshard, "SET LOCAL lock_timeout = '%dms'", FENCE_LOCK_MS));
}

static enum fence_result try_lock(struct fence *fence, const char *list)
{
    if (!run(fence, "BEGIN") || !be_quick(fence))
        return FENCE_FAILED;
    if (!fence->tables->count) /* nothing that could be written to */
        return FENCE_LOCKED;
    if (run(fence, RESHARD_TEXT(fence->reshard, "LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE", list)))
        return FENCE_LOCKED;
    const char *state = fence->reshard->error.sqlstate;
    bool again = strcmp(state, "55P03") == 0 || strcmp(state, "40P01") == 0;
    if (!db_is_open(fence->db) || !again)
        return FENCE_FAILED;
    return run(fence, "ROLLBACK") ? FENCE_BLOCKED : FENCE_FAILED;
}

/* Whoever holds a lock on one of the tables (or partitions) that keeps ours from being granted. */
static const char blockers_query[] =
    "WITH RECURSIVE wanted(oid) AS (SELECT unnest($1::oid[]) UNION SELECT i.inhrelid FROM wanted w"
    " JOIN pg_inherits i ON i.inhparent = w.oid),"
    " holding AS (SELECT DISTINCT l.pid FROM pg_locks l JOIN wanted w ON l.relation = w.oid"
    " WHERE l.locktype = 'relation' AND l.granted AND l.pid IS DISTINCT FROM pg_backend_pid()"
    " AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    " AND l.mode NOT IN ('AccessShareLock', 'RowShareLock'))"
    " SELECT h.pid, CASE WHEN h.pid IS NULL THEN 'a prepared transaction (see pg_prepared_xacts)'"
    " ELSE format('process %s (%s, %s, %s, in its transaction for %s s): %s', h.pid,"
    "   coalesce(a.usename, '?'), coalesce(nullif(a.application_name, ''), 'no application_name'),"
    "   coalesce(a.state, a.backend_type), coalesce(extract(epoch FROM now() - "
    "a.xact_start)::int::text, '?'),"
    "   left(coalesce(a.query, ''), 60)) END, coalesce(a.backend_type, '') = 'client backend'"
    " FROM holding h LEFT JOIN pg_stat_activity a ON a.pid = h.pid ORDER BY a.xact_start LIMIT 5";

static const char *oid_list(const struct fence *fence)
{
    const char *list = "{";
    for (int i = 0; i < fence->tables->count; i++)
        list =
            RESHARD_TEXT(fence->reshard, "%s%s%u", list, i ? "," : "", fence->tables->items[i].oid);
    return RESHARD_TEXT(fence->reshard, "%s}", list);
}

/* Leaves in reshard->error who is in the way; with `end`, they are terminated. */
static void name_blockers(struct fence *fence, bool end)
{
    struct reshard *reshard = fence->reshard;
    struct db_error ignored;
    struct db_error blocked = {.text = "writers did not let go of the tables in time",
                               .hint = "Try again, or give more time (--drain)."};
    PGresult *rows =
        db_query(fence->db, RESHARD_QUERY_MS, &ignored, blockers_query, 1, oid_list(fence));
    for (int i = 0; rows && i < PQntuples(rows); i++) {
        size_t used = strlen(blocked.text);
        snprintf(blocked.text + used, sizeof blocked.text - used, "%s%s", i ? "; " : ": ",
                 PQgetvalue(rows, i, 1));
        if (end && PQgetvalue(rows, i, 2)[0] == 't')
            db_run(fence->db, RESHARD_QUERY_MS, &ignored, "SELECT pg_terminate_backend($1::int)", 1,
                   PQgetvalue(rows, i, 0));
    }
    PQclear(rows);
    reshard->error = blocked;
}

enum fence_result fence_lock(struct fence *fence, int64_t until, bool force)
{
    const char *list = table_list(fence);
    for (int attempt = 0;; attempt++) {
        enum fence_result result = try_lock(fence, list);
        fence->locked = result == FENCE_LOCKED;
        if (result != FENCE_BLOCKED)
            return result;
        bool late = db_clock_ms() >= until;
        if (late || (force && attempt == 1))
            name_blockers(fence, force && !late);
        if (late)
            return FENCE_BLOCKED;
        reshard_sleep(fence->reshard, 2000 + rand() % 8 * 1000); /* another writer's turn */
    }
}

/* ---- the guard ---- */

static bool guard_relation(struct fence *fence, const char *relation, int64_t epoch)
{
    return run(fence, RESHARD_TEXT(fence->reshard,
                                   "CREATE TRIGGER " GUARD_TRIGGER "%lld BEFORE INSERT OR UPDATE OR"
                                   " DELETE OR TRUNCATE ON %s FOR EACH STATEMENT EXECUTE FUNCTION"
                                   " pgshunt.guard('%lld')",
                                   (long long)epoch, relation, (long long)epoch));
}

bool fence_guard(struct fence *fence, int64_t epoch)
{
    for (int i = 0; i < fence->tables->count; i++) {
        const struct move_table *table = &fence->tables->items[i];
        if (table->partitioned && !guard_relation(fence, table->relation, epoch))
            return false;
        for (int j = 0; j < table->nleaves; j++)
            if (!guard_relation(fence, table->leaves[j].relation, epoch))
                return false;
    }
    return true;
}

bool fence_commit(struct fence *fence)
{
    fence->locked = false;
    return run(fence, "COMMIT");
}

/* Our triggers up to an epoch, with what they are on. */
static const char guards_query[] =
    "SELECT format('DROP TRIGGER %I ON %I.%I', t.tgname, n.nspname, c.relname) FROM pg_trigger t"
    " JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace"
    " WHERE t.tgname LIKE 'pgshunt\\_guard\\_%' AND NOT t.tgisinternal AND t.tgparentid = 0"
    " AND substr(t.tgname, length('" GUARD_TRIGGER "') + 1)::bigint <= $2"
    " AND c.oid IN (SELECT p.relid FROM unnest($1::oid[]) w(oid), pg_partition_tree(w.oid) p"
    "   UNION SELECT unnest($1::oid[]))";

static bool drop_guard(struct fence *fence, const char *statement, int64_t until)
{
    const char *both = RESHARD_TEXT(fence->reshard, "SET lock_timeout = '%dms'", FENCE_LOCK_MS);
    if (!run(fence, both))
        return false;
    while (!run(fence, statement)) {
        bool again = strcmp(fence->reshard->error.sqlstate, "55P03") == 0;
        if (!again || db_clock_ms() >= until || reshard_stopped(fence->reshard))
            return false;
        reshard_sleep(fence->reshard, 20000);
    }
    return true;
}

bool fence_lift(struct reshard *reshard, unsigned shard, const struct move_tables *tables,
                int64_t epoch)
{
    struct fence *fence = fence_open(reshard, shard, tables);
    if (!fence)
        return false;
    int64_t until = db_clock_ms() + LIFT_MS;
    PGresult *rows = db_query(fence->db, RESHARD_QUERY_MS, &reshard->error, guards_query, 2,
                              oid_list(fence), RESHARD_TEXT(reshard, "%lld", (long long)epoch));
    bool good = rows != NULL;
    for (int i = 0; good && i < PQntuples(rows); i++)
        good = drop_guard(fence, PQgetvalue(rows, i, 0), until);
    PQclear(rows);
    fence_close(fence);
    return good;
}

/* ---- markers ---- */

bool fence_mark(struct reshard *reshard, unsigned shard, const char *marker)
{
    struct db *db = reshard_primary(reshard, shard);
    return db && slot_mark(db, marker, &reshard->error);
}
