/* fleet_show.c: events of work on all shards as lines or as JSON. */
#include "ctl/fleet_show.h"

#include <stdio.h>
#include <stdlib.h>

static const struct {
    const char *name, *head;
} kinds[] = {
    [FLEET_FACT] = {"fact", ""},       [FLEET_PROBLEM] = {"problem", "PROBLEM  "},
    [FLEET_NOTE] = {"note", "note: "}, [FLEET_PLANNED] = {"planned", "would be done: "},
    [FLEET_DONE] = {"done", "done: "}, [FLEET_FAILED] = {"failed", "FAILED  "},
};

static void put(json_t *object, const char *name, const char *text)
{
    if (text)
        json_object_set_new(object, name, json_string(text));
}

static void keep(struct fleet_shown *shown, const struct fleet_event *event)
{
    json_t *object = json_object();
    put(object, "kind", kinds[event->kind].name);
    put(object, "shard", event->shard);
    put(object, "object", event->object);
    put(object, "text", event->text);
    put(object, "mend", event->mend);
    json_array_append_new(shown->events, object);
}

static void on_event(void *arg, const struct fleet_event *event)
{
    struct fleet_shown *shown = arg;
    char *line = NULL;
    if (shown->quiet && event->kind == FLEET_FACT)
        return;
    if (shown->events) {
        keep(shown, event);
        return;
    }
    if (asprintf(&line, "%s%s%s%s%s%s", kinds[event->kind].head, event->shard ? event->shard : "",
                 event->shard ? ": " : "", event->object ? event->object : "",
                 event->object ? ": " : "", event->text) < 0)
        abort();
    ctl_line("", line);
    free(line);
    if (event->mend)
        ctl_line("  -> ", event->mend);
}

int fleet_begin(struct ctl *ctl, const char *database, struct fleet_shown *shown,
                struct fleet_request *request)
{
    if (!ctl_load_config(ctl))
        return CTL_FAILED;
    if (!config_database(ctl->config, database)) {
        fprintf(stderr, "pgshuntctl: the configuration has no database \"%s\"\n", database);
        return CTL_FAILED;
    }
    shown->ctl = ctl;
    shown->events = ctl->json ? json_array() : NULL;
    request->config = ctl->config;
    request->database = database;
    request->dry_run = ctl->dry_run;
    request->stop = &ctl_stop;
    request->tell = on_event;
    request->arg = shown;
    return -1;
}

int fleet_finish(struct fleet_shown *shown, enum fleet_outcome outcome, const char *equal,
                 const char *different)
{
    static const char *const names[] = {
        [FLEET_OUTCOME_DONE] = "done",
        [FLEET_OUTCOME_DIFFERENT] = "different",
        [FLEET_OUTCOME_FAILED] = "failed",
        [FLEET_OUTCOME_UNFINISHED] = "unfinished",
    };
    static const int statuses[] = {
        [FLEET_OUTCOME_DONE] = CTL_DONE,
        [FLEET_OUTCOME_DIFFERENT] = CTL_DIFFERENT,
        [FLEET_OUTCOME_FAILED] = CTL_FAILED,
        [FLEET_OUTCOME_UNFINISHED] = CTL_UNFINISHED,
    };
    int status = ctl_stop && outcome == FLEET_OUTCOME_FAILED ? CTL_INTERRUPTED : statuses[outcome];
    if (shown->events) {
        json_t *all = json_object();
        json_object_set_new(all, "outcome", json_string(names[outcome]));
        json_object_set_new(all, "dry_run", json_boolean(shown->ctl->dry_run));
        json_object_set_new(all, "events", shown->events);
        ctl_print_json(all);
        return status;
    }
    const char *text = outcome == FLEET_OUTCOME_DONE        ? equal
                       : outcome == FLEET_OUTCOME_DIFFERENT ? different
                       : outcome == FLEET_OUTCOME_FAILED
                           ? "Failed: nothing was changed."
                           : "Done in part: run it again when the cause is gone.";
    ctl_line("", text);
    return status;
}
