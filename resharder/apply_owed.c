/*
 * apply_owed.c: rows that are ours and not on the target yet, because a change that brought them did not carry their long values
 * and the source has them no more: kept on the target, in the transaction that the position is in.
 *
 *   UPDATE brings it into the moving buckets --gone on the source--> owed --UPDATE with all values, or found--> on the target
 *                                                                     '---- DELETE, TRUNCATE, a later pass of the copy ----> not owed
 */
#include <stdlib.h>
#include <string.h>

#include "pgshunt/arena.h"
#include "resharder/apply_internal.h"

#define SETUP_MS 60000

/* Of one table, found by the same columns. */
struct apply_owed {
    struct apply_owed *next;
    char *relation; /* "public.users (id)"; owned */
    int64_t count;  /* at least; 0: none for sure */
};

/* Not by IF NOT EXISTS alone, for several streams may begin at once. */
static const char make_sql[] =
    "DO $pgshunt$ BEGIN IF to_regclass('pgshunt.owed') IS NULL THEN"
    " PERFORM pg_advisory_xact_lock(hashtext('pgshunt.owed'));"
    " CREATE SCHEMA IF NOT EXISTS pgshunt; CREATE TABLE IF NOT EXISTS pgshunt.owed (job text NOT "
    "NULL,"
    " source text NOT NULL, relation text NOT NULL, locator text[] NOT NULL);"
    " CREATE INDEX IF NOT EXISTS owed_job ON pgshunt.owed (job, source); END IF; END $pgshunt$";

static struct apply_owed *add(struct apply *apply, const char *relation)
{
    struct apply_owed *owed = mem_alloc(sizeof *owed);
    owed->relation = mem_strdup(relation);
    owed->next = apply->owed;
    return apply->owed = owed;
}

bool apply_owed_read(struct apply *apply, struct db *target, struct db_error *error)
{
    if (!db_run(target, SETUP_MS, error, make_sql, 0))
        return false;
    PGresult *rows =
        db_query(target, SETUP_MS, error,
                 "SELECT relation, count(*) FROM pgshunt.owed WHERE job = $1 AND source"
                 " = $2 GROUP BY relation",
                 2, apply->options.job, apply->options.source);
    for (int i = 0; rows && i < PQntuples(rows); i++)
        add(apply, PQgetvalue(rows, i, 0))->count = strtoll(PQgetvalue(rows, i, 1), NULL, 10);
    PQclear(rows);
    return rows != NULL;
}

bool apply_owed_forget(struct db *target, const char *job, const char *source,
                       struct db_error *error)
{
    return db_run(target, SETUP_MS, error, make_sql, 0) &&
           db_run(target, SETUP_MS, error,
                  "DELETE FROM pgshunt.owed WHERE job = $1 AND source = $2", 2, job, source);
}

void apply_owed_free(struct apply *apply)
{
    while (apply->owed) {
        struct apply_owed *owed = apply->owed;
        apply->owed = owed->next;
        free(owed->relation);
        free(owed);
    }
}

/* ---- of a relation ---- */

/* Its name, and the columns that its rows are found by. */
static const char *name_of(struct apply_relation *relation)
{
    const char *name = relation->quoted, *before = " (";
    for (int i = 0; i < relation->ncolumns; i++)
        if (relation->columns[i].locator) {
            name =
                arena_printf(&relation->arena, "%s%s%s", name, before, relation->columns[i].quoted);
            before = ", ";
        }
    return relation->nlocators ? arena_printf(&relation->arena, "%s)", name) : name;
}

static struct apply_owed *find(const struct apply *apply, const char *name)
{
    for (struct apply_owed *owed = apply->owed; owed; owed = owed->next)
        if (strcmp(owed->relation, name) == 0)
            return owed;
    return NULL;
}

/* Rows are owed that nobody could find again. */
static bool is_by_others(const struct apply *apply, const struct apply_relation *relation)
{
    size_t length = strlen(relation->quoted);
    for (const struct apply_owed *owed = apply->owed; owed; owed = owed->next)
        if (owed->count && strncmp(owed->relation, relation->quoted, length) == 0 &&
            strncmp(owed->relation + length, " (", 2) == 0 &&
            strcmp(owed->relation, relation->owed_name) != 0)
            return true;
    return false;
}

bool apply_owed_begin(struct apply *apply, struct apply_relation *relation)
{
    relation->owed_name = name_of(relation);
    relation->owed = find(apply, relation->owed_name);
    return !is_by_others(apply, relation) ||
           apply_problem(
               apply,
               "ALTER TABLE ... REPLICA IDENTITY FULL on the source, then cancel the job "
               "and create it again.",
               "the replica identity of %s.%s was altered while rows whose sharding key was "
               "changed were not whole yet",
               relation->schema, relation->name);
}

/* ---- a row ---- */

void apply_located_take(struct apply_located *located, const struct apply_relation *relation,
                        const struct pgoutput_tuple *row, const char *const *texts, int ntexts)
{
    size_t room = (size_t)(relation->ncolumns + ntexts) + 1, total = 0;
    *located = (struct apply_located){.values = mem_alloc(room * sizeof *located->values),
                                      .lengths = mem_alloc(room * sizeof *located->lengths),
                                      .formats = mem_alloc(room * sizeof *located->formats)};
    for (int i = 0; i < ntexts; i++) {
        located->values[i] = texts[i];
        located->lengths[i] = (int)strlen(texts[i]);
    }
    located->count = ntexts;
    for (int i = 0; i < relation->ncolumns; i++)
        total += row->values[i].length + 1;
    buffer_reserve(&located->bytes, total); /* so that values stay where they are put */
    for (int i = 0; i < relation->ncolumns; i++) {
        const struct pgoutput_value *value = &row->values[i];
        if (!relation->columns[i].locator)
            continue;
        located->values[located->count] =
            buffer_head(&located->bytes) + buffer_length(&located->bytes);
        located->lengths[located->count] = (int)value->length;
        located->formats[located->count++] = value->kind == PGOUTPUT_BINARY;
        buffer_append(&located->bytes, value->bytes, value->length);
        buffer_append(&located->bytes, "", 1);
    }
}

void apply_located_free(struct apply_located *located)
{
    buffer_release(&located->bytes);
    free(located->values);
    free(located->lengths);
    free(located->formats);
}

#define TEXT_OID 25

/* `sql` with the locator as an array of texts behind it, whatever form its values come in. */
static bool run(struct apply *apply, const struct apply_relation *relation,
                const struct pgoutput_tuple *row, const char *sql, const char *end,
                const struct pipe_expected *expected)
{
    const char *texts[] = {apply->options.job, apply->options.source, relation->owed_name};
    uint32_t *types = mem_alloc(((size_t)relation->ncolumns + 3) * sizeof *types);
    struct buffer text = {0};
    struct apply_located located;
    int count = 3;
    types[0] = types[1] = types[2] = TEXT_OID;
    buffer_printf(&text, "%s", sql);
    for (int i = 0; i < relation->ncolumns; i++)
        if (relation->columns[i].locator) {
            types[count++] = relation->columns[i].type;
            buffer_printf(&text, "%s$%d::text", count > 4 ? ", " : "", count);
        }
    buffer_printf(&text, "%s", end);
    buffer_append(&text, "", 1);
    apply_located_take(&located, relation, row, texts, 3);
    const struct pipe_parameters parameters = {located.count, located.values, located.lengths,
                                               located.formats};
    bool good = apply_open_transaction(apply) &&
                ((pipe_prepare(&apply->target, "", buffer_head(&text), count, types) &&
                  pipe_execute(&apply->target, "", &parameters, expected)) ||
                 apply_pipe_failed(apply, &apply->target, "target"));
    apply_located_free(&located);
    buffer_release(&text);
    free(types);
    return good;
}

bool apply_owe(struct apply *apply, struct apply_relation *relation,
               const struct pgoutput_tuple *row)
{
    if (!relation->owed)
        relation->owed = add(apply, relation->owed_name);
    relation->owed->count++;
    return run(
        apply, relation, row,
        "INSERT INTO pgshunt.owed (job, source, relation, locator) VALUES ($1, $2, $3, ARRAY[",
        "])", NULL);
}

static void took_count(void *arg, const struct pipe_expected *expected, const PGresult *result)
{
    (void)arg;
    *(int64_t *)expected->object = strtoll(PQcmdTuples((PGresult *)result), NULL, 10);
}

bool apply_was_owed(struct apply *apply, struct apply_relation *relation,
                    const struct pgoutput_tuple *located, bool *was)
{
    int64_t count = 0;
    struct pipe_expected expected = {.take = took_count, .object = &count};
    *was = false;
    if (!relation->owed || !relation->owed->count)
        return true;
    if (!run(apply, relation, located,
             "DELETE FROM pgshunt.owed WHERE job = $1 AND source = $2 AND relation = $3 AND locator"
             " = ARRAY[",
             "]", &expected))
        return false;
    if (!pipe_wait(&apply->target, 0))
        return apply_pipe_failed(apply, &apply->target, "target");
    *was = count > 0;
    relation->owed->count -= count;
    return true;
}

bool apply_owes_none(struct apply *apply, struct apply_relation *relation)
{
    const char *values[] = {apply->options.job, apply->options.source, relation->owed_name};
    const struct pipe_parameters parameters = {3, values, NULL, NULL};
    if (!relation->owed || !relation->owed->count)
        return true;
    relation->owed->count = 0;
    return pipe_query(&apply->target,
                      "DELETE FROM pgshunt.owed WHERE job = $1 AND source = $2 AND relation = $3",
                      &parameters, NULL) ||
           apply_pipe_failed(apply, &apply->target, "target");
}
