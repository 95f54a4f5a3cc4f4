/*
 * plan_gather.c: any query over several shards: the rows it needs come to one server, which answers it.
 *
 * The sharded tables it names become temporary tables of the same names there, filled from all shards
 * with the columns and rows that the query can see (rewrite_gather.h); pg_temp comes first in every
 * search path, so the query itself runs unchanged. Tables of the first shard alone, and catalogs, are
 * read in place: where there are such, the first shard is the one that gathers.
 */
#include <xxhash.h>

#include "pgshunt/buffer.h"
#include "pgshunt/change.h"
#include "pgshunt/pgtypes.h"
#include "router/plan_internal.h"

#define FIRST_USER_OID 16384 /* FirstNormalObjectId: objects that users made */
#define OID_ACLITEM 1033     /* has no binary form */

struct gathering {
    struct planner *p;
    struct rewrite_gather rewrite;
    struct shard_set *reach;   /* per table: shards that have rows of it */
    bool reads_first;          /* something is on the first shard alone */
    const char *const *checks; /* of the views that were put in */
    int nchecks;
};

/* ---- whether it can be ---- */

/* A change of the first shard's own rows, made of what the shards have: it runs there like a query. */
static bool changes_first_alone(const struct planner *p, const struct query *query)
{
    bool change =
        query->kind == QUERY_INSERT || query->kind == QUERY_UPDATE || query->kind == QUERY_DELETE;
    return change && p->writes_unsharded && !p->writes_sharded && !p->writes_reference;
}

static bool may_gather(const struct planner *p, const struct query *query)
{
    const struct statement *outer = p->input->statement, *inner = p->statement;
    const struct statement *written = p->written ? p->written : inner;
    const struct route_session *session = p->input->session;
    bool fits = query->kind == QUERY_SELECT || query->kind == QUERY_SETOP ||
                query->kind == QUERY_VALUES || changes_first_alone(p, query);
    bool place = outer == written || outer->kind == STMT_DECLARE_CURSOR ||
                 outer->kind == STMT_EXPLAIN || (outer->kind == STMT_COPY_TO && outer->copy_stdio);
    unsigned in_the_way = FACT_MODIFYING_CTE | FACT_LOCKING | FACT_INTO;
    return fits && place && p->schema && !p->view && !p->failed && !p->keyed &&
           !(inner->facts & in_the_way) && same_name(p->plan->error.sqlstate, "0A000") &&
           !(session && session->temp_tables);
}

/* Temporary tables cannot be made in such a transaction, but on a server that learns later that it is one. */
static bool is_read_only_block(const struct planner *p)
{
    const struct route_session *session = p->input->session;
    return session && session->in_transaction && session->read_only;
}

static bool may_read_only(const struct gathering *g)
{
    int home = g->p->input->session->gather_home;
    return home == 0 || (home > 0 && !g->reads_first && !g->p->plan->write);
}

/* ---- the tables ---- */

static bool is_catalog(const struct relation_ref *ref)
{
    if (!ref->schema)
        return strncmp(ref->name, "pg_", 3) == 0;
    return same_name(ref->schema, "information_schema") || strncmp(ref->schema, "pg_", 3) == 0;
}

static int find_table(const struct gathering *g, const struct schema_relation *relation)
{
    for (int i = 0; i < g->rewrite.ntables; i++)
        if (g->rewrite.tables[i].relation == relation)
            return i;
    return -1;
}

/* Two temporary tables cannot have one name, nor may one hide a table that stays where it is. */
static bool is_ambiguous(const struct gathering *g, const struct schema_relation *relation)
{
    const struct planner *p = g->p;
    for (int i = 0; i < p->statement->nrelations; i++) {
        const struct relation_ref *ref = &p->statement->relations[i];
        if (same_name(ref->name, relation->name) &&
            plan_relation(p, ref->schema, ref->name) != relation)
            return true;
    }
    return false;
}

/* In a transaction that may have written, another server does not see its changes: but the rows of a
 * reference table are the same on each, and what is unsharded is on the one that gathers. */
static bool add_relation(struct gathering *g, const struct relation_ref *ref)
{
    struct planner *p = g->p;
    const struct table_rule *rule = plan_rule(p, ref->schema, ref->name);
    if (rule->class == TABLE_UNSHARDED || is_catalog(ref)) {
        g->reads_first = true;
        return true;
    }
    if (rule->class == TABLE_REFERENCE)
        return true;
    const struct schema_relation *relation = plan_relation(p, ref->schema, ref->name);
    if (!relation || !relation->ncolumns) {
        plan_needs_schema(p, ref->schema, ref->name);
        return false;
    }
    if (find_table(g, relation) >= 0)
        return true;
    const char *name = is_ambiguous(g, relation)
                           ? arena_printf(p->arena, "pgshunt_t%d", g->rewrite.ntables)
                           : NULL;
    struct rewrite_gather_table *table = &g->rewrite.tables[g->rewrite.ntables++];
    table->name = name;
    table->relation = relation;
    table->unqualified = plan_relation(p, NULL, relation->name) == relation;
    table->identified = relation == p->identify;
    table->used = arena_array(p->arena, bool, relation->ncolumns);
    return true;
}

static bool add_relations(struct gathering *g)
{
    const struct statement *statement = g->p->statement;
    struct arena *arena = g->p->arena;
    g->rewrite.tables = arena_array(arena, struct rewrite_gather_table, statement->nrelations + 1);
    for (int i = 0; i < statement->nrelations; i++)
        if (!add_relation(g, &statement->relations[i]))
            return false;
    return g->rewrite.ntables > 0;
}

/* ---- the shards ---- */

static int count_mentions(const struct gathering *g, const struct schema_relation *relation)
{
    const struct planner *p = g->p;
    int count = 0;
    for (int i = 0; i < p->statement->nrelations; i++) {
        const struct relation_ref *ref = &p->statement->relations[i];
        count += plan_relation(p, ref->schema, ref->name) == relation;
    }
    return count;
}

/* The shards that any mention needs; all, unless each mention was understood. */
static struct shard_set table_reach(const struct gathering *g,
                                    const struct schema_relation *relation)
{
    const struct planner *p = g->p;
    struct shard_set reach = {.kind = SHARDS_NONE}, all = {.kind = SHARDS_ALL};
    int seen = 0;
    for (int i = 0; i < p->ninstances; i++) {
        const struct from_item *item = p->instances[i].item;
        if (p->instances[i].derived || plan_relation(p, item->schema, item->name) != relation)
            continue;
        reach = shards_union(p->arena, shardmap_shards(p->map), &reach, &p->instances[i].set);
        seen++;
    }
    return p->too_many || seen != count_mentions(g, relation) ? all : reach;
}

/* Whether the shard has rows of all the tables: else it may not even have the tables. */
static bool has_tables(const struct gathering *g, unsigned shard)
{
    for (int i = 0; i < g->rewrite.ntables; i++) {
        const struct schema_relation *relation = g->rewrite.tables[i].relation;
        const struct table_rule *rule = plan_rule(g->p, relation->schema, relation->name);
        if (rule->class == TABLE_SHARDED && !plan_may_have(rule->keyspace, shard))
            return false;
    }
    return true;
}

/* The shard, or the first one behind it. */
static unsigned eligible_home(const struct gathering *g, unsigned shard)
{
    unsigned nshards = shardmap_shards(g->p->map);
    for (unsigned i = 0; i < nshards; i++)
        if (has_tables(g, (shard + i) % nshards))
            return (shard + i) % nshards;
    return shard;
}

/* Where nothing decides, the text does: so that not all of them land on one shard. */
static unsigned choose_home(const struct gathering *g)
{
    const struct planner *p = g->p;
    const struct route_session *session = p->input->session;
    if (is_read_only_block(p))
        return (unsigned)session->gather_home;
    if (g->reads_first || p->plan->write) /* sequences, and what functions read, are there */
        return 0;
    if (session && session->in_transaction)
        return plan_home(p);
    const char *text = p->statement->text;
    return eligible_home(g, (unsigned)(XXH64(text, strlen(text), 0) % shardmap_shards(p->map)));
}

/* ---- the texts ---- */

static void put_identifier(struct buffer *out, const char *name)
{
    buffer_append(out, "\"", 1);
    for (; *name; name++)
        buffer_append(out, *name == '"' ? "\"\"" : name, *name == '"' ? 2 : 1);
    buffer_append(out, "\"", 1);
}

static const char *temporary_name(struct planner *p, const char *name)
{
    struct buffer out = {0};
    buffer_printf(&out, "pg_temp.");
    put_identifier(&out, name);
    const char *text = arena_strndup(p->arena, buffer_head(&out), buffer_length(&out));
    buffer_release(&out);
    return text;
}

/* Arrays, composites and enums that users made have other numbers on each shard. */
static bool travels_as_text(const struct rewrite_gather_table *table)
{
    for (int i = 0; i < table->relation->ncolumns; i++) {
        uint32_t type = table->relation->columns[i].type_oid;
        if (table->used[i] && (type >= FIRST_USER_OID || type == OID_ACLITEM))
            return true;
    }
    return false;
}

static void fill_shards(struct planner *p, struct gather_table *table,
                        const struct shard_set *reach, const struct keyspace *keyspace,
                        unsigned home)
{
    unsigned nshards = shardmap_shards(p->map);
    table->shards = arena_array(p->arena, unsigned, nshards);
    for (unsigned shard = 0; shard < nshards; shard++)
        if (shard != home && shards_contain(reach, shard) && plan_may_have(keyspace, shard))
            table->shards[table->nshards++] = shard;
}

/* One whose schema the gathering server does not have is made by its definition. */
static struct shard_query define_table(struct planner *p, const struct gather_table *table,
                                       const struct rewrite_gather_table *from)
{
    const char *columns = "";
    for (int i = 0; i < from->relation->ncolumns; i++) {
        const struct schema_column *column = &from->relation->columns[i];
        struct buffer name = {0};
        if (!from->used[i] && !from->all)
            continue;
        put_identifier(&name, column->name);
        buffer_append(&name, "", 1);
        columns =
            arena_printf(p->arena, "%s%s%s %s%s%s%s", columns, *columns ? ", " : "",
                         (const char *)buffer_head(&name), from->relation->types[i],
                         column->collation ? " COLLATE \"" : "",
                         column->collation ? column->collation : "", column->collation ? "\"" : "");
        buffer_release(&name);
    }
    return (struct shard_query){.sql = arena_printf(p->arena,
                                                    "CREATE TEMPORARY TABLE %s (%s) ON COMMIT DROP",
                                                    table->relation + strlen("pg_temp."), columns)};
}

static struct shard_query make_table(struct planner *p, const struct gather_table *table,
                                     const struct shard_query *source, const char *suffix)
{
    struct shard_query make = *source;
    make.sql = arena_printf(p->arena, "CREATE TEMPORARY TABLE %s ON COMMIT DROP AS %s%s",
                            table->relation + strlen("pg_temp."), source->sql, suffix);
    return make;
}

/* What the home makes of its own rows, and what reads those of the others. */
static bool hide_rows(struct gathering *g, struct gather_table *table,
                      const struct rewrite_gather_table *from, const struct table_rule *rule,
                      unsigned home)
{
    struct planner *p = g->p;
    struct shard_query own = from->source;
    if (rule->class != TABLE_SHARDED || !rule->keyspace->ghosts)
        return true;
    if (!plan_hide_table(p, home, rule, from->relation, &own))
        return false;
    if (own.sql != from->source.sql)
        table->create = make_table(p, table, &own, "");
    table->own = own;
    table->hides = rule->keyspace->ghosts;
    table->hidden = from->source;
    for (int i = 0; i < table->nshards; i++)
        if (table->hides[table->shards[i]])
            return plan_hide_table(p, table->shards[i], rule, from->relation, &table->hidden);
    return true;
}

/*
 * Which columns depend on those of GROUP BY is known from a primary key. One that has the shard key in it
 * holds over all shards; with another the rows may be alike, and there is none.
 */
static const char *add_key(struct planner *p, const struct rewrite_gather_table *from,
                           const char *relation)
{
    const struct schema_relation *table = from->relation;
    const struct table_rule *rule = plan_rule(p, table->schema, table->name);
    struct buffer out = {0};
    bool sharded_by = false;
    if (!from->keyed)
        return NULL;
    for (int i = 0; i < table->ncolumns; i++) {
        if (!table->columns[i].primary_key)
            continue;
        buffer_printf(&out, "%s", buffer_length(&out) ? ", " : "");
        put_identifier(&out, table->columns[i].name);
        sharded_by |= same_name(table->columns[i].name, rule->key);
    }
    buffer_append(&out, "", 1);
    const char *text = arena_printf(p->arena, "ALTER TABLE %s ADD PRIMARY KEY (%s)", relation,
                                    (const char *)buffer_head(&out));
    buffer_release(&out);
    return sharded_by ? text : NULL;
}

/* False: refused. */
static bool fill_table(struct gathering *g, int index, unsigned home, struct gather_table *table)
{
    struct planner *p = g->p;
    const struct rewrite_gather_table *from = &g->rewrite.tables[index];
    const struct table_rule *rule = plan_rule(p, from->relation->schema, from->relation->name);
    table->name = from->relation->name;
    table->relation = temporary_name(p, from->name ? from->name : table->name);
    table->mentions = from->mentions;
    table->own = from->source;
    table->add_key = add_key(p, from, table->relation);
    table->text = travels_as_text(from);
    table->source = from->source;
    table->create = make_table(p, table, &from->source, "");
    table->make = make_table(p, table, &from->source, " WITH NO DATA");
    table->rows_here =
        shards_contain(&g->reach[index], home) && plan_may_have(rule->keyspace, home);
    fill_shards(p, table, &g->reach[index], rule->keyspace, home);
    if (!hide_rows(g, table, from, rule, home))
        return false;
    table->identified = from->identified;
    if (from->identified) {
        table->create.sql = change_of_shard(table->create.sql, home, p->arena);
        table->make.sql = change_of_shard(table->make.sql, home, p->arena);
    }
    if (from->relation->types && !table->rows_here)
        table->make = define_table(p, table, from);
    return true;
}

/* The query in what stands around it. */
static void wrap(struct planner *p, struct shard_query *query)
{
    const struct statement *outer = p->input->statement;
    const struct statement *inner = p->written ? p->written : p->statement;
    if (query->sql == inner->text) {
        query->sql = outer->text;
        return;
    }
    int before = inner->location - outer->location;
    query->sql = arena_printf(p->arena, "%.*s%s%s", before, outer->text, query->sql,
                              outer->text + before + inner->length);
}

static void add_participants(struct planner *p, const struct gather_plan *gather)
{
    unsigned nshards = shardmap_shards(p->map);
    bool *takes_part = arena_array(p->arena, bool, nshards);
    struct plan *plan = p->plan;
    takes_part[plan->shard] = true;
    for (int i = 0; i < gather->ntables; i++)
        for (int j = 0; j < gather->tables[i].nshards; j++)
            takes_part[gather->tables[i].shards[j]] = true;
    plan->queries = arena_array(p->arena, struct shard_query, nshards);
    plan->nqueries = 0;
    for (unsigned shard = 0; shard < nshards; shard++)
        if (takes_part[shard])
            plan->queries[plan->nqueries++] =
                (struct shard_query){.shard = shard, .primary = shard == plan->shard};
}

/* What would be said if it were refused is why it is not done in a better gear. */
static const char *reason(struct planner *p)
{
    static const char end[] = " is not supported yet";
    const char *message = p->plan->error.message;
    size_t len = strlen(message), tail = sizeof end - 1;
    if (len > tail && same_name(message + len - tail, end))
        len -= tail;
    return arena_strndup(p->arena, message, len);
}

/* A value of the table's key tells the shard. */
static const struct keyspace *edge_keyspace(const struct gathering *g,
                                            const struct rewrite_edge *edge)
{
    const struct planner *p = g->p;
    const struct schema_relation *relation = g->rewrite.tables[edge->table].relation;
    const struct table_rule *rule = plan_rule(p, relation->schema, relation->name);
    if (rule->class != TABLE_SHARDED || rule->nparts || !same_name(rule->key, edge->column))
        return NULL;
    return rule->keyspace;
}

/* What the gathering shard has may change between two statements of a transaction, but where the gather has a
 * snapshot of its own for all of them. */
static bool is_steady(const struct planner *p)
{
    const struct route_session *session = p->input->session;
    return !p->plan->write && !(session && session->in_transaction);
}

/* Values travel in the client's encoding, which may not have every character that is there. */
static bool may_travel(const struct planner *p, uint32_t type)
{
    const struct route_session *session = p->input->session;
    bool text = type == OID_TEXT || type == OID_VARCHAR || type == OID_BPCHAR;
    return !text || !session || !session->foreign_encoding;
}

static void fill_edges(struct gathering *g, struct gather_plan *gather)
{
    struct gather_edge *edges = arena_array(g->p->arena, struct gather_edge, g->rewrite.nedges + 1);
    gather->edges = edges;
    for (int i = 0; i < g->rewrite.nedges; i++) {
        const struct rewrite_edge *from = &g->rewrite.edges[i];
        const struct schema_relation *relation = g->rewrite.tables[from->table].relation;
        uint32_t type = schema_column(relation, from->column)->type_oid;
        if ((from->source < 0 && !is_steady(g->p)) || !may_travel(g->p, type))
            continue;
        gather->steady |= from->source < 0;
        edges[gather->nedges++] = (struct gather_edge){.table = from->table,
                                                       .mention = from->mention,
                                                       .column = from->column,
                                                       .type = type,
                                                       .source = from->source,
                                                       .source_name = from->source_name,
                                                       .source_column = from->source_column,
                                                       .rows = from->rows,
                                                       .keyspace = edge_keyspace(g, from)};
    }
}

static void fill_plan(struct gathering *g, struct shard_query *query)
{
    struct planner *p = g->p;
    struct plan *plan = p->plan;
    struct gather_plan *gather = arena_new(p->arena, struct gather_plan);
    unsigned home = choose_home(g);
    gather->ntables = g->rewrite.ntables;
    gather->tables = arena_array(p->arena, struct gather_table, gather->ntables);
    gather->why = reason(p);
    for (int i = 0; i < gather->ntables; i++)
        if (!fill_table(g, i, home, &gather->tables[i]))
            return;
    fill_edges(g, gather);
    gather->empty =
        p->input->statement->kind == STMT_EXPLAIN && !p->input->statement->explain_analyze;
    plan->kind = PLAN_SCATTER;
    plan->mode = SCATTER_GATHER;
    plan->shard = home;
    plan->merge = NULL;
    plan->reason = gather->why;
    plan->gather = gather;
    gather->checks = g->checks;
    gather->nchecks = g->nchecks;
    gather->cursor = p->input->statement->kind == STMT_DECLARE_CURSOR;
    if (!gather->cursor)
        wrap(p, query);
    gather->query = *query;
    add_participants(p, gather);
    plan->error = (struct pg_error){0};
}

/* Tables behind a view are read by who reads the view: if its owner saw other rows, that would not do. */
static bool may_open(struct gathering *g)
{
    struct planner *p = g->p;
    const char *guarded = view_guarded(p);
    if (guarded) {
        plan_refuse(p, plan_key_hint(p),
                    "a view of rows of several shards put together, with table \"%s\" behind it, "
                    "which has row-level policies, is not supported yet",
                    guarded);
        return false;
    }
    g->checks = view_checks(p, &g->nchecks);
    return g->checks != NULL;
}

void plan_gather(struct planner *p, const struct query *query)
{
    struct gathering g = {.p = p};
    struct shard_query text = {0};
    if (!may_gather(p, query) || !add_relations(&g))
        return;
    if (is_read_only_block(p) && !may_read_only(&g)) {
        p->plan->error.hint = "The rows of several shards would have to be brought together in "
                              "temporary tables, which this READ ONLY transaction cannot make any "
                              "more, as it has savepoints or has read on the server in question: "
                              "read it first, or in a transaction that is not READ ONLY.";
        return;
    }
    if (p->written && !may_open(&g))
        return;
    g.rewrite.schema = p->schema;
    if (!rewrite_gather(p->statement->text, &g.rewrite, p->arena, &text))
        return;
    g.reach = arena_array(p->arena, struct shard_set, g.rewrite.ntables);
    for (int i = 0; i < g.rewrite.ntables; i++)
        g.reach[i] = table_reach(&g, g.rewrite.tables[i].relation);
    fill_plan(&g, &text);
}
