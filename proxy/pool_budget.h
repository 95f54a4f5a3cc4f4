/*
 * pool_budget.h: counts that all workers share, and their limits: server connections of one pool, of one
 * node, database, user and of the process; clients of one database and one user.
 *
 * Taking and giving back is an atomic each. What is rare, that a limit keeps somebody waiting whom other
 * pools should make room for, is a note in the budget (struct want) behind daemon->budgets_lock; it is
 * written anew as long as it holds and goes stale by itself. daemon->squeezed_until tells without a lock
 * that there may be one.
 *
 * A pool's budget also has a place for each worker, where the worker says how long its first client has
 * waited and how many servers it has idle. A worker writes its own place only.
 */
#ifndef PGSHUNT_PROXY_POOL_BUDGET_H
#define PGSHUNT_PROXY_POOL_BUDGET_H

#include <limits.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <uthash.h>

struct daemon;

#define BUDGET_UNLIMITED INT_MAX

/* One worker's part of a pool, on a cache line of its own. */
struct budget_place {
    _Alignas(64) _Atomic int64_t waiting_since; /* of its first client, clock_us; 0: none waits */
    atomic_int idle;
    atomic_bool coming; /* a server is on its way there */
    atomic_bool asked;  /* somebody has asked it for an idle one */
};

/* Who is kept waiting by a limit. */
struct want {
    int64_t since; /* its first client waits since; 0: nobody wants */
    int64_t until; /* stale after */
    int worker;
    const struct budget *pool; /* whose clients wait */
    bool granted;              /* a connection was closed for it */
};

struct budget {
    char *key;
    const char *setting; /* "limits.max_server_connections": what clients are told */
    atomic_int limit;
    atomic_int used; /* servers of all workers, starting ones included; or clients */
    struct want want;
    atomic_int reserve;          /* pools: beyond the limit for who waits long */
    atomic_int waiting_workers;  /* pools: places with somebody waiting */
    struct budget_place *places; /* pools: one for each worker */
    int nplaces;
    int stuck; /* for pool_deadlock.c, under the lock */
    UT_hash_handle hh;
};

/* Made on demand; lives as long as the process. `places`: of a pool. */
struct budget *budget_get(struct daemon *daemon, const char *key, bool places, const char *setting);
/* limit 0: none. */
void budget_set_limit(struct budget *budget, int64_t limit);
/* One more, if there are fewer than `most`. */
bool budget_take_up_to(struct budget *budget, int most);
bool budget_take(struct budget *budget);
void budget_give(struct budget *budget);
/* The worker whose first client has waited so much longer than since `own` (0: nobody waits here) that a
 * server should go there; -1: none. */
int budget_neediest(const struct budget *budget, int self, int64_t own);
void budget_waiting(struct budget *budget, int self, int64_t since);

/* As budget_take, but leaves the last place to somebody who has wanted it for longer. */
bool budget_take_fairly(struct daemon *daemon, struct budget *budget, int64_t since, int64_t now);
/* A pool would have one more on this worker, for a client that waits since. */
void budget_want(struct daemon *daemon, struct budget *budget, const struct budget *pool,
                 int worker, int64_t since, int64_t now);
/* It has none waiting any more. */
void budget_unwant(struct daemon *daemon, struct budget *budget, const struct budget *pool,
                   int worker);
/* Whether a pool whose first client waits since `own` (0: nobody waits) should close one for the sake of
 * another. The worker to tell once it is, -1: no. Granted once for each want. */
int budget_yield(struct daemon *daemon, struct budget *budget, const struct budget *pool,
                 int64_t own, int64_t now);
/* A place has come free without a yield: the worker to tell, -1: nobody. Granted once for each want. */
int budget_grant(struct daemon *daemon, struct budget *budget, int64_t now);
/* Whether there may be a want at all: no lock, no clock. */
bool budgets_squeezed(const struct daemon *daemon);
void budgets_free(struct daemon *daemon);

#endif
