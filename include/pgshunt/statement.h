/*
 * statement.h: a parsed SQL statement in our own compact form.
 *
 * router/parse.c turns Postgres' raw parse tree into these structs; nothing else knows Postgres'
 * node headers. The tree keeps the whole shape of a query (every expression is there, kinds we do not
 * interpret as EXPR_OTHER with their children), so that planners can prove things about it.
 * Everything lives in the arena given to statement_parse(); strings are copied into it.
 */
#ifndef PGSHUNT_STATEMENT_H
#define PGSHUNT_STATEMENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pgshunt/arena.h"
#include "pgshunt/error.h"
#include "pgshunt/plan_template.h"

struct query;

/* No tree is deeper than this, so walking one recursively is safe on a thread's stack. */
#define STATEMENT_MAX_DEPTH 2500

enum expr_kind {
    EXPR_COLUMN,    /* qualifier.name; schema in `schema` if three parts were given */
    EXPR_STAR,      /* `*` or qualifier.* */
    EXPR_PARAM,     /* $number */
    EXPR_CONST,     /* literal: const_kind, text in `name`, integers also in `number` */
    EXPR_CAST,      /* args[0] :: name (type name, schema in `qualifier`; typmods dropped) */
    EXPR_OP,        /* args[0] name args[1]; unary: one argument. LIKE, ILIKE... come as OTHER */
    EXPR_AND,       /* args, two or more */
    EXPR_OR,        /* args, two or more */
    EXPR_NOT,       /* args[0] */
    EXPR_IN,        /* args[0] IN (args[1..]); negated: NOT IN */
    EXPR_ANY,       /* args[0] name ANY (args[1]); args[1] an array expression, not a subquery */
    EXPR_BETWEEN,   /* args[0] BETWEEN args[1] AND args[2] */
    EXPR_NULL_TEST, /* args[0] IS NULL; negated: IS NOT NULL */
    EXPR_FUNC,      /* qualifier.name(args); details in `call` */
    EXPR_SUBLINK, /* a subquery in `query`; args[0] is the test expression, if there is one; name is
                      "EXISTS", "ANY" (also IN), "ALL", "EXPR", "ROW" or "ARRAY", qualifier its operator */
    EXPR_ROW,     /* (args) */
    EXPR_ARRAY,   /* ARRAY[args] */
    EXPR_CASE,    /* args: everything inside, in order */
    EXPR_DEFAULT, /* DEFAULT in VALUES or SET */
    EXPR_COLLATE, /* args[0] COLLATE name */
    EXPR_OTHER,   /* anything else; args are the expressions inside, name is the node's name */
};

enum const_kind { CONST_NULL, CONST_INT, CONST_FLOAT, CONST_STRING, CONST_BOOL, CONST_BITS };

struct sort_item {
    struct expr *expr;
    bool descending;
    bool nulls_first; /* resolved: explicit or the direction's default */
    bool using_op;    /* ORDER BY ... USING operator: not understood */
};

/* What a function call has beside its arguments. */
struct call_detail {
    bool star;     /* count(*) */
    bool distinct; /* count(DISTINCT x) */
    bool variadic;
    bool within_group;
    bool over;                  /* a window function call */
    struct expr *filter;        /* FILTER (WHERE ...), or NULL */
    struct sort_item *order_by; /* inside the parentheses or WITHIN GROUP */
    int norder_by;
};

struct expr {
    enum expr_kind kind;
    int location; /* byte offset in the statement's text, -1 if unknown */
    const char *name;
    const char *qualifier; /* NULL if none */
    const char *schema;    /* NULL if none */
    enum const_kind const_kind;
    int64_t number;
    bool negated;
    struct expr **args;
    int nargs;
    struct query *query;      /* EXPR_SUBLINK */
    struct call_detail *call; /* EXPR_FUNC, never NULL there */
};

/* FROM_OTHER: TABLESAMPLE (the table is `left`), XMLTABLE and JSON_TABLE (`function` holds what is
 * inside), and tables, subqueries and joins whose columns an alias renames (`t AS a(x, y)`). */
enum from_kind { FROM_TABLE, FROM_SUBQUERY, FROM_FUNCTION, FROM_JOIN, FROM_OTHER };
enum join_kind { JOIN_KIND_INNER, JOIN_KIND_LEFT, JOIN_KIND_RIGHT, JOIN_KIND_FULL };

struct from_item {
    enum from_kind kind;
    /* FROM_TABLE; a CTE's name looks the same and is told apart by query.ctes */
    const char *schema; /* NULL if unqualified */
    const char *name;
    const char *alias;    /* NULL if none */
    const char **columns; /* FROM_OTHER: names that the alias gives its first columns */
    int ncolumns;
    bool lateral;
    struct query *subquery; /* FROM_SUBQUERY */
    struct expr *function;  /* FROM_FUNCTION: the (first) call */
    /* FROM_JOIN */
    enum join_kind join;
    bool natural;
    struct from_item *left, *right;
    struct expr *on; /* NULL with USING/NATURAL/CROSS */
    const char **using_columns;
    int nusing;
    int location;
};

struct target {
    struct expr *expr;
    const char *alias; /* AS name; in INSERT/UPDATE: the column assigned */
    int merge_insert;  /* which of a MERGE's INSERTs it is of, counted from 1; 0: of none */
    int location;
};

struct cte {
    const char *name;
    struct query *query;
    bool recursive;
    int references; /* how often a FROM names it, anywhere */
    bool
        renamed; /* has a column list, `name(a, b) AS (...)`: the query's own column names are hidden */
};

enum query_kind {
    QUERY_SELECT,
    QUERY_VALUES,
    QUERY_SETOP,
    QUERY_INSERT,
    QUERY_UPDATE,
    QUERY_DELETE,
    QUERY_MERGE
};

/* One query level: SELECT, VALUES, a set operation, or a data-modifying statement. */
struct query {
    enum query_kind kind;
    struct cte *ctes;
    int nctes;
    struct target *targets; /* select list; assigned columns of INSERT and SET list of UPDATE */
    int ntargets;
    struct from_item **from; /* FROM; UPDATE ... FROM, DELETE ... USING, MERGE ... USING */
    int nfrom;
    struct from_item *relation; /* target table of a data-modifying statement */
    struct expr *where;
    struct expr **group_by;
    int ngroup_by;
    bool grouping_sets; /* GROUPING SETS, CUBE, ROLLUP */
    struct expr *having;
    bool distinct;
    struct expr **distinct_on;
    int ndistinct_on;
    bool windows; /* a WINDOW clause or any OVER at this level */
    struct sort_item *order_by;
    int norder_by;
    struct expr *limit;  /* NULL: none (also LIMIT ALL) */
    struct expr *offset; /* NULL: none */
    bool with_ties;
    bool locking;               /* FOR UPDATE / SHARE / NO KEY UPDATE / KEY SHARE */
    bool into;                  /* SELECT INTO */
    struct query *left, *right; /* QUERY_SETOP */
    const char *setop;          /* "UNION ALL", "UNION", "EXCEPT", ... */
    /* QUERY_VALUES: rows of equal length */
    struct expr ***rows;
    int nrows;
    int row_width;
    struct query *source; /* INSERT: VALUES or SELECT; NULL with DEFAULT VALUES */
    bool overriding_user; /* INSERT ... OVERRIDING USER VALUE: identity columns get their own */
    bool on_conflict;
    bool on_conflict_update;
    struct target *conflict_set; /* ON CONFLICT DO UPDATE SET; also MERGE's actions, flattened */
    int nconflict_set;
    int nmerge_inserts;
    struct target *returning;
    int nreturning;
    int where_location; /* leftmost known byte of the WHERE condition, -1 if there is none */
};

/* What CREATE TABLE, ALTER TABLE and CREATE UNIQUE INDEX say of relations[0] that holds beyond one row. */
enum table_constraint_kind { CONSTRAINT_FOREIGN_KEY, CONSTRAINT_UNIQUE, CONSTRAINT_PRIMARY_KEY };
struct table_constraint {
    enum table_constraint_kind kind;
    const char **columns; /* none where they are not told, as with USING INDEX */
    int ncolumns;
    const char *schema, *name; /* FOREIGN_KEY: the table referred to */
    const char **others;       /* ... and its columns; none: its primary key */
    int nothers;
};

enum statement_kind {
    STMT_EMPTY,
    STMT_QUERY,    /* SELECT, VALUES, TABLE, INSERT, UPDATE, DELETE, MERGE: see query */
    STMT_BEGIN,    /* BEGIN / START TRANSACTION: tx_read_only and begin_options */
    STMT_COMMIT,   /* also END; chain */
    STMT_ROLLBACK, /* also ABORT; chain */
    STMT_SAVEPOINT,
    STMT_RELEASE,
    STMT_ROLLBACK_TO,
    STMT_PREPARE_TRANSACTION,
    STMT_COMMIT_PREPARED,
    STMT_ROLLBACK_PREPARED,
    STMT_SET, /* SET / SET SESSION / SET LOCAL name; also SET TIME ZONE, SET ROLE, ... */
    STMT_SET_TRANSACTION, /* SET [SESSION CHARACTERISTICS AS] TRANSACTION */
    STMT_RESET,
    STMT_RESET_ALL,
    STMT_SHOW,
    STMT_EXPLAIN, /* inner statement in `inner`, explain_analyze */
    STMT_PREPARE, /* SQL-level; inner, name */
    STMT_EXECUTE,
    STMT_DEALLOCATE, /* name NULL: ALL */
    STMT_DISCARD,
    STMT_LISTEN,
    STMT_UNLISTEN,
    STMT_NOTIFY,
    STMT_DECLARE_CURSOR, /* inner is the query; cursor_hold */
    STMT_FETCH,          /* also MOVE */
    STMT_CLOSE_CURSOR,
    STMT_COPY_FROM, /* copy_table or NULL, copy_columns; copy_stdio */
    STMT_COPY_TO,   /* copy_table, or inner: COPY (query) TO */
    STMT_LOCK,
    STMT_TRUNCATE,
    STMT_CREATE_TABLE,    /* create_temp, create_unlogged; relations has it */
    STMT_CREATE_TABLE_AS, /* also SELECT INTO and CREATE MATERIALIZED VIEW; inner */
    STMT_DDL,             /* any other utility that changes the schema */
    STMT_DDL_NO_TX,       /* utilities that refuse to run in a transaction block */
    STMT_CALL,
    STMT_DO,
    STMT_LOAD,
    STMT_CHECKPOINT,
    STMT_OTHER,
};

/* A relation named anywhere in the statement. */
struct relation_ref {
    const char *schema;
    const char *name;
    bool written; /* target of a change, of DDL, of TRUNCATE, of LOCK, of COPY FROM */
};

struct function_ref {
    const char *schema;
    const char *name;
    int nargs;
};

/* A schema that a schema change names: CREATE SCHEMA, or as that of a function, type, ... */
struct object_schema {
    const char *name; /* NULL: of an object that is named without one */
    bool made;        /* an object is made in it */
};

/* Facts gathered over the whole tree, CTEs and subqueries included. */
enum statement_fact {
    FACT_MODIFYING_CTE = 1 << 0, /* INSERT/UPDATE/DELETE below the top level */
    FACT_LOCKING = 1 << 1,       /* a locking clause at any level */
    FACT_INTO = 1 << 2,
    FACT_SUBQUERY = 1 << 3, /* subquery or CTE anywhere */
    FACT_PARAMS = 1 << 4,   /* uses $n */
    FACT_SESSION = 1 << 5,  /* calls a function of session_function.h */
};

struct hint { /* one `key=value` or word of a pgshunt comment */
    const char *name;
    const char *value; /* NULL for a bare word */
};

struct statement {
    enum statement_kind kind;
    unsigned facts;   /* enum statement_fact bits */
    const char *text; /* this statement alone, without the semicolon; NUL-terminated */
    int location;     /* where it starts in what was parsed (may be several statements) */
    int length;
    const char *tag;         /* first words, for messages and counters: "SELECT", "CREATE TABLE" */
    struct query *query;     /* STMT_QUERY */
    struct statement *inner; /* EXPLAIN, PREPARE, DECLARE, COPY (query), CREATE TABLE AS */
    struct relation_ref *relations;
    int nrelations;
    struct table_constraint *constraints;
    int nconstraints;
    struct object_schema *schemas; /* schema changes: of what is no relation */
    int nschemas;
    struct function_ref *functions; /* calls, and operators are not listed */
    int nfunctions;
    int max_param;     /* highest $n, 0 if none */
    bool if_exists;    /* CREATE INDEX CONCURRENTLY IF NOT EXISTS: the index is `name` */
    const char *name;  /* savepoint, prepared statement, cursor, setting or channel */
    const char *value; /* SET: the right side as SQL ("'a', 'b'", "42"); NULL: TO DEFAULT */
    bool is_local;     /* SET LOCAL */
    bool chain;        /* COMMIT AND CHAIN */
    bool tx_read_only; /* BEGIN READ ONLY, SET TRANSACTION READ ONLY */
    bool tx_read_write;
    bool session_characteristics;
    const char *begin_options; /* BEGIN's options as SQL, "" if none */
    bool explain_analyze;
    const char
        *explain_format; /* "json", "xml" or "yaml"; NULL: text, or what a server will refuse */
    bool cursor_hold;
    bool cursor_binary;
    bool cursor_scroll;
    int64_t fetch_rows; /* FETCH, MOVE: so many forward, INT64_MAX: all; -1: any other way */
    bool create_temp;   /* makes (or drops, by that name) something in pg_temp */
    bool create_unlogged;
    bool create_no_data; /* CREATE TABLE AS ... WITH NO DATA */
    bool copy_stdio;     /* COPY FROM STDIN / TO STDOUT (else a server file or program) */
    const struct copy_options *copy_options;
    const char **copy_columns;
    int ncopy_columns;
    struct hint *hints; /* from comments of the form: pgshunt: name=value name2 */
    int nhints;
    bool syntax_error; /* the grammar did not understand it: kind is STMT_OTHER, text is whole */
    const char *syntax_message; /* ... and said this; NULL: it did, but it is beyond what we read */
    int syntax_position; /* ... about this character of what was parsed, from 1; 0: unknown */
    /* Kept by whom it is planned for: version of the schema by which it is a read, and nothing else about
     * it matters to one shard. 0: not known. */
    uint64_t read_in;
    struct plan_template planned; /* likewise, for other values of its literals and parameters */
};

/* The options of a COPY that say how rows look; NULL where nothing is said. */
struct copy_options {
    const char *format, *delimiter, *null, *quote, *escape, *encoding, *default_;
    bool header;
    bool force_quote_all;
    bool
        odd; /* there are others, or twice the same: whether they fit a COPY TO the server has to say */
    const char **force_null, **force_not_null; /* columns; "*" are all */
    int nforce_null, nforce_not_null;
    const char *unknown; /* one that this version does not know, or with a value not understood */
};

struct statement_list {
    struct statement **items;
    int count;
};

/*
 * Parses `sql` (NUL-terminated, one or more statements; empty gives count 0). Never fails on bad SQL:
 * what the grammar refuses, and what is nested deeper than STATEMENT_MAX_DEPTH, becomes one STMT_OTHER
 * with syntax_error set (its text is the whole of `sql`), and the server will judge it.
 * Thread-safe.
 */
struct statement_list statement_parse(const char *sql, struct arena *arena);

/* As statement_parse(); `constants` gets every EXPR_CONST made from the text, in the arena. Whatever the
 * conversion takes from a constant's value goes into its expr and nowhere else (see shape.h). */
struct constant_list {
    struct expr **items;
    int count;
};
struct statement_list statement_parse_constants(const char *sql, struct arena *arena,
                                                struct constant_list *constants);

const char *statement_kind_name(enum statement_kind kind);

#endif
