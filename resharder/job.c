/* job.c: a job's rows in the catalog. */
#include "resharder/job.h"

#include <stdlib.h>
#include <string.h>

static const char *const state_names[] = {
    [JOB_CREATED] = "created",       [JOB_COPYING] = "copying",       [JOB_INDEXING] = "indexing",
    [JOB_STREAMING] = "streaming",   [JOB_SWITCHING] = "switching",   [JOB_SWITCHED] = "switched",
    [JOB_ROLLING] = "rolling_back",  [JOB_COMPLETING] = "completing", [JOB_COMPLETED] = "completed",
    [JOB_CANCELLING] = "cancelling", [JOB_CANCELLED] = "cancelled",
};

const char *job_state_name(enum job_state state)
{
    return state_names[state];
}

static bool state_of(const char *name, enum job_state *state)
{
    for (int i = 0; i < JOB_STATES; i++)
        if (strcmp(state_names[i], name) == 0) {
            *state = (enum job_state)i;
            return true;
        }
    return false;
}

bool job_name_is_valid(const char *name)
{
    size_t length = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_");
    return name[0] >= 'a' && name[0] <= 'z' && !name[length] && length <= 21;
}

/* One statement on the catalog, with text parameters behind. NULL: reshard->error. */
#define ASK(reshard, ...)                                                                          \
    (reshard_catalog(reshard)                                                                      \
         ? db_query(reshard_catalog(reshard), RESHARD_QUERY_MS, &(reshard)->error, __VA_ARGS__)    \
         : NULL)
#define RUN(reshard, ...)                                                                          \
    (reshard_catalog(reshard) &&                                                                   \
     db_run(reshard_catalog(reshard), RESHARD_QUERY_MS, &(reshard)->error, __VA_ARGS__))

/* Fails as a statement would that has found no row. */
static bool refuse(struct reshard *reshard, const char *sqlstate, const char *text)
{
    reshard->error = (struct db_error){.hint = ""};
    snprintf(reshard->error.text, sizeof reshard->error.text, "%s", text);
    snprintf(reshard->error.sqlstate, sizeof reshard->error.sqlstate, "%s", sqlstate);
    return false;
}

static const char *cell(struct reshard *reshard, const PGresult *rows, int row, int column)
{
    return PQgetisnull(rows, row, column)
               ? NULL
               : arena_strdup(&reshard->arena, PQgetvalue(rows, row, column));
}

/* The same, where `before` will do if it is the same: a job is looked at for weeks. */
static const char *cell_or(struct reshard *reshard, const PGresult *rows, int column,
                           const char *before)
{
    bool same =
        before && !PQgetisnull(rows, 0, column) && strcmp(before, PQgetvalue(rows, 0, column)) == 0;
    return same ? before : cell(reshard, rows, 0, column);
}

/* ---- creating ---- */

/* As JSON, which one statement turns into rows. */
static char *moves_json(const struct moves *moves)
{
    json_t *array = json_array();
    for (int i = 0; i < moves->count; i++) {
        const struct move *move = &moves->items[i];
        json_array_append_new(
            array, json_pack("{s:s, s:i, s:i, s:s, s:s}", "keyspace", move->keyspace->name, "first",
                             (int)move->first, "last", (int)move->last, "source",
                             shardmap_shard_name(moves->map, move->source), "target",
                             shardmap_shard_name(moves->map, move->target)));
    }
    char *text = json_dumps(array, JSON_COMPACT);
    json_decref(array);
    return text;
}

bool job_create(struct reshard *reshard, const char *name, const struct moves *moves,
                const json_t *options)
{
    char *moving = moves_json(moves), *wishes = json_dumps(options, JSON_COMPACT);
    bool made = RUN(reshard,
                    "WITH made AS (INSERT INTO pgshunt.job (name, database, kind, state, options)"
                    " VALUES ($1, $2, $5, 'created', $3::jsonb) RETURNING name),"
                    " moves AS (INSERT INTO pgshunt.job_move (job, keyspace, first, last, source,"
                    " target) SELECT made.name, m.* FROM made, jsonb_to_recordset($4::jsonb) AS"
                    " m(keyspace text, first int, last int, source text, target text))"
                    " INSERT INTO pgshunt.job_step (job, step) SELECT name, 'created' FROM made",
                    5, name, reshard->request->database, wishes, moving,
                    moves->tables ? TABLE_JOB_KIND : "reshard");
    free(moving);
    free(wishes);
    return made;
}

/* ---- loading ---- */

#define JOB_COLUMNS                                                                                \
    "state, attempt, coalesce(epoch, 0), paused, error, created_at::timestamptz(0),"               \
    " changed_at::timestamptz(0), options, kind"

static bool take_row(struct reshard *reshard, struct job *job, const PGresult *rows)
{
    if (!state_of(PQgetvalue(rows, 0, 0), &job->state))
        return refuse(reshard, "XX000",
                      RESHARD_TEXT(reshard, "job \"%s\" is in state \"%s\", which is unknown here",
                                   job->name, PQgetvalue(rows, 0, 0)));
    job->attempt = cell_or(reshard, rows, 1, job->attempt);
    job->epoch = strtoll(PQgetvalue(rows, 0, 2), NULL, 10);
    job->paused = PQgetvalue(rows, 0, 3)[0] == 't';
    job->error = cell_or(reshard, rows, 4, job->error);
    job->created_at = cell_or(reshard, rows, 5, job->created_at);
    job->changed_at = cell_or(reshard, rows, 6, job->changed_at);
    json_decref(job->options);
    job->options = json_loads(PQgetvalue(rows, 0, 7), 0, NULL);
    job->of_tables = strcmp(PQgetvalue(rows, 0, 8), TABLE_JOB_KIND) == 0;
    return true;
}

static enum job_found read_job(struct reshard *reshard, struct job *job)
{
    PGresult *rows =
        ASK(reshard, "SELECT " JOB_COLUMNS " FROM pgshunt.job WHERE name = $1 AND database = $2", 2,
            job->name, reshard->request->database);
    enum job_found found = !rows                          ? JOB_UNREADABLE
                           : !PQntuples(rows)             ? JOB_MISSING
                           : take_row(reshard, job, rows) ? JOB_FOUND
                                                          : JOB_UNREADABLE;
    PQclear(rows);
    return found;
}

bool job_look(struct reshard *reshard, struct job *job)
{
    enum job_found found = read_job(reshard, job);
    return found == JOB_FOUND ||
           (found == JOB_MISSING ? refuse(reshard, "02000", "the job is not there any more")
                                 : false);
}

static const struct keyspace *keyspace_named(const struct shardmap *map, const char *name)
{
    for (unsigned i = 0; i < shardmap_keyspaces(map); i++)
        if (strcmp(shardmap_keyspace(map, i)->name, name) == 0)
            return shardmap_keyspace(map, i);
    return NULL;
}

static bool take_move(struct reshard *reshard, const PGresult *rows, int row, struct move *move)
{
    int source = shardmap_shard_by_name(reshard->map, PQgetvalue(rows, row, 3));
    int target = shardmap_shard_by_name(reshard->map, PQgetvalue(rows, row, 4));
    *move = (struct move){
        .keyspace = keyspace_named(reshard->map, PQgetvalue(rows, row, 0)),
        .first = (unsigned)atoi(PQgetvalue(rows, row, 1)),
        .last = (unsigned)atoi(PQgetvalue(rows, row, 2)),
        .source = (unsigned)source,
        .target = (unsigned)target,
    };
    if (move->keyspace && source >= 0 && target >= 0)
        return true;
    return refuse(reshard, "42704",
                  RESHARD_TEXT(reshard,
                               "the job moves buckets of keyspace \"%s\" from shard \"%s\" to"
                               " \"%s\", and the configuration does not have all of them",
                               PQgetvalue(rows, row, 0), PQgetvalue(rows, row, 3),
                               PQgetvalue(rows, row, 4)));
}

bool job_is_over(const struct job *job)
{
    return job->state == JOB_COMPLETED || job->state == JOB_CANCELLED;
}

/* Of one that is over, a shard or a keyspace may have left the configuration since: those moves are left out. */
static bool read_moves(struct reshard *reshard, const struct job *job)
{
    PGresult *rows = ASK(reshard,
                         "SELECT keyspace, first, last, source, target FROM pgshunt.job_move WHERE"
                         " job = $1 ORDER BY keyspace, first",
                         1, job->name);
    if (!rows)
        return false;
    int found = PQntuples(rows), count = 0;
    struct move *items = arena_array(&reshard->arena, struct move, found + 1);
    bool good = true;
    for (int i = 0; i < found && good; i++) {
        bool known = take_move(reshard, rows, i, &items[count]);
        count += known;
        good = known || job_is_over(job);
    }
    reshard->moves = (struct moves){.map = reshard->map, .items = items, .count = count};
    PQclear(rows);
    return good;
}

/* Its moves, and what they are of. */
static bool read_rest(struct reshard *reshard, struct job *job)
{
    if (!read_moves(reshard, job))
        return false;
    if (job->of_tables)
        job->tables = table_job_read(reshard, job->options);
    return !job->of_tables || job->tables || job_is_over(job);
}

enum job_found job_load(struct reshard *reshard, struct job *job)
{
    *job = (struct job){.name = reshard->request->job};
    enum job_found found = read_job(reshard, job);
    if (found != JOB_FOUND || read_rest(reshard, job))
        return found;
    job_free(job);
    return JOB_UNREADABLE;
}

void job_free(struct job *job)
{
    json_decref(job->options);
    job->options = NULL;
}

bool job_open(struct reshard *reshard, struct job *job, enum reshard_outcome *outcome)
{
    enum job_found found = job_load(reshard, job);
    if (found == JOB_MISSING) {
        reshard_tell(reshard, RESHARD_PROBLEM, NULL, job->name, "there is no such job",
                     "pgshuntctl reshard list");
        *outcome = RESHARD_REFUSED;
    }
    if (found == JOB_UNREADABLE)
        *outcome = reshard_fails(reshard, NULL, "cannot read the job");
    return found == JOB_FOUND;
}

/* ---- changing ---- */

static const char *states_array(struct reshard *reshard, unsigned states)
{
    const char *array = "{";
    for (int i = 0; i < JOB_STATES; i++)
        if (states & JOB_BIT(i))
            array = RESHARD_TEXT(reshard, "%s%s%s", array, array[1] ? "," : "", state_names[i]);
    return RESHARD_TEXT(reshard, "%s}", array);
}

/* Runs an UPDATE that returns the job's columns. */
static bool update(struct reshard *reshard, struct job *job, PGresult *rows)
{
    bool good = rows && PQntuples(rows) ? take_row(reshard, job, rows) : false;
    if (rows && !PQntuples(rows))
        refuse(reshard, "40001", "the job is in another state by now");
    PQclear(rows);
    return good;
}

bool job_set_state(struct reshard *reshard, struct job *job, unsigned from, enum job_state to)
{
    return update(reshard, job,
                  ASK(reshard,
                      "WITH was AS (INSERT INTO pgshunt.job_step (job, step) SELECT name, $2 FROM"
                      " pgshunt.job WHERE name = $1 AND state = ANY ($3::text[]))"
                      " UPDATE pgshunt.job SET state = $2, attempt = NULL, error = NULL,"
                      " changed_at = now() WHERE name = $1 AND state = ANY ($3::text[])"
                      " RETURNING " JOB_COLUMNS,
                      3, job->name, state_names[to], states_array(reshard, from)));
}

bool job_set_paused(struct reshard *reshard, struct job *job, bool paused)
{
    return update(reshard, job,
                  ASK(reshard,
                      "UPDATE pgshunt.job SET paused = $2::bool, changed_at = now() WHERE name = $1"
                      " RETURNING " JOB_COLUMNS,
                      2, job->name, paused ? "true" : "false"));
}

void job_set_error(struct reshard *reshard, struct job *job, const char *error)
{
    struct db_error kept = reshard->error;
    job->error = error;
    (void)RUN(reshard, "UPDATE pgshunt.job SET error = $2, changed_at = now() WHERE name = $1", 2,
              job->name, error);
    reshard->error = kept;
}

bool job_begin_attempt(struct reshard *reshard, struct job *job, unsigned from, enum job_state to,
                       int64_t epoch)
{
    return update(reshard, job,
                  ASK(reshard,
                      "UPDATE pgshunt.job SET state = $2, attempt = gen_random_uuid(), epoch ="
                      " $4::bigint, error = NULL, changed_at = now() WHERE name = $1 AND state ="
                      " ANY ($3::text[]) RETURNING " JOB_COLUMNS,
                      4, job->name, state_names[to], states_array(reshard, from),
                      RESHARD_TEXT(reshard, "%lld", (long long)epoch)));
}

void job_step(struct reshard *reshard, const struct job *job, const char *step, const char *detail)
{
    struct db_error kept = reshard->error;
    (void)RUN(reshard, "INSERT INTO pgshunt.job_step (job, step, detail) VALUES ($1, $2, $3)", 3,
              job->name, step, detail);
    reshard->error = kept;
    reshard_tell(reshard, RESHARD_STEP, NULL, step, detail ? detail : "done", NULL);
}

/* ---- what it has made ---- */

bool job_will_make(struct reshard *reshard, const struct job *job, unsigned shard, const char *kind,
                   const char *name, const char *detail)
{
    return RUN(reshard,
               "INSERT INTO pgshunt.job_object (job, shard, kind, name, detail) VALUES ($1, $2, $3,"
               " $4, $5) ON CONFLICT DO NOTHING",
               5, job->name, reshard->database->shards[shard].name, kind, name, detail);
}

bool job_has_removed(struct reshard *reshard, const struct job *job,
                     const struct job_object *object)
{
    return RUN(reshard,
               "DELETE FROM pgshunt.job_object WHERE job = $1 AND shard = $2 AND kind = $3 AND name"
               " = $4",
               4, job->name, object->shard, object->kind, object->name);
}

bool job_objects(struct reshard *reshard, const struct job *job, struct job_object **objects,
                 int *count)
{
    PGresult *rows = ASK(reshard,
                         "SELECT shard, kind, name, detail FROM pgshunt.job_object WHERE job = $1"
                         " ORDER BY ctid",
                         1, job->name);
    if (!rows)
        return false;
    *count = PQntuples(rows);
    *objects = arena_array(&reshard->arena, struct job_object, *count + 1);
    for (int i = 0; i < *count; i++)
        (*objects)[i] = (struct job_object){cell(reshard, rows, i, 0), cell(reshard, rows, i, 1),
                                            cell(reshard, rows, i, 2), cell(reshard, rows, i, 3)};
    PQclear(rows);
    return true;
}

/* ---- who runs it ---- */

struct job_lock {
    struct db *db; /* the lock is this session's */
};

/* Where the lock is not free, who has it. */
static const char lock_query[] =
    "WITH key AS MATERIALIZED (SELECT hashtextextended($1, 7741936514602252) AS k),"
    " got AS MATERIALIZED (SELECT pg_try_advisory_lock(k) AS got, k FROM key)"
    " SELECT got, (SELECT format('process %s of %s, since %s', a.pid, coalesce(a.client_addr::text,"
    " 'a local socket'), a.backend_start::timestamptz(0)) FROM pg_locks l JOIN pg_stat_activity a"
    " USING (pid) WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND l.granted"
    " AND (l.classid::bigint << 32) | l.objid::bigint = k AND a.pid <> pg_backend_pid()) FROM got";

struct job_lock *job_lock(struct reshard *reshard, const struct job *job)
{
    struct db *db = reshard_open(reshard, reshard->catalog, &reshard->error);
    if (!db)
        return NULL;
    PGresult *rows =
        db_query(db, RESHARD_QUERY_MS, &reshard->error, lock_query, 1,
                 RESHARD_TEXT(reshard, "%s/%s", reshard->request->database, job->name));
    bool got = rows && PQgetvalue(rows, 0, 0)[0] == 't';
    if (rows && !got)
        refuse(
            reshard, "55P03",
            RESHARD_TEXT(reshard, "another process runs the job: %s",
                         PQgetisnull(rows, 0, 1) ? "it has just ended" : PQgetvalue(rows, 0, 1)));
    PQclear(rows);
    if (!got) {
        db_close(db);
        return NULL;
    }
    struct job_lock *lock = mem_alloc(sizeof *lock);
    lock->db = db;
    return lock;
}

static const char runner_query[] =
    "SELECT format('%s (process %s of %s), since %s', coalesce(nullif(a.application_name, ''),"
    " '?'), a.pid, coalesce(a.client_addr::text, 'a local socket'),"
    " a.backend_start::timestamptz(0)) FROM pg_locks l JOIN pg_stat_activity a USING (pid)"
    " WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND l.granted AND l.database = (SELECT oid"
    " FROM pg_database WHERE datname = current_database())"
    " AND (l.classid::bigint << 32) | l.objid::bigint = hashtextextended($1, 7741936514602252)";

const char *job_runner(struct reshard *reshard, const struct job *job)
{
    PGresult *rows = ASK(reshard, runner_query, 1,
                         RESHARD_TEXT(reshard, "%s/%s", reshard->request->database, job->name));
    const char *who = rows && PQntuples(rows) ? cell(reshard, rows, 0, 0) : NULL;
    PQclear(rows);
    return who;
}

void job_lock_name(struct job_lock *lock, const char *who)
{
    struct db_error ignored;
    db_run(lock->db, RESHARD_QUERY_MS, &ignored,
           "SELECT set_config('application_name', left($1, 63), false)", 1, who);
}

bool job_lock_holds(struct job_lock *lock)
{
    struct db_error ignored;
    return db_is_open(lock->db) && db_run(lock->db, RESHARD_QUERY_MS, &ignored, "SELECT 1", 0);
}

void job_unlock(struct job_lock *lock)
{
    if (!lock)
        return;
    db_close(lock->db);
    free(lock);
}

/* ---- all of them ---- */

bool job_names(struct reshard *reshard, bool all, const char *const **names, int *count)
{
    PGresult *rows = ASK(reshard,
                         "SELECT name FROM pgshunt.job WHERE database = $1 AND ($2::bool OR state"
                         " NOT IN ('completed', 'cancelled')) ORDER BY created_at, name",
                         2, reshard->request->database, all ? "true" : "false");
    if (!rows)
        return false;
    *count = PQntuples(rows);
    const char **list = arena_array(&reshard->arena, const char *, *count + 1);
    for (int i = 0; i < *count; i++)
        list[i] = cell(reshard, rows, i, 0);
    *names = list;
    PQclear(rows);
    return true;
}
