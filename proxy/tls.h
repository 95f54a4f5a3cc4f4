/*
 * tls.h: TLS on one connection (struct conn), as a state of it: conn->tls, NULL on a plain one.
 *
 *   tls_request --> ASKED --'S'--> HANDSHAKE --> OPEN        CONN_NEGOTIATED, then bytes as ever
 *                     |                ^  |
 *   tls_accept -------|----------------'  '----> FAILED      CONN_BROKEN; tls_reason() says why
 *                     |'N', may be plain
 *                     '--> (conn->tls is NULL)               CONN_NEGOTIATED
 *
 * OpenSSL never sees the socket. What arrives is read into a borrowed buffer and fed to it; what it
 * makes goes into conn->out and from there in one send. So a connection reads with one recv and writes
 * with one send whatever the number of records, writing never blocks inside OpenSSL, and an idle
 * connection holds none of its record buffers. What was received but has not been decrypted waits in
 * `rest`: it makes no socket readable, and conn->wake tells the loop about it.
 *
 * conn.c calls the functions of the second part; everybody else those of the first.
 */
#ifndef PGSHUNT_PROXY_TLS_H
#define PGSHUNT_PROXY_TLS_H

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stddef.h>

#include "pgshunt/error.h"
#include "proxy/conn.h"
#include "proxy/tls_context.h"

/* The one protocol name, as ALPN writes it: its length ahead. */
#define TLS_ALPN ((const unsigned char *)"\012postgresql")
#define TLS_ALPN_LENGTH 11

/* Server role, on an open connection. `first`: what was read already (of a direct handshake). */
MUST_CHECK bool tls_accept(struct conn *conn, struct tls_context *context, const char *first,
                           size_t len);
/* Client role, on a fresh connection: asks for TLS by SSLRequest. host, port: the peer's names. */
MUST_CHECK bool tls_request(struct conn *conn, struct tls_context *context, const char *host,
                            int port);
/* The handshake is done and nothing has failed. False for a plain connection. */
bool tls_is_open(const struct conn *conn);
/* Client role: the handshake has begun and not succeeded, and the rules allow to do without TLS. */
bool tls_is_dispensable(const struct conn *conn);
/* Why it failed, in words, or NULL. */
const char *tls_reason(const struct conn *conn);
/* "TLSv1.3/TLS_AES_256_GCM_SHA384"; "" for a plain connection. */
void tls_describe(const struct conn *conn, char *out, size_t size);
const char *tls_server_name(const struct conn *conn); /* SNI of the client; "" none */
bool tls_has_alpn(const struct conn *conn);           /* ALPN was agreed on */
bool tls_resumed(const struct conn *conn);
struct tls_context *tls_context_of(const struct conn *conn); /* NULL: plain */
/* The peer has shown a certificate that was verified and is valid now. */
bool tls_has_peer(const struct conn *conn);
/* Whether it says `name`: as its common name, or as a DNS or e-mail alternative name. */
bool tls_peer_is(const struct conn *conn, const char *name);
/* Its common name, into `out`. False: it has none, or one that is longer or has a NUL in it. */
bool tls_peer_common_name(const struct conn *conn, char *out, size_t size);
/* Data of SCRAM's tls-server-end-point into `out` (SCRAM_BINDING_MAX); 0: there is none. */
size_t tls_binding(const struct conn *conn, unsigned char *out);

/* ---- for conn.c ---- */

/* The socket is readable, or conn->wake was set. */
void tls_readable(struct conn *conn);
ssize_t tls_recv(struct conn *conn, void *bytes, size_t len);
bool tls_sendv(struct conn *conn, const struct iovec *parts, int count);
/* What is collected while corked, still in plain text. */
struct buffer *tls_collected(const struct conn *conn);
/* Encrypts what was collected while corked, into conn->out. */
bool tls_seal(struct conn *conn);
/* Bytes are there that make no socket readable. */
bool tls_pending(const struct conn *conn);
/* Says goodbye, as far as that goes without waiting, and frees. */
void tls_close(struct conn *conn);

/* OpenSSL's callback: a server has sent a session to resume. */
int tls_new_session(SSL *ssl, SSL_SESSION *session);

#endif
