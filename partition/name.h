/*
 * name.h: what partitions are called: TABLE_p20260301, or as a policy's format says. Pure.
 *
 * Formats: %Y %m %d %H %M (year, month, day, hour, minute), %G %V (ISO year and week), %q (quarter), %i (the number), %%.
 */
#ifndef PGSHUNT_PARTITION_NAME_H
#define PGSHUNT_PARTITION_NAME_H

#include "partition/interval.h"

#define NAME_SIZE 64 /* Postgres' NAMEDATALEN */

/* The format for partitions of this width: "_p%Y%m%d", "_p%Y%m%d_%H%M", "_p%i". */
const char *name_usual_format(const struct interval *interval);
/* NULL: it tells all partitions of that width apart; else why not, for people. */
const char *name_refuses(const char *format, const struct interval *interval);
/*
 * The name of the partition that begins at `begin` (a local time, or a number). It fits into 63 bytes: of a table's name
 * that is too long the end gives way to a hash of all of it, so that no two tables' partitions have the same name.
 */
void name_of(const char *table, const char *format, const struct interval *interval, int64_t begin,
             char name[NAME_SIZE]);

#endif
