/* test_route.c: what comments, sessions and modes make of where a statement runs. */
#include "plan_support.h"

struct route_case {
    const char *sql;
    struct route_session session;
    const char *expected; /* "R reason", "P reason", or the SQLSTATE of a refusal */
};

#define SESSION(...)                                                                               \
    {                                                                                              \
        .transaction_shard = -1, __VA_ARGS__                                                       \
    }
#define NOBODY SESSION(.key = NULL)

/* clang-format off */
static const struct route_case cases[] = {
    /* comments */
    {"SELECT * FROM logs", NOBODY, "R read"},
    {"SELECT * FROM logs /* pgshunt: primary */", NOBODY, "P hint: primary"},
    {"SELECT * FROM logs /* pgshunt: route=primary */", NOBODY, "P hint: primary"},
    {"SELECT * FROM logs /* pgshunt: replica */", NOBODY, "R hint: replica"},
    {"SELECT * FROM logs -- pgshunt: replica", NOBODY, "R hint: replica"},
    {"SELECT * FROM logs /* pgshunt: route=auto */", SESSION(.route = ROUTE_PRIMARY), "R read"},
    {"SELECT * FROM logs /* pgshunt: replica, region=eu max_lag=200ms */", NOBODY, "R hint: replica"},
    {"SELECT * FROM logs /* pgshunt: region=eu */ /* pgshunt: primary */", NOBODY, "P hint: primary"},
    {"SELECT * FROM logs /* pgshunt: primary */ /* pgshunt: primary */", NOBODY, "P hint: primary"},
    {"SELECT * FROM logs /* pgshunt: Primary */", NOBODY, "P hint: primary"},

    /* replica: for what is not known to be no read */
    {"SELECT touch() /* pgshunt: replica */", NOBODY, "R hint: replica"},
    {"SELECT unknown_function() /* pgshunt: replica */", NOBODY, "R hint: replica"},
    {"SELECT * FROM pg_stat_activity /* pgshunt: replica */", NOBODY, "R hint: replica"},
    {"SELECT * FROM made_today /* pgshunt: replica */", NOBODY, "R hint: replica"},
    {"SELECT last_value FROM log_seq /* pgshunt: replica */", NOBODY, "R hint: replica"},
    {"EXPLAIN ANALYZE SELECT touch() /* pgshunt: replica */", NOBODY, "R hint: replica"},
    {"COPY (SELECT touch()) TO STDOUT /* pgshunt: replica */", NOBODY, "R hint: replica"},
    {"SHOW transaction_read_only /* pgshunt: replica */", NOBODY, "R hint: replica"},
    {"SET work_mem = '1MB' /* pgshunt: replica */", NOBODY, "R hint: replica"},
    {"INSERT INTO logs VALUES (1) /* pgshunt: replica */", NOBODY, "P write"},
    {"WITH x AS (DELETE FROM logs RETURNING 1) SELECT * FROM x /* pgshunt: replica */", NOBODY, "P modifying CTE"},
    {"SELECT * FROM logs FOR UPDATE /* pgshunt: replica */", NOBODY, "P locking clause"},
    {"SELECT 1 INTO x /* pgshunt: replica */", NOBODY, "P creates a table"},
    {"SELECT nextval('log_seq') /* pgshunt: replica */", NOBODY, "P volatile function"},
    {"SELECT pg_advisory_lock(1) /* pgshunt: replica */", NOBODY, "P volatile function"},
    {"SELECT txid_current() /* pgshunt: replica */", NOBODY, "P function of the primary or the session"},
    {"SELECT * FROM pg_temp.x /* pgshunt: replica */", NOBODY, "P temporary table"},
    {"CREATE TABLE x (a int) /* pgshunt: replica */", NOBODY, "P creates a table"},
    {"CALL p() /* pgshunt: replica */", NOBODY, "P procedure"},
    {"DO 'begin end' /* pgshunt: replica */", NOBODY, "P procedure"},
    {"LISTEN a /* pgshunt: replica */", NOBODY, "P notification"},
    {"COPY logs TO '/tmp/x' /* pgshunt: replica */", NOBODY, "P file on the server"},
    {"VACUUM logs /* pgshunt: replica */", NOBODY, "P schema change"},
    {"DECLARE c CURSOR WITH HOLD FOR SELECT 1 /* pgshunt: replica */", NOBODY, "P cursor"},
    {"SELEC 1 /* pgshunt: replica */", NOBODY, "P not understood"},

    /* what is wrong in them */
    {"SELECT 1 /* pgshunt: primry */", NOBODY, "42704"},
    {"SELECT 1 /* pgshunt: see the manual */", NOBODY, "42704"},
    {"SELECT 1 /* pgshunt: lag=5s */", NOBODY, "42704"},
    {"SELECT 1 /* pgshunt: primary=1 */", NOBODY, "22023"},
    {"SELECT 1 /* pgshunt: region */", NOBODY, "22023"},
    {"SELECT 1 /* pgshunt: region= */", NOBODY, "22023"},
    {"SELECT 1 /* pgshunt: max_lag */", NOBODY, "22023"},
    {"SELECT 1 /* pgshunt: max_lag=200 */", NOBODY, "22023"},
    {"SELECT 1 /* pgshunt: max_lag=-1s */", NOBODY, "22023"},
    {"SELECT 1 /* pgshunt: max_lag=8d */", NOBODY, "22023"},
    {"SELECT 1 /* pgshunt: max_lag=99999999999999999999s */", NOBODY, "22023"},
    {"SELECT 1 /* pgshunt: max_lag=soon */", NOBODY, "22023"},
    {"SELECT 1 /* pgshunt: route=secondary */", NOBODY, "22023"},
    {"SELECT 1 /* pgshunt: primary replica */", NOBODY, "22023"},
    {"SELECT 1 /* pgshunt: primary */ /* pgshunt: route=replica */", NOBODY, "22023"},
    {"UPDATE logs SET msg = '' /* pgshunt: replicas */", NOBODY, "42704"},
    {"SELEC 1 /* pgshunt: replicas */", NOBODY, "42704"},
    {"SELECT 1; SELECT 2 /* pgshunt: replicas */", NOBODY, "42704"},
    {"COMMIT /* pgshunt: nonsense */", NOBODY, "P transaction control"},
    {"ROLLBACK /* pgshunt: nonsense */", NOBODY, "P transaction control"},
    {"SELECT '/* pgshunt: nonsense */'", NOBODY, "R read"},
    {"SELECT 1 /* about pgshunt: nonsense */", NOBODY, "R read"},

    /* sessions, weaker than comments */
    {"SELECT 1", SESSION(.route = ROUTE_PRIMARY), "P session: primary"},
    {"SELECT 1 /* pgshunt: replica */", SESSION(.route = ROUTE_PRIMARY), "R hint: replica"},
    {"SELECT touch()", SESSION(.route = ROUTE_REPLICA), "R session: replica"},
    {"SELECT touch() /* pgshunt: primary */", SESSION(.route = ROUTE_REPLICA), "P volatile function"},
    {"SELECT touch() /* pgshunt: route=auto */", SESSION(.route = ROUTE_REPLICA), "P volatile function"},
    {"UPDATE logs SET msg = ''", SESSION(.route = ROUTE_REPLICA), "P write"},

    /* transactions */
    {"SELECT 1", SESSION(.in_transaction = true), "P in a transaction"},
    {"SELECT 1", SESSION(.in_transaction = true, .read_only = true), "R read"},
    {"SELECT 1", SESSION(.in_transaction = true, .read_only = true, .on_primary = true), "R read"},
    {"SELECT touch()", SESSION(.in_transaction = true, .read_only = true), "P volatile function"},
    {"SELECT 1", SESSION(.in_transaction = true, .route = ROUTE_REPLICA), "R session: replica"},
    {"SELECT 1 /* pgshunt: replica */", SESSION(.in_transaction = true), "R hint: replica"},
    {"SELECT 1 /* pgshunt: replica */", SESSION(.in_transaction = true, .on_primary = true), "P in a transaction"},
    {"SELECT 1", SESSION(.in_transaction = true, .on_primary = true, .route = ROUTE_REPLICA), "P in a transaction"},
    {"DECLARE c CURSOR FOR SELECT 1", SESSION(.in_transaction = true), "P in a transaction"},
    {"DECLARE c CURSOR FOR SELECT 1", SESSION(.in_transaction = true, .read_only = true), "R read"},
    {"SELECT 1", SESSION(.read_only = true), "R read"},

    /* read_write_split = conservative: what declares it */
    {"SELECT 1", SESSION(.only_declared = true), "P not declared to be a read"},
    {"SELECT 1 /* pgshunt: replica */", SESSION(.only_declared = true), "R hint: replica"},
    {"SELECT 1", SESSION(.only_declared = true, .route = ROUTE_REPLICA), "R session: replica"},
    {"SELECT 1", SESSION(.only_declared = true, .read_only = true), "R read"},
    {"SELECT 1", SESSION(.only_declared = true, .read_only = true, .in_transaction = true), "R read"},
    {"SELECT 1", SESSION(.only_declared = true, .in_transaction = true), "P in a transaction"},
    {"SELECT touch()", SESSION(.only_declared = true), "P volatile function"},
    {"SELECT 1 /* pgshunt: region=eu */", SESSION(.only_declared = true), "P not declared to be a read"},

    /* ... = off, SERIALIZABLE, session pooling: whatever is said */
    {"SELECT 1", SESSION(.force_primary = "off"), "P off"},
    {"SELECT 1 /* pgshunt: replica */", SESSION(.force_primary = "off"), "P off"},
    {"SELECT 1", SESSION(.force_primary = "off", .route = ROUTE_REPLICA), "P off"},
    {"SELECT 1", SESSION(.force_primary = "off", .read_only = true, .in_transaction = true), "P off"},
    {"SELECT 1", SESSION(.force_primary = "off", .route = ROUTE_PRIMARY), "P session: primary"},

    /* several statements in one message: together */
    {"SELECT 1; SELECT 2", NOBODY, "R read"},
    {"SELECT 1; SELECT 2 /* pgshunt: primary */", NOBODY, "P hint: primary"},
    {"SELECT touch() /* pgshunt: replica */; SELECT 1", NOBODY, "R hint: replica"},
    {"SELECT touch() /* pgshunt: replica */; SELECT touch()", NOBODY, "P volatile function"},
    {"SELECT 1; UPDATE logs SET msg = ''", NOBODY, "P write"},
};
/* clang-format on */

static void words_of(const struct plan *plan, char *out, size_t size)
{
    if (plan->kind == PLAN_REFUSE)
        snprintf(out, size, "%s", plan->error.sqlstate);
    else
        snprintf(out, size, "%c %s", plan->node == NODE_CLASS_PRIMARY ? 'P' : 'R',
                 plan->node_reason);
}

static void plan_for(const char *sql, const struct route_session *session, struct plan *plan)
{
    struct statement_list list = statement_parse(sql, &fix.arena);
    struct route_input input = {.map = fix.one, .schema = fix.schema, .session = session};
    router_plan_list(&list, &input, &fix.arena, plan);
}

static void test_routes(void **state)
{
    (void)state;
    int bad = 0;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct plan plan;
        char words[100];
        plan_for(cases[i].sql, &cases[i].session, &plan);
        words_of(&plan, words, sizeof words);
        if (plan.kind == PLAN_REFUSE)
            assert_non_null(plan.error.hint);
        if (strcmp(words, cases[i].expected) != 0) {
            print_error("case %zu: %s: %s, not %s\n", i, cases[i].sql, words, cases[i].expected);
            bad++;
        }
    }
    assert_int_equal(bad, 0);
}

/* What a comment says of the replica is carried to where one is chosen. */
static void test_wishes(void **state)
{
    (void)state;
    static const struct {
        const char *sql, *region;
        int64_t max_lag_us;
    } wishes[] = {
        {"SELECT 1", NULL, -1},
        {"SELECT 1 /* pgshunt: replica */", NULL, -1},
        {"SELECT 1 /* pgshunt: region=eu */", "eu", -1},
        {"SELECT 1 /* pgshunt: region='far away' max_lag=0s */", "far away", 0},
        {"/* pgshunt: max_lag=200ms */ SELECT 1 -- pgshunt: region=eu", "eu", 200000},
        {"SELECT 1 /* pgshunt: max_lag='2 min', replica */", NULL, 120000000},
        {"SELECT 1 /* pgshunt: max_lag=1s */; SELECT 2", NULL, 1000000},
    };
    for (size_t i = 0; i < sizeof wishes / sizeof *wishes; i++) {
        struct plan plan;
        plan_for(wishes[i].sql, NULL, &plan);
        assert_int_equal(plan.kind, PLAN_DIRECT);
        assert_int_equal(plan.wish != NULL, wishes[i].region || wishes[i].max_lag_us >= 0);
        if (!plan.wish)
            continue;
        assert_int_equal(plan.wish->max_lag_us, wishes[i].max_lag_us);
        if (wishes[i].region)
            assert_string_equal(plan.wish->region, wishes[i].region);
        else
            assert_null(plan.wish->region);
    }
}

static void test_layers(void **state)
{
    (void)state;
    struct route_wish wish = {.route = ROUTE_PRIMARY,
                              .region = "eu",
                              .max_lag_us = 5,
                              .monotonic_reads = SAID_ON,
                              .no_replica = NO_REPLICA_ERROR};
    struct route_wish
        none = ROUTE_WISH_NONE,
        some = {.route = ROUTE_UNSAID, .region = "", .max_lag_us = -1, .read_your_writes = SAID_ON},
        all = {.route = ROUTE_AUTO, .region = "us", .max_lag_us = 0, .monotonic_reads = SAID_OFF};
    route_wish_lay_over(&wish, &none);
    assert_int_equal(wish.route, ROUTE_PRIMARY);
    assert_string_equal(wish.region, "eu");
    assert_int_equal(wish.max_lag_us, 5);
    route_wish_lay_over(&wish, &some);
    assert_int_equal(wish.route, ROUTE_PRIMARY);
    assert_string_equal(wish.region, "");
    assert_int_equal(wish.max_lag_us, 5);
    route_wish_lay_over(&wish, &all);
    assert_int_equal(wish.route, ROUTE_AUTO);
    assert_string_equal(wish.region, "us");
    assert_int_equal(wish.max_lag_us, 0);
    assert_int_equal(wish.read_your_writes, SAID_ON);
    assert_int_equal(wish.monotonic_reads, SAID_OFF);
    assert_int_equal(wish.no_replica, NO_REPLICA_ERROR); /* nobody says it later */
}

static void test_truth_values(void **state)
{
    (void)state;
    static const struct {
        const char *value;
        enum said said;
    } values[] = {{"on", SAID_ON}, {"OFF", SAID_OFF}, {"true", SAID_ON}, {"No", SAID_OFF},
                  {"1", SAID_ON},  {"0", SAID_OFF},   {"", NOT_SAID},    {"maybe", NOT_SAID}};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        struct route_wish wish = ROUTE_WISH_NONE;
        const char *allowed = NULL;
        bool taken = route_wish_take(&wish, i % 2 ? "monotonic_reads" : "read_your_writes",
                                     values[i].value, &allowed);
        assert_int_equal(taken, values[i].said != NOT_SAID);
        assert_int_equal(i % 2 ? wish.monotonic_reads : wish.read_your_writes, values[i].said);
        assert_string_equal(allowed, "on or off");
    }
}

static void test_region_has_a_length(void **state)
{
    (void)state;
    struct route_wish wish = ROUTE_WISH_NONE;
    const char *allowed;
    char region[300];
    memset(region, 'r', sizeof region);
    region[256] = '\0';
    assert_false(route_wish_take(&wish, "region", region, &allowed));
    assert_null(wish.region);
    assert_non_null(allowed);
    region[255] = '\0';
    assert_true(route_wish_take(&wish, "region", region, &allowed));
    assert_false(route_wish_take(&wish, "colour", "red", &allowed));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_routes),
        cmocka_unit_test(test_wishes),
        cmocka_unit_test(test_layers),
        cmocka_unit_test(test_truth_values),
        cmocka_unit_test(test_region_has_a_length),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
