/* console_stats.c: SHOW STATS and its relatives: counters, and averages over the last full period. */
#include "proxy/console_show.h"

#include <stddef.h>
#include <stdio.h>

enum average {
    PER_SECOND,
    PER_TRANSACTION,
    PER_QUERY,
};

/* In the order of SHOW STATS. `name`: in SHOW TOTALS, behind total_ and avg_. */
static const struct {
    const char *name;
    size_t offset; /* in struct worker_stats */
    enum average average;
} counters[] = {
    {"server_assignment_count", offsetof(struct worker_stats, assignments), PER_SECOND},
    {"xact_count", offsetof(struct worker_stats, transactions), PER_SECOND},
    {"query_count", offsetof(struct worker_stats, queries), PER_SECOND},
    {"client_bytes", offsetof(struct worker_stats, bytes_in), PER_SECOND},
    {"server_bytes", offsetof(struct worker_stats, bytes_out), PER_SECOND},
    {"xact_time", offsetof(struct worker_stats, xact_us), PER_TRANSACTION},
    {"query_time", offsetof(struct worker_stats, query_us), PER_QUERY},
    {"wait_time", offsetof(struct worker_stats, wait_us), PER_SECOND},
    {"ps_client_parse_count", offsetof(struct worker_stats, client_parses), PER_SECOND},
    {"ps_server_parse_count", offsetof(struct worker_stats, server_parses), PER_SECOND},
    {"ps_bind_count", offsetof(struct worker_stats, binds), PER_SECOND},
    {"client_login_count", offsetof(struct worker_stats, logins), PER_SECOND},
};

#define COUNTERS (sizeof counters / sizeof counters[0])

static uint64_t counter(const struct worker_stats *stats, size_t index)
{
    return *(const uint64_t *)((const char *)stats + counters[index].offset);
}

static int64_t average(const struct worker_stats *period, int64_t period_us, size_t index)
{
    double value = (double)counter(period, index);
    double by = 0;
    switch (counters[index].average) {
    case PER_SECOND:
        by = (double)period_us / 1e6;
        break;
    case PER_TRANSACTION:
        by = (double)period->transactions;
        break;
    case PER_QUERY:
        by = (double)period->queries;
        break;
    }
    return by > 0 ? (int64_t)(value / by) : 0;
}

static void put_counters(struct console_table *table, const struct worker_stats *stats)
{
    for (size_t i = 0; i < COUNTERS; i++)
        console_integer(table, (int64_t)counter(stats, i));
}

static void put_averages(struct console_table *table, const struct report *report,
                         const struct worker_stats *period)
{
    for (size_t i = 0; i < COUNTERS; i++)
        console_integer(table, average(period, report->period_us, i));
}

void console_show_stats(struct console_table *table, const struct report *report)
{
    for (const struct report_stats *row = report->stats; row; row = row->hh.next) {
        console_text(table, row->database);
        put_counters(table, &row->counts);
        put_averages(table, report, &row->period);
    }
}

void console_show_totals(struct console_table *table, const struct report *report)
{
    for (const struct report_stats *row = report->stats; row; row = row->hh.next) {
        console_text(table, row->database);
        put_counters(table, &row->counts);
    }
}

void console_show_averages(struct console_table *table, const struct report *report)
{
    for (const struct report_stats *row = report->stats; row; row = row->hh.next) {
        console_text(table, row->database);
        put_averages(table, report, &row->period);
    }
}

static void put_sum(struct console_table *table, const char *prefix, size_t index, int64_t value)
{
    char name[64];
    snprintf(name, sizeof name, "%s%s", prefix, counters[index].name);
    console_text(table, name);
    console_integer(table, value);
}

void console_show_sums(struct console_table *table, const struct report *report)
{
    struct worker_stats counts = {0}, period = {0};
    for (const struct report_stats *row = report->stats; row; row = row->hh.next) {
        report_add_counts(&counts, &row->counts);
        report_add_counts(&period, &row->period);
    }
    for (size_t i = 0; i < COUNTERS; i++)
        put_sum(table, "total_", i, (int64_t)counter(&counts, i));
    for (size_t i = 0; i < COUNTERS; i++)
        put_sum(table, "avg_", i, average(&period, report->period_us, i));
}
