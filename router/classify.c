/*
 * classify.c: read or write: may a statement run on a replica?
 *
 * Only what the whole tree proves to be a read is one. The reasons are constants, for EXPLAIN, logs and
 * counters.
 */
#include "pgshunt/plan.h"

#include <string.h>
#include <strings.h>

#include "router/builtin_functions.h"

/* What a statement is judged by. */
struct judge {
    const struct schema *schema; /* may be NULL */
    bool claimed; /* somebody vouches that it only reads: just what is known to be no read counts */
};

static enum node_class primary(const char **reason, const char *why)
{
    *reason = why;
    return NODE_CLASS_PRIMARY;
}

static enum node_class replica(const char **reason, const char *why)
{
    *reason = why;
    return NODE_CLASS_REPLICA;
}

/* ---- functions ---- */

/* NULL: fine. Else why the call keeps the statement on the primary. */
static const char *builtin_objection(enum builtin_class class)
{
    switch (class) {
    case BUILTIN_STABLE:
    case BUILTIN_HARMLESS:
        return NULL;
    case BUILTIN_VOLATILE:
        return "volatile function";
    case BUILTIN_PRIMARY:
        return "function of the primary or the session";
    case BUILTIN_UNKNOWN:
        break;
    }
    return "unknown function";
}

static const char *function_objection(const struct function_ref *call, const struct judge *judge)
{
    const struct schema *schema = judge->schema;
    /* A name that only Postgres itself has; what users defined may be anything, whatever its name. */
    bool own = call->schema ? !strcmp(call->schema, "pg_catalog")
                            : !schema || !schema_function_overridden(schema, call->name);
    enum builtin_class builtin = own ? builtin_function(call->name) : BUILTIN_UNKNOWN;
    if (builtin == BUILTIN_HARMLESS || builtin == BUILTIN_PRIMARY)
        return builtin_objection(builtin);
    if (judge->claimed && builtin != BUILTIN_VOLATILE)
        return NULL;
    enum volatility volatility =
        schema ? schema_function(schema, call->schema, call->name) : VOLATILITY_UNKNOWN;
    switch (volatility) {
    case VOLATILITY_IMMUTABLE:
    case VOLATILITY_STABLE:
        return NULL;
    case VOLATILITY_VOLATILE:
        return "volatile function";
    case VOLATILITY_UNKNOWN:
        break;
    }
    return builtin_objection(builtin);
}

/* ---- relations ---- */

/* Catalogs are written by DDL, of which a replica hears later, and views there show one node's state. */
static bool is_catalog(const struct relation_ref *relation)
{
    if (!relation->schema)
        return !strncmp(relation->name, "pg_", 3);
    return !strncmp(relation->schema, "pg_", 3) || !strcmp(relation->schema, "information_schema");
}

#define VIEWS_DEEP 32 /* Postgres allows no cycles; the bound is for a snapshot taken meanwhile */

static const char *relation_objection(const struct relation_ref *ref, const struct judge *judge,
                                      int depth);

/* The function is known as itself, not by a name that may stand for others. */
static const char *part_function_objection(const struct schema_part *part,
                                           const struct judge *judge)
{
    enum builtin_class builtin =
        strcmp(part->schema, "pg_catalog") ? BUILTIN_UNKNOWN : builtin_function(part->name);
    if (builtin == BUILTIN_HARMLESS || builtin == BUILTIN_PRIMARY)
        return builtin_objection(builtin);
    if (part->volatility == VOLATILITY_IMMUTABLE || part->volatility == VOLATILITY_STABLE)
        return NULL;
    return judge->claimed && builtin != BUILTIN_VOLATILE ? NULL : "volatile function";
}

/* What is behind a view, and what a table's policies call. */
static const char *parts_objection(const struct schema_relation *relation,
                                   const struct judge *judge, int depth)
{
    const char *why = NULL;
    for (const struct schema_part *part = relation->parts; part && !why; part = part->next) {
        struct relation_ref ref = {.schema = part->schema, .name = part->name};
        if (part->kind == PART_LOCK)
            why = "locking clause";
        else if (part->kind == PART_FUNCTION)
            why = part_function_objection(part, judge);
        else
            why = relation_objection(&ref, judge, depth + 1);
    }
    return why;
}

/* Objections that a claim overrides: what is known now may still turn out to be a read. */
static const char *kind_objection(const struct schema_relation *relation)
{
    switch (relation->kind) {
    case 'r':
    case 'p':
    case 'm':
        return relation->persistence == 'p' ? NULL : "unknown relation";
    case 'v': /* what is not known of may call anything */
        return relation->resolved ? NULL : "view";
    case 'f':
        return "foreign table";
    case 'S':
        return "sequence";
    default:
        return "unknown relation";
    }
}

static const char *one_objection(const struct schema_relation *relation, const struct judge *judge,
                                 int depth)
{
    if (relation->persistence == 't')
        return "temporary table";
    if (relation->persistence == 'u')
        return "unlogged table";
    if (depth > VIEWS_DEEP)
        return "view";
    const char *why = parts_objection(relation, judge, depth);
    return why || judge->claimed ? why : kind_objection(relation);
}

/* A name without a schema is no read if any of those it may stand for is none: the search_path may be
 * set where we do not see it. */
static const char *relation_objection(const struct relation_ref *ref, const struct judge *judge,
                                      int depth)
{
    bool known;
    if (ref->schema && !strncmp(ref->schema, "pg_temp", 7))
        return "temporary table";
    if (is_catalog(ref))
        return judge->claimed ? NULL : "system catalog";
    if (!judge->schema)
        return judge->claimed ? NULL : "schema not loaded";
    const struct schema_relation *suspect =
        schema_suspects(judge->schema, ref->schema, ref->name, &known);
    if (!known) /* perhaps a temporary one, or newer than the snapshot */
        return judge->claimed ? NULL : "unknown relation";
    const char *why = NULL;
    for (; suspect && !why; suspect = ref->schema ? NULL : suspect->other)
        why = one_objection(suspect, judge, depth);
    return why;
}

/* ---- statements ---- */

static enum node_class classify(const struct statement *statement, const struct judge *judge,
                                const char **reason);

static const char *tree_objection(const struct statement *statement, const struct judge *judge)
{
    if (statement->facts & FACT_MODIFYING_CTE)
        return "modifying CTE";
    if (statement->facts & FACT_INTO)
        return "creates a table";
    if (statement->facts & FACT_LOCKING)
        return "locking clause";
    for (int i = 0; i < statement->nfunctions; i++) {
        const char *why = function_objection(&statement->functions[i], judge);
        if (why)
            return why;
    }
    for (int i = 0; i < statement->nrelations; i++) {
        if (statement->relations[i].written)
            return "write";
        const char *why = relation_objection(&statement->relations[i], judge, 0);
        if (why)
            return why;
    }
    return NULL;
}

static enum node_class read_unless(const char *objection, const struct judge *judge,
                                   const char **reason)
{
    if (objection)
        return primary(reason, objection);
    return replica(reason, judge->claimed ? "not known to write" : "read");
}

static enum node_class classify_query(const struct statement *statement, const struct judge *judge,
                                      const char **reason)
{
    switch (statement->query->kind) {
    case QUERY_INSERT:
    case QUERY_UPDATE:
    case QUERY_DELETE:
    case QUERY_MERGE:
        return primary(reason, "write");
    case QUERY_SELECT:
    case QUERY_VALUES:
    case QUERY_SETOP:
        break;
    }
    return read_unless(tree_objection(statement, judge), judge, reason);
}

static enum node_class classify_copy_to(const struct statement *statement,
                                        const struct judge *judge, const char **reason)
{
    if (!statement->copy_stdio)
        return primary(reason, "file on the server");
    if (statement->inner)
        return classify(statement->inner, judge, reason);
    return read_unless(tree_objection(statement, judge), judge, reason);
}

/* Drivers ask with these whether they reached a primary: the answer must not depend on our choice. */
static enum node_class classify_show(const struct statement *statement, const struct judge *judge,
                                     const char **reason)
{
    if (judge->claimed)
        return replica(reason, "show");
    if (!strcmp(statement->name, "transaction_read_only") ||
        !strcmp(statement->name, "in_hot_standby") || !strcmp(statement->name, "all"))
        return primary(reason, "setting that differs on a replica");
    return replica(reason, "show");
}

/* A standby refuses SERIALIZABLE; every other READ ONLY transaction may run there. */
static enum node_class classify_begin(const struct statement *statement, const char **reason)
{
    if (!statement->tx_read_only)
        return primary(reason, "transaction control");
    if (statement->begin_options && strcasestr(statement->begin_options, "SERIALIZABLE"))
        return primary(reason, "serializable transaction");
    return replica(reason, "read only transaction");
}

/* EXPLAIN does what its statement does only with ANALYZE, but plans where that would run. */
static enum node_class classify_inner(const struct statement *statement, const struct judge *judge,
                                      const char **reason)
{
    if (!statement->inner)
        return primary(reason, "not understood");
    return classify(statement->inner, judge, reason);
}

/* One that outlives its transaction keeps a server, which shall be one that can do everything. */
static enum node_class classify_cursor(const struct statement *statement, const struct judge *judge,
                                       const char **reason)
{
    if (!statement->inner || statement->cursor_hold)
        return primary(reason, "cursor");
    return classify(statement->inner, judge, reason);
}

/* Settings are known on whichever server comes next. */
static bool is_carried_over(enum statement_kind kind)
{
    return kind == STMT_SET || kind == STMT_RESET || kind == STMT_RESET_ALL || kind == STMT_DISCARD;
}

static const char *utility_reason(enum statement_kind kind)
{
    switch (kind) {
    case STMT_COMMIT:
    case STMT_ROLLBACK:
    case STMT_SAVEPOINT:
    case STMT_RELEASE:
    case STMT_ROLLBACK_TO:
    case STMT_SET_TRANSACTION:
        return "transaction control";
    case STMT_PREPARE_TRANSACTION:
    case STMT_COMMIT_PREPARED:
    case STMT_ROLLBACK_PREPARED:
        return "two-phase commit";
    case STMT_SET:
    case STMT_RESET:
    case STMT_RESET_ALL:
    case STMT_DISCARD:
    case STMT_LOAD:
        return "session state";
    case STMT_PREPARE:
    case STMT_EXECUTE:
    case STMT_DEALLOCATE:
        return "prepared statement";
    case STMT_LISTEN:
    case STMT_UNLISTEN:
    case STMT_NOTIFY:
        return "notification";
    case STMT_DECLARE_CURSOR:
    case STMT_FETCH:
    case STMT_CLOSE_CURSOR:
        return "cursor";
    case STMT_LOCK:
        return "lock";
    case STMT_COPY_FROM:
    case STMT_TRUNCATE:
        return "write";
    case STMT_CREATE_TABLE:
    case STMT_CREATE_TABLE_AS:
        return "creates a table";
    case STMT_DDL:
    case STMT_DDL_NO_TX:
        return "schema change";
    case STMT_CALL:
    case STMT_DO:
        return "procedure";
    case STMT_CHECKPOINT:
        return "maintenance";
    case STMT_EMPTY:
        return "empty";
    case STMT_QUERY:
    case STMT_BEGIN:
    case STMT_SHOW:
    case STMT_EXPLAIN:
    case STMT_COPY_TO:
    case STMT_OTHER:
        break;
    }
    return "other statement";
}

static enum node_class classify(const struct statement *statement, const struct judge *judge,
                                const char **reason)
{
    if (statement->syntax_error)
        return primary(reason, "not understood");
    if (statement->kind == STMT_QUERY)
        return classify_query(statement, judge, reason);
    if (statement->kind == STMT_EXPLAIN)
        return classify_inner(statement, judge, reason);
    if (statement->kind == STMT_DECLARE_CURSOR)
        return classify_cursor(statement, judge, reason);
    if (statement->kind == STMT_COPY_TO)
        return classify_copy_to(statement, judge, reason);
    if (statement->kind == STMT_SHOW)
        return classify_show(statement, judge, reason);
    if (statement->kind == STMT_BEGIN)
        return classify_begin(statement, reason);
    if (judge->claimed && is_carried_over(statement->kind))
        return replica(reason, utility_reason(statement->kind));
    return primary(reason, utility_reason(statement->kind));
}

enum node_class router_classify(const struct statement *statement, const struct schema *schema,
                                const char **reason)
{
    return classify(statement, &(struct judge){.schema = schema}, reason);
}

enum node_class router_classify_claimed(const struct statement *statement,
                                        const struct schema *schema, const char **reason)
{
    return classify(statement, &(struct judge){.schema = schema, .claimed = true}, reason);
}
