/* test_hba.c: pg_hba.conf: what fits whom, what is refused and in which words, included files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pgshunt/hba.h"

/* "local", an IP address; "s:" in front: with TLS. */
static const struct hba_rule *match(const struct hba *hba, const char *user, const char *database,
                                    const char *from)
{
    struct sockaddr_storage address = {.ss_family = AF_UNIX};
    struct sockaddr_in *four = (struct sockaddr_in *)&address;
    struct sockaddr_in6 *six = (struct sockaddr_in6 *)&address;
    struct hba_visitor visitor = {.user = user,
                                  .database = database,
                                  .address = (struct sockaddr *)&address,
                                  .tls = strncmp(from, "s:", 2) == 0,
                                  .replication = !database};
    from += visitor.tls ? 2 : 0;
    if (inet_pton(AF_INET, from, &four->sin_addr) == 1)
        address.ss_family = AF_INET;
    else if (inet_pton(AF_INET6, from, &six->sin6_addr) == 1)
        address.ss_family = AF_INET6;
    enum hba_doubt doubt;
    const struct hba_rule *rule = hba_match(hba, &visitor, &doubt);
    assert_int_equal(doubt, HBA_SURE);
    return rule;
}

struct match_case {
    const char *text;
    const char *user, *database; /* database NULL: physical replication */
    const char *from;
    int line; /* of the rule that fits; 0: none */
    enum hba_method method;
};

static const struct match_case matches[] = {
    {"local all all trust\n", "ann", "app", "local", 1, HBA_TRUST},
    {"local all all trust\n", "ann", "app", "127.0.0.1", 0, HBA_REJECT},
    {"host all all 127.0.0.1/32 md5\n", "ann", "app", "127.0.0.1", 1, HBA_MD5},
    {"host all all 127.0.0.1/32 md5\n", "ann", "app", "127.0.0.2", 0, HBA_REJECT},
    {"host all all 127.0.0.1/32 md5\n", "ann", "app", "local", 0, HBA_REJECT},
    {"host all all 10.1.2.3/8 password\n", "ann", "app", "10.200.1.1", 1, HBA_PASSWORD},
    {"host all all 10.1.2.3/8 password\n", "ann", "app", "11.0.0.1", 0, HBA_REJECT},
    {"host all all 0.0.0.0/0 password\n", "ann", "app", "11.0.0.1", 1, HBA_PASSWORD},
    {"host all all 0.0.0.0/0 password\n", "ann", "app", "::1", 0, HBA_REJECT},
    {"host all all 10.0.0.0/9 md5\n", "ann", "app", "10.127.0.1", 1, HBA_MD5},
    {"host all all 10.0.0.0/9 md5\n", "ann", "app", "10.128.0.1", 0, HBA_REJECT},
    {"host all all 192.168.1.0 255.255.255.0 md5\n", "ann", "app", "192.168.1.9", 1, HBA_MD5},
    {"host all all 192.168.1.0 255.255.255.0 md5\n", "ann", "app", "192.168.2.9", 0, HBA_REJECT},
    {"host all all ::1/128 md5\n", "ann", "app", "::1", 1, HBA_MD5},
    {"host all all fe80::/10 md5\n", "ann", "app", "fe80::1234", 1, HBA_MD5},
    {"host all all 2001:db8:: ffff:ffff:: md5\n", "ann", "app", "2001:db8::5", 1, HBA_MD5},
    {"host all all 2001:db8:: ffff:ffff:: md5\n", "ann", "app", "2001:db9::5", 0, HBA_REJECT},
    /* an IPv4 client of an IPv6 listener */
    {"host all all 127.0.0.1/32 md5\n", "ann", "app", "::ffff:127.0.0.1", 1, HBA_MD5},
    {"host all all ::/0 md5\n", "ann", "app", "::ffff:127.0.0.1", 0, HBA_REJECT},
    {"host all all all reject\n", "ann", "app", "::1", 1, HBA_REJECT},
    {"host all all samehost trust\n", "ann", "app", "127.0.0.1", 1, HBA_TRUST},
    {"host all all samehost trust\n", "ann", "app", "203.0.113.77", 0, HBA_REJECT},
    {"host all all samenet trust\n", "ann", "app", "127.3.2.1", 1, HBA_TRUST},
    /* types */
    {"hostssl all all all trust\n", "ann", "app", "127.0.0.1", 0, HBA_REJECT},
    {"hostssl all all all cert\n", "ann", "app", "s:127.0.0.1", 1, HBA_CERT},
    {"hostnossl all all all trust\n", "ann", "app", "s:127.0.0.1", 0, HBA_REJECT},
    {"hostnossl all all all trust\n", "ann", "app", "127.0.0.1", 1, HBA_TRUST},
    {"host all all all trust\n", "ann", "app", "s:127.0.0.1", 1, HBA_TRUST},
    {"hostnogssenc all all all trust\n", "ann", "app", "s:127.0.0.1", 1, HBA_TRUST},
    /* the first that fits counts, comments and empty lines are lines */
    {"# nothing\n\nlocal app ann reject # no\nlocal all all trust\n", "ann", "app", "local", 3,
     HBA_REJECT},
    {"# nothing\n\nlocal app ann reject # no\nlocal all all trust\n", "bob", "app", "local", 4,
     HBA_TRUST},
    {"\tlocal\tall\tall\ttrust", "ann", "app", "local", 1, HBA_TRUST},
    {"local all all trust\r\n", "ann", "app", "local", 1, HBA_TRUST},
    {"local \\\nall\\\n all trust\nlocal all all reject", "ann", "app", "local", 1, HBA_TRUST},
    {"local app \\\r\nann trust\nlocal all all reject", "bob", "app", "local", 3, HBA_REJECT},
    /* names */
    {"local a,b,app ann,bob trust\n", "bob", "app", "local", 1, HBA_TRUST},
    {"local a, b,  app ann,bob trust\n", "bob", "app", "local", 1, HBA_TRUST},
    {"local a,b,app ann,bob trust\n", "eve", "app", "local", 0, HBA_REJECT},
    {"local a,b,app ann,bob trust\n", "bob", "c", "local", 0, HBA_REJECT},
    {"local \"all\" all trust\n", "ann", "app", "local", 0, HBA_REJECT},
    {"local \"all\" all trust\n", "ann", "all", "local", 1, HBA_TRUST},
    {"local \"a b\",\"c,d#\" all trust\n", "ann", "c,d#", "local", 1, HBA_TRUST},
    {"local \"a\"\"b\" all trust\n", "ann", "a\"b", "local", 1, HBA_TRUST},
    {"local all \"+ann\" trust\n", "+ann", "app", "local", 1, HBA_TRUST},
    {"local sameuser all trust\n", "ann", "ann", "local", 1, HBA_TRUST},
    {"local sameuser all trust\n", "ann", "app", "local", 0, HBA_REJECT},
    {"local all ALL trust\n", "ann", "app", "local", 0, HBA_REJECT},
    /* regular expressions */
    {"local all /^a.*n$ trust\n", "ann", "app", "local", 1, HBA_TRUST},
    {"local all /^a.*n$ trust\n", "anne", "app", "local", 0, HBA_REJECT},
    {"local all bob,/n trust\n", "ann", "app", "local", 1, HBA_TRUST},
    {"local \"/^(app|ab{2,3})$\" all trust\n", "ann", "abb", "local", 1, HBA_TRUST},
    {"local \"/^(app|ab{2,3})$\" all trust\n", "ann", "ab", "local", 0, HBA_REJECT},
    {"local /. all trust\n", "ann", NULL, "local", 0, HBA_REJECT},
    {"local all /^\\d+$ trust\n", "42", "app", "local", 1, HBA_TRUST},
    {"local all /^\\d+$ trust\n", "4a", "app", "local", 0, HBA_REJECT},
    {"local all /^[\\d_]+\\D$ trust\n", "4_2a", "app", "local", 1, HBA_TRUST},
    {"local all /^\\w+\\.\\w+$ trust\n", "a.b", "app", "local", 1, HBA_TRUST},
    {"local all \"/\\Aa\\sb$\" trust\n", "a b", "app", "local", 1, HBA_TRUST},
    {"local all /^[[:alpha:][:digit:]-]+$ trust\n", "a-1", "app", "local", 1, HBA_TRUST},
    {"local all /^[]^]+$ trust\n", "]^", "app", "local", 1, HBA_TRUST},
    {"local all /^(?:ab)+?$ trust\n", "abab", "app", "local", 1, HBA_TRUST},
    {"local all /^(a)(b)\\2\\1$ trust\n", "abba", "app", "local", 1, HBA_TRUST},
    {"local all /^(?!root)(?=\\w) trust\n", "ann", "app", "local", 1, HBA_TRUST},
    {"local all /^(?!root)(?=\\w) trust\n", "root", "app", "local", 0, HBA_REJECT},
    {"local all /(?<=n)n$ trust\n", "ann", "app", "local", 1, HBA_TRUST},
    {"local all \"/^a{2,}\\{$\" trust\n", "aa{", "app", "local", 1, HBA_TRUST},
    {"local all /^a.b$ trust\n", "a\nb", "app", "local", 1, HBA_TRUST},
    {"local all /^a$ trust\n", "a\n", "app", "local", 0, HBA_REJECT},
    {"local all /^a$ trust\n", "b\na", "app", "local", 0, HBA_REJECT},
    {"local all /^A$ trust\n", "a", "app", "local", 0, HBA_REJECT},
    /* bytes, whatever they are: none can slip past a rule */
    {"local all /^evil.*$ reject\n", "evil\xff\xc3", "app", "local", 1, HBA_REJECT},
    {"local all /^b\xc3\xb6\\w*$ trust\n", "b\xc3\xb6se", "app", "local", 1, HBA_TRUST},
    {"local all /^(?:\xc3\xb6)+$ trust\n", "\xc3\xb6\xc3\xb6", "app", "local", 1, HBA_TRUST},
    {"local all all ident map=m\n", "ann", "app", "local", 1, HBA_PEER},
    /* physical replication has no database */
    {"local all all trust\n", "ann", NULL, "local", 0, HBA_REJECT},
    {"local sameuser all trust\n", "ann", NULL, "local", 0, HBA_REJECT},
    {"local replication all trust\n", "ann", NULL, "local", 1, HBA_TRUST},
    {"local replication all trust\n", "ann", "replication", "local", 0, HBA_REJECT},
    {"local \"replication\" all trust\n", "ann", "replication", "local", 1, HBA_TRUST},
    {"local \"replication\" all trust\n", "ann", NULL, "local", 0, HBA_REJECT},
};

/* What takes too long is refused, whatever the rule or those behind it say. */
static void test_too_long(void **state)
{
    static const char *const files[] = {
        "local all /^(a+)+$ reject\nlocal all all trust\n",
        "local all bob,/^(a|a)*[bc]$,/^a trust\nlocal all all trust\n",
        "local /^(a*)*[bc] all trust\nlocal all all trust\n",
    };
    char name[400];
    (void)state;
    memset(name, 'a', sizeof name);
    name[sizeof name - 2] = '!';
    name[sizeof name - 1] = '\0';
    const struct hba_visitor visitor = {.user = name, .database = name};
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        struct arena arena;
        char error[1024];
        enum hba_doubt doubt;
        arena_init(&arena);
        struct hba *hba = hba_parse(&arena, "hba", files[i], strlen(files[i]), error, sizeof error);
        assert_non_null(hba);
        const struct hba_rule *rule = hba_match(hba, &visitor, &doubt);
        assert_int_equal(doubt, HBA_TOO_LONG);
        assert_int_equal(rule->line, 1);
        arena_free(&arena);
    }
}

static const struct {
    const char *text, *user, *database, *roles;
    int line;
} roles[] = {
    {"local all +staff trust\n", "ann", "app", ",616e6e,7374616666,", 1},
    {"local all +staff trust\n", "ann", "app", ",7374616666,616e6e,", 1},
    {"local all +staff trust\n", "ann", "app", ",616e6e,", 0},
    {"local all +staff trust\n", "ann", "app", "", 0},
    {"local all +staff trust\n", "ann", "app", ",73746166,", 0},
    {"local all +staff trust\n", "ann", "app", ",737461666666,", 0},
    {"local all + trust\n", "ann", "app", ",616e6e,", 0},
    {"local all + trust\n", "ann", "app", "", 0},
    {"local all bob,+staff reject\nlocal all all trust\n", "ann", "app", ",7374616666,", 1},
    {"local all bob,+staff reject\nlocal all all trust\n", "ann", "app", ",616e6e,", 2},
    {"local samerole all trust\n", "ann", "staff", ",7374616666,", 1},
    {"local samegroup all trust\n", "ann", "staff", ",7374616666,", 1},
    {"local samerole all trust\n", "ann", "app", ",7374616666,", 0},
    {"local \"samerole\" all trust\n", "ann", "samerole", NULL, 1},
    {"local all samerole trust\n", "samerole", "app", NULL, 1},
    {"local replication +staff trust\n", "ann", NULL, ",7374616666,", 1},
    {"local all +\xc3\xb6 trust\n", "ann", "app", ",c3b6,", 1},
    /* whom it does not concern */
    {"local all ann,+staff trust\n", "ann", "app", NULL, 1},
    {"local web +staff reject\nlocal all all trust\n", "ann", "app", NULL, 2},
    {"host all +staff all reject\nlocal all all trust\n", "ann", "app", NULL, 2},
};

static void test_roles(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof roles / sizeof roles[0]; i++) {
        struct arena arena;
        char error[1024];
        enum hba_doubt doubt;
        arena_init(&arena);
        struct hba *hba =
            hba_parse(&arena, "hba", roles[i].text, strlen(roles[i].text), error, sizeof error);
        assert_non_null(hba);
        struct hba_visitor visitor = {.user = roles[i].user,
                                      .database = roles[i].database,
                                      .replication = !roles[i].database,
                                      .roles = roles[i].roles};
        const struct hba_rule *rule = hba_match(hba, &visitor, &doubt);
        assert_int_equal(doubt, HBA_SURE);
        if ((rule ? rule->line : 0) != roles[i].line)
            fail_msg("case %zu: %s", i, roles[i].text);
        visitor.roles = NULL;
        hba_match(hba, &visitor, &doubt);
        assert_int_equal(doubt, roles[i].roles ? HBA_NEEDS_ROLES : HBA_SURE);
        arena_free(&arena);
    }
}

static const struct {
    const char *rule, *host;
    bool fits;
} hosts[] = {
    {"db.example.com", "db.example.com", true},
    {"db.example.com", "DB.Example.COM", true},
    {"db.example.com", "xdb.example.com", false},
    {"db.example.com", "db.example.co", false},
    {"db.example.com", "", false},
    {".example.com", "db.example.com", true},
    {".example.com", "a.db.example.com", true},
    {".example.com", "example.com", false},
    {".example.com", ".example.com", false},
    {".example.com", "badexample.com", false},
    {"\"all\"", "all", true},
};

static void test_hosts(void **state)
{
    const struct sockaddr_in four = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x0a000001)};
    (void)state;
    for (size_t i = 0; i < sizeof hosts / sizeof hosts[0]; i++) {
        struct arena arena;
        char error[1024], text[200];
        enum hba_doubt doubt;
        arena_init(&arena);
        snprintf(text, sizeof text, "host app ann %s trust\n", hosts[i].rule);
        struct hba *hba = hba_parse(&arena, "hba", text, strlen(text), error, sizeof error);
        assert_non_null(hba);
        struct hba_visitor visitor = {.user = "ann", .database = "app"};
        assert_null(hba_match(hba, &visitor, &doubt)); /* local */
        assert_int_equal(doubt, HBA_SURE);
        visitor.address = (const struct sockaddr *)&four;
        assert_non_null(hba_match(hba, &visitor, &doubt));
        assert_int_equal(doubt, HBA_NEEDS_HOST);
        visitor.host = hosts[i].host;
        assert_int_equal(hba_match(hba, &visitor, &doubt) != NULL, hosts[i].fits);
        assert_int_equal(doubt, HBA_SURE);
        visitor.host = NULL;
        visitor.user = "bob"; /* no look-up for those whom the rule does not concern */
        assert_null(hba_match(hba, &visitor, &doubt));
        assert_int_equal(doubt, HBA_SURE);
        arena_free(&arena);
    }
}

static void test_a_long_pattern(void **state)
{
    struct arena arena;
    char error[1024], text[1200];
    (void)state;
    arena_init(&arena);
    snprintf(text, sizeof text, "local all /%01001d trust\n", 0);
    assert_null(hba_parse(&arena, "hba", text, strlen(text), error, sizeof error));
    assert_non_null(strstr(error, "pattern string is longer than the limit"));
    snprintf(text, sizeof text, "local all /%01000d trust\n", 0);
    assert_non_null(hba_parse(&arena, "hba", text, strlen(text), error, sizeof error));
    arena_free(&arena);
}

static void test_matches(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof matches / sizeof matches[0]; i++) {
        const struct match_case *one = &matches[i];
        struct arena arena;
        char error[1024];
        arena_init(&arena);
        struct hba *hba =
            hba_parse(&arena, "hba", one->text, strlen(one->text), error, sizeof error);
        if (!hba)
            fail_msg("%s: %s", one->text, error);
        const struct hba_rule *rule = match(hba, one->user, one->database, one->from);
        if ((rule ? rule->line : 0) != one->line)
            fail_msg("%sfrom %s: line %d fits", one->text, one->from, rule ? rule->line : 0);
        if (rule)
            assert_int_equal(rule->method, one->method);
        arena_free(&arena);
    }
}

static const struct {
    const char *text, *error;
} refused[] = {
    {"", "hba:1: found no rules; allowed: at least one, since without any nobody could connect"},
    {"# all\n\n", "hba:1: found no rules; allowed: at least one, since without any nobody could "
                  "connect"},
    {"locl all all trust\n",
     "hba:1: found type \"locl\"; allowed: local, host, hostssl, hostnossl, "
     "hostnogssenc"},
    {"\"local\" all all trust\n", "hba:1: found type \"local\"; allowed: local, host, hostssl, "
                                  "hostnossl, hostnogssenc"},
    {"\nhostgssenc all all all trust\n",
     "hba:2: found hostgssenc, but pgshunt has no GSS encryption; "
     "allowed: local, host, hostssl, hostnossl, hostnogssenc"},
    {"local,host all all trust\n",
     "hba:1: found several values for a type, beginning with \"local\"; "
     "allowed: one"},
    {"local\n", "hba:1: found the end of the line before a database; allowed: TYPE DATABASE USER "
                "ADDRESS METHOD (no ADDRESS with local)"},
    {"local all\n", "hba:1: found the end of the line before a user; allowed: TYPE DATABASE USER "
                    "ADDRESS METHOD (no ADDRESS with local)"},
    {"host all all\n", "hba:1: found the end of the line before an address; allowed: TYPE DATABASE "
                       "USER ADDRESS METHOD (no ADDRESS with local)"},
    {"local all all # trust\n", "hba:1: found the end of the line before a method; allowed: TYPE "
                                "DATABASE USER ADDRESS METHOD (no ADDRESS with local)"},
    {"local +staff all trust\n",
     "hba:1: found database \"+staff\"; allowed: names, all, sameuser, samerole, "
     "replication, /PATTERN, @FILE"},
    {"local all /^(a trust\n",
     "hba:1: found a user \"/^(a\" (unmatched (); allowed: a regular expression"},
    {"local all /a) trust\n",
     "hba:1: found a user \"/a)\" (unmatched )); allowed: a regular expression"},
    {"local all /[a trust\n",
     "hba:1: found a user \"/[a\" (unmatched [); allowed: a regular expression"},
    {"local all /\\ya trust\n",
     "hba:1: found a user \"/\\ya\" (\\y is not supported); allowed: a regular expression"},
    {"local all /a\\b trust\n",
     "hba:1: found a user \"/a\\b\" (\\b is not supported); allowed: a regular expression"},
    {"local all /a\\Z trust\n",
     "hba:1: found a user \"/a\\Z\" (\\Z is not supported); allowed: a regular expression"},
    {"local all /[\\b] trust\n",
     "hba:1: found a user \"/[\\b]\" (\\b is not supported); allowed: a regular expression"},
    {"local all /\\x41 trust\n",
     "hba:1: found a user \"/\\x41\" (\\x is not supported); allowed: a regular expression"},
    {"local all /\\Qa trust\n",
     "hba:1: found a user \"/\\Qa\" (\\Q is not supported); allowed: a regular expression"},
    {"local all /a\\ trust\n",
     "hba:1: found a user \"/a\\\" (\\ at the end of the pattern); allowed: a regular expression"},
    {"local all /\\1(a) trust\n",
     "hba:1: found a user \"/\\1(a)\" (\\1 has no group before it); allowed: a regular expression"},
    {"local all /(a\\1) trust\n",
     "hba:1: found a user \"/(a\\1)\" (\\1 has no group before it); allowed: a regular expression"},
    {"local all /(a)\\10 trust\n", "hba:1: found a user \"/(a)\\10\" (\\1 has no group before it); "
                                   "allowed: a regular expression"},
    {"local all /(?i)a trust\n",
     "hba:1: found a user \"/(?i)a\" ((?i is not supported); allowed: a regular expression"},
    {"local all /(?P<x>a) trust\n",
     "hba:1: found a user \"/(?P<x>a)\" ((?P is not supported); allowed: a regular expression"},
    {"local all /(?<x>a) trust\n",
     "hba:1: found a user \"/(?<x>a)\" ((?< is not supported); allowed: a regular expression"},
    {"local all /(?>a) trust\n",
     "hba:1: found a user \"/(?>a)\" ((?> is not supported); allowed: a regular expression"},
    {"local all /(?=(a)) trust\n", "hba:1: found a user \"/(?=(a))\" (a group in a lookaround must "
                                   "be (?:...)); allowed: a regular expression"},
    {"local all /(*ACCEPT) trust\n",
     "hba:1: found a user \"/(*ACCEPT)\" (* repeats nothing); allowed: a regular expression"},
    {"local all /***=a trust\n",
     "hba:1: found a user \"/***=a\" (* repeats nothing); allowed: a regular expression"},
    {"local all /a++ trust\n",
     "hba:1: found a user \"/a++\" (+ repeats nothing); allowed: a regular expression"},
    {"local all /a** trust\n",
     "hba:1: found a user \"/a**\" (* repeats nothing); allowed: a regular expression"},
    {"local all /a+?+ trust\n",
     "hba:1: found a user \"/a+?+\" (+ repeats nothing); allowed: a regular expression"},
    {"local all /^*a trust\n",
     "hba:1: found a user \"/^*a\" (* repeats nothing); allowed: a regular expression"},
    {"local all /a|+ trust\n",
     "hba:1: found a user \"/a|+\" (+ repeats nothing); allowed: a regular expression"},
    {"local all /(?=a){2} trust\n",
     "hba:1: found a user \"/(?=a){2}\" ({ repeats nothing); allowed: a regular expression"},
    {"local all \"/a{,5}\" trust\n",
     "hba:1: found a user \"/a{,5}\" ({ begins no {m}, {m,} or {m,n}; write \\{ for a brace); "
     "allowed: a regular expression"},
    {"local all /a{b trust\n", "hba:1: found a user \"/a{b\" ({ begins no {m}, {m,} or {m,n}; "
                               "write \\{ for a brace); allowed: a regular expression"},
    {"local all /a{2 trust\n", "hba:1: found a user \"/a{2\" ({ begins no {m}, {m,} or {m,n}; "
                               "write \\{ for a brace); allowed: a regular expression"},
    {"local all /a{256} trust\n", "hba:1: found a user \"/a{256}\" ({} takes 0 to 255, the smaller "
                                  "one first); allowed: a regular expression"},
    {"local all \"/a{3,2}\" trust\n", "hba:1: found a user \"/a{3,2}\" ({} takes 0 to 255, the "
                                      "smaller one first); allowed: a regular expression"},
    {"local all /a{99999999999999999999} trust\n",
     "hba:1: found a user \"/a{99999999999999999999}\" ({} takes 0 to 255, the smaller one first); "
     "allowed: a regular expression"},
    {"local all /[[:ascii:]] trust\n", "hba:1: found a user \"/[[:ascii:]]\" ([: in brackets "
                                       "begins no class); allowed: a regular expression"},
    {"local all /[[:^alpha:]] trust\n", "hba:1: found a user \"/[[:^alpha:]]\" ([: in brackets "
                                        "begins no class); allowed: a regular expression"},
    {"local all /[[.a.]] trust\n", "hba:1: found a user \"/[[.a.]]\" ([. in brackets begins no "
                                   "class); allowed: a regular expression"},
    {"local all /[[=a=]] trust\n", "hba:1: found a user \"/[[=a=]]\" ([= in brackets begins no "
                                   "class); allowed: a regular expression"},
    {"local all /[\xc3\xb6] trust\n",
     "hba:1: found a user \"/[\xc3\xb6]\" (brackets hold single bytes, and this letter has "
     "several); allowed: a regular expression"},
    {"local all /\xc3\xb6+ trust\n",
     "hba:1: found a user \"/\xc3\xb6+\" (+ repeats a single byte; write (?:...) around the "
     "letter); allowed: a regular expression"},
    {"local all /[z-a] trust\n", "hba:1: found a user \"/[z-a]\" (range out of order in character "
                                 "class); allowed: a regular expression"},
    {"local all /(?<=a+)b trust\n", "hba:1: found a user \"/(?<=a+)b\" (lookbehind assertion is "
                                    "not fixed length); allowed: a regular expression"},
    {"local all /(((a{255}){255}){255}){255} trust\n",
     "hba:1: found a user \"/(((a{255}){255}){255}){255}\" (regular expression is too large); "
     "allowed: a regular expression"},
    {"local all /(((((((((((((((((((((((((((((((((a trust\n",
     "hba:1: found a user \"/(((((((((((((((((((((((((((((((((a\" (it has too many nested groups); "
     "allowed: a regular expression"},
    {"local /+ all trust\n",
     "hba:1: found a database \"/+\" (+ repeats nothing); allowed: a regular expression"},
    {"local all all md5 map=x\n", "hba:1: found map with method md5; allowed: with cert and peer"},
    {"local all all peer map=\n", "hba:1: found map without a name; allowed: map=NAME"},
    {"host all all db,example trust\n",
     "hba:1: found several values for an address, beginning with \"db\"; allowed: one"},
    {"host all all db!example trust\n",
     "hba:1: found address \"db!example\"; allowed: all, samehost, samenet, an IP address "
     "with its mask (10.0.0.0/8), a host's name, .example.com"},
    {"host all all 10.0.0.256 trust\n",
     "hba:1: found address \"10.0.0.256\"; allowed: all, samehost, samenet, an IP address "
     "with its mask (10.0.0.0/8), a host's name, .example.com"},
    {"host all all db.example.com/24 trust\n",
     "hba:1: found address \"db.example.com/24\"; allowed: an IP address before the slash"},
    {"host all all 10.0.0.1 trust\n",
     "hba:1: found \"trust\" behind address 10.0.0.1; allowed: its "
     "mask, or 10.0.0.1/32"},
    {"host all all ::1\n",
     "hba:1: found the end of the line before the mask; allowed: TYPE DATABASE "
     "USER ADDRESS METHOD (no ADDRESS with local)"},
    {"host all all 10.0.0.0/33 trust\n", "hba:1: found address \"10.0.0.0/33\"; allowed: 0 to 32 "
                                         "behind the slash"},
    {"host all all 10.0.0.0/ trust\n",
     "hba:1: found address \"10.0.0.0/\"; allowed: 0 to 32 behind "
     "the slash"},
    {"host all all 10.0.0.0/+8 trust\n", "hba:1: found address \"10.0.0.0/+8\"; allowed: 0 to 32 "
                                         "behind the slash"},
    {"host all all 10.0.0/8 trust\n", "hba:1: found address \"10.0.0/8\"; allowed: an IP address "
                                      "before the slash"},
    {"host all all 10.0.0.0 255.0.255.0 trust\n",
     "hba:1: found mask \"255.0.255.0\"; allowed: ones, "
     "then zeros"},
    {"host all all 10.0.0.0 ffff:: trust\n", "hba:1: found \"ffff::\" behind address 10.0.0.0; "
                                             "allowed: its mask, or 10.0.0.0/32"},
    {"host all all all peer\n", "hba:1: found method peer on a line that is not local; allowed: "
                                "local ... peer"},
    {"host all all all ident\n", "hba:1: found method ident on a line that is not local; allowed: "
                                 "local ... peer"},
    {"local all all pam\n", "hba:1: found method \"pam\"; allowed: trust, reject, password, md5, "
                            "scram-sha-256, cert, peer"},
    {"host all all all cert\n", "hba:1: found method cert on a line that is not hostssl; allowed: "
                                "hostssl ... cert"},
    {"hostssl all all all md5 mop=x\n",
     "hba:1: found option \"mop=x\"; allowed: clientcert=verify-ca, "
     "clientcert=verify-full, map=NAME"},
    {"hostssl all all all md5 clientcert=1\n",
     "hba:1: found option \"clientcert=1\"; allowed: "
     "clientcert=verify-ca, clientcert=verify-full, map=NAME"},
    {"host all all all md5 clientcert=verify-ca\n", "hba:1: found clientcert on a line that is not "
                                                    "hostssl; allowed: hostssl ... "
                                                    "clientcert=verify-full"},
    {"hostssl all all all cert clientcert=verify-ca\n",
     "hba:1: found clientcert=verify-ca with method "
     "cert, which proves the user anyway; allowed: "
     "clientcert=verify-full, or none"},
    {"local \"all all trust\nlocal all all trust\n",
     "hba:1: found a quote that never ends; allowed: "
     "\"...\" on one line"},
    {"include_dir x\n", "hba:1: found include_dir, which is not supported; allowed: include FILE"},
    {"include\n", "hba:1: found include without a file; allowed: include FILE"},
    {"include /nonexistent/x\n", "hba:1: found include of /nonexistent/x (No such file or "
                                 "directory); allowed: a readable file"},
    {"local all @/nonexistent/x trust\n",
     "hba:1: found @/nonexistent/x (No such file or directory); "
     "allowed: a readable file of names"},
};

static void test_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        struct arena arena;
        char error[1024];
        arena_init(&arena);
        assert_null(hba_parse(&arena, "hba", refused[i].text, strlen(refused[i].text), error,
                              sizeof error));
        assert_string_equal(error, refused[i].error);
        arena_free(&arena);
    }
}

static void test_certificates(void **state)
{
    static const char text[] =
        "host all all all md5\nhostssl all all all md5 clientcert=verify-ca\n"
        "hostssl all all all cert clientcert=verify-full\n";
    struct arena arena;
    char error[1024];
    (void)state;
    arena_init(&arena);
    struct hba *hba = hba_parse(&arena, "hba", text, sizeof text - 1, error, sizeof error);
    assert_non_null(hba);
    assert_int_equal(hba_wants_certificates(hba)->line, 2);
    assert_int_equal(hba_wants_certificates(hba)->clientcert, HBA_CLIENTCERT_VERIFY_CA);
    hba = hba_parse(&arena, "hba", text, 21, error, sizeof error);
    assert_null(hba_wants_certificates(hba));
    hba = hba_parse(&arena, "hba", "hostssl all all all cert", 24, error, sizeof error);
    assert_int_equal(hba_wants_certificates(hba)->line, 1);
    arena_free(&arena);
}

static void test_nul(void **state)
{
    struct arena arena;
    char error[1024];
    (void)state;
    arena_init(&arena);
    assert_null(hba_parse(&arena, "hba", "local\0all all trust\n", 20, error, sizeof error));
    assert_string_equal(error, "hba:1: found a NUL byte; allowed: text");
    arena_free(&arena);
}

/* ---- files ---- */

static char folder[] = "/tmp/test_hba.XXXXXX";

static const char *path_of(const char *name)
{
    static char path[100];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static void write_file(const char *name, const char *text)
{
    FILE *file = fopen(path_of(name), "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static struct hba *load(struct arena *arena, char error[1024])
{
    arena_init(arena);
    return hba_load(arena, path_of("hba"), error, 1024);
}

static void test_files(void **state)
{
    struct arena arena;
    char error[1024];
    (void)state;
    write_file("hba", "local @bases @people trust\ninclude more\ninclude_if_exists none\n"
                      "local all all reject\n");
    write_file("bases", "a\nb # comment\n\"all\"");
    write_file("people", "ann, bob\n@others\n");
    write_file("others", "carl");
    write_file("more", "\nlocal all dora md5\n");
    struct hba *hba = load(&arena, error);
    if (!hba)
        fail_msg("%s", error);
    assert_int_equal(match(hba, "ann", "a", "local")->method, HBA_TRUST);
    assert_int_equal(match(hba, "carl", "all", "local")->method, HBA_TRUST);
    assert_int_equal(match(hba, "carl", "c", "local")->method, HBA_REJECT);
    assert_int_equal(match(hba, "carl", "c", "local")->line, 4);
    assert_int_equal(match(hba, "dora", "c", "local")->line, 2);
    assert_non_null(strstr(match(hba, "dora", "c", "local")->file, "/more"));
    arena_free(&arena);
}

static void test_broken_files(void **state)
{
    struct arena arena;
    char error[1024];
    (void)state;
    write_file("hba", "include more\nlocal all all reject\n");
    write_file("more", "\nlocal all dora nothing\n");
    assert_null(load(&arena, error));
    assert_non_null(strstr(error, "/more:2: found method \"nothing\""));
    arena_free(&arena);
    write_file("more", "include hba\n"); /* for ever */
    assert_null(load(&arena, error));
    assert_non_null(strstr(error, "nested more than 10 deep"));
    arena_free(&arena);
    write_file("hba", "local all @people trust\n");
    write_file("people", "@people\n");
    assert_null(load(&arena, error));
    assert_non_null(strstr(error, "Too many levels"));
    arena_free(&arena);
    write_file("people", "\"x\n");
    assert_null(load(&arena, error));
    assert_non_null(strstr(error, "/people:1: found a quote that never ends"));
    arena_free(&arena);
    write_file("people", ""); /* nobody */
    struct hba *hba = load(&arena, error);
    assert_non_null(hba);
    assert_null(match(hba, "ann", "a", "local"));
    arena_free(&arena);
    unlink(path_of("hba"));
    assert_null(load(&arena, error));
    assert_non_null(strstr(error, "No such file"));
    arena_free(&arena);
}

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    static const char *const names[] = {"hba", "bases", "people", "others", "more"};
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        unlink(path_of(names[i]));
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_too_long),     cmocka_unit_test(test_roles),
        cmocka_unit_test(test_hosts),        cmocka_unit_test(test_a_long_pattern),
        cmocka_unit_test(test_matches),      cmocka_unit_test(test_refused),
        cmocka_unit_test(test_certificates), cmocka_unit_test(test_nul),
        cmocka_unit_test(test_files),        cmocka_unit_test(test_broken_files),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
