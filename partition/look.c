/* look.c: what a shard's catalogs say of partitioned tables and their partitions. */
#include "partition/look.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "partition/guard.h"

/* $1: [{"s": schema, "t": table, "c": column}, ...]. The width is that of an integer. */
static const char parents_sql[] =
    "SELECT c.oid, c.relkind, p.partstrat, p.partnatts, coalesce(a.attname, b.attname),"
    " format_type(coalesce(y.oid, z.oid), NULL),"
    " CASE WHEN coalesce(y.oid, z.oid) IN (20, 21, 23) THEN coalesce(y.typlen, z.typlen) ELSE 0 "
    "END,"
    " coalesce(coalesce(p.partcollation[0], b.attcollation) NOT IN"
    "  (0, (SELECT oid FROM pg_collation WHERE collname = 'C' AND collnamespace = "
    "'pg_catalog'::regnamespace), (SELECT oid FROM pg_collation WHERE collname = 'POSIX' AND"
    "  collnamespace = 'pg_catalog'::regnamespace))"
    "  AND NOT (coalesce(p.partcollation[0], b.attcollation) = 100 AND"
    "   (SELECT datcollate IN ('C', 'POSIX') FROM pg_database WHERE datname = current_database())),"
    " false)"
    " FROM jsonb_array_elements($1::jsonb) WITH ORDINALITY AS w(e, n)"
    " LEFT JOIN pg_namespace AS s ON s.nspname = w.e ->> 's'"
    " LEFT JOIN pg_class AS c ON c.relnamespace = s.oid AND c.relname = w.e ->> 't'"
    " LEFT JOIN pg_partitioned_table AS p ON p.partrelid = c.oid"
    " LEFT JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = p.partattrs[0]"
    "  AND a.attnum <> 0"
    " LEFT JOIN pg_type AS y ON y.oid = a.atttypid"
    " LEFT JOIN pg_attribute AS b ON b.attrelid = c.oid AND b.attname = w.e ->> 'c'"
    "  AND b.attnum > 0 AND NOT b.attisdropped AND p.partrelid IS NULL"
    " LEFT JOIN pg_type AS z ON z.oid = b.atttypid"
    " ORDER BY w.n";

enum { OID, KIND, STRATEGY, COLUMNS, COLUMN, TYPE, WIDTH, COLLATED };

/* $1: oids of parents. %s: whether one's detaching is pending, where the server knows of it. */
static const char partitions_sql[] =
    "SELECT i.inhparent, n.nspname, c.relname, c.oid, pg_get_expr(c.relpartbound, c.oid), %s,"
    " c.oid IN (SELECT conrelid FROM pg_constraint WHERE conname = '" GUARD_NAME "')"
    " FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid"
    " JOIN pg_namespace AS n ON n.oid = c.relnamespace"
    " WHERE i.inhparent = ANY ($1::oid[]) ORDER BY i.inhparent";

enum { PARENT, SCHEMA, NAME, PARTITION, BOUND, PENDING, MARKED };

static char *names_json(const struct policy *policies, int count)
{
    json_t *names = json_array();
    for (int i = 0; i < count; i++)
        json_array_append_new(names, json_pack("{s:s, s:s, s:s?}", "s", policies[i].schema, "t",
                                               policies[i].table, "c", policies[i].column));
    char *text = json_dumps(names, JSON_COMPACT);
    json_decref(names);
    return text;
}

static const char *copy(struct arena *arena, const PGresult *rows, int row, int column)
{
    return PQgetisnull(rows, row, column) ? NULL
                                          : arena_strdup(arena, PQgetvalue(rows, row, column));
}

/* How the table is not one whose partitions can be maintained; NULL: it is one. */
static const char *refuses(const PGresult *rows, int row, const struct policy *policy)
{
    if (PQgetvalue(rows, row, KIND)[0] != 'p')
        return "it is no table";
    if (PQgetvalue(rows, row, STRATEGY)[0] != 'r')
        return PQgetvalue(rows, row, STRATEGY)[0] == 'l' ? "it is partitioned by list"
                                                         : "it is partitioned by hash";
    if (strcmp(PQgetvalue(rows, row, COLUMNS), "1") != 0)
        return "it is partitioned by several columns";
    if (PQgetisnull(rows, row, COLUMN))
        return "it is partitioned by an expression";
    if (policy->column && strcmp(PQgetvalue(rows, row, COLUMN), policy->column) != 0)
        return "it is partitioned by another column";
    return NULL;
}

static void fill_parent(struct arena *arena, const PGresult *rows, int row,
                        const struct policy *policy, struct parent *parent)
{
    *parent = (struct parent){.kind = PARENT_MISSING};
    if (PQgetisnull(rows, row, OID))
        return;
    parent->oid = copy(arena, rows, row, OID);
    parent->column = copy(arena, rows, row, COLUMN);
    parent->type = copy(arena, rows, row, TYPE);
    parent->width = atoi(PQgetvalue(rows, row, WIDTH));
    parent->collated = PQgetvalue(rows, row, COLLATED)[0] == 't';
    parent->kind = PARENT_PLAIN;
    if (PQgetvalue(rows, row, KIND)[0] == 'r')
        return;
    parent->why = refuses(rows, row, policy);
    parent->kind = parent->why ? PARENT_OTHER : PARENT_GOOD;
}

/* ---- partitions ---- */

const char *look_oids(struct arena *arena, const struct parent *parents, int count)
{
    char *list = arena_alloc(arena, (size_t)count * 12 + 3), *to = list;
    *to++ = '{';
    for (int i = 0; i < count; i++)
        if (parents[i].kind == PARENT_GOOD)
            to += sprintf(to, "%s%s", to > list + 1 ? "," : "", parents[i].oid);
    strcpy(to, "}");
    return list;
}

static void add_partition(struct arena *arena, const PGresult *rows, int row, enum control control,
                          struct parent *parent)
{
    struct have *have = &parent->have[parent->nhave];
    const char *bound = PQgetvalue(rows, row, BOUND);
    *have = (struct have){.is_default = strcmp(bound, "DEFAULT") == 0,
                          .pending = PQgetvalue(rows, row, PENDING)[0] == 't',
                          .marked = PQgetvalue(rows, row, MARKED)[0] == 't'};
    if (!have->is_default && !bound_read_range(control, bound, &have->range)) {
        parent->unreadable++;
        return;
    }
    have->schema = copy(arena, rows, row, SCHEMA);
    have->name = copy(arena, rows, row, NAME);
    have->oid = copy(arena, rows, row, PARTITION);
    parent->nhave++;
}

/* The rows of one parent are together. */
static void add_partitions(struct arena *arena, const PGresult *rows, const struct policy *policy,
                           struct parent *parent)
{
    int first = 0, count = PQntuples(rows);
    while (first < count && strcmp(PQgetvalue(rows, first, PARENT), parent->oid) != 0)
        first++;
    int end = first;
    while (end < count && strcmp(PQgetvalue(rows, end, PARENT), parent->oid) == 0)
        end++;
    parent->have = arena_array(arena, struct have, end - first + 1);
    for (int i = first; i < end; i++)
        add_partition(arena, rows, i, policy->control, parent);
    plan_sort(parent->have, parent->nhave);
}

static bool look_partitions(struct shard_work *shard, const struct policy *policies, int count,
                            struct parent *parents)
{
    bool knows = PQserverVersion(db_connection(shard->db)) >= 140000;
    PGresult *rows = db_query(
        shard->db, WORK_QUERY_MS, &shard->error,
        arena_printf(&shard->arena, partitions_sql, knows ? "i.inhdetachpending" : "false"), 1,
        look_oids(&shard->arena, parents, count));
    for (int i = 0; rows && i < count; i++)
        if (parents[i].kind == PARENT_GOOD)
            add_partitions(&shard->arena, rows, &policies[i], &parents[i]);
    PQclear(rows);
    return rows != NULL;
}

bool look_parents(struct shard_work *shard, const struct policy *policies, int count,
                  struct parent *parents)
{
    char *names = names_json(policies, count);
    PGresult *rows = db_query(shard->db, WORK_QUERY_MS, &shard->error, parents_sql, 1, names);
    free(names);
    for (int i = 0; rows && i < count; i++)
        fill_parent(&shard->arena, rows, i, &policies[i], &parents[i]);
    PQclear(rows);
    return rows && look_partitions(shard, policies, count, parents);
}
