/* fleet_show.h: how the commands that work on all shards show what their engines tell. */
#ifndef PGSHUNT_CTL_FLEET_SHOW_H
#define PGSHUNT_CTL_FLEET_SHOW_H

#include "ctl/ctl.h"
#include "pgshunt/fleet.h"

struct fleet_shown {
    struct ctl *ctl;
    json_t *events; /* with --json */
    bool quiet;     /* facts are not shown */
};

/* Loads the configuration and fills in the request. -1: good; else the exit code. */
int fleet_begin(struct ctl *ctl, const char *database, struct fleet_shown *shown,
                struct fleet_request *request);
/* The last line, or all of the JSON. Returns the exit code. `equal` and `different` are said of a look. */
int fleet_finish(struct fleet_shown *shown, enum fleet_outcome outcome, const char *equal,
                 const char *different);

#endif
