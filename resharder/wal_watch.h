/*
 * wal_watch.h: the WAL that a job's slots keep on their servers, watched against max_slot_wal_keep_size.
 *
 * A slot that loses WAL cannot be read any more, and its job is over: so it is told before, while something can be done.
 */
#ifndef PGSHUNT_RESHARDER_WAL_WATCH_H
#define PGSHUNT_RESHARDER_WAL_WATCH_H

#include "resharder/job.h"

enum wal_state {
    WAL_FINE,
    WAL_MUCH, /* no limit ends it; how full the disk is, is not known */
    WAL_LOW,  /* little more may be written before it is lost */
    WAL_LOST, /* reshard->error, with what to do */
};

struct wal_watch {
    struct reshard *reshard;
    const struct job *job;
    struct job_object *objects; /* in reshard's arena; NULL: not read yet */
    int count;
    int64_t looked_ms, told_ms;
    enum wal_state state;
};

/* To be called about every second: the worst of all the job's slots, looked at every few seconds and told as a note. */
enum wal_state wal_watch(struct wal_watch *watch);

#endif
