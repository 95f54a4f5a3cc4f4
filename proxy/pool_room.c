/*
 * pool_room.c: places in the limits that several pools share, and making room there.
 *
 * A pool that a limit keeps from starting a connection (1) closes the server idle longest of another
 * pool that counts in the same limit, on its own worker; (2) asks the other workers, one after another,
 * to close one of theirs; (3) leaves a note in the limit, so that a busy server that comes free is
 * closed for it when its clients have waited longer than those of the server's own pool, and nobody
 * else takes the place.
 */
#include <stdlib.h>

#include "pgshunt/arena.h"
#include "proxy/pool_internal.h"
#include "proxy/worker.h"

/* A pool that found no room does not look again before (other than when told that there is some). */
#define ASK_AGAIN_US 10000

/* ---- places ---- */

static struct budget *take_limits(struct pool *pool, int64_t since, int64_t now)
{
    for (int i = 0; i < POOL_LIMITS; i++) {
        if (budget_take_fairly(pool->worker->daemon, pool->limits[i], since, now))
            continue;
        struct budget *full = pool->limits[i];
        while (i-- > 0)
            budget_give(pool->limits[i]);
        return full;
    }
    return NULL;
}

enum room pool_take_room(struct pool *pool, int most, int64_t since, int64_t now)
{
    if (!budget_take_up_to(pool->budget, most))
        return ROOM_POOL_FULL;
    struct budget *full = take_limits(pool, since, now);
    if (!full)
        return ROOM_TAKEN;
    budget_give(pool->budget);
    pool->squeezed_by = full;
    return ROOM_NONE;
}

void pool_give_room(struct pool *pool)
{
    budget_give(pool->budget);
    for (int i = 0; i < POOL_LIMITS; i++)
        budget_give(pool->limits[i]);
}

bool pool_has_surplus(const struct pool *pool)
{
    return atomic_load_explicit(&pool->budget->used, memory_order_relaxed) >
           atomic_load_explicit(&pool->budget->limit, memory_order_relaxed);
}

void pool_relax(struct pool *pool)
{
    if (pool->squeezed_by && list_empty(&pool->waiting))
        budget_unwant(pool->worker->daemon, pool->squeezed_by, pool->budget, pool->worker->index);
    list_remove(&pool->squeezed);
    pool->squeezed_by = NULL;
}

/* ---- evicting idle servers ---- */

static bool counts_in(const struct pool *pool, const struct budget *limit)
{
    for (int i = 0; i < POOL_LIMITS; i++)
        if (pool->limits[i] == limit)
            return true;
    return false;
}

static struct server *idle_longest(const struct pool *pool)
{
    if (list_empty(&pool->idle))
        return NULL;
    struct server *first = list_entry(pool->idle.next, struct server, link);
    struct server *longest = list_entry(pool->idle.prev, struct server, link);
    return first->idle_since < longest->idle_since ? first : longest;
}

/* A pool is brought below its minimum only when there is nobody else. */
static bool is_better(const struct server *server, const struct server *best)
{
    if (!best)
        return true;
    const struct pool *a = server->pool, *b = best->pool;
    bool spare_a = atomic_load(&a->budget->used) > a->account->settings.min_size;
    bool spare_b = atomic_load(&b->budget->used) > b->account->settings.min_size;
    return spare_a != spare_b ? spare_a : server->idle_since < best->idle_since;
}

/* Closes the idle server that is missed least, if there is one that counts in the limit. */
static bool evict(struct worker *worker, const struct budget *limit, const struct pool *asking)
{
    struct server *best = NULL;
    for (struct account *account = worker->accounts; account; account = account->hh.next) {
        for (struct pool *pool = account->pools; pool; pool = pool->next) {
            struct server *server = idle_longest(pool);
            if (server && pool != asking && counts_in(pool, limit) && is_better(server, best))
                best = server;
        }
    }
    if (!best)
        return false;
    best->pool->evictions++;
    server_drop(best, "room for another pool");
    return true;
}

/* ---- asking the other workers ---- */

struct room_request {
    struct message message;
    struct worker *asking;
    int next; /* worker to ask after this one */
    struct budget *limit;
    bool evicted; /* there is room now */
};

static void run_request(struct worker *worker, struct message *message);

/* Those that still find no room come back to the list. */
static void feed_squeezed(struct worker *worker)
{
    struct list_node pools;
    list_init(&pools);
    list_each(at, following, &worker->squeezed)
    {
        list_remove(at);
        list_push_back(&pools, at);
    }
    while (!list_empty(&pools)) {
        struct pool *pool = list_entry(pools.next, struct pool, squeezed);
        list_remove(&pool->squeezed);
        pool_feed(pool);
    }
}

/* Back on the worker that has asked. */
static void answered(struct worker *worker, struct message *message)
{
    bool evicted = ((struct room_request *)message)->evicted;
    free(message);
    worker->asking_room = false;
    if (evicted)
        feed_squeezed(worker);
}

static void pass_on(struct message *message);

static void answer(struct room_request *request)
{
    request->message.run = answered;
    request->message.drop = NULL;
    worker_post(request->asking, &request->message);
}

/* To the next worker, or back. Also where one has ended already. */
static void pass_on(struct message *message)
{
    struct room_request *request = (struct room_request *)message;
    struct daemon *daemon = request->asking->daemon;
    if (request->next == request->asking->index)
        request->next++;
    if (request->next >= daemon->nworkers) {
        answer(request);
        return;
    }
    message->run = run_request;
    message->drop = pass_on;
    worker_post(&daemon->workers[request->next++], message);
}

static void run_request(struct worker *worker, struct message *message)
{
    struct room_request *request = (struct room_request *)message;
    request->evicted = evict(worker, request->limit, NULL);
    if (request->evicted)
        answer(request);
    else
        pass_on(message);
}

static void ask_others(struct worker *worker, struct budget *limit)
{
    if (worker->asking_room || worker->daemon->nworkers == 1)
        return;
    worker->asking_room = true;
    struct room_request *request = mem_alloc(sizeof *request);
    request->asking = worker;
    request->limit = limit;
    pass_on(&request->message);
}

/* Not for each client that joins the queue. */
bool pool_is_asking(const struct pool *pool, int64_t now)
{
    return !list_empty(&pool->squeezed) && now - pool->squeezed_at < ASK_AGAIN_US;
}

bool pool_make_room(struct pool *pool, int64_t now)
{
    struct worker *worker = pool->worker;
    struct budget *limit = pool->squeezed_by;
    if (evict(worker, limit, pool))
        return true;
    if (list_empty(&pool->squeezed))
        list_push_back(&worker->squeezed, &pool->squeezed);
    pool->squeezed_at = now;
    budget_want(worker->daemon, limit, pool->budget, worker->index, pool_waits_since(pool), now);
    ask_others(worker, limit);
    return false;
}

/* ---- busy servers that come free ---- */

static void run_room(struct worker *worker, struct message *message)
{
    free(message);
    feed_squeezed(worker);
}

int pool_yields(struct pool *pool, int64_t now)
{
    struct daemon *daemon = pool->worker->daemon;
    if (!budgets_squeezed(daemon))
        return -1;
    for (int i = 0; i < POOL_LIMITS; i++) {
        int to = budget_yield(daemon, pool->limits[i], pool->budget, pool_waits_since(pool), now);
        if (to >= 0)
            return to;
    }
    return -1;
}

void pool_tell_room(struct pool *pool, int worker)
{
    struct message *message = mem_alloc(sizeof *message);
    message->run = run_room;
    worker_post(&pool->worker->daemon->workers[worker], message);
}

void pool_tell_wanting(struct pool *pool)
{
    struct daemon *daemon = pool->worker->daemon;
    if (!budgets_squeezed(daemon))
        return;
    for (int i = 0; i < POOL_LIMITS; i++) {
        int to = budget_grant(daemon, pool->limits[i], worker_now(pool->worker));
        if (to >= 0)
            pool_tell_room(pool, to);
    }
}
