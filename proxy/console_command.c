/* console_command.c: the console's commands as a table, and what else drivers and people type. */
#include "proxy/console_command.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "proxy/console_show.h"
#include "proxy/console_words.h"
#include "proxy/hold.h"
#include "proxy/report.h"

#define COUNT(rows) ((int)(sizeof(rows) / sizeof(rows)[0]))

/* ---- columns: names and order are what tools depend on ---- */

#define S(label)                                                                                   \
    {                                                                                              \
        label, CONSOLE_TEXT                                                                        \
    }
#define I(label)                                                                                   \
    {                                                                                              \
        label, CONSOLE_INT4                                                                        \
    }
#define Q(label)                                                                                   \
    {                                                                                              \
        label, CONSOLE_INT8                                                                        \
    }
#define N(label)                                                                                   \
    {                                                                                              \
        label, CONSOLE_NUMERIC                                                                     \
    }
#define B(label)                                                                                   \
    {                                                                                              \
        label, CONSOLE_BOOL                                                                        \
    }

/* clang-format off */

static const struct console_column pools[] = {
    S("database"), S("user"), I("cl_active"), I("cl_waiting"), I("cl_active_cancel_req"),
    I("cl_waiting_cancel_req"), I("sv_active"), I("sv_active_cancel"), I("sv_being_canceled"),
    I("sv_idle"), I("sv_used"), I("sv_tested"), I("sv_login"), I("maxwait"), I("maxwait_us"),
    S("pool_mode"), S("load_balance_hosts"),
};

static const struct console_column connections[] = {
    S("type"), S("user"), S("database"), S("replication"), S("state"), S("addr"), I("port"),
    S("local_addr"), I("local_port"), S("connect_time"), S("request_time"), I("wait"), I("wait_us"),
    I("close_needed"), S("ptr"), S("link"), I("remote_pid"), S("tls"), S("application_name"),
    I("prepared_statements"), I("id"), S("pin_reason"),
};

static const struct console_column stats[] = {
    S("database"),
    N("total_server_assignment_count"), N("total_xact_count"), N("total_query_count"),
    N("total_received"), N("total_sent"), N("total_xact_time"), N("total_query_time"),
    N("total_wait_time"), N("total_client_parse_count"), N("total_server_parse_count"),
    N("total_bind_count"), N("total_client_login_count"),
    N("avg_server_assignment_count"), N("avg_xact_count"), N("avg_query_count"), N("avg_recv"),
    N("avg_sent"), N("avg_xact_time"), N("avg_query_time"), N("avg_wait_time"),
    N("avg_client_parse_count"), N("avg_server_parse_count"), N("avg_bind_count"),
    N("avg_client_login_count"),
};

static const struct console_column stats_totals[] = {
    S("database"),
    N("server_assignment_count"), N("xact_count"), N("query_count"), N("bytes_received"),
    N("bytes_sent"), N("xact_time"), N("query_time"), N("wait_time"), N("client_parse_count"),
    N("server_parse_count"), N("bind_count"), N("client_login_count"),
};

static const struct console_column stats_averages[] = {
    S("database"),
    N("server_assignment_count"), N("xact_count"), N("query_count"), N("bytes_received"),
    N("bytes_sent"), N("xact_time"), N("query_time"), N("wait_time"), N("avg_client_parse_count"),
    N("avg_server_parse_count"), N("avg_bind_count"), N("client_login_count"),
};

static const struct console_column totals[] = {S("name"), N("value")};

static const struct console_column databases[] = {
    S("name"), S("host"), I("port"), S("database"), S("force_user"), I("pool_size"),
    I("min_pool_size"), I("reserve_pool_size"), I("server_lifetime"), S("pool_mode"),
    S("load_balance_hosts"), I("max_connections"), I("current_connections"),
    I("max_client_connections"), I("current_client_connections"), I("paused"), I("disabled"),
};

static const struct console_column users[] = {
    S("name"), S("pool_size"), S("reserve_pool_size"), S("pool_mode"), I("max_user_connections"),
    I("current_connections"), I("max_user_client_connections"), I("current_client_connections"),
};

static const struct console_column nodes[] = {
    S("database"), S("shard"), I("id"), S("host"), I("port"), S("region"), I("weight"), S("role"),
    S("state"), B("primary"), Q("lag_ms"), Q("lag_bytes"), S("wal_position"), I("timeline"),
    B("fenced"), Q("checked_ms_ago"), Q("checks_failed"), Q("connect_failures"), S("breaker"), I("breaker_failures"), B("read_only"), I("sv_active"),
    I("sv_idle"), I("sv_login"), I("cl_waiting"), Q("held_ms"),
};

static const struct console_column shards[] = {
    S("database"), S("shard"), I("id"), S("dbname"), S("primary"), I("nodes"), I("nodes_up"),
    I("replicas_fresh"), I("weight"), I("buckets"), S("keyspaces"), I("sv_active"), I("sv_idle"),
};

static const struct console_column maps[] = {
    S("database"), Q("epoch"), Q("hold"), I("busy"), I("held"), S("catalog"), Q("read_ms_ago"),
    Q("changes"),
};

static const struct console_column proxies[] = {
    S("database"), S("id"), S("host"), I("pid"), S("version"), B("self"), Q("epoch"), Q("hold"),
    I("busy"), I("held"), Q("seen_ms_ago"),
};

static const struct console_column prepared[] = {
    S("name"), S("statement"), Q("references"), I("servers"), I("workers"),
};

static const struct console_column lookups[] = {
    S("database"), S("lookup"), S("key"), B("unique"), S("state"), I("cached"), Q("hits"),
    Q("misses"), Q("stale"), Q("failed"), S("function"),
};

static const struct console_column lists[] = {S("list"), I("items")};
static const struct console_column config_columns[] = {S("key"), S("value"), S("default"), S("changeable")};
static const struct console_column state[] = {S("key"), S("value")};
static const struct console_column mem[] = {S("name"), Q("size"), Q("used"), Q("free"), Q("memtotal")};
static const struct console_column version[] = {S("version")};
static const struct console_column help[] = {S("command"), S("meaning")};

/* ---- the commands ---- */

#define SHOW(words, columns, parts, fill, help) \
    {words, CONSOLE_SHOW, help, columns, COUNT(columns), parts, fill, 0, 0}
#define CONTROL(words, action, argument, help) \
    {words, CONSOLE_CONTROL, help, NULL, 0, 0, NULL, action, argument}

static const struct console_command commands[] = {
    SHOW("SHOW POOLS", pools, REPORT_SUMS, console_show_pools,
         "clients and server connections per database and user"),
    SHOW("SHOW CLIENTS", connections, REPORT_CLIENTS, console_show_clients, "one row per client"),
    SHOW("SHOW SERVERS", connections, REPORT_SERVERS, console_show_servers,
         "one row per server connection"),
    SHOW("SHOW NODES", nodes, REPORT_SUMS, console_show_nodes,
         "every node of every shard: role, state, lag"),
    SHOW("SHOW SHARDS", shards, REPORT_SUMS, console_show_shards,
         "every shard: its primary, nodes that answer, share of the keys"),
    SHOW("SHOW MAPS", maps, 0, console_show_maps,
         "which map of the buckets all workers use, per database"),
    SHOW("SHOW PROXIES", proxies, 0, console_show_proxies,
         "every pgshunt that serves a database, as its catalog has them"),
    SHOW("SHOW DATABASES", databases, REPORT_SUMS, console_show_databases,
         "what clients may connect to"),
    SHOW("SHOW USERS", users, REPORT_SUMS, console_show_users, "users and their connections"),
    SHOW("SHOW STATS", stats, REPORT_SUMS, console_show_stats,
         "counters and averages per database; times are microseconds"),
    SHOW("SHOW STATS_TOTALS", stats_totals, REPORT_SUMS, console_show_totals,
         "the counters of SHOW STATS"),
    SHOW("SHOW STATS_AVERAGES", stats_averages, REPORT_SUMS, console_show_averages,
         "the averages of SHOW STATS, over the last complete minute"),
    SHOW("SHOW TOTALS", totals, REPORT_SUMS, console_show_sums,
         "counters and averages of all databases together"),
    SHOW("SHOW PREPARED_STATEMENTS", prepared, REPORT_PREPARED, console_show_prepared,
         "prepared statements by content, those used most first, a thousand at most"),
    SHOW("SHOW LOOKUPS", lookups, REPORT_LOOKUPS, console_show_lookups,
         "columns by which shards are found, and how well that goes"),
    SHOW("SHOW LISTS", lists, REPORT_SUMS, console_show_lists, "how many there are of what"),
    SHOW("SHOW CONFIG", config_columns, 0, console_show_config, "all settings"),
    SHOW("SHOW STATE", state, REPORT_SUMS, console_show_state,
         "whether pgshunt is at work, paused, suspended or ending"),
    SHOW("SHOW MEM", mem, REPORT_SUMS, console_show_mem, "memory in use"),
    SHOW("SHOW VERSION", version, 0, console_show_version, "version of pgshunt"),
    SHOW("SHOW HELP", help, 0, console_show_help, "this list"),
    {"RELOAD", CONSOLE_RELOAD, "read the configuration file again", NULL, 0, 0, NULL, CONTROL_PASS_BY, 0},
    {"SHUTDOWN", CONSOLE_SHUTDOWN, "end when running transactions are done, or shutdown_timeout is over",
     NULL, 0, 0, NULL, 0, 0},
    {"SHUTDOWN WAIT_FOR_SERVERS", CONSOLE_SHUTDOWN, NULL, NULL, 0, 0, NULL, 0, 0},
    {"SHUTDOWN WAIT_FOR_CLIENTS", CONSOLE_SHUTDOWN_CLIENTS,
     "take no new clients and end when the last one has left", NULL, 0, 0, NULL, 0, 0},
    {"SHUTDOWN IMMEDIATE", CONSOLE_SHUTDOWN_NOW, "end at once", NULL, 0, 0, NULL, 0, 0},
    CONTROL("PAUSE", CONTROL_PAUSE, ARGUMENT_MAYBE,
            "[db] let transactions end, close the server connections, and hold what follows"),
    CONTROL("RESUME", CONTROL_RESUME, ARGUMENT_MAYBE, "[db] go on after PAUSE, KILL or SUSPEND"),
    CONTROL("RECONNECT", CONTROL_RECONNECT, ARGUMENT_MAYBE,
            "[db] close each server connection when it is free, and open new ones"),
    CONTROL("WAIT_CLOSE", CONTROL_WAIT_CLOSE, ARGUMENT_MAYBE,
            "[db] wait until what RECONNECT wants closed is closed"),
    CONTROL("DISABLE", CONTROL_DISABLE, ARGUMENT_NAME, "db: refuse new clients"),
    CONTROL("ENABLE", CONTROL_ENABLE, ARGUMENT_NAME, "db: take new clients again"),
    CONTROL("KILL", CONTROL_KILL, ARGUMENT_MAYBE,
            "[db] close all clients and server connections at once, and pause"),
    CONTROL("KILL_CLIENT", CONTROL_KILL_CLIENT, ARGUMENT_NUMBER,
            "id: close one client; SHOW CLIENTS has the id"),
    CONTROL("HOLD", CONTROL_HOLD, ARGUMENT_SHARD_LIMIT,
            "db shard [ms] send nothing new to the shard's primary, for 30 s at most unless said"),
    CONTROL("DRAIN", CONTROL_DRAIN, ARGUMENT_SHARD,
            "db shard: wait until nothing runs any more on the primary that HOLD holds"),
    CONTROL("RELEASE", CONTROL_RELEASE, ARGUMENT_SHARD, "db shard: go on after HOLD"),
    CONTROL("CHECK", CONTROL_CHECK, ARGUMENT_NONE, "look at every node now, not at the next round"),
    CONTROL("SUSPEND", CONTROL_SUSPEND, ARGUMENT_NONE,
            "read no more from clients, and send what is under way"),
};

/* What drivers send by themselves: it must not fail. Any words may follow where `more`. */
static const struct phrase {
    const char *words;
    bool more;
    enum console_action action;
    const char *tag;
} phrases[] = {
    {"BEGIN", true, CONSOLE_BEGIN, "BEGIN"},
    {"START TRANSACTION", true, CONSOLE_BEGIN, "START TRANSACTION"},
    {"COMMIT", true, CONSOLE_COMMIT, "COMMIT"},
    {"END", true, CONSOLE_COMMIT, "COMMIT"},
    {"ROLLBACK", false, CONSOLE_ROLLBACK, "ROLLBACK"},
    {"ROLLBACK TRANSACTION", false, CONSOLE_ROLLBACK, "ROLLBACK"},
    {"ROLLBACK WORK", false, CONSOLE_ROLLBACK, "ROLLBACK"},
    {"ABORT", true, CONSOLE_ROLLBACK, "ROLLBACK"},
    {"DISCARD ALL", false, CONSOLE_DEALLOCATE_ALL, "DISCARD ALL"},
    {"DEALLOCATE ALL", false, CONSOLE_DEALLOCATE_ALL, "DEALLOCATE ALL"},
    {"RESET", true, CONSOLE_ACCEPT, "RESET"},
    {"CLOSE ALL", false, CONSOLE_ACCEPT, "CLOSE CURSOR ALL"},
    {"UNLISTEN *", false, CONSOLE_ACCEPT, "UNLISTEN"},
    {"SET TIME ZONE", true, CONSOLE_ACCEPT, "SET"},
    {"SET TRANSACTION", true, CONSOLE_ACCEPT, "SET"},
    {"SET SESSION CHARACTERISTICS", true, CONSOLE_ACCEPT, "SET"},
};

/* PgBouncer's, that are not here: told apart from what nobody knows. */
static const struct {
    const char *words;
    const char *hint;
} missing[] = {
    {"SHOW SOCKETS", "SHOW CLIENTS and SHOW SERVERS list the connections."},
    {"SHOW ACTIVE_SOCKETS", "SHOW CLIENTS and SHOW SERVERS list the connections."},
    {"SHOW FDS", "SHOW CLIENTS and SHOW SERVERS list the connections."},
    {"SHOW PEERS", "There is nothing to configure: any worker passes a cancel request on."},
    {"SHOW PEER_POOLS", "There is nothing to configure: any worker passes a cancel request on."},
    {"SHOW DNS_HOSTS", "SHOW NODES tells which servers answer."},
    {"SHOW DNS_ZONES", "SHOW NODES tells which servers answer."},
};

/* Settings of Postgres that drivers ask for or set when they connect; value NULL: only set. */
static const struct {
    const char *name;
    const char *column;
    const char *value;
} pg_settings[] = {
    {"client_encoding", "client_encoding", "UTF8"},
    {"server_encoding", "server_encoding", "UTF8"},
    {"server_version", "server_version", PGSHUNT_VERSION "/pgshunt"},
    {"default_transaction_isolation", "default_transaction_isolation", "read committed"},
    {"default_transaction_read_only", "default_transaction_read_only", "off"},
    {"transaction_isolation", "transaction_isolation", "read committed"},
    {"transaction isolation level", "transaction_isolation", "read committed"},
    {"transaction_read_only", "transaction_read_only", "off"},
    {"standard_conforming_strings", "standard_conforming_strings", "on"},
    {"datestyle", "DateStyle", "ISO, MDY"},
    {"intervalstyle", "IntervalStyle", "postgres"},
    {"timezone", "TimeZone", "GMT"},
    {"time zone", "TimeZone", "GMT"},
    {"integer_datetimes", "integer_datetimes", "on"},
    {"in_hot_standby", "in_hot_standby", "off"},
    {"max_identifier_length", "max_identifier_length", "63"},
    {"extra_float_digits", "extra_float_digits", "1"},
    {"bytea_output", "bytea_output", "hex"},
    {"application_name", NULL, NULL}, {"client_min_messages", NULL, NULL},
    {"statement_timeout", NULL, NULL}, {"lock_timeout", NULL, NULL},
    {"idle_in_transaction_session_timeout", NULL, NULL}, {"search_path", NULL, NULL},
    {"jit", NULL, NULL}, {"synchronize_seqscans", NULL, NULL}, {"row_security", NULL, NULL},
};

/* clang-format on */

const struct console_command *console_commands(int *count)
{
    *count = COUNT(commands);
    return commands;
}

/* ---- refusing ---- */

static void refuse(struct console_parsed *parsed, const char *sqlstate, const char *hint)
{
    parsed->action = CONSOLE_REFUSE;
    parsed->columns = NULL;
    parsed->ncolumns = 0;
    parsed->error =
        (struct pg_error){.sqlstate = sqlstate, .message = parsed->message, .hint = hint};
}

#define HINT_HELP "SHOW HELP lists the commands of the console."
#define MESSAGE(parsed, ...) snprintf((parsed)->message, sizeof(parsed)->message, __VA_ARGS__)

/* The command's beginning, for a message. */
static void quote_words(const struct words *words, char *out, size_t size)
{
    const char *from = words->items[0].at -
                       (words->items[0].kind == WORD_STRING || words->items[0].kind == WORD_QUOTED);
    const struct word *last = &words->items[words->count > 3 ? 2 : words->count - 1];
    size_t length = (size_t)(last->at + last->length - from);
    if (length >= size)
        length = size - 1;
    memcpy(out, from, length);
    out[length] = '\0';
    for (char *p = out; *p; p++)
        if ((unsigned char)*p < ' ' || (unsigned char)*p >= 0x7f)
            *p = ' '; /* a cut may leave half a character */
}

static void refuse_unknown(const struct words *words, struct console_parsed *parsed)
{
    char text[80];
    quote_words(words, text, sizeof text);
    MESSAGE(parsed, "unknown command of the admin console: \"%s\"", text);
    refuse(parsed, "42601", HINT_HELP);
}

static bool refuse_missing(const struct words *words, struct console_parsed *parsed)
{
    for (int i = 0; i < COUNT(missing); i++) {
        if (!words_begin(words, 0, missing[i].words))
            continue;
        MESSAGE(parsed, "%s is not supported by this version of pgshunt", missing[i].words);
        refuse(parsed, "0A000", missing[i].hint ? missing[i].hint : HINT_HELP);
        return true;
    }
    return false;
}

/* ---- answers of one value ---- */

static void answer_value(struct console_parsed *parsed, const char *name, enum console_type type)
{
    snprintf(parsed->own_name, sizeof parsed->own_name, "%s", name);
    parsed->own_column = (struct console_column){parsed->own_name, type};
    parsed->action = CONSOLE_VALUE;
    parsed->columns = &parsed->own_column;
    parsed->ncolumns = 1;
}

static bool show_postgres_setting(const struct words *words, struct console_parsed *parsed)
{
    for (int i = 0; i < COUNT(pg_settings); i++) {
        if (!pg_settings[i].value || !words_are(words, 1, pg_settings[i].name))
            continue;
        snprintf(parsed->value, sizeof parsed->value, "%s", pg_settings[i].value);
        answer_value(parsed, pg_settings[i].column, CONSOLE_TEXT);
        parsed->tag = "SHOW";
        return true;
    }
    return false;
}

static int find_setting(const char *name)
{
    for (int i = 0; i < settings_count(); i++)
        if (strcasecmp(settings_info(i)->name, name) == 0)
            return i;
    return -1;
}

static bool show_own_setting(const struct words *words, const struct config *config,
                             struct console_parsed *parsed)
{
    char name[128];
    if (words->count != 2 || !word_text(words, 1, name, sizeof name))
        return false;
    int setting = find_setting(name);
    if (setting < 0)
        return false;
    settings_value(config, setting, parsed->value, sizeof parsed->value);
    answer_value(parsed, settings_info(setting)->name, CONSOLE_TEXT);
    parsed->tag = "SHOW";
    return true;
}

static void parse_show(const struct words *words, const struct config *config,
                       struct console_parsed *parsed)
{
    if (!show_postgres_setting(words, parsed) && !show_own_setting(words, config, parsed))
        refuse_unknown(words, parsed);
}

/* SELECT of a literal: what pools send to see whether a connection lives. */
static bool select_literal(const struct words *words, struct console_parsed *parsed)
{
    bool named = words->count == 4 && word_is(words, 2, "AS");
    if (words->count != 2 && !named)
        return false;
    enum word_kind kind = words->items[1].kind;
    if (kind != WORD_NUMBER && kind != WORD_STRING)
        return false;
    if (!word_text(words, 1, parsed->value, sizeof parsed->value))
        return false;
    char name[sizeof parsed->own_name] = "?column?", *end;
    if (named && !word_text(words, 3, name, sizeof name))
        return false;
    errno = 0;
    long long number = strtoll(parsed->value, &end, 10);
    bool fits = !*end && !errno && number >= INT32_MIN && number <= INT32_MAX;
    if (kind == WORD_NUMBER && !fits)
        return false;
    answer_value(parsed, name, kind == WORD_NUMBER ? CONSOLE_INT4 : CONSOLE_TEXT);
    return true;
}

static void parse_select(const struct words *words, struct console_parsed *parsed)
{
    parsed->tag = "SELECT 1";
    if (select_literal(words, parsed))
        return;
    if (words_are(words, 1, "version ( )") || words_are(words, 1, "pg_catalog.version ( )")) {
        snprintf(parsed->value, sizeof parsed->value, "%s", CONSOLE_VERSION);
        answer_value(parsed, "version", CONSOLE_TEXT);
        return;
    }
    MESSAGE(parsed, "the admin console runs commands, not SQL");
    refuse(parsed, "0A000",
           HINT_HELP " For SQL connect to one of the databases that SHOW DATABASES lists.");
}

/* ---- SET ---- */

static bool is_utf8(const char *encoding)
{
    static const char *const names[] = {"utf8", "utf-8", "unicode", "sql_ascii"};
    for (int i = 0; i < COUNT(names); i++)
        if (strcasecmp(encoding, names[i]) == 0)
            return true;
    return false;
}

static void set_postgres_setting(const struct words *words, int at, const char *name,
                                 struct console_parsed *parsed)
{
    bool has_value = at < words->count;
    if (has_value && !word_text(words, at, parsed->value, sizeof parsed->value)) {
        MESSAGE(parsed, "the value of \"%s\" is too long", name);
        refuse(parsed, "22023", HINT_HELP);
    } else if (strcasecmp(name, "client_encoding") == 0 && !is_utf8(parsed->value)) {
        MESSAGE(parsed, "the admin console speaks UTF8 only");
        refuse(parsed, "22023", "SET client_encoding TO UTF8.");
    } else {
        bool app = strcasecmp(name, "application_name") == 0;
        parsed->action = app ? CONSOLE_SET_NAME : CONSOLE_ACCEPT;
    }
}

static void refuse_setting(const char *name, struct console_parsed *parsed)
{
    if (find_setting(name) >= 0) {
        MESSAGE(parsed, "setting \"%.100s\" cannot be changed on the console", name);
        refuse(parsed, "55P02", "Change it in the configuration file, then RELOAD.");
        return;
    }
    MESSAGE(parsed, "unrecognized configuration parameter \"%.100s\"", name);
    refuse(parsed, "42704", "SHOW CONFIG lists the settings of pgshunt.");
}

static void parse_set(const struct words *words, struct console_parsed *parsed)
{
    int at = 1 + (word_is(words, 1, "SESSION") || word_is(words, 1, "LOCAL"));
    bool names = word_is(words, at, "NAMES");
    char name[128];
    parsed->tag = "SET";
    if (at + 1 >= words->count || !word_text(words, at, name, sizeof name)) {
        refuse_unknown(words, parsed);
        return;
    }
    if (names) {
        set_postgres_setting(words, at + 1, "client_encoding", parsed);
        return;
    }
    if (!word_is(words, at + 1, "=") && !word_is(words, at + 1, "TO")) {
        refuse_unknown(words, parsed);
        return;
    }
    for (int i = 0; i < COUNT(pg_settings); i++) {
        if (strcasecmp(name, pg_settings[i].name) == 0) {
            set_postgres_setting(words, at + 2, name, parsed);
            return;
        }
    }
    refuse_setting(name, parsed);
}

static bool parse_deallocate(const struct words *words, struct console_parsed *parsed)
{
    int at = 1 + (words->count == 3 && word_is(words, 1, "PREPARE"));
    if (!word_is(words, 0, "DEALLOCATE") || words->count != at + 1 ||
        !word_text(words, at, parsed->value, sizeof parsed->value))
        return false;
    parsed->action = CONSOLE_DEALLOCATE;
    parsed->tag = "DEALLOCATE";
    return true;
}

/* ---- all ---- */

static bool take_limit(const struct words *words, int at, struct console_parsed *parsed)
{
    char text[16];
    if (words->items[at].kind != WORD_NUMBER || !word_text(words, at, text, sizeof text) ||
        strspn(text, "0123456789") != strlen(text) || strlen(text) > 6)
        return false;
    parsed->limit_ms = atoi(text);
    return parsed->limit_ms > 0 && parsed->limit_ms <= HOLD_LONGEST_MS;
}

static bool take_shard(const struct words *words, bool with_limit, struct console_parsed *parsed)
{
    if (words->count < 3 || words->count > 3 + with_limit ||
        !word_text(words, 1, parsed->value, sizeof parsed->value) ||
        !word_text(words, 2, parsed->shard, sizeof parsed->shard))
        return false;
    return parsed->value[0] && parsed->shard[0] &&
           (words->count == 3 || take_limit(words, 3, parsed));
}

/* What follows the words of a CONSOLE_CONTROL, into `value`. False: something else. */
static bool take_argument(const struct words *words, const struct console_command *command,
                          struct console_parsed *parsed)
{
    parsed->value[0] = '\0';
    if (command->argument >= ARGUMENT_SHARD)
        return take_shard(words, command->argument == ARGUMENT_SHARD_LIMIT, parsed);
    if (words->count == 1)
        return command->argument == ARGUMENT_NONE || command->argument == ARGUMENT_MAYBE;
    if (words->count != 2 || command->argument == ARGUMENT_NONE ||
        !word_text(words, 1, parsed->value, sizeof parsed->value))
        return false;
    bool number = words->items[1].kind == WORD_NUMBER && strlen(parsed->value) < 11 &&
                  strspn(parsed->value, "0123456789") == strlen(parsed->value);
    return parsed->value[0] && number == (command->argument == ARGUMENT_NUMBER);
}

static void refuse_argument(const struct console_command *command, struct console_parsed *parsed)
{
    static const char *const hints[] = {
        [ARGUMENT_NONE] = "Nothing may follow it.",
        [ARGUMENT_MAYBE] = "The name of one database may follow it: SHOW DATABASES lists them.",
        [ARGUMENT_NAME] = "Give the name of one database: SHOW DATABASES lists them.",
        [ARGUMENT_NUMBER] = "Give the id of a client: SHOW CLIENTS has it in its last column.",
        [ARGUMENT_SHARD] = "Give the names of a database and a shard: SHOW SHARDS lists them.",
        [ARGUMENT_SHARD_LIMIT] =
            "Give a database, a shard (SHOW SHARDS) and at most 300000 milliseconds.",
    };
    MESSAGE(parsed, "syntax error behind %s", command->words);
    refuse(parsed, "42601", hints[command->argument]);
}

static bool parse_control(const struct words *words, struct console_parsed *parsed)
{
    for (int i = 0; i < COUNT(commands); i++) {
        const struct console_command *command = &commands[i];
        if (command->action != CONSOLE_CONTROL || !word_is(words, 0, command->words))
            continue;
        parsed->command = command;
        parsed->action = CONSOLE_CONTROL;
        parsed->tag = command->words;
        if (!take_argument(words, command, parsed))
            refuse_argument(command, parsed);
        return true;
    }
    return false;
}

static bool parse_command(const struct words *words, struct console_parsed *parsed)
{
    if (parse_control(words, parsed))
        return true;
    for (int i = 0; i < COUNT(commands); i++) {
        const struct console_command *command = &commands[i];
        if (!words_are(words, 0, command->words))
            continue;
        parsed->command = command;
        parsed->action = command->action;
        parsed->columns = command->columns;
        parsed->ncolumns = command->ncolumns;
        parsed->tag = command->action == CONSOLE_SHOW     ? "SHOW"
                      : command->action == CONSOLE_RELOAD ? "RELOAD"
                                                          : "SHUTDOWN";
        return true;
    }
    return false;
}

static bool parse_phrase(const struct words *words, struct console_parsed *parsed)
{
    for (int i = 0; i < COUNT(phrases); i++) {
        const struct phrase *phrase = &phrases[i];
        if (phrase->more ? !words_begin(words, 0, phrase->words)
                         : !words_are(words, 0, phrase->words))
            continue;
        parsed->action = phrase->action;
        parsed->tag = phrase->tag;
        return true;
    }
    return false;
}

static void parse_words(const struct words *words, const struct config *config,
                        struct console_parsed *parsed)
{
    if (words->unterminated) {
        MESSAGE(parsed, "a quoted text or a comment has no end");
        refuse(parsed, "42601", HINT_HELP);
    } else if (!words->count) {
        parsed->action = CONSOLE_EMPTY;
    } else if (words->too_many) {
        refuse_unknown(words, parsed);
    } else if (parse_command(words, parsed) || parse_phrase(words, parsed) ||
               parse_deallocate(words, parsed) || refuse_missing(words, parsed)) {
        return;
    } else if (word_is(words, 0, "SET")) {
        parse_set(words, parsed);
    } else if (word_is(words, 0, "SELECT")) {
        parse_select(words, parsed);
    } else if (word_is(words, 0, "SHOW")) {
        parse_show(words, config, parsed);
    } else {
        refuse_unknown(words, parsed);
    }
}

size_t console_parse(const char *sql, const struct config *config, struct console_parsed *parsed)
{
    struct words words;
    size_t used = words_take(sql, &words);
    *parsed = (struct console_parsed){.tag = ""};
    parse_words(&words, config, parsed);
    return parsed->action == CONSOLE_REFUSE ? strlen(sql) : used;
}

bool console_is_blank(const char *sql)
{
    struct words words;
    while (*sql) {
        sql += words_take(sql, &words);
        if (words.count || words.unterminated)
            return false;
    }
    return true;
}
