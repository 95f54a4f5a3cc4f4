/* scatter_newer.c: a fan-out that a guard has refused on one of its shards runs once more under a newer map. */
#include "proxy/bucket_hold.h"
#include "proxy/cancel.h"
#include "proxy/epoch.h"
#include "proxy/scatter_internal.h"

/* It is rolled back with its servers: nothing of it is committed anywhere, and nothing that its transaction had before is lost. */
static bool leaves_nothing(const struct scatter *scatter)
{
    const struct client *client = scatter->client;
    return scatter->phase == SCATTER_RUNNING && !scatter->failed && !scatter->copy &&
           (client->tx ? client->request.begins
                       : scatter->ends_itself && session_may_leave_servers(client));
}

static bool may_be_asked_again(const struct client *client)
{
    const struct request *request = &client->request;
    return !request->forwarded && !request->incomplete && !request->series &&
           request->attempts < 3 && buffer_length(&request->again);
}

bool scatter_asks_newer(struct scatter *scatter, const struct pg_error *error)
{
    struct client *client = scatter->client;
    if (!epoch_is_refusal(error))
        return false;
    client->stats->stale++;
    if (!leaves_nothing(scatter) || !may_be_asked_again(client))
        return false;
    scatter_abandon(client);
    if (client->tx)
        session_begin_again(client);
    client->request.stale = client->request.repeat = true;
    if (!bucket_hold_waits_for_map(client))
        session_ask_again(client);
    return true;
}
