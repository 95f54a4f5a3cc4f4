/* stream_lag.h: how far a target is behind its source, from where the source was at known times. */
#ifndef PGSHUNT_RESHARDER_STREAM_LAG_H
#define PGSHUNT_RESHARDER_STREAM_LAG_H

#include <stdint.h>

#define STREAM_LAG_SAMPLES 128

struct stream_lag {
    struct stream_lag_sample {
        uint64_t lsn;
        int64_t asked_ms;
    } samples[STREAM_LAG_SAMPLES]; /* not applied yet, oldest first */
    int count;
    uint64_t newest_lsn; /* end of the source's WAL ... */
    int64_t newest_ms;   /* ... when it was asked; 0: never */
};

/* The source was there when it was asked. */
void stream_lag_sample(struct stream_lag *lag, uint64_t lsn, int64_t asked_ms);
/* All up to `applied` is on the target. */
void stream_lag_applied(struct stream_lag *lag, uint64_t applied);
/* Unknown (-1) where the source has not answered lately. */
int64_t stream_lag_bytes(const struct stream_lag *lag, uint64_t applied, int64_t now_ms);
double stream_lag_seconds(const struct stream_lag *lag, int64_t now_ms);

#endif
