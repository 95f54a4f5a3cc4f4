/* fleet.c: connections with the primaries of all shards of a database, and what is told of them. */
#include "fleet/fleet.h"

#include <string.h>

#include "pgshunt/catalog.h"

/* ---- telling ---- */

void fleet_tell(struct fleet *fleet, enum fleet_event_kind kind, int shard, const char *object,
                const char *text, const char *mend)
{
    struct fleet_event event = {
        .kind = kind,
        .shard = shard >= 0 ? fleet->shards[shard].name : NULL,
        .object = object,
        .text = text,
        .mend = mend,
    };
    fleet->problems += kind == FLEET_PROBLEM;
    fleet->failed += kind == FLEET_FAILED;
    fleet->changed |= kind == FLEET_DONE;
    fleet->request->tell(fleet->request->arg, &event);
}

bool fleet_fails(struct fleet *fleet, int shard, const char *object, const char *what)
{
    fleet_tell(fleet, FLEET_FAILED, shard, object,
               FLEET_TEXT(fleet, "%s: %s", what, fleet->error.text),
               fleet->error.hint[0] ? FLEET_TEXT(fleet, "%s", fleet->error.hint) : NULL);
    return false;
}

enum fleet_outcome fleet_outcome(const struct fleet *fleet)
{
    if (fleet->failed)
        return fleet->changed ? FLEET_OUTCOME_UNFINISHED : FLEET_OUTCOME_FAILED;
    return fleet->problems ? FLEET_OUTCOME_DIFFERENT : FLEET_OUTCOME_DONE;
}

bool fleet_stopped(const struct fleet *fleet)
{
    return fleet->request->stop && *fleet->request->stop;
}

/* ---- opening ---- */

static bool open_all(struct fleet *fleet, const char *application)
{
    bool good = true;
    struct primary_login login = {
        .config = fleet->request->config,
        .database = fleet->database,
        .user = fleet->request->user,
        .application = application,
        .stop = fleet->request->stop,
    };
    fleet->nshards = fleet->database->nshards;
    fleet->shards = arena_array(&fleet->arena, struct fleet_shard, fleet->nshards);
    for (int i = 0; i < fleet->nshards; i++)
        fleet->shards[i].name = fleet->database->shards[i].name;
    for (int i = 0; i < fleet->nshards; i++) {
        fleet->shards[i].db = primary_open(&login, &fleet->database->shards[i], &fleet->error);
        if (!fleet->shards[i].db)
            good = fleet_fails(fleet, i, NULL, "cannot connect to the shard's primary");
    }
    return good;
}

/* What is recorded counts, as it does for proxies; where it cannot be read, the configuration does. */
static void follow_catalog(struct fleet *fleet)
{
    const struct config *config = fleet->request->config;
    struct shardmap *map;
    struct db_error ignored;
    if (config->catalog_map != CATALOG_RECORDED || !catalog_is_for(fleet->database))
        return;
    for (int i = 0; i < fleet->nshards; i++)
        if (strcmp(fleet->shards[i].name, fleet->database->catalog) == 0 &&
            catalog_read_map(fleet->shards[i].db, fleet->database, &map, &ignored)) {
            shardmap_free(fleet->map);
            fleet->map = map;
        }
}

bool fleet_open(struct fleet *fleet, const struct fleet_request *request, const char *application)
{
    *fleet = (struct fleet){.request = request};
    arena_init(&fleet->arena);
    fleet->database = config_database(request->config, request->database);
    if (!fleet->database) {
        fleet_tell(fleet, FLEET_FAILED, -1, NULL,
                   FLEET_TEXT(fleet, "the configuration has no database \"%s\"", request->database),
                   NULL);
        return false;
    }
    fleet->map = shardmap_of_config(fleet->database);
    if (!open_all(fleet, application))
        return false;
    follow_catalog(fleet);
    return true;
}

void fleet_close(struct fleet *fleet)
{
    for (int i = 0; i < fleet->nshards; i++)
        db_close(fleet->shards[i].db);
    if (fleet->map)
        shardmap_free(fleet->map);
    arena_free(&fleet->arena);
}

/* ---- asking ---- */

bool fleet_run_all(struct fleet *fleet, const char *sql, int *shard)
{
    struct db_error error;
    *shard = -1;
    for (int i = 0; i < fleet->nshards; i++)
        if (!db_send(fleet->shards[i].db, &error, sql) && *shard < 0) {
            *shard = i;
            fleet->error = error;
        }
    for (int i = 0; i < fleet->nshards; i++) {
        PGresult *result = db_take(fleet->shards[i].db, FLEET_QUERY_MS, &error);
        if (!result && *shard < 0) {
            *shard = i;
            fleet->error = error;
        }
        PQclear(result);
    }
    return *shard < 0;
}

void fleet_rollback_all(struct fleet *fleet)
{
    struct db_error ignored;
    for (int i = 0; i < fleet->nshards; i++)
        if (db_is_open(fleet->shards[i].db))
            db_run(fleet->shards[i].db, FLEET_CONNECT_MS, &ignored, "ROLLBACK", 0);
}

const char *fleet_text(struct fleet *fleet, const PGresult *rows, int row, int column)
{
    return PQgetisnull(rows, row, column)
               ? NULL
               : arena_strdup(&fleet->arena, PQgetvalue(rows, row, column));
}

const char *fleet_value(struct fleet *fleet, int shard, const char *sql)
{
    PGresult *rows = fleet_query(fleet, shard, sql, 0);
    const char *value = rows && PQntuples(rows) ? fleet_text(fleet, rows, 0, 0) : NULL;
    PQclear(rows);
    return value;
}
