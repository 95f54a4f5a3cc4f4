/* follow.c: lets replicas follow a new primary, and says what only a person can do. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "failover/conninfo.h"
#include "failover/run.h"

#define LOOK_EVERY_MS 100
#define FOLLOW_MS 20000

static bool is_follower(const struct run *run, int index)
{
    const struct node_facts *node = &run->facts.nodes[index];
    return index != run->verdict.candidate && node->reachable && node->in_recovery &&
           run->nodes[index];
}

/* The rest is the reader's: user and password stay what they are. */
static const char *point_commands(struct run *run, const struct node_facts *node)
{
    const struct node_facts *primary = run_candidate(run);
    return RUN_TEXT(run,
                    "on %s: ALTER SYSTEM SET primary_conninfo = '... host=%s port=%d'; SELECT "
                    "pg_reload_conf();\nif it does not stream then (its log tells why): "
                    "pg_rewind, or a new pg_basebackup, from %s",
                    node->name, primary->host, primary->port, primary->name);
}

/* The slot it uses has to be there. */
static bool make_slot(struct run *run, const char *slot)
{
    static const char sql[] =
        "SELECT pg_create_physical_replication_slot($1, true) WHERE NOT EXISTS (SELECT FROM "
        "pg_replication_slots WHERE slot_name = $1)";
    return !*slot || db_run(run_candidate_db(run), RUN_QUERY_MS, &run->error, sql, 1, slot);
}

static bool set_conninfo(struct run *run, struct db *db, const char *conninfo)
{
    char *literal = PQescapeLiteral(db_connection(db), conninfo, strlen(conninfo));
    if (!literal)
        return run_fails(run, PQerrorMessage(db_connection(db)), NULL);
    const char *sql = RUN_TEXT(run, "ALTER SYSTEM SET primary_conninfo = %s", literal);
    PQfreemem(literal);
    return db_run(db, RUN_QUERY_MS, &run->error, sql, 0) &&
           db_run(db, RUN_QUERY_MS, &run->error, "SELECT pg_reload_conf()", 0);
}

static bool point(struct run *run, int index)
{
    const struct node_facts *node = &run->facts.nodes[index], *primary = run_candidate(run);
    if (!node->conninfo || !node->may_alter)
        return run_fails(run, "no right to do so", NULL);
    if (conninfo_leads_to(node->conninfo, primary->host, primary->port))
        return make_slot(run, node->slot);
    const char *conninfo =
        conninfo_redirect(&run->arena, node->conninfo, primary->host, primary->port);
    if (!conninfo)
        return run_fails(run, "its primary_conninfo cannot be understood", NULL);
    return make_slot(run, node->slot) && set_conninfo(run, run->nodes[index], conninfo);
}

bool follow_point(struct run *run)
{
    for (int i = 0; i < run->facts.nnodes; i++) {
        const struct node_facts *node = &run->facts.nodes[i];
        if (!is_follower(run, i) || point(run, i))
            continue;
        run_tell(
            run, FAILOVER_TODO, NULL,
            RUN_TEXT(run, "%s does not follow the new primary: %s", node->name, run->error.text),
            point_commands(run, node));
        run->unfinished = true;
    }
    return true;
}

static bool follows(struct run *run, int index)
{
    const struct node_facts *node = &run->facts.nodes[index];
    return node->streaming && node->timeline == run_candidate(run)->timeline;
}

static bool all_follow(struct run *run)
{
    for (int i = 0; i < run->facts.nnodes; i++)
        if (is_follower(run, i) && !follows(run, i))
            return false;
    return true;
}

bool follow_verify(struct run *run)
{
    for (int64_t until = db_clock_ms() + FOLLOW_MS; db_clock_ms() < until;) {
        survey_again(run);
        if (all_follow(run))
            return true;
        if (run->unfinished) /* said already who does not */
            break;
        run_nap(LOOK_EVERY_MS);
    }
    for (int i = 0; i < run->facts.nnodes; i++) {
        const struct node_facts *node = &run->facts.nodes[i];
        if (!is_follower(run, i) || follows(run, i) || run->unfinished)
            continue;
        run_tell(run, FAILOVER_TODO, NULL,
                 RUN_TEXT(run, "%s does not stream from the new primary", node->name),
                 point_commands(run, node));
    }
    run->unfinished |= !all_follow(run);
    return true;
}

static const char *rebuild_commands(struct run *run, const struct node_facts *node)
{
    const struct node_facts *primary = run_candidate(run);
    const char *data = *node->data_directory ? node->data_directory : "DATA_DIRECTORY";
    if (node->rewindable)
        return RUN_TEXT(run,
                        "pg_ctl -D %s stop -m fast\n"
                        "pg_rewind -D %s --write-recovery-conf --source-server='host=%s port=%d "
                        "user=%s dbname=postgres'\n"
                        "pg_ctl -D %s start",
                        data, data, primary->host, primary->port, run->user, data);
    return RUN_TEXT(run,
                    "pg_ctl -D %s stop -m fast\n"
                    "mv %s %s.old\n"
                    "pg_basebackup -D %s --write-recovery-conf --checkpoint=fast -d 'host=%s "
                    "port=%d user=%s'\n"
                    "pg_ctl -D %s start",
                    data, data, data, data, primary->host, primary->port, run->user, data);
}

void follow_tell_rest(struct run *run)
{
    for (int i = 0; i < run->facts.nnodes; i++) {
        const struct node_facts *node = &run->facts.nodes[i];
        if (i == run->verdict.candidate)
            continue;
        if (!node->reachable)
            run_tell(run, FAILOVER_TODO, NULL,
                     RUN_TEXT(run,
                              "%s does not answer: if it comes back as a primary, the proxies "
                              "leave it alone, but others may write there; rebuild it",
                              node->name),
                     rebuild_commands(run, node));
        else if (!node->in_recovery)
            run_tell(run, FAILOVER_TODO, NULL,
                     RUN_TEXT(run, "%s is the old primary, %s: make a replica of it", node->name,
                              run->fenced ? "read-only now" : "of an older timeline"),
                     rebuild_commands(run, node));
    }
}
