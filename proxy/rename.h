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

/* The ErrorResponse with this body, about a statement that the client calls by the name with the hash
 * `called`, put into `out` with that name. False: there is nothing in it to be renamed. */
bool rename_error(const struct client *client, const struct prepared *prepared, uint32_t called,
                  const char *body, size_t len, struct buffer *out);

#endif
