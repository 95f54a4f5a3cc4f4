/* sequences.c: currval() and lastval() over shared servers: one's own values or none. */
#include "proxy/sequences.h"

#include <string.h>

#include "pgshunt/session_function.h"
#include "pgshunt/wire.h"
#include "proxy/client.h"
#include "proxy/credentials.h"
#include "proxy/pins.h"
#include "proxy/pool.h"

#define SEVERAL UINT32_MAX  /* server->sequence_user; no client's id */
#define RESERVED_US 1000000 /* between an INSERT and the question for what it has drawn */

static bool calls(const struct statement *statement, enum session_function kind)
{
    for (int i = 0; statement->facts & FACT_SESSION && i < statement->nfunctions; i++)
        if (session_function(statement->functions[i].name) == kind)
            return true;
    return false;
}

/* Defaults take numbers from sequences. */
static bool may_advance(const struct statement *statement)
{
    const struct statement *inner = statement->inner ? statement->inner : statement;
    return statement->kind == STMT_COPY_FROM || (inner->facts & FACT_MODIFYING_CTE) ||
           (inner->query &&
            (inner->query->kind == QUERY_INSERT || inner->query->kind == QUERY_MERGE)) ||
           calls(statement, SESSION_SEQUENCE);
}

/* Somebody of this user of this database wants what an INSERT of its own has drawn, or is said to. */
static bool is_learned(const struct client *client)
{
    return credential_asks_last_value(client->account->credential) ||
           client->topology->config->expect_last_value;
}

void sequences_planned(struct client *client, const struct statement *statement,
                       const struct plan *plan)
{
    client->request.writes |= plan->write;
    bool advances = plan->write && may_advance(statement);
    if (calls(statement, SESSION_CURRVAL)) {
        client->request.asks_last_value = true;
        if (!client->tx && !client_keeps_servers(client))
            credential_note_last_value(client->account->credential);
    }
    client->request.may_use_sequences |=
        statement_may_use_sequence_state(statement) || (advances && is_learned(client));
    client->request.may_advance |= advances;
}

/* All of the state there is this client's, and it has left none elsewhere since. */
static bool is_own(const struct client *client, const struct server *server)
{
    return server->sequence_user == client->id && client->sequence_server == server->id;
}

/* A transaction has begun with a clean server; what was pinned was clean then. */
static bool is_foreign(const struct client *client, const struct server *server)
{
    if (!server->sequence_user || server->begun || server->pins >> PIN_SEQUENCE & 1)
        return false;
    if (client_keeps_servers(client))
        return server->sequence_user != client->id;
    return !is_own(client, server);
}

bool sequences_in_the_way(const struct client *client, const struct server *server)
{
    return client->request.writes && client->request.may_use_sequences &&
           is_foreign(client, server);
}

void sequences_used(struct client *client, struct server *server)
{
    if (client->request.may_advance)
        client->sequence_shard = (uint16_t)(server->shard + 1);
    if (!client->request.writes || is_own(client, server))
        return;
    client->sequence_server = server->id;
    if (server->pins >> PIN_SEQUENCE & 1)
        return;
    if (!client_keeps_servers(client) || server->sequence_user != client->id)
        server->sequence_user = server->sequence_user ? SEVERAL : client->id;
}

/*
 * It stands in front of the settings, so that the client hears of no parameters in between, and whose own transaction
 * ends before the client's begins. In the text of a BEGIN it would leave a snapshot in that transaction, and what sets
 * the isolation level has to come before any.
 */
static bool joins_text(const struct client *client, const struct server *server)
{
    return server->guc != client->guc;
}

static void put_discard(struct client *client, struct server *server, struct buffer *out,
                        struct buffer *sql)
{
    static const char discard[] = "DISCARD SEQUENCES";
    server->sequence_user = 0;
    if (joins_text(client, server)) {
        buffer_append(sql, discard, sizeof discard - 1);
        buffer_append(sql, ";", 1);
        return;
    }
    wire_put_query(out, discard);
    server_expect(server, EXPECT_QUERY)->swallow = true;
    server->unnamed = (struct prepared_key){0};
}

void sequences_ahead(struct client *client, struct server *server, struct buffer *out,
                     struct buffer *sql)
{
    const struct request *request = &client->request;
    if (request->asks_last_value && !client->tx && !client_keeps_servers(client))
        client->lost_sequences |= !is_own(client, server);
    /* Before most writes outside transactions it would cost more than the write, for nothing. */
    bool needed = client->tx || request->may_use_sequences || client->lost_sequences;
    if (needed && (request->writes || client->tx) && is_foreign(client, server))
        put_discard(client, server, out, sql);
    sequences_used(client, server);
}

void sequences_follow(struct client *client, struct server *server)
{
    if (client->lost_sequences && !client_keeps_servers(client) && is_own(client, server))
        pin(client, server, PIN_SEQUENCE);
}

/* The values of another client that has put them there a moment ago, and may ask for them yet. */
static bool is_reserved(const struct client *client, const struct server *server, int64_t now)
{
    uint32_t user = server->sequence_user;
    return user && user != SEVERAL && user != client->id && now - server->idle_since < RESERVED_US;
}

static struct server *own_server(const struct client *client, const struct list_node *idle)
{
    for (struct list_node *node = idle->next; node != idle; node = node->next) {
        struct server *server = list_entry(node, struct server, link);
        if (is_own(client, server))
            return server;
    }
    return NULL;
}

struct server *sequences_choose(const struct client *client, const struct list_node *idle,
                                int64_t now, bool *another)
{
    struct server *server = list_entry(idle->next, struct server, link);
    const struct request *request = &client->request;
    if (request->asks_last_value && client->sequence_server) {
        struct server *own = own_server(client, idle);
        return own ? own : server;
    }
    if (!server->sequence_user || !is_learned(client))
        return server;
    for (struct list_node *node = idle->next; node != idle; node = node->next) {
        server = list_entry(node, struct server, link); /* at last the one used longest ago */
        if (!is_reserved(client, server, now))
            return server;
    }
    *another = request->writes;
    return server;
}
