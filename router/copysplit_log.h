/*
 * copysplit_log.h: which lines of a COPY's stream the lines of one shard's part of it are.
 *
 * A shard that refuses a row tells the line by its own count. So two bytes are kept for a row, of those that
 * were given out last: what a shard has not answered for yet is not far behind. They are one sequence, and
 * not one for each shard, because what comes next is known then: that is several times as quick.
 */
#ifndef PGSHUNT_COPYSPLIT_LOG_H
#define PGSHUNT_COPYSPLIT_LOG_H

#include <stddef.h>
#include <stdint.h>

/* An entry's four high bits say what its number is. */
enum log_kind {
    LOG_ROW,      /* a row of one line, of the shard of that number */
    LOG_HEADER,   /* as many lines that every shard has got */
    LOG_MORE,     /* the row ahead has as many lines more ... */
    LOG_MANY_MORE /* ... as many times 4096 */
};

#define LOG_NUMBER_BITS 12
#define LOG_NUMBER_MOST ((1 << LOG_NUMBER_BITS) - 1)

struct row_log {
    uint16_t *entries;  /* a ring of blocks */
    uint64_t end, mask; /* of entries */
    uint64_t block_end;
    unsigned nshards;
    int64_t *lines; /* by shard, of the blocks that are full */
};

void row_log_init(struct row_log *log, unsigned nshards);
void row_log_free(struct row_log *log);
void row_log_put_slowly(struct row_log *log, unsigned shard, int64_t lines);
void row_log_put_header(struct row_log *log, int64_t lines);

/* The part of that shard goes on with a row of so many lines. */
static inline void row_log_put(struct row_log *log, unsigned shard, int64_t lines)
{
    if (lines > 1 || log->end == log->block_end)
        row_log_put_slowly(log, shard, lines);
    else
        log->entries[log->end++ & log->mask] = (uint16_t)(shard & LOG_NUMBER_MOST);
}

/* How many lines a shard's part has. */
int64_t row_log_lines(const struct row_log *log, unsigned shard);
/* The stream's line that is this line of the part. 0: it is not known any more, or not yet. `next` is the
 * stream's line behind the last row. */
int64_t row_log_find(const struct row_log *log, unsigned shard, int64_t part_line, int64_t next);

#endif
