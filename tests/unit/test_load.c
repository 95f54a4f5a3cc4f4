/* test_load.c: how a source's answers slow the copy down, and let it go. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include "resharder/load.h"

/* The verdict on the last of as many samples as a decision takes. */
static enum load_verdict take(struct load *load, double ms, bool alone)
{
    for (int i = 1; i < LOAD_SAMPLES; i++)
        assert_int_equal(load_take(load, ms, alone), LOAD_UNDECIDED);
    return load_take(load, ms, alone);
}

static void test_slows_and_goes(void **state)
{
    (void)state;
    struct load load = {.percent = 150};
    assert_int_equal(take(&load, 10, true), LOAD_SAME);
    assert_int_equal(take(&load, 14, false), LOAD_SAME);
    assert_int_equal(load.brake, 0);
    assert_int_equal(take(&load, 16, false), LOAD_BRAKES);
    int first = load.brake;
    assert_true(first > 0);
    assert_int_equal(take(&load, 16, false), LOAD_SAME);
    assert_int_equal(load.brake, 2 * first);
    assert_int_equal(take(&load, 14, false), LOAD_SAME);
    assert_true(load.brake > 0 && load.brake < 2 * first);
    assert_int_equal(take(&load, 14, false), LOAD_RELEASES);
    assert_int_equal(load.brake, 0);
}

static void test_bounds(void **state)
{
    (void)state;
    struct load load = {.percent = 150};
    take(&load, 1, true);
    for (int i = 0; i < 100; i++)
        take(&load, 1000, false);
    assert_int_equal(load.brake, LOAD_BRAKE_MOST);
    for (int i = 0; i < 1000; i++)
        take(&load, 1, false);
    assert_int_equal(load.brake, 0);
}

/* What takes long without the copy is not its fault. */
static void test_alone_counts(void **state)
{
    (void)state;
    struct load load = {.percent = 150};
    take(&load, 10, true);
    assert_int_equal(take(&load, 100, false), LOAD_BRAKES);
    int brake = load.brake;
    take(&load, 100, true);
    assert_int_equal(load.brake, brake);
    assert_int_equal(take(&load, 100, false), LOAD_RELEASES);
}

/* One slow answer among quick ones is none of the load's, nor is what takes no time to speak of. */
static void test_noise(void **state)
{
    (void)state;
    struct load load = {.percent = 150};
    take(&load, 10, true);
    for (int i = 0; i < LOAD_SAMPLES; i++)
        load_take(&load, i == 2 ? 5000 : 10, false);
    assert_int_equal(load.brake, 0);
    take(&load, 0.1, true);
    assert_int_equal(take(&load, LOAD_FLOOR_MS - 0.1, false), LOAD_SAME);
    assert_int_equal(load.brake, 0);
}

/* Samples of both kinds are not mixed. */
static void test_kinds(void **state)
{
    (void)state;
    struct load load = {.percent = 150};
    for (int i = 1; i < LOAD_SAMPLES; i++)
        load_take(&load, 1000, false);
    take(&load, 10, true);
    assert_true(load.alone_ms > 9 && load.alone_ms < 11);
    assert_int_equal(take(&load, 10, false), LOAD_SAME);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_slows_and_goes), cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_alone_counts),   cmocka_unit_test(test_noise),
        cmocka_unit_test(test_kinds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
