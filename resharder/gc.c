/* gc.c: what jobs have left behind, found and removed: after commands that were killed, shards that were away. */
#include <string.h>

#include "resharder/clean.h"
#include "resharder/clone.h"

/* Kinds in the order in which they go: slots keep WAL. */
static const char *const all_kinds[] = {"slot",           "publication", "origin",
                                        "identity",       "guard",       "snapshot",
                                        "first_snapshot", CLONE_OBJECT,  NULL};

/* ---- of jobs that are over ---- */

static bool tell_objects(struct reshard *reshard, const struct job *job, int *found)
{
    struct job_object *objects;
    int count;
    if (!job_objects(reshard, job, &objects, &count))
        return false;
    *found += count;
    for (int i = 0; i < count; i++)
        reshard_tell(reshard, reshard->request->dry_run ? RESHARD_PLANNED : RESHARD_STEP,
                     objects[i].shard, objects[i].kind,
                     RESHARD_TEXT(reshard, "%s of job %s, which is %s, is removed", objects[i].name,
                                  job->name, job_state_name(job->state)),
                     NULL);
    return true;
}

/* `request` is the reshard's own: its job is the one that is looked at. */
static bool clean_jobs(struct reshard *reshard, struct reshard_request *request, int *found)
{
    const char *const *names;
    int count;
    if (!job_names(reshard, true, &names, &count))
        return false;
    for (int i = 0; i < count; i++) {
        struct job job;
        request->job = names[i];
        if (job_load(reshard, &job) != JOB_FOUND)
            return false;
        bool good =
            !job_is_over(&job) || (tell_objects(reshard, &job, found) &&
                                   (request->dry_run || clean_objects(reshard, &job, all_kinds)));
        job_free(&job);
        if (!good)
            return false;
    }
    return true;
}

/* ---- of nobody ---- */

/* Whether a job that is not over has made it: the catalog is asked, for it may have been made just now. */
static bool is_somebodys(struct reshard *reshard, unsigned shard, const char *kind,
                         const char *name, bool *is)
{
    PGresult *rows = db_query(reshard_catalog(reshard), RESHARD_QUERY_MS, &reshard->error,
                              "SELECT FROM pgshunt.job_object o JOIN pgshunt.job j ON j.name ="
                              " o.job WHERE o.shard = $1 AND o.kind = $2 AND o.name = $3 AND"
                              " j.database = $4",
                              4, shardmap_shard_name(reshard->map, shard), kind, name,
                              reshard->request->database);
    *is = rows && PQntuples(rows) > 0;
    PQclear(rows);
    return rows != NULL;
}

static bool drop_publication(struct db *db, const char *name, struct db_error *error)
{
    char *quoted = PQescapeIdentifier(db_connection(db), name, strlen(name));
    char sql[256];
    snprintf(sql, sizeof sql, "DROP PUBLICATION IF EXISTS %s", quoted);
    PQfreemem(quoted);
    return db_run(db, RESHARD_QUERY_MS, error, sql, 0);
}

/* Names are ours by their beginning; slots and publications of this database alone. */
static const struct orphans {
    const char *kind, *query;
    bool (*drop)(struct db *db, const char *name, struct db_error *error);
} orphans[] = {
    {"slot",
     "SELECT slot_name FROM pg_replication_slots WHERE slot_name LIKE 'pgshunt\\_%' AND database ="
     " current_database() AND NOT temporary",
     clean_slot},
    {"publication", "SELECT pubname FROM pg_publication WHERE pubname LIKE 'pgshunt\\_%'",
     drop_publication},
};

static bool clean_orphan(struct reshard *reshard, unsigned shard, const struct orphans *kind,
                         const char *name, int *found)
{
    bool is;
    if (!is_somebodys(reshard, shard, kind->kind, name, &is))
        return false;
    if (is)
        return true;
    ++*found;
    reshard_tell(reshard, reshard->request->dry_run ? RESHARD_PLANNED : RESHARD_STEP,
                 shardmap_shard_name(reshard->map, shard), kind->kind,
                 RESHARD_TEXT(reshard, "%s of no job is removed", name), NULL);
    return reshard->request->dry_run ||
           kind->drop(reshard_primary(reshard, shard), name, &reshard->error);
}

static bool clean_orphans(struct reshard *reshard, unsigned shard, const struct orphans *kind,
                          int *found)
{
    struct db *db = reshard_primary(reshard, shard);
    PGresult *rows = db ? db_query(db, RESHARD_QUERY_MS, &reshard->error, kind->query, 0) : NULL;
    bool good = rows != NULL;
    for (int i = 0; good && i < PQntuples(rows); i++)
        good = clean_orphan(reshard, shard, kind, PQgetvalue(rows, i, 0), found);
    PQclear(rows);
    return good;
}

static bool clean_shards(struct reshard *reshard, int *found)
{
    for (unsigned shard = 0; shard < shardmap_shards(reshard->map); shard++)
        for (size_t kind = 0; kind < sizeof orphans / sizeof *orphans; kind++)
            if (!clean_orphans(reshard, shard, &orphans[kind], found))
                return false;
    return true;
}

enum reshard_outcome reshard_gc(const struct reshard_request *request)
{
    struct reshard_request own = *request;
    struct reshard reshard;
    int found = 0;
    enum reshard_outcome outcome = RESHARD_UNFINISHED;
    if (reshard_begin(&reshard, &own)) {
        outcome = clean_jobs(&reshard, &own, &found) && clean_shards(&reshard, &found)
                      ? RESHARD_DONE
                      : reshard_fails(&reshard, NULL, "cannot look for what is left behind");
        if (outcome == RESHARD_DONE && !found)
            reshard_tell(&reshard, RESHARD_FACT, NULL, NULL, "nothing was left behind", NULL);
    }
    reshard_end(&reshard);
    return outcome;
}
