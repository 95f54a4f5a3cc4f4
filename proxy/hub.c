/* hub.c: one server connection per database that listens for all clients. */
#include "proxy/hub.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "pgshunt/arena.h"
#include "pgshunt/log.h"
#include "pgshunt/wire.h"
#include "proxy/listen.h"
#include "proxy/pool.h"
#include "proxy/server.h"
#include "proxy/worker.h"

#define PAUSE_MIN_US 100000
#define PAUSE_MAX_US 5000000
#define MESSAGE_MAX (1 << 20) /* a notification has at most 8000 bytes of payload */

/* What one worker wants of a channel. */
struct ticket {
    uint32_t number; /* 0: nothing */
    bool confirmed;
};

struct channel {
    char *name;
    bool asked, listening; /* on the connection of now */
    uint64_t query;        /* number of the LISTEN that was sent last */
    UT_hash_handle hh;
    struct ticket tickets[]; /* by worker */
};

/* A Query that was sent. */
struct sent {
    struct sent *next;
    uint64_t number;
    int worker;      /* without a channel: whom its answer is for */
    uint32_t ticket; /* ... and by which number it knows it */
    char channel[];
};

struct hub {
    struct worker *worker;
    char *database, *user;
    struct server *server; /* NULL: waiting to connect */
    bool ready;
    bool lost;       /* it was, since all channels were listened to */
    char error[256]; /* of the LISTEN that is being answered */
    char sqlstate[6];
    struct sent *sent_first, **sent_end;
    uint64_t queries;          /* sent so far */
    int64_t connect_at, pause; /* not before; grows with failures */
    int64_t started_at;
    struct channel *channels;
    UT_hash_handle hh;
};

/* ---- messages between workers ---- */

enum note_kind {
    NOTE_SUBSCRIBE,
    NOTE_UNSUBSCRIBE,
    NOTE_CONFIRMED,
    NOTE_FAILED,
    NOTE_NOTIFY,
    NOTE_LOST,
    NOTE_CATCH_UP,
    NOTE_CAUGHT_UP,
};

struct note {
    struct message message;
    enum note_kind kind;
    int from;
    uint32_t ticket;
    char sqlstate[6];
    char *database, *channel, *text; /* in `bytes`; text: user, error or message */
    size_t text_len;
    char bytes[];
};

static void subscribe(struct worker *worker, const struct note *note);
static void unsubscribe(struct worker *worker, const struct note *note);
static void catch_up(struct worker *worker, const struct note *note);

static void run_note(struct worker *worker, struct message *message)
{
    struct note *note = (struct note *)message;
    switch (note->kind) {
    case NOTE_SUBSCRIBE:
        subscribe(worker, note);
        break;
    case NOTE_UNSUBSCRIBE:
        unsubscribe(worker, note);
        break;
    case NOTE_CONFIRMED:
        listen_confirmed(worker, note->database, note->channel, note->ticket);
        break;
    case NOTE_FAILED: {
        struct pg_error error = {.sqlstate = note->sqlstate,
                                 .message = note->text,
                                 .hint = "pgshunt could not listen on the primary; LISTEN again."};
        listen_failed(worker, note->database, note->channel, note->ticket, &error);
        break;
    }
    case NOTE_NOTIFY:
        listen_notify(worker, note->database, note->channel, note->text, note->text_len);
        break;
    case NOTE_LOST:
        listen_was_lost(worker, note->database);
        break;
    case NOTE_CATCH_UP:
        catch_up(worker, note);
        break;
    case NOTE_CAUGHT_UP:
        listen_caught_up(worker, note->ticket);
        break;
    }
    free(note);
}

static char *put(char **at, const char *bytes, size_t len)
{
    char *copy = *at;
    memcpy(copy, bytes, len);
    copy[len] = '\0';
    *at += len + 1;
    return copy;
}

static struct note *new_note(enum note_kind kind, const char *database, const char *channel,
                             const char *text, size_t text_len)
{
    struct note *note = mem_alloc(sizeof *note + strlen(database) + strlen(channel) + text_len + 3);
    char *at = note->bytes;
    note->message.run = run_note;
    note->kind = kind;
    note->database = put(&at, database, strlen(database));
    note->channel = put(&at, channel, strlen(channel));
    note->text = put(&at, text, text_len);
    note->text_len = text_len;
    return note;
}

/* The worker whose hub serves the database. */
static struct worker *home_of(const struct worker *worker, const char *database)
{
    struct daemon *daemon = worker->daemon;
    return &daemon->workers[XXH3_64bits(database, strlen(database)) % (unsigned)daemon->nworkers];
}

void hub_subscribe(struct worker *worker, const char *database, const char *user,
                   const char *channel, uint32_t ticket)
{
    struct note *note = new_note(NOTE_SUBSCRIBE, database, channel, user, strlen(user));
    note->from = worker->index;
    note->ticket = ticket;
    worker_post(home_of(worker, database), &note->message);
}

void hub_unsubscribe(struct worker *worker, const char *database, const char *channel,
                     uint32_t ticket)
{
    struct note *note = new_note(NOTE_UNSUBSCRIBE, database, channel, "", 0);
    note->from = worker->index;
    note->ticket = ticket;
    worker_post(home_of(worker, database), &note->message);
}

void hub_catch_up(struct worker *worker, const char *database, uint32_t ticket)
{
    struct note *note = new_note(NOTE_CATCH_UP, database, "", "", 0);
    note->from = worker->index;
    note->ticket = ticket;
    worker_post(home_of(worker, database), &note->message);
}

static void say_caught_up(struct worker *hubs, int worker, uint32_t ticket)
{
    struct note *note = new_note(NOTE_CAUGHT_UP, "", "", "", 0);
    note->ticket = ticket;
    worker_post(&hubs->daemon->workers[worker], &note->message);
}

/* ---- channels ---- */

static struct channel *find_channel(const struct hub *hub, const char *name)
{
    struct channel *channel;
    HASH_FIND_STR(hub->channels, name, channel);
    return channel;
}

static bool is_wanted(const struct hub *hub, const struct channel *channel)
{
    for (int i = 0; i < hub->worker->daemon->nworkers; i++)
        if (channel->tickets[i].number)
            return true;
    return false;
}

static void free_channel(struct hub *hub, struct channel *channel)
{
    HASH_DEL(hub->channels, channel);
    free(channel->name);
    free(channel);
}

static struct sent *send_text(struct hub *hub, const char *sql, const char *channel)
{
    struct buffer out = {0};
    struct sent *sent = mem_alloc(sizeof *sent + strlen(channel) + 1);
    memcpy(sent->channel, channel, strlen(channel) + 1);
    sent->number = ++hub->queries;
    *hub->sent_end = sent;
    hub->sent_end = &sent->next;
    wire_put_query(&out, sql);
    conn_send(&hub->server->conn, buffer_head(&out), buffer_length(&out));
    buffer_release(&out);
    return sent;
}

static void send_query(struct hub *hub, const char *verb, const char *name)
{
    struct buffer sql = {0};
    buffer_append(&sql, verb, strlen(verb));
    guc_append_identifier(&sql, name);
    buffer_append(&sql, "", 1);
    send_text(hub, buffer_head(&sql), name);
    buffer_release(&sql);
}

static void ask(struct hub *hub, struct channel *channel)
{
    if (!hub->ready || channel->asked)
        return;
    channel->asked = true;
    send_query(hub, "LISTEN ", channel->name);
    channel->query = hub->queries;
}

static void confirm(struct hub *hub, struct channel *channel)
{
    for (int i = 0; i < hub->worker->daemon->nworkers; i++) {
        struct ticket *ticket = &channel->tickets[i];
        if (!ticket->number || ticket->confirmed)
            continue;
        ticket->confirmed = true;
        struct note *note = new_note(NOTE_CONFIRMED, hub->database, channel->name, "", 0);
        note->ticket = ticket->number;
        worker_post(&hub->worker->daemon->workers[i], &note->message);
    }
}

/* Tells who waits for the channel, and forgets it unless others had it before. */
static void fail_channel(struct hub *hub, struct channel *channel, const char *sqlstate,
                         const char *message)
{
    for (int i = 0; i < hub->worker->daemon->nworkers; i++) {
        struct ticket *ticket = &channel->tickets[i];
        if (!ticket->number || ticket->confirmed)
            continue;
        struct note *note =
            new_note(NOTE_FAILED, hub->database, channel->name, message, strlen(message));
        note->ticket = ticket->number;
        snprintf(note->sqlstate, sizeof note->sqlstate, "%s", sqlstate);
        ticket->number = 0;
        worker_post(&hub->worker->daemon->workers[i], &note->message);
    }
    if (!is_wanted(hub, channel))
        free_channel(hub, channel);
}

static void fail_all(struct hub *hub, const char *sqlstate, const char *message)
{
    struct channel *channel, *next;
    HASH_ITER(hh, hub->channels, channel, next)
    {
        fail_channel(hub, channel, sqlstate, message);
    }
}

/* ---- the connection ---- */

/* `tell`: those who wait for an answer go on without. */
static void forget_sent(struct hub *hub, bool tell)
{
    while (hub->sent_first) {
        struct sent *sent = hub->sent_first;
        hub->sent_first = sent->next;
        if (sent->ticket && tell)
            say_caught_up(hub->worker, sent->worker, sent->ticket);
        free(sent);
    }
    hub->sent_end = &hub->sent_first;
}

static void wait_a_while(struct hub *hub)
{
    hub->pause = hub->pause ? hub->pause * 2 : PAUSE_MIN_US;
    if (hub->pause > PAUSE_MAX_US)
        hub->pause = PAUSE_MAX_US;
    hub->connect_at = clock_us() + hub->pause;
}

static const struct shard *home_shard(const struct hub *hub)
{
    const struct database *database = topology_database(hub->worker->topology, hub->database);
    return database ? &database->shards[0] : NULL;
}

static void connect_hub(struct hub *hub)
{
    const struct shard *shard = home_shard(hub);
    struct node *node = shard ? shard_primary(shard) : NULL;
    if (!node) {
        fail_all(hub, "08006", "no primary is known to listen on");
        wait_a_while(hub);
        return;
    }
    struct account *account = account_get(hub->worker, hub->database, hub->user);
    struct pool *pool = pool_private(account, node);
    struct server *server = server_start(pool);
    if (!server) {
        pool_private_free(pool);
        fail_all(hub, "08006", "cannot connect to the primary");
        wait_a_while(hub);
        return;
    }
    server->hub = hub;
    server->discard = true;
    hub->server = server;
    hub->ready = false;
    hub->started_at = clock_us();
}

void hub_server_ready(struct server *server)
{
    struct hub *hub = server->hub;
    struct channel *channel, *next;
    server->state = SERVER_ACTIVE;
    hub->ready = true;
    hub->pause = 0;
    log_event(LOG_DEBUG, "listening for clients", LOG_S("database", hub->database),
              LOG_S("host", server->pool->node->host), LOG_I("port", server->pool->node->port),
              LOG_I("pid", server->backend_pid));
    HASH_ITER(hh, hub->channels, channel, next)
    {
        ask(hub, channel);
    }
}

void hub_login_failed(struct server *server, const char *sqlstate, const char *message)
{
    struct hub *hub = server->hub;
    char text[400], state[6];
    snprintf(text, sizeof text, "cannot listen on %s:%d: %.300s", server->pool->node->host,
             server->pool->node->port, message);
    snprintf(state, sizeof state, "%s", sqlstate);
    log_event(LOG_WARNING, "login for LISTEN failed", LOG_S("database", hub->database),
              LOG_S("user", server->pool->account->server_user), LOG_S("reason", text));
    server_drop(server, "login failed");
    fail_all(hub, state, text);
}

void hub_server_gone(struct server *server, const char *reason)
{
    struct hub *hub = server->hub;
    struct channel *channel, *next;
    if (hub->server != server)
        return;
    if (hub->ready && hub->channels) {
        hub->lost = true;
        log_event(LOG_WARNING, "the connection that listens for clients was lost",
                  LOG_S("database", hub->database), LOG_S("reason", reason));
    }
    hub->server = NULL;
    hub->ready = false;
    forget_sent(hub, true);
    HASH_ITER(hh, hub->channels, channel, next)
    {
        channel->asked = channel->listening = false;
    }
    wait_a_while(hub);
}

static void close_hub_server(struct hub *hub, const char *reason)
{
    if (hub->server)
        server_drop(hub->server, reason);
}

/* ---- what the server says ---- */

static void all_is_well_again(struct hub *hub)
{
    struct channel *channel, *next;
    HASH_ITER(hh, hub->channels, channel, next)
    {
        if (!channel->listening)
            return;
    }
    hub->lost = false;
    log_event(LOG_INFO, "listening for clients again", LOG_S("database", hub->database));
    for (int i = 0; i < hub->worker->daemon->nworkers; i++)
        worker_post(&hub->worker->daemon->workers[i],
                    &new_note(NOTE_LOST, hub->database, "", "", 0)->message);
}

/* Who had the channel before a loss keeps it: then it is all tried again. */
static void refused(struct hub *hub, struct channel *channel)
{
    char *name = mem_strdup(channel->name), *error = mem_strdup(hub->error);
    channel->asked = false;
    hub->error[0] = '\0';
    fail_channel(hub, channel, hub->sqlstate, error);
    if (find_channel(hub, name))
        close_hub_server(hub, error);
    free(name);
    free(error);
}

/* One of our Querys is answered. */
static void answered(struct hub *hub)
{
    struct sent *sent = hub->sent_first;
    if (!sent)
        return;
    hub->sent_first = sent->next;
    if (!hub->sent_first)
        hub->sent_end = &hub->sent_first;
    if (sent->ticket) {
        say_caught_up(hub->worker, sent->worker, sent->ticket);
        hub->error[0] = '\0';
        free(sent);
        return;
    }
    struct channel *channel = find_channel(hub, sent->channel);
    if (channel && channel->query != sent->number)
        channel = NULL; /* of an earlier life of the channel */
    free(sent);
    if (channel && hub->error[0]) {
        refused(hub, channel);
        return;
    } else if (channel) {
        channel->listening = true;
        confirm(hub, channel);
    }
    hub->error[0] = '\0';
    if (hub->lost)
        all_is_well_again(hub);
}

static void notification(struct hub *hub, const char *message, size_t len)
{
    struct wire_reader reader = wire_reader(message + WIRE_HEADER, len - WIRE_HEADER);
    wire_read32(&reader);
    const char *name = wire_read_cstring(&reader);
    struct channel *channel = reader.bad ? NULL : find_channel(hub, name);
    for (int i = 0; channel && i < hub->worker->daemon->nworkers; i++)
        if (channel->tickets[i].number)
            worker_post(&hub->worker->daemon->workers[i],
                        &new_note(NOTE_NOTIFY, hub->database, name, message, len)->message);
}

/* False: the connection is no more. */
static bool hub_message(struct server *server, const char *message, size_t len)
{
    struct hub *hub = server->hub;
    struct pg_error error;
    switch (message[0]) {
    case 'A':
        notification(hub, message, len);
        break;
    case 'Z':
        answered(hub);
        break;
    case 'E':
        wire_read_error(message + WIRE_HEADER, len - WIRE_HEADER, &error);
        snprintf(hub->error, sizeof hub->error, "%s", error.message);
        snprintf(hub->sqlstate, sizeof hub->sqlstate, "%s", error.sqlstate);
        if (error.severity && strcmp(error.severity, "ERROR") != 0) {
            server_close(server, hub->error);
            return false;
        }
        break;
    default:
        break;
    }
    return server->state == SERVER_ACTIVE;
}

void hub_readable(struct server *server)
{
    ssize_t n = conn_recv(&server->conn, buffer_reserve(&server->in, 4096), 4096);
    if (n < 0) {
        server_close(server, "the server closed the connection");
        return;
    }
    server->in.end += (size_t)n;
    while (buffer_length(&server->in) >= WIRE_HEADER) {
        const char *head = buffer_head(&server->in);
        uint32_t length = wire_get32(head + 1);
        if (length < 4 || length > MESSAGE_MAX) {
            server_close(server, "the server sent a message of an impossible length");
            return;
        }
        if (buffer_length(&server->in) < 1 + (size_t)length)
            return;
        if (!hub_message(server, head, 1 + (size_t)length))
            return;
        buffer_consume(&server->in, 1 + (size_t)length);
    }
    if (!buffer_length(&server->in))
        buffer_release(&server->in);
}

/* ---- subscriptions ---- */

static struct hub *hub_of(struct worker *worker, const char *database, const char *user)
{
    struct hub *hub;
    HASH_FIND_STR(worker->hubs, database, hub);
    if (hub || !user)
        return hub;
    hub = mem_alloc(sizeof *hub);
    hub->worker = worker;
    hub->database = mem_strdup(database);
    hub->sent_end = &hub->sent_first;
    HASH_ADD_KEYPTR(hh, worker->hubs, hub->database, strlen(hub->database), hub);
    return hub;
}

static struct channel *channel_of(struct hub *hub, const char *name)
{
    struct channel *channel = find_channel(hub, name);
    if (channel)
        return channel;
    size_t tickets = sizeof(struct ticket) * (size_t)hub->worker->daemon->nworkers;
    channel = mem_alloc(sizeof *channel + tickets);
    channel->name = mem_strdup(name);
    HASH_ADD_KEYPTR(hh, hub->channels, channel->name, strlen(channel->name), channel);
    return channel;
}

static void subscribe(struct worker *worker, const struct note *note)
{
    struct hub *hub = hub_of(worker, note->database, note->text);
    struct channel *channel = channel_of(hub, note->channel);
    channel->tickets[note->from] = (struct ticket){.number = note->ticket};
    if (!hub->server || !hub->user) { /* somebody who is here can log in */
        free(hub->user);
        hub->user = mem_strdup(note->text);
    }
    if (channel->listening)
        confirm(hub, channel);
    else if (hub->server)
        ask(hub, channel);
    else if (worker->phase == WORKER_RUNNING && clock_us() >= hub->connect_at)
        connect_hub(hub);
}

static void unsubscribe(struct worker *worker, const struct note *note)
{
    struct hub *hub = hub_of(worker, note->database, NULL);
    struct channel *channel = hub ? find_channel(hub, note->channel) : NULL;
    if (!channel || channel->tickets[note->from].number != note->ticket)
        return;
    channel->tickets[note->from] = (struct ticket){0};
    if (is_wanted(hub, channel))
        return;
    if (hub->ready && channel->asked)
        send_query(hub, "UNLISTEN ", channel->name);
    free_channel(hub, channel);
    if (!hub->channels) {
        hub->lost = false;
        close_hub_server(hub, "nobody listens any more");
        hub->connect_at = hub->pause = 0;
    }
}

/* A server tells what it has to ahead of any ReadyForQuery, so one that does nothing will do. */
static void catch_up(struct worker *worker, const struct note *note)
{
    struct hub *hub = hub_of(worker, note->database, NULL);
    if (!hub || !hub->ready) {
        say_caught_up(worker, note->from, note->ticket);
        return;
    }
    struct sent *sent = send_text(hub, "", "");
    sent->worker = note->from;
    sent->ticket = note->ticket;
}

/* ---- upkeep ---- */

/* Where to listen is another place now, or the place is gone. */
static void follow_primary(struct hub *hub)
{
    const struct shard *shard = home_shard(hub);
    const struct node *node = hub->server->pool->node;
    const struct node *primary = shard ? shard_primary(shard) : NULL;
    if (!shard)
        close_hub_server(hub, "the database has left the configuration");
    else if (primary && primary != node)
        close_hub_server(hub, "the primary is another server now");
    else if (atomic_load(&node->state) == NODE_STATE_DOWN)
        close_hub_server(hub, "the server does not answer");
}

static void tick_hub(struct hub *hub, int64_t now)
{
    const struct config *config = hub->worker->topology->config;
    if (hub->server && !hub->ready && now - hub->started_at > config->connect_timeout * 1000)
        hub_login_failed(hub->server, "08001", "the server did not finish the login in time");
    else if (hub->server)
        follow_primary(hub);
    else if (hub->channels && now >= hub->connect_at)
        connect_hub(hub);
}

void hub_tick(struct worker *worker, int64_t now)
{
    if (worker->phase != WORKER_RUNNING)
        return;
    for (struct hub *hub = worker->hubs, *next; hub; hub = next) {
        next = hub->hh.next;
        tick_hub(hub, now);
    }
}

void hub_worker_free(struct worker *worker)
{
    struct hub *hub, *next;
    HASH_ITER(hh, worker->hubs, hub, next)
    {
        while (hub->channels)
            free_channel(hub, hub->channels);
        forget_sent(hub, false);
        HASH_DEL(worker->hubs, hub);
        free(hub->database);
        free(hub->user);
        free(hub);
    }
}
