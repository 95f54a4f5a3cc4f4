/* verify_rows.c: the rows of buckets that differ, put side by side by their primary keys. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "resharder/verify_internal.h"

#define ROWS_AT_ONCE 100000 /* in memory */
#define READINGS 8          /* of a table, at most */
#define TELL_MOST 20        /* rows of a table */

bool verify_sum_same(const struct verify_sums *sums, unsigned bucket)
{
    const struct verify_sum *owner = &sums->side[VERIFY_OWNER][bucket],
                            *follower = &sums->side[VERIFY_FOLLOWER][bucket];
    return owner->rows == follower->rows && owner->mixed == follower->mixed &&
           owner->added == follower->added;
}

static int compare(const void *a, const void *b)
{
    const struct verify_row *left = a, *right = b;
    int order = strcmp(left->key, right->key);
    if (!order)
        order = (left->hash > right->hash) - (left->hash < right->hash);
    return order ? order : (int)left->side - (int)right->side;
}

static const char *shard_of(const struct verify *verify, const struct move_table *table,
                            const struct verify_row *row)
{
    const struct move *move = moves_find(verify->moves, table->rule->keyspace, row->bucket);
    return move ? shardmap_shard_name(verify->reshard->map, move->target) : NULL;
}

static void tell(struct verify *verify, const struct move_table *table,
                 const struct verify_found *found, const struct verify_row *row, const char *what)
{
    int64_t told = found->missing + found->extra + found->different;
    if (told > TELL_MOST)
        return;
    const char *shard = shard_of(verify, table, row);
    reshard_tell(verify->reshard, RESHARD_PROBLEM, shard, table->relation,
                 told == TELL_MOST ? "more rows differ; they are counted"
                                   : RESHARD_TEXT(verify->reshard, "%s %s %s (bucket %u)",
                                                  table->nprimary ? "row" : "a row like", row->key,
                                                  what, row->bucket),
                 NULL);
}

/* Rows of one key: `count` of them, sorted. Equal pairs have been taken out. */
static void judge(struct verify *verify, const struct move_table *table, struct verify_row *rows,
                  size_t count, struct verify_found *found)
{
    size_t owners = 0;
    for (size_t i = 0; i < count; i++)
        owners += rows[i].side == VERIFY_OWNER;
    size_t followers = count - owners;
    while (owners && followers) {
        tell(verify, table, found, rows, "is different");
        found->different++;
        owners--;
        followers--;
    }
    for (; owners; owners--, found->missing++)
        tell(verify, table, found, rows, "is missing");
    for (; followers; followers--, found->extra++)
        tell(verify, table, found, rows, "is one too many");
}

/* Takes away pairs of an owner's and a follower's row that are alike; returns how many are left. */
static size_t cancel_pairs(struct verify_row *rows, size_t count)
{
    size_t kept = 0;
    for (size_t i = 0; i < count;) {
        size_t end = i, owners = 0;
        for (; end < count && rows[end].hash == rows[i].hash; end++)
            owners += rows[end].side == VERIFY_OWNER;
        size_t followers = end - i - owners;
        size_t pairs = owners < followers ? owners : followers;
        /* sorted by side: the owner's come first */
        for (size_t k = i + pairs; k < i + owners; k++)
            rows[kept++] = rows[k];
        for (size_t k = i + owners + pairs; k < end; k++)
            rows[kept++] = rows[k];
        i = end;
    }
    return kept;
}

static void merge(struct verify *verify, const struct move_table *table, struct verify_rows *rows,
                  struct verify_found *found)
{
    if (rows->count)
        qsort(rows->items, rows->count, sizeof *rows->items, compare);
    for (size_t i = 0; i < rows->count;) {
        size_t end = i + 1;
        while (end < rows->count && strcmp(rows->items[end].key, rows->items[i].key) == 0)
            end++;
        size_t left = cancel_pairs(&rows->items[i], end - i);
        judge(verify, table, &rows->items[i], left, found);
        i = end;
    }
}

/* The next buckets that differ, as many as fit. */
static int want(const struct verify_sums *sums, unsigned *next, bool *wanted)
{
    uint64_t rows = 0;
    int count = 0;
    memset(wanted, 0, SHARDKEY_BUCKETS * sizeof *wanted);
    for (; *next < SHARDKEY_BUCKETS; ++*next) {
        if (verify_sum_same(sums, *next))
            continue;
        rows += sums->side[VERIFY_OWNER][*next].rows + sums->side[VERIFY_FOLLOWER][*next].rows;
        if (count && rows > ROWS_AT_ONCE)
            break;
        wanted[*next] = true;
        count++;
    }
    return count;
}

bool verify_rows_differ(struct verify *verify, const struct move_table *table,
                        const struct verify_sums *sums, struct verify_found *found)
{
    bool *wanted = mem_alloc(SHARDKEY_BUCKETS * sizeof *wanted), good = true;
    unsigned next = 0;
    *found = (struct verify_found){.missing = 0};
    for (unsigned b = 0; b < SHARDKEY_BUCKETS; b++)
        found->buckets += !verify_sum_same(sums, b);
    found->unread = found->buckets;
    for (int reading = 0; reading < READINGS && good && found->unread; reading++) {
        struct verify_rows rows = {.wanted = wanted};
        int count = want(sums, &next, wanted);
        arena_init(&rows.arena);
        pthread_mutex_init(&rows.lock, NULL);
        good = verify_read(verify, table, NULL, &rows);
        if (good)
            merge(verify, table, &rows, found);
        found->unread -= count;
        pthread_mutex_destroy(&rows.lock);
        arena_free(&rows.arena);
        free(rows.items);
    }
    free(wanted);
    return good;
}
