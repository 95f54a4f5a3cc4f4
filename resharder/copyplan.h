/*
 * copyplan.h: how the rows of a table are read: which columns in which format, and in which pieces.
 */
#ifndef PGSHUNT_RESHARDER_COPYPLAN_H
#define PGSHUNT_RESHARDER_COPYPLAN_H

#include <stdbool.h>
#include <stdint.h>

#include "pgshunt/arena.h"
#include "pgshunt/db.h"
#include "pgshunt/error.h"
#include "resharder/tables.h"

struct copy_columns {
    const char *list; /* quoted, with commas: the sharding key's first */
    unsigned count, nkey;
    uint32_t key_oids[SHARDMAP_MAX_PARTS]; /* for move_bucket() */
    /*
     * Binary only where its bytes mean the same on another server: arrays of user types, composites and reg types
     * carry OIDs, base types of extensions what their version says. Else text.
     */
    bool binary;
};

/* `generated`: generated columns too (they cannot be written). */
MUST_CHECK bool copyplan_columns(struct db *db, const struct move_table *table, bool generated,
                                 struct arena *arena, struct copy_columns *columns,
                                 struct db_error *error);

/* Pages [low, high) of a leaf; high 0: up to its end, however far that is by then. */
struct copy_chunk {
    int table, leaf;
    int number, of; /* the leaf has so many, side by side in the plan */
    int64_t low, high;
};

struct copy_plan {
    struct copy_chunk *chunks;
    int count;
};

/* `ranges` false: whole leaves (the server would read all of a leaf for each range: before 14). */
void copyplan_chunks(const struct move_tables *tables, int64_t pages, bool ranges,
                     struct arena *arena, struct copy_plan *plan);
/* "COPY (SELECT ... ) TO STDOUT ..." of a chunk; `extra`: one more condition, or "". For free(). */
char *copyplan_read(const struct move_table *table, const struct copy_columns *columns,
                    const struct copy_chunk *chunk, const char *extra);

#endif
