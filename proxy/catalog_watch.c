/* catalog_watch.c: the threads that follow the catalog: publishes maps, lets go of holds, knows what workers use. */
#include "proxy/catalog_watch.h"

#include <errno.h>
#include <openssl/rand.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "pgshunt/log.h"
#include "proxy/bucket_hold.h"
#include "proxy/catalog_state.h"
#include "proxy/catalog_watch_internal.h"
#include "proxy/daemon.h"
#include "proxy/worker.h"

#define KEEPER_MS 1000 /* looks at least so often */

static void wake(const struct map_watch *watch)
{
    uint64_t one = 1;
    if (write(watch->wake, &one, sizeof one) < 0)
        return; /* it is awake */
}

void watch_complain(struct map_watch *watch, const char *what, const char *reason, const char *hint)
{
    char text[sizeof watch->said];
    snprintf(text, sizeof text, "%s %s", what, reason);
    if (strcmp(text, watch->said) == 0)
        return;
    memcpy(watch->said, text, sizeof text);
    log_event(LOG_WARNING, what, LOG_S("database", watch->database), LOG_S("reason", reason),
              LOG_S("hint", hint));
}

/* ---- the map in use ---- */

bool watch_holds(const struct map_watch *watch)
{
    return watch->recorded && watch->recorded->map.nholds > 0;
}

bool watch_has_old_work(const struct map_watch *watch)
{
    return watch->used.oldest.epoch < watch->used.epoch;
}

bool watch_use(struct map_watch *watch, struct recorded_map *recorded, const int64_t *until,
               struct db_error *error)
{
    if (!daemon_use_map(watch->watches->daemon, watch->database, recorded, error))
        return false;
    size_t size = sizeof *until * (size_t)recorded->map.nholds;
    recorded_map_ref(recorded);
    recorded_map_unref(watch->recorded);
    watch->recorded = recorded;
    free(watch->until);
    watch->until = mem_alloc(size + 1);
    if (size)
        memcpy(watch->until, until, size);
    watch->changed = true;
    watch->changes++;
    pthread_cond_broadcast(&watch->watches->tell);
    return true;
}

/* The same without the holds whose lease is over. */
static void let_go(struct map_watch *watch, int64_t now)
{
    const struct catalog_map *map = &watch->recorded->map;
    struct recorded_map *rest = recorded_map_new();
    int64_t *until = mem_alloc(sizeof *until * (size_t)map->nholds);
    struct db_error error;
    rest->base = recorded_map_ref(watch->recorded);
    rest->map = *map;
    rest->map.holds = arena_array(&rest->arena, struct catalog_hold, map->nholds);
    rest->map.nholds = 0;
    for (int i = 0; i < map->nholds; i++) {
        if (watch->until[i] <= now)
            continue;
        until[rest->map.nholds] = watch->until[i];
        rest->map.holds[rest->map.nholds++] = map->holds[i];
    }
    log_event(LOG_WARNING, "a hold was not ended in time: statements go on with the old map",
              LOG_S("database", watch->database));
    if (watch_use(watch, rest, until, &error))
        wake(watch);
    recorded_map_unref(rest);
    free(until);
}

static void look_at_leases(struct map_watch *watch, int64_t now, int64_t *next)
{
    bool over = false;
    for (int i = 0; watch_holds(watch) && i < watch->recorded->map.nholds; i++)
        over |= watch->until[i] <= now;
    if (over)
        let_go(watch, now);
    for (int i = 0; watch_holds(watch) && i < watch->recorded->map.nholds; i++)
        if (watch->until[i] < *next)
            *next = watch->until[i];
}

static struct timespec moment(int64_t clock_ms)
{
    return (struct timespec){.tv_sec = clock_ms / 1000, .tv_nsec = clock_ms % 1000 * 1000000};
}

/* Its own thread: that of a watch may be waiting for a server that does not answer. */
static void *keep(void *arg)
{
    struct catalog_watches *watches = arg;
    pthread_setname_np(pthread_self(), "pgshunt-holds");
    log_thread_name("holds");
    pthread_mutex_lock(&watches->lock);
    while (!watches->stop) {
        int64_t now = db_clock_ms(), next = now + KEEPER_MS;
        for (struct map_watch *watch = watches->list; watch; watch = watch->next)
            look_at_leases(watch, now, &next);
        struct timespec until = moment(next);
        pthread_cond_timedwait(&watches->tell, &watches->lock, &until);
    }
    pthread_mutex_unlock(&watches->lock);
    return NULL;
}

void watch_free_arena(struct arena *arena)
{
    if (arena)
        arena_free(arena);
    free(arena);
}

/* ---- what workers use ---- */

/* Under the lock. */
static void forget(struct map_watch *watch)
{
    if (--watch->references)
        return;
    recorded_map_unref(watch->recorded);
    free(watch->until);
    watch_free_arena(watch->others);
    close(watch->wake);
    free(watch->database);
    free(watch);
}

struct visit_workers {
    struct map_watch *watch; /* reference */
    struct map_use use;
    bool force; /* what stands in a hold's way is ended */
};

static void visit_worker(struct worker *worker, void *arg)
{
    struct visit_workers *visit = arg;
    struct bucket_hold_count count = {0, 0};
    if (visit->force)
        bucket_hold_force(worker, visit->watch->database);
    bucket_hold_count(worker, visit->watch->database, &count);
    old_work_oldest(worker, visit->watch->database, &visit->use.oldest);
    visit->use.busy += count.busy;
    visit->use.held += count.held;
}

static void visited(void *arg)
{
    struct visit_workers *visit = arg;
    struct map_watch *watch = visit->watch;
    struct catalog_watches *watches = watch->watches;
    pthread_mutex_lock(&watches->lock);
    bool news = memcmp(&watch->used, &visit->use, sizeof visit->use) != 0;
    watch->used = visit->use;
    watch->visiting = false;
    if (news || watch->changed)
        wake(watch);
    forget(watch);
    pthread_mutex_unlock(&watches->lock);
    free(visit);
}

/* A map is posted to the workers under the same lock, and before: whoever is passed by has it. */
void watch_visit(struct map_watch *watch)
{
    if (watch->visiting || (!watch->changed && !watch_holds(watch) && !watch_has_old_work(watch)))
        return;
    struct visit_workers *visit = mem_alloc(sizeof *visit);
    visit->watch = watch;
    watch->references++;
    watch->visiting = true;
    watch->changed = false;
    if (watch->recorded) {
        const struct catalog_map *map = &watch->recorded->map;
        visit->use.epoch = visit->use.oldest.epoch = map->epoch;
        visit->use.hold = map->nholds ? map->holds[map->nholds - 1].id : 0;
        for (int i = 0; i < map->nholds; i++)
            visit->force |= map->holds[i].force;
    }
    pthread_mutex_unlock(&watch->watches->lock); /* where there are no workers it is over at once */
    daemon_visit_workers(watch->watches->daemon, NULL, visit_worker, visited, visit);
    pthread_mutex_lock(&watch->watches->lock);
}

/* ---- a watch's thread ---- */

static void pause_for(struct map_watch *watch, int64_t ms)
{
    struct pollfd on[2] = {{.fd = watch->wake, .events = POLLIN}};
    bool listens = db_is_open(watch->db);
    uint64_t count;
    if (listens)
        on[1] = (struct pollfd){.fd = PQsocket(db_connection(watch->db)), .events = POLLIN};
    poll(on, listens ? 2 : 1, (int)ms);
    if (on[0].revents && read(watch->wake, &count, sizeof count) < 0)
        return; /* another one has taken it */
}

static void *run(void *arg)
{
    struct map_watch *watch = arg;
    struct catalog_watches *watches = watch->watches;
    pthread_setname_np(pthread_self(), "pgshunt-catalog");
    log_thread_name("catalog");
    while (!watch->stop) {
        catalog_round(watch);
        if (!watch->stop)
            pause_for(watch, catalog_round_pause(watch));
    }
    catalog_round_end(watch);
    pthread_mutex_lock(&watches->lock);
    forget(watch);
    pthread_mutex_unlock(&watches->lock);
    return NULL;
}

static struct map_watch *find(struct catalog_watches *watches, const char *database)
{
    for (struct map_watch *watch = watches->list; watch; watch = watch->next)
        if (strcmp(watch->database, database) == 0)
            return watch;
    return NULL;
}

static bool is_wanted(const struct topology *topology, const char *name)
{
    const struct database *database = topology_database(topology, name);
    return database && topology->config->catalog_map == CATALOG_RECORDED &&
           catalog_is_for(database->config);
}

/* Under the lock. */
static bool begin_watch(struct catalog_watches *watches, const struct database *database)
{
    struct map_watch *watch = mem_alloc(sizeof *watch);
    watch->watches = watches;
    watch->database = mem_strdup(database->name);
    watch->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    watch->references = 1;
    watch->recorded = recorded_map_ref(database->recorded);
    watch->until = mem_alloc(1);
    if (watch->wake >= 0 && pthread_create(&watch->thread, NULL, run, watch) == 0) {
        watch->next = watches->list;
        watches->list = watch;
        return true;
    }
    forget(watch);
    return false;
}

static bool begin_all(struct catalog_watches *watches, const struct topology *topology)
{
    bool begun = true;
    pthread_mutex_lock(&watches->lock);
    for (int i = 0; i < topology->ndatabases; i++) {
        const struct database *database = &topology->databases[i];
        if (is_wanted(topology, database->name) && !find(watches, database->name))
            begun &= begin_watch(watches, database);
    }
    pthread_mutex_unlock(&watches->lock);
    return begun;
}

/* Takes out those that are not wanted (topology NULL: all), and waits for their ends. */
static void end_some(struct catalog_watches *watches, const struct topology *topology)
{
    struct map_watch *ending = NULL;
    pthread_mutex_lock(&watches->lock);
    for (struct map_watch **at = &watches->list; *at;) {
        struct map_watch *watch = *at;
        if (topology && is_wanted(topology, watch->database)) {
            at = &watch->next;
            continue;
        }
        *at = watch->next;
        watch->next = ending;
        ending = watch;
    }
    pthread_mutex_unlock(&watches->lock);
    while (ending) {
        struct map_watch *watch = ending;
        pthread_t thread = watch->thread;
        ending = watch->next;
        watch->stop = 1;
        wake(watch);
        pthread_join(thread, NULL);
    }
}

/* ---- the first reading ---- */

/* Nothing was read in time: what the state file has, else the configuration's map. Under the lock. */
static void do_without(struct map_watch *watch, const char *path)
{
    char why[256] = "";
    struct db_error error = {.text = ""};
    struct recorded_map *kept =
        path[0] ? catalog_state_read(path, watch->database, why, sizeof why) : NULL;
    watch->looked = true;
    if (kept && watch_use(watch, kept, NULL, &error))
        log_event(LOG_WARNING,
                  "the catalog cannot be reached: starting with the map of the state file",
                  LOG_S("database", watch->database), LOG_S("file", path),
                  LOG_I("epoch", kept->map.epoch));
    else
        log_event(LOG_WARNING,
                  "the catalog cannot be reached: starting with the map that shards and weights "
                  "of the configuration give",
                  LOG_S("database", watch->database),
                  LOG_S("state_file", error.text[0] ? error.text : why),
                  LOG_S("hint", "catalog.state_file keeps the recorded map for such a start"));
    recorded_map_unref(kept);
}

static bool all_looked(const struct catalog_watches *watches)
{
    for (const struct map_watch *watch = watches->list; watch; watch = watch->next)
        if (!watch->looked)
            return false;
    return true;
}

/* False: what one of them has read does not fit. */
static bool wait_for_first(struct catalog_watches *watches, const char *path, int wait_ms,
                           char *error, size_t size)
{
    struct timespec until = moment(db_clock_ms() + wait_ms);
    bool fits = true;
    pthread_mutex_lock(&watches->lock);
    while (!all_looked(watches))
        if (pthread_cond_timedwait(&watches->tell, &watches->lock, &until) == ETIMEDOUT)
            break;
    for (struct map_watch *watch = watches->list; watch; watch = watch->next) {
        if (!watch->looked && !watch->recorded)
            do_without(watch, path);
        watch->looked = true;
        if (watch->misfit[0]) {
            snprintf(error, size, "database \"%.63s\": %s", watch->database, watch->misfit);
            fits = false;
        }
    }
    pthread_mutex_unlock(&watches->lock);
    return fits;
}

/* ---- life ---- */

static void make_id(char *text)
{
    unsigned char b[16];
    RAND_bytes(b, sizeof b);
    b[6] = (unsigned char)((b[6] & 0x0f) | 0x40);
    b[8] = (unsigned char)((b[8] & 0x3f) | 0x80);
    for (int i = 0; i < 16; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            *text++ = '-';
        text += sprintf(text, "%02x", b[i]);
    }
}

static struct catalog_watches *new_watches(struct daemon *daemon)
{
    struct catalog_watches *watches = mem_alloc(sizeof *watches);
    pthread_condattr_t attributes;
    watches->daemon = daemon;
    make_id(watches->id);
    if (gethostname(watches->host, sizeof watches->host - 1) != 0)
        snprintf(watches->host, sizeof watches->host, "?");
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_mutex_init(&watches->lock, NULL);
    pthread_mutex_init(&watches->follow_lock, NULL);
    pthread_cond_init(&watches->tell, &attributes);
    pthread_condattr_destroy(&attributes);
    return watches;
}

struct catalog_watches *catalog_watch_start(struct daemon *daemon, int wait_ms, char *error,
                                            size_t size)
{
    struct catalog_watches *watches = new_watches(daemon);
    struct topology *topology = daemon_topology(daemon);
    snprintf(error, size, "no thread for the catalog");
    watches->has_keeper = pthread_create(&watches->keeper, NULL, keep, watches) == 0;
    bool good = watches->has_keeper && begin_all(watches, topology) &&
                wait_for_first(watches, topology->config->catalog_state_file, wait_ms, error, size);
    topology_unref(topology);
    if (good)
        return watches;
    catalog_watch_stop(watches);
    return NULL;
}

static void compare_all(struct catalog_watches *watches, const struct topology *topology)
{
    pthread_mutex_lock(&watches->lock);
    watches->reloads++;
    for (struct map_watch *watch = watches->list; watch; watch = watch->next)
        if (watch->recorded)
            catalog_compare(watch->database, topology_database(topology, watch->database)->config,
                            &watch->recorded->map);
    pthread_mutex_unlock(&watches->lock);
}

void catalog_watch_follow(struct catalog_watches *watches, int wait_ms)
{
    char error[512];
    if (!watches)
        return;
    pthread_mutex_lock(&watches->follow_lock);
    struct topology *topology = daemon_topology(watches->daemon);
    end_some(watches, topology);
    compare_all(watches, topology);
    if (!begin_all(watches, topology))
        log_event(LOG_WARNING, "no thread to follow a database's map");
    if (!wait_for_first(watches, topology->config->catalog_state_file, wait_ms, error,
                        sizeof error))
        log_event(LOG_ERROR, "a recorded map does not fit the configuration",
                  LOG_S("reason", error));
    topology_unref(topology);
    pthread_mutex_unlock(&watches->follow_lock);
}

void catalog_watch_stop(struct catalog_watches *watches)
{
    if (!watches)
        return;
    end_some(watches, NULL);
    pthread_mutex_lock(&watches->lock);
    watches->stop = true;
    pthread_cond_broadcast(&watches->tell);
    pthread_mutex_unlock(&watches->lock);
    if (watches->has_keeper)
        pthread_join(watches->keeper, NULL);
    pthread_cond_destroy(&watches->tell);
    pthread_mutex_destroy(&watches->follow_lock);
    pthread_mutex_destroy(&watches->lock);
    free(watches);
}

void catalog_watch_look(struct catalog_watches *watches, const char *database)
{
    if (!watches)
        return;
    pthread_mutex_lock(&watches->lock);
    for (const struct map_watch *watch = watches->list; watch; watch = watch->next)
        if (strcmp(watch->database, database) == 0)
            wake(watch);
    pthread_mutex_unlock(&watches->lock);
}

/* ---- telling ---- */

static void copy_proxies(const struct map_watch *watch, struct arena *arena,
                         struct catalog_watch_report *report)
{
    struct catalog_proxy *copies = arena_array(arena, struct catalog_proxy, watch->nproxies);
    for (int i = 0; i < watch->nproxies; i++) {
        copies[i] = watch->proxies[i];
        copies[i].id = arena_strdup(arena, copies[i].id);
        copies[i].host = arena_strdup(arena, copies[i].host);
        copies[i].version = arena_strdup(arena, copies[i].version);
        copies[i].oldest_who = arena_strdup(arena, copies[i].oldest_who);
    }
    report->proxies = copies;
    report->nproxies = watch->nproxies;
    report->self = watch->watches->id;
}

void catalog_watch_report(struct catalog_watches *watches, const char *database,
                          struct arena *arena, struct catalog_watch_report *report)
{
    *report = (struct catalog_watch_report){.watched = false};
    if (!watches)
        return;
    pthread_mutex_lock(&watches->lock);
    const struct map_watch *watch = find(watches, database);
    if (watch) {
        report->watched = true;
        report->reached = watch->primary[0];
        report->epoch = watch->used.epoch;
        report->hold = watch->used.hold;
        report->busy = watch->used.busy;
        report->held = watch->used.held;
        report->changes = watch->changes;
        report->read_at = watch->read_at;
        copy_proxies(watch, arena, report);
        snprintf(report->primary, sizeof report->primary, "%s", watch->primary);
    }
    pthread_mutex_unlock(&watches->lock);
}
