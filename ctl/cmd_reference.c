/* cmd_reference.c: `pgshuntctl reference`: copies of reference tables compared, and made alike. */
#include <stdlib.h>
#include <string.h>

#include "ctl/fleet_show.h"

const char cmd_reference_help[] =
    "check   compares all copies of each reference table (of one, if TABLE is said) with that on\n"
    "        the first shard: numbers of rows and checksums; where they differ, row by row. Where "
    "they\n"
    "        differ it looks again with writers kept out by LOCK TABLE ... IN SHARE MODE on every\n"
    "        shard (for some seconds at most, half a second at a time), so changes under way are "
    "not taken for\n"
    "        differences\n"
    "repair  makes the copies like that on the shard --from: rows that are missing are inserted,\n"
    "        those too many deleted, others updated, in one transaction on each shard, under LOCK\n"
    "        TABLE ... IN SHARE ROW EXCLUSIVE MODE on all of them until all have committed. Only\n"
    "        tables that differ are locked. May be killed, and run again\n\n"
    "      --from SHARD  whose rows are right (for repair; has to be said)\n"
    "      --rows N      tell so many rows of each table and shard (20)\n"
    "      --user NAME   log in to servers as (default: $PGUSER, monitor.user); the tables' "
    "owner,\n"
    "                    or a superuser\n\n"
    "Examples:\n"
    "  pgshuntctl reference check app\n"
    "  pgshuntctl reference repair app countries --from s0 --dry-run\n"
    "  pgshuntctl reference check app --json      for monitoring: exit status 5 when copies "
    "differ\n";

static const struct option options[] = {
    {"from", required_argument, NULL, 1},
    {"rows", required_argument, NULL, 2},
    {"user", required_argument, NULL, 3},
    {NULL, 0, NULL, 0},
};

struct call {
    bool repair;
    const char *database, *table, *source;
    int rows;
};

static int take_rows(struct ctl *ctl, int *rows)
{
    char *end;
    long number = strtol(optarg, &end, 10);
    if (!*optarg || *end || number < 0 || number > 1000000)
        return ctl_usage(ctl, "--rows takes a number up to 1000000, not \"%s\"", optarg);
    *rows = (int)number;
    return -1;
}

static int take_arguments(struct ctl *ctl, int argc, char **argv, struct call *call)
{
    int count = argc - optind;
    if (count < 2 || count > 3)
        return ctl_usage(ctl, "reference takes check or repair, a database, and maybe a table");
    const char *verb = argv[optind];
    call->repair = strcmp(verb, "repair") == 0;
    call->database = argv[optind + 1];
    call->table = count == 3 ? argv[optind + 2] : NULL;
    if (!call->repair && strcmp(verb, "check") != 0)
        return ctl_usage(ctl, "reference check or repair, not \"%s\"", verb);
    if (call->repair && !call->source)
        return ctl_usage(ctl, "repair has to know whose rows are right: --from SHARD");
    if (!call->repair && (call->source || ctl->dry_run))
        return ctl_usage(ctl, "--from and --dry-run are for repair");
    return -1;
}

static int parse(struct ctl *ctl, int argc, char **argv, struct fleet_request *request,
                 struct call *call)
{
    int option, status;
    while ((option = ctl_option(ctl, argc, argv, "", options, &status)) >= 0) {
        if (option == 1)
            call->source = optarg;
        else if (option == 3)
            request->user = optarg;
        else if ((status = take_rows(ctl, &call->rows)) >= 0)
            return status;
    }
    return option == CTL_OPTION_EXIT ? status : take_arguments(ctl, argc, argv, call);
}

int cmd_reference(struct ctl *ctl, int argc, char **argv)
{
    struct fleet_shown shown = {.quiet = false};
    struct fleet_request request = {.user = NULL};
    struct call call = {.rows = FLEET_ROWS};
    int status = parse(ctl, argc, argv, &request, &call);
    if (status < 0)
        status = fleet_begin(ctl, call.database, &shown, &request);
    if (status >= 0)
        return status;
    if (call.repair)
        return fleet_finish(&shown,
                            fleet_reference_repair(&request, call.table, call.source, call.rows),
                            ctl->dry_run ? "Nothing was changed." : "All copies are alike.",
                            "Not all copies could be compared: see above.");
    return fleet_finish(&shown, fleet_reference_check(&request, call.table, call.rows),
                        "All copies are alike.", "Copies differ: see above.");
}
