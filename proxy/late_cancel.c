/* late_cancel.c: cancels that a fan-out sends by itself, and their ends. */
#include "proxy/late_cancel.h"

#include "proxy/cancel.h"
#include "proxy/client.h"
#include "proxy/server.h"

void late_cancel_send(struct server *server)
{
    cancel_server(server);
    conn_set_reading(&server->conn, true); /* what comes now is thrown away */
}

bool late_cancel_is_under_way(const struct client *client)
{
    for (int i = 0; i < client->nparticipants; i++)
        if (client->participants[i]->cancels)
            return true;
    return false;
}
