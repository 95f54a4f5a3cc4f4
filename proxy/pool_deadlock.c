/*
 * pool_deadlock.c: clients that hold server connections and wait for more may wait for each other.
 *
 * Transactions over several shards take their servers as they need them, in any order. Two of them, each
 * holding the last server that the other waits for, would stand until query_wait_timeout. So each client
 * that waits while it holds servers is written down for all workers, with the pools it holds servers of
 * and the pool it waits for. It is stuck if every server of that pool is held by somebody stuck: the
 * largest set of which that is true of all. Who finds itself stuck as it begins to wait is refused.
 */
#include <stdlib.h>

#include "pgshunt/arena.h"
#include "proxy/client.h"
#include "proxy/pool_internal.h"
#include "proxy/worker.h"

/* One client that holds and waits. The list is behind daemon->budgets_lock. */
struct holder {
    struct client *client; /* names it; never followed */
    struct budget *waits;
    bool may_reserve; /* it will be given a server of the reserve in time */
    bool stuck;
    struct holder *next;
    int count;
    struct budget *holds[];
};

void deadlock_wait(struct client *client)
{
    struct daemon *daemon = client->worker->daemon;
    struct holder *holder =
        mem_alloc(sizeof *holder + sizeof(struct budget *) * (size_t)client->nparticipants);
    holder->client = client;
    holder->waits = client->waiting_pool->budget;
    holder->may_reserve = client->waiting_pool->account->settings.reserve_timeout > 0;
    for (int i = 0; i < client->nparticipants; i++)
        holder->holds[holder->count++] = client->participants[i]->pool->budget;
    client->holds_and_waits = true;
    pthread_mutex_lock(&daemon->budgets_lock);
    holder->next = daemon->holders;
    daemon->holders = holder;
    pthread_mutex_unlock(&daemon->budgets_lock);
}

void deadlock_end(struct client *client)
{
    struct daemon *daemon = client->worker->daemon;
    client->holds_and_waits = false;
    pthread_mutex_lock(&daemon->budgets_lock);
    for (struct holder **at = &daemon->holders; *at; at = &(*at)->next) {
        struct holder *holder = *at;
        if (holder->client != client)
            continue;
        *at = holder->next;
        free(holder);
        break;
    }
    pthread_mutex_unlock(&daemon->budgets_lock);
}

/* ---- the search, under the lock ---- */

static void count_stuck(struct holder *first)
{
    for (struct holder *holder = first; holder; holder = holder->next) {
        holder->waits->stuck = 0;
        for (int i = 0; i < holder->count; i++)
            holder->holds[i]->stuck = 0;
    }
    for (struct holder *holder = first; holder; holder = holder->next)
        for (int i = 0; holder->stuck && i < holder->count; i++)
            holder->holds[i]->stuck++;
}

static bool may_get_one(const struct holder *holder)
{
    const struct budget *budget = holder->waits;
    int used = atomic_load(&budget->used), most = atomic_load(&budget->limit);
    if (holder->may_reserve)
        most += atomic_load(&budget->reserve);
    return used < most || budget->stuck < used;
}

static bool free_some(struct holder *first)
{
    bool changed = false;
    count_stuck(first);
    for (struct holder *holder = first; holder; holder = holder->next) {
        if (!holder->stuck || !may_get_one(holder))
            continue;
        holder->stuck = false;
        changed = true;
    }
    return changed;
}

bool deadlock_found(struct client *client)
{
    struct daemon *daemon = client->worker->daemon;
    bool found = false;
    pthread_mutex_lock(&daemon->budgets_lock);
    for (struct holder *holder = daemon->holders; holder; holder = holder->next)
        holder->stuck = true;
    while (free_some(daemon->holders))
        continue;
    for (struct holder *holder = daemon->holders; holder; holder = holder->next)
        found |= holder->stuck && holder->client == client;
    pthread_mutex_unlock(&daemon->budgets_lock);
    return found;
}
