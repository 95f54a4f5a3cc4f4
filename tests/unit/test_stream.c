/* test_stream.c: what streams keep for themselves: how far they are behind, and transactions that wait in files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "resharder/spill.h"
#include "resharder/stream_lag.h"

static void unknown_is_not_zero(void **state)
{
    (void)state;
    struct stream_lag lag = {.count = 0};
    assert_int_equal(stream_lag_bytes(&lag, 100, 1000), -1);
    assert_true(stream_lag_seconds(&lag, 1000) < 0);
    stream_lag_sample(&lag, 100, 1000);
    stream_lag_applied(&lag, 100);
    assert_int_equal(stream_lag_bytes(&lag, 100, 1100), 0);
    assert_true(stream_lag_seconds(&lag, 1100) >= 0.1);
    assert_int_equal(stream_lag_bytes(&lag, 100, 60000), -1); /* the source is silent */
    assert_true(stream_lag_seconds(&lag, 60000) < 0);
}

static void as_old_as_what_is_missing(void **state)
{
    (void)state;
    struct stream_lag lag = {.count = 0};
    for (int i = 1; i <= 1000; i++)
        stream_lag_sample(&lag, (uint64_t)i * 10, i * 250);
    assert_true(lag.count <= STREAM_LAG_SAMPLES);
    assert_int_equal(stream_lag_bytes(&lag, 0, 250000), 10000);
    assert_true(stream_lag_seconds(&lag, 250000) > 200);
    stream_lag_applied(&lag, 9999);
    assert_int_equal(stream_lag_bytes(&lag, 9999, 250000), 1);
    assert_true(stream_lag_seconds(&lag, 250250) < 1);
    stream_lag_applied(&lag, 20000);
    assert_int_equal(stream_lag_bytes(&lag, 20000, 250000), 0);
    assert_int_equal(lag.count, 0);
}

/* Messages of all sizes come back as they were, up to the end and not beyond. */
static void what_waits_in_a_file(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 1, 65531, 65532, 65536, 5, 300000, 0, 7};
    enum { COUNT = sizeof sizes / sizeof *sizes };
    char *bytes = malloc(300000);
    size_t length;
    struct spill *spill = spill_open(700);
    assert_non_null(spill);
    for (int i = 0; i < COUNT; i++) {
        memset(bytes, 'a' + i, sizes[i]);
        assert_true(spill_write(spill, bytes, sizes[i]));
    }
    for (uint32_t xid = 900; xid > 800; xid -= 2)
        spill_abort(spill, xid);
    assert_true(spill_rewind(spill));
    for (int i = 0; i < COUNT; i++) {
        const char *read = spill_read(spill, &length);
        assert_non_null(read);
        assert_int_equal(length, sizes[i]);
        memset(bytes, 'a' + i, sizes[i]);
        assert_memory_equal(read, bytes, length);
    }
    assert_null(spill_read(spill, &length));
    assert_int_equal(length, 0);
    assert_true(spill_is_aborted(spill, 802) && spill_is_aborted(spill, 900));
    assert_false(spill_is_aborted(spill, 801) || spill_is_aborted(spill, 700));
    spill_close(spill);
    free(bytes);
}

static void no_folder(void **state)
{
    (void)state;
    setenv("TMPDIR", "/nonexistent/folder", 1);
    assert_null(spill_open(1));
    unsetenv("TMPDIR");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unknown_is_not_zero),
        cmocka_unit_test(as_old_as_what_is_missing),
        cmocka_unit_test(what_waits_in_a_file),
        cmocka_unit_test(no_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
