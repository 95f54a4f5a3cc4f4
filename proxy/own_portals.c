/* own_portals.c: statements of the session's own in the extended protocol, and what Postgres takes of any
 * statement in a transaction that has failed. */
#include "proxy/extended.h"

#include <string.h>

#include "pgshunt/arena.h"
#include "pgshunt/wire.h"

#define ABORTED "current transaction is aborted, commands ignored until end of transaction block"

static bool in_failed_transaction(const struct client *client)
{
    return client->tx && client->tx->state == TX_FAILED;
}

/* NULL: none, or several, or one that the grammar does not know. */
static const struct statement *only_statement(const struct prepared *prepared)
{
    const struct statement_list *list = &prepared->statements;
    return list->count == 1 && !list->items[0]->syntax_error ? list->items[0] : NULL;
}

/* What a failed transaction takes. */
static bool ends_failure(const struct statement *statement)
{
    enum statement_kind kind = statement->kind;
    return kind == STMT_COMMIT || kind == STMT_ROLLBACK || kind == STMT_ROLLBACK_TO ||
           kind == STMT_PREPARE_TRANSACTION;
}

/* It has values: of other utilities Postgres looks at none before they run. */
static bool is_analyzed(const struct statement *statement)
{
    switch ((int)statement->kind) {
    case STMT_QUERY:
    case STMT_EXPLAIN:
    case STMT_DECLARE_CURSOR:
    case STMT_CREATE_TABLE_AS:
    case STMT_CALL:
        return true;
    default:
        return false;
    }
}

/* How many values its Bind has to have; -1: not known. */
static int values_wanted(const struct prepared *prepared)
{
    const struct statement *statement = only_statement(prepared);
    if (!statement)
        return prepared->statements.count ? -1 : prepared->ntypes;
    if (!is_analyzed(statement) || statement->max_param < prepared->ntypes)
        return prepared->ntypes;
    return statement->max_param;
}

/* The one column that a statement of the session's own gives; NULL: none. */
static const char *own_column(const struct statement *statement)
{
    if (statement->kind == STMT_SHOW)
        return statement->name;
    return statement->kind == STMT_QUERY ? "pg_listening_channels" : NULL;
}

/* ---- Bind ---- */

static bool wrong_values(struct client *client, const struct prepared *prepared,
                         const struct wire_bind *bind)
{
    int wanted = values_wanted(prepared);
    struct arena *arena = client->request.arena;
    const char *message = NULL;
    if (bind->nformats > 1 && bind->nformats != bind->nparams)
        message = arena_printf(arena, "bind message has %d parameter formats but %d parameters",
                               bind->nformats, bind->nparams);
    else if (wanted >= 0 && bind->nparams != wanted)
        message = arena_printf(arena,
                               "bind message supplies %d parameters, but prepared statement \"%s\" "
                               "requires %d",
                               bind->nparams, bind->statement, wanted);
    if (message)
        batch_refuse(client, "08P01", message);
    return message != NULL;
}

bool own_refuses_bind(struct client *client, const struct prepared *prepared,
                      const struct wire_bind *bind)
{
    const struct statement *statement = only_statement(prepared);
    if (wrong_values(client, prepared, bind))
        return true;
    if (!in_failed_transaction(client) || (statement && ends_failure(statement) && !bind->nparams))
        return false;
    batch_refuse(client, "25P02", ABORTED);
    return true;
}

void own_bind(struct client *client, struct prepared *prepared, const struct wire_bind *bind)
{
    struct extended *ext = client->extended;
    if (own_refuses_bind(client, prepared, bind))
        return;
    if (batch_is_named(bind->portal) && names_portal(&ext->names, bind->portal)) {
        batch_refuse(
            client, "42P03",
            arena_printf(client->request.arena, "cursor \"%s\" already exists", bind->portal));
        return;
    }
    names_open(&ext->names, bind->portal, PORTAL_LOCAL, prepared);
    int formats = wire_get16(bind->results);
    if (formats > 1 && own_column(prepared->statements.items[0])) {
        batch_refuse(client, "08P01",
                     arena_printf(client->request.arena,
                                  "bind message has %d result formats but query has 1 columns",
                                  formats));
        return;
    }
    batch_answer_simple(client, '2');
}

/* ---- Describe ---- */

static void put_own_rows(struct buffer *bytes, const struct statement *statement)
{
    struct wire_column column = {own_column(statement), 25};
    if (column.name)
        wire_put_row_description(bytes, &column, 1);
    else
        wire_put_simple(bytes, 'n');
}

static void put_parameters(struct buffer *bytes, const struct prepared *prepared)
{
    size_t begin = wire_begin(bytes, 't');
    wire_put16(bytes, prepared->ntypes);
    for (int i = 0; i < prepared->ntypes; i++)
        wire_put32(bytes, (int32_t)prepared->types[i]);
    wire_end(bytes, begin);
}

static bool knows_types(const struct prepared *prepared)
{
    for (int i = 0; i < prepared->ntypes; i++)
        if (!prepared->types[i])
            return false;
    return values_wanted(prepared) == prepared->ntypes;
}

/* Whether it is certain that it gives no rows. A FETCH does where there is such a cursor. */
static bool gives_nothing(const struct client *client, const struct prepared *prepared)
{
    const struct statement *statement = only_statement(prepared);
    if (!statement)
        return !prepared->statements.count;
    switch ((int)statement->kind) {
    case STMT_QUERY:
        return statement->query && statement->query->kind != QUERY_SELECT &&
               !statement->query->nreturning;
    case STMT_SHOW:
    case STMT_EXPLAIN:
    case STMT_EXECUTE:
    case STMT_CALL:
    case STMT_OTHER:
        return false;
    case STMT_FETCH:
        return strcmp(statement->tag, "MOVE") == 0 || batch_fails_alone(client);
    default:
        return true;
    }
}

/* In a failed transaction Postgres describes what gives no rows. A server may not have the statement, and
 * takes no Parse of it any more. */
static bool describe_in_failure(struct client *client, const struct prepared *prepared)
{
    struct buffer bytes = {0};
    if (!in_failed_transaction(client) || !gives_nothing(client, prepared) ||
        !knows_types(prepared))
        return false;
    put_parameters(&bytes, prepared);
    wire_put_simple(&bytes, 'n');
    batch_answer(client, &bytes);
    return true;
}

bool own_describe(struct client *client, const struct prepared *prepared)
{
    struct buffer bytes = {0};
    if (describe_in_failure(client, prepared))
        return true;
    if (!prepared->own)
        return false;
    if (in_failed_transaction(client)) {
        batch_refuse(client, "25P02", ABORTED);
        return true;
    }
    put_parameters(&bytes, prepared);
    put_own_rows(&bytes, prepared->statements.items[0]);
    batch_answer(client, &bytes);
    return true;
}

void own_describe_portal(struct client *client, const struct portal *portal)
{
    struct buffer bytes = {0};
    const struct statement *statement = portal->prepared->statements.items[0];
    if (in_failed_transaction(client) && own_column(statement)) {
        batch_refuse(client, "25P02", ABORTED);
        return;
    }
    put_own_rows(&bytes, statement);
    batch_answer(client, &bytes);
}

/* ---- Execute ---- */

/*
 * On the transaction's server, from here on in the client's own name: what comes next for the portal is that
 * server's to judge.
 */
static bool run_on_server(struct client *client, struct portal *portal)
{
    struct extended *ext = client->extended;
    struct request *request = &client->request;
    struct prepared *prepared = portal->prepared;
    if (statement_broadcast(client, prepared->statements.items[0], request->arena,
                            &request->plan)) {
        struct scatter_ask ask = {.statement = prepared->statements.items[0], .silent = true};
        bool started = batch_scatter(client, &ask);
        if (started && client->scatter)
            portal->done = true;
        return started;
    }
    unsigned shard = client->nparticipants ? client->participants[0]->shard : 0;
    for (int i = 0; i < client->nparticipants; i++)
        if (client->participants[i]->begun)
            shard = client->participants[i]->shard;
    enum reach reached = batch_reach(client, shard, NODE_CLASS_PRIMARY);
    if (reached != REACH_READY)
        return reached == REACH_FAILED;
    batch_ensure_prepared(client, prepared, true);
    size_t begin = wire_begin(&ext->out, 'B');
    wire_put_cstring(&ext->out, portal->name);
    wire_put_cstring(&ext->out, prepared->server_name);
    wire_put16(&ext->out, 0);
    wire_put16(&ext->out, 0);
    wire_put16(&ext->out, 0);
    wire_end(&ext->out, begin);
    server_expect(ext->server, EXPECT_BIND)->swallow = true;
    batch_execute(client, portal->name, 0, prepared, false);
    portal->kind = PORTAL_SERVER;
    portal->done = true;
    portal->shard = shard;
    if (in_failed_transaction(client))
        batch_settle(client); /* what follows depends on whether it has ended the failure */
    return true;
}

/* Cuts the RowDescription off an answer: Describe has given it. */
static void drop_description(struct buffer *bytes)
{
    if (buffer_length(bytes) > WIRE_HEADER && buffer_head(bytes)[0] == 'T')
        buffer_consume(bytes, 1 + wire_get32(buffer_head(bytes) + 1));
}

bool own_execute_again(struct client *client, const struct portal *portal, bool rows)
{
    const struct statement *statement = only_statement(portal->prepared);
    struct arena *arena = client->request.arena;
    if (!portal->done)
        return false;
    bool exits = statement && ends_failure(statement) && !portal->failed;
    if (in_failed_transaction(client) && !exits) {
        batch_refuse(client, "25P02", ABORTED);
    } else if (rows) {
        struct buffer bytes = {0};
        bool counts = statement->kind == STMT_QUERY;
        bool insert = counts && statement->query->kind == QUERY_INSERT;
        const char *count = insert ? " 0 0" : " 0";
        wire_put_complete(&bytes, arena_printf(arena, "%s%s", statement->tag, counts ? count : ""));
        batch_answer(client, &bytes);
    } else if (!in_failed_transaction(client) && exits) {
        batch_refuse(client, "34000",
                     arena_printf(arena, "portal \"%s\" does not exist", portal->name));
    } else {
        batch_refuse(client, "55000",
                     arena_printf(arena, "portal \"%s\" cannot be run", portal->name));
    }
    return true;
}

static bool run_here(struct client *client, struct portal *portal)
{
    struct buffer bytes = {0};
    struct pg_error error;
    struct prepared *prepared = portal->prepared;
    const struct statement *statement = prepared->statements.items[0];
    bool closes = statement->kind == STMT_COMMIT || statement->kind == STMT_ROLLBACK;
    switch (statement_local(client, statement, &bytes, &error)) {
    case LOCAL_DONE:
        if (!closes) /* else it went with its transaction */
            portal->done = true;
        if (client->request.in_block || statement->kind == STMT_DEALLOCATE ||
            statement->kind == STMT_DISCARD) /* it would be done twice */
            client->request.incomplete = true;
        drop_description(&bytes);
        batch_answer(client, &bytes);
        return true;
    case LOCAL_REFUSED:
        portal->done = true;
        portal->failed = !in_failed_transaction(client);
        extended_refuse(client, &error);
        return true;
    case LOCAL_WAIT:
        return false;
    case LOCAL_NO:
        break;
    }
    return run_on_server(client, portal);
}

bool own_execute(struct client *client, struct portal *portal)
{
    const struct statement *statement = portal->prepared->statements.items[0];
    if (own_execute_again(client, portal, own_column(statement) != NULL))
        return true;
    if (statement->kind == STMT_PREPARE) {
        portal->done = sql_prepare_execute(client, portal->prepared);
        return portal->done;
    }
    if (client->extended->server && !client->tx && statement->kind == STMT_BEGIN) {
        /* A BEGIN behind other statements of the batch: their implicit transaction ends first. */
        batch_settle(client);
        return false;
    }
    return run_here(client, portal);
}
