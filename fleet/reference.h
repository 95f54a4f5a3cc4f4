/*
 * reference.h: how copies of a reference table are compared.
 *
 * Rows fall into buckets by a hash of their primary key (of all of the row, where there is none). A bucket's count and
 * sum of hashes of its rows are compared first, which is one pass over each copy; rows are looked at only where
 * these differ. Hashes are of the rows' text, which takes the same columns in the same order.
 */
#ifndef PGSHUNT_FLEET_REFERENCE_H
#define PGSHUNT_FLEET_REFERENCE_H

#include "fleet/fleet.h"

#define REFERENCE_BUCKETS 1024

struct reference_table {
    const char *name;    /* quoted, with its schema */
    const char *columns; /* names and types, for comparing and messages */
    const char
        *key;   /* SQL: a row's key as text, of the row x; the whole row without a primary key */
    bool keyed; /* has a primary key */
};

/* How a copy differs from the source's. */
enum row_difference { ROW_MISSING, ROW_EXTRA, ROW_CHANGED };

struct reference_difference {
    int64_t rows[3];                  /* by enum row_difference */
    bool buckets[REFERENCE_BUCKETS];  /* that differ */
    int64_t sizes[REFERENCE_BUCKETS]; /* rows, of the copy that has more */
    int nbuckets;
};

/* Compares two copies. Tells the first `show` rows that differ as problems. False: fleet->error, of *failed. */
bool reference_compare(struct fleet *fleet, const struct reference_table *table, int source,
                       int shard, int show, struct reference_difference *difference, int *failed);
/* The rows' bucket as SQL, of the row x. */
const char *reference_bucket(struct fleet *fleet, const struct reference_table *table);
/* Buckets that differ, as an array of SQL: those from `first` on, about so many that `rows` rows are in them. Sets
 * *next. NULL: no more. */
const char *reference_bucket_list(struct fleet *fleet,
                                  const struct reference_difference *difference, int first,
                                  int64_t rows, int *next);

#endif
