/* recovery_round.c: finishes what two-phase commits left prepared on one database's shards. */
#include "proxy/recovery_round.h"

#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pgshunt/arena.h"
#include "pgshunt/db.h"
#include "pgshunt/log.h"
#include "proxy/monitor_internal.h"
#include "proxy/twophase_gid.h"

#define CONNECT_MS 3000
#define QUERY_MS 10000

/* Whoever may log in decides about what is his: nobody can write another name into decided_by. */
#define TABLE_SQL                                                                                  \
    "CREATE SCHEMA IF NOT EXISTS pgshunt; "                                                        \
    "CREATE TABLE IF NOT EXISTS pgshunt.decision (gid text PRIMARY KEY, "                          \
    "verdict text NOT NULL CHECK (verdict IN ('committed', 'rolled back')), "                      \
    "decided_by name NOT NULL DEFAULT CURRENT_USER, "                                              \
    "decided_at timestamptz NOT NULL DEFAULT now()); "                                             \
    "GRANT USAGE ON SCHEMA pgshunt TO PUBLIC; "                                                    \
    "GRANT INSERT (gid, verdict) ON pgshunt.decision TO PUBLIC;"

static const char make_table_sql[] =
    "DO $pgshunt$ BEGIN PERFORM pg_advisory_xact_lock(7741936514602251); " TABLE_SQL
    " END $pgshunt$";

/* A shard's primary. */
struct site {
    const struct shard *shard;
    char name[GID_NAME_SIZE]; /* as it stands in gids */
    struct db *db;            /* NULL: not reached */
    PGresult *decisions;      /* that may be deleted; NULL: not read */
    PGresult *prepared;       /* NULL: not read */
};

struct look {
    struct recovery_round *round;
    const struct config *config;
    const struct database *database;
    char name[GID_NAME_SIZE];
    struct site *sites;
    int nsites;
};

static void complain(struct look *look, const struct site *site, const char *what,
                     const char *reason, const char *hint)
{
    char text[SAID_SIZE];
    snprintf(text, sizeof text, "%s %s %s", what, site->shard->name, reason);
    if (strcmp(text, look->round->said) == 0)
        return;
    memcpy(look->round->said, text, sizeof text);
    log_event(LOG_WARNING, what, LOG_S("database", look->database->name),
              LOG_S("shard", site->shard->name), LOG_S("reason", reason), LOG_S("hint", hint));
}

/* ---- reaching the shards ---- */

static void reach(struct look *look, struct site *site)
{
    struct node *node = shard_primary(site->shard);
    struct db_error error;
    if (!node || atomic_load(&node->state) == NODE_STATE_DOWN)
        return;
    struct monitor_login login = monitor_login(look->config, "pgshunt recovery");
    struct db_target target = {
        .host = node->host,
        .port = node->port,
        .dbname = node->dbname,
        .user = login.user,
        .password = login.password,
        .application = login.application,
        .tls = config_server_tls(look->config, NULL, node->host, node->port, node->dbname),
        .stop = look->round->stop,
    };
    site->db = db_open(&target, CONNECT_MS, &error);
    if (!site->db)
        complain(look, site, "recovery cannot reach a shard", error.text, error.hint);
}

static bool is_true(const PGresult *result)
{
    return PQntuples(result) == 1 && strcmp(PQgetvalue(result, 0, 0), "t") == 0;
}

static bool has_table(struct site *site)
{
    struct db_error error;
    PGresult *result = db_query(site->db, QUERY_MS, &error,
                                "SELECT pg_catalog.to_regclass('pgshunt.decision') IS NOT NULL", 0);
    bool there = result && is_true(result);
    PQclear(result);
    return there;
}

static void make_table(struct look *look, struct site *site)
{
    struct db_error error;
    if (!site->db || has_table(site))
        return;
    if (db_run(site->db, QUERY_MS, &error, make_table_sql, 0))
        log_event(LOG_INFO, "made the table of decisions", LOG_S("database", look->database->name),
                  LOG_S("shard", site->shard->name));
    else
        complain(look, site,
                 "cannot make the table of decisions: transactions that write to several shards "
                 "are refused",
                 error.text,
                 "grant monitor.user CREATE on the database, or run as its owner: " TABLE_SQL
                 " GRANT SELECT, INSERT, DELETE ON pgshunt.decision TO <monitor.user>;");
}

/* ---- reading ---- */

/* What recovery itself has rolled back is kept for much longer than a coordinator takes to decide. */
static void read_decisions(struct look *look, struct site *site)
{
    struct db_error error;
    char age[32];
    snprintf(age, sizeof age, "%lld", (long long)look->config->recover_after);
    if (has_table(site))
        site->decisions = db_query(
            site->db, QUERY_MS, &error,
            "SELECT gid FROM pgshunt.decision WHERE decided_at < now() - CASE verdict WHEN "
            "'committed' THEN $1::bigint * interval '1 ms' ELSE interval '1 day' END LIMIT 10000",
            1, age);
}

static void read_prepared(struct look *look, struct site *site)
{
    struct db_error error;
    char age[32];
    if (!site->db)
        return;
    snprintf(age, sizeof age, "%lld", (long long)look->config->recover_after);
    site->prepared =
        db_query(site->db, QUERY_MS, &error,
                 "SELECT gid, owner, prepared < now() - $1::bigint * interval '1 ms' FROM "
                 "pg_catalog.pg_prepared_xacts WHERE database = current_database() AND gid LIKE "
                 "'" GID_PREFIX "%'",
                 1, age);
    if (!site->prepared)
        complain(look, site, "recovery cannot see what is prepared", error.text, error.hint);
}

/* ---- the race for a decision ---- */

enum verdict { VERDICT_UNKNOWN, VERDICT_COMMITTED, VERDICT_ROLLED_BACK };

/* A row that somebody else than the transaction's owner has written means that the owner's could not be. */
static enum verdict decide(struct look *look, struct site *decider, const char *gid,
                           const char *owner)
{
    struct db_error error;
    if (!decider->db || !db_is_open(decider->db))
        return VERDICT_UNKNOWN;
    if (!db_run(
            decider->db, QUERY_MS, &error,
            "INSERT INTO pgshunt.decision (gid, verdict) VALUES ($1, 'rolled back') ON CONFLICT "
            "DO NOTHING",
            1, gid)) {
        complain(look, decider, "recovery cannot decide", error.text,
                 "monitor.user needs SELECT, INSERT and DELETE on pgshunt.decision");
        return VERDICT_UNKNOWN;
    }
    PGresult *result =
        db_query(decider->db, QUERY_MS, &error,
                 "SELECT verdict = 'committed' AND decided_by = $2::name FROM pgshunt.decision "
                 "WHERE gid = $1",
                 2, gid, owner);
    enum verdict verdict = VERDICT_UNKNOWN;
    if (!result)
        complain(look, decider, "recovery cannot read a decision", error.text,
                 "monitor.user needs SELECT, INSERT and DELETE on pgshunt.decision");
    else if (PQntuples(result) == 1)
        verdict = is_true(result) ? VERDICT_COMMITTED : VERDICT_ROLLED_BACK;
    PQclear(result);
    return verdict;
}

/* Only who prepared it, or a superuser, may end it. */
static bool become(struct site *site, const char *owner, struct db_error *error)
{
    char *name = PQescapeIdentifier(db_connection(site->db), owner, strlen(owner));
    char sql[256];
    snprintf(sql, sizeof sql, "SET ROLE %s", name);
    PQfreemem(name);
    return db_run(site->db, QUERY_MS, error, sql, 0);
}

static bool finish(struct look *look, struct site *site, const char *gid, const char *owner,
                   bool commit)
{
    struct db_error error;
    char sql[GID_SIZE + 32];
    snprintf(sql, sizeof sql, "%s PREPARED '%s'", commit ? "COMMIT" : "ROLLBACK", gid);
    bool done = become(site, owner, &error) && db_run(site->db, QUERY_MS, &error, sql, 0);
    if (!done)
        complain(look, site, "recovery cannot finish a prepared transaction", error.text,
                 "monitor.user has to be a superuser, or a member of the role that owns it");
    else
        log_event(LOG_INFO, "finished a prepared transaction", LOG_S("gid", gid),
                  LOG_S("database", look->database->name), LOG_S("shard", site->shard->name),
                  LOG_S("verdict", commit ? "committed" : "rolled back"));
    if (done && commit)
        look->round->counts.committed++;
    else if (done)
        look->round->counts.rolled_back++;
    if (db_is_open(site->db))
        db_run(site->db, QUERY_MS, &error, "RESET ROLE", 0);
    return done;
}

static struct site *site_named(struct look *look, const char *name)
{
    for (int i = 0; i < look->nsites; i++)
        if (strcmp(look->sites[i].name, name) == 0)
            return &look->sites[i];
    return NULL;
}

static bool resolve(struct look *look, struct site *site, const char *gid, const char *owner,
                    const struct gid_parts *parts)
{
    struct site *decider = site_named(look, parts->shard);
    if (!decider) {
        complain(look, site, "a prepared transaction was decided on a shard that is not known here",
                 gid, "finish it by hand: pgshunt.decision on that shard has the verdict");
        return false;
    }
    enum verdict verdict = decide(look, decider, parts->decision, owner);
    return verdict != VERDICT_UNKNOWN && db_is_open(site->db) &&
           finish(look, site, gid, owner, verdict == VERDICT_COMMITTED);
}

static void resolve_all(struct look *look, struct site *site)
{
    struct recovery_round *round = look->round;
    for (int i = 0; i < PQntuples(site->prepared); i++) {
        const char *gid = PQgetvalue(site->prepared, i, 0);
        const char *owner = PQgetvalue(site->prepared, i, 1);
        bool old = PQgetvalue(site->prepared, i, 2)[0] == 't';
        struct gid_parts parts;
        if (!gid_read(gid, &parts) || strcmp(parts.database, look->name) != 0)
            continue;
        if (!old && !round->is_handed_over(round->arg, parts.decision, site->shard->name))
            continue;
        if (resolve(look, site, gid, owner, &parts))
            continue;
        round->counts.in_doubt++;
        round->left(round->arg, parts.decision, site->shard->name);
    }
    round->shard_is_clean(round->arg, site->shard->name);
}

/* ---- what is no longer needed ---- */

static bool is_prepared_somewhere(const struct look *look, const char *decision)
{
    struct gid_parts parts;
    for (int s = 0; s < look->nsites; s++)
        for (int i = 0; i < PQntuples(look->sites[s].prepared); i++)
            if (gid_read(PQgetvalue(look->sites[s].prepared, i, 0), &parts) &&
                strcmp(parts.decision, decision) == 0)
                return true;
    return false;
}

/* Only with the lists of all shards, made after the decisions were read: when a decision was written all
 * that it is about was prepared. */
static void forget_decisions(struct look *look, struct site *site)
{
    struct db_error error;
    for (int i = 0; site->decisions && i < PQntuples(site->decisions); i++) {
        const char *gid = PQgetvalue(site->decisions, i, 0);
        struct gid_parts parts;
        if (!gid_read(gid, &parts) || strcmp(parts.database, look->name) != 0 ||
            strcmp(parts.shard, site->name) != 0 || is_prepared_somewhere(look, gid))
            continue;
        if (!db_is_open(site->db) || !db_run(site->db, QUERY_MS, &error,
                                             "DELETE FROM pgshunt.decision WHERE gid = $1", 1, gid))
            return;
    }
}

/* ---- a round ---- */

static void look_around(struct look *look)
{
    bool all = true;
    for (int i = 0; i < look->nsites; i++) {
        reach(look, &look->sites[i]);
        all &= look->sites[i].db != NULL;
        if (look->config->multi_shard_commit == COMMIT_ATOMIC)
            make_table(look, &look->sites[i]);
    }
    for (int i = 0; all && i < look->nsites; i++)
        read_decisions(look, &look->sites[i]);
    for (int i = 0; i < look->nsites; i++) {
        read_prepared(look, &look->sites[i]);
        all &= look->sites[i].prepared != NULL;
    }
    for (int i = 0; i < look->nsites; i++)
        if (look->sites[i].prepared)
            resolve_all(look, &look->sites[i]);
    for (int i = 0; all && i < look->nsites; i++)
        forget_decisions(look, &look->sites[i]);
}

void recovery_round(struct recovery_round *round, const struct config *config,
                    const struct database *database)
{
    struct look look = {.round = round, .config = config, .database = database};
    gid_name(database->name, look.name);
    look.nsites = database->nshards;
    look.sites = mem_alloc(sizeof *look.sites * (size_t)look.nsites);
    for (int i = 0; i < look.nsites; i++) {
        look.sites[i].shard = &database->shards[i];
        gid_name(database->shards[i].name, look.sites[i].name);
    }
    look_around(&look);
    for (int i = 0; i < look.nsites; i++) {
        PQclear(look.sites[i].decisions);
        PQclear(look.sites[i].prepared);
        db_close(look.sites[i].db);
    }
    free(look.sites);
}
