/*
 * read_after.h: reads of one session that follow writes of another, here or behind another pgshunt:
 * SHOW pgshunt.position makes a token of where the shards' primaries are, SET pgshunt.read_after takes it.
 */
#ifndef PGSHUNT_PROXY_READ_AFTER_H
#define PGSHUNT_PROXY_READ_AFTER_H

#include <stdbool.h>

#include "pgshunt/arena.h"
#include "pgshunt/error.h"
#include "proxy/freshness.h"

struct client;

/* May pgshunt.read_after have this value now? */
bool read_after_check(const struct client *client, const char *value, struct arena *arena,
                      struct pg_error *error);
/* What the session's value asks of a replica of the shard: timeline 0 if nothing. */
struct position read_after_of(const struct client *client, unsigned shard);

enum read_after_token {
    READ_AFTER_TOKEN,   /* *token is it, in the arena */
    READ_AFTER_WAIT,    /* the client is WAITING; ask again when it goes on */
    READ_AFTER_REFUSED, /* ... with *error */
};
/* Everything that was committed on any shard before is at or before the places that the token names. */
enum read_after_token read_after_token(struct client *client, struct arena *arena,
                                       const char **token, struct pg_error *error);
/* All primaries have told their position since it was asked for. */
bool read_after_is_known(const struct client *client);

#endif
