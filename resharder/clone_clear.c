/* clone_clear.c: a clone is cleared of rows that do not move, page by page; the source learns the keys of those that do. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pgshunt/buffer.h"
#include "pgshunt/failpoint.h"
#include "resharder/clone.h"
#include "resharder/copyghosts.h"
#include "resharder/wal_watch.h"

#define PAGES 128   /* of one transaction, */
#define FETCH 10000 /* ... and rows read at once */
#define FETCH_TEXT "10000"
#define TID_RANGES 140000 /* versions from which on a part of a table is read without the rest */
#define LOOK_AT_JOB_MS 500
#define CLEAR_MS 600000

struct clearing {
    struct reshard *reshard;
    const struct job *job;
    struct wal_watch wal;
    struct link link;
    int64_t rate;
    struct db *clone, *source;
    const struct move_table *table;
    const char *columns;    /* of its key, as texts */
    const char *ghost;      /* the source's table of ghost keys */
    const char *leaf;       /* at work */
    struct copyghosts keys; /* of rows that move, for the source */
    struct buffer strays;   /* places of rows that do not, as an array */
    int nstrays;
    int64_t rows;                /* deleted of the table */
    int64_t looked_at, began_ms; /* at the job; the table */
    int64_t wal_began;           /* the clone's position then */
};

/* With a zero byte behind it. */
static const char *text_of(struct buffer *sql)
{
    buffer_append(sql, "", 1);
    return buffer_head(sql);
}

static bool run(struct clearing *clearing, const char *sql)
{
    return db_run(clearing->clone, CLEAR_MS, &clearing->reshard->error, sql, 0);
}

/* ---- rows ---- */

/* Columns behind the place are the key's. A key of no bucket is the source's to keep. */
static bool moves_here(struct clearing *clearing, const PGresult *rows, int row,
                       struct move_value *parts)
{
    static const uint32_t no_oids[SHARDMAP_MAX_PARTS];
    unsigned bucket;
    for (unsigned i = 0; i < clearing->table->nkey; i++)
        parts[i] = (struct move_value){
            .bytes = PQgetisnull(rows, row, (int)i + 1) ? NULL : PQgetvalue(rows, row, (int)i + 1),
            .length = (size_t)PQgetlength(rows, row, (int)i + 1),
        };
    const struct keyspace *keyspace = clearing->table->rule->keyspace;
    if (!move_bucket(keyspace, parts, no_oids, &bucket))
        return false;
    return moves_find(&clearing->reshard->moves, keyspace, bucket) != NULL;
}

static bool take_rows(struct clearing *clearing, const PGresult *rows)
{
    struct move_value parts[SHARDMAP_MAX_PARTS];
    static const uint32_t no_oids[SHARDMAP_MAX_PARTS];
    for (int i = 0; i < PQntuples(rows); i++) {
        if (moves_here(clearing, rows, i, parts)) {
            if (!copyghosts_add(&clearing->keys, parts, no_oids))
                return clone_fails(clearing->reshard, "XX000", "a key cannot be kept", NULL);
            continue;
        }
        buffer_printf(&clearing->strays, "%s\"%s\"", clearing->nstrays ? "," : "{",
                      PQgetvalue(rows, i, 0));
        clearing->nstrays++;
    }
    return true;
}

/* Before the clone's rows count: the source must know of them when they do. */
static bool put_keys(struct clearing *clearing)
{
    struct reshard *reshard = clearing->reshard;
    struct copyio io = {.db = clearing->source, .stop = reshard->request->stop};
    bool good = !clearing->keys.count ||
                (copyghosts_send(&clearing->keys, &io, clearing->ghost, &reshard->error) &&
                 copyghosts_take(&io, &reshard->error));
    copyghosts_clear(&clearing->keys);
    return good;
}

static bool delete_strays(struct clearing *clearing)
{
    struct buffer sql = {.data = NULL};
    if (!clearing->nstrays)
        return true;
    buffer_append(&clearing->strays, "}", 2); /* with its NUL */
    buffer_printf(&sql, "DELETE FROM ONLY %s WHERE ctid = ANY ($1::tid[])", clearing->leaf);
    PGresult *done = db_query(clearing->clone, CLEAR_MS, &clearing->reshard->error, text_of(&sql),
                              1, buffer_head(&clearing->strays));
    buffer_release(&sql);
    if (done)
        clearing->rows += atoll(PQcmdTuples(done));
    PQclear(done);
    buffer_clear(&clearing->strays);
    clearing->nstrays = 0;
    return done != NULL;
}

/* ---- a part of a leaf ---- */

/* Nobody else changes rows that do not move: they stay where they were seen. */
static bool clear_fetched(struct clearing *clearing, int *count)
{
    PGresult *rows = db_query(clearing->clone, CLEAR_MS, &clearing->reshard->error,
                              "FETCH " FETCH_TEXT " FROM places", 0);
    *count = rows ? PQntuples(rows) : 0;
    bool good = rows && take_rows(clearing, rows);
    PQclear(rows);
    return good && put_keys(clearing) && delete_strays(clearing);
}

/* `end` 0: all of it. */
static bool clear_part(struct clearing *clearing, int64_t first, int64_t end)
{
    struct buffer sql = {.data = NULL};
    int count = FETCH;
    buffer_printf(&sql, "DECLARE places NO SCROLL CURSOR FOR SELECT ctid, %s FROM ONLY %s",
                  clearing->columns, clearing->leaf);
    if (end)
        buffer_printf(&sql, " WHERE ctid >= '(%lld,0)' AND ctid < '(%lld,0)'", (long long)first,
                      (long long)end);
    bool good = run(clearing, "BEGIN") && run(clearing, text_of(&sql));
    buffer_release(&sql);
    while (good && count == FETCH)
        good = clear_fetched(clearing, &count);
    return good && run(clearing, "COMMIT");
}

/* ---- between parts ---- */

static bool wal_written(struct clearing *clearing, int64_t *written)
{
    PGresult *rows =
        db_query(clearing->clone, RESHARD_QUERY_MS, &clearing->reshard->error,
                 "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint", 0);
    if (rows)
        *written = atoll(PQgetvalue(rows, 0, 0));
    PQclear(rows);
    return rows != NULL;
}

/* No more WAL than the rate allows. */
static bool keep_rate(struct clearing *clearing)
{
    int64_t now;
    if (!clearing->rate)
        return true;
    if (!wal_written(clearing, &now))
        return false;
    int64_t due = clearing->began_ms + (now - clearing->wal_began) * 1000 / clearing->rate;
    while (db_clock_ms() < due && !reshard_stopped(clearing->reshard))
        reshard_sleep(clearing->reshard, 10000);
    return true;
}

static void tell_progress(struct clearing *clearing, bool done)
{
    struct reshard *reshard = clearing->reshard;
    struct reshard_progress progress = {
        .phase = RESHARD_PHASE_CLEAN,
        .table = clearing->table->relation,
        .source = shardmap_shard_name(reshard->map, clearing->link.target),
        .rows = clearing->rows,
        .rows_expected = -1,
        .bytes_expected = -1,
        .done = done,
    };
    struct reshard_event event = {.kind = RESHARD_PROGRESS, .text = "", .progress = &progress};
    reshard->request->tell(reshard->request->arg, &event);
}

/* False: reshard->error; the job rests, or is another one's by now, too. */
static bool goes_on(struct clearing *clearing)
{
    struct reshard *reshard = clearing->reshard;
    struct job now = *clearing->job;
    if (reshard_stopped(reshard))
        return clone_fails(reshard, "57014", "interrupted", NULL);
    if (db_clock_ms() - clearing->looked_at < LOOK_AT_JOB_MS)
        return true;
    now.options = NULL;
    for (bool rests = true; rests;) {
        clearing->looked_at = db_clock_ms();
        bool good = job_look(reshard, &now) && wal_watch(&clearing->wal) != WAL_LOST;
        job_free(&now);
        if (!good)
            return false;
        rests = now.paused && now.state == JOB_COPYING && !reshard_stopped(reshard);
        if (rests)
            reshard_sleep(reshard, LOOK_AT_JOB_MS * 1000);
    }
    return now.state == JOB_COPYING ||
           clone_fails(reshard, "40001", "the job is in another state by now", NULL);
}

/* ---- a leaf ---- */

/* Its file, which DDL may exchange, and how many pages it has. */
static bool measure(struct clearing *clearing, int64_t *file, int64_t *pages)
{
    PGresult *rows =
        db_query(clearing->clone, RESHARD_QUERY_MS, &clearing->reshard->error,
                 "SELECT pg_relation_filenode($1::regclass), pg_relation_size($1::regclass) /"
                 " current_setting('block_size')::int",
                 1, clearing->leaf);
    *file = rows ? atoll(PQgetvalue(rows, 0, 0)) : 0;
    *pages = rows ? atoll(PQgetvalue(rows, 0, 1)) : 0;
    PQclear(rows);
    return rows != NULL;
}

static bool clear_pages(struct clearing *clearing, int64_t pages)
{
    bool ranges = PQserverVersion(db_connection(clearing->clone)) >= TID_RANGES;
    int64_t step = ranges ? PAGES : pages;
    for (int64_t page = 0; page < pages; page += step) {
        if (!goes_on(clearing) || !clear_part(clearing, page, ranges ? page + step : 0) ||
            !keep_rate(clearing))
            return false;
        failpoint("run_clone_clearing");
        tell_progress(clearing, false);
    }
    return true;
}

/* Rows of a table that was rewritten meanwhile are in other places. */
static bool clear_leaf(struct clearing *clearing, const char *leaf)
{
    int64_t file, then, pages, ignored;
    clearing->leaf = leaf;
    do
        if (!measure(clearing, &file, &pages) || !clear_pages(clearing, pages) ||
            !measure(clearing, &then, &ignored))
            return false;
    while (file != then);
    return true;
}

/* ---- the whole ---- */

static const char *key_columns(struct reshard *reshard, const struct move_table *table)
{
    const char *columns = "";
    for (unsigned i = 0; i < table->nkey; i++)
        columns = RESHARD_TEXT(reshard, "%s%s%s::text", columns, i ? ", " : "",
                               table->columns[table->key[i]].quoted);
    return columns;
}

static bool clear_table(struct clearing *clearing, const struct move_table *table)
{
    struct reshard *reshard = clearing->reshard;
    clearing->table = table;
    clearing->columns = key_columns(reshard, table);
    clearing->ghost = tables_ghost(table->rule->keyspace, &reshard->arena);
    clearing->rows = 0;
    clearing->began_ms = db_clock_ms();
    copyghosts_begin(&clearing->keys, table->rule->keyspace);
    bool good = wal_written(clearing, &clearing->wal_began);
    for (int i = 0; good && i < table->nleaves; i++)
        good = clear_leaf(clearing, table->leaves[i].relation);
    copyghosts_release(&clearing->keys);
    if (good)
        tell_progress(clearing, true);
    return good;
}

/* What is lost of this by a crash is done again, or else flushed before the job goes on. */
static const char session_sql[] =
    "SELECT set_config('session_replication_role', 'replica', false),"
    " set_config('synchronous_commit', 'off', false), set_config('lock_timeout', '5s', false),"
    " set_config('datestyle', 'ISO', false)";

bool clone_clear(struct reshard *reshard, const struct job *job,
                 const struct reshard_run_options *options)
{
    struct clearing clearing = {.reshard = reshard,
                                .job = job,
                                .wal = {.reshard = reshard, .job = job},
                                .link = clone_link(reshard),
                                .rate = options->rate};
    struct move_tables tables;
    clearing.clone = clone_open(reshard, job);
    clearing.source =
        clearing.clone ? reshard_open(reshard, clearing.link.source, &reshard->error) : NULL;
    bool good =
        clearing.source && run(&clearing, session_sql) &&
        tables_read(clearing.clone, &reshard->moves, &reshard->arena, &tables, &reshard->error);
    for (int i = 0; good && i < tables.count; i++)
        good = clear_table(&clearing, &tables.items[i]);
    buffer_release(&clearing.strays);
    db_close(clearing.clone);
    db_close(clearing.source);
    return good;
}
