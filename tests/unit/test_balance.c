/* test_balance.c: which node of a shard a plan runs on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "proxy/balance.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])
#define SECOND 1000000
#define MAX_NODES 4

#define P NODE_ROLE_PRIMARY
#define R NODE_ROLE_REPLICA
#define U NODE_ROLE_UNKNOWN
#define UP NODE_STATE_UP
#define DOWN NODE_STATE_DOWN
#define NEW NODE_STATE_UNKNOWN

struct spec {
    bool used;
    enum node_role role;
    enum node_state state;
    int64_t lag_us;
    int64_t fresh_as_of;
    int timeline; /* 0: 1 */
    uint32_t stint;
    int64_t sampled_at;
    uint64_t position;
    const char *region;
    int weight; /* 0: 1; negative: 0 */
    bool fenced;
    int64_t up_since;
};

#define N(its_role, its_state, ...)                                                                \
    {                                                                                              \
        .used = true, .role = (its_role), .state = (its_state), ##__VA_ARGS__                      \
    }
#define READ_CLASS .class = NODE_CLASS_REPLICA
#define WRITE .class = NODE_CLASS_PRIMARY, .max_lag = SECOND
#define READ .class = NODE_CLASS_REPLICA, .max_lag = SECOND
#define READ_ANY_LAG .class = NODE_CLASS_REPLICA, .max_lag = -1

/* A shard made of specs, up to the first that is unused. */
struct fixture {
    struct node nodes[MAX_NODES];
    struct node *list[MAX_NODES];
    struct shard shard;
};

static void make_shard(struct fixture *fixture, const struct spec *specs)
{
    int count = 0;
    static char name[] = "s7", nowhere[] = "";
    memset(fixture, 0, sizeof *fixture);
    for (int i = 0; i < MAX_NODES && specs[i].used; i++, count++) {
        struct node *node = &fixture->nodes[i];
        const struct spec *spec = &specs[i];
        node->id = i;
        node->role = (int)spec->role;
        node->state = (int)spec->state;
        node->lag_us = node->held_lag_us = spec->lag_us;
        node->fresh_as_of = spec->fresh_as_of;
        node->timeline = spec->timeline ? spec->timeline : 1;
        node->region = spec->region ? (char *)(uintptr_t)spec->region : nowhere;
        node->weight = spec->weight == 0 ? 1 : spec->weight < 0 ? 0 : spec->weight;
        node->fenced = spec->fenced;
        node->up_since = spec->up_since;
        node->stint = spec->stint ? spec->stint : 100 + (uint32_t)i;
        node->sampled_at = spec->sampled_at;
        node->wal_position = spec->position;
        fixture->list[i] = node;
    }
    fixture->shard = (struct shard){.name = name, .nodes = fixture->list, .nnodes = count};
}

static int busy(const struct node *node, void *arg)
{
    return ((const int *)arg)[node->id];
}

#define NOBODY (-1)

static void test_who_is_chosen(void **state)
{
    (void)state;
    static const struct {
        const char *what;
        struct spec nodes[MAX_NODES];
        enum node_class class;
        int64_t max_lag, wrote_at;
        const char *region;
        int exclude; /* index + 1 */
        int expected;
        const char *why; /* must be contained */
    } cases[] = {
        /* clang-format off */
        {"write", {N(P, UP), N(R, UP)}, WRITE, .expected = 0, .why = "primary"},
        {"write, primary listed last", {N(R, UP), N(P, UP)}, WRITE, .expected = 1, .why = "primary"},
        {"write, primary down", {N(P, DOWN), N(R, UP)}, WRITE,
         .expected = NOBODY, .why = "no primary of shard s7 is reachable"},
        {"write, nothing known yet", {N(U, NEW), N(U, NEW)}, WRITE, .expected = 0, .why = "primary"},
        {"write, first is known as replica", {N(R, UP), N(U, NEW)}, WRITE, .expected = 1, .why = "primary"},
        {"write, unknown but known to be down", {N(U, DOWN), N(U, NEW)}, WRITE, .expected = 1, .why = "primary"},
        {"write, all are replicas", {N(R, UP), N(R, UP)}, WRITE,
         .expected = NOBODY, .why = "no primary of shard s7 is reachable"},
        {"write, two primaries: higher timeline", {N(P, UP, .timeline = 1), N(P, UP, .timeline = 2)}, WRITE,
         .expected = 1, .why = "primary"},
        {"write, old primary while the new one is down", {N(P, UP, .timeline = 1), N(P, DOWN, .timeline = 2)},
         WRITE, .expected = NOBODY, .why = "no primary"},
        {"write, old primary, a replica is on the new timeline",
         {N(P, UP, .timeline = 1), N(R, UP, .timeline = 2)}, WRITE, .expected = NOBODY, .why = "no primary"},
        {"write, fenced on the same timeline", {N(P, UP, .fenced = true), N(P, UP)}, WRITE,
         .expected = 1, .why = "primary"},
        {"write, primary just failed", {N(P, UP), N(R, UP)}, WRITE, .exclude = 1,
         .expected = NOBODY, .why = "no primary"},

        {"read", {N(P, UP), N(R, UP)}, READ, .expected = 1, .why = "replica"},
        {"read, lag at the limit", {N(P, UP), N(R, UP, .lag_us = SECOND)}, READ, .expected = 1, .why = "replica"},
        {"read, lag over the limit", {N(P, UP), N(R, UP, .lag_us = SECOND + 1)}, READ,
         .expected = 0, .why = "max_lag"},
        {"read, lag unknown", {N(P, UP), N(R, UP, .lag_us = -1)}, READ, .expected = 0, .why = "max_lag"},
        {"read, lag unknown without a limit", {N(P, UP), N(R, UP, .lag_us = -1)}, READ_ANY_LAG,
         .expected = 0, .why = "max_lag"},
        {"read, no limit", {N(P, UP), N(R, UP, .lag_us = 900 * SECOND)}, READ_ANY_LAG,
         .expected = 1, .why = "replica"},
        {"read, limit 0 and no lag", {N(P, UP), N(R, UP)}, .class = NODE_CLASS_REPLICA, .max_lag = 0,
         .expected = 1, .why = "replica"},
        {"read, replica down", {N(P, UP), N(R, DOWN)}, READ, .expected = 0, .why = "reachable"},
        {"read, replica not checked yet", {N(P, UP), N(R, NEW)}, READ, .expected = 0, .why = "reachable"},
        {"read, replica just failed", {N(P, UP), N(R, UP)}, READ, .exclude = 2, .expected = 0, .why = "reachable"},
        {"read, one replica just failed", {N(P, UP), N(R, UP), N(R, UP)}, READ, .exclude = 2,
         .expected = 2, .why = "replica"},
        {"read, no replica", {N(P, UP)}, READ, .expected = 0, .why = "no replica to read from"},
        {"read, replica of weight 0", {N(P, UP), N(R, UP, .weight = -1)}, READ,
         .expected = 0, .why = "no replica to read from"},
        {"read, nothing known yet", {N(U, NEW), N(U, NEW)}, READ, .expected = 0, .why = "primary"},
        {"read, a second primary is no replica", {N(P, UP, .timeline = 2), N(P, UP)}, READ,
         .expected = 0, .why = "no replica to read from"},

        {"read after write, fresh", {N(P, UP), N(R, UP, .fresh_as_of = 501)}, READ, .wrote_at = 500,
         .expected = 1, .why = "replica"},
        {"read after write, sampled in the same microsecond", {N(P, UP), N(R, UP, .fresh_as_of = 500)}, READ,
         .wrote_at = 500, .expected = 0, .why = "written or seen"},
        {"read after write, freshness unknown", {N(P, UP), N(R, UP)}, READ, .wrote_at = 500,
         .expected = 0, .why = "written or seen"},
        {"read after write, one of two fresh",
         {N(P, UP), N(R, UP, .fresh_as_of = 400), N(R, UP, .fresh_as_of = 600)}, READ, .wrote_at = 500,
         .expected = 2, .why = "replica"},

        {"read goes on without a primary", {N(P, DOWN), N(R, UP)}, READ, .expected = 1, .why = "replica"},
        {"read, no primary and replica too old", {N(P, DOWN), N(R, UP, .lag_us = 2 * SECOND)}, READ,
         .expected = NOBODY, .why = "no replica is fresh enough"},
        {"read, no primary and without own writes", {N(P, DOWN), N(R, UP, .fresh_as_of = 1)}, READ,
         .wrote_at = 500, .expected = NOBODY, .why = "no replica is fresh enough"},
        {"read, everything down", {N(P, DOWN), N(R, DOWN)}, READ,
         .expected = NOBODY, .why = "no node of shard s7 is reachable"},

        {"read in a region", {N(P, UP), N(R, UP, .region = "us"), N(R, UP, .region = "eu")}, READ,
         .region = "eu", .expected = 2, .why = "replica"},
        {"read, region without a fit replica",
         {N(P, UP), N(R, UP, .region = "us"), N(R, UP, .region = "eu", .lag_us = 9 * SECOND)}, READ,
         .region = "eu", .expected = 1, .why = "replica"},
        {"read, region unheard of", {N(P, UP), N(R, UP, .region = "us")}, READ, .region = "mars",
         .expected = 1, .why = "replica"},
        {"read, no region asked for", {N(P, UP), N(R, UP, .region = "us")}, READ, .region = "",
         .expected = 1, .why = "replica"},
        /* clang-format on */
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct fixture fixture;
        make_shard(&fixture, cases[i].nodes);
        uint64_t seed = i;
        struct balance_request request = {
            .class = cases[i].class,
            .max_lag_us = cases[i].max_lag,
            .need.as_of = cases[i].wrote_at,
            .region = cases[i].region,
            .exclude = cases[i].exclude ? &fixture.nodes[cases[i].exclude - 1] : NULL,
            .seed = &seed,
        };
        const char *why = NULL;
        for (int again = 0; again < 8; again++) { /* chance must not matter */
            const struct node *node = balance_choose(&fixture.shard, &request, &why);
            int got = node ? node->id : NOBODY;
            if (got != cases[i].expected)
                fail_msg("%s: node %d, expected %d (%s)", cases[i].what, got, cases[i].expected,
                         why);
            if (!strstr(why, cases[i].why))
                fail_msg("%s: why is \"%s\"", cases[i].what, why);
        }
    }
}

/* Who may serve a session that has read at 500 in stint 7, each time after the primary (down). */
static void test_never_older_than_seen(void **state)
{
    (void)state;
    static const struct {
        const char *what;
        struct spec former, other;
        struct freshness_need need;
        int expected; /* 1: the former only, 2: the other only, 3: either, NOBODY */
    } cases[] = {
        /* clang-format off */
        {"nothing seen", {.role = R, .stint = 7}, {.role = R}, {0}, 3},
        {"no sample since", {.role = R, .stint = 7, .sampled_at = 500, .position = 10}, {.role = R, .position = 20, .fresh_as_of = 500},
         {.seen_on = 7, .seen_at = 500}, 1},
        {"the other is past it", {.role = R, .stint = 7, .sampled_at = 501, .position = 10}, {.role = R, .position = 11},
         {.seen_on = 7, .seen_at = 500}, 3},
        {"the other is where it was: a record may be half applied",
         {.role = R, .stint = 7, .sampled_at = 501, .position = 10}, {.role = R, .position = 10},
         {.seen_on = 7, .seen_at = 500}, 1},
        {"... but it has all that the primary had later",
         {.role = R, .stint = 7, .sampled_at = 501, .position = 10}, {.role = R, .position = 10, .fresh_as_of = 501},
         {.seen_on = 7, .seen_at = 500}, 3},
        {"the other is on another timeline",
         {.role = R, .stint = 7, .sampled_at = 501, .position = 10, .timeline = 1}, {.role = R, .position = 90, .timeline = 2},
         {.seen_on = 7, .seen_at = 500}, 1},
        {"the former is not known to follow the primary",
         {.role = R, .stint = 7, .sampled_at = 501, .position = 10, .lag_us = -1}, {.role = R, .position = 90},
         {.seen_on = 7, .seen_at = 500}, NOBODY},
        {"the former was started anew", {.role = R, .stint = 8, .sampled_at = 501, .position = 10}, {.role = R, .position = 90},
         {.seen_on = 7, .seen_at = 500}, NOBODY},
        {"... and is fresh again", {.role = R, .stint = 8, .sampled_at = 501, .fresh_as_of = 501}, {.role = R, .position = 90},
         {.seen_on = 7, .seen_at = 500}, 1},
        {"the former is down", {.role = R, .state = DOWN, .stint = 7, .sampled_at = 501, .position = 10}, {.role = R, .position = 11},
         {.seen_on = 7, .seen_at = 500}, 2},
        {"own write, past on both", {.role = R, .stint = 7, .fresh_as_of = 401}, {.role = R, .fresh_as_of = 501},
         {.as_of = 400, .seen_on = 7, .seen_at = 500}, 3},
        {"own write, after the read", {.role = R, .stint = 7, .fresh_as_of = 401}, {.role = R, .fresh_as_of = 601},
         {.as_of = 600, .seen_on = 7, .seen_at = 500}, 2},
        {"own write, only the former has it",
         {.role = R, .stint = 7, .sampled_at = 501, .position = 10, .fresh_as_of = 401}, {.role = R, .position = 11, .fresh_as_of = 400},
         {.as_of = 400, .seen_on = 7, .seen_at = 500}, 1},
        {"token, both past", {.role = R, .position = 10}, {.role = R, .position = 11}, {.position = {1, 10}}, 3},
        {"token, one past", {.role = R, .position = 9}, {.role = R, .position = 11}, {.position = {1, 10}}, 2},
        {"token of an older timeline", {.role = R, .position = 9, .timeline = 2}, {.role = R, .position = 11, .timeline = 2},
         {.position = {1, 10}}, 2},
        {"token of a newer timeline", {.role = R, .position = 90}, {.role = R, .position = 91}, {.position = {2, 10}}, NOBODY},
        /* clang-format on */
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct fixture fixture;
        struct spec specs[MAX_NODES] = {N(P, DOWN, .timeline = 1), cases[i].former, cases[i].other};
        int got = 0;
        uint64_t seed = i;
        for (int n = 1; n <= 2; n++) {
            specs[n].used = true;
            specs[n].state = specs[n].state ? specs[n].state : UP;
        }
        make_shard(&fixture, specs);
        struct balance_request request = {READ_CLASS, .max_lag_us = SECOND, .need = cases[i].need,
                                          .seed = &seed};
        for (int again = 0; again < 64; again++) {
            const struct node *node = balance_choose(&fixture.shard, &request, NULL);
            got |= node ? node->id : 0;
        }
        if (got != (cases[i].expected == NOBODY ? 0 : cases[i].expected))
            fail_msg("%s: chosen %d", cases[i].what, got);
    }
}

static void draw(const struct spec *specs, int *in_use, int rounds, int *hits)
{
    struct fixture fixture;
    uint64_t seed = 42;
    make_shard(&fixture, specs);
    struct balance_request request = {.class = NODE_CLASS_REPLICA,
                                      .max_lag_us = SECOND,
                                      .seed = &seed,
                                      .in_use = in_use ? busy : NULL,
                                      .arg = in_use};
    memset(hits, 0, sizeof *hits * MAX_NODES);
    for (int i = 0; i < rounds; i++)
        hits[balance_choose(&fixture.shard, &request, NULL)->id]++;
}

static void test_when_no_replica_qualifies(void **state)
{
    (void)state;
    static const struct {
        const char *what;
        struct spec nodes[MAX_NODES];
        int64_t wrote_at;
        int exclude; /* index + 1 */
        enum no_replica no_replica;
        int expected;
        const char *why;
    } cases[] = {
        /* clang-format off */
        {"least lagged", {N(P, UP), N(R, UP, .lag_us = 5 * SECOND), N(R, UP, .lag_us = 4 * SECOND)},
         .no_replica = NO_REPLICA_LEAST_LAGGED, .expected = 2, .why = "least lagged"},
        {"least lagged, one of unknown lag", {N(P, UP), N(R, UP, .lag_us = 5 * SECOND), N(R, UP, .lag_us = -1)},
         .no_replica = NO_REPLICA_LEAST_LAGGED, .expected = 1, .why = "least lagged"},
        {"least lagged, but one is within", {N(P, UP), N(R, UP, .lag_us = 5 * SECOND), N(R, UP)},
         .no_replica = NO_REPLICA_LEAST_LAGGED, .expected = 2, .why = "replica"},
        {"least lagged, none answers", {N(P, UP), N(R, DOWN)},
         .no_replica = NO_REPLICA_LEAST_LAGGED, .expected = 0, .why = "reachable"},
        {"least lagged, without the own write",
         {N(P, UP), N(R, UP, .lag_us = 4 * SECOND, .fresh_as_of = 9), N(R, UP, .lag_us = 5 * SECOND, .fresh_as_of = 11)},
         .wrote_at = 10, .no_replica = NO_REPLICA_LEAST_LAGGED, .expected = 2, .why = "least lagged"},
        {"least lagged, one within without the own write",
         {N(P, UP), N(R, UP, .fresh_as_of = 9), N(R, UP, .lag_us = 5 * SECOND, .fresh_as_of = 11)},
         .wrote_at = 10, .no_replica = NO_REPLICA_LEAST_LAGGED, .expected = 0, .why = "written or seen"},
        {"error", {N(P, UP), N(R, UP, .lag_us = 5 * SECOND)}, .no_replica = NO_REPLICA_ERROR,
         .expected = NOBODY, .why = "no replica of shard s7 is within max_lag"},
        {"error, none answers", {N(P, UP), N(R, DOWN)}, .no_replica = NO_REPLICA_ERROR,
         .expected = NOBODY, .why = "no replica of shard s7 is reachable"},
        {"error, none ever answered", {N(P, UP), N(U, DOWN)}, .no_replica = NO_REPLICA_ERROR,
         .expected = NOBODY, .why = "no replica of shard s7 is reachable"},
        {"error, the only one just failed", {N(P, UP), N(R, UP)}, .exclude = 2, .no_replica = NO_REPLICA_ERROR,
         .expected = NOBODY, .why = "reachable"},
        {"error, one qualifies", {N(P, UP), N(R, UP)}, .no_replica = NO_REPLICA_ERROR, .expected = 1, .why = "replica"},
        {"error, but it is for the own write", {N(P, UP), N(R, UP, .fresh_as_of = 9)}, .wrote_at = 10,
         .no_replica = NO_REPLICA_ERROR, .expected = 0, .why = "written or seen"},
        {"error, but there is no replica at all", {N(P, UP)}, .no_replica = NO_REPLICA_ERROR,
         .expected = 0, .why = "no replica to read from"},
        /* clang-format on */
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct fixture fixture;
        uint64_t seed = i;
        bool refused = false;
        const char *why = NULL;
        make_shard(&fixture, cases[i].nodes);
        struct balance_request request = {
            .class = NODE_CLASS_REPLICA,
            .max_lag_us = SECOND,
            .need.as_of = cases[i].wrote_at,
            .no_replica = cases[i].no_replica,
            .refused = &refused,
            .exclude = cases[i].exclude ? &fixture.nodes[cases[i].exclude - 1] : NULL,
            .seed = &seed,
        };
        const struct node *node = balance_choose(&fixture.shard, &request, &why);
        if ((node ? node->id : NOBODY) != cases[i].expected || !strstr(why, cases[i].why) ||
            refused != (cases[i].expected == NOBODY))
            fail_msg("%s: node %d, why \"%s\"", cases[i].what, node ? node->id : NOBODY, why);
    }
}

/* Chosen `rounds` times; what of the request matters is in `like`. */
static void choose_often(const struct spec *specs, const struct balance_request *like, int rounds,
                         int *hits)
{
    struct fixture fixture;
    uint64_t seed = 42;
    make_shard(&fixture, specs);
    struct balance_request request = *like;
    request.class = NODE_CLASS_REPLICA;
    request.max_lag_us = SECOND;
    request.seed = &seed;
    memset(hits, 0, sizeof *hits * MAX_NODES);
    for (int i = 0; i < rounds; i++)
        hits[balance_choose(&fixture.shard, &request, NULL)->id]++;
}

static void test_round_robin(void **state)
{
    (void)state;
    static const struct spec even[MAX_NODES] = {N(P, UP), N(R, UP), N(R, UP), N(R, UP)};
    static const struct spec uneven[MAX_NODES] = {N(P, UP), N(R, UP), N(R, UP, .weight = 3)};
    atomic_uint turn = 7;
    int hits[MAX_NODES];
    struct balance_request request = {.turn = &turn, .in_use = busy, .arg = (int[]){0, 9, 0, 5}};
    for (int i = 0; i < 3; i++) { /* each once in three, however busy */
        choose_often(even, &request, 3, hits);
        assert_int_equal(hits[1], 1);
        assert_int_equal(hits[2], 1);
        assert_int_equal(hits[3], 1);
    }
    choose_often(uneven, &request, 400, hits);
    assert_int_equal(hits[1], 100);
    assert_int_equal(hits[2], 300);
}

static void test_other_regions_join_under_load(void **state)
{
    (void)state;
    static const struct spec specs[MAX_NODES] = {N(P, UP), N(R, UP, .region = "eu"),
                                                 N(R, UP, .region = "eu", .weight = 2),
                                                 N(R, UP, .region = "us")};
    int hits[MAX_NODES];
    struct balance_request request = {.region = "eu", .region_spill = 4, .in_use = busy};
    request.arg = (int[]){0, 4, 7, 0}; /* the second could take one more */
    choose_often(specs, &request, 1000, hits);
    assert_int_equal(hits[3], 0);
    request.arg = (int[]){0, 4, 8, 0};
    choose_often(specs, &request, 1000, hits);
    assert_in_range(hits[3], 300, 900);
    request.region_spill = 0;
    choose_often(specs, &request, 1000, hits);
    assert_int_equal(hits[3], 0);
}

static void test_slow_start(void **state)
{
    (void)state;
    static const struct spec specs[MAX_NODES] = {N(P, UP), N(R, UP),
                                                 N(R, UP, .up_since = 1000 * SECOND)};
    static const struct {
        int64_t age;
        int low, high; /* of 10000 reads */
    } cases[] = {{0, 50, 300},
                 {1 * SECOND, 600, 1200},
                 {5 * SECOND, 3000, 3700},
                 {10 * SECOND, 4700, 5300},
                 {INT64_C(900) * SECOND, 4700, 5300}};
    int hits[MAX_NODES];
    atomic_uint turn = 0;
    for (size_t i = 0; i < COUNT(cases) * 2; i++) {
        struct balance_request request = {.slow_start_us = 10 * SECOND,
                                          .now_us = 1000 * SECOND + cases[i / 2].age,
                                          .in_use = busy,
                                          .arg = (int[]){0, 0, 0, 0},
                                          .turn = i % 2 ? &turn : NULL};
        choose_often(specs, &request, 10000, hits);
        assert_in_range(hits[2], cases[i / 2].low, cases[i / 2].high);
        request.slow_start_us = 0;
        choose_often(specs, &request, 10000, hits);
        assert_in_range(hits[2], 4700, 5300);
    }
}

static void test_idle_replicas_share_by_weight(void **state)
{
    (void)state;
    static const struct spec even[MAX_NODES] = {N(P, UP), N(R, UP), N(R, UP), N(R, UP)};
    static const struct spec uneven[MAX_NODES] = {N(P, UP), N(R, UP), N(R, UP, .weight = 3)};
    int hits[MAX_NODES], idle[MAX_NODES] = {0};

    draw(even, idle, 30000, hits);
    assert_int_equal(hits[0], 0);
    for (int i = 1; i < 4; i++)
        assert_in_range(hits[i], 9500, 10500);

    draw(uneven, idle, 20000, hits);
    assert_in_range(hits[1], 4600, 5400);
    draw(uneven, NULL, 20000, hits); /* nobody counts what is in use */
    assert_in_range(hits[1], 4600, 5400);
}

static void test_less_busy_wins(void **state)
{
    (void)state;
    static const struct spec two[MAX_NODES] = {N(P, UP), N(R, UP), N(R, UP)};
    static const struct spec three[MAX_NODES] = {N(P, UP), N(R, UP), N(R, UP), N(R, UP)};
    static const struct spec uneven[MAX_NODES] = {N(P, UP), N(R, UP), N(R, UP, .weight = 3)};
    int hits[MAX_NODES];

    draw(two, (int[]){0, 5, 4}, 1000, hits);
    assert_int_equal(hits[2], 1000);
    /* Of three the busiest is never the better of two; the least busy wins whenever it is drawn. */
    draw(three, (int[]){0, 9, 1, 5}, 9000, hits);
    assert_int_equal(hits[1], 0);
    assert_in_range(hits[2], 5600, 6400);
    /* In use per weight: 2/1 against 5/3, then 1/1 against 4/3. */
    draw(uneven, (int[]){0, 2, 5}, 1000, hits);
    assert_int_equal(hits[2], 1000);
    draw(uneven, (int[]){0, 1, 4}, 1000, hits);
    assert_int_equal(hits[1], 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_who_is_chosen),
        cmocka_unit_test(test_never_older_than_seen),
        cmocka_unit_test(test_when_no_replica_qualifies),
        cmocka_unit_test(test_round_robin),
        cmocka_unit_test(test_other_regions_join_under_load),
        cmocka_unit_test(test_slow_start),
        cmocka_unit_test(test_idle_replicas_share_by_weight),
        cmocka_unit_test(test_less_busy_wins),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
