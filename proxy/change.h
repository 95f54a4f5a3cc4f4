/*
 * change.h: a fan-out whose rows go from shard to shard (pgshunt/change.h).
 *
 * A part of scatter.c's work: until all rows are where they belong its messages are passed on to here; the
 * commit is twophase.c's, as always.
 */
#ifndef PGSHUNT_PROXY_CHANGE_H
#define PGSHUNT_PROXY_CHANGE_H

#include <stdbool.h>
#include <stddef.h>

struct change;
struct scatter;

/* The scatter's parts have their servers, and BEGIN is under way where it ends itself. */
struct change *change_start(struct scatter *scatter);
void change_free(struct change *change);
/* Nothing is awaited: goes on. True: it is over, one way or the other. */
bool change_advance(struct change *change);
/* A message of part `index`, none about its errors and notices. */
void change_message(struct change *change, int index, char type, const char *body, size_t len);

#endif
