/*
 * shape.h: statements that differ in their literals alone are parsed once.
 *
 * Drivers that put values into the text (psycopg2, `pgbench -M simple`) send the same statement over
 * and over with other numbers and strings in it. Its *shape* is its text with a mark in place of each
 * literal. The first time a shape is met again its tree is kept, and from then on a text of that shape
 * costs a walk over its bytes: the literals are put into the tree's constants.
 *
 * Only what provably has the same tree is recognised: one query (SELECT, INSERT, UPDATE, DELETE, ...)
 * without comments, dollar quotes, backslashes or parameters, whose literals are each a constant of the
 * tree and nothing else (no type modifiers, for example). Everything else is for statement_parse().
 */
#ifndef PGSHUNT_SHAPE_H
#define PGSHUNT_SHAPE_H

#include <stddef.h>
#include <stdint.h>

#include "pgshunt/statement.h"

struct shape_table;

/* A tree that is the caller's alone from shape_take() to shape_give(). What `list` holds is what
 * statement_parse() would give for the text, but for the locations inside the tree: those are of
 * another text of this shape, so nothing may be rewritten by them. */
struct shape {
    struct statement_list list;
};

/* `seed` keeps the hashes unpredictable. */
struct shape_table *shapes_create(uint64_t seed);
void shapes_free(struct shape_table *table); /* everything taken must have been given back */

/* The tree for `sql` (`length` bytes, NUL-terminated), or NULL: parse it yourself. */
struct shape *shape_take(struct shape_table *table, const char *sql, size_t length);
void shape_give(struct shape_table *table, struct shape *shape);

#endif
