/* console_internal.h: what console.c and console_extended.c share. */
#ifndef PGSHUNT_PROXY_CONSOLE_INTERNAL_H
#define PGSHUNT_PROXY_CONSOLE_INTERNAL_H

#include "proxy/client.h"
#include "proxy/console_command.h"
#include "proxy/console_table.h"
#include "proxy/report.h"

struct console_statement;
struct console_portal;

/* A report or an order under way for a console. It outlives its console, which then takes its place here
 * away. */
struct console_ask {
    struct console *console; /* NULL: the client is gone */
    bool cancelled;          /* by a cancel request */
};

struct console {
    struct client *client;
    char status;                  /* of ReadyForQuery: I, or T behind a BEGIN */
    struct console_ask *ask;      /* a report is awaited; else NULL */
    struct console_parsed parsed; /* the command at work */
    struct console_table table;   /* its rows */
    int64_t started_at;
    /* simple protocol */
    char *sql; /* the Query message at work; NULL: none */
    size_t at; /* where its next command begins */
    /* extended protocol */
    bool failed;                      /* skips everything up to Sync */
    struct console_portal *executing; /* waits for the report */
    struct console_statement *statements;
    struct console_portal *portals;
};

enum console_run {
    CONSOLE_RAN,     /* rows, if any, are in console->table */
    CONSOLE_WAITING, /* console_ran() follows */
    CONSOLE_FAILED,  /* console->parsed.error says why */
};

/* Carries console->parsed out. `formats` of the rows live as long as that takes. */
enum console_run console_run(struct console *console, const int16_t *formats, int nformats);
/* Sends and releases it. */
void console_send(struct console *console, struct buffer *out);
const struct config *console_config(const struct console *console);

/* CONSOLE_FAILED, with parsed->message (to be written before). */
enum console_run console_fail(struct console *console, const char *sqlstate, const char *hint);
/* What was CONSOLE_WAITING has come to its end; parsed->error tells of it where it failed. */
void console_ran(struct console *console, bool failed);

/* ---- console_control.c ---- */

enum console_run console_control(struct console *console);

/* ---- console_extended.c ---- */

/* The report for the portal being executed is there: rows are in console->table. */
void console_extended_ran(struct console *console);
void console_extended_forget(struct console *console); /* DISCARD ALL: named statements too */
/* ... and parsed->error says why there are no rows. */
void console_extended_failed(struct console *console);
/* False: there is none of that name. */
bool console_extended_deallocate(struct console *console, const char *name);
void console_extended_free(struct console *console);

#endif
