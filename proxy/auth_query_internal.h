/* auth_query_internal.h: what auth_query.c (what is known) and auth_query_thread.c (asking) share. */
#ifndef PGSHUNT_PROXY_AUTH_QUERY_INTERNAL_H
#define PGSHUNT_PROXY_AUTH_QUERY_INTERNAL_H

#include <pthread.h>
#include <uthash.h>
#include <uv.h>

#include "proxy/auth_query.h"

/* A client that waits for an answer. */
struct waiter {
    struct waiter *next;
    struct worker *worker;
    int32_t client; /* its cancel pid */
    uint64_t ticket;
};

/* What is known of one user of one database, or of one address. */
struct entry {
    struct entry *next; /* queue to the thread, then of the seat */
    const char *user;   /* into key */
    enum look_up_kind kind;
    enum look_up outcome;
    char *secret; /* owned; NULL unless FOUND */
    int64_t fetched_at, expires_at;
    bool pending;           /* the thread has it in hand: it must not be freed */
    bool stale;             /* pending: the answer is for those who wait now, and not to be kept */
    struct waiter *waiters; /* owned */
    UT_hash_handle hh;      /* query->entries, by key */
    char key[]; /* "database\0user\0", with ROLES "database\0user\0+", HOST "\0address\0" */
};

struct seat;

struct auth_query {
    pthread_t thread;
    uv_loop_t loop;
    uv_async_t wake;           /* the only handle other threads touch */
    uv_timer_t tick;           /* closes connections that are not used */
    struct topology *topology; /* a reference; the thread's */
    struct seat *seats;        /* the thread's */
    struct entry *hosts;       /* the thread's: addresses to look up */
    int hosts_running;         /* the thread's: look-ups of addresses in libuv's pool */
    bool stopped;              /* the thread's: nobody wants answers any more */

    pthread_mutex_t lock; /* guards the rest */
    struct entry *entries;
    struct entry *asked, *asked_last; /* for the thread to take */
    int64_t cache_us;
    struct topology *next_topology; /* a reference, to be taken over; or NULL */
    bool stop;
};

bool auth_query_thread_start(struct auth_query *query);
void auth_query_thread_stop(struct auth_query *query); /* joins */
/* The thread has an answer. `valid_us`: how long it is valid, -1: for ever. */
void auth_query_answer(struct auth_query *query, struct entry *entry, enum look_up outcome,
                       const char *secret, int64_t valid_us);

/* Begins to look for the name of an address; auth_query_answer() follows. */
void auth_query_find_host(struct auth_query *query, struct entry *entry);
/* Drops what is not believed any more. */
void auth_query_sweep(struct auth_query *query, int64_t now);

#endif
