/* test_breaker.c: a node's circuit breaker, on a fake clock. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "proxy/breaker.h"

#define S 1000000LL

static const struct breaker_limits limits = {.failures = 5, .open_us = 30 * S, .reset_us = 60 * S};

static void opened_at(struct breaker *breaker, int64_t now)
{
    *breaker = (struct breaker){0};
    assert_true(breaker_fail(breaker, &limits, 5, now));
    assert_int_equal(breaker->state, BREAKER_OPEN);
}

static void test_opens_at_the_threshold(void **state)
{
    (void)state;
    struct breaker breaker = {0};
    for (int i = 0; i < 4; i++)
        assert_false(breaker_fail(&breaker, &limits, 1, (100 + i) * S));
    assert_int_equal(breaker.failures, 4);
    assert_int_equal(breaker.state, BREAKER_CLOSED);
    assert_true(breaker_fail(&breaker, &limits, 1, 105 * S));
    assert_int_equal(breaker.state, BREAKER_OPEN);
    /* More of them neither prolong it nor are news. */
    assert_false(breaker_fail(&breaker, &limits, 7, 106 * S));
    assert_int_equal(breaker.since, 105 * S);
}

static void test_old_failures_do_not_count(void **state)
{
    (void)state;
    struct breaker breaker = {0};
    assert_false(breaker_fail(&breaker, &limits, 4, 100 * S));
    assert_false(breaker_fail(&breaker, &limits, 1, 161 * S));
    assert_int_equal(breaker.failures, 1);
    assert_false(breaker_tick(&breaker, &limits, 220 * S));
    assert_int_equal(breaker.failures, 1);
    assert_false(breaker_tick(&breaker, &limits, 222 * S));
    assert_int_equal(breaker.failures, 0);
}

static void test_half_open_after_a_while(void **state)
{
    (void)state;
    struct breaker breaker;
    opened_at(&breaker, 100 * S);
    assert_false(breaker_tick(&breaker, &limits, 129 * S));
    assert_true(breaker_tick(&breaker, &limits, 130 * S));
    assert_int_equal(breaker.state, BREAKER_HALF_OPEN);
    assert_int_equal(breaker.failures, 0);
}

static void test_one_success_closes_it(void **state)
{
    (void)state;
    struct breaker breaker;
    opened_at(&breaker, 100 * S);
    breaker_tick(&breaker, &limits, 130 * S);
    assert_true(breaker_succeed(&breaker, 131 * S));
    assert_int_equal(breaker.state, BREAKER_CLOSED);
    assert_false(breaker_succeed(&breaker, 132 * S));
    assert_false(breaker_fail(&breaker, &limits, 4, 133 * S)); /* counted from nothing */
}

static void test_one_failure_opens_it_again(void **state)
{
    (void)state;
    struct breaker breaker;
    opened_at(&breaker, 100 * S);
    breaker_tick(&breaker, &limits, 130 * S);
    assert_true(breaker_fail(&breaker, &limits, 1, 131 * S));
    assert_int_equal(breaker.state, BREAKER_OPEN);
    assert_false(breaker_tick(&breaker, &limits, 160 * S));
    assert_true(breaker_tick(&breaker, &limits, 161 * S));
}

static void test_nobody_tries_it(void **state)
{
    (void)state;
    struct breaker breaker;
    opened_at(&breaker, 100 * S);
    breaker_tick(&breaker, &limits, 130 * S);
    assert_false(breaker_tick(&breaker, &limits, 189 * S));
    assert_true(breaker_tick(&breaker, &limits, 190 * S));
    assert_int_equal(breaker.state, BREAKER_CLOSED);
}

static void test_switched_off(void **state)
{
    (void)state;
    struct breaker_limits off = limits;
    struct breaker breaker = {0};
    off.failures = 0;
    assert_false(breaker_fail(&breaker, &off, 1000, 100 * S));
    opened_at(&breaker, 100 * S);
    assert_true(breaker_tick(&breaker, &off, 101 * S));
    assert_int_equal(breaker.state, BREAKER_CLOSED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_opens_at_the_threshold),
        cmocka_unit_test(test_old_failures_do_not_count),
        cmocka_unit_test(test_half_open_after_a_while),
        cmocka_unit_test(test_one_success_closes_it),
        cmocka_unit_test(test_one_failure_opens_it_again),
        cmocka_unit_test(test_nobody_tries_it),
        cmocka_unit_test(test_switched_off),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
