/* test_config_lookup.c: lookups in the configuration file. */
#include "config_support.h"

#define WITH(lookups)                                                                              \
    TRUST "databases = ( { name = \"app\"; shards = ( " SHARD " ); keyspaces = ( { name = \"k\"; " \
          "type = \"bigint\"; tables = ( { name = \"users\"; key = \"id\"; }, { name = "           \
          "\"sales.orders\"; key = \"user_id\"; } ); lookup = ( " lookups " ); } ); } );\n"

static void test_good(void **state)
{
    (void)state;
    struct config *config = load_text(WITH(
        "{ table = \"users\"; column = \"email\"; unique = true; }, "
        "{ table = \"sales.orders\"; column = \"id\"; }, { table = \"users\"; column = \"x\"; }"));
    const struct keyspace_config *keyspace = &config->databases[0].keyspaces[0];
    assert_int_equal(keyspace->nlookups, 3);
    assert_string_equal(keyspace->lookups[0].column, "email");
    assert_true(keyspace->lookups[0].unique);
    assert_string_equal(keyspace->lookups[1].table, "sales.orders");
    assert_false(keyspace->lookups[1].unique);
    assert_int_equal(config->lookup_cache, 100000);
    config_free(config);
}

static void test_refused(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {WITH("{ table = \"orders\"; column = \"id\"; }"), "which is not in keyspace \"k\""},
        {WITH("{ table = \"users\"; column = \"id\"; }"), "which is the key of table \"users\""},
        {WITH("{ table = \"users\"; column = \"x\"; }, { table = \"users\"; column = \"x\"; }"),
         "a second lookup of column \"x\""},
        {WITH("{ table = \"users\"; }"), "column"},
        {WITH("{ column = \"x\"; }"), "table"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct config_error error;
        struct config *config =
            config_load_text("test.conf", cases[i][0], strlen(cases[i][0]), &error);
        assert_null(config);
        if (!strstr(error.text, cases[i][1]))
            fail_msg("%s\n  expected: %s", error.text, cases[i][1]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
