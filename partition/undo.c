/* undo.c: a partitioned table made a plain one again, shard by shard, and its policy ended when all are. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "partition/attempt.h"
#include "partition/expire.h"
#include "partition/shape.h"
#include "pgshunt/failpoint.h"

#define ROWS_MAX 1000000                    /* of a shard, unless forced */
#define MOVE_MS (INT64_C(24) * 3600 * 1000) /* for however many there are */
#define TEXT_OF(number) #number
#define TEXT(number) TEXT_OF(number)

struct undoing {
    struct work work;
    struct policy policy;
    bool has_policy, force;
    bool *partitioned; /* by shard */
};

/* ---- looking ---- */

/* $1: the table. One row each: what is wrong, and what mends it. */
static const char problems_sql[] =
    "SELECT format('foreign key %I of %s refers to it', conname, conrelid::regclass), "
    "format('ALTER TABLE %s DROP CONSTRAINT %I, and add it again afterwards', conrelid::regclass, "
    "conname) FROM pg_constraint WHERE confrelid = $1::oid AND contype = 'f' AND conparentid = 0"
    " UNION ALL SELECT DISTINCT format('%s %s depends on it', CASE v.relkind WHEN 'm' THEN "
    "'materialized view' ELSE 'view' END, v.oid::regclass), 'drop it, and make it again afterwards'"
    " FROM pg_depend AS d JOIN pg_rewrite AS r ON r.oid = d.objid JOIN pg_class AS v ON v.oid = "
    "r.ev_class WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass "
    "AND d.refobjid = $1::oid AND v.oid <> $1::oid"
    " UNION ALL SELECT 'it is a partition of another table', 'ALTER TABLE ... DETACH PARTITION' "
    "WHERE EXISTS (SELECT FROM pg_inherits WHERE inhrelid = $1::oid)"
    " UNION ALL SELECT format('%s may not change it', quote_ident(current_user)), format('call "
    "this as a member of %I (--user), or GRANT %I TO %I', pg_get_userbyid(relowner), "
    "pg_get_userbyid(relowner), current_user) FROM pg_class WHERE oid = $1::oid AND NOT "
    "pg_has_role(relowner, 'MEMBER')";

static bool has_many_rows(struct shard_work *shard, const struct policy *policy, bool *many)
{
    PGresult *rows = db_query(
        shard->db, WORK_QUERY_MS, &shard->error,
        arena_printf(&shard->arena,
                     "SELECT count(*) > " TEXT(ROWS_MAX) " FROM (SELECT FROM %s LIMIT " TEXT(
                         ROWS_MAX) " + 1) AS t",
                     policy->quoted),
        0);
    *many = rows && PQgetvalue(rows, 0, 0)[0] == 't';
    PQclear(rows);
    return rows != NULL;
}

/* False: it could not be looked at. */
static bool check(struct shard_work *shard, const struct parent *parent)
{
    const struct undoing *undoing = shard->task;
    const struct policy *policy = &undoing->policy;
    bool many = false;
    PGresult *rows =
        db_query(shard->db, WORK_QUERY_MS, &shard->error, problems_sql, 1, parent->oid);
    if (!rows || (!undoing->force && !has_many_rows(shard, policy, &many))) {
        PQclear(rows);
        return work_fails(shard->work, (int)shard->shard, policy->shown, "cannot look at it",
                          &shard->error);
    }
    for (int i = 0; i < PQntuples(rows); i++)
        work_tell(shard->work, FLEET_PROBLEM, (int)shard->shard, policy->shown,
                  PQgetvalue(rows, i, 0), PQgetvalue(rows, i, 1));
    PQclear(rows);
    if (many)
        work_tell(shard->work, FLEET_PROBLEM, (int)shard->shard, policy->shown,
                  "it has more than " TEXT(
                      ROWS_MAX) " rows, and whoever reads or writes it waits until all are moved",
                  "--force, when that may be");
    return true;
}

static void look_task(struct shard_work *shard)
{
    const struct undoing *undoing = shard->task;
    const struct policy *policy = &undoing->policy;
    struct parent parent;
    enum place place = work_place(shard->work, policy->schema, policy->table, shard->shard);
    if (!look_parents(shard, policy, 1, &parent)) {
        work_fails(shard->work, (int)shard->shard, policy->shown, "cannot look at it",
                   &shard->error);
        return;
    }
    if (place == PLACE_NONE)
        return;
    if (parent.kind == PARENT_MISSING && place == PLACE_MUST)
        work_tell(shard->work, FLEET_PROBLEM, (int)shard->shard, policy->shown,
                  "there is no such table",
                  undoing->has_policy ? "pgshuntctl partition drop-policy, if it is gone for good"
                                      : NULL);
    if (parent.kind == PARENT_OTHER)
        work_tell(shard->work, FLEET_PROBLEM, (int)shard->shard, policy->shown, parent.why,
                  "only tables partitioned by ranges of one column are undone");
    if (parent.kind != PARENT_GOOD)
        return;
    undoing->partitioned[shard->shard] = check(shard, &parent);
}

/* ---- doing ---- */

static const char *oids_of(struct shard_work *shard, const struct parent *parent)
{
    struct db_error ignored;
    const char *oids = arena_printf(&shard->arena, "{%s}", parent->oid);
    PGresult *rows = db_query(
        shard->db, WORK_QUERY_MS, &ignored,
        "SELECT array_agg(oid) FROM (SELECT relid::oid FROM pg_partition_tree($1::oid::regclass) "
        "UNION SELECT confrelid FROM pg_constraint WHERE conrelid = $1::oid AND contype = 'f') "
        "AS t(oid)",
        1, parent->oid);
    if (rows && !PQgetisnull(rows, 0, 0))
        oids = arena_strdup(&shard->arena, PQgetvalue(rows, 0, 0));
    PQclear(rows);
    return oids;
}

static void undo_task(struct shard_work *shard)
{
    const struct undoing *undoing = shard->task;
    const struct policy *policy = &undoing->policy;
    struct parent parent;
    if (!undoing->partitioned[shard->shard])
        return;
    bool looked = look_parents(shard, policy, 1, &parent);
    if (looked && parent.kind == PARENT_GOOD)
        expire_pending(shard, policy, &parent);
    const char *sql = looked && parent.kind == PARENT_GOOD
                          ? shape_plain_statements(shard, policy, &parent)
                          : NULL;
    if (sql && attempt_within(shard, sql, oids_of(shard, &parent), MOVE_MS))
        work_tell(shard->work, FLEET_DONE, (int)shard->shard, policy->shown,
                  "made it a plain table, with all of its rows", NULL);
    else if (!work_stopped(shard->work))
        work_fails(shard->work, (int)shard->shard, policy->shown, "cannot make it a plain table",
                   &shard->error);
    failpoint("undone");
}

static void plan(struct undoing *undoing)
{
    struct work *work = &undoing->work;
    for (int i = 0; i < work->database->nshards; i++)
        if (undoing->partitioned[i])
            work_tell(work, FLEET_PLANNED, i, undoing->policy.shown, "make it a plain table", NULL);
    if (undoing->has_policy)
        work_tell(work, FLEET_PLANNED, -1, undoing->policy.shown, "forget its policy", NULL);
}

/* The policy goes last: until then another run finds what it was, and what is left to be done. */
static void end_policy(struct undoing *undoing)
{
    struct work *work = &undoing->work;
    if (!undoing->has_policy)
        return;
    if (policy_remove(work, &undoing->policy))
        work_tell(work, FLEET_DONE, -1, undoing->policy.shown, "it has no policy any more", NULL);
    else
        work_fails(work, -1, undoing->policy.shown, "cannot remove its policy", &work->error);
}

static bool begin(struct undoing *undoing, const struct partition_call *call)
{
    struct policy *policies;
    int count;
    struct work *work = &undoing->work;
    if (!work_begin(work, call) || (!call->fleet.dry_run && !work_lock(work)))
        return false;
    if (!policy_read(work, &policies, &count))
        return work_fails(work, -1, NULL, "cannot read the policies", &work->error);
    undoing->has_policy = count > 0;
    if (count)
        undoing->policy = policies[0];
    else
        policy_name(work, call->table, &undoing->policy);
    undoing->partitioned = arena_array(&work->arena, bool, work->database->nshards);
    return true;
}

/* Where something stands in the way on one shard, nothing is done on any; one that is away keeps the others from nothing. */
static void carry_out(struct undoing *undoing)
{
    struct work *work = &undoing->work;
    int problems = work->problems;
    work_on_shards(work, look_task, undoing);
    if (work->problems > problems || work_stopped(work))
        return;
    if (work->call->fleet.dry_run) {
        plan(undoing);
        return;
    }
    work_on_shards(work, undo_task, undoing);
    if (!work->failed && !work_stopped(work))
        end_policy(undoing);
}

enum fleet_outcome partition_undo(const struct partition_call *call, bool force)
{
    struct undoing undoing = {.force = force};
    if (begin(&undoing, call))
        carry_out(&undoing);
    enum fleet_outcome outcome = work_outcome(&undoing.work);
    work_end(&undoing.work);
    return outcome;
}
