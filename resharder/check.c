/* check.c: everything that would stop a job: which shards are looked at, other jobs, what is told. */
#include "resharder/check.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "resharder/clone.h"
#include "resharder/schema_copy.h"

#define uthash_malloc(size) mem_alloc(size)
#include <uthash.h>

/* ---- telling ---- */

struct check_told {
    const char *words;
    UT_hash_handle hh;
};

static bool is_told(struct check *check, const char *shard, const char *object, const char *text)
{
    struct check_told *told;
    const char *words =
        RESHARD_TEXT(check->reshard, "%s|%s|%s", shard ? shard : "", object ? object : "", text);
    HASH_FIND(hh, check->told, words, strlen(words), told);
    if (told)
        return true;
    told = arena_new(&check->reshard->arena, struct check_told);
    told->words = words;
    HASH_ADD_KEYPTR(hh, check->told, told->words, strlen(told->words), told);
    return false;
}

void check_problem(struct check *check, const char *shard, const char *object, const char *text,
                   const char *mend)
{
    if (is_told(check, shard, object, text))
        return;
    check->problems++;
    reshard_tell(check->reshard, RESHARD_PROBLEM, shard, object, text, mend);
}

void check_note(struct check *check, const char *shard, const char *object, const char *text,
                const char *mend)
{
    if (!check->prepared && !is_told(check, shard, object, text))
        reshard_tell(check->reshard, RESHARD_NOTE, shard, object, text, mend);
}

bool check_fails(struct check *check, unsigned shard, const char *what)
{
    (void)reshard_fails(check->reshard, shardmap_shard_name(check->reshard->map, shard), what);
    return false;
}

static const char *cell(const PGresult *rows, int row, int column)
{
    return PQgetisnull(rows, row, column) ? NULL : PQgetvalue(rows, row, column);
}

bool check_ask(struct check *check, unsigned shard, const char *what, const char *sql,
               const char *first, const char *second)
{
    struct reshard *reshard = check->reshard;
    struct db *db = reshard_primary(reshard, shard);
    int nparams = (first != NULL) + (second != NULL);
    PGresult *rows =
        db ? db_query(db, RESHARD_QUERY_MS, &reshard->error, sql, nparams, first, second) : NULL;
    const char *name = shardmap_shard_name(reshard->map, shard);
    if (!rows && strcmp(reshard->error.sqlstate, "42501") == 0) {
        check_problem(check, name, NULL, RESHARD_TEXT(reshard, "%s", reshard->error.text),
                      "GRANT the role what it lacks, or use a superuser");
        return true;
    }
    if (!rows)
        return check_fails(check, shard, what);
    for (int i = 0; i < PQntuples(rows); i++) {
        bool problem = strcmp(PQgetvalue(rows, i, 0), "problem") == 0;
        (problem ? check_problem : check_note)(check, name, cell(rows, i, 1),
                                               PQgetvalue(rows, i, 2), cell(rows, i, 3));
    }
    PQclear(rows);
    return true;
}

/* ---- the shards ---- */

bool check_is_source(const struct check *check, unsigned shard)
{
    for (int i = 0; i < check->nlinks; i++)
        if (check->links[i].source == shard)
            return true;
    return false;
}

bool check_is_target(const struct check *check, unsigned shard)
{
    for (int i = 0; i < check->nlinks; i++)
        if (check->links[i].target == shard)
            return true;
    return false;
}

static bool read_tables(struct check *check, unsigned shard)
{
    struct reshard *reshard = check->reshard;
    struct db *db = reshard_primary(reshard, shard);
    return (db && tables_read(db, &reshard->moves, &reshard->arena, &check->tables[shard],
                              &reshard->error)) ||
           check_fails(check, shard, "cannot read the tables");
}

static bool find_empty(struct check *check, unsigned shard)
{
    struct reshard *reshard = check->reshard;
    if (!check->prepare_schema || check->prepared || !check_is_target(check, shard))
        return true;
    if (!schema_is_empty(reshard, shard, &check->empty[shard]))
        return check_fails(check, shard, "cannot read the tables");
    check->makes[shard] = check->empty[shard];
    return true;
}

/* Tables that enter are made next to those that are there. */
static void find_missing(struct check *check, unsigned shard)
{
    bool wished = check->moved && check->prepare_schema && !check->prepared;
    if (wished && check_is_target(check, shard) && !check->moved->out)
        check->makes[shard] |= check->tables[shard].count < check->moved->count;
}

static bool check_shard(struct check *check, unsigned shard)
{
    if (check->clone && check_is_target(check, shard))
        return clone_check(check, shard);
    return find_empty(check, shard) && check_server(check, shard) && read_tables(check, shard) &&
           check_tables(check, shard);
}

/* ---- other jobs ---- */

static bool has_jobs(struct reshard *reshard, bool *has)
{
    PGresult *rows = db_query(reshard_catalog(reshard), RESHARD_QUERY_MS, &reshard->error,
                              "SELECT FROM pg_tables WHERE schemaname = 'pgshunt' AND tablename"
                              " = 'job_move'",
                              0);
    *has = rows && PQntuples(rows) > 0;
    PQclear(rows);
    return rows != NULL;
}

static const char jobs_query[] =
    "SELECT 'problem', j.name, format('moves buckets of keyspace %s on %s too, and is %s: a shard"
    " may be part of one job at a time for each keyspace', m.keyspace,"
    " string_agg(DISTINCT s.shard, ', ' ORDER BY s.shard), j.state),"
    " CASE WHEN j.state IN ('created', 'copying', 'indexing', 'streaming')"
    " THEN format('pgshuntctl reshard cancel %s, or finish it', j.name)"
    " ELSE format('pgshuntctl reshard complete %s', j.name) END"
    " FROM pgshunt.job j JOIN pgshunt.job_move m ON m.job = j.name"
    " CROSS JOIN LATERAL (VALUES (m.source), (m.target)) s(shard)"
    " WHERE j.database = $1 AND j.state NOT IN ('completed', 'cancelled')"
    " AND $2::jsonb -> m.keyspace ? s.shard"
    " GROUP BY 1, j.name, m.keyspace, j.state";

/* A clone has everything that its source has: of what keyspace does not matter. */
static void take_other_keyspaces(const struct reshard *reshard, json_t *all)
{
    for (unsigned k = 0; k < shardmap_keyspaces(reshard->map); k++) {
        const char *name = shardmap_keyspace(reshard->map, k)->name;
        if (!json_object_get(all, name))
            json_object_set_new(
                all, name,
                json_pack("[s, s]",
                          shardmap_shard_name(reshard->map, reshard->moves.items[0].source),
                          shardmap_shard_name(reshard->map, reshard->moves.items[0].target)));
    }
}

/* {"users": ["s0", "s2"]}: the shards that give or take buckets, by keyspace. */
static json_t *shards_of(const struct reshard *reshard)
{
    json_t *all = json_object();
    for (int i = 0; i < reshard->moves.count; i++) {
        const struct move *move = &reshard->moves.items[i];
        json_t *shards = json_object_get(all, move->keyspace->name);
        if (!shards)
            json_object_set_new(all, move->keyspace->name, shards = json_array());
        json_array_append_new(shards, json_string(shardmap_shard_name(reshard->map, move->source)));
        json_array_append_new(shards, json_string(shardmap_shard_name(reshard->map, move->target)));
    }
    return all;
}

/*
 * A shard has one table of ghost keys for a keyspace, of all jobs, and what it says of a key depends on whether the shard
 * gives or takes, and on whether that has been switched. So two jobs on a keyspace must not have a shard in common; then
 * they have no bucket in common either, and each switches by itself.
 */
static bool check_jobs(struct check *check)
{
    struct reshard *reshard = check->reshard;
    bool has = false;
    if (!has_jobs(reshard, &has))
        return check_fails(check, reshard->catalog, "cannot read the jobs");
    json_t *shards = shards_of(reshard);
    if (check->clone)
        take_other_keyspaces(reshard, shards);
    char *text = json_dumps(shards, JSON_COMPACT);
    json_decref(shards);
    bool good = !has || check_ask(check, reshard->catalog, "cannot read the jobs", jobs_query,
                                  reshard->request->database, text);
    free(text);
    return good;
}

static bool gives_and_takes(const struct moves *moves, const struct keyspace *keyspace,
                            unsigned shard)
{
    bool gives = false, takes = false;
    for (int i = 0; i < moves->count; i++) {
        gives |= moves->items[i].keyspace == keyspace && moves->items[i].source == shard;
        takes |= moves->items[i].keyspace == keyspace && moves->items[i].target == shard;
    }
    return gives && takes;
}

/* A shard's table of ghost keys says of a key that its rows do not count: those that come before the switch, those
 * that go behind it. It has one such table for a keyspace, so it cannot do both. */
static void check_ways(struct check *check)
{
    struct reshard *reshard = check->reshard;
    for (unsigned k = 0; k < shardmap_keyspaces(reshard->map); k++)
        for (unsigned s = 0; s < shardmap_shards(reshard->map); s++) {
            const struct keyspace *keyspace = shardmap_keyspace(reshard->map, k);
            if (gives_and_takes(&reshard->moves, keyspace, s))
                check_problem(check, shardmap_shard_name(reshard->map, s), keyspace->name,
                              "the shard would both give and take buckets of the keyspace",
                              "Let it do the one in this job, and the other in a later one");
        }
}

bool check_all(struct check *check)
{
    struct reshard *reshard = check->reshard;
    unsigned nshards = shardmap_shards(reshard->map);
    bool good = true;
    if (reshard->request->config->catalog_map != CATALOG_RECORDED)
        check_problem(check, NULL, "catalog.map",
                      "proxies do not follow what is recorded: they would go on with the "
                      "configuration's map",
                      "catalog.map = \"recorded\", in the configuration of every proxy");
    check->links = moves_links(&reshard->moves, &reshard->arena, &check->nlinks);
    check->tables = arena_array(&reshard->arena, struct move_tables, nshards);
    check->makes = arena_array(&reshard->arena, bool, nshards);
    check->empty = arena_array(&reshard->arena, bool, nshards);
    if (check->moved && !check_moved_names(check))
        return false;
    if (check->moved && check->problems) /* what they are is not known well enough for the rest */
        return check_jobs(check);
    check_ways(check);
    for (unsigned s = 0; s < nshards; s++)
        if (check_is_source(check, s) || check_is_target(check, s))
            good &= check_shard(check, s);
    for (unsigned s = 0; s < nshards; s++)
        find_missing(check, s);
    good = good && (!check->moved || check_moved(check));
    for (int i = 0; i < check->nlinks && good && !check->clone; i++)
        good &= check_schema(check, &check->links[i]);
    return check_jobs(check) && good;
}

void check_end(struct check *check)
{
    HASH_CLEAR(hh, check->told);
}
