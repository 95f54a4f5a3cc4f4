/*
 * schema_copy.h: makes on a target without tables what a source has: types, functions, tables, indexes, constraints.
 *
 * What pg_dump says of the source is run on the target in one transaction: all of it is there then, or nothing.
 */
#ifndef PGSHUNT_RESHARDER_SCHEMA_COPY_H
#define PGSHUNT_RESHARDER_SCHEMA_COPY_H

#include "resharder/resharder.h"

/* Whether the shard has no tables (but pgshunt's own); false: reshard->error. */
MUST_CHECK bool schema_is_empty(struct reshard *reshard, unsigned shard, bool *empty);
/* False: reshard->error. */
MUST_CHECK bool schema_copy(struct reshard *reshard, unsigned source, unsigned target);

#endif
