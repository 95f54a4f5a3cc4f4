/* config_lookup.c: what must hold for the lookups of keyspaces. */
#include <string.h>

#include "config_internal.h"

static const struct table_config *find_table(const struct keyspace_config *keyspace,
                                             const char *name)
{
    for (int i = 0; i < keyspace->ntables; i++)
        if (strcmp(keyspace->tables[i].name, name) == 0)
            return &keyspace->tables[i];
    return NULL;
}

static bool is_repeated(const struct keyspace_config *keyspace, int index)
{
    const struct lookup_config *lookup = &keyspace->lookups[index];
    for (int i = 0; i < index; i++)
        if (strcmp(keyspace->lookups[i].table, lookup->table) == 0 &&
            strcmp(keyspace->lookups[i].column, lookup->column) == 0)
            return true;
    return false;
}

static bool check_lookup(struct config_reader *reader, const config_setting_t *at,
                         const struct keyspace_config *keyspace, int index)
{
    const struct lookup_config *lookup = &keyspace->lookups[index];
    const struct table_config *table = find_table(keyspace, lookup->table);
    if (!table)
        return config_refuse(reader, at,
                             "found a lookup of table \"%s\", which is not in keyspace \"%s\"; "
                             "allowed: a table of the keyspace, named as there",
                             lookup->table, keyspace->name);
    if (strcmp(table->key, lookup->column) == 0)
        return config_refuse(reader, at,
                             "found a lookup of \"%s\", which is the key of table \"%s\"; "
                             "allowed: another column, the key needs none",
                             lookup->column, lookup->table);
    if (is_repeated(keyspace, index))
        return config_refuse(reader, at,
                             "found a second lookup of column \"%s\" of table \"%s\"; allowed: "
                             "each column once",
                             lookup->column, lookup->table);
    return true;
}

bool config_check_lookups(struct config_reader *reader, config_setting_t *group,
                          const struct database_config *database)
{
    for (int i = 0; i < database->nkeyspaces; i++) {
        const struct keyspace_config *keyspace = &database->keyspaces[i];
        config_setting_t *at =
            config_setting_get_elem(config_setting_get_member(group, "keyspaces"), (unsigned)i);
        config_setting_t *list = at ? config_setting_get_member(at, "lookup") : NULL;
        for (int j = 0; j < keyspace->nlookups; j++)
            if (!check_lookup(reader, config_setting_get_elem(list, (unsigned)j), keyspace, j))
                return false;
    }
    return true;
}
