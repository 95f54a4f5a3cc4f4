/*
 * metrics.c: a report in Prometheus' text format 0.0.4.
 *
 * A metric is one family: HELP and TYPE once, then its samples. Labels have few values: databases,
 * shards and nodes come from the configuration; users do not where the method is trust, so beyond
 * METRICS_ACCOUNTS_MAX (database, user) pairs the rest is added up under the user "(others)".
 */
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "proxy/metrics.h"

/* ---- writing ---- */

void metrics_family(struct buffer *out, const char *name, const char *type, const char *help)
{
    buffer_printf(out, "# HELP pgshunt_%s ", name);
    for (const char *p = help; *p; p++) {
        if (*p == '\\' || *p == '\n')
            buffer_printf(out, *p == '\n' ? "\\n" : "\\\\");
        else
            buffer_append(out, p, 1);
    }
    buffer_printf(out, "\n# TYPE pgshunt_%s %s\n", name, type);
}

/* A label's value: backslash, quote and newline escaped, bytes that are not UTF-8 as text. */
static void put_label_value(struct buffer *out, const char *value)
{
    struct arena arena;
    arena_init(&arena);
    for (const char *p = report_text(&arena, value); *p; p++) {
        if (*p == '\\' || *p == '"')
            buffer_printf(out, "\\%c", *p);
        else if (*p == '\n')
            buffer_printf(out, "\\n");
        else
            buffer_append(out, p, 1);
    }
    arena_free(&arena);
}

static void put_labels(struct buffer *out, const struct metric_label *labels, int count)
{
    for (int i = 0; i < count; i++) {
        buffer_printf(out, "%s%s=\"", i ? "," : "{", labels[i].name);
        put_label_value(out, labels[i].value);
        buffer_printf(out, "\"");
    }
    if (count)
        buffer_printf(out, "}");
}

/* As few digits as give the same number back. */
static void put_shortest(struct buffer *out, double value)
{
    char text[32];
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value)
            break;
    }
    buffer_printf(out, " %s\n", text);
}

void metrics_sample(struct buffer *out, const char *name, const struct metric_label *labels,
                    int count, double value)
{
    buffer_printf(out, "pgshunt_%s", name);
    put_labels(out, labels, count);
    if (isnan(value))
        buffer_printf(out, " NaN\n");
    else if (isinf(value))
        buffer_printf(out, value > 0 ? " +Inf\n" : " -Inf\n");
    else if (fabs(value) < 9e15 && value == floor(value))
        buffer_printf(out, " %.0f\n", value);
    else
        put_shortest(out, value);
}

#define LABELS(...)                                                                                \
    (const struct metric_label[])                                                                  \
    {                                                                                              \
        __VA_ARGS__                                                                                \
    }
#define SAMPLE(out, name, value, ...)                                                              \
    metrics_sample((out), (name), LABELS(__VA_ARGS__),                                             \
                   (int)(sizeof(LABELS(__VA_ARGS__)) / sizeof(struct metric_label)),               \
                   (double)(value))

static void put_single(struct buffer *out, const char *name, const char *type, const char *help,
                       double value)
{
    metrics_family(out, name, type, help);
    metrics_sample(out, name, NULL, 0, value);
}

/* ---- the process ---- */

static double cpu_seconds(void)
{
    struct rusage usage;
    if (getrusage(RUSAGE_SELF, &usage) != 0)
        return NAN;
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static double resident_bytes(void)
{
    long total, resident;
    FILE *file = fopen("/proc/self/statm", "r");
    if (!file)
        return NAN;
    int found = fscanf(file, "%ld %ld", &total, &resident);
    fclose(file);
    return found == 2 ? (double)resident * (double)sysconf(_SC_PAGESIZE) : NAN;
}

static void put_process(struct buffer *out, const struct report *report)
{
    int64_t started_us = report->wall_us - (report->now - report->started_at);
    metrics_family(out, "build_info", "gauge", "Version of this pgshunt; always 1.");
    SAMPLE(out, "build_info", 1, {"version", PGSHUNT_VERSION});
    /* Whole seconds: two clocks are read, and a start time must not move. */
    put_single(out, "start_time_seconds", "gauge", "When the process started, since 1970.",
               floor((double)started_us / 1e6 + 0.5));
    put_single(out, "cpu_seconds_total", "counter", "CPU time used, user and system.",
               cpu_seconds());
    put_single(out, "resident_memory_bytes", "gauge", "Memory resident in RAM.", resident_bytes());
    put_single(out, "draining", "gauge", "1 while shutting down.", report->draining);
    put_single(out, "config_last_reload_successful", "gauge",
               "1 if the last reload (or the start) found a good configuration.",
               report->reload_ok);
    put_single(out, "config_version", "gauge",
               "Number of the configuration in force; a reload adds one.",
               (double)report->topology->version);
    put_single(out, "max_client_connections", "gauge", "Setting limits.max_clients.",
               report->topology->config->max_clients);
    put_single(out, "client_connections_accepted_total", "counter",
               "Connections accepted, cancel requests included.", (double)report->accepted);
    put_single(out, "clients_logging_in", "gauge", "Clients that have not logged in yet.",
               report->logging_in);
    put_single(out, "cancel_requests", "gauge", "Cancel requests being delivered.",
               report->cancelling);
}

#define PER_SIDE(out, name, type, help, clients, servers)                                          \
    do {                                                                                           \
        metrics_family((out), (name), (type), (help));                                             \
        SAMPLE((out), (name), (clients), {"side", "client"});                                      \
        SAMPLE((out), (name), (servers), {"side", "server"});                                      \
    } while (0)

static void put_tls(struct buffer *out, const struct report *report)
{
    const struct report_handshakes *client = &report->handshakes[0], *server = client + 1;
    const struct tls_certificate *list;
    int count = tls_setup_certificates(report->topology->tls, &list);
    PER_SIDE(out, "tls_connections", "gauge", "Connections on TLS.", report->tls_clients,
             report->tls_servers);
    PER_SIDE(out, "tls_handshakes_total", "counter",
             "TLS handshakes completed, resumed sessions included.", client->done, server->done);
    PER_SIDE(out, "tls_resumptions_total", "counter", "TLS handshakes that resumed a session.",
             client->resumed, server->resumed);
    PER_SIDE(out, "tls_handshake_failures_total", "counter", "TLS handshakes that failed.",
             client->failed, server->failed);
    if (count)
        metrics_family(out, "tls_certificate_expiry_seconds", "gauge",
                       "When a certificate that pgshunt shows expires, since 1970.");
    for (int i = 0; i < count; i++)
        SAMPLE(out, "tls_certificate_expiry_seconds", list[i].expires, {"side", list[i].side},
               {"file", list[i].file});
}

static void put_recovery(struct buffer *out, const struct report *report)
{
    metrics_family(out, "recovered_total", "counter",
                   "Prepared transactions that recovery finished, by outcome.");
    SAMPLE(out, "recovered_total", (double)report->recovery.committed, {"outcome", "committed"});
    SAMPLE(out, "recovered_total", (double)report->recovery.rolled_back,
           {"outcome", "rolled back"});
    put_single(out, "in_doubt_transactions", "gauge",
               "Prepared transactions that recovery could not finish yet.",
               (double)report->recovery.in_doubt);
}

/* One family after the other: each sample is of one database whose map is recorded. */
static void put_maps(struct buffer *out, const struct report *report)
{
    static const struct {
        const char *name, *type, *help;
    } families[] = {
        {"map_epoch", "gauge", "Number of the map of buckets that all workers use."},
        {"map_changes_total", "counter", "Maps of buckets published, holds included."},
        {"map_held_clients", "gauge", "Clients kept waiting while buckets are switched."},
        {"catalog_up", "gauge", "1 while the catalog with the map of buckets is reached."},
    };
    for (size_t f = 0; f < sizeof families / sizeof *families; f++) {
        metrics_family(out, families[f].name, families[f].type, families[f].help);
        for (int i = 0; i < report->topology->ndatabases; i++) {
            const struct catalog_watch_report *map = &report->maps[i];
            const double values[] = {(double)map->epoch, (double)map->changes, map->held,
                                     map->reached};
            if (map->watched)
                SAMPLE(out, families[f].name, values[f],
                       {"database", report->topology->databases[i].name});
        }
    }
}

/* One family after the other, each sample of a table with a policy. What is not known (how far ids reach in time) is left out. */
static void put_partition_tables(struct buffer *out, const struct report *report)
{
    static const struct {
        const char *name, *help;
    } families[] = {
        {"partition_ahead", "Partitions beyond the present one, on the shard with the fewest."},
        {"partition_ahead_wanted", "... and as the policy wants it."},
        {"partition_covered_seconds", "How long from now on rows have a partition."},
        {"partition_bytes", "Size of all partitions, on all shards."},
        {"partition_expired_bytes", "... of those that have expired and are still there."},
        {"partition_default_rows", "Rows in default partitions."},
    };
    for (size_t f = 0; f < sizeof families / sizeof *families; f++) {
        metrics_family(out, families[f].name, "gauge", families[f].help);
        for (int i = 0; i < report->topology->ndatabases; i++)
            for (int j = 0; j < report->partitions[i].ntables; j++) {
                const struct partition_table *table = &report->partitions[i].tables[j];
                const double values[] = {table->have_ahead,
                                         table->ahead,
                                         table->covered_seconds,
                                         (double)table->bytes,
                                         (double)table->bytes_to_expire,
                                         (double)table->default_rows};
                if (!isnan(values[f]))
                    SAMPLE(out, families[f].name, values[f],
                           {"database", report->topology->databases[i].name},
                           {"table", table->table});
            }
    }
}

static void put_partitions(struct buffer *out, const struct report *report)
{
    if (!report->partitions) /* a report that has no daemon behind it */
        return;
    put_partition_tables(out, report);
    metrics_family(out, "partition_last_success_seconds", "gauge",
                   "When the last maintenance without failures ended, since 1970.");
    for (int i = 0; i < report->topology->ndatabases; i++)
        if (report->partitions[i].last_success > 0)
            SAMPLE(out, "partition_last_success_seconds", report->partitions[i].last_success,
                   {"database", report->topology->databases[i].name});
    metrics_family(out, "partition_run_seconds", "gauge", "How long the last maintenance took.");
    for (int i = 0; i < report->topology->ndatabases; i++)
        if (report->partitions[i].last_success > 0)
            SAMPLE(out, "partition_run_seconds", report->partitions[i].last_seconds,
                   {"database", report->topology->databases[i].name});
}

static void put_workers(struct buffer *out, const struct report *report)
{
    char index[16];
    metrics_family(out, "worker_clients", "gauge", "Client connections of a worker thread.");
    for (int i = 0; i < report->nworkers; i++) {
        snprintf(index, sizeof index, "%d", report->workers[i].index + 1);
        SAMPLE(out, "worker_clients", report->workers[i].clients, {"worker", index});
    }
    metrics_family(out, "worker_servers", "gauge", "Server connections of a worker thread.");
    for (int i = 0; i < report->nworkers; i++) {
        snprintf(index, sizeof index, "%d", report->workers[i].index + 1);
        SAMPLE(out, "worker_servers", report->workers[i].servers, {"worker", index});
    }
}

static void put_pins(struct buffer *out, const struct report *report)
{
    metrics_family(out, "pinned_clients", "gauge",
                   "Clients that keep a server connection between transactions, by reason.");
    for (int i = 0; i < PIN_REASONS; i++)
        SAMPLE(out, "pinned_clients", report->pinned[i],
               {"reason", pin_reason_name((enum pin_reason)i)});
    metrics_family(out, "pins_total", "counter",
                   "Times a client was pinned to a server connection, by reason.");
    for (int i = 0; i < PIN_REASONS; i++)
        SAMPLE(out, "pins_total", report->pins[i], {"reason", pin_reason_name((enum pin_reason)i)});
}

/* ---- counters per database ---- */

#define COUNTER(member) offsetof(struct worker_stats, member)

/* Rows of one family follow each other; the first has the help. */
static const struct {
    const char *name, *help;
    size_t offset;
    double unit;               /* what 1 of the counter is */
    struct metric_label label; /* besides the database */
} counters[] = {
    {"queries_total", "Requests of clients answered.", COUNTER(queries), 1, {NULL, NULL}},
    {"transactions_total", "Transactions finished.", COUNTER(transactions), 1, {NULL, NULL}},
    {"received_bytes_total", "Received from clients.", COUNTER(bytes_in), 1, {NULL, NULL}},
    {"sent_bytes_total", "Sent to clients.", COUNTER(bytes_out), 1, {NULL, NULL}},
    {"query_seconds_total",
     "Time spent answering requests.",
     COUNTER(query_us),
     1e-6,
     {NULL, NULL}},
    {"transaction_seconds_total",
     "Time spent in requests that ended a transaction.",
     COUNTER(xact_us),
     1e-6,
     {NULL, NULL}},
    {"wait_seconds_total",
     "Time clients waited for a server connection.",
     COUNTER(wait_us),
     1e-6,
     {NULL, NULL}},
    {"server_assignments_total",
     "Times a server connection was given to a client.",
     COUNTER(assignments),
     1,
     {NULL, NULL}},
    {"client_parses_total",
     "Prepared statements made by clients.",
     COUNTER(client_parses),
     1,
     {NULL, NULL}},
    {"server_parses_total",
     "Prepared statements made on servers.",
     COUNTER(server_parses),
     1,
     {NULL, NULL}},
    {"binds_total", "Prepared statements bound.", COUNTER(binds), 1, {NULL, NULL}},
    {"client_logins_total", "Clients that logged in.", COUNTER(logins), 1, {NULL, NULL}},
    {"statements_total",
     "Statements sent to servers, by gear.",
     COUNTER(direct),
     1,
     {"gear", "direct"}},
    {"statements_total", NULL, COUNTER(scatter), 1, {"gear", "scatter"}},
    {"statements_total", NULL, COUNTER(gather), 1, {"gear", "gather"}},
    {"refused_total", "Statements pgshunt refused itself.", COUNTER(refused), 1, {NULL, NULL}},
    {"reads_total",
     "Reads that may use a replica, by the role of the node they used.",
     COUNTER(reads_on_replica),
     1,
     {"role", "replica"}},
    {"reads_total", NULL, COUNTER(reads_on_primary), 1, {"role", "primary"}},
    {"retries_total",
     "Requests repeated because their node was lost or refused them.",
     COUNTER(retries),
     1,
     {NULL, NULL}},
    {"misrouted_total",
     "Statements taken for reads that a replica refused as writes.",
     COUNTER(misrouted),
     1,
     {NULL, NULL}},
    {"lookups_total",
     "Values of lookup columns whose shard was wanted, by what came of it.",
     COUNTER(lookup_hits),
     1,
     {"result", "hit"}},
    {"lookups_total", NULL, COUNTER(lookup_misses), 1, {"result", "miss"}},
    {"lookups_total", NULL, COUNTER(lookup_stale), 1, {"result", "stale"}},
    {"lookups_total", NULL, COUNTER(lookup_failed), 1, {"result", "failed"}},
    {"pipelined_total",
     "Batches sent behind others that were not answered yet.",
     COUNTER(pipelined),
     1,
     {NULL, NULL}},
    {"held_total",
     "Statements that had to wait for buckets that were switched.",
     COUNTER(held),
     1,
     {NULL, NULL}},
    {"stale_total",
     "Writes that a guard refused because they were planned by an old map.",
     COUNTER(stale),
     1,
     {NULL, NULL}},
    {"keyless_total",
     "Statements over several shards without a key that require_key warned of or refused.",
     COUNTER(keyless),
     1,
     {NULL, NULL}},
    {"two_phase_commits_total",
     "Transactions that were committed on several shards by two-phase commit.",
     COUNTER(two_phase),
     1,
     {NULL, NULL}},
    {"two_phase_in_doubt_total",
     "Prepared transactions of a shard that were left to recovery.",
     COUNTER(in_doubt),
     1,
     {NULL, NULL}},
    {"server_errors_total", "Errors that servers answered.", COUNTER(errors), 1, {NULL, NULL}},
};

static void put_counters(struct buffer *out, const struct report *report)
{
    for (size_t i = 0; i < sizeof counters / sizeof counters[0]; i++) {
        if (counters[i].help)
            metrics_family(out, counters[i].name, "counter", counters[i].help);
        for (const struct report_stats *row = report->stats; row; row = row->hh.next) {
            const char *base = (const char *)&row->counts + counters[i].offset;
            struct metric_label labels[] = {{"database", row->database}, counters[i].label};
            metrics_sample(out, counters[i].name, labels, counters[i].label.name ? 2 : 1,
                           (double)*(const uint64_t *)base * counters[i].unit);
        }
    }
}

void metrics_write(const struct report *report, struct buffer *out)
{
    put_process(out, report);
    put_tls(out, report);
    put_recovery(out, report);
    put_maps(out, report);
    put_partitions(out, report);
    put_workers(out, report);
    put_pins(out, report);
    put_counters(out, report);
    metrics_write_accounts(report, out);
    metrics_write_pools(report, out);
    metrics_write_nodes(report, out);
}
