/* lookup_shard.c: what a lookup is made of on one shard: looked at, made, taken away. */
#include "fleet/lookup_shard.h"

#include <string.h>
#include <unistd.h>

#define BUILD_MS (7 * 24 * 3600 * 1000LL) /* an index of a large table takes hours */
#define WAIT_US 500000

/* ---- quoting ---- */

static const char *quoted(struct fleet *fleet, int shard, const char *text, bool name)
{
    PGconn *pg = db_connection(fleet->shards[shard].db);
    char *made = pg && name ? PQescapeIdentifier(pg, text, strlen(text))
                 : pg       ? PQescapeLiteral(pg, text, strlen(text))
                            : NULL;
    const char *out = made ? arena_strdup(&fleet->arena, made) : "NULL";
    PQfreemem(made);
    return out;
}

/* ---- what is there ---- */

/* $1 schema or NULL, $2 table, $3 column, $4 the key's columns. A domain is what is below it. */
static const char table_sql[] =
    "WITH RECURSIVE tables AS ("
    " SELECT c.oid, n.nspname, c.relname, c.relkind FROM pg_class AS c"
    " JOIN pg_namespace AS n ON n.oid = c.relnamespace"
    " WHERE c.relkind IN ('r', 'p') AND c.relname = $2 AND c.relpersistence <> 't'"
    " AND n.nspname = coalesce($1, n.nspname)"
    " AND n.nspname NOT IN ('pg_catalog', 'information_schema')),"
    " base(attnum, oid, type) AS ("
    " SELECT a.attnum, a.atttypid, a.atttypid FROM pg_attribute AS a JOIN tables AS t ON t.oid = "
    "a.attrelid"
    " WHERE a.attname = $3 AND NOT a.attisdropped"
    " UNION ALL SELECT b.attnum, b.oid, y.typbasetype FROM base AS b JOIN pg_type AS y ON y.oid = "
    "b.type"
    " WHERE y.typtype = 'd')"
    " SELECT t.oid, format('%I.%I', t.nspname, t.relname), t.relkind = 'p',"
    " (SELECT count(*) FROM tables),"
    " (SELECT b.type FROM base AS b JOIN pg_type AS y ON y.oid = b.type WHERE y.typtype <> 'd'"
    "  LIMIT 1),"
    " (SELECT format_type(b.type, NULL) FROM base AS b JOIN pg_type AS y ON y.oid = b.type"
    "  WHERE y.typtype <> 'd' LIMIT 1),"
    " NOT EXISTS (SELECT FROM unnest($4::text[]) AS k WHERE NOT EXISTS"
    "  (SELECT FROM pg_attribute AS a WHERE a.attrelid = t.oid AND a.attname = k"
    "   AND NOT a.attisdropped)),"
    " pg_size_pretty(pg_table_size(t.oid)) FROM tables AS t LIMIT 1";

/* $1 table, $2 column, $3 our name for it. One that serves is complete and begins with the column. */
static const char index_sql[] =
    "SELECT format('%I.%I', n.nspname, c.relname), i.indisvalid AND i.indisready AND i.indislive,"
    " c.relname = $3, EXISTS (SELECT FROM pg_stat_progress_create_index AS p"
    "  WHERE p.index_relid = c.oid OR p.relid IN"
    "   (SELECT relid FROM pg_partition_tree($1::regclass)))"
    " FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid"
    " JOIN pg_namespace AS n ON n.oid = c.relnamespace JOIN pg_am AS m ON m.oid = c.relam"
    " JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attname = $2"
    " WHERE i.indrelid = $1::oid AND i.indkey[0] = a.attnum AND i.indpred IS NULL"
    " AND m.amname IN ('btree', 'hash') AND i.indcollation[0] = a.attcollation"
    " ORDER BY i.indisvalid DESC, c.relname = $3 DESC";

static const char function_sql[] =
    "SELECT p.prosrc, p.prosecdef,"
    " coalesce((SELECT has_function_privilege(r.oid, p.oid, 'EXECUTE')"
    "  AND has_schema_privilege(r.oid, p.pronamespace, 'USAGE')"
    "  FROM pg_roles AS r WHERE r.rolname = $2), false)"
    " FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace"
    " WHERE n.nspname = 'pgshunt' AND p.proname = $1";

static bool is_fit(const char *oid)
{
    static const char *const types[] = {"20", "21", "23", "25", "1043", "2950"};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (strcmp(types[i], oid) == 0)
            return true;
    return false;
}

static bool problem(struct fleet *fleet, int shard, const struct lookup_rule *lookup,
                    const char *text, const char *mend)
{
    fleet_tell(fleet, FLEET_FAILED, shard, lookup->name, text, mend);
    return false;
}

/* Why the table cannot have this lookup; NULL: it can. */
static const char *unfit(struct fleet *fleet, const struct lookup_rule *lookup,
                         const PGresult *rows, const char **mend)
{
    *mend = NULL;
    if (!PQntuples(rows)) {
        *mend = "Create it through pgshunt, so that every shard has it.";
        return FLEET_TEXT(fleet, "there is no table %s", lookup->table);
    }
    if (strcmp(PQgetvalue(rows, 0, 3), "1") != 0) {
        *mend = "Name it with its schema in the configuration.";
        return FLEET_TEXT(fleet, "several schemas have a table %s", lookup->table);
    }
    if (PQgetisnull(rows, 0, 4))
        return FLEET_TEXT(fleet, "the table has no column %s", lookup->column);
    if (!is_fit(PQgetvalue(rows, 0, 4))) {
        *mend = "smallint, integer, bigint, uuid, text and varchar can be looked up.";
        return FLEET_TEXT(fleet, "the column is of type %s", PQgetvalue(rows, 0, 5));
    }
    return PQgetvalue(rows, 0, 6)[0] == 't'
               ? NULL
               : FLEET_TEXT(fleet, "the table has no key column %s", lookup->key);
}

static const struct table_rule *rule_of(const struct fleet *fleet, const struct lookup_rule *lookup)
{
    return shardmap_rule(fleet->map, lookup->table);
}

/* The key's columns, as an array's text. */
static const char *key_columns(struct fleet *fleet, const struct lookup_rule *lookup)
{
    const struct table_rule *rule = rule_of(fleet, lookup);
    const char *text = "{";
    for (unsigned i = 0; i < table_rule_nkeys(rule); i++) {
        text = FLEET_TEXT(fleet, "%s%s\"", text, i ? "," : "");
        for (const char *c = table_rule_key(rule, i); *c; c++)
            text = FLEET_TEXT(fleet, "%s%s%c", text, *c == '"' || *c == '\\' ? "\\" : "", *c);
        text = FLEET_TEXT(fleet, "%s\"", text);
    }
    return FLEET_TEXT(fleet, "%s}", text);
}

/* What shardmap_shard_of_text() understands: the key as text, or the texts of its columns in an array. */
static void name_key(struct fleet *fleet, int shard, const struct lookup_rule *lookup,
                     struct lookup_shard *found)
{
    const struct table_rule *rule = rule_of(fleet, lookup);
    const char *key = "", *row = "";
    for (unsigned i = 0; i < table_rule_nkeys(rule); i++) {
        const char *name = quoted(fleet, shard, table_rule_key(rule, i), true);
        key = FLEET_TEXT(fleet, "%s%s%s%s", key, i ? ", " : "", name, rule->nparts ? "::text" : "");
        row = FLEET_TEXT(fleet, "%s%st.%s::pg_catalog.text", row, i ? ", " : "", name);
    }
    bool several = rule->nparts > 0;
    found->key = several ? FLEET_TEXT(fleet, "jsonb_build_array(%s)", key) : key;
    found->row_key =
        several ? FLEET_TEXT(fleet, "pg_catalog.jsonb_build_array(%s)::pg_catalog.text", row) : row;
}

static bool read_table(struct fleet *fleet, int shard, const struct lookup_rule *lookup,
                       struct lookup_shard *found)
{
    const char *mend, *why;
    PGresult *rows = fleet_query(fleet, shard, table_sql, 4, lookup->schema, lookup->relation,
                                 lookup->column, key_columns(fleet, lookup));
    if (!rows)
        return fleet_fails(fleet, shard, lookup->name, "cannot read the table");
    why = unfit(fleet, lookup, rows, &mend);
    if (!why) {
        found->oid = fleet_text(fleet, rows, 0, 0);
        found->table = fleet_text(fleet, rows, 0, 1);
        found->partitioned = PQgetvalue(rows, 0, 2)[0] == 't';
        found->type = fleet_text(fleet, rows, 0, 5);
        found->size = fleet_text(fleet, rows, 0, 7);
        found->column = quoted(fleet, shard, lookup->column, true);
        name_key(fleet, shard, lookup, found);
    }
    PQclear(rows);
    return why ? problem(fleet, shard, lookup, why, mend) : true;
}

static bool read_index(struct fleet *fleet, int shard, const struct lookup_rule *lookup,
                       struct lookup_shard *found)
{
    PGresult *rows =
        fleet_query(fleet, shard, index_sql, 3, found->oid, lookup->column, lookup->function);
    if (!rows)
        return fleet_fails(fleet, shard, lookup->name, "cannot read the table's indexes");
    found->index = found->unfinished = NULL;
    found->building = false;
    for (int row = 0; row < PQntuples(rows); row++) {
        bool valid = PQgetvalue(rows, row, 1)[0] == 't', ours = PQgetvalue(rows, row, 2)[0] == 't';
        if (valid && !found->index)
            found->index = fleet_text(fleet, rows, row, 0);
        if (!valid && ours) {
            found->unfinished = fleet_text(fleet, rows, row, 0);
            found->building = PQgetvalue(rows, row, 3)[0] == 't';
        }
    }
    PQclear(rows);
    return true;
}

/* Values are compared as the column's own type, in its collation. Everything is named with its schema: to set a
 * search_path would cost more than the rest. */
static const char *body(struct fleet *fleet, const struct lookup_shard *found)
{
    bool named = strcmp(found->type, "text") == 0 || strcmp(found->type, "uuid") == 0;
    return FLEET_TEXT(fleet,
                      " BEGIN FOR i IN 1 .. coalesce(pg_catalog.array_length($1, 1), 0) LOOP"
                      " SELECT %s INTO key FROM %s AS t"
                      " WHERE t.%s OPERATOR(pg_catalog.=) ($1[i])::%s%s LIMIT 1;"
                      " IF FOUND THEN n := i; RETURN NEXT; END IF; END LOOP; END ",
                      found->row_key, found->table, found->column, named ? "pg_catalog." : "",
                      found->type);
}

static bool read_function(struct fleet *fleet, int shard, const struct lookup_rule *lookup,
                          struct lookup_shard *found)
{
    PGresult *rows = fleet_query(fleet, shard, function_sql, 2, lookup->function,
                                 fleet->request->config->monitor_user);
    if (!rows)
        return fleet_fails(fleet, shard, lookup->name, "cannot read the shard's functions");
    found->any_function = PQntuples(rows) > 0;
    found->function = PQntuples(rows) == 1 &&
                      strcmp(PQgetvalue(rows, 0, 0), body(fleet, found)) == 0 &&
                      PQgetvalue(rows, 0, 1)[0] == 't' && PQgetvalue(rows, 0, 2)[0] == 't';
    PQclear(rows);
    return true;
}

bool lookup_shard_read(struct fleet *fleet, int shard, const struct lookup_rule *lookup,
                       struct lookup_shard *found)
{
    *found = (struct lookup_shard){.table = NULL};
    return read_table(fleet, shard, lookup, found) && read_index(fleet, shard, lookup, found) &&
           read_function(fleet, shard, lookup, found);
}

/* ---- the index ---- */

static bool run_long(struct fleet *fleet, int shard, const struct lookup_rule *lookup,
                     const char *sql, const char *what)
{
    struct db *db = fleet->shards[shard].db;
    if (db_run(db, BUILD_MS, &fleet->error, sql, 0))
        return true;
    return fleet_fails(fleet, shard, lookup->name, what);
}

/* One that was killed leaves its server at work: that is waited for, not done twice. */
static bool wait_for_builder(struct fleet *fleet, int shard, const struct lookup_rule *lookup,
                             struct lookup_shard *found)
{
    if (found->building)
        fleet_tell(fleet, FLEET_NOTE, shard, lookup->name,
                   "an index is being built already: waiting for it", NULL);
    while (found->building && !fleet_stopped(fleet)) {
        usleep(WAIT_US);
        if (!read_index(fleet, shard, lookup, found))
            return false;
    }
    return true;
}

static bool comment_index(struct fleet *fleet, int shard, const struct lookup_rule *lookup,
                          const char *index)
{
    const char *words = FLEET_TEXT(fleet, "pgshunt lookup %s", lookup->name);
    const char *sql =
        FLEET_TEXT(fleet, "COMMENT ON INDEX %s IS %s", index, quoted(fleet, shard, words, false));
    return run_long(fleet, shard, lookup, sql, "cannot comment on the index");
}

/*
 * The parts of a partitioned table, the deepest first; those whose index is not attached yet. $1 table,
 * $2 column, $3 the name of indexes: that of a part ends with its number.
 */
static const char parts_sql[] =
    "SELECT format('%I.%I', n.nspname, c.relname), c.relkind = 'p',"
    " format('%I', n.nspname), $2 || CASE WHEN t.level > 0 THEN '_' || c.oid ELSE '' END,"
    " CASE WHEN t.level > 0 THEN (SELECT format('%I.', pn.nspname) ||"
    "  quote_ident($2 || CASE WHEN t.parentrelid::oid <> $1::oid THEN '_' || pc.oid ELSE '' END)"
    "  FROM pg_class AS pc JOIN pg_namespace AS pn ON pn.oid = pc.relnamespace"
    "  WHERE pc.oid = t.parentrelid) END,"
    " EXISTS (SELECT FROM pg_class AS ic JOIN pg_index AS i ON i.indexrelid = ic.oid"
    "  WHERE ic.relnamespace = c.relnamespace AND i.indrelid = c.oid"
    "  AND ic.relname = $2 || CASE WHEN t.level > 0 THEN '_' || c.oid ELSE '' END"
    "  AND (i.indisvalid OR c.relkind = 'p'))"
    " FROM pg_partition_tree($1::regclass) AS t JOIN pg_class AS c ON c.oid = t.relid"
    " JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p')"
    " ORDER BY t.level, c.oid";

/* Makes one part's index where it has none; those of tables with parts are empty frames. */
static bool index_part(struct fleet *fleet, int shard, const struct lookup_rule *lookup,
                       const struct lookup_shard *found, const PGresult *parts, int row)
{
    bool frame = PQgetvalue(parts, row, 1)[0] == 't', there = PQgetvalue(parts, row, 5)[0] == 't';
    const char *name = quoted(fleet, shard, PQgetvalue(parts, row, 3), true);
    const char *index = FLEET_TEXT(fleet, "%s.%s", PQgetvalue(parts, row, 2), name);
    if (!there && !frame &&
        !run_long(fleet, shard, lookup,
                  FLEET_TEXT(fleet, "DROP INDEX CONCURRENTLY IF EXISTS %s", index),
                  "cannot drop an unfinished index"))
        return false;
    const char *sql =
        FLEET_TEXT(fleet, "CREATE INDEX %s %s ON %s %s (%s)", frame ? "" : "CONCURRENTLY", name,
                   frame ? "ONLY" : "", PQgetvalue(parts, row, 0), found->column);
    return there || (run_long(fleet, shard, lookup, sql, "cannot build an index") &&
                     comment_index(fleet, shard, lookup, index));
}

/* Attaching an index that is attached already is no error. */
static bool attach_part(struct fleet *fleet, int shard, const struct lookup_rule *lookup,
                        const PGresult *parts, int row)
{
    if (PQgetisnull(parts, row, 4))
        return true;
    const char *name = quoted(fleet, shard, PQgetvalue(parts, row, 3), true);
    const char *sql = FLEET_TEXT(fleet, "ALTER INDEX %s ATTACH PARTITION %s.%s",
                                 PQgetvalue(parts, row, 4), PQgetvalue(parts, row, 2), name);
    return run_long(fleet, shard, lookup, sql, "cannot attach an index");
}

static bool index_parts(struct fleet *fleet, int shard, const struct lookup_rule *lookup,
                        const struct lookup_shard *found)
{
    PGresult *parts = fleet_query(fleet, shard, parts_sql, 2, found->oid, lookup->function);
    if (!parts)
        return fleet_fails(fleet, shard, lookup->name, "cannot read the table's partitions");
    bool good = true;
    for (int row = 0; row < PQntuples(parts) && good; row++)
        good = index_part(fleet, shard, lookup, found, parts, row);
    for (int row = PQntuples(parts) - 1; row >= 0 && good; row--)
        good = attach_part(fleet, shard, lookup, parts, row);
    PQclear(parts);
    return good;
}

static bool index_table(struct fleet *fleet, int shard, const struct lookup_rule *lookup,
                        const struct lookup_shard *found)
{
    if (found->unfinished &&
        !run_long(fleet, shard, lookup,
                  FLEET_TEXT(fleet, "DROP INDEX CONCURRENTLY %s", found->unfinished),
                  "cannot drop an unfinished index"))
        return false;
    const char *sql = FLEET_TEXT(fleet, "CREATE INDEX CONCURRENTLY %s ON %s (%s)", lookup->function,
                                 found->table, found->column);
    struct lookup_shard made = *found;
    return run_long(fleet, shard, lookup, sql, "cannot build an index") &&
           read_index(fleet, shard, lookup, &made) && made.index &&
           comment_index(fleet, shard, lookup, made.index);
}

bool lookup_shard_index(struct fleet *fleet, int shard, const struct lookup_rule *lookup,
                        const struct lookup_shard *found)
{
    struct lookup_shard now = *found;
    if (!wait_for_builder(fleet, shard, lookup, &now))
        return false;
    if (now.index)
        return true;
    fleet_tell(fleet, FLEET_NOTE, shard, lookup->name,
               FLEET_TEXT(fleet, "building an index of %s (%s), %s; writes go on meanwhile",
                          now.table, now.column, now.size),
               NULL);
    if (!fleet_run(fleet, shard, "SET statement_timeout = 0", 0))
        return fleet_fails(fleet, shard, lookup->name, "cannot build an index");
    if (!(now.partitioned ? index_parts(fleet, shard, lookup, &now)
                          : index_table(fleet, shard, lookup, &now)))
        return false;
    fleet_tell(fleet, FLEET_DONE, shard, lookup->name, "index built", NULL);
    return true;
}

/* ---- the function ---- */

bool lookup_shard_install(struct fleet *fleet, int shard, const struct lookup_rule *lookup,
                          const struct lookup_shard *found)
{
    const char *user = quoted(fleet, shard, fleet->request->config->monitor_user, true);
    const char *words = FLEET_TEXT(fleet, "pgshunt lookup %s", lookup->name);
    const char *sql = FLEET_TEXT(
        fleet,
        "BEGIN; SELECT pg_advisory_xact_lock(7741936514602251); SET LOCAL lock_timeout = '5s';"
        "CREATE SCHEMA IF NOT EXISTS pgshunt; GRANT USAGE ON SCHEMA pgshunt TO %s;"
        "CREATE OR REPLACE FUNCTION pgshunt.%s(text[]) RETURNS TABLE (n integer, key text)"
        " LANGUAGE plpgsql STABLE SECURITY DEFINER AS %s;"
        "REVOKE ALL ON FUNCTION pgshunt.%s(text[]) FROM PUBLIC;"
        "GRANT EXECUTE ON FUNCTION pgshunt.%s(text[]) TO %s;"
        "COMMENT ON FUNCTION pgshunt.%s(text[]) IS %s; COMMIT",
        user, lookup->function, quoted(fleet, shard, body(fleet, found), false), lookup->function,
        lookup->function, user, lookup->function, quoted(fleet, shard, words, false));
    if (fleet_run(fleet, shard, sql, 0))
        return true;
    fleet_fails(fleet, shard, lookup->name, "cannot install the function");
    fleet_rollback_all(fleet);
    return false;
}

bool lookup_shard_withdraw(struct fleet *fleet, int shard, const struct lookup_rule *lookup)
{
    const char *sql =
        FLEET_TEXT(fleet, "DROP FUNCTION IF EXISTS pgshunt.%s(text[])", lookup->function);
    return fleet_run(fleet, shard, sql, 0) ||
           fleet_fails(fleet, shard, lookup->name, "cannot drop the function");
}

/* ---- taking away ---- */

/* By what we have said of them. An index of a partition goes with that of its table. */
static const char ours_sql[] =
    "SELECT format('DROP FUNCTION %s', p.oid::regprocedure), 'function ' || p.oid::regprocedure"
    " FROM pg_proc AS p WHERE p.pronamespace = to_regnamespace('pgshunt')"
    " AND obj_description(p.oid, 'pg_proc') = $1"
    " UNION ALL SELECT format(CASE WHEN c.relkind = 'I' THEN 'DROP INDEX %I.%I'"
    "  ELSE 'DROP INDEX CONCURRENTLY %I.%I' END, n.nspname, c.relname),"
    " format('index %I.%I', n.nspname, c.relname)"
    " FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace"
    " WHERE c.relkind IN ('i', 'I') AND NOT c.relispartition"
    " AND (obj_description(c.oid, 'pg_class') = $1 OR c.relname ~ $2)";

/* The schema goes with the last that was in it. */
static void drop_schema(struct fleet *fleet, int shard)
{
    struct db_error ignored;
    db_run(fleet->shards[shard].db, FLEET_CONNECT_MS, &ignored, "DROP SCHEMA IF EXISTS pgshunt", 0);
}

static const char *unfinished_pattern(struct fleet *fleet, const char *name)
{
    const struct lookup_rule *lookup;
    for (unsigned i = 0; (lookup = shardmap_lookup(fleet->map, i)); i++)
        if (strcmp(lookup->name, name) == 0)
            return FLEET_TEXT(fleet, "^%s(_[0-9]+)?$", lookup->function);
    return "^$";
}

bool lookup_shard_drop(struct fleet *fleet, int shard, const char *name)
{
    PGresult *rows =
        fleet_query(fleet, shard, ours_sql, 2, FLEET_TEXT(fleet, "pgshunt lookup %s", name),
                    unfinished_pattern(fleet, name));
    if (!rows)
        return fleet_fails(fleet, shard, name, "cannot read what there is of it");
    bool good = true;
    for (int row = 0; row < PQntuples(rows) && good; row++) {
        const char *what = fleet_text(fleet, rows, row, 1);
        if (fleet->request->dry_run)
            fleet_tell(fleet, FLEET_PLANNED, shard, name, FLEET_TEXT(fleet, "drop %s", what), NULL);
        else if (db_run(fleet->shards[shard].db, BUILD_MS, &fleet->error, PQgetvalue(rows, row, 0),
                        0))
            fleet_tell(fleet, FLEET_DONE, shard, name, FLEET_TEXT(fleet, "dropped %s", what), NULL);
        else
            good = fleet_fails(fleet, shard, name, FLEET_TEXT(fleet, "cannot drop %s", what));
    }
    if (good && PQntuples(rows) && !fleet->request->dry_run)
        drop_schema(fleet, shard);
    PQclear(rows);
    return good;
}
