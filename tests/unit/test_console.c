/* test_console.c: the console's language, its tables and their bytes, and what fills them. */
#include "tests/unit/report_support.h"

#include <ctype.h>

#include "pgshunt/wire.h"
#include "proxy/console.h"
#include "proxy/console_command.h"
#include "proxy/console_role.h"
#include "proxy/console_show.h"

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
    {"SHUTDOWN WAIT_FOR_CLIENTS", CONSOLE_SHUTDOWN_CLIENTS, "SHUTDOWN", ""},
    {"PAUSE", CONSOLE_CONTROL, "PAUSE", ""},
    {"pause app; RESUME", CONSOLE_CONTROL, "PAUSE", " RESUME"},
    {"PAUSE \"my \"\"db\"", CONSOLE_CONTROL, "PAUSE", ""},
    {"PAUSE 7", CONSOLE_REFUSE, "42601", ""},
    {"PAUSE app now", CONSOLE_REFUSE, "42601", ""},
    {"RESUME app", CONSOLE_CONTROL, "RESUME", ""},
    {"RECONNECT", CONSOLE_CONTROL, "RECONNECT", ""},
    {"WAIT_CLOSE app", CONSOLE_CONTROL, "WAIT_CLOSE", ""},
    {"DISABLE app", CONSOLE_CONTROL, "DISABLE", ""},
    {"DISABLE", CONSOLE_REFUSE, "42601", ""},
    {"ENABLE app", CONSOLE_CONTROL, "ENABLE", ""},
    {"ENABLE \"\"", CONSOLE_REFUSE, "42601", ""},
    {"KILL", CONSOLE_CONTROL, "KILL", ""},
    {"KILL_CLIENT 5", CONSOLE_CONTROL, "KILL_CLIENT", ""},
    {"KILL_CLIENT", CONSOLE_REFUSE, "42601", ""},
    {"KILL_CLIENT app", CONSOLE_REFUSE, "42601", ""},
    {"KILL_CLIENT -5", CONSOLE_REFUSE, "42601", ""},
    {"KILL_CLIENT 1.5", CONSOLE_REFUSE, "42601", ""},
    {"KILL_CLIENT 99999999999", CONSOLE_REFUSE, "42601", ""},
    {"SUSPEND", CONSOLE_CONTROL, "SUSPEND", ""},
    {"HOLD app s0; CHECK", CONSOLE_CONTROL, "HOLD", " CHECK"},
    {"HOLD app \"my shard\" 5000", CONSOLE_CONTROL, "HOLD", ""},
    {"HOLD app", CONSOLE_REFUSE, "42601", ""},
    {"HOLD app s0 0", CONSOLE_REFUSE, "42601", ""},
    {"HOLD app s0 300001", CONSOLE_REFUSE, "42601", ""},
    {"HOLD app s0 99999999999", CONSOLE_REFUSE, "42601", ""},
    {"HOLD app s0 5s", CONSOLE_REFUSE, "42601", ""},
    {"HOLD app s0 5 6", CONSOLE_REFUSE, "42601", ""},
    {"HOLD \"\" s0", CONSOLE_REFUSE, "42601", ""},
    {"DRAIN app s0", CONSOLE_CONTROL, "DRAIN", ""},
    {"DRAIN app s0 5", CONSOLE_REFUSE, "42601", ""},
    {"RELEASE app s0", CONSOLE_CONTROL, "RELEASE", ""},
    {"RELEASE", CONSOLE_REFUSE, "42601", ""},
    {"CHECK", CONSOLE_CONTROL, "CHECK", ""},
    {"CHECK app", CONSOLE_REFUSE, "42601", ""},
    {"SUSPEND app", CONSOLE_REFUSE, "42601", ""},
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
     "tls:s application_name:s prepared_statements:i id:i pin_reason:s "},
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
               "0x20,0x30|0|||0|513|\n");
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
    snprintf(
        expected, sizeof expected,
        "app|s0|%d|10.0.0.1|5501||1|primary|up|t|0|0|1/23456789|2|f|50|0|0|closed|0|f|2|4|0|0|0\n"
        "app|s0|%d|10.0.0.2|5502|eu|1|replica|up|f|1|4096|1/"
        "23456789|2|f|50|0|0|closed|0|f|0|0|2|2|0\n"
        "app|s1|%d|fd00::1|5501||1|unknown|unknown|f|~|~|~|~|f|~|0|0|closed|0|f|0|0|0|0|0\n"
        "plain|s0|%d|10.0.0.9|5432||1|unknown|unknown|f|~|~|~|~|f|~|0|0|closed|0|f|0|0|0|0|0\n",
        first, first + 1, first + 2, first + 3);
    check_show("SHOW NODES", report, expected);
    check_show("SHOW SHARDS", report,
               "app|s0|0|one|10.0.0.1:5501|2|2|1|3|12288|users=12288|2|4\n"
               "app|s1|1|two|~|1|0|0|1|4096|users=4096|0|0\n"
               "plain|s0|0|plain|~|1|0|0|1|0||0|0\n");
    report_free(report);
}

static void test_maps_and_proxies(void **state)
{
    struct report *report = new_report();
    const struct catalog_proxy proxies[] = {
        {"a-1", "px1", "1.0", 11, 3, 7, 2, 5, 3, "", 11000, 0.25},
        {"b-2", "px2", "1.0", 12, 2, 0, 0, 0, 2, "", 11000, 1.5},
    };
    (void)state;
    check_show("SHOW MAPS", report, "");
    check_show("SHOW PROXIES", report, "");
    report->maps[0] = (struct catalog_watch_report){.watched = true,
                                                    .epoch = 3,
                                                    .hold = 7,
                                                    .busy = 2,
                                                    .held = 5,
                                                    .changes = 4,
                                                    .self = "b-2",
                                                    .proxies = proxies,
                                                    .nproxies = 2};
    check_show("SHOW MAPS", report, "app|3|7|2|5|~|~|4\n");
    check_show("SHOW PROXIES", report,
               "app|a-1|px1|11|1.0|f|3|7|2|5|250\napp|b-2|px2|12|1.0|t|2|0|0|0|1500\n");
    report->maps[0].read_at = report->now - 2000000;
    snprintf(report->maps[0].primary, sizeof report->maps[0].primary, "10.0.0.1:5501");
    check_show("SHOW MAPS", report, "app|3|7|2|5|10.0.0.1:5501|2000|4\n");
    report_free(report);
}

static void test_config_and_state(void **state)
{
    struct report *report = new_report();
    (void)state;
    char *text = run("SHOW CONFIG", report);
    check_has(text, "pool.size|7|20|yes\n");
    check_has(text, "listen.port|6543|6432|no\n");
    check_has(text, "max_client_conn|99|1000|yes\nmax_user_connections|0|0|yes\n");
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

/* ---- who may, and the greeting ---- */

static void test_admission(void **state)
{
    struct user_config users[] = {{.name = "app"}, {.name = "root", .admin = true}};
    struct config config = {.auth_method = AUTH_TRUST, .users = users, .nusers = 2};
    (void)state;
    assert_true(console_is_name("pgshunt") && console_is_name("pgbouncer"));
    assert_false(console_is_name("PGSHUNT") || console_is_name("app") || console_is_name(""));
    assert_int_equal(console_role(&config, "root"), CONSOLE_ADMIN);
    assert_int_equal(console_role(&config, "app"), CONSOLE_NOBODY);
    assert_int_equal(console_role(&config, "stranger"), CONSOLE_NOBODY);
    config.nusers = 0;
    assert_int_equal(console_role(&config, "stranger"), CONSOLE_ADMIN);
    config.auth_method = AUTH_SCRAM;
    assert_int_equal(console_role(&config, "stranger"), CONSOLE_NOBODY);
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
        cmocka_unit_test(test_maps_and_proxies),
        cmocka_unit_test(test_nodes_and_shards),
        cmocka_unit_test(test_config_and_state),
        cmocka_unit_test(test_texts),
        cmocka_unit_test(test_names_are_unique),
        cmocka_unit_test(test_admission),
        cmocka_unit_test(test_greeting),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
