/* config_map.c: what must hold for keyspaces by list and by range. */
#include <stdlib.h>
#include <string.h>

#include "config_internal.h"
#include "pgshunt/shardmap.h"

/* One keyspace that is checked, and where it was read from. */
struct map_check {
    struct config_reader *reader;
    const struct database_config *database;
    const struct keyspace_config *keyspace;
    config_setting_t *at;
};

/* A value with the place it was read from. */
struct bound {
    struct key_entry from, to; /* bytes NULL: MINVALUE, MAXVALUE */
    const config_setting_t *at;
    const char *from_text, *to_text;
};

static const config_setting_t *place(const struct map_check *c, const char *list, int index)
{
    config_setting_t *items = config_setting_get_member(c->at, list);
    return config_setting_get_elem(items, (unsigned)index);
}

static bool check_shard_name(const struct map_check *c, const config_setting_t *at,
                             const char *name)
{
    char names[300] = "";
    for (int i = 0; i < c->database->nshards; i++) {
        const char *other = c->database->shards[i].name;
        size_t used = strlen(names);
        if (strcmp(other, name) == 0)
            return true;
        snprintf(names + used, sizeof names - used, "%s%s", i ? ", " : "", other);
    }
    return config_refuse(c->reader, at,
                         "found shard \"%s\", which is no shard of database \"%s\"; allowed: %s",
                         name, c->database->name, names);
}

static const char *type_word(enum key_type type)
{
    return type == KEY_BIGINT ? "a whole number" : type == KEY_UUID ? "a uuid" : "a text";
}

/* The canonical value, in the configuration's arena. */
static bool read_value(const struct map_check *c, const config_setting_t *at, const char *text,
                       struct key_entry *entry)
{
    struct shardkey key;
    if (!shardkey_from_text(c->keyspace->type, text, strlen(text), &key))
        return config_refuse(c->reader, at,
                             "found \"%.100s\" as a key of keyspace \"%s\"; allowed: %s in quotes",
                             text, c->keyspace->name, type_word(c->keyspace->type));
    entry->bytes = (const unsigned char *)arena_strndup(&c->reader->config->arena,
                                                        (const char *)key.bytes, key.length);
    entry->length = key.length;
    return true;
}

/* ---- lists ---- */

static bool check_repeated(const struct map_check *c, const struct key_entry *entries, unsigned n)
{
    for (unsigned i = 1; i < n; i++)
        if (shardkey_compare(c->keyspace->type, entries[i - 1].bytes, entries[i - 1].length,
                             entries[i].bytes, entries[i].length) == 0) {
            int list = (int)entries[i].shard;
            return config_refuse(c->reader, place(c, "lists", list),
                                 "found a value twice in the lists of keyspace \"%s\"; allowed: "
                                 "each value once",
                                 c->keyspace->name);
        }
    return true;
}

static bool read_lists(const struct map_check *c, struct key_entry *entries)
{
    unsigned next = 0;
    for (int i = 0; i < c->keyspace->nlists; i++) {
        const struct list_config *list = &c->keyspace->lists[i];
        const config_setting_t *at = place(c, "lists", i);
        if (!check_shard_name(c, at, list->shard))
            return false;
        for (int j = 0; j < list->nvalues; j++, next++) {
            entries[next].shard = (unsigned)i; /* here: the number of the list, for the message */
            if (!read_value(c, at, list->values[j], &entries[next]))
                return false;
        }
    }
    shardmap_sort_entries(c->keyspace->type, entries, next);
    return check_repeated(c, entries, next);
}

static bool check_lists(const struct map_check *c)
{
    const struct keyspace_config *keyspace = c->keyspace;
    size_t count = 0;
    for (int i = 0; i < keyspace->nlists; i++)
        count += (size_t)keyspace->lists[i].nvalues;
    if (count == 0)
        return config_refuse(c->reader, c->at,
                             "found keyspace \"%s\" with map = \"list\" and no values; allowed: "
                             "lists = ( { shard = \"s1\"; values = [ \"...\" ]; } )",
                             keyspace->name);
    if (keyspace->rest[0] &&
        !check_shard_name(c, config_setting_get_member(c->at, "default"), keyspace->rest))
        return false;
    if (count >= SHARDKEY_BUCKETS)
        return config_refuse(c->reader, c->at,
                             "found %zu values in the lists of keyspace \"%s\"; allowed: up to %d",
                             count, keyspace->name, SHARDKEY_BUCKETS - 1);
    struct key_entry *entries = mem_alloc(sizeof *entries * count);
    bool ok = read_lists(c, entries);
    free(entries);
    return ok;
}

/* ---- ranges ---- */

static bool read_range(const struct map_check *c, int index, struct bound *bound)
{
    const struct range_config *range = &c->keyspace->ranges[index];
    enum key_type type = c->keyspace->type;
    *bound = (struct bound){
        .at = place(c, "ranges", index), .from_text = range->from, .to_text = range->to};
    if (!check_shard_name(c, bound->at, range->shard))
        return false;
    if (strcmp(range->from, "MINVALUE") != 0 &&
        !read_value(c, bound->at, range->from, &bound->from))
        return false;
    if (strcmp(range->to, "MAXVALUE") != 0 && !read_value(c, bound->at, range->to, &bound->to))
        return false;
    if (bound->from.bytes && bound->to.bytes &&
        shardkey_compare(type, bound->from.bytes, bound->from.length, bound->to.bytes,
                         bound->to.length) >= 0)
        return config_refuse(c->reader, bound->at,
                             "found a range from \"%.60s\" to \"%.60s\" in keyspace \"%s\", which "
                             "holds no key; allowed: from below to",
                             range->from, range->to, c->keyspace->name);
    return true;
}

static int compare_bounds(const struct map_check *c, const struct bound *a, const struct bound *b)
{
    if (!a->from.bytes || !b->from.bytes)
        return (a->from.bytes != NULL) - (b->from.bytes != NULL);
    return shardkey_compare(c->keyspace->type, a->from.bytes, a->from.length, b->from.bytes,
                            b->from.length);
}

/* By where they begin; mostly they stand in that order already. */
static void sort_bounds(const struct map_check *c, struct bound *bounds, int count)
{
    for (int i = 1; i < count; i++) {
        struct bound one = bounds[i];
        int at = i;
        for (; at > 0 && compare_bounds(c, &bounds[at - 1], &one) > 0; at--)
            bounds[at] = bounds[at - 1];
        bounds[at] = one;
    }
}

static bool check_neighbours(const struct map_check *c, const struct bound *a,
                             const struct bound *b)
{
    int difference = 1;
    if (a->to.bytes && b->from.bytes)
        difference = shardkey_compare(c->keyspace->type, a->to.bytes, a->to.length, b->from.bytes,
                                      b->from.length);
    if (difference == 0)
        return true;
    return config_refuse(c->reader, b->at,
                         "found a range from \"%.60s\" in keyspace \"%s\", where the one before it "
                         "ends at \"%.60s\": %s; allowed: each range begins where another ends",
                         b->from_text, c->keyspace->name, a->to_text,
                         difference < 0 ? "keys between them have no shard" : "they overlap");
}

static bool check_cover(const struct map_check *c, const struct bound *bounds, int count)
{
    if (bounds[0].from.bytes)
        return config_refuse(c->reader, bounds[0].at,
                             "found \"%.60s\" as the lowest begin of a range in keyspace \"%s\": "
                             "keys below have no shard; allowed: one range from \"MINVALUE\"",
                             bounds[0].from_text, c->keyspace->name);
    for (int i = 1; i < count; i++)
        if (!check_neighbours(c, &bounds[i - 1], &bounds[i]))
            return false;
    if (bounds[count - 1].to.bytes)
        return config_refuse(c->reader, bounds[count - 1].at,
                             "found \"%.60s\" as the highest end of a range in keyspace \"%s\": "
                             "keys above have no shard; allowed: one range to \"MAXVALUE\"",
                             bounds[count - 1].to_text, c->keyspace->name);
    return true;
}

static bool check_ranges(const struct map_check *c)
{
    int count = c->keyspace->nranges;
    if (count == 0)
        return config_refuse(c->reader, c->at,
                             "found keyspace \"%s\" with map = \"range\" and no ranges; allowed: "
                             "ranges = ( { to = \"1000\"; shard = \"s0\"; }, { from = \"1000\"; "
                             "shard = \"s1\"; } )",
                             c->keyspace->name);
    if (count > SHARDKEY_BUCKETS)
        return config_refuse(c->reader, c->at,
                             "found %d ranges in keyspace \"%s\"; allowed: up to %d", count,
                             c->keyspace->name, SHARDKEY_BUCKETS);
    struct bound *bounds = mem_alloc(sizeof *bounds * (size_t)count);
    bool ok = true;
    for (int i = 0; i < count && ok; i++)
        ok = read_range(c, i, &bounds[i]);
    if (ok)
        sort_bounds(c, bounds, count);
    ok = ok && check_cover(c, bounds, count);
    free(bounds);
    return ok;
}

/* ---- which of them ---- */

/* What belongs to another kind of map would be without effect. */
static bool check_kind(const struct map_check *c)
{
    static const char *const kinds[] = {"hash", "list", "range"};
    const struct keyspace_config *k = c->keyspace;
    const char *stray = k->map != MAP_LIST && k->nlists               ? "lists"
                        : k->map != MAP_LIST && k->rest[0]            ? "default"
                        : k->map != MAP_RANGE && k->nranges           ? "ranges"
                        : k->map != MAP_HASH && k->hash != HASH_XXH64 ? "hash"
                                                                      : NULL;
    if (!stray)
        return true;
    return config_refuse(c->reader, config_setting_get_member(c->at, stray),
                         "found %s in keyspace \"%s\", which has map = \"%s\"; allowed: %s", stray,
                         k->name, kinds[k->map],
                         k->map == MAP_LIST    ? "lists and default"
                         : k->map == MAP_RANGE ? "ranges"
                                               : "hash");
}

bool config_check_maps(struct config_reader *reader, config_setting_t *group,
                       const struct database_config *database)
{
    for (int i = 0; i < database->nkeyspaces; i++) {
        config_setting_t *list = config_setting_get_member(group, "keyspaces");
        struct map_check c = {reader, database, &database->keyspaces[i],
                              config_setting_get_elem(list, (unsigned)i)};
        if (!check_kind(&c) || (c.keyspace->map == MAP_LIST && !check_lists(&c)) ||
            (c.keyspace->map == MAP_RANGE && !check_ranges(&c)))
            return false;
    }
    return true;
}
