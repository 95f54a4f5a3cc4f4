/* test_sequence_plan.c: sequences of several shards: which never give the same number, and what makes them so. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "fleet/sequence_plan.h"

static struct sequence_state state(int64_t increment, int64_t last, bool called)
{
    return (struct sequence_state){.exists = true,
                                   .increment = increment,
                                   .last = last,
                                   .called = called,
                                   .min = 1,
                                   .max = INT64_MAX};
}

static void test_fresh_sequences_begin_with_their_numbers(void **unused)
{
    (void)unused;
    const int numbers[] = {0, 1, 2};
    struct sequence_state states[] = {state(1, 1, false), state(1, 1, false), state(1, 1, false)};
    int64_t start[3];
    assert_int_equal(sequence_plan(states, numbers, 3, 64, 0, start), SEQUENCE_ALIGN);
    assert_int_equal(start[0], 1);
    assert_int_equal(start[1], 2);
    assert_int_equal(start[2], 3);
}

static void test_starts_above_all_that_was_given_or_found(void **unused)
{
    (void)unused;
    const int numbers[] = {0, 5};
    const int64_t highest[] = {0, 70, 1000, 1 << 20};
    for (int i = 0; i < 4; i++) {
        struct sequence_state states[] = {state(1, 100, true), state(1, 7, false)};
        int64_t start[2], floor = highest[i] > 100 ? highest[i] : 100;
        assert_int_equal(sequence_plan(states, numbers, 2, 64, highest[i], start), SEQUENCE_ALIGN);
        for (int shard = 0; shard < 2; shard++) {
            assert_true(start[shard] > floor && start[shard] <= floor + 64);
            assert_int_equal(start[shard] % 64, numbers[shard] + 1);
        }
    }
}

static void test_interleaved_ones_are_left_alone(void **unused)
{
    (void)unused;
    const int numbers[] = {0, 63};
    struct sequence_state states[] = {state(64, 641, true), state(64, 128, false)};
    int64_t start[2];
    assert_int_equal(sequence_plan(states, numbers, 2, 64, 1 << 20, start), SEQUENCE_GOOD);
    states[1].last++; /* another shard's number */
    assert_int_equal(sequence_plan(states, numbers, 2, 64, 0, start), SEQUENCE_ALIGN);
    assert_int_equal(start[0], 705);
    assert_int_equal(start[1], 704);
    states[1].last--;
    assert_int_equal(sequence_plan(states, numbers, 2, 128, 0, start), SEQUENCE_ALIGN);
}

static void test_odd_ones(void **unused)
{
    (void)unused;
    const int numbers[] = {0, 1};
    int64_t start[2];
    struct sequence_state states[] = {state(1, 1, false), state(1, 1, false)};
    states[1].exists = false;
    assert_int_equal(sequence_plan(states, numbers, 2, 64, 0, start), SEQUENCE_MISSING);
    states[1] = state(-1, -1, false);
    assert_int_equal(sequence_plan(states, numbers, 2, 64, 0, start), SEQUENCE_DESCENDING);
    states[1] = state(1, 1, false);
    states[1].cycles = true;
    assert_int_equal(sequence_plan(states, numbers, 2, 64, 0, start), SEQUENCE_CYCLES);
    states[1] = state(1, 1, false);
    states[1].max = 32767;
    assert_int_equal(sequence_plan(states, numbers, 2, 1024, 32000, start), SEQUENCE_FULL);
    assert_int_equal(sequence_plan(states, numbers, 2, 64, 32000, start), SEQUENCE_ALIGN);
}

static void test_numbers_stay_and_new_shards_get_free_ones(void **unused)
{
    (void)unused;
    int fresh[] = {-1, -1, -1};
    bool own[] = {false, false, false};
    assert_true(sequence_numbers(fresh, own, 3, 64));
    for (int i = 0; i < 3; i++)
        assert_int_equal(fresh[i], i);

    int grown[] = {-1, 0, 2}; /* the list has a new first shard */
    bool known[] = {false, true, true};
    assert_true(sequence_numbers(grown, known, 3, 64));
    assert_int_equal(grown[0], 1);
    assert_int_equal(grown[1], 0);
    assert_int_equal(grown[2], 2);
    assert_false(sequence_numbers(grown, known, 3, 2));
}

static void test_a_copy_of_a_shard_gets_another_number(void **unused)
{
    (void)unused;
    int copied[] = {4, 4, 4};
    bool own[] = {false, true, false};
    assert_true(sequence_numbers(copied, own, 3, 64));
    assert_int_equal(copied[1], 4);
    assert_true(copied[0] != 4 && copied[2] != 4 && copied[0] != copied[2]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fresh_sequences_begin_with_their_numbers),
        cmocka_unit_test(test_starts_above_all_that_was_given_or_found),
        cmocka_unit_test(test_interleaved_ones_are_left_alone),
        cmocka_unit_test(test_odd_ones),
        cmocka_unit_test(test_numbers_stay_and_new_shards_get_free_ones),
        cmocka_unit_test(test_a_copy_of_a_shard_gets_another_number),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
