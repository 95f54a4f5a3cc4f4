/*
 * rewrite.h: the SQL each shard gets, made from the statement's text through Postgres' own tree.
 *
 * The text is parsed again, the tree changed and deparsed. Parameters are numbered anew where some
 * are no longer used, because the server cannot tell the type of one that is not there. Only for plans
 * over several shards. False: the text could not be taken apart again (then refuse the statement).
 */
#ifndef PGSHUNT_ROUTER_REWRITE_H
#define PGSHUNT_ROUTER_REWRITE_H

#include "pgshunt/plan.h"
#include "pgshunt/schema.h"

enum rewrite_source {
    REWRITE_SORT,     /* expression number `index` of ORDER BY */
    REWRITE_GROUP,    /* expression number `index` of GROUP BY */
    REWRITE_SUM,      /* avg(x) of select list item `index` as sum(x) */
    REWRITE_COUNT,    /* avg(x) of select list item `index` as count(x) */
    REWRITE_SORT_SUM, /* the same two for avg(x) in ORDER BY */
    REWRITE_SORT_COUNT,
};

/* A column added at the end of the select list. */
struct rewrite_column {
    enum rewrite_source source;
    int index;
};

struct rewrite_select {
    const struct rewrite_column *columns;
    int ncolumns;
    bool drop_order;  /* the order is made after merging */
    bool drop_limit;  /* LIMIT and OFFSET are applied after merging */
    bool fold_offset; /* LIMIT n OFFSET m becomes LIMIT n + m */
};

/* `text` is one SELECT, or an EXPLAIN of one (then the result is the SELECT). Fills sql and params. */
bool rewrite_select(const char *text, const struct rewrite_select *change, struct arena *arena,
                    struct shard_query *out);
/* INSERT ... VALUES taken apart: row i goes to statement number part[i], in the order they have. */
struct rewrite_rows {
    const uint16_t *part;
    int nrows;  /* as many as the statement has */
    int nparts; /* each gets one row at least */
};

/* Fills sql and params of `nparts` queries; their other fields stay. *whole: RETURNING gives a row for
 * every row of VALUES, as there is no ON CONFLICT that leaves some out. */
bool rewrite_insert(const char *text, const struct rewrite_rows *rows, struct arena *arena,
                    struct shard_query *out, bool *whole);

/* An INSERT of VALUES, or DEFAULT VALUES, whose rows get values in the place of defaults. */
struct rewrite_fill_column {
    const char *name;
    int position;              /* among the values of a row; -1: it is not there, and is added */
    const char *const *values; /* one for each row, used where it says DEFAULT; NULL: null */
};

struct rewrite_fill {
    const struct schema_relation *relation;
    const struct rewrite_fill_column *columns;
    int ncolumns, nrows;
    bool always;      /* identity columns would not take them unasked */
    bool user_values; /* OVERRIDING USER VALUE: what rows have there is not to be used */
};

/* Parameters keep their numbers (out->params is NULL), unless some of them were not used before. */
bool rewrite_fill(const char *text, const struct rewrite_fill *fill, struct arena *arena,
                  struct shard_query *out);

/* A table whose rows are brought together on one server for a query, and what of it that needs. */
struct rewrite_gather_table {
    const struct schema_relation *relation;
    const char *name; /* of the temporary table; NULL: its own, unless another table has it */
    bool unqualified; /* its name alone means it, in this session */
    bool identified;  /* in: its rows have two more columns, CHANGE_ROW and CHANGE_SHARD */
    bool *used;       /* out: the columns that the query can see, one for each of the relation's */
    bool all;   /* out: all of them, and what there may be that the schema does not know yet */
    bool keyed; /* out: rows may be grouped by the primary key, all of whose columns are used */
    struct shard_query source; /* out: "SELECT columns FROM table WHERE ...", without `shard` */
    const char *probe; /* out: reads no row, but only who may read these columns can run it */
    int mentions;      /* out: how often the query names it */
};

/*
 * One mention of a table, of which the query can use only rows that have in `column` a value that some row of another
 * relation has in `source_column`, by an = of the same type. Where all mentions of a table have such an edge, the
 * other rows need not be fetched.
 */
struct rewrite_edge {
    int table, mention; /* both counted from 0 */
    const char *column;
    int source; /* a table; -1: a relation that is read where it is: */
    const char *source_name;
    const char *source_column;
    struct shard_query rows; /* ... by this, "SELECT source_column FROM relation WHERE ..." */
};

struct rewrite_gather {
    const struct schema *schema;
    struct rewrite_gather_table *tables;
    int ntables;
    struct rewrite_edge *edges; /* out */
    int nedges;
    const char
        *obstacle; /* out, when it cannot be done: what is in the way; NULL: the form of the text */
};

/*
 * What a query reads of each table: the columns that are named anywhere in it, and the rows that its
 * own conditions on that table alone let through. `out` gets the query with the tables' schemas taken
 * off, so that temporary tables of the same names are meant; out->sql is `text` itself where there are none.
 */
bool rewrite_gather(const char *text, struct rewrite_gather *gather, struct arena *arena,
                    struct shard_query *out);
/* Whether values of the two types are equal by one and the same =, which a btree index has. */
bool rewrite_equal_types(uint32_t a, uint32_t b);

/* Where the items of a list of values stand in a text. */
struct rewrite_items {
    size_t *starts, *ends;
    int count;
    bool string; /* it is an array in one literal: that is the only item */
};
/* Of an EXPR_IN or EXPR_ANY, which was parsed from this very text. False: they are not to be seen. */
bool rewrite_list_items(const char *text, const struct expr *list, struct arena *arena,
                        struct rewrite_items *items);
/* The string as a literal. */
const char *rewrite_literal(const char *text, struct arena *arena);
/* Adds to uses[n - 1] how often $n stands in the text, for the first `room` parameters. */
void rewrite_count_params(const char *text, int *uses, int room);

/* The statement with the definitions of views as subqueries in their places. False also where a name may
 * mean something else than the view, or where no subquery can stand. */
bool rewrite_views(const char *text, const struct schema_relation *const *views, int nviews,
                   struct arena *arena, struct shard_query *out);

/* A table as the statement names it, and where the keys of its rows are that the shard does not own. */
struct rewrite_ghost_table {
    const char *schema; /* as written; NULL: not said */
    const char *name;
    const char *ghosts;       /* the table of keys, in schema pgshunt */
    const char *const *parts; /* the columns of its key */
    const enum key_type *types;
    unsigned nparts;
};

struct rewrite_ghosts {
    const struct rewrite_ghost_table *tables;
    int ntables;
    const char *const *columns; /* COPY: what it gives where it names no columns */
    int ncolumns;
    bool inherited; /* COPY: of a partitioned table */
    int hidden;     /* out: how many mentions were changed */
};

/* The statement as if the tables did not have these rows; out->sql is `text` itself where it reads none of
 * them. False: it cannot be made so. */
bool rewrite_ghosts(const char *text, struct rewrite_ghosts *ghosts, struct arena *arena,
                    struct shard_query *out);
/* COPY table TO, likewise. */
bool rewrite_ghosts_copy(const char *text, struct rewrite_ghosts *ghosts, struct arena *arena,
                         struct shard_query *out);

/* The query that gives the rows of an INSERT, with the INSERT's own WITH. */
bool rewrite_insert_source(const char *text, struct arena *arena, struct shard_query *out);

/* An INSERT around its rows. */
struct rewrite_frame {
    const char *schema; /* of the table, where it is said; NULL: it stays as it is */
    const char *head;   /* out: up to VALUES; parameters are the tail's alone */
    struct shard_query tail;
    bool updates; /* out: ON CONFLICT DO UPDATE */
};

bool rewrite_insert_frame(const char *text, struct rewrite_frame *frame, struct arena *arena);

/* An UPDATE that gives rows other keys, see struct change_move. */
struct rewrite_move {
    const struct schema_relation *relation;
    const char *const *keys; /* the key's columns */
    const enum key_type *types;
    unsigned nkeys;
    int list; /* number of the parameter that tells the rows, counted from 0: none has a higher one */
    struct shard_query look, stay, go; /* out */
    const char *head;
    struct shard_query tail;
    bool *untyped; /* values of `go` that take their type from the column */
    int ncolumns;
    int positions[SHARDMAP_MAX_PARTS]; /* of the key's columns among the new row's */
};

bool rewrite_move(const char *text, struct rewrite_move *move, struct arena *arena);

/* An UPDATE or DELETE in two: a query that finds the rows and computes what they get, where all that it
 * reads is; and the change itself of rows that are told. */
struct rewrite_apart {
    const struct schema_relation *relation;
    struct shard_query source; /* out: gives CHANGE_SHARD, CHANGE_ROW and values */
    const char *head;
    struct shard_query tail;
};

bool rewrite_apart(const char *text, struct rewrite_apart *apart, struct arena *arena);

/* Where MERGE's ON says what a column of the target's key is equal to: on one side of a condition. */
struct rewrite_partner {
    int condition; /* which of those joined by AND, counted from 0 */
    int column;    /* ... of a row in it; -1: it is none */
    int side;      /* 0: left */
};

/* A MERGE in two: a query that gives the source's rows, and the MERGE of rows that are told. */
struct rewrite_merge {
    const char *schema; /* of the target, where it is said; NULL: it stays as it is */
    const struct rewrite_partner *partners;
    unsigned npartners;
    const char *const *collated; /* columns whose collation would be lost on the way */
    int ncollated;
    struct shard_query source; /* out: gives the partners' values, and then the source's columns */
    const char *head;          /* out: up to VALUES */
    const char *alias;         /* out: up to the names of the source's columns */
    struct shard_query tail;   /* out: what is behind these; parameters are its alone */
};

/* False also where the MERGE has subqueries, or the source is not one thing with one name. */
bool rewrite_merge(const char *text, struct rewrite_merge *merge, struct arena *arena);

/* CREATE TABLE AS, or SELECT INTO, that only makes the table. */
bool rewrite_no_data(const char *text, struct arena *arena, struct shard_query *out);

/* A CREATE TABLE AS whose rows come otherwise. */
struct rewrite_create {
    struct shard_query without; /* it only makes the table */
    bool lenient;               /* IF NOT EXISTS */
    struct shard_query made;    /* ... the same without that */
    const char *exists;         /* ... tells in a row whether there is such a relation: t or f */
    const char **names;         /* of its columns, as far as it says them */
    int nnames;
    const char *head; /* INSERT INTO the table */
};

bool rewrite_create_parts(const char *text, struct arena *arena, struct rewrite_create *create);
/* WITH name AS (change), ... SELECT ..., where tables stand in for what the changes return. */
struct rewrite_cte {
    const char *name;
    const char *schema, *table; /* of the rows it returns; NULL: nobody may name it */
};

#define REWRITE_MAX_CTES 7

struct rewrite_with {
    const struct rewrite_cte *ctes; /* all of the statement's, in its order */
    int nctes;
};

/* Each change, and then the statement itself, as texts of their own. False: a part has another WITH, or names the table
 * that stands in for something, too. */
bool rewrite_with_parts(const char *text, const struct rewrite_with *with, struct arena *arena,
                        struct shard_query *parts);
/*
 * The statement `text` with these in it, whose parameters are numbered as params says. A change that is NULL is not for
 * this shard: there it returns no rows.
 */
bool rewrite_with_whole(const char *text, const struct rewrite_with *with,
                        const struct shard_query *const *parts, struct arena *arena,
                        struct shard_query *out);
/* SELECT INTO as CREATE TABLE AS. */
bool rewrite_create_as(const char *text, struct arena *arena, struct shard_query *out);

#endif
