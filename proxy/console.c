/*
 * console.c: a session of the admin console.
 *
 *   Query --> next command --> console_run --> answer --> next command ... --> ReadyForQuery
 *                                  |             ^
 *                                  '-- report ---' gathered on all workers, the client is BUSY meanwhile
 */
#include "proxy/console.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pgshunt/log.h"
#include "pgshunt/wire.h"
#include "proxy/console_internal.h"
#include "proxy/console_role.h"
#include "proxy/daemon.h"

bool console_is_name(const char *database)
{
    return strcmp(database, "pgshunt") == 0 || strcmp(database, "pgbouncer") == 0;
}

void console_parameters(struct buffer *out)
{
    static const char *const parameters[][2] = {
        {"server_version", PGSHUNT_VERSION "/pgshunt"},
        {"server_encoding", "UTF8"},
        {"client_encoding", "UTF8"},
        {"standard_conforming_strings", "on"},
        {"DateStyle", "ISO, MDY"},
        {"IntervalStyle", "postgres"},
        {"TimeZone", "GMT"},
        {"integer_datetimes", "on"},
        {"is_superuser", "on"},
        {"in_hot_standby", "off"},
        {"default_transaction_read_only", "off"},
    };
    for (size_t i = 0; i < sizeof parameters / sizeof parameters[0]; i++)
        wire_put_parameter_status(out, parameters[i][0], parameters[i][1]);
}

struct console *console_new(struct client *client)
{
    struct console *console = mem_alloc(sizeof *console);
    console->client = client;
    console->status = 'I';
    return console;
}

void console_free(struct client *client)
{
    struct console *console = client->console;
    if (!console)
        return;
    if (console->ask)
        console->ask->console = NULL;
    console_extended_free(console);
    console_table_free(&console->table);
    free(console->sql);
    free(console);
    client->console = NULL;
}

const struct config *console_config(const struct console *console)
{
    return console->client->worker->topology->config;
}

void console_send(struct console *console, struct buffer *out)
{
    client_send_buffer(console->client, out);
}

/* ---- running a command ---- */

enum console_run console_fail(struct console *console, const char *sqlstate, const char *hint)
{
    struct console_parsed *parsed = &console->parsed;
    parsed->error =
        (struct pg_error){.sqlstate = sqlstate, .message = parsed->message, .hint = hint};
    return CONSOLE_FAILED;
}

/* Answered when every worker has taken the new configuration. */
static enum console_run reload(struct console *console)
{
    char reason[1024];
    struct console_parsed *parsed = &console->parsed;
    log_event(LOG_INFO, "reload asked for on the console", LOG_S("user", console->client->user));
    if (daemon_reload(console->client->worker->daemon, reason, sizeof reason))
        return console_control(console);
    snprintf(parsed->message, sizeof parsed->message, "%s", reason);
    return console_fail(
        console, "F0000",
        "The old configuration stays in force. Correct the file, then RELOAD again.");
}

static enum console_run end_daemon(struct console *console, enum shutdown_mode mode)
{
    log_event(LOG_INFO, "shutdown asked for on the console", LOG_S("user", console->client->user));
    daemon_shutdown(console->client->worker->daemon, mode);
    return CONSOLE_RAN;
}

static void put_value(struct console *console)
{
    struct console_parsed *parsed = &console->parsed;
    if (parsed->own_column.type == CONSOLE_INT4)
        console_integer(&console->table, strtoll(parsed->value, NULL, 10));
    else
        console_text(&console->table, parsed->value);
}

/* On the client's own worker again, unless that has ended. */
static void report_arrived(struct report *report, void *arg)
{
    struct console_ask *ask = arg;
    struct console *console = ask->console;
    free(ask);
    if (console) {
        console->ask = NULL;
        console->parsed.command->fill(&console->table, report);
    }
    report_free(report);
    if (console)
        console_ran(console, false);
}

static enum console_run show(struct console *console)
{
    const struct console_command *command = console->parsed.command;
    struct worker *worker = console->client->worker;
    if (!command->parts) {
        struct report *report = report_static(worker->daemon);
        command->fill(&console->table, report);
        report_free(report);
        return CONSOLE_RAN;
    }
    console->ask = mem_alloc(sizeof *console->ask);
    console->ask->console = console;
    console->client->state = CLIENT_BUSY;
    report_start(worker->daemon, worker, command->parts, report_arrived, console->ask);
    return CONSOLE_WAITING;
}

static enum console_run deallocate(struct console *console)
{
    struct console_parsed *parsed = &console->parsed;
    if (console_extended_deallocate(console, parsed->value))
        return CONSOLE_RAN;
    snprintf(parsed->message, sizeof parsed->message, "prepared statement \"%.63s\" does not exist",
             parsed->value);
    return console_fail(console, "26000", NULL);
}

static enum console_run run_action(struct console *console)
{
    struct console_parsed *parsed = &console->parsed;
    switch (parsed->action) {
    case CONSOLE_SHOW:
        return show(console);
    case CONSOLE_VALUE:
        put_value(console);
        return CONSOLE_RAN;
    case CONSOLE_SET_NAME:
        guc_set_put_text(&console->client->guc, "application_name", parsed->value);
        return CONSOLE_RAN;
    case CONSOLE_BEGIN:
        console->status = 'T';
        return CONSOLE_RAN;
    case CONSOLE_COMMIT:
    case CONSOLE_ROLLBACK:
        console->status = 'I';
        return CONSOLE_RAN;
    case CONSOLE_DEALLOCATE:
        return deallocate(console);
    case CONSOLE_DEALLOCATE_ALL:
        console_extended_forget(console);
        return CONSOLE_RAN;
    case CONSOLE_RELOAD:
        return reload(console);
    case CONSOLE_CONTROL:
        return console_control(console);
    case CONSOLE_SHUTDOWN:
        return end_daemon(console, SHUTDOWN_TRANSACTIONS);
    case CONSOLE_SHUTDOWN_CLIENTS:
        return end_daemon(console, SHUTDOWN_CLIENTS);
    case CONSOLE_SHUTDOWN_NOW:
        return end_daemon(console, SHUTDOWN_NOW);
    case CONSOLE_REFUSE:
        return CONSOLE_FAILED;
    case CONSOLE_EMPTY:
    case CONSOLE_ACCEPT:
        break;
    }
    return CONSOLE_RAN;
}

/* The users file may have been reloaded since the login. */
static enum console_run refuse_by_role(struct console *console)
{
    struct console_parsed *parsed = &console->parsed;
    const char *user = console->client->user;
    enum console_role role = console_role(console_config(console), user);
    if (console_role_may(role, parsed->action))
        return CONSOLE_RAN;
    if (role == CONSOLE_NOBODY)
        snprintf(parsed->message, sizeof parsed->message, "user \"%.63s\" is no longer an admin",
                 user);
    else
        snprintf(parsed->message, sizeof parsed->message,
                 "permission denied: user \"%.63s\" may only look", user);
    return console_fail(console, "42501", "Set admin = true for the user in the users file.");
}

enum console_run console_run(struct console *console, const int16_t *formats, int nformats)
{
    struct console_parsed *parsed = &console->parsed;
    console->client->request.started_at = console->started_at = clock_us();
    console_table_free(&console->table);
    console_table_init(&console->table, parsed->columns, parsed->ncolumns);
    console->table.formats = formats;
    console->table.nformats = nformats;
    enum console_run refused = refuse_by_role(console);
    if (refused != CONSOLE_RAN)
        return refused;
    return run_action(console);
}

/* ---- simple protocol ---- */

static void count_command(struct console *console)
{
    struct worker_stats *stats = console->client->stats;
    uint64_t took = (uint64_t)(clock_us() - console->started_at);
    stats->queries++;
    stats->transactions++;
    stats->query_us += took;
    stats->xact_us += took;
}

static void answer_rows(struct console *console)
{
    struct console_parsed *parsed = &console->parsed;
    struct buffer out = {0};
    if (parsed->ncolumns) {
        console_put_columns(&out, parsed->columns, parsed->ncolumns, NULL, 0);
        buffer_append(&out, buffer_head(&console->table.rows), buffer_length(&console->table.rows));
    }
    wire_put_complete(&out, parsed->tag);
    console_table_free(&console->table);
    console_send(console, &out);
    count_command(console);
}

static void answer_error(struct console *console)
{
    struct buffer out = {0};
    wire_put_error(&out, &console->parsed.error);
    console_send(console, &out);
    count_command(console);
}

static void end_query(struct console *console)
{
    struct client *client = console->client;
    struct buffer out = {0};
    free(console->sql);
    console->sql = NULL;
    wire_put_ready(&out, console->status);
    console_send(console, &out);
    console_done(client); /* may go on to the next message, and free the console */
}

/* Runs commands until one has to wait, fails, or none is left. */
static void run_commands(struct console *console)
{
    while (!console_is_blank(console->sql + console->at)) {
        console->at +=
            console_parse(console->sql + console->at, console_config(console), &console->parsed);
        if (console->parsed.action == CONSOLE_EMPTY)
            continue;
        enum console_run ran = console_run(console, NULL, 0);
        if (ran == CONSOLE_WAITING)
            return;
        if (ran == CONSOLE_FAILED) {
            answer_error(console);
            break;
        }
        answer_rows(console);
    }
    end_query(console);
}

void console_ran(struct console *console, bool failed)
{
    struct client *client = console->client;
    if (console->executing) {
        count_command(console);
        if (failed)
            console_extended_failed(console);
        else
            console_extended_ran(console);
        console_done(client);
    } else if (failed) {
        answer_error(console);
        end_query(console);
    } else {
        answer_rows(console);
        run_commands(console);
    }
}

void console_cancel(struct client *client)
{
    if (client->console->ask)
        client->console->ask->cancelled = true;
}

void console_query(struct client *client, const char *sql)
{
    struct console *console = client->console;
    console->sql = mem_strdup(sql);
    console->at = 0;
    if (console_is_blank(sql)) {
        struct buffer out = {0};
        wire_put_simple(&out, 'I');
        console_send(console, &out);
    }
    run_commands(console);
}
