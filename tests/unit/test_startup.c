/* test_startup.c: startup packets, good and hostile. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "pgshunt/wire.h"
#include "proxy/startup.h"

#define V3 "\0\3\0\0"

struct good_case {
    const char *packet;
    size_t length;
    const char *user, *database;
    bool negotiate;
    const char *settings; /* as guc_difference tells them */
};

#define PACKET(text) text, sizeof(text) - 1

static const struct good_case good[] = {
    {PACKET(V3 "user\0ann\0\0"), "ann", "ann", false, ""},
    {PACKET(V3 "user\0ann\0database\0app\0\0"), "ann", "app", false, ""},
    {PACKET(V3 "database\0\0user\0ann\0\0"), "ann", "ann", false, ""},
    {PACKET(V3 "user\0a\0application_name\0x y\0\0"), "a", "a", false,
     "SET application_name TO 'x y';"},
    {PACKET(V3 "user\0a\0DateStyle\0ISO\0\0"), "a", "a", false, "SET datestyle TO 'ISO';"},
    {PACKET(V3 "user\0a\0options\0-c work_mem=8MB --lock-timeout=5\0\0"), "a", "a", false,
     "SET lock_timeout TO '5';SET work_mem TO '8MB';"},
    {PACKET(V3 "user\0a\0options\0-cx.y=a\\ b\0\0"), "a", "a", false, "SET \"x\".\"y\" TO 'a b';"},
    {PACKET(V3 "user\0a\0options\0  \0\0"), "a", "a", false, ""},
    {PACKET(V3 "user\0a\0options\0-c\ta=1 -cb=2 --c-d=3\n-c e==\\\\ -c f=\0\0"), "a", "a", false,
     "SET a TO '1';SET b TO '2';SET c_d TO '3';SET e TO  E'=\\\\';SET f TO '';"},
    {PACKET(V3 "user\0a\0options\0-eS 64 -fs -f h -t pa\0\0"), "a", "a", false,
     "SET datestyle TO 'euro';SET enable_hashjoin TO 'false';SET enable_seqscan TO 'false';"
     "SET log_parser_stats TO 'true';SET work_mem TO '64';"},
    {PACKET(V3 "a.b\0packet\0user\0a\0options\0-c a.b=options -c a.b=again\0\0"), "a", "a", false,
     "SET \"a\".\"b\" TO 'packet';"},
    {PACKET(V3 "user\0a\0options\0-c a=1 -c A=2\0\0"), "a", "a", false, "SET a TO '2';"},
    {PACKET(V3 "user\0a\0options\0-c search_path=a,\\ \"B\"\0\0"), "a", "a", false,
     "SELECT pg_catalog.set_config('search_path','a, \"B\"',false);"},
    {PACKET(V3 "user\0a\0role\0r\0session_authorization\0s\0work_mem\0"
               "1\0\0"),
     "a", "a", false, "SET work_mem TO '1';SET session_authorization TO 's';SET role TO 'r';"},
    {PACKET(V3 "user\0a\0replication\0off\0\0"), "a", "a", false, ""},
    {PACKET("\0\3\0\2"
            "user\0a\0\0"),
     "a", "a", false, ""},
    {PACKET(V3 "user\0a\0_pq_.x\0y\0\0"), "a", "a", true, ""},
    {PACKET("\0\3\x27\x0f"
            "user\0a\0_pq_.grease\0x\0\0"),
     "a", "a", true, ""},
};

static void takes_good_packets(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        struct guc_set *settings = NULL;
        struct startup startup;
        struct pg_error error;
        struct buffer sql = {0};
        assert_true(startup_parse(good[i].packet, good[i].length, &settings, &startup, &error));
        assert_string_equal(startup.user, good[i].user);
        assert_string_equal(startup.database, good[i].database);
        assert_int_equal(startup.negotiate, good[i].negotiate);
        guc_difference(NULL, settings, &sql);
        buffer_append(&sql, "", 1);
        assert_string_equal(buffer_head(&sql), good[i].settings);
        buffer_release(&sql);
        guc_set_release(&settings);
    }
}

struct bad_case {
    const char *packet;
    size_t length;
    const char *sqlstate;
};

static const struct bad_case bad[] = {
    {PACKET(""), "08P01"},
    {PACKET("\0\2\0\0"), "0A000"},
    {PACKET("\0\4\0\0user\0a\0\0"), "0A000"},
    {PACKET(V3), "08P01"},
    {PACKET(V3 "\0"), "28000"},
    {PACKET(V3 "user\0\0\0"), "28000"},
    {PACKET(V3 "user\0a"), "08P01"},
    {PACKET(V3 "user\0a\0"), "08P01"},
    {PACKET(V3 "user\0a\0\0junk"), "08P01"},
    {PACKET(V3 "user\0a\0database"), "08P01"},
    {PACKET(V3 "user\0a\0replication\0perhaps\0\0"), "22023"},
    {PACKET(V3 "user\0a\0options\0-x\0\0"), "42601"},
    {PACKET(V3 "user\0a\0options\0-c work_mem\0\0"), "42601"},
    {PACKET(V3 "user\0a\0options\0-c\0\0"), "42601"},
    {PACKET(V3 "user\0a\0options\0--=x\0\0"), "42601"},
    {PACKET(V3 "user\0a\0options\0word\0\0"), "42601"},
    {PACKET(V3 "user\0a\0options\0-f x\0\0"), "42601"},
    {PACKET(V3 "user\0a\0options\0-S\0\0"), "42601"},
    {PACKET(V3 "user\0a\0options\0-\0\0"), "42601"},
    {PACKET(V3 "user\0a\0options\0--\0\0"), "42601"},
    {PACKET(V3 "user\0"
               "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\0\0"),
     "42622"},
};

static void refuses_bad_packets(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct guc_set *settings = NULL;
        struct startup startup;
        struct pg_error error = {0};
        assert_false(startup_parse(bad[i].packet, bad[i].length, &settings, &startup, &error));
        assert_string_equal(error.sqlstate, bad[i].sqlstate);
        assert_string_equal(error.severity, "FATAL");
        guc_set_release(&settings);
    }
}

static void negotiates_version_and_options(void **state)
{
    /* What Postgres 18 answers: the version asked for, but no newer one than 3.2. */
    static const struct {
        const char *packet, *version;
    } cases[] = {
        {V3 "user\0a\0_pq_.one\0x\0_pq_.two\0y\0\0", "\0\3\0\0"},
        {"\0\3\0\1user\0a\0_pq_.one\0x\0_pq_.two\0y\0\0", "\0\3\0\1"},
        {"\0\3\0\2user\0a\0_pq_.one\0x\0_pq_.two\0y\0\0", "\0\3\0\2"},
        {"\0\3\x27\x0fuser\0a\0_pq_.one\0x\0_pq_.two\0y\0\0", "\0\3\0\2"},
    };
    static const char rest[] = "\0\0\0\2_pq_.one\0_pq_.two\0";
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct buffer out = {0};
        startup_put_negotiation(&out, cases[i].packet, 4 + 7 + 22 + 1);
        assert_int_equal(buffer_length(&out), 9 + sizeof rest - 1);
        assert_memory_equal(buffer_head(&out), "v\0\0\0\x1e", 5);
        assert_memory_equal(buffer_head(&out) + 5, cases[i].version, 4);
        assert_memory_equal(buffer_head(&out) + 9, rest, sizeof rest - 1);
        buffer_release(&out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(takes_good_packets),
        cmocka_unit_test(refuses_bad_packets),
        cmocka_unit_test(negotiates_version_and_options),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
