/*
 * guard.h: partitions attached beside a large default one, which is not read under a strong lock.
 *
 * The server attaches without reading the default partition where a validated CHECK says that it has no row of the range. A plain one
 * would refuse the rows that come while it is validated. So this one lets them in, and counts them:
 *
 *   CHECK (key < from OR key >= to OR (pgshunt.partition_lets() AND pgshunt.partition_stray()))
 *
 * partition_lets() is true but in the session that sets pgshunt.attaching, where the server, which takes it for a constant, is left with
 * what the others have kept to: whoever attaches has seen to it, with writers kept away, that no row of the range is there.
 */
#ifndef PGSHUNT_PARTITION_GUARD_H
#define PGSHUNT_PARTITION_GUARD_H

#include "partition/look.h"

#define GUARD_NAME "pgshunt_attach"

struct guard {
    struct shard_work *shard;
    const char *rest;   /* the default partition, quoted */
    const char *column; /* quoted */
    const char *oids;   /* of it and its parent, for who is in the way */
    bool on;            /* the CHECK is there and validated */
    bool clean;         /* no row of the range was there then */
    bool marked;        /* one is there, now or from a run that was killed */
    char count[24];     /* how many rows of the range had come until then */
};

/*
 * Makes and validates the CHECK that no row is from `from` to `to` (as literals), if the default partition is large enough to be worth it.
 * Whether it did: guard->on; where it could not, partitions are attached as without it. guard_end() in any case.
 */
void guard_begin(struct guard *guard, const char *from, const char *to);
/*
 * Statements for a transaction that holds writers off: see to it that no row of this part of the range is there, by `move` ("": rows that are
 * there are an error) if some have come, and let the server attach without reading.
 */
const char *guard_clear_text(const struct guard *guard, const char *from, const char *to,
                             const char *move);
const char *guard_drop_text(const struct guard *guard);
/* Drops it where it is still there: what cannot be done now is done by the next run, and hurts nobody meanwhile. */
void guard_end(struct guard *guard);

#endif
