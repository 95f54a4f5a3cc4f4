/* client_login.c: brings a client from its first byte to ReadyForQuery. */
#include "proxy/client_login.h"

#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "pgshunt/arena.h"
#include "pgshunt/log.h"
#include "pgshunt/wire.h"
#include "proxy/cancel.h"
#include "proxy/client_auth.h"
#include "proxy/client_tls.h"
#include "proxy/console.h"
#include "proxy/console_role.h"
#include "proxy/control.h"
#include "proxy/pool.h"
#include "proxy/replication.h"
#include "proxy/session.h"
#include "proxy/startup.h"
#include "proxy/tls.h"
#include "proxy/welcome.h"

#define PASSWORD_MESSAGE_MAX 4096

/* ---- greeting ---- */

static void log_login(const struct client *client)
{
    char tls[80];
    if (!client->worker->topology->config->log_connections)
        return;
    tls_describe(&client->conn, tls, sizeof tls);
    if (tls[0])
        log_event(LOG_INFO, "client logged in", LOG_I("client", client->id),
                  LOG_S("user", client->user), LOG_S("database", client->database_name),
                  LOG_S("tls", tls), LOG_S("sni", tls_server_name(&client->conn)));
    else
        log_event(LOG_INFO, "client logged in", LOG_I("client", client->id),
                  LOG_S("user", client->user), LOG_S("database", client->database_name));
}

void client_login_greet(struct client *client, const struct buffer *parameters)
{
    struct buffer out = {0};
    unsigned char key[CANCEL_KEY_MAX];
    size_t begin = wire_begin(&out, 'R');
    wire_put32(&out, 0);
    wire_end(&out, begin);
    buffer_append(&out, buffer_head(parameters), buffer_length(parameters));
    begin = wire_begin(&out, 'K');
    wire_put32(&out, client->cancel_pid);
    wire_put_bytes(&out, key, cancel_client_key(client, key));
    wire_end(&out, begin);
    wire_put_ready(&out, 'I');
    client->state = CLIENT_IDLE;
    client->idle_since = worker_now(client->worker);
    client->deadline = 0;
    client->stats->logins++;
    log_login(client);
    client_send_buffer(client, &out);
}

static void greet_console(struct client *client)
{
    client->stats = worker_stats_of(client->worker, client->database_name);
    struct buffer parameters = {0};
    console_parameters(&parameters);
    client->console = console_new(client);
    client_login_greet(client, &parameters);
    buffer_release(&parameters);
}

void client_login_settled(struct client *client, struct server *server,
                          const struct pg_error *error)
{
    if (error) {
        client_detach(client, server);
        server_reset(server);
        client_fatal(client, error->sqlstate, error->message,
                     "The setting came with the startup packet (connection string, options).");
        return;
    }
    const struct buffer *parameters = welcome_learn(client->worker, client, server);
    client_detach(client, server);
    client_login_greet(client, parameters);
    pool_checkin(server);
    client_continue(client);
}

void client_login_server_ready(struct client *client, struct server *server)
{
    struct buffer out = {0};
    attach_prefix(client, server, &out);
    if (!buffer_length(&out)) {
        client_login_settled(client, server, NULL);
        return;
    }
    conn_send(&server->conn, buffer_head(&out), buffer_length(&out));
    buffer_release(&out);
}

void client_login_find_greeting(struct client *client)
{
    const struct buffer *parameters = welcome_find(client->worker, client);
    if (parameters) {
        client_login_greet(client, parameters);
        return;
    }
    const char *why = "no server is known";
    client->state = CLIENT_GREETING;
    if (control_holds(client))
        return;
    struct node *node = attach_choose_any(client, &why);
    if (!node) {
        client_fatal(client, "08006", why, "SHOW NODES on the admin console tells more.");
        return;
    }
    if (pool_checkout(pool_get(client->account, node), client, 0) == CHECKOUT_READY)
        client_login_server_ready(client, client->participants[0]);
}

/* False: the client was refused. */
static bool take_own_settings(struct client *client)
{
    struct arena arena;
    struct pg_error error;
    arena_init(&arena);
    bool ok = own_settings_start(client, &arena, &error);
    if (!ok)
        client_fatal(client, error.sqlstate, error.message, error.hint);
    arena_free(&arena);
    return ok;
}

void client_login_accept(struct client *client)
{
    scram_server_free(client->scram);
    client->scram = NULL;
    if (console_is_name(client->database_name)) {
        greet_console(client);
        return;
    }
    client->topology = topology_ref(client->worker->topology);
    client->database = topology_database(client->topology, client->database_name);
    if (!client->database) {
        char message[256];
        snprintf(message, sizeof message, "database \"%.100s\" does not exist",
                 client->database_name);
        client_fatal(client, "3D000", message,
                     "Databases are listed in pgshunt's configuration file; SHOW DATABASES on the "
                     "admin console shows them.");
        return;
    }
    if (control_is_disabled(client->worker, client->database_name)) {
        char message[256];
        snprintf(message, sizeof message, "database \"%.100s\" is disabled", client->database_name);
        client_fatal(client, "55000", message,
                     "ENABLE on the admin console lets clients in again.");
        return;
    }
    if (!client->replication && !take_own_settings(client))
        return;
    client->stats = worker_stats_of(client->worker, client->database_name);
    client->account = account_get(client->worker, client->database_name, client->user);
    client->pool_mode = (uint8_t)client->account->settings.mode;
    struct pg_error error;
    client->admitted = account_admit(client->account, &error);
    if (!client->admitted) {
        client_fatal(client, error.sqlstate, error.message, error.hint);
        return;
    }
    if (client->replication)
        replication_start(client);
    else
        client_login_find_greeting(client);
}

/* ---- authentication ---- */

/* A worker's derived secrets: PBKDF2 on a plain password takes milliseconds. */
struct secret {
    char *user;
    char *source;
    struct scram_secret derived;
    UT_hash_handle hh;
};

static void free_secret(struct worker *worker, struct secret *secret)
{
    HASH_DEL(worker->secrets, secret);
    free(secret->user);
    OPENSSL_cleanse(secret->source, strlen(secret->source));
    free(secret->source);
    free(secret);
}

void client_login_forget(struct worker *worker)
{
    while (worker->secrets)
        free_secret(worker, worker->secrets);
}

static bool derive_secret(struct worker *worker, const struct user_config *user,
                          struct scram_secret *out)
{
    struct secret *known;
    HASH_FIND_STR(worker->secrets, user->name, known);
    if (known && strcmp(known->source, user->secret) == 0) {
        *out = known->derived;
        return true;
    }
    if (known)
        free_secret(worker, known);
    bool ok = strncmp(user->secret, "SCRAM-SHA-256$", 14) == 0
                  ? scram_secret_parse(user->secret, out)
                  : !md5_is_secret(user->secret) && scram_secret_make(user->secret, out);
    if (!ok)
        return false;
    known = mem_alloc(sizeof *known);
    known->user = mem_strdup(user->name);
    known->source = mem_strdup(user->secret);
    known->derived = *out;
    HASH_ADD_KEYPTR(hh, worker->secrets, known->user, strlen(known->user), known);
    return true;
}

void client_login_ask(struct client *client, int kind, const void *more, size_t len)
{
    struct buffer out = {0};
    size_t begin = wire_begin(&out, 'R');
    wire_put32(&out, kind);
    wire_put_bytes(&out, more, len);
    wire_end(&out, begin);
    client_send_buffer(client, &out);
}

/* The mechanisms, best first; on TLS also the one that is bound to it. */
static void offer_scram(struct client *client)
{
    static const char both[] = "SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0", bare[] = "SCRAM-SHA-256\0";
    unsigned char data[SCRAM_BINDING_MAX];
    size_t length = tls_binding(&client->conn, data);
    if (length) {
        scram_server_bind(client->scram, data, length);
        client_login_ask(client, 10, both, sizeof both);
    } else {
        client_login_ask(client, 10, bare, sizeof bare);
    }
}

void client_login_start_scram(struct client *client, const struct user_config *user)
{
    struct scram_secret secret;
    bool known = user && user->secret[0] && derive_secret(client->worker, user, &secret);
    if (!known)
        scram_secret_mock(client->user, &secret);
    client->scram = scram_server_new(&secret, !known);
    offer_scram(client);
}

/* First SASL message: mechanism, length, client-first; later ones are bare. */
static bool scram_payload(struct client *client, const char **body, size_t *len)
{
    if (client->scram_started)
        return true;
    struct wire_reader reader = wire_reader(*body, *len);
    const char *mechanism = wire_read_cstring(&reader);
    int32_t length = wire_read32(&reader);
    bool plus = strcmp(mechanism, "SCRAM-SHA-256-PLUS") == 0;
    if (reader.bad || (!plus && strcmp(mechanism, "SCRAM-SHA-256") != 0) || length < 0 ||
        (size_t)length != wire_left(&reader))
        return false;
    scram_server_choose(client->scram, plus);
    *body = reader.at;
    *len = wire_left(&reader);
    return true;
}

void client_login_scram_message(struct client *client, const char *body, size_t len)
{
    struct buffer reply = {0};
    struct scram_keys keys;
    const char *problem;
    enum scram_result result = SCRAM_MALFORMED;
    if (scram_payload(client, &body, &len))
        result = scram_server_step(client->scram, body, len, &reply);
    client->scram_started = true;
    switch (result) {
    case SCRAM_CONTINUE:
        client_login_ask(client, 11, buffer_head(&reply), buffer_length(&reply));
        break;
    case SCRAM_OK:
        client_login_ask(client, 12, buffer_head(&reply), buffer_length(&reply));
        scram_server_keys(client->scram, &keys);
        client_auth_scram_passed(client, &keys);
        OPENSSL_cleanse(&keys, sizeof keys);
        break;
    case SCRAM_FAILED:
        client_auth_refuse(client);
        break;
    case SCRAM_MALFORMED:
        problem = scram_server_problem(client->scram);
        client_fatal(client, "08P01", problem ? problem : "malformed SCRAM message", NULL);
        break;
    }
    buffer_release(&reply);
}

/* ---- startup ---- */

/* Refuses what no password would help. True: goes on. */
static bool admit(struct client *client)
{
    struct worker *worker = client->worker;
    const struct config *config = worker->topology->config;
    if (!client_tls_admit(client))
        return false;
    if (console_is_name(client->database_name)) {
        if (client->replication) {
            client_fatal(client, "0A000", "the admin console has nothing to replicate", NULL);
            return false;
        }
        if (console_role(config, client->user) != CONSOLE_NOBODY)
            return true;
        client_fatal(client, "42501", "the admin console is for admin users only",
                     "Set admin = true (or stats = true, to look only) for the user in the users "
                     "file.");
        return false;
    }
    if (worker->phase != WORKER_RUNNING) {
        client_fatal(client, "57P03", "pgshunt is shutting down", "Connect again in a moment.");
        return false;
    }
    if (atomic_load(&worker->daemon->clients) > config->max_clients) {
        client_fatal(client, "53300", "too many clients (limits.max_clients)",
                     "Raise limits.max_clients, or close connections that are not used.");
        return false;
    }
    return true;
}

/* As Postgres does: before version 3 an error was a type byte and a text. */
static void refuse_protocol(struct client *client, uint32_t version)
{
    char text[120] = "EFATAL:  ", *message = text + 9;
    snprintf(message, sizeof text - 9,
             "unsupported frontend protocol %u.%u: server supports 3.0 to 3.2", version >> 16,
             version & 0xffff);
    if (version >> 16 < 3) {
        strcat(text, "\n");
        client_send(client, text, strlen(text) + 1);
        client_close(client, message);
    } else {
        client_fatal(client, "0A000", message, NULL);
    }
}

static void take_startup(struct client *client, const char *body, size_t len)
{
    struct startup startup;
    struct pg_error error;
    if (!startup_parse(body, len, &client->startup, &startup, &error)) {
        if (startup.protocol && startup.protocol >> 16 != 3)
            refuse_protocol(client, startup.protocol);
        else
            client_fatal(client, error.sqlstate, error.message, error.hint);
        return;
    }
    client->user = mem_strdup(startup.user);
    client->database_name = mem_strdup(startup.database);
    guc_set_assign(&client->guc, client->startup);
    if (startup.replication)
        client->replication = replication_new(&startup, body, len);
    client->long_cancel_key = startup.protocol >= WIRE_PROTOCOL_3_2;
    if (startup.negotiate) {
        struct buffer out = {0};
        startup_put_negotiation(&out, body, len);
        client_send_buffer(client, &out);
    }
    if (admit(client))
        client_auth_begin(client);
}

/* Anything sent behind the request came without encryption: it is not the client's, or not for us. */
static void negotiate_encryption(struct client *client, uint32_t code, size_t len)
{
    if (len != 4 || buffer_length(&client->in) > 8 || client->conn.tls ||
        ++client->negotiations > 2) {
        client_fatal(client, "08P01", "unexpected data after an encryption request", NULL);
    } else if (code == WIRE_SSL_REQUEST && client_tls_offered(client)) {
        client_send(client, "S", 1);
        client_tls_start(client, NULL, 0);
    } else {
        client_send(client, "N", 1);
    }
}

/* An untyped packet: SSLRequest, GSSENCRequest, CancelRequest or startup. */
static void startup_packet(struct client *client, const char *body, size_t len)
{
    uint32_t code = len >= 4 ? wire_get32(body) : 0;
    switch (code) {
    case WIRE_SSL_REQUEST:
    case WIRE_GSSENC_REQUEST:
        negotiate_encryption(client, code, len);
        break;
    case WIRE_CANCEL_REQUEST:
        if (len < 12)
            client_close(client, "malformed cancel request");
        else
            cancel_request(client, (int32_t)wire_get32(body + 4), (const unsigned char *)body + 8,
                           len - 8);
        break;
    default:
        take_startup(client, body, len);
        break;
    }
}

/* Takes one packet off client->in. False: incomplete, or the client is past this stage. */
static bool next_packet(struct client *client)
{
    const char *head = buffer_head(&client->in);
    size_t have = buffer_length(&client->in), type = client->state == CLIENT_AUTH;
    if (client->terminate || have < type + 4 || client_auth_is_waiting(client))
        return false;
    uint32_t length = wire_get32(head + type);
    uint32_t most = type ? PASSWORD_MESSAGE_MAX : WIRE_STARTUP_MAX;
    if (length < 4 + 4 * !type || length > most) {
        client_fatal(client, "08P01", "invalid length of startup packet", NULL);
        return false;
    }
    if (have < type + length)
        return false;
    if (!type)
        startup_packet(client, head + 4, length - 4);
    else if (head[0] == 'p')
        client_auth_message(client, head + 5, length - 4);
    else
        client_fatal(client, "08P01", "expected a password message", NULL);
    if (client->state == CLIENT_CLOSED)
        return false;
    buffer_consume(&client->in, type + length);
    return client->state == CLIENT_STARTUP || client->state == CLIENT_AUTH;
}

void client_login_input(struct client *client, const char *data, size_t len)
{
    if (client_tls_is_direct(client, data, len)) {
        client_tls_start(client, data, len);
        return;
    }
    buffer_append(&client->in, data, len);
    while (next_packet(client))
        continue;
    if (client->state == CLIENT_CLOSED)
        return;
    if (client_auth_is_waiting(client) && buffer_length(&client->in) > PASSWORD_MESSAGE_MAX) {
        client_fatal(client, "08P01", "unexpected data during authentication", NULL);
        return;
    }
    if (!buffer_length(&client->in))
        buffer_release(&client->in);
    if (client->state == CLIENT_IDLE)
        client_continue(client);
}

void client_login_resume(struct client *client)
{
    if (client->state != CLIENT_CLOSED)
        client_login_input(client, "", 0);
}
