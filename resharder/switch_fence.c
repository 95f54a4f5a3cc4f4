/* switch_fence.c: locks on the old owners, markers through the streams, sequences, guards. */
#include <stdlib.h>
#include <string.h>

#include "pgshunt/guard.h"
#include "resharder/switch.h"

#define LOOK_MS 2

static const char *shard_name(const struct turn *turn, unsigned shard)
{
    return turn->reshard->database->shards[shard].name;
}

/* ---- preparing ---- */

/* What the owner may have interleaved is unique by its remainder and must stay so: only others are set ahead. */
static const char *sequences_read(struct reshard *reshard, const struct move_sequence *sequences,
                                  int count)
{
    const char *sql = NULL;
    for (int i = 0; i < count; i++)
        if (sequences[i].increment == 1)
            sql = RESHARD_TEXT(reshard, "%s%sSELECT %d, last_value FROM %s", sql ? sql : "",
                               sql ? " UNION ALL " : "", i, sequences[i].relation);
    return sql ? RESHARD_TEXT(reshard, "%s ORDER BY 1", sql) : NULL;
}

/* Takes the values read as one array, in the same order. A sequence that the target does not have is left out. */
static const char *sequences_set(struct reshard *reshard, const struct move_sequence *sequences,
                                 int count)
{
    const char *sql = NULL;
    int place = 0;
    for (int i = 0; i < count; i++) {
        if (sequences[i].increment != 1)
            continue;
        char *name = PQescapeLiteral(db_connection(reshard_catalog(reshard)), sequences[i].relation,
                                     strlen(sequences[i].relation));
        sql = RESHARD_TEXT(reshard,
                           "%s%sSELECT setval(to_regclass(%s), greatest(coalesce("
                           "pg_sequence_last_value(to_regclass(%s)), 1), ($1::bigint[])[%d]))",
                           sql ? sql : "", sql ? " UNION ALL " : "", name, name, ++place);
        PQfreemem(name);
    }
    return sql;
}

static bool prepare_sequences(struct turn *turn, const struct turn_source *source)
{
    struct reshard *reshard = turn->reshard;
    struct move_sequence *sequences;
    int count;
    if (!tables_sequences(reshard_primary(reshard, source->shard), &source->tables, &reshard->arena,
                          &sequences, &count, &reshard->error))
        return false;
    for (int i = 0; i < turn->nlinks; i++) {
        if (turn->links[i].source != source->shard)
            continue;
        turn->sequences[i] =
            (struct turn_sequences){.source = source->shard,
                                    .target = turn->links[i].target,
                                    .read = sequences_read(reshard, sequences, count),
                                    .set = sequences_set(reshard, sequences, count)};
        if (!reshard_primary(reshard, turn->links[i].target))
            return false;
    }
    return true;
}

static bool prepare_source(struct turn *turn, struct turn_source *source)
{
    struct reshard *reshard = turn->reshard;
    struct db *db = reshard_primary(reshard, source->shard);
    if (!db || !tables_read(db, &turn->moves, &reshard->arena, &source->tables, &reshard->error) ||
        !prepare_sequences(turn, source) ||
        !job_will_make(reshard, turn->job, source->shard, "guard", GUARD_TRIGGER, NULL) ||
        !db_run(db, RESHARD_QUERY_MS, &reshard->error, "CREATE SCHEMA IF NOT EXISTS pgshunt", 0) ||
        !db_run(db, RESHARD_QUERY_MS, &reshard->error, GUARD_FUNCTION, 0))
        return false;
    source->fence = fence_open(reshard, source->shard, &source->tables);
    return source->fence != NULL;
}

static bool is_listed(const struct turn *turn, unsigned shard)
{
    for (int i = 0; i < turn->nsources; i++)
        if (turn->sources[i].shard == shard)
            return true;
    return false;
}

bool turn_prepare(struct turn *turn)
{
    struct arena *arena = &turn->reshard->arena;
    turn->links = moves_links(&turn->moves, arena, &turn->nlinks);
    turn->sources = arena_array(arena, struct turn_source, (size_t)turn->nlinks + 1);
    turn->sequences = arena_array(arena, struct turn_sequences, (size_t)turn->nlinks + 1);
    for (int i = 0; i < turn->nlinks; i++)
        if (!is_listed(turn, turn->links[i].source))
            turn->sources[turn->nsources++].shard = turn->links[i].source;
    for (int i = 0; i < turn->nsources; i++)
        if (!prepare_source(turn, &turn->sources[i]))
            return false;
    return true;
}

/* What its rows would lose by a switch is not on the other side. */
static const char new_tables_query[] =
    "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid ="
    " c.relnamespace WHERE c.oid = ANY ($1::oid[]) AND NOT EXISTS (SELECT FROM pg_publication p"
    " JOIN pg_publication_rel r ON r.prpubid = p.oid WHERE p.pubname = $2 AND r.prrelid = c.oid)";

static bool tell_new_tables(struct turn *turn, const struct turn_source *source)
{
    struct reshard *reshard = turn->reshard;
    const char *oids = "{";
    for (int i = 0; i < source->tables.count; i++)
        oids = RESHARD_TEXT(reshard, "%s%s%u", oids, i ? "," : "", source->tables.items[i].oid);
    PGresult *rows =
        db_query(reshard_primary(reshard, source->shard), RESHARD_QUERY_MS, &reshard->error,
                 new_tables_query, 2, RESHARD_TEXT(reshard, "%s}", oids),
                 streams_publication(reshard, turn->job, turn->before == JOB_SWITCHED));
    for (int i = 0; rows && i < PQntuples(rows); i++)
        reshard_tell(reshard, RESHARD_PROBLEM, shard_name(turn, source->shard),
                     PQgetvalue(rows, i, 0),
                     "the table was made since the job began: its rows are not streamed",
                     "drop it, or cancel the job and create it again");
    bool some = !rows || PQntuples(rows) > 0;
    PQclear(rows);
    return some;
}

bool turn_has_new_tables(struct turn *turn)
{
    bool some = false;
    for (int i = 0; i < turn->nsources; i++)
        some |= tell_new_tables(turn, &turn->sources[i]);
    return some;
}

/* ---- the lock ---- */

enum fence_result turn_lock(struct turn *turn)
{
    int64_t until = turn->held_at + turn->drain_ms + turn->max_pause_ms;
    for (int i = 0; i < turn->nsources; i++) {
        enum fence_result result = fence_lock(turn->sources[i].fence, until, turn->force);
        if (result != FENCE_LOCKED)
            return result;
    }
    return FENCE_LOCKED;
}

void turn_unlock(struct turn *turn)
{
    for (int i = 0; i < turn->nsources; i++) {
        fence_close(turn->sources[i].fence);
        turn->sources[i].fence = NULL;
    }
}

/* ---- the marker ---- */

static bool is_applied(struct turn *turn, const struct link *link, const char *marker, bool *is)
{
    struct reshard *reshard = turn->reshard;
    struct db *db = reshard_primary(reshard, link->target);
    PGresult *rows = db ? db_query(db, RESHARD_QUERY_MS, &reshard->error,
                                   "SELECT marker = $3 FROM pgshunt.applied WHERE job = $1 AND"
                                   " source = $2",
                                   3, turn->job->name, shard_name(turn, link->source), marker)
                        : NULL;
    *is = rows && PQntuples(rows) && PQgetvalue(rows, 0, 0)[0] == 't';
    PQclear(rows);
    return rows != NULL;
}

static bool came_too_late(struct turn *turn, const struct link *link)
{
    struct db_error *error = &turn->reshard->error;
    *error = (struct db_error){.sqlstate = "55P03"};
    snprintf(error->text, sizeof error->text,
             "shard %s has not applied in time what shard %s has written",
             shard_name(turn, link->target), shard_name(turn, link->source));
    snprintf(error->hint, sizeof error->hint,
             "pgshuntctl reshard status shows how far it is; is reshard run at work?");
    return false;
}

bool turn_mark(struct turn *turn, const char *marker, int64_t until)
{
    for (int i = 0; i < turn->nsources; i++)
        if (!fence_mark(turn->reshard, turn->sources[i].shard, marker))
            return false;
    for (int i = 0; i < turn->nlinks;) {
        bool is;
        if (!is_applied(turn, &turn->links[i], marker, &is))
            return false;
        if (is) {
            i++;
            continue;
        }
        if (turn->streams && streams_tend(turn->streams) == STREAMS_FAILED)
            return false;
        if (db_clock_ms() >= until || reshard_stopped(turn->reshard))
            return came_too_late(turn, &turn->links[i]);
        reshard_sleep(turn->reshard, LOOK_MS * 1000);
    }
    return true;
}

/* ---- sequences ---- */

static const char *values_array(struct reshard *reshard, const PGresult *rows)
{
    const char *array = "{";
    for (int i = 0; i < PQntuples(rows); i++)
        array = RESHARD_TEXT(reshard, "%s%s%s", array, i ? "," : "", PQgetvalue(rows, i, 1));
    return RESHARD_TEXT(reshard, "%s}", array);
}

bool turn_set_sequences(struct turn *turn)
{
    struct reshard *reshard = turn->reshard;
    for (int i = 0; i < turn->nlinks; i++) {
        const struct turn_sequences *sequences = &turn->sequences[i];
        if (!sequences->read)
            continue;
        struct db *source = reshard_primary(reshard, sequences->source);
        PGresult *rows =
            source ? db_query(source, RESHARD_QUERY_MS, &reshard->error, sequences->read, 0) : NULL;
        struct db *target = reshard_primary(reshard, sequences->target);
        bool good = rows && target &&
                    db_run(target, RESHARD_QUERY_MS, &reshard->error, sequences->set, 1,
                           values_array(reshard, rows));
        PQclear(rows);
        if (!good)
            return false;
    }
    return true;
}

/* ---- the guard ---- */

bool turn_guard(struct turn *turn)
{
    for (int i = 0; i < turn->nsources; i++)
        if (!fence_guard(turn->sources[i].fence, turn->job->epoch))
            return false;
    for (int i = 0; i < turn->nsources; i++) {
        turn->guarded = true; /* whether or not the answer comes */
        if (!fence_commit(turn->sources[i].fence))
            return false;
    }
    return true;
}
