/* report_support.h: a report made by hand, for the tests of the console and of the metrics. */
#ifndef PGSHUNT_TESTS_REPORT_SUPPORT_H
#define PGSHUNT_TESTS_REPORT_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proxy/report.h"

#define COUNT(rows) (sizeof(rows) / sizeof(rows)[0])

static const char configuration[] =
    "listen = { port = 6543; };\n"
    "auth = { method = \"trust\"; };\n"
    "pool = { size = 7; };\n"
    "limits = { max_clients = 99; };\n"
    "databases = (\n"
    " { name = \"app\"; shards = (\n"
    "   { name = \"s0\"; dbname = \"one\"; weight = 3; nodes = (\n"
    "     { host = \"10.0.0.1\"; port = 5501; }, { host = \"10.0.0.2\"; port = 5502; region = "
    "\"eu\"; } ); },\n"
    "   { name = \"s1\"; dbname = \"two\"; nodes = ( { host = \"fd00::1\"; port = 5501; } ); } );\n"
    "   keyspaces = ( { name = \"users\"; type = \"bigint\";\n"
    "     tables = ( { name = \"users\"; key = \"id\"; } ); } ); },\n"
    " { name = \"plain\"; user = \"svc\"; pool_size = 3; shards = (\n"
    "   { name = \"s0\"; nodes = ( { host = \"10.0.0.9\"; } ); } ); } );\n";

static inline struct topology *load_topology(void)
{
    char path[] = "/tmp/pgshunt-console-XXXXXX";
    struct config_error error = {""};
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, configuration, sizeof configuration - 1), sizeof configuration - 1);
    close(fd);
    struct config *config = config_load(path, &error);
    unlink(path);
    if (!config)
        fail_msg("%s", error.text);
    return topology_new(config, NULL);
}

static inline struct node *node_at(const struct report *report, int database, int shard, int node)
{
    return report->topology->databases[database].shards[shard].nodes[node];
}

static inline void set_node(struct node *node, enum node_role role, int64_t lag_us,
                            int64_t lag_bytes)
{
    atomic_store(&node->role, (int)role);
    atomic_store(&node->state, NODE_STATE_UP);
    atomic_store(&node->lag_us, lag_us);
    atomic_store(&node->held_lag_us, lag_us);
    atomic_store(&node->lag_bytes, lag_bytes);
    atomic_store(&node->timeline, 2);
    atomic_store(&node->wal_position, 0x123456789ULL);
    atomic_store(&node->checked_at, 99950000);
}

/* Two workers' worth of clients: what the real ones add up. */
static inline struct report *new_report(void)
{
    struct topology *topology = load_topology();
    struct report *report = report_new(topology, REPORT_SUMS);
    topology_unref(topology);
    report->now = 100000000;
    report->wall_us = 1700000000LL * 1000000;
    report->started_at = 40000000;
    report->period_us = 10000000;
    report->reload_ok = true;
    report->accepted = 5;
    report->workers = arena_array(&report->arena, struct report_worker, 2);
    report->workers[0] = (struct report_worker){.index = 0, .clients = 2, .servers = 3};
    report->workers[1] = (struct report_worker){.index = 1, .clients = 1, .servers = 0};
    report->nworkers = 2;
    set_node(node_at(report, 0, 0, 0), NODE_ROLE_PRIMARY, 0, 0);
    set_node(node_at(report, 0, 0, 1), NODE_ROLE_REPLICA, 1499, 4096);
    return report;
}

static inline void add_pools(struct report *report)
{
    for (int i = 0; i < 2; i++) { /* the second time finds the rows */
        struct report_pool *primary = report_pool(report, "app", "ann", node_at(report, 0, 0, 0));
        struct report_pool *replica = report_pool(report, "app", "ann", node_at(report, 0, 0, 1));
        primary->active += 1;
        primary->idle += 2;
        primary->limit = 7;
        primary->cancels += 1;
        replica->login += 1;
        replica->waiting += 1;
        replica->longest_wait_us = 2500001;
        report_account(report, "app", "ann")->idle += 3;
    }
    report_account(report, "app", "ann")->waiting = 2;
    report_account(report, "app", "bob")->active = 1;
    report_account(report, "pgshunt", "ann")->active = 1;
    report_sort(report);
}

#endif
