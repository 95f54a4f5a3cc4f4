/*
 * relay_error.c: errors among a server's answers: repeated after, hidden, told in the client's words, or
 * the server's last.
 */
#include "proxy/relay_internal.h"

#include <stdio.h>
#include <string.h>

#include "proxy/bucket_hold.h"
#include "proxy/client_login.h"
#include "proxy/epoch.h"
#include "proxy/extended.h"
#include "proxy/lookup.h"
#include "proxy/misroute.h"
#include "proxy/node_health.h"
#include "proxy/rename.h"
#include "proxy/series.h"
#include "proxy/shard_deadlock.h"

static bool is_fatal(const struct pg_error *error)
{
    return error->severity &&
           (strcmp(error->severity, "FATAL") == 0 || strcmp(error->severity, "PANIC") == 0);
}

/*
 * A backend that has to end at once (an immediate shutdown, the crash of another one) says so in a WARNING
 * and is gone: FATAL it may not say.
 */
bool relay_is_last_word(char type, const struct pg_error *error)
{
    return type == 'E' ? is_fatal(error)
                       : error->routine && strcmp(error->routine, "quickdie") == 0;
}

static void settings_refused(struct walk *walk, const struct pg_error *error)
{
    struct client *client = walk->client;
    struct server *server = walk->server;
    struct pg_error copy = *error;
    if (!client) { /* of a server that is being reset: what led to this is over */
        server->discard |= strcmp(error->sqlstate, "25P02") != 0;
        return;
    }
    if (client->state == CLIENT_GREETING) {
        client_login_settled(client, server, error);
        return;
    }
    copy.hint = "A session setting or BEGIN could not be carried over to the server; the statement "
                "was not run. DISCARD ALL forgets the session's settings.";
    client_detach(client, server);
    server_reset(server);
    if (client->tx)
        client->tx->state = TX_FAILED;
    session_fail(client, &copy);
}

/* The fan-out goes on without that shard, as if its connection had been lost, and fails: nothing of it may run there. */
static enum verdict settings_refused_in_scatter(struct walk *walk, const struct pg_error *error)
{
    struct server *server = walk->server;
    char reason[sizeof server->fatal];
    snprintf(reason, sizeof reason, "a session setting or BEGIN could not be carried over: %s",
             error->message);
    snprintf(server->fatal_sqlstate, sizeof server->fatal_sqlstate, "%s", error->sqlstate);
    walk->client->request.retriable = false; /* it would be the same elsewhere */
    walk->client = NULL;
    server_close(server, reason);
    return LOST;
}

bool relay_finds_outdated(struct server *server, struct prepared *prepared,
                          const struct pg_error *error, bool *shape)
{
    bool ours = prepared && strstr(error->message, PREPARED_PREFIX);
    *shape = prepared && strcmp(error->sqlstate, "0A000") == 0 && error->routine &&
             strcmp(error->routine, "RevalidateCachedQuery") == 0;
    if (ours && strcmp(error->sqlstate, "26000") == 0)
        marks_clear(&server->marks); /* a function has deallocated behind our back */
    else if (ours && strcmp(error->sqlstate, "42P05") == 0)
        marks_add(&server->marks, prepared, 0);
    else if (!*shape)
        return false;
    prepared->generation++;
    if (prepared->uses)
        prepared->uses->generation++;
    return true;
}

/* Nothing of the answer is out: what this walk has collected for the client can be taken back. */
static bool is_whole(const struct walk *walk)
{
    const struct client *client = walk->client;
    return walk->fresh && (!client->conn.corked || conn_holds(&client->conn, &walk->mark));
}

static void take_back(struct walk *walk)
{
    if (walk->client->conn.corked)
        conn_take_back(&walk->client->conn, &walk->mark);
}

/* Under the newest map it goes to where its rows are. */
static bool asks_newer(struct walk *walk, const struct expect *head, const struct pg_error *error)
{
    struct client *client = walk->client;
    if (!epoch_is_refusal(error))
        return false;
    epoch_forget(walk->server);
    if (client)
        client->stats->stale++;
    if (!client || head->swallow)
        return false;
    bool whole = is_whole(walk), forwarded = client->request.forwarded;
    client->request.forwarded &= !whole;
    if (client->tx ? !session_may_repeat_block(client) : !session_may_repeat(client, NULL)) {
        client->request.forwarded = forwarded;
        return false;
    }
    if (whole)
        take_back(walk);
    client->request.stale = true;
    statement_settle(client, walk->server, false);
    return true;
}

static bool asks_again(struct walk *walk, const struct expect *head, const struct pg_error *error)
{
    bool shape;
    if (asks_newer(walk, head, error))
        return true;
    return relay_finds_outdated(walk->server, head->prepared, error, &shape) && walk->client &&
           session_may_repeat(walk->client, shape ? head->prepared : NULL);
}

/* The batch or query is asked again, with the statement prepared anew, when the server is ready. */
static void repeat_when_ready(struct walk *walk)
{
    struct server *server = walk->server;
    walk->client->request.repeat = true;
    if (server_expected(server)->kind == EXPECT_QUERY) {
        server_expected(server)->swallow = true;
        return;
    }
    server_expect_skip(server);
    if (server_expected(server))
        server_expected(server)->swallow = true;
    else
        batch_settle(walk->client);
}

static const char *text_of(const struct client *client, const struct expect *head)
{
    const struct statement_list *list = &client->request.statements;
    if (head->prepared)
        return head->prepared->sql;
    return head->done < list->count ? list->items[head->done]->text : "";
}

/* A replica refuses what another node will not. What this walk has collected for the client is taken back. */
static bool asks_elsewhere(struct walk *walk, const struct expect *head,
                           const struct pg_error *error)
{
    struct client *client = walk->client;
    if (!client || (head->swallow && head->kind == EXPECT_QUERY) ||
        (extended_in_batch(client) && !extended_may_repeat(client, NULL)))
        return false;
    if (!misroute_happened(client, walk->server, error, text_of(client, head), is_whole(walk)))
        return false;
    take_back(walk);
    return true;
}

/* The same with batches behind the one that was refused, or answers to those before it in this walk: nothing
 * of it is out, and all are asked again. */
static bool asks_all_elsewhere(struct walk *walk, const struct expect *head,
                               const struct pg_error *error)
{
    struct client *client = walk->client;
    if (!client || !extended_in_batch(client) || (!client->extended->ahead && !walk->passed) ||
        !misroute_happened(client, walk->server, error, text_of(client, head),
                           !client->request.forwarded))
        return false;
    walk->elsewhere = true;
    return true;
}

/* What went ahead of a Query has failed: one error is enough. */
static void mute_query_behind(struct server *server)
{
    struct expect *sync = server_expected(server);
    if (!sync || !sync->ahead)
        return;
    for (int i = 1; i < server->expect_count; i++) {
        struct expect *expect =
            &server->expects[(server->expect_head + i) & (server->expect_cap - 1)];
        expect->muted = expect->kind == EXPECT_QUERY;
    }
}

/* What we have brought about, and have words of our own for. */
static bool is_our_doing(const struct walk *walk, const struct pg_error *error)
{
    if (walk->client && epoch_is_refusal(error))
        return true;
    return walk->client && strcmp(error->sqlstate, "57014") == 0 &&
           (walk->client->request.timed_out || walk->client->request.deadlocked ||
            walk->client->request.moved);
}

/* The server calls it a user's request. */
static void say_ours(struct walk *walk, const char *message, const struct pg_error *said)
{
    struct buffer out = {0};
    struct pg_error error = {
        .sqlstate = "57014", .message = CLIENT_LATE_MESSAGE, .hint = CLIENT_LATE_HINT};
    if (epoch_is_refusal(said))
        error = *said;
    shard_deadlock_explain(walk->client, &error);
    bucket_hold_explain(walk->client, &error);
    wire_put_error(&out, &error);
    relay_insert(walk, message, &out);
    buffer_release(&out);
}

/* Servers know a statement by a name of ours: an error that tells it tells the client's. True: said. */
static bool say_renamed(struct walk *walk, const struct prepared *prepared, uint32_t called,
                        const char *message, const char *body, size_t len)
{
    struct buffer out = {0};
    if (!walk->client || !rename_error(walk->client, prepared, called, body, len, &out))
        return false;
    relay_insert(walk, message, &out);
    buffer_release(&out);
    return true;
}

/* The server has got one statement of the client's message: a position in it is told as one in the whole. */
static void say_moved(struct walk *walk, const char *message, const char *body, size_t len)
{
    struct buffer out = {0};
    series_put_error(walk->client, body, len, &out);
    relay_insert(walk, message, &out);
    buffer_release(&out);
}

/* The value was seen elsewhere meanwhile, and some of the answer is out: no answer is better than a wrong one. */
static void say_moved_away(struct walk *walk, const char *message)
{
    struct buffer out = {0};
    wire_put_error(&out, &(struct pg_error){
                             .sqlstate = "40001",
                             .message = "a row that was looked for may have moved to another shard",
                             .hint = "Run the statement again."});
    relay_insert(walk, message, &out);
    buffer_release(&out);
}

enum verdict relay_guess_failed(struct walk *walk, const char *message)
{
    struct client *client = walk->client;
    struct server *server = walk->server;
    struct request *request = &client->request;
    bool again = is_whole(walk) && !client->tx && !request->incomplete &&
                 (!extended_in_batch(client) ||
                  (extended_may_repeat(client, NULL) && buffer_length(&request->again)));
    lookup_guess_failed(client);
    if (!again) {
        say_moved_away(walk, message);
        if (server_expected(server)->kind == EXPECT_EXECUTE)
            server_expect_pop(server);
        return DROP;
    }
    take_back(walk);
    walk->run = message;
    walk->undecided = NULL;
    statement_settle(client, server, false);
    repeat_when_ready(walk);
    return DROP;
}

enum verdict relay_error(struct walk *walk, const char *message, const char *body, size_t len)
{
    struct server *server = walk->server;
    struct expect *head = server_awaits(server);
    struct pg_error error;
    wire_read_error(body, len, &error);
    if (is_fatal(&error) || !head) {
        snprintf(server->fatal_sqlstate, sizeof server->fatal_sqlstate, "%s", error.sqlstate);
        return relay_lose(server, error.message);
    }
    node_erred(server->pool->node, error.sqlstate);
    server->copy_in = false;
    if (head->muted)
        return DROP;
    if (asks_again(walk, head, &error)) {
        if (walk->passed > walk->run)
            relay_cut_out(walk, walk->passed, message);
        walk->run = message; /* what stands before it is of the same batch, and not out yet */
        walk->undecided = NULL;
        repeat_when_ready(walk);
        return DROP;
    }
    if (asks_elsewhere(walk, head, &error)) {
        walk->run = message;
        walk->undecided = NULL;
        statement_settle(walk->client, server, false);
        repeat_when_ready(walk);
        return DROP;
    }
    if (asks_all_elsewhere(walk, head, &error))
        return relay_lose(server, "a replica refused what is asked elsewhere now");
    relay_local_answers(walk, message);
    head = server_expected(server);
    if (walk->client) {
        walk->client->stats->errors++;
        statement_settle(walk->client, server, false);
    }
    if (head->probe) {
        server->probing = false;
        return DROP;
    }
    if (head->swallow && head->kind == EXPECT_QUERY && !walk->client) {
        settings_refused(walk, &error);
        return DROP;
    }
    if (head->swallow && head->kind == EXPECT_QUERY) {
        relay_finish_output(walk, message);
        if (walk->client->scatter)
            return settings_refused_in_scatter(walk, &error);
        settings_refused(walk, &error);
        walk->client = NULL; /* the walk goes on: what follows is of the reset */
        return server->state == SERVER_CLOSED ? LOST : DROP;
    }
    bool hidden = head->swallow && head->kind != EXPECT_PARSE && !head->prepares;
    enum verdict verdict = hidden ? DROP : FORWARD;
    if (head->more && buffer_length(&head->more->answer)) {
        relay_insert(walk, message, &head->more->answer);
        verdict = DROP;
    } else if (!hidden && is_our_doing(walk, &error)) {
        say_ours(walk, message, &error);
        verdict = DROP;
    } else if (!hidden && walk->client && walk->client->request.series) {
        series_failed(walk->client);
        say_moved(walk, message, body, len);
        verdict = DROP;
    }
    struct prepared *named =
        verdict == FORWARD && head->prepared ? prepared_ref(head->prepared) : NULL;
    uint32_t called = head->called;
    if (head->kind != EXPECT_QUERY) {
        if (walk->client)
            extended_server_error(walk->client);
        server_expect_skip(server);
        mute_query_behind(server);
    }
    if (verdict == FORWARD && say_renamed(walk, named, called, message, body, len))
        verdict = DROP;
    prepared_unref(&server->worker->prepared, named);
    return verdict;
}

bool relay_takes_leave(struct server *server, const char *at, uint32_t length)
{
    struct pg_error error;
    if (at[0] != 'E' && at[0] != 'N')
        return false;
    wire_read_error(at + WIRE_HEADER, length - 4, &error);
    if (!relay_is_last_word(at[0], &error))
        return false;
    snprintf(server->fatal_sqlstate, sizeof server->fatal_sqlstate, "%s", error.sqlstate);
    relay_lose(server, error.message);
    return true;
}
