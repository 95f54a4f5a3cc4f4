/* cmd_schema.c: `pgshuntctl schema`: what is not alike in the schemas of a database's shards. */
#include <string.h>

#include "ctl/fleet_show.h"

const char cmd_schema_help[] =
    "diff    compares the schemas of all shards: extensions, types, tables, columns, defaults,\n"
    "        constraints, indexes (also INVALID ones), functions, views, triggers, rules, row "
    "security,\n"
    "        owners and privileges. Says which shard is the odd one (what most shards have is\n"
    "        taken for right) and, where that is plain, the statement that mends it: run it on "
    "that shard,\n"
    "        through pgshunt with /* pgshunt: shard=... */ in front. Where sequences are and "
    "their\n"
    "        steps are theirs and not compared. Changes nothing\n\n"
    "      --user NAME   log in to servers as (default: $PGUSER, monitor.user)\n\n"
    "Examples:\n"
    "  pgshuntctl schema diff app\n"
    "  pgshuntctl schema diff app --json     for monitoring: exit status 5 when something "
    "differs\n";

static const struct option options[] = {
    {"user", required_argument, NULL, 1},
    {NULL, 0, NULL, 0},
};

int cmd_schema(struct ctl *ctl, int argc, char **argv)
{
    struct fleet_shown shown = {.quiet = false};
    struct fleet_request request = {.user = NULL};
    int option, status;
    while ((option = ctl_option(ctl, argc, argv, "", options, &status)) >= 0)
        request.user = optarg;
    if (option == CTL_OPTION_EXIT)
        return status;
    if (optind != argc - 2 || strcmp(argv[optind], "diff") != 0)
        return ctl_usage(ctl, "schema takes diff and a database");
    status = fleet_begin(ctl, argv[optind + 1], &shown, &request);
    if (status >= 0)
        return status;
    return fleet_finish(&shown, fleet_schema_diff(&request), "All shards are alike.",
                        "Shards differ: see above.");
}
