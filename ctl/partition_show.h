/* partition_show.h: how `pgshuntctl partition list` and `show` look. */
#ifndef PGSHUNT_CTL_PARTITION_SHOW_H
#define PGSHUNT_CTL_PARTITION_SHOW_H

#include "ctl/ctl.h"
#include "pgshunt/partition.h"

/* `one`: of a table that was named; `details`: with partitions. */
void partition_show(const struct ctl *ctl, const struct partition_survey *survey, bool one,
                    bool details);

#endif
