/* copy_chunk.c: one range of pages read, its rows told apart by bucket, and written to the targets. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "resharder/copy_internal.h"

#define PIECE (64 << 10) /* so much is given to a target at once */
#define TEMPORARY "pg_temp.pgshunt_copy"

static bool fails(struct copier *copier, const char *name, const char *text)
{
    if (text) {
        copier->error = (struct db_error){.text = ""};
        snprintf(copier->error.text, sizeof copier->error.text, "%s", text);
        if (!copier->run->halt) /* not a lost connection: it does not go away */
            memcpy(copier->error.sqlstate, "XX000", sizeof copier->error.sqlstate);
    }
    copier->error_name = name;
    return false;
}

static bool source_fails(struct copier *copier, const char *text)
{
    return fails(copier, copier->queue->name, text);
}

static const struct keyspace *keyspace_of(const struct copier *copier)
{
    return copier->table->rule->keyspace;
}

/* ---- where a row goes ---- */

static void route_keyspace(struct copier *copier)
{
    const struct moves *moves = &copier->run->reshard->moves;
    const struct copy_source *source = copier->queue->source;
    if (copier->routed == keyspace_of(copier))
        return;
    copier->routed = keyspace_of(copier);
    for (int i = 0; i < SHARDKEY_BUCKETS; i++)
        copier->route[i] = COPYROW_NOBODY;
    for (int m = 0; m < moves->count; m++) {
        const struct move *move = &moves->items[m];
        if (move->keyspace != copier->routed || move->source != source->shard)
            continue;
        for (int t = 0; t < source->ntargets; t++)
            for (unsigned b = move->first; source->targets[t] == move->target && b <= move->last;
                 b++)
                copier->route[b] = (int16_t)t;
    }
}

static bool target_needs_keys(const struct copier *copier, int who)
{
    const struct copy_queue *queue = copier->queue;
    return queue->target_keys[copier->at->table * queue->source->ntargets + who];
}

static bool needs_keys(const struct copier *copier, int who)
{
    return copier->queue->source_keys[copier->at->table] || target_needs_keys(copier, who);
}

static int choose(void *arg, const struct move_value *key)
{
    struct copier *copier = arg;
    unsigned bucket;
    if (!move_bucket(copier->routed, key, copier->columns->key_oids, &bucket))
        return COPYROW_NOBODY; /* no bucket: it stays */
    int who = copier->route[bucket];
    if (who == COPYROW_NOBODY || copier->sinks[who].need == COPY_NEED_NOTHING)
        return COPYROW_NOBODY;
    if (!needs_keys(copier, who))
        return who;
    /* It is a key: it has a bucket. */
    return copyghosts_add(&copier->sinks[who].keys, key, copier->columns->key_oids)
               ? who
               : COPYROW_NOBODY;
}

static void take(void *arg, int who, const char *bytes, size_t length)
{
    struct copy_sink *sink = &((struct copier *)arg)->sinks[who];
    buffer_append(&sink->out, bytes, length);
    sink->bytes += (int64_t)length;
}

static void end_row(void *arg, int who)
{
    ((struct copier *)arg)->sinks[who].rows++;
}

/* ---- a target ---- */

static bool run_at(struct copier *copier, struct copy_sink *sink, const char *sql)
{
    return db_run(sink->db, RESHARD_QUERY_MS, &copier->error, sql, 0) ||
           fails(copier, sink->name, NULL);
}

/* With a later pass a row may be there: it is as it has to be. */
static bool is_later(const struct copier *copier)
{
    return copier->queue->source->pass > 1;
}

static bool open_sink(struct copier *copier, struct copy_sink *sink)
{
    char *sql = NULL;
    bool good = run_at(copier, sink, "BEGIN");
    if (good && is_later(copier)) {
        if (asprintf(&sql,
                     "CREATE TEMPORARY TABLE pgshunt_copy ON COMMIT DROP AS"
                     " SELECT %s FROM %s WITH NO DATA",
                     copier->columns->list, copier->table->relation) < 0)
            abort();
        good = run_at(copier, sink, sql);
        free(sql);
    }
    if (!good)
        return false;
    if (asprintf(&sql, "COPY %s (%s) FROM STDIN (FORMAT %s)",
                 is_later(copier) ? TEMPORARY : copier->table->relation, copier->columns->list,
                 copier->columns->binary ? "binary" : "text") < 0)
        abort();
    good = copyio_begin_in(&sink->io, sql, &copier->error);
    free(sql);
    if (good && copier->columns->binary)
        good = copyio_put(&sink->io, copyrow_header, sizeof copyrow_header, &copier->error);
    sink->open = good;
    return good || fails(copier, sink->name, NULL);
}

static bool put_out(struct copier *copier, struct copy_sink *sink)
{
    if (!buffer_length(&sink->out))
        return true;
    if (!sink->open && !open_sink(copier, sink))
        return false;
    if (!copyio_put(&sink->io, buffer_head(&sink->out), buffer_length(&sink->out), &copier->error))
        return fails(copier, sink->name, NULL);
    buffer_clear(&sink->out);
    return true;
}

static bool take_keys(struct copier *copier, struct copy_keys *keys, const char *name)
{
    bool under_way = keys->under_way;
    keys->under_way = false;
    return !under_way || copyghosts_take(&keys->io, &copier->error) || fails(copier, name, NULL);
}

static bool send_keys(struct copier *copier, struct copy_sink *sink, struct copy_keys *keys,
                      const char *name)
{
    const char *table = copier->queue->ghosts[copier->at->table];
    if (!take_keys(copier, keys, name))
        return false;
    keys->under_way = copyghosts_send(&sink->keys, &keys->io, table, &copier->error);
    return keys->under_way || fails(copier, name, NULL);
}

static bool put_keys(struct copier *copier, struct copy_sink *sink)
{
    int who = (int)(sink - copier->sinks);
    if (!sink->keys.count)
        return true;
    if (target_needs_keys(copier, who) && !send_keys(copier, sink, &sink->ghosts, sink->name))
        return false;
    if (copier->queue->source_keys[copier->at->table] &&
        !send_keys(copier, sink, &copier->ghosts, copier->queue->name))
        return false;
    copyghosts_clear(&sink->keys);
    return true;
}

/* Keys are there before their rows can be seen; on the source before the chunk counts as copied. */
static bool put_all_keys(struct copier *copier)
{
    int ntargets = copier->queue->source->ntargets;
    bool good = true;
    for (int i = 0; i < ntargets && good; i++)
        good = put_keys(copier, &copier->sinks[i]);
    for (int i = 0; i < ntargets && good; i++)
        good = take_keys(copier, &copier->sinks[i].ghosts, copier->sinks[i].name);
    return good && take_keys(copier, &copier->ghosts, copier->queue->name);
}

static bool put_pieces(struct copier *copier, size_t most)
{
    for (int i = 0; i < copier->queue->source->ntargets; i++) {
        struct copy_sink *sink = &copier->sinks[i];
        if (buffer_length(&sink->out) >= most && !put_out(copier, sink))
            return false;
        if (copyghosts_bytes(&sink->keys) >= COPYGHOSTS_BYTES_MAX && !put_keys(copier, sink))
            return false;
    }
    return true;
}

/* The chunk's row; in a later pass one more says that nothing newer is missing. */
static char *chunk_row(struct copier *copier, const struct copy_sink *sink)
{
    PGconn *pg = db_connection(sink->db);
    const struct copy_chunk *at = copier->at;
    char *job = PQescapeLiteral(pg, copier->run->reshard->request->job,
                                strlen(copier->run->reshard->request->job));
    char *source = PQescapeLiteral(pg, copier->queue->name, strlen(copier->queue->name));
    const char *leaf = copier->table->leaves[at->leaf].relation;
    char *relation = PQescapeLiteral(pg, leaf, strlen(leaf)), *sql;
    int first = sink->need == COPY_NEED_ALL ? 0 : copier->queue->source->pass;
    int last = is_later(copier) ? copier->queue->source->pass : 0;
    if (!job || !source || !relation ||
        asprintf(&sql,
                 "INSERT INTO pgshunt.chunk SELECT %s, %s, %s, %s, p, %d, '(%lld,0)',"
                 " nullif('(%lld,0)', '(0,0)'), CASE p WHEN %d THEN %lld ELSE 0 END, CASE p WHEN "
                 "%d THEN %lld ELSE 0 END"
                 " FROM unnest(ARRAY[%d, %d]) p ON CONFLICT DO NOTHING",
                 job, source, relation, copier->queue->files[copier->chunk], at->number,
                 (long long)at->low, (long long)at->high, first, (long long)sink->rows, first,
                 (long long)sink->bytes, first, last) < 0)
        abort();
    PQfreemem(job);
    PQfreemem(source);
    PQfreemem(relation);
    return sql;
}

static bool end_copy(struct copier *copier, struct copy_sink *sink)
{
    if (copier->columns->binary &&
        !copyio_put(&sink->io, copyrow_trailer, sizeof copyrow_trailer, &copier->error))
        return fails(copier, sink->name, NULL);
    if (!copyio_end_in(&sink->io, &copier->error))
        return fails(copier, sink->name, NULL);
    if (!is_later(copier))
        return true;
    char *sql;
    if (asprintf(&sql,
                 "INSERT INTO %s (%s) OVERRIDING SYSTEM VALUE SELECT %s FROM " TEMPORARY
                 " ON CONFLICT DO NOTHING",
                 copier->table->relation, copier->columns->list, copier->columns->list) < 0)
        abort();
    struct db_error *error = &copier->error;
    bool good = db_run(sink->db, 3600000, error, sql, 0) || fails(copier, sink->name, NULL);
    free(sql);
    return good;
}

static bool commit_sink(struct copier *copier, struct copy_sink *sink)
{
    if (!put_out(copier, sink) || (sink->open && !end_copy(copier, sink)))
        return false;
    char *sql = chunk_row(copier, sink);
    bool good = run_at(copier, sink, sql) && (!sink->open || run_at(copier, sink, "COMMIT"));
    free(sql);
    sink->open = false;
    if (good && sink->need == COPY_NEED_ALL)
        atomic_fetch_add(&copier->queue->progress[copier->at->table].rows, sink->rows);
    return good;
}

/* ---- the source ---- */

/* A rewrite of the table (VACUUM FULL, TRUNCATE, ALTER) since the snapshot has moved its rows, or hidden them from it.
 * In this transaction there can be none any more: COPY has locked the table. */
static bool check_file(struct copier *copier)
{
    char oid[16];
    snprintf(oid, sizeof oid, "%u", copier->table->leaves[copier->at->leaf].oid);
    PGresult *rows = db_query(copier->read, RESHARD_QUERY_MS, &copier->error,
                              "SELECT relfilenode = pg_relation_filenode(oid)"
                              " AND relfilenode = $2::oid FROM pg_class WHERE oid = $1::oid",
                              2, oid, copier->queue->files[copier->chunk]);
    if (!rows)
        return source_fails(copier, NULL);
    bool same = PQntuples(rows) && PQgetvalue(rows, 0, 0)[0] == 't';
    PQclear(rows);
    if (same)
        return true;
    source_fails(copier, "a table was rewritten while it was copied");
    snprintf(copier->error.sqlstate, sizeof copier->error.sqlstate, COPY_REWRITTEN);
    return false;
}

static bool feed(struct copier *copier, struct copyrow *row, const char *bytes, size_t length)
{
    for (size_t at = 0; at < length; at += PIECE) {
        size_t piece = length - at < PIECE ? length - at : PIECE;
        if (!copyrow_feed(row, bytes + at, piece))
            return source_fails(copier, row->error);
        if (!put_pieces(copier, PIECE))
            return false;
    }
    return true;
}

static bool read_rows(struct copier *copier, struct copyrow *row)
{
    char *bytes;
    int length;
    int64_t unrested = 0;
    while ((length = copyio_get(&copier->io, &bytes, &copier->error)) > 0) {
        bool good = feed(copier, row, bytes, (size_t)length);
        PQfreemem(bytes);
        unrested += length;
        if (good && unrested >= PIECE) {
            good = copy_rest(copier->run, unrested) || source_fails(copier, "interrupted");
            unrested = 0;
        }
        if (!good)
            return false;
    }
    if (length < 0)
        return source_fails(copier, NULL);
    if (!copy_rest(copier->run, unrested))
        return source_fails(copier, "interrupted");
    return copyrow_finish(row) || source_fails(copier, row->error);
}

/* What one target needs all of, is read as a whole: others take what they need of it. */
static bool begin_reading(struct copier *copier)
{
    const struct copy_source *source = copier->queue->source;
    bool all = false;
    char newer[160] = "";
    for (int i = 0; i < source->ntargets; i++)
        all = all || copier->sinks[i].need == COPY_NEED_ALL;
    if (!all)
        snprintf(newer, sizeof newer, " AND age(xmin) <= age('%s'::xid)", source->oldest);
    if (!snapshot_enter(copier->read, source->snapshot, &copier->error))
        return source_fails(copier, NULL);
    char *sql = copyplan_read(copier->table, copier->columns, copier->at, newer);
    bool good = copyio_begin_out(&copier->io, sql, &copier->error);
    free(sql);
    return good || source_fails(copier, NULL);
}

static bool copy_rows(struct copier *copier)
{
    struct copyrow_taker taker = {choose, take, end_row, copier};
    struct copyrow row;
    copyrow_begin(&row, &taker, copier->columns->binary, copier->columns->nkey,
                  copier->columns->count);
    bool good = begin_reading(copier) && read_rows(copier, &row) && check_file(copier) &&
                (db_run(copier->read, RESHARD_QUERY_MS, &copier->error, "COMMIT", 0) ||
                 source_fails(copier, NULL));
    copyrow_release(&row);
    return good;
}

bool copy_chunk(struct copier *copier, int chunk)
{
    struct copy_queue *queue = copier->queue;
    int ntargets = queue->source->ntargets;
    bool needed = false, good = true;
    copier->chunk = chunk;
    copier->at = &queue->plan.chunks[chunk];
    copier->table = &queue->source->tables->items[copier->at->table];
    copier->columns = &queue->columns[copier->at->table];
    route_keyspace(copier);
    for (int i = 0; i < ntargets; i++) {
        struct copy_sink *sink = &copier->sinks[i];
        sink->need = queue->needs[chunk * ntargets + i];
        sink->rows = sink->bytes = 0;
        buffer_clear(&sink->out);
        copyghosts_clear(&sink->keys);
        sink->keys.keyspace = keyspace_of(copier);
        needed = needed || sink->need != COPY_NEED_NOTHING;
    }
    good = !needed || (copy_rows(copier) && put_all_keys(copier));
    for (int i = 0; i < ntargets && good; i++)
        if (copier->sinks[i].need != COPY_NEED_NOTHING)
            good = commit_sink(copier, &copier->sinks[i]);
    return good;
}
