/* streams.c: both streams of all links of a job. */
#include "resharder/streams.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "resharder/slot.h"

#define SLOT_WAIT_MS 600000
#define TELL_EVERY_MS 1000
#define AGAIN_FIRST_MS 500
#define AGAIN_MOST_MS 15000
/* The same DDL reaches both sides within that, where it reaches both: it is one transaction of pgshunt's. */
#define MISFIT_MS 10000

/* One direction of a link. */
struct one {
    struct stream_options options;
    struct stream *stream; /* NULL: to be started at again_at */
    int64_t again_at, again_ms;
    bool finished, reverse;
    int64_t missed; /* rows, as told */
    int64_t misfit_at,
        misfit_since;            /* tables of both sides differ: last seen, and first of a row */
    const char *source, *target; /* shards, for people */
};

struct streams {
    struct reshard *reshard;
    struct moves reversed;
    struct one *items;
    int count;
    int64_t told_at;
    bool misfit;
    struct arena arena; /* of tables, which may be read again and again */
};

/* ---- names ---- */

/* A shard's name in the alphabet of slots. */
static const char *folded(struct reshard *reshard, unsigned shard)
{
    char *name = arena_strdup(&reshard->arena, shardmap_shard_name(reshard->map, shard));
    for (char *at = name; *at; at++)
        *at = isalnum((unsigned char)*at) ? (char)tolower((unsigned char)*at) : '_';
    return name;
}

static const char *slot_name(struct reshard *reshard, const struct job *job, unsigned target,
                             bool reverse)
{
    return RESHARD_TEXT(reshard, "pgshunt_%s_%s%s", job->name, reverse ? "r_" : "",
                        folded(reshard, target));
}

const char *streams_origin(struct reshard *reshard, const struct job *job, unsigned source,
                           bool reverse)
{
    return RESHARD_TEXT(reshard, "pgshunt_%s_%s%s", job->name, reverse ? "r_" : "",
                        folded(reshard, source));
}

const char *streams_publication(struct reshard *reshard, const struct job *job, bool reverse)
{
    return RESHARD_TEXT(reshard, "pgshunt_%s%s", job->name, reverse ? "_r" : "");
}

/* ---- what a stream is made of ---- */

static bool is_there(struct reshard *reshard, unsigned shard, const char *query, const char *name,
                     bool *there)
{
    struct db *db = reshard_primary(reshard, shard);
    PGresult *rows = db ? db_query(db, RESHARD_QUERY_MS, &reshard->error, query, 1, name) : NULL;
    *there = rows && PQntuples(rows) > 0;
    PQclear(rows);
    return rows != NULL;
}

static bool make_publication(struct reshard *reshard, const struct job *job, unsigned shard,
                             const char *name, const struct move_tables *tables)
{
    bool there;
    return job_will_make(reshard, job, shard, "publication", name, NULL) &&
           is_there(reshard, shard, "SELECT FROM pg_publication WHERE pubname = $1", name,
                    &there) &&
           (there || slot_publish(reshard, shard, name, tables));
}

static bool make_slot(struct reshard *reshard, const struct job *job, unsigned shard,
                      const char *name)
{
    struct slot_snapshot snapshot;
    bool there;
    if (!job_will_make(reshard, job, shard, "slot", name, NULL) ||
        !is_there(reshard, shard, "SELECT FROM pg_replication_slots WHERE slot_name = $1", name,
                  &there))
        return false;
    if (there)
        return true;
    if (!slot_create(reshard, shard, name, SLOT_WAIT_MS, &snapshot))
        return false;
    slot_release_snapshot(&snapshot);
    return true;
}

static const char applied_table[] =
    "CREATE SCHEMA IF NOT EXISTS pgshunt; CREATE TABLE IF NOT EXISTS pgshunt.applied (job text,"
    " source text, lsn pg_lsn, marker text, PRIMARY KEY (job, source))";

/* What the stream from `source` to `target` is made of there. */
static bool make_stream_there(struct reshard *reshard, const struct job *job, struct link link,
                              bool reverse)
{
    struct db *target = reshard_primary(reshard, link.target);
    const char *origin = streams_origin(reshard, job, link.source, reverse);
    return target && db_run(target, RESHARD_QUERY_MS, &reshard->error, applied_table, 0) &&
           job_will_make(reshard, job, link.target, "origin", origin, NULL) &&
           slot_create_origin(reshard, link.target, origin);
}

/* ... and here, on its source. */
static bool make_stream_here(struct reshard *reshard, const struct job *job,
                             const struct moves *moves, struct link link, bool reverse)
{
    struct move_tables tables;
    struct db *source = reshard_primary(reshard, link.source);
    return source && tables_read(source, moves, &reshard->arena, &tables, &reshard->error) &&
           make_publication(reshard, job, link.source, streams_publication(reshard, job, reverse),
                            &tables) &&
           make_slot(reshard, job, link.source, slot_name(reshard, job, link.target, reverse));
}

bool streams_make_sources(struct reshard *reshard, const struct job *job)
{
    int count;
    const struct link *links = moves_links(&reshard->moves, &reshard->arena, &count);
    for (int i = 0; i < count; i++)
        if (!make_stream_here(reshard, job, &reshard->moves, links[i], false))
            return false;
    return true;
}

bool streams_make_targets(struct reshard *reshard, const struct job *job)
{
    int count;
    const struct link *links = moves_links(&reshard->moves, &reshard->arena, &count);
    for (int i = 0; i < count; i++)
        if (!make_stream_there(reshard, job, links[i], false))
            return false;
    return true;
}

bool streams_make(struct reshard *reshard, const struct job *job, bool reverse)
{
    struct moves reversed = moves_reversed(&reshard->moves, reshard->map, &reshard->arena);
    const struct moves *moves = reverse ? &reversed : &reshard->moves;
    int count;
    const struct link *links = moves_links(moves, &reshard->arena, &count);
    for (int i = 0; i < count; i++)
        if (!make_stream_there(reshard, job, links[i], reverse) ||
            !make_stream_here(reshard, job, moves, links[i], reverse))
            return false;
    return true;
}

/* ---- starting ---- */

bool streams_remember(struct reshard *reshard, const struct job *job, unsigned source,
                      const char *lsn)
{
    struct job_object newest = {
        .shard = shardmap_shard_name(reshard->map, source), .kind = "snapshot", .name = "newest"};
    return job_has_removed(reshard, job, &newest) &&
           job_will_make(reshard, job, source, newest.kind, newest.name, lsn);
}

/* 0: nothing was copied from there yet. */
static bool read_consistent(struct reshard *reshard, const struct job *job, unsigned source,
                            uint64_t *position)
{
    struct job_object *objects;
    const char *name = shardmap_shard_name(reshard->map, source);
    int count;
    *position = 0;
    if (!job_objects(reshard, job, &objects, &count))
        return false;
    for (int i = 0; i < count; i++) {
        unsigned high, low;
        if (strcmp(objects[i].kind, "snapshot") == 0 && strcmp(objects[i].shard, name) == 0 &&
            objects[i].detail && sscanf(objects[i].detail, "%X/%X", &high, &low) == 2)
            *position = (uint64_t)high << 32 | low;
    }
    return true;
}

static bool describe(struct streams *streams, const struct job *job, struct one *one,
                     struct link link, bool reverse, const uint64_t *until)
{
    struct reshard *reshard = streams->reshard;
    const struct moves *moves = reverse ? &streams->reversed : &reshard->moves;
    struct move_tables *tables = arena_new(&streams->arena, struct move_tables);
    struct db *source = reshard_primary(reshard, link.source);
    uint64_t consistent = 0;
    if (!source || !tables_read(source, moves, &streams->arena, tables, &reshard->error) ||
        (!reverse && !read_consistent(reshard, job, link.source, &consistent)))
        return false;
    *one = (struct one){
        .options = {.tables = tables,
                    .moves = moves,
                    .link = link,
                    .job = job->name,
                    .slot = slot_name(reshard, job, link.target, reverse),
                    .publication = streams_publication(reshard, job, reverse),
                    .origin = streams_origin(reshard, job, link.source, reverse),
                    /* what came the other way is at home here: */
                    .skip_origin = streams_origin(reshard, job, link.target, !reverse),
                    .consistent_after = consistent,
                    .until = until ? until[link.source] : 0},
        .reverse = reverse,
        .source = shardmap_shard_name(reshard->map, link.source),
        .target = shardmap_shard_name(reshard->map, link.target),
    };
    return true;
}

/* As they are by now: DDL has changed them. What was written before comes as it was: as text, it can be read all the same. */
static bool read_tables_again(struct streams *streams, struct one *one)
{
    struct reshard *reshard = streams->reshard;
    struct move_tables *tables = arena_new(&streams->arena, struct move_tables);
    struct db *source = reshard_primary(reshard, one->options.link.source);
    if (!source ||
        !tables_read(source, one->options.moves, &streams->arena, tables, &reshard->error))
        return false;
    one->options.tables = tables;
    one->options.text = true;
    return true;
}

static bool start_stream(struct streams *streams, struct one *one, struct apply_failure *failure)
{
    struct reshard *reshard = streams->reshard;
    *failure = (struct apply_failure){.passing = true};
    if (one->misfit_at && !read_tables_again(streams, one)) {
        failure->error = reshard->error;
        failure->passing = apply_is_passing(reshard->error.sqlstate);
        return false;
    }
    one->stream = stream_start(reshard, &one->options, failure);
    return one->stream != NULL;
}

/* False: reshard->error, and nothing to hope for. */
static bool start(struct streams *streams, struct one *one)
{
    struct apply_failure failure;
    if (start_stream(streams, one, &failure)) {
        one->again_ms = AGAIN_FIRST_MS;
        return true;
    }
    streams->reshard->error = failure.error;
    one->again_ms = one->again_ms ? one->again_ms * 2 : AGAIN_FIRST_MS;
    if (one->again_ms > AGAIN_MOST_MS)
        one->again_ms = AGAIN_MOST_MS;
    one->again_at = db_clock_ms() + one->again_ms;
    if (failure.passing)
        reshard_tell(streams->reshard, RESHARD_NOTE, one->source, one->options.slot,
                     RESHARD_TEXT(streams->reshard, "tried again soon: %s", failure.error.text),
                     NULL);
    return failure.passing;
}

static struct streams *start_all(struct reshard *reshard, const struct job *job, bool forward,
                                 bool reverse, const uint64_t *until)
{
    struct streams *streams = mem_alloc(sizeof *streams);
    int count;
    const struct link *links = moves_links(&reshard->moves, &reshard->arena, &count);
    streams->reshard = reshard;
    arena_init(&streams->arena);
    streams->reversed = moves_reversed(&reshard->moves, reshard->map, &reshard->arena);
    streams->items = arena_array(&reshard->arena, struct one, 2 * (size_t)count + 1);
    bool good = true;
    for (int i = 0; good && i < count; i++) {
        struct link back = {links[i].target, links[i].source};
        if (forward)
            good =
                describe(streams, job, &streams->items[streams->count++], links[i], false, until);
        if (good && reverse)
            good = describe(streams, job, &streams->items[streams->count++], back, true, until);
    }
    for (int i = 0; good && i < streams->count; i++)
        good = start(streams, &streams->items[i]);
    if (good)
        return streams;
    streams_stop(streams);
    return NULL;
}

struct streams *streams_start(struct reshard *reshard, const struct job *job, const uint64_t *until)
{
    return start_all(reshard, job, true, !until, until);
}

struct streams *streams_start_back(struct reshard *reshard, const struct job *job,
                                   const uint64_t *until)
{
    return start_all(reshard, job, false, true, until);
}

void streams_stop(struct streams *streams)
{
    if (!streams)
        return;
    for (int i = 0; i < streams->count; i++)
        stream_stop(streams->items[i].stream);
    arena_free(&streams->arena);
    free(streams);
}

/* ---- looking ---- */

static void tell_progress(struct streams *streams, const struct one *one,
                          const struct stream_state *state)
{
    const struct apply_progress *done = &state->progress;
    struct reshard_progress progress = {
        .phase = RESHARD_PHASE_STREAM,
        .source = one->source,
        .target = one->target,
        .rows = done->inserted + done->updated + done->deleted,
        .rows_expected = -1,
        .bytes_expected = -1,
        .lag_bytes = state->lag_bytes,
        .lag_seconds = state->lag_seconds,
    };
    struct reshard_event event = {.kind = RESHARD_PROGRESS, .text = "", .progress = &progress};
    streams->reshard->request->tell(streams->reshard->request->arg, &event);
}

/* Where a changed row was not there, the sides differ: by whatever wrote on the target beside the stream. */
static void tell_missed(struct streams *streams, struct one *one, const struct stream_state *state)
{
    int64_t missed = state->progress.missed_updates + state->progress.missed_deletes;
    if (missed > one->missed)
        reshard_tell(streams->reshard, RESHARD_PROBLEM, one->target, NULL,
                     RESHARD_TEXT(streams->reshard,
                                  "%lld rows that were updated and %lld that were deleted on %s"
                                  " were not there",
                                  (long long)state->progress.missed_updates,
                                  (long long)state->progress.missed_deletes, one->source),
                     "pgshuntctl reshard verify finds what differs");
    one->missed = missed;
}

/* Whether the other side may still get the same DDL. */
static bool misfit_is_young(struct one *one)
{
    int64_t now = db_clock_ms();
    if (now - one->misfit_at > MISFIT_MS)
        one->misfit_since = now;
    one->misfit_at = now;
    return now - one->misfit_since < MISFIT_MS;
}

/* What it failed of, when it comes to nothing by waiting: false. */
static bool fall_over(struct streams *streams, struct one *one, const struct stream_state *state)
{
    struct reshard *reshard = streams->reshard;
    stream_stop(one->stream);
    one->stream = NULL;
    one->again_at = db_clock_ms() + one->again_ms;
    one->options.careful =
        one->options.careful || strcmp(state->failure.error.sqlstate, APPLY_THERE_ALREADY) == 0;
    reshard->error = state->failure.error;
    if (state->failure.mend[0] && !reshard->error.hint[0])
        snprintf(reshard->error.hint, sizeof reshard->error.hint, "%s", state->failure.mend);
    bool passing = state->failure.passing || (state->failure.misfit && misfit_is_young(one));
    if (passing)
        reshard_tell(
            reshard, RESHARD_NOTE, one->source, one->options.slot,
            RESHARD_TEXT(reshard, "interrupted, goes on soon: %s", state->failure.error.text),
            NULL);
    streams->misfit = !passing && state->failure.misfit;
    return passing;
}

static bool tend(struct streams *streams, struct one *one, bool tells)
{
    struct stream_state state;
    if (one->finished)
        return true;
    if (!one->stream)
        return db_clock_ms() < one->again_at || start(streams, one);
    stream_state(one->stream, &state);
    if (tells) {
        tell_progress(streams, one, &state);
        tell_missed(streams, one, &state);
    }
    one->finished = state.finished;
    return state.running || state.finished || fall_over(streams, one, &state);
}

enum streams_health streams_tend(struct streams *streams)
{
    int64_t now = db_clock_ms();
    bool tells = now - streams->told_at >= TELL_EVERY_MS, all = streams->count > 0;
    if (tells)
        streams->told_at = now;
    for (int i = 0; i < streams->count; i++) {
        if (!tend(streams, &streams->items[i], tells))
            return STREAMS_FAILED;
        all = all && streams->items[i].finished;
    }
    return all ? STREAMS_FINISHED : STREAMS_RUNNING;
}

bool streams_misfit(const struct streams *streams)
{
    return streams->misfit;
}

bool streams_are_close(struct streams *streams, int64_t ms)
{
    for (int i = 0; i < streams->count; i++) {
        struct stream_state state;
        if (!streams->items[i].stream)
            return false;
        stream_state(streams->items[i].stream, &state);
        if (state.catching_up || state.lag_seconds < 0 || state.lag_seconds * 1000 >= (double)ms)
            return false;
    }
    return true;
}
