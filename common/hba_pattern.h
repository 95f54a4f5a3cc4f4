/*
 * hba_pattern.h: regular expressions in pg_hba.conf and pg_ident.conf, matched by PCRE2. They are what those of
 * PostgreSQL and Perl have in common: what only one of the two knows, or what they read differently, is refused
 * when a file is read, so that no pattern ever means something else than there. As in PostgreSQL's own hba files,
 * a character is a byte.
 */
#ifndef PGSHUNT_HBA_PATTERN_H
#define PGSHUNT_HBA_PATTERN_H

#include <stdbool.h>
#include <stddef.h>

#include "pgshunt/arena.h"

#define PATTERN_GROUP_MAX 256

struct pattern;

/* FAILED: nobody knows, since it would take too long; who asked must say no. */
enum pattern_answer { PATTERN_NO, PATTERN_YES, PATTERN_FAILED };

/* In the arena, with everything that belongs to it, and for any thread. NULL: `why` says what is wrong with it. */
struct pattern *pattern_compile(struct arena *arena, const char *text, char *why, size_t size);
bool pattern_has_group(const struct pattern *pattern);
/* `group`, if not NULL, has PATTERN_GROUP_MAX bytes and gets what the first group has matched, "" where there is
 * none; FAILED if it took no part or is longer. */
enum pattern_answer pattern_match(const struct pattern *pattern, const char *text, char *group);

#endif
