/*
 * parse_internal.h: what the parse*.c files share: the conversion in progress, and the small lexer.
 *
 *   statement_parse (parse.c)           text -> Postgres' raw trees -> one struct statement each
 *     parse_utility (parse_utility*.c)  everything that is not a query
 *     parse_query (parse_query.c)       one query level, its CTEs and FROM
 *       parse_expr (parse_expr.c)       expressions; meets subqueries and calls parse_query again
 *     scan_* (parse_scan.c)             hints in comments, where an inner statement's text is
 */
#ifndef PGSHUNT_PARSE_INTERNAL_H
#define PGSHUNT_PARSE_INTERNAL_H

#include "router/pgtree.h"

#include "pgshunt/arena.h"
#include "pgshunt/statement.h"

/* CTE names in sight. `visible` of `ctes` can be referred to: all with RECURSIVE, else those before. */
struct cte_scope {
    const struct cte_scope *outer;
    struct cte *ctes;
    int visible;
};

struct convert {
    struct arena *arena;
    struct statement *statement; /* facts, relations, functions and parameters are noted here */
    const char *sql;             /* the whole text given to the parser */
    int base;                    /* where statement->text starts in it */
    int depth;                   /* of the tree, against STATEMENT_MAX_DEPTH */
    int query_depth;
    int ctes_in_scope;
    bool failed; /* too deep, or a node we do not know: the statement counts as not understood */
    struct query *query; /* the level being converted */
    const struct cte_scope *scope;
    struct constant_list *constants; /* every EXPR_CONST is noted here; NULL: nobody asks */
};

/* Room for one more of `count` items of `size` bytes: the array, moved when it is full. */
void *parse_grow(struct arena *arena, void *items, int count, size_t size);
/* Enters one tree level; false (and failed is set) when it is one too many. */
bool parse_enter(struct convert *c);
void parse_leave(struct convert *c);
/* Offset in the statement's text of an offset in what was parsed. */
int parse_location(const struct convert *c, int location);
char *parse_copy(const struct convert *c, const char *text); /* NULL stays NULL */
/* The last name of a qualified one; *qualifier gets the one before it, or NULL. */
const char *parse_name(const struct convert *c, const List *names, const char **qualifier);
void parse_note_relation(struct convert *c, const char *schema, const char *name, bool written);
/* TEMP, or in schema pg_temp. */
bool parse_is_temporary(const RangeVar *range);
void parse_note_range(struct convert *c, const RangeVar *range, bool written);

struct expr *parse_expr(struct convert *c, Node *node); /* NULL gives NULL */
int parse_exprs(struct convert *c, const List *list, struct expr ***out);
int parse_sort(struct convert *c, const List *list, struct sort_item **out);
/* Appends what is in `node`, or in the list it is, to the parent's arguments. NULL appends nothing. */
void parse_children(struct convert *c, Node *node, struct expr *parent);
/* Notes what is inside (calls, parameters, subqueries) where our tree has no place for it. */
void parse_discard(struct convert *c, Node *node);

/* SELECT, INSERT, UPDATE, DELETE and MERGE. */
bool parse_is_query(const Node *node);
struct query *parse_query(struct convert *c, Node *node);

/* Fills the statement from a node that is not a query. */
void parse_utility(struct convert *c, Node *node);
/* Settings, SHOW and transaction control (parse_session.c); false: `node` is none of these. */
bool parse_session(struct convert *c, Node *node);
/* Schema changes and maintenance (parse_ddl.c): all that is left. */
void parse_ddl(struct convert *c, Node *node);
/* Notes the schemas of what it names that is no relation (parse_schemas.c). */
void parse_schemas(struct convert *c, Node *node);
/* The value of a yes/no option: absent means yes, and so does what we cannot read. */
bool parse_option_on(const DefElem *option);
/* Converts a statement inside this one into statement->inner and takes over what it noted. */
void parse_inner(struct convert *c, Node *node);

/* ---- parse_scan.c ---- */

enum scan_kind {
    SCAN_END,
    SCAN_WORD,
    SCAN_STRING, /* every kind of string constant */
    SCAN_QUOTED, /* "identifier" */
    SCAN_OTHER,  /* number, or one byte of punctuation */
    SCAN_COMMENT,
};

struct scan {
    const char *text;
    size_t at;
    size_t end;
};

struct token {
    enum scan_kind kind;
    size_t start;
    size_t end;
};

/* Next token, comments included; never passes the end, whatever is unterminated. */
struct token scan_next(struct scan *scan);
/* Next token that is no comment. */
struct token scan_next_word(struct scan *scan);
bool scan_is(const struct scan *scan, const struct token *token, const char *upper_word);
/* Adds the hints of all comments in the text to the statement. */
void scan_hints(const char *text, size_t length, struct arena *arena, struct statement *statement);
/* Where the inner statement of an EXPLAIN, PREPARE, DECLARE, COPY or CREATE ... AS is. */
bool scan_inner(enum statement_kind kind, const char *text, size_t length, size_t *start,
                size_t *end);
/* "CREATE TABLE", "GRANT": what kind of command the text is, by its first words. */
const char *scan_tag(const char *text, size_t length, struct arena *arena);
/* A literal that means `text` whatever standard_conforming_strings is. */
char *scan_quote(const char *text, struct arena *arena);

/* ---- parse_constraints.c ---- */

/* Notes it as one of the statement's, and the table it refers to; `column` is whose it is, NULL: the table's. */
void parse_constraint(struct convert *c, const Constraint *constraint, const char *column);
void parse_constraints(struct convert *c, const List *constraints, const char *column);
void parse_unique_index(struct convert *c, const IndexStmt *index);

#endif
