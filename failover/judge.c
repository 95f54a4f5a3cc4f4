/* judge.c: what a survey's facts allow: which replica is to be promoted, and what is in the way. */
#include <inttypes.h>
#include <string.h>

#include "failover/conninfo.h"
#include "failover/facts.h"

struct judge {
    const struct facts *facts;
    const struct wishes *wishes;
    struct arena *arena;
    struct verdict *verdict;
};

#define TEXT(judge, ...) arena_printf((judge)->arena, __VA_ARGS__)

static void add(struct judge *judge, enum failover_event_kind kind, const char *text,
                const char *mend)
{
    struct verdict *verdict = judge->verdict;
    if (verdict->count == verdict->room) {
        int room = verdict->room ? verdict->room * 2 : 16;
        struct finding *more = arena_array(judge->arena, struct finding, room);
        if (verdict->count)
            memcpy(more, verdict->findings, sizeof *more * (size_t)verdict->count);
        verdict->findings = more;
        verdict->room = room;
    }
    verdict->findings[verdict->count++] = (struct finding){kind, text, mend};
    verdict->obstacles += kind == FAILOVER_OBSTACLE;
}

static void obstacle(struct judge *judge, const char *text, const char *mend)
{
    add(judge, FAILOVER_OBSTACLE, text, mend);
}

static void note(struct judge *judge, const char *text)
{
    add(judge, FAILOVER_NOTE, text, NULL);
}

/* ---- who is who ---- */

int facts_primary(const struct facts *facts)
{
    int best = -1;
    for (int i = 0; i < facts->nnodes; i++) {
        const struct node_facts *node = &facts->nodes[i];
        if (node->reachable && !node->in_recovery &&
            (best < 0 || node->timeline > facts->nodes[best].timeline))
            best = i;
    }
    return best;
}

bool facts_is_old_primary(const struct facts *facts, int node)
{
    int primary = facts_primary(facts);
    const struct node_facts *it = &facts->nodes[node];
    return primary >= 0 && node != primary && it->reachable && !it->in_recovery &&
           it->timeline < facts->nodes[primary].timeline;
}

static bool is_wanted(const struct judge *judge, const struct node_facts *node)
{
    const struct failover_address *to = &judge->wishes->to;
    return to->host && node->port == to->port && strcmp(node->host, to->host) == 0;
}

static int find_wanted(const struct judge *judge)
{
    for (int i = 0; i < judge->facts->nnodes; i++)
        if (is_wanted(judge, &judge->facts->nodes[i]))
            return i;
    return -1;
}

static bool is_sync(const struct primary_facts *primary, const struct node_facts *node)
{
    for (int i = 0; i < primary->nsync; i++)
        if (strcmp(primary->sync[i], node->application) == 0)
            return true;
    return false;
}

/* Of the primary's own kind; timelines and clusters that are not known are not held against it. */
static bool same_cluster(const struct node_facts *a, const struct node_facts *b)
{
    return !a->system_id || !b->system_id || a->system_id == b->system_id;
}

static bool can_follow(const struct judge *judge, const struct node_facts *node)
{
    int primary = judge->verdict->primary;
    if (!node->reachable || !node->in_recovery || node->paused || node->apply_delay_ms)
        return false;
    if (primary < 0)
        return true;
    const struct node_facts *it = &judge->facts->nodes[primary];
    return node->streaming && node->timeline == it->timeline && same_cluster(node, it);
}

/* Behind a planned switchover: synchronous ones first, then who has most. Without a primary: only that;
 * a later timeline has more than any position of an earlier one. */
static bool is_better(const struct judge *judge, const struct node_facts *a,
                      const struct node_facts *b)
{
    const struct primary_facts *primary = &judge->facts->of_primary;
    if (judge->verdict->primary >= 0 && is_sync(primary, a) != is_sync(primary, b))
        return is_sync(primary, a);
    if (a->timeline != b->timeline)
        return a->timeline > b->timeline;
    return a->position > b->position;
}

static int choose(const struct judge *judge)
{
    int best = -1;
    for (int i = 0; i < judge->facts->nnodes; i++) {
        const struct node_facts *node = &judge->facts->nodes[i];
        if (can_follow(judge, node) &&
            (best < 0 || is_better(judge, node, &judge->facts->nodes[best])))
            best = i;
    }
    return best;
}

/* ---- the candidate ---- */

static void judge_replay(struct judge *judge, const struct node_facts *node)
{
    if (node->paused)
        obstacle(judge, TEXT(judge, "replay on %s is paused", node->name),
                 TEXT(judge, "on %s: SELECT pg_wal_replay_resume();", node->name));
    if (node->apply_delay_ms)
        obstacle(
            judge, TEXT(judge, "%s replays with a delay (recovery_min_apply_delay)", node->name),
            TEXT(judge,
                 "on %s: ALTER SYSTEM SET recovery_min_apply_delay = 0; SELECT pg_reload_conf();",
                 node->name));
}

static void judge_stream(struct judge *judge, const struct node_facts *node)
{
    int primary = judge->verdict->primary;
    if (primary < 0 || !node->may_see)
        return;
    const struct node_facts *it = &judge->facts->nodes[primary];
    if (!same_cluster(node, it))
        obstacle(judge, TEXT(judge, "%s belongs to another cluster than %s", node->name, it->name),
                 "correct the shard's list of nodes, or rebuild the node by pg_basebackup");
    else if (!node->streaming)
        obstacle(judge, TEXT(judge, "%s does not receive WAL", node->name),
                 "its log tells why its WAL receiver cannot connect");
    else if (node->timeline != it->timeline)
        obstacle(judge,
                 TEXT(judge, "%s is on timeline %d, the primary on %d", node->name, node->timeline,
                      it->timeline),
                 "point its primary_conninfo at the primary, or rebuild it by pg_basebackup");
}

static void judge_candidate_rights(struct judge *judge, const struct node_facts *node)
{
    if (!node->may_promote)
        obstacle(judge, TEXT(judge, "no right to promote %s", node->name),
                 "log in as a superuser (--user), or GRANT EXECUTE ON FUNCTION "
                 "pg_promote(boolean, integer) TO that role");
    if (node->read_only && !node->read_only_by_system)
        obstacle(judge,
                 TEXT(judge, "%s is set to default_transaction_read_only in its configuration file",
                      node->name),
                 "take that out of postgresql.conf and reload: nobody could write there");
    else if (node->read_only && !node->may_alter)
        obstacle(judge,
                 TEXT(judge,
                      "%s is read-only since an earlier failover, and there is no right to "
                      "change that",
                      node->name),
                 "log in as a superuser (--user)");
}

/* Would commits ever be confirmed when this one is the primary? */
static void judge_sync(struct judge *judge, int candidate)
{
    const struct facts *facts = judge->facts;
    const struct node_facts *node = &facts->nodes[candidate];
    struct sync_names names = sync_names_parse(judge->arena, node->sync_names);
    int left = 0;
    if (names.bad || !names.needed)
        return;
    for (int i = 0; i < facts->nnodes; i++)
        left += i != candidate && i != judge->verdict->primary && facts->nodes[i].reachable &&
                facts->nodes[i].in_recovery && sync_names_has(&names, facts->nodes[i].application);
    if (left >= names.needed)
        return;
    obstacle(
        judge,
        TEXT(judge,
             "on %s commits would wait for ever: its synchronous_standby_names = '%s' needs %d "
             "of the replicas that are left, and there %s %d",
             node->name, node->sync_names, names.needed, left == 1 ? "is" : "are", left),
        TEXT(judge,
             "on %s: ALTER SYSTEM SET synchronous_standby_names = ''; SELECT "
             "pg_reload_conf(); set it again when the old primary is a replica",
             node->name));
}

static void judge_candidate(struct judge *judge)
{
    const struct facts *facts = judge->facts;
    int wanted = find_wanted(judge);
    if (judge->wishes->to.host && wanted < 0) {
        obstacle(judge,
                 TEXT(judge, "%s:%d is no node of shard %s", judge->wishes->to.host,
                      judge->wishes->to.port, facts->shard),
                 "give --to as the configuration has it: pgshuntctl status lists the nodes");
        return;
    }
    int candidate = judge->wishes->to.host ? wanted : choose(judge);
    if (candidate < 0) {
        for (int i = 0; i < facts->nnodes; i++)
            if (facts->nodes[i].reachable && facts->nodes[i].in_recovery) {
                judge_replay(judge, &facts->nodes[i]);
                judge_stream(judge, &facts->nodes[i]);
            }
        obstacle(judge, TEXT(judge, "shard %s has no replica that could be promoted", facts->shard),
                 "pgshuntctl status tells how each of them is");
        return;
    }
    const struct node_facts *node = &facts->nodes[candidate];
    judge->verdict->candidate = candidate;
    if (!node->reachable) {
        obstacle(judge, TEXT(judge, "%s does not answer: %s", node->name, node->why),
                 "name another replica with --to");
        return;
    }
    if (!node->in_recovery) {
        obstacle(judge, TEXT(judge, "%s is no replica", node->name),
                 "it has left recovery: rebuild it, or name another one with --to");
        return;
    }
    judge_replay(judge, node);
    judge_stream(judge, node);
    judge_candidate_rights(judge, node);
    judge_sync(judge, candidate);
}

/* ---- the primary, and who else is at work ---- */

static void judge_primary(struct judge *judge)
{
    const struct primary_facts *primary = &judge->facts->of_primary;
    const struct node_facts *node = &judge->facts->nodes[judge->verdict->primary];
    if (!node->may_alter || !node->may_signal)
        obstacle(judge,
                 TEXT(judge, "no right to make %s read-only and end its sessions", node->name),
                 "log in as a superuser (--user)");
    if (node->read_only && !node->read_only_by_system)
        obstacle(judge,
                 TEXT(judge, "%s is set to default_transaction_read_only in its configuration file",
                      node->name),
                 "take that out of postgresql.conf and reload, so that a failure can be undone");
    else if (node->read_only)
        note(judge, TEXT(judge,
                         "%s is read-only: a failover was interrupted ahead of the promotion; this "
                         "one goes on (--undo makes it writable again)",
                         node->name));
    if (*primary->manager)
        obstacle(judge,
                 TEXT(judge,
                      "an HA manager (\"%s\") is at work on %s: it would fight this failover",
                      primary->manager, node->name),
                 "let it do the switchover: patronictl switchover, repmgr standby switchover, ...");
    if (*primary->other_run)
        obstacle(judge,
                 TEXT(judge, "another failover of this shard is under way: %s", primary->other_run),
                 "wait for its end");
    if (primary->subscriptions)
        obstacle(judge,
                 TEXT(judge, "%d subscription(s) write into %s past every proxy",
                      primary->subscriptions, node->name),
                 TEXT(judge,
                      "on %s: ALTER SUBSCRIPTION ... DISABLE; enable them on the new primary",
                      node->name));
    if (*primary->logical_slots)
        note(judge,
             TEXT(judge,
                  "logical replication slots stay behind on %s: %s; their subscribers have to be "
                  "set up anew",
                  node->name, primary->logical_slots));
}

static void judge_others(struct judge *judge)
{
    const struct facts *facts = judge->facts;
    for (int i = 0; i < facts->nnodes; i++) {
        const struct node_facts *node = &facts->nodes[i];
        if (i == judge->verdict->primary || i == judge->verdict->candidate)
            continue;
        if (!node->reachable)
            note(judge, TEXT(judge, "%s does not answer (%s): it will not follow the new primary",
                             node->name, node->why));
        else if (!node->in_recovery && !facts_is_old_primary(facts, i))
            obstacle(judge,
                     TEXT(judge, "%s can be written to as well, on timeline %d", node->name,
                          node->timeline),
                     "find out which of them has the data that counts, and stop the other one");
        else if (facts_is_old_primary(facts, i))
            note(judge, TEXT(judge, "%s is an old primary, on timeline %d: rebuild it", node->name,
                             node->timeline));
        else if (node->in_recovery && (!node->may_alter || !node->conninfo))
            note(judge,
                 TEXT(judge, "no right to point %s at the new primary: the command will be told",
                      node->name));
    }
}

static void judge_proxies(struct judge *judge)
{
    const struct facts *facts = judge->facts;
    int good = 0;
    for (int i = 0; i < facts->nproxies; i++) {
        const struct proxy_facts *proxy = &facts->proxies[i];
        good += proxy->why == NULL;
        if (proxy->why)
            obstacle(judge, TEXT(judge, "proxy %s: %s", proxy->name, proxy->why), proxy->mend);
        else if (judge->verdict->primary >= 0 &&
                 strcmp(proxy->primary, facts->nodes[judge->verdict->primary].name) != 0)
            obstacle(
                judge,
                TEXT(judge, "proxy %s takes %s for the primary, not %s", proxy->name,
                     *proxy->primary ? proxy->primary : "nobody",
                     facts->nodes[judge->verdict->primary].name),
                "SHOW NODES on its console tells why; its configuration must name the same nodes");
    }
    if (judge->verdict->primary < 0 || good == 0 || facts->of_primary.watchers <= facts->nproxies)
        return;
    const char *text =
        TEXT(judge, "%d proxies watch this shard, but %d %s known", facts->of_primary.watchers,
             facts->nproxies, facts->nproxies == 1 ? "is" : "are");
    if (judge->wishes->ignore_unknown_proxies)
        note(judge, text);
    else
        obstacle(
            judge, text,
            "name each with --proxy HOST:PORT; or --ignore-unknown-proxies: their clients will see "
            "errors, but no commit is lost");
}

/* ---- a dead primary ---- */

/* The last anybody saw written there. */
static const struct proxy_facts *last_seen(const struct facts *facts)
{
    const struct proxy_facts *best = NULL;
    for (int i = 0; i < facts->nproxies; i++)
        if (facts->proxies[i].position && (!best || facts->proxies[i].position > best->position))
            best = &facts->proxies[i];
    return best;
}

/*
 * Synchronous replication to n of N names: every acknowledged commit is on n of them. If fewer than n of
 * the N are missing here, one of those present has it, and with it the one that has most.
 */
static bool proves_nothing_lost(struct judge *judge, int candidate)
{
    const struct facts *facts = judge->facts;
    struct sync_names names = sync_names_parse(judge->arena, facts->nodes[candidate].sync_names);
    uint64_t best = 0;
    int present = 0;
    if (names.bad || !names.needed || names.all)
        return false; /* "*": whoever is connected may have been the one */
    for (int i = 0; i < facts->nnodes; i++) {
        const struct node_facts *node = &facts->nodes[i];
        if (!node->reachable || !node->in_recovery || !sync_names_has(&names, node->application))
            continue;
        present++;
        best = node->position > best ? node->position : best;
    }
    /* The dead primary is often listed as well: it confirms nothing itself, but stands among N. */
    return names.count - present < names.needed && facts->nodes[candidate].position >= best;
}

static void judge_loss(struct judge *judge)
{
    const struct facts *facts = judge->facts;
    int candidate = judge->verdict->candidate;
    if (candidate < 0 || !facts->nodes[candidate].reachable || !facts->nodes[candidate].in_recovery)
        return;
    const struct node_facts *node = &facts->nodes[candidate];
    const struct proxy_facts *seen = last_seen(facts);
    const char *text;
    if (seen && seen->position > node->position)
        text = TEXT(
            judge,
            "commits would be lost: %s has received up to %X/%X, but proxy %s saw the primary at "
            "%X/%X: %" PRIu64 " bytes of WAL are missing",
            node->name, (unsigned)(node->position >> 32), (unsigned)node->position, seen->name,
            (unsigned)(seen->position >> 32), (unsigned)seen->position,
            seen->position - node->position);
    else if (proves_nothing_lost(judge, candidate)) {
        note(judge,
             TEXT(judge,
                  "%s has every commit that was acknowledged: synchronous_standby_names = '%s', "
                  "as it stands there (but for sessions with synchronous_commit off or local)",
                  node->name, node->sync_names));
        return;
    } else if (seen)
        text = TEXT(
            judge,
            "commits may be lost: %s has all that proxies saw on the primary, for the last time "
            "%.1f s ago; replication is asynchronous, so what came then may be missing",
            node->name, (double)seen->seen_ms_ago / 1000.0);
    else
        text = TEXT(judge,
                    "commits may be lost: nobody knows how far the primary was when it died, and "
                    "replication is asynchronous");
    if (judge->wishes->accept_data_loss)
        note(judge, text);
    else
        obstacle(judge, text,
                 "bring the primary back if that is possible; else --accept-data-loss");
}

/* Is it dead, or only not reachable from here? */
static void judge_death(struct judge *judge)
{
    const struct facts *facts = judge->facts;
    for (int i = 0; i < facts->nnodes; i++)
        if (!facts->nodes[i].reachable && facts->nodes[i].alive)
            obstacle(
                judge,
                TEXT(judge, "%s is not dead, but of no use: %s", facts->nodes[i].name,
                     facts->nodes[i].why),
                "it may be the primary: stop it; or name a role that it lets in with --user (a "
                "superuser)");
    for (int i = 0; i < facts->nnodes; i++) {
        const struct node_facts *node = &facts->nodes[i];
        if (!node->reachable || !node->in_recovery || !node->streaming || node->silent_seconds > 30)
            continue;
        bool from_replica = false;
        for (int j = 0; j < facts->nnodes; j++)
            from_replica |= facts->nodes[j].reachable && facts->nodes[j].in_recovery &&
                            strcmp(facts->nodes[j].name, node->upstream) == 0;
        if (!from_replica)
            obstacle(judge,
                     TEXT(judge, "the primary is not dead: %s still receives from %s", node->name,
                          node->upstream),
                     "stop the primary first, or a second one would be made beside it");
    }
    for (int i = 0; i < facts->nproxies; i++)
        if (!facts->proxies[i].why && strcmp(facts->proxies[i].up, "up") == 0)
            obstacle(judge,
                     TEXT(judge, "the primary is not dead: proxy %s still reaches %s",
                          facts->proxies[i].name, facts->proxies[i].primary),
                     "stop the primary first, or a second one would be made beside it");
}

/* ---- the kinds ---- */

/* Who may not look cannot tell a replica that streams from one that does not. */
static void judge_sight(struct judge *judge)
{
    for (int i = 0; i < judge->facts->nnodes; i++)
        if (judge->facts->nodes[i].reachable && !judge->facts->nodes[i].may_see)
            obstacle(judge,
                     TEXT(judge, "no right to see how replication on %s is",
                          judge->facts->nodes[i].name),
                     "log in as a superuser (--user), or GRANT pg_monitor TO that role");
}

static void judge_switch(struct judge *judge)
{
    judge->verdict->kind = VERDICT_SWITCH;
    judge_sight(judge);
    judge_primary(judge);
    judge_candidate(judge);
    judge_others(judge);
    judge_proxies(judge);
}

static void judge_force(struct judge *judge)
{
    judge->verdict->kind = VERDICT_FORCE;
    judge_sight(judge);
    judge_death(judge);
    judge_candidate(judge);
    judge_others(judge);
    judge_proxies(judge);
    judge_loss(judge);
}

static void judge_finish(struct judge *judge)
{
    int primary = judge->verdict->primary;
    judge->verdict->kind = VERDICT_FINISH;
    judge->verdict->candidate = primary;
    note(judge,
         TEXT(judge,
              "%s is the primary since an earlier failover: what that may have left is done; "
              "to move on to another node name it with --to",
              judge->facts->nodes[primary].name));
    judge_others(judge);
}

static void judge_undo(struct judge *judge)
{
    int primary = judge->verdict->primary;
    judge->verdict->kind = VERDICT_UNDO;
    if (primary < 0)
        obstacle(judge, "no primary answers", "there is nothing to undo: see --force");
    else if (judge->facts->nodes[primary].read_only && !judge->facts->nodes[primary].may_alter)
        obstacle(judge,
                 TEXT(judge, "no right to make %s writable", judge->facts->nodes[primary].name),
                 "log in as a superuser (--user)");
}

/* An old primary or a replica still stands there as the failover has left it, or the one wanted is it
 * already. */
static bool was_promoted(const struct judge *judge)
{
    const struct facts *facts = judge->facts;
    if (judge->wishes->to.host)
        return find_wanted(judge) == judge->verdict->primary;
    for (int i = 0; i < facts->nnodes; i++) {
        const struct node_facts *node = &facts->nodes[i];
        if (facts_is_old_primary(facts, i))
            return true;
        /* Of a replica that may not be looked into only the control file is known: that is late. */
        if (node->reachable && node->in_recovery && node->may_see &&
            node->timeline < facts->nodes[judge->verdict->primary].timeline)
            return true;
    }
    return false;
}

static void judge_kind(struct judge *judge)
{
    int primary = judge->verdict->primary;
    if (judge->wishes->undo) {
        judge_undo(judge);
    } else if (primary >= 0 && judge->wishes->force && !was_promoted(judge)) {
        obstacle(judge,
                 TEXT(judge, "%s is not dead: it answers and takes writes",
                      judge->facts->nodes[primary].name),
                 "leave --force out: the switchover will lose nothing");
    } else if (primary >= 0 && was_promoted(judge)) {
        judge_finish(judge);
    } else if (primary >= 0) {
        judge_switch(judge);
    } else if (judge->wishes->force) {
        judge_force(judge);
    } else {
        for (int i = 0; i < judge->facts->nnodes; i++)
            if (!judge->facts->nodes[i].reachable)
                note(judge, TEXT(judge, "%s does not answer: %s", judge->facts->nodes[i].name,
                                 judge->facts->nodes[i].why));
        obstacle(
            judge, TEXT(judge, "no primary of shard %s answers", judge->facts->shard),
            "if it is dead for good, --force promotes a replica; if the servers only refuse the "
            "role, name another one with --user (a superuser)");
    }
}

void judge(const struct facts *facts, const struct wishes *wishes, struct arena *arena,
           struct verdict *verdict)
{
    struct judge judge = {facts, wishes, arena, verdict};
    *verdict = (struct verdict){.primary = facts_primary(facts), .candidate = -1};
    judge_kind(&judge);
    if (verdict->obstacles)
        verdict->kind = VERDICT_REFUSED;
}
