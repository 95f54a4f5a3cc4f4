/*
 * console.h: the admin console: what a client of the virtual database pgshunt (or pgbouncer) can ask.
 */
#ifndef PGSHUNT_PROXY_CONSOLE_H
#define PGSHUNT_PROXY_CONSOLE_H

#include "pgshunt/buffer.h"
#include "proxy/client.h"

struct console;

bool console_is_name(const char *database);
/* ParameterStatus messages a console session is greeted with. */
void console_parameters(struct buffer *out);
struct console *console_new(struct client *client);
void console_free(struct client *client); /* also when the client has none */
/* A Query message's text. The console answers with everything up to ReadyForQuery and then calls
 * console_done(); it may have to wait for other workers, the client's state is BUSY meanwhile. */
void console_query(struct client *client, const char *sql);
/* A message of the extended protocol. Where it has to wait for other workers the client's state is BUSY
 * until console_done(). */
void console_extended(struct client *client, char type, const char *body, size_t len);
/* The client's cancel request: a command that waits is given up. */
void console_cancel(struct client *client);
/* In session.c: the answer is complete. */
void console_done(struct client *client);

#endif
