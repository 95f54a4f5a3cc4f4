/* expire.c: old partitions detached beside a working application, then dropped, kept or archived. */
#include "partition/expire.h"

#include <stdio.h>
#include <string.h>

#include "partition/attempt.h"
#include "partition/export.h"
#include "pgshunt/failpoint.h"

/* A partition on its way. */
struct leaving {
    struct shard_work *shard;
    const char *shown;  /* its table, for people */
    const char *parent; /* quoted; NULL: detached already */
    const char *parent_oid;
    const char *schema, *name, *oid;
    const char *quoted;
    enum expiry expiry;
    const char *archive;
    const char *bound;         /* that the server forgets when it is detached */
    const char *export_format; /* EXPIRY_EXPORT, as the next */
    const char **parts;        /* EXPIRY_ARCHIVE: what it is divided into, at any depth; quoted */
    int nparts;
    bool keep_table;
};

static bool fails(const struct leaving *leaving, const char *what)
{
    struct shard_work *shard = leaving->shard;
    if (work_stopped(shard->work))
        return false;
    return work_fails(shard->work, (int)shard->shard, leaving->shown,
                      arena_printf(&shard->arena, "%s %s", what, leaving->name), &shard->error);
}

/* ---- (1) and (4): the record ---- */

static const char leaving_sql[] =
    "CREATE SCHEMA IF NOT EXISTS pgshunt; CREATE TABLE IF NOT EXISTS pgshunt.partition_leaving "
    "(oid oid PRIMARY KEY, parent oid NOT NULL, shown text NOT NULL, action text NOT NULL, "
    "archive text, at timestamptz NOT NULL DEFAULT now()); ALTER TABLE pgshunt.partition_leaving "
    "ADD COLUMN IF NOT EXISTS bound text, ADD COLUMN IF NOT EXISTS export_format text, "
    "ADD COLUMN IF NOT EXISTS keep_table boolean";

/* `column`: earlier versions had fewer. */
static bool has_record(struct shard_work *shard, const char *column, bool *has)
{
    PGresult *rows =
        db_query(shard->db, WORK_QUERY_MS, &shard->error,
                 "SELECT EXISTS (SELECT FROM pg_attribute WHERE attrelid = "
                 "to_regclass('pgshunt.partition_leaving') AND attname = $1 AND NOT attisdropped)",
                 1, column);
    *has = rows && PQgetvalue(rows, 0, 0)[0] == 't';
    PQclear(rows);
    return rows != NULL;
}

static bool record(struct leaving *leaving)
{
    bool has;
    struct shard_work *shard = leaving->shard;
    if (!has_record(shard, "keep_table", &has) ||
        (!has && !db_run(shard->db, WORK_QUERY_MS, &shard->error, leaving_sql, 0)))
        return false;
    PGresult *rows =
        db_query(shard->db, WORK_QUERY_MS, &shard->error,
                 "INSERT INTO pgshunt.partition_leaving (oid, parent, shown, action, archive, "
                 "export_format, keep_table, bound) VALUES ($1, $2, $3, $4, $5, $6, $7, (SELECT "
                 "pg_get_expr(relpartbound, oid) FROM pg_class WHERE oid = $1)) ON CONFLICT (oid) "
                 "DO UPDATE SET action = $4, archive = $5, export_format = $6, keep_table = $7, "
                 "bound = excluded.bound RETURNING bound",
                 7, leaving->oid, leaving->parent_oid, leaving->shown, expiry_name(leaving->expiry),
                 leaving->archive, leaving->export_format, leaving->keep_table ? "t" : "f");
    if (rows)
        leaving->bound = arena_strdup(&shard->arena, PQgetvalue(rows, 0, 0));
    PQclear(rows);
    return rows != NULL;
}

static bool strike_out(const struct leaving *leaving)
{
    return db_run(leaving->shard->db, WORK_QUERY_MS, &leaving->shard->error,
                  "DELETE FROM pgshunt.partition_leaving WHERE oid = $1", 1, leaving->oid);
}

/* ---- (2): detached ---- */

/* What its DROP or DETACH wants locks on: the tables of its foreign keys, too. */
static const char *oids_of(const struct leaving *leaving)
{
    struct shard_work *shard = leaving->shard;
    struct db_error ignored;
    const char *oids = arena_printf(&shard->arena, "{%s}", leaving->oid);
    PGresult *rows = db_query(
        shard->db, WORK_QUERY_MS, &ignored,
        "SELECT array_agg(oid) FROM (SELECT $1::oid UNION SELECT relid FROM "
        "pg_partition_tree($1::oid::regclass) UNION SELECT inhparent FROM pg_inherits WHERE "
        "inhrelid = $1 UNION SELECT confrelid FROM pg_constraint WHERE conrelid = $1 AND contype = "
        "'f' UNION SELECT partdefid FROM pg_inherits JOIN pg_partitioned_table ON partrelid = "
        "inhparent WHERE inhrelid = $1 AND partdefid <> 0) AS t(oid)",
        1, leaving->oid);
    if (rows)
        oids = arena_strdup(&shard->arena, PQgetvalue(rows, 0, 0));
    PQclear(rows);
    return oids;
}

static bool finalize(const struct leaving *leaving)
{
    return attempt(leaving->shard,
                   arena_printf(&leaving->shard->arena,
                                "ALTER TABLE %s DETACH PARTITION %s FINALIZE", leaving->parent,
                                leaving->quoted),
                   oids_of(leaving));
}

static bool is_pending(const struct leaving *leaving)
{
    struct db_error ignored;
    PGresult *rows = db_query(leaving->shard->db, WORK_QUERY_MS, &ignored,
                              "SELECT FROM pg_inherits WHERE inhrelid = $1 AND inhdetachpending", 1,
                              leaving->oid);
    bool pending = rows && PQntuples(rows) > 0;
    PQclear(rows);
    return pending;
}

/*
 * Concurrently where the server can: that takes no lock that readers or writers of the parent would wait for. It waits for the
 * transactions that use the partition; when it had to give up there, what is left to do is FINALIZE.
 */
static bool detach(const struct leaving *leaving, bool concurrently)
{
    struct shard_work *shard = leaving->shard;
    const char *sql =
        arena_printf(&shard->arena, "ALTER TABLE %s DETACH PARTITION %s%s", leaving->parent,
                     leaving->quoted, concurrently ? " CONCURRENTLY" : "");
    if (attempt(shard, sql, oids_of(leaving)))
        return true;
    struct db_error error = shard->error;
    if (concurrently && db_is_open(shard->db) && is_pending(leaving))
        return finalize(leaving);
    shard->error = error;
    return false;
}

/* ---- (3): what becomes of it ---- */

static const char *action_text(const struct leaving *leaving)
{
    struct arena *arena = &leaving->shard->arena;
    if (leaving->expiry == EXPIRY_DROP)
        return arena_printf(arena, "DROP TABLE %s", leaving->quoted);
    const char *schema = work_quote(arena, leaving->archive ? leaving->archive : "");
    const char *parts = ""; /* they do not go with it by themselves */
    for (int i = 0; i < leaving->nparts; i++)
        parts = arena_printf(arena, "%s; ALTER TABLE %s SET SCHEMA %s", parts, leaving->parts[i],
                             schema);
    return arena_printf(arena, "CREATE SCHEMA IF NOT EXISTS %s%s; ALTER TABLE %s SET SCHEMA %s",
                        schema, parts, leaving->quoted, schema);
}

static const char *became(const struct leaving *leaving)
{
    struct arena *arena = &leaving->shard->arena;
    if (leaving->expiry == EXPIRY_ARCHIVE)
        return arena_printf(arena, "moved to schema %s", leaving->archive);
    return leaving->expiry == EXPIRY_DROP ? "dropped" : "detached";
}

/* Where it is exported, and whether that is dropped: nothing of it is lost when it cannot be. */
static bool finish_export(const struct leaving *leaving)
{
    struct shard_work *shard = leaving->shard;
    struct exporting exporting = {
        .shown = leaving->shown,
        .schema = leaving->schema,
        .name = leaving->name,
        .quoted = leaving->quoted,
        .oid = leaving->oid,
        .bound = leaving->bound,
        .directory = leaving->archive,
        .format = leaving->export_format,
        .keep_table = leaving->keep_table,
        .oids = oids_of(leaving),
    };
    if (!export_partition(shard, &exporting)) {
        if (!shard->error.hint[0])
            snprintf(shard->error.hint, sizeof shard->error.hint,
                     "all of its rows are in that table, detached; the next run tries again");
        return fails(leaving, "cannot export and drop");
    }
    work_tell(shard->work, FLEET_DONE, (int)shard->shard, leaving->shown,
              arena_printf(&shard->arena, "exported %s, %lld rows, to %s%s", leaving->name,
                           (long long)exporting.rows, exporting.file,
                           leaving->keep_table ? "; the table stays" : ", and dropped it"),
              NULL);
    return true;
}

static const char *copy(struct shard_work *shard, const PGresult *rows, int row, int column)
{
    return PQgetisnull(rows, row, column)
               ? NULL
               : arena_strdup(&shard->arena, PQgetvalue(rows, row, column));
}

static bool find_parts(struct leaving *leaving)
{
    struct shard_work *shard = leaving->shard;
    if (leaving->expiry != EXPIRY_ARCHIVE)
        return true;
    PGresult *rows = db_query(
        shard->db, WORK_QUERY_MS, &shard->error,
        "SELECT format('%I.%I', nspname, relname) FROM pg_partition_tree($1::oid::regclass) JOIN "
        "pg_class AS c ON c.oid = relid JOIN pg_namespace AS n ON n.oid = relnamespace WHERE c.oid "
        "<> $1::oid",
        1, leaving->oid);
    leaving->nparts = rows ? PQntuples(rows) : 0;
    leaving->parts = arena_array(&shard->arena, const char *, leaving->nparts + 1);
    for (int i = 0; i < leaving->nparts; i++)
        leaving->parts[i] = copy(shard, rows, i, 0);
    PQclear(rows);
    return rows != NULL;
}

static bool finish(struct leaving *leaving)
{
    struct shard_work *shard = leaving->shard;
    if (leaving->expiry == EXPIRY_EXPORT)
        return finish_export(leaving);
    if (!find_parts(leaving))
        return fails(leaving, "detached, but cannot move");
    if (leaving->expiry != EXPIRY_DETACH && !attempt(shard, action_text(leaving), oids_of(leaving)))
        return fails(leaving, leaving->expiry == EXPIRY_DROP ? "detached, but cannot drop"
                                                             : "detached, but cannot move");
    failpoint("partition_gone");
    if (!strike_out(leaving))
        return fails(leaving, "cannot strike out");
    failpoint("partition_struck_out");
    work_tell(shard->work, FLEET_DONE, (int)shard->shard, leaving->shown,
              arena_printf(&shard->arena, "%s %s", became(leaving), leaving->name), NULL);
    return true;
}

/* ---- leftovers ---- */

/* Whether it is still attached, and how. */
static const char leftovers_sql[] =
    "SELECT l.oid, l.shown, l.action, l.archive, n.nspname, c.relname,"
    " quote_ident(pn.nspname) || '.' || quote_ident(pc.relname), c.oid IS NULL,"
    " i.inhparent IS NOT NULL AND NOT coalesce((to_jsonb(i) ->> 'inhdetachpending')::boolean, "
    "false),"
    " i.inhparent, to_jsonb(l) ->> 'bound', to_jsonb(l) ->> 'export_format',"
    " to_jsonb(l) ->> 'keep_table'"
    " FROM pgshunt.partition_leaving AS l LEFT JOIN pg_class AS c ON c.oid = l.oid"
    " LEFT JOIN pg_namespace AS n ON n.oid = c.relnamespace"
    " LEFT JOIN pg_inherits AS i ON i.inhrelid = c.oid AND i.inhparent = l.parent"
    " LEFT JOIN pg_class AS pc ON pc.oid = i.inhparent"
    " LEFT JOIN pg_namespace AS pn ON pn.oid = pc.relnamespace ORDER BY l.at";

enum {
    OID,
    SHOWN,
    ACTION,
    ARCHIVE,
    SCHEMA,
    NAME,
    PARENT,
    GONE,
    ATTACHED,
    PARENT_OID,
    BOUND,
    EXPORT_FORMAT,
    KEEP_TABLE,
};

static struct leaving leftover(struct shard_work *shard, const PGresult *rows, int row)
{
    struct leaving leaving = {
        .shard = shard,
        .oid = copy(shard, rows, row, OID),
        .shown = copy(shard, rows, row, SHOWN),
        .archive = copy(shard, rows, row, ARCHIVE),
        .schema = copy(shard, rows, row, SCHEMA),
        .name = copy(shard, rows, row, NAME),
        .parent = PQgetisnull(rows, row, PARENT_OID) ? NULL : copy(shard, rows, row, PARENT),
        .bound = copy(shard, rows, row, BOUND),
        .export_format = copy(shard, rows, row, EXPORT_FORMAT),
        .keep_table = PQgetvalue(rows, row, KEEP_TABLE)[0] == 't',
    };
    if (leaving.name)
        leaving.quoted =
            arena_printf(&shard->arena, "%s.%s", work_quote(&shard->arena, leaving.schema),
                         work_quote(&shard->arena, leaving.name));
    return leaving;
}

/* Early on what is quick, so that a table's inserts do not fail any longer than they must; files are written in the end. */
static void finish_early(struct leaving *leaving, const PGresult *rows, int row)
{
    struct shard_work *shard = leaving->shard;
    bool over = PQgetvalue(rows, row, GONE)[0] == 't' || PQgetvalue(rows, row, ATTACHED)[0] == 't';
    if (over) {
        if (!strike_out(leaving))
            fails(leaving, "cannot strike out");
        return;
    }
    if (!expiry_by_name(PQgetvalue(rows, row, ACTION), &leaving->expiry)) {
        work_tell(shard->work, FLEET_FAILED, (int)shard->shard, leaving->shown,
                  arena_printf(&shard->arena, "%s was to leave in a way that is not understood",
                               leaving->name),
                  "is another version of pgshunt at work?");
        return;
    }
    if (leaving->parent && !finalize(leaving)) {
        fails(leaving, "cannot finish the detaching of");
        return;
    }
    failpoint("partition_leftover");
    if (leaving->expiry != EXPIRY_EXPORT && !finish(leaving))
        return; /* told; it stays recorded */
}

static void finish_late(struct leaving *leaving, const PGresult *rows, int row)
{
    if (PQgetvalue(rows, row, GONE)[0] == 'f' && PQgetvalue(rows, row, ATTACHED)[0] == 'f' &&
        !leaving->parent && expiry_by_name(PQgetvalue(rows, row, ACTION), &leaving->expiry) &&
        leaving->expiry == EXPIRY_EXPORT && !finish(leaving))
        return; /* told; it stays recorded */
}

void expire_leftovers(struct shard_work *shard, bool late)
{
    bool has;
    if (shard->work->call->fleet.dry_run || !has_record(shard, "oid", &has) || !has)
        return;
    PGresult *rows = db_query(shard->db, WORK_QUERY_MS, &shard->error, leftovers_sql, 0);
    int i, count = rows ? PQntuples(rows) : 0;
    for (i = 0; i < count && work_goes_on(shard->work); i++) {
        struct leaving leaving = leftover(shard, rows, i);
        if (late)
            finish_late(&leaving, rows, i);
        else
            finish_early(&leaving, rows, i);
    }
    if (i < count && work_late(shard->work))
        work_tell(shard->work, FLEET_FAILED, (int)shard->shard, NULL,
                  arena_printf(&shard->arena,
                               "the time of the run is up: %d partitions on their way are left",
                               count - i),
                  "the next run goes on with them");
    if (!rows)
        work_fails(shard->work, (int)shard->shard, NULL, "cannot read what is left to be done",
                   &shard->error);
    PQclear(rows);
}

/* ---- a table's ---- */

static struct leaving leaving_of(struct shard_work *shard, const struct policy *policy,
                                 const struct parent *parent, const struct have *have)
{
    struct arena *arena = &shard->arena;
    return (struct leaving){
        .shard = shard,
        .shown = policy->shown,
        .parent = policy->quoted,
        .parent_oid = parent->oid,
        .schema = have->schema,
        .name = have->name,
        .oid = have->oid,
        .quoted = arena_printf(arena, "%s.%s", work_quote(arena, have->schema),
                               work_quote(arena, have->name)),
        .expiry = policy->expiry,
        .archive = policy->archive,
        .export_format = policy->export_format,
        .keep_table = policy->keep_table,
    };
}

void expire_pending(struct shard_work *shard, const struct policy *policy, struct parent *parent)
{
    for (int i = 0; i < parent->nhave && work_goes_on(shard->work); i++) {
        struct leaving leaving = leaving_of(shard, policy, parent, &parent->have[i]);
        if (!parent->have[i].pending)
            continue;
        if (shard->work->call->fleet.dry_run)
            work_tell(shard->work, FLEET_PLANNED, (int)shard->shard, policy->shown,
                      arena_printf(&shard->arena, "finish the detaching of %s", leaving.name),
                      NULL);
        else if (!finalize(&leaving))
            fails(&leaving, "cannot finish the detaching of");
        else
            work_tell(shard->work, FLEET_DONE, (int)shard->shard, policy->shown,
                      arena_printf(&shard->arena, "finished the detaching of %s", leaving.name),
                      NULL);
    }
}

static void plan_one(const struct leaving *leaving)
{
    struct shard_work *shard = leaving->shard;
    struct arena *arena = &shard->arena;
    const char *text =
        leaving->expiry == EXPIRY_DROP ? arena_printf(arena, "drop %s", leaving->name)
        : leaving->expiry == EXPIRY_ARCHIVE
            ? arena_printf(arena, "move %s to schema %s", leaving->name, leaving->archive)
        : leaving->expiry == EXPIRY_EXPORT
            ? arena_printf(arena, "detach %s, export it to %s%s", leaving->name, leaving->archive,
                           leaving->keep_table ? "" : ", and drop it")
            : arena_printf(arena, "detach %s", leaving->name);
    work_tell(shard->work, FLEET_PLANNED, (int)shard->shard, leaving->shown, text, NULL);
}

static bool expire_one(struct leaving *leaving, bool concurrently)
{
    if (leaving->expiry == EXPIRY_EXPORT && !export_probe(leaving->shard, leaving->archive))
        return fails(leaving, "cannot export, and so did not detach");
    if (!record(leaving))
        return fails(leaving, "cannot record the expiry of");
    failpoint("partition_recorded");
    if (detach(leaving, concurrently)) {
        failpoint("partition_detached");
        return finish(leaving);
    }
    struct db_error error = leaving->shard->error;
    /* Still attached: what somebody does with it from now on is not ours to finish. */
    bool kept = db_is_open(leaving->shard->db) && !is_pending(leaving) && strike_out(leaving);
    leaving->shard->error = error;
    return fails(leaving, kept ? "cannot detach" : "cannot finish to detach");
}

int expire_partitions(struct shard_work *shard, const struct policy *policy, struct parent *parent,
                      int64_t line)
{
    int gone = 0, left = 0;
    bool has_default = parent->nhave && parent->have[parent->nhave - 1].is_default;
    bool concurrently = !has_default && PQserverVersion(db_connection(shard->db)) >= 140000;
    for (int i = 0; i < parent->nhave && !work_stopped(shard->work); i++) {
        if (!plan_has_expired(parent->have, parent->nhave, i, line))
            continue;
        if (work_late(shard->work)) {
            left++;
            continue;
        }
        struct leaving leaving = leaving_of(shard, policy, parent, &parent->have[i]);
        if (shard->work->call->fleet.dry_run)
            plan_one(&leaving);
        else
            gone += expire_one(&leaving, concurrently);
    }
    if (left)
        work_tell(shard->work, FLEET_FAILED, (int)shard->shard, policy->shown,
                  arena_printf(&shard->arena,
                               "the time of the run is up: %d partitions that have expired are "
                               "still there",
                               left),
                  "the next run goes on with them");
    return gone;
}
