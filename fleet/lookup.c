/*
 * lookup.c: `pgshuntctl lookup`: sets up, verifies and takes away what proxies find shards with by other columns.
 *
 * A lookup is in use from the moment its function is on the first shard, from which proxies read the schema:
 * that comes last when it is set up, and goes first when it is taken away. All steps may be done again.
 */
#include <string.h>

#include "fleet/lookup_unique.h"
#include "pgshunt/catalog.h"

struct lookup_work {
    struct fleet *fleet;
    const char *name; /* of the one that is meant; NULL: all */
    bool repair;
};

/* ---- looking ---- */

static bool read_all(struct fleet *fleet, const struct lookup_rule *lookup,
                     struct lookup_shard *found)
{
    bool good = true;
    for (int i = 0; i < fleet->nshards; i++)
        good &= lookup_shard_read(fleet, i, lookup, &found[i]);
    return good;
}

static const char *words(struct fleet *fleet, const struct lookup_rule *lookup)
{
    return FLEET_TEXT(fleet, "%s -> %s%s", lookup->column, lookup->key,
                      lookup->unique ? ", unique" : "");
}

/* ---- create ---- */

static void plan_shard(struct fleet *fleet, int shard, const struct lookup_rule *lookup,
                       const struct lookup_shard *found)
{
    if (!found->index)
        fleet_tell(
            fleet, FLEET_PLANNED, shard, lookup->name,
            FLEET_TEXT(fleet, "an index of %s (%s), %s", found->table, found->column, found->size),
            NULL);
    if (!found->function)
        fleet_tell(fleet, FLEET_PLANNED, shard, lookup->name,
                   FLEET_TEXT(fleet, "function pgshunt.%s", lookup->function), NULL);
}

static bool make_indexes(struct fleet *fleet, const struct lookup_rule *lookup,
                         struct lookup_shard *found)
{
    for (int i = 0; i < fleet->nshards; i++)
        if (fleet_stopped(fleet) ||
            (!found[i].index && !lookup_shard_index(fleet, i, lookup, &found[i])))
            return false;
    return true;
}

/* The first shard's is the last. */
static bool make_functions(struct fleet *fleet, const struct lookup_rule *lookup,
                           struct lookup_shard *found)
{
    for (int i = fleet->nshards - 1; i >= 0; i--) {
        if (found[i].function)
            continue;
        if (fleet_stopped(fleet) || !lookup_shard_install(fleet, i, lookup, &found[i]))
            return false;
        fleet_tell(fleet, FLEET_DONE, i, lookup->name, "function installed", NULL);
    }
    return true;
}

static bool is_complete(const struct fleet *fleet, const struct lookup_shard *found)
{
    bool complete = true;
    for (int i = 0; i < fleet->nshards; i++)
        complete &= found[i].index && found[i].function;
    return complete;
}

static bool create_one(struct lookup_work *work, const struct lookup_rule *lookup)
{
    struct fleet *fleet = work->fleet;
    struct lookup_shard *found = arena_array(&fleet->arena, struct lookup_shard, fleet->nshards);
    int duplicates = 0;
    if (!read_all(fleet, lookup, found))
        return false;
    if (is_complete(fleet, found)) {
        fleet_tell(fleet, FLEET_FACT, -1, lookup->name,
                   FLEET_TEXT(fleet, "%s: is there", words(fleet, lookup)), NULL);
        return true;
    }
    for (int i = 0; i < fleet->nshards && fleet->request->dry_run; i++)
        plan_shard(fleet, i, lookup, &found[i]);
    if (fleet->request->dry_run)
        return true;
    if (!make_indexes(fleet, lookup, found) ||
        (lookup->unique && !lookup_unique_check(fleet, lookup, found, &duplicates)))
        return false;
    if (duplicates || !make_functions(fleet, lookup, found))
        return false;
    fleet_tell(fleet, FLEET_DONE, -1, lookup->name,
               FLEET_TEXT(fleet, "%s: ready; proxies use it within a minute", words(fleet, lookup)),
               NULL);
    return true;
}

/* ---- verify ---- */

#define MEND "pgshuntctl lookup verify --repair"

static bool verify_shard(struct fleet *fleet, int shard, const struct lookup_rule *lookup,
                         const struct lookup_shard *found)
{
    if (!found->index)
        fleet_tell(fleet, FLEET_PROBLEM, shard, lookup->name,
                   FLEET_TEXT(fleet, "%s has no valid index that begins with %s", found->table,
                              found->column),
                   MEND);
    if (!found->function)
        fleet_tell(fleet, FLEET_PROBLEM, shard, lookup->name,
                   FLEET_TEXT(fleet,
                              found->any_function
                                  ? "function pgshunt.%s is not as it was installed, or %s "
                                    "may not call it"
                                  : "there is no function pgshunt.%s%s",
                              lookup->function,
                              found->any_function ? fleet->request->config->monitor_user : ""),
                   MEND);
    return found->index && found->function;
}

/* As proxies ask: every value that is there must be found. */
static bool verify_answers(struct fleet *fleet, int shard, const struct lookup_rule *lookup,
                           const struct lookup_shard *found)
{
    const char *sql = FLEET_TEXT(
        fleet,
        "WITH v AS MATERIALIZED (SELECT DISTINCT %s::text AS v FROM %s WHERE %s IS NOT NULL LIMIT "
        "1000)"
        " SELECT (SELECT count(*) FROM v), (SELECT count(DISTINCT n) FROM pgshunt.%s(array(SELECT "
        "v FROM "
        "v)))",
        found->column, found->table, found->column, lookup->function);
    PGresult *rows = fleet_query(fleet, shard, sql, 0);
    if (!rows)
        return fleet_fails(fleet, shard, lookup->name, "cannot ask the function");
    bool equal = strcmp(PQgetvalue(rows, 0, 0), PQgetvalue(rows, 0, 1)) == 0;
    if (!equal)
        fleet_tell(fleet, FLEET_PROBLEM, shard, lookup->name,
                   FLEET_TEXT(fleet, "of %s values that are there, %s are found",
                              PQgetvalue(rows, 0, 0), PQgetvalue(rows, 0, 1)),
                   "REINDEX the index of the column.");
    PQclear(rows);
    return equal;
}

static bool verify_unique(struct lookup_work *work, const struct lookup_rule *lookup,
                          const struct lookup_shard *found)
{
    struct fleet *fleet = work->fleet;
    int duplicates;
    if (!lookup->unique)
        return true;
    if (!lookup_unique_check(fleet, lookup, found, &duplicates))
        return false;
    if (!duplicates || !work->repair)
        return !duplicates;
    if (!fleet->request->dry_run && lookup_shard_withdraw(fleet, 0, lookup))
        fleet_tell(fleet, FLEET_DONE, 0, lookup->name,
                   "taken out of use until lookup create succeeds", NULL);
    if (fleet->request->dry_run)
        fleet_tell(fleet, FLEET_PLANNED, 0, lookup->name, "taken out of use", NULL);
    return false;
}

static bool verify_one(struct lookup_work *work, const struct lookup_rule *lookup)
{
    struct fleet *fleet = work->fleet;
    struct lookup_shard *found = arena_array(&fleet->arena, struct lookup_shard, fleet->nshards);
    if (!read_all(fleet, lookup, found))
        return false;
    if (!is_complete(fleet, found) && work->repair)
        return create_one(work, lookup);
    bool good = true;
    for (int i = 0; i < fleet->nshards; i++)
        good &= verify_shard(fleet, i, lookup, &found[i]) &&
                verify_answers(fleet, i, lookup, &found[i]);
    good &= verify_unique(work, lookup, found);
    if (good)
        fleet_tell(fleet, FLEET_FACT, -1, lookup->name,
                   FLEET_TEXT(fleet, "%s: good on all shards", words(fleet, lookup)), NULL);
    return good;
}

/* What is there and not configured any more is of no use, and costs writes. */
static void tell_strays(struct fleet *fleet)
{
    PGresult *rows =
        fleet_query(fleet, 0,
                    "SELECT DISTINCT substr(obj_description(p.oid, 'pg_proc'), 16), p.proname"
                    " FROM pg_proc AS p WHERE p.pronamespace = to_regnamespace('pgshunt')"
                    " AND obj_description(p.oid, 'pg_proc') LIKE 'pgshunt lookup %'",
                    0);
    for (int row = 0; rows && row < PQntuples(rows); row++) {
        const struct lookup_rule *lookup;
        bool known = false;
        for (unsigned i = 0; (lookup = shardmap_lookup(fleet->map, i)); i++)
            known |= strcmp(lookup->function, PQgetvalue(rows, row, 1)) == 0;
        if (!known)
            fleet_tell(fleet, FLEET_NOTE, 0, fleet_text(fleet, rows, row, 0),
                       FLEET_TEXT(fleet, "pgshunt.%s is of no lookup of the configuration",
                                  PQgetvalue(rows, row, 1)),
                       "pgshuntctl lookup drop, then create what is configured");
    }
    PQclear(rows);
}

/* ---- all of them ---- */

static bool each(struct lookup_work *work,
                 bool (*one)(struct lookup_work *work, const struct lookup_rule *lookup))
{
    struct fleet *fleet = work->fleet;
    const struct lookup_rule *lookup;
    bool any = false, good = true;
    for (unsigned i = 0; (lookup = shardmap_lookup(fleet->map, i)); i++) {
        if (work->name && strcmp(work->name, lookup->name) != 0)
            continue;
        any = true;
        good &= one(work, lookup);
    }
    if (!any)
        fleet_tell(
            fleet, FLEET_FAILED, -1, work->name, "there is no such lookup in the configuration",
            "Name it in its keyspace: lookup = ( { table = \"orders\"; column = \"id\"; } );");
    return good && any;
}

/* Proxies would find it out by themselves, after a while. */
static void announce(struct fleet *fleet)
{
    struct db_error ignored;
    for (int i = 0; fleet->changed && i < fleet->nshards; i++)
        if (strcmp(fleet->shards[i].name, fleet->database->catalog) == 0 &&
            db_is_open(fleet->shards[i].db) &&
            !catalog_announce_schema(fleet->shards[i].db, fleet->database->name, &ignored))
            fleet_tell(fleet, FLEET_NOTE, i, NULL,
                       FLEET_TEXT(fleet, "proxies could not be told: %s", ignored.text), NULL);
}

enum fleet_outcome fleet_lookup_create(const struct fleet_request *request, const char *name)
{
    struct fleet fleet;
    struct lookup_work work = {.fleet = &fleet, .name = name};
    if (fleet_open(&fleet, request, "pgshuntctl lookup"))
        each(&work, create_one);
    announce(&fleet);
    enum fleet_outcome outcome = fleet_outcome(&fleet);
    fleet_close(&fleet);
    return outcome;
}

enum fleet_outcome fleet_lookup_verify(const struct fleet_request *request, const char *name,
                                       bool repair)
{
    struct fleet fleet;
    struct lookup_work work = {.fleet = &fleet, .name = name, .repair = repair};
    if (fleet_open(&fleet, request, "pgshuntctl lookup") && each(&work, verify_one) && !name)
        tell_strays(&fleet);
    announce(&fleet);
    enum fleet_outcome outcome = fleet_outcome(&fleet);
    fleet_close(&fleet);
    return outcome;
}

enum fleet_outcome fleet_lookup_drop(const struct fleet_request *request, const char *name)
{
    struct fleet fleet;
    bool good = fleet_open(&fleet, request, "pgshuntctl lookup");
    for (int i = 0; good && i < fleet.nshards; i++)
        good = !fleet_stopped(&fleet) && lookup_shard_drop(&fleet, i, name);
    announce(&fleet);
    enum fleet_outcome outcome = fleet_outcome(&fleet);
    fleet_close(&fleet);
    return outcome;
}
