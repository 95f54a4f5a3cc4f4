/*
 * cancel.h: cancel requests on their way to servers.
 *
 * A client's cancel key names the worker that owns the session (low byte of the pid) and the session.
 * Any worker may receive the request; the owner looks the session up and cancels exactly the servers
 * that work for it at that moment. A server is not given to another client while a cancel request for
 * it is under way, so that nobody else's statement is hit. What no session of this process answers to goes to
 * the process that it has taken over from, if that still lives (takeover.h).
 */
#ifndef PGSHUNT_PROXY_CANCEL_H
#define PGSHUNT_PROXY_CANCEL_H

#include "proxy/client.h"

#define CANCEL_KEY_MAX 32

/* The secret half of a client's cancel key: 4 bytes, or 32 since protocol 3.2. Made from the process'
 * seed and the session, so that it needs no place in memory. Returns its length. */
size_t cancel_client_key(const struct client *client, unsigned char key[CANCEL_KEY_MAX]);
/* A CancelRequest arrived on `asker`'s connection, which is closed when it was delivered. */
void cancel_request(struct client *asker, int32_t pid, const unsigned char *secret, size_t length);
/* One came to the process that has taken over from this one, which does not know the session. Any thread. */
void cancel_forwarded(struct daemon *daemon, int32_t pid, const unsigned char *secret,
                      size_t length);
/* Sends a cancel request for what the server does now. */
void cancel_server(struct server *server);
/* Something has come of the server: a cancel that waits for what goes ahead of the statement may be sent now. */
void cancel_prefix_answered(struct server *server);
/* The server is closing: cancels under way for it go on without it. */
void cancel_server_gone(struct server *server);
void cancels_tick(struct worker *worker, int64_t now);
void cancels_close(struct worker *worker);

#endif
