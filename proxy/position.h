/*
 * position.h: the text that tells other sessions how far the WAL of each shard was: pgshunt.position.
 *
 *   s0:1:0/16B3748+s1:3:2/A0          shard, timeline, LSN; with a '+' between two shards
 *
 * Bytes of a shard's name other than letters, digits, '_', '-' and '.' are %XX.
 */
#ifndef PGSHUNT_PROXY_POSITION_H
#define PGSHUNT_PROXY_POSITION_H

#include <stddef.h>

#include "pgshunt/buffer.h"
#include "proxy/freshness.h"

enum position_taken { POSITION_END, POSITION_TAKEN, POSITION_MALFORMED };

/* Appends one shard's, and the '+' ahead of it where it is not the first. */
void position_put(struct buffer *text, const char *shard, const struct position *position);
/* Takes the next one off *text; `name` becomes its shard's, which has to have room there. */
enum position_taken position_take(const char **text, char *name, size_t size,
                                  struct position *position);

#endif
