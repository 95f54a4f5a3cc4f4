/* clone_reset.c: what a clone has of its source that is not the new shard's: prepared transactions, catalog, other tables. */
#include <stdio.h>
#include <string.h>

#include "pgshunt/buffer.h"
#include "pgshunt/fleet.h"
#include "resharder/clone.h"

#define PREPARED_MS 90000 /* proxies have that long to finish theirs */
#define LOOK_MS 200
#define SAY_MS 5000
#define EMPTY_MS 3600000 /* for tables that have to be emptied row by row */
#define SEQUENCE_TRIES 5

/* ---- prepared transactions ---- */

static const char prepared_query[] =
    "SELECT gid, gid LIKE 'pgshunt:%' FROM pg_prepared_xacts WHERE database = current_database()"
    " ORDER BY prepared";

struct prepared {
    struct reshard *reshard;
    const struct job *job;
    struct db *clone;
    PGresult *here, *there; /* on the source, then on the clone */
    const char *waits;      /* for one of these; NULL: for none */
    bool first;             /* the first look */
    const char *early;      /* ... has seen these on the source alone: "gid\ngid\n" */
};

static bool is_among(const PGresult *rows, const char *gid)
{
    for (int i = 0; i < PQntuples(rows); i++)
        if (strcmp(PQgetvalue(rows, i, 0), gid) == 0)
            return true;
    return false;
}

static bool roll_back(struct prepared *prepared, const char *gid)
{
    struct reshard *reshard = prepared->reshard;
    char *quoted = PQescapeLiteral(db_connection(prepared->clone), gid, strlen(gid));
    bool done = db_run(prepared->clone, RESHARD_QUERY_MS, &reshard->error,
                       RESHARD_TEXT(reshard, "ROLLBACK PREPARED %s", quoted), 0);
    if (!done && strcmp(reshard->error.sqlstate, "55000") == 0)
        prepared->waits = RESHARD_TEXT(reshard, "%s", gid); /* somebody is at it just now */
    if (!done && strcmp(reshard->error.sqlstate, "42501") == 0)
        snprintf(reshard->error.hint, sizeof reshard->error.hint,
                 "On the clone, as a superuser: ROLLBACK PREPARED %.300s", quoted);
    PQfreemem(quoted);
    if (done)
        job_step(reshard, prepared->job, "rolled back",
                 RESHARD_TEXT(reshard, "the clone's copy of prepared transaction %s", gid));
    return done || strcmp(reshard->error.sqlstate, "55000") == 0 ||
           strcmp(reshard->error.sqlstate, "42704") == 0;
}

/*
 * What is on both sides under one name was prepared on the source, and is not decided there: the stream brings it if it is
 * committed. What applications have prepared can be on the clone as a copy alone. All else is one of pgshunt's own, a copy
 * whose outcome is known by now, or new: both are finished by the proxies, as they are decided.
 */
static bool judge_there(struct prepared *prepared)
{
    for (int i = 0; i < PQntuples(prepared->there); i++) {
        const char *gid = PQgetvalue(prepared->there, i, 0);
        bool own = PQgetvalue(prepared->there, i, 1)[0] == 't';
        if (own && !is_among(prepared->here, gid))
            prepared->waits = RESHARD_TEXT(prepared->reshard, "%s", gid);
        else if (!roll_back(prepared, gid))
            return false;
    }
    return true;
}

/* The proxies may have finished the clone's copy before anybody looked; the source's is next. */
static void judge_here(struct prepared *prepared)
{
    struct reshard *reshard = prepared->reshard;
    for (int i = 0; i < PQntuples(prepared->here); i++) {
        const char *gid = PQgetvalue(prepared->here, i, 0);
        if (PQgetvalue(prepared->here, i, 1)[0] != 't' || is_among(prepared->there, gid))
            continue;
        const char *line = RESHARD_TEXT(reshard, "%s\n", gid);
        if (prepared->first)
            prepared->early = RESHARD_TEXT(reshard, "%s%s", prepared->early, line);
        if (strstr(prepared->early, line))
            prepared->waits = RESHARD_TEXT(reshard, "%s", gid);
    }
}

static bool look_at_prepared(struct prepared *prepared)
{
    struct reshard *reshard = prepared->reshard;
    struct db *source = reshard_primary(reshard, clone_link(reshard).source);
    prepared->waits = NULL;
    prepared->here =
        source ? db_query(source, RESHARD_QUERY_MS, &reshard->error, prepared_query, 0) : NULL;
    prepared->there = prepared->here ? db_query(prepared->clone, RESHARD_QUERY_MS, &reshard->error,
                                                prepared_query, 0)
                                     : NULL;
    bool good = prepared->there && judge_there(prepared);
    if (good)
        judge_here(prepared);
    prepared->first = false;
    PQclear(prepared->here);
    PQclear(prepared->there);
    return good;
}

static bool not_finished(struct prepared *prepared)
{
    return clone_fails(prepared->reshard, "55P03",
                       RESHARD_TEXT(prepared->reshard,
                                    "prepared transaction %s of pgshunt's own is not finished",
                                    prepared->waits),
                       "A running pgshunt with this configuration finishes it: look whether one is "
                       "there, and at its log.");
}

static bool wait_for_prepared(struct prepared *prepared)
{
    struct reshard *reshard = prepared->reshard;
    int64_t began = db_clock_ms(), said = began;
    while (look_at_prepared(prepared)) {
        if (!prepared->waits)
            return true;
        if (!job_will_make(reshard, prepared->job, clone_link(reshard).target, CLONE_OBJECT,
                           CLONE_PREPARED, NULL))
            return false;
        if (reshard_stopped(reshard) || db_clock_ms() - began > PREPARED_MS)
            return not_finished(prepared);
        if (db_clock_ms() - said > SAY_MS) {
            said = db_clock_ms();
            reshard_tell(reshard, RESHARD_NOTE, NULL, NULL,
                         RESHARD_TEXT(reshard,
                                      "waits for the proxies to finish prepared transaction %s",
                                      prepared->waits),
                         NULL);
        }
        reshard_sleep(reshard, LOOK_MS * 1000);
    }
    return false;
}

static bool was_late(struct reshard *reshard, const struct job *job, bool *late)
{
    struct job_object *objects;
    int count;
    *late = false;
    if (!job_objects(reshard, job, &objects, &count))
        return false;
    for (int i = 0; i < count; i++)
        *late |= strcmp(objects[i].kind, CLONE_OBJECT) == 0 &&
                 strcmp(objects[i].name, CLONE_PREPARED) == 0;
    return true;
}

bool clone_finish_prepared(struct reshard *reshard, const struct job *job, bool *late)
{
    struct prepared prepared = {.reshard = reshard,
                                .job = job,
                                .clone = clone_open(reshard, job),
                                .first = true,
                                .early = ""};
    bool good = prepared.clone && wait_for_prepared(&prepared);
    db_close(prepared.clone);
    return good && was_late(reshard, job, late);
}

/* ---- schema pgshunt, publications, origins, guards ---- */

/*
 * What jobs and the catalog have of the source, which is nobody's here. Functions stay (lookups and ids are those of any shard), so do
 * the tables of ghost keys, which statements read. %s: the source's name, by which decisions of two-phase commits are known.
 */
static const char reset_sql[] =
    "DO $pgshunt_reset$ DECLARE r record; BEGIN"
    " FOR r IN SELECT pubname FROM pg_publication WHERE pubname LIKE 'pgshunt\\_%%' LOOP"
    "  EXECUTE format('DROP PUBLICATION %%I', r.pubname); END LOOP;"
    " FOR r IN SELECT roname FROM pg_replication_origin WHERE roname LIKE 'pgshunt\\_%%' LOOP"
    "  PERFORM pg_replication_origin_drop(r.roname); END LOOP;"
    " FOR r IN SELECT t.tgname, n.nspname, c.relname FROM pg_trigger t JOIN pg_class c ON c.oid ="
    "   t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE t.tgname LIKE"
    "   'pgshunt\\_guard\\_%%' AND NOT t.tgisinternal AND t.tgparentid = 0 LOOP"
    "  EXECUTE format('DROP TRIGGER %%I ON %%I.%%I', r.tgname, r.nspname, r.relname); END LOOP;"
    " FOR r IN SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'pgshunt'::regnamespace AND"
    "   c.relkind = 'r' AND c.relname LIKE 'ghost\\_%%' LOOP"
    "  EXECUTE format('TRUNCATE pgshunt.%%I', r.relname); END LOOP;"
    " DROP TABLE IF EXISTS pgshunt.epoch, pgshunt.bucket, pgshunt.keyspace, pgshunt.piece,"
    "  pgshunt.bucket_load, pgshunt.ghost, pgshunt.proxy, pgshunt.hold, pgshunt.hold_bucket,"
    "  pgshunt.hold_table, pgshunt.table_rule, pgshunt.job, pgshunt.job_move, pgshunt.job_step,"
    "  pgshunt.job_object, pgshunt.partition_policy, pgshunt.partition_run, pgshunt.chunk,"
    "  pgshunt.applied, pgshunt.owed, pgshunt.marker;"
    " IF to_regclass('pgshunt.decision') IS NOT NULL THEN"
    "  DELETE FROM pgshunt.decision WHERE split_part(gid, ':', 4) = %s; END IF;"
    " END $pgshunt_reset$";

static bool reset_schema(struct reshard *reshard, struct db *clone)
{
    const char *source = shardmap_shard_name(reshard->map, clone_link(reshard).source);
    char *name = PQescapeLiteral(db_connection(clone), source, strlen(source));
    bool good =
        db_run(clone, RESHARD_QUERY_MS, &reshard->error, RESHARD_TEXT(reshard, reset_sql, name), 0);
    PQfreemem(name);
    return good;
}

/* ---- identities ---- */

/* The source's were made FULL before the promotion: so they are here, and must not stay it. */
static bool take_identities(struct reshard *reshard, const struct job *job)
{
    struct link link = clone_link(reshard);
    const char *source = shardmap_shard_name(reshard->map, link.source);
    struct job_object *objects;
    int count;
    if (!job_objects(reshard, job, &objects, &count))
        return false;
    for (int i = 0; i < count; i++)
        if (strcmp(objects[i].kind, "identity") == 0 && strcmp(objects[i].shard, source) == 0 &&
            !job_will_make(reshard, job, link.target, "identity", objects[i].name,
                           objects[i].detail))
            return false;
    return true;
}

/* ---- other tables ---- */

static const char relations_query[] =
    "SELECT n.nspname, c.relname, format('%I.%I', n.nspname, c.relname)"
    " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
    " WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence <> 't'"
    " AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname NOT IN ('information_schema', 'pgshunt')"
    " AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass"
    "  AND d.objid = c.oid AND d.deptype = 'e') ORDER BY 3";

/* Those of other keyspaces, and what is on one shard alone. Reference tables are every shard's. */
static bool is_other(struct reshard *reshard, const char *schema, const char *name)
{
    const struct table_rule *rule = shardmap_table(reshard->map, schema, name);
    if (rule->class == TABLE_REFERENCE || moves_table(&reshard->moves, rule))
        return false;
    return rule->class != TABLE_PINNED || rule->shard != clone_link(reshard).target;
}

/* Foreign keys between them do not matter when they go at once; those of others do. */
static bool empty_tables(struct reshard *reshard, struct db *clone, const char *list,
                         const char *const *names, int count)
{
    if (db_run(clone, EMPTY_MS, &reshard->error, RESHARD_TEXT(reshard, "TRUNCATE %s", list), 0))
        return true;
    if (strcmp(reshard->error.sqlstate, "0A000") != 0)
        return false;
    bool good = db_run(clone, RESHARD_QUERY_MS, &reshard->error,
                       "SET session_replication_role = replica", 0);
    for (int i = 0; good && i < count; i++)
        good = db_run(clone, EMPTY_MS, &reshard->error,
                      RESHARD_TEXT(reshard, "DELETE FROM %s", names[i]), 0);
    return good;
}

static bool empty_others(struct reshard *reshard, struct db *clone)
{
    struct buffer list = {.data = NULL};
    int count = 0;
    PGresult *rows = db_query(clone, RESHARD_QUERY_MS, &reshard->error, relations_query, 0);
    if (!rows)
        return false;
    const char **names = arena_array(&reshard->arena, const char *, PQntuples(rows) + 1);
    for (int i = 0; i < PQntuples(rows); i++) {
        if (!is_other(reshard, PQgetvalue(rows, i, 0), PQgetvalue(rows, i, 1)))
            continue;
        names[count] = RESHARD_TEXT(reshard, "%s", PQgetvalue(rows, i, 2));
        buffer_printf(&list, "%s%s", count ? ", " : "", names[count]);
        count++;
    }
    PQclear(rows);
    const char *all = arena_strndup(&reshard->arena, buffer_head(&list), buffer_length(&list));
    buffer_release(&list);
    return !count || empty_tables(reshard, clone, all, names, count);
}

bool clone_reset(struct reshard *reshard, const struct job *job)
{
    struct db *clone = clone_open(reshard, job);
    bool good = clone && take_identities(reshard, job) && reset_schema(reshard, clone) &&
                empty_others(reshard, clone);
    db_close(clone);
    return good;
}

/* ---- ids ---- */

static void tell_sequence(void *arg, const struct fleet_event *event)
{
    static const enum reshard_event_kind kinds[] = {
        [FLEET_FACT] = RESHARD_FACT, [FLEET_PROBLEM] = RESHARD_PROBLEM,
        [FLEET_NOTE] = RESHARD_NOTE, [FLEET_PLANNED] = RESHARD_PLANNED,
        [FLEET_DONE] = RESHARD_STEP, [FLEET_FAILED] = RESHARD_NOTE,
    };
    reshard_tell(arg, kinds[event->kind], event->shard, event->object, event->text, event->mend);
}

/* Whether sequences were ever interleaved: else they are not here either. */
static bool has_numbers(struct reshard *reshard, bool *has)
{
    struct db *db = reshard_primary(reshard, clone_link(reshard).source);
    PGresult *rows =
        db ? db_query(db, RESHARD_QUERY_MS, &reshard->error,
                      "SELECT to_regprocedure('pgshunt.shard_number()') IS NOT NULL", 0)
           : NULL;
    *has = rows && PQgetvalue(rows, 0, 0)[0] == 't';
    PQclear(rows);
    return rows != NULL;
}

bool clone_number(struct reshard *reshard)
{
    struct fleet_request request = {
        .config = reshard->request->config,
        .database = reshard->request->database,
        .user = reshard->request->user,
        .stop = reshard->request->stop,
        .tell = tell_sequence,
        .arg = reshard,
    };
    bool has;
    if (!has_numbers(reshard, &has))
        return false;
    if (!has) {
        reshard_tell(
            reshard, RESHARD_NOTE, shardmap_shard_name(reshard->map, clone_link(reshard).target),
            "sequences",
            "give the numbers that they give on the other shard, until they are interleaved",
            RESHARD_TEXT(reshard, "pgshuntctl sequences setup %s", reshard->request->database));
        return true;
    }
    for (int i = 0; i < SEQUENCE_TRIES && !reshard_stopped(reshard); i++)
        if (fleet_sequences_setup(&request, 0) == FLEET_OUTCOME_DONE)
            return true;
    return clone_fails(reshard, "55000", "the clone's sequences could not be interleaved",
                       "Run it again when what was said above is mended.");
}
