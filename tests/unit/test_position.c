/* test_position.c: places in the shards' WAL as text, and texts that are none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "proxy/position.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static void test_there_and_back(void **state)
{
    (void)state;
    static const struct {
        const char *shard;
        struct position position;
    } cases[] = {
        {"s0", {1, 0}},
        {"eu-west_2.a", {2147483647, UINT64_MAX}},
        {"a:b+c %/\xc3\xa9", {7, 0x16B3748}},
        {"x", {3, 0x200000000}},
    };
    struct buffer text = {0};
    for (size_t i = 0; i < COUNT(cases); i++)
        position_put(&text, cases[i].shard, &cases[i].position);
    buffer_append(&text, "", 1);
    assert_string_equal(buffer_head(&text), "s0:1:0/0+eu-west_2.a:2147483647:FFFFFFFF/FFFFFFFF"
                                            "+a%3Ab%2Bc%20%25%2F%C3%A9:7:0/16B3748+x:3:2/0");

    const char *at = buffer_head(&text);
    char name[64];
    struct position position;
    for (size_t i = 0; i < COUNT(cases); i++) {
        assert_int_equal(position_take(&at, name, sizeof name, &position), POSITION_TAKEN);
        assert_string_equal(name, cases[i].shard);
        assert_int_equal(position.timeline, cases[i].position.timeline);
        assert_true(position.lsn == cases[i].position.lsn);
    }
    assert_int_equal(position_take(&at, name, sizeof name, &position), POSITION_END);
    buffer_release(&text);
}

static void test_what_is_none(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "+",
        "s0",
        "s0:",
        ":1:0/1",
        "s0:1",
        "s0:1:",
        "s0:1:0",
        "s0:1:0/",
        "s0:1:/1",
        "s0:0:0/1",
        "s0:-1:0/1",
        "s0: 1:0/1",
        "s0:2147483648:0/1",
        "s0:99999999999999999999999999:0/1",
        "s0:1:0/123456789",
        "s0:1:123456789/0",
        "s0:1:0x1/1",
        "s0:1:0/1+",
        "s0:1:0/1,s1:1:0/1",
        "s0:1:0/1 ",
        "s0:1:0/1g",
        "s%:1:0/1",
        "s%4:1:0/1",
        "s%4g:1:0/1",
        "s%00:1:0/1",
        "s 0:1:0/1",
        "a_name_without_room:1:0/1",
    };
    for (size_t i = 0; i < COUNT(texts); i++) {
        const char *at = texts[i];
        char name[16];
        struct position position;
        if (position_take(&at, name, sizeof name, &position) != POSITION_MALFORMED)
            fail_msg("taken: %s", texts[i]);
        assert_ptr_equal(at, texts[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_there_and_back),
        cmocka_unit_test(test_what_is_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
