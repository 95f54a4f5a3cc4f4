/* test_ident.c: pg_ident.conf: which line lets whom in as whom, and what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "pgshunt/ident.h"

static const struct {
    const char *text, *system, *user;
    bool fits;
} cases[] = {
    {"m ann app\n", "ann", "app", true},
    {"m ann app\n", "ann", "ann", false},
    {"m ann app\n", "bob", "app", false},
    {"other ann app\n", "ann", "app", false},
    {"m ann app\nm ann web # two\n", "ann", "web", true},
    {"m \"an n\" \"a,b\"\n", "an n", "a,b", true},
    {"m ann all\n", "ann", "anybody", true},
    {"m ann \"all\"\n", "ann", "anybody", false},
    {"m ann \"all\"\n", "ann", "all", true},
    {"m /^(.*)@x$ \\1\n", "ann@x", "ann", true},
    {"m /^(.*)@x$ \\1\n", "ann@y", "ann", false},
    {"m /^(.*)@x$ \\1\n", "ann@x", "bob", false},
    {"m /^(.*)@x$ pre_\\1_post\n", "ann@x", "pre_ann_post", true},
    {"m /^(.*)@x$ pre_\\1_post\n", "ann@x", "pre_ann", false},
    {"m /^(.*)@x$ pre_\\1_post\n", "ann@x", "pre_an_post", false},
    {"m /^(.*)@x$ \\1\\1\n", "a@x", "a\\1", true}, /* the first one alone */
    {"m /^a(b)?@x$ z\\1\n", "a@x", "z", false},    /* a group that took no part */
    {"m /^a(b)?@x$ z\n", "a@x", "z", true},
    {"m /^a(b*)@x$ z\\1\n", "a@x", "z", true},
    {"m /^(\\d+)$ u\\1\n", "42", "u42", true},
    {"m /n ann\n", "anna", "ann", true},
    {"m ann \\1\n", "ann", "\\1", true}, /* no expression: as it stands */
    {"m ann /^w\n", "ann", "web", true},
    {"m ann /^w\n", "ann", "app", false},
    {"m \"/^a,b$\" x\n", "a,b", "x", true},
    {"m ann +staff\n", "ann", "web", true},
    {"m ann +typists\n", "ann", "web", false},
    {"m bob +staff\n", "ann", "web", false},
    {"m ann \"+staff\"\n", "ann", "web", false},
    {"m ann \"+staff\"\n", "ann", "+staff", true},
    {"m /^a +staff\n", "ann", "web", true},
    {"m /^(.*)@x$ +\\1\n", "staff@x", "web", false}, /* a name */
    {"m /^(.*)@x$ +\\1\n", "staff@x", "+staff", true},
    {"m ann +typists\nm ann web\n", "ann", "web", true},
    {"", "ann", "ann", false},
};

/* web and staff */
#define ROLES ",776562,7374616666,"

static void test_fits(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct arena arena;
        char error[1024];
        arena_init(&arena);
        struct ident *ident =
            ident_parse(&arena, "ident", cases[i].text, strlen(cases[i].text), error, sizeof error);
        assert_string_equal(error, "");
        enum ident_answer answer = ident_match(ident, "m", cases[i].system, cases[i].user, ROLES);
        if ((answer == IDENT_YES) != cases[i].fits)
            fail_msg("case %zu: %s", i, cases[i].text);
        assert_int_equal(ident_has_map(ident, "m"), strncmp(cases[i].text, "m ", 2) == 0);
        arena_free(&arena);
    }
}

static void test_a_long_group(void **state)
{
    struct arena arena;
    char error[1024], system[400];
    static const char text[] = "m /^(.*)$ \\1\n";
    (void)state;
    memset(system, 'a', sizeof system - 1);
    system[sizeof system - 1] = '\0';
    arena_init(&arena);
    struct ident *ident = ident_parse(&arena, "ident", text, strlen(text), error, sizeof error);
    assert_int_equal(ident_match(ident, "m", system, system, NULL), IDENT_FAILED);
    assert_int_equal(ident_match(ident, "m", system + 200, system + 200, NULL), IDENT_YES);
    arena_free(&arena);
}

/* No line behind one that cannot be matched lets anyone in. */
static void test_too_long(void **state)
{
    struct arena arena;
    char error[1024], system[400];
    static const char text[] = "m /^(a+)+$ bob\nm /^a ann\nm /a?(b)? \\1\n";
    (void)state;
    memset(system, 'a', sizeof system);
    system[sizeof system - 2] = '!';
    system[sizeof system - 1] = '\0';
    arena_init(&arena);
    struct ident *ident = ident_parse(&arena, "ident", text, strlen(text), error, sizeof error);
    assert_int_equal(ident_match(ident, "m", system, "ann", NULL), IDENT_FAILED);
    assert_int_equal(ident_match(ident, "m", "a!", "ann", NULL), IDENT_YES);
    assert_int_equal(ident_match(ident, "m", "x", "", NULL),
                     IDENT_FAILED); /* the group took no part */
    arena_free(&arena);
}

/* Who is a member of what is asked for only where a line depends on it. */
static void test_roles_are_wanted(void **state)
{
    struct arena arena;
    char error[1024];
    static const char text[] = "m ann web\nm ann +staff\nm ann all\nn ann web\n";
    (void)state;
    arena_init(&arena);
    struct ident *ident = ident_parse(&arena, "ident", text, strlen(text), error, sizeof error);
    assert_int_equal(ident_match(ident, "m", "ann", "web", NULL), IDENT_YES);
    assert_int_equal(ident_match(ident, "m", "ann", "app", NULL), IDENT_NEEDS_ROLES);
    assert_int_equal(ident_match(ident, "m", "bob", "app", NULL), IDENT_NO);
    assert_int_equal(ident_match(ident, "m", "ann", "app", ""), IDENT_YES);
    assert_true(ident_wants_roles(ident, "m"));
    assert_false(ident_wants_roles(ident, "n"));
    arena_free(&arena);
}

static const struct {
    const char *text, *error;
} refused[] = {
    {"m\n", "ident:1: found the end of the line; allowed: MAP SYSTEM-NAME USER, one of each"},
    {"m a\n", "ident:1: found the end of the line; allowed: MAP SYSTEM-NAME USER, one of each"},
    {"\nm a,b c\n",
     "ident:2: found several values in a column; allowed: MAP SYSTEM-NAME USER, one of each"},
    {"m a b c\n", "ident:1: found \"c\" behind the user; allowed: MAP SYSTEM-NAME USER"},
    {"m a +\n", "ident:1: found user \"+\"; allowed: a role's name behind the +"},
    {"m /[ b\n", "ident:1: found \"/[\" (unmatched [); allowed: a regular expression"},
    {"m a /(?i)b\n",
     "ident:1: found \"/(?i)b\" ((?i is not supported); allowed: a regular expression"},
    {"m /^.*$ \\1\n", "ident:1: found \\1 in user \"\\1\", but no group in \"/^.*$\"; allowed: a "
                      "regular expression with (...)"},
    {"m \"a b\n", "ident:1: found a quote that never ends; allowed: \"...\" on one line"},
};

static void test_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        struct arena arena;
        char error[1024];
        arena_init(&arena);
        assert_null(ident_parse(&arena, "ident", refused[i].text, strlen(refused[i].text), error,
                                sizeof error));
        assert_string_equal(error, refused[i].error);
        arena_free(&arena);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fits),     cmocka_unit_test(test_a_long_group),
        cmocka_unit_test(test_too_long), cmocka_unit_test(test_roles_are_wanted),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
