/* schema_wait.c: holds clients until the schema was read again. */
#include "proxy/schema_wait.h"

#include "proxy/monitor.h"
#include "proxy/session.h"

#define LOOK_EVERY_MS 5
#define WAIT_AT_MOST_US                                                                            \
    1500000 /* for a reading to begin; one that has failed is repeated later than that */
#define READING_AT_MOST_US 15000000 /* while one is under way: a large catalog, or a busy server */
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

static bool has_come(const struct client *client, int64_t now)
{
    int64_t asked_at = client->request.schema_asked_at, waited = now - asked_at;
    if (topology_schema_read_at(client->database) > asked_at)
        return true;
    return waited >
           (topology_schema_reading(client->database) ? READING_AT_MOST_US : WAIT_AT_MOST_US);
}

static void look(uv_timer_t *timer)
{
    struct worker *worker = timer->data;
    int64_t now = clock_us();
    struct list_node going;
    list_init(&going);
    list_each(at, following, &worker->schema_waiting)
    {
        if (has_come(list_entry(at, struct client, waiting), now))
            list_move(&going, at);
    }
    while (!list_empty(&going))
        resume(list_entry(going.next, struct client, waiting));
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
