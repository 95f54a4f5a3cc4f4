/*
 * schema.h: what the router must know of a database's catalog: relations with their columns, and
 * whether functions are volatile. An immutable snapshot, built by a loader (proxy/schema_loader.c from
 * pg_class, pg_attribute, pg_proc; or by hand in tests), looked up by the pure router.
 *
 * Unqualified names are resolved without a search_path: a function name counts as volatile if any
 * function of that name in any schema is; a relation name means the one in "public" if there is one,
 * else the only one there is.
 */
#ifndef PGSHUNT_SCHEMA_H
#define PGSHUNT_SCHEMA_H

#include <stdbool.h>
#include <stdint.h>

struct schema;

enum volatility {
    VOLATILITY_UNKNOWN,
    VOLATILITY_IMMUTABLE,
    VOLATILITY_STABLE,
    VOLATILITY_VOLATILE
};

/* pg_class.relkind, as it is there. */
struct schema_column {
    const char *name;
    uint32_t type_oid;
    bool collation_default; /* the column's collation is the database's default, or none applies */
    const char *collation;  /* name of its own collation ("C"), if not the default; else NULL */
    bool primary_key;       /* is, or is part of, the primary key */
    bool generated;         /* GENERATED ALWAYS AS (expression): nobody gives it a value */
    bool default_differs;   /* its default, or identity, gives another value each time or place */
    char identity;          /* GENERATED a ALWAYS, d BY DEFAULT AS IDENTITY; 0: neither */
    const char
        *default_sql; /* what that value is, as SQL with every name in full; NULL: not known */
};

/* What a view is made of, or a row-level policy of a table: named by the server, so that no search_path is
 * involved and no operator's or cast's function is missed. */
enum schema_part_kind { PART_RELATION, PART_FUNCTION, PART_LOCK };

struct schema_part {
    enum schema_part_kind kind;
    const char *schema; /* RELATION and FUNCTION */
    const char *name;
    enum volatility volatility; /* FUNCTION: of this very one, among those of its name */
    const struct schema_part *next;
};

struct schema_relation {
    const char *schema;
    const char *name;
    char kind; /* r table, p partitioned, v view, m matview, f foreign, S sequence. A table with a
                       * foreign one among its partitions or children is f: rows come from elsewhere */
    char persistence; /* p permanent, u unlogged (also if a partition or child is), t temporary */
    struct schema_column *columns; /* in attnum order, dropped ones left out */
    int ncolumns;
    const char *
        *types; /* of the columns, as SQL, where other shards do not have the table; else NULL */
    const char
        *parent_schema; /* of what it is a partition or inheritance child of; NULL: of nothing */
    const char *parent; /* the nearest; of several parents the first */
    bool row_security;  /* its policies count for those who do not own it */
    /* Filled in by schema_add_part(), schema_set_definition() and schema_add_relation(). */
    const struct schema_part *parts; /* in no order */
    bool resolved;                   /* a view: parts are all there are */
    bool invoker;                    /* a view that runs with the rights of who reads it */
    const char *definition; /* of a view, materialized or not; every name in it has its schema */
    const struct schema_relation *other; /* the next of this name, in another schema */
};

struct schema *schema_new(void);
/* Copies everything. */
void schema_add_relation(struct schema *schema, const struct schema_relation *relation);
/* A part of a relation added before; NULL: it has no more than are told of. Copies everything. */
void schema_add_part(struct schema *schema, const char *schema_name, const char *name,
                     const struct schema_part *part);
/* What a column of a relation added before gets where nothing is said. Copies. */
void schema_set_default(struct schema *schema, const char *schema_name, const char *name,
                        const char *column, const char *sql, char identity);
/* What a view added before is made of: a SELECT, copied. */
void schema_set_definition(struct schema *schema, const char *schema_name, const char *name,
                           const char *definition, bool invoker);
/* Several calls with one name keep the most volatile. */
void schema_add_function(struct schema *schema, const char *schema_name, const char *name,
                         enum volatility volatility);
/* pg_database.datcollate and the provider ('c' libc, 'i' ICU) of the database. */
void schema_set_collation(struct schema *schema, const char *collate, char provider);
/* ALTER ROLE ... SET search_path: role NULL is everybody's (ALTER DATABASE); `here`: in this database only.
 * The most special one counts. */
void schema_add_search_path(struct schema *schema, const char *role, bool here, const char *path);
void schema_free(struct schema *schema);

/* The role's search_path, as ALTER ROLE and ALTER DATABASE have it; NULL: they say nothing. */
const char *schema_search_path(const struct schema *schema, const char *role);
/* NULL: unknown. schema_name NULL: unqualified. */
const struct schema_relation *schema_relation(const struct schema *schema, const char *schema_name,
                                              const char *name);
/* The same, but where an unqualified name may mean several: one of them, not NULL. */
const struct schema_relation *schema_relation_any(const struct schema *schema,
                                                  const char *schema_name, const char *name);
/* The same, but NULL where an unqualified name may mean several. */
const struct schema_relation *schema_relation_only(const struct schema *schema,
                                                   const char *schema_name, const char *name);
/*
 * What is to be looked at when a statement reads what the name stands for, whatever its search_path: the
 * first of them, `other` is the next, which is followed where no schema is named. NULL with *known: there are
 * some, and all of them are permanent tables without policies.
 */
const struct schema_relation *schema_suspects(const struct schema *schema, const char *schema_name,
                                              const char *name, bool *known);
const struct schema_column *schema_column(const struct schema_relation *relation, const char *name);
enum volatility schema_function(const struct schema *schema, const char *schema_name,
                                const char *name);
/* Whether a schema other than pg_catalog has a function of this name (an unqualified call may mean it). */
bool schema_function_overridden(const struct schema *schema, const char *name);
const char *schema_collate(const struct schema *schema);
char schema_collation_provider(const struct schema *schema);

#endif
