/* reported.c: what servers report of their parameters, and what clients hear of it. */
#include "proxy/reported.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "pgshunt/arena.h"
#include "pgshunt/wire.h"
#include "proxy/pins.h"
#include "proxy/pool.h"
#include "proxy/welcome.h"

#define REPORTED_MAX 1000 /* parameters of a server: Postgres has some fifteen */

/* The server's configuration is another: clients that come now are not greeted with what it was. */
static void follow_defaults(struct server *server)
{
    struct pool *pool = server->pool;
    if (pool->defaults && pool->defaults != server->defaults)
        welcomes_forget(server->worker);
    guc_set_assign(&pool->defaults, server->defaults);
}

static void new_default(struct server *server, const char *name, const char *value)
{
    const char *before = guc_set_get(server->defaults, name);
    if (before && strcmp(before, value) == 0)
        return;
    guc_set_put(&server->defaults, name, value);
    follow_defaults(server);
}

void reported_take(struct server *server, const char *name, const char *value, bool asked)
{
    /* A client talks to primaries and replicas in turn: it is told that it can write. */
    if (strcmp(name, "in_hot_standby") == 0)
        value = "off";
    if (guc_set_count(server->reported) >= REPORTED_MAX)
        return;
    guc_set_put(&server->reported, name, value);
    if (asked)
        return;
    new_default(server, name, value);
    guc_set_put(&server->settled, name, value);
}

void reported_login(struct server *server)
{
    guc_set_assign(&server->defaults, server->reported);
    guc_set_assign(&server->settled, server->reported);
    follow_defaults(server);
}

/* Those that follow from other things than a setting of their name. */
static bool can_be_set(const char *name)
{
    static const char *const others[] = {
        "in_hot_standby", "integer_datetimes",     "is_superuser",    "server_encoding",
        "server_version", "session_authorization", "scram_iterations"};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        if (strcmp(name, others[i]) == 0)
            return false;
    return true;
}

static void put_lower(char *out, size_t size, const char *name)
{
    size_t i = 0;
    for (; name[i] && i < size - 1; i++)
        out[i] = (char)tolower((unsigned char)name[i]);
    out[i] = '\0';
}

/* The last of the changes that concerns the parameter; NULL: none does. */
static const struct guc_change *explanation(const struct guc_pending *changes, const char *name)
{
    char lower[64];
    put_lower(lower, sizeof lower, name);
    return changes ? guc_pending_last(changes, lower) : NULL;
}

/* What is not set by us is the server's own. */
static void take_defaults(struct server *server)
{
    for (int i = 0; i < guc_set_count(server->reported); i++) {
        const struct guc *item = &server->reported->items[i];
        char lower[64];
        put_lower(lower, sizeof lower, item->name);
        if (can_be_set(item->name) && !guc_set_get(server->guc, lower))
            new_default(server, item->name, item->value);
    }
}

void reported_ours(struct server *server)
{
    const struct transaction *tx = server->client ? server->client->tx : NULL;
    if (server->reported == server->settled)
        return;
    if (!tx || !tx->settings.count) /* else those are set there too */
        take_defaults(server);
    guc_set_assign(&server->settled, server->reported);
}

/* Since Postgres 14 a server tells that it was configured anew with the answer to what comes next: nothing that
 * was asked here can have set a parameter behind our back. */
static bool only_read(const struct client *client, const struct server *server)
{
    return !client->request.writes && !server->wrote && !(server->pins >> PIN_SET_CONFIG & 1);
}

/*
 * A report of the server is the truth of what it carries. It is the client's too if a SET of its own
 * (whatever it wrote for it) or nothing that we saw led to it; after a RESET the client goes back to
 * what its startup packet said, and the server to its own default.
 */
static void adopt(struct client *client, struct server *server, const struct guc_pending *changes,
                  const char *name, const char *value)
{
    const char *initial = guc_set_get(server->defaults, name);
    char *text = guc_text_value(name, value);
    char *lower = mem_strdup(name);
    for (char *p = lower; *p; p++)
        *p = (char)tolower((unsigned char)*p);
    const struct guc_change *last = explanation(changes, name);
    bool was_set = last && last->kind == GUC_SET && last->value;
    bool is_default = !was_set && initial && strcmp(initial, value) == 0;
    guc_set_put(&server->guc, lower, is_default ? NULL : text);
    if (!last || was_set)
        guc_set_put(&client->guc, lower, is_default ? NULL : text);
    free(lower);
    free(text);
}

void reported_settle(struct client *client, struct server *server,
                     const struct guc_pending *changes)
{
    if (server->reported == server->settled)
        return;
    for (int i = 0; i < guc_set_count(server->reported); i++) {
        const struct guc *item = &server->reported->items[i];
        const char *before = guc_set_get(server->settled, item->name);
        if (!can_be_set(item->name) || (before && strcmp(before, item->value) == 0))
            continue;
        if (only_read(client, server) && !explanation(changes, item->name))
            new_default(server, item->name, item->value);
        else
            adopt(client, server, changes, item->name, item->value);
    }
    guc_set_assign(&server->settled, server->reported);
}

bool reported_tell_more(struct client *client, struct server *server, struct buffer *out)
{
    size_t before = buffer_length(out);
    for (int i = 0; i < guc_set_count(server->reported); i++) {
        const struct guc *item = &server->reported->items[i];
        const char *heard = guc_set_get(client->heard, item->name);
        if (!heard || strcmp(heard, item->value) != 0)
            wire_put_parameter_status(out, item->name, item->value);
    }
    guc_set_assign(&client->heard, server->reported);
    return buffer_length(out) > before;
}
