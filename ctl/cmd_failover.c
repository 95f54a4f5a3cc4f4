/* cmd_failover.c: `pgshuntctl failover`: arguments in, the engine's progress out. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ctl/ctl.h"
#include "pgshunt/arena.h"
#include "pgshunt/failover.h"

const char cmd_failover_help[] =
    "SHARD is a shard's name in the configuration, or DATABASE.SHARD. The proxies hold new\n"
    "statements, running transactions end, the replica receives everything, is promoted, and\n"
    "the proxies go on with it: clients see a pause, and no commit is lost. For clusters\n"
    "without an HA manager. May be interrupted or killed at any step, and run again.\n\n"
    "      --to HOST:PORT    the replica to promote (default: a synchronous one, the one that\n"
    "                        has most)\n"
    "      --proxy HOST:PORT a proxy; once for each (default: the one at listen.address)\n"
    "      --drain TIME      running transactions get so long to end (5s)\n"
    "      --terminate       ... and are ended then (default: give up, nothing has changed)\n"
    "      --catch-up TIME   the replica gets so long to replay the rest (10s)\n"
    "      --force           the primary is dead: promote the replica that has most\n"
    "      --accept-data-loss\n"
    "                        ... also where commits may be lost\n"
    "      --ignore-unknown-proxies\n"
    "                        go on though more proxies watch the shard than are named\n"
    "      --undo            make the primary writable again after an interrupted failover\n"
    "      --user NAME       log in to servers as (default: $PGUSER, monitor.user)\n"
    "      --admin NAME      log in to proxies as (default: the first admin of the users file)\n\n"
    "Passwords come from $PGPASSWORD, the password file (~/.pgpass), or the configuration.\n\n"
    "Examples:\n"
    "  pgshuntctl failover s0 --dry-run              what would be done, all that is in the way\n"
    "  pgshuntctl failover s0 --to db2:5432\n"
    "  pgshuntctl failover s0 --proxy px1:6432 --proxy px2:6432\n"
    "  pgshuntctl failover s0 --force                after the primary's machine died\n";

enum { TO = 1, PROXY, DRAIN, TERMINATE, CATCH_UP, FORCE, ACCEPT, IGNORE, UNDO, USER, ADMIN };

static const struct option options[] = {
    {"to", required_argument, NULL, TO},
    {"proxy", required_argument, NULL, PROXY},
    {"drain", required_argument, NULL, DRAIN},
    {"terminate", no_argument, NULL, TERMINATE},
    {"catch-up", required_argument, NULL, CATCH_UP},
    {"force", no_argument, NULL, FORCE},
    {"accept-data-loss", no_argument, NULL, ACCEPT},
    {"ignore-unknown-proxies", no_argument, NULL, IGNORE},
    {"undo", no_argument, NULL, UNDO},
    {"user", required_argument, NULL, USER},
    {"admin", required_argument, NULL, ADMIN},
    {NULL, 0, NULL, 0},
};

/* ---- progress ---- */

struct shown {
    bool json;
    json_t *events;
    int obstacles;
};

static const char *kind_name(enum failover_event_kind kind)
{
    static const char *const names[] = {
        [FAILOVER_FACT] = "fact",         [FAILOVER_NOTE] = "note",
        [FAILOVER_OBSTACLE] = "obstacle", [FAILOVER_PLANNED] = "planned",
        [FAILOVER_BEGIN] = "begin",       [FAILOVER_DONE] = "done",
        [FAILOVER_FAILED] = "failed",     [FAILOVER_UNDONE] = "undone",
        [FAILOVER_TODO] = "todo",
    };
    return names[kind];
}

static void keep(struct shown *shown, const struct failover_event *event)
{
    if (event->kind == FAILOVER_BEGIN)
        return;
    json_t *object = json_object();
    json_object_set_new(object, "kind", json_string(kind_name(event->kind)));
    if (event->step)
        json_object_set_new(object, "step", json_string(event->step));
    json_object_set_new(object, "text", json_string(event->text));
    if (event->mend)
        json_object_set_new(object, "mend", json_string(event->mend));
    if (event->kind == FAILOVER_DONE)
        json_object_set_new(object, "took_ms", json_integer(event->took_ms));
    json_array_append_new(shown->events, object);
}

static void show_line(const char *head, const struct failover_event *event, const char *indent)
{
    char *text = NULL;
    if (asprintf(&text, "%s%s", head, event->text) < 0)
        abort();
    ctl_line("", text);
    free(text);
    if (event->mend)
        ctl_line(indent, event->mend);
}

static void show(const struct failover_event *event)
{
    char how[64];
    switch (event->kind) {
    case FAILOVER_FACT:
        ctl_line("", event->text);
        break;
    case FAILOVER_NOTE:
        show_line("note: ", event, "  ");
        break;
    case FAILOVER_OBSTACLE:
        show_line("in the way: ", event, "  -> ");
        break;
    case FAILOVER_PLANNED:
        ctl_progress_end(event->step, event->text, "would be done");
        break;
    case FAILOVER_BEGIN:
        ctl_progress_begin(event->step, event->text);
        break;
    case FAILOVER_DONE:
        snprintf(how, sizeof how, "done in %lld ms", (long long)event->took_ms);
        ctl_progress_end(event->step, event->text, how);
        break;
    case FAILOVER_FAILED:
        ctl_progress_end(event->step, event->text, "FAILED");
        if (event->mend)
            ctl_line("  -> ", event->mend);
        break;
    case FAILOVER_UNDONE:
        show_line("taken back: ", event, "  ");
        break;
    case FAILOVER_TODO:
        show_line("to be done: ", event, "  ");
        break;
    }
}

static void on_progress(void *arg, const struct failover_event *event)
{
    struct shown *shown = arg;
    shown->obstacles += event->kind == FAILOVER_OBSTACLE;
    if (shown->json)
        keep(shown, event);
    else
        show(event);
}

static const struct {
    const char *name, *text;
    int status;
} outcomes[] = {
    [FAILOVER_OUTCOME_DONE] = {"done", "Done.", CTL_DONE},
    [FAILOVER_OUTCOME_REFUSED] = {"refused", "Refused: nothing was done.", CTL_REFUSED},
    [FAILOVER_OUTCOME_UNDONE] = {"undone", "Failed: all is as before.", CTL_FAILED},
    [FAILOVER_OUTCOME_UNFINISHED] = {"unfinished", "Done in part: see above for what is left.",
                                     CTL_UNFINISHED},
    [FAILOVER_OUTCOME_INTERRUPTED] = {"interrupted", "Interrupted: all is as before.",
                                      CTL_INTERRUPTED},
};

static int finish(struct ctl *ctl, struct shown *shown, enum failover_outcome outcome)
{
    const char *text = outcomes[outcome].text;
    if (ctl->json) {
        json_t *all = json_object();
        json_object_set_new(all, "outcome", json_string(outcomes[outcome].name));
        json_object_set_new(all, "dry_run", json_boolean(ctl->dry_run));
        json_object_set_new(all, "events", shown->events);
        ctl_print_json(all);
    } else {
        ctl_line("", ctl->dry_run && outcome == FAILOVER_OUTCOME_DONE ? "Nothing is in the way."
                                                                      : text);
    }
    return outcomes[outcome].status;
}

/* ---- arguments ---- */

/* -1: good; else the exit code. */
static int take_time(struct ctl *ctl, const char *name, int64_t *out)
{
    *out = ctl_duration(optarg);
    return *out >= 0 ? -1
                     : ctl_usage(ctl,
                                 "%s takes a time such as 500ms, 5s or 1min, up to 1 h, "
                                 "not \"%s\"",
                                 name, optarg);
}

static int take_address(struct ctl *ctl, const char *name, struct failover_address *out)
{
    out->host = ctl_address(optarg, &out->port);
    return out->host ? -1 : ctl_usage(ctl, "%s takes HOST:PORT, not \"%s\"", name, optarg);
}

static int take_proxy(struct ctl *ctl, struct failover_request *request)
{
    request->proxies =
        mem_realloc(request->proxies, sizeof *request->proxies * (size_t)(request->nproxies + 1));
    int status = take_address(ctl, "--proxy", &request->proxies[request->nproxies]);
    request->nproxies += status < 0;
    return status;
}

static int take(struct ctl *ctl, int option, struct failover_request *request)
{
    switch (option) {
    case TO:
        free((char *)request->to.host);
        return take_address(ctl, "--to", &request->to);
    case PROXY:
        return take_proxy(ctl, request);
    case DRAIN:
        return take_time(ctl, "--drain", &request->drain_ms);
    case CATCH_UP:
        return take_time(ctl, "--catch-up", &request->catch_up_ms);
    case TERMINATE:
        request->terminate = true;
        return -1;
    case FORCE:
        request->force = true;
        return -1;
    case ACCEPT:
        request->accept_data_loss = true;
        return -1;
    case IGNORE:
        request->ignore_unknown_proxies = true;
        return -1;
    case UNDO:
        request->undo = true;
        return -1;
    case USER:
        request->user = optarg;
        return -1;
    default:
        request->admin = optarg;
        return -1;
    }
}

static int parse(struct ctl *ctl, int argc, char **argv, struct failover_request *request)
{
    int option, status;
    while ((option = ctl_option(ctl, argc, argv, "", options, &status)) >= 0)
        if ((status = take(ctl, option, request)) >= 0)
            return status;
    if (option == CTL_OPTION_EXIT)
        return status;
    if (optind != argc - 1)
        return ctl_usage(ctl, "failover takes the name of one shard");
    if (request->undo && (request->force || request->to.host))
        return ctl_usage(ctl, "--undo goes with neither --force nor --to");
    if (request->accept_data_loss && !request->force)
        return ctl_usage(ctl,
                         "--accept-data-loss is for --force: a planned switchover loses nothing");
    request->shard = argv[optind];
    return -1;
}

int cmd_failover(struct ctl *ctl, int argc, char **argv)
{
    struct shown shown = {.json = false};
    struct failover_request request = {.drain_ms = FAILOVER_DRAIN_MS,
                                       .catch_up_ms = FAILOVER_CATCH_UP_MS,
                                       .stop = &ctl_stop,
                                       .progress = on_progress,
                                       .arg = &shown};
    int status = parse(ctl, argc, argv, &request);
    if (status < 0 && !ctl_load_config(ctl))
        status = CTL_FAILED;
    if (status < 0) {
        shown.json = ctl->json;
        shown.events = ctl->json ? json_array() : NULL;
        request.config = ctl->config;
        request.dry_run = ctl->dry_run;
        status = finish(ctl, &shown, failover_run(&request));
    }
    for (int i = 0; i < request.nproxies; i++)
        free((char *)request.proxies[i].host);
    free(request.proxies);
    free((char *)request.to.host);
    return status;
}
