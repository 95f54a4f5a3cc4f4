/* reset.c: makes a server connection as new, after a client that has left something in its session. */
#include "proxy/server.h"

#include <string.h>

#include "pgshunt/wire.h"
#include "proxy/epoch.h"
#include "proxy/pins.h"
#include "proxy/pool.h"
#include "proxy/worker.h"

static void ask(struct server *server, struct buffer *out, const char *sql)
{
    wire_put_query(out, sql);
    server_expect(server, EXPECT_QUERY)->swallow = true;
}

void server_reset(struct server *server)
{
    struct buffer out = {0};
    if (server->resetting || !pins_can_be_reset(server) || server->copy_in || server->copy_rest ||
        server->skip) {
        server_drop(server, "its session cannot be reset");
        return;
    }
    server->resetting = true;
    server->request_at = clock_us();
    /* Two messages: DISCARD ALL refuses to run together with others. */
    if (server->expect_count || server->tx_status != 'I')
        ask(server, &out, "ROLLBACK");
    ask(server, &out, "DISCARD ALL");
    conn_send(&server->conn, buffer_head(&out), buffer_length(&out));
    buffer_release(&out);
}

void server_reset_step(struct server *server)
{
    if (server->expect_count)
        return;
    server->resetting = false;
    if (server->tx_status != 'I' || server->discard) {
        server_drop(server, "its session could not be reset");
        return;
    }
    guc_set_release(&server->guc);
    epoch_forget(server);
    guc_set_assign(&server->settled, server->reported);
    server_forget_prepared(server);
    unpin_all(server);
    pool_checkin(server);
}
