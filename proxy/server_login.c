/* server_login.c: logs in to a server: trust, clear text, md5 or SCRAM-SHA-256. */
#include "proxy/server_login.h"

#include <stdlib.h>
#include <string.h>

#include "pgshunt/arena.h"
#include "pgshunt/log.h"
#include "pgshunt/wire.h"
#include "proxy/epoch.h"
#include "proxy/pool.h"
#include "proxy/replication.h"
#include "proxy/reported.h"
#include "proxy/server_secret.h"
#include "proxy/server_tls.h"
#include "proxy/tls.h"
#include "proxy/worker.h"

#define LOGIN_MESSAGE_MAX (1 << 20) /* nothing a server says during login is longer */

static void fail(struct server *server, const char *sqlstate, const char *message)
{
    pool_login_failed(server, sqlstate, message);
}

static void put_pair(struct buffer *out, const char *name, const char *value)
{
    wire_put_cstring(out, name);
    wire_put_cstring(out, value);
}

static void put_startup(struct server *server, struct buffer *out)
{
    size_t begin = wire_begin(out, 0);
    wire_put32(out, WIRE_PROTOCOL_3_0);
    put_pair(out, "user", server->pool->account->server_user);
    put_pair(out, "database", server->pool->node->dbname);
    epoch_put_startup(server, out);
    wire_put8(out, 0);
    wire_end(out, begin);
}

void server_login_start(struct server *server)
{
    struct tls_context *context = server_tls_context(server);
    const struct node *node = server->pool->node;
    server->state = SERVER_LOGIN;
    if (!context)
        server_login_negotiated(server);
    else if (!tls_request(&server->conn, context, node->host, node->port))
        fail(server, "08006", "the connection broke before TLS could be asked for");
}

void server_login_negotiated(struct server *server)
{
    struct buffer out = {0};
    if (server->dedicated)
        replication_put_startup(server, &out);
    else
        put_startup(server, &out);
    server_tls_negotiated(server);
    conn_send(&server->conn, buffer_head(&out), buffer_length(&out));
    buffer_release(&out);
}

static void send_message(struct server *server, char type, const struct buffer *body)
{
    struct buffer out = {0};
    size_t begin = wire_begin(&out, type);
    wire_put_bytes(&out, buffer_head(body), buffer_length(body));
    wire_end(&out, begin);
    conn_send(&server->conn, buffer_head(&out), buffer_length(&out));
    buffer_release(&out);
}

static void send_password(struct server *server, const char *password)
{
    struct buffer body = {0};
    wire_put_cstring(&body, password);
    send_message(server, 'p', &body);
    buffer_release(&body);
}

static bool answer_md5(struct server *server, const struct server_secret *secret,
                       const unsigned char salt[4])
{
    char response[MD5_SECRET_LENGTH + 1];
    if (!secret->text ||
        !md5_response(secret->text, server->pool->account->server_user, salt, response)) {
        fail(server, "28P01",
             "the server wants an md5 password, and neither a plain nor an md5 one is known");
        return false;
    }
    send_password(server, response);
    return true;
}

static bool answer_clear(struct server *server, const struct server_secret *secret)
{
    if (server_secret_is_plain(secret)) {
        send_password(server, secret->text);
        return true;
    }
    fail(server, "28P01", "the server wants a password in clear text, and no plain one is known");
    return false;
}

static bool start_scram(struct server *server, const struct server_secret *secret, const char *body,
                        size_t len)
{
    bool plain = server_secret_is_plain(secret), proven = secret->source == SECRET_PROVEN;
    const char *mechanism, *problem;
    if (server->scram) {
        fail(server, "08P01", "the server asked for a second SASL exchange");
        return false;
    }
    server->scram = scram_client_new(plain ? secret->text : NULL, proven ? &secret->keys : NULL);
    mechanism = server_tls_choose_sasl(server, body, len, server->scram, &problem);
    if (!mechanism) {
        fail(server, "08P01", problem);
        return false;
    }
    if (!plain && !proven) {
        fail(
            server, "28P01",
            "the server wants SCRAM-SHA-256, and neither a plain password is known nor keys that a "
            "client's login has proven");
        return false;
    }
    struct buffer first = {0}, out = {0};
    scram_client_first(server->scram, &first);
    wire_put_cstring(&out, mechanism);
    wire_put32(&out, (int64_t)buffer_length(&first));
    wire_put_bytes(&out, buffer_head(&first), buffer_length(&first));
    send_message(server, 'p', &out);
    buffer_release(&first);
    buffer_release(&out);
    return true;
}

static bool continue_scram(struct server *server, const char *body, size_t len)
{
    struct buffer out = {0};
    bool ok = server->scram && scram_client_final(server->scram, body, len, &out);
    if (ok)
        send_message(server, 'p', &out);
    else if (server->secret_source == SECRET_PROVEN)
        fail(server, "28P01",
             "the server's SCRAM secret has another salt or iteration count than the one the "
             "client's password was checked with");
    else
        fail(server, "08P01", "the server sent a malformed SCRAM message");
    buffer_release(&out);
    return ok;
}

static bool finish_scram(struct server *server, const char *body, size_t len)
{
    bool ok = server->scram && scram_client_verify(server->scram, body, len);
    if (!ok)
        fail(server, "08P01", "the server could not prove that it knows the SCRAM secret");
    return ok;
}

/* The first question: it needs a secret. */
static bool answer(struct server *server, int kind, struct wire_reader *reader)
{
    struct server_secret secret;
    const char *salt = kind == 5 ? wire_read_bytes(reader, 4) : NULL;
    bool ok = false;
    server_secret_find(server, &secret);
    server->secret_source = (uint8_t)secret.source;
    if (kind == 3)
        ok = answer_clear(server, &secret);
    else if (kind == 10)
        ok = start_scram(server, &secret, reader->at, wire_left(reader));
    else if (salt)
        ok = answer_md5(server, &secret, (const unsigned char *)salt);
    else
        fail(server, "08P01", "the server sent a malformed authentication request");
    server_secret_release(&secret);
    return ok;
}

static bool authenticate(struct server *server, const char *body, size_t len)
{
    struct wire_reader reader = wire_reader(body, len);
    int32_t kind = wire_read32(&reader);
    if (!reader.bad && !server_tls_accepts(server, kind)) {
        fail(server, "08P01",
             "server_tls.channel_binding is required, and the server wants to go without it");
        return false;
    }
    switch (reader.bad ? -1 : kind) {
    case 0:
        return true;
    case 3:
    case 5:
    case 10:
        return answer(server, kind, &reader);
    case 11:
        return continue_scram(server, reader.at, wire_left(&reader));
    case 12:
        return finish_scram(server, reader.at, wire_left(&reader));
    default:
        fail(server, "08P01",
             "the server asked for an authentication method that is not supported");
        return false;
    }
}

static void take_key(struct server *server, const char *body, size_t len)
{
    if (len < 8 || len > 4 + 256)
        return;
    server->backend_pid = (int32_t)wire_get32(body);
    free(server->cancel_key);
    server->cancel_key_length = (int)len - 4;
    server->cancel_key = mem_alloc(len - 4);
    memcpy(server->cancel_key, body + 4, len - 4);
}

/* NegotiateProtocolVersion: an older server may speak no newer version than it was asked for. */
static bool negotiated(struct server *server, const char *body, size_t len)
{
    struct wire_reader reader = wire_reader(body, len);
    uint32_t version = (uint32_t)wire_read32(&reader);
    bool ok = !reader.bad && version >> 16 == 3 && version <= WIRE_PROTOCOL_3_0;
    if (!ok)
        fail(server, "08P01", "the server wants another protocol version than 3.0");
    return ok;
}

static bool login_message(struct server *server, char type, const char *body, size_t len)
{
    switch (type) {
    case 'R':
        return authenticate(server, body, len);
    case 'S': {
        struct wire_reader reader = wire_reader(body, len);
        const char *name = wire_read_cstring(&reader);
        const char *value = wire_read_cstring(&reader);
        if (!reader.bad)
            reported_take(server, name, value, true);
        return true;
    }
    case 'K':
        take_key(server, body, len);
        return true;
    case 'N':
        return true;
    case 'v':
        return negotiated(server, body, len);
    case 'E': {
        struct pg_error error;
        wire_read_error(body, len, &error);
        fail(server, error.sqlstate, error.message);
        return false;
    }
    case 'Z':
        scram_client_free(server->scram);
        server->scram = NULL;
        reported_login(server);
        pool_server_ready(server);
        return false;
    default:
        fail(server, "08P01", "the server sent an unexpected message during login");
        return false;
    }
}

void server_login_readable(struct server *server)
{
    ssize_t n = conn_recv(&server->conn, buffer_reserve(&server->in, 4096), 4096);
    if (n < 0) {
        fail(server, "08006", "the server closed the connection during login");
        return;
    }
    server->in.end += (size_t)n;
    while (buffer_length(&server->in) >= WIRE_HEADER) {
        const char *head = buffer_head(&server->in);
        uint32_t length = wire_get32(head + 1);
        if (length < 4 || length > LOGIN_MESSAGE_MAX) {
            fail(server, "08P01", "the server sent a message of an impossible length");
            return;
        }
        if (buffer_length(&server->in) < 1 + (size_t)length)
            return;
        char type = head[0];
        /* The message is looked at in place and consumed after; `Z` may hand the server on. */
        if (type == 'Z') {
            buffer_release(&server->in);
            login_message(server, type, NULL, 0);
            return;
        }
        if (!login_message(server, type, head + WIRE_HEADER, length - 4))
            return;
        buffer_consume(&server->in, 1 + (size_t)length);
    }
}
