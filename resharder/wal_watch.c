/* wal_watch.c: looks how much WAL slots keep, and how much more they may. */
#include "resharder/wal_watch.h"

#include <stdlib.h>
#include <string.h>

#define LOOK_EVERY_MS 3000
#define TELL_EVERY_MS 60000

/* Of one slot ($1). */
static const char slot_query[] =
    "SELECT coalesce(s.wal_status, ''), s.safe_wal_size, pg_size_pretty(pg_wal_lsn_diff("
    "pg_current_wal_lsn(), s.restart_lsn)), pg_size_pretty(s.safe_wal_size),"
    " g.setting::bigint * 1048576, pg_wal_lsn_diff(pg_current_wal_lsn(), s.restart_lsn) >"
    " 4 * pg_size_bytes(current_setting('max_wal_size'))"
    " FROM pg_replication_slots s, pg_settings g WHERE s.slot_name = $1"
    " AND g.name = 'max_slot_wal_keep_size'";

enum { STATUS, SAFE, KEPT_TEXT, SAFE_TEXT, LIMIT, MUCH };

/* Without a limit it is the disk that fills; how full that is, no query tells. */
static enum wal_state state_of(const PGresult *row)
{
    const char *status = PQgetvalue(row, 0, STATUS);
    int64_t limit = strtoll(PQgetvalue(row, 0, LIMIT), NULL, 10);
    if (strcmp(status, "lost") == 0)
        return WAL_LOST;
    if (strcmp(status, "unreserved") == 0)
        return WAL_LOW;
    if (limit < 0 || PQgetisnull(row, 0, SAFE))
        return PQgetvalue(row, 0, MUCH)[0] == 't' ? WAL_MUCH : WAL_FINE;
    return strtoll(PQgetvalue(row, 0, SAFE), NULL, 10) < limit / 3 ? WAL_LOW : WAL_FINE;
}

static void set_lost(struct wal_watch *watch, const struct job_object *slot)
{
    struct db_error *error = &watch->reshard->error;
    *error = (struct db_error){.sqlstate = "55000"};
    snprintf(error->text, sizeof error->text,
             "slot %s on %s has lost WAL that is still needed (max_slot_wal_keep_size)", slot->name,
             slot->shard);
    snprintf(
        error->hint, sizeof error->hint,
        "pgshuntctl reshard cancel %s, then create it again: what was written meanwhile is not "
        "known",
        watch->job->name);
}

static void tell_low(struct wal_watch *watch, const struct job_object *slot, const PGresult *row)
{
    struct reshard *reshard = watch->reshard;
    if (watch->told_ms && db_clock_ms() - watch->told_ms < TELL_EVERY_MS)
        return;
    watch->told_ms = db_clock_ms();
    reshard_tell(
        reshard, RESHARD_NOTE, slot->shard, slot->name,
        PQgetisnull(row, 0, SAFE)
            ? RESHARD_TEXT(reshard,
                           "it keeps %s of WAL, and max_slot_wal_keep_size does not end it",
                           PQgetvalue(row, 0, KEPT_TEXT))
            : RESHARD_TEXT(reshard, "it keeps %s of WAL; %s more, and it is lost",
                           PQgetvalue(row, 0, KEPT_TEXT), PQgetvalue(row, 0, SAFE_TEXT)),
        NULL);
}

static enum wal_state look_at(struct wal_watch *watch, const struct job_object *slot)
{
    struct reshard *reshard = watch->reshard;
    struct db_error kept = reshard->error;
    int shard = shardmap_shard_by_name(reshard->map, slot->shard);
    struct db *db = shard < 0 ? NULL : reshard_primary(reshard, (unsigned)shard);
    PGresult *row =
        db ? db_query(db, RESHARD_QUERY_MS, &reshard->error, slot_query, 1, slot->name) : NULL;
    enum wal_state state = WAL_FINE;
    reshard->error = kept; /* a server that is away is another's to notice */
    if (row && PQntuples(row))
        state = state_of(row);
    if (state == WAL_LOW || state == WAL_MUCH)
        tell_low(watch, slot, row);
    if (state == WAL_LOST)
        set_lost(watch, slot);
    PQclear(row);
    return state;
}

enum wal_state wal_watch(struct wal_watch *watch)
{
    int64_t now = db_clock_ms();
    if (watch->looked_ms && now - watch->looked_ms < LOOK_EVERY_MS)
        return watch->state;
    watch->looked_ms = now;
    struct db_error kept = watch->reshard->error;
    if (!watch->objects &&
        !job_objects(watch->reshard, watch->job, &watch->objects, &watch->count)) {
        watch->reshard->error = kept;
        watch->objects = NULL;
        return watch->state;
    }
    watch->state = WAL_FINE;
    for (int i = 0; i < watch->count && watch->state != WAL_LOST; i++) {
        bool is_slot = strcmp(watch->objects[i].kind, "slot") == 0;
        enum wal_state state = is_slot ? look_at(watch, &watch->objects[i]) : WAL_FINE;
        watch->state = state > watch->state ? state : watch->state;
    }
    return watch->state;
}
