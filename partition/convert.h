/*
 * convert.h: a table with rows made a partitioned one, on one shard: what there is of it, and its steps.
 *
 *   (none) -> copying -> indexed -> swapped -> converted -> (none)
 *                |          |
 *                +----------+--> (none), by convert_shard_cancel()
 */
#ifndef PGSHUNT_PARTITION_CONVERT_H
#define PGSHUNT_PARTITION_CONVERT_H

#include "partition/convert_texts.h"
#include "partition/create.h"

/* No statement of ours takes that long. */
#define CONVERT_MS (INT64_C(7) * 24 * 3600 * 1000)

enum convert_step {
    CONVERT_NONE,
    CONVERT_COPYING,   /* the new table is there, changes are logged, rows are copied */
    CONVERT_INDEXED,   /* all rows are there, and the indexes */
    CONVERT_SWAPPED,   /* it has the name; references are to be validated */
    CONVERT_CONVERTED, /* the old table is left, under another name */
};

/* What a shard has of it; texts in the command's arena. */
struct convert_state {
    bool here; /* the shard has the table */
    enum convert_step step;
    const char *options; /* that it was begun with */
    const char *kept;    /* quoted: what the old table is called by now */
    bool has_rows;
    int64_t least, greatest; /* points */
};

struct convert {
    struct creating creating;
    const struct partition_conversion *how;
    struct convert_state *states; /* by shard */
    const char *options;          /* what may not change between one call and the next */
    struct aim aim;
};

/* One shard at it. */
struct converting {
    struct shard_work *shard;
    struct convert *convert;
    const struct policy *policy;
    struct convert_state *state;
    struct parent parent;
    struct convert_texts texts;
    struct arena scratch; /* what lives for a step */
    struct policy fresh;  /* the policy, of the new table */
};

/* Tasks for work_on_shards(), of a struct convert. Failures are told. */

/* Fills its state. */
void convert_look_task(struct shard_work *shard);
/* Tells what is in the way, where nothing has begun yet, and tries it out. */
void convert_check_task(struct shard_work *shard);
/* Up to the point where the tables could be exchanged. */
void convert_fill_task(struct shard_work *shard);
/* Exchanges them, and does what comes after. */
void convert_swap_task(struct shard_work *shard);
void convert_cancel_task(struct shard_work *shard);
void convert_finish_task(struct shard_work *shard);

/* ---- between convert_fill.c and convert_swap.c ---- */

/* Nobody else may be at it on this shard; waits for a command that was killed and whose session has yet to notice. Then reads what
 * the steps need. False: told why. */
MUST_CHECK bool convert_open(struct converting *c, struct shard_work *shard);
/* After convert_open(), in any case. */
void convert_close(struct converting *c);
/* Tells the shard's error as that of `what`; says nothing where the command was stopped. Always false. */
bool convert_fails(struct converting *c, const char *what);
MUST_CHECK bool convert_set_step(struct converting *c, enum convert_step step);
/* Brings the new table to where the old one is: copies what is not copied, applies what has changed, makes what indexes are not
 * there. What is left to apply is little then. False: told why. */
MUST_CHECK bool convert_bring_up(struct converting *c);
/* Applies what is logged until little is left. `*emptied`: the table was emptied, and copying has to begin again. */
MUST_CHECK bool convert_catch_up(struct converting *c, bool *emptied);
void convert_rest(const struct work *work, int64_t ms);
/* A statement that fails where the table was altered since its conversion began. */
const char *convert_unaltered_text(struct converting *c);
/* The statements that apply all that is logged. */
const char *convert_apply_text(struct converting *c, const char *upto);
/* All of it in one transaction, with `more` behind: an error in it leaves no transaction open. */
MUST_CHECK bool convert_run(struct converting *c, const char *sql);

#endif
