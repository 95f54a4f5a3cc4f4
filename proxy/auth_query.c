/* auth_query.c: what is known of users that were looked up, and who waits for what is not. */
#include "proxy/auth_query_internal.h"

#include <stdlib.h>
#include <string.h>

#include "pgshunt/arena.h"
#include "proxy/client_auth.h"
#include "proxy/credentials.h"
#include "proxy/worker.h"

#define ABSENT_US 2000000  /* how long an absent user is believed to be absent */
#define FAILED_US 1000000  /* ... and that nobody can be asked */
#define ENTRIES_MAX 100000 /* more names than that are not remembered */

void looked_up_release(struct looked_up *found)
{
    credential_free_secret(found->secret);
    found->secret = NULL;
}

/* ---- entries, under the lock ---- */

static struct entry *entry_get(struct auth_query *query, enum look_up_kind kind,
                               const char *database, const char *user)
{
    size_t head = strlen(database) + 1, length = strlen(user) + 1,
           size = head + length + (kind == LOOK_UP_ROLES);
    struct entry *fresh = mem_alloc(sizeof *fresh + head + length + 1), *entry;
    memcpy(fresh->key, database, head);
    memcpy(fresh->key + head, user, length);
    fresh->key[head + length] = '+';
    HASH_FIND(hh, query->entries, fresh->key, size, entry);
    if (entry) {
        free(fresh);
        return entry;
    }
    fresh->user = fresh->key + head;
    fresh->kind = kind;
    fresh->outcome = LOOK_UP_FAILED;
    HASH_ADD(hh, query->entries, key, size, fresh);
    return fresh;
}

static void entry_free(struct auth_query *query, struct entry *entry)
{
    HASH_DEL(query->entries, entry);
    credential_free_secret(entry->secret);
    free(entry);
}

/* Entries that somebody waits for stay: the thread has them in hand. */
static void forget_all(struct auth_query *query, int64_t expired_at)
{
    struct entry *entry, *next;
    HASH_ITER(hh, query->entries, entry, next)
    {
        if (entry->pending)
            entry->stale = expired_at == INT64_MAX || entry->stale;
        else if (entry->expires_at <= expired_at)
            entry_free(query, entry);
    }
}

static void fill(const struct entry *entry, struct looked_up *found)
{
    found->outcome = entry->outcome;
    found->fetched_at = entry->fetched_at;
    found->secret = entry->secret ? mem_strdup(entry->secret) : NULL;
}

/* ---- answers to those who wait ---- */

struct answer {
    struct message message;
    int32_t client;
    uint64_t ticket;
    struct looked_up found;
};

static void run_answer(struct worker *worker, struct message *message)
{
    struct answer *answer = (struct answer *)message;
    client_auth_looked_up(worker, answer->client, answer->ticket, &answer->found);
    looked_up_release(&answer->found);
    free(answer);
}

static void drop_answer(struct message *message)
{
    looked_up_release(&((struct answer *)message)->found);
    free(message);
}

static void tell(const struct entry *entry, const struct waiter *waiter)
{
    struct answer *answer = mem_alloc(sizeof *answer);
    answer->message.run = run_answer;
    answer->message.drop = drop_answer;
    answer->client = waiter->client;
    answer->ticket = waiter->ticket;
    fill(entry, &answer->found);
    worker_post(waiter->worker, &answer->message);
}

static void tell_all(struct entry *entry)
{
    while (entry->waiters) {
        struct waiter *waiter = entry->waiters;
        entry->waiters = waiter->next;
        tell(entry, waiter);
        free(waiter);
    }
}

static int64_t believed_for(const struct entry *entry, int64_t valid_us, int64_t cache_us)
{
    if (entry->outcome == LOOK_UP_FAILED)
        return FAILED_US;
    if (entry->outcome == LOOK_UP_ABSENT)
        return ABSENT_US < cache_us || entry->kind == LOOK_UP_HOST ? ABSENT_US : cache_us;
    if (entry->kind == LOOK_UP_HOST)
        return valid_us;
    return valid_us >= 0 && valid_us < cache_us ? valid_us : cache_us;
}

void auth_query_answer(struct auth_query *query, struct entry *entry, enum look_up outcome,
                       const char *secret, int64_t valid_us)
{
    pthread_mutex_lock(&query->lock);
    credential_free_secret(entry->secret);
    entry->secret = secret ? mem_strdup(secret) : NULL;
    entry->outcome = outcome;
    entry->fetched_at = clock_us();
    entry->expires_at =
        entry->stale ? 0 : entry->fetched_at + believed_for(entry, valid_us, query->cache_us);
    entry->pending = entry->stale = false;
    tell_all(entry);
    if (HASH_COUNT(query->entries) > ENTRIES_MAX)
        forget_all(query, INT64_MAX - 1);
    pthread_mutex_unlock(&query->lock);
}

void auth_query_sweep(struct auth_query *query, int64_t now)
{
    pthread_mutex_lock(&query->lock);
    forget_all(query, now);
    pthread_mutex_unlock(&query->lock);
}

/* ---- what workers call ---- */

bool auth_query_applies(const struct config *config, const struct database_config *database)
{
    return database && (config->auth_query_user[0] || database->auth_query_user[0]);
}

static void wait_for(struct entry *entry, struct worker *worker, int32_t client, uint64_t ticket)
{
    struct waiter *waiter = mem_alloc(sizeof *waiter);
    *waiter = (struct waiter){entry->waiters, worker, client, ticket};
    entry->waiters = waiter;
}

static bool is_good(const struct entry *entry, int64_t newer_than)
{
    return !entry->pending && entry->fetched_at > newer_than && entry->expires_at > clock_us();
}

/* To the end of the thread's queue. */
static void ask_thread(struct auth_query *query, struct entry *entry)
{
    entry->pending = true;
    entry->next = NULL;
    if (query->asked_last)
        query->asked_last->next = entry;
    else
        query->asked = entry;
    query->asked_last = entry;
    uv_async_send(&query->wake);
}

void auth_query_find(struct auth_query *query, struct worker *worker, int32_t client,
                     uint64_t ticket, enum look_up_kind kind, const char *database,
                     const char *user, int64_t newer_than, struct looked_up *found)
{
    *found = (struct looked_up){.outcome = LOOK_UP_WAITING};
    pthread_mutex_lock(&query->lock);
    struct entry *entry = entry_get(query, kind, database, user);
    if (is_good(entry, newer_than)) {
        fill(entry, found);
    } else {
        wait_for(entry, worker, client, ticket);
        if (!entry->pending)
            ask_thread(query, entry);
    }
    pthread_mutex_unlock(&query->lock);
}

void auth_query_forget(struct auth_query *query, const char *database, const char *user)
{
    pthread_mutex_lock(&query->lock);
    struct entry *entry = entry_get(query, LOOK_UP_SECRET, database, user);
    if (entry->pending)
        entry->stale = true;
    else
        entry_free(query, entry);
    pthread_mutex_unlock(&query->lock);
}

void auth_query_set_topology(struct auth_query *query, struct topology *topology)
{
    pthread_mutex_lock(&query->lock);
    if (query->next_topology)
        topology_unref(query->next_topology);
    query->next_topology = topology_ref(topology);
    forget_all(query, INT64_MAX);
    uv_async_send(&query->wake);
    pthread_mutex_unlock(&query->lock);
}

/* ---- life ---- */

struct auth_query *auth_query_start(struct topology *topology)
{
    struct auth_query *query = mem_alloc(sizeof *query);
    pthread_mutex_init(&query->lock, NULL);
    query->topology = topology_ref(topology);
    query->cache_us = topology->config->auth_query_cache * 1000;
    if (auth_query_thread_start(query))
        return query;
    topology_unref(query->topology);
    pthread_mutex_destroy(&query->lock);
    free(query);
    return NULL;
}

void auth_query_stop(struct auth_query *query)
{
    struct entry *entry, *next;
    if (!query)
        return;
    auth_query_thread_stop(query);
    HASH_ITER(hh, query->entries, entry, next)
    {
        while (entry->waiters) {
            struct waiter *waiter = entry->waiters;
            entry->waiters = waiter->next;
            free(waiter);
        }
        entry_free(query, entry);
    }
    if (query->next_topology)
        topology_unref(query->next_topology);
    topology_unref(query->topology);
    pthread_mutex_destroy(&query->lock);
    free(query);
}
