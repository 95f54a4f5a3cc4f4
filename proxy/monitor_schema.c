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
#define RELOAD_EVERY 5000000
#define RELOAD_SHARE                                                                               \
    50 /* a load may take one part in so many of the time: big catalogs load less often */
#define RETRY_FAILED 2000000

struct schema_job {
    struct monitor *monitor;
    char *name;                      /* of the database */
    const struct database *database; /* into the monitor's topology */
    struct schema_load *load;        /* under way; NULL: none */
    struct topology *held;           /* ... whose map it goes by; a reference */
    struct schema *building; /* read from the first shard; mapped schemas of others are added */
    uint64_t building_print;
    int shard; /* that is being read */
    int64_t due_at;
    int64_t started_at;
    uint64_t fingerprint; /* of what is published */
    bool published;
    bool again;      /* changed while a load was under way, which may have missed it */
    bool incomplete; /* a shard's own schemas could not be read */
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
    if (job->building)
        schema_free(job->building);
    if (job->held)
        topology_unref(job->held);
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
    if (database && shardmap_has_schemas(database->map))
        schema_job_soon(job); /* which of them are where may have changed */
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

/* The shard's primary, else any node of it that answers. */
static struct node *source_of(const struct schema_job *job, int number)
{
    const struct shard *shard = &job->database->shards[number];
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

static const struct database *held_database(const struct schema_job *job)
{
    for (int i = 0; i < job->held->ndatabases; i++)
        if (strcmp(job->held->databases[i].name, job->name) == 0)
            return &job->held->databases[i];
    return NULL;
}

static void on_done(void *arg, struct schema *schema, uint64_t fingerprint, const char *why);

static void start_load(struct schema_job *job, struct node *node, int shard)
{
    struct schema_load_what what = {held_database(job)->map, (unsigned)shard, job->building};
    job->shard = shard;
    job->load = schema_load_start(&job->monitor->loop, node, job->monitor->topology->config, &what,
                                  on_done, job);
}

/* Goes on with the next shard that has schemas of its own. False: there is none. What cannot be read now
 * is not known, and tried again soon. */
static bool read_next(struct schema_job *job)
{
    const struct database *held = held_database(job);
    for (int shard = job->shard + 1; held && job->database && shard < held->nshards; shard++) {
        bool has = shardmap_has_schemas_on(held->map, (unsigned)shard);
        struct node *node = has && shard < job->database->nshards ? source_of(job, shard) : NULL;
        if (node) {
            start_load(job, node, shard);
            return true;
        }
        job->incomplete |= has;
    }
    return false;
}

/* Takes what was read of one shard. False: there is more to come. */
static bool take_part(struct schema_job *job, struct schema *schema, uint64_t fingerprint,
                      const char *why)
{
    job->building = schema;
    job->building_print = job->building_print * 31 + fingerprint;
    if (why) {
        log_event(LOG_WARNING, "cannot load the schemas of a shard", LOG_S("database", job->name),
                  LOG_I("shard", job->shard), LOG_S("reason", why));
        job->incomplete = true;
    }
    return !read_next(job);
}

static void publish(struct schema_job *job, struct schema *schema, uint64_t fingerprint);

static void on_done(void *arg, struct schema *schema, uint64_t fingerprint, const char *why)
{
    struct schema_job *job = arg;
    job->load = NULL;
    job->tried = true;
    if (schema && !take_part(job, schema, fingerprint, why))
        return;
    topology_unref(job->held);
    job->held = NULL;
    job->building = NULL;
    if (schema)
        publish(job, schema, job->building_print);
    else
        take_failure(job, why, clock_us());
}

static void publish(struct schema_job *job, struct schema *schema, uint64_t fingerprint)
{
    int64_t now = clock_us();
    int64_t pause = (now - job->started_at) * RELOAD_SHARE;
    int64_t often = pause > RELOAD_EVERY ? pause : RELOAD_EVERY;
    job->due_at = now + (job->again ? DEBOUNCE : job->incomplete ? RETRY_FAILED : often);
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
    struct node *node = source_of(job, 0);
    if (!node)
        return;
    job->started_at = now;
    job->again = false;
    job->incomplete = false;
    job->building_print = 0;
    job->held = topology_ref(job->monitor->topology);
    start_load(job, node, 0);
}

bool schema_job_settled(const struct schema_job *job)
{
    return job->tried || !job->database || (!job->load && !source_of(job, 0));
}
