/* plan_support.h: a sharded database to plan for, and a plan in a few words. */
#ifndef PGSHUNT_PLAN_SUPPORT_H
#define PGSHUNT_PLAN_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "pgshunt/pgtypes.h"
#include "pgshunt/change.h"
#include "pgshunt/plan.h"

/*
 * Three shards with a third of the buckets each. Of the keys used below, 3 lives on s0; 1 and 42 on
 * s1; 2, 4, 5 and 7 on s2.
 */

struct fixture {
    struct shardmap *map, *one;
    struct schema *schema;
    struct arena arena;
};

static struct fixture fix;

#define TABLE(name_, kind_, ...)                                                                   \
    do {                                                                                           \
        struct schema_column columns_[] = {__VA_ARGS__};                                           \
        schema_add_relation(                                                                       \
            fix.schema,                                                                            \
            &(struct schema_relation){.schema = "public",                                          \
                                      .name = name_,                                               \
                                      .kind = kind_,                                               \
                                      .persistence = 'p',                                          \
                                      .columns = columns_,                                         \
                                      .ncolumns = (int)(sizeof columns_ / sizeof columns_[0])});   \
    } while (0)

static void add_relations(void)
{
    TABLE("users", 'r', {"id", OID_INT8, true, NULL, false, false, false, 0, NULL},
          {"name", OID_TEXT, true, NULL, false, false, false, 0, NULL},
          {"email", OID_TEXT, false, "C", false, false, false, 0, NULL},
          {"nick", OID_TEXT, false, "de_DE", false, false, false, 0, NULL},
          {"age", OID_INT4, true, NULL, false, false, false, 0, NULL},
          {"country", OID_TEXT, true, NULL, false, false, false, 0, NULL});
    TABLE("orders", 'r', {"id", OID_INT8, true, NULL, false, false, false, 0, NULL},
          {"user_id", OID_INT8, true, NULL, false, false, false, 0, NULL},
          {"total", OID_NUMERIC, true, NULL, false, false, false, 0, NULL},
          {"note", OID_TEXT, true, NULL, false, false, false, 0, NULL});
    TABLE("files", 'r', {"doc", OID_UUID, true, NULL, false, false, false, 0, NULL},
          {"size", OID_INT8, true, NULL, false, false, false, 0, NULL});
    TABLE("tenants", 'r', {"slug", OID_VARCHAR, true, NULL, false, false, false, 0, NULL},
          {"plan", OID_TEXT, true, NULL, false, false, false, 0, NULL});
    TABLE("codes", 'r', {"code", OID_BPCHAR, true, NULL, false, false, false, 0, NULL},
          {"what", OID_TEXT, true, NULL, false, false, false, 0, NULL});
    TABLE("countries", 'r', {"code", OID_TEXT, true, NULL, false, false, false, 0, NULL},
          {"title", OID_TEXT, true, NULL, false, false, false, 0, NULL});
    TABLE("logs", 'r', {"id", OID_INT8, true, NULL, false, false, false, 0, NULL},
          {"uid", OID_INT8, true, NULL, false, false, false, 0, NULL},
          {"msg", OID_TEXT, true, NULL, false, false, false, 0, NULL});
    TABLE("samples", 'r', {"at", OID_INT8, true, NULL, false, false, false, 0, NULL},
          {"value", OID_INT4, true, NULL, false, false, false, 0, NULL});
    TABLE("towns", 'r', {"region", OID_TEXT, true, NULL, false, false, false, 0, NULL},
          {"name", OID_TEXT, true, NULL, false, false, false, 0, NULL});
    TABLE("active_users", 'v', {"id", OID_INT8, true, NULL, false, false, false, 0, NULL});
    TABLE("view_of_logs", 'v', {"id", OID_INT8, true, NULL, false, false, false, 0, NULL});
    TABLE("view_of_countries", 'v', {"code", OID_TEXT, true, NULL, false, false, false, 0, NULL});
    TABLE("view_of_both", 'v', {"id", OID_INT8, true, NULL, false, false, false, 0, NULL});
    TABLE("view_of_users", 'v', {"id", OID_INT8, true, NULL, false, false, false, 0, NULL});
    TABLE("view_of_a_part", 'v', {"id", OID_INT8, true, NULL, false, false, false, 0, NULL});
    TABLE("view_of_views", 'v', {"id", OID_INT8, true, NULL, false, false, false, 0, NULL});
    TABLE("view_of_nothing", 'v', {"id", OID_INT8, true, NULL, false, false, false, 0, NULL});
    TABLE("log_seq", 'S', {"last_value", OID_INT8, true, NULL, false, false, false, 0, NULL});
}

/* A partition of a partition of orders, and children of an unsharded and of a reference table. */
static void add_children(void)
{
    static struct schema_column columns[] = {
        {"user_id", OID_INT8, true, NULL, false, false, false, 0, NULL},
        {"id", OID_INT8, true, NULL, false, false, false, 0, NULL}};
    static const char *const children[][4] = {{"public", "orders_2024", "public", "orders"},
                                              {"parts", "orders_2024_01", "public", "orders_2024"},
                                              {"public", "logs_1", "public", "logs"},
                                              {"public", "countries_eu", "public", "countries"},
                                              {"a", "orders_2025", "public", "orders"},
                                              {"b", "orders_2025", "public", "orders"},
                                              {"public", "loop", "public", "loop"}};
    for (size_t i = 0; i < sizeof children / sizeof children[0]; i++)
        schema_add_relation(fix.schema, &(struct schema_relation){.schema = children[i][0],
                                                                  .name = children[i][1],
                                                                  .kind = 'r',
                                                                  .persistence = 'p',
                                                                  .columns = columns,
                                                                  .ncolumns = 2,
                                                                  .parent_schema = children[i][2],
                                                                  .parent = children[i][3]});
}

static void add_views(void)
{
    static const char *const parts[][2] = {
        {"view_of_logs", "logs"},          {"view_of_countries", "countries"},
        {"view_of_both", "logs"},          {"view_of_both", "countries"},
        {"view_of_users", "logs"},         {"view_of_users", "users"},
        {"view_of_a_part", "orders_2024"}, {"view_of_views", "view_of_logs"},
        {"view_of_views", "view_of_both"}};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        schema_add_part(fix.schema, "public", parts[i][0],
                        &(struct schema_part){PART_RELATION, "public", parts[i][1], 0, NULL});
    schema_add_part(fix.schema, "public", "view_of_nothing", NULL);
}

static void define(const char *name, const char *behind, const char *definition)
{
    if (behind)
        schema_add_part(fix.schema, "public", name,
                        &(struct schema_part){PART_RELATION, "public", behind, 0, NULL});
    schema_set_definition(fix.schema, "public", name, definition, false);
}

#define SHOWN(name_, type_)                                                                        \
    {                                                                                              \
        .name = name_, .type_oid = type_, .collation_default = true                                \
    }

static void add_definitions(void)
{
    TABLE("adults", 'v', SHOWN("who", OID_INT8), SHOWN("name", OID_TEXT));
    TABLE("old_adults", 'v', SHOWN("who", OID_INT8));
    TABLE("per_user", 'v', SHOWN("user_id", OID_INT8), SHOWN("n", OID_INT8));
    TABLE("per_country", 'v', SHOWN("country", OID_TEXT), SHOWN("n", OID_INT8));
    TABLE("names", 'v', SHOWN("name", OID_TEXT));
    TABLE("by_name", 'v', SHOWN("id", OID_INT8), SHOWN("name", OID_TEXT));
    TABLE("kept", 'm', SHOWN("id", OID_INT8));
    TABLE("kept_count", 'm', SHOWN("n", OID_INT8));
    TABLE("kept_logs", 'm', SHOWN("id", OID_INT8));
    TABLE("itself", 'v', SHOWN("id", OID_INT8));
    define("adults", "users",
           "SELECT users.id AS who, users.name FROM public.users WHERE users.age > 17;");
    define("old_adults", "adults", "SELECT adults.who FROM public.adults;");
    define("per_user", "orders",
           "SELECT orders.user_id, count(*) AS n FROM public.orders GROUP BY orders.user_id;");
    define("per_country", "users",
           "SELECT users.country, count(*) AS n FROM public.users GROUP BY users.country;");
    define("names", "users", "SELECT users.name FROM public.users;");
    define("by_name", "users",
           "SELECT users.id, users.name FROM public.users ORDER BY users.name;");
    define("kept", NULL, "SELECT users.id FROM public.users;");
    define("kept_count", NULL, "SELECT count(*) AS n FROM public.users;");
    define("kept_logs", NULL, "SELECT logs.id FROM public.logs;");
    define("itself", "itself", "SELECT itself.id FROM public.itself;");
}

/* samples.at: below 100 on s0, then s1, from 200 on s2, from 300 on s0. towns.region: de, at on s1, us on
 * s2, others nowhere. */
static void add_value_keyspaces(void)
{
    static const long bounds[] = {100, 200, 300};
    static const char *const regions[] = {"de", "us", "at"};
    struct shardkey keys[3];
    struct key_entry entries[4] = {{NULL, 0, 0, 0}};
    int samples = shardmap_add_keyspace(fix.map, "samples", KEY_BIGINT, HASH_XXH64);
    int towns = shardmap_add_keyspace(fix.map, "towns", KEY_TEXT, HASH_XXH64);
    for (unsigned i = 0; i < 3; i++) {
        char text[20];
        int length = snprintf(text, sizeof text, "%ld", bounds[i]);
        assert_true(shardkey_from_text(KEY_BIGINT, text, (size_t)length, &keys[i]));
        entries[i + 1] = (struct key_entry){keys[i].bytes, keys[i].length, (i + 1) % 3, 0};
    }
    shardmap_map_values(fix.map, samples, MAP_RANGE, entries, 4, SHARDMAP_NO_SHARD);
    for (unsigned i = 0; i < 3; i++) {
        assert_true(shardkey_from_text(KEY_TEXT, regions[i], 2, &keys[i]));
        entries[i] = (struct key_entry){keys[i].bytes, keys[i].length, i == 1 ? 2 : 1, 0};
    }
    shardmap_map_values(fix.map, towns, MAP_LIST, entries, 3, SHARDMAP_NO_SHARD);
    shardmap_add_table(fix.map, "samples", samples, "at");
    shardmap_add_table(fix.map, "towns", towns, "region");
}

static int setup(void **state)
{
    static const char *names[] = {"s0", "s1", "s2"};
    (void)state;
    arena_init(&fix.arena);
    fix.map = shardmap_new(&(struct shardmap_builder){names, NULL, 3});
    int users = shardmap_add_keyspace(fix.map, "users", KEY_BIGINT, HASH_XXH64);
    int docs = shardmap_add_keyspace(fix.map, "docs", KEY_UUID, HASH_XXH64);
    int tenants = shardmap_add_keyspace(fix.map, "tenants", KEY_TEXT, HASH_XXH64);
    shardmap_add_table(fix.map, "users", users, "id");
    shardmap_add_table(fix.map, "orders", users, "user_id");
    shardmap_add_table(fix.map, "files", docs, "doc");
    shardmap_add_table(fix.map, "tenants", tenants, "slug");
    shardmap_add_table(fix.map, "codes", tenants, "code");
    shardmap_add_table(fix.map, "fresh", users, "id"); /* not in the schema */
    shardmap_add_table(fix.map, "countries", -1, NULL);
    add_value_keyspaces();
    fix.one = shardmap_new(&(struct shardmap_builder){names, NULL, 1});
    fix.schema = schema_new();
    schema_set_collation(fix.schema, "en_US.UTF-8", 'c');
    add_relations();
    add_children();
    add_views();
    add_definitions();
    schema_add_function(fix.schema, "pg_catalog", "lower", VOLATILITY_IMMUTABLE);
    schema_add_function(fix.schema, "public", "touch", VOLATILITY_VOLATILE);
    schema_add_function(fix.schema, "public", "geo", VOLATILITY_IMMUTABLE);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    shardmap_free(fix.map);
    shardmap_free(fix.one);
    schema_free(fix.schema);
    arena_free(&fix.arena);
    return 0;
}

/* ---- a plan in a few words ---- */

struct text {
    char bytes[4096];
    size_t length;
};

static void put(struct text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void put(struct text *text, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = vsnprintf(text->bytes + text->length, sizeof text->bytes - text->length, format, args);
    va_end(args);
    assert_in_range(n, 0, sizeof text->bytes - text->length - 1);
    text->length += (size_t)n;
}

/* "s1 R", "s0 P any", "rows s0 s1 s2 R: sort by 1", "write s1 s2 P", "all s0 s1 s2 P", "gather", "0A000". */
static inline void render(const struct plan *plan, struct text *out)
{
    static const char *const modes[] = {"rows", "write", "all", "cursor", "copy in", "copy out"};
    out->length = 0;
    put(out, "%s", "");
    if (plan->kind == PLAN_REFUSE) {
        put(out, "%s", plan->error.sqlstate);
        return;
    }
    if (plan->kind == PLAN_SCATTER && plan->mode == SCATTER_GATHER) {
        put(out, "gather");
        return;
    }
    if (plan->kind == PLAN_SCATTER && plan->mode == SCATTER_DRAW) {
        put(out, "draw s%u: %s", plan->queries[0].shard, plan->queries[0].sql);
        return;
    }
    if (plan->kind == PLAN_SCATTER && plan->mode == SCATTER_CHANGE) {
        const struct change_create *create = plan->change->create;
        put(out, create && create->each         ? "create each"
                 : create && create->everywhere ? "create fill"
                 : create                       ? "create gather"
                 : plan->change->gather         ? "change gather"
                                                : "change");
        if (plan->change->create && !plan->change->create->without.sql)
            put(out, " temp");
        for (int i = 0; i < plan->change->nsources; i++)
            put(out, " s%u", plan->change->sources[i].shard);
        for (int i = 0; i < plan->change->nlook_at; i++)
            put(out, " s%u", plan->change->look_at[i]);
        return;
    }
    if (plan->kind == PLAN_SCATTER)
        put(out, "%s ", modes[plan->mode]);
    else
        put(out, "s%u ", plan->shard);
    for (int i = 0; i < plan->nqueries; i++)
        put(out, "s%u ", plan->queries[i].shard);
    put(out, "%s", plan->node == NODE_CLASS_PRIMARY ? "P" : "R");
    put(out, "%s%s%s", plan->any_shard ? " any" : "", plan->needs_params ? " params" : "",
        plan->no_transaction ? " notx" : "");
    if (plan->kind != PLAN_SCATTER || !plan->merge)
        return;
    const char **lines;
    int count = router_explain(plan, fix.map, &fix.arena, &lines);
    put(out, ": %s", lines[count - 1] + strlen("  merge: "));
}

static inline const struct statement *parse_one(const char *sql)
{
    struct statement_list list = statement_parse(sql, &fix.arena);
    assert_int_equal(list.count, 1);
    return list.items[0];
}

static void check_sql(const char *sql, const char *sent)
{
    struct statement_list list = statement_parse(sent, &fix.arena);
    if (list.count != 1 || list.items[0]->syntax_error)
        fail_msg("%s: a shard gets what is no SQL: %s", sql, sent);
}

static void check_create(const char *sql, const struct change_create *create)
{
    if (!create->everywhere)
        check_sql(sql, create->filled.sql);
    if (create->everywhere || create->without.sql)
        check_sql(sql, create->without.sql);
    if (create->everywhere)
        check_sql(sql, create->made.sql);
    for (unsigned s = 0; create->each && s < shardmap_shards(fix.map); s++)
        check_sql(sql, create->each[s].sql);
}

static void check_gather(const char *sql, const struct plan *plan)
{
    assert_in_range(plan->gather->ntables, 1, 48);
    check_sql(sql, plan->gather->query.sql);
    for (int i = 0; i < plan->gather->ntables; i++) {
        check_sql(sql, plan->gather->tables[i].create.sql);
        check_sql(sql, plan->gather->tables[i].make.sql);
        check_sql(sql, plan->gather->tables[i].source.sql);
    }
}

static void check_change(const char *sql, const struct plan *plan)
{
    const struct change_plan *change = plan->change;
    const struct change_rows *rows = &change->rows;
    if (change->create) {
        check_create(sql, change->create);
        if (!change->create->everywhere || change->create->each)
            return;
    }
    for (int i = 0; i < change->nsources; i++)
        check_sql(sql, change->sources[i].sql);
    const char *names = rows->alias ? arena_printf(&fix.arena, "%s(a)", rows->alias) : "";
    check_sql(sql, arena_printf(&fix.arena, "%sVALUES (1)%s%s", rows->head, names, rows->tail.sql));
    if (!change->move)
        return;
    check_sql(sql, change->move->look.sql);
    check_sql(sql, change->move->stay.sql);
    check_sql(sql, change->move->go.sql);
    check_sql(sql, change->move->checks);
    for (unsigned i = 0; i < rows->nkeys; i++)
        assert_true(rows->keys[i].position < rows->nuntyped);
}

/* What must hold for every plan there is. */
static inline void check_sound(const char *sql, const struct plan *plan)
{
    assert_non_null(plan->reason);
    if (plan->kind == PLAN_REFUSE) {
        assert_non_null(plan->error.message);
        assert_int_equal(strlen(plan->error.sqlstate), 5);
        if (!plan->error.hint)
            fail_msg("%s: refused without a hint: %s", sql, plan->error.message);
    }
    if (plan->kind == PLAN_DIRECT)
        assert_in_range(plan->shard, 0, 2);
    if (plan->kind != PLAN_SCATTER)
        return;
    assert_in_range(plan->nqueries, 1, 3);
    assert_int_equal(plan->mode == SCATTER_ROWS, plan->mode == SCATTER_ROWS && plan->merge);
    if (plan->mode == SCATTER_GATHER) {
        check_gather(sql, plan);
        return;
    }
    if (plan->mode == SCATTER_CHANGE) {
        check_change(sql, plan);
        return;
    }
    for (int i = 0; i < plan->nqueries; i++)
        check_sql(sql, plan->queries[i].sql);
}

#endif
