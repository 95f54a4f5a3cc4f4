/*
 * index_watch.h: how far the indexes are that are built on a shard, told as progress while another session builds them.
 */
#ifndef PGSHUNT_RESHARDER_INDEX_WATCH_H
#define PGSHUNT_RESHARDER_INDEX_WATCH_H

#include "resharder/resharder.h"

struct index_watch {
    struct reshard *reshard;
    unsigned shard;
    int64_t told_ms;
};

/* To be called often: looks and tells about every second. `arg`: the watch. */
void index_watch(void *arg);

#endif
