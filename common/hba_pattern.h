/*
 * hba_pattern.h: regular expressions in pg_hba.conf and pg_ident.conf. They are POSIX extended ones of the C
 * library, which are what PostgreSQL's are, but for escapes like \d: those are refused when a file is read, so
 * that none ever means something else than there.
 */
#ifndef PGSHUNT_HBA_PATTERN_H
#define PGSHUNT_HBA_PATTERN_H

#include <stdbool.h>
#include <stddef.h>

#define PATTERN_GROUP_MAX 256

/* False: `why` says what is wrong with it. */
bool pattern_check(const char *pattern, bool *has_group, char *why, size_t size);
/* `group`, if not NULL, gets what the first group has matched, "" for nothing. False: no match, or the group's
 * text is longer than PATTERN_GROUP_MAX - 1. */
bool pattern_matches(const char *pattern, const char *text, char *group);

#endif
