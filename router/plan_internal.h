/*
 * plan_internal.h: what the parts of the planner share.
 *
 *   router_plan (plan.c)      hints, kinds of statement, one place or not
 *     plan_scan (plan_scan.c)      every table of the statement, at every level; keys that pin them
 *       keyfind (keyfind.c)           values of key columns: literals, casts, parameters, arrays
 *     plan_select (plan_select.c)  shapes of SELECT that shards can answer together
 *       plan_group (plan_group.c)     aggregates and GROUP BY
 *       plan_order (plan_order.c)     ORDER BY, DISTINCT, LIMIT, collations
 *     plan_split (plan_split.c)    lists of keys: to each shard its own
 *     template_make (plan_template.c)  what holds for other values, too
 *     plan_insert (plan_insert.c), plan_write (plan_write.c), plan_utility (plan_utility.c)
 *
 * The idea behind all of it: an *instance* is one mention of a sharded table. A condition like
 * `key = 5` proves that only rows of one shard matter for that instance (its shard set); an equality
 * of two keys (an *edge*) carries that proof from one instance to the other, in the directions in which
 * it is sound: both ways for inner joins, only from the preserved to the nullable side for outer joins,
 * only inwards for correlated subqueries. If all sets meet in one shard, the statement goes there as it
 * is, whatever its shape. Else it may go to several shards if the instances are joined by their keys,
 * so that every row meets its partners on its own shard, and if the results can be put together.
 */
#ifndef PGSHUNT_ROUTER_PLAN_INTERNAL_H
#define PGSHUNT_ROUTER_PLAN_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "pgshunt/plan.h"
#include "pgshunt/plan_template.h"
#include "router/rewrite.h"

#define PLAN_MAX_INSTANCES 48
#define PLAN_MAX_EDGES 96
#define PLAN_MAX_LEVELS 48
#define PLAN_MAX_FROM 64 /* tables in one FROM */
#define PLAN_MAX_ITEMS                                                                             \
    1664 /* in a select list, ORDER BY, GROUP BY; the server takes no more either */
#define PLAN_MAX_REPLACED 16   /* views of a statement that are put in, at one depth */
#define PLAN_MAX_WORK 10000000 /* names compared: about a tenth of a second */

static inline bool same_name(const char *a, const char *b)
{
    return strcmp(a, b) == 0;
}

/* ---- sets of shards ---- */

enum shard_set_kind {
    SHARDS_ALL,  /* nothing known */
    SHARDS_ONE,  /* `one` */
    SHARDS_SOME, /* two or more: `bits` */
    SHARDS_NONE, /* no row can matter (NULL = key): every shard answers right */
};

struct shard_set {
    enum shard_set_kind kind;
    unsigned one;
    uint64_t *bits; /* SHARDS_SOME, in the plan's arena, never changed once another set shares it */
    bool not_held;  /* no row that counts is of a held bucket; SHARDS_NONE: no matter */
};

bool shards_contain(const struct shard_set *set, unsigned shard);
/* How many of `nshards` shards are in the set. */
unsigned shards_count(const struct shard_set *set, unsigned nshards);
struct shard_set shards_union(struct arena *arena, unsigned nshards, const struct shard_set *a,
                              const struct shard_set *b);
struct shard_set shards_intersect(struct arena *arena, unsigned nshards, const struct shard_set *a,
                                  const struct shard_set *b);
/* No row of a held bucket is in it. */
bool shards_not_held(const struct shard_set *set);

/* ---- what is found in a statement ---- */

/* One mention of a sharded table. */
struct instance {
    const struct from_item *item;
    const struct table_rule *rule;
    struct shard_set set;
    const struct expr *pin; /* value that pinned it, for the explanation; NULL if an edge did */
    int level;              /* index of the query level */
    bool nullable;          /* an outer join may put NULLs in place of its rows */
    bool renamed;           /* its columns have other names here: nothing can be resolved to it */
    bool blank_padded;      /* the key column is char(n) */
    bool target;            /* rows of it are written */
    bool keyed;             /* a condition is about its key, though that may leave all shards */
    bool derived;           /* no table: a subquery or CTE with a key, see plan_derived.c */
    const struct table_rule
        *behind;             /* derived: of the table whose key it is, which outlives the plan */
    const struct view *view; /* a view that is like a table, see plan_view.c; NULL: none */
    const char *looked_up;   /* what a lookup has said of it, for the explanation; NULL: nothing */
    unsigned first, end; /* keys by range: entries that its conditions leave; end 0: not narrowed */
};

/* `from`'s key equals `to`'s key. */
struct edge {
    short from, to;
    short level;
    bool forward, backward; /* directions in which a shard set may be carried */
};

enum level_place {
    LEVEL_TOP,     /* the statement itself */
    LEVEL_SUBLINK, /* in an expression: may refer to what is around it */
    LEVEL_OTHER,   /* FROM (SELECT ...), CTE, branch of a set operation, source of an INSERT */
};

/* One query level that has instances of its own. */
struct level {
    const struct query *query;
    enum level_place place;
    short first, end; /* its instances */
};

/* Column scope during the walk; lives on the stack. */
struct scope {
    const struct query *query;
    const struct scope *parent;
    int level;
    short first, end;
};

/* CTE names in sight during the walk; lives on the stack. */
struct cte_names {
    const struct cte *ctes;
    int visible;
    const struct cte_names *parent;
};

/*
 * A view of sharded tables. A *local* one is like a sharded table itself: all of its rows are those that
 * its shards find each for itself, put together.
 */
struct view {
    const struct schema_relation *relation;
    const struct statement *definition; /* NULL: not understood */
    bool sharded;                       /* there are sharded tables behind it */
    bool local;
    bool ordered;           /* ... and its rows are in an order, as far as anybody looks */
    struct table_rule rule; /* local: its key are the columns that show one, "" if none do */
    struct shard_set set;   /* local: shards that may have rows of it */
    bool several_columns;   /* local: a table behind it has a key of several columns */
    bool *shows_key; /* local: which of its columns show a key; NULL: not known, none is changed */
    struct view *next;
};

/* The views met while planning one statement; lives as long as that does. */
struct views {
    struct view *list;
    int depth; /* views being looked at, one inside of the other */
};

/* What comments say; NULL: nothing. */
struct hints {
    const char *shard, *key;
    const char *shard_by; /* CREATE TABLE ... shard by COLUMN */
    struct route_wish wish;
};

/* False: something in them is wrong, and `plan` refuses. */
bool plan_take_hints(const struct statement *statement, struct hints *hints, struct arena *arena,
                     struct plan *plan);

/* The literals and parameters that a plan goes by: see plan_template.c. */
struct key_values {
    unsigned read;  /* how often one was looked at, */
    unsigned noted; /* ... and how often as a key, and understood */
    unsigned shard; /* of the last */
    bool several;   /* not all of the same shard */
    int count;      /* TEMPLATE_MAX_VALUES + 1: more than there is room for */
    struct template_value items[TEMPLATE_MAX_VALUES];
};

struct planner {
    const struct route_input *input;
    const struct hints *hints;
    const struct shardmap *map;
    const struct schema *schema;       /* may be NULL */
    const struct statement *statement; /* what is planned: for EXPLAIN, the statement inside */
    struct arena *arena;
    struct plan *plan;

    struct instance instances[PLAN_MAX_INSTANCES];
    struct edge edges[PLAN_MAX_EDGES];
    struct level levels[PLAN_MAX_LEVELS];
    int ninstances, nedges, nlevels;

    /* Names of tables met, the first of each class; NULL: none. */
    const char *reference, *unsharded, *catalog, *view;
    struct views *views;
    const struct view *replace[PLAN_MAX_REPLACED]; /* views to be put in as subqueries */
    int nreplace;
    const struct statement
        *written; /* what `statement` was before views were put in; NULL: none were */
    const struct view *const *opened; /* ... of those that it names: */
    int nopened;
    int rounds; /* how often views were put in */
    /* Targets of INSERT, UPDATE, DELETE, MERGE; first of each class. */
    const struct from_item *writes_sharded, *writes_reference, *writes_unsharded;
    const char *
        *path; /* search_path, where some schemas live on one shard; NULL: does not matter */
    int npath;
    const struct table_rule *path_rule; /* of the first such schema in it; NULL: there is none */
    int ntables;                        /* tables met, each mention */
    bool has_ctes;                      /* WITH somewhere in what was walked so far */
    bool may_wait;  /* the session would wait for a fresh schema: see plan_needs_schema */
    bool keyed;     /* a hint or the session says a key, and that counts */
    bool pending;   /* a parameter is needed that is not bound yet */
    bool moves_key; /* refused because rows would have to change shards */
    const struct schema_relation *identify; /* gathered, its rows tell where they are; or NULL */
    bool too_many;             /* more tables than there is room for: nothing is proven any more */
    long *work;                /* names compared so far, see PLAN_MAX_WORK */
    const char *unsafe_join;   /* why instances must not be joined shard by shard; NULL: they may */
    struct lookup_want *wants; /* room for LOOKUP_MAX_WANTS; NULL: none yet */
    int nwants;
    bool wants_many;         /* more than there is room for: none are asked for */
    bool wants_loose;        /* one of them in a condition that not every row has to pass */
    bool *touches_held;      /* of the whole statement, see plan_held.c; NULL: nobody asks */
    bool key_is_held;        /* the value that was found last is in a held bucket */
    bool said_not_held;      /* a key said by a hint or the session decides, and it is in none */
    struct pg_error *failed; /* an error found on the way (INSERT without key value, ...) */
    bool by_key;             /* all that matters is on one shard, as the values say */
    struct key_values values;
};

/* ---- keyfind.c ---- */

enum value_state {
    VALUE_KNOWN,
    VALUE_NULL,
    VALUE_PENDING, /* a parameter without a value yet */
    VALUE_INVALID, /* not a value of the key's type: the server will say so */
    VALUE_NOWHERE, /* known, and in no list: no row has it, and none may */
    VALUE_OPAQUE,  /* not understood: could be anything */
};

enum value_use { VALUE_COMPARED, VALUE_ASSIGNED };

/* The shard of a value compared with, or assigned to, the instance's key column. */
enum value_state keyfind_shard(struct planner *p, const struct instance *instance,
                               const struct expr *value, enum value_use use, unsigned *shard);
/* The shards of a comparison's right side; false: not understood. */
bool keyfind_equal(struct planner *p, const struct instance *instance, const struct expr *value,
                   struct shard_set *set);
/* `key IN (args[1..])`. */
bool keyfind_in(struct planner *p, const struct instance *instance, const struct expr *in,
                struct shard_set *set);
/* `key = ANY (array)`. */
bool keyfind_any(struct planner *p, const struct instance *instance, const struct expr *array,
                 struct shard_set *set);
/* The shard of each element of an IN list or an array, in order. */
enum { KEYFIND_EVERY = -1 /* NULL, or what a server will refuse */, KEYFIND_NOBODY = -2 };
struct key_owners {
    int *shards;
    int count, room;
};
/* Those of `key IN (...)` or `key = ANY (array)`; false: not understood. */
bool keyfind_owners(struct planner *p, const struct instance *instance, const struct expr *e,
                    struct key_owners *owners);
/* `key >= low AND key <= high`; either may be NULL. */
struct key_range {
    const struct expr *low, *high;
    bool before;         /* key < high: what begins at `high` is not in it */
    unsigned first, end; /* found: the entries of the keyspace that it meets */
};
/* Whether ranges of the instance's key are on some shards only. */
bool keyfind_is_range(const struct instance *instance);
/* The shards of a range of keys; false: not understood. */
bool keyfind_range(struct planner *p, const struct instance *instance, struct key_range *range,
                   struct shard_set *set);
/* The shards of the entries [first, end) of its keyspace. */
void keyfind_entries(struct planner *p, const struct instance *instance, unsigned first,
                     unsigned end, struct shard_set *set);
#define KEYFIND_ENCODING_HINT                                                                      \
    "Set client_encoding to UTF8 on this connection: keys are found by their bytes in UTF-8."
/* Whether the text is a key's in an encoding whose bytes are not those the server keeps. */
bool keyfind_is_foreign(const struct planner *p, const struct keyspace *keyspace, const char *bytes,
                        size_t length);
/* Shard of a key given as text by a hint or by the session; *held: its bucket is. */
bool keyfind_hint(const struct shardmap *map, const struct keyspace *keyspace, const char *text,
                  unsigned *shard, bool *held);

/* ---- plan_held.c: statements that have to wait while buckets move ---- */

/* The keys of the planner's instances are known as far as they will be. */
void plan_note_held(struct planner *p);
/* A key decides by itself, whatever the instances are. */
void plan_note_said(struct planner *p, bool held);
/* Not all of its tables were understood: it goes by their names. */
void plan_note_names(struct planner *p);
/* The plan is made; `by_name`: the shard was named, whatever keys there are. */
void plan_settle_held(struct planner *p, bool by_name);

/* The value as canonical text, to be compared with a column of this type (an integer type, uuid, text or
 * varchar). VALUE_OPAQUE: it cannot be told, or the server would refuse it. */
enum value_state keyfind_literal(struct planner *p, const struct expr *expr, uint32_t column_type,
                                 const char **text);
/* `column = ANY (array)`: calls `each` for its values until that returns false; false then, or if it is
 * not understood. */
bool keyfind_literals(struct planner *p, const struct expr *array, uint32_t column_type,
                      bool (*each)(void *arg, enum value_state state, const char *text), void *arg);

/* One-dimensional array values: elements in order. False from array_next: the end, or `bad`. */
struct array_reader {
    const char *at, *end;
    bool binary, bad;
    int left;         /* binary: elements to come */
    uint32_t type;    /* binary: element type */
    char *out;        /* text: where the next element goes */
    const char *item; /* the last element as it stands in the array, without a comma: */
    size_t item_length;
};
bool array_open(struct array_reader *reader, const char *bytes, size_t length, bool binary,
                struct arena *arena);
/* *bytes NULL: a NULL element. */
bool array_next(struct array_reader *reader, const char **bytes, size_t *length);

/* ---- plan_composite.c: keys of several columns ---- */

/* Which column of instance `i`'s key it is; -1: none. */
int composite_part(const struct planner *p, const struct scope *scope, const struct expr *expr,
                   int i);
/* The shards that the condition leaves for instance `i`, if it says all columns. */
bool composite_set(struct planner *p, const struct scope *scope, int i, const struct expr *e,
                   struct shard_set *set);
/* Whether the condition, or a join's USING, says that the keys of two instances are equal. */
/* The instance of the level whose key the query's results at these positions are, of the keyspace of
 * instance `with`; -1: none. */
int composite_source(const struct planner *p, const struct scope *scope, const int *positions,
                     int with);
/* The owners of `(columns of the key) IN (rows)`; false: it is not that, or not understood. */
bool composite_owners(struct planner *p, const struct scope *scope, int i, const struct expr *in,
                      struct key_owners *owners);
/* Whether assignments, or MERGE's INSERT of that number, leave rows of the instance on the shard: parts that
 * they leave alone are what the UPDATE's WHERE says. */
bool composite_stays(struct planner *p, int i, const struct target *list, int count, int insert,
                     unsigned shard);
bool composite_joined(struct planner *p, const struct scope *scope, int a, int b,
                      const struct expr *e);
bool composite_merged(const struct planner *p, const struct from_item *join, int a, int b);
/* Whether all columns of some key of the level are among these. */
bool composite_grouped(const struct planner *p, const struct scope *scope,
                       struct expr *const *group_by, int count);
/* The key of a row of VALUES as one expression; NULL: some column has no value. */
const struct expr *composite_row(struct planner *p, const struct query *query,
                                 const struct instance *target, struct expr *const *row);

/* ---- plan_merge.c ---- */

/* The shards of the keys that the rows of a MERGE's source have, and those that it adds; false: they are not
 * in its text. */
bool merge_rows_told(struct planner *p, const struct query *query, const struct instance *target,
                     struct shard_set *set);

/* ---- plan_schemas.c ---- */

void plan_read_path(struct planner *p);
/* The schema that a name means, where `schema` says none; NULL: where names mean what they always do. */
const char *plan_schema_of(const struct planner *p, const char *schema, const char *name);
/* The relation of that name, as far as it is known. */
const struct schema_relation *plan_relation(const struct planner *p, const char *schema,
                                            const char *name);
/* Whether the relation, if it is a view, reads what its schema's shard has and nothing else. */
bool plan_is_pinned_view(const struct planner *p, const struct table_rule *rule,
                         const struct schema_relation *view);
/* The first table in such a schema; NULL: none. */
const struct instance *plan_pinned(const struct planner *p);
/* False: no such table is written. */
bool plan_refuse_pinned_write(struct planner *p, const struct query *query);
/* Plans a utility statement about such schemas; false: it is about none. */
bool plan_in_schema(struct planner *p);

/* ---- plan_scan.c, plan_scope.c, plan_join.c ---- */

/* What the configuration says about a table; a partition or child is as its nearest ancestor there. */
const struct table_rule *plan_rule(const struct planner *p, const char *schema, const char *name);
/* Notes that the plan hangs on a relation which the schema does not know; it may have been made a moment
 * ago. Not where the session said that the schema is fresh, and not for schema changes. */
void plan_needs_schema(const struct planner *p, const char *schema, const char *name);
/* Fills the planner's tables from a query and everything below it. */
void plan_scan(struct planner *p, const struct query *query);
/* Registers the tables of a FROM item. */
void scope_add(struct planner *p, const struct from_item *item, int level,
               const struct cte_names *ctes);
/* The CTE that the item names, or NULL; *inside: the names that are in sight within it. */
const struct cte *scope_find_cte(const struct cte_names *names, const struct from_item *item,
                                 struct cte_names *inside);
/* Whether the key column is char(n). */
bool scope_blank_padded(const struct planner *p, const struct table_rule *rule, unsigned part,
                        const struct from_item *item);
/* The instance whose key column `expr` is, or -1. */
int scope_resolve(const struct planner *p, const struct scope *scope, const struct expr *expr);
/* The item an unqualified or qualified column belongs to within one level, or NULL if not certain. */
const struct from_item *scope_item(const struct planner *p, const struct query *query,
                                   const struct expr *column);
/* Whether some table of the level may have such a column: -1 unknown, 0 no, 1 yes. */
int scope_has_column(const struct planner *p, const struct query *query, const char *name);
/* The schema's word on a column of a FROM item; NULL: unknown. */
const struct schema_column *scope_column(const struct planner *p, const struct from_item *item,
                                         const char *name);
/* Applies WHERE and join conditions of the level. */
void join_conditions(struct planner *p, const struct scope *scope);
void join_add_edge(struct planner *p, int from, int to, int level, bool forward, bool backward);
/* `=`, not one of a user's schema. */
bool join_is_equals(const struct expr *expr);
/* Carries shard sets along the edges until nothing changes. */
void join_propagate(struct planner *p);
/* NULL: all instances are joined by their keys; else what is in the way. */
const char *join_not_colocated(const struct planner *p);
/* Union of the shard sets of all instances / of those of the top level. */
struct shard_set plan_reach(const struct planner *p);
struct shard_set plan_top_reach(const struct planner *p);

/* ---- plan_lookup.c ---- */

#define LOOKUP_MAX_WANTS 64 /* values in one statement */

/* `column = value`, IN or = ANY with a column of a lookup, of an instance in [first, end): the instance,
 * and the shards it leaves; else -1. What would have to be asked for that is noted in p->wants. `strict`: no row
 * of the level passes without it. */
int lookup_condition(struct planner *p, const struct scope *scope, int first, int end, bool strict,
                     const struct expr *e, struct shard_set *set);
/* Whether each row of the result shows that there is a row with the wanted value: see plan->shows_value. */
bool lookup_shows_value(const struct planner *p, const struct query *query);

/* ---- plan_derived.c ---- */

/* An instance for a subquery in FROM that gives a key on, if it does. */
void derived_add_subquery(struct planner *p, const struct from_item *item, int level,
                          const struct cte_names *ctes);
/* Ties it to what is inside, once that is known. */
void derived_tie_subquery(struct planner *p, const struct scope *inner, int derived,
                          const struct cte_names *ctes);
/* Both for a reference to a CTE, which was walked before. */
void derived_add_cte(struct planner *p, const struct from_item *item, const struct cte *cte,
                     int level, const struct cte_names *outside);

/* The column of a query that shows the key of an instance at its top level; -1: none. *target is its
 * number in the select list. */
int derived_shown_key(const struct planner *p, const struct query *q, int *target);

/* ---- plan_view.c ---- */

/* A view, materialized or not, with sharded tables behind it; NULL: no such view, or not known. */
const struct view *view_of(const struct planner *p, const char *schema, const char *name);
/* Whether a query is one that every shard answers for its own rows, as for a local view. */
bool view_is_local(struct planner *p, const struct statement *definition);
/* The name, if a view that has it was made or changed in this transaction; else NULL. */
const char *view_changed(const struct planner *p, const char *name);
/* Notes that the statement has to be planned with the view's definition in its place; false: cannot be. */
bool view_replace(struct planner *p, const struct view *view);
/* Plans the statement once more with what is noted put in; false: it stays as it is planned. */
bool view_plan(struct planner *p);
/* Whether a change may go through the view; false: refused. */
bool view_may_change(struct planner *p, const struct view *view, const struct query *query);
/* A table with row-level policies that who reads a view would be subject to, and not its owner; NULL: none. */
const char *view_guarded(const struct planner *p);
/* Statements that only who may read the views as the statement does can run; NULL: not known. */
const char *const *view_checks(struct planner *p, int *count);

/* ---- results ---- */

void plan_direct(struct planner *p, unsigned shard, const char *reason);
/* Refuses with p->failed, which is set. */
void plan_refuse_failed(struct planner *p);
/* What is behind a view. */
struct view_content {
    bool reference, unsharded;
    bool hidden; /* sharded tables, or something that is not known */
};
/* False: it is no view that is known. */
bool plan_is_view(const struct planner *p, const char *schema, const char *name,
                  struct view_content *holds);
/* Refuses because of view p->view. */
void plan_refuse_view(struct planner *p);
/* Refuses with 0A000; `message` is a format. */
void plan_refuse(struct planner *p, const char *hint, const char *message, ...)
    __attribute__((format(printf, 3, 4)));
void plan_refuse_state(struct planner *p, const char *sqlstate, const char *hint,
                       const char *message, ...) __attribute__((format(printf, 4, 5)));
/* Refusal of a shape over several shards; the hint names the key column to add. */
void plan_refuse_shape(struct planner *p, const char *message, ...)
    __attribute__((format(printf, 2, 3)));
/* Scatters `sql` (same for all) over the set; fills queries. */
void plan_scatter(struct planner *p, enum scatter_mode mode, const struct shard_set *set,
                  const struct shard_query *same);
/* Gives each shard of a fan-out its own elements of the lists of keys in the query's conditions. */
void plan_split_lists(struct planner *p, const struct query *query);
/* Rows of RETURNING come one shard after the other. */
void plan_append_rows(struct planner *p, const struct query *query);
/* The shard for what could run anywhere: where the transaction is already, else 0. */
unsigned plan_home(const struct planner *p);
/* Whether keys and foreign keys of the table that is made or altered can hold over the shards; false: refused.
 * Leaves notices. */
bool plan_constraints(struct planner *p);
/* What goes ahead of a statement that may find what an interrupted one has left; NULL: nothing. */
const char *plan_concurrently(const struct planner *p);
/* "id" of the first instance with its table: for hints. */
const char *plan_key_hint(const struct planner *p);

/* ---- plan_ghosts.c: rows that a shard has, but does not own ---- */

/* Changes the texts of a fan-out so that nobody sees them; refuses what cannot be changed so. */
void plan_hide_ghosts(struct planner *p);
/* The same for a statement that goes to one shard, p->plan->shard, but not because of its keys. */
void plan_hide_direct(struct planner *p);
/* ... because the shard was named: any kind of statement. */
void plan_hide_named(struct planner *p);
/* COPY table TO. */
void plan_hide_copied(struct planner *p, const struct schema_relation *relation);
/* The text for one shard, about one table; false: refused. */
bool plan_hide_table(struct planner *p, unsigned shard, const struct table_rule *rule,
                     const struct schema_relation *relation, struct shard_query *query);
/* ... about those of p's statement. */
bool plan_hide_text(struct planner *p, struct shard_query *query);
/* Whether the shard may have rows of the keyspace; NULL: it may. */
bool plan_may_have(const struct keyspace *keyspace, unsigned shard);
/* Leaves the shards out of a fan-out that own nothing of what the statement is about (`also`: or NULL). */
void plan_leave_out(struct planner *p, const struct keyspace *also);
/* The shard that owns all there is of every table; -1: there are several. */
int plan_sole_owner(const struct planner *p);
/* Puts the words of an EXPLAIN in front of the shards' texts. */
void plan_put_words(struct planner *p, const struct statement *outer,
                    const struct statement *inner);

/* ---- plan_template.c ---- */

/* Notes a value of a key that was understood. */
void template_note(struct planner *p, const struct instance *instance, const struct expr *value,
                   enum value_use use, unsigned shard);
/* Leaves a template if the plan holds for other values, too. `read`: what the statement is for itself. */
void template_make(const struct planner *p, bool read, const char *node_reason,
                   struct plan_template *made);

/* ---- parts ---- */

/* Of a read: whether it stays on the primary, for what the session or a comment (NULL: none) says. */
void plan_settle_node(const struct route_session *session, const struct hints *hints,
                      struct plan *plan);

/* Sets what has to be set; p->work and p->views are the caller's business. */
void plan_init(struct planner *p, const struct route_input *input, const struct hints *hints,
               struct arena *arena, struct plan *plan);
/* The text that shards get: the client's. */
const char *plan_text(const struct planner *p);
/* A query as it is, without gathering. */
void plan_in_gears(struct planner *p, const struct query *query);
/* A query, at the top or inside EXPLAIN, COPY and the like; p->statement is what it stands in. */
void plan_query(struct planner *p, const struct query *query);
/* Goes by pgshunt.key of a hint or of the session; false: nothing was said. */
bool plan_said_key(struct planner *p, unsigned *shard);
void plan_select(struct planner *p, const struct query *query);
/* A query that was refused for its shape: brings the rows to one server, where any shape is right. What
 * cannot be done so stays refused. */
void plan_gather(struct planner *p, const struct query *query);
/* A change that was refused: carries rows from shard to shard. Likewise. */
void plan_change(struct planner *p, const struct query *query);
/* A SELECT of what a change in its WITH returns, likewise: done on each shard by itself. */
void plan_with(struct planner *p, const struct query *query);
/* The client's values for a text that was made of its own; NULL: not known. */
const struct params *plan_take_params(struct planner *p, const struct shard_query *source);
/* `inner` is part of `source`'s text: its parameters are numbered as the client has them. */
void plan_number_as_client(struct planner *p, const struct shard_query *source,
                           struct shard_query *inner);
/* Plans a statement that is part of p's, as one of its own, into `plan`; gathered where it concerns several
 * shards, or (`gather`) in any case, `identify` (or NULL) as in struct planner. Whether it names sharded tables. */
bool plan_inner_statement(const struct planner *p, const struct statement *statement,
                          const struct params *params, struct plan *plan, bool gather,
                          const struct schema_relation *identify);
void plan_insert(struct planner *p, const struct query *query);
/* An INSERT that was refused, as it leaves to defaults what has to be known: asks a server for them first. */
void plan_draw(struct planner *p, const struct query *query);
/* ... and with the values it has given: the statement that has them; NULL: it cannot be had. */
const struct statement *plan_fill(struct planner *p, const struct query *query);
/* ... which is not what the client has sent, wherever it goes. */
void plan_send_filled(struct planner *p, const struct query *query);
/* UPDATE, DELETE, MERGE on sharded tables, over several shards. */
void plan_write(struct planner *p, const struct query *query);
/* False if an assignment could move a row to another shard than `shard` (-1: several); refused then. */
bool plan_keeps_key(struct planner *p, const struct query *query, int shard);
/* Writes to a reference table: on every shard. */
void plan_reference_write(struct planner *p);
/* Whether the columns that get their defaults get the same on every shard; else refused. */
bool plan_reference_defaults(struct planner *p, const struct query *query);
void plan_refuse_default(struct planner *p, const char *column, const char *table);
void plan_utility(struct planner *p);
/* A CREATE TABLE AS that was refused, as its rows are not on the first shard: gathers them there. */
void plan_create_gathered(struct planner *p);
/* CREATE TABLE AS as a statement that has its query as a piece of its text; NULL: it cannot be written so. */
const struct statement *plan_as_create(struct planner *p, const struct statement *outer);
/* The query in place of the statement's own. */
void plan_fill_create(struct planner *p, const struct statement *create,
                      const struct shard_query *query, struct shard_query *filled);
/* CREATE TABLE AS of a table that has rows on all shards, by the configuration. */
void plan_create_everywhere(struct planner *p, const struct table_rule *rule);
/* What CREATE TABLE ... shard by COLUMN says of a table; false: refused. Leaves a notice. */
bool plan_take_shard_by(struct planner *p, const char *table, const struct table_rule *own);
/* ... of one that is to have rows at once, and is not sharded yet. */
void plan_refuse_undeclared(struct planner *p, const char *table);
/* Plans the statement inside; what follows in the message is about it. */
void plan_inner(struct planner *p);
/* COPY of a table that is sharded, or FROM into one of reference, and of a query. */
void plan_copy_sharded(struct planner *p, const struct relation_ref *table);
void plan_copy_reference(struct planner *p, const struct relation_ref *table);
void plan_copy_query(struct planner *p);
/* What require_key makes of the plan. */
void plan_require_key(struct planner *p);
/* Position of the key among the values of an INSERT; -1: not given, -2: cannot be known (see `failed`). */
/* "tenant_id, user_id": the columns of the key. */
const char *plan_key_words(struct planner *p, const struct table_rule *rule);
/* Where an INSERT's rows have that column of the key; negative: nowhere, and `failed` says so. */
int insert_key_position(struct planner *p, const struct query *query, const struct instance *target,
                        unsigned part);
/* Shard of one row's key value; on failure `failed` is set and false returned. */
bool insert_row(struct planner *p, const struct instance *target, const struct expr *value,
                struct shard_set *set);
void insert_pin(struct planner *p, const struct query *query, int target);

/* ---- SELECT over several shards: plan_select.c, plan_order.c, plan_group.c ---- */

#define SELECT_MAX_COLUMNS 64 /* added to the select list */

struct select_plan {
    struct planner *p;
    const struct query *query;
    struct scope scope; /* of the query itself */
    struct merge_spec *spec;
    struct rewrite_column columns[SELECT_MAX_COLUMNS];
    int ncolumns;
    int star; /* index of the first `*` in the select list; -1: none */
    bool drop_order, drop_limit, fold_offset;
    bool sorts_default, sorts_c; /* text is compared in the database's collation / in C */
    bool server_judges;          /* the statement is wrong: any shard will say how */
};

/* Each false: refused. */
bool select_order(struct select_plan *s);
bool select_limits(struct select_plan *s);
bool select_group(struct select_plan *s);
/* Notes the collation in which values of the expression are sorted; false: refused, as for a type whose
 * order is not known here. */
bool select_collation(struct select_plan *s, const struct expr *expr);
/* Whether equal values of the expression can be told from others; false: refused. */
bool select_equal(struct select_plan *s, const struct expr *expr);
bool select_distinct(struct select_plan *s);
enum type_use { TYPE_ORDERED, TYPE_EQUAL, TYPE_AVERAGED };
/* Whether values of the expression's type, as far as that is known, can be used so; false: refused. */
bool select_type(struct select_plan *s, const struct expr *expr, enum type_use use);
/* The item of the select list that is the same expression; -1: none, or not at a known place. */
int select_same_target(const struct select_plan *s, const struct expr *expr);
/* The item of that name; -1: none, -2: several. */
int select_named_target(const struct select_plan *s, const char *name);
/* Adds a column to the shards' result; its number among the hidden ones, or -1: refused. */
int select_add_column(struct select_plan *s, enum rewrite_source source, int index);
bool select_has_aggregate(const struct select_plan *s, const struct expr *expr);
/* A call of count, sum, min, max or avg whose partial results can be put together. */
bool select_partial(const struct expr *expr, enum aggregate_kind *kind);

/* ---- functions ---- */

enum function_class { FUNCTION_PLAIN, FUNCTION_AGGREGATE, FUNCTION_UNSURE };
/* Whether a call in a select list is an aggregate. */
enum function_class function_class(const struct planner *p, const struct expr *call);
/* Whether calling it on every shard may give a different value on each. */
bool function_differs(const struct planner *p, const struct function_ref *function);

/* ---- expressions ---- */

/* Structural equality; false when in doubt. */
bool expr_same(const struct expr *a, const struct expr *b);
/* Calls visit for expr and all below it (subqueries are not entered) until it returns true. */
bool expr_any(const struct expr *expr, bool (*visit)(const struct expr *, void *), void *context);
bool expr_is_constant(const struct expr *expr); /* literal or parameter, cast or not */
/* The name Postgres gives a result column, NULL if it is none that can be asked for. */
const char *target_name(const struct target *target);

#endif
