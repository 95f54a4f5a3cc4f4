/* apply_internal.h: what the files apply*.c share. */
#ifndef PGSHUNT_RESHARDER_APPLY_INTERNAL_H
#define PGSHUNT_RESHARDER_APPLY_INTERNAL_H

#include "pgshunt/buffer.h"
#include "resharder/apply.h"
#include "resharder/ghostkeys.h"
#include "resharder/pipe.h"

/* Rows of one statement with a parameter for each value: the widest that is full. */
#define APPLY_SIZES 4
extern const int apply_sizes[APPLY_SIZES];
/* Rows that wait at most; a statement with an array for each column takes any number. */
#define APPLY_ROWS 512
#define APPLY_INDEX (2 * APPLY_ROWS)

/* What a statement does with each row, and the order of a row's parameters. "Locator": the columns a row is found by. */
enum apply_kind {
    APPLY_INSERT,      /* all columns; see `over` */
    APPLY_UPDATE,      /* columns that are present, but the locator's; the locator */
    APPLY_DELETE,      /* the locator */
    APPLY_MOVE,        /* one row: columns that are present, the locator's too; the old locator */
    APPLY_MOVE_ABSENT, /* the same, unless a row has the new locator already */
    APPLY_UPDATE_FULL, /* one row, found by all its values: columns that are present; all old ones */
    APPLY_DELETE_FULL, /* one row: all old values */
};

/* As the source sends it; what is said of the target is of the column of that name there. */
struct apply_column {
    const char *name, *quoted;
    uint32_t type;      /* on the target */
    uint32_t array;     /* the type of its arrays; 0: there is none, or it is one itself */
    const char *equals; /* the operator by which its indexes find it, as written in SQL */
    bool left_out;      /* computed on the target */
    bool always;        /* GENERATED ALWAYS AS IDENTITY: UPDATE may not set it */
    bool primary, locator;
};

/* Statements of one kind that set the same columns. */
struct apply_shape {
    struct apply_shape *next;
    enum apply_kind kind;
    int number;
    bool over; /* APPLY_INSERT: the row may be there, and then gets these values */
    bool *present;
    int nparams;                    /* per row */
    int nlocators;                  /* of them, the last ones */
    int max;                        /* rows that wait for it */
    bool arrays;                    /* all columns have such types */
    bool prepared[APPLY_SIZES + 1]; /* the last: with arrays */
};

/* Rows that wait to be sent as statements of one shape. */
struct apply_batch {
    struct apply_shape *shape;
    int count, room;     /* rows */
    struct buffer bytes; /* values, each with a zero byte behind it */
    struct apply_value { /* room * nparams */
        size_t offset;
        int length; /* -1: NULL */
        bool binary;
    } * values;
    size_t nvalues;
    bool texts;                  /* a value is in text form: no arrays */
    uint64_t hashes[APPLY_ROWS]; /* of the locators */
    uint16_t index[APPLY_INDEX]; /* by the hash's low bits, or behind: a row's place + 1; 0: free */
};

struct apply_relation {
    struct apply_relation *next;
    uint32_t oid; /* on the source */
    struct arena arena;
    const struct move_table *table; /* NULL: none of the job's */
    const char *schema, *name, *quoted;
    struct apply_column *columns;
    int ncolumns;
    struct apply_failure *unfit; /* why none of its rows can be carried out; NULL: they can */
    int marker;                  /* column of pgshunt.marker; -1: another table */
    int key[SHARDMAP_MAX_PARTS]; /* the sharding key */
    uint32_t key_types[SHARDMAP_MAX_PARTS];
    unsigned nkey;
    bool source_keys, target_keys; /* who has to have the keys of its new rows: moves_need_keys() */
    bool full;                     /* old rows come whole */
    int nprimary;  /* columns that are `primary`: those of the index that INSERT meets; 0: none */
    int nlocators; /* 0: found by all columns */
    int nalways;   /* columns that are `always` and no locator */
    bool
        only_key; /* no other unique index: rows of different locators do not get in each other's way */
    struct apply_owed
        *owed; /* apply's: rows that are not on the target yet; NULL: there never were any */
    const char *owed_name; /* what they are kept by; NULL: unfit */
    struct apply_shape *shapes;
    struct apply_batch batches[3]; /* APPLY_INSERT, APPLY_UPDATE, APPLY_DELETE */
};

struct apply_type {
    struct apply_type *next;
    uint32_t oid;
    char *schema, *name;
};

#define APPLY_COMMITS 8

struct apply {
    struct apply_options options;
    struct pipe source, target;
    struct ghostkeys *source_keys, *target_keys;
    struct apply_relation *relations, *last;
    struct apply_type *types;
    struct apply_owed *owed;
    int shapes;     /* numbers given */
    int prepared;   /* statements on the target */
    bool open;      /* a transaction on the target */
    bool within;    /* ... and one of the source is under way */
    bool strict;    /* it is behind consistent_after */
    bool known;     /* it was on the target at the start: only its keys count */
    int64_t rows;   /* put since the transaction began */
    size_t batched; /* bytes that wait in batches */
    uint64_t end;   /* of the newest complete transaction */
    int64_t time;
    char *marker; /* to be committed; owned */
    char *
        commits[APPLY_COMMITS]; /* markers of commits under way, "" for none, oldest first; owned */
    int ncommits;
    bool asking;          /* the source for the end of its WAL */
    int key_groups;       /* sent to the source, not answered */
    uint64_t keys_kept;   /* the source has all keys up to here, committed */
    uint64_t known_until; /* the target had all up to here at the start */
    int64_t replanned_rows, replanned_ms;
    struct apply_progress progress;
    struct apply_failure failure;
    struct buffer sql, values; /* scratch */
};

/* A problem that is not the servers'. Always false. */
bool apply_problem(struct apply *apply, const char *mend, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Takes over what has happened to a session. Always false. */
bool apply_pipe_failed(struct apply *apply, const struct pipe *pipe, const char *side);
MUST_CHECK bool apply_open_transaction(struct apply *apply);
/* Statements that every transaction may want. */
MUST_CHECK bool apply_prepare_fixed(struct apply *apply);
/* Sends the keys that wait for the source. */
MUST_CHECK bool apply_send_source_keys(struct apply *apply);

/* apply_relation.c */
MUST_CHECK bool apply_read_relation(struct apply *apply, const struct pgoutput_message *message);
void apply_read_type(struct apply *apply, const struct pgoutput_message *message);
struct apply_relation *apply_find_relation(struct apply *apply, uint32_t oid);
void apply_free_relations(struct apply *apply);

/* apply_sql.c: the text of a statement for `rows` rows (0: for arrays), in `out`, with a zero byte behind it. */
void apply_sql(const struct apply_relation *relation, const struct apply_shape *shape, int rows,
               struct buffer *out);
/* Types of a row's parameters, in order. */
void apply_sql_types(const struct apply_relation *relation, const struct apply_shape *shape,
                     uint32_t *types);
/* ... of arrays of them. */
void apply_sql_array_types(const struct apply_relation *relation, const struct apply_shape *shape,
                           uint32_t *types);

/* apply_batch.c: `row` has the columns' values, `located` those the row is found by (may be the same). */
MUST_CHECK bool apply_put(struct apply *apply, struct apply_relation *relation,
                          enum apply_kind kind, const struct pgoutput_tuple *row,
                          const struct pgoutput_tuple *located);
MUST_CHECK bool apply_send_relation(struct apply *apply, struct apply_relation *relation);
MUST_CHECK bool apply_send_all(struct apply *apply);
/* Plans are made again now and then: tables grow. */
MUST_CHECK bool apply_replan(struct apply *apply);
/* The columns' values of one row as parameters of a statement; see apply_kind. */
bool apply_is_parameter(const struct apply_relation *relation, const struct apply_shape *shape,
                        int column);

/* apply_owed.c: values that a row is found by, behind some texts, as parameters. */
struct apply_located {
    const char **values;
    int *lengths, *formats;
    int count;
    struct buffer bytes;
};
void apply_located_take(struct apply_located *located, const struct apply_relation *relation,
                        const struct pgoutput_tuple *row, const char *const *texts, int ntexts);
void apply_located_free(struct apply_located *located);
/* At the start: what is owed from before. */
MUST_CHECK bool apply_owed_read(struct apply *apply, struct db *target, struct db_error *error);
void apply_owed_free(struct apply *apply);
/* When it is known what the relation's rows are found by. False: rows are owed that were found by something else. */
MUST_CHECK bool apply_owed_begin(struct apply *apply, struct apply_relation *relation);
MUST_CHECK bool apply_owe(struct apply *apply, struct apply_relation *relation,
                          const struct pgoutput_tuple *row);
/* *was: it was owed; it is not any more. */
MUST_CHECK bool apply_was_owed(struct apply *apply, struct apply_relation *relation,
                               const struct pgoutput_tuple *located, bool *was);
/* The table was truncated. */
MUST_CHECK bool apply_owes_none(struct apply *apply, struct apply_relation *relation);

/* apply_rows.c */
MUST_CHECK bool apply_row(struct apply *apply, const struct pgoutput_message *message);
/* Of a row that is on the target already: its key for the source. */
MUST_CHECK bool apply_row_keys(struct apply *apply, const struct pgoutput_message *message);
/* apply_truncate.c */
MUST_CHECK bool apply_truncate(struct apply *apply, const struct pgoutput_message *message);

#endif
