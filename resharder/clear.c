/* clear.c: rows that a shard has and does not own, deleted in small transactions. */
#include <stdlib.h>
#include <string.h>

#include "pgshunt/buffer.h"
#include "resharder/clean.h"

#define BATCH_KEYS 500

struct clearing {
    struct reshard *reshard;
    const struct moves *moves;
    unsigned shard;
    struct db *db;
    const struct keyspace *keyspace;
    const char *ghost; /* its table of ghost keys; NULL: there is none */
    struct move_tables tables;
    int64_t rate;
    bool keep_rows;       /* only ghost keys */
    const unsigned *from; /* only what came from this shard; NULL: whatever it is */
    const char *
        *delete; /* statements of a batch, one for each table of the keyspace; NULL ends them */
    const char *forget; /* ... of its ghost keys; NULL: there are none */
    int64_t rows;       /* deleted of the keyspace */
};

static bool run(struct clearing *clearing, const char *sql)
{
    return db_run(clearing->db, RESHARD_QUERY_MS, &clearing->reshard->error, sql, 0);
}

/* ---- which keys are meant ---- */

static unsigned parts_of(const struct keyspace *keyspace)
{
    return keyspace->nparts ? keyspace->nparts : 1;
}

/* Whether the row of texts is a key of a bucket that moves here or away. */
static bool is_meant(const struct clearing *clearing, const PGresult *rows, int row)
{
    struct move_value parts[SHARDMAP_MAX_PARTS];
    static const uint32_t no_oids[SHARDMAP_MAX_PARTS];
    unsigned bucket;
    for (unsigned i = 0; i < parts_of(clearing->keyspace); i++)
        parts[i] = (struct move_value){
            .bytes = PQgetisnull(rows, row, (int)i) ? NULL : PQgetvalue(rows, row, (int)i),
            .length = (size_t)PQgetlength(rows, row, (int)i),
        };
    if (!move_bucket(clearing->keyspace, parts, no_oids, &bucket))
        return false;
    const struct move *move = moves_find(clearing->moves, clearing->keyspace, bucket);
    if (clearing->from)
        return move && move->source == *clearing->from && move->target == clearing->shard;
    return move && (move->source == clearing->shard || move->target == clearing->shard);
}

/* ---- one batch ---- */

static const char *key_type(const struct keyspace *keyspace, unsigned part)
{
    static const char *const types[] = {"bigint", "uuid", "text"};
    return types[keyspace->nparts ? keyspace->types[part] : keyspace->type];
}

/* "(a, b) IN (SELECT * FROM unnest($1::bigint[], $2::text[]))", of columns named by `name`. */
static const char *condition(struct clearing *clearing, const char *(*name)(void *, unsigned),
                             void *arg)
{
    struct reshard *reshard = clearing->reshard;
    const char *columns = "", *arrays = "";
    for (unsigned i = 0; i < parts_of(clearing->keyspace); i++) {
        columns = RESHARD_TEXT(reshard, "%s%s%s", columns, i ? ", " : "", name(arg, i));
        arrays = RESHARD_TEXT(reshard, "%s%s$%u::%s[]", arrays, i ? ", " : "", i + 1,
                              key_type(clearing->keyspace, i));
    }
    return RESHARD_TEXT(reshard, "(%s) IN (SELECT * FROM unnest(%s))", columns, arrays);
}

static const char *table_column(void *arg, unsigned part)
{
    const struct move_table *table = arg;
    return table->columns[table->key[part]].quoted;
}

static const char *ghost_column(void *arg, unsigned part)
{
    static const char *const numbered[] = {"key1", "key2", "key3", "key4",
                                           "key5", "key6", "key7", "key8"};
    const struct clearing *clearing = arg;
    return clearing->keyspace->nparts ? numbered[part] : "key";
}

/* Keys gathered for a batch: one array literal for each part. */
struct batch {
    struct buffer arrays[SHARDMAP_MAX_PARTS];
    int keys;
};

static void put_element(struct buffer *array, const char *text, bool first)
{
    buffer_append(array, first ? "{\"" : ",\"", 2);
    for (; *text; text++) {
        if (*text == '"' || *text == '\\')
            buffer_append(array, "\\", 1);
        buffer_append(array, text, 1);
    }
    buffer_append(array, "\"", 1);
}

static void batch_add(struct clearing *clearing, struct batch *batch, const PGresult *rows, int row)
{
    for (unsigned i = 0; i < parts_of(clearing->keyspace); i++)
        put_element(&batch->arrays[i], PQgetvalue(rows, row, (int)i), batch->keys == 0);
    batch->keys++;
}

static void batch_reset(struct batch *batch)
{
    for (int i = 0; i < SHARDMAP_MAX_PARTS; i++)
        buffer_release(&batch->arrays[i]);
    *batch = (struct batch){.keys = 0};
}

/* The statements, once: a batch only has other keys. */
static void prepare_statements(struct clearing *clearing)
{
    struct reshard *reshard = clearing->reshard;
    int count = 0;
    clearing->delete =
        arena_array(&reshard->arena, const char *, (size_t)clearing->tables.count + 1);
    for (int i = 0; i < clearing->tables.count && !clearing->keep_rows; i++) {
        struct move_table *table = &clearing->tables.items[i];
        if (table->rule->keyspace == clearing->keyspace)
            clearing->delete[count++] =
                RESHARD_TEXT(reshard, "DELETE FROM %s WHERE %s", table->relation,
                             condition(clearing, table_column, table));
    }
    clearing->forget = clearing->ghost
                           ? RESHARD_TEXT(reshard, "DELETE FROM %s WHERE %s", clearing->ghost,
                                          condition(clearing, ghost_column, clearing))
                           : NULL;
}

static bool delete_by(struct clearing *clearing, const struct batch *batch, const char *statement,
                      int64_t *rows)
{
    const char *values[SHARDMAP_MAX_PARTS] = {NULL};
    for (unsigned i = 0; i < parts_of(clearing->keyspace); i++)
        values[i] = batch->arrays[i].data;
    PGresult *result = db_query(clearing->db, RESHARD_QUERY_MS, &clearing->reshard->error,
                                statement, (int)parts_of(clearing->keyspace), values[0], values[1],
                                values[2], values[3], values[4], values[5], values[6], values[7]);
    if (result)
        *rows += atoll(PQcmdTuples(result));
    PQclear(result);
    return result != NULL;
}

static bool delete_batch(struct clearing *clearing, struct batch *batch)
{
    int64_t keys = 0;
    if (!run(clearing, "BEGIN"))
        return false;
    for (unsigned i = 0; i < parts_of(clearing->keyspace); i++)
        buffer_append(&batch->arrays[i], "}", 2); /* with its NUL */
    for (int i = 0; clearing->delete[i]; i++)
        if (!delete_by(clearing, batch, clearing->delete[i], &clearing->rows))
            return false;
    return (!clearing->forget || delete_by(clearing, batch, clearing->forget, &keys)) &&
           run(clearing, "COMMIT");
}

/* ---- throttling ---- */

static int64_t wal_position(struct clearing *clearing)
{
    PGresult *rows =
        db_query(clearing->db, RESHARD_QUERY_MS, &clearing->reshard->error,
                 "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint", 0);
    int64_t position = rows ? atoll(PQgetvalue(rows, 0, 0)) : -1;
    PQclear(rows);
    return position;
}

static bool throttle(struct clearing *clearing, int64_t wal, int64_t began)
{
    int64_t now = clearing->rate ? wal_position(clearing) : 0;
    if (now < 0)
        return false;
    int64_t due = clearing->rate ? began + (now - wal) * 1000 / clearing->rate : 0;
    while (db_clock_ms() < due && !reshard_stopped(clearing->reshard))
        reshard_sleep(clearing->reshard, 10000);
    return !reshard_stopped(clearing->reshard);
}

static void tell_progress(struct clearing *clearing, bool done)
{
    struct reshard_progress progress = {
        .phase = RESHARD_PHASE_CLEAN,
        .table = clearing->keyspace->name,
        .source = clearing->reshard->database->shards[clearing->shard].name,
        .rows = clearing->rows,
        .rows_expected = -1,
        .bytes_expected = -1,
        .done = done,
    };
    struct reshard_event event = {.kind = RESHARD_PROGRESS, .text = "", .progress = &progress};
    clearing->reshard->request->tell(clearing->reshard->request->arg, &event);
}

static bool flush(struct clearing *clearing, struct batch *batch)
{
    int64_t began = db_clock_ms(), wal = clearing->rate ? wal_position(clearing) : 0;
    bool good = wal >= 0 && (!batch->keys || delete_batch(clearing, batch));
    batch_reset(batch);
    if (good)
        tell_progress(clearing, false);
    return good && throttle(clearing, wal, began);
}

/* ---- all keys of a relation ---- */

/* Deletes by the keys that `query` gives (texts), read bit by bit on a session of its own. */
static bool clear_by(struct clearing *clearing, const char *query)
{
    struct reshard *reshard = clearing->reshard;
    struct db *reader = reshard_open(reshard, clearing->shard, &reshard->error);
    struct batch batch = {.keys = 0};
    bool good = reader && db_run(reader, RESHARD_QUERY_MS, &reshard->error, "BEGIN READ ONLY", 0) &&
                db_run(reader, RESHARD_QUERY_MS, &reshard->error,
                       RESHARD_TEXT(reshard, "DECLARE keys NO SCROLL CURSOR FOR %s", query), 0);
    for (int count = 1; good && count;) {
        PGresult *rows =
            db_query(reader, RESHARD_QUERY_MS, &reshard->error, "FETCH 5000 FROM keys", 0);
        count = rows ? PQntuples(rows) : 0;
        good = rows != NULL;
        for (int i = 0; good && i < count; i++) {
            if (is_meant(clearing, rows, i))
                batch_add(clearing, &batch, rows, i);
            if (batch.keys == BATCH_KEYS)
                good = flush(clearing, &batch);
        }
        PQclear(rows);
    }
    good = good && flush(clearing, &batch);
    batch_reset(&batch);
    db_close(reader);
    return good;
}

static const char *columns_of(struct clearing *clearing, const char *(*name)(void *, unsigned),
                              void *arg)
{
    const char *columns = "";
    for (unsigned i = 0; i < parts_of(clearing->keyspace); i++)
        columns =
            RESHARD_TEXT(clearing->reshard, "%s%s%s::text", columns, i ? ", " : "", name(arg, i));
    return columns;
}

/* By the ghost keys: the quick way. */
static bool clear_ghosts(struct clearing *clearing)
{
    return !clearing->ghost ||
           clear_by(clearing,
                    RESHARD_TEXT(clearing->reshard, "SELECT %s FROM %s",
                                 columns_of(clearing, ghost_column, clearing), clearing->ghost));
}

/* ... and what they did not know: nothing, but a row that stays would be seen when the ghosts are off. */
static bool clear_rest(struct clearing *clearing)
{
    for (int i = 0; i < clearing->tables.count; i++) {
        struct move_table *table = &clearing->tables.items[i];
        if (table->rule->keyspace != clearing->keyspace)
            continue;
        const char *query =
            RESHARD_TEXT(clearing->reshard, "SELECT DISTINCT %s FROM %s",
                         columns_of(clearing, table_column, table), table->relation);
        if (!clear_by(clearing, query))
            return false;
    }
    return true;
}

/* ---- a shard ---- */

static bool find_ghosts(struct clearing *clearing)
{
    struct reshard *reshard = clearing->reshard;
    const char *ghost = tables_ghost(clearing->keyspace, &reshard->arena);
    PGresult *rows = db_query(clearing->db, RESHARD_QUERY_MS, &reshard->error,
                              "SELECT to_regclass($1) IS NOT NULL", 1, ghost);
    clearing->ghost = rows && PQgetvalue(rows, 0, 0)[0] == 't' ? ghost : NULL;
    PQclear(rows);
    return rows != NULL;
}

static bool clear_keyspace(struct clearing *clearing)
{
    clearing->rows = 0;
    if (!find_ghosts(clearing))
        return false;
    prepare_statements(clearing);
    if (!clear_ghosts(clearing))
        return false;
    if (!clearing->keep_rows && !clear_rest(clearing))
        return false;
    if (!clearing->keep_rows)
        tell_progress(clearing, true);
    return true;
}

static bool concerns(const struct clearing *clearing, const struct keyspace *keyspace)
{
    for (int i = 0; i < clearing->moves->count; i++) {
        const struct move *move = &clearing->moves->items[i];
        if (move->keyspace == keyspace &&
            (move->source == clearing->shard || move->target == clearing->shard))
            return true;
    }
    return false;
}

/* Triggers and foreign keys must not act on rows that live on elsewhere. */
static bool open_session(struct clearing *clearing)
{
    struct reshard *reshard = clearing->reshard;
    clearing->db = reshard_open(reshard, clearing->shard, &reshard->error);
    return clearing->db && run(clearing, "SET session_replication_role = replica") &&
           tables_read(clearing->db, clearing->moves, &reshard->arena, &clearing->tables,
                       &reshard->error);
}

static bool clear(struct clearing *clearing)
{
    bool good = open_session(clearing);
    for (unsigned k = 0; good && k < shardmap_keyspaces(clearing->moves->map); k++) {
        clearing->keyspace = shardmap_keyspace(clearing->moves->map, k);
        good = !concerns(clearing, clearing->keyspace) || clear_keyspace(clearing);
    }
    db_close(clearing->db);
    return good;
}

bool clear_shard(struct reshard *reshard, const struct moves *moves, unsigned shard, int64_t rate)
{
    struct clearing clearing = {.reshard = reshard, .moves = moves, .shard = shard, .rate = rate};
    return clear(&clearing);
}

bool clear_ghost_keys(struct reshard *reshard, const struct moves *moves, unsigned shard)
{
    struct clearing clearing = {
        .reshard = reshard, .moves = moves, .shard = shard, .keep_rows = true};
    return clear(&clearing);
}

/* Whether all its rows there have come, or come, from one shard: none is the target's own. */
static bool is_all_from(const struct clearing *clearing)
{
    for (int i = 0; i < clearing->moves->count; i++) {
        const struct move *move = &clearing->moves->items[i];
        if (move->keyspace == clearing->keyspace && move->target == clearing->shard &&
            move->source != *clearing->from)
            return false;
    }
    return !clearing->moves->tables && !shardmap_buckets_of(clearing->keyspace, clearing->shard);
}

bool clear_table(struct reshard *reshard, unsigned source, unsigned target,
                 const struct move_table *table)
{
    struct clearing clearing = {.reshard = reshard,
                                .moves = &reshard->moves,
                                .shard = target,
                                .from = &source,
                                .keyspace = table->rule->keyspace};
    bool good = open_session(&clearing);
    const struct move_table *there =
        good ? tables_find(&clearing.tables, table->schema, table->name) : NULL;
    if (there && is_all_from(&clearing)) {
        good = run(&clearing, RESHARD_TEXT(reshard, "TRUNCATE %s", there->relation));
    } else if (there) {
        clearing.tables = (struct move_tables){.items = (struct move_table *)there, .count = 1};
        prepare_statements(&clearing);
        good = clear_rest(&clearing);
    }
    db_close(clearing.db);
    return good;
}
