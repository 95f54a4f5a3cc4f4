/*
 * plan.h: the router's answer: where a statement goes, what is sent there, how answers are merged.
 *
 * router_plan() is pure: statement + parameters + schema + shard map in, plan out. A plan lives in the
 * arena it was made in and points into the statement and the shard map, which must outlive it.
 *
 *   PLAN_DIRECT   one shard, the original text untouched
 *   PLAN_SCATTER  several shards at once, each its SQL; rows merged as `merge` says, or gathered
 *   PLAN_REFUSE   nowhere: `error` says why and what to do (always with a hint)
 */
#ifndef PGSHUNT_PLAN_H
#define PGSHUNT_PLAN_H

#include <stdbool.h>
#include <stdint.h>

#include "pgshunt/arena.h"
#include "pgshunt/copysplit.h"
#include "pgshunt/error.h"
#include "pgshunt/merge.h"
#include "pgshunt/route.h"
#include "pgshunt/schema.h"
#include "pgshunt/shardmap.h"
#include "pgshunt/statement.h"

enum node_class {
    NODE_CLASS_PRIMARY, /* writes, and all that is not proven to be a read */
    NODE_CLASS_REPLICA, /* reads: a replica that is fresh enough, else the primary */
};

/* Values bound to $1..$n, as they came in the Bind message. */
struct param {
    const char *bytes; /* NULL: SQL NULL */
    int length;
    bool binary;
    uint32_t type_oid; /* as declared in Parse, 0: left to the server */
};

struct params {
    const struct param *items;
    int count;
};

/* What becomes of fan-outs without a key. In the order of the setting's words. */
enum require_key { REQUIRE_KEY_OFF, REQUIRE_KEY_WARN, REQUIRE_KEY_ERROR };

/* What the session says about routing. All zero: nothing said. */
struct route_session {
    const char *key;   /* pgshunt.key, or NULL */
    const char *shard; /* pgshunt.shard, or NULL */
    const char
        *force_primary;    /* why nothing runs on a replica, whoever asks for it; NULL: it may */
    bool only_declared;    /* SPLIT_CONSERVATIVE */
    enum route route;      /* of the session and all that is weaker; AUTO also where unsaid */
    bool in_transaction;   /* inside BEGIN ... COMMIT: reads stay on the primary */
    bool on_primary;       /* ... which has begun on one */
    bool read_only;        /* the transaction, or the session's default, is READ ONLY */
    int transaction_shard; /* shard the transaction is on already, -1: none yet */
    int sequence_shard;    /* ... that knows currval(), counted from 1; 0: not known */
    bool schema_is_fresh;  /* the schema was read just now: what it does not know is not there */
    bool foreign_encoding; /* client_encoding is neither UTF8 nor SQL_ASCII */
    bool ascii_hides; /* ... and hides ASCII bytes in characters: text cannot be cut into rows */
    bool temp_tables; /* the session has made temporary tables (on the first shard) */
    enum require_key require_key;
    int gather_home; /* in_transaction and read_only: the shard that may gather, -1: none */
    /* Views that the transaction has made or changed, which the schema does not show yet; NULL ends them. */
    const char *const *changed_views;
    const char *search_path; /* as SHOW has it; NULL: not known, or it does not matter */
    const char *user;        /* what "$user" means there */
    bool schema_is_stale;    /* DDL has been seen since it was read */
    bool schema_changes;     /* the transaction has changed it, unseen by others */
};

/* Where the rows with a value of a lookup's column are, as the shards have said. */
struct lookup_answer {
    const struct lookup_rule *lookup;
    const char *value;  /* canonical text */
    const bool *shards; /* by number, for all shards of the map */
    const char *key;    /* of one of its rows, for people; NULL: not told, or there are none */
    bool cached;        /* it was remembered, and the shard has confirmed it */
};

struct lookup_answers {
    const struct lookup_answer *items;
    int count;
    const bool
        *here; /* shards whose rows the session may have changed unseen by others; NULL: none */
};

/* What the planner would like to know: a value whose shard would make the plan a better one. */
struct lookup_want {
    const struct lookup_rule *lookup;
    const char *value;
};

/* What the defaults of an INSERT's columns have given, see SCATTER_DRAW: row by row. NULL: SQL NULL. */
struct drawn_values {
    const char *const *items;
    int count;
};

struct route_input {
    const struct statement *statement;
    const struct shardmap *map;
    const struct schema
        *schema; /* NULL: not loaded yet; then nothing is provably a read with calls */
    const struct params *params;          /* NULL: not known (Parse, Describe): see needs_params */
    const struct route_session *session;  /* NULL: defaults */
    const struct lookup_answers *lookups; /* NULL: lookups are not used */
    const struct drawn_values *drawn;     /* NULL: nothing was drawn yet */
    struct plan_template *made; /* gets a template of the plan, if there is one; NULL: not wanted */
};

/* How new the schema has to be that a plan is made by. */
enum schema_need {
    SCHEMA_ANY,
    SCHEMA_CURRENT, /* read after the last change that went through this proxy: a view may be another now */
    SCHEMA_FRESH, /* read just now: the plan hangs on something that the schema does not know */
};

enum plan_kind { PLAN_DIRECT, PLAN_SCATTER, PLAN_REFUSE };

/* How the tags and rows of a scatter become one answer. */
enum scatter_mode {
    SCATTER_ROWS,  /* a SELECT: rows merged by `merge` */
    SCATTER_WRITE, /* INSERT/UPDATE/DELETE: row counts added, RETURNING rows appended */
    SCATTER_UTILITY, /* DDL, TRUNCATE, ...: on all shards, one tag; tag, notices and rows of the first query */
    SCATTER_CURSOR, /* DECLARE: a portal on each shard; rows merged by `merge` as they are fetched */
    SCATTER_COPY_IN,  /* COPY FROM STDIN: rows to the shards of their keys, or all to all: `copy` */
    SCATTER_COPY_OUT, /* COPY TO STDOUT: one shard's rows and the other's */
    SCATTER_GATHER,   /* the rows it needs are brought to one server, which answers: `gather` */
    SCATTER_CHANGE,   /* rows go from shard to shard: `change` */
    SCATTER_DRAW, /* the only query gives what defaults decide the shards by: then it is planned anew */
};

struct shard_query {
    unsigned shard;
    const char *sql; /* text for this shard */
    /* Parameters used by `sql`: its $i is the client's parameter params[i-1] (0-based numbers). NULL:
     * the same parameters unchanged. */
    const int *params;
    int nparams;
    /* As many as the client has bound, to be sent in their place: this shard's elements of a list of
     * keys. NULL: the client's own. */
    const struct param *values;
    bool primary; /* on the primary, whatever the plan's class is */
};

/* A table whose rows are brought together: into a temporary table of its name. */
struct gather_table {
    const char *name;          /* for messages */
    const char *relation;      /* pg_temp."name" */
    struct shard_query create; /* makes the temporary table, with the gathering shard's own rows */
    struct shard_query make;   /* ... without rows: it has none that matter */
    bool rows_here;            /* `create` it is */
    const char *add_key;       /* gives it its primary key, when it is filled; NULL: not needed */
    struct shard_query source; /* reads the rows on the others, */
    struct shard_query
        hidden;        /* ... and on those that have ghost rows of it, see gather_source() */
    const bool *hides; /* by shard: `hidden` is for it; NULL: for none */
    unsigned *shards;  /* which are these */
    int nshards;
    struct shard_query own; /* the gathering shard's rows, as `create` has them */
    int mentions;           /* how often the query names it: see struct gather_edge */
    bool identified; /* `source` is not quite the same for all of them: see change_of_shard() */
    bool text; /* rows travel as text: binary values of its types are not alike on all shards */
};

/* What reads the table's rows on the shard. */
static inline const struct shard_query *gather_source(const struct gather_table *table,
                                                      unsigned shard)
{
    return table->hides && table->hides[shard] ? &table->hidden : &table->source;
}

/*
 * A semi-join: of one mention of a table only those rows are needed that have in `column` a value that some row of
 * another has in `source_column`. Where each mention has such an edge whose values are known, the table can be fetched
 * without its other rows. Whether that pays, statistics say: gather_reduce.h.
 */
struct gather_edge {
    int table, mention; /* counted from 0 */
    const char *column;
    uint32_t type; /* of the column */
    int source;    /* a table; -1: a relation that the gathering shard has: */
    const char *source_name;
    const char *source_column;
    struct shard_query rows; /* ... read by this: one column */
    const struct keyspace
        *keyspace; /* `column` is the table's key: a value tells its shard; else NULL */
};

struct gather_plan {
    struct gather_table *tables;
    int ntables;
    struct shard_query query; /* what runs at last, on plan.shard */
    const char *const
        *checks; /* run there at first: they fail where the user may not read a view */
    int nchecks;
    bool empty;      /* EXPLAIN: the tables stay without rows */
    bool cursor;     /* DECLARE: a portal is opened for the query */
    const char *why; /* why no better gear would do */
    const struct gather_edge *edges;
    int nedges;
    /* Some edge has a source of the gathering shard: its rows must be the same for the query as for the edge. */
    bool steady;
};

struct plan {
    enum plan_kind kind;
    enum node_class node;
    bool write;        /* changes data (for transactions and read-your-writes) */
    bool any_shard;    /* every shard would answer the same: `shard` is only a default */
    bool needs_params; /* routed without parameters it needs: good for Describe only */
    enum schema_need needs_schema;
    /* Rows of buckets that are held (shardmap.h) are concerned, or may be: it has to wait. Never set where the map
     * holds nothing. */
    bool touches_held;
    bool hides_ghosts;   /* the shards' texts leave out rows that they do not own */
    bool no_transaction; /* must not be wrapped in BEGIN (CREATE INDEX CONCURRENTLY, VACUUM) */
    const char *ahead;   /* ... and what runs first on each shard; NULL: nothing */
    const struct lookup_want *wants; /* good as it is, but better once these are known */
    int nwants;
    /* A read that wants one value, and whose every row is of a row with this value: where it was sent to a
     * shard that has it no more, it has none. */
    bool shows_value;
    unsigned shard;          /* PLAN_DIRECT */
    const char *reason;      /* why this gear, for EXPLAIN and logs: "key id = 42" */
    const char *node_reason; /* why this node class: "read", "locking clause", ... */
    enum scatter_mode mode;  /* PLAN_SCATTER */
    struct shard_query *queries;
    int nqueries;
    const struct merge_spec *merge; /* SCATTER_ROWS, and WRITE with RETURNING */
    const struct route_wish *wish;  /* what comments say of the replica; NULL: nothing */
    const struct gather_plan
        *gather; /* SCATTER_GATHER; `shard` is where, `queries` all that take part */
    /* SCATTER_COPY_IN, SCATTER_COPY_OUT; with SCATTER_ROWS the client gets the merged rows as a COPY. */
    const struct copy_rows *copy;
    const struct change_plan *change; /* SCATTER_CHANGE (change.h); `shard` judges the statement */
    struct pg_error error;            /* PLAN_REFUSE */
    /* A fan-out without a key that require_key has something against: what is told of it, the refusal
     * (also EXPLAIN's, which runs) or a warning. NULL: nothing. */
    const struct pg_error *keyless;
    const struct pg_error *notices; /* SCATTER_UTILITY: what is to be known of it */
    int nnotices;
};

/* Class of one statement alone, without shards: the read/write rules. Fills *reason. */
enum node_class router_classify(const struct statement *statement, const struct schema *schema,
                                const char **reason);
/* The same where somebody vouches that it only reads (route "replica"): for the primary is then just what
 * is known to be no read, or would not mean the same on a replica. */
enum node_class router_classify_claimed(const struct statement *statement,
                                        const struct schema *schema, const char **reason);
void router_plan(const struct route_input *input, struct arena *arena, struct plan *plan);
/*
 * Plan for a simple query of several statements run as one message: all must go to one place (then the
 * text is forwarded whole, a plan of kind PLAN_DIRECT), else PLAN_REFUSE.
 */
void router_plan_list(const struct statement_list *list, const struct route_input *input,
                      struct arena *arena, struct plan *plan);
/* The plan in words, one line each, as EXPLAIN shows them. Returns the number of lines. */
int router_explain(const struct plan *plan, const struct shardmap *map, struct arena *arena,
                   const char ***lines);

#endif
