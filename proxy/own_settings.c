/* own_settings.c: pgshunt.* settings: SET, RESET and SHOW of what only the proxy knows. */
#include "proxy/session.h"

#include <stdlib.h>
#include <string.h>

#include "pgshunt/arena.h"
#include "pgshunt/wire.h"

/* 'text' or word, as SQL had it, to plain text. */
static char *plain_value(const char *sql)
{
    if (!sql)
        return NULL;
    size_t len = strlen(sql);
    if (len < 2 || sql[0] != '\'')
        return mem_strdup(sql);
    char *out = mem_alloc(len), *to = out;
    for (const char *at = sql + 1; at < sql + len - 1; at++) {
        *to++ = *at;
        if (*at == '\'')
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
    return setting && statement->name && strncmp(statement->name, "pgshunt.", 8) == 0;
}

static enum local_outcome unknown_setting(struct client *client, const char *name,
                                          struct pg_error *error)
{
    *error = (struct pg_error){
        .sqlstate = "42704",
        .message = arena_printf(client->request.arena,
                                "unrecognized configuration parameter \"%s\"", name),
        .hint = "pgshunt knows pgshunt.key, pgshunt.shard and pgshunt.version."};
    return LOCAL_REFUSED;
}

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
        return unknown_setting(client, statement->name, error);
    char *value = statement->kind == STMT_SET ? plain_value(statement->value) : NULL;
    if (value && setting == &client->route_shard &&
        shardmap_shard_by_name(client->database->map, value) < 0) {
        *error = (struct pg_error){
            .sqlstate = "22023",
            .message = arena_printf(client->request.arena, "there is no shard \"%s\"", value),
            .hint = "SHOW SHARDS on the admin console lists them."};
        free(value);
        return LOCAL_REFUSED;
    }
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
        return unknown_setting(client, statement->name, error);
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
