/* test_schema.c: what names mean in a catalog snapshot. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "pgshunt/schema.h"

static struct schema_relation table(const char *schema_name, const char *name, char kind)
{
    return (struct schema_relation){
        .schema = schema_name, .name = name, .kind = kind, .persistence = 'p'};
}

static void add_table(struct schema *schema, const char *schema_name, const char *name, char kind)
{
    struct schema_relation relation = table(schema_name, name, kind);
    schema_add_relation(schema, &relation);
}

static void test_relations_by_name(void **state)
{
    (void)state;
    struct schema *schema = schema_new();
    add_table(schema, "tenant_a", "orders", 'r');
    add_table(schema, "public", "users", 'r');
    add_table(schema, "audit", "users", 'v');
    add_table(schema, "tenant_b", "events", 'r');
    add_table(schema, "tenant_c", "events", 'p');
    add_table(schema, "public", "pg_thing", 'r');
    add_table(schema, "pg_catalog", "pg_thing", 'v');
    static const struct {
        const char *schema_name, *name, *found_schema;
    } cases[] = {
        {NULL, "orders", "tenant_a"},
        {NULL, "users", "public"},
        {"audit", "users", "audit"},
        {"public", "users", "public"},
        {NULL, "events", NULL},
        {"tenant_c", "events", "tenant_c"},
        {"nowhere", "users", NULL},
        {NULL, "nothing", NULL},
        {NULL, "Users", NULL},
        {NULL, "", NULL},
        {NULL, "pg_thing", "pg_catalog"},
        {"public", "pg_thing", "public"},
        {"tenant_a\1", "orders", NULL},
        {"", "users", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const struct schema_relation *found =
            schema_relation(schema, cases[i].schema_name, cases[i].name);
        if (!cases[i].found_schema) {
            assert_null(found);
            continue;
        }
        assert_non_null(found);
        assert_string_equal(found->schema, cases[i].found_schema);
        assert_string_equal(found->name, cases[i].name);
    }
    schema_free(schema);
}

static void test_order_of_loading_does_not_matter(void **state)
{
    (void)state;
    static const char *orders[][3] = {
        {"public", "a", "b"}, {"a", "public", "b"}, {"a", "b", "public"}};
    for (int i = 0; i < 3; i++) {
        struct schema *schema = schema_new();
        for (int k = 0; k < 3; k++)
            add_table(schema, orders[i][k], "t", 'r');
        assert_string_equal(schema_relation(schema, NULL, "t")->schema, "public");
        schema_free(schema);
    }
}

static void test_columns_are_copied(void **state)
{
    (void)state;
    char name[] = "id", other[] = "label", collation[] = "C";
    struct schema_column columns[] = {{name, 20, true, NULL, false, false, false, 0, NULL},
                                      {other, 25, false, collation, false, false, false, 0, NULL}};
    struct schema_relation relation = {.schema = "public",
                                       .name = "t",
                                       .kind = 'r',
                                       .persistence = 'u',
                                       .columns = columns,
                                       .ncolumns = 2};
    struct schema *schema = schema_new();
    schema_add_relation(schema, &relation);
    memset(name, 'x', 2);
    memset(other, 'x', 5);
    memset(collation, 'x', 1);
    const struct schema_relation *found = schema_relation(schema, "public", "t");
    assert_int_equal(found->persistence, 'u');
    assert_int_equal(schema_column(found, "id")->type_oid, 20);
    assert_true(schema_column(found, "id")->collation_default);
    assert_string_equal(schema_column(found, "label")->collation, "C");
    assert_null(schema_column(found, "xx"));
    assert_null(schema_column(found, "Label"));
    schema_free(schema);
}

static void test_a_relation_added_again_replaces_the_first(void **state)
{
    (void)state;
    struct schema *schema = schema_new();
    add_table(schema, "public", "t", 'r');
    add_table(schema, "public", "t", 'v');
    add_table(schema, "x", "u", 'r');
    add_table(schema, "x", "u", 'v');
    assert_int_equal(schema_relation(schema, NULL, "t")->kind, 'v');
    assert_int_equal(schema_relation(schema, "public", "t")->kind, 'v');
    assert_int_equal(schema_relation(schema, NULL, "u")->kind, 'v');
    schema_free(schema);
}

static void test_functions_keep_the_most_volatile(void **state)
{
    (void)state;
    struct schema *schema = schema_new();
    schema_add_function(schema, "pg_catalog", "lower", VOLATILITY_IMMUTABLE);
    schema_add_function(schema, "pg_catalog", "to_char", VOLATILITY_IMMUTABLE);
    schema_add_function(schema, "pg_catalog", "to_char", VOLATILITY_STABLE);
    schema_add_function(schema, "pg_catalog", "to_char", VOLATILITY_IMMUTABLE);
    schema_add_function(schema, "public", "f", VOLATILITY_STABLE);
    schema_add_function(schema, "a", "f", VOLATILITY_VOLATILE);
    schema_add_function(schema, "a", "dark", VOLATILITY_UNKNOWN);
    assert_int_equal(schema_function(schema, NULL, "lower"), VOLATILITY_IMMUTABLE);
    assert_int_equal(schema_function(schema, NULL, "to_char"), VOLATILITY_STABLE);
    assert_int_equal(schema_function(schema, NULL, "f"), VOLATILITY_VOLATILE);
    assert_int_equal(schema_function(schema, "public", "f"), VOLATILITY_STABLE);
    assert_int_equal(schema_function(schema, NULL, "g"), VOLATILITY_UNKNOWN);
    assert_int_equal(schema_function(schema, "b", "f"), VOLATILITY_UNKNOWN);
    assert_int_equal(schema_function(schema, NULL, "dark"), VOLATILITY_VOLATILE);
    assert_false(schema_function_overridden(schema, "lower"));
    assert_true(schema_function_overridden(schema, "f"));
    assert_false(schema_function_overridden(schema, "g"));
    schema_free(schema);
}

static void test_names_longer_than_any_catalog_has(void **state)
{
    (void)state;
    static char lengthy[2000];
    memset(lengthy, 'n', sizeof lengthy - 1);
    struct schema *schema = schema_new();
    add_table(schema, "public", "t", 'r');
    add_table(schema, lengthy, lengthy, 'r');
    schema_add_function(schema, lengthy, lengthy, VOLATILITY_IMMUTABLE);
    assert_null(schema_relation(schema, lengthy, "t"));
    assert_null(schema_relation(schema, "public", lengthy));
    assert_null(schema_relation(schema, NULL, lengthy));
    assert_int_equal(schema_function(schema, lengthy, lengthy), VOLATILITY_UNKNOWN);
    schema_free(schema);
}

static void test_many_relations(void **state)
{
    (void)state;
    struct schema *schema = schema_new();
    char name[32];
    for (int i = 0; i < 5000; i++) {
        snprintf(name, sizeof name, "t%d", i);
        add_table(schema, i % 2 ? "public" : "other", name, 'r');
    }
    for (int i = 0; i < 5000; i++) {
        snprintf(name, sizeof name, "t%d", i);
        assert_string_equal(schema_relation(schema, NULL, name)->name, name);
        assert_non_null(schema_relation(schema, i % 2 ? "public" : "other", name));
        assert_null(schema_relation(schema, i % 2 ? "other" : "public", name));
    }
    schema_free(schema);
}

static void test_collation(void **state)
{
    (void)state;
    struct schema *schema = schema_new();
    assert_string_equal(schema_collate(schema), "C");
    assert_int_equal(schema_collation_provider(schema), 'c');
    schema_set_collation(schema, "de_DE.UTF-8", 'i');
    assert_string_equal(schema_collate(schema), "de_DE.UTF-8");
    assert_int_equal(schema_collation_provider(schema), 'i');
    assert_null(schema_relation(schema, NULL, "empty"));
    assert_int_equal(schema_function(schema, NULL, "empty"), VOLATILITY_UNKNOWN);
    schema_free(schema);
    schema_free(NULL);
}

static void test_parents(void **state)
{
    (void)state;
    struct schema *schema = schema_new();
    char parent[] = "events", parent_schema[] = "public";
    struct schema_relation part = table("parts", "events_1", 'r');
    part.parent = parent;
    part.parent_schema = parent_schema;
    schema_add_relation(schema, &part);
    add_table(schema, "public", "events", 'p');
    parent[0] = parent_schema[0] = 'x'; /* copied */
    const struct schema_relation *found = schema_relation(schema, NULL, "events_1");
    assert_string_equal(found->parent, "events");
    assert_string_equal(found->parent_schema, "public");
    assert_null(schema_relation(schema, "public", "events")->parent);
    assert_null(schema_relation(schema, "public", "events")->parent_schema);
    schema_free(schema);
}

/* A name that may mean several relations is known all the same. */
static void test_any(void **state)
{
    (void)state;
    struct schema *schema = schema_new();
    add_table(schema, "b", "events", 'r');
    add_table(schema, "c", "events", 'r');
    add_table(schema, "b", "one", 'r');
    assert_null(schema_relation(schema, NULL, "events"));
    assert_string_equal(schema_relation_any(schema, NULL, "events")->name, "events");
    assert_string_equal(schema_relation_any(schema, "c", "events")->schema, "c");
    assert_ptr_equal(schema_relation_any(schema, NULL, "one"),
                     schema_relation(schema, NULL, "one"));
    assert_null(schema_relation_any(schema, NULL, "two"));
    assert_null(schema_relation_any(schema, "c", "one"));
    add_table(schema, "public", "events", 'r');
    assert_string_equal(schema_relation_any(schema, NULL, "events")->schema, "public");
    schema_free(schema);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_relations_by_name),
        cmocka_unit_test(test_parents),
        cmocka_unit_test(test_any),
        cmocka_unit_test(test_order_of_loading_does_not_matter),
        cmocka_unit_test(test_columns_are_copied),
        cmocka_unit_test(test_a_relation_added_again_replaces_the_first),
        cmocka_unit_test(test_functions_keep_the_most_volatile),
        cmocka_unit_test(test_names_longer_than_any_catalog_has),
        cmocka_unit_test(test_many_relations),
        cmocka_unit_test(test_collation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
