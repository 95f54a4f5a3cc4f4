/* clone_check.c: what keeps a replica from becoming the new shard, found ahead of it and told at once. */
#include <stdio.h>
#include <string.h>

#include "resharder/clone.h"

#define REPLAY_MS 10000 /* the replica has that long to have what the source has now */
#define LOOK_MS 50

static const char *name_of(const struct check *check, unsigned shard)
{
    return shardmap_shard_name(check->reshard->map, shard);
}

/* What makes one, for who reads it. */
static const char *how_to_make(struct check *check, unsigned source)
{
    const struct node_config *node = &check->reshard->database->shards[source].nodes[0];
    return RESHARD_TEXT(check->reshard,
                        "On the new server: pg_basebackup -R -X stream -D <data folder> -h %s -p "
                        "%d (of the primary of %s), then start it",
                        node->host, node->port, name_of(check, source));
}

/* ---- the map ---- */

/* A range of half the buckets that a shard gives. */
static const char *half_of(struct check *check, unsigned source, unsigned target)
{
    const struct moves *moves = &check->reshard->moves;
    for (int i = 0; i < moves->count; i++) {
        const struct keyspace *keyspace = moves->items[i].keyspace;
        unsigned owned = keyspace->owned[source], last = keyspace->nbuckets, seen = 0;
        if (moves->items[i].source != source || keyspace->map != MAP_HASH || owned < 2)
            continue;
        while (last && keyspace->bucket_shard[last - 1] != source)
            last--;
        unsigned first = last;
        while (first && keyspace->bucket_shard[first - 1] == source && seen < owned / 2) {
            first--;
            seen++;
        }
        return RESHARD_TEXT(check->reshard,
                            "Say which buckets of one shard go, like --move %u-%u:%s", first,
                            last - 1, name_of(check, target));
    }
    return "Say by --move which buckets of one shard go";
}

static void check_layout(struct check *check, unsigned source, unsigned target)
{
    struct reshard *reshard = check->reshard;
    const struct shard_config *from = &reshard->database->shards[source],
                              *to = &reshard->database->shards[target];
    if (check->nlinks > 1)
        check_problem(check, NULL, "--clone",
                      "a clone of one shard takes buckets from that one alone",
                      half_of(check, source, target));
    for (unsigned k = 0; k < shardmap_keyspaces(reshard->map); k++)
        if (shardmap_owns(shardmap_keyspace(reshard->map, k), target))
            check_problem(check, to->name, shardmap_keyspace(reshard->map, k)->name,
                          "the shard owns buckets: a clone is a new shard",
                          "Name it as a shard of its own, behind the others");
    if (target == 0 || target == reshard->catalog)
        check_problem(check, to->name, NULL,
                      "unsharded tables, or the catalog, are on this shard: it cannot be a clone",
                      "Name the new shard behind the others");
    if (to->nnodes != 1)
        check_problem(check, to->name, NULL,
                      RESHARD_TEXT(reshard,
                                   "has %d nodes: until the switch the clone is its only one",
                                   to->nnodes),
                      "Name its replicas when the job is complete");
    if (strcmp(from->dbname, to->dbname) != 0)
        check_problem(check, to->name, "dbname",
                      RESHARD_TEXT(reshard,
                                   "is \"%s\": the clone's database has the name that it has on %s",
                                   to->dbname, from->name),
                      RESHARD_TEXT(reshard, "dbname = \"%s\"", from->dbname));
}

/* ---- the same server twice ---- */

static const char *start_of(struct check *check, struct db *db)
{
    PGresult *rows = db_query(db, RESHARD_QUERY_MS, &check->reshard->error,
                              "SELECT format('%s %s', (SELECT system_identifier FROM"
                              " pg_control_system()), extract(epoch FROM"
                              " pg_postmaster_start_time()))",
                              0);
    const char *start = rows ? arena_strdup(&check->reshard->arena, PQgetvalue(rows, 0, 0)) : NULL;
    PQclear(rows);
    return start;
}

/* Promoted, it would be taken for the other shard's new primary. Nodes that are away are left out. */
static void check_elsewhere(struct check *check, unsigned target, const char *start)
{
    struct reshard *reshard = check->reshard;
    for (int s = 0; s < reshard->database->nshards; s++)
        for (int i = 0; (unsigned)s != target && i < reshard->database->shards[s].nnodes; i++) {
            const struct shard_config *shard = &reshard->database->shards[s];
            struct db_error ignored;
            struct db *db = reshard_open_node(reshard, (unsigned)s, &shard->nodes[i], &ignored);
            const char *other = db ? start_of(check, db) : NULL;
            if (other && start && strcmp(other, start) == 0)
                check_problem(check, name_of(check, target), NULL,
                              RESHARD_TEXT(reshard,
                                           "its server is a node of shard %s, too: promoted, it "
                                           "would be taken for that shard's primary",
                                           shard->name),
                              RESHARD_TEXT(reshard,
                                           "Take %s:%d out of the nodes of %s, in the "
                                           "configuration of every proxy, and reload",
                                           shard->nodes[i].host, shard->nodes[i].port,
                                           shard->name));
            db_close(db);
        }
}

/* ---- the replica ---- */

/* Asked of the replica. $1: how one is made. */
static const char replica_query[] =
    "SELECT 'problem', NULL, 'receives no WAL: it does not stream from its primary', 'Look at its "
    "log and its"
    " primary_conninfo' WHERE NOT EXISTS (SELECT FROM pg_stat_wal_receiver)"
    " UNION ALL SELECT 'problem', NULL, 'its replay is paused', 'SELECT pg_wal_replay_resume(), "
    "there'"
    " WHERE CASE WHEN pg_is_in_recovery() THEN pg_is_wal_replay_paused() END"
    " UNION ALL SELECT 'problem', 'recovery_min_apply_delay', format('is %s: it would be promoted "
    "that much too"
    " late', current_setting('recovery_min_apply_delay')), 'ALTER SYSTEM SET "
    "recovery_min_apply_delay = 0; SELECT"
    " pg_reload_conf(), there' WHERE current_setting('recovery_min_apply_delay') <> '0'"
    " UNION ALL SELECT 'problem', name, 'is set: recovery would end there', format('ALTER SYSTEM "
    "RESET %s;"
    " and restart it', name) FROM pg_settings WHERE name IN ('recovery_target', "
    "'recovery_target_lsn',"
    " 'recovery_target_name', 'recovery_target_time', 'recovery_target_xid') AND setting <> ''"
    " UNION ALL SELECT 'problem', 'synchronous_standby_names', 'is set there: promoted, it would "
    "wait for standbys"
    " that it does not have', 'ALTER SYSTEM SET synchronous_standby_names = ''''; SELECT "
    "pg_reload_conf(), there'"
    " WHERE current_setting('synchronous_standby_names') <> ''"
    " AND NOT EXISTS (SELECT FROM pg_stat_replication)"
    " UNION ALL SELECT 'note', 'primary_slot_name', format('slot %s on its primary will keep WAL "
    "for it, though it"
    " needs none any more once it is promoted', s.slot), format('SELECT "
    "pg_drop_replication_slot(%L), on the source,"
    " behind the promotion', s.slot) FROM (SELECT setting AS slot FROM pg_settings WHERE name = "
    "'primary_slot_name') s"
    " WHERE s.slot <> ''"
    " UNION ALL SELECT 'note', 'archive_mode', 'is on there: promoted, it archives to wherever its "
    "archive_command says,"
    " which may be where its source archives to', NULL WHERE current_setting('archive_mode') <> "
    "'off'";

/* Asked of the source. */
static const char source_query[] =
    "SELECT 'problem', f, 'this role may not call it', format('GRANT EXECUTE ON FUNCTION %s TO "
    "%I', f, current_user)"
    " FROM (VALUES ('pg_promote(boolean, integer)')) v(f) WHERE NOT has_function_privilege(f, "
    "'EXECUTE')"
    " UNION ALL SELECT 'problem', subname::text, 'is a subscription: the clone would have it too, "
    "and take its changes away',"
    " 'ALTER SUBSCRIPTION ... DISABLE until the job is complete, and drop it on the clone; or drop "
    "it'"
    " FROM pg_subscription WHERE subenabled"
    " UNION ALL SELECT 'note', d.datname::text, 'this database of the server comes along, as it "
    "is', format('DROP DATABASE"
    " %I, on the clone, when the job is complete', d.datname) FROM pg_database d WHERE NOT "
    "d.datistemplate AND"
    " d.datname NOT IN (current_database(), 'postgres')"
    " UNION ALL SELECT 'note', 'synchronous_standby_names', 'is set: the replica is no standby of "
    "this server any more"
    " when it is promoted', 'Look whether enough others remain' WHERE "
    "current_setting('synchronous_standby_names') <> ''"
    " UNION ALL SELECT 'note', rolname::text, 'this role is no superuser: transactions that others "
    "have prepared when the"
    " replica is promoted have to be rolled back there by hand', NULL FROM pg_roles WHERE rolname "
    "= current_user AND"
    " NOT rolsuper AND current_setting('max_prepared_transactions')::int > 0";

/* Its table may not be there. */
static const char convert_query[] = "SELECT 'problem', 'pgshunt.partition_convert', 'a table is "
                                    "being converted to partitions', 'Finish that before'"
                                    " FROM pgshunt.partition_convert LIMIT 1";

static bool has_converts(struct check *check, unsigned source, bool *has)
{
    struct reshard *reshard = check->reshard;
    PGresult *rows = db_query(reshard_primary(reshard, source), RESHARD_QUERY_MS, &reshard->error,
                              "SELECT to_regclass('pgshunt.partition_convert') IS NOT NULL", 0);
    *has = rows && PQgetvalue(rows, 0, 0)[0] == 't';
    PQclear(rows);
    return rows != NULL;
}

static bool check_source(struct check *check, unsigned source)
{
    bool has;
    if (!reshard_primary(check->reshard, source) || !has_converts(check, source, &has))
        return check_fails(check, source, "cannot look at the source");
    return check_ask(check, source, "cannot look at the source", source_query, NULL, NULL) &&
           (!has ||
            check_ask(check, source, "cannot look at the source", convert_query, NULL, NULL));
}

/* ---- whose replica it is ---- */

/* Of one cluster and one past; two clones of a shard may be alike in that, which the run finds out. */
static bool check_lineage(struct check *check, unsigned source, unsigned target)
{
    struct reshard *reshard = check->reshard;
    struct clone_identity from, to;
    if (!clone_identify(reshard, source, &from))
        return check_fails(check, source, "cannot ask for its timeline");
    if (!clone_identify(reshard, target, &to)) {
        check_problem(
            check, name_of(check, target), "replication",
            RESHARD_TEXT(reshard, "cannot be asked for its timeline: %s", reshard->error.text),
            "Look at pg_hba.conf there, and at max_wal_senders");
        return true;
    }
    check->clone_system = from.system;
    check->clone_timeline = from.timeline;
    if (strcmp(from.system, to.system) != 0)
        check_problem(check, name_of(check, target), NULL,
                      RESHARD_TEXT(reshard, "its server is of another cluster than %s",
                                   name_of(check, source)),
                      how_to_make(check, source));
    else if (from.timeline != to.timeline || strcmp(from.history, to.history) != 0)
        check_problem(check, name_of(check, target), NULL,
                      RESHARD_TEXT(reshard, "its server is on timeline %u, the primary of %s on %u",
                                   to.timeline, name_of(check, source), from.timeline),
                      how_to_make(check, source));
    return true;
}

static bool ask_position(struct check *check, unsigned shard, const char *query,
                         const char **position)
{
    struct reshard *reshard = check->reshard;
    PGresult *rows =
        db_query(reshard_primary(reshard, shard), RESHARD_QUERY_MS, &reshard->error, query, 0);
    *position = rows ? RESHARD_TEXT(reshard, "%s", PQgetvalue(rows, 0, 0)) : NULL;
    PQclear(rows);
    return rows || check_fails(check, shard, "cannot ask for its position");
}

/* 1: the replica has replayed as much; 0: it has not; -1: failed, told. */
static int has_replayed(struct check *check, unsigned target, const char *position)
{
    struct reshard *reshard = check->reshard;
    PGresult *rows =
        db_query(reshard_primary(reshard, target), RESHARD_QUERY_MS, &reshard->error,
                 "SELECT coalesce(pg_last_wal_replay_lsn() >= $1::pg_lsn, false)", 1, position);
    int has = rows ? PQgetvalue(rows, 0, 0)[0] == 't' : -1;
    PQclear(rows);
    if (has < 0)
        (void)check_fails(check, target, "cannot ask for its position");
    return has;
}

/* Nobody replays what was not written yet: clusters that were copied from one are not told apart by anything else. */
static bool check_ahead(struct check *check, unsigned source, unsigned target)
{
    struct reshard *reshard = check->reshard;
    const char *replayed, *written;
    if (!ask_position(check, target, "SELECT coalesce(pg_last_wal_replay_lsn(), '0/0')",
                      &replayed) ||
        !ask_position(check, source, "SELECT pg_current_wal_insert_lsn()", &written))
        return false;
    unsigned high[2], low[2];
    if (sscanf(replayed, "%X/%X", &high[0], &low[0]) == 2 &&
        sscanf(written, "%X/%X", &high[1], &low[1]) == 2 &&
        ((uint64_t)high[0] << 32 | low[0]) > ((uint64_t)high[1] << 32 | low[1]))
        check_problem(
            check, name_of(check, target), NULL,
            RESHARD_TEXT(
                reshard,
                "has replayed %s, and %s has written up to %s: it is another server's replica",
                replayed, name_of(check, source), written),
            how_to_make(check, source));
    return true;
}

static bool check_lag(struct check *check, unsigned source, unsigned target)
{
    struct reshard *reshard = check->reshard;
    const char *position;
    int has = 0;
    if (!ask_position(check, source, "SELECT pg_current_wal_flush_lsn()", &position))
        return false;
    for (int64_t until = db_clock_ms() + REPLAY_MS; !has;) {
        has = has_replayed(check, target, position);
        if (has || db_clock_ms() >= until || reshard_stopped(reshard))
            break;
        reshard_sleep(reshard, LOOK_MS * 1000);
    }
    if (!has)
        check_problem(check, name_of(check, target), NULL,
                      RESHARD_TEXT(reshard,
                                   "has not replayed %s, where %s was %d s before: it is behind, "
                                   "or replays another server's WAL",
                                   position, name_of(check, source), REPLAY_MS / 1000),
                      "Wait until it has caught up, and look at its log");
    return has >= 0;
}

/* ---- the whole ---- */

/* False: it is none, and nothing more can be said of it. */
static bool open_replica(struct check *check, unsigned source, unsigned target)
{
    struct reshard *reshard = check->reshard;
    const struct shard_config *shard = &reshard->database->shards[target];
    struct db *db = reshard_open_node(reshard, target, &shard->nodes[0], &reshard->error);
    PGresult *rows =
        db ? db_query(db, RESHARD_QUERY_MS, &reshard->error, "SELECT pg_is_in_recovery()", 0)
           : NULL;
    if (!rows)
        check_problem(check, shard->name, NULL,
                      RESHARD_TEXT(reshard, "cannot be asked: %s", reshard->error.text),
                      how_to_make(check, source));
    else if (PQgetvalue(rows, 0, 0)[0] != 't')
        check_problem(check, shard->name, NULL, "its server is no replica (any more)",
                      how_to_make(check, source));
    bool is = rows && PQgetvalue(rows, 0, 0)[0] == 't';
    PQclear(rows);
    if (!is) {
        db_close(db);
        return false;
    }
    db_close(reshard->primaries[target]);
    reshard->primaries[target] = db; /* while it is looked at */
    return true;
}

bool clone_check(struct check *check, unsigned target)
{
    struct reshard *reshard = check->reshard;
    unsigned source = check->links[0].source;
    reshard->replicas = true;
    check_layout(check, source, target);
    if (!reshard_primary(reshard, source))
        return check_fails(check, source, "cannot connect");
    if (check->nlinks > 1 || !reshard->database->shards[target].nnodes ||
        !open_replica(check, source, target))
        return true;
    int problems = check->problems;
    check_elsewhere(check, target, start_of(check, reshard->primaries[target]));
    if (!check_server(check, target) || !check_source(check, source) ||
        !check_ask(check, target, "cannot look at the replica", replica_query, NULL, NULL) ||
        !check_lineage(check, source, target) || !check_ahead(check, source, target))
        return false;
    return check->problems > problems || check_lag(check, source, target);
}

json_t *clone_json(const struct check *check)
{
    return json_pack("{s:s, s:i}", "system", check->clone_system, "timeline",
                     (int)check->clone_timeline);
}
