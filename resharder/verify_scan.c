/* verify_scan.c: a table read on all shards at once, under their snapshots, each row made a number. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "resharder/snapshot.h"
#include "resharder/verify_internal.h"

#define REST_BYTES 65536
#define PAGES 4096
#define PIECE (64 << 10)
#define TELL_EVERY_MS 500
#define NO_RANGES_BEFORE 140000

/* A place's chunks of the table at work. */
struct scan_queue {
    const struct verify_place *place;
    const struct move_table *table; /* NULL: the shard does not have it */
    struct copy_plan plan;
    struct copy_columns columns;
    bool wanted[SHARDKEY_BUCKETS]; /* buckets whose rows are read */
    atomic_int next;
};

struct verify_thread {
    struct verify *verify;
    int place;
    struct db *db; /* owned */
    pthread_t thread;
    struct db_error error;
    /* the table at work */
    struct scan_queue *queue;
    struct verify_sum *sums; /* by bucket; NULL: rows are wanted. Owned */
    struct verify_rows *rows;
    unsigned bucket;    /* of the row at work */
    const char *key;    /* ... */
    XXH3_state_t *hash; /* ...; owned */
    bool good;
};

static const char session_settings[] =
    "SELECT set_config('row_security', 'off', false), set_config('enable_seqscan', 'off', false),"
    " set_config('max_parallel_workers_per_gather', '0', false),"
    " set_config('lc_monetary', 'C', false)";

/* ---- sessions ---- */

static bool open_thread(struct verify *verify, struct verify_thread *thread, int place)
{
    struct db_error *error = &verify->reshard->error;
    *thread = (struct verify_thread){.verify = verify, .place = place};
    thread->hash = XXH3_createState();
    thread->db = reshard_open(verify->reshard, verify->places[place].shard, error);
    if (!thread->db || !db_run(thread->db, RESHARD_QUERY_MS, error, session_settings, 0))
        return false;
    db_set_stop(thread->db, &verify->halt);
    return snapshot_enter(thread->db, verify->places[place].snapshot, error);
}

bool verify_open(struct verify *verify)
{
    int count = verify->jobs > verify->nplaces ? verify->jobs : verify->nplaces;
    verify->threads = mem_alloc(sizeof *verify->threads * (size_t)(count ? count : 1));
    for (; verify->nthreads < count; verify->nthreads++)
        if (!open_thread(verify, &verify->threads[verify->nthreads],
                         verify->nthreads % verify->nplaces)) {
            verify->nthreads++;
            return false;
        }
    return true;
}

void verify_close(struct verify *verify)
{
    for (int i = 0; i < verify->nthreads; i++) {
        db_close(verify->threads[i].db);
        XXH3_freeState(verify->threads[i].hash);
    }
    free(verify->threads);
    verify->threads = NULL;
}

/* ---- one row ---- */

static int choose(void *arg, const struct move_value *key)
{
    struct verify_thread *thread = arg;
    const struct scan_queue *queue = thread->queue;
    if (!move_bucket(queue->table->rule->keyspace, key, queue->columns.key_oids, &thread->bucket) ||
        !queue->wanted[thread->bucket])
        return COPYROW_NOBODY;
    if (thread->rows) {
        const struct move_value *primary = &key[queue->columns.nkey];
        if (!thread->rows->wanted[thread->bucket])
            return COPYROW_NOBODY;
        pthread_mutex_lock(&thread->rows->lock);
        thread->key = primary->bytes
                          ? arena_strndup(&thread->rows->arena, primary->bytes, primary->length)
                          : "";
        pthread_mutex_unlock(&thread->rows->lock);
    }
    XXH3_64bits_reset(thread->hash);
    return 0;
}

static void take(void *arg, int who, const char *bytes, size_t length)
{
    (void)who;
    XXH3_64bits_update(((struct verify_thread *)arg)->hash, bytes, length);
}

static void keep_row(struct verify_thread *thread, uint64_t hash)
{
    struct verify_rows *rows = thread->rows;
    pthread_mutex_lock(&rows->lock);
    if (rows->count == rows->room) {
        rows->room = rows->room ? 2 * rows->room : 256;
        rows->items = mem_realloc(rows->items, sizeof *rows->items * rows->room);
    }
    rows->items[rows->count++] =
        (struct verify_row){thread->key, hash, thread->bucket, thread->queue->place->side};
    pthread_mutex_unlock(&rows->lock);
}

static void end_row(void *arg, int who)
{
    struct verify_thread *thread = arg;
    uint64_t hash = XXH3_64bits_digest(thread->hash);
    (void)who;
    if (thread->rows) {
        keep_row(thread, hash);
        return;
    }
    struct verify_sum *sum = &thread->sums[thread->bucket];
    sum->rows++;
    sum->mixed ^= hash;
    sum->added += hash * 0x9E3779B185EBCA87u >> 1; /* a row twice is seen here, not in `mixed` */
}

/* ---- a chunk ---- */

static bool fails(struct verify_thread *thread, const char *text)
{
    struct db_error why = thread->error;
    snprintf(thread->error.text, sizeof thread->error.text, "%s: %.400s",
             thread->queue->place->name, text ? text : why.text);
    return false;
}

/* Until the bytes are allowed. */
static void rest(struct verify *verify, int64_t bytes)
{
    if (!verify->rate)
        return;
    int64_t due = atomic_load(&verify->allowed_ms), next;
    do
        next = (due > db_clock_ms() ? due : db_clock_ms()) + bytes * 1000 / verify->rate;
    while (!atomic_compare_exchange_weak(&verify->allowed_ms, &due, next));
    while (!verify->halt && db_clock_ms() < due && !reshard_stopped(verify->reshard))
        reshard_sleep(verify->reshard, 10000);
}

static bool read_pieces(struct verify_thread *thread, const struct copyio *io, struct copyrow *row)
{
    char *bytes;
    int length;
    int64_t unrested = 0;
    while ((length = copyio_get(io, &bytes, &thread->error)) > 0) {
        bool good = copyrow_feed(row, bytes, (size_t)length);
        PQfreemem(bytes);
        thread->verify->bytes += length;
        unrested += length;
        if (unrested >= REST_BYTES) {
            rest(thread->verify, unrested);
            unrested = 0;
        }
        if (!good)
            return fails(thread, row->error);
    }
    if (length < 0)
        return fails(thread, NULL);
    rest(thread->verify, unrested);
    return copyrow_finish(row) || fails(thread, row->error);
}

static bool read_chunk(struct verify_thread *thread, const struct copy_chunk *chunk)
{
    struct scan_queue *queue = thread->queue;
    struct copyrow_taker taker = {choose, take, end_row, thread};
    struct copyio io = {thread->db, &thread->verify->halt};
    struct copyrow row;
    char *sql = copyplan_read(queue->table, &queue->columns, chunk, "");
    bool good = copyio_begin_out(&io, sql, &thread->error) || fails(thread, NULL);
    free(sql);
    copyrow_begin(&row, &taker, queue->columns.binary, queue->columns.nkey + (thread->rows ? 1 : 0),
                  queue->columns.count);
    good = good && read_pieces(thread, &io, &row);
    thread->verify->rows += row.rows;
    copyrow_release(&row);
    return good;
}

static void *work(void *arg)
{
    struct verify_thread *thread = arg;
    int chunk;
    thread->good = true;
    while (thread->good && !thread->verify->halt &&
           (chunk = atomic_fetch_add(&thread->queue->next, 1)) < thread->queue->plan.count)
        thread->good = read_chunk(thread, &thread->queue->plan.chunks[chunk]);
    if (!thread->good)
        thread->verify->halt = 1;
    return NULL;
}

/* ---- a table ---- */

/* The primary key as text stands behind the sharding key; without one, what the row is. */
static void add_primary(struct verify *verify, const struct move_table *table,
                        struct copy_columns *columns)
{
    const char *list = "";
    for (int i = 0; i < table->nprimary; i++)
        list = RESHARD_TEXT(verify->reshard, "%s%s%s", list, i ? ", " : "",
                            table->columns[table->primary[i]].quoted);
    list = table->nprimary ? RESHARD_TEXT(verify->reshard, "ROW(%s)::text", list)
                           : RESHARD_TEXT(verify->reshard, "md5(ROW(%s)::text)", columns->list);
    /* behind the sharding key's columns: what is before is as long as they are */
    const char *key = "", *rest = columns->list;
    for (unsigned i = 0; i < table->nkey; i++) {
        const char *name = table->columns[table->key[i]].quoted;
        key = RESHARD_TEXT(verify->reshard, "%s%s, ", key, name);
        rest += strlen(name) + (i + 1 < columns->count ? 2 : 0);
    }
    columns->list = RESHARD_TEXT(verify->reshard, "%s%s%s%s", key, list, *rest ? ", " : "", rest);
    columns->count++;
}

static void want_buckets(const struct verify *verify, struct scan_queue *queue)
{
    const struct keyspace *keyspace = queue->table->rule->keyspace;
    for (int i = 0; i < verify->moves->count; i++) {
        const struct move *move = &verify->moves->items[i];
        unsigned shard = queue->place->side == VERIFY_OWNER ? move->source : move->target;
        for (unsigned b = move->first;
             shard == queue->place->shard && move->keyspace == keyspace && b <= move->last; b++)
            queue->wanted[b] = true;
    }
}

/* A table's columns and format are the owner's on both sides: the same bytes then mean the same. */
static void plan_place(struct verify *verify, struct scan_queue *queue,
                       const struct verify_place *place, const struct move_table *table,
                       const struct copy_columns *columns)
{
    struct arena *arena = &verify->reshard->arena;
    queue->place = place;
    queue->columns = *columns;
    queue->table = tables_find(place->tables, table->schema, table->name);
    if (!queue->table)
        return;
    for (unsigned i = 0; i < table->nkey; i++)
        queue->columns.key_oids[i] = queue->table->columns[queue->table->key[i]].base_oid;
    struct move_tables one = {.items = (struct move_table *)queue->table, .count = 1};
    struct db *db = reshard_primary(verify->reshard, place->shard);
    bool ranges = db && PQserverVersion(db_connection(db)) >= NO_RANGES_BEFORE;
    want_buckets(verify, queue);
    copyplan_chunks(&one, PAGES, ranges, arena, &queue->plan);
}

static void add_sums(struct verify_sum *to, const struct verify_sum *from)
{
    for (int b = 0; b < SHARDKEY_BUCKETS; b++) {
        to[b].rows += from[b].rows;
        to[b].mixed ^= from[b].mixed;
        to[b].added += from[b].added;
    }
}

static void tell(struct verify *verify, const struct move_table *table, bool done)
{
    struct reshard_progress progress = {.phase = RESHARD_PHASE_VERIFY,
                                        .table = table->relation,
                                        .rows = verify->rows,
                                        .bytes = verify->bytes,
                                        .rows_expected = -1,
                                        .bytes_expected = -1,
                                        .lag_bytes = -1,
                                        .lag_seconds = -1,
                                        .done = done};
    struct reshard_event event = {
        .kind = RESHARD_PROGRESS, .object = table->relation, .progress = &progress};
    verify->reshard->request->tell(verify->reshard->request->arg, &event);
}

static bool are_done(const struct verify *verify, const struct scan_queue *queues)
{
    for (int i = 0; i < verify->nplaces; i++)
        if (queues[i].next < queues[i].plan.count)
            return false;
    return true;
}

static void watch(struct verify *verify, const struct move_table *table,
                  const struct scan_queue *queues)
{
    int64_t told_at = db_clock_ms();
    while (!verify->halt && !are_done(verify, queues)) {
        if (reshard_stopped(verify->reshard))
            verify->halt = 1;
        if (db_clock_ms() - told_at >= TELL_EVERY_MS) {
            tell(verify, table, false);
            told_at = db_clock_ms();
        }
        reshard_sleep(verify->reshard, 20000);
    }
}

static bool run_threads(struct verify *verify, const struct move_table *table,
                        struct scan_queue *queues, struct verify_sums *sums,
                        struct verify_rows *rows)
{
    bool good = true;
    int started = 0;
    for (; started < verify->nthreads; started++) {
        struct verify_thread *thread = &verify->threads[started];
        thread->queue = &queues[thread->place];
        thread->rows = rows;
        thread->sums = rows ? NULL : mem_alloc(sizeof *thread->sums * SHARDKEY_BUCKETS);
        if (pthread_create(&thread->thread, NULL, work, thread) != 0) {
            snprintf(verify->reshard->error.text, sizeof verify->reshard->error.text,
                     "cannot start a thread");
            free(thread->sums);
            verify->halt = 1;
            good = false;
            break;
        }
    }
    watch(verify, table, queues);
    for (int i = 0; i < started; i++) {
        struct verify_thread *thread = &verify->threads[i];
        pthread_join(thread->thread, NULL);
        if (sums)
            add_sums(sums->side[thread->queue->place->side], thread->sums);
        if (good && !thread->good)
            verify->reshard->error = thread->error;
        good = good && thread->good;
        free(thread->sums);
        thread->sums = NULL;
    }
    return good && !reshard_stopped(verify->reshard);
}

bool verify_read(struct verify *verify, const struct move_table *table, struct verify_sums *sums,
                 struct verify_rows *rows)
{
    struct reshard *reshard = verify->reshard;
    struct copy_columns columns;
    struct db *db = NULL;
    for (int i = 0; i < verify->nplaces && !db;
         i++) /* whose table it is: type OIDs are that shard's */
        if (tables_find(verify->places[i].tables, table->schema, table->name) == table)
            db = reshard_primary(reshard, verify->places[i].shard);
    if (!db || !copyplan_columns(db, table, true, &reshard->arena, &columns, &reshard->error))
        return false;
    if (rows)
        add_primary(verify, table, &columns);
    struct scan_queue *queues = mem_alloc(sizeof *queues * (size_t)verify->nplaces);
    for (int i = 0; i < verify->nplaces; i++)
        plan_place(verify, &queues[i], &verify->places[i], table, &columns);
    verify->rows = verify->bytes = 0;
    bool good = run_threads(verify, table, queues, sums, rows);
    tell(verify, table, good);
    free(queues);
    return good;
}
