/* test_wire.c: golden bytes of what we build, and readers that survive every wrong length. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "pgshunt/wire.h"

/* Bytes of a string literal without its closing NUL. */
#define BYTES(literal) literal, sizeof(literal) - 1

static void assert_bytes(struct buffer *buf, const char *expected, size_t len)
{
    assert_int_equal(buffer_length(buf), len);
    assert_memory_equal(buffer_head(buf), expected, len);
    buffer_release(buf);
}

/* ---- building ---- */

static void test_numbers(void **state)
{
    (void)state;
    struct buffer buf = {0};
    wire_put8(&buf, 200);
    wire_put16(&buf, -2);
    wire_put16(&buf, 65535);
    wire_put32(&buf, -1);
    wire_put32(&buf, 4294967295LL);
    wire_put32(&buf, 0x01020304);
    wire_put64(&buf, -2);
    wire_put64(&buf, 0x0102030405060708LL);
    wire_put_bytes(&buf, NULL, 0);
    assert_bytes(&buf, BYTES("\xc8"
                             "\xff\xfe"
                             "\xff\xff"
                             "\xff\xff\xff\xff"
                             "\xff\xff\xff\xff"
                             "\x01\x02\x03\x04"
                             "\xff\xff\xff\xff\xff\xff\xff\xfe"
                             "\x01\x02\x03\x04\x05\x06\x07\x08"));
}

static void test_whole_messages(void **state)
{
    (void)state;
    struct buffer buf = {0};
    wire_put_query(&buf, "SELECT 1");
    assert_bytes(&buf, BYTES("Q\0\0\0\x0d"
                             "SELECT 1\0"));
    wire_put_parse(&buf, "s", "q", (const uint32_t[]){23, 0xfffffffe}, 2);
    assert_bytes(&buf, BYTES("P\0\0\0\x12s\0q\0\0\x02\0\0\0\x17\xff\xff\xff\xfe"));
    wire_put_parse(&buf, "", "", NULL, 0);
    assert_bytes(&buf, BYTES("P\0\0\0\x08\0\0\0\0"));
    wire_put_simple(&buf, 'S');
    assert_bytes(&buf, BYTES("S\0\0\0\x04"));
    wire_put_close(&buf, 'S', "x");
    assert_bytes(&buf, BYTES("C\0\0\0\x07Sx\0"));
    wire_put_describe(&buf, 'P', "");
    assert_bytes(&buf, BYTES("D\0\0\0\x06P\0"));
    wire_put_ready(&buf, 'I');
    assert_bytes(&buf, BYTES("Z\0\0\0\x05I"));
    wire_put_complete(&buf, "SELECT 3");
    assert_bytes(&buf, BYTES("C\0\0\0\x0dSELECT 3\0"));
    wire_put_parameter_status(&buf, "a", "b");
    assert_bytes(&buf, BYTES("S\0\0\0\x08"
                             "a\0b\0"));
}

static void test_startup_without_type(void **state)
{
    (void)state;
    struct buffer buf = {0};
    size_t begin = wire_begin(&buf, 0);
    wire_put32(&buf, WIRE_PROTOCOL_3_0);
    wire_put8(&buf, 0);
    wire_end(&buf, begin);
    assert_bytes(&buf, BYTES("\0\0\0\x09\0\x03\0\0\0"));
}

/* Bytes already consumed move away when the buffer grows; the length must still find its place. */
static void test_length_survives_growth(void **state)
{
    (void)state;
    struct buffer buf = {0};
    char big[3000];
    memset(big, 'x', sizeof(big));
    buffer_append(&buf, big, 500);
    buffer_consume(&buf, 490);
    size_t begin = wire_begin(&buf, 'd');
    for (int i = 0; i < 10; i++)
        wire_put_bytes(&buf, big, sizeof(big));
    wire_end(&buf, begin);
    const char *message = buffer_head(&buf) + 10;
    assert_int_equal(buffer_length(&buf), 10 + 1 + 4 + 30000);
    assert_int_equal(message[0], 'd');
    assert_int_equal(wire_get32(message + 1), 30004);
    buffer_release(&buf);
}

static void test_error_fields(void **state)
{
    (void)state;
    struct buffer buf = {0};
    struct pg_error error = {.severity = "FATAL",
                             .sqlstate = "28P01",
                             .message = "no",
                             .detail = "d",
                             .hint = "h",
                             .position = 17};
    wire_put_error(&buf, &error);
    assert_bytes(&buf, BYTES("E\0\0\0\x28"
                             "SFATAL\0VFATAL\0C28P01\0Mno\0Dd\0Hh\0P17\0\0"));
    error = (struct pg_error){0};
    wire_put_error(&buf, &error);
    assert_bytes(&buf, BYTES("E\0\0\0\x1c"
                             "SERROR\0VERROR\0CXX000\0M\0\0"));
    error.message = "hm";
    wire_put_notice(&buf, &error);
    assert_bytes(&buf, BYTES("N\0\0\0\x20"
                             "SNOTICE\0VNOTICE\0C00000\0Mhm\0\0"));
}

static void test_error_round_trip(void **state)
{
    (void)state;
    struct buffer buf = {0};
    struct pg_error error = {.severity = "FATAL",
                             .sqlstate = "53300",
                             .message = "too many",
                             .detail = "all used",
                             .hint = "wait",
                             .where = "at the door",
                             .schema = "s",
                             .table = "t",
                             .column = "c",
                             .datatype = "d",
                             .constraint = "n",
                             .position = 2147483647};
    struct pg_error back;
    wire_put_error(&buf, &error);
    wire_read_error(buffer_head(&buf) + WIRE_HEADER, buffer_length(&buf) - WIRE_HEADER, &back);
    assert_string_equal(back.severity, "FATAL");
    assert_string_equal(back.sqlstate, "53300");
    assert_string_equal(back.message, "too many");
    assert_string_equal(back.detail, "all used");
    assert_string_equal(back.hint, "wait");
    assert_string_equal(back.where, "at the door");
    assert_string_equal(back.schema, "s");
    assert_string_equal(back.table, "t");
    assert_string_equal(back.column, "c");
    assert_string_equal(back.datatype, "d");
    assert_string_equal(back.constraint, "n");
    assert_int_equal(back.position, 2147483647);
    buffer_release(&buf);
}

static void test_text_result(void **state)
{
    (void)state;
    struct buffer buf = {0};
    const struct wire_column columns[] = {{"a", 25}, {"n", 20}};
    wire_put_row_description(&buf, columns, 2);
    struct wire_field fields[2];
    assert_int_equal(wire_read_row_description(buffer_head(&buf) + WIRE_HEADER,
                                               buffer_length(&buf) - WIRE_HEADER, fields, 2),
                     2);
    assert_string_equal(fields[1].name, "n");
    assert_int_equal(fields[1].type_oid, 20);
    assert_int_equal(fields[1].type_size, 8);
    assert_int_equal(fields[0].type_size, -1);
    assert_int_equal(fields[0].type_modifier, -1);
    assert_int_equal(fields[0].format, 0);
    buffer_release(&buf);

    wire_put_text_row(&buf, (const char *const[]){"ab", NULL, ""}, 3);
    assert_bytes(&buf, BYTES("D\0\0\0\x14\0\x03\0\0\0\x02"
                             "ab\xff\xff\xff\xff\0\0\0\0"));
}

/* ---- reading ---- */

static void test_reader(void **state)
{
    (void)state;
    struct wire_reader reader = wire_reader(BYTES("\xff\xff\xfe\x80\0\0\0"
                                                  "\x80\0\0\0\0\0\0\x01"
                                                  "hi\0xyz"));
    assert_int_equal(wire_read8(&reader), 255);
    assert_int_equal(wire_read16(&reader), -2);
    assert_int_equal(wire_read32(&reader), INT32_MIN);
    assert_true(wire_read64(&reader) == INT64_MIN + 1);
    assert_string_equal(wire_read_cstring(&reader), "hi");
    assert_int_equal(wire_left(&reader), 3);
    assert_memory_equal(wire_read_bytes(&reader, 3), "xyz", 3);
    assert_int_equal(wire_left(&reader), 0);
    assert_false(reader.bad);
    assert_non_null(wire_read_bytes(&reader, 0));
    assert_false(reader.bad);
}

/* After an overrun nothing is read any more, even what would fit. */
static void test_reader_stays_bad(void **state)
{
    (void)state;
    struct wire_reader reader = wire_reader(BYTES("abc"));
    assert_int_equal(wire_read32(&reader), 0);
    assert_true(reader.bad);
    assert_int_equal(wire_read8(&reader), 0);
    assert_int_equal(wire_read16(&reader), 0);
    assert_true(wire_read64(&reader) == 0);
    assert_string_equal(wire_read_cstring(&reader), "");
    assert_null(wire_read_bytes(&reader, 1));
    assert_int_equal(wire_left(&reader), 3);
}

/* PgBouncer's CVE-2026-6664: a length that overflows when it is added to a position. */
static void test_huge_lengths(void **state)
{
    (void)state;
    const size_t lengths[] = {4, INT32_MAX, UINT32_MAX, SIZE_MAX, SIZE_MAX - 1, SIZE_MAX / 2};
    for (size_t i = 0; i < sizeof(lengths) / sizeof(*lengths); i++) {
        struct wire_reader reader = wire_reader(BYTES("abc"));
        assert_null(wire_read_bytes(&reader, lengths[i]));
        assert_true(reader.bad);
    }
}

static void test_cstring_without_end(void **state)
{
    (void)state;
    struct wire_reader reader = wire_reader(BYTES("abc"));
    assert_string_equal(wire_read_cstring(&reader), "");
    assert_true(reader.bad);
    reader = wire_reader(BYTES(""));
    assert_string_equal(wire_read_cstring(&reader), "");
    assert_true(reader.bad);
    reader = wire_reader(NULL, 0);
    assert_string_equal(wire_read_cstring(&reader), "");
    assert_true(reader.bad);
}

struct error_case {
    const char *name, *body;
    size_t len;
    const char *severity, *sqlstate, *message, *detail;
    int position;
};

static const struct error_case ERROR_CASES[] = {
    {"V wins, before or after S", BYTES("SFEHLER\0VERROR\0C42601\0Mx\0P3\0\0"), "ERROR", "42601",
     "x", NULL, 3},
    {"V first", BYTES("VFATAL\0SFEHLER\0C42601\0Mx\0\0"), "FATAL", "42601", "x", NULL, 0},
    {"before 9.6: no V", BYTES("SPANIC\0C42601\0Mx\0\0"), "PANIC", "42601", "x", NULL, 0},
    /* PgBouncer's CVE-2026-6666 */
    {"no SQLSTATE", BYTES("SFATAL\0Mx\0\0"), "FATAL", "XX000", "x", NULL, 0},
    {"SQLSTATE too short", BYTES("C42\0Mx\0\0"), "ERROR", "XX000", "x", NULL, 0},
    {"SQLSTATE too long", BYTES("C42601x\0Mx\0\0"), "ERROR", "XX000", "x", NULL, 0},
    {"empty", BYTES(""), "ERROR", "XX000", "", NULL, 0},
    {"end at once", BYTES("\0"), "ERROR", "XX000", "", NULL, 0},
    {"no fields end", BYTES("Mx\0"), "ERROR", "XX000", "x", NULL, 0},
    {"last field without its end", BYTES("Mx\0Dcut"), "ERROR", "XX000", "x", NULL, 0},
    {"field letter and nothing", BYTES("Mx\0D"), "ERROR", "XX000", "x", NULL, 0},
    {"unknown fields", BYTES("Mx\0qnew\0Fparse.c\0L12\0Dd\0\0"), "ERROR", "XX000", "x", "d", 0},
    {"position not a number", BYTES("Mx\0Pabc\0\0"), "ERROR", "XX000", "x", NULL, 0},
    {"position out of range", BYTES("Mx\0P99999999999999999999\0\0"), "ERROR", "XX000", "x", NULL,
     0},
    {"position negative", BYTES("Mx\0P-4\0\0"), "ERROR", "XX000", "x", NULL, 0},
};

static void test_read_error(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(ERROR_CASES) / sizeof(*ERROR_CASES); i++) {
        const struct error_case *c = &ERROR_CASES[i];
        struct pg_error error;
        wire_read_error(c->body, c->len, &error);
        if (strcmp(error.severity, c->severity) || strcmp(error.sqlstate, c->sqlstate) ||
            strcmp(error.message, c->message) || error.position != c->position ||
            !error.detail != !c->detail || (c->detail && strcmp(error.detail, c->detail)))
            fail_msg("%s: %s %s \"%s\" at %d", c->name, error.severity, error.sqlstate,
                     error.message, error.position);
    }
}

static void test_tag_rows(void **state)
{
    (void)state;
    static const struct {
        const char *tag;
        int64_t rows;
    } cases[] = {
        {"INSERT 0 5", 5},
        {"SELECT 3", 3},
        {"UPDATE 0", 0},
        {"COPY 9223372036854775807", INT64_MAX},
        {"COPY 9223372036854775808", -1},
        {"COPY 99999999999999999999999", -1},
        {"BEGIN", -1},
        {"CREATE TABLE", -1},
        {"DELETE -1", -1},
        {"DELETE 1x", -1},
        {"SELECT ", -1},
        {"", -1},
        {"5", -1},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        if (wire_tag_rows(cases[i].tag) != cases[i].rows)
            fail_msg("\"%s\": %lld", cases[i].tag, (long long)wire_tag_rows(cases[i].tag));
    }
}

#define ROW_FIELD "id\0\0\0\x40\x01\0\x02\0\0\0\x17\0\x04\xff\xff\xff\xff\0\x01"

static void test_row_description(void **state)
{
    (void)state;
    struct wire_field fields[2];
    assert_int_equal(wire_read_row_description(BYTES("\0\x01" ROW_FIELD), fields, 2), 1);
    assert_string_equal(fields[0].name, "id");
    assert_int_equal(fields[0].table_oid, 0x4001);
    assert_int_equal(fields[0].column_number, 2);
    assert_int_equal(fields[0].type_oid, 23);
    assert_int_equal(fields[0].type_size, 4);
    assert_int_equal(fields[0].type_modifier, -1);
    assert_int_equal(fields[0].format, 1);
    assert_int_equal(wire_read_row_description(BYTES("\0\0"), fields, 2), 0);
    assert_int_equal(wire_read_row_description(BYTES("\0\0"), NULL, 0), 0);
}

static void test_row_description_refused(void **state)
{
    (void)state;
    struct wire_field fields[2];
    static const struct {
        const char *name, *body;
        size_t len;
    } cases[] = {
        {"empty", BYTES("")},
        {"half a count", BYTES("\0")},
        {"more fields than room", BYTES("\0\x03" ROW_FIELD ROW_FIELD ROW_FIELD)},
        {"count -1", BYTES("\xff\xff" ROW_FIELD)},
        {"fewer fields than counted", BYTES("\0\x02" ROW_FIELD)},
        {"more fields than counted", BYTES("\0\x01" ROW_FIELD ROW_FIELD)},
        {"name without end", BYTES("\0\x01id")},
        {"field cut", BYTES("\0\x01id\0\0\0\x40\x01\0\x02\0\0\0\x17\0\x04\xff\xff\xff\xff\0")},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        if (wire_read_row_description(cases[i].body, cases[i].len, fields, 2) != -1)
            fail_msg("%s: taken", cases[i].name);
    }
}

#define BIND_TWO_PARAMS                                                                            \
    "p\0s\0"                                                                                       \
    "\0\x02\0\0\0\x01"                                                                             \
    "\0\x02\0\0\0\x02"                                                                             \
    "42\xff\xff\xff\xff"                                                                           \
    "\0\x01\0\x01"

static void test_bind(void **state)
{
    (void)state;
    struct wire_bind bind;
    assert_true(wire_read_bind(BYTES(BIND_TWO_PARAMS), &bind));
    assert_string_equal(bind.portal, "p");
    assert_string_equal(bind.statement, "s");
    assert_int_equal(bind.nformats, 2);
    assert_int_equal(bind.nparams, 2);
    assert_memory_equal(bind.params,
                        "\0\0\0\x02"
                        "42\xff\xff\xff\xff",
                        10);
    assert_int_equal(bind.results_len, 4);
    assert_memory_equal(bind.results, "\0\x01\0\x01", 4);
    assert_int_equal(wire_bind_format(&bind, 0), 0);
    assert_int_equal(wire_bind_format(&bind, 1), 1);
    assert_int_equal(wire_bind_format(&bind, 2), 0);
    assert_int_equal(wire_bind_format(&bind, -1), 0);
}

static void test_bind_format_rules(void **state)
{
    (void)state;
    struct wire_bind bind;
    assert_true(wire_read_bind(BYTES("\0\0\0\0\0\0\0\0"), &bind));
    assert_int_equal(wire_bind_format(&bind, 0), 0);
    assert_true(wire_read_bind(BYTES("\0\0\0\x01\0\x01\0\x02\0\0\0\0\xff\xff\xff\xff\0\0"), &bind));
    assert_int_equal(wire_bind_format(&bind, 0), 1);
    assert_int_equal(wire_bind_format(&bind, 1), 1);
    assert_int_equal(wire_bind_format(&bind, 65534), 1);
}

/* Postgres takes 65535 parameters; a signed 16-bit count would end at half. */
static void test_bind_most_parameters(void **state)
{
    (void)state;
    struct buffer buf = {0};
    struct wire_bind bind;
    wire_put_cstring(&buf, "");
    wire_put_cstring(&buf, "");
    wire_put16(&buf, 65535);
    for (int i = 0; i < 65535; i++)
        wire_put16(&buf, i == 65534);
    wire_put16(&buf, 65535);
    for (int i = 0; i < 65535; i++)
        wire_put32(&buf, -1);
    wire_put16(&buf, 0);
    assert_true(wire_read_bind(buffer_head(&buf), buffer_length(&buf), &bind));
    assert_int_equal(bind.nparams, 65535);
    assert_int_equal(wire_bind_format(&bind, 65533), 0);
    assert_int_equal(wire_bind_format(&bind, 65534), 1);
    buffer_release(&buf);
}

static void test_bind_refused(void **state)
{
    (void)state;
    static const struct {
        const char *name, *body;
        size_t len;
    } cases[] = {
        {"length -2", BYTES("\0\0\0\0\0\x01\xff\xff\xff\xfe\0\0")},
        {"length INT_MIN", BYTES("\0\0\0\0\0\x01\x80\0\0\0\0\0")},
        {"length INT_MAX", BYTES("\0\0\0\0\0\x01\x7f\xff\xff\xff\0\0")},
        {"one byte short", BYTES("\0\0\0\0\0\x01\0\0\0\x03"
                                 "ab")},
        {"more params than bytes", BYTES("\0\0\0\0\xff\xff\xff\xff\xff\xff\0\0")},
        {"more formats than bytes", BYTES("\0\0\xff\xff\0\x01")},
        {"no result formats", BYTES("\0\0\0\0\0\0")},
        {"more result formats than bytes", BYTES("\0\0\0\0\0\0\0\x02\0\x01")},
        {"bytes behind the end", BYTES("\0\0\0\0\0\0\0\0x")},
        {"no statement name", BYTES("portal\0")},
        {"empty", BYTES("")},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct wire_bind bind;
        if (wire_read_bind(cases[i].body, cases[i].len, &bind))
            fail_msg("%s: taken", cases[i].name);
    }
}

/* Every prefix of a valid message is refused, and nothing is read behind it (the copy has exactly its
 * size, so that ASan sees). */
static void test_every_cut(void **state)
{
    (void)state;
    const char bind_body[] = BIND_TWO_PARAMS, row_body[] = "\0\x01" ROW_FIELD;
    for (size_t len = 0; len < sizeof(bind_body) - 1; len++) {
        struct wire_bind bind;
        char *copy = malloc(len ? len : 1);
        memcpy(copy, bind_body, len);
        assert_false(wire_read_bind(copy, len, &bind));
        free(copy);
    }
    for (size_t len = 0; len < sizeof(row_body) - 1; len++) {
        struct wire_field field;
        char *copy = malloc(len ? len : 1);
        memcpy(copy, row_body, len);
        assert_int_equal(wire_read_row_description(copy, len, &field, 1), -1);
        free(copy);
    }
}

static void test_drop_rows(void **state)
{
    struct wire_column column = {"a", 25};
    const char *value = "x";
    struct buffer buf = {0}, expected = {0};
    (void)state;
    wire_drop_rows(&buf, 0);
    assert_int_equal(buffer_length(&buf), 0);
    wire_put_row_description(&buf, &column, 1);
    size_t from = buffer_length(&buf);
    buffer_append(&expected, buffer_head(&buf), from);
    wire_put_row_description(&buf, &column, 1);
    wire_put_text_row(&buf, &value, 1);
    wire_put_simple(&buf, '2');
    wire_put_text_row(&buf, &value, 1);
    wire_put_complete(&buf, "FETCH 2");
    wire_put_simple(&expected, '2');
    wire_put_complete(&expected, "FETCH 2");
    wire_drop_rows(&buf, from);
    assert_int_equal(buffer_length(&buf), buffer_length(&expected));
    assert_memory_equal(buffer_head(&buf), buffer_head(&expected), buffer_length(&expected));
    buffer_release(&buf);
    buffer_release(&expected);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_whole_messages),
        cmocka_unit_test(test_startup_without_type),
        cmocka_unit_test(test_length_survives_growth),
        cmocka_unit_test(test_error_fields),
        cmocka_unit_test(test_error_round_trip),
        cmocka_unit_test(test_text_result),
        cmocka_unit_test(test_reader),
        cmocka_unit_test(test_reader_stays_bad),
        cmocka_unit_test(test_huge_lengths),
        cmocka_unit_test(test_cstring_without_end),
        cmocka_unit_test(test_read_error),
        cmocka_unit_test(test_tag_rows),
        cmocka_unit_test(test_row_description),
        cmocka_unit_test(test_row_description_refused),
        cmocka_unit_test(test_bind),
        cmocka_unit_test(test_bind_format_rules),
        cmocka_unit_test(test_bind_most_parameters),
        cmocka_unit_test(test_bind_refused),
        cmocka_unit_test(test_every_cut),
        cmocka_unit_test(test_drop_rows),
    };
    return cmocka_run_group_tests_name("wire", tests, NULL, NULL);
}
