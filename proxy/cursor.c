/*
 * cursor.c: a result of several shards taken in parts.
 *
 *   OPENING --described--> PARKED --Execute, FETCH--> FETCHING --the part is out--> PARKED ... --> dead
 *                                                      |   ^
 *                          the merge starves for rows  v   | they are here
 *                                                     (shards asked)
 *
 * While it is at work client->scatter leads to it, as to any fan-out; when it is parked nothing does but
 * its transaction, and no answer of a server is awaited.
 */
#include "proxy/cursor_internal.h"

#include <stdlib.h>
#include <string.h>

#include "pgshunt/wire.h"
#include "proxy/extended.h"
#include "proxy/late_cancel.h"
#include "proxy/reported.h"
#include "proxy/shard_error.h"

#define OUT_MAX 65536
/* Rows asked for in one go, of one shard; of wide rows fewer, so that it is about CHUNK_BYTES. */
#define CHUNK_MIN 100
#define CHUNK_MAX 10000
#define CHUNK_BYTES 1048576

/* ---- failing ---- */

static void stop_others(struct cursor *c)
{
    for (int i = 0; i < c->nparts; i++) {
        struct cursor_part *part = &c->parts[i];
        struct server *server = client_participant(c->client, part->shard);
        if (!part->awaited || part->cancelled || !server)
            continue;
        part->cancelled = true;
        late_cancel_send(server);
    }
}

static void fail(struct cursor *c, const struct pg_error *error, const char *shard_name)
{
    struct cursor_run *run = &c->run;
    if (run->failed)
        return;
    run->failed = true;
    run->error = shard_error_keep(&c->arena, error, shard_name);
    run->error.position = 0; /* it points into another text */
    stop_others(c);
}

/* ---- asking the shards ---- */

static int32_t chunk(const struct cursor *c, const struct cursor_part *part)
{
    const struct cursor_run *run = &c->run;
    int64_t rows = run->wanted == CURSOR_ALL_ROWS ? CHUNK_MAX : run->wanted - run->sent;
    if (rows < CHUNK_MIN && c->nparts > 1) /* of one server no row is asked for too early */
        rows = CHUNK_MIN;
    if (rows > CHUNK_MAX)
        rows = CHUNK_MAX;
    int64_t fitting = part->rows ? CHUNK_BYTES / (part->bytes / part->rows + 1) : CHUNK_MIN;
    if (rows > fitting)
        rows = fitting;
    return rows > 0 ? (int32_t)rows : 1;
}

void cursor_put_execute(const struct cursor *c, const struct cursor_part *part, struct buffer *out)
{
    size_t begin = wire_begin(out, 'E');
    wire_put_cstring(out, c->server_name);
    wire_put32(out, chunk(c, part));
    wire_end(out, begin);
}

void cursor_send_part(struct cursor *c, struct cursor_part *part, struct server *server,
                      const struct buffer *more)
{
    struct buffer out = {0};
    attach_prefix(c->client, server, &out);
    buffer_append(&out, buffer_head(more), buffer_length(more));
    wire_put_simple(&out, 'S');
    server_expect(server, EXPECT_QUERY);
    server->request_at = c->client->request.started_at;
    part->awaited = true;
    c->run.awaited++;
    conn_send(&server->conn, buffer_head(&out), buffer_length(&out));
    buffer_release(&out);
}

static void fail_lost(struct cursor *c, const struct cursor_part *part, const char *reason)
{
    struct pg_error error = {.sqlstate = "08006",
                             .message =
                                 arena_printf(&c->arena, "lost the connection to shard %s: %s",
                                              part->shard_name, reason),
                             .hint = "Roll back, and run the transaction again."};
    fail(c, &error, NULL);
}

/* The rows that the merge cannot go on without. */
static void refill(struct cursor *c)
{
    for (int i = 0; i < c->nparts && !c->run.failed; i++) {
        struct cursor_part *part = &c->parts[i];
        struct server *server = client_participant(c->client, part->shard);
        struct buffer more = {0};
        if (part->done || !merge_starves(c->merge, i))
            continue;
        if (!server) {
            fail_lost(c, part, "it is gone");
            return;
        }
        cursor_put_execute(c, part, &more);
        cursor_send_part(c, part, server, &more);
        buffer_release(&more);
    }
}

/* ---- the answer ---- */

/* The merge writes the description once, ahead of the first row: it is kept. */
static enum merge_status first_step(struct cursor *c, size_t room)
{
    struct buffer rows = {0};
    enum merge_status status = merge_run(c->merge, &rows, room);
    if (buffer_length(&rows) > WIRE_HEADER && buffer_head(&rows)[0] == 'T') {
        size_t size = 1 + (size_t)wire_get32(buffer_head(&rows) + 1);
        buffer_append(&c->description, buffer_head(&rows), size);
        buffer_consume(&rows, size);
        if (c->run.describe)
            cursor_describe(c, &c->run.out);
    }
    buffer_append(&c->run.out, buffer_head(&rows), buffer_length(&rows));
    buffer_release(&rows);
    return status;
}

static enum merge_status step(struct cursor *c)
{
    struct cursor_run *run = &c->run;
    size_t room = run->wanted == CURSOR_ALL_ROWS ? OUT_MAX : 1; /* 1: one row */
    int64_t before = merge_rows(c->merge);
    size_t kept = buffer_length(&run->out);
    enum merge_status status =
        buffer_length(&c->description) ? merge_run(c->merge, &run->out, room) : first_step(c, room);
    run->sent += merge_rows(c->merge) - before;
    if (run->op == OP_MOVE)
        run->out.end = run->out.start + kept;
    if (buffer_length(&run->out) >= OUT_MAX) {
        client_answer(c->client, &c->run.out);
        run->partly = true;
    }
    return status;
}

/* Takes rows out of the merge. True: the part is out; false: shards or the client are waited for. */
static bool produce(struct cursor *c)
{
    struct cursor_run *run = &c->run;
    while (!run->failed && run->op != OP_CLOSE) {
        bool enough = run->op == OP_DECLARE || (run->wanted >= 0 && run->sent >= run->wanted);
        if (enough && buffer_length(&c->description))
            return true;
        if (conn_queued(&c->client->conn) > OUT_MAX)
            return false;
        enum merge_status status = step(c);
        if (status == MERGE_FAILED) {
            fail(c, merge_error(c->merge), NULL);
        } else if (status == MERGE_DONE) {
            run->ended = run->wanted == CURSOR_ALL_ROWS || run->sent < run->wanted;
            return true;
        } else if (status == MERGE_WAIT) {
            if (run->op == OP_DECLARE || (run->wanted >= 0 && run->sent >= run->wanted))
                return true;
            refill(c);
            if (!run->failed)
                return run->awaited == 0;
        }
    }
    return true;
}

static void put_tag(struct cursor *c)
{
    struct cursor_run *run = &c->run;
    const char *word = "FETCH";
    switch (run->op) {
    case OP_DECLARE:
        wire_put_complete(&run->out, "DECLARE CURSOR");
        return;
    case OP_CLOSE:
        if (c->sql && !run->silent)
            wire_put_complete(&run->out, "CLOSE CURSOR");
        return;
    case OP_EXECUTE:
        if (!run->ended) {
            wire_put_simple(&run->out, 's');
            return;
        }
        word = c->verb ? c->verb : "SELECT";
        break;
    case OP_MOVE:
        word = "MOVE";
        break;
    case OP_FETCH:
        break;
    }
    wire_put_complete(&run->out, arena_printf(&c->arena, "%s %lld", word, (long long)run->sent));
}

static void follow_transaction(struct cursor *c)
{
    struct client *client = c->client;
    for (int i = 0; i < c->nparts; i++) {
        struct server *server = client_participant(client, c->parts[i].shard);
        if (server)
            session_saw(client, server);
        else
            session_saw_anything(client);
    }
    client->tx->state = c->run.failed ? TX_FAILED : TX_OPEN;
}

static void note_completion(struct cursor *c)
{
    struct server *server = client_participant(c->client, c->parts[0].shard);
    if (!c->completes || c->run.failed || !server)
        return;
    statement_completed(c->client, server, c->completes, c->verb ? c->verb : "SELECT 1", c->write);
}

/* Describe was answered ahead of the Execute that failed, as far as shards have told. */
static void describe_failed(struct cursor *c)
{
    size_t kept = buffer_length(&c->run.out);
    (void)first_step(c, 1);
    c->run.out.end = c->run.out.start + kept + buffer_length(&c->description);
}

static void finish(struct cursor *c)
{
    struct client *client = c->client;
    struct cursor_run *run = &c->run;
    bool failed = run->failed, silent = run->silent;
    if (failed) {
        if (run->describe && !buffer_length(&c->description) && run->op == OP_EXECUTE)
            describe_failed(c);
        if (run->op == OP_FETCH && !run->partly) /* Postgres has all its rows before it gives one */
            wire_drop_rows(&run->out, run->from);
        client->stats->errors++;
        wire_put_error(&run->out, &run->error);
    } else {
        put_tag(c);
    }
    note_completion(c);
    follow_transaction(c);
    struct server *server = client_participant(client, c->parts[0].shard);
    if (server)
        reported_tell(client, server, &run->out);
    client_answer(c->client, &c->run.out);
    if (failed || run->op == OP_CLOSE)
        cursor_drop_rows(c);
    scatter_free(client);
    cursors_forget_dead(client->tx->cursors);
    if (silent)
        extended_scatter_done(client, failed);
    else
        session_ready(client);
}

void cursor_advance(struct cursor *c)
{
    bool out = !c->run.awaited && produce(c) && !c->run.awaited;
    if (out && !(c->run.failed && late_cancel_is_under_way(c->client)))
        finish(c);
}

void cursor_drained(struct cursor *cursor)
{
    cursor_advance(cursor);
}

void cursor_stop(struct cursor *c)
{
    buffer_release(&c->run.out);
    c->run = (struct cursor_run){0};
    c->completes = NULL;
}

void cursor_describe(const struct cursor *cursor, struct buffer *out)
{
    buffer_append(out, buffer_head(&cursor->description), buffer_length(&cursor->description));
}

/* ---- messages from the shards ---- */

static struct cursor_part *find_part(struct cursor *c, const struct server *server, int *index)
{
    for (int i = 0; i < c->nparts; i++) {
        if (c->parts[i].awaited && client_participant(c->client, c->parts[i].shard) == server) {
            *index = i;
            return &c->parts[i];
        }
    }
    return NULL;
}

static void keep_verb(struct cursor *c, const char *tag, size_t len)
{
    if (c->verb || !len || tag[len - 1])
        return;
    size_t size = strncmp(tag, "INSERT 0", 8) == 0 ? 8 : strcspn(tag, " ");
    c->verb = mem_strdup(tag);
    c->verb[size] = '\0';
}

static void feed(struct cursor *c, struct cursor_part *part, int index, char type, const char *body,
                 size_t len)
{
    if (type == 'C' && part->skip) {
        part->skip--;
        return;
    }
    if (type == 'D') {
        part->rows++;
        part->bytes += (int64_t)len;
    }
    if (type == 'C') {
        part->done = true;
        keep_verb(c, body, len);
        len = 0;
    }
    if (!c->run.failed && c->run.op != OP_CLOSE && !merge_feed(c->merge, index, type, body, len))
        fail(c, merge_error(c->merge), NULL);
}

static void error_message(struct cursor *c, const struct cursor_part *part, const char *body,
                          size_t len)
{
    struct pg_error error;
    wire_read_error(body, len, &error);
    if (!part->cancelled || strcmp(error.sqlstate, "57014") != 0)
        fail(c, &error, part->shard_name);
}

static void notice_message(struct cursor *c, int index, const char *body, size_t len)
{
    if (index != 0)
        return;
    size_t begin = wire_begin(&c->run.out, 'N');
    wire_put_bytes(&c->run.out, body, len);
    wire_end(&c->run.out, begin);
}

static void ready_message(struct cursor *c, struct cursor_part *part, struct server *server,
                          const char *body, size_t len)
{
    server->tx_status = len == 1 ? body[0] : 'E';
    server_expect_pop(server);
    part->awaited = false;
    c->run.awaited--;
    cursor_advance(c);
}

static void parameter_message(struct server *server, const char *body, size_t len)
{
    struct wire_reader reader = wire_reader(body, len);
    const char *name = wire_read_cstring(&reader), *value = wire_read_cstring(&reader);
    if (!reader.bad)
        reported_take(server, name, value, true);
}

void cursor_message(struct cursor *c, struct server *server, char type, const char *body,
                    size_t len)
{
    int index = 0;
    struct cursor_part *part = find_part(c, server, &index);
    if (!part)
        return;
    switch (type) {
    case 'T':
    case 'D':
    case 'C':
        feed(c, part, index, type, body, len);
        break;
    case 'E':
        error_message(c, part, body, len);
        break;
    case 'N':
        notice_message(c, index, body, len);
        break;
    case 'S':
        parameter_message(server, body, len);
        break;
    case 'Z':
        ready_message(c, part, server, body, len);
        break;
    default:
        break;
    }
}

void cursor_lost(struct cursor *c, struct server *server, const char *reason)
{
    for (int i = 0; i < c->nparts; i++) {
        struct cursor_part *part = &c->parts[i];
        if (part->shard != server->shard)
            continue;
        c->run.awaited -= part->awaited;
        part->awaited = part->open = false;
        fail_lost(c, part, reason);
    }
    cursor_advance(c);
}
