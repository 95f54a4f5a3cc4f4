/*
 * monitor_group.c: one shard: which of its nodes is the primary, and what the replicas' positions mean.
 *
 * Positions of different timelines cannot be compared: a replica that went on along the old primary's
 * WAL after a failover may stand "further" than the new primary without having any of its commits. So
 * a replica is judged only while it is known to be on the primary's timeline (its WAL receiver streams
 * on it, or its control file says so) and of the same cluster; otherwise its lag is unknown and it
 * serves no reads.
 */
#include "proxy/monitor_internal.h"

#include <stdlib.h>

#include "pgshunt/arena.h"
#include "pgshunt/log.h"
#include "proxy/node_health.h"

#define UNVERIFIED_REPORTED_AFTER 5000000 /* microseconds; a failover needs a moment to settle */

void group_init(struct group *group, struct monitor *monitor, const struct database *database,
                const struct shard *shard)
{
    *group = (struct group){.monitor = monitor, .database = database, .shard = shard};
    group->watches = mem_alloc(sizeof *group->watches * (size_t)shard->nnodes);
}

void group_free(struct group *group)
{
    free(group->watches);
}

static bool is_primary(const struct watch *watch)
{
    return atomic_load(&watch->node->role) == NODE_ROLE_PRIMARY;
}

static bool is_up(const struct watch *watch)
{
    return atomic_load(&watch->node->state) == NODE_STATE_UP;
}

static int timeline_of(const struct watch *watch)
{
    return atomic_load(&watch->node->timeline);
}

/*
 * The highest timeline wins, reachable or not. On one timeline (two replicas were promoted, or one was made
 * writable without promoting it) a reachable one, then the one that was it before: see is_tie().
 */
static bool outranks(const struct group *group, const struct watch *a, const struct watch *b)
{
    if (timeline_of(a) != timeline_of(b))
        return timeline_of(a) > timeline_of(b);
    if (is_up(a) != is_up(b))
        return is_up(a);
    return a == group->primary;
}

static struct watch *find_primary(const struct group *group)
{
    struct watch *best = NULL;
    for (int i = 0; i < group->nwatches; i++) {
        struct watch *watch = group->watches[i];
        if (is_primary(watch) && (!best || outranks(group, watch, best)))
            best = watch;
    }
    return best;
}

/* Of equals none is better that was not primary when all of them had been looked at: which one has the
 * other writers' data, nobody here can know, and every proxy would have to choose the same. */
static bool is_tie(const struct group *group, const struct watch *best)
{
    if (!best || !is_up(best) || (best == group->primary && group->established))
        return false;
    for (int i = 0; i < group->nwatches; i++) {
        const struct watch *watch = group->watches[i];
        if (watch != best && is_primary(watch) && is_up(watch) && !watch->foreign &&
            timeline_of(watch) == timeline_of(best))
            return true;
    }
    return false;
}

static void report_tie(struct group *group, const struct watch *best, bool tie)
{
    if (tie && !group->said_tie)
        log_event(LOG_ERROR, "several writable nodes on one timeline: none of them is written to",
                  LOG_S("shard", group->shard->name), LOG_S("node", best->name),
                  LOG_I("timeline", timeline_of(best)),
                  LOG_S("hint", "stop all of them but the one that is to stay, and rebuild the "
                                "others as its replicas"));
    group->said_tie = tie;
}

static void choose_primary(struct group *group)
{
    struct watch *best = find_primary(group);
    bool tie = is_tie(group, best);
    report_tie(group, best, tie);
    if (group->primary != best)
        group->established = false;
    group->primary = tie ? NULL : best;
    bool all = group->primary != NULL;
    for (int i = 0; i < group->nwatches; i++)
        all &= group->watches[i]->checked_once;
    group->established |= all;
}

static void fence_others(struct group *group)
{
    for (int i = 0; i < group->nwatches; i++) {
        struct watch *watch = group->watches[i];
        bool fenced = watch != group->primary && is_primary(watch);
        /* What is under way there would be lost: nobody shall be told that it was done. */
        if (fenced && !watch->fenced)
            node_disown(watch->node, clock_us());
        watch->fenced = fenced;
        atomic_store(&watch->node->fenced, fenced);
        if (fenced && group->primary && is_up(watch) && !watch->said_fenced)
            log_event(LOG_ERROR, "a second writable node in a shard: nothing is sent to it",
                      LOG_S("shard", group->shard->name), LOG_S("node", watch->name),
                      LOG_I("timeline", timeline_of(watch)), LOG_S("primary", group->primary->name),
                      LOG_I("primary_timeline", timeline_of(group->primary)),
                      LOG_S("hint", "rebuild it as a replica (pg_rewind or pg_basebackup)"));
        watch->said_fenced = fenced && group->primary && (watch->said_fenced || is_up(watch));
    }
}

/*
 * A node of another cluster (other system identifier) says nothing about this one's timelines. One that
 * is down was left over when the shard was built anew; one that is up is a mistake in the configuration.
 */
static void disown_foreigners(struct group *group)
{
    const struct watch *primary = group->primary;
    for (int i = 0; i < group->nwatches; i++) {
        struct watch *watch = group->watches[i];
        watch->foreign = primary && watch != primary && is_up(primary) && primary->system_id &&
                         watch->system_id && watch->system_id != primary->system_id;
        if (watch->foreign)
            atomic_store(&watch->node->timeline, 0);
        if (watch->foreign && is_up(watch) && !watch->said_foreign)
            log_event(LOG_ERROR, "a node is not of the same cluster as its shard's primary",
                      LOG_S("shard", group->shard->name), LOG_S("node", watch->name),
                      LOG_S("primary", primary->name),
                      LOG_S("hint", "correct the shard's list of nodes, or rebuild the node from "
                                    "the primary; it serves nothing"));
        watch->said_foreign = watch->foreign && (watch->said_foreign || is_up(watch));
    }
}

/* A node says it is primary, but another has been on a later timeline: it was failed over from. */
static void report_stale_primary(struct group *group)
{
    int highest = 0;
    for (int i = 0; i < group->nwatches; i++)
        if (timeline_of(group->watches[i]) > highest)
            highest = timeline_of(group->watches[i]);
    bool stale = group->primary && is_up(group->primary) && timeline_of(group->primary) < highest;
    if (stale && !group->said_stale)
        log_event(LOG_ERROR, "the only writable node of a shard is an old primary: not written to",
                  LOG_S("shard", group->shard->name), LOG_S("node", group->primary->name),
                  LOG_I("timeline", timeline_of(group->primary)), LOG_I("newest_timeline", highest),
                  LOG_S("hint", "bring back the node that was promoted last"));
    group->said_stale = stale;
}

/* ---- lag ---- */

static void report_lag(struct watch *watch, int64_t lag_us)
{
    int64_t limit = watch->monitor->topology->config->pool.max_lag * 1000;
    if (!watch->said_lagging && lag_us > limit) {
        watch->said_lagging = true;
        log_event(LOG_WARNING, "replica lags behind max_lag", LOG_S("node", watch->name),
                  LOG_S("database", watch->node->dbname), LOG_I("lag_ms", lag_us / 1000),
                  LOG_I("lag_bytes", atomic_load(&watch->node->lag_bytes)),
                  LOG_I("max_lag_ms", limit / 1000));
    } else if (watch->said_lagging && lag_us >= 0 && lag_us <= limit / 4 * 3) {
        /* Well below: a replica at the limit shall not fill the log. */
        watch->said_lagging = false;
        log_event(LOG_INFO, "replica has caught up", LOG_S("node", watch->name),
                  LOG_S("database", watch->node->dbname), LOG_I("lag_ms", lag_us / 1000));
    }
}

/* Is the replica known to have the primary's WAL and no other's? Reports what stays unclear. */
static bool follows_primary(struct group *group, struct watch *watch, int64_t now)
{
    const struct watch *primary = group->primary;
    bool follows = !watch->foreign && timeline_of(watch) == timeline_of(primary) &&
                   primary->history_timeline == timeline_of(primary);
    if (follows) {
        watch->unverified_since = 0;
        watch->said_unverified = false;
        return true;
    }
    if (!watch->unverified_since)
        watch->unverified_since = now;
    if (!watch->foreign && !watch->said_unverified &&
        now - watch->unverified_since > UNVERIFIED_REPORTED_AFTER) {
        watch->said_unverified = true;
        log_event(LOG_WARNING, "replica is not known to follow the primary: no reads go there",
                  LOG_S("shard", group->shard->name), LOG_S("node", watch->name),
                  LOG_I("timeline", timeline_of(watch)), LOG_S("primary", primary->name),
                  LOG_I("primary_timeline", timeline_of(primary)),
                  LOG_S("hint",
                        "point it at the new primary; and grant pg_monitor to monitor.user, "
                        "so that its WAL receiver's timeline can be seen"));
    }
    return false;
}

/*
 * With the primary gone its clock stands still: what it wrote last and nobody received must not make
 * its replicas look older and older, or reads would end with it.
 */
static int64_t time_at_primary(const struct watch *primary, int64_t now)
{
    const struct lag_history *history = &primary->history;
    if (is_up(primary) || history->count == 0)
        return now;
    return history->entries[history->count - 1].last;
}

static void measure(struct group *group, struct watch *watch, int64_t now)
{
    struct node *node = watch->node;
    struct lag lag = {-1, -1, 0};
    /* Another shard listing the same node may know its primary; the larger one judges it. */
    if (watch->group != group || atomic_load(&node->role) != NODE_ROLE_REPLICA)
        return;
    if (group->primary && watch->has_position && follows_primary(group, watch, now))
        lag =
            lag_of(&group->primary->history, watch->replayed, time_at_primary(group->primary, now));
    atomic_store(&node->lag_bytes, lag.lag_bytes);
    atomic_store(&node->lag_us, lag.lag_us);
    atomic_store(&node->held_lag_us, lag_hold(atomic_load(&node->held_lag_us), lag.lag_us));
    atomic_store(&node->fresh_as_of, lag.fresh_as_of);
    report_lag(watch, lag.lag_us);
}

void group_measure(struct group *group, struct watch *changed)
{
    int64_t now = clock_us();
    if (changed != group->primary) {
        measure(group, changed, now);
        return;
    }
    for (int i = 0; i < group->nwatches; i++)
        measure(group, group->watches[i], now);
}

void group_settle(struct group *group)
{
    const struct watch *before = group->primary;
    choose_primary(group);
    disown_foreigners(group);
    fence_others(group);
    report_stale_primary(group);
    if (group->primary && before && group->primary != before)
        log_event(LOG_WARNING, "a shard has a new primary",
                  LOG_S("database", group->database->name), LOG_S("shard", group->shard->name),
                  LOG_S("node", group->primary->name), LOG_S("before", before->name),
                  LOG_I("timeline", timeline_of(group->primary)));
    int64_t now = clock_us();
    for (int i = 0; i < group->nwatches; i++) {
        measure(group, group->watches[i], now);
        if (group->watches[i]->group == group)
            health_publish(group->watches[i]);
    }
}

bool group_is_urgent(const struct group *group)
{
    return !group->primary || !is_up(group->primary) || group->said_stale;
}
