/* convert_swap.c: the new table takes the old one's name, under locks that are had at once or not at all; and what comes after. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "partition/attempt.h"
#include "partition/convert.h"
#include "partition/shape.h"
#include "pgshunt/failpoint.h"

#define PAUSE_USUAL_MS 100
#define LOCK_USUAL_MS 200
#define WAIT_OF_TRY_MS                                                                             \
    2000 /* so long are other transactions waited for, for each try there is to be */

static const char *literal(struct converting *c, const char *text)
{
    char *quoted = PQescapeLiteral(db_connection(c->shard->db), text, strlen(text));
    const char *kept = arena_strdup(&c->scratch, quoted ? quoted : "NULL");
    PQfreemem(quoted);
    return kept;
}

/* ---- in step ---- */

static bool is_too_slow(const struct db_error *error)
{
    return strcmp(error->sqlstate, "57014") == 0;
}

static int limit_ms(const struct converting *c)
{
    const struct partition_call *call = c->shard->work->call;
    int pause = c->convert->how->max_pause_ms ? c->convert->how->max_pause_ms : PAUSE_USUAL_MS;
    return (call->lock_timeout ? call->lock_timeout : LOCK_USUAL_MS) + pause;
}

static const char *emptied_text(struct converting *c, const char *which)
{
    return arena_printf(
        &c->scratch,
        "DO $pgshunt$ BEGIN IF EXISTS (SELECT FROM %s%s) THEN RAISE EXCEPTION 'changes "
        "are left to be applied' USING ERRCODE = '55P03'; END IF; END $pgshunt$",
        c->texts.log, which);
}

/* While nobody writes, for a moment, what is left is applied, and whoever writes from then on writes to both tables. */
static const char *mirror_text(struct converting *c)
{
    const char *gone = arena_printf(&c->scratch, " WHERE %s IS NULL", c->texts.key_first);
    return arena_printf(&c->scratch, "LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE; %s; %s; %s",
                        c->texts.old, emptied_text(c, gone), convert_apply_text(c, NULL),
                        c->texts.mirror);
}

static bool give_up(struct converting *c, const char *what)
{
    bool slow = is_too_slow(&c->shard->error);
    attempt_blame(c->shard, c->texts.oids);
    if (slow)
        snprintf(c->shard->error.hint, sizeof c->shard->error.hint,
                 "nothing has changed for anybody, and it is tried again by the next call; with "
                 "--max-pause statements may be kept longer");
    return convert_fails(c, what);
}

/* Brings the new table up before each try, for changes go on between them. */
static bool try_briefly(struct converting *c, const char *(*text)(struct converting *c),
                        const char *what)
{
    struct shard_work *shard = c->shard;
    for (int i = 1; !work_stopped(shard->work); i++) {
        if (!convert_bring_up(c))
            return false;
        if (attempt_once(shard, text(c), limit_ms(c)))
            return true;
        if (!attempt_was_locks(&shard->error) && !is_too_slow(&shard->error) &&
            strcmp(shard->error.sqlstate, "23505") != 0)
            return convert_fails(c, what);
        if (i >= attempt_tries(shard->work))
            return give_up(c, what);
        attempt_rest(shard->work, i);
    }
    return false;
}

/* ---- those who were there before ---- */

#define OTHERS                                                                                     \
    " FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid) WHERE l.locktype = 'virtualxid' "  \
    "AND "                                                                                         \
    "l.mode = 'ExclusiveLock' AND l.granted AND a.datname = current_database() AND l.pid <> "      \
    "pg_backend_pid() AND coalesce(a.backend_type, '') <> 'autovacuum worker'"

static const char others_sql[] = "SELECT coalesce(array_agg(l.virtualtransaction), '{}')" OTHERS;
/* $1: who was there. */
static const char left_sql[] =
    "SELECT count(*), (SELECT string_agg(who, '; ') FROM (SELECT format('pid %s (%s%s): %s', "
    "a.pid, "
    "a.usename, coalesce(' ' || nullif(a.application_name, ''), ''), left(regexp_replace(a.query, "
    "'\\s+', ' ', 'g'), 80)) AS who" OTHERS
    " AND l.virtualtransaction = ANY ($1::text[]) ORDER BY a.xact_start LIMIT 3) AS w)" OTHERS
    " AND l.virtualtransaction = ANY ($1::text[])";

static bool any_left(struct converting *c, const char *others, bool *left)
{
    struct shard_work *shard = c->shard;
    PGresult *rows = db_query(shard->db, WORK_QUERY_MS, &shard->error, left_sql, 1, others);
    *left = rows && strcmp(PQgetvalue(rows, 0, 0), "0") != 0;
    if (*left) {
        shard->error =
            (struct db_error){.hint = "it is tried again by the next call; to be done with "
                                      "it, end what is in the way"};
        snprintf(shard->error.text, sizeof shard->error.text,
                 "transactions that began before the tables were in step are open still: %.400s",
                 PQgetvalue(rows, 0, 1));
    }
    bool asked = rows != NULL;
    PQclear(rows);
    return asked;
}

/*
 * Whoever has a snapshot from before the tables were in step would find the new one's rows as they were at some moment of the
 * copy. So nobody may be left who could have one.
 */
static bool wait_for_others(struct converting *c)
{
    struct shard_work *shard = c->shard;
    bool left = true;
    int64_t until = db_clock_ms() + (int64_t)attempt_tries(shard->work) * WAIT_OF_TRY_MS;
    PGresult *rows = db_query(shard->db, WORK_QUERY_MS, &shard->error, others_sql, 0);
    if (!rows)
        return convert_fails(c, "cannot wait for other transactions");
    const char *others = arena_strdup(&shard->arena, PQgetvalue(rows, 0, 0));
    PQclear(rows);
    while (!work_stopped(shard->work)) {
        if (!any_left(c, others, &left))
            return convert_fails(c, "cannot wait for other transactions");
        if (!left)
            return true;
        if (db_clock_ms() > until)
            return convert_fails(c, "cannot put the new table in the old one's place");
        convert_rest(shard->work, 20);
    }
    return false;
}

/* ---- the exchange ---- */

/* Under the lock the table is what it was when the conversion began, and the new one has all that it has. */
static const char *swap_text(struct converting *c)
{
    const struct convert_texts *t = &c->texts;
    return arena_printf(
        &c->scratch,
        "%s; %s; %s; %s; %s; %s; %s; %s; %s; %s; UPDATE pgshunt.partition_convert SET "
        "step = 'swapped', "
        "swapped_at = now(), after = %s WHERE schema_name = %s AND table_name = %s",
        t->lock, convert_unaltered_text(c), emptied_text(c, ""), t->unwatch, t->between,
        t->part_old, t->part_fresh, t->refer, t->last, t->views, t->after,
        literal(c, c->policy->schema), literal(c, c->policy->table));
}

static bool swap(struct converting *c)
{
    static const char what[] = "cannot put the new table in the old one's place";
    if (!try_briefly(c, mirror_text, "cannot bring the tables in step"))
        return false;
    failpoint("convert_in_step");
    if (!wait_for_others(c))
        return false;
    failpoint("convert_swapping");
    if (!try_briefly(c, swap_text, what))
        return false;
    c->state->step = CONVERT_SWAPPED;
    return true;
}

/* ---- what comes after ---- */

static bool next_statement(struct converting *c, const char **sql)
{
    PGresult *rows =
        db_query(c->shard->db, WORK_QUERY_MS, &c->shard->error,
                 "SELECT after[1] FROM pgshunt.partition_convert WHERE schema_name = $1 "
                 "AND table_name = $2",
                 2, c->policy->schema, c->policy->table);
    *sql = rows && PQntuples(rows) && !PQgetisnull(rows, 0, 0)
               ? arena_strdup(&c->scratch, PQgetvalue(rows, 0, 0))
               : NULL;
    PQclear(rows);
    return rows != NULL;
}

/* Each struck out together with its being done. */
static bool do_after(struct converting *c)
{
    struct shard_work *shard = c->shard;
    const char *sql;
    const char *oids = arena_printf(&c->scratch, "{%s}", c->parent.oid);
    while (!work_stopped(shard->work)) {
        if (!next_statement(c, &sql))
            return convert_fails(c, "cannot finish");
        if (!sql)
            return convert_set_step(c, CONVERT_CONVERTED) || convert_fails(c, "cannot finish");
        failpoint("convert_after");
        const char *both = arena_printf(
            &c->scratch,
            "%s; UPDATE pgshunt.partition_convert SET after = after[2:] WHERE schema_name = %s AND "
            "table_name = %s",
            sql, literal(c, c->policy->schema), literal(c, c->policy->table));
        if (!attempt_within(shard, both, oids, CONVERT_MS))
            return convert_fails(c, "cannot finish");
    }
    return false;
}

static void swap_and_after(struct converting *c)
{
    struct shard_work *shard = c->shard;
    if (c->state->step < CONVERT_SWAPPED) {
        if (!swap(c))
            return;
        work_tell(shard->work, FLEET_DONE, (int)shard->shard, c->policy->shown,
                  "it is a partitioned table now", NULL);
        failpoint("convert_swapped");
        if (!look_parents(shard, c->policy, 1, &c->parent)) {
            convert_fails(c, "cannot finish");
            return;
        }
    }
    (void)!do_after(c);
}

void convert_swap_task(struct shard_work *shard)
{
    struct converting c;
    struct convert *convert = shard->task;
    const struct convert_state *state = &convert->states[shard->shard];
    if (!state->here || state->step == CONVERT_CONVERTED || state->step == CONVERT_NONE)
        return;
    if (convert_open(&c, shard))
        swap_and_after(&c);
    convert_close(&c);
}

/* ---- back, and done with ---- */

/* By what is recorded: the table may have been altered, or be gone. $1, $2: its name; $3: the new one's. */
static const char cancel_sql[] =
    "SELECT coalesce((SELECT format('DROP TRIGGER IF EXISTS pgshunt_convert ON %s; DROP TRIGGER IF "
    "EXISTS pgshunt_convert_truncate ON %s; DROP TRIGGER IF EXISTS pgshunt_convert_columns ON %s; "
    "', c.oid::regclass, c.oid::regclass, c.oid::regclass) FROM pg_class AS "
    "c "
    "WHERE c.oid = p.old_oid), '') || format('DROP TABLE IF EXISTS %I.%I; DROP FUNCTION IF EXISTS "
    "pgshunt.convert_%s(); DROP TABLE IF EXISTS pgshunt.convert_%s; DELETE FROM "
    "pgshunt.partition_convert WHERE old_oid = %s', p.schema_name, $3::text, p.old_oid, p.old_oid, "
    "p.old_oid), format('{%s}', p.old_oid) FROM pgshunt.partition_convert AS p WHERE schema_name = "
    "$1 "
    "AND table_name = $2";

static const char finish_sql[] =
    "SELECT coalesce((SELECT format('DROP TABLE %s; ', c.oid::regclass) FROM pg_class AS c WHERE "
    "c.oid "
    "= p.old_oid AND c.relkind = 'r'), '') || format('DELETE FROM pgshunt.partition_convert WHERE "
    "old_oid = %s', p.old_oid), format('{%s}', p.old_oid) FROM pgshunt.partition_convert AS p "
    "WHERE "
    "schema_name = $1 AND table_name = $2 AND $3::text <> ''";

static void end_task(struct shard_work *shard, const char *which, const char *done)
{
    struct converting c;
    char fresh[NAME_SIZE];
    const struct policy *policy = &((struct convert *)shard->task)->creating.policy;
    name_of(policy->table, SHAPE_NEW, &policy->every, 0, fresh);
    if (convert_open(&c, shard)) {
        PGresult *rows = db_query(shard->db, WORK_QUERY_MS, &shard->error, which, 3, policy->schema,
                                  policy->table, fresh);
        if (!rows ||
            (PQntuples(rows) && !attempt(shard, arena_strdup(&shard->arena, PQgetvalue(rows, 0, 0)),
                                         arena_strdup(&shard->arena, PQgetvalue(rows, 0, 1)))))
            convert_fails(&c, "cannot do it");
        else
            work_tell(shard->work, FLEET_DONE, (int)shard->shard, policy->shown, done, NULL);
        PQclear(rows);
    }
    convert_close(&c);
}

void convert_cancel_task(struct shard_work *shard)
{
    const struct convert *convert = shard->task;
    if (convert->states[shard->shard].step != CONVERT_NONE)
        end_task(shard, cancel_sql, "everything is as it was before its conversion");
}

void convert_finish_task(struct shard_work *shard)
{
    const struct convert *convert = shard->task;
    if (convert->states[shard->shard].step == CONVERT_CONVERTED)
        end_task(shard, finish_sql, "the old table is gone");
}
