/*
 * reshard_stream.c: one stream of a job alone, for tests and measurements:
 *     reshard_stream CONFIG DATABASE JOB SOURCE TARGET [--reverse] [--prepare] [--careful] [--after LSN] [--until LSN]
 * SOURCE and TARGET are the stream's own (a reverse stream's source is the job's target). --prepare makes publication, slot, origin and
 * ghost tables where they are missing. Takes commands, a line each, and answers each with a line:
 *     state (JSON)  |  hold MARKER  |  release  |  stop
 * The job's row has to be there. Exit code 0 after `stop`, 1 if it could not be started.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "resharder/job.h"
#include "resharder/slot.h"
#include "resharder/stream.h"

struct run {
    struct reshard reshard;
    struct moves moves;
    struct move_tables tables;
    struct stream_options options;
    bool reverse, prepare;
};

static void tell(void *arg, const struct reshard_event *event)
{
    (void)arg;
    fprintf(stderr, "%s: %s\n", event->shard ? event->shard : "-", event->text);
}

/* Of this program: what getrusage() tells is that of the process, which was somebody else's before it became ours. */
static long peak_kib(void)
{
    char line[256];
    long kib = 0;
    FILE *status = fopen("/proc/self/status", "re");
    while (status && fgets(line, sizeof line, status) && sscanf(line, "VmHWM: %ld", &kib) != 1)
        ;
    if (status)
        fclose(status);
    return kib;
}

static uint64_t read_lsn(const char *text)
{
    unsigned high, low;
    return sscanf(text, "%X/%X", &high, &low) == 2 ? (uint64_t)high << 32 | low : 0;
}

static void read_options(struct run *run, int argc, char **argv)
{
    for (int i = 6; i < argc; i++) {
        if (strcmp(argv[i], "--reverse") == 0)
            run->reverse = true;
        else if (strcmp(argv[i], "--prepare") == 0)
            run->prepare = true;
        else if (strcmp(argv[i], "--careful") == 0)
            run->options.careful = true;
        else if (strcmp(argv[i], "--after") == 0 && i + 1 < argc)
            run->options.consistent_after = read_lsn(argv[++i]);
        else if (strcmp(argv[i], "--until") == 0 && i + 1 < argc)
            run->options.until = read_lsn(argv[++i]);
    }
}

/* The names are those of docs/internals/resharding.md. */
static void name_all(struct run *run, const char *job, const char *source, const char *target)
{
    struct reshard *reshard = &run->reshard;
    struct stream_options *options = &run->options;
    const char *way = run->reverse ? "_r" : "", *back = run->reverse ? "" : "_r";
    options->job = job;
    options->slot = RESHARD_TEXT(reshard, "pgshunt_%s%s_%s", job, way, target);
    options->publication = RESHARD_TEXT(reshard, "pgshunt_%s%s", job, way);
    options->origin = RESHARD_TEXT(reshard, "pgshunt_%s%s_%s", job, way, source);
    options->skip_origin = RESHARD_TEXT(reshard, "pgshunt_%s%s_%s", job, back, target);
    options->link.source = (unsigned)shardmap_shard_by_name(reshard->map, source);
    options->link.target = (unsigned)shardmap_shard_by_name(reshard->map, target);
}

static bool make_tables(struct run *run, struct db *db)
{
    struct db_error *error = &run->reshard.error;
    if (!db_run(db, RESHARD_QUERY_MS, error,
                "SET client_min_messages = error; CREATE SCHEMA IF NOT EXISTS pgshunt;"
                " CREATE TABLE IF NOT EXISTS pgshunt.applied (job text, source text, lsn pg_lsn,"
                " marker text, PRIMARY KEY (job, source))",
                0))
        return false;
    for (int i = 0; i < run->tables.count; i++)
        if (!db_run(db, RESHARD_QUERY_MS, error,
                    tables_ghost_create(run->tables.items[i].rule->keyspace, &run->reshard.arena),
                    0))
            return false;
    return true;
}

static bool is_there(struct db *db, const char *query, const char *name, struct db_error *error)
{
    PGresult *rows = db_query(db, RESHARD_QUERY_MS, error, query, 1, name);
    bool there = rows && PQntuples(rows) > 0;
    PQclear(rows);
    return there;
}

static bool make_all(struct run *run, struct db *source, struct db *target)
{
    struct reshard *reshard = &run->reshard;
    const struct stream_options *options = &run->options;
    struct slot_snapshot snapshot;
    if (!make_tables(run, source) || !make_tables(run, target) ||
        !slot_create_origin(reshard, options->link.target, options->origin))
        return false;
    if (!is_there(source, "SELECT FROM pg_publication WHERE pubname = $1", options->publication,
                  &reshard->error) &&
        !slot_publish(reshard, options->link.source, options->publication, &run->tables))
        return false;
    if (is_there(source, "SELECT FROM pg_replication_slots WHERE slot_name = $1", options->slot,
                 &reshard->error))
        return true;
    if (!slot_create(reshard, options->link.source, options->slot, 3000, &snapshot))
        return false;
    slot_release_snapshot(&snapshot);
    return true;
}

static bool set_up(struct run *run)
{
    struct reshard *reshard = &run->reshard;
    run->moves = run->reverse ? moves_reversed(&reshard->moves, reshard->map, &reshard->arena)
                              : reshard->moves;
    run->options.moves = &run->moves;
    run->options.tables = &run->tables;
    struct db *source = reshard_primary(reshard, run->options.link.source),
              *target = reshard_primary(reshard, run->options.link.target);
    return source && target &&
           tables_read(source, &run->moves, &reshard->arena, &run->tables, &reshard->error) &&
           (!run->prepare || make_all(run, source, target));
}

static void put_text(const char *name, const char *text)
{
    json_t *string = json_string(text);
    char *quoted = json_dumps(string, JSON_ENCODE_ANY);
    printf(", \"%s\": %s", name, quoted);
    free(quoted);
    json_decref(string);
}

static void print_state(struct stream *stream)
{
    struct stream_state state;
    stream_state(stream, &state);
    const struct apply_progress *progress = &state.progress;
    printf("{\"running\": %s, \"finished\": %s, \"held\": %s, \"passing\": %s",
           state.running ? "true" : "false", state.finished ? "true" : "false",
           state.held ? "true" : "false", state.failure.passing ? "true" : "false");
    put_text("error", state.failure.error.text);
    put_text("sqlstate", state.failure.error.sqlstate);
    put_text("mend", state.failure.mend);
    put_text("marker", progress->marker);
    printf(", \"applied\": %llu, \"inserted\": %lld, \"updated\": %lld, \"deleted\": %lld,"
           " \"left_out\": %lld, \"missed_updates\": %lld, \"missed_deletes\": %lld,"
           " \"transactions\": %lld, \"commits\": %lld, \"lag_bytes\": %lld, \"lag_seconds\": %.3f,"
           " \"memory\": %ld}\n",
           (unsigned long long)progress->applied, (long long)progress->inserted,
           (long long)progress->updated, (long long)progress->deleted,
           (long long)progress->left_out, (long long)progress->missed_updates,
           (long long)progress->missed_deletes, (long long)progress->transactions,
           (long long)progress->commits, (long long)state.lag_bytes, state.lag_seconds, peak_kib());
}

static void serve(struct stream *stream)
{
    char line[256];
    while (fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\n")] = '\0';
        if (strcmp(line, "stop") == 0)
            return;
        if (strcmp(line, "state") == 0) {
            print_state(stream);
        } else {
            if (strncmp(line, "hold ", 5) == 0)
                stream_hold(stream, line + 5);
            else if (strcmp(line, "release") == 0)
                stream_release(stream);
            printf("{}\n");
        }
        fflush(stdout);
    }
}

static bool work(struct run *run)
{
    struct apply_failure failure;
    if (!set_up(run)) {
        fprintf(stderr, "%s %s\n", run->reshard.error.sqlstate, run->reshard.error.text);
        return false;
    }
    struct stream *stream = stream_start(&run->reshard, &run->options, &failure);
    if (!stream) {
        fprintf(stderr, "%s %s %s%s\n", failure.error.sqlstate, failure.error.text, failure.mend,
                failure.passing ? " (passing)" : "");
        return false;
    }
    printf("started\n");
    fflush(stdout);
    serve(stream);
    stream_stop(stream);
    return true;
}

int main(int argc, char **argv)
{
    struct config_error problem;
    struct config *config = argc >= 6 ? config_load(argv[1], &problem) : NULL;
    if (!config)
        return 2;
    struct reshard_request request = {
        .config = config, .database = argv[2], .job = argv[3], .tell = tell};
    struct run run = {.reverse = false};
    struct job job = {.name = NULL};
    enum reshard_outcome outcome;
    read_options(&run, argc, argv);
    bool good = reshard_begin(&run.reshard, &request) && job_open(&run.reshard, &job, &outcome);
    if (good) {
        name_all(&run, argv[3], argv[4], argv[5]);
        good = work(&run);
    }
    job_free(&job);
    reshard_end(&run.reshard);
    config_free(config);
    return good ? 0 : 1;
}
