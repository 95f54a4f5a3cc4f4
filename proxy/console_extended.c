/*
 * console_extended.c: the console in the extended protocol, for drivers that speak no other.
 *
 * A statement is the text of one command without parameters; a portal keeps the rows of its command
 * from its first Execute on, so that a row limit can be honoured.
 */
#include "proxy/console.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pgshunt/wire.h"
#include "proxy/console_internal.h"

#define NAMES_MAX 1000 /* statements, and portals, of one session */

struct console_statement {
    char *name;
    char *sql;
    UT_hash_handle hh;
};

struct console_portal {
    char *name;
    char *sql;
    int16_t *formats;
    int nformats;
    bool ran;
    bool has_rows;      /* the command's answer has columns */
    const char *tag;    /* once it ran; a constant */
    struct buffer rows; /* not sent yet */
    int32_t limit;      /* rows asked for by the Execute at work, 0: all */
    UT_hash_handle hh;
};

/* ---- names ---- */

static void free_statement(struct console *console, struct console_statement *statement)
{
    HASH_DEL(console->statements, statement);
    free(statement->name);
    free(statement->sql);
    free(statement);
}

static void free_portal(struct console *console, struct console_portal *portal)
{
    HASH_DEL(console->portals, portal);
    if (console->executing == portal)
        console->executing = NULL;
    free(portal->name);
    free(portal->sql);
    free(portal->formats);
    buffer_release(&portal->rows);
    free(portal);
}

static void free_portals(struct console *console)
{
    while (console->portals)
        free_portal(console, console->portals);
}

void console_extended_forget(struct console *console)
{
    while (console->statements)
        free_statement(console, console->statements);
}

void console_extended_free(struct console *console)
{
    console_extended_forget(console);
    free_portals(console);
}

static struct console_statement *find_statement(const struct console *console, const char *name)
{
    struct console_statement *statement;
    HASH_FIND_STR(console->statements, name, statement);
    return statement;
}

static struct console_portal *find_portal(const struct console *console, const char *name)
{
    struct console_portal *portal;
    HASH_FIND_STR(console->portals, name, portal);
    return portal;
}

bool console_extended_deallocate(struct console *console, const char *name)
{
    struct console_statement *statement = find_statement(console, name);
    if (statement)
        free_statement(console, statement);
    return statement != NULL;
}

/* ---- answers ---- */

static void answer_simple(struct console *console, char type)
{
    struct buffer out = {0};
    wire_put_simple(&out, type);
    console_send(console, &out);
}

/* The rest of the batch is skipped. */
static void answer_error(struct console *console, const struct pg_error *error)
{
    struct buffer out = {0};
    wire_put_error(&out, error);
    console->failed = true;
    console_send(console, &out);
}

static void refuse(struct console *console, const char *sqlstate, const char *message,
                   const char *hint)
{
    struct pg_error error = {.sqlstate = sqlstate, .message = message, .hint = hint};
    answer_error(console, &error);
}

static void refuse_name(struct console *console, const char *sqlstate, const char *what,
                        const char *name, const char *problem)
{
    char message[160];
    snprintf(message, sizeof message, "%s \"%.63s\" %s", what, name, problem);
    refuse(console, sqlstate, message, NULL);
}

static void refuse_message(struct console *console, const char *message)
{
    client_fatal(console->client, "08P01", message, NULL);
}

/* ---- Parse ---- */

static bool is_one_command(struct console *console, const char *sql)
{
    struct console_parsed *parsed = &console->parsed;
    size_t used = console_parse(sql, console_config(console), parsed);
    if (parsed->action == CONSOLE_REFUSE) {
        answer_error(console, &parsed->error);
        return false;
    }
    if (!console_is_blank(sql + used)) {
        refuse(console, "42601", "cannot insert multiple commands into a prepared statement",
               "Send one command at a time.");
        return false;
    }
    return true;
}

static void define(struct console *console, const char *name, const char *sql)
{
    struct console_statement *statement = find_statement(console, name);
    if (statement)
        free_statement(console, statement);
    statement = mem_alloc(sizeof *statement);
    statement->name = mem_strdup(name);
    statement->sql = mem_strdup(sql);
    HASH_ADD_KEYPTR(hh, console->statements, statement->name, strlen(statement->name), statement);
    answer_simple(console, '1');
}

static void parse(struct console *console, struct wire_reader *reader)
{
    const char *name = wire_read_cstring(reader);
    const char *sql = wire_read_cstring(reader);
    int types = wire_read16(reader);
    if (reader->bad || types < 0 || wire_left(reader) != 4 * (size_t)types)
        refuse_message(console, "invalid Parse message");
    else if (name[0] && find_statement(console, name))
        refuse_name(console, "42P05", "prepared statement", name, "already exists");
    else if (HASH_COUNT(console->statements) >= NAMES_MAX)
        refuse(console, "53400", "too many prepared statements", "DEALLOCATE ALL.");
    else if (is_one_command(console, sql))
        define(console, name, sql);
}

/* ---- Bind ---- */

/* Result formats fit the command's columns. */
static bool formats_fit(struct console *console, const struct wire_bind *bind, int *count)
{
    struct wire_reader reader = wire_reader(bind->results, bind->results_len);
    int columns = console->parsed.ncolumns;
    *count = wire_read16(&reader);
    bool known = true;
    for (int i = 0; i < *count; i++) {
        int format = wire_read16(&reader);
        known &= format == 0 || format == 1;
    }
    if (reader.bad || wire_left(&reader)) {
        refuse_message(console, "invalid Bind message");
        return false;
    }
    if (!known || (*count > 1 && *count != columns)) {
        refuse(console, "08P01", "result formats do not fit the command's columns", NULL);
        return false;
    }
    return true;
}

static void open_portal(struct console *console, const char *name, const char *sql,
                        const struct wire_bind *bind, int nformats)
{
    struct wire_reader reader = wire_reader(bind->results + 2, bind->results_len - 2);
    struct console_portal *portal = find_portal(console, name);
    if (portal)
        free_portal(console, portal);
    portal = mem_alloc(sizeof *portal);
    portal->name = mem_strdup(name);
    portal->sql = mem_strdup(sql);
    portal->formats = nformats ? mem_alloc(sizeof *portal->formats * (size_t)nformats) : NULL;
    portal->nformats = nformats;
    for (int i = 0; i < nformats; i++)
        portal->formats[i] = (int16_t)wire_read16(&reader);
    HASH_ADD_KEYPTR(hh, console->portals, portal->name, strlen(portal->name), portal);
    answer_simple(console, '2');
}

static void bind_message(struct console *console, const char *body, size_t len)
{
    struct wire_bind bind;
    int nformats;
    if (!wire_read_bind(body, len, &bind)) {
        refuse_message(console, "invalid Bind message");
        return;
    }
    const struct console_statement *statement = find_statement(console, bind.statement);
    if (!statement)
        refuse_name(console, "26000", "prepared statement", bind.statement, "does not exist");
    else if (bind.nparams)
        refuse(console, "08P01", "commands of the admin console take no parameters",
               "Put the values into the command.");
    else if (bind.portal[0] && find_portal(console, bind.portal))
        refuse_name(console, "42P03", "portal", bind.portal, "already exists");
    else if (HASH_COUNT(console->portals) >= NAMES_MAX)
        refuse(console, "53400", "too many portals", "Send a Sync.");
    else if (is_one_command(console, statement->sql) && formats_fit(console, &bind, &nformats))
        open_portal(console, bind.portal, statement->sql, &bind, nformats);
}

/* ---- Describe, Close ---- */

static void put_description(struct console *console, struct buffer *out, const char *sql,
                            const int16_t *formats, int nformats)
{
    struct console_parsed *parsed = &console->parsed;
    console_parse(sql, console_config(console), parsed);
    if (parsed->ncolumns)
        console_put_columns(out, parsed->columns, parsed->ncolumns, formats, nformats);
    else
        wire_put_simple(out, 'n');
}

static void describe_statement(struct console *console, const char *name)
{
    const struct console_statement *statement = find_statement(console, name);
    struct buffer out = {0};
    if (!statement) {
        refuse_name(console, "26000", "prepared statement", name, "does not exist");
        return;
    }
    size_t begin = wire_begin(&out, 't');
    wire_put16(&out, 0);
    wire_end(&out, begin);
    put_description(console, &out, statement->sql, NULL, 0);
    console_send(console, &out);
}

static void describe_portal(struct console *console, const char *name)
{
    const struct console_portal *portal = find_portal(console, name);
    struct buffer out = {0};
    if (!portal) {
        refuse_name(console, "34000", "portal", name, "does not exist");
        return;
    }
    put_description(console, &out, portal->sql, portal->formats, portal->nformats);
    console_send(console, &out);
}

static void describe(struct console *console, struct wire_reader *reader)
{
    int kind = wire_read8(reader);
    const char *name = wire_read_cstring(reader);
    if (reader->bad || wire_left(reader) || (kind != 'S' && kind != 'P'))
        refuse_message(console, "invalid Describe message");
    else if (kind == 'S')
        describe_statement(console, name);
    else
        describe_portal(console, name);
}

static void close_name(struct console *console, struct wire_reader *reader)
{
    int kind = wire_read8(reader);
    const char *name = wire_read_cstring(reader);
    if (reader->bad || wire_left(reader) || (kind != 'S' && kind != 'P')) {
        refuse_message(console, "invalid Close message");
        return;
    }
    struct console_statement *statement = kind == 'S' ? find_statement(console, name) : NULL;
    struct console_portal *portal = kind == 'P' ? find_portal(console, name) : NULL;
    if (statement)
        free_statement(console, statement);
    if (portal)
        free_portal(console, portal);
    answer_simple(console, '3');
}

/* ---- Execute ---- */

/* Moves up to `limit` rows (0: all) from one buffer into another. */
static void move_rows(struct buffer *from, struct buffer *to, int32_t limit)
{
    size_t length = 0, all = buffer_length(from);
    if (limit <= 0)
        length = all;
    for (int32_t i = 0; i < limit && length < all; i++)
        length += 1 + (size_t)wire_get32(buffer_head(from) + length + 1);
    buffer_append(to, buffer_head(from), length);
    buffer_consume(from, length);
}

static void answer_portal(struct console *console, struct console_portal *portal)
{
    struct buffer out = {0};
    move_rows(&portal->rows, &out, portal->limit);
    if (buffer_length(&portal->rows))
        wire_put_simple(&out, 's');
    else
        wire_put_complete(&out, portal->tag);
    console_send(console, &out);
}

static void keep_rows(struct console *console, struct console_portal *portal)
{
    portal->ran = true;
    portal->has_rows = console->parsed.ncolumns > 0;
    portal->tag = console->parsed.tag;
    portal->rows = console->table.rows;
    console->table.rows = (struct buffer){0};
}

void console_extended_ran(struct console *console)
{
    struct console_portal *portal = console->executing;
    console->executing = NULL;
    keep_rows(console, portal);
    answer_portal(console, portal);
}

void console_extended_failed(struct console *console)
{
    console->executing = NULL;
    answer_error(console, &console->parsed.error);
}

static void run_portal(struct console *console, struct console_portal *portal)
{
    console_parse(portal->sql, console_config(console), &console->parsed);
    if (console->parsed.action == CONSOLE_EMPTY) {
        answer_simple(console, 'I');
        return;
    }
    console->executing = portal;
    switch (console_run(console, portal->formats, portal->nformats)) {
    case CONSOLE_WAITING:
        return;
    case CONSOLE_RAN:
        console->client->stats->queries++;
        console->client->stats->transactions++;
        console_extended_ran(console);
        return;
    case CONSOLE_FAILED:
        console_extended_failed(console);
        return;
    }
}

static void execute(struct console *console, struct wire_reader *reader)
{
    const char *name = wire_read_cstring(reader);
    int32_t limit = wire_read32(reader);
    struct console_portal *portal = find_portal(console, name);
    if (reader->bad || wire_left(reader)) {
        refuse_message(console, "invalid Execute message");
        return;
    }
    if (!portal) {
        refuse_name(console, "34000", "portal", name, "does not exist");
        return;
    }
    portal->limit = limit;
    if (!portal->ran)
        run_portal(console, portal);
    else if (portal->has_rows)
        answer_portal(console, portal); /* a command that acts is not run again */
    else
        refuse_name(console, "55000", "portal", name, "cannot be run");
}

/* ---- all ---- */

static void end_batch(struct console *console)
{
    struct buffer out = {0};
    console->failed = false;
    if (console->status == 'I')
        free_portals(console);
    wire_put_ready(&out, console->status);
    console_send(console, &out);
}

void console_extended(struct client *client, char type, const char *body, size_t len)
{
    struct console *console = client->console;
    struct wire_reader reader = wire_reader(body, len);
    if (type == 'S')
        end_batch(console);
    if (console->failed)
        return;
    switch (type) {
    case 'P':
        parse(console, &reader);
        break;
    case 'B':
        bind_message(console, body, len);
        break;
    case 'D':
        describe(console, &reader);
        break;
    case 'E':
        execute(console, &reader);
        break;
    case 'C':
        close_name(console, &reader);
        break;
    case 'F':
        refuse(console, "0A000", "the admin console does not know the fast-path protocol",
               "Send the command as a query.");
        break;
    default: /* Flush: nothing is held back */
        break;
    }
}
