/* foreign_keys.c: foreign keys made NOT VALID on a target, and validated then, several at once. */
#include "resharder/foreign_keys.h"

#include <stdlib.h>
#include <string.h>

#include "pgshunt/failpoint.h"

#define LOCK_TRIES 200
#define LOCK_REST_US 100000
#define WEEK_MS (INT64_C(7) * 24 * 3600 * 1000)
#define JOBS_MOST 16

/* Names in definitions are qualified under this search_path, and found under any. */
static const char search_path[] = "SELECT set_config('search_path', 'pg_catalog', false)";

/* ---- what the source has ---- */

static const char keys_query[] =
    "SELECT k.oid, format('%I.%I', n.nspname, c.relname), k.conname, quote_ident(k.conname),"
    " pg_get_constraintdef(k.oid) FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid"
    " JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_class r ON r.oid = k.confrelid"
    " WHERE k.contype = 'f' AND k.conparentid = 0 AND k.convalidated AND c.relkind = 'r'"
    " AND r.relkind = 'r' ORDER BY 2, 3";

bool foreign_keys_read(struct reshard *reshard, unsigned shard, struct foreign_keys *keys)
{
    struct arena *arena = &reshard->arena;
    struct db *db = reshard_open(reshard, shard, &reshard->error);
    PGresult *rows = db && db_run(db, RESHARD_QUERY_MS, &reshard->error, search_path, 0)
                         ? db_query(db, RESHARD_QUERY_MS, &reshard->error, keys_query, 0)
                         : NULL;
    db_close(db);
    if (!rows)
        return false;
    keys->count = PQntuples(rows);
    keys->items = arena_array(arena, struct foreign_key, keys->count + 1);
    for (int i = 0; i < keys->count; i++)
        keys->items[i] = (struct foreign_key){
            .oid = (unsigned)strtoul(PQgetvalue(rows, i, 0), NULL, 10),
            .table = arena_strdup(arena, PQgetvalue(rows, i, 1)),
            .name = arena_strdup(arena, PQgetvalue(rows, i, 2)),
            .quoted = arena_strdup(arena, PQgetvalue(rows, i, 3)),
            .definition = arena_strdup(arena, PQgetvalue(rows, i, 4)),
        };
    PQclear(rows);
    return true;
}

/* ---- making ---- */

enum on_target {
    KEY_UNKNOWN, /* it could not be asked */
    KEY_MISSING,
    KEY_NOT_VALID,
    KEY_VALID,
};

static enum on_target look(struct reshard *reshard, struct db *db, const struct foreign_key *key)
{
    enum on_target found = KEY_UNKNOWN;
    PGresult *rows = db_query(db, RESHARD_QUERY_MS, &reshard->error,
                              "SELECT convalidated FROM pg_constraint WHERE contype = 'f' AND"
                              " conrelid = to_regclass($1) AND conname = $2",
                              2, key->table, key->name);
    if (rows && !PQntuples(rows))
        found = KEY_MISSING;
    else if (rows)
        found = PQgetvalue(rows, 0, 0)[0] == 't' ? KEY_VALID : KEY_NOT_VALID;
    PQclear(rows);
    return found;
}

/* Its lock keeps writers away from both tables, for a moment: it must not queue before them for long. */
static bool add(struct reshard *reshard, struct db *db, const struct foreign_key *key)
{
    const char *sql = RESHARD_TEXT(reshard, "ALTER TABLE ONLY %s ADD CONSTRAINT %s %s NOT VALID",
                                   key->table, key->quoted, key->definition);
    for (int i = 0; i < LOCK_TRIES && !reshard_stopped(reshard); i++) {
        if (db_run(db, RESHARD_QUERY_MS, &reshard->error, sql, 0))
            return true;
        if (strcmp(reshard->error.sqlstate, "55P03") != 0)
            return false;
        reshard_sleep(reshard, LOCK_REST_US);
    }
    return false;
}

/* Those to be validated then: `left`, `*count` of them. */
static bool add_missing(struct reshard *reshard, struct db *db, const struct foreign_keys *keys,
                        const struct foreign_key **left, int *count)
{
    for (int i = 0; i < keys->count; i++) {
        const struct foreign_key *key = &keys->items[i];
        enum on_target found = key->wanted ? look(reshard, db, key) : KEY_VALID;
        if (found == KEY_UNKNOWN || (found == KEY_MISSING && !add(reshard, db, key)))
            return false;
        if (found != KEY_VALID)
            left[(*count)++] = key;
    }
    return true;
}

/* ---- validating ---- */

/* Statements go to sessions in turn; the answer of one is taken before it gets the next. */
struct validating {
    struct reshard *reshard;
    const char *shard; /* its name */
    const struct foreign_key **keys;
    int count, sent, taken;
    struct db *sessions[JOBS_MOST];
    int nsessions;
};

/* A lock of its kind stops neither readers nor writers, so it may wait for one of a run that was killed. */
static bool send_next(struct validating *v)
{
    struct reshard *reshard = v->reshard;
    const struct foreign_key *key = v->keys[v->sent];
    reshard_tell(reshard, RESHARD_NOTE, v->shard, key->table,
                 RESHARD_TEXT(reshard, "foreign key %s is validated, %d of %d", key->quoted,
                              v->sent + 1, v->count),
                 NULL);
    return db_send(
        v->sessions[v->sent++ % v->nsessions], &reshard->error,
        RESHARD_TEXT(reshard, "ALTER TABLE %s VALIDATE CONSTRAINT %s", key->table, key->quoted));
}

static bool take_next(struct validating *v)
{
    PGresult *result = db_take(v->sessions[v->taken++ % v->nsessions], WEEK_MS, &v->reshard->error);
    PQclear(result);
    failpoint("run_validated");
    return result != NULL;
}

static bool validate(struct validating *v)
{
    bool good = true;
    while (good && v->taken < v->count)
        good =
            v->sent < v->count && v->sent - v->taken < v->nsessions ? send_next(v) : take_next(v);
    return good;
}

static bool open_sessions(struct validating *v, unsigned shard, int wanted)
{
    struct db_error *error = &v->reshard->error;
    while (v->nsessions < wanted) {
        struct db *db = reshard_open(v->reshard, shard, error);
        if (!db)
            return false;
        v->sessions[v->nsessions++] = db;
    }
    return true;
}

/* Where one has failed, or all is stopped, the others need not go on: what takes no time is cancelled. */
static void end_sessions(struct validating *v)
{
    struct db_error ignored;
    for (; v->taken < v->sent; v->taken++)
        PQclear(db_take(v->sessions[v->taken % v->nsessions], 0, &ignored));
    for (int i = 0; i < v->nsessions; i++)
        db_close(v->sessions[i]);
}

static bool validate_all(struct validating *v, unsigned shard, int jobs)
{
    int wanted = jobs < JOBS_MOST ? jobs : JOBS_MOST;
    bool good = open_sessions(v, shard, wanted < v->count ? wanted : v->count) && validate(v);
    end_sessions(v);
    return good;
}

bool foreign_keys_make(struct reshard *reshard, unsigned shard, const struct foreign_keys *keys,
                       int jobs)
{
    struct validating v = {
        .reshard = reshard,
        .shard = shardmap_shard_name(reshard->map, shard),
        .keys = arena_array(&reshard->arena, const struct foreign_key *, keys->count + 1),
    };
    struct db *db = reshard_open(reshard, shard, &reshard->error);
    bool good = db &&
                db_run(db, RESHARD_QUERY_MS, &reshard->error,
                       "SELECT set_config('lock_timeout', '300ms', false)", 0) &&
                add_missing(reshard, db, keys, v.keys, &v.count);
    db_close(db);
    failpoint("run_not_valid");
    return good && validate_all(&v, shard, jobs);
}
