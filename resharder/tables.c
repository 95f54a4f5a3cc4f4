/* tables.c: the tables of the keyspaces that move, read from a shard's catalog. */
#include "resharder/tables.h"

#include <stdlib.h>
#include <string.h>

#include "resharder/resharder.h"

/* Roots alone: a partition is a leaf of its root. Row security, inheritance and foreign tables are check.c's. */
static const char relations_query[] =
    "SELECT c.oid, n.nspname, c.relname, format('%I.%I', n.nspname, c.relname), c.relkind = 'p',"
    " c.reltuples, c.relreplident"
    " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
    " WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence <> 't'"
    " AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname NOT IN ('information_schema', 'pgshunt')"
    " ORDER BY n.nspname COLLATE \"C\", c.relname COLLATE \"C\"";

static const char columns_query[] =
    "SELECT a.attname, quote_ident(a.attname), format_type(a.atttypid, a.atttypmod), a.atttypid,"
    " a.attnotnull, a.attgenerated <> '', a.attidentity <> '',"
    " (WITH RECURSIVE base(oid) AS (SELECT a.atttypid UNION ALL SELECT t.typbasetype FROM base b"
    "   JOIN pg_type t ON t.oid = b.oid WHERE t.typtype = 'd')"
    "  SELECT b.oid FROM base b JOIN pg_type t ON t.oid = b.oid WHERE t.typtype <> 'd')"
    " FROM pg_attribute a WHERE a.attrelid = $1::oid AND a.attnum > 0 AND NOT a.attisdropped"
    " ORDER BY a.attnum";

/*
 * Columns of an index by which rows are told apart, in the index's order. Kind p: the primary key, or where there is
 * none the first unique index whose columns are all NOT NULL. Kind i: the one that the stream uses.
 */
static const char index_query[] =
    "SELECT a.attname FROM (SELECT i.indexrelid, i.indkey, i.indnkeyatts FROM pg_index i"
    "   WHERE i.indrelid = $1::oid AND i.indisunique AND i.indisvalid AND i.indimmediate"
    "   AND i.indpred IS NULL AND i.indexprs IS NULL"
    "   AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = i.indrelid"
    "     AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1]) AND NOT a.attnotnull)"
    "   AND CASE $2 WHEN 'p' THEN true ELSE i.indisreplident OR (i.indisprimary AND EXISTS"
    "     (SELECT FROM pg_class c WHERE c.oid = i.indrelid AND c.relreplident = 'd')) END"
    "   ORDER BY i.indisprimary DESC, i.indexrelid LIMIT 1) i,"
    " unnest((i.indkey::int2[])[0:i.indnkeyatts - 1]) WITH ORDINALITY k(attnum, place)"
    " JOIN pg_attribute a ON a.attrelid = $1::oid AND a.attnum = k.attnum ORDER BY k.place";

/* pg_partition_tree() has nothing for a table that is neither a partition nor partitioned. */
static const char leaves_query[] =
    "SELECT c.oid, format('%I.%I', n.nspname, c.relname),"
    " pg_relation_size(c.oid) / current_setting('block_size')::int, pg_table_size(c.oid)"
    " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'r' AND"
    " (c.oid = $1::oid OR c.oid IN (SELECT t.relid FROM pg_partition_tree($1::oid::regclass) t))"
    " ORDER BY c.oid";

static const char sequences_query[] =
    "SELECT format('%I.%I', n.nspname, s.relname) FROM pg_depend d JOIN pg_class s"
    " ON s.oid = d.objid AND s.relkind = 'S' JOIN pg_namespace n ON n.oid = s.relnamespace"
    " WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass"
    " AND d.refobjid = $1::oid AND d.deptype IN ('a', 'i')"
    " UNION SELECT format('%I.%I', n.nspname, s.relname) FROM pg_attrdef f"
    " JOIN pg_depend d ON d.classid = 'pg_attrdef'::regclass AND d.objid = f.oid"
    " AND d.refclassid = 'pg_class'::regclass JOIN pg_class s ON s.oid = d.refobjid"
    " AND s.relkind = 'S' JOIN pg_namespace n ON n.oid = s.relnamespace"
    " WHERE f.adrelid = $1::oid ORDER BY 1";

static const char *cell(struct arena *arena, const PGresult *rows, int row, int column)
{
    return arena_strdup(arena, PQgetvalue(rows, row, column));
}

static bool is_true(const PGresult *rows, int row, int column)
{
    return PQgetvalue(rows, row, column)[0] == 't';
}

static PGresult *ask(struct db *db, const char *query, uint32_t oid, const char *kind,
                     struct db_error *error)
{
    char text[16];
    snprintf(text, sizeof text, "%u", oid);
    return db_query(db, RESHARD_QUERY_MS, error, query, kind ? 2 : 1, text, kind);
}

static int column_of(const struct move_table *table, const char *name)
{
    for (int i = 0; i < table->ncolumns; i++)
        if (strcmp(table->columns[i].name, name) == 0)
            return i;
    return -1;
}

static bool read_columns(struct db *db, struct arena *arena, struct move_table *table,
                         struct db_error *error)
{
    PGresult *rows = ask(db, columns_query, table->oid, NULL, error);
    if (!rows)
        return false;
    table->ncolumns = PQntuples(rows);
    table->columns = arena_array(arena, struct move_column, table->ncolumns + 1);
    for (int i = 0; i < table->ncolumns; i++)
        table->columns[i] = (struct move_column){
            .name = cell(arena, rows, i, 0),
            .quoted = cell(arena, rows, i, 1),
            .type = cell(arena, rows, i, 2),
            .type_oid = (uint32_t)strtoul(PQgetvalue(rows, i, 3), NULL, 10),
            .not_null = is_true(rows, i, 4),
            .generated = is_true(rows, i, 5),
            .identity = is_true(rows, i, 6),
            .base_oid = (uint32_t)strtoul(PQgetvalue(rows, i, 7), NULL, 10),
        };
    PQclear(rows);
    return true;
}

/* The sharding key's columns. A table without one of them is an error: the map is wrong, or the table. */
static bool find_key(struct move_table *table, struct db_error *error)
{
    const struct table_rule *rule = table->rule;
    table->nkey = rule->nparts ? rule->nparts : 1;
    for (unsigned i = 0; i < table->nkey; i++) {
        const char *name = rule->nparts ? rule->parts[i] : rule->key;
        table->key[i] = column_of(table, name);
        if (table->key[i] < 0) {
            *error = (struct db_error){.hint = ""};
            snprintf(error->text, sizeof error->text,
                     "table %s has no column \"%s\", its sharding key", table->relation, name);
            return false;
        }
    }
    return true;
}

static bool read_index(struct db *db, struct arena *arena, const struct move_table *table,
                       const char *kind, int **columns, int *count, struct db_error *error)
{
    PGresult *rows = ask(db, index_query, table->oid, kind, error);
    if (!rows)
        return false;
    *count = PQntuples(rows);
    *columns = arena_array(arena, int, *count + 1);
    for (int i = 0; i < *count; i++)
        (*columns)[i] = column_of(table, PQgetvalue(rows, i, 0));
    PQclear(rows);
    return true;
}

static bool has_column(const struct move_table *table, int column)
{
    for (int i = 0; i < table->nidentity; i++)
        if (table->identity[i] == column)
            return true;
    return false;
}

static bool read_identity(struct db *db, struct arena *arena, struct move_table *table, char kind,
                          struct db_error *error)
{
    if (!read_index(db, arena, table, "p", &table->primary, &table->nprimary, error) ||
        !read_index(db, arena, table, "i", &table->identity, &table->nidentity, error))
        return false;
    table->identity_kind = kind == 'f'        ? MOVE_IDENTITY_FULL
                           : table->nidentity ? MOVE_IDENTITY_KEY
                                              : MOVE_IDENTITY_NONE;
    if (kind == 'f') {
        table->nidentity = table->ncolumns;
        table->identity = arena_array(arena, int, table->ncolumns + 1);
        for (int i = 0; i < table->ncolumns; i++)
            table->identity[i] = i;
    }
    table->key_in_identity = table->identity_kind != MOVE_IDENTITY_NONE;
    for (unsigned i = 0; i < table->nkey; i++)
        table->key_in_identity = table->key_in_identity && has_column(table, table->key[i]);
    return true;
}

static bool read_leaves(struct db *db, struct arena *arena, struct move_table *table,
                        struct db_error *error)
{
    PGresult *rows = ask(db, leaves_query, table->oid, NULL, error);
    if (!rows)
        return false;
    table->nleaves = PQntuples(rows);
    table->leaves = arena_array(arena, struct move_leaf, table->nleaves + 1);
    for (int i = 0; i < table->nleaves; i++)
        table->leaves[i] = (struct move_leaf){
            .oid = (uint32_t)strtoul(PQgetvalue(rows, i, 0), NULL, 10),
            .relation = cell(arena, rows, i, 1),
            .pages = strtoll(PQgetvalue(rows, i, 2), NULL, 10),
            .bytes = strtoll(PQgetvalue(rows, i, 3), NULL, 10),
        };
    PQclear(rows);
    return true;
}

static bool read_table(struct db *db, struct arena *arena, struct move_table *table, char identity,
                       struct db_error *error)
{
    return read_columns(db, arena, table, error) && find_key(table, error) &&
           read_identity(db, arena, table, identity, error) && read_leaves(db, arena, table, error);
}

bool tables_read(struct db *db, const struct moves *moves, struct arena *arena,
                 struct move_tables *tables, struct db_error *error)
{
    PGresult *rows = db_query(db, RESHARD_QUERY_MS, error, relations_query, 0);
    if (!rows)
        return false;
    bool good = true;
    tables->count = 0;
    tables->items = arena_array(arena, struct move_table, PQntuples(rows) + 1);
    for (int i = 0; i < PQntuples(rows) && good; i++) {
        const struct table_rule *rule =
            shardmap_table(moves->map, PQgetvalue(rows, i, 1), PQgetvalue(rows, i, 2));
        if (!moves_table(moves, rule))
            continue;
        struct move_table *table = &tables->items[tables->count++];
        *table = (struct move_table){
            .oid = (uint32_t)strtoul(PQgetvalue(rows, i, 0), NULL, 10),
            .schema = cell(arena, rows, i, 1),
            .name = cell(arena, rows, i, 2),
            .relation = cell(arena, rows, i, 3),
            .partitioned = is_true(rows, i, 4),
            .rows = strtod(PQgetvalue(rows, i, 5), NULL),
            .rule = rule,
        };
        good = read_table(db, arena, table, PQgetvalue(rows, i, 6)[0], error);
    }
    PQclear(rows);
    return good;
}

const struct move_table *tables_find(const struct move_tables *tables, const char *schema,
                                     const char *name)
{
    for (int i = 0; i < tables->count; i++)
        if (strcmp(tables->items[i].schema, schema) == 0 &&
            strcmp(tables->items[i].name, name) == 0)
            return &tables->items[i];
    return NULL;
}

/* ---- sequences ---- */

static bool is_listed(const struct move_sequence *sequences, int count, const char *relation)
{
    for (int i = 0; i < count; i++)
        if (strcmp(sequences[i].relation, relation) == 0)
            return true;
    return false;
}

static bool read_sequence(struct db *db, struct arena *arena, struct move_sequence *sequence,
                          struct db_error *error)
{
    const char *query = arena_printf(arena,
                                     "SELECT s.last_value, s.is_called, p.seqincrement FROM %s s"
                                     " JOIN pg_sequence p ON p.seqrelid = s.tableoid",
                                     sequence->relation);
    PGresult *rows = db_query(db, RESHARD_QUERY_MS, error, query, 0);
    if (!rows)
        return false;
    sequence->last_value = strtoll(PQgetvalue(rows, 0, 0), NULL, 10);
    sequence->is_called = is_true(rows, 0, 1);
    sequence->increment = strtoll(PQgetvalue(rows, 0, 2), NULL, 10);
    PQclear(rows);
    return true;
}

bool tables_sequences(struct db *db, const struct move_tables *tables, struct arena *arena,
                      struct move_sequence **sequences, int *count, struct db_error *error)
{
    int room = 0;
    *sequences = NULL;
    *count = 0;
    for (int t = 0; t < tables->count; t++) {
        PGresult *rows = ask(db, sequences_query, tables->items[t].oid, NULL, error);
        if (!rows)
            return false;
        struct move_sequence *grown =
            arena_array(arena, struct move_sequence, room += PQntuples(rows));
        if (*count)
            memcpy(grown, *sequences, sizeof *grown * (size_t)*count);
        *sequences = grown;
        bool good = true;
        for (int i = 0; i < PQntuples(rows) && good; i++) {
            const char *relation = cell(arena, rows, i, 0);
            if (is_listed(*sequences, *count, relation))
                continue;
            grown[*count] = (struct move_sequence){.relation = relation};
            good = read_sequence(db, arena, &grown[(*count)++], error);
        }
        PQclear(rows);
        if (!good)
            return false;
    }
    return true;
}

/* ---- ghost keys ---- */

const char *tables_ghost(const struct keyspace *keyspace, struct arena *arena)
{
    char *quoted = arena_alloc(arena, 2 * strlen(keyspace->name) + 32), *at = quoted;
    at += sprintf(at, "pgshunt.\"ghost_");
    for (const char *from = keyspace->name; *from; from++) {
        if (*from == '"')
            *at++ = '"';
        *at++ = *from;
    }
    *at++ = '"';
    return quoted;
}

/* Of text by its bytes: keys of columns with any collation are compared with it. */
static const char *const ghost_types[] = {"bigint", "uuid", "text COLLATE \"C\""};

static const char *ghost_columns(const struct keyspace *keyspace, struct arena *arena)
{
    const char *columns = "", *key = "";
    if (!keyspace->nparts)
        return arena_printf(arena, "key %s PRIMARY KEY", ghost_types[keyspace->type]);
    for (unsigned i = 0; i < keyspace->nparts; i++) {
        columns =
            arena_printf(arena, "%skey%u %s, ", columns, i + 1, ghost_types[keyspace->types[i]]);
        key = arena_printf(arena, "%s%skey%u", key, i ? ", " : "", i + 1);
    }
    return arena_printf(arena, "%sPRIMARY KEY (%s)", columns, key);
}

/* Every user's statements read it through the proxy. */
const char *tables_ghost_create(const struct keyspace *keyspace, struct arena *arena)
{
    const char *table = tables_ghost(keyspace, arena);
    return arena_printf(arena,
                        "DO $pgshunt_ghost$ BEGIN CREATE TABLE IF NOT EXISTS %s (%s);"
                        " GRANT USAGE ON SCHEMA pgshunt TO PUBLIC; GRANT SELECT ON %s TO PUBLIC;"
                        " END $pgshunt_ghost$",
                        table, ghost_columns(keyspace, arena), table);
}
