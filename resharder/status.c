/* status.c: what jobs are and do, told as facts; pausing them. */
#include <stdlib.h>
#include <string.h>

#include "resharder/clone.h"

/* ---- what moves ---- */

/* Moves from one shard to another, of one keyspace, as one line. */
static void tell_moves(struct reshard *reshard, const struct link *link,
                       const struct keyspace *keyspace)
{
    unsigned buckets = 0;
    const char *ranges = "";
    for (int i = 0; i < reshard->moves.count; i++) {
        const struct move *move = &reshard->moves.items[i];
        if (move->keyspace != keyspace || move->source != link->source ||
            move->target != link->target)
            continue;
        const char *range =
            keyspace->map == MAP_HASH
                ? RESHARD_TEXT(reshard, "%u-%u", move->first, move->last)
                : keyspace_buckets_text(keyspace, move->first, move->last, &reshard->arena);
        ranges = RESHARD_TEXT(reshard, "%s%s%s", ranges, buckets ? ", " : "", range);
        buckets += move->last - move->first + 1;
    }
    if (buckets)
        reshard_tell(reshard, RESHARD_FACT, NULL, "moves",
                     RESHARD_TEXT(reshard, "%u buckets of %s from %s to %s (%s)", buckets,
                                  keyspace->name, shardmap_shard_name(reshard->map, link->source),
                                  shardmap_shard_name(reshard->map, link->target), ranges),
                     NULL);
}

static void tell_all_moves(struct reshard *reshard)
{
    int count;
    const struct link *links = moves_links(&reshard->moves, &reshard->arena, &count);
    for (int i = 0; i < count; i++)
        for (unsigned k = 0; k < shardmap_keyspaces(reshard->map); k++)
            tell_moves(reshard, &links[i], shardmap_keyspace(reshard->map, k));
}

/* ---- what was done ---- */

static bool tell_history(struct reshard *reshard, const struct job *job)
{
    PGresult *rows = db_query(reshard_catalog(reshard), RESHARD_QUERY_MS, &reshard->error,
                              "SELECT * FROM (SELECT at::timestamptz(0), step, detail FROM"
                              " pgshunt.job_step WHERE job = $1 ORDER BY at DESC LIMIT 20) s"
                              " ORDER BY at",
                              1, job->name);
    if (!rows)
        return false;
    for (int i = 0; i < PQntuples(rows); i++)
        reshard_tell(
            reshard, RESHARD_FACT, NULL, RESHARD_TEXT(reshard, "%s", PQgetvalue(rows, i, 0)),
            PQgetisnull(rows, i, 2)
                ? PQgetvalue(rows, i, 1)
                : RESHARD_TEXT(reshard, "%s: %s", PQgetvalue(rows, i, 1), PQgetvalue(rows, i, 2)),
            NULL);
    PQclear(rows);
    return true;
}

/* ---- how far the streams are ---- */

/* The slot's reader may be away: then what is not confirmed grows, and this is where it is seen. */
static void tell_slot(struct reshard *reshard, const struct job_object *slot)
{
    int shard = shardmap_shard_by_name(reshard->map, slot->shard);
    struct db *db = shard < 0 ? NULL : reshard_primary(reshard, (unsigned)shard);
    PGresult *rows =
        db ? db_query(db, RESHARD_QUERY_MS, &reshard->error,
                      "SELECT active, pg_size_pretty(pg_wal_lsn_diff(pg_current_wal_lsn(),"
                      " confirmed_flush_lsn)), pg_size_pretty(pg_wal_lsn_diff(pg_current_wal_lsn(),"
                      " restart_lsn)), wal_status, pg_size_pretty(safe_wal_size) FROM "
                      "pg_replication_slots WHERE slot_name = $1",
                      1, slot->name)
           : NULL;
    if (!rows)
        reshard_tell(reshard, RESHARD_PROBLEM, slot->shard, slot->name,
                     RESHARD_TEXT(reshard, "cannot be looked at: %s", reshard->error.text), NULL);
    else if (!PQntuples(rows))
        reshard_tell(reshard, RESHARD_NOTE, slot->shard, slot->name, "the slot is not there", NULL);
    else if (strcmp(PQgetvalue(rows, 0, 3), "lost") == 0)
        reshard_tell(reshard, RESHARD_PROBLEM, slot->shard, slot->name,
                     "it has lost WAL that is still needed (max_slot_wal_keep_size)",
                     RESHARD_TEXT(reshard, "pgshuntctl reshard cancel %s, then create it again",
                                  reshard->request->job));
    else
        reshard_tell(
            reshard, RESHARD_FACT, slot->shard, slot->name,
            RESHARD_TEXT(
                reshard, "%s, %s not confirmed yet, %s of WAL kept (%s%s%s)",
                PQgetvalue(rows, 0, 0)[0] == 't' ? "streaming" : "nobody reads it",
                PQgetvalue(rows, 0, 1), PQgetvalue(rows, 0, 2), PQgetvalue(rows, 0, 3),
                PQgetisnull(rows, 0, 4) ? "" : ", lost after more: ", PQgetvalue(rows, 0, 4)),
            NULL);
    PQclear(rows);
}

static bool tell_slots(struct reshard *reshard, const struct job *job)
{
    struct job_object *objects;
    int count;
    if (!job_objects(reshard, job, &objects, &count))
        return false;
    for (int i = 0; i < count; i++)
        if (strcmp(objects[i].kind, "slot") == 0)
            tell_slot(reshard, &objects[i]);
    return true;
}

/* ---- one job, or all ---- */

static void tell_state(struct reshard *reshard, const struct job *job)
{
    reshard_tell(reshard, RESHARD_FACT, NULL, job->name,
                 RESHARD_TEXT(reshard, "%s%s since %s (created %s)", job_state_name(job->state),
                              job->paused ? ", paused" : "", job->changed_at, job->created_at),
                 NULL);
    if (job->error)
        reshard_tell(reshard, RESHARD_PROBLEM, NULL, job->name, job->error, NULL);
    if (job->state >= JOB_COMPLETING)
        return;
    const char *who = job_runner(reshard, job);
    bool detached = json_is_true(json_object_get(job->options, "detached"));
    reshard_tell(reshard, RESHARD_FACT, NULL, job->name,
                 RESHARD_TEXT(reshard, "%srun by %s", detached ? "left to the proxies, " : "",
                              who ? who : "nobody now"),
                 NULL);
}

static bool tell_job(struct reshard *reshard, const struct job *job, bool whole)
{
    tell_state(reshard, job);
    if (job->tables)
        table_job_tell(reshard, job->tables, RESHARD_FACT);
    if (clone_is(job) && reshard->moves.count)
        clone_tell(reshard, job);
    tell_all_moves(reshard);
    return !whole || (tell_history(reshard, job) && tell_slots(reshard, job));
}

static enum reshard_outcome tell_one(struct reshard *reshard, bool whole)
{
    struct job job;
    enum reshard_outcome outcome = RESHARD_DONE;
    if (!job_open(reshard, &job, &outcome))
        return outcome;
    if (!tell_job(reshard, &job, whole))
        outcome = reshard_fails(reshard, NULL, "cannot read the job");
    job_free(&job);
    return outcome;
}

static enum reshard_outcome tell_all(struct reshard *reshard, struct reshard_request *request)
{
    const char *const *names;
    int count;
    enum reshard_outcome outcome = RESHARD_DONE;
    if (!job_names(reshard, true, &names, &count))
        return reshard_fails(reshard, NULL, "cannot read the jobs");
    for (int i = 0; i < count && outcome == RESHARD_DONE; i++) {
        request->job = names[i];
        outcome = tell_one(reshard, false);
    }
    if (!count)
        reshard_tell(reshard, RESHARD_FACT, NULL, NULL, "there are no jobs", NULL);
    return outcome;
}

enum reshard_outcome reshard_status(const struct reshard_request *request)
{
    struct reshard_request looking = *request;
    struct reshard reshard;
    enum reshard_outcome outcome = RESHARD_UNFINISHED;
    if (reshard_begin(&reshard, &looking))
        outcome = request->job ? tell_one(&reshard, true) : tell_all(&reshard, &looking);
    reshard_end(&reshard);
    return outcome;
}

enum reshard_outcome reshard_pause(const struct reshard_request *request, bool pause)
{
    struct reshard reshard;
    struct job job;
    enum reshard_outcome outcome = RESHARD_UNFINISHED;
    if (reshard_begin(&reshard, request) && job_open(&reshard, &job, &outcome)) {
        outcome = job_set_paused(&reshard, &job, pause)
                      ? RESHARD_DONE
                      : reshard_fails(&reshard, NULL, "cannot change the job");
        if (outcome == RESHARD_DONE)
            job_step(&reshard, &job, pause ? "paused" : "resumed", NULL);
        job_free(&job);
    }
    reshard_end(&reshard);
    return outcome;
}
