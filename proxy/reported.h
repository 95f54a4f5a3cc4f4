/*
 * reported.h: parameters that servers report (ParameterStatus), and what clients have been told of them.
 *
 * A server's last reports are one interned set (server->reported), and so is what a client has heard
 * (client->heard): ahead of each ReadyForQuery the two pointers are compared, and only what differs is
 * told. So a client never hears of another's value, and hears of a server whose own values are other.
 *
 * A report that no statement of the client explains comes from inside a function or a procedure: it is
 * adopted as if the client had said SET. Where nothing but reads were asked, the server was configured anew.
 */
#ifndef PGSHUNT_PROXY_REPORTED_H
#define PGSHUNT_PROXY_REPORTED_H

#include "pgshunt/buffer.h"
#include "pgshunt/error.h"
#include "proxy/client.h"

/* A ParameterStatus came. `asked`: in answer to something; else the server's own configuration changed. */
COLD void reported_take(struct server *server, const char *name, const char *value, bool asked);
/* The login is over: what was reported so far are the server's defaults. */
void reported_login(struct server *server);
/* Settings of ours were carried over: what was reported follows from them. */
void reported_ours(struct server *server);
/* A transaction has ended here, with these changes (NULL: none): what is reported now holds for the
 * session. */
void reported_settle(struct client *client, struct server *server,
                     const struct guc_pending *changes);
/* Appends what the client has not heard. True: there is something. */
COLD bool reported_tell_more(struct client *client, struct server *server, struct buffer *out);
static inline bool reported_tell(struct client *client, struct server *server, struct buffer *out)
{
    return client->heard != server->reported && reported_tell_more(client, server, out);
}

#endif
