/* test_load.c: how a source's answers slow the copy down, and let it go. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include "resharder/load.h"

#define STEP_US 200000

/* The server's time, and what has been written on it. */
static int64_t now;
static uint64_t written;

static enum load_verdict sample(struct load *load, double ms, int more, bool alone)
{
    now += STEP_US;
    written += (uint64_t)more;
    return load_take(load, &(struct load_sample){ms, now, written}, alone);
}

/* The verdict on the last of as many samples as a decision takes; `more` transactions are written between two. */
static enum load_verdict take_paced(struct load *load, double ms, int more, bool alone)
{
    for (int i = 1; i < LOAD_SAMPLES; i++)
        assert_int_equal(sample(load, ms, more, alone), LOAD_UNDECIDED);
    return sample(load, ms, more, alone);
}

static enum load_verdict take(struct load *load, double ms, bool alone)
{
    return take_paced(load, ms, 0, alone);
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
        sample(&load, i == 2 ? 5000 : 10, 0, false);
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
        sample(&load, 1000, 0, false);
    take(&load, 10, true);
    assert_true(load.alone_ms > 9 && load.alone_ms < 11);
    assert_int_equal(take(&load, 10, false), LOAD_SAME);
}

/* Applications that get less done than without the copy, though each transaction is quick. */
static void test_applications_are_left_most(void **state)
{
    (void)state;
    struct load load = {.percent = 150};
    take_paced(&load, 1, 1000, true);
    assert_int_equal(take_paced(&load, 1, 930, false), LOAD_SAME);
    assert_int_equal(load.brake, 0);
    take_paced(&load, 1, 1000, true);
    assert_int_equal(take_paced(&load, 1, 600, false), LOAD_BRAKES);
    assert_false(load_is_slow(&load));
    assert_in_range((int)load_per_second(&load.with_pace), 2999, 3001);
    take_paced(&load, 1, 1000, true);
    assert_int_equal(take_paced(&load, 1, 960, false), LOAD_RELEASES);
}

/* They may just have less to do: that is looked at before it counts. */
static void test_old_news(void **state)
{
    (void)state;
    struct load load = {.percent = 150};
    take_paced(&load, 1, 1000, true);
    now += LOAD_FRESH_US;
    assert_int_equal(take_paced(&load, 1, 600, false), LOAD_DOUBTS);
    assert_int_equal(load.brake, 0);
    take_paced(&load, 1, 600, true);
    assert_int_equal(take_paced(&load, 1, 600, false), LOAD_SAME);
    assert_int_equal(load.brake, 0);
}

/* Of a handful nothing is concluded, nor of what is a matter of chance, nor where the number is not known. */
static void test_too_few_to_tell(void **state)
{
    (void)state;
    struct load load = {.percent = 150};
    take_paced(&load, 1, 5, true);
    assert_int_equal(take_paced(&load, 1, 0, false), LOAD_SAME);
    take_paced(&load, 1, 50, true);
    assert_int_equal(take_paced(&load, 1, 43, false), LOAD_SAME);
    assert_int_equal(load.brake, 0);
    take_paced(&load, 1, 1000, true);
    written = 0;
    assert_int_equal(take_paced(&load, 1, 0, false), LOAD_SAME);
    assert_int_equal(load.brake, 0);
}

/* Samples that come quickly are taken for some time all the same: some transactions have to be counted. */
static void test_span(void **state)
{
    (void)state;
    struct load load = {.percent = 150};
    int64_t began = now;
    int samples = 0;
    do {
        now += 10000;
        samples++;
        load_take(&load, &(struct load_sample){1, now, ++written}, true);
    } while (!load.alone_at);
    assert_true(now - began >= LOAD_SPAN_US && samples > LOAD_SAMPLES);
    assert_int_equal((int)load_per_second(&load.alone_pace), 100);
}

static void test_calm(void **state)
{
    (void)state;
    struct load load = {.percent = 150};
    assert_false(load_is_calm(&load)); /* nothing is known yet */
    take_paced(&load, 1, 0, true);
    take_paced(&load, 1, 1, false);
    assert_true(load_is_calm(&load));
    take_paced(&load, 1, 100, false);
    assert_false(load_is_calm(&load));
    take_paced(&load, LOAD_FLOOR_MS, 1, false);
    assert_false(load_is_calm(&load));
}

static void test_keep(void **state)
{
    (void)state;
    assert_int_equal(load_keep(150), 90);
    assert_int_equal(load_keep(200), 80);
    assert_int_equal(load_keep(101), 95);
    assert_int_equal(load_keep(10000), 50);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_slows_and_goes), cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_alone_counts),   cmocka_unit_test(test_noise),
        cmocka_unit_test(test_kinds),          cmocka_unit_test(test_applications_are_left_most),
        cmocka_unit_test(test_old_news),       cmocka_unit_test(test_too_few_to_tell),
        cmocka_unit_test(test_span),           cmocka_unit_test(test_keep),
        cmocka_unit_test(test_calm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
