/*
 * plan_ghosts.c: rows that a shard has, but does not own, stay unseen; shards that own nothing are not asked.
 *
 * While buckets move, their rows are on two shards (docs/internals/resharding.md). What goes to a shard for a key
 * meets its own rows; whatever else reads or changes rows on a shard that has others' gets a text that leaves
 * them out (rewrite_ghosts.c). What cannot be changed so is refused. The texts hang on the map alone, which is the
 * plan's.
 */
#include "router/plan_internal.h"

/* The sharded tables that a statement names. */
struct hider {
    struct planner *p;
    struct rewrite_ghost_table *tables;
    const struct keyspace **keyspaces; /* of each */
    const char *blind;                 /* a view among them that shows no key; NULL: none */
    const struct keyspace *blind_keyspace;
    int ntables;
};

static const char *const HINT = "A reshard job is under way, and until it is complete some rows "
                                "are on two shards, of which one "
                                "must not show them. Give the shard key in the condition, write "
                                "the statement in a plainer form, or try "
                                "again when \"pgshuntctl reshard list\" shows the job completed.";

/* ---- the tables ---- */

static void set_table(struct planner *p, struct rewrite_ghost_table *table, const char *schema,
                      const char *name, const struct table_rule *rule)
{
    const struct keyspace *keyspace = rule->keyspace;
    *table = (struct rewrite_ghost_table){
        .schema = schema,
        .name = name,
        .ghosts = arena_printf(p->arena, "ghost_%s", keyspace->name),
        .parts = rule->nparts ? rule->parts : &rule->key,
        .types = rule->nparts ? keyspace->types : &keyspace->type,
        .nparts = rule->nparts ? rule->nparts : 1,
    };
}

static bool is_added(const struct hider *h, const struct relation_ref *ref)
{
    for (int i = 0; i < h->ntables; i++) {
        const char *schema = h->tables[i].schema;
        if (same_name(h->tables[i].name, ref->name) && !schema == !ref->schema &&
            (!schema || same_name(schema, ref->schema)))
            return true;
    }
    return false;
}

static void add_table(struct hider *h, const struct relation_ref *ref)
{
    struct planner *p = h->p;
    const struct table_rule *rule = plan_rule(p, ref->schema, ref->name);
    if (rule->class != TABLE_SHARDED || !rule->keyspace->ghosts || is_added(h, ref))
        return;
    if (!rule->nparts && !*rule->key) {
        h->blind = ref->name;
        h->blind_keyspace = rule->keyspace;
        return;
    }
    h->keyspaces[h->ntables] = rule->keyspace;
    set_table(p, &h->tables[h->ntables++], ref->schema, ref->name, rule);
}

static void find_tables(struct hider *h, struct planner *p, const struct statement *statement)
{
    int count = statement->nrelations;
    *h = (struct hider){.p = p};
    h->tables = arena_array(p->arena, struct rewrite_ghost_table, count + 1);
    h->keyspaces = arena_array(p->arena, const struct keyspace *, count + 1);
    for (int i = 0; i < count; i++)
        add_table(h, &statement->relations[i]);
}

/* Those of which the shard has others' rows. */
static struct rewrite_ghosts tables_on(const struct hider *h, unsigned shard)
{
    struct rewrite_ghosts ghosts = {.ntables = 0};
    struct rewrite_ghost_table *tables =
        arena_array(h->p->arena, struct rewrite_ghost_table, h->ntables + 1);
    for (int i = 0; i < h->ntables; i++)
        if (keyspace_has_ghosts(h->keyspaces[i], shard))
            tables[ghosts.ntables++] = h->tables[i];
    ghosts.tables = tables;
    return ghosts;
}

/* ---- the texts ---- */

static void refuse(struct planner *p)
{
    plan_refuse(p, HINT,
                "%s of this form, while rows of its tables are moved between shards, is not "
                "supported yet",
                p->statement->tag && *p->statement->tag ? p->statement->tag : "a statement");
}

/* `changed` was made from `query`'s text: its parameters are numbered as the client has them. */
static void take_text(struct planner *p, const struct shard_query *changed,
                      struct shard_query *query)
{
    query->sql = changed->sql;
    if (!changed->params)
        return;
    if (query->params) {
        int *numbers = arena_array(p->arena, int, changed->nparams + 1);
        for (int i = 0; i < changed->nparams; i++)
            numbers[i] = query->params[changed->params[i]];
        query->params = numbers;
    } else {
        query->params = changed->params;
    }
    query->nparams = changed->nparams;
}

/* *hidden: whether anything had to be left out. False: it cannot be. */
static bool hide(const struct hider *h, unsigned shard, struct shard_query *query, bool *hidden)
{
    struct rewrite_ghosts ghosts = tables_on(h, shard);
    struct shard_query changed = {0};
    if (h->blind && keyspace_has_ghosts(h->blind_keyspace, shard))
        return false;
    if (!ghosts.ntables)
        return true;
    if (!rewrite_ghosts(query->sql, &ghosts, h->p->arena, &changed))
        return false;
    *hidden |= ghosts.hidden > 0;
    if (ghosts.hidden)
        take_text(h->p, &changed, query);
    return true;
}

bool plan_hide_table(struct planner *p, unsigned shard, const struct table_rule *rule,
                     const struct schema_relation *relation, struct shard_query *query)
{
    struct rewrite_ghost_table table;
    struct rewrite_ghosts ghosts = {.tables = &table, .ntables = 1};
    struct shard_query changed = {0};
    if (rule->class != TABLE_SHARDED || !keyspace_has_ghosts(rule->keyspace, shard))
        return true;
    set_table(p, &table, relation->schema, relation->name, rule);
    bool ok = (rule->nparts || *rule->key) &&
              rewrite_ghosts(query->sql, &ghosts, p->arena, &changed) && ghosts.hidden;
    if (ok)
        take_text(p, &changed, query);
    else
        refuse(p);
    return ok;
}

bool plan_hide_text(struct planner *p, struct shard_query *query)
{
    struct hider h;
    bool hidden = false;
    if (!shardmap_has_ghosts(p->map))
        return true;
    find_tables(&h, p, p->statement);
    if (hide(&h, query->shard, query, &hidden))
        return true;
    refuse(p);
    return false;
}

/* ---- fan-outs ---- */

/* What changes no row that is there, and reads none. */
static bool is_insert_of_values(const struct statement *statement)
{
    const struct query *query = statement->query;
    return query && query->kind == QUERY_INSERT && !(statement->facts & FACT_SUBQUERY) &&
           query->source && query->source->kind == QUERY_VALUES;
}

void plan_hide_ghosts(struct planner *p)
{
    struct plan *plan = p->plan;
    struct hider h;
    bool hidden = false;
    if (!shardmap_has_ghosts(p->map) || plan->kind != PLAN_SCATTER || plan->hides_ghosts ||
        (plan->mode != SCATTER_ROWS && plan->mode != SCATTER_WRITE) ||
        is_insert_of_values(p->statement))
        return;
    find_tables(&h, p, p->statement);
    for (int i = 0; i < plan->nqueries; i++) {
        struct shard_query *query = &plan->queries[i];
        bool here = false;
        bool ok = hide(&h, query->shard, query, &here);
        if (!ok ||
            (here && p->written)) { /* views are in that text, which were put in for the plan */
            refuse(p);
            return;
        }
        hidden |= here;
    }
    plan->hides_ghosts = hidden;
}

/* ---- one shard ---- */

static bool gives_rows(const struct query *query)
{
    return query->kind == QUERY_SELECT || query->kind == QUERY_SETOP || query->kind == QUERY_VALUES;
}

/* A fan-out to one shard: only that can send another text than the client's. */
static void send_one(struct planner *p, const struct shard_query *query, enum scatter_mode mode)
{
    struct plan *plan = p->plan;
    struct shard_set set = {.kind = SHARDS_ONE, .one = query->shard};
    const char *reason = plan->reason;
    plan_scatter(p, mode, &set, query);
    plan->reason = reason;
    plan->hides_ghosts = true;
    plan->any_shard = false;
}

static void append_rows(struct planner *p)
{
    struct merge_spec *spec = arena_new(p->arena, struct merge_spec);
    spec->visible = -1;
    spec->limit = -1;
    p->plan->merge = spec;
}

void plan_hide_direct(struct planner *p)
{
    const struct statement *statement = p->statement;
    const struct query *query = statement->query;
    struct plan *plan = p->plan;
    struct shard_query one = {.shard = plan->shard, .sql = statement->text};
    struct hider h;
    bool hidden = false;
    if (!shardmap_has_ghosts(p->map) || plan->kind != PLAN_DIRECT || is_insert_of_values(statement))
        return;
    find_tables(&h, p, statement);
    bool ok = hide(&h, one.shard, &one, &hidden);
    if (ok && !hidden)
        return;
    if (!ok || p->written || statement->facts & (FACT_MODIFYING_CTE | FACT_INTO)) {
        refuse(p);
        return;
    }
    send_one(p, &one, gives_rows(query) ? SCATTER_ROWS : SCATTER_WRITE);
    if (gives_rows(query))
        append_rows(p);
    else
        plan_append_rows(p, query);
}

static bool names_ghosts(const struct hider *h, unsigned shard)
{
    return (h->blind && keyspace_has_ghosts(h->blind_keyspace, shard)) ||
           tables_on(h, shard).ntables > 0;
}

/* Kinds that read or change rows, and are not query, EXPLAIN or COPY of a table. */
static bool runs_another_query(const struct statement *statement)
{
    return statement->kind == STMT_DECLARE_CURSOR || statement->kind == STMT_CREATE_TABLE_AS ||
           statement->kind == STMT_COPY_TO || statement->kind == STMT_PREPARE;
}

void plan_hide_named(struct planner *p)
{
    const struct statement *outer = p->statement;
    struct hider h;
    if (!shardmap_has_ghosts(p->map) || p->plan->kind != PLAN_DIRECT)
        return;
    bool explains = outer->kind == STMT_EXPLAIN && outer->inner && outer->inner->query;
    if (outer->kind == STMT_QUERY && outer->query) {
        plan_hide_direct(p);
    } else if (explains) {
        p->statement = outer->inner;
        plan_hide_direct(p);
        if (p->plan->kind == PLAN_SCATTER)
            plan_put_words(p, outer, outer->inner);
    } else if (runs_another_query(outer)) {
        find_tables(&h, p, outer->inner ? outer->inner : outer);
        if (names_ghosts(&h, p->plan->shard))
            refuse(p);
    }
}

/* ---- COPY ---- */

static const char *const *copied_columns(struct planner *p, const struct schema_relation *relation,
                                         int *count)
{
    *count = 0;
    if (!relation)
        return NULL;
    const char **columns = arena_array(p->arena, const char *, relation->ncolumns + 1);
    for (int i = 0; i < relation->ncolumns; i++)
        if (!relation->columns[i].generated)
            columns[(*count)++] = relation->columns[i].name;
    return columns;
}

void plan_hide_copied(struct planner *p, const struct schema_relation *relation)
{
    struct plan *plan = p->plan;
    struct hider h;
    if (!shardmap_has_ghosts(p->map) || plan->kind != PLAN_SCATTER)
        return;
    find_tables(&h, p, p->statement);
    for (int i = 0; i < plan->nqueries; i++) {
        struct shard_query *query = &plan->queries[i], changed = {0};
        struct rewrite_ghosts ghosts = tables_on(&h, query->shard);
        ghosts.columns = copied_columns(p, relation, &ghosts.ncolumns);
        ghosts.inherited = relation && relation->kind == 'p';
        if (!names_ghosts(&h, query->shard))
            continue;
        if (!ghosts.ntables || !rewrite_ghosts_copy(query->sql, &ghosts, p->arena, &changed)) {
            if (!relation)
                p->plan->needs_schema = p->may_wait ? SCHEMA_FRESH : SCHEMA_ANY;
            refuse(p);
            return;
        }
        query->sql = changed.sql;
        plan->hides_ghosts = true;
    }
}

/* ---- shards that own nothing ---- */

bool plan_may_have(const struct keyspace *keyspace, unsigned shard)
{
    return !keyspace || shardmap_owns(keyspace, shard);
}

/* Any of the tables, or there is none that would tell. */
static bool is_asked(const struct planner *p, const struct keyspace *also, unsigned shard)
{
    bool told = also != NULL;
    if (also && plan_may_have(also, shard))
        return true;
    for (int i = 0; i < p->ninstances; i++) {
        const struct table_rule *rule = p->instances[i].rule;
        if (rule->class != TABLE_SHARDED || !rule->keyspace || plan_may_have(rule->keyspace, shard))
            return true;
        told = true;
    }
    return !told;
}

void plan_leave_out(struct planner *p, const struct keyspace *also)
{
    struct plan *plan = p->plan;
    int left = 0;
    for (int i = 0; i < plan->nqueries; i++)
        if (is_asked(p, also, plan->queries[i].shard))
            plan->queries[left++] = plan->queries[i];
    if (left)
        plan->nqueries = left;
}

int plan_sole_owner(const struct planner *p)
{
    int sole = -1;
    for (int i = 0; i < p->ninstances; i++) {
        const struct table_rule *rule = p->instances[i].rule;
        const struct keyspace *keyspace = rule->keyspace;
        if (rule->class != TABLE_SHARDED || !keyspace)
            return -1;
        unsigned owner = keyspace->bucket_shard[0];
        if (keyspace->owned[owner] < keyspace->nbuckets || (sole >= 0 && (unsigned)sole != owner))
            return -1;
        sole = (int)owner;
    }
    return sole;
}
