/* server.c: a server connection's life, its queue of expectations and what it is known to carry. */
#include "proxy/server.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pgshunt/arena.h"
#include "pgshunt/log.h"
#include "pgshunt/wire.h"
#include "proxy/cancel.h"
#include "proxy/client.h"
#include "proxy/hub.h"
#include "proxy/monitor.h"
#include "proxy/node_health.h"
#include "proxy/pool.h"
#include "proxy/replication.h"
#include "proxy/server_login.h"
#include "proxy/server_tls.h"
#include "proxy/session.h"
#include "proxy/tls.h"
#include "proxy/names.h"
#include "proxy/worker.h"

const char *server_state_name(enum server_state state)
{
    switch (state) {
    case SERVER_CONNECTING:
    case SERVER_LOGIN:
        return "login";
    case SERVER_IDLE:
        return "idle";
    case SERVER_ACTIVE:
        return "active";
    case SERVER_CLOSED:
        return "closed";
    }
    return "?";
}

/* ---- expectations ---- */

static void release_more(struct expect_more *more)
{
    free(more->formats);
    buffer_release(&more->answer);
    if (more->settings)
        guc_pending_free(more->settings);
    free(more->settings);
    free(more);
}

struct expect_more *expect_more(struct expect *expect)
{
    if (!expect->more)
        expect->more = mem_alloc(sizeof *expect->more);
    return expect->more;
}

void expect_take_answer(struct expect *expect, struct buffer *bytes)
{
    if (!expect->more) {
        wire_put_simple(bytes, expect->says);
        return;
    }
    *bytes = expect->more->answer;
    expect->more->answer = (struct buffer){0};
}

void server_expect_release(struct server *server, struct expect *expect)
{
    if (expect->kind == EXPECT_PARSE || expect->prepares)
        *(expect->unnamed ? &server->parsing_unnamed : &server->parsing) -= 1;
    prepared_unref(&server->worker->prepared, expect->prepared);
    if (expect->older)
        prepared_unref(&server->worker->prepared, expect->older);
    if (expect->defines)
        name_free(expect->defines);
    if (expect->more)
        release_more(expect->more);
}

static COLD __attribute__((noinline)) void expects_grow(struct server *server)
{
    int cap = server->expect_cap ? server->expect_cap * 2 : 8;
    struct expect *grown = mem_alloc(sizeof *grown * (size_t)cap);
    for (int i = 0; i < server->expect_count; i++)
        grown[i] = server->expects[(server->expect_head + i) % server->expect_cap];
    free(server->expects);
    server->expects = grown;
    server->expect_cap = cap;
    server->expect_head = 0;
}

struct expect *server_expect(struct server *server, enum expect_kind kind)
{
    if (server->expect_count == server->expect_cap)
        expects_grow(server);
    int at = (server->expect_head + server->expect_count++) & (server->expect_cap - 1);
    server->expects[at] = (struct expect){.kind = (uint8_t)kind};
    return &server->expects[at];
}

void server_expect_pop(struct server *server)
{
    struct expect *head = &server->expects[server->expect_head];
    if (head->kind == EXPECT_PARSE || head->prepares || head->defines || head->older || head->more)
        server_expect_release(server, head);
    else /* most: no more than that is theirs */
        prepared_unref(&server->worker->prepared, head->prepared);
    server->expect_head = (server->expect_head + 1) & (server->expect_cap - 1);
    server->expect_count--;
}

static struct expect *expect_at(struct server *server, int index)
{
    return &server->expects[(server->expect_head + index) & (server->expect_cap - 1)];
}

struct expect *server_awaits(struct server *server)
{
    for (int i = 0; i < server->expect_count; i++)
        if (expect_at(server, i)->kind != EXPECT_LOCAL)
            return expect_at(server, i);
    return NULL;
}

/* The first of another batch, behind `from`, that gives the same name a meaning. */
static struct expect *defined_behind(struct server *server, int from, const char *name)
{
    for (int i = from; i < server->expect_count; i++) {
        struct expect *expect = expect_at(server, i);
        if (expect->defines && strcmp(expect->defines, name) == 0)
            return expect;
    }
    return NULL;
}

/* What the name was before its later meaning is not this one now, but what was before this one. */
static void hand_on(struct server *server, struct expect *expect, struct expect *later, bool failed)
{
    prepared_unref(&server->worker->prepared, later->older);
    later->older = failed ? NULL : expect->older;
    if (!failed)
        expect->older = NULL;
}

/* It will not be carried out: what was taken for granted is taken back. `end`: of what goes with it; further
 * batches may stand behind. */
static void undo(struct server *server, struct expect *expect, int end, bool failed)
{
    if (expect->kind == EXPECT_CLOSE && expect->more)
        marks_kept(&server->marks, &expect->more->key);
    if (!expect->defines || !server->client)
        return;
    struct expect *later = defined_behind(server, end, expect->defines);
    if (later)
        hand_on(server, expect, later, failed);
    else if (expect->restores)
        extended_restore(server->client, expect->defines, expect->prepared);
    else if (expect->older && !failed)
        extended_restore(server->client, expect->defines, expect->older);
    else
        extended_undefine(server->client, expect->defines);
}

/* The last first, so that of a name closed and defined anew the older meaning is left. The first one is what
 * has failed: a Parse that fails has already taken the unnamed statement away. */
void server_expect_skip(struct server *server)
{
    int count = 0;
    while (count < server->expect_count && expect_at(server, count)->kind != EXPECT_SYNC)
        count++;
    for (int i = count - 1; i >= 0; i--)
        undo(server, expect_at(server, i), count, i == 0);
    while (count--)
        server_expect_pop(server);
}

void server_expect_unsend(struct server *server)
{
    struct expect *last = server_last_expected(server);
    undo(server, last, server->expect_count, false);
    server_expect_release(server, last);
    server->expect_count--;
}

void server_expect_clear(struct server *server)
{
    while (server->expect_count)
        server_expect_pop(server);
}

/* ---- life ---- */

static void free_server(struct conn *conn)
{
    struct server *server = list_entry(conn, struct server, conn);
    server_expect_clear(server);
    marks_clear(&server->marks);
    free(server->expects);
    guc_set_release(&server->reported);
    guc_set_release(&server->settled);
    guc_set_release(&server->defaults);
    guc_set_release(&server->guc);
    scram_client_free(server->scram);
    free(server->cancel_key);
    buffer_release(&server->in);
    if (server->dedicated || server->hub)
        pool_private_free(server->pool);
    free(server);
}

void server_discard(struct server *server)
{
    server->conn.broken = true; /* nothing can be sent any more */
    if (server->conn.tls)
        tls_close(&server->conn);
    buffer_release(&server->conn.out);
    if (server->conn.fd >= 0)
        close(server->conn.fd);
    free_server(&server->conn);
}

void server_drop(struct server *server, const char *reason)
{
    if (server->state == SERVER_CLOSED)
        return;
    if (server->handover) {     /* its last words came with the answer that set it free */
        server->discard = true; /* ... so the worker it goes to closes it */
        return;
    }
    log_event(LOG_DEBUG, "server connection closed", LOG_I("server", server->id),
              LOG_S("reason", reason));
    for (int i = server->expect_count - 1; i >= 0; i--)
        undo(server, expect_at(server, i), server->expect_count, false);
    if (server->client)
        client_detach(server->client, server);
    if (server->hub)
        hub_server_gone(server, reason);
    if (server->cancels)
        cancel_server_gone(server);
    pool_remove(server);
    list_remove(&server->all);
    server->state = SERVER_CLOSED;
    /* A polite end lets the server log nothing; a broken socket does not mind. */
    if (!server->conn.broken && !server->expect_count && !server->conn.connecting)
        conn_send(&server->conn, "X\0\0\0\4", 5);
    conn_close(&server->conn, free_server);
}

void server_close(struct server *server, const char *reason)
{
    struct client *client = server->client;
    server_drop(server, reason);
    if (client)
        client_lost_server(client, server, reason);
}

void server_broke(struct server *server, const char *reason)
{
    struct node *node = server->pool->node;
    node_broke(node, server->fatal_sqlstate);
    monitor_suspect(server->worker->daemon->monitor, node);
    server_close(server, reason);
}

static void login_or_relay(struct server *server)
{
    switch (server->state) {
    case SERVER_LOGIN:
        server_login_readable(server);
        break;
    case SERVER_ACTIVE:
    case SERVER_IDLE:
        if (server->dedicated)
            replication_readable(server);
        else if (server->hub)
            hub_readable(server);
        else
            relay_readable(server);
        break;
    case SERVER_CONNECTING:
    case SERVER_CLOSED:
        break;
    }
}

static void on_event(struct conn *conn, enum conn_event event);

static bool connect_to_node(struct server *server)
{
    struct worker *worker = server->worker;
    struct sockaddr_storage address;
    socklen_t length;
    return node_address(server->pool->node, &address, &length) &&
           conn_connect(&server->conn, &worker->poller, (struct sockaddr *)&address, length,
                        &worker->topology->config->tcp, on_event);
}

/* The descriptor is closed: the next one. It may have been dropped meanwhile. */
static void connect_without_tls(struct conn *conn)
{
    struct server *server = list_entry(conn, struct server, conn);
    if (server->state != SERVER_CLOSED && !connect_to_node(server))
        pool_login_failed(server, "08006", "could not connect to the server");
    if (server->state == SERVER_CLOSED)
        free_server(conn);
}

/* As libpq's sslmode=prefer: once more, on a new connection. */
static void do_without_tls(struct server *server, const char *failure)
{
    log_event(LOG_WARNING, "going on without TLS, as server_tls.mode = prefer has it",
              LOG_S("host", server->pool->node->host), LOG_I("port", server->pool->node->port),
              LOG_S("reason", failure));
    server->without_tls = true;
    server->state = SERVER_CONNECTING;
    conn_close(&server->conn, connect_without_tls);
}

static void connection_broke(struct server *server)
{
    char text[400];
    bool dispensable = tls_is_dispensable(&server->conn);
    const char *failure = server_tls_failure(server, text, sizeof text);
    if (server->state == SERVER_LOGIN && dispensable)
        do_without_tls(server, failure);
    else if (server->state == SERVER_CONNECTING || server->state == SERVER_LOGIN)
        pool_login_failed(server, "08006", failure ? failure : "could not connect to the server");
    else
        server_broke(server, "the connection to the server broke");
}

static void on_event(struct conn *conn, enum conn_event event)
{
    struct server *server = list_entry(conn, struct server, conn);
    switch (event) {
    case CONN_READABLE:
        login_or_relay(server);
        break;
    case CONN_WRITABLE_FIRST:
        server_login_start(server);
        break;
    case CONN_NEGOTIATED:
        server_login_negotiated(server);
        break;
    case CONN_DRAINED:
        if (server->client && server->client->scatter)
            scatter_drained(server->client);
        if (server->client && server->client->input_held)
            client_continue(server->client);
        break;
    case CONN_BROKEN:
        connection_broke(server);
        break;
    }
}

struct server *server_start(struct pool *pool)
{
    struct server *server = mem_alloc(sizeof *server);
    struct worker *worker = pool->worker;
    server->worker = worker;
    server->pool = pool;
    /* Unique in the process: connections move between workers. */
    server->id = ++worker->next_server * WORKERS_MAX + (uint32_t)worker->index;
    server->tx_status = 'I';
    list_init(&server->link);
    marks_init(&server->marks);
    server->state = SERVER_CONNECTING;
    server->connected_at = clock_us();
    if (!connect_to_node(server)) {
        free(server);
        return NULL;
    }
    list_push_back(&worker->servers, &server->all);
    return server;
}

/* ---- what it carries ---- */

void server_forget_prepared(struct server *server)
{
    marks_clear(&server->marks);
    server->unnamed = (struct prepared_key){0};
}
