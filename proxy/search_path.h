/* search_path.h: the search_path that a client's statements have, as SHOW would tell it. */
#ifndef PGSHUNT_PROXY_SEARCH_PATH_H
#define PGSHUNT_PROXY_SEARCH_PATH_H

#include "pgshunt/arena.h"

struct client;

/* What the client has set, in its transaction too; else its role's or database's, as far as the schema has
 * it, else Postgres' own. Lives in the arena, or as long as the client's snapshot of the schema. */
const char *search_path_of(const struct client *client, struct arena *arena);
/* The user that the servers take it for: "$user". Likewise. */
const char *search_path_user(const struct client *client, struct arena *arena);

#endif
