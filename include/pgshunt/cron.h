/*
 * cron.h: times of the day, week and month as crontab(5) writes them: minute hour day month weekday. Pure.
 *
 * Fields take numbers, names of months and weekdays, lists, ranges and steps; @hourly, @daily, @weekly and @monthly stand for
 * what they do there. Where day and weekday are both said, either will do. 
 */
#ifndef PGSHUNT_CRON_H
#define PGSHUNT_CRON_H

#include <stdbool.h>
#include <stdint.h>

#include "pgshunt/error.h"

/* A bit for each value that is meant. */
struct cron {
    uint64_t minutes, hours, days, months, weekdays; /* weekday 0: Sunday */
    bool any_day, any_weekday;
};

/* False: it is no such text. */
MUST_CHECK bool cron_parse(const char *text, struct cron *cron);
#endif
