/*
 * check_schema.c: whether a target has what a source has: the database's nature, extensions, tables with their
 * columns and keys, reference tables, lookups. The parts of a schema and how they are read are fleet/drift.h's.
 */
#include <stdio.h>
#include <string.h>

#include "fleet/drift.h"
#include "resharder/check.h"

#define uthash_malloc(size) mem_alloc(size)
#include <uthash.h>

/* One part of a schema, as the source and the target have it. */
struct part {
    const char *key;  /* kind, a blank, name */
    const char *name; /* quoted, with its schema where that is needed */
    const char *kind, *parent;
    const char *source, *target;        /* definitions; NULL: it is not there */
    const char *create, *change, *drop; /* statements for the target; NULL: no plain one does it */
    struct part *next;
    UT_hash_handle hh;
};

struct comparing {
    struct check *check;
    const struct link *link;
    struct part *parts, *first, **end;
    struct part *scope; /* hash by name: tables that move, and their columns */
};

static const char *text(struct comparing *c, const PGresult *rows, int row, int column)
{
    return PQgetisnull(rows, row, column)
               ? NULL
               : arena_strdup(&c->check->reshard->arena, PQgetvalue(rows, row, column));
}

/* ---- what is looked at ---- */

static void add_to_scope(struct comparing *c, const char *name)
{
    struct part *part;
    HASH_FIND(hh, c->scope, name, strlen(name), part);
    if (part)
        return;
    part = arena_new(&c->check->reshard->arena, struct part);
    part->name = name;
    HASH_ADD_KEYPTR(hh, c->scope, part->name, strlen(part->name), part);
}

static bool in_scope(const struct comparing *c, const char *name)
{
    struct part *part;
    HASH_FIND(hh, c->scope, name, strlen(name), part);
    return part != NULL;
}

/* The tables that move, with all of their partitions, by the names that drift_queries have for them. */
static bool find_tables(struct comparing *c, unsigned shard)
{
    struct reshard *reshard = c->check->reshard;
    const struct move_tables *tables = &c->check->tables[shard];
    for (int i = 0; i < tables->count; i++) {
        PGresult *rows =
            db_query(reshard_primary(reshard, shard), RESHARD_QUERY_MS, &reshard->error,
                     "SELECT $1::oid::regclass::text UNION"
                     " SELECT relid::regclass::text FROM pg_partition_tree($1::oid)",
                     1, RESHARD_TEXT(reshard, "%u", tables->items[i].oid));
        if (!rows)
            return check_fails(c->check, shard, "cannot read the tables");
        for (int row = 0; row < PQntuples(rows); row++)
            add_to_scope(c, text(c, rows, row, 0));
        PQclear(rows);
    }
    return true;
}

/* Kinds that are compared, and whether a difference is in a job's way. */
static const struct compared {
    const char *kind;
    bool stops;
    bool whole; /* all of the database's, not just the tables' */
} compared[] = {
    {"database", true, true},    {"extension", true, true},
    {"table", true, false},      {"column", true, false},
    {"constraint", true, false}, {"NOT NULL of column", true, false},
    {"index", false, false},     {"default of column", false, false},
    {"trigger", false, false},   {"row security of", false, false},
    {"policy", false, false},
};

static const struct compared *find_compared(const char *kind)
{
    for (size_t i = 0; i < sizeof compared / sizeof compared[0]; i++)
        if (strcmp(compared[i].kind, kind) == 0)
            return &compared[i];
    return NULL;
}

/* ---- reading ---- */

static struct part *take_part(struct comparing *c, const char *kind, const char *name)
{
    struct part *part;
    const char *key = RESHARD_TEXT(c->check->reshard, "%s %s", kind, name);
    HASH_FIND(hh, c->parts, key, strlen(key), part);
    if (part)
        return part;
    part = arena_new(&c->check->reshard->arena, struct part);
    part->key = key;
    part->name = name;
    part->kind = kind;
    HASH_ADD_KEYPTR(hh, c->parts, part->key, strlen(part->key), part);
    *c->end = part;
    c->end = &part->next;
    return part;
}

static bool read_kind(struct comparing *c, const struct drift_query *query, bool whole, bool source)
{
    struct reshard *reshard = c->check->reshard;
    unsigned shard = source ? c->link->source : c->link->target;
    PGresult *rows =
        db_query(reshard_primary(reshard, shard), RESHARD_QUERY_MS, &reshard->error, query->sql, 0);
    if (!rows)
        return check_fails(c->check, shard, "cannot read the schema");
    for (int i = 0; i < PQntuples(rows); i++) {
        const char *name = text(c, rows, i, 0);
        if ((!whole && !in_scope(c, name) && !in_scope(c, PQgetvalue(rows, i, 1))) ||
            strstr(name, "pgshunt_guard")) /* a job's own trigger */
            continue;
        struct part *part = take_part(c, query->kind, name);
        const char *definition = PQgetisnull(rows, i, 2) ? "" : text(c, rows, i, 2);
        *(source ? &part->source : &part->target) = definition;
        if (source) {
            part->parent = text(c, rows, i, 1);
            part->create = text(c, rows, i, 3);
            part->change = text(c, rows, i, 4);
        } else {
            part->drop = text(c, rows, i, 5);
        }
        if (strcmp(query->kind, "column") == 0)
            add_to_scope(c, name);
    }
    PQclear(rows);
    return true;
}

/* ---- telling ---- */

static void tell(struct comparing *c, bool stops, const char *object, const char *words,
                 const char *mend)
{
    const char *shard = shardmap_shard_name(c->check->reshard->map, c->link->target);
    (stops ? check_problem : check_note)(c->check, shard, object, words, mend);
}

static struct part *find_part(const struct comparing *c, const char *kind, const char *name)
{
    struct part *part;
    const char *key = RESHARD_TEXT(c->check->reshard, "%s %s", kind, name);
    HASH_FIND(hh, c->parts, key, strlen(key), part);
    return part;
}

/* What is missing with its table is told once. */
static bool is_of_missing(const struct comparing *c, const struct part *part)
{
    if (!part->parent || !*part->parent)
        return false;
    const struct part *table = find_part(c, "table", part->parent),
                      *column = find_part(c, "column", part->parent);
    return (table && table != part && !table->target) || (column && is_of_missing(c, column));
}

static bool is_nature(const struct part *part)
{
    return strcmp(part->kind, "database") == 0;
}

static void tell_missing(struct comparing *c, const struct part *part, bool stops)
{
    struct reshard *reshard = c->check->reshard;
    bool table = strcmp(part->kind, "table") == 0;
    bool extension = strcmp(part->kind, "extension") == 0;
    if (c->check->makes[c->link->target] && (table || extension))
        return;
    if (!table && is_of_missing(c, part))
        return;
    if (c->check->prepared && strcmp(part->kind, "constraint") == 0)
        return; /* foreign keys come behind the rows */
    tell(c, stops, part->name,
         RESHARD_TEXT(reshard, "%s is missing%s%s", part->kind, *part->source && !table ? ": " : "",
                      table ? "" : part->source),
         table ? "--prepare-schema makes what is missing, on a target without tables"
               : part->create);
}

static void tell_different(struct comparing *c, const struct part *part, bool stops)
{
    struct reshard *reshard = c->check->reshard;
    const char *source = shardmap_shard_name(reshard->map, c->link->source);
    bool version = is_nature(part) && strncmp(part->name, "major version", 13) == 0;
    bool extension = strcmp(part->kind, "extension") == 0;
    if (strcmp(part->kind, "table") == 0) /* storage and replica identity are each shard's own */
        return;
    tell(c, stops && !version && !extension, part->name,
         RESHARD_TEXT(reshard, "%s is \"%s\", and \"%s\" on shard %s",
                      is_nature(part) ? "it" : part->kind, part->target, part->source, source),
         is_nature(part) && !version ? "Create the target's database anew, like the source's"
                                     : part->change);
}

static void tell_part(struct comparing *c, const struct part *part)
{
    bool stops = find_compared(part->kind)->stops;
    if (!part->target)
        tell_missing(c, part, stops);
    else if (!part->source && strcmp(part->kind, "extension") != 0)
        tell(c, stops, part->name,
             RESHARD_TEXT(c->check->reshard, "%s is not on shard %s", part->kind,
                          shardmap_shard_name(c->check->reshard->map, c->link->source)),
             part->drop);
    else if (part->source && strcmp(part->source, part->target) != 0)
        tell_different(c, part, stops);
}

/* ---- what else a target needs ---- */

static bool check_lookups(struct comparing *c)
{
    struct reshard *reshard = c->check->reshard;
    const struct lookup_rule *lookup;
    for (unsigned i = 0; (lookup = shardmap_lookup(reshard->map, i)); i++) {
        const char *query =
            RESHARD_TEXT(reshard,
                         "SELECT 'note', $1::text, 'the lookup is not set up here: until it is, "
                         "statements that use it go"
                         " to all shards', $2::text WHERE to_regproc('pgshunt.%s') IS NULL",
                         lookup->function);
        if (!check_ask(c->check, c->link->target, "cannot look for lookups", query, lookup->name,
                       RESHARD_TEXT(reshard,
                                    "pgshuntctl lookup create %s, when the tables are there",
                                    reshard->request->database)))
            return false;
    }
    return true;
}

/* -1: it cannot be asked; 0: not there; 1: no rows; 2: rows. */
static int look_at_reference(struct comparing *c, unsigned shard, const char *table)
{
    struct reshard *reshard = c->check->reshard;
    struct db *db = reshard_primary(reshard, shard);
    PGresult *rows = db_query(
        db, RESHARD_QUERY_MS, &reshard->error,
        "SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid ="
        " c.relnamespace WHERE c.relkind IN ('r', 'p') AND n.nspname !~ '^pg_' AND n.nspname"
        " NOT IN ('information_schema', 'pgshunt') AND (c.relname = $1 OR n.nspname || '.' ||"
        " c.relname = $1) ORDER BY n.nspname <> 'public' LIMIT 1",
        1, table);
    if (!rows || !PQntuples(rows)) {
        int found = rows ? 0 : -1;
        PQclear(rows);
        return found;
    }
    const char *query = RESHARD_TEXT(reshard, "SELECT FROM %s LIMIT 1", PQgetvalue(rows, 0, 0));
    PQclear(rows);
    rows = db_query(db, RESHARD_QUERY_MS, &reshard->error, query, 0);
    int found = rows ? 1 + (PQntuples(rows) > 0) : -1;
    PQclear(rows);
    return found;
}

static bool check_reference(struct comparing *c, const char *table)
{
    struct reshard *reshard = c->check->reshard;
    int source = look_at_reference(c, c->link->source, table),
        target = look_at_reference(c, c->link->target, table);
    const char *repair = RESHARD_TEXT(reshard, "pgshuntctl reference repair %s --from %s",
                                      reshard->request->database,
                                      shardmap_shard_name(reshard->map, c->link->source));
    unsigned unread = source < 0 ? c->link->source : c->link->target;
    if ((source < 0 || target < 0) && strcmp(reshard->error.sqlstate, "42501") == 0) {
        check_problem(c->check, shardmap_shard_name(reshard->map, unread), table,
                      "this role may not read the reference table",
                      RESHARD_TEXT(reshard, "GRANT SELECT ON %s TO \"%s\"", table,
                                   PQuser(db_connection(reshard_primary(reshard, unread)))));
        return true;
    }
    if (source < 0 || target < 0)
        return check_fails(c->check, unread, "cannot look at a reference table");
    bool makes = c->check->makes[c->link->target];
    if (source > target && target == 0 && !makes)
        tell(c, true, table, "the reference table is not here",
             "--prepare-schema makes what is missing, on a target without tables");
    else if (source > target && !makes) /* rows that come are not checked by foreign keys */
        tell(c, !c->check->prepare_schema, table, "the reference table has no rows here", repair);
    return true;
}

static bool check_references(struct comparing *c)
{
    const struct database_config *database = c->check->reshard->database;
    for (int i = 0; i < database->nreference; i++)
        if (!check_reference(c, database->reference[i]))
            return false;
    return true;
}

bool check_schema(struct check *check, const struct link *link)
{
    struct comparing c = {.check = check, .link = link};
    c.end = &c.first;
    bool good = find_tables(&c, link->source) && find_tables(&c, link->target);
    for (const struct drift_query *query = drift_queries; query->kind && good; query++) {
        const struct compared *kind = find_compared(query->kind);
        if (kind && !query->bad)
            good =
                read_kind(&c, query, kind->whole, true) && read_kind(&c, query, kind->whole, false);
    }
    for (const struct part *part = c.first; part && good; part = part->next)
        tell_part(&c, part);
    good = good && check_references(&c) && check_lookups(&c);
    HASH_CLEAR(hh, c.parts);
    HASH_CLEAR(hh, c.scope);
    return good;
}
