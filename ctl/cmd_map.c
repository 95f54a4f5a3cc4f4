/* cmd_map.c: `pgshuntctl map`: which shard has which buckets, as it is recorded in the catalog, and who follows it. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ctl/ctl.h"
#include "pgshunt/buffer.h"
#include "pgshunt/catalog.h"
#include "pgshunt/primary.h"

const char cmd_map_help[] =
    "show    which shard has which buckets, the holds that stand, and the proxies that are alive\n"
    "record  writes the buckets of keyspaces that are not recorded yet, as shards and weights of\n"
    "        the configuration give them (proxies do that by themselves where they may)\n\n"
    "DB may be left out where the configuration has one sharded database.\n\n"
    "      --user NAME       log in to the server as (default: $PGUSER, monitor.user)\n\n"
    "show ends with 5 where what is recorded does not fit the configuration.\n\n"
    "Examples:\n"
    "  pgshuntctl map show\n"
    "  pgshuntctl map show app --json\n"
    "  pgshuntctl map record app --dry-run\n";

static const struct option options[] = {
    {"user", required_argument, NULL, 1},
    {NULL, 0, NULL, 0},
};

struct map_request {
    struct ctl *ctl;
    const char *user;
    bool record;
    const struct database_config *database;
    struct db *db; /* with the catalog shard's primary */
    struct arena arena;
    struct catalog_map recorded;
    struct catalog_proxy *proxies;
    int nproxies;
    struct shardmap *map; /* in force */
};

/* ---- asking ---- */

static int fail(const char *what, const struct db_error *error)
{
    fprintf(stderr, "pgshuntctl: %s: %s\n", what, error->text);
    if (error->hint[0])
        fprintf(stderr, "%s\n", error->hint);
    return CTL_FAILED;
}

static bool open_catalog(struct map_request *request, struct db_error *error)
{
    struct primary_login login = {.config = request->ctl->config,
                                  .database = request->database,
                                  .user = request->user,
                                  .application = "pgshuntctl map",
                                  .stop = &ctl_stop};
    for (int i = 0; i < request->database->nshards; i++)
        if (strcmp(request->database->shards[i].name, request->database->catalog) == 0)
            request->db = primary_open(&login, &request->database->shards[i], error);
    return request->db != NULL;
}

static bool has_proxies(struct map_request *request)
{
    struct db_error ignored;
    PGresult *rows = db_query(request->db, 5000, &ignored,
                              "SELECT pg_catalog.to_regclass('pgshunt.proxy') IS NOT NULL", 0);
    bool has = rows && PQgetvalue(rows, 0, 0)[0] == 't';
    PQclear(rows);
    return has;
}

static bool read_all(struct map_request *request, struct db_error *error)
{
    return catalog_read(request->db, request->database->name, &request->arena, &request->recorded,
                        error) &&
           (!has_proxies(request) ||
            catalog_proxies(request->db, request->database->name, &request->arena,
                            &request->proxies, &request->nproxies, error));
}

/* ---- showing ---- */

static const char *const owner_columns[] = {"keyspace", "shard", "buckets", "ranges", "ghosts"};
static const char *const table_columns[] = {"table", "keyspace", "columns", "configuration"};
static const char *const hold_columns[] = {"hold", "keyspace", "first", "last", "left_ms", "force"};
static const char *const proxy_columns[] = {"proxy", "host", "pid",  "version", "epoch",
                                            "hold",  "busy", "held", "seen_ms"};
#define COUNT(array) ((int)(sizeof(array) / sizeof *(array)))

static void add_number(struct ctl_table *table, int64_t number)
{
    char text[32];
    snprintf(text, sizeof text, "%" PRId64, number);
    ctl_table_add(table, text);
}

static void add_owner(struct ctl_table *table, const struct shardmap *map,
                      const struct keyspace *keyspace, unsigned shard)
{
    struct arena arena;
    arena_init(&arena);
    ctl_table_add(table, keyspace->name);
    ctl_table_add(table, shardmap_shard_name(map, shard));
    add_number(table, shardmap_buckets_of(keyspace, shard));
    ctl_table_add(table, keyspace_owned_text(keyspace, shard, &arena));
    ctl_table_add(table, keyspace_has_ghosts(keyspace, shard) ? "yes" : "no");
    arena_free(&arena);
}

static struct ctl_table *owners(const struct shardmap *map)
{
    struct ctl_table *table = ctl_table_new(owner_columns, COUNT(owner_columns));
    for (unsigned k = 0; k < shardmap_keyspaces(map); k++) {
        const struct keyspace *keyspace = shardmap_keyspace(map, k);
        for (unsigned s = 0; s < shardmap_shards(map); s++)
            add_owner(table, map, keyspace, s);
    }
    return table;
}

static void add_held_table(struct ctl_table *table, const struct catalog_hold *hold,
                           const char *name)
{
    add_number(table, hold->id);
    ctl_table_add(table, name);
    ctl_table_add(table, "");
    ctl_table_add(table, "");
    add_number(table, hold->left_ms);
    ctl_table_add(table, hold->force ? "yes" : "no");
}

static struct ctl_table *holds(const struct catalog_map *recorded)
{
    struct ctl_table *table = ctl_table_new(hold_columns, COUNT(hold_columns));
    for (int i = 0; i < recorded->nholds; i++)
        for (int r = 0; r < recorded->holds[i].nranges; r++) {
            const struct catalog_hold *hold = &recorded->holds[i];
            add_number(table, hold->id);
            ctl_table_add(table, hold->ranges[r].keyspace);
            add_number(table, hold->ranges[r].first);
            add_number(table, hold->ranges[r].last);
            add_number(table, hold->left_ms);
            ctl_table_add(table, hold->force ? "yes" : "no");
        }
    for (int i = 0; i < recorded->nholds; i++)
        for (int t = 0; t < recorded->holds[i].ntables; t++)
            add_held_table(table, &recorded->holds[i], recorded->holds[i].tables[t]);
    return table;
}

/* Tables that entered a keyspace, or left it, and whether the configuration says so as well. */
static struct ctl_table *tables(const struct map_request *request)
{
    struct ctl_table *table = ctl_table_new(table_columns, COUNT(table_columns));
    for (int i = 0; i < request->recorded.nrules; i++) {
        const struct catalog_rule *rule = &request->recorded.rules[i];
        const struct catalog_map alone = {.rules = &request->recorded.rules[i], .nrules = 1};
        struct buffer columns = {0};
        for (int c = 0; c < rule->ncolumns; c++)
            buffer_printf(&columns, "%s%s", c ? "," : "", rule->columns[c]);
        buffer_append(&columns, "", 1);
        ctl_table_add(table, rule->name);
        ctl_table_add(table, rule->keyspace ? rule->keyspace : "");
        ctl_table_add(table, buffer_head(&columns));
        ctl_table_add(table, catalog_other_table(request->database, &alone) ? "other" : "same");
        buffer_free_data(&columns);
    }
    return table;
}

static struct ctl_table *proxies(const struct map_request *request)
{
    struct ctl_table *table = ctl_table_new(proxy_columns, COUNT(proxy_columns));
    for (int i = 0; i < request->nproxies; i++) {
        const struct catalog_proxy *proxy = &request->proxies[i];
        ctl_table_add(table, proxy->id);
        ctl_table_add(table, proxy->host);
        add_number(table, proxy->pid);
        ctl_table_add(table, proxy->version);
        add_number(table, proxy->epoch);
        add_number(table, proxy->hold);
        add_number(table, proxy->busy);
        add_number(table, proxy->held);
        add_number(table, (int64_t)(proxy->seen_seconds * 1000));
    }
    return table;
}

static void print_text(const struct map_request *request, struct ctl_table *const *tables)
{
    if (request->ctl->config->catalog_map == CATALOG_CONFIGURED)
        puts("catalog.map is \"configured\": shards and weights count, nothing is recorded.");
    else if (!request->recorded.epoch)
        puts("Nothing is recorded yet: shards and weights count.");
    else
        printf("Map %" PRId64 " of database %s:\n", request->recorded.epoch,
               request->database->name);
    ctl_table_print(tables[0]);
    if (ctl_table_rows(tables[1])) {
        puts("\nHolds:");
        ctl_table_print(tables[1]);
    }
    if (ctl_table_rows(tables[3])) {
        puts("\nTables:");
        ctl_table_print(tables[3]);
    }
    puts("\nProxies:");
    ctl_table_print(tables[2]);
}

static void print(const struct map_request *request)
{
    struct ctl_table *all[] = {owners(request->map), holds(&request->recorded), proxies(request),
                               tables(request)};
    if (request->ctl->json)
        ctl_print_json(json_pack("{ss sI so so so so}", "database", request->database->name,
                                 "epoch", (json_int_t)request->recorded.epoch, "buckets",
                                 ctl_table_json(all[0]), "holds", ctl_table_json(all[1]), "proxies",
                                 ctl_table_json(all[2]), "tables", ctl_table_json(all[3])));
    else
        print_text(request, all);
    for (int i = 0; i < COUNT(all); i++)
        ctl_table_free(all[i]);
}

static int show(struct map_request *request)
{
    struct db_error error = {.text = ""};
    if (!read_all(request, &error))
        return fail("cannot read the catalog", &error);
    if (request->ctl->config->catalog_map == CATALOG_CONFIGURED)
        request->recorded = (struct catalog_map){.epoch = 0};
    request->map = catalog_lay(request->database, &request->recorded, &error);
    if (!request->map) {
        fail("the recorded map does not fit the configuration", &error);
        return CTL_DIFFERENT;
    }
    print(request);
    return CTL_DONE;
}

/* ---- recording ---- */

static int record(struct map_request *request)
{
    struct db_error error = {.text = ""};
    int missing = 0;
    if (!read_all(request, &error))
        return fail("cannot read the catalog", &error);
    for (int i = 0; i < request->database->nkeyspaces; i++) {
        const struct keyspace_config *keyspace = &request->database->keyspaces[i];
        if (catalog_has_keyspace(&request->recorded, keyspace->name))
            continue;
        missing++;
        if (!request->ctl->json)
            printf("%s the buckets of keyspace %s\n",
                   request->ctl->dry_run ? "would record" : "recording", keyspace->name);
    }
    bool lacks = catalog_lacks(request->database, &request->recorded, true);
    if (lacks && !missing && !request->ctl->json)
        printf("%s new values of lists\n", request->ctl->dry_run ? "would record" : "recording");
    if (!lacks && !request->ctl->json)
        puts("all keyspaces are recorded");
    if (lacks && !request->ctl->dry_run &&
        !catalog_record_map(request->db, request->database, &error))
        return fail("cannot record the map", &error);
    if (request->ctl->json)
        ctl_print_json(json_pack("{ss si sb}", "database", request->database->name, "keyspaces",
                                 missing, "dry_run", (int)request->ctl->dry_run));
    return CTL_DONE;
}

/* ---- the command ---- */

/* NULL: said why. */
static const struct database_config *find_database(const struct ctl *ctl, const char *name)
{
    const struct database_config *found = NULL;
    for (int i = 0; i < ctl->config->ndatabases; i++) {
        const struct database_config *one = &ctl->config->databases[i];
        if (name ? strcmp(one->name, name) != 0 : !catalog_is_for(one))
            continue;
        if (found) {
            ctl_usage(ctl, "several databases are sharded: say which");
            return NULL;
        }
        found = one;
    }
    if (!found && name)
        ctl_usage(ctl, "the configuration has no database \"%s\"", name);
    else if (!found || !catalog_is_for(found))
        ctl_usage(ctl, "no database has several shards and a keyspace");
    return found && catalog_is_for(found) ? found : NULL;
}

static int run(struct map_request *request)
{
    struct db_error error = {.text = ""};
    arena_init(&request->arena);
    int status = !open_catalog(request, &error) ? fail("cannot reach the catalog", &error)
                 : request->record              ? record(request)
                                                : show(request);
    if (request->map)
        shardmap_free(request->map);
    db_close(request->db);
    arena_free(&request->arena);
    return ctl_stop ? CTL_INTERRUPTED : status;
}

int cmd_map(struct ctl *ctl, int argc, char **argv)
{
    struct map_request request = {.ctl = ctl};
    int option, status;
    while ((option = ctl_option(ctl, argc, argv, "", options, &status)) >= 0)
        request.user = optarg;
    if (option == CTL_OPTION_EXIT)
        return status;
    const char *verb = optind < argc ? argv[optind] : "";
    request.record = strcmp(verb, "record") == 0;
    if ((!request.record && strcmp(verb, "show") != 0) || argc - optind > 2)
        return ctl_usage(ctl, "map takes show or record, and a database");
    if (!ctl_load_config(ctl))
        return CTL_FAILED;
    request.database = find_database(ctl, optind + 1 < argc ? argv[optind + 1] : NULL);
    return request.database ? run(&request) : CTL_USAGE;
}
