/* server_tls.h: TLS with servers: which of them, and what it means for logging in. */
#ifndef PGSHUNT_PROXY_SERVER_TLS_H
#define PGSHUNT_PROXY_SERVER_TLS_H

#include "proxy/server.h"
#include "proxy/tls_context.h"

/* What a new connection to this server is to use; NULL: no TLS. */
struct tls_context *server_tls_context(const struct server *server);
/* Counts how the negotiation ended. */
void server_tls_negotiated(struct server *server);
/* Why the connection could not be made, as far as TLS knows; counts it. NULL: not because of TLS. */
const char *server_tls_failure(struct server *server, char *out, size_t size);
/*
 * Chooses the SASL mechanism among those offered (the body of AuthenticationSASL) and prepares the
 * exchange for it. NULL: none fits; `problem` says why.
 */
const char *server_tls_choose_sasl(struct server *server, const char *offered, size_t len,
                                   struct scram_client *scram, const char **problem);
/* Whether an authentication request of this kind will do, by server_tls.channel_binding. */
bool server_tls_accepts(const struct server *server, int kind);

#endif
