/* test_merge.c: merging result streams: order, groups, DISTINCT, limits, hidden columns, errors. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "pgshunt/merge.h"
#include "pgshunt/pgtypes.h"
#include "pgshunt/wire.h"
#include "tests/unit/merge_cases.h"

/* ---- messages ---- */

/* Columns as "name:oid" separated by blanks; ":b" at the end of one means binary. */
static void put_description(struct buffer *out, const char *columns)
{
    char copy[256], *save = NULL;
    size_t start = buffer_length(out);
    int count = 0;
    snprintf(copy, sizeof copy, "%s", columns);
    buffer_append(out, "\0\0", 2);
    for (char *word = strtok_r(copy, " ", &save); word; word = strtok_r(NULL, " ", &save)) {
        char *oid = strchr(word, ':');
        *oid++ = '\0';
        unsigned char tail[18] = {0};
        unsigned number = (unsigned)strtoul(oid, NULL, 10);
        wire_set32(tail + 6, number);
        tail[10] = number == OID_TEXT ? 0xff : 0;
        tail[11] = number == OID_TEXT ? 0xff : number >= OID_FIRST_USER ? 4 : 8;
        tail[17] = strstr(oid, ":b") ? 1 : 0;
        buffer_append(out, word, strlen(word) + 1);
        buffer_append(out, tail, sizeof tail);
        count++;
    }
    buffer_head(out)[start] = (char)(count >> 8);
    buffer_head(out)[start + 1] = (char)count;
}

/* Values separated by '|'; "NULL" is SQL NULL. */
static void put_row(struct buffer *out, const char *values)
{
    size_t start = buffer_length(out);
    int count = 0;
    buffer_append(out, "\0\0", 2);
    for (const char *at = values; at; count++) {
        const char *end = strchr(at, '|');
        size_t length = end ? (size_t)(end - at) : strlen(at);
        bool null = length == 4 && memcmp(at, "NULL", 4) == 0;
        unsigned char size[4];
        wire_set32(size, null ? UINT32_MAX : (uint32_t)length);
        buffer_append(out, size, sizeof size);
        if (!null)
            buffer_append(out, at, length);
        at = end ? end + 1 : NULL;
    }
    buffer_head(out)[start + 1] = (char)count;
}

static bool feed_row(struct merge *merge, int shard, const char *values)
{
    struct buffer body = {0};
    put_row(&body, values);
    bool fed = merge_feed(merge, shard, 'D', buffer_head(&body), buffer_length(&body));
    buffer_release(&body);
    return fed;
}

static bool feed_description(struct merge *merge, int shard, const char *columns)
{
    struct buffer body = {0};
    put_description(&body, columns);
    bool fed = merge_feed(merge, shard, 'T', buffer_head(&body), buffer_length(&body));
    buffer_release(&body);
    return fed;
}

static void show_row(struct buffer *text, const char *body)
{
    int count = wire_get16(body);
    const char *at = body + 2;
    for (int i = 0; i < count; i++) {
        int32_t length = (int32_t)wire_get32(at);
        at += 4;
        buffer_printf(text, "%s%.*s", i ? "|" : "", length < 0 ? 4 : length,
                      length < 0 ? "NULL" : at);
        at += length < 0 ? 0 : length;
    }
}

static void show_description(struct buffer *text, const char *body)
{
    int count = wire_get16(body);
    const char *at = body + 2;
    for (int i = 0; i < count; i++) {
        buffer_printf(text, "%s%s", i ? "," : "", at);
        at += strlen(at) + 1 + 18;
    }
}

/* Messages as text: rows end in '\n', a description is in brackets. Checks the framing on the way. */
static void show(const struct buffer *out, struct buffer *text)
{
    const char *at = out->data ? buffer_head(out) : "", *end = at + buffer_length(out);
    while (at < end) {
        assert_true(end - at >= 7);
        size_t length = wire_get32(at + 1);
        assert_true(at + 1 + length <= end);
        if (*at == 'T') {
            buffer_printf(text, "[");
            show_description(text, at + 5);
            buffer_printf(text, "]");
        } else {
            assert_int_equal(*at, 'D');
            show_row(text, at + 5);
        }
        buffer_printf(text, "\n");
        at += 1 + length;
    }
    buffer_append(text, "", 1);
}

/* What goes on while rows are fed: one shard after the other, or in turns, with little room or much. */
struct interleaving {
    bool in_turns;
    bool run_often;
    size_t room;
};

static const struct interleaving interleavings[] = {
    {false, false, 1 << 20}, {true, false, 1 << 20}, {false, true, 1},
    {true, true, 1},         {true, true, 1 << 20},
};

static enum merge_status run_all(struct merge *merge, struct buffer *out, size_t room)
{
    enum merge_status status;
    do {
        size_t before = buffer_length(out);
        status = merge_run(merge, out, room);
        if (status == MERGE_FULL)
            assert_true(buffer_length(out) - before >= room);
    } while (status == MERGE_FULL);
    return status;
}

static void feed_in_turns(struct merge *merge, const struct merge_case *test,
                          const struct interleaving *how, struct buffer *out)
{
    for (int row = 0; row < MAX_ROWS; row++)
        for (int shard = test->nshards - 1; shard >= 0; shard--) {
            const char *const *rows = test->shards[shard];
            if (rows[row] && !feed_row(merge, shard, rows[row]))
                return;
            bool last = row == 0 ? !rows[0] : rows[row - 1] && !rows[row];
            if (last && !merge_feed(merge, shard, 'C', "", 1))
                return;
            if (how->run_often)
                run_all(merge, out, how->room);
        }
}

static void feed_by_shard(struct merge *merge, const struct merge_case *test,
                          const struct interleaving *how, struct buffer *out)
{
    for (int shard = 0; shard < test->nshards; shard++) {
        for (int row = 0; test->shards[shard][row]; row++) {
            if (!feed_row(merge, shard, test->shards[shard][row]))
                return;
            if (how->run_often)
                run_all(merge, out, how->room);
        }
        if (!merge_feed(merge, shard, 'C', "SELECT 1", 9))
            return;
    }
}

static void check_failure(const struct merge_case *test, struct merge *merge)
{
    const struct pg_error *error = merge_error(merge);
    if (!test->sqlstate)
        fail_msg("%s: %s", test->name, error->message);
    assert_string_equal(error->sqlstate, test->sqlstate);
    if (!strstr(error->message, test->message))
        fail_msg("%s: \"%s\" without \"%s\"", test->name, error->message, test->message);
    assert_non_null(error->hint);
    assert_int_equal(merge_feed(merge, 0, 'C', "", 0), false);
    assert_false(merge_hungry(merge, 0));
}

static void check_rows(const struct merge_case *test, struct merge *merge, struct buffer *out)
{
    struct buffer text = {0};
    int64_t lines = 0;
    show(out, &text);
    for (const char *at = test->expected; (at = strchr(at, '\n')); at++)
        lines++;
    if (strcmp(buffer_head(&text), test->expected) != 0)
        print_message("%s\n", test->name);
    assert_string_equal(buffer_head(&text), test->expected);
    assert_int_equal(merge_rows(merge), lines);
    buffer_release(&text);
}

/* Groups that are written without a sort come in the order they were met, so only fed by shard. */
static bool order_is_open(const struct merge_case *test)
{
    return !test->spec.nsort && (test->spec.ngroup_keys || test->spec.distinct);
}

static void run_case(const struct merge_case *test, const struct interleaving *how)
{
    struct buffer out = {0};
    if (order_is_open(test) && how->in_turns)
        return;
    struct merge *merge = merge_new(&test->spec, test->nshards, 4);
    bool described = true;
    for (int shard = 0; shard < test->nshards && described; shard++)
        described = feed_description(merge, shard, test->columns);
    if (described && how->in_turns)
        feed_in_turns(merge, test, how, &out);
    else if (described)
        feed_by_shard(merge, test, how, &out);
    enum merge_status status = run_all(merge, &out, how->room);
    assert_int_equal(status, test->expected ? MERGE_DONE : MERGE_FAILED);
    if (status == MERGE_FAILED)
        check_failure(test, merge);
    else
        check_rows(test, merge, &out);
    merge_free(merge);
    buffer_release(&out);
}

static void test_cases(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++)
        for (size_t j = 0; j < COUNT(interleavings); j++)
            run_case(&cases[i], &interleavings[j]);
}

/* ---- one by one ---- */

static void test_description(void **state)
{
    const struct merge_spec spec = {.visible = -1, .hidden = 1, .limit = -1};
    struct merge *merge = merge_new(&spec, 2, 0);
    struct buffer out = {0}, text = {0};
    (void)state;
    merge_want_description(merge, true);
    assert_int_equal(merge_run(merge, &out, 1000), MERGE_WAIT);
    assert_int_equal(buffer_length(&out), 0);
    assert_true(feed_description(merge, 0, "a:25 b:20 h:20"));
    assert_true(feed_row(merge, 0, "x|1|9"));
    assert_int_equal(merge_run(merge, &out, 1000), MERGE_WAIT);
    assert_true(feed_row(merge, 0, "y|NULL|9"));
    assert_int_equal(merge_run(merge, &out, 1000), MERGE_WAIT);
    show(&out, &text);
    assert_string_equal(buffer_head(&text), "[a,b]\nx|1\ny|NULL\n");
    buffer_release(&out);
    buffer_release(&text);
    merge_free(merge);
}

/* Rows that come before any description are kept for it; without one they are an error. */
static void test_rows_before_description(void **state)
{
    const struct merge_spec spec = {.visible = 1, .limit = -1};
    struct buffer out = {0}, text = {0};
    (void)state;
    struct merge *merge = merge_new(&spec, 2, 0);
    assert_true(feed_row(merge, 1, "b"));
    assert_true(merge_feed(merge, 1, 'C', "", 0));
    assert_int_equal(merge_run(merge, &out, 1000), MERGE_WAIT);
    assert_true(feed_description(merge, 0, "a:25"));
    assert_true(merge_feed(merge, 0, 'C', "", 0));
    assert_int_equal(merge_run(merge, &out, 1000), MERGE_DONE);
    show(&out, &text);
    assert_string_equal(buffer_head(&text), "b\n");
    merge_free(merge);
    merge = merge_new(&spec, 1, 0);
    assert_true(feed_row(merge, 0, "b"));
    assert_true(merge_feed(merge, 0, 'C', "", 0));
    assert_int_equal(merge_run(merge, &out, 1000), MERGE_FAILED);
    assert_string_equal(merge_error(merge)->sqlstate, "08P01");
    merge_free(merge);
    buffer_release(&out);
    buffer_release(&text);
}

static void test_disagreement(void **state)
{
    static const struct {
        const char *first, *second;
        bool agree;
    } pairs[] = {
        {"a:25 b:20", "a:25 b:20", true}, {"a:25", "other:25", true}, {"a:25", "a:25 b:20", false},
        {"a:25", "a:1043", false},        {"a:20", "a:20:b", false},  {"a:20001", "a:20999", true},
        {"a:20001:b", "a:20999:b", true}, {"a:20001", "a:25", false},
    };
    const struct merge_spec spec = {.visible = -1, .limit = -1};
    (void)state;
    for (size_t i = 0; i < COUNT(pairs); i++) {
        struct merge *merge = merge_new(&spec, 2, 0);
        assert_true(feed_description(merge, 0, pairs[i].first));
        assert_int_equal(feed_description(merge, 1, pairs[i].second), pairs[i].agree);
        if (!pairs[i].agree) {
            assert_string_equal(merge_error(merge)->sqlstate, "XX000");
            assert_non_null(strstr(merge_error(merge)->message, "shards disagree"));
        }
        merge_free(merge);
    }
}

/* Every prefix of a good message, and a good message with a byte more, is malformed. */
static void check_truncations(char type, const struct buffer *good)
{
    const struct merge_spec spec = {.visible = 2, .limit = -1};
    for (size_t length = 0; length <= buffer_length(good) + 1; length++) {
        if (length == buffer_length(good))
            continue;
        struct merge *merge = merge_new(&spec, 1, 0);
        struct buffer out = {0};
        char *body = calloc(1, length + 1); /* of its own size: an over-read shows under ASan */
        memcpy(body, buffer_head(good), length < buffer_length(good) ? length : length - 1);
        bool fed = type == 'T' || feed_description(merge, 0, "a:25 b:20");
        fed = fed && merge_feed(merge, 0, type, body, length);
        assert_int_equal(merge_run(merge, &out, 1000), MERGE_FAILED);
        assert_int_equal(fed, type == 'D');
        assert_string_equal(merge_error(merge)->sqlstate, "08P01");
        assert_int_equal(buffer_length(&out), 0);
        free(body);
        merge_free(merge);
    }
}

static void test_malformed(void **state)
{
    struct buffer description = {0}, row = {0};
    (void)state;
    put_description(&description, "a:25 b:20");
    put_row(&row, "x|1");
    check_truncations('T', &description);
    check_truncations('D', &row);
    wire_set32(buffer_head(&row) + 2, 0x7fffffff);
    const struct merge_spec spec = {.visible = 2, .limit = -1};
    struct merge *merge = merge_new(&spec, 1, 0);
    struct buffer out = {0};
    assert_true(feed_description(merge, 0, "a:25 b:20"));
    assert_true(merge_feed(merge, 0, 'D', buffer_head(&row), buffer_length(&row)));
    assert_int_equal(merge_run(merge, &out, 1000), MERGE_FAILED);
    merge_free(merge);
    merge = merge_new(&spec, 1, 0);
    assert_true(merge_feed(merge, 0, 'C', "", 0));
    assert_false(feed_row(merge, 0, "x|1"));
    assert_string_equal(merge_error(merge)->sqlstate, "08P01");
    merge_free(merge);
    buffer_release(&description);
    buffer_release(&row);
}

/* A shard far ahead of the others is not read on; one that is waited for is, whatever it holds. */
static void test_hungry(void **state)
{
    const struct merge_spec spec = {.visible = 2, .limit = -1, .nsort = 1, SORT({0, false, false})};
    struct merge *merge = merge_new(&spec, 2, 0);
    struct buffer out = {0};
    const size_t wide = 300 * 1024;
    char *row = calloc(1, wide + 8);
    (void)state;
    assert_true(feed_description(merge, 0, "a:20 b:25"));
    assert_true(merge_hungry(merge, 0) && merge_hungry(merge, 1));
    memcpy(row, "1|", 2);
    memset(row + 2, 'x', wide);
    assert_true(feed_row(merge, 0, row));
    assert_int_equal(merge_run(merge, &out, 1000), MERGE_WAIT);
    assert_false(merge_hungry(merge, 0));
    assert_true(merge_hungry(merge, 1));
    assert_true(feed_row(merge, 1, "2|y"));
    assert_int_equal(run_all(merge, &out, 1000), MERGE_WAIT);
    assert_int_equal(merge_rows(merge), 1);
    assert_true(merge_hungry(merge, 0)); /* its wide row is out */
    assert_true(merge_feed(merge, 0, 'C', "", 0));
    assert_false(merge_hungry(merge, 0));
    assert_true(merge_feed(merge, 1, 'C', "", 0));
    assert_int_equal(run_all(merge, &out, 1000), MERGE_DONE);
    assert_false(merge_hungry(merge, 1));
    free(row);
    merge_free(merge);
    buffer_release(&out);
}

/* LIMIT ends the merge at once: nothing more is waited for, what still comes is ignored. */
static void test_limit_ends(void **state)
{
    const struct merge_spec spec = {.visible = 1, .limit = 2, .nsort = 1, SORT({0, false, false})};
    struct merge *merge = merge_new(&spec, 2, 0);
    struct buffer out = {0};
    (void)state;
    assert_true(feed_description(merge, 0, "a:20"));
    assert_true(feed_row(merge, 0, "1"));
    assert_true(feed_row(merge, 0, "2"));
    assert_int_equal(run_all(merge, &out, 1000), MERGE_WAIT);
    assert_true(feed_row(merge, 1, "5"));
    assert_int_equal(run_all(merge, &out, 1000), MERGE_DONE);
    assert_int_equal(merge_rows(merge), 2);
    assert_true(feed_row(merge, 0, "0"));
    assert_int_equal(run_all(merge, &out, 1000), MERGE_DONE);
    assert_int_equal(merge_rows(merge), 2);
    merge_free(merge);
    buffer_release(&out);
}

static void test_binary_sort(void **state)
{
    static const struct {
        int shard;
        const char bytes[2 + 4 + 8];
    } rows[] = {
        {0, {0, 1, 0, 0, 0, 8, -1, -1, -1, -1, -1, -1, -1, -1}},
        {1, {0, 1, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0}},
        {0, {0, 1, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 1, 0}},
    };
    const struct merge_spec spec = {.visible = 1, .limit = -1, .nsort = 1, SORT({0, false, false})};
    struct merge *merge = merge_new(&spec, 2, 0);
    struct buffer out = {0};
    (void)state;
    assert_true(feed_description(merge, 0, "a:20:b"));
    for (size_t i = 0; i < COUNT(rows); i++)
        assert_true(merge_feed(merge, rows[i].shard, 'D', rows[i].bytes, sizeof rows[i].bytes));
    assert_true(merge_feed(merge, 0, 'C', "", 0));
    assert_true(merge_feed(merge, 1, 'I', "", 0));
    assert_int_equal(run_all(merge, &out, 1000), MERGE_DONE);
    assert_int_equal(buffer_length(&out), 3 * (5 + sizeof rows[0].bytes));
    for (size_t i = 0; i < COUNT(rows); i++) /* the table is in order */
        assert_memory_equal(buffer_head(&out) + i * (5 + sizeof rows[0].bytes) + 5, rows[i].bytes,
                            sizeof rows[i].bytes);
    merge_free(merge);
    buffer_release(&out);
}

/* ---- many rows ---- */

/* Text keys point into stream buffers, which move while they are filled ahead of each other. */
static void test_buffers_move(void **state)
{
    const struct merge_spec spec = {.visible = 1, .limit = -1, .nsort = 1, SORT({0, false, false})};
    struct merge *merge = merge_new(&spec, 3, 0);
    struct buffer out = {0};
    const int total = 30000;
    char row[32], previous[32] = "";
    (void)state;
    assert_true(feed_description(merge, 0, "a:25"));
    for (int i = 0; i < total; i++) {
        snprintf(row, sizeof row, "key %08d", i);
        assert_true(feed_row(merge, (i / 7) % 3, row));
        if (i % 11 == 0)
            assert_int_equal(run_all(merge, &out, 100), MERGE_WAIT);
    }
    for (int i = 0; i < 3; i++)
        assert_true(merge_feed(merge, i, 'C', "", 0));
    assert_int_equal(run_all(merge, &out, 100), MERGE_DONE);
    assert_int_equal(merge_rows(merge), total);
    while (buffer_length(&out)) {
        const char *at = buffer_head(&out);
        int32_t length = (int32_t)wire_get32(at + 7);
        snprintf(row, sizeof row, "%.*s", length, at + 11);
        assert_true(strcmp(previous, row) < 0);
        memcpy(previous, row, sizeof row);
        buffer_consume(&out, 1 + wire_get32(at + 1));
    }
    merge_free(merge);
    buffer_release(&out);
}

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* Four shards sorted by bigint, fed in pieces: every row comes out in order; the rate is printed. */
static void test_throughput(void **state)
{
    const struct merge_spec spec = {.visible = 2, .limit = -1, .nsort = 1, SORT({0, false, false})};
    struct merge *merge = merge_new(&spec, 4, 0);
    struct buffer out = {0};
    const int64_t total = 400000;
    int64_t fed = 0, seen = 0;
    double started = seconds();
    (void)state;
    assert_true(feed_description(merge, 0, "id:20 name:25"));
    while (seen < total) {
        for (int i = 0; i < 1000 && fed < total; i++, fed++) {
            char body[64];
            int digits = snprintf(body + 6, sizeof body - 6, "%lld", (long long)fed);
            memcpy(body, "\0\2", 2);
            wire_set32(body + 2, (uint32_t)digits);
            wire_set32(body + 6 + digits, 16);
            memcpy(body + 10 + digits, "some other value", 16);
            assert_true(merge_feed(merge, (int)(fed * 7 % 4), 'D', body, 26 + (size_t)digits));
        }
        for (int i = 0; i < 4 && fed == total; i++)
            assert_true(merge_feed(merge, i, 'C', "", 0));
        while (merge_run(merge, &out, 65536) == MERGE_FULL)
            continue;
        for (; buffer_length(&out); seen++) {
            const char *at = buffer_head(&out);
            assert_int_equal(strtoll(at + 11, NULL, 10), seen);
            buffer_consume(&out, 1 + wire_get32(at + 1));
        }
    }
    print_message("merged %lld rows, %.1f million a CPU second\n", (long long)seen,
                  (double)total / (seconds() - started) / 1e6);
    merge_free(merge);
    buffer_release(&out);
}

/* Many groups with values that own memory: counts and minima are right, memory is given back. */
static void test_many_groups(void **state)
{
    const struct merge_spec spec = {
        .visible = 4,
        .limit = -1,
        .group = true,
        .nsort = 1,
        SORT({0, false, false}),
        COLUMNS({AGGREGATE_NONE, 0, 0}, {AGGREGATE_COUNT, 0, 0}, {AGGREGATE_SUM, 0, 0},
                {AGGREGATE_MIN, 0, 0}),
        KEYS(0),
    };
    struct merge *merge = merge_new(&spec, 3, 5000);
    struct buffer out = {0}, text = {0};
    char row[64];
    (void)state;
    assert_true(feed_description(merge, 0, "k:23 c:20 s:1700 m:25"));
    for (int i = 0; i < 15000; i++) {
        snprintf(row, sizeof row, "%d|2|0.5|v%d", i % 5000, i / 5000);
        assert_true(feed_row(merge, i % 3, row));
        if (i % 100 == 0)
            assert_int_equal(run_all(merge, &out, 1000), MERGE_WAIT);
    }
    for (int i = 0; i < 3; i++)
        assert_true(merge_feed(merge, i, 'C', "", 0));
    assert_int_equal(merge_run(merge, &out, 100), MERGE_FULL);
    show(&out, &text);
    assert_memory_equal(buffer_head(&text), "0|6|1.5|v0\n1|6|1.5|v0\n", 22);
    assert_int_equal(run_all(merge, &out, 1 << 20), MERGE_DONE);
    assert_int_equal(merge_rows(merge), 5000);
    merge_free(merge);
    buffer_release(&out);
    buffer_release(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cases),
        cmocka_unit_test(test_description),
        cmocka_unit_test(test_rows_before_description),
        cmocka_unit_test(test_disagreement),
        cmocka_unit_test(test_malformed),
        cmocka_unit_test(test_hungry),
        cmocka_unit_test(test_limit_ends),
        cmocka_unit_test(test_binary_sort),
        cmocka_unit_test(test_buffers_move),
        cmocka_unit_test(test_throughput),
        cmocka_unit_test(test_many_groups),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
