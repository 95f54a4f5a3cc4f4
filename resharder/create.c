/* create.c: what a job would move, how much that is, and its checks; recording it. */
#include <stdlib.h>
#include <string.h>

#include "pgshunt/catalog.h"
#include "resharder/check.h"
#include "resharder/clone.h"
#include "resharder/disk.h"
#include "resharder/job.h"
#include "resharder/plan.h"
#include "resharder/schema_copy.h"
#include "resharder/table_job.h"

#define USUAL_RATE (50 * 1024 * 1024) /* bytes a second, for the time that is expected */

/* ---- what moves ---- */

static enum reshard_outcome refuse(struct reshard *reshard, const char *text, const char *mend)
{
    reshard_tell(reshard, RESHARD_FAILED, NULL, NULL, text, mend);
    return RESHARD_REFUSED;
}

static bool find_moves(struct reshard *reshard, const struct reshard_wish *wish,
                       struct table_job **tables)
{
    *tables = NULL;
    if (wish->tables)
        return (*tables = table_job_wish(reshard, wish)) != NULL;
    const struct database_config *database = reshard->database;
    unsigned *weights = arena_array(&reshard->arena, unsigned, database->nshards);
    for (int i = 0; i < database->nshards; i++)
        weights[i] = (unsigned)database->shards[i].weight;
    struct reshard_wish informed = *wish;
    struct catalog_load *loads = NULL;
    if (wish->split_hot &&
        !catalog_read_load(reshard_catalog(reshard), reshard->request->database, &reshard->arena,
                           &loads, &informed.nloads, &reshard->error)) {
        reshard_fails(reshard, NULL, "cannot read what buckets are asked for");
        return false;
    }
    informed.loads = loads;
    if (plan_moves(reshard->map, weights, &informed, &reshard->arena, &reshard->moves,
                   &reshard->error))
        return true;
    (void)refuse(reshard, RESHARD_TEXT(reshard, "%s", reshard->error.text),
                 RESHARD_TEXT(reshard, "%s", reshard->error.hint));
    return false;
}

static unsigned all_buckets(const struct reshard *reshard)
{
    unsigned count = 0;
    for (unsigned k = 0; k < shardmap_keyspaces(reshard->map); k++)
        count += shardmap_keyspace(reshard->map, k)->nbuckets;
    return count;
}

/* Of the keyspace, from one shard to the other. */
static unsigned count_buckets(const struct reshard *reshard, const struct keyspace *keyspace,
                              unsigned source, unsigned target)
{
    unsigned count = 0;
    for (int i = 0; i < reshard->moves.count; i++) {
        const struct move *move = &reshard->moves.items[i];
        if (move->keyspace == keyspace && move->source == source && move->target == target)
            count += move->last - move->first + 1;
    }
    return count;
}

static void tell_move(struct reshard *reshard, const struct move *move)
{
    const char *range =
        keyspace_buckets_text(move->keyspace, move->first, move->last, &reshard->arena);
    reshard_tell(
        reshard, RESHARD_PLANNED, shardmap_shard_name(reshard->map, move->source),
        move->keyspace->name,
        RESHARD_TEXT(reshard, "%s to %s", range, shardmap_shard_name(reshard->map, move->target)),
        NULL);
}

/* ---- how much it is ---- */

/* What comes to each shard, summed up. */
struct amounts {
    int64_t *bytes; /* by target */
    int64_t all;
    int64_t rest; /* what does not move, of tables that do */
};

static const char *size_text(struct reshard *reshard, int64_t bytes)
{
    static const char *const units[] = {"bytes", "kB", "MB", "GB", "TB"};
    double size = (double)bytes;
    size_t unit = 0;
    while (size >= 10000 && unit + 1 < sizeof units / sizeof units[0]) {
        size /= 1024;
        unit++;
    }
    return RESHARD_TEXT(reshard, "%.0f %s", size, units[unit]);
}

static const char *time_text(struct reshard *reshard, int64_t seconds)
{
    if (seconds < 120)
        return RESHARD_TEXT(reshard, "%lld s", (long long)(seconds ? seconds : 1));
    if (seconds < 7200)
        return RESHARD_TEXT(reshard, "%lld min", (long long)(seconds / 60));
    return RESHARD_TEXT(reshard, "%lld h %lld min", (long long)(seconds / 3600),
                        (long long)(seconds / 60 % 60));
}

/*
 * The leaves' statistics, where the root has none. Rows -1: nobody knows. What they take is guessed from the columns' average width, for a
 * bloated table is copied without its bloat; where that is not known, and of what is stored apart, from the share of rows that live.
 */
static const char amount_query[] =
    "SELECT coalesce(sum(c.reltuples) FILTER (WHERE c.reltuples >= 0), -1),"
    " coalesce(sum(least(f.heap, coalesce(w.width * nullif(greatest(c.reltuples, f.live), 0),"
    " f.heap * f.share)) + f.apart * f.apart_share), 0)::bigint"
    " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace,"
    " LATERAL (SELECT pg_relation_size(c.oid)::float8 AS heap,"
    "  coalesce(pg_relation_size(nullif(c.reltoastrelid, 0)), 0)::float8 AS apart,"
    "  pg_stat_get_live_tuples(c.oid)::float8 AS live,"
    "  coalesce(pg_stat_get_live_tuples(c.oid)::float8"
    "   / nullif(pg_stat_get_live_tuples(c.oid) + pg_stat_get_dead_tuples(c.oid), 0), 1) AS share,"
    "  coalesce(pg_stat_get_live_tuples(c.reltoastrelid)::float8"
    "   / nullif(pg_stat_get_live_tuples(c.reltoastrelid)"
    "   + pg_stat_get_dead_tuples(c.reltoastrelid), 0), 1) AS apart_share) f,"
    " LATERAL (SELECT CASE WHEN count(*) = count(s.attname)"
    "  THEN 36 + 1.1 * sum(s.avg_width * (1 - s.null_frac)) END AS width" /* headers, alignment */
    "  FROM pg_attribute a LEFT JOIN pg_stats s ON s.schemaname = n.nspname"
    "  AND s.tablename = c.relname AND s.attname = a.attname AND NOT s.inherited"
    "  WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) w"
    " WHERE c.relkind = 'r' AND (c.oid = $1::oid OR c.oid IN"
    " (SELECT relid FROM pg_partition_tree($1::oid)))";

static bool read_amount(struct reshard *reshard, unsigned shard, struct move_table *table)
{
    PGresult *rows = db_query(reshard_primary(reshard, shard), RESHARD_QUERY_MS, &reshard->error,
                              amount_query, 1, RESHARD_TEXT(reshard, "%u", table->oid));
    if (!rows)
        return false;
    table->rows = strtod(PQgetvalue(rows, 0, 0), NULL);
    table->live_bytes = strtoll(PQgetvalue(rows, 0, 1), NULL, 10);
    PQclear(rows);
    return true;
}

/* The part of a shard's rows that goes over a link: as of its buckets. */
static void tell_table(struct reshard *reshard, const struct link *link,
                       const struct move_table *table, struct amounts *amounts)
{
    const struct keyspace *keyspace = table->rule->keyspace;
    bool enters = reshard->moves.tables && link->source == reshard->moves.home;
    unsigned owned = enters ? keyspace->nbuckets : keyspace->owned[link->source],
             moving = count_buckets(reshard, keyspace, link->source, link->target);
    if (!moving || !owned)
        return;
    double part = (double)moving / owned;
    int64_t bytes = (int64_t)((double)table->live_bytes * part);
    amounts->bytes[link->target] += bytes;
    amounts->all += bytes;
    amounts->rest += table->live_bytes - bytes;
    reshard_tell(
        reshard, RESHARD_FACT, shardmap_shard_name(reshard->map, link->source), table->relation,
        RESHARD_TEXT(reshard, "%s, %s to %s (%.0f %% of its rows)",
                     table->rows < 0 ? "rows not known (never analyzed)"
                                     : RESHARD_TEXT(reshard, "about %.0f rows", table->rows * part),
                     size_text(reshard, bytes), shardmap_shard_name(reshard->map, link->target),
                     part * 100),
        NULL);
}

static bool tell_link(struct check *check, const struct link *link, struct amounts *amounts)
{
    struct move_tables *tables = &check->tables[link->source];
    for (int i = 0; i < tables->count; i++) {
        if (!read_amount(check->reshard, link->source, &tables->items[i]))
            return check_fails(check, link->source, "cannot read the statistics");
        tell_table(check->reshard, link, &tables->items[i], amounts);
    }
    return true;
}

static int64_t database_size(struct reshard *reshard, unsigned shard)
{
    struct db *db = reshard_primary(reshard, shard);
    PGresult *rows = db ? db_query(db, RESHARD_QUERY_MS, &reshard->error,
                                   "SELECT pg_database_size(current_database())", 0)
                        : NULL;
    int64_t size = rows ? strtoll(PQgetvalue(rows, 0, 0), NULL, 10) : -1;
    PQclear(rows);
    return size;
}

/* What is not even enough for the rows, without indexes and WAL, is too little. */
static bool tell_room(struct check *check, unsigned shard, int64_t bytes)
{
    struct reshard *reshard = check->reshard;
    const char *name = shardmap_shard_name(reshard->map, shard), *why = NULL;
    int64_t size = database_size(reshard, shard);
    int64_t room = size < 0 ? -2 : disk_free(reshard, shard, &why);
    if (room == -2)
        return check_fails(check, shard, "cannot read the database's size");
    const char *comes = RESHARD_TEXT(reshard, "%s will come to a database of %s, and its indexes",
                                     size_text(reshard, bytes), size_text(reshard, size));
    if (room < 0)
        check_note(
            check, name, "disk",
            RESHARD_TEXT(reshard, "%s; how much of the disk is free is unknown: %s", comes, why),
            NULL);
    else if (room < bytes && check->skips_disk)
        check_note(check, name, "disk",
                   RESHARD_TEXT(reshard, "%s; only %s of the disk is free, which is left to you",
                                comes, size_text(reshard, room)),
                   NULL);
    else if (room < bytes)
        check_problem(check, name, "disk",
                      RESHARD_TEXT(reshard, "%s; only %s of the disk is free", comes,
                                   size_text(reshard, room)),
                      "Give the server a larger disk, remove what it need not keep, or move fewer "
                      "buckets at once; --skip-check disk goes on all the same");
    else
        check_note(
            check, name, "disk",
            RESHARD_TEXT(reshard, "%s; %s of the disk is free", comes, size_text(reshard, room)),
            NULL);
    return true;
}

static bool tell_amounts(struct check *check)
{
    struct reshard *reshard = check->reshard;
    unsigned nshards = shardmap_shards(reshard->map);
    struct amounts amounts = {.bytes = arena_array(&reshard->arena, int64_t, nshards)};
    for (int i = 0; i < check->nlinks; i++)
        if (!tell_link(check, &check->links[i], &amounts))
            return false;
    for (unsigned s = 0; s < nshards && !check->clone; s++)
        if (check_is_target(check, s) && !tell_room(check, s, amounts.bytes[s]))
            return false;
    const char *all = size_text(reshard, amounts.all);
    reshard_tell(reshard, RESHARD_FACT, NULL, "in all",
                 check->clone
                     ? RESHARD_TEXT(reshard,
                                    "%s, which the clone has already; %s that it is not to have "
                                    "are deleted from it in %s at 50 MB/s",
                                    all, size_text(reshard, amounts.rest),
                                    time_text(reshard, amounts.rest / USUAL_RATE))
                     : RESHARD_TEXT(reshard, "%s, copied in %s at 50 MB/s", all,
                                    time_text(reshard, amounts.all / USUAL_RATE)),
                 NULL);
    return true;
}

/* ---- plan ---- */

/* Looks, and tells all of it. `check` has what was found. */
static enum reshard_outcome look(struct check *check)
{
    struct reshard *reshard = check->reshard;
    if (check->moved)
        table_job_tell(reshard, check->moved, RESHARD_PLANNED);
    for (int i = 0; i < reshard->moves.count; i++)
        tell_move(reshard, &reshard->moves.items[i]);
    if (!check_all(check) || !tell_amounts(check))
        return reshard_stopped(reshard) ? RESHARD_STOPPED : RESHARD_UNFINISHED;
    return check->problems ? RESHARD_DIFFERENT : RESHARD_DONE;
}

static enum reshard_outcome plan(struct reshard *reshard, const struct reshard_wish *wish)
{
    struct table_job *tables;
    if (!find_moves(reshard, wish, &tables))
        return RESHARD_REFUSED;
    struct check check = {
        .reshard = reshard, .moved = tables, .clone = wish->clone, .skips_disk = wish->skips_disk};
    if (reshard->moves.count) {
        enum reshard_outcome outcome = look(&check);
        check_end(&check);
        return outcome;
    }
    reshard_tell(reshard, RESHARD_FACT, NULL, NULL, "nothing has to move: it is so already", NULL);
    return RESHARD_DONE;
}

enum reshard_outcome reshard_plan(const struct reshard_request *request,
                                  const struct reshard_wish *wish)
{
    struct reshard_request looking = *request;
    struct reshard reshard;
    looking.dry_run = true; /* nothing is written, not even the catalog's tables */
    enum reshard_outcome outcome =
        reshard_begin(&reshard, &looking) ? plan(&reshard, wish) : RESHARD_UNFINISHED;
    reshard_end(&reshard);
    return outcome;
}

/* ---- create ---- */

static json_t *options_of(const struct reshard_wish *wish, const struct check *check)
{
    const struct {
        const char *name, *value;
    } said[] = {{"add", wish->add},
                {"drain", wish->drain},
                {"weights", wish->weights},
                {"move", wish->move},
                {"keyspaces", wish->keyspaces}};
    json_t *options = json_object();
    for (size_t i = 0; i < sizeof said / sizeof said[0]; i++)
        if (said[i].value)
            json_object_set_new(options, said[i].name, json_string(said[i].value));
    if (wish->split_hot)
        json_object_set_new(options, "split_hot", json_true());
    json_object_set_new(options, "prepare_schema", json_boolean(check->prepare_schema));
    if (check->clone)
        json_object_set_new(options, "clone", clone_json(check));
    if (check->moved)
        json_object_set_new(options, "move_table", table_job_json(check->moved));
    if (check->moved && !check->makes_all)
        json_object_set_new(options, "only_tables", json_true());
    return options;
}

/* One at a time makes jobs of a database, until its session ends. */
static bool take_turn(struct reshard *reshard)
{
    return db_run(reshard_catalog(reshard), RESHARD_QUERY_MS, &reshard->error,
                  "SELECT pg_advisory_lock(hashtext('pgshunt reshard create'), hashtext($1))", 1,
                  reshard->request->database);
}

static enum reshard_outcome record(struct reshard *reshard, const struct reshard_wish *wish,
                                   const struct check *check)
{
    const char *name = reshard->request->job;
    json_t *options = options_of(wish, check);
    bool made = job_create(reshard, name, &reshard->moves, options);
    json_decref(options);
    if (made) {
        reshard_tell(reshard, RESHARD_STEP, NULL, name, "created", NULL);
        return RESHARD_DONE;
    }
    if (strcmp(reshard->error.sqlstate, "23505") == 0)
        return refuse(reshard, RESHARD_TEXT(reshard, "there is a job \"%s\" already", name),
                      "Give it another name; pgshuntctl reshard list shows those there are.");
    return reshard_fails(reshard, NULL, "cannot record the job");
}

/* ---- the schema ---- */

static bool make_schema(struct check *check, unsigned source, unsigned target)
{
    struct reshard *reshard = check->reshard;
    const char *name = shardmap_shard_name(reshard->map, target),
               *from = shardmap_shard_name(reshard->map, source);
    if (reshard->request->dry_run) {
        reshard_tell(reshard, RESHARD_PLANNED, name, "schema",
                     RESHARD_TEXT(reshard, "is made like that of %s", from), NULL);
        return true;
    }
    if (!schema_copy_tables(reshard, source, target, !check->empty[target]))
        return check_fails(check, target, "cannot make the schema");
    reshard_tell(reshard, RESHARD_STEP, name, "schema",
                 RESHARD_TEXT(reshard, "was made like that of %s", from), NULL);
    check_note(check, name, "sequences",
               "give the numbers that they give on the other shard, until they are interleaved",
               RESHARD_TEXT(reshard, "pgshuntctl sequences setup %s", reshard->request->database));
    return true;
}

/* Each target without tables gets those of its first source; then it is looked at whether all is there. */
static enum reshard_outcome prepare(struct check *check)
{
    struct reshard *reshard = check->reshard;
    struct check again = {
        .reshard = reshard, .moved = check->moved, .prepare_schema = true, .prepared = true};
    bool some = false;
    for (int i = 0; i < check->nlinks; i++) {
        const struct link *link = &check->links[i];
        if (!check->makes[link->target])
            continue;
        check->makes_all |= check->empty[link->target];
        if (!make_schema(check, link->source, link->target))
            return reshard_stopped(reshard) ? RESHARD_STOPPED : RESHARD_UNFINISHED;
        check->makes[link->target] = false;
        some = true;
    }
    if (!some || reshard->request->dry_run)
        return RESHARD_DONE;
    bool good = check_all(&again);
    check_end(&again);
    if (!good)
        return RESHARD_UNFINISHED;
    return again.problems ? RESHARD_DIFFERENT : RESHARD_DONE;
}

/* Values and parts of intervals that are to move alone: buckets that belong to the same shards as before. */
static enum reshard_outcome record_splits(struct reshard *reshard)
{
    if (catalog_record_splits(reshard_catalog(reshard), reshard->request->database, reshard->map,
                              &reshard->error)) {
        reshard_tell(reshard, RESHARD_STEP, NULL, "split", "what is to move has buckets of its own",
                     NULL);
        return RESHARD_DONE;
    }
    return reshard_fails(reshard, NULL, "cannot record the buckets");
}

static enum reshard_outcome create(struct reshard *reshard, const struct reshard_wish *wish,
                                   bool prepare_schema)
{
    struct check check = {.reshard = reshard,
                          .clone = wish->clone,
                          .prepare_schema = prepare_schema,
                          .skips_disk = wish->skips_disk};
    unsigned buckets = all_buckets(reshard);
    if (!reshard->request->dry_run && !take_turn(reshard))
        return reshard_fails(reshard, NULL, "cannot lock the catalog");
    if (!find_moves(reshard, wish, &check.moved))
        return RESHARD_REFUSED;
    if (!reshard->moves.count)
        return refuse(reshard, "nothing has to move: it is so already", NULL);
    enum reshard_outcome outcome = look(&check);
    if (outcome == RESHARD_DONE)
        outcome = prepare(&check);
    check_end(&check);
    if (outcome != RESHARD_DONE || reshard->request->dry_run)
        return outcome;
    if (all_buckets(reshard) != buckets)
        outcome = record_splits(reshard);
    return outcome != RESHARD_DONE ? outcome : record(reshard, wish, &check);
}

enum reshard_outcome reshard_create(const struct reshard_request *request,
                                    const struct reshard_wish *wish, bool prepare_schema)
{
    struct reshard reshard;
    enum reshard_outcome outcome = RESHARD_UNFINISHED;
    if (reshard_begin(&reshard, request))
        outcome =
            job_name_is_valid(request->job)
                ? create(&reshard, wish, prepare_schema)
                : refuse(&reshard,
                         "a job's name has up to 21 characters: a-z, 0-9 and _, a letter first",
                         NULL);
    reshard_end(&reshard);
    return outcome;
}
