/* rewrite_gather_internal.h: what rewrite_gather.c and rewrite_reduce.c share: a query's tables, looked over. */
#ifndef PGSHUNT_ROUTER_REWRITE_GATHER_INTERNAL_H
#define PGSHUNT_ROUTER_REWRITE_GATHER_INTERNAL_H

#include "router/rewrite_internal.h"

/* Rows that one table's mentions let through: an OR of ANDs. */
struct demand {
    const char *name; /* of the relation */
    bool mentioned;
    bool again;      /* ... more than once */
    bool everything; /* some mention needs all rows */
    bool only, all;  /* there is a mention with ONLY, one without */
    List *alternatives;
    List *mentions; /* RangeVars */
};

struct survey {
    struct rewrite_gather *gather;
    struct demand *demands; /* one per table */
    List *names;            /* every word that may be a column, as String nodes */
    List *bare;             /* those of them that stand at the end: no qualifiers */
    List *made;             /* names that the query itself gives to columns */
    List *qualified;        /* RangeVars of our tables that say a schema */
    bool whole_rows;        /* `*`, NATURAL, or columns by their place */
    bool groups;            /* there is a GROUP BY */
    List *aliases;
    List *queries; /* names of WITH queries */
};

/* One FROM item at one query level, on trial. */
struct mention {
    const struct survey *survey;
    const RangeVar *range;
    const struct schema_relation *relation;
    const SelectStmt *level;
    bool unqualified; /* a column without a qualifier is this table's, if it has one of that name */
};

/* ---- rewrite_gather.c ---- */

/* The table that a FROM item means; -1: none of ours. */
int gather_find_table(const struct survey *s, const RangeVar *range);
const char *gather_visible_name(const RangeVar *range);
bool gather_has_name(const List *names, const char *name);
/* The conditions that the query puts on the mention alone, of the FROM item `top`, without qualifiers; where it is
 * `nullable` there are none. */
List *gather_conditions(const struct survey *s, struct mention *m, Node *top, bool nullable);
/* SELECT of its rows, by these conditions. */
Node *gather_where(const List *conditions);

/* ---- rewrite_reduce.c ---- */

/* The relation a FROM item stands for, where that and its columns are certain; else NULL. */
const struct schema_relation *reduce_relation(const struct survey *s, const Node *item);
/* The FROM item that has a column without a qualifier, where all items of the level are known. */
const RangeVar *reduce_owner(const struct survey *s, const SelectStmt *level, const char *column);
/* Fills s->gather->edges. The trees of their `rows`, NULL where the rows are gathered, are left in *trees. */
void reduce_find(struct survey *s, Node *statement, struct arena *arena, Node ***trees);

#endif
