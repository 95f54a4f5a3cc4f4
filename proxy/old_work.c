/* old_work.c: who is at work under an older map than its worker has. */
#include "proxy/old_work.h"

#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "proxy/session.h"

/* It has servers in a transaction, and not all that is left of it is to be rolled back. */
static bool has_begun(const struct client *client)
{
    bool begun = false, failed = true;
    for (int i = 0; client->tx && i < client->nparticipants; i++) {
        begun |= client->participants[i]->begun;
        failed &= !client->participants[i]->begun || client->participants[i]->tx_status == 'E';
    }
    return begun && !(failed && !client->tx->nsavepoints);
}

bool old_work_is_at_work(const struct client *client)
{
    switch (client->state) {
    case CLIENT_IDLE:
        return has_begun(client);
    case CLIENT_WAITING:
        return client->nparticipants || client->request.planned;
    case CLIENT_BUSY: /* a batch that is at none of its servers takes the newest map with its next Bind */
        return client->nparticipants || client->scatter;
    case CLIENT_STARTUP:
    case CLIENT_AUTH:
    case CLIENT_GREETING:
    case CLIENT_REPLICATING:
    case CLIENT_CANCELLING:
    case CLIENT_CLOSED:
        break;
    }
    return false;
}

/* As SHOW CLIENTS tells of it. */
static void name(const struct client *client, char *text, size_t size)
{
    struct sockaddr_storage address;
    socklen_t length = peer_address(&client->peer, &address);
    char host[INET6_ADDRSTRLEN + IF_NAMESIZE] = "unix", port[12] = "";
    const char *application = guc_set_get(client->guc, "application_name");
    if (!peer_is_local(&client->peer))
        getnameinfo((const struct sockaddr *)&address, length, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV);
    memset(text, 0, size);
    snprintf(text, size, "client %u: user \"%.63s\" at %s%s%s%s%.60s", client->id, client->user,
             host, port[0] ? ":" : "", port, application && application[0] ? ", " : "",
             application ? application : "");
}

void old_work_oldest(struct worker *worker, const char *database, struct old_work *oldest)
{
    struct list_node seen, *at;
    list_init(&seen);
    while ((at = list_visit(&worker->clients, &seen))) {
        const struct client *client = list_entry(at, struct client, all);
        if (!client->database || client->console || client->topology == worker->topology ||
            strcmp(client->database_name, database) != 0 || !old_work_is_at_work(client))
            continue;
        int64_t epoch = shardmap_epoch(client->database->map);
        if (epoch >= oldest->epoch)
            continue;
        oldest->epoch = epoch;
        name(client, oldest->who, sizeof oldest->who);
    }
    list_put_back(&worker->clients, &seen);
}
