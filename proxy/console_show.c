/* console_show.c: SHOW POOLS, CLIENTS, SERVERS, DATABASES, USERS and LISTS as PgBouncer has them, PREPARED_STATEMENTS. */
#include "proxy/console_show.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "pgshunt/config.h"
#include "proxy/console.h"

#define CONSOLE_DATABASE "pgshunt"
#define SECOND_US 1000000
#define HOSTS_MAX 8 /* listed in SHOW DATABASES */

const char *console_pool_mode(enum pool_mode mode)
{
    switch (mode) {
    case POOL_SESSION:
        return "session";
    case POOL_STATEMENT:
        return "statement";
    case POOL_TRANSACTION:
        break;
    }
    return "transaction";
}

static void put_wait(struct console_table *table, int64_t wait_us)
{
    console_integer(table, wait_us / SECOND_US);
    console_integer(table, wait_us % SECOND_US);
}

/* ---- SHOW POOLS ---- */

/* All pools of one (database, user), summed. */
struct pool_sum {
    int active, idle, tended, login, cancels, being_canceled;
    int64_t longest_wait_us;
};

static struct pool_sum sum_pools(const struct report_account *account)
{
    struct pool_sum sum = {0};
    for (const struct report_pool *pool = account->pools; pool; pool = pool->next) {
        sum.active += pool->active;
        sum.idle += pool->idle;
        sum.tended += pool->tended;
        sum.login += pool->login;
        sum.cancels += pool->cancels;
        sum.being_canceled += pool->being_canceled;
        if (pool->longest_wait_us > sum.longest_wait_us)
            sum.longest_wait_us = pool->longest_wait_us;
    }
    return sum;
}

void console_show_pools(struct console_table *table, const struct report *report)
{
    for (const struct report_account *row = report->accounts; row; row = row->hh.next) {
        struct pool_sum sum = sum_pools(row);
        struct pool_settings settings;
        config_pool_settings(report->topology->config, row->database, row->user, &settings);
        console_text(table, row->database);
        console_text(table, row->user);
        console_integer(table, row->idle + row->active);
        console_integer(table, row->waiting);
        console_integer(table, sum.cancels); /* each serves one cancel request of a client */
        console_integer(table, 0);           /* cancel requests need no place in a pool */
        console_integer(table, sum.active);
        console_integer(table, sum.cancels);
        console_integer(table, sum.being_canceled);
        console_integer(table, sum.idle);
        console_integer(table, 0);          /* nothing waits to be reset or tested: */
        console_integer(table, sum.tended); /* ... that is done at once */
        console_integer(table, sum.login);
        put_wait(table, row->longest_held_us > sum.longest_wait_us ? row->longest_held_us
                                                                   : sum.longest_wait_us);
        console_text(table, console_is_name(row->database)
                                ? "statement"
                                : console_pool_mode((enum pool_mode)settings.mode));
        console_null(table);
    }
}

/* ---- SHOW CLIENTS, SHOW SERVERS ---- */

static void put_time(struct console_table *table, const struct report *report, int64_t at)
{
    char text[40];
    struct tm tm;
    if (!at) {
        console_null(table);
        return;
    }
    time_t seconds = (time_t)((report->wall_us - (report->now - at)) / SECOND_US);
    gmtime_r(&seconds, &tm);
    strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S UTC", &tm);
    console_text(table, text);
}

static void put_links(struct console_table *table, const struct report_connection *row)
{
    struct buffer text = {0};
    for (int i = 0; i < row->nlinks; i++)
        buffer_printf(&text, "%s%p", i ? "," : "", row->links[i]);
    buffer_append(&text, "", 1);
    console_text(table, buffer_head(&text));
    buffer_release(&text);
}

static void put_connection(struct console_table *table, const struct report *report,
                           const struct report_connection *row, const char *type)
{
    char object[32];
    snprintf(object, sizeof object, "%p", row->object);
    console_text(table, type);
    console_text(table, row->user);
    console_text(table, row->database);
    console_text(table, row->replication ? row->replication : "none");
    console_text(table, row->state);
    console_text(table, row->address);
    console_integer(table, row->port);
    console_text(table, row->local_address);
    console_integer(table, row->local_port);
    put_time(table, report, row->connected_at);
    put_time(table, report, row->request_at);
    put_wait(table, row->wait_us);
    console_integer(table, row->close_needed);
    console_text(table, object);
    put_links(table, row);
    console_integer(table, row->remote_pid);
    console_text(table, row->tls);
    console_text(table, row->application_name);
    console_integer(table, row->prepared_statements);
    console_integer(table, row->id);
    console_text(table, row->pin_reason);
}

void console_show_clients(struct console_table *table, const struct report *report)
{
    for (const struct report_connection *row = report->clients.first; row; row = row->next)
        put_connection(table, report, row, "C");
}

void console_show_servers(struct console_table *table, const struct report *report)
{
    for (const struct report_connection *row = report->servers.first; row; row = row->next)
        put_connection(table, report, row, "S");
}

/* ---- SHOW PREPARED_STATEMENTS ---- */

void console_show_prepared(struct console_table *table, const struct report *report)
{
    for (const struct report_prepared *row = report->prepared; row; row = row->hh.next) {
        console_text(table, row->name);
        console_text(table, row->statement);
        console_integer(table, row->references);
        console_integer(table, row->servers);
        console_integer(table, row->workers);
    }
}

/* ---- SHOW LOOKUPS ---- */

void console_show_lookups(struct console_table *table, const struct report *report)
{
    for (const struct report_lookup *row = report->lookups; row; row = row->next) {
        console_text(table, row->database);
        console_text(table, row->lookup->name);
        console_text(table, row->lookup->key);
        console_bool(table, row->lookup->unique);
        console_text(table, row->ready ? "ready" : "not created");
        console_integer(table, row->cached);
        console_integer(table, (int64_t)row->hits);
        console_integer(table, (int64_t)row->misses);
        console_integer(table, (int64_t)row->stale);
        console_integer(table, (int64_t)row->failed);
        console_text(table, row->lookup->function);
    }
}

/* ---- SHOW DATABASES ---- */

/*
 * Hosts of all nodes in the order of the configuration, each once: the text labels metrics, so it must
 * not change when a primary does.
 */
static void list_hosts(const struct database *database, struct buffer *text)
{
    const char *seen[HOSTS_MAX];
    int nseen = 0;
    for (int i = 0; i < database->nshards; i++) {
        for (int j = 0; j < database->shards[i].nnodes; j++) {
            const char *host = database->shards[i].nodes[j]->host;
            bool known = false;
            for (int k = 0; k < nseen; k++)
                known |= strcmp(seen[k], host) == 0;
            if (known)
                continue;
            if (nseen == HOSTS_MAX) {
                buffer_printf(text, ",...");
                return;
            }
            buffer_printf(text, "%s%s", nseen ? "," : "", host);
            seen[nseen++] = host;
        }
    }
}

static int count_servers(const struct report *report, const char *database)
{
    int sum = 0;
    for (const struct report_pool *row = report->pools; row; row = row->hh.next)
        if (strcmp(row->database, database) == 0)
            sum += row->active + row->idle + row->login;
    return sum;
}

static int count_clients(const struct report *report, const char *database)
{
    int sum = 0;
    for (const struct report_account *row = report->accounts; row; row = row->hh.next)
        if (strcmp(row->database, database) == 0)
            sum += row->idle + row->active + row->waiting;
    return sum;
}

static void put_closed(struct console_table *table, const struct report *report, const char *name)
{
    unsigned closed = 0;
    for (int i = 0; i < report->topology->ndatabases; i++)
        if (strcmp(report->topology->databases[i].name, name) == 0)
            closed = report->closed[i];
    console_integer(table, (closed & CLOSED_PAUSED) != 0);
    console_integer(table, (closed & CLOSED_DISABLED) != 0);
}

static void put_limits(struct console_table *table, const struct report *report, const char *name,
                       int64_t most_servers, int64_t most_clients)
{
    console_null(table); /* load_balance_hosts */
    console_integer(table, most_servers);
    console_integer(table, count_servers(report, name));
    console_integer(table, most_clients);
    console_integer(table, count_clients(report, name));
    put_closed(table, report, name);
}

static void put_database(struct console_table *table, const struct report *report,
                         const struct database *database)
{
    const struct config *config = report->topology->config;
    struct pool_settings pool;
    config_pool_settings(config, database->name, "", &pool);
    struct buffer hosts = {0};
    list_hosts(database, &hosts);
    buffer_append(&hosts, "", 1);
    const char *user = database->config->user;
    console_text(table, database->name);
    console_text(table, buffer_head(&hosts));
    console_integer(table, database->shards[0].nodes[0]->port);
    console_text(table, database->shards[0].dbname);
    console_text(table, user && user[0] ? user : NULL);
    console_integer(table, pool.size);
    console_integer(table, pool.min_size);
    console_integer(table, pool.reserve_size);
    console_integer(table, pool.server_lifetime / 1000);
    console_text(table, console_pool_mode((enum pool_mode)pool.mode));
    put_limits(table, report, database->name, config_database_connections(config, database->name),
               config_database_clients(config, database->name));
    buffer_release(&hosts);
}

static void put_console_database(struct console_table *table, const struct report *report)
{
    console_text(table, CONSOLE_DATABASE);
    console_null(table);
    console_integer(table, report->topology->config->listen_port);
    console_text(table, CONSOLE_DATABASE);
    console_null(table);
    console_integer(table, 0);
    console_integer(table, 0);
    console_integer(table, 0);
    console_integer(table, 0);
    console_text(table, "statement");
    put_limits(table, report, CONSOLE_DATABASE, 0, 0);
}

int console_count_databases(const struct report *report)
{
    return report->topology->ndatabases + 1; /* the console itself */
}

void console_show_databases(struct console_table *table, const struct report *report)
{
    for (int i = 0; i < report->topology->ndatabases; i++)
        put_database(table, report, &report->topology->databases[i]);
    put_console_database(table, report);
}

/* ---- SHOW USERS ---- */

/* What the user's own entry sets; what it does not depends on the database. */
static void put_own(struct console_table *table, int64_t value)
{
    char text[24];
    snprintf(text, sizeof text, "%" PRId64, value);
    console_text(table, value == SETTING_INHERIT ? NULL : text);
}

static void put_own_settings(struct console_table *table, const struct user_config *user)
{
    int64_t mode = user ? user->pool.mode : SETTING_INHERIT;
    put_own(table, user ? user->pool.size : SETTING_INHERIT);
    put_own(table, user ? user->pool.reserve_size : SETTING_INHERIT);
    console_text(table, mode == SETTING_INHERIT ? NULL : console_pool_mode((enum pool_mode)mode));
}

static void put_user(struct console_table *table, const struct report *report, const char *user)
{
    int clients = 0, servers = 0;
    for (const struct report_account *row = report->accounts; row; row = row->hh.next)
        if (strcmp(row->user, user) == 0)
            clients += row->idle + row->active + row->waiting;
    for (const struct report_pool *row = report->pools; row; row = row->hh.next)
        if (strcmp(row->user, user) == 0)
            servers += row->active + row->idle + row->login;
    const struct config *config = report->topology->config;
    console_text(table, user);
    put_own_settings(table, config_user(config, user));
    console_integer(table, config_user_connections(config, user));
    console_integer(table, servers);
    console_integer(table, config_user_clients(config, user));
    console_integer(table, clients);
}

/* The users file does not name everybody where the method is trust. Each once: at the first row. */
static bool is_first_stranger(const struct report *report, const struct report_account *account)
{
    if (config_user(report->topology->config, account->user))
        return false;
    for (const struct report_account *row = report->accounts; row != account; row = row->hh.next)
        if (strcmp(row->user, account->user) == 0)
            return false;
    return true;
}

int console_count_users(const struct report *report)
{
    int count = report->topology->config->nusers;
    for (const struct report_account *row = report->accounts; row; row = row->hh.next)
        count += is_first_stranger(report, row);
    return count;
}

void console_show_users(struct console_table *table, const struct report *report)
{
    const struct config *config = report->topology->config;
    for (int i = 0; i < config->nusers; i++)
        put_user(table, report, config->users[i].name);
    for (const struct report_account *row = report->accounts; row; row = row->hh.next)
        if (is_first_stranger(report, row))
            put_user(table, report, row->user);
}

/* ---- SHOW LISTS ---- */

void console_show_lists(struct console_table *table, const struct report *report)
{
    const struct {
        const char *name;
        int count;
    } rows[] = {
        {"databases", console_count_databases(report)},
        {"users", console_count_users(report)},
        {"peers", 0},
        {"pools", (int)HASH_COUNT(report->accounts)},
        {"peer_pools", 0},
        {"free_clients", 0},
        {"used_clients", report_logged_in(report)},
        {"login_clients", report->logging_in},
        {"free_servers", 0},
        {"used_servers", report_server_count(report)},
        {"dns_names", 0},
        {"dns_zones", 0},
        {"dns_queries", 0},
        {"dns_pending", 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        console_text(table, rows[i].name);
        console_integer(table, rows[i].count);
    }
}
