/* client_tls.c: TLS with clients. */
#include "proxy/client_tls.h"

#include <stdio.h>
#include <string.h>

#include "pgshunt/log.h"
#include "proxy/report.h"
#include "proxy/tls.h"

static const struct config *config_of(const struct client *client)
{
    return client->worker->topology->config;
}

bool client_tls_offered(const struct client *client)
{
    return tls_setup_client(client->worker->topology->tls) && !client->conn.tls &&
           !peer_is_local(&client->peer);
}

bool client_tls_is_direct(const struct client *client, const char *data, size_t len)
{
    return len && data[0] == 0x16 && client->state == CLIENT_STARTUP && !client->negotiations &&
           !buffer_length(&client->in) && client_tls_offered(client);
}

void client_tls_start(struct client *client, const char *first, size_t len)
{
    struct tls_context *context = tls_setup_client(client->worker->topology->tls);
    if (!tls_accept(&client->conn, context, first, len))
        client_close(client, "cannot start TLS");
}

/* ALPN tells a client that speaks to us from one that was led to us by someone else's name. */
void client_tls_negotiated(struct client *client)
{
    struct tls_counters *counters = &client->worker->daemon->tls_clients;
    atomic_fetch_add(&counters->handshakes, 1);
    if (tls_resumed(&client->conn))
        atomic_fetch_add(&counters->resumed, 1);
    if (!client->negotiations && !tls_has_alpn(&client->conn))
        client_fatal(client, "08P01",
                     "direct TLS connection without ALPN protocol negotiation extension",
                     "Offer the ALPN protocol \"postgresql\", or begin with an SSLRequest.");
}

void client_tls_failed(struct client *client)
{
    struct arena arena;
    struct sockaddr_storage peer;
    int port;
    if (!client->conn.tls || tls_is_open(&client->conn))
        return;
    atomic_fetch_add(&client->worker->daemon->tls_clients.failures, 1);
    arena_init(&arena);
    peer_address(&client->peer, &peer);
    const char *address = report_address(&arena, &peer, &port);
    const char *reason = tls_reason(&client->conn);
    log_event(LOG_WARNING, "TLS handshake with a client failed", LOG_I("client", client->id),
              LOG_S("address", address), LOG_I("port", port),
              LOG_S("reason", reason ? reason : "the connection broke"));
    arena_free(&arena);
}

static bool refuse(struct client *client, const char *message, const char *hint)
{
    client_fatal(client, "28000", message, hint);
    return false;
}

bool client_tls_admit(struct client *client)
{
    enum client_tls_mode mode = config_of(client)->client_tls_mode;
    if (mode < CLIENT_TLS_REQUIRE || peer_is_local(&client->peer))
        return true;
    if (!tls_is_open(&client->conn))
        return refuse(client, "this connection is not encrypted, and TLS is required",
                      "Connect with sslmode=require (or prefer, verify-ca, verify-full).");
    if (mode >= CLIENT_TLS_VERIFY_CA && !tls_has_peer(&client->conn))
        return refuse(client, "connection requires a valid client certificate",
                      "Connect with sslcert and sslkey.");
    if (mode == CLIENT_TLS_VERIFY_FULL && !client_tls_proves_user(client)) {
        client_tls_refuse(client);
        return false;
    }
    return true;
}

bool client_tls_proves_user(const struct client *client)
{
    const struct user_config *user = config_user(config_of(client), client->user);
    if (!user || !user->ncertificates)
        return tls_peer_is(&client->conn, client->user);
    for (int i = 0; i < user->ncertificates; i++)
        if (tls_peer_is(&client->conn, user->certificates[i]))
            return true;
    return false;
}

void client_tls_refuse(struct client *client)
{
    char message[256];
    snprintf(message, sizeof message, "certificate authentication failed for user \"%.100s\"",
             client->user);
    log_event(LOG_WARNING, "certificate authentication failed", LOG_S("user", client->user),
              LOG_S("database", client->database_name),
              LOG_S("reason", tls_has_peer(&client->conn) ? "the certificate names someone else"
                                                          : "there is no valid certificate"));
    client_fatal(client, "28000", message,
                 "The certificate's common name or a subject alternative name has to be the user's "
                 "name, or one of its certificates in the users file.");
}
