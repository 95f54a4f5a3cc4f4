/* copyplan.c: columns, formats and ranges of pages. */
#include "resharder/copyplan.h"

#include <stdio.h>
#include <stdlib.h>

#include "resharder/resharder.h"

/* Whether a type, or what it is made of, has another binary form on another server; $1: an array of types. */
static const char unsafe_query[] =
    "WITH RECURSIVE need(oid) AS (SELECT unnest($1::oid[]) UNION"
    " SELECT CASE t.typtype WHEN 'd' THEN t.typbasetype"
    "  WHEN 'r' THEN (SELECT r.rngsubtype FROM pg_range r WHERE r.rngtypid = t.oid)"
    "  ELSE t.typelem END FROM need n JOIN pg_type t ON t.oid = n.oid"
    "  WHERE t.typtype IN ('d', 'r') OR (t.typcategory = 'A' AND t.typelem <> 0))"
    " SELECT coalesce(bool_or(t.typsend::oid = 0 OR t.typreceive::oid = 0 OR t.typtype IN ('c', "
    "'p')"
    "  OR (t.oid < 16384 AND t.typname LIKE 'reg%') OR t.typname = 'aclitem'"
    "  OR (t.oid >= 16384 AND t.typtype IN ('b', 'm'))), false)"
    " FROM need n JOIN pg_type t ON t.oid = n.oid";

static bool is_key(const struct move_table *table, int column)
{
    for (unsigned i = 0; i < table->nkey; i++)
        if (table->key[i] == column)
            return true;
    return false;
}

static void add_column(const struct move_table *table, int column, struct arena *arena,
                       struct copy_columns *columns, const char **oids)
{
    const char *comma = columns->count ? ", " : "";
    columns->list =
        arena_printf(arena, "%s%s%s", columns->list, comma, table->columns[column].quoted);
    *oids = arena_printf(arena, "%s%s%u", *oids, columns->count ? "," : "",
                         table->columns[column].type_oid);
    columns->count++;
}

bool copyplan_columns(struct db *db, const struct move_table *table, bool generated,
                      struct arena *arena, struct copy_columns *columns, struct db_error *error)
{
    const char *oids = "";
    *columns = (struct copy_columns){.list = "", .nkey = table->nkey};
    for (unsigned i = 0; i < table->nkey; i++) {
        columns->key_oids[i] = table->columns[table->key[i]].base_oid;
        add_column(table, table->key[i], arena, columns, &oids);
    }
    for (int i = 0; i < table->ncolumns; i++)
        if (!is_key(table, i) && (generated || !table->columns[i].generated))
            add_column(table, i, arena, columns, &oids);
    PGresult *rows =
        db_query(db, RESHARD_QUERY_MS, error, unsafe_query, 1, arena_printf(arena, "{%s}", oids));
    if (!rows)
        return false;
    columns->binary = PQgetvalue(rows, 0, 0)[0] == 'f';
    PQclear(rows);
    return true;
}

/* ---- chunks ---- */

static int chunks_of(const struct move_leaf *leaf, int64_t pages, bool ranges)
{
    return ranges && leaf->pages > pages ? (int)((leaf->pages + pages - 1) / pages) : 1;
}

void copyplan_chunks(const struct move_tables *tables, int64_t pages, bool ranges,
                     struct arena *arena, struct copy_plan *plan)
{
    int room = 0;
    for (int t = 0; t < tables->count; t++)
        for (int l = 0; l < tables->items[t].nleaves; l++)
            room += chunks_of(&tables->items[t].leaves[l], pages, ranges);
    *plan = (struct copy_plan){.chunks = arena_array(arena, struct copy_chunk, room + 1)};
    for (int t = 0; t < tables->count; t++) {
        for (int l = 0; l < tables->items[t].nleaves; l++) {
            int count = chunks_of(&tables->items[t].leaves[l], pages, ranges);
            for (int number = 0; number < count; number++)
                plan->chunks[plan->count++] = (struct copy_chunk){
                    .table = t,
                    .leaf = l,
                    .number = number,
                    .of = count,
                    .low = number * pages,
                    .high = number + 1 == count ? 0 : (number + 1) * pages,
                };
        }
    }
}

char *copyplan_read(const struct move_table *table, const struct copy_columns *columns,
                    const struct copy_chunk *chunk, const char *extra)
{
    char *sql, low[64] = "", high[64] = "";
    if (chunk->low)
        snprintf(low, sizeof low, " AND ctid >= '(%lld,0)'::tid", (long long)chunk->low);
    if (chunk->high)
        snprintf(high, sizeof high, " AND ctid < '(%lld,0)'::tid", (long long)chunk->high);
    if (asprintf(&sql, "COPY (SELECT %s FROM ONLY %s WHERE true%s%s%s) TO STDOUT (FORMAT %s)",
                 columns->list, table->leaves[chunk->leaf].relation, low, high, extra,
                 columns->binary ? "binary" : "text") < 0)
        abort();
    return sql;
}
