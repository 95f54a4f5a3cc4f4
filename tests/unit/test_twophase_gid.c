/* test_twophase_gid.c: names of prepared transactions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "proxy/twophase_gid.h"

static void test_reads_what_it_made(void **state)
{
    (void)state;
    char gid[GID_SIZE], other[GID_SIZE];
    struct gid_parts parts;
    gid_make("app", "s_1.a-b", gid);
    gid_make("app", "s_1.a-b", other);
    assert_string_not_equal(gid, other);
    assert_true(gid_read(gid, &parts));
    assert_string_equal(parts.database, "app");
    assert_string_equal(parts.shard, "s_1.a-b");
}

static void test_odd_names_are_hashed(void **state)
{
    (void)state;
    char gid[GID_SIZE], name[GID_NAME_SIZE], longest[300];
    struct gid_parts parts;
    memset(longest, 'x', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    gid_make("it's:", longest, gid);
    assert_null(strchr(gid, '\''));
    assert_true(strlen(gid) < GID_SIZE);
    assert_true(gid_read(gid, &parts));
    gid_name("it's:", name);
    assert_string_equal(parts.database, name);
    gid_name(longest, name);
    assert_string_equal(parts.shard, name);
    gid_name("", name);
    assert_string_not_equal(name, "");
}

static void test_others_are_none_of_ours(void **state)
{
    (void)state;
    static const char *const cases[] = {
        "",
        "mine",
        "pgshunt:",
        "pgshunt:a:b:c:1",
        "pgshunt:a:b:c:1:",
        "pgshunt:a::c:1:2",
        "pgshunt:a:b:c:1:2:",
        "pgshunt:a:b:c:1:2:x",
        "pgshunt:a:b:c:1:2:3:4",
        "pgshunt:a:b:c:1:2:3'",
        "pgshunt:a:b:c:1:2:d3",
        "pgshunt:a:b':c:1:2",
        "Pgshunt:a:b:c:1:2",
        "pgshunt:a:b:c:1:'",
    };
    struct gid_parts parts;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_false(gid_read(cases[i], &parts));
}

/* Each part has a name of its own, and all lead to one decision; those of earlier versions are it. */
static void test_parts_and_their_decision(void **state)
{
    (void)state;
    char decision[GID_SIZE], one[GID_SIZE], two[GID_SIZE];
    struct gid_parts parts;
    gid_make("app", "s1", decision);
    gid_part(decision, 0, one);
    gid_part(decision, 12, two);
    assert_string_not_equal(one, two);
    const char *const all[] = {decision, one, two};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        assert_true(gid_read(all[i], &parts));
        assert_string_equal(parts.decision, decision);
        assert_string_equal(parts.shard, "s1");
    }
    assert_true(gid_read("pgshunt:a:b:c:1:2", &parts));
    assert_string_equal(parts.decision, "pgshunt:a:b:c:1:2");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads_what_it_made),
        cmocka_unit_test(test_odd_names_are_hashed),
        cmocka_unit_test(test_others_are_none_of_ours),
        cmocka_unit_test(test_parts_and_their_decision),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
