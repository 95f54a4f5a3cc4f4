/* cmd_sequences.c: `pgshuntctl sequences`: ids that are unique over all shards. */
#include <stdlib.h>
#include <string.h>

#include "ctl/fleet_show.h"

const char cmd_sequences_help[] =
    "setup   makes every sequence of sharded tables (serial, identity, DEFAULT nextval) and every\n"
    "        sequence that no table uses count in steps of the stride, each shard with numbers of\n"
    "        its own, above all ids that any shard has. Installs pgshunt.next_id() and\n"
    "        pgshunt.uuid_v7() on every shard. May be killed, and run again: after a new table,\n"
    "        a new shard. Locks one sequence at a time on all shards, for as long as its change\n"
    "        takes; waits two seconds at most for transactions that use it.\n"
    "check   only looks: sequences that are not like that, and ids that would be given twice\n"
    "show    where each sequence is on each shard\n\n"
    "      --stride N    room for so many shards: 2 .. 1024 (default: as before, else 64).\n"
    "                    An integer sequence lasts for 2147483647 / N ids on each shard\n"
    "      --user NAME   log in to servers as (default: $PGUSER, monitor.user); the sequences'\n"
    "                    owner, or a superuser\n\n"
    "Examples:\n"
    "  pgshuntctl sequences setup app --dry-run\n"
    "  pgshuntctl sequences setup app\n"
    "  pgshuntctl sequences check app --json      for monitoring: exit status 5 when something is "
    "wrong\n";

static const struct option options[] = {
    {"stride", required_argument, NULL, 1},
    {"user", required_argument, NULL, 2},
    {NULL, 0, NULL, 0},
};

struct call {
    const char *verb, *database;
    int stride;
};

static int parse(struct ctl *ctl, int argc, char **argv, struct fleet_request *request,
                 struct call *call)
{
    int option, status;
    while ((option = ctl_option(ctl, argc, argv, "", options, &status)) >= 0) {
        if (option == 2) {
            request->user = optarg;
            continue;
        }
        char *end;
        long stride = strtol(optarg, &end, 10);
        if (*end || stride < 2 || stride > FLEET_STRIDE_MAX)
            return ctl_usage(ctl, "--stride takes a number from 2 to %d, not \"%s\"",
                             FLEET_STRIDE_MAX, optarg);
        call->stride = (int)stride;
    }
    if (option == CTL_OPTION_EXIT)
        return status;
    if (optind != argc - 2)
        return ctl_usage(ctl, "sequences takes setup, check or show, and a database");
    call->verb = argv[optind];
    call->database = argv[optind + 1];
    bool setup = strcmp(call->verb, "setup") == 0;
    if (!setup && strcmp(call->verb, "check") != 0 && strcmp(call->verb, "show") != 0)
        return ctl_usage(ctl, "sequences setup, check or show, not \"%s\"", call->verb);
    if (!setup && (call->stride || ctl->dry_run))
        return ctl_usage(ctl, "--stride and --dry-run are for setup");
    return -1;
}

int cmd_sequences(struct ctl *ctl, int argc, char **argv)
{
    struct fleet_shown shown = {.quiet = false};
    struct fleet_request request = {.user = NULL};
    struct call call = {.stride = 0};
    int status = parse(ctl, argc, argv, &request, &call);
    if (status < 0)
        status = fleet_begin(ctl, call.database, &shown, &request);
    if (status >= 0)
        return status;
    if (strcmp(call.verb, "show") == 0)
        return fleet_finish(&shown, fleet_sequences_show(&request), "", "");
    if (strcmp(call.verb, "check") == 0)
        return fleet_finish(&shown, fleet_sequences_check(&request),
                            "Ids are unique on all shards.", "Ids may be given twice: see above.");
    return fleet_finish(&shown, fleet_sequences_setup(&request, call.stride),
                        ctl->dry_run ? "Nothing was changed." : "Done.",
                        "Done, but for what is told above.");
}
