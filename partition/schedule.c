/* schedule.c: when a run was to be, and whether it has been. */
#include "partition/schedule.h"

#include <stdlib.h>

#include "partition/interval.h"
#include "partition/policy.h"

static bool has(uint64_t bits, int value)
{
    return bits >> value & 1;
}

/* 2000-01-01 was a Saturday. */
static int weekday_of(int64_t local)
{
    int64_t days = local / USECS_OF_DAY - (local % USECS_OF_DAY < 0);
    return (int)(((days + 6) % 7 + 7) % 7);
}

static bool is_day(const struct cron *cron, int64_t local, const struct civil *civil)
{
    bool day = has(cron->days, civil->day), weekday = has(cron->weekdays, weekday_of(local));
    bool fits = cron->any_day || cron->any_weekday ? day && weekday : day || weekday;
    return fits && has(cron->months, civil->month);
}

#define DAYS_BACK (4 * 366)

bool cron_before(const struct cron *cron, int64_t local, int64_t *found)
{
    for (int i = 0; i < DAYS_BACK; i++) {
        struct civil civil = civil_of(local);
        int64_t midnight = local - (local % USECS_OF_DAY + USECS_OF_DAY) % USECS_OF_DAY;
        int64_t last = (local - midnight) / USECS_OF_MINUTE;
        for (int64_t at = last; at >= 0 && is_day(cron, local, &civil); at--)
            if (has(cron->hours, (int)(at / 60)) && has(cron->minutes, (int)(at % 60))) {
                *found = midnight + at * USECS_OF_MINUTE;
                return true;
            }
        local = midnight - USECS_OF_MINUTE;
    }
    return false;
}

/* ---- whether a run is due ---- */

/* When the last run began; BOUND_LEAST: there was none. */
static bool last_run(struct work *work, int64_t *began)
{
    PGresult *rows = db_query(work->catalog, WORK_QUERY_MS, &work->error,
                              "SELECT (extract(epoch FROM max(started_at) - "
                              "'2000-01-01 00:00+00'::timestamptz) * 1000000)::bigint "
                              "FROM pgshunt.partition_run WHERE database = $1",
                              1, work->database->name);
    *began = BOUND_LEAST;
    if (rows && !PQgetisnull(rows, 0, 0))
        *began = strtoll(PQgetvalue(rows, 0, 0), NULL, 10);
    PQclear(rows);
    return rows != NULL;
}

bool schedule_is_due(struct work *work, const struct cron *cron)
{
    struct policy *policies;
    int count;
    int64_t began, meant;
    if (!policy_read(work, &policies, &count) || (count && !last_run(work, &began)))
        return work_fails(work, -1, NULL, "cannot read the policies", &work->error);
    return count && cron_before(cron, work->now, &meant) && began < meant;
}

bool partition_is_due(const struct partition_call *call, const struct cron *cron)
{
    struct work work;
    bool due = work_begin(&work, call) && schedule_is_due(&work, cron);
    work_end(&work);
    return due;
}
