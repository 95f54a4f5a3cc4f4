/* daemon.c: starts monitor, workers and HTTP, and acts on signals until the end. */
#include "proxy/daemon.h"

#include <openssl/rand.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "pgshunt/log.h"
#include "proxy/auth_query.h"
#include "proxy/catalog_watch.h"
#include "proxy/http.h"
#include "proxy/monitor.h"
#include "proxy/notify.h"
#include "proxy/prepared.h"
#include "proxy/partition_keeper.h"
#include "proxy/recovery.h"
#include "proxy/shard_deadlock.h"
#include "proxy/takeover.h"
#include "proxy/worker.h"

#define SIGNAL_HANDED_OVER SIGRTMIN /* from our own thread */
#define FIRST_MAP_MS 3000           /* ... and which shard has which buckets */
#define RELOAD_CATALOG_MS 1500      /* likewise for databases that a reload brings */
#define RECOVERY_MS 1000            /* ... for the first look at what is left prepared */
#define FIRST_ROUND_MS 3000         /* how long the start waits to know who is primary */

/* ---- signals: blocked everywhere, taken by the main thread with sigwait ---- */

static void block_signals(sigset_t *set)
{
    sigemptyset(set);
    sigaddset(set, SIGHUP);
    sigaddset(set, SIGTERM);
    sigaddset(set, SIGINT);
    sigaddset(set, SIGQUIT);
    sigaddset(set, SIGUSR1); /* a worker has ended */
    sigaddset(set, SIGUSR2);
    sigaddset(set, SIGNAL_HANDED_OVER);
    pthread_sigmask(SIG_BLOCK, set, NULL);
    signal(SIGPIPE, SIG_IGN);
}

/* Each client and each server connection is a descriptor. */
static void raise_descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

/* ---- reload ---- */

static void publish(struct daemon *daemon, struct config *config, struct tls_setup *tls)
{
    struct topology *old = daemon->topology;
    struct topology *topology = topology_new(config, old);
    topology->tls = tls;
    daemon->topology = topology;
    topology_unref(old);
    log_configure(config->log_level, config->log_format);
    listeners_tune(&daemon->listeners, &config->tcp);
    monitor_set_topology(daemon->monitor, topology);
    auth_query_set_topology(daemon->auth_query, topology);
    for (int i = 0; i < daemon->nworkers; i++)
        worker_set_topology(&daemon->workers[i], topology);
}

/* Everything that a configuration names must be there: NULL, and why, if it is not. */
static struct config *load_all(const char *path, struct tls_setup **tls, char *error, size_t size)
{
    struct config_error problem;
    struct config *config = config_load(path, &problem);
    if (!config) {
        snprintf(error, size, "%s", problem.text);
        return NULL;
    }
    *tls = tls_setup_new(config, error, size);
    if (*tls)
        return config;
    config_free(config);
    return NULL;
}

/* Monitor and look-ups know no buckets; they keep what they have. */
bool daemon_use_map(struct daemon *daemon, const char *database, struct recorded_map *recorded,
                    struct db_error *error)
{
    pthread_mutex_lock(&daemon->start_lock); /* workers: all of them, or none yet */
    pthread_mutex_lock(&daemon->topology_lock);
    struct topology *old = daemon->topology;
    struct topology *topology = topology_with_map(old, database, recorded, error);
    if (topology) {
        daemon->topology = topology;
        topology_unref(old);
        for (int i = 0; i < daemon->nworkers; i++)
            worker_set_topology(&daemon->workers[i], topology);
    }
    pthread_mutex_unlock(&daemon->topology_lock);
    pthread_mutex_unlock(&daemon->start_lock);
    return topology != NULL;
}

/* A configuration without a shard that has buckets would send their statements elsewhere. */
static bool maps_fit(struct daemon *daemon, const struct config *config, char *error, size_t size)
{
    struct db_error problem;
    bool fit = topology_maps_fit(daemon->topology, config, &problem);
    if (!fit)
        snprintf(error, size, "%s: %s %s", config->path, problem.text, problem.hint);
    return fit;
}

static bool reload(struct daemon *daemon, char *error, size_t size)
{
    char names[512];
    struct tls_setup *tls = NULL;
    struct topology *current = daemon_topology(daemon); /* another thread may be reloading too */
    struct config *config = load_all(current->config->path, &tls, error, size);
    topology_unref(current);
    atomic_store(&daemon->reload_ok, config != NULL);
    if (!config) {
        log_event(LOG_ERROR, "reload failed, the old configuration stays", LOG_S("reason", error));
        return false;
    }
    tls_setup_warn(tls);
    pthread_mutex_lock(&daemon->topology_lock);
    if (!maps_fit(daemon, config, error, size)) {
        pthread_mutex_unlock(&daemon->topology_lock);
        tls_setup_unref(tls);
        config_free(config);
        atomic_store(&daemon->reload_ok, false);
        log_event(LOG_ERROR, "reload failed, the old configuration stays", LOG_S("reason", error));
        return false;
    }
    config_restart_needed(daemon->topology->config, config, names, sizeof names);
    publish(daemon, config, tls);
    log_event(LOG_INFO, "configuration reloaded", LOG_S("file", config->path));
    pthread_mutex_unlock(&daemon->topology_lock); /* now another reload may free `config` */
    if (names[0])
        log_event(LOG_WARNING, "settings that need a restart were not changed",
                  LOG_S("settings", names));
    catalog_watch_follow(daemon->catalog, RELOAD_CATALOG_MS);
    return true;
}

bool daemon_reload(struct daemon *daemon, char *error, size_t size)
{
    notify_reloading();
    bool done = reload(daemon, error, size);
    notify_ready();
    return done;
}

void daemon_shutdown(struct daemon *daemon, enum shutdown_mode mode)
{
    const int signals[] = {[SHUTDOWN_NOW] = SIGQUIT,
                           [SHUTDOWN_FAST] = SIGINT,
                           [SHUTDOWN_TRANSACTIONS] = SIGTERM,
                           [SHUTDOWN_CLIENTS] = SIGUSR2,
                           [SHUTDOWN_HANDED_OVER] = SIGNAL_HANDED_OVER};
    (void)daemon;
    kill(getpid(), signals[mode]);
}

/* ---- start and end ---- */

static void close_listeners(struct daemon *daemon)
{
    if (daemon->takeover)
        takeover_close_listeners(daemon->takeover);
    else
        listeners_close(&daemon->listeners, false);
}

/* `tell`: clients, what happens to them. */
static void stop_now(struct daemon *daemon, bool tell)
{
    close_listeners(daemon);
    for (int i = 0; i < daemon->nworkers; i++)
        worker_stop_now(&daemon->workers[i], tell);
}

/* With start_lock held. */
static bool start_workers(struct daemon *daemon, int count, char *error, size_t size)
{
    if (!listeners_open(&daemon->listeners, daemon->topology->config, count, error, size))
        return false;
    for (int i = 0; i < count; i++) {
        if (!worker_start(&daemon->workers[i], daemon, i, error, size))
            return false;
        daemon->nworkers++;
    }
    return true;
}

static bool start_http(struct daemon *daemon, struct http_sockets *inherited, char *error,
                       size_t size)
{
    const struct config *config = daemon->topology->config;
    if (config->http_port)
        daemon->http =
            http_start(daemon, config->http_address, config->http_port, inherited, error, size);
    else
        http_sockets_close(inherited);
    return !config->http_port || daemon->http;
}

/* Nobody works before all are there: where something is missing nobody has, and no client was accepted. */
static bool start_serving(struct daemon *daemon, struct http_sockets *inherited_http)
{
    char error[512] = "";
    int count = daemon->topology->config->workers;
    daemon->workers = mem_alloc(sizeof *daemon->workers * (size_t)count);
    pthread_mutex_lock(&daemon->start_lock);
    bool started = start_workers(daemon, count, error, sizeof error) &&
                   start_http(daemon, inherited_http, error, sizeof error) &&
                   pid_file_write(daemon->topology->config->pid_file, error, sizeof error);
    if (!started) {
        log_event(LOG_ERROR, "cannot start", LOG_S("reason", error));
        stop_now(daemon, false);
    }
    pthread_mutex_unlock(&daemon->start_lock);
    return started;
}

/* Clients may stay for patience_ms; then running transactions may end. */
static void begin_drain(struct daemon *daemon, int64_t patience_ms)
{
    struct topology *topology = daemon_topology(daemon);
    int64_t limit = topology->config->shutdown_timeout;
    topology_unref(topology);
    bool already = atomic_exchange(&daemon->draining, true);
    if (already && patience_ms)
        return;
    close_listeners(daemon);
    if (!takeover_successor(daemon->takeover))
        notify_stopping();
    if (patience_ms)
        log_event(LOG_INFO, "shutting down: waiting for clients to leave");
    else
        log_event(LOG_INFO, "shutting down: running transactions may finish",
                  LOG_I("limit_ms", limit));
    for (int i = 0; i < daemon->nworkers; i++)
        worker_drain(&daemon->workers[i], patience_ms, limit);
}

/* Another process serves from now on. */
static void retire(struct daemon *daemon)
{
    struct topology *topology = daemon_topology(daemon);
    int64_t patience = topology->config->restart_patience;
    topology_unref(topology);
    if (!takeover_successor(daemon->takeover) || atomic_exchange(&daemon->draining, true))
        return;
    log_event(LOG_INFO, "handed over: clients may stay for a while",
              LOG_I("to_pid", takeover_successor(daemon->takeover)),
              LOG_I("patience_ms", patience));
    if (daemon->http)
        http_quiesce(daemon->http);
    for (int i = 0; i < daemon->nworkers; i++)
        worker_retire(&daemon->workers[i], patience);
}

/* Returns when all workers have ended. */
static void serve_signals(struct daemon *daemon, const sigset_t *set)
{
    char error[1024];
    int number;
    while (atomic_load(&daemon->ended) < daemon->nworkers && sigwait(set, &number) == 0) {
        if (number == SIGNAL_HANDED_OVER) { /* no constant, so no case */
            retire(daemon);
            continue;
        }
        switch (number) {
        case SIGHUP:
            if (!daemon_reload(daemon, error, sizeof error))
                continue; /* it was logged */
            break;
        case SIGTERM:
            begin_drain(daemon, 0);
            break;
        case SIGUSR2:
            begin_drain(daemon, PATIENCE_FOR_EVER);
            break;
        case SIGINT:
            log_event(LOG_INFO, "shutting down: clients are disconnected");
            stop_now(daemon, true);
            break;
        case SIGQUIT:
            log_event(LOG_INFO, "shutting down at once");
            stop_now(daemon, false);
            break;
        default:
            break;
        }
    }
}

static void end(struct daemon *daemon)
{
    pid_file_remove(daemon->topology->config->pid_file);
    close_listeners(daemon);
    takeover_stop(daemon->takeover);
    listeners_close(&daemon->listeners, false); /* where it was never ready */
    if (daemon->http)
        http_stop(daemon->http);
    for (int i = 0; i < daemon->nworkers; i++)
        worker_join(&daemon->workers[i]);
    auth_query_stop(daemon->auth_query);
    shard_deadlocks_stop(daemon->shard_deadlocks);
    partition_keeper_stop(daemon->keeper);
    catalog_watch_stop(daemon->catalog);
    recovery_stop(daemon->recovery);
    monitor_stop(daemon->monitor);
    budgets_free(daemon);
    credentials_free(&daemon->credentials);
    free(daemon->workers);
    topology_unref(daemon->topology);
    log_event(LOG_INFO, "pgshunt has ended");
}

static void say_started(struct daemon *daemon)
{
    if (daemon->takeover && !takeover_ready(daemon->takeover, daemon))
        log_event(LOG_WARNING, "no thread for takeovers: no online restart");
    listeners_claim(&daemon->listeners);
    notify_ready();
    struct topology *topology = daemon_topology(daemon);
    const struct config *config = topology->config;
    log_event(LOG_INFO, "pgshunt is ready", LOG_S("version", PGSHUNT_VERSION),
              LOG_S("address", config->listen_address), LOG_I("port", config->listen_port),
              LOG_I("http_port", config->http_port), LOG_I("workers", config->workers),
              LOG_I("databases", config->ndatabases));
    topology_unref(topology);
}

int daemon_run(struct config *config, bool takeover)
{
    struct daemon daemon = {.started_at = clock_us()};
    sigset_t set;
    uint64_t seed;
    struct inheritance inheritance = {.listeners = &daemon.listeners};
    char error[1024];
    struct tls_setup *tls = tls_setup_new(config, error, sizeof error);
    if (!tls) {
        log_event(LOG_ERROR, "cannot start", LOG_S("reason", error));
        config_free(config);
        return 1;
    }
    RAND_bytes((unsigned char *)&seed, sizeof seed);
    prepared_seed(seed);
    RAND_bytes(daemon.cancel_seed, sizeof daemon.cancel_seed);
    log_configure(config->log_level, config->log_format);
    log_thread_name("main");
    raise_descriptor_limit();
    block_signals(&set);
    pthread_mutex_init(&daemon.listeners.lock, NULL);
    daemon.takeover = takeover_open(config, takeover, &inheritance, error, sizeof error);
    if (error[0]) {
        log_event(LOG_ERROR, "cannot start", LOG_S("reason", error));
        tls_setup_unref(tls);
        config_free(config);
        return 1;
    }
    pthread_mutex_init(&daemon.budgets_lock, NULL);
    credentials_init(&daemon.credentials);
    pthread_mutex_init(&daemon.start_lock, NULL);
    pthread_mutex_init(&daemon.topology_lock, NULL);
    atomic_store(&daemon.reload_ok, true);
    tls_setup_warn(tls);
    daemon.topology = topology_new(config, NULL);
    daemon.topology->tls = tls;
    daemon.monitor = monitor_start(daemon.topology);
    daemon.auth_query = auth_query_start(daemon.topology);
    if (!daemon.monitor || !daemon.auth_query) {
        log_event(LOG_ERROR, "cannot start", LOG_S("reason", "no thread for monitor or look-ups"));
        topology_unref(daemon.topology);
        return 1;
    }
    monitor_wait_first_round(daemon.monitor, FIRST_ROUND_MS);
    daemon.recovery = recovery_start(&daemon, RECOVERY_MS);
    daemon.shard_deadlocks = shard_deadlocks_start(&daemon);
    if (!daemon.recovery || !daemon.shard_deadlocks) {
        log_event(LOG_ERROR, "cannot start",
                  LOG_S("reason", "no thread for recovery or deadlocks"));
        return 1;
    }
    daemon.catalog = catalog_watch_start(&daemon, FIRST_MAP_MS, error, sizeof error);
    if (!daemon.catalog) {
        log_event(LOG_ERROR, "cannot start", LOG_S("reason", error));
        http_sockets_close(&inheritance.http);
    }
    daemon.keeper = partition_keeper_start(&daemon);
    if (!daemon.keeper)
        log_event(LOG_WARNING, "no thread for partitions: this proxy does not maintain them");
    bool started = daemon.catalog && start_serving(&daemon, &inheritance.http);
    if (started)
        say_started(&daemon);
    serve_signals(&daemon, &set);
    end(&daemon);
    return started ? 0 : 1;
}
