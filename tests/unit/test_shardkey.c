/* test_shardkey.c: the same key value gives the same bucket in whatever form it comes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "pgshunt/pgtypes.h"
#include "pgshunt/shardkey.h"
#include "shardkey_vectors.h"

static void to_hex(const struct shardkey *key, char *out, size_t size)
{
    out[0] = '\0';
    for (size_t i = 0; i < key->length && 2 * i + 2 < size; i++)
        snprintf(out + 2 * i, size - 2 * i, "%02x", key->bytes[i]);
}

static void check_key(const struct shardkey_vector *vector, const struct shardkey *key)
{
    char hex[512];
    to_hex(key, hex, sizeof hex);
    assert_string_equal(hex, vector->canonical);
    assert_int_equal(shardkey_bucket(key), vector->bucket);
    assert_int_equal(shardkey_postgres_remainder(vector->type, key, 7), vector->pg_mod_7);
    assert_int_equal(shardkey_postgres_remainder(vector->type, key, 16), vector->pg_mod_16);
    assert_int_equal(shardkey_postgres_remainder(vector->type, key, 1), 0);
}

static void test_vectors_text(void **state)
{
    (void)state;
    for (size_t i = 0; i < SHARDKEY_NVECTORS; i++) {
        const struct shardkey_vector *v = &shardkey_vectors[i];
        struct shardkey key;
        assert_true(shardkey_from_text(v->type, v->text, strlen(v->text), &key));
        check_key(v, &key);
    }
}

static size_t from_hex(const char *hex, unsigned char *out)
{
    size_t n = strlen(hex) / 2;
    for (size_t i = 0; i < n; i++) {
        unsigned byte;
        assert_int_equal(sscanf(hex + 2 * i, "%2x", &byte), 1);
        out[i] = (unsigned char)byte;
    }
    return n;
}

static void check_binary(const struct shardkey_vector *vector, uint32_t oid, const void *bytes,
                         size_t length)
{
    struct shardkey key;
    assert_true(shardkey_from_binary(vector->type, oid, bytes, length, &key));
    check_key(vector, &key);
}

/* Every width that holds the value gives the same key. */
static void check_widths(const struct shardkey_vector *vector, const unsigned char *bytes)
{
    int64_t value;
    assert_int_equal(sscanf(vector->text, "%ld", &value), 1);
    check_binary(vector, OID_INT8, bytes, 8);
    if (value >= INT32_MIN && value <= INT32_MAX) {
        check_binary(vector, OID_INT4, bytes + 4, 4);
        check_binary(vector, 0, bytes + 4, 4);
    }
    if (value >= INT16_MIN && value <= INT16_MAX) {
        check_binary(vector, OID_INT2, bytes + 6, 2);
        check_binary(vector, 0, bytes + 6, 2);
    }
}

static void test_vectors_binary(void **state)
{
    (void)state;
    for (size_t i = 0; i < SHARDKEY_NVECTORS; i++) {
        const struct shardkey_vector *v = &shardkey_vectors[i];
        unsigned char bytes[512];
        size_t n = from_hex(v->canonical, bytes); /* also the wire's binary form */
        check_binary(v, 0, bytes, n);
        switch (v->type) {
        case KEY_BIGINT:
            check_widths(v, bytes);
            break;
        case KEY_UUID:
            check_binary(v, OID_UUID, bytes, n);
            break;
        case KEY_TEXT:
            check_binary(v, OID_TEXT, bytes, n);
            check_binary(v, OID_VARCHAR, bytes, n);
            check_binary(v, OID_UNKNOWN, bytes, n);
            break;
        }
    }
}

struct text_case {
    enum key_type type;
    const char *text;
    const char *same_as; /* NULL: refused */
};

static const struct text_case text_cases[] = {
    {KEY_BIGINT, "+7", "7"},
    {KEY_BIGINT, " 42 ", "42"},
    {KEY_BIGINT, "\t\n\v\f\r 42\t\n\v\f\r ", "42"},
    {KEY_BIGINT, "0042", "42"},
    {KEY_BIGINT, "-0", "0"},
    {KEY_BIGINT, "+0", "0"},
    {KEY_BIGINT, "000000000000000000000000000000000001", "1"},
    {KEY_BIGINT, "-00000000000000000000009223372036854775808", "-9223372036854775808"},
    {KEY_BIGINT, "", NULL},
    {KEY_BIGINT, " ", NULL},
    {KEY_BIGINT, "-", NULL},
    {KEY_BIGINT, "+", NULL},
    {KEY_BIGINT, "+-1", NULL},
    {KEY_BIGINT, "--1", NULL},
    {KEY_BIGINT, "- 1", NULL},
    {KEY_BIGINT, "1 2", NULL},
    {KEY_BIGINT, "1x", NULL},
    {KEY_BIGINT, "x1", NULL},
    {KEY_BIGINT, "1.0", NULL},
    {KEY_BIGINT, "1e3", NULL},
    {KEY_BIGINT, "0x1F", NULL},
    {KEY_BIGINT, "1_000", NULL},
    {KEY_BIGINT,
     "\xc2\xa0"
     "1",
     NULL}, /* a no-break space is not a blank */
    {KEY_BIGINT, "9223372036854775808", NULL},
    {KEY_BIGINT, "-9223372036854775809", NULL},
    {KEY_BIGINT, "99999999999999999999999999", NULL},
    {KEY_BIGINT, "-99999999999999999999999999", NULL},
    {KEY_UUID, "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"},
    {KEY_UUID, "{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"},
    {KEY_UUID, "a0eebc999c0b4ef8bb6d6bb9bd380a11", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"},
    {KEY_UUID, "a0ee-bc99-9c0b-4ef8-bb6d-6bb9-bd38-0a11", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"},
    {KEY_UUID, "{a0eebc99-9c0b4ef8-bb6d6bb9-bd380a11}", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"},
    {KEY_UUID, "", NULL},
    {KEY_UUID, "{}", NULL},
    {KEY_UUID, "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a1", NULL},
    {KEY_UUID, "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a111", NULL},
    {KEY_UUID, "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11-", NULL},
    {KEY_UUID, "-a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", NULL},
    {KEY_UUID, "{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", NULL},
    {KEY_UUID, "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}", NULL},
    {KEY_UUID, "{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}x", NULL},
    {KEY_UUID, " a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", NULL},
    {KEY_UUID, "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a1g", NULL},
    {KEY_UUID, "a0eebc99--9c0b-4ef8-bb6d-6bb9bd380a11", NULL},
    {KEY_UUID, "a0-eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", NULL},
    {KEY_TEXT, "a", "a"},
};

static void test_text_forms(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof text_cases / sizeof text_cases[0]; i++) {
        const struct text_case *c = &text_cases[i];
        struct shardkey key, same;
        bool ok = shardkey_from_text(c->type, c->text, strlen(c->text), &key);
        if (ok != (c->same_as != NULL))
            fail_msg("\"%s\" was %s", c->text, ok ? "taken" : "refused");
        if (!ok)
            continue;
        assert_true(shardkey_from_text(c->type, c->same_as, strlen(c->same_as), &same));
        assert_int_equal(key.length, same.length);
        assert_memory_equal(key.bytes, same.bytes, key.length);
    }
}

/* The length given counts, not a terminator: values come from the middle of messages. */
static void test_text_length(void **state)
{
    (void)state;
    struct shardkey key;
    assert_true(shardkey_from_text(KEY_BIGINT, "12345", 2, &key));
    assert_int_equal(key.bytes[7], 12);
    assert_false(shardkey_from_text(KEY_BIGINT, "1\0002", 3, &key));
    assert_false(shardkey_from_text(KEY_BIGINT, "", 0, &key));
    assert_false(shardkey_from_text(KEY_TEXT, "a\0b", 3, &key));
    assert_true(shardkey_from_text(KEY_TEXT, "abc", 2, &key));
    assert_int_equal(key.length, 2);
    assert_true(shardkey_from_text(KEY_TEXT, NULL, 0, &key));
    assert_int_equal(key.length, 0);
}

struct binary_case {
    enum key_type type;
    uint32_t oid;
    const char *bytes;
    size_t length;
};

static void test_binary_refused(void **state)
{
    (void)state;
    static const struct binary_case cases[] = {
        {KEY_BIGINT, 0, "", 0},
        {KEY_BIGINT, 0, "\1", 1},
        {KEY_BIGINT, 0, "\0\0\1", 3},
        {KEY_BIGINT, 0, "\0\0\0\0\0\0\0\0\1", 9},
        {KEY_BIGINT, OID_INT8, "\0\0\0\1", 4},
        {KEY_BIGINT, OID_INT4, "\0\0\0\0\0\0\0\1", 8},
        {KEY_BIGINT, OID_INT2, "\0\0\0\1", 4},
        {KEY_BIGINT, OID_NUMERIC, "\0\1\0\0\0\0\0\0\0\52", 10},
        {KEY_BIGINT, OID_NUMERIC, "\0\0\0\0\0\0\0\0", 8},
        {KEY_BIGINT, OID_TEXT, "42", 2},
        {KEY_BIGINT, OID_FLOAT8, "\0\0\0\0\0\0\0\0", 8},
        {KEY_BIGINT, OID_TIMESTAMP, "\0\0\0\0\0\0\0\0", 8},
        {KEY_UUID, 0, "0123456789abcde", 15},
        {KEY_UUID, 0, "0123456789abcdefg", 17},
        {KEY_UUID, OID_TEXT, "0123456789abcdef", 16},
        {KEY_UUID, OID_UUID, "", 0},
        {KEY_TEXT, OID_INT4, "\0\0\0\1", 4},
        {KEY_TEXT, OID_BYTEA, "abc", 3},
        {KEY_TEXT, OID_UUID, "0123456789abcdef", 16},
        {KEY_TEXT, OID_TEXT, "a\0b", 3},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct shardkey key;
        if (shardkey_from_binary(cases[i].type, cases[i].oid, cases[i].bytes, cases[i].length,
                                 &key))
            fail_msg("case %zu was taken", i);
    }
}

/* char(n): trailing blanks do not count, in no length. */
static void test_bpchar(void **state)
{
    (void)state;
    struct shardkey plain, padded;
    assert_true(shardkey_from_text(KEY_TEXT, "abc", 3, &plain));
    assert_true(shardkey_from_binary(KEY_TEXT, OID_BPCHAR, "abc     ", 8, &padded));
    assert_int_equal(shardkey_bucket(&plain), shardkey_bucket(&padded));
    assert_true(shardkey_from_binary(KEY_TEXT, OID_TEXT, "abc     ", 8, &padded));
    assert_int_equal(padded.length, 8);
    assert_true(shardkey_from_binary(KEY_TEXT, OID_BPCHAR, "   ", 3, &padded));
    assert_int_equal(padded.length, 0);
}

/* Every bucket is reached and none is crowded. */
static void test_spread(void **state)
{
    (void)state;
    static unsigned count[SHARDKEY_BUCKETS];
    char text[32];
    for (int i = 0; i < SHARDKEY_BUCKETS * 32; i++) {
        struct shardkey key;
        int n = snprintf(text, sizeof text, "%d", i);
        assert_true(shardkey_from_text(KEY_BIGINT, text, (size_t)n, &key));
        unsigned bucket = shardkey_bucket(&key);
        assert_true(bucket < SHARDKEY_BUCKETS);
        count[bucket]++;
    }
    for (int i = 0; i < SHARDKEY_BUCKETS; i++)
        assert_in_range(count[i], 4, 96);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vectors_text),   cmocka_unit_test(test_vectors_binary),
        cmocka_unit_test(test_text_forms),     cmocka_unit_test(test_text_length),
        cmocka_unit_test(test_binary_refused), cmocka_unit_test(test_bpchar),
        cmocka_unit_test(test_spread),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
