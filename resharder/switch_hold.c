/* switch_hold.c: proxies keep the statements on moving buckets waiting, and follow the new map. */
#include <stdlib.h>

#include "pgshunt/catalog.h"
#include "resharder/switch.h"

#define LOOK_MS 3
#define FORCED_MS 2000 /* what was cancelled has that long to be gone */
#define FOLLOW_MS 10000
/* Of the lease, beyond what the switch may take: the flip wants a second of it. */
#define LEASE_MARGIN_MS 4000

bool turn_hold(struct turn *turn)
{
    struct reshard *reshard = turn->reshard;
    int count = turn->moves.count;
    struct catalog_range *ranges =
        arena_array(&reshard->arena, struct catalog_range, (size_t)count + 1);
    for (int i = 0; i < count; i++)
        ranges[i] = (struct catalog_range){.keyspace = turn->moves.items[i].keyspace->name,
                                           .first = turn->moves.items[i].first,
                                           .last = turn->moves.items[i].last};
    int64_t lease = turn->drain_ms + turn->max_pause_ms + FORCED_MS + LEASE_MARGIN_MS;
    turn->held_at = db_clock_ms();
    if (turn->job->tables)
        return table_job_hold(reshard, turn->job, lease, &turn->hold);
    return catalog_hold(reshard_catalog(reshard), reshard->request->database, turn->job->name,
                        ranges, count, lease, &turn->hold, &reshard->error);
}

/* What the proxies say: how many do not keep the hold yet, and what still runs. */
struct answers {
    int silent, busy;
    const char *who; /* for people: one that is silent or busy */
};

static bool ask_proxies(struct turn *turn, struct answers *answers)
{
    struct reshard *reshard = turn->reshard;
    struct catalog_proxy *proxies;
    int count;
    *answers = (struct answers){.who = ""};
    if (!catalog_proxies(reshard_catalog(reshard), reshard->request->database, &reshard->arena,
                         &proxies, &count, &reshard->error))
        return false;
    for (int i = 0; i < count; i++) {
        bool silent = proxies[i].hold < turn->hold;
        if (!silent && !proxies[i].busy)
            continue;
        answers->silent += silent;
        answers->busy += silent ? 0 : proxies[i].busy;
        answers->who = RESHARD_TEXT(reshard, "%s process %d", proxies[i].host, proxies[i].pid);
    }
    return true;
}

static bool still_busy(struct turn *turn, const struct answers *answers)
{
    struct db_error *error = &turn->reshard->error;
    *error = (struct db_error){.sqlstate = "55P03"};
    snprintf(error->text, sizeof error->text,
             "%d transactions from before have not ended within %lld ms (proxy %s)", answers->busy,
             (long long)turn->drain_ms, answers->who);
    snprintf(error->hint, sizeof error->hint,
             "Try again, give them more time (--drain), or let them be cancelled (--force).");
    return false;
}

static bool force_out(struct turn *turn)
{
    struct reshard *reshard = turn->reshard;
    reshard_tell(reshard, RESHARD_NOTE, NULL, NULL,
                 "transactions that have not ended are cancelled", NULL);
    return catalog_hold_extend(reshard_catalog(reshard), turn->hold,
                               turn->max_pause_ms + FORCED_MS + LEASE_MARGIN_MS, true,
                               &reshard->error);
}

bool turn_drain(struct turn *turn)
{
    struct reshard *reshard = turn->reshard;
    struct answers answers;
    bool forced = false;
    for (int64_t until = turn->held_at + turn->drain_ms;;) {
        if (!ask_proxies(turn, &answers))
            return false;
        if (!answers.silent && !answers.busy)
            return true;
        if (db_clock_ms() < until && !reshard_stopped(reshard)) {
            reshard_sleep(turn->reshard, LOOK_MS * 1000);
            continue;
        }
        if (reshard_stopped(reshard))
            return still_busy(turn, &answers);
        if (!answers.busy)
            break; /* who is silent is left to the guard */
        if (!turn->force || forced)
            return still_busy(turn, &answers);
        forced = true;
        until = db_clock_ms() + FORCED_MS;
        if (!force_out(turn))
            return false;
    }
    reshard_tell(reshard, RESHARD_NOTE, NULL, NULL,
                 RESHARD_TEXT(reshard,
                              "%d proxies did not answer (%s): what they write to the old owners"
                              " is refused there from now on",
                              answers.silent, answers.who),
                 NULL);
    return true;
}

static bool all_follow(struct turn *turn, const char **who)
{
    struct reshard *reshard = turn->reshard;
    struct catalog_proxy *proxies;
    int count;
    if (!catalog_proxies(reshard_catalog(reshard), reshard->request->database, &reshard->arena,
                         &proxies, &count, &reshard->error)) {
        *who = reshard->error.text;
        return false;
    }
    for (int i = 0; i < count; i++)
        if (proxies[i].epoch < turn->job->epoch) {
            *who = RESHARD_TEXT(reshard, "%s process %d", proxies[i].host, proxies[i].pid);
            return false;
        }
    return true;
}

void turn_follow(struct turn *turn)
{
    const char *who = "";
    for (int64_t until = db_clock_ms() + FOLLOW_MS; db_clock_ms() < until;) {
        if (all_follow(turn, &who))
            return;
        if (reshard_stopped(turn->reshard))
            break;
        reshard_sleep(turn->reshard, 10 * LOOK_MS * 1000);
    }
    reshard_tell(turn->reshard, RESHARD_NOTE, NULL, NULL,
                 RESHARD_TEXT(turn->reshard,
                              "a proxy does not have the new map yet (%s): it may write nothing of"
                              " what has moved until it has",
                              who),
                 NULL);
}
