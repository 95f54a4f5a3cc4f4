/* check_tables.c: what about the tables that move would stop a job, or break something that is not moved. */
#include <stdio.h>
#include <string.h>

#include "pgshunt/buffer.h"
#include "resharder/check.h"

/* ---- the tables as a parameter ---- */

/* "{1,2}": oids of the tables, and of their leaves. */
static const char *oids_of(struct check *check, const struct move_tables *tables)
{
    struct buffer out = {0};
    buffer_printf(&out, "{");
    for (int t = 0; t < tables->count; t++) {
        buffer_printf(&out, "%s%u", t ? "," : "", tables->items[t].oid);
        for (int i = 0; i < tables->items[t].nleaves; i++)
            if (tables->items[t].leaves[i].oid != tables->items[t].oid)
                buffer_printf(&out, ",%u", tables->items[t].leaves[i].oid);
    }
    buffer_printf(&out, "}");
    const char *text =
        arena_strndup(&check->reshard->arena, buffer_head(&out), buffer_length(&out));
    buffer_release(&out);
    return text;
}

/* {"a","b"}: names of the sharding key's columns. */
static const char *key_columns(struct check *check, const struct move_table *table)
{
    const char *text = "{";
    for (unsigned i = 0; i < table->nkey; i++) {
        const char *name = table->columns[table->key[i]].name, *escaped = "";
        for (; *name; name++)
            escaped = RESHARD_TEXT(check->reshard, "%s%s%c", escaped,
                                   *name == '"' || *name == '\\' ? "\\" : "", *name);
        text = RESHARD_TEXT(check->reshard, "%s%s\"%s\"", text, i ? "," : "", escaped);
    }
    return RESHARD_TEXT(check->reshard, "%s}", text);
}

/* ---- all of them at once ---- */

/* $1: oids. */
static const char tables_query[] =
    "WITH t AS (SELECT c.*, c.oid::regclass::text AS name FROM pg_class c WHERE c.oid = ANY "
    "($1::oid[]))"
    " SELECT 'problem', name, 'is unlogged: its changes are not in the WAL',"
    " 'ALTER TABLE ' || name || ' SET LOGGED' FROM t WHERE relpersistence = 'u'"
    " UNION ALL SELECT 'problem', name, format('belongs to %s, and this role is none of them: it "
    "cannot be"
    " published', relowner::regrole), format('GRANT %s TO %I', relowner::regrole, current_user) "
    "FROM t"
    " WHERE NOT pg_has_role(relowner, 'USAGE')"
    " UNION ALL SELECT 'problem', name, 'has row-level policies that this role is subject to: it "
    "would not"
    " see all rows', format('ALTER ROLE %I BYPASSRLS', current_user) FROM t"
    " WHERE relrowsecurity AND row_security_active(oid)"
    " UNION ALL SELECT 'problem', name, format('table %s inherits from it: rows of inheritance "
    "children"
    " are not moved', i.inhrelid::regclass), format('ALTER TABLE %s NO INHERIT %s', "
    "i.inhrelid::regclass,"
    " name) FROM t JOIN pg_inherits i ON i.inhparent = t.oid WHERE t.relkind = 'r'"
    " UNION ALL SELECT 'problem', f.oid::regclass::text, 'is a foreign table: its rows are "
    "elsewhere',"
    " format('ALTER TABLE %s DETACH PARTITION %s', name, f.oid::regclass) FROM t,"
    " LATERAL pg_partition_tree(t.oid) p JOIN pg_class f ON f.oid = p.relid AND f.relkind = 'f'"
    " WHERE t.relkind = 'p'"
    " UNION ALL SELECT 'problem', name, format('trigger %I fires for rows that are only moved, "
    "too',"
    " g.tgname), format('ALTER TABLE %s ENABLE TRIGGER %I', name, g.tgname)"
    " FROM t JOIN pg_trigger g ON g.tgrelid = t.oid WHERE g.tgenabled IN ('R', 'A') AND NOT "
    "g.tgisinternal"
    " AND g.tgname !~ '^pgshunt_guard'"
    " UNION ALL SELECT 'note', name, format('trigger %I does not fire for rows that are moved', "
    "g.tgname),"
    " NULL FROM t JOIN pg_trigger g ON g.tgrelid = t.oid WHERE g.tgenabled = 'O' AND NOT "
    "g.tgisinternal"
    " AND g.tgname !~ '^pgshunt_guard' AND g.tgparentid = 0"
    " UNION ALL SELECT DISTINCT 'note', m.oid::regclass::text, format('materialized view of %s: "
    "refresh it"
    " after the switch', name), 'REFRESH MATERIALIZED VIEW ' || m.oid::regclass"
    " FROM t JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = t.oid"
    " AND d.classid = 'pg_rewrite'::regclass JOIN pg_rewrite r ON r.oid = d.objid"
    " JOIN pg_class m ON m.oid = r.ev_class AND m.relkind = 'm'";

/* tgparentid came with 13; ours asks for no older one. */

/* ---- foreign keys ---- */

/* $1: oids. Those that leave the tables, or come from others: the other's schema and name are looked up in the map. */
static const char foreign_keys_query[] =
    "SELECT k.conname, r.oid::regclass, o.oid::regclass, n.nspname, o.relname, k.conrelid = r.oid,"
    " format('ALTER TABLE %s DROP CONSTRAINT %I', k.conrelid::regclass, k.conname)"
    " FROM pg_constraint k"
    " JOIN pg_class r ON r.oid = CASE WHEN k.conrelid = ANY ($1::oid[]) THEN k.conrelid ELSE "
    "k.confrelid END"
    " JOIN pg_class o ON o.oid = CASE WHEN k.conrelid = ANY ($1::oid[]) THEN k.confrelid ELSE "
    "k.conrelid END"
    " JOIN pg_namespace n ON n.oid = o.relnamespace"
    " WHERE k.contype = 'f' AND k.conparentid = 0"
    " AND (k.conrelid = ANY ($1::oid[])) <> (k.confrelid = ANY ($1::oid[]))";

static void tell_foreign_key(struct check *check, const char *shard, const PGresult *rows, int row)
{
    struct reshard *reshard = check->reshard;
    bool refers = PQgetvalue(rows, row, 5)[0] == 't';
    const struct table_rule *other =
        shardmap_table(reshard->map, PQgetvalue(rows, row, 3), PQgetvalue(rows, row, 4));
    if (refers && other->class == TABLE_REFERENCE)
        return;
    check_problem(
        check, shard, PQgetvalue(rows, row, 1),
        RESHARD_TEXT(reshard,
                     refers ? "foreign key %s refers to %s, which does not move along"
                            : "foreign key %s of %s, which does not move along, refers to it",
                     PQgetvalue(rows, row, 0), PQgetvalue(rows, row, 2)),
        PQgetvalue(rows, row, 6));
}

static bool check_foreign_keys(struct check *check, unsigned shard, const char *oids)
{
    struct reshard *reshard = check->reshard;
    PGresult *rows = db_query(reshard_primary(reshard, shard), RESHARD_QUERY_MS, &reshard->error,
                              foreign_keys_query, 1, oids);
    if (!rows)
        return check_fails(check, shard, "cannot read the foreign keys");
    for (int i = 0; i < PQntuples(rows); i++)
        tell_foreign_key(check, shardmap_shard_name(reshard->map, shard), rows, i);
    PQclear(rows);
    return true;
}

/* ---- one by one ---- */

/* $1: oid, $2: columns of the sharding key. Two shards may have rows that are one too many together. */
static const char unique_query[] =
    "SELECT 'note', $1::oid::regclass::text, format('%s %I does not contain the sharding key: a "
    "row that is"
    " moved must not meet one there with the same %s', CASE WHEN i.indisprimary THEN 'primary "
    "key' ELSE"
    " 'unique index' END, x.relname, (SELECT string_agg(quote_ident(a.attname), ', ') FROM "
    "pg_attribute a"
    " WHERE a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey::int2[]))),"
    " 'ids of interleaved sequences (pgshuntctl sequences) and uuids never do'"
    " FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid WHERE i.indrelid = $1::oid AND "
    "i.indisunique"
    " AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = i.indrelid AND a.attname = ANY "
    "($2::name[])"
    " AND a.attnum <> ALL ((i.indkey::int2[])[0:i.indnkeyatts - 1]))";

static void check_identity(struct check *check, const char *shard, const struct move_table *table)
{
    struct reshard *reshard = check->reshard;
    if (!table->nprimary) {
        check_problem(
            check, shard, table->relation,
            "has no primary key (nor a unique index of NOT NULL columns): its rows cannot be "
            "told apart",
            RESHARD_TEXT(reshard, "ALTER TABLE %s ADD PRIMARY KEY (...)", table->relation));
        return;
    }
    if (!table->key_in_identity)
        check_note(
            check, shard, table->relation,
            "has REPLICA IDENTITY FULL for the time of the job, because its identity does not "
            "contain the sharding key: more WAL for updates and deletes",
            NULL);
}

static void check_key(struct check *check, const char *shard, const struct move_table *table)
{
    for (unsigned i = 0; i < table->nkey; i++) {
        const struct move_column *column = &table->columns[table->key[i]];
        if (!column->not_null)
            check_note(
                check, shard, table->relation,
                RESHARD_TEXT(check->reshard,
                             "its sharding key %s may be NULL: such rows stay where they are",
                             column->quoted),
                RESHARD_TEXT(check->reshard, "ALTER TABLE %s ALTER %s SET NOT NULL",
                             table->relation, column->quoted));
    }
}

/*
 * A target that owns nothing of the keyspace can have no rows of it: they would be met by those that come. So can none
 * to which an unsharded table comes.
 */
static bool check_empty(struct check *check, unsigned shard, const struct move_table *table)
{
    struct reshard *reshard = check->reshard;
    bool enters = check->moved && !check->moved->out;
    if (!check_is_target(check, shard) || (shardmap_owns(table->rule->keyspace, shard) && !enters))
        return true;
    const char *query =
        RESHARD_TEXT(reshard,
                     "SELECT 'problem', $1::text, 'has rows, though %s', 'TRUNCATE '"
                     " || $1::text WHERE EXISTS (SELECT FROM %s)",
                     enters ? "the table is on the first shard alone"
                            : "the shard owns no bucket of its keyspace",
                     table->relation);
    return check_ask(check, shard, "cannot look into a table", query, table->relation, NULL);
}

bool check_tables(struct check *check, unsigned shard)
{
    struct reshard *reshard = check->reshard;
    const struct move_tables *tables = &check->tables[shard];
    const char *name = shardmap_shard_name(reshard->map, shard);
    const char *oids = oids_of(check, tables);
    if (check_is_source(check, shard) && !tables->count)
        check_note(check, name, NULL, "has no table of the keyspaces that move", NULL);
    if (!check_ask(check, shard, "cannot read the tables", tables_query, oids, NULL) ||
        !check_foreign_keys(check, shard, oids))
        return false;
    for (int i = 0; i < tables->count; i++) {
        const struct move_table *table = &tables->items[i];
        check_identity(check, name, table);
        check_key(check, name, table);
        if (!check_ask(check, shard, "cannot read the indexes", unique_query,
                       RESHARD_TEXT(reshard, "%u", table->oid), key_columns(check, table)) ||
            !check_empty(check, shard, table))
            return false;
    }
    return true;
}
