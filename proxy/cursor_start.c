/* cursor_start.c: what a client asks of a cursor: portals and DECLARE open it, Execute and FETCH take rows, CLOSE ends it. */
#include "proxy/cursor_internal.h"

#include <string.h>

#include "pgshunt/wire.h"
#include "proxy/extended.h"
#include "proxy/gather.h"
#include "proxy/keyless.h"
#include "proxy/shard_query.h"

/* ---- opening ---- */

static void open_parts(struct cursor *c, const struct scatter_ask *ask)
{
    const struct plan *plan = &c->client->request.plan;
    enum shard_formats formats = c->binary ? SHARD_BINARY : SHARD_AS_ASKED;
    for (int i = 0; i < c->nparts; i++) {
        struct cursor_part *part = &c->parts[i];
        struct server *server = client_participant(c->client, part->shard);
        struct buffer more = {0};
        cursors_close_dead(c->client->tx->cursors, part->shard, &more);
        shard_query_put_portal(ask, &plan->queries[i], formats, c->spec.hidden, c->server_name,
                               &more);
        if (c->run.op != OP_DECLARE)
            cursor_put_execute(c, part, &more);
        part->open = true;
        server->unnamed = (struct prepared_key){0};
        cursor_send_part(c, part, server, &more);
        buffer_release(&more);
    }
}

static void open_gathered(struct cursor *c, const struct scatter_ask *ask)
{
    struct cursor_part *part = &c->parts[0];
    struct server *server = client_participant(c->client, part->shard);
    struct buffer more = {0};
    cursors_close_dead(c->client->tx->cursors, part->shard, &more);
    shard_query_put_portal(ask, &c->client->request.plan.gather->query,
                           c->binary ? SHARD_BINARY : SHARD_AS_ASKED, 0, c->server_name, &more);
    part->skip = gather_put_renaming(c->client->request.plan.gather, c->id, server->guarded, &more);
    if (c->run.op != OP_DECLARE)
        cursor_put_execute(c, part, &more);
    part->open = true;
    server->unnamed = (struct prepared_key){0};
    cursor_send_part(c, part, server, &more);
    buffer_release(&more);
}

/* ---- starting ---- */

static bool start(struct client *client, struct cursor *c, enum cursor_op op, int64_t wanted,
                  bool silent, bool describe)
{
    struct cursor_run *run = &c->run;
    *run = (struct cursor_run){.op = op, .wanted = wanted, .silent = silent, .describe = describe};
    client->stats->scatter++;
    client->request.retriable = false;
    scatter_start_cursor(client, c);
    if (silent) {
        struct buffer *early = &client->extended->early;
        client->extended->state = BATCH_SCATTER;
        buffer_append(&run->out, buffer_head(early), buffer_length(early));
        buffer_release(early);
        run->from = buffer_length(&run->out);
    }
    return true;
}

static bool in_failed_block(struct client *client)
{
    static const struct pg_error error = {
        .sqlstate = "25P02",
        .message =
            "current transaction is aborted, commands ignored until end of transaction block"};
    if (!client->tx || client->tx->state != TX_FAILED)
        return false;
    session_refuse(client, &error);
    return true;
}

void cursor_open_portal(struct client *client, struct portal *portal, const struct scatter_ask *ask,
                        int32_t max_rows)
{
    struct cursor *c = cursor_new(client, portal->name, false);
    c->completes = ask->statement;
    portal->cursor = c->id;
    keyless_planned(client, &client->request.plan, ask->statement);
    start(client, c, OP_EXECUTE, max_rows > 0 ? max_rows : CURSOR_ALL_ROWS, true, ask->describe);
    open_parts(c, ask);
}

struct cursor *cursor_of_portal(const struct client *client, const struct portal *portal,
                                bool *gone)
{
    *gone = false;
    if (!portal->cursor || !client->tx || !client->tx->cursors)
        return NULL;
    for (struct cursor *c = client->tx->cursors->first; c; c = c->next) {
        if (c->id == portal->cursor && !c->sql) {
            *gone = c->dead;
            return c->dead ? NULL : c;
        }
    }
    *gone = true;
    return NULL;
}

void cursor_execute(struct client *client, struct cursor *c, int32_t max_rows)
{
    if (in_failed_block(client))
        return;
    start(client, c, OP_EXECUTE, max_rows > 0 ? max_rows : CURSOR_ALL_ROWS, true, false);
    cursor_advance(c);
}

/* Where the transaction has failed the servers' portals cannot give anything any more, and end with it. */
static void close_parts(struct cursor *c)
{
    for (int i = 0; i < c->nparts; i++) {
        struct cursor_part *part = &c->parts[i];
        struct server *server = client_participant(c->client, part->shard);
        struct buffer more = {0};
        if (!part->open || !server)
            continue;
        part->open = false;
        wire_put_close(&more, 'P', c->server_name);
        cursor_send_part(c, part, server, &more);
        buffer_release(&more);
    }
}

void cursor_close(struct client *client, struct cursor *c)
{
    start(client, c, OP_CLOSE, 0, true, false);
    wire_put_simple(&c->run.out, '3');
    close_parts(c);
    cursor_advance(c);
}

/* ---- SQL ---- */

struct cursor *cursor_find(const struct client *client, const char *name)
{
    struct cursor *c =
        client->tx && client->tx->cursors && name ? client->tx->cursors->first : NULL;
    while (c && (c->dead || !c->sql || strcmp(c->name, name) != 0))
        c = c->next;
    return c;
}

struct cursor *cursor_of_statement(const struct client *client, const struct statement *statement)
{
    bool about = statement->kind == STMT_FETCH || statement->kind == STMT_CLOSE_CURSOR;
    return about ? cursor_find(client, statement->name) : NULL;
}

static void refuse(struct client *client, const char *sqlstate, const char *hint,
                   const char *message)
{
    struct pg_error error = {.sqlstate = sqlstate, .message = message, .hint = hint};
    session_refuse(client, &error);
}

static void declare(struct client *client, const struct scatter_ask *ask)
{
    const struct statement *statement = ask->statement;
    struct cursor *c = cursor_new(client, statement->name, true);
    c->binary = statement->cursor_binary;
    start(client, c, OP_DECLARE, 0, ask->silent, false);
    if (ask->silent && ask->describe)
        wire_put_simple(&c->run.out, 'n');
    struct scatter_ask as_text =
        *ask; /* its own Bind's formats are about DECLARE, which has no rows */
    as_text.result_formats = NULL;
    as_text.result_formats_len = 0;
    if (client->request.plan.gather)
        open_gathered(c, &as_text);
    else
        open_parts(c, &as_text);
}

void cursor_declare(struct client *client, const struct scatter_ask *ask)
{
    const struct statement *statement = ask->statement;
    if (!client->tx || client->tx->implicit) {
        if (ask->silent && ask->describe)
            batch_answer_simple(client, 'n');
        refuse(client, "25P01", NULL, "DECLARE CURSOR can only be used in transaction blocks");
        return;
    }
    if (client->request.plan.gather) {
        scatter_start_portal(client, ask, NULL, 0);
        return;
    }
    keyless_planned(client, &client->request.plan, statement);
    declare(client, ask);
}

void cursor_open_gathered(struct client *client, const char *name, const struct scatter_ask *ask,
                          int32_t max_rows)
{
    if (!name) {
        declare(client, ask);
        return;
    }
    struct portal *portal = names_portal(&client->extended->names, name);
    struct cursor *c = cursor_new(client, name, false);
    c->completes = ask->statement;
    if (portal)
        portal->cursor = c->id;
    start(client, c, OP_EXECUTE, max_rows > 0 ? max_rows : CURSOR_ALL_ROWS, true, ask->describe);
    open_gathered(c, ask);
}

static void close_by_sql(struct client *client, struct cursor *c, bool silent)
{
    start(client, c, OP_CLOSE, 0, silent, false);
    if (silent)
        wire_put_complete(&c->run.out, "CLOSE CURSOR");
    close_parts(c);
    cursor_advance(c);
}

static void fetch(struct client *client, struct cursor *c, const struct statement *statement,
                  bool silent, bool describe)
{
    if (statement->fetch_rows < 0) {
        refuse(client, "0A000", "FETCH NEXT, FORWARD n and ALL are what it can.",
               "a cursor over several shards can only scan forward");
        return;
    }
    bool moves = strcmp(statement->tag, "MOVE") == 0;
    int64_t wanted = statement->fetch_rows == INT64_MAX ? CURSOR_ALL_ROWS : statement->fetch_rows;
    start(client, c, moves ? OP_MOVE : OP_FETCH, wanted, silent, false);
    if (describe && !moves)
        cursor_describe(c, &c->run.out);
    cursor_advance(c);
}

bool cursor_statement(struct client *client, const struct statement *statement, bool silent,
                      bool describe)
{
    struct cursor *c = cursor_of_statement(client, statement);
    if (statement->kind == STMT_DECLARE_CURSOR && cursor_find(client, statement->name)) {
        refuse(
            client, "42P03", NULL,
            arena_printf(client->request.arena, "cursor \"%s\" already exists", statement->name));
        return true;
    }
    if (!c || in_failed_block(client))
        return c != NULL;
    if (statement->kind == STMT_CLOSE_CURSOR)
        close_by_sql(client, c, silent);
    else
        fetch(client, c, statement, silent, describe);
    return true;
}
