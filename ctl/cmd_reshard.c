/* cmd_reshard.c: `pgshuntctl reshard`: moving live data between shards. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "ctl/reshard_show.h"
#include "pgshunt/db.h"

const char cmd_reshard_help[] =
    "plan      what would move, how much it is, and what is in the way; writes nothing\n"
    "create    checks everything, and records the job NAME\n"
    "run       copies, then keeps the target up to date (and, behind a switch, the source, for a\n"
    "          rollback), until interrupted. May be killed, and run again: it goes on\n"
    "status    of NAME, or of all jobs; --watch repeats it\n"
    "pause     a running copy or stream rests; resume lets it go on\n"
    "verify    compares both sides, row by row where checksums differ. Exit status 5 when not "
    "equal\n"
    "switch    traffic goes to the new owners: clients see a pause, no errors\n"
    "rollback  ... and back to the old ones, with all that was written since\n"
    "complete  the job is over: what has moved is removed from the old owners, in small batches\n"
    "cancel    before a switch: removes everything that the job has made\n"
    "gc        finds what killed jobs have left behind, and removes it\n\n"
    "What moves (plan, create):\n"
    "      --add s2[,s3]          these shards get their share, by their weight\n"
    "      --drain s0             these shards are to own nothing\n"
    "      --weights s0=1,s1=2    shares of all shards\n"
    "      --move 0-4095:s2       these buckets; users/0-99:s1: of one keyspace; regions/de:s1: a\n"
    "                             value of a list; times/[100,200):s1: a part of ranges\n"
    "      --split-hot            the buckets most asked for leave the busiest shards\n"
    "      --keyspaces users      only of these keyspaces\n"
    "      --clone                the new shard is a physical replica of the one that gives "
    "buckets:\n"
    "                             it is promoted, and what it does not get is deleted from it\n"
    "      --prepare-schema       create: tables, types and functions are made on an empty target\n"
    "                             (by pg_dump and pg_restore, the newest installed, or those in "
    "the\n"
    "                             folder $PGSHUNT_PG_BINDIR)\n"
    "      --skip-check disk      goes on where a target's free disk seems too little\n"
    "How (run, verify, complete):\n"
    "      --jobs N               chunks copied, or tables compared, at once (default 4)\n"
    "      --rate 50MB/s          no more than that\n"
    "      --max-lag 10s          copying waits while a replica is further behind\n"
    "      --max-load 150%        copying slows down while a small transaction takes longer on "
    "its\n"
    "                             source than that, compared with what it takes without, or\n"
    "                             applications write less than 90 % of what they write without\n"
    "                             (200%: 80 %); off: never\n"
    "      --drain 10min          run: transactions from before may take that long to end, ahead "
    "of "
    "the copy\n"
    "      --until-caught-up      run: ends as soon as the target is up to date\n"
    "      --detach               run: leaves it to the proxies, of which one at a time runs it\n"
    "The switch (switch, rollback):\n"
    "      --max-pause 500ms      it gives up, and all is as before, when it would take longer\n"
    "      --drain 500ms          running transactions may take that long to end\n"
    "      --force                ... and are cancelled then\n"
    "Always:\n"
    "      --database NAME        which of the configuration (default: the only one)\n"
    "      --user NAME            log in to servers as (default: $PGUSER, monitor.user)\n\n"
    "Examples:\n"
    "  pgshuntctl reshard plan --add s2\n"
    "  pgshuntctl reshard create grow --add s2 --prepare-schema\n"
    "  pgshuntctl reshard run grow --rate 50MB/s\n"
    "  pgshuntctl reshard verify grow\n"
    "  pgshuntctl reshard switch grow --max-pause 200ms\n"
    "  pgshuntctl reshard rollback grow\n"
    "  pgshuntctl reshard complete grow\n";

const char cmd_move_table_help[] =
    "An unsharded table is on the first shard. Brings it into a keyspace, or takes it out of one, "
    "while\n"
    "applications go on, by the same engine and verbs as reshard (run, status, verify, switch, "
    "...: \n"
    "pgshuntctl reshard --help). What is known of the table is in the catalog: proxies follow "
    "it.\n\n"
    "plan      how much it is, and what is in the way; writes nothing\n"
    "create    checks everything, and records the job NAME\n"
    "run, status, pause, resume, verify, switch, rollback, complete, cancel: as of reshard\n\n"
    "What moves (plan, create):\n"
    "      --tables orders,items  these tables, all at once: those that foreign keys tie together\n"
    "      --into users           into this keyspace of the configuration\n"
    "      --by user_id           the column that they are sharded by; of one table:\n"
    "                             items.owner_id; of a key of several columns: tenant,user\n"
    "      --out                  out of their keyspace, home to the first shard\n"
    "      --prepare-schema       the tables are made where they are not there yet\n"
    "      --skip-check disk      goes on where a target's free disk seems too little\n"
    "Always:\n"
    "      --database NAME        which of the configuration (default: the only one)\n"
    "      --user NAME            log in to servers as (default: $PGUSER, monitor.user)\n\n"
    "Examples:\n"
    "  pgshuntctl move-table create split --tables users,orders --into users --by users.id,user_id "
    "\\\n"
    "      --prepare-schema\n"
    "  pgshuntctl move-table run split --rate 50MB/s\n"
    "  pgshuntctl move-table verify split\n"
    "  pgshuntctl move-table switch split\n"
    "  pgshuntctl move-table complete split\n"
    "  pgshuntctl move-table create home --tables orders --out\n";

enum {
    ADD = 1,
    DRAIN,
    WEIGHTS,
    MOVE,
    KEYSPACES,
    PREPARE_SCHEMA,
    JOBS,
    RATE,
    MAX_LAG,
    MAX_LOAD,
    UNTIL_CAUGHT_UP,
    DETACH,
    SUPERVISOR,
    MAX_PAUSE,
    FORCE,
    WATCH,
    DATABASE,
    USER,
    TABLES,
    INTO,
    BY,
    OUT,
    SPLIT_HOT,
    SKIP_CHECK,
    CLONE,
};

static const struct option options[] = {
    {"add", required_argument, NULL, ADD},
    {"split-hot", no_argument, NULL, SPLIT_HOT},
    {"clone", no_argument, NULL, CLONE},
    {"drain", required_argument, NULL, DRAIN},
    {"weights", required_argument, NULL, WEIGHTS},
    {"move", required_argument, NULL, MOVE},
    {"keyspaces", required_argument, NULL, KEYSPACES},
    {"tables", required_argument, NULL, TABLES},
    {"into", required_argument, NULL, INTO},
    {"by", required_argument, NULL, BY},
    {"out", no_argument, NULL, OUT},
    {"prepare-schema", no_argument, NULL, PREPARE_SCHEMA},
    {"skip-check", required_argument, NULL, SKIP_CHECK},
    {"jobs", required_argument, NULL, JOBS},
    {"rate", required_argument, NULL, RATE},
    {"max-lag", required_argument, NULL, MAX_LAG},
    {"max-load", required_argument, NULL, MAX_LOAD},
    {"until-caught-up", no_argument, NULL, UNTIL_CAUGHT_UP},
    {"detach", no_argument, NULL, DETACH},
    {"supervisor", required_argument, NULL, SUPERVISOR}, /* by proxies: which process started it */
    {"max-pause", required_argument, NULL, MAX_PAUSE},
    {"force", no_argument, NULL, FORCE},
    {"watch", no_argument, NULL, WATCH},
    {"database", required_argument, NULL, DATABASE},
    {"user", required_argument, NULL, USER},
    {NULL, 0, NULL, 0},
};

/* The command line, taken apart. */
struct call {
    struct reshard_request request;
    struct reshard_wish wish;
    struct reshard_run_options run;
    struct reshard_switch_options turn;
    bool prepare_schema, watch, detach;
    const char *drain; /* shards, or a duration */
    bool tables;       /* "move-table", not "reshard" */
    unsigned given;    /* bits of options */
};

static enum reshard_outcome do_plan(struct call *call)
{
    return reshard_plan(&call->request, &call->wish);
}

static enum reshard_outcome do_create(struct call *call)
{
    return reshard_create(&call->request, &call->wish, call->prepare_schema);
}

static enum reshard_outcome do_pause(struct call *call)
{
    return reshard_pause(&call->request, true);
}

static enum reshard_outcome do_resume(struct call *call)
{
    return reshard_pause(&call->request, false);
}

static enum reshard_outcome do_status(struct call *call)
{
    return reshard_status(&call->request);
}

static enum reshard_outcome do_switch(struct call *call)
{
    return reshard_switch(&call->request, &call->turn);
}

static enum reshard_outcome do_rollback(struct call *call)
{
    return reshard_rollback(&call->request, &call->turn);
}

static enum reshard_outcome do_cancel(struct call *call)
{
    return reshard_cancel(&call->request);
}

static enum reshard_outcome do_complete(struct call *call)
{
    return reshard_complete(&call->request, call->run.rate);
}

static enum reshard_outcome do_gc(struct call *call)
{
    return reshard_gc(&call->request);
}

/* A proxy that dies takes its children along. False: it has died already. */
static bool follow_supervisor(int supervisor)
{
    prctl(PR_SET_PDEATHSIG, SIGINT);
    return getppid() == supervisor;
}

static enum reshard_outcome do_run(struct call *call)
{
    if (call->detach)
        return reshard_detach(&call->request, &call->run);
    if (call->run.supervisor && !follow_supervisor(call->run.supervisor))
        return RESHARD_STOPPED;
    return reshard_run(&call->request, &call->run);
}

static enum reshard_outcome do_verify(struct call *call)
{
    return reshard_verify(&call->request, call->run.jobs, call->run.rate);
}

#define BIT(option) (1u << (option))
#define ALWAYS (BIT(DATABASE) | BIT(USER))
#define WISHES (BIT(ADD) | BIT(DRAIN) | BIT(WEIGHTS) | BIT(MOVE) | BIT(KEYSPACES) | BIT(SPLIT_HOT))
#define MOVED (BIT(TABLES) | BIT(INTO) | BIT(BY) | BIT(OUT))
#define TURNS (BIT(MAX_PAUSE) | BIT(DRAIN) | BIT(FORCE))

static const struct verb {
    const char *name;
    enum reshard_outcome (*run)(struct call *call);
    enum { NO_NAME, MAY_NAME, NAME } takes;
    unsigned options;
    bool dry_run;
    const char *done;
} verbs[] = {
    {"run", do_run, NAME,
     BIT(JOBS) | BIT(RATE) | BIT(MAX_LAG) | BIT(MAX_LOAD) | BIT(DRAIN) | BIT(UNTIL_CAUGHT_UP) |
         BIT(DETACH) | BIT(SUPERVISOR),
     true, "Done."},
    {"plan", do_plan, NO_NAME, WISHES | BIT(SKIP_CHECK) | BIT(CLONE), true,
     "Nothing is in the way."},
    {"create", do_create, NAME, WISHES | BIT(PREPARE_SCHEMA) | BIT(SKIP_CHECK) | BIT(CLONE), true,
     "Created. reshard run begins to copy."},
    {"status", do_status, MAY_NAME, BIT(WATCH), false, ""},
    {"list", do_status, NO_NAME, 0, false, ""},
    {"pause", do_pause, NAME, 0, false, "Paused."},
    {"resume", do_resume, NAME, 0, false, "It goes on."},
    {"verify", do_verify, NAME, BIT(JOBS) | BIT(RATE), true, "Both sides are the same."},
    {"switch", do_switch, NAME, TURNS, true,
     "Switched. reshard run keeps the way back open; reshard complete ends the job."},
    {"rollback", do_rollback, NAME, TURNS, true, "Traffic is where it was before the switch."},
    {"complete", do_complete, NAME, BIT(RATE), true, "Completed."},
    {"cancel", do_cancel, NAME, 0, true, "Cancelled."},
    {"gc", do_gc, NO_NAME, 0, true, "Looked at every shard."},
};

static const struct verb *find_verb(const char *name)
{
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++)
        if (strcmp(verbs[i].name, name) == 0)
            return &verbs[i];
    return NULL;
}

/* ---- the command line ---- */

static int take_duration(const struct ctl *ctl, const char *option, const char *text, int64_t *into)
{
    *into = ctl_duration(text);
    return *into < 0 ? ctl_usage(ctl, "--%s takes a time like 500ms, not \"%s\"", option, text)
                     : -1;
}

/* The engine's 0 is its default. */
static int take_load(struct ctl *ctl, const char *text, int *into)
{
    char *end;
    long percent = strtol(text, &end, 10);
    bool off = strcmp(text, "off") == 0;
    if (!off &&
        (end == text || (*end && strcmp(end, "%") != 0) || percent < 101 || percent > 10000))
        return ctl_usage(ctl, "--max-load takes 101%% to 10000%%, or off, not \"%s\"", text);
    *into = off ? -1 : (int)percent;
    return -1;
}

static int take_number(struct ctl *ctl, int option, struct call *call)
{
    if (option == MAX_LOAD)
        return take_load(ctl, optarg, &call->run.max_load);
    if (option == MAX_LAG)
        return take_duration(ctl, "max-lag", optarg, &call->run.max_lag_ms);
    if (option == MAX_PAUSE)
        return take_duration(ctl, "max-pause", optarg, &call->turn.max_pause_ms);
    if (option == RATE) {
        call->run.rate = ctl_size(optarg);
        return call->run.rate > 0
                   ? -1
                   : ctl_usage(ctl, "--rate takes a size a second like 50MB/s, not \"%s\"", optarg);
    }
    call->run.jobs = atoi(optarg);
    return call->run.jobs >= 1 && call->run.jobs <= 64
               ? -1
               : ctl_usage(ctl, "--jobs takes a number from 1 to 64, not \"%s\"", optarg);
}

static int take(struct ctl *ctl, int option, struct call *call)
{
    if (call->given & BIT(option)) /* the first would be forgotten */
        return ctl_usage(ctl, "an option is said twice; several values of one are separated by "
                              "commas, as in --move 0-99:s1,200-299:s2");
    call->given |= BIT(option);
    switch (option) {
    case ADD:
        call->wish.add = optarg;
        return -1;
    case DRAIN:
        call->drain = optarg;
        return -1;
    case WEIGHTS:
        call->wish.weights = optarg;
        return -1;
    case MOVE:
        call->wish.move = optarg;
        return -1;
    case SKIP_CHECK:
        if (strcmp(optarg, "disk") != 0)
            return ctl_usage(ctl, "--skip-check %s: only \"disk\" may be left out", optarg);
        call->wish.skips_disk = true;
        return -1;
    case SPLIT_HOT:
        call->wish.split_hot = true;
        return -1;
    case KEYSPACES:
        call->wish.keyspaces = optarg;
        return -1;
    case TABLES:
        call->wish.tables = optarg;
        return -1;
    case INTO:
        call->wish.into = optarg;
        return -1;
    case BY:
        call->wish.by = optarg;
        return -1;
    case OUT:
        call->wish.out = true;
        return -1;
    case CLONE:
        call->wish.clone = true;
        return -1;
    case PREPARE_SCHEMA:
        call->prepare_schema = true;
        return -1;
    case DETACH:
        call->detach = true;
        return -1;
    case SUPERVISOR:
        call->run.supervisor = atoi(optarg);
        return -1;
    case UNTIL_CAUGHT_UP:
        call->run.until_caught_up = true;
        return -1;
    case FORCE:
        call->turn.force = true;
        return -1;
    case WATCH:
        call->watch = true;
        return -1;
    case DATABASE:
        call->request.database = optarg;
        return -1;
    case USER:
        call->request.user = optarg;
        return -1;
    default:
        return take_number(ctl, option, call);
    }
}

static const char *command_of(const struct call *call)
{
    return call->tables ? "move-table" : "reshard";
}

/* What is wished of a job of tables: into a keyspace by a key, or out of it. */
static int check_wish(struct ctl *ctl, const struct call *call)
{
    const struct reshard_wish *wish = &call->wish;
    if (!wish->tables)
        return ctl_usage(ctl, "--tables says which tables move");
    if (wish->out ? wish->into || wish->by : !wish->into || !wish->by)
        return ctl_usage(ctl, "say --into KEYSPACE --by COLUMN, or --out");
    return -1;
}

/* Those with a wish have that of the command. */
static unsigned options_of(const struct verb *verb, const struct call *call)
{
    bool wishes = (verb->options & WISHES) == WISHES;
    return wishes && call->tables ? (verb->options & ~(WISHES | BIT(CLONE))) | MOVED
                                  : verb->options;
}

/* Options that this verb does not have, and what --drain means for it. */
static int check_options(struct ctl *ctl, const struct verb *verb, struct call *call)
{
    unsigned has = options_of(verb, call), foreign = call->given & ~(has | ALWAYS);
    for (int i = 0; options[i].name; i++)
        if (foreign & BIT(options[i].val))
            return ctl_usage(ctl, "%s %s has no option --%s", command_of(call), verb->name,
                             options[i].name);
    if (ctl->dry_run && !verb->dry_run)
        return ctl_usage(ctl, "%s %s changes nothing of the data, so there is no --dry-run",
                         command_of(call), verb->name);
    if (has & BIT(TABLES))
        return check_wish(ctl, call);
    if (call->wish.clone && call->prepare_schema)
        return ctl_usage(ctl, "a clone has its schema already: --clone without --prepare-schema");
    if (!call->drain)
        return -1;
    if (verb->options & BIT(ADD)) {
        call->wish.drain = call->drain;
        return -1;
    }
    return take_duration(ctl, "drain", call->drain,
                         verb->run == do_run ? &call->run.drain_ms : &call->turn.drain_ms);
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
                         "%s takes a verb: plan, create, run, status, verify, switch, rollback, "
                         "complete, cancel, ...",
                         command_of(call));
    *verb = find_verb(argv[optind]);
    if (!*verb)
        return ctl_usage(ctl, "there is no \"%s %s\"", command_of(call), argv[optind]);
    if (left > ((*verb)->takes == NO_NAME ? 1 : 2) || ((*verb)->takes == NAME && left < 2))
        return ctl_usage(ctl, "%s %s takes %s", command_of(call), (*verb)->name,
                         (*verb)->takes == NO_NAME    ? "no job's name"
                         : (*verb)->takes == MAY_NAME ? "a job's name, or nothing"
                                                      : "a job's name");
    call->request.job = left > 1 ? argv[optind + 1] : NULL;
    return check_options(ctl, *verb, call);
}

/* ---- running ---- */

static int find_database(const struct ctl *ctl, struct call *call)
{
    const struct config *config = ctl->config;
    if (!call->request.database && config->ndatabases != 1)
        return ctl_usage(ctl, "the configuration has %d databases: name one with --database",
                         config->ndatabases);
    if (!call->request.database)
        call->request.database = config->databases[0].name;
    return -1;
}

static void wait_seconds(int seconds)
{
    for (int64_t until = db_clock_ms() + seconds * 1000; !ctl_stop && db_clock_ms() < until;)
        nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
}

static int run(struct ctl *ctl, const struct verb *verb, struct call *call)
{
    struct reshard_shown *shown = reshard_shown_new(ctl);
    call->request.tell = reshard_shown_tell;
    call->request.arg = shown;
    enum reshard_outcome outcome = verb->run(call);
    while (call->watch && outcome == RESHARD_DONE && !ctl_stop) {
        wait_seconds(2);
        if (!ctl->json && !ctl_stop)
            fputs("\033[H\033[2J", stdout);
        outcome = ctl_stop ? outcome : verb->run(call);
    }
    const char *done = ctl->dry_run ? "Nothing was changed." : verb->done;
    int status = reshard_shown_finish(shown, outcome, done);
    reshard_shown_free(shown);
    return status;
}

static int run_command(struct ctl *ctl, int argc, char **argv, bool tables)
{
    struct call call = {.tables = tables};
    const struct verb *verb = NULL;
    int status = parse(ctl, argc, argv, &call, &verb);
    if (status < 0 && !ctl_load_config(ctl))
        status = CTL_FAILED;
    if (status < 0)
        status = find_database(ctl, &call);
    if (status >= 0)
        return status;
    call.request.config = ctl->config;
    call.request.dry_run = ctl->dry_run;
    call.request.stop = &ctl_stop;
    return run(ctl, verb, &call);
}

int cmd_reshard(struct ctl *ctl, int argc, char **argv)
{
    return run_command(ctl, argc, argv, false);
}

int cmd_move_table(struct ctl *ctl, int argc, char **argv)
{
    return run_command(ctl, argc, argv, true);
}
