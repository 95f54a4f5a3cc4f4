/* series.c: several statements of one Query message that no single server can run: one by one. */
#include "proxy/series.h"

#include <stdio.h>
#include <stdlib.h>

#include "pgshunt/arena.h"
#include "pgshunt/shape.h"
#include "pgshunt/wire.h"
#include "proxy/rename.h"
#include "proxy/session.h"

/* In the request's arena. */
struct series {
    const char *sql; /* the whole message */
    struct statement_list list;
    int next;
    bool failed;
    bool ending;  /* the end of its own transaction is under way */
    bool working; /* series_goes_on() would come back from inside: it notes that instead */
    bool over;    /* ... here: the statement at hand is answered */
};

/* ---- whether there is one ---- */

bool series_has_own(const struct statement_list *list)
{
    for (int i = 0; i < list->count; i++)
        if (statement_is_own(list->items[i]))
            return true;
    return false;
}

static bool concerns_transaction(const struct statement *statement)
{
    switch ((int)statement->kind) {
    case STMT_BEGIN:
    case STMT_COMMIT:
    case STMT_ROLLBACK:
    case STMT_SAVEPOINT:
    case STMT_RELEASE:
    case STMT_ROLLBACK_TO:
    case STMT_SET:
    case STMT_SET_TRANSACTION:
    case STMT_RESET:
    case STMT_RESET_ALL:
    case STMT_DISCARD:
    case STMT_PREPARE_TRANSACTION:
        return true;
    default:
        return false;
    }
}

/* What concerns the whole transaction must not go to one of its servers alone. */
static bool reaches_others(const struct client *client)
{
    const struct statement_list *list = &client->request.statements;
    bool others = false, concerns = false;
    for (int i = 0; client->tx && i < client->nparticipants; i++)
        others |= client->participants[i]->begun &&
                  client->participants[i]->shard != client->request.plan.shard;
    for (int i = 0; others && i < list->count; i++)
        concerns |= concerns_transaction(list->items[i]);
    return concerns;
}

bool series_is_needed(const struct client *client)
{
    return client->request.plan.kind != PLAN_DIRECT || reaches_others(client);
}

/* ---- answers of our own ---- */

static void refuse(struct client *client, const char *sqlstate, const char *message,
                   const char *hint)
{
    session_refuse(client,
                   &(struct pg_error){.sqlstate = sqlstate, .message = message, .hint = hint});
}

static void refuse_outside(struct client *client, const char *what)
{
    refuse(client, "25P01",
           arena_printf(client->request.arena, "%s can only be used in transaction blocks", what),
           NULL);
}

static void warn_of_no_block(struct client *client)
{
    struct buffer out = {0};
    wire_put_notice(&out, &(struct pg_error){.severity = "WARNING",
                                             .sqlstate = "25P01",
                                             .message = "there is no transaction in progress"});
    client_send_buffer(client, &out);
}

static bool has_begun(const struct client *client)
{
    for (int i = 0; i < client->nparticipants; i++)
        if (client->participants[i]->begun)
            return true;
    return false;
}

/* COMMIT or ROLLBACK without a block: ends what was run in front of it, and says so. */
static void end_outside(struct client *client, const struct statement *statement)
{
    struct request *request = &client->request;
    bool commit = statement->kind == STMT_COMMIT;
    if (statement->chain) {
        refuse_outside(client, commit ? "COMMIT AND CHAIN" : "ROLLBACK AND CHAIN");
        return;
    }
    warn_of_no_block(client);
    if (client->tx && has_begun(client)) {
        statement_plan_end(client, commit, request->arena, &request->plan);
        scatter_start(client, &(struct scatter_ask){.statement = statement});
        return;
    }
    transaction_end(client, commit);
    struct buffer answer = {0};
    wire_put_complete(&answer, commit ? "COMMIT" : "ROLLBACK");
    simple_answer(client, &answer);
}

/* True: carried out. */
static bool outside_block(struct client *client, const struct statement *statement)
{
    switch ((int)statement->kind) {
    case STMT_COMMIT:
    case STMT_ROLLBACK:
        end_outside(client, statement);
        return true;
    case STMT_SAVEPOINT:
        refuse_outside(client, "SAVEPOINT");
        return true;
    case STMT_RELEASE:
        refuse_outside(client, "RELEASE SAVEPOINT");
        return true;
    case STMT_ROLLBACK_TO:
        refuse_outside(client, "ROLLBACK TO SAVEPOINT");
        return true;
    case STMT_PREPARE_TRANSACTION:
        refuse(client, "25P01",
               "PREPARE TRANSACTION among other statements needs a transaction block",
               "Send BEGIN first.");
        return true;
    case STMT_BEGIN:
        if (!client->tx || !*statement->begin_options || !has_begun(client))
            return false;
        refuse(client, "25001",
               "BEGIN with transaction modes must be in front of what the transaction does",
               "Send BEGIN as the first statement of the message.");
        return true;
    default:
        return false;
    }
}

/* ---- one by one ---- */

static bool is_outside(const struct client *client)
{
    return !client->tx || client->tx->implicit;
}

static void use_statement(struct client *client, struct series *series, int index)
{
    struct request *request = &client->request;
    const struct statement *statement = series->list.items[index];
    const char *text = statement->text;
    if (index == series->list.count - 1) /* comments behind it are its own */
        text = series->sql + statement->location;
    request->sql = text;
    request->sql_kept = true;
    request->names = NULL;
    buffer_clear(&request->explain);
    request->statements = statement_parse(text, request->arena);
}

static void run_statement(struct client *client, struct series *series)
{
    struct request *request = &client->request;
    int index = series->next++;
    session_release_servers(client); /* outside of a transaction the next may want another node */
    use_statement(client, series, index);
    if (request->statements.count != 1) {
        refuse(client, "0A000", "these statements cannot be told apart",
               "Send the statements one by one.");
        return;
    }
    const struct statement *statement = request->statements.items[0];
    if (is_outside(client) && outside_block(client, statement))
        return;
    if (!client->tx && statement->kind != STMT_BEGIN) {
        transaction_begin(client, NULL);
        client->tx->implicit = true;
    }
    simple_run(client);
}

/* True: under way. */
static bool end_transaction(struct client *client, struct series *series)
{
    struct request *request = &client->request;
    if (!client->tx || !client->tx->implicit || series->ending)
        return false;
    series->ending = true;
    if (series->failed)
        client->tx->state = TX_FAILED;
    statement_plan_end(client, !series->failed, request->arena, &request->plan);
    if (!request->plan.nqueries) {
        transaction_end(client, !series->failed);
        return false;
    }
    scatter_start(client, &(struct scatter_ask){.quiet = true});
    return true;
}

static void end(struct client *client)
{
    client->request.series = NULL;
    session_ready(client);
}

static void work(struct client *client, struct series *series)
{
    series->working = true;
    do {
        series->over = false;
        if (series->failed || series->ending || series->next == series->list.count) {
            if (!end_transaction(client, series)) {
                end(client);
                return;
            }
        } else {
            run_statement(client, series);
        }
    } while (client->state == CLIENT_BUSY && series->over);
    if (client->request.series == series)
        series->working = false;
}

bool series_goes_on(struct client *client)
{
    struct series *series = client->request.series;
    if (!series)
        return false;
    series->over = true;
    if (!series->working)
        work(client, series);
    return true;
}

void series_start(struct client *client)
{
    struct request *request = &client->request;
    struct series *series = arena_new(request->arena, struct series);
    const char *sql = request->names ? request->names->asked : request->sql;
    *series = (struct series){.sql = arena_strdup(request->arena, sql)};
    if (request->shape)
        shape_give(client->worker->shapes, request->shape);
    request->shape = NULL;
    series->list = statement_parse(series->sql, request->arena);
    request->series = series;
    request->retriable = false;
    buffer_clear(&request->again);
    work(client, series);
}

void series_failed(struct client *client)
{
    if (client->request.series)
        client->request.series->failed = true;
}

/* ---- errors ---- */

/* Characters of the message in front of the statement at hand. */
static long characters_before(const struct series *series)
{
    long count = 0;
    for (int i = 0; series->next && i < series->list.items[series->next - 1]->location; i++)
        count += ((unsigned char)series->sql[i] & 0xc0) != 0x80;
    return count;
}

void series_put_error(const struct client *client, const char *body, size_t len, struct buffer *out)
{
    struct wire_reader reader = wire_reader(body, len);
    size_t begin = wire_begin(out, 'E');
    for (int field; (field = wire_read8(&reader)) && !reader.bad;) {
        const char *value = wire_read_cstring(&reader);
        if (reader.bad)
            break;
        char position[24];
        long at = field == 'P' ? strtol(value, NULL, 10) : 0;
        if (at > 0 && !(at = rename_position(client, at)))
            continue;
        if (at > 0) {
            snprintf(position, sizeof position, "%ld",
                     at + characters_before(client->request.series));
            value = position;
        }
        wire_put8(out, field);
        wire_put_cstring(out, value);
    }
    wire_put8(out, 0);
    wire_end(out, begin);
}
