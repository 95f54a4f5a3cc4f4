/*
 * ctl.h: what pgshuntctl's commands share: the table of commands, options, exit codes, output.
 *
 * A command is one row of commands[] (main.c) and one file cmd_*.c with its function: arguments in, an
 * engine called, its answers shown. Logic is the engine's.
 */
#ifndef PGSHUNT_CTL_CTL_H
#define PGSHUNT_CTL_CTL_H

#include <getopt.h>
#include <jansson.h>
#include <signal.h>
#include <stdbool.h>

#include "pgshunt/config.h"

/* Exit codes: documented in docs/reference/pgshuntctl.md, for scripts to rely on. */
enum {
    CTL_DONE = 0,
    CTL_FAILED = 1,     /* did not work; nothing has changed */
    CTL_USAGE = 2,      /* the command line is wrong */
    CTL_REFUSED = 3,    /* something is in the way; nothing was done */
    CTL_UNFINISHED = 4, /* partly done: what was printed says what is left */
    CTL_DIFFERENT = 5,  /* a look has found something wrong */
    CTL_INTERRUPTED = 130,
};

struct ctl {
    const char *config_path;
    struct config *config; /* loaded for commands that want it */
    bool json;
    bool dry_run;
    const struct command *command;
};

struct command {
    const char *name;
    const char *arguments; /* "SHARD [--to HOST:PORT]" */
    const char *summary;   /* one line */
    const char *help;      /* options and examples */
    /* argv[0] is the command's name. Returns an exit code. */
    int (*run)(struct ctl *ctl, int argc, char **argv);
    bool changes; /* it knows --dry-run */
};

/* Set by SIGINT, SIGTERM and SIGHUP. */
extern volatile sig_atomic_t ctl_stop;

/* ---- options (main.c) ---- */

/*
 * One option of a command after another, the common ones (-c, --json, --dry-run, --help) taken care of.
 * Returns the option's `val`, -1 at their end (optind is the first argument), or CTL_OPTION_EXIT: *status
 * is the exit code.
 */
#define CTL_OPTION_EXIT (-2)
int ctl_option(struct ctl *ctl, int argc, char **argv, const char *letters,
               const struct option *options, int *status);
/* CTL_USAGE, with what was wrong on standard error. */
int ctl_usage(const struct ctl *ctl, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Once is enough. False: said why on standard error. */
bool ctl_load_config(struct ctl *ctl);
/* "250ms", "5s": milliseconds; -1: it is none. */
int64_t ctl_duration(const char *text);
/* "50MB", "1GB": bytes; "50MB/s" is the same. -1: it is none. */
int64_t ctl_size(const char *text);
/* "HOST:PORT", "[::1]:5432"; the host is cut out of a copy that the caller frees. NULL: it is none. */
char *ctl_address(const char *text, int *port);

/* ---- output (output.c) ---- */

/* A table with aligned columns; cells are copied. With --json an array of objects instead. */
struct ctl_table;
struct ctl_table *ctl_table_new(const char *const *columns, int ncolumns);
/* One cell after another, row by row; NULL: empty (null). */
void ctl_table_add(struct ctl_table *table, const char *cell);
int ctl_table_rows(const struct ctl_table *table);
void ctl_table_print(const struct ctl_table *table);
json_t *ctl_table_json(const struct ctl_table *table);
void ctl_table_free(struct ctl_table *table);

/* Prints and frees it. */
void ctl_print_json(json_t *json);

/* A step's progress: on a terminal one line that is written over when the step ends; else only its end. */
void ctl_progress_begin(const char *step, const char *text);
void ctl_progress_end(const char *step, const char *text, const char *how);
/* Any other line: ends a progress line that is open. `indent` is put ahead of every line of text. */
void ctl_line(const char *indent, const char *text);

/* ---- commands ---- */

int cmd_failover(struct ctl *ctl, int argc, char **argv);
extern const char cmd_failover_help[];
int cmd_map(struct ctl *ctl, int argc, char **argv);
extern const char cmd_map_help[];
int cmd_partition(struct ctl *ctl, int argc, char **argv);
extern const char cmd_partition_help[];
int cmd_reference(struct ctl *ctl, int argc, char **argv);
extern const char cmd_reference_help[];
int cmd_schema(struct ctl *ctl, int argc, char **argv);
extern const char cmd_schema_help[];
int cmd_sequences(struct ctl *ctl, int argc, char **argv);
extern const char cmd_sequences_help[];
int cmd_reshard(struct ctl *ctl, int argc, char **argv);
extern const char cmd_reshard_help[];
int cmd_move_table(struct ctl *ctl, int argc, char **argv);
extern const char cmd_move_table_help[];
int cmd_lookup(struct ctl *ctl, int argc, char **argv);
extern const char cmd_lookup_help[];
int cmd_status(struct ctl *ctl, int argc, char **argv);
extern const char cmd_status_help[];
int cmd_explain(struct ctl *ctl, int argc, char **argv);
extern const char cmd_explain_help[];

#endif
