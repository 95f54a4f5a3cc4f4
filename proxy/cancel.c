/* cancel.c: finds the session a cancel request means and tells its servers. */
#include "proxy/cancel.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pgshunt/arena.h"
#include "pgshunt/log.h"
#include "pgshunt/wire.h"
#include "proxy/pool.h"
#include "proxy/session.h"
#include "proxy/takeover.h"
#include "proxy/tls.h"
#include "proxy/worker.h"

/*
 * A connection that carries one CancelRequest; the server closes it when it has acted. There is one at a
 * time for a server, whoever many ask: what is asked before it leaves is the same request, what is asked
 * later is sent (`again`) when this one is through, if the server still does what was meant then.
 */
struct cancel {
    struct conn conn;
    struct list_node all;  /* worker->cancels */
    struct server *server; /* cancels > 0 keeps it from being reused; NULL once it is gone */
    int64_t meant;         /* the request to be cancelled, by its start */
    bool sent;             /* it may take effect at any time from now on */
    bool again;
    bool waits; /* could be sent, but what goes ahead of the statement is not answered yet */
    struct buffer request;
    char host[256]; /* what its certificate has to say */
    int port;
    struct tls_context *tls; /* reference; what the server's own connection has; NULL: plain */
    int64_t started_at;
};

static void free_cancel(struct conn *conn)
{
    struct cancel *cancel = list_entry(conn, struct cancel, conn);
    buffer_release(&cancel->request);
    tls_context_unref(cancel->tls);
    free(cancel);
}

static int64_t now_doing(const struct server *server)
{
    return server->client && server->expect_count ? server->client->request.started_at : -1;
}

static void finish(struct cancel *cancel)
{
    struct server *server = cancel->server;
    bool again = cancel->again && server && now_doing(server) == cancel->meant;
    list_remove(&cancel->all);
    conn_close(&cancel->conn, free_cancel);
    if (server && --server->cancels == 0 && server->parked)
        pool_checkin(server); /* parked servers are nobody's */
    else if (again)
        cancel_server(server);
    else if (server && server->client && server->client->scatter)
        scatter_drained(server->client); /* which may have waited for this */
}

/* It may have reached the postmaster, or may yet: the server cannot be given to others any more. */
static void give_up(struct cancel *cancel)
{
    if (cancel->server && cancel->sent)
        cancel->server->discard = true;
    cancel->again = false;
    finish(cancel);
}

/*
 * Settings and BEGIN that go ahead of the statement are answered first: where they were cancelled, what is behind them
 * would run all the same, and outside of its transaction.
 */
static bool is_too_early(struct server *server)
{
    const struct expect *head = server ? server_expected(server) : NULL;
    return head && head->swallow && head->kind == EXPECT_QUERY;
}

static void send_request(struct cancel *cancel)
{
    cancel->waits = is_too_early(cancel->server);
    if (cancel->waits) /* cancel_prefix_answered() */
        return;
    cancel->sent = true;
    conn_send(&cancel->conn, buffer_head(&cancel->request), buffer_length(&cancel->request));
}

/* The request goes the way its session goes: whoever can read it can cancel what he likes. */
static void begin(struct cancel *cancel, struct conn *conn)
{
    if (cancel->server && now_doing(cancel->server) != cancel->meant)
        finish(cancel); /* it is done already */
    else if (!cancel->tls)
        send_request(cancel);
    else if (!tls_request(conn, cancel->tls, cancel->host, cancel->port))
        conn->broken = true; /* given up after timeouts.cancel_wait */
}

static void on_event(struct conn *conn, enum conn_event event)
{
    struct cancel *cancel = list_entry(conn, struct cancel, conn);
    char ignored[64];
    switch (event) {
    case CONN_WRITABLE_FIRST:
        begin(cancel, conn);
        break;
    case CONN_NEGOTIATED:
        if (cancel->server && now_doing(cancel->server) != cancel->meant)
            finish(cancel);
        else
            send_request(cancel);
        break;
    case CONN_READABLE:
        if (conn_recv(conn, ignored, sizeof ignored) < 0)
            finish(cancel);
        break;
    case CONN_DRAINED:
        break;
    case CONN_BROKEN:
        give_up(cancel);
        break;
    }
}

/* Whether one is on its way that will do, now or when it is through. */
static bool join(const struct server *server)
{
    list_each(at, following, &server->worker->cancels)
    {
        struct cancel *cancel = list_entry(at, struct cancel, all);
        if (cancel->server != server)
            continue;
        cancel->again = cancel->sent;
        cancel->meant = now_doing(server);
        return true;
    }
    return false;
}

void cancel_server(struct server *server)
{
    struct worker *worker = server->worker;
    struct sockaddr_storage address;
    socklen_t length;
    if (server->cancels && join(server))
        return;
    if (!server->cancel_key || !node_address(server->pool->node, &address, &length))
        return;
    struct cancel *cancel = mem_alloc(sizeof *cancel);
    size_t begin = wire_begin(&cancel->request, 0);
    wire_put32(&cancel->request, WIRE_CANCEL_REQUEST);
    wire_put32(&cancel->request, server->backend_pid);
    wire_put_bytes(&cancel->request, server->cancel_key, (size_t)server->cancel_key_length);
    wire_end(&cancel->request, begin);
    cancel->started_at = clock_us();
    cancel->meant = now_doing(server);
    if (server->conn.tls)
        cancel->tls = tls_context_ref(tls_context_of(&server->conn));
    snprintf(cancel->host, sizeof cancel->host, "%s", server->pool->node->host);
    cancel->port = server->pool->node->port;
    if (!conn_connect(&cancel->conn, &worker->poller, (struct sockaddr *)&address, length,
                      &worker->topology->config->tcp, on_event)) {
        free_cancel(&cancel->conn);
        return;
    }
    cancel->server = server;
    server->cancels++;
    list_push_back(&worker->cancels, &cancel->all);
}

void cancel_prefix_answered(struct server *server)
{
    list_each(at, following, &server->worker->cancels)
    {
        struct cancel *cancel = list_entry(at, struct cancel, all);
        if (cancel->server != server || !cancel->waits)
            continue;
        if (now_doing(server) == cancel->meant)
            send_request(cancel);
        else
            finish(cancel);
        return;
    }
}

void cancel_server_gone(struct server *server)
{
    list_each(at, following, &server->worker->cancels)
    {
        struct cancel *cancel = list_entry(at, struct cancel, all);
        if (cancel->server == server)
            cancel->server = NULL;
    }
}

void cancels_tick(struct worker *worker, int64_t now)
{
    int64_t limit = worker->topology->config->cancel_wait_timeout * 1000;
    list_each(at, following, &worker->cancels)
    {
        struct cancel *cancel = list_entry(at, struct cancel, all);
        if (now - cancel->started_at > limit)
            give_up(cancel);
    }
}

void cancels_close(struct worker *worker)
{
    list_each(at, following, &worker->cancels)
    {
        struct cancel *cancel = list_entry(at, struct cancel, all);
        cancel->server = NULL;
        finish(cancel);
    }
}

/* ---- clients' keys ---- */

size_t cancel_client_key(const struct client *client, unsigned char key[CANCEL_KEY_MAX])
{
    const struct daemon *daemon = client->worker->daemon;
    uint64_t session[2] = {(uint64_t)client->cancel_secret << 32 | (uint32_t)client->cancel_pid,
                           (uint64_t)client->connected_at};
    unsigned length = CANCEL_KEY_MAX;
    if (!client->long_cancel_key) {
        memcpy(key, &client->cancel_secret, sizeof client->cancel_secret);
        return sizeof client->cancel_secret;
    }
    HMAC(EVP_sha256(), daemon->cancel_seed, sizeof daemon->cancel_seed,
         (const unsigned char *)session, sizeof session, key, &length);
    return CANCEL_KEY_MAX;
}

/* ---- from worker to worker ---- */

struct errand {
    struct message message;
    int32_t pid;
    unsigned char secret[CANCEL_KEY_MAX];
    size_t length;
    struct worker *asking; /* NULL: the process that has taken over from this one */
    int32_t asker;         /* the asking connection's own pid, to find it again */
};

static struct client *find_client(struct worker *worker, int32_t pid)
{
    struct client *client;
    HASH_FIND_INT(worker->by_id, &pid, client);
    return client;
}

static void close_asker(struct worker *worker, struct message *message)
{
    struct errand *errand = (struct errand *)message;
    struct client *asker = find_client(worker, errand->asker);
    if (asker && asker->state == CLIENT_CANCELLING)
        client_close(asker, "cancel request delivered");
    free(errand);
}

/* The session's worker has ended: there is nothing to cancel. On the asking worker. */
static void drop_delivery(struct message *message)
{
    struct errand *errand = (struct errand *)message;
    if (errand->asking)
        close_asker(errand->asking, message);
    else
        free(errand);
}

/* The asker waits until it is done; a successor of this process does not. */
static void report_back(struct errand *errand)
{
    if (!errand->asking) {
        free(errand);
        return;
    }
    errand->message.run = close_asker;
    errand->message.drop = NULL;
    worker_post(errand->asking, &errand->message);
}

static void deliver(struct worker *worker, struct message *message)
{
    struct errand *errand = (struct errand *)message;
    struct client *client = find_client(worker, errand->pid);
    unsigned char key[CANCEL_KEY_MAX];
    if (client && cancel_client_key(client, key) == errand->length &&
        CRYPTO_memcmp(key, errand->secret, errand->length) == 0)
        client_cancel(client);
    else if (!takeover_forward_cancel(worker->daemon->takeover, errand->pid, errand->secret,
                                      errand->length))
        log_event(LOG_DEBUG, "cancel request for no session of ours");
    report_back(errand);
}

static struct errand *new_errand(int32_t pid, const unsigned char *secret, size_t length)
{
    struct errand *errand = mem_alloc(sizeof *errand);
    errand->message.run = deliver;
    errand->message.drop = drop_delivery;
    errand->pid = pid;
    memcpy(errand->secret, secret, length);
    errand->length = length;
    return errand;
}

void cancel_request(struct client *asker, int32_t pid, const unsigned char *secret, size_t length)
{
    struct daemon *daemon = asker->worker->daemon;
    int owner = pid & 0xff;
    if (length > CANCEL_KEY_MAX) {
        client_close(asker, "cancel request with a strange key");
        return;
    }
    if (owner >= daemon->nworkers) { /* a predecessor may have had more workers */
        bool sent = takeover_forward_cancel(daemon->takeover, pid, secret, length);
        client_close(asker,
                     sent ? "cancel request passed on" : "cancel request with a strange key");
        return;
    }
    struct errand *errand = new_errand(pid, secret, length);
    errand->asking = asker->worker;
    errand->asker = asker->cancel_pid;
    asker->state = CLIENT_CANCELLING;
    worker_post(&daemon->workers[owner], &errand->message);
}

void cancel_forwarded(struct daemon *daemon, int32_t pid, const unsigned char *secret,
                      size_t length)
{
    int owner = pid & 0xff;
    if (length > CANCEL_KEY_MAX)
        return;
    if (owner < daemon->nworkers)
        worker_post(&daemon->workers[owner], &new_errand(pid, secret, length)->message);
    else if (!takeover_forward_cancel(daemon->takeover, pid, secret, length))
        log_event(LOG_DEBUG, "cancel request for no session of ours");
}
