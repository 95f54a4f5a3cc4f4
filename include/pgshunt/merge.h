/*
 * merge.h: several shards' result streams in, one client result stream out. Pure: messages in, messages
 * out; no sockets.
 *
 *    shard 0 --T,D,D,C--> merge_feed --.
 *    shard 1 --T,D,D,C--> merge_feed ---+--> merge_run --> T D D D ... into a buffer
 *    shard 2 --T,D,D,C--> merge_feed --'
 *
 * The caller feeds whole messages as they arrive and calls merge_run(), which writes what it can and
 * says what it waits for. Memory: a sorted merge holds the rows fed and not yet merged (the caller
 * stops reading a shard that merge_hungry() does not want); a grouped merge holds one entry a group,
 * up to max_groups, then an error 53400 with a hint.
 */
#ifndef PGSHUNT_MERGE_H
#define PGSHUNT_MERGE_H

#include <stdbool.h>
#include <stdint.h>

#include "pgshunt/buffer.h"
#include "pgshunt/error.h"

enum aggregate_kind {
    AGGREGATE_NONE,  /* a group key, or any column that is the same within the group */
    AGGREGATE_COUNT, /* partial counts are added; result int8 */
    AGGREGATE_SUM,   /* partial sums are added, in the type of the partial */
    AGGREGATE_MIN,
    AGGREGATE_MAX,
    AGGREGATE_AVG, /* from the hidden columns sum_column and count_column; type: the visible column's */
};

struct merge_column {
    enum aggregate_kind aggregate;
    int sum_column; /* AVG: 0-based columns of the shards' result */
    int count_column;
};

struct merge_sort_key {
    /* 0-based, in the shards' result (may be a hidden one). -1: found by sort_names. -2 and less: the
     * hidden column number (-2 - column), counted from the first hidden one. */
    int column;
    bool descending;
    bool nulls_first;
};

struct merge_spec {
    /* The shards' result has visible + hidden columns; hidden ones come last and are cut off. With
     * `SELECT *` the planner cannot know how many: visible is -1 and `hidden` says how many to cut. */
    int visible;
    int hidden;
    /* Sort order of each shard's stream and of the result. With group: applied to the groups after
     * they are complete. Where column is -1, `sort_names[i]` is a column name to find in the first RowDescription. */
    struct merge_sort_key *sort;
    const char **sort_names;
    int nsort;
    bool group;                   /* combine rows with equal group keys (also no GROUP BY at all) */
    struct merge_column *columns; /* with group: one per visible column; may go on into hidden ones,
                                    * for ORDER BY an aggregate that is not shown */
    int ncolumns;
    const int *group_keys; /* columns (hidden ones too) that make a group */
    int ngroup_keys;
    bool distinct;  /* rows equal in all visible columns are one (sorted or hashed) */
    int64_t limit;  /* -1: none */
    int64_t offset; /* 0: none */
    /* For rows that come back in the order they were sent (INSERT ... RETURNING): the shard, as merge_feed()
     * counts them, that has each row of the result. NULL: no such order. Not with sort or group. A shard
     * with fewer or more rows than that is an error, XX000. */
    const uint16_t *row_source;
    int nrows;
    /* Parameters that give limit and offset: client's $n, 0: none. The caller puts the values above. */
    int limit_param;
    int offset_param;
    /* Collation for text columns: NULL or "C": bytes. Else a libc locale name. */
    const char *collate;
    char collation_provider; /* 'c' libc, 'i' ICU */
};

struct merge;

enum merge_status {
    MERGE_WAIT,  /* needs more input: see merge_hungry */
    MERGE_FULL,  /* wrote at least `room` bytes: send them, then call again */
    MERGE_DONE,  /* all rows are out (LIMIT reached counts): the tag may follow */
    MERGE_FAILED /* merge_error() says why */
};

/* `spec` must outlive the merge. max_groups bounds a grouped merge and DISTINCT; 0: no bound. */
struct merge *merge_new(const struct merge_spec *spec, int nshards, long max_groups);
void merge_free(struct merge *merge);

/*
 * Feeds one message of a shard's answer to merge: 'T' RowDescription or 'D' DataRow (body without the
 * 5 header bytes), 'C' or 'I' when the shard has no more rows. Other types are the caller's business.
 *
 * At least one 'T' is needed; shards that send none are taken to agree. Those that do must agree in the
 * number, types and formats of columns (types made by users may differ in oid), else XX000. What a
 * shard sends after MERGE_DONE is ignored. False: the merge has failed, see merge_error().
 */
MUST_CHECK bool merge_feed(struct merge *merge, int shard, char type, const char *body, size_t len);
/* Whether more of this shard's rows should be read now. */
bool merge_hungry(const struct merge *merge, int shard);
/* Whether all rows of it that have come are out, and there may be more. */
bool merge_starves(const struct merge *merge, int shard);
/* Appends messages for the client to `out`: a RowDescription (if asked for by want_description) once
 * the shards have sent theirs, then DataRows. No CommandComplete: merge_rows() is for that tag. */
enum merge_status merge_run(struct merge *merge, struct buffer *out, size_t room);
void merge_want_description(struct merge *merge, bool wanted); /* false unless asked for */
int64_t merge_rows(const struct merge *merge);                 /* rows written so far */
const struct pg_error *merge_error(const struct merge *merge);

#endif
