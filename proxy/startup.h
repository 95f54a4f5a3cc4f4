/*
 * startup.h: the startup packet: who connects to what, with which settings. Pure.
 */
#ifndef PGSHUNT_PROXY_STARTUP_H
#define PGSHUNT_PROXY_STARTUP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pgshunt/buffer.h"
#include "pgshunt/error.h"
#include "proxy/guc.h"

struct startup {
    const char *user;        /* points into the packet */
    const char *database;    /* the user's name if none was given */
    uint32_t protocol;       /* the version asked for, at most 3.2 */
    bool negotiate;          /* asks for a newer minor version, or for protocol options */
    const char *replication; /* points into the packet; NULL: an ordinary session */
    const char *options;     /* points into the packet; NULL: none */
    char message[256];       /* of an error, where it names what was found */
};

/* `body`: the packet behind its length, protocol version first. Settings (options included) go into
 * `settings`. */
/* A version that is not 3: protocol is what was asked for, so that the refusal can be put in its terms. */
MUST_CHECK bool startup_parse(const char *body, size_t len, struct guc_set **settings,
                              struct startup *startup, struct pg_error *error);
/* The parameter "options": -c name=value, --name=value, and Postgres' short options for settings. */
MUST_CHECK bool startup_take_options(const char *options, struct startup *startup,
                                     struct guc_set **settings, struct pg_error *error);
void startup_put_setting(struct guc_set **settings, const char *name, const char *value);
/* NegotiateProtocolVersion: the version that will be spoken, and the options that are not known (all). */
void startup_put_negotiation(struct buffer *out, const char *body, size_t len);

#endif
