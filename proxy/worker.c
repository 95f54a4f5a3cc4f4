/* worker.c: a worker thread: its loop, listener, mailbox and upkeep. */
#include "proxy/worker.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <openssl/rand.h>

#include "pgshunt/log.h"
#include "pgshunt/shape.h"
#include "proxy/bucket_hold.h"
#include "proxy/cancel.h"
#include "proxy/client.h"
#include "proxy/client_auth.h"
#include "proxy/client_login.h"
#include "proxy/hold.h"
#include "proxy/evict.h"
#include "proxy/hub.h"
#include "proxy/listen.h"
#include "proxy/console_control.h"
#include "proxy/control.h"
#include "proxy/doors.h"
#include "proxy/lookup.h"
#include "proxy/report.h"
#include "proxy/timeouts.h"
#include "proxy/welcome.h"

#define TICK_MS 100
#define TICKS_A_DAY (86400 * 1000 / TICK_MS)
#define SPARE_BUFFER_MAX 16384
/* While it drains a worker waits so long for the rest of a message. */
#define REST_OF_MESSAGE_US 2000000

/* ---- messages between workers ---- */

/* With the lock held, because stop_loop() closes the mailbox under it. */
static bool put_into_mailbox(struct worker *worker, struct message *message)
{
    if (worker->mailbox_closed)
        return false;
    message->next = NULL;
    if (worker->mailbox_last)
        worker->mailbox_last->next = message;
    else
        worker->mailbox_first = message;
    worker->mailbox_last = message;
    uv_async_send(&worker->mailbox);
    return true;
}

void worker_post(struct worker *worker, struct message *message)
{
    pthread_mutex_lock(&worker->mailbox_lock);
    bool put = put_into_mailbox(worker, message);
    pthread_mutex_unlock(&worker->mailbox_lock);
    if (put)
        return;
    if (message->drop)
        message->drop(message);
    else
        free(message);
}

static struct message *take_mailbox(struct worker *worker)
{
    pthread_mutex_lock(&worker->mailbox_lock);
    struct message *message = worker->mailbox_first;
    worker->mailbox_first = worker->mailbox_last = NULL;
    pthread_mutex_unlock(&worker->mailbox_lock);
    return message;
}

static void run_messages(struct worker *worker, struct message *message)
{
    while (message) {
        struct message *next = message->next;
        message->run(worker, message);
        message = next;
    }
}

static void read_mailbox(uv_async_t *async)
{
    struct worker *worker = async->data;
    run_messages(worker, take_mailbox(worker));
}

/* ---- ending ---- */

static void close_all(struct worker *worker, const char *reason)
{
    while (!list_empty(&worker->clients))
        client_close(list_entry(worker->clients.next, struct client, all), reason);
    while (!list_empty(&worker->servers))
        server_drop(list_entry(worker->servers.next, struct server, all), reason);
}

static void stop_loop(struct worker *worker)
{
    if (worker->phase == WORKER_STOPPED)
        return;
    worker->phase = WORKER_STOPPED;
    doors_close(worker);
    close_all(worker, "shutdown");
    cancels_close(worker);
    lookup_stop(worker);
    console_control_stop(worker);
    uv_timer_stop(&worker->tick);
    uv_close((uv_handle_t *)&worker->tick, NULL);
    uv_close((uv_handle_t *)&worker->schema_timer, NULL);
    uv_close((uv_handle_t *)&worker->node_timer, NULL);
    pthread_mutex_lock(&worker->mailbox_lock);
    worker->mailbox_closed = true;
    uv_close((uv_handle_t *)&worker->mailbox, NULL);
    pthread_mutex_unlock(&worker->mailbox_lock);
}

static bool only_consoles_left(const struct worker *worker)
{
    list_each(at, following, &worker->clients)
    {
        if (!list_entry(at, struct client, all)->console)
            return false;
    }
    return true;
}

#define GOODBYE "57P01", "pgshunt is shutting down", "Connect again."

/* What has been written for it is still on its way: it ends when that is out (client_finish). Who has sent part of
 * a message is given a moment for the rest. */
static bool may_be_closed(const struct worker *worker, const struct client *client, int64_t now)
{
    bool late = now - worker->patient_until > REST_OF_MESSAGE_US;
    return !client->terminate &&
           (client_is_idle(client) || (late && client_has_asked_nothing(client)));
}

/* Closes what is idle, once patience is over; ends the loop when nothing is left, or time is up. */
static void drain(struct worker *worker, int64_t now)
{
    if (now < worker->patient_until && !only_consoles_left(worker))
        return;
    struct list_node seen, *at;
    list_init(&seen);
    while ((at = list_visit(&worker->clients, &seen))) {
        struct client *client = list_entry(at, struct client, all);
        if (client->held)
            client_kill(client, GOODBYE);
        else if (may_be_closed(worker, client, now))
            client_fatal(client, GOODBYE);
    }
    list_put_back(&worker->clients, &seen);
    if (list_empty(&worker->clients) || now > worker->drain_until)
        stop_loop(worker);
}

struct order {
    struct message message;
    int64_t patience_ms, limit_ms;
    bool tell;
    struct topology *topology;
};

static void run_drain(struct worker *worker, struct message *message)
{
    struct order *order = (struct order *)message;
    int64_t now = clock_us(), patient_until = now + order->patience_ms * 1000;
    bool sooner = worker->phase == WORKER_DRAINING && patient_until < worker->patient_until;
    if (worker->phase == WORKER_RUNNING || sooner) {
        worker->phase = WORKER_DRAINING;
        worker->patient_until = patient_until;
        worker->drain_until = patient_until + order->limit_ms * 1000;
        doors_close(worker);
        drain(worker, now);
    }
    free(order);
}

/* Clients may stay for patience_ms, in every respect as before, but no new ones come. */
static void run_retire(struct worker *worker, struct message *message)
{
    struct order *order = (struct order *)message;
    doors_close(worker);
    worker->retire_at = clock_us() + order->patience_ms * 1000;
    free(order);
}

/* Handed over, and the last client of all workers has left (they need one another), or patience is over. */
static void retire(struct worker *worker, int64_t now)
{
    struct daemon *daemon = worker->daemon;
    if (now < worker->retire_at && atomic_load(&daemon->clients) > 0)
        return;
    worker->phase = WORKER_DRAINING;
    worker->patient_until = now;
    worker->drain_until = now + worker->topology->config->shutdown_timeout * 1000;
}

static void run_stop(struct worker *worker, struct message *message)
{
    struct order *order = (struct order *)message;
    struct list_node seen, *at;
    list_init(&seen);
    while (order->tell && (at = list_visit(&worker->clients, &seen))) {
        struct client *client = list_entry(at, struct client, all);
        if (client->state > CLIENT_AUTH)
            client_kill(client, GOODBYE);
    }
    list_put_back(&worker->clients, &seen);
    free(order);
    stop_loop(worker);
}

static struct order *new_order(void (*run)(struct worker *, struct message *))
{
    struct order *order = mem_alloc(sizeof *order);
    order->message.run = run;
    return order;
}

void worker_drain(struct worker *worker, int64_t patience_ms, int64_t limit_ms)
{
    struct order *order = new_order(run_drain);
    order->patience_ms = patience_ms;
    order->limit_ms = limit_ms;
    worker_post(worker, &order->message);
}

void worker_retire(struct worker *worker, int64_t patience_ms)
{
    struct order *order = new_order(run_retire);
    order->patience_ms = patience_ms;
    worker_post(worker, &order->message);
}

void worker_stop_now(struct worker *worker, bool tell)
{
    struct order *order = new_order(run_stop);
    order->tell = tell;
    worker_post(worker, &order->message);
}

/* ---- reload ---- */

static void run_set_topology(struct worker *worker, struct message *message)
{
    struct order *order = (struct order *)message;
    topology_unref(worker->topology);
    worker->topology = order->topology;
    free(order);
    pools_reload(worker);
    pools_warm_up(worker);
    welcomes_forget(worker);
    bucket_hold_map_changed(worker);
}

static void drop_set_topology(struct message *message)
{
    topology_unref(((struct order *)message)->topology);
    free(message);
}

void worker_set_topology(struct worker *worker, struct topology *topology)
{
    struct order *order = new_order(run_set_topology);
    order->message.drop = drop_set_topology;
    order->topology = topology_ref(topology);
    worker_post(worker, &order->message);
}

struct topology *daemon_topology(struct daemon *daemon)
{
    pthread_mutex_lock(&daemon->topology_lock);
    struct topology *topology = topology_ref(daemon->topology);
    pthread_mutex_unlock(&daemon->topology_lock);
    return topology;
}

/* ---- visiting all workers ---- */

struct visit {
    struct message message;
    struct daemon *daemon;
    int next;
    struct worker *origin;
    void (*visit)(struct worker *, void *);
    void (*done)(void *);
    void *arg;
};

static void end_visit(struct message *message)
{
    struct visit *visit = (struct visit *)message;
    visit->done(visit->arg);
    free(visit);
}

static void run_visit_done(struct worker *worker, struct message *message)
{
    (void)worker;
    end_visit(message);
}

static void run_visit(struct worker *worker, struct message *message);

/* To the next worker (that has not ended: else it is dropped to here), or back to where it came from. */
static void pass_on_visit(struct message *message)
{
    struct visit *visit = (struct visit *)message;
    message->run = run_visit;
    message->drop = pass_on_visit;
    if (visit->next < visit->daemon->nworkers) {
        worker_post(&visit->daemon->workers[visit->next++], message);
        return;
    }
    message->run = run_visit_done;
    message->drop = end_visit;
    if (visit->origin)
        worker_post(visit->origin, message);
    else
        end_visit(message);
}

static void run_visit(struct worker *worker, struct message *message)
{
    struct visit *visit = (struct visit *)message;
    visit->visit(worker, visit->arg);
    pass_on_visit(message);
}

void daemon_visit_workers(struct daemon *daemon, struct worker *origin,
                          void (*visit)(struct worker *, void *), void (*done)(void *), void *arg)
{
    struct visit *all = mem_alloc(sizeof *all);
    all->daemon = daemon;
    all->origin = origin;
    all->visit = visit;
    all->done = done;
    all->arg = arg;
    pass_on_visit(&all->message);
}

/* ---- upkeep and small services ---- */

static void expire_logins(struct worker *worker, int64_t now)
{
    struct list_node late;
    list_init(&late);
    list_each(at, following, &worker->clients)
    {
        const struct client *client = list_entry(at, struct client, all);
        if (client->deadline && now > client->deadline)
            list_move(&late, at);
    }
    while (!list_empty(&late))
        client_close(list_entry(late.next, struct client, all), "login_timeout");
}

static void tick(uv_timer_t *timer)
{
    struct worker *worker = timer->data;
    int64_t now = worker->now = clock_us();
    evict_tick(worker, now);
    pools_tick(worker, now);
    cancels_tick(worker, now);
    hub_tick(worker, now);
    client_auth_tick(worker, now);
    console_control_tick(worker);
    timeouts_tick(worker, now);
    doors_tick(worker);
    bucket_hold_tick(worker, now);
    if (++worker->ticks % 10 == 0) {
        expire_logins(worker, now);
        listen_tick(worker, now);
        control_tick(worker, now);
        hold_tick(worker, now);
        lookup_tick(worker);
        timeouts_tick_idle(worker, now);
        report_tick(worker, now);
    }
    if (worker->index == 0 && worker->ticks % TICKS_A_DAY == 0)
        tls_setup_warn(worker->topology->tls);
    if (worker->retire_at && worker->phase == WORKER_RUNNING)
        retire(worker, now);
    if (worker->phase == WORKER_DRAINING)
        drain(worker, now);
}

/* Out of line: once in a turn, and asked for everywhere. */
int64_t worker_read_clock(struct worker *worker)
{
    worker->now = clock_us();
    return worker->now;
}

struct arena *worker_arena_take(struct worker *worker)
{
    if (worker->nspare_arenas)
        return worker->spare_arenas[--worker->nspare_arenas];
    struct arena *arena = mem_alloc(sizeof *arena);
    arena_init(arena);
    return arena;
}

void worker_arena_give(struct worker *worker, struct arena *arena)
{
    int max = (int)(sizeof worker->spare_arenas / sizeof worker->spare_arenas[0]);
    arena_reset(arena);
    if (worker->nspare_arenas < max) {
        worker->spare_arenas[worker->nspare_arenas++] = arena;
        return;
    }
    arena_free(arena);
    free(arena);
}

void worker_buffer_take(struct worker *worker, struct buffer *buffer)
{
    if (!buffer->data && worker->nspare_buffers)
        *buffer = worker->spare_buffers[--worker->nspare_buffers];
}

void worker_buffer_give(struct worker *worker, struct buffer *buffer)
{
    int max = (int)(sizeof worker->spare_buffers / sizeof worker->spare_buffers[0]);
    if (!buffer->data || buffer->cap > SPARE_BUFFER_MAX || worker->nspare_buffers == max) {
        buffer_release(buffer);
        return;
    }
    buffer_clear(buffer);
    worker->spare_buffers[worker->nspare_buffers++] = *buffer;
    *buffer = (struct buffer){0};
}

struct worker_stats *worker_stats_of(struct worker *worker, const char *database)
{
    struct database_stats *stats;
    HASH_FIND_STR(worker->stats, database, stats);
    if (!stats) {
        stats = mem_alloc(sizeof *stats);
        stats->name = mem_strdup(database);
        HASH_ADD_KEYPTR(hh, worker->stats, stats->name, strlen(stats->name), stats);
    }
    return &stats->counts;
}

uint32_t worker_secret(struct worker *worker)
{
    if (!worker->nsecrets_left) {
        RAND_bytes((unsigned char *)worker->secrets_left, sizeof worker->secrets_left);
        worker->nsecrets_left = (int)(sizeof worker->secrets_left / sizeof worker->secrets_left[0]);
    }
    return worker->secrets_left[--worker->nsecrets_left];
}

uint64_t worker_random(struct worker *worker)
{
    worker->random ^= worker->random << 13;
    worker->random ^= worker->random >> 7;
    worker->random ^= worker->random << 17;
    return worker->random;
}

/* ---- the thread ---- */

static void free_stats(struct worker *worker)
{
    struct database_stats *stats, *next;
    HASH_ITER(hh, worker->stats, stats, next)
    {
        HASH_DEL(worker->stats, stats);
        free(stats->name);
        free(stats);
    }
}

static void free_worker(struct worker *worker)
{
    hub_worker_free(worker);
    listen_worker_free(worker);
    pools_free(worker);
    control_free(worker);
    welcomes_forget(worker);
    client_login_forget(worker);
    prepared_table_free(&worker->prepared);
    shapes_free(worker->shapes);
    free_stats(worker);
    while (worker->nspare_buffers)
        buffer_release(&worker->spare_buffers[--worker->nspare_buffers]);
    while (worker->nspare_arenas) {
        struct arena *arena = worker->spare_arenas[--worker->nspare_arenas];
        arena_free(arena);
        free(arena);
    }
    topology_unref(worker->topology);
    free(worker->io);
}

static void run_loop(struct worker *worker)
{
    while (poller_alive(&worker->poller)) {
        worker->now = 0;
        poller_turn(&worker->poller);
    }
}

/* What others sent while the worker was ending: run, so that nothing is lost with it, and what that
 * has brought is closed again. */
static void empty_mailbox(struct worker *worker)
{
    struct message *message;
    while ((message = take_mailbox(worker))) {
        run_messages(worker, message);
        close_all(worker, "shutdown");
        cancels_close(worker);
        run_loop(worker);
    }
}

static void *run(void *arg)
{
    struct worker *worker = arg;
    char name[32];
    snprintf(name, sizeof name, "worker %d", worker->index + 1);
    log_thread_name(name);
    pthread_mutex_lock(&worker->daemon->start_lock);
    pthread_mutex_unlock(&worker->daemon->start_lock);
    read_mailbox(
        &worker->mailbox); /* where the start has failed: to stop before a client is accepted */
    pools_warm_up(worker);
    run_loop(worker);
    empty_mailbox(worker);
    poller_close(&worker->poller);
    uv_loop_close(&worker->loop);
    free_worker(worker);
    atomic_fetch_add(&worker->daemon->ended, 1);
    kill(getpid(), SIGUSR1); /* wakes the main thread */
    return NULL;
}

static void init_handles(struct worker *worker)
{
    uv_loop_init(&worker->loop);
    uv_timer_init(&worker->loop, &worker->tick);
    worker->tick.data = worker;
    uv_timer_init(&worker->loop, &worker->node_timer);
    worker->node_timer.data = worker;
    uv_timer_init(&worker->loop, &worker->schema_timer);
    worker->schema_timer.data = worker;
    uv_timer_start(&worker->tick, tick, TICK_MS, TICK_MS);
    uv_async_init(&worker->loop, &worker->mailbox, read_mailbox);
    worker->mailbox.data = worker;
}

static struct shape_table *create_shapes(void)
{
    uint64_t seed;
    RAND_bytes((unsigned char *)&seed, sizeof seed);
    return shapes_create(seed);
}

bool worker_start(struct worker *worker, struct daemon *daemon, int index, char *error,
                  size_t error_size)
{
    worker->index = index;
    worker->daemon = daemon;
    worker->topology = daemon_topology(daemon);
    worker->random = (uint64_t)clock_us() * 2654435761u + (uint64_t)index + 1;
    list_init(&worker->doors);
    list_init(&worker->clients);
    list_init(&worker->servers);
    list_init(&worker->cancels);
    list_init(&worker->held);
    list_init(&worker->listen_held);
    bucket_hold_worker_init(worker);
    list_init(&worker->asks);
    list_init(&worker->refused);
    list_init(&worker->squeezed);
    list_init(&worker->node_waiting);
    list_init(&worker->schema_waiting);
    prepared_table_init(&worker->prepared);
    pthread_mutex_init(&worker->mailbox_lock, NULL);
    worker->io = mem_alloc(IO_BUFFER_SIZE);
    worker->shapes = create_shapes();
    init_handles(worker);
    if (!poller_open(&worker->poller, &worker->loop)) {
        snprintf(error, error_size, "cannot make an epoll descriptor: %s", strerror(errno));
        return false;
    }
    doors_open(worker);
    if (pthread_create(&worker->thread, NULL, run, worker) == 0)
        return true;
    snprintf(error, error_size, "cannot start a worker thread");
    return false;
}

void worker_join(struct worker *worker)
{
    pthread_join(worker->thread, NULL);
}
