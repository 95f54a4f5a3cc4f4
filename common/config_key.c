/* config_key.c: what must hold for keys of several columns. */
#include "config_internal.h"

#include <string.h>

#include "pgshunt/shardmap.h"

bool config_check_table(struct config_reader *reader, config_setting_t *group, void *object)
{
    struct table_config *table = object;
    config_setting_t *at = config_setting_get_member(group, "key");
    if (table->nkeys < 1 || table->nkeys > SHARDMAP_MAX_PARTS)
        return config_refuse(reader, at, "found key with %d columns; allowed: 1 .. %d",
                             table->nkeys, SHARDMAP_MAX_PARTS);
    for (int i = 0; i < table->nkeys; i++) {
        if (strlen(table->keys[i]) > 63)
            return config_refuse(reader, at, "found key = \"%.80s\"; allowed: 1 .. 63 bytes",
                                 table->keys[i]);
        for (int j = 0; j < i; j++)
            if (strcmp(table->keys[i], table->keys[j]) == 0)
                return config_refuse(reader, at,
                                     "found \"%s\" twice in key; allowed: each column once",
                                     table->keys[i]);
    }
    table->key = table->nkeys == 1 ? table->keys[0] : "";
    return true;
}

static const char *wrong(const struct keyspace_config *keyspace)
{
    if (keyspace->ntypes == 1 || keyspace->ntypes > SHARDMAP_MAX_PARTS)
        return "types of 2 to 8 columns, or none";
    for (int i = 0; i < keyspace->ntypes; i++)
        if (config_key_type(keyspace->types[i]) < 0)
            return "types out of bigint, uuid and text";
    if (keyspace->ntypes && (int)keyspace->type != config_key_type(keyspace->types[0]))
        return "type as the first of types";
    if (keyspace->ntypes && keyspace->map != MAP_HASH)
        return "types with map = \"hash\" only";
    for (int i = 0; i < keyspace->ntables; i++)
        if (keyspace->tables[i].nkeys != (keyspace->ntypes ? keyspace->ntypes : 1))
            return "tables with as many columns in key as there are types";
    return NULL;
}

int config_key_type(const char *word)
{
    static const char *const words[] = {"bigint", "uuid", "text"};
    for (int i = 0; i < 3; i++)
        if (strcmp(words[i], word) == 0)
            return i;
    return -1;
}

bool config_check_keys(struct config_reader *reader, config_setting_t *group,
                       const struct database_config *database)
{
    config_setting_t *list = config_setting_get_member(group, "keyspaces");
    for (int i = 0; i < database->nkeyspaces; i++) {
        const char *allowed = wrong(&database->keyspaces[i]);
        if (allowed)
            return config_refuse(reader, config_setting_get_elem(list, (unsigned)i),
                                 "found a key that does not fit in keyspace \"%s\"; allowed: %s",
                                 database->keyspaces[i].name, allowed);
    }
    return true;
}
