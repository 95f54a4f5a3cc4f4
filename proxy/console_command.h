/*
 * console_command.h: the console's language: text in, the command it means out. Pure.
 *
 * The commands are one table (console_command.c): a row says the words, the columns of the answer, what
 * has to be gathered for it and the function that fills it. `SHOW name` of a setting, of pgshunt or one
 * that drivers ask for, and `SELECT 1` have no row: they are answers of one value.
 */
#ifndef PGSHUNT_PROXY_CONSOLE_COMMAND_H
#define PGSHUNT_PROXY_CONSOLE_COMMAND_H

#include <stdbool.h>
#include <stddef.h>

#include "pgshunt/config.h"
#include "pgshunt/error.h"
#include "proxy/console_table.h"
#include "proxy/control.h"

struct report;

enum console_action {
    CONSOLE_EMPTY,    /* nothing but spaces and comments */
    CONSOLE_SHOW,     /* `command->fill` makes rows from a report */
    CONSOLE_VALUE,    /* one row of one column: `value` */
    CONSOLE_ACCEPT,   /* only a tag: drivers send it, here it changes nothing */
    CONSOLE_SET_NAME, /* SET application_name: to `value` */
    CONSOLE_BEGIN,
    CONSOLE_COMMIT,
    CONSOLE_ROLLBACK,
    CONSOLE_DEALLOCATE,     /* the prepared statement `value` */
    CONSOLE_DEALLOCATE_ALL, /* also DISCARD ALL */
    CONSOLE_RELOAD,
    CONSOLE_CONTROL,          /* PAUSE and its like: `command->control` of database `value` */
    CONSOLE_SHUTDOWN,         /* finish what runs */
    CONSOLE_SHUTDOWN_CLIENTS, /* wait until all clients have left */
    CONSOLE_SHUTDOWN_NOW,
    CONSOLE_REFUSE, /* `error` says why */
};

enum console_argument {
    ARGUMENT_NONE,
    ARGUMENT_MAYBE, /* a database; left out: all */
    ARGUMENT_NAME,  /* a database */
    ARGUMENT_NUMBER,
    ARGUMENT_SHARD,       /* a database and a shard */
    ARGUMENT_SHARD_LIMIT, /* ... and milliseconds, maybe */
};

struct console_command {
    const char *words; /* "SHOW POOLS" */
    enum console_action action;
    const char *help; /* a line in SHOW HELP; NULL: not listed */
    const struct console_column *columns;
    int ncolumns;
    unsigned parts; /* enum report_part bits */
    void (*fill)(struct console_table *table, const struct report *report);
    enum control_action control;    /* CONSOLE_CONTROL */
    enum console_argument argument; /* ... and what may follow its words */
};

/* One command, understood. Texts are in here or constants. */
struct console_parsed {
    enum console_action action;
    const struct console_command *command; /* SHOW, CONTROL */
    const char *tag;                       /* of CommandComplete */
    const struct console_column *columns;  /* of the answer; ncolumns 0: it has no rows */
    int ncolumns;
    char value[512]; /* VALUE, SET_NAME, DEALLOCATE; CONTROL: a database, "" for all, or a number */
    char shard[128]; /* CONTROL of a shard */
    int limit_ms;    /* ... for so long; 0: not said */
    struct pg_error error;
    struct console_column own_column; /* VALUE: `columns` points here */
    char own_name[128];
    char message[1100];
};

/*
 * Understands the first command of `sql` and returns how many bytes it took, with its semicolon. Never
 * fails: what it does not understand is a CONSOLE_REFUSE, and takes the whole text. `config`: for SHOW
 * of a setting. The result must not be copied: it points into itself.
 */
size_t console_parse(const char *sql, const struct config *config, struct console_parsed *parsed);
/* Whether only spaces, comments and semicolons are left. */
bool console_is_blank(const char *sql);

const struct console_command *console_commands(int *count);

#endif
