/*
 * session.c: takes a client's messages off its input and hands them on; begins and ends requests.
 *
 *      client bytes --> session_input --> 'Q' --> simple_query -----.
 *                          |  ^           P B D E C H S --> extended |--> attach_* --> server
 *                          |  |           d c f (COPY) ------------->|
 *                          |  |                                      v
 *                          |  '--- session_end_request <--- relay (or scatter) <-- server's answers
 *                          '-- what cannot be used yet waits in client->in
 */
#include "proxy/session.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pgshunt/arena.h"
#include "pgshunt/log.h"
#include "pgshunt/shape.h"
#include "pgshunt/wire.h"
#include "proxy/console.h"
#include "proxy/draw.h"
#include "proxy/lookup.h"
#include "proxy/monitor.h"
#include "proxy/pins.h"
#include "proxy/pool.h"
#include "proxy/series.h"

/* ---- requests ---- */

/* The same shards under the same numbers, on the same nodes: only what is where has changed. */
static bool same_places(const struct database *a, const struct database *b)
{
    if (a->nshards != b->nshards)
        return false;
    for (int s = 0; s < a->nshards; s++) {
        const struct shard *one = &a->shards[s], *other = &b->shards[s];
        if (one->nnodes != other->nnodes || strcmp(one->name, other->name) != 0 ||
            memcmp(one->nodes, other->nodes, sizeof *one->nodes * (size_t)one->nnodes) != 0)
            return false;
    }
    return true;
}

bool session_follow(struct client *client)
{
    struct topology *newest = client->worker->topology;
    bool is_free = !client->tx && !client->nparticipants;
    const struct database *database = topology_database(newest, client->database_name);
    if (!database && is_free)
        client_fatal(client, "57P01", "the database has left pgshunt's configuration", NULL);
    if (!database || (!is_free && !same_places(client->database, database)))
        return false;
    session_saw_anything(
        client); /* shards may have other numbers now, other nodes, and other rows */
    topology_ref(newest);
    topology_unref(client->topology);
    client->topology = newest;
    client->database = database;
    if (is_free)
        client->pool_mode = (uint8_t)client->account->settings.mode;
    client->schema_version = 0;
    return true;
}

void session_follow_in_batch(struct client *client)
{
    bool unbegun = !client->tx || client->tx->state == TX_DEFERRED;
    if (unbegun && !client->nparticipants && !client->scatter &&
        topology_database(client->worker->topology, client->database_name))
        session_follow(client);
}

/* Between transactions a client moves on to the newest configuration; also where one was begun that no
 * server knows of. */
static void follow_reload(struct client *client)
{
    bool unbegun = client->tx && client->tx->state == TX_DEFERRED && !client->nparticipants;
    if (client->topology != client->worker->topology && (!client->tx || unbegun))
        session_follow(client);
}

void session_follow_schema(struct client *client)
{
    uint64_t version = topology_schema_version(client->database);
    if (version == client->schema_version)
        return;
    schema_unref(client->schema);
    client->schema = topology_schema(client->database);
    client->schema_version = version;
}

void session_begin_request(struct client *client)
{
    struct request *request = &client->request;
    follow_reload(client);
    if (client->state == CLIENT_CLOSED || client->terminate)
        return;
    session_follow_schema(client);
    client->state = CLIENT_BUSY;
    request->in_block = client->tx != NULL;
    request->arena = worker_arena_take(client->worker);
    request->started_at = worker_now(client->worker);
}

void session_drop_request(struct client *client)
{
    struct request *request = &client->request;
    if (request->lookups)
        lookup_drop(client);
    if (request->draw)
        draw_drop(client);
    if (request->shape)
        shape_give(client->worker->shapes, request->shape);
    if (request->arena)
        worker_arena_give(client->worker, request->arena);
    buffer_release(&request->explain);
    mem_clear(request, sizeof *request);
}

void session_release_servers(struct client *client)
{
    if (client->tx)
        return;
    for (int i = client->nparticipants - 1; i >= 0; i--) {
        struct server *server = client->participants[i];
        if (server->copy_rest) /* copied_message() will */
            continue;
        server->kept |= client_keeps_servers(client);
        if (server->doubtful_pins && !server->expect_count && !server->kept)
            pins_probe(client, server);
        if (server->expect_count || server->pinned || server->kept)
            continue;
        client_detach(client, server);
        pool_checkin(server);
    }
}

void session_count_request(struct client *client)
{
    struct worker_stats *stats = client->stats;
    client->idle_since = worker_now(client->worker);
    uint64_t took = (uint64_t)(client->idle_since - client->request.started_at);
    stats->queries++;
    stats->query_us += took;
    if (!client->tx) {
        stats->transactions++;
        stats->xact_us += took;
    }
}

void session_end_request(struct client *client)
{
    struct request *request = &client->request;
    session_count_request(client);
    worker_buffer_give(client->worker, &request->again);
    guc_pending_free(&request->settings);
    session_drop_request(client);
    client->state = CLIENT_IDLE;
    if (client->pins_told)
        pins_notice(client);
    if (client->listener && !client->tx)
        listen_flush(client);
    session_release_servers(client);
    if (client->state == CLIENT_IDLE && !client->processing)
        client_continue(client);
}

char session_status(const struct client *client)
{
    if (!client->tx)
        return 'I';
    return client->tx->state == TX_FAILED ? 'E' : 'T';
}

void session_ready(struct client *client)
{
    struct buffer out = {0};
    if (series_goes_on(client))
        return;
    if (client->listener && listen_owes(client)) {
        listen_hold(client);
        return;
    }
    if (client->listener)
        listen_put_queue(client, &out);
    wire_put_ready(&out, session_status(client));
    client_send_buffer(client, &out);
    session_end_request(client);
}

void session_refuse(struct client *client, const struct pg_error *error)
{
    client->stats->refused++;
    if (extended_in_batch(client)) {
        extended_refuse(client, error);
        return;
    }
    if (client->tx)
        client->tx->state = TX_FAILED;
    series_failed(client);
    client_error(client, error);
    session_ready(client);
}

void session_repeat(struct client *client, const struct buffer *again, int attempts,
                    struct node *avoid)
{
    struct request *request = &client->request;
    if (avoid)
        log_event(LOG_DEBUG, "read repeated on another node", LOG_I("client", client->id),
                  LOG_S("failed", avoid->host), LOG_I("port", avoid->port));
    bool on_primary = request->on_primary;
    extended_reset(client);
    session_drop_request(client);
    *request = (struct request){.attempts = attempts, .avoid = avoid, .on_primary = on_primary};
    client->state = CLIENT_IDLE;
    if (avoid)
        session_release_servers(client);
    /* The request goes in front of what has come behind it. */
    struct buffer rest = client->in;
    client->in = (struct buffer){0};
    buffer_append(&client->in, buffer_head(again), buffer_length(again));
    buffer_append(&client->in, buffer_head(&rest), buffer_length(&rest));
    buffer_release(&rest);
    client_continue(client);
}

/* The server has rolled back what of it there was. A client that asks for no description counts on one it
 * had before: it must hear of the change. */
bool session_may_repeat(const struct client *client, const struct prepared *prepared)
{
    const struct request *request = &client->request;
    return !client->tx && !client->scatter && client->state == CLIENT_BUSY && !request->forwarded &&
           !request->incomplete && request->attempts < 3 &&
           (request->shape || buffer_length(&request->again)) &&
           (!extended_in_batch(client) || extended_may_repeat(client, prepared));
}

bool session_may_leave_servers(const struct client *client)
{
    for (int i = 0; i < client->nparticipants; i++)
        if (client->participants[i]->pinned)
            return false;
    return !client_keeps_servers(client);
}

bool session_may_begin_again(const struct client *client)
{
    const struct transaction *tx = client->tx;
    return !tx->ran && !tx->cursors && !tx->went_back && tx->state != TX_FAILED &&
           !client->request.series && session_may_leave_servers(client) &&
           (!extended_in_batch(client) || extended_may_begin_again(client));
}

/* The second: begun among the statements of the Query itself. */
bool session_may_repeat_block(const struct client *client)
{
    const struct request *request = &client->request;
    bool own = !request->in_block && client->tx->in_query && session_may_leave_servers(client);
    return (request->begins || own) && client->state == CLIENT_BUSY && !request->forwarded &&
           !request->incomplete && request->attempts < 3 &&
           (request->shape || buffer_length(&request->again)) &&
           (!extended_in_batch(client) || extended_may_repeat(client, NULL));
}

static void leave_servers(struct client *client, const char *reason)
{
    while (client->nparticipants) {
        struct server *server = client->participants[client->nparticipants - 1];
        if (server->begun || server->expect_count || server->pinned || server->skip ||
            server->copy_rest) {
            server_drop(server, reason);
        } else {
            client_detach(client, server);
            pool_checkin(server);
        }
    }
}

/* Connections less are a small price: the servers roll back, whatever there was. */
void session_begin_again(struct client *client)
{
    if (extended_in_batch(client))
        extended_leave_server(client);
    leave_servers(client, "its transaction begins again under a newer map");
    guc_pending_free(&client->request.settings);
    if (client->request.in_block)
        transaction_go_back(client);
    else
        transaction_end(client, false);
}

void session_ask_again(struct client *client)
{
    struct buffer again = client->request.again;
    client->request.again = (struct buffer){0};
    simple_again(client, &again);
    client->stats->retries++;
    session_repeat(client, &again, client->request.attempts + 1, client->request.avoid);
    buffer_release(&again);
}

static void describe_loss(const struct server *server, const char *reason, struct arena *arena,
                          struct pg_error *error)
{
    const struct node *node = server->pool->node;
    *error = (struct pg_error){
        .sqlstate = server->fatal_sqlstate[0] ? server->fatal_sqlstate : "08006",
        .message = arena_printf(arena, "lost the connection to server %s:%d (database \"%s\"): %s",
                                node->host, node->port, node->dbname, reason),
        .hint = "The statement may or may not have been carried out; pgshunt did not repeat it. "
                "Check, then run the transaction again."};
}

/* A COMMIT or ROLLBACK was under way: whatever became of it, the transaction is over. */
static bool was_ending(struct server *server)
{
    const struct expect *head = server_awaits(server);
    if (!head || !head->list || head->done >= head->list->count)
        return false;
    enum statement_kind kind = head->list->items[head->done]->kind;
    return kind == STMT_COMMIT || kind == STMT_ROLLBACK || kind == STMT_PREPARE_TRANSACTION;
}

/* The transaction cannot go on: what is left of it is rolled back where it still lives. */
static void give_up_transaction(struct client *client, bool over)
{
    session_saw_anything(
        client); /* what was written, if it was, must be seen; and what was shown */
    leave_servers(client, "its transaction lost another server");
    if (client->tx && over)
        transaction_end(client, false);
    else if (client->tx)
        client->tx->state = TX_FAILED;
}

void session_roll_back(struct client *client)
{
    give_up_transaction(client, false);
}

void session_lost_server(struct client *client, struct server *server, const char *reason)
{
    bool midway = server->skip && server->skip_forward;
    bool own = server->pinned || client_keeps_servers(client); /* session state lived there */
    /* Its batch may wait for what its next message is about; who waits to ask once more does not mind. */
    bool in_batch = extended_is_on(client, server) && !client->request.repeat;
    bool mattered = server->begun || own || in_batch || client->state == CLIENT_BUSY;
    if (midway) {
        /* Half a message has gone out: the stream cannot be mended. */
        client_close(client, "its server was lost in the middle of a message");
        return;
    }
    if (client->scatter) {
        scatter_lost(client, server, reason);
        return;
    }
    if (!mattered)
        return;
    client_stop_waiting(client); /* for another server of the same transaction, or news */
    struct arena *arena = worker_arena_take(client->worker);
    struct pg_error error;
    describe_loss(server, reason, arena, &error);
    bool idle = client->state == CLIENT_IDLE;
    if (idle || own) {
        /* Nothing was asked: the session state that lived there is gone, so the session ends, as it
         * would with Postgres itself. */
        client_fatal(client, error.sqlstate, error.message, "Connect again.");
    } else {
        give_up_transaction(client, was_ending(server));
        session_fail(client, &error);
    }
    worker_arena_give(client->worker, arena);
}

void session_fail(struct client *client, const struct pg_error *error)
{
    if (extended_in_batch(client)) {
        extended_fail(client, error);
        return;
    }
    series_failed(client);
    client_error(client, error);
    session_ready(client);
}

/* ---- input ---- */

static bool is_extended(char type)
{
    switch (type) {
    case 'P':
    case 'B':
    case 'D':
    case 'E':
    case 'C':
    case 'H':
    case 'S':
        return true;
    default:
        return false;
    }
}

/* Whom the message at hand is for: also after the COPY has failed there, or it would wait for the rest of
 * it and take what comes next for that. */
static struct server *copying_server(const struct client *client)
{
    for (int i = 0; i < client->nparticipants; i++)
        if (client->copy_left ? client->participants[i]->copy_rest
                              : client->participants[i]->copy_in)
            return client->participants[i];
    return NULL;
}

static void copied_message(struct client *client, struct server *server)
{
    server->copy_rest = false;
    if (client->copy_ends)
        server->copy_in = false;
    if (client->state == CLIENT_IDLE) /* the COPY had failed in the middle of it */
        session_release_servers(client);
}

void session_copy_refuse(struct client *client, char type)
{
    char message[80];
    snprintf(message, sizeof message, "unexpected message type 0x%02X during COPY from stdin",
             (unsigned char)type);
    client_error(client, &(struct pg_error){.sqlstate = "08P01", .message = message});
    client_fatal(client, "08P01",
                 "terminating connection because protocol synchronization was lost", NULL);
}

/* COPY FROM STDIN: CopyData, CopyDone, CopyFail go through, data by count. Bytes used. */
static size_t copy_input(struct client *client, struct server *server, const char *data, size_t len)
{
    if (client->copy_left) {
        size_t n = len < client->copy_left ? len : client->copy_left;
        client->copy_left -= n;
        conn_send(&server->conn, data, n);
        if (!client->copy_left)
            copied_message(client, server);
        return n;
    }
    uint32_t length = wire_get32(data + 1);
    char type = data[0];
    if (type == 'd' || type == 'c' || type == 'f') {
        client->copy_left = 1 + (size_t)length;
        client->copy_ends = type != 'd';
        server->copy_rest = true;
        return copy_input(client, server, data, len);
    }
    if (len < 1 + (size_t)length)
        return 0;
    if (type != 'H' && type != 'S')
        session_copy_refuse(client, type);
    /* Postgres ignores Flush and Sync while it copies in; so do we. */
    return 1 + (size_t)length;
}

static void refuse_query(struct client *client, const char *body, size_t len)
{
    bool ends = len && memchr(body, '\0', len) != NULL;
    struct pg_error error = {.sqlstate = "08P01",
                             .message =
                                 ends ? "invalid message format" : "invalid string in message"};
    if (client->console) {
        client_fatal(client, error.sqlstate, error.message, NULL);
        return;
    }
    session_begin_request(client);
    if (client->state == CLIENT_BUSY)
        session_refuse(client, &error);
}

static void forward_query(struct client *client, const char *body, size_t len)
{
    if (!len || body[len - 1] != '\0' || memchr(body, '\0', len) != body + len - 1) {
        refuse_query(client, body, len);
        return;
    }
    if (client->console) {
        client->state = CLIENT_BUSY;
        console_query(client, body);
        return;
    }
    simple_query(client, body, len);
}

void console_done(struct client *client)
{
    client->state = CLIENT_IDLE;
    if (!client->processing)
        client_continue(client);
}

static void refuse_type(struct client *client, char type)
{
    char message[64];
    snprintf(message, sizeof message, "invalid frontend message type %d", (unsigned char)type);
    client_fatal(client, "08P01", message, NULL);
}

static void handle_message(struct client *client, char type, const char *body, size_t len)
{
    switch (type) {
    case 'Q':
        forward_query(client, body, len);
        break;
    case 'F':
        function_call(client, body - WIRE_HEADER, WIRE_HEADER + len);
        break;
    case 'X':
        client_close(client, "the client ended the session");
        break;
    default:
        if (client->console && is_extended(type))
            console_extended(client, type, body, len);
        else
            refuse_type(client, type);
        break;
    }
}

/* What is no part of the extended protocol, in the middle of a batch. False: try again later. */
static bool between(struct client *client, char type)
{
    switch (type) {
    case 'X':
        client_close(client, "the client ended the session");
        return false;
    case 'Q':
    case 'F':
        return extended_takes_input(client) && extended_end_for_query(client);
    default:
        if (extended_answer_all(client))
            refuse_type(client, type);
        return false;
    }
}

/* limits.max_message is never less than what is usual. */
bool session_refuse_unusual_length(struct client *client, char type, uint32_t length)
{
    int64_t most = client->worker->topology->config->max_message;
    if (length < 4 || (type && strchr("CDEHSX", type)) || length > WIRE_MESSAGE_MAX) {
        client_fatal(client, "08P01", "invalid message length", NULL);
        return true;
    }
    if (type != 'd' && type != 'f' && length > most) {
        client_fatal(client, "54000", "message larger than limits.max_message",
                     "Raise limits.max_message, or send large values with COPY.");
        return true;
    }
    return false;
}

static size_t skip_copy_data(struct client *client, size_t len)
{
    size_t n = len < client->copy_left ? len : client->copy_left;
    client->copy_left -= n;
    return n;
}

/* Uses one thing off the input. 0: nothing can be used now. */
static size_t use_input(struct client *client, const char *data, size_t len)
{
    if (client->scatter && scatter_takes_copy(client))
        return scatter_copy_input(client, data, len);
    struct server *copying = copying_server(client);
    if (client->copy_left)
        return copying ? copy_input(client, copying, data, len) : skip_copy_data(client, len);
    if (len < WIRE_HEADER)
        return 0;
    uint32_t length = wire_get32(data + 1);
    if (session_refuse_length(client, data[0], length))
        return 0;
    if (copying)
        return copy_input(client, copying, data, len);
    if (data[0] == 'd' || data[0] == 'c' || data[0] == 'f') {
        /* Sent right behind the COPY that has not been answered yet: to wait. Else leftovers of one
         * that failed: to be ignored. */
        if (client->state == CLIENT_BUSY &&
            (!extended_takes_input(client) || extended_push(client)))
            return 0;
        client->copy_left = 1 + (size_t)length;
        return skip_copy_data(client, len);
    }
    if (is_extended(data[0]) && !client->console)
        return extended_input(client, data, len);
    if (len < 1 + (size_t)length)
        return 0;
    if (client->state == CLIENT_BUSY && extended_takes_input(client)) {
        if (extended_skips(client) && (data[0] == 'Q' || data[0] == 'F'))
            return 1 + (size_t)length;
        if (!between(client, data[0]))
            return 0;
    }
    if (client->state != CLIENT_IDLE || extended_in_batch(client))
        return 0;
    handle_message(client, data[0], data + WIRE_HEADER, length - 4);
    return 1 + (size_t)length;
}

/* Not while it leaves its answers unread: what it asks for may be much longer than how it asks. */
static bool can_use(const struct client *client)
{
    return (client->state == CLIENT_IDLE || client->state == CLIENT_BUSY) && !client->terminate &&
           conn_queued(&client->conn) <= OUTPUT_MAX;
}

static size_t use_all(struct client *client, const char *data, size_t len)
{
    size_t used = 0;
    client->processing = true;
    while (used < len && can_use(client)) {
        size_t n = use_input(client, data + used, len - used);
        if (!n)
            break;
        used += n;
    }
    client->processing = false;
    return used;
}

void session_resume(struct client *client)
{
    if (client->processing || !buffer_length(&client->in))
        return;
    struct buffer in = client->in;
    client->in = (struct buffer){0};
    size_t used = use_all(client, buffer_head(&in), buffer_length(&in));
    buffer_consume(&in, used);
    if (client->state == CLIENT_CLOSED || !buffer_length(&in)) {
        buffer_release(&in);
        return;
    }
    client->in = in;
}

void session_input(struct client *client, const char *data, size_t len)
{
    if (buffer_length(&client->in)) {
        buffer_append(&client->in, data, len);
        session_resume(client);
        return;
    }
    size_t used = use_all(client, data, len);
    if (used < len && client->state != CLIENT_CLOSED)
        buffer_append(&client->in, data + used, len - used);
}
