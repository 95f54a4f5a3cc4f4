/* lag.c: time and byte lag and freshness of a replica from the primary's WAL position history. */
#include "proxy/lag.h"

#include <stdlib.h>
#include <string.h>

#include "pgshunt/arena.h"

#define LAG_RESOLUTION 128

/* Sizes of the headers Postgres starts WAL pages with (access/xlog_internal.h), 8-byte aligned. */
#define SHORT_PAGE_HEADER 24
#define LONG_PAGE_HEADER 40 /* first page of a segment */

void lag_init(struct lag_history *history)
{
    *history = (struct lag_history){0};
}

void lag_free(struct lag_history *history)
{
    free(history->entries);
    lag_init(history);
}

void lag_reset(struct lag_history *history)
{
    history->count = 0;
}

/*
 * Merges neighbours that lie closer together than the LAG_RESOLUTION-th part of their age. The later
 * one's positions stay and take over the start of the earlier: lag may then be overstated by their
 * distance, never understated. Freshness only loses a step it could have granted. A hundred years of
 * samples ten times a second leave fewer than 3000 entries.
 */
static void thin(struct lag_history *history)
{
    struct lag_entry *entries = history->entries;
    int64_t newest = entries[history->count - 1].last;
    size_t kept = 1;
    for (size_t i = 1; i < history->count; i++) {
        int64_t first = entries[kept - 1].first;
        if ((entries[i].last - first) * LAG_RESOLUTION > newest - entries[i].last) {
            entries[kept++] = entries[i];
        } else {
            entries[kept - 1] = entries[i];
            entries[kept - 1].first = first;
        }
    }
    /* Whatever the clock did: room is made, if need be at the cost of the oldest. */
    size_t most = LAG_CAPACITY / 4 * 3;
    if (kept > most) {
        memmove(entries, entries + (kept - most), most * sizeof *entries);
        kept = most;
    }
    history->count = kept;
}

void lag_add_sample(struct lag_history *history, int64_t sent_us, uint64_t insert, uint64_t flushed)
{
    if (!history->entries)
        history->entries = mem_alloc(LAG_CAPACITY * sizeof *history->entries);
    if (flushed > insert)
        insert = flushed; /* read one after the other on a busy server: the later is the truth */
    if (history->count > 0) {
        struct lag_entry *latest = &history->entries[history->count - 1];
        if (insert < latest->insert || flushed < latest->flushed) {
            lag_reset(history);
        } else if (insert == latest->insert && flushed == latest->flushed) {
            latest->last = sent_us;
            return;
        }
    }
    if (history->count == LAG_CAPACITY)
        thin(history);
    history->entries[history->count++] = (struct lag_entry){sent_us, sent_us, insert, flushed};
}

/* Number of leading entries whose flushed position is replayed: the next one is not reached yet. */
static size_t reached(const struct lag_history *history, uint64_t replayed)
{
    size_t low = 0, high = history->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (history->entries[middle].flushed <= replayed)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct lag lag_of(const struct lag_history *history, uint64_t replayed, int64_t now_us)
{
    struct lag lag = {-1, -1, 0};
    if (history->count == 0)
        return lag;

    size_t next = reached(history, replayed);
    const struct lag_entry *latest = &history->entries[history->count - 1];
    if (next == history->count) {
        lag.lag_us = 0;
        lag.lag_bytes = 0;
    } else {
        int64_t age = now_us - history->entries[next].first;
        lag.lag_us = age > 0 ? age : 0;
        lag.lag_bytes = (int64_t)(latest->flushed - replayed);
    }
    /* insert >= flushed, so the newest entry replayed in full is not behind `next`. */
    while (next > 0 && history->entries[next - 1].insert > replayed)
        next--;
    if (next > 0)
        lag.fresh_as_of = history->entries[next - 1].last;
    return lag;
}

/*
 * A lag x puts it over all limits below x and lets it in again at all from 4/3 x on; in between stays
 * what was. So from "over all below held" follows "over all below held, brought into [x, 4/3 x]".
 */
int64_t lag_hold(int64_t held, int64_t lag_us)
{
    if (lag_us < 0)
        return -1;
    int64_t enter = lag_us > INT64_MAX / 2 ? INT64_MAX : lag_us + (lag_us + 2) / 3;
    if (held < 0 || held > enter)
        return enter;
    return held < lag_us ? lag_us : held;
}

uint64_t lag_skip_page_header(uint64_t insert, uint32_t page_size, uint64_t segment_size)
{
    if (page_size == 0 || segment_size == 0)
        return insert;
    if (insert % segment_size == LONG_PAGE_HEADER)
        return insert - LONG_PAGE_HEADER;
    if (insert % page_size == SHORT_PAGE_HEADER && insert % segment_size != SHORT_PAGE_HEADER)
        return insert - SHORT_PAGE_HEADER;
    return insert;
}
