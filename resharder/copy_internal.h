/* copy_internal.h: a copy at work, shared by its threads (copy.c) and what each does with a chunk (copy_chunk.c). */
#ifndef PGSHUNT_RESHARDER_COPY_INTERNAL_H
#define PGSHUNT_RESHARDER_COPY_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "resharder/copy.h"
#include "resharder/copyghosts.h"
#include "pgshunt/copyio.h"
#include "resharder/copyplan.h"
#include "resharder/copyrow.h"

/* What is left to do for a chunk at a target. */
enum copy_need {
    COPY_NEED_NOTHING,
    COPY_NEED_NEWER, /* row versions written since the first snapshot */
    COPY_NEED_ALL,
};

/* How far a table is, for people; written by many threads. */
struct copy_progress {
    _Atomic int64_t rows, pages;
    int64_t pages_all;
    double rows_all;
};

/* A source's chunks, given out one by one. */
struct copy_queue {
    const struct copy_source *source;
    const char *name; /* of the source's shard */
    struct copy_plan plan;
    struct copy_columns *columns; /* by table */
    const char **ghosts;          /* by table: the keyspace's table of ghost keys */
    /*
     * By table (and target): whether the shard needs the keys (moves_need_keys()).
     */
    bool *source_keys, *target_keys;
    const char **files;             /* by chunk: relfilenode of its leaf, as the snapshot has it */
    unsigned char *needs;           /* enum copy_need, by chunk and target */
    struct copy_progress *progress; /* by table */
    atomic_int next;
};

struct copy_run {
    struct reshard *reshard;
    const struct copy_options *options;
    struct copy_queue *queues;
    int nqueues;
    volatile sig_atomic_t halt; /* threads end */
    atomic_bool wait;           /* threads rest: paused, or replicas lag */
    struct copy_load *loads;    /* of the sources; NULL: there is no limit */
    atomic_bool alone;          /* threads rest: the sources are measured without them */
    atomic_int brake;           /* thousandths of the time worked that threads rest */
    int64_t probe_at, alone_at; /* microseconds */
    int64_t laid_at;            /* since when `alone` */
    atomic_int running;
    pthread_mutex_t lock;   /* of what follows */
    int64_t allowed_at;     /* microseconds: when the rate lets the next bytes be read */
    struct db_error error;  /* of what failed first */
    const char *error_name; /* its shard */
};

/* A session that ghost keys are written on. */
struct copy_keys {
    struct copyio io; /* its session is owned */
    bool under_way;   /* a statement is not answered yet */
};

/* What a thread writes to one target. */
struct copy_sink {
    struct db *db; /* owned */
    struct copyio io;
    struct copy_keys ghosts;
    const char *name; /* of the shard */
    enum copy_need need;
    bool open; /* within a transaction and its COPY */
    struct buffer out;
    struct copyghosts keys;
    int64_t rows, bytes; /* of this chunk */
};

struct copier {
    struct copy_run *run;
    struct copy_queue *queue;
    struct db *read; /* owned */
    struct copyio io;
    struct copy_keys ghosts; /* with the source */
    struct copy_sink *sinks; /* one for each target */
    pthread_t thread;
    bool started;
    const struct keyspace *routed;   /* whose buckets `route` is about */
    int16_t route[SHARDKEY_BUCKETS]; /* sink, or COPYROW_NOBODY */
    /* the chunk at work */
    int chunk;
    const struct copy_chunk *at;
    const struct move_table *table;
    const struct copy_columns *columns;
    struct db_error error;
    const char *error_name; /* shard */
};

/* Copies one chunk to all targets that lack it. False: copier->error; its sessions are of no more use. */
bool copy_chunk(struct copier *copier, int chunk);
/* copy_load.c: what the sources' applications are left of their servers. */
int64_t copy_clock_us(void);
void copy_load_begin(struct copy_run *run);
void copy_load_tend(struct copy_run *run); /* often */
void copy_load_end(struct copy_run *run);
/* Lets no more of the system's memory fill with what the target is to do than it does in a moment: it could not be given rest. */
void copy_load_bound(const struct copy_run *run, struct db *target);
/* How long a thread rests that has worked since then (0: it has not). */
int64_t copy_load_rest_us(struct copy_run *run, int64_t worked_since);
/* Rests as the rate, the load and `wait` want it, `bytes` having been read. False: halted. */
bool copy_rest(struct copy_run *run, int64_t bytes);

#endif
