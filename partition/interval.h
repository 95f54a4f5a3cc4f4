/*
 * interval.h: how wide a policy's partitions are ("1month", "15 minutes", "100000"), and the grid that they lie on.
 *
 * The grid hangs on the interval alone, never on when a policy began, so that every shard and every run finds the same
 * boundaries. Times are microseconds since 2000-01-01 00:00, of a calendar without zones ("local"). Pure.
 *
 *   minute, hour             steps of fixed length from `anchor`
 *   day, week                steps of days from Monday 2000-01-03: weeks are ISO weeks
 *   month, quarter, year     steps of months from 2000-01: quarters begin in January, April, July, October
 *   (a number)               multiples of it
 */
#ifndef PGSHUNT_PARTITION_INTERVAL_H
#define PGSHUNT_PARTITION_INTERVAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pgshunt/error.h"

enum interval_unit { UNIT_NUMBER, UNIT_MINUTE, UNIT_HOUR, UNIT_DAY, UNIT_MONTH };

/* Weeks are 7 days, quarters 3 months, years 12. */
struct interval {
    enum interval_unit unit;
    int64_t count; /* above 0 */
};

#define INTERVAL_TEXT 48
#define USECS_OF_MINUTE INT64_C(60000000)
#define USECS_OF_HOUR (60 * USECS_OF_MINUTE)
#define USECS_OF_DAY (24 * USECS_OF_HOUR)
/* Monday 2000-01-03. */
#define INTERVAL_ANCHOR (2 * USECS_OF_DAY)

/* "1month", "3 months", "2w", "100000". False: it is none, or longer than a thousand years. */
MUST_CHECK bool interval_parse(const char *text, struct interval *interval);
/* As interval_parse() takes it, in the largest unit that fits: "1 month", "2 weeks". */
const char *interval_print(const struct interval *interval, char text[INTERVAL_TEXT]);
/* Steps of a fixed length, that a change of the clocks does not make longer or shorter. */
bool interval_is_fixed(const struct interval *interval);
/* The boundary at or below `value`; of fixed steps and numbers `anchor` is one (numbers: 0). */
int64_t interval_floor(const struct interval *interval, int64_t anchor, int64_t value);
/* The boundary `steps` steps behind (or before) the boundary `from`. */
int64_t interval_step(const struct interval *interval, int64_t from, int64_t steps);
/* `value` less the interval, as a calendar has it: a month before March 31 is the last of February. */
int64_t interval_before(const struct interval *interval, int64_t value);
/* Whether the first is shorter than the second, by their usual lengths. */
bool interval_shorter(const struct interval *a, const struct interval *b);

/* ---- the calendar ---- */

struct civil {
    int year, month, day, hour, minute, second, usec;
};

struct civil civil_of(int64_t local);
int64_t civil_local(const struct civil *civil);
/* The ISO week's number and year. */
void civil_week(int64_t local, int *year, int *week);
/* "2026-03-01", "2026-03-01 12:00", "2026-03-01 12:00:05.25": with a T as well. Behind it nothing; *rest (may
 * be NULL: nothing may follow) is what follows. */
MUST_CHECK bool civil_read(const char *text, int64_t *local, const char **rest);
#define CIVIL_TEXT 48
/* "2026-03-01 00:00:00", with microseconds where there are any. Years before 1 are not printed: "". */
const char *civil_print(int64_t local, char text[CIVIL_TEXT]);

#endif
