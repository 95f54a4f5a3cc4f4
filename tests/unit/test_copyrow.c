/* test_copyrow.c: rows of a COPY TO given to their takers, however the stream is cut. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "pgshunt/wire.h"
#include "resharder/copyrow.h"

/* What two takers got; a row whose key begins with 'x' is nobody's. */
struct got {
    struct buffer keys, bytes[2];
    int ends[2];
};

static int choose(void *arg, const struct move_value *key)
{
    struct got *got = arg;
    if (!key->bytes) {
        buffer_append(&got->keys, "NULL,", 5);
        return COPYROW_NOBODY;
    }
    buffer_append(&got->keys, key->bytes, key->length);
    buffer_append(&got->keys, ",", 1);
    return key->length && key->bytes[0] == 'x' ? COPYROW_NOBODY : (int)(key->length % 2);
}

static void take(void *arg, int who, const char *bytes, size_t length)
{
    buffer_append(&((struct got *)arg)->bytes[who], bytes, length);
}

static void end(void *arg, int who)
{
    ((struct got *)arg)->ends[who]++;
}

static bool feed(struct copyrow *row, const char *bytes, size_t length, size_t piece)
{
    for (size_t at = 0; at < length; at += piece)
        if (!copyrow_feed(row, bytes + at, length - at < piece ? length - at : piece))
            return false;
    return copyrow_finish(row);
}

static bool run(struct got *got, struct copyrow *row, bool binary, unsigned nkey, unsigned ncolumns,
                const char *bytes, size_t length, size_t piece)
{
    struct copyrow_taker taker = {choose, take, end, got};
    *got = (struct got){.ends = {0}};
    copyrow_begin(row, &taker, binary, nkey, ncolumns);
    return feed(row, bytes, length, piece);
}

static void release(struct got *got, struct copyrow *row)
{
    buffer_release(&got->keys);
    buffer_release(&got->bytes[0]);
    buffer_release(&got->bytes[1]);
    copyrow_release(row);
}

static void assert_bytes(const struct buffer *buffer, const char *bytes, size_t length)
{
    assert_int_equal(buffer_length(buffer), length);
    if (length)
        assert_memory_equal(buffer_head(buffer), bytes, length);
}

/* A tuple of these fields; NULL: an SQL NULL. */
static void put_row(struct buffer *out, unsigned count, const char *const *fields)
{
    char bytes[4];
    bytes[0] = (char)(count >> 8);
    bytes[1] = (char)count;
    buffer_append(out, bytes, 2);
    for (unsigned i = 0; i < count; i++) {
        wire_set32(bytes, fields[i] ? (uint32_t)strlen(fields[i]) : UINT32_MAX);
        buffer_append(out, bytes, 4);
        if (fields[i])
            buffer_append(out, fields[i], strlen(fields[i]));
    }
}

static void test_binary_in_any_pieces(void **state)
{
    (void)state;
    static const char *const rows[][3] = {{"k", "first", "1"},   {"kk", NULL, ""},
                                          {"x", "dropped", "y"}, {NULL, "no key", "z"},
                                          {"", "", NULL},        {"abc", "last", NULL}};
    struct buffer in = {.data = NULL}, even = {.data = NULL}, odd = {.data = NULL};
    buffer_append(&in, copyrow_header, sizeof copyrow_header);
    for (int i = 0; i < 6; i++) {
        put_row(&in, 3, rows[i]);
        if (i != 2 && i != 3)
            put_row(strlen(rows[i][0]) % 2 ? &odd : &even, 3, rows[i]);
    }
    buffer_append(&in, copyrow_trailer, 2);
    for (size_t piece = 1; piece <= buffer_length(&in); piece++) {
        struct got got;
        struct copyrow row;
        assert_true(run(&got, &row, true, 1, 3, buffer_head(&in), buffer_length(&in), piece));
        assert_bytes(&got.keys, "k,kk,x,NULL,,abc,", 17);
        assert_bytes(&got.bytes[0], buffer_head(&even), buffer_length(&even));
        assert_bytes(&got.bytes[1], buffer_head(&odd), buffer_length(&odd));
        assert_int_equal(got.ends[0], 2);
        assert_int_equal(got.ends[1], 2);
        assert_int_equal(row.rows, 6);
        release(&got, &row);
    }
    buffer_release(&in);
    buffer_release(&even);
    buffer_release(&odd);
}

static void test_binary_of_nothing_but_keys(void **state)
{
    (void)state;
    static const char *const rows[][2] = {{"a", "b"}, {"cc", NULL}, {"d", ""}};
    struct buffer in = {.data = NULL};
    buffer_append(&in, copyrow_header, sizeof copyrow_header);
    for (int i = 0; i < 3; i++)
        put_row(&in, 2, rows[i]);
    buffer_append(&in, copyrow_trailer, 2);
    for (size_t piece = 1; piece <= buffer_length(&in); piece++) {
        struct got got;
        struct copyrow row;
        assert_true(run(&got, &row, true, 2, 2, buffer_head(&in), buffer_length(&in), piece));
        assert_int_equal(got.ends[0], 1);
        assert_int_equal(got.ends[1], 2);
        release(&got, &row);
    }
    buffer_release(&in);
}

static void test_binary_header_extension_is_skipped(void **state)
{
    (void)state;
    static const char *const fields[] = {"k"};
    struct buffer in = {.data = NULL};
    buffer_append(&in, copyrow_header, sizeof copyrow_header);
    in.data[in.end - 1] = 5;
    buffer_append(&in, "12345", 5);
    put_row(&in, 1, fields);
    buffer_append(&in, copyrow_trailer, 2);
    for (size_t piece = 1; piece < 40; piece++) {
        struct got got;
        struct copyrow row;
        assert_true(run(&got, &row, true, 1, 1, buffer_head(&in), buffer_length(&in), piece));
        assert_bytes(&got.bytes[1], "\0\1\0\0\0\1k", 7);
        release(&got, &row);
    }
    buffer_release(&in);
}

static void assert_refused(bool binary, unsigned nkey, unsigned ncolumns, const char *bytes,
                           size_t length, const char *error)
{
    for (size_t piece = 1; piece <= length; piece++) {
        struct got got;
        struct copyrow row;
        assert_false(run(&got, &row, binary, nkey, ncolumns, bytes, length, piece));
        assert_string_equal(row.error, error);
        release(&got, &row);
    }
}

#define HEADER "PGCOPY\n\377\r\n\0\0\0\0\0\0\0\0\0"
#define REFUSED(nkey, ncolumns, bytes, error)                                                      \
    assert_refused(true, nkey, ncolumns, bytes, sizeof(bytes) - 1, error)

static void test_binary_malformed(void **state)
{
    (void)state;
    REFUSED(1, 1, "PGCOPY\n\377\r\r\0\0\0\0\0\0\0\0\0", "not the binary format of COPY");
    REFUSED(1, 1, "PGCOPY\n\377\r\n\0\0\1\0\0\0\0\0\0",
            "a binary format of COPY that is not known");
    REFUSED(1, 1, "PGCOPY\n\377\r\n\0\0\0\0\0\177\0\0\0",
            "the header of the binary COPY is malformed");
    REFUSED(1, 1, HEADER "\0\2", "a row of the COPY has another number of columns");
    REFUSED(1, 1, HEADER "\0\1\177\0\0\0", "a row's key is too long");
    REFUSED(1, 2, HEADER "\0\2\0\0\0\1k\377\0\0\0", "a field of the binary COPY is malformed");
    REFUSED(1, 1, HEADER "\0\1\0\0\0\1k\377\377\0", "something follows the end of the binary COPY");
    REFUSED(1, 2, HEADER "\0\2\0\0\0\1k\0\0\0\2a", "the COPY ended within a row");
    REFUSED(1, 1, HEADER, "the COPY ended within a row");
    REFUSED(1, 1, "PGCOPY", "the COPY ended within a row");
}

static void test_text_in_any_pieces(void **state)
{
    (void)state;
    static const char in[] = "k\tfirst\\n\t1\nkk\t\\N\t\nx\tdropped\ty\n\\N\tno key\tz\n"
                             "\t\t\\N\na\\tc\tlast\t\\N\n\\\\\\b\\f\\n\\r\\v\t\t\n";
    for (size_t piece = 1; piece < sizeof in; piece++) {
        struct got got;
        struct copyrow row;
        assert_true(run(&got, &row, false, 1, 3, in, sizeof in - 1, piece));
        assert_bytes(&got.keys, "k,kk,x,NULL,,a\tc,\\\b\f\n\r\v,", 24);
        assert_bytes(&got.bytes[0], "kk\t\\N\t\n\t\t\\N\n\\\\\\b\\f\\n\\r\\v\t\t\n", 27);
        assert_bytes(&got.bytes[1], "k\tfirst\\n\t1\na\\tc\tlast\t\\N\n", 25);
        assert_int_equal(got.ends[0], 3);
        assert_int_equal(got.ends[1], 2);
        assert_int_equal(row.rows, 7);
        release(&got, &row);
    }
}

static void test_text_of_nothing_but_keys(void **state)
{
    (void)state;
    static const char in[] = "a\tb\ncc\t\\N\n\t\n";
    for (size_t piece = 1; piece < sizeof in; piece++) {
        struct got got;
        struct copyrow row;
        assert_true(run(&got, &row, false, 2, 2, in, sizeof in - 1, piece));
        assert_bytes(&got.keys, "a,cc,,", 6);
        assert_bytes(&got.bytes[0], "cc\t\\N\n\t\n", 8);
        assert_bytes(&got.bytes[1], "a\tb\n", 4);
        release(&got, &row);
    }
}

static void test_text_malformed(void **state)
{
    (void)state;
    assert_refused(false, 2, 3, "a\n", 2, "a row of the COPY has another number of columns");
    assert_refused(false, 1, 1, "a\tb\n", 4, "a row of the COPY has another number of columns");
    assert_refused(false, 1, 2, "a\tb", 3, "the COPY ended within a row");
    assert_refused(false, 1, 2, "ab", 2, "the COPY ended within a row");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_binary_in_any_pieces),
        cmocka_unit_test(test_binary_of_nothing_but_keys),
        cmocka_unit_test(test_binary_header_extension_is_skipped),
        cmocka_unit_test(test_binary_malformed),
        cmocka_unit_test(test_text_in_any_pieces),
        cmocka_unit_test(test_text_of_nothing_but_keys),
        cmocka_unit_test(test_text_malformed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
