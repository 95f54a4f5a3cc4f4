/* cmd_lookup.c: `pgshuntctl lookup`: columns by which proxies find shards. */
#include <string.h>

#include "ctl/fleet_show.h"

const char cmd_lookup_help[] =
    "create  sets up the lookups of the configuration (or one: TABLE.COLUMN): on each shard an "
    "index\n"
    "        of the column, where there is none, built while writes go on, and a function that\n"
    "        proxies ask; for a unique one, looks first whether its values are unique over all\n"
    "        shards. Proxies use it when it is complete. May be killed, and run again\n"
    "verify  looks whether each is complete on every shard and finds what is there, and whether\n"
    "        values of unique ones are unique. Exit status 5 when not\n"
    "drop    takes away what create has made for one; the configuration need not know it any "
    "more\n\n"
    "      --repair      verify: make what is missing; take a lookup that is not unique out of "
    "use\n"
    "      --user NAME   log in to servers as (default: $PGUSER, monitor.user); the tables' "
    "owner,\n"
    "                    or a superuser\n\n"
    "Examples:\n"
    "  pgshuntctl lookup create app --dry-run\n"
    "  pgshuntctl lookup create app users.email\n"
    "  pgshuntctl lookup verify app --json        for monitoring\n"
    "  pgshuntctl lookup verify app users.email --repair\n"
    "  pgshuntctl lookup drop app users.email\n";

static const struct option options[] = {
    {"repair", no_argument, NULL, 1},
    {"user", required_argument, NULL, 2},
    {NULL, 0, NULL, 0},
};

struct call {
    const char *verb, *database, *name;
    bool repair;
};

static bool is(const struct call *call, const char *verb)
{
    return strcmp(call->verb, verb) == 0;
}

static int parse(struct ctl *ctl, int argc, char **argv, struct fleet_request *request,
                 struct call *call)
{
    int option, status;
    while ((option = ctl_option(ctl, argc, argv, "", options, &status)) >= 0) {
        if (option == 2)
            request->user = optarg;
        else
            call->repair = true;
    }
    if (option == CTL_OPTION_EXIT)
        return status;
    if (argc - optind < 2 || argc - optind > 3)
        return ctl_usage(ctl, "lookup takes create, verify or drop, a database, and TABLE.COLUMN");
    call->verb = argv[optind];
    call->database = argv[optind + 1];
    call->name = argv[optind + 2];
    if (!is(call, "create") && !is(call, "verify") && !is(call, "drop"))
        return ctl_usage(ctl, "lookup create, verify or drop, not \"%s\"", call->verb);
    if (is(call, "drop") && !call->name)
        return ctl_usage(ctl, "lookup drop takes the TABLE.COLUMN that is meant");
    if (call->repair && !is(call, "verify"))
        return ctl_usage(ctl, "--repair is for verify");
    if (ctl->dry_run && is(call, "verify") && !call->repair)
        return ctl_usage(
            ctl, "lookup verify without --repair changes nothing, so there is no --dry-run");
    return -1;
}

int cmd_lookup(struct ctl *ctl, int argc, char **argv)
{
    struct fleet_shown shown = {.quiet = false};
    struct fleet_request request = {.user = NULL};
    struct call call = {.verb = NULL};
    int status = parse(ctl, argc, argv, &request, &call);
    if (status < 0)
        status = fleet_begin(ctl, call.database, &shown, &request);
    if (status >= 0)
        return status;
    const char *done = ctl->dry_run ? "Nothing was changed." : "Done.";
    if (is(&call, "verify"))
        return fleet_finish(&shown, fleet_lookup_verify(&request, call.name, call.repair),
                            call.repair ? done : "All is well.", "Not all is well: see above.");
    if (is(&call, "drop"))
        return fleet_finish(&shown, fleet_lookup_drop(&request, call.name), done, done);
    return fleet_finish(&shown, fleet_lookup_create(&request, call.name), done,
                        "Not in use: see above.");
}
