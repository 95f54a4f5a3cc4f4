/* pool_budget.c: shared counts of server connections and clients, their limits, and who wants room. */
#include "proxy/pool_budget.h"

#include <stdlib.h>
#include <string.h>

#include "pgshunt/arena.h"
#include "proxy/worker.h"

/* Waits that differ by less are taken for equal: moving a server costs more than it would give. */
#define FAIR_US 10000
/* A want that nobody repeats is forgotten. Workers repeat theirs at each tick. */
#define WANT_US 500000

static struct budget_place *new_places(int count)
{
    size_t size = sizeof(struct budget_place) * (size_t)count;
    struct budget_place *places = aligned_alloc(_Alignof(struct budget_place), size);
    if (!places)
        abort();
    memset(places, 0, size);
    return places;
}

struct budget *budget_get(struct daemon *daemon, const char *key, bool places, const char *setting)
{
    struct budget *budget;
    pthread_mutex_lock(&daemon->budgets_lock);
    HASH_FIND_STR(daemon->budgets, key, budget);
    if (!budget) {
        budget = mem_alloc(sizeof *budget);
        budget->key = mem_strdup(key);
        budget->setting = setting;
        atomic_store(&budget->limit, BUDGET_UNLIMITED);
        budget->nplaces = places ? daemon->nworkers : 0;
        if (places)
            budget->places = new_places(budget->nplaces);
        HASH_ADD_KEYPTR(hh, daemon->budgets, budget->key, strlen(budget->key), budget);
    }
    pthread_mutex_unlock(&daemon->budgets_lock);
    return budget;
}

void budget_set_limit(struct budget *budget, int64_t limit)
{
    atomic_store(&budget->limit, limit ? (int)limit : BUDGET_UNLIMITED);
}

bool budget_take_up_to(struct budget *budget, int most)
{
    int used = atomic_load(&budget->used);
    while (used < most)
        if (atomic_compare_exchange_weak(&budget->used, &used, used + 1))
            return true;
    return false;
}

bool budget_take(struct budget *budget)
{
    return budget_take_up_to(budget, atomic_load(&budget->limit));
}

void budget_give(struct budget *budget)
{
    atomic_fetch_sub(&budget->used, 1);
}

/* ---- who waits where ---- */

void budget_waiting(struct budget *budget, int self, int64_t since)
{
    struct budget_place *place = &budget->places[self];
    int64_t before = atomic_load_explicit(&place->waiting_since, memory_order_relaxed);
    atomic_store_explicit(&place->waiting_since, since, memory_order_relaxed);
    if (!before != !since)
        atomic_fetch_add(&budget->waiting_workers, since ? 1 : -1);
}

int budget_neediest(const struct budget *budget, int self, int64_t own)
{
    int waiting = atomic_load_explicit(&budget->waiting_workers, memory_order_relaxed);
    int left = waiting - (own != 0), neediest = -1;
    int64_t oldest = own ? own - FAIR_US : INT64_MAX;
    for (int i = 0; left > 0 && i < budget->nplaces; i++) {
        const struct budget_place *place = &budget->places[i];
        int64_t since = atomic_load_explicit(&place->waiting_since, memory_order_relaxed);
        if (i == self || !since)
            continue;
        left--;
        if (since < oldest && !atomic_load_explicit(&place->coming, memory_order_relaxed)) {
            oldest = since;
            neediest = i;
        }
    }
    return neediest;
}

/* ---- who wants room ---- */

/* Under the lock. */
static bool is_wanted(const struct budget *budget, int64_t now)
{
    return budget->want.since && budget->want.until > now;
}

bool budgets_squeezed(const struct daemon *daemon)
{
    return atomic_load_explicit(&daemon->squeezed_until, memory_order_relaxed) != 0;
}

/* Whether somebody wants room at all now; forgets that somebody did, when it is long ago. */
static bool squeezed_now(struct daemon *daemon, int64_t now)
{
    int64_t until = atomic_load(&daemon->squeezed_until);
    if (until && until < now)
        atomic_compare_exchange_strong(&daemon->squeezed_until, &until, 0);
    return until >= now;
}

bool budget_take_fairly(struct daemon *daemon, struct budget *budget, int64_t since, int64_t now)
{
    if (!budgets_squeezed(daemon) || !squeezed_now(daemon, now))
        return budget_take(budget);
    pthread_mutex_lock(&daemon->budgets_lock);
    bool wanted = is_wanted(budget, now), first = wanted && since <= budget->want.since;
    int keep = wanted && !first; /* a place for who comes first */
    int limit = atomic_load(&budget->limit);
    bool taken = budget_take_up_to(budget, limit - keep);
    if (taken && first)
        budget->want = (struct want){0};
    pthread_mutex_unlock(&daemon->budgets_lock);
    return taken;
}

void budget_want(struct daemon *daemon, struct budget *budget, const struct budget *pool,
                 int worker, int64_t since, int64_t now)
{
    struct want *want = &budget->want;
    pthread_mutex_lock(&daemon->budgets_lock);
    bool own = want->pool == pool && want->worker == worker;
    if (!is_wanted(budget, now) || own || since < want->since)
        *want = (struct want){since, now + WANT_US, worker, pool, false};
    atomic_store(&daemon->squeezed_until, now + WANT_US);
    pthread_mutex_unlock(&daemon->budgets_lock);
}

void budget_unwant(struct daemon *daemon, struct budget *budget, const struct budget *pool,
                   int worker)
{
    pthread_mutex_lock(&daemon->budgets_lock);
    if (budget->want.pool == pool && budget->want.worker == worker)
        budget->want = (struct want){0};
    pthread_mutex_unlock(&daemon->budgets_lock);
}

int budget_yield(struct daemon *daemon, struct budget *budget, const struct budget *pool,
                 int64_t own, int64_t now)
{
    int worker = -1;
    if (!squeezed_now(daemon, now))
        return -1;
    pthread_mutex_lock(&daemon->budgets_lock);
    struct want *want = &budget->want;
    bool full = atomic_load(&budget->used) >= atomic_load(&budget->limit);
    if (is_wanted(budget, now) && !want->granted && want->pool != pool && full &&
        (!own || want->since < own - FAIR_US)) {
        want->granted = true;
        worker = want->worker;
    }
    pthread_mutex_unlock(&daemon->budgets_lock);
    return worker;
}

int budget_grant(struct daemon *daemon, struct budget *budget, int64_t now)
{
    int worker = -1;
    if (!squeezed_now(daemon, now))
        return -1;
    pthread_mutex_lock(&daemon->budgets_lock);
    struct want *want = &budget->want;
    if (is_wanted(budget, now) && !want->granted) {
        want->granted = true;
        worker = want->worker;
    }
    pthread_mutex_unlock(&daemon->budgets_lock);
    return worker;
}

void budgets_free(struct daemon *daemon)
{
    struct budget *budget, *next;
    HASH_ITER(hh, daemon->budgets, budget, next)
    {
        HASH_DEL(daemon->budgets, budget);
        free(budget->key);
        free(budget->places);
        free(budget);
    }
}
