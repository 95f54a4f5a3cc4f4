/* copysplit_log.c: which lines of a COPY's stream the lines of one shard's part of it are. */
#include "router/copysplit_log.h"

#include <stdbool.h>
#include <stdlib.h>

#include "pgshunt/arena.h"

#define BLOCK 16384
#define BLOCKS_MOST 128 /* what is older is forgotten */

void row_log_init(struct row_log *log, unsigned nshards)
{
    *log = (struct row_log){.nshards = nshards, .lines = mem_alloc(nshards * sizeof *log->lines)};
}

void row_log_free(struct row_log *log)
{
    free(log->entries);
    free(log->lines);
}

/* Counts the block that is full: once for all shards, as it is done for each row. */
static void count_block(struct row_log *log)
{
    int64_t *last = NULL;
    for (uint64_t at = log->block_end - BLOCK; at < log->end; at++) {
        unsigned entry = log->entries[at & log->mask], number = entry & LOG_NUMBER_MOST;
        switch ((enum log_kind)(entry >> LOG_NUMBER_BITS)) {
        case LOG_ROW:
            last = &log->lines[number < log->nshards ? number : 0];
            ++*last;
            break;
        case LOG_HEADER:
            for (unsigned shard = 0; shard < log->nshards; shard++)
                log->lines[shard] += number;
            break;
        case LOG_MORE:
            *last += number;
            break;
        case LOG_MANY_MORE:
            *last += (int64_t)number << LOG_NUMBER_BITS;
            break;
        }
    }
}

/* There is room for BLOCK entries afterwards. The oldest block goes where there may be no more of them. */
static void next_block(struct row_log *log)
{
    uint64_t room = log->entries ? log->mask + 1 : 0;
    if (room)
        count_block(log);
    if (log->end == room && room < BLOCK * BLOCKS_MOST) {
        room = room ? room * 2 : BLOCK;
        log->mask = room - 1;
        log->entries = mem_realloc(log->entries, room * sizeof *log->entries);
    }
    log->block_end = log->end + BLOCK;
}

static void put(struct row_log *log, enum log_kind kind, int64_t number)
{
    log->entries[log->end++ & log->mask] =
        (uint16_t)((unsigned)kind << LOG_NUMBER_BITS | (unsigned)number);
}

static void put_all(struct row_log *log, enum log_kind kind, int64_t number, int64_t more)
{
    /* What belongs together is in one block. */
    while (log->end < log->block_end && log->end + 3 > log->block_end)
        put(log, LOG_HEADER, 0);
    if (log->end == log->block_end)
        next_block(log);
    put(log, kind, number);
    if (more & LOG_NUMBER_MOST)
        put(log, LOG_MORE, more & LOG_NUMBER_MOST);
    if (more >> LOG_NUMBER_BITS)
        put(log, LOG_MANY_MORE, more >> LOG_NUMBER_BITS & LOG_NUMBER_MOST);
}

void row_log_put_slowly(struct row_log *log, unsigned shard, int64_t lines)
{
    put_all(log, LOG_ROW, shard & LOG_NUMBER_MOST, lines - 1);
}

void row_log_put_header(struct row_log *log, int64_t lines)
{
    put_all(log, LOG_HEADER, lines < LOG_NUMBER_MOST ? lines : LOG_NUMBER_MOST, 0);
}

/* A walk over rows, backwards. */
struct walk {
    const struct row_log *log;
    uint64_t at, first; /* behind the next entry */
    int64_t lines;      /* of the row that was found */
    bool ours;          /* it is of the shard */
};

static bool next_row(struct walk *walk, unsigned shard)
{
    walk->lines = 0;
    while (walk->at > walk->first) {
        unsigned entry = walk->log->entries[--walk->at & walk->log->mask];
        int64_t number = entry & LOG_NUMBER_MOST;
        enum log_kind kind = entry >> LOG_NUMBER_BITS;
        if (kind == LOG_ROW || kind == LOG_HEADER) {
            walk->lines += kind == LOG_ROW ? 1 : number;
            walk->ours = kind == LOG_HEADER || number == (int64_t)shard;
            return true;
        }
        walk->lines += kind == LOG_MORE ? number : number << LOG_NUMBER_BITS;
    }
    return false;
}

int64_t row_log_lines(const struct row_log *log, unsigned shard)
{
    uint64_t first = log->entries ? log->block_end - BLOCK : 0;
    struct walk walk = {.log = log, .at = log->end, .first = first};
    int64_t total = log->lines[shard];
    while (next_row(&walk, shard))
        total += walk.ours ? walk.lines : 0;
    return total;
}

int64_t row_log_find(const struct row_log *log, unsigned shard, int64_t part_line, int64_t next)
{
    uint64_t room = log->entries ? log->mask + 1 : 0, first = log->block_end;
    struct walk walk = {.log = log, .at = log->end, .first = first < room ? 0 : first - room};
    int64_t total = row_log_lines(log, shard);
    if (part_line <= 0 || part_line > total || log->nshards > LOG_NUMBER_MOST + 1)
        return 0;
    while (next_row(&walk, shard)) {
        next -= walk.lines;
        if (!walk.ours)
            continue;
        total -= walk.lines;
        if (part_line > total)
            return next + part_line - total - 1;
    }
    return 0;
}
