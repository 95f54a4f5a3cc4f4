/* verify_internal.h: what verify.c (where both sides stand), verify_scan.c (reading) and verify_rows.c (rows that differ) share. */
#ifndef PGSHUNT_RESHARDER_VERIFY_INTERNAL_H
#define PGSHUNT_RESHARDER_VERIFY_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "pgshunt/copyio.h"
#include "resharder/copyplan.h"
#include "resharder/copyrow.h"
#include "resharder/resharder.h"
#include "resharder/tables.h"

/* A shard as owner of moving buckets, or as the one that follows. */
enum verify_side { VERIFY_OWNER, VERIFY_FOLLOWER };

struct verify_place {
    unsigned shard;
    enum verify_side side;
    const char *name;           /* the shard's */
    const char *snapshot;       /* its name */
    struct move_tables *tables; /* as the shard has them */
};

/* Rows of a bucket, in whatever order: equal when all three are. */
struct verify_sum {
    uint64_t rows, mixed, added;
};

/* Of one table: by side and bucket. */
struct verify_sums {
    struct verify_sum side[2][SHARDKEY_BUCKETS];
};

/* A row of a bucket that differs. */
struct verify_row {
    const char *key; /* its primary key as text; owned by the rows' arena */
    uint64_t hash;
    unsigned bucket;
    enum verify_side side;
};

struct verify_rows {
    struct verify_row *items; /* owned */
    size_t count, room;
    struct arena arena;
    pthread_mutex_t lock;
    const bool *wanted; /* by bucket */
};

struct verify {
    struct reshard *reshard;
    const struct moves *moves; /* from owners to followers */
    struct verify_place *places;
    int nplaces;
    int jobs;
    int64_t rate;               /* bytes a second; 0: no limit */
    _Atomic int64_t allowed_ms; /* the bytes read so far were due by then (db_clock_ms) */
    volatile sig_atomic_t halt;
    struct verify_thread *threads; /* with their sessions, for all tables; owned */
    int nthreads;
    _Atomic int64_t rows, bytes; /* read of this table, what does not move included */
    double started;
};

/* Opens the threads' sessions. False: reshard->error. */
MUST_CHECK bool verify_open(struct verify *verify);
void verify_close(struct verify *verify);
/* Reads a table on all places: sums by bucket, or where `rows` is not NULL its wanted buckets' rows. */
MUST_CHECK bool verify_read(struct verify *verify, const struct move_table *table,
                            struct verify_sums *sums, struct verify_rows *rows);

/* Looks at the buckets that differ, row by row, and tells of rows that are missing, too many or different. */
struct verify_found {
    int64_t missing, extra, different;
    int64_t buckets, unread; /* that differ; ... that were not looked at row by row */
};
MUST_CHECK bool verify_rows_differ(struct verify *verify, const struct move_table *table,
                                   const struct verify_sums *sums, struct verify_found *found);
/* Whether the bucket's rows are the same on both sides. */
bool verify_sum_same(const struct verify_sums *sums, unsigned bucket);

#endif
