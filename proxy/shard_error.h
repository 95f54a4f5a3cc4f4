/* shard_error.h: an error of one shard as the error of a statement on several. */
#ifndef PGSHUNT_PROXY_SHARD_ERROR_H
#define PGSHUNT_PROXY_SHARD_ERROR_H

#include "pgshunt/arena.h"
#include "pgshunt/error.h"

/* All of it but its severity (the statement fails, the session does not), in `arena`; its detail says
 * which shard it is from (NULL: from none). */
struct pg_error shard_error_keep(struct arena *arena, const struct pg_error *error,
                                 const char *shard_name);

#endif
