/*
 * pool_tend.c: what a server runs between two clients: the reset after a session that had it to itself
 * (DISCARD ALL is reset.c's), and the test of one that was idle for long.
 *
 *   checkin, kept by a session --reset_query--.
 *                                              > on pool->tended --answered--> checkin
 *   idle for long, wanted now --empty query---'        |
 *                                                      '--error, silence--> closed
 *
 * A tended server is ACTIVE, counts as active and has no client.
 */
#include <string.h>
#include <strings.h>

#include "pgshunt/wire.h"
#include "proxy/epoch.h"
#include "proxy/pins.h"
#include "proxy/node_health.h"
#include "proxy/pool_internal.h"
#include "proxy/worker.h"

static void put(struct server *server, struct buffer *out, const char *sql)
{
    wire_put_query(out, sql);
    server_expect(server, EXPECT_QUERY)->swallow = true;
    server->unnamed = (struct prepared_key){0};
}

static void tend(struct server *server, struct buffer *out)
{
    struct pool *pool = server->pool;
    server->tended = true;
    server->request_at = worker_now(pool->worker);
    list_push_back(&pool->tended, &server->link);
    pool->ntended++;
    conn_send(&server->conn, buffer_head(out), buffer_length(out));
    buffer_release(out);
}

/* ---- reset ---- */

static bool discards_all(const char *sql)
{
    return strncasecmp(sql, "DISCARD ALL", 11) == 0 && sql[11 + strspn(sql + 11, "; ")] == '\0';
}

/* A query of the user's own choice is not looked into: what we know the server to have goes first. */
static void put_known_state(struct server *server, struct buffer *out)
{
    struct buffer sql = {0};
    guc_difference(server->guc, NULL, &sql);
    buffer_append(&sql, "DEALLOCATE ALL", sizeof "DEALLOCATE ALL");
    put(server, out, buffer_head(&sql));
    buffer_release(&sql);
}

bool pool_reset(struct server *server)
{
    const char *sql = server->worker->topology->config->reset_query;
    struct buffer out = {0};
    server->kept = false;
    if (discards_all(sql) || !pins_can_be_reset(server)) {
        server_reset(server);
        return true;
    }
    unpin_all(server);
    if (!sql[0])
        return false;
    put_known_state(server, &out);
    put(server, &out, sql);
    guc_set_release(&server->guc);
    epoch_forget(server);
    server_forget_prepared(server);
    tend(server, &out);
    return true;
}

/* ---- test ---- */

bool pool_doubts(const struct pool *pool, const struct server *server, int64_t now)
{
    return (pool->check_delay_us && now - server->idle_since > pool->check_delay_us) ||
           server->idle_since < pool->doubted_at;
}

void pool_test(struct pool *pool, struct server *server)
{
    struct buffer out = {0};
    pool_take_idle(pool, server);
    server->state = SERVER_ACTIVE;
    pool->nactive++;
    put(server, &out, "");
    tend(server, &out);
}

/* ---- the end of both ---- */

void pool_tended(struct server *server)
{
    list_remove(&server->link);
    server->tended = false;
    guc_set_assign(&server->settled, server->reported);
    server->pool->ntended--;
    node_proved(server->pool->node);
    pool_checkin(server);
}

void pool_tick_tended(struct pool *pool, int64_t now)
{
    int64_t limit = pool->worker->topology->config->connect_timeout * 1000;
    list_each(at, following, &pool->tended)
    {
        struct server *server = list_entry(at, struct server, link);
        if (now - server->request_at > limit)
            server_drop(server, "it did not answer a reset or a test in time");
    }
}
