/*
 * scatter.c: one statement on several shards at once, and their answers made one.
 *
 *   RUNNING --all ready--> (done)                       reads; parts of an explicit transaction
 *      |                                                statements that refuse a transaction
 *      '--all ready, ours to end--> twophase.c --> (done)
 *
 * A change outside a transaction runs inside one on every shard, and is committed only when it succeeded on
 * all of them, deferred constraints checked. Rows go through router's merge; a shard is
 * read only as far as the merge and the client can take.
 */
#include "proxy/scatter_internal.h"

#include <stdlib.h>
#include <string.h>

#include "pgshunt/arena.h"
#include "pgshunt/copyencode.h"
#include "pgshunt/log.h"
#include "pgshunt/merge.h"
#include "pgshunt/wire.h"
#include "proxy/bucket_hold.h"
#include "proxy/cancel.h"
#include "proxy/change.h"
#include "proxy/cursor.h"
#include "proxy/draw.h"
#include "proxy/extended.h"
#include "proxy/gather.h"
#include "proxy/keyless.h"
#include "proxy/late_cancel.h"
#include "proxy/misroute.h"
#include "proxy/pool.h"
#include "proxy/reported.h"
#include "proxy/scatter_copy.h"
#include "proxy/series.h"
#include "proxy/shard_deadlock.h"
#include "proxy/shard_error.h"
#include "proxy/shard_query.h"

#define OUT_MAX 65536

/* ---- sending ---- */

/* Columns behind the client's own, for the merge alone. */
static int hidden_columns(const struct scatter *scatter)
{
    return scatter->plan->merge ? scatter->plan->merge->hidden : 0;
}

static bool draws(const struct scatter *scatter)
{
    return scatter->plan->mode == SCATTER_DRAW;
}

void scatter_await(struct scatter *scatter, struct part *part)
{
    server_expect(part->server, EXPECT_QUERY);
    part->awaited++;
    scatter->awaited++;
}

static void put_part(struct scatter *scatter, struct part *part, const struct shard_query *query,
                     struct buffer *out)
{
    struct scatter_ask ask = scatter->ask;
    struct shard_form form = {
        .formats = SHARD_AS_ASKED, .hidden = hidden_columns(scatter), .describe = true};
    if (scatter->encode && scatter->plan->copy->format == COPY_BINARY)
        form.formats = SHARD_BINARY;
    if (scatter->copy || scatter->encode) /* a Query: a Sync would be lost among its rows */
        ask.prepared = NULL;
    if (draws(scatter))
        ask.prepared = NULL;
    if (scatter->named)
        form.name = scatter_name_part(scatter, part, query, out);
    form.there = scatter->named && !part->parses;
    shard_query_put(&ask, query, &form, out);
    scatter_await(scatter, part);
}

static void send_part(struct part *part, struct buffer *out)
{
    conn_send(&part->server->conn, buffer_head(out), buffer_length(out));
    buffer_release(out);
}

/* Without a query it is only begun. What goes ahead of it has to succeed first. */
static void start_part(struct scatter *scatter, struct part *part, const struct shard_query *query)
{
    struct server *server = part->server;
    struct buffer out = {0};
    attach_prefix(scatter->client, server, &out);
    if (scatter->ends_itself) {
        wire_put_query(&out, "BEGIN");
        server_expect(server, EXPECT_QUERY)->swallow = true;
    }
    part->ahead = scatter->plan->ahead && !scatter->client->tx;
    if (part->ahead) {
        wire_put_query(&out, scatter->plan->ahead);
        scatter_await(scatter, part);
    } else if (query)
        put_part(scatter, part, query, &out);
    if (query && scatter->ends_itself && !scatter->copy) { /* of a COPY behind its rows */
        wire_put_query(&out, COMMIT_CHECK);
        scatter_await(scatter, part);
    }
    if (!scatter->named)
        server->unnamed = (struct prepared_key){0};
    server->request_at = scatter->client->request.started_at;
    send_part(part, &out);
}

/* What went ahead of a part's own query was answered. */
static void follow_ahead(struct scatter *scatter, struct part *part, int index)
{
    struct shard_query query = scatter->plan->queries[index];
    struct buffer out = {0};
    part->ahead = false;
    if (part->complete || part->cancelled) /* it failed */
        return;
    put_part(scatter, part, &query, &out);
    send_part(part, &out);
}

static struct scatter *new_scatter(struct client *client, const struct scatter_ask *ask)
{
    const struct plan *plan = &client->request.plan;
    struct scatter *scatter =
        mem_alloc(sizeof *scatter + sizeof(struct part) * (size_t)plan->nqueries);
    scatter->client = client;
    scatter->ask = *ask;
    scatter->plan = plan;
    scatter->statement = ask->statement;
    scatter->nparts = plan->mode == SCATTER_GATHER ? 0 : plan->nqueries;
    arena_init(&scatter->arena);
    scatter->commits = plan->mode == SCATTER_UTILITY && client->tx &&
                       client->tx->state != TX_FAILED &&
                       (ask->statement ? ask->statement->kind == STMT_COMMIT : ask->quiet);
    scatter->ends_itself = plan->mode != SCATTER_ROWS && plan->mode != SCATTER_GATHER &&
                           plan->mode != SCATTER_COPY_OUT && !plan->no_transaction && !client->tx;
    if (plan->copy && plan->merge)
        scatter->encode = copy_encode_new(plan->copy);
    else if (plan->copy)
        scatter->copy = scatter_copy_new(client, plan);
    if (plan->merge && plan->mode != SCATTER_UTILITY && !is_explain(scatter)) {
        scatter->merge =
            merge_new(plan->merge, plan->nqueries, client->topology->config->max_groups);
        merge_want_description(scatter->merge, ask->describe || scatter->encode);
    }
    scatter->named = plan->mode != SCATTER_CHANGE && scatter_has_names(scatter);
    return scatter;
}

void scatter_start(struct client *client, const struct scatter_ask *ask)
{
    struct scatter *scatter = new_scatter(client, ask);
    const struct plan *plan = scatter->plan;
    client->scatter = scatter;
    draw_drop(client); /* what is there is in the plan's texts */
    keyless_planned(client, plan, ask->statement);
    if (plan->mode == SCATTER_GATHER) {
        client->stats->gather++;
        scatter->gather = gather_start(client, ask);
        return;
    }
    client->stats->scatter++;
    for (int i = 0; i < plan->nnotices; i++)
        wire_put_notice(&scatter->out, &plan->notices[i]);
    if (ask->silent) /* goes out with the answer */
        buffer_append(&scatter->out, buffer_head(&client->extended->early),
                      buffer_length(&client->extended->early));
    if (ask->silent)
        buffer_release(&client->extended->early);
    bool change = plan->mode == SCATTER_CHANGE && !is_explain(scatter);
    for (int i = 0; i < scatter->nparts; i++) {
        struct part *part = &scatter->parts[i];
        struct shard_query query = plan->queries[i];
        part->server = client_participant(client, query.shard);
        part->shard_name = client->database->shards[query.shard].name;
        if (scatter->commits)
            query.sql = COMMIT_CHECK;
        start_part(scatter, part, change ? NULL : &query);
    }
    if (change) {
        scatter->change = change_start(scatter);
        scatter_advance(scatter);
    }
}

void scatter_start_portal(struct client *client, const struct scatter_ask *ask, const char *portal,
                          int32_t max_rows)
{
    scatter_start(client, ask);
    gather_into_cursor(client->scatter->gather, portal, max_rows);
}

void scatter_start_cursor(struct client *client, struct cursor *cursor)
{
    struct scatter *scatter = mem_alloc(sizeof *scatter);
    arena_init(&scatter->arena);
    scatter->client = client;
    scatter->cursor = cursor;
    client->scatter = scatter;
}

void scatter_free(struct client *client)
{
    struct scatter *scatter = client->scatter;
    if (!scatter)
        return;
    commit_forget(scatter);
    scatter_forget_names(scatter);
    for (int i = 0; i < scatter->nparts; i++) {
        free(scatter->parts[i].tag);
        buffer_release(&scatter->parts[i].rows);
    }
    if (scatter->gather)
        gather_free(scatter->gather);
    if (scatter->cursor)
        cursor_stop(scatter->cursor);
    change_free(scatter->change);
    merge_free(scatter->merge);
    scatter_copy_free(scatter->copy);
    copy_encode_free(scatter->encode);
    buffer_release(&scatter->merged);
    buffer_release(&scatter->out);
    arena_free(&scatter->arena);
    free(scatter);
    client->scatter = NULL;
}

/* ---- failing and stopping ---- */

/* What the other shards still do is of no use. */
static void stop_others(struct scatter *scatter)
{
    if (scatter->copy)
        scatter_copy_stop(scatter->copy);
    for (int i = 0; i < scatter->nparts; i++) {
        struct part *part = &scatter->parts[i];
        if (!part->server || part->complete || part->cancelled || !part->awaited)
            continue;
        part->cancelled = true;
        if (scatter->copy)
            scatter_copy_give_up(scatter->copy, part->server);
        late_cancel_send(part->server);
    }
}

void scatter_fail(struct scatter *scatter, const struct pg_error *error, const char *shard_name)
{
    if (scatter->failed)
        return;
    scatter->failed = true;
    scatter->error = shard_error_keep(&scatter->arena, error, shard_name);
    if (scatter->phase == SCATTER_RUNNING && !scatter_goes_on(scatter))
        stop_others(scatter);
}

static bool some_committed(const struct scatter *scatter, struct buffer *names)
{
    for (int i = 0; i < scatter->nparts; i++)
        if (scatter->parts[i].committed && scatter->parts[i].wrote)
            buffer_printf(names, "%s%s", buffer_length(names) ? ", " : "",
                          scatter->parts[i].shard_name);
    return buffer_length(names) > 0;
}

/* A COMMIT failed somewhere: says plainly where it did not. */
static void explain_half_commit(struct scatter *scatter)
{
    struct buffer names = {0};
    if (scatter->one_by_one && some_committed(scatter, &names)) {
        scatter->error.detail =
            arena_printf(&scatter->arena, "%s The transaction is committed on: %s.",
                         scatter->error.detail ? scatter->error.detail : "", buffer_head(&names));
        scatter->error.hint = "The shards differ now: check the rows this transaction changed.";
    }
    buffer_release(&names);
}

/* ---- rows ---- */

static void flush(struct scatter *scatter)
{
    client_answer(scatter->client, &scatter->out);
}

static void pace(struct scatter *scatter)
{
    bool slow = conn_queued(&scatter->client->conn) > OUT_MAX;
    for (int i = 0; i < scatter->nparts; i++) {
        struct part *part = &scatter->parts[i];
        if (!part->server || part->complete || part->cancelled)
            continue;
        if (scatter->merge)
            conn_set_reading(&part->server->conn,
                             scatter->rows_done || (!slow && merge_hungry(scatter->merge, i)));
        else if (scatter->copy && scatter_copy_is_out(scatter->copy))
            conn_set_reading(&part->server->conn, !slow);
    }
}

static void put_copy(struct scatter *scatter)
{
    scatter_put_no_data(scatter);
    copy_encode_put(scatter->encode, &scatter->merged, &scatter->out);
}

/* Merges as far as there is input and the client takes output. */
static void pump(struct scatter *scatter)
{
    if (scatter->copy && !scatter->failed && scatter_copy_has_rows(scatter->copy))
        flush(scatter);
    while (scatter->merge && !scatter->failed && !scatter->rows_done &&
           conn_queued(&scatter->client->conn) <= OUT_MAX) {
        struct buffer *out = scatter->encode ? &scatter->merged : &scatter->out;
        enum merge_status status = merge_run(scatter->merge, out, OUT_MAX);
        if (status == MERGE_FAILED) {
            scatter_fail(scatter, merge_error(scatter->merge), NULL);
            break;
        }
        if (status == MERGE_DONE) {
            scatter->rows_done = true;
            if (!scatter->client
                     ->tx) /* which a cancel would fail: there what comes is thrown away */
                stop_others(scatter);
        }
        /* While there is no row the read of a shard that is lost can still be repeated. */
        if (status == MERGE_WAIT && !merge_rows(scatter->merge))
            break;
        if (scatter->encode)
            put_copy(scatter);
        if (status == MERGE_DONE && !scatter->awaited && !scatter->ends_itself)
            break; /* the last rows go out with the end */
        flush(scatter);
        if (status == MERGE_WAIT)
            break;
    }
    pace(scatter);
}

static bool rows_are_out(const struct scatter *scatter)
{
    return !scatter->merge || scatter->failed || scatter->rows_done;
}

/* ---- the end ---- */

static int64_t total_rows(const struct scatter *scatter)
{
    int64_t total = 0;
    for (int i = 0; i < scatter->nparts; i++) {
        int64_t rows = scatter->parts[i].tag ? wire_tag_rows(scatter->parts[i].tag) : 0;
        total += rows > 0 ? rows : 0;
    }
    return total;
}

static void put_tag(struct scatter *scatter)
{
    const char *first = scatter->parts[0].tag ? scatter->parts[0].tag : "";
    const char *tag = first;
    if (scatter->commits)
        tag = "COMMIT";
    else if (scatter->merge &&
             (scatter->plan->mode == SCATTER_ROWS || strncmp(first, "SELECT ", 7) == 0))
        tag = arena_printf(&scatter->arena, "%s %lld", scatter->encode ? "COPY" : "SELECT",
                           (long long)merge_rows(scatter->merge));
    else if (scatter->plan->mode == SCATTER_UTILITY ||
             (scatter->plan->mode == SCATTER_COPY_IN && !scatter->plan->copy->keyspace))
        tag = first; /* the same everywhere */
    else if (strncmp(first, "INSERT", 6) == 0)
        tag = arena_printf(&scatter->arena, "INSERT 0 %lld", (long long)total_rows(scatter));
    else if (wire_tag_rows(first) >= 0)
        tag = arena_printf(&scatter->arena, "%.*s %lld", (int)strcspn(first, " "), first,
                           (long long)total_rows(scatter));
    wire_put_complete(&scatter->out, tag);
}

static void put_answer(struct scatter *scatter)
{
    if (scatter->failed) {
        explain_half_commit(scatter);
        if (scatter_goes_on(scatter))
            scatter_explain_steps(scatter);
        scatter->client->stats->errors++;
        wire_put_error(&scatter->out, &scatter->error);
        return;
    }
    if (scatter->copy && scatter_copy_is_out(scatter->copy))
        scatter_copy_out_end(scatter->copy, &scatter->out);
    if (scatter->encode)
        copy_encode_end(scatter->encode, &scatter->out);
    if (is_explain(scatter))
        scatter_put_explain(scatter);
    else if (!scatter->merge && scatter->ask.prepared && scatter->ask.describe &&
             !scatter->described)
        wire_put_simple(&scatter->out, 'n');
    if (!scatter->ask.quiet)
        put_tag(scatter);
}

bool scatter_chains(const struct scatter *scatter)
{
    const struct statement *statement = scatter->statement;
    return statement && statement->chain &&
           (statement->kind == STMT_COMMIT || statement->kind == STMT_ROLLBACK);
}

static void note_write(struct client *client, const struct server *server)
{
    if (server)
        session_wrote(client, server);
    else
        session_saw_anything(client);
}

/* A part whose server was lost may have shown some of its rows. */
static void note_seen(struct client *client, const struct server *server)
{
    if (server)
        session_saw(client, server);
    else
        session_saw_anything(client);
}

static bool any_begun(const struct client *client)
{
    for (int i = 0; i < client->nparticipants; i++)
        if (client->participants[i]->begun)
            return true;
    return false;
}

/* In a transaction each of its servers counts as written to. */
static void note_writes_of_block(struct scatter *scatter)
{
    for (int i = 0; scatter->plan->write && !scatter->commits && i < scatter->nparts; i++)
        if (scatter->parts[i].server)
            scatter->parts[i].server->wrote = true;
}

static void follow_transaction(struct scatter *scatter)
{
    struct client *client = scatter->client;
    bool ended = client->tx != NULL, failed = scatter->failed;
    for (int i = 0; i < scatter->nparts; i++) {
        struct server *server = scatter->parts[i].server;
        note_seen(client, server);
        ended &= !server || server->tx_status == 'I';
        failed |= !server || server->tx_status == 'E';
    }
    if (client->tx)
        note_writes_of_block(scatter);
    if (client->tx && (failed || !scatter->statement))
        client->tx->ran = true;
    if (!client->tx) {
        for (int i = 0; scatter->plan->write && i < scatter->nparts; i++)
            note_write(client, scatter->parts[i].server);
        if (scatter->parts[0].server)
            statement_settle(client, scatter->parts[0].server, !failed);
        for (int i = 0; i < scatter->nparts; i++)
            if (scatter->parts[i].server)
                reported_settle(client, scatter->parts[i].server, NULL);
    } else if (!scatter->failed && scatter_chains(scatter)) {
        transaction_chain(client, scatter->commits);
        client->tx->state = any_begun(client) ? TX_OPEN : TX_DEFERRED;
    } else if (ended) {
        transaction_end(client, scatter->commits && !scatter->failed);
    } else {
        client->tx->state = failed ? TX_FAILED : TX_OPEN;
    }
}

static void note_completion(struct scatter *scatter)
{
    struct server *server = scatter->parts[0].server;
    if (scatter->failed || scatter->commits || !server || !scatter->statement)
        return;
    statement_completed(scatter->client, server, scatter->statement,
                        scatter->parts[0].tag ? scatter->parts[0].tag : "", scatter->plan->write);
    server->wrote = false; /* counted in follow_transaction */
}

/* The statement itself comes next, and what was to be told ahead of its answer. */
static void finish_drawing(struct scatter *scatter)
{
    struct client *client = scatter->client;
    bool silent = scatter->ask.silent, ran = client->tx && client->tx->ran;
    note_completion(scatter);
    follow_transaction(scatter);
    if (client->tx) /* nobody has seen the values */
        client->tx->ran = ran;
    if (silent) /* all of it may still have to be asked again */
        buffer_append(&client->extended->early, buffer_head(&scatter->out),
                      buffer_length(&scatter->out));
    else
        flush(scatter);
    scatter_free(client);
    draw_done(client, silent);
}

static void finish(struct scatter *scatter)
{
    struct client *client = scatter->client;
    bool failed = scatter->failed, silent = scatter->ask.silent, corks = !client->conn.corked;
    if (draws(scatter) && !failed) {
        finish_drawing(scatter);
        return;
    }
    if (corks)
        conn_cork(&client->conn); /* until it is ready */
    if (failed)
        series_failed(client);
    put_answer(scatter);
    note_completion(scatter);
    follow_transaction(scatter);
    if (scatter->parts[0].server)
        reported_tell(client, scatter->parts[0].server, &scatter->out);
    flush(scatter);
    for (int i = 0; i < scatter->nparts; i++)
        if (scatter->parts[i].server)
            conn_set_reading(&scatter->parts[i].server->conn, true);
    scatter_free(client);
    if (silent)
        extended_scatter_done(client, failed);
    else
        session_ready(client);
    if (corks)
        client_uncork(client);
}

static bool waits_for_cancels(const struct scatter *scatter)
{
    bool goes_on = scatter->client->tx || scatter->ends_itself;
    return goes_on && late_cancel_is_under_way(scatter->client);
}

/* All that was awaited has come. */
void scatter_advance(struct scatter *scatter)
{
    pump(scatter);
    if (scatter->awaited || !rows_are_out(scatter) || waits_for_cancels(scatter))
        return;
    if (scatter->change && scatter->phase == SCATTER_RUNNING && !change_advance(scatter->change))
        return;
    if (scatter->ends_itself || scatter->commits)
        commit_advance(scatter);
    if (!scatter->awaited && scatter->phase != SCATTER_WAITING)
        finish(scatter);
}

void scatter_drained(struct client *client)
{
    if (client->scatter->gather)
        gather_drained(client->scatter->gather);
    else if (client->scatter->cursor)
        cursor_drained(client->scatter->cursor);
    else
        scatter_advance(client->scatter);
}

void scatter_pump(struct client *client)
{
    if (client->scatter->gather) {
        gather_pump(client->scatter->gather);
        return;
    }
    if (client->scatter->cursor) /* merges when all it has asked for is there */
        return;
    pump(client->scatter);
    if (!client->scatter->awaited)
        scatter_advance(client->scatter);
    else if (scatter_takes_copy(client))
        client_continue(client); /* rows that were sent ahead */
}

/* ---- messages from the shards ---- */

static struct part *find_part(struct scatter *scatter, const struct server *server, int *index)
{
    for (int i = 0; i < scatter->nparts; i++) {
        if (scatter->parts[i].server == server) {
            *index = i;
            return &scatter->parts[i];
        }
    }
    return NULL;
}

/* What one taken for a read has changed on a primary is committed there: it must not be done once more. */
static bool all_on_replicas(const struct scatter *scatter)
{
    for (int i = 0; i < scatter->nparts; i++) {
        const struct server *server = scatter->parts[i].server;
        if (!server || atomic_load(&server->pool->node->role) != NODE_ROLE_REPLICA)
            return false;
    }
    return true;
}

/* A replica has refused its part of a read of which nothing is out, or has prepared it before a change of its
 * tables: all of it runs once more. */
static bool asks_again(struct scatter *scatter, struct part *part, const struct pg_error *error)
{
    struct client *client = scatter->client;
    bool whole = !client->request.forwarded && !scatter->failed && all_on_replicas(scatter);
    const struct statement *statement = scatter->ask.statement;
    if (!scatter_is_outdated(scatter, part, error) &&
        !misroute_happened(client, part->server, error, statement ? statement->text : "", whole))
        return false;
    scatter_abandon(client);
    session_ask_again(client);
    return true;
}

static void error_message(struct scatter *scatter, struct part *part, const char *body, size_t len)
{
    struct pg_error error;
    wire_read_error(body, len, &error);
    if (scatter_asks_newer(scatter, &error) || asks_again(scatter, part, &error))
        return;
    if (scatter->client->request
            .names) /* the shards have the query with values in it, or its own text */
        error.position = 0;
    bool ours = part->cancelled && strcmp(error.sqlstate, "57014") == 0;
    bool echo = strcmp(error.sqlstate, "25P02") == 0; /* of the statement behind the failed one */
    part->complete = true;
    if (!part->cancelled) {
        shard_deadlock_explain(scatter->client, &error);
        bucket_hold_explain(scatter->client, &error);
    }
    if (commit_took_error(scatter, part, &error))
        return;
    if (scatter->copy)
        error.where = scatter_copy_where(scatter->copy, (int)(part - scatter->parts), error.where,
                                         &scatter->arena);
    if (!ours && !(echo && scatter->failed))
        scatter_fail(scatter, &error, part->shard_name);
}

static void complete_message(struct scatter *scatter, struct part *part, int index,
                             const char *body, size_t len)
{
    if (!len || body[len - 1] != '\0')
        return;
    if (scatter->phase != SCATTER_RUNNING) {
        commit_took_tag(scatter, part, body);
        return;
    }
    if (part->ahead || part->complete) /* the answers to COMMIT_CHECK behind it */
        return;
    part->complete = true;
    part->tag = mem_strdup(body);
    if (scatter->merge && !scatter->failed && !merge_feed(scatter->merge, index, 'C', "", 0))
        scatter_fail(scatter, merge_error(scatter->merge), NULL);
}

static void copy_message(struct buffer *out, char type, const char *body, size_t len)
{
    size_t begin = wire_begin(out, type);
    wire_put_bytes(out, body, len);
    wire_end(out, begin);
}

static void fail_malformed(struct scatter *scatter, const struct part *part)
{
    struct pg_error error = {.sqlstate = "08P01", .message = "a shard sent a malformed row"};
    scatter_fail(scatter, &error, part->shard_name);
}

static void row_message(struct scatter *scatter, struct part *part, int index, char type,
                        const char *body, size_t len)
{
    if (part->complete) {
        if (type == 'D')
            commit_took_check(part, body, len);
    } else if (draws(scatter)) {
        if (type == 'D' && !draw_take_row(scatter->client, body, len))
            fail_malformed(scatter, part);
    } else if (is_explain(scatter)) {
        if (type == 'D')
            copy_message(&part->rows, type, body, len);
    } else if (!scatter->merge) {
        /* The same on every shard: the first one's rows are the answer. */
        if (index == 0 && (type == 'D' || scatter->ask.describe))
            copy_message(&scatter->out, type, body, len);
        scatter->described |= type == 'T';
    } else if (scatter->merge && !scatter->failed && !part->cancelled && !scatter->rows_done) {
        if (!merge_feed(scatter->merge, index, type, body, len))
            scatter_fail(scatter, merge_error(scatter->merge), NULL);
    }
}

static void notice_message(struct scatter *scatter, int index, const char *body, size_t len)
{
    if (index == 0)
        copy_message(&scatter->out, 'N', body, len);
}

static void ready_message(struct scatter *scatter, struct part *part, int index, const char *body,
                          size_t len)
{
    part->server->tx_status = len == 1 ? body[0] : 'E';
    server_expect_pop(part->server);
    part->awaited--;
    scatter->awaited--;
    if (part->ahead)
        follow_ahead(scatter, part, index);
    if (!scatter->awaited)
        scatter_advance(scatter);
}

void scatter_message(struct server *server, char type, const char *body, size_t len)
{
    struct scatter *scatter = server->client->scatter;
    int index = 0;
    if (scatter->gather) {
        gather_message(scatter->gather, server, type, body, len);
        return;
    }
    if (scatter->cursor) {
        cursor_message(scatter->cursor, server, type, body, len);
        return;
    }
    struct part *part = find_part(scatter, server, &index);
    if (!part)
        return;
    if (scatter->change && !part->complete && !strchr("ENSZ", type)) {
        change_message(scatter->change, index, type, body, len);
        return;
    }
    switch (type) {
    case '1':
        scatter_part_parsed(scatter, part);
        break;
    case 'T':
    case 'D':
        row_message(scatter, part, index, type, body, len);
        break;
    case 'C':
    case 'I':
        complete_message(scatter, part, index, type == 'I' ? "" : body, type == 'I' ? 1 : len);
        break;
    case 'E':
        error_message(scatter, part, body, len);
        break;
    case 'N':
        notice_message(scatter, index, body, len);
        break;
    case 'G':
    case 'H':
    case 'd':
        scatter_copying_message(scatter, part, index, type, body, len);
        break;
    case 'S': {
        struct wire_reader reader = wire_reader(body, len);
        const char *name = wire_read_cstring(&reader), *value = wire_read_cstring(&reader);
        if (reader.bad)
            break;
        reported_take(server, name, value, true);
        break;
    }
    case 'Z':
        ready_message(scatter, part, index, body, len);
        break;
    default:
        break;
    }
}

/* ---- losing a shard ---- */

void scatter_lost(struct client *client, struct server *server, const char *reason)
{
    struct scatter *scatter = client->scatter;
    int index = 0;
    if (scatter->gather) {
        gather_lost(scatter->gather, server, reason);
        return;
    }
    if (scatter->cursor) {
        cursor_lost(scatter->cursor, server, reason);
        return;
    }
    struct part *part = find_part(scatter, server, &index);
    if (!part)
        return;
    struct pg_error error = {
        .sqlstate = server->fatal_sqlstate[0] ? server->fatal_sqlstate : "08006",
        .message = arena_printf(&scatter->arena, "lost the connection to shard %s: %s",
                                part->shard_name, reason),
        .hint = "Nothing was committed; run the statement again."};
    bool matters = commit_lost(scatter, part, &error);
    part->server = NULL;
    part->complete = true;
    scatter->awaited -= part->awaited;
    part->awaited = 0;
    if (matters)
        scatter_fail(scatter, &error, NULL);
    if (!scatter->awaited)
        scatter_advance(scatter);
}

void scatter_abandon(struct client *client)
{
    scatter_free(client);
    while (client->nparticipants) {
        struct server *server = client->participants[client->nparticipants - 1];
        if (server->expect_count)
            cancel_server(server);
        server_drop(server, "its fan-out is repeated elsewhere");
    }
}
