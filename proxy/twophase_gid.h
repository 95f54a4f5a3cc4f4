/*
 * twophase_gid.h: names of prepared transactions: who made one, and where its outcome is decided.
 *
 *   pgshunt:<proxy>:<database>:<deciding shard>:<number>:<random>:<part>
 *
 * The part is a number, one for each shard that prepares: shards may be databases of one server, where a name can be
 * there once. The decision stands under the name with the part "d". Of earlier versions both have none.
 *
 * Any proxy that serves a database of that name with a shard of that name can find the decision. Names that
 * are long or have odd characters stand there as a hash of theirs.
 */
#ifndef PGSHUNT_PROXY_TWOPHASE_GID_H
#define PGSHUNT_PROXY_TWOPHASE_GID_H

#include <stdbool.h>
#include <stddef.h>

#define GID_SIZE 200 /* Postgres' limit, the zero included */
#define GID_PREFIX "pgshunt:"
#define GID_NAME_SIZE 49

/* Parts of a gid that was read, as they stand there. */
struct gid_parts {
    char database[GID_NAME_SIZE];
    char shard[GID_NAME_SIZE];
    char decision[GID_SIZE]; /* the gid of its decision */
};

/* One for a decision, which nobody can guess. */
void gid_make(const char *database, const char *shard, char out[GID_SIZE]);
/* What a part of the transaction that `decision` is about is prepared as. */
void gid_part(const char *decision, int part, char out[GID_SIZE]);
/* How a name stands in a gid. */
void gid_name(const char *name, char out[GID_NAME_SIZE]);
/* False: it is none of ours. A gid that is one can stand between quotes as it is. */
bool gid_read(const char *gid, struct gid_parts *parts);

#endif
