/*
 * reshard_copy.c: the copy of a job alone, without the stream, for tests and measurements:
 *     reshard_copy CONFIG DATABASE JOB JOBS RATE CHUNK_PAGES PASS OLDEST
 * PASS 1: OLDEST is ignored. Prints the position and the oldest transaction of each source's snapshot, and waits for a line of
 * input before it copies. The job's row has to be there.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "resharder/copy.h"
#include "resharder/job.h"

static volatile sig_atomic_t stop;

static void on_signal(int signal)
{
    (void)signal;
    stop = 1;
}

static void tell(void *arg, const struct reshard_event *event)
{
    (void)arg;
    if (event->progress)
        printf("progress %s %lld/%.0f rows %lld/%lld bytes%s\n", event->progress->table,
               (long long)event->progress->rows, event->progress->rows_expected,
               (long long)event->progress->bytes, (long long)event->progress->bytes_expected,
               event->progress->done ? " done" : "");
    else
        printf("%s: %s\n", event->shard ? event->shard : "-", event->text);
    fflush(stdout);
}

struct copy {
    struct reshard reshard;
    struct copy_source sources[16];
    struct snapshot snapshots[16];
    unsigned targets[16][16];
    int count;
};

static bool make_ghosts(struct reshard *reshard, struct db *db, const struct move_tables *tables)
{
    for (int i = 0; i < tables->count; i++)
        if (!db_run(db, RESHARD_QUERY_MS, &reshard->error,
                    "SET client_min_messages = error; CREATE SCHEMA IF NOT EXISTS pgshunt", 0) ||
            !db_run(db, RESHARD_QUERY_MS, &reshard->error,
                    tables_ghost_create(tables->items[i].rule->keyspace, &reshard->arena), 0))
            return false;
    return true;
}

static bool print_snapshot(struct copy *copy, struct db *db, const struct snapshot *snapshot)
{
    struct db_error *error = &copy->reshard.error;
    if (!snapshot_enter(db, snapshot->name, error))
        return false;
    PGresult *rows = db_query(db, RESHARD_QUERY_MS, error,
                              "SELECT txid_snapshot_xmin(txid_current_snapshot())", 0);
    if (rows)
        printf("snapshot %s %s\n", snapshot->lsn, PQgetvalue(rows, 0, 0));
    PQclear(rows);
    return rows && db_run(db, RESHARD_QUERY_MS, error, "COMMIT", 0);
}

static bool add_link(struct copy *copy, const struct link *link)
{
    struct reshard *reshard = &copy->reshard;
    struct db *db = reshard_primary(reshard, link->source),
              *target = reshard_primary(reshard, link->target);
    struct copy_source *source = NULL;
    for (int i = 0; i < copy->count; i++)
        if (copy->sources[i].shard == link->source)
            source = &copy->sources[i];
    if (!db || !target)
        return false;
    if (!source) {
        struct move_tables *tables = arena_new(&reshard->arena, struct move_tables);
        struct snapshot *snapshot = &copy->snapshots[copy->count];
        source = &copy->sources[copy->count];
        if (!tables_read(db, &reshard->moves, &reshard->arena, tables, &reshard->error) ||
            !make_ghosts(reshard, db, tables) ||
            !snapshot_take(reshard, link->source, "copy", snapshot, &reshard->error) ||
            !print_snapshot(copy, db, snapshot))
            return false;
        *source = (struct copy_source){.shard = link->source,
                                       .tables = tables,
                                       .targets = copy->targets[copy->count++],
                                       .snapshot = snapshot->name};
    }
    copy->targets[source - copy->sources][source->ntargets++] = link->target;
    return make_ghosts(reshard, target, source->tables) && copy_prepare(target, &reshard->error);
}

static bool run(struct copy *copy, char **argv)
{
    struct copy_options options = {.max_load = -1,
                                   .jobs = atoi(argv[4]),
                                   .rate = atoll(argv[5]),
                                   .chunk_pages = atoll(argv[6])};
    int count;
    char line[16];
    const struct link *links = moves_links(&copy->reshard.moves, &copy->reshard.arena, &count);
    for (int i = 0; i < count; i++)
        if (!add_link(copy, &links[i]))
            return false;
    for (int i = 0; i < copy->count; i++) {
        copy->sources[i].pass = atoi(argv[7]);
        copy->sources[i].oldest = argv[8];
    }
    fflush(stdout);
    return fgets(line, sizeof line, stdin) &&
           copy_run(&copy->reshard, copy->sources, copy->count, &options);
}

int main(int argc, char **argv)
{
    struct config_error problem;
    struct config *config = argc == 9 ? config_load(argv[1], &problem) : NULL;
    if (!config)
        return 2;
    signal(SIGINT, on_signal);
    struct reshard_request request = {
        .config = config, .database = argv[2], .job = argv[3], .stop = &stop, .tell = tell};
    struct copy copy = {.count = 0};
    struct job job = {.name = NULL};
    enum reshard_outcome outcome;
    bool good = reshard_begin(&copy.reshard, &request) && job_open(&copy.reshard, &job, &outcome) &&
                run(&copy, argv);
    if (!good)
        fprintf(stderr, "%s %s\n", copy.reshard.error.sqlstate, copy.reshard.error.text);
    for (int i = 0; i < copy.count; i++)
        snapshot_drop(&copy.snapshots[i]);
    job_free(&job);
    reshard_end(&copy.reshard);
    config_free(config);
    return good ? 0 : 1;
}
