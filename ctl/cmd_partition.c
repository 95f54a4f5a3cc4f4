/* cmd_partition.c: `pgshuntctl partition`: time-based partitions made ahead and taken away in time, on all shards. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ctl/fleet_show.h"
#include "ctl/partition_show.h"

const char cmd_partition_help[] =
    "create TABLE       makes an empty table a partitioned one (or takes one that has no "
    "partitions\n"
    "                   yet), records its policy, and makes its partitions, on every shard\n"
    "adopt TABLE        takes over a table that has partitions, made by hand, by pg_partman or by\n"
    "                   Citus' functions, whatever they are called\n"
    "convert TABLE      makes a table with rows a partitioned one while it is used: rows are\n"
    "                   copied, changes follow, names are exchanged. May be killed, and run again\n"
    "maintain [TABLE]   makes what is missing, then sees to what has expired: each partition by\n"
    "                   itself, so that what fails keeps nothing else from being done. May be\n"
    "                   killed, and run again\n"
    "list, show TABLE   policies; a table's partitions with their ranges and sizes\n"
    "check [TABLE]      only looks: too few ahead, gaps, shards that differ, rows in default\n"
    "                   partitions, interrupted detaching. Exit status 5 when something is found\n"
    "alter TABLE        changes the policy\n"
    "expire TABLE       takes away what has only values before --before, now\n"
    "drop-policy TABLE  ends maintenance; the table stays as it is\n"
    "undo TABLE         makes it a plain table again, with all of its rows, and ends its policy.\n"
    "                   Whoever reads or writes it waits meanwhile: so only up to a million rows\n"
    "                   a shard, or --force\n\n"
    "The policy (create, adopt, alter):\n"
    "      --by COLUMN            timestamptz, timestamp, date, integers, uuid (version 7), text\n"
    "      --every 1month         minutes, hours, days, weeks (from Monday), months, quarters,\n"
    "                             years, any number of them; of ids a number\n"
    "      --key seconds          what integers are: id, seconds, milliseconds, microseconds;\n"
    "                             text: text (begins with YYYY-MM-DD), ulid\n"
    "      --ahead 4              partitions beyond the present one\n"
    "      --keep 12months        rows are kept at least that long; forever (the default)\n"
    "      --on-expiry WHAT       detach (the default), drop, archive:SCHEMA, export:DIRECTORY\n"
    "                             (on the host that maintains)\n"
    "      --format csv           of exported files: csv, binary\n"
    "      --keep-table           what has been exported is not dropped; --keep-table=off\n"
    "      --start 2026-01-01     of the first partition (default: the present one)\n"
    "      --timezone UTC         days begin there\n"
    "      --default off          on: a partition for rows that have none\n"
    "      --template TABLE       partitions are made like this table: unlogged, indexes of their\n"
    "                             own, storage parameters\n"
    "      --name-format _p%Y%m%d behind the table's name; %Y %m %d %H %M %G %V %q %i\n"
    "      --sub WHAT             each partition is divided again: hash:user_id:8,\n"
    "                             list:country:de,fr,us+ca:default, range:1day, none\n"
    "Converting:\n"
    "      --extend-key           the primary key gets the column\n"
    "      --rate 50MB/s          no more is copied on each shard\n"
    "      --max-lag 10s          copying waits while a replica is further behind\n"
    "      --max-pause 100ms      statements wait no longer than this and --lock-timeout\n"
    "      --cancel               everything as it was\n"
    "      --finish               drops the old table, which is kept until then\n"
    "How:\n"
    "      --before DATE          expire: values before it\n"
    "      --lock-timeout 200ms   no longer is waited for a lock at once: others queue behind it\n"
    "      --tries 10             ... and so often\n"
    "      --timeout 30min        all of it may take so long; what is left then is told, and done "
    "by\n"
    "                             the next run\n"
    "      --timeline             list: with all partitions\n"
    "      --force                undo: however many rows there are\n"
    "      --now 'DATE TIME'      as if it were that time (UTC)\n"
    "      --database NAME        which of the configuration (default: the only one)\n"
    "      --user NAME            log in to servers as (default: $PGUSER, monitor.user)\n\n"
    "Examples:\n"
    "  pgshuntctl partition create events --by created_at --every 1month --keep 12months\n"
    "  pgshuntctl partition create logs --by at --every 1day --keep 30days --on-expiry drop\n"
    "  pgshuntctl partition convert orders --by created_at --every 1month --rate 20MB/s\n"
    "  pgshuntctl partition adopt audit --keep 24months --dry-run\n"
    "  pgshuntctl partition maintain\n"
    "  pgshuntctl partition check --json\n"
    "  pgshuntctl partition expire logs --before 2026-01-01 --dry-run\n";

enum {
    BY = 1,
    EVERY,
    KEY,
    AHEAD,
    KEEP,
    ON_EXPIRY,
    FORMAT,
    KEEP_TABLE,
    START,
    TIMEZONE,
    DEFAULT,
    TEMPLATE,
    NAME_FORMAT,
    BEFORE,
    LOCK_TIMEOUT,
    TRIES,
    TIMEOUT,
    TIMELINE,
    FORCE,
    NOW,
    DATABASE,
    USER,
    EXTEND_KEY,
    RATE,
    MAX_LAG,
    MAX_PAUSE,
    CANCEL,
    FINISH,
    SUB,
};

static const struct option options[] = {
    {"by", required_argument, NULL, BY},
    {"every", required_argument, NULL, EVERY},
    {"key", required_argument, NULL, KEY},
    {"ahead", required_argument, NULL, AHEAD},
    {"keep", required_argument, NULL, KEEP},
    {"on-expiry", required_argument, NULL, ON_EXPIRY},
    {"format", required_argument, NULL, FORMAT},
    {"keep-table", optional_argument, NULL, KEEP_TABLE},
    {"start", required_argument, NULL, START},
    {"timezone", required_argument, NULL, TIMEZONE},
    {"default", required_argument, NULL, DEFAULT},
    {"template", required_argument, NULL, TEMPLATE},
    {"name-format", required_argument, NULL, NAME_FORMAT},
    {"before", required_argument, NULL, BEFORE},
    {"lock-timeout", required_argument, NULL, LOCK_TIMEOUT},
    {"tries", required_argument, NULL, TRIES},
    {"timeout", required_argument, NULL, TIMEOUT},
    {"timeline", no_argument, NULL, TIMELINE},
    {"force", no_argument, NULL, FORCE},
    {"now", required_argument, NULL, NOW},
    {"database", required_argument, NULL, DATABASE},
    {"user", required_argument, NULL, USER},
    {"extend-key", no_argument, NULL, EXTEND_KEY},
    {"rate", required_argument, NULL, RATE},
    {"max-lag", required_argument, NULL, MAX_LAG},
    {"max-pause", required_argument, NULL, MAX_PAUSE},
    {"cancel", no_argument, NULL, CANCEL},
    {"finish", no_argument, NULL, FINISH},
    {"sub", required_argument, NULL, SUB},
    {NULL, 0, NULL, 0},
};

/* The command line, taken apart. */
struct call {
    struct ctl *ctl;
    struct partition_call partition;
    struct partition_wish wish;
    struct partition_conversion conversion;
    struct fleet_shown shown;
    const char *database, *before;
    bool timeline, force;
    unsigned given; /* bits of options */
};

/* ---- verbs ---- */

static enum fleet_outcome do_create(struct call *call)
{
    return partition_create(&call->partition, &call->wish);
}

#define BIT(option) (1u << (option))

static enum fleet_outcome do_convert(struct call *call)
{
    if (call->given & BIT(CANCEL))
        return partition_convert_cancel(&call->partition);
    if (call->given & BIT(FINISH))
        return partition_convert_finish(&call->partition);
    return partition_convert(&call->partition, &call->wish, &call->conversion);
}

static enum fleet_outcome do_adopt(struct call *call)
{
    return partition_adopt(&call->partition, &call->wish);
}

static enum fleet_outcome do_alter(struct call *call)
{
    return partition_alter(&call->partition, &call->wish);
}

static enum fleet_outcome do_maintain(struct call *call)
{
    return partition_maintain(&call->partition);
}

static enum fleet_outcome do_expire(struct call *call)
{
    return partition_expire(&call->partition, call->before);
}

static enum fleet_outcome do_check(struct call *call)
{
    return partition_check(&call->partition);
}

static enum fleet_outcome do_drop_policy(struct call *call)
{
    return partition_drop_policy(&call->partition);
}

static enum fleet_outcome do_undo(struct call *call)
{
    return partition_undo(&call->partition, call->force);
}

#define ALWAYS (BIT(DATABASE) | BIT(USER) | BIT(NOW))
#define POLICY                                                                                     \
    (BIT(EVERY) | BIT(AHEAD) | BIT(KEEP) | BIT(ON_EXPIRY) | BIT(FORMAT) | BIT(KEEP_TABLE) |        \
     BIT(TIMEZONE) | BIT(DEFAULT) | BIT(TEMPLATE) | BIT(NAME_FORMAT))
#define HOW (BIT(LOCK_TIMEOUT) | BIT(TRIES) | BIT(TIMEOUT))
#define CONVERT                                                                                    \
    (BIT(EXTEND_KEY) | BIT(RATE) | BIT(MAX_LAG) | BIT(MAX_PAUSE) | BIT(CANCEL) | BIT(FINISH))

static const struct verb {
    const char *name;
    enum fleet_outcome (*run)(struct call *call); /* NULL: shows what there is */
    enum { NO_TABLE, MAY_TABLE, TABLE } takes;
    unsigned options;
    bool changes;
    const char *done, *different;
} verbs[] = {
    {"create", do_create, TABLE, POLICY | HOW | BIT(BY) | BIT(KEY) | BIT(START) | BIT(SUB), true,
     "Done.", "Nothing was changed: see above."},
    {"adopt", do_adopt, TABLE, POLICY | HOW | BIT(KEY) | BIT(SUB), true, "Done.",
     "Nothing was changed: see above."},
    {"convert", do_convert, TABLE,
     POLICY | BIT(LOCK_TIMEOUT) | BIT(TRIES) | CONVERT | BIT(BY) | BIT(KEY) | BIT(START), true,
     "Done.", "Nothing was changed: see above."},
    {"alter", do_alter, TABLE, POLICY | HOW | BIT(SUB), true, "Done.",
     "Nothing was changed: see above."},
    {"maintain", do_maintain, MAY_TABLE, HOW, true, "Everything is as it should be.",
     "Done, but for what is told above."},
    {"list", NULL, NO_TABLE, BIT(TIMELINE), false, "", ""},
    {"show", NULL, TABLE, 0, false, "", ""},
    {"check", do_check, MAY_TABLE, 0, false, "Nothing was found.", "See above."},
    {"expire", do_expire, TABLE, BIT(BEFORE) | HOW, true, "Done.",
     "Nothing was changed: see above."},
    {"drop-policy", do_drop_policy, TABLE, 0, true, "Done.", ""},
    {"undo", do_undo, TABLE, BIT(FORCE) | HOW, true, "Done.", "Nothing was changed: see above."},
};

static const struct verb *find_verb(const char *name)
{
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++)
        if (strcmp(verbs[i].name, name) == 0)
            return &verbs[i];
    return NULL;
}

/* ---- the command line ---- */

static int take_how(struct ctl *ctl, int option, struct call *call)
{
    if (option == TRIES) {
        call->partition.tries = atoi(optarg);
        return call->partition.tries >= 1 && call->partition.tries <= 1000
                   ? -1
                   : ctl_usage(ctl, "--tries takes a number from 1 to 1000, not \"%s\"", optarg);
    }
    int64_t timeout = ctl_duration(optarg);
    if (option == TIMEOUT) {
        call->partition.timeout = timeout;
        return timeout >= 1 && timeout <= INT64_C(7) * 86400000
                   ? -1
                   : ctl_usage(ctl, "--timeout takes a time like 30min, not \"%s\"", optarg);
    }
    call->partition.lock_timeout = (int)timeout;
    return timeout >= 1 && timeout <= 3600000
               ? -1
               : ctl_usage(ctl, "--lock-timeout takes a time like 200ms, not \"%s\"", optarg);
}

static int take_conversion(struct ctl *ctl, int option, struct call *call)
{
    struct partition_conversion *how = &call->conversion;
    int64_t time = option == MAX_LAG || option == MAX_PAUSE ? ctl_duration(optarg) : 0;
    how->extend_key |= option == EXTEND_KEY;
    if (option == RATE && (how->rate = ctl_size(optarg)) <= 0)
        return ctl_usage(ctl, "--rate takes a size a second like 50MB/s, not \"%s\"", optarg);
    if (option == MAX_LAG && (how->max_lag_ms = time) <= 0)
        return ctl_usage(ctl, "--max-lag takes a time like 10s, not \"%s\"", optarg);
    if (option == MAX_PAUSE && (time < 1 || time > 3600000))
        return ctl_usage(ctl, "--max-pause takes a time like 100ms, not \"%s\"", optarg);
    if (option == MAX_PAUSE)
        how->max_pause_ms = (int)time;
    return -1;
}

static int take(struct ctl *ctl, int option, struct call *call)
{
    struct partition_wish *wish = &call->wish;
    const char **texts[] = {
        [BY] = &wish->by,
        [EVERY] = &wish->every,
        [KEY] = &wish->key,
        [AHEAD] = &wish->ahead,
        [KEEP] = &wish->keep,
        [ON_EXPIRY] = &wish->on_expiry,
        [FORMAT] = &wish->format,
        [START] = &wish->start,
        [TIMEZONE] = &wish->timezone,
        [DEFAULT] = &wish->has_default,
        [TEMPLATE] = &wish->template,
        [NAME_FORMAT] = &wish->name_format,
        [SUB] = &wish->sub,
        [BEFORE] = &call->before,
        [NOW] = &call->partition.now,
        [DATABASE] = &call->database,
        [USER] = &call->partition.fleet.user,
    };
    call->given |= BIT(option);
    if (option == LOCK_TIMEOUT || option == TRIES || option == TIMEOUT)
        return take_how(ctl, option, call);
    if (BIT(option) & CONVERT)
        return take_conversion(ctl, option, call);
    if (option == TIMELINE)
        call->timeline = true;
    else if (option == FORCE)
        call->force = true;
    else if (option == KEEP_TABLE)
        wish->keep_table = optarg ? optarg : "on";
    else
        *texts[option] = optarg;
    return -1;
}

static int check_call(struct ctl *ctl, const struct verb *verb, struct call *call)
{
    unsigned foreign = call->given & ~(verb->options | ALWAYS);
    if (verb->run == do_convert && foreign & BIT(SUB))
        return ctl_usage(ctl, "what is converted is not divided again: partition alter --sub, when "
                              "it is done, divides partitions to come");
    for (int i = 0; options[i].name; i++)
        if (foreign & BIT(options[i].val))
            return ctl_usage(ctl, "partition %s has no option --%s", verb->name, options[i].name);
    if (ctl->dry_run && !verb->changes)
        return ctl_usage(ctl, "partition %s changes nothing, so there is no --dry-run", verb->name);
    if ((verb->options & BIT(BEFORE)) && !call->before)
        return ctl_usage(ctl, "partition expire takes --before DATE");
    unsigned ends = call->given & (BIT(CANCEL) | BIT(FINISH));
    if (ends && call->given & ~(ends | ALWAYS | HOW))
        return ctl_usage(ctl, "--cancel and --finish take no options of a policy");
    if (ends == (BIT(CANCEL) | BIT(FINISH)))
        return ctl_usage(ctl, "--cancel and --finish are two different things");
    return -1;
}

static int parse(struct ctl *ctl, int argc, char **argv, struct call *call,
                 const struct verb **verb)
{
    int option, status;
    while ((option = ctl_option(ctl, argc, argv, "", options, &status)) >= 0)
        if ((status = take(ctl, option, call)) >= 0)
            return status;
    if (option == CTL_OPTION_EXIT)
        return status;
    int left = argc - optind;
    if (left < 1)
        return ctl_usage(ctl,
                         "partition takes a verb: create, adopt, convert, maintain, list, show, "
                         "check, alter, expire, drop-policy, undo");
    *verb = find_verb(argv[optind]);
    if (!*verb)
        return ctl_usage(ctl, "there is no \"partition %s\"", argv[optind]);
    if (left > ((*verb)->takes == NO_TABLE ? 1 : 2) || ((*verb)->takes == TABLE && left < 2))
        return ctl_usage(ctl, "partition %s takes %s", (*verb)->name,
                         (*verb)->takes == NO_TABLE    ? "no table"
                         : (*verb)->takes == MAY_TABLE ? "a table, or nothing for all"
                                                       : "a table");
    call->partition.table = left > 1 ? argv[optind + 1] : NULL;
    return check_call(ctl, *verb, call);
}

/* ---- running ---- */

static int find_database(const struct ctl *ctl, struct call *call)
{
    const struct config *config = ctl->config;
    if (!call->database && config->ndatabases != 1)
        return ctl_usage(ctl, "the configuration has %d databases: name one with --database",
                         config->ndatabases);
    if (!call->database)
        call->database = config->databases[0].name;
    return -1;
}

static int show(struct call *call, bool details)
{
    struct partition_survey survey;
    enum fleet_outcome outcome = partition_look(&call->partition, details, &survey);
    int status = -1;
    if (outcome == FLEET_OUTCOME_DONE || survey.ntables)
        partition_show(call->ctl, &survey, call->partition.table != NULL, details);
    if (outcome != FLEET_OUTCOME_DONE || survey.ntables == 0)
        status = fleet_finish(&call->shown, outcome,
                              "No table has a policy: pgshuntctl partition create", "");
    else
        json_decref(call->shown.events); /* nothing was told */
    partition_survey_free(&survey);
    return status < 0 ? CTL_DONE : status;
}

int cmd_partition(struct ctl *ctl, int argc, char **argv)
{
    struct call call = {.ctl = ctl};
    const struct verb *verb = NULL;
    int status = parse(ctl, argc, argv, &call, &verb);
    if (status < 0 && !ctl_load_config(ctl))
        status = CTL_FAILED;
    if (status < 0)
        status = find_database(ctl, &call);
    if (status < 0)
        status = fleet_begin(ctl, call.database, &call.shown, &call.partition.fleet);
    if (status >= 0)
        return status;
    if (!verb->run)
        return show(&call, call.timeline || call.partition.table);
    enum fleet_outcome outcome = verb->run(&call);
    return fleet_finish(&call.shown, outcome, ctl->dry_run ? "Nothing was changed." : verb->done,
                        verb->different);
}
