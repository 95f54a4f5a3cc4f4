/*
 * fleet.h: work on all shards of a database at once, for pgshuntctl: unique ids, lookups, reference tables, drift.
 *
 * Each engine connects to the primary of every shard, tells what it finds and does through a callback, and
 * returns an outcome. All may be killed at any moment and run again. Not thread-safe.
 */
#ifndef PGSHUNT_FLEET_H
#define PGSHUNT_FLEET_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "pgshunt/config.h"

struct catalog_rule;

enum fleet_event_kind {
    FLEET_FACT,    /* what is, and is well */
    FLEET_PROBLEM, /* what is not; `mend` says what to do */
    FLEET_NOTE,    /* what is to be known */
    FLEET_PLANNED, /* would be done (a dry run) */
    FLEET_DONE,
    FLEET_FAILED,
};

/* Texts live as long as the callback. */
struct fleet_event {
    enum fleet_event_kind kind;
    const char *shard;  /* NULL: all of them, or none */
    const char *object; /* "public.users_id_seq"; NULL: none */
    const char *text;
    const char *mend; /* statements or a command; NULL: none */
};

enum fleet_outcome {
    FLEET_OUTCOME_DONE,      /* and nothing was found */
    FLEET_OUTCOME_DIFFERENT, /* looked, and found problems */
    FLEET_OUTCOME_FAILED,    /* nothing has changed */
    FLEET_OUTCOME_UNFINISHED /* something was done, something was not: run it again */
};

struct fleet_request {
    const struct config *config;
    const char *database;
    const char *user; /* NULL: $PGUSER, monitor.user */
    bool dry_run;
    const volatile sig_atomic_t *stop;
    void (*tell)(void *arg, const struct fleet_event *event);
    void *arg;
};

/* ---- unique ids ---- */

#define FLEET_STRIDE 64 /* unless said otherwise: room for so many shards */
#define FLEET_STRIDE_MAX 1024

/* Interleaves the sequences of all shards and installs pgshunt.next_id() and pgshunt.uuid_v7(). `stride`:
 * 0: as it was set up before, else FLEET_STRIDE. */
enum fleet_outcome fleet_sequences_setup(const struct fleet_request *request, int stride);
/* Only those of these tables, which are taken for tables of their keyspaces, whatever they are now. Where they have
 * none, nothing is done. */
enum fleet_outcome fleet_sequences_setup_tables(const struct fleet_request *request,
                                                const struct catalog_rule *tables, int count);
/* Only looks: what setup would change, and ids that would be given twice. */
enum fleet_outcome fleet_sequences_check(const struct fleet_request *request);
/* Tells each sequence's state on each shard. */
enum fleet_outcome fleet_sequences_show(const struct fleet_request *request);

/* ---- reference tables ---- */

#define FLEET_ROWS 20 /* that differ are told, of each table and shard */

/* Compares all copies of all reference tables, or of `table` (NULL: all; "schema.table" or a name). */
enum fleet_outcome fleet_reference_check(const struct fleet_request *request, const char *table,
                                         int rows);
/* Makes all copies like those on shard `source`. */
enum fleet_outcome fleet_reference_repair(const struct fleet_request *request, const char *table,
                                          const char *source, int rows);

/* ---- lookups: see docs/internals/lookup.md ---- */

/* Sets up a lookup of the configuration by its name ("orders.id"; NULL: all): indexes, then functions. */
enum fleet_outcome fleet_lookup_create(const struct fleet_request *request, const char *name);
/* Looks whether they are complete and tell the truth. `repair`: makes what is missing. */
enum fleet_outcome fleet_lookup_verify(const struct fleet_request *request, const char *name,
                                       bool repair);
/* Takes away what was made for one, configured or not. */
enum fleet_outcome fleet_lookup_drop(const struct fleet_request *request, const char *name);

/* ---- drift ---- */

/* Compares the schemas of all shards. */
enum fleet_outcome fleet_schema_diff(const struct fleet_request *request);

#endif
