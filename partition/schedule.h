/* schedule.h: when a run is due. */
#ifndef PGSHUNT_PARTITION_SCHEDULE_H
#define PGSHUNT_PARTITION_SCHEDULE_H

#include <stdbool.h>
#include <stdint.h>

#include "partition/work.h"
#include "pgshunt/cron.h"

/* The latest time that is meant, not after the time `local` (interval.h). False: there is none in the four years before. */
MUST_CHECK bool cron_before(const struct cron *cron, int64_t local, int64_t *found);
/* As partition_is_due(), of a call at work. */
MUST_CHECK bool schedule_is_due(struct work *work, const struct cron *cron);

#endif
