/*
 * ghostkeys.h: keys of moving rows on their way into a shard's table of ghost keys (docs/internals/resharding.md).
 *
 * Keys are collected, and inserted many at a time, in order, so that neighbours meet the same pages of the index; those inserted
 * lately are remembered and left out.
 */
#ifndef PGSHUNT_RESHARDER_GHOSTKEYS_H
#define PGSHUNT_RESHARDER_GHOSTKEYS_H

#include "pgshunt/shardmap.h"
#include "resharder/pipe.h"

/* So many of a keyspace are worth a statement; ghostkeys_full() says so. */
#define GHOSTKEYS_MANY 8192

struct ghostkeys;

struct ghostkeys *ghostkeys_new(const struct shardmap *map);
void ghostkeys_free(struct ghostkeys *ghosts); /* NULL is ignored */
/* A key of a keyspace of the map, in its canonical form, one value for each column. */
void ghostkeys_add(struct ghostkeys *ghosts, const struct keyspace *keyspace,
                   const struct shardkey *keys);
bool ghostkeys_full(const struct ghostkeys *ghosts);
bool ghostkeys_empty(const struct ghostkeys *ghosts);
/* Sends all that were collected, in whatever transaction the session is. */
MUST_CHECK bool ghostkeys_send(struct ghostkeys *ghosts, struct pipe *pipe);

#endif
