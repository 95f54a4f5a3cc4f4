/*
 * evict.h: ends server connections to nodes that are dead, no primary any more, or at another address.
 */
#ifndef PGSHUNT_PROXY_EVICT_H
#define PGSHUNT_PROXY_EVICT_H

#include <stdint.h>

struct worker;

/* Once a tick; looks at the worker's servers only if there is a reason to. */
void evict_tick(struct worker *worker, int64_t now);

#endif
