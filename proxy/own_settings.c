/* own_settings.c: pgshunt.* settings: SET, RESET and SHOW of what only the proxy knows. */
#include "proxy/own_settings.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pgshunt/arena.h"
#include "pgshunt/wire.h"
#include "proxy/listen_points.h"
#include "proxy/pool.h"
#include "proxy/read_after.h"
#include "proxy/session.h"

#define OWN_PREFIX "pgshunt."

/* ---- the settings ---- */

static bool check_shard(const struct client *client, const char *value, struct arena *arena,
                        struct pg_error *error)
{
    if (shardmap_shard_by_name(client->database->map, value) >= 0)
        return true;
    *error = (struct pg_error){.sqlstate = "22023",
                               .message = arena_printf(arena, "there is no shard \"%s\"", value),
                               .hint = "SHOW SHARDS on the admin console lists them."};
    return false;
}

static void show_route(const struct route_wish *wish, char *out, size_t size)
{
    static const char *const words[] = {"auto", "primary", "replica"};
    snprintf(out, size, "%s", words[wish->route]);
}

static void show_region(const struct route_wish *wish, char *out, size_t size)
{
    snprintf(out, size, "%s", wish->region);
}

static void show_max_lag(const struct route_wish *wish, char *out, size_t size)
{
    snprintf(out, size, "%lldms", (long long)(wish->max_lag_us / 1000));
}

static void show_read_your_writes(const struct route_wish *wish, char *out, size_t size)
{
    snprintf(out, size, "%s", wish->read_your_writes == SAID_ON ? "on" : "off");
}

static void show_monotonic_reads(const struct route_wish *wish, char *out, size_t size)
{
    snprintf(out, size, "%s", wish->monotonic_reads == SAID_ON ? "on" : "off");
}

/* In the order of enum own_setting. */
static const struct row {
    const char *name;
    const char *wish; /* it is this part of a route_wish; NULL: of none */
    /* May it have this value? NULL: any, or what the wish takes. */
    bool (*check)(const struct client *client, const char *value, struct arena *arena,
                  struct pg_error *error);
    /* What counts, also where the session has said nothing. NULL: what it said, or nothing. */
    void (*show)(const struct route_wish *wish, char *out, size_t size);
} rows[OWN_SETTINGS] = {
    {"pgshunt.key", NULL, NULL, NULL},
    {"pgshunt.shard", NULL, check_shard, NULL},
    {"pgshunt.route", "route", NULL, show_route},
    {"pgshunt.region", "region", NULL, show_region},
    {"pgshunt.max_lag", "max_lag", NULL, show_max_lag},
    {"pgshunt.read_your_writes", "read_your_writes", NULL, show_read_your_writes},
    {"pgshunt.monotonic_reads", "monotonic_reads", NULL, show_monotonic_reads},
    {"pgshunt.read_after", NULL, read_after_check, NULL},
};

static const struct row *find_row(const char *name)
{
    for (int i = 0; i < OWN_SETTINGS; i++)
        if (strcmp(rows[i].name, name) == 0)
            return &rows[i];
    return NULL;
}

static enum own_setting number_of(const struct row *row)
{
    return (enum own_setting)(row - rows);
}

static const struct row *unknown_setting(struct arena *arena, const char *name,
                                         struct pg_error *error)
{
    const char *list = "";
    for (int i = 0; i < OWN_SETTINGS; i++)
        list = arena_printf(arena, "%s%s, ", list, rows[i].name);
    *error = (struct pg_error){
        .sqlstate = "42704",
        .message = arena_printf(arena, "unrecognized configuration parameter \"%s\"", name),
        .hint = arena_printf(arena, "pgshunt knows %spgshunt.position and pgshunt.version.", list)};
    return NULL;
}

/* May the setting have this value? */
static bool check_value(const struct client *client, const struct row *row, const char *value,
                        struct arena *arena, struct pg_error *error)
{
    struct route_wish wish = ROUTE_WISH_NONE;
    const char *allowed;
    if (row->check)
        return row->check(client, value, arena, error);
    if (!row->wish || route_wish_take(&wish, row->wish, value, &allowed))
        return true;
    *error = (struct pg_error){
        .sqlstate = "22023",
        .message =
            arena_printf(arena, "invalid value for parameter \"%s\": \"%s\"", row->name, value),
        .hint = arena_printf(arena, "Allowed is %s.", allowed)};
    return false;
}

/* ---- values ---- */

static struct own_settings *own_of(struct client *client)
{
    if (!client->own) {
        client->own = mem_alloc(sizeof *client->own);
        client->own->wish = ROUTE_WISH_NONE;
    }
    return client->own;
}

const char *own_setting_value(const struct client *client, enum own_setting which)
{
    return client->own ? client->own->values[which] : NULL;
}

void own_settings_wish(const struct client *client, struct route_wish *wish)
{
    *wish = client->account->wish;
    if (client->own)
        route_wish_lay_over(wish, &client->own->wish);
    if (client->peer.tag != LISTEN_REPLICA)
        return;
    wish->route = ROUTE_REPLICA; /* nothing may send it back to a primary */
    wish->no_replica = NO_REPLICA_ERROR;
    wish->read_your_writes = wish->monotonic_reads = SAID_OFF;
}

static void follow_values(struct own_settings *own)
{
    const char *ignored;
    own->wish = ROUTE_WISH_NONE;
    for (int i = 0; i < OWN_SETTINGS; i++)
        if (rows[i].wish && own->values[i]) /* has been checked */
            (void)!route_wish_take(&own->wish, rows[i].wish, own->values[i], &ignored);
}

/* Takes the value over; NULL: nothing is said any more. */
static void put(struct client *client, enum own_setting which, char *value)
{
    struct own_settings *own = own_of(client);
    free(own->values[which]);
    own->values[which] = value;
    free(own->positions);
    own->positions = NULL;
    follow_values(own);
}

static char *copy(const char *value)
{
    return value ? mem_strdup(value) : NULL;
}

/* As put(), for the transaction's end to know of it. */
static void change(struct client *client, enum own_setting which, char *value, bool local)
{
    if (client->tx) {
        struct own_changes *changes = &client->tx->own;
        size_t size = sizeof *changes->items * (size_t)(changes->count + 1);
        changes->items = mem_realloc(changes->items, size);
        changes->items[changes->count++] =
            (struct own_change){.which = which,
                                .local = local,
                                .before = copy(own_setting_value(client, which)),
                                .value = copy(value)};
    }
    put(client, which, value);
}

void own_settings_undo(struct client *client, int keep)
{
    struct own_changes *changes = &client->tx->own;
    while (changes->count > keep) {
        struct own_change *last = &changes->items[--changes->count];
        put(client, last->which, last->before);
        free(last->value);
    }
}

void own_settings_end(struct client *client, bool committed)
{
    struct own_changes *changes = &client->tx->own;
    char *values[OWN_SETTINGS];
    bool set[OWN_SETTINGS] = {false};
    for (int i = 0; committed && i < changes->count; i++) {
        struct own_change *one = &changes->items[i];
        if (one->local)
            continue;
        if (set[one->which])
            free(values[one->which]);
        set[one->which] = true;
        values[one->which] = one->value;
        one->value = NULL;
    }
    own_settings_undo(client, 0);
    for (int i = 0; i < OWN_SETTINGS; i++)
        if (set[i])
            put(client, (enum own_setting)i, values[i]);
    free(changes->items);
    *changes = (struct own_changes){0};
}

void own_settings_free(struct client *client)
{
    if (!client->own)
        return;
    for (int i = 0; i < OWN_SETTINGS; i++)
        free(client->own->values[i]);
    free(client->own->positions);
    guc_set_release(&client->own->startup);
    free(client->own);
    client->own = NULL;
}

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

/* ---- from the startup packet ---- */

/* Moves what is ours from client->startup, which servers are given, to own->startup. */
static void split_startup(struct client *client)
{
    struct guc_set *servers = NULL, *ours = NULL;
    for (int i = 0; i < guc_set_count(client->startup); i++) {
        const struct guc *item = &client->startup->items[i];
        bool own = strncmp(item->name, OWN_PREFIX, strlen(OWN_PREFIX)) == 0;
        guc_set_put(own ? &ours : &servers, item->name, item->value);
    }
    if (ours) {
        guc_set_assign(&client->startup, servers);
        guc_set_assign(&client->guc, servers);
        guc_set_assign(&own_of(client)->startup, ours);
    }
    guc_set_release(&servers);
    guc_set_release(&ours);
}

/* What RESET goes back to, to be freed; NULL: nothing. */
static char *startup_value(const struct client *client, enum own_setting which)
{
    return client->own ? plain_value(guc_set_get(client->own->startup, rows[which].name)) : NULL;
}

void own_settings_reset(struct client *client)
{
    for (int i = 0; client->own && i < OWN_SETTINGS; i++)
        change(client, (enum own_setting)i, startup_value(client, (enum own_setting)i), false);
}

bool own_settings_start(struct client *client, struct arena *arena, struct pg_error *error)
{
    split_startup(client);
    const struct guc_set *startup = client->own ? client->own->startup : NULL;
    for (int i = 0; i < guc_set_count(startup); i++) {
        const struct row *row = find_row(startup->items[i].name);
        if (!row) {
            unknown_setting(arena, startup->items[i].name, error);
            return false;
        }
        char *value = startup_value(client, number_of(row));
        if (!check_value(client, row, value, arena, error)) {
            free(value);
            return false;
        }
        put(client, number_of(row), value);
    }
    return true;
}

/* ---- comments on BEGIN ---- */

/* primary, replica, or a name with its value. */
static const struct row *row_of_hint(const struct hint *hint)
{
    char name[64];
    if (!hint->value)
        return strcmp(hint->name, "primary") && strcmp(hint->name, "replica") ? NULL
                                                                              : &rows[OWN_ROUTE];
    snprintf(name, sizeof name, OWN_PREFIX "%s", hint->name);
    return find_row(name);
}

static const char *value_of_hint(const struct hint *hint)
{
    return hint->value ? hint->value : hint->name;
}

bool own_settings_check_begin(struct client *client, const struct statement *statement,
                              struct pg_error *error)
{
    struct arena *arena = client->request.arena;
    for (int i = 0; i < statement->nhints; i++) {
        const struct hint *hint = &statement->hints[i];
        const struct row *row = row_of_hint(hint);
        if (!row) {
            *error = (struct pg_error){
                .sqlstate = "42704",
                .message = arena_printf(arena, "unrecognized word in a pgshunt comment: \"%.60s\"",
                                        hint->name),
                .hint = "On BEGIN it has primary, replica, region=NAME, max_lag=200ms, "
                        "shard=NAME, key=VALUE, or several of them."};
            return false;
        }
        if (!check_value(client, row, value_of_hint(hint), arena, error))
            return false;
    }
    return true;
}

void own_settings_begin(struct client *client, const struct statement *statement)
{
    for (int i = 0; i < statement->nhints; i++)
        change(client, number_of(row_of_hint(&statement->hints[i])),
               mem_strdup(value_of_hint(&statement->hints[i])), true);
}

/* ---- SET, RESET, SHOW ---- */

bool statement_is_own(const struct statement *statement)
{
    bool setting = statement->kind == STMT_SET || statement->kind == STMT_RESET ||
                   statement->kind == STMT_SHOW;
    return setting && statement->name &&
           strncmp(statement->name, OWN_PREFIX, strlen(OWN_PREFIX)) == 0;
}

static void warn(struct buffer *answer, const char *sqlstate, const char *message)
{
    struct pg_error warning = {.severity = "WARNING", .sqlstate = sqlstate, .message = message};
    wire_put_notice(answer, &warning);
}

#define POSITION OWN_PREFIX "position"
#define VERSION_SETTING OWN_PREFIX "version"

static bool is_read_only(const char *name)
{
    return strcmp(name, POSITION) == 0 || strcmp(name, VERSION_SETTING) == 0;
}

static enum local_outcome set_own(struct client *client, const struct statement *statement,
                                  struct buffer *answer, struct pg_error *error)
{
    struct arena *arena = client->request.arena;
    const struct row *row = find_row(statement->name);
    if (!row && is_read_only(statement->name)) {
        *error = (struct pg_error){
            .sqlstate = "55P02",
            .message = arena_printf(arena, "parameter \"%s\" cannot be changed", statement->name),
            .hint = "What SHOW pgshunt.position has told is for pgshunt.read_after."};
        return LOCAL_REFUSED;
    }
    if (!row) {
        unknown_setting(arena, statement->name, error);
        return LOCAL_REFUSED;
    }
    char *value = plain_value(statement->kind == STMT_SET ? statement->value : NULL);
    if (value && !check_value(client, row, value, arena, error)) {
        free(value);
        return LOCAL_REFUSED;
    }
    if (!value)
        value = startup_value(client, number_of(row));
    if (statement->is_local && !client->tx) {
        warn(answer, "25P01", "SET LOCAL can only be used in transaction blocks");
        free(value);
    } else {
        change(client, number_of(row), value, statement->is_local);
    }
    wire_put_complete(answer, statement->kind == STMT_SET ? "SET" : "RESET");
    return LOCAL_DONE;
}

static const char *shown_value(const struct client *client, const struct row *row,
                               struct arena *arena)
{
    char text[300];
    struct route_wish wish;
    if (!row->show) {
        const char *said = own_setting_value(client, number_of(row));
        return said ? said : "";
    }
    own_settings_wish(client, &wish);
    row->show(&wish, text, sizeof text);
    return arena_strdup(arena, text);
}

static enum local_outcome show_own(struct client *client, const struct statement *statement,
                                   struct buffer *answer, struct pg_error *error)
{
    struct arena *arena = client->request.arena;
    struct wire_column column = {statement->name, 25};
    const struct row *row = find_row(statement->name);
    const char *value = PGSHUNT_VERSION;
    if (row) {
        value = shown_value(client, row, arena);
    } else if (strcmp(statement->name, POSITION) == 0) {
        enum read_after_token token = read_after_token(client, arena, &value, error);
        if (token != READ_AFTER_TOKEN)
            return token == READ_AFTER_WAIT ? LOCAL_WAIT : LOCAL_REFUSED;
    } else if (strcmp(statement->name, VERSION_SETTING) != 0) {
        unknown_setting(arena, statement->name, error);
        return LOCAL_REFUSED;
    }
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
