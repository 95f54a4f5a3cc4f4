/* stream_open.h: the sessions of a stream, opened and set up. */
#ifndef PGSHUNT_RESHARDER_STREAM_OPEN_H
#define PGSHUNT_RESHARDER_STREAM_OPEN_H

#include "resharder/stream.h"

struct stream_open_request {
    const struct stream_options *options;
    void *arg;
    void (*attend)(void *arg); /* see apply.h; called once the thread runs */
    const volatile sig_atomic_t *stop;
};

/* False: `failure` says why; what was opened is in *apply and *replication, or NULL. */
MUST_CHECK bool stream_open(struct reshard *reshard, const struct stream_open_request *request,
                            struct apply **apply, PGconn **replication,
                            struct apply_failure *failure);

#endif
