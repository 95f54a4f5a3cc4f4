/* survey.c: asks every server of a shard what the judgement wants to know. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "failover/conninfo.h"
#include "failover/run.h"

/* ---- logins ---- */

/* A stored SCRAM or md5 secret proves a password, it is none. */
static const char *plain(const char *secret)
{
    bool stored = !secret || strncmp(secret, "SCRAM-SHA-256$", 14) == 0 ||
                  (strncmp(secret, "md5", 3) == 0 && strlen(secret) == 35);
    return stored ? "" : secret;
}

static const struct user_config *find_user(const struct config *config, const char *name)
{
    for (int i = 0; i < config->nusers; i++)
        if (name ? strcmp(config->users[i].name, name) == 0 : config->users[i].admin)
            return &config->users[i];
    return NULL;
}

static const char *password_of(const struct config *config, const char *user)
{
    const struct user_config *known = find_user(config, user);
    if (strcmp(user, config->monitor_user) == 0 && config->monitor_password[0])
        return config->monitor_password;
    return plain(known ? known->secret : NULL);
}

void survey_logins(struct run *run)
{
    const struct config *config = run->request->config;
    const struct user_config *admin = find_user(config, NULL);
    const char *environment = getenv("PGUSER");
    run->user = run->request->user ? run->request->user : environment;
    if (!run->user)
        run->user = config->monitor_user;
    run->user_password = password_of(config, run->user);
    run->admin = run->request->admin ? run->request->admin : admin ? admin->name : environment;
    if (!run->admin)
        run->admin = "postgres";
    run->admin_password = password_of(config, run->admin);
}

/* ---- the shard ---- */

static bool same_nodes(const struct shard_config *a, const struct shard_config *b)
{
    for (int i = 0; i < a->nnodes; i++) {
        bool found = false;
        for (int j = 0; j < b->nnodes; j++)
            found |= a->nodes[i].port == b->nodes[j].port &&
                     strcmp(a->nodes[i].host, b->nodes[j].host) == 0;
        if (!found)
            return false;
    }
    return a->nnodes == b->nnodes;
}

/* "s0" or "app.s0" */
static bool is_named(const struct database_config *database, const struct shard_config *shard,
                     const char *name)
{
    size_t length = strlen(database->name);
    if (strcmp(shard->name, name) == 0)
        return true;
    return strncmp(name, database->name, length) == 0 && name[length] == '.' &&
           strcmp(name + length + 1, shard->name) == 0;
}

bool survey_find_shard(struct run *run)
{
    const struct config *config = run->request->config;
    const char *name = run->request->shard;
    for (int d = 0; d < config->ndatabases; d++)
        for (int s = 0; s < config->databases[d].nshards; s++) {
            const struct database_config *database = &config->databases[d];
            const struct shard_config *shard = &database->shards[s];
            if (!is_named(database, shard, name))
                continue;
            if (run->shard && !same_nodes(run->shard, shard))
                return run_fails(run, RUN_TEXT(run, "several databases have a shard \"%s\"", name),
                                 RUN_TEXT(run, "say which one: %s.%s or %s.%s", run->database->name,
                                          name, database->name, name));
            if (!run->shard) {
                run->database = database;
                run->shard = shard;
            }
        }
    if (!run->shard)
        return run_fails(run, RUN_TEXT(run, "the configuration has no shard \"%s\"", name),
                         "pgshuntctl status lists the shards");
    run->facts.database = run->database->name;
    run->facts.shard = run->shard->name;
    return true;
}

/* ---- asking ---- */

/* Positions as bytes. `r` is evaluated once, so that a promotion in between cannot mix the two. */
#define SQL_STATE                                                                                  \
    "SELECT r,"                                                                                    \
    " CASE WHEN r THEN greatest(coalesce(pg_last_wal_receive_lsn(), '0/0'),"                       \
    "   coalesce(pg_last_wal_replay_lsn(), '0/0')) ELSE pg_current_wal_insert_lsn() END"           \
    "   - '0/0'::pg_lsn,"                                                                          \
    " CASE WHEN r THEN coalesce(pg_last_wal_replay_lsn(), '0/0') - '0/0'::pg_lsn END,"             \
    " CASE WHEN r THEN greatest((SELECT received_tli FROM pg_stat_wal_receiver),"                  \
    "   (SELECT timeline_id FROM pg_control_checkpoint()),"                                        \
    "   (SELECT min_recovery_end_timeline FROM pg_control_recovery()))"                            \
    "  ELSE ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int "    \
    "END,"                                                                                         \
    " coalesce((SELECT status = 'streaming' FROM pg_stat_wal_receiver), false),"                   \
    " coalesce((SELECT extract(epoch FROM clock_timestamp() - last_msg_receipt_time)"              \
    "   FROM pg_stat_wal_receiver), 0),"                                                           \
    " coalesce((SELECT sender_host || ':' || sender_port FROM pg_stat_wal_receiver), ''),"         \
    " CASE WHEN r THEN pg_is_wal_replay_paused() ELSE false END,"                                  \
    " (SELECT system_identifier FROM pg_control_system())"                                         \
    " FROM (SELECT pg_is_in_recovery() AS r OFFSET 0) AS s"

static const char sql_settings[] =
    "SELECT s.v[1], s.v[2], s.v[3], s.v[4], s.v[5], s.v[6], s.v[7], s.v[8],"
    " (SELECT sourcefile FROM pg_settings WHERE name = 'default_transaction_read_only')"
    "   LIKE '%postgresql.auto.conf',"
    " current_setting('is_superuser') = 'on',"
    " has_function_privilege('pg_promote(boolean, integer)', 'EXECUTE'),"
    " pg_has_role('pg_signal_backend', 'MEMBER'),"
    " pg_has_role('pg_read_all_stats', 'USAGE')"
    " FROM (SELECT array(SELECT (SELECT setting FROM pg_settings WHERE name = n.name)"
    "  FROM unnest(array['recovery_min_apply_delay', 'primary_conninfo', 'primary_slot_name',"
    "   'synchronous_standby_names', 'default_transaction_read_only', 'cluster_name',"
    "   'data_directory', 'wal_log_hints']) WITH ORDINALITY AS n(name, i) ORDER BY n.i) AS v) AS s";

static const char sql_may_alter[] =
    "SELECT has_parameter_privilege('default_transaction_read_only', 'ALTER SYSTEM')"
    " AND has_parameter_privilege('primary_conninfo', 'ALTER SYSTEM')"
    " AND has_function_privilege('pg_reload_conf()', 'EXECUTE')";

static bool is_true(const PGresult *rows, int column)
{
    return PQgetvalue(rows, 0, column)[0] == 't';
}

static const char *text_of(struct run *run, const PGresult *rows, int row, int column)
{
    return arena_strdup(&run->arena, PQgetvalue(rows, row, column));
}

static void take_state(struct run *run, struct node_facts *node, const PGresult *rows)
{
    node->in_recovery = is_true(rows, 0);
    node->position = strtoull(PQgetvalue(rows, 0, 1), NULL, 10);
    node->replayed = strtoull(PQgetvalue(rows, 0, 2), NULL, 10);
    node->timeline = atoi(PQgetvalue(rows, 0, 3));
    node->streaming = is_true(rows, 4);
    node->silent_seconds = strtod(PQgetvalue(rows, 0, 5), NULL);
    node->upstream = text_of(run, rows, 0, 6);
    node->paused = is_true(rows, 7);
    node->system_id = strtoull(PQgetvalue(rows, 0, 8), NULL, 10);
}

static bool ask_state(struct run *run, int index)
{
    struct node_facts *node = &run->facts.nodes[index];
    PGresult *rows = db_query(run->nodes[index], RUN_QUERY_MS, &run->error, SQL_STATE, 0);
    if (rows)
        take_state(run, node, rows);
    PQclear(rows);
    return rows != NULL;
}

/* The name a replica's upstream knows it by. */
static const char *application_name(struct run *run, const char *conninfo, const char *cluster)
{
    const char *name = conninfo ? conninfo_value(&run->arena, conninfo, "application_name") : "";
    return *name ? name : *cluster ? cluster : "walreceiver";
}

static void take_settings(struct run *run, struct node_facts *node, const PGresult *rows)
{
    bool superuser = is_true(rows, 9);
    node->apply_delay_ms = strtoll(PQgetvalue(rows, 0, 0), NULL, 10);
    node->conninfo = PQgetisnull(rows, 0, 1) ? NULL : text_of(run, rows, 0, 1);
    node->slot = text_of(run, rows, 0, 2);
    node->sync_names = text_of(run, rows, 0, 3);
    node->read_only = strcmp(PQgetvalue(rows, 0, 4), "on") == 0;
    node->application = application_name(run, node->conninfo, PQgetvalue(rows, 0, 5));
    node->data_directory = text_of(run, rows, 0, 6);
    node->rewindable = strcmp(PQgetvalue(rows, 0, 7), "on") == 0;
    node->read_only_by_system = is_true(rows, 8);
    node->may_promote = superuser || is_true(rows, 10);
    node->may_signal = superuser || is_true(rows, 11);
    node->may_see = superuser || is_true(rows, 12);
    node->may_alter = superuser;
}

static bool ask_settings(struct run *run, int index)
{
    struct node_facts *node = &run->facts.nodes[index];
    struct db *db = run->nodes[index];
    struct db_error ignored;
    PGresult *rows = db_query(db, RUN_QUERY_MS, &run->error, sql_settings, 0);
    if (!rows)
        return false;
    take_settings(run, node, rows);
    PQclear(rows);
    if (!node->may_alter && node->version >= 150000) {
        rows = db_query(db, RUN_QUERY_MS, &ignored, sql_may_alter, 0);
        node->may_alter = rows && is_true(rows, 0);
        PQclear(rows);
    }
    rows =
        db_query(db, RUN_QUERY_MS, &ignored, "SELECT current_setting('data_checksums') = 'on'", 0);
    node->rewindable |= rows && is_true(rows, 0);
    PQclear(rows);
    return true;
}

/* ---- what only the primary tells ---- */

static const char sql_manager[] =
    "SELECT coalesce(min(application_name), '') FROM pg_stat_activity WHERE application_name ~* "
    "'^(patroni|pgautofailover|repmgrd|pg_auto_failover|stolon|pacemaker)'";
static const char sql_watchers[] = "SELECT count(*) FROM pg_stat_activity WHERE application_name = "
                                   "'pgshunt monitor' AND datname = "
                                   "current_database()";
static const char sql_slots[] =
    "SELECT coalesce(string_agg(slot_name, ', ' ORDER BY slot_name), '') FROM "
    "pg_replication_slots WHERE slot_type = 'logical' AND NOT temporary";
static const char sql_subscriptions[] =
    "SELECT count(DISTINCT subid) FROM pg_stat_subscription WHERE pid IS NOT NULL";
static const char sql_sync[] =
    "SELECT application_name FROM pg_stat_replication WHERE sync_state IN "
    "('sync', 'quorum')";
/* One failover of a server at a time: kept as long as the connection. */
static const char sql_lock[] = "SELECT pg_try_advisory_lock(1885825908, 1718053987)";
static const char sql_locked_by[] =
    "SELECT format('%s from %s, since %s', a.application_name, coalesce(a.client_addr::text, "
    "'a socket'), a.backend_start::timestamptz(0)) FROM pg_locks AS l JOIN pg_stat_activity AS a "
    "USING "
    "(pid) WHERE l.locktype = 'advisory' AND l.classid = 1885825908 AND l.objid = 1718053987";

static const char *ask_text(struct run *run, struct db *db, const char *sql)
{
    struct db_error ignored;
    PGresult *rows = db_query(db, RUN_QUERY_MS, &ignored, sql, 0);
    const char *text = rows && PQntuples(rows) ? text_of(run, rows, 0, 0) : "";
    PQclear(rows);
    return text;
}

static void ask_sync(struct run *run, struct db *db)
{
    struct primary_facts *primary = &run->facts.of_primary;
    struct db_error ignored;
    PGresult *rows = db_query(db, RUN_QUERY_MS, &ignored, sql_sync, 0);
    int count = rows ? PQntuples(rows) : 0;
    primary->sync = arena_array(&run->arena, const char *, count + 1);
    for (int i = 0; i < count; i++)
        primary->sync[i] = text_of(run, rows, i, 0);
    primary->nsync = count;
    PQclear(rows);
}

static void ask_primary(struct run *run, struct db *db)
{
    struct primary_facts *primary = &run->facts.of_primary;
    primary->manager = ask_text(run, db, sql_manager);
    primary->watchers = atoi(ask_text(run, db, sql_watchers));
    primary->logical_slots = ask_text(run, db, sql_slots);
    primary->subscriptions = atoi(ask_text(run, db, sql_subscriptions));
    ask_sync(run, db);
    if (run->request->dry_run)
        primary->other_run = ask_text(run, db, sql_locked_by);
    else if (strcmp(ask_text(run, db, sql_lock), "t") != 0)
        primary->other_run = ask_text(run, db, sql_locked_by);
}

/* ---- all nodes ---- */

static void survey_node(struct run *run, int index)
{
    struct node_facts *node = &run->facts.nodes[index];
    const struct server_tls_config *tls = config_server_tls(
        run->request->config, run->database->name, node->host, node->port, run->shard->dbname);
    struct db_target target = {.host = node->host,
                               .port = node->port,
                               .dbname = run->shard->dbname,
                               .user = run->user,
                               .password = run->user_password,
                               .application = "pgshuntctl failover",
                               .tls = tls};
    int attempts = run->request->force ? 3 : 1; /* dead is who does not answer several times */
    for (int i = 0; i < attempts && !run->nodes[index]; i++) {
        if (i)
            run_nap(500);
        run->nodes[index] = db_open(&target, RUN_CONNECT_MS, &run->error);
    }
    if (run->nodes[index]) {
        node->version = PQserverVersion(db_connection(run->nodes[index]));
        node->reachable = ask_state(run, index) && ask_settings(run, index);
    }
    if (node->reachable)
        return;
    node->why = RUN_TEXT(run, "%s", run->error.text);
    node->alive = run->nodes[index] || db_answers(&target, RUN_CONNECT_MS);
    db_close(run->nodes[index]);
    run->nodes[index] = NULL;
}

static void init_node(struct run *run, int index)
{
    const struct node_config *config = &run->shard->nodes[index];
    run->facts.nodes[index] = (struct node_facts){
        .host = config->host,
        .port = config->port,
        .name = RUN_TEXT(run, strchr(config->host, ':') ? "[%s]:%d" : "%s:%d", config->host,
                         config->port),
        .why = "",
        .upstream = "",
        .slot = "",
        .application = "",
        .sync_names = "",
        .data_directory = "",
    };
}

void survey_nodes(struct run *run)
{
    int count = run->shard->nnodes;
    run->facts.nnodes = count;
    run->facts.nodes = arena_array(&run->arena, struct node_facts, count);
    run->nodes = arena_array(&run->arena, struct db *, count);
    run->facts.of_primary =
        (struct primary_facts){.manager = "", .logical_slots = "", .other_run = ""};
    for (int i = 0; i < count; i++) {
        init_node(run, i);
        survey_node(run, i);
    }
    int primary = facts_primary(&run->facts);
    if (primary >= 0)
        ask_primary(run, run->nodes[primary]);
}

void survey_again(struct run *run)
{
    for (int i = 0; i < run->facts.nnodes; i++)
        if (run->nodes[i] && !ask_state(run, i))
            run->facts.nodes[i].reachable = false;
}
