/*
 * reference.c: copies of reference tables: are they alike, and making them so.
 *
 *   look, without locks --alike--> done
 *     | differ: writers may be at it
 *     v
 *   LOCK on every shard --> look again --alike--> done
 *                             | differ
 *                             v
 *                 check: told    repair: copied from the source, looked at once more, committed
 */
#include "fleet/reference.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define APPLICATION "pgshuntctl reference"
#define LOCK_TIMEOUT "500ms"
#define LOCK_ATTEMPTS 12
#define ROWS_AT_ONCE 20000

struct work {
    struct fleet fleet;
    int source, show;
    bool repair;
};

/* ---- tables ---- */

static const char list_sql[] =
    "SELECT c.oid::regclass::text, n.nspname, c.relname,"
    " (SELECT string_agg(quote_ident(a.attname) || ' ' || format_type(a.atttypid, a.atttypmod), ', "
    "'"
    "  ORDER BY a.attnum) FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0"
    "  AND NOT a.attisdropped),"
    " (SELECT string_agg('x.' || quote_ident(a.attname), ', ' ORDER BY a.attnum)"
    "  FROM pg_index i JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY (i.indkey)"
    "  WHERE i.indrelid = c.oid AND i.indisprimary)"
    " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
    " WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't'"
    " AND n.nspname NOT IN ('pg_catalog', 'information_schema')"
    " AND NOT EXISTS (SELECT FROM pg_inherits h WHERE h.inhrelid = c.oid) ORDER BY 1";

/* Row texts are compared: they have to be written alike, and row security must not hide any. */
static const char settings_sql[] = "SET timezone = 'UTC'; SET extra_float_digits = 1;"
                                   " SET bytea_output = 'hex'; SET intervalstyle = 'postgres';"
                                   " SET xmlbinary = 'base64'; SET row_security = off";

static bool is_wanted(const struct work *work, const PGresult *rows, int row, const char *wanted)
{
    const char *schema = PQgetvalue(rows, row, 1), *name = PQgetvalue(rows, row, 2);
    if (shardmap_table(work->fleet.map, schema, name)->class != TABLE_REFERENCE)
        return false;
    if (!wanted || strcmp(wanted, name) == 0 || strcmp(wanted, PQgetvalue(rows, row, 0)) == 0)
        return true;
    size_t length = strlen(schema);
    return strncmp(wanted, schema, length) == 0 && wanted[length] == '.' &&
           strcmp(wanted + length + 1, name) == 0;
}

static void take_table(struct fleet *fleet, const PGresult *rows, int row,
                       struct reference_table *table)
{
    const char *key = fleet_text(fleet, rows, row, 4);
    table->name = fleet_text(fleet, rows, row, 0);
    table->columns = fleet_text(fleet, rows, row, 3);
    table->keyed = key != NULL;
    table->key = key ? FLEET_TEXT(fleet, "ROW(%s)::text", key) : "x::text";
}

/* The columns of a table as a shard has it; NULL: it has none, or fleet->error. */
static const char *columns_of(struct fleet *fleet, int shard, const char *name)
{
    PGresult *rows = fleet_query(
        fleet, shard,
        "SELECT string_agg(quote_ident(a.attname) || ' ' || format_type(a.atttypid, a.atttypmod),"
        " ', ' ORDER BY a.attnum) FROM pg_attribute a WHERE a.attrelid = to_regclass($1)"
        " AND a.attnum > 0 AND NOT a.attisdropped",
        1, name);
    const char *columns = rows ? fleet_text(fleet, rows, 0, 0) : NULL;
    PQclear(rows);
    return columns;
}

static bool has_same_columns(struct fleet *fleet, const struct reference_table *table)
{
    bool same = true;
    for (int i = 0; i < fleet->nshards; i++) {
        const char *columns = columns_of(fleet, i, table->name);
        if (columns && strcmp(columns, table->columns) == 0)
            continue;
        same = false;
        fleet_tell(fleet, FLEET_PROBLEM, i, table->name,
                   columns ? "has other columns, or in another order" : "is not there",
                   FLEET_TEXT(fleet, "pgshuntctl schema diff %s", fleet->database->name));
    }
    return same;
}

/* ---- locks ---- */

/* A writer may have begun on one shard and wait for us on another: who comes again ends that. */
static bool lock_copies(struct work *work, const struct reference_table *table)
{
    struct fleet *fleet = &work->fleet;
    const char *mode = work->repair ? "SHARE ROW EXCLUSIVE" : "SHARE";
    const char *sql = FLEET_TEXT(
        fleet, "BEGIN; SET LOCAL lock_timeout = '" LOCK_TIMEOUT "'; LOCK TABLE %s IN %s MODE",
        table->name, mode);
    int shard;
    for (int i = 1; !fleet_run_all(fleet, sql, &shard); i++) {
        struct db_error error = fleet->error;
        fleet_rollback_all(fleet);
        fleet->error = error;
        if (i >= LOCK_ATTEMPTS || strcmp(error.sqlstate, "55P03") != 0 || fleet_stopped(fleet))
            return fleet_fails(fleet, shard, table->name, "cannot keep writers out");
        usleep(20000u * (unsigned)(i % 4));
    }
    return true;
}

/* ---- looking ---- */

/* Whether all copies are alike now. False too when that could not be found out: told. */
static bool are_alike(struct work *work, const struct reference_table *table)
{
    struct fleet *fleet = &work->fleet;
    struct reference_difference *difference = arena_new(&fleet->arena, struct reference_difference);
    bool alike = true;
    int failed, problems = fleet->problems;
    for (int i = 0; i < fleet->nshards && alike; i++) {
        if (i == work->source)
            continue;
        if (!reference_compare(fleet, table, work->source, i, 0, difference, &failed))
            return fleet_fails(fleet, failed, table->name, "cannot compare");
        alike = !difference->nbuckets;
    }
    fleet->problems = problems;
    return alike;
}

static const char *count_words(struct fleet *fleet, const struct reference_difference *difference)
{
    const int64_t *rows = difference->rows;
    return FLEET_TEXT(fleet,
                      "%" PRId64 " rows missing, %" PRId64 " too many, %" PRId64 " not as on the "
                      "source",
                      rows[ROW_MISSING], rows[ROW_EXTRA], rows[ROW_CHANGED]);
}

/* ---- repairing ---- */

/* Rows that go must not take others along. */
static bool may_delete(struct fleet *fleet, int shard, const struct reference_table *table)
{
    PGresult *rows = fleet_query(
        fleet, shard,
        "SELECT string_agg(conrelid::regclass::text, ', ') FROM pg_constraint WHERE contype = 'f'"
        " AND confrelid = to_regclass($1) AND confdeltype IN ('c', 'n', 'd')",
        1, table->name);
    if (!rows)
        return fleet_fails(fleet, shard, table->name, "cannot look for foreign keys");
    const char *others = fleet_text(fleet, rows, 0, 0);
    PQclear(rows);
    if (!others)
        return true;
    fleet_tell(fleet, FLEET_FAILED, shard, table->name,
               FLEET_TEXT(fleet, "has rows too many, and deleting them would change rows of %s too",
                          others),
               "delete them by hand, or insert them on the source through pgshunt");
    return false;
}

static const char columns_sql[] =
    "SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum),"
    " string_agg('w.' || quote_ident(a.attname), ', ' ORDER BY a.attnum),"
    " string_agg(quote_ident(a.attname) || ' = w.' || quote_ident(a.attname), ', ' ORDER BY "
    "a.attnum)"
    "  FILTER (WHERE a.attidentity <> 'a' AND NOT coalesce(a.attnum = ANY (i.indkey), false))"
    " FROM pg_attribute a LEFT JOIN pg_index i ON i.indrelid = a.attrelid AND i.indisprimary"
    " WHERE a.attrelid = to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped"
    " AND a.attgenerated = ''";

/* Columns that can be written, as lists: themselves, of w, and w's assigned to those that are no key. */
struct columns {
    const char *names, *values, *assignments; /* assignments NULL: there are none but keys */
};

static bool read_columns(struct fleet *fleet, int shard, const struct reference_table *table,
                         struct columns *columns)
{
    PGresult *rows = fleet_query(fleet, shard, columns_sql, 1, table->name);
    if (!rows)
        return false;
    columns->names = fleet_text(fleet, rows, 0, 0);
    columns->values = fleet_text(fleet, rows, 0, 1);
    columns->assignments = fleet_text(fleet, rows, 0, 2);
    PQclear(rows);
    if (!columns->names)
        fleet->error = (struct db_error){.text = "it has no columns"};
    return columns->names != NULL;
}

/* The rows as they are to be; each with its key, which is said of a row x. */
static const char *wanted_rows(struct fleet *fleet, const struct reference_table *table)
{
    return FLEET_TEXT(fleet,
                      "(SELECT x.*, %s AS pgshunt_key, x::text AS pgshunt_row"
                      " FROM pg_temp.pgshunt_wanted AS x) AS w",
                      table->key);
}

/* Without a key rows cannot be told from each other: those of the buckets are written anew. */
static bool write_rows(struct fleet *fleet, int shard, const struct reference_table *table,
                       const char *buckets)
{
    struct columns columns;
    const char *name = table->name, *key = table->key, *wanted = wanted_rows(fleet, table);
    if (!read_columns(fleet, shard, table, &columns))
        return false;
    const char *unwanted =
        !table->keyed
            ? ""
            : FLEET_TEXT(fleet, " AND NOT EXISTS (SELECT FROM %s WHERE w.pgshunt_key = %s)", wanted,
                         key);
    const char *new =
        !table->keyed
            ? ""
            : FLEET_TEXT(fleet, " WHERE NOT EXISTS (SELECT FROM %s AS x WHERE %s = w.pgshunt_key)",
                         name, key);
    if (!fleet_run(fleet, shard,
                   FLEET_TEXT(fleet, "DELETE FROM %s AS x WHERE %s = ANY (%s)%s", name,
                              reference_bucket(fleet, table), buckets, unwanted),
                   0))
        return false;
    if (table->keyed && columns.assignments &&
        !fleet_run(fleet, shard,
                   FLEET_TEXT(fleet,
                              "UPDATE %s AS x SET %s FROM %s WHERE %s = w.pgshunt_key"
                              " AND x::text <> w.pgshunt_row",
                              name, columns.assignments, wanted, key),
                   0))
        return false;
    return fleet_run(fleet, shard,
                     FLEET_TEXT(fleet,
                                "INSERT INTO %s (%s) OVERRIDING SYSTEM VALUE SELECT %s FROM %s%s",
                                name, columns.names, columns.values, wanted, new),
                     0);
}

/* Brings the source's rows of some buckets to the shard. */
static bool copy_buckets(struct work *work, int shard, const struct reference_table *table,
                         const char *buckets, int *failed)
{
    struct fleet *fleet = &work->fleet;
    *failed = work->source;
    PGresult *rows = fleet_query(
        fleet, work->source,
        FLEET_TEXT(fleet,
                   "SELECT coalesce(array_agg(x::text), '{}') FROM %s AS x WHERE %s = ANY (%s)",
                   table->name, reference_bucket(fleet, table), buckets),
        0);
    if (!rows)
        return false;
    *failed = shard;
    bool good =
        fleet_run(fleet, shard,
                  FLEET_TEXT(fleet,
                             "DROP TABLE IF EXISTS pg_temp.pgshunt_wanted; CREATE TEMPORARY TABLE"
                             " pgshunt_wanted (LIKE %s) ON COMMIT DROP",
                             table->name),
                  0) &&
        fleet_run(fleet, shard,
                  FLEET_TEXT(fleet,
                             "INSERT INTO pg_temp.pgshunt_wanted SELECT (r::%s).* FROM"
                             " unnest($1::text[]) AS r",
                             table->name),
                  1, PQgetvalue(rows, 0, 0)) &&
        write_rows(fleet, shard, table, buckets);
    PQclear(rows);
    return good;
}

static bool repair_shard(struct work *work, int shard, const struct reference_table *table,
                         const struct reference_difference *difference)
{
    struct fleet *fleet = &work->fleet;
    struct reference_difference *after = arena_new(&fleet->arena, struct reference_difference);
    int next = 0, failed = shard;
    const char *buckets;
    if (difference->rows[ROW_EXTRA] && !may_delete(fleet, shard, table))
        return false;
    while ((buckets = reference_bucket_list(fleet, difference, next, ROWS_AT_ONCE, &next)))
        if (!copy_buckets(work, shard, table, buckets, &failed))
            return fleet_fails(fleet, failed, table->name, "cannot repair");
    if (!reference_compare(fleet, table, work->source, shard, 0, after, &failed))
        return fleet_fails(fleet, failed, table->name, "cannot compare");
    if (!after->nbuckets)
        return true;
    fleet_tell(
        fleet, FLEET_FAILED, shard, table->name,
        "its rows are not like the source's when they were written: a trigger may change them, "
        "or a column GENERATED ALWAYS AS IDENTITY differs",
        NULL);
    return false;
}

/* ---- one table ---- */

struct verdict {
    struct reference_difference *differences; /* by shard */
    int differing;                            /* shards */
};

/* With the locks held: what differs, and where. */
static bool look_closely(struct work *work, const struct reference_table *table,
                         struct verdict *verdict)
{
    struct fleet *fleet = &work->fleet;
    int failed, show = work->repair ? 0 : work->show;
    verdict->differences = arena_array(&fleet->arena, struct reference_difference, fleet->nshards);
    verdict->differing = 0;
    for (int i = 0; i < fleet->nshards; i++) {
        struct reference_difference *difference = &verdict->differences[i];
        if (i == work->source)
            continue;
        if (!reference_compare(fleet, table, work->source, i, show, difference, &failed))
            return fleet_fails(fleet, failed, table->name, "cannot compare");
        if (!difference->nbuckets)
            continue;
        verdict->differing++;
        const char *words = count_words(fleet, difference);
        if (!work->repair)
            fleet_tell(fleet, FLEET_PROBLEM, i, table->name, words,
                       FLEET_TEXT(fleet, "pgshuntctl reference repair %s %s --from %s",
                                  fleet->database->name, table->name,
                                  fleet->shards[work->source].name));
        else if (fleet->request->dry_run)
            fleet_tell(fleet, FLEET_PLANNED, i, table->name, words, NULL);
    }
    return true;
}

static bool commit_repairs(struct work *work, const struct reference_table *table,
                           const struct verdict *verdict)
{
    struct fleet *fleet = &work->fleet;
    for (int i = 0; i < fleet->nshards; i++) {
        const struct reference_difference *difference = &verdict->differences[i];
        if (!difference->nbuckets)
            continue;
        if (!fleet_run(fleet, i, "COMMIT", 0))
            return fleet_fails(fleet, i, table->name, "cannot commit; run it again");
        fleet_tell(fleet, FLEET_DONE, i, table->name,
                   FLEET_TEXT(fleet, "made like %s: %s", fleet->shards[work->source].name,
                              count_words(fleet, difference)),
                   NULL);
    }
    return true;
}

static void repair_copies(struct work *work, const struct reference_table *table,
                          const struct verdict *verdict)
{
    for (int i = 0; i < work->fleet.nshards; i++)
        if (verdict->differences[i].nbuckets &&
            !repair_shard(work, i, table, &verdict->differences[i]))
            return;
    commit_repairs(work, table, verdict);
}

static void do_table(struct work *work, const struct reference_table *table)
{
    struct fleet *fleet = &work->fleet;
    struct verdict verdict = {.differing = 0};
    int failed = fleet->failed;
    if (!has_same_columns(fleet, table))
        return;
    bool alike = are_alike(work, table);
    if (fleet->failed != failed || (!alike && !lock_copies(work, table)))
        return;
    if (!alike) {
        if (look_closely(work, table, &verdict) && verdict.differing && work->repair &&
            !fleet->request->dry_run)
            repair_copies(work, table, &verdict);
        fleet_rollback_all(fleet);
    }
    if (!verdict.differing && fleet->failed == failed)
        fleet_tell(fleet, FLEET_FACT, -1, table->name, "is alike on all shards", NULL);
}

/* ---- all tables ---- */

static int find_shard(const struct fleet *fleet, const char *name)
{
    for (int i = 0; i < fleet->nshards; i++)
        if (strcmp(fleet->shards[i].name, name) == 0)
            return i;
    return -1;
}

static bool prepare(struct work *work, const char *source)
{
    struct fleet *fleet = &work->fleet;
    int shard;
    work->source = source ? find_shard(fleet, source) : 0;
    if (work->source < 0) {
        fleet_tell(fleet, FLEET_FAILED, -1, NULL,
                   FLEET_TEXT(fleet, "there is no shard \"%s\"", source), NULL);
        return false;
    }
    return fleet_run_all(fleet, settings_sql, &shard) ||
           fleet_fails(fleet, shard, NULL, "cannot prepare the session");
}

static void do_tables(struct work *work, const char *wanted)
{
    struct fleet *fleet = &work->fleet;
    int done = 0;
    PGresult *rows = fleet_query(fleet, work->source, list_sql, 0);
    if (!rows) {
        fleet_fails(fleet, work->source, NULL, "cannot list the tables");
        return;
    }
    for (int i = 0; i < PQntuples(rows) && !fleet_stopped(fleet); i++) {
        struct reference_table table;
        if (!is_wanted(work, rows, i, wanted))
            continue;
        take_table(fleet, rows, i, &table);
        do_table(work, &table);
        done++;
    }
    PQclear(rows);
    if (wanted && !done)
        fleet_tell(fleet, FLEET_FAILED, work->source, wanted, "is no reference table there",
                   "the configuration's \"reference\" names them");
}

static enum fleet_outcome run(const struct fleet_request *request, const char *table,
                              const char *source, int rows, bool repair)
{
    struct work work = {.show = rows, .repair = repair};
    struct fleet *fleet = &work.fleet;
    if (fleet_open(fleet, request, APPLICATION) && prepare(&work, source))
        do_tables(&work, table);
    if (fleet_stopped(fleet))
        fleet_tell(fleet, FLEET_FAILED, -1, NULL, "interrupted", "run it again");
    enum fleet_outcome outcome = fleet_outcome(fleet);
    fleet_close(fleet);
    return outcome;
}

enum fleet_outcome fleet_reference_check(const struct fleet_request *request, const char *table,
                                         int rows)
{
    return run(request, table, NULL, rows, false);
}

enum fleet_outcome fleet_reference_repair(const struct fleet_request *request, const char *table,
                                          const char *source, int rows)
{
    return run(request, table, source, rows, true);
}
