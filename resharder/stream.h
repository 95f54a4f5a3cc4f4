/*
 * stream.h: one link's stream: changes read from a slot of the source and carried out on the target, in a thread.
 *
 *   stream_start --> running --stream_stop--> gone        what is not committed on the target comes again
 *                      |---> failed (passing: start it again; else the job has to be looked at)
 *                      +---> finished (`until` is reached)
 *
 * One thread reads, writes and answers: while the target is busy, the source still hears of it (wal_sender_timeout). A
 * transaction that the server streams before its commit waits in a file. The stream goes on where the target's origin is;
 * the source may forget what is on the target, committed. Its memory: a message, what waits in batches (2 MB), and what
 * libpq keeps of one message.
 */
#ifndef PGSHUNT_RESHARDER_STREAM_H
#define PGSHUNT_RESHARDER_STREAM_H

#include "resharder/apply.h"
#include "resharder/resharder.h"

struct stream;

/* All that it points to must outlive the stream. Slot, publication, origin, ghost tables, pgshunt.applied are there. */
struct stream_options {
    const struct move_tables *tables; /* as the source has them */
    const struct moves *moves;
    struct link link;
    const char *job;
    const char *slot, *publication; /* on the source */
    const char *origin;             /* on the target */
    const char *
        skip_origin; /* the opposite stream's, on the source: what it did is left out; NULL: none */
    uint64_t consistent_after; /* see apply.h; 0: from the beginning */
    bool careful;              /* see apply.h */
    bool text;                 /* see apply.h */
    uint64_t
        until; /* not 0: transactions whose commit is at or behind it are left for later, and it is finished */
};

struct stream_state {
    bool running;
    bool finished; /* `until` is reached; all before it is committed on the target */
    bool held;     /* by stream_hold() */
    bool
        catching_up; /* what the target has already is still looked through for the source's keys */
    struct apply_failure failure;   /* error.text "": none */
    struct apply_progress progress; /* `applied` also where nothing was for us */
    uint64_t received;
    int64_t lag_bytes;  /* WAL of the source that the target has not applied; -1: not known */
    double lag_seconds; /* ... as old as that; -1: not known */
};

/*
 * Opens all sessions in the caller's thread and starts. NULL: `failure` says why (where it is passing, it may be tried again:
 * the sessions of one that was killed may live some seconds longer).
 */
struct stream *stream_start(struct reshard *reshard, const struct stream_options *options,
                            struct apply_failure *failure);
/* Of any thread; *state is a copy. */
void stream_state(struct stream *stream, struct stream_state *state);
/*
 * After this marker is applied, nothing more is until stream_release(): the target stands exactly at its position. For one who
 * writes the marker later.
 */
void stream_hold(struct stream *stream, const char *marker);
void stream_release(struct stream *stream);
/* Ends the thread and frees all; NULL is ignored. */
void stream_stop(struct stream *stream);

#endif
