/*
 * recovery.h: the thread that finishes what two-phase commits have left behind.
 *
 * Each round it asks every shard's primary for prepared transactions that are named as ours (also of other
 * proxies, which may have died) and that are older than routing.recover_after, or were handed over. Such a
 * one is resolved by racing for its decision: 'rolled back' is inserted under its name on the deciding shard.
 * Where the name is taken by 'committed' it is committed; else it is rolled back, and a coordinator that is
 * still alive can no longer commit it. Decisions are deleted when no shard has anything prepared under
 * their name.
 */
#ifndef PGSHUNT_PROXY_RECOVERY_H
#define PGSHUNT_PROXY_RECOVERY_H

#include <stdbool.h>

struct daemon;
struct recovery;

struct recovery_counts {
    unsigned long long committed, rolled_back; /* prepared transactions finished, since start */
    unsigned long long in_doubt;               /* prepared ones that wait for it now */
};

/* NULL: no thread. The first round is over within wait_ms, or goes on behind. */
struct recovery *recovery_start(struct daemon *daemon, int wait_ms);
void recovery_stop(struct recovery *recovery); /* joins and frees; NULL is ignored */
/* The rest of these is thread-safe. */
/* What is prepared under that name on that shard is to be finished without waiting for its age. */
void recovery_hand_over(struct recovery *recovery, const char *gid, const char *database,
                        const char *shard);
/* Something of it that was handed over is not finished. */
bool recovery_is_in_doubt(struct recovery *recovery, const char *gid);
void recovery_counts(struct recovery *recovery, struct recovery_counts *counts);

#endif
