/* own_settings.c: pgshunt.* settings: SET, RESET and SHOW of what only the proxy knows. */
#include "proxy/session.h"

#include <stdlib.h>
#include <string.h>

#include "pgshunt/arena.h"
#include "pgshunt/wire.h"

#define OWN_PREFIX "pgshunt."

/* 'text', E'text' (quotes and backslashes doubled) or word, as SQL had it, to plain text. */
static char *plain_value(const char *sql)
{
    if (!sql)
        return NULL;
    bool escapes = strncmp(sql, " E'", 3) == 0;
    if (escapes)
        sql += 2;
    size_t len = strlen(sql);
    if (len < 2 || sql[0] != '\'')
        return mem_strdup(sql);
    char *out = mem_alloc(len), *to = out;
    for (const char *at = sql + 1; at < sql + len - 1; at++) {
        *to++ = *at;
        if (*at == '\'' || (escapes && *at == '\\'))
            at++;
    }
    return out;
}

static char **find_setting(struct client *client, const char *name)
{
    if (strcmp(name, "pgshunt.key") == 0)
        return &client->route_key;
    if (strcmp(name, "pgshunt.shard") == 0)
        return &client->route_shard;
    return NULL;
}

bool statement_is_own(const struct statement *statement)
{
    bool setting = statement->kind == STMT_SET || statement->kind == STMT_RESET ||
                   statement->kind == STMT_SHOW;
    return setting && statement->name &&
           strncmp(statement->name, OWN_PREFIX, strlen(OWN_PREFIX)) == 0;
}

static enum local_outcome unknown_setting(struct arena *arena, const char *name,
                                          struct pg_error *error)
{
    *error = (struct pg_error){
        .sqlstate = "42704",
        .message = arena_printf(arena, "unrecognized configuration parameter \"%s\"", name),
        .hint = "pgshunt knows pgshunt.key, pgshunt.shard and pgshunt.version."};
    return LOCAL_REFUSED;
}

/* May the setting have this value? */
static bool check_value(struct client *client, char **setting, const char *value,
                        struct arena *arena, struct pg_error *error)
{
    if (setting != &client->route_shard ||
        shardmap_shard_by_name(client->database->map, value) >= 0)
        return true;
    *error = (struct pg_error){.sqlstate = "22023",
                               .message = arena_printf(arena, "there is no shard \"%s\"", value),
                               .hint = "SHOW SHARDS on the admin console lists them."};
    return false;
}

/* ---- from the startup packet ---- */

/* Moves what is ours from client->startup, which servers are given, to client->own_startup. */
static void split_startup(struct client *client)
{
    struct guc_set *servers = NULL;
    for (int i = 0; i < guc_set_count(client->startup); i++) {
        const struct guc *item = &client->startup->items[i];
        bool own = strncmp(item->name, OWN_PREFIX, strlen(OWN_PREFIX)) == 0;
        guc_set_put(own ? &client->own_startup : &servers, item->name, item->value);
    }
    if (client->own_startup) {
        guc_set_assign(&client->startup, servers);
        guc_set_assign(&client->guc, servers);
    }
    guc_set_release(&servers);
}

/* What RESET goes back to, to be freed; NULL: nothing. */
static char *startup_value(const struct client *client, const char *name)
{
    return plain_value(guc_set_get(client->own_startup, name));
}

void own_settings_reset(struct client *client)
{
    free(client->route_key);
    free(client->route_shard);
    client->route_key = startup_value(client, "pgshunt.key");
    client->route_shard = startup_value(client, "pgshunt.shard");
}

bool own_settings_start(struct client *client, struct arena *arena, struct pg_error *error)
{
    split_startup(client);
    own_settings_reset(client);
    for (int i = 0; i < guc_set_count(client->own_startup); i++) {
        const char *name = client->own_startup->items[i].name;
        char **setting = find_setting(client, name);
        if (!setting) {
            unknown_setting(arena, name, error);
            return false;
        }
        if (!check_value(client, setting, *setting, arena, error))
            return false;
    }
    return true;
}

/* ---- SET, RESET, SHOW ---- */

static void warn(struct buffer *answer, const char *sqlstate, const char *message)
{
    struct pg_error warning = {.severity = "WARNING", .sqlstate = sqlstate, .message = message};
    wire_put_notice(answer, &warning);
}

/* The first SET LOCAL of a transaction remembers what the session had said. */
static void keep_outer_route(struct client *client)
{
    struct transaction *tx = client->tx;
    if (tx->local_route)
        return;
    tx->local_route = true;
    tx->outer_key = client->route_key ? mem_strdup(client->route_key) : NULL;
    tx->outer_shard = client->route_shard ? mem_strdup(client->route_shard) : NULL;
}

static enum local_outcome set_own(struct client *client, const struct statement *statement,
                                  struct buffer *answer, struct pg_error *error)
{
    char **setting = find_setting(client, statement->name);
    if (!setting)
        return unknown_setting(client->request.arena, statement->name, error);
    char *value = plain_value(statement->kind == STMT_SET ? statement->value : NULL);
    if (value && !check_value(client, setting, value, client->request.arena, error)) {
        free(value);
        return LOCAL_REFUSED;
    }
    if (!value)
        value = startup_value(client, statement->name);
    if (statement->is_local && !client->tx) {
        warn(answer, "25P01", "SET LOCAL can only be used in transaction blocks");
        free(value);
    } else {
        if (statement->is_local)
            keep_outer_route(client);
        free(*setting);
        *setting = value;
    }
    wire_put_complete(answer, statement->kind == STMT_SET ? "SET" : "RESET");
    return LOCAL_DONE;
}

static enum local_outcome show_own(struct client *client, const struct statement *statement,
                                   struct buffer *answer, struct pg_error *error)
{
    struct wire_column column = {statement->name, 25};
    char **setting = find_setting(client, statement->name);
    const char *value = setting && *setting ? *setting : "";
    if (strcmp(statement->name, "pgshunt.version") == 0)
        value = PGSHUNT_VERSION;
    else if (!setting)
        return unknown_setting(client->request.arena, statement->name, error);
    wire_put_row_description(answer, &column, 1);
    wire_put_text_row(answer, &value, 1);
    wire_put_complete(answer, "SHOW");
    return LOCAL_DONE;
}

enum local_outcome own_setting_statement(struct client *client, const struct statement *statement,
                                         struct buffer *answer, struct pg_error *error)
{
    return statement->kind == STMT_SHOW ? show_own(client, statement, answer, error)
                                        : set_own(client, statement, answer, error);
}
