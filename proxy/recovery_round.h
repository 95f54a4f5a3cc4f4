/*
 * recovery_round.h: one look at the shards of one database. Everything runs on the recovery thread and may block;
 * what other threads hand over stays with recovery.c.
 */
#ifndef PGSHUNT_PROXY_RECOVERY_ROUND_H
#define PGSHUNT_PROXY_RECOVERY_ROUND_H

#include <signal.h>
#include <stdbool.h>

#include "proxy/recovery.h"
#include "proxy/topology.h"

struct recovery_round {
    const volatile sig_atomic_t *stop;
    /* Whether what `decision` (a gid of one) is about was handed over: then its age does not matter. */
    bool (*is_handed_over)(void *arg, const char *decision, const char *shard);
    /* It is still prepared there; then, after all of these: nothing else is that was handed over. */
    void (*left)(void *arg, const char *decision, const char *shard);
    void (*shard_is_clean)(void *arg, const char *shard);
    void *arg;
    char *said; /* what was logged last, so as not to repeat it; SAID_SIZE */
    struct recovery_counts counts;
};

#define SAID_SIZE 512

/* Makes tables that are not there, finishes what was left behind, deletes what is no longer needed. */
void recovery_round(struct recovery_round *round, const struct config *config,
                    const struct database *database);

#endif
