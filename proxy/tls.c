/* tls.c: TLS on one connection: negotiation, reading, writing, closing. */
#include "proxy/tls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <openssl/err.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "pgshunt/arena.h"
#include "pgshunt/wire.h"
#include "proxy/tls_internal.h"

#define RECV_SIZE 65536
#define RECORD_SIZE 16384
/* What a peer may make OpenSSL answer (key updates) without reading it. */
#define UNASKED_MAX 65536
#define PLAIN_MAX 65536

/* ---- OpenSSL's view of the connection: a BIO between `feed` and conn->out ---- */

static int bio_read(BIO *bio, char *out, int size)
{
    struct conn *conn = BIO_get_data(bio);
    struct tls *tls = conn->tls;
    size_t n = (size_t)size < tls->feed_length ? (size_t)size : tls->feed_length;
    BIO_clear_retry_flags(bio);
    if (!n) {
        BIO_set_retry_read(bio);
        return -1;
    }
    memcpy(out, tls->feed, n);
    tls->feed += n;
    tls->feed_length -= n;
    return (int)n;
}

static int bio_write(BIO *bio, const char *bytes, int size)
{
    struct conn *conn = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    buffer_append(&conn->out, bytes, (size_t)size);
    return size;
}

static long bio_ctrl(BIO *bio, int command, long number, void *pointer)
{
    (void)bio;
    (void)number;
    (void)pointer;
    return command == BIO_CTRL_FLUSH;
}

static BIO_METHOD *bio_method;

static void make_bio_method(void)
{
    bio_method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "pgshunt connection");
    if (!bio_method)
        abort();
    BIO_meth_set_read(bio_method, bio_read);
    BIO_meth_set_write(bio_method, bio_write);
    BIO_meth_set_ctrl(bio_method, bio_ctrl);
}

static BIO *new_bio(struct conn *conn)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, make_bio_method);
    BIO *bio = BIO_new(bio_method);
    if (!bio)
        return NULL;
    BIO_set_data(bio, conn);
    BIO_set_init(bio, 1);
    return bio;
}

/* ---- making and ending ---- */

static struct tls *new_tls(struct conn *conn, struct tls_context *context)
{
    struct tls *tls = mem_alloc(sizeof *tls);
    tls->context = tls_context_ref(context);
    conn->tls = tls;
    return tls;
}

static void free_tls(struct conn *conn)
{
    struct tls *tls = conn->tls;
    SSL_free(tls->ssl);
    conn->tls = NULL;
    conn->wake = false;
    tls_context_unref(tls->context);
    buffer_release(&tls->rest);
    buffer_release(&tls->plain);
    free(tls->host);
    free(tls->peer);
    free(tls->reason);
    free(tls);
}

static bool make_ssl(struct conn *conn)
{
    struct tls *tls = conn->tls;
    BIO *bio = new_bio(conn);
    tls->ssl = bio ? tls_context_new_ssl(tls->context) : NULL;
    if (!tls->ssl) {
        BIO_free(bio);
        return false;
    }
    SSL_set_bio(tls->ssl, bio, bio);
    SSL_set_app_data(tls->ssl, tls);
    tls->state = TLS_HANDSHAKE;
    return true;
}

bool tls_accept(struct conn *conn, struct tls_context *context, const char *first, size_t len)
{
    struct tls *tls = new_tls(conn, context);
    if (!make_ssl(conn)) {
        free_tls(conn);
        return false;
    }
    SSL_set_accept_state(tls->ssl);
    buffer_append(&tls->rest, first, len);
    if (len)
        conn_wake(conn);
    return true;
}

bool tls_request(struct conn *conn, struct tls_context *context, const char *host, int port)
{
    static const char request[8] = {0, 0, 0, 8, 0x04, (char)0xd2, 0x16, 0x2f};
    if (!conn_send(conn, request, sizeof request))
        return false;
    struct tls *tls = new_tls(conn, context);
    size_t size = strlen(host) + 16;
    tls->host = mem_strdup(host);
    tls->peer = mem_alloc(size);
    snprintf(tls->peer, size, "%s:%d", host, port);
    tls->state = TLS_ASKED;
    return true;
}

void tls_close(struct conn *conn)
{
    struct tls *tls = conn->tls;
    if (tls->state == TLS_OPEN && !tls->ended && !conn->broken) {
        ERR_clear_error();
        if (SSL_shutdown(tls->ssl) >= 0)
            conn_flush(conn);
    }
    free_tls(conn);
}

/* ---- failing ---- */

static void fail(struct conn *conn, const char *reason)
{
    struct tls *tls = conn->tls;
    conn_flush(conn); /* an alert for the peer */
    tls->state = TLS_FAILED;
    free(tls->reason);
    tls->reason = mem_strdup(reason);
    ERR_clear_error();
    conn->on_event(conn, CONN_BROKEN);
}

/* Why OpenSSL gave up, with what was wrong with the certificate if that is it. */
static void fail_handshake(struct conn *conn)
{
    char text[300];
    long verdict = SSL_get_verify_result(conn->tls->ssl);
    bool certificate = ERR_GET_REASON(ERR_peek_error()) == SSL_R_CERTIFICATE_VERIFY_FAILED;
    snprintf(text, sizeof text, "%s%s%s", tls_error_text(), certificate ? ": " : "",
             certificate ? X509_verify_cert_error_string(verdict) : "");
    fail(conn, text);
}

/* ---- what arrives ---- */

/* Feeds OpenSSL with what waits in `rest`, or else with what one recv brings, while `work` takes it. */
static ssize_t feed_rest(struct conn *conn, ssize_t (*work)(struct conn *, void *, size_t),
                         void *bytes, size_t len)
{
    struct tls *tls = conn->tls;
    size_t before = buffer_length(&tls->rest);
    tls->feed = buffer_head(&tls->rest);
    tls->feed_length = before;
    ssize_t result = work(conn, bytes, len);
    buffer_consume(&tls->rest, before - tls->feed_length);
    if (!buffer_length(&tls->rest))
        buffer_release(&tls->rest);
    tls->feed_length = 0;
    return result;
}

static ssize_t feed_received(struct conn *conn, ssize_t (*work)(struct conn *, void *, size_t),
                             void *bytes, size_t len)
{
    char received[RECV_SIZE];
    struct tls *tls = conn->tls;
    ssize_t n = conn_recv_raw(conn, received, sizeof received);
    if (n <= 0)
        return n;
    tls->feed = received;
    tls->feed_length = (size_t)n;
    ssize_t result = work(conn, bytes, len);
    buffer_append(&tls->rest, tls->feed, tls->feed_length);
    tls->feed_length = 0;
    return result;
}

static ssize_t feed(struct conn *conn, ssize_t (*work)(struct conn *, void *, size_t), void *bytes,
                    size_t len)
{
    return tls_pending(conn) ? feed_rest(conn, work, bytes, len)
                             : feed_received(conn, work, bytes, len);
}

bool tls_pending(const struct conn *conn)
{
    const struct tls *tls = conn->tls;
    return tls->ended || buffer_length(&tls->rest) ||
           (tls->state == TLS_OPEN && SSL_pending(tls->ssl) > 0);
}

/* The end of what can be read: the peer's goodbye, or bytes that are no TLS. */
static void end_reading(struct tls *tls, int error)
{
    tls->ended = true;
    if (error != SSL_ERROR_ZERO_RETURN && !tls->reason)
        tls->reason = mem_strdup(tls_error_text());
}

static ssize_t decrypt(struct conn *conn, void *bytes, size_t len)
{
    struct tls *tls = conn->tls;
    size_t got = 0;
    while (got < len && !tls->ended && (tls->feed_length || SSL_pending(tls->ssl) > 0)) {
        size_t n = 0;
        ERR_clear_error();
        int ok = SSL_read_ex(tls->ssl, (char *)bytes + got, len - got, &n);
        if (ok != 1) {
            int error = SSL_get_error(tls->ssl, ok);
            if (error == SSL_ERROR_WANT_READ)
                break;
            end_reading(tls, error);
        }
        got += n;
    }
    return got || !tls->ended ? (ssize_t)got : -1;
}

/* What OpenSSL itself has answered meanwhile goes out. False: too much that nobody reads. */
static bool send_unasked(struct conn *conn, size_t before)
{
    struct tls *tls = conn->tls;
    if (conn_queued(conn) == before)
        return true;
    tls->unasked += conn_queued(conn) - before;
    if (!conn->corked && !conn_flush(conn))
        return false;
    if (!conn_queued(conn))
        tls->unasked = 0;
    return tls->unasked <= UNASKED_MAX;
}

ssize_t tls_recv(struct conn *conn, void *bytes, size_t len)
{
    size_t queued = conn_queued(conn);
    if (conn->tls->state != TLS_OPEN)
        return conn->tls->state == TLS_FAILED ? -1 : 0;
    ssize_t n = feed(conn, decrypt, bytes, len);
    return send_unasked(conn, queued) ? n : -1;
}

/* ---- negotiation: each step says whether it is over (1), waits (0) or has failed (-1) ---- */

static ssize_t shake_hands(struct conn *conn, void *bytes, size_t len)
{
    SSL *ssl = conn->tls->ssl;
    (void)bytes;
    (void)len;
    ERR_clear_error();
    int done = SSL_do_handshake(ssl);
    if (done == 1)
        return 1;
    return SSL_get_error(ssl, done) == SSL_ERROR_WANT_READ ? 0 : -2;
}

static int advance_handshake(struct conn *conn, bool started)
{
    /* The client's first words need nothing from the server. */
    ssize_t done = started ? feed(conn, shake_hands, NULL, 0) : shake_hands(conn, NULL, 0);
    if (done == -2)
        fail_handshake(conn);
    else if (done < 0 || !conn_flush(conn))
        fail(conn, "the connection was closed during the TLS handshake");
    else if (done)
        conn->tls->state = TLS_OPEN;
    return conn->tls && conn->tls->state != TLS_FAILED ? (int)done : -1;
}

static bool is_name(const char *host)
{
    unsigned char address[16];
    return inet_pton(AF_INET, host, address) != 1 && inet_pton(AF_INET6, host, address) != 1;
}

static int begin_handshake(struct conn *conn)
{
    struct tls *tls = conn->tls;
    bool name = is_name(tls->host);
    if (!make_ssl(conn) || (name && SSL_set_tlsext_host_name(tls->ssl, tls->host) != 1)) {
        fail(conn, "cannot start TLS");
        return -1;
    }
    X509_VERIFY_PARAM *param = SSL_get0_param(tls->ssl);
    if (tls_context_checks_host(tls->context) &&
        (name ? X509_VERIFY_PARAM_set1_host(param, tls->host, 0)
              : X509_VERIFY_PARAM_set1_ip_asc(param, tls->host)) != 1) {
        fail(conn, "cannot start TLS");
        return -1;
    }
    SSL_set_connect_state(tls->ssl);
    SSL_SESSION *session = tls_context_session(tls->context, tls->peer);
    if (session)
        SSL_set_session(tls->ssl, session);
    SSL_SESSION_free(session);
    return advance_handshake(conn, false);
}

/* One byte is all a server may have said by now: more could be anybody's, and would be believed later. */
static int read_answer(struct conn *conn)
{
    char answer[16];
    ssize_t n = conn_recv_raw(conn, answer, sizeof answer);
    if (n == 0)
        return 0;
    if (n < 0)
        fail(conn, "the server closed the connection when it was asked for TLS");
    else if (n > 1 && (answer[0] == 'S' || answer[0] == 'N'))
        fail(conn, "the server sent unencrypted data behind its answer to the request for TLS");
    else if (answer[0] == 'S')
        return begin_handshake(conn);
    else if (answer[0] != 'N')
        fail(conn, "the server answered the request for TLS with something else than yes or no");
    else if (!tls_context_may_be_plain(conn->tls->context))
        fail(conn, "the server does not offer TLS, and server_tls.mode requires it");
    else {
        free_tls(conn);
        return 1;
    }
    return -1;
}

/* True: over; bytes may follow. */
static bool negotiate(struct conn *conn)
{
    int done = conn->tls->state == TLS_ASKED ? read_answer(conn) : advance_handshake(conn, true);
    if (done == 1)
        conn->on_event(conn, CONN_NEGOTIATED);
    return done == 1 && conn_is_open(conn) && conn->tls;
}

void tls_readable(struct conn *conn)
{
    if (conn->tls->state == TLS_FAILED)
        return;
    if (conn->tls->state != TLS_OPEN && (!negotiate(conn) || !tls_pending(conn)))
        return;
    do
        conn->on_event(conn, CONN_READABLE);
    while (conn_is_open(conn) && conn->reading && conn->tls && tls_pending(conn));
}

/* ---- what leaves ---- */

static bool encrypt(struct conn *conn, const void *bytes, size_t len)
{
    size_t written;
    if (!len)
        return true;
    ERR_clear_error();
    if (SSL_write_ex(conn->tls->ssl, bytes, len, &written) == 1)
        return true;
    conn->broken = true;
    return false;
}

struct buffer *tls_collected(const struct conn *conn)
{
    return &conn->tls->plain;
}

bool tls_seal(struct conn *conn)
{
    struct tls *tls = conn->tls;
    bool ok = tls->state != TLS_OPEN ||
              encrypt(conn, buffer_head(&tls->plain), buffer_length(&tls->plain));
    buffer_release(&tls->plain);
    return ok;
}

static size_t total_length(const struct iovec *parts, int count)
{
    size_t total = 0;
    for (int i = 0; i < count; i++)
        total += parts[i].iov_len;
    return total;
}

/* Small parts share a record. */
static bool encrypt_small(struct conn *conn, const struct iovec *parts, int count)
{
    char record[RECORD_SIZE];
    size_t len = 0;
    for (int i = 0; i < count; i++) {
        memcpy(record + len, parts[i].iov_base, parts[i].iov_len);
        len += parts[i].iov_len;
    }
    return encrypt(conn, record, len);
}

bool tls_sendv(struct conn *conn, const struct iovec *parts, int count)
{
    struct tls *tls = conn->tls;
    size_t total = total_length(parts, count);
    bool ok = true;
    if (tls->state != TLS_OPEN || conn->broken || conn->fd < 0)
        return false;
    if (conn->corked) {
        for (int i = 0; i < count; i++)
            buffer_append(&tls->plain, parts[i].iov_base, parts[i].iov_len);
        return buffer_length(&tls->plain) <= PLAIN_MAX || tls_seal(conn);
    }
    /* Each record adds some bytes: room for all at once. */
    buffer_reserve(&conn->out, total + (total / RECORD_SIZE + (size_t)count) * 64);
    if (count > 1 && total <= RECORD_SIZE)
        ok = encrypt_small(conn, parts, count);
    for (int i = 0; ok && !(count > 1 && total <= RECORD_SIZE) && i < count; i++)
        ok = encrypt(conn, parts[i].iov_base, parts[i].iov_len);
    return ok && conn_flush(conn);
}

int tls_new_session(SSL *ssl, SSL_SESSION *session)
{
    struct tls *tls = SSL_get_app_data(ssl);
    tls_context_keep_session(tls->context, tls->peer, session);
    return 1; /* the reference is ours now */
}
