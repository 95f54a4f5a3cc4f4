/* extended.c: a batch from its first message to its last answer. */
#include "proxy/extended.h"

#include <stdlib.h>
#include <string.h>

#include "pgshunt/arena.h"
#include "pgshunt/log.h"
#include "pgshunt/wire.h"
#include "proxy/cursor.h"
#include "proxy/epoch.h"
#include "proxy/pool.h"

#define OUT_MAX EXTENDED_KEPT_MAX /* a batch longer than this leaves in parts */
#define ARENA_MAX 131072          /* of a long batch */

struct extended *extended_of(struct client *client)
{
    if (!client->extended) {
        client->extended = mem_alloc(sizeof *client->extended);
        client->extended->names.table = &client->worker->prepared;
    }
    return client->extended;
}

bool extended_in_batch(const struct client *client)
{
    return client->extended && client->extended->state != BATCH_CLOSED;
}

bool extended_is_on(const struct client *client, const struct server *server)
{
    return extended_in_batch(client) && client->extended->server == server;
}

static bool defines_in_batch(const struct extended *ext, const struct prepared *prepared)
{
    for (int i = 0; i < ext->ndefined; i++)
        if (names_statement(&ext->names, ext->defined[i]) == prepared)
            return true;
    return false;
}

/* SETTLING: the transaction of a pipeline is about to be ended, of which the Sync has come and not been used. */
bool extended_may_repeat(const struct client *client, const struct prepared *prepared)
{
    const struct extended *ext = client->extended;
    return (ext->state == BATCH_OPEN || ext->state == BATCH_SYNCING ||
            (ext->state == BATCH_SETTLING && client->tx && client->tx->implicit)) &&
           !ext->ahead && (!prepared || ext->described || defines_in_batch(ext, prepared));
}

/* Portals that the block had before would be closed. */
bool extended_may_begin_again(const struct client *client)
{
    const struct extended *ext = client->extended;
    const struct request *request = &client->request;
    return (ext->state == BATCH_OPEN || ext->state == BATCH_SCATTER) && !ext->ahead &&
           !request->forwarded && !request->incomplete &&
           (!request->in_block || names_all_done(&ext->names));
}

void extended_leave_server(struct client *client)
{
    struct extended *ext = client->extended;
    ext->server = NULL;
    buffer_release(&ext->out);
    ext->state = BATCH_SETTLING;
}

bool extended_takes_input(const struct client *client)
{
    return client->extended &&
           (client->extended->state == BATCH_OPEN || client->extended->state == BATCH_FAILED);
}

/* ---- Close, Flush, Sync ---- */

/* Parses that nothing followed need a server's judgement, unless one has judged the text before: so
 * that preparing does not wait for a pool that the same application has exhausted. */
static bool judge_held(struct client *client)
{
    if (!client->extended->nheld)
        return true;
    if (!client->extended->server && batch_held_accepted(client)) {
        batch_accept_held(client);
        return true;
    }
    struct extended *ext = client->extended;
    ext->judging = true;
    enum reach reached = batch_reach_for_description(client, ext->held[0].prepared);
    ext->judging = reached == REACH_WAIT;
    return reached != REACH_WAIT;
}

/* Servers keep the statement: others may use it. An error ahead of the Close brings the name back. */
static void close_statement(struct client *client, const char *name)
{
    struct extended *ext = client->extended;
    struct prepared *prepared = names_statement(&ext->names, name);
    bool awaited = ext->server && ext->server->expect_count;
    if (prepared)
        prepared_ref(prepared);
    ext->alone = true;
    if (prepared)
        batch_note_forgotten(client, name, prepared);
    names_undefine(&ext->names, name);
    batch_answer_simple(client, '3');
    if (!prepared)
        return;
    if (awaited) {
        struct expect *answer = server_last_expected(ext->server);
        answer->defines = name_keep(name);
        answer->restores = true;
        answer->prepared = prepared;
    } else {
        prepared_unref(ext->names.table, prepared);
    }
}

/* A result of several shards that servers hold portals for. */
static struct cursor *cursor_named(const struct client *client, const char *name)
{
    bool gone;
    const struct portal *portal = names_portal(&client->extended->names, name);
    bool failed = client->tx && client->tx->state == TX_FAILED; /* they go with the transaction */
    if (failed)
        return NULL;
    return portal ? cursor_of_portal(client, portal, &gone) : cursor_find(client, name);
}

static bool close_message(struct client *client, const struct incoming *message)
{
    struct extended *ext = client->extended;
    struct wire_reader reader = wire_reader(message->body, message->len);
    int kind = wire_read8(&reader);
    const char *name = wire_read_cstring(&reader);
    if (reader.bad) {
        batch_malformed(client);
        return true;
    }
    if (kind != 'S' && kind != 'P') {
        batch_refuse_subtype(client, "CLOSE", kind);
        return true;
    }
    if (!judge_held(client))
        return false;
    if (ext->state == BATCH_FAILED)
        return true;
    if (kind == 'S') {
        close_statement(client, name);
        return true;
    }
    struct cursor *cursor = cursor_named(client, name);
    if (cursor) {
        if (ext->server) {
            batch_settle(client);
            return false;
        }
        names_close(&ext->names, name);
        cursor_close(client, cursor);
        return true;
    }
    struct portal *portal = batch_portal(client, name);
    if (!portal || (portal->kind != PORTAL_SERVER && portal->kind != PORTAL_CURSOR) ||
        !client_participant(client, portal->shard)) {
        names_close(&ext->names, name);
        batch_answer_simple(client, '3');
        return true;
    }
    enum reach reached = batch_reach(client, portal->shard, NODE_CLASS_REPLICA);
    if (reached != REACH_READY)
        return reached == REACH_FAILED;
    names_close(&ext->names, name);
    wire_put_close(&ext->out, 'P', name);
    server_expect(ext->server, EXPECT_CLOSE);
    return true;
}

static void push(struct extended *ext)
{
    wire_put_simple(&ext->out, 'H');
    batch_flush(ext);
    ext->pushed = true;
}

static bool flush_message(struct client *client)
{
    struct extended *ext = client->extended;
    if (!judge_held(client))
        return false;
    if (ext->server && ext->state == BATCH_OPEN) {
        batch_emit_heads(client);
        push(ext);
    }
    batch_send_early(client);
    return true;
}

static void end_batch(struct client *client)
{
    struct extended *ext = client->extended;
    if (!client->tx)
        names_close_all(&ext->names);
    batch_free(ext, false);
}

/* The transaction of a pipeline ends at its Sync: on all servers it has come to. False: later. */
static bool end_implicit(struct client *client)
{
    struct extended *ext = client->extended;
    struct request *request = &client->request;
    bool failed = ext->state == BATCH_FAILED || ext->failed;
    if (ext->server) {
        batch_settle(client);
        return false;
    }
    if (failed)
        client->tx->state = TX_FAILED;
    statement_plan_end(client, !failed, request->arena, &request->plan);
    if (!request->plan.nqueries) {
        transaction_end(client, false);
        return true;
    }
    struct scatter_ask ask = {.quiet = true, .silent = true};
    ext->state = BATCH_SCATTER;
    scatter_start(client, &ask);
    return false;
}

static bool sync_message(struct client *client)
{
    struct extended *ext = client->extended;
    if (client->tx && client->tx->implicit && !end_implicit(client))
        return false;
    if (ext->state == BATCH_OPEN && !judge_held(client))
        return false;
    if (ext->server) {
        wire_put_simple(&ext->out, 'S');
        server_expect(ext->server, EXPECT_SYNC);
        batch_flush(ext);
        ext->state = BATCH_SYNCING;
        return true;
    }
    batch_send_early(client);
    end_batch(client);
    session_ready(client);
    return true;
}

/* ---- the batch ---- */

static bool dispatch(struct client *client, const struct incoming *message)
{
    struct extended *ext = client->extended;
    if (ext->state == BATCH_FAILED && message->type != 'S')
        return true;
    switch (message->type) {
    case 'P':
        return extended_parse(client, message);
    case 'B':
        return extended_bind(client, message);
    case 'D':
        return extended_describe(client, message);
    case 'E':
        return extended_execute(client, message);
    case 'C':
        return close_message(client, message);
    case 'H':
        return flush_message(client);
    case 'S':
        return sync_message(client);
    default:
        batch_malformed(client);
        return true;
    }
}

static bool handle(struct client *client, const struct incoming *message)
{
    struct extended *ext = client->extended;
    bool used = dispatch(client, message);
    if (client->state == CLIENT_CLOSED)
        return used;
    if (!ext->doubts)
        return used && !ext->stalled;
    ext->doubts = false;
    return judge_held(client) && dispatch(client, message);
}

static void open_batch(struct client *client)
{
    session_begin_request(client);
    if (client->state != CLIENT_BUSY)
        return;
    client->extended->state = BATCH_OPEN;
    worker_buffer_take(client->worker, &client->extended->out);
    worker_buffer_take(client->worker, &client->request.again);
}

/* In a block those of a batch that it may begin again with, where a guard may refuse that. */
static bool may_be_repeated(const struct client *client)
{
    const struct transaction *tx = client->tx;
    return !tx || client->request.begins || (!tx->ran && epoch_of_map(client->database->map) > 0);
}

/* The bytes of a batch that may have to be repeated elsewhere are kept. */
static void keep_for_retry(struct client *client, const char *data, size_t len)
{
    struct request *request = &client->request;
    if (may_be_repeated(client) && request->arena && !request->incomplete &&
        buffer_length(&request->again) + len < OUT_MAX) {
        buffer_append(&request->again, data, len);
    } else {
        request->incomplete = true;
        request->retriable = false;
    }
}

/* A long pipeline goes on when some of it is answered: what is kept of it must not grow with it. The
 * Parses that no server has seen yet need one for that. */
static bool owes_much(struct client *client)
{
    struct extended *ext = client->extended;
    if (ext->nheld > EXPECTS_MAX && !judge_held(client))
        return true;
    if (!ext->server || ext->server->expect_count <= EXPECTS_MAX) {
        ext->pressed = false;
        return false;
    }
    if (!ext->pressed) { /* a server keeps answers until it is asked for them */
        push(ext);
        ext->pressed = true;
    }
    return true;
}

/* One message. Bytes used; 0: nothing can be used now. */
static size_t take_message(struct client *client, const char *data, size_t len)
{
    struct extended *ext = extended_of(client);
    size_t size = 1 + (size_t)wire_get32(data + 1);
    if (len < size)
        return 0;
    if (ext->state == BATCH_CLOSED) {
        if (client->state != CLIENT_IDLE)
            return 0;
        open_batch(client);
    } else if (ext->state == BATCH_SYNCING && !pipeline_begin(client, data, len)) {
        return 0;
    }
    if (!extended_takes_input(client) || client->state != CLIENT_BUSY || ext->stalled ||
        owes_much(client))
        return 0;
    struct incoming message = {data[0], data + WIRE_HEADER, size - WIRE_HEADER, data + size,
                               len - size};
    if (client->request.arena->total > ARENA_MAX) {
        arena_reset(client->request.arena); /* nothing in it outlives its message */
        client->request.plan = (struct plan){0};
    }
    size_t kept = buffer_length(&client->request.again);
    keep_for_retry(client, data, size);
    bool used = handle(client, &message);
    if (!used && client->state != CLIENT_CLOSED && client->request.again.end > kept)
        client->request.again.end = client->request.again.start + kept; /* it will come again */
    if (client->extended && buffer_length(&ext->out) > OUT_MAX)
        batch_flush(ext);
    return used ? size : 0;
}

/* The batch is open and what comes next is one more message of it: what session.c asks around a message has
 * not changed, but for this. */
static bool goes_on(const struct client *client, const char *data, size_t len)
{
    if (client->state != CLIENT_BUSY || client->extended->state != BATCH_OPEN ||
        client->terminate || len < WIRE_HEADER || conn_queued(&client->conn))
        return false;
    uint32_t length = wire_get32(data + 1);
    switch (data[0]) {
    case 'P':
    case 'B':
    case 'D':
    case 'E':
    case 'S':
        return length >= 4 && length <= WIRE_SMALL_MESSAGE_MAX;
    default:
        return false;
    }
}

size_t extended_input(struct client *client, const char *data, size_t len)
{
    size_t used = take_message(client, data, len), more = used;
    while (more && goes_on(client, data + used, len - used)) {
        more = take_message(client, data + used, len - used);
        used += more;
    }
    return used;
}

void extended_continue(struct client *client)
{
    session_resume(client);
}

/* Postgres makes a Query part of the pipeline's transaction and ends both. Here what came before it is
 * ended first, which is the same as long as that has written nothing. False: later. */
bool extended_end_for_query(struct client *client)
{
    struct extended *ext = client->extended;
    if (batch_leaves_writes(client) ||
        (client->tx && client->tx->implicit && (client->tx->wrote || ext->executed_write))) {
        client_fatal(client, "0A000", "a Query message in the middle of a pipeline that writes",
                     "Send a Sync ahead of it.");
        return false;
    }
    if (client->tx && client->tx->implicit && !end_implicit(client))
        return false;
    if (!judge_held(client) || ext->state != BATCH_OPEN)
        return false;
    if (ext->server) {
        batch_settle(client);
        return false;
    }
    batch_send_early(client);
    end_batch(client);
    session_end_request(client);
    return true;
}

bool extended_skips(const struct client *client)
{
    return client->extended && client->extended->state == BATCH_FAILED;
}

bool extended_push(struct client *client)
{
    struct extended *ext = client->extended;
    if (!ext || !ext->server || ext->state != BATCH_OPEN)
        return false;
    batch_emit_heads(client);
    ext->pushed = true;
    if (buffer_length(&ext->out))
        push(ext);
    return ext->server->expect_count > 0;
}

bool extended_answer_all(struct client *client)
{
    if (!judge_held(client) || extended_push(client))
        return false;
    if (client->extended->server && client->extended->server->expect_count)
        return false;
    batch_send_early(client);
    return true;
}

void extended_copy_in(struct client *client, struct server *server)
{
    struct extended *ext = client->extended;
    while (server->expect_count > 1)
        server_expect_unsend(server);
    if (ext->state == BATCH_SYNCING)
        ext->state = BATCH_OPEN;
}

/* After settling: the server is free to stay (in a transaction) or to go. */
static void settled(struct client *client)
{
    struct extended *ext = client->extended;
    struct server *server = ext->server;
    ext->server = NULL;
    ext->executed_write = false;
    ext->state = ext->failed ? BATCH_FAILED : BATCH_OPEN;
    if (!client->tx && !server->pinned && !client_keeps_servers(client)) {
        client_detach(client, server);
        pool_checkin(server);
    }
    client->request.incomplete = true;
    client->request.retriable = false;
    if (!client->processing)
        client_continue(client);
}

void extended_synced(struct client *client)
{
    if (client->extended->state == BATCH_SETTLING) {
        settled(client);
        return;
    }
    if (client->extended->state != BATCH_SYNCING)
        return;
    end_batch(client);
    if (client->listener && listen_owes(client))
        listen_hold(client);
    else
        session_end_request(client);
}

void extended_scatter_done(struct client *client, bool failed)
{
    client->extended->state = failed ? BATCH_FAILED : BATCH_OPEN;
    if (!client->processing)
        client_continue(client);
}
