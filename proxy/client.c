/* client.c: a client connection's life, its participants, and what the pool tells it. */
#include "proxy/client.h"

#include <stdlib.h>
#include <string.h>

#include "pgshunt/arena.h"
#include "pgshunt/log.h"
#include "pgshunt/wire.h"
#include "proxy/cancel.h"
#include "proxy/extended.h"
#include "proxy/client_auth.h"
#include "proxy/client_login.h"
#include "proxy/bucket_hold.h"
#include "proxy/client_tls.h"
#include "proxy/console.h"
#include "proxy/control.h"
#include "proxy/monitor.h"
#include "proxy/node_wait.h"
#include "proxy/pool.h"
#include "proxy/replication.h"
#include "proxy/schema_wait.h"
#include "proxy/lookup.h"
#include "proxy/session.h"

/* Input a busy client may send ahead before its socket is no longer read. */
#define INPUT_AHEAD_MAX 65536
/* How long a client that was told goodbye may take to read it. */
#define LINGER_US 5000000

const char *client_state_name(enum client_state state)
{
    switch (state) {
    case CLIENT_WAITING:
    case CLIENT_GREETING:
        return "waiting";
    case CLIENT_BUSY:
    case CLIENT_REPLICATING:
        return "active";
    case CLIENT_CANCELLING:
        return "active_cancel_req";
    case CLIENT_STARTUP:
    case CLIENT_AUTH:
    case CLIENT_IDLE:
    case CLIENT_CLOSED:
        return "idle";
    }
    return "?";
}

/* Something is not answered yet: what only stays with the client (a session's, a pinned one) does not count. */
static bool holds_busy_server(const struct client *client)
{
    for (int i = 0; i < client->nparticipants; i++) {
        const struct server *server = client->participants[i];
        if (server->expect_count || server->copy_rest ||
            (!server->pinned && !client_keeps_servers(client)))
            return true;
    }
    return false;
}

bool client_has_asked_nothing(const struct client *client)
{
    return (client->state == CLIENT_IDLE && !client->tx && !holds_busy_server(client) &&
            !extended_in_batch(client)) ||
           client->state == CLIENT_STARTUP || client->state == CLIENT_AUTH ||
           client->state == CLIENT_GREETING ||
           (client->state == CLIENT_REPLICATING && replication_may_end(client));
}

bool client_is_idle(const struct client *client)
{
    return client_has_asked_nothing(client) &&
           (client->state != CLIENT_IDLE || !buffer_length(&client->in));
}

/* ---- end ---- */

static void free_request(struct client *client)
{
    buffer_release(&client->request.again);
    guc_pending_free(&client->request.settings);
    session_drop_request(client);
}

static void free_client(struct conn *conn)
{
    struct client *client = list_entry(conn, struct client, conn);
    free_request(client);
    extended_free(client);
    guc_set_release(&client->guc);
    guc_set_release(&client->startup);
    guc_set_release(&client->heard);
    scram_server_free(client->scram);
    buffer_release(&client->in);
    if (client->participants != client->inline_participant)
        free(client->participants);
    topology_unref(client->topology);
    schema_unref(client->schema);
    free(client->freshness);
    free(client->user);
    free(client->database_name);
    own_settings_free(client);
    free(client);
}

/* What its servers are in the middle of is of no use any more. */
static void abandon_servers(struct client *client)
{
    while (client->nparticipants) {
        struct server *server = client->participants[client->nparticipants - 1];
        bool open = client->extended && client->extended->server == server; /* not synced */
        bool clean = !open && (!server->expect_count || server->probing) &&
                     server->tx_status == 'I' && !server->skip && !server->copy_in &&
                     !server->copy_rest && !server->dedicated;
        if (clean) {
            server->kept |= client_keeps_servers(client);
            client_detach(client, server);
            if (!server->kept && (server->pinned || server->probing))
                server_reset(server);
            else
                pool_checkin(server);
        } else {
            if (server->expect_count)
                cancel_server(server);
            server_drop(server, "its client left in the middle");
        }
    }
}

void client_stop_waiting(struct client *client)
{
    pool_cancel_wait(client);
    schema_wait_cancel(client);
    lookup_cancel(client);
    listen_cancel(client);
    control_release(client);
    node_wait_cancel(client);
    bucket_hold_cancel(client);
}

void client_close(struct client *client, const char *reason)
{
    if (client->state == CLIENT_CLOSED)
        return;
    if (client->worker->topology->config->log_connections)
        log_event(LOG_INFO, "client left", LOG_I("client", client->id),
                  LOG_S("user", client->user ? client->user : ""), LOG_S("reason", reason));
    client->state = CLIENT_CLOSED;
    client_auth_free(client);
    client_stop_waiting(client);
    scatter_free(client);
    abandon_servers(client);
    replication_free(client);
    transaction_end(client, false);
    listen_free(client);
    console_free(client);
    if (client->admitted)
        account_leave(client->account);
    list_remove(&client->all);
    client->worker->nclients--;
    atomic_fetch_sub(&client->worker->daemon->clients, 1);
    HASH_DEL(client->worker->by_id, client);
    conn_close(&client->conn, free_client);
}

/* ---- output ---- */

bool client_send(struct client *client, const void *bytes, size_t len)
{
    if (client->stats)
        client->stats->bytes_out += len;
    return conn_send(&client->conn, bytes, len);
}

bool client_send_buffer(struct client *client, struct buffer *bytes)
{
    bool ok = client_send(client, buffer_head(bytes), buffer_length(bytes));
    buffer_release(bytes);
    return ok;
}

void client_answer(struct client *client, struct buffer *bytes)
{
    if (!buffer_length(bytes))
        return;
    client->request.forwarded = true;
    client_send_buffer(client, bytes);
}

void client_error(struct client *client, const struct pg_error *error)
{
    struct buffer out = {0};
    wire_put_error(&out, error);
    client->request.forwarded = true;
    client_send_buffer(client, &out);
}

void client_fatal(struct client *client, const char *sqlstate, const char *message,
                  const char *hint)
{
    struct pg_error error = {
        .severity = "FATAL", .sqlstate = sqlstate, .message = message, .hint = hint};
    if (client->state == CLIENT_CLOSED)
        return;
    client_error(client, &error);
    client_finish(client, message);
}

void client_finish(struct client *client, const char *reason)
{
    if (!conn_queued(&client->conn) || client->conn.broken || client->terminate) {
        client_close(client, reason);
        return;
    }
    client->terminate = true;
    client->deadline = clock_us() + LINGER_US;
    conn_set_reading(&client->conn, false);
}

/* Whether what is sent next would be a message of its own. */
static bool between_messages(const struct client *client)
{
    if (conn_queued(&client->conn) || client->state == CLIENT_CANCELLING || client->terminate)
        return false;
    if (client->state == CLIENT_REPLICATING)
        return replication_may_end(client);
    for (int i = 0; i < client->nparticipants; i++)
        if (client->participants[i]->skip && client->participants[i]->skip_forward)
            return false;
    return true;
}

void client_kill(struct client *client, const char *sqlstate, const char *message, const char *hint)
{
    struct pg_error error = {
        .severity = "FATAL", .sqlstate = sqlstate, .message = message, .hint = hint};
    if (client->state == CLIENT_CLOSED)
        return;
    if (between_messages(client))
        client_error(client, &error);
    client_close(client, message);
}

/* ---- participants ---- */

struct server *client_participant(const struct client *client, unsigned shard)
{
    for (int i = 0; i < client->nparticipants; i++)
        if (client->participants[i]->shard == shard)
            return client->participants[i];
    return NULL;
}

void client_attach(struct client *client, struct server *server, unsigned shard)
{
    int n = client->nparticipants;
    if (n == 0) {
        client->participants = client->inline_participant;
    } else {
        size_t size = sizeof(struct server *) * (size_t)(n + 1);
        if (client->participants == client->inline_participant) {
            client->participants = mem_alloc(size);
            client->participants[0] = client->inline_participant[0];
        } else {
            client->participants = mem_realloc(client->participants, size);
        }
    }
    client->participants[n] = server;
    client->nparticipants++;
    server->client = client;
    server->shard = shard;
    server->judged = false;
    server->vouched = freshness_vouches(server->pool->node, server->vouched, server->ready_at);
    server->stint = atomic_load(&server->pool->node->stint);
    client->stats->assignments++;
}

void client_detach(struct client *client, struct server *server)
{
    for (int i = 0; i < client->nparticipants; i++) {
        if (client->participants[i] != server)
            continue;
        client->nparticipants--;
        memmove(client->participants + i, client->participants + i + 1,
                sizeof(struct server *) * (size_t)(client->nparticipants - i));
        break;
    }
    if (!client->nparticipants && client->participants != client->inline_participant) {
        free(client->participants);
        client->participants = client->inline_participant;
    }
    server->client = NULL;
    conn_set_reading(&server->conn, true);
}

/* ---- input ---- */

/* CopyData sent ahead of the server's consent. */
static bool copies_ahead(const struct client *client)
{
    return buffer_length(&client->in) && !client->copy_left && *buffer_head(&client->in) == 'd';
}

/* Whether more bytes would let the session go on: they may be the rest of a long message. */
static bool wants_input(const struct client *client)
{
    return client->state != CLIENT_WAITING && client->state != CLIENT_GREETING &&
           (client->state != CLIENT_BUSY ||
            (extended_takes_input(client) && !copies_ahead(client)));
}

/* Waiting and busy clients may send ahead, up to a limit. */
void client_hold_input(struct client *client)
{
    bool hold = (client->worker->suspended && client->stats && !client->console) ||
                (buffer_length(&client->in) > INPUT_AHEAD_MAX && !wants_input(client)) ||
                conn_queued(&client->conn) > OUTPUT_MAX;
    for (int i = 0; i < client->nparticipants; i++)
        hold |= conn_queued(&client->participants[i]->conn) > INPUT_AHEAD_MAX ||
                client->participants[i]->expect_count > EXPECTS_MAX;
    if (client->state == CLIENT_CLOSED || hold == client->input_held)
        return;
    client->input_held = hold;
    conn_set_reading(&client->conn, !hold);
}

static void dispatch(struct client *client, const char *data, size_t len)
{
    switch (client->state) {
    case CLIENT_STARTUP:
    case CLIENT_AUTH:
        client_login_input(client, data, len);
        break;
    case CLIENT_IDLE:
    case CLIENT_BUSY:
        session_input(client, data, len);
        break;
    case CLIENT_REPLICATING:
        replication_input(client, data, len);
        break;
    case CLIENT_GREETING:
    case CLIENT_WAITING:
        buffer_append(&client->in, data, len);
        break;
    case CLIENT_CANCELLING:
    case CLIENT_CLOSED:
        break;
    }
    client_hold_input(client);
}

static void on_readable(struct client *client)
{
    struct worker *worker = client->worker;
    ssize_t n = conn_recv(&client->conn, worker->io, IO_BUFFER_SIZE);
    if (n < 0) {
        client_close(client, "the client closed the connection");
        return;
    }
    if (n == 0 || client->terminate)
        return;
    if (client->stats)
        client->stats->bytes_in += (uint64_t)n;
    dispatch(client, worker->io, (size_t)n);
}

void client_continue(struct client *client)
{
    if (client->state == CLIENT_IDLE || client->state == CLIENT_BUSY)
        session_resume(client);
    client_hold_input(client);
}

/* The client reads again: its servers may be read again. */
static void on_drained(struct client *client)
{
    if (client->terminate) {
        client_close(client, "closed after an error");
        return;
    }
    /* Whatever was asked behind the answer that was too much: a fan-out stops those that are ahead of it. */
    for (int i = 0; i < client->nparticipants; i++)
        conn_set_reading(&client->participants[i]->conn, true);
    if (client->scatter)
        scatter_drained(client);
    if (client->input_held)
        client_continue(client);
}

void client_uncork(struct client *client)
{
    if (!conn_is_open(&client->conn))
        return;
    conn_uncork(&client->conn);
    if (!conn_queued(&client->conn) && (client->terminate || client->input_held))
        on_drained(client); /* no event follows: nothing waited for the kernel */
}

static void on_event(struct conn *conn, enum conn_event event)
{
    struct client *client = list_entry(conn, struct client, conn);
    switch (event) {
    case CONN_READABLE:
        on_readable(client);
        break;
    case CONN_DRAINED:
        on_drained(client);
        break;
    case CONN_WRITABLE_FIRST:
        break;
    case CONN_NEGOTIATED:
        client_tls_negotiated(client);
        break;
    case CONN_BROKEN:
        client_tls_failed(client);
        client_close(client, "the connection to the client broke");
        break;
    }
}

/* A pid that names this worker in its low byte and is not in use. */
static int32_t new_cancel_pid(struct worker *worker)
{
    for (;;) {
        int32_t pid =
            (int32_t)((++worker->next_client << 8 & 0x7fffff00) | (uint32_t)worker->index);
        struct client *other;
        HASH_FIND_INT(worker->by_id, &pid, other);
        if (!other && pid > 0xff)
            return pid;
    }
}

void client_accept(struct worker *worker, int fd, struct peer peer)
{
    struct client *client = mem_alloc(sizeof *client);
    client->worker = worker;
    client->state = CLIENT_STARTUP;
    client->peer = peer;
    client->participants = client->inline_participant;
    client->connected_at = clock_us();
    list_init(&client->waiting);
    if (!conn_open(&client->conn, &worker->poller, fd, on_event)) {
        free(client);
        return;
    }
    client->deadline = clock_us() + worker->topology->config->login_timeout * 1000;
    client->cancel_pid = new_cancel_pid(worker);
    client->cancel_secret = worker_secret(worker);
    client->id = (uint32_t)client->cancel_pid;
    HASH_ADD_INT(worker->by_id, cancel_pid, client);
    list_push_back(&worker->clients, &client->all);
    worker->nclients++;
    atomic_fetch_add(&worker->daemon->clients, 1);
}

/* ---- news from pools and servers ---- */

static void go_on(struct client *client)
{
    client->state = CLIENT_BUSY;
    if (extended_in_batch(client))
        extended_continue(client);
    else
        simple_continue(client);
}

void client_go_on(struct client *client)
{
    go_on(client);
    client_hold_input(client);
}

void client_server_ready(struct client *client, struct server *server)
{
    if (client->state == CLIENT_GREETING) {
        client_login_server_ready(client, server);
        return;
    }
    client_go_on(client);
}

/* A read that has another node to go to is tried there; nothing of it was sent. */
static bool try_elsewhere(struct client *client)
{
    struct request *request = &client->request;
    if (!request->planned || request->plan.node != NODE_CLASS_REPLICA || client->tx ||
        (client->nparticipants && request->plan.kind != PLAN_SCATTER) || request->attempts++ >= 3)
        return false;
    if (request->attaching) {
        request->elsewhere = true;
        return true;
    }
    go_on(client);
    return true;
}

/* The server is away, or coming or going: nothing was sent to it, so the statement may wait. */
static bool wait_for_node(struct client *client, const char *sqlstate)
{
    struct request *request = &client->request;
    if (!request->planned || request->attempts >= CLIENT_ATTEMPTS_OVER ||
        !node_wait_is_for(sqlstate) ||
        !node_wait(client, client->waiting_shard, request->plan.node))
        return false;
    request->hold = request->attaching;
    return true;
}

void client_no_server(struct client *client, const char *sqlstate, const char *message,
                      const char *hint)
{
    if (client->state == CLIENT_GREETING) {
        client_fatal(client, sqlstate, message, hint);
        return;
    }
    if (try_elsewhere(client) || wait_for_node(client, sqlstate))
        return;
    client->state = CLIENT_BUSY;
    struct pg_error error = {.sqlstate = sqlstate, .message = message, .hint = hint};
    session_refuse(client, &error);
    client_hold_input(client);
}

/* A read that was sent but not answered at all is asked again elsewhere. */
static bool repeat_request(struct client *client, struct server *server)
{
    struct request *request = &client->request;
    if (client->state != CLIENT_BUSY || !request->retriable || request->forwarded || client->tx ||
        (client->nparticipants && !client->scatter) || request->attempts++ >= 3)
        return false;
    if (client->scatter)
        scatter_abandon(client);
    struct buffer again = request->again;
    request->again = (struct buffer){0};
    simple_again(client, &again);
    request->avoid = server->pool->node;
    int attempts = request->attempts;
    client->stats->retries++;
    session_repeat(client, &again, attempts, server->pool->node);
    buffer_release(&again);
    return true;
}

void client_ask_elsewhere(struct client *client, struct server *server)
{
    char reason[sizeof server->fatal];
    snprintf(reason, sizeof reason, "%s", server->fatal);
    bool at_work = server->client == client && client->state != CLIENT_CLOSED;
    server_drop(server, reason);
    if (at_work && !repeat_request(client, server))
        session_lost_server(client, server, reason);
}

void client_lost_server(struct client *client, struct server *server, const char *reason)
{
    monitor_suspect(client->worker->daemon->monitor, server->pool->node);
    if (client->state == CLIENT_CLOSED || repeat_request(client, server))
        return;
    if (client->state == CLIENT_REPLICATING) {
        replication_lost_server(client, reason);
        return;
    }
    if (client->state == CLIENT_GREETING) {
        client_fatal(client, "08006", reason, "Connect again.");
        return;
    }
    session_lost_server(client, server, reason);
}

static void cancel(struct client *client, const struct pg_error *why)
{
    if (client->state == CLIENT_WAITING && (bucket_hold_asks_now(client) || listen_let_go(client)))
        return;
    if (client->state == CLIENT_WAITING) {
        client_stop_waiting(client);
        client->request.attempts = CLIENT_ATTEMPTS_OVER;
        client_no_server(client, why->sqlstate, why->message, why->hint);
        return;
    }
    for (int i = 0; i < client->nparticipants; i++)
        if (client->participants[i]->expect_count)
            cancel_server(client->participants[i]);
}

void client_cancel(struct client *client)
{
    if (client->console)
        console_cancel(client);
    else
        cancel(client, &(struct pg_error){.sqlstate = "57014",
                                          .message = "canceling statement due to user request"});
}

void client_cancel_late(struct client *client)
{
    client->request.timed_out = true;
    cancel(client, &(struct pg_error){.sqlstate = "57014",
                                      .message = CLIENT_LATE_MESSAGE,
                                      .hint = CLIENT_LATE_HINT});
}

void client_cancel_moved(struct client *client)
{
    struct pg_error why = {.sqlstate = "57014", .message = ""};
    bucket_hold_explain(client, &why);
    cancel(client, &why);
}
