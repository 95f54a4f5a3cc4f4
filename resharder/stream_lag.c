/* stream_lag.c: lag in bytes and seconds; what is not known is never 0. */
#include "resharder/stream_lag.h"

#include <string.h>

#define KNOWN_MS 5000 /* an answer older than that says nothing */

void stream_lag_sample(struct stream_lag *lag, uint64_t lsn, int64_t asked_ms)
{
    if (asked_ms <= lag->newest_ms)
        return;
    lag->newest_lsn = lsn;
    lag->newest_ms = asked_ms;
    if (lag->count == STREAM_LAG_SAMPLES) { /* every second one will do */
        for (int i = 0; i < STREAM_LAG_SAMPLES / 2; i++)
            lag->samples[i] = lag->samples[2 * i];
        lag->count = STREAM_LAG_SAMPLES / 2;
    }
    lag->samples[lag->count++] = (struct stream_lag_sample){lsn, asked_ms};
}

void stream_lag_applied(struct stream_lag *lag, uint64_t applied)
{
    int reached = 0;
    while (reached < lag->count && lag->samples[reached].lsn <= applied)
        reached++;
    lag->count -= reached;
    memmove(lag->samples, lag->samples + reached, sizeof *lag->samples * (size_t)lag->count);
}

int64_t stream_lag_bytes(const struct stream_lag *lag, uint64_t applied, int64_t now_ms)
{
    if (!lag->newest_ms || now_ms - lag->newest_ms > KNOWN_MS)
        return -1;
    return lag->newest_lsn > applied ? (int64_t)(lag->newest_lsn - applied) : 0;
}

double stream_lag_seconds(const struct stream_lag *lag, int64_t now_ms)
{
    if (!lag->newest_ms || now_ms - lag->newest_ms > KNOWN_MS)
        return -1;
    int64_t since = lag->count ? lag->samples[0].asked_ms : lag->newest_ms;
    return (double)(now_ms - since) / 1000;
}
