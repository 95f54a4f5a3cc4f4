/* copy.c: the copy as a whole: what is left to do, the threads that do it, the brakes, and how far it is. */
#include "resharder/copy.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "resharder/clean.h"
#include "resharder/copy_internal.h"

#define JOBS 4
#define LOOK_EVERY_MS 100
#define TELL_EVERY_MS 500
#define ASK_EVERY_MS 1000
#define NO_RANGES_BEFORE 140000

static const char prepare_sql[] =
    "CREATE SCHEMA IF NOT EXISTS pgshunt;"
    "CREATE TABLE IF NOT EXISTS pgshunt.chunk (job text, source text, relation text,"
    " file bigint, pass int, number int, low text, high text, rows bigint, bytes bigint,"
    " done_at timestamptz NOT NULL DEFAULT clock_timestamp(),"
    " PRIMARY KEY (job, source, relation, file, pass, number))";

bool copy_prepare(struct db *target, struct db_error *error)
{
    return db_run(target, RESHARD_QUERY_MS, error, prepare_sql, 0);
}

bool copy_forget(struct reshard *reshard, struct db *target, unsigned source,
                 struct db_error *error)
{
    return db_run(target, RESHARD_QUERY_MS, error,
                  "DELETE FROM pgshunt.chunk WHERE job = $1 AND source = $2", 2,
                  reshard->request->job, shardmap_shard_name(reshard->map, source));
}

bool copy_has_begun(struct reshard *reshard, struct db *target, unsigned source, bool *begun,
                    struct db_error *error)
{
    PGresult *rows =
        db_query(target, RESHARD_QUERY_MS, error,
                 "SELECT EXISTS (SELECT FROM pgshunt.chunk WHERE job = $1 AND source = $2)", 2,
                 reshard->request->job, shardmap_shard_name(reshard->map, source));
    *begun = rows && PQgetvalue(rows, 0, 0)[0] == 't';
    PQclear(rows);
    return rows != NULL;
}

bool copy_empty(struct reshard *reshard, unsigned source, unsigned target,
                const struct move_tables *tables)
{
    for (int i = 0; i < tables->count; i++) {
        const struct move_table *table = &tables->items[i];
        struct db *db = table->nprimary ? NULL : reshard_primary(reshard, target);
        if (table->nprimary)
            continue;
        if (!db || !clear_table(reshard, source, target, table))
            return false;
        for (int leaf = 0; leaf < table->nleaves; leaf++)
            if (!db_run(
                    db, RESHARD_QUERY_MS, &reshard->error,
                    "DELETE FROM pgshunt.chunk WHERE job = $1 AND source = $2 AND relation = $3", 3,
                    reshard->request->job, shardmap_shard_name(reshard->map, source),
                    table->leaves[leaf].relation))
                return false;
    }
    return true;
}

/* ---- sessions ---- */

/* DDL on both sides may wait for one of a copier's two sessions and have the other wait: no server sees that deadlock. */
#define WAIT_LESS "set_config('lock_timeout', '5s', false)"
static const char read_settings[] =
    "SELECT set_config('row_security', 'off', false), set_config('enable_seqscan', 'off', false),"
    " set_config('max_parallel_workers_per_gather', '0', false),"
    " set_config('lc_monetary', 'C', false), " WAIT_LESS;
/* What is lost with synchronous_commit off goes together: rows and the chunk's row; copy_run() ends with a flush. */
static const char write_settings[] =
    "SELECT set_config('session_replication_role', 'replica', false),"
    " set_config('synchronous_commit', 'off', false), set_config('row_security', 'off', false),"
    " set_config('lc_monetary', 'C', false), " WAIT_LESS;

static struct db *open_session(struct copy_run *run, unsigned shard, const char *settings,
                               struct db_error *error)
{
    struct db *db = reshard_open(run->reshard, shard, error);
    if (db && settings && !db_run(db, RESHARD_QUERY_MS, error, settings, 0)) {
        db_close(db);
        return NULL;
    }
    if (db)
        db_set_stop(db, &run->halt);
    return db;
}

static bool open_keys(struct copier *copier, struct copy_keys *keys, unsigned shard,
                      const char *settings)
{
    struct copy_run *run = copier->run;
    keys->io = (struct copyio){open_session(run, shard, settings, &copier->error), &run->halt};
    return keys->io.db != NULL;
}

static bool open_sink_sessions(struct copier *copier, int target)
{
    struct copy_run *run = copier->run;
    struct copy_sink *sink = &copier->sinks[target];
    unsigned shard = copier->queue->source->targets[target];
    sink->name = copier->error_name = shardmap_shard_name(run->reshard->map, shard);
    sink->db = open_session(run, shard, write_settings, &copier->error);
    sink->io = (struct copyio){sink->db, &run->halt};
    if (sink->db)
        copy_load_bound(run, sink->db);
    return sink->db && open_keys(copier, &sink->ghosts, shard, write_settings);
}

static bool open_sessions(struct copier *copier)
{
    struct copy_run *run = copier->run;
    unsigned shard = copier->queue->source->shard;
    copier->error_name = copier->queue->name;
    copier->read = open_session(run, shard, read_settings, &copier->error);
    copier->io = (struct copyio){copier->read, &run->halt};
    bool good = copier->read && open_keys(copier, &copier->ghosts, shard, NULL);
    for (int i = 0; i < copier->queue->source->ntargets && good; i++)
        good = open_sink_sessions(copier, i);
    return good;
}

/* ---- what is left to do ---- */

static enum copy_need first_need(const struct copy_queue *queue, int chunk, int target,
                                 const struct moves *moves)
{
    const struct copy_source *source = queue->source;
    const struct move_table *table = &source->tables->items[queue->plan.chunks[chunk].table];
    bool moves_there =
        moves_touch(moves, table->rule->keyspace, source->shard, source->targets[target]);
    return moves_there ? COPY_NEED_ALL : COPY_NEED_NOTHING;
}

static int find_chunk(const struct copy_queue *queue, const char *relation, const char *file,
                      int number)
{
    for (int i = 0; i < queue->plan.count; i += queue->plan.chunks[i].of) {
        const struct copy_chunk *chunk = &queue->plan.chunks[i];
        const struct move_table *table = &queue->source->tables->items[chunk->table];
        if (strcmp(table->leaves[chunk->leaf].relation, relation) == 0)
            return strcmp(queue->files[i], file) == 0 && number < chunk->of ? i + number : -1;
    }
    return -1;
}

static void take_done(struct copy_queue *queue, int target, const PGresult *rows, int row)
{
    int ntargets = queue->source->ntargets, pass = queue->source->pass;
    int chunk = find_chunk(queue, PQgetvalue(rows, row, 0), PQgetvalue(rows, row, 1),
                           atoi(PQgetvalue(rows, row, 3)));
    if (chunk < 0)
        return;
    unsigned char *need = &queue->needs[chunk * ntargets + target];
    int of_pass = atoi(PQgetvalue(rows, row, 2));
    if (of_pass == 0)
        *need = pass > 1 && *need == COPY_NEED_ALL ? COPY_NEED_NEWER : COPY_NEED_NOTHING;
    else if (of_pass == pass)
        *need = COPY_NEED_NOTHING;
    struct copy_progress *progress = &queue->progress[queue->plan.chunks[chunk].table];
    atomic_fetch_add(&progress->rows, strtoll(PQgetvalue(rows, row, 4), NULL, 10));
}

/* Passes in order: 0 (all of the chunk) comes first. */
static bool read_done(struct copy_run *run, struct copy_queue *queue, int target)
{
    struct reshard *reshard = run->reshard;
    struct db *db = reshard_primary(reshard, queue->source->targets[target]);
    PGresult *rows = db ? db_query(db, RESHARD_QUERY_MS, &reshard->error,
                                   "SELECT relation, file, pass, number, rows FROM pgshunt.chunk"
                                   " WHERE job = $1 AND source = $2 ORDER BY pass",
                                   2, reshard->request->job, queue->name)
                        : NULL;
    for (int i = 0; rows && i < PQntuples(rows); i++)
        take_done(queue, target, rows, i);
    PQclear(rows);
    return rows != NULL;
}

/* Which file each leaf has, for the snapshot: rows are where they are only as long as it is the same. */
static bool read_files(struct copy_run *run, struct copy_queue *queue, struct db *db)
{
    struct reshard *reshard = run->reshard;
    const char *file = "";
    for (int i = 0; i < queue->plan.count; i++) {
        const struct copy_chunk *chunk = &queue->plan.chunks[i];
        if (chunk->number == 0) {
            const struct move_table *table = &queue->source->tables->items[chunk->table];
            char oid[16];
            snprintf(oid, sizeof oid, "%u", table->leaves[chunk->leaf].oid);
            PGresult *rows =
                db_query(db, RESHARD_QUERY_MS, &reshard->error,
                         "SELECT relfilenode FROM pg_class WHERE oid = $1::oid", 1, oid);
            if (!rows)
                return false;
            file = PQntuples(rows) ? RESHARD_TEXT(reshard, "%s", PQgetvalue(rows, 0, 0)) : "0";
            PQclear(rows);
        }
        queue->files[i] = file;
    }
    return true;
}

static int64_t chunk_pages(const struct copy_queue *queue, int i)
{
    const struct copy_chunk *chunk = &queue->plan.chunks[i];
    const struct move_leaf *leaf = &queue->source->tables->items[chunk->table].leaves[chunk->leaf];
    int64_t high = chunk->high ? chunk->high : leaf->pages;
    return high > chunk->low ? high - chunk->low : 0;
}

/* Buckets of the keyspace that move away from the source. */
static unsigned moving_buckets(const struct copy_run *run, const struct copy_queue *queue,
                               const struct keyspace *keyspace)
{
    const struct moves *moves = &run->reshard->moves;
    unsigned moving = 0;
    for (int i = 0; i < moves->count; i++)
        if (moves->items[i].keyspace == keyspace && moves->items[i].source == queue->source->shard)
            moving += moves->items[i].last - moves->items[i].first + 1;
    return moving;
}

/* How many of the table's rows move, as far as statistics know. */
static double expected_rows(const struct copy_run *run, const struct copy_queue *queue,
                            const struct move_table *table)
{
    const struct moves *moves = &run->reshard->moves;
    bool enters =
        moves->tables && queue->source->shard == moves->home; /* it has rows of all buckets */
    double owned = enters ? table->rule->keyspace->nbuckets
                          : shardmap_buckets_of(table->rule->keyspace, queue->source->shard);
    double moving = moving_buckets(run, queue, table->rule->keyspace);
    return table->rows < 0 || owned <= 0 ? -1 : table->rows * moving / owned;
}

static void plan_keys(const struct copy_run *run, struct copy_queue *queue, int table)
{
    const struct copy_source *source = queue->source;
    const struct keyspace *keyspace = source->tables->items[table].rule->keyspace;
    const struct moves *moves = &run->reshard->moves;
    queue->source_keys[table] = moves_need_keys(moves, keyspace, source->shard);
    for (int t = 0; t < source->ntargets; t++)
        queue->target_keys[table * source->ntargets + t] =
            moves_need_keys(moves, keyspace, source->targets[t]);
}

/* Where rows cannot be told apart, those that are there cannot be told from those that are missing. */
static bool can_go_on(struct reshard *reshard, const struct copy_source *source)
{
    for (int i = 0; i < source->tables->count && source->pass > 1 && !source->emptied; i++)
        if (!source->tables->items[i].nprimary) {
            reshard->error = (struct db_error){
                .sqlstate = "0A000",
                .hint = "Cancel the job, then create it again; with a primary key it could go on."};
            snprintf(
                reshard->error.text, sizeof reshard->error.text,
                "table %.200s has no primary key: its copy cannot go on under another snapshot",
                source->tables->items[i].relation);
            return false;
        }
    return true;
}

static bool plan_queue(struct copy_run *run, struct copy_queue *queue,
                       const struct copy_source *source)
{
    struct reshard *reshard = run->reshard;
    struct arena *arena = &reshard->arena;
    struct db *db = reshard_primary(reshard, source->shard);
    int ntables = source->tables->count;
    if (!db || !can_go_on(reshard, source))
        return false;
    queue->source = source;
    queue->name = shardmap_shard_name(reshard->map, source->shard);
    queue->columns = arena_array(arena, struct copy_columns, ntables + 1);
    queue->ghosts = arena_array(arena, const char *, ntables + 1);
    queue->progress = arena_array(arena, struct copy_progress, ntables + 1);
    queue->source_keys = arena_array(arena, bool, ntables + 1);
    queue->target_keys = arena_array(arena, bool, ntables * source->ntargets + 1);
    for (int i = 0; i < ntables; i++) {
        const struct move_table *table = &source->tables->items[i];
        if (!copyplan_columns(db, table, false, arena, &queue->columns[i], &reshard->error))
            return false;
        queue->ghosts[i] = tables_ghost(table->rule->keyspace, arena);
        queue->progress[i].rows_all = expected_rows(run, queue, table);
        plan_keys(run, queue, i);
    }
    int64_t pages = run->options->chunk_pages ? run->options->chunk_pages : COPY_CHUNK_PAGES;
    bool ranges = PQserverVersion(db_connection(db)) >= NO_RANGES_BEFORE;
    copyplan_chunks(source->tables, pages, ranges, arena, &queue->plan);
    queue->needs = arena_alloc(arena, (size_t)(queue->plan.count * source->ntargets) + 1);
    queue->files = arena_array(arena, const char *, queue->plan.count + 1);
    for (int i = 0; i < queue->plan.count; i++) {
        queue->progress[queue->plan.chunks[i].table].pages_all += chunk_pages(queue, i);
        for (int t = 0; t < source->ntargets; t++)
            queue->needs[i * source->ntargets + t] =
                (unsigned char)first_need(queue, i, t, &reshard->moves);
    }
    bool good = snapshot_enter(db, source->snapshot, &reshard->error) &&
                read_files(run, queue, db) &&
                db_run(db, RESHARD_QUERY_MS, &reshard->error, "COMMIT", 0);
    for (int t = 0; t < source->ntargets && good; t++)
        good = read_done(run, queue, t);
    return good;
}

/* ---- brakes ---- */

/* When the bytes are allowed: now, or later. */
static int64_t ask_rate(struct copy_run *run, int64_t bytes)
{
    if (!run->options->rate)
        return 0;
    int64_t now = copy_clock_us();
    pthread_mutex_lock(&run->lock);
    if (run->allowed_at < now)
        run->allowed_at = now;
    int64_t at = run->allowed_at;
    run->allowed_at += (int64_t)((double)bytes * 1e6 / (double)run->options->rate);
    pthread_mutex_unlock(&run->lock);
    return at;
}

bool copy_rest(struct copy_run *run, int64_t bytes)
{
    static _Thread_local int64_t worked_since;
    int64_t until = ask_rate(run, bytes), left;
    int64_t rested = copy_clock_us() + copy_load_rest_us(run, worked_since);
    until = until > rested ? until : rested;
    while (!run->halt && ((left = until - copy_clock_us()) > 0 || run->wait || run->alone)) {
        bool long_rest = run->wait || left > LOOK_EVERY_MS * 1000;
        int64_t piece = long_rest ? LOOK_EVERY_MS * 1000 : left;
        reshard_sleep(run->reshard, piece > 0 ? piece : 10000);
    }
    worked_since = copy_clock_us();
    return !run->halt;
}

/* The worst of the physical replicas, in ms; replicas that are not connected do not count. */
static const char lag_query[] =
    "SELECT coalesce(max(extract(epoch FROM coalesce(r.replay_lag, '0'))) * 1000, 0)::bigint"
    " FROM pg_stat_replication r WHERE r.state IN ('streaming', 'catchup') AND NOT EXISTS"
    " (SELECT FROM pg_replication_slots s WHERE s.active_pid = r.pid AND s.slot_type = 'logical')";

static bool lags(struct copy_run *run, unsigned shard)
{
    struct db_error ignored;
    struct db *db = reshard_primary(run->reshard, shard);
    PGresult *rows = db ? db_query(db, RESHARD_QUERY_MS, &ignored, lag_query, 0) : NULL;
    bool too_far = rows && strtoll(PQgetvalue(rows, 0, 0), NULL, 10) > run->options->max_lag_ms;
    PQclear(rows);
    if (too_far && !run->wait)
        reshard_tell(run->reshard, RESHARD_NOTE, shardmap_shard_name(run->reshard->map, shard),
                     NULL, "copying waits: a replica is behind", NULL);
    return too_far;
}

static bool any_lags(struct copy_run *run)
{
    for (int q = 0; q < run->nqueues && run->options->max_lag_ms; q++) {
        const struct copy_source *source = run->queues[q].source;
        if (lags(run, source->shard))
            return true;
        for (int t = 0; t < source->ntargets; t++)
            if (lags(run, source->targets[t]))
                return true;
    }
    return false;
}

static void look_at_brakes(struct copy_run *run)
{
    enum copy_wish wish = run->options->wish ? run->options->wish(run->options->arg) : COPY_GO;
    if (wish == COPY_LEAVE)
        run->halt = 1;
    run->wait = wish == COPY_REST || any_lags(run);
}

/* ---- telling ---- */

static void tell_table(struct copy_run *run, struct copy_queue *queue, int table)
{
    struct copy_progress *from = &queue->progress[table];
    const struct copy_source *source = queue->source;
    int64_t pages = from->pages;
    struct reshard_progress progress = {
        .phase = RESHARD_PHASE_COPY,
        .table = source->tables->items[table].relation,
        .source = queue->name,
        .target = source->ntargets == 1 ? shardmap_shard_name(run->reshard->map, source->targets[0])
                                        : NULL,
        .rows = from->rows,
        .rows_expected = from->rows_all,
        .bytes = pages * 8192,
        .bytes_expected = from->pages_all * 8192,
        .lag_bytes = -1,
        .lag_seconds = -1,
        .done = pages >= from->pages_all,
    };
    struct reshard_event event = {.kind = RESHARD_PROGRESS,
                                  .shard = queue->name,
                                  .object = progress.table,
                                  .progress = &progress};
    run->reshard->request->tell(run->reshard->request->arg, &event);
}

static void tell_progress(struct copy_run *run)
{
    for (int q = 0; q < run->nqueues; q++)
        for (int t = 0; t < run->queues[q].source->tables->count; t++)
            tell_table(run, &run->queues[q], t);
}

/* ---- threads ---- */

static void stop_all(struct copier *copier)
{
    struct copy_run *run = copier->run;
    pthread_mutex_lock(&run->lock);
    if (!run->halt) {
        run->error = copier->error;
        run->error_name = copier->error_name;
        run->halt = 1;
    }
    pthread_mutex_unlock(&run->lock);
}

static void *work(void *arg)
{
    struct copier *copier = arg;
    struct copy_run *run = copier->run;
    struct copy_queue *queue = copier->queue;
    while (copy_rest(run, 0)) {
        int chunk = atomic_fetch_add(&queue->next, 1);
        if (chunk >= queue->plan.count)
            break;
        if (!copy_chunk(copier, chunk)) {
            stop_all(copier);
            break;
        }
        atomic_fetch_add(&queue->progress[queue->plan.chunks[chunk].table].pages,
                         chunk_pages(queue, chunk));
    }
    run->running--;
    return NULL;
}

static void close_copier(struct copier *copier)
{
    db_close(copier->read);
    db_close(copier->ghosts.io.db);
    for (int i = 0; i < copier->queue->source->ntargets; i++) {
        struct copy_sink *sink = &copier->sinks[i];
        db_close(sink->db);
        db_close(sink->ghosts.io.db);
        buffer_release(&sink->out);
        copyghosts_release(&sink->keys);
    }
    free(copier->sinks);
}

static bool start_copier(struct copy_run *run, struct copier *copier, struct copy_queue *queue)
{
    *copier = (struct copier){.run = run, .queue = queue};
    copier->sinks = mem_alloc(sizeof *copier->sinks *
                              (size_t)(queue->source->ntargets ? queue->source->ntargets : 1));
    if (!open_sessions(copier)) {
        stop_all(copier);
        return false;
    }
    run->running++;
    copier->started = pthread_create(&copier->thread, NULL, work, copier) == 0;
    if (!copier->started) {
        run->running--;
        snprintf(copier->error.text, sizeof copier->error.text, "cannot start a thread");
        stop_all(copier);
    }
    return copier->started;
}

/* Until all threads have ended. */
static void watch(struct copy_run *run)
{
    int64_t told_at = 0, asked_at = 0;
    while (run->running) {
        int64_t now = db_clock_ms();
        if (reshard_stopped(run->reshard))
            run->halt = 1;
        if (!run->halt && now - asked_at >= ASK_EVERY_MS) {
            look_at_brakes(run);
            asked_at = db_clock_ms();
        }
        copy_load_tend(run);
        if (now - told_at >= TELL_EVERY_MS) {
            tell_progress(run);
            told_at = now;
        }
        reshard_sleep(run->reshard, LOOK_EVERY_MS * 1000 / 5);
    }
    tell_progress(run);
}

/* Everything that targets said they have is on their disks. */
static bool flush_targets(struct copy_run *run)
{
    struct reshard *reshard = run->reshard;
    for (int q = 0; q < run->nqueues; q++) {
        const struct copy_source *source = run->queues[q].source;
        for (int t = 0; t < source->ntargets; t++) {
            struct db *db = reshard_primary(reshard, source->targets[t]);
            if (!db || !db_run(db, RESHARD_QUERY_MS, &reshard->error,
                               "SELECT pg_logical_emit_message(true, 'pgshunt_copied', '')", 0))
                return false;
        }
    }
    return true;
}

static void run_threads(struct copy_run *run)
{
    int jobs = run->options->jobs ? run->options->jobs : JOBS, count = 0;
    jobs = jobs < run->nqueues ? run->nqueues : jobs;
    struct copier *copiers = mem_alloc(sizeof *copiers * (size_t)jobs);
    copy_load_begin(run);
    while (count < jobs && !reshard_stopped(run->reshard) &&
           start_copier(run, &copiers[count], &run->queues[count % run->nqueues]))
        count++;
    if (count < jobs && !run->halt)
        run->halt = 1;
    watch(run);
    for (int i = 0; i < jobs; i++) {
        if (copiers[i].started)
            pthread_join(copiers[i].thread, NULL);
        if (copiers[i].run)
            close_copier(&copiers[i]);
    }
    free(copiers);
    copy_load_end(run);
}

bool copy_run(struct reshard *reshard, const struct copy_source *sources, int count,
              const struct copy_options *options)
{
    struct copy_run run = {.reshard = reshard, .options = options, .nqueues = count};
    run.queues = arena_array(&reshard->arena, struct copy_queue, count + 1);
    for (int i = 0; i < count; i++)
        if (!plan_queue(&run, &run.queues[i], &sources[i]))
            return false;
    pthread_mutex_init(&run.lock, NULL);
    if (count)
        run_threads(&run);
    pthread_mutex_destroy(&run.lock);
    if (run.halt) {
        reshard->error = run.error;
        if (run.error_name && run.error.text[0])
            snprintf(reshard->error.text, sizeof reshard->error.text, "%s: %.400s", run.error_name,
                     run.error.text);
        return false;
    }
    return flush_targets(&run);
}
