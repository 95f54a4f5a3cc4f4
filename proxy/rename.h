/*
 * rename.h: errors that tell a name of ours tell the client's own.
 */
#ifndef PGSHUNT_PROXY_RENAME_H
#define PGSHUNT_PROXY_RENAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pgshunt/buffer.h"

struct client;
struct prepared;

/* The ErrorResponse with this body, about a statement (NULL: none) that the client calls by the name with the hash
 * `called`, put into `out` with that name, and with a position in the client's own text. False: it may stay as it is. */
bool rename_error(const struct client *client, const struct prepared *prepared, uint32_t called,
                  const char *body, size_t len, struct buffer *out);

/* Where the client's own text has what the one that was sent to a server has at `position`, from 1; 0: nowhere. */
long rename_position(const struct client *client, long position);

#endif
