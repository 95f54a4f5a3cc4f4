/* check_moved.c: what stands in the way of tables that enter a keyspace, or leave it. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "pgshunt/pgtypes.h"
#include "resharder/check.h"

/* ---- the tables, as they are named ---- */

static const char find_query[] =
    "SELECT c.oid, format('%I.%I', n.nspname, c.relname), c.relkind IN ('r', 'p') AND NOT"
    " c.relispartition, CASE WHEN c.relispartition THEN 'a partition: name the whole table'"
    " WHEN c.relkind = 'v' THEN 'a view: name its tables' WHEN c.relkind = 'm' THEN"
    " 'a materialized view' ELSE 'a foreign table' END"
    " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
    " WHERE c.relname = $1 AND ($2::text IS NULL OR n.nspname = $2)"
    " AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.relpersistence <> 't'"
    " AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'pgshunt')";

/* As it is on a shard where its rows are. */
struct found {
    const char *shard, *relation, *oid;
    unsigned number;
};

static bool find_table(struct check *check, const struct catalog_rule *rule, struct found *found)
{
    struct reshard *reshard = check->reshard;
    const struct table_rule *named = shardmap_rule(reshard->map, rule->name);
    PGresult *rows = db_query(reshard_primary(reshard, found->number), RESHARD_QUERY_MS,
                              &reshard->error, find_query, 2, named->name, named->schema);
    if (!rows)
        return check_fails(check, found->number, "cannot look for the tables");
    if (!PQntuples(rows))
        check_problem(check, found->shard, rule->name, "there is no such table",
                      "Write it as the configuration would: orders, public.orders");
    else if (PQntuples(rows) > 1)
        check_problem(check, found->shard, rule->name, "several schemas have a table of that name",
                      RESHARD_TEXT(reshard, "Say which: %s", PQgetvalue(rows, 0, 1)));
    else if (PQgetvalue(rows, 0, 2)[0] != 't')
        check_problem(check, found->shard, rule->name,
                      RESHARD_TEXT(reshard, "is %s", PQgetvalue(rows, 0, 3)), NULL);
    else {
        found->oid = RESHARD_TEXT(reshard, "%s", PQgetvalue(rows, 0, 0));
        found->relation = RESHARD_TEXT(reshard, "%s", PQgetvalue(rows, 0, 1));
    }
    PQclear(rows);
    return true;
}

/* ---- the key ---- */

static const char column_query[] =
    "WITH RECURSIVE base(oid) AS (SELECT a.atttypid FROM pg_attribute a WHERE a.attrelid = $1::oid"
    " AND a.attname = $2 UNION ALL SELECT t.typbasetype FROM base b JOIN pg_type t ON"
    " t.oid = b.oid WHERE t.typtype = 'd')"
    " SELECT quote_ident(a.attname), a.attnotnull, a.attgenerated <> '', (SELECT b.oid FROM base b"
    " JOIN pg_type t ON t.oid = b.oid WHERE t.typtype <> 'd'), format_type(a.atttypid, a.atttypmod)"
    " FROM pg_attribute a WHERE a.attrelid = $1::oid AND a.attname = $2 AND a.attnum > 0 AND NOT"
    " a.attisdropped";

static bool type_fits(enum key_type type, uint32_t oid)
{
    switch (type) {
    case KEY_BIGINT:
        return oid == OID_INT2 || oid == OID_INT4 || oid == OID_INT8;
    case KEY_UUID:
        return oid == OID_UUID;
    case KEY_TEXT:
        return oid == OID_TEXT || oid == OID_VARCHAR || oid == OID_BPCHAR;
    }
    return false;
}

/* Rows without a key would be on no shard. */
static bool check_nulls(struct check *check, const struct found *found, const char *column)
{
    struct reshard *reshard = check->reshard;
    PGresult *rows = db_query(
        reshard_primary(reshard, found->number), RESHARD_QUERY_MS, &reshard->error,
        RESHARD_TEXT(reshard, "SELECT count(*) FROM %s WHERE %s IS NULL", found->relation, column),
        0);
    if (!rows)
        return check_fails(check, found->number, "cannot look for rows without a key");
    const char *count = PQgetvalue(rows, 0, 0), *mend = "";
    if (strcmp(count, "0") != 0)
        mend = RESHARD_TEXT(reshard, "UPDATE %s SET %s = ... WHERE %s IS NULL (or DELETE); ",
                            found->relation, column, column);
    check_problem(check, found->shard, found->relation,
                  RESHARD_TEXT(reshard,
                               "its sharding key %s may be NULL, and is in %s rows: such a row "
                               "would belong to no shard",
                               column, count),
                  RESHARD_TEXT(reshard, "%sALTER TABLE %s ALTER %s SET NOT NULL", mend,
                               found->relation, column));
    PQclear(rows);
    return true;
}

static bool check_column(struct check *check, const struct found *found, const char *name,
                         enum key_type type)
{
    static const char *const types[] = {"bigint", "uuid", "text"};
    struct reshard *reshard = check->reshard;
    PGresult *rows = db_query(reshard_primary(reshard, found->number), RESHARD_QUERY_MS,
                              &reshard->error, column_query, 2, found->oid, name);
    bool good = rows != NULL;
    if (!rows)
        return check_fails(check, found->number, "cannot read the columns");
    if (!PQntuples(rows)) {
        check_problem(check, found->shard, found->relation,
                      RESHARD_TEXT(reshard, "has no column \"%s\" to be sharded by", name),
                      "Add the column and fill it, or name another with --by");
        PQclear(rows);
        return true;
    }
    const char *quoted = RESHARD_TEXT(reshard, "%s", PQgetvalue(rows, 0, 0));
    if (!type_fits(type, (uint32_t)strtoul(PQgetvalue(rows, 0, 3), NULL, 10)))
        check_problem(check, found->shard, found->relation,
                      RESHARD_TEXT(reshard,
                                   "its column %s is of type %s, and the keyspace's keys are %s",
                                   quoted, PQgetvalue(rows, 0, 4), types[type]),
                      RESHARD_TEXT(reshard, "ALTER TABLE %s ALTER %s TYPE %s", found->relation,
                                   quoted, types[type]));
    if (PQgetvalue(rows, 0, 2)[0] == 't')
        check_problem(check, found->shard, found->relation,
                      RESHARD_TEXT(reshard,
                                   "its column %s is generated: changes are streamed without it",
                                   quoted),
                      RESHARD_TEXT(reshard, "ALTER TABLE %s ALTER %s DROP EXPRESSION",
                                   found->relation, quoted));
    if (PQgetvalue(rows, 0, 1)[0] != 't')
        good = check_nulls(check, found, quoted);
    PQclear(rows);
    return good;
}

static bool check_key_columns(struct check *check, const struct catalog_rule *rule,
                              const struct found *found)
{
    const struct keyspace *keyspace = check->moved->keyspace;
    for (int i = 0; i < rule->ncolumns; i++)
        if (!check_column(check, found, rule->columns[i],
                          keyspace->nparts ? keyspace->types[i] : keyspace->type))
            return false;
    return true;
}

bool check_moved_names(struct check *check)
{
    struct reshard *reshard = check->reshard;
    const struct table_job *moved = check->moved;
    unsigned shard = moved->out ? reshard->moves.items[0].source : reshard->moves.home;
    if (!reshard_primary(reshard, shard))
        return check_fails(check, shard, "cannot look for the tables");
    for (int i = 0; i < moved->count; i++) {
        struct found found = {.number = shard, .shard = shardmap_shard_name(reshard->map, shard)};
        if (!find_table(check, &moved->rules[i], &found))
            return false;
        if (found.oid && !check_key_columns(check, &moved->rules[i], &found))
            return false;
    }
    return true;
}

/* ---- what they are tied to ---- */

/* {"16400": ["user_id"]} */
static char *keys_json(const struct move_tables *tables)
{
    json_t *keys = json_object();
    for (int t = 0; t < tables->count; t++) {
        const struct move_table *table = &tables->items[t];
        json_t *columns = json_array();
        char oid[16];
        snprintf(oid, sizeof oid, "%u", table->oid);
        for (unsigned i = 0; i < table->nkey; i++)
            json_array_append_new(columns, json_string(table->columns[table->key[i]].name));
        json_object_set_new(keys, oid, columns);
    }
    char *text = json_dumps(keys, JSON_COMPACT);
    json_decref(keys);
    return text;
}

/* Between two of them; those to others are told by check_tables(). */
static const char together_query[] =
    "WITH k AS (SELECT j.key::oid AS oid, j.value AS columns FROM jsonb_each($1::jsonb) j)"
    " SELECT 'problem', f.conrelid::regclass::text, format('foreign key %I to %s does not contain"
    " the sharding keys of both: the row that it means may be on another shard', f.conname,"
    " f.confrelid::regclass), format('ALTER TABLE %s DROP CONSTRAINT %I', f.conrelid::regclass,"
    " f.conname)"
    " FROM pg_constraint f JOIN k a ON a.oid = f.conrelid JOIN k b ON b.oid = f.confrelid"
    " WHERE f.contype = 'f' AND f.conparentid = 0 AND EXISTS (SELECT FROM"
    "  jsonb_array_elements_text(a.columns) WITH ORDINALITY own(name, i) JOIN"
    "  jsonb_array_elements_text(b.columns) WITH ORDINALITY other(name, i) USING (i)"
    "  WHERE NOT EXISTS (SELECT FROM unnest(f.conkey, f.confkey) u(c, r)"
    "   JOIN pg_attribute x ON x.attrelid = f.conrelid AND x.attnum = u.c"
    "   JOIN pg_attribute y ON y.attrelid = f.confrelid AND y.attnum = u.r"
    "   WHERE x.attname = own.name AND y.attname = other.name))"
    " UNION ALL SELECT DISTINCT 'note', v.oid::regclass::text, format('view of %s: every shard has"
    " to have it then', k.oid::regclass), '--prepare-schema makes it with the tables'"
    " FROM k JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = k.oid"
    " AND d.classid = 'pg_rewrite'::regclass JOIN pg_rewrite r ON r.oid = d.objid"
    " JOIN pg_class v ON v.oid = r.ev_class AND v.relkind = 'v'"
    " UNION ALL SELECT DISTINCT 'note', s.oid::regclass::text, format('sequence of %s: it is"
    " interleaved while the job runs, so every shard gives numbers of its own, in steps',"
    " k.oid::regclass), CASE WHEN q.seqmax < 9223372036854775807 THEN"
    "  'an integer column reaches its end sooner: see pgshuntctl sequences --help' END"
    " FROM k JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = k.oid"
    " AND d.classid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')"
    " JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S'"
    " JOIN pg_sequence q ON q.seqrelid = s.oid";

bool check_moved(struct check *check)
{
    struct reshard *reshard = check->reshard;
    const struct move_tables *tables = &check->tables[reshard->moves.home];
    if (check->moved->out || !tables->count)
        return true;
    char *keys = keys_json(tables);
    bool good = check_ask(check, reshard->moves.home, "cannot read what the tables are tied to",
                          together_query, keys, NULL);
    free(keys);
    return good;
}
