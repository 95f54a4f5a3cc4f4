/* client_tls.h: TLS with clients: who is offered it, who must have it, and what certificates say. */
#ifndef PGSHUNT_PROXY_CLIENT_TLS_H
#define PGSHUNT_PROXY_CLIENT_TLS_H

#include "pgshunt/error.h"
#include "proxy/client.h"

/* Whether a client that asks for TLS gets it. Not on a unix socket, as with Postgres. */
bool client_tls_offered(const struct client *client);
/* Whether the bytes are the start of TLS without an SSLRequest, and may be. */
bool client_tls_is_direct(const struct client *client, const char *data, size_t len);
/* Begins the handshake. `first`: what of it was read already. */
void client_tls_start(struct client *client, const char *first, size_t len);
/* It is over. */
void client_tls_negotiated(struct client *client);
/* The connection broke: says why, if it was in the handshake. */
COLD void client_tls_failed(struct client *client);
/* Refuses a client that lacks TLS or a certificate that it has to have. True: goes on. */
bool client_tls_admit(struct client *client);
/* Whether the client's certificate is one of the user it wants to be. */
bool client_tls_proves_user(const struct client *client);
/* Refuses one whose certificate is not. */
void client_tls_refuse(struct client *client);

#endif
