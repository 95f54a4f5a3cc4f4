/*
 * relay.c: a server's answers on their way to the client.
 *
 * Bytes are walked message by message and forwarded in runs, straight out of the receive buffer; what
 * the client did not ask for (answers to settings and BEGIN sent ahead, to Parses of our own) is cut
 * out. Rows are passed on by count, however long; other messages are looked at whole. The head of
 * server->expects says what an answer belongs to.
 */
#include "proxy/relay_internal.h"

#include <stdio.h>
#include <string.h>

#include "pgshunt/log.h"
#include "pgshunt/wire.h"
#include "proxy/bucket_hold.h"
#include "proxy/cancel.h"
#include "proxy/client_login.h"
#include "proxy/epoch.h"
#include "proxy/extended.h"
#include "proxy/pins.h"
#include "proxy/pool.h"
#include "proxy/reported.h"
#include "proxy/series.h"

#define SENT_AT_ONCE 8192 /* by a server, unless it has come to an end or an error */
/* Nothing but rows and COPY data may be longer. */
#define CONTROL_MESSAGE_MAX (64 * 1024 * 1024)
#define PARAMETER_MAX 65536 /* of a ParameterStatus */
/* Output queued for a client that reads slowly before its server is read no more. */
#define OUTPUT_AHEAD_MAX 65536

/* ---- output ---- */

static void send_run(struct walk *walk, const char *end)
{
    if (!walk->client || walk->run == end)
        return;
    walk->client->request.forwarded |= end != walk->passed; /* that is the former batch's */
    client_send(walk->client, walk->run, (size_t)(end - walk->run));
}

/* Puts bytes of our own behind what came before `at`. */
void relay_insert(struct walk *walk, const char *at, const struct buffer *bytes)
{
    if (!walk->client)
        return;
    if (!walk->client->conn.corked)
        conn_cork(&walk->client->conn);
    send_run(walk, at);
    walk->run = at;
    walk->client->request.forwarded = true;
    client_send(walk->client, buffer_head(bytes), buffer_length(bytes));
}

void relay_cut_out(struct walk *walk, const char *from, const char *to)
{
    if (walk->client && walk->run != from && !walk->client->conn.corked)
        conn_cork(&walk->client->conn);
    send_run(walk, from);
    walk->run = to;
}

void relay_finish_output(struct walk *walk, const char *end)
{
    struct client *client = walk->client;
    send_run(walk, end);
    walk->run = end;
    if (!client)
        return;
    if (client->conn.corked)
        conn_uncork(&client->conn);
    if (conn_queued(&client->conn) > OUTPUT_AHEAD_MAX)
        conn_set_reading(&walk->server->conn, false);
}

/* ---- the queue of expectations ---- */

void relay_insert_answers(struct walk *walk, const char *at)
{
    struct expect *head;
    if (walk->undecided)
        at = walk->undecided;
    walk->undecided = NULL;
    while ((head = server_expected(walk->server)) && head->kind == EXPECT_LOCAL) {
        struct buffer said = {0};
        expect_take_answer(head, &said);
        relay_insert(walk, at, &said);
        buffer_release(&said);
        server_expect_pop(walk->server);
    }
}

enum verdict relay_lose(struct server *server, const char *reason)
{
    snprintf(server->fatal, sizeof server->fatal, "%s", reason);
    return LOST;
}

static enum verdict out_of_step(struct server *server, char type)
{
    log_event(LOG_ERROR, "unexpected message from a server", LOG_I("server", server->id),
              LOG_I("type", type), LOG_S("host", server->pool->node->host),
              LOG_I("port", server->pool->node->port));
    return relay_lose(server, "the server sent a message out of step with the protocol");
}

/* The server has it now. */
static void parsed(struct walk *walk, const struct expect *expect)
{
    struct prepared *prepared = expect->prepared;
    if (!prepared)
        return;
    prepared->accepted = walk->client ? batch_judge(walk->client) : 0;
    if (expect->unnamed)
        walk->server->unnamed = prepared->key;
    else
        marks_add(&walk->server->marks, prepared, walk->client ? batch_path(walk->client) : 0);
}

/* An answer that ends an expectation of this kind. */
static enum verdict completes(struct walk *walk, enum expect_kind kind, char type, const char *end)
{
    struct server *server = walk->server;
    struct expect *head = server_expected(server);
    if (!head || head->kind != kind)
        return out_of_step(server, type);
    enum verdict verdict = head->swallow ? DROP : FORWARD;
    if (kind == EXPECT_PARSE)
        parsed(walk, head);
    if (kind == EXPECT_CLOSE && head->more)
        marks_closed(&server->marks, &head->more->key);
    server_expect_pop(server);
    (void)end;
    return verdict;
}

static enum verdict parse_complete(struct walk *walk, const char *end)
{
    struct expect *head = server_expected(walk->server);
    if (walk->client && head && head->kind == EXPECT_PARSE)
        walk->client->stats->server_parses++;
    return completes(walk, EXPECT_PARSE, '1', end);
}

/* A statement's RowDescription as a portal's: with the formats of its Bind. */
static enum verdict description_of_portal(struct walk *walk, const char *message, const char *end)
{
    struct expect *head = server_expected(walk->server);
    const char *formats = expect_formats(head);
    int count = wire_get16(formats);
    struct wire_reader reader =
        wire_reader(message + WIRE_HEADER, (size_t)(end - message) - WIRE_HEADER);
    struct buffer out = {0};
    int columns = wire_read16(&reader);
    size_t begin = wire_begin(&out, 'T');
    wire_put16(&out, columns);
    for (int i = 0; i < columns && !reader.bad; i++) {
        wire_put_cstring(&out, wire_read_cstring(&reader));
        const char *origin_and_type = wire_read_bytes(&reader, 16);
        if (reader.bad)
            break;
        wire_put_bytes(&out, origin_and_type, 16);
        wire_read16(&reader);
        int at = count == 1 ? 0 : i;
        wire_put16(&out, at < count ? wire_get16(formats + 2 + 2 * (size_t)at) : 0);
    }
    wire_end(&out, begin);
    if (reader.bad) {
        buffer_release(&out);
        return out_of_step(walk->server, 'T');
    }
    relay_insert(walk, message, &out);
    buffer_release(&out);
    server_expect_pop(walk->server);
    return DROP;
}

static enum verdict description(struct walk *walk, char type, const char *message, const char *end)
{
    struct expect *head = server_expected(walk->server);
    if (!head)
        return out_of_step(walk->server, type);
    if (head->kind == EXPECT_DESCRIBE && expect_formats(head) && type == 'T')
        return description_of_portal(walk, message, end);
    if (head->kind == EXPECT_DESCRIBE)
        return completes(walk, EXPECT_DESCRIBE, type, end);
    if (head->kind != EXPECT_QUERY || type == 'n')
        return out_of_step(walk->server, type);
    return head->swallow ? DROP : FORWARD;
}

static const struct statement *next_statement(struct expect *head)
{
    if (!head->list || head->done >= head->list->count)
        return NULL;
    return head->list->items[head->done++];
}

/* Most tags begin with another letter: that costs no call. */
static void note_ending(struct server *server, const char *tag)
{
    if (tag[0] != 'C' && tag[0] != 'P' && tag[0] != 'R')
        return;
    if (strcmp(tag, "COMMIT") == 0 || strcmp(tag, "PREPARE TRANSACTION") == 0)
        server->committed = true;
    else if (strcmp(tag, "ROLLBACK") == 0)
        server->committed = false;
}

static enum verdict command_complete(struct walk *walk, const char *body, size_t len)
{
    struct server *server = walk->server;
    struct expect *head = server_expected(server);
    if (!head || (head->kind != EXPECT_QUERY && head->kind != EXPECT_EXECUTE) || !len ||
        body[len - 1] != '\0')
        return out_of_step(server, 'C');
    bool swallow = head->swallow;
    if (walk->client && walk->client->request.guess && !swallow && !wire_tag_rows(body))
        return relay_guess_failed(walk, body - WIRE_HEADER);
    if (head->probe)
        pins_probed(server, wire_tag_rows(body));
    if (head->prepares) {
        parsed(walk, head);
        if (head->kind == EXPECT_QUERY && head->defines && walk->client)
            extended_define(walk->client, head->defines, head->prepared);
    }
    if (!swallow && walk->client) {
        const struct statement *statement = next_statement(head);
        note_ending(server, body);
        if (statement)
            statement_completed(walk->client, server, statement, body, head->write);
    }
    server->copy_in = false;
    if (head->kind == EXPECT_EXECUTE)
        server_expect_pop(server);
    return swallow ? DROP : FORWARD;
}

static enum verdict no_command(struct walk *walk, char type)
{
    struct expect *head = server_expected(walk->server);
    if (!head || (head->kind != EXPECT_QUERY && head->kind != EXPECT_EXECUTE))
        return out_of_step(walk->server, type);
    bool swallow = head->swallow;
    if (type == 's' && walk->client && walk->client->tx)
        walk->client->tx->ran = true;
    next_statement(head);
    if (head->kind == EXPECT_EXECUTE)
        server_expect_pop(walk->server);
    return swallow ? DROP : FORWARD;
}

/* ---- ReadyForQuery ---- */

static void open_transaction(struct client *client, struct server *server)
{
    if (!client->tx) {
        transaction_begin(client, NULL);
        client->tx->settings = client->request.settings;
        client->request.settings = (struct guc_pending){0};
    }
    client->tx->in_query = false;
    server->begun = true;
}

/* What the server says of its transaction becomes what the client's is. */
static void follow_status(struct client *client, struct server *server, char status)
{
    if (client->tx && server->committed && status == 'T')
        transaction_chain(client, true);
    switch (status) {
    case 'I':
        if (client->tx)
            transaction_end(client, server->committed);
        else if (server->wrote)
            session_wrote(client, server);
        statement_settle(client, server, true);
        server->wrote = false;
        break;
    case 'T':
        open_transaction(client, server);
        client->tx->state = TX_OPEN;
        break;
    default:
        open_transaction(client, server);
        client->tx->state = TX_FAILED;
        break;
    }
    server->committed = false;
    session_saw(client, server);
}

/* A RESET has brought the server to its own defaults, and the client's are those of its startup packet,
 * set with its next statement: it hears of those alone. */
static bool is_between_settings(const struct client *client, const struct server *server)
{
    return client->startup && (client->tx ? client->tx->went_back : client->guc != server->guc);
}

/* Ahead of the client's ReadyForQuery, and of what follows settings of ours. */
static void tell_parameters(struct walk *walk, const char *message)
{
    struct buffer out = {0};
    struct client *client = walk->client;
    if (client->state == CLIENT_GREETING || client->scatter ||
        is_between_settings(client, walk->server) || !reported_tell(client, walk->server, &out))
        return;
    bool forwarded = client->request.forwarded; /* it is no part of the answer */
    bool nothing_before = walk->run == message;
    relay_insert(walk, message, &out);
    if (nothing_before) {
        client->request.forwarded = forwarded;
        walk->mark = conn_mark(&client->conn);
    }
    buffer_release(&out);
}

static void probed(struct walk *walk)
{
    struct server *server = walk->server;
    server->probing = false;
    if (walk->client && !server->pinned && walk->client->state == CLIENT_IDLE)
        walk->ready = true;
}

/* What comes ahead of a listening client's ReadyForQuery. True: that has to wait. */
static bool notified_first(struct walk *walk, const char *message)
{
    struct buffer out = {0};
    if (listen_owes(walk->client))
        return true;
    listen_put_queue(walk->client, &out);
    if (buffer_length(&out))
        relay_insert(walk, message, &out);
    buffer_release(&out);
    return false;
}

static enum verdict ready_for_query(struct walk *walk, const char *body, size_t len)
{
    struct server *server = walk->server;
    struct expect *head = server_expected(server);
    if (!head || len != 1 || !strchr("ITE", body[0]) ||
        (head->kind != EXPECT_QUERY && head->kind != EXPECT_SYNC))
        return out_of_step(server, 'Z');
    bool swallow = head->swallow, synced = head->kind == EXPECT_SYNC && !head->ahead,
         probe = head->probe;
    int kept = head->kept;
    server->tx_status = body[0];
    server->copy_in = false;
    server_expect_pop(server);
    if (probe)
        probed(walk);
    if (!walk->client || probe)
        return DROP;
    if (!swallow || synced || walk->client->request.repeat)
        follow_status(walk->client, server, body[0]);
    else
        reported_ours(server);
    tell_parameters(walk, body - WIRE_HEADER);
    if (synced && extended_passed(walk->client, (size_t)kept)) {
        walk->passed = body + len;
        walk->fresh = false; /* what it has collected is not all of the batch at hand */
        return FORWARD;
    }
    walk->ready |= !swallow || walk->client->state == CLIENT_GREETING || synced ||
                   walk->client->request.repeat;
    if (swallow || (walk->client->request.series && !synced))
        return DROP;
    return walk->client->listener && notified_first(walk, body - WIRE_HEADER) ? DROP : FORWARD;
}

/* ---- other messages ---- */

static enum verdict parameter_status(struct walk *walk, const char *body, size_t len)
{
    struct server *server = walk->server;
    struct expect *head = server_expected(server);
    struct wire_reader reader = wire_reader(body, len);
    const char *name = wire_read_cstring(&reader);
    const char *value = wire_read_cstring(&reader);
    if (reader.bad || len > PARAMETER_MAX)
        return out_of_step(server, 'S');
    reported_take(server, name, value, head != NULL);
    /* Told with the next ReadyForQuery, if it is news; between statements at once. */
    if (walk->client && !head)
        tell_parameters(walk, body - WIRE_HEADER);
    return DROP;
}

static enum verdict copy_in(struct walk *walk)
{
    struct expect *head = server_expected(walk->server);
    if (!head || head->swallow || (head->kind != EXPECT_QUERY && head->kind != EXPECT_EXECUTE))
        return out_of_step(walk->server, 'G');
    walk->server->copy_in = true;
    if (head->kind == EXPECT_EXECUTE && walk->client)
        extended_copy_in(walk->client, walk->server);
    return FORWARD;
}

static enum verdict rows(struct walk *walk, char type, const char *message)
{
    struct expect *head = server_expected(walk->server);
    if (!head || (head->kind != EXPECT_QUERY && head->kind != EXPECT_EXECUTE))
        return out_of_step(walk->server, type);
    if (head->swallow)
        return DROP;
    if (walk->client && buffer_length(&walk->client->request.explain)) {
        relay_insert(walk, message, &walk->client->request.explain);
        buffer_release(&walk->client->request.explain);
    }
    return FORWARD;
}

static enum verdict function_result(struct walk *walk)
{
    struct expect *head = server_expected(walk->server);
    if (!head || head->kind != EXPECT_QUERY)
        return out_of_step(walk->server, 'V');
    if (walk->client && !head->swallow)
        function_call_completed(walk->client, walk->server);
    return head->swallow ? DROP : FORWARD;
}

static enum verdict notice(const struct walk *walk)
{
    struct expect *head = server_awaits(walk->server);
    return head && head->swallow ? DROP : FORWARD;
}

static enum verdict server_notice(const struct walk *walk, const char *body, size_t len)
{
    struct server *server = walk->server;
    struct pg_error error;
    wire_read_error(body, len, &error);
    if (relay_is_last_word('N', &error)) {
        snprintf(server->fatal_sqlstate, sizeof server->fatal_sqlstate, "%s", error.sqlstate);
        return relay_lose(server, error.message);
    }
    return walk->client ? notice(walk) : DROP;
}

/* It listens for the client it is tied to. */
static enum verdict notification(struct walk *walk, const char *message, size_t len)
{
    struct buffer copy = {0};
    if (!walk->client || !(walk->server->pinned || client_keeps_servers(walk->client)))
        return DROP;
    buffer_append(&copy, message, len);
    listen_own_pid(walk->client, walk->server, buffer_head(&copy), len);
    relay_insert(walk, message, &copy);
    buffer_release(&copy);
    return DROP;
}

/* A ParameterDescription that a portal's Describe does not have. */
static bool is_of_portal(const struct walk *walk)
{
    const struct expect *awaited = server_awaits(walk->server);
    return awaited && awaited->kind == EXPECT_DESCRIBE && expect_formats(awaited);
}

/* The dispatch switch of the server's side of the protocol. */
static enum verdict look_at(struct walk *walk, const char *message, const char *body, size_t len)
{
    const char *end = body + len;
    char type = message[0];
    if (type == 't')
        walk->undecided = is_of_portal(walk) ? end : message;
    else if (type != 'E') /* which may be hidden, and they with it */
        relay_local_answers(walk, message);
    switch (type) {
    case 'D':
    case 'd':
        return rows(walk, type, message);
    case 'C':
        return command_complete(walk, body, len);
    case 'Z':
        return ready_for_query(walk, body, len);
    case 'T':
    case 'n':
        return description(walk, type, message, end);
    case 't':
        return is_of_portal(walk)            ? DROP
               : server_awaits(walk->server) ? notice(walk)
                                             : out_of_step(walk->server, type);
    case '1':
        return parse_complete(walk, end);
    case '2':
        return completes(walk, EXPECT_BIND, type, end);
    case '3':
        return completes(walk, EXPECT_CLOSE, type, end);
    case 'I':
    case 's':
        return no_command(walk, type);
    case 'E':
        return relay_error(walk, message, body, len);
    case 'N':
        return server_notice(walk, body, len);
    case 'S':
        return parameter_status(walk, body, len);
    case 'A':
        return notification(walk, message, WIRE_HEADER + len);
    case 'G':
        return copy_in(walk);
    case 'V':
        return function_result(walk);
    case 'H':
    case 'c':
        return server_expected(walk->server) ? notice(walk) : out_of_step(walk->server, type);
    default:
        return out_of_step(walk->server, type);
    }
}

/* ---- the walk ---- */

/* Rows, COPY data, and long ones of what need not be looked into. */
static bool by_count(const struct walk *walk, char type, uint32_t length)
{
    bool always = type == 'D' || type == 'd', if_long = type == 'V' || type == 'N';
    return (always || (if_long && length > IO_BUFFER_SIZE)) &&
           !(walk->client && walk->client->scatter);
}

static bool goes_to_scatter(const struct walk *walk)
{
    struct expect *head = server_expected(walk->server);
    return walk->client && walk->client->scatter && head && !head->swallow;
}

/* Bytes of a message that is passed on by count. */
static size_t pass_on(struct walk *walk, const char *at, size_t len)
{
    struct server *server = walk->server;
    size_t n = len < server->skip ? len : server->skip;
    server->skip -= n;
    if (!server->skip_forward)
        relay_cut_out(walk, at, at + n);
    return n;
}

static size_t start_passing(struct walk *walk, const char *at, size_t len, uint32_t length)
{
    enum verdict verdict = look_at(walk, at, at + WIRE_HEADER, 0);
    if (verdict == LOST)
        return 0;
    walk->server->skip = 1 + (size_t)length;
    walk->server->skip_forward = verdict == FORWARD;
    return pass_on(walk, at, len);
}

/* The end of a fan-out gives its servers back: the walk goes on without the client, so that what was read
 * is used up. */
static bool follow_scatter(struct walk *walk)
{
    if (walk->server->state == SERVER_CLOSED)
        return false;
    if (walk->server->client != walk->client) {
        if (walk->client->conn.corked)
            conn_uncork(&walk->client->conn);
        walk->client = NULL;
    }
    return true;
}

/* What goes ahead of a batch is answered: answers of our own wait for the server's first one to the batch itself, which may be
 * what has all of it asked again. Not where the client has asked for them by a Flush. */
static bool may_be_refused_next(const struct walk *walk, char type, enum verdict verdict)
{
    return type == 'Z' && verdict == DROP && walk->client && extended_in_batch(walk->client) &&
           walk->server->expect_count && !walk->client->extended->pushed &&
           (walk->client->extended->state == BATCH_OPEN ||
            walk->client->extended->state == BATCH_SYNCING ||
            walk->client->extended->state == BATCH_SETTLING);
}

/* One whole message. False: the server is lost. */
static bool take_message(struct walk *walk, const char *at, uint32_t length)
{
    const char *end = at + 1 + length;
    if (goes_to_scatter(walk)) {
        relay_cut_out(walk, at, end);
        if (relay_takes_leave(walk->server, at, length))
            return false;
        scatter_message(walk->server, at[0], at + WIRE_HEADER, length - 4);
        return follow_scatter(walk);
    }
    enum verdict verdict = look_at(walk, at, at + WIRE_HEADER, length - 4);
    if (verdict == DROP)
        relay_cut_out(walk, at, end);
    if (verdict != LOST && !walk->undecided && !may_be_refused_next(walk, at[0], verdict))
        relay_local_answers(walk, end);
    return verdict != LOST;
}

/*
 * Most messages are those that most transactions are answered with, whole and awaited next, and go to the
 * client as they are: they are taken at a glance. False: this one is to be looked at.
 */
static bool take_usual(struct walk *walk, char type, const char *end)
{
    struct server *server = walk->server;
    struct client *client = walk->client;
    struct expect *head = server_expected(server);
    if (!head || head->swallow || head->more || walk->undecided || !client || client->scatter)
        return false;
    switch (type) {
    case 'D':
        return (head->kind == EXPECT_EXECUTE || head->kind == EXPECT_QUERY) &&
               !buffer_length(&client->request.explain);
    case '1':
        if (head->kind != EXPECT_PARSE)
            return false;
        client->stats->server_parses++;
        parsed(walk, head);
        server_expect_pop(server);
        break;
    case '2':
    case 'T':
        if (head->kind != (type == '2' ? EXPECT_BIND : EXPECT_DESCRIBE))
            return false;
        server_expect_pop(server);
        break;
    default:
        return false;
    }
    relay_local_answers(walk, end);
    return true;
}

/* Walks over what has come. Returns bytes used; the rest is an incomplete message. -1: lost. */
static ssize_t walk_bytes(struct walk *walk, const char *data, size_t len)
{
    size_t used = 0;
    while (used < len) {
        const char *at = data + used;
        if (walk->server->skip) {
            used += pass_on(walk, at, len - used);
            continue;
        }
        if (len - used < WIRE_HEADER)
            break;
        uint32_t length = wire_get32(at + 1);
        if (length >= 4 && length < len - used && take_usual(walk, at[0], at + 1 + length)) {
            used += 1 + (size_t)length;
            continue;
        }
        bool counted = by_count(walk, at[0], length);
        if (length < 4 || (!counted && length > CONTROL_MESSAGE_MAX)) {
            relay_lose(walk->server, "the server sent a message of an impossible length");
            return -1;
        }
        if (counted) {
            size_t n = start_passing(walk, at, len - used, length);
            if (!n)
                return -1;
            used += n;
            continue;
        }
        if (len - used < 1 + (size_t)length)
            break;
        if (!take_message(walk, at, length))
            return -1;
        used += 1 + (size_t)length;
    }
    return (ssize_t)used;
}

/* The client's ReadyForQuery is out: the request is over. */
static void complete(struct walk *walk)
{
    struct client *client = walk->client;
    if (client->request.repeat && client->tx)
        session_begin_again(client);
    if (client->request.repeat && bucket_hold_waits_for_map(client))
        return;
    if (client->request.repeat)
        session_ask_again(client);
    else if (client->state == CLIENT_GREETING)
        client_login_settled(client, walk->server, NULL);
    else if (client->state == CLIENT_IDLE) /* a server it was pinned to is free now */
        session_release_servers(client);
    else if (extended_in_batch(client))
        extended_synced(client);
    else if (client->state != CLIENT_BUSY || series_goes_on(client))
        return;
    else if (client->listener && listen_owes(client))
        listen_hold(client);
    else
        session_end_request(client);
}

static void lost(struct walk *walk)
{
    struct server *server = walk->server;
    if (server->state == SERVER_CLOSED || (walk->client && server->client != walk->client))
        return;
    if (server->fatal[0])
        server_broke(server, server->fatal);
}

/* `refusable`: what stands before the end of a request that a guard may still refuse as a whole (epoch.h), too: as much as a server
 * sends at once. */
static bool is_preliminary_type(char type, bool refusable)
{
    return type && strchr(refusable ? "12tTnDCI" : "12tTn", type) != NULL;
}

/* What a statement is answered with before it is carried out, and nothing else. */
static bool is_preliminary(const char *data, size_t len, bool refusable)
{
    while (len >= WIRE_HEADER && is_preliminary_type(*data, refusable)) {
        uint32_t length = wire_get32(data + 1);
        if (length < 4 || length > CONTROL_MESSAGE_MAX)
            return false;
        if (length >= len) /* its rest is to come */
            return true;
        data += 1 + (size_t)length;
        len -= 1 + (size_t)length;
    }
    return !len || (len < WIRE_HEADER && is_preliminary_type(*data, refusable));
}

static bool is_refusable(const struct client *client, size_t len)
{
    const struct request *request = &client->request;
    bool writes = request->plan.write || (client->extended && client->extended->executed_write);
    return len < SENT_AT_ONCE && (client->tx ? request->begins : writes) &&
           epoch_of_map(client->database->map) > 0;
}

/*
 * It was asked for up to its end and may have to be asked again, which it cannot any more when some of its answer is
 * out. An error may follow at once: servers send both together, but they need not arrive so.
 */
static bool waits_for_more(const struct server *server, const char *data, size_t len)
{
    const struct client *client = server->client;
    if (!client || !client->database || server->skip || client->state != CLIENT_BUSY ||
        client->scatter)
        return false;
    bool refusable = is_refusable(client, len);
    if (!is_preliminary_type(*data, refusable))
        return false;
    const struct request *request = &client->request;
    const struct extended *ext = client->extended;
    bool synced = !extended_in_batch(client) ||
                  ((ext->state == BATCH_SYNCING || ext->state == BATCH_SETTLING) && !ext->ahead);
    return synced && !request->forwarded && !request->incomplete && !request->series &&
           (request->shape || buffer_length(&request->again)) &&
           is_preliminary(data, len, refusable);
}

static void keep_unread(struct server *server, const struct buffer *kept, const char *data,
                        size_t len)
{
    if (kept != &server->in)
        buffer_append(&server->in, data, len);
}

static void walk_and_act(struct server *server, struct buffer *kept, const char *data, size_t len)
{
    if (waits_for_more(server, data, len)) {
        keep_unread(server, kept, data, len);
        return;
    }
    struct walk walk = {.server = server, .client = server->client, .run = data};
    if (walk.client && !walk.client->request.forwarded) {
        walk.fresh = true;
        walk.mark = conn_mark(&walk.client->conn);
    }
    ssize_t used = walk_bytes(&walk, data, len);
    if (used < 0) {
        if (walk.passed > walk.run) /* that batch is answered */
            send_run(&walk, walk.passed);
        if (walk.client && walk.client->conn.corked)
            conn_uncork(&walk.client->conn);
        if (walk.elsewhere)
            client_ask_elsewhere(walk.client, server);
        else
            lost(&walk);
        return;
    }
    if (walk.undecided)
        relay_local_answers(&walk, walk.undecided);
    /* An incomplete message waits, uncounted, for its rest; the client gets what is before it. */
    relay_finish_output(&walk, data + used);
    if (kept == &server->in)
        buffer_consume(&server->in, (size_t)used);
    else
        buffer_append(&server->in, data + used, len - (size_t)used);
    if (!buffer_length(&server->in))
        buffer_release(&server->in);
    struct client *client = walk.client;
    if (server->cancels && server->state == SERVER_ACTIVE)
        cancel_prefix_answered(server);
    if (server->resetting && server->state == SERVER_ACTIVE)
        server_reset_step(server);
    else if (server->tended && !server->expect_count)
        pool_tended(server);
    if (client && server->client == client && client->scatter)
        scatter_pump(client);
    if (walk.ready && client && server->client == client)
        complete(&walk);
    else if (client && server->client == client &&
             (server->copy_in || client->input_held || walk.passed ||
              (extended_takes_input(client) && buffer_length(&client->in))))
        client_continue(client);
}

void relay_readable(struct server *server)
{
    struct worker *worker = server->worker;
    ssize_t n;
    if (buffer_length(&server->in)) {
        n = conn_recv(&server->conn, buffer_reserve(&server->in, IO_BUFFER_SIZE), IO_BUFFER_SIZE);
        if (n > 0) {
            server->in.end += (size_t)n;
            walk_and_act(server, &server->in, buffer_head(&server->in), buffer_length(&server->in));
        }
    } else {
        n = conn_recv(&server->conn, worker->io, IO_BUFFER_SIZE);
        if (n > 0)
            walk_and_act(server, NULL, worker->io, (size_t)n);
    }
    if (n < 0)
        server_broke(server, server->fatal[0] ? server->fatal : "the server closed the connection");
}
