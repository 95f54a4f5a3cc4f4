/*
 * startup.h: the startup packet: who connects to what, with which settings. Pure.
 */
#ifndef PGSHUNT_PROXY_STARTUP_H
#define PGSHUNT_PROXY_STARTUP_H

#include <stdbool.h>
#include <stddef.h>

#include "pgshunt/buffer.h"
#include "pgshunt/error.h"
#include "proxy/guc.h"

struct startup {
    const char *user;     /* points into the packet */
    const char *database; /* the user's name if none was given */
    bool negotiate;       /* asks for a newer minor version or protocol options */
};

/* `body`: the packet behind its length, protocol version first. Settings (options included) go into
 * `settings`. */
MUST_CHECK bool startup_parse(const char *body, size_t len, struct guc_set *settings,
                              struct startup *startup, struct pg_error *error);
/* NegotiateProtocolVersion: 3.0, and the options that are not known. */
void startup_put_negotiation(struct buffer *out, const char *body, size_t len);

#endif
