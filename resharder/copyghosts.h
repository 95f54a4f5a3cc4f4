/*
 * copyghosts.h: keys of moving rows, collected and written into a shard's table of ghost keys.
 */
#ifndef PGSHUNT_RESHARDER_COPYGHOSTS_H
#define PGSHUNT_RESHARDER_COPYGHOSTS_H

#include <stdbool.h>
#include <stdint.h>

#include "pgshunt/buffer.h"
#include "pgshunt/db.h"
#include "pgshunt/error.h"
#include "pgshunt/shardmap.h"
#include "pgshunt/copyio.h"
#include "resharder/move.h"

#define COPYGHOSTS_RECENT 4096
#define COPYGHOSTS_BYTES_MAX (1 << 20) /* about when they ought to be written */

/* Keys not written yet; most that come twice are kept once. */
struct copyghosts {
    const struct keyspace *keyspace;
    struct buffer parts[SHARDMAP_MAX_PARTS]; /* elements of binary arrays; owned */
    int count;
    struct {
        int32_t length; /* 0: none */
        unsigned char bytes[16];
    } recent[COPYGHOSTS_RECENT]; /* keys of one part, by their hash */
};

void copyghosts_begin(struct copyghosts *ghosts, const struct keyspace *keyspace);
/* False: it is no key (NULL, or no value of its type). `oids` as of move_bucket(). */
MUST_CHECK bool copyghosts_add(struct copyghosts *ghosts, const struct move_value *parts,
                               const uint32_t *oids);
size_t copyghosts_bytes(const struct copyghosts *ghosts);
/*
 * Inserts them into `table` (as of tables_ghost()) where they are not there yet, in one statement: sent, and answered while
 * other things are done. No other may be under way on that session.
 */
MUST_CHECK bool copyghosts_send(const struct copyghosts *ghosts, const struct copyio *io,
                                const char *table, struct db_error *error);
/* Waits for the answer. */
MUST_CHECK bool copyghosts_take(const struct copyio *io, struct db_error *error);
/* Forgets them. */
void copyghosts_clear(struct copyghosts *ghosts);
void copyghosts_release(struct copyghosts *ghosts);

#endif
