/* attempt.h: DDL beside a working application: it waits shortly for its locks, gives way, and tries again. */
#ifndef PGSHUNT_PARTITION_ATTEMPT_H
#define PGSHUNT_PARTITION_ATTEMPT_H

#include "partition/work.h"

/*
 * Runs the statements (one transaction, but for those that cannot be in one) until they get their locks within lock_timeout, as
 * often as call->tries, with pauses that grow, so that nobody who waits behind them waits for longer. False: the shard's error,
 * which names who is in the way where it was locks; a transaction that was begun before is rolled back then.
 *
 * `oids`: of the tables whose locks are wanted, as an array of SQL ("{1,2}").
 */
MUST_CHECK bool attempt(struct shard_work *shard, const char *sql, const char *oids);
/* ... that may take so long when they have them. */
MUST_CHECK bool attempt_within(struct shard_work *shard, const char *sql, const char *oids,
                               int64_t ms);
/* Whether the error is that of locks that others had. */
bool attempt_was_locks(const struct db_error *error);

/* For those who have something to do between one try and the next. */

/* One try, within `ms` from the first lock to the last statement; else SQLSTATE 57014. False: the shard's error. */
MUST_CHECK bool attempt_once(struct shard_work *shard, const char *sql, int ms);
/* The pause after so many tries. */
void attempt_rest(const struct work *work, int times);
/* How many there are to be. */
int attempt_tries(const struct work *work);
/* Puts into the shard's error who is in the way. */
void attempt_blame(struct shard_work *shard, const char *oids);

#endif
