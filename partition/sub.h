/*
 * sub.h: how each partition of a table is divided again ("hash:user_id:8"). Pure.
 *
 *   hash:COLUMN:COUNT                  by the hash of a column, into so many
 *   list:COLUMN:de,fr,us+ca[:default]  by its values; + puts several into one, null is no value; default takes all others
 *   range:1day                         by the table's own column, into narrower steps of the same calendar
 *
 * Names and values with , + : or in capitals are quoted ("a,b", two quotes for one).
 */
#ifndef PGSHUNT_PARTITION_SUB_H
#define PGSHUNT_PARTITION_SUB_H

#include "partition/name.h"
#include "pgshunt/arena.h"

/* Parts of a partition, of hashes and lists: all are made in one transaction. */
#define SUB_MOST 1000

enum sub_kind { SUB_NONE, SUB_HASH, SUB_LIST, SUB_RANGE };

/* Values that are in one part. */
struct sub_values {
    const char **values; /* NULL: null */
    int count;
    const char *suffix; /* of its name */
};

struct sub {
    enum sub_kind kind;
    const char *column; /* SUB_HASH, SUB_LIST */
    int count;          /* parts, with the default one; SUB_RANGE: 0 */
    struct sub_values *lists;
    bool has_default;
    struct interval every; /* SUB_RANGE */
};

/* In the arena. NULL: it is understood; else why not, for people. "none" is understood. */
const char *sub_parse(struct arena *arena, const char *text, struct sub *sub);
/* " PARTITION BY HASH ("user_id")"; `column`: the table's own, quoted. */
const char *sub_by_text(struct arena *arena, const struct sub *sub, const char *column);
/* What the part's bounds are: "FOR VALUES WITH (...)", "DEFAULT". Not of SUB_RANGE. */
const char *sub_bound_text(struct arena *arena, const struct sub *sub, int part);
/* ... and what it is called. */
void sub_name(struct arena *arena, const struct sub *sub, const char *partition, int part,
              char name[NAME_SIZE]);

#endif
