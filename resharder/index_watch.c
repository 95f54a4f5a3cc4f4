/* index_watch.c: what pg_stat_progress_create_index says of a shard's indexes, as progress. */
#include "resharder/index_watch.h"

#include <stdlib.h>

#define TELL_EVERY_MS 500
#define QUERY_MS 2000

/* The table's blocks are read first, then rows are sorted and loaded: whichever is under way is what is known. */
static const char progress_query[] =
    "SELECT CASE WHEN p.index_relid = 0 THEN p.relid::regclass ELSE p.index_relid::regclass END,"
    " p.tuples_done, p.tuples_total, p.blocks_done * s.size, p.blocks_total * s.size"
    " FROM pg_stat_progress_create_index p, (SELECT current_setting('block_size')::bigint) s(size)"
    " WHERE p.datname = current_database()";

static int64_t number(const PGresult *rows, int row, int column)
{
    return strtoll(PQgetvalue(rows, row, column), NULL, 10);
}

static void tell(const struct index_watch *watch, const PGresult *rows, int row)
{
    struct reshard *reshard = watch->reshard;
    const char *name = shardmap_shard_name(reshard->map, watch->shard);
    int64_t tuples = number(rows, row, 2), bytes = number(rows, row, 4);
    struct reshard_progress progress = {
        .phase = RESHARD_PHASE_INDEX,
        .table = PQgetvalue(rows, row, 0),
        .target = name,
        .rows = number(rows, row, 1),
        .rows_expected = tuples ? (double)tuples : -1,
        .bytes = number(rows, row, 3),
        .bytes_expected = bytes ? bytes : -1,
        .lag_bytes = -1,
        .lag_seconds = -1,
    };
    struct reshard_event event = {
        .kind = RESHARD_PROGRESS, .shard = name, .object = progress.table, .progress = &progress};
    reshard->request->tell(reshard->request->arg, &event);
}

void index_watch(void *arg)
{
    struct index_watch *watch = arg;
    struct db_error ignored;
    if (db_clock_ms() - watch->told_ms < TELL_EVERY_MS)
        return;
    watch->told_ms = db_clock_ms();
    struct db *db = reshard_primary(watch->reshard, watch->shard);
    PGresult *rows = db ? db_query(db, QUERY_MS, &ignored, progress_query, 0) : NULL;
    for (int i = 0; rows && i < PQntuples(rows); i++)
        tell(watch, rows, i);
    PQclear(rows);
}
