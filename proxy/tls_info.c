/* tls_info.c: what is known about a TLS connection and who is at its other end. */
#include <openssl/err.h>
#include <openssl/objects.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "pgshunt/scram.h"
#include "proxy/tls_internal.h"

bool tls_is_open(const struct conn *conn)
{
    return conn->tls && conn->tls->state == TLS_OPEN;
}

bool tls_is_dispensable(const struct conn *conn)
{
    const struct tls *tls = conn->tls;
    return tls && tls->host && tls->ssl && tls->state != TLS_OPEN &&
           tls_context_may_be_plain(tls->context);
}

const char *tls_reason(const struct conn *conn)
{
    return conn->tls ? conn->tls->reason : NULL;
}

struct tls_context *tls_context_of(const struct conn *conn)
{
    return conn->tls ? conn->tls->context : NULL;
}

void tls_describe(const struct conn *conn, char *out, size_t size)
{
    out[0] = '\0';
    if (tls_is_open(conn))
        snprintf(out, size, "%s/%s", SSL_get_version(conn->tls->ssl),
                 SSL_get_cipher_name(conn->tls->ssl));
}

const char *tls_server_name(const struct conn *conn)
{
    const char *name =
        tls_is_open(conn) ? SSL_get_servername(conn->tls->ssl, TLSEXT_NAMETYPE_host_name) : NULL;
    return name ? name : "";
}

bool tls_has_alpn(const struct conn *conn)
{
    const unsigned char *protocol = NULL;
    unsigned length = 0;
    if (tls_is_open(conn))
        SSL_get0_alpn_selected(conn->tls->ssl, &protocol, &length);
    return length > 0;
}

bool tls_resumed(const struct conn *conn)
{
    return tls_is_open(conn) && SSL_session_reused(conn->tls->ssl);
}

/* ---- the peer's certificate ---- */

bool tls_has_peer(const struct conn *conn)
{
    X509 *certificate = tls_is_open(conn) ? SSL_get0_peer_certificate(conn->tls->ssl) : NULL;
    /* A resumed session brings the certificate of long ago. */
    return certificate && SSL_get_verify_result(conn->tls->ssl) == X509_V_OK &&
           X509_cmp_time(X509_get0_notAfter(certificate), NULL) > 0;
}

/* A text with a NUL in it is equal to nothing. */
static bool text_is(const ASN1_STRING *text, const char *name)
{
    unsigned char *utf8 = NULL;
    int len = ASN1_STRING_to_UTF8(&utf8, text);
    bool same = len >= 0 && (size_t)len == strlen(name) && memcmp(utf8, name, (size_t)len) == 0;
    OPENSSL_free(utf8);
    return same;
}

static bool common_name_is(X509 *certificate, const char *name)
{
    X509_NAME *subject = X509_get_subject_name(certificate);
    int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
    return at >= 0 && text_is(X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)), name);
}

static bool alternative_name_is(X509 *certificate, const char *name)
{
    bool found = false;
    GENERAL_NAMES *names = X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);
    for (int i = 0; !found && i < sk_GENERAL_NAME_num(names); i++) {
        int kind;
        const ASN1_STRING *value = GENERAL_NAME_get0_value(sk_GENERAL_NAME_value(names, i), &kind);
        found = (kind == GEN_DNS || kind == GEN_EMAIL) && text_is(value, name);
    }
    GENERAL_NAMES_free(names);
    return found;
}

bool tls_peer_is(const struct conn *conn, const char *name)
{
    if (!tls_has_peer(conn) || !name[0])
        return false;
    X509 *certificate = SSL_get0_peer_certificate(conn->tls->ssl);
    return common_name_is(certificate, name) || alternative_name_is(certificate, name);
}

bool tls_peer_common_name(const struct conn *conn, char *out, size_t size)
{
    if (!tls_has_peer(conn))
        return false;
    X509_NAME *subject = X509_get_subject_name(SSL_get0_peer_certificate(conn->tls->ssl));
    int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
    unsigned char *utf8 = NULL;
    int len = at < 0 ? -1
                     : ASN1_STRING_to_UTF8(
                           &utf8, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));
    bool good = len >= 0 && (size_t)len < size && !memchr(utf8, 0, (size_t)len);
    if (good) {
        memcpy(out, utf8, (size_t)len);
        out[len] = '\0';
    }
    OPENSSL_free(utf8);
    return good;
}

/* RFC 5929: the hash of the server's certificate by its signature's hash, or SHA-256 for weak ones. */
static size_t end_point(X509 *certificate, unsigned char *out)
{
    int hash;
    unsigned length = 0;
    unsigned char digest[EVP_MAX_MD_SIZE];
    if (!certificate || X509_get_signature_info(certificate, &hash, NULL, NULL, NULL) != 1)
        return 0;
    const EVP_MD *type =
        hash == NID_md5 || hash == NID_sha1 ? EVP_sha256() : EVP_get_digestbynid(hash);
    if (!type || X509_digest(certificate, type, digest, &length) != 1 || length > SCRAM_BINDING_MAX)
        return 0;
    memcpy(out, digest, length);
    return length;
}

size_t tls_binding(const struct conn *conn, unsigned char *out)
{
    if (!tls_is_open(conn))
        return 0;
    SSL *ssl = conn->tls->ssl;
    X509 *certificate =
        SSL_is_server(ssl) ? SSL_get_certificate(ssl) : SSL_get0_peer_certificate(ssl);
    size_t length = end_point(certificate, out);
    ERR_clear_error();
    return length;
}
