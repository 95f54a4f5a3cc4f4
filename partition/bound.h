/*
 * bound.h: boundaries of partitions as points of one line, and as the text that Postgres has them in.
 *
 * What a point is depends on the column that the table is partitioned by (its *control*):
 *   microseconds since 2000-01-01 00:00 UTC   timestamptz, epochs in integers, UUIDs of version 7, ULIDs
 *   ... of a calendar without a zone          timestamp, date, text that begins with an ISO date
 *   the number itself                         ids
 * so that partitions of any column are put in order, compared and cut with the same few functions. Pure.
 */
#ifndef PGSHUNT_PARTITION_BOUND_H
#define PGSHUNT_PARTITION_BOUND_H

#include "partition/interval.h"

enum control {
    CONTROL_TIMESTAMPTZ,
    CONTROL_TIMESTAMP,
    CONTROL_DATE,
    CONTROL_ID,
    CONTROL_SECONDS, /* integers: since 1970-01-01 00:00 UTC */
    CONTROL_MILLISECONDS,
    CONTROL_MICROSECONDS,
    CONTROL_UUID7,
    CONTROL_ULID, /* text */
    CONTROL_TEXT, /* text that begins with YYYY-MM-DD */
};
#define CONTROLS (CONTROL_TEXT + 1)

/* MINVALUE, -infinity; MAXVALUE, infinity. */
#define BOUND_LEAST INT64_MIN
#define BOUND_MOST INT64_MAX

/* Values in [from, to). */
struct bound_range {
    int64_t from, to;
};

/* As a policy has it: "timestamptz", "seconds", "uuid7". */
const char *control_name(enum control control);
MUST_CHECK bool control_by_name(const char *name, enum control *control);
/* The control of a column of this type ("bigint", "timestamp with time zone"); `said`: NULL, or what the user wants integers
 * and text to be ("seconds", "ulid"). False: it is none. */
MUST_CHECK bool control_of_type(const char *type, const char *said, enum control *control);
/* Its points are moments: where a day begins depends on the time zone. */
bool control_is_instant(enum control control);
/* Whether the points of the grid can be told apart in the column. NULL: they can; else why not, for people. */
const char *control_refuses(enum control control, const struct interval *interval);

#define BOUND_TEXT 64
/* The value, as FOR VALUES takes it between quotes. False: the column cannot hold it (an integer that is too
 * small, a year before 1). `width`: of an integer column, in bytes; else 0. */
MUST_CHECK bool bound_print(enum control control, int width, int64_t point, char text[BOUND_TEXT]);
/* The reverse, of what pg_get_expr() prints with TimeZone UTC and DateStyle ISO. False: it is no value like that. */
MUST_CHECK bool bound_read(enum control control, const char *text, int64_t *point);
/* "FOR VALUES FROM ('...') TO ('...')" of one column. False: it is no such bound. */
MUST_CHECK bool bound_read_range(enum control control, const char *text, struct bound_range *range);

#endif
