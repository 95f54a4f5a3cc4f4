/* reference_rows.c: finds the rows in which two copies of a reference table differ. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "fleet/reference.h"

#define ROWS_AT_ONCE 100000

struct sums {
    int64_t count[REFERENCE_BUCKETS];
    const char *sum[REFERENCE_BUCKETS]; /* NULL: no rows */
};

const char *reference_bucket(struct fleet *fleet, const struct reference_table *table)
{
    return FLEET_TEXT(fleet, "(hashtextextended(%s, 0) & %d)::int", table->key,
                      REFERENCE_BUCKETS - 1);
}

const char *reference_bucket_list(struct fleet *fleet,
                                  const struct reference_difference *difference, int first,
                                  int64_t rows, int *next)
{
    const char *list = "";
    int bucket = first;
    for (; bucket < REFERENCE_BUCKETS && rows > 0; bucket++) {
        if (!difference->buckets[bucket])
            continue;
        list = FLEET_TEXT(fleet, "%s%s%d", list, *list ? "," : "", bucket);
        rows -= difference->sizes[bucket];
    }
    *next = bucket;
    return *list ? FLEET_TEXT(fleet, "'{%s}'::int[]", list) : NULL;
}

/* ---- sums ---- */

static bool read_sums(struct fleet *fleet, const struct reference_table *table, int shard,
                      struct sums *sums)
{
    PGresult *rows = fleet_query(
        fleet, shard,
        FLEET_TEXT(fleet,
                   "SELECT %s, count(*), sum(hashtextextended(x::text, 1)::numeric) FROM %s AS x "
                   "GROUP BY 1",
                   reference_bucket(fleet, table), table->name),
        0);
    for (int i = 0; rows && i < PQntuples(rows); i++) {
        int bucket = atoi(PQgetvalue(rows, i, 0)) & (REFERENCE_BUCKETS - 1);
        sums->count[bucket] = strtoll(PQgetvalue(rows, i, 1), NULL, 10);
        sums->sum[bucket] = fleet_text(fleet, rows, i, 2);
    }
    PQclear(rows);
    return rows != NULL;
}

static bool differs(const struct sums *a, const struct sums *b, int bucket)
{
    if (a->count[bucket] != b->count[bucket])
        return true;
    return a->count[bucket] && strcmp(a->sum[bucket], b->sum[bucket]) != 0;
}

/* ---- rows ---- */

struct comparison {
    struct fleet *fleet;
    const struct reference_table *table;
    int source, shard, show;
    struct reference_difference *difference;
};

static PGresult *read_rows(const struct comparison *c, int shard, const char *buckets)
{
    return fleet_query(
        c->fleet, shard,
        FLEET_TEXT(c->fleet,
                   "SELECT %s COLLATE \"C\", hashtextextended(x::text, 1) FROM %s AS x "
                   "WHERE %s = ANY (%s) ORDER BY 1, 2",
                   c->table->key, c->table->name, reference_bucket(c->fleet, c->table), buckets),
        0);
}

static void note(const struct comparison *c, enum row_difference kind, const char *key)
{
    const char *source = c->fleet->shards[c->source].name, *text;
    int64_t *rows = c->difference->rows;
    bool told = rows[0] + rows[1] + rows[2] < c->show;
    rows[kind]++;
    if (!told)
        return;
    if (kind == ROW_MISSING)
        text = FLEET_TEXT(c->fleet, "row %.200s is missing, %s has it", key, source);
    else if (kind == ROW_EXTRA)
        text = FLEET_TEXT(c->fleet, "row %.200s is not on %s", key, source);
    else
        text = FLEET_TEXT(c->fleet, "row %.200s is not as on %s", key, source);
    fleet_tell(c->fleet, FLEET_PROBLEM, c->shard, c->table->name, text, NULL);
}

/* Both are in the order of their keys' bytes. */
static void merge_rows(const struct comparison *c, const PGresult *wanted, const PGresult *found)
{
    int a = 0, b = 0, na = PQntuples(wanted), nb = PQntuples(found);
    while (a < na || b < nb) {
        int order = a == na   ? 1
                    : b == nb ? -1
                              : strcmp(PQgetvalue(wanted, a, 0), PQgetvalue(found, b, 0));
        if (order < 0)
            note(c, ROW_MISSING, PQgetvalue(wanted, a++, 0));
        else if (order > 0)
            note(c, ROW_EXTRA, PQgetvalue(found, b++, 0));
        else if (strcmp(PQgetvalue(wanted, a++, 1), PQgetvalue(found, b, 1)) != 0)
            note(c, ROW_CHANGED, PQgetvalue(found, b++, 0));
        else
            b++;
    }
}

static bool compare_rows(const struct comparison *c, int *failed)
{
    int next = 0;
    const char *buckets;
    while ((buckets = reference_bucket_list(c->fleet, c->difference, next, ROWS_AT_ONCE, &next))) {
        PGresult *wanted = read_rows(c, c->source, buckets);
        *failed = wanted ? c->shard : c->source;
        PGresult *found = wanted ? read_rows(c, c->shard, buckets) : NULL;
        if (found)
            merge_rows(c, wanted, found);
        PQclear(wanted);
        PQclear(found);
        if (!found)
            return false;
    }
    return true;
}

bool reference_compare(struct fleet *fleet, const struct reference_table *table, int source,
                       int shard, int show, struct reference_difference *difference, int *failed)
{
    struct sums *sums = arena_array(&fleet->arena, struct sums, 2);
    struct comparison c = {fleet, table, source, shard, show, difference};
    *difference = (struct reference_difference){.nbuckets = 0};
    *failed = source;
    if (!read_sums(fleet, table, source, &sums[0]))
        return false;
    *failed = shard;
    if (!read_sums(fleet, table, shard, &sums[1]))
        return false;
    for (int i = 0; i < REFERENCE_BUCKETS; i++) {
        difference->buckets[i] = differs(&sums[0], &sums[1], i);
        difference->nbuckets += difference->buckets[i];
        difference->sizes[i] =
            sums[0].count[i] > sums[1].count[i] ? sums[0].count[i] : sums[1].count[i];
    }
    return !difference->nbuckets || compare_rows(&c, failed);
}
