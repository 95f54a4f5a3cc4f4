/*
 * monitor.c: the monitor's thread and loop, and what other threads may ask of it.
 *
 * Others never touch the loop: they queue a request under the lock and wake it. Watches live as long as
 * their node is in the topology; groups and schema jobs are matched to each new topology.
 */
#include "proxy/monitor_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "pgshunt/arena.h"
#include "pgshunt/log.h"

#define LONGEST_TICK_MS 100
#define STOP_WAIT_MS 800 /* then a name look-up that hangs is left to end by itself */

/* ---- matching a topology ---- */

static struct watch *find_watch(const struct monitor *monitor, const struct node *node)
{
    for (int i = 0; i < monitor->nwatches; i++)
        if (monitor->watches[i]->node == node)
            return monitor->watches[i];
    return NULL;
}

static struct watch *want_watch(struct monitor *monitor, struct node *node)
{
    struct watch *watch = find_watch(monitor, node);
    if (!watch) {
        watch = watch_new(monitor, node);
        monitor->watches = mem_realloc(monitor->watches,
                                       sizeof *monitor->watches * (size_t)(monitor->nwatches + 1));
        monitor->watches[monitor->nwatches++] = watch;
    }
    watch->wanted = true;
    return watch;
}

static void fill_group(struct group *group)
{
    const struct shard *shard = group->shard;
    for (int n = 0; n < shard->nnodes; n++) {
        struct watch *watch = want_watch(group->monitor, shard->nodes[n]);
        bool listed_twice = false;
        for (int i = 0; i < group->nwatches; i++)
            listed_twice |= group->watches[i] == watch;
        if (listed_twice)
            continue;
        group->watches[group->nwatches++] = watch;
        if (!watch->group || shard->nnodes > watch->group->shard->nnodes)
            watch->group = group;
    }
}

static void build_groups(struct monitor *monitor)
{
    const struct topology *topology = monitor->topology;
    int count = 0;
    for (int d = 0; d < topology->ndatabases; d++)
        count += topology->databases[d].nshards;
    monitor->groups = mem_alloc(sizeof *monitor->groups * (size_t)count);
    for (int d = 0; d < topology->ndatabases; d++)
        for (int s = 0; s < topology->databases[d].nshards; s++) {
            struct group *group = &monitor->groups[monitor->ngroups++];
            group_init(group, monitor, &topology->databases[d], &topology->databases[d].shards[s]);
            fill_group(group);
        }
}

static void free_groups(struct monitor *monitor)
{
    for (int i = 0; i < monitor->ngroups; i++)
        group_free(&monitor->groups[i]);
    free(monitor->groups);
    monitor->groups = NULL;
    monitor->ngroups = 0;
}

/* Who was primary stays primary among equals, also over a reload. */
static void settle_groups(struct monitor *monitor, struct watch *const *primaries, int nprimaries)
{
    for (int g = 0; g < monitor->ngroups; g++) {
        struct group *group = &monitor->groups[g];
        for (int i = 0; i < group->nwatches; i++)
            for (int p = 0; p < nprimaries; p++)
                if (group->watches[i] == primaries[p]) {
                    group->primary = primaries[p];
                    group->established = true;
                }
        group_settle(group);
    }
}

static void sweep_watches(struct monitor *monitor)
{
    int kept = 0;
    for (int i = 0; i < monitor->nwatches; i++) {
        if (monitor->watches[i]->wanted)
            monitor->watches[kept++] = monitor->watches[i];
        else
            watch_free(monitor->watches[i]);
    }
    monitor->nwatches = kept;
}

static struct schema_job *find_job(const struct monitor *monitor, const char *name)
{
    for (int i = 0; i < monitor->njobs; i++)
        if (strcmp(schema_job_name(monitor->jobs[i]), name) == 0)
            return monitor->jobs[i];
    return NULL;
}

static void match_jobs(struct monitor *monitor)
{
    const struct topology *topology = monitor->topology;
    int kept = 0;
    for (int i = 0; i < monitor->njobs; i++) {
        struct schema_job *job = monitor->jobs[i];
        const struct database *database = topology_database(topology, schema_job_name(job));
        schema_job_set_database(job, database);
        if (database)
            monitor->jobs[kept++] = job;
        else
            schema_job_free(job);
    }
    monitor->njobs = kept;
    for (int d = 0; d < topology->ndatabases; d++) {
        const struct database *database = &topology->databases[d];
        if (find_job(monitor, database->name))
            continue;
        struct schema_job *job = schema_job_new(monitor, database->name);
        schema_job_set_database(job, database);
        monitor->jobs =
            mem_realloc(monitor->jobs, sizeof *monitor->jobs * (size_t)(monitor->njobs + 1));
        monitor->jobs[monitor->njobs++] = job;
    }
}

static void on_tick(uv_timer_t *timer);

/* Whole ticks make a round; ticks are short so that retries and reloads need not wait for a round. */
static void start_ticking(struct monitor *monitor)
{
    int64_t interval = monitor->topology->config->lag_check_interval;
    if (interval < 1)
        interval = 1;
    int64_t ticks = (interval + LONGEST_TICK_MS - 1) / LONGEST_TICK_MS;
    uint64_t tick = (uint64_t)(interval / ticks);
    monitor->round_at = 0;
    uv_timer_start(&monitor->tick, on_tick, 0, tick ? tick : 1);
}

/* Takes over the reference. */
static void use_topology(struct monitor *monitor, struct topology *topology)
{
    struct topology *old = monitor->topology;
    struct watch **primaries = mem_alloc(sizeof(struct watch *) * (size_t)(monitor->ngroups + 1));
    int nprimaries = 0;
    for (int g = 0; g < monitor->ngroups; g++)
        if (monitor->groups[g].primary)
            primaries[nprimaries++] = monitor->groups[g].primary;
    for (int i = 0; i < monitor->nwatches; i++) {
        monitor->watches[i]->wanted = false;
        monitor->watches[i]->group = NULL;
    }
    free_groups(monitor);

    monitor->topology = topology;
    build_groups(monitor);
    match_jobs(monitor);
    settle_groups(monitor, primaries, nprimaries);
    sweep_watches(monitor);
    start_ticking(monitor);
    free(primaries);
    topology_unref(old);
}

/* ---- the loop ---- */

static void report_first_round(struct monitor *monitor)
{
    if (monitor->round_done) /* only this thread writes it */
        return;
    for (int i = 0; i < monitor->nwatches; i++)
        if (!monitor->watches[i]->checked_once)
            return;
    for (int i = 0; i < monitor->njobs; i++)
        if (!schema_job_settled(monitor->jobs[i]))
            return;
    pthread_mutex_lock(&monitor->lock);
    monitor->round_done = true;
    pthread_cond_broadcast(&monitor->changed);
    pthread_mutex_unlock(&monitor->lock);
}

static void on_tick(uv_timer_t *timer)
{
    struct monitor *monitor = timer->data;
    int64_t now = clock_us();
    int64_t interval = monitor->topology->config->lag_check_interval * 1000;
    int64_t slack = (int64_t)uv_timer_get_repeat(timer) * 500;
    bool round = now + slack >= monitor->round_at;
    if (round)
        monitor->round_at =
            monitor->round_at + interval > now ? monitor->round_at + interval : now + interval;
    for (int i = 0; i < monitor->nwatches; i++)
        watch_tick(monitor->watches[i], now, round);
    for (int i = 0; i < monitor->njobs; i++)
        schema_job_tick(monitor->jobs[i], now);
    report_first_round(monitor);
}

static void shut_down(struct monitor *monitor)
{
    monitor->closing = true;
    for (int i = 0; i < monitor->njobs; i++)
        schema_job_free(monitor->jobs[i]);
    for (int i = 0; i < monitor->nwatches; i++)
        watch_free(monitor->watches[i]);
    free(monitor->jobs);
    free(monitor->watches);
    monitor->njobs = monitor->nwatches = 0;
    free_groups(monitor);
    topology_unref(monitor->topology);
    monitor->topology = NULL;
    uv_close((uv_handle_t *)&monitor->tick, NULL);
    uv_close((uv_handle_t *)&monitor->wake, NULL);
}

static void serve_request(struct monitor *monitor, struct request *request)
{
    if (request->suspect) {
        struct watch *watch = find_watch(monitor, request->suspect);
        if (watch)
            watch_suspect(watch);
    } else {
        struct schema_job *job = find_job(monitor, request->schema);
        if (job)
            schema_job_soon(job);
    }
}

static void free_request(struct request *request)
{
    node_unref(request->suspect);
    free(request->schema);
    free(request);
}

static void on_wake(uv_async_t *wake)
{
    struct monitor *monitor = wake->data;
    pthread_mutex_lock(&monitor->lock);
    bool stop = monitor->stop;
    struct topology *topology = monitor->next_topology;
    struct request *requests = monitor->requests;
    monitor->next_topology = NULL;
    monitor->requests = NULL;
    pthread_mutex_unlock(&monitor->lock);

    if (topology && !stop)
        use_topology(monitor, topology);
    else
        topology_unref(topology);
    while (requests) {
        struct request *next = requests->next;
        if (!stop)
            serve_request(monitor, requests);
        free_request(requests);
        requests = next;
    }
    if (stop && !monitor->closing)
        shut_down(monitor);
}

static void free_monitor(struct monitor *monitor)
{
    while (monitor->requests) {
        struct request *next = monitor->requests->next;
        free_request(monitor->requests);
        monitor->requests = next;
    }
    topology_unref(monitor->next_topology);
    pthread_cond_destroy(&monitor->changed);
    pthread_mutex_destroy(&monitor->lock);
    free(monitor);
}

static void *run(void *arg)
{
    struct monitor *monitor = arg;
    pthread_setname_np(pthread_self(), "pgshunt-monitor");
    log_thread_name("monitor");
    pthread_mutex_lock(&monitor->lock);
    struct topology *topology = monitor->next_topology;
    monitor->next_topology = NULL;
    pthread_mutex_unlock(&monitor->lock);
    use_topology(monitor, topology);
    uv_run(&monitor->loop, UV_RUN_DEFAULT); /* until shut_down() and the last handle's close */
    uv_loop_close(&monitor->loop);

    pthread_mutex_lock(&monitor->lock);
    monitor->finished = true;
    bool abandoned = monitor->abandoned;
    pthread_cond_broadcast(&monitor->changed);
    pthread_mutex_unlock(&monitor->lock);
    if (abandoned)
        free_monitor(monitor);
    return NULL;
}

/* ---- called by other threads ---- */

static bool init_loop(struct monitor *monitor)
{
    if (uv_loop_init(&monitor->loop) != 0)
        return false;
    if (uv_async_init(&monitor->loop, &monitor->wake, on_wake) != 0) {
        uv_loop_close(&monitor->loop);
        return false;
    }
    uv_timer_init(&monitor->loop, &monitor->tick);
    monitor->wake.data = monitor;
    monitor->tick.data = monitor;
    return true;
}

static void init_lock(struct monitor *monitor)
{
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_mutex_init(&monitor->lock, NULL);
    pthread_cond_init(&monitor->changed, &attributes);
    pthread_condattr_destroy(&attributes);
}

struct monitor *monitor_start(struct topology *topology)
{
    struct monitor *monitor = mem_alloc(sizeof *monitor);
    init_lock(monitor);
    if (!init_loop(monitor)) {
        free_monitor(monitor);
        return NULL;
    }
    monitor->next_topology = topology_ref(topology);
    if (pthread_create(&monitor->thread, NULL, run, monitor) != 0) {
        uv_close((uv_handle_t *)&monitor->tick, NULL);
        uv_close((uv_handle_t *)&monitor->wake, NULL);
        uv_run(&monitor->loop, UV_RUN_DEFAULT);
        uv_loop_close(&monitor->loop);
        free_monitor(monitor);
        return NULL;
    }
    return monitor;
}

void monitor_set_topology(struct monitor *monitor, struct topology *topology)
{
    topology_ref(topology);
    pthread_mutex_lock(&monitor->lock);
    struct topology *skipped = monitor->next_topology;
    monitor->next_topology = topology;
    pthread_mutex_unlock(&monitor->lock);
    topology_unref(skipped);
    uv_async_send(&monitor->wake);
}

/* A request equal to one that waits is dropped, so the queue is never longer than the configuration. */
static void ask(struct monitor *monitor, struct node *suspect, const char *schema)
{
    pthread_mutex_lock(&monitor->lock);
    struct request *at = monitor->requests;
    while (at &&
           !(suspect ? at->suspect == suspect : at->schema && strcmp(at->schema, schema) == 0))
        at = at->next;
    if (!at) {
        struct request *request = mem_alloc(sizeof *request);
        request->suspect = suspect ? node_ref(suspect) : NULL;
        request->schema = suspect ? NULL : mem_strdup(schema);
        request->next = monitor->requests;
        monitor->requests = request;
    }
    pthread_mutex_unlock(&monitor->lock);
    if (!at)
        uv_async_send(&monitor->wake);
}

void monitor_suspect(struct monitor *monitor, struct node *node)
{
    ask(monitor, node, NULL);
}

void monitor_schema_changed(struct monitor *monitor, const struct database *database)
{
    ask(monitor, NULL, database->name);
}

/* Waits for *flag under the lock. Returns it. */
static bool wait_for(struct monitor *monitor, const bool *flag, int timeout_ms)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += timeout_ms / 1000;
    until.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    while (!*flag)
        if (pthread_cond_timedwait(&monitor->changed, &monitor->lock, &until) == ETIMEDOUT)
            break;
    return *flag;
}

void monitor_wait_first_round(struct monitor *monitor, int timeout_ms)
{
    pthread_mutex_lock(&monitor->lock);
    wait_for(monitor, &monitor->round_done, timeout_ms);
    pthread_mutex_unlock(&monitor->lock);
}

void monitor_stop(struct monitor *monitor)
{
    if (!monitor)
        return;
    pthread_mutex_lock(&monitor->lock);
    monitor->stop = true;
    uv_async_send(&monitor->wake);
    bool finished = wait_for(monitor, &monitor->finished, STOP_WAIT_MS);
    monitor->abandoned = !finished;
    pthread_t thread = monitor->thread;
    pthread_mutex_unlock(&monitor->lock);
    if (!finished) {
        pthread_detach(thread);
        return;
    }
    pthread_join(thread, NULL);
    free_monitor(monitor);
}
