/* client_login.h: startup packet, authentication and greeting of a client. */
#ifndef PGSHUNT_PROXY_CLIENT_LOGIN_H
#define PGSHUNT_PROXY_CLIENT_LOGIN_H

#include "proxy/client.h"

void client_login_input(struct client *client, const char *data, size_t len);
/* The server asked for in state GREETING is there. */
void client_login_server_ready(struct client *client, struct server *server);
/* ... and has taken the client's settings (`error` NULL) or not. */
void client_login_settled(struct client *client, struct server *server,
                          const struct pg_error *error);

/* Authenticated: tells the client so, with these ParameterStatus messages; it is IDLE then. */
void client_login_greet(struct client *client, const struct buffer *parameters);

/* Frees what a worker remembers of passwords. */
void client_login_forget(struct worker *worker);

#endif
