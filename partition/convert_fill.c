/* convert_fill.c: the new table filled beside the old one: rows copied in the order of their key, logged changes applied. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "partition/attempt.h"
#include "partition/convert.h"
#include "partition/make.h"
#include "partition/shape.h"
#include "pgshunt/failpoint.h"

#define ROWS_LEAST 200
#define ROWS_FIRST 1000
#define ROWS_MOST 20000
#define BATCH_SHORT_MS 50
#define BATCH_LONG_MS 200
#define APPLY_ROWS 5000
#define APPLY_FEW 50 /* so little is left to be done under the lock */
#define PASSES 200
#define TELL_MS 5000
#define LAG_LOOK_MS 1000
#define AGAIN 20
#define AGAIN_MS 50

/* ---- small things ---- */

bool convert_fails(struct converting *c, const char *what)
{
    if (!work_stopped(c->shard->work))
        work_fails(c->shard->work, (int)c->shard->shard, c->policy->shown, what, &c->shard->error);
    return false;
}

static void tell(struct converting *c, enum fleet_event_kind kind, const char *text)
{
    work_tell(c->shard->work, kind, (int)c->shard->shard, c->policy->shown, text, NULL);
}

bool convert_run(struct converting *c, const char *sql)
{
    struct db_error ignored;
    struct shard_work *shard = c->shard;
    if (db_run(shard->db, CONVERT_MS, &shard->error, sql, 0))
        return true;
    if (db_is_open(shard->db) && PQtransactionStatus(db_connection(shard->db)) != PQTRANS_IDLE)
        (void)!db_run(shard->db, WORK_QUERY_MS, &ignored, "ROLLBACK", 0);
    return false;
}

void convert_rest(const struct work *work, int64_t ms)
{
    for (int64_t until = db_clock_ms() + ms; !work_stopped(work) && db_clock_ms() < until;)
        nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
}

/* ---- one at a time ---- */

#define LOCK "77419366"
#define LOCK_WAIT_MS 60000

/* Joins by hashing would read the whole table for a few keys; a row that a policy hides must not be lost. */
static const char settings_sql[] =
    "SELECT set_config('enable_hashjoin', 'off', false), set_config('enable_mergejoin', 'off', "
    "false), set_config('row_security', 'off', false), (SELECT set_config(name, '1s', false) FROM "
    "pg_settings WHERE name = 'client_connection_check_interval')";

static bool lock_shard(struct converting *c)
{
    struct shard_work *shard = c->shard;
    int64_t until = db_clock_ms() + LOCK_WAIT_MS;
    for (;;) {
        PGresult *rows =
            db_query(shard->db, WORK_QUERY_MS, &shard->error,
                     "SELECT pg_try_advisory_lock(" LOCK ", hashtext($1))", 1, c->policy->quoted);
        bool locked = rows && PQgetvalue(rows, 0, 0)[0] == 't';
        bool asked = rows != NULL;
        PQclear(rows);
        if (locked || !asked)
            return locked;
        if (db_clock_ms() > until || work_stopped(shard->work))
            break;
        convert_rest(shard->work, 100);
    }
    shard->error = (struct db_error){
        .text = "a session of a command that has ended, or of another one, is still at it"};
    return false;
}

static bool read_texts(struct converting *c)
{
    struct shard_work *shard = c->shard;
    if (!look_parents(shard, c->policy, 1, &c->parent))
        return false;
    if (c->parent.kind != PARENT_PLAIN || c->state->step >= CONVERT_SWAPPED || !c->policy->column)
        return true; /* the last: it is to be ended, by what is recorded */
    if (!convert_texts(shard, c->policy, &c->parent, c->convert->how->extend_key, &c->texts))
        return false;
    c->fresh = *c->policy;
    c->fresh.quoted = c->texts.fresh;
    return true;
}

bool convert_open(struct converting *c, struct shard_work *shard)
{
    struct convert *convert = shard->task;
    *c = (struct converting){.shard = shard,
                             .convert = convert,
                             .policy = &convert->creating.policy,
                             .state = &convert->states[shard->shard]};
    arena_init(&c->scratch);
    if (!db_run(shard->db, WORK_QUERY_MS, &shard->error, settings_sql, 0) || !lock_shard(c) ||
        !read_texts(c))
        return convert_fails(c, "cannot convert it");
    return true;
}

void convert_close(struct converting *c)
{
    arena_free(&c->scratch);
}

static const char *const step_names[] = {[CONVERT_NONE] = "",
                                         [CONVERT_COPYING] = "copying",
                                         [CONVERT_INDEXED] = "indexed",
                                         [CONVERT_SWAPPED] = "swapped",
                                         [CONVERT_CONVERTED] = "converted"};

bool convert_set_step(struct converting *c, enum convert_step step)
{
    c->state->step = step;
    return db_run(c->shard->db, WORK_QUERY_MS, &c->shard->error,
                  "UPDATE pgshunt.partition_convert SET step = $3 WHERE schema_name = $1 AND "
                  "table_name = $2",
                  3, c->policy->schema, c->policy->table, step_names[step]);
}

/* ---- what there is ---- */

static const char table_sql[] =
    "CREATE SCHEMA IF NOT EXISTS pgshunt; CREATE TABLE IF NOT EXISTS pgshunt.partition_convert "
    "(schema_name text, table_name text, step text NOT NULL, old_oid oid NOT NULL, kept text NOT "
    "NULL, options text NOT NULL, shape text NOT NULL, position text, copied bigint NOT NULL "
    "DEFAULT 0, after text[], begun_at timestamptz NOT NULL DEFAULT now(), swapped_at timestamptz, "
    "PRIMARY KEY (schema_name, table_name))";

static enum convert_step step_of(const char *name)
{
    int step = CONVERT_CONVERTED;
    while (step && strcmp(name, step_names[step]) != 0)
        step--;
    return (enum convert_step)step;
}

static const char *keep_text(struct work *work, const char *text)
{
    pthread_mutex_lock(&work->telling);
    text = arena_strdup(&work->arena, text);
    pthread_mutex_unlock(&work->telling);
    return text;
}

static bool read_state(struct shard_work *shard, const struct policy *policy,
                       struct convert_state *state)
{
    PGresult *rows = db_query(shard->db, WORK_QUERY_MS, &shard->error,
                              "SELECT to_regclass('pgshunt.partition_convert') IS NOT NULL", 0);
    bool has = rows && PQgetvalue(rows, 0, 0)[0] == 't', asked = rows != NULL;
    PQclear(rows);
    if (!has)
        return asked;
    rows = db_query(shard->db, WORK_QUERY_MS, &shard->error,
                    "SELECT step, options, format('%I.%I', schema_name, kept) FROM "
                    "pgshunt.partition_convert WHERE schema_name = $1 AND table_name = $2",
                    2, policy->schema, policy->table);
    if (rows && PQntuples(rows)) {
        state->step = step_of(PQgetvalue(rows, 0, 0));
        state->options = keep_text(shard->work, PQgetvalue(rows, 0, 1));
        state->kept = keep_text(shard->work, PQgetvalue(rows, 0, 2));
    }
    asked = rows != NULL;
    PQclear(rows);
    return asked;
}

void convert_look_task(struct shard_work *shard)
{
    struct convert *convert = shard->task;
    const struct policy *policy = &convert->creating.policy;
    struct convert_state *state = &convert->states[shard->shard];
    state->here =
        convert->creating.parents[shard->shard].kind != PARENT_MISSING &&
        work_place(shard->work, policy->schema, policy->table, shard->shard) != PLACE_NONE;
    if (!read_state(shard, policy, state))
        work_fails(shard->work, (int)shard->shard, policy->shown, "cannot look how far it is",
                   &shard->error);
}

/* ---- (1) the new table, the log, the triggers ---- */

static const char *begin_text(struct converting *c)
{
    struct arena *arena = &c->scratch;
    const struct convert_texts *t = &c->texts;
    return arena_printf(arena, "%s; %s; %s%s%s", t->before, t->make_key, t->dress,
                        t->dress[0] ? "; " : "", t->watch);
}

static const char *quote(struct converting *c, const char *text)
{
    char *quoted = PQescapeLiteral(db_connection(c->shard->db), text, strlen(text));
    const char *kept = arena_strdup(&c->scratch, quoted ? quoted : "NULL");
    PQfreemem(quoted);
    return kept;
}

static bool begin(struct converting *c)
{
    struct shard_work *shard = c->shard;
    if (!db_run(shard->db, WORK_QUERY_MS, &shard->error, table_sql, 0))
        return convert_fails(c, "cannot begin");
    const char *sql = arena_printf(
        &shard->arena,
        "%s; INSERT INTO pgshunt.partition_convert (schema_name, table_name, step, old_oid, kept, "
        "options, shape) VALUES (%s, %s, 'copying', %s, %s, %s, %s)",
        begin_text(c), quote(c, c->policy->schema), quote(c, c->policy->table), c->parent.oid,
        quote(c, c->texts.kept_name), quote(c, c->convert->options),
        convert_fingerprint(&shard->arena, c->parent.oid));
    if (!attempt(shard, sql, c->texts.oids))
        return convert_fails(c, "cannot begin");
    c->state->step = CONVERT_COPYING;
    tell(c, FLEET_DONE, "began: changes are logged from now on");
    failpoint("convert_begun");
    return true;
}

const char *convert_unaltered_text(struct converting *c)
{
    return arena_printf(&c->scratch,
                        "DO $pgshunt$ BEGIN IF %s IS DISTINCT FROM (SELECT shape FROM "
                        "pgshunt.partition_convert WHERE "
                        "schema_name = %s AND table_name = %s) THEN RAISE EXCEPTION 'the table was "
                        "altered since its "
                        "conversion began' USING ERRCODE = '55000', HINT = 'pgshuntctl partition "
                        "convert --cancel, and "
                        "begin again'; END IF; END $pgshunt$",
                        convert_fingerprint(&c->scratch, c->parent.oid),
                        quote(c, c->policy->schema), quote(c, c->policy->table));
}

/* The old table's storage parameters, where no template says others. */
static bool dress_leaves(struct converting *c)
{
    struct shard_work *shard = c->shard;
    if (!c->texts.options || c->policy->template)
        return true;
    return db_run(shard->db, WORK_QUERY_MS, &shard->error,
                  arena_printf(&shard->arena,
                               "DO $pgshunt$ DECLARE leaf regclass; BEGIN FOR leaf IN SELECT "
                               "inhrelid FROM pg_inherits WHERE inhparent = %s::regclass LOOP "
                               "EXECUTE 'ALTER TABLE ' || leaf || ' SET (' || %s || ')'; END LOOP; "
                               "END $pgshunt$",
                               quote(c, c->texts.fresh), quote(c, c->texts.options)),
                  0);
}

/* (2) */
static bool make_leaves(struct converting *c)
{
    struct shard_work *shard = c->shard;
    const struct aim *aim = &c->convert->aim;
    struct policy named = c->fresh;
    struct parent parent;
    int count, failed = shard->work->failed;
    named.table = c->texts.fresh_name; /* as look_parents() finds it */
    if (!look_parents(shard, &named, 1, &parent))
        return convert_fails(c, "cannot make its partitions");
    const struct wanted *wanted =
        plan_missing(aim->cells, aim->ncells, parent.have, parent.nhave, &shard->arena, &count);
    bool has_default = parent.nhave && parent.have[parent.nhave - 1].is_default;
    make_partitions(shard, &c->fresh, &parent, aim, wanted, count);
    if (c->policy->has_default && !has_default && !make_default(shard, &c->fresh, &parent))
        return false;
    if (!dress_leaves(c))
        return convert_fails(c, "cannot give its partitions their storage parameters");
    return shard->work->failed == failed && !work_stopped(shard->work);
}

/* ---- (3) rows ---- */

struct copying {
    int rows;       /* of a batch */
    int64_t copied; /* since it was told last */
    int64_t total;
    int64_t told, looked, ready; /* when */
};

static const char lag_sql[] =
    "SELECT coalesce(max(extract(epoch FROM coalesce(replay_lag, '0'))) * 1000, 0)::bigint FROM "
    "pg_stat_replication AS r WHERE r.state IN ('streaming', 'catchup') AND NOT EXISTS (SELECT "
    "FROM "
    "pg_replication_slots AS s WHERE s.active_pid = r.pid AND s.slot_type = 'logical')";

static bool lags(struct converting *c)
{
    struct db_error ignored;
    PGresult *rows = db_query(c->shard->db, WORK_QUERY_MS, &ignored, lag_sql, 0);
    bool far = rows && strtoll(PQgetvalue(rows, 0, 0), NULL, 10) > c->convert->how->max_lag_ms;
    PQclear(rows);
    return far;
}

/* Rests as long as the rate and the replicas want it. */
static void brake(struct converting *c, struct copying *copying, int64_t bytes)
{
    const struct partition_conversion *how = c->convert->how;
    const struct work *work = c->shard->work;
    int64_t now = db_clock_ms();
    if (how->rate) {
        copying->ready = (copying->ready > now ? copying->ready : now) + bytes * 1000 / how->rate;
        convert_rest(work, copying->ready - now);
    }
    if (!how->max_lag_ms || db_clock_ms() - copying->looked < LAG_LOOK_MS)
        return;
    for (bool told = false; !work_stopped(work) && lags(c); told = true) {
        if (!told)
            tell(c, FLEET_NOTE, "copying waits: a replica is behind");
        convert_rest(work, LAG_LOOK_MS);
    }
    copying->looked = db_clock_ms();
}

static void tell_progress(struct converting *c, struct copying *copying, int64_t rows, bool end)
{
    copying->copied += rows;
    copying->total += rows;
    if (!end && db_clock_ms() - copying->told < TELL_MS)
        return;
    if (copying->copied)
        tell(c, FLEET_NOTE,
             arena_printf(&c->scratch, "copied %lld rows%s", (long long)copying->total,
                          end ? "" : " so far"));
    copying->told = db_clock_ms();
    copying->copied = 0;
}

static bool read_position(struct converting *c, const char **position)
{
    PGresult *rows = db_query(c->shard->db, WORK_QUERY_MS, &c->shard->error,
                              "SELECT position FROM pgshunt.partition_convert WHERE schema_name = "
                              "$1 AND table_name = $2",
                              2, c->policy->schema, c->policy->table);
    *position = rows && PQntuples(rows) && !PQgetisnull(rows, 0, 0)
                    ? arena_strdup(&c->scratch, PQgetvalue(rows, 0, 0))
                    : NULL;
    PQclear(rows);
    return rows != NULL;
}

/*
 * A row that is there already was put there by what was logged, and is newer; one that has changed since is logged. So whatever
 * collides is left out.
 */
static const char *batch_text(struct converting *c, const char *position, int rows)
{
    const struct convert_texts *t = &c->texts;
    struct arena *arena = &c->scratch;
    const char *where = position ? arena_printf(arena, " WHERE (%s) > %s", t->key, position) : "";
    return arena_printf(
        arena,
        "WITH b AS MATERIALIZED (SELECT %s FROM ONLY %s%s ORDER BY %s LIMIT %d), put AS (INSERT "
        "INTO "
        "%s (%s) OVERRIDING SYSTEM VALUE SELECT %s FROM b ON CONFLICT DO NOTHING), e AS (SELECT %s "
        "AS position FROM (SELECT row_number() OVER (ORDER BY %s) AS pgshunt_n, * FROM b) AS b "
        "ORDER "
        "BY pgshunt_n DESC LIMIT 1), noted AS (UPDATE pgshunt.partition_convert AS p SET position "
        "= "
        "e.position, copied = copied + (SELECT count(*) FROM b) FROM e WHERE schema_name = %s AND "
        "table_name = %s) SELECT count(*), coalesce(sum(pg_column_size(b.*)), 0), (SELECT position "
        "FROM e) FROM b",
        t->columns, t->old, where, t->key, rows, t->fresh, t->columns, t->columns, t->key_literal,
        t->key, quote(c, c->policy->schema), quote(c, c->policy->table));
}

static void adapt(struct copying *copying, int64_t took)
{
    if (took < BATCH_SHORT_MS && copying->rows * 2 <= ROWS_MOST)
        copying->rows *= 2;
    else if (took > BATCH_LONG_MS && copying->rows / 2 >= ROWS_LEAST)
        copying->rows /= 2;
}

/* `*more`: it was not the last one. */
static bool copy_batch(struct converting *c, struct copying *copying, bool *more)
{
    struct shard_work *shard = c->shard;
    const char *position;
    arena_reset(&c->scratch);
    if (!read_position(c, &position))
        return false;
    int64_t began = db_clock_ms();
    PGresult *rows =
        db_query(shard->db, CONVERT_MS, &shard->error, batch_text(c, position, copying->rows), 0);
    if (!rows)
        return false;
    int64_t count = strtoll(PQgetvalue(rows, 0, 0), NULL, 10);
    int64_t bytes = strtoll(PQgetvalue(rows, 0, 1), NULL, 10);
    PQclear(rows);
    *more = count > 0;
    tell_progress(c, copying, count, count == 0);
    adapt(copying, db_clock_ms() - began);
    brake(c, copying, bytes);
    return true;
}

/* ---- (4) what has changed ---- */

const char *convert_apply_text(struct converting *c, const char *upto)
{
    const struct convert_texts *t = &c->texts;
    struct arena *arena = &c->scratch;
    const char *which = upto ? arena_printf(arena, " AND pgshunt_id <= %s", upto) : "";
    const char *keys =
        arena_printf(arena, "(SELECT DISTINCT %s FROM %s WHERE %s IS NOT NULL%s) AS l", t->key,
                     t->log, t->key_first, which);
    return arena_printf(arena,
                        "SET LOCAL enable_seqscan = off; DELETE FROM %s AS s USING %s WHERE %s; "
                        "INSERT INTO %s (%s) "
                        "OVERRIDING SYSTEM VALUE SELECT %s FROM ONLY %s AS s WHERE EXISTS (SELECT "
                        "FROM %s WHERE %s); "
                        "DELETE FROM %s WHERE %s IS NOT NULL%s",
                        t->fresh, keys, t->key_match, t->fresh, t->columns, t->columns, t->old,
                        keys, t->key_match, t->log, t->key_first, which);
}

/* How much is logged, up to APPLY_ROWS; the last of it; whether the table was emptied. */
struct logged {
    int64_t count;
    const char *last;
    bool emptied;
};

static bool look_at_log(struct converting *c, struct logged *logged)
{
    struct shard_work *shard = c->shard;
    PGresult *rows = db_query(
        shard->db, CONVERT_MS, &shard->error,
        arena_printf(&shard->arena,
                     "SELECT count(*), max(pgshunt_id), coalesce(bool_or(%s IS NULL), false) FROM "
                     "(SELECT * FROM %s ORDER BY pgshunt_id LIMIT %d) AS l",
                     c->texts.key_first, c->texts.log, APPLY_ROWS),
        0);
    if (!rows)
        return false;
    *logged = (struct logged){strtoll(PQgetvalue(rows, 0, 0), NULL, 10),
                              arena_strdup(&shard->arena, PQgetvalue(rows, 0, 1)),
                              PQgetvalue(rows, 0, 2)[0] == 't'};
    PQclear(rows);
    return true;
}

/* TRUNCATE: what is logged so far is of rows that are gone, or will be copied again. */
static bool begin_again(struct converting *c)
{
    const struct convert_texts *t = &c->texts;
    struct arena *arena = &c->scratch;
    return convert_run(
        c, arena_printf(
               arena,
               "BEGIN ISOLATION LEVEL REPEATABLE READ; DELETE FROM %s; TRUNCATE %s; UPDATE "
               "pgshunt.partition_convert SET position = NULL, copied = 0 WHERE schema_name = "
               "%s AND table_name = %s; COMMIT",
               t->log, t->fresh, quote(c, c->policy->schema), quote(c, c->policy->table)));
}

static bool apply(struct converting *c, const char *upto)
{
    return convert_run(c, arena_printf(&c->scratch,
                                       "BEGIN ISOLATION LEVEL REPEATABLE READ; %s; COMMIT",
                                       convert_apply_text(c, upto)));
}

/* Those who change both tables may be at the same rows. */
static bool may_try_again(struct converting *c)
{
    bool again = attempt_was_locks(&c->shard->error) ||
                 strcmp(c->shard->error.sqlstate, "40001") == 0 ||
                 strcmp(c->shard->error.sqlstate, "23505") == 0;
    if (again)
        convert_rest(c->shard->work, AGAIN_MS);
    return again && !work_stopped(c->shard->work);
}

/* A few at a time; keys that rows hand to each other can only be applied together. */
static bool apply_some(struct converting *c, const char *upto)
{
    for (int i = 0; i < AGAIN; i++) {
        if (apply(c, upto))
            return true;
        if (!may_try_again(c))
            return false;
        upto = NULL;
    }
    return false;
}

/* Until little is left. `*emptied`: copying has to begin again. */
bool convert_catch_up(struct converting *c, bool *emptied)
{
    struct logged logged = {.count = APPLY_FEW};
    *emptied = false;
    for (int pass = 0; pass < PASSES && logged.count >= APPLY_FEW; pass++) {
        arena_reset(&c->scratch);
        if (work_stopped(c->shard->work) || !look_at_log(c, &logged))
            return false;
        if (logged.emptied) {
            if (c->state->step != CONVERT_COPYING) {
                c->shard->error = (struct db_error){
                    .text = "the table was emptied when all of its rows had been copied",
                    .hint = "pgshuntctl partition convert --cancel, and begin again"};
                return false;
            }
            *emptied = true;
            tell(c, FLEET_NOTE, "the table was emptied: what was copied is thrown away");
            for (int i = 1; !begin_again(c); i++)
                if (i == AGAIN || !may_try_again(c))
                    return false;
            return true;
        }
        if (logged.count && !apply_some(c, logged.last))
            return false;
    }
    return true;
}

/* ---- all of it ---- */

/* Between batches what has changed is applied, lest the log grow. */
static bool copy_all(struct converting *c)
{
    struct copying copying = {.rows = ROWS_FIRST, .told = db_clock_ms()};
    bool more = true, emptied;
    for (int n = 0; more; n++) {
        if (work_stopped(c->shard->work) || !copy_batch(c, &copying, &more))
            return false;
        if (n == 0)
            failpoint("convert_batch");
        if (n % 16 == 15 && !convert_catch_up(c, &emptied))
            return false;
    }
    return true;
}

/* Only when the new table is what the old one was at one moment do keys hold in it. */
static bool make_indexes(struct converting *c)
{
    struct arena *arena = &c->scratch;
    if (c->state->step != CONVERT_COPYING)
        return true;
    failpoint("convert_copied");
    if (!apply_some(c, NULL) ||
        (c->texts.make_others[0] &&
         !convert_run(c,
                      arena_printf(arena,
                                   "BEGIN; %s; UPDATE pgshunt.partition_convert SET step = "
                                   "'indexed' WHERE schema_name = %s AND table_name = %s; COMMIT",
                                   c->texts.make_others, quote(c, c->policy->schema),
                                   quote(c, c->policy->table)))) ||
        !convert_set_step(c, CONVERT_INDEXED))
        return false;
    tell(c, FLEET_DONE, "made its indexes");
    failpoint("convert_indexed");
    return true;
}

static bool is_without_partition(const struct db_error *error)
{
    return strcmp(error->sqlstate, "23514") == 0 && strstr(error->text, "partition");
}

/*
 * When all rows are there nothing is copied any more: later ones are logged. A batch beside those who change both tables would put back,
 * under its old key, a row that they have moved after the batch has read it.
 */
bool convert_bring_up(struct converting *c)
{
    bool emptied;
    do {
        emptied = false;
        if ((c->state->step == CONVERT_COPYING && !copy_all(c)) || !convert_catch_up(c, &emptied) ||
            (!emptied && !make_indexes(c)) || (!emptied && !convert_catch_up(c, &emptied))) {
            if (is_without_partition(&c->shard->error))
                snprintf(c->shard->error.hint, sizeof c->shard->error.hint,
                         "call it again with more --ahead or with --default on, or delete rows "
                         "beyond; rows from before the first one get partitions by the next call");
            return convert_fails(c, "cannot copy it");
        }
    } while (emptied);
    return true;
}

/* ---- (5) the same rows ---- */

static const char *sum_text(struct converting *c, const char *table)
{
    return arena_printf(
        &c->scratch,
        "(SELECT count(*) || ' rows, sum ' || "
        "coalesce(sum(hashtextextended(t::text, 0)::numeric), 0) FROM (SELECT %s FROM "
        "%s) AS t)",
        c->texts.columns, table);
}

static bool compare(struct converting *c, const char **old, const char **fresh)
{
    struct arena *arena = &c->scratch;
    const char *only = arena_printf(arena, "ONLY %s", c->texts.old);
    if (!convert_run(
            c,
            arena_printf(arena,
                         "BEGIN ISOLATION LEVEL REPEATABLE READ; %s; SET LOCAL enable_seqscan = on",
                         convert_apply_text(c, NULL))))
        return false;
    PGresult *rows =
        db_query(c->shard->db, CONVERT_MS, &c->shard->error,
                 arena_printf(arena, "SELECT %s, %s, EXISTS (SELECT FROM %s)", sum_text(c, only),
                              sum_text(c, c->texts.fresh), c->texts.log),
                 0);
    if (!rows) {
        struct db_error ignored;
        (void)!db_run(c->shard->db, WORK_QUERY_MS, &ignored, "ROLLBACK", 0);
        return false;
    }
    *old = arena_strdup(arena, PQgetvalue(rows, 0, 0));
    *fresh = arena_strdup(arena, PQgetvalue(rows, 0, 1));
    bool emptied = PQgetvalue(rows, 0, 2)[0] == 't'; /* a moment ago: it is copied anew, later */
    PQclear(rows);
    if (emptied)
        *fresh = *old;
    return convert_run(c, "COMMIT");
}

static bool compare_again(struct converting *c, const char **old, const char **fresh)
{
    for (int i = 1; !compare(c, old, fresh); i++)
        if (i == AGAIN || !may_try_again(c))
            return false;
    return true;
}

static bool verify(struct converting *c)
{
    const char *old, *fresh;
    struct arena *arena = &c->scratch;
    if (!convert_run(c, arena_printf(arena, "ANALYZE %s", c->texts.fresh)) ||
        !compare_again(c, &old, &fresh))
        return convert_fails(c, "cannot compare the tables");
    if (strcmp(old, fresh) == 0) {
        tell(c, FLEET_DONE, arena_printf(arena, "compared: %.*s", (int)strcspn(old, ","), old));
        failpoint("convert_verified");
        return true;
    }
    work_tell(
        c->shard->work, FLEET_FAILED, (int)c->shard->shard, c->policy->shown,
        arena_printf(arena, "the copy is not what the table is: %s instead of %s", fresh, old),
        "pgshuntctl partition convert --cancel, and tell the developers");
    return false;
}

static void fill(struct converting *c)
{
    if (c->state->step == CONVERT_NONE
            ? !begin(c)
            : !convert_run(c, convert_unaltered_text(c)) && !convert_fails(c, "cannot go on"))
        return;
    if (!make_leaves(c))
        return;
    failpoint("convert_parted");
    (void)(convert_bring_up(c) && verify(c));
}

void convert_fill_task(struct shard_work *shard)
{
    struct converting c;
    struct convert *convert = shard->task;
    const struct convert_state *state = &convert->states[shard->shard];
    if (!state->here || state->step >= CONVERT_SWAPPED)
        return;
    if (convert_open(&c, shard))
        fill(&c);
    convert_close(&c);
}

/* ---- tried out ---- */

/* Everything at once, without rows, and undone: whatever the server does not let a partitioned table have is told now. */
static const char *rehearsal_text(struct converting *c)
{
    const struct convert_texts *t = &c->texts;
    struct arena *arena = &c->scratch;
    return arena_printf(
        arena,
        "CREATE SCHEMA IF NOT EXISTS pgshunt; %s; %s; CREATE TABLE pgshunt.convert_rehearsal "
        "PARTITION "
        "OF "
        "%s DEFAULT; %s; %s; %s; %s; %s; %s; %s; %s; DO $pgshunt$ BEGIN RAISE EXCEPTION 'it can be "
        "done' USING ERRCODE = 'PSH00'; END $pgshunt$",
        begin_text(c), t->mirror, t->fresh, t->make_others, t->lock, t->unwatch, t->between,
        t->part_old, t->part_fresh, arena_printf(arena, "%s; %s", t->refer, t->last), t->views);
}

static bool rehearse(struct converting *c)
{
    struct shard_work *shard = c->shard;
    if (attempt(shard, rehearsal_text(c), c->texts.oids)) /* it never ends well */
        return true;
    if (strcmp(shard->error.sqlstate, "PSH00") == 0)
        return true;
    return convert_fails(c, "it cannot be converted");
}

void convert_check_task(struct shard_work *shard)
{
    struct converting c;
    struct convert *convert = shard->task;
    const struct policy *policy = &convert->creating.policy;
    const struct parent *parent = &convert->creating.parents[shard->shard];
    const struct convert_state *state = &convert->states[shard->shard];
    bool extend = convert->how->extend_key;
    if (!state->here || state->step != CONVERT_NONE || parent->kind != PARENT_PLAIN)
        return;
    bool fine = shape_check(shard, policy, parent, SHAPE_FULL | (extend ? SHAPE_EXTEND : 0));
    if (!convert_check(shard, policy, parent, extend) || !fine)
        return;
    if (shard->work->call->fleet.dry_run)
        return;
    if (convert_open(&c, shard))
        (void)rehearse(&c);
    convert_close(&c);
}
