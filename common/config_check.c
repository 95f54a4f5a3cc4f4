/* config_check.c: what must hold between settings: names, references from one to another, shares. */
#include "config_internal.h"

#include <stdlib.h>
#include <string.h>

#include "pgshunt/cron.h"
#include "pgshunt/scram.h"
#include "pgshunt/unixpath.h"

/* Element `index` of the list `name` of a group: where an object was read from. */
static const config_setting_t *element(config_setting_t *group, const char *name, int index)
{
    config_setting_t *list = config_setting_get_member(group, name);
    return config_setting_get_elem(list, (unsigned)index);
}

/* The setting itself where it was written, else the group it would stand in. */
static const config_setting_t *member_or_group(config_setting_t *group, const char *name)
{
    config_setting_t *member = config_setting_get_member(group, name);
    return member ? member : group;
}

/* A host that begins with a slash is the directory of a server's unix socket. */
static bool check_node(struct config_reader *reader, const config_setting_t *at,
                       const struct node_config *node)
{
    char path[UNIX_PATH_SIZE];
    if (node->host[0] != '/' || unix_path(path, node->host, node->port))
        return true;
    return config_refuse(reader, config_setting_get_member(at, "host"),
                         "found host = \"%s\", with which the socket's path has more than %d "
                         "bytes; allowed: a shorter one",
                         node->host, UNIX_PATH_SIZE - 1);
}

/* No server twice in one shard. */
bool config_check_shard(struct config_reader *reader, config_setting_t *group, void *object)
{
    struct shard_config *shard = object;
    struct config_named *items = mem_alloc(sizeof *items * (size_t)shard->nnodes);
    bool ok = true;
    for (int i = 0; i < shard->nnodes; i++) {
        const struct node_config *node = &shard->nodes[i];
        items[i].name = arena_printf(&reader->config->arena, "%s:%d", node->host, node->port);
        items[i].at = element(group, "nodes", i);
        ok = ok && check_node(reader, items[i].at, node);
    }
    ok = ok &&
         config_names_unique(reader, items, shard->nnodes, "node", "each server once in a shard");
    free(items);
    return ok;
}

/* Two shards on one database of one server would be the same data twice. */
static bool check_servers(struct config_reader *reader, config_setting_t *group,
                          const struct database_config *database)
{
    int count = 0, next = 0;
    for (int i = 0; i < database->nshards; i++)
        count += database->shards[i].nnodes;
    struct config_named *items = mem_alloc(sizeof *items * (size_t)count);
    for (int i = 0; i < database->nshards; i++) {
        const struct shard_config *shard = &database->shards[i];
        config_setting_t *at =
            config_setting_get_elem(config_setting_get_member(group, "shards"), (unsigned)i);
        for (int j = 0; j < shard->nnodes; j++, next++) {
            items[next].name =
                arena_printf(&reader->config->arena, "%s:%d/%s", shard->nodes[j].host,
                             shard->nodes[j].port, shard->dbname);
            items[next].at = element(at, "nodes", j);
        }
    }
    bool ok = config_names_unique(reader, items, count, "node",
                                  "each database of a server in one shard only");
    free(items);
    return ok;
}

/* A table is sharded by one keyspace, or a reference table, or neither. */
static bool check_tables(struct config_reader *reader, config_setting_t *group,
                         const struct database_config *database)
{
    int count = database->nreference, next = 0;
    for (int i = 0; i < database->nkeyspaces; i++)
        count += database->keyspaces[i].ntables;
    struct config_named *items = mem_alloc(sizeof *items * (size_t)count);
    for (int i = 0; i < database->nkeyspaces; i++) {
        const struct keyspace_config *keyspace = &database->keyspaces[i];
        config_setting_t *at =
            config_setting_get_elem(config_setting_get_member(group, "keyspaces"), (unsigned)i);
        for (int j = 0; j < keyspace->ntables; j++, next++)
            items[next] = (struct config_named){keyspace->tables[j].name, element(at, "tables", j)};
    }
    for (int i = 0; i < database->nreference; i++, next++)
        items[next] = (struct config_named){database->reference[i], element(group, "reference", i)};
    bool ok = config_names_unique(reader, items, count, "table",
                                  "each table once, in one keyspace or in reference");
    free(items);
    return ok;
}

/* A table is where its schema is, whatever its name. */
static const struct schema_config *schema_of_table(const struct database_config *database,
                                                   const char *table)
{
    for (int i = 0; i < database->nschemas; i++) {
        const struct schema_config *schema = &database->schemas[i];
        size_t length = strlen(schema->name);
        const char *at = table + (*table == '"');
        if (strncmp(at, schema->name, length) == 0 &&
            (at[length] == '.' || (at != table && strncmp(at + length, "\".", 2) == 0)))
            return schema;
    }
    return NULL;
}

static bool check_schema_tables(struct config_reader *reader, config_setting_t *group,
                                const struct database_config *database)
{
    const char *found = NULL;
    for (int i = 0; i < database->nkeyspaces; i++)
        for (int j = 0; j < database->keyspaces[i].ntables; j++)
            if (schema_of_table(database, database->keyspaces[i].tables[j].name))
                found = database->keyspaces[i].tables[j].name;
    for (int i = 0; i < database->nreference; i++)
        if (schema_of_table(database, database->reference[i]))
            found = database->reference[i];
    return !found ||
           config_refuse(
               reader, config_setting_get_member(group, "schemas"),
               "found table \"%s\" in keyspaces or reference, whose schema is in schemas; "
               "allowed: schemas whose tables are all on one shard",
               found);
}

static bool check_schemas(struct config_reader *reader, config_setting_t *group,
                          const struct database_config *database)
{
    for (int i = 0; i < database->nschemas; i++) {
        const struct schema_config *schema = &database->schemas[i];
        bool known = false;
        for (int s = 0; s < database->nshards; s++)
            known |= strcmp(database->shards[s].name, schema->shard) == 0;
        if (!known)
            return config_refuse(reader, element(group, "schemas", i),
                                 "found shard \"%s\" for schema \"%s\"; allowed: a shard of "
                                 "database \"%s\"",
                                 schema->shard, schema->name, database->name);
        if (strncmp(schema->name, "pg_", 3) == 0 || strcmp(schema->name, "public") == 0 ||
            strcmp(schema->name, "information_schema") == 0)
            return config_refuse(reader, element(group, "schemas", i),
                                 "found schema \"%s\" in schemas; allowed: schemas of yours that "
                                 "are not on every shard",
                                 schema->name);
    }
    return check_schema_tables(reader, group, database);
}

static bool check_weights(struct config_reader *reader, config_setting_t *group,
                          const struct database_config *database)
{
    for (int i = 0; i < database->nshards; i++)
        if (database->shards[i].weight > 0)
            return true;
    return config_refuse(reader, config_setting_get_member(group, "shards"),
                         "found weight = 0 in all shards of database \"%s\"; allowed: at least one "
                         "shard with a weight above 0, to hold the data",
                         database->name);
}

static bool check_catalog(struct config_reader *reader, config_setting_t *group,
                          struct database_config *database)
{
    if (!database->catalog[0]) {
        database->catalog = database->shards[0].name;
        return true;
    }
    char names[400] = "";
    for (int i = 0; i < database->nshards; i++) {
        const char *name = database->shards[i].name;
        size_t used = strlen(names);
        if (strcmp(name, database->catalog) == 0)
            return true;
        snprintf(names + used, sizeof names - used, "%s%s", i ? ", " : "", name);
    }
    return config_refuse(
        reader, config_setting_get_member(group, "catalog"),
        "found catalog = \"%s\", which is no shard of database \"%s\"; allowed: %s",
        database->catalog, database->name, names);
}

bool config_check_database(struct config_reader *reader, config_setting_t *group, void *object)
{
    struct database_config *database = object;
    if (strcmp(database->name, "pgshunt") == 0 || strcmp(database->name, "pgbouncer") == 0)
        return config_refuse(
            reader, config_setting_get_member(group, "name"),
            "found database \"%s\", which is the console's name; allowed: any other",
            database->name);
    if (database->password[0] && !database->user[0])
        return config_refuse(reader, config_setting_get_member(group, "password"),
                             "found database \"%s\" with a password but no user; allowed: both, or "
                             "user alone with the password in the users file",
                             database->name);
    for (int i = 0; i < database->nshards; i++)
        if (!database->shards[i].dbname[0])
            database->shards[i].dbname = database->name;
    return check_catalog(reader, group, database) && check_weights(reader, group, database) &&
           check_servers(reader, group, database) && check_tables(reader, group, database) &&
           check_schemas(reader, group, database) && config_check_keys(reader, group, database) &&
           config_check_maps(reader, group, database) &&
           config_check_lookups(reader, group, database);
}

/* A damaged secret must not pass for a plain password that happens to look like one. */
bool config_check_user(struct config_reader *reader, config_setting_t *group, void *object)
{
    struct scram_secret secret;
    const struct user_config *user = object;
    if (strncmp(user->secret, "SCRAM-SHA-256$", 14) != 0 ||
        scram_secret_parse(user->secret, &secret))
        return true;
    return config_refuse(reader, config_setting_get_member(group, "password"),
                         "found a damaged SCRAM secret for user \"%s\"; allowed: "
                         "SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey, as pg_authid has it",
                         user->name);
}

bool config_looks_users_up(const struct config *config)
{
    bool found = config->auth_query_user[0];
    for (int i = 0; i < config->ndatabases; i++)
        found = found || config->databases[i].auth_query_user[0];
    return found;
}

static bool check_unix_socket(struct config_reader *reader, config_setting_t *group,
                              const struct config *config)
{
    char path[UNIX_PATH_SIZE];
    const char *directory = config->unix_socket_dir;
    config_setting_t *listen = config_setting_get_member(group, "listen");
    if (directory[0] && directory[0] != '/')
        return config_refuse(reader, member_or_group(listen, "unix_socket_dir"),
                             "found listen.unix_socket_dir = \"%s\"; allowed: a path that begins "
                             "with a slash, or \"\"",
                             directory);
    if (!unix_path(path, directory, config->listen_port))
        return config_refuse(reader, member_or_group(listen, "unix_socket_dir"),
                             "found listen.unix_socket_dir = \"%s\", with which the socket's path "
                             "has more than %d bytes; allowed: a shorter one",
                             directory, UNIX_PATH_SIZE - 1);
    if (strspn(config->unix_socket_mode, "01234567") != strlen(config->unix_socket_mode) ||
        strtol(config->unix_socket_mode, NULL, 8) > 0777)
        return config_refuse(reader, member_or_group(listen, "unix_socket_mode"),
                             "found listen.unix_socket_mode = \"%s\"; allowed: an octal number, "
                             "\"0\" .. \"0777\"",
                             config->unix_socket_mode);
    return true;
}

static bool check_schedule(struct config_reader *reader, config_setting_t *group,
                           const struct config *config)
{
    struct cron cron;
    config_setting_t *partition = config_setting_get_member(group, "partition");
    if (!config->partition_schedule[0] || cron_parse(config->partition_schedule, &cron))
        return true;
    return config_refuse(reader, partition ? member_or_group(partition, "schedule") : group,
                         "found partition.schedule = \"%s\"; allowed: times as in a crontab "
                         "(minute hour day month weekday), like \"0 * * * *\", \"@hourly\", "
                         "\"@daily\", or \"\"",
                         config->partition_schedule);
}

bool config_check_main(struct config_reader *reader, config_setting_t *group, void *object)
{
    struct config *config = object;
    if (config->auth_method == AUTH_HBA && !config->hba_file[0])
        return config_refuse(reader,
                             member_or_group(config_setting_get_member(group, "auth"), "method"),
                             "found auth.method = \"hba\" without auth.hba_file; allowed: "
                             "hba_file = \"pg_hba.conf\"");
    bool needs_users = config->auth_method != AUTH_TRUST && config->auth_method != AUTH_HBA &&
                       config->auth_method != AUTH_CERT;
    if (needs_users && !config->users_file[0] && !config_looks_users_up(config)) {
        config_setting_t *auth = config_setting_get_member(group, "auth");
        char method[32];
        config_choice_name("trust | md5 | scram-sha-256 | password", (int)config->auth_method,
                           method, sizeof method);
        return config_refuse(
            reader, auth ? member_or_group(auth, "method") : group,
            "found auth.method = \"%s\" without auth.users_file; allowed: "
            "users_file = \"users.conf\" with users and their secrets, query_user = \"...\" to "
            "look them up in the servers, or method = \"trust\"",
            method);
    }
    if (!check_unix_socket(reader, group, config) || !check_schedule(reader, group, config))
        return false;
    if (config->http_port == config->listen_port &&
        strcmp(config->http_address, config->listen_address) == 0)
        return config_refuse(reader,
                             member_or_group(config_setting_get_member(group, "http"), "port"),
                             "found http.port = %d, the same as listen.port; allowed: another port",
                             config->http_port);
    return config_check_tls(reader, config);
}
