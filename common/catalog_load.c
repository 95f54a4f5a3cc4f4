/* catalog_load.c: how often buckets are asked for, in the catalog: what is older counts less. */
#include <jansson.h>
#include <stdlib.h>

#include "catalog_internal.h"

/* Halves every ten minutes; what is very old is nothing. */
#define FADED(at) "power(0.5::float8, least(extract(epoch FROM now() - " at ") / 600, 100)::float8)"

static char *loads_json(const struct catalog_load *loads, int count)
{
    json_t *list = json_array();
    for (int i = 0; i < count; i++)
        json_array_append_new(
            list,
            json_pack("{ss si ss sf}", "keyspace", loads[i].keyspace, "bucket",
                      loads[i].bucket == SHARDMAP_NO_BUCKET ? -1 : (int)loads[i].bucket, "shard",
                      loads[i].shard ? loads[i].shard : "", "statements", loads[i].statements));
    char *text = json_dumps(list, JSON_COMPACT);
    json_decref(list);
    return text;
}

/* Proxies write the same rows: in one order, so that they do not wait for each other in a circle. */
bool catalog_add_load(struct db *db, const char *database, const struct catalog_load *loads,
                      int count, struct db_error *error)
{
    char *text = loads_json(loads, count);
    bool done = db_run(db, CATALOG_MS, error,
                       "INSERT INTO pgshunt.bucket_load AS l (database, keyspace, bucket, shard, "
                       "statements, at) SELECT $1, keyspace, bucket, shard, statements, now() FROM "
                       "jsonb_to_recordset($2::jsonb) AS t (keyspace text, bucket int, shard text, "
                       "statements float8) ORDER BY keyspace, bucket, shard ON CONFLICT (database, "
                       "keyspace, bucket, shard) DO UPDATE SET at = now(), statements = "
                       "l.statements * " FADED("l.at") " + excluded.statements",
                       2, database, text) &&
                db_run(db, CATALOG_MS, error,
                       "DELETE FROM pgshunt.bucket_load WHERE ctid = ANY (ARRAY(SELECT ctid FROM "
                       "pgshunt.bucket_load WHERE database = $1 AND statements * " FADED(
                           "at") " < 1 "
                                 "FOR UPDATE SKIP LOCKED))",
                       1, database);
    free(text);
    return done;
}

static bool has_table(struct db *db, bool *has, struct db_error *error)
{
    PGresult *rows =
        db_query(db, CATALOG_MS, error,
                 "SELECT pg_catalog.to_regclass('pgshunt.bucket_load') IS NOT NULL", 0);
    *has = rows && PQgetvalue(rows, 0, 0)[0] == 't';
    PQclear(rows);
    return rows != NULL;
}

bool catalog_read_load(struct db *db, const char *database, struct arena *arena,
                       struct catalog_load **loads, int *count, struct db_error *error)
{
    bool has;
    *count = 0;
    if (!has_table(db, &has, error))
        return false;
    if (!has)
        return true;
    PGresult *rows =
        db_query(db, CATALOG_MS, error,
                 "SELECT keyspace, bucket, shard, statements * " FADED(
                     "at") " FROM "
                           "pgshunt.bucket_load WHERE database = $1 ORDER BY 4 DESC, 1, 2, 3",
                 1, database);
    if (!rows)
        return false;
    *count = PQntuples(rows);
    *loads = arena_array(arena, struct catalog_load, *count);
    for (int i = 0; i < *count; i++) {
        int bucket = atoi(PQgetvalue(rows, i, 1));
        (*loads)[i] = (struct catalog_load){
            .keyspace = arena_strdup(arena, PQgetvalue(rows, i, 0)),
            .bucket = bucket < 0 ? SHARDMAP_NO_BUCKET : (unsigned)bucket,
            .shard = bucket < 0 ? arena_strdup(arena, PQgetvalue(rows, i, 2)) : NULL,
            .statements = strtod(PQgetvalue(rows, i, 3), NULL)};
    }
    PQclear(rows);
    return true;
}
