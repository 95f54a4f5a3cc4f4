/*
 * tls_context.h: certificates, keys and rules of TLS: what many connections share.
 *
 * A struct tls_setup is made from a configuration, at the start and at each reload, and reads all files
 * anew; it belongs to the topology of that configuration. Connections hold a reference on the context
 * they were made with, so that a reload changes nothing for them. A context is immutable but for its
 * store of sessions, which has a lock: any thread may use it.
 */
#ifndef PGSHUNT_PROXY_TLS_CONTEXT_H
#define PGSHUNT_PROXY_TLS_CONTEXT_H

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdint.h>

#include "pgshunt/config.h"
#include "pgshunt/error.h"

struct tls_context;
struct tls_setup;

/* A certificate in use, for metrics and warnings. */
struct tls_certificate {
    const char *file;
    const char *side; /* shown to: "client" or "server" */
    int64_t expires;  /* seconds since 1970 */
};

/* NULL: `error` says which file, and why. */
struct tls_setup *tls_setup_new(const struct config *config, char *error, size_t size);
struct tls_setup *tls_setup_ref(struct tls_setup *setup);
void tls_setup_unref(struct tls_setup *setup); /* NULL is ignored */
/* For clients; NULL: TLS is off. Valid as long as the setup. */
struct tls_context *tls_setup_client(const struct tls_setup *setup);
/* For servers of this part of the setup's configuration; NULL: TLS is off. */
struct tls_context *tls_setup_server(const struct tls_setup *setup,
                                     const struct server_tls_config *config);
/* Logs a warning for each certificate that expires soon, or has. */
void tls_setup_warn(const struct tls_setup *setup);
int tls_setup_certificates(const struct tls_setup *setup, const struct tls_certificate **list);

struct tls_context *tls_context_ref(struct tls_context *context);
void tls_context_unref(struct tls_context *context); /* NULL is ignored */
/* A connection's SSL, not yet connected to anything. NULL: out of memory. */
SSL *tls_context_new_ssl(struct tls_context *context);
/* Of a context for servers: whether to go on without TLS where the server has none; what to check. */
bool tls_context_may_be_plain(const struct tls_context *context);
bool tls_context_checks_host(const struct tls_context *context);
/* The last session with a peer, to resume (one reference is the caller's), or NULL. */
SSL_SESSION *tls_context_session(struct tls_context *context, const char *peer);
/* Takes over the reference. */
void tls_context_keep_session(struct tls_context *context, const char *peer, SSL_SESSION *session);
/* OpenSSL's first error on this thread, in words. */
const char *tls_error_text(void);

#endif
