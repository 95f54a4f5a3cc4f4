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

/* Learns what the client is to be greeted with, from a server where that is not known yet. */
void client_login_find_greeting(struct client *client);
/* Authenticated: tells the client so, with these ParameterStatus messages; it is IDLE then. */
void client_login_greet(struct client *client, const struct buffer *parameters);

/* ---- for client_auth.c ---- */

/* An authentication request. */
void client_login_ask(struct client *client, int kind, const void *more, size_t len);
/* `user` NULL: a mock exchange, which fails at its end. */
void client_login_start_scram(struct client *client, const struct user_config *user);
void client_login_scram_message(struct client *client, const char *body, size_t len);
/* The client is who it says. */
void client_login_accept(struct client *client);
/* Goes on with what has arrived while the client was waiting. */
void client_login_resume(struct client *client);

/* Frees what a worker remembers of passwords. */
void client_login_forget(struct worker *worker);

#endif
