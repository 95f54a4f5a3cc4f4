/* test_lag.c: lag and freshness from WAL position history, on a fake clock. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdbool.h>
#include <string.h>

#include "proxy/lag.h"

#define MS 1000
#define COUNT(array) (sizeof(array) / sizeof(array)[0])

struct sample {
    int64_t sent;
    uint64_t insert, flushed;
};

static void fill(struct lag_history *history, const struct sample *samples, size_t count)
{
    lag_init(history);
    for (size_t i = 0; i < count; i++)
        lag_add_sample(history, samples[i].sent, samples[i].insert, samples[i].flushed);
}

static void test_unknown_is_never_zero(void **state)
{
    (void)state;
    struct lag_history history;
    lag_init(&history);
    struct lag lag = lag_of(&history, 1000, 5 * MS);
    assert_int_equal(lag.lag_us, -1);
    assert_int_equal(lag.lag_bytes, -1);
    assert_int_equal(lag.fresh_as_of, 0);

    lag_add_sample(&history, 1 * MS, 10, 10);
    lag_reset(&history);
    lag = lag_of(&history, 1000, 5 * MS);
    assert_int_equal(lag.lag_us, -1);
    assert_int_equal(lag.fresh_as_of, 0);
    lag_free(&history);
}

/* A busy primary: 100 bytes every 100 ms, all flushed. */
static const struct sample busy[] = {
    {100 * MS, 1000, 1000}, {200 * MS, 1100, 1100}, {300 * MS, 1200, 1200}, {400 * MS, 1300, 1300}};
/* Idle since 200 ms. */
static const struct sample idle[] = {{100 * MS, 1000, 1000},
                                     {200 * MS, 1100, 1100},
                                     {300 * MS, 1100, 1100},
                                     {9000 * MS, 1100, 1100}};
/* Idle, with a record nobody flushes until 500 ms. */
static const struct sample unflushed[] = {
    {100 * MS, 1000, 1000}, {200 * MS, 1040, 1000}, {400 * MS, 1040, 1000}, {500 * MS, 1040, 1040}};

static void test_lag(void **state)
{
    (void)state;
    static const struct {
        const char *what;
        const struct sample *samples;
        size_t count;
        uint64_t replayed;
        int64_t now, lag_us, lag_bytes, fresh_as_of;
    } cases[] = {
        {"caught up", busy, 4, 1300, 410 * MS, 0, 0, 400 * MS},
        {"ahead of the last sample", busy, 4, 1399, 480 * MS, 0, 0, 400 * MS},
        {"one sample behind", busy, 4, 1200, 410 * MS, 10 * MS, 100, 300 * MS},
        {"between two samples", busy, 4, 1150, 410 * MS, 110 * MS, 150, 200 * MS},
        {"at the first sample", busy, 4, 1000, 410 * MS, 210 * MS, 300, 100 * MS},
        {"before all history", busy, 4, 900, 410 * MS, 310 * MS, 400, 0},
        {"one byte short", busy, 4, 1299, 410 * MS, 10 * MS, 1, 300 * MS},
        {"idle, caught up", idle, 4, 1100, 9050 * MS, 0, 0, 9000 * MS},
        {"idle, behind: since the write", idle, 4, 1000, 9050 * MS, 8850 * MS, 100, 100 * MS},
        {"idle, far behind", idle, 4, 1, 9050 * MS, 8950 * MS, 1099, 0},
        {"unflushed: no lag, but not fresh", unflushed, 3, 1000, 450 * MS, 0, 0, 100 * MS},
        {"flushed and replayed", unflushed, 4, 1040, 550 * MS, 0, 0, 500 * MS},
        {"flushed, not replayed", unflushed, 4, 1000, 550 * MS, 50 * MS, 40, 100 * MS},
        {"clock of the sample is ahead", busy, 4, 1200, 390 * MS, 0, 100, 300 * MS},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct lag_history history;
        fill(&history, cases[i].samples, cases[i].count);
        struct lag lag = lag_of(&history, cases[i].replayed, cases[i].now);
        lag_free(&history);
        if (lag.lag_us != cases[i].lag_us || lag.lag_bytes != cases[i].lag_bytes ||
            lag.fresh_as_of != cases[i].fresh_as_of)
            fail_msg("%s: lag %lld us, %lld bytes, fresh as of %lld", cases[i].what,
                     (long long)lag.lag_us, (long long)lag.lag_bytes, (long long)lag.fresh_as_of);
    }
}

static void test_equal_samples_take_no_room(void **state)
{
    (void)state;
    struct lag_history history;
    lag_init(&history);
    for (int i = 0; i < 100000; i++)
        lag_add_sample(&history, i * MS, 500, 500);
    assert_int_equal(history.count, 1);
    assert_int_equal(lag_of(&history, 500, 100000 * MS).fresh_as_of, 99999 * MS);
    assert_int_equal(lag_of(&history, 499, 100000 * MS).lag_us, 100000 * MS);
    lag_free(&history);
}

static void test_falling_position_starts_anew(void **state)
{
    (void)state;
    struct lag_history history;
    fill(&history, busy, COUNT(busy));
    lag_add_sample(&history, 500 * MS, 1250, 1250); /* a crash lost 50 bytes */
    assert_int_equal(history.count, 1);
    struct lag lag = lag_of(&history, 1200, 510 * MS);
    assert_int_equal(lag.lag_us, 10 * MS);
    assert_int_equal(lag.fresh_as_of, 0);

    lag_add_sample(&history, 600 * MS, 1300, 1240); /* only the flushed one falls */
    assert_int_equal(history.count, 1);
    lag_free(&history);
}

static void test_flushed_beyond_insert(void **state)
{
    (void)state;
    struct lag_history history;
    lag_init(&history);
    lag_add_sample(&history, 100 * MS, 1000, 1010); /* read a moment later, on a busy server */
    assert_int_equal(lag_of(&history, 1005, 110 * MS).fresh_as_of, 0);
    assert_int_equal(lag_of(&history, 1010, 110 * MS).fresh_as_of, 100 * MS);
    lag_free(&history);
}

/* Ten hours of busy samples stay within the table, in order, and never understate lag or overstate
 * freshness. */
static void test_thinning(void **state)
{
    (void)state;
    const int64_t step = 100 * MS;
    const int samples = 360000;
    struct lag_history history;
    lag_init(&history);
    for (int i = 0; i < samples; i++)
        lag_add_sample(&history, i * step, 1000 + (uint64_t)i * 10, 1000 + (uint64_t)i * 10);
    assert_true(history.count <= LAG_CAPACITY);
    for (size_t i = 1; i < history.count; i++) {
        assert_true(history.entries[i].flushed > history.entries[i - 1].flushed);
        assert_true(history.entries[i].first > history.entries[i - 1].last);
    }

    int64_t now = samples * step;
    for (int behind = 1; behind < samples; behind = behind * 2 + 1) {
        int at = samples - 1 - behind; /* replayed up to this sample: the truth is known */
        struct lag lag = lag_of(&history, 1000 + (uint64_t)at * 10, now);
        int64_t truth = now - (at + 1) * step;
        assert_int_equal(lag.lag_bytes, behind * 10);
        assert_true(lag.fresh_as_of <= at * step);
        assert_true(lag.lag_us >= truth);
        assert_true(lag.lag_us <= truth + truth / 64 + step);
    }
    /* The last seconds are kept in full. */
    assert_int_equal(lag_of(&history, 1000 + (uint64_t)(samples - 101) * 10, now).lag_us,
                     100 * step);
    lag_free(&history);
}

/* A clock that stands still must not overrun the table; what is forgotten is unknown, not fresh. */
static void test_full_at_one_moment(void **state)
{
    (void)state;
    struct lag_history history;
    lag_init(&history);
    for (int i = 0; i < 3 * LAG_CAPACITY; i++)
        lag_add_sample(&history, 7 * MS, 1000 + (uint64_t)i, 1000 + (uint64_t)i);
    assert_true(history.count <= LAG_CAPACITY);
    struct lag lag = lag_of(&history, 1000, 8 * MS);
    assert_int_equal(lag.fresh_as_of, 0);
    assert_int_equal(lag.lag_us, 1 * MS);
    assert_int_equal(lag.lag_bytes, 3 * LAG_CAPACITY - 1);
    lag_free(&history);
}

static void test_page_headers(void **state)
{
    (void)state;
    static const struct {
        uint64_t insert;
        uint32_t page;
        uint64_t segment;
        uint64_t expected;
    } cases[] = {
        {0x3000028, 8192, 0x1000000, 0x3000000}, /* after pg_switch_wal() */
        {0x3002018, 8192, 0x1000000, 0x3002000}, /* a record ended at a page's end */
        {0x3002028, 8192, 0x1000000, 0x3002028}, /* 16 bytes of a record on an ordinary page */
        {0x3100028, 8192, 0x1000000, 0x3100028}, /* not a segment's first page */
        {0x3100028, 8192, 0x100000, 0x3100000},  /* 1 MB segments: it is */
        {0x3000018, 8192, 0x1000000, 0x3000018}, /* cannot be: inside the long header */
        {0x3002017, 8192, 0x1000000, 0x3002017},
        {0x3002000, 8192, 0x1000000, 0x3002000},
        {0x3000028, 0, 0, 0x3000028}, /* sizes unknown: left alone */
        {0x3000018, 4096, 0x1000000, 0x3000018},
        {0x3001018, 4096, 0x1000000, 0x3001000},
    };
    for (size_t i = 0; i < COUNT(cases); i++)
        if (lag_skip_page_header(cases[i].insert, cases[i].page, cases[i].segment) !=
            cases[i].expected)
            fail_msg("case %zu: %#llx", i,
                     (unsigned long long)lag_skip_page_header(cases[i].insert, cases[i].page,
                                                              cases[i].segment));
}

static void test_hysteresis(void **state)
{
    (void)state;
    static const struct {
        int64_t lag, held;
    } steps[] = {{-1, -1},    {0, 0},       {300, 300},  {800, 800},   {1000, 1000}, {900, 1000},
                 {750, 1000}, {749, 999},   {100, 134},  {120, 134},   {140, 140},   {-1, -1},
                 {900, 1200}, {1000, 1200}, {900, 1200}, {1300, 1300}, {0, 0}};
    int64_t held = -1;
    for (size_t i = 0; i < COUNT(steps); i++) {
        held = lag_hold(held, steps[i].lag);
        if (held != steps[i].held)
            fail_msg("step %zu: held %lld", i, (long long)held);
    }
}

/* One number says for every limit what a flag for each of them would. */
static void test_hysteresis_of_all_limits(void **state)
{
    (void)state;
    enum { LIMITS = 400 };
    bool over[LIMITS];
    int64_t held = -1;
    uint32_t seed = 1;
    memset(over, true, sizeof over);
    for (int step = 0; step < 20000; step++) {
        seed = seed * 1664525u + 1013904223u;
        int64_t lag = (seed >> 16) % (step % 3 ? 300 : 40);
        held = lag_hold(held, lag);
        for (int64_t limit = 0; limit < LIMITS; limit++) {
            if (lag > limit)
                over[limit] = true;
            else if (lag * 4 <= limit * 3)
                over[limit] = false;
            if (over[limit] != (held > limit))
                fail_msg("step %d, lag %lld, limit %lld, held %lld", step, (long long)lag,
                         (long long)limit, (long long)held);
        }
    }
    assert_int_equal(lag_hold(INT64_MAX, INT64_MAX), INT64_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unknown_is_never_zero),
        cmocka_unit_test(test_lag),
        cmocka_unit_test(test_equal_samples_take_no_room),
        cmocka_unit_test(test_falling_position_starts_anew),
        cmocka_unit_test(test_flushed_beyond_insert),
        cmocka_unit_test(test_thinning),
        cmocka_unit_test(test_full_at_one_moment),
        cmocka_unit_test(test_page_headers),
        cmocka_unit_test(test_hysteresis),
        cmocka_unit_test(test_hysteresis_of_all_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
