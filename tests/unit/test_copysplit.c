/* test_copysplit.c: rows to the shards of their keys, and from a shard's lines back to those of the stream. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "pgshunt/copysplit.h"
#include "router/copysplit_log.h"

#define SHARDS 3

/* ---- the log of rows ---- */

static void test_log_finds_lines(void **state)
{
    (void)state;
    static const int64_t lines[] = {1, 1, 2, 1, 13, 1, 4096, 4097, 1, 9000000, 1, 1, 1};
    struct row_log log;
    int64_t stream = 4, part[SHARDS] = {3, 3, 3};
    row_log_init(&log, SHARDS);
    assert_int_equal(row_log_find(&log, 0, 1, 1), 0);
    row_log_put_header(&log, 3);
    for (unsigned i = 0; i < 60000; i++) { /* more than a block */
        int64_t count = i % 1000 < 13 ? lines[i % 1000] : 1;
        unsigned shard = i * 7 % 11 % SHARDS;
        row_log_put(&log, shard, count);
        if (i % 997 == 0 || i % 1000 == 8 || i > 59990) {
            assert_int_equal(row_log_find(&log, shard, part[shard] + 1, stream + count), stream);
            assert_int_equal(row_log_find(&log, shard, part[shard] + count, stream + count),
                             stream + count - 1);
        }
        stream += count;
        part[shard] += count;
    }
    for (unsigned shard = 0; shard < SHARDS; shard++) {
        assert_int_equal(row_log_lines(&log, shard), part[shard]);
        assert_int_equal(row_log_find(&log, shard, 2, stream), 2);
        assert_int_equal(row_log_find(&log, shard, 0, stream), 0);
        assert_int_equal(row_log_find(&log, shard, part[shard] + 1, stream), 0);
    }
    row_log_free(&log);
}

static void test_log_forgets_what_is_far_behind(void **state)
{
    (void)state;
    struct row_log log;
    const int64_t rows = 5000000;
    row_log_init(&log, 2);
    for (int64_t i = 1; i <= rows; i++)
        row_log_put(&log, i % 2, 1);
    assert_int_equal(log.mask, (1 << 21) - 1);
    assert_int_equal(row_log_lines(&log, 0), rows / 2);
    assert_int_equal(row_log_find(&log, 0, 1, rows + 1), 0);
    assert_int_equal(row_log_find(&log, 0, rows / 2, rows + 1), rows);
    assert_int_equal(row_log_find(&log, 1, rows / 2, rows + 1), rows - 1);
    assert_int_equal(row_log_find(&log, 1, rows / 2 - 1000000, rows + 1), rows - 2000001);
    row_log_free(&log);
}

/* ---- the splitter ---- */

struct fixture {
    struct shardmap *map;
    struct copy_rows rows;
    struct copy_split *split;
    struct buffer parts[SHARDS];
};

static void begin(struct fixture *fix, enum copy_format format, enum key_type type)
{
    static const char *names[] = {"a", "b", "c"};
    static const unsigned weights[] = {1, 1, 1};
    struct shardmap_builder builder = {names, weights, SHARDS};
    *fix = (struct fixture){.map = shardmap_new(&builder)};
    int keyspace = shardmap_add_keyspace(fix->map, "space", type, HASH_XXH64);
    fix->rows = (struct copy_rows){.format = format,
                                   .delimiter = format == COPY_CSV ? ',' : '\t',
                                   .quote = '"',
                                   .escape = '"',
                                   .null = format == COPY_CSV ? "" : "\\N",
                                   .columns = 2,
                                   .table = "t",
                                   .nkeys = 1,
                                   .keys = {{.name = "id", .type = 20}},
                                   .keyspace = shardmap_keyspace(fix->map, (unsigned)keyspace),
                                   .map = fix->map};
}

static bool feed(struct fixture *fix, const char *bytes)
{
    if (!fix->split)
        fix->split = copy_split_new(&fix->rows, 1 << 20);
    return copy_split_feed(fix->split, bytes, strlen(bytes), fix->parts);
}

static void end(struct fixture *fix)
{
    for (int i = 0; i < SHARDS; i++)
        buffer_release(&fix->parts[i]);
    copy_split_free(fix->split);
    shardmap_free(fix->map);
}

/* Each line of each part names the line of the stream that it was. */
static void check_lines(const struct fixture *fix, int64_t lines)
{
    int64_t seen = 0;
    for (unsigned shard = 0; shard < SHARDS; shard++) {
        const char *at = buffer_head(&fix->parts[shard]);
        const char *stop = at + buffer_length(&fix->parts[shard]);
        for (int64_t line = 1; at < stop; line++, seen++) {
            long long said = 0;
            assert_int_equal(sscanf(at, "%*[^=\n]=%lld", &said), 1);
            assert_int_equal(copy_split_line(fix->split, shard, line), said);
            at = (const char *)memchr(at, '\n', (size_t)(stop - at)) + 1;
        }
    }
    assert_int_equal(seen, lines);
}

static void test_lines_of_text(void **state)
{
    (void)state;
    struct fixture fix;
    char row[64];
    begin(&fix, COPY_TEXT, KEY_BIGINT);
    for (int i = 1; i <= 5000; i++) {
        snprintf(row, sizeof row, "%d\tl=%d\n", i * 7, i);
        assert_true(feed(&fix, row));
    }
    check_lines(&fix, 5000);
    end(&fix);
}

static void test_lines_of_csv(void **state)
{
    (void)state;
    struct fixture fix;
    char row[128];
    begin(&fix, COPY_CSV, KEY_TEXT);
    int i = 1;
    while (i <= 6000) {
        int more = i % 5 ? 0 : 2;
        snprintf(row, sizeof row, more ? "k%d,\"l=%d\nl=%d\"\"\nl=%d\"\n" : "k%d,l=%d\n", i, i,
                 i + 1, i + 2);
        i += 1 + more;
        assert_true(feed(&fix, row));
    }
    check_lines(&fix, i - 1);
    end(&fix);
}

static void refuses(enum copy_format format, const char *bytes, const char *sqlstate,
                    const char *where)
{
    struct fixture fix;
    begin(&fix, format, KEY_BIGINT);
    assert_false(feed(&fix, bytes) && copy_split_end(fix.split, fix.parts));
    const struct pg_error *error = copy_split_error(fix.split);
    assert_string_equal(error->sqlstate, sqlstate);
    assert_string_equal(error->where, where);
    assert_non_null(error->hint);
    end(&fix);
}

static void test_errors_tell_the_line(void **state)
{
    (void)state;
    refuses(COPY_TEXT, "1\ta\n2\tb\n\\N\tc\n", "23502", "COPY t, line 3, column id: null input");
    refuses(COPY_TEXT, "1\ta\nb\tb\n", "22P02", "COPY t, line 2, column id: \"b\"");
    refuses(COPY_TEXT, "1\ta\n2\tb\r\n3\tc\n", "22P04", "COPY t, line 2");
    refuses(COPY_CSV, "1,\"a\nb\"\n2,c\n,d\n", "23502", "COPY t, line 4, column id: null input");
    refuses(COPY_BINARY, "PGCOPX", "22P04", "COPY t, line 1");
    refuses(COPY_TEXT, "99999999999999999999\ta\n", "22P02",
            "COPY t, line 1, column id: \"99999999999999999999\"");
}

/* A value in no list is refused, whichever way the key was read. */
static void test_values_in_no_list(void **state)
{
    (void)state;
    static const unsigned char five[8] = {0, 0, 0, 0, 0, 0, 0, 5};
    static const struct key_entry entries[] = {{five, 8, 2, 0}};
    static const char *const keys[] = {"6\ta\n", "+6\ta\n", "\\66\ta\n"};
    for (int i = 0; i < 3; i++) {
        struct fixture fix;
        begin(&fix, COPY_TEXT, KEY_BIGINT);
        shardmap_map_values(fix.map, 0, MAP_LIST, entries, 1, SHARDMAP_NO_SHARD);
        assert_true(feed(&fix, "5\tx\n\\65\ty\n"));
        assert_int_equal(buffer_length(&fix.parts[2]), 10);
        assert_false(feed(&fix, keys[i]));
        assert_string_equal(copy_split_error(fix.split)->sqlstate, "23514");
        assert_memory_equal(copy_split_error(fix.split)->where, "COPY t, line 3, column id: ", 27);
        end(&fix);
    }
}

/* What digits alone mean depends on the options. */
static void test_digits_that_are_no_key(void **state)
{
    (void)state;
    struct fixture fix;
    begin(&fix, COPY_TEXT, KEY_BIGINT);
    fix.rows.null = "0";
    assert_true(feed(&fix, "7\tx\n"));
    assert_false(feed(&fix, "0\ty\n"));
    assert_string_equal(copy_split_error(fix.split)->sqlstate, "23502");
    end(&fix);
    begin(&fix, COPY_CSV, KEY_BIGINT);
    fix.rows.default_ = "12";
    assert_true(feed(&fix, "7,x\n"));
    assert_false(feed(&fix, "12,y\n"));
    assert_string_equal(copy_split_error(fix.split)->sqlstate, "23502");
    end(&fix);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_log_finds_lines),
        cmocka_unit_test(test_log_forgets_what_is_far_behind),
        cmocka_unit_test(test_lines_of_text),
        cmocka_unit_test(test_lines_of_csv),
        cmocka_unit_test(test_errors_tell_the_line),
        cmocka_unit_test(test_values_in_no_list),
        cmocka_unit_test(test_digits_that_are_no_key),
    };
    return cmocka_run_group_tests_name("copysplit", tests, NULL, NULL);
}
