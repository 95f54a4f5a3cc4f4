/* shard_deadlock.c: finds transactions that wait for each other on several shards, and ends the youngest of them. */
#include "proxy/shard_deadlock.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "pgshunt/arena.h"
#include "pgshunt/error.h"
#include "pgshunt/log.h"
#include "proxy/client.h"
#include "proxy/daemon.h"
#include "proxy/pool.h"
#include "proxy/server.h"
#include "proxy/shard_deadlock_ask.h"
#include "proxy/worker.h"

#define ROUND_MS 250
#define FORGET_US 2000000 /* not noted for so long: it does not wait any more */
#define CONFIRM 2         /* rounds in a row */
#define PARTS_MAX 64

/* A server that a waiting client has. The node is compared and asked, never kept beyond the topology's life. */
struct seat {
    char host[256], dbname[64];
    int port;
    int32_t pid;
};

struct waiter {
    struct waiter *next;
    struct worker *worker;
    int32_t client; /* its cancel_pid */
    int64_t asked_at, begun_at, noted_at;
    int rounds; /* in a row that it was to be the victim */
    int nseats;
    struct seat seats[];
};

struct shard_deadlocks {
    struct daemon *daemon;
    pthread_t thread;
    pthread_mutex_t lock; /* guards the rest but stop */
    pthread_cond_t changed;
    struct waiter *waiters;
    volatile sig_atomic_t stop;
};

/* ---- noting: on workers ---- */

static struct waiter *new_waiter(const struct client *client)
{
    int count = client->nparticipants < PARTS_MAX ? client->nparticipants : PARTS_MAX;
    struct waiter *waiter = mem_alloc(sizeof *waiter + sizeof(struct seat) * (size_t)count);
    waiter->worker = client->worker;
    waiter->client = client->cancel_pid;
    waiter->asked_at = client->request.started_at;
    waiter->begun_at = client->tx ? client->tx->started_at : client->request.started_at;
    for (int i = 0; i < count; i++) {
        const struct server *server = client->participants[i];
        const struct node *node = server->pool->node;
        struct seat *seat = &waiter->seats[waiter->nseats++];
        snprintf(seat->host, sizeof seat->host, "%s", node->host);
        snprintf(seat->dbname, sizeof seat->dbname, "%s", node->dbname);
        seat->port = node->port;
        seat->pid = server->backend_pid;
    }
    return waiter;
}

static void note(struct shard_deadlocks *deadlocks, const struct client *client, int64_t now)
{
    struct waiter *waiter;
    pthread_mutex_lock(&deadlocks->lock);
    for (waiter = deadlocks->waiters; waiter; waiter = waiter->next)
        if (waiter->worker == client->worker && waiter->client == client->cancel_pid &&
            waiter->asked_at == client->request.started_at)
            break;
    if (!waiter) {
        waiter = new_waiter(client);
        waiter->next = deadlocks->waiters;
        deadlocks->waiters = waiter;
        pthread_cond_signal(&deadlocks->changed);
    }
    waiter->noted_at = now;
    pthread_mutex_unlock(&deadlocks->lock);
}

void shard_deadlock_look(struct client *client, int64_t now)
{
    int64_t limit = client->worker->topology->config->shard_deadlock_timeout * 1000;
    struct shard_deadlocks *deadlocks = client->worker->daemon->shard_deadlocks;
    if (limit && deadlocks && client->nparticipants > 1 && !client->request.deadlocked &&
        now - client->request.started_at > limit)
        note(deadlocks, client, now);
}

/* ---- the verdict: on the victim's worker ---- */

struct verdict {
    struct message message;
    int32_t client;
    int64_t asked_at;
};

static void carry_out(struct worker *worker, struct message *message)
{
    struct verdict *verdict = (struct verdict *)message;
    struct client *client;
    HASH_FIND_INT(worker->by_id, &verdict->client, client);
    if (client && client->state == CLIENT_BUSY && client->request.started_at == verdict->asked_at) {
        client->request.deadlocked = true;
        client_cancel(client);
    }
    free(verdict);
}

void shard_deadlock_explain(const struct client *client, struct pg_error *error)
{
    if (!client->request.deadlocked || strcmp(error->sqlstate, "57014") != 0)
        return;
    *error = (struct pg_error){
        .sqlstate = "40P01",
        .message = "deadlock detected",
        .detail =
            "The transaction waits on one shard for another one, which waits on another shard "
            "for it.",
        .hint = "Run the transaction again. Transactions that use rows in the same order do not "
                "wait for each other like that."};
}

/* ---- the graph ---- */

struct wait {
    int from, to; /* vertices */
    int server;   /* where */
};

struct graph {
    struct arena arena;
    struct waiter **waiters; /* copies: vertices 0 .. nwaiters - 1 */
    int nwaiters;
    struct seat *servers; /* each once; its pid is not looked at */
    int nservers;
    struct seat *others; /* vertices nwaiters ..: backends of nobody's */
    int nothers;
    struct wait *waits;
    int nwaits, room;
};

static bool is_same_server(const struct seat *a, const struct seat *b)
{
    return a->port == b->port && strcmp(a->host, b->host) == 0;
}

static int find_vertex(struct graph *graph, const struct seat *server, int32_t pid)
{
    for (int i = 0; i < graph->nwaiters; i++)
        for (int k = 0; k < graph->waiters[i]->nseats; k++)
            if (graph->waiters[i]->seats[k].pid == pid &&
                is_same_server(&graph->waiters[i]->seats[k], server))
                return i;
    for (int i = 0; i < graph->nothers; i++)
        if (graph->others[i].pid == pid && is_same_server(&graph->others[i], server))
            return graph->nwaiters + i;
    if (graph->nothers % 64 == 0) {
        struct seat *grown = arena_array(&graph->arena, struct seat, graph->nothers + 64);
        if (graph->nothers)
            memcpy(grown, graph->others, sizeof *grown * (size_t)graph->nothers);
        graph->others = grown;
    }
    graph->others[graph->nothers] = *server;
    graph->others[graph->nothers].pid = pid;
    return graph->nwaiters + graph->nothers++;
}

static void add_wait(struct graph *graph, int server, int32_t from, int32_t to)
{
    if (graph->nwaits == graph->room) {
        struct wait *grown = arena_array(&graph->arena, struct wait, graph->room + 64);
        if (graph->nwaits)
            memcpy(grown, graph->waits, sizeof *grown * (size_t)graph->nwaits);
        graph->waits = grown;
        graph->room += 64;
    }
    int from_vertex = find_vertex(graph, &graph->servers[server], from);
    int to_vertex = find_vertex(graph, &graph->servers[server], to);
    graph->waits[graph->nwaits++] = (struct wait){from_vertex, to_vertex, server};
}

/* The way back to `start`, as vertices with the server of the wait that led to each; 0: there is none. */
static int find_circle(struct graph *graph, int start, int *members, bool *several)
{
    int vertices = graph->nwaiters + graph->nothers, head = 0, tail = 0, count = 0;
    int *queue = arena_array(&graph->arena, int, vertices + 1),
        *by = arena_array(&graph->arena, int, vertices); /* number of the wait that led here, + 1 */
    queue[tail++] = start;
    while (head < tail && !by[start]) {
        int at = queue[head++];
        for (int i = 0; i < graph->nwaits; i++) {
            if (graph->waits[i].from != at || by[graph->waits[i].to])
                continue;
            by[graph->waits[i].to] = i + 1;
            if (graph->waits[i].to != start)
                queue[tail++] = graph->waits[i].to;
        }
    }
    *several = false;
    for (int at = start; by[start]; at = graph->waits[by[at] - 1].from) {
        const struct wait *wait = &graph->waits[by[at] - 1];
        members[count++] = at;
        *several |= wait->server != graph->waits[by[start] - 1].server;
        if (wait->from == start)
            break;
    }
    return count;
}

/* The youngest transaction of a circle over several servers; NULL: there is none. */
static struct waiter *find_victim(struct graph *graph)
{
    int *members = arena_array(&graph->arena, int, graph->nwaiters + graph->nothers + 1);
    for (int i = 0; i < graph->nwaiters; i++) {
        bool several;
        struct waiter *victim = NULL;
        int count = find_circle(graph, i, members, &several);
        for (int k = 0; k < count && several; k++) {
            struct waiter *one = members[k] < graph->nwaiters ? graph->waiters[members[k]] : NULL;
            if (one && (!victim || one->begun_at > victim->begun_at))
                victim = one;
        }
        if (victim)
            return victim;
    }
    return NULL;
}

/* ---- rounds: on the thread ---- */

static void ask_server(struct shard_deadlocks *deadlocks, const struct config *config,
                       struct graph *graph, int server)
{
    const struct seat *seat = &graph->servers[server];
    PGresult *rows =
        shard_deadlock_ask(config, seat->host, seat->port, seat->dbname, &deadlocks->stop);
    for (int i = 0; rows && i < PQntuples(rows); i++)
        add_wait(graph, server, (int32_t)atol(PQgetvalue(rows, i, 0)),
                 (int32_t)atol(PQgetvalue(rows, i, 1)));
    PQclear(rows);
}

static void take_servers(struct graph *graph)
{
    int most = 0;
    for (int i = 0; i < graph->nwaiters; i++)
        most += graph->waiters[i]->nseats;
    graph->servers = arena_array(&graph->arena, struct seat, most);
    for (int i = 0; i < graph->nwaiters; i++)
        for (int k = 0; k < graph->waiters[i]->nseats; k++) {
            int known = 0;
            while (known < graph->nservers &&
                   !is_same_server(&graph->servers[known], &graph->waiters[i]->seats[k]))
                known++;
            if (known == graph->nservers)
                graph->servers[graph->nservers++] = graph->waiters[i]->seats[k];
        }
}

/* Copies those that still wait; forgets the others. */
static void take_waiters(struct shard_deadlocks *deadlocks, struct graph *graph)
{
    int64_t now = clock_us();
    int count = 0;
    pthread_mutex_lock(&deadlocks->lock);
    for (struct waiter **at = &deadlocks->waiters; *at;) {
        struct waiter *waiter = *at;
        if (now - waiter->noted_at > FORGET_US) {
            *at = waiter->next;
            free(waiter);
            continue;
        }
        count++;
        at = &waiter->next;
    }
    graph->waiters = arena_array(&graph->arena, struct waiter *, count);
    for (const struct waiter *waiter = deadlocks->waiters; waiter; waiter = waiter->next) {
        size_t size = sizeof *waiter + sizeof(struct seat) * (size_t)waiter->nseats;
        graph->waiters[graph->nwaiters] = arena_alloc(&graph->arena, size);
        memcpy(graph->waiters[graph->nwaiters++], waiter, size);
    }
    pthread_mutex_unlock(&deadlocks->lock);
}

/* Counts the rounds in a row; true: it is to end now. */
static bool is_confirmed(struct shard_deadlocks *deadlocks, const struct waiter *victim)
{
    bool confirmed = false;
    pthread_mutex_lock(&deadlocks->lock);
    for (struct waiter *waiter = deadlocks->waiters; waiter; waiter = waiter->next) {
        bool is_it = victim && waiter->worker == victim->worker &&
                     waiter->client == victim->client && waiter->asked_at == victim->asked_at;
        waiter->rounds = is_it ? waiter->rounds + 1 : 0;
        confirmed |= waiter->rounds == CONFIRM;
    }
    pthread_mutex_unlock(&deadlocks->lock);
    return confirmed;
}

static void end_victim(const struct waiter *victim)
{
    struct verdict *verdict = mem_alloc(sizeof *verdict);
    verdict->message.run = carry_out;
    verdict->client = victim->client;
    verdict->asked_at = victim->asked_at;
    log_event(LOG_WARNING,
              "transactions on several shards wait for each other: the youngest is ended",
              LOG_I("waited_ms", (clock_us() - victim->asked_at) / 1000));
    worker_post(victim->worker, &verdict->message);
}

static void make_round(struct shard_deadlocks *deadlocks)
{
    struct graph graph = {.nwaiters = 0};
    arena_init(&graph.arena);
    take_waiters(deadlocks, &graph);
    if (graph.nwaiters > 1) {
        struct topology *topology = daemon_topology(deadlocks->daemon);
        take_servers(&graph);
        for (int i = 0; i < graph.nservers && !deadlocks->stop; i++)
            ask_server(deadlocks, topology->config, &graph, i);
        topology_unref(topology);
        const struct waiter *victim = find_victim(&graph);
        if (is_confirmed(deadlocks, victim))
            end_victim(victim);
    }
    arena_free(&graph.arena);
}

static void nap(struct shard_deadlocks *deadlocks)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += ROUND_MS * 1000000L;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    while (!deadlocks->stop &&
           pthread_cond_timedwait(&deadlocks->changed, &deadlocks->lock, &until) != ETIMEDOUT)
        continue;
}

static void *run(void *arg)
{
    struct shard_deadlocks *deadlocks = arg;
    pthread_setname_np(pthread_self(), "pgshunt-deadlck");
    log_thread_name("deadlocks");
    pthread_mutex_lock(&deadlocks->lock);
    while (!deadlocks->stop) {
        if (!deadlocks->waiters) {
            pthread_cond_wait(&deadlocks->changed, &deadlocks->lock);
            continue;
        }
        pthread_mutex_unlock(&deadlocks->lock);
        make_round(deadlocks);
        pthread_mutex_lock(&deadlocks->lock);
        nap(deadlocks);
    }
    pthread_mutex_unlock(&deadlocks->lock);
    return NULL;
}

static void free_all(struct shard_deadlocks *deadlocks)
{
    while (deadlocks->waiters) {
        struct waiter *next = deadlocks->waiters->next;
        free(deadlocks->waiters);
        deadlocks->waiters = next;
    }
    pthread_cond_destroy(&deadlocks->changed);
    pthread_mutex_destroy(&deadlocks->lock);
    free(deadlocks);
}

struct shard_deadlocks *shard_deadlocks_start(struct daemon *daemon)
{
    struct shard_deadlocks *deadlocks = mem_alloc(sizeof *deadlocks);
    pthread_condattr_t attributes;
    deadlocks->daemon = daemon;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_mutex_init(&deadlocks->lock, NULL);
    pthread_cond_init(&deadlocks->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    if (pthread_create(&deadlocks->thread, NULL, run, deadlocks) == 0)
        return deadlocks;
    free_all(deadlocks);
    return NULL;
}

void shard_deadlocks_stop(struct shard_deadlocks *deadlocks)
{
    if (!deadlocks)
        return;
    pthread_mutex_lock(&deadlocks->lock);
    deadlocks->stop = 1;
    pthread_cond_broadcast(&deadlocks->changed);
    pthread_mutex_unlock(&deadlocks->lock);
    pthread_join(deadlocks->thread, NULL);
    free_all(deadlocks);
}
