/* test_console.c: the console's language and tables, the report behind them, metrics, /api/status. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <ctype.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pgshunt/wire.h"
#include "proxy/console.h"
#include "proxy/console_command.h"
#include "proxy/console_show.h"
#include "proxy/console_words.h"
#include "proxy/metrics.h"
#include "proxy/report.h"

#define COUNT(rows) (sizeof(rows) / sizeof(rows)[0])

/* ---- a report made by hand ---- */

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

static struct topology *load_topology(void)
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

static struct node *node_at(const struct report *report, int database, int shard, int node)
{
    return report->topology->databases[database].shards[shard].nodes[node];
}

static void set_node(struct node *node, enum node_role role, int64_t lag_us, int64_t lag_bytes)
{
    atomic_store(&node->role, (int)role);
    atomic_store(&node->state, NODE_STATE_UP);
    atomic_store(&node->lag_us, lag_us);
    atomic_store(&node->lag_bytes, lag_bytes);
    atomic_store(&node->timeline, 2);
    atomic_store(&node->wal_position, 0x123456789ULL);
    atomic_store(&node->checked_at, 99950000);
}

/* Two workers' worth of clients: what the real ones add up. */
static struct report *new_report(void)
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

static void add_pools(struct report *report)
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

/* ---- reading results ---- */

/* Rows of a table as lines, cells between bars, NULL as ~. The caller frees it. */
static char *rows_text(const struct console_table *table)
{
    struct buffer text = {0};
    const char *at = buffer_head(&table->rows), *end = at + buffer_length(&table->rows);
    uint64_t rows = 0;
    while (at && at < end) {
        size_t length = wire_get32(at + 1);
        assert_int_equal(at[0], 'D');
        struct wire_reader reader = wire_reader(at + 5, length - 4);
        assert_int_equal(wire_read16(&reader), table->ncolumns);
        for (int i = 0; i < table->ncolumns; i++) {
            int32_t size = wire_read32(&reader);
            const char *cell = size < 0 ? "~" : wire_read_bytes(&reader, (size_t)size);
            buffer_printf(&text, "%s%.*s", i ? "|" : "", size < 0 ? 1 : (int)size, cell);
        }
        assert_false(reader.bad);
        assert_int_equal(wire_left(&reader), 0);
        buffer_printf(&text, "\n");
        at += 1 + length;
        rows++;
    }
    assert_int_equal(rows, table->count);
    buffer_append(&text, "", 1);
    char *copy = mem_strdup(buffer_head(&text));
    buffer_release(&text);
    return copy;
}

static char *run(const char *sql, const struct report *report)
{
    struct console_parsed parsed;
    struct console_table table;
    console_parse(sql, report->topology->config, &parsed);
    if (parsed.action != CONSOLE_SHOW)
        fail_msg("%s: %s", sql, parsed.error.message ? parsed.error.message : "no SHOW");
    console_table_init(&table, parsed.columns, parsed.ncolumns);
    parsed.command->fill(&table, report);
    assert_int_equal(table.at, 0);
    char *text = rows_text(&table);
    console_table_free(&table);
    return text;
}

static void check_show(const char *sql, const struct report *report, const char *expected)
{
    char *text = run(sql, report);
    assert_string_equal(text, expected);
    free(text);
}

static void check_has(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("no\n  %s\nin\n%s", part, text);
}

/* ---- the language ---- */

static const struct {
    const char *sql;
    enum console_action action;
    const char *tag; /* or the SQLSTATE of REFUSE */
    const char *rest;
} commands[] = {
    {"SHOW POOLS", CONSOLE_SHOW, "SHOW", ""},
    {"show pools;", CONSOLE_SHOW, "SHOW", ""},
    {"\n sHoW\t/* a /* nested */ one */ Stats -- to the end\n ; SHOW LISTS", CONSOLE_SHOW, "SHOW",
     " SHOW LISTS"},
    {"SHOW STATS_TOTALS", CONSOLE_SHOW, "SHOW", ""},
    {"", CONSOLE_EMPTY, "", ""},
    {";", CONSOLE_EMPTY, "", ""},
    {" -- nothing", CONSOLE_EMPTY, "", ""},
    {"SHOW client_encoding", CONSOLE_VALUE, "SHOW", ""},
    {"SHOW TRANSACTION ISOLATION LEVEL", CONSOLE_VALUE, "SHOW", ""},
    {"SHOW TIME ZONE", CONSOLE_VALUE, "SHOW", ""},
    {"show Pool.Size", CONSOLE_VALUE, "SHOW", ""},
    {"SHOW \"pool.size\"", CONSOLE_VALUE, "SHOW", ""},
    {"SELECT 1", CONSOLE_VALUE, "SELECT 1", ""},
    {"SELECT -5 AS x;", CONSOLE_VALUE, "SELECT 1", ""},
    {"SELECT 'it''s'", CONSOLE_VALUE, "SELECT 1", ""},
    {"select version()", CONSOLE_VALUE, "SELECT 1", ""},
    {"SELECT 99999999999", CONSOLE_REFUSE, "0A000", ""},
    {"SELECT * FROM pg_class; SHOW POOLS", CONSOLE_REFUSE, "0A000", ""},
    {"SET extra_float_digits = 3", CONSOLE_ACCEPT, "SET", ""},
    {"SET extra_float_digits=3", CONSOLE_ACCEPT, "SET", ""},
    {"SET SESSION statement_timeout TO 0", CONSOLE_ACCEPT, "SET", ""},
    {"SET client_encoding TO 'UTF8'", CONSOLE_ACCEPT, "SET", ""},
    {"SET NAMES 'utf-8'", CONSOLE_ACCEPT, "SET", ""},
    {"SET NAMES 'latin1'", CONSOLE_REFUSE, "22023", ""},
    {"SET client_encoding = latin1", CONSOLE_REFUSE, "22023", ""},
    {"SET application_name = 'me'", CONSOLE_SET_NAME, "SET", ""},
    {"SET TIME ZONE 'UTC'", CONSOLE_ACCEPT, "SET", ""},
    {"SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", CONSOLE_ACCEPT, "SET", ""},
    {"SET pool.size = 5", CONSOLE_REFUSE, "55P02", ""},
    {"SET nonsense = 5", CONSOLE_REFUSE, "42704", ""},
    {"SET", CONSOLE_REFUSE, "42601", ""},
    {"SET x", CONSOLE_REFUSE, "42601", ""},
    {"RESET ALL", CONSOLE_ACCEPT, "RESET", ""},
    {"BEGIN", CONSOLE_BEGIN, "BEGIN", ""},
    {"BEGIN ISOLATION LEVEL SERIALIZABLE", CONSOLE_BEGIN, "BEGIN", ""},
    {"START TRANSACTION READ ONLY", CONSOLE_BEGIN, "START TRANSACTION", ""},
    {"COMMIT", CONSOLE_COMMIT, "COMMIT", ""},
    {"end;", CONSOLE_COMMIT, "COMMIT", ""},
    {"ROLLBACK", CONSOLE_ROLLBACK, "ROLLBACK", ""},
    {"ROLLBACK TO x", CONSOLE_REFUSE, "42601", ""},
    {"DISCARD ALL", CONSOLE_DEALLOCATE_ALL, "DISCARD ALL", ""},
    {"DEALLOCATE ALL", CONSOLE_DEALLOCATE_ALL, "DEALLOCATE ALL", ""},
    {"DEALLOCATE \"a b\"", CONSOLE_DEALLOCATE, "DEALLOCATE", ""},
    {"DEALLOCATE PREPARE x", CONSOLE_DEALLOCATE, "DEALLOCATE", ""},
    {"RELOAD", CONSOLE_RELOAD, "RELOAD", ""},
    {"RELOAD now", CONSOLE_REFUSE, "42601", ""},
    {"SHUTDOWN", CONSOLE_SHUTDOWN, "SHUTDOWN", ""},
    {"SHUTDOWN WAIT_FOR_SERVERS", CONSOLE_SHUTDOWN, "SHUTDOWN", ""},
    {"SHUTDOWN IMMEDIATE", CONSOLE_SHUTDOWN_NOW, "SHUTDOWN", ""},
    {"SHUTDOWN WAIT_FOR_CLIENTS", CONSOLE_REFUSE, "0A000", ""},
    {"PAUSE app", CONSOLE_REFUSE, "0A000", ""},
    {"KILL_CLIENT 5", CONSOLE_REFUSE, "0A000", ""},
    {"SHOW FDS", CONSOLE_REFUSE, "0A000", ""},
    {"SHOW", CONSOLE_REFUSE, "42601", ""},
    {"SHOW POOLS extra", CONSOLE_REFUSE, "42601", ""},
    {"SHOW 'POOLS'", CONSOLE_REFUSE, "42601", ""},
    {"\"SHOW\" POOLS", CONSOLE_REFUSE, "42601", ""},
    {"SHOW POOLS'", CONSOLE_REFUSE, "42601", ""},
    {"/* SHOW POOLS", CONSOLE_REFUSE, "42601", ""},
    {"\xff\xfe", CONSOLE_REFUSE, "42601", ""},
    {"'", CONSOLE_REFUSE, "42601", ""},
    {"a a a a a a a a a a a a a a a a a a a a a a a a a a a", CONSOLE_REFUSE, "42601", ""},
};

static void test_language(void **state)
{
    struct report *report = new_report();
    (void)state;
    for (size_t i = 0; i < COUNT(commands); i++) {
        struct console_parsed parsed;
        size_t used = console_parse(commands[i].sql, report->topology->config, &parsed);
        if (parsed.action != commands[i].action)
            fail_msg("%s: action %d", commands[i].sql, (int)parsed.action);
        assert_string_equal(commands[i].sql + used, commands[i].rest);
        if (parsed.action != CONSOLE_REFUSE) {
            assert_string_equal(parsed.tag, commands[i].tag);
            continue;
        }
        assert_string_equal(parsed.error.sqlstate, commands[i].tag);
        assert_true(parsed.error.message[0]);
        assert_non_null(parsed.error.hint);
        assert_int_equal(parsed.ncolumns, 0);
    }
    report_free(report);
}

static const struct {
    const char *sql, *column, *value;
    enum console_type type;
} values[] = {
    {"SHOW datestyle", "DateStyle", "ISO, MDY", CONSOLE_TEXT},
    {"SHOW TimeZone", "TimeZone", "GMT", CONSOLE_TEXT},
    {"SHOW default_transaction_isolation", "default_transaction_isolation", "read committed",
     CONSOLE_TEXT},
    {"SHOW pool.size", "pool.size", "7", CONSOLE_TEXT},
    {"SELECT 1", "?column?", "1", CONSOLE_INT4},
    {"SELECT 'it''s' AS \"a\"\"b\"", "a\"b", "it's", CONSOLE_TEXT},
    {"SELECT pg_catalog.version()", "version", CONSOLE_VERSION, CONSOLE_TEXT},
};

static void test_values(void **state)
{
    struct report *report = new_report();
    struct console_parsed parsed;
    (void)state;
    for (size_t i = 0; i < COUNT(values); i++) {
        console_parse(values[i].sql, report->topology->config, &parsed);
        assert_int_equal(parsed.action, CONSOLE_VALUE);
        assert_int_equal(parsed.ncolumns, 1);
        assert_string_equal(parsed.columns[0].name, values[i].column);
        assert_int_equal(parsed.columns[0].type, values[i].type);
        assert_string_equal(parsed.value, values[i].value);
    }
    console_parse("SET application_name TO 'a''b'", report->topology->config, &parsed);
    assert_string_equal(parsed.value, "a'b");
    char *sql = mem_alloc(100000);
    memset(sql, 'x', 99999);
    memcpy(sql, "SHOW ", 5);
    assert_int_equal(console_parse(sql, report->topology->config, &parsed), 99999);
    assert_int_equal(parsed.action, CONSOLE_REFUSE);
    free(sql);
    report_free(report);
}

static void test_blank(void **state)
{
    (void)state;
    assert_true(console_is_blank(""));
    assert_true(console_is_blank(" ;; -- x\n/* y */;"));
    assert_false(console_is_blank(";x"));
    assert_false(console_is_blank("/* y"));
}

/* ---- columns ---- */

/* What tools depend on: the reference, literally. */
static const struct {
    const char *sql, *columns;
} layouts[] = {
    {"SHOW POOLS",
     "database:s user:s cl_active:i cl_waiting:i cl_active_cancel_req:i cl_waiting_cancel_req:i "
     "sv_active:i sv_active_cancel:i sv_being_canceled:i sv_idle:i sv_used:i sv_tested:i "
     "sv_login:i maxwait:i maxwait_us:i pool_mode:s load_balance_hosts:s "},
    {"SHOW CLIENTS",
     "type:s user:s database:s replication:s state:s addr:s port:i local_addr:s local_port:i "
     "connect_time:s request_time:s wait:i wait_us:i close_needed:i ptr:s link:s remote_pid:i "
     "tls:s application_name:s prepared_statements:i id:i "},
    {"SHOW STATS_TOTALS",
     "database:s server_assignment_count:N xact_count:N query_count:N bytes_received:N "
     "bytes_sent:N xact_time:N query_time:N wait_time:N client_parse_count:N "
     "server_parse_count:N bind_count:N client_login_count:N "},
    {"SHOW STATS_AVERAGES",
     "database:s server_assignment_count:N xact_count:N query_count:N bytes_received:N "
     "bytes_sent:N xact_time:N query_time:N wait_time:N avg_client_parse_count:N "
     "avg_server_parse_count:N avg_bind_count:N client_login_count:N "},
    {"SHOW TOTALS", "name:s value:N "},
    {"SHOW DATABASES",
     "name:s host:s port:i database:s force_user:s pool_size:i min_pool_size:i "
     "reserve_pool_size:i server_lifetime:i pool_mode:s load_balance_hosts:s max_connections:i "
     "current_connections:i max_client_connections:i current_client_connections:i paused:i "
     "disabled:i "},
    {"SHOW USERS", "name:s pool_size:s reserve_pool_size:s pool_mode:s max_user_connections:i "
                   "current_connections:i max_user_client_connections:i "
                   "current_client_connections:i "},
    {"SHOW LISTS", "list:s items:i "},
    {"SHOW CONFIG", "key:s value:s default:s changeable:s "},
    {"SHOW STATE", "key:s value:s "},
    {"SHOW VERSION", "version:s "},
};

static void test_columns(void **state)
{
    struct report *report = new_report();
    (void)state;
    for (size_t i = 0; i < COUNT(layouts); i++) {
        struct console_parsed parsed;
        struct buffer text = {0};
        console_parse(layouts[i].sql, report->topology->config, &parsed);
        for (int c = 0; c < parsed.ncolumns; c++)
            buffer_printf(&text, "%s:%c ", parsed.columns[c].name, (char)parsed.columns[c].type);
        assert_string_equal(buffer_head(&text), layouts[i].columns);
        buffer_release(&text);
    }
    report_free(report);
}

/* Every command that fills a table fills whole rows, of the right types, of an empty report too. */
static void test_all_commands(void **state)
{
    struct report *report = new_report();
    int count;
    (void)state;
    const struct console_command *all = console_commands(&count);
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < count; i++)
            if (all[i].fill)
                free(run(all[i].words, report));
        add_pools(report);
    }
    report_free(report);
}

/* ---- tables ---- */

static const struct console_column all_types[] = {
    {"s", CONSOLE_TEXT}, {"b", CONSOLE_BOOL},    {"i", CONSOLE_INT4},
    {"q", CONSOLE_INT8}, {"n", CONSOLE_NUMERIC},
};

static void fill_all_types(struct console_table *table, int64_t number)
{
    console_text(table, "x");
    console_bool(table, true);
    console_integer(table, number);
    console_integer(table, number);
    console_integer(table, number);
}

static void test_text_cells(void **state)
{
    struct console_table table;
    (void)state;
    console_table_init(&table, all_types, 5);
    fill_all_types(&table, -1);
    fill_all_types(&table, INT64_MAX); /* int4 takes its limit */
    console_text(&table, NULL);
    for (int i = 0; i < 4; i++)
        console_null(&table);
    char *text = rows_text(&table);
    assert_string_equal(text, "x|t|-1|-1|-1\n"
                              "x|t|2147483647|9223372036854775807|9223372036854775807\n"
                              "~|~|~|~|~\n");
    free(text);
    console_table_free(&table);
}

#define CELLS(bytes) bytes, sizeof(bytes) - 1

/* As numeric_send() of Postgres writes them. */
static const struct {
    int64_t number;
    const char *bytes;
    size_t length;
} numerics[] = {
    {0, CELLS("\0\0\0\x08\0\0\0\0\0\0\0\0")},
    {7, CELLS("\0\0\0\x0a\0\1\0\0\0\0\0\0\0\7")},
    {-10000, CELLS("\0\0\0\x0c\0\2\0\1\x40\0\0\0\0\1\0\0")},
};

static void test_binary_cells(void **state)
{
    static const int16_t binary[] = {1}, mixed[] = {0, 1, 1, 1, 0};
    struct console_table table;
    (void)state;
    for (size_t i = 0; i < COUNT(numerics); i++) {
        console_table_init(&table, all_types + 4, 1);
        table.formats = binary;
        table.nformats = 1;
        console_integer(&table, numerics[i].number);
        assert_int_equal(buffer_length(&table.rows), 7 + numerics[i].length);
        assert_memory_equal(buffer_head(&table.rows) + 7, numerics[i].bytes, numerics[i].length);
        console_table_free(&table);
    }
    console_table_init(&table, all_types, 5);
    table.formats = mixed;
    table.nformats = 5;
    fill_all_types(&table, 258);
    static const char expected[] = "\0\0\0\1x\0\0\0\1\1\0\0\0\4\0\0\1\2"
                                   "\0\0\0\x08\0\0\0\0\0\0\1\2\0\0\0\3"
                                   "258";
    assert_int_equal(buffer_length(&table.rows), 7 + sizeof expected - 1);
    assert_memory_equal(buffer_head(&table.rows) + 7, expected, sizeof expected - 1);
    console_table_free(&table);
}

/* The largest number: 922 3372 0368 5477 5807 in base 10000. */
static void test_largest_numeric(void **state)
{
    static const int16_t binary[] = {1};
    static const int digits[] = {922, 3372, 368, 5477, 5807};
    struct console_table table;
    (void)state;
    console_table_init(&table, all_types + 4, 1);
    table.formats = binary;
    table.nformats = 1;
    console_integer(&table, INT64_MAX);
    const char *cell = buffer_head(&table.rows) + 7;
    assert_int_equal(wire_get32(cell), 18);
    assert_int_equal(wire_get16(cell + 4), 5);
    assert_int_equal(wire_get16(cell + 6), 4);
    for (int i = 0; i < 5; i++)
        assert_int_equal(wire_get16(cell + 12 + 2 * i), digits[i]);
    console_table_free(&table);
}

static void test_row_description(void **state)
{
    static const int16_t formats[] = {1};
    static const uint32_t oids[] = {25, 16, 23, 20, 1700};
    static const int sizes[] = {-1, 1, 4, 8, -1};
    struct buffer out = {0};
    struct wire_field fields[5];
    (void)state;
    console_put_columns(&out, all_types, 5, formats, 1);
    assert_int_equal(buffer_head(&out)[0], 'T');
    assert_int_equal(
        wire_read_row_description(buffer_head(&out) + 5, buffer_length(&out) - 5, fields, 5), 5);
    for (int i = 0; i < 5; i++) {
        assert_string_equal(fields[i].name, all_types[i].name);
        assert_int_equal(fields[i].type_oid, oids[i]);
        assert_int_equal(fields[i].type_size, sizes[i]);
        assert_int_equal(fields[i].format, 1);
    }
    buffer_release(&out);
}

/* ---- answers ---- */

static void test_pools(void **state)
{
    struct report *report = new_report();
    (void)state;
    add_pools(report);
    check_show("SHOW POOLS", report,
               "app|ann|6|2|2|0|2|2|0|4|0|0|2|2|500001|transaction|~\n"
               "app|bob|1|0|0|0|0|0|0|0|0|0|0|0|0|transaction|~\n"
               "pgshunt|ann|1|0|0|0|0|0|0|0|0|0|0|0|0|statement|~\n");
    report_free(report);
}

/* Idle server connections are shown when their users have left. */
static void test_pools_without_clients(void **state)
{
    struct report *report = new_report();
    (void)state;
    report_pool(report, "app", "gone", node_at(report, 0, 0, 0))->idle = 2;
    check_show("SHOW POOLS", report, "app|gone|0|0|0|0|0|0|0|2|0|0|0|0|0|transaction|~\n");
    report_free(report);
}

static void test_databases(void **state)
{
    struct report *report = new_report();
    (void)state;
    add_pools(report);
    check_show("SHOW DATABASES", report,
               "app|10.0.0.1,10.0.0.2,fd00::1|5501|one|~|7|0|0|3600|transaction|~|0|8|0|9|0|0\n"
               "plain|10.0.0.9|5432|plain|svc|3|0|0|3600|transaction|~|0|0|0|0|0|0\n"
               "pgshunt|~|6543|pgshunt|~|0|0|0|0|statement|~|0|0|0|1|0|0\n");
    report_free(report);
}

static void test_users_and_lists(void **state)
{
    struct report *report = new_report();
    (void)state;
    add_pools(report);
    report->logging_in = 4;
    check_show("SHOW USERS", report, "ann|~|~|~|0|8|0|9\nbob|~|~|~|0|0|0|1\n");
    check_show("SHOW LISTS", report,
               "databases|3\nusers|2\npeers|0\npools|3\npeer_pools|0\nfree_clients|0\n"
               "used_clients|10\nlogin_clients|4\nfree_servers|0\nused_servers|8\ndns_names|0\n"
               "dns_zones|0\ndns_queries|0\ndns_pending|0\n");
    report_free(report);
}

static void test_connections(void **state)
{
    struct report *report = new_report();
    const void *links[] = {(void *)0x20, (void *)0x30};
    (void)state;
    struct report_connection *client = report_connection(report, &report->clients);
    client->user = "ann";
    client->database = "app";
    client->state = "active";
    client->address = "127.0.0.1";
    client->port = 1000;
    client->connected_at = report->now - 3600 * 1000000LL;
    client->wait_us = 1000002;
    client->object = (void *)0x10;
    client->links = links;
    client->nlinks = 2;
    client->id = 513;
    check_show("SHOW CLIENTS", report,
               "C|ann|app|none|active|127.0.0.1|1000||0|2023-11-14 21:13:20 UTC|~|1|2|0|0x10|"
               "0x20,0x30|0|||0|513\n");
    report_free(report);
}

static void test_stats(void **state)
{
    struct report *report = new_report();
    struct worker_stats counts = {.queries = 100, .query_us = 5000, .bytes_in = 70},
                        period = {.queries = 40,
                                  .query_us = 1000,
                                  .bytes_in = 55,
                                  .transactions = 0,
                                  .xact_us = 9};
    (void)state;
    report_add_counts(&report_stats(report, "app")->counts, &counts);
    report_add_counts(&report_stats(report, "app")->counts, &counts);
    report_add_counts(&report_stats(report, "app")->period, &period);
    report_stats(report, "aaa");
    report_sort(report);
    /* The period was 10 s: 4 queries and 5.5 bytes a second, 25 us a query. */
    check_show("SHOW STATS", report,
               "aaa|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0\n"
               "app|0|0|200|140|0|0|10000|0|0|0|0|0|0|0|4|5|0|0|25|0|0|0|0|0\n");
    check_show("SHOW STATS_TOTALS", report,
               "aaa|0|0|0|0|0|0|0|0|0|0|0|0\napp|0|0|200|140|0|0|10000|0|0|0|0|0\n");
    check_show("SHOW STATS_AVERAGES", report,
               "aaa|0|0|0|0|0|0|0|0|0|0|0|0\napp|0|0|4|5|0|0|25|0|0|0|0|0\n");
    char *sums = run("SHOW TOTALS", report);
    check_has(sums, "total_query_count|200\n");
    check_has(sums, "avg_client_bytes|5\n");
    free(sums);
    report_free(report);
}

static void test_nodes_and_shards(void **state)
{
    struct report *report = new_report();
    char expected[1024];
    (void)state;
    add_pools(report);
    int first = node_at(report, 0, 0, 0)->id;
    snprintf(expected, sizeof expected,
             "app|s0|%d|10.0.0.1|5501||1|primary|up|t|0|0|1/23456789|2|f|50|0|0|2|4|0|0\n"
             "app|s0|%d|10.0.0.2|5502|eu|1|replica|up|f|1|4096|1/23456789|2|f|50|0|0|0|0|2|2\n"
             "app|s1|%d|fd00::1|5501||1|unknown|unknown|f|~|~|~|~|f|~|0|0|0|0|0|0\n"
             "plain|s0|%d|10.0.0.9|5432||1|unknown|unknown|f|~|~|~|~|f|~|0|0|0|0|0|0\n",
             first, first + 1, first + 2, first + 3);
    check_show("SHOW NODES", report, expected);
    check_show("SHOW SHARDS", report,
               "app|s0|0|one|10.0.0.1:5501|2|2|1|3|12288|users=12288|2|4\n"
               "app|s1|1|two|~|1|0|0|1|4096|users=4096|0|0\n"
               "plain|s0|0|plain|~|1|0|0|1|0||0|0\n");
    report_free(report);
}

static void test_config_and_state(void **state)
{
    struct report *report = new_report();
    (void)state;
    char *text = run("SHOW CONFIG", report);
    check_has(text, "pool.size|7|20|yes\n");
    check_has(text, "listen.port|6543|6432|no\n");
    check_has(text, "max_client_conn|99|1000|yes\nmax_user_connections|0|0|no\n");
    free(text);
    report->draining = true;
    check_show("SHOW STATE", report, "active|no\npaused|no\nsuspended|no\ndraining|yes\n");
    check_show("SHOW VERSION", report, CONSOLE_VERSION "\n");
    report_free(report);
}

/* ---- texts ---- */

static const struct {
    const char *raw, *text;
} texts[] = {
    {"plain", "plain"},
    {"", ""},
    {"\xc3\xa9\xe2\x82\xac\xf0\x9f\x90\x98", "\xc3\xa9\xe2\x82\xac\xf0\x9f\x90\x98"},
    {"a\xff"
     "b",
     "a\\xffb"},
    {"\xc3", "\\xc3"},                            /* cut */
    {"\xc0\xaf", "\\xc0\\xaf"},                   /* overlong */
    {"\xe0\x80\x80", "\\xe0\\x80\\x80"},          /* overlong */
    {"\xed\xa0\x80", "\\xed\\xa0\\x80"},          /* surrogate */
    {"\xf4\x90\x80\x80", "\\xf4\\x90\\x80\\x80"}, /* beyond Unicode */
    {"\xf0\x80\x80\x80", "\\xf0\\x80\\x80\\x80"},
};

static const struct {
    const char *sql, *plain;
} quoted[] = {
    {"'psql'", "psql"}, {"'it''s'", "it's"}, {" E'a\\\\b\\'c'", "a\\b'c"},      {"\1'x'", "x"},
    {"word", "word"},   {"''", ""},          {"'unterminated", "unterminated"}, {"", ""},
};

static void test_texts(void **state)
{
    struct arena arena;
    (void)state;
    arena_init(&arena);
    for (size_t i = 0; i < COUNT(texts); i++)
        assert_string_equal(report_text(&arena, texts[i].raw), texts[i].text);
    for (size_t i = 0; i < COUNT(quoted); i++)
        assert_string_equal(report_unquote(&arena, quoted[i].sql), quoted[i].plain);
    arena_free(&arena);
}

/* Names that are shown alike are one row: no tool sees two. */
static void test_names_are_unique(void **state)
{
    struct report *report = new_report();
    (void)state;
    report_account(report, "app", "x\xff")->idle++;
    report_account(report, "app", "x\\xff")->idle++;
    check_show("SHOW POOLS", report, "app|x\\xff|2|0|0|0|0|0|0|0|0|0|0|0|0|transaction|~\n");
    report_free(report);
}

/* ---- metrics: read back as Prometheus does ---- */

#define SAMPLES_MAX 8192

struct exposition {
    char *samples[SAMPLES_MAX]; /* name and labels; all different */
    double values[SAMPLES_MAX];
    int count;
    char families[200][80];
    int nfamilies;
    char type[16]; /* of the last family */
};

static bool is_name_char(char c, bool first)
{
    return isalpha((unsigned char)c) || c == '_' || (!first && isdigit((unsigned char)c));
}

static const char *scan_name(const char *p)
{
    assert_true(is_name_char(*p, true));
    while (is_name_char(*p, false))
        p++;
    return p;
}

/* {name="value",...}: behind the closing brace. Only \\, \" and \n may be escaped. */
static const char *scan_labels(const char *p)
{
    assert_int_equal(*p++, '{');
    for (;;) {
        p = scan_name(p);
        assert_int_equal(*p++, '=');
        assert_int_equal(*p++, '"');
        while (*p != '"') {
            assert_true(*p != '\n' && *p != '\0');
            if (*p == '\\') {
                p++;
                assert_non_null(strchr("\\\"n", *p));
            }
            p++;
        }
        if (*++p == ',')
            p++;
        else
            break;
    }
    assert_int_equal(*p, '}');
    return p + 1;
}

static void read_help(struct exposition *out, const char *line)
{
    const char *end = scan_name(line);
    assert_int_equal(*end, ' ');
    assert_true(end[1] != '\0');
    int length = (int)(end - line);
    for (int i = 0; i < out->nfamilies; i++)
        assert_false(strncmp(out->families[i], line, (size_t)length) == 0 &&
                     !out->families[i][length]);
    assert_true(out->nfamilies < 200 && length < 80);
    snprintf(out->families[out->nfamilies++], 80, "%.*s", length, line);
}

static void read_type(struct exposition *out, const char *line)
{
    const char *family = out->families[out->nfamilies - 1];
    size_t length = strlen(family);
    assert_memory_equal(line, family, length);
    assert_int_equal(line[length], ' ');
    snprintf(out->type, sizeof out->type, "%s", line + length + 1);
    bool counter = strcmp(out->type, "counter") == 0;
    assert_true(counter || strcmp(out->type, "gauge") == 0);
    bool total = length > 6 && strcmp(family + length - 6, "_total") == 0;
    assert_int_equal(counter, total);
}

static void read_sample(struct exposition *out, const char *line)
{
    const char *end = scan_name(line);
    char *rest;
    /* Samples of a family stand together, behind its HELP and TYPE. */
    const char *family = out->families[out->nfamilies - 1];
    assert_int_equal(strlen(family), end - line);
    assert_memory_equal(family, line, strlen(family));
    if (*end == '{')
        end = scan_labels(end);
    assert_int_equal(*end, ' ');
    char *key = mem_strdup(line);
    key[end - line] = '\0';
    for (int i = 0; i < out->count; i++)
        if (strcmp(out->samples[i], key) == 0)
            fail_msg("twice: %s", key);
    assert_true(out->count < SAMPLES_MAX);
    out->samples[out->count] = key;
    out->values[out->count++] = strtod(end + 1, &rest);
    assert_string_equal(rest, "");
}

static struct exposition *read_metrics(const struct report *report)
{
    struct exposition *out = mem_alloc(sizeof *out);
    struct buffer text = {0};
    metrics_write(report, &text);
    assert_int_equal(buffer_head(&text)[buffer_length(&text) - 1], '\n');
    buffer_append(&text, "", 1);
    assert_int_equal(strlen(buffer_head(&text)) + 1, buffer_length(&text));
    struct arena arena;
    arena_init(&arena);
    assert_string_equal(report_text(&arena, buffer_head(&text)), buffer_head(&text));
    arena_free(&arena);
    for (char *line = buffer_head(&text), *end; *line; line = end + 1) {
        end = strchr(line, '\n');
        *end = '\0';
        if (strncmp(line, "# HELP ", 7) == 0)
            read_help(out, line + 7);
        else if (strncmp(line, "# TYPE ", 7) == 0)
            read_type(out, line + 7);
        else
            read_sample(out, line);
    }
    buffer_release(&text);
    return out;
}

static void free_metrics(struct exposition *metrics)
{
    for (int i = 0; i < metrics->count; i++)
        free(metrics->samples[i]);
    free(metrics);
}

static int find_sample(const struct exposition *metrics, const char *sample)
{
    for (int i = 0; i < metrics->count; i++)
        if (strcmp(metrics->samples[i], sample) == 0)
            return i;
    return -1;
}

static void check_sample(const struct exposition *metrics, const char *sample, double value)
{
    int at = find_sample(metrics, sample);
    if (at < 0)
        fail_msg("no %s", sample);
    if (metrics->values[at] != value)
        fail_msg("%s is %.17g", sample, metrics->values[at]);
}

static void test_metrics(void **state)
{
    struct report *report = new_report();
    struct worker_stats counts = {
        .queries = 3, .query_us = 1500000, .scatter = 2, .reads_on_replica = 4};
    (void)state;
    add_pools(report);
    report_add_counts(&report_stats(report, "app")->counts, &counts);
    struct exposition *metrics = read_metrics(report);
    check_sample(metrics, "pgshunt_build_info{version=\"" PGSHUNT_VERSION "\"}", 1);
    check_sample(metrics, "pgshunt_start_time_seconds", 1700000000 - 60);
    check_sample(metrics, "pgshunt_queries_total{database=\"app\"}", 3);
    check_sample(metrics, "pgshunt_query_seconds_total{database=\"app\"}", 1.5);
    check_sample(metrics, "pgshunt_statements_total{database=\"app\",gear=\"scatter\"}", 2);
    check_sample(metrics, "pgshunt_reads_total{database=\"app\",role=\"replica\"}", 4);
    check_sample(metrics, "pgshunt_clients{database=\"app\",user=\"ann\",state=\"idle\"}", 6);
    check_sample(metrics,
                 "pgshunt_server_connections{database=\"app\",user=\"ann\",shard=\"s0\","
                 "node=\"10.0.0.1:5501\",state=\"idle\"}",
                 4);
    check_sample(metrics,
                 "pgshunt_pool_longest_wait_seconds{database=\"app\",user=\"ann\",shard=\"s0\","
                 "node=\"10.0.0.2:5502\"}",
                 2.500001);
#define REPLICA "{database=\"app\",shard=\"s0\",node=\"10.0.0.2:5502\",region=\"eu\""
#define UNSEEN "{database=\"app\",shard=\"s1\",node=\"[fd00::1]:5501\",region=\"\""
    check_sample(metrics, "pgshunt_node_lag_seconds" REPLICA "}", 0.001499);
    check_sample(metrics, "pgshunt_node_lag_bytes" REPLICA "}", 4096);
    check_sample(metrics, "pgshunt_node_role" REPLICA ",role=\"replica\"}", 1);
    check_sample(metrics, "pgshunt_node_role" REPLICA ",role=\"primary\"}", 0);
    check_sample(metrics, "pgshunt_node_up" UNSEEN "}", 0);
    assert_int_equal(find_sample(metrics, "pgshunt_node_lag_seconds" UNSEEN "}"), -1);
    check_sample(metrics, "pgshunt_shard_has_primary{database=\"app\",shard=\"s0\"}", 1);
    check_sample(metrics, "pgshunt_shard_has_primary{database=\"app\",shard=\"s1\"}", 0);
    check_sample(metrics, "pgshunt_shard_buckets{database=\"app\",keyspace=\"users\",shard=\"s0\"}",
                 12288);
    free_metrics(metrics);
    report_free(report);
}

static void test_metrics_of_hostile_names(void **state)
{
    static const char *const names[] = {"\"",   "\\",           "\n", "\\n",     "a\"} 1\nevil 1",
                                        "\xff", "\xed\xa0\x80", "",   "(others)"};
    struct report *report = new_report();
    (void)state;
    for (size_t i = 0; i < COUNT(names); i++) {
        report_account(report, "app", names[i])->idle = 1;
        report_pool(report, "app", names[i], node_at(report, 0, 0, 0))->idle = 1;
    }
    report_sort(report);
    struct exposition *metrics = read_metrics(report);
    check_sample(metrics, "pgshunt_clients{database=\"app\",user=\"\\\"\",state=\"idle\"}", 1);
    check_sample(metrics, "pgshunt_clients{database=\"app\",user=\"\\n\",state=\"idle\"}", 1);
    check_sample(metrics, "pgshunt_clients{database=\"app\",user=\"\\\\n\",state=\"idle\"}", 1);
    check_sample(metrics, "pgshunt_clients{database=\"app\",user=\"\\\\xff\",state=\"idle\"}", 1);
    check_sample(metrics, "pgshunt_clients{database=\"app\",user=\"(others)\",state=\"idle\"}", 1);
    free_metrics(metrics);
    report_free(report);
}

/* Users that anybody can make up do not make metrics without end. */
static void test_metrics_are_bounded(void **state)
{
    struct report *report = new_report();
    int users = METRICS_ACCOUNTS_MAX + 100;
    (void)state;
    for (int i = 0; i < users; i++) {
        char name[16];
        snprintf(name, sizeof name, "u%04d", i);
        report_account(report, "app", name)->idle = 1;
        report_account(report, "plain", name)->idle = 1;
    }
    report_account(report, "app", "(others)")->idle = 1;
    report_sort(report);
    struct exposition *metrics = read_metrics(report);
    check_sample(metrics, "pgshunt_clients{database=\"app\",user=\"u0000\",state=\"idle\"}", 1);
    check_sample(metrics, "pgshunt_clients{database=\"app\",user=\"(others)\",state=\"idle\"}",
                 101);
    check_sample(metrics, "pgshunt_clients{database=\"plain\",user=\"(others)\",state=\"idle\"}",
                 users);
    free_metrics(metrics);
    report_free(report);
}

/* A pool of a node that has left the configuration has no shard to be labelled with. */
static void test_metrics_without_retired_nodes(void **state)
{
    struct report *report = new_report(), *other = new_report();
    (void)state;
    report_pool(report, "app", "ann", node_at(report, 0, 0, 0))->idle = 1;
    report_pool(report, "app", "ann", node_at(other, 0, 0, 0))->idle = 5;
    struct exposition *metrics = read_metrics(report);
    check_sample(metrics,
                 "pgshunt_server_connections{database=\"app\",user=\"ann\",shard=\"s0\","
                 "node=\"10.0.0.1:5501\",state=\"idle\"}",
                 1);
    free_metrics(metrics);
    check_show("SHOW POOLS", report, "app|ann|0|0|0|0|0|0|0|6|0|0|0|0|0|transaction|~\n");
    report_free(report);
    report_free(other);
}

static void test_sample_values(void **state)
{
    static const struct {
        double value;
        const char *text;
    } cases[] = {
        {0, "pgshunt_x 0\n"},
        {-3, "pgshunt_x -3\n"},
        {0.1, "pgshunt_x 0.1\n"},
        {1e300, "pgshunt_x 1e+300\n"},
        {9007199254740991.0, "pgshunt_x 9007199254740991\n"},
        {123456789012345.0, "pgshunt_x 123456789012345\n"},
        {1.0 / 0.0, "pgshunt_x +Inf\n"},
        {-1.0 / 0.0, "pgshunt_x -Inf\n"},
        {0.0 / 0.0, "pgshunt_x NaN\n"},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct buffer out = {0};
        metrics_sample(&out, "x", NULL, 0, cases[i].value);
        buffer_append(&out, "", 1);
        assert_string_equal(buffer_head(&out), cases[i].text);
        buffer_release(&out);
    }
    struct buffer out = {0};
    metrics_family(&out, "x", "gauge", "a\\b\nc");
    buffer_append(&out, "", 1);
    assert_string_equal(buffer_head(&out), "# HELP pgshunt_x a\\\\b\\nc\n# TYPE pgshunt_x gauge\n");
    buffer_release(&out);
}

/* ---- /api/status, /readyz ---- */

static void test_json(void **state)
{
    struct report *report = new_report();
    json_error_t error;
    (void)state;
    add_pools(report);
    report_account(report, "app", "\xff")->idle = 1;
    char *text = report_json(report);
    json_t *root = json_loads(text, 0, &error);
    free(text);
    if (!root)
        fail_msg("%s", error.text);
    const char *host, *user;
    json_t *lag, *primary;
    json_int_t idle;
    assert_int_equal(json_array_size(json_object_get(root, "databases")), 2);
    json_t *shards =
        json_object_get(json_array_get(json_object_get(root, "databases"), 0), "shards");
    assert_int_equal(json_unpack(json_array_get(shards, 0), "{s:[{s:s}]}", "nodes", "host", &host),
                     0);
    assert_string_equal(host, "10.0.0.1");
    assert_int_equal(json_unpack(json_array_get(shards, 1), "{s:o, s:[{s:o}]}", "primary", &primary,
                                 "nodes", "lag_ms", &lag),
                     0);
    assert_true(json_is_null(lag));
    assert_true(json_is_null(primary));
    json_t *pool = json_array_get(json_object_get(root, "pools"), 0);
    assert_int_equal(json_unpack(pool, "{s:s, s:I}", "user", &user, "clients_idle", &idle), 0);
    assert_string_equal(user, "ann");
    assert_int_equal(idle, 6);
    json_decref(root);
    report_free(report);
}

static void check_ready(const struct report *report, bool ready, const char *reasons)
{
    struct buffer out = {0};
    assert_int_equal(report_ready(report, &out), ready);
    buffer_append(&out, "", 1);
    assert_string_equal(buffer_head(&out), reasons);
    buffer_release(&out);
}

static void test_ready(void **state)
{
    struct report *report = new_report();
    (void)state;
    check_ready(report, false,
                "database app: shard s1 has no primary\n"
                "database plain: shard s0 has no primary\n");
    set_node(node_at(report, 0, 1, 0), NODE_ROLE_PRIMARY, 0, 0);
    set_node(node_at(report, 1, 0, 0), NODE_ROLE_PRIMARY, 0, 0);
    check_ready(report, true, "");
    report->draining = true;
    check_ready(report, false, "pgshunt is shutting down\n");
    report_free(report);
}

/* ---- who may, and the greeting ---- */

static void test_admission(void **state)
{
    struct user_config users[] = {{.name = "app"}, {.name = "root", .admin = true}};
    struct config config = {.auth_method = AUTH_TRUST, .users = users, .nusers = 2};
    (void)state;
    assert_true(console_is_name("pgshunt") && console_is_name("pgbouncer"));
    assert_false(console_is_name("PGSHUNT") || console_is_name("app") || console_is_name(""));
    assert_true(console_is_admin(&config, "root"));
    assert_false(console_is_admin(&config, "app"));
    assert_false(console_is_admin(&config, "stranger"));
    config.nusers = 0;
    assert_true(console_is_admin(&config, "stranger"));
    config.auth_method = AUTH_SCRAM;
    assert_false(console_is_admin(&config, "stranger"));
}

static void test_greeting(void **state)
{
    struct buffer out = {0};
    (void)state;
    console_parameters(&out);
    int found = 0;
    for (size_t at = 0; at < buffer_length(&out);) {
        const char *message = buffer_head(&out) + at;
        size_t length = wire_get32(message + 1);
        struct wire_reader reader = wire_reader(message + 5, length - 4);
        const char *name = wire_read_cstring(&reader), *value = wire_read_cstring(&reader);
        assert_int_equal(message[0], 'S');
        assert_false(reader.bad);
        found += strcmp(name, "client_encoding") == 0 && strcmp(value, "UTF8") == 0;
        found += strcmp(name, "standard_conforming_strings") == 0 && strcmp(value, "on") == 0;
        found += strcmp(name, "server_version") == 0 && isdigit((unsigned char)value[0]);
        at += 1 + length;
    }
    assert_int_equal(found, 3);
    buffer_release(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_language),
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_blank),
        cmocka_unit_test(test_columns),
        cmocka_unit_test(test_all_commands),
        cmocka_unit_test(test_text_cells),
        cmocka_unit_test(test_binary_cells),
        cmocka_unit_test(test_largest_numeric),
        cmocka_unit_test(test_row_description),
        cmocka_unit_test(test_pools),
        cmocka_unit_test(test_pools_without_clients),
        cmocka_unit_test(test_databases),
        cmocka_unit_test(test_users_and_lists),
        cmocka_unit_test(test_connections),
        cmocka_unit_test(test_stats),
        cmocka_unit_test(test_nodes_and_shards),
        cmocka_unit_test(test_config_and_state),
        cmocka_unit_test(test_texts),
        cmocka_unit_test(test_names_are_unique),
        cmocka_unit_test(test_metrics),
        cmocka_unit_test(test_metrics_of_hostile_names),
        cmocka_unit_test(test_metrics_are_bounded),
        cmocka_unit_test(test_metrics_without_retired_nodes),
        cmocka_unit_test(test_sample_values),
        cmocka_unit_test(test_json),
        cmocka_unit_test(test_ready),
        cmocka_unit_test(test_admission),
        cmocka_unit_test(test_greeting),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
