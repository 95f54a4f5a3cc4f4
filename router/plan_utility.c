/* plan_utility.c: everything that is not a query: the session's own statements, schema, COPY, cursors. */
#include "router/plan_internal.h"

/*
 * Schema changes go where their tables are: to every shard for sharded and reference tables, to the
 * first shard for the others. What is not about a table (types, functions, roles, extensions, and
 * indexes, views or sequences by name) is made alike on every shard; for an object that was made on
 * the first shard alone, a comment says so: shard=NAME. shard=all sends a change of a table that the
 * configuration does not name (a partition of a sharded table) everywhere.
 */

/* The relations a statement names, counted by class. */
struct named {
    int sharded, reference; /* written */
    int unsharded;          /* written tables */
    int objects;            /* written, but no tables: views, sequences, indexes */
    int read_sharded, read_reference, read_unsharded;
    const char *first_sharded, *first_unsharded;
};

static bool tag_has(const struct statement *statement, const char *word)
{
    return strstr(statement->tag, word) != NULL;
}

static bool tag_starts(const struct statement *statement, const char *word)
{
    return strncmp(statement->tag, word, strlen(word)) == 0;
}

/* Whether the names in the statement are of something else than tables. */
static bool names_objects(const struct statement *statement)
{
    return tag_has(statement, "VIEW") || tag_has(statement, "SEQUENCE") ||
           (tag_has(statement, "INDEX") && !tag_starts(statement, "CREATE")) ||
           strcasestr(statement->text, "reindex index") ||
           ((tag_has(statement, "GRANT") || tag_has(statement, "REVOKE")) &&
            strcasestr(statement->text, "on sequence"));
}

static bool is_object(const struct planner *p, const struct relation_ref *ref)
{
    if (names_objects(p->statement))
        return true;
    const struct schema_relation *known =
        p->schema ? schema_relation(p->schema, ref->schema, ref->name) : NULL;
    return known && strchr("Svmi", known->kind);
}

static void count_written(const struct planner *p, const struct relation_ref *ref,
                          enum table_class class, struct named *named)
{
    if (class == TABLE_SHARDED)
        named->sharded++;
    else if (class == TABLE_REFERENCE)
        named->reference++;
    else if (is_object(p, ref))
        named->objects++;
    else
        named->unsharded++;
}

static void count_read(enum table_class class, struct named *named)
{
    if (class == TABLE_SHARDED)
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
        enum table_class class = shardmap_table(p->map, ref->schema, ref->name)->class;
        if (class == TABLE_SHARDED && !named.first_sharded)
            named.first_sharded = ref->name;
        if (class == TABLE_UNSHARDED && !named.first_unsharded)
            named.first_unsharded = ref->name;
        if (ref->written)
            count_written(p, ref, class, &named);
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

/* Commands that take a list of tables and do the same to each. */
static bool takes_tables(const struct statement *statement)
{
    static const char *const words[] = {"DROP", "TRUNCATE", "VACUUM", "ANALYZE", "GRANT", "REVOKE"};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (tag_starts(statement, words[i]))
            return true;
    return false;
}

static void plan_create_view(struct planner *p, const struct named *named)
{
    int everywhere_else = named->read_sharded + named->read_reference;
    if (named->read_unsharded && named->read_sharded)
        plan_refuse(
            p, "Build the view over tables that are on the same shards.",
            "a view over table \"%s\", which is on every shard, and over \"%s\", which is not",
            named->first_sharded, named->first_unsharded);
    else if (named->read_unsharded)
        plan_direct(p, 0, "view over unsharded tables");
    else
        everywhere(p, everywhere_else ? "view over tables of every shard" : "schema change");
}

static void refuse_mixed(struct planner *p, const struct named *named)
{
    plan_refuse(p, "Use a statement for each table.",
                "%s of \"%s\" together with tables that are on every shard is not supported yet",
                p->statement->tag, named->first_unsharded);
}

static void plan_schema(struct planner *p)
{
    const struct statement *statement = p->statement;
    struct named named = count_names(p);
    int shared = named.sharded + named.reference;
    if (statement->create_temp)
        plan_direct(p, 0, "temporary object");
    else if (tag_has(statement, "VIEW") && tag_starts(statement, "CREATE"))
        plan_create_view(p, &named);
    else if (shared && named.unsharded && takes_tables(statement))
        refuse_mixed(p, &named);
    else if (shared && named.read_unsharded)
        plan_refuse(
            p,
            "Make the other table a reference table, so that every shard has it, or do without "
            "the foreign key.",
            "a table of every shard cannot refer to \"%s\", which is on shard %s alone",
            named.first_unsharded, shardmap_shard_name(p->map, 0));
    else if (shared)
        everywhere(p, "schema change of tables on every shard");
    else if (named.unsharded && named.read_sharded && strcasestr(statement->text, "references"))
        plan_refuse(p, "Do without the foreign key, or shard this table by the same key.",
                    "a table on shard %s alone cannot refer to rows of sharded table \"%s\"",
                    shardmap_shard_name(p->map, 0), named.first_sharded);
    else if (named.unsharded)
        plan_direct(p, 0, "schema change of unsharded tables");
    else
        everywhere(p, "schema change");
}

/* ---- around a query ---- */

/* Plans the statement inside; what follows in the message is about it. */
static void plan_inner(struct planner *p)
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

/* The shards explain what each of them would run: the words before the statement go in front. */
static void plan_explain(struct planner *p)
{
    const struct statement *outer = p->statement, *inner = outer->inner;
    struct plan *plan = p->plan;
    plan_inner(p);
    if (plan->kind != PLAN_SCATTER)
        return;
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

/* What works only where a single shard gives the rows. */
static void plan_inner_direct(struct planner *p, const char *what)
{
    plan_inner(p);
    if (p->plan->kind == PLAN_SCATTER)
        plan_refuse_shape(p, "%s over several shards", what);
}

static void plan_create_as(struct planner *p)
{
    const struct statement *outer = p->statement;
    struct named named = count_names(p);
    if (named.sharded + named.reference) {
        plan_refuse(p, "Create the table first, then fill it with INSERT.",
                    "%s for a table that is on every shard is not supported yet", outer->tag);
        return;
    }
    plan_inner_direct(p, outer->tag);
    if (p->plan->kind != PLAN_DIRECT)
        return;
    if (p->plan->any_shard || p->plan->needs_params) {
        p->plan->shard = 0;
        p->plan->any_shard = false;
    } else if (p->plan->shard != 0) {
        plan_refuse(p, "Create the table first, then fill it from the rows you read.",
                    "%s would leave an unsharded table on shard %s, but they live on shard %s",
                    outer->tag, shardmap_shard_name(p->map, p->plan->shard),
                    shardmap_shard_name(p->map, 0));
    }
}

/* ---- COPY, LOCK, CALL ---- */

static void plan_copy(struct planner *p)
{
    const struct statement *statement = p->statement;
    bool from = statement->kind == STMT_COPY_FROM;
    struct named named = count_names(p);
    if (statement->inner)
        plan_inner_direct(p, "COPY");
    else if (named.sharded + named.read_sharded)
        plan_refuse(
            p,
            from ? "Use INSERT with several rows, which is split by shard, or COPY each shard's "
                   "rows there with a comment: /* pgshunt: shard=... */"
                 : "COPY each shard's rows with a comment: /* pgshunt: shard=... */",
            "COPY %s sharded table \"%s\" is not supported yet", from ? "FROM into" : "of",
            named.first_sharded);
    else if (named.reference)
        plan_refuse(p,
                    "Use INSERT, which goes to every shard, or COPY to each shard with a comment: "
                    "/* pgshunt: shard=... */",
                    "COPY FROM into reference table \"%s\" is not supported yet",
                    statement->relations[0].name);
    else if (named.read_reference) {
        plan_direct(p, plan_home(p), "reference tables only");
        p->plan->any_shard = true;
    } else
        plan_direct(p, 0, "unsharded table");
}

/* LOCK, CALL: on the first shard, unless sharded or reference tables are named. */
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

/* One case per kind of statement: the one long switch of this file. */
void plan_utility(struct planner *p)
{
    switch (p->statement->kind) {
    case STMT_QUERY:
        if (p->statement->query)
            plan_query(p, p->statement->query);
        break;
    case STMT_EXPLAIN:
        plan_explain(p);
        break;
    case STMT_DECLARE_CURSOR:
        plan_inner_direct(p, "a cursor");
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
        plan_first_shard(p, "unsharded table");
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
    case STMT_EMPTY:
    case STMT_BEGIN:
    case STMT_COMMIT:
    case STMT_ROLLBACK:
    case STMT_SAVEPOINT:
    case STMT_RELEASE:
    case STMT_ROLLBACK_TO:
    case STMT_PREPARE_TRANSACTION:
    case STMT_COMMIT_PREPARED:
    case STMT_ROLLBACK_PREPARED:
    case STMT_SET:
    case STMT_SET_TRANSACTION:
    case STMT_RESET:
    case STMT_RESET_ALL:
    case STMT_SHOW:
    case STMT_PREPARE:
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
