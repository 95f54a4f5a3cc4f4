/* server_login.h: startup and authentication towards a Postgres server. */
#ifndef PGSHUNT_PROXY_SERVER_LOGIN_H
#define PGSHUNT_PROXY_SERVER_LOGIN_H

#include "proxy/server.h"

/* The socket is connected: asks for TLS, or goes on at once. */
void server_login_start(struct server *server);
/* TLS is there, or there shall be none: sends the startup packet. */
void server_login_negotiated(struct server *server);
/* Reads and answers until ReadyForQuery (pool_server_ready) or failure (pool_login_failed). */
void server_login_readable(struct server *server);

#endif
