/* read_after.c: tokens of a session's writes, and what a token asks of another session's reads. */
#include "proxy/read_after.h"

#include <stdlib.h>
#include <string.h>

#include "proxy/node_wait.h"
#include "proxy/pool.h"
#include "proxy/position.h"
#include "proxy/session.h"

#define NAME_MAX_BYTES 256

/* No replica has come so far: where it is not known what the token means here. */
static const struct position never = {.timeline = INT32_MAX, .lsn = UINT64_MAX};

/* ---- a token taken ---- */

static int shard_of(const struct database *database, const char *name)
{
    for (int i = 0; i < database->nshards; i++)
        if (strcmp(database->shards[i].name, name) == 0)
            return i;
    return -1;
}

/* NULL: fine; else what is wrong. `positions` has room for each shard, and is zero. */
static const char *take(const char *value, const struct database *database,
                        struct position *positions, struct arena *arena)
{
    char name[NAME_MAX_BYTES];
    struct position position;
    enum position_taken taken;
    while ((taken = position_take(&value, name, sizeof name, &position)) == POSITION_TAKEN) {
        int shard = shard_of(database, name);
        if (shard < 0)
            return arena_printf(arena, "This database has no shard \"%s\".", name);
        if (positions[shard].timeline)
            return arena_printf(arena, "Shard \"%s\" is named twice.", name);
        positions[shard] = position;
    }
    if (taken == POSITION_MALFORMED)
        return "It is not of the form SHARD:TIMELINE:LSN+SHARD:TIMELINE:LSN.";
    for (int i = 0; i < database->nshards; i++)
        if (!positions[i].timeline)
            return arena_printf(arena, "It tells nothing of shard \"%s\".",
                                database->shards[i].name);
    return NULL;
}

/* A server that the session keeps was chosen for less, and reads on it would not follow the token. */
static bool reads_already(const struct client *client)
{
    for (int i = 0; i < client->nparticipants; i++)
        if (atomic_load(&client->participants[i]->pool->node->role) == NODE_ROLE_REPLICA)
            return true;
    return false;
}

bool read_after_check(const struct client *client, const char *value, struct arena *arena,
                      struct pg_error *error)
{
    const struct database *database = client->database;
    if (!*value)
        return true;
    struct position *positions = arena_array(arena, struct position, database->nshards);
    memset(positions, 0, sizeof *positions * (size_t)database->nshards);
    const char *problem = take(value, database, positions, arena);
    if (problem) {
        *error = (struct pg_error){
            .sqlstate = "22023",
            .message = arena_printf(
                arena, "invalid value for parameter \"pgshunt.read_after\": \"%.200s\"", value),
            .detail = problem,
            .hint = "Allowed is what SHOW pgshunt.position has told, of a database with the same "
                    "shards."};
        return false;
    }
    if (!reads_already(client))
        return true;
    *error = (struct pg_error){
        .sqlstate = "25001",
        .message = "pgshunt.read_after cannot be set while the session reads on a replica",
        .hint = "Set it ahead of the transaction's, or the pipeline's, first statement."};
    return false;
}

/* The configuration may have changed since the value was checked. */
static void follow(const struct client *client, struct own_settings *own, const char *value)
{
    const struct database *database = client->database;
    struct arena arena;
    arena_init(&arena);
    free(own->positions);
    own->positions = mem_alloc(sizeof *own->positions * (size_t)database->nshards);
    if (take(value, database, own->positions, &arena) != NULL)
        for (int i = 0; i < database->nshards; i++)
            own->positions[i] = never;
    own->positions_version = client->topology->version;
    arena_free(&arena);
}

struct position read_after_of(const struct client *client, unsigned shard)
{
    const char *value = own_setting_value(client, OWN_READ_AFTER);
    struct own_settings *own = client->own;
    if (!value || !*value)
        return (struct position){0};
    if (!own->positions || own->positions_version != client->topology->version)
        follow(client, own, value);
    return own->positions[shard];
}

/* ---- a token made ---- */

static bool writes_uncommitted(const struct client *client)
{
    if (client->tx && client->tx->wrote)
        return true;
    for (int i = 0; i < client->nparticipants; i++)
        if (client->participants[i]->wrote)
            return true;
    return extended_has_written(client);
}

/* The primary's sample was sent after the moment (freshness.h). */
static const struct node *told_since(const struct shard *shard, int64_t moment)
{
    const struct node *node = shard_primary(shard);
    return node && atomic_load(&node->fresh_as_of) > moment && atomic_load(&node->timeline) > 0
               ? node
               : NULL;
}

bool read_after_is_known(const struct client *client)
{
    const struct database *database = client->database;
    for (int i = 0; i < database->nshards; i++)
        if (!told_since(&database->shards[i], client->request.node_wait.asked_at))
            return false;
    return true;
}

/*
 * Positions of a primary only grow, and a later one asks for more, never for less. The timeline is read
 * first: should it change in between, the token has the older one, which every replica has been on.
 * False: it is no primary any more.
 */
static bool put_shard(struct buffer *text, const struct shard *shard, int64_t asked_at)
{
    const struct node *node = told_since(shard, asked_at);
    if (!node)
        return false;
    struct position position = {.timeline = atomic_load(&node->timeline)};
    position.lsn = atomic_load(&node->wal_position);
    position_put(text, shard->name, &position);
    return shard_primary(shard) == node && position.timeline > 0;
}

static bool put_all(const struct client *client, struct buffer *text)
{
    const struct database *database = client->database;
    for (int i = 0; i < database->nshards; i++)
        if (!put_shard(text, &database->shards[i], client->request.node_wait.asked_at))
            return false;
    return true;
}

static enum read_after_token no_primary(struct client *client, struct arena *arena,
                                        struct pg_error *error)
{
    const struct database *database = client->database;
    const char *name = "";
    for (int i = database->nshards - 1; i >= 0; i--)
        if (!told_since(&database->shards[i], client->request.node_wait.asked_at))
            name = database->shards[i].name;
    *error = (struct pg_error){
        .sqlstate = "08006",
        .message = arena_printf(arena, "the primary of shard %s has not told its position", name),
        .hint = "SHOW NODES on the admin console tells which servers answer; "
                "routing.failover_wait says how long a position is waited for."};
    return READ_AFTER_REFUSED;
}

enum read_after_token read_after_token(struct client *client, struct arena *arena,
                                       const char **token, struct pg_error *error)
{
    struct buffer text = {0};
    struct node_wait *wait = &client->request.node_wait;
    if (writes_uncommitted(client)) {
        wait->token = false;
        *error = (struct pg_error){
            .sqlstate = "25001",
            .message = "pgshunt.position cannot tell of writes that are not committed",
            .hint = "Ask for it after the COMMIT, or the Sync of the pipeline."};
        return READ_AFTER_REFUSED;
    }
    if (!wait->token)
        return node_wait_token(client);
    enum read_after_token outcome = READ_AFTER_TOKEN;
    if (put_all(client, &text)) {
        buffer_append(&text, "", 1);
        *token = arena_strdup(arena, buffer_head(&text));
    } else {
        outcome = no_primary(client, arena, error);
    }
    wait->token = false;
    buffer_release(&text);
    return outcome;
}
