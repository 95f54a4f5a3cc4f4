/* server_tls.c: TLS with servers. */
#include "proxy/server_tls.h"

#include <stdio.h>
#include <string.h>

#include "pgshunt/wire.h"
#include "proxy/pool.h"
#include "proxy/tls.h"
#include "proxy/worker.h"

#define PLUS "SCRAM-SHA-256-PLUS"
#define BARE "SCRAM-SHA-256"

static const struct server_tls_config *config_of(const struct server *server)
{
    const struct node *node = server->pool->node;
    return config_server_tls(server->worker->topology->config, server->pool->account->database,
                             node->host, node->port, node->dbname);
}

/* A unix socket needs none, and Postgres has none there. */
struct tls_context *server_tls_context(const struct server *server)
{
    if (server->pool->node->host[0] == '/' || server->without_tls)
        return NULL;
    return tls_setup_server(server->worker->topology->tls, config_of(server));
}

void server_tls_negotiated(struct server *server)
{
    struct tls_counters *counters = &server->worker->daemon->tls_servers;
    if (!server->conn.tls)
        return;
    atomic_fetch_add(&counters->handshakes, 1);
    if (tls_resumed(&server->conn))
        atomic_fetch_add(&counters->resumed, 1);
}

const char *server_tls_failure(struct server *server, char *out, size_t size)
{
    const char *reason = tls_reason(&server->conn);
    if (!server->conn.tls || tls_is_open(&server->conn))
        return NULL;
    atomic_fetch_add(&server->worker->daemon->tls_servers.failures, 1);
    snprintf(out, size, "TLS with the server failed: %s", reason ? reason : "the connection broke");
    return out;
}

static bool is_offered(const char *offered, size_t len, const char *wanted)
{
    struct wire_reader reader = wire_reader(offered, len);
    for (;;) {
        const char *mechanism = wire_read_cstring(&reader);
        if (reader.bad || !*mechanism)
            return false;
        if (strcmp(mechanism, wanted) == 0)
            return true;
    }
}

/* As libpq does, to the letter: who takes the better mechanism off the list is noticed by the server. */
const char *server_tls_choose_sasl(struct server *server, const char *offered, size_t len,
                                   struct scram_client *scram, const char **problem)
{
    unsigned char data[SCRAM_BINDING_MAX];
    enum channel_binding wish = config_of(server)->channel_binding;
    bool plus = is_offered(offered, len, PLUS), tls = tls_is_open(&server->conn);
    size_t length = tls && wish != CHANNEL_BINDING_DISABLE ? tls_binding(&server->conn, data) : 0;
    *problem = "the server offers no SASL mechanism that pgshunt knows";
    if (plus && !tls) {
        *problem = "the server offers SCRAM-SHA-256-PLUS on a connection without TLS: somebody is "
                   "in between";
        return NULL;
    }
    if (length)
        scram_client_bind(scram, data, length, plus);
    if (plus && length)
        return PLUS;
    if (wish == CHANNEL_BINDING_REQUIRE) {
        *problem = "server_tls.channel_binding is required, and the server does not offer it";
        return NULL;
    }
    return is_offered(offered, len, BARE) ? BARE : NULL;
}

bool server_tls_accepts(const struct server *server, int kind)
{
    if (config_of(server)->channel_binding != CHANNEL_BINDING_REQUIRE)
        return true;
    bool sasl = kind >= 10 && kind <= 12;
    return sasl || (kind == 0 && server->scram && scram_client_is_bound(server->scram));
}
