/* catalog_state.c: writes and reads the copy of the recorded maps: JSON, replaced as a whole. */
#include "proxy/catalog_state.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proxy/topology.h"

/* ---- writing ---- */

static json_t *rules_json(const struct catalog_map *map)
{
    json_t *rules = json_array();
    for (int i = 0; i < map->nrules; i++) {
        const struct catalog_rule *rule = &map->rules[i];
        json_t *columns = json_array();
        for (int c = 0; c < rule->ncolumns; c++)
            json_array_append_new(columns, json_string(rule->columns[c]));
        json_array_append_new(rules, json_pack("{ss ss? so}", "name", rule->name, "keyspace",
                                               rule->keyspace, "columns", columns));
    }
    return rules;
}

static json_t *kinds_json(const struct catalog_map *map)
{
    json_t *kinds = json_array();
    for (int i = 0; i < map->nkinds; i++)
        json_array_append_new(kinds,
                              json_pack("{ss ss si}", "keyspace", map->kinds[i].keyspace, "kind",
                                        map->kinds[i].kind, "modulus", (int)map->kinds[i].modulus));
    return kinds;
}

static json_t *pieces_json(const struct catalog_map *map)
{
    json_t *pieces = json_array();
    for (int i = 0; i < map->npieces; i++)
        json_array_append_new(pieces, json_pack("{ss si ss?}", "keyspace", map->pieces[i].keyspace,
                                                "bucket", (int)map->pieces[i].bucket, "value",
                                                map->pieces[i].value));
    return pieces;
}

static json_t *map_json(const struct catalog_map *map)
{
    json_t *owners = json_array(), *ghosts = json_array();
    for (int i = 0; i < map->nowners; i++) {
        const struct catalog_owner *owner = &map->owners[i];
        json_array_append_new(owners, json_pack("{ss si si ss}", "keyspace", owner->range.keyspace,
                                                "first", (int)owner->range.first, "last",
                                                (int)owner->range.last, "shard", owner->shard));
    }
    for (int i = 0; i < map->nghosts; i++)
        json_array_append_new(ghosts, json_pack("{ss ss}", "keyspace", map->ghosts[i].keyspace,
                                                "shard", map->ghosts[i].shard));
    return json_pack("{sI so so so so so}", "epoch", (json_int_t)map->epoch, "buckets", owners,
                     "ghosts", ghosts, "tables", rules_json(map), "keyspaces", kinds_json(map),
                     "pieces", pieces_json(map));
}

static bool write_all(int file, const char *text, size_t length)
{
    while (length) {
        ssize_t wrote = write(file, text, length);
        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote <= 0)
            return false;
        text += wrote;
        length -= (size_t)wrote;
    }
    return true;
}

/* The old file stays whole until the new one is on disk. */
static bool replace_file(const char *path, const char *text)
{
    char fresh[4096];
    if (snprintf(fresh, sizeof fresh, "%s.%d", path, (int)getpid()) >= (int)sizeof fresh) {
        errno = ENAMETOOLONG;
        return false;
    }
    int file = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
    if (file < 0)
        return false;
    bool good = write_all(file, text, strlen(text)) && fsync(file) == 0;
    int problem = errno;
    close(file);
    if (good && rename(fresh, path) == 0)
        return true;
    if (!good)
        errno = problem;
    problem = errno;
    unlink(fresh);
    errno = problem;
    return false;
}

bool catalog_state_write(const char *path, const struct topology *topology, char *error,
                         size_t size)
{
    json_t *databases = json_object();
    for (int i = 0; i < topology->ndatabases; i++)
        if (topology->databases[i].recorded)
            json_object_set_new(databases, topology->databases[i].name,
                                map_json(&topology->databases[i].recorded->map));
    json_t *all = json_pack("{so}", "databases", databases);
    char *text = json_dumps(all, JSON_INDENT(1));
    json_decref(all);
    bool done = replace_file(path, text);
    if (!done)
        snprintf(error, size, "%s", strerror(errno));
    free(text);
    return done;
}

/* ---- reading ---- */

static bool take_owners(struct recorded_map *recorded, const json_t *list)
{
    struct catalog_map *map = &recorded->map;
    map->owners = arena_array(&recorded->arena, struct catalog_owner, json_array_size(list));
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *keyspace, *shard;
        int first, last;
        if (json_unpack(json_array_get(list, i), "{ss si si ss}", "keyspace", &keyspace, "first",
                        &first, "last", &last, "shard", &shard) != 0 ||
            first < 0 || last < first || last >= SHARDKEY_BUCKETS)
            return false;
        map->owners[map->nowners++] = (struct catalog_owner){
            {arena_strdup(&recorded->arena, keyspace), (unsigned)first, (unsigned)last},
            arena_strdup(&recorded->arena, shard)};
    }
    return true;
}

static bool take_ghosts(struct recorded_map *recorded, const json_t *list)
{
    struct catalog_map *map = &recorded->map;
    map->ghosts = arena_array(&recorded->arena, struct catalog_ghost, json_array_size(list));
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *keyspace, *shard;
        if (json_unpack(json_array_get(list, i), "{ss ss}", "keyspace", &keyspace, "shard",
                        &shard) != 0)
            return false;
        map->ghosts[map->nghosts++] = (struct catalog_ghost){
            arena_strdup(&recorded->arena, keyspace), arena_strdup(&recorded->arena, shard)};
    }
    return true;
}

static bool take_columns(struct recorded_map *recorded, const json_t *list,
                         struct catalog_rule *rule)
{
    const char **columns = arena_array(&recorded->arena, const char *, json_array_size(list));
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *name = json_string_value(json_array_get(list, i));
        if (!name)
            return false;
        columns[rule->ncolumns++] = arena_strdup(&recorded->arena, name);
    }
    rule->columns = columns;
    return json_is_array(list);
}

/* A file of an earlier version has none. */
static bool take_rules(struct recorded_map *recorded, const json_t *list)
{
    struct catalog_map *map = &recorded->map;
    map->rules = arena_array(&recorded->arena, struct catalog_rule, json_array_size(list));
    for (size_t i = 0; i < json_array_size(list); i++) {
        struct catalog_rule *rule = &map->rules[map->nrules++];
        const char *name, *keyspace;
        json_t *columns;
        if (json_unpack(json_array_get(list, i), "{ss ss? so}", "name", &name, "keyspace",
                        &keyspace, "columns", &columns) != 0 ||
            !take_columns(recorded, columns, rule))
            return false;
        rule->name = arena_strdup(&recorded->arena, name);
        rule->keyspace = keyspace ? arena_strdup(&recorded->arena, keyspace) : NULL;
    }
    return true;
}

static bool take_kinds(struct recorded_map *recorded, const json_t *list)
{
    struct catalog_map *map = &recorded->map;
    map->kinds = arena_array(&recorded->arena, struct catalog_kind, json_array_size(list));
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *keyspace, *kind;
        int modulus;
        if (json_unpack(json_array_get(list, i), "{ss ss si}", "keyspace", &keyspace, "kind", &kind,
                        "modulus", &modulus) != 0 ||
            modulus < 0)
            return false;
        map->kinds[map->nkinds++] =
            (struct catalog_kind){arena_strdup(&recorded->arena, keyspace),
                                  arena_strdup(&recorded->arena, kind), (unsigned)modulus};
    }
    return true;
}

static bool take_pieces(struct recorded_map *recorded, const json_t *list)
{
    struct catalog_map *map = &recorded->map;
    map->pieces = arena_array(&recorded->arena, struct catalog_piece, json_array_size(list));
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *one = json_array_get(list, i);
        const char *keyspace, *value = json_string_value(json_object_get(one, "value"));
        int bucket;
        if (json_unpack((json_t *)one, "{ss si}", "keyspace", &keyspace, "bucket", &bucket) != 0 ||
            bucket < 0)
            return false;
        map->pieces[map->npieces++] =
            (struct catalog_piece){arena_strdup(&recorded->arena, keyspace), (unsigned)bucket,
                                   value ? arena_strdup(&recorded->arena, value) : NULL};
    }
    return true;
}

static bool take_map(struct recorded_map *recorded, const json_t *found)
{
    json_int_t epoch = 0;
    json_t *owners, *ghosts;
    if (json_unpack((json_t *)found, "{sI so so}", "epoch", &epoch, "buckets", &owners, "ghosts",
                    &ghosts) != 0)
        return false;
    recorded->map.epoch = epoch;
    return json_is_array(owners) && json_is_array(ghosts) && take_owners(recorded, owners) &&
           take_ghosts(recorded, ghosts) &&
           take_rules(recorded, json_object_get(found, "tables")) &&
           take_kinds(recorded, json_object_get(found, "keyspaces")) &&
           take_pieces(recorded, json_object_get(found, "pieces"));
}

struct recorded_map *catalog_state_read(const char *path, const char *database, char *error,
                                        size_t size)
{
    json_error_t problem;
    error[0] = '\0';
    if (access(path, F_OK) != 0)
        return NULL;
    json_t *all = json_load_file(path, 0, &problem);
    const json_t *found = json_object_get(json_object_get(all, "databases"), database);
    struct recorded_map *recorded = found ? recorded_map_new() : NULL;
    if (!all)
        snprintf(error, size, "line %d: %s", problem.line, problem.text);
    else if (!found)
        snprintf(error, size, "it has no map of this database");
    else if (!take_map(recorded, found)) {
        snprintf(error, size, "its map of this database is damaged");
        recorded_map_unref(recorded);
        recorded = NULL;
    }
    json_decref(all);
    return recorded;
}
