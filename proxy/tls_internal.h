/* tls_internal.h: a connection's TLS, as tls.c and tls_info.c see it. */
#ifndef PGSHUNT_PROXY_TLS_INTERNAL_H
#define PGSHUNT_PROXY_TLS_INTERNAL_H

#include "proxy/tls.h"

enum tls_state {
    TLS_ASKED,     /* SSLRequest was sent; 'S' or 'N' follows */
    TLS_HANDSHAKE, /* OpenSSL is at it */
    TLS_OPEN,
    TLS_FAILED, /* in the negotiation; nothing more can be done with the connection */
};

struct tls {
    SSL *ssl; /* NULL in TLS_ASKED */
    enum tls_state state;
    bool ended;       /* nothing more can be read */
    const char *feed; /* during a call into OpenSSL: what it may read */
    size_t feed_length;
    struct buffer rest;          /* received and not yet read by OpenSSL */
    struct buffer plain;         /* sent while corked */
    size_t unasked;              /* bytes OpenSSL has answered of its own since all was out */
    struct tls_context *context; /* reference */
    char *host, *peer;           /* client role: whom we want, "host:port" */
    char *reason;                /* why it failed */
};

#endif
