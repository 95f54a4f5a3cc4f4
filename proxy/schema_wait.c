/* schema_wait.c: holds clients until the schema was read again, or their patience is over. */
#include "proxy/schema_wait.h"

#include "proxy/monitor.h"
#include "proxy/session.h"

#define LOOK_EVERY_MS 5
#define FRESH_US 5000000 /* how long a snapshot is believed about relations it does not know */

static bool is_fresh(const struct database *database, enum schema_need need, int64_t now)
{
    int64_t read_at = topology_schema_read_at(database);
    return read_at > topology_schema_changed_at(database) &&
           (need == SCHEMA_CURRENT || read_at > now - FRESH_US);
}

static void resume(struct client *client)
{
    list_remove(&client->waiting);
    client->request.schema_asked_at = 0;
    client->request.schema_waited = true;
    client->state = CLIENT_BUSY;
    session_follow_schema(client);
    if (extended_in_batch(client))
        extended_continue(client);
    else
        simple_replan(client);
}

/* What it names may be something else by now: a plan by what is known could give a wrong answer. */
static void refuse(struct client *client)
{
    static const struct pg_error error = {
        .sqlstate = "57P03",
        .message = "the statement names something that was made or changed a moment ago, and the "
                   "schema could not be read anew in time (query_wait_timeout)",
        .hint = "Run it again. The log says why the schema cannot be loaded; the first shard's "
                "servers and monitor.user are needed for that."};
    list_remove(&client->waiting);
    client->request.schema_asked_at = 0;
    client->state = CLIENT_BUSY;
    session_refuse(client, &error);
    client_hold_input(client);
}

static bool has_come(const struct client *client)
{
    return topology_schema_read_at(client->database) > client->request.schema_asked_at;
}

static bool is_late(const struct client *client, int64_t now)
{
    int64_t limit = client->account->settings.query_wait_timeout * 1000;
    return limit && now - client->request.schema_asked_at >= limit;
}

static void look(uv_timer_t *timer)
{
    struct worker *worker = timer->data;
    int64_t now = clock_us();
    struct list_node going, late;
    list_init(&going);
    list_init(&late);
    list_each(at, following, &worker->schema_waiting)
    {
        const struct client *client = list_entry(at, struct client, waiting);
        if (has_come(client))
            list_move(&going, at);
        else if (is_late(client, now))
            list_move(&late, at);
    }
    while (!list_empty(&going))
        resume(list_entry(going.next, struct client, waiting));
    while (!list_empty(&late))
        refuse(list_entry(late.next, struct client, waiting));
    if (list_empty(&worker->schema_waiting))
        uv_timer_stop(timer);
}

bool schema_wait(struct client *client, enum schema_need need)
{
    struct worker *worker = client->worker;
    int64_t now = clock_us();
    if (client->request.schema_waited || is_fresh(client->database, need, now))
        return false;
    if (list_empty(&worker->schema_waiting))
        uv_timer_start(&worker->schema_timer, look, LOOK_EVERY_MS, LOOK_EVERY_MS);
    client->request.schema_asked_at = now;
    client->state = CLIENT_WAITING;
    list_push_back(&worker->schema_waiting, &client->waiting);
    monitor_schema_changed(worker->daemon->monitor, client->database);
    return true;
}

void schema_wait_cancel(struct client *client)
{
    if (!client->request.schema_asked_at)
        return;
    list_remove(&client->waiting);
    client->request.schema_asked_at = 0;
}
