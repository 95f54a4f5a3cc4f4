/* recovery.c: the recovery thread, and what other threads hand over to it. */
#include "proxy/recovery.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "pgshunt/arena.h"
#include "pgshunt/log.h"
#include "proxy/recovery_round.h"
#include "proxy/twophase_gid.h"
#include "proxy/worker.h"

#define ROUND_MIN_MS 50
#define ROUND_MAX_MS 5000
#define RETRY_MS 200 /* while something that was handed over is not finished */

/* Something prepared that was handed over. */
struct ward {
    struct ward *next;
    char gid[GID_SIZE];
    char *database, *shard;
    bool looked_for; /* since before the round under way began */
    bool left;       /* ... which could not finish it */
};

struct recovery {
    struct daemon *daemon;
    pthread_t thread;
    volatile sig_atomic_t stop;
    char said[SAID_SIZE]; /* the thread's own */

    pthread_mutex_t lock; /* guards the rest */
    pthread_cond_t changed;
    struct ward *wards;
    bool asked; /* a round is wanted now */
    bool round_done;
    struct recovery_counts counts;
};

/* ---- wards ---- */

static void free_ward(struct ward *ward)
{
    free(ward->database);
    free(ward->shard);
    free(ward);
}

void recovery_hand_over(struct recovery *recovery, const char *gid, const char *database,
                        const char *shard)
{
    struct ward *ward = mem_alloc(sizeof *ward);
    memcpy(ward->gid, gid, strlen(gid) + 1);
    ward->database = mem_strdup(database);
    ward->shard = mem_strdup(shard);
    pthread_mutex_lock(&recovery->lock);
    ward->next = recovery->wards;
    recovery->wards = ward;
    recovery->asked = true;
    pthread_cond_broadcast(&recovery->changed);
    pthread_mutex_unlock(&recovery->lock);
}

bool recovery_is_in_doubt(struct recovery *recovery, const char *gid)
{
    pthread_mutex_lock(&recovery->lock);
    struct ward *ward = recovery->wards;
    while (ward && strcmp(ward->gid, gid) != 0)
        ward = ward->next;
    pthread_mutex_unlock(&recovery->lock);
    return ward != NULL;
}

void recovery_counts(struct recovery *recovery, struct recovery_counts *counts)
{
    pthread_mutex_lock(&recovery->lock);
    *counts = recovery->counts;
    pthread_mutex_unlock(&recovery->lock);
}

static void look_for_wards(struct recovery *recovery)
{
    pthread_mutex_lock(&recovery->lock);
    recovery->asked = false;
    for (struct ward *ward = recovery->wards; ward; ward = ward->next) {
        ward->looked_for = true;
        ward->left = false;
    }
    pthread_mutex_unlock(&recovery->lock);
}

/* ---- what a round asks and tells ---- */

struct tour {
    struct recovery *recovery;
    const struct database *database;
};

static bool is_it(const struct ward *ward, const struct tour *tour, const char *gid,
                  const char *shard)
{
    return strcmp(ward->database, tour->database->name) == 0 && strcmp(ward->shard, shard) == 0 &&
           (!gid || strcmp(ward->gid, gid) == 0);
}

static bool is_handed_over(void *arg, const char *gid, const char *shard)
{
    struct tour *tour = arg;
    pthread_mutex_lock(&tour->recovery->lock);
    struct ward *ward = tour->recovery->wards;
    while (ward && !is_it(ward, tour, gid, shard))
        ward = ward->next;
    pthread_mutex_unlock(&tour->recovery->lock);
    return ward != NULL;
}

static void left(void *arg, const char *gid, const char *shard)
{
    struct tour *tour = arg;
    pthread_mutex_lock(&tour->recovery->lock);
    for (struct ward *ward = tour->recovery->wards; ward; ward = ward->next)
        if (is_it(ward, tour, gid, shard))
            ward->left = true;
    pthread_mutex_unlock(&tour->recovery->lock);
}

static void shard_is_clean(void *arg, const char *shard)
{
    struct tour *tour = arg;
    pthread_mutex_lock(&tour->recovery->lock);
    struct ward **at = &tour->recovery->wards;
    while (*at) {
        struct ward *ward = *at;
        if (is_it(ward, tour, NULL, shard) && ward->looked_for && !ward->left) {
            *at = ward->next;
            free_ward(ward);
        } else {
            at = &ward->next;
        }
    }
    pthread_mutex_unlock(&tour->recovery->lock);
}

/* Of a database or a shard that has left the configuration nobody will tell. */
static void drop_lost_wards(struct recovery *recovery, const struct topology *topology)
{
    pthread_mutex_lock(&recovery->lock);
    struct ward **at = &recovery->wards;
    while (*at) {
        struct ward *ward = *at;
        const struct database *database = topology_database(topology, ward->database);
        bool known = false;
        for (int i = 0; database && i < database->nshards; i++)
            known |= strcmp(database->shards[i].name, ward->shard) == 0;
        if (known) {
            at = &ward->next;
            continue;
        }
        log_event(LOG_WARNING,
                  "a prepared transaction is left behind on a shard that is no longer "
                  "configured",
                  LOG_S("gid", ward->gid), LOG_S("shard", ward->shard));
        *at = ward->next;
        free_ward(ward);
    }
    pthread_mutex_unlock(&recovery->lock);
}

/* ---- the thread ---- */

/* Returns how long to wait for the next one. */
static int64_t make_round(struct recovery *recovery)
{
    struct topology *topology = daemon_topology(recovery->daemon);
    struct tour tour = {.recovery = recovery};
    struct recovery_round round = {.stop = &recovery->stop,
                                   .is_handed_over = is_handed_over,
                                   .shard_is_clean = shard_is_clean,
                                   .left = left,
                                   .arg = &tour,
                                   .said = recovery->said};
    int64_t pause = topology->config->recover_after / 2;
    look_for_wards(recovery);
    drop_lost_wards(recovery, topology);
    for (int i = 0; i < topology->ndatabases && !recovery->stop; i++) {
        tour.database = &topology->databases[i];
        if (tour.database->nshards > 1)
            recovery_round(&round, topology->config, tour.database);
    }
    topology_unref(topology);
    pthread_mutex_lock(&recovery->lock);
    recovery->counts.committed += round.counts.committed;
    recovery->counts.rolled_back += round.counts.rolled_back;
    recovery->counts.in_doubt = round.counts.in_doubt;
    recovery->round_done = true;
    if (recovery->wards)
        pause = RETRY_MS;
    pthread_cond_broadcast(&recovery->changed);
    pthread_mutex_unlock(&recovery->lock);
    return pause < ROUND_MIN_MS ? ROUND_MIN_MS : pause > ROUND_MAX_MS ? ROUND_MAX_MS : pause;
}

/* Waits, under the lock, until *flag or the time is over. */
static void wait_for(struct recovery *recovery, const bool *flag, int64_t ms)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += ms / 1000;
    until.tv_nsec += (long)(ms % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    while (!*flag && !recovery->stop)
        if (pthread_cond_timedwait(&recovery->changed, &recovery->lock, &until) == ETIMEDOUT)
            break;
}

static void *run(void *arg)
{
    struct recovery *recovery = arg;
    pthread_setname_np(pthread_self(), "pgshunt-recover");
    log_thread_name("recovery");
    while (!recovery->stop) {
        int64_t pause = make_round(recovery);
        pthread_mutex_lock(&recovery->lock);
        wait_for(recovery, &recovery->asked, pause);
        pthread_mutex_unlock(&recovery->lock);
    }
    return NULL;
}

static void free_recovery(struct recovery *recovery)
{
    while (recovery->wards) {
        struct ward *next = recovery->wards->next;
        free_ward(recovery->wards);
        recovery->wards = next;
    }
    pthread_cond_destroy(&recovery->changed);
    pthread_mutex_destroy(&recovery->lock);
    free(recovery);
}

struct recovery *recovery_start(struct daemon *daemon, int wait_ms)
{
    struct recovery *recovery = mem_alloc(sizeof *recovery);
    pthread_condattr_t attributes;
    recovery->daemon = daemon;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_mutex_init(&recovery->lock, NULL);
    pthread_cond_init(&recovery->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    if (pthread_create(&recovery->thread, NULL, run, recovery) != 0) {
        free_recovery(recovery);
        return NULL;
    }
    pthread_mutex_lock(&recovery->lock);
    wait_for(recovery, &recovery->round_done, wait_ms);
    pthread_mutex_unlock(&recovery->lock);
    return recovery;
}

void recovery_stop(struct recovery *recovery)
{
    if (!recovery)
        return;
    pthread_mutex_lock(&recovery->lock);
    recovery->stop = 1;
    pthread_cond_broadcast(&recovery->changed);
    pthread_mutex_unlock(&recovery->lock);
    pthread_join(recovery->thread, NULL);
    free_recovery(recovery);
}
