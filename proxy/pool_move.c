/* pool_move.c: server connections that go from one worker to another, and asking for one. */
#include <stdlib.h>

#include "pgshunt/arena.h"
#include "proxy/pool_internal.h"
#include "proxy/worker.h"

/* ---- handing over ---- */

struct transfer {
    struct message message;
    struct server *server;
    struct worker *to;
    char *database, *user;
    struct node *node;
    struct budget *budget;
};

static void free_transfer(struct transfer *transfer)
{
    node_unref(transfer->node);
    free(transfer->database);
    free(transfer->user);
    free(transfer);
}

/* No event loop will ever close it: it is taken off the books by hand. */
static void forget(struct server *server)
{
    pool_give_room(server->pool);
    server_discard(server);
}

/* The receiving worker has ended, and so does the process: the pool it came from is still there,
 * because its worker runs this. */
static void drop_transfer(struct message *message)
{
    struct transfer *transfer = (struct transfer *)message;
    forget(transfer->server);
    free_transfer(transfer);
}

/* On the receiving worker. */
static void adopt(struct worker *worker, struct message *message)
{
    struct transfer *transfer = (struct transfer *)message;
    struct server *server = transfer->server;
    struct account *account = account_get(worker, transfer->database, transfer->user);
    server->worker = worker;
    server->pool = pool_get(account, transfer->node);
    atomic_store(&transfer->budget->places[worker->index].coming, false);
    free_transfer(transfer);
    if (!conn_adopt(&server->conn, &worker->poller)) {
        forget(server);
        return;
    }
    list_push_back(&worker->servers, &server->all);
    server->pool->nactive++; /* as if just done with a client */
    server->state = SERVER_ACTIVE;
    pool_checkin(server);
}

static void post_transfer(struct conn *conn)
{
    struct server *server = list_entry(conn, struct server, conn);
    struct transfer *transfer = server->handover;
    server->handover = NULL;
    worker_post(transfer->to, &transfer->message);
}

void pool_move(struct server *server, int to)
{
    struct pool *pool = server->pool;
    struct transfer *transfer = mem_alloc(sizeof *transfer);
    transfer->message.run = adopt;
    transfer->message.drop = drop_transfer;
    transfer->server = server;
    transfer->to = &pool->worker->daemon->workers[to];
    transfer->database = mem_strdup(pool->account->database);
    transfer->user = mem_strdup(pool->account->user);
    transfer->node = node_ref(pool->node);
    transfer->budget = pool->budget;
    server->handover = transfer;
    atomic_store(&pool->budget->places[to].coming, true);
    pool->moves++;
    list_remove(&server->all);
    conn_detach(&server->conn, post_transfer);
}

/* ---- begging ---- */

struct begging {
    struct message message;
    int from;
    char *database, *user;
    struct node *node;
};

static void drop_begging(struct message *message)
{
    struct begging *begging = (struct begging *)message;
    node_unref(begging->node);
    free(begging->database);
    free(begging->user);
    free(begging);
}

/* On a worker that had idle servers a moment ago. */
static void hear_beggar(struct worker *worker, struct message *message)
{
    struct begging *begging = (struct begging *)message;
    struct account *account = account_get(worker, begging->database, begging->user);
    struct pool *pool = pool_get(account, begging->node);
    atomic_store(&pool->budget->places[worker->index].asked, false);
    if (!list_empty(&pool->idle) && !pool->nwaiting) {
        struct server *server = list_entry(pool->idle.prev, struct server, link);
        pool_take_idle(pool, server);
        pool_move(server, begging->from);
    }
    drop_begging(message);
}

/* On a worker with clients waiting. */
static void hear_place(struct worker *worker, struct message *message)
{
    struct begging *begging = (struct begging *)message;
    struct account *account = account_get(worker, begging->database, begging->user);
    struct pool *pool = pool_get(account, begging->node);
    if (pool->nwaiting)
        pool_feed(pool);
    drop_begging(message);
}

static void post(struct pool *pool, int worker, void (*run)(struct worker *, struct message *))
{
    struct begging *begging = mem_alloc(sizeof *begging);
    begging->message.run = run;
    begging->message.drop = drop_begging;
    begging->from = pool->worker->index;
    begging->database = mem_strdup(pool->account->database);
    begging->user = mem_strdup(pool->account->user);
    begging->node = node_ref(pool->node);
    worker_post(&pool->worker->daemon->workers[worker], &begging->message);
}

bool pool_beg(struct pool *pool)
{
    int wanted = pool->nwaiting - pool->nstarting;
    bool asked = false;
    for (int i = 0; i < pool->budget->nplaces && wanted > 0; i++) {
        struct budget_place *place = &pool->budget->places[i];
        if (i == pool->worker->index || !atomic_load(&place->idle))
            continue;
        asked = true;
        if (atomic_exchange(&place->asked, true))
            continue; /* it has not answered yet */
        post(pool, i, hear_beggar);
        wanted--;
    }
    return asked;
}

void pool_tell_place(struct pool *pool)
{
    int to = budget_neediest(pool->budget, pool->worker->index, pool_waits_since(pool));
    if (to >= 0)
        post(pool, to, hear_place);
}
