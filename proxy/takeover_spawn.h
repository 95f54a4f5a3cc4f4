/*
 * takeover_spawn.h: the running process starts its successor, from the program's file as it is now.
 */
#ifndef PGSHUNT_PROXY_TAKEOVER_SPAWN_H
#define PGSHUNT_PROXY_TAKEOVER_SPAWN_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "pgshunt/error.h"

struct spawned {
    char program[4096]; /* as this process was started: after an upgrade, the new one */
    pid_t pid;
    int pidfd; /* readable when it has ended; -1: there is none, or it is on its own */
};

void spawn_init(struct spawned *spawned);
/* `program -c config_path --takeover`. False: `error` says why. */
MUST_CHECK bool spawn_successor(struct spawned *spawned, const char *config_path, char *error,
                                size_t size);
/* It has ended too early: how, in `text`. */
void spawn_ended(struct spawned *spawned, char *text, size_t size);
/* It goes on without us. */
void spawn_forget(struct spawned *spawned);

#endif
