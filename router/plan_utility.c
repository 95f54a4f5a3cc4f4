/* plan_utility.c: everything that is not a query: the session's own statements, schema, COPY, cursors. */
#include "router/plan_internal.h"

/*
 * Schema changes of permanent objects go to every shard, also those of unsharded tables, so that all
 * schemas stay alike; the rows of an unsharded table are on the first shard alone, so what is about
 * rows (TRUNCATE, VACUUM, ANALYZE, LOCK) stays there. Temporary objects live on the first shard.
 */

/* The relations a statement names, counted by class. */
struct named {
    int sharded, reference; /* written */
    int unsharded;          /* written */
    int temporary;          /* written, or read by a view, which is temporary then */
    int read_sharded, read_reference, read_unsharded, read_temporary;
    const char *first_sharded, *first_shared, *first_unsharded, *first_temporary;
};

static bool tag_starts(const struct statement *statement, const char *word)
{
    return strncmp(statement->tag, word, strlen(word)) == 0;
}

static bool creates_view(const struct statement *statement)
{
    return tag_starts(statement, "CREATE") && strstr(statement->tag, "VIEW");
}

/* Whether the first relation named is made by the statement. */
static bool makes_relation(const struct statement *statement)
{
    return statement->kind == STMT_CREATE_TABLE || statement->kind == STMT_CREATE_TABLE_AS ||
           creates_view(statement) ||
           (tag_starts(statement, "CREATE") && strstr(statement->tag, "SEQUENCE"));
}

static bool names_indexes(const struct statement *statement)
{
    return strstr(statement->tag, "INDEX") && !tag_starts(statement, "CREATE");
}

/* In a session with temporary tables, a relation that the schema does not know is taken for one. */
static bool is_temporary(const struct planner *p, const struct relation_ref *ref)
{
    const struct route_session *session = p->input->session;
    if (ref->schema)
        return strncmp(ref->schema, "pg_temp", 7) == 0;
    if (!session || !session->temp_tables || !p->schema || names_indexes(p->statement) ||
        (makes_relation(p->statement) && ref->written))
        return false;
    return !schema_relation_any(p->schema, NULL, ref->name);
}

static void count_written(enum table_class class, bool temporary, struct named *named)
{
    if (class == TABLE_SHARDED || class == TABLE_PINNED)
        named->sharded++;
    else if (class == TABLE_REFERENCE)
        named->reference++;
    else
        named->unsharded += !temporary;
}

static void count_read(enum table_class class, struct named *named)
{
    if (class == TABLE_SHARDED || class == TABLE_PINNED)
        named->read_sharded++;
    else if (class == TABLE_REFERENCE)
        named->read_reference++;
    else
        named->read_unsharded++;
}

static struct named count_names(const struct planner *p)
{
    struct named named = {0};
    for (int i = 0; i < p->statement->nrelations; i++) {
        const struct relation_ref *ref = &p->statement->relations[i];
        enum table_class class = plan_rule(p, ref->schema, ref->name)->class;
        bool temporary = class == TABLE_UNSHARDED && is_temporary(p, ref);
        if ((class == TABLE_SHARDED || class == TABLE_PINNED) && !named.first_sharded)
            named.first_sharded = ref->name;
        if (class != TABLE_UNSHARDED && !named.first_shared)
            named.first_shared = ref->name;
        if (class == TABLE_UNSHARDED && !temporary && !named.first_unsharded)
            named.first_unsharded = ref->name;
        if (temporary) {
            named.temporary += ref->written || creates_view(p->statement);
            named.read_temporary += !ref->written;
            named.first_temporary = ref->name;
        }
        if (ref->written)
            count_written(class, temporary, &named);
        else
            count_read(class, &named);
    }
    return named;
}

/* ---- schema ---- */

static void everywhere(struct planner *p, const char *reason)
{
    struct shard_set all = {.kind = SHARDS_ALL};
    plan_scatter(p, SCATTER_UTILITY, &all, NULL);
    p->plan->reason = reason;
}

static bool is_about_rows(const struct statement *statement)
{
    return statement->kind == STMT_TRUNCATE || tag_starts(statement, "VACUUM") ||
           tag_starts(statement, "ANALYZE");
}

static void refuse_mixed(struct planner *p, const char *first, const char *others)
{
    plan_refuse(p, "Use a statement for each table.",
                "%s of \"%s\" together with %s is not supported yet", p->statement->tag, first,
                others);
}

static void plan_rows(struct planner *p, const struct named *named)
{
    int shared = named->sharded + named->reference;
    if (shared && named->unsharded)
        refuse_mixed(p, named->first_unsharded, "tables that are on every shard");
    else if (named->unsharded)
        plan_direct(p, 0, "rows of unsharded tables");
    else
        everywhere(p, shared ? "tables on every shard" : "all tables");
}

static const char *find_view(const struct planner *p)
{
    for (int i = 0; i < p->statement->nrelations && p->schema; i++) {
        const struct relation_ref *ref = &p->statement->relations[i];
        struct view_content holds;
        if (ref->written)
            continue;
        if (plan_is_view(p, ref->schema, ref->name, &holds) && holds.hidden)
            return ref->name;
    }
    return NULL;
}

static bool reads_sharded(const struct planner *p, const struct named *named)
{
    return named->read_sharded || find_view(p);
}

static void plan_schema(struct planner *p)
{
    const struct statement *statement = p->statement;
    struct named named = count_names(p);
    int permanent = named.sharded + named.reference + named.unsharded;
    if (statement->create_temp && creates_view(statement) && reads_sharded(p, &named))
        plan_refuse(p, "Make it a view that is not temporary.",
                    "a temporary view of rows on several shards is not supported yet");
    else if (statement->create_temp)
        plan_direct(p, 0, "temporary object");
    else if (named.temporary && permanent && !creates_view(statement))
        refuse_mixed(p, named.first_temporary, "tables that are not temporary");
    else if (named.temporary)
        plan_direct(p, 0, "temporary object");
    else if (is_about_rows(statement))
        plan_rows(p, &named);
    else if (plan_constraints(p))
        everywhere(p, "schema change");
    p->plan->ahead = plan_concurrently(p);
}

/* ---- around a query ---- */

void plan_inner(struct planner *p)
{
    const struct statement *inner = p->statement->inner;
    if (!inner) {
        plan_direct(p, plan_home(p), "no statement inside");
        return;
    }
    p->statement = inner;
    if (inner->query)
        plan_query(p, inner->query);
    else
        plan_utility(p);
}

void plan_put_words(struct planner *p, const struct statement *outer, const struct statement *inner)
{
    struct plan *plan = p->plan;
    int words = inner->location - outer->location;
    if (words <= 0 || words >= outer->length) {
        plan_refuse_shape(p, "EXPLAIN of this form over several shards");
        return;
    }
    const char *plain = NULL, *explained = NULL;
    for (int i = 0; i < plan->nqueries; i++) {
        if (plan->queries[i].sql != plain) {
            plain = plan->queries[i].sql;
            explained = arena_printf(p->arena, "%.*s%s", words, outer->text, plain);
        }
        plan->queries[i].sql = explained;
    }
}

/* The shards explain what each of them would run: the words before the statement go in front. */
static void plan_explain(struct planner *p)
{
    const struct statement *outer = p->statement, *inner = outer->inner;
    struct plan *plan = p->plan;
    plan_inner(p);
    if (plan->kind != PLAN_SCATTER || plan->mode == SCATTER_GATHER)
        return;
    if (plan->mode == SCATTER_CURSOR) /* EXPLAIN DECLARE is about its query */
        plan->mode = SCATTER_ROWS;
    plan_put_words(p, outer, inner);
}

/* What works only where a single shard gives the rows. */
static void plan_inner_direct(struct planner *p, const char *what)
{
    plan_inner(p);
    if (p->plan->kind == PLAN_SCATTER && p->plan->mode != SCATTER_GATHER)
        plan_refuse_shape(p, "%s over several shards", what);
}

static void plan_cursor(struct planner *p)
{
    const struct statement *declare = p->statement;
    struct plan *plan = p->plan;
    plan_inner(p);
    if (plan->kind != PLAN_SCATTER)
        return;
    bool gathered = plan->mode == SCATTER_GATHER && !plan->write;
    if (!gathered && (plan->mode != SCATTER_ROWS || !plan->merge))
        plan_refuse_shape(p, "a cursor for a change");
    else if (declare->cursor_hold)
        plan_refuse_shape(p, "a cursor WITH HOLD over several shards");
    else if (declare->cursor_scroll)
        plan_refuse_shape(p, "a SCROLL cursor over several shards");
    else if (!gathered)
        plan->mode = SCATTER_CURSOR;
}

/* Each shard keeps what it finds itself, which together is all of it. */
static bool is_local_view(struct planner *p)
{
    const struct statement *outer = p->statement;
    return creates_view(outer) && !outer->create_temp && outer->inner && outer->inner->query &&
           view_is_local(p, outer->inner);
}

/* The others get the same table without rows; a materialized view is refreshed there with its own. */
static void plan_table_everywhere(struct planner *p)
{
    struct plan *plan = p->plan;
    struct shard_query empty = {0};
    bool view = creates_view(p->statement);
    if (!view && !rewrite_no_data(p->statement->text, p->arena, &empty)) {
        plan_refuse(p, "Create the table first, then fill it with INSERT.",
                    "this form of %s in a sharded database is not supported yet",
                    p->statement->tag);
        return;
    }
    everywhere(p, "schema change, its rows on the first shard");
    for (int i = 1; i < plan->nqueries && !view; i++) {
        plan->queries[i].sql = empty.sql;
        plan->queries[i].params = empty.params;
        plan->queries[i].nparams = empty.nparams;
    }
}

/* Tables of a schema that is on one shard alone. */
static bool reads_pinned(const struct planner *p)
{
    for (int i = 0; i < p->statement->nrelations; i++) {
        const struct relation_ref *ref = &p->statement->relations[i];
        if (plan_rule(p, ref->schema, ref->name)->class == TABLE_PINNED)
            return true;
    }
    return false;
}

/* What is made by it: the only relation that is written. */
static const struct relation_ref *made_by(const struct statement *statement)
{
    for (int i = 0; i < statement->nrelations; i++)
        if (statement->relations[i].written)
            return &statement->relations[i];
    return &statement->relations[0];
}

/* The table is on every shard by the configuration, or is said to be meant so. False: it is neither. */
static bool plan_create_shared(struct planner *p)
{
    const struct statement *outer = p->statement;
    const struct relation_ref *made = made_by(outer);
    const struct table_rule *rule = plan_rule(p, made->schema, made->name);
    bool shared = rule->class == TABLE_SHARDED || rule->class == TABLE_REFERENCE;
    if (outer->create_temp || (!shared && !p->hints->shard_by))
        return false;
    if (creates_view(outer)) {
        plan_refuse(p, "Give the view a name that the configuration does not have.",
                    "%s with the name of a table that is on every shard is not supported yet",
                    outer->tag);
        return true;
    }
    bool empty = outer->create_no_data && !reads_pinned(p);
    if (!shared && !empty)
        plan_refuse_undeclared(p, made->name);
    else if (!plan_take_shard_by(p, made->name, rule))
        return true;
    else if (empty)
        everywhere(p, "schema change");
    else
        plan_create_everywhere(p, rule);
    return true;
}

static void plan_create_as(struct planner *p)
{
    const struct statement *outer = p->statement;
    struct plan *plan = p->plan;
    struct named named = count_names(p);
    if (plan_create_shared(p))
        return;
    if (named.sharded + named.reference) {
        plan_refuse(p, "Create the table first, then fill it with INSERT.",
                    "%s of this form in a sharded database is not supported yet", outer->tag);
        return;
    }
    if (outer->inner && outer->inner->kind == STMT_EXECUTE && !outer->create_temp) {
        plan_refuse(p, "Use the query itself.",
                    "%s ... EXECUTE in a sharded database is not supported yet", outer->tag);
        return;
    }
    if (named.read_temporary && !named.temporary && !outer->create_temp) {
        plan_refuse(p, "Create the table first, then fill it with INSERT ... SELECT.",
                    "%s from temporary table \"%s\" in a sharded database is not supported yet",
                    outer->tag, named.first_temporary);
        return;
    }
    if (is_local_view(p)) {
        everywhere(p, "schema change, each shard's rows on it");
        return;
    }
    if (outer->create_no_data && !creates_view(outer) && !reads_pinned(p)) {
        if (outer->create_temp)
            plan_direct(p, 0, "temporary object");
        else
            everywhere(p, "schema change");
        return;
    }
    plan_inner_direct(p, outer->tag);
    p->statement = outer;
    if (plan->kind == PLAN_DIRECT && !plan->any_shard && !plan->needs_params && plan->shard != 0)
        plan_refuse(p, "Create the table first, then fill it from the rows you read.",
                    "%s would leave an unsharded table on shard %s, but they live on shard %s",
                    outer->tag, shardmap_shard_name(p->map, plan->shard),
                    shardmap_shard_name(p->map, 0));
    if (plan->kind == PLAN_REFUSE && !creates_view(outer))
        plan_create_gathered(p);
    else if (plan->kind == PLAN_REFUSE && !p->view && same_name(plan->error.sqlstate, "0A000"))
        plan_refuse(
            p,
            "Make it a table with CREATE TABLE AS, and fill that anew in place of REFRESH; or "
            "a view, whose rows are brought together when it is read.",
            "%s of rows of several shards together is not supported yet", outer->tag);
    if (plan->kind != PLAN_DIRECT)
        return;
    plan->shard = 0;
    plan->any_shard = false;
    if (!outer->create_temp && !named.temporary && !plan->needs_params)
        plan_table_everywhere(p);
}

/* ---- COPY, LOCK, CALL ---- */

static void plan_copy(struct planner *p)
{
    const struct statement *statement = p->statement;
    struct named named = count_names(p);
    if (statement->inner)
        plan_copy_query(p);
    else if (named.sharded + named.read_sharded)
        plan_copy_sharded(p, &statement->relations[0]);
    else if (named.reference)
        plan_copy_reference(p, &statement->relations[0]);
    else if (named.read_reference) {
        plan_direct(p, plan_home(p), "reference tables only");
        p->plan->any_shard = true;
    } else
        plan_direct(p, 0, "unsharded table");
}

/* Of tables on several shards everywhere, as their rows are. */
static void plan_lock(struct planner *p)
{
    const struct route_session *session = p->input->session;
    struct named named = count_names(p);
    unsigned shard = 0;
    if (plan_said_key(p, &shard))
        plan_direct(p, shard, "pgshunt.key");
    else if (p->plan->kind == PLAN_REFUSE)
        return;
    else if (!(named.sharded + named.reference))
        plan_direct(p, 0, "unsharded table");
    else if (session && !session->in_transaction)
        plan_direct(p, 0, "outside of a transaction block: the server will refuse it");
    else
        everywhere(p, "a lock on every shard");
}

/* CALL, DO: on the first shard, unless sharded or reference tables are named. */
static void plan_first_shard(struct planner *p, const char *reason)
{
    struct named named = count_names(p);
    unsigned shard = 0;
    if (p->plan->kind == PLAN_DIRECT && plan_said_key(p, &shard))
        plan_direct(p, shard, "pgshunt.key");
    else if (p->plan->kind == PLAN_REFUSE)
        return;
    else if (named.sharded + named.read_sharded + named.reference)
        plan_refuse(p,
                    "Say which shard with a comment: /* pgshunt: shard=... */ or "
                    "/* pgshunt: key=... */",
                    "%s of a table that is on several shards is not supported yet",
                    p->statement->tag);
    else
        plan_direct(p, 0, reason);
}

static void plan_anywhere(struct planner *p, const char *reason)
{
    plan_direct(p, plan_home(p), reason);
    p->plan->any_shard = true;
}

/* Its executions would go where it was prepared, whatever their parameters say. */
static void plan_prepare(struct planner *p)
{
    struct named named = count_names(p);
    if (named.sharded + named.read_sharded + named.reference + named.read_reference)
        plan_refuse(p,
                    "Use the prepared statements of your driver (of the protocol): each execution "
                    "goes to the shard of its parameters.",
                    "PREPARE of a statement about table \"%s\", which is on several shards, is not "
                    "supported",
                    named.first_shared);
    else if ((p->view = find_view(p)))
        plan_refuse_view(p);
    else if (named.unsharded + named.read_unsharded)
        plan_direct(p, 0, "unsharded table");
    else
        plan_anywhere(p, "session");
}

/* One case per kind of statement: the one long switch of this file. */
void plan_utility(struct planner *p)
{
    if (plan_in_schema(p))
        return;
    switch (p->statement->kind) {
    case STMT_QUERY:
        if (p->statement->query)
            plan_query(p, p->statement->query);
        break;
    case STMT_EXPLAIN:
        plan_explain(p);
        break;
    case STMT_DECLARE_CURSOR:
        plan_cursor(p);
        break;
    case STMT_CREATE_TABLE_AS:
        plan_create_as(p);
        break;
    case STMT_COPY_FROM:
    case STMT_COPY_TO:
        plan_copy(p);
        break;
    case STMT_TRUNCATE:
    case STMT_CREATE_TABLE:
    case STMT_DDL:
    case STMT_DDL_NO_TX:
        plan_schema(p);
        break;
    case STMT_LOCK:
        plan_lock(p);
        break;
    case STMT_CALL:
    case STMT_DO:
        plan_first_shard(p, "procedures run on the first shard");
        break;
    case STMT_LISTEN:
    case STMT_UNLISTEN:
    case STMT_NOTIFY: /* heard only on the server where they are sent */
        plan_direct(p, 0, "notifications: first shard");
        break;
    case STMT_PREPARE:
        plan_prepare(p);
        break;
    case STMT_COMMIT_PREPARED:
    case STMT_ROLLBACK_PREPARED:
        plan_refuse(
            p,
            "Say which shard prepared it with SET pgshunt.shard = '...', or with a comment: "
            "/* pgshunt: shard=... */. pg_prepared_xacts on each shard lists what is there.",
            "%s needs to know the shard that has prepared the transaction", p->statement->tag);
        break;
    case STMT_EMPTY:
    case STMT_BEGIN:
    case STMT_COMMIT:
    case STMT_ROLLBACK:
    case STMT_SAVEPOINT:
    case STMT_RELEASE:
    case STMT_ROLLBACK_TO:
    case STMT_PREPARE_TRANSACTION:
    case STMT_SET:
    case STMT_SET_TRANSACTION:
    case STMT_RESET:
    case STMT_RESET_ALL:
    case STMT_SHOW:
    case STMT_EXECUTE:
    case STMT_DEALLOCATE:
    case STMT_DISCARD:
    case STMT_FETCH:
    case STMT_CLOSE_CURSOR:
    case STMT_LOAD:
    case STMT_CHECKPOINT:
    case STMT_OTHER:
        plan_anywhere(p, "session");
        break;
    }
}
