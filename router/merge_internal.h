/*
 * merge_internal.h: what the merge*.c files share.
 *
 *   merge.c           the public functions, the streams of rows, what is emitted
 *   merge_describe.c  RowDescriptions: agreement, what the spec means in columns of this result
 *   merge_sorted.c    the k-way merge, and passing rows on where no order is asked for
 *   merge_group.c     groups and their aggregates
 */
#ifndef PGSHUNT_ROUTER_MERGE_INTERNAL_H
#define PGSHUNT_ROUTER_MERGE_INTERNAL_H

#include <string.h>

#include "pgshunt/arena.h"
#include "pgshunt/merge.h"
#include "pgshunt/pgtypes.h"
#include "pgshunt/wire.h"
#include "router/keyset.h"

/* Bytes buffered of one shard above which no more of it is asked for. */
#define MERGE_STREAM_BYTES (256 * 1024)

/* One value of a row being looked at; points into the row. */
struct merge_value {
    const char *bytes;
    int32_t length; /* -1: NULL */
};

struct merge_field {
    const char *name; /* into description.body */
    uint32_t oid;
    int size;
    int format;
};

struct description {
    char *body; /* the first RowDescription; in merge.arena */
    size_t length;
    size_t visible_end; /* where the visible fields end in body */
    struct merge_field *fields;
    int nfields;
};

/* A row taken from a stream; points into the stream's buffer and dies with the next feed. */
struct merge_row {
    const char *body;
    size_t length;
    size_t visible_end; /* where the visible values end in body */
};

/*
 * The rows of one shard, not yet merged, each as a 32-bit length and a body.
 *
 * The head stays in the buffer after it was emitted, until the next row is there to be compared with:
 * that is how a stream that is out of order is found.
 */
struct stream {
    struct buffer rows;
    bool described; /* 'T' came */
    bool finished;  /* 'C' or 'I' came */
    bool has_head;  /* the first row in `rows` is looked at: head, keys are set */
    bool emitted;   /* the head has been merged already */
    struct merge_row head;
    struct pg_key *keys; /* sort keys of the head */
    struct pg_key *next; /* scratch: keys of the row behind it */
};

enum load { LOAD_WAIT, LOAD_END, LOAD_SAME, LOAD_NEW, LOAD_FAILED };

struct group;

struct merge {
    const struct merge_spec *spec;
    int nshards;
    long max_groups;
    struct arena arena;      /* description, groups, error texts */
    enum merge_status state; /* MERGE_WAIT while running, else DONE or FAILED, for good */
    struct pg_error error;
    bool want_description;
    bool described; /* the description is there and resolved */
    bool description_sent;
    struct description description;
    int visible;       /* resolved */
    int *sort_columns; /* resolved, absolute */
    struct pg_order *sort_orders;
    struct pg_collation collation;
    bool collation_open;
    struct stream *streams;
    struct merge_value *values; /* of the row split last; one per field */
    int64_t skipped;            /* rows left out by OFFSET */
    int64_t rows;               /* rows written */
    int nstream_keys;           /* sort keys that the streams are ordered by: 0 with groups */

    /* the k-way merge: stream numbers, the one with the least head first */
    int *heap;
    int heap_size;
    bool heap_ready;

    int next_source; /* rows written in the order of spec->row_source */

    /* DISTINCT */
    struct pg_order *distinct_orders; /* one per visible column */
    struct keyset distinct_rows;      /* canonical rows */
    bool distinct_sorted;       /* the sort covers all visible columns: equal rows are neighbours */
    struct buffer distinct_key; /* canonical row: the leading sort columns first */
    struct buffer last_key;     /* leading sort columns of the row before */
    bool has_last_key;

    /* groups */
    struct pg_order *group_orders; /* one per group key */
    struct pg_order *best_orders;  /* MIN, MAX: one per column of the spec */
    int *slots;                    /* one per column of the spec: its first aggregate in a group */
    int nslots;                    /* aggregates of a group */
    struct keyset groups;          /* by canonical group key */
    struct group *first_group;     /* in order of arrival */
    struct group *last_group;
    long ngroups;
    struct buffer scratch; /* a group key, a finished row */
    struct group **sorted; /* all groups in the order they are written, once complete */
    long next_group;       /* to be written; all before are freed */
};

/* Ends the merge with an error; always returns false. */
bool merge_fail(struct merge *merge, const char *sqlstate, const char *hint, const char *format,
                ...) __attribute__((format(printf, 4, 5)));
/* `shard` may be -1: not known any more. */
bool merge_fail_value(struct merge *merge, int column, int shard);
bool merge_fail_malformed(struct merge *merge, int shard, const char *what);
/* A spec that does not fit the result: our own planner's mistake. */
bool merge_fail_spec(struct merge *merge, const char *what);
bool merge_fail_type(struct merge *merge, int column, const char *what);

/* Takes a DataRow body apart into merge->values. False: it is not one (the merge has failed). */
bool merge_split(struct merge *merge, const char *body, size_t length, size_t *visible_end,
                 int shard);
/* Makes sure the stream's head is a row not yet emitted, if there is one. */
enum load merge_load(struct merge *merge, int shard);
int merge_compare_keys(const struct merge *merge, const struct pg_key *a, const struct pg_key *b);
bool merge_decode_keys(struct merge *merge, struct pg_key *keys, int shard);
/* Appends the value of `column` in the row split last so that equal values are equal bytes. */
bool merge_put_canonical(struct merge *merge, const struct pg_order *order, int column,
                         struct buffer *out);
/*
 * Writes the row, unless DISTINCT or OFFSET leaves it out. Sets the state to done when LIMIT is
 * reached. False: failed.
 */
bool merge_emit(struct merge *merge, const struct merge_row *row, struct buffer *out);
bool merge_prepare_distinct(struct merge *merge);
bool merge_is_distinct(struct merge *merge, const struct merge_row *row, bool *distinct);
void merge_forget_distinct(struct merge *merge);

bool merge_describe(struct merge *merge, int shard, const char *body, size_t length);
/* Order of a column under the merge's collation; `what` needs it ("ORDER BY"). */
bool merge_order(struct merge *merge, int column, struct pg_order *order, const char *what);
void merge_write_description(struct merge *merge, struct buffer *out);

/* Each returns MERGE_WAIT, MERGE_FULL or MERGE_DONE, or MERGE_FAILED after merge_fail. */
enum merge_status merge_run_sorted(struct merge *merge, struct buffer *out, size_t room);
enum merge_status merge_run_listed(struct merge *merge, struct buffer *out, size_t room);
enum merge_status merge_run_plain(struct merge *merge, struct buffer *out, size_t room);
enum merge_status merge_run_groups(struct merge *merge, struct buffer *out, size_t room);
bool merge_prepare_groups(struct merge *merge);
void merge_free_groups(struct merge *merge);

#endif
