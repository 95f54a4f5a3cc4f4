/*
 * fuzz_router.c: any bytes as SQL: parsed, checked for consistency, classified and planned.
 *
 * Aborts when a text, location or tree contradicts statement.h, when a statement that changes something is
 * called a read, or when a template gives another plan than planning anew does.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "pgshunt/change.h"
#include "pgshunt/plan.h"
#include "pgshunt/shape.h"
#include "pgshunt/shardmap.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void expect(bool truth)
{
    if (!truth)
        abort();
}

/* ---- a small cluster to route in ---- */

static struct schema *schema;
static struct shardmap *map, *plain_map, /* without schemas of shards: plans leave templates */
    *haunted_map;                        /* s1 has rows that it does not own, s2 owns nothing */

static void add_table(const char *name, char kind, char persistence)
{
    struct schema_column columns[] = {{"id", 20, true, NULL, false, false, false, 0, NULL},
                                      {"user_id", 20, true, NULL, false, false, false, 0, NULL},
                                      {"name", 25, true, NULL, false, false, false, 0, NULL}};
    struct schema_relation relation = {.schema = "public",
                                       .name = name,
                                       .kind = kind,
                                       .persistence = persistence,
                                       .columns = columns,
                                       .ncolumns = 3};
    schema_add_relation(schema, &relation);
}

static void add_view(const char *name, const char *definition)
{
    struct schema_part part = {.kind = PART_RELATION, .schema = "public", .name = "users"};
    add_table(name, 'v', 'p');
    schema_add_part(schema, "public", name, &part);
    schema_set_definition(schema, "public", name, definition, false);
}

static struct shardmap *make_map(void)
{
    static const char *shards[] = {"s0", "s1", "s2"};
    static const unsigned weights[] = {1, 1, 1};
    struct shardmap_builder builder = {shards, weights, 3};
    struct shardmap *made = shardmap_new(&builder);
    int keyspace = shardmap_add_keyspace(made, "users", KEY_BIGINT, HASH_XXH64);
    shardmap_add_table(made, "users", keyspace, "id");
    shardmap_add_table(made, "orders", keyspace, "user_id");
    shardmap_add_table(made, "countries", -1, NULL);
    return made;
}

/* Keys of text and uuid, by list, and a lookup. */
static void make_plain_map(void)
{
    static const struct key_entry values[] = {{(const unsigned char *)"a", 1, 1, 0},
                                              {(const unsigned char *)"b", 1, 2, 0}};
    plain_map = make_map();
    int names = shardmap_add_keyspace(plain_map, "names", KEY_TEXT, HASH_XXH64);
    int lists = shardmap_add_keyspace(plain_map, "lists", KEY_TEXT, HASH_XXH64);
    int docs = shardmap_add_keyspace(plain_map, "docs", KEY_UUID, HASH_POSTGRES);
    shardmap_map_values(plain_map, lists, MAP_LIST, values, 2, SHARDMAP_NO_SHARD);
    shardmap_add_table(plain_map, "pairs", names, "name");
    shardmap_add_table(plain_map, "pairs_too", lists, "name");
    shardmap_add_table(plain_map, "t", docs, "id");
    shardmap_add_lookup(plain_map, "orders", "name", true);
    schema_add_function(schema, "pgshunt", shardmap_lookup(plain_map, 0)->function,
                        VOLATILITY_STABLE);
}

static const enum key_type types[] = {KEY_BIGINT, KEY_TEXT};
static const char *const parts[] = {"id", "name"};

static void make_haunted_map(void)
{
    haunted_map = make_map();
    int pairs = shardmap_add_keyspace(haunted_map, "pairs", KEY_BIGINT, HASH_XXH64);
    shardmap_set_types(haunted_map, pairs, types, 2);
    shardmap_add_table_parts(haunted_map, "pairs", pairs, parts, 2);
    for (int keyspace = 0; keyspace <= pairs; keyspace++) {
        shardmap_set_buckets(haunted_map, keyspace, 0, SHARDKEY_BUCKETS - 1, 0);
        shardmap_set_buckets(haunted_map, keyspace, 8000, SHARDKEY_BUCKETS - 1, 1);
        shardmap_set_ghost(haunted_map, keyspace, 1);
    }
}

static void make_cluster(void)
{
    map = make_map();
    make_haunted_map();
    int pairs = shardmap_add_keyspace(map, "pairs", KEY_BIGINT, HASH_POSTGRES);
    shardmap_set_types(map, pairs, types, 2);
    shardmap_add_table_parts(map, "pairs", pairs, parts, 2);
    shardmap_add_table_parts(map, "pairs_too", pairs, parts, 2);
    shardmap_add_schema(map, "acme", 1);
    shardmap_add_schema(map, "brix", 2);
    schema = schema_new();
    add_table("users", 'r', 'p');
    add_table("orders", 'r', 'p');
    add_table("countries", 'r', 'p');
    add_table("t", 'r', 'p');
    add_table("pairs", 'r', 'p');
    add_table("pairs_too", 'r', 'p');
    add_table("fast", 'r', 'u');
    add_table("v", 'v', 'p');
    add_view("local_view", "SELECT users.id, users.id AS user_id, users.name FROM public.users");
    add_view("whole_view",
             "SELECT count(*) AS id, max(orders.user_id) AS user_id, 'x'::text AS name "
             "FROM public.orders JOIN public.local_view ON orders.id = local_view.id");
    add_view("itself", "SELECT itself.id, whole_view.user_id, itself.name FROM public.itself, "
                       "public.whole_view");
    schema_set_default(schema, "public", "orders", "user_id", "nextval('ids'::regclass)", 'a');
    schema_set_default(schema, "public", "pairs", "id", "7", 0);
    schema_set_default(schema, "public", "pairs", "name", "'it''s'::text", 0);
    schema_add_function(schema, "public", "f", VOLATILITY_STABLE);
    schema_add_function(schema, "public", "bump", VOLATILITY_VOLATILE);
    make_plain_map();
}

/* ---- does the tree keep what statement.h says? ---- */

struct walk {
    const struct statement *statement;
    int depth;
    bool changes; /* a data-modifying query or a locking clause was met */
};

static void walk_query(struct walk *walk, const struct query *q);

static void check_location(const struct walk *walk, int location)
{
    expect(location >= -1 && location <= walk->statement->length);
}

static void walk_sort(struct walk *walk, const struct sort_item *items, int count);

static void walk_expr(struct walk *walk, const struct expr *e)
{
    if (!e)
        return;
    expect(++walk->depth <= STATEMENT_MAX_DEPTH);
    check_location(walk, e->location);
    if (e->kind == EXPR_PARAM)
        expect(e->number >= 1 && e->number <= walk->statement->max_param);
    if (e->kind == EXPR_CONST || e->kind == EXPR_FUNC || e->kind == EXPR_OP || e->kind == EXPR_CAST)
        expect(e->name != NULL);
    expect((e->kind == EXPR_FUNC) == (e->call != NULL));
    for (int i = 0; i < e->nargs; i++)
        walk_expr(walk, e->args[i]);
    if (e->kind == EXPR_SUBLINK)
        walk_query(walk, e->query);
    if (e->call) {
        walk_expr(walk, e->call->filter);
        walk_sort(walk, e->call->order_by, e->call->norder_by);
    }
    walk->depth--;
}

static void walk_sort(struct walk *walk, const struct sort_item *items, int count)
{
    for (int i = 0; i < count; i++)
        walk_expr(walk, items[i].expr);
}

static void walk_from(struct walk *walk, const struct from_item *f)
{
    if (!f)
        return;
    expect(++walk->depth <= STATEMENT_MAX_DEPTH);
    check_location(walk, f->location);
    expect(f->kind != FROM_TABLE || f->name);
    expect(f->kind != FROM_SUBQUERY || f->subquery);
    expect(f->kind != FROM_FUNCTION || f->function);
    expect(f->kind != FROM_JOIN || (f->left && f->right));
    if (f->subquery)
        walk_query(walk, f->subquery);
    walk_expr(walk, f->function);
    walk_from(walk, f->left);
    walk_from(walk, f->right);
    walk_expr(walk, f->on);
    walk->depth--;
}

static void walk_targets(struct walk *walk, const struct target *targets, int count)
{
    for (int i = 0; i < count; i++) {
        check_location(walk, targets[i].location);
        walk_expr(walk, targets[i].expr);
    }
}

static void walk_list(struct walk *walk, struct expr **list, int count)
{
    for (int i = 0; i < count; i++)
        walk_expr(walk, list[i]);
}

static void walk_query(struct walk *walk, const struct query *q)
{
    expect(q && ++walk->depth <= STATEMENT_MAX_DEPTH);
    walk->changes |= q->kind == QUERY_INSERT || q->kind == QUERY_UPDATE ||
                     q->kind == QUERY_DELETE || q->kind == QUERY_MERGE || q->locking || q->into;
    for (int i = 0; i < q->nctes; i++)
        walk_query(walk, q->ctes[i].query);
    walk_targets(walk, q->targets, q->ntargets);
    for (int i = 0; i < q->nfrom; i++)
        walk_from(walk, q->from[i]);
    walk_from(walk, q->relation);
    walk_expr(walk, q->where);
    walk_list(walk, q->group_by, q->ngroup_by);
    walk_expr(walk, q->having);
    walk_list(walk, q->distinct_on, q->ndistinct_on);
    walk_sort(walk, q->order_by, q->norder_by);
    walk_expr(walk, q->limit);
    walk_expr(walk, q->offset);
    for (int i = 0; i < q->nrows; i++)
        walk_list(walk, q->rows[i], q->row_width);
    walk_targets(walk, q->conflict_set, q->nconflict_set);
    walk_targets(walk, q->returning, q->nreturning);
    expect((q->kind == QUERY_SETOP) == (q->left && q->right && q->setop));
    if (q->kind == QUERY_SETOP) {
        walk_query(walk, q->left);
        walk_query(walk, q->right);
    }
    if (q->source)
        walk_query(walk, q->source);
    check_location(walk, q->where_location);
    walk->depth--;
}

static void check_statement(const char *sql, const struct statement *s)
{
    expect(s->text && s->tag && (int)strlen(s->text) == s->length);
    expect(memcmp(sql + s->location, s->text, (size_t)s->length) == 0);
    expect((s->kind == STMT_QUERY) == (s->query != NULL));
    for (int i = 0; i < s->nrelations; i++)
        expect(s->relations[i].name != NULL);
    for (int i = 0; i < s->nfunctions; i++)
        expect(s->functions[i].name != NULL);
    for (int i = 0; i < s->nhints; i++)
        expect(s->hints[i].name && s->hints[i].name[0]);
    struct walk walk = {.statement = s};
    if (s->query)
        walk_query(&walk, s->query);
    const char *reason = NULL;
    enum node_class class = router_classify(s, schema, &reason);
    expect(reason && reason[0]);
    if (class == NODE_CLASS_REPLICA)
        expect(!walk.changes && !s->syntax_error);
    if (router_classify(s, NULL, &reason) == NODE_CLASS_REPLICA)
        expect(!walk.changes);
    if (s->inner)
        check_statement(sql, s->inner);
}

/* ---- plans ---- */

static void check_gather(const struct plan *plan)
{
    const struct gather_plan *gather = plan->gather;
    expect(gather && gather->ntables > 0 && gather->query.sql && gather->why);
    expect(plan->shard < shardmap_shards(map));
    for (int i = 0; i < gather->ntables; i++) {
        const struct gather_table *table = &gather->tables[i];
        expect(table->create.sql && table->make.sql && table->source.sql && table->relation);
        for (int j = 0; j < table->nshards; j++)
            expect(table->shards[j] < shardmap_shards(map) && table->shards[j] != plan->shard);
    }
}

static void check_change(const struct plan *plan)
{
    const struct change_plan *change = plan->change;
    const struct change_rows *rows = &change->rows;
    if (change->create) {
        expect(change->create->everywhere
                   ? change->create->made.sql && (change->create->each || change->nsources > 0)
                   : change->gather && change->gather->ntables > 0 && change->create->filled.sql);
        return;
    }
    expect(change->text && rows->table && rows->head && rows->tail.sql);
    expect(!rows->key == !rows->keyspace && !rows->key == !rows->nkeys);
    for (unsigned i = 0; i < rows->nkeys; i++)
        expect(rows->keys[i].position >= 0);
    expect((change->nsources > 0) != (change->move && change->nlook_at > 0));
    for (int i = 0; i < change->nsources; i++)
        expect(change->sources[i].sql && change->sources[i].shard < shardmap_shards(map));
    for (int i = 0; i < change->nlook_at; i++)
        expect(change->look_at[i] < shardmap_shards(map));
    if (change->gather)
        expect(change->gather->ntables > 0 && change->sources[0].shard == plan->shard);
}

/* `claimed`: a comment may vouch that something only reads, which is not proven. */
static void check_plan(const struct plan *plan, bool claimed)
{
    switch (plan->kind) {
    case PLAN_DIRECT:
        expect(plan->shard < shardmap_shards(map) && plan->reason && plan->node_reason);
        break;
    case PLAN_SCATTER:
        expect(plan->nqueries > 0 && plan->reason && plan->node_reason);
        for (int i = 0; i < plan->nqueries; i++)
            expect(plan->queries[i].shard < shardmap_shards(map) &&
                   (plan->queries[i].sql || plan->mode == SCATTER_GATHER ||
                    plan->mode == SCATTER_CHANGE));
        if (plan->mode == SCATTER_GATHER)
            check_gather(plan);
        if (plan->mode == SCATTER_CHANGE)
            check_change(plan);
        break;
    case PLAN_REFUSE:
        expect(plan->error.sqlstate && plan->error.message && plan->error.hint);
        break;
    }
    expect(plan->kind == PLAN_REFUSE || plan->node == NODE_CLASS_PRIMARY || !plan->write ||
           claimed);
}

/* As many values as rows have defaults, whichever that is. */
static void check_drawn(struct route_input input, struct arena *arena)
{
    static const char *const items[] = {"42", "7", NULL, "x"};
    for (int count = 1; count <= 4; count++) {
        struct drawn_values drawn = {items, count};
        struct plan plan = {0};
        input.drawn = &drawn;
        router_plan(&input, arena, &plan);
        check_plan(&plan, true);
    }
}

static void check_plans(const struct statement_list *list, struct arena *arena)
{
    static const struct param items[] = {{"42", 2, false, 0},
                                         {"\0\0\0\0\0\0\0\7", 8, true, 20},
                                         {NULL, -1, false, 0},
                                         {"x", 1, false, 25}};
    static const struct params bound = {items, 4};
    static const struct param arrays[] = {
        {"{1,2, \"42\",NULL}", 15, false, 0},
        {"\0\0\0\1\0\0\0\1\0\0\0\27\0\0\0\2\0\0\0\1\0\0\0\4\0\0\0\1\xff\xff\xff\xff", 32, true,
         1007},
        {"2", 1, false, 0},
        {"1", 1, false, 23}};
    static const struct params lists = {arrays, 4};
    static const struct route_session session = {.transaction_shard = -1,
                                                 .search_path = "\"$user\", acme, public",
                                                 .user = "brix",
                                                 .schema_is_stale = true,
                                                 .require_key = REQUIRE_KEY_ERROR};
    const struct params *given[] = {NULL, &bound, &lists};
    bool claimed = false;
    for (int i = 0; i < list->count; i++)
        claimed |= list->items[i]->nhints > 0;
    for (int k = 0; k < 3; k++) {
        struct route_input input = {.map = map,
                                    .schema = k ? schema : NULL,
                                    .params = given[k],
                                    .session = k == 2 ? &session : NULL};
        struct plan plan;
        for (int i = 0; i < list->count && i < 4; i++) {
            const char **lines;
            input.statement = list->items[i];
            memset(&plan, 0, sizeof plan);
            router_plan(&input, arena, &plan);
            check_plan(&plan, list->items[i]->nhints > 0);
            expect(router_explain(&plan, map, arena, &lines) > 0);
            if (plan.kind == PLAN_SCATTER && plan.mode == SCATTER_DRAW)
                check_drawn(input, arena);
        }
        input.schema = schema;
        memset(&plan, 0, sizeof plan);
        if (list->count)
            router_plan_list(list, &input, arena, &plan);
        if (list->count)
            check_plan(&plan, claimed);
    }
}

/* ---- rows that a shard does not own ---- */

static void check_text(const char *sql, struct arena *arena)
{
    struct statement_list list = statement_parse(sql, arena);
    expect(list.count == 1 && !list.items[0]->syntax_error);
}

/* What leaves them out is a statement; who owns nothing is not asked. */
static void check_haunted(const struct statement_list *list, struct arena *arena)
{
    static const struct route_session anywhere = {.transaction_shard = -1},
                                      named = {.transaction_shard = -1, .shard = "s1"};
    struct route_input input = {.map = haunted_map, .schema = schema};
    for (int i = 0; i < list->count && i < 4; i++)
        for (int k = 0; k < 2; k++) {
            struct plan plan;
            input.statement = list->items[i];
            input.session = k ? &named : &anywhere;
            router_plan(&input, arena, &plan);
            check_plan(&plan, list->items[i]->nhints > 0);
            for (int q = 0; plan.kind == PLAN_SCATTER && plan.hides_ghosts && q < plan.nqueries;
                 q++)
                check_text(plan.queries[q].sql, arena);
        }
}

/* ---- templates ---- */

/* Some of what a statement can come with; the first has no parameters. */
static const struct param few[][4] = {
    {{NULL, -1, false, 0}},
    {{"42", 2, false, 0}, {"7", 1, false, 20}, {"a", 1, false, 25}, {NULL, -1, false, 0}},
    {{"\0\0\0\5", 4, true, 23}, {"42", 2, false, 0}, {"b", 1, true, 0}, {"{1}", 3, false, 1016}},
    {{"99999999999999999999", 20, false, 0},
     {"-3", 2, false, 20},
     {"\xfc", 1, false, 0},
     {"", 0, false, 0}},
    {{"6", 1, false, 0}, {"6", 1, false, 0}, {"6", 1, false, 0}, {"6", 1, false, 0}},
    {{"a", 1, false, 0}, {"a", 1, false, 0}, {"a", 1, false, 0}, {"a", 1, false, 0}},
};
#define FEW (sizeof few / sizeof few[0])

static const struct route_session sessions[] = {
    {.transaction_shard = -1},
    {.transaction_shard = 1, .in_transaction = true, .on_primary = true, .key = "5"},
    {.transaction_shard = -1, .route = ROUTE_REPLICA, .foreign_encoding = true},
    {.transaction_shard = -1, .shard = "s2"},
};

/* What the template gives, if it gives anything, is what the planner gives. */
static void check_again(const struct plan_template *made, const struct statement *statement,
                        const struct statement *fresh, const struct params *params,
                        struct arena *arena)
{
    static const struct lookup_answers none = {.count = 0};
    struct route_input input = {
        .map = plain_map, .schema = schema, .params = params, .lookups = &none};
    for (size_t i = 0; i < sizeof sessions / sizeof sessions[0]; i++) {
        struct plan again, anew;
        input.session = &sessions[i];
        input.statement = statement;
        if (!router_plan_again(made, &input, arena, &again))
            continue;
        input.statement = fresh;
        router_plan(&input, arena, &anew);
        expect(strcmp(again.node_reason, anew.node_reason) == 0);
        again.reason = anew.reason;
        again.node_reason = anew.node_reason;
        expect(memcmp(&again, &anew, sizeof again) == 0);
    }
}

static void make_template(const struct statement *statement, const struct params *params,
                          struct arena *arena, struct plan_template *made)
{
    static const struct lookup_answers none = {.count = 0};
    struct plan plan;
    const struct route_input input = {.map = plain_map,
                                      .schema = schema,
                                      .statement = statement,
                                      .params = params,
                                      .session = &sessions[0],
                                      .lookups = &none,
                                      .made = made};
    router_plan(&input, arena, &plan);
}

/* Made for some parameters, used for others. */
static void check_other_params(const struct statement_list *list, struct arena *arena)
{
    for (size_t i = 0; list->count == 1 && i < FEW; i++) {
        struct plan_template made = {.nvalues = 0};
        struct params params = {few[i], i ? 4 : 0};
        make_template(list->items[0], &params, arena, &made);
        for (size_t k = 0; made.nvalues && k < FEW; k++) {
            params = (struct params){few[k], k ? 4 : 0};
            check_again(&made, list->items[0], list->items[0], &params, arena);
        }
    }
}

/* Made for some literals, used for those of another text of this shape, which parsing has to understand alike. */
static void check_other_literals(const char *text, struct arena *arena)
{
    struct shape_table *table = shapes_create(1);
    char *sql = strdup(text);
    struct plan_template made = {.nvalues = 0};
    const struct shape *tree = NULL;
    expect(sql != NULL);
    for (int turn = 0; turn < 8; turn++) {
        struct shape *shape = shape_take(table, sql, strlen(sql));
        if (shape && !made.nvalues) {
            tree = shape;
            make_template(shape->list.items[0], NULL, arena, &made);
        } else if (shape && shape == tree) {
            struct statement_list fresh = statement_parse(sql, arena);
            check_again(&made, shape->list.items[0], fresh.items[0], NULL, arena);
        }
        if (shape)
            shape_give(table, shape);
        for (char *p = sql; *p; p++)
            if (*p >= '0' && *p <= '9')
                *p = (char)('0' + (*p - '0' + turn + 1 + (p - sql) % 3) % 10);
    }
    free(sql);
    shapes_free(table);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!map)
        make_cluster();
    char *sql = malloc(size + 1);
    struct arena arena;
    expect(sql != NULL);
    if (size)
        memcpy(sql, data, size);
    sql[size] = '\0';
    arena_init(&arena);
    struct statement_list list = statement_parse(sql, &arena);
    for (int i = 0; i < list.count; i++)
        check_statement(sql, list.items[i]);
    check_plans(&list, &arena);
    check_haunted(&list, &arena);
    check_other_params(&list, &arena);
    check_other_literals(sql, &arena);
    arena_free(&arena);
    free(sql);
    return 0;
}
