/* catalog_lay.c: what is recorded of a map, laid over the map of the configuration; and how they differ. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "catalog_internal.h"

bool catalog_has_keyspace(const struct catalog_map *recorded, const char *keyspace)
{
    for (int i = 0; i < recorded->nowners; i++)
        if (strcmp(recorded->owners[i].range.keyspace, keyspace) == 0)
            return true;
    return false;
}

bool catalog_is_for(const struct database_config *database)
{
    return database->nshards > 1 && database->nkeyspaces > 0;
}

static bool no_shard(const char *keyspace, const char *shard, struct db_error *error)
{
    catalog_refuse(error, "F0000", "");
    snprintf(error->text, sizeof error->text,
             "the recorded map of keyspace \"%s\" names shard \"%s\", which the configuration does "
             "not have",
             keyspace, shard);
    snprintf(
        error->hint, sizeof error->hint,
        "Add shard \"%s\" to the configuration; \"pgshuntctl reshard\" empties a shard that is "
        "to go.",
        shard);
    return false;
}

static bool misfit(struct db_error *error, const char *hint, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static bool misfit(struct db_error *error, const char *hint, const char *format, ...)
{
    va_list args;
    catalog_refuse(error, "F0000", "");
    va_start(args, format);
    vsnprintf(error->text, sizeof error->text, format, args);
    va_end(args);
    snprintf(error->hint, sizeof error->hint, "%s", hint);
    return false;
}

/* ---- which buckets there are ---- */

static const struct catalog_kind *kind_of(const struct catalog_map *recorded, const char *keyspace)
{
    static const struct catalog_kind by_hash = {"", "hash", 0};
    for (int i = 0; i < recorded->nkinds; i++)
        if (strcmp(recorded->kinds[i].keyspace, keyspace) == 0)
            return &recorded->kinds[i];
    return &by_hash;
}

/* Of one keyspace by list or range: `keys` is room for its values. */
static bool lay_pieces(struct shardmap *map, int index, const struct catalog_map *recorded,
                       struct key_entry *entries, struct shardkey *keys, struct db_error *error)
{
    const struct keyspace *keyspace = shardmap_keyspace(map, (unsigned)index);
    unsigned count = 0, rest = SHARDMAP_NO_BUCKET;
    for (int i = 0; i < recorded->npieces; i++) {
        const struct catalog_piece *piece = &recorded->pieces[i];
        const char *value = piece->value;
        if (strcmp(piece->keyspace, keyspace->name) != 0)
            continue;
        if (!value && keyspace->map == MAP_LIST) {
            rest = piece->bucket;
            continue;
        }
        entries[count] = (struct key_entry){.bucket = piece->bucket};
        if (value && !shardkey_from_text(keyspace->type, value, strlen(value), &keys[count]))
            return misfit(error, "The type of a keyspace's key cannot change.",
                          "the recorded map of keyspace \"%s\" has a value that is none of its "
                          "type: \"%.60s\"",
                          keyspace->name, value);
        if (value) {
            entries[count].bytes = keys[count].bytes;
            entries[count].length = keys[count].length;
        }
        count++;
    }
    return shardmap_set_entries(map, index, entries, count, rest) ||
           misfit(error, "Put back what pgshunt has written there.",
                  "pgshunt.piece does not have all buckets of keyspace \"%s\"", keyspace->name);
}

static bool lay_kind(struct shardmap *map, int index, const struct catalog_map *recorded,
                     struct db_error *error)
{
    const struct keyspace *keyspace = shardmap_keyspace(map, (unsigned)index);
    const struct catalog_kind *kind = kind_of(recorded, keyspace->name);
    if (strcmp(kind->kind, keyspace_kind(keyspace)) != 0)
        return misfit(error,
                      "Rows do not move by themselves: give the keyspace the map that it had, or "
                      "another name.",
                      "keyspace \"%s\" is recorded with a map by %s, and the configuration says %s",
                      keyspace->name, kind->kind, keyspace_kind(keyspace));
    if (keyspace->map != MAP_HASH) {
        size_t room = (size_t)recorded->npieces + 1;
        struct key_entry *entries = mem_alloc(sizeof *entries * room);
        struct shardkey *keys = mem_alloc(sizeof *keys * room);
        bool good = lay_pieces(map, index, recorded, entries, keys, error);
        free(entries);
        free(keys);
        return good;
    }
    if (keyspace->hash == HASH_POSTGRES) {
        if (kind->modulus < 1 || kind->modulus > SHARDKEY_BUCKETS)
            return misfit(error, "Put back what pgshunt has written there.",
                          "pgshunt.keyspace has modulus %u for keyspace \"%s\"", kind->modulus,
                          keyspace->name);
        shardmap_set_modulus(map, index, kind->modulus);
    }
    return true;
}

static bool lay_kinds(struct shardmap *map, const struct catalog_map *recorded,
                      struct db_error *error)
{
    for (unsigned k = 0; k < shardmap_keyspaces(map); k++)
        if (catalog_has_keyspace(recorded, shardmap_keyspace(map, k)->name) &&
            !lay_kind(map, (int)k, recorded, error))
            return false;
    return true;
}

/* ---- whose they are ---- */

static bool check_covered(const struct shardmap *map, const unsigned *covered,
                          struct db_error *error)
{
    for (unsigned k = 0; k < shardmap_keyspaces(map); k++) {
        const struct keyspace *keyspace = shardmap_keyspace(map, k);
        if (covered[k] && covered[k] != keyspace->nbuckets)
            return misfit(error, "", "pgshunt.bucket has %u buckets of keyspace \"%s\", not %u",
                          covered[k], keyspace->name, keyspace->nbuckets);
    }
    return true;
}

static bool lay_owners(struct shardmap *map, const struct catalog_map *recorded,
                       struct db_error *error)
{
    unsigned *covered = mem_alloc(sizeof *covered * (shardmap_keyspaces(map) + 1));
    bool fits = true;
    for (int i = 0; fits && i < recorded->nowners; i++) {
        const struct catalog_owner *owner = &recorded->owners[i];
        int keyspace = shardmap_keyspace_by_name(map, owner->range.keyspace);
        int shard = shardmap_shard_by_name(map, owner->shard);
        if (keyspace < 0)
            continue;
        if (shard < 0) {
            fits = no_shard(owner->range.keyspace, owner->shard, error);
            break;
        }
        shardmap_set_buckets(map, keyspace, owner->range.first, owner->range.last, (unsigned)shard);
        covered[keyspace] += owner->range.last - owner->range.first + 1;
    }
    fits = fits && check_covered(map, covered, error);
    free(covered);
    return fits;
}

static bool lay_ghosts(struct shardmap *map, const struct catalog_map *recorded,
                       struct db_error *error)
{
    for (int i = 0; i < recorded->nghosts; i++) {
        const struct catalog_ghost *ghost = &recorded->ghosts[i];
        int keyspace = shardmap_keyspace_by_name(map, ghost->keyspace);
        int shard = shardmap_shard_by_name(map, ghost->shard);
        if (keyspace < 0)
            continue;
        if (shard < 0)
            return no_shard(ghost->keyspace, ghost->shard, error);
        shardmap_set_ghost(map, keyspace, (unsigned)shard);
    }
    return true;
}

static void lay_holds(struct shardmap *map, const struct catalog_map *recorded)
{
    for (int i = 0; i < recorded->nholds; i++)
        for (int j = 0; j < recorded->holds[i].nranges; j++) {
            const struct catalog_range *range = &recorded->holds[i].ranges[j];
            int keyspace = shardmap_keyspace_by_name(map, range->keyspace);
            if (keyspace >= 0)
                shardmap_hold(map, keyspace, range->first, range->last);
        }
    for (int i = 0; i < recorded->nholds; i++)
        for (int j = 0; j < recorded->holds[i].ntables; j++)
            shardmap_hold_table(map, recorded->holds[i].tables[j]);
}

struct shardmap *catalog_lay(const struct database_config *database,
                             const struct catalog_map *recorded, struct db_error *error)
{
    struct shardmap *map = shardmap_of_config(database);
    *error = (struct db_error){.text = ""};
    if (!lay_kinds(map, recorded, error) || !lay_owners(map, recorded, error) ||
        !lay_ghosts(map, recorded, error) || !catalog_lay_tables(map, recorded, error)) {
        shardmap_free(map);
        return NULL;
    }
    lay_holds(map, recorded);
    shardmap_set_epoch(map, recorded->epoch);
    return map;
}

bool catalog_read_map(struct db *db, const struct database_config *database, struct shardmap **map,
                      struct db_error *error)
{
    struct catalog_map recorded;
    struct arena arena;
    arena_init(&arena);
    *map = NULL;
    if (catalog_read(db, database->name, &arena, &recorded, error))
        *map = catalog_lay(database, &recorded, error);
    arena_free(&arena);
    return *map != NULL;
}

/* ---- what the configuration says otherwise ---- */

static unsigned entry_shard(const struct keyspace *keyspace, const struct key_entry *entry)
{
    struct shardkey key = {.bytes = entry->bytes, .length = entry->length};
    unsigned bucket =
        entry->bytes ? keyspace_value_bucket(keyspace, &key) : keyspace->entries[0].bucket;
    return bucket == SHARDMAP_NO_BUCKET ? SHARDMAP_NO_SHARD : keyspace->bucket_shard[bucket];
}

/* Of one value, or where an interval begins; NULL: nothing is different. */
static const char *value_difference(const struct shardmap *map, const struct keyspace *is,
                                    const struct keyspace *said, const struct key_entry *entry,
                                    struct arena *arena)
{
    unsigned has = entry_shard(is, entry), wanted = entry_shard(said, entry);
    if (has == wanted || has == SHARDMAP_NO_SHARD)
        return NULL;
    const char *value =
        entry->bytes ? shardkey_text(is->type, entry->bytes, entry->length, arena) : "MINVALUE";
    return arena_printf(arena, "keyspace \"%s\": \"%s\" is on %s, not on %s", is->name, value,
                        shardmap_shard_name(map, has),
                        wanted == SHARDMAP_NO_SHARD ? "none" : shardmap_shard_name(map, wanted));
}

static const char *values_difference(const struct shardmap *map, const struct keyspace *is,
                                     const struct keyspace *said, struct arena *arena)
{
    const char *text = NULL;
    for (unsigned i = 0; i < said->nentries && !text; i++)
        text = value_difference(map, is, said, &said->entries[i], arena);
    for (unsigned i = 0; i < is->nentries && !text; i++)
        text = value_difference(map, is, said, &is->entries[i], arena);
    if (text || is->rest == SHARDMAP_NO_BUCKET)
        return text;
    unsigned has = is->bucket_shard[is->rest], wanted = said->rest == SHARDMAP_NO_BUCKET
                                                            ? SHARDMAP_NO_SHARD
                                                            : said->bucket_shard[said->rest];
    return has == wanted
               ? NULL
               : arena_printf(arena, "keyspace \"%s\": its default is %s, not %s", is->name,
                              shardmap_shard_name(map, has),
                              wanted == SHARDMAP_NO_SHARD ? "none"
                                                          : shardmap_shard_name(map, wanted));
}

static const char *keyspace_difference(const struct shardmap *map, const struct keyspace *is,
                                       const struct keyspace *said, struct arena *arena)
{
    if (is->map != MAP_HASH)
        return values_difference(map, is, said, arena);
    if (is->nbuckets != said->nbuckets || is->modulus != said->modulus ||
        memcmp(is->bucket_shard, said->bucket_shard, sizeof *is->bucket_shard * is->nbuckets) != 0)
        return arena_printf(arena, "keyspace \"%s\": shards and weights would give another map",
                            is->name);
    return NULL;
}

const char *catalog_difference(const struct database_config *database,
                               const struct catalog_map *recorded, struct arena *arena)
{
    struct db_error ignored;
    struct shardmap *said = shardmap_of_config(database),
                    *is = catalog_lay(database, recorded, &ignored);
    const char *text = NULL;
    for (unsigned k = 0; is && k < shardmap_keyspaces(is) && !text; k++)
        text = keyspace_difference(is, shardmap_keyspace(is, k), shardmap_keyspace(said, k), arena);
    shardmap_free(said);
    shardmap_free(is);
    return text;
}
