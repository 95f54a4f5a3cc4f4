/*
 * partition.h: the engine that maintains time-based partitions on all shards, as `pgshuntctl partition` and the daemon call it.
 *
 * A policy says how a table is partitioned, how far ahead and how long its partitions are kept. What is there on each shard is
 * compared with it, and what differs is done: each partition by itself, so that what fails keeps nothing else from being
 * done. Everything may be killed at any moment and called again. How it works: docs/internals/partitions.md.
 */
#ifndef PGSHUNT_PARTITION_H
#define PGSHUNT_PARTITION_H

#include "pgshunt/arena.h"
#include "pgshunt/cron.h"
#include "pgshunt/fleet.h"

/* A policy as a user writes it; NULL: the usual, or (to be altered) as it was. */
struct partition_wish {
    const char *by;  /* the column */
    const char *key; /* of integers: id, seconds, milliseconds, microseconds; of text: text, ulid */
    const char *every;       /* "1month" */
    const char *ahead;       /* partitions beyond the present one; "4" */
    const char *keep;        /* "12months"; "forever" */
    const char *on_expiry;   /* "drop", "detach", "archive:SCHEMA", "export:DIRECTORY" */
    const char *format;      /* of exports: "csv", "binary" */
    const char *keep_table;  /* after an export: "on", "off" */
    const char *start;       /* "2026-01-01", or a number: of the first partition */
    const char *timezone;    /* "UTC" */
    const char *has_default; /* "on", "off" */
    const char *template;    /* a table that partitions are made like */
    const char *name_format; /* "_p%Y%m%d" */
    const char *sub;         /* how each partition is divided again: "hash:user_id:8"; "none" */
};

/* Where and when. */
struct partition_call {
    struct fleet_request fleet;
    const char
        *table; /* "schema.name" or a name (of schema public); NULL: all that have a policy */
    const char
        *now; /* as if it were that time (UTC): "2026-03-01 12:00"; NULL: the catalog's clock */
    int lock_timeout; /* ms a statement of ours may wait for a lock; 0: 200 */
    int tries;        /* ... and so often; 0: 10 */
    const struct cron
        *schedule;   /* not NULL: a run that is not due by the time it may begin is none,
                                    and so is one while another is at work: neither is told */
    int64_t timeout; /* ms that all of it may take: what is left then is told; 0: no limit */
};

/*
 * Makes the table a partitioned one, if it is an empty plain one; records its policy; makes its partitions. The table has to be
 * there on every shard that has its rows.
 */
enum fleet_outcome partition_create(const struct partition_call *call,
                                    const struct partition_wish *wish);
/* How a table with rows is made a partitioned one; 0: the usual. */
struct partition_conversion {
    bool extend_key;    /* the primary key gets the column */
    int64_t rate;       /* bytes a second that are copied on each shard; 0: no limit */
    int64_t max_lag_ms; /* copying waits while a replica is further behind; 0: never */
    int max_pause_ms;   /* so long may statements be kept beyond lock_timeout; 0: 100 */
};

/*
 * Makes a table with rows a partitioned one beside those who use it: rows are copied, changes follow, and the new one gets the
 * old one's name. Called again it goes on where it was. The old one stays under another name until partition_convert_finish().
 */
enum fleet_outcome partition_convert(const struct partition_call *call,
                                     const struct partition_wish *wish,
                                     const struct partition_conversion *how);
/* Everything as it was, as long as no shard has the new table under the old one's name. */
enum fleet_outcome partition_convert_cancel(const struct partition_call *call);
/* Drops what is left of the old table. */
enum fleet_outcome partition_convert_finish(const struct partition_call *call);
/* Records a policy for a table that has partitions already, whoever made them. What the wish leaves open is told from them, or
 * from pg_partman's configuration. */
enum fleet_outcome partition_adopt(const struct partition_call *call,
                                   const struct partition_wish *wish);
enum fleet_outcome partition_alter(const struct partition_call *call,
                                   const struct partition_wish *wish);
/* The table stays as it is. */
enum fleet_outcome partition_drop_policy(const struct partition_call *call);
/*
 * Makes the table a plain one again, with all of its rows, in one transaction on each shard that can be reached, and ends its policy
 * when that is done everywhere. `force`: however many rows there are.
 */
enum fleet_outcome partition_undo(const struct partition_call *call, bool force);
/* Makes what is missing, then sees to what has expired. */
enum fleet_outcome partition_maintain(const struct partition_call *call);
/* Whether there are policies, and a run was meant to be (in UTC) since the last one began: one that was missed is made up for. What
 * keeps it from being found out is told. */
bool partition_is_due(const struct partition_call *call, const struct cron *cron);
/* What has only values before `before` expires now, whatever its policy keeps. */
enum fleet_outcome partition_expire(const struct partition_call *call, const char *before);
/* Looks for gaps, shards that differ, rows in default partitions, too few partitions ahead. */
enum fleet_outcome partition_check(const struct partition_call *call);

/* ---- what there is ---- */

struct partition_shown {
    const char *name, *from,
        *to;             /* in the policy's zone; of the default partition from and to are NULL */
    const char *state;   /* "past", "now", "ahead", "expired", "default", "pending" */
    int64_t bytes, rows; /* of all shards; rows as the statistics have them, -1: not known */
    int parts;           /* that it is divided into, where it has most; 0: it is not */
    const char *shards;  /* that have it: "all", or their names */
};

struct partition_table {
    const char *table, *by, *every, *keep, *on_expiry, *timezone;
    const char *sub; /* how partitions are divided again; NULL: they are not */
    int ahead;       /* as the policy wants it */
    int have_ahead;  /* as it is, on the shard that has the fewest */
    const char *
        until; /* where values have partitions up to, on the shard that ends first; in the policy's zone */
    double covered_seconds;                  /* from now to `until`; NAN: ids have no time */
    const char *next_creation, *next_expiry; /* when there will be something to do; NULL: nothing */
    int64_t bytes, bytes_to_expire, default_rows;
    struct partition_shown *partitions;
    int npartitions;
};

struct partition_survey {
    struct arena arena;
    struct partition_table *tables;
    int ntables;
    const char *last_run, *last_outcome; /* NULL: there was none */
    double last_success; /* seconds since 1970 when the last run without failures ended; 0: none */
    double last_seconds; /* so long did the last run take */
};

/*
 * Fills `survey`, in any case to be given to partition_survey_free(). `details`: with partitions, and sizes as they are at this
 * moment; otherwise they are about what they were when the servers last vacuumed or analyzed.
 */
enum fleet_outcome partition_look(const struct partition_call *call, bool details,
                                  struct partition_survey *survey);
void partition_survey_free(struct partition_survey *survey);

#endif
