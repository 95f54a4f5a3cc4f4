/* catalog_record.c: the first map of a keyspace is recorded, and buckets that come to it later. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "catalog_internal.h"

/* ---- one keyspace ---- */

static bool write_shards(struct db *db, const char *database, const struct shardmap *map,
                         const struct keyspace *keyspace, struct db_error *error)
{
    const char **owners = mem_alloc(sizeof *owners * keyspace->nbuckets);
    for (unsigned i = 0; i < keyspace->nbuckets; i++)
        owners[i] = shardmap_shard_name(map, keyspace->bucket_shard[i]);
    bool done =
        catalog_write_owners(db, database, keyspace->name, owners, keyspace->nbuckets, error);
    free(owners);
    return done;
}

static bool write_kind(struct db *db, const char *database, const struct keyspace *keyspace,
                       struct db_error *error)
{
    char modulus[16];
    snprintf(modulus, sizeof modulus, "%u", keyspace->modulus);
    return db_run(
        db, CATALOG_MS, error,
        "INSERT INTO pgshunt.keyspace VALUES ($1, $2, $3, nullif($4::int, 0)) ON CONFLICT "
        "(database, keyspace) DO UPDATE SET kind = excluded.kind, modulus = "
        "excluded.modulus",
        4, database, keyspace->name, keyspace_kind(keyspace), modulus);
}

static json_t *pieces_of(const struct keyspace *keyspace, struct arena *arena)
{
    json_t *pieces = json_array();
    for (unsigned i = 0; i < keyspace->nentries; i++) {
        const struct key_entry *entry = &keyspace->entries[i];
        json_t *value =
            entry->bytes
                ? json_string(shardkey_text(keyspace->type, entry->bytes, entry->length, arena))
                : json_null();
        json_array_append_new(pieces,
                              json_pack("{si so}", "bucket", (int)entry->bucket, "value", value));
    }
    if (keyspace->rest != SHARDMAP_NO_BUCKET)
        json_array_append_new(pieces, json_pack("{si sn}", "bucket", (int)keyspace->rest, "value"));
    return pieces;
}

static bool write_pieces(struct db *db, const char *database, const struct keyspace *keyspace,
                         struct db_error *error)
{
    struct arena arena;
    if (keyspace->map == MAP_HASH)
        return true;
    arena_init(&arena);
    json_t *pieces = pieces_of(keyspace, &arena);
    char *text = json_dumps(pieces, JSON_COMPACT);
    bool done = db_run(db, CATALOG_MS, error,
                       "DELETE FROM pgshunt.piece WHERE database = $1 AND keyspace = $2", 2,
                       database, keyspace->name) &&
                db_run(db, CATALOG_MS, error,
                       "INSERT INTO pgshunt.piece (database, keyspace, bucket, value) SELECT $1, "
                       "$2, bucket, value FROM jsonb_to_recordset($3::jsonb) AS t (bucket int, "
                       "value text)",
                       3, database, keyspace->name, text);
    json_decref(pieces);
    free(text);
    arena_free(&arena);
    return done;
}

static bool write_keyspace(struct db *db, const char *database, const struct shardmap *map,
                           const struct keyspace *keyspace, struct db_error *error)
{
    return write_kind(db, database, keyspace, error) &&
           write_pieces(db, database, keyspace, error) &&
           write_shards(db, database, map, keyspace, error);
}

/* ---- what is missing ---- */

/* Values that no row of can be anywhere get the shard that the configuration says; true: there were some. */
static bool take_up(struct shardmap *is, const struct shardmap *said, int index)
{
    const struct keyspace *recorded = shardmap_keyspace(is, (unsigned)index),
                          *wanted = shardmap_keyspace(said, (unsigned)index);
    bool some = false;
    if (recorded->map != MAP_LIST || recorded->rest != SHARDMAP_NO_BUCKET)
        return false;
    for (unsigned i = 0; i < wanted->nentries; i++) {
        const struct key_entry *entry = &wanted->entries[i];
        struct shardkey key = {.bytes = entry->bytes, .length = entry->length};
        if (keyspace_value_bucket(recorded, &key) == SHARDMAP_NO_BUCKET)
            some |= shardmap_split(is, index, &key, wanted->bucket_shard[entry->bucket]) !=
                    SHARDMAP_NO_BUCKET;
    }
    if (wanted->rest != SHARDMAP_NO_BUCKET)
        some |=
            shardmap_add_rest(is, index, wanted->bucket_shard[wanted->rest]) != SHARDMAP_NO_BUCKET;
    return some;
}

static bool has_missing_keyspace(const struct database_config *database,
                                 const struct catalog_map *recorded)
{
    for (int i = 0; i < database->nkeyspaces; i++)
        if (!catalog_has_keyspace(recorded, database->keyspaces[i].name))
            return true;
    return false;
}

bool catalog_lacks(const struct database_config *database, const struct catalog_map *recorded,
                   bool values)
{
    struct db_error ignored;
    bool lists = false, lacks = has_missing_keyspace(database, recorded);
    for (int i = 0; i < database->nkeyspaces; i++)
        lists |= database->keyspaces[i].map == MAP_LIST;
    if (lacks || !lists || !values)
        return lacks;
    struct shardmap *said = shardmap_of_config(database),
                    *is = catalog_lay(database, recorded, &ignored);
    for (unsigned k = 0; is && k < shardmap_keyspaces(is); k++)
        lacks |= take_up(is, said, (int)k);
    shardmap_free(said);
    shardmap_free(is);
    return lacks;
}

static bool record_missing(struct db *db, const char *name, const void *arg, bool *changed,
                           struct db_error *error)
{
    const struct database_config *database = arg;
    struct catalog_map recorded;
    struct shardmap *said = shardmap_of_config(database), *is = NULL;
    struct arena arena;
    arena_init(&arena);
    bool good = catalog_read(db, name, &arena, &recorded, error) &&
                (is = catalog_lay(database, &recorded, error)) != NULL;
    for (unsigned k = 0; good && k < shardmap_keyspaces(is); k++) {
        const struct keyspace *keyspace = shardmap_keyspace(is, k);
        if (catalog_has_keyspace(&recorded, keyspace->name) && !take_up(is, said, (int)k))
            continue;
        good = write_keyspace(db, name, is, keyspace, error);
        *changed = true;
    }
    shardmap_free(said);
    shardmap_free(is);
    arena_free(&arena);
    return good;
}

bool catalog_record_map(struct db *db, const struct database_config *database,
                        struct db_error *error)
{
    return catalog_prepare(db, error) &&
           catalog_change(db, database->name, NULL, record_missing, database, error);
}

/* ---- splits ---- */

static bool is_of_epoch(struct db *db, const char *database, int64_t epoch, struct db_error *error)
{
    PGresult *rows =
        db_query(db, CATALOG_MS, error,
                 "SELECT epoch FROM pgshunt.epoch WHERE database = $1 FOR UPDATE", 1, database);
    bool same = rows && PQntuples(rows) == 1 && strtoll(PQgetvalue(rows, 0, 0), NULL, 10) == epoch;
    if (rows && !same)
        catalog_refuse(error, "40001", "the map has changed meanwhile: try again");
    PQclear(rows);
    return same;
}

static bool record_splits(struct db *db, const char *database, const void *arg, bool *changed,
                          struct db_error *error)
{
    const struct shardmap *map = arg;
    bool done = is_of_epoch(db, database, shardmap_epoch(map), error);
    for (unsigned k = 0; done && k < shardmap_keyspaces(map); k++)
        if (shardmap_keyspace(map, k)->map != MAP_HASH)
            done = write_keyspace(db, database, map, shardmap_keyspace(map, k), error);
    *changed = true;
    return done;
}

bool catalog_record_splits(struct db *db, const char *database, const struct shardmap *map,
                           struct db_error *error)
{
    return catalog_change(db, database, NULL, record_splits, map, error);
}
