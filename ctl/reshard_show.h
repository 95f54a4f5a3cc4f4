/*
 * reshard_show.h: how `pgshuntctl reshard` shows what the engine tells.
 *
 * On a terminal, below the lines that stay, a block that is drawn anew: one line for each table and stream at
 * work. Elsewhere a line now and then. With --json one object per event and line.
 */
#ifndef PGSHUNT_CTL_RESHARD_SHOW_H
#define PGSHUNT_CTL_RESHARD_SHOW_H

#include "ctl/ctl.h"
#include "pgshunt/reshard.h"

struct reshard_shown;

struct reshard_shown *reshard_shown_new(const struct ctl *ctl);
void reshard_shown_free(struct reshard_shown *shown);
/* A request's `tell`; `arg` is a struct reshard_shown. */
void reshard_shown_tell(void *arg, const struct reshard_event *event);
/* The last line, or JSON's. Returns the exit code. `done`: what is said when it is. */
int reshard_shown_finish(struct reshard_shown *shown, enum reshard_outcome outcome,
                         const char *done);

#endif
