/* catalog_state.h: a copy of the recorded maps in a file, to start with while the catalog cannot be reached. */
#ifndef PGSHUNT_PROXY_CATALOG_STATE_H
#define PGSHUNT_PROXY_CATALOG_STATE_H

#include <stdbool.h>
#include <stddef.h>

#include "pgshunt/error.h"

struct topology;
struct recorded_map;

/* All recorded maps of the topology, in place of what was there; holds are left out. False: `error` says why. */
MUST_CHECK bool catalog_state_write(const char *path, const struct topology *topology, char *error,
                                    size_t size);
/* NULL: the file does not have it; `error` says why, "" if there is no file. */
struct recorded_map *catalog_state_read(const char *path, const char *database, char *error,
                                        size_t size);

#endif
