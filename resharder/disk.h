/* disk.h: how much room a shard's primary has on the disk of its database, where a role may ask for it. */
#ifndef PGSHUNT_RESHARDER_DISK_H
#define PGSHUNT_RESHARDER_DISK_H

#include "resharder/resharder.h"

/*
 * Bytes free where the database's own tablespace is, as `df` says it there. -1: not known, and `*why` says for what reason, in
 * the arena; -2: the shard cannot be reached: reshard->error.
 */
int64_t disk_free(struct reshard *reshard, unsigned shard, const char **why);

#endif
