/*
 * monitor_schema.c: decides when a database's schema is loaded and from which node: when one of the
 * first shard's is reachable, soon after DDL went through the proxy, and from time to time because DDL
 * may go past it. The snapshot is replaced only if something in it changed, so that plans stay cached.
 */
#include "proxy/monitor_internal.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "pgshunt/arena.h"
#include "pgshunt/log.h"
#include "proxy/schema_loader.h"

/* microseconds */
#define DEBOUNCE 20000
#define RELOAD_EVERY 60000000
#define RELOAD_SHARE                                                                               \
    50 /* a load may take one part in so many of the time: big catalogs load less often */
#define RELOAD_FROM_REPLICA                                                                        \
    5000000 /* a replica's catalog may be old: until a primary can be asked */
#define RETRY_FAILED 2000000

struct schema_job {
    struct monitor *monitor;
    char *name;                      /* of the database */
    const struct database *database; /* into the monitor's topology */
    struct schema_load *load;        /* under way; NULL: none */
    int64_t due_at;
    int64_t started_at;
    uint64_t fingerprint; /* of what is published */
    bool published;
    bool from_primary;
    bool again; /* changed while a load was under way, which may have missed it */
    bool tried;
    bool said_failed;
};

struct schema_job *schema_job_new(struct monitor *monitor, const char *name)
{
    struct schema_job *job = mem_alloc(sizeof *job);
    job->monitor = monitor;
    job->name = mem_strdup(name);
    return job;
}

void schema_job_free(struct schema_job *job)
{
    schema_load_cancel(job->load);
    free(job->name);
    free(job);
}

const char *schema_job_name(const struct schema_job *job)
{
    return job->name;
}

void schema_job_set_database(struct schema_job *job, const struct database *database)
{
    job->database = database;
}

const struct database *schema_job_database(const struct schema_job *job)
{
    return job->database;
}

void schema_job_soon(struct schema_job *job)
{
    int64_t soon = clock_us() + DEBOUNCE;
    if (job->load)
        job->again = true;
    else if (job->due_at > soon)
        job->due_at = soon;
}

/* The first shard's primary, else any node of it that answers. */
static struct node *source_of(const struct schema_job *job)
{
    const struct shard *shard = &job->database->shards[0];
    struct node *primary = shard_primary(shard);
    if (primary && atomic_load(&primary->state) == NODE_STATE_UP)
        return primary;
    for (int n = 0; n < shard->nnodes; n++)
        if (atomic_load(&shard->nodes[n]->state) == NODE_STATE_UP)
            return shard->nodes[n];
    return NULL;
}

static void take_failure(struct schema_job *job, const char *why, int64_t now)
{
    if (!job->said_failed)
        log_event(LOG_WARNING, "cannot load the schema", LOG_S("database", job->name),
                  LOG_S("reason", why),
                  LOG_S("hint", "until it is loaded, statements that call functions go to the "
                                "primary; monitor.user needs CONNECT on the database"));
    job->said_failed = true;
    job->due_at = now + RETRY_FAILED;
}

static void on_done(void *arg, struct schema *schema, uint64_t fingerprint, const char *why)
{
    struct schema_job *job = arg;
    int64_t now = clock_us();
    job->load = NULL;
    job->tried = true;
    if (!schema) {
        take_failure(job, why, now);
        return;
    }
    int64_t pause = (now - job->started_at) * RELOAD_SHARE;
    int64_t least = job->from_primary ? RELOAD_EVERY : RELOAD_FROM_REPLICA;
    job->due_at = now + (job->again ? DEBOUNCE : pause > least ? pause : least);
    job->again = false;
    job->said_failed = false;
    if (job->published && fingerprint == job->fingerprint &&
        topology_schema_version(job->database) != 0) {
        schema_free(schema);
        topology_schema_was_read(job->database, job->started_at);
        return;
    }
    topology_publish_schema(job->database, schema);
    topology_schema_was_read(job->database, job->started_at);
    job->published = true;
    job->fingerprint = fingerprint;
    log_event(LOG_INFO, "schema loaded", LOG_S("database", job->name),
              LOG_I("version", topology_schema_version(job->database)),
              LOG_I("ms", (now - job->started_at) / 1000));
}

void schema_job_tick(struct schema_job *job, int64_t now)
{
    if (job->load || now < job->due_at || !job->database || job->database->nshards == 0)
        return;
    struct node *node = source_of(job);
    if (!node)
        return;
    job->started_at = now;
    job->again = false;
    job->load = schema_load_start(&job->monitor->loop, node, job->monitor->topology->config,
                                  shardmap_is_sharded(job->database->map), on_done, job);
}

bool schema_job_settled(const struct schema_job *job)
{
    return job->tried || !job->database || (!job->load && !source_of(job));
}
