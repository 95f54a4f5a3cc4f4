/* cmd_explain.c: `pgshuntctl explain`: the router's plan for a statement, from the configuration alone. */
#include <stdio.h>
#include <string.h>

#include "ctl/ctl.h"
#include "pgshunt/catalog.h"
#include "pgshunt/plan.h"
#include "pgshunt/primary.h"

const char cmd_explain_help[] =
    "Prints where the statement would go and why, as EXPLAIN through a proxy does, from the\n"
    "configuration alone: no server is asked (but with --recorded). So tables' columns and "
    "functions are not known:\n"
    "what calls a function of your own goes to the primary here, though a proxy may know "
    "better.\n\n"
    "  -d, --database NAME   of the configuration (default: the first)\n"
    "      --key VALUE       as after SET pgshunt.key\n"
    "      --shard NAME      as after SET pgshunt.shard\n"
    "      --recorded        asks the catalog shard which shard has which buckets (default: as\n"
    "                        shards and weights of the configuration say)\n"
    "      --user NAME       log in there as (default: $PGUSER, monitor.user)\n\n"
    "Examples:\n"
    "  pgshuntctl explain \"SELECT * FROM users WHERE id = 42\"\n"
    "  pgshuntctl explain -d app --json \"SELECT count(*) FROM orders\"\n";

static const struct option options[] = {
    {"database", required_argument, NULL, 'd'}, {"key", required_argument, NULL, 1},
    {"shard", required_argument, NULL, 2},      {"recorded", no_argument, NULL, 3},
    {"user", required_argument, NULL, 4},       {NULL, 0, NULL, 0},
};

struct explain {
    const char *database, *sql, *user;
    bool recorded;
    struct route_session session;
};

static int parse(struct ctl *ctl, int argc, char **argv, struct explain *explain)
{
    int option, status;
    while ((option = ctl_option(ctl, argc, argv, "d:", options, &status)) >= 0) {
        if (option == 3) {
            explain->recorded = true;
            continue;
        }
        *(option == 'd' ? &explain->database
          : option == 1 ? &explain->session.key
          : option == 4 ? &explain->user
                        : &explain->session.shard) = optarg;
    }
    if (option == CTL_OPTION_EXIT)
        return status;
    if (optind != argc - 1)
        return ctl_usage(ctl, "explain takes one text of SQL: put it in quotes");
    explain->sql = argv[optind];
    return -1;
}

static const struct database_config *find_database(const struct ctl *ctl, const char *name)
{
    for (int i = 0; i < ctl->config->ndatabases; i++)
        if (!name || strcmp(ctl->config->databases[i].name, name) == 0)
            return &ctl->config->databases[i];
    return NULL;
}

/* One statement's lines. Returns whether it would be refused. */
static bool explain_one(const struct shardmap *map, const struct statement *statement,
                        const struct route_session *session, struct arena *arena, json_t *into)
{
    struct plan plan = {.kind = PLAN_DIRECT};
    struct route_input input = {.statement = statement, .map = map, .session = session};
    const char **lines;
    router_plan(&input, arena, &plan);
    int count = router_explain(&plan, map, arena, &lines);
    json_t *texts = into ? json_array() : NULL;
    for (int i = 0; i < count; i++) {
        if (into)
            json_array_append_new(texts, json_string(lines[i]));
        else
            puts(lines[i]);
    }
    if (into) {
        json_t *object = json_object();
        json_object_set_new(object, "kind", json_string(statement_kind_name(statement->kind)));
        json_object_set_new(object, "plan", texts);
        json_array_append_new(into, object);
    }
    return plan.kind == PLAN_REFUSE;
}

/* NULL: said why. */
static struct shardmap *recorded_map(const struct ctl *ctl, const struct database_config *database,
                                     const char *user)
{
    struct primary_login login = {.config = ctl->config,
                                  .database = database,
                                  .user = user,
                                  .application = "pgshuntctl explain",
                                  .stop = &ctl_stop};
    struct db_error error = {.text = ""};
    struct shardmap *map = NULL;
    struct db *db = NULL;
    for (int i = 0; i < database->nshards; i++)
        if (strcmp(database->shards[i].name, database->catalog) == 0)
            db = primary_open(&login, &database->shards[i], &error);
    if (!db || !catalog_read_map(db, database, &map, &error))
        fprintf(stderr, "pgshuntctl: cannot read the recorded map: %s\n", error.text);
    db_close(db);
    return map;
}

static int explain_all(const struct ctl *ctl, const struct database_config *database,
                       const struct explain *explain)
{
    struct shardmap *map = explain->recorded ? recorded_map(ctl, database, explain->user)
                                             : shardmap_of_config(database);
    if (!map)
        return CTL_FAILED;
    struct arena arena;
    arena_init(&arena);
    struct statement_list list = statement_parse(explain->sql, &arena);
    json_t *plans = ctl->json ? json_array() : NULL;
    bool refused = false;
    for (int i = 0; i < list.count; i++)
        refused |= explain_one(map, list.items[i], &explain->session, &arena, plans);
    if (ctl->json)
        ctl_print_json(plans);
    shardmap_free(map);
    arena_free(&arena);
    return refused ? CTL_REFUSED : CTL_DONE;
}

int cmd_explain(struct ctl *ctl, int argc, char **argv)
{
    struct explain explain = {.session = {.transaction_shard = -1}};
    int status = parse(ctl, argc, argv, &explain);
    if (status >= 0)
        return status;
    if (!ctl_load_config(ctl))
        return CTL_FAILED;
    const struct database_config *database = find_database(ctl, explain.database);
    if (!database) {
        fprintf(stderr, "pgshuntctl: the configuration has no database \"%s\"\n", explain.database);
        return CTL_FAILED;
    }
    return explain_all(ctl, database, &explain);
}
