/* test_pgtypes.c: order, equality, sums and averages of values against what PostgreSQL says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/pgnumeric.h"
#include "common/pgtypes_internal.h"
#include "pgshunt/pgtypes.h"
#include "tests/unit/pgtypes_cases.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* ---- helpers ---- */

static int32_t from_hex(const char *hex, char *out)
{
    int32_t length = (int32_t)(strlen(hex) / 2);
    for (int32_t i = 0; i < length; i++) {
        unsigned byte;
        assert_int_equal(sscanf(hex + i * 2, "%2x", &byte), 1);
        out[i] = (char)byte;
    }
    return length;
}

struct value {
    char bytes[512];
    int32_t length;
};

static void set_value(struct value *value, const char *text, const char *binary, int format)
{
    if (format) {
        value->length = from_hex(binary, value->bytes);
        return;
    }
    value->length = (int32_t)strlen(text);
    memcpy(value->bytes, text, (size_t)value->length);
}

static int sign(int number)
{
    return (number > 0) - (number < 0);
}

static bool same_canonical(const struct pg_order *order, const struct pg_key *a,
                           const struct pg_key *b)
{
    struct buffer left = {0}, right = {0};
    pg_order_canonical(order, a, &left);
    pg_order_canonical(order, b, &right);
    bool same = buffer_length(&left) == buffer_length(&right) &&
                (!buffer_length(&left) ||
                 memcmp(buffer_head(&left), buffer_head(&right), buffer_length(&left)) == 0);
    buffer_release(&left);
    buffer_release(&right);
    return same;
}

/* ---- order and equality ---- */

static void check_pair(const struct order_case *a, const struct order_case *b, int format)
{
    struct value left, right;
    struct pg_order order, equal;
    struct pg_key left_key, right_key;
    set_value(&left, a->text, a->binary, format);
    set_value(&right, b->text, b->binary, format);
    assert_true(pg_order_init(&order, a->oid, format, NULL));
    assert_true(pg_order_decode(&order, left.bytes, left.length, &left_key));
    assert_true(pg_order_decode(&order, right.bytes, right.length, &right_key));
    int got = sign(pg_order_compare(&order, &left_key, &right_key));
    if (got != sign(a->rank - b->rank))
        print_message("%s, format %d: \"%s\" against \"%s\"\n", pg_type_name(a->oid), format,
                      a->text, b->text);
    assert_int_equal(got, sign(a->rank - b->rank));
    assert_true(pg_order_init_equal(&equal, a->oid, -1, format));
    assert_true(pg_order_decode(&equal, left.bytes, left.length, &left_key));
    assert_true(pg_order_decode(&equal, right.bytes, right.length, &right_key));
    assert_int_equal(same_canonical(&equal, &left_key, &right_key), a->rank == b->rank);
}

static void test_order(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(order_cases); i++)
        for (size_t j = 0; j < COUNT(order_cases); j++)
            if (order_cases[i].oid == order_cases[j].oid) {
                check_pair(&order_cases[i], &order_cases[j], 0);
                check_pair(&order_cases[i], &order_cases[j], 1);
            }
}

/* The number behind a time is the one that Postgres stores: text and binary give the same key. */
static void test_text_and_binary_agree(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(order_cases); i++) {
        const struct order_case *test = &order_cases[i];
        struct pg_order text, binary;
        struct value a, b;
        struct pg_key left, right;
        pg_order_init(&text, test->oid, 0, NULL);
        pg_order_init(&binary, test->oid, 1, NULL);
        set_value(&a, test->text, test->binary, 0);
        set_value(&b, test->text, test->binary, 1);
        assert_true(pg_order_decode(&text, a.bytes, a.length, &left));
        assert_true(pg_order_decode(&binary, b.bytes, b.length, &right));
        if (text.kind == PG_KEY_INTEGER)
            assert_int_equal(left.integer, right.integer);
        if (text.kind == PG_KEY_WIDE)
            assert_true(left.wide == right.wide);
    }
}

static void test_malformed(void **state)
{
    static const struct {
        uint32_t oid;
        const char *text;
    } cases[] = {
        {OID_BOOL, ""},
        {OID_BOOL, "true"},
        {OID_INT4, ""},
        {OID_INT4, "-"},
        {OID_INT4, "1x"},
        {OID_INT4, " 1"},
        {OID_INT8, "9223372036854775808"},
        {OID_INT8, "-9223372036854775809"},
        {OID_INT8, "99999999999999999999999"},
        {OID_FLOAT8, ""},
        {OID_FLOAT8, "0x1p3"},
        {OID_FLOAT8, "inf"},
        {OID_FLOAT8, "nan"},
        {OID_FLOAT8, "1e999"},
        {OID_FLOAT8, "1.5 "},
        {OID_FLOAT4, "1e"},
        {OID_NUMERIC, ""},
        {OID_NUMERIC, "."},
        {OID_NUMERIC, "-"},
        {OID_NUMERIC, "1e5"},
        {OID_NUMERIC, "1.2.3"},
        {OID_NUMERIC, "+1"},
        {OID_NUMERIC, "nan"},
        {OID_DATE, "12/31/1999"},
        {OID_DATE, "31.12.1999"},
        {OID_DATE, "12-31-1999"},
        {OID_DATE, "1999-13-01"},
        {OID_DATE, "1999-12-31 AD"},
        {OID_DATE, "99999999-01-01"},
        {OID_TIMESTAMP, "12/31/1999 01:02:03"},
        {OID_TIMESTAMP, "Fri Dec 31 01:02:03 1999"},
        {OID_TIMESTAMP, "1999-12-31T01:02:03"},
        {OID_TIMESTAMP, "1999-12-31 01:02"},
        {OID_TIMESTAMP, "1999-12-31 01:02:03."},
        {OID_TIMESTAMP, "1999-12-31 01:02:03.1234567"},
        {OID_TIMESTAMP, "1999-12-31 01:02:03+01"},
        {OID_TIMESTAMP, "294277-12-31 01:02:03"},
        {OID_TIMESTAMPTZ, "1999-12-31 01:02:03"},
        {OID_TIMESTAMPTZ, "31.12.1999 01:02:03 CET"},
        {OID_TIMETZ, "01:02:03"},
        {OID_TIME, "25:00:00"},
        {OID_TIME, "24:00:01"},
        {OID_TIME, "1:00:00"},
        {OID_INTERVAL, ""},
        {OID_INTERVAL, "@ 1 day"},
        {OID_INTERVAL, "P1D"},
        {OID_INTERVAL, "1-2"},
        {OID_INTERVAL, "1 2:03:04"},
        {OID_INTERVAL, "1 fortnight"},
        {OID_INTERVAL, "9999999999 years"},
        {OID_INTERVAL, "2562047789:00:00"},
        {OID_INTERVAL, "01:02:03 1 day"},
        {OID_UUID, "00000000-0000-0000-0000-00000000000"},
        {OID_UUID, "00000000-0000-0000-0000-00000000000g"},
        {OID_UUID, "000000000000-0000-0000-0000-00000000"},
        {OID_CHAR, "ab"},
        {OID_BYTEA, "\\x0"},
        {OID_BYTEA, "\\x0g"},
        {OID_BYTEA, "\\1"},
        {OID_BYTEA, "\\400"},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct pg_order order;
        struct pg_key key;
        assert_true(pg_order_init(&order, cases[i].oid, 0, NULL));
        if (pg_order_decode(&order, cases[i].text, (int32_t)strlen(cases[i].text), &key))
            fail_msg("%s accepts \"%s\"", pg_type_name(cases[i].oid), cases[i].text);
    }
}

static void test_malformed_binary(void **state)
{
    static const struct {
        uint32_t oid;
        const char *hex;
    } cases[] = {
        {OID_INT8, "00000000000000"},
        {OID_INT4, "0000000000"},
        {OID_INT2, ""},
        {OID_FLOAT8, "00"},
        {OID_FLOAT4, "0000000000"},
        {OID_UUID, "00"},
        {OID_INTERVAL, "0000000000000000"},
        {OID_TIMETZ, "0000000000000000"},
        {OID_NUMERIC, ""},
        {OID_NUMERIC, "00010000000000"},       /* header cut off */
        {OID_NUMERIC, "0001000000000000"},     /* one digit said, none there */
        {OID_NUMERIC, "00010000000000002710"}, /* digit 10000 */
        {OID_NUMERIC, "00000000100000000000"}, /* trailing bytes */
        {OID_NUMERIC, "0000000012340000"},     /* unknown sign */
        {OID_NUMERIC, "000000000000ffff"},     /* scale */
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct pg_order order;
        struct pg_key key;
        char bytes[64];
        int32_t length = from_hex(cases[i].hex, bytes);
        assert_true(pg_order_init(&order, cases[i].oid, 1, NULL));
        if (pg_order_decode(&order, bytes, length, &key))
            fail_msg("%s accepts 0x%s", pg_type_name(cases[i].oid), cases[i].hex);
    }
}

static int compare_texts(uint32_t oid, const char *a, const char *b)
{
    struct pg_order order;
    struct pg_key left, right;
    assert_true(pg_order_init(&order, oid, 0, NULL));
    assert_true(pg_order_decode(&order, a, (int32_t)strlen(a), &left));
    assert_true(pg_order_decode(&order, b, (int32_t)strlen(b), &right));
    return sign(pg_order_compare(&order, &left, &right));
}

static void test_bytea_formats(void **state)
{
    (void)state;
    assert_int_equal(compare_texts(OID_BYTEA, "\\x6162", "ab"), 0);
    assert_int_equal(compare_texts(OID_BYTEA, "\\\\x", "\\x5c78"), 0);
    assert_int_equal(compare_texts(OID_BYTEA, "a\\000", "a"), 1);
    assert_int_equal(compare_texts(OID_BYTEA, "\\377", "z"), 1);
    assert_int_equal(compare_texts(OID_BYTEA, "\\000", "\\001"), -1);
}

static void test_no_order(void **state)
{
    static const uint32_t oids[] = {OID_JSON, OID_JSONB, OID_UNKNOWN, OID_INET, 1231, 600, 20000};
    struct pg_order order;
    (void)state;
    for (size_t i = 0; i < COUNT(oids); i++) {
        assert_false(pg_order_init(&order, oids[i], 0, NULL));
        assert_false(pg_order_init(&order, oids[i], 1, NULL));
    }
    assert_false(pg_order_init(&order, OID_MONEY, 0, NULL));
    assert_true(pg_order_init(&order, OID_MONEY, 1, NULL));
    assert_false(pg_order_init(&order, OID_INT4, 2, NULL));
}

static void test_equality_without_order(void **state)
{
    static const struct {
        uint32_t oid;
        int size, format;
        bool known;
    } cases[] = {
        {OID_INET, -1, 0, true},   {OID_MACADDR, 6, 1, true}, {OID_MONEY, 8, 0, true},
        {1007, -1, 0, true},       {1007, -1, 1, false},      {1231, -1, 0, false},
        {20000, 4, 0, true},       {20000, 4, 1, true},       {20000, -1, 0, false},
        {OID_JSONB, -1, 0, false}, {OID_JSON, -1, 0, false},  {3906, -1, 0, false},
        {3912, -1, 0, true},       {OID_INT4, 4, 2, false},
    };
    struct pg_order order;
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++)
        assert_int_equal(pg_order_init_equal(&order, cases[i].oid, cases[i].size, cases[i].format),
                         cases[i].known);
}

static void test_collation(void **state)
{
    static const char *const bytewise[] = {NULL, "", "C", "POSIX", "C.UTF-8", "C.utf8"};
    struct pg_collation collation;
    (void)state;
    for (size_t i = 0; i < COUNT(bytewise); i++) {
        assert_true(pg_collation_open(&collation, bytewise[i], 'c'));
        assert_true(collation.locale == (locale_t)0);
    }
    assert_false(pg_collation_open(&collation, "en-US-x-icu", 'i'));
    assert_false(pg_collation_open(&collation, "xx_NOWHERE.UTF-8", 'c'));
    pg_collation_close(&collation);
}

/* Where the host has the locale: letters before case, ties by bytes; names stay bytewise. */
static void test_libc_collation(void **state)
{
    struct pg_collation collation;
    struct pg_order order;
    struct pg_key a, b;
    (void)state;
    if (!pg_collation_open(&collation, "en_US.UTF-8", 'c')) {
        pg_collation_close(&collation);
        skip();
        return;
    }
    assert_true(pg_order_init(&order, OID_TEXT, 0, &collation));
    pg_order_decode(&order, "a", 1, &a);
    pg_order_decode(&order, "B", 1, &b);
    assert_true(pg_order_compare(&order, &a, &b) < 0);
    assert_true(pg_order_compare(&order, &a, &a) == 0);
    assert_true(pg_order_init(&order, OID_NAME, 0, &collation));
    assert_true(pg_order_compare(&order, &a, &b) > 0);
    pg_collation_close(&collation);
}

/* ---- sums and averages ---- */

static void check_appended(const struct buffer *out, const char *text, const char *hex)
{
    struct value expected;
    set_value(&expected, text, hex, hex != NULL);
    int32_t length = (int32_t)wire_get32(buffer_head(out));
    if (!hex && (length != expected.length ||
                 memcmp(buffer_head(out) + 4, expected.bytes, (size_t)length) != 0))
        print_message("\"%.*s\" instead of \"%s\"\n", length < 0 ? 0 : length, buffer_head(out) + 4,
                      text);
    assert_int_equal(length, expected.length);
    assert_int_equal(buffer_length(out), 4 + (size_t)length);
    assert_memory_equal(buffer_head(out) + 4, expected.bytes, (size_t)length);
}

static void add_text(struct pg_sum *sum, const char *text)
{
    assert_int_equal(pg_sum_add(sum, text, (int32_t)strlen(text)), PG_OK);
}

static void test_numeric_arithmetic(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(numeric_cases); i++) {
        const struct numeric_case *test = &numeric_cases[i];
        int64_t count = strtoll(test->b, NULL, 10);
        for (int format = 0; format < 2; format++) {
            struct pg_sum sum;
            struct buffer out = {0};
            struct value a;
            set_value(&a, test->a, test->a_binary, format);
            assert_true(pg_sum_init(&sum, OID_NUMERIC, format));
            assert_int_equal(pg_sum_add(&sum, a.bytes, a.length), PG_OK);
            assert_int_equal(pg_average_append(&sum, count, format, &out), PG_OK);
            check_appended(&out, test->quotient, format ? test->quotient_binary : NULL);
            buffer_clear(&out);
            sum.format = 0; /* b is there as text only */
            add_text(&sum, test->b);
            sum.format = format;
            assert_int_equal(pg_sum_append(&sum, &out), PG_OK);
            check_appended(&out, test->sum, format ? test->sum_binary : NULL);
            buffer_release(&out);
            pg_sum_free(&sum);
        }
    }
}

static void test_sums(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(sum_cases); i++) {
        const struct sum_case *test = &sum_cases[i];
        struct pg_sum sum;
        struct buffer out = {0};
        assert_true(pg_sum_init(&sum, test->oid, 0));
        add_text(&sum, test->a);
        add_text(&sum, test->b);
        assert_int_equal(pg_sum_add(&sum, NULL, -1), PG_OK);
        assert_int_equal(pg_sum_append(&sum, &out), PG_OK);
        check_appended(&out, test->sum, NULL);
        buffer_release(&out);
        pg_sum_free(&sum);
    }
}

static void test_binary_sums(void **state)
{
    static const struct {
        uint32_t oid;
        const char *a, *b, *sum;
    } cases[] = {
        {OID_INT8, "0000000000000001", "fffffffffffffffe", "ffffffffffffffff"},
        {OID_MONEY, "0000000000000064", "0000000000000001", "0000000000000065"},
        {OID_FLOAT8, "3fb999999999999a", "3fc999999999999a", "3fd3333333333334"},
        {OID_FLOAT4, "3dcccccd", "3e4ccccd", "3e99999a"},
        {OID_INTERVAL, "00000000000000010000000200000003", "ffffffffffffffff0000000200000003",
         "00000000000000000000000400000006"},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct pg_sum sum;
        struct buffer out = {0};
        char bytes[16];
        assert_true(pg_sum_init(&sum, cases[i].oid, 1));
        assert_int_equal(pg_sum_add(&sum, bytes, from_hex(cases[i].a, bytes)), PG_OK);
        assert_int_equal(pg_sum_add(&sum, bytes, from_hex(cases[i].b, bytes)), PG_OK);
        assert_int_equal(pg_sum_append(&sum, &out), PG_OK);
        check_appended(&out, NULL, cases[i].sum);
        buffer_release(&out);
    }
}

static void test_sum_of_nothing(void **state)
{
    static const uint32_t oids[] = {OID_INT8, OID_NUMERIC, OID_FLOAT4, OID_FLOAT8, OID_INTERVAL};
    (void)state;
    for (size_t i = 0; i < COUNT(oids); i++) {
        struct pg_sum sum;
        struct buffer out = {0};
        assert_true(pg_sum_init(&sum, oids[i], 0));
        assert_int_equal(pg_sum_append(&sum, &out), PG_OK);
        assert_int_equal(pg_average_append(&sum, 0, 0, &out), PG_OK);
        assert_int_equal(buffer_length(&out), 8);
        assert_memory_equal(buffer_head(&out), "\377\377\377\377\377\377\377\377", 8);
        buffer_release(&out);
        pg_sum_free(&sum);
    }
}

static void test_overflow(void **state)
{
    static const struct {
        uint32_t oid;
        const char *a, *b, *message, *sqlstate;
    } cases[] = {
        {OID_INT8, "9223372036854775807", "1", "bigint out of range", "22003"},
        {OID_INT8, "-9223372036854775808", "-1", "bigint out of range", "22003"},
        {OID_FLOAT8, "1.7e308", "1.7e308", "value out of range: overflow", "22003"},
        {OID_FLOAT4, "3e38", "-3e38", NULL, NULL},
        {OID_FLOAT4, "-3e38", "-3e38", "value out of range: overflow", "22003"},
        {OID_INTERVAL, "178000000 years", "178000000 years", "interval out of range", "22008"},
        {OID_INTERVAL, "2562047788:00:00", "01:00:00", "interval out of range", "22008"},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct pg_sum sum;
        assert_true(pg_sum_init(&sum, cases[i].oid, 0));
        add_text(&sum, cases[i].a);
        enum pg_status status = pg_sum_add(&sum, cases[i].b, (int32_t)strlen(cases[i].b));
        assert_int_equal(status, cases[i].message ? PG_OUT_OF_RANGE : PG_OK);
        if (!cases[i].message)
            continue;
        assert_string_equal(pg_sum_overflow_message(cases[i].oid), cases[i].message);
        assert_string_equal(pg_sum_overflow_state(cases[i].oid), cases[i].sqlstate);
    }
}

/* 131072 nines are the largest numeric; twice that has a digit too many. */
static void test_numeric_limit(void **state)
{
    const int32_t length = 131072;
    char *nines = malloc((size_t)length + 1);
    struct pg_sum sum;
    struct buffer out = {0};
    (void)state;
    memset(nines, '9', (size_t)length + 1);
    assert_true(pg_sum_init(&sum, OID_NUMERIC, 0));
    assert_int_equal(pg_sum_add(&sum, nines, length + 1), PG_MALFORMED);
    assert_int_equal(pg_sum_add(&sum, nines, length), PG_OK);
    assert_int_equal(pg_sum_append(&sum, &out), PG_OK);
    assert_memory_equal(buffer_head(&out) + 4, nines, (size_t)length);
    assert_int_equal(pg_sum_add(&sum, "1", 1), PG_OK);
    assert_int_equal(pg_sum_append(&sum, &out), PG_OUT_OF_RANGE);
    assert_string_equal(pg_sum_overflow_message(OID_NUMERIC), "value overflows numeric format");
    buffer_release(&out);
    pg_sum_free(&sum);
    free(nines);
}

static void test_no_sum(void **state)
{
    static const uint32_t oids[] = {OID_TEXT, OID_INT4, OID_DATE, OID_JSONB, 20000};
    struct pg_sum sum;
    (void)state;
    for (size_t i = 0; i < COUNT(oids); i++)
        assert_false(pg_sum_init(&sum, oids[i], 0));
    assert_false(pg_sum_init(&sum, OID_MONEY, 0));
    assert_false(pg_average_known(OID_INTERVAL, OID_INTERVAL));
    assert_false(pg_average_known(OID_NUMERIC, OID_FLOAT8));
    assert_true(pg_average_known(OID_NUMERIC, OID_INT8));
    assert_true(pg_average_known(OID_FLOAT8, OID_FLOAT4));
}

static void test_float_average(void **state)
{
    struct pg_sum sum;
    struct buffer out = {0};
    (void)state;
    assert_true(pg_sum_init(&sum, OID_FLOAT8, 0));
    add_text(&sum, "10");
    assert_int_equal(pg_average_append(&sum, 3, 0, &out), PG_OK);
    check_appended(&out, "3.3333333333333335", NULL);
    buffer_clear(&out);
    assert_true(pg_sum_init(&sum, OID_FLOAT8, 0));
    assert_int_equal(pg_sum_add_weighted(&sum, "1.5", 3, 4), PG_OK);
    assert_int_equal(pg_sum_add_weighted(&sum, "2", 1, 1), PG_OK);
    assert_int_equal(pg_average_append(&sum, 5, 0, &out), PG_OK);
    check_appended(&out, "1.6", NULL);
    buffer_release(&out);
}

static void test_float_text(void **state)
{
    struct buffer out = {0};
    (void)state;
    for (size_t i = 0; i < COUNT(float8_cases); i++) {
        double value;
        memcpy(&value, &float8_cases[i].bits, sizeof value);
        buffer_clear(&out);
        float8_format(value, &out);
        buffer_append(&out, "", 1);
        assert_string_equal(buffer_head(&out), float8_cases[i].text);
    }
    for (size_t i = 0; i < COUNT(float4_cases); i++) {
        uint32_t bits = (uint32_t)float4_cases[i].bits;
        float value;
        memcpy(&value, &bits, sizeof value);
        buffer_clear(&out);
        float4_format(value, &out);
        buffer_append(&out, "", 1);
        assert_string_equal(buffer_head(&out), float4_cases[i].text);
    }
    buffer_release(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_text_and_binary_agree),
        cmocka_unit_test(test_malformed),
        cmocka_unit_test(test_malformed_binary),
        cmocka_unit_test(test_bytea_formats),
        cmocka_unit_test(test_no_order),
        cmocka_unit_test(test_equality_without_order),
        cmocka_unit_test(test_collation),
        cmocka_unit_test(test_libc_collation),
        cmocka_unit_test(test_numeric_arithmetic),
        cmocka_unit_test(test_sums),
        cmocka_unit_test(test_binary_sums),
        cmocka_unit_test(test_sum_of_nothing),
        cmocka_unit_test(test_overflow),
        cmocka_unit_test(test_numeric_limit),
        cmocka_unit_test(test_no_sum),
        cmocka_unit_test(test_float_average),
        cmocka_unit_test(test_float_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
