/* test_failover.c: what a failover makes of the facts: tables of cases, and the texts it takes apart. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "failover/conninfo.h"
#include "failover/facts.h"

/* Nodes are what is good, but for what a case says. */
#ifdef __clang__
#pragma clang diagnostic ignored "-Winitializer-overrides"
#else
#pragma GCC diagnostic ignored "-Woverride-init"
#endif

#define COUNT(rows) (sizeof(rows) / sizeof(rows)[0])

/* ---- primary_conninfo ---- */

static void test_redirect(void **state)
{
    static const struct {
        const char *from, *to;
    } cases[] = {
        {"", "host='db2' port='5433'"},
        {"host=db1 port=5432 user=rep password='it''s'", NULL},
        {"host=db1 port=5432 user=rep application_name=a", "host='db2' port='5433' user='rep' "
                                                           "application_name='a'"},
        {"host=db1 hostaddr=10.0.0.1 user=rep", "host='db2' port='5433' user='rep'"},
        {"host=db1 password='a\\'b\\\\c d'", "host='db2' port='5433' password='a\\'b\\\\c d'"},
        {"postgresql://rep@db1:5432/?sslmode=require", "host='db2' port='5433' user='rep' "
                                                       "sslmode='require'"},
        {"nonsense", NULL},
        {"host=", "host='db2' port='5433'"},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct arena arena;
        arena_init(&arena);
        const char *to = conninfo_redirect(&arena, cases[i].from, "db2", 5433);
        if (!cases[i].to && !to) {
            arena_free(&arena);
            continue;
        }
        if (!to || !cases[i].to)
            fail_msg("%s: %s", cases[i].from, to ? to : "not understood");
        /* What it makes leads there, and keeps the rest. libpq's own order may differ: compare as sets. */
        assert_true(conninfo_leads_to(to, "db2", 5433));
        assert_int_equal(strlen(to), strlen(cases[i].to));
        arena_free(&arena);
    }
    assert_false(conninfo_leads_to("host=db1 port=5433", "db2", 5433));
    assert_true(conninfo_leads_to("host=db1", "db1", 5432));
    assert_false(conninfo_leads_to("nonsense", "db1", 5432));
}

/* ---- synchronous_standby_names ---- */

static void test_sync_names(void **state)
{
    static const struct {
        const char *text;
        int needed, count;
        bool any, all, bad;
        const char *has, *has_not;
    } cases[] = {
        {"", 0, 0, false, false, false, NULL, "a"},
        {"  ", 0, 0, false, false, false, NULL, "a"},
        {"a", 1, 1, false, false, false, "A", "b"},
        {"a, b ,c", 1, 3, false, false, false, "c", "d"},
        {"2 (a, b, c)", 2, 3, false, false, false, "b", "2"},
        {"FIRST 2 (a, b)", 2, 2, false, false, false, "a", "first"},
        {"any 1(a,b)", 1, 2, true, false, false, "b", "any"},
        {"ANY 1 (*)", 1, 1, true, true, false, "whoever", NULL},
        {"*", 1, 1, false, true, false, "whoever", NULL},
        {"\"a b\", \"c\"\"d\"", 1, 2, false, false, false, "c\"d", "a"},
        {"first", 1, 1, false, false, false, "first", "a"},
        {"a,", 0, 0, false, false, true, NULL, NULL},
        {"ANY 1 (a", 0, 0, false, false, true, NULL, NULL},
        {"ANY x (a)", 0, 0, false, false, true, NULL, NULL},
        {"a b", 0, 0, false, false, true, NULL, NULL},
        {"\"a", 0, 0, false, false, true, NULL, NULL},
        {"2 (a) b", 0, 0, false, false, true, NULL, NULL},
        {"(", 0, 0, false, false, true, NULL, NULL},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct arena arena;
        arena_init(&arena);
        struct sync_names names = sync_names_parse(&arena, cases[i].text);
        if (names.bad != cases[i].bad)
            fail_msg("%s: bad is %d", cases[i].text, names.bad);
        if (!names.bad) {
            assert_int_equal(names.needed, cases[i].needed);
            assert_int_equal(names.count, cases[i].count);
            assert_int_equal(names.any, cases[i].any);
            assert_int_equal(names.all, cases[i].all);
        }
        if (cases[i].has && !sync_names_has(&names, cases[i].has))
            fail_msg("%s has %s", cases[i].text, cases[i].has);
        if (cases[i].has_not && sync_names_has(&names, cases[i].has_not))
            fail_msg("%s has not %s", cases[i].text, cases[i].has_not);
        arena_free(&arena);
    }
}

/* ---- the judgement ---- */

/* A node in a few words, with what is good as the default. */
#define NODE(port_, ...)                                                                           \
    {                                                                                              \
        .host = "db", .port = port_, .name = "db:" #port_, .reachable = true, .why = "gone",       \
        .version = 150000, .system_id = 7, .timeline = 1, .upstream = "db:1", .conninfo = "",      \
        .slot = "", .application = "app" #port_, .sync_names = "", .data_directory = "",           \
        .may_see = true, .may_promote = true, .may_alter = true, .may_signal = true, __VA_ARGS__   \
    }
#define PRIMARY(port_, ...) NODE(port_, .position = 1000, __VA_ARGS__)
#define REPLICA(port_, ...)                                                                        \
    NODE(port_, .in_recovery = true, .streaming = true, .position = 900, .replayed = 900,          \
         __VA_ARGS__)
#define DEAD(port_, ...) NODE(port_, .reachable = false, __VA_ARGS__)

struct judged {
    const char *what;
    struct node_facts nodes[4];
    struct wishes wishes;
    struct primary_facts of_primary;
    struct proxy_facts proxy;
    enum verdict_kind kind;
    int candidate;        /* port; 0: none */
    const char *obstacle; /* part of one's text; NULL: there is none */
    const char *note;     /* part of a note's text */
};

#define SEEN(position_) .proxy = {.position = position_, .seen_ms_ago = 100, .up = "down"}

static const struct judged judged[] = {
    {"the one with most",
     {PRIMARY(1), REPLICA(2), REPLICA(3, .position = 950)},
     {.force = false},
     .kind = VERDICT_SWITCH,
     .candidate = 3},
    {"a synchronous one, though it has less",
     {PRIMARY(1), REPLICA(2), REPLICA(3, .position = 950)},
     .of_primary = {.sync = (const char *[]){"app2"}, .nsync = 1},
     .kind = VERDICT_SWITCH,
     .candidate = 2},
    {"the one that is named",
     {PRIMARY(1), REPLICA(2), REPLICA(3, .position = 950)},
     {.to = {"db", 2}},
     .kind = VERDICT_SWITCH,
     .candidate = 2},
    {"not one that does not stream",
     {PRIMARY(1), REPLICA(2), REPLICA(3, .position = 950, .streaming = false)},
     .kind = VERDICT_SWITCH,
     .candidate = 2},
    {"nor one of another cluster",
     {PRIMARY(1), REPLICA(2), REPLICA(3, .position = 950, .system_id = 8)},
     .kind = VERDICT_SWITCH,
     .candidate = 2},
    {"no replica", {PRIMARY(1)}, .obstacle = "no replica that could be promoted"},
    {"named, and no node", {PRIMARY(1), REPLICA(2)}, {.to = {"db", 9}}, .obstacle = "is no node"},
    {"named, and dead",
     {PRIMARY(1), DEAD(2), REPLICA(3)},
     {.to = {"db", 2}},
     .candidate = 2,
     .obstacle = "does not answer: gone"},
    {"paused", {PRIMARY(1), REPLICA(2, .paused = true)}, .obstacle = "is paused"},
    {"delayed", {PRIMARY(1), REPLICA(2, .apply_delay_ms = 5)}, .obstacle = "with a delay"},
    {"another timeline",
     {PRIMARY(1, .timeline = 3), REPLICA(2, .timeline = 2), REPLICA(3, .timeline = 3)},
     {.to = {"db", 2}},
     .candidate = 2,
     .obstacle = "on timeline 2"},
    {"no right to promote",
     {PRIMARY(1), REPLICA(2, .may_promote = false)},
     .candidate = 2,
     .obstacle = "no right to promote"},
    {"no right to fence",
     {PRIMARY(1, .may_alter = false), REPLICA(2)},
     .candidate = 2,
     .obstacle = "no right to make"},
    {"no right to look",
     {PRIMARY(1), REPLICA(2, .may_see = false)},
     .candidate = 2,
     .obstacle = "no right to see"},
    {"a manager",
     {PRIMARY(1), REPLICA(2)},
     .of_primary = {.manager = "Patroni"},
     .candidate = 2,
     .obstacle = "HA manager"},
    {"another run",
     {PRIMARY(1), REPLICA(2)},
     .of_primary = {.other_run = "x"},
     .candidate = 2,
     .obstacle = "another failover"},
    {"subscriptions",
     {PRIMARY(1), REPLICA(2)},
     .of_primary = {.subscriptions = 1},
     .candidate = 2,
     .obstacle = "subscription"},
    {"logical slots",
     {PRIMARY(1), REPLICA(2)},
     .of_primary = {.logical_slots = "sub"},
     .kind = VERDICT_SWITCH,
     .candidate = 2,
     .note = "slots stay behind"},
    {"an unknown proxy",
     {PRIMARY(1), REPLICA(2)},
     .of_primary = {.watchers = 2},
     .candidate = 2,
     .obstacle = "2 proxies watch"},
    {"an unknown proxy, allowed",
     {PRIMARY(1), REPLICA(2)},
     {.ignore_unknown_proxies = true},
     .of_primary = {.watchers = 2},
     .kind = VERDICT_SWITCH,
     .candidate = 2,
     .note = "2 proxies watch"},
    {"a proxy with another primary",
     {PRIMARY(1), REPLICA(2)},
     .proxy = {.primary = "db:2"},
     .candidate = 2,
     .obstacle = "takes db:2 for the primary"},
    {"a proxy that is away",
     {PRIMARY(1), REPLICA(2)},
     .proxy = {.why = "refused", .mend = "start it"},
     .candidate = 2,
     .obstacle = "refused"},
    {"read-only by its file",
     {PRIMARY(1), REPLICA(2, .read_only = true)},
     .candidate = 2,
     .obstacle = "configuration file"},
    {"read-only since a failover",
     {PRIMARY(1), REPLICA(2, .read_only = true, .read_only_by_system = true)},
     .kind = VERDICT_SWITCH,
     .candidate = 2},
    {"interrupted ahead of the promotion",
     {PRIMARY(1, .read_only = true, .read_only_by_system = true), REPLICA(2)},
     .kind = VERDICT_SWITCH,
     .candidate = 2,
     .note = "was interrupted"},
    {"commits would hang",
     {PRIMARY(1), REPLICA(2, .sync_names = "app1, app2")},
     .candidate = 2,
     .obstacle = "wait for ever"},
    {"commits are confirmed by the other",
     {PRIMARY(1), REPLICA(2, .sync_names = "ANY 1 (app1, app3)", .position = 950), REPLICA(3)},
     .kind = VERDICT_SWITCH,
     .candidate = 2},
    {"two writable ones",
     {PRIMARY(1), PRIMARY(2), REPLICA(3)},
     .candidate = 3,
     .obstacle = "can be written to as well"},
    {"promoted already",
     {PRIMARY(1), PRIMARY(2, .timeline = 2), REPLICA(3)},
     .kind = VERDICT_FINISH,
     .candidate = 2,
     .note = "earlier failover"},
    {"promoted already, a replica left behind",
     {DEAD(1), PRIMARY(2, .timeline = 2), REPLICA(3)},
     {.force = true},
     .kind = VERDICT_FINISH,
     .candidate = 2},
    {"promoted already, and on to the next",
     {PRIMARY(1), PRIMARY(2, .timeline = 2), REPLICA(3, .timeline = 2)},
     {.to = {"db", 3}},
     .kind = VERDICT_SWITCH,
     .candidate = 3,
     .note = "an old primary"},
    {"a replica that may not be looked into is not left behind",
     {PRIMARY(1, .timeline = 2), REPLICA(2, .may_see = false, .streaming = false)},
     .obstacle = "no right to see"},
    {"to the primary itself",
     {PRIMARY(1), REPLICA(2)},
     {.to = {"db", 1}},
     .kind = VERDICT_FINISH,
     .candidate = 1},
    {"no primary", {DEAD(1), REPLICA(2)}, .obstacle = "no primary of shard"},
    {"forced, and alive", {PRIMARY(1), REPLICA(2)}, {.force = true}, .obstacle = "is not dead"},
    {"forced, and only shut to us",
     {DEAD(1, .alive = true), REPLICA(2, .streaming = false)},
     {.force = true, .accept_data_loss = true},
     .candidate = 2,
     .obstacle = "not dead, but of no use"},
    {"forced, and a replica still hears it",
     {DEAD(1), REPLICA(2)},
     {.force = true, .accept_data_loss = true},
     .candidate = 2,
     .obstacle = "still receives from db:1"},
    {"forced, and a proxy reaches it",
     {DEAD(1), REPLICA(2, .streaming = false)},
     {.force = true, .accept_data_loss = true},
     .proxy = {.up = "up", .primary = "db:1"},
     .candidate = 2,
     .obstacle = "still reaches db:1"},
    {"forced, asynchronous",
     {DEAD(1), REPLICA(2, .streaming = false)},
     {.force = true},
     SEEN(900),
     .candidate = 2,
     .obstacle = "may be lost: db:2 has all that proxies saw"},
    {"forced, known to be behind",
     {DEAD(1), REPLICA(2, .streaming = false)},
     {.force = true},
     SEEN(1000),
     .candidate = 2,
     .obstacle = "100 bytes of WAL are missing"},
    {"forced, nobody knows",
     {DEAD(1), REPLICA(2, .streaming = false)},
     {.force = true},
     .candidate = 2,
     .obstacle = "nobody knows"},
    {"forced, told so",
     {DEAD(1), REPLICA(2, .streaming = false)},
     {.force = true, .accept_data_loss = true},
     SEEN(1000),
     .kind = VERDICT_FORCE,
     .candidate = 2,
     .note = "100 bytes of WAL are missing"},
    {"forced, synchronous: the only name",
     {DEAD(1), REPLICA(2, .streaming = false, .sync_names = "app2")},
     {.force = true},
     SEEN(900),
     .candidate = 2,
     .obstacle = "wait for ever"},
    {"forced, synchronous: all there",
     {DEAD(1), REPLICA(2, .streaming = false, .sync_names = "ANY 1 (app2, app3)", .position = 950),
      REPLICA(3, .streaming = false)},
     {.force = true},
     SEEN(950),
     .kind = VERDICT_FORCE,
     .candidate = 2,
     .note = "has every commit"},
    {"forced, synchronous: the other may have more",
     {DEAD(1), REPLICA(2, .streaming = false, .sync_names = "ANY 1 (app2, app3, app4)"),
      REPLICA(3, .streaming = false), DEAD(4)},
     {.force = true},
     SEEN(900),
     .candidate = 2,
     .obstacle = "may be lost"},
    {"forced, synchronous, but not the one with most",
     {DEAD(1), REPLICA(2, .streaming = false, .sync_names = "ANY 1 (app2, app3)"),
      REPLICA(3, .streaming = false, .position = 950)},
     {.force = true, .to = {"db", 2}},
     SEEN(900),
     .candidate = 2,
     .obstacle = "may be lost"},
    {"forced: the later timeline has more",
     {DEAD(1), REPLICA(2, .streaming = false, .position = 5000),
      REPLICA(3, .streaming = false, .timeline = 2)},
     {.force = true, .accept_data_loss = true},
     .kind = VERDICT_FORCE,
     .candidate = 3},
    {"undo",
     {PRIMARY(1, .read_only = true, .read_only_by_system = true), REPLICA(2)},
     {.undo = true},
     .kind = VERDICT_UNDO},
    {"undo of nothing", {DEAD(1), REPLICA(2)}, {.undo = true}, .obstacle = "no primary answers"},
};

static const char *or_empty(const char *text)
{
    return text ? text : "";
}

/* Facts as a survey has them: no text is NULL. */
static struct facts facts_of(const struct judged *row, struct node_facts *nodes,
                             struct proxy_facts *proxy)
{
    struct facts facts = {.database = "app",
                          .shard = "s0",
                          .nodes = nodes,
                          .proxies = proxy,
                          .nproxies = 1,
                          .of_primary = row->of_primary};
    memcpy(nodes, row->nodes, sizeof row->nodes);
    while (facts.nnodes < 4 && nodes[facts.nnodes].host)
        facts.nnodes++;
    facts.of_primary.manager = or_empty(row->of_primary.manager);
    facts.of_primary.logical_slots = or_empty(row->of_primary.logical_slots);
    facts.of_primary.other_run = or_empty(row->of_primary.other_run);
    *proxy = row->proxy;
    proxy->name = "px";
    proxy->up = or_empty(row->proxy.up);
    int primary = facts_primary(&facts);
    if (!proxy->primary)
        proxy->primary = primary >= 0 ? nodes[primary].name : "";
    return facts;
}

static bool has(const struct verdict *verdict, enum failover_event_kind kind, const char *part)
{
    for (int i = 0; i < verdict->count; i++)
        if (verdict->findings[i].kind == kind && strstr(verdict->findings[i].text, part))
            return true;
    return false;
}

static void check(const struct judged *row)
{
    struct node_facts nodes[4];
    struct proxy_facts proxy;
    struct facts facts = facts_of(row, nodes, &proxy);
    struct verdict verdict;
    struct arena arena;
    arena_init(&arena);
    judge(&facts, &row->wishes, &arena, &verdict);
    enum verdict_kind kind = row->obstacle ? VERDICT_REFUSED : row->kind;
    if (verdict.kind != kind) {
        for (int i = 0; i < verdict.count; i++)
            print_message("%s\n", verdict.findings[i].text);
        fail_msg("%s: verdict %d", row->what, (int)verdict.kind);
    }
    int candidate = verdict.candidate < 0 ? 0 : nodes[verdict.candidate].port;
    if (candidate != row->candidate)
        fail_msg("%s: candidate %d", row->what, candidate);
    if (row->obstacle && !has(&verdict, FAILOVER_OBSTACLE, row->obstacle))
        fail_msg("%s: no obstacle \"%s\"", row->what, row->obstacle);
    if (row->note && !has(&verdict, FAILOVER_NOTE, row->note))
        fail_msg("%s: no note \"%s\"", row->what, row->note);
    for (int i = 0; i < verdict.count; i++)
        assert_true(verdict.findings[i].kind != FAILOVER_OBSTACLE || verdict.findings[i].mend);
    arena_free(&arena);
}

static void test_judge(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(judged); i++)
        check(&judged[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_redirect),
        cmocka_unit_test(test_sync_names),
        cmocka_unit_test(test_judge),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
