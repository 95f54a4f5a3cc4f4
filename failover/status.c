/* status.c: how every server and every proxy of a configuration is. */
#include <string.h>

#include "failover/run.h"

static const char *role_of(const struct facts *facts, int index)
{
    const struct node_facts *node = &facts->nodes[index];
    if (!node->reachable)
        return "-";
    if (node->in_recovery)
        return "replica";
    return facts_is_old_primary(facts, index) ? "old primary" : "primary";
}

static int64_t lag_of(const struct facts *facts, int index)
{
    int primary = facts_primary(facts);
    const struct node_facts *node = &facts->nodes[index];
    if (!node->reachable || primary < 0 || facts_is_old_primary(facts, index))
        return -1;
    int64_t lag = (int64_t)(facts->nodes[primary].position - node->replayed);
    if (!node->in_recovery)
        return 0;
    /* The replica was asked later than the primary. */
    return node->timeline != facts->nodes[primary].timeline ? -1 : lag < 0 ? 0 : lag;
}

static bool tell_node(struct run *run, const struct failover_status_request *request, int index)
{
    const struct node_facts *node = &run->facts.nodes[index];
    const char *state = !node->reachable                  ? node->why
                        : !node->in_recovery              ? "up"
                        : node->streaming && node->paused ? "replay paused"
                        : node->streaming                 ? "streaming"
                                                          : "not streaming";
    request->node(request->arg, &(struct failover_status){
                                    .database = run->facts.database,
                                    .shard = run->facts.shard,
                                    .host = node->host,
                                    .port = node->port,
                                    .role = role_of(&run->facts, index),
                                    .state = state,
                                    .timeline = node->timeline,
                                    .position = !node->reachable    ? -1
                                                : node->in_recovery ? (int64_t)node->replayed
                                                                    : (int64_t)node->position,
                                    .lag_bytes = lag_of(&run->facts, index),
                                    .upstream = node->upstream,
                                    .read_only = node->read_only,
                                });
    return node->reachable;
}

static void close_nodes(struct run *run)
{
    for (int i = 0; i < run->facts.nnodes; i++)
        db_close(run->nodes[i]);
}

static bool tell_shard(struct run *run, const struct failover_status_request *request,
                       const struct database_config *database, const struct shard_config *shard)
{
    bool good = true;
    run->database = database;
    run->shard = shard;
    run->facts.database = database->name;
    run->facts.shard = shard->name;
    survey_nodes(run);
    for (int i = 0; i < run->facts.nnodes; i++)
        good &= tell_node(run, request, i);
    good &= facts_primary(&run->facts) >= 0;
    close_nodes(run);
    return good;
}

bool failover_status(const struct failover_status_request *request)
{
    struct failover_request as = {.config = request->config,
                                  .user = request->user,
                                  .admin = request->admin,
                                  .proxies = request->proxies,
                                  .nproxies = request->nproxies,
                                  .stop = request->stop,
                                  .dry_run = true};
    struct run run = {.request = &as};
    bool good = true;
    arena_init(&run.arena);
    survey_logins(&run);
    for (int d = 0; d < request->config->ndatabases && run_goes_on(&run); d++)
        for (int s = 0; s < request->config->databases[d].nshards && run_goes_on(&run); s++)
            good &= tell_shard(&run, request, &request->config->databases[d],
                               &request->config->databases[d].shards[s]);
    consoles_open(&run);
    good &= consoles_tell_nodes(&run, request->proxy, request->arg);
    for (int i = 0; i < run.facts.nproxies; i++)
        db_close(run.proxies[i]);
    arena_free(&run.arena);
    return good;
}
