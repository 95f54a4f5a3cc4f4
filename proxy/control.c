/* control.c: gates by database on a worker, the clients held at them, and orders from the console. */
#include "proxy/control.h"

#include <stdlib.h>
#include <string.h>

#include "pgshunt/arena.h"
#include "pgshunt/log.h"
#include "proxy/client.h"
#include "proxy/client_login.h"
#include "proxy/hold.h"
#include "proxy/pool.h"
#include "proxy/worker.h"

/* ---- gates ---- */

static struct gate *gate_find(const struct worker *worker, const char *database)
{
    struct gate *gate;
    HASH_FIND_STR(worker->gates, database, gate);
    return gate;
}

static struct gate *gate_make(struct worker *worker, const char *database)
{
    struct gate *gate = gate_find(worker, database);
    if (gate)
        return gate;
    gate = mem_alloc(sizeof *gate);
    gate->database = mem_strdup(database);
    HASH_ADD_KEYPTR(hh, worker->gates, gate->database, strlen(gate->database), gate);
    return gate;
}

static void gate_free(struct worker *worker, struct gate *gate)
{
    HASH_DEL(worker->gates, gate);
    free(gate->database);
    free(gate);
}

/* An open gate is none: then nothing is looked up when a client asks for a server. */
static void sweep_gates(struct worker *worker)
{
    struct gate *gate, *next;
    HASH_ITER(hh, worker->gates, gate, next)
    {
        if (!gate->paused && !gate->disabled)
            gate_free(worker, gate);
    }
}

bool control_is_paused(const struct worker *worker, const char *database)
{
    if (!worker->gates)
        return false;
    const struct gate *all = gate_find(worker, ""), *one = gate_find(worker, database);
    return (all && all->paused) || (one && one->paused);
}

bool control_is_disabled(const struct worker *worker, const char *database)
{
    const struct gate *gate = worker->gates ? gate_find(worker, database) : NULL;
    return gate && gate->disabled;
}

/* ---- clients held ---- */

static void hold(struct client *client)
{
    struct worker *worker = client->worker;
    client->held = true;
    client->waiting_since = worker_now(worker);
    list_push_back(&worker->held, &client->waiting);
    if (client->state != CLIENT_GREETING)
        client->state = CLIENT_WAITING;
}

bool control_holds(struct client *client)
{
    if (client->nparticipants || !control_is_paused(client->worker, client->database_name))
        return false;
    hold(client);
    return true;
}

void control_release(struct client *client)
{
    if (!client->held)
        return;
    client->held = false;
    list_remove(&client->waiting);
    int64_t waited = worker_now(client->worker) - client->waiting_since;
    client->stats->wait_us += (uint64_t)waited;
}

static void let_go(struct client *client)
{
    control_release(client);
    if (client->state == CLIENT_GREETING)
        client_login_find_greeting(client);
    else
        client_go_on(client);
}

/* Whose gate is open now goes on. */
static void let_all_go(struct worker *worker)
{
    struct list_node going;
    list_init(&going);
    list_each(at, following, &worker->held)
    {
        struct client *client = list_entry(at, struct client, waiting);
        if (control_is_paused(worker, client->database_name))
            continue;
        list_move(&going, at);
    }
    while (!list_empty(&going))
        let_go(list_entry(going.next, struct client, waiting));
}

void control_tick(struct worker *worker, int64_t now)
{
    struct list_node late;
    list_init(&late);
    list_each(at, following, &worker->held)
    {
        const struct client *client = list_entry(at, struct client, waiting);
        int64_t limit = client->account->settings.query_wait_timeout * 1000;
        if (limit && now - client->waiting_since >= limit)
            list_move(&late, at);
    }
    while (!list_empty(&late)) {
        struct client *client = list_entry(late.next, struct client, waiting);
        control_release(client);
        client->request.attempts = CLIENT_ATTEMPTS_OVER;
        client_no_server(client, "53300",
                         "the database was paused for longer than pool.query_wait_timeout",
                         "RESUME on the admin console lets clients go on.");
    }
}

void control_free(struct worker *worker)
{
    struct gate *gate, *next;
    HASH_ITER(hh, worker->gates, gate, next)
    {
        gate_free(worker, gate);
    }
}

/* ---- orders ---- */

static bool is_meant(const struct control_order *order, const char *database)
{
    return !order->database[0] || strcmp(order->database, database) == 0;
}

/* Those who wait in a queue for a first server wait at the gate instead. */
static void hold_queued(struct worker *worker, const struct control_order *order)
{
    list_each(at, following, &worker->clients)
    {
        struct client *client = list_entry(at, struct client, all);
        if (!client->waiting_pool || client->nparticipants ||
            !is_meant(order, client->database_name))
            continue;
        int64_t since = client->waiting_since;
        pool_cancel_wait(client);
        hold(client);
        client->waiting_since = since;
    }
}

static void close_idle(struct pool *pool, const char *reason)
{
    while (!list_empty(&pool->idle))
        server_drop(list_entry(pool->idle.next, struct server, link), reason);
}

static int close_free_servers(struct worker *worker, const struct control_order *order)
{
    int busy = 0;
    for (struct account *account = worker->accounts; account; account = account->hh.next) {
        if (!is_meant(order, account->database))
            continue;
        for (struct pool *pool = account->pools; pool; pool = pool->next) {
            close_idle(pool, "PAUSE");
            busy += pool->nactive + pool->nstarting;
        }
    }
    return busy;
}

static void pause_database(struct worker *worker, struct control_order *order)
{
    if (!order->look) {
        struct gate *gate = gate_make(worker, order->database);
        order->was_so |= gate->paused;
        gate->paused = true;
        hold_queued(worker, order);
    }
    if (control_is_paused(worker, order->database)) /* not resumed meanwhile */
        order->busy += close_free_servers(worker, order);
}

static void set_suspended(struct worker *worker, bool suspended)
{
    worker->suspended = suspended;
    list_each(at, following, &worker->clients)
    {
        client_hold_input(list_entry(at, struct client, all));
    }
}

static void unpause(struct worker *worker, const char *database)
{
    struct gate *gate = gate_find(worker, database);
    if (gate)
        gate->paused = false;
    sweep_gates(worker);
    let_all_go(worker);
}

static void resume_database(struct worker *worker, struct control_order *order)
{
    bool all = !order->database[0];
    for (struct gate *gate = worker->gates; gate; gate = gate->hh.next) {
        if (!all && strcmp(gate->database, order->database) != 0)
            continue;
        order->was_so |= gate->paused;
        gate->paused = false;
    }
    sweep_gates(worker);
    let_all_go(worker);
    if (all && worker->suspended) {
        order->was_so = true;
        set_suspended(worker, false);
    }
}

static bool is_ordinary(const struct server *server, const struct control_order *order)
{
    return !server->dedicated && !server->hub && is_meant(order, server->pool->account->database);
}

static void reconnect(struct worker *worker, const struct control_order *order)
{
    struct list_node doomed;
    list_init(&doomed);
    list_each(at, following, &worker->servers)
    {
        struct server *server = list_entry(at, struct server, all);
        if (!is_ordinary(server, order))
            continue;
        server->discard = true;
        if (server->state == SERVER_IDLE)
            list_move(&doomed, at);
    }
    while (!list_empty(&doomed))
        server_drop(list_entry(doomed.next, struct server, all), "RECONNECT");
}

static int count_closing(const struct worker *worker, const struct control_order *order)
{
    int count = 0;
    list_each(at, following, &worker->servers)
    {
        const struct server *server = list_entry(at, struct server, all);
        count += server->discard && is_ordinary(server, order);
    }
    return count;
}

static void disable(struct worker *worker, struct control_order *order, bool disabled)
{
    struct gate *gate = gate_make(worker, order->database);
    order->was_so |= gate->disabled == disabled;
    gate->disabled = disabled;
    sweep_gates(worker);
}

#define KILLED "terminating connection due to administrator command"

/* One's end may be another's too: so they are put aside first. */
static void kill_clients(struct worker *worker, const struct control_order *order)
{
    struct list_node doomed;
    list_init(&doomed);
    list_each(at, following, &worker->clients)
    {
        const struct client *client = list_entry(at, struct client, all);
        if (!client->database || !is_meant(order, client->database_name))
            continue;
        list_move(&doomed, at);
    }
    while (!list_empty(&doomed))
        client_kill(list_entry(doomed.next, struct client, all), "57P01", KILLED, "Connect again.");
}

static void kill_servers(struct worker *worker, const struct control_order *order)
{
    struct list_node doomed;
    list_init(&doomed);
    list_each(at, following, &worker->servers)
    {
        if (!is_meant(order, list_entry(at, struct server, all)->pool->account->database))
            continue;
        list_move(&doomed, at);
    }
    while (!list_empty(&doomed))
        server_close(list_entry(doomed.next, struct server, all), "KILL");
}

static void kill_client(struct worker *worker, struct control_order *order)
{
    list_each(at, following, &worker->clients)
    {
        struct client *client = list_entry(at, struct client, all);
        if (client->id != order->id)
            continue;
        order->was_so = true;
        client_kill(client, "57P01", KILLED, "Connect again.");
        return;
    }
}

/* Bytes that have to go out before a client or server is between messages. */
static int count_unfinished(const struct worker *worker)
{
    int count = 0;
    list_each(at, following, &worker->clients)
    {
        const struct client *client = list_entry(at, struct client, all);
        count += !client->console && conn_queued(&client->conn) > 0;
    }
    list_each(at, following, &worker->servers)
    {
        const struct server *server = list_entry(at, struct server, all);
        count += conn_queued(&server->conn) || server->skip || buffer_length(&server->in);
    }
    return count;
}

static void suspend(struct worker *worker, struct control_order *order)
{
    if (!order->look) {
        order->was_so |= worker->suspended;
        set_suspended(worker, true);
    }
    if (worker->suspended)
        order->busy += count_unfinished(worker);
}

void control_carry_out(struct worker *worker, struct control_order *order)
{
    switch (order->action) {
    case CONTROL_PAUSE:
        pause_database(worker, order);
        break;
    case CONTROL_RESUME:
        resume_database(worker, order);
        break;
    case CONTROL_RECONNECT:
        reconnect(worker, order);
        break;
    case CONTROL_WAIT_CLOSE:
        order->busy += count_closing(worker, order);
        break;
    case CONTROL_DISABLE:
    case CONTROL_ENABLE:
        disable(worker, order, order->action == CONTROL_DISABLE);
        break;
    case CONTROL_KILL:
        gate_make(worker, order->database)->paused = true;
        kill_clients(worker, order);
        kill_servers(worker, order);
        break;
    case CONTROL_KILL_CLIENT:
        kill_client(worker, order);
        break;
    case CONTROL_SUSPEND:
        suspend(worker, order);
        break;
    case CONTROL_UNPAUSE:
        unpause(worker, order->database);
        break;
    case CONTROL_UNSUSPEND:
        set_suspended(worker, false);
        break;
    case CONTROL_HOLD:
        hold_move_queued(worker);
        break;
    case CONTROL_DRAIN:
        order->busy += hold_count_busy(worker, order->shard);
        break;
    case CONTROL_RELEASE:
    case CONTROL_CHECK:
    case CONTROL_PASS_BY:
        break;
    }
}
