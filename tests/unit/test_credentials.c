/* test_credentials.c: keys and secrets of accounts: one for all who ask, versions that tell of changes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "proxy/credentials.h"

static void test_accounts(void **state)
{
    struct credentials all;
    (void)state;
    credentials_init(&all);
    struct credential *one = credential_get(&all, "app", "ann");
    assert_ptr_equal(one, credential_get(&all, "app", "ann"));
    assert_ptr_not_equal(one, credential_get(&all, "app", "bob"));
    assert_ptr_not_equal(one, credential_get(&all, "other", "ann"));
    /* names that would be one if they were put together */
    assert_ptr_not_equal(credential_get(&all, "a", "bc"), credential_get(&all, "ab", "c"));
    assert_ptr_not_equal(credential_get(&all, "a\nb", "c"), credential_get(&all, "a", "b\nc"));
    credentials_free(&all);
}

static void test_keys(void **state)
{
    struct credentials all;
    struct scram_keys keys = {.present = true, .iterations = 4096}, found;
    (void)state;
    credentials_init(&all);
    struct credential *one = credential_get(&all, "app", "ann");
    assert_false(credential_keys(one, &found));
    credential_prove(one, &keys);
    unsigned version = credential_version(one);
    assert_true(credential_keys(one, &found));
    assert_memory_equal(&found, &keys, sizeof keys);
    credential_prove(one, &keys); /* the same again is no news */
    assert_int_equal(credential_version(one), version);
    keys.client_key[31] ^= 1;
    credential_prove(one, &keys);
    assert_int_equal(credential_version(one), version + 1);
    assert_true(credential_keys(one, &found));
    assert_memory_equal(&found, &keys, sizeof keys);
    assert_false(credential_keys(credential_get(&all, "app", "bob"), &found));
    credentials_free(&all);
}

static void test_secrets(void **state)
{
    struct credentials all;
    (void)state;
    credentials_init(&all);
    struct credential *one = credential_get(&all, "app", "ann");
    assert_null(credential_secret(one));
    credential_keep_secret(one, NULL);
    assert_int_equal(credential_version(one), 0);
    credential_keep_secret(one, "plain");
    credential_keep_secret(one, "plain");
    assert_int_equal(credential_version(one), 1);
    char *secret = credential_secret(one);
    assert_string_equal(secret, "plain");
    credential_free_secret(secret);
    credential_keep_secret(one, NULL); /* SCRAM now */
    assert_null(credential_secret(one));
    assert_int_equal(credential_version(one), 2);
    credential_keep_secret(one, "left to credentials_free");
    credentials_free(&all);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_accounts),
        cmocka_unit_test(test_keys),
        cmocka_unit_test(test_secrets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
