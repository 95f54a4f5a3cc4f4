/*
 * convert_texts.h: the statements that turn a table with rows into a partitioned one beside those who use it.
 *
 * Three relations stand for the table while it is converted: the table itself (`old`), the partitioned one that is filled
 * (`fresh`), and the log, in schema pgshunt, of the keys of rows that have changed meanwhile.
 */
#ifndef PGSHUNT_PARTITION_CONVERT_TEXTS_H
#define PGSHUNT_PARTITION_CONVERT_TEXTS_H

#include "partition/look.h"

/* Statements end without a semicolon; "": none. */
struct convert_texts {
    const char *old, *fresh, *log; /* quoted */
    const char *fresh_name;        /* as it is, without its schema */
    const char *kept_name;         /* what the old table is called afterwards */
    const char *columns;           /* all that are not generated */
    const char *key;               /* of the table: "a", "b" */
    const char *key_first;         /* ... the first of it */
    const char *key_match;         /* s."a" = l."a" AND ... */
    const char *key_literal;       /* SQL that makes the key of row `b` a literal of it */
    const char *dress;             /* what partitions take from the new table */
    const char *watch;             /* the log, and triggers that write it */
    const char *unwatch;           /* the triggers gone */
    const char *make_key;
    const char *make_others; /* all other indexes and keys */
    const char *
        mirror; /* from then on changes are made in both tables, and logged only where that cannot be */
    const char *lock; /* what has to be locked to put one in the other's place */
    const char
        *part_old; /* the old one leaves publications, its references end, its names are given up */
    const char *part_fresh; /* the new one's keys and indexes get the names */
    const char *refer;      /* references of the new one and to it, not validated */
    const char *views;
    const char *after;   /* an array of SQL: what may take its time */
    const char *oids;    /* of all that is locked, as an array */
    const char *options; /* storage parameters, as in WITH; NULL: none */
    const char *before, *between,
        *last; /* from shape.h: made; told where sequences stand; what only one can have */
};

/* Of a table that is plain yet. False: the shard's error. */
MUST_CHECK bool convert_texts(struct shard_work *shard, const struct policy *policy,
                              const struct parent *parent, bool extend,
                              struct convert_texts *texts);
/* What the table is, as one text that changes whenever it is altered; an expression of SQL. */
const char *convert_fingerprint(struct arena *arena, const char *oid);
/* Tells what else than shape_check() finds is in the way. False: something is, or it could not be looked. */
MUST_CHECK bool convert_check(struct shard_work *shard, const struct policy *policy,
                              const struct parent *parent, bool extend);

#endif
